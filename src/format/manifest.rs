//! MANIFEST: which sealed segments there are, and what the store is.
//!
//! Replaced as a whole (write beside, sync, rename, sync the directory), never changed in place.
//! It may lag behind: segments after its last are found by walking on.
//! SPEC.md "MANIFEST". Row: bytes.

use super::chain::Hash;
use super::segment::SegmentId;
use super::{Damage, SEQUENCE_MAX, array, preamble, put, sum, u16_at, u32_at, u64_at};

pub(crate) const NAME: &str = "MANIFEST";
/// Written beside, then renamed.
pub(crate) const TEMPORARY: &str = "MANIFEST.tmp";

const MAGIC: &[u8; 8] = b"ANNALMAN";
/// Preamble 0, store id 40, sequence 56, history revision 64, created-at 72, previous hash 80,
/// segments 112, lineages 116.
const FIXED: usize = 120;
/// Store id 0, up to position 16.
const LINEAGE: usize = 24;
/// First position 0, last position 8, generation 16, length 20, frames 24, events 28, recorded-
/// at before it 32, last recorded-at 40, chain 48, remarks 80 (streams that begin here, plus one, 0; then
/// zeros).
const SEGMENT: usize = 136;
const REMARKS: usize = 56;
/// An incompatible feature: see [`Manifest::is_cut`].
const CUT: u64 = 1;
/// A read-only feature: see [`Manifest::is_changing`].
const CHANGING: u64 = 1;
const DIGEST: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Minor version and compatible features of whoever wrote it, which need not be known here; they
    /// are passed on.
    pub(crate) minor: u16,
    pub(crate) compatible: u64,
    /// What lies behind the last segment listed was cut: it is no part of the log, and is being removed.
    pub(crate) is_cut: bool,
    /// Events went from segments, and the history revision was not raised yet.
    pub(crate) is_changing: bool,
    pub(crate) store_id: [u8; 16],
    /// One more at every replacement.
    pub(crate) sequence: u64,
    /// Raised when history itself changes; cached state from before is void then.
    pub(crate) history_revision: u64,
    pub(crate) created_at: u64,
    pub(crate) previous: Hash,
    /// The stores this one was forked from, oldest first: events up to the position are theirs.
    pub(crate) lineage: Vec<Lineage>,
    /// In order of position.
    pub(crate) sealed: Vec<SegmentEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lineage {
    pub(crate) store_id: [u8; 16],
    pub(crate) up_to: u64,
}

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
    pub(crate) remarks: Annotations,
}

/// What an entry says beyond the segment's seal. What is not known here is passed on as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Annotations([u8; REMARKS]);

impl Manifest {
    pub(crate) fn new(store_id: [u8; 16], created_at: u64) -> Manifest {
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
            lineage: Vec::new(),
            sealed: Vec::new(),
        }
    }

    /// Where the entry of the segment at `index` of the list begins in the file.
    pub(crate) fn entry_at(&self, index: usize) -> usize {
        let lineage = self.lineage.len().saturating_mul(LINEAGE);
        sum([FIXED, lineage, index.saturating_mul(SEGMENT)])
    }

    /// Whether segments of that store belong to this one.
    pub(crate) fn knows(&self, store_id: &[u8; 16]) -> bool {
        *store_id == self.store_id || self.lineage.iter().any(|line| line.store_id == *store_id)
    }

    /// The bytes, and their digest: what the next manifest names as its previous.
    pub(crate) fn write(&self) -> (Vec<u8>, Hash) {
        let count = |items: usize| u32::try_from(items).expect("far fewer segments than 2^32").to_le_bytes();
        let mut out = vec![0; FIXED];
        preamble::write(&mut out, MAGIC);
        put(&mut out, preamble::MINOR, &self.minor.to_le_bytes());
        let features = |is_set: bool, bit: u64| if is_set { bit } else { 0 }.to_le_bytes();
        put(&mut out, preamble::INCOMPATIBLE, &features(self.is_cut, CUT));
        put(&mut out, preamble::READ_ONLY, &features(self.is_changing, CHANGING));
        put(&mut out, preamble::COMPATIBLE, &self.compatible.to_le_bytes());
        put(&mut out, 40, &self.store_id);
        put(&mut out, 56, &self.sequence.to_le_bytes());
        put(&mut out, 64, &self.history_revision.to_le_bytes());
        put(&mut out, 72, &self.created_at.to_le_bytes());
        put(&mut out, 80, &self.previous);
        put(&mut out, 112, &count(self.sealed.len()));
        put(&mut out, 116, &count(self.lineage.len()));
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

    /// Also gives the digest.
    pub(crate) fn read(bytes: &[u8]) -> Result<(Manifest, Hash), Damage> {
        const SHORT: Damage = Damage::Bad("the manifest is cut off");
        const COUNTS: Damage = Damage::Bad("the manifest's counts do not fit its length");
        let (bytes, digest) = bytes.split_at_checked(bytes.len().saturating_sub(DIGEST)).ok_or(SHORT)?;
        let (_, tables) = bytes.split_at_checked(FIXED).ok_or(SHORT)?;
        if blake3::hash(bytes).as_bytes().as_slice() != digest {
            return Err(Damage::Bad("the manifest does not fit its digest"));
        }
        preamble::check_knowing(bytes, MAGIC, CUT, CHANGING)?;
        if u64_at(bytes, 56) > SEQUENCE_MAX {
            return Err(Damage::Bad("the manifest's sequence is impossible"));
        }
        let (segments, lineages) = (u32_at(bytes, 112), u32_at(bytes, 116));
        let (lineage, sealed) = tables.split_at_checked(table_bytes(lineages, LINEAGE)?).ok_or(COUNTS)?;
        if sealed.len() != table_bytes(segments, SEGMENT)? {
            return Err(COUNTS);
        }
        let manifest = Manifest {
            minor: u16_at(bytes, preamble::MINOR),
            compatible: u64_at(bytes, preamble::COMPATIBLE),
            is_cut: u64_at(bytes, preamble::INCOMPATIBLE) & CUT != 0,
            is_changing: u64_at(bytes, preamble::READ_ONLY) & CHANGING != 0,
            store_id: array(bytes, 40),
            sequence: u64_at(bytes, 56),
            history_revision: u64_at(bytes, 64),
            created_at: u64_at(bytes, 72),
            previous: array(bytes, 80),
            lineage: lineage
                .chunks_exact(LINEAGE)
                .map(|entry| Lineage { store_id: array(entry, 0), up_to: u64_at(entry, 16) })
                .collect(),
            sealed: sealed.chunks_exact(SEGMENT).map(SegmentEntry::read).collect(),
        };
        // What is kept of a history that is cut ends with a segment that was written anew.
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
    pub(crate) const NONE: Annotations = Annotations([0; REMARKS]);

    /// How many streams begin in the segment.
    pub(crate) fn born(self) -> Option<u32> {
        u32_at(&self.0, 0).checked_sub(1)
    }

    /// A count that does not fit is as good as none.
    pub(crate) fn with_born(mut self, born: u32) -> Annotations {
        put(&mut self.0, 0, &born.checked_add(1).unwrap_or(0).to_le_bytes());
        self
    }
}

impl SegmentEntry {
    fn write(&self) -> [u8; SEGMENT] {
        let mut out = [0; SEGMENT];
        put(&mut out, 0, &self.id.first_position.to_le_bytes());
        put(&mut out, 8, &self.last_position.to_le_bytes());
        put(&mut out, 16, &self.id.generation.to_le_bytes());
        put(&mut out, 20, &self.length.to_le_bytes());
        put(&mut out, 24, &self.frames.to_le_bytes());
        put(&mut out, 28, &self.events.to_le_bytes());
        put(&mut out, 32, &self.recorded_before.to_le_bytes());
        put(&mut out, 40, &self.last_recorded_at.to_le_bytes());
        put(&mut out, 48, &self.chain);
        put(&mut out, 80, &self.remarks.0);
        out
    }

    fn read(entry: &[u8]) -> SegmentEntry {
        SegmentEntry {
            id: SegmentId { first_position: u64_at(entry, 0), generation: u32_at(entry, 16) },
            last_position: u64_at(entry, 8),
            length: u32_at(entry, 20),
            frames: u32_at(entry, 24),
            events: u32_at(entry, 28),
            recorded_before: u64_at(entry, 32),
            last_recorded_at: u64_at(entry, 40),
            chain: array(entry, 48),
            remarks: Annotations(array(entry, 80)),
        }
    }

    /// Whether this entry says what was found of its segment.
    pub(crate) fn fits(&self, found: &SegmentEntry) -> bool {
        *self == SegmentEntry { remarks: self.remarks, ..found.clone() }
    }
}
