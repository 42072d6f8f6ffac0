//! Where a value that is only half written stopped, read from its bytes.
//!
//! Nothing here runs unless a value is refused, or holds flattened entries that an unknown type will read.
//! Row: bytes.

use std::fmt::Write;

use super::Value;
use super::payload::{head_of, length_of};

/// What is shown of a key.
const KEY_CHARS_MAX: usize = 40;

/// What is shown of a path.
const STEPS_MAX: usize = 12;

/// A list or a map that has begun, and has not ended.
struct Opened {
    is_map: bool,
    /// How many values it will have, keys included, and how many are written.
    values: u64,
    done: u64,
    key: String,
}

/// The path to the value that would come next: `lines[3].price`. Empty for the value as a whole.
pub(super) fn path_to(bytes: &[u8]) -> String {
    let mut opened: Vec<Opened> = Vec::new();
    let mut rest = bytes;
    while let Some((own, values)) = head_of(rest) {
        let Some((value, behind)) = rest.split_at_checked(own) else { break };
        if values > 0 {
            let is_map = matches!(value[0], 0x80..=0x8F | 0xDE | 0xDF);
            opened.push(Opened { is_map, values, done: 0, key: String::new() });
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
            let _ = write!(path, "[{}]", group.done);
        } else if !group.done.is_multiple_of(2) {
            step(&mut path, &group.key);
        } else if number + 1 < opened.len() {
            path.push_str("[a key]");
        }
    }
    path
}

/// Counts a value where it belongs, and ends the lists and maps that it was the last of.
fn finish(opened: &mut Vec<Opened>, value: &[u8]) {
    let mut key = Some(value);
    while let Some(group) = opened.last_mut() {
        if group.is_map && group.done.is_multiple_of(2) {
            group.key = key.map_or_else(|| "..".to_owned(), shown);
        }
        group.done += 1;
        if group.done < group.values {
            return;
        }
        opened.pop();
        key = None;
    }
}

/// Extends a path by a key.
pub(super) fn step_to(path: &mut String, key: &Value) {
    let key = key.text().map_or_else(|| format!("{key:?}"), str::to_owned);
    step(path, &key);
}

fn step(path: &mut String, key: &str) {
    let is_plain = |sign: char| sign.is_alphanumeric() || matches!(sign, '_' | '-');
    if key.is_empty() || !key.chars().all(is_plain) {
        let _ = write!(path, "[{key:?}]");
    } else {
        let dot = if path.is_empty() { "" } else { "." };
        let _ = write!(path, "{dot}{key}");
    }
}

fn shown(key: &[u8]) -> String {
    let text = match super::decode::<&str>(key) {
        Ok(text) => text.to_owned(),
        Err(_) => super::decode::<Value>(key).map_or_else(|_| "..".to_owned(), |key| format!("{key:?}")),
    };
    match text.char_indices().nth(KEY_CHARS_MAX) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text,
    }
}

/// What keeps the entries of a flattened struct from being read: a key twice, or one of a kind that serde
/// does not read in each surrounding.
pub(super) fn odd_keys(mut entries: &[u8]) -> Option<String> {
    let mut keys = Vec::new();
    while let Some(length) = length_of(entries) {
        let (key, value) = entries.split_at(length);
        if !matches!(key[0], 0x00..=0x7F | 0xA0..=0xBF | 0xCC..=0xCF | 0xD9..=0xDB) {
            let key = shown(key);
            return Some(format!("{key} is no key that serde's flatten reads everywhere; use texts"));
        }
        keys.push(key);
        entries = value.get(length_of(value)?..)?;
    }
    keys.sort_unstable();
    keys.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| second(pair[0]))
}

/// What is said of a key that comes twice.
pub(super) fn second(key: &[u8]) -> String {
    format!("flatten or a tag gives it a second {:?}, and serde refuses to read that; rename one", shown(key))
}
