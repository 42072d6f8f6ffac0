//! Every option of a store, and the ways to open one.
//!
//! Row: store.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::disk::{Allow, Disk, OsDisk};
use crate::engine::{Engine, load_to_read};
use crate::maintenance::{Verify, salvage};
use crate::types::{
    Durability, Error, KeyWindow, Limits, OpenProgress, Options, RestartPolicy, VerifyReport,
};

use super::Store;
use super::gate::{Gate, Gates};
use super::policy::Policy;

pub(super) enum Place {
    Directory(PathBuf, Allow),
    Disk(Arc<dyn Disk>),
}

/// Options for opening a store. Each has a default that suits most; each says what it trades.
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
    place: Place,
    options: Options,
    gates: Gates,
    policies: Vec<Policy>,
}

impl Builder {
    pub(super) fn of_directory(path: &Path) -> Builder {
        Builder::of(Place::Directory(path.to_owned(), Allow::nothing()))
    }

    pub(super) fn of_disk(disk: Arc<dyn Disk>) -> Builder {
        Builder::of(Place::Disk(disk))
    }

    fn of(place: Place) -> Builder {
        Builder { place, options: Options::default(), gates: Gates::default(), policies: Vec::new() }
    }

    /// When appends are acknowledged, unless they say otherwise (default: [`Durability::Synced`]).
    pub fn durability(mut self, durability: Durability) -> Builder {
        self.options.durability = durability;
        self
    }

    /// The largest things the store takes (default: [`Limits::default`]).
    pub fn limits(mut self, limits: Limits) -> Builder {
        self.options.limits = limits;
        self
    }

    /// How far back idempotency keys are recognised (default: 1,048,576 positions). A key that is new costs its
    /// caller a look at the filter of each segment that far back, some 30 ns each, and 16 bytes in the log.
    pub fn key_window(mut self, window: KeyWindow) -> Builder {
        self.options.key_window = window;
        self
    }

    /// Where a segment file ends and the next begins (default: 64 MiB; at least one append, at most
    /// 1 GiB). Small segments make many files, large ones make a damaged or torn one cost more.
    pub fn segment_bytes_max(mut self, bytes: u32) -> Builder {
        self.options.segment_bytes_max = bytes.min(1 << 30);
        self
    }

    /// How much may be written but not synced (default: 32 MiB). Also the largest append. It is
    /// fixed in a segment when that is created; damage further out than this is never taken for a
    /// torn tail.
    pub fn unsynced_bytes_max(mut self, bytes: u32) -> Builder {
        self.options.unsynced_bytes_max = bytes.into();
        self
    }

    /// How many appends share a sync at most (default: 1,024).
    pub fn group_commands_max(mut self, commands: usize) -> Builder {
        self.options.group_commands_max = commands.max(1);
        self
    }

    /// How many bytes share a sync at most (default: 4 MiB). More delays the first of a group.
    pub fn group_bytes_max(mut self, bytes: usize) -> Builder {
        self.options.group_bytes_max = bytes;
        self
    }

    /// How many appends wait for the writer at most (default: 4,096).
    pub fn queue_commands_max(mut self, commands: usize) -> Builder {
        self.options.queue_commands_max = commands.max(1);
        self
    }

    /// How many bytes wait for the writer at most (default: 64 MiB). One append always may.
    pub fn queue_bytes_max(mut self, bytes: usize) -> Builder {
        self.options.queue_bytes_max = bytes;
        self
    }

    /// How long an append waits for a place in the queue before it gives up with
    /// [`ErrorKind::Busy`](crate::ErrorKind::Busy) (default: as long as it takes).
    pub fn queue_deadline(mut self, deadline: Duration) -> Builder {
        self.options.queue_deadline = Some(deadline);
        self
    }

    /// How long [`Append::commit`](crate::Append::commit) waits for the acknowledgement before it gives up with
    /// [`ErrorKind::CommitUnknown`](crate::ErrorKind::CommitUnknown) (default: as long as it takes).
    pub fn ack_deadline(mut self, deadline: Duration) -> Builder {
        self.options.ack_deadline = Some(deadline);
        self
    }

    /// How often a full disk is tried again (default: 100 ms). Appends in between are refused with
    /// [`ErrorKind::NoSpace`](crate::ErrorKind::NoSpace) at once.
    pub fn space_probe_every(mut self, interval: Duration) -> Builder {
        self.options.space_probe_every = interval;
        self
    }

    /// The clock (default: [`SystemTime::now`]): it stamps recorded-at, and everything that is compared with
    /// a time goes by it: timers, ages, [`Freshness::MaxStale`](crate::Freshness::MaxStale), policies.
    /// Waiting, deadlines and speeds go by the system's monotonic clock instead.
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

    /// Tells how far opening is, every few milliseconds, on the opening thread; what it returns says
    /// whether to go on (default: nothing is told). Broken off, opening changes nothing and is
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use annals::{Store, disk::MemDisk};
    ///
    /// let store = Store::on(MemDisk::new())
    ///     .on_open_progress(|progress| {
    ///         println!("{} of {} bytes, {:?} left", progress.bytes, progress.bytes_total, progress.remaining());
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

    /// Has a policy judge every append before it is sent (default: none): see [`Gate`]. Gates are asked in the
    /// order they are added; the first denial counts. The name tells who denied, and is the gate's stream
    /// (`$gate/<name>`): 1 to 255 bytes, given once. A gate costs what it does, on the caller's thread.
    pub fn gate(mut self, name: impl Into<String>, gate: impl Gate) -> Builder {
        self.gates.add(name.into(), gate);
        self
    }

    /// Keeps every denial as an event (default: it is only told to the caller): `$gate.denied` in the stream
    /// `$gate/<name>`, with the reason, and entity, scope and kind of what was denied, never a payload.
    /// A denial then costs an append of its own, and is durable when the caller hears of it.
    ///
    /// ```
    /// use annals::{Denial, Permit, Proposed, Raw, Store, disk::MemDisk};
    ///
    /// let closed = |_: &Proposed<'_>, _: &Store| -> Result<Permit, Denial> { Err(Denial::new("after hours")) };
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

    /// How often a store opened to read looks whether its writer has appended, while somebody is
    /// subscribed to it (default: 2 ms). It is how late events come there; a look costs about a microsecond.
    pub fn follow_every(mut self, interval: Duration) -> Builder {
        self.options.follow_every = interval;
        self
    }

    /// How many bytes of what was appended last are kept in memory (default: 16 MiB; 0: none). Who reads them
    /// (subscriptions, reactors, consumers, decisions, `get` of what was just appended) asks the system for nothing.
    /// Less saves memory; more serves those who follow and fall further behind. It fills as the store is
    /// appended to and costs the writer a copy of each append; a store opened to read has none.
    pub fn recent_bytes_max(mut self, bytes: usize) -> Builder {
        self.options.recent_bytes_max = bytes;
        self
    }

    /// How many bytes of states of projections are kept in memory (default: 64 MiB; 0: none), those used
    /// last. They are counted by their encoded form, which is most often smaller than they are in memory.
    /// A state that is not there is taken from the file, or folded again.
    pub fn cache_memory_bytes(mut self, bytes: usize) -> Builder {
        self.options.cache_memory_bytes = bytes;
        self
    }

    /// The budget of the file in `cache/` that keeps states of projections (default: 256 MiB; 0: no file).
    ///
    /// The file saves folding long streams again after the store was closed. It may be deleted at any time. A
    /// store opened to read has no file.
    ///
    /// - A state is saved once 32 events were folded since its last save, 250 ms later, without a sync. The
    ///   file is durable after 5 s and at closing. A store that loads no stream of 32 events has no file.
    /// - The budget counts the encoded form. The least recently used states are dropped first. The file may
    ///   be twice as large as the budget, and has at least about 1 MiB.
    /// - A power cut in the first seconds of a file may leave no file.
    /// - A file that is missing, damaged, of another store or history, or that redb would have to repair is
    ///   begun anew. At the fourth time within one opening, the store goes on without a file.
    /// - If the process ended twice in a row while it opened the file, the third start deletes the file.
    /// - A state does not count if it does not decode, has another fingerprint, or if another event stands at
    ///   its position.
    pub fn cache_disk_bytes(mut self, bytes: u64) -> Builder {
        self.options.cache_disk_bytes = bytes;
        self
    }

    /// How many bytes of the indexes of sealed segments are kept in memory (default: 256 MiB), those used last. An
    /// index takes 13 to 24 bytes an event; with all of them in memory a look-up costs less than a microsecond a
    /// segment, otherwise some microseconds. What is not in memory is read from the segment's `.idx` file piece by
    /// piece, with little kept: 1.5 bytes for each name and id in a segment.
    pub fn index_memory_bytes(mut self, bytes: u64) -> Builder {
        self.options.index_memory_bytes = bytes;
        self
    }

    /// How many bytes of segments are kept in memory (default: 256 MiB; 0: none). A segment is loaded,
    /// in the background, once single events were read from it again and again, or while there is room all of it in
    /// order twice; reading one is then no system call, and its checksum is not checked again. One that others are to
    /// make room for must be read while they are not: give it room for what is read all the time.
    pub fn segment_memory_bytes(mut self, bytes: u64) -> Builder {
        self.options.segment_memory_bytes = bytes;
        self
    }

    /// Who is recorded in the ledger for what is done through this store (default: `process <id>`): a person, a
    /// service, a ticket. See [`Store::checkpoint`].
    pub fn operator(mut self, name: impl Into<String>) -> Builder {
        self.options.operator = Some(name.into());
        self
    }

    /// Verifies the log in the background while the store is open for writing, at most so many bytes a second, again and again (default: 0, not at all).
    /// What it finds stands in [`Stats::scrub`](crate::Stats::scrub).
    ///
    /// A disk that loses bits is noticed before what is on it is needed; 2,000,000 go through a terabyte in a week. It reads past the recent
    /// window, so what is read often may leave the system's page cache.
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

    /// Opens even if others may write to the directory (default: refused). They can then delete or
    /// replace the store's files.
    pub fn allow_shared_directory(mut self) -> Builder {
        if let Place::Directory(_, allow) = &mut self.place {
            *allow = allow.shared_directory();
        }
        self
    }

    /// Opens even if the directory lies on a network file system (default: refused). Whether a lock
    /// keeps writers on other machines out, and whether a sync reaches a disk, is then up to the
    /// server and how it is mounted.
    pub fn allow_network_file_system(mut self) -> Builder {
        if let Place::Directory(_, allow) = &mut self.place {
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

    /// Opens the store; waits up to this long for another writer to close it.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn open_within(self, wait: Duration) -> Result<Store, Error> {
        self.options.check()?;
        self.gates.check(&self.options.limits)?;
        let disk = self.place.disk(true)?;
        let store = Store::around(Engine::open(disk, self.options, wait)?, self.gates);
        store.finish_erasing();
        store.follow(self.policies);
        Ok(store)
    }

    /// Opens the store to read; see [`Store::open_read_only`].
    ///
    /// # Errors
    ///
    /// As [`Store::open_read_only`].
    pub fn open_read_only(self) -> Result<Store, Error> {
        let disk = self.place.disk(false)?;
        let loaded = load_to_read(&disk, &self.options)?;
        Ok(Store::around(Engine::to_read(disk, loaded, self.options), self.gates))
    }

    /// Opens what is left of a damaged store, to read it: every whole append, with its positions,
    /// versions and ids. [`OpenReport::holes`](crate::OpenReport::holes) has what is damaged or missing; reading passes over it. Nothing is
    /// changed, and the store must not be open for writing elsewhere.
    ///
    /// To go on from it, copy what can be read into a new store. All files are read; [`Builder::on_open_progress`] tells how far that is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Locked`](crate::ErrorKind::Locked) if somebody writes to it,
    /// [`ErrorKind::NeedsNewer`](crate::ErrorKind::NeedsNewer) if a file is of a newer format,
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if nothing is left,
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if a file cannot be read.
    pub fn salvage(self) -> Result<Store, Error> {
        let disk = self.place.disk(false)?;
        let loaded = salvage(disk.as_ref(), self.options.open_watcher.as_ref())?;
        Ok(Store::around(Engine::to_read(disk, loaded, self.options), self.gates))
    }

    /// Where its files are, if there is a store.
    pub(super) fn disk(self) -> Result<Arc<dyn Disk>, Error> {
        self.place.disk(false)
    }

    /// Checks a store that need not open: all files, all breaks. Changes nothing. Beside a writer it checks what that has made durable.
    ///
    /// # Errors
    ///
    /// As [`Store::verify`].
    pub fn verify(self) -> Result<VerifyReport, Error> {
        Verify::new().run_files(self)
    }
}

impl Builder {
    /// Has a policy take its turns once the store is open for writing.
    pub(crate) fn with_policy(mut self, policy: Policy) -> Builder {
        self.policies.push(policy);
        self
    }

    /// The disk of a store that is there, and the options.
    pub(super) fn into_parts(self) -> Result<(Arc<dyn Disk>, Options), Error> {
        Ok((self.place.disk(false)?, self.options))
    }
}

impl Place {
    pub(super) fn disk(self, create: bool) -> Result<Arc<dyn Disk>, Error> {
        match self {
            Place::Disk(disk) => Ok(disk),
            Place::Directory(path, allow) => {
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
