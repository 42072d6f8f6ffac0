//! State folded from events: projections, read models, aggregates, decisions.

mod aggregate;
mod decide;
mod executed;
mod projection;
mod transition;

pub use aggregate::Aggregate;
pub use executed::{Executed, Outcome, Refused};
pub use projection::{
    At, CatchUp, Change, Departure, Diff, Freshness, History, Loaded, Moment, Parted, Projection, ReadModel,
    ReadModelStatus, ReplayCheck, ReplayProgress, ReplayReport, diff,
};
pub use transition::{EntityState, InState, Transition};
