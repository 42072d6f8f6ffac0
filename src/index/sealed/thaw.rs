//! An index file as an index in memory again, to which more can be added.
//!
//! Row: index.

use crate::format::index_file::{Layout, NUMBER};
use crate::format::{Damage, u32_at};
use crate::index::Index;
use crate::index::list::List;
use crate::types::{Error, to_usize};

use super::list::{SealedList, versions};
use super::reading::Reading;
use super::{Sealed, Source};

impl Sealed {
    /// The same index in memory.
    pub(in crate::index) fn thaw(&self) -> Result<Index, Error> {
        if let Source::File { .. } = self.source {
            let whole = self.load()?;
            return whole.map_err(|damage: Damage| self.damaged(0, &damage.to_string()))?.thaw();
        }
        let reading = Reading::new(self);
        let index = reading.thaw();
        reading.answered(index)
    }
}

impl Reading<'_> {
    fn thaw(&self) -> Result<Index, Error> {
        let header = &self.sealed.header;
        let Layout { offsets, removed, .. } = &self.sealed.layout;
        let mut index = Index::new(header.bound.end);
        index.born = header.born;
        index.frames = header.frames;
        for slot in 0..to_usize(header.events) {
            index.ordinals.push(self.sealed.ordinals.at(slot));
        }
        index.offsets =
            self.piece(offsets.range())?.chunks_exact(NUMBER).map(|offset| u32_at(offset, 0)).collect();
        if !index.offsets.is_sorted() || index.offsets.last().is_some_and(|last| *last >= index.end) {
            return Err(self.sealed.damaged(offsets.start, "an event of the index lies where none can"));
        }
        let ranges = self.piece(removed.range())?;
        index.removed = ranges.chunks_exact(8).map(|range| u32_at(range, 0)..u32_at(range, 4)).collect();
        if !are_apart(&index) {
            return Err(self
                .sealed
                .damaged(removed.start, "what was removed does not fit the events of the index"));
        }
        let mut at = 0;
        while at < self.terms_end() {
            let found = self.term_at(at, 0)?;
            let list = SealedList::of(self, &found.term).to_vec();
            let inserted = index.insert_term(&found.term, &found.name, &versions(self, &found.term), list);
            inserted.map_err(|what| self.sealed.damaged(at, what))?;
            at = found.end;
        }
        Ok(index)
    }
}

/// Whether no event lies in what was removed, and no removed part in another.
fn are_apart(index: &Index) -> bool {
    let mut end = 0;
    index.removed.iter().all(|removed| {
        let before = |offset: u32| index.offsets.partition_point(|own| *own < offset);
        let apart = end <= removed.start && removed.start < removed.end && removed.end <= index.end;
        end = removed.end;
        apart && before(removed.start) == before(removed.end)
    })
}
