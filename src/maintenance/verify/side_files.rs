//! The files beside the segments that speak of the log: MARK, the index files and the tree files.
//!
//! MARK names places, and the walk must pass them. The walk builds the index of each segment again in memory,
//! up to the end that its index file states. Then the two are compared. So are the hashes of a tree file.
//! Tested by tests/it/checking.rs and tests/it/verify_indexes.rs.

use std::sync::Arc;

use crate::disk::{Access, Disk, DiskFile, if_there, read_full};
use crate::format::{Frame, Manifest, Mark, POSITIONS_END, SegmentId, TreeFile, TreeFileHead};
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

/// The index and tree files of the segments, compared one after the other.
pub(super) struct Indexes<'a> {
    disk: &'a dyn Disk,
    /// The store in which the log began.
    origin: [u8; 16],
    part: TrustedIndex,
    /// The index file of the current segment, if there is one.
    file: Option<IndexFile>,
    /// Its tree file, if there is one.
    tree: Option<TreeCheck>,
}

/// A tree file, and the hashes of the frames that the walk has met.
struct TreeCheck {
    path: String,
    /// What the file says; `Err` has the reason why no reader uses it.
    read: Result<(TreeFileHead, TreeFile), String>,
    /// `None` if the log has no hashes here.
    met: Option<TreeFile>,
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
        Some(Indexes { disk, origin, part, file: None, tree: None })
    }

    /// Begins with a segment.
    pub(super) fn begin(&mut self, segment: &SegmentFile) -> Result<(), Error> {
        let id = segment.header.id;
        let path = id.index_path();
        self.file = None;
        self.tree = TreeCheck::begin(self.disk, id)?;
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
        self.tree.iter_mut().for_each(|tree| tree.insert(segment, frame));
        match &mut self.file {
            Some(IndexFile { end, state: IndexCheck::Building(index), .. }) if offset < *end => {
                index.insert(segment, offset, frame).is_ok()
            }
            _ => true,
        }
    }

    /// Stops comparing: the chain is broken here.
    pub(super) fn stop_comparing(&mut self) {
        self.tree.iter_mut().for_each(|tree| tree.met = None);
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

    /// Ends a segment at `tip`, and reports what is wrong with its index and tree file. `seal` is the offset
    /// of the seal.
    pub(super) fn end(&mut self, seal: Option<u32>, id: SegmentId, tip: &LogEnd, report: &mut VerifyReport) {
        const OTHER: &str = "the index belongs to another segment, or another state of it";
        if let Some(tree) = self.tree.take() {
            let LogEnd { offset, position, chain, .. } = *tip;
            tree.end(
                &Bound { store_id: self.origin, segment: id, end: offset, last_position: position, chain },
                report,
            );
        }
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

impl TreeCheck {
    fn begin(disk: &dyn Disk, id: SegmentId) -> Result<Option<TreeCheck>, Error> {
        let path = id.tree_path();
        let failed = |error| Error::io("cannot read", &path, error);
        let Some(file) = if_there(disk.open(&path, Access::Read)).map_err(failed)? else { return Ok(None) };
        let mut bytes = vec![0; TreeFileHead::BYTES_MAX];
        let length = read_full(file.as_ref(), &mut bytes, 0).map_err(failed)?;
        bytes.truncate(length);
        let read = match TreeFileHead::read(&bytes) {
            // The file says how long it is; memory is taken only if that is so.
            Ok(head) if to_u64(head.file_bytes()) == file.length().map_err(failed)? => {
                bytes.resize(head.file_bytes(), 0);
                read_full(file.as_ref(), &mut bytes, 0).map_err(failed)?;
                TreeFile::read(&bytes).map_err(|damage| damage.to_string())
            }
            Ok(_) => Err("the tree file is not as long as its header says".to_owned()),
            Err(damage) => Err(damage.to_string()),
        };
        // A file can have any name; no leaf is at such a position.
        let has_leaves = (1..POSITIONS_END).contains(&id.first_position);
        Ok(Some(TreeCheck { path, read, met: has_leaves.then(|| TreeFile::new(id)) }))
    }

    /// Adds a whole frame. Behind removed events nothing can be compared.
    fn insert(&mut self, segment: &SegmentFile, frame: &Frame<'_>) {
        let first =
            u64::from(frame.header.position_offset()).saturating_add(segment.header.id.first_position);
        let before = first.saturating_sub(1);
        let hashed = self.met.take().filter(|met| met.pieces().leaves().end == before);
        self.met = hashed.and_then(|mut met| met.push_frame(frame, before).is_ok().then_some(met));
    }

    /// Ends the segment, and reports what is wrong with the file.
    fn end(self, bound: &Bound, report: &mut VerifyReport) {
        let TreeCheck { path, read, met } = self;
        report.indexes_compared += 1;
        let (what, is_believed) = match (read, met) {
            (Err(what), _) => (what, false),
            (Ok((head, _)), _) if head.bound != *bound => {
                ("the hashes belong to another segment, or another state of it".to_owned(), false)
            }
            (Ok((head, hashes)), Some(met)) if hashes != met || hashes.check(&head).is_err() => {
                ("its hashes are not those of the log".to_owned(), true)
            }
            (Ok(_), _) => return,
        };
        report.indexes.push(IndexFlaw { file: path, offset: 0, what, is_believed });
    }
}
