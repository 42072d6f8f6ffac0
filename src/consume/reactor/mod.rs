//! Reactors and partitioned consumers: threads that handle the events behind a consumer's checkpoint.
//!
//! `runner` is the loop of such a thread. `serial` (a reactor) and `partitioned` say what it does with an
//! event. The outputs of a reactor and the checkpoint are one append, so a crash leaves both or neither.

mod partitioned;
mod runner;
mod serial;
mod worker;

use crate::consume::consumer::{ConsumerCheckpoint, PendingEvents};
use crate::event::RecordedEvent;
use crate::store::Store;
use crate::types::{Error, Query};

use partitioned::{Lanes, PartitionedProcessor};
pub use runner::Retry;
use runner::{ConsumerRunner, start};
use serial::{OwnEvents, ReactorOptions, SerialProcessor};
pub use serial::{Reaction, Reactor};
pub use worker::{StopReason, Worker};

impl Store {
    /// Starts a reactor under a name, on a thread of its own: for the events behind the name's checkpoint,
    /// and then for each new one. [`Store::worker`] sets options.
    ///
    /// The thread ends when the store is closed or its last handle is dropped. It keeps the store open no
    /// longer than that, unless the reactor has captured a handle of the store; use [`Reaction::store`]
    /// instead. A slow reactor never holds up the store.
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
    /// Those of [`Store::consumer`]; [`ErrorKind::Io`](crate::ErrorKind::Io) if the operating system refuses
    /// a thread.
    pub fn react(&self, name: &str, query: Query, reactor: impl Reactor) -> Result<Worker, Error> {
        self.worker(name, query).react(reactor)
    }

    /// Starts a consumer under a name that handles events on several threads. The events of one entity are
    /// handled on one thread, in order of position; different entities side by side.
    ///
    /// The one checkpoint is before the first event that is not handled. So each event is handled at least
    /// once: after a crash, a halt or a stop, up to 4,096 events come again. A handler that fails or panics
    /// is called again ([`Retry`]) while the other threads continue. After the last attempt the consumer is
    /// halted at that event, durably, once all events before it are handled.
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
    /// Those of [`Store::react`].
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

    /// Sets the options of a reactor or a partitioned consumer before it is started.
    pub fn worker(&self, name: &str, query: Query) -> WorkerBuilder {
        WorkerBuilder {
            store: self.clone(),
            name: name.to_owned(),
            query,
            is_only_new: false,
            options: ReactorOptions {
                retry: Retry::default(),
                own_events: OwnEvents::Ignored,
                depth_max: DEPTH_MAX,
                in_flight_max: 1,
            },
        }
    }
}

/// The default of [`WorkerBuilder::depth_max`].
const DEPTH_MAX: u32 = 64;

/// The options of a reactor or a partitioned consumer: see [`Store::worker`].
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
#[must_use = "nothing runs until a reactor or a handler is given"]
#[derive(Debug)]
pub struct WorkerBuilder {
    store: Store,
    name: String,
    query: Query,
    is_only_new: bool,
    options: ReactorOptions,
}

impl WorkerBuilder {
    /// A new name begins behind the durable head of this moment (default: at the beginning). A name that has
    /// handled an event, or was moved, continues from its checkpoint either way.
    pub fn only_new(self) -> WorkerBuilder {
        WorkerBuilder { is_only_new: true, ..self }
    }

    /// How often and how soon a failed event is tried again (default: [`Retry::default`]).
    pub fn retry(mut self, retry: Retry) -> WorkerBuilder {
        self.options.retry = retry;
        self
    }

    /// The reactor also handles events of its own reactions (default: it ignores them).
    /// [`WorkerBuilder::depth_max`] ends an endless chain. An event that the reactor appends directly to the
    /// store is no reaction, and is handled in any case.
    pub fn react_to_own(mut self) -> WorkerBuilder {
        self.options.own_events = OwnEvents::Handled;
        self
    }

    /// How many reactions may follow from one another (default: 64).
    ///
    /// One more halts the reactor that would add it, without another attempt. Two reactors that answer each
    /// other are a mistake, and would fill the disk.
    pub fn depth_max(mut self, reactions: u32) -> WorkerBuilder {
        self.options.depth_max = reactions;
        self
    }

    /// How many reactions may be on their way to the disk at once (default: 1; 0 counts as 1).
    ///
    /// With more, reactions share syncs, and throughput is many times as high. But the reactor is then called
    /// while the outputs of earlier events may not be readable yet. And if one reaction is refused, the
    /// reactor is called again, in order, for all events that were on their way. Exactly once holds either
    /// way.
    pub fn in_flight_max(mut self, reactions: usize) -> WorkerBuilder {
        self.options.in_flight_max = reactions.max(1);
        self
    }

    /// Starts a reactor.
    ///
    /// # Errors
    ///
    /// Those of [`Store::react`].
    pub fn react(self, reactor: impl Reactor) -> Result<Worker, Error> {
        start(self.take_name()?, SerialProcessor::new(reactor, self.options), &[])
    }

    /// Starts a partitioned consumer; 0 threads count as 1. Of the options only [`WorkerBuilder::only_new`]
    /// and [`WorkerBuilder::retry`] apply to it.
    ///
    /// # Errors
    ///
    /// Those of [`Store::react`].
    pub fn consume_partitioned(
        self,
        threads: usize,
        handler: impl Fn(&RecordedEvent) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
        + Send
        + Sync
        + 'static,
    ) -> Result<Worker, Error> {
        let runner = self.take_name()?;
        let state = runner.checkpoint.live();
        let lanes = Lanes::start(&self.name, threads.max(1), self.options.retry, state, handler)?;
        let helpers = lanes.threads().to_vec();
        start(runner, PartitionedProcessor::new(lanes), &helpers)
    }

    fn take_name(&self) -> Result<ConsumerRunner, Error> {
        let mut checkpoint = ConsumerCheckpoint::take(&self.store, &self.name, &self.query)?;
        if self.is_only_new {
            checkpoint.only_new(&self.store)?;
        }
        let events = PendingEvents::new(&self.store, self.query.clone(), &checkpoint);
        Ok(ConsumerRunner::new(&self.store, checkpoint, events))
    }
}
