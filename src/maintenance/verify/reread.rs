//! Reads the log again for causes that the first pass did not meet, and judges those that stay missing.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::causes::{LISTED_MAX, WantedCauses, ids};
use super::search::{Search, behind};
use super::walk::Verifier;
use crate::format::Frame;
use crate::log::{LogEnd, SegmentCursor, SegmentFile, SegmentItem};
use crate::types::{Error, ErrorKind, MissingCause, to_u64};

/// How the log is read again.
pub(super) struct Reread<'a> {
    /// Bytes of the whole log.
    pub(super) bytes: u64,
    /// How far each segment is read.
    pub(super) limits: &'a [u32],
    pub(super) open: &'a dyn Fn(usize) -> Result<Arc<SegmentFile>, Error>,
}

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
                        ids(frame, first).for_each(|id| wanted.resolve(id));
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
        missing.truncate(LISTED_MAX);
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
                    behind(tip.offset, first, &frame.header, &tip)
                }
                SegmentItem::Attestation(attestation, length) => {
                    removed.push(attestation.first_position..=attestation.last_position);
                    let bytes = u32::try_from(length).unwrap_or(u32::MAX);
                    LogEnd { offset: tip.offset.saturating_add(bytes), ..tip }
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
