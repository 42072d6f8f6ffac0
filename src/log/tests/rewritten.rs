//! Stores as maintenance leaves them: frames removed from a sealed segment on purpose.

use super::super::cursor::LogEnd;
use super::super::segment::SegmentFile;
use super::*;
use crate::disk::MemDisk;
use crate::format::{Attestation, Cover, Frame, NewFrameHeader, Seal, SegmentHeader, SegmentId, frame};
use crate::types::{to_u32, to_usize};
use crate::{Append, RecordedEvent};

const ENTITIES: [&str; 3] = ["a", "b", "c"];

/// Three segments or more. Append n adds 1, 2 or 3 events to one of three streams, one second after
/// the one before it.
fn original() -> SimDisk {
    let disk = SimDisk::new(7);
    let seconds = std::sync::atomic::AtomicU64::new(0);
    let clock = move || {
        let second = seconds.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    };
    let store = Store::on(disk.clone()).segment_bytes_max(2048).clock(clock).open().unwrap();
    for n in 0..20_usize {
        let mut append = Append::to(ENTITIES[n % 5 % 3]);
        for _ in 0..=n % 3 {
            append = append.event(&Raw("noted", &(n, "x".repeat(60))));
        }
        append.commit(&store).unwrap();
    }
    store.close().unwrap();
    assert!(disk.paths().iter().filter(|path| path.starts_with("segments/")).count() >= 3);
    disk
}

/// A copy of `disk` whose first segment lacks these of its frames, and has those left over changed.
fn rewritten(
    disk: &SimDisk,
    removed: &[usize],
    change: impl Fn(usize, &mut NewFrameHeader),
) -> (SimDisk, Vec<u64>) {
    let copy = disk.trace();
    let copy = copy.image(copy.len(), CrashMode::Keep);
    let (mut manifest, _) = Manifest::read(&disk.contents("MANIFEST").unwrap()).unwrap();
    let old = manifest.sealed[0].id;
    let bytes = disk.contents(&old.path()).unwrap();
    let from = SegmentHeader::read(&bytes).unwrap();
    let id = SegmentId { generation: 1, ..old };
    let header = SegmentHeader { id, salt: SegmentHeader::salt(99), ..from.clone() };
    let file = MemDisk::new().open("", Access::CreateNew).unwrap();
    let mut tip = LogEnd::start(&SegmentFile { header: header.clone(), path: String::new(), file });
    let mut out = header.write().to_vec();
    let mut at = SEGMENT_HEADER_BYTES;
    let mut positions = Vec::new();
    let mut body = Vec::new();
    for number in 0.. {
        let place = from.frame_place(to_u32(at));
        let Ok(frame) = frame::read(&bytes[at..], &place) else { break };
        let offset = to_u32(out.len());
        if removed.contains(&number) {
            out.extend(attestation(&frame, &tip).write(&header, offset.into()));
        } else {
            frame.unbound_body(&place, &mut body);
            let mut moved = NewFrameHeader { durable_end: offset, ..frame.header.fields() };
            change(number, &mut moved);
            moved.write(&mut out, &header.frame_place(offset), &body, &frame.versions());
            positions.extend((tip.position + 1..).take(frame.header.events().into()));
            tip.frames += 1;
            tip.events += u32::from(frame.header.events());
        }
        tip.position += u64::from(frame.header.events());
        tip.recorded_at = frame.header.recorded_at();
        tip.chain = frame.header.chain();
        at += frame.header.frame_bytes();
    }
    tip.offset = out.len().try_into().unwrap();
    let seal: Seal = tip.seal().unwrap();
    out.extend(seal.write(&header, tip.offset.into()));
    assert_eq!(out.len(), to_usize(seal.length));
    manifest.sealed[0] = SegmentEntry::new(&header, &seal);
    copy.set_contents(&id.path(), Some(out));
    copy.set_contents(&old.path(), None);
    copy.set_contents("MANIFEST", Some(manifest.write().0));
    (copy, positions)
}

/// What stands for one frame behind `tip`.
fn attestation(frame: &Frame<'_>, tip: &LogEnd) -> Attestation {
    let mut cover = Cover::new(tip.position);
    (0..frame.header.events()).for_each(|_| cover.push_leaf([7; 32]));
    Attestation {
        chain_before: tip.chain,
        chain_after: frame.header.chain(),
        last_recorded_at: frame.header.recorded_at(),
        order: 1 << 40,
        cover,
    }
}

fn events(store: &Store, query: Query) -> Vec<RecordedEvent> {
    store.read(query).map(Result::unwrap).collect()
}

/// Found by reading: the index counted a segment's events instead of their positions, so everything
/// behind a removed frame was found at another event's place.
#[test]
fn what_is_left_is_read_as_before() {
    let disk = original();
    let all = events(&open_rewritten(&disk).unwrap(), Query::all());
    for removed in [&[0][..], &[1], &[0, 1], &[1, 2, 4], &[3, 5], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]] {
        let (disk, first) = rewritten(&disk, removed, |_, _| {});
        let is_left = |event: &RecordedEvent| {
            let position = event.position().get();
            first.contains(&position) || !is_in_first(&disk, position)
        };
        let left: Vec<&RecordedEvent> = all.iter().filter(|event| is_left(event)).collect();
        assert!(left.len() < all.len());
        let store = open_rewritten(&disk).unwrap_or_else(|error| panic!("{removed:?}: {error}"));
        check_reads(&store, &all, &left);
        assert_eq!(store.stats().events, u64::try_from(left.len()).unwrap());
        assert!(store.verify().unwrap().is_clean(), "{removed:?}: {}", store.verify().unwrap());
    }
}

fn open_rewritten(disk: &SimDisk) -> Result<Store, Error> {
    Store::on(disk.clone()).segment_bytes_max(2048).open()
}

fn is_in_first(disk: &SimDisk, position: u64) -> bool {
    let (manifest, _) = Manifest::read(&disk.contents("MANIFEST").unwrap()).unwrap();
    position <= manifest.sealed[0].last_position
}

/// Every way of reading finds what is left, where it was.
fn check_reads(store: &Store, all: &[RecordedEvent], left: &[&RecordedEvent]) {
    let key = |event: &RecordedEvent| (event.position(), event.id(), event.version());
    let same = |found: Vec<RecordedEvent>, right: Vec<&RecordedEvent>, what: &str| {
        let found: Vec<_> = found.iter().map(key).collect();
        assert_eq!(found, right.into_iter().map(key).collect::<Vec<_>>(), "{what}");
    };
    same(events(store, Query::all()), left.to_vec(), "all");
    same(
        store.read(Query::all()).backwards().map(Result::unwrap).collect(),
        left.iter().rev().copied().collect(),
        "backwards",
    );
    for entity in ENTITIES {
        let own: Vec<&RecordedEvent> =
            left.iter().filter(|event| event.entity() == entity).copied().collect();
        same(events(store, Query::entity(entity)), own.clone(), entity);
        let last = own.last().unwrap();
        assert_eq!(store.version(entity).unwrap(), last.version(), "{entity}");
        for asked in 0..=last.version().get() {
            let found = store.stream(entity).versions(..=asked).map(Result::unwrap).collect();
            same(found, own.iter().filter(|e| e.version().get() <= asked).copied().collect(), "versions");
        }
    }
    for event in all {
        let is_left = left.iter().any(|left| left.id() == event.id());
        let found = store.get(event.id()).unwrap();
        assert_eq!(found.as_ref().map(key), is_left.then(|| key(event)), "{}", event.position());
        let from = store.read(Query::all()).between(event.recorded_at()..).map(Result::unwrap).collect();
        same(from, left.iter().filter(|l| l.recorded_at() >= event.recorded_at()).copied().collect(), "time");
    }
}

/// Found by reading: in a rewritten segment any version was taken for one behind a gap, up to one that
/// the writer could not count on from.
#[test]
fn versions_behind_removed_frames_grow_and_fit_their_positions() {
    let disk = original();
    let first_versions = |number: usize, version: u64| {
        rewritten(&disk, &[2], move |frame, header| {
            if frame == number {
                header.first_version = version;
            }
        })
    };
    // Frames 0 and 3 are of "a": at position 1, its version 1; at 7, its version 2.
    for (frame, version, is_right) in [
        (0, 0, false),
        (0, 1, true),
        (0, 2, false),
        (0, u64::MAX, false),
        (3, 1, false),
        (3, 2, true),
        (3, 8, false),
        (3, u64::MAX, false),
    ] {
        let (disk, _) = first_versions(frame, version);
        let store = open_rewritten(&disk).unwrap();
        // Opening does not read listed segments; a reader does.
        match store.stream(ENTITIES[0]).collect::<Result<Vec<_>, _>>() {
            Ok(_) => assert!(is_right, "frame {frame} version {version}"),
            Err(error) => {
                assert!(!is_right, "frame {frame} version {version}: {error}");
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                assert!(error.to_string().contains(".1.seg, offset "), "{error}");
            }
        }
    }
}
