//! The facade of maintenance: verifying, index files, describing, erasing.
//!
//! Finishing an erasure that an earlier process left undone is scheduled here.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use crate::maintenance::{
    RewriteThrottle, Verify, describe, erase, rebuild_indexes, verify_files_as, verify_open,
};
use crate::read::reader;
use crate::types::{
    Description, Erasure, Error, Head, IndexProgress, Position, Query, RewriteProgress, VerifyReport,
};

use super::{Builder, Store};

/// Verifying.
impl Store {
    /// Reads the whole store and checks it: checksums, the hash chain, positions, versions, seals. Finds all
    /// breaks, not only the first. Takes about a second per gigabyte and core.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if a file cannot be read. Damage is no error: the report has
    /// it.
    pub fn verify(&self) -> Result<VerifyReport, Error> {
        Verify::new().run(self)
    }

    /// Whether this store's history begins with the history up to a head that was kept elsewhere, by the
    /// chain hash at that position.
    ///
    /// Reads one event. [`Verify::expect`] proves more: that every event before it is unchanged.
    ///
    /// ```
    /// use annals::{Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// store.append("account:alice", &Raw("account.opened", &()))?;
    /// let old = store.head()?;
    /// store.append("account:alice", &Raw("account.deposited", &500))?;
    /// assert!(store.extends(&old)?);
    ///
    /// let other = Store::in_memory()?;
    /// other.append("account:alice", &Raw("account.opened", &()))?;
    /// assert!(!other.extends(&old)?);
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Store::get`]. If the event of that position was removed, the answer is `false`: verify against
    /// the head instead.
    pub fn extends(&self, old: &Head) -> Result<bool, Error> {
        let snapshot = self.engine().snapshot()?;
        if old.position() == Position::START {
            return Ok(old.store_id().as_bytes() == &self.engine().store_id);
        }
        let event = reader::event_at(&snapshot, old.position())?;
        Ok(event.is_some_and(|event| event.chain() == old.chain()))
    }
}

impl Verify<'_> {
    /// Verifies an open store up to its head; appends and reads go on. A store that is open for reading is
    /// verified by its files, as [`Verify::run_files`] does.
    ///
    /// # Errors
    ///
    /// As [`Store::verify`]; [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if an expected head lies
    /// before the place where verifying begins.
    pub fn run(self, store: &Store) -> Result<VerifyReport, Error> {
        verify_open(store.engine(), self)
    }

    /// Verifies the files of a store that need not open, as [`Builder::verify`] does.
    ///
    /// # Errors
    ///
    /// As [`Verify::run`].
    pub fn run_files(self, builder: Builder) -> Result<VerifyReport, Error> {
        verify_files_as(builder.disk()?.as_ref(), &mut |_, _, _, _| {}, self)
    }
}

/// Verifying a store that need not open.
impl Builder {
    /// Verifies a store that need not open: all files, all breaks. Changes nothing.
    ///
    /// Beside a writer it verifies what the writer has made durable. If MANIFEST is replaced during a run
    /// with findings, it verifies again, up to five times.
    ///
    /// # Errors
    ///
    /// As [`Store::verify`].
    pub fn verify(self) -> Result<VerifyReport, Error> {
        Verify::new().run_files(self)
    }

    /// As [`Builder::verify`], and checks that the store holds the history up to `head`, unchanged. A head
    /// that was kept elsewhere proves that nothing before it was altered or is missing. [`Verify`] can do
    /// more: several heads, a rate, progress.
    ///
    /// # Errors
    ///
    /// As [`Store::verify`].
    pub fn verify_against(self, head: &Head) -> Result<VerifyReport, Error> {
        Verify::new().expect(*head).run_files(self)
    }
}

/// Checks a backup against the head that [`Store::backup`] reported: every checksum, the hash chain, and that
/// it holds the history up to there. [`Store::backup`] has an example.
///
/// # Errors
///
/// As [`Store::verify`].
pub fn verify_backup(backup: impl AsRef<Path>, head: &Head) -> Result<VerifyReport, Error> {
    Store::builder(backup).verify_against(head)
}

/// Index files, and where everything is.
impl Store {
    /// Builds the index files of all sealed segments again, and their tree files if they have any. Returns
    /// how many segments there are. Readers and appends go on.
    ///
    /// A store never needs this: a reader that finds an index missing or damaged builds it. This method
    /// builds all of them now.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use annals::{Raw, Store, disk::MemDisk};
    ///
    /// let store = Store::on(MemDisk::new()).segment_bytes_max(400).open()?;
    /// for n in 0..10 {
    ///     store.append("sensor:7", &Raw("sensor.read", &n))?;
    /// }
    /// let built = store.rebuild_indexes(|progress| {
    ///     println!("{} of {} bytes, {:?} left", progress.bytes, progress.bytes_total, progress.remaining());
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert_eq!(built, store.stats().segments - 1);
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Invalid`](crate::ErrorKind::Invalid): the store is open for reading.
    /// - [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt): a segment is damaged.
    /// - [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled): `tell` broke it off. Indexes built by then
    ///   stay.
    pub fn rebuild_indexes(
        &self,
        tell: impl FnMut(&IndexProgress) -> ControlFlow<()>,
    ) -> Result<usize, Error> {
        let rebuilt = rebuild_indexes(self.engine(), Box::new(tell));
        self.core.tree.forget();
        rebuilt
    }

    /// Describes the store for people: where everything is, what it is for, sizes, options. Print it.
    ///
    /// ```
    /// let store = annals::Store::in_memory()?;
    /// let description = store.describe()?;
    /// assert!(description.parts.iter().any(|part| part.name == "segments" && part.files == 1));
    /// println!("{description}");
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io), [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn describe(&self) -> Result<Description, Error> {
        describe(self.engine())
    }
}

/// Erasing.
impl Store {
    /// Erases payload and metadata of all matching events from everything the store keeps: segments, saved
    /// states, memory, quarantine. Entity, kind, tags, time, cause, version, id and position stay. The chain
    /// and every head taken before still verify. Reading the payload is
    /// [`ErrorKind::Erased`](crate::ErrorKind::Erased); a [`Projection`](crate::Projection) learns it through
    /// `erased`.
    ///
    /// The stream `$ledger` records query and reason before and after. The erasure covers events up to the
    /// record `$ledger.erasing`. An interrupted erasure is finished when the store is opened again; a caller
    /// that erases the same again need not wait for that. Segments with such events are rewritten one after
    /// the other, beside appends and reads; a live one is sealed first. Saved states go as well, also those
    /// of an earlier process and with [`Builder::cache_disk_bytes`] 0; they are folded again.
    ///
    /// Copies are out of reach: backups, forks, exports, deleted blocks that a disk still holds, and events
    /// that a reader holds in memory. The store's own events stay as they are; a pending timer keeps what it
    /// will append.
    ///
    /// ```
    /// use annals::{ErrorKind, Query, Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// store.append("customer:7", &Raw("customer.moved", &"12 Elm Street"))?;
    /// let erasure = store.erase(Query::entity("customer:7"), "asked for by the customer, ticket 12")?;
    /// assert_eq!(erasure.events, 1);
    /// let event = store.last(Query::entity("customer:7"))?.unwrap();
    /// assert_eq!(event.kind(), "customer.moved");
    /// assert_eq!(event.decode::<String>().unwrap_err().kind(), ErrorKind::Erased);
    /// assert!(store.verify()?.is_clean());
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Invalid`](crate::ErrorKind::Invalid): the query names the store's own events.
    /// - [`ErrorKind::NoSpace`](crate::ErrorKind::NoSpace): no room to rewrite a segment beside the old one.
    ///   Make room, and erase again.
    /// - [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt): an event to erase is in a damaged segment.
    /// - Those of [`Store::append`].
    ///
    /// After an error the erasure is unfinished, unless the query was refused. Erase again, or open the store
    /// again.
    pub fn erase(&self, query: Query, reason: &str) -> Result<Erasure, Error> {
        erase::erase(
            self.engine(),
            &|| self.forget_states(),
            query,
            reason,
            &mut RewriteThrottle::rewriting(None, None),
        )
    }

    /// As [`Store::erase`], and reports progress about every megabyte and at each segment. Breaking off
    /// leaves the erasure unfinished ([`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled)). `tell` must not
    /// erase.
    ///
    /// ```
    /// use annals::{Query, Raw, Store};
    /// use std::ops::ControlFlow;
    ///
    /// let store = Store::in_memory()?;
    /// store.append("customer:7", &Raw("customer.moved", &"12 Elm Street"))?;
    /// let mut far = 0;
    /// store.erase_watched(Query::entity("customer:7"), "ticket 12", |progress| {
    ///     far = progress.bytes;
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert!(far > 0);
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Store::erase`].
    pub fn erase_watched(
        &self,
        query: Query,
        reason: &str,
        tell: impl FnMut(&RewriteProgress) -> ControlFlow<()>,
    ) -> Result<Erasure, Error> {
        let mut throttle = RewriteThrottle::rewriting(Some(Box::new(tell)), None);
        erase::erase(self.engine(), &|| self.forget_states(), query, reason, &mut throttle)
    }

    /// Schedules what an earlier process left unfinished, shortly after opening, on the thread for long jobs.
    pub(super) fn finish_erasing(&self) {
        const SOON: Duration = Duration::from_millis(100);
        match erase::is_unfinished(self.engine()) {
            Ok(false) => {}
            Ok(true) => {
                let store = self.downgrade();
                let resume = move || match store.upgrade()?.resume_erasing() {
                    Ok(true) => None,
                    Ok(false) => Some(SOON),
                    Err(error) => {
                        tracing::warn!(%error, "what was to be erased is not; erase again, or open the store again");
                        None
                    }
                };
                self.engine().rewrite_thread.run_in(SOON, Box::new(resume));
            }
            Err(error) => tracing::warn!(%error, "whether something is to be erased still is not known"),
        }
    }

    fn resume_erasing(&self) -> Result<bool, Error> {
        let rewriter = self.engine().rewrite_thread.clone();
        let tell = move |_: &RewriteProgress| rewriter.go_on();
        let mut throttle = RewriteThrottle::rewriting(Some(Box::new(tell)), None);
        erase::resume(self.engine(), &|| self.forget_states(), &mut throttle)
    }

    /// Removes every saved state, in memory and on disk.
    fn forget_states(&self) -> Result<(), Error> {
        self.cache().void(self.engine().disk.as_ref())
    }
}
