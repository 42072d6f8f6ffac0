//! The tree over all events: roots against RFC 6962 by the letter, proofs between all sizes, tree files in every
//! state, and the line.

use std::time::Instant;

use annals::disk::{CrashMode, SimDisk, Subdirectory};
use annals::{
    Append, Builder, ErrorKind, Position, Query, Raw, RecordedEvent, Store, StoreCopy, TreeHead, TreeLeaf,
    Until, Verify,
};
use sha2::{Digest, Sha256};

use crate::sim_support::{BUFFERED, Rng, Tally, one_of, seed, sized};
use crate::support::{eventually, kind_of};

type Hash = [u8; 32];

static STORES: Tally = Tally::new("random stores", "every root as RFC 6962 says, every proof accepted");
static IMAGES: Tally = Tally::new("tree crash images", "every root as RFC 6962 says");

fn sha256(pieces: &[&[u8]]) -> Hash {
    Sha256::digest(pieces.concat()).into()
}

/// RFC 6962, 2.1, as it stands there.
fn naive_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => sha256(&[]),
        [one] => *one,
        several => {
            let (left, right) = several.split_at(several.len().next_power_of_two() / 2);
            sha256(&[&[1], &naive_root(left), &naive_root(right)])
        }
    }
}

/// docs/tree-file.md, "The tree", as it stands there.
fn naive_leaf(leaf: &TreeLeaf) -> Hash {
    sha256(&[
        &[0],
        b"ev01",
        &leaf.index.to_le_bytes(),
        &leaf.events.to_le_bytes(),
        &leaf.position.get().to_le_bytes(),
        &leaf.recorded_at.to_le_bytes(),
        &leaf.version.get().to_le_bytes(),
        &leaf.record,
        &leaf.chain,
    ])
}

/// The leaves of all durable events. Index and count are those of the events with the same chain.
fn leaves_of(store: &Store) -> Vec<Hash> {
    let all = store.read(Query::all().or(Query::entity_prefix("$")));
    let events: Vec<RecordedEvent> = all.map(Result::unwrap).collect();
    let mut leaves = Vec::new();
    for append in events.chunk_by(|one, next| one.chain() == next.chain()) {
        for (index, event) in append.iter().enumerate() {
            let leaf = event.tree_leaf();
            assert_eq!((usize::from(leaf.index), usize::from(leaf.events)), (index, append.len()));
            assert_eq!((leaf.position, leaf.version), (event.position(), event.version()));
            assert_eq!(leaf.chain, event.chain());
            leaves.push(naive_leaf(&leaf));
        }
    }
    leaves.truncate(number(store.durable_head().unwrap().position().get()));
    leaves
}

fn number(size: u64) -> usize {
    usize::try_from(size).unwrap()
}

/// The head of a size, from the leaves alone.
fn naive_head(leaves: &[Hash], size: u64) -> TreeHead {
    TreeHead { size, root: naive_root(&leaves[..number(size)]), chain: [0; 32] }
}

/// Checks the store's head, and proofs of some events and sizes. Returns the leaves.
fn check(store: &Store, rng: &mut Rng, place: &str) -> Vec<Hash> {
    let leaves = leaves_of(store);
    let durable = store.durable_head().unwrap();
    let head = store.tree_head().unwrap_or_else(|error| panic!("{place}: {error}"));
    assert_eq!((head.size, head.chain), (durable.position().get(), durable.chain()), "{place}");
    assert_eq!(head.root, naive_root(&leaves), "{place}: {} events", leaves.len());
    assert_eq!(store.tree_head().unwrap(), head, "{place}: asked again");
    for _ in 0..3 {
        let new = rng.below(leaves.len() + 1);
        let old = rng.below(new + 1);
        let [old, new] = [old, new].map(|size| naive_head(&leaves, u64::try_from(size).unwrap()));
        let hashes = store.tree_consistency(old.size, new.size).unwrap();
        assert!(new.extends(&old, &hashes), "{place}: {} to {}", old.size, new.size);
        if new.size > 0 {
            let position = Position::from(1 + u64::try_from(rng.below(number(new.size))).unwrap());
            let proof = store.tree_proof(position, new.size).unwrap();
            assert_eq!(naive_leaf(&proof.leaf), leaves[number(position.get() - 1)], "{place}");
            assert_eq!(proof.leaf.hash(), naive_leaf(&proof.leaf), "{place}");
            assert!(new.includes(&proof), "{place}: position {position}, size {}", new.size);
        }
    }
    leaves
}

/// A store whose history takes every turn that keeps events.
struct World {
    disk: SimDisk,
    seed: u64,
    rng: Rng,
    segment_bytes_max: u32,
    has_trees: bool,
    is_buffered: bool,
    /// Heads that a reader kept.
    kept: Vec<TreeHead>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let segment_bytes_max = *rng.pick(&[500, 1000, 3000, 20_000]);
        let has_trees = rng.once_in(2);
        let is_buffered = rng.once_in(4);
        World {
            disk: SimDisk::new(seed),
            seed,
            rng,
            segment_bytes_max,
            has_trees,
            is_buffered,
            kept: Vec::new(),
        }
    }

    fn builder(&self, disk: SimDisk) -> Builder {
        let builder = Store::on(disk).segment_bytes_max(self.segment_bytes_max).tree(self.has_trees);
        if self.is_buffered { builder.durability(BUFFERED) } else { builder }
    }

    fn open(&self) -> Store {
        self.builder(self.disk.clone()).open().unwrap()
    }

    fn append(&mut self, store: &Store) {
        let events = match self.rng.below(8) {
            0 => 2 + self.rng.below(30),
            1 if self.rng.once_in(6) => 200 + self.rng.below(300),
            _ => 1,
        };
        let entity = *self.rng.pick(&["a", "b", "c"]);
        let mut append = Append::to(entity);
        for event in 0..events {
            let bytes = if self.rng.once_in(40) { 4000 + self.rng.below(300) } else { self.rng.below(60) };
            append = append.event(&Raw("made", &(event, "x".repeat(bytes))));
        }
        append.commit(store).unwrap();
    }

    /// One turn of history; the store is closed and opened again where that is needed.
    fn turn(&mut self, store: Store) -> Store {
        match self.rng.below(9) {
            0 => {
                let entity = *self.rng.pick(&["a", "b", "c"]);
                store.erase(Query::entity(entity), "asked").unwrap();
            }
            1 => drop(store.compaction("merge").merge().run().unwrap()),
            2 => drop(store.sync().unwrap()),
            3 => {
                store.close().unwrap();
                return self.open();
            }
            4 => self.delete_or_damage(),
            5 => self.compare_backup(&store),
            6 => self.compare_fork_and_restore(&store),
            7 => return self.roll_back(store),
            _ => drop(store.checkpoint("here", "asked").unwrap()),
        }
        store
    }

    fn delete_or_damage(&mut self) {
        let paths: Vec<String> =
            self.disk.paths().into_iter().filter(|path| path.ends_with(".tree")).collect();
        for path in paths {
            match (self.rng.below(3), self.disk.contents(&path)) {
                (0, _) => self.disk.set_contents(&path, None),
                (1, Some(mut bytes)) => {
                    let at = self.rng.below(bytes.len());
                    bytes[at] ^= 4;
                    self.disk.set_contents(&path, Some(bytes));
                }
                _ => {}
            }
        }
    }

    fn compare_backup(&mut self, store: &Store) {
        store.sync().unwrap();
        let head = store.tree_head().unwrap();
        let copy = SimDisk::new(self.seed + 1);
        let reader = Store::on(self.disk.clone()).open_read_only().unwrap();
        assert_eq!(reader.tree_head().unwrap(), head, "opened to read");
        reader.backup_on(copy.clone()).run().unwrap();
        let copy = Store::on(copy).open_read_only().unwrap();
        assert_eq!(copy.tree_head().unwrap(), head, "of a backup");
        assert_eq!(copy.describe().unwrap().line, store.describe().unwrap().line);
    }

    fn compare_fork_and_restore(&mut self, store: &Store) {
        store.sync().unwrap();
        let leaves = leaves_of(store);
        let end = self.rng.below(leaves.len() + 1);
        let until = Until::Position(Position::from(u64::try_from(end).unwrap()));
        let [copy, fork, restored] = [2, 3, 4].map(|number| SimDisk::new(self.seed + number));
        store.fork_on(fork.clone(), until.clone()).run().unwrap();
        store.backup_on(copy.clone()).run().unwrap();
        StoreCopy::restore_on(Store::on(copy), restored.clone(), until).run().unwrap();
        let mut lines = vec![store.describe().unwrap().line];
        for made in [fork, restored] {
            let made = self.builder(made).open().unwrap();
            made.sync().unwrap();
            let found = check(&made, &mut self.rng, "a fork, or restored");
            let same = found.iter().zip(&leaves).take_while(|(one, other)| one == other).count();
            // The place is the end of an append, at or before the one that was asked for.
            assert_eq!(same + 1, found.len(), "a beginning of the history, and the ledger's event");
            assert!(same <= end);
            lines.push(made.describe().unwrap().line);
            made.close().unwrap();
        }
        lines.sort();
        lines.dedup();
        assert!(lines.iter().all(|line| line.as_ref().is_some_and(|line| line.len() == 32)), "{lines:?}");
        assert_eq!(lines.len(), 3, "a fork and a restored store have lines of their own");
    }

    fn roll_back(&mut self, store: Store) -> Store {
        store.sync().unwrap();
        let line = store.describe().unwrap().line;
        let cut = store.head().unwrap();
        let until = Position::from(u64::try_from(self.rng.below(number(cut.position().get()) + 1)).unwrap());
        store.close().unwrap();
        match self.builder(self.disk.clone()).rollback(until, &cut, "asked") {
            Ok(report) => {
                let end = report.kept.position().get();
                self.kept.retain(|head| head.size <= end);
                let old = Subdirectory::of(self.disk.clone(), report.quarantine);
                assert_eq!(Store::on(old).open_read_only().unwrap().describe().unwrap().line, line);
                let store = self.open();
                assert_ne!(store.describe().unwrap().line, line, "positions are given again");
                store
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
                self.open()
            }
        }
    }

    /// Every head that was kept is the beginning of the store's head.
    fn check(&mut self, store: &Store) {
        let place = format!("seed {}", self.seed);
        let leaves = check(store, &mut self.rng, &place);
        let head = store.tree_head().unwrap();
        for kept in &self.kept {
            assert_eq!(kept.root, naive_root(&leaves[..number(kept.size)]), "{place}: a root never changes");
            let hashes = store.tree_consistency(kept.size, head.size).unwrap();
            assert!(head.extends(kept, &hashes), "{place}");
        }
        self.kept.push(head);
    }
}

#[test]
fn roots_and_proofs_of_random_stores() {
    let started = Instant::now();
    let stores = sized(150, 1_000);
    for number in 0..stores {
        let mut world = World::new(seed().wrapping_add(number * 10));
        let mut store = world.open();
        for _ in 0..1 + world.rng.below(5) {
            for _ in 0..world.rng.below(12) {
                world.append(&store);
            }
            store = world.turn(store);
            world.check(&store);
        }
        assert!(store.verify().unwrap().is_clean());
        store.close().unwrap();
    }
    STORES.add("tree::roots_and_proofs_of_random_stores", stores, started);
}

/// A store of several segments with tree files; the last segment is open.
fn small_store(disk: &SimDisk) -> Store {
    let store = Store::on(disk.clone()).segment_bytes_max(3000).tree(true).open().unwrap();
    for number in 0..40 {
        store.append("a", &Raw("made", &number)).unwrap();
    }
    let many = (0..300).fold(Append::to("b"), |append, number| append.event(&Raw("made", &number)));
    many.commit(&store).unwrap();
    store.append("a", &Raw("made", &"x".repeat(5000))).unwrap();
    store.append("a", &Raw("made", &0)).unwrap();
    let count = |end: &str| disk.paths().iter().filter(|path| path.ends_with(end)).count();
    eventually("the tree files are written", || count(".tree") + 1 == count(".seg"));
    store
}

fn trees(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let paths = disk.paths().into_iter().filter(|path| path.ends_with(".tree"));
    paths.map(|path| (path.clone(), disk.contents(&path).unwrap())).collect()
}

#[test]
fn a_tree_file_that_is_deleted_or_damaged_is_built_again() {
    let disk = SimDisk::new(seed());
    let store = small_store(&disk);
    let head = store.tree_head().unwrap();
    store.close().unwrap();
    let whole = trees(&disk);
    assert!(whole.len() > 2);
    let check = |what: &str| {
        let store = Store::on(disk.clone()).open().unwrap();
        assert_eq!(store.tree_head().unwrap(), head, "{what}");
        let proof = store.tree_proof(Position::from(50), head.size).unwrap();
        assert!(head.includes(&proof), "{what}");
        store.close().unwrap();
        assert!(trees(&disk) == whole, "{what}");
    };
    let step = one_of(7);
    for (path, bytes) in &whole {
        disk.set_contents(path, None);
        check(&format!("{path} deleted"));
        disk.set_contents(path, Some(bytes[..143].to_vec()));
        check(&format!("{path} cut"));
        for at in (0..bytes.len()).step_by(step) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            disk.set_contents(path, Some(flipped));
            let store = Store::on(disk.clone()).open_read_only().unwrap();
            assert_eq!(store.tree_head().unwrap(), head, "{path}, byte {at}");
            for position in [1, 24, 41, 300, 341, 342] {
                let proof = store.tree_proof(Position::from(position), head.size).unwrap();
                assert!(head.includes(&proof), "{path}, byte {at}, position {position}");
            }
            disk.set_contents(path, Some(bytes[..at].to_vec()));
            assert_eq!(store.tree_head().unwrap(), head, "{path}, {at} bytes");
        }
        disk.set_contents(path, Some(bytes.clone()));
    }
    // A file of another segment, under this one's name.
    let [(one, _), (_, other), ..] = whole.as_slice() else { panic!("two tree files") };
    disk.set_contents(one, Some(other.clone()));
    check("exchanged");
}

#[test]
fn verify_compares_tree_files_with_the_log() {
    let disk = SimDisk::new(seed());
    let store = small_store(&disk);
    let whole = trees(&disk);
    let verify = || Verify::new().indexes().run_files(Store::on(disk.clone())).unwrap();
    let report = verify();
    assert!(report.is_clean() && report.indexes.is_empty(), "{report}");
    assert!(report.indexes_compared >= whole.len(), "{report}");
    let (path, bytes) = &whole[1];
    let mut flipped = bytes.clone();
    flipped[200] ^= 1;
    disk.set_contents(path, Some(flipped));
    let report = verify();
    let [flaw] = report.indexes.as_slice() else { panic!("{report}") };
    assert_eq!((&flaw.file, flaw.is_believed), (path, false), "{report}");
    // Another hash under right checksums: a reader believes it, until the file is built again.
    let forged = forge_root(bytes);
    disk.set_contents(path, Some(forged));
    let report = verify();
    let [flaw] = report.indexes.as_slice() else { panic!("{report}") };
    assert_eq!((&flaw.file, flaw.is_believed), (path, true), "{report}");
    assert!(!report.is_clean());
    store.rebuild_indexes(|_| std::ops::ControlFlow::Continue(())).unwrap();
    assert_eq!(trees(&disk), whole);
    assert_eq!(store.tree_head().unwrap().root, naive_root(&leaves_of(&store)));
}

/// Changes the first root and makes the checksum of the file's beginning fit again.
fn forge_root(bytes: &[u8]) -> Vec<u8> {
    let int = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let mut roots = 0;
    let mut at = int(56) - 1;
    while at < int(72) {
        let most = if at == 0 { 63 } else { at.trailing_zeros() };
        at += 1 << (int(72) - at).ilog2().min(most);
        roots += 1;
    }
    let mut forged = bytes.to_vec();
    forged[144] ^= 1;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&forged[..140]), &forged[144..144 + 32 * roots]);
    forged[140..144].copy_from_slice(&crc.to_le_bytes());
    forged
}

#[test]
fn a_crash_while_tree_files_are_written_costs_nothing() {
    let started = Instant::now();
    let disk = SimDisk::new(seed());
    small_store(&disk).close().unwrap();
    let trace = disk.trace();
    let mut rng = Rng::new(seed());
    let mut images = 0;
    for end in (0..=trace.len()).step_by(one_of(5)) {
        for mode in [CrashMode::Keep, CrashMode::Drop, CrashMode::Torn(seed().wrapping_add(images))] {
            let image = trace.image(end, mode);
            let place = format!("operation {end}, {mode:?}");
            let store = Store::on(image.clone()).segment_bytes_max(3000).tree(true).open();
            let store = store.unwrap_or_else(|error| panic!("{place}: {error}"));
            check(&store, &mut rng, &place);
            store.close().unwrap();
            assert!(!image.paths().iter().any(|path| path.ends_with(".tree.tmp")), "{place}");
            images += 1;
        }
    }
    IMAGES.add("tree::a_crash_while_tree_files_are_written_costs_nothing", images, started);
}

#[test]
fn only_durable_events_are_in_the_tree() {
    let store = Store::on(SimDisk::new(seed())).durability(BUFFERED).open().unwrap();
    assert_eq!(store.tree_head().unwrap().root, sha256(&[]), "nothing yet");
    store.append("a", &Raw("made", &1)).unwrap();
    assert_eq!(store.tree_head().unwrap().size, 0, "a power cut may take it back");
    assert_eq!(kind_of(store.tree_consistency(0, 1)), ErrorKind::Invalid);
    store.sync().unwrap();
    let head = store.tree_head().unwrap();
    assert_eq!((head.size, head.root), (1, leaves_of(&store)[0]));
    assert_eq!(store.tree_consistency(0, 1).unwrap(), Vec::<Hash>::new());
}

#[test]
fn questions_without_an_answer_are_refused() {
    let store = Store::in_memory().unwrap();
    store.append("a", &Raw("made", &1)).unwrap();
    store.append("a", &Raw("made", &2)).unwrap();
    for (position, size) in [(0, 1), (2, 1), (3, 2), (1, 3), (1, 0), (u64::MAX, 2)] {
        let asked = store.tree_proof(Position::from(position), size);
        assert_eq!(kind_of(asked), ErrorKind::Invalid, "position {position}, size {size}");
    }
    for (old, new) in [(2, 1), (0, 3), (3, 3), (u64::MAX, u64::MAX)] {
        assert_eq!(kind_of(store.tree_consistency(old, new)), ErrorKind::Invalid, "{old} to {new}");
    }
    let head = store.tree_head().unwrap();
    let proof = store.tree_proof(Position::from(1), 2).unwrap();
    assert!(head.includes(&proof));
    assert!(!TreeHead { size: 1, ..head }.includes(&proof));
    let of_another = annals::TreeProof { leaf: TreeLeaf { recorded_at: 0, ..proof.leaf }, ..proof.clone() };
    assert!(!head.includes(&of_another));
    let at_nothing = TreeLeaf { position: Position::START, ..proof.leaf };
    assert!(!head.includes(&annals::TreeProof { leaf: at_nothing, ..proof }));
}

/// Removing events changes no root. What went can be proven no more, but by proofs made before.
#[test]
fn removing_events_changes_no_root() {
    for (events, with_tree, waves) in [(1, true, 1), (1, false, 3), (3, true, 2), (7, false, 2)] {
        let place = format!("appends of {events}, tree {with_tree}, {waves} waves");
        let disk = SimDisk::new(seed());
        let store = Store::on(disk.clone()).segment_bytes_max(1500).tree(with_tree).open().unwrap();
        let mut kept: Vec<(TreeHead, annals::TreeProof)> = Vec::new();
        for wave in 0..waves {
            for number in 0..60 {
                let first = if number % 3 == 0 { "a" } else { "b" };
                let append = (0..events).fold(Append::to(first), |append, event| {
                    let entity = if event % 2 == 0 { first } else { "c" };
                    append.and_to(entity).event(&Raw("made", &(wave, number, event)))
                });
                append.commit(&store).unwrap();
                let head = store.tree_head().unwrap();
                kept.push((head, store.tree_proof(Position::from(head.size), head.size).unwrap()));
            }
            store.compaction("why").remove(Query::entity("a")).run().unwrap();
        }
        let head = store.tree_head().unwrap();
        let mut gone = 0;
        for (earlier, proof) in &kept {
            assert!(earlier.includes(proof), "{place}: a proof that was made before");
            match store.tree_consistency(earlier.size, head.size) {
                Ok(hashes) => assert!(head.extends(earlier, &hashes), "{place}: from {}", earlier.size),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Gone, "{place}: {error}");
                    gone += 1;
                }
            }
        }
        assert!(gone < kept.len(), "{place}: some sizes can be proven");
        let mut proven = 0;
        for position in 1..=head.size {
            let event = store.at(Position::from(position)).unwrap();
            match (event, store.tree_proof(Position::from(position), head.size)) {
                (Some(event), Ok(proof)) => {
                    assert!(head.includes(&proof) && proof.leaf == event.tree_leaf(), "{place}: {position}");
                    proven += 1;
                }
                (None, Err(error)) => assert_eq!(error.kind(), ErrorKind::Gone, "{place}: {position}"),
                (event, proof) => panic!("{place}: {position} is {event:?} and {proof:?}"),
            }
        }
        assert!(proven > 40 * waves, "{place}: {proven}");
        // Opened again, and as a backup, it is the same tree.
        store.close().unwrap();
        let again = Store::on(disk).open_read_only().unwrap();
        assert_eq!(again.tree_head().unwrap(), head, "{place}");
    }
}

#[test]
fn what_is_left_of_a_damaged_store_has_no_tree() {
    let disk = SimDisk::new(seed());
    small_store(&disk).close().unwrap();
    let segments: Vec<String> = disk.paths().into_iter().filter(|path| path.ends_with(".seg")).collect();
    let whole = disk.contents(&segments[1]).unwrap();
    for (segment, kind) in [(0, ErrorKind::Invalid), (1, ErrorKind::Corrupt)] {
        let image = disk.trace().image(disk.trace().len(), CrashMode::Keep);
        image.set_contents(&segments[segment], None);
        let left = Store::on(image).salvage().unwrap();
        assert_eq!(kind_of(left.tree_head()), kind, "{}", segments[segment]);
    }
    let mut damaged = whole;
    damaged[300] ^= 1;
    disk.set_contents(&segments[1], Some(damaged));
    let left = Store::on(disk.clone()).salvage().unwrap();
    // With its tree file the tree is whole; the event itself is damaged.
    disk.set_contents(&segments[1].replace(".seg", ".tree"), None);
    assert!(left.tree_head().is_err());
}
