//! Which timers are pending, and which of them is due next, computed from the events of the timers' streams.
//!
//! The second part has the payloads of these events, as the log records them in the streams `$timer/<name>`
//! (docs/system-events.md).

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::SystemTime;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::engine::Append;
use crate::event::RecordedEvent;
use crate::store::Store;
use crate::types::system::timer::{FAILED, PREFIX, SET};
use crate::types::{Error, EventData, Position, Query, Version, micros_of, time_of};

/// A timer that has neither fired nor been cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimerStatus {
    /// The name of the timer.
    pub name: String,
    /// When it is due.
    pub due: SystemTime,
    /// The position of the event that set it.
    pub set_at: Position,
    /// Why it failed, if its append was refused for good. A failed timer does not fire.
    pub failure: Option<String>,
}

/// Timers by name, and in the order in which they are due.
#[derive(Default)]
pub(super) struct TimerSchedule {
    timers: HashMap<String, ScheduledTimer>,
    /// The timers that can fire: due time, then name.
    pending: BTreeSet<(i64, String)>,
}

#[derive(Clone)]
pub(super) struct ScheduledTimer {
    /// In microseconds since 1970.
    due: i64,
    /// The position of the event that set it.
    pub(super) set_at: Position,
    /// The version of the timer's stream.
    pub(super) version: Version,
    failure: Option<String>,
}

impl TimerSchedule {
    /// All timers of a store now.
    pub(super) fn of(store: &Store) -> Result<TimerSchedule, Error> {
        let mut schedule = TimerSchedule::default();
        for event in store.read(Query::entity_prefix(PREFIX)) {
            schedule.take(&event?)?;
        }
        Ok(schedule)
    }

    /// Applies the next event of a timer's stream.
    pub(super) fn take(&mut self, event: &RecordedEvent) -> Result<(), Error> {
        let name = event.entity().strip_prefix(PREFIX).unwrap_or_default();
        let before = self.remove(name);
        match (event.kind(), before) {
            (SET, _) => {
                let timer = ScheduledTimer {
                    due: due_of(event.decode::<TimerSetting>()?.due, event),
                    set_at: event.position(),
                    version: event.version(),
                    failure: None,
                };
                self.insert(name.to_owned(), timer);
            }
            (FAILED, Some(before)) => {
                let failure = event.decode::<TimerEnd>()?.reason;
                let timer = ScheduledTimer { version: event.version(), failure, ..before };
                // Not among the pending ones: a failed timer is listed, and does not fire.
                self.timers.insert(name.to_owned(), timer);
            }
            _ => {}
        }
        Ok(())
    }

    /// Removes the timer that is due next, if its time has come.
    pub(super) fn take_due(&mut self, now: i64) -> Option<(String, ScheduledTimer)> {
        let (_, name) = self.pending.first().filter(|(due, _)| *due <= now)?;
        let name = name.clone();
        self.remove(&name).map(|timer| (name, timer))
    }

    /// Inserts a pending timer.
    pub(super) fn insert(&mut self, name: String, timer: ScheduledTimer) {
        self.pending.insert((timer.due, name.clone()));
        self.timers.insert(name, timer);
    }

    /// When the next timer is due, in microseconds since 1970.
    pub(super) fn next_due(&self) -> Option<i64> {
        self.pending.first().map(|(due, _)| *due)
    }

    pub(super) fn into_statuses(self) -> Vec<TimerStatus> {
        let mut timers: Vec<(String, ScheduledTimer)> = self.timers.into_iter().collect();
        timers.sort_by(|(name, timer), (other_name, other)| (timer.due, name).cmp(&(other.due, other_name)));
        let statuses = timers.into_iter().map(|(name, timer)| TimerStatus {
            name,
            due: time_of(timer.due),
            set_at: timer.set_at,
            failure: timer.failure,
        });
        statuses.collect()
    }

    fn remove(&mut self, name: &str) -> Option<ScheduledTimer> {
        let (name, timer) = self.timers.remove_entry(name)?;
        self.pending.remove(&(timer.due, name));
        Some(timer)
    }
}

/// The payload of `$timer.set`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TimerSetting {
    pub(super) due: TimerDue,
    pub(super) events: Vec<TimerEvent>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) unless: Option<Query>,
}

/// When a timer is due, in microseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum TimerDue {
    /// Since 1970.
    At(i64),
    /// Since the timer was set.
    After(u64),
}

/// The payload of `$timer.fired`, `$timer.cancelled` and `$timer.failed`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TimerEnd {
    /// The event that cancelled the timer, if one did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) by: Option<Position>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) reason: Option<String>,
}

/// An event that a timer is to append.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TimerEvent {
    entity: String,
    scope: String,
    kind: String,
    #[serde(rename = "v")]
    schema_version: u16,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    tags: Vec<String>,
    payload: EncodedPayload,
}

/// Serialized as bytes. A `Vec<u8>` alone would be an array of numbers, up to twice as long.
#[derive(Clone, Debug)]
struct EncodedPayload(Vec<u8>);

impl EventData for TimerEvent {
    fn kind(&self) -> &str {
        &self.kind
    }

    fn schema_version(&self) -> u16 {
        self.schema_version
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        out.extend_from_slice(&self.payload.0);
        Ok(())
    }
}

/// The entity whose stream records a timer.
pub(super) fn entity_of(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// When a timer is due, in microseconds since 1970. `set` is the event that set it.
fn due_of(due: TimerDue, set: &RecordedEvent) -> i64 {
    match due {
        TimerDue::At(micros) => micros,
        TimerDue::After(micros) => {
            // Events of earlier versions of annals do not say when the timer was set.
            let since = set.occurred_at().unwrap_or_else(|| set.recorded_at());
            micros_of(since).saturating_add(i64::try_from(micros).unwrap_or(i64::MAX))
        }
    }
}

/// The events of an append, which must have nothing else.
pub(super) fn events_of(append: &Append) -> Result<Vec<TimerEvent>, Error> {
    let draft = append.draft()?;
    if draft.is_conditional() {
        return Err(Error::invalid(
            "an append in a timer cannot have an expectation, a condition or a key; say when it is not to happen with unless(query)",
        ));
    }
    if draft.has_system_events() {
        return Err(Error::invalid(
            "the append in the timer sets a timer itself; set both with the same append",
        ));
    }
    let Some(proposed) = append.proposed() else {
        return Err(Error::invalid("the append in the timer has no event; add one"));
    };
    let events = proposed.events().map(|event| TimerEvent {
        entity: event.entity().to_owned(),
        scope: event.scope().to_owned(),
        kind: event.kind().to_owned(),
        schema_version: event.schema_version(),
        tags: event.tags().map(str::to_owned).collect(),
        payload: EncodedPayload(event.payload().to_vec()),
    });
    Ok(events.collect())
}

/// The append of these events.
pub(super) fn append_of(events: &[TimerEvent]) -> Append {
    let mut append = Append::empty();
    for event in events {
        append = append.and_to((event.entity.as_str(), event.scope.as_str())).event(event);
        append = event.tags.iter().fold(append, |append, tag| append.tag(tag));
    }
    append
}

impl Serialize for EncodedPayload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for EncodedPayload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<EncodedPayload, D::Error> {
        struct PayloadBytes;
        impl Visitor<'_> for PayloadBytes {
            type Value = EncodedPayload;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<EncodedPayload, E> {
                Ok(EncodedPayload(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(PayloadBytes)
    }
}
