//! Writes sealed segments anew: several as one, without some private parts, or without some frames.
//!
//! The new segment is written beside the others, synced, read again from the device and compared with what
//! was meant. Only then it gets its name, and it is part of the log once MANIFEST lists it. A stop at any
//! moment leaves a file that the next writer removes. Invariants:
//! - what stays keeps position, version, id, time and chain;
//! - a frame is removed as a whole, and an attestation stands in its place; or gone records are left in it;
//! - attestations that touch are joined, so a rewrite never makes the removed positions longer;
//! - nothing is written anew that was not checked, chain included;
//! - memory holds one window of what is read and one of what is written.
//!
//! Tested by tests/it/erase.rs and tests/it/compact.rs.

mod draft;
mod forecast;

use std::sync::Arc;

use crate::event::{EventIds, RecordedEvent, belongs_to};
use crate::format::{Attestation, Damage, Frame, FrameHeader, FramePlace, Record, record};
use crate::types::{Cause, Error, EventId, to_u64};

use super::cursor::{Advance, SegmentCursor, SegmentEnd};
use super::segment::SegmentFile;

pub(crate) use draft::{RewritePlan, SegmentDraft, remove};
pub(crate) use forecast::{ENVELOPE_BYTES, Forecast, judge_all};

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Keep,
    /// Its private part is erased.
    Erase,
    /// It is removed. Where another event of its append stays, its record is left as gone.
    Remove,
    /// Only the hash of its record is left, or was left before. No judge answers this.
    Gone,
}

/// An event to be judged.
pub(crate) struct Candidate<'a> {
    frame: &'a Frame<'a>,
    /// The position of the frame's first event.
    first: u64,
    /// How many events of the frame stand before this one.
    index: u16,
    /// Where the record begins in the frame's body.
    start: usize,
    pub(crate) record: Record<'a>,
}

impl Candidate<'_> {
    pub(crate) fn position(&self) -> u64 {
        self.first.saturating_add(self.index.into())
    }

    pub(crate) fn version(&self) -> u64 {
        self.frame.header.version(self.index, &self.record)
    }

    pub(crate) fn header(&self) -> &FrameHeader<'_> {
        &self.frame.header
    }

    /// The position of the first event of its append.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Whether it belongs to a correlation.
    pub(crate) fn belongs_to(&self, id: EventId) -> bool {
        belongs_to(id, &self.record, || EventIds::of_first(self.frame, self.first.into()))
    }

    /// The event as readers see it. Copies the whole append.
    pub(crate) fn recorded(&self) -> RecordedEvent {
        let block = Arc::new([self.frame.header.bytes(), self.frame.body].concat());
        let start = self.frame.header.header_bytes().saturating_add(self.start);
        RecordedEvent::new(&block, 0, start, self.first.into(), self.index, self.record.shape())
    }
}

/// Decides what becomes of each event, in order of position.
pub(crate) trait Judge {
    fn fate(&mut self, event: &Candidate<'_>) -> Result<Fate, Error>;

    /// Takes note of what becomes of an event in the end, and how many bytes that frees.
    fn decided(&mut self, event: &Candidate<'_>, fate: Fate, freed: u64);

    /// Takes note that this many bytes more were read. An error stops the rewrite.
    fn advance(&mut self, bytes: u32) -> Result<(), Error>;
}

/// A frame or attestation of a segment, with the fates of its events.
enum RewritePiece<'a> {
    Frame { frame: Frame<'a>, place: FramePlace, first: u64, fates: &'a [Fate] },
    Attestation(Attestation),
}

/// Reads a sealed segment, checks all of it, and hands each piece to `take` with the fates of its events.
fn judge_segment(
    source: &SegmentFile,
    judge: &mut dyn Judge,
    take: &mut dyn FnMut(&RewritePiece<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut cursor = SegmentCursor::new(source, u32::MAX)?;
    let mut fates = Vec::new();
    loop {
        let offset = cursor.end().offset;
        let damaged = |damage| Err(source.damaged(offset.into(), &damage));
        match cursor.advance()? {
            Advance::Frame { frame, before, .. } => {
                let first = before.position.saturating_add(1);
                judge_frame(&frame, first, judge, &mut fates)?;
                let place = source.header.frame_place(offset);
                take(&RewritePiece::Frame { frame, place, first, fates: &fates })?;
            }
            Advance::Attestation { attestation, .. } => take(&RewritePiece::Attestation(attestation))?,
            Advance::End(SegmentEnd::Sealed(_)) => return Ok(()),
            Advance::End(SegmentEnd::Zeros) => {
                return damaged(Damage::Bad("the segment ends without a seal"));
            }
            Advance::End(SegmentEnd::Invalid(damage)) => return damaged(damage),
        }
        judge.advance(cursor.end().offset.saturating_sub(offset))?;
    }
}

/// Asks the judge for the fates of the events of a frame. A frame is removed as a whole or not at all. Where
/// another event of the append stays, the record of a removed one is left as gone.
fn judge_frame(
    frame: &Frame<'_>,
    first: u64,
    judge: &mut dyn Judge,
    fates: &mut Vec<Fate>,
) -> Result<(), Error> {
    fates.clear();
    let header = &frame.header;
    fates.resize(header.events().into(), Fate::Gone);
    for candidate in candidates(frame, first) {
        fates[usize::from(candidate.index)] = judge.fate(&candidate)?;
    }
    let removes_all = fates.iter().all(|fate| matches!(fate, Fate::Remove | Fate::Gone));
    let named = if removes_all { Vec::new() } else { named_by_index(frame, first, fates) };
    let mut is_first = true;
    for candidate in candidates(frame, first) {
        let fate = &mut fates[usize::from(candidate.index)];
        let is_named = named.contains(&candidate.index);
        *fate = match *fate {
            Fate::Remove if removes_all => Fate::Remove,
            Fate::Remove if !is_named => Fate::Gone,
            Fate::Remove | Fate::Erase if !candidate.record.is_erased() => Fate::Erase,
            Fate::Remove | Fate::Erase | Fate::Keep | Fate::Gone => Fate::Keep,
        };
        let own_header = if std::mem::take(&mut is_first) { header.header_bytes() } else { 0 };
        let bytes = candidate.record.bytes().len();
        let freed = match fate {
            Fate::Keep => 0,
            Fate::Erase => bytes.saturating_sub(candidate.record.erased_bytes()),
            Fate::Gone => bytes.saturating_sub(record::gone_bytes(header.layout())),
            Fate::Remove => bytes.saturating_add(own_header),
        };
        judge.decided(&candidate, *fate, to_u64(freed));
    }
    Ok(())
}

/// The events of a frame that are there.
fn candidates<'a>(frame: &'a Frame<'a>, first: u64) -> impl Iterator<Item = Candidate<'a>> {
    let mut end = 0_usize;
    frame.all_records().zip(0..).filter_map(move |(record, index)| {
        let record = record.expect("the chain was recomputed");
        let start = end;
        end = start.saturating_add(record.bytes().len());
        Some(Candidate { frame, first, index, start, record: record.event()? })
    })
}

/// The events with an id of their own that one that stays names by its place in the append. The correlation
/// or cause of that one is this id, so the record that has the id must stay.
fn named_by_index(frame: &Frame<'_>, first: u64, fates: &[Fate]) -> Vec<u16> {
    let stays = |candidate: &Candidate<'_>| fates.get(usize::from(candidate.index)) != Some(&Fate::Remove);
    let has_own_id = |index: u16| {
        let mut all = candidates(frame, first);
        all.any(|candidate| candidate.index == index && candidate.record.foreign_id().is_some())
    };
    let mut named = Vec::new();
    for candidate in candidates(frame, first).filter(stays) {
        let correlation = candidate.record.correlation().is_none().then_some(0);
        let cause = match candidate.record.cause() {
            Some(Cause::InAppend(index)) => Some(index),
            _ => None,
        };
        named.extend(correlation.into_iter().chain(cause));
    }
    named.sort_unstable();
    named.dedup();
    named.retain(|index| has_own_id(*index));
    named
}
