//! Every byte of every file changed, every length, every sector, every file gone, doubled or replaced. The
//! store refuses and names the place, or it shows the true events.

use std::ops::Range;
use std::time::Instant;

use annals::disk::{CrashMode, SimDisk};
use annals::{Durability, Error, ErrorKind, Store};

use crate::forge::body;
use crate::sim_spy::Spy;
use crate::sim_support::*;
use crate::support::eventually;

pub(crate) static DAMAGES: Tally = Tally::new("flips", "all found or harmless, nothing changed, 0 panics");

/// A store on disk, and what is in it.
pub(crate) struct State {
    pub(crate) name: &'static str,
    /// Nothing is pending on it.
    base: SimDisk,
    pub(crate) files: Vec<(String, Vec<u8>)>,
    pub(crate) fingerprints: Vec<u64>,
    /// The last segment, and how much of it MARK proves, in bytes and in events of the store.
    pub(crate) last: String,
    pub(crate) proven: (usize, u64),
}

pub(crate) const SHAPE: Shape = Shape {
    segment_bytes_max: 1200,
    unsynced_bytes_max: 1200,
    group_commands_max: 1024,
    recent_bytes_max: 0,
    durability: Durability::Synced,
};

pub(crate) fn open(disk: &SimDisk) -> Result<Store, Error> {
    SHAPE.builder(disk.clone(), &Gate::default()).open()
}

/// How a state came about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Closed,
    /// Killed, with the last two appends only buffered.
    Killed,
}

impl State {
    pub(crate) fn new(name: &'static str, seed: u64, appends: u64, end: End) -> State {
        let disk = SimDisk::new(seed);
        let mut rng = Rng::new(11);
        let store = open(&disk).unwrap();
        for number in 0..appends {
            let planned = Planned { durability: None, ..Planned::any(&mut rng, number, 60) };
            let is_late = end == End::Killed && number + 2 >= appends;
            let durability = if is_late { BUFFERED } else { Durability::Synced };
            planned.append().durability(durability).commit(&store).unwrap();
        }
        // The same files every time.
        let count = |end: &str| disk.paths().iter().filter(|path| path.ends_with(end)).count();
        eventually("the indexes are written", || count(".idx") + 1 == count(".seg"));
        let trace = disk.trace();
        match end {
            End::Closed => store.close().unwrap(),
            End::Killed => return State::of(name, &trace.image(trace.len(), CrashMode::Keep)),
        }
        State::of(name, &disk)
    }

    pub(crate) fn of(name: &'static str, disk: &SimDisk) -> State {
        let base = SimDisk::new(0);
        let files: Vec<_> =
            disk.paths().into_iter().map(|path| (path.clone(), disk.contents(&path).unwrap())).collect();
        for (path, bytes) in &files {
            base.set_contents(path, Some(bytes.clone()));
        }
        let last = files.iter().map(|(path, _)| path).rfind(|path| path.ends_with(".seg")).unwrap();
        let mut state = State {
            name,
            proven: proven(&base.contents("MARK").unwrap(), last),
            last: last.clone(),
            base,
            files,
            fingerprints: Vec::new(),
        };
        let pristine = state.image();
        assert!(Store::on(pristine.clone()).verify().unwrap().is_clean());
        state.fingerprints = dump(&open(&pristine).unwrap()).unwrap().iter().map(fingerprint).collect();
        state
    }

    /// The store as it was, on a disk of its own.
    pub(crate) fn image(&self) -> SimDisk {
        self.base.trace().image(0, CrashMode::Drop)
    }

    pub(crate) fn bytes(&self, path: &str) -> &[u8] {
        &self.files.iter().find(|(name, _)| name == path).unwrap().1
    }

    pub(crate) fn segments(&self) -> Vec<&str> {
        self.files.iter().map(|(path, _)| path.as_str()).filter(|path| path.ends_with(".seg")).collect()
    }

    fn is_in_sealed_seal(&self, path: &str, at: usize) -> bool {
        path != self.last && path.ends_with(".seg") && at >= self.bytes(path).len() - 72
    }

    /// Changes some files, opens, and judges. `from` is the first byte changed, of the first file.
    pub(crate) fn damage(&self, changes: &[(&str, Option<Vec<u8>>)], from: usize, what: &str) -> Found {
        let disk = self.image();
        for (path, bytes) in changes {
            disk.set_contents(path, bytes.clone());
        }
        let path = changes[0].0;
        let place = || format!("{}: {what} of {path} at {from}", self.name);
        let told = OnPanic(&place);
        let found = self.judge(&disk, path, from, &place);
        drop(told);
        found
    }

    fn judge(&self, disk: &SimDisk, path: &str, from: usize, place: &dyn Fn() -> String) -> Found {
        let before = contents(disk);
        let beyond_proof = path == self.last && from >= self.proven.0;
        // Opening checks header and seal of a sealed segment. A read checks the rest.
        let opened = open(disk);
        let is_open = opened.is_ok();
        match opened.and_then(|store| Ok((dump(&store)?, store))) {
            Ok((events, store)) => {
                let found: Vec<u64> = events.iter().map(fingerprint).collect();
                if found == self.fingerprints {
                    return Found::Harmless;
                }
                assert!(self.fingerprints.starts_with(&found), "{}: other events", place());
                assert!(
                    beyond_proof,
                    "{}: {} events are gone without a word",
                    place(),
                    self.fingerprints.len() - found.len()
                );
                assert!(found.len() as u64 >= self.proven.1, "{}: acknowledged events are gone", place());
                assert!(!store.open_report().clean, "{}: {}", place(), store.open_report());
                Found::Cut
            }
            Err(error) => {
                let expected = matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NeedsNewer);
                assert!(expected, "{}: {:?} {error}", place(), error.kind());
                assert!(is_open || before == contents(disk), "{}: refused, but changed something", place());
                Found::Refused(error)
            }
        }
    }
}

/// What came of a damage.
pub(crate) enum Found {
    /// Everything is there.
    Harmless,
    /// What was never acknowledged as durable was cut, and the report says so.
    Cut,
    Refused(Error),
}

/// Says where a test was when something panicked under it.
struct OnPanic<'a>(&'a dyn Fn() -> String);

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("at {}", (self.0)());
        }
    }
}

pub(crate) fn contents(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    disk.paths().into_iter().map(|path| (path.clone(), disk.contents(&path).unwrap())).collect()
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// What the newer slot of MARK proves: an offset in the last segment, and a position.
fn proven(mark: &[u8], last: &str) -> (usize, u64) {
    let slot = [0, 4096].into_iter().max_by_key(|slot| u64_at(mark, slot + 56)).unwrap();
    let is_of_last =
        last == format!("segments/{:020}.{}.seg", u64_at(mark, slot + 64), u32_at(mark, slot + 72));
    (if is_of_last { u32_at(mark, slot + 76) } else { 0 }, u64_at(mark, slot + 80))
}

/// The parts of a segment as SPEC.md lays them out: header, frames, seal.
pub(crate) fn parts(segment: &[u8]) -> Vec<Range<usize>> {
    let salt = u64_at(segment, 72);
    let header = 0..144;
    let mut parts = vec![header];
    loop {
        let start = parts.last().unwrap().end;
        if segment.len() < start + 8 {
            return parts;
        }
        let mark = u64_at(segment, start) ^ salt ^ start as u64;
        if mark == u64::from_le_bytes(*b"SEALSEAL") {
            parts.push(start..start + 72);
        } else if mark == 0 {
            parts.push(start..body(segment, start) + u32_at(segment, start + 12));
        } else {
            return parts;
        }
    }
}

/// The refusal names the damaged file, and so does verify, with an offset in the damaged part.
fn check_named(state: &State, path: &str, at: usize, bytes: &[u8], error: &Error) {
    let place = || format!("{}: {path} at {at}: {error}", state.name);
    assert!(error.to_string().contains(path), "{}", place());
    let disk = state.image();
    disk.set_contents(path, Some(bytes.to_vec()));
    let report = Store::on(disk).verify().unwrap();
    let part = match path.ends_with(".seg") {
        true => parts(state.bytes(path)).into_iter().find(|part| part.contains(&at)),
        false => None,
    };
    let start = part.map_or(0, |part| part.start);
    let is_it =
        |found: &annals::Finding| found.file == path && (start..=at).contains(&(found.offset as usize));
    assert!(report.findings.iter().any(is_it), "{}: {report}", place());
}

/// Opening to read refuses and accepts the same, writes nothing, and asks for no more memory than
/// there are bytes. Of a damaged seal, which keeps a writer out, a reader sees nothing: all events are whole.
fn check_reading(state: &State, path: &str, at: usize, bytes: &[u8], found: &Found) {
    let disk = state.image();
    disk.set_contents(path, Some(bytes.to_vec()));
    let spy = Spy::new(disk.clone());
    match (Store::on(spy.clone()).open_read_only().and_then(|store| dump(&store)), found) {
        (Ok(events), Found::Harmless | Found::Cut) => {
            let read: Vec<u64> = events.iter().map(fingerprint).collect();
            assert!(state.fingerprints.starts_with(&read) && read.len() as u64 >= state.proven.1, "{path}");
        }
        (Err(error), Found::Refused(other)) => assert_eq!(error.kind(), other.kind(), "{path}"),
        (Ok(events), Found::Refused(_)) if state.is_in_sealed_seal(path, at) => {
            let read: Vec<u64> = events.iter().map(fingerprint).collect();
            assert!(read == state.fingerprints, "{path}: other events");
        }
        (Ok(_), Found::Refused(error)) => panic!("{path}: reading accepts what writing refuses: {error}"),
        (Err(error), _) => panic!("{path}: writing accepts what reading refuses: {error}"),
    }
    assert!(disk.trace().is_empty(), "{path}: opening to read wrote something");
    let most = spy.calls().iter().map(|call| call.bytes).max().unwrap();
    assert!(most <= 1 << 17, "{path}: {most} bytes were asked for at once");
}

/// Changes single bytes of every file: `values` gives the new ones.
fn flips(state: &State, rng: &mut Rng, values: fn(u8, &mut Rng) -> Vec<u8>) -> u64 {
    let mut damages = 0;
    for (path, pristine) in &state.files {
        for at in 0..pristine.len() {
            for value in values(pristine[at], rng) {
                if value == pristine[at] {
                    continue;
                }
                let mut bytes = pristine.clone();
                bytes[at] = value;
                let found = state.damage(&[(path, Some(bytes.clone()))], at, "a byte");
                if let Found::Refused(error) = &found {
                    check_named(state, path, at, &bytes, error);
                }
                if rng.once_in(16) {
                    check_reading(state, path, at, &bytes, &found);
                }
                damages += 1;
            }
        }
    }
    damages
}

/// One bit of every byte, and at full size other values as well.
fn flips_of_every_byte(state: &State, rng: &mut Rng) -> u64 {
    if !is_full() {
        return flips(state, rng, one_bit);
    }
    (0..heavy()).map(|_| flips(state, rng, other_values) + flips(state, rng, one_bit)).sum()
}

fn one_bit(byte: u8, rng: &mut Rng) -> Vec<u8> {
    vec![byte ^ 1 << rng.below(8)]
}

fn other_values(_: u8, rng: &mut Rng) -> Vec<u8> {
    vec![0x00, 0xFF, u8::try_from(rng.below(256)).unwrap()]
}

#[test]
fn every_byte_of_a_closed_store() {
    let started = Instant::now();
    let state = State::new("closed", seed(), 24, End::Closed);
    assert!(state.segments().len() > 3);
    let rng = &mut Rng::new(seed());
    let damages = flips_of_every_byte(&state, rng);
    DAMAGES.add("corrupt::every_byte_of_a_closed_store", damages, started);
}

#[test]
fn every_byte_of_a_killed_store() {
    let started = Instant::now();
    let state = State::new("killed", seed(), 15, End::Killed);
    let rng = &mut Rng::new(seed());
    let damages = flips_of_every_byte(&state, rng);
    DAMAGES.add("corrupt::every_byte_of_a_killed_store", damages, started);
}
