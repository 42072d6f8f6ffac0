//! The path to a field, for errors: where encoding stopped, and which field a type cannot read.
//!
//! The path is read from the bytes of the payload. Nothing here runs unless a value is refused, or holds
//! flattened entries that an unknown type will read.

use std::fmt::Write;

use super::messagepack::{head_of, length_of};
use super::payload::decode;
use super::value::{Node, Value};

/// The most characters of a key that are shown.
const KEY_CHARS_MAX: usize = 40;

/// The most steps of a path that are shown.
const STEPS_MAX: usize = 12;

/// A list or a map that has begun and not ended.
struct OpenGroup {
    is_map: bool,
    /// The number of its values, keys included.
    values: u64,
    /// How many of them are written.
    written: u64,
    key: String,
}

/// The path to the value that would come after `bytes`: `lines[3].price`. Empty for the value as a whole.
pub(super) fn path_to(bytes: &[u8]) -> String {
    let mut opened: Vec<OpenGroup> = Vec::new();
    let mut rest = bytes;
    while let Some((own, values)) = head_of(rest) {
        let Some((value, behind)) = rest.split_at_checked(own) else { break };
        if values > 0 {
            let is_map = matches!(value[0], 0x80..=0x8F | 0xDE | 0xDF);
            opened.push(OpenGroup { is_map, values, written: 0, key: String::new() });
        } else {
            finish(&mut opened, value);
        }
        rest = behind;
    }
    let mut path = String::new();
    for (number, group) in opened.iter().enumerate() {
        if number == STEPS_MAX {
            path.push_str("..");
            break;
        }
        if !group.is_map {
            let _ = write!(path, "[{}]", group.written);
        } else if !group.written.is_multiple_of(2) {
            push_name(&mut path, &group.key);
        } else if number + 1 < opened.len() {
            path.push_str("[a key]");
        }
    }
    path
}

/// Counts a value in the list or map that it stands in. Closes each group of which it was the last value.
fn finish(opened: &mut Vec<OpenGroup>, value: &[u8]) {
    let mut key = Some(value);
    while let Some(group) = opened.last_mut() {
        if group.is_map && group.written.is_multiple_of(2) {
            group.key = key.map_or_else(|| "..".to_owned(), key_text);
        }
        group.written += 1;
        if group.written < group.values {
            return;
        }
        opened.pop();
        key = None;
    }
}

/// Extends a path by a key.
pub(super) fn push_key(path: &mut String, key: &Value) {
    match key.node() {
        Node::Text(name) => push_name(path, name),
        _ => push_name(path, &format!("{key:?}")),
    }
}

fn push_name(path: &mut String, key: &str) {
    let is_plain = |sign: char| sign.is_alphanumeric() || matches!(sign, '_' | '-');
    if key.is_empty() || !key.chars().all(is_plain) {
        let _ = write!(path, "[{key:?}]");
    } else {
        let dot = if path.is_empty() { "" } else { "." };
        let _ = write!(path, "{dot}{key}");
    }
}

fn key_text(key: &[u8]) -> String {
    let text = match decode::<&str>(key) {
        Ok(text) => text.to_owned(),
        Err(_) => decode::<Value>(key).map_or_else(|_| "..".to_owned(), |key| format!("{key:?}")),
    };
    match text.char_indices().nth(KEY_CHARS_MAX) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text,
    }
}

/// Why serde cannot read the entries of a flattened struct, if it cannot. Either a key comes twice, or its
/// type is one that flatten does not read everywhere.
pub(super) fn odd_keys(mut entries: &[u8]) -> Option<String> {
    let mut keys = Vec::new();
    while let Some(length) = length_of(entries) {
        let (key, value) = entries.split_at(length);
        if !matches!(key[0], 0x00..=0x7F | 0xA0..=0xBF | 0xCC..=0xCF | 0xD9..=0xDB) {
            let key = key_text(key);
            return Some(format!("{key} is no key that serde's flatten reads everywhere; use texts"));
        }
        keys.push(key);
        entries = value.get(length_of(value)?..)?;
    }
    keys.sort_unstable();
    keys.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| duplicate_key(pair[0]))
}

/// The text of the error that a key comes twice.
pub(super) fn duplicate_key(key: &[u8]) -> String {
    format!(
        "flatten or a tag gives it a second {:?}, and serde refuses to read that; rename one",
        key_text(key)
    )
}

/// A payload with more values is not searched for the unreadable field.
const VALUES_MAX: usize = 512;

/// Finds the field that makes `read` fail with `error`, and returns its path. Empty if it cannot be found, or
/// if the error names the field itself.
///
/// serde's errors have no path. So each value of the payload is spoilt in turn, which means replaced by a
/// value of another type. If that changes the error, `read` reaches that value before the error, or fails at
/// it.
pub(crate) fn unreadable_field(
    payload: &[u8],
    error: &str,
    read: &dyn Fn(&[u8]) -> Option<String>,
) -> String {
    if ["missing field", "duplicate field", "unknown field"].iter().any(|begin| error.starts_with(begin)) {
        return String::new();
    }
    let Some(values) = leaves(payload) else { return String::new() };
    let spoilt_error = |value: &Leaf| read(&spoilt(payload, &[value])).unwrap_or_default();
    let (unmoved, moved): (Vec<&Leaf>, Vec<&Leaf>) =
        values.iter().partition(|value| spoilt_error(value) == error);
    // Inside flatten, tag and untagged, serde gives these errors for any value.
    let is_buffered = error.contains("128 is not supported") || error.contains("did not match any variant");
    let found = if is_buffered {
        let wide = unmoved.iter().find(|value| payload[value.at..].starts_with(&[0xC4, 16]));
        wide.or(unmoved.first()).copied()
    } else {
        // The field is the one that is read last. If two values are spoilt, the error is that of the one read
        // first.
        moved.into_iter().reduce(|one, other| {
            let both = read(&spoilt(payload, &[one, other])).unwrap_or_default();
            if both == spoilt_error(one) { other } else { one }
        })
    };
    found.map(|value| path_to(&payload[..value.at])).unwrap_or_default()
}

/// A value that is no list, no map and no key.
struct Leaf {
    at: usize,
    length: usize,
    /// Makes the error of each spoilt value another one.
    number: u32,
}

/// The payload with some values, given in their order, replaced: a text by a number, all others by a text.
fn spoilt(payload: &[u8], values: &[&Leaf]) -> Vec<u8> {
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

/// All values of a payload that are no list, no map and no key; `None` if there are too many, or it is not
/// valid.
fn leaves(payload: &[u8]) -> Option<Vec<Leaf>> {
    let mut found = Vec::new();
    let mut at = 0;
    // The values left in each open list and map, and whether it is a map.
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
            found.push(Leaf { at, length: own, number });
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
