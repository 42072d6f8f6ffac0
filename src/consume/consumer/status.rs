//! The status of consumers, and waiting for a consumer. The index counts the matching events that are left.

use std::fmt;
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::read::{Reach, Snapshot, reader};
use crate::store::{Pace, RunnerState, Store};
use crate::types::{Error, Position, Query, Version, counted, options, time_of, visible};

use super::checkpoint::halted;
use super::record::{self, Halt, LastRecord};
use crate::types::system::consumer::PREFIX;

/// The status of a consumer: see [`Store::consumers`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConsumerStatus {
    /// The name of the consumer.
    pub name: String,
    /// The consumer's query; `None` if it never ran.
    pub query: Option<Query>,
    /// True if it runs in this process.
    pub is_running: bool,
    /// Every matching event up to here was handled. For a running consumer this may be ahead of the written
    /// checkpoint.
    pub position: Position,
    /// The number of durable matching events behind that position.
    pub behind: u64,
    /// What the consumer is doing.
    pub state: ConsumerState,
}

/// What a consumer is doing. The first of these that is true:
///
/// | state | is true |
/// |---|---|
/// | `Halted` | its stream says so; survives a restart |
/// | `Stuck` | it runs, its handler failed at the next event, and will be called again |
/// | `Idle` | it has handled every durable event that matches |
/// | `CatchingUp` | it runs and is less far behind than one or two seconds ago, or has just begun |
/// | `Lagging` | otherwise: it is too slow, its handler takes long, or it does not run |
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ConsumerState {
    /// No event is left.
    Idle,
    /// It gets closer to the head.
    CatchingUp {
        /// How many events are left.
        events: u64,
        /// How many events it handles in a second; 0 until that is known.
        per_second: f64,
        /// The time until it has caught up at this rate, with new events counted in; `None` until that is
        /// known.
        remaining: Option<Duration>,
    },
    /// It falls behind, or does not run.
    Lagging {
        /// How many events are left.
        events: u64,
        /// The time since the oldest of them was recorded.
        oldest: Duration,
    },
    /// One event holds it up.
    Stuck {
        /// The position of the event.
        at: Position,
        /// How often the event was tried.
        attempts: u32,
        /// The last error.
        reason: String,
    },
    /// An operator has to resume or move it.
    Halted(Halt),
}

/// The time after its start in which a consumer counts as catching up without a rate.
const JUST_BEGUN: Duration = Duration::from_secs(1);

impl Store {
    /// All consumers and reactors of this store that ever ran or were halted, by name.
    ///
    /// Costs a few look-ups in the index for each.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed), and those of reading.
    pub fn consumers(&self) -> Result<Vec<ConsumerStatus>, Error> {
        let streams = self.entities().prefix(PREFIX);
        let names = streams.map(|listed| Ok(listed?.name.split_off(PREFIX.len())));
        let names: Vec<String> = names.collect::<Result<_, Error>>()?;
        names.iter().map(|name| status(self, name)).collect()
    }

    /// Waits until a consumer or reactor has handled every matching event up to a position. A caller can then
    /// read what a reactor has made of the caller's own append. `false` if that took longer than the timeout.
    ///
    /// ```
    /// use std::time::Duration;
    /// use annals::{Query, Raw, Reaction, RecordedEvent, Store};
    ///
    /// let store = Store::in_memory()?;
    /// let joins = Query::all().kind("user.joined");
    /// store.react("greeter", joins, |joined: &RecordedEvent, reaction: &mut Reaction<'_>| {
    ///     reaction.append(joined.entity(), &Raw("user.greeted", &()));
    ///     Ok(())
    /// })?;
    /// let joined = store.append("user:1", &Raw("user.joined", &()))?;
    /// assert!(store.wait_for("greeter", joined.position(), Duration::from_secs(10))?);
    /// assert_eq!(store.version("user:1")?.get(), 2);
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Halted`](crate::ErrorKind::Halted) if it is halted before that position,
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed), [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned),
    /// and those of reading. A name that never ran is no error: the call waits for it.
    pub fn wait_for(&self, name: &str, position: Position, timeout: Duration) -> Result<bool, Error> {
        let entity = record::entity_of(name)?;
        let deadline = Instant::now().checked_add(timeout);
        if let Some(before) = position.get().checked_sub(1)
            && !self.engine().view.wait(Reach::Published, before.into(), deadline)
        {
            return Ok(false);
        }
        loop {
            // Taken before anything is read: progress after the read must not be slept through.
            let mark = self.running().mark();
            let snapshot = open_snapshot(self.engine())?;
            let LastRecord { record, .. } = record::last(self, &entity)?;
            let handled = self.running().find(name).and_then(|live| live.handled());
            let handled = handled.unwrap_or(record.position);
            if handled >= position {
                return Ok(true);
            }
            if let Some(query) = record::query(self, &entity)?
                && reader::first_in(&snapshot, &query, handled, position)?.is_none()
            {
                return Ok(true);
            }
            if let Some(halt) = &record.halt {
                return Err(halted(name, halt));
            }
            if !self.running().wait(mark, deadline) {
                return Ok(false);
            }
        }
    }
}

/// The published events of a store that is neither closed nor failed.
fn open_snapshot(engine: &Engine) -> Result<Snapshot, Error> {
    let snapshot = engine.snapshot()?;
    match engine.view.ended() {
        None => Ok(snapshot),
        Some(end) => Err(end.into_error()),
    }
}

/// The status of one consumer.
pub(crate) fn status(store: &Store, name: &str) -> Result<ConsumerStatus, Error> {
    let entity = record::entity_of(name)?;
    let live = store.running().find(name);
    let LastRecord { version, record } = record::last(store, &entity)?;
    if version == Version::EMPTY {
        return Err(Error::invalid(format!("there is no consumer {name}")));
    }
    let query = record::query(store, &entity)?;
    let position = live.as_ref().and_then(|live| live.handled()).unwrap_or(record.position);
    let snapshot = store.engine().snapshot()?;
    let durable = snapshot.durable.position;
    let behind = match &query {
        Some(query) => reader::count_in(&snapshot, query, position, durable)?,
        None => 0,
    };
    let state = match (&record.halt, live.as_ref().and_then(|live| live.trouble()), &query) {
        (Some(halt), _, _) => ConsumerState::Halted(halt.into()),
        (None, Some(trouble), _) => {
            ConsumerState::Stuck { at: trouble.at, attempts: trouble.attempts, reason: trouble.reason }
        }
        (None, None, Some(query)) if behind > 0 => {
            let backlog = Backlog { store, snapshot: &snapshot, query, position, behind };
            match live.as_ref().map_or(Ok(None), |live| backlog.catching_up(live))? {
                Some(state) => state,
                None => backlog.lagging()?,
            }
        }
        _ => ConsumerState::Idle,
    };
    Ok(ConsumerStatus { name: name.to_owned(), query, is_running: live.is_some(), position, behind, state })
}

/// The events that a consumer has not handled.
struct Backlog<'a> {
    store: &'a Store,
    snapshot: &'a Snapshot,
    query: &'a Query,
    position: Position,
    behind: u64,
}

impl Backlog<'_> {
    /// The state of a running consumer that gets closer to the head; `None` if it does not.
    fn catching_up(&self, live: &RunnerState) -> Result<Option<ConsumerState>, Error> {
        let Pace { earlier, later } = live.pace();
        let handled = reader::count_in(self.snapshot, self.query, earlier.handled, self.position)?;
        let behind_then = reader::count_in(self.snapshot, self.query, earlier.handled, earlier.head)?;
        let elapsed = earlier.at.elapsed();
        let events = self.behind;
        if behind_then > events {
            let gained = behind_then - events;
            let per_second = float(handled) / elapsed.as_secs_f64().max(1e-6);
            let seconds = float(events) * elapsed.as_secs_f64() / float(gained);
            let remaining = Duration::try_from_secs_f64(seconds).ok();
            return Ok(Some(ConsumerState::CatchingUp { events, per_second, remaining }));
        }
        let has_just_begun = later.at == earlier.at && elapsed < JUST_BEGUN;
        Ok(has_just_begun.then_some(ConsumerState::CatchingUp { events, per_second: 0.0, remaining: None }))
    }

    fn lagging(&self) -> Result<ConsumerState, Error> {
        let durable = self.snapshot.durable.position;
        let first = reader::first_in(self.snapshot, self.query, self.position, durable)?;
        let first = first.map_or(Ok(None), |first| self.store.at(first))?;
        let now = options::read(&self.store.engine().options.clock);
        let now = time_of(i64::try_from(now).unwrap_or(i64::MAX));
        let oldest = first.and_then(|first| now.duration_since(first.recorded_at()).ok());
        Ok(ConsumerState::Lagging { events: self.behind, oldest: oldest.unwrap_or_default() })
    }
}

/// Exact up to 4 billion, which is enough for a rate.
fn float(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

impl fmt::Display for ConsumerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = if self.is_running { "" } else { ", not running" };
        write!(f, "{} at {}{runs}: {}", visible(&self.name), self.position, self.state)
    }
}

impl fmt::Display for ConsumerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConsumerState::Idle => f.write_str("idle"),
            ConsumerState::CatchingUp { events, per_second, remaining } => {
                let events = counted(*events, "event", "events");
                write!(f, "catching up, {events} left, {per_second:.0} a second")?;
                remaining.map_or(Ok(()), |remaining| write!(f, ", through in {remaining:.1?}"))
            }
            ConsumerState::Lagging { events, oldest } => {
                let events = counted(*events, "event", "events");
                write!(f, "lagging, {events} left, the oldest of {oldest:.1?} ago")
            }
            ConsumerState::Stuck { at, attempts, reason } => {
                let attempts = counted(*attempts, "attempt", "attempts");
                write!(f, "stuck at {at} after {attempts}: {}", visible(reason))
            }
            ConsumerState::Halted(halt) => write!(f, "halted {halt}"),
        }
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = self.at {
            write!(f, "at {at} ")?;
        }
        write!(f, "by {}: {}", visible(&self.by), visible(&self.reason))
    }
}
