//! What crash.rs, fault.rs and corrupt.rs once found, made small: each test tells its story.

use annals::Store;
use annals::disk::{CrashMode, SimDisk};

use crate::sim_support::*;

fn open(disk: &SimDisk) -> Store {
    Store::on(disk.clone()).segment_bytes_max(2000).unsynced_bytes_max(1000).open().unwrap()
}

fn planned(number: u64, filler: usize) -> Planned {
    let event = PlannedEvent { entity: "user:1", scope: None, kind: "p", tag: None, filler };
    Planned { number, key: None, durability: None, events: vec![event] }
}

fn stopped(disk: &SimDisk, mode: CrashMode) -> SimDisk {
    let trace = disk.trace();
    trace.image(trace.len(), mode)
}

/// Found by crash.rs. MARK said "closed" of the first segment; recovery sealed that one and went on
/// in a second; the power failed before MARK was synced. The next writer took the old "closed" for
/// its own and closed without a word, so every opening from then on recovered once more.
#[test]
fn a_store_that_was_recovered_and_closed_is_found_closed() {
    let disk = SimDisk::new(1);
    open(&disk).close().unwrap();
    let store = open(&disk);
    planned(1, 100).append().commit(&store).unwrap();
    let recovered = stopped(&disk, CrashMode::Drop);
    let _writer = open(&recovered);
    let image = stopped(&recovered, CrashMode::Drop);
    open(&image).close().unwrap();
    let report = open(&image).open_report().clone();
    assert!(report.clean, "{report}");
}
