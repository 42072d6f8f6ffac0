//! Ties the code to the golden files: decodes them and encodes them again. Then it tries to mislead the code
//! with flipped bits, cut ends and hostile values.
//!
//! tests/it/golden.rs has the store that these structures come from, and says how to bless them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and prints what it tried"
)]

#[path = "../../tests/golden/annotate.rs"]
mod annotate;
mod bound;
pub(super) mod forge;
mod hostile;
mod optional;
mod size;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::chain::{Assigned, Hash, body_content, extended_content, genesis, link};
use super::checksum;
use super::frame::{self, Frame, NewFrameHeader, padded_body_bytes};
use super::manifest::{Lineage, Manifest, SegmentEntry};
use super::mark::{self, Mark};
use super::place::{BodyLayout, FramePlace};
use super::record::{self, NewRecord, Record, RecordFields, records};
use super::segment::{Attestation, SEGMENT_HEADER_BYTES, Seal, SegmentHeader, SegmentId};
use super::tree::{Cover, Leaf};
use crate::disk::{Access, Disk, MemDisk, SimDisk};
use crate::index::{Bound, LiveIndex, SealedIndex, SegmentIndex, TermHash};
use crate::log::SegmentFile;
use crate::types::{Cause, EventId, to_u32, to_u64};
use crate::{Query, Raw, Store};
use annotate::{Notes, strip};

/// 2026-01-02T03:04:05Z, when the golden store was created; second 1 is its first event.
const START: u64 = 1_767_323_045_000_000;
const SECOND: u64 = 1_000_000;

const FIRST: &str = "segments/00000000000000000001.0.seg";
const SECOND_FILE: &str = "segments/00000000000000000007.0.seg";
const REWRITTEN: &str = "segments/00000000000000000001.1.seg";

/// The golden store's first segment, and what is in it.
struct GoldenSegment {
    bytes: Vec<u8>,
    header: SegmentHeader,
    /// Where frames and the seal begin.
    offsets: Vec<usize>,
}

impl GoldenSegment {
    fn read() -> GoldenSegment {
        GoldenSegment::of(golden_bytes(&format!("store/{FIRST}")))
    }

    fn of(bytes: Vec<u8>) -> GoldenSegment {
        let header = SegmentHeader::read(&bytes).unwrap();
        let mut offsets = vec![SEGMENT_HEADER_BYTES];
        loop {
            let at = *offsets.last().unwrap();
            let Ok(frame) = frame::read(&bytes[at..], &header.frame_place(to_u32(at))) else { break };
            offsets.push(at + frame.header.frame_bytes());
        }
        GoldenSegment { bytes, header, offsets }
    }

    fn frame_bytes(&self, index: usize) -> &[u8] {
        &self.bytes[self.offsets[index]..self.offsets[index + 1]]
    }

    fn place(&self, index: usize) -> FramePlace {
        self.header.frame_place(to_u32(self.offsets[index]))
    }

    fn frame(&self, index: usize) -> Frame<'_> {
        frame::read(self.frame_bytes(index), &self.place(index)).unwrap()
    }

    fn seal_bytes(&self) -> &[u8] {
        &self.bytes[*self.offsets.last().unwrap()..]
    }
}

#[test]
fn golden_segment_header() {
    let story = GoldenSegment::read();
    let bytes = &story.bytes[..SEGMENT_HEADER_BYTES];
    check_text("segment-header", &format!("The segment header of store/{FIRST}"), 0, bytes, |notes| {
        notes.segment_header();
    });
    let expected = SegmentHeader {
        store_id: story.header.store_id,
        id: SegmentId { first_position: 1, generation: 0 },
        salt: story.header.salt,
        created_at: START,
        unsynced_bytes_max: 32 << 20,
        chain_before: genesis(&story.header.store_id),
        recorded_before: 0,
    };
    assert_eq!(story.header, expected);
    assert_eq!(expected.write().as_slice(), bytes);
    assert_eq!(expected.id.path(), FIRST);
    assert_eq!(SegmentId::parse(&expected.id.file_name()), Some(expected.id));
}

#[test]
fn golden_frame_of_one_event() {
    let story = GoldenSegment::read();
    check_text(
        "frame-single",
        &format!("A frame of one event, the first of store/{FIRST}"),
        SEGMENT_HEADER_BYTES,
        story.frame_bytes(0),
        Notes::frame,
    );
    let frame = story.frame(0);
    let expected = NewFrameHeader {
        position_offset: 0,
        durable_end: 144,
        events: 1,
        flags: 0,
        recorded_at: START + SECOND,
        first_version: 1,
        chain: frame.header.chain(),
        key: None,
    };
    assert_eq!(frame.header.fields(), expected);
    assert_eq!((frame.header.header_bytes(), frame.header.body_bytes()), (76, 76));
    check_encoding(&story, 0);
    let record = record_at(&frame, 0);
    assert_eq!(record.fields(), fields("account:alice", "account.opened"));
    assert_eq!(record.metadata(), Some(&[][..]));
    assert_eq!(record.payload(), Some(&b"\x81\xa5owner\xa5Alice"[..]));
}

#[test]
fn golden_frame_with_everything() {
    let story = GoldenSegment::read();
    check_text(
        "frame-full",
        &format!("A frame with a key, several entities and all optional fields, the second of store/{FIRST}"),
        story.offsets[1],
        story.frame_bytes(1),
        Notes::frame,
    );
    let frame = story.frame(1);
    let versions: Vec<u8> = [2_u64, 1, 2].iter().flat_map(|version| version.to_le_bytes()).collect();
    let key: Hash = *blake3::hash(b"transfer-17").as_bytes();
    let expected = NewFrameHeader {
        position_offset: 1,
        durable_end: u32::try_from(story.offsets[1]).unwrap(),
        events: 3,
        flags: 0x0300,
        recorded_at: START + 2 * SECOND,
        first_version: 2,
        chain: frame.header.chain(),
        key: key.first_chunk().copied(),
    };
    assert_eq!(frame.header.fields(), expected);
    assert_eq!((frame.header.header_bytes(), frame.header.body_bytes()), (96, 336));
    assert_eq!(
        [0, 1, 2].map(|index| frame.header.version(index, &record_at(&frame, index.into()))),
        [2, 1, 2]
    );
    assert_eq!(frame.versions(), versions);
    check_encoding(&story, 1);

    let first = EventId::derive(START + SECOND, 1.into(), &story.frame(0).header.chain());
    let withdrawn = RecordFields {
        scope: "tenant:acme",
        tag_bytes: b"\x0btransfer:17\x06urgent",
        correlation: Some("0192d4e0-7f00-7000-8000-00000000c0de".parse().unwrap()),
        occurred_at: Some(i64::try_from(START - 86_400 * SECOND).unwrap()),
        foreign_id: Some("f81d4fae-7dec-11d0-a765-00a0c91e6bf6".parse().unwrap()),
        cause: Some(Cause::Event(first)),
        has_metadata: true,
        ..fields("account:alice", "account.withdrawn")
    };
    let opened = RecordFields { cause: Some(Cause::InAppend(0)), ..fields("account:bob", "account.opened") };
    let deposited =
        RecordFields { cause: Some(Cause::PreviousInStream), ..fields("account:bob", "account.deposited") };
    let found = [0, 1, 2].map(|index| record_at(&frame, index));
    assert_eq!(found.each_ref().map(|record| record.fields()), [withdrawn, opened, deposited]);
    assert_eq!(record::tags(withdrawn.tag_bytes).collect::<Vec<_>>(), ["transfer:17", "urgent"]);
    assert_eq!(found[0].metadata(), Some(&b"\xa8by phone"[..]));
    assert_eq!(found[0].payload(), Some(&b"\x81\xa5cents\xcd\x01\xf4"[..]));
}

/// The index of the golden store's first segment, as a file, answers as the events say.
#[test]
fn golden_index_file() {
    let story = GoldenSegment::read();
    let file = MemDisk::new().open("segment", Access::CreateNew).unwrap();
    let segment = SegmentFile { header: story.header.clone(), path: FIRST.to_owned(), file };
    let mut index = LiveIndex::new(u32::try_from(SEGMENT_HEADER_BYTES).unwrap());
    for at in 0..3 {
        let offset = u32::try_from(story.offsets[at]).unwrap();
        index.insert(&segment, offset, &story.frame(at)).unwrap();
    }
    let bound = Bound {
        store_id: story.header.store_id,
        segment: story.header.id,
        end: index.end(),
        last_position: 6,
        chain: story.frame(2).header.chain(),
    };
    let bytes = index.encode(&bound).unwrap();
    let title = format!("The index file of store/{FIRST}");
    check_text("index-file", &title, 0, &bytes, Notes::index_file);
    assert_eq!(bound.segment.index_path(), "segments/00000000000000000001.0.idx");

    let sealed = SealedIndex::whole(bytes.into(), "x.idx", &bound).unwrap();
    let forms: [&dyn SegmentIndex; 2] = [&sealed, &index];
    let first = EventId::derive(START + SECOND, 1.into(), &story.frame(0).header.chain());
    let key: Hash = *blake3::hash(b"transfer-17").as_bytes();
    for form in forms {
        assert_eq!((form.events(), form.ordinals(), form.streams_created()), (6, 0..6, 3));
        assert_eq!(form.last_of("account:bob", 9).unwrap(), Some((2, 3)));
        assert_eq!(form.effects(first).unwrap(), [1]);
        assert_eq!(form.key(key.first_chunk().unwrap()).unwrap(), Some(1));
        assert_eq!(form.count(&Query::all().kind("account.opened"), &(0..6), &|_| None).unwrap(), 2);
        assert!(form.is_follower(3).unwrap());
    }
    assert!(sealed.may_have(TermHash::entity(&story.header.store_id, "account:bob")));
}

#[test]
fn golden_seal() {
    let story = GoldenSegment::read();
    let at = *story.offsets.last().unwrap();
    let title = format!("The seal of store/{FIRST}");
    check_text("seal", &title, at, story.seal_bytes(), Notes::seal);
    let last = story.frame(2);
    let expected = Seal {
        length: u32::try_from(story.bytes.len()).unwrap(),
        last_position: 6,
        last_recorded_at: START + 3 * SECOND,
        frames: 3,
        events: 6,
        chain: last.header.chain(),
    };
    assert!(story.header.is_seal(story.seal_bytes(), to_u64(at)));
    assert_eq!(Seal::read(story.seal_bytes()).unwrap(), expected);
    assert_eq!(expected.write(&story.header, to_u64(at)).as_slice(), story.seal_bytes());
}

#[test]
fn golden_mark() {
    let file = golden_bytes("store/MARK");
    assert_eq!(file.len(), mark::FILE_BYTES);
    let newest = mark::newest(&file).unwrap().unwrap();
    let at = usize::try_from(newest.offset()).unwrap();
    let bytes = &file[at..at + mark::MARK_SLOT_BYTES];
    check_text("mark", "The newer slot of store/MARK", at, bytes, Notes::mark_slot);
    let expected = Mark {
        store_id: GoldenSegment::read().header.store_id,
        sequence: 11,
        segment: SegmentId { first_position: 10, generation: 0 },
        durable_end: 728,
        position: 11,
        chain: newest.chain,
        clean: true,
    };
    assert_eq!(newest, expected);
    assert_eq!(expected.write().as_slice(), bytes);
}

#[test]
fn golden_manifest() {
    let bytes = golden_bytes("rewritten/MANIFEST");
    check_text("manifest", "The whole of rewritten/MANIFEST", 0, &bytes, Notes::manifest);
    let (manifest, digest) = Manifest::read(&bytes).unwrap();
    assert_eq!(manifest, rewritten_manifest());
    assert_eq!(manifest.write(), (bytes, digest));

    let bytes = golden_bytes("store/MANIFEST");
    let (manifest, _) = Manifest::read(&bytes).unwrap();
    assert_eq!((manifest.sequence, manifest.history_revision, manifest.sealed.len()), (3, 0, 2));
    assert_eq!(manifest.write().0, bytes);
}

#[test]
fn golden_attestation() {
    let story = GoldenSegment::of(golden_bytes(&format!("rewritten/{REWRITTEN}")));
    let at = *story.offsets.last().unwrap();
    let before = story.frame(1).header.chain();
    let found = Attestation::read(&story.bytes[at..], 4, &before).unwrap();
    let bytes = &story.bytes[at..at + found.bytes()];
    let title = format!("The attestation in rewritten/{REWRITTEN}");
    check_text("attestation", &title, at, bytes, Notes::attestation);
    assert!(story.header.is_attestation(bytes, to_u64(at)));
    let original = GoldenSegment::read();
    assert_eq!(found, attestation(&original));
    assert_eq!(found.write(&story.header, to_u64(at)), bytes);
}

#[test]
fn golden_erased_event() {
    let story = GoldenSegment::of(golden_bytes(&format!("rewritten/{REWRITTEN}")));
    check_text(
        "frame-erased",
        &format!("The frame of one event, after erasure, in rewritten/{REWRITTEN}"),
        SEGMENT_HEADER_BYTES,
        story.frame_bytes(0),
        Notes::frame,
    );
    let original = GoldenSegment::read();
    let whole = original.frame(0);
    let erased = story.frame(0);
    let before = record_at(&whole, 0);
    let after = record_at(&erased, 0);
    assert_eq!((after.public(), after.private()), (before.public(), None));
    assert_eq!((after.content(), after.payload(), after.metadata()), (before.content(), None, None));
    assert_eq!(after.content(), before.content());
    assert_eq!(erased.header.chain(), whole.header.chain());
    assert_eq!(chain_of(&erased, 1, &original.header.chain_before), whole.header.chain());
}

#[test]
fn golden_gone_event() {
    let story = GoldenSegment::of(golden_bytes(&format!("rewritten/{REWRITTEN}")));
    check_text(
        "frame-gone",
        &format!("The frame of three events, of which the second is gone, in rewritten/{REWRITTEN}"),
        story.offsets[1],
        story.frame_bytes(1),
        Notes::frame,
    );
    let original = GoldenSegment::read();
    let whole = original.frame(1);
    let reduced = story.frame(1);
    let indexes: Vec<u16> = reduced.records().map(|record| record.unwrap().0).collect();
    assert_eq!((indexes, reduced.events_left()), (vec![0, 2], 2));
    for (before, after) in whole.all_records().zip(reduced.all_records()) {
        let before = before.unwrap();
        let after = after.unwrap();
        assert_eq!((after.content(), after.version()), (before.content(), before.version()));
    }
    assert_eq!(reduced.versions(), whole.versions());
    assert_eq!(chain_of(&reduced, 2, &original.frame(0).header.chain()), whole.header.chain());
}

#[test]
fn golden_event_id() {
    let story = GoldenSegment::read();
    let frame = story.frame(1);
    let id = EventId::derive(frame.header.recorded_at(), 3.into(), &frame.header.chain());
    check_text("event-id", "The derived id of the event at position 3", 0, id.as_bytes(), |notes| {
        notes.take(6, "milliseconds of recorded-at: 1767323047000 = 019b7ca99458, big-endian");
        notes.take(2, "version 7 in the first four bits, then position bits 47 to 36");
        notes.take(8, "10 in the first two bits, then position bits 35 to 0, then 26 bits of the chain");
    });
    assert_eq!(id.claimed_position().get(), 3);
    let uuid = u128::from_be_bytes(*id.as_bytes());
    assert_eq!(uuid >> 80, 1_767_323_047_000);
    assert_eq!((uuid >> 76 & 0xF, uuid >> 62 & 0b11), (7, 0b10));
    assert_eq!((uuid >> 64 & 0xFFF) << 36 | uuid >> 26 & 0xF_FFFF_FFFF, 3);
    let chain = u32::from_be_bytes(*frame.header.chain().first_chunk().unwrap());
    assert_eq!(uuid & 0x3FF_FFFF, u128::from(chain & 0x3FF_FFFF));
}

#[test]
fn every_bit_of_an_id_is_where_the_specification_says() {
    let positions = (0..48).map(|bit| 1 << bit).chain([1, (1 << 48) - 1]);
    for (position, micros) in
        positions.flat_map(|position| [(position, 0), (position, START), (position, u64::MAX)])
    {
        for chain in [[0; 32], [0xFF; 32], [0x5A; 32]] {
            let id = EventId::derive(micros, position.into(), &chain);
            assert_eq!(id.claimed_position().get(), position);
            let millis = u128::from(micros / 1000) & ((1 << 48) - 1);
            let high = u128::from(position >> 36);
            let low = u128::from(position & ((1 << 36) - 1));
            let chain = u128::from(u32::from_be_bytes(*chain.first_chunk().unwrap()) & 0x3FF_FFFF);
            let expected = millis << 80 | 7 << 76 | high << 64 | 0b10 << 62 | low << 26 | chain;
            assert_eq!(u128::from_be_bytes(*id.as_bytes()), expected, "{position} {micros}");
        }
    }
}

#[test]
fn golden_chain() {
    let story = GoldenSegment::read();
    let one = story.frame(0);
    let full = story.frame(1);
    let start = genesis(&story.header.store_id);
    let only = record_at(&one, 0);
    let contents = [0, 1, 2].map(|index| record_at(&full, index).content());
    let body = body_content(&contents);
    let extended = extended_content(&body, &extension(&full));
    let private = blake3::hash(only.private().unwrap());
    let pieces: [(&[u8], &str); 12] = [
        (&start, "genesis: BLAKE3(03, store id)"),
        (private.as_bytes(), "private hash: BLAKE3(private part)"),
        (&only.content(), "content: BLAKE3(00, public part, private hash)"),
        (&block(&only.content(), &assigned(&one, 1)), "the block: content, assigned fields, zeros"),
        (&one.header.chain(), "chain: BLAKE3 of the block, keyed by the genesis"),
        (&contents[0], "content of event 0"),
        (&contents[1], "content of event 1"),
        (&contents[2], "content of event 2"),
        (&body, "content of the body: BLAKE3(01, the three)"),
        (&extended, "extended content: BLAKE3(02, content of the body, key, versions)"),
        (&block(&extended, &assigned(&full, 2)), "the block: extended content, assigned fields, zeros"),
        (&full.header.chain(), "chain: BLAKE3 of the block, keyed by the chain before"),
    ];
    let bytes: Vec<u8> = pieces.iter().flat_map(|(piece, _)| piece.iter().copied()).collect();
    check_text("chain", "The chain over the first two frames, step by step", 0, &bytes, |notes| {
        for (index, (piece, name)) in pieces.iter().enumerate() {
            match index {
                0 => notes.part("the frame of one event, at position 1"),
                5 => notes.part("the frame of three events, from position 2"),
                _ => {}
            }
            notes.take(piece.len(), name);
        }
    });
    // Once more by the letter of the specification, without the code it is about.
    let hash = |pieces: &[&[u8]]| -> Hash { blake3::hash(&pieces.concat()).into() };
    assert_eq!(start, hash(&[&[3], &story.header.store_id]));
    let content = hash(&[&[0], only.public(), &hash(&[only.private().unwrap()])]);
    let first: Hash = blake3::keyed_hash(&start, &block(&content, &assigned(&one, 1))).into();
    assert_eq!(one.header.chain(), first);
    let content = hash(&[&[2], &hash(&[&[1], contents.as_flattened()]), &extension(&full)]);
    let second: Hash = blake3::keyed_hash(&first, &block(&content, &assigned(&full, 2))).into();
    assert_eq!(full.header.chain(), second);
    assert_eq!(chain_of(&full, 2, &first), second);
}

/// The 64 bytes a link hashes, put together by hand.
fn block(content: &Hash, assigned: &Assigned) -> [u8; 64] {
    let fields = [
        content.as_slice(),
        &assigned.position.to_le_bytes(),
        &assigned.recorded_at.to_le_bytes(),
        &assigned.first_version.to_le_bytes(),
        &assigned.events.to_le_bytes(),
        &assigned.flags.to_le_bytes(),
        &[0; 4],
    ];
    fields.concat().try_into().unwrap()
}

/// A store as maintenance will leave one, made by hand from the golden store: a fork whose first
/// segment was rewritten (one event erased, one gone, one append removed), and that went on by itself.
#[test]
fn golden_rewritten_store() {
    let disk = SimDisk::new(3);
    disk.create_directory("segments").unwrap();
    disk.set_contents(REWRITTEN, Some(rewritten_segment(&GoldenSegment::read())));
    disk.set_contents(SECOND_FILE, Some(golden_bytes(&format!("store/{SECOND_FILE}"))));
    disk.set_contents("MANIFEST", Some(rewritten_manifest().write().0));
    let clock = || SystemTime::UNIX_EPOCH + Duration::from_micros(START + 20 * SECOND);
    let store = Store::on(disk.clone()).segment_bytes_max(1024).clock(clock).open().unwrap();
    store.append("account:alice", &Raw("account.reopened", &())).unwrap();
    store.close().unwrap();

    // Index files are made again whenever they are needed, and have a golden one of their own.
    for path in disk.paths().into_iter().filter(|path| !path.ends_with(".idx")) {
        let bytes = disk.contents(&path).unwrap();
        let mut notes = Notes::new(&path, 0, &bytes);
        match path.as_str() {
            "MANIFEST" => notes.manifest(),
            "MARK" => notes.mark_file(),
            _ => notes.segment(),
        }
        check_file(&golden(&format!("rewritten/{path}.hex")), &notes.finish());
    }
}

fn rewritten_segment(original: &GoldenSegment) -> Vec<u8> {
    let header = SegmentHeader {
        id: SegmentId { generation: 1, ..original.header.id },
        salt: SegmentHeader::salt(0x0123_4567_89AB_CDEF),
        created_at: START + 10 * SECOND,
        ..original.header.clone()
    };
    let mut out = header.write().to_vec();
    let erased = erased_body(&original.frame(0));
    let mut whole = Vec::new();
    original.frame(1).unbound_body(&original.place(1), &mut whole);
    let reduced = gone_body(&Frame { body: &whole, ..original.frame(1) });
    for (index, body) in [erased, reduced].iter().enumerate() {
        let durable_end = to_u32(out.len());
        let frame = original.frame(index);
        let moved = NewFrameHeader { durable_end, ..frame.header.fields() };
        moved.write(&mut out, &header.frame_place(durable_end), body, &frame.versions());
    }
    let place = to_u64(out.len());
    out.extend(attestation(original).write(&header, place));
    let place = to_u64(out.len());
    out.extend(rewritten_seal(original).write(&header, place));
    out
}

/// The one record of a frame, without its private part and bound to no place.
fn erased_body(frame: &Frame<'_>) -> Vec<u8> {
    let record = record_at(frame, 0);
    let public_bytes = u16::try_from(record.public().len()).unwrap();
    let private_hash = blake3::hash(record.private().unwrap());
    let covered =
        [&[32, 0, 0, 1], &public_bytes.to_le_bytes()[..], record.public(), private_hash.as_bytes()].concat();
    let mut body = [&crc32c::crc32c(&covered).to_le_bytes(), covered.as_slice()].concat();
    // The header has 76 bytes.
    body.resize((76 + body.len()).next_multiple_of(8) - 76, 0);
    body
}

/// The records of a frame of three, whose second event is gone. They are bound to no place.
fn gone_body(frame: &Frame<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    for (index, record) in frame.all_records().map(Result::unwrap).enumerate() {
        if index != 1 {
            body.extend_from_slice(record.bytes());
            continue;
        }
        let covered = [&[32, 0, 0, 2, 0, 0][..], &record.content()].concat();
        body.extend_from_slice(&crc32c::crc32c(&covered).to_le_bytes());
        body.extend_from_slice(&covered[..6]);
        body.extend_from_slice(&record.version().unwrap().to_le_bytes()[..6]);
        body.extend_from_slice(&covered[6..]);
    }
    body.resize((96 + body.len()).next_multiple_of(8) - 96, 0);
    body
}

fn attestation(original: &GoldenSegment) -> Attestation {
    let removed = original.frame(2);
    let header = removed.header;
    let mut cover = Cover::new(4);
    for index in 0..2 {
        let record = record_at(&removed, index.into());
        let leaf = Leaf {
            index,
            events: 2,
            position: 5 + u64::from(index),
            recorded_at: header.recorded_at(),
            version: header.version(index, &record),
            record: record.content(),
            chain: header.chain(),
        };
        cover.push_leaf(leaf.hash());
    }
    Attestation {
        chain_before: original.frame(1).header.chain(),
        chain_after: header.chain(),
        last_recorded_at: header.recorded_at(),
        order: 12,
        cover,
    }
}

fn rewritten_seal(original: &GoldenSegment) -> Seal {
    Seal { length: 864, frames: 2, events: 3, ..Seal::read(original.seal_bytes()).unwrap() }
}

fn rewritten_manifest() -> Manifest {
    let (origin, previous) = Manifest::read(&golden_bytes("store/MANIFEST")).unwrap();
    let seal = rewritten_seal(&GoldenSegment::read());
    let first = SegmentEntry {
        id: SegmentId { first_position: 1, generation: 1 },
        length: seal.length,
        frames: seal.frames,
        events: seal.events,
        ..origin.sealed[0].clone()
    };
    Manifest {
        minor: 0,
        compatible: 0,
        is_cut: false,
        is_changing: false,
        store_id: *b"a forked store\x01\x02",
        sequence: 1,
        history_revision: 1,
        created_at: START + 10 * SECOND,
        previous,
        line: *b"a line of events",
        lineage: vec![Lineage { store_id: origin.store_id, up_to: origin.sealed[1].last_position }],
        sealed: vec![first, origin.sealed[1].clone()],
    }
}

/// What the encoder makes of a frame's parts is the frame.
fn check_encoding(story: &GoldenSegment, index: usize) {
    let frame = story.frame(index);
    let layout = frame.header.layout();
    let mut body = Vec::new();
    for found in frame.records() {
        let (_, found) = found.unwrap();
        let metadata = found.metadata().unwrap();
        let payload = found.payload().unwrap();
        let start = body.len();
        let new = NewRecord { fields: found.fields(), metadata, payload };
        record::write(&mut body, &new, layout.has_versions).unwrap();
        let salt = record::salt_place(&body, start, layout);
        body[salt].copy_from_slice(&found.private().unwrap()[..record::SALT]);
        record::seal(&mut body[start..]);
        assert_eq!(body.len() - start, found.shape().bytes());
    }
    body.resize(padded_body_bytes(body.len(), frame.header.key().is_some(), layout.events), 0);
    let mut out = Vec::new();
    frame.header.fields().write(&mut out, &story.place(index), &body, &frame.versions());
    assert_eq!(out, story.frame_bytes(index));
}

fn record_at<'a>(frame: &Frame<'a>, index: usize) -> Record<'a> {
    frame.all_records().nth(index).unwrap().unwrap().event().unwrap()
}

/// What a frame's key and versions add to its content, for the chain.
fn extension(frame: &Frame<'_>) -> Vec<u8> {
    let mut extension = frame.header.key().map_or_else(Vec::new, |key| key.to_vec());
    extension.extend(frame.versions());
    extension
}

fn assigned(frame: &Frame<'_>, position: u64) -> Assigned {
    let header = &frame.header;
    Assigned {
        position,
        recorded_at: header.recorded_at(),
        first_version: header.first_version(),
        events: header.events(),
        flags: header.flags(),
    }
}

/// The chain a frame at `position` has, recomputed from its bytes.
fn chain_of(frame: &Frame<'_>, position: u64, before: &Hash) -> Hash {
    let contents: Vec<Hash> = frame.all_records().map(|record| record.unwrap().content()).collect();
    let content = extended_content(&body_content(&contents), &extension(frame));
    link(before, &content, &assigned(frame, position))
}

/// A public part with nothing optional.
fn fields<'a>(entity: &'a str, kind: &'a str) -> RecordFields<'a> {
    RecordFields {
        schema_version: 1,
        entity,
        scope: "",
        kind,
        tag_bytes: &[],
        correlation: None,
        occurred_at: None,
        foreign_id: None,
        cause: None,
        has_metadata: false,
    }
}

/// Compares annotated bytes with the golden file `name`, notes included.
fn check_text<'a>(
    name: &str,
    title: &str,
    start: usize,
    bytes: &'a [u8],
    annotate: impl FnOnce(&mut Notes<'a>),
) {
    let mut notes = Notes::new(title, start, bytes);
    annotate(&mut notes);
    let text = notes.finish();
    assert_eq!(strip(&text), bytes, "{name}: annotating loses nothing");
    check_file(&golden(&format!("{name}.hex")), &text);
}

fn check_file(path: &Path, text: &str) {
    if std::env::var_os("ANNALS_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let golden = fs::read_to_string(path).unwrap_or_default();
    assert!(golden == text, "{} differs from\n{text}", path.display());
}

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(path)
}

fn golden_bytes(path: &str) -> Vec<u8> {
    strip(&fs::read_to_string(golden(&format!("{path}.hex"))).unwrap())
}
