//! SeededRandom operations on the simulated disk against a model that knows only what was written where,
//! and what was synced when.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

use super::super::faults::SeededRandom;
use super::super::medium::parent;
use super::super::{CrashMode, Fault, SimDisk};
use crate::disk::{Access, Disk, DiskFile};

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
