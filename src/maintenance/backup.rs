//! Copies of a store: backup, restore and fork; and rollback, which keeps the old history as a copy.
//!
//! - A backup holds the segments as they are, and the durable beginning of the live one. Made again, it takes
//!   what is new.
//! - A restore makes the same store again. A fork makes another store, with an id of its own.
//! - A rollback commits by replacing MANIFEST. Superfluous files go then, or at the next opening.
//! - Restore, fork and rollback end with a ledger record, which exists exactly if the new history does.
//!
//! Tested by tests/it/archive.rs and tests/it/archive_crash.rs.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::disk::{Disk, OsDisk, Subdirectory};
use crate::engine::{Engine, load_to_read, lock};
use crate::format::{Lineage, Manifest};
use crate::log::{
    Failure, LogEnd, finish_cut, new_line, new_store_id, read_manifest, read_mark, replace_manifest,
};
use crate::read::{ChainPosition, Read, reader};
use crate::types::{Error, ErrorKind, Head, Options, Query, counted, options, system};

use super::copy::{Copier, CopyCounts, CopyWork, mark_of, place_file};
use super::directory::CopyTarget;
use super::extent::{Extent, TailSegment, Until};
use super::record::{self, Figures, LedgerRecord};

/// What copying a store did: a backup, a restore or a fork.
///
/// A segment is kept if it was there already, shared if it is a hard link now, and copied otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyReport {
    /// The end of the history that was copied. Kept elsewhere, the head later proves that the copy is whole
    /// and unchanged: [`verify_backup`](crate::verify_backup).
    pub head: Head,
    /// Segments that were there already.
    pub kept: usize,
    /// Segments that both directories share now.
    pub shared: usize,
    /// Segments that were copied.
    pub copied: usize,
    /// Bytes that were copied.
    pub bytes_copied: u64,
    /// Bytes of all segments.
    pub bytes: u64,
    /// How long copying took.
    pub elapsed: Duration,
}

impl CopyReport {
    fn new(head: Head, counts: CopyCounts) -> CopyReport {
        let CopyCounts { kept, linked, copied, bytes_copied, bytes, elapsed } = counts;
        CopyReport { head, kept, shared: linked, copied, bytes_copied, bytes, elapsed }
    }
}

impl fmt::Display for CopyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CopyReport { head, kept, shared, copied, bytes_copied, bytes, elapsed } = self;
        let bytes = counted(*bytes, "byte", "bytes");
        let bytes_copied = counted(*bytes_copied, "byte", "bytes");
        write!(
            f,
            "up to {head}: {bytes} in {elapsed:.1?}; of the segments {copied} copied ({bytes_copied}), {shared} shared, {kept} kept"
        )
    }
}

#[derive(Serialize)]
struct BackupMade {
    head: String,
    place: String,
    bytes: u64,
    bytes_copied: u64,
}

impl Figures for BackupMade {
    const KIND: &'static str = system::ledger::BACKED_UP;
}

/// Copies everything that is durable, and records the backup in the store's ledger.
pub(crate) fn backup(
    engine: &Engine,
    disk: &Arc<dyn Disk>,
    work: &mut CopyWork,
) -> Result<CopyReport, Error> {
    let reason = work.reason.clone();
    let head = copy_all(engine, disk, work)?;
    if !engine.is_read_only() {
        let figures = BackupMade {
            head: head.head.to_string(),
            place: disk.place(),
            bytes: head.bytes,
            bytes_copied: head.bytes_copied,
        };
        record::append(engine, reason.as_deref(), &figures)?;
    }
    Ok(head)
}

/// Copies everything that is durable.
fn copy_all(engine: &Engine, disk: &Arc<dyn Disk>, work: &mut CopyWork) -> Result<CopyReport, Error> {
    engine.check_whole()?;
    // Read before the lock is taken: a reader takes the holder of the lock for a writer.
    let there = end_of_copy(disk)?;
    let _lock = lock_directory(disk.as_ref())?;
    let history = Extent::of(engine, &Until::End)?;
    let target = CopyTarget::survey(disk.as_ref(), &history.manifest)?;
    if let Some(there) = there {
        check_is_beginning(engine, &history, &target, there, &disk.place())?;
    }
    let manifest = Manifest { is_cut: false, sealed: Vec::new(), ..history.manifest.clone() };
    let mut image = Copier::new(engine.disk.as_ref(), disk.as_ref(), target, work, &history)?;
    image.place_whole(&history, &manifest)?;
    let mark = match (&history.beginning, history.whole.last()) {
        (Some(beginning), _) => {
            image.place_open(&beginning.file, &beginning.tip)?;
            mark_of(manifest.store_id, beginning.file.header.id, &beginning.tip, true)
        }
        (None, Some(last)) => {
            mark_of(manifest.store_id, last.listing.id, &LogEnd::of_sealed(&last.listing), false)
        }
        (None, None) => return Err(Error::no_store()),
    };
    let counts = image.finish(Manifest { sealed: history.listings(), ..manifest }, mark)?;
    Ok(CopyReport::new(Head::new(history.end(), engine.store_id), counts))
}

#[derive(Serialize)]
struct Restored {
    /// The end of the restored history.
    head: String,
    from: String,
}

impl Figures for Restored {
    const KIND: &'static str = system::ledger::RESTORED;
}

#[derive(Serialize)]
struct Forked {
    /// The head at which the fork leaves the history of its origin.
    origin: String,
    fork: String,
}

impl Figures for Forked {
    const KIND: &'static str = system::ledger::FORKED;
}

/// Makes the same store again, from a backup up to a place.
pub(crate) fn restore(
    backup: &Engine,
    disk: &Arc<dyn Disk>,
    until: &Until,
    work: &mut CopyWork,
) -> Result<CopyReport, Error> {
    backup.check_whole()?;
    let history = Extent::of(backup, until)?;
    let head = Head::new(history.end(), backup.store_id);
    let figures = Restored { head: head.to_string(), from: backup.disk.place() };
    // If the restored history is shorter, saved states may hold events that are left out.
    let is_cut = history.end() != backup.snapshot()?.durable;
    let history_revision = history.manifest.history_revision.saturating_add(u64::from(is_cut));
    let line = new_line(disk.as_ref())?;
    let manifest = Manifest { history_revision, line, ..history.manifest.clone() };
    make_store(backup, disk, &history, manifest, &figures, work)
}

/// Makes another store, from this one up to a place.
pub(crate) fn fork(
    engine: &Engine,
    disk: &Arc<dyn Disk>,
    until: &Until,
    work: &mut CopyWork,
) -> Result<CopyReport, Error> {
    engine.check_whole()?;
    let history = Extent::of(engine, until)?;
    let head = Head::new(history.end(), engine.store_id);
    let (store_id, line) = new_store_id(disk.as_ref())?;
    let figures = Forked { origin: head.to_string(), fork: uuid::Uuid::from_bytes(store_id).to_string() };
    let mut lineage = history.manifest.lineage.clone();
    lineage.push(Lineage { store_id: engine.store_id, up_to: head.position().get() });
    let created_at = options::read(&engine.options.clock);
    let manifest = Manifest { store_id, line, lineage, created_at, ..history.manifest.clone() };
    let report = make_store(engine, disk, &history, manifest, &figures, work)?;
    if !engine.is_read_only() {
        record::append(engine, work.reason.as_deref(), &figures)?;
    }
    Ok(report)
}

/// Makes a store in a new directory.
fn make_store<F: Figures>(
    source: &Engine,
    disk: &Arc<dyn Disk>,
    history: &Extent,
    manifest: Manifest,
    figures: &F,
    work: &mut CopyWork,
) -> Result<CopyReport, Error> {
    let _lock = lock_directory(disk.as_ref())?;
    let target = CopyTarget::survey(disk.as_ref(), &history.manifest)?;
    target.check_new(disk.as_ref())?;
    let ending = TailSegment::new(source, history, 0, work.reason.as_deref(), figures)?;
    let mut image = Copier::new(source.disk.as_ref(), disk.as_ref(), target, work, history)?;
    let base = Manifest { is_cut: false, previous: [0; 32], sealed: Vec::new(), ..manifest };
    image.place_whole(history, &base)?;
    let listing = image
        .place_made(ending.header.id, |file, work| ending.write(file, &mut |bytes| work.advance(bytes)))?;
    let tip: LogEnd = LogEnd::of_sealed(&listing);
    let mark = mark_of(base.store_id, listing.id, &tip, false);
    let mut sealed = history.listings();
    sealed.push(listing);
    let counts = image.finish(Manifest { sealed, ..base }, mark)?;
    Ok(CopyReport::new(Head::new(history.end(), source.store_id), counts))
}

/// Checks that a path is not the store's own, and not within it.
pub(crate) fn check_outside(source: &dyn Disk, path: &Path) -> Result<(), Error> {
    let Some(source) = (source as &dyn Any).downcast_ref::<OsDisk>() else { return Ok(()) };
    let text = path.display().to_string();
    if source.is_around(path).map_err(|error| Error::io("cannot look at", &text, error))? {
        let text = format!("{text} lies in the store itself; choose a directory elsewhere");
        return Err(Error::invalid(text));
    }
    Ok(())
}

/// Locks a directory against other writers.
fn lock_directory(disk: &dyn Disk) -> Result<Box<dyn Any + Send + Sync>, Error> {
    lock(disk, Duration::ZERO)
}

/// Where the store in a directory ends, if there is one.
fn end_of_copy(disk: &Arc<dyn Disk>) -> Result<Option<ChainPosition>, Error> {
    match read_manifest(disk.as_ref())? {
        None => Ok(None),
        Some(_) => load_to_read(disk, &Options::default()).map(|loaded| Some(loaded.head)),
    }
}

/// Checks that the earlier copy is the beginning of the history that is copied now.
fn check_is_beginning(
    engine: &Engine,
    history: &Extent,
    target: &CopyTarget,
    there: ChainPosition,
    place: &str,
) -> Result<(), Error> {
    let snapshot = engine.snapshot()?;
    let listed = target.manifest.as_ref().map(|(manifest, _)| manifest.sealed.as_slice());
    let own: BTreeMap<u64, _> =
        history.whole.iter().map(|whole| (whole.listing.last_position, whole.listing.chain)).collect();
    let is_other = |position: &u64, chain| own.get(position).is_some_and(|own| *own != chain);
    let parts = listed.unwrap_or_default().iter().any(|old| is_other(&old.last_position, old.chain));
    // Compaction may have removed the event. Then only the chains at the ends of segments are compared.
    let event = reader::event_at(&snapshot, there.position)?;
    let is_beginning = event.is_none_or(|event| event.chain() == there.chain);
    if there.position <= history.end().position && is_beginning && !parts {
        return Ok(());
    }
    let text = format!(
        "the copy in {place} goes up to position {} and is not the beginning of this store: one of them was set back, or the copy was written to; choose an empty directory",
        there.position
    );
    Err(Error::new(ErrorKind::RolledBack, text))
}

/// What a rollback did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RollbackReport {
    /// The last place of the old history that still stands. The ledger's record of the rollback follows it.
    pub kept: Head,
    /// Where the store ended before.
    pub cut: Head,
    /// The directory of the old history within the store's directory. It is a whole store, and may be
    /// deleted.
    pub quarantine: String,
}

impl fmt::Display for RollbackReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RollbackReport { kept, cut, quarantine } = self;
        write!(f, "set back from {cut} to {kept}; the old history is in {quarantine}")
    }
}

#[derive(Serialize, Deserialize)]
struct RolledBack {
    kept: String,
    cut: String,
    quarantine: String,
}

impl Figures for RolledBack {
    const KIND: &'static str = system::ledger::ROLLED_BACK;
}

/// Cuts history after a place. `cut` is the head that the caller believes the store to have.
pub(crate) fn rollback(
    disk: &Arc<dyn Disk>,
    options: Options,
    until: &Until,
    cut: &Head,
    work: &mut CopyWork,
) -> Result<RollbackReport, Error> {
    if read_manifest(disk.as_ref())?.is_none() {
        return Err(Error::no_store());
    }
    let engine = Engine::open(disk.clone(), options, Duration::ZERO)?;
    let head = Head::new(engine.snapshot()?.head, engine.store_id);
    if head != *cut {
        return match done_before(&engine, cut)? {
            Some(report) => Ok(report),
            None => Err(Error::invalid(format!(
                "the store's head is {head}, not {cut}: look at what would be cut, and name that head"
            ))),
        };
    }
    let history = Extent::of(&engine, until)?;
    let kept = Head::new(history.end(), engine.store_id);
    if kept == head {
        return Err(Error::invalid(format!("the store ends at {kept}; there is nothing to cut")));
    }
    let quarantine = quarantine(cut);
    let aside = Subdirectory::create_within(disk.clone(), quarantine.clone());
    let aside: Arc<dyn Disk> =
        Arc::new(aside.map_err(|error| Error::io("cannot create", &quarantine, error))?);
    // The beginning of the tail segment is written a second time: into quarantine, and into the store.
    work.expect(history.beginning.as_ref().map_or(0, |beginning| beginning.tip.offset.into()));
    copy_all(&engine, &aside, work).map_err(nothing_cut)?;
    let report = RollbackReport { kept, cut: head, quarantine };
    let ending = TailSegment::new(&engine, &history, 1, work.reason.as_deref(), &report.figures())?;
    engine.close()?;
    replace_history(disk.as_ref(), &history, &ending, cut, work)?;
    Ok(report)
}

/// The directory that keeps the history of a head.
fn quarantine(cut: &Head) -> String {
    let chain = crate::format::u64_at(&cut.chain(), 0).swap_bytes();
    format!("quarantine/{:020}.{chain:016x}", cut.position().get())
}

/// Replaces the old history by the new one.
///
/// Up to the replacement of MANIFEST the caller can break the rollback off. Then the cut is finished in any
/// case.
fn replace_history(
    disk: &dyn Disk,
    history: &Extent,
    ending: &TailSegment<'_>,
    cut: &Head,
    work: &mut CopyWork,
) -> Result<(), Error> {
    let _lock = lock_directory(disk)?;
    let (manifest, digest) = read_manifest(disk)?.ok_or_else(Error::no_store)?;
    let marked =
        read_mark(disk)?.map(|mark| ChainPosition { position: mark.position.into(), chain: mark.chain });
    if marked.map(|point| Head::new(point, manifest.store_id)) != Some(*cut) {
        let text = "the store has new appends since its head was read; nothing was cut, look at what would be cut now";
        return Err(Error::new(ErrorKind::Invalid, text));
    }
    let listing =
        place_file(disk, ending.header.id, |file| ending.write(file, &mut |bytes| work.advance(bytes)))
            .map_err(nothing_cut)?;
    let mut sealed = history.listings();
    sealed.push(listing);
    let next = Manifest {
        is_cut: true,
        sequence: manifest.sequence.saturating_add(1),
        previous: digest,
        line: new_line(disk)?,
        history_revision: manifest.history_revision.saturating_add(1),
        sealed,
        ..manifest
    };
    let (bytes, digest) = next.write();
    replace_manifest(disk, &bytes).map_err(Failure::into_error)?;
    finish_cut(disk, next, digest).map(drop)
}

/// Says of a cancelled copy what that means for a rollback.
fn nothing_cut(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Cancelled => Error::new(
            ErrorKind::Cancelled,
            "setting back was broken off, as asked; nothing was cut, and doing it again goes on",
        ),
        _ => error,
    }
}

impl RollbackReport {
    fn figures(&self) -> RolledBack {
        RolledBack {
            kept: self.kept.to_string(),
            cut: self.cut.to_string(),
            quarantine: self.quarantine.clone(),
        }
    }
}

/// The report of an earlier try that was stopped after the commit.
fn done_before(engine: &Engine, cut: &Head) -> Result<Option<RollbackReport>, Error> {
    let query = Query::entity(record::STREAM).kind(RolledBack::KIND);
    let Some(last) = Read::new(engine.readable(), query).backwards().next() else { return Ok(None) };
    let RolledBack { kept, cut: was_cut, quarantine } = last?.decode::<LedgerRecord<RolledBack>>()?.figures;
    match was_cut.parse::<Head>()? == *cut {
        true => Ok(Some(RollbackReport { kept: kept.parse()?, cut: *cut, quarantine })),
        false => Ok(None),
    }
}
