//! A clock that a test moves, and a store in memory that is the same in each run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::disk::SimDisk;
use crate::store::Store;

/// 2026-01-01T00:00:00Z.
const START_SECONDS: u64 = 1_767_225_600;

/// A clock that moves only by [`Clock::advance`]. Clones show the same time.
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
    /// Makes a clock that shows 2026-01-01T00:00:00Z.
    #[must_use]
    pub fn new() -> Clock {
        Clock { micros: Arc::new(AtomicU64::new(START_SECONDS * 1_000_000)) }
    }

    /// The time that the clock shows.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let micros = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        let _ = self
            .micros
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| Some(now.saturating_add(micros)));
    }

    /// The clock as a function, for [`Builder::clock`](crate::Builder::clock).
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

/// Opens a store in memory for one test. Its clock always shows 2026-01-01T00:00:00Z, and the same appends get the
/// same ids in each run.
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
/// If the operating system starts no thread.
#[must_use]
pub fn store() -> Store {
    let opened = Store::on(SimDisk::new(0)).clock(Clock::new().source()).open();
    opened.unwrap_or_else(|error| panic!("a store in memory did not open: {error}"))
}
