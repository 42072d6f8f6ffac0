//! Verifying against heads that were kept elsewhere, in parts, at a rate, beside a writer, in the background.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use annals::disk::{Access, Disk, MemDisk};
use annals::{Append, ErrorKind, Head, Raw, Store, Verify, VerifyReport};

use crate::support::{Bytes, FOREVER, eventually, kind_of};

fn open(disk: &MemDisk) -> Store {
    Store::on(disk.clone()).segment_bytes_max(1000).open().unwrap()
}

/// Appends, and the head behind each.
fn append(store: &Store, what: &str, times: u64) -> Vec<Head> {
    let each = |number| {
        store.append("e:1", &Raw("x", &(what, number))).unwrap();
        store.head().unwrap()
    };
    (0..times).map(each).collect()
}

fn files(disk: &MemDisk) -> Vec<String> {
    let segments = disk.list("segments").unwrap().into_iter().map(|name| format!("segments/{name}"));
    let mut files: Vec<String> = segments.chain(["MANIFEST".to_owned(), "MARK".to_owned()]).collect();
    files.sort_unstable();
    files
}

fn contents(disk: &MemDisk, path: &str) -> Vec<u8> {
    let file = disk.open(path, Access::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
    let read = file.read_at(&mut bytes, 0).unwrap();
    assert_eq!(read, bytes.len());
    bytes
}

/// Another disk with the same files.
fn copy(disk: &MemDisk) -> MemDisk {
    let copy = MemDisk::new();
    copy.create_directory("segments").unwrap();
    for path in files(disk) {
        let bytes = contents(disk, &path);
        let file = copy.open(&path, Access::CreateNew).unwrap();
        assert_eq!(file.write_at(&bytes, 0).unwrap(), bytes.len());
    }
    copy
}

fn against(disk: &MemDisk, head: Head) -> VerifyReport {
    Verify::new().expect(head).run_files(Store::on(disk.clone())).unwrap()
}

fn only_break(report: &VerifyReport) -> &str {
    assert_eq!(report.findings.len(), 1, "{report}");
    &report.findings[0].what
}

#[test]
fn a_head_proves_that_nothing_before_it_was_changed_or_cut() {
    let disk = MemDisk::new();
    let store = open(&disk);
    let several = Append::to("e:1").event(&Raw("x", &1)).event(&Raw("x", &2)).event(&Raw("x", &3));
    let empty = store.head().unwrap();
    several.commit(&store).unwrap();
    let mut heads = vec![empty, store.head().unwrap()];
    heads.extend(append(&store, "common", 20));
    store.close().unwrap();
    let fork = copy(&disk);
    let [store, other] = [&disk, &fork].map(open);
    let (own, others) = (append(&store, "own", 20), append(&other, "other", 20));
    let many = heads.iter().chain(&own).fold(Verify::new(), |verify, head| verify.expect(*head));
    assert!(many.run(&store).unwrap().is_clean());
    for head in heads.iter().chain(&own) {
        assert!(store.extends(head).unwrap(), "{head}");
    }
    for head in &others {
        assert!(!store.extends(head).unwrap(), "{head}");
        let report = Verify::new().expect(*head).run(&store).unwrap();
        assert!(only_break(&report).contains("is not that of the head"), "{report}");
    }
    let beyond = append(&other, "more", 1)[0];
    assert!(!store.extends(&beyond).unwrap());
    let report = Verify::new().expect(beyond).run(&store).unwrap();
    assert_eq!(only_break(&report), format!("the log ends at position 43, before the head {beyond}"));
    drop((store, other));
    assert!(against(&disk, own[19]).is_clean());
    assert!(only_break(&against(&disk, others[0])).contains("is not that of the head"));

    let stranger = open(&MemDisk::new());
    let head = append(&stranger, "common", 1)[0];
    let report = against(&disk, head);
    assert!(report.findings.iter().any(|found| found.what.contains("one of another store")), "{report}");
    assert!(!stranger.extends(&heads[0]).unwrap());
}

#[test]
fn verifying_goes_on_where_it_was() {
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).segment_bytes_max(1 << 20).open().unwrap();
    let blob = Bytes("blob", vec![7; 60_000]);
    for number in 0..150 {
        Append::to(format!("e:{}", number % 7)).event(&blob).commit(&store).unwrap();
    }
    let whole = store.verify().unwrap();
    assert!(whole.is_clean() && !whole.broken_off, "{whole}");
    assert_eq!(whole.verified, Some(store.head().unwrap()));
    store.close().unwrap();
    let store = || Store::on(disk.clone());
    let (mut after, mut segments, mut runs) = (None::<String>, 0, 0);
    loop {
        let mut told = 0;
        let mut progress = Vec::new();
        let verify = Verify::new().on_progress(|now| {
            told += 1;
            progress.push(*now);
            if told == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let verify = after.iter().fold(verify, |verify, after| verify.after(after.parse().unwrap()));
        let report = verify.run_files(store()).unwrap();
        assert!(report.is_clean(), "{report}");
        runs += 1;
        segments += report.segments;
        for now in &progress {
            assert!(now.bytes <= now.bytes_total && now.remaining().is_some(), "{now:?}");
            assert!(
                now.verified
                    .is_none_or(|verified| report.verified.unwrap().position() >= verified.position())
            );
        }
        if !report.broken_off {
            assert_eq!(report.verified, whole.verified);
            break;
        }
        after = Some(report.verified.unwrap().to_string());
    }
    assert!(runs >= 3, "{runs}");
    assert_eq!(segments, whole.segments, "each segment once");

    // What lies before is not looked at, what lies behind is, and must continue it.
    let second: Head = {
        let mut verified = None;
        let verify = Verify::new().on_progress(|now| {
            verified = now.verified;
            if verified.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        verify.run_files(store()).unwrap();
        verified.unwrap()
    };
    let paths: Vec<String> = files(&disk).into_iter().filter(|path| path.ends_with(".seg")).collect();
    let damage = |path: &str| {
        let file = disk.open(path, Access::Write).unwrap();
        file.write_at(&[0xAA; 8], 5000).unwrap();
    };
    damage(&paths[0]);
    let rest = || Verify::new().after(second).run_files(store()).unwrap();
    assert!(rest().is_clean());
    assert!(!store().verify().unwrap().is_clean());
    damage(&paths[3]);
    assert!(rest().findings.iter().all(|found| found.file == paths[3]) && !rest().is_clean());
    let mut text = second.to_string();
    let colon = text.find(':').unwrap() + 1;
    let digit = if &text[colon..=colon] == "0" { "1" } else { "0" };
    text.replace_range(colon..=colon, digit);
    let report = Verify::new().after(text.parse().unwrap()).run_files(store()).unwrap();
    assert!(report.findings.iter().any(|found| found.what.contains("is not that of the head")), "{report}");
    // A head in front of the beginning is not proven.
    let early: Head =
        format!("1{}", &second.to_string()[second.to_string().find(':').unwrap()..]).parse().unwrap();
    assert_eq!(kind_of(Verify::new().after(second).expect(early).run_files(store())), ErrorKind::Invalid);
}

#[test]
fn a_rate_is_kept() {
    let store = Store::in_memory().unwrap();
    let blob = Bytes("blob", vec![7; 500_000]);
    for _ in 0..16 {
        Append::to("e:1").event(&blob).commit(&store).unwrap();
    }
    let began = Instant::now();
    let report = Verify::new().bytes_per_second(20_000_000).run(&store).unwrap();
    assert!(report.is_clean() && report.bytes > 8_000_000, "{report}");
    // The last MiB need not be waited for.
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
}

#[test]
fn beside_a_writer_nothing_is_reported_that_is_just_being_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::builder(&path).segment_bytes_max(20_000).open().unwrap();
    let stop = AtomicBool::new(false);
    let (mut runs, mut events) = (0, 0);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let filler = "x".repeat(700);
            let mut number = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let append = Append::to(format!("e:{}", number % 50)).event(&Raw("x", &(number, &filler)));
                let _in_flight = append.submit(&store).unwrap();
                number += 1;
                if number.is_multiple_of(64) {
                    store.sync().unwrap();
                }
            }
        });
        let began = Instant::now();
        while (runs < 60 || events < 200) && began.elapsed() < FOREVER {
            let report = Store::builder(&path).verify().unwrap();
            if !report.is_clean() {
                stop.store(true, Ordering::Relaxed);
            }
            assert!(report.is_clean(), "run {runs}: {report}");
            assert!(report.events >= events, "what was durable stays");
            events = report.events;
            runs += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("{runs} runs beside a writer, the last over {events} events");
    assert!(events >= 200 && runs > 5);
    let head = store.head().unwrap();
    store.close().unwrap();
    assert!(Verify::new().expect(head).run_files(Store::builder(&path)).unwrap().is_clean());
}

#[test]
fn damage_is_found_in_the_background() {
    let disk = MemDisk::new();
    let store = open(&disk);
    append(&store, "some", 100);
    store.close().unwrap();
    let damaged: Vec<String> = files(&disk).into_iter().filter(|path| path.ends_with(".seg")).collect();
    for path in &damaged[2..4] {
        let file = disk.open(path, Access::Write).unwrap();
        file.write_at(&[0xAA; 8], 400).unwrap();
    }
    let builder = || Store::on(disk.clone()).segment_bytes_max(1000);
    let store = builder().scrub(100_000_000).open().unwrap();
    let scrub = || store.stats().scrub;
    eventually("a pass", || scrub().passes > 0);
    let found: Vec<String> = scrub().findings.into_iter().map(|found| found.file).collect();
    assert_eq!(found, damaged[2..4]);
    assert_eq!(scrub().position.get(), 100);
    assert!(scrub().bytes > 10_000, "{:?}", scrub());
    store.append("e:1", &Raw("x", &"after")).unwrap();
    store.close().unwrap();
    // Without a request nothing is read.
    let quiet = builder().open().unwrap();
    assert_eq!(quiet.stats().scrub, annals::ScrubStats::default());
}
