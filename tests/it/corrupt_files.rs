//! Damage to whole files: cut, grown, zeroed, swapped, gone, doubled, taken from an older copy or from
//! another store. Also several breaks at once, and damage while the store is open.

use std::time::Instant;

use annals::disk::{CrashMode, SimDisk};
use annals::{ErrorKind, Store};

use crate::corrupt::*;
use crate::sim_support::*;

const SECTOR: usize = 512;

fn states() -> [State; 3] {
    [
        State::new("closed", seed(), 24, End::Closed),
        State::new("killed", seed(), 15, End::Killed),
        State::new("empty", seed(), 0, End::Closed),
    ]
}

/// Damages a file and sees that a refusal is named by verify, too.
fn damage(state: &State, path: &str, bytes: Option<Vec<u8>>, from: usize, what: &str) {
    let found = state.damage(&[(path, bytes.clone())], from, what);
    if let Found::Refused(error) = found {
        let disk = state.image();
        disk.set_contents(path, bytes);
        let report = Store::on(disk).verify().unwrap();
        assert!(!report.is_clean(), "{}: {what} of {path} at {from}: {error}; verify: {report}", state.name);
    }
}

#[test]
fn every_length() {
    let started = Instant::now();
    let mut damages = 0;
    for state in states() {
        for (path, pristine) in &state.files {
            for length in (0..pristine.len()).step_by(one_of(4)) {
                damage(&state, path, Some(pristine[..length].to_vec()), length, "the end");
                damages += 1;
            }
            for (more, byte) in
                [(1, 0), (1, 7), (8, 0), (80, 0), (512, 7), (4096, 0), (70_000, 0), (70_000, 7)]
            {
                let mut bytes = pristine.clone();
                bytes.resize(pristine.len() + more, byte);
                damage(&state, path, Some(bytes), pristine.len(), "more behind the end");
                damages += 1;
            }
        }
    }
    DAMAGES.add("corrupt_files::every_length", damages, started);
}

#[test]
fn every_sector() {
    let started = Instant::now();
    let mut damages = 0;
    for state in states() {
        let sectors: Vec<(&str, usize)> = state
            .files
            .iter()
            .flat_map(|(path, bytes)| (0..bytes.len()).step_by(SECTOR).map(move |at| (path.as_str(), at)))
            .collect();
        for (path, at) in &sectors {
            for fill in [0x00, 0xFF] {
                let mut bytes = state.bytes(path).to_vec();
                let end = bytes.len().min(at + SECTOR);
                bytes[*at..end].fill(fill);
                damage(&state, path, Some(bytes), *at, "a sector");
                damages += 1;
            }
        }
        for (index, one) in sectors.iter().enumerate() {
            for other in &sectors[index + 1..] {
                damages += swap(&state, *one, *other);
            }
        }
    }
    DAMAGES.add("corrupt_files::every_sector", damages, started);
}

/// Two sectors of the same or of two files change places.
fn swap(state: &State, one: (&str, usize), other: (&str, usize)) -> u64 {
    let piece = |place: (&str, usize)| {
        let bytes = state.bytes(place.0);
        bytes[place.1..bytes.len().min(place.1 + SECTOR)].to_vec()
    };
    let (first, second) = (piece(one), piece(other));
    if first.len() != second.len() || first == second {
        return 0;
    }
    let put =
        |bytes: &mut Vec<u8>, at: usize, piece: &[u8]| bytes[at..at + piece.len()].copy_from_slice(piece);
    let mut bytes = state.bytes(one.0).to_vec();
    put(&mut bytes, one.1, &second);
    if one.0 == other.0 {
        put(&mut bytes, other.1, &first);
        state.damage(&[(one.0, Some(bytes))], one.1, "swapped sectors");
    } else {
        let mut others = state.bytes(other.0).to_vec();
        put(&mut others, other.1, &first);
        // The last segment comes later in the list; what is changed of it decides what may be cut.
        let (path, at) = if other.0 == state.last { (other.0, other.1) } else { (one.0, one.1) };
        let changes = [(one.0, Some(bytes)), (other.0, Some(others))];
        let changes = if path == other.0 { [changes[1].clone(), changes[0].clone()] } else { changes };
        state.damage(&changes, at, "swapped sectors");
    }
    1
}

#[test]
fn files_gone_doubled_and_exchanged() {
    let started = Instant::now();
    let mut damages = 0;
    for (state, stranger) in states().iter().zip([
        State::new("closed", seed() + 1, 24, End::Closed),
        State::new("killed", seed() + 1, 15, End::Killed),
        State::new("empty", seed() + 1, 0, End::Closed),
    ]) {
        let names: Vec<&str> = state.files.iter().map(|(path, _)| path.as_str()).collect();
        for path in &names {
            damage(state, path, None, 0, "absence");
            damages += 1;
            for other in &names {
                damage(
                    state,
                    path,
                    Some(state.bytes(other).to_vec()),
                    0,
                    &format!("a copy of {other} instead"),
                );
                damage(
                    state,
                    path,
                    Some(stranger.bytes(other).to_vec()),
                    0,
                    &format!("a stranger's {other} instead"),
                );
                damages += 2;
            }
        }
        for path in state.segments() {
            for name in ["segments/00000000000000000002.0.seg", "segments/00000000000000099999.0.seg"] {
                if !names.contains(&name) {
                    damage(
                        state,
                        name,
                        Some(state.bytes(path).to_vec()),
                        0,
                        &format!("a copy of {path} as well"),
                    );
                    damages += 1;
                }
            }
            for name in ["segments/1.0.seg", "segments/notes", "MANIFEST.old"] {
                let found = state.damage(&[(name, Some(state.bytes(path).to_vec()))], 0, "an unknown file");
                assert!(matches!(found, Found::Harmless), "{}: {name} is not left alone", state.name);
                damages += 1;
            }
            // The name of a segment says that the file is a part of the log.
            let name = "segments/00000000000000000001.1.seg";
            let copied = Some(state.bytes(path).to_vec());
            let found = state.damage(&[(name, copied.clone())], 0, "a copy");
            assert!(matches!(found, Found::Refused(_)), "{}: a writer passes over {name}", state.name);
            damage(state, name, copied, 0, "a copy");
            damages += 1;
        }
    }
    DAMAGES.add("corrupt_files::files_gone_doubled_and_exchanged", damages, started);
}

/// Each file is put back to every state it once had, alone, while the others are new.
#[test]
fn files_of_an_older_copy() {
    let started = Instant::now();
    let disk = SimDisk::new(seed());
    let mut rng = Rng::new(3);
    let store = open(&disk).unwrap();
    for number in 0..20 {
        let planned = Planned { durability: None, ..Planned::any(&mut rng, number, 60) };
        planned.append().commit(&store).unwrap();
    }
    store.close().unwrap();
    let trace = disk.trace();
    let state = State::of("aged", &disk);
    let mut damages = 0;
    for (path, newest) in &state.files {
        let mut seen = vec![newest.clone()];
        for point in 0..=trace.len() {
            let Some(older) = trace.image(point, CrashMode::Keep).contents(path) else { continue };
            if !seen.contains(&older) {
                damage(&state, path, Some(older.clone()), 0, &format!("the state of operation {point}"));
                seen.push(older);
                damages += 1;
            }
        }
    }
    assert!(damages > 50, "{damages}");
    DAMAGES.add("corrupt_files::files_of_an_older_copy", damages, started);
}

/// The documented limit: once MARK is lost as well, damage to the last append looks like a torn tail. The
/// bytes are kept, and the report says so. An append that a later one proves is still missed.
#[test]
fn without_mark_only_the_last_append_can_be_cut() {
    let started = Instant::now();
    let long_enough = |state: &State| parts(state.bytes(&state.last)).len() > 2;
    let mut states = (24..).map(|appends| State::new("closed", seed(), appends, End::Closed));
    let state = states.find(long_enough).unwrap();
    let pristine = state.bytes(&state.last);
    let parts = parts(pristine);
    let last = parts.last().unwrap();
    let (mut cut, mut damages) = (0, 0);
    for at in 0..last.end {
        for flip in [0x01, 0x80] {
            let disk = state.image();
            let mut bytes = pristine.to_vec();
            bytes[at] ^= flip;
            disk.set_contents(&state.last, Some(bytes.clone()));
            disk.set_contents("MARK", None);
            damages += 1;
            match open(&disk) {
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}"),
                Ok(store) => {
                    let found: Vec<u64> = dump(&store).unwrap().iter().map(fingerprint).collect();
                    assert!(state.fingerprints.starts_with(&found));
                    assert!(last.contains(&at) && found.len() < state.fingerprints.len(), "{at}");
                    let report = store.open_report();
                    assert!(!report.mark_found, "{report}");
                    let kept = disk.contents(report.cut.as_ref().unwrap().kept.as_ref().unwrap()).unwrap();
                    assert!(
                        bytes[last.clone()].starts_with(&kept) && kept.len() + 8 > last.len(),
                        "{report}"
                    );
                    cut += 1;
                }
            }
        }
    }
    assert!(cut > 0);
    DAMAGES.add("corrupt_files::without_mark_only_the_last_append_can_be_cut", damages, started);
}
