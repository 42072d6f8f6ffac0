//! Texts for people and for JSON: hidden characters, counts, the text of a panic.

use std::any::Any;
use std::borrow::Cow;
use std::fmt::Write;

/// The message of a panic, if it is a text.
pub(crate) fn of_panic(panic: &(dyn Any + Send)) -> Option<&str> {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str))
}

/// A count with its noun: `1 event`, `2 events`.
pub(crate) fn counted(count: impl TryInto<u64>, one: &str, many: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    format!("{count} {}", if count == 1 { one } else { many })
}

/// The first `bytes_max` bytes of a text, or fewer, so that no character is cut.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Whether a character is invisible, or changes how its neighbours are shown. These are control characters,
/// separators of lines and paragraphs, and the characters that Unicode calls `Default_Ignorable_Code_Point`.
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

/// Escapes the hidden characters of a text as `\u{202e}`, for a terminal, a log or a message.
///
/// Hidden characters are control characters other than the line feed, and characters that are invisible or
/// change how their neighbours are shown. Examples of the latter are zero-width and bidirectional characters,
/// tags and variation selectors. A name may hold them, so two names may look alike, or reverse the line in
/// which they stand. All errors of annals, and all its other texts for people, are escaped.
///
/// A backslash is not escaped, so the text cannot be parsed back. The cost is one pass over the text.
///
/// ```
/// assert_eq!(annals::visible("order:\u{202e}1"), "order:\\u{202e}1");
/// assert_eq!(annals::visible("grün 日本"), "grün 日本");
/// ```
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |sign| sign != '\n' && is_hidden(sign), |sign, out| out.extend(sign.escape_unicode()))
}

/// Escapes the hidden characters of valid JSON as `\u202e`. The result means the same JSON.
///
/// Hidden characters are those of [`visible`]. JSON itself escapes only the control characters below U+0020.
///
/// ```
/// let json = annals::visible_json("{\"name\":\"order:\u{202e}1\"}");
/// assert_eq!(json, "{\"name\":\"order:\\u202e1\"}");
/// ```
#[must_use]
pub fn visible_json(json: &str) -> Cow<'_, str> {
    // Outside texts JSON is ASCII, and its only characters below U+0020 are white space, which must stay as
    // it is.
    escaped(
        json,
        |sign| sign > ' ' && is_hidden(sign),
        |sign, out| {
            for unit in sign.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}").expect("writing to a string does not fail");
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
