//! Index files against the log: forged under right checksums, damaged, exchanged, gone, of a part of their
//! segment.

use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, Ordering};

use annals::disk::SimDisk;
use annals::{Append, Head, IndexFlaw, Query, Raw, Store, Verify, VerifyReport};

use crate::sim_support::BUFFERED;
use crate::support::{eventually, fill};

const BLOCK: usize = 4096;
const HEADER: usize = 192;

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn wide_at(bytes: &[u8], at: usize) -> usize {
    u32_at(bytes, at).try_into().unwrap()
}

/// Where a section lies, by its number in the header.
fn section(bytes: &[u8], number: usize) -> Range<usize> {
    let length = |number: usize| wide_at(bytes, 132 + 4 * number);
    let start = (0..number).fold(HEADER, |start, number| (start + length(number)).next_multiple_of(16));
    start..start + length(number)
}

const FILTER: usize = 0;
const SLOTS: usize = 1;
const ANCHORS: usize = 2;
const TERMS: usize = 3;
const OFFSETS: usize = 8;
const LISTS: usize = 9;

/// Makes all checksums of an index file fit what is in it.
fn reseal(bytes: &mut [u8]) {
    let table = section(bytes, LISTS).end.next_multiple_of(16);
    for block in 0..table.div_ceil(BLOCK) {
        let place = (block * BLOCK).max(HEADER)..((block + 1) * BLOCK).min(table);
        let crc = crc32c::crc32c(&bytes[place]).to_le_bytes();
        put(bytes, table + 4 * block, &crc);
    }
    let crc = crc32c::crc32c(&bytes[table..]).to_le_bytes();
    put(bytes, 172, &crc);
    let crc = crc32c::crc32c(&bytes[..188]).to_le_bytes();
    put(bytes, 188, &crc);
}

fn builder(disk: &SimDisk) -> annals::Builder {
    Store::on(disk.clone()).segment_bytes_max(4000)
}

/// A closed store of some segments, all of them indexed.
fn disk() -> SimDisk {
    let disk = SimDisk::new(7);
    let store = builder(&disk).open().unwrap();
    for number in 0..120_u64 {
        let entity = format!("e:{}", number * 7 % 5);
        let append = Append::to((entity.as_str(), "s:1")).event(&Raw("some.kind", &number)).tag("t:1");
        let append = if number % 3 == 0 { append.key(format!("key {number}")) } else { append };
        append.commit(&store).unwrap();
    }
    store.rebuild_indexes(|_| ControlFlow::Continue(())).unwrap();
    store.close().unwrap();
    disk
}

fn indexes(disk: &SimDisk) -> Vec<String> {
    disk.paths().into_iter().filter(|path| path.ends_with(".idx")).collect()
}

fn verify(disk: &SimDisk) -> VerifyReport {
    let report = Verify::new().indexes().run_files(Store::on(disk.clone())).unwrap();
    assert_eq!(report.findings, [], "the log is whole");
    report
}

fn only_flaw(report: &VerifyReport) -> &IndexFlaw {
    assert_eq!(report.indexes.len(), 1, "{report}");
    &report.indexes[0]
}

/// Changes a file, with checksums that fit.
fn forge(disk: &SimDisk, path: &str, change: impl FnOnce(&mut [u8])) {
    let mut bytes = disk.contents(path).unwrap();
    let before = bytes.clone();
    change(&mut bytes);
    reseal(&mut bytes);
    assert_ne!(bytes, before, "{path}");
    disk.set_contents(path, Some(bytes));
}

/// Where the term of an entity begins, which has a list, and where its name does.
fn term(bytes: &[u8], name: &str) -> (usize, usize) {
    let mut at = section(bytes, TERMS).start;
    loop {
        let (flags, length) = (bytes[at], usize::from(u16::from_le_bytes([bytes[at + 1], bytes[at + 2]])));
        let sizes = [(0x30, 4), (0x20, 8), (0x40, 8), (0x80, 8)];
        let fields: usize = sizes.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, size)| size).sum();
        let name_at = at + 7 + fields;
        if &bytes[name_at..name_at + length] == name.as_bytes() {
            assert_eq!(flags & 0x2F, 0x20, "an entity with a list");
            return (at, name_at);
        }
        at = name_at + length;
    }
}

/// The last event of the entity is left out of what the index says of it.
fn omit_one(bytes: &mut [u8]) {
    let (term, _) = term(bytes, "e:1");
    let count = u32_at(bytes, term + 7) - 1;
    let list = section(bytes, LISTS).start + 4 * wide_at(bytes, term + 15);
    let last = u32_at(bytes, list + 4 * usize::try_from(count - 1).unwrap());
    put(bytes, term + 7, &count.to_le_bytes());
    put(bytes, term + 11, &last.to_le_bytes());
}

/// The first event is said to lie in the frame of the second.
fn misplace_one(bytes: &mut [u8]) {
    let at = section(bytes, OFFSETS).start;
    let second = u32_at(bytes, at + 4);
    put(bytes, at, &second.to_le_bytes());
}

fn flip(bytes: &mut [u8], at: usize) {
    bytes[at] ^= 1;
}

#[test]
fn an_index_that_is_whole_and_lies_is_found_and_placed() {
    type Change = fn(&mut [u8]);
    let forgeries: [(&str, Change, Option<usize>); 11] = [
        ("filter", |bytes| flip(bytes, HEADER), Some(FILTER)),
        ("slots of terms", |bytes| flip(bytes, section(bytes, SLOTS).start), Some(SLOTS)),
        ("anchors of terms", |bytes| flip(bytes, section(bytes, ANCHORS).start), Some(ANCHORS)),
        ("terms", omit_one, Some(TERMS)),
        ("terms", |bytes| flip(bytes, term(bytes, "e:1").1 + 2), Some(TERMS)),
        ("offsets of events", misplace_one, Some(OFFSETS)),
        ("lists of events", |bytes| flip(bytes, section(bytes, LISTS).start), Some(LISTS)),
        // How many entities begin here, how many terms and how many frames there are.
        ("counts", |bytes| flip(bytes, 124), None),
        ("counts", |bytes| flip(bytes, 128), None),
        ("counts", |bytes| put(bytes, 176, &(u32_at(bytes, 176) - 1).to_le_bytes()), None),
        // The first event of a term.
        ("terms", |bytes| flip(bytes, section(bytes, TERMS).start + 3), Some(TERMS)),
    ];
    let disk = disk();
    let paths = indexes(&disk);
    assert!(paths.len() >= 4, "{paths:?}");
    let right = verify(&disk);
    assert!(right.is_clean() && right.indexes.is_empty(), "{right}");
    assert_eq!(right.indexes_compared, paths.len());
    for (what, change, number) in forgeries {
        for path in [&paths[0], &paths[2]] {
            let bytes = disk.contents(path).unwrap();
            forge(&disk, path, change);
            let report = verify(&disk);
            let flaw = only_flaw(&report);
            assert!(!report.is_clean() && flaw.is_believed, "{what}: {report}");
            assert!(report.to_string().starts_with("WRONG INDEX"), "{report}");
            assert_eq!(
                (&flaw.file, flaw.what.as_str()),
                (path, format!("its {what} are not those of the log").as_str())
            );
            if let Some(number) = number {
                let place = section(&bytes, number);
                assert!(
                    place.contains(&usize::try_from(flaw.offset).unwrap()),
                    "{what}: {flaw} not in {place:?}"
                );
            }
            // Without a request, indexes are not compared.
            assert!(Store::on(disk.clone()).verify().unwrap().is_clean());
            disk.set_contents(path, Some(bytes));
        }
    }
    assert!(verify(&disk).indexes.is_empty());
}

#[test]
fn a_lie_is_believed_until_the_index_is_built_again() {
    let disk = disk();
    let path = &indexes(&disk)[1];
    let count = |store: &Store| store.count(Query::entity("e:1")).unwrap();
    let right = count(&builder(&disk).open_read_only().unwrap());
    forge(&disk, path, omit_one);
    let store = builder(&disk).open().unwrap();
    assert_eq!(count(&store), right - 1, "or there is nothing to report");
    let report = Verify::new().indexes().run(&store).unwrap();
    assert!(only_flaw(&report).is_believed && report.findings.is_empty(), "{report}");
    store.rebuild_indexes(|_| ControlFlow::Continue(())).unwrap();
    assert_eq!(count(&store), right);
    assert!(Verify::new().indexes().run(&store).unwrap().indexes.is_empty());
    store.close().unwrap();
    assert!(verify(&disk).indexes.is_empty());
}

#[test]
fn every_damaged_byte_is_found_and_costs_nothing_but_time() {
    let disk = disk();
    let path = &indexes(&disk)[1];
    let bytes = disk.contents(path).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        disk.set_contents(path, Some(damaged));
        let report = verify(&disk);
        let flaw = only_flaw(&report);
        assert_eq!(&flaw.file, path);
        assert!(report.is_clean() && !flaw.is_believed, "{at}: {report}");
        // The block, the table, or the header whose checksum does not fit.
        assert!(
            usize::try_from(flaw.offset).unwrap() <= at.max(section(&bytes, LISTS).end + 16),
            "{at}: {flaw}"
        );
    }
    for length in [0, 1, HEADER - 1, HEADER, bytes.len() - 1, bytes.len() + 1] {
        let mut cut = bytes.clone();
        cut.resize(length, 0);
        disk.set_contents(path, Some(cut));
        let report = verify(&disk);
        assert!(report.is_clean() && !only_flaw(&report).is_believed, "{length}: {report}");
    }
    let store = builder(&disk).open_read_only().unwrap();
    assert_eq!(store.count(Query::all()).unwrap(), 120);
}

#[test]
fn an_index_of_another_segment_is_not_believed_and_a_missing_one_is_none() {
    let disk = disk();
    let paths = indexes(&disk);
    let [one, other] = [1, 2].map(|at: usize| disk.contents(&paths[at]).unwrap());
    disk.set_contents(&paths[1], Some(other));
    disk.set_contents(&paths[2], Some(one));
    let report = verify(&disk);
    let found: Vec<&str> = report.indexes.iter().map(|flaw| flaw.file.as_str()).collect();
    assert_eq!(found, [&paths[1], &paths[2]]);
    assert!(report.is_clean() && report.indexes.iter().all(|flaw| !flaw.is_believed), "{report}");
    assert!(
        report.to_string().starts_with("clean") && report.to_string().contains("another segment"),
        "{report}"
    );
    // Bound to the right segment it is a lie.
    forge(&disk, &paths[1], |bytes| {
        let right = disk.contents(&paths[2]).unwrap();
        bytes[56..112].copy_from_slice(&right[56..112]);
    });
    let report = verify(&disk);
    assert!(report.indexes.iter().any(|flaw| flaw.file == paths[1] && flaw.is_believed), "{report}");
    for path in &paths[1..3] {
        disk.set_contents(path, None);
    }
    let report = verify(&disk);
    assert_eq!((report.indexes_compared, report.indexes.len()), (paths.len() - 2, 0), "{report}");
}

#[test]
fn indexes_are_compared_in_parts_and_not_behind_a_break() {
    let disk = disk();
    let paths = indexes(&disk);
    for path in [&paths[1], &paths[3]] {
        forge(&disk, path, |bytes| bytes[HEADER] ^= 0xFF);
    }
    let mut after = None::<Head>;
    for at in 0..=paths.len() {
        let report = after.iter().fold(Verify::new(), |verify, head| verify.after(*head)).indexes();
        let report = report.run_files(Store::on(disk.clone())).unwrap();
        let lies = paths.iter().enumerate().filter(|(index, _)| [1, 3].contains(index) && *index >= at);
        let lies: Vec<&str> = lies.map(|(_, path)| path.as_str()).collect();
        let told: Vec<&str> = report.indexes.iter().map(|flaw| flaw.file.as_str()).collect();
        assert_eq!(told, lies, "behind {at} segments");
        assert_eq!(report.indexes_compared, paths.len() - at.min(paths.len()));
        after = head_behind(&disk, at);
    }
    let segment = paths[1].replace(".idx", ".seg");
    let mut bytes = disk.contents(&segment).unwrap();
    bytes[1000] ^= 1;
    disk.set_contents(&segment, Some(bytes));
    let report = Verify::new().indexes().run_files(Store::on(disk.clone())).unwrap();
    assert!(!report.findings.is_empty());
    assert_eq!(only_flaw(&report).file, paths[3]);
    assert_eq!(report.indexes_compared, paths.len() - 1);
}

/// The head behind the first segment and `segments` more.
fn head_behind(disk: &SimDisk, segments: usize) -> Option<Head> {
    let store = builder(disk).open_read_only().unwrap();
    let paths: Vec<String> = disk.paths().into_iter().filter(|path| path.ends_with(".seg")).collect();
    let first_behind: u64 = match paths.get(segments + 1) {
        Some(path) => path["segments/".len()..][..20].parse().unwrap(),
        None => return Some(store.head().unwrap()),
    };
    let last = store.at((first_behind - 1).into()).unwrap().unwrap();
    Some(
        format!("{}:{}@{}", last.position(), hex(&last.chain()), store.head().unwrap().store_id())
            .parse()
            .unwrap(),
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_index_of_a_part_is_compared_up_to_where_it_ends() {
    let disk = SimDisk::new(7);
    let builder = || Store::on(disk.clone()).segment_bytes_max(1 << 20).durability(BUFFERED);
    let store = builder().open().unwrap();
    fill(&store, "e:1", 4_200);
    store.close().unwrap();
    let path = indexes(&disk).remove(0);
    let closed = verify(&disk);
    assert_eq!((closed.indexes_compared, closed.indexes.len()), (1, 0), "{closed}");
    let right = disk.contents(&path).unwrap();
    forge(&disk, &path, misplace_one);
    assert!(only_flaw(&verify(&disk)).is_believed, "the next opening goes on from there");
    let store = builder().open().unwrap();
    fill(&store, "e:2", 10);
    let report = Verify::new().indexes().run(&store).unwrap();
    assert!(only_flaw(&report).is_believed, "{report}");
    store.rebuild_indexes(|_| ControlFlow::Continue(())).unwrap();
    assert!(disk.contents(&path).unwrap() == right, "built again, up to where it ended");
    assert!(Verify::new().indexes().run(&store).unwrap().indexes.is_empty());
    store.close().unwrap();
    // MARK is behind it now, and proves all of it: the next opening begins there.
    assert!(verify(&disk).indexes.is_empty());
    forge(&disk, &path, misplace_one);
    let report = verify(&disk);
    assert!(!report.is_clean() && only_flaw(&report).is_believed, "{report}");
    // It is of no use either to the sealed segment.
    disk.set_contents(&path, Some(right.clone()));
    let store = builder().open().unwrap();
    fill(&store, "e:3", 10_000);
    store.close().unwrap();
    eventually("the index of the whole segment", || disk.contents(&path).unwrap() != right);
    assert!(verify(&disk).indexes.is_empty());
    disk.set_contents(&path, Some(right));
    let report = verify(&disk);
    assert!(report.is_clean() && only_flaw(&report).what.contains("another state"), "{report}");
}

#[test]
fn beside_a_writer_no_index_is_called_wrong() {
    let disk = SimDisk::new(7);
    let store = builder(&disk).open().unwrap();
    let stop = AtomicBool::new(false);
    let (mut compared, mut runs) = (0, 0);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut number = 0_u64;
            while !stop.load(Ordering::Relaxed) && number < 20_000 {
                Append::to(format!("e:{}", number % 50)).event(&Raw("x", &number)).commit(&store).unwrap();
                number += 1;
            }
        });
        while compared < 200 {
            for report in [
                Verify::new().indexes().run_files(Store::on(disk.clone())).unwrap(),
                Verify::new().indexes().run(&store).unwrap(),
            ] {
                if !report.is_clean() || !report.indexes.is_empty() {
                    stop.store(true, Ordering::Relaxed);
                }
                assert!(report.is_clean() && report.indexes.is_empty(), "run {runs}: {report}");
                compared += report.indexes_compared;
            }
            runs += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
}
