//! What is done with each store: the same operations, on the same payload and state.

use std::ops::Range;
use std::path::Path;

use crate::peer::Failure;

/// Waits for the next reaction to be seen.
pub type Audits = Box<dyn FnMut() -> Result<(), Failure>>;

/// How a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// States are folded from the log every time.
    Uncached,
    /// With the crate's caches of states; a single append is durable when it is acknowledged.
    Cached,
    /// With the crate's caches of states; a single append is acknowledged before it is durable.
    CachedBuffered,
    /// A single append is durable when it is acknowledged.
    Synced,
    /// A single append is acknowledged before it is durable.
    Buffered,
}

/// How a reactor works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As the crate has it.
    Default,
    /// With at most this many reactions in flight, if the crate can.
    InFlight(usize),
}

/// A store of accounts with deposits.
pub trait Peer: Sized {
    type Reactor;
    /// What the crate's own defaults mean to a single append.
    const DEFAULT: Opening;

    fn open(directory: &Path, opening: Opening) -> Result<Self, Failure>;
    fn close(self) -> Result<(), Failure>;
    /// Appends deposits of 0, 1, 2 ... cents, as fast as it goes.
    fn fill(&self, account: &str, events: u64) -> Result<(), Failure>;
    /// Appends one deposit, and waits until it is acknowledged.
    fn deposit(&self, account: &str, cents: u64) -> Result<(), Failure>;
    /// The sum of an account's deposits, by the crate's own way of folding events into a state.
    fn balance(&self, account: &str) -> Result<u64, Failure>;
    /// Starts what answers each deposit with an event of its own.
    fn react(&self, pace: Pace) -> Result<Self::Reactor, Failure>;
    fn stop(reactor: Self::Reactor) -> Result<(), Failure>;
    /// Sees the reactions that come from now on.
    fn audits(&self) -> Audits;
}

/// `events` events in batches of 256, the largest that batpak takes.
pub fn batches(events: u64) -> impl Iterator<Item = Range<u64>> {
    (0..events).step_by(256).map(move |first| first..events.min(first + 256))
}
