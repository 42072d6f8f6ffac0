//! Where frames and records lie: what their marks and checksums are bound to.

use super::bytes::{checksum, put};
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
