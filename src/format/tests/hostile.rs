//! Flipped bits, cut ends, and values that no writer writes, under checksums that fit: readers say so, and
//! never panic. What a reader cannot see is named here, with the reason why that does no harm.

use super::forge::{checksum_bytes, header_alone, repair};
use super::*;
use crate::format::{BODY_BYTES_MAX, Damage, preamble};

type Decoder = Box<dyn Fn(&[u8]) -> Result<(), Damage>>;

/// A structure, and whether its reader takes these bytes for it.
struct Structure {
    name: &'static str,
    bytes: Vec<u8>,
    read: Decoder,
}

fn structures() -> Vec<Structure> {
    let story = GoldenSegment::read();
    let rewritten = GoldenSegment::of(golden_bytes(&format!("rewritten/{REWRITTEN}")));
    let structure = |name, bytes: &[u8], read| Structure { name, bytes: bytes.to_vec(), read };
    let frame = |story: &GoldenSegment, index| -> Decoder {
        let place = story.place(index);
        Box::new(move |bytes| frame::read(bytes, &place).map(drop))
    };
    let seal_at = to_u64(*story.offsets.last().unwrap());
    let seal_header = story.header.clone();
    let at = *rewritten.offsets.last().unwrap();
    let header = rewritten.header.clone();
    let chain_before = rewritten.frame(1).header.chain();
    let newest = mark::newest(&golden_bytes("store/MARK")).unwrap().unwrap();
    const ELSE: Damage = Damage::Bad("the mark is another");
    vec![
        structure(
            "segment header",
            &story.bytes[..SEGMENT_HEADER_BYTES],
            Box::new(|b| SegmentHeader::read(b).map(drop)),
        ),
        structure("frame of one event", story.frame_bytes(0), frame(&story, 0)),
        structure("frame with everything", story.frame_bytes(1), frame(&story, 1)),
        structure("frame of two events", story.frame_bytes(2), frame(&story, 2)),
        structure("erased frame", rewritten.frame_bytes(0), frame(&rewritten, 0)),
        structure("frame with a gone event", rewritten.frame_bytes(1), frame(&rewritten, 1)),
        structure(
            "seal",
            story.seal_bytes(),
            Box::new(move |bytes| match seal_header.is_seal(bytes, seal_at) {
                true => Seal::read(bytes).map(drop),
                false => Err(ELSE),
            }),
        ),
        structure(
            "attestation",
            &rewritten.bytes[at..at + 96],
            Box::new(move |bytes| match header.is_attestation(bytes, to_u64(at)) {
                true => Attestation::read(bytes, 4, &chain_before).map(drop),
                false => Err(ELSE),
            }),
        ),
        structure("slot of MARK", &newest.write(), Box::new(|bytes| Mark::read(bytes).map(drop))),
        structure("MANIFEST", &golden_bytes("rewritten/MANIFEST"), Box::new(|b| Manifest::read(b).map(drop))),
    ]
}

#[test]
fn every_flipped_bit_is_found() {
    let mut flips = 0;
    for Structure { name, bytes, read } in structures() {
        assert_eq!(read(&bytes), Ok(()), "{name}");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                matches!(read(&flipped), Err(Damage::Bad(_) | Damage::Forbidden(_))),
                "{name}, bit {bit}"
            );
            flips += 1;
        }
    }
    println!("{flips} flipped bits in single structures: all found");
}

#[test]
fn every_cut_end_is_found() {
    for Structure { name, bytes, read } in structures() {
        for length in 0..bytes.len() {
            assert!(
                matches!(read(&bytes[..length]), Err(Damage::Bad(_) | Damage::Forbidden(_))),
                "{name}, {length} bytes"
            );
        }
    }
}

/// A damaged slot makes the other one count; the zeros between the slots mean nothing.
#[test]
fn mark_survives_one_damaged_slot() {
    let file = golden_bytes("store/MARK");
    let newest = mark::newest(&file).unwrap().unwrap();
    let older = Mark { sequence: newest.sequence - 1, clean: false, ..newest.clone() };
    for bit in 0..file.len() * 8 {
        let mut flipped = file.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let newest_at = usize::try_from(newest.offset()).unwrap();
        let is_in_newest = (newest_at..newest_at + mark::MARK_SLOT_BYTES).contains(&(bit / 8));
        let expected = if is_in_newest { &older } else { &newest };
        assert_eq!(mark::newest(&flipped).unwrap().as_ref(), Some(expected), "bit {bit}");
    }
    for length in 0..=file.len() {
        let found = mark::newest(&file[..length]).unwrap();
        assert!([None, Some(&older), Some(&newest)].contains(&found.as_ref()), "{length} bytes");
    }
}

/// The chain finds a changed bit under repaired checksums of record, body and header.
#[test]
fn every_changed_bit_under_right_checksums_is_found_by_the_chain() {
    let story = GoldenSegment::read();
    let rewritten = GoldenSegment::of(golden_bytes(&format!("rewritten/{REWRITTEN}")));
    let first = story.frame(0).header.chain();
    let second = story.frame(1).header.chain();
    let frames = [
        (&story, 0, story.header.chain_before),
        (&story, 1, first),
        (&story, 2, second),
        (&rewritten, 0, story.header.chain_before),
    ];
    let mut changes = 0;
    for (story, index, before) in frames {
        let bytes = story.frame_bytes(index);
        let place = story.place(index);
        let is_checksum = checksum_bytes(bytes);
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            repair(&mut changed, &place);
            let kept = passes(&changed, &place, &before);
            // The durable end: evidence for recovery while the frame was new; no part of history. And the
            // checksums themselves, which were repaired again.
            let is_harmless = matches!(bit / 8, 20..24) || is_checksum[bit / 8];
            assert_eq!(kept, is_harmless, "frame {index}, byte {}", bit / 8);
            changes += 1;
        }
    }
    println!("{changes} changed bits under right checksums: found by the chain, but for the durable end");
}

/// Whether a frame is whole and continues the chain.
fn passes(bytes: &[u8], place: &FramePlace, before: &Hash) -> bool {
    let Ok(frame) = frame::read(bytes, place) else { return false };
    let position = 1 + u64::from(frame.header.position_offset());
    crate::log::chain_after(before, position, &frame).is_ok_and(|chain| chain == frame.header.chain())
}

/// The frame of one event with some bytes of it overwritten, under right checksums.
fn with(at: usize, value: &[u8]) -> Result<(), Damage> {
    let story = GoldenSegment::read();
    let mut bytes = story.frame_bytes(0).to_vec();
    bytes[at..at + value.len()].copy_from_slice(value);
    repair(&mut bytes, &story.place(0));
    let frame = frame::read(&bytes, &story.place(0))?;
    frame.all_records().try_for_each(|record| record.map(drop))
}

#[test]
fn impossible_values_under_right_checksums_are_refused() {
    let body = frame::FRAME_FIXED_BYTES;
    let public = body + record::PREFIX;
    let largest = u32::try_from(BODY_BYTES_MAX).unwrap();
    let cases: [(&str, usize, &[u8]); 26] = [
        ("body length 2^32 - 4", 12, &(u32::MAX - 3).to_le_bytes()),
        ("body length beyond the format", 12, &(largest + 8).to_le_bytes()),
        ("body length within the format, beyond the input", 12, &largest.to_le_bytes()),
        ("header and body no multiple of 8", 12, &72_u32.to_le_bytes()),
        ("body length 0", 12, &0_u32.to_le_bytes()),
        ("body length less than a record's prefix", 12, &4_u32.to_le_bytes()),
        ("no events", 24, &0_u16.to_le_bytes()),
        ("more events than records", 24, &2_u16.to_le_bytes()),
        ("65,535 events", 24, &u16::MAX.to_le_bytes()),
        ("65,535 events with versions", 24, &[0xFF, 0xFF, 0x00, 0x02]),
        ("versions where there are none", 26, &0x0200_u16.to_le_bytes()),
        ("private length 2^24 - 1", body + 4, &[0xFF, 0xFF, 0xFF]),
        ("private length less than the salt", body + 4, &[15, 0, 0]),
        ("private length into the padding", body + 4, &[30, 0, 0]),
        ("private length 1 short", body + 4, &[20, 0, 0]),
        ("public length 65,535", body + 8, &u16::MAX.to_le_bytes()),
        ("public length 0", body + 8, &0_u16.to_le_bytes()),
        ("erased, with another length than a hash", body + 7, &[1]),
        ("gone, with another length than a hash", body + 7, &[2]),
        ("entity length 65,535", public + 2, &u16::MAX.to_le_bytes()),
        ("entity one shorter than its public part", public + 2, &12_u16.to_le_bytes()),
        ("tags where there are none", public, &0x0200_u16.to_le_bytes()),
        ("a schema version where there is none", public, &0x0100_u16.to_le_bytes()),
        ("an entity that is not UTF-8", public + 6, &[0xFF]),
        ("metadata where there is none", public, &4_u16.to_le_bytes()),
        ("a correlation where there is none", public, &1_u16.to_le_bytes()),
    ];
    for (name, at, value) in cases {
        let refused = with(at, value);
        if name == "private length into the padding" {
            assert_eq!(refused, Ok(()), "{name}: one record and fewer zeros; the chain finds it");
        } else {
            assert!(matches!(refused, Err(Damage::Bad(_) | Damage::Forbidden(_))), "{name}: {refused:?}");
        }
    }
    let cause_in_append = with(public, &0x20_u16.to_le_bytes());
    assert!(matches!(cause_in_append, Err(Damage::Bad(_) | Damage::Forbidden(_))), "{cause_in_append:?}");
    assert_eq!(with(0, &[0; 8]), Err(Damage::Bad("no frame begins here")));
}

#[test]
fn what_only_a_newer_version_knows_is_refused_as_such() {
    let newer = |result: Result<(), Damage>| matches!(result, Err(Damage::Newer(_)));
    let public = frame::FRAME_FIXED_BYTES + record::PREFIX;
    for bit in 0..16 {
        let flag = 1_u16 << bit;
        // Of a frame: the key and the versions are known, and not there.
        let frame_flag = with(26, &flag.to_le_bytes());
        assert_eq!(newer(frame_flag.clone()), bit >= 10, "frame flag {flag:#06x}: {frame_flag:?}");
        assert_eq!(frame_flag == Ok(()), bit < 8, "frame flag {flag:#06x}: {frame_flag:?}");
        // Of a record: bits 6 and 7 are passed over, and may bring fields along. Schema version and tags are
        // known, and not there.
        let record_flag = with(public, &flag.to_le_bytes());
        assert_eq!(newer(record_flag.clone()), bit >= 10, "record flag {flag:#06x}: {record_flag:?}");
        assert_eq!(record_flag == Ok(()), matches!(bit, 6 | 7), "record flag {flag:#06x}: {record_flag:?}");
    }
    for form in 3..=255 {
        assert!(newer(with(frame::FRAME_FIXED_BYTES + 7, &[form])), "record form {form}");
    }
}

/// The layout of a body of one record without a version.
const ONE: BodyLayout = BodyLayout { events: 1, has_versions: false };

#[test]
fn fields_of_ancillary_flags_are_passed_over() {
    let mut body = Vec::new();
    let fields = fields("a", "b");
    record::write(&mut body, &NewRecord { fields, metadata: &[], payload: b"p" }, false).unwrap();
    let public_end = record::PREFIX + 8;
    body.splice(public_end..public_end, [0; 3]);
    body[8] += 3;
    assert!(
        matches!(record::read(&body, 0, ONE), Err(Damage::Bad(_) | Damage::Forbidden(_))),
        "more than the fields"
    );
    body[record::PREFIX] = 0x40;
    let found = record::read(&body, 0, ONE).unwrap();
    assert_eq!((found.fields(), found.shape().bytes()), (fields, body.len()));
    assert_eq!((found.metadata(), found.payload()), (Some(&[][..]), Some(&b"p"[..])));
}

#[test]
fn preambles_of_other_versions() {
    type Read = fn(&[u8]) -> Result<(), Damage>;
    let story = GoldenSegment::read();
    let manifest = golden_bytes("store/MANIFEST");
    let mark = mark::newest(&golden_bytes("store/MARK")).unwrap().unwrap().write();
    let files: [(&[u8], Read); 3] = [
        (&story.bytes[..SEGMENT_HEADER_BYTES], |bytes| SegmentHeader::read(bytes).map(drop)),
        (&mark, |bytes| Mark::read(bytes).map(drop)),
        (&manifest, |bytes| Manifest::read(bytes).map(drop)),
    ];
    for (bytes, read) in files {
        for bit in 0..preamble::SIZE * 8 {
            let mut changed = bytes.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            let end = changed.len();
            if end > SEGMENT_HEADER_BYTES {
                let digest = blake3::hash(&changed[..end - 32]);
                changed[end - 32..].copy_from_slice(digest.as_bytes());
            } else {
                let crc = checksum(&[&changed[..end - 4]]);
                changed[end - 4..].copy_from_slice(&crc.to_le_bytes());
            }
            let found = read(&changed);
            if (bit, bytes.len()) == (8 * preamble::READ_ONLY_AT, manifest.len()) {
                let (changing, _) = Manifest::read(&changed).unwrap();
                assert!(changing.is_changing && changing.write().0 == changed);
                continue;
            }
            // Only a manifest whose last segment was written anew can have this one.
            if (bit, bytes.len()) == (8 * preamble::INCOMPATIBLE_AT, manifest.len()) {
                assert!(matches!(found, Err(Damage::Bad(_) | Damage::Forbidden(_))), "bit {bit}");
                continue;
            }
            match bit / 8 {
                0..8 => {
                    assert!(matches!(found, Err(Damage::Bad(_) | Damage::Forbidden(_))), "magic, bit {bit}")
                }
                8..10 | 16..32 => assert!(matches!(found, Err(Damage::Newer(_))), "bit {bit}"),
                // Minor version, zero, compatible features.
                _ => assert_eq!(found, Ok(()), "bit {bit}"),
            }
        }
    }
}

#[test]
fn impossible_counts_in_a_manifest_are_refused() {
    for (segments, lineages) in [(u32::MAX, 0), (0, u32::MAX), (u32::MAX, u32::MAX), (3, 0), (1, 1), (0, 8)] {
        let mut bytes = golden_bytes("rewritten/MANIFEST");
        let end = bytes.len() - 32;
        bytes[128..132].copy_from_slice(&segments.to_le_bytes());
        bytes[132..136].copy_from_slice(&lineages.to_le_bytes());
        let digest = blake3::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(digest.as_bytes());
        assert!(
            matches!(Manifest::read(&bytes), Err(Damage::Bad(_) | Damage::Forbidden(_))),
            "{segments} {lineages}"
        );
    }
}

/// The golden attestation, changed, under a right checksum for its length.
fn changed_attestation(change: impl Fn(&mut Vec<u8>)) -> Result<Attestation, Damage> {
    let story = GoldenSegment::of(golden_bytes(&format!("rewritten/{REWRITTEN}")));
    let at = *story.offsets.last().unwrap();
    let before = story.frame(1).header.chain();
    let mut bytes = story.bytes[at..at + 96].to_vec();
    change(&mut bytes);
    let covered = (64 + 32 * usize::from(bytes[22])).min(bytes.len());
    let in_front = checksum(&[&5_u64.to_le_bytes(), &before]);
    let crc = checksum(&[&bytes[..8], &bytes[12..covered]]) ^ in_front;
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    Attestation::read(&bytes, 4, &before)
}

#[test]
fn impossible_counts_in_an_attestation_are_refused() {
    assert!(changed_attestation(|_| ()).is_ok());
    for positions in [0, 1, 3, 4, 1 << 31, u32::MAX] {
        for roots in [0, 1, 2, 63, 64, 255] {
            for length in [64, 96, 128, 64 + 32 * 255] {
                let found = changed_attestation(|bytes| {
                    bytes.resize(length, 7);
                    bytes[12..16].copy_from_slice(&u32::to_le_bytes(positions));
                    bytes[22] = roots;
                });
                let text = format!("{positions} {roots} {length}");
                // Position 5 is one leaf of its own; so are positions 5, 6 and 7 two subtrees.
                let is_right = [(1, 1), (3, 2), (4, 1)].contains(&(positions, usize::from(roots)));
                let is_whole = 64 + 32 * usize::from(roots) <= length;
                if is_right && is_whole {
                    assert_eq!(found.unwrap().positions(), u64::from(positions), "{text}");
                } else {
                    assert!(matches!(found, Err(Damage::Bad(_) | Damage::Forbidden(_))), "{text}");
                }
            }
        }
    }
    for flags in 1..=255 {
        let found = changed_attestation(|bytes| bytes[23] = flags);
        assert!(matches!(found, Err(Damage::Newer(_))), "flags {flags}");
    }
}

/// The checksum covers what stands in front: neither another position nor another chain there passes.
#[test]
fn an_attestation_fits_one_place_only() {
    let story = GoldenSegment::of(golden_bytes(&format!("rewritten/{REWRITTEN}")));
    let bytes = &story.bytes[*story.offsets.last().unwrap()..];
    let before = story.frame(1).header.chain();
    assert!(Attestation::read(bytes, 4, &before).is_ok());
    for position in (0..200).filter(|position| *position != 4) {
        assert!(matches!(Attestation::read(bytes, position, &before), Err(Damage::Bad(_))), "{position}");
    }
    for bit in 0..256 {
        let mut other = before;
        other[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(Attestation::read(bytes, 4, &other), Err(Damage::Bad(_))), "bit {bit}");
    }
}

/// Joining is associative, and what is joined is never longer than its parts were.
#[test]
fn attestations_join_into_one_that_is_never_longer() {
    let run = |start: u64, end: u64| {
        let mut cover = Cover::new(start);
        for leaf in start..end {
            cover.push_leaf(*blake3::hash(&leaf.to_le_bytes()).as_bytes());
        }
        let [before, after] = [start, end].map(|place| *blake3::hash(&place.to_le_bytes()).as_bytes());
        // The newest order is not always the last one.
        let order = 1000 + end % 7;
        Attestation { chain_before: before, chain_after: after, last_recorded_at: end, order, cover }
    };
    let mut shorter = 0;
    for start in 0..20 {
        for first in start + 1..start + 18 {
            for second in first + 1..first + 9 {
                let end = second + 1 + (start + first * second) % 33;
                let parts = [run(start, first), run(first, second), run(second, end)];
                let mut left = parts[0].clone();
                left.join(&parts[1]);
                left.join(&parts[2]);
                let mut behind = parts[1].clone();
                behind.join(&parts[2]);
                let mut right = parts[0].clone();
                right.join(&behind);
                assert_eq!(left, right);
                let newest = parts.iter().map(|part| part.order).max().unwrap();
                assert_eq!(left, Attestation { order: newest, ..run(start, end) });
                let before: usize = parts.iter().map(Attestation::bytes).sum();
                assert!(left.bytes() <= before - 128, "{start} {first} {second} {end}");
                shorter += usize::from(left.bytes() < before - 128);
            }
        }
    }
    assert!(shorter > 100, "{shorter} of them lost roots as well");
}

/// A frame of one event with this body, under right checksums.
fn frame_of(body: &[u8]) -> Result<(), Damage> {
    let story = GoldenSegment::read();
    let place = story.place(0);
    let mut bytes = Vec::new();
    story.frame(0).header.fields().write(&mut bytes, &place, body, &[]);
    let frame = frame::read(&bytes, &place)?;
    frame.all_records().try_for_each(|record| record.map(drop))
}

fn body_of(cause: Option<Cause>, payload_bytes: usize) -> Vec<u8> {
    let mut body = Vec::new();
    let fields = RecordFields { cause, ..fields("a", "b") };
    let payload = vec![1; payload_bytes];
    record::write(&mut body, &NewRecord { fields, metadata: &[], payload: &payload }, false).unwrap();
    record::seal(&mut body);
    body.resize(padded_body_bytes(body.len(), false, 1), 0);
    body
}

#[test]
fn limits_hold_to_the_byte() {
    let bad = |result: Result<(), Damage>| matches!(result, Err(Damage::Bad(_) | Damage::Forbidden(_)));
    // 34 bytes of a record are no payload.
    assert_eq!(frame_of(&body_of(None, BODY_BYTES_MAX - 34)), Ok(()));
    assert!(bad(frame_of(&body_of(None, BODY_BYTES_MAX - 33))), "a body of 16 MiB");
    for payload_bytes in 0..8 {
        let mut body = body_of(None, payload_bytes);
        assert_eq!(frame_of(&body), Ok(()));
        body.extend_from_slice(&[0; 8]);
        assert!(bad(frame_of(&body)), "8 zeros too many behind {payload_bytes} bytes");
    }
    assert_eq!(frame_of(&body_of(Some(Cause::InAppend(0)), 0)), Ok(()));
    assert!(bad(frame_of(&body_of(Some(Cause::InAppend(1)), 0))), "the second cause of one");
}

/// Header and body end at a multiple of 8, so the longest body depends on the length of the header.
#[test]
fn the_longest_body_holds_to_the_byte_for_every_header() {
    let story = GoldenSegment::read();
    let place = story.place(0);
    let impossible = Damage::Forbidden("a frame's header holds an impossible length or count");
    for (events, key, header_bytes, longest) in [
        (1, None, 76, 16_777_212),
        (2, None, 80, 16_777_208),
        (1, Some([1; 16]), 92, 16_777_212),
        (u16::MAX, Some([1; 16]), 96, 16_777_208),
    ] {
        let flags = NewFrameHeader::flags_for(key.is_some(), false);
        let new = NewFrameHeader { events, key, flags, ..story.frame(0).header.fields() };
        for (body_bytes, fits) in [
            (longest, true),
            (longest - 8, true),
            (longest - 4, false),
            (longest + 4, false),
            (longest + 8, false),
        ] {
            let bytes = header_alone(&new, &place, body_bytes);
            assert_eq!(bytes.len(), header_bytes);
            let found = frame::read_header(&bytes, story.header.frame_mark(place.offset));
            let right = if fits { Ok(body_bytes) } else { Err(impossible.clone()) };
            assert_eq!(found.map(|header| header.body_bytes()), right, "{header_bytes} {body_bytes}");
        }
    }
}

/// Some thousand frames with several bytes changed at random, under right checksums: no reader panics, and no
/// changed frame continues the chain.
#[test]
fn random_values_under_right_checksums_never_panic() {
    let story = GoldenSegment::read();
    let mut random = 1_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 33).unwrap()
    };
    for round in 0..60_000 {
        let index = round % 3;
        let before =
            if index == 0 { story.header.chain_before } else { story.frame(index - 1).header.chain() };
        let bytes = story.frame_bytes(index);
        let mut changed = bytes.to_vec();
        for _ in 0..=next() % 6 {
            let at = 12 + next() % (changed.len() - 12);
            changed[at] = [0, 1, 0x7F, 0x80, 0xFF, changed[at].wrapping_add(8)][next() % 6];
        }
        let place = story.place(index);
        repair(&mut changed, &place);
        // But for what no chain covers, see above.
        changed[20..24].copy_from_slice(&bytes[20..24]);
        repair(&mut changed, &place);
        assert_eq!(passes(&changed, &place, &before), changed == bytes, "round {round}");
    }
}
