//! A room against its rules: never more than it has room for, those used last stay, nothing is made twice.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use super::lru::{LruPool, LruSlot};
use super::*;

fn places(count: usize) -> Vec<Arc<LruSlot<u64>>> {
    (0..count).map(|_| Arc::default()).collect()
}

fn make(room: &LruPool<u64>, place: &Arc<LruSlot<u64>>, number: u64, size: u64) -> u64 {
    *room.get_or_make(place, || Ok::<_, ()>((number, size))).unwrap()
}

fn held(places: &[Arc<LruSlot<u64>>]) -> Vec<Option<u64>> {
    places.iter().map(|place| place.look(|number| *number)).collect()
}

#[test]
fn what_was_used_least_lately_goes_first() {
    let (room, places) = (LruPool::new(10), places(4));
    for (number, place) in (0..).zip(&places[..3]) {
        make(&room, place, number, 3);
    }
    assert_eq!(held(&places), [Some(0), Some(1), Some(2), None]);
    assert_eq!(room.get(&places[0]).as_deref(), Some(&0));
    make(&room, &places[3], 3, 4);
    assert_eq!(held(&places), [Some(0), None, Some(2), Some(3)], "1 was used before 0 was, and 2 after it");
    make(&room, &places[1], 11, 7);
    assert_eq!(held(&places), [None, Some(11), None, None], "as many go as must");
    make(&room, &places[2], 12, 11);
    assert_eq!(
        held(&places),
        [None, Some(11), None, None],
        "what fits nowhere is handed out, and takes nothing"
    );
    room.put(&places[1], Arc::new(21), 2);
    make(&room, &places[0], 10, 8);
    assert_eq!(
        held(&places),
        [Some(10), Some(21), None, None],
        "a thing takes the room of the one it replaces"
    );
    room.clear(&places[0]);
    make(&room, &places[3], 13, 8);
    assert_eq!(held(&places), [None, Some(21), None, Some(13)]);
}

#[test]
fn what_is_used_keeps_its_room() {
    let (room, places) = (LruPool::new(10), places(3));
    for (number, place) in (0..).zip(&places[..2]) {
        make(&room, place, number, 4);
    }
    let since = room.tick();
    let has_room = |size| room.has_room_beside_used(size, since);
    assert!(has_room(10) && !has_room(11), "nobody used either since");
    assert_eq!(room.get(&places[0]).as_deref(), Some(&0));
    assert!(has_room(6) && !has_room(7), "one was used since");
    assert_eq!(room.get(&places[1]).as_deref(), Some(&1));
    assert!(has_room(2) && !has_room(3), "both were");
    assert!(room.has_room_beside_used(10, room.tick()), "nobody was since then");
}

#[test]
fn a_failure_leaves_the_place_empty() {
    let (room, places) = (LruPool::new(10), places(1));
    assert_eq!(room.get_or_make(&places[0], || Err::<(u64, u64), _>("no")), Err("no"));
    assert_eq!(make(&room, &places[0], 7, 1), 7);
}

#[test]
fn a_thing_is_made_once_whoever_comes() {
    let (room, places, made, start) = (LruPool::new(10), places(1), AtomicU64::new(0), Barrier::new(8));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                let one = || Ok::<_, ()>((made.fetch_add(1, Ordering::Relaxed), 1));
                assert_eq!(*room.get_or_make(&places[0], one).unwrap(), 0);
            });
        }
    });
    assert_eq!(made.load(Ordering::Relaxed), 1);
}

#[test]
fn no_room_is_ever_overdrawn() {
    let (room, places, mut state) = (LruPool::new(100), places(20), 7_u64);
    let sizes: Vec<u64> = (0..20).map(|place| place * 3 + 1).collect();
    for _ in 0..10_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = usize::try_from(state >> 33).unwrap() % places.len();
        match (state >> 60) % 4 {
            0 => room.clear(&places[at]),
            1 => drop(room.get(&places[at])),
            _ => drop(make(&room, &places[at], state, sizes[at])),
        }
        let total: u64 = places.iter().zip(&sizes).filter_map(|(place, size)| place.look(|_| *size)).sum();
        assert!(total <= 100, "{total}");
    }
}
