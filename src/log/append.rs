//! The open log: appends groups of frames to the last segment, syncs them, and continues in the next segment.
//!
//! One thread owns it. Invariants:
//! - a staged group is written as a whole or not at all; after a failed write the file is truncated to its
//!   former end, or the log is poisoned;
//! - MARK is written only after a sync, so it never names data that is not durable;
//! - a segment is sealed and synced before the next one exists, so only the last segment can be torn;
//! - after a failed sync nothing is ever written or synced again.

use std::sync::Arc;

use crate::disk::{Access, Disk, write_all};
use crate::format::{
    Frame, FrameHeader, MARK_SLOT_BYTES, SEGMENT_HEADER_BYTES, SegmentEntry, SegmentHeader, manifest, mark,
};
use crate::types::{Error, ErrorKind, counted, to_u32, to_u64, to_usize};

use super::create::{LogOptions, next_header};
use super::cursor::LogEnd;
use super::frame_writer::NewFrame;
use super::manifest_file::{Exchange, ManifestFile};
use super::mark_file::MarkFile;
use super::preallocate::{MoreZeros, Zeros, new_segment_bytes};
use super::recovery::Recovered;
use super::segment::{Failure, SegmentFile};

pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    options: LogOptions,
    manifest: ManifestFile,
    mark: MarkFile,
    segment: Arc<SegmentFile>,
    /// The last segment is sealed, and the next one could not be created yet.
    is_sealed: bool,
    /// The places behind the last frame that is staged, written, durable.
    staged: LogEnd,
    written: LogEnd,
    durable: LogEnd,
    zeros: Zeros,
    /// The bytes of the staged frames; after a write, those of the frames written last.
    buffer: Vec<u8>,
    /// The bytes written to the disk since opening, without the zeros of this segment.
    bytes_written: u64,
}

impl Log {
    /// Continues where recovery ended: in the last segment if it was closed cleanly, else in a new one.
    pub(crate) fn resume(
        disk: Arc<dyn Disk>,
        options: LogOptions,
        recovered: &mut Recovered,
        now: u64,
    ) -> Result<Log, Error> {
        let store_id = recovered.manifest.store_id;
        let mut manifest = ManifestFile::new(recovered.manifest.clone(), recovered.manifest_digest);
        // The clean slot of a segment that recovery has left behind is not the newest word on the log.
        let is_clean = recovered.report.clean && recovered.mark.as_ref().is_some_and(|mark| mark.clean);
        let mark = MarkFile::open(disk.as_ref(), store_id, recovered.mark.as_ref(), is_clean)?;
        if !recovered.newly_sealed.is_empty() {
            manifest.add(disk.as_ref(), recovered.newly_sealed.drain(..)).map_err(Failure::into_error)?;
        }
        let is_appendable = recovered.is_appendable;
        let (segment, end) = match (recovered.segments.last(), recovered.end) {
            (Some(segment), Some(end)) if is_appendable => (segment.clone(), end),
            (_, end) => {
                let header = next_header(disk.as_ref(), &options, store_id, end, now)?;
                let file_bytes = new_segment_bytes(disk.as_ref(), options.segment_bytes_max);
                let created =
                    SegmentFile::create(disk.as_ref(), header, file_bytes).map_err(Failure::into_error)?;
                let segment = Arc::new(created);
                recovered.segments.push(segment.clone());
                let start = LogEnd::start(&segment);
                (segment, start)
            }
        };
        let zeros = Zeros::new(disk.as_ref(), options.segment_bytes_max, &segment, segment.length()?);
        let mut log = Log {
            disk,
            options,
            manifest,
            mark,
            segment,
            is_sealed: false,
            staged: end,
            written: end,
            durable: end,
            zeros,
            buffer: Vec::new(),
            bytes_written: 0,
        };
        if !is_appendable {
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

    /// The bytes written to the disk since opening, zeros ahead included.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.bytes_written + self.zeros.bytes()
    }

    pub(crate) fn has_unsynced(&self) -> bool {
        self.written.offset > self.durable.offset
    }

    /// Whether the last segment has frames and no seal, so that [`Log::roll`] would end it.
    pub(crate) fn has_frames(&self) -> bool {
        to_usize(self.staged.offset) > SEGMENT_HEADER_BYTES
    }

    /// Whether the last segment is sealed and the next one could not be created; [`Log::roll`] tries it again.
    pub(crate) fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// The largest frame, in bytes, that fits where a frame of `frame_bytes` goes: into this segment, or into
    /// the next one.
    pub(crate) fn frame_bytes_max(&self, frame_bytes: usize) -> u64 {
        if self.must_roll(frame_bytes) {
            self.options.unsynced_bytes_max
        } else {
            self.segment.header.unsynced_bytes_max
        }
    }

    /// Whether a frame must go into the next segment: it would make this one too long, or it is larger than
    /// this header allows. An empty segment takes its first frame at any length.
    pub(crate) fn must_roll(&self, frame_bytes: usize) -> bool {
        let is_empty = to_usize(self.staged.offset) == SEGMENT_HEADER_BYTES;
        let end = to_usize(self.staged.offset).saturating_add(frame_bytes);
        let is_short_enough = end <= to_usize(self.options.segment_bytes_max);
        let fits = is_short_enough && !exceeds_unsynced_max(frame_bytes, &self.segment.header);
        self.is_sealed || (!is_empty && !fits)
    }

    /// Whether a frame would leave more bytes unsynced than the segment's header promises.
    pub(crate) fn must_sync(&self, frame_bytes: usize) -> bool {
        let unsynced = to_usize(self.staged.offset - self.durable.offset).saturating_add(frame_bytes);
        exceeds_unsynced_max(unsynced, &self.segment.header)
    }

    /// Adds a frame to the group that the next [`Log::write`] writes. Returns the header of the frame; its first
    /// position follows that of [`Log::staged`] before the call.
    pub(crate) fn stage(&mut self, new: &NewFrame<'_>) -> FrameHeader<'_> {
        let start = self.buffer.len();
        let durable_end = self.durable.offset;
        self.staged = new.write(&self.segment.header, &self.staged, durable_end, &mut self.buffer);
        FrameHeader::known(&self.buffer[start..])
    }

    /// The frame at an offset, from memory. The frame must be staged, or of the last write.
    pub(crate) fn frame_in_memory(&self, offset: u32) -> Frame<'_> {
        let start = self.staged.offset - to_u32(self.buffer.len());
        Frame::known(&self.buffer[to_usize(offset - start)..])
    }

    /// The frames of the last write, and the offset of the first one.
    pub(crate) fn last_write(&self) -> (u32, &[u8]) {
        (self.written.offset - to_u32(self.buffer.len()), &self.buffer)
    }

    /// Forgets the frames of the last write.
    pub(crate) fn clear(&mut self) {
        self.buffer.clear();
    }

    /// Forgets the staged frames.
    pub(crate) fn unstage(&mut self) {
        self.staged = self.written;
        self.buffer.clear();
    }

    /// Writes the staged group with one call. If a sync follows, it may return zeros that a background thread
    /// should write during the sync.
    pub(crate) fn write(&mut self, sync_follows: bool) -> Result<Option<MoreZeros>, Failure> {
        let offset = u64::from(self.written.offset);
        let end = u64::from(self.staged.offset);
        // Before the write: the background thread must not write zeros where these frames go.
        let passing = self.zeros.lock_to_pass(end);
        if let Err(error) = write_all(self.segment.file.as_ref(), &self.buffer, offset) {
            // `undo_write` takes the same lock.
            drop(passing);
            return Err(self.undo_write(Error::io("cannot write", &self.segment.path, error)));
        }
        self.written = self.staged;
        self.bytes_written += end - offset;
        passing.map(|passing| passing.written(end - offset, sync_follows)).transpose()?;
        Ok(if sync_follows { self.zeros.request(end) } else { None })
    }

    /// Keeps the background thread that writes zeros out of the file.
    pub(crate) fn leave(&self) {
        self.zeros.finish();
    }

    /// Truncates the file to its end before a failed write. Only then is it certain that recovery finds nothing
    /// of the group. A full disk refuses the group; any other error poisons.
    fn undo_write(&mut self, error: Error) -> Failure {
        if error.kind() != ErrorKind::NoSpace {
            return Failure::Poison(error);
        }
        self.unstage();
        let end = u64::from(self.written.offset);
        let file = &self.segment.file;
        match self.zeros.truncate(end, || file.set_length(end).and_then(|()| file.sync())) {
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

    /// Makes all written frames durable, and writes that to MARK.
    pub(crate) fn sync(&mut self) -> Result<(), Failure> {
        let synced = self.segment.file.sync();
        synced.map_err(|error| Failure::Poison(Error::io("cannot sync", &self.segment.path, error)))?;
        self.durable = self.written;
        // After the sync: MARK must not name data that a power cut can take.
        self.write_mark(false)
    }

    /// Checks that the names of the lock and of the log's files still mean the files that this log opened. Data
    /// in a file without a name is lost when the process ends. Without `all`, it checks the segment only.
    pub(crate) fn check_names(&self, all: bool) -> Result<(), Failure> {
        let names = [
            (self.segment.path.as_str(), self.segment.file.identity()),
            (mark::NAME, self.mark.identity()),
            // The log replaces MANIFEST itself and does not keep it open, so only the name is checked.
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
        self.bytes_written += to_u64(MARK_SLOT_BYTES);
        self.mark.write(self.segment.header.id, &self.durable, clean).map_err(Failure::Poison)
    }

    /// Makes MARK itself durable. Safety does not need it, so the writer does it when it is idle.
    pub(crate) fn sync_mark(&mut self) -> Result<(), Failure> {
        self.mark.sync().map_err(Failure::Poison)
    }

    pub(crate) fn mark_is_synced(&self) -> bool {
        self.mark.is_synced()
    }

    /// Ends this segment and creates the next one. Staged frames must have been written.
    ///
    /// `streams_created` is how many streams begin in the segment that ends, for MANIFEST; `None` if unknown.
    pub(crate) fn roll(&mut self, now: u64, streams_created: Option<u32>) -> Result<(), Failure> {
        if !self.is_sealed {
            self.seal(streams_created)?;
        }
        self.create_next(now)
    }

    fn seal(&mut self, streams_created: Option<u32>) -> Result<(), Failure> {
        // First: zeros behind the seal would make the file longer than the seal says.
        self.zeros.finish();
        let end = u64::from(self.written.offset);
        let seal = self.written.seal().map_err(Failure::Refused)?;
        let file = self.segment.file.as_ref();
        if let Err(error) = write_all(file, &seal.write(&self.segment.header, end), end) {
            return Err(self.undo_write(Error::io("cannot seal", &self.segment.path, error)));
        }
        let poison = |error| Failure::Poison(Error::io("cannot seal", &self.segment.path, error));
        file.set_length(seal.length.into()).map_err(poison)?;
        file.sync().map_err(poison)?;
        self.is_sealed = true;
        self.durable = self.written;
        self.write_mark(false)?;
        self.sync_mark()?;
        let mut entry = SegmentEntry::new(&self.segment.header, &seal);
        if let Some(streams) = streams_created {
            entry.annotations = entry.annotations.with_streams_created(streams);
        }
        match self.manifest.add(self.disk.as_ref(), std::iter::once(entry)) {
            // MANIFEST may lag behind: opening finds the segments behind its last one.
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
        let file_bytes = new_segment_bytes(self.disk.as_ref(), self.options.segment_bytes_max);
        let segment = Arc::new(SegmentFile::create(self.disk.as_ref(), header, file_bytes)?);
        let length = to_u64(file_bytes.max(SEGMENT_HEADER_BYTES));
        self.bytes_written += self.zeros.bytes() + length;
        self.zeros = Zeros::new(self.disk.as_ref(), self.options.segment_bytes_max, &segment, length);
        self.segment = segment;
        self.is_sealed = false;
        let start = LogEnd::start(&self.segment);
        self.staged = start;
        self.written = start;
        self.durable = start;
        Ok(())
    }

    /// Has MANIFEST list a rewritten segment in place of the old ones. MARK is written as well, so that readers
    /// in other processes look at MANIFEST.
    pub(crate) fn exchange(&mut self, exchange: &Exchange) -> Result<(), Failure> {
        let path = exchange.with.id.path();
        // The file may be gone: after a panic the store is opened anew, and opening removes a segment that
        // MANIFEST does not list.
        let length = self.disk.open(&path, Access::Read).and_then(|file| file.length());
        let length = length.map_err(|error| Failure::Refused(Error::io("cannot open", &path, error)))?;
        if length != u64::from(exchange.with.length) {
            let error = Error::corrupt(&path, length, "the rewritten segment is not whole");
            return Err(Failure::Refused(error));
        }
        // Before MANIFEST: neither slot of MARK, as a power cut may leave it, may name a segment that is gone.
        while !self.mark.is_behind(exchange.with.last_position) {
            self.write_mark(false)?;
            self.sync_mark()?;
        }
        self.bytes_written += self.manifest.exchange(self.disk.as_ref(), exchange)?;
        self.write_mark(false)
    }

    /// Raises the history revision if history was changed since the last time. MARK is written as well, so that
    /// readers in other processes look at MANIFEST.
    pub(crate) fn raise_history(&mut self) -> Result<(), Failure> {
        if !self.manifest.is_changing() {
            return Ok(());
        }
        match self.manifest.raise_history(self.disk.as_ref()) {
            // MANIFEST on the disk still says that history is changing, so the next replacement or the next
            // opening raises the revision.
            Err(Failure::Refused(error)) => {
                tracing::warn!(%error, "the manifest was not replaced; it will be with the next segment");
                Ok(())
            }
            raised => {
                self.bytes_written += raised?;
                self.write_mark(self.mark.is_clean())
            }
        }
    }

    pub(crate) fn history_revision(&self) -> u64 {
        self.manifest.history_revision()
    }

    /// Syncs the log and marks it cleanly closed.
    pub(crate) fn close(&mut self) -> Result<(), Error> {
        self.sync_and_mark_clean().map_err(Failure::into_error)
    }

    fn sync_and_mark_clean(&mut self) -> Result<(), Failure> {
        if self.has_unsynced() {
            self.sync()?;
        }
        // A sealed segment is no place to continue, so opening recovers and creates the next segment.
        if !self.mark.is_clean() && !self.is_sealed {
            self.write_mark(true)?;
        }
        if self.mark.is_synced() { Ok(()) } else { self.sync_mark() }
    }
}

/// Whether this many unsynced bytes are more than the segment promises.
fn exceeds_unsynced_max(bytes: usize, header: &SegmentHeader) -> bool {
    u64::try_from(bytes).unwrap_or(u64::MAX) > header.unsynced_bytes_max
}
