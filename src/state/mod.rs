//! State folded from events: projections, read models, aggregates, decisions, transitions.
//!
//! No code of a user runs under a lock of annals. Nothing here writes to the log but by
//! [`Append`](crate::Append).

mod aggregate;
mod decide;
mod past;
mod projection;
mod read_model;
mod replay;
mod transition;

pub use aggregate::Aggregate;
pub use decide::{Executed, Outcome, Refused};
pub use past::{At, Change, Diff, History, StateAt, diff};
pub use projection::{Freshness, Loaded, Projection};
pub use read_model::{CatchUp, ReadModel, ReadModelStatus};
pub use replay::{Divergence, DivergenceKind, ReplayCheck, ReplayProgress, ReplayReport};
pub use transition::{EntityState, InState, Transition};
