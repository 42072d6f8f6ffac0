//! The test kit for applications (feature `test-kit`): given, when, then; crashes on demand; a lock of stored
//! events.
//!
//! - [`Given`] tests aggregates and projections: given these events, when this command comes, then these
//!   events are decided.
//! - [`GivenReactor`] tests reactors: when this event comes, then these events are appended.
//! - [`Crash`] runs your code on a simulated disk, crashes it after each operation of the disk, opens the
//!   store again, and calls your check.
//! - [`events_lock!`](crate::test::events_lock) fails a test if the shape of stored events changes and their
//!   version does not.
//! - [`store`] makes a store in memory whose clock stands still and whose ids are the same in each run.
//!   [`Clock`] is a clock that a test moves.
//!
//! A failed check panics, as assertions do, with a readable difference.

// A failed check panics, as an assertion does.
#![allow(clippy::panic)]

mod crash;
mod given;
mod lock;

use std::fmt::{Debug, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::disk::SimDisk;
use crate::store::Store;

pub use crash::{Crash, CrashReport, Said};
pub use given::{Decided, Given, GivenReactor, Reacted};
pub use lock::{Additions, EventsLock};

#[doc(inline)]
pub use crate::__events_lock as events_lock;

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

/// Opens a store in memory for one test. Its clock always shows 2026-01-01T00:00:00Z, and the same appends
/// get the same ids in each run.
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

/// The lines of two texts: ` ` before a line in both, `-` before one in `expected` only, `+` in `actual`
/// only.
fn difference_of_lines(expected: &str, actual: &str) -> String {
    let expected: Vec<&str> = expected.lines().collect();
    let actual: Vec<&str> = actual.lines().collect();
    let common = common_suffixes(&expected, &actual);
    let mut text = String::new();
    let mut row = 0;
    let mut column = 0;
    while row < expected.len() || column < actual.len() {
        let (sign, line) = if row < expected.len() && column < actual.len() && expected[row] == actual[column]
        {
            row += 1;
            column += 1;
            (' ', expected[row - 1])
        } else if column == actual.len()
            || row < expected.len() && common[row + 1][column] >= common[row][column + 1]
        {
            row += 1;
            ('-', expected[row - 1])
        } else {
            column += 1;
            ('+', actual[column - 1])
        };
        let _ = writeln!(text, "  {sign} {line}");
    }
    text
}

/// The lines of two values, as `Debug` prints them.
fn difference<T: Debug + ?Sized>(expected: &T, actual: &T) -> String {
    difference_of_lines(&format!("{expected:#?}"), &format!("{actual:#?}"))
}

/// `common[i][j]` is the length of the longest common subsequence of `one[i..]` and `other[j..]`.
fn common_suffixes(one: &[&str], other: &[&str]) -> Vec<Vec<usize>> {
    let mut common = vec![vec![0; other.len() + 1]; one.len() + 1];
    for row in (0..one.len()).rev() {
        for column in (0..other.len()).rev() {
            common[row][column] = if one[row] == other[column] {
                common[row + 1][column + 1] + 1
            } else {
                common[row + 1][column].max(common[row][column + 1])
            };
        }
    }
    common
}
