//! The files beside the segments that speak of the log: MARK and the index files.
//!
//! MARK names places, and the walk must pass them. The walk builds the index of each segment again in memory,
//! up to the end that its index file states. Then the two are compared. Tested by tests/it/checking.rs and
//! tests/it/verify_indexes.rs.

use std::sync::Arc;

use crate::disk::{Access, Disk, DiskFile, if_there};
use crate::format::{Frame, Manifest, Mark, SegmentId};
use crate::index::{Bound, IndexDefect, LiveIndex, SealedIndex};
use crate::log::{LogEnd, SegmentFile};
use crate::types::{Error, IndexFlaw, VerifyReport, to_u64};

/// The valid slots of MARK, and whether the walk passed the place of each.
pub(super) struct MarkSlots<'a> {
    /// The newer one first.
    marks: &'a [Mark],
    met: [bool; 2],
}

impl<'a> MarkSlots<'a> {
    pub(super) fn of(marks: &'a [Mark]) -> MarkSlots<'a> {
        MarkSlots { marks, met: [false; 2] }
    }

    pub(super) fn newest(&self) -> Option<&'a Mark> {
        self.marks.first()
    }

    /// Notes that the walk is at this place.
    pub(super) fn note_place(&mut self, segment: &SegmentFile, tip: &LogEnd) {
        for (mark, met) in self.marks.iter().zip(&mut self.met) {
            *met |= mark.segment == segment.header.id && tip.is_at(mark);
        }
    }

    /// Counts the slots of skipped segments as met.
    pub(super) fn note_skipped(&mut self, id: SegmentId) {
        for (mark, met) in self.marks.iter().zip(&mut self.met) {
            *met |= mark.segment <= id;
        }
    }

    pub(super) fn unmet(&self) -> impl Iterator<Item = (&'a Mark, &'static str)> {
        const NEWER: &str =
            "acknowledged data is damaged or missing: MARK speaks of appends that are not there";
        const OLDER: &str = "the older slot of MARK speaks of appends that are not there";
        let named = self.marks.iter().zip([NEWER, OLDER]);
        named.zip(self.met).filter(|(_, met)| !met).map(|(named, _)| named)
    }
}

/// The index files of the segments, compared one after the other.
pub(super) struct Indexes<'a> {
    disk: &'a dyn Disk,
    /// The store in which the log began.
    origin: [u8; 16],
    part: TrustedIndex,
    /// The index file of the current segment, if there is one.
    file: Option<IndexFile>,
}

struct IndexFile {
    id: SegmentId,
    path: String,
    file: Arc<dyn DiskFile>,
    /// The offset at which the index file says that it ends.
    end: u32,
    state: IndexCheck,
}

enum IndexCheck {
    /// Not compared yet: the index of the frames met so far.
    Building(Box<LiveIndex>),
    Compared(Option<IndexDefect>),
    /// The log cannot be indexed here.
    GivenUp,
}

/// Which index of the live segment readers trust.
pub(super) enum TrustedIndex {
    /// Only one that ends at the place that MARK names, or before it.
    EndsUpTo(Option<(SegmentId, u32)>),
    /// Another process has the store open, and may have begun with any.
    Unknown,
}

impl TrustedIndex {
    /// Of a store that no other process writes to. `marks` are the valid slots of MARK, the newer one first.
    pub(super) fn of_marks(marks: &[Mark]) -> TrustedIndex {
        TrustedIndex::EndsUpTo(marks.first().map(|mark| (mark.segment, mark.durable_end)))
    }
}

impl<'a> Indexes<'a> {
    /// `None` if the store's identity is not known.
    pub(super) fn of(
        disk: &'a dyn Disk,
        manifest: Option<&Manifest>,
        part: TrustedIndex,
    ) -> Option<Indexes<'a>> {
        let manifest = manifest?;
        let origin = manifest.lineage.first().map_or(manifest.store_id, |first| first.store_id);
        Some(Indexes { disk, origin, part, file: None })
    }

    /// Begins with a segment.
    pub(super) fn begin(&mut self, segment: &SegmentFile) -> Result<(), Error> {
        let id = segment.header.id;
        let path = id.index_path();
        self.file = None;
        let opened = if_there(self.disk.open(&path, Access::Read));
        let opened = opened.map_err(|error| Error::io("cannot open", &path, error))?;
        let Some(file) = opened.map(Arc::<dyn DiskFile>::from) else { return Ok(()) };
        let tip = LogEnd::start(segment);
        let (end, state) = match SealedIndex::bound_of(file.as_ref(), &path)? {
            Ok(bound) => (bound.end, IndexCheck::Building(Box::new(LiveIndex::new(tip.offset)))),
            Err(damage) => (0, IndexCheck::Compared(Some(IndexDefect::Unusable(0, damage.to_string())))),
        };
        self.file = Some(IndexFile { id, path, file, end, state });
        Ok(())
    }

    /// Adds a whole frame. Answers `false` if no index can hold it.
    pub(super) fn insert(&mut self, segment: &SegmentFile, offset: u32, frame: &Frame<'_>) -> bool {
        match &mut self.file {
            Some(IndexFile { end, state: IndexCheck::Building(index), .. }) if offset < *end => {
                index.insert(segment, offset, frame).is_ok()
            }
            _ => true,
        }
    }

    /// Stops comparing: the chain is broken here.
    pub(super) fn stop_comparing(&mut self) {
        if let Some(IndexFile { state: state @ IndexCheck::Building(_), .. }) = &mut self.file {
            *state = IndexCheck::GivenUp;
        }
    }

    /// Compares once the walk has reached the end that the index file states.
    pub(super) fn compare_at(&mut self, tip: &LogEnd) -> Result<(), Error> {
        let Some(IndexFile { id, path, file, end, state }) = &mut self.file else { return Ok(()) };
        let IndexCheck::Building(index) = state else { return Ok(()) };
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
            Some(right) => IndexCheck::Compared(SealedIndex::defect(file, path, &bound, &right)?),
            // No writer writes such an index, so there is nothing to compare.
            None => IndexCheck::GivenUp,
        };
        Ok(())
    }

    /// Ends a segment, and reports what is wrong with its index file. `seal` is the offset of the seal.
    pub(super) fn end(&mut self, seal: Option<u32>, report: &mut VerifyReport) {
        const OTHER: &str = "the index belongs to another segment, or another state of it";
        let Some(IndexFile { id, path, end, state, .. }) = self.file.take() else { return };
        let is_believed = match (seal, &self.part) {
            (Some(seal), _) => end == seal,
            (None, TrustedIndex::EndsUpTo(marked)) => {
                marked.is_some_and(|(segment, durable_end)| segment == id && end <= durable_end)
            }
            (None, TrustedIndex::Unknown) => true,
        };
        let flaw = match state {
            IndexCheck::GivenUp => return,
            // The file may cover events that were written later. If it does not, no reader trusts it.
            IndexCheck::Building(_) if seal.is_none() => return,
            IndexCheck::Building(_) => Some(IndexDefect::Unusable(0, OTHER.to_owned())),
            IndexCheck::Compared(None) if seal.is_some() && !is_believed => {
                Some(IndexDefect::Unusable(0, OTHER.to_owned()))
            }
            IndexCheck::Compared(flaw) => flaw,
        };
        report.indexes_compared += 1;
        let (at, what, is_believed) = match flaw {
            None => return,
            Some(IndexDefect::Unusable(at, what)) => (at, what, false),
            Some(IndexDefect::Wrong(at, section)) => {
                (at, format!("its {section} are not those of the log"), is_believed)
            }
        };
        let offset = to_u64(at);
        report.indexes.push(IndexFlaw { file: path, offset, what, is_believed });
    }
}
