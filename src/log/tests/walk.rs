//! Walking a segment: what is stepped over, and what hostile bytes cannot do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::cursor::{LogEnd, SegmentCursor, SegmentEnd};
use super::super::segment::{Failure, SegmentFile};
use super::*;
use crate::disk::{DiskFile, MemDisk};
use crate::format::{
    Attestation, Cover, Damage, NewFrameHeader, NewRecord, RecordFields, SEAL_BYTES, Seal, SegmentHeader,
    SegmentId, cover_of, genesis, padded_body_bytes, record, repair, repair_header,
};

/// A segment in memory with these bytes behind its header.
pub(super) fn segment(generation: u32, behind: impl FnOnce(&SegmentHeader) -> Vec<u8>) -> SegmentFile {
    let header = SegmentHeader {
        store_id: [1; 16],
        id: SegmentId { first_position: 1, generation },
        salt: SegmentHeader::salt(42),
        created_at: 0,
        unsynced_bytes_max: 1 << 20,
        chain_before: genesis(&[1; 16]),
        recorded_before: 0,
    };
    let bytes = behind(&header);
    let disk = MemDisk::new();
    let segment =
        SegmentFile::create(&disk, header, SEGMENT_HEADER_BYTES).map_err(Failure::into_error).unwrap();
    segment.file.write_at(&bytes, 144).unwrap();
    segment
}

/// The offset in its segment of what lies `behind` bytes behind the header.
fn offset(behind: usize) -> u32 {
    u32::try_from(SEGMENT_HEADER_BYTES + behind).unwrap()
}

/// A whole frame of this many events, `behind` bytes behind the header. Its chain is arbitrary.
fn frame_at(header: &SegmentHeader, behind: usize, position_offset: u32, events: u16) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..events {
        let fields = RecordFields {
            schema_version: 1,
            entity: "e",
            scope: "",
            kind: "k",
            tag_bytes: &[],
            correlation: None,
            occurred_at: None,
            foreign_id: None,
            cause: None,
            has_metadata: false,
        };
        let start = body.len();
        record::write(&mut body, &NewRecord { fields, metadata: &[], payload: &[] }, false).unwrap();
        record::seal(&mut body[start..]);
    }
    body.resize(padded_body_bytes(body.len(), false, events), 0);
    let frame = NewFrameHeader {
        position_offset,
        durable_end: 0,
        events,
        flags: 0,
        recorded_at: 7,
        first_version: 1,
        chain: [9; 32],
        key: None,
    };
    let mut out = Vec::new();
    frame.write(&mut out, &header.frame_place(offset(behind)), &body, &[]);
    out
}

/// Where a walk without a look at the chain ends, and how the segment ends there.
struct Walked {
    end: LogEnd,
    ending: SegmentEnd,
}

fn walked(segment: &SegmentFile) -> Result<Walked, Error> {
    let mut cursor = SegmentCursor::new(segment, u32::MAX)?.trusting_chain();
    let ending = cursor.visit_frames(|_, _, _| Ok(()))?;
    Ok(Walked { end: *cursor.end(), ending })
}

/// What stands for these positions. Its roots are arbitrary.
fn attestation(first_position: u64, last_position: u64) -> Attestation {
    let mut cover = Cover::new(first_position - 1);
    let positions = last_position + 1 - first_position;
    let roots = vec![[5; 32]; cover_of(first_position - 1..last_position).count()];
    cover.push_run(positions, &roots).unwrap();
    Attestation { chain_before: [9; 32], chain_after: [10; 32], last_recorded_at: 8, order: 1 << 40, cover }
}

/// A segment with one frame of two events, changed by `change` under right checksums, and a seal.
fn one_frame(change: impl FnOnce(&mut Vec<u8>), seal: impl FnOnce(&mut Seal)) -> SegmentFile {
    segment(0, |header| {
        let mut bytes = frame_at(header, 0, 0, 2);
        change(&mut bytes);
        repair(&mut bytes, &header.frame_place(offset(0)));
        let place = SEGMENT_HEADER_BYTES + bytes.len();
        let mut found = Seal {
            length: u32::try_from(place + SEAL_BYTES).unwrap(),
            last_position: 2,
            last_recorded_at: 7,
            frames: 1,
            events: 2,
            chain: [9; 32],
        };
        seal(&mut found);
        bytes.extend(found.write(header, u64::try_from(place).unwrap()));
        bytes
    })
}

/// A whole frame that cannot stand where it stands is no torn tail.
#[test]
fn a_whole_frame_must_fit_its_place() {
    let whole = walked(&one_frame(|_| (), |_| ())).unwrap();
    assert!(matches!(whole.ending, SegmentEnd::Sealed(_)));
    let wrong: [(&str, usize, u8); 3] =
        [("another position", 16, 1), ("more durable than written", 20, 145), ("of another time", 28, 6)];
    for (name, at, value) in wrong {
        let mut segment = one_frame(|frame| frame[at] = value, |_| ());
        segment.header.recorded_before = 7;
        assert_eq!(walked(&segment).err().unwrap().kind(), ErrorKind::Corrupt, "{name}");
    }
    let exact = one_frame(|frame| frame[20] = 144, |_| ());
    assert!(
        matches!(walked(&exact).unwrap().ending, SegmentEnd::Sealed(_)),
        "all in front of it was durable"
    );
}

#[test]
fn every_field_of_a_seal_must_fit_what_it_seals() {
    let changes: [fn(&mut Seal); 6] = [
        |seal| seal.length += 8,
        |seal| seal.last_position += 1,
        |seal| seal.last_recorded_at += 1,
        |seal| seal.frames += 1,
        |seal| seal.events += 1,
        |seal| seal.chain[31] ^= 1,
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let found = walked(&one_frame(|_| (), change)).unwrap();
        assert!(matches!(found.ending, SegmentEnd::Invalid(Damage::Forbidden(_))), "field {index}");
    }
}

/// Removed frames leave a gap in the middle of a segment, and the walk goes on behind it.
#[test]
fn a_walk_steps_over_an_attestation() {
    let build = |generation: u32, attestation: Attestation, next: u32, recorded: bool| {
        segment(generation, |header| {
            let mut bytes = frame_at(header, 0, 0, 2);
            bytes.extend(
                attestation.write(header, u64::try_from(SEGMENT_HEADER_BYTES + bytes.len()).unwrap()),
            );
            let mut last = frame_at(header, bytes.len(), next, 1);
            if recorded {
                last[28] = 8;
                repair(&mut last, &header.frame_place(offset(bytes.len())));
            }
            bytes.extend(last);
            bytes
        })
    };
    let found = walked(&build(1, attestation(3, 10), 10, true)).unwrap();
    assert!(matches!(found.ending, SegmentEnd::Zeros));
    assert_eq!(
        (found.end.position, found.end.frames, found.end.events, found.end.recorded_at),
        (11, 2, 3, 8)
    );

    let wrong = [
        ("in a segment that was never rewritten", build(0, attestation(3, 10), 10, true)),
        ("further than a segment reaches", build(1, attestation(3, (1 << 32) + 1), 10, true)),
        (
            "that goes back in time",
            build(1, Attestation { last_recorded_at: 6, ..attestation(3, 10) }, 10, true),
        ),
        ("followed by an earlier frame", build(1, attestation(3, 10), 10, false)),
        ("followed by another position", build(1, attestation(3, 10), 11, true)),
    ];
    for (name, segment) in wrong {
        assert_eq!(walked(&segment).err().unwrap().kind(), ErrorKind::Corrupt, "an attestation {name}");
    }
    // Position and chain in front are in the checksum only.
    let misfits = [
        ("at another position", build(1, attestation(4, 10), 10, true)),
        ("of another chain", build(1, Attestation { chain_before: [8; 32], ..attestation(3, 10) }, 10, true)),
    ];
    for (name, segment) in misfits {
        let found = walked(&segment).unwrap();
        assert!(matches!(found.ending, SegmentEnd::Invalid(Damage::Bad(_))), "an attestation {name}");
        assert_eq!(found.end.position, 2, "an attestation {name}");
    }
}

/// Hostile files: positions at the end of what 32 bits hold.
#[test]
fn positions_of_a_segment_do_not_overflow() {
    let last = u64::from(u32::MAX);
    for events in [1, 2] {
        let segment = segment(1, |header| {
            let mut bytes = frame_at(header, 0, 0, 1);
            let attestation = Attestation { last_recorded_at: 7, ..attestation(2, last) };
            bytes.extend(
                attestation.write(header, u64::try_from(SEGMENT_HEADER_BYTES + bytes.len()).unwrap()),
            );
            bytes.extend(frame_at(header, bytes.len(), u32::MAX, events));
            bytes
        });
        assert_eq!(walked(&segment).err().unwrap().kind(), ErrorKind::Corrupt, "{events} events");
    }
}

/// Hostile files: what a header promises is not what a reader makes room for.
#[test]
fn a_walk_reads_no_more_than_there_is() {
    struct Measured(Box<dyn DiskFile>, Arc<AtomicUsize>);
    impl DiskFile for Measured {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
            self.1.fetch_max(buffer.len(), Ordering::Relaxed);
            self.0.read_at(buffer, offset)
        }
        fn write_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<usize> {
            self.0.write_at(bytes, offset)
        }
        fn length(&self) -> std::io::Result<u64> {
            self.0.length()
        }
        fn set_length(&self, bytes: u64) -> std::io::Result<()> {
            self.0.set_length(bytes)
        }
        fn sync(&self) -> std::io::Result<()> {
            self.0.sync()
        }
        fn drop_cache(&self, offset: u64) -> std::io::Result<()> {
            self.0.drop_cache(offset)
        }
    }
    let huge = |change: fn(&mut Vec<u8>)| {
        let segment = segment(0, |header| {
            let mut frame = frame_at(header, 0, 0, 1);
            change(&mut frame);
            repair_header(&mut frame);
            frame
        });
        let length = usize::try_from(segment.length().unwrap()).unwrap();
        let most = Arc::new(AtomicUsize::new(0));
        let file = Box::new(Measured(segment.file, most.clone()));
        let found = walked(&SegmentFile { file, ..segment }).unwrap();
        let is_refused = matches!(found.ending, SegmentEnd::Invalid(Damage::Bad(_) | Damage::Forbidden(_)));
        assert!(is_refused, "{:?}", found.ending);
        assert!(most.load(Ordering::Relaxed) <= length, "{most:?} of {length}");
    };
    huge(|frame| frame[12..16].copy_from_slice(&((16_u32 << 20) - 4).to_le_bytes()));
    huge(|frame| frame[12..16].copy_from_slice(&(u32::MAX - 3).to_le_bytes()));
    huge(|frame| {
        frame[12..16].copy_from_slice(&((16_u32 << 20) - 8).to_le_bytes());
        frame[24..28].copy_from_slice(&[0xFF, 0xFF, 0x00, 0x03]);
    });
}
