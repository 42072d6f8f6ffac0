//! The facade's ways to have less in a store.
//!
//! Row: store. No logic lives here.

use std::ops::ControlFlow;
use std::time::Duration;

use crate::maintenance::{Throttle, erase};
use crate::types::{Erasure, Error, Query, RewriteProgress};

use super::Store;

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
        erase::erase(self.engine(), &|| self.forget_states(), query, reason, &mut Throttle::new(None, None))
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
        let mut pace = Throttle::new(Some(Box::new(tell)), None);
        erase::erase(self.engine(), &|| self.forget_states(), query, reason, &mut pace)
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
                self.engine().rewrite_thread.run_in(SOON, Box::new(resume));
            }
            Err(error) => tracing::warn!(%error, "whether something is to be erased still is not known"),
        }
    }

    fn resume_erasing(&self) -> Result<bool, Error> {
        let rewriter = self.engine().rewrite_thread.clone();
        let tell = move |_: &RewriteProgress| rewriter.go_on();
        erase::resume(self.engine(), &|| self.forget_states(), &mut Throttle::new(Some(Box::new(tell)), None))
    }

    /// Removes every cached state, in memory and on disk.
    fn forget_states(&self) -> Result<(), Error> {
        self.cache().void(self.engine().disk.as_ref())
    }
}
