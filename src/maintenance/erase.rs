//! Erasing removes payload and metadata of events from everything the store keeps.
//!
//! The rest of each event stays and verifies as before.
//!
//! Order: record the request in the ledger, erase, record that it is done. The file `ERASING` exists from
//! before the first record until after the last. So an opening knows without a search of the log that an
//! erasure may be unfinished. Tested by tests/it/erase.rs.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::disk::{Access, Disk};
use crate::engine::Engine;
use crate::event::matches;
use crate::log::{Candidate, Fate, Judge, list, remove};
use crate::read::{Read, reader};
use crate::types::{Erasure, Error, Position, Query, SYSTEM_SCOPE, system, to_u64};

use super::directory::{CACHE, ERASING_FILE, QuarantinedFiles, quarantined};
use super::record::{self, Figures, LedgerRecord};
use super::rewriting::Rewriting;
use super::throttle::RewriteThrottle;

/// Appends go on while segments are erased, and may seal another segment. This many passes are enough.
const PASSES_MAX: u32 = 3;

/// The ledger's record of a request. It covers the events in front of itself.
#[derive(Serialize, Deserialize)]
struct ErasureBegun {
    query: Query,
}

impl Figures for ErasureBegun {
    const KIND: &'static str = system::ledger::ERASING;
}

/// The ledger's record of an erasure that is done.
#[derive(Serialize, Deserialize)]
struct ErasureDone {
    /// The position of the request.
    asked: Position,
    events: u64,
    bytes: u64,
    segments: u64,
    quarantined: u64,
}

impl Figures for ErasureDone {
    const KIND: &'static str = system::ledger::ERASED;
}

/// Removes every saved state, in memory and on disk: a state may hold erased values.
pub(crate) type ForgetStates<'a> = &'a dyn Fn() -> Result<(), Error>;

/// A request from the ledger that is not recorded as done.
struct ErasureOrder {
    query: Query,
    /// Events up to here, inclusive.
    up_to: Position,
    reason: String,
}

/// Erases payload and metadata of all matching events that exist now.
pub(crate) fn erase(
    engine: &Engine,
    forget_states: ForgetStates<'_>,
    query: Query,
    reason: &str,
    throttle: &mut RewriteThrottle<'_>,
) -> Result<Erasure, Error> {
    check(&query)?;
    let mut rewriting = Rewriting::begin(engine)?;
    create_erasing_file(engine.disk.as_ref(), &rewriting)?;
    let asked = record::append(engine, Some(reason), &ErasureBegun { query })?;
    let mut erasure = Erasure::default();
    // Requests that an earlier process left unfinished come first: the file `ERASING` goes when none is left.
    for order in unfinished(engine)? {
        let done = carry_out(engine, forget_states, &order, &mut rewriting, throttle)?;
        if order.up_to == asked.position() {
            erasure = done;
        }
    }
    remove_erasing_file(engine, &rewriting)?;
    Ok(erasure)
}

/// Whether an erasure may be unfinished.
pub(crate) fn is_unfinished(engine: &Engine) -> Result<bool, Error> {
    Ok(!engine.is_read_only() && list(engine.disk.as_ref(), "")?.iter().any(|name| name == ERASING_FILE))
}

/// Finishes what an earlier process left undone. Answers `false` if segments are being rewritten just now.
pub(crate) fn resume(
    engine: &Engine,
    forget_states: ForgetStates<'_>,
    throttle: &mut RewriteThrottle<'_>,
) -> Result<bool, Error> {
    let Some(mut rewriting) = Rewriting::try_begin(engine)? else { return Ok(false) };
    for order in unfinished(engine)? {
        carry_out(engine, forget_states, &order, &mut rewriting, throttle)?;
    }
    remove_erasing_file(engine, &rewriting)?;
    Ok(true)
}

/// The store's own events stay whole: the store cannot work without them.
fn check(query: &Query) -> Result<(), Error> {
    if !query.items.iter().any(|item| item.names_system()) {
        return Ok(());
    }
    Err(Error::invalid("the store's own events, whose names begin with $, cannot be erased"))
}

/// Requests in the ledger that are not recorded as done.
fn unfinished(engine: &Engine) -> Result<Vec<ErasureOrder>, Error> {
    let of_kind = |kind| Read::new(engine.readable(), Query::entity(record::STREAM).kind(kind));
    let mut done = BTreeSet::new();
    for event in of_kind(ErasureDone::KIND) {
        done.insert(event?.decode::<LedgerRecord<ErasureDone>>()?.figures.asked);
    }
    let mut orders = Vec::new();
    for event in of_kind(ErasureBegun::KIND) {
        let event = event?;
        let LedgerRecord { reason, figures, .. } = event.decode::<LedgerRecord<ErasureBegun>>()?;
        if !done.contains(&event.position()) {
            let reason = reason.unwrap_or_default();
            let query = reader::by_either_id(&engine.snapshot()?, figures.query)?;
            orders.push(ErasureOrder { query, up_to: event.position(), reason });
        }
    }
    Ok(orders)
}

fn create_erasing_file(disk: &dyn Disk, rewriting: &Rewriting<'_>) -> Result<(), Error> {
    match disk.open(ERASING_FILE, Access::CreateNew) {
        Ok(_) => rewriting.sync_names(""),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Error::io("cannot create", ERASING_FILE, error)),
    }
}

/// Removes the file `ERASING`, unless a request is unfinished.
fn remove_erasing_file(engine: &Engine, rewriting: &Rewriting<'_>) -> Result<(), Error> {
    if !unfinished(engine)?.is_empty() {
        return Ok(());
    }
    remove(engine.disk.as_ref(), ERASING_FILE)?;
    rewriting.sync_names("")
}

fn carry_out(
    engine: &Engine,
    forget_states: ForgetStates<'_>,
    order: &ErasureOrder,
    rewriting: &mut Rewriting<'_>,
    throttle: &mut RewriteThrottle<'_>,
) -> Result<Erasure, Error> {
    let mut erasure = Erasure::default();
    for attempt in 0.. {
        if !is_any_left(engine, order, Position::START, order.up_to)? {
            break;
        }
        if attempt == PASSES_MAX {
            let text = "an event to erase is in a segment that MANIFEST cannot list for lack of space; make \
                        room, append an event, and erase again";
            return Err(Error::no_space(text));
        }
        erase_from_segments(engine, order, rewriting, throttle, &mut erasure)?;
    }
    // No segment holds the values any more. States folded now belong to the history before, so they go as
    // well.
    rewriting.raise_history()?;
    forget_states()?;
    sync_if_there(rewriting, CACHE)?;
    erasure.quarantined = empty_quarantine(engine.disk.as_ref(), rewriting)?;
    rewriting.check_removed()?;
    throttle.report()?;
    let Erasure { events, bytes, segments, quarantined, .. } = erasure;
    let erased = ErasureDone { asked: order.up_to, events, bytes, segments, quarantined };
    let recorded = record::append(engine, Some(&order.reason), &erased)?;
    erasure.position = recorded.position();
    erasure.id = recorded.ids().next();
    Ok(erasure)
}

fn erase_from_segments(
    engine: &Engine,
    order: &ErasureOrder,
    rewriting: &mut Rewriting<'_>,
    throttle: &mut RewriteThrottle<'_>,
    erasure: &mut Erasure,
) -> Result<(), Error> {
    let end = engine.snapshot()?.segments.last().map_or(1, |last| last.id().first_position);
    if is_any_left(engine, order, end.saturating_sub(1).into(), order.up_to)? {
        rewriting.roll()?;
    }
    let mut concerned = Vec::new();
    for (segment, listed) in rewriting.sealed()? {
        let before = segment.first_position().saturating_sub(1).into();
        if is_any_left(engine, order, before, order.up_to.min(listed.last_position.into()))? {
            concerned.push((segment, listed));
        }
    }
    throttle.expect_after_now(concerned.iter().map(|(_, listed)| u64::from(listed.length)).sum());
    for one in concerned {
        throttle.report()?;
        let mut judge = Eraser { order, throttle: &mut *throttle, events: 0, bytes: 0 };
        rewriting.rewrite(std::slice::from_ref(&one), &mut judge)?;
        erasure.events += judge.events;
        erasure.bytes += judge.bytes;
        erasure.segments += 1;
    }
    Ok(())
}

/// Whether any matching event after one position and up to another still has its payload.
fn is_any_left(
    engine: &Engine,
    order: &ErasureOrder,
    after: Position,
    up_to: Position,
) -> Result<bool, Error> {
    let mut read = Read::new(engine.readable(), order.query.clone());
    read.restart(after, up_to);
    for event in read {
        if !event?.is_erased() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Empties the quarantine: a truncated tail may hold any event, and a store set aside holds them as they
/// were.
fn empty_quarantine(disk: &dyn Disk, rewriting: &Rewriting<'_>) -> Result<u64, Error> {
    let QuarantinedFiles { files, directories } = quarantined(disk)?;
    files.iter().try_for_each(|path| remove(disk, path))?;
    directories.iter().try_for_each(|directory| sync_if_there(rewriting, directory))?;
    Ok(to_u64(files.len()))
}

fn sync_if_there(rewriting: &Rewriting<'_>, directory: &str) -> Result<(), Error> {
    if rewriting.has_directory(directory)? { rewriting.sync_names(directory) } else { Ok(()) }
}

struct Eraser<'a, 'p> {
    order: &'a ErasureOrder,
    throttle: &'a mut RewriteThrottle<'p>,
    events: u64,
    bytes: u64,
}

impl Judge for Eraser<'_, '_> {
    fn fate(&mut self, event: &Candidate<'_>) -> Result<Fate, Error> {
        let record = &event.record;
        let goes = event.position() <= self.order.up_to.get()
            && record.scope() != SYSTEM_SCOPE
            && matches(&self.order.query, record, |id| event.belongs_to(id));
        Ok(if goes { Fate::Erase } else { Fate::Keep })
    }

    fn decided(&mut self, _: &Candidate<'_>, fate: Fate, freed: u64) {
        if fate == Fate::Erase {
            self.events += 1;
            self.bytes += freed;
        }
    }

    fn advance(&mut self, bytes: u32) -> Result<(), Error> {
        self.throttle.advance(bytes)
    }
}
