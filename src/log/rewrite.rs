//! Writes sealed segments anew: several as one, without some private parts, or without some frames.
//!
//! What is new is written beside, synced, read again from the device and compared with what was meant; only then it
//! gets its name, and nobody looks at it before MANIFEST lists it. A stop at any moment leaves a file that the
//! next writer removes.
//! Invariants:
//! - what stays keeps position, version, id, time and chain; a frame goes only as a whole, and an attestation stands for it;
//! - nothing is written anew that was not checked, chain included;
//! - in memory are a window of what is read and one of what is written.
//!
//! Row: log. Tested by tests/it/erase.rs and tests/it/compact.rs.

mod draft;

use std::sync::Arc;

use crate::event::{EventIds, RecordedEvent, belongs_to};
use crate::format::{Attestation, Damage, Frame, FrameHeader, Record, records};
use crate::types::{Error, EventId};

use super::scan::{Ending, Found, LogEnd, Window, attested, follow, found_at, sealed};
use super::segment::SegmentFile;

pub(crate) use draft::{Draft, Plan, remove};

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Keep,
    /// Its private part goes.
    Erase,
    /// All of it goes, if its whole append does; else its private part.
    Remove,
}

/// An event to be judged.
pub(crate) struct Candidate<'a> {
    frame: &'a Frame<'a>,
    /// The position of the frame's first event, and how many stand before this one.
    first: u64,
    index: u16,
    /// Where it begins in the frame's body.
    start: usize,
    pub(crate) record: Record<'a>,
}

impl Candidate<'_> {
    pub(crate) fn position(&self) -> u64 {
        self.first.saturating_add(self.index.into())
    }

    pub(crate) fn version(&self) -> u64 {
        self.frame.header.version(self.index.into())
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

    /// As it is read. Copies the whole append.
    pub(crate) fn recorded(&self) -> RecordedEvent {
        let block = Arc::new([self.frame.header.bytes(), self.frame.body].concat());
        let start = self.frame.header.header_bytes().saturating_add(self.start);
        RecordedEvent::new(&block, 0, start, self.first.into(), self.index, self.record.shape())
    }
}

/// Decides what becomes of each event, in order.
pub(crate) trait Judge {
    fn fate(&mut self, event: &Candidate<'_>) -> Result<Fate, Error>;

    /// What becomes of an event in the end, and how many bytes that frees.
    fn decided(&mut self, event: &Candidate<'_>, fate: Fate, freed: u64);

    /// So many bytes more were read. An error breaks off.
    fn advance(&mut self, bytes: u32) -> Result<(), Error>;
}

/// A part of a segment, with what becomes of its events.
enum Piece<'a> {
    Frame { frame: Frame<'a>, first: u64, fates: &'a [Fate] },
    Attestation(Attestation<'a>),
}

/// Has every event of sealed segments judged, and changes nothing.
///
/// # Errors
///
/// Those of reading, damage included, and what the judge gives.
pub(crate) fn judge_all(source: &SegmentFile, judge: &mut dyn Judge) -> Result<(), Error> {
    walk(source, judge, &mut |_| Ok(()))
}

/// Walks a sealed segment, checks all of it, and shows it with what becomes of it.
fn walk(
    source: &SegmentFile,
    judge: &mut dyn Judge,
    show: &mut dyn FnMut(&Piece<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut window = Window::new(source, u32::MAX)?;
    let (mut tip, mut fates) = (LogEnd::start(source), Vec::new());
    loop {
        let offset = tip.offset;
        let damaged = |damage| source.damaged(offset.into(), &damage);
        let next = match found_at(&mut window, offset)? {
            Found::Frame(frame) => {
                let next = follow(source, &tip, &frame, true).map_err(damaged)?;
                let first = tip.position.saturating_add(1);
                judge_frame(&frame, first, judge, &mut fates)?;
                show(&Piece::Frame { frame, first, fates: &fates })?;
                next
            }
            Found::Attestation(attestation, length) => {
                let next = attested(source, &tip, &attestation, length).map_err(damaged)?;
                show(&Piece::Attestation(attestation))?;
                next
            }
            Found::Seal(seal) => match sealed(seal, &tip) {
                Ending::Invalid(damage) => return Err(damaged(damage)),
                Ending::Sealed(_) | Ending::Zeros => return Ok(()),
            },
            Found::Zeros => return Err(damaged(Damage::Bad("the segment ends without a seal"))),
            Found::Invalid(damage) => return Err(damaged(damage)),
        };
        judge.advance(next.offset.saturating_sub(offset))?;
        tip = next;
    }
}

/// What becomes of the events of a frame: it goes as a whole, or not at all.
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
        let records = records(frame.body, header.events());
        (0..).zip(records).map(move |(index, record)| {
            let (start, record) = (end, record.expect("the chain was recomputed"));
            end = start.saturating_add(record.bytes().len());
            Candidate { frame, first, index, start, record }
        })
    };
    for candidate in candidates() {
        fates.push(judge.fate(&candidate)?);
    }
    let goes = fates.iter().all(|fate| *fate == Fate::Remove);
    for (candidate, fate) in candidates().zip(fates) {
        *fate = match *fate {
            Fate::Remove if goes => Fate::Remove,
            Fate::Remove | Fate::Erase if !candidate.record.is_erased() => Fate::Erase,
            _ => Fate::Keep,
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
