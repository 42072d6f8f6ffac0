//! Frames by hand, from the tables of the specification and not with the code under test: headers without a
//! body, and checksums that fit bytes that no writer writes.

use std::ops::Range;

use crate::format::{FramePlace, NewFrameHeader, u16_at, u32_at, u64_at};

/// The header of a frame at `place`, alone. It claims a body of `body_bytes` bytes, whose checksum is 0.
pub(crate) fn header_alone(new: &NewFrameHeader, place: &FramePlace, body_bytes: u32) -> Vec<u8> {
    let mut header = [
        &(place.salt ^ place.offset).to_le_bytes()[..],
        &[0; 4],
        &body_bytes.to_le_bytes(),
        &new.position_offset.to_le_bytes(),
        &new.durable_end.to_le_bytes(),
        &new.events.to_le_bytes(),
        &new.flags.to_le_bytes(),
        &new.recorded_at.to_le_bytes(),
        &new.first_version.to_le_bytes(),
        &new.chain,
        new.key.as_ref().map_or(&[], |key| key.as_slice()),
    ]
    .concat();
    header.resize(header_bytes(&header), 0);
    repair_header(&mut header);
    header
}

/// Makes every checksum of a frame at `place` fit again, as far as its lengths lie within it.
pub(crate) fn repair(frame: &mut [u8], place: &FramePlace) {
    if let Some(end) = frame_end(frame) {
        repair_records(&mut frame[..end], place);
    }
    repair_but_records(frame);
}

/// Makes the checksums of body and header fit again, and leaves those of the records.
pub(super) fn repair_but_records(frame: &mut [u8]) {
    let header = header_bytes(frame);
    if let Some(end) = frame_end(frame).filter(|_| u16_at(frame, 24) > 1) {
        let body_checksum = crc32c::crc32c(&frame[header..end]);
        frame[header - 4..header].copy_from_slice(&body_checksum.to_le_bytes());
    }
    repair_header(frame);
}

/// Where the frame ends that begins these bytes, if it lies within them.
fn frame_end(frame: &[u8]) -> Option<usize> {
    let body_bytes = usize::try_from(u32_at(frame, 12)).unwrap();
    Some(header_bytes(frame).saturating_add(body_bytes)).filter(|end| *end <= frame.len())
}

/// Makes the checksum of a frame's header fit again, as far as the header lies within these bytes.
pub(crate) fn repair_header(frame: &mut [u8]) {
    let header = header_bytes(frame);
    if let Some(rest) = frame.get(12..header) {
        let header_checksum = crc32c::crc32c_append(crc32c::crc32c(&frame[..8]), rest);
        frame[8..12].copy_from_slice(&header_checksum.to_le_bytes());
    }
}

fn header_bytes(frame: &[u8]) -> usize {
    let key = if u16_at(frame, 26) & 0x0100 != 0 { 16 } else { 0 };
    let body_checksum = if u16_at(frame, 24) > 1 { 4 } else { 0 };
    76 + key + body_checksum
}

/// The records of a frame, as far as their lengths lie within it: the range of each.
pub(super) fn record_ranges(frame: &[u8]) -> Vec<Range<usize>> {
    let prefix = record_prefix(frame);
    let mut start = header_bytes(frame);
    let mut ranges = Vec::new();
    for _ in 0..u16_at(frame, 24) {
        if frame.len() < start + prefix {
            break;
        }
        let private = u32_at(frame, start + 4) & 0xFF_FFFF;
        let end = start + prefix + usize::from(u16_at(frame, start + 8)) + usize::try_from(private).unwrap();
        if frame.len() < end {
            break;
        }
        ranges.push(start..end);
        start = end;
    }
    ranges
}

/// Which bytes of a frame are checksums: of the header, of the body, of a record.
pub(super) fn checksum_bytes(frame: &[u8]) -> Vec<bool> {
    let mut is_checksum = vec![false; frame.len()];
    is_checksum[8..12].fill(true);
    let records = record_ranges(frame);
    for record in &records {
        is_checksum[record.start..record.start + 4].fill(true);
    }
    if let [first, _, ..] = records.as_slice() {
        is_checksum[first.start - 4..first.start].fill(true);
    }
    is_checksum
}

/// The length of what stands in front of a record's public part: 10 bytes, and the version if there is one.
pub(super) fn record_prefix(frame: &[u8]) -> usize {
    if u16_at(frame, 26) & 0x0200 != 0 { 16 } else { 10 }
}

fn repair_records(frame: &mut [u8], place: &FramePlace) {
    for (index, record) in (0..).zip(record_ranges(frame)) {
        let own = crc32c::crc32c(&frame[record.start + 4..record.start + 10]);
        let own = crc32c::crc32c_append(own, &frame[record.start + record_prefix(frame)..record.end]);
        let checksum = own ^ crc32c::crc32c(&record_place(frame, place, index, record.start));
        frame[record.start..record.start + 4].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// The 48 bytes of the place of the record at `start` of the frame.
fn record_place(frame: &[u8], place: &FramePlace, index: u16, start: usize) -> [u8; 72] {
    let offset = place.offset + u64::try_from(start).unwrap();
    let position = place.first_position + u64::from(u32_at(frame, 16)) + u64::from(index);
    let counted = u64_at(frame, 36).saturating_add(index.into());
    // The six bytes of the version stand behind ten others.
    let version = if record_prefix(frame) == 16 { u64_at(frame, start + 8) >> 16 } else { counted };
    let fields = [
        &place.salt.to_le_bytes()[..],
        &u32::try_from(offset).unwrap().to_le_bytes(),
        &index.to_le_bytes(),
        &frame[24..26],
        &position.to_le_bytes(),
        &version.to_le_bytes(),
        &frame[28..36],
        &frame[44..76],
    ];
    fields.concat().try_into().unwrap()
}
