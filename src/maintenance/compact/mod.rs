//! Compaction removes events by rules, and merges small segments into larger ones.
//!
//! The rules decide event by event, and are asked twice: once for the plan, once while segments are
//! rewritten. The second pass uses the head of the first, so that appends in between change no answer. Tested
//! by tests/it/compact.rs.

mod rules;

use std::ops::{Range, RangeInclusive};

use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::log::{ENVELOPE_BYTES, Forecast, judge_all};
use crate::read::by_either_id;
use crate::types::{Compacted, CompactionPlan, Error, Position, Unhandled, system};

use super::record::{self, Figures};
use super::rewriting::{Rewriting, Rewritten, SealedEntry};
use super::throttle::RewriteThrottle;

pub use rules::GroupBy;
use rules::{Compactor, Tally};
pub(crate) use rules::{Remainder, Rules, Watcher};

#[derive(Serialize, Deserialize)]
struct CompactionBegun {
    /// The rules, for people. Attestations name this event, so it says once why the events went.
    rules: String,
    removed: u64,
    erased: u64,
    bytes: u64,
}

impl Figures for CompactionBegun {
    const KIND: &'static str = system::ledger::COMPACTING;
}

#[derive(Serialize, Deserialize)]
struct CompactionDone {
    removed: u64,
    erased: u64,
    segments_before: usize,
    segments_after: usize,
    bytes_before: u64,
    bytes_after: u64,
}

impl Figures for CompactionDone {
    const KIND: &'static str = system::ledger::COMPACTED;
}

/// One compaction, as the caller asks for it.
pub(crate) struct CompactionTask<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) rules: Rules<'a>,
    /// The consumers that must have handled an event before it goes.
    pub(crate) watchers: Vec<Watcher>,
    /// The longest segment that merging makes; `None`: segments are not merged.
    pub(crate) merge_up_to: Option<u64>,
    /// In percent: a segment that would lose less is left as it is.
    pub(crate) worth: u8,
    pub(crate) reason: &'a str,
    pub(crate) throttle: RewriteThrottle<'a>,
    /// The head of the plan's pass. The rules know nothing after it.
    pub(crate) head: Position,
}

/// A sealed segment, and what becomes of it.
struct PlannedSegment {
    /// Taken when the segment is rewritten: an entry that is held keeps the old file open.
    entry: Option<SealedEntry>,
    positions: RangeInclusive<u64>,
    length: u64,
    /// The bytes that are left, about.
    bytes: u64,
    /// Whether any event goes.
    changes: bool,
    forecast: Forecast,
}

impl<'a> CompactionTask<'a> {
    /// Counts what would go; changes nothing.
    ///
    /// # Errors
    ///
    /// Those of reading; `Cancelled`.
    pub(crate) fn plan(mut self) -> Result<CompactionPlan, Error> {
        let rewriting = self.begin()?;
        let (mut plan, planned) = self.plan_segments(&rewriting)?;
        for group in groups(&planned, self.merge_up_to) {
            let forecasts = planned[group].iter().map(|one| &one.forecast);
            plan.bytes = plan.bytes.saturating_add(Forecast::saved_by_merging(forecasts));
        }
        Ok(plan)
    }

    /// Removes what the rules name, unless a consumer has not handled some of it.
    ///
    /// # Errors
    ///
    /// As [`CompactionTask::plan`], and those of rewriting. Groups that were rewritten stay rewritten.
    pub(crate) fn run(self) -> Result<Compacted, Error> {
        let rewriting = self.begin()?;
        if self.rules.name_anything() {
            rewriting.roll()?;
        }
        self.carry_out(rewriting)
    }

    /// As [`CompactionTask::run`], for segments that are sealed now; `None` if segments are being rewritten
    /// already.
    ///
    /// # Errors
    ///
    /// As [`CompactionTask::run`].
    pub(crate) fn run_beside(self) -> Result<Option<Compacted>, Error> {
        let rewriting = Rewriting::try_begin(self.engine)?;
        rewriting.map(|rewriting| self.carry_out(rewriting)).transpose()
    }

    fn carry_out(mut self, mut rewriting: Rewriting<'a>) -> Result<Compacted, Error> {
        let (plan, mut planned) = self.plan_segments(&rewriting)?;
        check_handled(&plan)?;
        let groups = groups(&planned, self.merge_up_to);
        let mut done = Compacted {
            segments_before: planned.len(),
            segments_after: planned.len(),
            bytes_before: plan.bytes_total,
            bytes_after: plan.bytes_total,
            would_take: plan.would_take,
            ..Compacted::default()
        };
        if groups.is_empty() {
            return Ok(done);
        }
        let CompactionPlan { removed, erased, bytes, .. } = plan;
        let figures = CompactionBegun { rules: self.rules.to_string(), removed, erased, bytes };
        let engine = self.engine;
        let reason = self.reason;
        // Announced only when something goes: a policy without room on the disk tries often, and would fill
        // the ledger.
        rewriting.announce_with(Box::new(move || {
            let announced = record::append(engine, Some(reason), &figures)?;
            Ok(announced.position())
        }));
        self.rewrite(&mut rewriting, &mut planned, &groups, &mut done)?;
        rewriting.raise_history()?;
        rewriting.check_removed()?;
        self.throttle.report()?;
        let Compacted { removed, erased, segments_before, segments_after, bytes_before, bytes_after, .. } =
            done;
        let done_figures =
            CompactionDone { removed, erased, segments_before, segments_after, bytes_before, bytes_after };
        let recorded = record::append(self.engine, Some(self.reason), &done_figures)?;
        done.position = recorded.position();
        done.id = recorded.ids().next();
        Ok(done)
    }

    fn compactor(&mut self) -> Result<Compactor<'_, 'a, 'a>, Error> {
        Compactor::new(self.engine, self.head, &mut self.rules, &self.watchers, &mut self.throttle)
    }

    fn begin(&self) -> Result<Rewriting<'a>, Error> {
        Rewriting::begin(self.engine)
    }

    /// Asks the rules about every sealed event.
    fn plan_segments(
        &mut self,
        rewriting: &Rewriting<'_>,
    ) -> Result<(CompactionPlan, Vec<PlannedSegment>), Error> {
        let entries = rewriting.sealed()?;
        let snapshot = self.engine.snapshot()?;
        self.head = snapshot.head.position;
        // Resolved before anything goes: an event that is removed can no longer lead from one of its ids to
        // the other.
        if let Some(query) = self.rules.query.take() {
            self.rules.query = Some(by_either_id(&snapshot, query)?);
        }
        let mut plan = CompactionPlan { segments: entries.len(), ..CompactionPlan::default() };
        plan.bytes_total = entries.iter().map(|(_, listed)| u64::from(listed.length)).sum();
        if self.rules.name_anything() {
            self.throttle.expect_after_now(plan.bytes_total);
        }
        let worth = self.worth;
        let mut all = Tally::default();
        let mut anew = 0;
        let mut compactor = self.compactor()?;
        let mut planned = Vec::with_capacity(entries.len());
        for entry in entries {
            compactor.report()?;
            let listed = &entry.1;
            let length = u64::from(listed.length);
            // Without rules nothing is read. Such a segment counts as it is.
            let forecast = match compactor.has_rules() {
                true => judge_all(entry.0.file()?, &mut compactor)?,
                false => Forecast::unread(length),
            };
            let tally = compactor.take_tally();
            let changes = tally.is_worth(worth, length, forecast.rewritten);
            anew += if changes { forecast.left_anew } else { forecast.now_anew };
            let bytes = if changes { forecast.rewritten } else { length };
            let positions = listed.id.first_position..=listed.last_position;
            planned.push(PlannedSegment { entry: Some(entry), positions, length, bytes, changes, forecast });
            if changes {
                all.add(tally);
            }
        }
        all.fill(&self.watchers, &mut plan);
        plan.bytes = planned.iter().map(|one| one.length).sum::<u64>();
        plan.bytes = plan.bytes.saturating_sub(planned.iter().map(|one| one.bytes).sum());
        // A segment may be set to any length, 0 included: then each append has one of its own.
        let segment_bytes = u64::from(self.engine.options.segment_bytes_max).max(ENVELOPE_BYTES);
        let segments = anew.div_ceil(segment_bytes);
        plan.would_take = anew.saturating_add(segments.saturating_mul(ENVELOPE_BYTES));
        Ok((plan, planned))
    }

    fn rewrite(
        &mut self,
        rewriting: &mut Rewriting<'_>,
        planned: &mut [PlannedSegment],
        groups: &[Range<usize>],
        done: &mut Compacted,
    ) -> Result<(), Error> {
        let lengths = |planned: &[PlannedSegment]| -> u64 { planned.iter().map(|one| one.length).sum() };
        self.throttle.expect_after_now(groups.iter().map(|group| lengths(&planned[group.clone()])).sum());
        for group in groups {
            self.throttle.report()?;
            let old = lengths(&planned[group.clone()]);
            let entries: Vec<SealedEntry> =
                planned[group.clone()].iter_mut().filter_map(|one| one.entry.take()).collect();
            let spared = planned[group.clone()].iter().filter(|one| !one.changes);
            let mut compactor = self.compactor()?.sparing(spared.map(|one| one.positions.clone()).collect());
            if let Rewritten::Replaced(bytes) = rewriting.rewrite(&entries, &mut compactor)? {
                let tally = compactor.take_tally();
                done.removed += tally.removed;
                done.erased += tally.erased;
                done.segments_after -= entries.len() - 1;
                done.bytes_after = done.bytes_after.saturating_sub(old) + u64::from(bytes);
            }
        }
        Ok(())
    }
}

/// Refuses to remove events that a consumer has not handled: it would miss them.
fn check_handled(plan: &CompactionPlan) -> Result<(), Error> {
    let Some(Unhandled { consumer, events, first }) = plan.unhandled.first() else { return Ok(()) };
    Err(Error::invalid(format!(
        "consumer {consumer} has not handled {events} of the events that would go, the first at position {first}; let it \
         catch up, or compact even_unhandled()"
    )))
}

/// Which neighbours are rewritten together, as one segment each.
fn groups(planned: &[PlannedSegment], merge_up_to: Option<u64>) -> Vec<Range<usize>> {
    let most = merge_up_to.unwrap_or(0);
    // Merging a long segment with a short one would rewrite all of the long one for little.
    let is_small = |one: &PlannedSegment| one.bytes < most / 2;
    let mut groups = Vec::new();
    let mut start = 0;
    while let Some(first) = planned.get(start) {
        let mut end = start + 1;
        let mut bytes = first.bytes;
        while let Some(next) = planned.get(end)
            && is_small(first)
            && is_small(next)
            && bytes + next.bytes.saturating_sub(ENVELOPE_BYTES) <= most
            && next.positions.end() - first.positions.start() < u64::from(u32::MAX)
        {
            bytes += next.bytes.saturating_sub(ENVELOPE_BYTES);
            end += 1;
        }
        if end - start > 1 || first.changes {
            groups.push(start..end);
        }
        start = end;
    }
    groups
}
