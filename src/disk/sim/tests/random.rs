//! What depends on random numbers. First what power failures and failed syncs leave, seen over many seeds:
//! nothing that must not be, and everything that may. Then random operations against a model that knows only
//! what was written where, and what was synced when.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

use super::*;

const SEEDS: u64 = 300;

/// The log in the images of the last point.
fn torn_logs(disk: &SimDisk) -> Vec<Vec<u8>> {
    let trace = disk.trace();
    (0..SEEDS).map(|seed| trace.image(trace.len(), CrashMode::Torn(seed)).contents("log").unwrap()).collect()
}

#[test]
fn a_torn_write_leaves_any_sectors_old_new_or_rarely_mixed() {
    let (disk, file) = disk_with(1, &[b'-'; 2048]);
    file.write_at(&[b'A'; 1500], 100).unwrap();
    file.write_at(&[b'B'; 600], 1000).unwrap();
    let mut sectors: [BTreeSet<String>; 4] = Default::default();
    let mut whole = 0;
    let mut only_later = 0;
    for log in torn_logs(&disk) {
        assert_eq!(log.len(), 2048);
        for (place, byte) in log.iter().enumerate() {
            let a = (100..1600).contains(&place) && *byte == b'A';
            let b = (1000..1600).contains(&place) && *byte == b'B';
            assert!(a || b || *byte == b'-', "never written at {place}: {byte}");
        }
        for (sector, seen) in log.chunks(512).zip(&mut sectors) {
            let mut runs = text(sector).chars().collect::<Vec<_>>();
            runs.dedup();
            seen.insert(runs.into_iter().collect());
        }
        whole += usize::from(log == disk.contents("log").unwrap());
        only_later += usize::from(!log.contains(&b'A') && log.contains(&b'B'));
    }
    let has = |n: usize, looks: &[&str]| looks.iter().all(|look: &&str| sectors[n].contains(*look));
    assert!(has(0, &["-", "-A", "-A-"]), "{sectors:?}");
    assert!(has(1, &["-", "A", "AB", "-B", "-A-"]), "{sectors:?}");
    assert!(has(2, &["-", "A", "B"]) && has(3, &["-", "A-", "B-"]), "{sectors:?}");
    assert!(whole > 3 && only_later > 3, "{whole} {only_later}");
}

#[test]
fn a_torn_length_is_older_newer_or_between_with_zeros_for_lost_bytes() {
    let (disk, file) = disk_with(1, b"old");
    file.write_at(&[b'A'; 1000], 3).unwrap();
    file.write_at(&[b'B'; 1000], 1003).unwrap();
    let logs = torn_logs(&disk);
    for log in &logs {
        let parts = (&log[..3], &log[3..log.len().min(1003)], log.get(1003..).unwrap_or_default());
        assert_eq!(parts.0, b"old");
        assert!(parts.1.iter().all(|byte| [0, b'A'].contains(byte)), "{}", text(log));
        assert!(parts.2.iter().all(|byte| [0, b'B'].contains(byte)), "{}", text(log));
    }
    let lengths: BTreeSet<usize> = logs.iter().map(Vec::len).collect();
    assert!([3, 1003, 2003].iter().all(|length| lengths.contains(length)), "{lengths:?}");
    assert!(lengths.range(4..1003).next().is_some() && lengths.range(1004..2003).next().is_some());
    let is_cut = |log: &&Vec<u8>| ![3, 1003, 2003].contains(&log.len()) && log.len() % 512 > 1;
    let survives = |log: &Vec<u8>| log.last() != Some(&0);
    assert!(logs.iter().filter(is_cut).any(survives), "a sector that survived up to the length");
    assert!(logs.iter().any(|log| log.len() == 2003 && log[3..] == [0; 2000]), "a length without bytes");
}

#[test]
fn a_torn_cut_happens_or_not_and_nothing_returns_from_behind_it() {
    let (disk, file) = disk_with(1, b"abcdef");
    file.set_length(2).unwrap();
    file.set_length(6).unwrap();
    let seen: BTreeSet<String> = torn_logs(&disk).iter().map(|log| text(log)).collect();
    let expected = ["abcdef", "ab", "ab.", "ab..", "ab...", "ab...."];
    assert_eq!(seen, expected.map(str::to_owned).into());
}

#[test]
fn a_torn_rename_shows_one_file_or_the_other() {
    let disk = SimDisk::new(1);
    disk.set_contents("m", Some(b"old".to_vec()));
    let file = disk.open("t", Access::CreateNew).unwrap();
    file.write_at(b"new", 0).unwrap();
    file.sync().unwrap();
    disk.rename("t", "m").unwrap();
    disk.open("n", Access::CreateNew).unwrap();
    let trace = disk.trace();
    let seen: BTreeSet<String> =
        (0..SEEDS).map(|seed| show(&trace.image(trace.len(), CrashMode::Torn(seed)))).collect();
    let expected = ["m=old", "m=old t=new", "m=new", "m=old n=", "m=old n= t=new", "m=new n="];
    assert_eq!(seen, expected.map(str::to_owned).into());
}

#[test]
fn a_failed_sync_hides_its_loss_until_the_cache_is_dropped() {
    let mut lost_and_not = BTreeSet::new();
    for seed in 0..SEEDS {
        let (disk, file) = disk_with(seed, b"------");
        file.write_at(b"AA", 0).unwrap();
        disk.fail(0, Fault::Error(ErrorKind::Other));
        assert_eq!(file.sync().unwrap_err().kind(), ErrorKind::Other);
        file.write_at(b"CC", 4).unwrap();
        assert_eq!(last_image(&disk, CrashMode::Drop).contents("log").unwrap(), b"------");
        file.sync().unwrap();
        assert_eq!(read(&*file), b"AA--CC", "reads see what was lost");

        let killed = last_image(&disk, CrashMode::Keep);
        assert_eq!(killed.contents("log").unwrap(), b"AA--CC");
        let truth = last_image(&disk, CrashMode::Drop).contents("log").unwrap();
        assert_eq!(truth[2..], *b"--CC", "the later write is durable");
        for (disk, offset) in [(&killed, 6), (&killed, 0), (&disk, 0)] {
            let file = disk.open("log", Access::Write).unwrap();
            file.drop_cache(offset).unwrap();
            assert_eq!(
                disk.contents("log").unwrap(),
                if offset == 6 { b"AA--CC".to_vec() } else { truth.clone() }
            );
        }
        lost_and_not.insert(text(&truth[..2]));

        file.write_at(b"BB", 0).unwrap();
        file.sync().unwrap();
        assert_eq!(
            last_image(&disk, CrashMode::Drop).contents("log").unwrap(),
            b"BB--CC",
            "rewritten is pending again"
        );
    }
    assert!(lost_and_not.contains("AA") && lost_and_not.contains("--"), "{lost_and_not:?}");
}

#[test]
fn dropping_the_cache_spares_pending_bytes_and_those_before_the_offset() {
    let lost = |seed: &u64| {
        let (disk, file) = disk_with(*seed, b"------");
        file.write_at(b"AAAA", 0).unwrap();
        disk.fail(0, Fault::Error(ErrorKind::Other));
        file.sync().unwrap_err();
        file.write_at(b"BB", 3).unwrap();
        file.drop_cache(1).unwrap();
        read(&*file) == b"A---B-"
    };
    assert!((0..SEEDS).find(lost).is_some());
}

#[test]
fn what_a_failed_sync_lost_stays_lost_until_dropped_or_cut() {
    for (remedy, kept) in [("none", b"------"), ("sync", b"------"), ("drop", b"BBBB--"), ("cut", b"BBBB..")]
    {
        let lost = |seed: &u64| {
            let (disk, file) = disk_with(*seed, b"------");
            file.write_at(b"AAAA", 0).unwrap();
            disk.fail(0, Fault::Error(ErrorKind::Other));
            file.sync().unwrap_err();
            match remedy {
                "sync" => file.sync().unwrap(),
                "drop" => file.drop_cache(0).unwrap(),
                "cut" => file.set_length(0).and_then(|()| file.set_length(6)).unwrap(),
                _ => {}
            }
            file.write_at(b"BBBB", 0).unwrap();
            file.sync().unwrap();
            assert_eq!(read(&*file)[..4], *b"BBBB", "reads see what was written: {remedy}");
            text(&last_image(&disk, CrashMode::Drop).contents("log").unwrap()) == text(kept)
        };
        assert!((0..SEEDS).any(|seed| lost(&seed)), "{remedy}");
    }
}

#[test]
fn a_length_outlives_a_failed_sync_but_its_bytes_may_not() {
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let (disk, file) = disk_with(seed, b"ab");
        file.write_at(b"CD", 2).unwrap();
        disk.fail(0, Fault::Error(ErrorKind::Other));
        file.sync().unwrap_err();
        file.sync().unwrap();
        file.drop_cache(0).unwrap();
        assert_eq!(read(&*file), last_image(&disk, CrashMode::Drop).contents("log").unwrap());
        seen.insert(text(&read(&*file)));
    }
    assert!(seen.contains("ab..") && seen.contains("abCD"), "{seen:?}");
    assert!(seen.iter().all(|log| log.len() == 4), "{seen:?}");
}

const RUNS: u64 = 30;
const OPERATIONS: usize = 80;
const PATHS: [&str; 4] = ["a", "b", "d/a", "d/b"];

type Contents = BTreeMap<String, Vec<u8>>;

#[derive(Default)]
struct DiskModel {
    files: Vec<ModelFile>,
    names: BTreeMap<&'static str, usize>,
    durable_names: BTreeMap<&'static str, usize>,
    /// Any file that had the name.
    namesakes: BTreeMap<&'static str, Vec<usize>>,
}

#[derive(Default)]
struct ModelFile {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    /// Since the last sync: what was where, and the lengths.
    written: BTreeSet<(usize, u8)>,
    lengths: BTreeSet<usize>,
}

impl DiskModel {
    fn name(&mut self, path: &'static str, file: usize) {
        self.names.insert(path, file);
        self.namesakes.entry(path).or_default().push(file);
    }

    fn sync_directory(&mut self, directory: &str) {
        self.durable_names.retain(|path, _| parent(path) != directory);
        let inside = self.names.iter().filter(|(path, _)| parent(path) == directory);
        self.durable_names.extend(inside);
    }

    fn cached(&self) -> Contents {
        self.names.iter().map(|(path, file)| ((*path).to_owned(), self.files[*file].bytes.clone())).collect()
    }

    fn durable(&self) -> Contents {
        let files = self.durable_names.iter();
        files.map(|(path, file)| ((*path).to_owned(), self.files[*file].durable.clone())).collect()
    }
}

impl ModelFile {
    fn change(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        change(&mut self.bytes);
        self.remember();
    }

    fn sync(&mut self) {
        self.durable = self.bytes.clone();
        (self.written, self.lengths) = Default::default();
        self.remember();
    }

    fn remember(&mut self) {
        self.written.extend(self.bytes.iter().copied().enumerate());
        self.lengths.insert(self.bytes.len());
    }

    fn could_be(&self, found: &[u8]) -> bool {
        let least = *self.lengths.first().unwrap();
        let most = *self.lengths.last().unwrap();
        let was_there = |(place, byte): (usize, &u8)| {
            self.written.contains(&(place, *byte)) || (*byte == 0 && place >= least)
        };
        (least..=most).contains(&found.len()) && found.iter().enumerate().all(was_there)
    }
}

/// Does something to both. The byte is new in this run, so it tells where it comes from.
fn step(
    disk: &SimDisk,
    open: &mut Vec<Box<dyn DiskFile>>,
    model: &mut DiskModel,
    byte: u8,
    random: &mut SeededRandom,
) {
    let path = PATHS[random.up_to(3)];
    let Some(&file) = model.names.get(path) else {
        open.push(disk.open(path, Access::CreateNew).unwrap());
        model.files.push(ModelFile { lengths: [0].into(), ..ModelFile::default() });
        return model.name(path, open.len() - 1);
    };
    let handle = &open[file];
    let known = &mut model.files[file];
    match random.up_to(9) {
        0 => {
            let length = random.up_to(2000);
            handle.set_length(u64::try_from(length).unwrap()).unwrap();
            known.change(|bytes| bytes.resize(length, 0));
        }
        1..=2 => {
            handle.sync().unwrap();
            known.sync();
        }
        3 => {
            disk.sync_directory(parent(path)).unwrap();
            model.sync_directory(parent(path));
        }
        4 => {
            let to = PATHS.into_iter().find(|to| parent(to) == parent(path) && *to != path).unwrap();
            disk.rename(path, to).unwrap();
            model.names.remove(path);
            model.name(to, file);
        }
        5 => {
            disk.remove(path).unwrap();
            model.names.remove(path);
        }
        6 => handle.drop_cache(0).unwrap(),
        _ => {
            let offset = random.up_to(2000);
            let length = random.up_to(1500);
            handle.write_at(&vec![byte; length], u64::try_from(offset).unwrap()).unwrap();
            let end = if length == 0 { 0 } else { offset + length };
            known.change(|bytes| {
                bytes.resize(bytes.len().max(end), 0);
                bytes[offset.min(end)..end].fill(byte);
            });
        }
    }
}

fn contents(disk: &SimDisk) -> Contents {
    disk.paths().into_iter().map(|path| (path.clone(), disk.contents(&path).unwrap())).collect()
}

#[test]
fn every_image_is_what_the_model_says_or_allows() {
    for run in 0..RUNS {
        let disk = SimDisk::new(run);
        let random = &mut SeededRandom::new(run);
        disk.create_directory("d").unwrap();
        disk.sync_directory("").unwrap();
        let mut model = DiskModel::default();
        let mut open = Vec::new();
        let mut history = BTreeMap::new();
        for byte in 1..=u8::try_from(OPERATIONS).unwrap() {
            step(&disk, &mut open, &mut model, byte, random);
            let trace = disk.trace();
            for (path, found) in contents(&trace.image(trace.len(), CrashMode::Torn(random.next()))) {
                let mut namesakes = model.namesakes[&*path].iter();
                assert!(
                    namesakes.any(|file| model.files[*file].could_be(&found)),
                    "run {run}, byte {byte}: {path}"
                );
            }
            history.insert(trace.len(), (model.cached(), model.durable()));
        }
        let trace = disk.trace();
        for (point, (cached, durable)) in history {
            assert_eq!(contents(&trace.image(point, CrashMode::Keep)), cached, "run {run}, point {point}");
            assert_eq!(contents(&trace.image(point, CrashMode::Drop)), durable, "run {run}, point {point}");
        }
    }
}

#[test]
fn the_same_seeds_give_the_same_disks_and_others_do_not() {
    let eventful = |seed| {
        let disk = SimDisk::new(seed);
        let mut model = DiskModel::default();
        let random = &mut SeededRandom::new(9);
        let mut open: Vec<Box<dyn DiskFile>> = Vec::new();
        disk.create_directory("d").unwrap();
        for byte in 1..50 {
            if byte % 10 == 0 {
                disk.fail_from(0, Fault::Error(ErrorKind::Other));
                for file in &open {
                    file.sync().unwrap_err();
                }
                disk.heal();
            }
            step(&disk, &mut open, &mut model, byte, random);
        }
        open.iter().for_each(|file| file.drop_cache(0).unwrap());
        disk
    };
    let [one, same, other] = [7, 7, 8].map(eventful);
    assert_ne!(contents(&one), contents(&other), "what failed syncs lose");
    let traces = [one, same].map(|disk| disk.trace());
    let mut seen = BTreeSet::new();
    for point in 0..=traces[0].len() {
        for mode in [CrashMode::Keep, CrashMode::Drop, CrashMode::Torn(1), CrashMode::Torn(2)] {
            let images = [&traces[0], &traces[1]].map(|trace| trace.image(point, mode));
            assert_eq!(contents(&images[0]), contents(&images[1]), "point {point}, {mode:?}");
            let random = [images[0].random().unwrap(), images[1].random().unwrap()];
            assert_eq!(random[0], random[1]);
            assert!(seen.insert(random[0]), "point {point}, {mode:?}: drawn before");
        }
    }
    assert!(seen.insert(SimDisk::new(7).random().unwrap()), "drawn before the crash");
}

#[test]
fn chance_is_the_same_on_every_machine() {
    // The first outputs of the published SplitMix64 for this seed.
    let mut random = SeededRandom::new(1_234_567);
    let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
    assert_eq!([random.next(), random.next(), random.next()], expected);
}
