//! The peers, one file each, with how it was set up and why.
//!
//! **The promise was checked** with strace, once per peer (`cargo run ... -- child append PEER DIR synced 200` is what
//! was traced; see [`crate::child`]): in `synced`, each acknowledgement comes after an fdatasync, fsync or
//! io_uring sync of the file that holds the event. Each file says what was seen.

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
