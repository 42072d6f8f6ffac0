//! How values are written on the command line.

use std::ops::Bound;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use annals::{EventId, Expected, Position, Timestamp, Until};
use jiff::{SignedDuration, Span, SpanRelativeTo};

/// A time: `2026-11-28T15:00:00Z`, `2026-11-28T15:00` (UTC), `2026-11-28`, or `2h` for two hours ago.
pub fn time(text: &str) -> Result<SystemTime, String> {
    let forms = [text.to_owned(), format!("{text}Z"), format!("{text}:00Z"), format!("{text}T00:00:00Z")];
    let parsed = forms.iter().find_map(|form| form.parse::<Timestamp>().ok());
    let ago = || text.trim_end_matches(" ago").parse::<SignedDuration>().ok();
    parsed
        .map(SystemTime::from)
        .or_else(|| SystemTime::now().checked_sub(Duration::try_from(ago()?).ok()?))
        .ok_or_else(|| {
            format!("{text:?} is no time; write 2026-11-28T15:00:00Z, 2026-11-28, or 2h for two hours ago")
        })
}

/// How much of history: `end`, a position (17 or @17), `checkpoint:NAME`, or a time.
#[derive(Clone, Debug)]
pub struct Ending(pub Until);

impl FromStr for Ending {
    type Err = String;

    fn from_str(text: &str) -> Result<Ending, String> {
        if let Some(name) = text.strip_prefix("checkpoint:") {
            return Ok(Ending(Until::Checkpoint(name.to_owned())));
        }
        match text.strip_prefix('@').unwrap_or(text).parse::<Position>() {
            _ if text == "end" => Ok(Ending(Until::End)),
            Ok(position) => Ok(Ending(Until::Position(position))),
            Err(_) => time(text)
                .map(|time| Ending(Until::Time(time)))
                .map_err(|error| format!("{error}; or say end, a position such as @17, or checkpoint:NAME")),
        }
    }
}

/// From a time to another, without the second: `2026-11-01..2026-12-01`, `2h..`, `..2026-12-01`.
#[derive(Clone, Copy, Debug)]
pub struct Times(pub Bound<SystemTime>, pub Bound<SystemTime>);

impl FromStr for Times {
    type Err = String;

    fn from_str(text: &str) -> Result<Times, String> {
        let what = || format!("{text:?} is no span of time; write FROM..TO, FROM.. or ..TO");
        let (from, to) = text.split_once("..").ok_or_else(what)?;
        let bound = |end: &str| match end {
            "" => Ok(None),
            end => time(end).map(Some),
        };
        let (from, to) = (bound(from)?, bound(to)?);
        if from.zip(to).is_some_and(|(from, to)| from > to) {
            return Err(format!("{text:?} ends before it begins"));
        }
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(Times(from.map_or(Bound::Unbounded, Bound::Included), to))
    }
}

/// Versions of a stream: `2..5` (2, 3, 4), `2..=5`, `2..`, `..5`, or one: `3`.
#[derive(Clone, Copy, Debug)]
pub struct Versions(pub Bound<u64>, pub Bound<u64>);

impl FromStr for Versions {
    type Err = String;

    fn from_str(text: &str) -> Result<Versions, String> {
        let what = |_| format!("{text:?} is no span of versions; write 3, 2..5 or 2..=5");
        let number = |text: &str| text.parse::<u64>().map_err(what);
        let Some((from, to)) = text.split_once("..") else {
            return number(text).map(|version| Versions(Bound::Included(version), Bound::Included(version)));
        };
        let from = if from.is_empty() { Bound::Unbounded } else { Bound::Included(number(from)?) };
        let to = match to.strip_prefix('=') {
            Some(last) => Bound::Included(number(last)?),
            None if to.is_empty() => Bound::Unbounded,
            None => Bound::Excluded(number(to)?),
        };
        match (from, to) {
            (Bound::Included(from), Bound::Included(to) | Bound::Excluded(to)) if from > to => {
                Err(format!("{text:?} ends before it begins"))
            }
            _ => Ok(Versions(from, to)),
        }
    }
}

/// How long: `500ms`, `30s`, `1m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
    parsed.ok_or_else(|| format!("{text:?} is no time; write 500ms, 30s or 1m"))
}

/// How long ago: `90d`, `2w`, `12h`. A day has 24 hours; months and years are of no fixed length.
pub fn age(text: &str) -> Result<Duration, String> {
    let span = text.parse::<Span>().ok();
    let long = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    let age = long.and_then(|long| Duration::try_from(long).ok());
    age.ok_or_else(|| format!("{text:?} is no age; write 90d, 2w or 12h"))
}

/// What is expected of a stream: `any`, `none`, `exists`, or its version.
pub fn expected(text: &str) -> Result<Expected, String> {
    match text {
        "any" => Ok(Expected::Any),
        "none" => Ok(Expected::NoStream),
        "exists" => Ok(Expected::StreamExists),
        version => version
            .parse()
            .map(Expected::exact)
            .map_err(|_| format!("{text:?} is no expectation; write any, none, exists, or a version")),
    }
}

/// An event: by its id, or by its position, with or without `@`.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    Id(EventId),
    At(Position),
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Which, String> {
        let position = text.strip_prefix('@').unwrap_or(text).parse().map(Which::At);
        position
            .or_else(|_| text.parse().map(Which::Id))
            .map_err(|_| format!("{text:?} is no event; give its id, or its position such as 17 or @17"))
    }
}

/// As the library takes and gives times, for people and programs: RFC 3339 in UTC, to the microsecond.
pub fn rfc3339(time: SystemTime) -> String {
    format!("{:.6}", Timestamp::from(time))
}
