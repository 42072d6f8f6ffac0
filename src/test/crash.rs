//! Crash tests: an application's code on a simulated disk, crashed after each operation of the disk.
//!
//! The work runs once, on a simulated disk that records its operations. Then, for each point between two
//! operations, the disk is rebuilt as a crash could leave it. The store is opened on it, and the check is
//! called.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::disk::{CrashMode, SimDisk, Trace};
use crate::store::Store;
use crate::types::{Error, text};

use super::Clock;

/// Runs code on a simulated disk, crashes it after each operation of the disk, and checks a promise each
/// time.
///
/// There are three kinds of crash. The process is killed. The power fails, and all unsynced bytes are lost.
/// The power fails, and parts of the unsynced bytes survive, torn and in any order. All random choices follow
/// from the seed.
///
/// ```
/// use annals::test::Crash;
/// use annals::{Append, Query, Raw};
///
/// // The promise: every transfer that was confirmed is there, and none is half there.
/// let report = Crash::new(42).run(
///     |store, said| {
///         for number in 0..5u64 {
///             let transfer = Append::to("account:a").event(&Raw("account.withdrawn", &number));
///             let transfer = transfer.and_to("account:b").event(&Raw("account.deposited", &number));
///             transfer.commit(store).unwrap();
///             said.say(number);
///         }
///     },
///     |store, said| {
///         let withdrawn = store.count(Query::entity("account:a")).unwrap();
///         assert_eq!(withdrawn, store.count(Query::entity("account:b")).unwrap());
///         assert!(withdrawn >= said.len() as u64);
///     },
/// );
/// assert!(report.images > 50);
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is crashed until `run`"]
pub struct Crash {
    seed: u64,
    torn_per_point: u64,
    images_max: usize,
    only_after: Option<usize>,
}

/// The size of a crash test; see [`Crash::run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CrashReport {
    /// Operations of the disk that the work made.
    pub operations: usize,
    /// Crashed disks that were opened and checked.
    pub images: usize,
}

/// The statements of the work to the outside world, which a crash must not make untrue.
#[derive(Clone)]
pub struct Said {
    disk: SimDisk,
}

impl Said {
    /// States something that a crash must not take back from now on, such as the number of a confirmed order.
    pub fn say(&self, what: u64) {
        self.disk.note(what);
    }
}

impl Crash {
    /// Makes a crash test with two torn disks at each point, and at most 2,000 disks in all.
    pub fn new(seed: u64) -> Crash {
        Crash { seed, torn_per_point: 2, images_max: 2_000, only_after: None }
    }

    /// Sets how many different torn disks are tried at each point (default: 2).
    pub fn torn_per_point(self, disks: u64) -> Crash {
        Crash { torn_per_point: disks, ..self }
    }

    /// Sets about how many crashed disks are tried at most (default: 2,000), at evenly spaced points. Each
    /// costs opening a store and a call of the check.
    pub fn images_max(self, images: usize) -> Crash {
        Crash { images_max: images, ..self }
    }

    /// Tries only crashes after this operation, which the message of a failed run names.
    pub fn only_after(self, operation: usize) -> Crash {
        Crash { only_after: Some(operation), ..self }
    }

    /// Runs the work once, then calls the check for each crash.
    ///
    /// The check gets the store that was opened on the crashed disk, and all statements made before the
    /// crash, in order. It may work with the store: run reactors to their end, or repeat an append that was
    /// not acknowledged.
    ///
    /// # Panics
    ///
    /// If the work or a check panics, or a crashed store does not open. The message names the crash, and how
    /// to repeat it.
    pub fn run(&self, work: impl FnOnce(&Store, &Said), check: impl Fn(&Store, &[u64])) -> CrashReport {
        let disk = SimDisk::new(self.seed);
        let clock = Clock::new();
        let store = open(&disk, &clock).unwrap_or_else(|error| panic!("the store does not open: {error}"));
        work(&store, &Said { disk: disk.clone() });
        drop(store);
        let trace = disk.trace();
        let mut images = 0;
        for (point, mode) in self.crashes(trace.len()) {
            let checked = catch_unwind(AssertUnwindSafe(|| check_one(&trace, point, mode, &clock, &check)));
            let failure = checked.unwrap_or_else(|panic| {
                Some(text::of_panic(panic.as_ref()).unwrap_or("the check panicked").to_owned())
            });
            if let Some(failure) = failure {
                let all = trace.len();
                let seed = self.seed;
                panic!(
                    "after a crash behind operation {point} of {all} ({mode:?}): {failure}\n\
                     see it again with Crash::new({seed}).only_after({point})"
                );
            }
            images += 1;
        }
        CrashReport { operations: trace.len(), images }
    }

    /// The points and kinds of crashes to try. If there are too many, each kind is tried at other points.
    fn crashes(&self, operations: usize) -> impl Iterator<Item = (usize, CrashMode)> {
        let torn = (0..self.torn_per_point).map(CrashMode::Torn);
        let modes: Vec<CrashMode> = [CrashMode::Keep, CrashMode::Drop].into_iter().chain(torn).collect();
        let points_max = (self.images_max / modes.len()).max(1);
        let step = (operations + 1).div_ceil(points_max);
        let only = self.only_after;
        let step = if only.is_some() { 1 } else { step };
        modes.into_iter().enumerate().flat_map(move |(at, mode)| {
            let points = (at % step..=operations).step_by(step).map(move |point| (point, mode));
            points.filter(move |(point, _)| only.is_none_or(|only| only == *point))
        })
    }
}

/// Opens the store after one crash and calls the check. Returns the failure, unless the check panics.
fn check_one(
    trace: &Trace,
    point: usize,
    mode: CrashMode,
    clock: &Clock,
    check: &impl Fn(&Store, &[u64]),
) -> Option<String> {
    let said: Vec<u64> = trace.notes_before(point).collect();
    match open(&trace.image(point, mode), clock) {
        Ok(store) => {
            check(&store, &said);
            None
        }
        Err(error) => Some(format!("the store does not open: {error}")),
    }
}

fn open(disk: &SimDisk, clock: &Clock) -> Result<Store, Error> {
    Store::on(disk.clone()).clock(clock.source()).open()
}
