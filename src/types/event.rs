//! What can be appended, and what caused it.
//!
//! Row: words.

use std::time::{Duration, SystemTime};

use crate::types::error::Error;
use crate::types::event_id::EventId;

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
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no event",
    label = "this cannot be appended",
    note = "derive annals::DomainEvent for it, or give it a kind by hand: annals::Raw(\"account.opened\", &value)"
)]
pub trait EventData {
    /// The stable, dotted name of the event's type (`order.placed`), 1 to 255 bytes. It is what
    /// is stored: renaming the Rust type must not change it.
    fn kind(&self) -> &str;

    /// The version of the payload's shape, 1 unless the shape has changed since it was first stored.
    fn schema_version(&self) -> u16 {
        1
    }

    /// Appends the payload to `out`. annals' own types write MessagePack with field names. The bytes are stored as
    /// they are: whether they can be read is the implementation's concern.
    ///
    /// # Errors
    ///
    /// Whatever keeps the value from being encoded; nothing is appended to the store then.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error>;
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
