//! Heads that are to be met on the way, where verifying begins, and how far it has come.
//!
//! Row: ops.

use super::causes::{Causes, Room};
use super::{Before, Verifier};
use crate::format::{SEGMENTS_DIRECTORY, manifest};
use crate::log::{LogEnd, SegmentFile};
use crate::types::{Head, Position, VerifyReport};

impl Verifier<'_, '_, '_> {
    /// Takes note of where to begin, and of what is to be met.
    pub(super) fn ask(&mut self, after: Option<Head>, expected: Vec<Head>, causes: Option<Room>) {
        self.causes = causes.map(Causes::new);
        self.after = after;
        self.heads = expected;
        self.heads.extend(after);
        for head in self.heads.clone() {
            if self.manifest.is_some_and(|manifest| !manifest.knows(head.store_id().as_bytes())) {
                self.found(manifest::NAME, 0, format!("the head {head} is one of another store"));
            }
        }
        // Before the first event there is nothing to change.
        self.heads.retain(|head| head.position() > Position::START);
    }

    /// Whether the segment in front of the one that begins at `next` ends where verifying begins, or earlier.
    pub(super) fn passes_over(&mut self, next: Option<u64>) -> bool {
        let (Some(after), Some(next)) = (self.after, next) else { return false };
        let is_before = next <= after.position().get().saturating_add(1);
        if is_before {
            self.before = Before::Skipped;
            self.versions.begin_in_the_middle();
        }
        is_before
    }

    /// The first segment behind those that were passed over: what it says of the log before it.
    pub(super) fn meet_skipped(&mut self, segment: &SegmentFile) {
        let tip = LogEnd::start(segment);
        // What was removed there on purpose is missing here, too: as many as there are positions without an event.
        let sealed = self.manifest.iter().flat_map(|manifest| &manifest.sealed);
        let passed = sealed.take_while(|sealed| sealed.last_position <= tip.position);
        let events = passed.map(|sealed| u64::from(sealed.events)).sum();
        self.versions.miss(tip.position.saturating_sub(events));
        self.meet_heads(segment, &tip, &tip);
    }

    /// The log has come to a place: so has every head up to there.
    pub(super) fn meet_heads(&mut self, segment: &SegmentFile, before: &LogEnd, tip: &LogEnd) {
        if self.heads.is_empty() {
            return;
        }
        let is_met = |head: &Head| head.position().get() <= tip.position;
        let (met, rest) = std::mem::take(&mut self.heads).into_iter().partition::<Vec<_>, _>(is_met);
        self.heads = rest;
        for head in met.iter().filter(|head| head.chain() != tip.chain) {
            let what = format!("the history up to {} is not that of the head {head}", head.position());
            self.found(&segment.path, before.offset.into(), what);
        }
    }

    /// A segment was gone through, up to `tip`.
    pub(super) fn is_through(&mut self, segment: &SegmentFile, tip: &LogEnd) {
        let store_id = self.manifest.map_or(segment.header.store_id, |manifest| manifest.store_id);
        let verified = Head::new((tip.position.into(), tip.chain), store_id);
        self.report.verified = Some(verified);
        self.pace.is_through(verified);
    }

    /// What was found, in the end.
    pub(super) fn ended(mut self) -> VerifyReport {
        if !self.report.broken_off {
            let end = self.report.verified.map_or(Position::START, |verified| verified.position());
            for head in std::mem::take(&mut self.heads) {
                self.found(
                    SEGMENTS_DIRECTORY,
                    0,
                    format!("the log ends at position {end}, before the head {head}"),
                );
            }
        }
        self.report.versions_unchecked = self.versions.unchecked;
        self.report
    }
}
