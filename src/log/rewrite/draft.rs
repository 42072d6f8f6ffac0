//! The new segment: written piece by piece, sealed, read again, named.
//!
//! Row: log.

use std::sync::Arc;

use blake3::Hasher;

use crate::disk::{Access, Disk, DiskFile, write_all};
use crate::format::{
    Annotations, Attestation, Frame, Hash, NewFrameHeader, SEGMENTS_DIRECTORY, Seal, SegmentEntry,
    SegmentHeader, SegmentId, aligned, checksum, records, u64_at,
};
use crate::log::Failure;
use crate::log::files::Effect;
use crate::log::repair::{listing, seal};
use crate::log::scan::{Ending, LogEnd, Walk, scan};
use crate::log::segment::{SegmentFile, wide};
use crate::types::Error;

use super::{Fate, Judge, Piece, walk};

/// What is written at once.
const PIECE: usize = 1 << 20;
/// What must be left on the disk beside what is written: nobody's append is to fail for it.
const SPARE_BYTES: u64 = 1 << 20;

/// What is to be written anew, and why.
pub(crate) struct Plan<'a> {
    pub(crate) disk: &'a dyn Disk,
    /// Sealed segments that follow one another.
    pub(crate) sources: &'a [Arc<SegmentFile>],
    /// What MANIFEST says of how many streams begin in them.
    pub(crate) born: Option<u32>,
    /// What attestations say.
    pub(crate) why: &'a str,
    pub(crate) now: u64,
}

/// A segment that is whole, and has no name yet. Dropped, it was never there.
pub(crate) struct Draft<'a> {
    disk: &'a dyn Disk,
    header: SegmentHeader,
    seal: Seal,
    born: Option<u32>,
    /// Of everything that stays: what is read back must have the same.
    survivors: Hash,
    effect: Effect,
    is_named: bool,
}

impl Plan<'_> {
    /// Writes the segment beside the others, and syncs it.
    ///
    /// # Errors
    ///
    /// Those of reading and writing, and what the judge gives; then nothing is left of it.
    pub(crate) fn write(&self, judge: &mut dyn Judge) -> Result<Draft<'_>, Error> {
        let header = self.header()?;
        self.check_space()?;
        let path = header.id.temporary();
        remove(self.disk, &path)?;
        let failed = |error| Error::io("cannot write", &path, error);
        let file = self.disk.open(&path, Access::CreateNew).map_err(failed)?;
        let mut draft = Draft {
            disk: self.disk,
            seal: seal(&LogEnd::before(&header))?,
            header: header.clone(),
            born: self.born,
            survivors: [0; 32],
            effect: Effect::None,
            is_named: false,
        };
        let mut output = Output::new(file, path.clone(), header, self);
        for source in self.sources {
            walk(source, judge, &mut |piece| output.add(piece))?;
        }
        output.finish(&mut draft)?;
        Ok(draft)
    }

    /// Of the first, but for what is new.
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

    /// What is written is at most as long as what is read, and may stand beside it for a while.
    fn check_space(&self) -> Result<(), Error> {
        let lengths = self.sources.iter().map(|source| source.length());
        let needed = lengths.sum::<Result<u64, Error>>()?.saturating_add(SPARE_BYTES);
        match self.disk.free_bytes() {
            Ok(free) if free < needed => Err(Error::no_space(format!(
                "{needed} bytes must be free to rewrite a segment, and {free} are; nothing was changed"
            ))),
            // What cannot be asked is met by writing.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// Removes a file that may be gone.
pub(crate) fn remove(disk: &dyn Disk, path: &str) -> Result<(), Error> {
    match disk.remove(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("cannot remove", path, error))
        }
        _ => Ok(()),
    }
}

/// Frames that go, one behind the other.
struct Removed {
    before: LogEnd,
    events: u32,
    chains: Hasher,
}

struct Output<'a> {
    file: Box<dyn DiskFile>,
    path: String,
    header: SegmentHeader,
    plan: &'a Plan<'a>,
    /// Behind what was added last; its offset behind what is in the buffer.
    tip: LogEnd,
    buffer: Vec<u8>,
    body: Vec<u8>,
    removed: Option<Removed>,
    /// Whether anything goes.
    is_changed: bool,
    survivors: Hasher,
}

impl<'a> Output<'a> {
    fn new(file: Box<dyn DiskFile>, path: String, header: SegmentHeader, plan: &'a Plan<'a>) -> Output<'a> {
        let (tip, buffer) = (LogEnd::before(&header), header.write().to_vec());
        let (body, survivors) = (Vec::new(), Hasher::new());
        Output { file, path, header, plan, tip, buffer, body, removed: None, is_changed: false, survivors }
    }

    fn add(&mut self, piece: &Piece<'_>) -> Result<(), Error> {
        match piece {
            Piece::Frame { frame, first, fates } if fates.iter().all(|fate| *fate == Fate::Remove) => {
                self.remove(frame, *first);
                Ok(())
            }
            Piece::Frame { frame, first, fates } => {
                self.attest()?;
                self.frame(frame, *first, fates)
            }
            Piece::Attestation(attestation) => {
                self.attest()?;
                self.attestation(attestation)
            }
        }
    }

    fn remove(&mut self, frame: &Frame<'_>, first: u64) {
        let before = self.tip;
        let removed =
            self.removed.get_or_insert_with(|| Removed { before, events: 0, chains: Hasher::new() });
        removed.events = removed.events.saturating_add(frame.header.events().into());
        removed.chains.update(&frame.header.chain());
        self.is_changed = true;
        self.pass(frame, first);
    }

    /// The log goes on behind a frame.
    fn pass(&mut self, frame: &Frame<'_>, first: u64) {
        self.tip.position = first.saturating_add(u64::from(frame.header.events()).saturating_sub(1));
        (self.tip.recorded_at, self.tip.chain) = (frame.header.recorded_at(), frame.header.chain());
    }

    /// Says what was removed, if something was.
    fn attest(&mut self) -> Result<(), Error> {
        let Some(Removed { before, events, chains }) = self.removed.take() else { return Ok(()) };
        let behind = self.tip;
        self.attestation(&Attestation {
            first_position: before.position.saturating_add(1),
            last_position: behind.position,
            events,
            made_at: self.plan.now,
            last_recorded_at: behind.recorded_at,
            chain_before: before.chain,
            chain_after: behind.chain,
            digest: *chains.finalize().as_bytes(),
            text: self.plan.why,
        })
    }

    fn attestation(&mut self, attestation: &Attestation<'_>) -> Result<(), Error> {
        let bytes = attestation.write(&self.header, self.tip.offset.into());
        (self.tip.position, self.tip.recorded_at) = (attestation.last_position, attestation.last_recorded_at);
        self.tip.chain = attestation.chain_after;
        self.buffer.extend_from_slice(&bytes);
        self.grow(bytes.len())
    }

    fn frame(&mut self, frame: &Frame<'_>, first: u64, fates: &[Fate]) -> Result<(), Error> {
        let is_whole = fates.iter().all(|fate| *fate == Fate::Keep);
        let mut erased = std::mem::take(&mut self.body);
        if !is_whole {
            erase(frame, fates, &mut erased);
        }
        let body = if is_whole { frame.body } else { erased.as_slice() };
        let fields = frame.header.fields();
        let checksum = if is_whole { fields.body_checksum } else { checksum(&[body]) };
        let position = u32::try_from(first.saturating_sub(self.header.id.first_position));
        let before = self.buffer.len();
        NewFrameHeader {
            body_bytes: u32::try_from(body.len()).map_err(|_| too_long())?,
            body_checksum: checksum,
            position_offset: position.map_err(|_| too_long())?,
            durable_end: self.tip.offset,
            ..fields
        }
        .write(&mut self.buffer, self.header.frame_mark(self.tip.offset.into()));
        self.buffer.extend_from_slice(body);
        let length = self.buffer.len().saturating_sub(before);
        self.pass(frame, first);
        self.tip.frames = self.tip.frames.saturating_add(1);
        self.tip.events = self.tip.events.saturating_add(frame.header.events().into());
        survives(&mut self.survivors, &self.tip, &Frame { header: frame.header, body });
        self.is_changed |= !is_whole;
        self.body = erased;
        self.grow(length)
    }

    /// So much was added to the buffer; what is enough is written.
    fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        let end = u32::try_from(bytes).ok().and_then(|bytes| self.tip.offset.checked_add(bytes));
        self.tip.offset = end.ok_or_else(too_long)?;
        if self.buffer.len() < PIECE { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> Result<(), Error> {
        let start = wide(self.tip.offset).saturating_sub(self.buffer.len());
        let start = u64::try_from(start).expect("an offset fits 64 bits");
        write_all(self.file.as_ref(), &self.buffer, start)
            .map_err(|error| Error::io("cannot write", &self.path, error))?;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self, draft: &mut Draft<'_>) -> Result<(), Error> {
        self.attest()?;
        draft.seal = seal(&self.tip)?;
        let bytes = draft.seal.write(&self.header, self.tip.offset.into());
        self.buffer.extend_from_slice(&bytes);
        self.tip.offset = draft.seal.length;
        self.write()?;
        self.file.sync().map_err(|error| Error::io("cannot sync", &self.path, error))?;
        draft.survivors = *self.survivors.finalize().as_bytes();
        draft.effect = if self.is_changed { Effect::History } else { Effect::None };
        Ok(())
    }
}

/// A frame's body without the private parts that go.
fn erase(frame: &Frame<'_>, fates: &[Fate], body: &mut Vec<u8>) {
    body.clear();
    for (record, fate) in records(frame.body, frame.header.events()).zip(fates) {
        let record = record.expect("the chain was recomputed");
        match fate {
            Fate::Keep => body.extend_from_slice(record.bytes()),
            Fate::Erase | Fate::Remove => record.write_erased(body),
        }
    }
    body.resize(aligned(body.len()), 0);
}

/// What of a frame must be read back as it was meant. The chain stands for what is in it.
fn survives(into: &mut Hasher, behind: &LogEnd, frame: &Frame<'_>) {
    into.update(&behind.position.to_le_bytes());
    into.update(&frame.header.events().to_le_bytes());
    into.update(&frame.header.chain());
    for record in records(frame.body, frame.header.events()) {
        into.update(&[u8::from(record.is_ok_and(|record| record.is_erased()))]);
    }
}

fn too_long() -> Error {
    Error::invalid("the segments are too long to be rewritten as one")
}

impl Draft<'_> {
    pub(crate) fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// What it does to history.
    pub(crate) fn effect(&self) -> Effect {
        self.effect
    }

    /// As MANIFEST will list it.
    pub(crate) fn listing(&self) -> SegmentEntry {
        let remarks = self.born.map_or(Annotations::NONE, |born| Annotations::NONE.with_born(born));
        SegmentEntry { remarks, ..listing(&self.header, &self.seal) }
    }

    /// Reads all of it again, from the device where that is possible: every checksum, the chain, and that what should have
    /// stayed has.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is not as it was meant; then it must not be used.
    #[expect(clippy::type_complexity, reason = "as in scan::Walk")]
    pub(crate) fn check(
        &self,
        visit: &mut dyn FnMut(&SegmentFile, u32, &Frame<'_>, &LogEnd) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let path = self.header.id.temporary();
        let failed = |error| Error::io("cannot read back", &path, error);
        let file = self.disk.open(&path, Access::Read).map_err(failed)?;
        file.drop_cache(0).map_err(failed)?;
        let file = SegmentFile::around(file, path.clone())?;
        let mut survivors = Hasher::new();
        let mut visit = |segment: &SegmentFile, offset, frame: &Frame<'_>, tip: &LogEnd| {
            survives(&mut survivors, tip, frame);
            visit(segment, offset, frame, tip)
        };
        let found = scan(&file, &mut Walk { limit: u32::MAX, verify_chain_from: 0, visit: &mut visit })?;
        let is_whole = matches!(&found.ending, Ending::Sealed(seal) if *seal == self.seal)
            && file.header == self.header
            && file.length()? == u64::from(self.seal.length)
            && *survivors.finalize().as_bytes() == self.survivors;
        if is_whole {
            return Ok(());
        }
        Err(Error::corrupt(&path, found.tip.offset.into(), "what is read back is not what was written"))
    }

    /// Gives it its name, durably. It must have been checked.
    ///
    /// # Errors
    ///
    /// `Poison` if it is not known which names are durable.
    pub(crate) fn name(mut self) -> Result<SegmentEntry, Failure> {
        let (from, to) = (self.header.id.temporary(), self.header.id.path());
        let renamed = self.disk.rename(&from, &to);
        renamed.map_err(|error| Failure::Refused(Error::io("cannot rename", &from, error)))?;
        self.is_named = true;
        let synced = self.disk.sync_directory(SEGMENTS_DIRECTORY);
        synced.map_err(|error| Failure::Poison(Error::io("cannot sync", SEGMENTS_DIRECTORY, error)))?;
        Ok(self.listing())
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if self.is_named {
            return;
        }
        // What stays is removed by the next writer.
        if let Err(error) = remove(self.disk, &self.header.id.temporary()) {
            tracing::warn!(%error, "what was left of a rewritten segment was not removed");
        }
    }
}
