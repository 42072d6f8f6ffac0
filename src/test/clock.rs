//! Time that stands still, and a store in which everything is the same in every run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::disk::SimDisk;
use crate::store::Store;

/// 2026-01-01T00:00:00Z.
const START_SECONDS: u64 = 1_767_225_600;

/// A clock that moves only when it is told to. Clones show the same time.
///
/// ```
/// use std::time::Duration;
/// use annals::test::Clock;
/// use annals::{Raw, Store};
///
/// let clock = Clock::new();
/// let store = Store::on(annals::disk::MemDisk::new()).clock(clock.source()).open()?;
/// let first = store.append("account:alice", &Raw("account.opened", &()))?;
/// clock.advance(Duration::from_secs(3600));
/// let second = store.append("account:alice", &Raw("account.closed", &()))?;
/// assert_eq!(second.recorded_at().duration_since(first.recorded_at()).unwrap().as_secs(), 3600);
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Clock {
    micros: Arc<AtomicU64>,
}

impl Clock {
    /// A clock that shows 2026-01-01T00:00:00Z.
    #[must_use]
    pub fn new() -> Clock {
        Clock { micros: Arc::new(AtomicU64::new(START_SECONDS * 1_000_000)) }
    }

    /// The time it shows.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }

    /// Moves it on.
    pub fn advance(&self, by: Duration) {
        let micros = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        let _ = self
            .micros
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| Some(now.saturating_add(micros)));
    }

    /// What [`Builder::clock`](crate::Builder::clock) takes.
    pub fn source(&self) -> impl Fn() -> SystemTime + Send + Sync + 'static {
        let clock = self.clone();
        move || clock.now()
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

/// A store in memory for one test: its clock shows 2026-01-01T00:00:00Z for good, and the same appends get the
/// same ids in every run.
///
/// ```
/// use annals::Raw;
///
/// let ids: Vec<_> = (0..2)
///     .map(|_| annals::test::store().append("account:alice", &Raw("account.opened", &())).unwrap().id())
///     .collect();
/// assert_eq!(ids[0], ids[1]);
/// ```
///
/// # Panics
///
/// If the operating system has no thread to give.
#[must_use]
pub fn store() -> Store {
    fixed(Clock::new())
}

/// The same, with a clock of one's own.
pub(super) fn fixed(clock: Clock) -> Store {
    let opened = Store::on(SimDisk::new(0)).clock(clock.source()).open();
    opened.unwrap_or_else(|error| panic!("a store in memory did not open: {error}"))
}
