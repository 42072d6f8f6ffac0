//! The tree against its definition: RFC 6962 by the letter, published vectors, damage, and removal.

use std::ops::Range;

use sha2::{Digest, Sha256};

use super::*;
use crate::format::Damage;
use crate::format::tree::{
    Cover, Gone, Leaf, Subtree, Subtrees, TreeFile, TreeFileHead, TreeHash, consistency, consistency_holds,
    cover_of, empty, inclusion, inclusion_holds, leaf, root,
};

/// SplitMix64, seeded by `ANNALS_SEED`, or 42.
struct Random(u64);

impl Random {
    fn seeded(test: &str) -> Random {
        let seed = number_from("ANNALS_SEED").unwrap_or(42);
        println!("{test}: ANNALS_SEED={seed}");
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number less than `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, not a number")))
}

/// The number of cases: `quick`, or with `ANNALS_HEAVY=n` in the environment `n` times `full`.
fn sized(quick: u64, full: u64) -> u64 {
    number_from("ANNALS_HEAVY").map_or(quick, |heavy| full * heavy)
}

fn at(index: u64) -> usize {
    usize::try_from(index).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn hashes(texts: &[&str]) -> Vec<TreeHash> {
    texts.iter().map(|text| hex(text).try_into().unwrap()).collect()
}

fn sha256(pieces: &[&[u8]]) -> TreeHash {
    Sha256::digest(pieces.concat()).into()
}

/// Leaf hashes of any number of events that differ.
fn leaves(count: u64) -> Vec<TreeHash> {
    (0..count).map(|index| leaf(&index.to_le_bytes())).collect()
}

// The definitions of RFC 6962, 2.1, recursive as they stand there. They share no code with the tree.

fn largest_power_below(count: usize) -> usize {
    (0..).map(|bit| 1 << bit).take_while(|power| *power < count).last().unwrap()
}

fn naive_root(leaves: &[TreeHash]) -> TreeHash {
    match leaves {
        [] => sha256(&[]),
        [one] => *one,
        several => {
            let (left, right) = several.split_at(largest_power_below(several.len()));
            sha256(&[&[1], &naive_root(left), &naive_root(right)])
        }
    }
}

fn naive_path(index: usize, leaves: &[TreeHash]) -> Vec<TreeHash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(largest_power_below(leaves.len()));
    let (mut path, sibling) = if index < left.len() {
        (naive_path(index, left), right)
    } else {
        (naive_path(index - left.len(), right), left)
    };
    path.push(naive_root(sibling));
    path
}

fn naive_proof(old: usize, leaves: &[TreeHash], is_old_root_known: bool) -> Vec<TreeHash> {
    if old == leaves.len() {
        return if is_old_root_known { Vec::new() } else { vec![naive_root(leaves)] };
    }
    let (left, right) = leaves.split_at(largest_power_below(leaves.len()));
    let (mut proof, sibling) = if old <= left.len() {
        (naive_proof(old, left, is_old_root_known), right)
    } else {
        (naive_proof(old - left.len(), right, false), left)
    };
    proof.push(naive_root(sibling));
    proof
}

/// A store that keeps the leaf of each event and, of removed ones, the roots of their cover: a cover in tiles
/// of one leaf.
struct Kept(Cover);

impl Kept {
    fn all(leaves: &[TreeHash]) -> Kept {
        let mut kept = Cover::in_tiles(0, 0);
        leaves.iter().for_each(|leaf| kept.push_leaf(*leaf));
        Kept(kept)
    }

    /// The removed subtree that has a size strictly inside.
    fn removed_around(&self, size: u64) -> Option<Range<u64>> {
        let around = self.0.part_with(size)?.leaves();
        (around.start < size).then_some(around)
    }
}

impl Subtrees for Kept {
    type Error = Gone;

    fn root(&self, subtree: Subtree) -> Result<TreeHash, Gone> {
        let removed = || self.0.part_with(subtree.leaves().start).expect("a leaf of the tree");
        self.0.root_of(subtree).ok_or_else(|| Gone::within(removed()))
    }
}

/// The eight leaves of the tests of Certificate Transparency, their roots, and three proofs of each kind.
#[test]
fn published_vectors() {
    let entries =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    let roots = hashes(&[
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ]);
    let kept = Kept::all(&entries.map(|entry| leaf(&hex(entry))));
    for (size, expected) in (0..).zip(&roots) {
        assert_eq!(root(&kept, size), Ok(*expected), "size {size}");
    }
    let included = [
        (
            0,
            8,
            hashes(&[
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ]),
        ),
        (
            5,
            8,
            hashes(&[
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ]),
        ),
    ];
    for (index, size, expected) in included {
        assert_eq!(inclusion(&kept, index, size), Ok(expected), "leaf {index} of {size}");
    }
    let consistent = [
        (
            2,
            8,
            hashes(&[
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ]),
        ),
        (
            6,
            8,
            hashes(&[
                "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ]),
        ),
        (
            2,
            5,
            hashes(&[
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ]),
        ),
    ];
    for (old, new, expected) in consistent {
        assert_eq!(consistency(&kept, old, new), Ok(expected), "{old} to {new}");
    }
}

#[test]
fn roots_are_those_of_the_definition() {
    let mut random = Random::seeded("roots");
    let leaves = leaves(5000);
    let few = 0..=300;
    let many = (0..sized(20, 500)).map(|_| random.below(5001));
    let sizes: Vec<u64> = few.chain(many).collect();
    for size in sizes {
        let leaves = &leaves[..at(size)];
        let expected = naive_root(leaves);
        let mut joined = Cover::new(0);
        let mut tiles = Cover::in_tiles(0, 3);
        for leaf in leaves {
            joined.push_leaf(*leaf);
            tiles.push_leaf(*leaf);
        }
        assert_eq!(joined.tree_root(), Some(expected), "size {size}");
        assert_eq!(tiles.tree_root(), Some(expected), "size {size}, in tiles");
        assert_eq!(root(&Kept(tiles), size), Ok(expected), "size {size}, from subtrees");
        assert!(joined.parts().len() <= 13, "{} roots for {size} leaves", joined.parts().len());
    }
    assert_eq!(Cover::new(1).tree_root(), None);
    assert_eq!(empty(), sha256(&[]));
}

/// Whether these subtrees cover the leaves one after the other, and each is the largest that fits.
fn is_the_cover(leaves: &Range<u64>, subtrees: &[Subtree]) -> bool {
    let mut end = leaves.start;
    for subtree in subtrees {
        let own = subtree.leaves();
        let size = 1 << subtree.level();
        let parent = own.start / (2 * size) * (2 * size);
        let fits_larger = leaves.start <= parent && parent + 2 * size <= leaves.end;
        if own.start != end || own.end - own.start != size || own.start % size != 0 || fits_larger {
            return false;
        }
        assert_eq!(subtree.index(), own.start / size);
        end = own.end;
    }
    end == leaves.end
}

#[test]
fn a_cover_has_the_largest_subtrees() {
    let mut random = Random::seeded("covers");
    let short = (0..130).flat_map(|end| (0..=end).map(move |start| start..end));
    let far = (0..20_000).map(|_| {
        let start = random.below(1 << 48);
        let length_bits = random.below(33);
        start..start + random.below(1 << length_bits)
    });
    let ranges: Vec<Range<u64>> = short.chain(far).collect();
    for leaves in ranges {
        let subtrees: Vec<Subtree> = cover_of(leaves.clone()).collect();
        assert!(is_the_cover(&leaves, &subtrees), "{leaves:?}: {subtrees:?}");
        let count = leaves.end - leaves.start;
        let most = if count < 2 { count } else { 2 * u64::from(count.ilog2()) };
        assert!(u64::try_from(subtrees.len()).unwrap() <= most, "{leaves:?}: {}", subtrees.len());
    }
    // The longest lists there can be: of an attestation, of a segment, of all numbers.
    let count = |leaves| cover_of(leaves).count();
    assert_eq!([count(1..(1 << 32) - 1), count(1..(1 << 48) - 1)], [62, 94]);
    assert_eq!(
        [count(0..u64::MAX), count(1..u64::MAX), count(7..7), count(u64::MAX..u64::MAX)],
        [64, 126, 0, 0]
    );
    #[expect(clippy::reversed_empty_ranges)]
    let backwards = count(9..7);
    assert_eq!(backwards, 0);
}

#[test]
fn a_subtree_ends_before_the_last_number() {
    for (level, index) in
        [(64, 0), (u32::MAX, 0), (0, u64::MAX), (63, 1), (1, u64::MAX / 2), (32, u64::MAX >> 32)]
    {
        assert_eq!(Subtree::new(level, index), None, "{level}, {index}");
    }
    for (level, index) in [(63, 0), (0, u64::MAX - 1), (1, u64::MAX / 2 - 1)] {
        let subtree = Subtree::new(level, index).unwrap();
        assert_eq!(Subtree::at(subtree.leaves().start, level), Some(subtree));
    }
    assert_eq!([Subtree::at(6, 2), Subtree::at(0, 64), Subtree::at(u64::MAX, 0)], [None; 3]);
}

/// Leaves one by one, removed runs and neighbours put together give one and the same roots.
#[test]
fn covers_that_join_have_no_more_roots_than_both_had() {
    let mut random = Random::seeded("joins");
    let leaves = leaves(3000);
    let of = |range: Range<u64>| {
        let mut cover = Cover::new(range.start);
        leaves[at(range.start)..at(range.end)].iter().for_each(|leaf| cover.push_leaf(*leaf));
        cover
    };
    for case in 0..sized(300, 2_000) {
        let longest = [10, 100, 1000][at(case % 3)];
        let start = random.below(1000);
        let middle = start + random.below(longest);
        let end = middle + random.below(longest);
        let both = of(start..end);
        let subtrees: Vec<Subtree> = both.parts().iter().map(|(subtree, _)| *subtree).collect();
        assert_eq!(subtrees, cover_of(start..end).collect::<Vec<_>>(), "{start}, {end}");
        for (subtree, root) in both.parts() {
            let own = subtree.leaves();
            assert_eq!(*root, naive_root(&leaves[at(own.start)..at(own.end)]), "{start}, {end}: {own:?}");
        }

        let mut joined = of(start..middle);
        let next = of(middle..end);
        let most = joined.parts().len() + next.parts().len();
        let roots: Vec<TreeHash> = next.roots().copied().collect();
        let mut run = joined.clone();
        run.push_run(end - middle, &roots).unwrap();
        joined.append(&next);
        assert_eq!(joined, both, "{start}, {middle}, {end}");
        assert_eq!(run, both, "{start}, {middle}, {end}");
        assert!(joined.parts().len() <= most, "{start}, {middle}, {end}");
    }
}

#[test]
fn a_run_with_another_number_of_roots_is_refused() {
    let some = leaves(3);
    let mut cover = Cover::new(5);
    for (count, roots) in
        [(0, 1), (1, 0), (3, 1), (3, 3), (8, 3), (u64::MAX, 0), (u64::MAX - 5, 3), (1 << 40, 2)]
    {
        let refused = cover.push_run(count, &some[..roots]);
        assert!(matches!(refused, Err(Damage::Forbidden(_))), "{count} leaves, {roots} roots: {refused:?}");
        assert_eq!(cover, Cover::new(5));
    }
    assert_eq!(cover.push_run(3, &some[..2]), Ok(()));
    assert_eq!(cover.leaves(), 5..8);
}

#[test]
fn every_leaf_is_proven_in_every_tree() {
    let mut random = Random::seeded("inclusion");
    let leaves = leaves(5000);
    let kept = Kept::all(&leaves);
    let few = (1..=130).flat_map(|size| (0..size).map(move |leaf| (leaf, size)));
    let many = (0..sized(40, 400)).map(|_| {
        let size = 1 + random.below(5000);
        (random.below(size), size)
    });
    let questions: Vec<(u64, u64)> = few.chain(many).collect();
    for (index, size) in questions {
        let proof = inclusion(&kept, index, size).unwrap();
        let tree = &leaves[..at(size)];
        assert_eq!(proof, naive_path(at(index), tree), "leaf {index} of {size}");
        let root = naive_root(tree);
        assert!(inclusion_holds(&leaves[at(index)], index, size, &proof, &root), "leaf {index} of {size}");
        // No other leaf is shown to be there, and this one nowhere else.
        let other = random.below(size);
        let is_same = other == index;
        assert_eq!(inclusion_holds(&leaves[at(other)], index, size, &proof, &root), is_same);
        assert_eq!(inclusion_holds(&leaves[at(index)], other, size, &proof, &root), is_same);
        assert!(!inclusion_holds(&leaves[at(index)], size, size, &proof, &root));
        assert!(!inclusion_holds(&leaves[at(index)], index, 0, &proof, &root));
    }
}

#[test]
fn every_tree_is_proven_to_extend_every_earlier_one() {
    let mut random = Random::seeded("consistency");
    let leaves = leaves(5000);
    let kept = Kept::all(&leaves);
    let few = (0..=130).flat_map(|new| (0..=new).map(move |old| (old, new)));
    let many = (0..sized(40, 400)).map(|_| {
        let new = 1 + random.below(5000);
        (1 + random.below(new), new)
    });
    let questions: Vec<(u64, u64)> = few.chain(many).collect();
    for (old, new) in questions {
        let proof = consistency(&kept, old, new).unwrap();
        let old_root = naive_root(&leaves[..at(old)]);
        let new_root = naive_root(&leaves[..at(new)]);
        if old > 0 {
            assert_eq!(proof, naive_proof(at(old), &leaves[..at(new)], true), "{old} to {new}");
        }
        assert!(consistency_holds(old, &old_root, new, &new_root, &proof), "{old} to {new}");
        let is_same = old == new;
        assert_eq!(consistency_holds(old, &new_root, new, &old_root, &proof), is_same, "{old} to {new}");
        assert_eq!(consistency_holds(new, &new_root, old, &old_root, &proof), is_same, "{new} to {old}");
        // The same proof shows nothing of larger trees, nor equal roots anything of two sizes.
        let is_shown = consistency_holds(old, &old_root, 4 * new + 1, &new_root, &proof);
        assert_eq!(is_shown, old == 0, "{old} to {new}");
        assert_eq!(consistency_holds(new, &new_root, old, &new_root, &[]), is_same, "{new} to {old}");
        let other = leaf(b"another");
        assert!(!consistency_holds(old, &other, new, &new_root, &proof), "{old} to {new}");
        if old > 0 {
            assert!(!consistency_holds(old, &old_root, new, &other, &proof), "{old} to {new}");
        }
    }
}

/// Calls `refuse` with each proof that one flipped bit, a missing hash or one more makes of this one.
fn each_damaged(proof: &[TreeHash], mut refuse: impl FnMut(&[TreeHash], &str)) {
    let mut damaged = proof.to_vec();
    for (at, hash) in proof.iter().enumerate() {
        for bit in 0..256 {
            damaged[at][bit / 8] ^= 1 << (bit % 8);
            refuse(&damaged, &format!("bit {bit} of hash {at}"));
            damaged[at] = *hash;
        }
        damaged.remove(at);
        refuse(&damaged, &format!("without hash {at}"));
        damaged.insert(at, *hash);
        damaged.insert(at, *hash);
        refuse(&damaged, &format!("hash {at} twice"));
        damaged.remove(at);
    }
    damaged.push([7; 32]);
    refuse(&damaged, "a hash more");
}

#[test]
fn damaged_proofs_are_refused() {
    let leaves = leaves(20);
    let kept = Kept::all(&leaves);
    let mut refused = 0;
    for new in 1..20 {
        let new_root = root(&kept, new).unwrap();
        for old in 0..=new {
            let old_root = root(&kept, old).unwrap();
            let proof = consistency(&kept, old, new).unwrap();
            each_damaged(&proof, |damaged, what| {
                assert!(
                    !consistency_holds(old, &old_root, new, &new_root, damaged),
                    "{old} to {new}: {what}"
                );
                refused += 1;
            });
        }
        for index in 0..new {
            let own = &leaves[at(index)];
            let proof = inclusion(&kept, index, new).unwrap();
            each_damaged(&proof, |damaged, what| {
                assert!(!inclusion_holds(own, index, new, damaged, &new_root), "{index} of {new}: {what}");
                refused += 1;
            });
            each_damaged(&[*own, new_root], |damaged, what| {
                if let [own, root] = damaged {
                    assert!(!inclusion_holds(own, index, new, &proof, root), "{index} of {new}: {what}");
                    refused += 1;
                }
            });
        }
    }
    println!("{refused} damaged proofs: all refused");
}

/// What is left of a store of `count` events after random removals, and which leaves it keeps.
fn thinned(random: &mut Random, all: &[TreeHash]) -> (Kept, Vec<u64>) {
    let count = u64::try_from(all.len()).unwrap();
    let mut kept = Cover::in_tiles(0, 0);
    let mut leaves = Vec::new();
    let longest = 1 + random.below(count.min(80));
    while kept.leaves().end < count {
        let start = kept.leaves().end;
        let end = count.min(start + 1 + random.below(longest));
        // Two runs side by side are attestations that no rewrite has joined yet.
        if random.below(2) == 0 {
            let roots: Vec<TreeHash> = cover_of(start..end)
                .map(|part| naive_root(&all[at(part.leaves().start)..at(part.leaves().end)]))
                .collect();
            kept.push_run(end - start, &roots).unwrap();
        } else {
            leaves.extend(start..end);
            all[at(start)..at(end)].iter().for_each(|leaf| kept.push_leaf(*leaf));
        }
    }
    (Kept(kept), leaves)
}

/// A size that is the position of an event that is kept can be proven for ever: to include every event that
/// is kept, and to be extended by every later such size. Of other sizes only those are gone that lie strictly
/// inside a removed subtree.
#[test]
fn what_can_be_proven_after_removal() {
    let mut random = Random::seeded("removal");
    let all = leaves(700);
    let mut gone = 0;
    let mut proven = 0;
    for case in 0..sized(3_000, 10_000) {
        let most = if case % 50 == 0 { 700 } else { 70 };
        let count = 1 + random.below(most);
        let (kept, leaves) = thinned(&mut random, &all[..at(count)]);
        for _ in 0..4 {
            let size = random.below(count + 1);
            let expected = naive_root(&all[..at(size)]);
            match kept.removed_around(size) {
                None => assert_eq!(root(&kept, size), Ok(expected), "case {case}, size {size}"),
                Some(removed) => {
                    gone += 1;
                    let error = Gone { before: removed.start, behind: removed.end };
                    assert_eq!(root(&kept, size), Err(error), "case {case}, size {size}");
                    for nearest in [error.before, error.behind] {
                        assert_eq!(root(&kept, nearest), Ok(naive_root(&all[..at(nearest)])), "case {case}");
                    }
                    assert_eq!(consistency(&kept, size, count).is_err(), size < count, "case {case}, {size}");
                }
            }
        }
        if leaves.is_empty() {
            continue;
        }
        let mut any = || leaves[at(random.below(u64::try_from(leaves.len()).unwrap()))];
        for _ in 0..4 {
            // The size of a leaf's position is one more than its index.
            let mut sizes = [any() + 1, any() + 1];
            sizes.sort_unstable();
            let [old, new] = sizes;
            let [old_root, new_root] = sizes.map(|size| naive_root(&all[..at(size)]));
            assert_eq!(root(&kept, new), Ok(new_root), "case {case}");
            let proof = consistency(&kept, old, new).unwrap_or_else(|error| panic!("case {case}: {error:?}"));
            assert!(consistency_holds(old, &old_root, new, &new_root, &proof), "case {case}: {old} to {new}");
            let index = any().min(new - 1);
            let is_kept = leaves.binary_search(&index).is_ok();
            let index = if is_kept { index } else { new - 1 };
            let proof = inclusion(&kept, index, new).unwrap_or_else(|error| panic!("case {case}: {error:?}"));
            assert!(inclusion_holds(&all[at(index)], index, new, &proof, &new_root), "case {case}: {index}");
            proven += 1;
        }
    }
    println!("{proven} proofs of each kind after removal: all hold; {gone} sizes were gone");
    assert!(gone > 100 && proven > 100);
}

/// The bound of a segment with these leaves.
fn bound(leaves: &Range<u64>) -> Bound {
    Bound {
        store_id: *b"the tree's store",
        segment: SegmentId { first_position: leaves.start + 1, generation: 3 },
        end: 4096,
        last_position: leaves.end,
        chain: [9; 32],
    }
}

/// A tree file of a segment whose leaves are these, with random removals and large events.
fn tree_file(random: &mut Random, leaves: &Range<u64>) -> TreeFile {
    let mut file = TreeFile::new(bound(leaves).segment);
    let longest = 1 + random.below(2000);
    while file.pieces().leaves().end < leaves.end {
        let start = file.pieces().leaves().end;
        let end = leaves.end.min(start + 1 + random.below(longest));
        if random.below(3) == 0 {
            let roots: Vec<TreeHash> =
                cover_of(start..end).map(|part| leaf(&part.index().to_le_bytes())).collect();
            let mut removed = Cover::new(start);
            removed.push_run(end - start, &roots).unwrap();
            file.push_removed(&removed);
            continue;
        }
        for index in start..end {
            let record_bytes = [100, 4096, 4096, 4097, 1 << 20][at(random.below(5))];
            file.push_event(leaf(&index.to_le_bytes()), record_bytes);
        }
    }
    file
}

#[test]
fn a_tree_file_is_read_as_it_was_written() {
    let mut random = Random::seeded("tree files");
    for case in 0..sized(60, 300) {
        let start = random.below([1, 300, 1 << 40][at(case % 3)]);
        let leaves = start..start + random.below([2, 600, 9000][at(case / 3 % 3)]);
        let file = tree_file(&mut random, &leaves);
        let bytes = file.write(&bound(&leaves));
        let (head, found) = TreeFile::read(&bytes).unwrap();
        assert_eq!((&head.bound, &found), (&bound(&leaves), &file), "case {case}, {leaves:?}");
        assert_eq!(found.check(&head), Ok(()));
        assert_eq!(head.file_bytes(), bytes.len());
        let beginning = &bytes[..bytes.len().min(TreeFileHead::BYTES_MAX)];
        assert_eq!(TreeFileHead::read(beginning).as_ref(), Ok(&head), "case {case}, {leaves:?}");
        let subtrees: Vec<Subtree> = head.cover.parts().iter().map(|(subtree, _)| *subtree).collect();
        assert_eq!(subtrees, cover_of(leaves.clone()).collect::<Vec<_>>(), "case {case}, {leaves:?}");
    }
}

/// Of a segment that lost nothing, a file holds the roots of whole tiles and of the parts at both ends.
#[test]
fn the_pieces_of_a_segment_are_tiles_and_parts_of_tiles() {
    let all = leaves(3000);
    for leaves in [0..0, 0..1, 0..256, 5..6, 255..257, 3..3000, 256..2816, 300..400] {
        let mut file = TreeFile::new(bound(&leaves).segment);
        for leaf in &all[at(leaves.start)..at(leaves.end)] {
            let is_large = leaf[0] < 32;
            file.push_event(*leaf, if is_large { 4097 } else { 4096 });
        }
        let tiles = (0..12).flat_map(|tile| {
            let start = leaves.start.max(tile * 256);
            cover_of(start..leaves.end.min(tile * 256 + 256))
        });
        let expected: Vec<(Subtree, TreeHash)> = tiles
            .map(|part| (part, naive_root(&all[at(part.leaves().start)..at(part.leaves().end)])))
            .collect();
        assert_eq!(file.pieces().parts(), expected, "{leaves:?}");
        for position in 1..=3000 {
            let own = &all[at(position - 1)];
            let is_large = own[0] < 32 && leaves.contains(&(position - 1));
            assert_eq!(file.large_leaf(position), is_large.then_some(own), "{leaves:?}, {position}");
        }
    }
}

/// A file with all that one can have: a piece of more than a tile, parts of tiles, and large events.
fn small_tree_file() -> (TreeFile, Vec<u8>) {
    let leaves = 510..1027;
    let mut file = TreeFile::new(bound(&leaves).segment);
    file.push_event(leaf(b"one"), 5000);
    file.push_event(leaf(b"two"), 50);
    let mut removed = Cover::new(file.pieces().leaves().end);
    removed.push_run(512, &[leaf(b"removed")]).unwrap();
    file.push_removed(&removed);
    file.push_event(leaf(b"three"), 5000);
    file.push_event(leaf(b"four"), 50);
    file.push_event(leaf(b"five"), 50);
    let bytes = file.write(&bound(&leaves));
    (file, bytes)
}

#[test]
fn every_flipped_bit_and_every_cut_end_of_a_tree_file_is_found() {
    let (_, whole) = small_tree_file();
    assert_eq!(whole.len(), 144 + 4 * 32 + 4 * 33 + 2 * 40);
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(TreeFile::read(&flipped), Err(Damage::Bad(_))), "bit {bit}");
    }
    for length in 0..whole.len() {
        assert!(matches!(TreeFile::read(&whole[..length]), Err(Damage::Bad(_))), "{length} bytes");
        let head = TreeFileHead::read(&whole[..length]);
        assert_eq!(head.is_ok(), length >= 144 + 4 * 32, "{length} bytes");
    }
    let longer = [&whole[..], &[0]].concat();
    assert!(matches!(TreeFile::read(&longer), Err(Damage::Bad(_))));
}

/// Makes the checksums of a tree file fit again, as far as its counts lie within it.
fn repair_tree_file(bytes: &mut [u8]) {
    let int = |bytes: &[u8], at: usize| usize::try_from(crate::format::u32_at(bytes, at)).unwrap();
    let large = int(bytes, 116) * 40;
    let pieces = int(bytes, 112) * 33;
    if let Some(large_at) = bytes.len().checked_sub(large)
        && let Some(pieces_at) = large_at.checked_sub(pieces)
    {
        let sums = [checksum(&[&bytes[pieces_at..large_at]]), checksum(&[&bytes[large_at..]])];
        bytes[120..124].copy_from_slice(&sums[0].to_le_bytes());
        bytes[124..128].copy_from_slice(&sums[1].to_le_bytes());
    }
    let leaves = u64_of(bytes, 56).wrapping_sub(1)..u64_of(bytes, 72);
    let roots = 144..144 + 32 * cover_of(leaves).count();
    if let Some(roots) = bytes.get(roots) {
        let crc = checksum(&[&bytes[..140], roots]);
        bytes[140..144].copy_from_slice(&crc.to_le_bytes());
    }
}

fn u64_of(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn impossible_values_in_a_tree_file_are_refused() {
    let (_, whole) = small_tree_file();
    let levels = 144 + 4 * 32 + 4 * 32;
    let large = levels + 4;
    const POSITIONS: &str = "the tree file's positions do not fit each other";
    const LENGTH: &str = "the tree file is not as long as its header says";
    const PIECES: &str = "the tree file's pieces do not fit its positions";
    const ORDER: &str = "the tree file's large events are not in order";
    let cases: [(&str, usize, &[u8], &str); 20] = [
        ("first position 0", 56, &0_u64.to_le_bytes(), POSITIONS),
        ("first position behind the last", 56, &1029_u64.to_le_bytes(), POSITIONS),
        ("another first position", 56, &512_u64.to_le_bytes(), PIECES),
        ("last position 0", 72, &0_u64.to_le_bytes(), POSITIONS),
        ("another last position", 72, &1026_u64.to_le_bytes(), LENGTH),
        ("last position of more than 48 bits", 72, &(1_u64 << 48).to_le_bytes(), POSITIONS),
        ("last position 2^64 - 1", 72, &u64::MAX.to_le_bytes(), POSITIONS),
        ("no pieces", 112, &0_u32.to_le_bytes(), LENGTH),
        ("2^32 - 1 pieces", 112, &u32::MAX.to_le_bytes(), LENGTH),
        ("2^32 - 1 large events", 116, &u32::MAX.to_le_bytes(), LENGTH),
        ("2^32 - 1 of both", 112, &[0xFF; 8], LENGTH),
        ("a piece at no multiple of its size", levels, &[2], PIECES),
        ("a piece of less leaves", levels + 1, &[8], PIECES),
        ("a piece beyond the last position", levels + 2, &[2], PIECES),
        ("a piece of 2^63 leaves", levels + 1, &[63], PIECES),
        ("a piece of 2^64 leaves", levels + 1, &[64], PIECES),
        ("a piece of 2^255 leaves", levels + 1, &[255], PIECES),
        ("a large event before the segment", large, &510_u64.to_le_bytes(), ORDER),
        ("two large events at one position", large, &1025_u64.to_le_bytes(), ORDER),
        ("a large event behind the segment", large + 40, &1028_u64.to_le_bytes(), ORDER),
    ];
    for (what, at, value, why) in cases {
        let mut changed = whole.clone();
        changed[at..at + value.len()].copy_from_slice(value);
        repair_tree_file(&mut changed);
        assert_eq!(TreeFile::read(&changed), Err(Damage::Bad(why)), "{what}");
    }
    // Of a later version: known as such.
    for (what, at) in [("format 2", 8), ("a feature", 16), ("a read-only feature", 24)] {
        let mut changed = whole.clone();
        changed[at] = 2;
        repair_tree_file(&mut changed);
        assert!(matches!(TreeFile::read(&changed), Err(Damage::Newer(_))), "{what}");
    }
}

/// Two siblings that should be one piece are no pieces, though they cover the same leaves.
#[test]
fn pieces_that_would_be_one_are_refused() {
    let leaves = 4..8;
    let mut file = TreeFile::new(bound(&leaves).segment);
    for index in leaves.clone() {
        file.push_event(leaf(&[u8::try_from(index).unwrap()]), 50);
    }
    let whole = file.write(&bound(&leaves));
    let (head, _) = TreeFile::read(&whole).unwrap();
    let mut split = whole[..144 + 32].to_vec();
    split[112] = 2;
    split.extend([[1; 32], [2; 32]].as_flattened());
    split.extend([1, 1]);
    repair_tree_file(&mut split);
    assert!(matches!(TreeFile::read(&split), Err(Damage::Bad(_))));

    // A root that is not the root of the pieces is left to `check`.
    let mut other = whole.clone();
    other[144] ^= 1;
    repair_tree_file(&mut other);
    let (other_head, found) = TreeFile::read(&other).unwrap();
    assert_eq!(found, file);
    assert_eq!(found.check(&head), Ok(()));
    assert!(matches!(found.check(&other_head), Err(Damage::Bad(_))));
}

#[test]
fn random_values_in_a_tree_file_never_panic() {
    let mut random = Random::seeded("values");
    let (_, whole) = small_tree_file();
    let mut read = 0;
    for _ in 0..20_000 {
        let mut changed = whole.clone();
        for _ in 0..=random.below(4) {
            let place = 40 + at(random.below(u64::try_from(whole.len() - 40).unwrap()));
            changed[place] = [0, 1, 0x7F, 0x80, 0xFF, changed[place].wrapping_add(1)][at(random.below(6))];
        }
        repair_tree_file(&mut changed);
        if let Ok((head, file)) = TreeFile::read(&changed) {
            read += 1;
            assert_eq!(file.pieces().leaves(), head.cover.leaves());
            assert_eq!(file.write(&head.bound).len(), changed.len());
        }
    }
    println!("{read} of 20,000 changed tree files were read");
    assert!((1000..19_000).contains(&read), "{read}");
}

/// The leaves of the golden store's first segment, by the letter of the specification.
fn golden_leaves() -> Vec<Leaf> {
    let story = GoldenSegment::read();
    let mut leaves = Vec::new();
    for index in 0..3 {
        let frame = story.frame(index);
        for event in 0..frame.header.events() {
            leaves.push(Leaf {
                index: event,
                events: frame.header.events(),
                position: 1 + to_u64(leaves.len()),
                recorded_at: frame.header.recorded_at(),
                version: frame.header.version(event, &record_at(&frame, event.into())),
                record: record_at(&frame, event.into()).content(),
                chain: frame.header.chain(),
            });
        }
    }
    leaves
}

#[test]
fn golden_tree_leaf() {
    let third = golden_leaves()[2];
    let at = format!("recorded-at: {}", third.recorded_at);
    let fields: [(&[u8], &str); 8] = [
        (b"ev01", "an event, layout 1: \"ev01\""),
        (&third.index.to_le_bytes(), "index in its append: 1"),
        (&third.events.to_le_bytes(), "events of the append: 3"),
        (&third.position.to_le_bytes(), "position: 3"),
        (&third.recorded_at.to_le_bytes(), &at),
        (&third.version.to_le_bytes(), "version: 1"),
        (&third.record, "record: its content hash"),
        (&third.chain, "chain of its frame"),
    ];
    let entry = fields.map(|(bytes, _)| bytes).concat();
    assert_eq!((third.index, third.events, third.position, third.version), (1, 3, 3, 1));
    assert_eq!(third.entry().as_slice(), entry);
    assert_eq!(third.hash(), sha256(&[&[0], &entry]));
    let bytes = [&entry[..], &third.hash()].concat();
    let title = format!("The leaf of the event at position 3 of store/{FIRST}");
    check_text("tree-leaf", &title, 0, &bytes, |notes| {
        notes.part("the entry");
        fields.iter().for_each(|(bytes, name)| _ = notes.take(bytes.len(), name));
        notes.part("SHA-256(00, entry)");
        notes.take(32, "the leaf");
    });
}

#[test]
fn golden_tree_file() {
    let story = GoldenSegment::read();
    let mut file = TreeFile::new(story.header.id);
    golden_leaves().iter().for_each(|leaf| file.push_event(leaf.hash(), 100));
    let bound = Bound {
        store_id: story.header.store_id,
        segment: story.header.id,
        end: u32::try_from(story.offsets[3]).unwrap(),
        last_position: 6,
        chain: story.frame(2).header.chain(),
    };
    let bytes = file.write(&bound);
    let title = format!("The tree file of store/{FIRST}");
    check_text("tree-file", &title, 0, &bytes, Notes::tree_file);
    let (head, found) = TreeFile::read(&bytes).unwrap();
    assert_eq!((head.bound, found), (bound, file));
    let hashes: Vec<TreeHash> = golden_leaves().iter().map(Leaf::hash).collect();
    assert_eq!(head.cover.tree_root(), Some(naive_root(&hashes)));
}
