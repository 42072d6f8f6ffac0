//! JSON that is kept exactly as written, or refused.
//!
//! Readers of JSON round numbers to the nearest float, and may take the last of two values for one key. This
//! file finds both in one pass over the characters of valid JSON. docs/jsonl.md has the rule.

use std::borrow::Cow;

use crate::event::Value;
use crate::types::{Error, ErrorKind, text};

/// Whether a number may be rounded to the nearest float.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NumberRule {
    Exact,
    Rounded,
}

impl Value {
    /// A payload from JSON, kept exactly or refused. (Feature `jsonl`.)
    ///
    /// `1` becomes a whole number; `1.0`, `1e2` and `-0` become 64-bit floats. Fields keep their order.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), with the column in bytes from 1, for:
    ///
    /// - text that is no JSON or has more than 127 levels;
    /// - an object with a key twice;
    /// - a whole number beyond 64 bits;
    /// - a number with a point or an exponent that would come back with another value.
    ///
    /// ```
    /// use annals::{Raw, Store, Value};
    ///
    /// let payload = Value::from_json(r#"{"item":"a book","price":12.5}"#)?;
    /// let store = Store::in_memory()?;
    /// store.append("order:1", &Raw("order.placed", &payload))?;
    /// let refused = Value::from_json(r#"{"price":0.10000000000000001}"#).unwrap_err();
    /// assert!(refused.to_string().starts_with("column 10: "));
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn from_json(json: &str) -> Result<Value, Error> {
        let value = value(json.as_bytes())?;
        check(json, NumberRule::Exact)?;
        Ok(value)
    }
}

/// An object or a list that is not closed yet.
struct Level {
    is_object: bool,
    /// How many names of outer objects precede its own.
    names_before: usize,
}

/// Refuses valid JSON that cannot be kept as written.
pub(super) fn check(json: &str, numbers: NumberRule) -> Result<(), Error> {
    let bytes = json.as_bytes();
    let mut levels: Vec<Level> = Vec::new();
    // The names of all open objects, each with its offset.
    let mut names: Vec<(Cow<'_, str>, usize)> = Vec::new();
    let mut at = 0;
    while let Some(sign) = bytes.get(at) {
        let end = match sign {
            b'{' | b'[' => {
                levels.push(Level { is_object: *sign == b'{', names_before: names.len() });
                at + 1
            }
            b'}' | b']' => {
                let level = levels.pop().ok_or_else(|| error_at(json, at, "it is no JSON"))?;
                if level.is_object {
                    check_names(json, &mut names[level.names_before..])?;
                }
                names.truncate(level.names_before);
                at + 1
            }
            b'"' => {
                let end = end_of_text(bytes, at);
                if is_name(bytes, end) {
                    names.push((text_of(&json[at..end])?, at));
                }
                end
            }
            b'-' | b'0'..=b'9' => {
                let end = end_of_number(bytes, at);
                if numbers == NumberRule::Exact {
                    check_number(&json[at..end]).map_err(|problem| error_at(json, at, &problem))?;
                }
                end
            }
            _ => at + 1,
        };
        at = end;
    }
    Ok(())
}

/// Reports the first name that comes twice in one object.
fn check_names(json: &str, names: &mut [(Cow<'_, str>, usize)]) -> Result<(), Error> {
    names.sort_unstable();
    let again = names.windows(2).filter(|pair| pair[0].0 == pair[1].0).map(|pair| &pair[1]);
    match again.min_by_key(|(_, at)| *at) {
        None => Ok(()),
        Some((name, at)) => {
            let name = text::cut(name, SHOWN_BYTES_MAX);
            let problem =
                format!("the key {name:?} comes twice in its object; give each value a key of its own");
            Err(error_at(json, *at, &problem))
        }
    }
}

/// How much of a name or a number an error shows.
const SHOWN_BYTES_MAX: usize = 60;

/// Where the string that begins here ends, its quotes included.
fn end_of_text(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Whether the string that ends here is the name of a field.
fn is_name(bytes: &[u8], end: usize) -> bool {
    bytes[end..].trim_ascii_start().first() == Some(&b':')
}

fn end_of_number(bytes: &[u8], start: usize) -> usize {
    let is_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    start + bytes[start..].iter().take_while(|byte| is_number(byte)).count()
}

/// What is wrong with a number, if anything.
fn check_number(number: &str) -> Result<(), String> {
    let shown = text::cut(number, SHOWN_BYTES_MAX);
    if !number.contains(['.', 'e', 'E']) {
        // JSON has a negative zero, whole numbers have none: so it is kept as a float.
        let fits = number == "-0" || number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok();
        return if fits {
            Ok(())
        } else {
            Err(format!("{shown} does not fit 64 bits and would be rounded; write it as a text, in quotes"))
        };
    }
    let float: f64 = number.parse().map_err(|_| format!("{shown} is no number"))?;
    // `{:e}` prints the fewest digits that identify a float. If they equal the number, nothing is lost.
    if Decimal::of(number) == Decimal::of(&format!("{float:e}")) {
        return Ok(());
    }
    Err(format!("{shown} would come back as {float:?}; write that, or write it as a text, in quotes"))
}

/// A decimal number in normal form: digits without zeros at the ends, and a power of ten.
#[derive(PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    /// `None` if the exponent is out of range.
    fn of(number: &str) -> Option<Decimal> {
        let (is_negative, number) = match number.strip_prefix('-') {
            Some(number) => (true, number),
            None => (false, number),
        };
        let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_matches('0');
        if digits.is_empty() {
            return Some(Decimal { is_negative, digits: String::new(), exponent: 0 });
        }
        let zeros_behind = all.len() - all.trim_end_matches('0').len();
        let exponent = exponent.parse::<i64>().ok()?;
        let exponent = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        let exponent = exponent.checked_add(i64::try_from(zeros_behind).ok()?)?;
        Some(Decimal { is_negative, digits: digits.to_owned(), exponent })
    }
}

/// An error with its place: the column in bytes, and the line if the text has several.
fn error_at(json: &str, at: usize, problem: &str) -> Error {
    let before = &json.as_bytes()[..at];
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let lines = before.iter().filter(|byte| **byte == b'\n').count();
    let column = at - line_start + 1;
    match lines {
        0 => Error::invalid(format!("column {column}: {problem}")),
        _ => Error::invalid(format!("line {}, column {column}: {problem}", lines + 1)),
    }
}

/// Parses any JSON.
pub(super) fn value(json: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(json).map_err(|error| unreadable(&error))
}

/// The value of a JSON string, which is given with its quotes.
pub(super) fn text_of(json: &str) -> Result<Cow<'_, str>, Error> {
    match json.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(text) if !text.contains('\\') => Ok(Cow::Borrowed(text)),
        _ => serde_json::from_str(json).map(Cow::Owned).map_err(|error| unreadable(&error)),
    }
}

/// serde_json checks only the strings that it keeps, so the whole line is checked here.
pub(super) fn utf8(line: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(line).map_err(|error| bad(&format!("column {}: no UTF-8", error.valid_up_to() + 1)))
}

pub(super) fn bad(text: &str) -> Error {
    Error::new(ErrorKind::Invalid, text)
}

/// serde_json counts lines within its text; here each text is one line.
pub(super) fn unreadable(error: &serde_json::Error) -> Error {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    match error.line() {
        0 | 1 => bad(&format!("column {}: {what}", error.column())),
        line => bad(&format!("line {line}, column {}: {what}", error.column())),
    }
}
