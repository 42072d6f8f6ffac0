//! MARK: how much of the log is proven durable, in two slots written in turn.
//!
//! A slot is written only after a sync has returned, so it never names data that is not durable. It is
//! evidence against silent loss. It is never the authority for where the log ends. SPEC.md "MARK".

use super::bytes::{Damage, SEQUENCE_MAX, array, checksum, part, preamble, put, u32_at, u64_at};
use super::chain::Hash;
use super::segment::SegmentId;

pub(crate) const NAME: &str = "MARK";
/// The second slot begins here: in another sector and another page than the first.
pub(crate) const SLOT_STRIDE: u64 = 4096;
/// The length of the file in bytes.
pub(crate) const FILE_BYTES: usize = 8192;

const MAGIC: &[u8; 8] = b"ANNALMRK";
/// The flag of a clean close.
const CLEAN: u32 = 1;

/// The offset of each field of a slot, after the preamble.
const STORE_ID_AT: usize = preamble::SIZE;
const SEQUENCE_AT: usize = STORE_ID_AT + 16;
const SEGMENT_AT: usize = SEQUENCE_AT + 8;
const GENERATION_AT: usize = SEGMENT_AT + 8;
const DURABLE_END_AT: usize = GENERATION_AT + 4;
const POSITION_AT: usize = DURABLE_END_AT + 4;
const CHAIN_AT: usize = POSITION_AT + 8;
const FLAGS_AT: usize = CHAIN_AT + size_of::<Hash>();
const CHECKSUM_AT: usize = FLAGS_AT + 4;
pub(crate) const MARK_SLOT_BYTES: usize = CHECKSUM_AT + 4;
const _: () = assert!(MARK_SLOT_BYTES == 128);

/// What a slot says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) store_id: [u8; 16],
    /// One more at every write. The valid slot with the higher sequence counts.
    pub(crate) sequence: u64,
    pub(crate) segment: SegmentId,
    /// Every byte of that segment before this offset was synced.
    pub(crate) durable_end: u32,
    /// The last position before that offset, and the chain there.
    pub(crate) position: u64,
    pub(crate) chain: Hash,
    /// The writer closed the log here: nothing follows.
    pub(crate) clean: bool,
}

impl Mark {
    /// The offset of the slot that this sequence is written to.
    pub(crate) fn offset(&self) -> u64 {
        if self.sequence.is_multiple_of(2) { 0 } else { SLOT_STRIDE }
    }

    pub(crate) fn write(&self) -> [u8; MARK_SLOT_BYTES] {
        let mut out = [0; MARK_SLOT_BYTES];
        preamble::write(&mut out, MAGIC);
        put(&mut out, STORE_ID_AT, &self.store_id);
        put(&mut out, SEQUENCE_AT, &self.sequence.to_le_bytes());
        put(&mut out, SEGMENT_AT, &self.segment.first_position.to_le_bytes());
        put(&mut out, GENERATION_AT, &self.segment.generation.to_le_bytes());
        put(&mut out, DURABLE_END_AT, &self.durable_end.to_le_bytes());
        put(&mut out, POSITION_AT, &self.position.to_le_bytes());
        put(&mut out, CHAIN_AT, &self.chain);
        put(&mut out, FLAGS_AT, &if self.clean { CLEAN } else { 0 }.to_le_bytes());
        let crc = checksum(&[part(&out, ..CHECKSUM_AT)]);
        put(&mut out, CHECKSUM_AT, &crc.to_le_bytes());
        out
    }

    /// Reads and checks one slot.
    pub(crate) fn read(bytes: &[u8]) -> Result<Mark, Damage> {
        let bytes = bytes.first_chunk::<MARK_SLOT_BYTES>().ok_or(Damage::Bad("the slot is cut off"))?;
        if checksum(&[part(bytes, ..CHECKSUM_AT)]) != u32_at(bytes, CHECKSUM_AT) {
            return Err(Damage::Bad("the slot does not fit its checksum"));
        }
        preamble::check(bytes, MAGIC)?;
        let sequence = u64_at(bytes, SEQUENCE_AT);
        if sequence > SEQUENCE_MAX {
            return Err(Damage::Bad("the slot's sequence is impossible"));
        }
        Ok(Mark {
            store_id: array(bytes, STORE_ID_AT),
            sequence,
            segment: SegmentId {
                first_position: u64_at(bytes, SEGMENT_AT),
                generation: u32_at(bytes, GENERATION_AT),
            },
            durable_end: u32_at(bytes, DURABLE_END_AT),
            position: u64_at(bytes, POSITION_AT),
            chain: array(bytes, CHAIN_AT),
            clean: u32_at(bytes, FLAGS_AT) & CLEAN != 0,
        })
    }
}

/// The newer valid slot of a whole file; `None` if neither is valid.
///
/// # Errors
///
/// As [`slots`].
pub(crate) fn newest(file: &[u8]) -> Result<Option<Mark>, Damage> {
    Ok(slots(file)?.into_iter().next())
}

/// The valid slots of a whole file, the newer one first. A damaged slot is left out.
///
/// # Errors
///
/// [`Damage::Newer`] if a slot needs a newer annals.
pub(crate) fn slots(file: &[u8]) -> Result<Vec<Mark>, Damage> {
    let mut slots = Vec::new();
    for slot in [0, usize::try_from(SLOT_STRIDE).expect("4096")] {
        match Mark::read(file.get(slot..).unwrap_or_default()) {
            Ok(mark) => slots.push(mark),
            Err(Damage::Bad(_) | Damage::Forbidden(_)) => {}
            Err(newer) => return Err(newer),
        }
    }
    // If both have one sequence, the first slot counts: the sort is stable.
    slots.sort_by_key(|mark| std::cmp::Reverse(mark.sequence));
    Ok(slots)
}
