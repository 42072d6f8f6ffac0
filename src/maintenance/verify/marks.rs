//! The slots of MARK, and which of the places that they name the walk came by.

use crate::format::{Mark, SegmentId};
use crate::log::{LogEnd, SegmentFile};

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
