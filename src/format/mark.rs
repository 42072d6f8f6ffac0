//! MARK: how much is proven durable, in two slots written in turn.
//!
//! A slot is written only after a sync has returned, so it never runs ahead of durable data. It is
//! evidence against silent loss, never the authority for where the log ends.
//! SPEC.md "MARK". Row: bytes.

use super::chain::Hash;
use super::segment::SegmentId;
use super::{Damage, SEQUENCE_MAX, array, checksum, preamble, put, u32_at, u64_at};

pub(crate) const NAME: &str = "MARK";
/// The second slot begins here: another sector, another page.
pub(crate) const SLOT_STRIDE: u64 = 4096;
/// The whole file.
pub(crate) const FILE_BYTES: usize = 8192;

const MAGIC: &[u8; 8] = b"ANNALMRK";
const CLEAN: u32 = 1;
/// Preamble 0, store id 40, sequence 56, segment 64, generation 72, durable end 76, position 80,
/// chain 88, flags 120, checksum 124.
pub(crate) const MARK_SLOT_BYTES: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) store_id: [u8; 16],
    /// One more at every write; the higher valid slot counts.
    pub(crate) sequence: u64,
    pub(crate) segment: SegmentId,
    /// Everything in that segment before this offset was synced.
    pub(crate) durable_end: u32,
    /// The last position before it, and the chain there.
    pub(crate) position: u64,
    pub(crate) chain: Hash,
    /// Written by close: nothing follows.
    pub(crate) clean: bool,
}

impl Mark {
    /// Where this slot goes.
    pub(crate) fn offset(&self) -> u64 {
        if self.sequence.is_multiple_of(2) { 0 } else { SLOT_STRIDE }
    }

    pub(crate) fn write(&self) -> [u8; MARK_SLOT_BYTES] {
        let mut out = [0; MARK_SLOT_BYTES];
        preamble::write(&mut out, MAGIC);
        put(&mut out, 40, &self.store_id);
        put(&mut out, 56, &self.sequence.to_le_bytes());
        put(&mut out, 64, &self.segment.first_position.to_le_bytes());
        put(&mut out, 72, &self.segment.generation.to_le_bytes());
        put(&mut out, 76, &self.durable_end.to_le_bytes());
        put(&mut out, 80, &self.position.to_le_bytes());
        put(&mut out, 88, &self.chain);
        put(&mut out, 120, &if self.clean { CLEAN } else { 0 }.to_le_bytes());
        let crc = checksum(&[&out[..124]]);
        put(&mut out, 124, &crc.to_le_bytes());
        out
    }

    /// Reads one slot.
    pub(crate) fn read(bytes: &[u8]) -> Result<Mark, Damage> {
        let bytes = bytes.first_chunk::<MARK_SLOT_BYTES>().ok_or(Damage::Bad("the slot is cut off"))?;
        if checksum(&[&bytes[..124]]) != u32_at(bytes, 124) {
            return Err(Damage::Bad("the slot does not fit its checksum"));
        }
        preamble::check(bytes, MAGIC)?;
        let sequence = u64_at(bytes, 56);
        if sequence > SEQUENCE_MAX {
            return Err(Damage::Bad("the slot's sequence is impossible"));
        }
        Ok(Mark {
            store_id: array(bytes, 40),
            sequence,
            segment: SegmentId { first_position: u64_at(bytes, 64), generation: u32_at(bytes, 72) },
            durable_end: u32_at(bytes, 76),
            position: u64_at(bytes, 80),
            chain: array(bytes, 88),
            clean: u32_at(bytes, 120) & CLEAN != 0,
        })
    }
}

/// The newer valid slot of a whole file; otherwise as [`slots`].
pub(crate) fn newest(file: &[u8]) -> Result<Option<Mark>, Damage> {
    Ok(slots(file)?.into_iter().next())
}

/// The valid slots of a whole file, the newer one first. A slot that needs a newer annals is an error of
/// its own; any other bad slot is passed over.
pub(crate) fn slots(file: &[u8]) -> Result<Vec<Mark>, Damage> {
    let mut slots = Vec::new();
    for slot in [0, usize::try_from(SLOT_STRIDE).expect("4096")] {
        match Mark::read(file.get(slot..).unwrap_or_default()) {
            Ok(mark) => slots.push(mark),
            Err(Damage::Bad(_) | Damage::Forbidden(_)) => {}
            Err(newer) => return Err(newer),
        }
    }
    // Of two with one number the first counts: the sort is stable.
    slots.sort_by_key(|mark| std::cmp::Reverse(mark.sequence));
    Ok(slots)
}
