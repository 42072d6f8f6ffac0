//! The test kit for applications (feature `test-kit`): given, when, then; crashes on demand; a lock of stored
//! events.
//!
//! - [`Given`] tests aggregates and projections: given these events, when this command comes, then these
//!   events are decided.
//! - [`GivenReactor`] tests reactors: when this event comes, then these events are appended.
//! - [`Crash`] runs your code on a simulated disk, crashes it after each operation of the disk, opens the
//!   store again, and calls your check.
//! - [`events_lock!`](crate::test::events_lock) fails a test if the shape of stored events changes and their
//!   version does not.
//! - [`store`] makes a store in memory whose clock stands still and whose ids are the same in each run.
//!   [`Clock`] is a clock that a test moves.
//!
//! A failed check panics, as assertions do, with a readable difference.

// A failed check panics, as an assertion does.
#![allow(clippy::panic)]

mod clock;
mod crash;
mod difference;
mod given;
mod lock;

pub use clock::{Clock, store};
pub use crash::{Crash, CrashReport, Said};
pub use given::{Decided, Given, GivenReactor, Reacted};
pub use lock::{Additions, EventsLock};

#[doc(inline)]
pub use crate::__events_lock as events_lock;
