//! Records are bound to their places: a record that was changed or moved does not fit its own checksum, a
//! frame that moves takes its records along, and one record can be erased alone.

use super::forge::{checksum_bytes, record_prefix, record_ranges, repair, repair_but_records};
use super::*;
use crate::format::place::RecordPlace;
use crate::format::{Damage, u32_at, u64_at};

const PLACE: FramePlace = FramePlace { salt: 0xA11A_5EED_0102_0304, offset: 4_096, first_position: 1_000 };
const CHAIN: Hash = *b"the chain of the frame, 32 bytes";

/// A frame to be written. Its events have payloads of these lengths.
#[derive(Clone, Copy, Debug)]
struct Sample {
    payloads: &'static [usize],
    has_key: bool,
    has_versions: bool,
}

const fn sample(payloads: &'static [usize], has_key: bool, has_versions: bool) -> Sample {
    Sample { payloads, has_key, has_versions }
}

/// Headers of all four lengths, and bodies with 0 to 7 zeros at their end.
const SAMPLES: [Sample; 16] = [
    sample(&[0], false, false),
    sample(&[1], false, false),
    sample(&[2], false, false),
    sample(&[3], false, false),
    sample(&[4], false, false),
    sample(&[5], false, false),
    sample(&[6], false, false),
    sample(&[7], false, false),
    sample(&[20], true, false),
    // No writer writes versions into a frame of one event; a reader reads them.
    sample(&[9], false, true),
    sample(&[0, 16], false, false),
    sample(&[16, 5, 16, 40], false, false),
    sample(&[3, 3, 3], true, false),
    sample(&[16, 1, 16], false, true),
    sample(&[2, 0, 30, 16, 1], true, true),
    sample(&[1, 1], true, true),
];

impl Sample {
    fn events(&self) -> u16 {
        self.payloads.len().try_into().unwrap()
    }

    fn layout(&self) -> BodyLayout {
        BodyLayout { events: self.events(), has_versions: self.has_versions }
    }

    fn header(&self) -> NewFrameHeader {
        NewFrameHeader {
            position_offset: 50,
            durable_end: 4_000,
            events: self.events(),
            flags: NewFrameHeader::flags_for(self.has_key, self.has_versions),
            recorded_at: START,
            first_version: 3,
            chain: CHAIN,
            key: self.has_key.then_some([7; 16]),
        }
    }

    /// The versions, 8 bytes each, if they stand in the records. The second one is the highest there can be.
    fn versions(&self) -> Vec<u8> {
        let versions = [3, (1 << 48) - 1, 4, 1, 2].into_iter().take(self.payloads.len());
        versions.filter(|_| self.has_versions).flat_map(u64::to_le_bytes).collect()
    }

    /// The body as a caller hands it over: bound to no place, without versions.
    fn body(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for (index, payload) in self.payloads.iter().enumerate() {
            let tag_bytes: &[u8] = if index % 2 == 0 { b"" } else { b"\x03tag" };
            let schema_version = u16::try_from(index).unwrap() + 1;
            let fields = RecordFields { tag_bytes, schema_version, ..fields("entity", "kind") };
            let start = body.len();
            let payload = vec![b'p'; *payload];
            let new = NewRecord { fields, metadata: &[], payload: &payload };
            record::write(&mut body, &new, self.has_versions).unwrap();
            record::seal(&mut body[start..]);
        }
        body.resize(padded_body_bytes(body.len(), self.has_key, self.events()), 0);
        body
    }

    fn write_at(&self, place: &FramePlace) -> Vec<u8> {
        self.write_body_at(place, &self.body())
    }

    fn write_body_at(&self, place: &FramePlace, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.header().write(&mut out, place, body, &self.versions());
        out
    }

    /// The place of the record at `index`, which begins at `start` of the frame.
    fn record_place(&self, frame: &[u8], index: usize, start: usize) -> RecordPlace {
        let index = u16::try_from(index).unwrap();
        let counted = 3 + u64::from(index);
        RecordPlace {
            salt: PLACE.salt,
            offset: 4_096 + u32::try_from(start).unwrap(),
            index,
            events: self.events(),
            position: 1_000 + 50 + u64::from(index),
            version: if self.has_versions { u64_at(frame, start + 8) >> 16 } else { counted },
            recorded_at: START,
            chain: CHAIN,
        }
    }
}

/// The bytes at which two frames of one length differ.
fn differences(one: &[u8], other: &[u8]) -> Vec<usize> {
    assert_eq!(one.len(), other.len());
    (0..one.len()).filter(|at| one[*at] != other[*at]).collect()
}

#[test]
fn checksums_are_what_the_specification_says() {
    let mut lengths = std::collections::BTreeSet::new();
    for sample in SAMPLES {
        let bytes = sample.write_at(&PLACE);
        assert!(bytes.len().is_multiple_of(8), "{sample:?}");
        lengths.insert(frame::read(&bytes, &PLACE).unwrap().header.header_bytes());
        let mut by_hand = bytes.clone();
        for (byte, _) in
            by_hand.iter_mut().zip(checksum_bytes(&bytes)).filter(|(_, is_checksum)| *is_checksum)
        {
            *byte = 0xEE;
        }
        repair(&mut by_hand, &PLACE);
        assert_eq!(by_hand, bytes, "{sample:?}");
    }
    assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [76, 80, 92, 96]);
}

/// A reader of a frame finds any changed bit of the body by the checksum of the body, and once more by those
/// of the records. A reader of one record finds any changed bit of that record, and can read the others.
#[test]
fn every_flipped_bit_is_found_with_and_without_the_body_checksum() {
    let mut flips = 0;
    for sample in SAMPLES {
        let bytes = sample.write_at(&PLACE);
        let ranges = record_ranges(&bytes);
        assert_eq!(ranges.len(), sample.payloads.len());
        assert_eq!(frame::read(&bytes, &PLACE).unwrap().check_records(&PLACE), Ok(()), "{sample:?}");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let read = frame::read(&flipped, &PLACE).map(drop);
            flips += 1;
            if bit / 8 < ranges[0].start {
                assert!(matches!(read, Err(Damage::Bad(_))), "{sample:?}, bit {bit} of the header");
                continue;
            }
            let alone = Frame::known(&flipped).check_records(&PLACE);
            assert!(matches!(alone, Err(Damage::Bad(_))), "{sample:?}, bit {bit} of the body");
            match sample.payloads.len() {
                1 => assert_eq!(read, alone),
                _ => assert_eq!(read, Err(Damage::Bad("a frame's body does not fit its checksum"))),
            }
            for (index, range) in ranges.iter().enumerate() {
                let place = sample.record_place(&flipped, index, range.start);
                let fits = record::check(&flipped[range.clone()], &place).is_ok();
                assert_eq!(fits, !range.contains(&(bit / 8)), "{sample:?}, bit {bit}, record {index}");
            }
        }
    }
    println!("{flips} flipped bits in frames: all found, in bodies by each of two checksums");
}

#[test]
fn a_record_fits_no_other_place() {
    type Change = fn(&mut RecordPlace, u32);
    let changes: [(&str, u32, Change); 7] = [
        ("salt", 64, |place, bit| place.salt ^= 1 << bit),
        ("offset", 32, |place, bit| place.offset ^= 1 << bit),
        ("index", 16, |place, bit| place.index ^= 1 << bit),
        ("events", 16, |place, bit| place.events ^= 1 << bit),
        ("position", 64, |place, bit| place.position ^= 1 << bit),
        ("version", 64, |place, bit| place.version ^= 1 << bit),
        ("recorded-at", 64, |place, bit| place.recorded_at ^= 1 << bit),
    ];
    let refused = Err(Damage::Bad("an event record does not fit its checksum"));
    for sample in SAMPLES {
        let bytes = sample.write_at(&PLACE);
        for (index, range) in record_ranges(&bytes).into_iter().enumerate() {
            let right = sample.record_place(&bytes, index, range.start);
            let record = &bytes[range];
            assert_eq!(record::check(record, &right), Ok(()), "{sample:?}, record {index}");
            for (field, bits, change) in changes {
                for bit in 0..bits {
                    let mut wrong = right;
                    change(&mut wrong, bit);
                    assert_eq!(record::check(record, &wrong), refused, "{sample:?}, {field}, bit {bit}");
                }
            }
            for bit in 0..256 {
                let mut chain = CHAIN;
                chain[bit / 8] ^= 1 << (bit % 8);
                let other = RecordPlace { chain, ..right };
                assert_eq!(record::check(record, &other), refused, "{sample:?}, bit {bit} of the chain");
            }
        }
    }
}

/// A frame's bytes do not pass at a place that they were not written to, even under a mark that fits there.
#[test]
fn the_records_of_a_copied_frame_do_not_fit() {
    let elsewhere = [
        FramePlace { salt: PLACE.salt ^ 1 << 63, ..PLACE },
        FramePlace { offset: PLACE.offset + 8, ..PLACE },
        FramePlace { first_position: PLACE.first_position + 1, ..PLACE },
    ];
    for (sample, place) in SAMPLES.into_iter().flat_map(|sample| elsewhere.map(|place| (sample, place))) {
        let mut copy = sample.write_at(&PLACE);
        copy[..8].copy_from_slice(&(place.salt ^ place.offset).to_le_bytes());
        repair_but_records(&mut copy);
        let refused = Err(Damage::Bad("an event record does not fit its checksum"));
        assert_eq!(Frame::known(&copy).check_records(&place), refused, "{sample:?} {place:?}");
        match sample.payloads.len() {
            1 => assert_eq!(frame::read(&copy, &place).map(drop), refused, "{sample:?} {place:?}"),
            _ => assert!(frame::read(&copy, &place).is_ok(), "reading in order leaves that to the chain"),
        }
    }
}

#[test]
fn two_records_that_change_places_do_not_fit() {
    let sample = sample(&[4, 4], false, false);
    let mut bytes = sample.write_at(&PLACE);
    let ranges = record_ranges(&bytes);
    // The second one has a schema version and a tag more: 2 and 5 bytes.
    let both = [&bytes[ranges[1].clone()], &bytes[ranges[0].clone()]].concat();
    bytes[ranges[0].start..ranges[1].end].copy_from_slice(&both);
    repair_but_records(&mut bytes);
    let frame = frame::read(&bytes, &PLACE).unwrap();
    assert_eq!(frame.records().filter(Result::is_ok).count(), 2);
    assert!(matches!(frame.check_records(&PLACE), Err(Damage::Bad(_))));
}

#[test]
fn a_frame_that_moves_there_and_back_is_the_same() {
    let elsewhere = [
        PLACE,
        FramePlace { salt: 0x1234_5678_9ABC_DEF4, ..PLACE },
        FramePlace { offset: u64::from(u32::MAX) - 1_023, ..PLACE },
        FramePlace { first_position: 1, ..PLACE },
        FramePlace { salt: 4, offset: 144, first_position: u64::MAX >> 16 },
    ];
    for sample in SAMPLES {
        let bytes = sample.write_at(&PLACE);
        let frame = frame::read(&bytes, &PLACE).unwrap();
        assert_eq!(frame.versions(), sample.versions());
        assert_eq!(frame.header.fields(), sample.header());
        let mut unbound = vec![0xEE; 3];
        frame.unbound_body(&PLACE, &mut unbound);
        check_unbound(&sample, &bytes, &unbound);
        for place in elsewhere {
            let moved = sample.write_body_at(&place, &unbound);
            assert_eq!(moved, sample.write_at(&place), "{sample:?} {place:?}");
            let there = frame::read(&moved, &place).unwrap();
            assert_eq!(there.check_records(&place), Ok(()), "{sample:?} {place:?}");
            let mut again = Vec::new();
            there.unbound_body(&place, &mut again);
            assert_eq!(again, unbound, "{sample:?} {place:?}");
            assert_eq!(sample.write_body_at(&PLACE, &again), bytes, "{sample:?} {place:?}");
            let is_checksum = checksum_bytes(&bytes);
            let may_differ = |at: &usize| *at < 8 || is_checksum[*at];
            assert!(differences(&bytes, &moved).iter().all(may_differ), "{sample:?} {place:?}");
        }
    }
}

/// Checks that only the checksums of an unbound body differ from the frame's. Each is of the record's own
/// bytes, without the version.
fn check_unbound(sample: &Sample, frame: &[u8], unbound: &[u8]) {
    let prefix = record_prefix(frame);
    let header = frame.len() - unbound.len();
    let mut rebound = frame.to_vec();
    for record in record_ranges(frame) {
        let covered =
            [&frame[record.start + 4..record.start + 10], &frame[record.start + prefix..record.end]];
        assert_eq!(u32_at(unbound, record.start - header), crc32c::crc32c(&covered.concat()), "{sample:?}");
        let checksum = record.start..record.start + 4;
        rebound[checksum.clone()].copy_from_slice(&unbound[checksum.start - header..][..4]);
    }
    assert_eq!(&rebound[header..], unbound, "{sample:?}");
}

/// Erasing one record leaves the others, and of its own bytes the public part and the version. Where the hash
/// is as long as what it replaces, nothing moves, and only checksums, form and private part differ.
#[test]
fn erasing_one_record_changes_no_other() {
    let mut as_long = 0;
    for sample in SAMPLES {
        let bytes = sample.write_at(&PLACE);
        let frame = frame::read(&bytes, &PLACE).unwrap();
        let mut unbound = Vec::new();
        frame.unbound_body(&PLACE, &mut unbound);
        for erased in 0..sample.payloads.len() {
            let body = erase(&sample, &unbound, erased);
            let after_bytes = sample.write_body_at(&PLACE, &body);
            let after = frame::read(&after_bytes, &PLACE).unwrap();
            assert_eq!(after.check_records(&PLACE), Ok(()), "{sample:?}, {erased} erased");
            assert_eq!(after.header.fields(), frame.header.fields());
            let mut unbound_after = Vec::new();
            after.unbound_body(&PLACE, &mut unbound_after);
            let before_records = records(&unbound, sample.layout()).map(|record| record.unwrap().1);
            let after_records = records(&unbound_after, sample.layout()).map(|record| record.unwrap().1);
            for (index, (before, after)) in before_records.zip(after_records).enumerate() {
                assert_eq!(before.content(), after.content(), "{sample:?}, {erased} erased, record {index}");
                if index != erased {
                    assert_eq!(before.bytes(), after.bytes(), "{sample:?}, {erased} erased, record {index}");
                    continue;
                }
                assert_eq!((after.public(), after.version()), (before.public(), before.version()));
                assert_eq!((after.private(), after.is_erased()), (None, true));
                let mut again = Vec::new();
                after.write_erased(sample.layout(), &mut again);
                assert_eq!(again, after.bytes(), "erasing once more changes nothing");
            }
            if sample.payloads[erased] != 16 {
                continue;
            }
            as_long += 1;
            let ranges = record_ranges(&bytes);
            let record = ranges[erased].clone();
            let is_checksum = checksum_bytes(&bytes);
            let may_differ = |at: &usize| {
                let is_own_checksum = is_checksum[*at] && (*at < ranges[0].start || record.contains(at));
                is_own_checksum || *at == record.start + 7 || (record.end - 32..record.end).contains(at)
            };
            let differences = differences(&bytes, &after_bytes);
            assert!(differences.iter().all(may_differ), "{sample:?}, {erased} erased: {differences:?}");
            assert!(differences.contains(&(record.start + 7)), "the form");
        }
    }
    assert!(as_long >= 6, "{as_long} private parts as long as their hash");
}

/// An unbound body without the private part of the record at `erased`.
fn erase(sample: &Sample, unbound: &[u8], erased: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for record in records(unbound, sample.layout()) {
        let (index, record) = record.unwrap();
        if usize::from(index) == erased {
            record.write_erased(sample.layout(), &mut body);
        } else {
            body.extend_from_slice(record.bytes());
        }
    }
    body.resize(padded_body_bytes(body.len(), sample.has_key, sample.events()), 0);
    body
}
