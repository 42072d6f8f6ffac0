//! Erasing: the private part of events goes from everything the store keeps; that they happened stays, and can be
//! proven as before.
//!
//! What is to be erased is recorded first, then done, then recorded as done. A file, `ERASING`, is there from before the
//! first until after the last, so that an opening knows without looking into the log that something may be unfinished.
//! Row: ops. Tested by tests/it/erase.rs.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::disk::{Access, Disk};
use crate::engine::Engine;
use crate::event::matches;
use crate::log::{Candidate, Fate, Judge, list, remove};
use crate::read::{Read, reader};
use crate::types::{Erasure, Error, Position, Query, SYSTEM_SCOPE, system, to_u64};

use super::ledger::{self, Entry, Figures};
use super::quarantine::{Quarantined, quarantined};
use super::rewriting::Rewriting;
use super::throttle::Throttle;

/// There while something may have to be erased still.
pub(crate) const MARK: &str = "ERASING";

/// Where states are kept that were folded before.
pub(super) const CACHE: &str = "cache";
/// While segments are looked at, the log goes on; it cannot outrun so many looks.
const TRIES: u32 = 3;

/// What is to be erased: of what is before this event.
#[derive(Serialize, Deserialize)]
struct Erasing {
    query: Query,
}

impl Figures for Erasing {
    const KIND: &'static str = system::ledger::ERASING;
}

/// It is done, as far as it was left to do.
#[derive(Serialize, Deserialize)]
struct Erased {
    /// The position of what was to be erased.
    asked: Position,
    events: u64,
    bytes: u64,
    segments: u64,
    quarantined: u64,
}

impl Figures for Erased {
    const KIND: &'static str = system::ledger::ERASED;
}

/// Removes every cached state, in memory and on disk: a state may hold what is erased.
pub(crate) type ForgetStates<'a> = &'a dyn Fn() -> Result<(), Error>;

/// What was asked for.
struct Order {
    query: Query,
    /// Events up to here.
    up_to: Position,
    reason: String,
}

/// Erases the private part of all events that match and are there.
pub(crate) fn erase(
    engine: &Engine,
    forget_states: ForgetStates<'_>,
    query: Query,
    reason: &str,
    pace: &mut Throttle<'_>,
) -> Result<Erasure, Error> {
    check(&query)?;
    let mut rewriting = Rewriting::begin(engine, ledger::who_and_why(&engine.options, reason))?;
    mark(engine.disk.as_ref(), &rewriting)?;
    let asked = ledger::record(engine, Some(reason), &Erasing { query })?;
    let mut erasure = Erasure::default();
    // What was asked for before and left undone goes first, or nothing would ever be done with.
    for order in unfinished(engine)? {
        let done = carry_out(engine, forget_states, &order, &mut rewriting, pace)?;
        if order.up_to == asked.position() {
            erasure = done;
        }
    }
    unmark(engine, &rewriting)?;
    Ok(erasure)
}

/// Whether something may be unfinished.
pub(crate) fn is_unfinished(engine: &Engine) -> Result<bool, Error> {
    Ok(!engine.is_read_only() && list(engine.disk.as_ref(), "")?.iter().any(|name| name == MARK))
}

/// Does what an earlier process left undone; `false` if somebody is rewriting segments just now.
pub(crate) fn resume(
    engine: &Engine,
    forget_states: ForgetStates<'_>,
    pace: &mut Throttle<'_>,
) -> Result<bool, Error> {
    let Some(mut rewriting) = Rewriting::try_begin(engine, String::new())? else { return Ok(false) };
    for order in unfinished(engine)? {
        carry_out(engine, forget_states, &order, &mut rewriting, pace)?;
    }
    unmark(engine, &rewriting)?;
    Ok(true)
}

/// Events that are the store's own stay whole: it would not find its way without them.
fn check(query: &Query) -> Result<(), Error> {
    if !query.items.iter().any(|item| item.names_system()) {
        return Ok(());
    }
    Err(Error::invalid("the store's own events, whose names begin with $, cannot be erased"))
}

/// What was asked for and is not recorded as done.
fn unfinished(engine: &Engine) -> Result<Vec<Order>, Error> {
    let of_kind = |kind| Read::new(engine.readable(), Query::entity(ledger::STREAM).kind(kind));
    let mut done = BTreeSet::new();
    for event in of_kind(Erased::KIND) {
        done.insert(event?.decode::<Entry<Erased>>()?.figures.asked);
    }
    let mut orders = Vec::new();
    for event in of_kind(Erasing::KIND) {
        let event = event?;
        let Entry { reason, figures, .. } = event.decode::<Entry<Erasing>>()?;
        if !done.contains(&event.position()) {
            let reason = reason.unwrap_or_default();
            let query = reader::by_either_id(&engine.snapshot()?, figures.query)?;
            orders.push(Order { query, up_to: event.position(), reason });
        }
    }
    Ok(orders)
}

fn mark(disk: &dyn Disk, rewriting: &Rewriting<'_>) -> Result<(), Error> {
    match disk.open(MARK, Access::CreateNew) {
        Ok(_) => rewriting.sync_names(""),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Error::io("cannot create", MARK, error)),
    }
}

/// Unless something else is unfinished.
fn unmark(engine: &Engine, rewriting: &Rewriting<'_>) -> Result<(), Error> {
    if !unfinished(engine)?.is_empty() {
        return Ok(());
    }
    remove(engine.disk.as_ref(), MARK)?;
    rewriting.sync_names("")
}

fn carry_out(
    engine: &Engine,
    forget_states: ForgetStates<'_>,
    order: &Order,
    rewriting: &mut Rewriting<'_>,
    pace: &mut Throttle<'_>,
) -> Result<Erasure, Error> {
    let mut erasure = Erasure::default();
    for attempt in 0.. {
        if !holds(engine, order, Position::START, order.up_to)? {
            break;
        }
        if attempt == TRIES {
            let text = "events to be erased stand in a segment that MANIFEST could not list for want of space; \
                        append something when there is some, and erase again";
            return Err(Error::no_space(text));
        }
        erase_from_segments(engine, order, rewriting, pace, &mut erasure)?;
    }
    // Nothing is left in the log. Now whatever was made of it; what is being folded just now is of the history before.
    rewriting.raise_history()?;
    forget_states()?;
    sync_if_there(rewriting, CACHE)?;
    erasure.quarantined = empty_quarantine(engine.disk.as_ref(), rewriting)?;
    rewriting.check_removed()?;
    pace.tell()?;
    let Erasure { events, bytes, segments, quarantined, .. } = erasure;
    let erased = Erased { asked: order.up_to, events, bytes, segments, quarantined };
    let recorded = ledger::record(engine, Some(&order.reason), &erased)?;
    erasure.position = recorded.position();
    erasure.id = recorded.ids().next();
    Ok(erasure)
}

fn erase_from_segments(
    engine: &Engine,
    order: &Order,
    rewriting: &mut Rewriting<'_>,
    pace: &mut Throttle<'_>,
    erasure: &mut Erasure,
) -> Result<(), Error> {
    let end = engine.snapshot()?.segments.last().map_or(1, |last| last.id().first_position);
    if holds(engine, order, end.saturating_sub(1).into(), order.up_to)? {
        rewriting.roll()?;
    }
    let mut concerned = Vec::new();
    for (segment, listed) in rewriting.sealed()? {
        let before = segment.first_position().saturating_sub(1).into();
        if holds(engine, order, before, order.up_to.min(listed.last_position.into()))? {
            concerned.push((segment, listed));
        }
    }
    pace.expect(concerned.iter().map(|(_, listed)| u64::from(listed.length)).sum());
    for one in concerned {
        pace.tell()?;
        let mut judge = Eraser { order, pace: &mut *pace, events: 0, bytes: 0 };
        rewriting.rewrite(std::slice::from_ref(&one), &mut judge)?;
        erasure.events += judge.events;
        erasure.bytes += judge.bytes;
        erasure.segments += 1;
    }
    Ok(())
}

/// Whether events after one position and up to another are to be erased still.
fn holds(engine: &Engine, order: &Order, after: Position, up_to: Position) -> Result<bool, Error> {
    let mut read = Read::new(engine.readable(), order.query.clone());
    read.again(after, up_to);
    for event in read {
        if !event?.is_erased() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Of what recovery cut it is not known what is in it, and a store that was set back has the events as they were.
fn empty_quarantine(disk: &dyn Disk, rewriting: &Rewriting<'_>) -> Result<u64, Error> {
    let Quarantined { files, directories } = quarantined(disk)?;
    files.iter().try_for_each(|path| remove(disk, path))?;
    directories.iter().try_for_each(|directory| sync_if_there(rewriting, directory))?;
    Ok(to_u64(files.len()))
}

fn sync_if_there(rewriting: &Rewriting<'_>, directory: &str) -> Result<(), Error> {
    if rewriting.has_directory(directory)? { rewriting.sync_names(directory) } else { Ok(()) }
}

struct Eraser<'a, 'p> {
    order: &'a Order,
    pace: &'a mut Throttle<'p>,
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
        self.pace.advance(bytes)
    }
}
