//! A consumer as an operator sees it, and what the operator does to it: halt, resume, skip, rewind, reset.
//!
//! The status comes from the consumer's last record, from its runner, and from the index, which counts the
//! matching events that are left. Each call of [`ConsumerControl`] records its author, and most a reason.

use std::fmt;
use std::time::{Duration, Instant};

use crate::engine::{Append, Engine};
use crate::event::Raw;
use crate::read::{Snapshot, Visibility, reader};
use crate::store::{RunnerState, SpeedSamples, Store};
use crate::types::system::consumer as kinds;
use crate::types::{
    Durability, Error, ErrorKind, Expected, Position, Query, Version, check_visible, counted, options,
    time_of, visible,
};

use super::checkpoint::{halt_now, halted};
use super::record::{self, ConsumerRecord, Halt, LastRecord};

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
        let streams = self.entities().prefix(kinds::PREFIX);
        let names = streams.map(|listed| Ok(listed?.name.split_off(kinds::PREFIX.len())));
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
            && !self.engine().view.wait(Visibility::Published, before.into(), deadline)
        {
            return Ok(false);
        }
        loop {
            // Taken before anything is read: progress after the read must not be slept through.
            let mark = self.running().changes();
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

    /// Controls the consumer or reactor of this name. The handle keeps the store open.
    pub fn consumer_control(&self, name: &str) -> ConsumerControl {
        ConsumerControl { store: self.clone(), name: name.to_owned(), by: "the application".to_owned() }
    }
}

/// The published events of a store that is neither closed nor failed.
fn open_snapshot(engine: &Engine) -> Result<Snapshot, Error> {
    let snapshot = engine.snapshot()?;
    match engine.view.close_reason() {
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
        let SpeedSamples { earlier, later } = live.pace();
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

/// Halts, resumes or moves a consumer, whether it runs or not: see [`Store::consumer_control`].
///
/// Each call appends an event to the consumer's stream (`$consumer/<name>`), which is durable when the call
/// returns. A consumer or reactor that runs in this process follows at once and is not stopped: it finishes
/// its current event. The outputs of that event are not appended if they come after the call.
///
/// ```
/// use annals::{ConsumerState, Query, Raw, Store};
///
/// let store = Store::in_memory()?;
/// let mut mail = store.consumer("mail", Query::all())?;
/// let order = store.append("order:1", &Raw("order.placed", &()))?;
///
/// let control = store.consumer_control("mail").by("alice");
/// control.halt("the mail server is being moved")?;
/// assert!(mail.try_next().is_err());
/// let ConsumerState::Halted(halt) = &store.consumers()?[0].state else { panic!() };
/// assert_eq!((halt.by.as_str(), halt.reason.as_str()), ("alice", "the mail server is being moved"));
///
/// control.resume()?;
/// assert_eq!(mail.try_next()?.unwrap().position(), order.position());
/// # Ok::<(), annals::Error>(())
/// ```
#[must_use = "nothing is done until one of its methods is called"]
#[derive(Clone, Debug)]
pub struct ConsumerControl {
    store: Store,
    name: String,
    by: String,
}

/// A runner is held back during a call, so only other operators can make a try fail.
const TRIES: u32 = 1000;

impl ConsumerControl {
    /// The name of the operator, which is recorded (default: `the application`).
    pub fn by(mut self, who: &str) -> ConsumerControl {
        self.by = record::shortened(who);
        self
    }

    /// Halts the consumer until it is resumed, also across restarts. The name need not have run before, so a
    /// consumer outside annals can be halted, too.
    ///
    /// # Errors
    ///
    /// Those of [`Append::commit`](crate::Append::commit); [`ErrorKind::Invalid`](crate::ErrorKind::Invalid)
    /// if the name is not a valid name.
    pub fn halt(&self, reason: &str) -> Result<(), Error> {
        self.record(kinds::HALTED, |last| {
            let halt = halt_now(&self.store, reason, &self.by);
            Ok(ConsumerRecord { halt: Some(halt), ..last.record.next() })
        })
    }

    /// Resumes the consumer: it tries the event again at which it was halted.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if it is not halted; those of
    /// [`Append::commit`](crate::Append::commit).
    pub fn resume(&self) -> Result<(), Error> {
        self.record(kinds::RESUMED, |last| {
            if last.record.halt.is_none() {
                return Err(Error::invalid(format!("consumer {} is not halted", self.name)));
            }
            Ok(ConsumerRecord { by: Some(self.by.clone()), halt: None, ..last.record.next() })
        })
    }

    /// Skips all events up to this position, this one included, and resumes the consumer if it was halted.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the events up to there are handled already or not
    /// all durable yet, or if there is no such consumer; those of [`Append::commit`](crate::Append::commit).
    pub fn skip(&self, position: Position, reason: &str) -> Result<(), Error> {
        self.move_to(kinds::SKIPPED, position, reason, |from| {
            let durable = self.store.durable_head()?.position();
            if position <= from {
                Err(format!("has handled everything up to position {from}; to go back, rewind it"))
            } else if position > durable {
                Err(format!("cannot pass over what is not there: the store is durable up to {durable}"))
            } else {
                Ok(())
            }
            .map_err(|why| self.refuse(&why))
        })
    }

    /// Goes back: all events after this position are handled again, and a halted consumer is resumed. Outputs
    /// of a reactor stay in the store, so it **reacts once more** to each event.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Invalid`](crate::ErrorKind::Invalid): it is not that far, or there is no such consumer.
    /// - [`ErrorKind::RolledBack`](crate::ErrorKind::RolledBack): the durable log ends before the position.
    /// - The errors of [`Append::commit`](crate::Append::commit).
    pub fn rewind(&self, position: Position, reason: &str) -> Result<(), Error> {
        self.move_to(kinds::REWOUND, position, reason, |from| {
            let durable = self.store.durable_head()?.position();
            if position > from {
                Err(self.refuse(&format!("is at position {from} only; to pass over events, skip them")))
            } else if position > durable {
                let text = format!(
                    "consumer {} cannot go back to position {position}: history was set back, and the store is durable up \
                     to {durable}; rewind it to there or before, or reset it",
                    self.name
                );
                Err(Error::new(ErrorKind::RolledBack, text))
            } else {
                Ok(())
            }
        })
    }

    /// Goes back to the beginning: like [`ConsumerControl::rewind`] to [`Position::START`].
    ///
    /// # Errors
    ///
    /// Those of [`ConsumerControl::rewind`].
    pub fn reset(&self, reason: &str) -> Result<(), Error> {
        self.move_to(kinds::RESET, Position::START, reason, |_| Ok(()))
    }

    fn refuse(&self, why: &str) -> Error {
        Error::invalid(format!("consumer {} {why}", self.name))
    }

    fn move_to(
        &self,
        kind: &str,
        to: Position,
        reason: &str,
        check: impl Fn(Position) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.record(kind, |last| {
            check(last.record.position)?;
            let reason = Some(record::shortened(reason));
            let next = ConsumerRecord { by: Some(self.by.clone()), reason, ..ConsumerRecord::default() };
            next.at(&self.store, to)
        })
    }

    /// Appends one event to the consumer's stream; `next` makes it from the last one.
    fn record(
        &self,
        kind: &str,
        next: impl Fn(&LastRecord) -> Result<ConsumerRecord, Error>,
    ) -> Result<(), Error> {
        let entity = record::entity_of(&self.name)?;
        check_visible("name of the one who moves the consumer", &self.by)?;
        // A runner that is not held back would win every time: it appends again while the last record is read
        // here.
        let runner = self.store.running().find(&self.name).map(|live| live.mover());
        let mut tries = 0;
        loop {
            let last = record::last(&self.store, &entity)?;
            if last.version == Version::EMPTY && kind != kinds::HALTED {
                return Err(Error::invalid(format!("there is no consumer {}", self.name)));
            }
            let record = next(&last)?;
            let expected = Expected::Exact(last.version);
            let append = Append::of_system(&entity, expected, &Raw(kind, &record));
            tries += 1;
            match append.durability(Durability::Synced).commit(&self.store) {
                Err(error) if error.conflict().is_some() && tries < TRIES => {}
                done => {
                    if done.is_ok() && record::is_move(kind) {
                        runner.iter().for_each(|runner| runner.moved());
                    }
                    return done.map(drop);
                }
            }
        }
    }
}
