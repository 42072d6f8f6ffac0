//! A segment file: its name and header, the seal that ends it, and the attestation that stands in place of
//! removed frames.
//!
//! Frames, seals and attestations begin with a mark: the segment's random salt combined with the offset. No
//! payload can forge a mark, and a copy at another place has a wrong one. SPEC.md "Segment".

use super::bytes::{
    BEHIND_CHECKSUM, CHECKSUM_AT, Damage, MARK_AT, aligned, array, checksum, own_checksum, part, preamble,
    put, sum, u32_at, u64_at,
};
use super::chain::Hash;
use super::place::FramePlace;

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

/// The offset of each field of an attestation, after mark and checksum. The text follows, padded with zeros.
const LENGTH_AT: usize = BEHIND_CHECKSUM;
const REMOVED_FIRST_AT: usize = LENGTH_AT + 4;
const REMOVED_LAST_AT: usize = REMOVED_FIRST_AT + 8;
const REMOVED_EVENTS_AT: usize = REMOVED_LAST_AT + 8;
const TEXT_BYTES_AT: usize = REMOVED_EVENTS_AT + 4;
const MADE_AT_AT: usize = TEXT_BYTES_AT + 4;
const LAST_RECORDED_AT_AT: usize = MADE_AT_AT + 8;
const CHAIN_BEFORE_REMOVED_AT: usize = LAST_RECORDED_AT_AT + 8;
const CHAIN_AFTER_AT: usize = CHAIN_BEFORE_REMOVED_AT + size_of::<Hash>();
const DIGEST_AT: usize = CHAIN_AFTER_AT + size_of::<Hash>();
const ATTESTATION_FIXED: usize = DIGEST_AT + size_of::<Hash>();
const _: () = assert!(ATTESTATION_FIXED == 152);
/// The longest text, in bytes: reason and author, for people.
const ATTESTATION_TEXT_MAX: usize = 4096;

/// The record in place of frames that were removed on purpose. Only a rewritten segment may have one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attestation<'a> {
    pub(crate) first_position: u64,
    pub(crate) last_position: u64,
    pub(crate) events: u32,
    pub(crate) made_at: u64,
    /// When the last removed frame was recorded. Later frames have this time or a later one.
    pub(crate) last_recorded_at: u64,
    pub(crate) chain_before: Hash,
    pub(crate) chain_after: Hash,
    /// BLAKE3 over the chains of the removed frames, in order.
    pub(crate) digest: Hash,
    /// Why and by whom.
    pub(crate) text: &'a str,
}

impl<'a> Attestation<'a> {
    /// The longest attestation.
    pub(crate) const BYTES_MAX: usize = ATTESTATION_FIXED + ATTESTATION_TEXT_MAX;

    /// Reads and checks the attestation at the start of `bytes`, which may be longer. Also returns its
    /// length.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<(Attestation<'a>, usize), Damage> {
        const SHORT: Damage = Damage::Bad("an attestation is cut off");
        let fixed = bytes.first_chunk::<ATTESTATION_FIXED>().ok_or(SHORT)?;
        let text_bytes = usize::try_from(u32_at(fixed, TEXT_BYTES_AT)).unwrap_or(usize::MAX);
        if text_bytes > ATTESTATION_TEXT_MAX {
            return Err(Damage::Bad("an attestation's text is longer than one can be"));
        }
        let text = ATTESTATION_FIXED..sum([ATTESTATION_FIXED, text_bytes]);
        let length = aligned(text.end);
        let whole = bytes.get(..length).ok_or(SHORT)?;
        if own_checksum(whole) != u32_at(fixed, CHECKSUM_AT) {
            return Err(Damage::Bad("an attestation does not fit its checksum"));
        }
        if usize::try_from(u32_at(fixed, LENGTH_AT)) != Ok(length) {
            return Err(Damage::Forbidden("an attestation has another length than its text makes"));
        }
        let attestation = Attestation {
            first_position: u64_at(fixed, REMOVED_FIRST_AT),
            last_position: u64_at(fixed, REMOVED_LAST_AT),
            events: u32_at(fixed, REMOVED_EVENTS_AT),
            made_at: u64_at(fixed, MADE_AT_AT),
            last_recorded_at: u64_at(fixed, LAST_RECORDED_AT_AT),
            chain_before: array(fixed, CHAIN_BEFORE_REMOVED_AT),
            chain_after: array(fixed, CHAIN_AFTER_AT),
            digest: array(fixed, DIGEST_AT),
            text: std::str::from_utf8(part(whole, text))
                .map_err(|_| Damage::Forbidden("an attestation's text is not UTF-8"))?,
        };
        Ok((attestation, length))
    }

    /// The bytes of this attestation at `offset` of a segment.
    pub(crate) fn write(&self, header: &SegmentHeader, offset: u64) -> Vec<u8> {
        let mut out = vec![0; aligned(sum([ATTESTATION_FIXED, self.text.len()]))];
        let length = |bytes: usize| u32::try_from(bytes).expect("an attestation is small").to_le_bytes();
        put(&mut out, MARK_AT, &header.attestation_mark(offset).to_le_bytes());
        let own_length = length(out.len());
        put(&mut out, LENGTH_AT, &own_length);
        put(&mut out, REMOVED_FIRST_AT, &self.first_position.to_le_bytes());
        put(&mut out, REMOVED_LAST_AT, &self.last_position.to_le_bytes());
        put(&mut out, REMOVED_EVENTS_AT, &self.events.to_le_bytes());
        put(&mut out, TEXT_BYTES_AT, &length(self.text.len()));
        put(&mut out, MADE_AT_AT, &self.made_at.to_le_bytes());
        put(&mut out, LAST_RECORDED_AT_AT, &self.last_recorded_at.to_le_bytes());
        put(&mut out, CHAIN_BEFORE_REMOVED_AT, &self.chain_before);
        put(&mut out, CHAIN_AFTER_AT, &self.chain_after);
        put(&mut out, DIGEST_AT, &self.digest);
        put(&mut out, ATTESTATION_FIXED, self.text.as_bytes());
        let crc = own_checksum(&out);
        put(&mut out, CHECKSUM_AT, &crc.to_le_bytes());
        out
    }
}
