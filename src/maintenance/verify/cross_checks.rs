//! Facts that are stored twice must agree: MANIFEST and segments, MARK and log, heads and the chain. The
//! causes that events name must exist.
//!
//! Causes that the walk did not meet are looked for by reading the log again. Tested by tests/it/checking.rs
//! and tests/it/verify_causes.rs.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::format::{
    AnyRecord, Frame, Mark, SEGMENTS_DIRECTORY, Seal, SegmentEntry, SegmentId, genesis, manifest, mark,
};
use crate::log::{LogEnd, POSITION_MAX, SegmentCursor, SegmentFile, SegmentItem};
use crate::types::{Error, ErrorKind, Head, MissingCause, Position, VerifyReport, to_u64};

use super::remembered::{CauseLimits, Causes, WantedCauses, event_ids};
use super::search::{Search, behind};
use super::side_files::MarkSlots;
use super::walk::{LogBefore, SegmentWalk, Verifier};

impl<'a> Verifier<'a, '_, '_> {
    /// Adds findings about MANIFEST and MARK themselves.
    pub(super) fn check_small_files<T>(
        &mut self,
        manifest: Result<Option<T>, Error>,
        slots: &Result<Vec<Mark>, Error>,
    ) -> Result<(), Error> {
        match manifest {
            Err(error) => self.damaged_file(manifest::NAME, error)?,
            Ok(None) => self.add_finding(manifest::NAME, 0, "the file is missing"),
            Ok(Some(_)) => {}
        }
        match slots {
            Err(error) => self.damaged_file(mark::NAME, error.clone())?,
            Ok(marks) => self.report.mark_found = !marks.is_empty(),
        }
        let own = self.manifest.map(|manifest| manifest.store_id);
        let is_foreign = |mark: &Mark| own.is_some_and(|own| mark.store_id != own);
        if slots.as_ref().is_ok_and(|marks| marks.iter().any(is_foreign)) {
            self.add_finding(mark::NAME, 0, "it belongs to another store than MANIFEST");
            self.slots = MarkSlots::of(&[]);
        }
        self.check_entries();
        Ok(())
    }

    fn damaged_file(&mut self, name: &str, error: Error) -> Result<(), Error> {
        match error.kind() {
            ErrorKind::Corrupt | ErrorKind::NeedsNewer => self.add_finding(name, 0, error),
            _ => return Err(error),
        }
        Ok(())
    }

    /// Checks that the entries of MANIFEST follow one another.
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
                self.add_finding_at(sealed.id.first_position, manifest::NAME, offset, what);
            }
            last = (sealed.last_position, sealed.last_recorded_at);
        }
    }

    pub(super) fn listed(&self, id: SegmentId) -> Option<&'a SegmentEntry> {
        self.manifest.and_then(|manifest| manifest.sealed.iter().find(|sealed| sealed.id == id))
    }

    /// The segments of the store, in order: those that MANIFEST lists, and later ones that exist.
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

    /// Adds a finding for a segment that cannot be read. The walk goes on where MANIFEST says that the
    /// segment ends.
    pub(super) fn add_unreadable(&mut self, id: SegmentId, what: impl Display) {
        self.add_finding_at(id.first_position, &id.path(), 0, what);
        self.before =
            self.listed(id).map_or(LogBefore::Unknown, |listed| LogBefore::At(LogEnd::of_sealed(listed)));
    }

    /// If a segment's seal was not met, the walk goes on where MANIFEST says that the segment ends.
    pub(super) fn resume_as_listed(&mut self, id: SegmentId) {
        if let Some(listed) = self.listed(id) {
            self.before = LogBefore::At(LogEnd::of_sealed(listed));
        }
    }

    /// Checks that a segment begins where the one before it ends.
    pub(super) fn check_continues(&mut self, segment: &SegmentFile) {
        let header = &segment.header;
        self.check_origin(segment);
        let (position, recorded_at, chain) = match self.before {
            LogBefore::Nothing => (0, 0, genesis(&header.store_id)),
            LogBefore::At(tip) => (tip.position, tip.recorded_at, tip.chain),
            LogBefore::Skipped => return self.accept_skipped(segment),
            LogBefore::Unknown => return,
        };
        if header.id.first_position != position.saturating_add(1) {
            self.add_finding(&segment.path, 0, "the segment before this one is missing");
        } else if header.id.first_position > POSITION_MAX {
            self.add_finding(&segment.path, 0, "the segment begins at an impossible position");
        } else if header.chain_before != chain || header.recorded_before != recorded_at {
            self.add_finding(&segment.path, 0, "the segment does not continue the one before it");
        }
    }

    /// Checks that a segment was created by this store or one of its ancestors, and by none older than the
    /// one before.
    fn check_origin(&mut self, segment: &SegmentFile) {
        let Some(manifest) = self.manifest else { return };
        let own = &segment.header.store_id;
        let lineage = &manifest.lineage;
        let place = lineage.iter().position(|origin| origin.store_id == *own);
        match place.or_else(|| (*own == manifest.store_id).then_some(lineage.len())) {
            None => self.add_finding(&segment.path, 0, "the segment belongs to another store"),
            Some(place) if place < self.origin => {
                self.add_finding(
                    &segment.path,
                    0,
                    "the segment was created by an older store than the one before it",
                );
            }
            Some(place) => self.origin = place,
        }
    }

    /// Checks a segment's header and seal against its entry in MANIFEST, and the number of streams that begin
    /// in it.
    pub(super) fn check_listing(&mut self, segment: &SegmentFile, walk: &SegmentWalk, found: &Seal) {
        let Some(listed) = self.listed(segment.header.id) else { return };
        let offset = walk.tip.offset.into();
        if !listed.fits(&SegmentEntry::new(&segment.header, found)) {
            self.add_finding(&segment.path, offset, "the segment is not as MANIFEST lists it");
            return;
        }
        // A stream whose first event was removed still counts.
        let possible = walk.born..=walk.born.saturating_add(walk.removed);
        if let Some(born) = listed.annotations.streams_created()
            && !walk.is_damaged
            && !possible.contains(&born)
        {
            let what = format!("{} streams begin in the segment, and MANIFEST says {born}", walk.born);
            self.add_finding(&segment.path, offset, what);
        }
    }

    /// Checks that the walk passed the places that MARK names. A break in a segment hides the places behind
    /// it.
    pub(super) fn check_slots(&mut self) {
        let unmet: Vec<(&Mark, &str)> = self.slots.unmet().collect();
        for (mark, what) in unmet {
            let path = mark.segment.path();
            if self.report.findings.iter().all(|known| known.file != path) {
                self.add_finding_at(mark.position.saturating_add(1), &path, mark.durable_end.into(), what);
            }
        }
    }
}

/// Heads that were kept elsewhere, and the place where verifying begins.
impl Verifier<'_, '_, '_> {
    /// Notes where to begin, and which heads to meet.
    pub(super) fn set_goals(
        &mut self,
        after: Option<Head>,
        expected: Vec<Head>,
        causes: Option<CauseLimits>,
    ) {
        self.causes = causes.map(Causes::new);
        self.after = after;
        self.heads = expected;
        self.heads.extend(after);
        for head in self.heads.clone() {
            if self.manifest.is_some_and(|manifest| !manifest.knows(head.store_id().as_bytes())) {
                self.add_finding(manifest::NAME, 0, format!("the head {head} is one of another store"));
            }
        }
        // Every store has position 0, so such a head proves nothing more.
        self.heads.retain(|head| head.position() > Position::START);
    }

    /// Whether verifying begins behind the segment that ends before `next`.
    pub(super) fn passes_over(&mut self, next: Option<u64>) -> bool {
        let Some(after) = self.after else { return false };
        let Some(next) = next else { return false };
        let is_before = next <= after.position().get().saturating_add(1);
        if is_before {
            self.before = LogBefore::Skipped;
            self.versions.begin_in_the_middle();
        }
        is_before
    }

    /// Takes the first segment behind the skipped ones at its word about the log before it.
    pub(super) fn accept_skipped(&mut self, segment: &SegmentFile) {
        let tip = LogEnd::start(segment);
        // Positions without an event were removed on purpose; a gap in versions may come from them.
        let sealed = self.manifest.iter().flat_map(|manifest| &manifest.sealed);
        let passed = sealed.take_while(|sealed| sealed.last_position <= tip.position);
        let events = passed.map(|sealed| u64::from(sealed.events)).sum();
        self.versions.note_missing(tip.position.saturating_sub(events));
        self.check_heads(segment, &tip, &tip);
    }

    /// Compares the heads up to this place with the chain.
    pub(super) fn check_heads(&mut self, segment: &SegmentFile, before: &LogEnd, tip: &LogEnd) {
        if self.heads.is_empty() {
            return;
        }
        let is_met = |head: &Head| head.position().get() <= tip.position;
        let (met, rest) = std::mem::take(&mut self.heads).into_iter().partition::<Vec<_>, _>(is_met);
        self.heads = rest;
        for head in met.iter().filter(|head| head.chain() != tip.chain) {
            let what = format!("the history up to {} is not that of the head {head}", head.position());
            self.add_finding(&segment.path, before.offset.into(), what);
        }
    }

    /// Notes that a segment was walked through, up to `tip`.
    pub(super) fn passed(&mut self, segment: &SegmentFile, tip: &LogEnd) {
        let store_id = self.manifest.map_or(segment.header.store_id, |manifest| manifest.store_id);
        let verified = Head::new((tip.position.into(), tip.chain), store_id);
        self.report.verified = Some(verified);
        self.throttle.progress.verified = Some(verified);
    }

    /// The report of the whole run.
    pub(super) fn into_report(mut self) -> VerifyReport {
        if !self.report.broken_off {
            let end = self.report.verified.map_or(Position::START, |verified| verified.position());
            for head in std::mem::take(&mut self.heads) {
                self.add_finding(
                    SEGMENTS_DIRECTORY,
                    0,
                    format!("the log ends at position {end}, before the head {head}"),
                );
            }
        }
        self.report.versions_unchecked = self.versions.unchecked;
        let end = self.report.verified.map_or(0, |verified| verified.position().get());
        self.report.removed_without_order = self.removals.without_order(end);
        self.report
    }
}

/// How many missing causes a report lists.
const CAUSES_LISTED_MAX: usize = 10_000;

/// How the log is read again.
pub(super) struct Reread<'a> {
    /// Bytes of the whole log.
    pub(super) bytes: u64,
    /// How far each segment is read.
    pub(super) limits: &'a [u32],
    pub(super) open: &'a dyn Fn(usize) -> Result<Arc<SegmentFile>, Error>,
}

/// Causes that the walk did not meet.
impl Verifier<'_, '_, '_> {
    /// Reads the log again, as often as needed, for all causes that were not met.
    pub(super) fn look_for_causes(&mut self, rounds: &Reread<'_>) -> Result<(), Error> {
        let Some(mut causes) = self.causes.take() else { return Ok(()) };
        let mut missing = Vec::new();
        while let Some(mut wanted) = causes.begin_pass() {
            self.throttle.expect_after_now(rounds.bytes);
            let mut removed = Vec::new();
            for (index, limit) in rounds.limits.iter().enumerate() {
                let segment = match (rounds.open)(index) {
                    // The first pass reported this segment.
                    Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NeedsNewer) => {
                        continue;
                    }
                    opened => opened?,
                };
                self.show_segment(&segment, *limit, &mut removed, &mut |frame, first| {
                    if wanted.events > 0 {
                        event_ids(frame, first).for_each(|id| wanted.resolve(id));
                    }
                    causes.note_frame(frame, first);
                })?;
                if self.report.broken_off {
                    self.report.causes_compared = causes.compared;
                    return Ok(());
                }
            }
            self.judge(wanted, &removed, &mut missing);
        }
        self.report.causes_compared = causes.compared;
        missing.sort_by_key(|missing| missing.position);
        self.report.causes_missing = to_u64(missing.len());
        missing.truncate(CAUSES_LISTED_MAX);
        self.report.causes = missing;
        Ok(())
    }

    /// Judges causes that no event has: removed on purpose, or missing.
    fn judge(
        &mut self,
        wanted: WantedCauses,
        removed: &[RangeInclusive<u64>],
        missing: &mut Vec<MissingCause>,
    ) {
        for (cause, named_by) in wanted.named_by {
            let position = cause.claimed_position().get();
            let at = removed.partition_point(|removed| *removed.end() < position);
            if removed.get(at).is_some_and(|removed| removed.contains(&position)) {
                let events = to_u64(named_by.len());
                self.report.causes_removed = self.report.causes_removed.saturating_add(events);
                continue;
            }
            let may_be_removed = !removed.is_empty();
            missing.extend(named_by.into_iter().map(|(position, entity)| MissingCause {
                position: position.into(),
                entity: entity.into(),
                cause,
                may_be_removed,
            }));
        }
    }

    /// Shows every whole frame of a segment, and notes the positions of removed events.
    fn show_segment(
        &mut self,
        segment: &SegmentFile,
        limit: u32,
        removed: &mut Vec<RangeInclusive<u64>>,
        show: &mut dyn FnMut(&Frame<'_>, u64),
    ) -> Result<(), Error> {
        let mut cursor = SegmentCursor::new(segment, limit)?;
        let mut search = Search::new(cursor.window());
        let mut tip = LogEnd::start(segment);
        let mut told = 0;
        loop {
            if self.throttle.advance(tip.offset.saturating_sub(told)).is_err() {
                self.report.broken_off = true;
                return Ok(());
            }
            told = tip.offset;
            cursor.move_to(tip);
            tip = match cursor.peek()? {
                SegmentItem::Frame(frame) => {
                    let offset = frame.header.position_offset().into();
                    let first = segment.header.id.first_position.saturating_add(offset);
                    show(&frame, first);
                    note_gone(&frame, first, removed);
                    behind(tip.offset, first, &frame.header, &tip)
                }
                SegmentItem::Attestation(attestation) => {
                    removed.push(attestation.first_position()..=attestation.last_position());
                    let bytes = u32::try_from(attestation.bytes()).unwrap_or(u32::MAX);
                    LogEnd {
                        offset: tip.offset.saturating_add(bytes),
                        position: attestation.last_position(),
                        chain: attestation.chain_after,
                        ..tip
                    }
                }
                SegmentItem::Seal(_) | SegmentItem::Zeros => return Ok(()),
                SegmentItem::Invalid(_) => match search.resume(cursor.window(), &tip)? {
                    Some(next) => next,
                    None => return Ok(()),
                },
            };
        }
    }
}

/// Notes the positions of a frame whose events are gone.
fn note_gone(frame: &Frame<'_>, first: u64, removed: &mut Vec<RangeInclusive<u64>>) {
    for (position, record) in (first..).zip(frame.all_records()) {
        if matches!(record, Ok(AnyRecord::Gone(_))) {
            removed.push(position..=position);
        }
    }
}
