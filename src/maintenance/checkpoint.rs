//! Checkpoints: named places in history, to roll back to.
//!
//! A checkpoint is an event of the ledger and names its own place. So the checkpoint still exists after a
//! rollback to it. Tested by tests/it/checkpoints.rs.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::event::RecordedEvent;
use crate::read::{ChainPosition, Read, reader};
use crate::types::{Error, Head, Position, Query, check_name, system};

use super::record::{self, Figures, LedgerRecord};

const NAME_BYTES_MAX: usize = 255;

/// A named place in history; see [`Store::checkpoint`](crate::Store::checkpoint).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checkpoint {
    /// The name.
    pub name: String,
    /// The place: everything up to here, the checkpoint's own event included.
    pub head: Head,
    /// When the checkpoint was taken, by the store's clock.
    pub at: SystemTime,
    /// Who took the checkpoint: the name given to [`Builder::operator`](crate::Builder::operator), or the
    /// process.
    pub by: String,
    /// The reason given.
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
struct CheckpointTaken {
    name: String,
}

impl Figures for CheckpointTaken {
    const KIND: &'static str = system::ledger::CHECKPOINT;
}

/// Takes a checkpoint, durably.
pub(crate) fn take(engine: &Engine, name: &str, reason: &str) -> Result<Checkpoint, Error> {
    check_name("name of the checkpoint", name, NAME_BYTES_MAX)?;
    let taken = record::append(engine, Some(reason), &CheckpointTaken { name: name.to_owned() })?;
    let event = reader::event_at(&engine.snapshot()?, taken.position())?;
    read(engine, &event.expect("it was acknowledged, so it can be read"))
}

/// All checkpoints, in the order they were taken.
pub(crate) fn all(engine: &Engine) -> Result<Vec<Checkpoint>, Error> {
    let query = Query::entity(record::STREAM).kind(CheckpointTaken::KIND);
    Read::new(engine.readable(), query).map(|event| read(engine, &event?)).collect()
}

fn read(engine: &Engine, event: &RecordedEvent) -> Result<Checkpoint, Error> {
    let entry: LedgerRecord<CheckpointTaken> = event.decode()?;
    let place = ChainPosition { position: event.position(), chain: event.chain() };
    Ok(Checkpoint {
        name: entry.figures.name,
        head: Head::new(place, engine.store_id),
        at: event.recorded_at(),
        by: entry.by,
        reason: entry.reason.unwrap_or_default(),
    })
}

/// The position of the newest checkpoint of a name.
pub(crate) fn named(engine: &Engine, name: &str) -> Result<Position, Error> {
    let found = all(engine)?.into_iter().rfind(|checkpoint| checkpoint.name == name);
    let found = found.ok_or_else(|| Error::invalid(format!("there is no checkpoint {name:?}")));
    found.map(|checkpoint| checkpoint.head.position())
}
