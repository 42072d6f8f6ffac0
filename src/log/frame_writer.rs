//! Makes a frame of an append: assigns its position and time, and continues the hash chain.

use crate::format::{Assigned, FrameHeader, Hash, NewFrameHeader, SegmentHeader, extended_content, link};
use crate::types::to_u32;

use super::cursor::LogEnd;

/// An append, ready to become a frame.
pub(crate) struct NewFrame<'a> {
    /// The records, bound to no place, and the zeros behind them.
    pub(crate) body: &'a [u8],
    /// The content hash of the body.
    pub(crate) content: Hash,
    pub(crate) events: u16,
    pub(crate) key: Option<[u8; 16]>,
    pub(crate) first_version: u64,
    /// A version for each event, 8 bytes each, if the append addresses several entities; else empty.
    pub(crate) versions: &'a [u8],
    /// The writer's clock, in microseconds since 1970.
    pub(crate) now: u64,
}

impl NewFrame<'_> {
    /// Appends to `out` the frame that continues the log at `end`. Returns the place behind the frame.
    pub(crate) fn write(
        &self,
        segment: &SegmentHeader,
        end: &LogEnd,
        durable_end: u32,
        out: &mut Vec<u8>,
    ) -> LogEnd {
        // A clock that was set back must not put a frame before the one in front of it: readers refuse that.
        let recorded_at = end.recorded_at.max(self.now);
        let position = end.position + 1;
        let position_offset = u32::try_from(position - segment.id.first_position);
        let flags = NewFrameHeader::flags_for(self.key.is_some(), !self.versions.is_empty());
        let first_version = self.first_version;
        let assigned = Assigned { position, recorded_at, first_version, events: self.events, flags };
        let content = match self.key {
            Some(key) => extended_content(&self.content, &[key.as_slice(), self.versions].concat()),
            None => extended_content(&self.content, self.versions),
        };
        let start = out.len();
        NewFrameHeader {
            position_offset: position_offset.expect("a segment holds fewer than 2^32 events"),
            durable_end,
            events: self.events,
            flags,
            recorded_at,
            first_version,
            chain: link(&end.chain, &content, &assigned),
            key: self.key,
        }
        .write(out, &segment.frame_place(end.offset), self.body, self.versions);
        let header = FrameHeader::known(&out[start..]);
        LogEnd {
            // The log checks a frame against the segment's limits before it stages the frame.
            offset: end.offset + to_u32(header.frame_bytes()),
            position: end.position + u64::from(self.events),
            recorded_at,
            chain: header.chain(),
            frames: end.frames + 1,
            events: end.events + u32::from(self.events),
        }
    }
}
