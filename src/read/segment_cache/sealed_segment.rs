//! A part of the log that does not change any more: its segment's file and its index, both opened when
//! they are needed.
//!
//! Row: shelf.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use parking_lot::MutexGuard;

use crate::disk::{Access, DiskFile};
use crate::format::{Hash, SEAL_BYTES, Seal, SegmentEntry};
use crate::index::{Answers, Bound, Sealed, TermHash};
use crate::log::{Block, LogEnd, Outline, SegmentFile, damaged, missing};
use crate::types::{Error, to_u32, to_u64};

use super::SegmentCache;
use super::build::{build, write};
use super::lazy_file::{LazyFile, Pinned};
use super::lru::Place;
use super::resident::Resident;

/// Where a part stands in the log: what MANIFEST, or MARK, says of it without its file.
#[derive(Clone, Debug)]
pub(crate) struct SealedMeta {
    pub(crate) bound: Bound,
    pub(crate) frames: u32,
    pub(crate) events: u32,
    /// Chain and recorded-at of the last frame before its segment.
    pub(crate) chain_before: Hash,
    pub(crate) recorded_before: u64,
    /// Of the last frame.
    pub(crate) last_recorded_at: u64,
    /// How long the segment's file is, once it is sealed.
    pub(crate) file_bytes: Option<u32>,
}

impl SealedMeta {
    /// As MANIFEST lists it; `chain_before` is the chain of the one listed before.
    pub(crate) fn sealed(sealed: &SegmentEntry, origin: [u8; 16], chain_before: Hash) -> SealedMeta {
        let bound = Bound {
            store_id: origin,
            segment: sealed.id,
            end: sealed.length.saturating_sub(to_u32(SEAL_BYTES)),
            last_position: sealed.last_position,
            chain: sealed.chain,
        };
        SealedMeta {
            bound,
            frames: sealed.frames,
            events: sealed.events,
            chain_before,
            recorded_before: sealed.recorded_before,
            last_recorded_at: sealed.last_recorded_at,
            file_bytes: Some(sealed.length),
        }
    }

    /// The frames of an open segment's file up to where a walk stands.
    pub(crate) fn up_to(tip: &LogEnd, file: &SegmentFile, origin: [u8; 16]) -> SealedMeta {
        let header = &file.header;
        let (segment, end, last_position, chain) = (header.id, tip.offset, tip.position, tip.chain);
        SealedMeta {
            bound: Bound { store_id: origin, segment, end, last_position, chain },
            frames: tip.frames,
            events: tip.events,
            chain_before: header.chain_before,
            recorded_before: header.recorded_before,
            last_recorded_at: tip.recorded_at,
            file_bytes: None,
        }
    }

    /// What header and seal of the segment must say. (Of one that goes on there is no seal yet.)
    fn outline(&self) -> Outline {
        let SealedMeta { bound, chain_before, recorded_before, .. } = self;
        let seal = Seal {
            length: self.file_bytes.unwrap_or(0),
            last_position: bound.last_position,
            last_recorded_at: self.last_recorded_at,
            frames: self.frames,
            events: self.events,
            chain: bound.chain,
        };
        Outline { id: bound.segment, chain_before: *chain_before, recorded_before: *recorded_before, seal }
    }
}

/// One such part.
pub(crate) struct SealedSegment {
    shelf: Arc<SegmentCache>,
    listed: SealedMeta,
    file: OnceLock<Arc<SegmentFile>>,
    index: Arc<Place<Sealed>>,
    whole: Resident,
    /// Set once its segment was rewritten, and its files have no names any more.
    retired: Pinned,
}

impl SealedSegment {
    pub(crate) fn new(shelf: Arc<SegmentCache>, listed: SealedMeta) -> SealedSegment {
        let (index, whole) = (Arc::default(), Resident::default());
        SealedSegment { shelf, listed, file: OnceLock::new(), index, whole, retired: Pinned::default() }
    }

    /// The same, of a file that is open.
    pub(crate) fn with_file(
        shelf: Arc<SegmentCache>,
        listed: SealedMeta,
        file: Arc<SegmentFile>,
    ) -> SealedSegment {
        let stored = SealedSegment::new(shelf, listed);
        // It was just made, so there is none yet.
        let _ = stored.file.set(file);
        stored
    }

    /// The same, of which the index was just made; it is kept like any other.
    pub(crate) fn with_index(
        shelf: Arc<SegmentCache>,
        listed: SealedMeta,
        bytes: Option<Vec<u8>>,
    ) -> SealedSegment {
        let stored = SealedSegment::new(shelf, listed);
        let (path, bound) = (stored.listed.bound.segment.index_path(), &stored.listed.bound);
        if let Some(Ok(index)) = bytes.map(|bytes| Sealed::whole(bytes.into(), &path, bound)) {
            let bytes = size(&index);
            stored.shelf.indexes.put(&stored.index, Arc::new(index), bytes);
        }
        stored
    }

    /// Whether it is a whole segment, which is sealed.
    pub(crate) fn is_whole(&self) -> bool {
        self.listed.file_bytes.is_some()
    }

    /// How many bytes of its index are in memory.
    pub(crate) fn index_bytes(&self) -> u64 {
        self.index.look(size).unwrap_or(0)
    }

    /// The store whose id the terms of its index are hashed with.
    pub(crate) fn origin(&self) -> &[u8; 16] {
        self.shelf.origin()
    }

    pub(crate) fn listed(&self) -> &SealedMeta {
        &self.listed
    }

    /// The segment's file; opened, and its header checked, when it is first asked for.
    ///
    /// # Errors
    ///
    /// If it is gone, cannot be read, or is not the segment that is listed.
    pub(crate) fn file(&self) -> Result<&Arc<SegmentFile>, Error> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let opened = self.open_file()?;
        Ok(self.file.get_or_init(|| Arc::new(opened)))
    }

    /// Its segment was rewritten, and its files lose their names: whoever still reads it has the segment's file as long
    /// as it needs it, and nothing of it is kept otherwise.
    pub(crate) fn retire(&self) {
        let _ = self.file();
        match self.shelf.disk.open(&self.listed.bound.segment.path(), Access::Read) {
            Ok(file) => drop(self.retired.set(Arc::new(file))),
            // Of a file that was open before it is enough that it is open.
            Err(error) => tracing::warn!(%error, "a rewritten segment cannot be kept for those who read it"),
        }
        self.shelf.indexes.clear(&self.index);
        self.whole.clear(&self.shelf);
    }

    fn is_retired(&self) -> bool {
        self.retired.get().is_some()
    }

    fn open_file(&self) -> Result<SegmentFile, Error> {
        let outline = self.listed.outline();
        let path = outline.id.path();
        let (disk, room) = (self.shelf.disk.clone(), self.shelf.descriptors.clone());
        let file = LazyFile::pinned_by(self.retired.clone(), disk, path.clone(), room);
        let length = file.length().map_err(|error| match error.kind() {
            // Under a reader the writer may have rewritten it just now.
            std::io::ErrorKind::NotFound if self.shelf.writes => missing(outline.id),
            _ => Error::io("cannot open", &path, error),
        })?;
        let file = SegmentFile::from_file(Box::new(file), path)?;
        outline.check_header(&file, |store_id| self.shelf.knows(store_id))?;
        if self.is_whole() {
            outline.check_length(length)?;
        }
        Ok(file)
    }

    /// Looks at length, header and seal of the segment's file anew, if it is sealed. Nothing is kept of it.
    ///
    /// # Errors
    ///
    /// If it is not the segment that is listed, or cannot be read.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if !self.is_whole() {
            return Ok(());
        }
        let outline = self.listed.outline();
        let file = SegmentFile::open(self.shelf.disk.as_ref(), outline.id, Access::Read)?;
        outline.check_length(file.length()?)?;
        outline.check(&file, |store_id| self.shelf.knows(store_id))
    }

    /// A block that holds `run`: all of the segment if it is in memory, otherwise just that from the file, in the memory
    /// of an old block if that is free.
    ///
    /// # Errors
    ///
    /// As [`SealedSegment::file`].
    pub(crate) fn block(&self, run: &Range<u32>, old: Option<Block>) -> Result<Block, Error> {
        if let Some(block) = self.whole.block(&self.shelf) {
            return Ok(block);
        }
        let file = self.file()?;
        let block = file.block_over(old, run.clone())?;
        if !self.is_retired() {
            self.whole.note(run, &self.shelf, file, &self.listed.bound);
        }
        Ok(block)
    }

    /// How many bytes of the segment are in memory.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.whole.bytes()
    }

    /// Has the index answer. One that turns out to be damaged is built again, and asked again.
    ///
    /// # Errors
    ///
    /// If the segment itself cannot be read, or is damaged.
    pub(crate) fn ask<T>(&self, ask: impl Fn(&dyn Answers) -> Result<T, Error>) -> Result<T, Error> {
        let index = self.index()?;
        let answer = match ask(index.as_ref()) {
            Err(error) if !index.is_whole() => {
                tracing::warn!(%error, "an index is built again from its segment");
                return ask(self.rebuild()?.as_ref());
            }
            answer => answer?,
        };
        if !index.is_whole() && is_read_often(&index) {
            self.load(&index)?;
        }
        Ok(answer)
    }

    /// Whether the term may be in this part. `false` is certain.
    ///
    /// # Errors
    ///
    /// As [`SealedSegment::ask`].
    pub(crate) fn may_have(&self, term: TermHash) -> Result<bool, Error> {
        let seen = self.shelf.indexes.look(&self.index, |index| index.may_have(term));
        seen.map_or_else(|| Ok(self.index()?.may_have(term)), Ok)
    }

    /// Its index, from memory or from the disk, or made anew.
    ///
    /// # Errors
    ///
    /// As [`SealedSegment::ask`].
    pub(crate) fn index(&self) -> Result<Arc<Sealed>, Error> {
        self.shelf.indexes.get_or_make(&self.index, || {
            let path = self.listed.bound.segment.index_path();
            let file = LazyFile::new(self.shelf.disk.clone(), path.clone(), self.shelf.descriptors.clone());
            let index = match Sealed::open(Arc::new(file), &path, &self.listed.bound) {
                Ok(Ok(index)) if index.whole_bytes() <= SMALL => loaded(index)?,
                Ok(Ok(index)) => index,
                Ok(Err(damage)) => {
                    tracing::info!(path, %damage, "an index is built from its segment");
                    self.build()?
                }
                Err(error) => {
                    tracing::info!(path, %error, "an index is built from its segment");
                    self.build()?
                }
            };
            self.check_counts(&index)?;
            let bytes = size(&index);
            Ok((index, bytes))
        })
    }

    fn check_counts(&self, index: &Sealed) -> Result<(), Error> {
        let SealedMeta { frames, events, bound, .. } = &self.listed;
        if (index.frames(), index.events()) == (*frames, *events) {
            return Ok(());
        }
        let what = "the segment does not hold as many events as MANIFEST says";
        Err(Error::corrupt(&bound.segment.path(), bound.end.into(), what))
    }

    fn load(&self, index: &Sealed) -> Result<(), Error> {
        if !self.shelf.indexes.could_hold(to_u64(index.whole_bytes())) {
            return Ok(());
        }
        match index.load()? {
            Ok(whole) => {
                let bytes = size(&whole);
                self.shelf.indexes.put(&self.index, Arc::new(whole), bytes);
            }
            Err(_) => drop(self.rebuild()?),
        }
        Ok(())
    }

    /// Builds the index from the segment, whatever there is of it.
    ///
    /// # Errors
    ///
    /// As [`SealedSegment::ask`].
    pub(crate) fn rebuild(&self) -> Result<Arc<Sealed>, Error> {
        Ok(self.keep(self.build()?))
    }

    /// The same of a part of a segment that goes on, its file included: `_alone` keeps the whole segment's from being written meanwhile.
    ///
    /// # Errors
    ///
    /// As [`SealedSegment::ask`].
    pub(crate) fn rebuild_part(&self, _alone: &MutexGuard<'_, ()>) -> Result<Arc<Sealed>, Error> {
        let bytes = build(self.file()?, &self.listed.bound)?;
        if self.shelf.writes {
            write(self.shelf.disk.as_ref(), self.listed.bound.segment, &bytes);
        }
        Ok(self.keep(self.made_of(bytes)?))
    }

    fn keep(&self, index: Sealed) -> Arc<Sealed> {
        let bytes = size(&index);
        self.shelf.indexes.put(&self.index, Arc::new(index), bytes)
    }

    /// In memory and, where that is allowed, as its file.
    fn build(&self) -> Result<Sealed, Error> {
        let bytes = build(self.file()?, &self.listed.bound)?;
        // A part of a segment that goes on has had its file; by now that may be the whole segment's.
        if self.shelf.writes && self.is_whole() && !self.is_retired() {
            write(self.shelf.disk.as_ref(), self.listed.bound.segment, &bytes);
        }
        self.made_of(bytes)
    }

    fn made_of(&self, bytes: Vec<u8>) -> Result<Sealed, Error> {
        let path = self.listed.bound.segment.index_path();
        Sealed::whole(bytes.into(), &path, &self.listed.bound).map_err(|damage| damaged(&path, 0, &damage))
    }
}

impl Drop for SealedSegment {
    fn drop(&mut self) {
        self.shelf.indexes.clear(&self.index);
        self.whole.clear(&self.shelf);
    }
}

/// An index file of this size is read at once.
const SMALL: usize = 64 << 10;

fn loaded(index: Sealed) -> Result<Sealed, Error> {
    Ok(index.load()?.unwrap_or(index))
}

/// Once as much was read of it piece by piece as it has, it costs less to have it in memory: whoever knew
/// beforehand could have saved half.
fn is_read_often(index: &Sealed) -> bool {
    const PIECE: u64 = 4096;
    index.pieces_read().saturating_mul(PIECE) >= to_u64(index.whole_bytes())
}

fn size(index: &Sealed) -> u64 {
    to_u64(index.bytes())
}
