//! Having less in a store: which events go, and small segments become larger ones.
//!
//! Row: app. Tested by tests/it/compact.rs.

use std::ops::ControlFlow;
use std::time::Duration;

use crate::event::RecordedEvent;
use crate::maintenance::{GroupBy, Leaves, Rules, Task, Tell, Throttle, Watcher};
use crate::read::reader;
use crate::store::{Builder, Policy, Store};
use crate::types::{Compacted, CompactionPlan, Error, Position, Query, RewriteProgress, options, system};

/// What is to go from a store, and how; see [`Store::compaction`].
///
/// What is said of events adds up: an event goes if all of it applies to it. Never go: the store's own events, the
/// last event of a stream and appends whose idempotency key may still be asked for (of these two payload and metadata go, and
/// the rest stays), and any event of an append of which another one stays (the same).
#[must_use = "a compaction does nothing until it is run"]
pub struct Compaction<'a> {
    store: &'a Store,
    reason: &'a str,
    rules: Rules<'a>,
    merge: Option<u64>,
    worth: u8,
    rate_max: Option<u64>,
    heeds: Heeds,
    tell: Option<Tell<'a>>,
}

/// Whether consumers keep what they have not handled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heeds {
    Consumers,
    Nobody,
}

impl Store {
    /// Begins to say what is needed no more. The reason is recorded.
    ///
    /// Positions, versions, ids, heads and the chain stay as they are; positions of events that are gone stay empty, and an
    /// attestation in their place says how many they were, why they went and who had them go. Segments are written anew one after
    /// the other, beside appends and reads; each is checked before it takes the place of the old one, and a stop at any moment
    /// leaves the old or the new one. The disk needs room for one segment more. States folded before are folded again, from what is left.
    ///
    /// ```
    /// use annals::{Per, Query, Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// for celsius in 0..100 {
    ///     store.append("sensor:1", &Raw("sensor.measured", &celsius))?;
    /// }
    /// let old = || store.compaction("ten are enough").remove(Query::all().kind("sensor.measured")).keep_newest(10, GroupBy::Entity);
    /// let done = old().run()?;
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
            heeds: Heeds::Consumers,
            tell: None,
        }
    }
}

impl Builder {
    /// Compacts by itself while the store is open for writing, again and again, what `policy` says: it is given a [`Compaction`] and shapes it, as if by hand
    /// (default: nothing goes by itself). Said several times: several policies, which take turns. The reason is recorded.
    ///
    /// The first run begins `every` after opening, each further one `every` after the last has ended. It takes what is sealed by then, so that looking leaves no small
    /// segments: an event goes once its segment is full ([`Builder::segment_bytes_max`]), or after a run by hand. Each run reads all that is sealed:
    /// let it be seldom, and give it a pace ([`Compaction::bytes_per_second`]) and a threshold ([`Compaction::worth`]). If nothing is to go nothing is written.
    ///
    /// What it did stands in [`Stats::compactions`](crate::Stats::compactions), an error, too, which is logged and tried again in the next turn: a consumer that has not handled what
    /// would go, a full disk, damage. If somebody rewrites segments just then, its turn is the next one. Closing the store breaks a run off; what it did by then stays.
    /// `policy` and what it gives run on a thread of the store, and must not keep a clone of the [`Store`], which would never close. One that panics is not run again.
    ///
    /// ```
    /// use std::time::Duration;
    /// use annals::{Per, Query, Store, disk::MemDisk};
    ///
    /// const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    /// let store = Store::on(MemDisk::new())
    ///     .compact_every(DAY, "measurements are kept for a month", |compaction| {
    ///         compaction
    ///             .remove(Query::all().kind("sensor.measured"))
    ///             .older_than(30 * DAY)
    ///             .worth(20)
    ///             .bytes_per_second(10 << 20)
    ///     })
    ///     .compact_every(7 * DAY, "fewer, larger segments", |compaction| compaction.replaced_checkpoints().merge())
    ///     .open()?;
    /// assert_eq!(store.stats().compactions.len(), 2);
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn compact_every(
        self,
        every: Duration,
        reason: impl Into<String>,
        policy: impl for<'a> Fn(Compaction<'a>) -> Compaction<'a> + Send + Sync + 'static,
    ) -> Builder {
        let reason = reason.into();
        let of_run = reason.clone();
        let run = move |store: &Store| policy(store.compaction(&of_run)).run_beside();
        self.with_policy(Policy::new(every, reason, Box::new(run)))
    }
}

impl<'a> Compaction<'a> {
    /// Events that match go. Said several times: those that match any.
    pub fn remove(mut self, query: Query) -> Compaction<'a> {
        self.rules.query = Some(match self.rules.query {
            Some(before) => before.or(query),
            None => query,
        });
        self
    }

    /// Events for which this holds go. It is asked twice for each event that everything else applies to, and must answer the
    /// same; costs a copy of the append.
    pub fn remove_if(mut self, goes: impl FnMut(&RecordedEvent) -> bool + 'a) -> Compaction<'a> {
        self.rules.predicate = Some(Box::new(goes));
        self
    }

    /// Events go that were recorded longer ago than this, by the store's clock.
    pub fn older_than(mut self, age: Duration) -> Compaction<'a> {
        let now = options::read(&self.store.engine().options.clock);
        let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        self.rules.recorded_before = Some(now.saturating_sub(age));
        self
    }

    /// Events go that stand before this position.
    pub fn before(mut self, position: Position) -> Compaction<'a> {
        self.rules.before = Some(position);
        self
    }

    /// Events go that are not among the newest so many of their entity, kind or scope.
    pub fn keep_newest(mut self, events: u64, per: GroupBy) -> Compaction<'a> {
        self.rules.newest.push((events, per));
        self
    }

    /// Of what goes everything but payload and metadata stays, as if it were erased: order, kinds and causes (default: nothing
    /// stays). Saves less, and leaves no gaps.
    pub fn tombstones(mut self) -> Compaction<'a> {
        self.rules.leaves = Leaves::Tombstone;
        self
    }

    /// Acknowledgements of consumers go once there are later ones (default: they stay). A consumer that acknowledges all the time
    /// leaves many.
    pub fn replaced_checkpoints(mut self) -> Compaction<'a> {
        self.rules.replaced = Some(system::consumer::ACKED);
        self
    }

    /// Small segments that follow one another become larger ones, up to
    /// [`Builder::segment_bytes_max`](crate::Builder::segment_bytes_max) (default: they stay as they are). Fewer segments are
    /// fewer indexes to be asked.
    pub fn merge(mut self) -> Compaction<'a> {
        self.merge = Some(self.store.engine().options.segment_bytes_max.into());
        self
    }

    /// Leaves segments as they are of which less than so much would go, in percent of their bytes (default: 0, each is rewritten of which
    /// anything goes). A segment is written anew as a whole, so without this a single event costs up to 64 MiB. What is left goes once
    /// there is more to go with it: the more this says, the longer events stay.
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

    /// Reads no more than this in a second, so that others have the disk (default: no limit). About as much is written.
    pub fn bytes_per_second(mut self, bytes: u64) -> Compaction<'a> {
        self.rate_max = Some(bytes.max(1));
        self
    }

    /// Has events go that consumers and reactors ask for and have not handled (default: refused). They miss them.
    pub fn even_unhandled(mut self) -> Compaction<'a> {
        self.heeds = Heeds::Nobody;
        self
    }

    /// Tells how far it is, about every megabyte and at each segment, twice from the beginning: while it looks, and while it writes. To break it off
    /// is [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled); what was done by then stays, and is whole. `tell` must not erase or compact.
    pub fn on_progress(
        mut self,
        tell: impl FnMut(&RewriteProgress) -> ControlFlow<()> + 'a,
    ) -> Compaction<'a> {
        self.tell = Some(Box::new(tell));
        self
    }

    /// What would go of what is sealed by now, by kind and by scope; changes nothing. Reads everything. (To run it
    /// also seals what is being written.)
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
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled), [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt): what is damaged is not
    /// compacted; those of reading, and of a store that takes no appends.
    pub fn dry_run(self) -> Result<CompactionPlan, Error> {
        self.task(Heeds::Consumers)?.plan()
    }

    /// Has it go.
    ///
    /// # Errors
    ///
    /// As [`Compaction::dry_run`], and
    /// - [`ErrorKind::Invalid`](crate::ErrorKind::Invalid): a consumer has not handled some of it; nothing was changed.
    /// - [`ErrorKind::NoSpace`](crate::ErrorKind::NoSpace): no room for one segment more. What was done by then stays.
    pub fn run(self) -> Result<Compacted, Error> {
        let heeds = self.heeds;
        self.task(heeds)?.run()
    }

    /// Has it go from what is sealed by now, unless somebody else rewrites segments: then `None`. A closing store breaks it off.
    fn run_beside(mut self) -> Result<Option<Compacted>, Error> {
        let (heeds, rewriter) = (self.heeds, self.store.engine().rewrite_thread.clone());
        let mut asked = self.tell.take();
        self.tell = Some(Box::new(move |progress| {
            rewriter.go_on()?;
            asked.as_mut().map_or(ControlFlow::Continue(()), |tell| tell(progress))
        }));
        self.task(heeds)?.run_beside()
    }

    fn task(self, heeds: Heeds) -> Result<Task<'a>, Error> {
        let Compaction { store, reason, rules, merge, worth, rate_max, tell, .. } = self;
        let watchers = match heeds {
            Heeds::Nobody => Vec::new(),
            Heeds::Consumers => watchers(store)?,
        };
        Ok(Task {
            engine: store.engine(),
            rules,
            watchers,
            merge_up_to: merge,
            worth,
            reason,
            pace: Throttle::new(tell, rate_max),
            head: Position::START,
        })
    }
}

/// The consumers that ever ran, and how far they are.
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
