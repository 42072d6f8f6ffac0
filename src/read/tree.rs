//! The tree of the log up to its durable head, from the trees of its segments.
//!
//! Nothing is hashed before the first question. A sealed segment has its hashes in its tree file; without
//! one, the file is built. Of the segment that is still written to, the durable frames are hashed and
//! remembered, so the next question hashes only what is new. Tested by tests/it/tree.rs.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::event::{TreeHead, TreeProof};
use crate::format::{
    Cover, Damage, Gone, SegmentId, Subtree, Subtrees, TILE_LEVEL, TreeFile, TreeHash, frame_leaves,
    tree_consistency, tree_inclusion,
};
use crate::log::{Advance, SegmentCursor, SegmentFile};
use crate::types::{Error, Position};

use super::reader::EventLookup;
use super::segment::Segment;
use super::segment_cache::{SealedSegment, SegmentTree};
use super::view::{ChainPosition, Snapshot};

/// What is remembered of the tree between two questions. Nothing in it is needed.
#[derive(Default)]
pub(crate) struct LogTree {
    /// In the order of the log.
    parts: Mutex<Vec<Arc<TreePart>>>,
}

/// The tree of one segment, up to its end or to the durable head.
#[derive(Clone)]
struct TreePart {
    id: SegmentId,
    end: ChainPosition,
    cover: Cover,
    /// All hashes of a segment that may grow. Those of a sealed segment are in its tree file.
    growing: Option<SegmentTree>,
}

impl LogTree {
    /// The root of all durable events.
    ///
    /// # Errors
    ///
    /// Here and below: if a segment is damaged or cannot be read, or events were removed from it.
    pub(crate) fn head(&self, snapshot: &Snapshot) -> Result<TreeHead, Error> {
        let roots = self.roots(snapshot)?;
        let ChainPosition { position, chain } = snapshot.durable;
        // Not from subtrees: those end within segments, and their roots are in other places.
        let mut cover = Cover::new(0);
        roots.parts.iter().for_each(|(_, part)| cover.append(&part.cover));
        let root = cover.tree_root().expect("the first part begins at the first event");
        Ok(TreeHead { size: position.get(), root, chain })
    }

    /// The proof that an event is in the tree of a size.
    pub(crate) fn proof(
        &self,
        snapshot: &Snapshot,
        position: Position,
        size: u64,
    ) -> Result<TreeProof, Error> {
        check_size(snapshot, size)?;
        let leaf = position.get().checked_sub(1).filter(|leaf| *leaf < size).ok_or_else(|| {
            Error::invalid(format!(
                "the tree of size {size} has the positions up to {size}, and not {position}"
            ))
        })?;
        let roots = self.roots(snapshot)?;
        let event = EventLookup::default().event_at(snapshot, position)?.ok_or_else(|| removed(position))?;
        Ok(TreeProof { leaf: event.tree_leaf(), size, hashes: tree_inclusion(&roots, leaf, size)? })
    }

    /// The proof that the tree of size `new` begins with the tree of size `old`.
    pub(crate) fn consistency(
        &self,
        snapshot: &Snapshot,
        old: u64,
        new: u64,
    ) -> Result<Vec<TreeHash>, Error> {
        check_size(snapshot, new)?;
        if old > new {
            return Err(Error::invalid(format!(
                "the tree of size {old} is larger than the one of size {new}"
            )));
        }
        tree_consistency(&self.roots(snapshot)?, old, new)
    }

    /// Forgets everything: the tree files may be others now.
    pub(crate) fn forget(&self) {
        self.parts.lock().clear();
    }

    /// The trees of all segments up to the durable head.
    fn roots<'a>(&self, snapshot: &'a Snapshot) -> Result<LogRoots<'a>, Error> {
        let durable = snapshot.durable;
        if durable.position == Position::START {
            return Ok(LogRoots { snapshot, parts: Vec::new() });
        }
        let mut remembered = self.parts.lock();
        let mut known: BTreeMap<SegmentId, Arc<TreePart>> =
            std::mem::take(&mut *remembered).into_iter().map(|part| (part.id, part)).collect();
        let mut parts = Vec::new();
        // The part before ends here.
        let mut end = ChainPosition::default();
        let mut files = snapshot.segments.chunk_by(|one, other| one.shares_file(other)).peekable();
        while let Some(segment) = files.next().and_then(<[_]>::last)
            && end.position < durable.position
        {
            if Some(segment.id().first_position) != end.position.get().checked_add(1) {
                return Err(missing(end.position));
            }
            let next = files.peek().and_then(|next| next.first());
            let last = next.map_or(u64::MAX, |next| next.first_position().saturating_sub(1));
            let part = part_of(segment, last, durable, known.remove(&segment.id()))?;
            end = part.end;
            parts.push((segment.clone(), part));
        }
        if end != durable {
            return Err(missing(end.position));
        }
        *remembered = parts.iter().map(|(_, part)| part.clone()).collect();
        Ok(LogRoots { snapshot, parts })
    }
}

/// Whether this is a whole segment, and all of it is durable.
fn is_durable(sealed: &SealedSegment, durable: ChainPosition) -> bool {
    sealed.is_whole() && sealed.meta().bound.last_position <= durable.position.get()
}

/// The tree of a segment that has the positions up to `last`, as far as they are durable.
fn part_of(
    segment: &Segment,
    last: u64,
    durable: ChainPosition,
    known: Option<Arc<TreePart>>,
) -> Result<Arc<TreePart>, Error> {
    let id = segment.id();
    if let Some(sealed) = segment.as_sealed().filter(|sealed| is_durable(sealed, durable)) {
        let bound = &sealed.meta().bound;
        let end = ChainPosition { position: bound.last_position.into(), chain: bound.chain };
        return match known {
            Some(part) if part.end == end => Ok(part),
            known => {
                let begun = known.and_then(|part| Arc::unwrap_or_clone(part).growing);
                Ok(Arc::new(TreePart { id, end, cover: sealed.tree_cover(begun)?, growing: None }))
            }
        };
    }
    if let Some(part) = known.as_ref().filter(|part| part.growing.is_some() && part.end == durable) {
        return Ok(part.clone());
    }
    let file = segment.file()?;
    let begun = known.and_then(|part| Arc::unwrap_or_clone(part).growing);
    let mut tree = begun.unwrap_or_else(|| SegmentTree::start(file));
    tree.advance(file, u32::MAX, last.min(durable.position.get()))?;
    let end = ChainPosition::from(&tree.end);
    if end.position == durable.position && end.chain != durable.chain {
        let what = "the chain here is not that of the durable head";
        return Err(Error::corrupt(&file.path, tree.end.offset.into(), what));
    }
    Ok(Arc::new(TreePart { id, end, cover: tree.hashes.pieces().joined(), growing: Some(tree) }))
}

/// The roots of a snapshot's subtrees.
struct LogRoots<'a> {
    snapshot: &'a Snapshot,
    parts: Vec<(Arc<Segment>, Arc<TreePart>)>,
}

impl Subtrees for LogRoots<'_> {
    type Error = Error;

    fn root(&self, subtree: Subtree) -> Result<TreeHash, Error> {
        let leaves = subtree.leaves();
        let mut cover = Cover::new(leaves.start);
        let first = self.parts.partition_point(|(_, part)| part.cover.leaves().end <= leaves.start);
        for (segment, part) in self.parts.iter().skip(first) {
            let own = part.cover.leaves();
            if own.start >= leaves.end {
                break;
            }
            if leaves.start <= own.start && own.end <= leaves.end {
                cover.append(&part.cover);
            } else {
                let within = own.start.max(leaves.start)..own.end.min(leaves.end);
                cover.append(&self.within(segment, part, within)?);
            }
        }
        Ok(cover.root_of(subtree).expect("the parts have every leaf up to the durable head"))
    }
}

impl LogRoots<'_> {
    /// The cover of some leaves of a segment.
    fn within(&self, segment: &Segment, part: &TreePart, leaves: Range<u64>) -> Result<Cover, Error> {
        let read;
        let hashes = match (&part.growing, segment.as_sealed()) {
            (Some(tree), _) => &tree.hashes,
            (None, Some(sealed)) => {
                read = sealed.tree_file()?;
                &read
            }
            (None, None) => unreachable!("only a sealed segment has its hashes in a file"),
        };
        match hashes.pieces().within(&leaves) {
            Ok(cover) => Ok(cover),
            Err(piece) if piece.level() > TILE_LEVEL => Err(Gone::within(piece).into()),
            Err(_) => match self.hash_leaves(hashes, leaves.clone())? {
                Some(cover) => Ok(cover),
                None => walk_leaves(segment.file()?, leaves),
            },
        }
    }

    /// Reads events of one tile, and hashes them. Large events are not read. `None` if an event was removed.
    fn hash_leaves(&self, hashes: &TreeFile, leaves: Range<u64>) -> Result<Option<Cover>, Error> {
        let mut lookup = EventLookup::default();
        let mut cover = Cover::new(leaves.start);
        for leaf in leaves {
            let position = Position::from(leaf).plus(1);
            let hash = match hashes.large_leaf(position.get()) {
                Some(hash) => *hash,
                None => {
                    let Some(event) = lookup.event_at(self.snapshot, position)? else { return Ok(None) };
                    event.tree_leaf().hash()
                }
            };
            cover.push_leaf(hash);
        }
        Ok(Some(cover))
    }
}

/// The cover of some leaves of a segment from which events were removed: walks it from its beginning.
///
/// # Errors
///
/// If it is damaged or cannot be read; [`ErrorKind::Gone`] if the leaves begin or end within a removed
/// subtree.
fn walk_leaves(file: &SegmentFile, leaves: Range<u64>) -> Result<Cover, Error> {
    let mut cover = Cover::new(leaves.start);
    let mut cursor = SegmentCursor::new(file, u32::MAX)?.trusting_chain();
    while cover.leaves().end < leaves.end {
        let offset = cursor.end().offset;
        let damaged = |damage: Damage| file.damaged(offset.into(), &damage);
        match cursor.advance()? {
            Advance::Frame { frame, before, after } if after.position > leaves.start => {
                for (leaf, hash) in (before.position..).zip(frame_leaves(&frame, before.position + 1)) {
                    let (hash, _) = hash.map_err(damaged)?;
                    if leaves.contains(&leaf) {
                        cover.push_leaf(hash);
                    }
                }
            }
            Advance::Attestation { attestation, .. } => {
                for (subtree, root) in attestation.cover.parts() {
                    let own = subtree.leaves();
                    if leaves.start <= own.start && own.end <= leaves.end {
                        cover.push_subtree(*subtree, *root);
                    } else if own.start < leaves.end && leaves.start < own.end {
                        return Err(Gone::within(*subtree).into());
                    }
                }
            }
            Advance::Frame { .. } => {}
            Advance::End(_) => return Err(damaged(Damage::Bad("the segment ends before its last event"))),
        }
    }
    Ok(cover)
}

fn check_size(snapshot: &Snapshot, size: u64) -> Result<(), Error> {
    let durable = snapshot.durable.position;
    if size <= durable.get() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the durable head is at position {durable}; there is no tree of size {size} yet"
    )))
}

/// What is left of a damaged store has no tree.
fn missing(position: Position) -> Error {
    Error::invalid(format!("events behind position {position} are missing, so the store has no tree"))
}

fn removed(position: Position) -> Error {
    Error::gone(
        format!("the event at position {position} was removed, so only proofs made before show it"),
        None,
    )
}

impl From<Gone> for Error {
    fn from(gone: Gone) -> Error {
        let Gone { before, behind } = gone;
        let text = format!(
            "the root is gone: the events from {} to {behind} were removed together; the nearest sizes are {before} and {behind}",
            before.saturating_add(1)
        );
        Error::gone(text, Some([before, behind]))
    }
}
