//! What operators do with a store: verify, compact, erase, back up, restore, fork, roll back, salvage, scrub.
//!
//! May use the inside of the engine and of all rooms above it. The public methods that lead here are in
//! `store/`.

pub(crate) mod backup;
mod compact;
mod copy;
mod directory;
pub(crate) mod erase;
mod extent;
mod record;
mod rewriting;
mod salvage;
pub(crate) mod scrub;
mod throttle;
mod verify;

pub use backup::{CopyReport, RollbackReport};
pub use compact::GroupBy;
pub(crate) use compact::{CompactionTask, Remainder, Rules, Watcher};
pub(crate) use copy::{CopyOptions, CopyWork};
pub(crate) use directory::describe;
pub use extent::Until;
pub use record::Checkpoint;
pub(crate) use record::{checkpoints, take_checkpoint};
pub(crate) use rewriting::rebuild_indexes;
pub(crate) use salvage::salvage;
#[cfg(feature = "jsonl")]
pub(crate) use throttle::or_cancelled;
pub(crate) use throttle::{OnProgress, RewriteThrottle};
pub use verify::Verify;
pub(crate) use verify::{verify_files_as, verify_open};
