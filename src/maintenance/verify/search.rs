//! Finds the next place behind damage from which the log can be followed.
//!
//! Tested by verify/tests.rs and tests/it/corrupt.rs.

use crate::format::{
    ALIGN, FRAME_FIXED_BYTES, FrameHeader, HEADER_BYTES_MAX, KEY_BYTES, bytes_needed, read_header,
};
use crate::log::{LogEnd, Window};
use crate::types::{Error, to_u32, to_u64};

/// Bounds the cost of searching behind the breaks of one segment.
///
/// A forged segment can hold a frame mark at every place, so that each header overlaps the next ones. Headers
/// longer than [`SHORT`] are checked only while that costs a few passes over the segment. Accidental damage
/// stays far below.
pub(super) struct Search {
    /// How many bytes of headers longer than [`SHORT`] may still be checked.
    pub(super) left: u64,
}

/// A header with a key and without a body checksum.
const SHORT: usize = FRAME_FIXED_BYTES + KEY_BYTES;

impl Search {
    pub(super) fn new(window: &Window<'_>) -> Search {
        let longest = to_u64(HEADER_BYTES_MAX);
        Search { left: 16 * u64::from(window.length()) + 64 * longest }
    }

    /// The next place to follow the log from: behind the damaged frame at `tip` if its header is whole, else
    /// before the next whole header.
    pub(super) fn resume(&mut self, window: &mut Window<'_>, tip: &LogEnd) -> Result<Option<LogEnd>, Error> {
        let first_position = window.segment().header.id.first_position;
        let mut offset = tip.offset;
        loop {
            if window.at(offset, FRAME_FIXED_BYTES)?.len() < FRAME_FIXED_BYTES {
                return Ok(None);
            }
            let Some(found) = self.header_at(window, offset)? else {
                offset = offset.saturating_add(to_u32(ALIGN));
                continue;
            };
            let first = first_position.saturating_add(found.position_offset().into());
            if offset == tip.offset {
                return Ok(Some(behind(offset, first, &found, tip)));
            }
            // The chain before this frame cannot be computed backwards. The walk reports that the chain does
            // not continue.
            return Ok(Some(LogEnd { offset, position: first.saturating_sub(1), ..*tip }));
        }
    }

    fn header_at<'a>(
        &mut self,
        window: &'a mut Window<'_>,
        offset: u32,
    ) -> Result<Option<FrameHeader<'a>>, Error> {
        let mark = window.segment().header.frame_mark(offset.into());
        let Some(bytes) = bytes_needed(window.at(offset, FRAME_FIXED_BYTES)?, mark) else { return Ok(None) };
        if bytes > SHORT {
            let cost = to_u64(bytes);
            let Some(left) = self.left.checked_sub(cost) else { return Ok(None) };
            self.left = left;
        }
        Ok(read_header(window.at(offset, bytes)?, mark).ok())
    }
}

/// The end of the log behind a frame at `offset` whose header is whole.
pub(super) fn behind(offset: u32, first: u64, header: &FrameHeader<'_>, before: &LogEnd) -> LogEnd {
    let bytes = u32::try_from(header.frame_bytes()).unwrap_or(u32::MAX);
    LogEnd {
        offset: offset.saturating_add(bytes),
        position: first.saturating_add(header.events().into()).saturating_sub(1),
        recorded_at: header.recorded_at(),
        chain: header.chain(),
        frames: before.frames.saturating_add(1),
        events: before.events.saturating_add(header.events().into()),
    }
}
