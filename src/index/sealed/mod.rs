//! An index file, asked where it lies: whole in memory, or read a block at a time.
//!
//! What is asked is read and checked then, and kept for the one question only; between questions a file costs its
//! filter and its checksums. Its bytes are hostile even where the checksums fit: what they say is compared with
//! what is there, and a search in them ends whatever they say.
//! Invariant: the header, the ordinals' gaps, and every block that is looked at have passed their checks.
//! SPEC.md "Index file". Row: index.

mod answers;
mod compare;
mod list;
mod reading;
mod terms;
mod thaw;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::{DiskFile, read_full};
use crate::format::index_file::{
    BLOCK, Bound, HEADER, Header, JUMP, Layout, TermHash, block_place, filter_holds, read_jump,
};
use crate::format::{Damage, checksum, u32_at};
use crate::types::{Error, ErrorKind, to_u64, to_usize};

use super::numbers::{Jumps, Numbers};
use reading::Reading;

pub(crate) use compare::Flaw;

/// The index of a segment's frames up to an offset, as an immutable file.
pub(crate) struct Sealed {
    /// From the store's directory; for messages.
    path: String,
    header: Header,
    layout: Layout,
    ordinals: Numbers<Gaps>,
    source: Source,
    /// How often it went to the file.
    reads: AtomicU64,
}

/// Where its bytes come from.
enum Source {
    /// All of them, checked.
    Whole(Arc<[u8]>),
    /// What every question needs, checked; the rest is checked when it is read.
    File { file: Arc<dyn DiskFile>, filter: Vec<u8>, checksums: Vec<u8> },
}

/// Slot and ordinal where an ordinal does not follow the one before it.
struct Gaps(Vec<(u32, u32)>);

impl Jumps for Gaps {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn jump(&self, at: usize) -> (usize, u64) {
        let (slot, ordinal) = self.0[at];
        (to_usize(slot), ordinal.into())
    }
}

impl Sealed {
    /// The index file whose bytes these are; why not, if they are damaged, of another bound, or from a newer
    /// version. `path` is for messages.
    pub(crate) fn whole(bytes: Arc<[u8]>, path: &str, bound: &Bound) -> Result<Sealed, Damage> {
        let (header, layout) = check_header(&bytes, bytes.len(), bound)?;
        let table = layout.table.clone();
        let checksums = &bytes[table.clone()];
        check_table(&header, checksums, table.len())?;
        for block in 0..table.start.div_ceil(BLOCK) {
            check_block(checksums, block, &bytes[block_place(block, table.start)])?;
        }
        let ordinals = read_gaps(&header, &bytes[layout.jumps.range()])?;
        let (path, source) = (path.to_owned(), Source::Whole(bytes));
        Ok(Sealed { path, header, layout, ordinals, source, reads: AtomicU64::new(0) })
    }

    /// The index file that is open here, to be read as it is asked; the outer error is one of the disk, the
    /// inner one says why the file is not the one that is looked for.
    pub(crate) fn open(
        file: Arc<dyn DiskFile>,
        path: &str,
        bound: &Bound,
    ) -> Result<Result<Sealed, Damage>, Error> {
        let length = file.length().map_err(|error| Error::io("cannot read the length of", path, error))?;
        let Ok(length) = usize::try_from(length) else { return Ok(Err(Damage::Bad("the file is too long"))) };
        let reads = AtomicU64::new(0);
        let read = |range: Range<usize>| read_range(file.as_ref(), path, range, &reads);
        let (header, layout) = match check_header(&read(0..length.min(HEADER))?, length, bound) {
            Ok(found) => found,
            Err(damage) => return Ok(Err(damage)),
        };
        let checksums = read(layout.table.clone())?;
        if let Err(damage) = check_table(&header, &checksums, layout.table.len()) {
            return Ok(Err(damage));
        }
        let source = Source::File { file: file.clone(), filter: Vec::new(), checksums };
        let ordinals = Numbers::new(0, 0, Gaps(Vec::new()));
        Sealed { path: path.to_owned(), header, layout, ordinals, source, reads }.complete()
    }

    /// Reads what every question needs.
    fn complete(mut self) -> Result<Result<Sealed, Damage>, Error> {
        let (filter, gaps) = match self.read_filter_and_gaps() {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(Err(Damage::Bad(DAMAGED_BLOCK))),
            Err(error) => return Err(error),
        };
        self.ordinals = match read_gaps(&self.header, &gaps) {
            Ok(ordinals) => ordinals,
            Err(damage) => return Ok(Err(damage)),
        };
        if let Source::File { filter: empty, .. } = &mut self.source {
            *empty = filter;
        }
        Ok(Ok(self))
    }

    fn read_filter_and_gaps(&self) -> Result<(Vec<u8>, Vec<u8>), Error> {
        let Layout { filter, jumps, .. } = &self.layout;
        let reading = Reading::new(self);
        let filter = reading.piece(filter.range())?.to_vec();
        let gaps = reading.piece(jumps.start..jumps.at(to_usize(self.header.gaps)))?.to_vec();
        Ok((filter, gaps))
    }

    /// The same file, whole in memory.
    pub(crate) fn load(&self) -> Result<Result<Sealed, Damage>, Error> {
        let bytes = match &self.source {
            Source::Whole(bytes) => bytes.clone(),
            Source::File { file, .. } => {
                read_range(file.as_ref(), &self.path, 0..self.whole_bytes(), &self.reads)?.into()
            }
        };
        Ok(Sealed::whole(bytes, &self.path, &self.header.bound))
    }

    /// Whether a term may be here; if not, it is not. Asks the filter only, never the file.
    ///
    /// The hash is one of the store that the file is bound to.
    pub(crate) fn may_have(&self, hash: TermHash) -> bool {
        match &self.source {
            Source::Whole(bytes) => filter_holds(&bytes[self.layout.filter.range()], hash),
            Source::File { filter, .. } => filter_holds(filter, hash),
        }
    }

    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.source, Source::Whole(_))
    }

    /// How many frames its events stand in.
    pub(crate) fn frames(&self) -> u32 {
        self.header.frames
    }

    /// How many bytes of memory it holds.
    pub(crate) fn bytes(&self) -> usize {
        let held = match &self.source {
            Source::Whole(bytes) => bytes.len(),
            Source::File { filter, checksums, .. } => filter.len() + checksums.len(),
        };
        held + self.ordinals.jump_count() * size_of::<(u32, u32)>() + self.path.len() + size_of::<Sealed>()
    }

    /// How long the file is.
    pub(crate) fn whole_bytes(&self) -> usize {
        self.layout.table.end
    }

    /// How often it went to the file.
    pub(crate) fn pieces_read(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    fn damaged(&self, offset: usize, what: &str) -> Error {
        let text = format!(
            "{}, offset {offset}: {what}; it holds nothing that its segment does not, and is made again from that",
            self.path
        );
        Error::new(ErrorKind::Corrupt, text)
    }
}

const DAMAGED_BLOCK: &str = "a block of the index does not fit its checksum";

/// Reads these bytes of a file, or as many as there are.
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

/// The header of a file of this length, if it is the one that is looked for.
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

fn check_table(header: &Header, checksums: &[u8], length: usize) -> Result<(), Damage> {
    if checksums.len() != length || checksum(&[checksums]) != header.table_checksum {
        return Err(Damage::Bad("the index's table of checksums does not fit its own"));
    }
    Ok(())
}

fn check_block(checksums: &[u8], block: usize, bytes: &[u8]) -> Result<(), Damage> {
    let right = checksums.get(block * 4..).filter(|rest| rest.len() >= 4).map(|rest| u32_at(rest, 0));
    if right == Some(checksum(&[bytes])) { Ok(()) } else { Err(Damage::Bad(DAMAGED_BLOCK)) }
}

/// Which ordinals there are, by the gaps at the start of the jumps.
fn read_gaps(header: &Header, jumps: &[u8]) -> Result<Numbers<Gaps>, Damage> {
    const WRONG: Damage = Damage::Bad("the ordinals of the index do not fit its counts");
    let (jumps, _) = jumps.as_chunks::<JUMP>();
    let mut gaps = Vec::new();
    let (mut slot, mut ordinal) = (0, u64::from(header.ordinals.start));
    for jump in jumps.get(..to_usize(header.gaps)).ok_or(WRONG)? {
        let (next_slot, next) = read_jump(jump);
        let run = next_slot.checked_sub(slot).filter(|run| *run > 0 && next_slot < header.events);
        let run_end = ordinal + u64::from(run.ok_or(WRONG)?);
        let gap = u32::try_from(next).ok().filter(|_| next > run_end).ok_or(WRONG)?;
        gaps.push((next_slot, gap));
        (slot, ordinal) = (next_slot, next);
    }
    if ordinal + u64::from(header.events - slot) != u64::from(header.ordinals.end) {
        return Err(WRONG);
    }
    Ok(Numbers::new(to_usize(header.events), header.ordinals.start.into(), Gaps(gaps)))
}
