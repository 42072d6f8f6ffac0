//! Verifying whether the causes that events name are there.

use annals::disk::MemDisk;
use annals::{Append, Cause, EventId, Query, Raw, Store, Verify, VerifyReport};

fn id(number: u128) -> EventId {
    EventId::from_bytes((0xF000_0000_0000_0000_0000_0000_0000_0000 + number).to_be_bytes())
}

fn both(disk: &MemDisk) -> [VerifyReport; 2] {
    let store = Store::on(disk.clone()).open().unwrap();
    let open = Verify::new().causes().run(&store).unwrap();
    store.close().unwrap();
    [open, Verify::new().causes().run_files(Store::on(disk.clone())).unwrap()]
}

fn caused(store: &Store, entity: &str, by: Cause) -> EventId {
    let appended = Append::to(entity).event(&Raw("x", &1)).cause(by).commit(store).unwrap();
    appended.ids().next().unwrap()
}

/// Found from outside: verify was clean with an event whose cause is nowhere, and nothing could be asked that
/// says so.
#[test]
fn a_cause_that_is_not_there_is_listed() {
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).segment_bytes_max(500).open().unwrap();
    let first = store.append("a", &Raw("x", &1)).unwrap().ids().next().unwrap();
    // Foreign ids may be named before they come.
    caused(&store, "b", Cause::Event(id(1)));
    let second = caused(&store, "b", Cause::Event(first));
    Append::to("c").event(&Raw("x", &1)).foreign_id(id(1)).commit(&store).unwrap();
    caused(&store, "c", Cause::Event(id(1)));
    caused(&store, "c", Cause::PreviousInStream);
    store.close().unwrap();
    for report in both(&disk) {
        assert!(report.is_clean(), "{report}");
        assert_eq!(
            (report.causes_compared, report.causes_missing, report.causes.len()),
            (3, 0, 0),
            "{report}"
        );
    }
    let store = Store::on(disk.clone()).open().unwrap();
    // An id that was never given, one of the right place with another chain, and one of a place that is not
    // there yet.
    let mut other = *second.as_bytes();
    other[15] ^= 1;
    let mut later = *second.as_bytes();
    later[11] ^= 0x40;
    let wrong = [id(2), EventId::from_bytes(other), EventId::from_bytes(later)];
    for wrong in wrong {
        caused(&store, "d", Cause::Event(wrong));
    }
    store.close().unwrap();
    assert!(Store::on(disk.clone()).verify().unwrap().is_clean(), "causes were not asked for");
    for report in both(&disk) {
        assert!(!report.is_clean() && report.findings.is_empty(), "{report}");
        let found: Vec<_> = report
            .causes
            .iter()
            .map(|missing| (missing.position.get(), missing.entity.as_str(), missing.cause))
            .collect();
        assert_eq!(found, [(7, "d", wrong[0]), (8, "d", wrong[1]), (9, "d", wrong[2])], "{report}");
        assert!(report.causes.iter().all(|missing| !missing.may_be_removed));
        assert_eq!((report.causes_compared, report.causes_missing, report.causes_removed), (6, 3, 0));
        assert!(report.to_string().starts_with("CAUSES MISSING"), "{report}");
        assert!(
            report.to_string().contains(&format!("position 7, d: its cause {} is not in the store", id(2)))
        );
    }
}

/// A cause that was removed is known by its place; of an id that was brought along nothing is left to know.
#[test]
fn a_cause_that_was_removed_is_told_from_one_that_never_was() {
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).segment_bytes_max(500).open().unwrap();
    let gone = store.append("a", &Raw("gone", &1)).unwrap().ids().next().unwrap();
    Append::to("a").event(&Raw("gone", &1)).foreign_id(id(1)).commit(&store).unwrap();
    store.append("a", &Raw("stays", &1)).unwrap();
    caused(&store, "b", Cause::Event(gone));
    caused(&store, "b", Cause::Event(id(1)));
    caused(&store, "b", Cause::Event(id(2)));
    store.compaction("old").remove(Query::all().kind("gone")).run().unwrap();
    store.close().unwrap();
    for report in both(&disk) {
        assert!(report.is_clean(), "removing is no damage: {report}");
        assert_eq!(
            (report.causes_compared, report.causes_removed, report.causes_missing),
            (3, 1, 2),
            "{report}"
        );
        assert!(report.causes.iter().all(|missing| missing.may_be_removed), "{report}");
        assert_eq!(report.causes.iter().map(|missing| missing.cause).collect::<Vec<_>>(), [id(1), id(2)]);
    }
    // Also of what is passed over.
    let verified = Store::on(disk.clone()).verify().unwrap().verified.unwrap();
    let rest = Verify::new().after(verified).causes().run_files(Store::on(disk)).unwrap();
    assert!(rest.is_clean(), "{rest}");
}

#[test]
fn a_broken_off_search_says_so() {
    let store = Store::in_memory().unwrap();
    let blob = crate::support::Bytes("blob", vec![7; 600_000]);
    for _ in 0..8 {
        Append::to("e:1").event(&blob).cause(Cause::Event(id(9))).commit(&store).unwrap();
    }
    let mut told = 0;
    let verify = Verify::new().causes().on_progress(|progress| {
        told += 1;
        assert!(progress.bytes <= progress.bytes_total, "{progress:?}");
        // The log is gone through once then, and is read again.
        if progress.bytes > 5_500_000 {
            std::ops::ControlFlow::Break(())
        } else {
            std::ops::ControlFlow::Continue(())
        }
    });
    let report = verify.run(&store).unwrap();
    assert!(report.broken_off && report.causes.is_empty() && told > 4, "{report}, told {told} times");
    let whole = Verify::new().causes().run(&store).unwrap();
    assert_eq!((whole.causes_missing, whole.broken_off), (8, false), "{whole}");
}
