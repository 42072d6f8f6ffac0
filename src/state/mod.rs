//! State folded from events: projections, read models, aggregates, decisions.

mod aggregate;
mod decide;
mod executed;
mod projection;
mod transition;

pub use aggregate::Aggregate;
pub use executed::{Executed, Outcome, Refused};
pub use projection::{
    At, CatchUp, Change, Diff, Divergence, DivergenceKind, Freshness, History, Loaded, Projection, ReadModel,
    ReadModelStatus, ReplayCheck, ReplayProgress, ReplayReport, StateAt, diff,
};
pub use transition::{EntityState, InState, Transition};
