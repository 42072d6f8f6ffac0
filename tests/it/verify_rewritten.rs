//! Verifying what was compacted several times, merged, erased, set back and forked: whole, in parts, against
//! heads of before, and damaged.

use annals::disk::SimDisk;
use annals::{Append, GroupBy, Head, KeyWindow, Position, Query, Raw, Store, Verify, VerifyReport};

use crate::support::Random;

fn builder(disk: &SimDisk) -> annals::Builder {
    Store::on(disk.clone()).segment_bytes_max(1500).key_window(KeyWindow::Positions(10))
}

fn fill(store: &Store, random: &mut Random, appends: u64) -> Vec<Head> {
    let one = |number: u64, random: &mut Random| {
        let mut append = Append::to(format!("e:{}", random.below(5)));
        for _ in 0..1 + random.below(3) {
            append = append.event(&Raw(
                random.pick(&["made", "changed", "gone"]),
                &(number, "x".repeat(random.index(40))),
            ));
        }
        append.commit(store).unwrap();
        store.head().unwrap()
    };
    (0..appends).map(|number| one(number, random)).collect()
}

/// A store of segments of several generations with attestations at all places, closed; the heads behind each
/// append, of before and of after.
fn rewritten(seed: u64) -> (SimDisk, Vec<Head>) {
    let disk = SimDisk::new(seed);
    let mut random = Random::new(seed);
    let store = builder(&disk).open().unwrap();
    let mut heads = fill(&store, &mut random, 60);
    store.compaction("first").remove(Query::all().kind("gone")).run().unwrap();
    heads.extend(fill(&store, &mut random, 30));
    store.erase(Query::entity("e:1"), "asked for").unwrap();
    store.compaction("second").remove(Query::entity("e:2")).keep_newest(3, GroupBy::Entity).run().unwrap();
    heads.extend(fill(&store, &mut random, 30));
    store
        .compaction("third")
        .remove(Query::all().kind("changed"))
        .before(Position::from(90))
        .merge()
        .run()
        .unwrap();
    heads.extend(fill(&store, &mut random, 10));
    store.close().unwrap();
    (disk, heads)
}

fn segments(disk: &SimDisk) -> Vec<String> {
    disk.paths().into_iter().filter(|path| path.starts_with("segments/") && path.ends_with(".seg")).collect()
}

fn files(disk: &SimDisk, verify: Verify<'_>) -> VerifyReport {
    verify.indexes().run_files(Store::on(disk.clone())).unwrap()
}

/// The ends of all segments, as verifying in parts gives them.
fn ends(disk: &SimDisk) -> Vec<Head> {
    let paths = segments(disk);
    let whole = Verify::new().run_files(Store::on(disk.clone())).unwrap();
    assert!(whole.is_clean(), "{whole}");
    let mut ends = Vec::new();
    // What follows a segment says how the log stood at its end: position, and chain.
    for path in &paths[1..] {
        let bytes = disk.contents(path).unwrap();
        let first = u64::from_le_bytes(bytes[56..64].try_into().unwrap());
        ends.push((first - 1, bytes[CHAIN_BEFORE..CHAIN_BEFORE + 32].to_vec()));
    }
    let store_id = whole.verified.unwrap().store_id();
    let head = |(position, chain): (u64, Vec<u8>)| {
        let chain: String = chain.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{position}:{chain}@{store_id}").parse().unwrap()
    };
    let mut ends: Vec<Head> = ends.into_iter().map(head).collect();
    ends.push(whole.verified.unwrap());
    ends
}

/// In a segment's header.
const CHAIN_BEFORE: usize = 96;

fn verify_every_way(disk: &SimDisk, heads: &[Head], what: &str) {
    let paths = segments(disk);
    let whole = files(disk, Verify::new());
    assert!(whole.is_clean() && whole.indexes.is_empty() && whole.versions_unchecked == 0, "{what}: {whole}");
    assert_eq!(whole.segments, paths.len(), "{what}");
    let store = builder(disk).open_read_only().unwrap();
    let open = Verify::new().indexes().run(&store).unwrap();
    assert_eq!(
        (open.events, open.appends, &open.findings),
        (whole.events, whole.appends, &whole.findings),
        "{what}"
    );
    assert_eq!(whole.events, store.count(Query::all().or(Query::entity_prefix("$"))).unwrap(), "{what}");
    // A head that was removed itself is not met; the others are, wherever verifying begins.
    let (mut met, mut removed) = (0, 0);
    for head in heads {
        let stands = store.extends(head).unwrap();
        let report = files(disk, Verify::new().expect(*head));
        let position_is_there = report.findings.is_empty();
        assert!(position_is_there || report.findings.len() == 1, "{what}: {report}");
        assert!(!stands || position_is_there, "{what}: {head}: {report}");
        if position_is_there { met += 1 } else { removed += 1 }
    }
    println!("{what}: {} segments, {met} heads met, {removed} inside of what was removed", paths.len());
    let ends = ends(disk);
    for (at, end) in ends.iter().enumerate() {
        let later =
            heads.iter().rev().find(|head| head.position() >= end.position() && store.extends(head).unwrap());
        let verify = || later.iter().fold(Verify::new().after(*end), |verify, head| verify.expect(**head));
        for report in [files(disk, verify()), verify().run(&store).unwrap()] {
            assert!(report.is_clean(), "{what}, behind segment {at}: {report}");
            // The last one is looked at in any case.
            assert_eq!(report.segments, (paths.len() - 1 - at).max(1), "{what}, behind segment {at}");
            assert_eq!(report.verified, whole.verified, "{what}");
        }
        let mut other = end.to_string().into_bytes();
        let digit = other.iter().position(|byte| *byte == b':').unwrap() + 1;
        other[digit] = if other[digit] == b'0' { b'1' } else { b'0' };
        let other: Head = String::from_utf8(other).unwrap().parse().unwrap();
        assert!(
            !files(disk, Verify::new().after(other)).is_clean(),
            "{what}: another chain before segment {at}"
        );
    }
}

#[test]
fn whole_in_parts_and_against_heads() {
    for seed in [1, 2, 3] {
        let (disk, heads) = rewritten(seed);
        assert!(segments(&disk).iter().any(|path| path.ends_with(".2.seg") || path.ends_with(".3.seg")));
        verify_every_way(&disk, &heads, "compacted");

        let forked = SimDisk::new(0);
        let store = builder(&disk).open_read_only().unwrap();
        let (end, head) = (store.head().unwrap().position().get(), store.head().unwrap());
        store.fork_on(forked.clone(), Position::from(end - 5)).run().unwrap();
        drop(store);
        let store = builder(&forked).open().unwrap();
        let later = fill(&store, &mut Random::new(seed), 20);
        store.compaction("in the fork").remove(Query::entity("e:3")).run().unwrap();
        store.close().unwrap();
        let before = heads.iter().filter(|head| head.position().get() < end - 10);
        verify_every_way(&forked, &before.chain(&later).copied().collect::<Vec<_>>(), "forked");

        builder(&disk).rollback(Position::from(end - 40), &head, "a mistake").unwrap();
        let store = builder(&disk).open().unwrap();
        let later = fill(&store, &mut Random::new(seed + 10), 20);
        store.compaction("behind it").remove(Query::entity("e:4")).merge().run().unwrap();
        store.close().unwrap();
        let before = heads.iter().filter(|head| head.position().get() < end - 45);
        verify_every_way(&disk, &before.chain(&later).copied().collect::<Vec<_>>(), "set back");
    }
}

#[test]
fn every_flipped_byte_of_a_rewritten_segment_is_found_and_placed() {
    let (disk, _) = rewritten(4);
    let rewritten: Vec<String> =
        segments(&disk).into_iter().filter(|path| !path.ends_with(".0.seg")).collect();
    assert!(rewritten.len() >= 3, "{rewritten:?}");
    let mut flips = 0;
    for path in &rewritten {
        let bytes = disk.contents(path).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            disk.set_contents(path, Some(damaged));
            let report = Verify::new().run_files(Store::on(disk.clone())).unwrap();
            flips += 1;
            let found = report.findings.iter().find(|found| found.file == *path);
            let found = found.unwrap_or_else(|| panic!("{path} at {at} of {}: {report}", bytes.len()));
            let offset = usize::try_from(found.offset).unwrap();
            // No further away than the frame, the attestation or the seal it lies in.
            assert!(offset <= at && at - offset < 2000, "{path} at {at}: {found}");
        }
        disk.set_contents(path, Some(bytes));
    }
    println!("{flips} flips in {} segments, all found", rewritten.len());
}
