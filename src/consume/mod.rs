//! What follows the log and acts: consumers, reactors, timers.

mod consumer;
mod reactor;
mod timer;

pub use consumer::{Consumer, ConsumerControl, ConsumerState, ConsumerStatus, Halt};
pub use reactor::{Reaction, Reactor, Retry, StopReason, Worker, WorkerBuilder};
pub use timer::{Timer, TimerStatus, Timers};
