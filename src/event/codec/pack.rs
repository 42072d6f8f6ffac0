//! MessagePack, value by value: the shortest form of each.
//!
//! Row: bytes.

use super::encode::{EncodeError, refused};

pub(super) const NIL: u8 = 0xC0;

/// Room for the head of a list or a map whose length is not known yet: the longest form, with a length that
/// no value has.
pub(super) const OPEN_BYTES: usize = 5;
const OPEN: u32 = u32::MAX;

pub(super) fn open_head(out: &mut Vec<u8>, is_map: bool) {
    marked(out, if is_map { 0xDF } else { 0xDD }, OPEN.to_be_bytes());
}

fn short(length: u64) -> Result<u32, EncodeError> {
    let short = u32::try_from(length).ok().filter(|length| *length < OPEN);
    short.ok_or_else(|| refused("it is longer than MessagePack can say; split it"))
}

pub(super) fn long(length: usize) -> u64 {
    u64::try_from(length).expect("a length fits 64 bits")
}

/// The head of something with a length: in one byte if it is below `small`, else behind a marker.
#[inline]
fn head(out: &mut Vec<u8>, length: u32, small: (u8, u8), markers: [u8; 3]) {
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length), _) if length < small.1 => out.push(small.0 | length),
        (Ok(length), _) if markers[0] != 0 => out.extend_from_slice(&[markers[0], length]),
        (_, Ok(length)) => {
            out.push(markers[1]);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(markers[2]);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
}

#[inline]
pub(super) fn map_head(out: &mut Vec<u8>, entries: u64) -> Result<(), EncodeError> {
    head(out, short(entries)?, (0x80, 16), [0, 0xDE, 0xDF]);
    Ok(())
}

pub(super) fn list_head(out: &mut Vec<u8>, values: u64) -> Result<(), EncodeError> {
    head(out, short(values)?, (0x90, 16), [0, 0xDC, 0xDD]);
    Ok(())
}

#[inline]
pub(super) fn text(out: &mut Vec<u8>, text: &str) -> Result<(), EncodeError> {
    head(out, short(long(text.len()))?, (0xA0, 32), [0xD9, 0xDA, 0xDB]);
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

pub(super) fn byte_string(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), EncodeError> {
    head(out, short(long(bytes.len()))?, (0, 0), [0xC4, 0xC5, 0xC6]);
    out.extend_from_slice(bytes);
    Ok(())
}

#[inline]
pub(super) fn unsigned(out: &mut Vec<u8>, value: u64) {
    if let Ok(value) = u8::try_from(value) {
        match value {
            0..0x80 => out.push(value),
            _ => out.extend_from_slice(&[0xCC, value]),
        }
    } else if let Ok(value) = u16::try_from(value) {
        marked(out, 0xCD, value.to_be_bytes());
    } else if let Ok(value) = u32::try_from(value) {
        marked(out, 0xCE, value.to_be_bytes());
    } else {
        marked(out, 0xCF, value.to_be_bytes());
    }
}

#[inline]
pub(super) fn signed(out: &mut Vec<u8>, value: i64) {
    if let Ok(value) = u64::try_from(value) {
        unsigned(out, value);
    } else if let Ok(value) = i8::try_from(value) {
        match value {
            -32.. => out.push(value.cast_unsigned()),
            _ => marked(out, 0xD0, value.to_be_bytes()),
        }
    } else if let Ok(value) = i16::try_from(value) {
        marked(out, 0xD1, value.to_be_bytes());
    } else if let Ok(value) = i32::try_from(value) {
        marked(out, 0xD2, value.to_be_bytes());
    } else {
        marked(out, 0xD3, value.to_be_bytes());
    }
}

#[inline]
pub(super) fn marked<const N: usize>(out: &mut Vec<u8>, marker: u8, bytes: [u8; N]) {
    out.push(marker);
    out.extend_from_slice(&bytes);
}

/// Makes an extension of what was written: a list of its type and its bytes.
pub(super) fn extension(out: &mut Vec<u8>, at: usize) -> Result<(), EncodeError> {
    let (kind, bytes) =
        read_extension(&out[at..]).ok_or_else(|| refused("an extension is its type and its bytes"))?;
    let bytes = bytes.to_vec();
    out.truncate(at);
    match bytes.len() {
        1 => out.push(0xD4),
        2 => out.push(0xD5),
        4 => out.push(0xD6),
        8 => out.push(0xD7),
        16 => out.push(0xD8),
        length => head(out, short(long(length))?, (0, 0), [0xC7, 0xC8, 0xC9]),
    }
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&bytes);
    Ok(())
}

fn read_extension(written: &[u8]) -> Option<(i8, &[u8])> {
    let (kind, rest) = match written {
        [0x92, 0xD0, kind, rest @ ..] => (*kind, rest),
        [0x92, kind @ (0..0x80 | 0xE0..), rest @ ..] => (*kind, rest),
        _ => return None,
    };
    let bytes = match rest {
        [0xC4, _, bytes @ ..] | [0xC5, _, _, bytes @ ..] | [0xC6, _, _, _, _, bytes @ ..] => bytes,
        _ => return None,
    };
    Some((kind.cast_signed(), bytes))
}
