//! Whether index files say what the log says.
//!
//! The index of a segment is made anew of its frames as they are met, up to where the file says that it ends, and the file
//! compared with that.
//! Row: ops. Tested by tests/it/verify_indexes.rs.

use std::sync::Arc;

use crate::disk::{Access, Disk, DiskFile};
use crate::format::{Frame, Manifest, SegmentId};
use crate::index::{Bound, Flaw, Index, Sealed};
use crate::log::{LogEnd, SegmentFile};
use crate::types::{Error, IndexFlaw, VerifyReport, to_u64};

pub(super) struct Indexes<'a> {
    disk: &'a dyn Disk,
    /// The store that the log began in.
    origin: [u8; 16],
    part: Part,
    /// Of the segment that is gone through, if it has an index file.
    file: Option<IndexFile>,
}

struct IndexFile {
    id: SegmentId,
    path: String,
    file: Arc<dyn DiskFile>,
    /// Where it says that it ends.
    end: u32,
    state: State,
}

enum State {
    /// Not there yet: the index of what was met so far.
    Making(Box<Index>),
    Compared(Option<Flaw>),
    /// The log cannot be indexed.
    GivenUp,
}

/// Which index of a segment that is not sealed readers believe.
pub(super) enum Part {
    /// Only the one that ends there, if that is somewhere.
    EndsAt(Option<(SegmentId, u32)>),
    /// Somebody has the store open, and may have begun with any.
    Unknown,
}

impl<'a> Indexes<'a> {
    /// Nothing if it is not known whose the log is.
    pub(super) fn of(disk: &'a dyn Disk, manifest: Option<&Manifest>, part: Part) -> Option<Indexes<'a>> {
        let manifest = manifest?;
        let origin = manifest.lineage.first().map_or(manifest.store_id, |first| first.store_id);
        Some(Indexes { disk, origin, part, file: None })
    }

    /// A segment is gone through from its beginning.
    pub(super) fn begin(&mut self, segment: &SegmentFile) -> Result<(), Error> {
        let (id, path) = (segment.header.id, segment.header.id.index_path());
        self.file = None;
        let file: Arc<dyn DiskFile> = match self.disk.open(&path, Access::Read) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(|error| Error::io("cannot open", &path, error))?.into(),
        };
        let tip = LogEnd::start(segment);
        let (end, state) = match Sealed::bound_of(file.as_ref(), &path)? {
            Ok(bound) => (bound.end, State::Making(Box::new(Index::new(tip.offset)))),
            Err(damage) => (0, State::Compared(Some(Flaw::Unusable(0, damage.to_string())))),
        };
        self.file = Some(IndexFile { id, path, file, end, state });
        Ok(())
    }

    /// A whole frame, at an offset. Says whether an index can hold it.
    pub(super) fn insert(&mut self, segment: &SegmentFile, offset: u32, frame: &Frame<'_>) -> bool {
        match &mut self.file {
            Some(IndexFile { end, state: State::Making(index), .. }) if offset < *end => {
                index.insert(segment, offset, frame).is_ok()
            }
            _ => true,
        }
    }

    /// The log is broken here.
    pub(super) fn give_up(&mut self) {
        if let Some(IndexFile { state: state @ State::Making(_), .. }) = &mut self.file {
            *state = State::GivenUp;
        }
    }

    /// The walk has come to this place.
    pub(super) fn came_to(&mut self, tip: &LogEnd) -> Result<(), Error> {
        let Some(IndexFile { id, path, file, end, state }) = &mut self.file else { return Ok(()) };
        let State::Making(index) = state else { return Ok(()) };
        if tip.offset < *end {
            return Ok(());
        }
        index.finish(tip.offset);
        let bound = Bound {
            store_id: self.origin,
            segment: *id,
            end: tip.offset,
            last_position: tip.position,
            chain: tip.chain,
        };
        *state = match index.encode(&bound) {
            Some(right) => State::Compared(Sealed::flaw(file, path, &bound, &right)?),
            // Then nobody writes it, nor builds it.
            None => State::GivenUp,
        };
        Ok(())
    }

    /// The segment is through; `seal`: where it is sealed. What is wrong with its index file, if it has one.
    pub(super) fn end(&mut self, seal: Option<u32>, report: &mut VerifyReport) {
        const OTHER: &str = "the index belongs to another segment, or another state of it";
        let Some(IndexFile { id, path, end, state, .. }) = self.file.take() else { return };
        let is_believed = match (seal, &self.part) {
            (Some(seal), _) => end == seal,
            (None, Part::EndsAt(part)) => *part == Some((id, end)),
            (None, Part::Unknown) => true,
        };
        let flaw = match state {
            State::GivenUp => return,
            // It may speak of what was written since. If not, nobody believes it.
            State::Making(_) if seal.is_none() => return,
            State::Making(_) => Some(Flaw::Unusable(0, OTHER.to_owned())),
            State::Compared(None) if seal.is_some() && !is_believed => {
                Some(Flaw::Unusable(0, OTHER.to_owned()))
            }
            State::Compared(flaw) => flaw,
        };
        report.indexes_compared += 1;
        let (at, what, is_believed) = match flaw {
            None => return,
            Some(Flaw::Unusable(at, what)) => (at, what, false),
            Some(Flaw::Wrong(at, section)) => {
                (at, format!("its {section} are not those of the log"), is_believed)
            }
        };
        let offset = to_u64(at);
        report.indexes.push(IndexFlaw { file: path, offset, what, is_believed });
    }
}
