//! A consumer as the log records it: the events of the stream `$consumer/<name>` (docs/system-events.md).
//!
//! Each event holds the complete record, so the last one is enough. Only the query is kept apart: the last
//! `$consumer.registered` holds it.

use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::event::RecordedEvent;
use crate::store::Store;
use crate::types::system::consumer::{PREFIX, REACTED, REGISTERED, RESET, REWOUND, SKIPPED};
use crate::types::{Error, ErrorKind, Position, Query, Version, check_name, text, time_of, visible};

/// Whether an event of this kind moves the checkpoint on an operator's behalf.
pub(super) fn is_move(kind: &str) -> bool {
    [SKIPPED, REWOUND, RESET].contains(&kind)
}

/// The longest name of a consumer, in bytes. With the prefix it fits the default of `entity_bytes_max`.
const NAME_BYTES_MAX: usize = 255;
/// The length to which a recorded reason is cut, in bytes.
const REASON_BYTES_MAX: usize = 1000;

/// The payload of every event of a consumer's stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ConsumerRecord {
    /// Every matching event up to here was handled or skipped.
    pub(crate) position: Position,
    /// The first 8 bytes of the chain hash there; 0 at the beginning.
    pub(crate) chain: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) halt: Option<HaltRecord>,
    /// For a reaction: the number of reactions in its causal chain, itself included.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) depth: u32,
    /// For a move: who moved the checkpoint, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// For a registration: the consumer's query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) query: Option<Query>,
}

/// A halt as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct HaltRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<Position>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) panicked: bool,
    pub(crate) reason: String,
    /// Microseconds since 1970.
    pub(crate) since: i64,
    pub(crate) by: String,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Why a consumer is halted: an operator halted it, or its handler failed too often.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Halt {
    /// The event that the handler failed on; `None` if an operator halted the consumer.
    pub at: Option<Position>,
    /// True if the handler panicked at that event, false if it returned an error.
    pub panicked: bool,
    /// The operator's reason, or the last error of the handler.
    pub reason: String,
    /// When the consumer was halted.
    pub since: SystemTime,
    /// Who halted it: the name given to [`ConsumerControl::by`](crate::ConsumerControl::by), or `annals` for
    /// a failed handler.
    pub by: String,
}

impl From<&HaltRecord> for Halt {
    fn from(record: &HaltRecord) -> Halt {
        Halt {
            at: record.at,
            panicked: record.panicked,
            reason: record.reason.clone(),
            since: time_of(record.since),
            by: record.by.clone(),
        }
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = self.at {
            write!(f, "at {at} ")?;
        }
        write!(f, "by {}: {}", visible(&self.by), visible(&self.reason))
    }
}

/// The newest record of a consumer.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastRecord {
    /// The version of the consumer's stream; [`Version::EMPTY`] if it has no event.
    pub(crate) version: Version,
    pub(crate) record: ConsumerRecord,
}

impl ConsumerRecord {
    /// The same at another position, with the chain hash that the log has there.
    pub(crate) fn at(self, store: &Store, position: Position) -> Result<ConsumerRecord, Error> {
        let chain = store.at(position)?.map_or(0, |event| prefix_of(&event.chain()));
        Ok(ConsumerRecord { position, chain, ..self })
    }

    /// The base of the next record: without the parts that concern one event only.
    pub(crate) fn next(&self) -> ConsumerRecord {
        ConsumerRecord {
            position: self.position,
            chain: self.chain,
            halt: self.halt.clone(),
            ..ConsumerRecord::default()
        }
    }
}

/// The entity whose stream records a consumer.
pub(crate) fn entity_of(name: &str) -> Result<String, Error> {
    check_name("name of the consumer", name, NAME_BYTES_MAX)?;
    Ok(format!("{PREFIX}{name}"))
}

/// The newest record of a consumer; the default if there is none.
pub(crate) fn last(store: &Store, entity: &str) -> Result<LastRecord, Error> {
    match store.last(Query::entity(entity))? {
        None => Ok(LastRecord::default()),
        Some(event) => Ok(LastRecord { version: event.version(), record: event.decode()? }),
    }
}

/// The query of a consumer; `None` if it never ran.
pub(crate) fn query(store: &Store, entity: &str) -> Result<Option<Query>, Error> {
    match store.last(Query::entity(entity).kind(REGISTERED))? {
        None => Ok(None),
        Some(event) => Ok(event.decode::<ConsumerRecord>()?.query),
    }
}

/// Refuses a record that was written about another history: the log is shorter now, or has other events.
pub(crate) fn check_history(store: &Store, name: &str, record: &ConsumerRecord) -> Result<(), Error> {
    let durable = store.durable_head()?.position();
    let is_other = match store.at(record.position)? {
        Some(event) => record.chain != 0 && prefix_of(&event.chain()) != record.chain,
        None => false,
    };
    if record.position <= durable && !is_other {
        return Ok(());
    }
    let what = if is_other { "other events stand there now" } else { "the log ends before it" };
    let text = format!(
        "consumer {name} has handled everything up to position {}, but {what}: history was set back (durable up to {durable}); \
         decide what it is to handle again, and reset or rewind it",
        record.position
    );
    Err(Error::new(ErrorKind::RolledBack, text))
}

/// The first 8 bytes of a chain hash.
pub(crate) fn prefix_of(chain: &[u8; 32]) -> u64 {
    let (prefix, _) = chain.split_first_chunk().expect("32 bytes are more than 8");
    u64::from_le_bytes(*prefix)
}

/// The number of reactions that led to an event: 0 if no reactor brought it about.
pub(crate) fn depth_of(event: &RecordedEvent) -> u32 {
    let reacted = event.first_of_append().filter(|first| first.kind() == REACTED);
    reacted.and_then(|first| first.decode::<ConsumerRecord>().ok()).map_or(0, |record| record.depth)
}

/// Whether an event is an output of this consumer.
pub(crate) fn is_reaction_of(event: &RecordedEvent, entity: &str) -> bool {
    event.first_of_append().is_some_and(|first| first.kind() == REACTED && first.entity() == entity)
}

/// A reason, cut to the length that is recorded.
pub(crate) fn shortened(reason: &str) -> String {
    text::cut(reason, REASON_BYTES_MAX).to_owned()
}
