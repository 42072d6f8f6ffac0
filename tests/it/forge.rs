//! Forging: where the parts of a frame lie, and checksums that fit what was changed. Told from SPEC.md alone.

use std::ops::Range;

use crate::corrupt::{u32_at, u64_at};

pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

pub(crate) fn crc(pieces: &[&[u8]]) -> [u8; 4] {
    pieces.iter().fold(0, |crc, piece| crc32c::crc32c_append(crc, piece)).to_le_bytes()
}

fn events_of(bytes: &[u8], frame: usize) -> usize {
    u32_at(bytes, frame + 24) & 0xFFFF
}

fn has_key(bytes: &[u8], frame: usize) -> bool {
    bytes[frame + 27] & 1 != 0
}

fn has_versions(bytes: &[u8], frame: usize) -> bool {
    bytes[frame + 27] & 2 != 0
}

/// Where the body of the frame at `frame` begins: behind key and body checksum, if there are any.
pub(crate) fn body(bytes: &[u8], frame: usize) -> usize {
    let key = if has_key(bytes, frame) { 16 } else { 0 };
    frame + 76 + key + if events_of(bytes, frame) > 1 { 4 } else { 0 }
}

/// A record in a segment's bytes.
pub(crate) struct RecordPlace {
    pub(crate) whole: Range<usize>,
    /// Where the public part and the private part begin.
    pub(crate) public: usize,
    pub(crate) private: usize,
    pub(crate) version: Option<u64>,
}

/// The records of the frame at `frame`, as many as their lengths leave room for.
pub(crate) fn records(bytes: &[u8], frame: usize) -> Vec<RecordPlace> {
    let prefix = if has_versions(bytes, frame) { 16 } else { 10 };
    let mut start = body(bytes, frame);
    let end = bytes.len().min(start.saturating_add(u32_at(bytes, frame + 12)));
    let mut records = Vec::new();
    while records.len() < events_of(bytes, frame) && start + prefix <= end {
        let public = start + prefix;
        let private = public + (u32_at(bytes, start + 8) & 0xFFFF);
        let whole = start..private + (u32_at(bytes, start + 4) & 0xFF_FFFF);
        if whole.end > end {
            break;
        }
        let version = (prefix == 16).then(|| u64_at(bytes, start + 8) >> 16);
        start = whole.end;
        records.push(RecordPlace { whole, public, private, version });
    }
    records
}

/// The checksum of the place of a record: what its bytes are bound to and nowhere stored.
fn place_checksum(bytes: &[u8], frame: usize, index: usize, record: &RecordPlace) -> u32 {
    let position = u64_at(bytes, 56).wrapping_add(u32_at(bytes, frame + 16) as u64);
    let version = record.version.unwrap_or_else(|| u64_at(bytes, frame + 36).wrapping_add(index as u64));
    let place = [
        &bytes[72..80],
        &u32::try_from(record.whole.start).unwrap().to_le_bytes(),
        &u16::try_from(index).unwrap().to_le_bytes(),
        &bytes[frame + 24..frame + 26],
        &position.wrapping_add(index as u64).to_le_bytes(),
        &version.to_le_bytes(),
        &bytes[frame + 28..frame + 36],
        &bytes[frame + 44..frame + 76],
    ]
    .concat();
    assert_eq!(place.len(), 72);
    crc32c::crc32c(&place)
}

/// Has the checksums of a segment header, a frame or a seal fit what is in it: first of its records, then of
/// the body, then of the header.
pub(crate) fn refit(bytes: &mut [u8], part: &Range<usize>) {
    let start = part.start;
    if start == 0 {
        let sum = crc(&[&bytes[..140]]);
        return put(bytes, 140, &sum);
    }
    if part.len() != 72 {
        for (index, record) in records(bytes, start).iter().enumerate() {
            let parts = [
                &bytes[record.whole.start + 4..record.whole.start + 10],
                &bytes[record.public..record.whole.end],
            ];
            let own = u32::from_le_bytes(crc(&parts));
            let sum = own ^ place_checksum(bytes, start, index, record);
            put(bytes, record.whole.start, &sum.to_le_bytes());
        }
    }
    refit_header(bytes, part);
}

/// Has the checksums of a frame but those of its records, or the checksum of a seal, fit what is in it.
pub(crate) fn refit_header(bytes: &mut [u8], part: &Range<usize>) {
    let start = part.start;
    let mut header_end = part.end;
    if part.len() != 72 {
        header_end = body(bytes, start).min(bytes.len());
        if events_of(bytes, start) > 1 {
            let end = bytes.len().min(header_end.saturating_add(u32_at(bytes, start + 12)));
            let sum = crc(&[&bytes[header_end..end]]);
            put(bytes, header_end - 4, &sum);
        }
    }
    let sum = crc(&[&bytes[start..start + 8], &bytes[start + 12..header_end]]);
    put(bytes, start + 8, &sum);
}

/// Has the chain of a frame, and its checksums, fit its content; `before` is the frame in front of it.
pub(crate) fn rechain(bytes: &mut [u8], frame: &Range<usize>, before: &Range<usize>) -> [u8; 32] {
    let start = frame.start;
    let mut contents = Vec::new();
    let mut extension = Vec::new();
    if has_key(bytes, start) {
        extension.extend_from_slice(&bytes[start + 76..start + 92]);
    }
    for record in records(bytes, start) {
        let hash = blake3::hash(&bytes[record.private..record.whole.end]);
        contents.push(hash_of(&[&[0], &bytes[record.public..record.private], hash.as_bytes()]));
        extension.extend(record.version.into_iter().flat_map(u64::to_le_bytes));
    }
    let mut content = contents[0];
    if contents.len() > 1 {
        content = hash_of(&[&[1], contents.as_flattened()]);
    }
    if !extension.is_empty() {
        content = hash_of(&[&[2], &content, &extension]);
    }
    let position = u64_at(bytes, 56) + u32_at(bytes, start + 16) as u64;
    let block = [
        &content,
        position.to_le_bytes().as_slice(),
        &bytes[start + 28..start + 44],
        &bytes[start + 24..start + 28],
        &[0; 4],
    ]
    .concat();
    let key: [u8; 32] = bytes[before.start + 44..before.start + 76].try_into().unwrap();
    let chain = *blake3::keyed_hash(&key, &block).as_bytes();
    put(bytes, start + 44, &chain);
    refit(bytes, frame);
    chain
}

fn hash_of(pieces: &[&[u8]]) -> [u8; 32] {
    *blake3::hash(&pieces.concat()).as_bytes()
}
