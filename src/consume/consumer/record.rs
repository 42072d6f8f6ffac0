//! What the log says of a consumer: the events of `$consumer/<name>`.
//!
//! Every one of them holds the consumer's whole standing, so the last is enough; only the query stands apart, in the
//! last `$consumer.registered`.
//! Row: app.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::event::{Raw, RecordedEvent};
use crate::store::Store;
use crate::types::system::consumer::{PREFIX, REACTED, REGISTERED, RESET, REWOUND, SKIPPED};
use crate::types::{Error, ErrorKind, Position, Query, Version, check_name, text, time_of};

/// Whether such an event says that the consumer is to go on elsewhere.
pub(super) fn moves(kind: &str) -> bool {
    [SKIPPED, REWOUND, RESET].contains(&kind)
}

/// The longest name of a consumer, in bytes: what `entity_bytes_max` leaves of its default is more.
const NAME_BYTES_MAX: usize = 255;
/// What is kept of a reason, in bytes.
const REASON_BYTES_MAX: usize = 1000;

/// The payload of every event of a consumer's stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ConsumerRecord {
    /// Everything that matches up to here was handled, or passed over.
    pub(crate) position: Position,
    /// The first 8 bytes of the chain hash there; 0 at the beginning.
    pub(crate) chain: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) halt: Option<HaltRecord>,
    /// Of a reaction: how many reactions stand before it in its causal chain, itself included.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) depth: u32,
    /// Who moved it, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// Of a registration: what it asks for.
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

/// Why a consumer handles nothing: somebody halted it, or a handler failed too often.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Halt {
    /// The event that could not be handled; `None` if somebody halted the consumer for another reason.
    pub at: Option<Position>,
    /// Whether its handler panicked there, rather than failed.
    pub panicked: bool,
    /// Why, in the words of whoever halted it; of a handler, its last error.
    pub reason: String,
    /// When.
    pub since: SystemTime,
    /// Who: what [`ConsumerControl::by`](crate::ConsumerControl::by) said, or `annals` for a handler that failed.
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

/// The last event of a consumer's stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Last {
    /// Of the stream; [`Version::EMPTY`] if there is none.
    pub(crate) version: Version,
    pub(crate) standing: ConsumerRecord,
}

impl ConsumerRecord {
    /// At another place, for which the log vouches.
    pub(crate) fn at(self, store: &Store, position: Position) -> Result<ConsumerRecord, Error> {
        let chain = chain_at(store, position)?;
        Ok(ConsumerRecord { position, chain, ..self })
    }

    /// Of the next event: nothing that was said of the last one alone.
    pub(crate) fn next(&self) -> ConsumerRecord {
        ConsumerRecord {
            position: self.position,
            chain: self.chain,
            halt: self.halt.clone(),
            ..ConsumerRecord::default()
        }
    }
}

/// The stream of a consumer.
pub(crate) fn entity_of(name: &str) -> Result<String, Error> {
    check_name("name of the consumer", name, NAME_BYTES_MAX)?;
    Ok(format!("{PREFIX}{name}"))
}

/// Where a consumer stands.
pub(crate) fn last(store: &Store, entity: &str) -> Result<Last, Error> {
    match store.last(Query::entity(entity))? {
        None => Ok(Last::default()),
        Some(event) => Ok(Last { version: event.version(), standing: event.decode()? }),
    }
}

/// What a consumer asks for, if it ever ran.
pub(crate) fn query(store: &Store, entity: &str) -> Result<Option<Query>, Error> {
    match store.last(Query::entity(entity).kind(REGISTERED))? {
        None => Ok(None),
        Some(event) => Ok(event.decode::<ConsumerRecord>()?.query),
    }
}

/// That the log still is the one a standing was written about.
pub(crate) fn check(store: &Store, name: &str, standing: &ConsumerRecord) -> Result<(), Error> {
    let durable = store.durable_head()?.position();
    let is_other = match store.at(standing.position)? {
        Some(event) => standing.chain != 0 && prefix_of(&event.chain()) != standing.chain,
        None => false,
    };
    if standing.position <= durable && !is_other {
        return Ok(());
    }
    let what = if is_other { "other events stand there now" } else { "the log ends before it" };
    let text = format!(
        "consumer {name} has handled everything up to position {}, but {what}: history was set back (durable up to {durable}); \
         decide what it is to handle again, and reset or rewind it",
        standing.position
    );
    Err(Error::new(ErrorKind::RolledBack, text))
}

/// The chain's prefix at a position.
fn chain_at(store: &Store, position: Position) -> Result<u64, Error> {
    Ok(store.at(position)?.map_or(0, |event| prefix_of(&event.chain())))
}

/// The first 8 bytes of a chain hash.
pub(crate) fn prefix_of(chain: &[u8; 32]) -> u64 {
    crate::format::u64_at(chain, 0)
}

/// How many reactions stand behind an event: 0 for one that no reactor brought about.
pub(crate) fn depth_of(event: &RecordedEvent) -> u32 {
    let reacted = event.first_of_append().filter(|first| first.kind() == REACTED);
    reacted.and_then(|first| first.decode::<ConsumerRecord>().ok()).map_or(0, |standing| standing.depth)
}

/// Whether an event is the reaction of this consumer.
pub(crate) fn is_reaction_of(event: &RecordedEvent, entity: &str) -> bool {
    event.first_of_append().is_some_and(|first| first.kind() == REACTED && first.entity() == entity)
}

/// A reason short enough to be kept.
pub(crate) fn shortened(reason: &str) -> String {
    text::cut(reason, REASON_BYTES_MAX).to_owned()
}

/// An event of a consumer's stream, to be appended.
pub(crate) fn record<'a>(kind: &'a str, standing: &'a ConsumerRecord) -> Raw<'a, ConsumerRecord> {
    Raw(kind, standing)
}
