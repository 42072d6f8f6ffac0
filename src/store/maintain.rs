//! The facade's ways to have less in a store.
//!
//! Row: store. No logic lives here.

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
    /// Reads the whole store and checks it: checksums, the hash chain, positions, versions, seals.
    /// Finds all breaks, not only the first. Takes about a second per gigabyte and core.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if a file cannot be read; damage is not an error but
    /// in the report.
    pub fn verify(&self) -> Result<VerifyReport, Error> {
        Verify::new().run(self)
    }

    /// Whether the history up to a head that was kept elsewhere is the beginning of this store's, by the chain hash that stands there now.
    ///
    /// It reads one event. That the events before it are still those the chain was made of is what [`Verify::expect`] proves.
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
    /// As [`Store::get`]. A position whose events were removed since is not found: verify against the head instead.
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
    /// Verifies an open store up to its head; appends and reads go on meanwhile. One that was opened to read
    /// is verified by its files, as [`Verify::run_files`] does.
    ///
    /// # Errors
    ///
    /// As [`Store::verify`], and [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if a head that is expected lies in front of where verifying begins.
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
    /// Checks a store that need not open: all files, all breaks. Changes nothing. Beside a writer it checks what that has made durable.
    ///
    /// # Errors
    ///
    /// As [`Store::verify`].
    pub fn verify(self) -> Result<VerifyReport, Error> {
        Verify::new().run_files(self)
    }

    /// Checks a store that need not open, as [`Builder::verify`] does, and that it holds the history up to `head`,
    /// unchanged: a head that was kept elsewhere proves that nothing before it was altered or is missing. [`Verify`] can do
    /// more: several heads, a rate, progress.
    ///
    /// # Errors
    ///
    /// As [`Store::verify`].
    pub fn verify_against(self, head: &Head) -> Result<VerifyReport, Error> {
        Verify::new().expect(*head).run_files(self)
    }
}

/// Checks a backup against the head that [`Store::backup`] reported: every checksum, the hash chain, and that it
/// holds the history up to there. See [`Store::backup`] for an example.
///
/// # Errors
///
/// As [`Store::verify`].
pub fn verify_backup(backup: impl AsRef<Path>, head: &Head) -> Result<VerifyReport, Error> {
    Store::builder(backup).verify_against(head)
}

/// Index files, and where everything is.
impl Store {
    /// Builds the index file of every sealed segment again, whatever there is of it, and says how many that were.
    /// Never needed for what a store answers: an index that is missing or damaged is built by whoever needs it.
    /// This has them all built now. Readers and appends go on meanwhile.
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
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the store was opened to read,
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if a segment is damaged,
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled) if `tell` broke it off; those built by then are there.
    pub fn rebuild_indexes(
        &self,
        tell: impl FnMut(&IndexProgress) -> ControlFlow<()>,
    ) -> Result<usize, Error> {
        rebuild_indexes(self.engine(), Box::new(tell))
    }

    /// Where everything lives and why: files, sizes, options. For people; print it.
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
    /// Erases payload and metadata of all events that match and are there, from everything the store keeps: segments, caches,
    /// memory, quarantine. That they happened stays: entity, kind, tags, time, cause, version, id, position; the chain and
    /// every head taken before still verify. Whoever reads them gets [`ErrorKind::Erased`](crate::ErrorKind::Erased),
    /// and a [`Projection`](crate::Projection) is told by `erased`.
    ///
    /// It is recorded in the stream `$ledger`, with query and reason, before and after; what a stop interrupts goes on when the
    /// store is opened again. Segments that hold such an event are written anew, one after the other, beside appends and
    /// reads. States folded before are folded again.
    ///
    /// Out of reach are copies: backups, forks, blocks that a disk still has of deleted files, and events that somebody
    /// holds in memory just now. The store's own events stay as they are; a timer that is set holds what it will append.
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
    /// - [`ErrorKind::Invalid`](crate::ErrorKind::Invalid): the query names events of the store's own.
    /// - [`ErrorKind::NoSpace`](crate::ErrorKind::NoSpace): a segment cannot be written anew beside the old one. Free some,
    ///   and erase again.
    /// - [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt): such an event stands in a damaged segment.
    /// - Those of [`Store::append`].
    ///
    /// After an error it is unfinished, unless the query was refused: erase again, or open the store again.
    pub fn erase(&self, query: Query, reason: &str) -> Result<Erasure, Error> {
        erase::erase(
            self.engine(),
            &|| self.forget_states(),
            query,
            reason,
            &mut RewriteThrottle::rewriting(None, None),
        )
    }

    /// The same, and tells how far it is, about every megabyte and at each segment. To break it off leaves it unfinished
    /// ([`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled)). `tell` must not erase.
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

    /// Finishes what an earlier process was erasing, once opening is over, on the thread for what takes long.
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
                self.engine().rewriter.run_in(SOON, Box::new(resume));
            }
            Err(error) => tracing::warn!(%error, "whether something is to be erased still is not known"),
        }
    }

    fn resume_erasing(&self) -> Result<bool, Error> {
        let rewriter = self.engine().rewriter.clone();
        let tell = move |_: &RewriteProgress| rewriter.go_on();
        let mut throttle = RewriteThrottle::rewriting(Some(Box::new(tell)), None);
        erase::resume(self.engine(), &|| self.forget_states(), &mut throttle)
    }

    /// Removes every cached state, in memory and on disk.
    fn forget_states(&self) -> Result<(), Error> {
        self.cache().void(self.engine().disk.as_ref())
    }
}
