//! The index of a segment as an immutable file; the format is in docs/index-file.md.
//!
//! The file is whole in memory, or read a block at a time and kept for one question only. Between questions a
//! file on the disk costs the memory of its filter and its checksums. The bytes are hostile even where the
//! checksums fit. Every offset and count is checked against the file, and a search in the file ends for any
//! bytes. [`SealedIndex::defect`] compares a file with the bytes it should have, for verification.
//! Invariant: the header, the jumps of the ordinals, and every block that is used have passed their checks.

mod convert;
mod lists;
mod reader;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::{DiskFile, read_full};
use crate::format::index_file::{
    BLOCK, Bound, GAP, HEADER, Header, Layout, TermHash, block_place, filter_holds, read_gap,
};
use crate::format::{Damage, checksum, u32_at};
use crate::types::{Error, ErrorKind, to_u64, to_usize};

use super::postings::{GappedSequence, Jumps};

/// The index of a segment's frames up to an offset, as an immutable file: whole in memory, or read on demand.
pub(crate) struct SealedIndex {
    /// The path within the store's directory, for messages.
    path: String,
    header: Header,
    layout: Layout,
    ordinals: GappedSequence<OrdinalJumps>,
    source: IndexSource,
    /// The number of reads of the file so far.
    reads: AtomicU64,
}

/// Where the bytes of an index file are.
enum IndexSource {
    /// In memory; all of them are checked.
    Whole(Arc<[u8]>),
    /// On the disk. The parts that every question needs are in memory and checked; a block is checked when it
    /// is read.
    File { file: Arc<dyn DiskFile>, filter: Vec<u8>, checksums: Vec<u8> },
}

/// The bytes that [`SealedIndex::defect`] reads at once.
const PIECE: usize = 64 * BLOCK;

/// A defect of an index file, and its offset.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum IndexDefect {
    /// Its checks fail, so readers build the index again.
    Unusable(usize, String),
    /// Its checks pass, so readers use it, but this section is wrong.
    Wrong(usize, &'static str),
}

/// The slots and ordinals where an ordinal does not follow the one before it.
pub(in crate::index) struct OrdinalJumps(Vec<(u32, u32)>);

impl Jumps for OrdinalJumps {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn jump(&self, at: usize) -> (usize, u64) {
        let (slot, ordinal) = self.0[at];
        (to_usize(slot), ordinal.into())
    }
}

impl SealedIndex {
    /// The index file with these bytes. `Err` if they are damaged, belong to another bound, or have a newer
    /// format. `path` is for messages.
    pub(crate) fn whole(bytes: Arc<[u8]>, path: &str, bound: &Bound) -> Result<SealedIndex, Damage> {
        let (header, layout) = check_header(&bytes, bytes.len(), bound)?;
        let table = layout.table.clone();
        let checksums = &bytes[table.clone()];
        check_table(&header, checksums, table.len())?;
        for block in 0..table.start.div_ceil(BLOCK) {
            check_block(checksums, block, &bytes[block_place(block, table.start)])?;
        }
        let ordinals = read_gaps(&header, &bytes[layout.gaps.range()])?;
        let source = IndexSource::Whole(bytes);
        Ok(SealedIndex { path: path.to_owned(), header, layout, ordinals, source, reads: AtomicU64::new(0) })
    }

    /// Reads the whole file into memory and checks it. The outer error is one of the disk.
    pub(crate) fn load(&self) -> Result<Result<SealedIndex, Damage>, Error> {
        let bytes = match &self.source {
            IndexSource::Whole(bytes) => bytes.clone(),
            IndexSource::File { file, .. } => {
                read_range(file.as_ref(), &self.path, 0..self.whole_bytes(), &self.reads)?.into()
            }
        };
        Ok(SealedIndex::whole(bytes, &self.path, &self.header.bound))
    }

    /// Whether the index may have a term. `false` is certain. Asks the filter in memory, never the file.
    ///
    /// The hash must be of the store that the file is bound to.
    pub(crate) fn may_have(&self, hash: TermHash) -> bool {
        match &self.source {
            IndexSource::Whole(bytes) => filter_holds(&bytes[self.layout.filter.range()], hash),
            IndexSource::File { filter, .. } => filter_holds(filter, hash),
        }
    }

    /// Whether the whole file is in memory.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.source, IndexSource::Whole(_))
    }

    /// The number of frames.
    pub(crate) fn frames(&self) -> u32 {
        self.header.frames
    }

    /// The memory it takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let held = match &self.source {
            IndexSource::Whole(bytes) => bytes.len(),
            IndexSource::File { filter, checksums, .. } => filter.len() + checksums.len(),
        };
        held + self.ordinals.jump_count() * size_of::<(u32, u32)>()
            + self.path.len()
            + size_of::<SealedIndex>()
    }

    /// The length of the file, in bytes.
    pub(crate) fn whole_bytes(&self) -> usize {
        self.layout.table.end
    }

    /// The number of reads of the file so far.
    pub(crate) fn pieces_read(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// The bound in the header of a file. The outer error is one of the disk.
    pub(crate) fn bound_of(file: &dyn DiskFile, path: &str) -> Result<Result<Bound, Damage>, Error> {
        let header = read_range(file, path, 0..HEADER, &AtomicU64::new(0))?;
        Ok(Header::read(&header).map(|header| header.bound))
    }

    /// The first defect of the index file of `bound`; `right` are the bytes it should have.
    ///
    /// Reads and checks the whole file, a piece at a time.
    ///
    /// # Errors
    ///
    /// Errors of the disk.
    pub(crate) fn defect(
        file: &Arc<dyn DiskFile>,
        path: &str,
        bound: &Bound,
        right: &[u8],
    ) -> Result<Option<IndexDefect>, Error> {
        let unusable = |at: usize, damage: &Damage| Ok(Some(IndexDefect::Unusable(at, damage.to_string())));
        let length = file.length().map_err(|error| Error::io("cannot read the length of", path, error))?;
        let read = |range| read_range(file.as_ref(), path, range, &AtomicU64::new(0));
        let (header, layout) =
            match check_header(&read(0..HEADER)?, usize::try_from(length).unwrap_or(usize::MAX), bound) {
                Ok(checked) => checked,
                Err(damage) => return unusable(0, &damage),
            };
        let table = layout.table.clone();
        let checksums = read(table.clone())?;
        if let Err(damage) = check_table(&header, &checksums, table.len()) {
            return unusable(table.start, &damage);
        }
        let mut first = None;
        for start in (0..table.start).step_by(PIECE) {
            let piece = start..(start + PIECE).min(table.start);
            let bytes = read(piece.clone())?;
            for at in piece.clone().step_by(BLOCK) {
                let place = block_place(at / BLOCK, table.start);
                let block = bytes.get(place.start - start..place.end - start).unwrap_or_default();
                if let Err(damage) = check_block(&checksums, at / BLOCK, block) {
                    return unusable(at, &damage);
                }
            }
            first = first.or_else(|| difference(&bytes, right, piece));
        }
        let is_same_header = Header::read(right).as_ref() == Ok(&header);
        let Some(at) = first.or((!is_same_header).then_some(COUNTS)) else { return Ok(None) };
        match SealedIndex::open(file.clone(), path, bound)? {
            Err(damage) => unusable(layout.jumps.start, &damage),
            Ok(_) => Ok(Some(IndexDefect::Wrong(at, section(&layout, at)))),
        }
    }

    /// The error for damage at an offset of the file.
    fn damaged(&self, offset: usize, what: &str) -> Error {
        let text = format!(
            "{}, offset {offset}: {what}; the index is built again from its segment, and no event is lost",
            self.path
        );
        Error::new(ErrorKind::Corrupt, text)
    }
}

const DAMAGED_BLOCK: &str = "a block of the index does not fit its checksum";

/// Reads a range of a file; fewer bytes if the file ends first.
fn read_range(
    file: &dyn DiskFile,
    path: &str,
    range: Range<usize>,
    reads: &AtomicU64,
) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; range.len()];
    let offset = to_u64(range.start);
    reads.fetch_add(1, Ordering::Relaxed);
    let read = read_full(file, &mut bytes, offset).map_err(|error| Error::io("cannot read", path, error))?;
    bytes.truncate(read);
    Ok(bytes)
}

/// The header and the layout of a file of this length, checked against the bound the caller expects.
fn check_header(bytes: &[u8], length: usize, bound: &Bound) -> Result<(Header, Layout), Damage> {
    let header = Header::read(bytes)?;
    if header.bound != *bound {
        return Err(Damage::Bad("the index belongs to another segment, or another state of it"));
    }
    let layout = header.layout();
    if layout.table.end != length || u32::try_from(length).is_err() {
        return Err(Damage::Bad("the index's length is not the one its header says"));
    }
    Ok((header, layout))
}

/// Checks the table of the blocks' checksums.
fn check_table(header: &Header, checksums: &[u8], length: usize) -> Result<(), Damage> {
    if checksums.len() != length || checksum(&[checksums]) != header.table_checksum {
        return Err(Damage::Bad("the index's table of checksums does not fit its own"));
    }
    Ok(())
}

/// Checks one block against its checksum in the table.
fn check_block(checksums: &[u8], block: usize, bytes: &[u8]) -> Result<(), Damage> {
    let right = checksums.get(block * 4..).filter(|rest| rest.len() >= 4).map(|rest| u32_at(rest, 0));
    if right == Some(checksum(&[bytes])) { Ok(()) } else { Err(Damage::Bad(DAMAGED_BLOCK)) }
}

/// The ordinals of the events.
fn read_gaps(header: &Header, section: &[u8]) -> Result<GappedSequence<OrdinalJumps>, Damage> {
    const WRONG: Damage = Damage::Bad("the ordinals of the index do not fit its counts");
    let (section, _) = section.as_chunks::<GAP>();
    let mut gaps = Vec::new();
    let mut slot = 0;
    let mut ordinal = u64::from(header.ordinals.start);
    for gap in section {
        let (next_slot, next) = read_gap(gap);
        let run = next_slot.checked_sub(slot).filter(|run| *run > 0 && next_slot < header.events);
        let run_end = ordinal + u64::from(run.ok_or(WRONG)?);
        if u64::from(next) <= run_end {
            return Err(WRONG);
        }
        gaps.push((next_slot, next));
        slot = next_slot;
        ordinal = next.into();
    }
    if ordinal + u64::from(header.events - slot) != u64::from(header.ordinals.end) {
        return Err(WRONG);
    }
    Ok(GappedSequence::new(to_usize(header.events), header.ordinals.start.into(), OrdinalJumps(gaps)))
}

/// The name of the section at an offset.
fn section(layout: &Layout, at: usize) -> &'static str {
    let Layout { filter, slots, anchors, terms, gaps, jumps, removed, large_frames, offsets, lists, .. } =
        layout;
    let sections = [
        (lists, "lists of events"),
        (offsets, "offsets of events"),
        (large_frames, "large frames"),
        (removed, "removed frames"),
        (jumps, "gaps in versions"),
        (gaps, "gaps"),
        (terms, "terms"),
        (anchors, "anchors of terms"),
        (slots, "slots of terms"),
        (filter, "filter"),
    ];
    sections.iter().find(|(section, _)| section.start <= at).map_or("counts", |(_, name)| name)
}

/// The offset of the counts in the header: behind the bound.
const COUNTS: usize = Bound::END;

/// The offset at which a piece of the file first differs from the right bytes. The header is left out.
fn difference(bytes: &[u8], right: &[u8], piece: Range<usize>) -> Option<usize> {
    let start = piece.start.max(HEADER);
    let bytes = bytes.get(start - piece.start..).unwrap_or_default();
    let right = right.get(start..piece.end.min(right.len())).unwrap_or_default();
    let same = bytes.iter().zip(right).take_while(|(one, other)| one == other).count();
    (bytes.len() != right.len() || same < bytes.len()).then_some(start + same)
}
