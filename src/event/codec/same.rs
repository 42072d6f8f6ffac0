//! Whether an event that was read back would be stored with the fields it was stored with.
//!
//! Bytes that are the same are enough. A `HashMap` gives its entries in another order each time, and a type
//! may bring values into another form as it reads them (a text in lower case). So what is compared then are
//! keys and kinds of values, in any order: that a field is gone or new, is a list, a text or nothing.
//! Row: bytes.

use super::payload::{head_of, length_of};
use super::print::{hash, mix};
use super::trail::step_to;
use super::value::Value;

/// A map with more entries is not searched for the one that is different.
const SEARCHED_MAX: usize = 1024;

/// The path to a field in which the two are different, if they are; empty for the value as a whole.
pub(crate) fn difference(written: &[u8], again: &[u8]) -> Option<String> {
    if written == again || shape_of(written) == shape_of(again) {
        return None;
    }
    let mut path = String::new();
    if let (Ok(written), Ok(again)) = (super::decode::<Value>(written), super::decode::<Value>(again)) {
        descend(&written, &again, &mut path);
    }
    Some(path)
}

/// Extends the path as far as the difference is in one field.
fn descend(written: &Value, again: &Value, path: &mut String) {
    let (Some(written), Some(again)) = (written.entries(), again.entries()) else { return };
    if written.len().max(again.len()) > SEARCHED_MAX {
        return;
    }
    let in_other = |entries: &[(Value, Value)], key: &Value| {
        entries.iter().find(|(other, _)| other == key).map(|(_, value)| value.clone())
    };
    for (key, value) in written {
        match in_other(again, key) {
            None => return step_to(path, key),
            Some(other) if shape_of_value(value) != shape_of_value(&other) => {
                step_to(path, key);
                return descend(value, &other, path);
            }
            Some(_) => {}
        }
    }
    if let Some((key, _)) = again.iter().find(|(key, _)| in_other(written, key).is_none()) {
        step_to(path, key);
    }
}

fn shape_of_value(value: &Value) -> Option<u64> {
    let mut bytes = Vec::new();
    super::encode_unread(value, &mut bytes).ok()?;
    shape_of(&bytes)
}

/// A hash of keys and kinds.
fn shape_of(bytes: &[u8]) -> Option<u64> {
    shape(&mut &*bytes)
}

/// The kinds are numbered by what their heads look like to serde: numbers are one kind, but for floats.
fn shape(rest: &mut &[u8]) -> Option<u64> {
    let (own, values) = head_of(rest)?;
    let (head, mut behind) = rest.split_at_checked(own)?;
    let (kind, is_map) = match head[0] {
        0x00..=0x7F | 0xE0..=0xFF | 0xCC..=0xD3 => (1, false),
        0xCA | 0xCB => (2, false),
        0xA0..=0xBF | 0xD9..=0xDB => (3, false),
        0xC4..=0xC6 => (4, false),
        0xC2 | 0xC3 => (5, false),
        0x90..=0x9F | 0xDC | 0xDD => (6, false),
        0x80..=0x8F | 0xDE | 0xDF => (7, true),
        _ => (8, false),
    };
    let mut sum = 0_u64;
    let mut left = values;
    while left > 0 {
        let key = if is_map {
            let (key, value) = behind.split_at_checked(length_of(behind)?)?;
            behind = value;
            left -= 1;
            hash(key)
        } else {
            0
        };
        sum = sum.wrapping_add(mix(key, shape(&mut behind)?));
        left -= 1;
    }
    *rest = behind;
    Some(mix(kind, mix(values, sum)))
}
