//! Fills a directory with a store's history: the common part of backup, restore, fork and rollback.
//!
//! - A new directory becomes a store when MANIFEST is written, which happens last.
//! - An older copy stays a store throughout. It ends where it ended before, or later.
//! - Each segment is durable under its name before the next one gets its own.
//! - After any stop the same copy can be made again, and goes on.
//!
//! Tested by tests/it/archive.rs and tests/it/archive_crash.rs.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use crate::disk::{Access, Disk, DiskFile, create_anew, read_full, write_all};
use crate::format::{Manifest, Mark, SEGMENTS_DIRECTORY, SegmentEntry, SegmentId};
use crate::log::{Failure, LogEnd, SegmentFile, create_mark_file, list, remove_mark, replace_manifest};
use crate::types::{CopyProgress, Error, ErrorKind};

use super::directory::{CACHE, CopyTarget, remove};
use super::extent::{Extent, WholeSegment, check_listing, read_listing};
use super::throttle::{OnProgress, Throttle};

/// Bytes that are copied at once.
const PIECE: usize = 1 << 20;

/// The progress callback of a copy. `Send`, because the caller may make the copy on another thread.
type OnCopyProgress = Box<dyn FnMut(&CopyProgress) -> ControlFlow<()> + Send>;

/// How a copy is to be made, as the caller asks for it.
#[derive(Default)]
pub(crate) struct CopyOptions {
    pub(crate) on_progress: Option<OnCopyProgress>,
    /// Whether sealed segments are copied even where both directories could share them.
    pub(crate) copies_all: bool,
    /// The reason, for the ledger.
    pub(crate) reason: Option<String>,
}

/// A copy that is being made: what the caller asked for, and the progress.
pub(crate) struct CopyWork {
    pub(crate) reason: Option<String>,
    copies_all: bool,
    throttle: Throttle<'static, CopyProgress>,
}

impl CopyWork {
    pub(crate) fn new(options: CopyOptions) -> CopyWork {
        const CANCELLED: &str =
            "copying was broken off, as asked; what is in place stays, and doing it again goes on";
        let on_progress =
            options.on_progress.map(|on_progress| on_progress as OnProgress<'static, CopyProgress>);
        CopyWork {
            reason: options.reason,
            copies_all: options.copies_all,
            throttle: Throttle::new(on_progress, None, CANCELLED),
        }
    }

    /// Adds to the bytes that are to be put in place.
    pub(crate) fn expect(&mut self, bytes: u64) {
        self.throttle.expect(bytes);
    }

    /// Counts bytes that are in place, and reports.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Cancelled`] if the caller breaks the copy off.
    pub(crate) fn advance(&mut self, bytes: u64) -> Result<(), Error> {
        self.throttle.add(bytes);
        self.throttle.report()
    }
}

/// What was done with the segments, and how many bytes that were.
#[derive(Clone, Copy, Default)]
pub(crate) struct CopyCounts {
    pub(crate) kept: usize,
    pub(crate) linked: usize,
    pub(crate) copied: usize,
    pub(crate) bytes_copied: u64,
    pub(crate) bytes: u64,
    pub(crate) elapsed: Duration,
}

/// Fills one directory.
pub(crate) struct Copier<'a> {
    source: &'a dyn Disk,
    pub(crate) disk: &'a dyn Disk,
    target: CopyTarget,
    work: &'a mut CopyWork,
    counts: CopyCounts,
    buffer: Vec<u8>,
}

impl<'a> Copier<'a> {
    /// Prepares a directory for a history. The directory may hold an earlier or an interrupted copy.
    pub(crate) fn new(
        source: &'a dyn Disk,
        disk: &'a dyn Disk,
        target: CopyTarget,
        work: &'a mut CopyWork,
        history: &Extent,
    ) -> Result<Copier<'a>, Error> {
        let failed = |error| Error::io("cannot create", SEGMENTS_DIRECTORY, error);
        disk.create_directory(SEGMENTS_DIRECTORY).map_err(failed)?;
        // An interrupted copy may have renamed files without a sync. Without this sync they could vanish
        // again.
        disk.sync_directory(SEGMENTS_DIRECTORY).and_then(|()| disk.sync_directory("")).map_err(failed)?;
        let whole: u64 = history.whole.iter().map(|whole| u64::from(whole.listing.length)).sum();
        let beginning = history.beginning.as_ref().map_or(0, |beginning| beginning.tip.offset.into());
        work.expect(whole.saturating_add(beginning));
        Ok(Copier { source, disk, target, work, counts: CopyCounts::default(), buffer: vec![0; PIECE] })
    }

    /// Puts the whole segments in place.
    pub(crate) fn place_whole(&mut self, history: &Extent, base: &Manifest) -> Result<(), Error> {
        if self.target.manifest.is_none() {
            self.remove_others(history)?;
        }
        for (index, whole) in history.whole.iter().enumerate() {
            let listing = &whole.listing;
            if self.has(listing)? {
                self.counts.kept += 1;
                self.work.advance(listing.length.into())?;
                continue;
            }
            self.place(whole)?;
            // A reader finds a rewritten segment only through MANIFEST, so MANIFEST lists it at once.
            if listing.id.generation > 0 && self.target.manifest.is_some() {
                let placed = history.whole.iter().take(index + 1).map(|whole| whole.listing.clone());
                self.publish(Manifest { sealed: placed.collect(), ..base.clone() })?;
            }
        }
        Ok(())
    }

    /// Copies the durable beginning of the live segment as it is, so that a later copy can go on in it.
    pub(crate) fn place_open(&mut self, file: &SegmentFile, tip: &LogEnd) -> Result<(), Error> {
        let id = file.header.id;
        self.copy(file, tip.offset, id)?;
        self.name(id)?;
        self.counts.copied += 1;
        Ok(())
    }

    /// Puts a new segment in place; `make` writes its file.
    pub(crate) fn place_made(
        &mut self,
        id: SegmentId,
        make: impl FnOnce(&dyn DiskFile, &mut CopyWork) -> Result<SegmentEntry, Error>,
    ) -> Result<SegmentEntry, Error> {
        let work = &mut *self.work;
        let listing = place_file(self.disk, id, |file| make(file, work))?;
        self.target.segments.insert(id);
        self.counts.copied += 1;
        Ok(listing)
    }

    /// Makes the directory a store: MANIFEST lists the segments, and MARK says how far the log is durable.
    pub(crate) fn finish(mut self, manifest: Manifest, mark: Mark) -> Result<CopyCounts, Error> {
        let sequence = self.target.mark.as_ref().map_or(0, |mark| mark.sequence);
        let mark = Mark { sequence: sequence.saturating_add(1), ..mark };
        let listed = manifest.sealed.clone();
        self.publish(manifest)?;
        let failed = |error| Error::io("cannot write", crate::format::NAME, error);
        let file = create_mark_file(self.disk).map_err(failed)?;
        write_all(file.as_ref(), &mark.write(), mark.offset()).and_then(|()| file.sync()).map_err(failed)?;
        let stays = |id: &SegmentId| *id == mark.segment || listed.iter().any(|listed| listed.id == *id);
        for id in self.target.segments.iter().filter(|id| !stays(id)) {
            remove(self.disk, &id.path())?;
        }
        // After an erasure the old segments must be gone for good, so their removal is synced.
        self.sync_names(SEGMENTS_DIRECTORY)?;
        self.forget_states()?;
        let throttle = &self.work.throttle;
        Ok(CopyCounts { bytes: throttle.bytes(), elapsed: throttle.elapsed(), ..self.counts })
    }

    /// Removes saved states of an earlier copy that was opened for writing: they may hold values erased
    /// since.
    fn forget_states(&self) -> Result<(), Error> {
        let names = list(self.disk, CACHE)?;
        if names.is_empty() {
            return Ok(());
        }
        names.iter().try_for_each(|name| remove(self.disk, &format!("{CACHE}/{name}")))?;
        self.sync_names(CACHE)
    }

    fn sync_names(&self, directory: &str) -> Result<(), Error> {
        self.disk.sync_directory(directory).map_err(|error| Error::io("cannot sync", directory, error))
    }

    /// Replaces MANIFEST. MARK is removed first: it may name a segment that the new MANIFEST does not list.
    fn publish(&mut self, manifest: Manifest) -> Result<(), Error> {
        remove_mark(self.disk)?;
        let (sequence, previous) =
            self.target.manifest.as_ref().map_or((0, [0; 32]), |(old, digest)| (old.sequence, *digest));
        let next = Manifest { sequence: sequence.saturating_add(1), previous, ..manifest };
        let (bytes, digest) = next.write();
        replace_manifest(self.disk, &bytes).map_err(Failure::into_error)?;
        self.target.manifest = Some((next, digest));
        Ok(())
    }

    /// Removes segments of an earlier try for another history: they would be taken for the end of this one.
    fn remove_others(&mut self, history: &Extent) -> Result<(), Error> {
        let own: BTreeSet<SegmentId> = history.whole.iter().map(|whole| whole.listing.id).collect();
        for id in self.target.segments.difference(&own) {
            remove(self.disk, &id.path())?;
        }
        self.target.segments.retain(|id| own.contains(id));
        Ok(())
    }

    /// Whether a segment is in place already.
    fn has(&self, listing: &SegmentEntry) -> Result<bool, Error> {
        if !self.target.segments.contains(&listing.id) {
            return Ok(false);
        }
        let file = SegmentFile::open(self.disk, listing.id, Access::Read);
        let found = file.and_then(|file| read_listing(&file));
        match found {
            Ok(found) => Ok(listing.fits(&found)),
            // The earlier copy holds only a beginning of this segment, so the segment is copied again.
            Err(error) if error.kind() == ErrorKind::Corrupt && !self.target.lists(listing.id) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn place(&mut self, whole: &WholeSegment) -> Result<(), Error> {
        let id = whole.listing.id;
        let file = whole.segment.file()?;
        // Header and seal are compared here. `verify_backup` checks the frames between them.
        check_listing(file, &whole.listing)?;
        // Only a listed segment is linked: the writer may still write to another one, and that file must have
        // one name.
        if whole.is_listed && !self.work.copies_all && self.link(&whole.listing) {
            self.name(id)?;
            self.counts.linked += 1;
            return self.work.advance(whole.listing.length.into());
        }
        self.copy(file, whole.listing.length, id)?;
        self.name(id)?;
        self.counts.copied += 1;
        Ok(())
    }

    /// Links the source's file. Answers `false` if that is impossible; then the caller copies the file.
    fn link(&self, listing: &SegmentEntry) -> bool {
        let temporary = listing.id.temporary();
        let _ = self.disk.remove(&temporary);
        if self.disk.link(self.source, &listing.id.path(), &temporary).is_err() {
            return false;
        }
        let length = self.disk.open(&temporary, Access::Read).and_then(|file| file.length());
        length.is_ok_and(|length| length == u64::from(listing.length))
    }

    fn copy(&mut self, from: &SegmentFile, end: u32, id: SegmentId) -> Result<(), Error> {
        let disk = self.disk;
        write_file(disk, id, |to| self.copy_bytes(from, end.into(), to, &id.temporary()))
    }

    fn copy_bytes(
        &mut self,
        from: &SegmentFile,
        end: u64,
        to: &dyn DiskFile,
        path: &str,
    ) -> Result<(), Error> {
        let mut offset = 0;
        while offset < end {
            let most = usize::try_from(end - offset).map_or(PIECE, |rest| rest.min(PIECE));
            let piece = self.buffer.get_mut(..most).expect("a piece fits the buffer");
            let read = read_full(from.file.as_ref(), piece, offset)
                .map_err(|error| Error::io("cannot read", &from.path, error))?;
            if read < most {
                return Err(Error::corrupt(&from.path, offset, "the file ends where events were"));
            }
            write_all(to, piece, offset).map_err(|error| Error::io("cannot write", path, error))?;
            let bytes = u64::try_from(most).expect("at most 1 MiB");
            to.write_out(offset, bytes);
            offset += bytes;
            self.counts.bytes_copied += bytes;
            self.work.advance(bytes)?;
        }
        Ok(())
    }

    fn name(&mut self, id: SegmentId) -> Result<(), Error> {
        name_file(self.disk, id)?;
        self.target.segments.insert(id);
        Ok(())
    }
}

/// Writes a segment's file, and gives the file its name once it is durable.
pub(crate) fn place_file<T>(
    disk: &dyn Disk,
    id: SegmentId,
    write: impl FnOnce(&dyn DiskFile) -> Result<T, Error>,
) -> Result<T, Error> {
    let made = write_file(disk, id, write)?;
    name_file(disk, id)?;
    Ok(made)
}

/// Writes a segment's file under its temporary name, durably. A file that fails half way is removed.
fn write_file<T>(
    disk: &dyn Disk,
    id: SegmentId,
    write: impl FnOnce(&dyn DiskFile) -> Result<T, Error>,
) -> Result<T, Error> {
    let path = id.temporary();
    let failed = |error| Error::io("cannot write", &path, error);
    let file = create_anew(disk, &path).map_err(failed)?;
    let written = write(file.as_ref()).and_then(|made| file.sync().map_err(failed).map(|()| made));
    if written.is_err() {
        // If this fails as well, the next try removes the file.
        let _ = disk.remove(&path);
    }
    written
}

/// Gives a segment's file its own name, durably.
fn name_file(disk: &dyn Disk, id: SegmentId) -> Result<(), Error> {
    let renamed = disk.rename(&id.temporary(), &id.path());
    renamed
        .and_then(|()| disk.sync_directory(SEGMENTS_DIRECTORY))
        .map_err(|error| Error::io("cannot rename", &id.temporary(), error))
}

/// The MARK of a store that ends at `tip`, where nothing was appended after.
pub(crate) fn mark_of(store_id: [u8; 16], segment: SegmentId, tip: &LogEnd, clean: bool) -> Mark {
    Mark {
        store_id,
        sequence: 0,
        segment,
        durable_end: tip.offset,
        position: tip.position,
        chain: tip.chain,
        clean,
    }
}
