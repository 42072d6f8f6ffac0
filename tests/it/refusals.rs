//! What is refused leaves no trace: not in the ledger, not in the head that the caller has to name.

use annals::disk::MemDisk;
use annals::{Error, ErrorKind, Head, Position, Query, Raw, Store, Until};

use crate::support::kind_of;

/// The head, and how many entries the ledger has.
fn stands(disk: &MemDisk) -> (Head, u64) {
    let store = Store::on(disk.clone()).open_read_only().unwrap();
    (store.head().unwrap(), store.count(Query::entity("$ledger")).unwrap())
}

/// Asked from outside: a refused rollback leaves no trace in the ledger. This is promised for every refused
/// operation: an entry would move the very head that a caller must have named.
#[test]
fn what_is_refused_is_in_no_ledger() {
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    for number in 0..9 {
        store.append("e:1", &Raw("x", &number)).unwrap();
    }
    store.checkpoint("here", "a test").unwrap();
    // A consumer that has handled nothing.
    drop(store.consumer("mailer", Query::all()).unwrap());
    let other = store.head().unwrap();
    store.append("e:1", &Raw("x", &9)).unwrap();
    store.close().unwrap();
    let before = stands(&disk);
    let open = || Store::on(disk.clone()).open().unwrap();
    let rollback =
        |until: Until, cut: &Head| Store::on(disk.clone()).rollback(until, cut, "a test").map(drop);
    type Refused<'a> = (&'a str, &'a dyn Fn() -> Result<(), Error>);
    let refused: [Refused<'_>; 8] = [
        ("rollback: another head", &|| rollback(Until::Position(Position::from(3)), &other)),
        ("rollback: nothing is behind the place", &|| rollback(Until::End, &before.0)),
        ("rollback: no such checkpoint", &|| rollback(Until::Checkpoint("there".to_owned()), &before.0)),
        ("rollback: behind the end", &|| rollback(Until::Position(Position::from(99)), &before.0)),
        ("erase: the store's own", &|| open().erase(Query::entity("$ledger"), "a test").map(drop)),
        ("compact: not handled yet", &|| open().compaction("a test").remove(Query::all()).run().map(drop)),
        ("fork: no such place", &|| open().fork_on(MemDisk::new(), Position::from(99)).run().map(drop)),
        ("checkpoint: no name", &|| open().checkpoint("", "a test").map(drop)),
    ];
    for (what, refused) in refused {
        assert_eq!(kind_of(refused()), ErrorKind::Invalid, "{what}");
        assert_eq!(stands(&disk), before, "{what}");
    }
    assert!(Store::on(disk).verify().unwrap().is_clean());
}
