//! Reads one segment from its header to its end, and checks that each frame is whole and continues the log.
//!
//! A [`SegmentCursor`] stands behind the last frame or attestation that it accepted; [`LogEnd`] says where
//! that is. A walk ends in one of three ways, and each has its own result. The segment ends as it should
//! (zeros, or its seal), its bytes are not whole from some offset on, or they could not be read. A failed
//! read is an error and never taken for an end. Every walk over a segment uses this cursor: recovery, readers
//! that follow a writer, rewriting and verification.

use crate::disk::read_full;
use crate::format::{
    AnyRecord, Assigned, Attestation, BODY_BYTES_MAX, Damage, Frame, Hash, Mark, SEAL_BYTES,
    SEGMENT_HEADER_BYTES, Seal, SegmentEntry, SegmentHeader, body_content, extended_content, frame, link,
};
use crate::types::{Error, to_u32, to_u64, to_usize};

use super::segment::SegmentFile;

/// Event ids hold positions of 48 bits.
pub(crate) const POSITION_MAX: u64 = (1 << 48) - 1;

/// The damage of a seal whose own checksum fits.
pub(crate) const SEAL_MISFITS: Damage = Damage::Forbidden("the seal does not fit what it seals");
pub(crate) const CHAIN_BROKEN: Damage = Damage::Bad("a whole frame does not continue the hash chain");
const SEGMENT_TOO_LONG: Damage = Damage::Bad("the segment is longer than a segment can be");

/// A place between two frames: where it lies in its segment, and what the log has up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogEnd {
    /// The byte offset in the segment.
    pub(crate) offset: u32,
    /// The position of the last event before this place.
    pub(crate) position: u64,
    /// When the last frame was recorded, in microseconds since 1970.
    pub(crate) recorded_at: u64,
    /// The hash chain after the last frame.
    pub(crate) chain: Hash,
    /// Frames of this segment, and events that are there. Positions whose event is gone do not count.
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
            offset: to_u32(SEGMENT_HEADER_BYTES),
            position: header.id.first_position.saturating_sub(1),
            recorded_at: header.recorded_before,
            chain: header.chain_before,
            frames: 0,
            events: 0,
        }
    }

    /// Behind the last frame of a sealed segment, in front of its seal.
    pub(crate) fn of_sealed(entry: &SegmentEntry) -> LogEnd {
        LogEnd {
            offset: entry.length.saturating_sub(to_u32(SEAL_BYTES)),
            position: entry.last_position,
            recorded_at: entry.last_recorded_at,
            chain: entry.chain,
            frames: entry.frames,
            events: entry.events,
        }
    }

    /// Whether MARK names this place. The caller checks that MARK names this segment.
    pub(crate) fn is_at(&self, mark: &Mark) -> bool {
        (self.offset, self.position, self.chain) == (mark.durable_end, mark.position, mark.chain)
    }

    /// The seal of a segment that ends here.
    ///
    /// # Errors
    ///
    /// If the segment has no room for a seal within 32-bit offsets.
    pub(crate) fn seal(&self) -> Result<Seal, Error> {
        let length = self.offset.checked_add(to_u32(SEAL_BYTES));
        Ok(Seal {
            length: length.ok_or_else(|| Error::invalid("the segment is too long to be sealed"))?,
            last_position: self.position,
            last_recorded_at: self.recorded_at,
            frames: self.frames,
            events: self.events,
            chain: self.chain,
        })
    }

    /// The place behind a whole frame at this place, if the frame continues the log here.
    ///
    /// `verify_chain` recomputes the hash chain from the contents of the frame, which costs a hash of each
    /// byte.
    pub(crate) fn after_frame(
        &self,
        segment: &SegmentFile,
        frame: &Frame<'_>,
        verify_chain: bool,
    ) -> Result<LogEnd, Damage> {
        let header = &frame.header;
        let first_position = segment.header.id.first_position.saturating_add(header.position_offset().into());
        if first_position != self.position.saturating_add(1) {
            return Err(Damage::Bad("a whole frame has another position than the one that comes next"));
        }
        if header.recorded_at() < self.recorded_at {
            return Err(Damage::Bad("a whole frame was recorded before the one in front of it"));
        }
        if header.durable_end() > self.offset {
            return Err(Damage::Bad("a whole frame claims that more was durable than was written"));
        }
        if verify_chain && chain_after(&self.chain, first_position, frame)? != header.chain() {
            return Err(CHAIN_BROKEN);
        }
        // Events are counted in 32 bits from the segment's first position.
        header.position_offset().checked_add(header.events().into()).ok_or(SEGMENT_TOO_LONG)?;
        let position = self.position.checked_add(header.events().into()).ok_or(SEGMENT_TOO_LONG)?;
        if position > POSITION_MAX {
            return Err(Damage::Bad("a whole frame has a position that no event can have"));
        }
        let frame_bytes = u32::try_from(header.frame_bytes()).map_err(|_| SEGMENT_TOO_LONG)?;
        Ok(LogEnd {
            offset: self.offset.checked_add(frame_bytes).ok_or(SEGMENT_TOO_LONG)?,
            position,
            recorded_at: header.recorded_at(),
            chain: header.chain(),
            frames: self.frames.saturating_add(1),
            events: self.events.saturating_add(events_left(segment, frame)?.into()),
        })
    }

    /// The place behind an attestation that was read here, if it continues the log. That place has the last
    /// position and the chain of the removed frames.
    pub(crate) fn after_attestation(
        &self,
        segment: &SegmentFile,
        attestation: &Attestation,
    ) -> Result<LogEnd, Damage> {
        let id = segment.header.id;
        if id.generation == 0 {
            return Err(Damage::Bad(
                "an attestation of removed frames stands in a segment that was never rewritten",
            ));
        }
        let last = attestation.last_position();
        if last.saturating_sub(id.first_position) > u32::MAX.into()
            || last > POSITION_MAX
            || attestation.last_recorded_at < self.recorded_at
        {
            return Err(Damage::Bad("an attestation does not continue the log"));
        }
        let end = u32::try_from(attestation.bytes()).ok().and_then(|bytes| self.offset.checked_add(bytes));
        Ok(LogEnd {
            offset: end.ok_or(SEGMENT_TOO_LONG)?,
            position: last,
            recorded_at: attestation.last_recorded_at,
            chain: attestation.chain_after,
            ..*self
        })
    }
}

/// How many events of a frame are there. Only a rewritten segment can have gone records, so no other walk
/// looks for them.
fn events_left(segment: &SegmentFile, frame: &Frame<'_>) -> Result<u16, Damage> {
    if segment.header.id.generation == 0 {
        return Ok(frame.header.events());
    }
    match frame.events_left() {
        0 => Err(Damage::Forbidden("a frame stands where all its events are gone")),
        left => Ok(left),
    }
}

/// The chain hash that a frame should have, computed from its contents.
pub(crate) fn chain_after(before: &Hash, position: u64, frame: &Frame<'_>) -> Result<Hash, Damage> {
    chain_and_records(before, position, frame, |_, _| {})
}

/// Computes the chain hash as [`chain_after`] does, and shows `visit` each record with its index in the
/// frame, gone ones included.
#[inline]
pub(crate) fn chain_and_records(
    before: &Hash,
    position: u64,
    frame: &Frame<'_>,
    mut visit: impl FnMut(u16, &AnyRecord<'_>),
) -> Result<Hash, Damage> {
    let header = &frame.header;
    // The key and the versions, as they enter the chain.
    let mut extension = header.key().map_or_else(Vec::new, |key| key.to_vec());
    let content = {
        let mut contents = frame.all_records().zip(0..).map(|(record, index)| {
            let record = record?;
            visit(index, &record);
            extension.extend(record.version().into_iter().flat_map(u64::to_le_bytes));
            Ok(record.content())
        });
        match header.events() {
            1 => contents.next().expect("a frame has an event")?,
            _ => body_content(&contents.collect::<Result<Vec<_>, Damage>>()?),
        }
    };
    let content = extended_content(&content, &extension);
    let assigned = Assigned {
        position,
        recorded_at: header.recorded_at(),
        first_version: header.first_version(),
        events: header.events(),
        flags: header.flags(),
    };
    Ok(link(before, &content, &assigned))
}

/// What lies at an offset of a segment, whole, but not compared with what came before it.
pub(crate) enum SegmentItem<'a> {
    Frame(Frame<'a>),
    /// An attestation that fits what the walk knows of the log in front of it.
    Attestation(Attestation),
    Seal(Seal),
    /// Only zeros from here to the end of the file.
    Zeros,
    /// Something else: a torn tail, or damage.
    Invalid(Damage),
}

/// How a segment ends.
#[derive(Debug)]
pub(crate) enum SegmentEnd {
    /// Only zeros from here to the end of the file.
    Zeros,
    /// A seal that fits what was read.
    Sealed(Seal),
    /// Something else: a torn tail, or damage.
    Invalid(Damage),
}

/// What [`SegmentCursor::advance`] accepted, or why it could not go further.
pub(crate) enum Advance<'a> {
    /// A frame or an attestation that continues the log, with the places around it.
    Frame {
        frame: Frame<'a>,
        before: LogEnd,
        after: LogEnd,
    },
    Attestation {
        attestation: Attestation,
        after: LogEnd,
    },
    /// The cursor stays where it is.
    End(SegmentEnd),
}

/// A reader of one segment, in order. It holds about 1 MiB of the file, or one frame if that is larger.
pub(crate) struct SegmentCursor<'a> {
    window: Window<'a>,
    end: LogEnd,
    /// The chain is recomputed for frames at this offset or behind it.
    verify_chain_from: u32,
}

impl<'a> SegmentCursor<'a> {
    /// Stands before the first frame, and verifies the hash chain of every frame. `limit` is an offset at
    /// which the file ends for this cursor; `u32::MAX` for all of it.
    pub(crate) fn new(segment: &'a SegmentFile, limit: u32) -> Result<SegmentCursor<'a>, Error> {
        let window = Window::new(segment, limit)?;
        Ok(SegmentCursor { window, end: LogEnd::start(segment), verify_chain_from: 0 })
    }

    /// Continues at a place where an earlier walk of this segment stood.
    pub(crate) fn starting_at(self, end: LogEnd) -> SegmentCursor<'a> {
        SegmentCursor { end, ..self }
    }

    /// Verifies the hash chain only of frames at `offset` or behind it.
    pub(crate) fn verifying_chain_from(self, offset: u32) -> SegmentCursor<'a> {
        SegmentCursor { verify_chain_from: offset, ..self }
    }

    /// Verifies no hash chain: something else vouches for it.
    pub(crate) fn trusting_chain(self) -> SegmentCursor<'a> {
        self.verifying_chain_from(u32::MAX)
    }

    /// Where the cursor stands: behind the last frame or attestation that it accepted.
    pub(crate) fn end(&self) -> &LogEnd {
        &self.end
    }

    /// How many bytes were read from the file.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.window.bytes_read
    }

    /// The part of the file that is in memory, for callers that search behind damage.
    pub(crate) fn window(&mut self) -> &mut Window<'a> {
        &mut self.window
    }

    /// Moves to a place that the caller computed itself, for walks that continue behind damage.
    pub(crate) fn move_to(&mut self, end: LogEnd) {
        self.end = end;
    }

    /// What lies where the cursor stands. The cursor does not move.
    pub(crate) fn peek(&mut self) -> Result<SegmentItem<'_>, Error> {
        item_at(&mut self.window, &self.end)
    }

    /// Moves behind the next frame or attestation.
    ///
    /// # Errors
    ///
    /// What reading gives, and [`crate::ErrorKind::Corrupt`] for a frame or an attestation that is whole but
    /// does not continue the log: no torn write leaves one.
    #[inline]
    pub(crate) fn advance(&mut self) -> Result<Advance<'_>, Error> {
        let segment = self.window.segment;
        let before = self.end;
        let damaged = |damage: Damage| segment.damaged(before.offset.into(), &damage);
        match item_at(&mut self.window, &before)? {
            SegmentItem::Frame(frame) => {
                let verify_chain = before.offset >= self.verify_chain_from;
                let after = before.after_frame(segment, &frame, verify_chain).map_err(damaged)?;
                self.end = after;
                Ok(Advance::Frame { frame, before, after })
            }
            SegmentItem::Attestation(attestation) => {
                let after = before.after_attestation(segment, &attestation).map_err(damaged)?;
                self.end = after;
                Ok(Advance::Attestation { attestation, after })
            }
            SegmentItem::Seal(seal) if before.seal().is_ok_and(|expected| expected == seal) => {
                Ok(Advance::End(SegmentEnd::Sealed(seal)))
            }
            SegmentItem::Seal(_) => Ok(Advance::End(SegmentEnd::Invalid(SEAL_MISFITS))),
            SegmentItem::Zeros => Ok(Advance::End(SegmentEnd::Zeros)),
            SegmentItem::Invalid(damage) => Ok(Advance::End(SegmentEnd::Invalid(damage))),
        }
    }

    /// Moves to the end of the segment. `visit` sees each frame with its offset and the place behind it.
    ///
    /// # Errors
    ///
    /// Those of [`SegmentCursor::advance`], and what `visit` gives; the cursor stands behind that frame then.
    pub(crate) fn visit_frames(
        &mut self,
        mut visit: impl FnMut(u32, &Frame<'_>, &LogEnd) -> Result<(), Error>,
    ) -> Result<SegmentEnd, Error> {
        loop {
            match self.advance()? {
                Advance::Frame { frame, before, after } => visit(before.offset, &frame, &after)?,
                Advance::Attestation { .. } => {}
                Advance::End(end) => return Ok(end),
            }
        }
    }
}

/// What lies at a place. An attestation is read with the position and the chain in front of it. Where the
/// walk does not know these, an attestation does not fit.
fn item_at<'a>(window: &'a mut Window<'_>, end: &LogEnd) -> Result<SegmentItem<'a>, Error> {
    let offset = end.offset;
    let header = &window.segment.header;
    let at = u64::from(offset);
    let place = header.frame_place(offset);
    let mark = header.frame_mark(at);
    let head = window.at(offset, frame::FRAME_FIXED_BYTES)?;
    if header.is_seal(head, at) {
        let read = Seal::read(window.at(offset, SEAL_BYTES)?);
        return Ok(read.map_or_else(SegmentItem::Invalid, SegmentItem::Seal));
    }
    if header.is_attestation(head, at) {
        let bytes = window.at(offset, Attestation::BYTES_MAX)?;
        let read = Attestation::read(bytes, end.position, &end.chain);
        return Ok(read.map_or_else(SegmentItem::Invalid, SegmentItem::Attestation));
    }
    let Some(header_bytes) = frame::bytes_needed(head, mark) else {
        let is_end = window.is_zero_from(offset)?;
        let nothing = SegmentItem::Invalid(Damage::Bad("no frame begins here"));
        return Ok(if is_end { SegmentItem::Zeros } else { nothing });
    };
    let frame_bytes = match frame::read_header(window.at(offset, header_bytes)?, mark) {
        Ok(header) => header.frame_bytes(),
        Err(damage) => return Ok(SegmentItem::Invalid(damage)),
    };
    // The header was checked above in these very bytes, unless the window moves. Then they are read once
    // more, and a file that changed between the two reads must not pass.
    let is_in_memory = window.holds(offset, frame_bytes);
    let bytes = window.at(offset, frame_bytes)?;
    let read =
        if is_in_memory { frame::read_behind_header(bytes, &place) } else { frame::read(bytes, &place) };
    Ok(read.map_or_else(SegmentItem::Invalid, SegmentItem::Frame))
}

/// A part of a segment's file in memory. It moves forward with the offsets that are asked for.
pub(crate) struct Window<'a> {
    segment: &'a SegmentFile,
    length: u32,
    bytes: Vec<u8>,
    start: u32,
    pub(crate) bytes_read: u64,
}

/// What one read fetches, in bytes, unless a frame needs more.
const WINDOW_BYTES: usize = 1 << 20;
/// The largest frame: header and body.
pub(crate) const FRAME_BYTES_MAX: usize = frame::HEADER_BYTES_MAX + BODY_BYTES_MAX;

impl<'a> Window<'a> {
    /// `limit` is an offset at which the file ends for this window; `u32::MAX` for all of it.
    pub(crate) fn new(segment: &'a SegmentFile, limit: u32) -> Result<Window<'a>, Error> {
        let length = u32::try_from(segment.length()?).unwrap_or(u32::MAX).min(limit);
        Ok(Window { segment, length, bytes: Vec::new(), start: 0, bytes_read: 0 })
    }

    pub(crate) fn segment(&self) -> &'a SegmentFile {
        self.segment
    }

    /// The length of the file in bytes, or the limit if that is less.
    pub(crate) fn length(&self) -> u32 {
        self.length
    }

    /// The bytes from `offset` on: at least `needed` of them, or all that the file has.
    pub(crate) fn at(&mut self, offset: u32, needed: usize) -> Result<&[u8], Error> {
        let rest = to_usize(self.length.saturating_sub(offset));
        // A length that a file claims is bounded by the file and by the largest frame before it becomes
        // memory.
        let needed = needed.min(rest).min(FRAME_BYTES_MAX);
        if !self.holds(offset, needed) {
            self.fetch(offset, needed.max(WINDOW_BYTES).min(rest))?;
        }
        Ok(&self.bytes[to_usize(offset - self.start)..])
    }

    /// Whether this many bytes from `offset` on are in memory.
    fn holds(&self, offset: u32, needed: usize) -> bool {
        let inside = offset.checked_sub(self.start).map(to_usize);
        inside.and_then(|at| self.bytes.get(at..)).is_some_and(|bytes| bytes.len() >= needed)
    }

    fn fetch(&mut self, offset: u32, bytes: usize) -> Result<(), Error> {
        self.bytes.resize(bytes, 0);
        self.start = offset;
        let read = read_full(self.segment.file.as_ref(), &mut self.bytes, offset.into())
            .map_err(|error| Error::io("cannot read", &self.segment.path, error))?;
        self.bytes.truncate(read);
        self.bytes_read += to_u64(read);
        Ok(())
    }

    /// Whether everything from `offset` to the end of the file is zero.
    pub(crate) fn is_zero_from(&mut self, offset: u32) -> Result<bool, Error> {
        Ok(self.last_nonzero(offset)?.is_none())
    }

    /// The offset behind the last byte that is not zero, at `offset` or later.
    pub(crate) fn last_nonzero(&mut self, mut offset: u32) -> Result<Option<u32>, Error> {
        let mut last = None;
        while offset < self.length {
            let bytes = self.at(offset, WINDOW_BYTES)?;
            if bytes.is_empty() {
                break;
            }
            if let Some(at) = bytes.iter().rposition(|byte| *byte != 0) {
                last = Some(offset + to_u32(at + 1));
            }
            offset = offset.saturating_add(to_u32(bytes.len()));
        }
        Ok(last)
    }
}
