//! Every option of a store, and the ways to open one.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::disk::{Allow, Disk, OsDisk};
use crate::engine::{Engine, load_to_read};
use crate::maintenance::salvage;
use crate::types::{Durability, Error, KeyWindow, Limits, OpenProgress, Options, RestartPolicy};

use super::Store;
use super::compaction::{Compaction, Policy};
use super::gate::{Gate, Gates};

pub(super) enum Location {
    Directory(PathBuf, Allow),
    Disk(Arc<dyn Disk>),
}

/// Options for opening a store. Every option has a default that suits most programs, and says what it trades.
///
/// ```
/// use std::time::Duration;
/// use annals::{Durability, Store};
///
/// let disk = annals::disk::MemDisk::new();
/// let store = Store::on(disk)
///     .durability(Durability::Buffered { flush_every: Duration::from_millis(100) })
///     .segment_bytes_max(16 << 20)
///     .open()?;
/// # Ok::<(), annals::Error>(())
/// ```
#[must_use = "a builder opens nothing until it is told to"]
pub struct Builder {
    place: Location,
    options: Options,
    gates: Gates,
    policies: Vec<Policy>,
}

impl Builder {
    pub(super) fn of_directory(path: &Path) -> Builder {
        Builder::of(Location::Directory(path.to_owned(), Allow::nothing()))
    }

    pub(super) fn of_disk(disk: Arc<dyn Disk>) -> Builder {
        Builder::of(Location::Disk(disk))
    }

    fn of(place: Location) -> Builder {
        Builder { place, options: Options::default(), gates: Gates::default(), policies: Vec::new() }
    }

    /// When appends are acknowledged, unless an append says otherwise (default: [`Durability::Synced`]).
    pub fn durability(mut self, durability: Durability) -> Builder {
        self.options.durability = durability;
        self
    }

    /// The largest sizes the store accepts (default: [`Limits::default`]).
    pub fn limits(mut self, limits: Limits) -> Builder {
        self.options.limits = limits;
        self
    }

    /// How far back idempotency keys are recognised (default: 1,048,576 positions). A new key costs its
    /// caller a look into the filter of each segment that far back, some 30 ns each. It takes 16 bytes in the
    /// log.
    pub fn key_window(mut self, window: KeyWindow) -> Builder {
        self.options.key_window = window;
        self
    }

    /// The size at which a segment file ends and the next begins (default: 64 MiB; at least one append, at
    /// most 1 GiB). Small segments make many files. Large ones make a damaged or torn one cost more.
    pub fn segment_bytes_max(mut self, bytes: u32) -> Builder {
        self.options.segment_bytes_max = bytes.min(1 << 30);
        self
    }

    /// How many bytes may be written but not synced (default: 32 MiB). This is also the size of the largest
    /// append. A segment keeps the value with which it was created. Damage further from the end than this is
    /// never taken for a torn tail.
    pub fn unsynced_bytes_max(mut self, bytes: u32) -> Builder {
        self.options.unsynced_bytes_max = bytes.into();
        self
    }

    /// How many appends share a sync at most (default: 1,024).
    pub fn group_commands_max(mut self, commands: usize) -> Builder {
        self.options.group_commands_max = commands.max(1);
        self
    }

    /// How many bytes share a sync at most (default: 4 MiB). A larger group delays its first append.
    pub fn group_bytes_max(mut self, bytes: usize) -> Builder {
        self.options.group_bytes_max = bytes;
        self
    }

    /// How many appends wait for the writer at most (default: 4,096).
    pub fn queue_commands_max(mut self, commands: usize) -> Builder {
        self.options.queue_commands_max = commands.max(1);
        self
    }

    /// How many bytes wait for the writer at most (default: 64 MiB). A single append may be larger.
    pub fn queue_bytes_max(mut self, bytes: usize) -> Builder {
        self.options.queue_bytes_max = bytes;
        self
    }

    /// How long an append waits for a place in the queue before it fails with
    /// [`ErrorKind::Busy`](crate::ErrorKind::Busy) (default: without limit).
    pub fn queue_deadline(mut self, deadline: Duration) -> Builder {
        self.options.queue_deadline = Some(deadline);
        self
    }

    /// How long [`Append::commit`](crate::Append::commit) waits for the acknowledgement before it fails with
    /// [`ErrorKind::CommitUnknown`](crate::ErrorKind::CommitUnknown) (default: without limit).
    pub fn ack_deadline(mut self, deadline: Duration) -> Builder {
        self.options.ack_deadline = Some(deadline);
        self
    }

    /// How often a full disk is tried again (default: 100 ms). In between, appends fail at once with
    /// [`ErrorKind::NoSpace`](crate::ErrorKind::NoSpace).
    pub fn space_probe_every(mut self, interval: Duration) -> Builder {
        self.options.space_probe_every = interval;
        self
    }

    /// The clock (default: [`SystemTime::now`]). It stamps recorded-at. Timers, ages, policies and
    /// [`Freshness::MaxStale`](crate::Freshness::MaxStale) compare with it. Waiting, deadlines and rates use
    /// the system's monotonic clock instead.
    ///
    /// It is called once per group of appends, on the thread that writes the group: mostly that of a caller
    /// of [`Append::commit`](crate::Append::commit), else the writer's. Timers, loads, consumers, maintenance
    /// and [`Store::stats`] call it on their own threads. So let it be quick and wait for nothing of this
    /// store. If it panics, it stands still.
    pub fn clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Builder {
        self.options.clock = Arc::new(clock);
        self
    }

    /// What to do if the writer thread panics (default: [`RestartPolicy::Never`]).
    pub fn restart(mut self, policy: RestartPolicy) -> Builder {
        self.options.restart = policy;
        self
    }

    /// Reports how far opening is, every 4,096 appends, on the opening thread; `tell` answers whether to go
    /// on (default: no reports). After a break, opening changes nothing and fails with
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use annals::{Store, disk::MemDisk};
    ///
    /// let store = Store::on(MemDisk::new())
    ///     .on_open_progress(|progress| {
    ///         let left = progress.remaining();
    ///         println!("{} of {} bytes, {left:?} left", progress.bytes, progress.bytes_total);
    ///         ControlFlow::Continue(())
    ///     })
    ///     .open()?;
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn on_open_progress(
        mut self,
        tell: impl Fn(&OpenProgress) -> ControlFlow<()> + Send + Sync + 'static,
    ) -> Builder {
        self.options.open_watcher = Some(Arc::new(tell));
        self
    }

    /// Adds a policy that judges every append before it is sent (default: none): see [`Gate`]. Gates are
    /// asked in the order in which they are added; the first denial counts. The name says who denied, and
    /// names the gate's stream (`$gate/<name>`): 1 to 255 bytes, used once. A gate costs time on the caller's
    /// thread.
    pub fn gate(mut self, name: impl Into<String>, gate: impl Gate) -> Builder {
        self.gates.add(name.into(), gate);
        self
    }

    /// Records every denial as an event (default: only the caller learns of it). The event is `$gate.denied`
    /// in the stream `$gate/<name>`, with the reason, and entity, scope and kind of the denied events, but
    /// never a payload. Each denial costs an append of its own, and is durable when the caller gets the
    /// error. If the record cannot be written, the append is still [`Denied`](crate::ErrorKind::Denied), and
    /// the error says so.
    ///
    /// ```
    /// use annals::{Denial, GateDecision, Proposed, Raw, Store, disk::MemDisk};
    ///
    /// fn closed(_: &Proposed<'_>, _: &Store) -> Result<GateDecision, Denial> {
    ///     Err(Denial::new("after hours"))
    /// }
    ///
    /// let store = Store::on(MemDisk::new()).gate("hours", closed).record_denials().open()?;
    /// store.append("account:alice", &Raw("account.opened", &())).unwrap_err();
    ///
    /// let denied = store.stream("$gate/hours").next().unwrap()?;
    /// assert_eq!(denied.kind(), "$gate.denied");
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn record_denials(mut self) -> Builder {
        self.gates.record_denials();
        self
    }

    /// How often a store that is open for reading looks for new appends, while it has subscribers (default: 2
    /// ms). Events arrive that much later; a look costs about a microsecond.
    pub fn follow_every(mut self, interval: Duration) -> Builder {
        self.options.follow_every = interval;
        self
    }

    /// How many bytes of the newest appends stay in memory (default: 16 MiB; 0: none). Reading them needs no
    /// system call, which serves subscriptions, reactors, consumers and decisions.
    ///
    /// Less saves memory; more serves followers that fall further behind. The memory fills as events are
    /// appended, and costs the writer a copy of each append. A store that is open for reading has none.
    pub fn recent_bytes_max(mut self, bytes: usize) -> Builder {
        self.options.recent_bytes_max = bytes;
        self
    }

    /// How many bytes of projected states stay in memory (default: 64 MiB; 0: none); the least recently used
    /// go first. Bytes count in encoded form, which is mostly smaller than in memory. A state that is not in
    /// memory is read from the file or folded again.
    pub fn cache_memory_bytes(mut self, bytes: usize) -> Builder {
        self.options.cache_memory_bytes = bytes;
        self
    }

    /// How many bytes of projected states are kept in `cache/` (default: 256 MiB; 0: no file); the least
    /// recently used go first. Bytes count in encoded form. The file may be twice as large, and has about 1
    /// MiB at least. It saves folding long streams after a restart, and may be deleted at any time. A store
    /// that is open for reading has no file.
    ///
    /// A state is saved 250 ms after 32 events were folded since it was last saved. Saving needs no sync: the
    /// file is durable after 5 s and on closing. A power cut in the first seconds may leave no file. A store
    /// that loads no stream of 32 events has no file.
    ///
    /// A file is replaced if it is missing, damaged, of another store or history, or would need a repair by
    /// redb. The fourth replacement in one opening turns the file off. If the process ends twice in a row
    /// while it opens the file, the third start deletes the file. A saved state counts only if it decodes,
    /// has the fingerprint of its type, and fits the event at its position.
    pub fn cache_disk_bytes(mut self, bytes: u64) -> Builder {
        self.options.cache_disk_bytes = bytes;
        self
    }

    /// How many bytes of indexes of sealed segments stay in memory (default: 256 MiB); the least recently
    /// used go first. An index takes 13 to 24 bytes an event. In memory, a look-up costs less than a
    /// microsecond a segment, otherwise some microseconds. Other indexes are read from the segment's `.idx`
    /// file piece by piece; they keep 1.5 bytes in memory for each name and id.
    pub fn index_memory_bytes(mut self, bytes: u64) -> Builder {
        self.options.index_memory_bytes = bytes;
        self
    }

    /// How many bytes of segments stay in memory (default: 256 MiB; 0: none). A read from one needs no system
    /// call, and its checksum is not checked again.
    ///
    /// A segment is loaded in the background once single events were read from it repeatedly. While there is
    /// room, two reads of the whole segment in order suffice. When the memory is full, a segment replaces
    /// only those that are not read in that time. Give it room for what is read all the time.
    pub fn segment_memory_bytes(mut self, bytes: u64) -> Builder {
        self.options.segment_memory_bytes = bytes;
        self
    }

    /// Whether each segment gets a tree file (`.tree`) in the background when it is sealed (default: no). The
    /// file keeps [`Store::tree_head`] and proofs from hashing the log again. It has 0.13 bytes an event.
    pub fn tree(mut self, tree: bool) -> Builder {
        self.options.tree = tree;
        self
    }

    /// The name that the ledger records for operations through this store (default: `process <id>`): a
    /// person, a service, a ticket. See [`Store::checkpoint`].
    pub fn operator(mut self, name: impl Into<String>) -> Builder {
        self.options.operator = Some(name.into());
        self
    }

    /// Verifies the log in the background while the store is open for writing, at most this many bytes a
    /// second (default: 0, never). [`Stats::scrub`](crate::Stats::scrub) has the findings.
    ///
    /// Frames, chain, positions, times and seals are verified slice by slice, and again a minute after the
    /// end. A disk that loses bits is noticed before its data is needed; 2,000,000 bytes a second read a
    /// terabyte in a week. Scrubbing reads the files, so the system's page cache may lose what is read often.
    ///
    /// ```
    /// use annals::{Store, disk::MemDisk};
    ///
    /// let store = Store::on(MemDisk::new()).scrub(2_000_000).open()?;
    /// assert!(store.stats().scrub.findings.is_empty());
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn scrub(mut self, bytes_per_second: u64) -> Builder {
        self.options.scrub_bytes_per_second = bytes_per_second;
        self
    }

    /// Opens even if other users may write to the directory (default: refused). They can then delete or
    /// replace the store's files.
    pub fn allow_shared_directory(mut self) -> Builder {
        if let Location::Directory(_, allow) = &mut self.place {
            *allow = allow.shared_directory();
        }
        self
    }

    /// Opens even if the directory is on a network file system (default: refused). Server and mount options
    /// then decide whether a lock keeps other machines out, and whether a sync reaches a disk.
    ///
    /// The check asks statfs on Linux, and knows NFS, SMB, AFS, Ceph, Lustre, 9P, Coda, NCP, GFS2 and OCFS2.
    pub fn allow_network_file_system(mut self) -> Builder {
        if let Location::Directory(_, allow) = &mut self.place {
            *allow = allow.network_file_system();
        }
        self
    }

    /// Opens the store; see [`Store::open`].
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn open(self) -> Result<Store, Error> {
        self.open_within(Duration::ZERO)
    }

    /// Opens the store, and waits up to this long for another writer to close it.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn open_within(self, wait: Duration) -> Result<Store, Error> {
        self.options.check()?;
        self.gates.check(&self.options.limits)?;
        let disk = self.place.disk(true)?;
        let store = Store::around(Engine::open(disk, self.options, wait)?, self.gates.into_admission());
        store.finish_erasing();
        store.follow(self.policies);
        Ok(store)
    }

    /// Opens the store for reading; see [`Store::open_read_only`].
    ///
    /// # Errors
    ///
    /// As [`Store::open_read_only`].
    pub fn open_read_only(self) -> Result<Store, Error> {
        let disk = self.place.disk(false)?;
        let loaded = load_to_read(&disk, &self.options)?;
        Ok(Store::around(Engine::to_read(disk, loaded, self.options), self.gates.into_admission()))
    }

    /// Opens what is left of a damaged store for reading: every whole append, with its positions, versions
    /// and ids. Reading skips what is damaged or missing; [`OpenReport::holes`](crate::OpenReport::holes)
    /// lists it. Nothing is changed. The store must not be open for writing elsewhere.
    ///
    /// To go on from there, copy the readable events into a new store. All files are read;
    /// [`Builder::on_open_progress`] reports how far that is.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Locked`](crate::ErrorKind::Locked): the store has a writer.
    /// - [`ErrorKind::NeedsNewer`](crate::ErrorKind::NeedsNewer): a file has a newer format.
    /// - [`ErrorKind::Invalid`](crate::ErrorKind::Invalid): nothing is left.
    /// - [`ErrorKind::Io`](crate::ErrorKind::Io): a file cannot be read.
    pub fn salvage(self) -> Result<Store, Error> {
        let disk = self.place.disk(false)?;
        let loaded = salvage(disk.as_ref(), self.options.open_watcher.as_ref())?;
        Ok(Store::around(Engine::to_read(disk, loaded, self.options), self.gates.into_admission()))
    }

    /// Compacts periodically while the store is open for writing (default: never). `policy` gets a
    /// [`Compaction`] and adds the rules. Called several times, it adds several policies, which run one at a
    /// time. The reason is recorded.
    ///
    /// The first run begins `every` after opening, each further one `every` after the last has ended. A run
    /// takes the segments that are sealed by then. So an event goes once its segment is full
    /// ([`Builder::segment_bytes_max`]) or after a run by hand. Each run reads all sealed segments: let it be
    /// seldom, and set a rate ([`Compaction::bytes_per_second`]) and a threshold ([`Compaction::worth`]). If
    /// nothing is to go, nothing is written.
    ///
    /// [`Stats::compactions`](crate::Stats::compactions) has the result. An error is logged and kept there,
    /// and the next run tries again: a consumer that is behind, a full disk, damage. A run is skipped while
    /// other segments are being rewritten. Closing the store ends a run; segments that were rewritten stay
    /// so. `policy` and its rules run on a thread of the store. They must not keep a clone of the [`Store`]:
    /// such a store never closes. A policy that panics does not run again.
    ///
    /// ```
    /// use std::time::Duration;
    /// use annals::{GroupBy, Query, Store, disk::MemDisk};
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
    ///     .compact_every(7 * DAY, "fewer, larger segments", |compaction| {
    ///         compaction.replaced_checkpoints().merge()
    ///     })
    ///     .open()?;
    /// assert_eq!(store.stats().compactions.len(), 2);
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn compact_every(
        mut self,
        every: Duration,
        reason: impl Into<String>,
        policy: impl for<'a> Fn(Compaction<'a>) -> Compaction<'a> + Send + Sync + 'static,
    ) -> Builder {
        let reason = reason.into();
        let of_run = reason.clone();
        let run = move |store: &Store| policy(store.compaction(&of_run)).run_beside();
        self.policies.push(Policy::new(every, reason, Box::new(run)));
        self
    }

    /// The disk of an existing store.
    pub(super) fn disk(self) -> Result<Arc<dyn Disk>, Error> {
        self.place.disk(false)
    }

    /// The disk of an existing store, and the options.
    pub(super) fn into_parts(self) -> Result<(Arc<dyn Disk>, Options), Error> {
        Ok((self.place.disk(false)?, self.options))
    }
}

impl Location {
    pub(super) fn disk(self, create: bool) -> Result<Arc<dyn Disk>, Error> {
        match self {
            Location::Disk(disk) => Ok(disk),
            Location::Directory(path, allow) => {
                let opened = match create {
                    true => OsDisk::create_allowing(&path, allow),
                    false => OsDisk::open_allowing(&path, allow),
                };
                let opened = opened.map_err(|error| match error.kind() {
                    std::io::ErrorKind::NotFound if !create => Error::no_store(),
                    _ => Error::io("cannot open", &path.display().to_string(), error),
                });
                Ok(Arc::new(opened?))
            }
        }
    }
}
