//! Turns paths and authors of git into names that the store accepts.
//!
//! A path may hold any byte except zero. Two paths never get the same name: bytes that a name cannot hold
//! become `\xNN`, and a backslash becomes `\\`. A path that is too long keeps its beginning and ends with 16
//! hexadecimal digits of its BLAKE3 hash.

use std::fmt::Write;

/// The scope of files outside any folder. No folder can have this name.
const ROOT: &str = "/";

/// A path as a name of at most `bytes_max` bytes.
pub fn path(path: &[u8], bytes_max: usize) -> String {
    let mut name = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => name.push_str("\\\\"),
                '$' if name.is_empty() => escape(&mut name, b"$"),
                _ if c.is_control() => escape(&mut name, c.encode_utf8(&mut [0; 4]).as_bytes()),
                _ => name.push(c),
            }
        }
        escape(&mut name, chunk.invalid());
    }
    if name.len() > bytes_max {
        let hash = blake3::hash(path).to_hex();
        cut(&mut name, bytes_max - 17);
        let _ = write!(name, "~{}", &hash[..16]);
    }
    name
}

/// The top folder of a path, as a scope.
pub fn scope(path: &[u8]) -> String {
    match path.iter().position(|byte| *byte == b'/') {
        Some(end) => self::path(&path[..end], 255),
        None => ROOT.to_owned(),
    }
}

/// A text on one line, cut off after `bytes_max` bytes.
pub fn text(words: &[u8], bytes_max: usize) -> String {
    let mut text = String::from_utf8_lossy(words).replace(char::is_control, " ");
    cut(&mut text, bytes_max);
    text
}

fn escape(name: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(name, "\\x{byte:02x}");
    }
}

fn cut(text: &mut String, bytes_max: usize) {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
}
