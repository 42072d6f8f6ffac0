//! Where a user's event encodes itself: a buffer apart, kept by each thread.
//!
//! Row: append.

use std::cell::Cell;

use crate::types::{Error, EventData};

thread_local! {
    /// What a user's `encode` gets: whatever it does to it, it does to no other event. Kept from one
    /// event to the next, because taking memory for it costs a good part of encoding.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A thread keeps no more than this.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

/// Encodes an event, and appends its payload to `out`. An `encode` that itself puts an append together
/// meets a scratch of its own, and so does one that runs while its thread ends.
pub(super) fn encode_apart<E: EventData + ?Sized>(event: &E, out: &mut Vec<u8>) -> Result<(), Error> {
    let mut scratch = SCRATCH.try_with(Cell::take).unwrap_or_default();
    scratch.clear();
    event.encode(&mut scratch)?;
    out.extend_from_slice(&scratch);
    if scratch.capacity() <= SCRATCH_BYTES_MAX {
        let _ = SCRATCH.try_with(|kept| kept.set(scratch));
    }
    Ok(())
}
