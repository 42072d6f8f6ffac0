//! Rollback cuts history after a place, and keeps the old history as a store of its own.
//!
//! Replacing MANIFEST is the commit: before it the old history stands, after it the new one. The new history
//! ends with a ledger record. Files that are then superfluous are removed now or by the next opening. Tested
//! by tests/it/archive.rs and tests/it/archive_crash.rs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::disk::{Disk, Subdirectory};
use crate::engine::Engine;
use crate::format::Manifest;
use crate::log::{Failure, finish_cut, read_manifest, read_mark, replace_manifest};
use crate::read::{ChainPosition, Read};
use crate::types::{Error, ErrorKind, Head, Options, Query, system};

use super::backup::{copy_all, lock_directory};
use super::copy::{CopyWork, place_file};
use super::extent::{Extent, Until};
use super::record::{self, Figures, LedgerRecord};
use super::tail_segment::TailSegment;

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
    let listing = place_file(disk, ending.header.id, |file| ending.write(file, work)).map_err(nothing_cut)?;
    let mut sealed = history.listings();
    sealed.push(listing);
    let next = Manifest {
        is_cut: true,
        sequence: manifest.sequence.saturating_add(1),
        previous: digest,
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
