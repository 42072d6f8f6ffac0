//! Forged damage: changed fields under right checksums, several breaks at once, damage under an open store.
//!
//! No call panics, hangs, or allocates without bound. The hash chain shows what the checksums do not.

use std::time::Instant;

use annals::disk::{CrashMode, SimDisk};
use annals::{ErrorKind, Query, Store};

use crate::corrupt::*;
use crate::forge::{crc, put, refit};
use crate::sim_spy::{Spy, What};
use crate::sim_support::*;

static FORGED: Tally = Tally::new("forgeries and broken frames", "all found, 0 panics");

/// Values that a length, a count, an offset or a time should not have.
fn extremes(bytes: &[u8], at: usize, width: usize) -> Vec<Vec<u8>> {
    let mut old = [0; 8];
    old[..width].copy_from_slice(&bytes[at..at + width]);
    let old = u64::from_le_bytes(old);
    let most = u64::MAX >> (64 - 8 * width);
    let values = [
        0,
        1,
        old.wrapping_add(1),
        old.wrapping_sub(1),
        old.wrapping_add(8),
        old ^ 0x80,
        most / 2,
        most - 7,
        most,
    ];
    values.iter().map(|value| (value & most).to_le_bytes()[..width].to_vec()).collect()
}

/// Of a field one value in five, and at full size all of them: others of other fields.
fn some_extremes(bytes: &[u8], at: usize, width: usize) -> impl Iterator<Item = Vec<u8>> {
    let one_of = one_of(5);
    extremes(bytes, at, width).into_iter().skip(at / width % one_of).step_by(one_of)
}

/// Opens what was forged in every way and goes through all of it. `cut`: it may pass for a torn tail.
fn try_everything(state: &State, disk: &SimDisk, cut: bool, place: &dyn Fn() -> String) {
    let spy = Spy::new(disk.clone());
    let report = Store::on(spy.clone()).verify().unwrap_or_else(|error| panic!("{}: {error}", place()));
    let before = contents(disk);
    let _ = Store::on(spy.clone()).open_read_only().map(|store| dump(&store));
    match open(&disk.clone()) {
        Err(error) => {
            let expected = matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NeedsNewer);
            assert!(expected, "{}: {error}", place());
            assert!(before == contents(disk), "{}: refused, but changed something", place());
            assert!(!report.is_clean(), "{}: verify finds nothing, opening says {error}", place());
        }
        Ok(store) => {
            let is_known = match dump(&store) {
                Ok(events) => {
                    let found: Vec<u64> = events.iter().map(fingerprint).collect();
                    found == state.fingerprints || (cut && state.fingerprints.starts_with(&found))
                }
                Err(error) => {
                    let expected = matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NeedsNewer);
                    assert!(expected, "{}: {error}", place());
                    false
                }
            };
            assert!(is_known || !report.is_clean(), "{}: other events, and verify finds nothing", place());
            ENTITIES.iter().for_each(|entity| drop(store.stream(*entity).backwards().collect::<Vec<_>>()));
            let _ = store.verify().unwrap();
        }
    }
    let most = spy.calls().iter().map(|call| call.bytes).max().unwrap();
    assert!(most <= 1 << 17, "{}: {most} bytes were asked for at once", place());
}

/// Every aligned field of every header, seal and record gets values it should not have.
#[test]
fn fields_with_impossible_values_and_right_checksums() {
    let started = Instant::now();
    let mut forged = 0;
    for (end, appends) in [(End::Closed, 9), (End::Killed, 8)] {
        let state = State::new("forged", seed(), appends, end);
        for path in state.segments() {
            let pristine = state.bytes(path);
            for part in parts(pristine) {
                for at in (part.start..part.end).step_by(2) {
                    for width in [2, 4, 8] {
                        // A checksum itself is made to fit again, so changing it says nothing.
                        if at % width != 0 || at + width > part.end {
                            continue;
                        }
                        for value in some_extremes(pristine, at, width) {
                            let mut bytes = pristine.to_vec();
                            put(&mut bytes, at, &value);
                            refit(&mut bytes, &part);
                            let disk = state.image();
                            disk.set_contents(path, Some(bytes));
                            let cut = path == state.last && at >= state.proven.0;
                            let place = || format!("{path}, {part:?}: {at} is {value:?}");
                            try_everything(&state, &disk, cut, &place);
                            forged += 1;
                        }
                    }
                }
            }
        }
    }
    FORGED.add("corrupt_forged::fields_with_impossible_values_and_right_checksums", forged, started);
}

/// The same for MANIFEST and both slots of MARK.
#[test]
fn small_files_with_impossible_values_and_right_checksums() {
    let started = Instant::now();
    let mut forged = 0;
    for (end, appends) in [(End::Closed, 24), (End::Killed, 15)] {
        let state = State::new("forged", seed(), appends, end);
        for (path, ends) in [("MANIFEST", state.bytes("MANIFEST").len() - 32), ("MARK", 4096 + 124)] {
            let pristine = state.bytes(path);
            for at in (0..ends).step_by(2).filter(|at| path == "MANIFEST" || at % 4096 < 124) {
                for width in [2, 4, 8].into_iter().filter(|width| at % width == 0 && at + width <= ends) {
                    for value in some_extremes(pristine, at, width) {
                        let mut bytes = pristine.to_vec();
                        put(&mut bytes, at, &value);
                        let digest = *blake3::hash(&bytes[..ends.min(bytes.len() - 32)]).as_bytes();
                        match path {
                            "MANIFEST" => put(&mut bytes, ends, &digest),
                            _ => [0, 4096].into_iter().for_each(|slot| {
                                let sum = crc(&[&bytes[slot..slot + 124]]);
                                put(&mut bytes, slot + 124, &sum);
                            }),
                        }
                        let disk = state.image();
                        disk.set_contents(path, Some(bytes));
                        try_everything(&state, &disk, false, &|| format!("{path}: {at} is {value:?}"));
                        forged += 1;
                    }
                }
            }
        }
    }
    FORGED.add("corrupt_forged::small_files_with_impossible_values_and_right_checksums", forged, started);
}

/// Verify goes on behind each break: it names all broken frames, each at its beginning.
#[test]
fn all_of_several_breaks_are_found() {
    let started = Instant::now();
    let state = State::new("closed", seed(), 40, End::Closed);
    let mut rng = Rng::new(seed());
    let rounds = sized(1000, 2000);
    for round in 0..rounds {
        let disk = state.image();
        let mut broken = Vec::new();
        for path in state.segments() {
            let mut bytes = state.bytes(path).to_vec();
            let mut was_broken = false;
            for part in parts(&bytes).iter().skip(1).filter(|part| part.len() != 72) {
                // Broken frames side by side are one break if not even their headers are left.
                let breaks = !was_broken && rng.once_in(4);
                if breaks {
                    let at = part.start + rng.below(part.len());
                    bytes[at] ^= 1 << rng.below(8);
                    broken.push((path, part.clone(), at));
                }
                was_broken = breaks;
            }
            disk.set_contents(path, Some(bytes));
        }
        let report = Store::on(disk).verify().unwrap();
        for (path, part, at) in &broken {
            let is_it = |found: &annals::Finding| found.file == *path && found.offset as usize == part.start;
            assert!(report.findings.iter().any(is_it), "round {round}: {path} at {at} of {part:?}: {report}");
        }
        assert_eq!(report.is_clean(), broken.is_empty(), "round {round}: {report}");
    }
    FORGED.add("corrupt_forged::all_of_several_breaks_are_found", rounds, started);
}

/// Damage that comes while the store is open: reading a damaged event says so and names the place, and
/// every other event is still read.
#[test]
fn damage_under_an_open_store() {
    let disk = SimDisk::new(seed());
    let store = open(&disk).unwrap();
    let mut rng = Rng::new(5);
    let receipts: Vec<_> =
        (0..20).map(|number| Planned::any(&mut rng, number, 60).append().commit(&store).unwrap()).collect();
    let segments: Vec<String> = disk.paths().into_iter().filter(|path| path.ends_with(".seg")).collect();
    let mut receipt = receipts.iter();
    for path in &segments {
        let pristine = disk.contents(path).unwrap();
        for part in parts(&pristine).iter().skip(1).filter(|part| part.len() != 72) {
            let damaged = receipt.next().unwrap();
            let mut bytes = pristine.clone();
            bytes[part.start + rng.below(part.len())] ^= 1 << rng.below(8);
            disk.set_contents(path, Some(bytes));
            for other in &receipts {
                let got = store.get(other.id());
                if other.id() == damaged.id() {
                    let error = got.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                    assert!(error.to_string().contains(&format!("{path}, offset {}", part.start)), "{error}");
                } else {
                    assert_eq!(got.unwrap().unwrap().id(), other.id());
                }
            }
            let items: Vec<_> = store.read(Query::all()).collect();
            let events: usize =
                receipts.iter().take_while(|other| other.id() != damaged.id()).map(|r| r.events()).sum();
            assert_eq!(items.iter().filter(|item| item.is_ok()).count(), events, "{path} {part:?}");
            assert_eq!(items.last().unwrap().as_ref().unwrap_err().kind(), ErrorKind::Corrupt);
            let report = store.verify().unwrap();
            let is_it = |found: &annals::Finding| found.file == *path && found.offset as usize == part.start;
            assert!(report.findings.iter().any(is_it), "{path} {part:?}: {report}");
            disk.set_contents(path, Some(pristine.clone()));
        }
    }
    assert_eq!(receipt.next(), None, "all appends were damaged once");
    assert!(store.verify().unwrap().is_clean());
}

/// Found by reading: behind a damaged header, verify read a mebibyte again for every eight bytes. A damaged
/// event of four mebibytes kept it busy for minutes.
#[test]
fn a_large_damaged_frame_is_passed_quickly() {
    let disk = SimDisk::new(1);
    let store = Store::on(disk.clone()).open().unwrap();
    let append = |filler| {
        let event = PlannedEvent { entity: "user:1", scope: None, kind: "p", tag: None, filler };
        let planned = Planned { number: 0, key: None, durability: None, events: vec![event] };
        planned.append().commit(&store).unwrap();
    };
    append(3 << 20);
    append(10);
    store.clone().close().unwrap();
    // With an index opening would read only the frame in front of its end.
    disk.set_contents("segments/00000000000000000001.0.idx", None);
    let path = "segments/00000000000000000001.0.seg";
    let mut bytes = disk.contents(path).unwrap();
    bytes[144 + 30] ^= 1;
    disk.set_contents(path, Some(bytes));
    let spy = Spy::new(disk);
    let report = Store::on(spy.clone()).verify().unwrap();
    assert!(report.findings.iter().any(|found| found.offset == 144), "{report}");
    assert_eq!(report.events, 1, "{report}");
    assert_eq!(Store::on(spy.clone()).open().unwrap_err().kind(), ErrorKind::Corrupt);
    let reads = spy.calls().iter().filter(|call| call.what == What::Read).count();
    assert!(reads < 60, "{reads} reads");
}

/// Found by reading: behind each of many breaks in an unsealed segment, verify read the whole rest to tell
/// damage from a torn tail.
#[test]
fn many_damaged_frames_are_passed_quickly() {
    let disk = SimDisk::new(1);
    let store = Store::on(disk.clone()).open().unwrap();
    let mut rng = Rng::new(5);
    for number in 0..500 {
        Planned::any(&mut rng, number, 60).append().commit(&store).unwrap();
    }
    let trace = disk.trace();
    drop(store);
    let image = trace.image(trace.len(), CrashMode::Keep);
    let path = "segments/00000000000000000001.0.seg";
    let mut bytes = image.contents(path).unwrap();
    let frames: Vec<_> = parts(&bytes).into_iter().skip(1).collect();
    frames.iter().for_each(|frame| bytes[frame.end - 30] ^= 1);
    let length = bytes.len();
    image.set_contents(path, Some(bytes));
    let spy = Spy::new(image);
    let report = Store::on(spy.clone()).verify().unwrap();
    assert!(report.findings.len() > 400, "{}", report.findings.len());
    let reads = spy.calls().into_iter().filter(|call| call.what == What::Read).map(|call| call.bytes);
    let read: usize = reads.sum();
    assert!(read < 8 * length, "{read} bytes of a file of {length}");
}
