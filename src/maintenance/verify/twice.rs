//! Facts that stand twice: in MANIFEST and in a segment, in MARK and in the log, in a name and behind it.
//!
//! Row: ops. Tested by tests/it/checking.rs.

use std::fmt::Display;

use super::{Before, Passage, Verifier};
use crate::format::{Mark, Seal, SegmentEntry, SegmentId, genesis, manifest, mark};
use crate::log::{LogEnd, POSITION_MAX, SegmentFile};
use crate::types::{Error, ErrorKind, to_u64};

/// The valid slots of MARK, and which of the places they name the walk came by.
pub(super) struct Slots<'a> {
    /// The newer one first.
    marks: &'a [Mark],
    met: [bool; 2],
}

impl<'a> Slots<'a> {
    pub(super) fn of(marks: &'a [Mark]) -> Slots<'a> {
        Slots { marks, met: [false; 2] }
    }

    pub(super) fn newest(&self) -> Option<&'a Mark> {
        self.marks.first()
    }

    /// The walk stands here.
    pub(super) fn meet(&mut self, segment: &SegmentFile, tip: &LogEnd) {
        for (mark, met) in self.marks.iter().zip(&mut self.met) {
            *met |= mark.segment == segment.header.id && tip.is_at(mark);
        }
    }

    /// Segments up to this one are not looked at.
    pub(super) fn pass(&mut self, id: SegmentId) {
        for (mark, met) in self.marks.iter().zip(&mut self.met) {
            *met |= mark.segment <= id;
        }
    }

    fn unmet(&self) -> impl Iterator<Item = (&'a Mark, &'static str)> {
        const NEWER: &str =
            "acknowledged data is damaged or missing: MARK speaks of appends that are not there";
        const OLDER: &str = "the older slot of MARK speaks of appends that are not there";
        let named = self.marks.iter().zip([NEWER, OLDER]);
        named.zip(self.met).filter(|(_, met)| !met).map(|(named, _)| named)
    }
}

impl<'a> Verifier<'a, '_, '_> {
    /// What reading MANIFEST and MARK came to, and whether what MANIFEST lists follows on.
    pub(super) fn check_small_files<T>(
        &mut self,
        manifest: Result<Option<T>, Error>,
        slots: &Result<Vec<Mark>, Error>,
    ) -> Result<(), Error> {
        match manifest {
            Err(error) => self.damaged_file(manifest::NAME, error)?,
            Ok(None) => self.found(manifest::NAME, 0, "the file is missing"),
            Ok(Some(_)) => {}
        }
        match slots {
            Err(error) => self.damaged_file(mark::NAME, error.clone())?,
            Ok(marks) => self.report.mark_found = !marks.is_empty(),
        }
        let own = self.manifest.map(|manifest| manifest.store_id);
        let is_foreign = |mark: &Mark| own.is_some_and(|own| mark.store_id != own);
        if slots.as_ref().is_ok_and(|marks| marks.iter().any(is_foreign)) {
            self.found(mark::NAME, 0, "it belongs to another store than MANIFEST");
            self.slots = Slots::of(&[]);
        }
        self.check_entries();
        Ok(())
    }

    fn damaged_file(&mut self, name: &str, error: Error) -> Result<(), Error> {
        match error.kind() {
            ErrorKind::Corrupt | ErrorKind::NeedsNewer => self.found(name, 0, error),
            _ => return Err(error),
        }
        Ok(())
    }

    /// The entries of MANIFEST follow one another.
    fn check_entries(&mut self) {
        let Some(manifest) = self.manifest else { return };
        let mut last = (0, 0);
        for (index, sealed) in manifest.sealed.iter().enumerate() {
            let (position, recorded_at) = last;
            let follows = sealed.id.first_position == u64::saturating_add(position, 1)
                && sealed.recorded_before == recorded_at
                && (position..=POSITION_MAX).contains(&sealed.last_position);
            if !follows {
                let offset = to_u64(manifest.entry_at(index));
                let what = "the segments that the file lists do not follow one another";
                self.found_before(sealed.id.first_position, manifest::NAME, offset, what);
            }
            last = (sealed.last_position, sealed.last_recorded_at);
        }
    }

    pub(super) fn listed(&self, id: SegmentId) -> Option<&'a SegmentEntry> {
        self.manifest.and_then(|manifest| manifest.sealed.iter().find(|sealed| sealed.id == id))
    }

    /// The segments that make up the store, in order: those that MANIFEST lists, and those behind that are
    /// there.
    pub(super) fn ids(&self, names: &[String]) -> Vec<SegmentId> {
        let sealed = self.manifest.map(|manifest| manifest.sealed.as_slice()).unwrap_or_default();
        let next = sealed.last().map_or(1, |sealed| sealed.last_position.saturating_add(1));
        let ends_here = self.manifest.is_some_and(|manifest| manifest.is_cut);
        let is_later = |id: &SegmentId| !ends_here && id.generation == 0 && id.first_position >= next;
        let there = names.iter().filter_map(|name| SegmentId::parse(name));
        let mut later: Vec<SegmentId> =
            there.filter(|id| is_later(id) && self.listed(*id).is_none()).collect();
        later.sort_unstable();
        sealed.iter().map(|sealed| sealed.id).chain(later).collect()
    }

    /// A segment cannot be read. The log goes on where MANIFEST says that the segment ends.
    pub(super) fn unreadable(&mut self, id: SegmentId, what: impl Display) {
        self.found_before(id.first_position, &id.path(), 0, what);
        self.before = self.listed(id).map_or(Before::Unknown, |listed| Before::At(LogEnd::of_sealed(listed)));
    }

    /// The seal of a segment was not met. If MANIFEST lists it, it says where the log goes on.
    pub(super) fn goes_on_as_listed(&mut self, id: SegmentId) {
        if let Some(listed) = self.listed(id) {
            self.before = Before::At(LogEnd::of_sealed(listed));
        }
    }

    /// A segment begins where the one before it ends.
    pub(super) fn check_continues(&mut self, segment: &SegmentFile) {
        let header = &segment.header;
        self.check_origin(segment);
        let (position, recorded_at, chain) = match self.before {
            Before::Nothing => (0, 0, genesis(&header.store_id)),
            Before::At(tip) => (tip.position, tip.recorded_at, tip.chain),
            Before::Skipped => return self.meet_skipped(segment),
            Before::Unknown => return,
        };
        if header.id.first_position != position.saturating_add(1) {
            self.found(&segment.path, 0, "the segment before this one is missing");
        } else if header.id.first_position > POSITION_MAX {
            self.found(&segment.path, 0, "the segment begins at an impossible position");
        } else if header.chain_before != chain || header.recorded_before != recorded_at {
            self.found(&segment.path, 0, "the segment does not continue the one before it");
        }
    }

    /// A segment was created by this store, or by one that it stems from: by none that is older than the one
    /// before.
    fn check_origin(&mut self, segment: &SegmentFile) {
        let Some(manifest) = self.manifest else { return };
        let own = &segment.header.store_id;
        let lineage = &manifest.lineage;
        let place = lineage.iter().position(|origin| origin.store_id == *own);
        match place.or_else(|| (*own == manifest.store_id).then_some(lineage.len())) {
            None => self.found(&segment.path, 0, "the segment belongs to another store"),
            Some(place) if place < self.origin => {
                self.found(
                    &segment.path,
                    0,
                    "the segment was created by an older store than the one before it",
                );
            }
            Some(place) => self.origin = place,
        }
    }

    /// MANIFEST repeats what header and seal say, and says how many streams begin in a segment.
    pub(super) fn check_listing(&mut self, segment: &SegmentFile, passage: &Passage, found: &Seal) {
        let Some(listed) = self.listed(segment.header.id) else { return };
        let offset = passage.tip.offset.into();
        if !listed.fits(&SegmentEntry::new(&segment.header, found)) {
            self.found(&segment.path, offset, "the segment is not as MANIFEST lists it");
            return;
        }
        // Streams that began with events that were removed still count.
        let possible = passage.born..=passage.born.saturating_add(passage.removed);
        if let Some(born) = listed.annotations.streams_created()
            && !passage.is_damaged
            && !possible.contains(&born)
        {
            let what = format!("{} streams begin in the segment, and MANIFEST says {born}", passage.born);
            self.found(&segment.path, offset, what);
        }
    }

    /// Both slots of MARK speak of places that the walk came by. A break in a segment hides those in it.
    pub(super) fn check_slots(&mut self) {
        let unmet: Vec<(&Mark, &str)> = self.slots.unmet().collect();
        for (mark, what) in unmet {
            let path = mark.segment.path();
            if self.report.findings.iter().all(|known| known.file != path) {
                self.found_before(mark.position.saturating_add(1), &path, mark.durable_end.into(), what);
            }
        }
    }
}
