//! What operators do with a store.
//!
//! Row: ops. May use the inside of the engine.

pub(crate) mod backup;
pub(crate) mod checkpoint;
mod compact;
mod describe;
mod ending;
pub(crate) mod erase;
mod history;
mod image;
mod ledger;
mod quarantine;
mod reindex;
pub(crate) mod restore;
mod rewriting;
pub(crate) mod rollback;
mod salvage;
pub(crate) mod scrub;
mod target;
mod throttle;
mod verify;

pub use backup::CopyReport;
pub use checkpoint::Checkpoint;
pub use compact::GroupBy;
pub(crate) use compact::{Leaves, Rules, Task, Watcher};
pub(crate) use describe::describe;
pub use history::Until;
pub(crate) use image::Work;
pub(crate) use reindex::reindex;
pub use rollback::RollbackReport;
pub(crate) use salvage::salvage;
pub(crate) use throttle::{Tell, Throttle};
pub use verify::Verify;
pub(crate) use verify::{verify_files_as, verify_open};
