//! Times as lines spell them.
//!
//! Row: app.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::Value;

/// How a foreign line says when something happened; see [`Mapping::time`](super::Mapping::time).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeForm {
    /// A text with an offset: `2026-11-28T15:53:58.123456Z`, `2026-11-28 16:53:58+01:00`.
    Rfc3339,
    /// A number of seconds since 1970, with or without a fraction.
    Seconds,
    /// A whole number of milliseconds since 1970.
    Millis,
    /// A whole number of microseconds since 1970.
    Micros,
}

impl TimeForm {
    /// Microseconds since 1970, if this is how the value says it.
    pub(super) fn read(self, value: &Value) -> Option<i64> {
        let whole = |micros: i64| value.to::<i64>().ok().and_then(|number| number.checked_mul(micros));
        match self {
            TimeForm::Rfc3339 => value.to::<String>().ok().and_then(|text| parse(&text)),
            TimeForm::Seconds => whole(1_000_000).or_else(|| from_seconds(value.to().ok()?)),
            TimeForm::Millis => whole(1_000),
            TimeForm::Micros => whole(1),
        }
    }
}

fn from_seconds(seconds: f64) -> Option<i64> {
    // Half a microsecond more, because what is behind the last one is cut off.
    let distance = Duration::try_from_secs_f64(seconds.abs() + 0.000_000_5).ok()?;
    let micros = i64::try_from(distance.as_micros()).ok()?;
    Some(if seconds < 0.0 { -micros } else { micros })
}

fn parse(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_microsecond)
}

/// Microseconds since 1970. A text where there is a calendar for it, in the years -9999 to 9999; a number elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time(pub(super) i64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match Timestamp::from_microsecond(self.0) {
            Ok(time) => serializer.collect_str(&time),
            Err(_) => serializer.serialize_i64(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        deserializer.deserialize_any(TimeVisitor)
    }
}

struct TimeVisitor;

impl Visitor<'_> for TimeVisitor {
    type Value = Time;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time like 2026-11-28T15:53:58.123456Z, or microseconds since 1970")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Time, E> {
        parse(text).map(Time).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_i64<E>(self, micros: i64) -> Result<Time, E> {
        Ok(Time(micros))
    }

    fn visit_u64<E: de::Error>(self, micros: u64) -> Result<Time, E> {
        let time = i64::try_from(micros).map(Time);
        time.map_err(|_| E::invalid_value(de::Unexpected::Unsigned(micros), &self))
    }
}
