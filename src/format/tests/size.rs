//! What a store adds to what it is given, and the arithmetic everything else rests on.

use super::*;
use crate::disk::MemDisk;
use crate::format::segment::SegmentHeader;
use crate::{Append, Cause, Error, EventData};

/// The bytes that an append adds to a store beyond names, payloads and metadata.
fn overhead(entities: usize, events: usize, payload: usize) -> usize {
    let store = Store::on(MemDisk::new()).open().unwrap();
    let before = store.stats().bytes;
    let text = "x".repeat(payload);
    let mut append = Append::to("e0");
    for event in 0..events {
        append = append.and_to(format!("e{}", event % entities)).event(&Raw("kind", &text));
    }
    append.commit(&store).unwrap();
    let added = usize::try_from(store.stats().bytes - before).unwrap();
    let events = store.read(crate::Query::all()).map(Result::unwrap);
    added - events.map(|e| e.entity().len() + e.kind().len() + e.payload().unwrap().len()).sum::<usize>()
}

#[test]
fn overhead_is_within_the_budget() {
    // A multiple of 8 more events, so that the padding is the same.
    const MORE: usize = 104;
    let single = (0..16).map(|payload| overhead(1, 1, payload)).max().unwrap();
    let further = |entities| {
        let added = overhead(entities, 4 + MORE, 9) - overhead(entities, 4, 9);
        assert!(added.is_multiple_of(MORE), "{added} bytes of {MORE} events");
        added / MORE
    };
    let several = further(2);
    let further = further(1);
    println!(
        "overhead per single-event append: {single} bytes of 128; per further event: {several} of 56 \
        ({further} if all belong to one entity)"
    );
    assert_eq!((single, further, several), (115, 32, 38), "the specification says what it is made of");
    // Without the zeros at the end: some payload leaves none. Two events have a body checksum, and with two
    // entities each has a version.
    let unpadded = |entities, events| (0..8).map(|payload| overhead(entities, events, payload)).min();
    assert_eq!((unpadded(1, 1), unpadded(1, 2), unpadded(2, 2)), (Some(108), Some(144), Some(156)));
    assert!(single <= 128 && several <= 56);
}

/// An event of a schema version.
struct Versioned<'a>(u16, &'a str);

impl EventData for Versioned<'_> {
    fn kind(&self) -> &str {
        "kind"
    }

    fn schema_version(&self) -> u16 {
        self.0
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        Raw("kind", self.1).encode(out)
    }
}

#[test]
fn optional_parts_cost_what_the_specification_says() {
    let store = Store::in_memory().unwrap();
    // A payload that leaves no padding, so that the difference shows whole.
    let base = |extra: usize| "x".repeat((8 - (108 + 2 + 4 + 1 + extra) % 8) % 8);
    let cost_of = |schema_version: u16, extra: usize, change: &dyn Fn(Append) -> Append| {
        let before = store.stats().bytes;
        let payload = base(extra);
        let append = Append::to("e0").event(&Versioned(schema_version, &payload));
        change(append).commit(&store).unwrap();
        store.stats().bytes - before - 115 - u64::try_from(payload.len()).unwrap()
    };
    let cost = |extra: usize, change: &dyn Fn(Append) -> Append| cost_of(1, extra, change);
    assert_eq!(cost_of(2, 2, &|append| append), 2);
    assert_eq!(cost_of(0xFFFF, 2, &|append| append), 2);
    let id = EventId::from_bytes([7; 16]);
    assert_eq!(cost(0, &|append| append), 0);
    assert_eq!(cost(16, &|append| append.key("k")), 16);
    assert_eq!(cost(16, &|append| append.correlation(id)), 16);
    assert_eq!(cost(16, &|append| append.foreign_id(id)), 16);
    assert_eq!(cost(16, &|append| append.cause(Cause::Event(id))), 16);
    assert_eq!(cost(2, &|append| append.cause(Cause::InAppend(0))), 2);
    assert_eq!(cost(0, &|append| append.cause(Cause::PreviousInStream)), 0);
    assert_eq!(cost(8, &|append| append.occurred_at(SystemTime::UNIX_EPOCH)), 8);
    assert_eq!(cost(4 + 1, &|append| append.metadata(&true)), 4 + 1);
    assert_eq!(cost(1 + 1 + 3, &|append| append.tag("tag")), 1 + 1 + 3, "the count, the length, the tag");
    assert_eq!(cost(1 + 2 * 4, &|append| append.tag("tag").tag("gat")), 1 + 2 * 4, "one count for all tags");
}

#[test]
fn the_checksum_is_crc32c_of_the_pieces_joined() {
    assert_eq!(checksum(&[b"123456789"]), 0xE306_9283);
    for split in 0..=9 {
        let (one, other) = b"123456789".split_at(split);
        assert_eq!(checksum(&[one, other, &[]]), 0xE306_9283);
    }
}

#[test]
fn no_mark_is_zero_and_no_two_kinds_are_equal() {
    let story = GoldenSegment::read();
    let words = [0, u64::from_le_bytes(*b"SEALSEAL"), u64::from_le_bytes(*b"ATTESTED")];
    // Only the low three bits of salts and offsets matter for this, so these are all the cases.
    for random in 0..16_u64 {
        let header = SegmentHeader { salt: SegmentHeader::salt(random), ..story.header.clone() };
        for offset in [0, 8, 144, 1 << 31] {
            let marks = words.map(|word| header.frame_mark(offset) ^ word);
            assert!(header.is_seal(&marks[1].to_le_bytes(), offset));
            assert!(header.is_attestation(&marks[2].to_le_bytes(), offset));
            let low = marks.map(|mark| mark & 0b111);
            assert!(low[0] != low[1] && low[0] != low[2] && low[1] != low[2] && !low.contains(&0), "{low:?}");
        }
    }
}

#[test]
fn only_a_segments_own_name_is_parsed() {
    let id = SegmentId { first_position: 42, generation: 7 };
    assert_eq!(id.file_name(), "00000000000000000042.7.seg");
    assert_eq!(SegmentId::parse("00000000000000000042.7.seg"), Some(id));
    for name in [
        "42.7.seg",
        "00000000000000000042.07.seg",
        "00000000000000000042.+7.seg",
        "00000000000000000042.7.seg.tmp",
        "00000000000000000042.7.idx",
        "00000000000000000042.7",
        "99999999999999999999.0.seg",
        "00000000000000000042.4294967296.seg",
        "",
        "..seg",
    ] {
        assert_eq!(SegmentId::parse(name), None, "{name}");
    }
}

#[test]
fn only_a_segments_own_side_files_are_parsed() {
    let id = SegmentId { first_position: 42, generation: 7 };
    for name in ["idx", "tree", "idx.tmp", "tree.tmp"].map(|end| format!("00000000000000000042.7.{end}")) {
        assert_eq!(SegmentId::parse_side_file(&name), Some(id), "{name}");
    }
    for name in ["42.7.tree", "00000000000000000042.07.tree", "00000000000000000042.7.tree.tmp.tmp", "..tree"]
    {
        assert_eq!(SegmentId::parse_side_file(name), None, "{name}");
    }
    for name in
        ["00000000000000000042.7.seg", "00000000000000000042.7.seg.tmp", "00000000000000000042.7.tmp", ""]
    {
        assert_eq!(SegmentId::parse_side_file(name), None, "{name}");
    }
}
