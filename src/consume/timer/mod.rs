//! Timers: append this at a time, unless that has come.
//!
//! A timer is events of the store's own, `$timer/<name>`: set, then fired, cancelled or failed, of which
//! the last one counts. Who fires them (service.rs) keeps nothing that is not in the log.
//! Row: app.

mod kept;
mod schedule;
mod service;

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::engine::Append;
use crate::event::{Raw, RecordedEvent};
use crate::store::Store;
use crate::types::system::timer::{CANCELLED, FAILED, PREFIX, SET};
use crate::types::{Error, Expected, Position, Query, check_name, micros_of};

use kept::Kept;
use schedule::Schedule;

pub use service::Timers;

/// Something to append at a time, unless something else comes before.
///
/// Set it with [`Append::timer`]; run due timers with [`Store::run_timers`] or [`Store::fire_timers`].
///
/// ```
/// use std::time::Duration;
/// use annals::test::Clock;
/// use annals::{Append, Query, Raw, Store, Timer};
///
/// let clock = Clock::new();
/// let store = Store::on(annals::disk::MemDisk::new()).clock(clock.source()).open()?;
/// for order in ["order:1", "order:2"] {
///     let expiry = Timer::after(Duration::from_secs(900), Append::to(order).event(&Raw("order.expired", &())))
///         .unless(Query::entity(order).kind("order.paid"));
///     Append::to(order).event(&Raw("order.placed", &())).timer(order, expiry).commit(&store)?;
/// }
/// store.append("order:2", &Raw("order.paid", &()))?;
///
/// clock.advance(Duration::from_secs(900));
/// store.fire_timers()?;
/// assert_eq!(store.last(Query::entity("order:1"))?.unwrap().kind(), "order.expired");
/// assert_eq!(store.last(Query::entity("order:2"))?.unwrap().kind(), "order.paid");
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a timer does nothing until it is set"]
pub struct Timer {
    plan: Result<Set, Error>,
}

/// A timer that has not fired.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimerStatus {
    /// Its name.
    pub name: String,
    /// When it is to fire.
    pub due: SystemTime,
    /// The position of the event that set it.
    pub set_at: Position,
    /// Why it could not fire, if it was refused for good.
    pub failure: Option<String>,
}

/// What setting a timer records.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Set {
    due: Due,
    events: Vec<Kept>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    unless: Option<Query>,
}

/// In microseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Due {
    /// Since 1970.
    At(i64),
    /// Since the timer was set.
    After(u64),
}

/// What ends a timer.
#[derive(Debug, Serialize, Deserialize)]
struct Ended {
    /// The event that cancelled it, if one did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    by: Option<Position>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    reason: Option<String>,
}

/// What a name may have, so that the timer's stream has a name, too.
const NAME_BYTES_MAX: usize = 255;

impl Timer {
    /// To be appended as soon as the store's clock has passed a time.
    ///
    /// The append may have several events for several entities. An expectation, a condition, a key or a timer in it
    /// is [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) when the timer is set, and metadata and times of
    /// occurrence are not kept.
    pub fn at(time: SystemTime, append: Append) -> Timer {
        Timer::new(Due::At(micros_of(time)), &append)
    }

    /// To be appended a time after the timer was set: counted from what the store's clock showed when the
    /// append that sets it was handed over. Not from its recorded-at, which runs ahead where the clock was
    /// wrong once.
    pub fn after(duration: Duration, append: Append) -> Timer {
        Timer::new(Due::After(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)), &append)
    }

    /// Not to be appended if an event has come since the timer was set that a query matches; in a reaction, since the
    /// event that it is the reaction to. A later call replaces the query of an earlier one; join several with
    /// [`Query::or`].
    pub fn unless(mut self, query: Query) -> Timer {
        if query.asks_correlation() {
            self.plan = Err(Error::invalid(
                "a timer cannot depend on a correlation; ask for entities, scopes, kinds or tags",
            ));
        } else if let Ok(set) = &mut self.plan {
            set.unless = Some(query);
        }
        self
    }

    fn new(due: Due, append: &Append) -> Timer {
        Timer { plan: kept::keep(append).map(|events| Set { due, events, unless: None }) }
    }
}

impl Append {
    /// Sets a timer, together with the events of this append: both are there, or neither. A timer of this name that
    /// is pending is replaced. An append may have timers and no events.
    pub fn timer(self, name: impl AsRef<str>, timer: Timer) -> Append {
        let name = name.as_ref();
        let checked = check_name("timer", name, NAME_BYTES_MAX).and(timer.plan);
        match checked {
            Ok(set) => self.system_event(&entity_of(name), Expected::Any, &Raw(SET, &set)).timed(),
            Err(error) => self.and_failed(error),
        }
    }
}

impl Store {
    /// Sets a timer by itself: `Append` without events, with a [`Append::timer`].
    ///
    /// # Errors
    ///
    /// As [`Append::commit`].
    pub fn set_timer(&self, name: impl AsRef<str>, timer: Timer) -> Result<(), Error> {
        Append::empty().timer(name, timer).commit(self).map(drop)
    }

    /// Takes a timer back. Whether there was one to take back: one that has fired, or never was, is not.
    ///
    /// # Errors
    ///
    /// As [`Append::commit`].
    pub fn cancel_timer(&self, name: &str) -> Result<bool, Error> {
        loop {
            let last = self.last(Query::entity(entity_of(name)))?;
            let Some(pending) = last.filter(|event| matches!(event.kind(), SET | FAILED)) else {
                return Ok(false);
            };
            let ended = Raw(CANCELLED, &Ended { by: None, reason: None });
            let expected = Expected::Exact(pending.version());
            match Append::of_system(&entity_of(name), expected, &ended).commit(self) {
                Err(error) if error.conflict().is_some() => {}
                done => return done.map(|_| true),
            }
        }
    }

    /// The timers that are pending or could not fire, the next one due first.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn timers(&self) -> Result<Vec<TimerStatus>, Error> {
        Ok(Schedule::of(self)?.into_statuses())
    }
}

fn entity_of(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// When a timer is due, in microseconds since 1970.
fn due_of(due: Due, set: &RecordedEvent) -> i64 {
    match due {
        Due::At(micros) => micros,
        Due::After(micros) => {
            // A timer that an earlier version set does not say when.
            let since = set.occurred_at().unwrap_or_else(|| set.recorded_at());
            micros_of(since).saturating_add(i64::try_from(micros).unwrap_or(i64::MAX))
        }
    }
}
