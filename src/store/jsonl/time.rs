//! Times as text, in lines and in the command.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use jiff::SignedDuration;
use jiff::civil::{Date, DateTime, date};
use jiff::fmt::temporal::Pieces;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::event::Value;
use crate::types::{Error, micros_of, time_of};

/// A time as text: RFC 3339, in UTC, to the microsecond.
///
/// Every time that a store can hold has a text. A year outside 0 to 9999 has a sign and six digits
/// (`-009999`, `+057870`). [`FromStr`] reads such texts with any offset, and truncates digits after the
/// sixth. [`fmt::Display`] writes as many digits as needed, or as the precision says: `{:.6}`.
///
/// In JSON a time is that text. Reading also accepts a whole number of microseconds since 1970, for the years
/// 1980 to 9999. Other numbers count seconds, milliseconds or nanoseconds, and are refused.
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use annals::Timestamp;
///
/// let time: Timestamp = "2026-11-28T16:53:58.5+01:00".parse()?;
/// assert_eq!(time.to_string(), "2026-11-28T15:53:58.5Z");
/// assert_eq!(SystemTime::from(time), SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_881_238_500));
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Microseconds since 1970.
    pub(super) fn micros(self) -> i64 {
        self.0
    }
}

/// Times more than 290,000 years from 1970 are limited to that range, as in a store.
impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Timestamp {
        Timestamp(micros_of(time))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> SystemTime {
        time_of(time.0)
    }
}

/// How a foreign line writes a time; see [`Mapping::time`](super::Mapping::time).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeForm {
    /// A text with an offset: `2026-11-28T15:53:58.123456Z`, `2026-11-28 16:53:58+01:00`.
    Rfc3339,
    /// A number of seconds since 1970, with or without a fraction. A number outside the years -9999 to 9999
    /// has another unit and is refused, here and below.
    Seconds,
    /// A whole number of milliseconds since 1970.
    Millis,
    /// A whole number of microseconds since 1970.
    Micros,
}

impl TimeForm {
    /// Microseconds since 1970, if the value has this form. A number outside the calendar has another unit.
    pub(super) fn read(self, value: &Value) -> Option<i64> {
        let whole = |micros: i64| value.to::<i64>().ok().and_then(|number| number.checked_mul(micros));
        let number = match self {
            TimeForm::Rfc3339 => return value.to::<String>().ok().and_then(|text| parse(&text)),
            TimeForm::Seconds => whole(1_000_000).or_else(|| from_seconds(value.to().ok()?)),
            TimeForm::Millis => whole(1_000),
            TimeForm::Micros => whole(1),
        };
        number.filter(|micros| CALENDAR.contains(micros))
    }
}

fn from_seconds(seconds: f64) -> Option<i64> {
    // Half a microsecond is added, because digits after the sixth are truncated.
    let distance = Duration::try_from_secs_f64(seconds.abs() + 0.000_000_5).ok()?;
    let micros = i64::try_from(distance.as_micros()).ok()?;
    Some(if seconds < 0.0 { -micros } else { micros })
}

/// The years -9999 to 9999, in microseconds since 1970.
const CALENDAR: Range<i64> = -377_705_116_800_000_000..253_402_300_800_000_000;
/// The years 1980 to 9999, in microseconds since 1970. Seconds and milliseconds of all years up to 9999 are
/// smaller numbers; nanoseconds of all years from 1980 are larger.
const PLAUSIBLE: Range<i64> = 315_532_800_000_000..253_402_300_800_000_000;

/// The unit in which a number is a time between 1980 and 9999, and that time.
pub(super) fn likely_unit(number: i64) -> Option<(&'static str, Timestamp)> {
    [
        ("seconds", number.checked_mul(1_000_000)),
        ("milliseconds", number.checked_mul(1_000)),
        ("microseconds", Some(number)),
        ("nanoseconds", Some(number.div_euclid(1_000))),
    ]
    .into_iter()
    .find_map(|(unit, micros)| Some((unit, micros.filter(|micros| PLAUSIBLE.contains(micros))?)))
    .map(|(unit, micros)| (unit, Timestamp(micros)))
}

const EPOCH: Date = date(1970, 1, 1);
/// The calendar repeats after 400 years, which are 146,097 days.
const CYCLE_YEARS: i64 = 400;
const CYCLE_DAYS: i64 = 146_097;
const DAY_SECONDS: i64 = 86_400;
const SECOND_MICROS: i64 = 1_000_000;

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.div_euclid(SECOND_MICROS);
        let days = seconds.div_euclid(DAY_SECONDS);
        let second = seconds.rem_euclid(DAY_SECONDS);
        let day = SignedDuration::from_hours(days.rem_euclid(CYCLE_DAYS) * 24);
        let date = EPOCH.checked_add(day).expect("the years 1970 to 2369 are in jiff's calendar");
        let year = i64::from(date.year()) + days.div_euclid(CYCLE_DAYS) * CYCLE_YEARS;
        match year {
            0..=9999 => write!(f, "{year:04}")?,
            _ => write!(f, "{year:+07}")?,
        }
        write!(f, "-{:02}-{:02}T", date.month(), date.day())?;
        write!(f, "{:02}:{:02}:{:02}", second / 3_600, second / 60 % 60, second % 60)?;
        let digits = format!("{:06}", self.0.rem_euclid(SECOND_MICROS));
        let digits = match f.precision() {
            Some(precision) => &digits[..precision.min(digits.len())],
            None => digits.trim_end_matches('0'),
        };
        if !digits.is_empty() {
            write!(f, ".{digits}")?;
        }
        f.write_str("Z")
    }
}

/// Reads an RFC 3339 text with any offset.
///
/// # Errors
///
/// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the text is no time, has no offset, or is more than
/// 290,000 years from 1970.
impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Timestamp, Error> {
        let error = || Error::invalid(format!("{text:?} is no time; write one like {EXAMPLE}"));
        parse(text).map(Timestamp).ok_or_else(error)
    }
}

const EXAMPLE: &str = "2026-11-28T15:53:58.123456Z";

/// Microseconds since 1970. jiff reads the time; the year may lie outside its calendar.
fn parse(text: &str) -> Option<i64> {
    let (cycles, text) = in_calendar(text)?;
    let pieces = Pieces::parse(&text).ok()?;
    let time = pieces.date().to_datetime(pieces.time()?);
    let since = time.duration_since(DateTime::from(EPOCH));
    let offset = SignedDuration::from_secs(pieces.to_numeric_offset()?.seconds().into());
    let micros = since.checked_sub(offset)?.as_nanos().div_euclid(1_000);
    let days = cycles.checked_mul(CYCLE_DAYS)?;
    let cycles = i128::from(days.checked_mul(DAY_SECONDS)?) * i128::from(SECOND_MICROS);
    i64::try_from(micros.checked_add(cycles)?).ok()
}

/// Maps a year with a sign and six digits to the same year of the cycle from 2000. Returns how many cycles
/// away it is.
fn in_calendar(text: &str) -> Option<(i64, String)> {
    if !text.starts_with(['+', '-']) {
        return Some((0, text.to_owned()));
    }
    let (year, rest) = text.split_at_checked(7)?;
    let is_number = year[1..].bytes().all(|digit| digit.is_ascii_digit());
    let year: i64 = if is_number && year != "-000000" { year.parse().ok()? } else { return None };
    let within = year.rem_euclid(CYCLE_YEARS) + 2000;
    Some(((year - within) / CYCLE_YEARS, format!("{within}{rest}")))
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        deserializer.deserialize_any(TimestampVisitor)
    }
}

struct TimestampVisitor;

impl Visitor<'_> for TimestampVisitor {
    type Value = Timestamp;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a time like {EXAMPLE}, or whole microseconds since 1970")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
        parse(text).map(Timestamp).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_i64<E: de::Error>(self, micros: i64) -> Result<Timestamp, E> {
        if PLAUSIBLE.contains(&micros) {
            return Ok(Timestamp(micros));
        }
        let unit = likely_unit(micros).map_or_else(
            || format!("write a text such as {EXAMPLE}"),
            |(unit, time)| format!("it looks like {unit}: write the text {time}"),
        );
        let text = "is no number of microseconds since 1970 in the years 1980 to 9999";
        Err(E::custom(format!("{micros} {text}; {unit}")))
    }

    fn visit_u64<E: de::Error>(self, micros: u64) -> Result<Timestamp, E> {
        match i64::try_from(micros) {
            Ok(micros) => self.visit_i64(micros),
            Err(_) => Err(E::invalid_value(de::Unexpected::Unsigned(micros), &self)),
        }
    }
}
