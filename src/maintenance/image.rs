//! Makes a store of a history in another directory: what backup, restore, fork and rollback have in common.
//!
//! Invariants:
//! - the directory is a store once MANIFEST is there, which comes last; until then it is nothing, and while an
//!   older copy is brought up to date it stays a store that ends at or behind where it ended;
//! - each segment is durable under its name before the next one gets its own, so a stop leaves a beginning;
//! - whatever stops it, doing it again goes on.
//!
//! Row: ops. Tested by tests/it/archive.rs and tests/it/archive_crash.rs.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::disk::{Access, Disk, DiskFile, read_full, write_all};
use crate::format::{Manifest, Mark, SEGMENTS_DIRECTORY, SegmentEntry, SegmentId};
use crate::log::{Failure, LogEnd, SegmentFile, create_mark_file, list, remove_mark, replace_manifest};
use crate::types::{CopyProgress, Error, ErrorKind};

use super::erase::CACHE;
use super::history::{History, Whole, check_listing, read_listing};
use super::target::{Target, remove};

/// Told how far it is; says whether to go on.
pub(crate) type Tell = Box<dyn FnMut(&CopyProgress) -> ControlFlow<()> + Send>;

/// What is copied at once.
const PIECE: usize = 1 << 20;

/// How a copy is to be made.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) tell: Option<Tell>,
    /// Whether sealed segments are copied even where both directories could share them.
    pub(crate) copies_all: bool,
    pub(crate) reason: Option<String>,
    progress: CopyProgress,
    /// Once there is something to do.
    started: Option<Instant>,
}

impl Work {
    pub(crate) fn watched(reason: &str, tell: Tell) -> Work {
        Work { reason: Some(reason.to_owned()), tell: Some(tell), ..Work::default() }
    }

    /// So much more is to be put into place.
    pub(crate) fn expect(&mut self, bytes: u64) {
        self.started.get_or_insert_with(Instant::now);
        self.progress.bytes_total = self.progress.bytes_total.saturating_add(bytes);
    }

    /// So much more is in place.
    ///
    /// # Errors
    ///
    /// `Cancelled`, if whoever was told says so.
    pub(crate) fn advance(&mut self, bytes: u64) -> Result<(), Error> {
        self.progress.bytes = self.progress.bytes.saturating_add(bytes);
        self.progress.elapsed = self.elapsed();
        match self.tell.as_mut().map_or(ControlFlow::Continue(()), |tell| tell(&self.progress)) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::new(
                ErrorKind::Cancelled,
                "copying was broken off, as asked; what is in place stays, and doing it again goes on",
            )),
        }
    }

    fn elapsed(&self) -> Duration {
        self.started.map_or(Duration::ZERO, |started| started.elapsed())
    }
}

/// What was done with the segments.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) kept: usize,
    pub(crate) linked: usize,
    pub(crate) copied: usize,
    pub(crate) bytes_copied: u64,
    pub(crate) bytes: u64,
    pub(crate) elapsed: Duration,
}

/// A directory that is being filled.
pub(crate) struct Image<'a> {
    source: &'a dyn Disk,
    pub(crate) disk: &'a dyn Disk,
    target: Target,
    work: &'a mut Work,
    counts: Counts,
    buffer: Vec<u8>,
}

impl<'a> Image<'a> {
    /// Begins, or goes on, to put a history into a directory that may hold it.
    pub(crate) fn new(
        source: &'a dyn Disk,
        disk: &'a dyn Disk,
        target: Target,
        work: &'a mut Work,
        history: &History,
    ) -> Result<Image<'a>, Error> {
        let failed = |error| Error::io("cannot create", SEGMENTS_DIRECTORY, error);
        disk.create_directory(SEGMENTS_DIRECTORY).map_err(failed)?;
        // Whoever was stopped here before may have given names that are not durable yet.
        disk.sync_directory(SEGMENTS_DIRECTORY).and_then(|()| disk.sync_directory("")).map_err(failed)?;
        let whole: u64 = history.whole.iter().map(|whole| u64::from(whole.listing.length)).sum();
        let beginning = history.beginning.as_ref().map_or(0, |beginning| beginning.tip.offset.into());
        work.expect(whole.saturating_add(beginning));
        Ok(Image { source, disk, target, work, counts: Counts::default(), buffer: vec![0; PIECE] })
    }

    /// Puts the whole segments in place.
    pub(crate) fn place_whole(&mut self, history: &History, base: &Manifest) -> Result<(), Error> {
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
            // Nobody finds a rewritten segment but through MANIFEST.
            if listing.id.generation > 0 && self.target.manifest.is_some() {
                let placed = history.whole.iter().take(index + 1).map(|whole| whole.listing.clone());
                self.publish(Manifest { sealed: placed.collect(), ..base.clone() })?;
            }
        }
        Ok(())
    }

    /// Copies the beginning of the segment that the source goes on in, as it is: so the copy can go on there, too.
    pub(crate) fn place_open(&mut self, file: &SegmentFile, tip: &LogEnd) -> Result<(), Error> {
        let id = file.header.id;
        self.copy(file, tip.offset, id)?;
        self.name(id)?;
        self.counts.copied += 1;
        Ok(())
    }

    /// Puts a segment in place that is made here: `make` writes its file.
    pub(crate) fn place_made(
        &mut self,
        id: SegmentId,
        make: impl FnOnce(&dyn DiskFile, &mut Work) -> Result<SegmentEntry, Error>,
    ) -> Result<SegmentEntry, Error> {
        let work = &mut *self.work;
        let listing = place_file(self.disk, id, |file| make(file, work))?;
        self.target.segments.insert(id);
        self.counts.copied += 1;
        Ok(listing)
    }

    /// Makes the directory a store: MANIFEST lists what is in place, and MARK says how far that is durable.
    pub(crate) fn finish(mut self, manifest: Manifest, mark: Mark) -> Result<Counts, Error> {
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
        // Whoever erased events relies on it that their old segments are gone for good.
        self.sync_names(SEGMENTS_DIRECTORY)?;
        self.forget_states()?;
        Ok(Counts { bytes: self.work.progress.bytes, elapsed: self.work.elapsed(), ..self.counts })
    }

    /// States that whoever opened an earlier copy to write has folded may hold what was erased since.
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

    /// Replaces MANIFEST. MARK, which may speak of what it does not list any more, goes before.
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

    /// What an earlier try put into place for another history would be taken for the end of this one.
    fn remove_others(&mut self, history: &History) -> Result<(), Error> {
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
            // It ended earlier when it was copied, or was not copied as a whole.
            Err(error) if error.kind() == ErrorKind::Corrupt && !self.target.lists(listing.id) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn place(&mut self, whole: &Whole) -> Result<(), Error> {
        let id = whole.listing.id;
        let file = whole.segment.file()?;
        // The frames between header and seal are not looked at: `verify_backup` is there for them.
        check_listing(file, &whole.listing)?;
        // To a file that MANIFEST does not list yet the writer may still have to write, and then it must have one name.
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

    /// Whether both directories share the file from now on. If not, for whatever reason, it is copied.
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

/// Writes a segment's file, and gives it its name once it is durable.
pub(crate) fn place_file<T>(
    disk: &dyn Disk,
    id: SegmentId,
    write: impl FnOnce(&dyn DiskFile) -> Result<T, Error>,
) -> Result<T, Error> {
    let made = write_file(disk, id, write)?;
    name_file(disk, id)?;
    Ok(made)
}

/// Writes a new file for a segment, and makes it durable under its temporary name. What was not
/// written to its end gives its room back.
fn write_file<T>(
    disk: &dyn Disk,
    id: SegmentId,
    write: impl FnOnce(&dyn DiskFile) -> Result<T, Error>,
) -> Result<T, Error> {
    let path = id.temporary();
    let failed = |error| Error::io("cannot write", &path, error);
    match disk.remove(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let file = disk.open(&path, Access::CreateNew).map_err(failed)?;
    let written = write(file.as_ref()).and_then(|made| file.sync().map_err(failed).map(|()| made));
    if written.is_err() {
        // If this fails, too, the next try removes it.
        let _ = disk.remove(&path);
    }
    written
}

/// Gives the file of a segment its own name, durably.
fn name_file(disk: &dyn Disk, id: SegmentId) -> Result<(), Error> {
    let renamed = disk.rename(&id.temporary(), &id.path());
    renamed
        .and_then(|()| disk.sync_directory(SEGMENTS_DIRECTORY))
        .map_err(|error| Error::io("cannot rename", &id.temporary(), error))
}

/// Where MARK points in a store that ends with a segment that goes on, and to which nothing was added since.
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
