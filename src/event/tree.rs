//! Heads, leaves and proofs of the tree over all events, as plain data. With them, a reader without the log
//! checks what the log holds. Checking needs no store.

use crate::format::{Leaf, consistency_holds, inclusion_holds};
use crate::types::{Position, Version};

/// The root of the tree over the first `size` events of a store.
///
/// With a head that was kept elsewhere, the store proves which events were there. It also proves that nothing
/// up to the head was changed, moved, regrouped or put in between. The tree does **not** prove that
/// [`TreeLeaf::recorded_at`] is true, or that a removal was allowed. Nor does it prove that what was never
/// appended did not happen, or that other readers were shown the same head.
///
/// The tree is that of RFC 6962 and RFC 9162 with SHA-256, over positions; the store's own events are in it.
/// Erasing, merging, backups, forks and restores keep the root of a size. docs/tree-file.md has every byte.
///
/// ```
/// use annals::{Position, Raw, Store};
///
/// let store = Store::in_memory()?;
/// store.append("account:alice", &Raw("account.deposited", &500))?;
/// store.append("account:alice", &Raw("account.withdrawn", &200))?;
/// let kept = store.tree_head()?; // to be kept elsewhere: size, root and chain
///
/// store.append("account:alice", &Raw("account.closed", &()))?;
/// let head = store.tree_head()?;
/// let extension = store.tree_consistency(kept.size, head.size)?;
/// assert!(head.extends(&kept, &extension));
///
/// let event = store.at(Position::from(1))?.unwrap();
/// let proof = store.tree_proof(event.position(), kept.size)?;
/// assert!(kept.includes(&proof) && proof.leaf == event.tree_leaf());
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TreeHead {
    /// The number of events, which is also the position of the last one.
    pub size: u64,
    /// The root of their tree.
    pub root: [u8; 32],
    /// The chain hash at that position; see [`Head::chain`](crate::Head::chain). No proof uses it.
    pub chain: [u8; 32],
}

impl TreeHead {
    /// Whether a proof shows that its event is in this tree, under the event's own position.
    #[must_use]
    pub fn includes(&self, proof: &TreeProof) -> bool {
        let Some(leaf) = proof.leaf.position.get().checked_sub(1) else { return false };
        proof.size == self.size
            && inclusion_holds(&proof.leaf.hash(), leaf, self.size, &proof.hashes, &self.root)
    }

    /// Whether the hashes show that this tree begins with the tree of an earlier head. They are those of
    /// [`Store::tree_consistency`](crate::Store::tree_consistency).
    #[must_use]
    pub fn extends(&self, earlier: &TreeHead, hashes: &[[u8; 32]]) -> bool {
        consistency_holds(earlier.size, &earlier.root, self.size, &self.root, hashes)
    }
}

/// What the tree holds of one event. Two events with equal leaves agree in content, place and append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TreeLeaf {
    /// The index of the event in its append, from 0.
    pub index: u16,
    /// The number of events of the append.
    pub events: u16,
    /// The position of the event.
    pub position: Position,
    /// The time at which the store recorded the event, in microseconds since 1970.
    pub recorded_at: u64,
    /// The version of the event in its stream.
    pub version: Version,
    /// The content hash of the event, which erasing keeps.
    pub record: [u8; 32],
    /// The chain hash of the append.
    pub chain: [u8; 32],
}

impl TreeLeaf {
    /// The hash of the leaf.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let leaf = Leaf {
            index: self.index,
            events: self.events,
            position: self.position.get(),
            recorded_at: self.recorded_at,
            version: self.version.get(),
            record: self.record,
            chain: self.chain,
        };
        leaf.hash()
    }
}

/// Shows that one event is in the tree of a size; see [`TreeHead::includes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeProof {
    /// The event.
    pub leaf: TreeLeaf,
    /// The size of the tree.
    pub size: u64,
    /// The path from the leaf to the root, as in RFC 9162, section 2.1.3.
    pub hashes: Vec<[u8; 32]>,
}
