//! Compaction: the public builder, and policies that compact by themselves.
//!
//! The rules themselves are in `maintenance/compact`. Tested by tests/it/compact.rs and tests/it/policies.rs.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use crate::event::RecordedEvent;
use crate::maintenance::{CompactionTask, GroupBy, OnProgress, Remainder, RewriteThrottle, Rules, Watcher};
use crate::read::reader;
use crate::types::{
    Compacted, CompactionPlan, CompactionStats, Error, Position, Query, RewriteProgress, options, system,
    time_of,
};

use super::Store;

/// Which events go from a store, and how; see [`Store::compaction`].
///
/// Rules add up: an event goes if all of them name it. The store's own events never go. Three kinds of events
/// lose only payload and metadata:
///
/// - the last event of a stream;
/// - events of an append whose idempotency key is still recognised;
/// - events with an id of their own that another event of their append has as its correlation or cause.
#[must_use = "a compaction does nothing until it is run"]
pub struct Compaction<'a> {
    store: &'a Store,
    reason: &'a str,
    rules: Rules<'a>,
    merge: Option<u64>,
    worth: u8,
    rate_max: Option<u64>,
    unhandled: UnhandledEvents,
    on_progress: Option<OnProgress<'a, RewriteProgress>>,
}

/// Whether events that a consumer has not handled stay.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UnhandledEvents {
    Stay,
    Go,
}

impl Store {
    /// Begins a compaction; nothing happens before [`Compaction::run`]. The reason is recorded.
    ///
    /// Positions, versions, ids, heads and the chain stay as they are. The positions of removed events stay
    /// empty. An attestation in their place says how many went, and names the event in `$ledger` that has
    /// operator, reason and rules. Where another event of the append stays, the hash of the record is left.
    /// Conditions and decisions see what is left.
    ///
    /// Segments are rewritten one after the other, beside appends and reads. Each is checked before it
    /// replaces the old one. A stop at any moment leaves the old segment or the new one. The disk needs room
    /// for one more segment. If there are rules, the live segment is sealed first. Saved states are folded
    /// again, from the events that are left.
    ///
    /// ```
    /// use annals::{GroupBy, Query, Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// for celsius in 0..100 {
    ///     store.append("sensor:1", &Raw("sensor.measured", &celsius))?;
    /// }
    /// let compaction = store.compaction("ten are enough").remove(Query::all().kind("sensor.measured"));
    /// let done = compaction.keep_newest(10, GroupBy::Entity).run()?;
    /// assert_eq!(done.removed, 90);
    /// assert_eq!(store.count(Query::entity("sensor:1"))?, 10);
    /// assert_eq!(store.version("sensor:1")?.get(), 100);
    /// assert!(store.verify()?.is_clean());
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn compaction<'a>(&'a self, reason: &'a str) -> Compaction<'a> {
        Compaction {
            store: self,
            reason,
            rules: Rules::default(),
            merge: None,
            worth: 0,
            rate_max: None,
            unhandled: UnhandledEvents::Stay,
            on_progress: None,
        }
    }
}

impl<'a> Compaction<'a> {
    /// Names events that match a query. Called several times: events that match any of them.
    pub fn remove(mut self, query: Query) -> Compaction<'a> {
        self.rules.query = Some(match self.rules.query {
            Some(before) => before.or(query),
            None => query,
        });
        self
    }

    /// Names events for which `goes` answers `true`. It is called twice for each event that all other rules
    /// name, and must give the same answer. Each call costs a copy of the append.
    pub fn remove_if(mut self, goes: impl FnMut(&RecordedEvent) -> bool + 'a) -> Compaction<'a> {
        self.rules.predicate = Some(Box::new(goes));
        self
    }

    /// Names events that were recorded longer ago than this, by the store's clock.
    pub fn older_than(mut self, age: Duration) -> Compaction<'a> {
        let now = options::read(&self.store.engine().options.clock);
        let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        self.rules.recorded_before = Some(now.saturating_sub(age));
        self
    }

    /// Names events before this position.
    pub fn before(mut self, position: Position) -> Compaction<'a> {
        self.rules.before = Some(position);
        self
    }

    /// Names events that are not among this many newest of their entity, kind or scope.
    pub fn keep_newest(mut self, events: u64, per: GroupBy) -> Compaction<'a> {
        self.rules.newest.push((events, per));
        self
    }

    /// Keeps everything but payload and metadata of the events that go, as erasing does (default: nothing is
    /// kept). Order, kinds and causes stay, and there are no gaps. Saves less space.
    pub fn tombstones(mut self) -> Compaction<'a> {
        self.rules.leaves = Remainder::Tombstone;
        self
    }

    /// Also removes acknowledgements of consumers that a later one replaces (default: they stay). A busy
    /// consumer leaves many.
    pub fn replaced_checkpoints(mut self) -> Compaction<'a> {
        self.rules.replaced = Some(system::consumer::ACKED);
        self
    }

    /// Merges neighbouring segments that have less than half of
    /// [`Builder::segment_bytes_max`](crate::Builder::segment_bytes_max) left each (default: not merged).
    /// Fewer segments mean fewer indexes to ask.
    pub fn merge(mut self) -> Compaction<'a> {
        self.merge = Some(self.store.engine().options.segment_bytes_max.into());
        self
    }

    /// Leaves a segment as it is if it would become shorter by less than this percentage. What is left of
    /// removed events counts. By default (0) every segment from which an event goes is rewritten, also if
    /// nothing is gained.
    ///
    /// A segment is rewritten as a whole, so without a threshold one event can cost 64 MiB of writing. Events
    /// of a segment that is left stay until more goes with them. They do not count, neither in a dry run nor
    /// as unhandled by a consumer. If such a segment is merged, its events still stay.
    ///
    /// ```
    /// use annals::{Query, Raw, Store, disk::MemDisk};
    ///
    /// let store = Store::on(MemDisk::new()).segment_bytes_max(2000).open()?;
    /// for n in 0..100 {
    ///     store.append(if n % 10 == 0 { "sensor:1" } else { "sensor:2" }, &Raw("sensor.measured", &n))?;
    /// }
    /// let plan = store.compaction("a tenth").remove(Query::entity("sensor:1")).worth(20).dry_run()?;
    /// assert_eq!(plan.removed, 0);
    /// let plan = store.compaction("nine tenths").remove(Query::entity("sensor:2")).worth(20).dry_run()?;
    /// assert!(plan.removed > 50);
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn worth(mut self, percent: u8) -> Compaction<'a> {
        self.worth = percent.min(100);
        self
    }

    /// Reads at most this many bytes a second (default: no limit). About as many are written.
    pub fn bytes_per_second(mut self, bytes: u64) -> Compaction<'a> {
        self.rate_max = Some(bytes.max(1));
        self
    }

    /// Removes events even if a consumer or reactor has not handled them (default: refused). It will miss
    /// them.
    pub fn even_unhandled(mut self) -> Compaction<'a> {
        self.unhandled = UnhandledEvents::Go;
        self
    }

    /// Reports progress about every megabyte and at each segment, first for the plan and then for rewriting.
    /// Breaking off is [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled); segments that were rewritten
    /// stay so. `tell` must not erase or compact.
    pub fn on_progress(
        mut self,
        tell: impl FnMut(&RewriteProgress) -> ControlFlow<()> + 'a,
    ) -> Compaction<'a> {
        self.on_progress = Some(Box::new(tell));
        self
    }

    /// Counts what would go from the segments that are sealed now, by kind and by scope, and what would come
    /// in its place. Changes nothing.
    /// Reads all sealed segments. ([`Compaction::run`] also seals the live segment.)
    ///
    /// ```
    /// use annals::{Query, Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// store.append("sensor:1", &Raw("sensor.measured", &20))?;
    /// let plan = store.compaction("a look").remove(Query::all()).dry_run()?;
    /// println!("{plan}");
    /// assert_eq!(plan.removed + plan.erased, 0, "nothing is sealed yet");
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled);
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), because a damaged segment is not compacted; those
    /// of reading, and of a store that takes no appends.
    pub fn dry_run(self) -> Result<CompactionPlan, Error> {
        self.task(UnhandledEvents::Stay)?.plan()
    }

    /// Removes the events.
    ///
    /// # Errors
    ///
    /// As [`Compaction::dry_run`], and
    /// - [`ErrorKind::Invalid`](crate::ErrorKind::Invalid): a consumer has not handled some of them; nothing
    ///   was changed.
    /// - [`ErrorKind::NoSpace`](crate::ErrorKind::NoSpace): no room for one more segment. What was rewritten
    ///   stays so.
    pub fn run(self) -> Result<Compacted, Error> {
        let unhandled = self.unhandled;
        self.task(unhandled)?.run()
    }

    /// Compacts the segments that are sealed now; `None` if segments are being rewritten already. Closing the
    /// store ends it.
    pub(super) fn run_beside(mut self) -> Result<Option<Compacted>, Error> {
        let unhandled = self.unhandled;
        let rewriter = self.store.engine().rewrite_thread.clone();
        let mut on_progress = self.on_progress.take();
        self.on_progress = Some(Box::new(move |progress| {
            rewriter.go_on()?;
            on_progress.as_mut().map_or(ControlFlow::Continue(()), |on_progress| on_progress(progress))
        }));
        self.task(unhandled)?.run_beside()
    }

    fn task(self, unhandled: UnhandledEvents) -> Result<CompactionTask<'a>, Error> {
        let Compaction { store, reason, rules, merge, worth, rate_max, on_progress, .. } = self;
        let watchers = match unhandled {
            UnhandledEvents::Go => Vec::new(),
            UnhandledEvents::Stay => watchers(store)?,
        };
        Ok(CompactionTask {
            engine: store.engine(),
            rules,
            watchers,
            merge_up_to: merge,
            worth,
            reason,
            throttle: RewriteThrottle::rewriting(on_progress, rate_max),
            head: Position::START,
        })
    }
}

/// The consumers that ever ran, and how far each is.
fn watchers(store: &Store) -> Result<Vec<Watcher>, Error> {
    let known = store
        .consumers()?
        .into_iter()
        .filter_map(|consumer| Some((consumer.name, consumer.position, consumer.query?)));
    let snapshot = store.engine().snapshot()?;
    let watcher = |(name, position, query)| {
        Ok(Watcher { name, position, query: reader::by_either_id(&snapshot, query)? })
    };
    known.map(watcher).collect()
}

/// One run of a policy; `None` if segments are being rewritten already.
pub(crate) type RunPolicy = Box<dyn Fn(&Store) -> Result<Option<Compacted>, Error> + Send + Sync>;

/// A compaction that runs periodically.
pub(super) struct Policy {
    every: Duration,
    reason: String,
    run: RunPolicy,
}

/// The least pause: without one a policy would keep a core busy.
const EVERY_LEAST: Duration = Duration::from_millis(1);
/// The longest pause: 100 years. Longer ones could overflow a clock.
const EVERY_MOST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

impl Policy {
    pub(crate) fn new(every: Duration, reason: String, run: RunPolicy) -> Policy {
        Policy { every: every.clamp(EVERY_LEAST, EVERY_MOST), reason, run }
    }

    fn run_once(&self, store: &Store, place: usize) {
        let core = &store.core;
        let ended = catch_unwind(AssertUnwindSafe(|| (self.run)(store))).unwrap_or_else(|panic| {
            if let Some(stats) = core.compactions.lock().get_mut(place) {
                stats.error = Some("it panicked, and is not run again".to_owned());
            }
            resume_unwind(panic)
        });
        if core.engine.rewrite_thread.go_on().is_break() {
            return;
        }
        let now = options::read(&core.engine.options.clock);
        let mut all = core.compactions.lock();
        let Some(stats) = all.get_mut(place) else { return };
        match ended {
            Ok(None) => return,
            Ok(Some(done)) => {
                stats.runs = stats.runs.saturating_add(1);
                stats.error = None;
                stats.removed = stats.removed.saturating_add(done.removed);
                stats.erased = stats.erased.saturating_add(done.erased);
                stats.last = Some(done);
            }
            Err(error) => {
                tracing::warn!(%error, reason = self.reason, "a compaction policy failed; its next run tries again");
                stats.error = Some(error.to_string());
            }
        }
        stats.ended_at = Some(time_of(i64::try_from(now).unwrap_or(i64::MAX)));
    }
}

impl Store {
    /// Schedules the policies. Without one, no thread is started.
    pub(super) fn follow(&self, policies: Vec<Policy>) {
        for (place, policy) in policies.into_iter().enumerate() {
            let stats = CompactionStats { reason: policy.reason.clone(), ..CompactionStats::default() };
            self.core.compactions.lock().push(stats);
            let store = self.downgrade();
            let every = policy.every;
            let turn = move || {
                policy.run_once(&store.upgrade()?, place);
                Some(every)
            };
            self.core.engine.rewrite_thread.run_in(every, Box::new(turn));
        }
    }
}
