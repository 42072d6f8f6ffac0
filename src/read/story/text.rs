//! Names inside formats that have signs of their own, and times for people.
//!
//! Names hold no control characters, but may hold every other sign; nothing here relies on the first. What
//! cannot be seen is escaped.
//! Row: reader.

use std::fmt::{self, Write};
use std::time::Duration;

use crate::types::{visible, visible_json};

/// Text for a JSON string, without the quotes.
pub(super) fn json(text: &str) -> String {
    let escaped = replaced(text, |sign, out| match sign {
        '"' => out.write_str("\\\""),
        '\\' => out.write_str("\\\\"),
        sign if u32::from(sign) < 0x20 => write!(out, "\\u{:04x}", u32::from(sign)),
        sign => out.write_char(sign),
    });
    visible_json(&escaped).into_owned()
}

/// Text for a quoted string of Graphviz's DOT, which reads backslashes and the entities of HTML.
pub(super) fn dot(text: &str) -> String {
    replaced(&line(text), |sign, out| match sign {
        '"' => out.write_str("\\\""),
        '\\' => out.write_str("\\\\"),
        '&' => out.write_str("&amp;"),
        sign => out.write_char(sign),
    })
}

/// Text for a quoted label of Mermaid. It reads HTML, Markdown, directives and, before everything
/// else, some words that end in a colon; only what means nothing to it stays as it is.
pub(super) fn mermaid(text: &str) -> String {
    let text = line(text);
    let has_word = ["style", "classDef"].iter().any(|word| text.contains(word));
    replaced(&text, |sign, out| match sign {
        ':' if !has_word => out.write_char(sign),
        ' ' | '.' | '-' | '/' | ',' | '+' => out.write_char(sign),
        sign if sign.is_alphanumeric() => out.write_char(sign),
        sign => write!(out, "#{};", u32::from(sign)),
    })
}

/// Text for a line of a terminal.
pub(super) fn line(text: &str) -> String {
    visible(text).replace('\n', "\\u{a}")
}

fn replaced(text: &str, mut write: impl FnMut(char, &mut String) -> fmt::Result) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().try_for_each(|sign| write(sign, &mut out)).expect("a string takes everything");
    out
}

/// A time for people: two units at most, `1m 5s`, or one with a fraction, `1.5ms`.
pub(super) fn duration(time: Duration) -> String {
    let (seconds, micros) = (time.as_secs(), time.subsec_micros());
    match (seconds, micros) {
        (0, 0) => "0s".to_owned(),
        (0, ..1000) => format!("{micros}us"),
        (0, _) => fraction(time.as_micros(), 1000, "ms"),
        (..60, _) => fraction(time.as_millis(), 1000, "s"),
        (..3_600, _) => format!("{}m {}s", seconds / 60, seconds % 60),
        (..86_400, _) => format!("{}h {}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// With three digits behind the point at most.
fn fraction(parts: u128, per_unit: u128, unit: &str) -> String {
    let digits = format!("{}.{:03}", parts / per_unit, parts % per_unit);
    format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.'))
}
