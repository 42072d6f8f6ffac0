//! Which thread waits for an append.
//!
//! Row: append.

use std::sync::atomic::{AtomicU64, Ordering};

/// A thread, told from all others of this process. (The standard library's id has no number yet.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller(u64);

impl Caller {
    /// The thread this is called on.
    pub(crate) fn here() -> Caller {
        static LAST: AtomicU64 = AtomicU64::new(0);
        thread_local! {
            static HERE: Caller = Caller(LAST.fetch_add(1, Ordering::Relaxed) + 1);
        }
        HERE.with(|here| *here)
    }

    /// Never 0.
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}
