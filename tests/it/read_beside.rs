//! Opening to read beside a writer that does something whenever the reader has looked away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use annals::disk::SimDisk;
use annals::{ErrorKind, Query, Raw, Store};

use crate::sim_spy::{Spy, What};
use crate::support::kind_of;

/// A disk to read from, on which the writer takes a step whenever the reader lists the segments, up to
/// `steps` times. The reader has read MANIFEST then, and none of the segments that it lists.
///
/// Returns the disk, and the number of steps that are left.
fn restless(disk: &SimDisk, steps: u64, step: impl Fn() + Send + 'static) -> (Spy, Arc<AtomicU64>) {
    let (spy, left) = (Spy::new(disk.clone()), Arc::new(AtomicU64::new(steps)));
    let of_spy = left.clone();
    spy.interleave(move |what, path| {
        if what == What::List && path == "segments" && of_spy.load(Ordering::Relaxed) > 0 {
            of_spy.fetch_sub(1, Ordering::Relaxed);
            step();
        }
    });
    (spy, left)
}

/// A store of some small segments, with an entity of its own for each event.
fn store(disk: &SimDisk) -> Store {
    let store = Store::on(disk.clone()).segment_bytes_max(1000).open().unwrap();
    for number in 0..90 {
        store.append(format!("e:{number}"), &Raw("x", &number)).unwrap();
    }
    store
}

#[test]
fn a_store_that_is_rewritten_all_the_time_is_opened_to_read() {
    let disk = SimDisk::new(3);
    let writer = store(&disk);
    let next = AtomicU64::new(0);
    let events = writer.count(Query::all()).unwrap();
    let eraser = writer.clone();
    let erase = move || {
        let entity = format!("e:{}", next.fetch_add(1, Ordering::Relaxed));
        assert_eq!(eraser.erase(Query::entity(entity.as_str()), "").unwrap().events, 1);
    };
    let (disk, left) = restless(&disk, 60, erase);
    let reader = Store::on(disk).open_read_only().unwrap();
    assert_eq!(left.load(Ordering::Relaxed), 0, "the writer did not rest before");
    assert_eq!(reader.count(Query::all()).unwrap(), events);
    assert_eq!(reader.head().unwrap(), writer.head().unwrap());
}

#[test]
fn damage_beside_a_writer_that_appends_is_said_soon() {
    let disk = SimDisk::new(3);
    let writer = store(&disk);
    let third = disk.paths().into_iter().filter(|path| path.ends_with(".seg")).nth(2).unwrap();
    disk.set_contents(&third, None);
    let appender = writer.clone();
    let append = move || drop(appender.append("e:1", &Raw("x", &"more")).unwrap());
    let (disk, left) = restless(&disk, 1000, append);
    assert_eq!(kind_of(Store::on(disk).open_read_only()), ErrorKind::Corrupt);
    let left = left.load(Ordering::Relaxed);
    assert!(left > 900, "{left} steps left");
}
