//! Fields that take room only where they are: the schema version and the tags of a record, and the versions
//! of an append of several entities.

use super::forge::{record_ranges, repair};
use super::*;
use crate::format::{Damage, u64_at};

const PLACE: FramePlace = FramePlace { salt: 0xA11A_5EED_0102_0304, offset: 144, first_position: 1 };

/// What a public part with nothing else begins with, but for the flags: lengths and names.
const NAMES: &[u8] = b"\x01\x00\x00\x01ek";

#[test]
fn a_schema_version_and_tags_take_room_only_where_they_are() {
    let many = b"\x01t".repeat(255);
    let counted = [&[255], many.as_slice()].concat();
    // Schema version and tags; the flags, and what stands behind the names.
    let table: [(u16, &[u8], u16, &[u8]); 9] = [
        (1, b"", 0x0000, b""),
        (0, b"", 0x0100, b"\x00\x00"),
        (2, b"", 0x0100, b"\x02\x00"),
        (u16::MAX, b"", 0x0100, b"\xFF\xFF"),
        (1, b"\x01a", 0x0200, b"\x01\x01a"),
        (1, b"\x01a\x02bc", 0x0200, b"\x02\x01a\x02bc"),
        (1, &many, 0x0200, &counted),
        (7, b"\x01a", 0x0300, b"\x07\x00\x01\x01a"),
        (0x0102, b"\x02bc", 0x0300, b"\x02\x01\x01\x02bc"),
    ];
    let id = EventId::from_bytes([9; 16]);
    for (schema_version, tag_bytes, flags, behind) in table {
        for has_versions in [false, true] {
            let layout = BodyLayout { events: 1, has_versions };
            let plain = RecordFields { schema_version, tag_bytes, ..fields("e", "k") };
            let full = RecordFields { correlation: Some(id), cause: Some(Cause::InAppend(0)), ..plain };
            for (fields, more_flags, more) in
                [(plain, 0, vec![]), (full, 0x21, [[9; 16].as_slice(), &[0, 0]].concat())]
            {
                let mut body = Vec::new();
                let new = NewRecord { fields, metadata: &[], payload: b"p" };
                record::write(&mut body, &new, has_versions).unwrap();
                let found = record::read(&body, 0, layout).unwrap();
                let public = [&(flags | more_flags).to_le_bytes()[..], NAMES, behind, &more].concat();
                assert_eq!(found.public(), public, "{schema_version} {tag_bytes:?}");
                assert_eq!(found.fields(), fields);
                assert_eq!(found.version(), has_versions.then_some(0));
                assert_eq!((found.payload(), found.bytes().len()), (Some(&b"p"[..]), body.len()));
            }
        }
    }
}

#[test]
fn what_is_absent_must_not_be_spelled_out() {
    const SHORT: Damage = Damage::Bad("an event record's public part is too short");
    const LONGER: Damage = Damage::Bad("an event record's public part is longer than its fields");
    const ONE: Damage = Damage::Forbidden("an event spells out the schema version 1");
    const NONE: Damage = Damage::Forbidden("an event is said to have tags, and has none");
    let cases: [(u16, &[u8], Result<(), Damage>); 17] = [
        (0x0000, b"", Ok(())),
        (0x0000, b"\x00", Err(LONGER)),
        (0x0000, b"\x02\x00", Err(LONGER)),
        (0x0100, b"\x02\x00", Ok(())),
        (0x0100, b"\x01\x00", Err(ONE)),
        (0x0100, b"\x02", Err(SHORT)),
        (0x0100, b"", Err(SHORT)),
        (0x0100, b"\x02\x00\x00", Err(LONGER)),
        (0x0200, b"\x01\x01a", Ok(())),
        (0x0200, b"\x00", Err(NONE)),
        (0x0200, b"", Err(SHORT)),
        (0x0200, b"\x01\x00", Err(Damage::Forbidden("an event has an empty tag"))),
        (0x0200, b"\x01\x02a", Err(SHORT)),
        (0x0200, b"\x02\x01a", Err(SHORT)),
        (0x0200, b"\x01\x01\xFF", Err(Damage::Bad("a name is not UTF-8"))),
        (0x0300, b"\x01\x00\x01\x01a", Err(ONE)),
        (0x0300, b"\x02\x00\x00", Err(NONE)),
    ];
    for (flags, behind, right) in cases {
        let public = [&flags.to_le_bytes()[..], NAMES, behind].concat();
        let public_bytes = u16::try_from(public.len()).unwrap().to_le_bytes();
        let body = [&[0; 4][..], &[16, 0, 0, 0], &public_bytes, &public, &[0; 16]].concat();
        let found = record::read(&body, 0, BodyLayout { events: 1, has_versions: false });
        assert_eq!(found.map(drop), right, "{flags:#06x} {behind:?}");
    }
}

/// A frame of records without payload. It has these versions.
fn frame_with(first_version: u64, versions: &[u64]) -> Vec<u8> {
    let events = u16::try_from(versions.len()).unwrap();
    let mut body = Vec::new();
    for _ in versions {
        let start = body.len();
        let new = NewRecord { fields: fields("e", "k"), metadata: &[], payload: &[] };
        record::write(&mut body, &new, true).unwrap();
        record::seal(&mut body[start..]);
    }
    body.resize(padded_body_bytes(body.len(), false, events), 0);
    let header = NewFrameHeader {
        position_offset: 0,
        durable_end: 144,
        events,
        flags: NewFrameHeader::flags_for(false, true),
        recorded_at: START,
        first_version,
        chain: [3; 32],
        key: None,
    };
    let versions: Vec<u8> = versions.iter().flat_map(|version| version.to_le_bytes()).collect();
    let mut out = Vec::new();
    header.write(&mut out, &PLACE, &body, &versions);
    out
}

#[test]
fn versions_stand_in_the_records() {
    let highest = (1_u64 << 48) - 1;
    let versions = [5, 1, highest, 6, 0x0102_0304_0506];
    let bytes = frame_with(5, &versions);
    for (record, version) in record_ranges(&bytes).into_iter().zip(versions) {
        assert_eq!(bytes[record.start + 10..record.start + 16], version.to_le_bytes()[..6]);
    }
    let frame = frame::read(&bytes, &PLACE).unwrap();
    assert_eq!(frame.check_records(&PLACE), Ok(()));
    let records = frame.records().map(Result::unwrap);
    let found: Vec<u64> = records.map(|(index, record)| frame.header.version(index, &record)).collect();
    assert_eq!(found, versions);
    // Where they do not, the events count on from the first one.
    let counted = GoldenSegment::read();
    let frame = counted.frame(2);
    let found = [0, 1].map(|index| frame.header.version(index, &record_at(&frame, index.into())));
    assert_eq!(found, [frame.header.first_version(), frame.header.first_version() + 1]);
    assert_eq!((frame.versions(), record_at(&frame, 0).version()), (Vec::new(), None));
}

#[test]
fn the_first_version_is_that_of_the_first_record() {
    let refused = Err(Damage::Forbidden("a frame's first version is not the one in its first record"));
    for versions in [&[5][..], &[5, 1, 6]] {
        assert!(frame::read(&frame_with(5, versions), &PLACE).is_ok());
        for first_version in [0, 1, 4, 6, u64::MAX, 5 | 1 << 48] {
            let bytes = frame_with(first_version, versions);
            assert_eq!(frame::read(&bytes, &PLACE).map(drop), refused, "{first_version} {versions:?}");
        }
        // Every bit of the version in the record, under checksums that fit.
        let right = frame_with(5, versions);
        let at = record_ranges(&right)[0].start + 8;
        for bit in 16..64 {
            let mut bytes = right.clone();
            let wrong = u64_at(&bytes, at) ^ 1 << bit;
            bytes[at..at + 8].copy_from_slice(&wrong.to_le_bytes());
            repair(&mut bytes, &PLACE);
            assert_eq!(frame::read(&bytes, &PLACE).map(drop), refused, "bit {bit} {versions:?}");
        }
    }
}
