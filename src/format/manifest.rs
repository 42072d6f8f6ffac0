//! MANIFEST: the identity of the store, and the list of its sealed segments.
//!
//! The file is replaced as a whole and never changed in place. It may lag behind: opening finds sealed
//! segments that it does not list yet. SPEC.md "MANIFEST".

use super::bytes::{Damage, SEQUENCE_MAX, array, preamble, put, sum, u16_at, u32_at, u64_at};
use super::chain::Hash;
use super::segment::{Seal, SegmentHeader, SegmentId};

pub(crate) const NAME: &str = "MANIFEST";
/// The name of the new file until it is whole.
pub(crate) const TEMPORARY: &str = "MANIFEST.tmp";

const MAGIC: &[u8; 8] = b"ANNALMAN";
/// The offset of each field of the fixed part, after the preamble. Lineages and segments follow, then the
/// digest.
const STORE_ID_AT: usize = preamble::SIZE;
const SEQUENCE_AT: usize = STORE_ID_AT + 16;
const HISTORY_REVISION_AT: usize = SEQUENCE_AT + 8;
const CREATED_AT_AT: usize = HISTORY_REVISION_AT + 8;
const PREVIOUS_AT: usize = CREATED_AT_AT + 8;
const LINE_AT: usize = PREVIOUS_AT + size_of::<Hash>();
const SEGMENTS_AT: usize = LINE_AT + 16;
const LINEAGES_AT: usize = SEGMENTS_AT + 4;
const FIXED: usize = LINEAGES_AT + 4;
const _: () = assert!(FIXED == 136);

/// An entry of the lineage: store id, then the last position of that store's events.
const UP_TO_AT: usize = 16;
const LINEAGE: usize = UP_TO_AT + 8;

/// The offset of each field of a segment's entry.
const FIRST_POSITION_AT: usize = 0;
const LAST_POSITION_AT: usize = FIRST_POSITION_AT + 8;
const GENERATION_AT: usize = LAST_POSITION_AT + 8;
const LENGTH_AT: usize = GENERATION_AT + 4;
const FRAMES_AT: usize = LENGTH_AT + 4;
const EVENTS_AT: usize = FRAMES_AT + 4;
const RECORDED_BEFORE_AT: usize = EVENTS_AT + 4;
const LAST_RECORDED_AT_AT: usize = RECORDED_BEFORE_AT + 8;
const CHAIN_AT: usize = LAST_RECORDED_AT_AT + 8;
const ANNOTATIONS_AT: usize = CHAIN_AT + size_of::<Hash>();
/// The first annotation is the number of streams that begin in the segment, plus one; 0 if it is not known.
const ANNOTATIONS: usize = 56;
const SEGMENT: usize = ANNOTATIONS_AT + ANNOTATIONS;
const _: () = assert!(SEGMENT == 136);

/// An incompatible feature: see [`Manifest::is_cut`].
const CUT: u64 = 1;
/// A read-only feature: see [`Manifest::is_changing`].
const CHANGING: u64 = 1;
const DIGEST: usize = 32;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Minor version and compatible features of the writer. Readers need not know them; the next writer
    /// passes them on.
    pub(crate) minor: u16,
    pub(crate) compatible: u64,
    /// Segments behind the last listed one were cut from the log, and the writer is removing their files.
    pub(crate) is_cut: bool,
    /// Events were erased or removed, and the history revision is not raised yet.
    pub(crate) is_changing: bool,
    pub(crate) store_id: [u8; 16],
    /// One more at every replacement.
    pub(crate) sequence: u64,
    /// Raised when events are erased or removed. State cached under a lower revision is void.
    pub(crate) history_revision: u64,
    pub(crate) created_at: u64,
    /// The digest of the MANIFEST before this one.
    pub(crate) previous: Hash,
    /// Names this course of history: drawn at creation, and anew by rollback, restore and fork. A backup
    /// keeps it.
    pub(crate) line: [u8; 16],
    /// The stores that this one was forked from, oldest first. Events up to each position are theirs.
    pub(crate) lineage: Vec<Lineage>,
    /// In order of position.
    pub(crate) sealed: Vec<SegmentEntry>,
}

/// A store that this one was forked from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lineage {
    pub(crate) store_id: [u8; 16],
    pub(crate) up_to: u64,
}

/// A sealed segment in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentEntry {
    pub(crate) id: SegmentId,
    pub(crate) last_position: u64,
    pub(crate) length: u32,
    pub(crate) frames: u32,
    pub(crate) events: u32,
    pub(crate) recorded_before: u64,
    pub(crate) last_recorded_at: u64,
    pub(crate) chain: Hash,
    pub(crate) annotations: Annotations,
}

/// What an entry says beyond the segment's seal. Bytes that this version does not know are passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Annotations([u8; ANNOTATIONS]);

impl Manifest {
    pub(crate) fn new(store_id: [u8; 16], line: [u8; 16], created_at: u64) -> Manifest {
        Manifest {
            minor: 0,
            compatible: 0,
            is_cut: false,
            is_changing: false,
            store_id,
            sequence: 1,
            history_revision: 0,
            created_at,
            previous: [0; 32],
            line,
            lineage: Vec::new(),
            sealed: Vec::new(),
        }
    }

    /// The offset in the file of the entry at `index` of the list.
    pub(crate) fn entry_at(&self, index: usize) -> usize {
        let lineage = self.lineage.len().saturating_mul(LINEAGE);
        sum([FIXED, lineage, index.saturating_mul(SEGMENT)])
    }

    /// Whether segments of a store belong to this one.
    pub(crate) fn knows(&self, store_id: &[u8; 16]) -> bool {
        *store_id == self.store_id || self.lineage.iter().any(|line| line.store_id == *store_id)
    }

    /// The bytes of the file, and their digest, which the next MANIFEST names.
    pub(crate) fn write(&self) -> (Vec<u8>, Hash) {
        let count = |items: usize| u32::try_from(items).expect("far fewer segments than 2^32").to_le_bytes();
        let mut out = vec![0; FIXED];
        preamble::write(&mut out, MAGIC);
        put(&mut out, preamble::MINOR_AT, &self.minor.to_le_bytes());
        let features = |is_set: bool, bit: u64| if is_set { bit } else { 0 }.to_le_bytes();
        put(&mut out, preamble::INCOMPATIBLE_AT, &features(self.is_cut, CUT));
        put(&mut out, preamble::READ_ONLY_AT, &features(self.is_changing, CHANGING));
        put(&mut out, preamble::COMPATIBLE_AT, &self.compatible.to_le_bytes());
        put(&mut out, STORE_ID_AT, &self.store_id);
        put(&mut out, SEQUENCE_AT, &self.sequence.to_le_bytes());
        put(&mut out, HISTORY_REVISION_AT, &self.history_revision.to_le_bytes());
        put(&mut out, CREATED_AT_AT, &self.created_at.to_le_bytes());
        put(&mut out, PREVIOUS_AT, &self.previous);
        put(&mut out, LINE_AT, &self.line);
        put(&mut out, SEGMENTS_AT, &count(self.sealed.len()));
        put(&mut out, LINEAGES_AT, &count(self.lineage.len()));
        for lineage in &self.lineage {
            out.extend_from_slice(&lineage.store_id);
            out.extend_from_slice(&lineage.up_to.to_le_bytes());
        }
        for segment in &self.sealed {
            out.extend_from_slice(&segment.write());
        }
        let digest = *blake3::hash(&out).as_bytes();
        out.extend_from_slice(&digest);
        (out, digest)
    }

    /// Reads and checks a whole file. Also returns its digest.
    pub(crate) fn read(bytes: &[u8]) -> Result<(Manifest, Hash), Damage> {
        const SHORT: Damage = Damage::Bad("the manifest is cut off");
        const COUNTS: Damage = Damage::Bad("the manifest's counts do not fit its length");
        let (bytes, digest) = bytes.split_at_checked(bytes.len().saturating_sub(DIGEST)).ok_or(SHORT)?;
        let (_, tables) = bytes.split_at_checked(FIXED).ok_or(SHORT)?;
        if blake3::hash(bytes).as_bytes().as_slice() != digest {
            return Err(Damage::Bad("the manifest does not fit its digest"));
        }
        preamble::check_knowing(bytes, MAGIC, CUT, CHANGING)?;
        if u64_at(bytes, SEQUENCE_AT) > SEQUENCE_MAX {
            return Err(Damage::Bad("the manifest's sequence is impossible"));
        }
        let segments = u32_at(bytes, SEGMENTS_AT);
        let lineages = u32_at(bytes, LINEAGES_AT);
        let (lineage, sealed) = tables.split_at_checked(table_bytes(lineages, LINEAGE)?).ok_or(COUNTS)?;
        if sealed.len() != table_bytes(segments, SEGMENT)? {
            return Err(COUNTS);
        }
        let manifest = Manifest {
            minor: u16_at(bytes, preamble::MINOR_AT),
            compatible: u64_at(bytes, preamble::COMPATIBLE_AT),
            is_cut: u64_at(bytes, preamble::INCOMPATIBLE_AT) & CUT != 0,
            is_changing: u64_at(bytes, preamble::READ_ONLY_AT) & CHANGING != 0,
            store_id: array(bytes, STORE_ID_AT),
            sequence: u64_at(bytes, SEQUENCE_AT),
            history_revision: u64_at(bytes, HISTORY_REVISION_AT),
            created_at: u64_at(bytes, CREATED_AT_AT),
            previous: array(bytes, PREVIOUS_AT),
            line: array(bytes, LINE_AT),
            lineage: lineage
                .chunks_exact(LINEAGE)
                .map(|entry| Lineage { store_id: array(entry, 0), up_to: u64_at(entry, UP_TO_AT) })
                .collect(),
            sealed: sealed.chunks_exact(SEGMENT).map(SegmentEntry::read).collect(),
        };
        // A history that is cut ends with a segment that the rollback wrote anew.
        if manifest.is_cut && manifest.sealed.last().is_none_or(|last| last.id.generation == 0) {
            return Err(Damage::Bad("the manifest says that the log was cut where nothing was"));
        }
        Ok((manifest, array(digest, 0)))
    }
}

fn table_bytes(entries: u32, size: usize) -> Result<usize, Damage> {
    usize::try_from(entries)
        .ok()
        .and_then(|entries| entries.checked_mul(size))
        .ok_or(Damage::Bad("the manifest's counts are impossible"))
}

impl Annotations {
    pub(crate) const NONE: Annotations = Annotations([0; ANNOTATIONS]);

    /// How many streams begin in the segment; `None` if it is not known.
    pub(crate) fn streams_created(self) -> Option<u32> {
        u32_at(&self.0, 0).checked_sub(1)
    }

    /// A count that does not fit 32 bits becomes "not known".
    pub(crate) fn with_streams_created(mut self, streams: u32) -> Annotations {
        put(&mut self.0, 0, &streams.checked_add(1).unwrap_or(0).to_le_bytes());
        self
    }
}

impl SegmentEntry {
    /// The entry of a segment, from its header and its seal.
    pub(crate) fn new(header: &SegmentHeader, seal: &Seal) -> SegmentEntry {
        SegmentEntry {
            id: header.id,
            last_position: seal.last_position,
            length: seal.length,
            frames: seal.frames,
            events: seal.events,
            recorded_before: header.recorded_before,
            last_recorded_at: seal.last_recorded_at,
            chain: seal.chain,
            annotations: Annotations::NONE,
        }
    }

    fn write(&self) -> [u8; SEGMENT] {
        let mut out = [0; SEGMENT];
        put(&mut out, FIRST_POSITION_AT, &self.id.first_position.to_le_bytes());
        put(&mut out, LAST_POSITION_AT, &self.last_position.to_le_bytes());
        put(&mut out, GENERATION_AT, &self.id.generation.to_le_bytes());
        put(&mut out, LENGTH_AT, &self.length.to_le_bytes());
        put(&mut out, FRAMES_AT, &self.frames.to_le_bytes());
        put(&mut out, EVENTS_AT, &self.events.to_le_bytes());
        put(&mut out, RECORDED_BEFORE_AT, &self.recorded_before.to_le_bytes());
        put(&mut out, LAST_RECORDED_AT_AT, &self.last_recorded_at.to_le_bytes());
        put(&mut out, CHAIN_AT, &self.chain);
        put(&mut out, ANNOTATIONS_AT, &self.annotations.0);
        out
    }

    fn read(entry: &[u8]) -> SegmentEntry {
        SegmentEntry {
            id: SegmentId {
                first_position: u64_at(entry, FIRST_POSITION_AT),
                generation: u32_at(entry, GENERATION_AT),
            },
            last_position: u64_at(entry, LAST_POSITION_AT),
            length: u32_at(entry, LENGTH_AT),
            frames: u32_at(entry, FRAMES_AT),
            events: u32_at(entry, EVENTS_AT),
            recorded_before: u64_at(entry, RECORDED_BEFORE_AT),
            last_recorded_at: u64_at(entry, LAST_RECORDED_AT_AT),
            chain: array(entry, CHAIN_AT),
            annotations: Annotations(array(entry, ANNOTATIONS_AT)),
        }
    }

    /// Whether this entry says of its segment what `found` says, which has no annotations.
    pub(crate) fn fits(&self, found: &SegmentEntry) -> bool {
        *self == SegmentEntry { annotations: self.annotations, ..found.clone() }
    }
}
