//! Compares an index file with the bytes it should have, for verification.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::disk::DiskFile;
use crate::format::Damage;
use crate::format::index_file::{BLOCK, Bound, HEADER, Header, Layout, block_place};
use crate::types::Error;

use super::{SealedIndex, check_block, check_header, check_table, read_range};

/// A defect of an index file, and its offset.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum IndexDefect {
    /// Its checks fail, so readers build the index again.
    Unusable(usize, String),
    /// Its checks pass, so readers use it, but this section is wrong.
    Wrong(usize, &'static str),
}

/// The bytes read at once.
const PIECE: usize = 64 * BLOCK;

impl SealedIndex {
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
}

/// The name of the section at an offset.
fn section(layout: &Layout, at: usize) -> &'static str {
    let Layout { filter, slots, anchors, terms, jumps, removed, offsets, lists, .. } = layout;
    let sections = [
        (lists, "lists of events"),
        (offsets, "offsets of frames"),
        (removed, "removed frames"),
        (jumps, "gaps"),
        (terms, "terms"),
        (anchors, "anchors of terms"),
        (slots, "slots of terms"),
        (filter, "filter"),
    ];
    sections.iter().find(|(section, _)| section.start <= at).map_or("counts", |(_, name)| name)
}

/// The offset of the counts in the header.
const COUNTS: usize = 112;

/// The offset at which a piece of the file first differs from the right bytes. The header is left out.
fn difference(bytes: &[u8], right: &[u8], piece: Range<usize>) -> Option<usize> {
    let start = piece.start.max(HEADER);
    let bytes = bytes.get(start - piece.start..).unwrap_or_default();
    let right = right.get(start..piece.end.min(right.len())).unwrap_or_default();
    let same = bytes.iter().zip(right).take_while(|(one, other)| one == other).count();
    (bytes.len() != right.len() || same < bytes.len()).then_some(start + same)
}
