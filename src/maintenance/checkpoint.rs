//! Named places in history, to go back to.
//!
//! A checkpoint is its own event in the ledger: the place it names is the one where it stands, so it is still
//! there after going back to it.
//! Row: ops. Tested by tests/it/checkpoints.rs.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::event::RecordedEvent;
use crate::read::{ChainPosition, Read, reader};
use crate::types::{Error, Head, Position, Query, check_name, system};

use super::ledger::{self, Entry, Figures};

const NAME_BYTES_MAX: usize = 255;

/// A named place in history; see [`Store::checkpoint`](crate::Store::checkpoint).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checkpoint {
    /// What it is called.
    pub name: String,
    /// The place: everything up to here, the checkpoint's own event included.
    pub head: Head,
    /// When it was taken.
    pub at: SystemTime,
    /// Who took it: what [`Builder::operator`](crate::Builder::operator) said, or the process.
    pub by: String,
    /// Why.
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
struct Taken {
    name: String,
}

impl Figures for Taken {
    const KIND: &'static str = system::ledger::CHECKPOINT;
}

/// Takes a checkpoint, durably.
pub(crate) fn take(engine: &Engine, name: &str, reason: &str) -> Result<Checkpoint, Error> {
    check_name("name of the checkpoint", name, NAME_BYTES_MAX)?;
    let taken = ledger::record(engine, Some(reason), &Taken { name: name.to_owned() })?;
    let event = reader::event_at(&engine.snapshot()?, taken.position())?;
    read(engine, &event.expect("it was acknowledged, so it can be read"))
}

/// All checkpoints, in order.
pub(crate) fn all(engine: &Engine) -> Result<Vec<Checkpoint>, Error> {
    let query = Query::entity(ledger::STREAM).kind(Taken::KIND);
    Read::new(engine.readable(), query).map(|event| read(engine, &event?)).collect()
}

fn read(engine: &Engine, event: &RecordedEvent) -> Result<Checkpoint, Error> {
    let entry: Entry<Taken> = event.decode()?;
    let place = ChainPosition { position: event.position(), chain: event.chain() };
    Ok(Checkpoint {
        name: entry.figures.name,
        head: Head::new(place, engine.store_id),
        at: event.recorded_at(),
        by: entry.by,
        reason: entry.reason.unwrap_or_default(),
    })
}

/// Where the newest checkpoint of a name stands.
pub(crate) fn named(engine: &Engine, name: &str) -> Result<Position, Error> {
    let found = all(engine)?.into_iter().rfind(|checkpoint| checkpoint.name == name);
    let found = found.ok_or_else(|| Error::invalid(format!("there is no checkpoint {name:?}")));
    found.map(|checkpoint| checkpoint.head.position())
}
