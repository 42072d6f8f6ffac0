//! The facade's ways to keep history and to go back in it.
//!
//! Row: store. No logic lives here.

use crate::error::Error;
use crate::ops::checkpoint::{self, Checkpoint};

use super::Store;

/// Places to go back to.
impl Store {
    /// Gives the place where the log stands a name, durably, to go back to it. It is an event of the stream
    /// `$ledger`. A name may be taken again; the newest counts.
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
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) and [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) for a
    /// name that is none (1 to 255 bytes without control characters, not beginning with `$`); those of [`Store::append`].
    pub fn checkpoint(&self, name: &str, reason: &str) -> Result<Checkpoint, Error> {
        checkpoint::take(self.engine(), name, reason)
    }

    /// All checkpoints, in the order they were taken.
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub fn checkpoints(&self) -> Result<Vec<Checkpoint>, Error> {
        checkpoint::all(self.engine())
    }
}
