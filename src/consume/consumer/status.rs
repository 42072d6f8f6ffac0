//! How consumers are doing, and waiting for one.
//!
//! What is behind is counted in events that match, by the index. Row: app.

use std::fmt;
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::read::{Reach, Snapshot, reader};
use crate::store::{RunnerState, SpeedSamples, Store};
use crate::types::{Error, Position, Query, Version, counted, options, time_of, visible};

use super::checkpoint::halted;
use super::record::{self, Halt, Last};
use crate::types::system::consumer::PREFIX;

/// How a consumer is doing: see [`Store::consumers`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConsumerStatus {
    /// Its name.
    pub name: String,
    /// What it asks for; `None` if it never ran.
    pub query: Option<Query>,
    /// Whether it runs in this process.
    pub is_running: bool,
    /// Everything that matches up to here was handled; of one that runs, written down or not.
    pub position: Position,
    /// How many durable events that match come after that.
    pub behind: u64,
    /// What that means.
    pub state: ConsumerState,
}

/// What a consumer is doing. The first of these that is true:
///
/// | state | is true |
/// |---|---|
/// | `Halted` | its stream says so; survives a restart |
/// | `Stuck` | it runs, its handler failed at the next event, and will be called again |
/// | `Idle` | it has handled everything durable that matches |
/// | `CatchingUp` | it runs and is less far behind than one or two seconds ago, or has just begun |
/// | `Lagging` | neither: it is too slow, its handler takes long, or it does not run |
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ConsumerState {
    /// Nothing is left to do.
    Idle,
    /// It will be through some time.
    CatchingUp {
        /// How many events are left.
        events: u64,
        /// How many it handles a second; 0 until that is known.
        per_second: f64,
        /// How long it will take if it goes on like this, new events counted in; `None` until that is known.
        remaining: Option<Duration>,
    },
    /// It falls behind, or stands.
    Lagging {
        /// How many events are left.
        events: u64,
        /// How long ago the first of them was recorded.
        oldest: Duration,
    },
    /// It is held up by an event.
    Stuck {
        /// The event.
        at: Position,
        /// How often it was tried.
        attempts: u32,
        /// The last error.
        reason: String,
    },
    /// Somebody has to decide.
    Halted(Halt),
}

/// For so long after it has begun, nothing is said of its speed.
const JUST_BEGUN: Duration = Duration::from_secs(1);

impl Store {
    /// All consumers and reactors that were ever run under this store or halted, by name.
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

    /// Waits until a consumer or reactor has handled everything that matches up to a position, so that what it brings
    /// about can be read: reading one's own writes through it. `false` if that took longer than the timeout.
    ///
    /// ```
    /// use std::time::Duration;
    /// use annals::{Query, Raw, Reaction, RecordedEvent, Store};
    ///
    /// let store = Store::in_memory()?;
    /// store.react("greeter", Query::all().kind("user.joined"), |joined: &RecordedEvent, reaction: &mut Reaction<'_>| {
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
    /// [`ErrorKind::Halted`](crate::ErrorKind::Halted) if it is halted before it is as far,
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed), [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned), and those of
    /// reading. A name that never ran is waited for.
    pub fn wait_for(&self, name: &str, position: Position, timeout: Duration) -> Result<bool, Error> {
        let entity = record::entity_of(name)?;
        let deadline = Instant::now().checked_add(timeout);
        if let Some(before) = position.get().checked_sub(1)
            && !self.engine().view.wait(Reach::Published, before.into(), deadline)
        {
            return Ok(false);
        }
        loop {
            let mark = self.running().changes();
            let snapshot = snapshot(self.engine())?;
            let Last { standing, .. } = record::last(self, &entity)?;
            let handled = self.running().find(name).and_then(|live| live.handled());
            let handled = handled.unwrap_or(standing.position);
            if handled >= position {
                return Ok(true);
            }
            if let Some(query) = record::query(self, &entity)?
                && reader::first_in(&snapshot, &query, handled, position)?.is_none()
            {
                return Ok(true);
            }
            if let Some(halt) = &standing.halt {
                return Err(halted(name, halt));
            }
            if !self.running().wait(mark, deadline) {
                return Ok(false);
            }
        }
    }
}

/// What is published, of a store that still grows.
fn snapshot(engine: &Engine) -> Result<Snapshot, Error> {
    let snapshot = engine.snapshot()?;
    match engine.view.ended() {
        None => Ok(snapshot),
        Some(end) => Err(end.into_error()),
    }
}

/// How the consumer of a name is doing.
pub(crate) fn status(store: &Store, name: &str) -> Result<ConsumerStatus, Error> {
    let entity = record::entity_of(name)?;
    let live = store.running().find(name);
    let Last { version, standing } = record::last(store, &entity)?;
    if version == Version::EMPTY {
        return Err(Error::invalid(format!("there is no consumer {name}")));
    }
    let query = record::query(store, &entity)?;
    let position = live.as_ref().and_then(|live| live.handled()).unwrap_or(standing.position);
    let snapshot = store.engine().snapshot()?;
    let durable = snapshot.durable.position;
    let behind = match &query {
        Some(query) => reader::count_in(&snapshot, query, position, durable)?,
        None => 0,
    };
    let state = match (&standing.halt, live.as_ref().and_then(|live| live.trouble()), &query) {
        (Some(halt), _, _) => ConsumerState::Halted(halt.into()),
        (None, Some(trouble), _) => {
            ConsumerState::Stuck { at: trouble.at, attempts: trouble.attempts, reason: trouble.reason }
        }
        (None, None, Some(query)) if behind > 0 => {
            let asked = Asked { store, snapshot: &snapshot, query, position, behind };
            match live.as_ref().map_or(Ok(None), |live| asked.catching_up(live))? {
                Some(state) => state,
                None => asked.lagging()?,
            }
        }
        _ => ConsumerState::Idle,
    };
    Ok(ConsumerStatus { name: name.to_owned(), query, is_running: live.is_some(), position, behind, state })
}

/// Of a consumer that is behind.
struct Asked<'a> {
    store: &'a Store,
    snapshot: &'a Snapshot,
    query: &'a Query,
    position: Position,
    behind: u64,
}

impl Asked<'_> {
    /// If it gets nearer to the head.
    fn catching_up(&self, live: &RunnerState) -> Result<Option<ConsumerState>, Error> {
        let SpeedSamples { earlier, later } = live.pace();
        let count = |after, up_to| reader::count_in(self.snapshot, self.query, after, up_to);
        let (handled, behind_then) =
            (count(earlier.handled, self.position)?, count(earlier.handled, earlier.head)?);
        let elapsed = earlier.at.elapsed();
        let per_second = float(handled) / elapsed.as_secs_f64().max(1e-6);
        let state = |per_second, remaining| {
            Some(ConsumerState::CatchingUp { events: self.behind, per_second, remaining })
        };
        Ok(match behind_then.checked_sub(self.behind).filter(|gained| *gained > 0) {
            Some(gained) => {
                let seconds = float(self.behind) * elapsed.as_secs_f64() / float(gained);
                state(per_second, Duration::try_from_secs_f64(seconds).ok())
            }
            None if later.at == earlier.at && elapsed < JUST_BEGUN => state(0.0, None),
            None => None,
        })
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

/// Near enough for a speed.
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
