//! Finds the place behind damage from which the log can be followed again.
//!
//! Row: ops. Tested by verify/tests.rs and tests/it/corrupt.rs.

use crate::format::{
    ALIGN, FRAME_FIXED_BYTES, FrameHeader, HEADER_BYTES_MAX, KEY_BYTES, bytes_needed, read_header,
};
use crate::log::{LogEnd, Window};
use crate::types::{Error, to_u32, to_u64};

/// What looking behind the breaks of one segment may still cost.
///
/// Whoever forges a segment can put a mark at every place, each with a header that claims half a
/// mebibyte of versions: checking all of them would take hours. So long headers are checked only
/// while that costs no more than going through the segment some times. Damage that nobody made on
/// purpose stays far below: a header must be hit in its very length to claim what it does not have.
pub(super) struct Search {
    /// Bytes of headers longer than [`SHORT`] that may still be checked.
    pub(super) left: u64,
}

/// With a key, without versions.
const SHORT: usize = FRAME_FIXED_BYTES + KEY_BYTES;

impl Search {
    pub(super) fn new(window: &Window<'_>) -> Search {
        let longest = to_u64(HEADER_BYTES_MAX);
        Search { left: 16 * u64::from(window.length()) + 64 * longest }
    }

    /// The next place from which the log can be followed: behind the damaged frame at `tip`, if its
    /// header is whole; else before the next whole header.
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
            // A frame's chain cannot be undone, so what came before this one is taken from nowhere;
            // the walk meets it, and reports that the chain does not continue.
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

/// Where the log stands behind a frame at `offset` whose header is whole.
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
