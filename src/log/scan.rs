//! Walks a segment from its header to where it ends, checking that every frame is whole and
//! follows from the one before.
//!
//! Three outcomes, three arms: it ends as it should (zeros, or a seal), it is damaged from some
//! offset on, or it could not be read (an error, never taken for an end).
//! Row: log. Used by opening, by read-only opening and by verify.

use crate::disk::read_full;
use crate::format::{
    Assigned, Attestation, BODY_BYTES_MAX, Damage, Frame, Hash, Mark, Record, SEAL_BYTES,
    SEGMENT_HEADER_BYTES, Seal, SegmentHeader, body_content, extended_content, frame, link, records,
};
use crate::types::Error;

use super::segment::{SegmentFile, wide};

/// Where a walk stands: behind the last frame it accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogEnd {
    /// In the segment.
    pub(crate) offset: u32,
    /// Of the last event.
    pub(crate) position: u64,
    pub(crate) recorded_at: u64,
    pub(crate) chain: Hash,
    /// Counted in this segment.
    pub(crate) frames: u32,
    pub(crate) events: u32,
}

impl LogEnd {
    /// Before the first frame of a segment.
    pub(crate) fn start(segment: &SegmentFile) -> LogEnd {
        LogEnd::before(&segment.header)
    }

    /// Before the first frame of the segment with this header.
    pub(crate) fn before(header: &SegmentHeader) -> LogEnd {
        LogEnd {
            offset: u32::try_from(SEGMENT_HEADER_BYTES).expect("144"),
            position: header.id.first_position.saturating_sub(1),
            recorded_at: header.recorded_before,
            chain: header.chain_before,
            frames: 0,
            events: 0,
        }
    }
}

impl LogEnd {
    /// Whether MARK speaks of this place, if it speaks of its segment.
    pub(crate) fn is_at(&self, mark: &Mark) -> bool {
        (self.offset, self.position, self.chain) == (mark.durable_end, mark.position, mark.chain)
    }
}

/// Event ids hold positions of 48 bits.
pub(crate) const POSITION_MAX: u64 = (1 << 48) - 1;

/// How a walk ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// Nothing but zeros from here to the end of the file.
    Zeros,
    /// A seal that fits what was walked.
    Sealed(Seal),
    /// Something else; a torn tail, or damage.
    Invalid(Damage),
}

pub(crate) struct Scan {
    pub(crate) tip: LogEnd,
    pub(crate) ending: Ending,
    /// Bytes read.
    pub(crate) bytes: u64,
}

/// What to look at while walking.
pub(crate) struct Walk<'a> {
    /// Stop here, as if the file ended; `u32::MAX` for all of it.
    pub(crate) limit: u32,
    /// Recompute the chain of frames at or after this offset; `u32::MAX` for none.
    pub(crate) verify_chain_from: u32,
    /// Sees every accepted frame, where it begins, and where the walk stands behind it.
    #[expect(clippy::type_complexity, reason = "one visitor, spelled out once")]
    pub(crate) visit: &'a mut dyn FnMut(&SegmentFile, u32, &Frame<'_>, &LogEnd) -> Result<(), Error>,
}

/// Walks from the segment's first frame.
///
/// # Errors
///
/// What reading gives, what `visit` gives, and [`crate::ErrorKind::Corrupt`] for a frame that is
/// whole but cannot stand where it stands: no torn write leaves such a thing.
pub(crate) fn scan(segment: &SegmentFile, walk: &mut Walk<'_>) -> Result<Scan, Error> {
    scan_from(segment, LogEnd::start(segment), walk)
}

/// Walks on from where an earlier walk of the segment stood.
///
/// # Errors
///
/// As [`scan`].
pub(crate) fn scan_from(segment: &SegmentFile, mut tip: LogEnd, walk: &mut Walk<'_>) -> Result<Scan, Error> {
    let mut window = Window::new(segment, walk.limit)?;
    let ending = loop {
        match found_at(&mut window, tip.offset)? {
            Found::Frame(frame) => {
                let offset = tip.offset;
                tip = follow(segment, &tip, &frame, offset >= walk.verify_chain_from)
                    .map_err(|damage| segment.damaged(offset.into(), &damage))?;
                (walk.visit)(segment, offset, &frame, &tip)?;
            }
            Found::Attestation(attestation, length) => {
                tip = attested(segment, &tip, &attestation, length)
                    .map_err(|damage| segment.damaged(tip.offset.into(), &damage))?;
            }
            Found::Seal(seal) => break sealed(seal, &tip),
            Found::Zeros => break Ending::Zeros,
            Found::Invalid(damage) => break Ending::Invalid(damage),
        }
    };
    Ok(Scan { tip, ending, bytes: window.bytes_read })
}

/// What lies at an offset.
pub(crate) enum Found<'a> {
    Frame(Frame<'a>),
    Attestation(Attestation<'a>, usize),
    Seal(Seal),
    /// Nothing but zeros from here to the end of the file.
    Zeros,
    Invalid(Damage),
}

pub(crate) fn found_at<'a>(window: &'a mut Window<'_>, offset: u32) -> Result<Found<'a>, Error> {
    let header = &window.segment.header;
    let place = u64::from(offset);
    let mark = header.frame_mark(place);
    let head = window.at(offset, frame::FRAME_FIXED_BYTES)?;
    if header.is_seal(head, place) {
        return Ok(Seal::read(window.at(offset, SEAL_BYTES)?).map_or_else(Found::Invalid, Found::Seal));
    }
    if header.is_attestation(head, place) {
        let read = Attestation::read(window.at(offset, Attestation::BYTES_MAX)?);
        return Ok(
            read.map_or_else(Found::Invalid, |(attestation, length)| Found::Attestation(attestation, length))
        );
    }
    let Some(header_bytes) = frame::bytes_needed(head, mark) else {
        let is_end = window.is_zero_from(offset)?;
        return Ok(if is_end { Found::Zeros } else { Found::Invalid(Damage::Bad("no frame begins here")) });
    };
    let frame_bytes = match frame::read_header(window.at(offset, header_bytes)?, mark) {
        Ok(header) => header.frame_bytes(),
        Err(damage) => return Ok(Found::Invalid(damage)),
    };
    // Of bytes that were there already the header is checked; others were read again.
    let is_there = window.holds(offset, frame_bytes);
    let bytes = window.at(offset, frame_bytes)?;
    let read = if is_there { frame::read_behind_header(bytes) } else { frame::read(bytes, mark) };
    Ok(read.map_or_else(Found::Invalid, Found::Frame))
}

/// Whether a seal fits what was walked.
pub(super) fn sealed(seal: Seal, tip: &LogEnd) -> Ending {
    let found = Seal {
        length: tip.offset.saturating_add(u32::try_from(SEAL_BYTES).expect("72")),
        last_position: tip.position,
        last_recorded_at: tip.recorded_at,
        frames: tip.frames,
        events: tip.events,
        chain: tip.chain,
    };
    if seal == found { Ending::Sealed(seal) } else { Ending::Invalid(SEAL_MISFITS) }
}

/// Of a seal whose checksum fits.
pub(crate) const SEAL_MISFITS: Damage = Damage::Forbidden("the seal does not fit what it seals");
pub(crate) const CHAIN_BROKEN: Damage = Damage::Bad("a whole frame does not continue the hash chain");

/// The walk's place behind a frame that is whole, if it may stand here.
pub(crate) fn follow(
    segment: &SegmentFile,
    tip: &LogEnd,
    frame: &Frame<'_>,
    verify_chain: bool,
) -> Result<LogEnd, Damage> {
    const TOO_LONG: Damage = Damage::Bad("the segment is longer than a segment can be");
    let header = &frame.header;
    let first_position = segment.header.id.first_position.saturating_add(header.position_offset().into());
    if first_position != tip.position.saturating_add(1) {
        return Err(Damage::Bad("a whole frame has another position than the one that comes next"));
    }
    if header.recorded_at() < tip.recorded_at {
        return Err(Damage::Bad("a whole frame was recorded before the one in front of it"));
    }
    if header.durable_end() > tip.offset {
        return Err(Damage::Bad("a whole frame claims that more was durable than was written"));
    }
    if verify_chain && chain_after(&tip.chain, first_position, frame)? != header.chain() {
        return Err(CHAIN_BROKEN);
    }
    // Events are counted in 32 bits from the segment's first position.
    header.position_offset().checked_add(header.events().into()).ok_or(TOO_LONG)?;
    let position = tip.position.checked_add(header.events().into()).ok_or(TOO_LONG)?;
    if position > POSITION_MAX {
        return Err(Damage::Bad("a whole frame has a position that no event can have"));
    }
    let frame_bytes = u32::try_from(header.frame_bytes()).map_err(|_| TOO_LONG)?;
    Ok(LogEnd {
        offset: tip.offset.checked_add(frame_bytes).ok_or(TOO_LONG)?,
        position,
        recorded_at: header.recorded_at(),
        chain: header.chain(),
        frames: tip.frames.saturating_add(1),
        events: tip.events.saturating_add(header.events().into()),
    })
}

/// The chain hash a frame should have, from its content.
pub(crate) fn chain_after(before: &Hash, position: u64, frame: &Frame<'_>) -> Result<Hash, Damage> {
    chain_seeing(before, position, frame, |_, _| {})
}

/// The same; `see` is shown each record on the way, and its place among them.
#[inline]
pub(crate) fn chain_seeing(
    before: &Hash,
    position: u64,
    frame: &Frame<'_>,
    mut see: impl FnMut(usize, &Record<'_>),
) -> Result<Hash, Damage> {
    let header = &frame.header;
    let mut contents = records(frame.body, header.events()).enumerate().map(|(index, record)| {
        let record = record?;
        see(index, &record);
        Ok(record.content())
    });
    let content = match header.events() {
        1 => contents.next().expect("a frame has an event")?,
        _ => body_content(&contents.collect::<Result<Vec<_>, Damage>>()?),
    };
    let content = extended_content(&content, header.extension());
    let assigned = Assigned {
        position,
        recorded_at: header.recorded_at(),
        first_version: header.first_version(),
        events: header.events(),
        flags: header.flags(),
    };
    Ok(link(before, &content, &assigned))
}

/// The walk's place behind an attestation: removed positions are stepped over, the chain goes on.
pub(crate) fn attested(
    segment: &SegmentFile,
    tip: &LogEnd,
    attestation: &Attestation<'_>,
    length: usize,
) -> Result<LogEnd, Damage> {
    let id = segment.header.id;
    if id.generation == 0 {
        return Err(Damage::Bad(
            "an attestation of removed frames stands in a segment that was never rewritten",
        ));
    }
    if attestation.chain_before != tip.chain
        || attestation.first_position != tip.position.saturating_add(1)
        || attestation.last_position < attestation.first_position
        || attestation.last_position.saturating_sub(id.first_position) > u32::MAX.into()
        || attestation.last_position > POSITION_MAX
        || attestation.last_recorded_at < tip.recorded_at
    {
        return Err(Damage::Bad("an attestation does not continue the log"));
    }
    // Positions follow one another, so as many events went as there are positions without one.
    let removed = attestation.last_position.saturating_sub(tip.position);
    if u64::from(attestation.events) != removed {
        return Err(Damage::Bad("an attestation counts other events than those whose positions it names"));
    }
    let end = u32::try_from(length).ok().and_then(|length| tip.offset.checked_add(length));
    Ok(LogEnd {
        offset: end.ok_or(Damage::Bad("the segment is longer than a segment can be"))?,
        position: attestation.last_position,
        recorded_at: attestation.last_recorded_at,
        chain: attestation.chain_after,
        ..*tip
    })
}

/// A part of the file in memory, moved forward as the walk goes on.
pub(crate) struct Window<'a> {
    segment: &'a SegmentFile,
    length: u32,
    bytes: Vec<u8>,
    start: u32,
    pub(crate) bytes_read: u64,
}

/// What one read fetches, unless a frame needs more.
const WINDOW: usize = 1 << 20;
/// The largest frame: header, key, version table, body.
const FRAME_BYTES_MAX: usize = frame::HEADER_BYTES_MAX + BODY_BYTES_MAX;

impl<'a> Window<'a> {
    pub(crate) fn new(segment: &'a SegmentFile, limit: u32) -> Result<Window<'a>, Error> {
        let length = u32::try_from(segment.length()?).unwrap_or(u32::MAX).min(limit);
        Ok(Window { segment, length, bytes: Vec::new(), start: 0, bytes_read: 0 })
    }

    pub(crate) fn segment(&self) -> &'a SegmentFile {
        self.segment
    }

    /// Of the file, as far as it is looked at.
    pub(crate) fn length(&self) -> u32 {
        self.length
    }

    /// The bytes from `offset` on: `needed` of them, or what the file has.
    pub(crate) fn at(&mut self, offset: u32, needed: usize) -> Result<&[u8], Error> {
        let rest = wide(self.length.saturating_sub(offset));
        let needed = needed.min(rest).min(FRAME_BYTES_MAX);
        if !self.holds(offset, needed) {
            self.fetch(offset, needed.max(WINDOW).min(rest))?;
        }
        Ok(&self.bytes[wide(offset - self.start)..])
    }

    /// Whether so many bytes from `offset` on are in memory.
    fn holds(&self, offset: u32, needed: usize) -> bool {
        let inside = offset.checked_sub(self.start).map(wide);
        inside.and_then(|at| self.bytes.get(at..)).is_some_and(|bytes| bytes.len() >= needed)
    }

    fn fetch(&mut self, offset: u32, bytes: usize) -> Result<(), Error> {
        self.bytes.resize(bytes, 0);
        self.start = offset;
        let read = read_full(self.segment.file.as_ref(), &mut self.bytes, offset.into())
            .map_err(|error| Error::io("cannot read", &self.segment.path, error))?;
        self.bytes.truncate(read);
        self.bytes_read += u64::try_from(read).expect("a length fits 64 bits");
        Ok(())
    }

    /// Whether everything from `offset` to the end of the file is zero.
    pub(crate) fn is_zero_from(&mut self, offset: u32) -> Result<bool, Error> {
        Ok(self.last_nonzero(offset)?.is_none())
    }

    /// The offset behind the last byte, from `offset` on, that is not zero.
    pub(crate) fn last_nonzero(&mut self, mut offset: u32) -> Result<Option<u32>, Error> {
        let mut last = None;
        while offset < self.length {
            let bytes = self.at(offset, WINDOW)?;
            if bytes.is_empty() {
                break;
            }
            let length = u32::try_from(bytes.len()).expect("a window fits 32 bits");
            if let Some(at) = bytes.iter().rposition(|byte| *byte != 0) {
                last = Some(offset + u32::try_from(at + 1).expect("a window fits 32 bits"));
            }
            offset = offset.saturating_add(length);
        }
        Ok(last)
    }
}
