//! Makes a frame of an append: where it stands, when it is recorded, and how it continues the chain.
//!
//! Row: log.

use crate::format::{Assigned, FrameHeader, Hash, NewFrameHeader, SegmentHeader, extended_content, link};

use super::scan::LogEnd;

/// An append, ready to become a frame.
pub(crate) struct NewFrame<'a> {
    pub(crate) body: &'a [u8],
    pub(crate) body_checksum: u32,
    /// Of the body.
    pub(crate) content: Hash,
    pub(crate) events: u16,
    pub(crate) key: Option<[u8; 16]>,
    pub(crate) first_version: u64,
    /// A version per event, if there are several entities.
    pub(crate) version_table: &'a [u8],
    pub(crate) now: u64,
}

impl NewFrame<'_> {
    /// Adds the frame that follows `tip` in a segment to `out`, and says where the log stands behind it.
    pub(crate) fn write(
        &self,
        segment: &SegmentHeader,
        tip: &LogEnd,
        durable_end: u32,
        out: &mut Vec<u8>,
    ) -> LogEnd {
        let recorded_at = tip.recorded_at.max(self.now);
        let position = tip.position + 1;
        let flags = NewFrameHeader::flags_for(self.key.is_some(), !self.version_table.is_empty());
        let first_version = self.first_version;
        let assigned = Assigned { position, recorded_at, first_version, events: self.events, flags };
        let content = match self.key {
            Some(key) => extended_content(&self.content, &[key.as_slice(), self.version_table].concat()),
            None => extended_content(&self.content, self.version_table),
        };
        let start = out.len();
        NewFrameHeader {
            body_bytes: narrow(self.body.len()),
            body_checksum: self.body_checksum,
            position_offset: narrow_u64(position - segment.id.first_position),
            durable_end,
            events: self.events,
            flags,
            recorded_at,
            first_version,
            chain: link(&tip.chain, &content, &assigned),
            key: self.key,
            version_table: self.version_table,
        }
        .write(out, segment.frame_mark(tip.offset.into()));
        out.extend_from_slice(self.body);
        let header = FrameHeader::known(&out[start..]);
        LogEnd {
            offset: tip.offset + narrow(header.frame_bytes()),
            position: tip.position + u64::from(self.events),
            recorded_at,
            chain: header.chain(),
            frames: tip.frames + 1,
            events: tip.events + u32::from(self.events),
        }
    }
}

/// Frames are checked against the segment's bounds before they are staged.
pub(super) fn narrow(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a frame fits a segment")
}

fn narrow_u64(offset: u64) -> u32 {
    u32::try_from(offset).expect("a segment holds fewer than 2^32 events")
}
