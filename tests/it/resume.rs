//! Where to go on: cursors that the log still has, and those it does not.

use annals::disk::MemDisk;
use annals::{ErrorKind, Position, Query, Raw, Store};

use crate::support::{fill, kind_of};

/// A backup at 10, a cursor at 31, the backup restored, 25 appends: whoever went on after 31 saw five of them, and no error.
#[test]
fn a_position_beyond_the_head_is_of_another_history() {
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    fill(&store, "a", 10);
    let beyond = Position::from(31);
    let mut late = store.subscribe(Query::all()).after(beyond);
    assert_eq!(kind_of(late.try_next()), ErrorKind::RolledBack);
    assert_eq!(kind_of(late.try_next()), ErrorKind::RolledBack, "every time");
    store.append("a", &Raw("k", &())).unwrap();
    let mut read = store.read(Query::all()).after(beyond);
    assert_eq!(kind_of(read.next().unwrap()), ErrorKind::RolledBack);
    assert!(read.next().is_none());
}
