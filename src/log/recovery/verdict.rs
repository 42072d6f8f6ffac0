//! Decides whether the end of the log is a clean end, a torn tail, or damage to acknowledged data.
//!
//! Pure. A torn tail and damage look alike from inside a segment. Evidence of what was durable tells them
//! apart: MARK, and the durable end that every later frame header repeats. SPEC.md "Recovery" has the table
//! and its reasons.

use crate::format::{ALIGN, SEAL_BYTES, SegmentHeader, frame};
use crate::types::to_u64;

/// What is known about the last segment after the walk has ended at `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// The first offset at which no whole frame begins.
    pub(crate) end: u32,
    /// MARK's durable end, if MARK names this segment.
    pub(crate) marked: Option<u32>,
    /// The highest durable end that any whole header behind `end` repeats; 0 without such a header.
    pub(crate) repeated: u32,
    /// The offset behind the last byte that is not zero, if there is one at `end` or later.
    pub(crate) last_nonzero: Option<u32>,
    /// From the segment's header: the most bytes that are ever unsynced, without a seal.
    pub(crate) unsynced_bytes_max: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Only zeros follow.
    Clean,
    /// No writer acknowledged what follows as durable: cut it.
    Torn,
    /// Acknowledged data is damaged or missing: touch nothing.
    Corrupt(&'static str),
}

// Durable bytes are whole. So if the tail is torn, the durable end lies at `end` or before it. At most
// `unsynced_bytes_max` bytes and a seal are ever unsynced, so no byte of a torn tail lies further out. (MARK
// is no such bound: MARK itself may be old.)
//
// | marked > end | repeated > end | bytes beyond the reach of a torn tail | bytes | verdict
// | yes          | any            | any                                   | any   | Corrupt: MARK proves more
// | no           | yes            | any                                   | any   | Corrupt: a later frame proves more
// | no           | no             | yes                                   | yes   | Corrupt: too far out to be torn
// | no           | no             | no                                    | no    | Clean
// | no           | no             | no                                    | yes   | Torn
pub(crate) fn judge(evidence: &Evidence) -> Verdict {
    if evidence.marked.is_some_and(|marked| marked > evidence.end) {
        return Verdict::Corrupt(
            "acknowledged data is damaged or missing: MARK proves that the log went on here",
        );
    }
    if evidence.repeated > evidence.end {
        return Verdict::Corrupt("acknowledged data is damaged: a later append proves that it was durable");
    }
    let Some(last_nonzero) = evidence.last_nonzero else { return Verdict::Clean };
    let seal = to_u64(SEAL_BYTES);
    let reach = u64::from(evidence.end).saturating_add(evidence.unsynced_bytes_max).saturating_add(seal);
    if u64::from(last_nonzero) > reach {
        return Verdict::Corrupt("data is damaged, and too much follows for a torn tail");
    }
    Verdict::Torn
}

/// The highest durable end that a whole frame header repeats. It looks at headers that begin in the first
/// `places` bytes of `bytes`; these lie at `offset` of the segment.
///
/// A header counts even if its body is torn: its durable end was true when the writer built the header.
/// `left` is how many bytes of headers can still follow. Frames do not overlap, so a file with more of them
/// was forged to keep recovery busy. Then the answer is `u32::MAX`, which proves damage.
pub(crate) fn repeated_in(
    header: &SegmentHeader,
    bytes: &[u8],
    offset: u64,
    places: usize,
    left: &mut usize,
) -> u32 {
    let mut repeated = 0;
    for (place, at) in (offset..).step_by(ALIGN).zip((0..bytes.len().min(places)).step_by(ALIGN)) {
        let bytes = &bytes[at..];
        let mark = header.frame_mark(place);
        let Some(needed) = frame::bytes_needed(bytes, mark) else { continue };
        match left.checked_sub(needed) {
            Some(rest) => *left = rest,
            None => return u32::MAX,
        }
        repeated = repeated.max(frame::repeated_durable_end(bytes, mark).unwrap_or(0));
    }
    repeated
}
