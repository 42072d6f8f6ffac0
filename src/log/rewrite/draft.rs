//! The new segment of a rewrite: written piece by piece, sealed, read again, named.

use std::sync::Arc;

use blake3::Hasher;

use crate::disk::{Access, Disk, DiskFile, remove_if_there, write_all};
use crate::format::{
    Annotations, AnyRecord, Attestation, Cover, Frame, FramePlace, Hash, NewFrameHeader, SEGMENTS_DIRECTORY,
    Seal, SegmentEntry, SegmentHeader, SegmentId, frame_leaves, padded_body_bytes, u64_at,
};
use crate::log::cursor::{LogEnd, SegmentCursor, SegmentEnd};
use crate::log::manifest_file::Effect;
use crate::log::segment::{Failure, SegmentFile};
use crate::types::{Error, to_u64, to_usize};

use super::{Fate, Judge, RewritePiece, judge_segment};

/// How much is written at once.
const PIECE_BYTES: usize = 1 << 20;
/// What must stay free on the disk beside the new segment, so that no append fails because of a rewrite.
const SPARE_BYTES: u64 = 1 << 20;

/// Which segments to write anew as one, and why.
pub(crate) struct RewritePlan<'a> {
    pub(crate) disk: &'a dyn Disk,
    /// Sealed segments that follow one another.
    pub(crate) sources: &'a [Arc<SegmentFile>],
    /// How many streams begin in them, if MANIFEST says it.
    pub(crate) streams_created: Option<u32>,
    /// The position of the event that orders removals, for attestations.
    pub(crate) order: u64,
    pub(crate) now: u64,
}

/// A new segment that is whole and has no name yet. Dropping it removes its file.
pub(crate) struct SegmentDraft<'a> {
    disk: &'a dyn Disk,
    header: SegmentHeader,
    seal: Seal,
    streams_created: Option<u32>,
    /// A hash over everything that stays. What is read back must have the same hash.
    kept: Hash,
    effect: Effect,
    is_named: bool,
}

impl RewritePlan<'_> {
    /// Writes the segment beside the others, and syncs it.
    ///
    /// # Errors
    ///
    /// Those of reading and writing, and what the judge gives. After an error no file is left.
    pub(crate) fn write(&self, judge: &mut dyn Judge) -> Result<SegmentDraft<'_>, Error> {
        let header = self.header()?;
        let path = header.id.temporary();
        remove(self.disk, &path)?;
        let file = self.disk.open(&path, Access::CreateNew);
        let file = file.map_err(|error| Error::io("cannot write", &path, error))?;
        // From here on an error drops the draft, which removes the file.
        let mut draft = SegmentDraft {
            disk: self.disk,
            seal: LogEnd::before(&header).seal()?,
            header: header.clone(),
            streams_created: self.streams_created,
            kept: [0; 32],
            effect: Effect::None,
            is_named: false,
        };
        let mut output = DraftWriter::new(file, path.clone(), header, self);
        for source in self.sources {
            judge_segment(source, judge, &mut |piece| output.add(piece))?;
        }
        output.finish(&mut draft)?;
        Ok(draft)
    }

    /// The header of the first source, with a new generation, salt and time.
    fn header(&self) -> Result<SegmentHeader, Error> {
        let first = &self.sources.first().expect("there is something to rewrite").header;
        let random = self.disk.random();
        let random = random.map_err(|error| Error::io("cannot get random bytes for", "a segment", error))?;
        let generation = first.id.generation.checked_add(1);
        let generation = generation.ok_or_else(|| Error::invalid("the segment was rewritten too often"))?;
        let unsynced = self.sources.iter().map(|source| source.header.unsynced_bytes_max);
        Ok(SegmentHeader {
            id: SegmentId { generation, ..first.id },
            salt: SegmentHeader::salt(u64_at(&random, 0)),
            created_at: self.now,
            unsynced_bytes_max: unsynced.max().unwrap_or(first.unsynced_bytes_max),
            ..first.clone()
        })
    }

    /// Checks that the disk has room. The new segment is about as long as its sources at most, and lies
    /// beside them until MANIFEST lists it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoSpace`](crate::ErrorKind::NoSpace) if there is too little room.
    pub(crate) fn check_space(&self) -> Result<(), Error> {
        let lengths = self.sources.iter().map(|source| source.length());
        let needed = lengths.sum::<Result<u64, Error>>()?.saturating_add(SPARE_BYTES);
        match self.disk.free_bytes() {
            Ok(free) if free < needed => Err(Error::no_space(format!(
                "{needed} bytes must be free to rewrite a segment, and {free} are; nothing was changed"
            ))),
            // If the disk cannot tell, writing meets the error.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// Removes a file that may be gone.
pub(crate) fn remove(disk: &dyn Disk, path: &str) -> Result<(), Error> {
    remove_if_there(disk, path).map_err(|error| Error::io("cannot remove", path, error))?;
    Ok(())
}

/// The file of the new segment while it is written.
struct DraftWriter<'a> {
    file: Box<dyn DiskFile>,
    path: String,
    header: SegmentHeader,
    plan: &'a RewritePlan<'a>,
    /// The place behind the last piece. Its offset lies behind the bytes in the buffer.
    end: LogEnd,
    buffer: Vec<u8>,
    body: Vec<u8>,
    /// Removed positions that follow one another, up to the last piece. One attestation stands for all of
    /// them.
    removed: Option<Attestation>,
    /// Whether an event was erased or removed.
    is_changed: bool,
    kept: Hasher,
}

impl<'a> DraftWriter<'a> {
    fn new(
        file: Box<dyn DiskFile>,
        path: String,
        header: SegmentHeader,
        plan: &'a RewritePlan<'a>,
    ) -> DraftWriter<'a> {
        DraftWriter {
            end: LogEnd::before(&header),
            buffer: header.write().to_vec(),
            body: Vec::new(),
            removed: None,
            is_changed: false,
            kept: Hasher::new(),
            file,
            path,
            header,
            plan,
        }
    }

    fn add(&mut self, piece: &RewritePiece<'_>) -> Result<(), Error> {
        match piece {
            RewritePiece::Frame { frame, first, fates, .. }
                if fates.iter().all(|fate| matches!(fate, Fate::Remove | Fate::Gone)) =>
            {
                self.remove(frame, *first);
                Ok(())
            }
            RewritePiece::Frame { frame, place, first, fates } => {
                self.attest()?;
                self.frame(frame, place, *first, fates)
            }
            RewritePiece::Attestation(attestation) => {
                self.join(attestation);
                Ok(())
            }
        }
    }

    fn remove(&mut self, frame: &Frame<'_>, first: u64) {
        let header = &frame.header;
        let mut cover = Cover::new(first.saturating_sub(1));
        for leaf in frame_leaves(frame, first) {
            let (leaf, _) = leaf.expect("the chain was recomputed");
            cover.push_leaf(leaf);
        }
        self.is_changed = true;
        self.join(&Attestation {
            chain_before: self.end.chain,
            chain_after: header.chain(),
            last_recorded_at: header.recorded_at(),
            order: self.plan.order,
            cover,
        });
    }

    /// Continues position, time and chain behind a frame that was written.
    fn continue_behind(&mut self, frame: &Frame<'_>, first: u64) {
        self.end.position = first.saturating_add(u64::from(frame.header.events()).saturating_sub(1));
        self.end.recorded_at = frame.header.recorded_at();
        self.end.chain = frame.header.chain();
    }

    /// Joins removed positions with those in front of them, and continues behind them.
    fn join(&mut self, removed: &Attestation) {
        self.end.position = removed.last_position();
        self.end.recorded_at = removed.last_recorded_at;
        self.end.chain = removed.chain_after;
        match &mut self.removed {
            Some(before) => before.join(removed),
            None => self.removed = Some(removed.clone()),
        }
    }

    /// Writes the attestation of the positions removed last, if there are any.
    fn attest(&mut self) -> Result<(), Error> {
        let Some(removed) = self.removed.take() else { return Ok(()) };
        let bytes = removed.write(&self.header, self.end.offset.into());
        self.buffer.extend_from_slice(&bytes);
        self.grow(bytes.len())
    }

    /// Writes a frame that lies at `place` of its source.
    fn frame(
        &mut self,
        frame: &Frame<'_>,
        place: &FramePlace,
        first: u64,
        fates: &[Fate],
    ) -> Result<(), Error> {
        let is_whole = frame.events_left() == count_of(fates, &[Fate::Keep]);
        let mut body = std::mem::take(&mut self.body);
        frame.unbound_body(place, &mut body);
        if !is_whole {
            body = reduce(&Frame { body: &body, ..*frame }, fates);
        }
        let fields = frame.header.fields();
        let position = u32::try_from(first.saturating_sub(self.header.id.first_position));
        let before = self.buffer.len();
        NewFrameHeader {
            position_offset: position.map_err(|_| too_long())?,
            durable_end: self.end.offset,
            ..fields
        }
        .write(&mut self.buffer, &self.header.frame_place(self.end.offset), &body, &frame.versions());
        let length = self.buffer.len().saturating_sub(before);
        self.continue_behind(frame, first);
        self.end.frames = self.end.frames.saturating_add(1);
        let left = count_of(fates, &[Fate::Keep, Fate::Erase]);
        self.end.events = self.end.events.saturating_add(left.into());
        hash_kept(&mut self.kept, &self.end, &Frame { body: &body, ..*frame });
        self.is_changed |= !is_whole;
        self.body = body;
        self.grow(length)
    }

    /// Takes note of bytes that were added to the buffer, and writes the buffer if it is large.
    fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        let end = u32::try_from(bytes).ok().and_then(|bytes| self.end.offset.checked_add(bytes));
        self.end.offset = end.ok_or_else(too_long)?;
        if self.buffer.len() < PIECE_BYTES { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> Result<(), Error> {
        let start = to_usize(self.end.offset).saturating_sub(self.buffer.len());
        let start = to_u64(start);
        write_all(self.file.as_ref(), &self.buffer, start)
            .map_err(|error| Error::io("cannot write", &self.path, error))?;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self, draft: &mut SegmentDraft<'_>) -> Result<(), Error> {
        self.attest()?;
        draft.seal = self.end.seal()?;
        let bytes = draft.seal.write(&self.header, self.end.offset.into());
        self.buffer.extend_from_slice(&bytes);
        self.end.offset = draft.seal.length;
        self.write()?;
        self.file.sync().map_err(|error| Error::io("cannot sync", &self.path, error))?;
        draft.kept = *self.kept.finalize().as_bytes();
        draft.effect = if self.is_changed { Effect::History } else { Effect::None };
        Ok(())
    }
}

/// How many of the fates are one of these.
fn count_of(fates: &[Fate], of: &[Fate]) -> u16 {
    let count = fates.iter().filter(|fate| of.contains(fate)).count();
    u16::try_from(count).expect("an append has at most 65,535 events")
}

/// The body of a frame without what is erased or gone. Its records are bound to no place.
fn reduce(frame: &Frame<'_>, fates: &[Fate]) -> Vec<u8> {
    let header = &frame.header;
    let layout = header.layout();
    let mut body = Vec::with_capacity(frame.body.len());
    for (record, fate) in frame.all_records().zip(fates) {
        match (record.expect("the chain was recomputed"), fate) {
            (AnyRecord::Event(record), Fate::Erase) => record.write_erased(layout, &mut body),
            (AnyRecord::Event(record), Fate::Remove | Fate::Gone) => record.write_gone(layout, &mut body),
            (record, _) => body.extend_from_slice(record.bytes()),
        }
    }
    body.resize(padded_body_bytes(body.len(), header.key().is_some(), header.events()), 0);
    body
}

/// Adds to a hash what must be read back of a frame that stays. Its chain stands for its contents.
fn hash_kept(into: &mut Hasher, behind: &LogEnd, frame: &Frame<'_>) {
    into.update(&behind.position.to_le_bytes());
    into.update(&frame.header.events().to_le_bytes());
    into.update(&frame.header.chain());
    for record in frame.all_records() {
        let form = match record {
            Ok(AnyRecord::Event(record)) => u8::from(record.is_erased()),
            Ok(AnyRecord::Gone(_)) | Err(_) => 2,
        };
        into.update(&[form]);
    }
}

fn too_long() -> Error {
    Error::invalid("the segments are too long to be rewritten as one")
}

impl SegmentDraft<'_> {
    pub(crate) fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// What the rewrite does to history.
    pub(crate) fn effect(&self) -> Effect {
        self.effect
    }

    /// The entry that MANIFEST will have.
    pub(crate) fn entry(&self) -> SegmentEntry {
        let none = Annotations::NONE;
        let annotations = self.streams_created.map_or(none, |streams| none.with_streams_created(streams));
        SegmentEntry { annotations, ..SegmentEntry::new(&self.header, &self.seal) }
    }

    /// Reads all of it again, from the device where that is possible. Checks every checksum, the chain, and
    /// that the events that stay are there. `visit` sees each frame, its offset, and the place behind it.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is not as it was meant. Then it must not be used.
    pub(crate) fn check(
        &self,
        mut visit: impl FnMut(&SegmentFile, u32, &Frame<'_>, &LogEnd) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let path = self.header.id.temporary();
        let failed = |error| Error::io("cannot read back", &path, error);
        let file = self.disk.open(&path, Access::Read).map_err(failed)?;
        file.drop_cache(0).map_err(failed)?;
        let file = SegmentFile::from_file(file, path.clone())?;
        let mut kept = Hasher::new();
        let mut cursor = SegmentCursor::new(&file, u32::MAX)?;
        let segment_end = cursor.visit_frames(|offset, frame, after| {
            hash_kept(&mut kept, after, frame);
            visit(&file, offset, frame, after)
        })?;
        let is_whole = matches!(segment_end, SegmentEnd::Sealed(seal) if seal == self.seal)
            && file.header == self.header
            && file.length()? == u64::from(self.seal.length)
            && *kept.finalize().as_bytes() == self.kept;
        if is_whole {
            return Ok(());
        }
        Err(Error::corrupt(&path, cursor.end().offset.into(), "what is read back is not what was written"))
    }

    /// Gives the segment its own name, durably. The caller must have called [`SegmentDraft::check`].
    ///
    /// # Errors
    ///
    /// `Poison` if it is not known which names are durable.
    pub(crate) fn name(mut self) -> Result<SegmentEntry, Failure> {
        let from = self.header.id.temporary();
        let renamed = self.disk.rename(&from, &self.header.id.path());
        renamed.map_err(|error| Failure::Refused(Error::io("cannot rename", &from, error)))?;
        self.is_named = true;
        let synced = self.disk.sync_directory(SEGMENTS_DIRECTORY);
        synced.map_err(|error| Failure::Poison(Error::io("cannot sync", SEGMENTS_DIRECTORY, error)))?;
        Ok(self.entry())
    }
}

impl Drop for SegmentDraft<'_> {
    fn drop(&mut self) {
        if self.is_named {
            return;
        }
        // If this fails, the next writer removes the file.
        if let Err(error) = remove(self.disk, &self.header.id.temporary()) {
            tracing::warn!(%error, "what was left of a rewritten segment was not removed");
        }
    }
}
