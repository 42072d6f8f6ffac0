//! A segment file: its name and header, the seal that ends it, and the attestation that stands in place of
//! removed frames.
//!
//! Frames, seals and attestations begin with a mark: the segment's random salt combined with the offset. No
//! payload can forge a mark, and a copy at another place has a wrong one. SPEC.md "Segment".

use super::bytes::{
    BEHIND_CHECKSUM, CHECKSUM_AT, Damage, MARK_AT, array, checksum, own_checksum, part, preamble, put, sum,
    u32_at, u64_at,
};
use super::chain::Hash;
use super::place::FramePlace;
use super::tree::{Cover, TreeHash};

const MAGIC: &[u8; 8] = b"ANNALSEG";

/// Names a segment: the first position that it can hold, and how often it was rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentId {
    pub(crate) first_position: u64,
    pub(crate) generation: u32,
}

impl SegmentId {
    /// The file's name inside `segments/`.
    pub(crate) fn file_name(self) -> String {
        format!("{:020}.{}.seg", self.first_position, self.generation)
    }

    /// The path of the file from the store's directory.
    pub(crate) fn path(self) -> String {
        format!("{SEGMENTS_DIRECTORY}/{}", self.file_name())
    }

    /// The path of a rewritten segment until it is whole, from the store's directory.
    pub(crate) fn temporary(self) -> String {
        format!("{}.tmp", self.path())
    }

    /// The segment of a temporary file, by the exact name of the file inside `segments/`.
    pub(crate) fn parse_temporary(name: &str) -> Option<SegmentId> {
        name.strip_suffix(".tmp").and_then(SegmentId::parse)
    }

    /// The path of the segment's index file, from the store's directory.
    pub(crate) fn index_path(self) -> String {
        format!("{SEGMENTS_DIRECTORY}/{:020}.{}.idx", self.first_position, self.generation)
    }

    /// The path of the segment's tree file, from the store's directory.
    pub(crate) fn tree_path(self) -> String {
        format!("{SEGMENTS_DIRECTORY}/{:020}.{}.tree", self.first_position, self.generation)
    }

    /// The paths of the files beside the segment that are built from it, and may be deleted.
    pub(crate) fn side_paths(self) -> [String; 2] {
        [self.index_path(), self.tree_path()]
    }

    /// The segment of a file, by exactly the name that [`SegmentId::file_name`] gives.
    pub(crate) fn parse(name: &str) -> Option<SegmentId> {
        let id = SegmentId::parse_any(name, "seg")?;
        (id.file_name() == name).then_some(id)
    }

    /// The segment of an index or tree file, whole or temporary, by the exact name of the file inside
    /// `segments/`.
    pub(crate) fn parse_side_file(name: &str) -> Option<SegmentId> {
        let whole = name.strip_suffix(TEMPORARY).unwrap_or(name);
        let id = SegmentId::parse_any(whole, "idx").or_else(|| SegmentId::parse_any(whole, "tree"))?;
        let is_it = |path: &String| path.split_once('/').is_some_and(|(_, own)| own == whole);
        id.side_paths().iter().any(is_it).then_some(id)
    }

    fn parse_any(name: &str, extension: &str) -> Option<SegmentId> {
        let (first, rest) = name.split_once('.')?;
        let (generation, rest) = rest.split_once('.')?;
        let id = SegmentId { first_position: first.parse().ok()?, generation: generation.parse().ok()? };
        (rest == extension).then_some(id)
    }
}

/// What the name of a file ends with until the file is whole.
pub(crate) const TEMPORARY: &str = ".tmp";
/// The directory of the segment files.
pub(crate) const SEGMENTS_DIRECTORY: &str = "segments";

/// The offset of each field of a segment's header, after the preamble. Gaps are zero.
const STORE_ID_AT: usize = preamble::SIZE;
const FIRST_POSITION_AT: usize = STORE_ID_AT + 16;
const GENERATION_AT: usize = FIRST_POSITION_AT + 8;
const SALT_AT: usize = GENERATION_AT + 4 + 4;
const CREATED_AT_AT: usize = SALT_AT + 8;
const UNSYNCED_BYTES_MAX_AT: usize = CREATED_AT_AT + 8;
const CHAIN_BEFORE_AT: usize = UNSYNCED_BYTES_MAX_AT + 8;
const RECORDED_BEFORE_AT: usize = CHAIN_BEFORE_AT + size_of::<Hash>();
const HEADER_CHECKSUM_AT: usize = RECORDED_BEFORE_AT + 8 + 4;
pub(crate) const SEGMENT_HEADER_BYTES: usize = HEADER_CHECKSUM_AT + 4;
const _: () = assert!(SEGMENT_HEADER_BYTES == 144);

/// Identity, salt, limits, and how the segment continues the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) store_id: [u8; 16],
    pub(crate) id: SegmentId,
    pub(crate) salt: u64,
    pub(crate) created_at: u64,
    /// The writer never leaves more bytes than this unsynced, so a torn tail reaches no further.
    pub(crate) unsynced_bytes_max: u64,
    /// Chain and time of the last frame before this segment.
    pub(crate) chain_before: Hash,
    pub(crate) recorded_before: u64,
}

impl SegmentHeader {
    pub(crate) fn write(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0; SEGMENT_HEADER_BYTES];
        preamble::write(&mut out, MAGIC);
        put(&mut out, STORE_ID_AT, &self.store_id);
        put(&mut out, FIRST_POSITION_AT, &self.id.first_position.to_le_bytes());
        put(&mut out, GENERATION_AT, &self.id.generation.to_le_bytes());
        put(&mut out, SALT_AT, &self.salt.to_le_bytes());
        put(&mut out, CREATED_AT_AT, &self.created_at.to_le_bytes());
        put(&mut out, UNSYNCED_BYTES_MAX_AT, &self.unsynced_bytes_max.to_le_bytes());
        put(&mut out, CHAIN_BEFORE_AT, &self.chain_before);
        put(&mut out, RECORDED_BEFORE_AT, &self.recorded_before.to_le_bytes());
        let crc = checksum(&[part(&out, ..HEADER_CHECKSUM_AT)]);
        put(&mut out, HEADER_CHECKSUM_AT, &crc.to_le_bytes());
        out
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<SegmentHeader, Damage> {
        let bytes = bytes
            .first_chunk::<SEGMENT_HEADER_BYTES>()
            .ok_or(Damage::Bad("the segment's header is cut off"))?;
        if checksum(&[part(bytes, ..HEADER_CHECKSUM_AT)]) != u32_at(bytes, HEADER_CHECKSUM_AT) {
            return Err(Damage::Bad("the segment's header does not fit its checksum"));
        }
        preamble::check(bytes, MAGIC)?;
        let salt = u64_at(bytes, SALT_AT);
        if salt != SegmentHeader::salt(salt) {
            return Err(Damage::Forbidden("the segment's header holds a salt that no writer draws"));
        }
        Ok(SegmentHeader {
            store_id: array(bytes, STORE_ID_AT),
            id: SegmentId {
                first_position: u64_at(bytes, FIRST_POSITION_AT),
                generation: u32_at(bytes, GENERATION_AT),
            },
            salt,
            created_at: u64_at(bytes, CREATED_AT_AT),
            unsynced_bytes_max: u64_at(bytes, UNSYNCED_BYTES_MAX_AT),
            chain_before: array(bytes, CHAIN_BEFORE_AT),
            recorded_before: u64_at(bytes, RECORDED_BEFORE_AT),
        })
    }

    /// A salt from random bits. Marks stand at multiples of 8, so the low three bits of the salt are those of
    /// every frame's mark. With the bits `100` no mark is ever zero, and marks of two kinds differ at any two
    /// places.
    pub(crate) fn salt(random: u64) -> u64 {
        random & !0b111 | 0b100
    }

    /// The mark of a frame at `offset`.
    pub(crate) fn frame_mark(&self, offset: u64) -> u64 {
        self.salt ^ offset
    }

    /// The place of a frame at `offset`.
    pub(crate) fn frame_place(&self, offset: u32) -> FramePlace {
        FramePlace { salt: self.salt, offset: offset.into(), first_position: self.id.first_position }
    }

    fn seal_mark(&self, offset: u64) -> u64 {
        self.salt ^ offset ^ u64::from_le_bytes(*b"SEALSEAL")
    }

    fn attestation_mark(&self, offset: u64) -> u64 {
        self.salt ^ offset ^ u64::from_le_bytes(*b"ATTESTED")
    }

    pub(crate) fn is_seal(&self, bytes: &[u8], offset: u64) -> bool {
        bytes.first_chunk() == Some(&self.seal_mark(offset).to_le_bytes())
    }

    pub(crate) fn is_attestation(&self, bytes: &[u8], offset: u64) -> bool {
        bytes.first_chunk() == Some(&self.attestation_mark(offset).to_le_bytes())
    }
}

/// The offset of each field of a seal, after mark and checksum.
const SEAL_LENGTH_AT: usize = BEHIND_CHECKSUM;
const SEAL_LAST_POSITION_AT: usize = SEAL_LENGTH_AT + 4;
const SEAL_LAST_RECORDED_AT_AT: usize = SEAL_LAST_POSITION_AT + 8;
const SEAL_FRAMES_AT: usize = SEAL_LAST_RECORDED_AT_AT + 8;
const SEAL_EVENTS_AT: usize = SEAL_FRAMES_AT + 4;
const SEAL_CHAIN_AT: usize = SEAL_EVENTS_AT + 4;
pub(crate) const SEAL_BYTES: usize = SEAL_CHAIN_AT + size_of::<Hash>();
const _: () = assert!(SEAL_BYTES == 72);

/// The record that ends a sealed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seal {
    /// The length of the file in bytes, the seal included.
    pub(crate) length: u32,
    /// The position of the last event in this or an earlier segment.
    pub(crate) last_position: u64,
    pub(crate) last_recorded_at: u64,
    pub(crate) frames: u32,
    pub(crate) events: u32,
    pub(crate) chain: Hash,
}

impl Seal {
    pub(crate) fn write(&self, header: &SegmentHeader, offset: u64) -> [u8; SEAL_BYTES] {
        let mut out = [0; SEAL_BYTES];
        put(&mut out, MARK_AT, &header.seal_mark(offset).to_le_bytes());
        put(&mut out, SEAL_LENGTH_AT, &self.length.to_le_bytes());
        put(&mut out, SEAL_LAST_POSITION_AT, &self.last_position.to_le_bytes());
        put(&mut out, SEAL_LAST_RECORDED_AT_AT, &self.last_recorded_at.to_le_bytes());
        put(&mut out, SEAL_FRAMES_AT, &self.frames.to_le_bytes());
        put(&mut out, SEAL_EVENTS_AT, &self.events.to_le_bytes());
        put(&mut out, SEAL_CHAIN_AT, &self.chain);
        let crc = own_checksum(&out);
        put(&mut out, CHECKSUM_AT, &crc.to_le_bytes());
        out
    }

    /// Reads and checks a seal that [`SegmentHeader::is_seal`] has recognised by its mark.
    pub(crate) fn read(bytes: &[u8]) -> Result<Seal, Damage> {
        let bytes = bytes.first_chunk::<SEAL_BYTES>().ok_or(Damage::Bad("the seal is cut off"))?;
        if own_checksum(bytes) != u32_at(bytes, CHECKSUM_AT) {
            return Err(Damage::Bad("the seal does not fit its checksum"));
        }
        Ok(Seal {
            length: u32_at(bytes, SEAL_LENGTH_AT),
            last_position: u64_at(bytes, SEAL_LAST_POSITION_AT),
            last_recorded_at: u64_at(bytes, SEAL_LAST_RECORDED_AT_AT),
            frames: u32_at(bytes, SEAL_FRAMES_AT),
            events: u32_at(bytes, SEAL_EVENTS_AT),
            chain: array(bytes, SEAL_CHAIN_AT),
        })
    }
}

/// The offset of each field of an attestation, after mark and checksum. The roots follow.
const POSITIONS_AT: usize = BEHIND_CHECKSUM;
const ORDER_AT: usize = POSITIONS_AT + 4;
const ORDER_BYTES: usize = 6;
const ROOTS_AT: usize = ORDER_AT + ORDER_BYTES;
const ATTESTATION_FLAGS_AT: usize = ROOTS_AT + 1;
const LAST_RECORDED_AT_AT: usize = ATTESTATION_FLAGS_AT + 1;
const CHAIN_AFTER_AT: usize = LAST_RECORDED_AT_AT + 8;
const ATTESTATION_FIXED: usize = CHAIN_AFTER_AT + size_of::<Hash>();
const _: () = assert!(ATTESTATION_FIXED == 64);
const ROOT_BYTES: usize = size_of::<TreeHash>();
/// Positions are counted in 32 bits, so the cover of a run has fewer roots than this.
const ROOTS_MAX: usize = 63;

/// The record in place of positions that were removed on purpose. Only a rewritten segment may have one.
///
/// Its first position and the chain in front of it follow from what stands in front. The checksum covers
/// both, and the file has neither.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attestation {
    /// The chain in front of the removed frames.
    pub(crate) chain_before: Hash,
    pub(crate) chain_after: Hash,
    /// When the last removed frame was recorded. Later frames have this time or a later one.
    pub(crate) last_recorded_at: u64,
    /// The position of the event that ordered the removal; of joined ones, the newest such event.
    pub(crate) order: u64,
    /// The removed positions as leaves, and the roots that are left of them.
    pub(crate) cover: Cover,
}

impl Attestation {
    /// The longest attestation.
    pub(crate) const BYTES_MAX: usize = ATTESTATION_FIXED + ROOTS_MAX * ROOT_BYTES;

    /// Reads and checks the attestation at the start of `bytes`, which may be longer. In front of it stand
    /// this position, and this chain.
    pub(crate) fn read(
        bytes: &[u8],
        position_before: u64,
        chain_before: &Hash,
    ) -> Result<Attestation, Damage> {
        const SHORT: Damage = Damage::Bad("an attestation is cut off");
        let fixed = bytes.first_chunk::<ATTESTATION_FIXED>().ok_or(SHORT)?;
        let roots = usize::from(*fixed.get(ROOTS_AT).ok_or(SHORT)?);
        let whole = bytes.get(..attestation_bytes(roots)).ok_or(SHORT)?;
        let in_front = in_front(position_before, chain_before);
        if own_checksum(whole) ^ in_front != u32_at(fixed, CHECKSUM_AT) {
            return Err(Damage::Bad(
                "an attestation does not fit its checksum, or what stands in front of it",
            ));
        }
        let flags = fixed.get(ATTESTATION_FLAGS_AT).copied().unwrap_or_default();
        if flags != 0 {
            return Err(Damage::Newer(format!("attestation flags {flags:#04x}")));
        }
        let positions = u32_at(fixed, POSITIONS_AT);
        if positions == 0 {
            return Err(Damage::Forbidden("an attestation removes no position"));
        }
        let mut cover = Cover::new(position_before);
        let (roots, _) = part(whole, ATTESTATION_FIXED..).as_chunks();
        cover.push_run(positions.into(), roots)?;
        Ok(Attestation {
            chain_before: *chain_before,
            chain_after: array(fixed, CHAIN_AFTER_AT),
            last_recorded_at: u64_at(fixed, LAST_RECORDED_AT_AT),
            // The two bytes in front of the order are shifted out.
            order: u64_at(fixed, ORDER_AT.saturating_sub(2)) >> 16,
            cover,
        })
    }

    /// The bytes of this attestation at `offset` of a segment.
    pub(crate) fn write(&self, header: &SegmentHeader, offset: u64) -> Vec<u8> {
        let mut out = vec![0; ATTESTATION_FIXED];
        let positions = u32::try_from(self.positions()).expect("a segment holds fewer than 2^32 positions");
        let roots = self.cover.roots();
        let count = u8::try_from(roots.len()).expect("the cover of a run has at most 63 roots");
        put(&mut out, MARK_AT, &header.attestation_mark(offset).to_le_bytes());
        put(&mut out, POSITIONS_AT, &positions.to_le_bytes());
        put(&mut out, ORDER_AT, part(&self.order.to_le_bytes(), ..ORDER_BYTES));
        put(&mut out, ROOTS_AT, &[count]);
        put(&mut out, LAST_RECORDED_AT_AT, &self.last_recorded_at.to_le_bytes());
        put(&mut out, CHAIN_AFTER_AT, &self.chain_after);
        roots.for_each(|root| out.extend_from_slice(root));
        let crc = own_checksum(&out) ^ in_front(self.first_position().saturating_sub(1), &self.chain_before);
        put(&mut out, CHECKSUM_AT, &crc.to_le_bytes());
        out
    }

    /// The length in bytes, a multiple of 8.
    pub(crate) fn bytes(&self) -> usize {
        attestation_bytes(self.cover.parts().len())
    }

    pub(crate) fn first_position(&self) -> u64 {
        self.cover.leaves().start.saturating_add(1)
    }

    pub(crate) fn last_position(&self) -> u64 {
        self.cover.leaves().end
    }

    /// How many positions were removed.
    pub(crate) fn positions(&self) -> u64 {
        let leaves = self.cover.leaves();
        leaves.end.saturating_sub(leaves.start)
    }

    /// Takes in the attestation right behind this one. The result is at most as long as both were.
    pub(crate) fn join(&mut self, next: &Attestation) {
        self.cover.append(&next.cover);
        self.order = self.order.max(next.order);
        self.last_recorded_at = next.last_recorded_at;
        self.chain_after = next.chain_after;
    }
}

/// The length of an attestation with this many roots.
pub(crate) fn attestation_bytes(roots: usize) -> usize {
    sum([ATTESTATION_FIXED, roots.saturating_mul(ROOT_BYTES)])
}

/// The checksum of what stands in front of an attestation: the first position that it removes, and the chain.
fn in_front(position_before: u64, chain: &Hash) -> u32 {
    checksum(&[&position_before.saturating_add(1).to_le_bytes(), chain])
}
