//! An LRU pool against its rules: it never exceeds its size, it evicts the least recently used, it makes a
//! value once.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

fn slots(count: usize) -> Vec<Arc<LruSlot<u64>>> {
    (0..count).map(|_| Arc::default()).collect()
}

fn make(pool: &LruPool<u64>, slot: &Arc<LruSlot<u64>>, number: u64, size: u64) -> u64 {
    *pool.get_or_make(slot, || Ok::<_, ()>((number, size))).unwrap()
}

fn held(slots: &[Arc<LruSlot<u64>>]) -> Vec<Option<u64>> {
    slots.iter().map(|slot| slot.peek(|number| *number)).collect()
}

#[test]
fn the_least_recently_used_is_evicted_first() {
    let pool = LruPool::new(10);
    let slots = slots(4);
    for (number, slot) in (0..).zip(&slots[..3]) {
        make(&pool, slot, number, 3);
    }
    assert_eq!(held(&slots), [Some(0), Some(1), Some(2), None]);
    assert_eq!(pool.get(&slots[0]).as_deref(), Some(&0));
    make(&pool, &slots[3], 3, 4);
    assert_eq!(held(&slots), [Some(0), None, Some(2), Some(3)], "1 was used before 0 was, and 2 after it");
    make(&pool, &slots[1], 11, 7);
    assert_eq!(held(&slots), [None, Some(11), None, None], "as many are evicted as must be");
    make(&pool, &slots[2], 12, 11);
    assert_eq!(
        held(&slots),
        [None, Some(11), None, None],
        "a value larger than the pool is returned and evicts nothing"
    );
    pool.put(&slots[1], Arc::new(21), 2);
    make(&pool, &slots[0], 10, 8);
    assert_eq!(
        held(&slots),
        [Some(10), Some(21), None, None],
        "a value takes the room of the one it replaces"
    );
    pool.clear(&slots[0]);
    make(&pool, &slots[3], 13, 8);
    assert_eq!(held(&slots), [None, Some(21), None, Some(13)]);
}

#[test]
fn what_is_used_keeps_its_slot() {
    let pool = LruPool::new(10);
    let slots = slots(3);
    for (number, slot) in (0..).zip(&slots[..2]) {
        make(&pool, slot, number, 4);
    }
    let since = pool.tick();
    let has_room = |size| pool.has_room_beside_used(size, since);
    assert!(has_room(10) && !has_room(11), "neither was used since");
    assert_eq!(pool.get(&slots[0]).as_deref(), Some(&0));
    assert!(has_room(6) && !has_room(7), "one was used since");
    assert_eq!(pool.get(&slots[1]).as_deref(), Some(&1));
    assert!(has_room(2) && !has_room(3), "both were");
    assert!(pool.has_room_beside_used(10, pool.tick()), "neither was used since then");
}

#[test]
fn a_failure_leaves_the_slot_empty() {
    let pool = LruPool::new(10);
    let slots = slots(1);
    assert_eq!(pool.get_or_make(&slots[0], || Err::<(u64, u64), _>("no")), Err("no"));
    assert_eq!(make(&pool, &slots[0], 7, 1), 7);
}

#[test]
fn a_value_is_made_once_by_concurrent_callers() {
    let pool = LruPool::new(10);
    let slots = slots(1);
    let made = AtomicU64::new(0);
    let start = Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                let one = || Ok::<_, ()>((made.fetch_add(1, Ordering::Relaxed), 1));
                assert_eq!(*pool.get_or_make(&slots[0], one).unwrap(), 0);
            });
        }
    });
    assert_eq!(made.load(Ordering::Relaxed), 1);
}

#[test]
fn a_pool_never_exceeds_its_size() {
    let pool = LruPool::new(100);
    let slots = slots(20);
    let mut state = 7_u64;
    let sizes: Vec<u64> = (0..20).map(|slot| slot * 3 + 1).collect();
    for _ in 0..10_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = usize::try_from(state >> 33).unwrap() % slots.len();
        match (state >> 60) % 4 {
            0 => pool.clear(&slots[at]),
            1 => drop(pool.get(&slots[at])),
            _ => drop(make(&pool, &slots[at], state, sizes[at])),
        }
        let total: u64 = slots.iter().zip(&sizes).filter_map(|(slot, size)| slot.peek(|_| *size)).sum();
        assert!(total <= 100, "{total}");
    }
}
