//! Which field of a payload its own type cannot read.
//!
//! serde's errors tell no path. So each value of the payload is put out of order in turn: where that changes the
//! error, the value is read before the error comes about, or is what brings it about.
//! Row: bytes.

use super::payload::head_of;
use super::trail::path_to;

/// A payload with more values is not searched.
const VALUES_MAX: usize = 512;
/// What no type expects: an extension of a type that is in no use.
const SPOILT: [u8; 3] = [0xD4, 0x7F, 0x00];

/// The path to the field that makes `read` fail with this error; empty where it cannot be told, or where the
/// error names the field.
pub(crate) fn blame(payload: &[u8], error: &str, read: &dyn Fn(&[u8]) -> Option<String>) -> String {
    if ["missing field", "duplicate field", "unknown field"].iter().any(|begin| error.starts_with(begin)) {
        return String::new();
    }
    let Some(values) = values(payload) else { return String::new() };
    let makes_no_difference = |value: &&(usize, usize)| {
        let (at, length) = **value;
        let spoilt = [&payload[..at], &SPOILT, &payload[at + length..]].concat();
        read(&spoilt).as_deref() == Some(error)
    };
    let without_difference: Vec<&(usize, usize)> = values.iter().filter(makes_no_difference).collect();
    // Inside flatten, tag and untagged these errors come about whatever stands there.
    let is_buffered = error.contains("128 is not supported") || error.contains("did not match any variant");
    let found = if is_buffered {
        let wide = without_difference.iter().find(|(at, _)| payload[*at..].starts_with(&[0xC4, 16]));
        wide.or(without_difference.first()).copied()
    } else {
        values.iter().rev().find(|value| !without_difference.contains(value))
    };
    found.map(|(at, _)| path_to(&payload[..*at])).unwrap_or_default()
}

/// Where each value begins that is no list, no map and no key, and how long it is.
fn values(payload: &[u8]) -> Option<Vec<(usize, usize)>> {
    let mut found = Vec::new();
    let mut at = 0;
    // How many values are left in each list and map, and whether it is a map.
    let mut opened: Vec<(u64, bool)> = Vec::new();
    while at < payload.len() {
        let (own, inside) = head_of(&payload[at..])?;
        let is_key = opened.last().is_some_and(|(left, is_map)| *is_map && left.is_multiple_of(2));
        if let Some((left, _)) = opened.last_mut() {
            *left = left.checked_sub(1)?;
        }
        if inside > 0 {
            opened.push((inside, matches!(payload[at], 0x80..=0x8F | 0xDE | 0xDF)));
        } else if !is_key {
            found.push((at, own));
        }
        while opened.last().is_some_and(|(left, _)| *left == 0) {
            opened.pop();
        }
        at = at.checked_add(own)?;
        if found.len() > VALUES_MAX {
            return None;
        }
    }
    Some(found)
}
