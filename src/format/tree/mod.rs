//! The Merkle tree over all events of a store: RFC 6962 and RFC 9162, with SHA-256, over positions.
//!
//! The leaf of an event has the index position - 1, and the store's own events are leaves too. A leaf holds
//! what erasing and compacting keep, so the root of a size never changes. Recovery and `verify` rely on the
//! BLAKE3 chain. The tree serves readers who have no log, only a root that they kept. To them the store
//! proves that an event is there, and that a later root extends the kept one.
//!
//! A **size** is a number of leaves: the tree of size 5 has the events up to position 5. A **subtree** is
//! complete and aligned: 2^level leaves, the first of them at a multiple of 2^level. Of removed events only
//! the roots of maximal subtrees are left. So the root of a size is gone if the size lies strictly inside
//! such a subtree, and no other root is gone.
//!
//! Everything here is pure, and no append computes any of it: leaves are computed from the log, on request.

mod cover;
mod file;
mod proof;

pub(crate) use cover::{Cover, Subtree, cover_of};
pub(crate) use file::{POSITIONS_END, TILE_LEVEL, TreeFile, TreeFileHead};
#[cfg(test)]
pub(crate) use proof::root;
pub(crate) use proof::{Gone, Subtrees, consistency, consistency_holds, inclusion, inclusion_holds};

use sha2::{Digest, Sha256};

use super::bytes::{Damage, put};
use super::chain::Hash;
use super::frame::Frame;

/// A SHA-256 hash: of a leaf or of a subtree.
pub(crate) type TreeHash = [u8; 32];

/// The first byte of what is hashed, so that no leaf passes for a node.
const LEAF: u8 = 0x00;
const NODE: u8 = 0x01;

/// The first field of each entry: an event, in the first version of this layout.
const EVENT_1: &[u8; 4] = b"ev01";

/// The offset of each field of a leaf's entry.
const INDEX_AT: usize = EVENT_1.len();
const EVENTS_AT: usize = INDEX_AT + 2;
const POSITION_AT: usize = EVENTS_AT + 2;
const RECORDED_AT_AT: usize = POSITION_AT + 8;
const VERSION_AT: usize = RECORDED_AT_AT + 8;
const RECORD_AT: usize = VERSION_AT + 8;
const CHAIN_AT: usize = RECORD_AT + size_of::<Hash>();
pub(crate) const ENTRY_BYTES: usize = CHAIN_AT + size_of::<Hash>();
const _: () = assert!(ENTRY_BYTES == 96);

/// What the tree holds of one event.
///
/// Ids, default correlations and causes by index depend on chain, index and count. With these in the leaf, a
/// proof finds an append that was regrouped or got other ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// The index of the event in its append, and how many events the append has.
    pub(crate) index: u16,
    pub(crate) events: u16,
    pub(crate) position: u64,
    pub(crate) recorded_at: u64,
    pub(crate) version: u64,
    /// The content hash of the record, which outlives erasure.
    pub(crate) record: Hash,
    /// The chain of the frame.
    pub(crate) chain: Hash,
}

impl Leaf {
    /// The bytes that are hashed. A verifier builds the same bytes from a proof.
    pub(crate) fn entry(&self) -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        put(&mut out, 0, EVENT_1);
        put(&mut out, INDEX_AT, &self.index.to_le_bytes());
        put(&mut out, EVENTS_AT, &self.events.to_le_bytes());
        put(&mut out, POSITION_AT, &self.position.to_le_bytes());
        put(&mut out, RECORDED_AT_AT, &self.recorded_at.to_le_bytes());
        put(&mut out, VERSION_AT, &self.version.to_le_bytes());
        put(&mut out, RECORD_AT, &self.record);
        put(&mut out, CHAIN_AT, &self.chain);
        out
    }

    pub(crate) fn hash(&self) -> TreeHash {
        leaf(&self.entry())
    }
}

/// The leaf of each record of a frame whose first event is at `first`, gone ones included, and the length of
/// the record.
pub(crate) fn frame_leaves<'a>(
    frame: &'a Frame<'_>,
    first: u64,
) -> impl Iterator<Item = Result<(TreeHash, usize), Damage>> + use<'a> {
    let header = &frame.header;
    // The numbers come second: there is no index behind that of the last of 65,535 events.
    frame.all_records().zip(0..).map(move |(record, index)| {
        let record = record?;
        let leaf = Leaf {
            index,
            events: header.events(),
            position: first.saturating_add(index.into()),
            recorded_at: header.recorded_at(),
            version: header.version_or(index, record.version()),
            record: record.content(),
            chain: header.chain(),
        };
        Ok((leaf.hash(), record.bytes().len()))
    })
}

/// The root of the tree without leaves.
pub(crate) fn empty() -> TreeHash {
    Sha256::digest([]).into()
}

/// The hash of a leaf with this entry.
pub(crate) fn leaf(entry: &[u8]) -> TreeHash {
    Sha256::new().chain_update([LEAF]).chain_update(entry).finalize().into()
}

/// The hash of the node above two neighbouring subtrees.
pub(crate) fn node(left: &TreeHash, right: &TreeHash) -> TreeHash {
    Sha256::new().chain_update([NODE]).chain_update(left).chain_update(right).finalize().into()
}

/// The root of a tree, from the roots of the maximal subtrees that cover all its leaves, left to right.
pub(crate) fn root_of_cover(roots: &[TreeHash]) -> TreeHash {
    let mut rest = roots.iter().rev();
    let Some(last) = rest.next() else { return empty() };
    rest.fold(*last, |right, left| node(left, &right))
}
