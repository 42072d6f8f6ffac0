//! The records of a frame's body, one behind the other, and zeros up to the alignment.
//!
//! Row: bytes.

use crate::format::{ALIGN, Damage, sum, u16_at, u32_at};
use crate::types::Cause;

use super::{CAUSE_IN_APPEND, CAUSE_MASK, CAUSE_SHIFT, LONG, PREFIX, Record, read, wide};

/// The records of a body, in order: exactly `events` of them, then zeros up to the alignment.
pub(crate) fn records(body: &[u8], events: u16) -> impl Iterator<Item = Result<Record<'_>, Damage>> {
    let mut start = 0;
    let mut left = events;
    std::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        let record = read_in(body, start, events).and_then(|record| {
            start = sum([start, record.bytes.len()]);
            if left == 0 {
                ends_well(body, start)?
            }
            Ok(record)
        });
        if record.is_err() {
            left = 0;
        }
        Some(record)
    })
}

/// Where the records of a body begin, by looking at their lengths only: exactly `events` of them.
pub(crate) fn lay_out(body: &[u8], events: u16, starts: &mut Vec<usize>) -> Result<(), Damage> {
    starts.clear();
    let mut start = 0;
    for _ in 0..events {
        starts.push(start);
        let prefix = body.get(start..).and_then(|rest| rest.first_chunk::<PREFIX>()).ok_or(LONG)?;
        start = sum([start, PREFIX, u16_at(prefix, 4).into(), wide(u32_at(prefix, 0))]);
    }
    ends_well(body, start)
}

/// Where the record at `index` of a checked body begins, by looking at the lengths of those before it.
pub(crate) fn start_of(body: &[u8], index: u16) -> Option<usize> {
    let mut start = 0;
    for _ in 0..index {
        let prefix = body.get(start..)?.first_chunk::<PREFIX>()?;
        start = sum([start, PREFIX, u16_at(prefix, 4).into(), wide(u32_at(prefix, 0))]);
    }
    Some(start)
}

/// Reads and checks the record at `start` of the body of an append of `events`.
#[inline(always)]
pub(crate) fn read_in(body: &[u8], start: usize, events: u16) -> Result<Record<'_>, Damage> {
    let record = read(body, start)?;
    if record.shape.flags & CAUSE_MASK == CAUSE_IN_APPEND << CAUSE_SHIFT
        && let Some(Cause::InAppend(index)) = record.cause()
        && index >= events
    {
        return Err(Damage::Bad("an event's cause is one that its append does not have"));
    }
    Ok(record)
}

/// That nothing but zeros for the alignment follows the last record.
#[inline(always)]
pub(crate) fn ends_well(body: &[u8], end: usize) -> Result<(), Damage> {
    let rest = body.get(end..).ok_or(LONG)?;
    const MORE: Damage = Damage::Bad("a frame's body holds more than its events");
    let used = ALIGN.checked_sub(rest.len()).filter(|used| *used > 0).ok_or(MORE)?;
    // The last eight bytes at once: one by one they would be a tenth of what looking at an event costs.
    let last = body.last_chunk().map_or(0, |last| u64::from_le_bytes(*last));
    let padding = u32::try_from(used).ok().and_then(|used| last.checked_shr(used.saturating_mul(8)));
    if padding.unwrap_or(0) == 0 { Ok(()) } else { Err(MORE) }
}
