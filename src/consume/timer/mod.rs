//! Timers: events that are appended at a time, unless another event comes before.
//!
//! A timer is a stream of the store's own, `$timer/<name>`: set, then fired, cancelled or failed. The last
//! event counts. The thread that fires timers (`service.rs`) keeps nothing that is not in the log.

mod schedule;
mod service;

use std::time::{Duration, SystemTime};

use crate::engine::Append;
use crate::event::Raw;
use crate::store::Store;
use crate::types::system::timer::{CANCELLED, FAILED, SET};
use crate::types::{Error, Expected, Query, check_name, micros_of};

use schedule::{TimerDue, TimerEnd, TimerSchedule, TimerSetting, entity_of, events_of};

pub use schedule::TimerStatus;
pub use service::Timers;

/// An append that is made at a time, unless an event that matches a query comes before.
///
/// Set it with [`Append::timer`]; fire due timers with [`Store::run_timers`] or [`Store::fire_timers`].
///
/// The appended events have the correlation and the cause of the append that set the timer. If that has no
/// cause, its first event is the cause. Gates judge the append when it is made.
///
/// ```
/// use std::time::Duration;
/// use annals::test::Clock;
/// use annals::{Append, Query, Raw, Store, Timer};
///
/// let clock = Clock::new();
/// let store = Store::on(annals::disk::MemDisk::new()).clock(clock.source()).open()?;
/// for order in ["order:1", "order:2"] {
///     let expire = Append::to(order).event(&Raw("order.expired", &()));
///     let expiry = Timer::after(Duration::from_secs(900), expire)
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
    setting: Result<TimerSetting, Error>,
}

/// The longest name of a timer, in bytes. With the prefix it fits the default of `entity_bytes_max`.
const NAME_BYTES_MAX: usize = 255;

impl Timer {
    /// A timer that is due once the store's clock has passed a time.
    ///
    /// The append may have several events for several entities. With an expectation, a condition, a key or a
    /// timer in it, setting the timer is [`ErrorKind::Invalid`](crate::ErrorKind::Invalid). Its metadata and
    /// times of occurrence are not kept.
    pub fn at(time: SystemTime, append: Append) -> Timer {
        Timer::new(TimerDue::At(micros_of(time)), &append)
    }

    /// A timer that is due a time after it was set: counted from the store's clock when the append that sets
    /// it was submitted. Its recorded-at is not used, as that runs ahead once the clock was wrong.
    pub fn after(duration: Duration, append: Append) -> Timer {
        Timer::new(TimerDue::After(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)), &append)
    }

    /// Cancels the timer if an event that matches `query` comes after the timer was set. In a reaction: after
    /// the event that the reactor handles. A later call replaces an earlier query; [`Query::or`] joins
    /// several.
    pub fn unless(mut self, query: Query) -> Timer {
        if query.asks_correlation() {
            self.setting = Err(Error::invalid(
                "a timer cannot depend on a correlation; ask for entities, scopes, kinds or tags",
            ));
        } else if let Ok(setting) = &mut self.setting {
            setting.unless = Some(query);
        }
        self
    }

    fn new(due: TimerDue, append: &Append) -> Timer {
        Timer { setting: events_of(append).map(|events| TimerSetting { due, events, unless: None }) }
    }
}

impl Append {
    /// Sets a timer in the same append as the events: all are in the store, or none. A pending timer of this
    /// name is replaced. A retry of the append with the same key does not set the timer again. An append may
    /// have timers and no events.
    pub fn timer(self, name: impl AsRef<str>, timer: Timer) -> Append {
        let name = name.as_ref();
        match check_name("timer", name, NAME_BYTES_MAX).and(timer.setting) {
            Ok(setting) => self.system_event(&entity_of(name), Expected::Any, &Raw(SET, &setting)).timed(),
            Err(error) => self.and_failed(error),
        }
    }
}

impl Store {
    /// Sets a timer by itself: an append of no event with one [`Append::timer`].
    ///
    /// # Errors
    ///
    /// Those of [`Append::commit`].
    pub fn set_timer(&self, name: impl AsRef<str>, timer: Timer) -> Result<(), Error> {
        Append::empty().timer(name, timer).commit(self).map(drop)
    }

    /// Cancels a timer. False if there is none to cancel: it has fired, was cancelled, or was never set.
    ///
    /// # Errors
    ///
    /// Those of [`Append::commit`].
    pub fn cancel_timer(&self, name: &str) -> Result<bool, Error> {
        loop {
            let last = self.last(Query::entity(entity_of(name)))?;
            let Some(pending) = last.filter(|event| matches!(event.kind(), SET | FAILED)) else {
                return Ok(false);
            };
            let ended = Raw(CANCELLED, &TimerEnd { by: None, reason: None });
            let expected = Expected::Exact(pending.version());
            match Append::of_system(&entity_of(name), expected, &ended).commit(self) {
                // The timer was fired or set: look again.
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
        Ok(TimerSchedule::of(self)?.into_statuses())
    }
}
