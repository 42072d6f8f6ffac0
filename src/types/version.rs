//! Where an event stands: its version in its stream, its position in the store.
//!
//! A version is a **count**, a position an **order mark**; keeping them two types keeps them apart.
//! Row: words. Touches nothing.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How many events a stream holds, up to and including an event.
///
/// An empty stream is at version 0, its first event has version 1. Versions of a stream have no
/// gaps, and a version, once given, is never given again.
///
/// ```
/// use annals::Version;
///
/// assert_eq!(Version::EMPTY.get(), 0);
/// assert_eq!("7".parse::<Version>().unwrap(), Version::from(7));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(u64);

/// An event's place in the one order of the store: 1, 2, 3 and so on.
///
/// Positions order events; they do not count anybody's events, because events of the system take
/// positions too. [`Position::START`] (0) stands before the first event: "nothing yet". A position
/// is never renumbered, and never used again once it was durable.
///
/// ```
/// use annals::Position;
///
/// assert!(Position::START < Position::from(1));
/// assert_eq!(Position::from(42).to_string(), "42");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(u64);

impl Version {
    /// The version of a stream that has no events.
    pub const EMPTY: Version = Version(0);
}

impl Position {
    /// Before the first event.
    pub const START: Position = Position(0);
}

macro_rules! counter {
    ($name:ident) => {
        impl $name {
            /// The plain number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The number that comes `n` later.
            ///
            /// Panics beyond `u64::MAX`, which no store reaches.
            #[must_use]
            pub(crate) const fn plus(self, n: u64) -> $name {
                $name(self.0.checked_add(n).expect("64-bit counters do not run out"))
            }
        }

        impl From<u64> for $name {
            fn from(n: u64) -> $name {
                $name(n)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIntError;

            fn from_str(text: &str) -> Result<$name, ParseIntError> {
                text.parse().map($name)
            }
        }
    };
}

counter!(Version);
counter!(Position);

/// What an append requires of a stream before it may add to it (optimistic concurrency).
///
/// [`Expected::NoStream`] and [`Expected::Exact`] of version 0 ask the same question;
/// `Exact(1)` asks another: that exactly one event is there.
///
/// ```
/// use annals::{Append, Expected, Raw, Store};
///
/// let store = Store::in_memory()?;
/// let opened = Append::to("account:alice").event(&Raw("account.opened", &())).expect(Expected::NoStream);
/// opened.commit(&store)?;
///
/// let again = Append::to("account:alice").event(&Raw("account.opened", &())).expect(Expected::NoStream);
/// let refused = again.commit(&store).unwrap_err();
/// assert_eq!(refused.conflict().unwrap().actual.get(), 1);
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// No requirement: the events go to the end, whatever is there.
    #[default]
    Any,
    /// The stream has no events.
    NoStream,
    /// The stream has at least one event.
    StreamExists,
    /// The stream is at exactly this version.
    Exact(Version),
}

impl Expected {
    /// [`Expected::Exact`] from a plain number.
    #[must_use]
    pub const fn exact(version: u64) -> Expected {
        Expected::Exact(Version(version))
    }

    /// Whether a stream at `actual` fulfils the requirement.
    #[must_use]
    pub fn accepts(self, actual: Version) -> bool {
        match self {
            Expected::Any => true,
            Expected::NoStream => actual == Version::EMPTY,
            Expected::StreamExists => actual > Version::EMPTY,
            Expected::Exact(version) => actual == version,
        }
    }
}

impl From<Version> for Expected {
    fn from(version: Version) -> Expected {
        Expected::Exact(version)
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Any => f.write_str("any version"),
            Expected::NoStream => f.write_str("no stream"),
            Expected::StreamExists => f.write_str("an existing stream"),
            Expected::Exact(version) => write!(f, "version {version}"),
        }
    }
}
