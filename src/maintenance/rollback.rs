//! Sets a store back: what comes after a place is cut from its history, and kept aside as a store of its own.
//!
//! MANIFEST is the one moment: until it is replaced the old history stands, from then on the new one, which ends with the
//! ledger's entry. What is left to remove then is removed by whoever opens the store next, if need be.
//! Row: ops. Tested by tests/it/archive.rs and tests/it/archive_crash.rs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::disk::{Disk, Subdirectory};
use crate::engine::Engine;
use crate::format::Manifest;
use crate::log::{Failure, finish_cut, read_manifest, read_mark, replace_manifest};
use crate::read::{Point, Read};
use crate::types::{Error, ErrorKind, Head, Options, Query, system};

use super::backup::{copy_all, held};
use super::ending::Ending;
use super::history::{History, Until};
use super::image::{Work, place_file};
use super::ledger::{self, Entry, Figures};

/// What setting a store back did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RollbackReport {
    /// The last place of the old history that still stands. The ledger's entry follows it.
    pub kept: Head,
    /// Where the store ended before.
    pub cut: Head,
    /// Where the whole old history is kept: a store in itself, in the store's directory. Nobody needs it; it may be deleted.
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

/// Cuts what comes after a place. `cut` is the head the caller knows the store to have.
pub(crate) fn rollback(
    disk: &Arc<dyn Disk>,
    options: Options,
    until: &Until,
    cut: &Head,
    work: &mut Work,
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
    let history = History::of(&engine, until)?;
    let kept = Head::new(history.end(), engine.store_id);
    if kept == head {
        return Err(Error::invalid(format!("the store ends at {kept}; there is nothing to cut")));
    }
    let quarantine = quarantine(cut);
    let aside = Subdirectory::create_within(disk.clone(), quarantine.clone());
    let aside: Arc<dyn Disk> =
        Arc::new(aside.map_err(|error| Error::io("cannot create", &quarantine, error))?);
    // What is kept aside, and what is written anew.
    work.expect(history.beginning.as_ref().map_or(0, |beginning| beginning.tip.offset.into()));
    copy_all(&engine, &aside, work).map_err(nothing_cut)?;
    let report = RollbackReport { kept, cut: head, quarantine };
    let ending = Ending::new(&engine, &history, 1, work.reason.as_deref(), &report.figures())?;
    engine.close()?;
    replace_history(disk.as_ref(), &history, &ending, cut, work)?;
    Ok(report)
}

/// The directory that a head's history is kept in.
fn quarantine(cut: &Head) -> String {
    let chain = crate::format::u64_at(&cut.chain(), 0).swap_bytes();
    format!("quarantine/{:020}.{chain:016x}", cut.position().get())
}

/// Has the new history stand in the place of the old one.
///
/// Until MANIFEST is replaced it can be broken off. What comes behind that is done, whatever happens.
fn replace_history(
    disk: &dyn Disk,
    history: &History,
    ending: &Ending<'_>,
    cut: &Head,
    work: &mut Work,
) -> Result<(), Error> {
    let _held = held(disk)?;
    let (manifest, digest) = read_manifest(disk)?.ok_or_else(Error::no_store)?;
    let marked = read_mark(disk)?.map(|mark| Point { position: mark.position.into(), chain: mark.chain });
    if marked.map(|point| Head::new(point, manifest.store_id)) != Some(*cut) {
        let text = "somebody appended to the store meanwhile; nothing was cut, look at what would be cut now";
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

/// Of copying that was broken off, what that means here.
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

/// What an earlier try did that was stopped before it could say so.
fn done_before(engine: &Engine, cut: &Head) -> Result<Option<RollbackReport>, Error> {
    let query = Query::entity(ledger::STREAM).kind(RolledBack::KIND);
    let Some(last) = Read::new(engine.readable(), query).backwards().next() else { return Ok(None) };
    let RolledBack { kept, cut: was_cut, quarantine } = last?.decode::<Entry<RolledBack>>()?.figures;
    match was_cut.parse::<Head>()? == *cut {
        true => Ok(Some(RollbackReport { kept: kept.parse()?, cut: *cut, quarantine })),
        false => Ok(None),
    }
}
