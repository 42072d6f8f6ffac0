//! The index file of the segment that is being written: what opening takes from it after any stop. MARK decides
//! how much of it counts. In every state of the file no event is lost, and no damage is made up.

use std::ops::Range;
use std::sync::OnceLock;

use annals::disk::{CrashMode, Fault, SimDisk, Trace};
use annals::{Append, ErrorKind, Query, Raw, RecordedEvent, Store, Verify};

use crate::sim_spy::{Spy, What};
use crate::sim_support::{dump, fingerprint, one_of};
use crate::support::eventually;

const SEGMENT: &str = "segments/00000000000000000001.0.seg";
const INDEX: &str = "segments/00000000000000000001.0.idx";
const TEMPORARY: &str = "segments/00000000000000000001.0.idx.tmp";
/// The index is written again after this many durable bytes.
const PART: u32 = 4 << 20;
/// As many large appends as fill a part.
const LARGE: u64 = 42;
const BLOCK: usize = 4096;

/// A store that was filled in one segment, and whose index was written twice in that time.
struct Made {
    trace: Trace,
    prints: Vec<u64>,
    /// MARK before the first index was written, between the two, behind the second, and at the end.
    marks: Vec<Vec<u8>>,
    /// The index file, both times.
    indexes: Vec<Vec<u8>>,
    /// The points of the trace while each of them was written, and what was acknowledged by then.
    written: Vec<Range<usize>>,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The end of the segment that an index file states.
fn end_of(index: &[u8]) -> u32 {
    u32_at(index, 68)
}

/// The durable end in the newer slot of MARK.
fn marked(mark: &[u8]) -> u32 {
    let newer = [0, 4096].into_iter().max_by_key(|at| (u32_at(mark, at + 56), *at)).unwrap();
    u32_at(mark, newer + 76)
}

/// The index file, once it ends behind `end`.
fn index_behind(disk: &SimDisk, end: u32) -> Vec<u8> {
    let ends_behind = || disk.contents(INDEX).is_some_and(|index| end_of(&index) > end);
    eventually("the index of the durable part is written", ends_behind);
    disk.contents(INDEX).unwrap()
}

/// [`LARGE`] of these fill a part.
fn append_large(store: &Store, number: u64) -> u64 {
    let text = "x".repeat(100 << 10);
    let append = Append::to(format!("large:{}", number % 2)).event(&Raw("large", &text));
    append.commit(store).unwrap().position().get()
}

fn append_small(store: &Store, number: u64) -> u64 {
    let append = Append::to(format!("small:{}", number % 7)).event(&Raw("small", &number));
    append.tag(format!("t:{number}")).key(format!("key {number}")).commit(store).unwrap().position().get()
}

fn append_large_all(store: &Store, numbers: Range<u64>) {
    for number in numbers {
        append_large(store, number);
    }
}

fn append_small_all(store: &Store, numbers: Range<u64>) {
    for number in numbers {
        append_small(store, number);
    }
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let disk = SimDisk::new(11);
        let store = Store::on(disk.clone()).open().unwrap();
        let noted = |position: u64| disk.note(position);
        let mark = || disk.contents("MARK").unwrap();
        let mut marks = Vec::new();
        let mut indexes: Vec<Vec<u8>> = Vec::new();
        let mut written = Vec::new();
        for part in 0..2 {
            (0..300).for_each(|number| noted(append_small(&store, part * 300 + number)));
            marks.push(mark());
            let begun = disk.trace().len();
            (0..LARGE).for_each(|number| noted(append_large(&store, number)));
            indexes.push(index_behind(&disk, indexes.last().map_or(0, |index| end_of(index))));
            written.push(begun..disk.trace().len());
        }
        marks.push(mark());
        (600..640).for_each(|number| noted(append_small(&store, number)));
        marks.push(mark());
        let trace = disk.trace();
        let prints = dump(&store).unwrap().iter().map(fingerprint).collect();
        store.close().unwrap();
        let ends: Vec<u32> = indexes.iter().map(|index| end_of(index)).collect();
        let marked: Vec<u32> = marks.iter().map(|mark| marked(mark)).collect();
        assert!(ends[0] >= PART && ends[1] - ends[0] >= PART, "{ends:?}");
        assert!(marked[0] < ends[0] && ends[0] < marked[1], "{marked:?}, {ends:?}");
        assert!(marked[1] < ends[1] && ends[1] <= marked[2] && marked[2] < marked[3], "{marked:?}, {ends:?}");
        Made { trace, prints, marks, indexes, written }
    })
}

/// What kill -9 leaves at the end.
fn killed() -> SimDisk {
    let trace = &made().trace;
    trace.image(trace.len(), CrashMode::Keep)
}

fn prints(events: &[RecordedEvent]) -> Vec<u64> {
    events.iter().map(fingerprint).collect()
}

/// Checks that a store has the first events of [`made`], and that its indexes find what a scan finds. Returns
/// how many there are.
fn check(store: &Store, place: &str) -> usize {
    let events = dump(store).unwrap_or_else(|error| panic!("{place}: {error}"));
    let found = prints(&events);
    assert!(made().prints.starts_with(&found), "{place}: other events");
    for entity in ["large:0", "large:1", "small:3", "none"] {
        let scanned: Vec<&RecordedEvent> = events.iter().filter(|event| event.entity() == entity).collect();
        let asked: Vec<u64> = store.stream(entity).map(|event| fingerprint(&event.unwrap())).collect();
        let scanned: Vec<u64> = scanned.into_iter().map(fingerprint).collect();
        assert_eq!(asked, scanned, "{place}: {entity}");
        assert_eq!(store.version(entity).unwrap().get(), scanned.len() as u64, "{place}: {entity}");
    }
    for event in events.iter().filter(|event| event.tags().next().is_some()).step_by(29) {
        let tag = event.tags().next().unwrap();
        let tagged = store.read(Query::all().tag(tag)).map(|event| fingerprint(&event.unwrap()));
        assert_eq!(tagged.collect::<Vec<_>>(), [fingerprint(event)], "{place}: {tag}");
    }
    let entities: Vec<String> = store
        .entities()
        .map(|listed| listed.unwrap().name)
        .filter(|name| name.starts_with("small"))
        .collect();
    let small = events.iter().filter(|event| event.kind() == "small").count().min(7);
    assert_eq!(entities.len(), small, "{place}");
    found.len()
}

/// Opens to write, checks, goes on, and checks that the next opening finds the same. Returns the bytes that
/// the first opening read of the segment.
fn check_and_go_on(disk: &SimDisk, expected: usize, place: &str) -> u64 {
    let store =
        Store::on(disk.clone()).open().unwrap_or_else(|error| panic!("{place}: does not open: {error}"));
    let report = store.open_report().clone();
    assert_eq!(check(&store, place), expected, "{place}: {report}");
    assert_eq!(report.events, expected as u64, "{place}: {report}");
    // A key of the first part is known, and the versions of its streams go on.
    if expected > 0 {
        let again = Append::to("small:0").event(&Raw("small", &0)).tag("t:0").key("key 0").commit(&store);
        assert!(again.unwrap().replayed(), "{place}");
        let before = store.version("small:3").unwrap();
        let receipt = Append::to("small:3").event(&Raw("small", &1)).commit(&store).unwrap();
        assert_eq!(receipt.version().get(), before.get() + 1, "{place}");
    }
    let stats = store.stats();
    store.close().unwrap();
    let verified = Verify::new().indexes().run_files(Store::on(disk.clone())).unwrap();
    assert!(verified.is_clean(), "{place}: {verified}");
    let again = Store::on(disk.clone()).open_read_only().unwrap();
    assert_eq!(again.stats().entities, stats.entities, "{place}");
    assert_eq!(again.count(Query::all()).unwrap(), expected as u64 + u64::from(expected > 0), "{place}");
    report.bytes_read
}

// Every MARK beside every index. All frames are there, so all events must be found, however much of them is
// proven. How many bytes opening reads shows what it believed.
#[test]
fn mark_decides_how_much_of_an_index_counts() {
    let made = made();
    let whole = killed().contents(SEGMENT).unwrap().len() as u64;
    let marks = made.marks.iter().map(Some).chain([None]);
    let mut used = 0;
    for (number, mark) in marks.enumerate() {
        for index in made.indexes.iter().map(Some).chain([None]) {
            let disk = killed();
            disk.set_contents("MARK", mark.cloned());
            disk.set_contents(INDEX, index.cloned());
            let end = index.map_or(0, |index| end_of(index));
            let place = format!("MARK {number}, index up to {end}");
            let is_proven = mark.is_some_and(|mark| end <= marked(mark)) && end > 0;
            let bytes_read = check_and_go_on(&disk, made.prints.len(), &place);
            if is_proven {
                // A frame that goes beyond a piece is read again with the next piece.
                let most = whole - u64::from(end) + (2 << 20);
                assert!(bytes_read < most, "{place}: {bytes_read} of {whole}");
            } else {
                assert!(bytes_read + (1 << 20) > whole, "{place}: {bytes_read} of {whole}");
            }
            used += u64::from(is_proven);
        }
    }
    assert_eq!(used, 2 + 1 + 2);
}

// A power cut while the index is written, and kill -9 there.
#[test]
fn a_stop_while_the_index_is_written_loses_nothing() {
    let made = made();
    let mut images = 0;
    for points in &made.written {
        for point in points.clone().step_by(one_of(12)) {
            let promised = made.trace.notes_before(point).last().unwrap();
            let modes = [CrashMode::Keep, CrashMode::Drop, CrashMode::Torn(0), CrashMode::Torn(1)];
            for mode in modes {
                let disk = made.trace.image(point, mode);
                let place = format!("point {point}, {mode:?}");
                let store = Store::on(disk.clone()).open();
                let store = store.unwrap_or_else(|error| panic!("{place}: does not open: {error}"));
                let found = check(&store, &place);
                assert!(found as u64 >= promised, "{place}: {found} of {promised}");
                assert!(!disk.paths().contains(&TEMPORARY.to_owned()), "{place}: {:?}", disk.paths());
                drop(store);
                images += 1;
            }
        }
    }
    println!("{images} images while an index was written: 0 acknowledged lost, 0 false corruption");
    assert!(images > 30);
}

/// Damages a copy of the bytes.
fn damaged(bytes: &[u8], damage: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    damage(&mut bytes);
    bytes
}

// A power cut may leave anything under the name of an index: it is not synced.
#[test]
fn a_damaged_index_is_never_believed() {
    let made = made();
    let index = &made.indexes[1];
    let foreign = {
        let disk = SimDisk::new(12);
        let store = Store::on(disk.clone()).open().unwrap();
        append_large_all(&store, 0..LARGE);
        let index = index_behind(&disk, 0);
        store.close().unwrap();
        index
    };
    let resealed = |change: &dyn Fn(&mut Vec<u8>)| {
        damaged(index, |bytes| {
            let header = header_bytes(bytes);
            change(bytes);
            let crc = crc32c::crc32c(&bytes[..header - 4]).to_le_bytes();
            bytes[header - 4..header].copy_from_slice(&crc);
        })
    };
    let put_end = |bytes: &mut Vec<u8>, end: u32| bytes[68..72].copy_from_slice(&end.to_le_bytes());
    let mut damages: Vec<(String, Vec<u8>)> = vec![
        ("another store's".to_owned(), foreign),
        ("another segment's".to_owned(), resealed(&|bytes| bytes[56] ^= 2)),
        ("another generation's".to_owned(), resealed(&|bytes| bytes[64] ^= 1)),
        ("another chain".to_owned(), resealed(&|bytes| bytes[80] ^= 1)),
        ("another position".to_owned(), resealed(&|bytes| bytes[72] ^= 1)),
        ("ends a bit later".to_owned(), resealed(&|bytes| put_end(bytes, end_of(index) + 8))),
        ("ends earlier".to_owned(), resealed(&|bytes| put_end(bytes, end_of(&made.indexes[0])))),
        ("ends far away".to_owned(), resealed(&|bytes| put_end(bytes, u32::MAX))),
        ("empty".to_owned(), Vec::new()),
        ("zeros".to_owned(), vec![0; index.len()]),
        ("half".to_owned(), index[..index.len() / 2].to_vec()),
        ("longer".to_owned(), damaged(index, |bytes| bytes.push(0))),
    ];
    for block in 0..index.len().div_ceil(BLOCK) {
        let at = (block * BLOCK + 777).min(index.len() - 1);
        damages.push((format!("a bit of block {block}"), damaged(index, |bytes| bytes[at] ^= 4)));
        let zeros = block * BLOCK..((block + 1) * BLOCK).min(index.len());
        damages.push((format!("block {block} is zeros"), damaged(index, |bytes| bytes[zeros].fill(0))));
    }
    for at in (0..header_bytes(index)).step_by(11) {
        damages.push((format!("a bit of byte {at}"), damaged(index, |bytes| bytes[at] ^= 16)));
    }
    println!("{} damaged indexes", damages.len());
    for (what, bytes) in damages {
        let disk = killed();
        disk.set_contents(INDEX, Some(bytes));
        check_and_go_on(&disk, made.prints.len(), &what);
    }
}

/// The length of the header of an index file: the first section, the filter, follows it.
fn header_bytes(index: &[u8]) -> usize {
    let lengths = (8..512).step_by(4);
    lengths
        .map(|end| end + 4)
        .find(|end| crc32c::crc32c(&index[..end - 4]) == u32_at(index, end - 4))
        .expect("the header has its checksum")
}

// Opening does not read what an index covers. Behind it damage is refused or cut, as ever.
#[test]
fn damage_is_found_where_it_lies() {
    let made = made();
    let index = end_of(&made.indexes[1]) as usize;
    let mark = marked(&made.marks[3]) as usize;
    let contents =
        |disk: &SimDisk| disk.paths().into_iter().map(|path| disk.contents(&path)).collect::<Vec<_>>();
    // In front of the end of the index: reading finds it, and opening does not.
    let disk = killed();
    disk.set_contents(SEGMENT, Some(damaged(&disk.contents(SEGMENT).unwrap(), |bytes| bytes[5000] ^= 1)));
    let store = Store::on(disk.clone()).recent_bytes_max(0).open().unwrap();
    assert_eq!(store.read(Query::all()).find_map(Result::err).unwrap().kind(), ErrorKind::Corrupt);
    assert_eq!(store.verify().unwrap().findings.len(), 1);
    drop(store);
    // In the frame in front of the end, and between there and MARK.
    for at in [index - 9, index - 100, index + 90, mark - 9] {
        for purpose in ["to write", "to read"] {
            let disk = killed();
            let bytes = damaged(&disk.contents(SEGMENT).unwrap(), |bytes| bytes[at] ^= 1);
            disk.set_contents(SEGMENT, Some(bytes));
            let before = contents(&disk);
            let builder = Store::on(disk.clone());
            let opened = if purpose == "to read" { builder.open_read_only() } else { builder.open() };
            let error = opened.err().unwrap_or_else(|| panic!("a bit of byte {at}: opened {purpose}"));
            assert_eq!(error.kind(), ErrorKind::Corrupt, "a bit of byte {at}, {purpose}: {error}");
            assert_eq!(contents(&disk), before, "a bit of byte {at}, {purpose}: something was changed");
        }
    }
    // A log that is shorter than MARK says.
    for end in [index, index - 2000, mark - 64] {
        let disk = killed();
        disk.set_contents(
            SEGMENT,
            Some(damaged(&disk.contents(SEGMENT).unwrap(), |bytes| bytes[end..].fill(0))),
        );
        assert_eq!(Store::on(disk).open().unwrap_err().kind(), ErrorKind::Corrupt, "cut at {end}");
    }
    // Behind MARK: a torn tail, which is kept and cut.
    for at in [mark, mark + 8, mark + 5000] {
        let disk = killed();
        let torn = damaged(&disk.contents(SEGMENT).unwrap(), |bytes| {
            bytes.resize(bytes.len().max(at + 3), 0);
            bytes[at..at + 3].copy_from_slice(b"torn"[..3].as_ref());
        });
        disk.set_contents(SEGMENT, Some(torn));
        let store = Store::on(disk.clone()).open().unwrap();
        assert_eq!(store.open_report().cut.as_ref().unwrap().offset, mark as u64);
        assert_eq!(check(&store, "a torn tail"), made.prints.len());
    }
}

// What a failed sync left in the cache lies behind MARK, and is read from the device.
#[test]
fn what_a_failed_sync_left_in_the_cache_is_not_believed() {
    let base = killed();
    let spy = Spy::new(base.clone());
    let store = Store::on(spy.clone()).open().unwrap();
    // A new segment begins after an unclean stop, so it needs an index of its own.
    let segment = store.stats().segments;
    assert_eq!(segment, 2);
    append_large_all(&store, 0..LARGE);
    let path = || base.paths().into_iter().filter(|path| path.ends_with(".idx")).max().unwrap();
    eventually("the second segment has an index", || path() != INDEX);
    let expected = store.count(Query::all()).unwrap();
    spy.trap(What::Sync, "segments/", Fault::Error(std::io::ErrorKind::Other));
    let failed = Append::to("small:0").event(&Raw("small", &"lost")).commit(&store).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::CommitUnknown);
    drop(store);
    spy.heal();
    let trace = base.trace();
    for mode in [CrashMode::Keep, CrashMode::Drop, CrashMode::Torn(0), CrashMode::Torn(1)] {
        let disk = trace.image(trace.len(), mode);
        let store = Store::on(disk.clone()).open().unwrap();
        let found = store.count(Query::all()).unwrap();
        assert!(found == expected || found == expected + 1, "{mode:?}: {found} of {expected}");
        let head = store.head().unwrap();
        drop(store);
        // What is shown once is durable.
        let again = disk.trace().image(disk.trace().len(), CrashMode::Drop);
        assert_eq!(Store::on(again).open().unwrap().head().unwrap(), head, "{mode:?}");
    }
}

// What keeps the index from being written costs the index and nothing else.
#[test]
fn an_index_that_cannot_be_written_is_done_without() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().canonicalize().unwrap().join("store");
    let store = Store::open(&directory).unwrap();
    let index_end = || std::fs::read(directory.join(INDEX)).map_or(0, |index| end_of(&index));
    // A directory is in the way of the temporary file.
    std::fs::create_dir(directory.join(TEMPORARY)).unwrap();
    append_large_all(&store, 0..2 * LARGE);
    assert_eq!(index_end(), 0);
    std::fs::remove_dir(directory.join(TEMPORARY)).unwrap();
    append_large_all(&store, 2 * LARGE..4 * LARGE);
    eventually("a later index is written", || index_end() > 3 * PART);
    assert_eq!(store.count(Query::all()).unwrap(), 4 * LARGE);
    let durable = store.durable_head().unwrap();
    store.close().unwrap();
    let again = Store::open(&directory).unwrap();
    assert_eq!(again.durable_head().unwrap(), durable);
    assert!(again.verify().unwrap().is_clean());
}

// A reader takes the same from an index, with a writer at work and without.
#[test]
fn readers_begin_behind_an_index_as_well() {
    let made = made();
    let disk = killed();
    let whole = disk.contents(SEGMENT).unwrap().len() as u64;
    let reader = Store::on(disk.clone()).open_read_only().unwrap();
    assert_eq!(check(&reader, "after kill -9"), made.prints.len());
    let rest = whole - u64::from(end_of(&made.indexes[1])) + (2 << 20);
    assert!(reader.open_report().bytes_read < rest, "{}", reader.open_report());
    assert!(disk.trace().is_empty(), "reading changed something");

    let disk = SimDisk::new(14);
    let writer = Store::on(disk.clone()).open().unwrap();
    append_small_all(&writer, 0..40);
    append_large_all(&writer, 0..LARGE);
    let end = end_of(&index_behind(&disk, 0));
    append_small_all(&writer, 40..50);
    let reader = Store::on(disk.clone()).open_read_only().unwrap();
    assert!(reader.open_report().bytes_read < 1 << 20, "{}", reader.open_report());
    let agree = |what: &str| {
        assert_eq!(prints(&dump(&reader).unwrap()), prints(&dump(&writer).unwrap()), "{what}");
        for query in [Query::entity("small:3"), Query::entity("large:1"), Query::all().tag("t:7")] {
            assert_eq!(reader.count(query.clone()).unwrap(), writer.count(query).unwrap(), "{what}");
        }
        assert_eq!(reader.stats().entities, writer.stats().entities, "{what}");
    };
    agree("beside the writer");
    append_large_all(&writer, LARGE..2 * LARGE);
    index_behind(&disk, end);
    agree("after the index was replaced");
    let all = prints(&dump(&writer).unwrap());
    writer.close().unwrap();
    assert_eq!(prints(&dump(&reader).unwrap()), all, "after the writer closed");
}

// A store that was closed with an index, continued and killed: the index of the closed part is replaced.
#[test]
fn a_continued_segment_gets_indexes_as_well() {
    let disk = SimDisk::new(15);
    let mut events = 0;
    for round in 0..3_u64 {
        let store = Store::on(disk.clone()).open().unwrap();
        assert!(
            store.open_report().clean && store.open_report().bytes_read < 1 << 20,
            "{}",
            store.open_report()
        );
        let before = disk.contents(INDEX).map_or(0, |index| end_of(&index));
        append_small_all(&store, round * 50..round * 50 + 50);
        append_large_all(&store, 0..LARGE);
        events += 50 + LARGE;
        index_behind(&disk, before);
        // Few enough that closing writes no index for them.
        append_small(&store, 1000 + round);
        events += 1;
        let (trace, all) = (disk.trace(), prints(&dump(&store).unwrap()));
        let killed = Store::on(trace.image(trace.len(), CrashMode::Keep)).open().unwrap();
        assert_eq!(prints(&dump(&killed).unwrap()), all);
        assert!(killed.open_report().bytes_read < 2 << 20, "{}", killed.open_report());
        assert_eq!(store.count(Query::all()).unwrap(), events);
        store.close().unwrap();
        let verified = Verify::new().indexes().run_files(Store::on(disk.clone())).unwrap();
        assert!(verified.is_clean(), "{verified}");
    }
}
