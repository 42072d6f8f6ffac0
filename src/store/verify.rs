//! The facade: verifying, and comparing with a head that was kept elsewhere.
//!
//! Row: store. No logic lives here.

use crate::maintenance::{Verify, verify_files_as, verify_open};
use crate::read::reader;
use crate::types::{Error, Head, Position, VerifyReport};

use super::{Builder, Store};

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

impl Store {
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
