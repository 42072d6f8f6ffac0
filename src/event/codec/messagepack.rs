//! MessagePack, one value at a time: writes the shortest form of each, and reads the heads of values.
//!
//! A head is the first byte of a value with its length, if it has one. Heads give the length of a value
//! without decoding it.

use std::fmt;

use crate::types::to_u64;

pub(super) const NIL: u8 = 0xC0;
pub(super) const FALSE: u8 = 0xC2;
pub(super) const TRUE: u8 = 0xC3;
const SHORT_TEXT: u8 = 0xA0;
/// The longest text whose first byte holds its length.
const SHORT_TEXT_MAX: usize = 31;

/// The bytes of an open head. A list or map whose length is not known yet begins with one: the longest form,
/// with a length that no value has.
pub(super) const OPEN_BYTES: usize = 5;
const OPEN: u32 = u32::MAX;

/// The error that a value does not encode, and the path to the field that is refused.
#[derive(Debug)]
pub(crate) struct EncodeError {
    pub(super) path: String,
    pub(super) text: String,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.text),
            path => write!(f, "the field {path}: {}", self.text),
        }
    }
}

impl std::error::Error for EncodeError {}

impl serde::ser::Error for EncodeError {
    fn custom<T: fmt::Display>(text: T) -> EncodeError {
        refused(text)
    }
}

/// An error without a path; `encode.rs` adds the path once it is known.
#[cold]
pub(super) fn refused(text: impl fmt::Display) -> EncodeError {
    EncodeError { path: String::new(), text: text.to_string() }
}

/// Writes a head for a list or map whose length is not known yet.
pub(super) fn open_head(out: &mut Vec<u8>, is_map: bool) {
    marked(out, if is_map { 0xDF } else { 0xDD }, OPEN.to_be_bytes());
}

fn short(length: u64) -> Result<u32, EncodeError> {
    let short = u32::try_from(length).ok().filter(|length| *length < OPEN);
    short.ok_or_else(|| refused("it is longer than MessagePack can say; split it"))
}

/// Writes the head of a value with a length. The length goes into the first byte if it is below `small.1`,
/// else after one of the markers for 8, 16 and 32 bits.
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
    head(out, short(to_u64(text.len()))?, (0xA0, 32), [0xD9, 0xDA, 0xDB]);
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

pub(super) fn byte_string(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), EncodeError> {
    head(out, short(to_u64(bytes.len()))?, (0, 0), [0xC4, 0xC5, 0xC6]);
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

/// Replaces the list of a type and bytes, which was written at `at`, by an extension of that type.
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
        length => head(out, short(to_u64(length))?, (0, 0), [0xC7, 0xC8, 0xC9]),
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

/// Reads the head of a map: the number of its entries, and the bytes after the head.
#[inline]
pub(super) fn split_map(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (head, rest) = bytes.split_first()?;
    match head {
        0x80..=0x8F => Some(((head & 0x0F).into(), rest)),
        0xDE => rest.split_first_chunk().map(|(count, rest)| (u16::from_be_bytes(*count).into(), rest)),
        0xDF => rest.split_first_chunk().map(|(count, rest)| (u32::from_be_bytes(*count), rest)),
        _ => None,
    }
}

/// Reads the head of a text: its length, and the bytes after the head.
#[inline]
pub(super) fn split_text(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (head, rest) = bytes.split_first()?;
    match head {
        0xA0..=0xBF => Some(((head & 0x1F).into(), rest)),
        0xD9 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest)),
        0xDA => rest.split_first_chunk().map(|(length, rest)| (u16::from_be_bytes(*length).into(), rest)),
        _ => None,
    }
}

/// The bytes of the value at the beginning of `bytes`, with all values inside it; `None` if it does not end.
#[inline]
pub(super) fn length_of(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    let mut left = 1_u64;
    while left > 0 {
        let (own, inside) = head_of(rest)?;
        rest = rest.get(own..)?;
        left = (left - 1).checked_add(inside)?;
    }
    Some(bytes.len() - rest.len())
}

/// The bytes of a value without the values inside it, and the number of values inside it.
#[inline]
pub(super) fn head_of(bytes: &[u8]) -> Option<(usize, u64)> {
    let (head, rest) = bytes.split_first()?;
    let short = || rest.first().map(|length| usize::from(*length));
    let medium = || rest.first_chunk().map(|length| u16::from_be_bytes(*length));
    let long = || rest.first_chunk().map(|length| u32::from_be_bytes(*length));
    let wide = |length: u32| usize::try_from(length).ok();
    let own = match head {
        0x80..=0x8F => return Some((1, 2 * u64::from(head & 0x0F))),
        0x90..=0x9F => return Some((1, (head & 0x0F).into())),
        0xDC => return Some((3, medium()?.into())),
        0xDD => return Some((5, long()?.into())),
        0xDE => return Some((3, 2 * u64::from(medium()?))),
        0xDF => return Some((5, 2 * u64::from(long()?))),
        0xA0..=0xBF => 1 + usize::from(head & 0x1F),
        0xC4 | 0xD9 => 2 + short()?,
        0xC5 | 0xDA => 3 + usize::from(medium()?),
        0xC6 | 0xDB => wide(long()?)?.checked_add(5)?,
        0xC7 => 3 + short()?,
        0xC8 => 4 + usize::from(medium()?),
        0xC9 => wide(long()?)?.checked_add(6)?,
        0xCC | 0xD0 => 2,
        0xCD | 0xD1 | 0xD4 => 3,
        0xD5 => 4,
        0xCA | 0xCE | 0xD2 => 5,
        0xD6 => 6,
        0xCB | 0xCF | 0xD3 => 9,
        0xD7 => 10,
        0xD8 => 18,
        0xC1 => return None,
        _ => 1,
    };
    Some((own, 0))
}

/// The bytes after a short text, if `bytes` begins with exactly this text.
#[inline(always)]
pub(super) fn skip_text<'de>(bytes: &'de [u8], text: &str) -> Option<&'de [u8]> {
    let (head, rest) = bytes.split_first()?;
    if text.len() > SHORT_TEXT_MAX || usize::from(*head) != usize::from(SHORT_TEXT) + text.len() {
        return None;
    }
    let (own, rest) = rest.split_at_checked(text.len())?;
    are_same(own, text.as_bytes()).then_some(rest)
}

/// Whether two names of one length are the same. For short names, comparing both ends inline takes less time
/// than a call of the library's comparison.
#[inline(always)]
fn are_same(one: &[u8], other: &[u8]) -> bool {
    match one.len() {
        4..8 => ends::<4>(one) == ends::<4>(other),
        8..=16 => ends::<8>(one) == ends::<8>(other),
        _ => one == other,
    }
}

#[inline(always)]
fn ends<const N: usize>(bytes: &[u8]) -> (Option<&[u8; N]>, Option<&[u8; N]>) {
    (bytes.first_chunk(), bytes.last_chunk())
}
