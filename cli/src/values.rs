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

/// The end of a history: `end`, a position (17 or @17), `checkpoint:NAME`, or a time.
#[derive(Clone, Debug)]
pub struct UntilArg(pub Until);

impl FromStr for UntilArg {
    type Err = String;

    fn from_str(text: &str) -> Result<UntilArg, String> {
        if let Some(name) = text.strip_prefix("checkpoint:") {
            return Ok(UntilArg(Until::Checkpoint(name.to_owned())));
        }
        match text.strip_prefix('@').unwrap_or(text).parse::<Position>() {
            _ if text == "end" => Ok(UntilArg(Until::End)),
            Ok(position) => Ok(UntilArg(Until::Position(position))),
            Err(_) => time(text)
                .map(|time| UntilArg(Until::Time(time)))
                .map_err(|error| format!("{error}; or say end, a position such as @17, or checkpoint:NAME")),
        }
    }
}

/// A range of time without its end: `2026-11-01..2026-12-01`, `2h..`, `..2026-12-01`.
#[derive(Clone, Copy, Debug)]
pub struct TimeRange(pub Bound<SystemTime>, pub Bound<SystemTime>);

impl FromStr for TimeRange {
    type Err = String;

    fn from_str(text: &str) -> Result<TimeRange, String> {
        let problem = || format!("{text:?} is no span of time; write FROM..TO, FROM.. or ..TO");
        let (from, to) = text.split_once("..").ok_or_else(problem)?;
        let bound = |end: &str| match end {
            "" => Ok(None),
            end => time(end).map(Some),
        };
        let from = bound(from)?;
        let to = bound(to)?;
        if from.zip(to).is_some_and(|(from, to)| from > to) {
            return Err(format!("{text:?} ends before it begins"));
        }
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(TimeRange(from.map_or(Bound::Unbounded, Bound::Included), to))
    }
}

/// Versions of a stream: `2..5` (2, 3, 4), `2..=5`, `2..`, `..5`, or one: `3`.
#[derive(Clone, Copy, Debug)]
pub struct VersionRange(pub Bound<u64>, pub Bound<u64>);

impl FromStr for VersionRange {
    type Err = String;

    fn from_str(text: &str) -> Result<VersionRange, String> {
        let problem = |_| format!("{text:?} is no span of versions; write 3, 2..5 or 2..=5");
        let number = |text: &str| text.parse::<u64>().map_err(problem);
        let Some((from, to)) = text.split_once("..") else {
            return number(text)
                .map(|version| VersionRange(Bound::Included(version), Bound::Included(version)));
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
            _ => Ok(VersionRange(from, to)),
        }
    }
}

/// A duration: `500ms`, `30s`, `1m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
    parsed.ok_or_else(|| format!("{text:?} is no time; write 500ms, 30s or 1m"))
}

/// An age: `90d`, `2w`, `12h`. A day has 24 hours. Months and years have no fixed length and are refused.
pub fn age(text: &str) -> Result<Duration, String> {
    let span = text.parse::<Span>().ok();
    let long = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    let age = long.and_then(|long| Duration::try_from(long).ok());
    age.ok_or_else(|| format!("{text:?} is no age; write 90d, 2w or 12h"))
}

/// The expectation of a stream: `any`, `none`, `exists`, or its version.
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
pub enum EventRef {
    Id(EventId),
    At(Position),
}

impl FromStr for EventRef {
    type Err = String;

    fn from_str(text: &str) -> Result<EventRef, String> {
        let position = text.strip_prefix('@').unwrap_or(text).parse().map(EventRef::At);
        position
            .or_else(|_| text.parse().map(EventRef::Id))
            .map_err(|_| format!("{text:?} is no event; give its id, or its position such as 17 or @17"))
    }
}

/// A time in RFC 3339, UTC, with microseconds: the precision of the library.
pub fn rfc3339(time: SystemTime) -> String {
    format!("{:.6}", Timestamp::from(time))
}
