//! Whether the causes that events name by id are in the store, in bounded memory.
//!
//! An id of an event that was met lately is known. A cause with another id is looked for by reading the log
//! again, all such causes of a batch at once: whatever an index says, the events decide.
//! Row: ops. Tested by tests/it/verify_causes.rs.

use std::ops::RangeInclusive;
use std::sync::Arc;

use foldhash::{HashMap, HashSet, HashSetExt};

use super::Verifier;
use super::search::{Search, behind};
use crate::format::{Frame, records};
use crate::log::{LogEnd, SegmentCursor, SegmentFile, SegmentItem};
use crate::types::{Cause, Error, ErrorKind, EventId, MissingCause, to_u64};

/// Missing causes that are listed.
const LISTED_MAX: usize = 10_000;

/// How much memory it takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Ids that are remembered, in each of two halves.
    pub(super) recent: usize,
    /// Events whose causes are looked for at once.
    pub(super) wanted: usize,
}

/// Some 70 MB.
pub(super) const ROOM: Room = Room { recent: 250_000, wanted: 500_000 };

pub(super) struct Causes {
    /// Ids of the events met last, and of those before them.
    recent: [HashSet<EventId>; 2],
    wanted: Wanted,
    /// Where the events begin that found no room among the wanted.
    rest: Option<u64>,
    /// Causes of events in front of this position were looked for before.
    since: u64,
    compared: u64,
    room: Room,
}

/// Causes to be looked for, and the events that name them: position and entity.
#[derive(Default)]
struct Wanted {
    named_by: HashMap<EventId, Vec<(u64, Box<str>)>>,
    events: usize,
}

/// How the log is read again.
pub(super) struct Rounds<'a> {
    /// How far each segment is read.
    pub(super) limits: &'a [u32],
    pub(super) open: &'a dyn Fn(usize) -> Result<Arc<SegmentFile>, Error>,
}

impl Causes {
    pub(super) fn new(room: Room) -> Causes {
        Causes {
            recent: [HashSet::new(), HashSet::new()],
            wanted: Wanted::default(),
            rest: None,
            since: 0,
            compared: 0,
            room,
        }
    }

    /// A whole frame: its events are there, and name causes.
    pub(super) fn meet(&mut self, frame: &Frame<'_>, first: u64) {
        if self.since == u64::MAX {
            return;
        }
        ids(frame, first).for_each(|id| self.add(id));
        let whole = records(frame.body, frame.header.events()).map_while(Result::ok);
        for (position, record) in (first..).zip(whole) {
            if let Some(Cause::Event(id)) = record.cause()
                && position >= self.since
            {
                self.look_for(id, position, record.entity());
            }
        }
    }

    fn add(&mut self, id: EventId) {
        self.wanted.found(id);
        if self.recent[0].len() >= self.room.recent {
            self.recent.swap(0, 1);
            self.recent[0].clear();
        }
        self.recent[0].insert(id);
    }

    fn look_for(&mut self, id: EventId, position: u64, entity: &str) {
        if self.rest.is_some() {
            return;
        }
        let is_recent = self.recent.iter().any(|recent| recent.contains(&id));
        if !is_recent && self.wanted.events >= self.room.wanted {
            self.rest = Some(position);
            return;
        }
        self.compared = self.compared.saturating_add(1);
        if !is_recent {
            self.wanted.named_by.entry(id).or_default().push((position, entity.into()));
            self.wanted.events += 1;
        }
    }

    /// The log is read from its beginning again. What is looked for then.
    fn begin_again(&mut self) -> Option<Wanted> {
        let wanted = std::mem::take(&mut self.wanted);
        let rest = self.rest.take();
        self.since = rest.unwrap_or(u64::MAX);
        self.recent.iter_mut().for_each(HashSet::clear);
        (wanted.events > 0 || rest.is_some()).then_some(wanted)
    }
}

impl Wanted {
    /// An event with this id is there.
    fn found(&mut self, id: EventId) {
        if let Some(events) = self.named_by.remove(&id) {
            self.events -= events.len();
        }
    }
}

impl Verifier<'_, '_, '_> {
    /// Reads the log again, as often as it takes to look for all causes that were not met.
    pub(super) fn look_for_causes(&mut self, rounds: &Rounds<'_>) -> Result<(), Error> {
        let Some(mut causes) = self.causes.take() else { return Ok(()) };
        let mut missing = Vec::new();
        while let Some(mut wanted) = causes.begin_again() {
            self.pace.expect_again();
            let mut removed = Vec::new();
            for (index, limit) in rounds.limits.iter().enumerate() {
                let segment = match (rounds.open)(index) {
                    // It is among the breaks.
                    Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NeedsNewer) => {
                        continue;
                    }
                    opened => opened?,
                };
                self.read_again(&segment, *limit, &mut removed, &mut |frame, first| {
                    if wanted.events > 0 {
                        ids(frame, first).for_each(|id| wanted.found(id));
                    }
                    causes.meet(frame, first);
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

    /// Of causes that no event has: whether they were removed on purpose.
    fn judge(&mut self, wanted: Wanted, removed: &[RangeInclusive<u64>], missing: &mut Vec<MissingCause>) {
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

    /// Shows every whole frame of a segment, and takes note of what was removed.
    fn read_again(
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
            if self.pace.advance(tip.offset.saturating_sub(told)).is_break() {
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

/// The ids of a frame's events: derived, and brought along.
fn ids<'a>(frame: &'a Frame<'_>, first: u64) -> impl Iterator<Item = EventId> + 'a {
    let whole = records(frame.body, frame.header.events()).map_while(Result::ok);
    (first..).zip(whole).flat_map(|(position, record)| {
        [Some(frame.header.event_id(position.into())), record.foreign_id()].into_iter().flatten()
    })
}
