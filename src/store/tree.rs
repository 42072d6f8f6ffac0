//! The facade of the tree over all events: heads and proofs.

use crate::event::{TreeHead, TreeProof};
use crate::types::{Error, Position};

use super::Store;

/// Proofs for readers who have no log.
impl Store {
    /// The root of the tree over all durable events; [`TreeHead`] says what a head proves, and what not.
    ///
    /// The first call hashes the log, unless the store has tree files
    /// ([`Builder::tree`](crate::Builder::tree)), and writes them if it is open for writing. Later calls hash
    /// what is new. Appends do not wait for any of it.
    ///
    /// # Errors
    ///
    /// As [`Store::get`]; [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if a part of a damaged store is
    /// missing.
    pub fn tree_head(&self) -> Result<TreeHead, Error> {
        self.core.tree.head(&self.engine().snapshot()?)
    }

    /// Proves that the event at a position is in the tree of the first `size` events. A reader checks the
    /// proof with the head of that size: [`TreeHead::includes`].
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Invalid`](crate::ErrorKind::Invalid): the size is beyond the durable head, or the
    ///   position is beyond the size.
    /// - [`ErrorKind::Gone`](crate::ErrorKind::Gone): the event was removed, or the root of this size went
    ///   with removed events. [`Error::nearest_sizes`] has the nearest sizes that can be proven.
    /// - Those of [`Store::tree_head`].
    pub fn tree_proof(&self, position: Position, size: u64) -> Result<TreeProof, Error> {
        self.core.tree.proof(&self.engine().snapshot()?, position, size)
    }

    /// Proves that the tree of the first `new` events begins with the tree of the first `old` events. A
    /// reader checks the hashes with both heads: [`TreeHead::extends`].
    ///
    /// # Errors
    ///
    /// As [`Store::tree_proof`]; [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if `old` is more than
    /// `new`.
    pub fn tree_consistency(&self, old: u64, new: u64) -> Result<Vec<[u8; 32]>, Error> {
        self.core.tree.consistency(&self.engine().snapshot()?, old, new)
    }
}
