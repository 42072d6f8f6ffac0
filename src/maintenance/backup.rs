//! Keeps a copy of a store in another directory, while it is appended to.
//!
//! The copy is a store: the segments as they are, and the durable beginning of the one that is written to. Made
//! again, it takes what is new. Row: ops. Tested by tests/it/archive.rs and tests/it/archive_crash.rs.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::disk::{Disk, OsDisk};
use crate::engine::{Engine, load_to_read, lock};
use crate::format::Manifest;
use crate::log::{LogEnd, read_manifest};
use crate::read::{Point, reader};
use crate::types::{Error, ErrorKind, Head, Options, counted, system};

use super::history::{History, Until};
use super::image::{Counts, Image, Work, mark_of};
use super::ledger::{self, Figures};
use super::target::Target;

/// What copying a store did: a backup, a restore or a fork.
///
/// A segment is kept if it was there already, shared if it has one name more now (a hard link) and copied otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyReport {
    /// The end of the history that was copied. Kept elsewhere, it later proves that the copy is whole and was not
    /// changed: [`verify_backup`](crate::verify_backup).
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
    /// How long it took.
    pub elapsed: Duration,
}

impl CopyReport {
    pub(super) fn new(head: Head, counts: Counts) -> CopyReport {
        let Counts { kept, linked, copied, bytes_copied, bytes, elapsed } = counts;
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
struct BackedUp {
    head: String,
    place: String,
    bytes: u64,
    bytes_copied: u64,
}

impl Figures for BackedUp {
    const KIND: &'static str = system::ledger::BACKED_UP;
}

/// Copies everything that is durable.
pub(crate) fn backup(engine: &Engine, disk: &Arc<dyn Disk>, work: &mut Work) -> Result<CopyReport, Error> {
    let reason = work.reason.clone();
    let head = copy_all(engine, disk, work)?;
    if !engine.is_read_only() {
        let figures = BackedUp {
            head: head.head.to_string(),
            place: disk.place(),
            bytes: head.bytes,
            bytes_copied: head.bytes_copied,
        };
        ledger::record(engine, reason.as_deref(), &figures)?;
    }
    Ok(head)
}

/// The same, without a word about it.
pub(crate) fn copy_all(engine: &Engine, disk: &Arc<dyn Disk>, work: &mut Work) -> Result<CopyReport, Error> {
    engine.check_whole()?;
    // Whoever holds the lock looks like a writer to whoever reads.
    let there = end_of_copy(disk)?;
    let _held = held(disk.as_ref())?;
    let history = History::of(engine, &Until::End)?;
    let target = Target::survey(disk.as_ref(), &history.manifest)?;
    if let Some(there) = there {
        check_is_beginning(engine, &history, &target, there, &disk.place())?;
    }
    let manifest = Manifest { is_cut: false, sealed: Vec::new(), ..history.manifest.clone() };
    let mut image = Image::new(engine.disk.as_ref(), disk.as_ref(), target, work, &history)?;
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

/// That a path is not that of the store itself, and does not lie inside.
pub(crate) fn check_outside(source: &dyn Disk, path: &Path) -> Result<(), Error> {
    let Some(source) = (source as &dyn Any).downcast_ref::<OsDisk>() else { return Ok(()) };
    let text = path.display().to_string();
    if source.is_around(path).map_err(|error| Error::io("cannot look at", &text, error))? {
        let text = format!("{text} lies in the store itself; choose a directory elsewhere");
        return Err(Error::invalid(text));
    }
    Ok(())
}

/// Keeps others from writing into a directory.
pub(super) fn held(disk: &dyn Disk) -> Result<Box<dyn Any + Send + Sync>, Error> {
    lock(disk, Duration::ZERO)
}

/// How far the store in a directory goes, if there is one.
fn end_of_copy(disk: &Arc<dyn Disk>) -> Result<Option<Point>, Error> {
    match read_manifest(disk.as_ref())? {
        None => Ok(None),
        Some(_) => load_to_read(disk, &Options::default()).map(|loaded| Some(loaded.head)),
    }
}

/// That what was copied before is the beginning of what is copied now.
fn check_is_beginning(
    engine: &Engine,
    history: &History,
    target: &Target,
    there: Point,
    place: &str,
) -> Result<(), Error> {
    let snapshot = engine.snapshot()?;
    let listed = target.manifest.as_ref().map(|(manifest, _)| manifest.sealed.as_slice());
    let own: BTreeMap<u64, _> =
        history.whole.iter().map(|whole| (whole.listing.last_position, whole.listing.chain)).collect();
    let is_other = |position: &u64, chain| own.get(position).is_some_and(|own| *own != chain);
    let parts = listed.unwrap_or_default().iter().any(|old| is_other(&old.last_position, old.chain));
    // The event may have been removed since; then only the ends of segments speak.
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
