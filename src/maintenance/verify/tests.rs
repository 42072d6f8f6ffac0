//! Following the log behind damage; versions; causes.

use super::remembered::{CauseLimits, VersionChecks};
use super::search::Search;
use super::{Verify, verify_files_as};
use crate::disk::{Access, Disk, MemDisk};
use crate::format::{NewFrameHeader, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentId, header_alone};
use crate::log::{LogEnd, SegmentFile, Window};
use crate::{Append, Cause, EventId, Raw, Store};

/// A segment of `bytes` meaningless bytes, changed by `fill`.
fn segment(bytes: usize, fill: impl FnOnce(&SegmentHeader, &mut Vec<u8>)) -> SegmentFile {
    let header = SegmentHeader {
        store_id: [1; 16],
        id: SegmentId { first_position: 1, generation: 0 },
        salt: SegmentHeader::salt(42),
        created_at: 0,
        unsynced_bytes_max: 1 << 20,
        chain_before: [0; 32],
        recorded_before: 0,
    };
    let mut contents = header.write().to_vec();
    contents.resize(bytes, 1);
    fill(&header, &mut contents);
    let file = MemDisk::new().open("segment", Access::CreateNew).unwrap();
    crate::disk::write_all(file.as_ref(), &contents, 0).unwrap();
    SegmentFile { header, path: "segment".to_owned(), file }
}

/// Appends the header of a frame of this many events. A frame of several has a key and versions.
fn add_header(header: &SegmentHeader, contents: &mut Vec<u8>, events: u16) {
    let is_long = events > 1;
    let new = NewFrameHeader {
        position_offset: 6,
        durable_end: 0,
        events,
        flags: NewFrameHeader::flags_for(is_long, is_long),
        recorded_at: 0,
        first_version: 1,
        chain: [0; 32],
        key: is_long.then_some([0; 16]),
    };
    let place = header.frame_place(contents.len().try_into().unwrap());
    // Headers of 76 and of 96 bytes.
    let body_bytes = if is_long { 8 } else { 4 };
    contents.extend(header_alone(&new, &place, body_bytes));
}

/// A forged mark at every place once cost a check of half a mebibyte each; now it costs 96 bytes.
#[test]
fn marks_everywhere_cost_no_more_than_reading_the_segment_some_times() {
    const BYTES: usize = 4 << 20;
    let segment = segment(BYTES, |header, contents| {
        for at in (SEGMENT_HEADER_BYTES..BYTES - 80).step_by(80) {
            let mark = header.frame_mark(at.try_into().unwrap());
            contents[at..at + 8].copy_from_slice(&mark.to_le_bytes());
            contents[at + 24..at + 28].copy_from_slice(&[0xFF, 0xFF, 0x00, 0x03]);
        }
        add_header(header, contents, 1);
    });
    let mut window = Window::new(&segment, u32::MAX).unwrap();
    let mut search = Search::new(&window);
    let budget = search.left;
    assert!(budget < 32 * BYTES as u64, "{budget}");
    let tip = LogEnd::start(&segment);
    let found = search.resume(&mut window, &tip).unwrap().unwrap();
    assert_eq!((found.offset as usize, found.position), (BYTES, 6), "short headers are found all the same");
    assert!(budget - search.left < 2 * BYTES as u64, "{} of {budget} left", search.left);
    assert!(window.bytes_read < 3 * BYTES as u64, "{} bytes", window.bytes_read);
}

#[test]
fn long_headers_are_found_behind_damage() {
    let segment = segment(1 << 20, |header, contents| add_header(header, contents, u16::MAX));
    let mut window = Window::new(&segment, u32::MAX).unwrap();
    let mut search = Search::new(&window);
    let found = search.resume(&mut window, &LogEnd::start(&segment)).unwrap().unwrap();
    assert_eq!((found.offset, found.position), (1 << 20, 6));
    let next = search.resume(&mut window, &found).unwrap().unwrap();
    assert_eq!((next.position, next.events), (6 + 65_535, 65_535), "a damaged body is stepped over");
}

#[test]
fn versions_follow_one_another() {
    // Events (entity, version) from position 1; how many events are known to be missing; the findings.
    type Case<'a> = (&'a [(&'a str, u64)], u64, &'a [&'a str]);
    let cases: [Case<'_>; 8] = [
        (&[("a", 1), ("b", 1), ("a", 2), ("b", 2)], 0, &[]),
        (&[("a", 2)], 0, &["a goes from version 0 to 2"]),
        (&[("a", 1), ("a", 1)], 0, &["a goes from version 1 to 1"]),
        (&[("a", 1), ("a", 3), ("a", 4)], 0, &["a goes from version 1 to 3"]),
        (&[("a", 2), ("a", 1)], 1, &["a goes from version 2 to 1"]),
        (&[("a", 1), ("a", 4)], 2, &[]),
        (&[("a", 1), ("a", 4)], 1, &["a goes from version 1 to 4"]),
        (
            &[("a", 1), ("a", u64::MAX), ("a", 0)],
            u64::MAX,
            &["a goes from version 18446744073709551615 to 0"],
        ),
    ];
    for (events, missing, wrong) in cases {
        // Once with room for all, and once with an index that knows what was forgotten.
        let known = |entity: &str, position: u64| {
            let mut before = events.iter().take(usize::try_from(position).unwrap());
            Ok(before.rfind(|(other, _)| *other == entity).map_or(0, |(_, version)| *version))
        };
        for mut versions in [VersionChecks::new(None), VersionChecks::new(Some(&known)).remembering(1)] {
            versions.note_missing(missing);
            let mut meet = |position, (entity, version): &(&str, u64)| {
                let step = versions.note_event(entity.as_bytes(), *version, position)?;
                let told = format!("{entity} goes from version {} to {}", step.last, step.version);
                versions.is_wrong(&step).then_some(told)
            };
            let found: Vec<String> =
                (1..).zip(events).filter_map(|(position, event)| meet(position, event)).collect();
            assert_eq!(found, wrong, "{events:?}");
            assert_eq!(versions.unchecked, 0);
        }
    }
}

#[test]
fn what_was_forgotten_and_is_in_no_index_is_counted() {
    let mut versions = VersionChecks::new(None).remembering(2);
    for round in 1..=3 {
        for entity in ["a", "b", "c", "d"] {
            assert_eq!(versions.note_event(entity.as_bytes(), round, 1), None);
        }
    }
    assert!(versions.unchecked >= 8, "{}", versions.unchecked);
    let mut versions = VersionChecks::new(None);
    versions.begin_in_the_middle();
    assert_eq!(versions.note_event(b"a", 7, 100), None);
    assert_eq!((versions.note_event(b"a", 8, 101), versions.unchecked), (None, 1));
    assert!(versions.note_event(b"a", 8, 102).is_some());
}

#[test]
fn causes_are_looked_for_in_as_many_rounds_as_it_takes() {
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).segment_bytes_max(2000).open().unwrap();
    let mut ids: Vec<EventId> = Vec::new();
    let mut missing = Vec::new();
    for number in 0..90_usize {
        let append = Append::to(format!("e:{}", number % 7)).event(&Raw("x", &number));
        let nowhere = EventId::from_bytes([u8::try_from(number).unwrap(); 16]);
        let append = match number % 5 {
            1 => append.cause(Cause::Event(ids[number / 2])),
            2 => append.cause(Cause::Event(ids[number - 1])),
            3 => append.cause(Cause::Event(nowhere)),
            _ => append,
        };
        let appended = append.commit(&store).unwrap();
        if number % 5 == 3 {
            missing.push(appended.position().get());
        }
        ids.extend(appended.ids());
    }
    store.close().unwrap();
    for (recent, wanted) in [(1, 1), (1, 4), (3, 2), (10, 1000), (1000, 5), (1000, 1000)] {
        let asked = Verify { causes: Some(CauseLimits { recent, wanted }), ..Verify::new() };
        let report = verify_files_as(&disk, &mut |_, _, _, _| {}, asked).unwrap();
        let found: Vec<u64> = report.causes.iter().map(|missing| missing.position.get()).collect();
        assert_eq!(found, missing, "room for {recent} and {wanted}: {report}");
        assert_eq!(report.causes_compared, 54, "room for {recent} and {wanted}");
    }
}
