//! For the tests of those who build on annals: given, when, then, and crashes on demand (feature `test-kit`).
//!
//! - [`Given`] tests aggregates and projections: these events were there, this is asked, that is decided.
//! - [`GivenReactor`] tests reactors: this event came, that was appended.
//! - [`Crash`] runs your code on a simulated disk, stops it after every single operation of the
//!   disk, opens the store again, and lets you look whether your promise still holds.
//! - [`events_lock!`](crate::test::events_lock) fails a test when the shape of stored events changes and their version does not.
//! - [`store`] is a store in memory whose clock stands still and whose ids are the same in every run; [`Clock`] is a clock
//!   that moves when it is told to.
//!
//! Everything here says what is wrong by panicking, as assertions do, with a readable difference.
//!
//! Row: app.

// Assertions fail by panicking; so does everything that is asked for in a test.
#![allow(clippy::panic)]

mod clock;
mod crash;
mod difference;
mod given;
mod lock;
mod reacted;

pub use clock::{Clock, store};
pub use crash::{Crash, CrashReport, Said};
pub use given::{Decided, Given};
pub use lock::{Additions, EventsLock};
pub use reacted::{GivenReactor, Reacted};

#[doc(inline)]
pub use crate::__events_lock as events_lock;
