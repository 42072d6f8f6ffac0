//! The stream `$ledger`: one event for each operation on the store as a whole; and the checkpoints in it.
//!
//! Each record says who acted, why, and the figures of the operation. The figures name the kind of the event.
//! A record is durable once it is appended.
//!
//! A checkpoint is a record that names its own place in history. So the checkpoint still exists after a
//! rollback to it. Tested by tests/it/checkpoints.rs.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::engine::{Append, Engine};
use crate::event::{Appended, Raw, RecordedEvent};
use crate::read::{ChainPosition, Read, reader};
use crate::types::{Durability, Error, Expected, Head, Options, Position, Query, check_name, system, text};

pub(crate) use crate::types::system::ledger::STREAM;

/// How much of a reason is kept, in bytes.
const REASON_BYTES_MAX: usize = 1000;
const NAME_BYTES_MAX: usize = 255;

/// The figures that one operation records.
pub(crate) trait Figures: Serialize {
    /// The kind of the event; begins with `$ledger.`.
    const KIND: &'static str;
}

/// The payload of every event of the stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LedgerRecord<F> {
    /// Who acted: the name given to [`Builder::operator`](crate::Builder::operator), or the process.
    pub(crate) by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    pub(crate) figures: F,
}

impl<F> LedgerRecord<F> {
    /// A record by this process.
    pub(crate) fn new(options: &Options, reason: Option<&str>, figures: F) -> LedgerRecord<F> {
        let process = || format!("process {}", std::process::id());
        LedgerRecord {
            by: options.operator.clone().unwrap_or_else(process),
            reason: reason.map(|reason| text::cut(reason, REASON_BYTES_MAX).to_owned()),
            figures,
        }
    }
}

/// Appends a record, durably.
pub(crate) fn append<F: Figures>(
    engine: &Engine,
    reason: Option<&str>,
    figures: &F,
) -> Result<Appended, Error> {
    let entry = LedgerRecord::new(&engine.options, reason, figures);
    let append = Append::of_system(STREAM, Expected::Any, &Raw(F::KIND, &entry));
    engine.commit(append.durability(Durability::Synced))
}

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
pub(crate) fn take_checkpoint(engine: &Engine, name: &str, reason: &str) -> Result<Checkpoint, Error> {
    check_name("name of the checkpoint", name, NAME_BYTES_MAX)?;
    let taken = append(engine, Some(reason), &CheckpointTaken { name: name.to_owned() })?;
    let event = reader::event_at(&engine.snapshot()?, taken.position())?;
    read_checkpoint(engine, &event.expect("it was acknowledged, so it can be read"))
}

/// All checkpoints, in the order they were taken.
pub(crate) fn checkpoints(engine: &Engine) -> Result<Vec<Checkpoint>, Error> {
    let query = Query::entity(STREAM).kind(CheckpointTaken::KIND);
    Read::new(engine.readable(), query).map(|event| read_checkpoint(engine, &event?)).collect()
}

fn read_checkpoint(engine: &Engine, event: &RecordedEvent) -> Result<Checkpoint, Error> {
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
pub(super) fn checkpoint_position(engine: &Engine, name: &str) -> Result<Position, Error> {
    let found = checkpoints(engine)?.into_iter().rfind(|checkpoint| checkpoint.name == name);
    let found = found.ok_or_else(|| Error::invalid(format!("there is no checkpoint {name:?}")));
    found.map(|checkpoint| checkpoint.head.position())
}
