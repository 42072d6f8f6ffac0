//! Ranges of leaves as subtrees: which ones cover a range, and their roots as the leaves come.
//!
//! The **cover** of a range is the sequence of the largest complete, aligned subtrees within it, in order.
//! Each range has one. For n leaves it has at most 2 log2 n subtrees: they grow, and then shrink. The leaves
//! from 3 to 11 have the cover `3`, `4 to 7`, `8 to 11`.

use std::ops::Range;

use super::super::bytes::Damage;
use super::{TreeHash, node, root_of_cover};

/// A complete subtree: 2^level leaves from the leaf index x 2^level on. Its last leaf is before 2^64 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subtree {
    level: u32,
    index: u64,
}

impl Subtree {
    /// `None` if no position leads there.
    pub(crate) fn new(level: u32, index: u64) -> Option<Subtree> {
        let leaves = 1_u64.checked_shl(level)?;
        index.checked_add(1)?.checked_mul(leaves)?;
        Some(Subtree { level, index })
    }

    /// The subtree of a level that begins at a leaf; `None` if none begins there.
    pub(crate) fn at(start: u64, level: u32) -> Option<Subtree> {
        let index = start.checked_shr(level)?;
        let subtree = Subtree::new(level, index)?;
        (subtree.leaves().start == start).then_some(subtree)
    }

    pub(crate) fn level(self) -> u32 {
        self.level
    }

    #[cfg(test)]
    pub(crate) fn index(self) -> u64 {
        self.index
    }

    /// The indexes of its leaves.
    pub(crate) fn leaves(self) -> Range<u64> {
        let bound = |index: u64| index.checked_shl(self.level).expect("a subtree ends before 2^64");
        bound(self.index)..bound(self.index.saturating_add(1))
    }

    /// The subtree of this one and its right sibling; `None` if the other is not the right sibling.
    fn with_right_sibling(self, other: Subtree) -> Option<Subtree> {
        let is_left = self.index.is_multiple_of(2);
        let is_next = self.level == other.level && self.index.checked_add(1) == Some(other.index);
        (is_left && is_next).then_some(Subtree { level: self.level.saturating_add(1), index: self.index / 2 })
    }
}

/// The cover of a range of leaves.
pub(crate) fn cover_of(leaves: Range<u64>) -> impl Iterator<Item = Subtree> + Clone {
    let largest_at = move |start: u64| {
        let level = leaves.end.checked_sub(start)?.checked_ilog2()?;
        // The first leaf of a subtree is a multiple of its size; 0 is one of all sizes.
        Subtree::at(start, level.min(start.trailing_zeros()))
    };
    std::iter::successors(largest_at(leaves.start), move |subtree| largest_at(subtree.leaves().end))
}

/// The roots that cover a range of leaves, kept up to date while leaves and removed runs come in order.
///
/// The memory it needs grows with the logarithm of the leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cover {
    start: u64,
    /// Siblings of this level are left apart.
    level_max: u32,
    parts: Vec<(Subtree, TreeHash)>,
}

impl Cover {
    /// The cover of no leaves; the first one to come has the index `start`.
    pub(crate) fn new(start: u64) -> Cover {
        Cover { start, level_max: u32::MAX, parts: Vec::new() }
    }

    /// A cover whose leaves are never joined to more than 2^`level` of them. Only a removed run brings larger
    /// subtrees. There is a part for each 2^`level` leaves.
    pub(crate) fn in_tiles(start: u64, level: u32) -> Cover {
        Cover { level_max: level, ..Cover::new(start) }
    }

    /// The indexes of the leaves that came.
    pub(crate) fn leaves(&self) -> Range<u64> {
        let end = self.parts.last().map_or(self.start, |(subtree, _)| subtree.leaves().end);
        self.start..end
    }

    /// The subtrees and their roots, left to right.
    pub(crate) fn parts(&self) -> &[(Subtree, TreeHash)] {
        &self.parts
    }

    /// The roots alone: what an attestation holds of the leaves.
    pub(crate) fn roots(&self) -> impl ExactSizeIterator<Item = &TreeHash> {
        self.parts.iter().map(|(_, root)| root)
    }

    /// Takes the next leaf.
    pub(crate) fn push_leaf(&mut self, leaf: TreeHash) {
        let subtree = Subtree::new(0, self.leaves().end).expect("a position has 48 bits");
        self.push(subtree, leaf);
    }

    /// Takes the next leaves, of which only the roots of their cover are known. Takes nothing if it fails.
    ///
    /// # Errors
    ///
    /// [`Damage::Forbidden`] if the cover of these leaves has another number of roots.
    pub(crate) fn push_run(&mut self, leaves: u64, roots: &[TreeHash]) -> Result<(), Damage> {
        const MISFIT: Damage = Damage::Forbidden("removed positions have another number of roots");
        let start = self.leaves().end;
        let end = start.checked_add(leaves).ok_or(MISFIT)?;
        let subtrees = cover_of(start..end);
        if subtrees.clone().count() != roots.len() {
            return Err(MISFIT);
        }
        for (subtree, root) in subtrees.zip(roots) {
            self.push(subtree, *root);
        }
        Ok(())
    }

    /// Takes a subtree that begins where the cover ends.
    pub(crate) fn push_subtree(&mut self, subtree: Subtree, root: TreeHash) {
        assert_eq!(subtree.leaves().start, self.leaves().end, "the caller appends neighbours");
        self.push(subtree, root);
    }

    /// Takes all that another cover has; the other one begins where this one ends. The result has at most as
    /// many roots as both had: each root either stays, or becomes a part of another.
    pub(crate) fn append(&mut self, next: &Cover) {
        assert_eq!(next.start, self.leaves().end, "the caller appends neighbours");
        for (subtree, root) in &next.parts {
            self.push(*subtree, *root);
        }
    }

    /// The next subtree, which begins where the cover ends. Two siblings become their parent at once. So no
    /// subtree is left in parts: if it were, its smallest such subtree would be two siblings side by side.
    pub(super) fn push(&mut self, mut subtree: Subtree, mut root: TreeHash) {
        while subtree.level < self.level_max
            && let Some((left, left_root)) = self.parts.last()
            && let Some(parent) = left.with_right_sibling(subtree)
        {
            subtree = parent;
            root = node(left_root, &root);
            self.parts.pop();
        }
        self.parts.push((subtree, root));
    }

    /// The same leaves under the fewest roots, also if this cover is in tiles.
    pub(crate) fn joined(&self) -> Cover {
        let mut joined = Cover::new(self.start);
        joined.append(self);
        joined
    }

    /// The root of the tree that has these leaves and no others; `None` if leaves before them are missing.
    pub(crate) fn tree_root(&self) -> Option<TreeHash> {
        let roots: Vec<TreeHash> = self.joined().roots().copied().collect();
        (self.start == 0).then(|| root_of_cover(&roots))
    }

    /// The root of a subtree; `None` if the cover does not have all parts of it.
    pub(crate) fn root_of(&self, subtree: Subtree) -> Option<TreeHash> {
        let leaves = subtree.leaves();
        let from = self.parts.partition_point(|(part, _)| part.leaves().start < leaves.start);
        let to = self.parts.partition_point(|(part, _)| part.leaves().end <= leaves.end);
        let mut joined = Cover::new(leaves.start);
        for (part, root) in self.parts.get(from..to)? {
            joined.push(*part, *root);
        }
        match joined.parts.as_slice() {
            [(found, root)] if *found == subtree => Some(*root),
            _ => None,
        }
    }

    /// The roots that cover some of the leaves. `Err` has the first part that is only partly among them.
    pub(crate) fn within(&self, leaves: &Range<u64>) -> Result<Cover, Subtree> {
        let from = self.parts.partition_point(|(part, _)| part.leaves().end <= leaves.start);
        let mut within = Cover::new(leaves.start);
        for (part, root) in self.parts.iter().skip(from) {
            let own = part.leaves();
            if own.start >= leaves.end {
                break;
            }
            if own.start < leaves.start || own.end > leaves.end {
                return Err(*part);
            }
            within.push(*part, *root);
        }
        Ok(within)
    }

    /// The part that has a leaf.
    #[cfg(test)]
    pub(crate) fn part_with(&self, leaf: u64) -> Option<Subtree> {
        let at = self.parts.partition_point(|(part, _)| part.leaves().end <= leaf);
        let (part, _) = self.parts.get(at)?;
        part.leaves().contains(&leaf).then_some(*part)
    }
}
