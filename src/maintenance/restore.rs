//! Makes a new store of a history: the same store again from a backup, or another one that goes its own way.
//!
//! Both end with an entry of the ledger, which is there exactly if the store is.
//! Row: ops. Tested by tests/it/archive.rs and tests/it/archive_crash.rs.

use std::sync::Arc;

use serde::Serialize;

use crate::disk::Disk;
use crate::engine::Engine;
use crate::format::{Lineage, Manifest};
use crate::log::{LogEnd, new_store_id};
use crate::types::{Error, Head, options, system};

use super::backup::{CopyReport, held};
use super::ending::Ending;
use super::history::{History, Until};
use super::image::{Image, Work, mark_of};
use super::ledger::{self, Figures};
use super::target::Target;

#[derive(Serialize)]
struct Restored {
    /// Where the history ends that was restored.
    head: String,
    from: String,
}

impl Figures for Restored {
    const KIND: &'static str = system::ledger::RESTORED;
}

#[derive(Serialize)]
struct Forked {
    /// Where the fork's history parts from that of the store it was taken from.
    origin: String,
    fork: String,
}

impl Figures for Forked {
    const KIND: &'static str = system::ledger::FORKED;
}

/// Makes the same store again, of what a backup holds up to a place.
pub(crate) fn restore(
    backup: &Engine,
    disk: &Arc<dyn Disk>,
    until: &Until,
    work: &mut Work,
) -> Result<CopyReport, Error> {
    backup.check_whole()?;
    let history = History::of(backup, until)?;
    let head = Head::new(history.end(), backup.store_id);
    let figures = Restored { head: head.to_string(), from: backup.disk.place() };
    // What was folded from the part that is left out is void.
    let is_cut = history.end() != backup.snapshot()?.durable;
    let history_revision = history.manifest.history_revision.saturating_add(u64::from(is_cut));
    let manifest = Manifest { history_revision, ..history.manifest.clone() };
    found(backup, disk, &history, manifest, &figures, work)
}

/// Makes another store of what this one holds up to a place.
pub(crate) fn fork(
    engine: &Engine,
    disk: &Arc<dyn Disk>,
    until: &Until,
    work: &mut Work,
) -> Result<CopyReport, Error> {
    engine.check_whole()?;
    let history = History::of(engine, until)?;
    let (head, store_id) = (Head::new(history.end(), engine.store_id), new_store_id(disk.as_ref())?);
    let figures = Forked { origin: head.to_string(), fork: uuid::Uuid::from_bytes(store_id).to_string() };
    let mut lineage = history.manifest.lineage.clone();
    lineage.push(Lineage { store_id: engine.store_id, up_to: head.position().get() });
    let created_at = options::read(&engine.options.clock);
    let manifest = Manifest { store_id, lineage, created_at, ..history.manifest.clone() };
    let report = found(engine, disk, &history, manifest, &figures, work)?;
    if !engine.is_read_only() {
        ledger::record(engine, work.reason.as_deref(), &figures)?;
    }
    Ok(report)
}

/// Makes a store in a new directory.
fn found<F: Figures>(
    source: &Engine,
    disk: &Arc<dyn Disk>,
    history: &History,
    manifest: Manifest,
    figures: &F,
    work: &mut Work,
) -> Result<CopyReport, Error> {
    let _held = held(disk.as_ref())?;
    let target = Target::survey(disk.as_ref(), &history.manifest)?;
    target.check_new(disk.as_ref())?;
    let ending = Ending::new(source, history, 0, work.reason.as_deref(), figures)?;
    let mut image = Image::new(source.disk.as_ref(), disk.as_ref(), target, work, history)?;
    let base = Manifest { is_cut: false, previous: [0; 32], sealed: Vec::new(), ..manifest };
    image.place_whole(history, &base)?;
    let listing = image.place_made(ending.header.id, |file, work| ending.write(file, work))?;
    let tip = LogEnd::of_sealed(&listing);
    let mark = mark_of(base.store_id, listing.id, &tip, false);
    let mut sealed = history.listings();
    sealed.push(listing);
    let counts = image.finish(Manifest { sealed, ..base }, mark)?;
    Ok(CopyReport::new(Head::new(history.end(), source.store_id), counts))
}
