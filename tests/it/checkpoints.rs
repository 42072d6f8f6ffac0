//! Checkpoints, and the ledger they stand in.

use annals::disk::MemDisk;
use annals::{ErrorKind, Query, Raw, Store};

fn open(disk: &MemDisk, operator: Option<&str>) -> Store {
    let builder = Store::on(disk.clone());
    operator.into_iter().fold(builder, |builder, name| builder.operator(name)).open().unwrap()
}

#[test]
fn a_checkpoint_is_the_place_where_it_stands() {
    let disk = MemDisk::new();
    let store = open(&disk, Some("anna"));
    store.append("order:1", &Raw("order.placed", &1)).unwrap();
    let first = store.checkpoint("a", "because").unwrap();
    assert_eq!(first.head, store.head().unwrap());
    assert_eq!(first.head.position().get(), 2);
    assert_eq!((first.by.as_str(), first.reason.as_str()), ("anna", "because"));
    store.append("order:1", &Raw("order.paid", &1)).unwrap();
    store.close().unwrap();
    let store = open(&disk, None);
    let again = store.checkpoint("a", "").unwrap();
    assert_eq!(again.by, format!("process {}", std::process::id()));
    assert_eq!(store.checkpoints().unwrap(), [first, again]);
    assert_eq!(
        Store::on(disk).open_read_only().unwrap().checkpoints().unwrap(),
        store.checkpoints().unwrap()
    );
}

#[test]
fn the_ledger_is_a_stream_of_the_store_s_own() {
    let store = Store::in_memory().unwrap();
    let taken = store.checkpoint("a", &"r".repeat(5000)).unwrap();
    assert_eq!(taken.reason.len(), 1000);
    let events: Vec<_> = store.stream("$ledger").map(Result::unwrap).collect();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].kind(), events[0].scope()), ("$ledger.checkpoint", "$"));
    assert_eq!(store.count(Query::all()).unwrap(), 0, "no count includes it");
}

#[test]
fn names_are_names() {
    let store = Store::in_memory().unwrap();
    let kinds = ["", "$a", "a\nb"].map(|name| store.checkpoint(name, "").unwrap_err().kind());
    assert_eq!(kinds, [ErrorKind::Invalid; 3]);
    assert_eq!(store.checkpoint(&"n".repeat(256), "").unwrap_err().kind(), ErrorKind::TooLarge);
    store.checkpoint(&"n".repeat(255), "").unwrap();
    assert_eq!(store.checkpoints().unwrap().len(), 1);
}
