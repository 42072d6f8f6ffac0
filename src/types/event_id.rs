//! What identifies an event.
//!
//! Row: words.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::types::version::Position;

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
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
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
