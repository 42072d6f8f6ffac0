//! The numbers and the id of an event: its version in its stream, its position in the store, its id.
//!
//! A version is a count, and a position is an order. They are two types, so that the compiler keeps them apart.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The number of events in a stream, up to and including an event.
///
/// An empty stream is at version 0, and its first event has version 1. The versions of a stream have no gaps. The
/// store never gives a version twice.
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

/// The place of an event in the order of the store: 1, 2, 3 and so on.
///
/// Positions order events. They do not count an application's events, because the store's own events have
/// positions, too. [`Position::START`] (0) stands before the first event. A position is never renumbered, and never
/// used again once it was durable.
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
    /// The position before the first event.
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

            /// The number plus `n`. Panics beyond `u64::MAX`, which no store reaches.
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

/// The version that an append expects of a stream (optimistic concurrency).
///
/// [`Expected::NoStream`] means the same as [`Expected::Exact`] of version 0. `Exact(1)` means that the stream has
/// exactly one event.
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
    /// Any version: the events go to the end of the stream.
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

    /// Whether a stream at version `actual` meets the expectation.
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

/// The id of an event, in the form of a UUID version 7.
///
/// The store derives it from the millisecond at which the event was recorded, its position, and 26 bits of its
/// chain hash. So ids sort by time, no two events share one, and the store finds an event by its id without a
/// map. Imported events may have an id of their own, which is any UUID.
///
/// ```
/// use annals::EventId;
///
/// let id: EventId = "0198f2a0-5c00-7000-8000-0000042ab3c4".parse()?;
/// assert_eq!(id.to_string(), "0198f2a0-5c00-7000-8000-0000042ab3c4");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(Uuid);

const POSITION_MASK: u64 = (1 << 48) - 1;
const CHAIN_MASK: u32 = (1 << 26) - 1;

impl EventId {
    /// The id with these sixteen bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> EventId {
        EventId(Uuid::from_bytes(bytes))
    }

    /// The sixteen bytes, in the order in which they are printed.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Derives an id. SPEC.md, "Event id", has the bits.
    pub(crate) fn derive(recorded_micros: u64, position: Position, chain: &[u8; 32]) -> EventId {
        let chain26 = u32::from_be_bytes([chain[0], chain[1], chain[2], chain[3]]) & CHAIN_MASK;
        let place = position.get() & POSITION_MASK;
        let high = (recorded_micros / 1000) << 16 | 0x7000 | place >> 36;
        let low = 0b10 << 62 | (place & ((1 << 36) - 1)) << 26 | u64::from(chain26);
        EventId(Uuid::from_u64_pair(high, low))
    }

    /// The position in the bits of a derived id. An id that was not derived has any bits there.
    pub(crate) fn claimed_position(self) -> Position {
        let (high, low) = self.0.as_u64_pair();
        Position::from((high & 0xFFF) << 36 | (low >> 26) & ((1 << 36) - 1))
    }
}

impl From<Uuid> for EventId {
    fn from(uuid: Uuid) -> EventId {
        EventId(uuid)
    }
}

impl From<EventId> for Uuid {
    fn from(id: EventId) -> Uuid {
        id.0
    }
}

impl FromStr for EventId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<EventId, uuid::Error> {
        text.parse().map(EventId)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
