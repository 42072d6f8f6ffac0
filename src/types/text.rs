//! Texts for people and for JSON: what cannot be seen in them, and small things that several files need.
//!
//! Row: words. Touches nothing.

use std::any::Any;
use std::borrow::Cow;
use std::fmt::Write;

/// What a panic said, if it was a text.
pub(crate) fn of_panic(panic: &(dyn Any + Send)) -> Option<&str> {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str))
}

/// A count and what is counted: `1 event`, `2 events`.
pub(crate) fn counted(count: impl TryInto<u64>, one: &str, many: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    format!("{count} {}", if count == 1 { one } else { many })
}

/// The beginning of a text, in whole characters.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Whether a character shows nothing of itself, or changes how its neighbours are shown: control characters,
/// separators of lines and paragraphs, and what Unicode calls `Default_Ignorable_Code_Point`.
pub(crate) fn is_hidden(sign: char) -> bool {
    sign.is_control()
        || matches!(
            sign,
            '\u{AD}'
                | '\u{34F}'
                | '\u{61C}'
                | '\u{115F}'..='\u{1160}'
                | '\u{17B4}'..='\u{17B5}'
                | '\u{180B}'..='\u{180F}'
                | '\u{200B}'..='\u{200F}'
                | '\u{2028}'..='\u{202E}'
                | '\u{2060}'..='\u{206F}'
                | '\u{3164}'
                | '\u{FE00}'..='\u{FE0F}'
                | '\u{FEFF}'
                | '\u{FFA0}'
                | '\u{FFF0}'..='\u{FFFB}'
                | '\u{1BCA0}'..='\u{1BCA3}'
                | '\u{1D173}'..='\u{1D17A}'
                | '\u{E0000}'..='\u{E0FFF}'
        )
}

/// A text with its hidden characters escaped as `\u{202e}`, for people: on a terminal, in a log, in a
/// message.
///
/// Hidden are control characters (line feeds are left alone), and characters that show nothing or change how
/// their neighbours are shown: zero-width, bidirectional, tags, variation selectors. Names may hold them, so
/// two names may look alike, or turn the line around in which they stand. Errors and everything else that
/// annals writes for people are escaped so already. It is for eyes: a backslash is left as it is, so the text
/// cannot be read back. Costs a pass over the text.
///
/// ```
/// assert_eq!(annals::visible("order:\u{202e}1"), "order:\\u{202e}1");
/// assert_eq!(annals::visible("grün 日本"), "grün 日本");
/// ```
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |sign| sign != '\n' && is_hidden(sign), |sign, out| out.extend(sign.escape_unicode()))
}

/// JSON with the hidden characters of its texts escaped as `\u202e`. It is the same JSON.
///
/// Give it any valid JSON. Hidden is what [`visible`] says; JSON itself escapes the controls below U+0020,
/// but no others.
///
/// ```
/// let json = annals::visible_json("{\"name\":\"order:\u{202e}1\"}");
/// assert_eq!(json, "{\"name\":\"order:\\u202e1\"}");
/// ```
#[must_use]
pub fn visible_json(json: &str) -> Cow<'_, str> {
    // Outside of texts, JSON has no character behind ASCII; below U+0020 it has only its own line feeds and
    // tabs.
    escaped(
        json,
        |sign| sign > ' ' && is_hidden(sign),
        |sign, out| {
            for unit in sign.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}").expect("a string takes everything");
            }
        },
    )
}

fn escaped<'a>(
    text: &'a str,
    is_escaped: impl Fn(char) -> bool,
    mut escape: impl FnMut(char, &mut String),
) -> Cow<'a, str> {
    let Some(first) = text.find(&is_escaped) else { return Cow::Borrowed(text) };
    let mut out = text[..first].to_owned();
    for sign in text[first..].chars() {
        if is_escaped(sign) {
            escape(sign, &mut out);
        } else {
            out.push(sign);
        }
    }
    Cow::Owned(out)
}
