//! Proofs of inclusion and of consistency, from the roots of complete subtrees, and their verification.
//!
//! A proof is a list of hashes in the order of RFC 9162, 2.1.3 and 2.1.4, upwards from the leaf or from the
//! old tree. The sizes and the index of the leaf belong to it and are not in it. Each question has one proof:
//! a verifier refuses a list with a hash more, a hash less, or another hash.
//!
//! **Which proofs outlive removal.** A question is [`Gone`] only if its leaf lies in a removed subtree, or
//! one of its sizes lies strictly inside of one. The reason: each hash of a proof is the child of a node that
//! has the leaf, or the last leaf of a size. If the hash were inside a removed subtree, the node would be in
//! it, and that leaf too. So between positions of kept events, everything can be proven.

use std::ops::Range;

use super::{Subtree, TreeHash, cover_of, empty, node, root_of_cover};

/// Why a question has no answer: only the root of a larger subtree is left of what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone {
    /// The nearest sizes on each side whose roots are left; 0 is the tree without leaves.
    pub(crate) before: u64,
    pub(crate) behind: u64,
}

impl Gone {
    /// `removed` is the maximal subtree whose leaves were removed.
    pub(crate) fn within(removed: Subtree) -> Gone {
        let leaves = removed.leaves();
        Gone { before: leaves.start, behind: leaves.end }
    }
}

/// Where the roots come from: a store, or what is left of one.
pub(crate) trait Subtrees {
    /// A root may be gone, and reading one may fail.
    type Error: From<Gone>;

    /// The root of a complete subtree. The caller asks only for leaves of the tree.
    fn root(&self, subtree: Subtree) -> Result<TreeHash, Self::Error>;
}

/// The root of the tree of a size.
#[cfg(test)]
pub(crate) fn root<S: Subtrees>(subtrees: &S, size: u64) -> Result<TreeHash, S::Error> {
    range_root(subtrees, 0..size)
}

/// The proof that a leaf is in the tree of a size. The caller knows that `leaf` is less than `size`.
pub(crate) fn inclusion<S: Subtrees>(subtrees: &S, leaf: u64, size: u64) -> Result<Vec<TreeHash>, S::Error> {
    assert!(leaf < size, "the caller asks for a leaf of the tree");
    let mut proof = Vec::new();
    let mut around = 0..size;
    while let Some((left, right)) = halves(&around) {
        let is_left = left.contains(&leaf);
        let (inside, sibling) = if is_left { (left, right) } else { (right, left) };
        proof.push(range_root(subtrees, sibling)?);
        around = inside;
    }
    proof.reverse();
    Ok(proof)
}

/// The proof that the tree of size `new` begins with the tree of size `old`. The caller knows that `old` is
/// not more than `new`. Between equal sizes, and from 0, there is nothing to prove: the proof is empty.
pub(crate) fn consistency<S: Subtrees>(subtrees: &S, old: u64, new: u64) -> Result<Vec<TreeHash>, S::Error> {
    assert!(old <= new, "the caller asks for a later tree");
    let mut proof = Vec::new();
    if old == 0 {
        return Ok(proof);
    }
    // Down to the last subtree of the old tree, which ends where the old tree ends.
    let mut around = 0..new;
    while around.end != old
        && let Some((left, right)) = halves(&around)
    {
        let is_left = old <= left.end;
        let (inside, sibling) = if is_left { (left, right) } else { (right, left) };
        proof.push(range_root(subtrees, sibling)?);
        around = inside;
    }
    // If that subtree is the whole old tree, the verifier has its root.
    if around.start != 0 {
        proof.push(range_root(subtrees, around)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Whether the proof leads from the hash of a leaf to the root of the tree of a size. RFC 9162, 2.1.3.2.
pub(crate) fn inclusion_holds(
    leaf_hash: &TreeHash,
    leaf: u64,
    size: u64,
    proof: &[TreeHash],
    root: &TreeHash,
) -> bool {
    if leaf >= size {
        return false;
    }
    let mut path = Path { node: leaf, last: size.saturating_sub(1) };
    let mut found = *leaf_hash;
    for sibling in proof {
        found = match path.climb() {
            Some(Side::Left) => node(sibling, &found),
            Some(Side::Right) => node(&found, sibling),
            None => return false,
        };
    }
    path.is_at_root() && found == *root
}

/// Whether the proof shows that the tree of size `new` begins with the tree of size `old`. RFC 9162, 2.1.4.2.
pub(crate) fn consistency_holds(
    old: u64,
    old_root: &TreeHash,
    new: u64,
    new_root: &TreeHash,
    proof: &[TreeHash],
) -> bool {
    if old == 0 {
        return proof.is_empty() && *old_root == empty() && (new != 0 || new_root == old_root);
    }
    if old >= new {
        return old == new && proof.is_empty() && old_root == new_root;
    }
    // An old tree of 2^k leaves is itself the subtree that the proof begins with.
    let (first, rest) = match proof.split_first() {
        _ if old.is_power_of_two() => (old_root, proof),
        Some(split) => split,
        None => return false,
    };
    let mut path = Path { node: old.saturating_sub(1), last: new.saturating_sub(1) };
    path.skip_right_children();
    let mut found_old = *first;
    let mut found_new = *first;
    for sibling in rest {
        match path.climb() {
            Some(Side::Left) => {
                found_old = node(sibling, &found_old);
                found_new = node(sibling, &found_new);
            }
            Some(Side::Right) => found_new = node(&found_new, sibling),
            None => return false,
        }
    }
    path.is_at_root() && found_old == *old_root && found_new == *new_root
}

/// The way of a verifier from a node up to the root. Both are indexes in the row of nodes it has reached.
struct Path {
    node: u64,
    /// The last node of the row. Without a right neighbour it rises alone, with its hash.
    last: u64,
}

/// On which side the sibling of a node is.
enum Side {
    Left,
    Right,
}

impl Path {
    /// Climbs above the node's next sibling; `None` at the root.
    fn climb(&mut self) -> Option<Side> {
        if self.is_at_root() {
            return None;
        }
        // The last node has no right sibling. It rises until it is a right child.
        while self.node == self.last && self.node.is_multiple_of(2) {
            self.rise();
        }
        let side = if self.node.is_multiple_of(2) { Side::Right } else { Side::Left };
        self.rise();
        Some(side)
    }

    /// Climbs as long as the node ends its parent: up to the largest subtree with this end.
    fn skip_right_children(&mut self) {
        while !self.node.is_multiple_of(2) {
            self.rise();
        }
    }

    fn rise(&mut self) {
        self.node /= 2;
        self.last /= 2;
    }

    fn is_at_root(&self) -> bool {
        self.last == 0
    }
}

/// The two children of a range that is a node of the tree; `None` for a leaf. The left child is the largest
/// complete subtree that leaves something for the right one.
fn halves(leaves: &Range<u64>) -> Option<(Range<u64>, Range<u64>)> {
    let last = leaves.end.checked_sub(leaves.start)?.checked_sub(1)?;
    let left = 1_u64.checked_shl(last.checked_ilog2()?)?;
    let middle = leaves.start.checked_add(left)?;
    Some((leaves.start..middle, middle..leaves.end))
}

/// The root of a node of the tree, which is a complete subtree or the last node of its row.
fn range_root<S: Subtrees>(subtrees: &S, leaves: Range<u64>) -> Result<TreeHash, S::Error> {
    let roots = cover_of(leaves).map(|subtree| subtrees.root(subtree)).collect::<Result<Vec<_>, _>>()?;
    Ok(root_of_cover(&roots))
}
