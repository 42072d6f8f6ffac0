//! Which field of a payload its own type cannot read.
//!
//! serde's errors tell no path. So each value of the payload is put out of order in turn: where that changes
//! the error, the value is read before the error comes about, or is what brings it about.
//! Row: bytes.

use super::payload::head_of;
use super::trail::path_to;

/// A payload with more values is not searched.
const VALUES_MAX: usize = 512;

/// The path to the field that makes `read` fail with this error; empty where it cannot be told, or where the
/// error names the field.
pub(crate) fn blame(payload: &[u8], error: &str, read: &dyn Fn(&[u8]) -> Option<String>) -> String {
    if ["missing field", "duplicate field", "unknown field"].iter().any(|begin| error.starts_with(begin)) {
        return String::new();
    }
    let Some(values) = values(payload) else { return String::new() };
    let spoilt_error = |value: &Value| read(&spoilt(payload, &[value])).unwrap_or_default();
    let (unmoved, moved): (Vec<&Value>, Vec<&Value>) =
        values.iter().partition(|value| spoilt_error(value) == error);
    // Inside flatten, tag and untagged these errors come about for any value there.
    let is_buffered = error.contains("128 is not supported") || error.contains("did not match any variant");
    let found = if is_buffered {
        let wide = unmoved.iter().find(|value| payload[value.at..].starts_with(&[0xC4, 16]));
        wide.or(unmoved.first()).copied()
    } else {
        // What is read last of those is it. Of two that are spoilt, the one that is read first has its error.
        moved.into_iter().reduce(|one, other| {
            let both = read(&spoilt(payload, &[one, other])).unwrap_or_default();
            if both == spoilt_error(one) { other } else { one }
        })
    };
    found.map(|value| path_to(&payload[..value.at])).unwrap_or_default()
}

/// A value that is no list, no map and no key.
struct Value {
    at: usize,
    length: usize,
    /// Makes the errors of spoilt values different.
    number: u32,
}

/// The payload with some values, in their order, replaced by what they are not: a text by a number, all else
/// by a text.
fn spoilt(payload: &[u8], values: &[&Value]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.len());
    let mut at = 0;
    for value in values {
        bytes.extend_from_slice(&payload[at..value.at]);
        match payload[value.at] {
            0xA0..=0xBF | 0xD9..=0xDB => {
                bytes.push(0xCB);
                bytes.extend_from_slice(&(f64::from(value.number) + 0.5).to_be_bytes());
            }
            _ => {
                let text = format!("spoilt-{}", value.number);
                bytes.extend_from_slice(&[0xD9, u8::try_from(text.len()).expect("it is short")]);
                bytes.extend_from_slice(text.as_bytes());
            }
        }
        at = value.at + value.length;
    }
    bytes.extend_from_slice(&payload[at..]);
    bytes
}

/// Where each value begins that is no list, no map and no key, and how long it is.
fn values(payload: &[u8]) -> Option<Vec<Value>> {
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
            let number = u32::try_from(found.len()).ok()?;
            found.push(Value { at, length: own, number });
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
