//! Consumers, reactors and timers: what follows the log and acts on it.
//!
//! Everything durable about them is in the log, as events of the store's own (docs/system-events.md).

mod consumer;
mod reactor;
mod timer;

pub use consumer::{Consumer, ConsumerControl, ConsumerState, ConsumerStatus, Halt};
pub use reactor::{Reaction, Reactor, Retry, StopReason, Worker, WorkerBuilder};
pub use timer::{Timer, TimerStatus, Timers};
