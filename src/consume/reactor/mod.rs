//! Reactors: one thread a name, which turns events into events, each exactly once.
//!
//! An event's outputs and the checkpoint behind it are one append (`run.rs`), so a crash leaves both or neither.
//! Row: app.

mod lanes;
mod partitioned;
mod reaction;
mod retry;
mod run;
mod worker;

use std::sync::Arc;

use crate::consume::consumer::{ConsumerCheckpoint, Feed};
use crate::event::RecordedEvent;
use crate::store::Store;
use crate::types::{Error, Query};

use lanes::Lanes;
use partitioned::Partitioned;
pub use reaction::Reaction;
pub use retry::Retry;
use run::Run;
use worker::{Outcome, start};
pub use worker::{StopReason, Worker};

/// What a handler fails with: any error.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What handles the events of a partitioned consumer.
type Handler = dyn Fn(&RecordedEvent) -> Result<(), Failure> + Send + Sync;

/// Turns an event into what it brings about; every closure with this signature is one.
///
/// It is called on its own thread, for one event after the other in order of position, and may read the store
/// ([`Reaction::store`]). **The events it adds to the reaction go in exactly once**, whatever happens: they are one append
/// with the note that the event was handled. What else it does (a mail, a request) happens at least
/// once: it is done again if the process ends between it and the append, or if the append meets others and has to
/// be decided anew. Give such effects an identity that does not change, the event's id for one.
pub trait Reactor: Send + 'static {
    /// Handles an event.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from being handled. Nothing of the reaction is written then; the event is tried again
    /// ([`Retry`]), and in the end the consumer is halted there, durably, with this error. A panic is the same: the
    /// reactor is called again as it is, so what it keeps must not be half changed when it panics.
    fn react(
        &mut self,
        event: &RecordedEvent,
        reaction: &mut Reaction<'_>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

impl<F> Reactor for F
where
    F: FnMut(&RecordedEvent, &mut Reaction<'_>) -> Result<(), Failure> + Send + 'static,
{
    fn react(&mut self, event: &RecordedEvent, reaction: &mut Reaction<'_>) -> Result<(), Failure> {
        self(event, reaction)
    }
}

impl Store {
    /// Starts a reactor under a name, on a thread of its own: first for the events that are there, then for
    /// those that come, from where the name left off. [`Store::worker`] has more to say about how.
    ///
    /// The thread ends when the store is closed or its last handle dropped, and keeps it open for no longer.
    /// (A handle of the store that the reactor itself captured does; use [`Reaction::store`].) It never holds up the
    /// store, whatever the reactor does.
    ///
    /// ```
    /// use annals::{Query, Raw, Reaction, RecordedEvent, Store, StopReason};
    /// # use std::time::Duration;
    ///
    /// let store = Store::in_memory()?;
    /// let billing = store.react("billing", Query::all().kind("order.placed"), bill)?;
    ///
    /// fn bill(
    ///     order: &RecordedEvent,
    ///     reaction: &mut Reaction<'_>,
    /// ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    ///     let cents: u32 = order.decode()?;
    ///     reaction.append("payment:1", &Raw("payment.requested", &cents));
    ///     Ok(())
    /// }
    ///
    /// let order = store.append("order:1", &Raw("order.placed", &1200))?;
    /// assert!(store.wait_for("billing", order.position(), Duration::from_secs(10))?);
    /// let payment = store.stream("payment:1").next().unwrap()?;
    /// assert_eq!(payment.correlation(), order.id());
    /// assert!(matches!(billing.stop(), StopReason::Stopped));
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Store::consumer`]; [`ErrorKind::Io`](crate::ErrorKind::Io) if there is no thread to be had.
    pub fn react(&self, name: &str, query: Query, reactor: impl Reactor) -> Result<Worker, Error> {
        self.worker(name, query).react(reactor)
    }

    /// Starts a consumer under a name that handles events on several threads: those of one entity on one thread, in
    /// order of position; those of different entities side by side.
    ///
    /// One checkpoint lies before the first event that is not handled. So events come at least once: after a crash,
    /// a halt or a stop, up to 4,096 that were handled behind it come again. A handler that fails or
    /// panics is called again ([`Retry`]) while the other threads go on; in the end the consumer is halted at that event, durably, once
    /// everything before it was handled.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    /// use std::sync::Arc;
    /// use std::time::Duration;
    /// use annals::{Query, Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// let total = Arc::new(AtomicU64::new(0));
    /// let sum = total.clone();
    /// store.consume_partitioned("totals", Query::all(), 4, move |deposited| {
    ///     sum.fetch_add(deposited.decode::<u64>()?, Relaxed);
    ///     Ok(())
    /// })?;
    /// for account in 0..10 {
    ///     store.append(format!("account:{account}"), &Raw("account.deposited", &account))?;
    /// }
    /// assert!(store.wait_for("totals", store.head()?.position(), Duration::from_secs(10))?);
    /// assert_eq!(total.load(Relaxed), 45);
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Store::react`].
    pub fn consume_partitioned(
        &self,
        name: &str,
        query: Query,
        threads: usize,
        handler: impl Fn(&RecordedEvent) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
        + Send
        + Sync
        + 'static,
    ) -> Result<Worker, Error> {
        self.worker(name, query).consume_partitioned(threads, handler)
    }

    /// Says how a reactor or a partitioned consumer of this name is to work, before it is started.
    pub fn worker(&self, name: &str, query: Query) -> WorkerBuilder {
        WorkerBuilder {
            store: self.clone(),
            name: name.to_owned(),
            query,
            begins: Begins::AtTheBeginning,
            options: Options {
                retry: Retry::default(),
                own: Own::PassedOver,
                depth_max: DEPTH_MAX,
                in_flight_max: 1,
            },
        }
    }
}

/// The longest chain of reactions, unless said otherwise.
const DEPTH_MAX: u32 = 64;

/// How a reactor or a partitioned consumer works: see [`Store::worker`].
///
/// ```
/// use std::time::Duration;
/// use annals::{Query, Raw, Reaction, RecordedEvent, Retry, Store};
///
/// let store = Store::in_memory()?;
/// let mails = store
///     .worker("mails", Query::all().kind("order.placed"))
///     .only_new()
///     .retry(Retry { attempts: 20, ..Retry::default() })
///     .react(|order: &RecordedEvent, _: &mut Reaction<'_>| {
///         println!("mail about {}", order.entity());
///         Ok(())
///     })?;
/// # mails.stop();
/// # Ok::<(), annals::Error>(())
/// ```
#[must_use = "nothing works until it is started"]
#[derive(Debug)]
pub struct WorkerBuilder {
    store: Store,
    name: String,
    query: Query,
    begins: Begins,
    options: Options,
}

/// Where a new name begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begins {
    AtTheBeginning,
    AtTheHead,
}

/// What becomes of events that the reactor itself has brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    PassedOver,
    ReactedTo,
}

#[derive(Clone, Copy, Debug)]
struct Options {
    retry: Retry,
    own: Own,
    depth_max: u32,
    in_flight_max: usize,
}

impl WorkerBuilder {
    /// A new name begins behind what is there now (default: at the beginning). A name that has handled anything, or was
    /// moved, goes on from there either way.
    pub fn only_new(self) -> WorkerBuilder {
        WorkerBuilder { begins: Begins::AtTheHead, ..self }
    }

    /// How often and how soon an event is tried again (default: [`Retry::default`]).
    pub fn retry(mut self, retry: Retry) -> WorkerBuilder {
        self.options.retry = retry;
        self
    }

    /// Reacts also to what it has brought about itself (default: passed over). [`WorkerBuilder::depth_max`] ends what
    /// would go on for ever.
    pub fn react_to_own(mut self) -> WorkerBuilder {
        self.options.own = Own::ReactedTo;
        self
    }

    /// How many reactions may follow from one another (default: 64). One more halts the reactor that would add it: two
    /// reactors that answer each other are a mistake, and would fill the disk.
    pub fn depth_max(mut self, reactions: u32) -> WorkerBuilder {
        self.options.depth_max = reactions;
        self
    }

    /// How many reactions may be on their way to the disk at once (default: 1; 0 is taken for 1). With more, syncs are
    /// shared and throughput is many times as high; but the reactor is called for an event when what earlier ones
    /// brought about may not be readable yet, and again, in order, for all that were on their way when one of them
    /// did not go in. Exactly once holds either way.
    pub fn in_flight_max(mut self, reactions: usize) -> WorkerBuilder {
        self.options.in_flight_max = reactions.max(1);
        self
    }

    /// Starts a reactor.
    ///
    /// # Errors
    ///
    /// As [`Store::react`].
    pub fn react(self, reactor: impl Reactor) -> Result<Worker, Error> {
        let (checkpoint, feed) = self.begin()?;
        let outcome = Arc::<Outcome>::default();
        let live = checkpoint.live().clone();
        let run = Run::new(&self.store, checkpoint, feed, reactor, self.options, outcome.clone());
        start(&self.store, &self.name, &live, outcome, run, Run::run)
    }

    /// Starts a partitioned consumer; 0 threads are taken for 1. Of what is set here only [`WorkerBuilder::only_new`]
    /// and [`WorkerBuilder::retry`] concern it.
    ///
    /// # Errors
    ///
    /// As [`Store::react`].
    pub fn consume_partitioned(
        self,
        threads: usize,
        handler: impl Fn(&RecordedEvent) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
        + Send
        + Sync
        + 'static,
    ) -> Result<Worker, Error> {
        let (checkpoint, feed) = self.begin()?;
        let outcome = Arc::<Outcome>::default();
        let live = checkpoint.live().clone();
        let retry = self.options.retry;
        let lanes = Lanes::start(&self.name, threads.max(1), retry, &live, &outcome, handler)?;
        let work = Partitioned::new(&self.store, checkpoint, feed, lanes, outcome.clone());
        start(&self.store, &self.name, &live, outcome, work, Partitioned::run)
    }

    fn begin(&self) -> Result<(ConsumerCheckpoint, Feed), Error> {
        let mut checkpoint = ConsumerCheckpoint::take(&self.store, &self.name, &self.query)?;
        if self.begins == Begins::AtTheHead {
            checkpoint.only_new(&self.store)?;
        }
        let feed = Feed::new(&self.store, self.query.clone(), checkpoint.handled(), checkpoint.live());
        Ok((checkpoint, feed))
    }
}
