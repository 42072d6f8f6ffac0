//! The peers, one file each, with how it was set up and why.
//!
//! **The promise was checked** with strace, once per peer, on `child append PEER DIRECTORY synced 30` (see
//! [`crate::child`]). In `synced`, each of 30 acknowledgements came after an fdatasync or fsync of the file
//! that holds the event. Each file says what was seen.
//!
//! **Where this is unfair**, and is not mended:
//!
//! - SQLite, fjall and redb have no group commit; an application could put a queue in front of them and
//!   commit for many callers at once. They stand here as they come.
//! - rusqlite's bundled SQLite syncs with fsync; compiled to use fdatasync (see `sqlite.rs`), its W1 was the
//!   same here.
//! - fjall and redb keep the payload under (entity, version) and look it up by position: their streams are
//!   fast and their replays slow. The other way round W5 and W6 would change places. fjall compresses (LZ4),
//!   and the sample compresses well.
//! - redb's buffered does not survive kill -9, the others' does: its W4 is better than its promise.
//! - annals, tephra, batpak and UmaDB check a checksum in everything they read, SQLite and redb in nothing,
//!   fjall when it loads a block.
//! - annals and batpak keep more about an event than the others (ids, causes, time, a hash chain), and pay
//!   for that in bytes.
//! - UmaDB's follower is woken by a new head and does not read the event, the others do. It has a page cache
//!   of 512 MB where it is read, which its default has not.
//! - tephra has two sizes of segments, each where it is better with it.
//! - okaywal forgets what it recycles; keeping it would cost it new blocks.
//! - A power cut may take different buffered appends. Of annals these are the last 100 ms, of batpak the last
//!   1,000 events. Of SQLite they are those since the last checkpoint, of fjall those since its memory table
//!   was last full.
//! - Everything is in the page cache. No peer is measured with a cold disk, or with more events than memory.

mod annals;
mod batpak;
mod fjall;
mod heads;
mod okaywal;
mod redb;
mod sqlite;
mod tephra;
mod umadb;

use crate::peer::{Class, Kind};

/// The name of what is compared.
pub const OURS: &str = "annals";

/// All peers, in the order of the table.
pub const ALL: [Kind; 8] = [
    Kind {
        name: "batpak",
        package: "batpak",
        class: Class::EventStore,
        is_readable: true,
        open: batpak::open,
        keeps_states: true,
    },
    Kind {
        name: "tephra",
        package: "tephra",
        class: Class::EventStore,
        is_readable: true,
        open: tephra::open,
        keeps_states: false,
    },
    Kind {
        name: "umadb",
        package: "umadb-core",
        class: Class::EventStore,
        is_readable: true,
        open: umadb::open,
        keeps_states: false,
    },
    Kind {
        name: "sqlite",
        package: "rusqlite",
        class: Class::Database,
        is_readable: true,
        open: sqlite::open,
        keeps_states: false,
    },
    Kind {
        name: "fjall",
        package: "fjall",
        class: Class::Database,
        is_readable: true,
        open: fjall::open,
        keeps_states: false,
    },
    Kind {
        name: "redb",
        package: "redb",
        class: Class::Database,
        is_readable: true,
        open: redb::open,
        keeps_states: false,
    },
    Kind {
        name: "okaywal",
        package: "okaywal",
        class: Class::Ceiling,
        is_readable: false,
        open: okaywal::open,
        keeps_states: false,
    },
    Kind {
        name: "annals",
        package: "annals",
        class: Class::Ours,
        is_readable: true,
        open: annals::open,
        keeps_states: true,
    },
];

/// The peer of this name.
pub fn named(name: &str) -> Option<&'static Kind> {
    ALL.iter().find(|kind| kind.name == name)
}
