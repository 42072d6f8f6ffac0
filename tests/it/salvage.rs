//! Salvage: what is left of a damaged store can be read, all of it, and nothing else; what is missing
//! is listed.

use std::collections::BTreeSet;
use std::ops::Range;

use annals::disk::{CrashMode, SimDisk};
use annals::{ErrorKind, Position, Query, Store};

use crate::corrupt::*;
use crate::sim_support::*;

/// The events of a frame, by index into all events of the store.
fn events_of(segment: &[u8], part: &Range<usize>) -> Range<usize> {
    let first = u64_at(segment, 56) as usize + u32_at(segment, part.start + 16) - 1;
    first..first + (u32_at(segment, part.start + 24) & 0xFFFF)
}

/// A segment's frames. (A seal has 72 bytes, fewer than any frame.)
fn frames(segment: &[u8]) -> Vec<Range<usize>> {
    parts(segment).into_iter().skip(1).filter(|part| part.len() > 72).collect()
}

/// What may be missing when this byte of this file is damaged.
fn within(state: &State, path: &str, at: usize) -> Range<usize> {
    if !path.ends_with(".seg") {
        return 0..0;
    }
    let segment = state.bytes(path);
    let frames = frames(segment);
    match frames.iter().find(|frame| frame.contains(&at)) {
        // A tail that was never acknowledged as durable: recovery would cut it there, too.
        Some(frame) if is_unproven(state, path, at) => {
            events_of(segment, frame).start..state.fingerprints.len()
        }
        Some(frame) => events_of(segment, frame),
        // Without its header a segment cannot be read: marks are masked with a number in it.
        None if at < 144 && !frames.is_empty() => {
            events_of(segment, &frames[0]).start..events_of(segment, frames.last().unwrap()).end
        }
        None => 0..0,
    }
}

fn is_unproven(state: &State, path: &str, at: usize) -> bool {
    path == state.last && at >= state.proven.0
}

/// Salvages a damaged store, and says which events are gone.
fn check(state: &State, disk: &SimDisk, is_unproven: bool, place: &dyn Fn() -> String) -> BTreeSet<usize> {
    let before = contents(disk);
    let store = Store::on(disk.clone()).salvage().unwrap_or_else(|error| panic!("{}: {error}", place()));
    let mut missing: BTreeSet<usize> = (0..state.fingerprints.len()).collect();
    let mut last = Position::START;
    for event in dump(&store).unwrap_or_else(|error| panic!("{}: opened, then {error}", place())) {
        let index = event.position().get() as usize - 1;
        assert_eq!(state.fingerprints.get(index), Some(&fingerprint(&event)), "{}: another event", place());
        assert!(event.position() > last, "{}: out of order", place());
        last = event.position();
        missing.remove(&index);
        assert_eq!(store.get(event.id()).unwrap().map(|found| found.position()), Some(last), "{}", place());
    }
    let report = store.open_report();
    assert_eq!(report.events as usize, state.fingerprints.len() - missing.len(), "{}: {report}", place());
    assert!(
        missing.is_empty() || is_unproven || !report.holes.is_empty(),
        "{}: lost without a word: {report}",
        place()
    );
    for index in &missing {
        assert!(store.at(Position::from(*index as u64 + 1)).unwrap().is_none(), "{}", place());
    }
    assert!(before == contents(disk), "{}: something was changed", place());
    missing
}

#[test]
fn every_byte_costs_at_most_its_append() {
    let mut rng = Rng::new(seed());
    for state in [State::new("closed", 1, 24, End::Closed), State::new("killed", 2, 15, End::Killed)] {
        let mut lost = 0;
        for (path, pristine) in &state.files {
            for at in 0..pristine.len() {
                let mut bytes = pristine.clone();
                bytes[at] ^= 1 << rng.below(8);
                let disk = state.image();
                disk.set_contents(path, Some(bytes));
                let place = || format!("seed {}, {}: {path} at {at}", seed(), state.name);
                let missing = check(&state, &disk, is_unproven(&state, path, at), &place);
                let allowed = within(&state, path, at);
                assert!(
                    missing.iter().all(|index| allowed.contains(index)),
                    "{}: {missing:?}, not {allowed:?}",
                    place()
                );
                lost += missing.len();
            }
        }
        assert!(lost > 1_000, "the damage did nothing: {lost}");
    }
}

#[test]
fn files_gone_cost_what_they_held() {
    let state = State::new("closed", 1, 24, End::Closed);
    for (path, bytes) in &state.files {
        let disk = state.image();
        disk.set_contents(path, None);
        let missing = check(&state, &disk, false, &|| format!("without {path}"));
        let held = if path.ends_with(".seg") { within(&state, path, 0) } else { 0..0 };
        assert_eq!(missing, held.collect(), "without {path}");
        // Doubled under the name of another: read once.
        for other in state.segments().into_iter().filter(|other| *other != path && path.ends_with(".seg")) {
            let disk = state.image();
            disk.set_contents(other, Some(bytes.clone()));
            let missing = check(&state, &disk, false, &|| format!("{path} as {other}"));
            assert!(
                missing.iter().all(|index| within(&state, other, 0).contains(index)),
                "{path} as {other}"
            );
        }
    }
}

#[test]
fn several_holes_are_all_listed_and_all_else_is_read() {
    let state = State::new("closed", 3, 40, End::Closed);
    let disk = state.image();
    let mut allowed = BTreeSet::new();
    for path in state.segments() {
        let mut bytes = state.bytes(path).to_vec();
        let frames = frames(&bytes);
        for frame in frames.iter().step_by(2) {
            allowed.extend(events_of(&bytes, frame));
        }
        for frame in frames.iter().step_by(2) {
            bytes[frame.end - 9] ^= 0x40;
        }
        disk.set_contents(path, Some(bytes));
    }
    let missing = check(&state, &disk, false, &|| "every other append".to_owned());
    assert_eq!(missing, allowed);
    let store = Store::on(disk.clone()).salvage().unwrap();
    assert!(store.open_report().holes.len() >= state.segments().len(), "{}", store.open_report());
    let text = store.open_report().to_string();
    assert!(text.contains("HOLE: segments/") && text.contains("offset"), "{text}");
    assert_eq!(Store::on(disk).open().unwrap_err().kind(), ErrorKind::Corrupt);
    // What is left is read by every way there is.
    for event in dump(&store).unwrap() {
        let version = event.version().get();
        let again = store.stream(event.entity()).versions(version..=version).next().unwrap().unwrap();
        assert_eq!(fingerprint(&again), fingerprint(&event));
        let newest = store.read(Query::entity(event.entity())).backwards().limit(1).next().unwrap().unwrap();
        assert!(newest.version() >= event.version());
    }
    let refused = store.append("a", &annals::Raw("k", &())).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
}

#[test]
fn nothing_to_salvage_and_an_open_writer_are_refused() {
    let disk = SimDisk::new(1);
    assert_eq!(Store::on(disk.clone()).salvage().unwrap_err().kind(), ErrorKind::Invalid);
    let store = Store::on(disk.clone()).open().unwrap();
    assert_eq!(Store::on(disk.clone()).salvage().unwrap_err().kind(), ErrorKind::Locked);
    store.close().unwrap();
    let store = Store::on(disk.trace().image(disk.trace().len(), CrashMode::Keep)).open().unwrap();
    assert_eq!(store.head().unwrap().position(), Position::START);
}
