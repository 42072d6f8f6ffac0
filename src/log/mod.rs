//! The log: appends groups of frames to the last segment, makes them durable, rolls to the next.
//!
//! Owned by one thread. Invariants:
//! - what is staged becomes written as a whole or not at all; after a failed write the file is cut
//!   back to what was written before, or the log is poisoned;
//! - MARK is written after a sync and never before one, so it never runs ahead of durable data;
//! - a segment is sealed and synced before the next one exists, so only the last can be torn;
//! - after a failed sync nothing is ever synced or written again.
//!
//! Row: log.

mod exchange;
mod files;
mod frames;
mod judge;
mod listed;
mod recover;
mod repair;
mod rewrite;
mod scan;
mod segment;
mod survey;
#[cfg(test)]
mod tests;
mod zeros;

use std::sync::Arc;

use crate::disk::{Disk, write_all};
use crate::event::Appended;
use crate::format::{
    Frame, FrameHeader, MARK_SLOT_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentId, manifest, mark,
};
use crate::types::{Error, ErrorKind, counted};

use files::{ManifestFile, MarkFile};
use frames::narrow;
use zeros::{Zeros, first_zeros};

pub(crate) use files::{Effect, Exchange, create_mark_file, create_store, new_store_id, replace};
pub(crate) use frames::NewFrame;
pub(crate) use judge::{Evidence, Verdict, judge};
pub(crate) use listed::{NEWEST, Outline, unlisted_text};
pub(crate) use recover::{Purpose, Recovered, recover};
pub(crate) use repair::{evidence, finish_cut, listing, remove_mark, seal};
pub(crate) use rewrite::{Candidate, Draft, Fate, Judge, Plan, judge_all, remove};
#[cfg(test)]
pub(crate) use scan::chain_after;
pub(crate) use scan::{
    CHAIN_BROKEN, Ending, Found, LogEnd, POSITION_MAX, SEAL_MISFITS, Walk, Window, attested, chain_seeing,
    follow, found_at, scan, scan_from,
};
pub(crate) use segment::{Block, SegmentFile, damaged, missing, missing_text, wide};
pub(crate) use survey::{
    Stamp, behind, could_be_new, is_leftover, list, manifest_stamp, read_manifest, read_mark, read_slots,
};
pub(crate) use zeros::MoreZeros;

/// Why a step of the log failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing of it was written, and it may be tried again.
    Refused(Error),
    /// What is on the disk is not known any more; the log must not be touched again.
    Poison(Error),
}

/// The numbers the log works with.
#[derive(Clone, Copy)]
pub(crate) struct LogOptions {
    pub(crate) segment_bytes_max: u32,
    pub(crate) unsynced_bytes_max: u64,
}

pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    options: LogOptions,
    manifest: ManifestFile,
    mark: MarkFile,
    segment: Arc<SegmentFile>,
    /// The last segment was sealed, and the next could not be created yet.
    is_sealed: bool,
    /// Behind the last frame that is staged, written, durable.
    staged: LogEnd,
    written: LogEnd,
    durable: LogEnd,
    zeros: Zeros,
    /// The staged frames' bytes, and behind a write those written last.
    buffer: Vec<u8>,
    /// Everything handed to the disk since opening.
    bytes_written: u64,
}

impl Log {
    /// Goes on where recovery ended; in a new segment unless the last was closed cleanly.
    pub(crate) fn resume(
        disk: Arc<dyn Disk>,
        options: LogOptions,
        recovered: &mut Recovered,
        now: u64,
    ) -> Result<Log, Error> {
        let mut manifest = ManifestFile::new(recovered.manifest.clone(), recovered.manifest_digest);
        let mark = MarkFile::open(disk.as_ref(), recovered)?;
        if !recovered.newly_sealed.is_empty() {
            manifest.add(disk.as_ref(), recovered.newly_sealed.drain(..)).map_err(Failure::into_error)?;
        }
        let last = recovered.segments.last().cloned();
        let appendable = recovered.appendable;
        let (segment, tip) = match (last, recovered.tip) {
            (Some(segment), Some(tip)) if appendable => (segment, tip),
            (_, tip) => {
                let header = next_header(disk.as_ref(), &options, recovered.manifest.store_id, tip, now)?;
                let zeros = first_zeros(disk.as_ref(), &options);
                let created =
                    SegmentFile::create(disk.as_ref(), header, zeros).map_err(Failure::into_error)?;
                let segment = Arc::new(created);
                recovered.segments.push(segment.clone());
                let tip = LogEnd::start(&segment);
                (segment, tip)
            }
        };
        let zeros = Zeros::new(disk.as_ref(), &options, &segment, segment.length()?);
        let mut log = Log {
            disk,
            options,
            manifest,
            mark,
            segment,
            is_sealed: false,
            staged: tip,
            written: tip,
            durable: tip,
            zeros,
            buffer: Vec::new(),
            bytes_written: 0,
        };
        if !appendable {
            log.write_mark(false).map_err(Failure::into_error)?;
        }
        log.raise_history().map_err(Failure::into_error)?;
        Ok(log)
    }

    pub(crate) fn segment(&self) -> &Arc<SegmentFile> {
        &self.segment
    }

    pub(crate) fn staged(&self) -> &LogEnd {
        &self.staged
    }

    pub(crate) fn written(&self) -> &LogEnd {
        &self.written
    }

    pub(crate) fn durable(&self) -> &LogEnd {
        &self.durable
    }

    /// Everything handed to the disk since opening, zeros ahead included.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.bytes_written + self.zeros.bytes()
    }

    pub(crate) fn has_unsynced(&self) -> bool {
        self.written.offset > self.durable.offset
    }

    /// The largest frame that fits where one of `frame_bytes` would go: here, or in the next segment.
    pub(crate) fn frame_bytes_max(&self, frame_bytes: usize) -> u64 {
        if self.must_roll(frame_bytes) {
            self.options.unsynced_bytes_max
        } else {
            self.segment.header.unsynced_bytes_max
        }
    }

    /// Whether a frame would make the segment longer than planned, or is larger than its header
    /// promises; the first one stays.
    pub(crate) fn must_roll(&self, frame_bytes: usize) -> bool {
        let is_empty = wide(self.staged.offset) == SEGMENT_HEADER_BYTES;
        let end = wide(self.staged.offset).saturating_add(frame_bytes);
        let fits = end <= wide(self.options.segment_bytes_max) && !exceeds(frame_bytes, &self.segment.header);
        self.is_sealed || (!is_empty && !fits)
    }

    /// Whether a frame would leave more unsynced than the segment's header promises.
    pub(crate) fn must_sync(&self, frame_bytes: usize) -> bool {
        let unsynced = wide(self.staged.offset - self.durable.offset).saturating_add(frame_bytes);
        exceeds(unsynced, &self.segment.header)
    }

    /// Adds a frame to what the next [`Log::write`] writes, and gives the receipt for it.
    pub(crate) fn stage(&mut self, new: &NewFrame<'_>) -> Appended {
        let (start, position) = (self.buffer.len(), self.staged.position + 1);
        let durable_end = self.durable.offset;
        self.staged = new.write(&self.segment.header, &self.staged, durable_end, &mut self.buffer);
        Appended::new(&FrameHeader::known(&self.buffer[start..]), position.into())
    }

    /// A frame that is staged, or of the last write: from the bytes it was or will be written from.
    pub(crate) fn frame_in_memory(&self, offset: u32) -> Frame<'_> {
        let start = self.staged.offset - narrow(self.buffer.len());
        Frame::known(&self.buffer[wide(offset - start)..])
    }

    /// The frames of the last write, and where they lie in the segment.
    pub(crate) fn last_write(&self) -> (u32, &[u8]) {
        (self.written.offset - narrow(self.buffer.len()), &self.buffer)
    }

    /// Forgets the bytes of the last write.
    pub(crate) fn clear(&mut self) {
        self.buffer.clear();
    }

    /// Writes what is staged, at once. Gives what a helper is to write while that is synced.
    pub(crate) fn write(&mut self, sync_follows: bool) -> Result<Option<MoreZeros>, Failure> {
        let (offset, end) = (u64::from(self.written.offset), u64::from(self.staged.offset));
        let passing = self.zeros.pass(end);
        if let Err(error) = write_all(self.segment.file.as_ref(), &self.buffer, offset) {
            drop(passing);
            return Err(self.cut_back(Error::io("cannot write", &self.segment.path, error)));
        }
        self.written = self.staged;
        self.bytes_written += end - offset;
        passing.map(|passing| passing.passed(end - offset, sync_follows)).transpose()?;
        Ok(if sync_follows { self.zeros.more(end) } else { None })
    }

    /// Has helpers leave the file alone.
    pub(crate) fn leave(&self) {
        self.zeros.end();
    }

    /// Makes a failed write not to have happened: cuts the file to what was written before. Only
    /// then is it certain that nothing of the group will be found later.
    fn cut_back(&mut self, error: Error) -> Failure {
        if error.kind() != ErrorKind::NoSpace {
            return Failure::Poison(error);
        }
        self.unstage();
        let end = u64::from(self.written.offset);
        let file = &self.segment.file;
        match self.zeros.cut(end, || file.set_length(end).and_then(|()| file.sync())) {
            Ok(()) => {
                self.durable = self.written;
                let free = self.disk.free_bytes();
                let free = free.map_or_else(|_| "? bytes".to_owned(), |free| counted(free, "byte", "bytes"));
                let text =
                    format!("{error} ({free} free); nothing was written, appends resume when there is space");
                Failure::Refused(Error::with_source(ErrorKind::NoSpace, text, error))
            }
            Err(error) => Failure::Poison(Error::io("cannot cut back", &self.segment.path, error)),
        }
    }

    /// Forgets what is staged.
    pub(crate) fn unstage(&mut self) {
        self.staged = self.written;
        self.buffer.clear();
    }

    /// Makes everything written durable, and then says so in MARK.
    pub(crate) fn sync(&mut self) -> Result<(), Failure> {
        let synced = self.segment.file.sync();
        synced.map_err(|error| Failure::Poison(Error::io("cannot sync", &self.segment.path, error)))?;
        self.durable = self.written;
        self.write_mark(false)
    }

    /// That the lock's name, and the names of what this log writes to, mean what they meant when it was opened: what is
    /// acknowledged to files without a name is gone. Without the small files, if `all` is not asked for.
    pub(crate) fn check_names(&self, all: bool) -> Result<(), Failure> {
        let names = [
            (self.segment.path.as_str(), self.segment.file.identity()),
            (mark::NAME, self.mark.identity()),
            // It is replaced by the log itself, and not kept open.
            (manifest::NAME, None),
        ];
        let checked = self.disk.check_names(if all { &names } else { &names[..1] });
        checked.map_err(|error| {
            let text = format!(
                "the store was changed under its writer ({error}); find out by whom, put it right, and open it again"
            );
            Failure::Poison(Error::with_source(ErrorKind::Io, text, error))
        })
    }

    fn write_mark(&mut self, clean: bool) -> Result<(), Failure> {
        self.bytes_written += u64::try_from(MARK_SLOT_BYTES).expect("128");
        self.mark.write(self.segment.header.id, &self.durable, clean).map_err(Failure::Poison)
    }

    /// Makes MARK itself durable; not needed for safety, so it is done when there is time.
    pub(crate) fn sync_mark(&mut self) -> Result<(), Failure> {
        self.mark.sync().map_err(Failure::Poison)
    }

    pub(crate) fn mark_is_synced(&self) -> bool {
        self.mark.is_synced()
    }

    /// Ends this segment and begins the next. What is staged must have been written.
    /// MANIFEST will say how many streams begin in the one that ends, if that is known.
    pub(crate) fn roll(&mut self, now: u64, born: Option<u32>) -> Result<(), Failure> {
        if !self.is_sealed {
            self.seal(born)?;
        }
        self.create_next(now)
    }

    fn seal(&mut self, born: Option<u32>) -> Result<(), Failure> {
        self.zeros.end();
        let end = u64::from(self.written.offset);
        let seal = seal(&self.written).map_err(Failure::Refused)?;
        let file = self.segment.file.as_ref();
        if let Err(error) = write_all(file, &seal.write(&self.segment.header, end), end) {
            return Err(self.cut_back(Error::io("cannot seal", &self.segment.path, error)));
        }
        let poison = |error| Failure::Poison(Error::io("cannot seal", &self.segment.path, error));
        file.set_length(seal.length.into()).map_err(poison)?;
        file.sync().map_err(poison)?;
        self.is_sealed = true;
        self.durable = self.written;
        self.write_mark(false)?;
        self.sync_mark()?;
        let mut listing = listing(&self.segment.header, &seal);
        if let Some(born) = born {
            listing.remarks = listing.remarks.with_born(born);
        }
        match self.manifest.add(self.disk.as_ref(), std::iter::once(listing)) {
            // The manifest may lag behind; opening walks on from where it ends.
            Err(Failure::Refused(error)) => tracing::warn!(%error, "the manifest was not replaced"),
            replaced => self.bytes_written += replaced?,
        }
        tracing::info!(segment = self.segment.path, events = seal.events, "sealed");
        Ok(())
    }

    fn create_next(&mut self, now: u64) -> Result<(), Failure> {
        let store_id = self.segment.header.store_id;
        let header = next_header(self.disk.as_ref(), &self.options, store_id, Some(self.written), now)
            .map_err(Failure::Refused)?;
        let zeros = first_zeros(self.disk.as_ref(), &self.options);
        let segment = Arc::new(SegmentFile::create(self.disk.as_ref(), header, zeros)?);
        let length = u64::try_from(zeros.max(SEGMENT_HEADER_BYTES)).expect("at most 64 KiB");
        self.bytes_written += self.zeros.bytes() + length;
        self.zeros = Zeros::new(self.disk.as_ref(), &self.options, &segment, length);
        self.segment = segment;
        self.is_sealed = false;
        let tip = LogEnd::start(&self.segment);
        (self.staged, self.written, self.durable) = (tip, tip, tip);
        Ok(())
    }

    /// The last words: everything durable, MARK clean and durable.
    pub(crate) fn close(&mut self) -> Result<(), Error> {
        let closing = |log: &mut Log| {
            if log.has_unsynced() {
                log.sync()?;
            }
            if !log.mark.is_clean() && !log.is_sealed {
                log.write_mark(true)?;
            }
            if log.mark.is_synced() { Ok(()) } else { log.sync_mark() }
        };
        closing(self).map_err(Failure::into_error)
    }
}

impl Failure {
    /// A full disk can be waited out; any other failed write leaves it open what was written.
    pub(crate) fn of_write(error: Error) -> Failure {
        if error.kind() == ErrorKind::NoSpace { Failure::Refused(error) } else { Failure::Poison(error) }
    }

    pub(crate) fn into_error(self) -> Error {
        match self {
            Failure::Refused(error) | Failure::Poison(error) => error,
        }
    }
}

/// The header of the segment that continues the log at `tip`; of the first one without a tip.
pub(crate) fn next_header(
    disk: &dyn Disk,
    options: &LogOptions,
    store_id: [u8; 16],
    tip: Option<LogEnd>,
    now: u64,
) -> Result<SegmentHeader, Error> {
    let random =
        disk.random().map_err(|error| Error::io("cannot get random bytes for", "a segment", error))?;
    let (position, recorded_before, chain_before) = match tip {
        Some(tip) => (tip.position, tip.recorded_at, tip.chain),
        None => (0, 0, crate::format::genesis(&store_id)),
    };
    Ok(SegmentHeader {
        store_id,
        id: SegmentId { first_position: position + 1, generation: 0 },
        salt: SegmentHeader::salt(crate::format::u64_at(&random, 0)),
        created_at: now,
        unsynced_bytes_max: options.unsynced_bytes_max,
        chain_before,
        recorded_before,
    })
}

/// Whether so much unsynced would be more than the segment promises.
fn exceeds(bytes: usize, header: &SegmentHeader) -> bool {
    u64::try_from(bytes).unwrap_or(u64::MAX) > header.unsynced_bytes_max
}
