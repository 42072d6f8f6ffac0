//! What can be appended, what identifies an event, and what caused it.
//!
//! Row: words.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use crate::error::Error;
use crate::version::Position;

/// Something that can be appended: it names its kind and writes its payload.
///
/// [`Raw`](crate::Raw) implements it for any serde value and a kind given by hand.
///
/// ```
/// use annals::{Error, EventData, Raw};
/// use serde::Serialize;
///
/// #[derive(Serialize)]
/// struct Deposited { cents: u64 }
///
/// impl EventData for Deposited {
///     fn kind(&self) -> &str { "account.deposited" }
///     fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> { Raw(self.kind(), self).encode(out) }
/// }
///
/// let store = annals::Store::in_memory()?;
/// store.append("account:alice", &Deposited { cents: 500 })?;
/// # Ok::<(), Error>(())
/// ```
pub trait EventData {
    /// The stable, dotted name of the event's type (`order.placed`), 1 to 255 bytes. It is what
    /// is stored: renaming the Rust type must not change it.
    fn kind(&self) -> &str;

    /// The version of the payload's shape, 1 unless the shape has changed since it was first stored.
    fn schema_version(&self) -> u16 {
        1
    }

    /// Appends the payload to `out`. annals' own types write MessagePack with field names.
    ///
    /// # Errors
    ///
    /// Whatever keeps the value from being encoded; nothing is appended to the store then.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error>;
}

/// The identity of an event, in the shape of a UUID version 7.
///
/// The store derives it from what it knows of an event: the millisecond it was recorded, its
/// position, and 26 bits of its chain hash. So it sorts by time, is found without a map, and is
/// never shared by two events. Imported events may bring an id of their own (any UUID).
///
/// ```
/// use annals::EventId;
///
/// let id: EventId = "0198f2a0-5c00-7000-8000-0000042ab3c4".parse()?;
/// assert_eq!(id.to_string(), "0198f2a0-5c00-7000-8000-0000042ab3c4");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Uuid);

const POSITION_MASK: u64 = (1 << 48) - 1;
const CHAIN_MASK: u32 = (1 << 26) - 1;

impl EventId {
    /// The id whose sixteen bytes these are.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> EventId {
        EventId(Uuid::from_bytes(bytes))
    }

    /// The sixteen bytes, in the order they are printed.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Derives an id; SPEC.md "Event id" has the bits.
    pub(crate) fn derive(recorded_micros: u64, position: Position, chain: &[u8; 32]) -> EventId {
        let chain26 = u32::from_be_bytes([chain[0], chain[1], chain[2], chain[3]]) & CHAIN_MASK;
        let place = position.get() & POSITION_MASK;
        let high = (recorded_micros / 1000) << 16 | 0x7000 | place >> 36;
        let low = 0b10 << 62 | (place & ((1 << 36) - 1)) << 26 | u64::from(chain26);
        EventId(Uuid::from_u64_pair(high, low))
    }

    /// The position a derived id claims to have; says nothing about whether it was derived.
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

/// What brought an event about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The event with this id.
    Event(EventId),
    /// The event at this index (from 0) of the same append.
    InAppend(u16),
    /// The event before this one in its stream, whichever it turned out to be.
    PreviousInStream,
}

/// Microseconds since 1970, as stored.
///
/// Times before 1970 are negative; a time outside 290,000 years of it is cut to that range.
pub(crate) fn micros_of(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
    }
}

/// The time at `micros` microseconds since 1970.
pub(crate) fn time_of(micros: i64) -> SystemTime {
    let distance = Duration::from_micros(micros.unsigned_abs());
    let time = if micros < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}
