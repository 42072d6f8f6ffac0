//! Golden files, the specification, the store and a second decoder say the same.
//!
//! `tests/golden/v1/store` is a whole store in annotated hex, and `store.dump` is its content. `rewritten` is
//! a store after maintenance: forked, one segment rewritten, an event erased, an append removed.
//! src/format/tests.rs ties the single structures to the code.
//!
//! To change the format on purpose: `ANNALS_BLESS=1 cargo test golden`, twice (the structures are
//! cut out of the store), then look at the diff.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use annals::disk::{CrashMode, Disk, SimDisk};
use annals::{Append, Cause, Durability, ErrorKind, EventId, Position, Query, Raw, RecordedEvent, Store};
use serde::Serialize;

use crate::support::derived_id;

#[path = "../golden/annotate.rs"]
mod annotate;

use annotate::{Notes, strip};

/// 2026-01-02T03:04:05Z in microseconds.
const START: u64 = 1_767_323_045_000_000;

#[derive(Serialize)]
struct Opened {
    owner: &'static str,
}

#[derive(Serialize)]
struct Moved {
    cents: u64,
}

#[derive(Serialize)]
struct Placed {
    items: Vec<&'static str>,
}

#[test]
fn a_new_store_has_the_bytes_of_the_golden_one() {
    let disk = SimDisk::new(1);
    write_story(&disk);
    let written = files(&disk);
    if blessing() {
        bless_store("store", &written);
    }
    let golden = golden_store("store");
    assert_eq!(written.keys().collect::<Vec<_>>(), golden.keys().collect::<Vec<_>>());
    for (path, bytes) in &written {
        assert!(
            annotated(path, bytes) == annotated(path, &golden[path]),
            "{path} differs; see the module's top"
        );
        assert_eq!(golden_text("store", path), annotated(path, bytes), "the notes of {path}");
    }
}

#[test]
fn the_golden_stores_hold_exactly_the_expected_events() {
    for name in ["store", "rewritten"] {
        let disk = disk_of(&golden_store(name));
        let before = files(&disk);
        let store = Store::on(disk.clone()).open_read_only().unwrap();
        let dump = dump(&store);
        if blessing() {
            fs::write(golden(&format!("{name}.dump")), &dump).unwrap();
        }
        assert_eq!(dump, fs::read_to_string(golden(&format!("{name}.dump"))).unwrap(), "{name}");
        assert!(store.verify().unwrap().is_clean(), "{name}");
        let report = Store::on(disk.clone()).verify().unwrap();
        assert!(report.is_clean(), "{name}: {report}");
        drop(store);
        assert!(files(&disk) == before, "reading changes nothing");
    }
}

/// A document shows a golden structure letter by letter, or SPEC.md links to it.
#[test]
fn every_golden_structure_stands_in_the_specification() {
    const SHOWN: [(&str, &[&str]); 3] = [
        ("SPEC.md", &["chain.hex", "event-id.hex", "frame-single.hex", "segment-header.hex"]),
        ("docs/index-file.md", &["index-file.hex"]),
        ("docs/tree-file.md", &["tree-leaf.hex", "tree-file.hex"]),
    ];
    const LINKED: [&str; 10] = [
        "attestation.hex",
        "attested-walk.txt",
        "cut-manifest.hex",
        "cut-mark.hex",
        "frame-erased.hex",
        "frame-full.hex",
        "frame-gone.hex",
        "manifest.hex",
        "mark.hex",
        "seal.hex",
    ];
    for (document, names) in SHOWN {
        let path = document_path(document);
        let mut text = fs::read_to_string(&path).unwrap();
        for name in names {
            let block = fs::read_to_string(golden(name)).unwrap();
            let title = block.lines().next().unwrap();
            let start = text.find(&format!("```text\n{title}\n"));
            let start = start.unwrap_or_else(|| panic!("no block {title:?} in {document}")) + 8;
            let end = start + text[start..].find("```").unwrap();
            if blessing() {
                text.replace_range(start..end, &block);
            } else {
                assert_eq!(text[start..end], block, "{name} in {document}");
            }
        }
        if blessing() {
            fs::write(path, text).unwrap();
        }
    }
    let specification = fs::read_to_string(document_path("SPEC.md")).unwrap();
    for name in LINKED {
        let link = format!("](tests/golden/v1/{name})");
        assert!(specification.contains(&link), "SPEC.md has no link to {name}");
    }
    let mut expected: Vec<&str> = SHOWN.iter().flat_map(|(_, names)| names.iter().copied()).collect();
    expected.extend(LINKED);
    expected.sort_unstable();
    assert_eq!(golden_structures(), expected, "every golden structure has its place in a document");
}

/// The names of the golden files of single structures.
fn golden_structures() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(golden(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".hex") || name.ends_with(".txt"))
        .collect();
    names.sort_unstable();
    names
}

/// A store that is set back: MANIFEST at that moment, and MARK once that is finished. Stopped then, it is
/// whole.
#[test]
fn a_store_that_is_cut_has_the_bytes_of_the_golden_one() {
    let disk = SimDisk::new(1);
    write_story(&disk);
    let clock = || SystemTime::UNIX_EPOCH + Duration::from_micros(START + 20_000_000);
    let builder = || Store::on(disk.clone()).segment_bytes_max(1024).clock(clock).operator("admin");
    let head = builder().open_read_only().unwrap().head().unwrap();
    let before = disk.trace().len();
    builder().rollback(Position::from(4), &head, "a mistake").unwrap();
    let trace = disk.trace();
    let mut images = (before..=trace.len()).map(|point| trace.image(point, CrashMode::Keep));
    let is_cut = |image: &SimDisk| image.contents("MANIFEST").is_some_and(|bytes| bytes[16] == 1);
    let cut = images.find(is_cut).expect("the moment is one of them");
    let segments: Vec<String> =
        cut.paths().into_iter().filter(|path| path.starts_with("segments/")).collect();
    assert!(segments.contains(&"segments/00000000000000000010.0.seg".to_owned()), "{segments:?}");
    let report = Store::on(cut.clone()).verify().unwrap();
    assert!(report.is_clean() && report.mark_found && report.events == 5, "{report}");
    let bytes = cut.contents("MANIFEST").unwrap();
    let title = "The whole of MANIFEST, the moment a store was set back to position 4";
    let mut manifest = Notes::new(title, 0, &bytes);
    manifest.manifest();
    same_as_golden("cut-manifest.hex", &manifest.finish());
    let bytes = disk.contents("MARK").unwrap();
    let mut mark = Notes::new("MARK of the same store, once that was finished", 0, &bytes);
    mark.mark_file();
    same_as_golden("cut-mark.hex", &mark.finish());
}

/// The second decoder computes the roots of removed positions from the events of the store that still has
/// them.
#[test]
fn the_second_decoder_finds_the_roots_of_an_attestation() {
    let root = tempfile::tempdir().unwrap();
    for (path, bytes) in golden_store("store") {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let script = "import decode, sys\nassert decode.main(['--roots', '5', '6', sys.argv[1]]) == 0";
    let Some(found) = python(script, &[root.path().to_owned()]) else { return };
    let bytes = &golden_store("rewritten")["segments/00000000000000000001.1.seg"];
    let mark = u64::from_le_bytes(bytes[72..80].try_into().unwrap()) ^ u64::from_le_bytes(*b"ATTESTED");
    let is_attestation =
        |at: &usize| bytes[*at..at + 8] == (mark ^ u64::try_from(*at).unwrap()).to_le_bytes();
    let at = (144..bytes.len() - 8).step_by(8).find(is_attestation).unwrap();
    assert_eq!(bytes[at + 22], 1, "two positions of one subtree");
    assert_eq!(found.trim(), hex(&bytes[at + 64..at + 96]));
}

/// What a walk meets in a segment from which an append was removed.
#[test]
fn the_walk_over_an_attested_segment_is_the_golden_one() {
    let path = "segments/00000000000000000001.1.seg";
    let bytes = &golden_store("rewritten")[path];
    let int = |at: usize, size: usize| {
        bytes[at..at + size].iter().rev().fold(0, |value: u64, byte| value << 8 | u64::from(*byte))
    };
    let place = |at: u64| usize::try_from(at).unwrap();
    let mut text = format!("# A walk over rewritten/{path}\n");
    let held = |position: u64, recorded_at: u64, chain: usize| {
        format!(
            "held: position {position}, recorded-at {recorded_at}, chain {} ...",
            hex(&bytes[chain..chain + 8])
        )
    };
    writeln!(text, "0000  header: {}", held(int(56, 8) - 1, int(128, 8), 96)).unwrap();
    let mut at = 144;
    let mut position = 0;
    loop {
        let (what, length) = match (int(at, 8) ^ int(72, 8) ^ u64::try_from(at).unwrap()).to_le_bytes() {
            [0, 0, 0, 0, 0, 0, 0, 0] => {
                let (events, flags) = (int(at + 24, 2), int(at + 26, 2));
                let header = 76 + 16 * (flags >> 8 & 1) + if events > 1 { 4 } else { 0 };
                let mut forms = String::new();
                let mut record = at + place(header);
                let prefix = if flags & 0x0200 != 0 { 16 } else { 10 };
                for index in 0..events {
                    forms += match bytes[record + 7] {
                        1 => ", one erased",
                        2 => ", one gone",
                        _ => "",
                    };
                    assert!(record < at + place(header + int(at + 12, 4)), "record {index}");
                    record += prefix + place(int(record + 8, 2) + int(record + 4, 3));
                }
                let last = int(56, 8) + int(at + 16, 4) + events - 1;
                let held = held(last, int(at + 28, 8), at + 44);
                position = last;
                (format!("frame, events: {events}{forms}; {held}"), header + int(at + 12, 4))
            }
            mark if mark == *b"ATTESTED" => {
                let removed = int(at + 12, 4);
                let roots = int(at + 22, 1);
                position += removed;
                let held = held(position, int(at + 24, 8), at + 32);
                (format!("attestation, removed: {removed}, roots: {roots}; {held}"), 64 + 32 * roots)
            }
            mark if mark == *b"SEALSEAL" => {
                let (frames, events, length) = (int(at + 32, 4), int(at + 36, 4), int(at + 12, 4));
                let held = held(int(at + 16, 8), int(at + 24, 8), at + 40);
                let what = format!("seal of {length} bytes, frames: {frames}, events: {events}; as {held}");
                writeln!(text, "{at:04x}  {what}").unwrap();
                break;
            }
            _ => panic!("nothing begins at {at}"),
        };
        writeln!(text, "{at:04x}  {what}").unwrap();
        at += place(length);
    }
    same_as_golden("attested-walk.txt", &text);
}

fn same_as_golden(name: &str, text: &str) {
    if blessing() {
        fs::write(golden(name), text).unwrap();
    }
    assert_eq!(fs::read_to_string(golden(name)).unwrap(), text, "{name}");
}

#[test]
fn the_second_decoder_reads_the_same() {
    let names = ["store", "rewritten"];
    let Some(decoded) = decode(&names.map(golden_store)) else { return };
    let dumps = names.map(|name| fs::read_to_string(golden(&format!("{name}.dump"))).unwrap());
    assert_eq!(decoded, dumps.map(Some));
}

/// The decoder judges by itself: it must refuse every damage that the library refuses, and no other.
#[test]
fn the_second_decoder_judges_the_same() {
    let whole = golden_store("store");
    let mut stores = Vec::new();
    for (path, bytes) in &whole {
        let mut with = |what: String, changed: Option<Vec<u8>>, has_mark: bool| {
            let mut store = whole.clone();
            store.remove(path);
            store.extend(changed.map(|changed| (path.clone(), changed)));
            if !has_mark {
                store.remove("MARK");
            }
            stores.push((format!("{path} {what}, with MARK: {has_mark}"), store));
        };
        for has_mark in [true, false] {
            with("removed".to_owned(), None, has_mark);
            with("followed by something".to_owned(), Some([bytes.as_slice(), &[7; 20]].concat()), has_mark);
            for at in (0..bytes.len()).step_by(100) {
                with(format!("cut at {at}"), Some(bytes[..at].to_vec()), has_mark);
            }
            let written = bytes.iter().enumerate().filter(|(_, byte)| **byte != 0).map(|(at, _)| at);
            for at in written.step_by(17).chain([bytes.len() - 100, bytes.len() - 1]) {
                let mut flipped = bytes.clone();
                flipped[at] ^= 0x10;
                with(format!("flipped at {at}"), Some(flipped), has_mark);
            }
        }
    }
    let (names, stores): (Vec<_>, Vec<_>) = stores.into_iter().unzip();
    let Some(decoded) = decode(&stores) else { return };
    let mut opens = 0;
    for ((name, store), decoded) in names.iter().zip(&stores).zip(decoded) {
        let opened = judged(name, &disk_of(store));
        assert_eq!(opened, decoded, "{name}: annals, and the decoder");
        opens += u32::from(opened.is_some());
    }
    println!(
        "the second decoder agreed with annals on {} changed stores, {opens} of them fit to read",
        stores.len()
    );
    assert!(opens > 10);
}

/// What the store has, unless it is damaged. Opening does not look into sealed segments; reading and
/// verifying do.
fn judged(name: &str, disk: &SimDisk) -> Option<String> {
    let read = Store::on(disk.clone()).open_read_only().and_then(|store| {
        let events = store.read(Query::all()).collect::<Result<Vec<_>, _>>()?;
        Ok(store.verify()?.is_clean().then(|| lines(&events)))
    });
    read.unwrap_or_else(|error| {
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
        None
    })
}

/// It finds in the index file of the first segment what the segment's events say.
#[test]
fn the_second_decoder_reads_the_index_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("1.0.idx");
    fs::write(&file, strip(&fs::read_to_string(golden("index-file.hex")).unwrap())).unwrap();
    let Some(decoded) = python("import index, sys\nassert index.main(sys.argv[1:]) == 0", &[file]) else {
        return;
    };
    let store = Store::on(disk_of(&golden_store("store"))).open_read_only().unwrap();
    let events: Vec<RecordedEvent> = store.read(Query::all()).limit(6).map(Result::unwrap).collect();
    let frames = ["144..296", "296..728", "296..728", "296..728", "728..928", "728..928"];
    let mut expected: Vec<String> = (0..).zip(frames).map(|(at, frame)| format!("{at} {frame}")).collect();
    expected.extend(terms(&events));
    assert_eq!(decoded.lines().collect::<Vec<_>>(), expected);
}

/// The terms that events have, each with its ordinals, as tests/decoder/index.py prints them.
fn terms(events: &[RecordedEvent]) -> Vec<String> {
    let mut terms: BTreeMap<(u8, Vec<u8>), Vec<String>> = BTreeMap::new();
    let mut versions: BTreeMap<&str, String> = BTreeMap::new();
    // What is not said, but follows from where events stand in an append, is in the index by derived ids.
    let brought = |event: &&RecordedEvent| event.id().as_bytes()[6] >> 4 != 7;
    let stored = |id: EventId| {
        let event = events.iter().filter(brought).find(|event| event.id() == id);
        event.map_or(id, derived_id)
    };
    for (ordinal, event) in events.iter().enumerate() {
        let mut add = |kind, name: &[u8]| {
            terms.entry((kind, name.to_vec())).or_default().push(ordinal.to_string());
        };
        add(0, event.entity().as_bytes());
        *versions.entry(event.entity()).or_default() += &format!(" v{}", event.version());
        add(1, event.scope().as_bytes());
        add(2, event.kind().as_bytes());
        event.tags().for_each(|tag| add(3, tag.as_bytes()));
        let id = event.correlation();
        if events.iter().filter(|other| other.correlation() == id).count() > 1 || id != event.id() {
            add(4, stored(id).as_bytes());
        }
        // Derived ids are of version 7, which the only one that was brought along is not.
        if event.id().as_bytes()[6] >> 4 != 7 {
            add(5, event.id().as_bytes());
        }
        match event.cause() {
            Some(Cause::Event(id)) => add(6, stored(id).as_bytes()),
            Some(Cause::PreviousInStream) => add(7, &[]),
            _ => {}
        }
    }
    terms.insert((8, blake3::hash(b"transfer-17").as_bytes()[..16].to_vec()), vec!["1".to_owned()]);
    let kinds = ["entity", "scope", "kind", "tag", "correlation", "foreign", "cause", "follower", "key"];
    let line = |((kind, name), ordinals): (&(u8, Vec<u8>), &Vec<String>)| {
        let text = std::str::from_utf8(name).unwrap_or_default();
        let (shown, versions) = match kind {
            0 => (text.to_owned(), versions[text].clone()),
            1..=3 => (text.to_owned(), String::new()),
            7 => ("-".to_owned(), String::new()),
            _ => (hex(name), String::new()),
        };
        format!("{} {shown} {}{versions}", kinds[usize::from(*kind)], ordinals.join(" "))
    };
    terms.iter().map(line).collect()
}

/// Its checksum and its hash are its own as well.
#[test]
fn the_second_decoder_hashes_right() {
    let script = "import decode\n\
        for size in [0, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 2049, 3072, 4097, 8192, 9000]:\n\
        \x20   data = bytes(n % 251 for n in range(size))\n\
        \x20   key = bytes(range(32))\n\
        \x20   print(size, decode.checksum(data[:7], data[7:]), decode.blake3(data[:9], data[9:]).hex(), \
                decode.blake3(data, key=key).hex())";
    let Some(text) = python(script, &[]) else { return };
    assert_eq!(text.lines().count(), 14);
    let key = std::array::from_fn(|n| u8::try_from(n).unwrap());
    for line in text.lines() {
        let size: usize = line.split(' ').next().unwrap().parse().unwrap();
        let data: Vec<u8> = (0..=250).cycle().take(size).collect();
        let (hash, keyed) = (blake3::hash(&data), blake3::keyed_hash(&key, &data));
        assert_eq!(line, format!("{size} {} {hash} {keyed}", crc32c::crc32c(&data)));
    }
}

/// Writes the golden store: every field of format 1 that this version writes, two sealed segments and the
/// open one.
fn write_story(disk: &SimDisk) {
    let now = Arc::new(AtomicU64::new(START));
    let clock = now.clone();
    let clock = move || SystemTime::UNIX_EPOCH + Duration::from_micros(clock.load(Ordering::SeqCst));
    let store = Store::on(disk.clone()).segment_bytes_max(1024).clock(clock).open().unwrap();
    let at = |seconds: u64| now.store(START + seconds * 1_000_000, Ordering::SeqCst);

    at(1);
    let opened = store.append("account:alice", &Raw("account.opened", &Opened { owner: "Alice" })).unwrap();

    at(2);
    let occurred = SystemTime::UNIX_EPOCH + Duration::from_micros(START - 86_400_000_000);
    Append::to(("account:alice", "tenant:acme"))
        .key("transfer-17")
        .event(&Raw("account.withdrawn", &Moved { cents: 500 }))
        .tag("transfer:17")
        .tag("urgent")
        .metadata("by phone")
        .correlation("0192d4e0-7f00-7000-8000-00000000c0de".parse::<EventId>().unwrap())
        .cause(Cause::Event(opened.id()))
        .occurred_at(occurred)
        .foreign_id("f81d4fae-7dec-11d0-a765-00a0c91e6bf6".parse::<EventId>().unwrap())
        .and_to("account:bob")
        .event(&Raw("account.opened", &Opened { owner: "Bob" }))
        .cause(Cause::InAppend(0))
        .event(&Raw("account.deposited", &Moved { cents: 500 }))
        .cause(Cause::PreviousInStream)
        .commit(&store)
        .unwrap();

    at(3);
    Append::to("order:1")
        .event(&Raw("order.placed", &Placed { items: vec!["book", "pen"] }))
        .event(&Raw("order.paid", &()))
        .commit(&store)
        .unwrap();

    // The clock goes back; recorded-at does not. Written, and synced only together with the next:
    // three frames with one durable end.
    at(0);
    let later = Durability::Buffered { flush_every: Duration::from_secs(3600) };
    for cents in [1, 2] {
        let deposited = Raw("account.deposited", &Moved { cents });
        Append::to("account:bob").event(&deposited).durability(later).commit(&store).unwrap();
    }
    store.append("account:bob", &Raw("account.deposited", &Moved { cents: 3 })).unwrap();

    // Long enough to roll.
    at(4);
    store.append("note:1", &Raw("note.written", &"n".repeat(300))).unwrap();
    at(5);
    store.append(("account:alice", "tenant:acme"), &Raw("account.closed", &())).unwrap();
    store.close().unwrap();
}

/// The events of a store, a line each, as tests/decoder/decode.py prints them with `--events`.
fn dump(store: &Store) -> String {
    lines(&store.read(Query::all()).map(Result::unwrap).collect::<Vec<_>>())
}

fn lines(events: &[RecordedEvent]) -> String {
    let mut text = String::new();
    for event in events {
        writeln!(text, "{}", line(event)).unwrap();
    }
    text
}

fn line(event: &RecordedEvent) -> String {
    let micros = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros();
    let mut line = format!(
        "{} {} {} entity={} scope={} kind={} version={} schema={} recorded={} correlation={}",
        event.position(),
        event.id(),
        hex(&event.chain()),
        event.entity(),
        event.scope(),
        event.kind(),
        event.version(),
        event.schema_version(),
        micros(event.recorded_at()),
        event.correlation(),
    );
    if let Some(occurred) = event.occurred_at() {
        line += &format!(" occurred={}", micros(occurred));
    }
    match event.cause() {
        Some(Cause::Event(id)) => line += &format!(" cause={id}"),
        Some(Cause::PreviousInStream) => line += " cause=previous",
        other => assert_eq!(other, None),
    }
    let tags: Vec<&str> = event.tags().collect();
    if !tags.is_empty() {
        line += &format!(" tags={}", tags.join(","));
    }
    match event.payload() {
        Ok(payload) => {
            if let Some(metadata) = event.metadata::<String>().unwrap() {
                line += &format!(" metadata={}", hex(&rmp_serde::to_vec(&metadata).unwrap()));
            }
            line += &format!(" payload={}", hex(payload));
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Erased);
            line += " erased";
        }
    }
    line
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The output of the decoder for each store. The inner `None` means that it refuses the store, the outer one
/// that there is no python3. One process reads them all.
fn decode(stores: &[BTreeMap<String, Vec<u8>>]) -> Option<Vec<Option<String>>> {
    let root = tempfile::tempdir().unwrap();
    let directories: Vec<PathBuf> =
        (0..stores.len()).map(|index| root.path().join(index.to_string())).collect();
    for (directory, files) in directories.iter().zip(stores) {
        for (path, bytes) in files {
            let path = directory.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
    let script = "import decode, sys\nfor directory in sys.argv[1:]:\n\
        \x20   print('ended with', decode.main(['--events', directory]))";
    let output = python(script, &directories)?;
    let (mut outcomes, mut printed) = (Vec::new(), String::new());
    for line in output.lines() {
        match line.strip_prefix("ended with ") {
            None => printed += &format!("{line}\n"),
            Some(code) => {
                assert!(code == "0" || code == "1", "{line}");
                let printed = std::mem::take(&mut printed);
                outcomes.push((code == "0").then_some(printed));
            }
        }
    }
    assert_eq!(outcomes.len(), stores.len());
    Some(outcomes)
}

/// What a script beside the decoder prints.
fn python(script: &str, arguments: &[PathBuf]) -> Option<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("decoder");
    let mut command = Command::new("python3");
    let Ok(output) = command.args(["-B", "-c", script]).args(arguments).current_dir(directory).output()
    else {
        println!("skipped: no python3");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

fn blessing() -> bool {
    std::env::var_os("ANNALS_BLESS").is_some()
}

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/v1").join(path)
}

fn document_path(document: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(document)
}

/// All files but those that are made again whenever they are needed; the index file has a golden one of its
/// own.
fn files(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    let paths = disk.paths().into_iter().filter(|path| !path.ends_with(".idx"));
    paths.map(|path| (path.clone(), disk.contents(&path).unwrap())).collect()
}

pub(crate) fn disk_of(files: &BTreeMap<String, Vec<u8>>) -> SimDisk {
    let disk = SimDisk::new(2);
    disk.create_directory("segments").unwrap();
    for (path, bytes) in files {
        disk.set_contents(path, Some(bytes.clone()));
    }
    disk
}

/// The golden store whose first event was erased.
pub(crate) fn erased_disk() -> SimDisk {
    disk_of(&golden_store("rewritten"))
}

fn golden_text(store: &str, path: &str) -> String {
    fs::read_to_string(golden(&format!("{store}/{path}.hex"))).unwrap()
}

pub(crate) fn golden_store(store: &str) -> BTreeMap<String, Vec<u8>> {
    let mut paths = Vec::new();
    for directory in ["", "segments/"] {
        for entry in fs::read_dir(golden(&format!("{store}/{directory}"))).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            paths.extend(name.strip_suffix(".hex").map(|name| format!("{directory}{name}")));
        }
    }
    paths.into_iter().map(|path| (path.clone(), strip(&golden_text(store, &path)))).collect()
}

fn bless_store(store: &str, files: &BTreeMap<String, Vec<u8>>) {
    for (path, bytes) in files {
        let file = golden(&format!("{store}/{path}.hex"));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, annotated(path, bytes)).unwrap();
    }
}

fn annotated(path: &str, bytes: &[u8]) -> String {
    let mut notes = Notes::new(path, 0, bytes);
    match path {
        "MANIFEST" => notes.manifest(),
        "MARK" => notes.mark_file(),
        _ if path.ends_with(".idx") => notes.index_file(),
        _ if path.ends_with(".tree") => notes.tree_file(),
        _ => notes.segment(),
    }
    notes.finish()
}
