//! What operators do with a store: verify, compact, erase, back up, restore, fork, roll back, salvage, scrub.
//!
//! May use the inside of the engine and of all rooms above it. The public methods that lead here are in
//! `store/`.

pub(crate) mod backup;
pub(crate) mod checkpoint;
mod compact;
mod copy;
mod directory;
pub(crate) mod erase;
mod extent;
mod record;
mod rewriting;
pub(crate) mod rollback;
mod salvage;
pub(crate) mod scrub;
mod tail_segment;
mod throttle;
mod verify;

pub use backup::CopyReport;
pub use checkpoint::Checkpoint;
pub use compact::GroupBy;
pub(crate) use compact::{CompactionTask, Remainder, Rules, Watcher};
pub(crate) use copy::{CopyOptions, CopyWork};
pub(crate) use directory::describe;
pub use extent::Until;
pub(crate) use rewriting::rebuild_indexes;
pub use rollback::RollbackReport;
pub(crate) use salvage::salvage;
#[cfg(feature = "jsonl")]
pub(crate) use throttle::or_cancelled;
pub(crate) use throttle::{OnProgress, RewriteThrottle};
pub use verify::Verify;
pub(crate) use verify::{verify_files_as, verify_open};
