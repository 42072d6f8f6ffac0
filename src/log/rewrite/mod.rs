//! Writes sealed segments anew: several as one, without some private parts, or without some frames.
//!
//! The new segment is written beside the others, synced, read again from the device and compared with what
//! was meant. Only then it gets its name, and it is part of the log once MANIFEST lists it. A stop at any
//! moment leaves a file that the next writer removes. Invariants:
//! - what stays keeps position, version, id, time and chain;
//! - a frame is removed as a whole or not at all, and an attestation stands in its place;
//! - nothing is written anew that was not checked, chain included;
//! - memory holds one window of what is read and one of what is written.
//!
//! Tested by tests/it/erase.rs and tests/it/compact.rs.

mod draft;

use std::sync::Arc;

use crate::event::{EventIds, RecordedEvent, belongs_to};
use crate::format::{Attestation, Damage, Frame, FrameHeader, FramePlace, Record};
use crate::types::{Error, EventId};

use super::cursor::{Advance, SegmentCursor, SegmentEnd};
use super::segment::SegmentFile;

pub(crate) use draft::{RewritePlan, SegmentDraft, remove};

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Keep,
    /// Its private part is erased.
    Erase,
    /// It is removed if all events of its append are removed. Else its private part is erased.
    Remove,
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
        self.frame.header.version(self.index.into(), &self.record)
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
    Attestation(Attestation<'a>),
}

/// Has the judge see every event of a sealed segment, and changes nothing.
///
/// # Errors
///
/// Those of reading, damage included, and what the judge gives.
pub(crate) fn judge_all(source: &SegmentFile, judge: &mut dyn Judge) -> Result<(), Error> {
    judge_segment(source, judge, &mut |_| Ok(()))
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

/// Asks the judge for the fates of the events of a frame. A frame is removed as a whole or not at all.
fn judge_frame(
    frame: &Frame<'_>,
    first: u64,
    judge: &mut dyn Judge,
    fates: &mut Vec<Fate>,
) -> Result<(), Error> {
    fates.clear();
    let header = &frame.header;
    let candidates = || {
        let mut end = 0_usize;
        (0..).zip(frame.records()).map(move |(index, record)| {
            let start = end;
            let record = record.expect("the chain was recomputed");
            end = start.saturating_add(record.bytes().len());
            Candidate { frame, first, index, start, record }
        })
    };
    for candidate in candidates() {
        fates.push(judge.fate(&candidate)?);
    }
    let removes_all = fates.iter().all(|fate| *fate == Fate::Remove);
    for (candidate, fate) in candidates().zip(fates) {
        *fate = match *fate {
            Fate::Remove if removes_all => Fate::Remove,
            Fate::Remove | Fate::Erase if !candidate.record.is_erased() => Fate::Erase,
            Fate::Remove | Fate::Erase | Fate::Keep => Fate::Keep,
        };
        let own_header = if candidate.index == 0 { header.header_bytes() } else { 0 };
        let freed = match fate {
            Fate::Keep => 0,
            Fate::Erase => candidate.record.bytes().len().saturating_sub(candidate.record.erased_bytes()),
            Fate::Remove => candidate.record.bytes().len().saturating_add(own_header),
        };
        judge.decided(&candidate, *fate, u64::try_from(freed).unwrap_or(u64::MAX));
    }
    Ok(())
}
