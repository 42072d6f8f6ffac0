//! Erasing: what goes, what stays, and that nothing of it is left anywhere.

use annals::disk::{CrashMode, SimDisk};
use annals::{Append, ErrorKind, Query, Raw, RecordedEvent, Store};

use crate::support::all;

/// What must be found nowhere once it was erased.
const SECRET: &str = "CANARY-4711-CANARY";

fn opened(disk: &SimDisk) -> Store {
    Store::on(disk.clone()).segment_bytes_max(2000).operator("anna").open().unwrap()
}

/// Whether any file holds the secret.
fn is_anywhere(disk: &SimDisk) -> Option<String> {
    let holds = |path: &String| {
        let bytes = disk.contents(path).unwrap();
        bytes.windows(SECRET.len()).any(|piece| piece == SECRET.as_bytes())
    };
    disk.paths().into_iter().find(holds)
}

fn public(event: &RecordedEvent) -> String {
    format!(
        "{} {} {} {} {} {:?} {:?} {:?}",
        event.position(),
        event.version(),
        event.id(),
        event.entity(),
        event.kind(),
        event.tags().collect::<Vec<_>>(),
        event.recorded_at(),
        event.chain(),
    )
}

#[test]
fn what_is_erased_is_gone_and_the_rest_stands() {
    let disk = SimDisk::new(3);
    let store = opened(&disk);
    for number in 0..60_u32 {
        let (entity, text) = if number % 3 == 0 { ("customer:7", SECRET) } else { ("customer:8", "kept") };
        Append::to(entity)
            .event(&Raw("moved", &(number, text)))
            .tag("city")
            .key(number.to_le_bytes())
            .commit(&store)
            .unwrap();
    }
    let before = all(store.read(Query::all()));
    let head = store.head().unwrap();
    assert!(is_anywhere(&disk).is_some());
    let erasure = store.erase(Query::entity("customer:7"), "ticket 12").unwrap();
    assert_eq!(erasure.events, 20);
    assert_eq!(is_anywhere(&disk), None);
    let check = |store: &Store| {
        let after = all(store.read(Query::all()));
        assert_eq!(
            before.iter().map(public).collect::<Vec<_>>(),
            after.iter().map(public).collect::<Vec<_>>()
        );
        for (one, other) in before.iter().zip(&after) {
            if one.entity() == "customer:7" {
                assert!(other.is_erased());
                assert_eq!(other.payload().unwrap_err().kind(), ErrorKind::Erased);
                assert_eq!(other.metadata::<u8>().unwrap_err().kind(), ErrorKind::Erased);
            } else {
                assert_eq!(one.payload().unwrap(), other.payload().unwrap());
            }
        }
        let report = store.verify().unwrap();
        assert!(report.is_clean(), "{report}");
        assert_eq!(store.version("customer:7").unwrap().get(), 20);
        // The retry of an append whose payload is gone is still known.
        let again =
            Append::to("customer:7").event(&Raw("moved", &(0, "other"))).tag("city").key(0_u32.to_le_bytes());
        assert!(again.commit(store).unwrap().replayed());
    };
    check(&store);
    assert_eq!(store.at(head.position()).unwrap().unwrap().chain(), head.chain());
    let kinds: Vec<String> =
        all(store.read(Query::entity("$ledger"))).iter().map(|event| event.kind().to_owned()).collect();
    assert_eq!(kinds, ["$ledger.erasing", "$ledger.erased"]);
    store.close().unwrap();
    let report = Store::on(disk.clone()).verify().unwrap();
    assert!(report.is_clean(), "{report}");
    let store = opened(&disk);
    assert!(store.open_report().unknown.is_empty() && store.open_report().removed.is_empty());
    check(&store);
    let trace = disk.trace();
    let image = trace.image(trace.len(), CrashMode::Drop);
    assert_eq!(is_anywhere(&image), None);
}
