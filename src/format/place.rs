//! Where frames and records lie: what their marks and checksums are bound to, and what the index says of
//! that.

use std::ops::Range;

use super::bytes::{array, checksum, put, u16_at, u32_at, u64_at};
use super::chain::Hash;

/// Where a frame lies. Its mark and the checksums of its records are bound to that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FramePlace {
    /// The salt of the segment.
    pub(crate) salt: u64,
    /// The offset of the frame in the segment.
    pub(crate) offset: u64,
    /// The first position that the segment can hold.
    pub(crate) first_position: u64,
}

impl FramePlace {
    pub(crate) fn mark(&self) -> u64 {
        self.salt ^ self.offset
    }
}

/// Where a record lies, and what its frame says of it: 72 bytes that are nowhere stored. The checksum of the
/// record covers them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordPlace {
    pub(crate) salt: u64,
    /// The offset of the record in the segment.
    pub(crate) offset: u32,
    /// The index in the append, and how many events the append has.
    pub(crate) index: u16,
    pub(crate) events: u16,
    pub(crate) position: u64,
    pub(crate) version: u64,
    pub(crate) recorded_at: u64,
    pub(crate) chain: Hash,
}

impl RecordPlace {
    /// The checksum of the place. The checksum of a record is that of its bytes XOR this one.
    pub(crate) fn checksum(&self) -> u32 {
        let mut place = [0; 72];
        put(&mut place, 0, &self.salt.to_le_bytes());
        put(&mut place, 8, &self.offset.to_le_bytes());
        put(&mut place, 12, &self.index.to_le_bytes());
        put(&mut place, 14, &self.events.to_le_bytes());
        put(&mut place, 16, &self.position.to_le_bytes());
        put(&mut place, 24, &self.version.to_le_bytes());
        put(&mut place, 32, &self.recorded_at.to_le_bytes());
        put(&mut place, 40, &self.chain);
        checksum(&[&place])
    }
}

/// What a frame's header says of its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BodyLayout {
    pub(crate) events: u16,
    /// Whether the version of each event stands in its record: the append has events of several entities.
    pub(crate) has_versions: bool,
}

impl BodyLayout {
    /// The index of an event in a frame whose first event has the ordinal `first`; `None` if the event lies
    /// elsewhere.
    pub(crate) fn index_of(&self, first: u32, ordinal: u32) -> Option<u16> {
        let index = u16::try_from(ordinal.checked_sub(first)?).ok()?;
        (index < self.events).then_some(index)
    }
}

/// A frame of at least this many bytes has an entry of its own, and its events are found by the offsets of
/// their records.
pub(crate) const LARGE_FRAME_BYTES_MIN: usize = 4097;

/// What a reader must know of a large frame to read one of its records alone. None of it is believed: the
/// checksum of the record covers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LargeFrame {
    pub(crate) offset: u32,
    pub(crate) bytes: u32,
    /// The ordinal of its first event.
    pub(crate) first: u32,
    pub(crate) events: u16,
    /// Whether the versions stand in its records.
    pub(crate) has_versions: bool,
    /// Whether an event of it was imported with an id. Then an event that leaves out its correlation, or
    /// names a cause in its append, cannot be read alone.
    pub(crate) has_foreign_ids: bool,
    pub(crate) recorded_at: u64,
    pub(crate) first_version: u64,
    pub(crate) chain: Hash,
}

/// The offset of each field of a large frame's entry.
const LARGE_BYTES_AT: usize = 4;
const LARGE_EVENTS_AT: usize = LargeFrame::FIRST_AT + 4;
const LARGE_FLAGS_AT: usize = LARGE_EVENTS_AT + 2;
const LARGE_RECORDED_AT_AT: usize = LARGE_FLAGS_AT + 2;
const LARGE_FIRST_VERSION_AT: usize = LARGE_RECORDED_AT_AT + 8;
const LARGE_CHAIN_AT: usize = LARGE_FIRST_VERSION_AT + 8;

const LARGE_HAS_VERSIONS: u16 = 1;
const LARGE_HAS_FOREIGN_IDS: u16 = 1 << 1;

impl LargeFrame {
    pub(crate) const BYTES: usize = LARGE_CHAIN_AT + size_of::<Hash>();
    /// The offset of the ordinal in an entry, for searches.
    pub(crate) const FIRST_AT: usize = LARGE_BYTES_AT + 4;

    pub(crate) fn write(&self) -> [u8; LargeFrame::BYTES] {
        let mut flags = 0;
        if self.has_versions {
            flags |= LARGE_HAS_VERSIONS;
        }
        if self.has_foreign_ids {
            flags |= LARGE_HAS_FOREIGN_IDS;
        }
        let mut out = [0; LargeFrame::BYTES];
        put(&mut out, 0, &self.offset.to_le_bytes());
        put(&mut out, LARGE_BYTES_AT, &self.bytes.to_le_bytes());
        put(&mut out, LargeFrame::FIRST_AT, &self.first.to_le_bytes());
        put(&mut out, LARGE_EVENTS_AT, &self.events.to_le_bytes());
        put(&mut out, LARGE_FLAGS_AT, &flags.to_le_bytes());
        put(&mut out, LARGE_RECORDED_AT_AT, &self.recorded_at.to_le_bytes());
        put(&mut out, LARGE_FIRST_VERSION_AT, &self.first_version.to_le_bytes());
        put(&mut out, LARGE_CHAIN_AT, &self.chain);
        out
    }

    /// Reads an entry. Every value is possible: the checksum of the record decides.
    pub(crate) fn read(bytes: &[u8; LargeFrame::BYTES]) -> LargeFrame {
        let flags = u16_at(bytes, LARGE_FLAGS_AT);
        LargeFrame {
            offset: u32_at(bytes, 0),
            bytes: u32_at(bytes, LARGE_BYTES_AT),
            first: u32_at(bytes, LargeFrame::FIRST_AT),
            events: u16_at(bytes, LARGE_EVENTS_AT),
            has_versions: flags & LARGE_HAS_VERSIONS != 0,
            has_foreign_ids: flags & LARGE_HAS_FOREIGN_IDS != 0,
            recorded_at: u64_at(bytes, LARGE_RECORDED_AT_AT),
            first_version: u64_at(bytes, LARGE_FIRST_VERSION_AT),
            chain: array(bytes, LARGE_CHAIN_AT),
        }
    }

    /// How its body is laid out.
    pub(crate) fn layout(&self) -> BodyLayout {
        BodyLayout { events: self.events, has_versions: self.has_versions }
    }

    /// The bytes of the frame in its segment.
    pub(crate) fn range(&self) -> Range<u32> {
        self.offset..self.offset.saturating_add(self.bytes)
    }

    /// Whether an event is one of this frame's.
    pub(crate) fn holds(&self, ordinal: u32) -> bool {
        self.layout().index_of(self.first, ordinal).is_some()
    }
}
