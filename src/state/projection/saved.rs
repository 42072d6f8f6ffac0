//! A state as it is saved: its fingerprint, and its bytes.
//!
//! Code that knows other fields reads old bytes without an error where serde fills a field in, or passes one
//! over. What it makes of them has another fingerprint then than the state that was saved, and is not taken.
//! Row: app.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Projection;
use crate::event::codec;

/// Appends a state; `None` if it does not encode, or its code panics.
pub(super) fn pack<P: Projection>(state: &P, out: &mut Vec<u8>) -> Option<()> {
    let pack = || {
        let at = out.len();
        out.extend_from_slice(&[0; 8]);
        // First, as it refuses a state that is nested too deeply to be walked through.
        codec::encode(state, out).ok()?;
        out[at..at + 8].copy_from_slice(&codec::print_of(state)?.to_le_bytes());
        Some(())
    };
    catch_unwind(AssertUnwindSafe(pack)).ok().flatten()
}

/// The state that was packed; `None` if today's code reads another one from it, or none.
pub(super) fn unpack<P: Projection>(bytes: &[u8]) -> Option<P> {
    let (print, bytes) = bytes.split_first_chunk()?;
    let unpack = || {
        let state: P = codec::decode(bytes).ok()?;
        let is_same = codec::print_of(&state)? == u64::from_le_bytes(*print);
        if !is_same {
            tracing::debug!(projection = P::NAME, "a saved state is of other code, and is folded anew");
        }
        is_same.then_some(state)
    };
    catch_unwind(unpack).ok().flatten()
}
