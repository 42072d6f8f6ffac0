//! What is done with each store: the same operations, on the same events, with the same promise.

use std::collections::VecDeque;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use crate::sample::Order;

/// Why a measurement stopped: an error of a store, of a file, or of a child process.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
/// What a peer may be unable to do at all; it says so with `None`.
pub type Can<T> = Result<Option<T>, Failure>;

/// How long a follower waits for an event before it gives up.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Appends that are on their way at once, from one thread that does not wait for each.
pub const WINDOW: usize = 10_000;

/// How a store is opened. What a peer cannot promise is not measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// An append is acknowledged after a sync (fdatasync or fsync) that covers it, and not before.
    Synced,
    /// An append may be acknowledged before that; kill -9 still must not lose it.
    Buffered,
    /// In whichever way filling, and then reading, is fastest; nothing is durable before `sync`.
    Filled,
    /// As `Filled`, and states are folded from the log every time.
    Uncached,
    /// As `Filled`, with the peer's cache of states if it has one.
    Cached,
}

/// What is done with each event that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Every byte of the payload is looked at.
    Raw,
    /// The payload is decoded into an [`Order`] with texts of its own.
    Decoded,
}

/// What was seen. The cells check it: a peer that skips events is not fast, but wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub events: u64,
    /// Of payloads that were looked at raw.
    pub bytes: u64,
    /// Of orders that were decoded.
    pub cents: u64,
}

impl Tally {
    /// Looks at an event's payload.
    pub fn look(&mut self, look: Look, payload: &[u8]) -> Result<(), Failure> {
        match look {
            Look::Raw => self.raw(payload),
            Look::Decoded => self.decoded(rmp_serde::from_slice(payload)?),
        }
        Ok(())
    }

    pub fn raw(&mut self, payload: &[u8]) {
        black_box(payload.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)));
        self.events += 1;
        self.bytes += u64::try_from(payload.len()).expect("it is in memory");
    }

    pub fn decoded(&mut self, order: Order) {
        let order = black_box(order);
        self.events += 1;
        self.cents += order.cents;
    }
}

/// An event's id, or its position where a peer has no ids.
pub type Id = u128;
/// Waits until the next event is there; `false` after [`PATIENCE`].
pub type Follower = Box<dyn FnMut() -> Result<bool, Failure> + Send>;

/// A store of events.
pub trait Peer: Sync {
    /// Appends one event, and waits for what [`Opening`] promises.
    fn append(&self, entity: &str, order: &Order) -> Result<(), Failure>;

    /// Appends several events as one atomic unit.
    fn append_batch(&self, batch: &[(&str, &Order)]) -> Result<(), Failure>;

    /// Appends without waiting for each acknowledgement.
    fn pipeline(&self) -> Can<Box<dyn Pipeline + '_>> {
        Ok(None)
    }

    /// Waits until everything that was appended is durable.
    fn sync(&self) -> Result<(), Failure>;

    /// Reads all events, in the order in which they were appended.
    fn replay(&self, _look: Look) -> Can<Tally> {
        Ok(None)
    }

    /// Reads the events of one entity, in order.
    fn stream(&self, _entity: &str, _look: Look) -> Can<Tally> {
        Ok(None)
    }

    /// The ids of `count` different events, spread over a store of `events`, in no visible order.
    fn ids(&self, _count: u64, _events: u64) -> Can<Vec<Id>> {
        Ok(None)
    }

    /// Reads one event, and looks at its payload raw.
    fn get(&self, _id: Id) -> Can<Tally> {
        Ok(None)
    }

    /// Follows all events from now on.
    fn follow(&self) -> Can<Follower> {
        Ok(None)
    }

    /// What an entity's orders are worth, by the peer's own way of folding events into a state;
    /// by hand if it has none.
    fn total(&self, entity: &str) -> Can<u64> {
        Ok(self.stream(entity, Look::Decoded)?.map(|tally| tally.cents))
    }

    fn close(self: Box<Self>) -> Result<(), Failure>;
}

/// Appends on their way, at most [`WINDOW`] of them.
pub trait Pipeline {
    /// Hands an append over; waits for the oldest one if too many are on their way.
    fn submit(&mut self, entity: &str, order: &Order) -> Result<(), Failure>;
    /// Waits for all.
    fn land(&mut self) -> Result<(), Failure>;
}

/// A pipeline of tickets: what hands an event over for one, and what waits for one.
pub struct Tickets<T, S, W> {
    tickets: VecDeque<T>,
    submit: S,
    wait: W,
}

impl<T, S, W> Tickets<T, S, W>
where
    S: FnMut(&str, &Order) -> Result<T, Failure>,
    W: FnMut(T) -> Result<(), Failure>,
{
    pub fn new(submit: S, wait: W) -> Tickets<T, S, W> {
        Tickets { tickets: VecDeque::with_capacity(WINDOW), submit, wait }
    }
}

impl<T, S, W> Pipeline for Tickets<T, S, W>
where
    S: FnMut(&str, &Order) -> Result<T, Failure>,
    W: FnMut(T) -> Result<(), Failure>,
{
    fn submit(&mut self, entity: &str, order: &Order) -> Result<(), Failure> {
        if self.tickets.len() == WINDOW
            && let Some(oldest) = self.tickets.pop_front()
        {
            (self.wait)(oldest)?;
        }
        self.tickets.push_back((self.submit)(entity, order)?);
        Ok(())
    }

    fn land(&mut self) -> Result<(), Failure> {
        self.tickets.drain(..).try_for_each(&mut self.wait)
    }
}

/// What a peer is, to be compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Ours,
    EventStore,
    /// A database with an event table made by hand.
    Database,
    /// A bare log, which shows what is left to have.
    Ceiling,
}

type Open = fn(&Path, Opening) -> Can<Box<dyn Peer>>;

/// A peer that can be opened.
pub struct Kind {
    pub name: &'static str,
    /// Under which cargo knows it.
    pub package: &'static str,
    pub class: Class,
    /// Whether what it stores can be read again; a bare log's cannot, here.
    pub is_readable: bool,
    /// `None` if it cannot promise what is asked for.
    pub open: Open,
    /// Whether it folds states itself, and keeps them.
    pub keeps_states: bool,
}

impl PartialEq for Kind {
    fn eq(&self, other: &Kind) -> bool {
        self.name == other.name
    }
}
