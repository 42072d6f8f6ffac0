//! What comes of a decision: applied, applied before, nothing, or refused.
//!
//! Row: app. Uses nothing a user could not use.

use std::fmt;
use std::ops::Deref;

use crate::event::Appended;
use crate::state::projection::Loaded;
use crate::types::Error;

/// What a decision came to, and the state after it. Derefs to the state.
#[derive(Clone)]
pub struct Executed<S> {
    pub(crate) outcome: Outcome,
    pub(crate) receipt: Option<Appended>,
    pub(crate) conflicts: u32,
    pub(crate) state: Loaded<S>,
}

/// How a decision ended that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Its events were appended.
    Applied,
    /// The append with its key is already there; nothing was decided, and nothing appended.
    AlreadyApplied,
    /// It was decided that nothing happens; nothing was appended, and its key is not remembered.
    Nothing,
}

impl<S> Executed<S> {
    /// How it ended.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The receipt of its events, or of those the key belongs to; `None` if there are none.
    #[must_use]
    pub fn receipt(&self) -> Option<&Appended> {
        self.receipt.as_ref()
    }

    /// How often something came in between, so that it was decided anew.
    #[must_use]
    pub fn conflicts(&self) -> u32 {
        self.conflicts
    }

    /// The state: with its own events and none later if it was [`Outcome::Applied`], else as it is now.
    #[must_use]
    pub fn state(&self) -> &Loaded<S> {
        &self.state
    }

    /// The state, to keep.
    #[must_use]
    pub fn into_state(self) -> Loaded<S> {
        self.state
    }
}

impl<S> Deref for Executed<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.state
    }
}

/// Without the state, which need not be printable.
impl<S> fmt::Debug for Executed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executed")
            .field("outcome", &self.outcome)
            .field("receipt", &self.receipt)
            .field("conflicts", &self.conflicts)
            .finish_non_exhaustive()
    }
}

/// Why a decision came to nothing.
///
/// ```
/// use annals::Refused;
///
/// #[derive(Debug)]
/// struct NotEnough { missing: u64 }
///
/// fn answer(refused: &Refused<NotEnough>) -> String {
///     match refused {
///         Refused::Domain(NotEnough { missing }) => format!("you lack {missing} cents"),
///         Refused::Store(error) => format!("try later: {error}"),
///     }
/// }
/// assert_eq!(answer(&Refused::Domain(NotEnough { missing: 5 })), "you lack 5 cents");
/// ```
#[derive(Clone, Debug)]
pub enum Refused<E> {
    /// The decision says no. Nothing was written.
    Domain(E),
    /// The store says no; whether something was written is told by [`Error::is_definite`].
    Store(Error),
}

impl<E> Refused<E> {
    /// The decision's own error.
    #[must_use]
    pub fn domain(&self) -> Option<&E> {
        match self {
            Refused::Domain(error) => Some(error),
            Refused::Store(_) => None,
        }
    }

    /// The store's error.
    #[must_use]
    pub fn store(&self) -> Option<&Error> {
        match self {
            Refused::Domain(_) => None,
            Refused::Store(error) => Some(error),
        }
    }
}

impl<E> From<Error> for Refused<E> {
    fn from(error: Error) -> Refused<E> {
        Refused::Store(error)
    }
}

impl<E: fmt::Display> fmt::Display for Refused<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Domain(error) => error.fmt(f),
            Refused::Store(error) => error.fmt(f),
        }
    }
}

/// Whatever the domain's errors are, if they can be read: a text will do. So what refuses for reasons of its own has no
/// source to give.
impl<E: fmt::Debug + fmt::Display> std::error::Error for Refused<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Refused::Domain(_) => None,
            Refused::Store(error) => error.source(),
        }
    }
}
