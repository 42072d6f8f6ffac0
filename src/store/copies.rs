//! The facade of copies and places to go back to: backup, fork, restore, checkpoints, rollback.

use std::any::Any;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Allow, Disk, OsDisk};
use crate::maintenance::{
    Checkpoint, CopyOptions, CopyReport, CopyWork, RollbackReport, Until, backup, checkpoints,
    take_checkpoint,
};
use crate::types::{CopyProgress, Error, Head};

use super::Store;
use super::builder::{Builder, Location};

/// Copies of the store, and places to go back to.
impl Store {
    /// Copies everything durable into another directory, while appends go on. The copy is a store that can be
    /// opened; [`restore`] makes the store again from it. Made again into the same directory, a backup copies
    /// only what is new. It works from a store that is open for reading as well, also beside a writer.
    ///
    /// Sealed segments become hard links where both directories are on one file system and have the same
    /// owner. A link costs nothing and protects from mistakes, but not from a broken disk: see
    /// [`StoreCopy::without_sharing`]. The live segment is copied. Header and seal of each segment are
    /// compared with MANIFEST first; [`verify_backup`](crate::verify_backup) checks the frames between them.
    ///
    /// An earlier backup that was stopped during an update can still be read. Opening it for writing is
    /// [`Unsafe`](crate::ErrorKind::Unsafe) until the backup is finished. If segments were replaced, the
    /// backup's saved states are removed; its own `quarantine/` stays.
    ///
    /// ```
    /// use annals::{Raw, Store, verify_backup};
    ///
    /// # let path = std::env::temp_dir().join(format!("annals-doc-backup-{}", std::process::id()));
    /// # let (live, copy) = (path.join("bank"), path.join("bank.backup"));
    /// let store = Store::open(&live)?;
    /// store.append("account:alice", &Raw("account.deposited", &500))?;
    /// let report = store.backup(&copy).because("every evening").run()?;
    /// println!("{report}");
    /// assert!(verify_backup(&copy, &report.head)?.is_clean());
    /// assert_eq!(Store::open_read_only(&copy)?.head()?, report.head);
    /// # store.close()?;
    /// # std::fs::remove_dir_all(path).unwrap();
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn backup(&self, to: impl AsRef<Path>) -> StoreCopy {
        self.copy(Location::directory(to.as_ref()), CopyVerb::Backup)
    }

    /// [`Store::backup`] to a [`Disk`] of your own, or to a directory on a network file system, which must be
    /// allowed: [`OsDisk::create_allowing`].
    pub fn backup_on(&self, disk: impl Disk) -> StoreCopy {
        self.copy(Location::Disk(Arc::new(disk)), CopyVerb::Backup)
    }

    /// Makes another store from the history up to a place, with an id of its own. Then the two stores go
    /// separate ways. Events keep ids, positions and chain; [`Head::store_id`] differs. Sealed segments are
    /// shared where possible.
    ///
    /// ```
    /// use annals::{Position, Raw, Store, Until};
    ///
    /// # let path = std::env::temp_dir().join(format!("annals-doc-fork-{}", std::process::id()));
    /// # let (live, fork) = (path.join("bank"), path.join("what-if"));
    /// let store = Store::open(&live)?;
    /// store.append("account:alice", &Raw("account.deposited", &500))?;
    /// store.append("account:alice", &Raw("account.withdrawn", &200))?;
    /// store.fork(&fork, Position::from(1)).run()?;
    ///
    /// let other = Store::open(&fork)?;
    /// assert_eq!(other.version("account:alice")?.get(), 1);
    /// other.append("account:alice", &Raw("account.withdrawn", &300))?;
    /// assert_ne!(other.head()?.store_id(), store.head()?.store_id());
    /// # other.close()?;
    /// # store.close()?;
    /// # std::fs::remove_dir_all(path).unwrap();
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn fork(&self, to: impl AsRef<Path>, until: impl Into<Until>) -> StoreCopy {
        self.copy(Location::directory(to.as_ref()), CopyVerb::Fork(until.into()))
    }

    /// [`Store::fork`] to a [`Disk`] of your own.
    pub fn fork_on(&self, disk: impl Disk, until: impl Into<Until>) -> StoreCopy {
        self.copy(Location::Disk(Arc::new(disk)), CopyVerb::Fork(until.into()))
    }

    /// Names the current end of the log, durably, so that a rollback can return to it. A checkpoint is an
    /// event of the stream `$ledger`. If a name is used again, the newest checkpoint counts.
    ///
    /// ```
    /// use annals::{Raw, Store, disk::MemDisk};
    ///
    /// let store = Store::on(MemDisk::new()).operator("anna").open()?;
    /// store.append("account:alice", &Raw("account.opened", &()))?;
    /// let taken = store.checkpoint("before the import", "the file is not trusted")?;
    /// assert_eq!((taken.by.as_str(), taken.head), ("anna", store.head()?));
    /// assert_eq!(store.checkpoints()?, [taken]);
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) and
    /// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) for a bad name (allowed: 1 to 255 bytes without
    /// control characters, not beginning with `$`); those of [`Store::append`].
    pub fn checkpoint(&self, name: &str, reason: &str) -> Result<Checkpoint, Error> {
        take_checkpoint(self.engine(), name, reason)
    }

    /// All checkpoints, in the order they were taken.
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub fn checkpoints(&self) -> Result<Vec<Checkpoint>, Error> {
        checkpoints(self.engine())
    }

    fn copy(&self, to: Location, verb: CopyVerb) -> StoreCopy {
        StoreCopy { from: CopySource::Store(self.clone()), to, verb, options: CopyOptions::default() }
    }
}

impl Builder {
    /// Rolls the store back: cuts everything after a place from its history, at the boundary of an append.
    /// The store must not be open. `cut` is the store's head ([`Store::head`]), as proof that the caller
    /// knows what will be cut.
    ///
    /// The whole old history is kept in `quarantine/`, as a store of its own. Saved states are void (the
    /// history revision is raised). Consumers return to their position at that place. A reader in another
    /// process that has read further gets [`RolledBack`](crate::ErrorKind::RolledBack). `$ledger.rolled-back`
    /// records who, why, and what was cut. A stop at any moment leaves the old history or the new one;
    /// calling it again goes on.
    ///
    /// ```
    /// use annals::{Raw, Store, Until, disk::{MemDisk, Subdirectory}};
    ///
    /// let disk = MemDisk::new();
    /// let store = Store::on(disk.clone()).open()?;
    /// store.append("account:alice", &Raw("account.deposited", &500))?;
    /// store.checkpoint("before the import", "")?;
    /// store.append("account:alice", &Raw("account.deposited", &999_999))?;
    /// let cut = store.head()?;
    /// store.close()?;
    ///
    /// let until = Until::Checkpoint("before the import".to_owned());
    /// let report = Store::on(disk.clone()).rollback(until, &cut, "a broken file")?;
    /// assert_eq!(Store::on(disk.clone()).open()?.version("account:alice")?.get(), 1);
    ///
    /// let old = Store::on(Subdirectory::of(disk, report.quarantine)).open_read_only()?;
    /// assert_eq!(old.head()?, cut);
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Invalid`](crate::ErrorKind::Invalid): the store has another head, nothing would be cut,
    ///   or the place does not exist. Nothing was changed.
    /// - [`ErrorKind::Locked`](crate::ErrorKind::Locked): the store is open.
    /// - Those of [`Store::open`], and [`ErrorKind::NoSpace`](crate::ErrorKind::NoSpace): try again.
    pub fn rollback(
        self,
        until: impl Into<Until>,
        cut: &Head,
        reason: &str,
    ) -> Result<RollbackReport, Error> {
        self.rollback_watched(until, cut, reason, |_| ControlFlow::Continue(()))
    }

    /// As [`Builder::rollback`], and reports progress at least every mebibyte; `tell` answers whether to go
    /// on.
    ///
    /// After a break nothing is cut. What was set aside by then stays, and the next call goes on from there.
    /// The last report comes before history is replaced: then the rollback cannot be broken off.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use annals::{Position, Raw, Store, disk::MemDisk};
    ///
    /// let disk = MemDisk::new();
    /// let store = Store::on(disk.clone()).open()?;
    /// for n in 0..10 {
    ///     store.append("sensor:7", &Raw("sensor.read", &n))?;
    /// }
    /// let cut = store.head()?;
    /// store.close()?;
    /// Store::on(disk).rollback_watched(Position::from(5), &cut, "a bad sensor", |progress| {
    ///     println!("{} of {} bytes, {:?} left", progress.bytes, progress.bytes_total, progress.remaining());
    ///     ControlFlow::Continue(())
    /// })?;
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Builder::rollback`], and [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled) if `tell` breaks
    /// it off.
    pub fn rollback_watched(
        self,
        until: impl Into<Until>,
        cut: &Head,
        reason: &str,
        tell: impl FnMut(&CopyProgress) -> ControlFlow<()> + Send + 'static,
    ) -> Result<RollbackReport, Error> {
        let (disk, options) = self.into_parts()?;
        let mut work = CopyWork::new(CopyOptions {
            on_progress: Some(Box::new(tell)),
            reason: Some(reason.to_owned()),
            ..CopyOptions::default()
        });
        backup::rollback(&disk, options, &until.into(), cut, &mut work)
    }
}

/// Makes a store again, in a new directory, from a backup up to a place. It is the same store, with the id of
/// the one that was backed up, so only one of the two may be written to. Consumers return to their position
/// at that place.
///
/// ```
/// use annals::{Position, Raw, Store, restore};
///
/// # let path = std::env::temp_dir().join(format!("annals-doc-restore-{}", std::process::id()));
/// # let (live, copy, again) = (path.join("bank"), path.join("backup"), path.join("again"));
/// let store = Store::open(&live)?;
/// store.append("account:alice", &Raw("account.deposited", &500))?;
/// store.append("account:alice", &Raw("account.closed", &()))?;
/// store.backup(&copy).run()?;
/// store.close()?;
///
/// restore(&copy, &again, Position::from(1)).because("closed by mistake").run()?;
/// let store = Store::open(&again)?;
/// assert_eq!(store.version("account:alice")?.get(), 1);
/// # store.close()?;
/// # std::fs::remove_dir_all(path).unwrap();
/// # Ok::<(), annals::Error>(())
/// ```
pub fn restore(backup: impl AsRef<Path>, to: impl AsRef<Path>, until: impl Into<Until>) -> StoreCopy {
    let to = Location::directory(to.as_ref());
    StoreCopy::restoring(Store::builder(backup), to, until.into())
}

/// A copy of a store that is about to be made: by [`Store::backup`], [`Store::fork`] or [`restore`].
///
/// The directory is created for its owner only. It must be empty, or hold an earlier or interrupted copy. It
/// becomes a store at the very end; an earlier backup stays one. After any stop the copy can be made again,
/// and goes on.
#[must_use = "nothing is copied until it is told to run"]
pub struct StoreCopy {
    from: CopySource,
    to: Location,
    verb: CopyVerb,
    options: CopyOptions,
}

enum CopySource {
    Store(Store),
    Backup(Box<Builder>),
}

enum CopyVerb {
    Backup,
    Fork(Until),
    Restore(Until),
}

impl StoreCopy {
    fn restoring(backup: Builder, to: Location, until: Until) -> StoreCopy {
        StoreCopy {
            from: CopySource::Backup(Box::new(backup)),
            to,
            verb: CopyVerb::Restore(until),
            options: CopyOptions::default(),
        }
    }

    /// [`restore`] between disks of your own, and with options: `operator` and `clock` of the backup's
    /// builder are used.
    ///
    /// ```
    /// use annals::{Raw, Store, StoreCopy, Until, disk::MemDisk};
    ///
    /// let (backup, again) = (MemDisk::new(), MemDisk::new());
    /// let store = Store::in_memory()?;
    /// store.append("account:alice", &Raw("account.opened", &()))?;
    /// store.backup_on(backup.clone()).run()?;
    /// StoreCopy::restore_on(Store::on(backup).operator("anna"), again.clone(), Until::End).run()?;
    /// assert_eq!(Store::on(again).open()?.version("account:alice")?.get(), 1);
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn restore_on(backup: Builder, to: impl Disk, until: impl Into<Until>) -> StoreCopy {
        StoreCopy::restoring(backup, Location::Disk(Arc::new(to)), until.into())
    }

    /// Sets the reason, for the ledger.
    pub fn because(mut self, reason: impl Into<String>) -> StoreCopy {
        self.options.reason = Some(reason.into());
        self
    }

    /// Copies every segment, even where the directories could share them (default: sealed segments are
    /// shared). The copy then depends on no block of the original. It costs space and time.
    pub fn without_sharing(mut self) -> StoreCopy {
        self.options.copies_all = true;
        self
    }

    /// Reports progress at least every mebibyte; `tell` answers whether to go on (default: no reports).
    /// Breaking off is [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled). Made again, the copy goes on
    /// behind the last whole segment.
    pub fn on_progress(
        mut self,
        tell: impl FnMut(&CopyProgress) -> ControlFlow<()> + Send + 'static,
    ) -> StoreCopy {
        self.options.on_progress = Some(Box::new(tell));
        self
    }

    /// Makes the copy, and returns what was done. The ledger of a restored store or fork records it. So does
    /// the ledger of the source of a backup or fork, if the source is open for writing.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Invalid`](crate::ErrorKind::Invalid): the directory is within the store, or holds other
    ///   files or another store. Also: it holds any store, for a restore or fork; or the place does not
    ///   exist.
    /// - [`ErrorKind::RolledBack`](crate::ErrorKind::RolledBack): the earlier backup is not the beginning of
    ///   this store.
    /// - [`ErrorKind::Locked`](crate::ErrorKind::Locked): the directory has a writer.
    /// - [`ErrorKind::NoSpace`](crate::ErrorKind::NoSpace): make room; made again, the copy goes on.
    /// - [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt): the store or the earlier copy is damaged.
    /// - [`ErrorKind::Unsafe`](crate::ErrorKind::Unsafe): other users may write to the directory.
    /// - [`ErrorKind::Io`](crate::ErrorKind::Io), [`ErrorKind::Closed`](crate::ErrorKind::Closed), and those
    ///   of [`Store::append`].
    pub fn run(self) -> Result<CopyReport, Error> {
        let StoreCopy { from, to, verb, options } = self;
        let store = match from {
            CopySource::Store(store) => store,
            CopySource::Backup(builder) => builder.open_read_only()?,
        };
        let engine = store.engine();
        let source = engine.disk.as_ref();
        if let Some(path) = to.path() {
            backup::check_outside(source, path)?;
        }
        let disk = to.disk(true)?;
        let work = &mut CopyWork::new(options);
        match verb {
            CopyVerb::Backup => backup::backup(engine, &disk, work),
            CopyVerb::Fork(until) => backup::fork(engine, &disk, &until, work),
            CopyVerb::Restore(until) => backup::restore(engine, &disk, &until, work),
        }
    }
}

impl Location {
    fn directory(path: &Path) -> Location {
        Location::Directory(path.to_owned(), Allow::nothing())
    }

    /// The path, if this is a directory of the operating system.
    fn path(&self) -> Option<&Path> {
        match self {
            Location::Directory(path, _) => Some(path),
            Location::Disk(disk) => {
                (disk.as_ref() as &dyn Any).downcast_ref::<OsDisk>().map(|disk| disk.path())
            }
        }
    }
}
