//! A consumer's checkpoint: how far it has handled what it asks for, and the right to move that.
//!
//! Each move is an event of the consumer's stream, appended at the version the last one left. So of two who run
//! under one name only one can go on, and whoever moves it from outside is noticed.
//! Invariant: it never lies beyond what is durable.
//! Row: app.

use std::time::{Duration, Instant};

use crate::engine::Append;
use crate::event::RecordedEvent;
use crate::store::{NameLease, RunnerState, Store};
use crate::types::system::consumer as kinds;
use crate::types::{Durability, Error, ErrorKind, Expected, Position, Query, Version, options};

use super::record::{self, ConsumerRecord, HaltRecord, Last};

/// After so many events a checkpoint is written at the latest ...
const UNWRITTEN_EVENTS_MAX: u32 = 1024;
/// ... and after so long, provided that events come.
const UNWRITTEN_FOR_MAX: Duration = Duration::from_secs(1);
/// Lost in a power cut, it only has events come again; so it waits for somebody else's sync, up to here.
const ACK: Durability = Durability::Buffered { flush_every: Duration::from_secs(1) };

/// Whoever halts a consumer whose handler fails.
const AUTHOR: &str = "annals";

pub(crate) struct ConsumerCheckpoint {
    name: String,
    entity: String,
    claim: NameLease,
    /// The last event of the stream that is known here.
    version: Version,
    standing: ConsumerRecord,
    /// Everything that matches up to here was handled; written down or not.
    handled: Position,
    /// How many events were handled since it was written last, and since when.
    unwritten: u32,
    since: Instant,
}

/// What was found when the stream was looked at again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing new.
    Same,
    /// Somebody moved it on purpose.
    Moved,
    /// Somebody else runs under this name.
    Other,
}

impl ConsumerCheckpoint {
    /// Takes the name, and finds out where it stands; a new name is registered.
    pub(crate) fn take(store: &Store, name: &str, query: &Query) -> Result<ConsumerCheckpoint, Error> {
        let entity = record::entity_of(name)?;
        let claim = store.running().claim(name).ok_or_else(|| taken(name))?;
        let Last { version, standing } = record::last(store, &entity)?;
        record::check(store, name, &standing)?;
        let mut checkpoint = ConsumerCheckpoint {
            name: name.to_owned(),
            entity,
            claim,
            version,
            handled: standing.position,
            standing,
            unwritten: 0,
            since: Instant::now(),
        };
        if record::query(store, &checkpoint.entity)?.as_ref() != Some(query) {
            let next = ConsumerRecord { query: Some(query.clone()), ..checkpoint.standing.next() };
            checkpoint.append(store, kinds::REGISTERED, next, Durability::Synced)?;
        }
        checkpoint.begin(store)?;
        Ok(checkpoint)
    }

    /// A consumer that has handled nothing yet, and was never moved, begins behind what is there now.
    pub(crate) fn only_new(&mut self, store: &Store) -> Result<(), Error> {
        if self.version != Version::from(1) {
            return Ok(());
        }
        let reason = Some("it begins with what is new".to_owned());
        let next = ConsumerRecord { reason, by: Some(AUTHOR.to_owned()), ..self.standing.next() };
        let next = next.at(store, store.durable_head()?.position())?;
        self.handled = next.position;
        self.append(store, kinds::SKIPPED, next, Durability::Synced)?;
        self.begin(store)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn entity(&self) -> &str {
        &self.entity
    }

    pub(crate) fn live(&self) -> &std::sync::Arc<RunnerState> {
        self.claim.live()
    }

    /// Everything that matches up to here was handled.
    pub(crate) fn handled(&self) -> Position {
        self.handled
    }

    pub(crate) fn halt(&self) -> Option<&HaltRecord> {
        self.standing.halt.as_ref()
    }

    /// That it is not halted.
    pub(crate) fn check_running(&self) -> Result<(), Error> {
        self.halt().map_or(Ok(()), |halt| Err(halted(&self.name, halt)))
    }

    /// Everything that matches up to here was handled; to be written down some time.
    pub(crate) fn note(&mut self, store: &Store, position: Position) -> Result<(), Error> {
        if position <= self.handled {
            return Ok(());
        }
        if self.unwritten == 0 {
            self.since = Instant::now();
        }
        self.unwritten = self.unwritten.saturating_add(1);
        self.pass(store, position)
    }

    /// Nothing more matches up to here. Not worth writing down: whoever begins again finds that out again.
    pub(crate) fn pass(&mut self, store: &Store, position: Position) -> Result<(), Error> {
        if position > self.handled {
            self.handled = position;
            self.live().set_handled(position, store.durable_head()?.position());
        }
        Ok(())
    }

    /// Writes down how far it is, if there is enough to write down.
    pub(crate) fn write_if_due(&mut self, store: &Store) -> Result<(), Error> {
        let is_due = self.unwritten >= UNWRITTEN_EVENTS_MAX
            || (self.unwritten > 0 && self.since.elapsed() >= UNWRITTEN_FOR_MAX);
        if is_due { self.write(store) } else { Ok(()) }
    }

    /// Writes down how far it is, if that is not known yet.
    pub(crate) fn write(&mut self, store: &Store) -> Result<(), Error> {
        if self.unwritten == 0 {
            return Ok(());
        }
        let next = self.standing.next().at(store, self.handled)?;
        self.append(store, kinds::ACKED, next, ACK)?;
        self.unwritten = 0;
        Ok(())
    }

    /// The beginning of an append that handles an event: what it brought about is to follow in the same append.
    /// `ahead` such appends were submitted and are not known to be through.
    pub(crate) fn reaction_to(&self, event: &RecordedEvent, depth: u32, ahead: u64) -> Append {
        let next = ConsumerRecord {
            position: event.position(),
            chain: record::prefix_of(&event.chain()),
            depth,
            ..ConsumerRecord::default()
        };
        let expected = Expected::Exact(self.version.plus(ahead));
        Append::led_by(&self.entity, expected, &record::record(kinds::REACTED, &next))
    }

    /// Such an append went in.
    pub(crate) fn reacted(&mut self, store: &Store, event: &RecordedEvent) -> Result<(), Error> {
        let (position, chain) = (event.position(), record::prefix_of(&event.chain()));
        self.standing = ConsumerRecord { position, chain, ..ConsumerRecord::default() };
        self.version = self.version.plus(1);
        self.unwritten = 0;
        self.pass(store, position)
    }

    /// Halts at an event, durably.
    pub(crate) fn halt_at(
        &mut self,
        store: &Store,
        at: Position,
        reason: &str,
        panicked: bool,
    ) -> Result<(), Error> {
        self.write(store)?;
        let halt = HaltRecord { at: Some(at), panicked, ..halt_now(store, reason, AUTHOR) };
        let next = ConsumerRecord { halt: Some(halt), ..self.standing.next() };
        self.append(store, kinds::HALTED, next, Durability::Synced)?;
        self.live().set_handled(self.handled, store.durable_head()?.position());
        Ok(())
    }

    /// Whether an error says that somebody moved this checkpoint.
    pub(crate) fn is_moved(&self, error: &Error) -> bool {
        error.conflict().is_some_and(|conflict| conflict.entity == self.entity)
    }

    /// Looks what was added to the stream meanwhile, and goes along.
    pub(crate) fn look_again(&mut self, store: &Store) -> Result<Found, Error> {
        let mut found = Found::Same;
        for event in store.stream(&self.entity).versions(self.version.get() + 1..) {
            let event = event?;
            let standing: ConsumerRecord = event.decode()?;
            match event.kind() {
                kinds::ACKED | kinds::REACTED => return Ok(Found::Other),
                kinds::SKIPPED => self.handled = self.handled.max(standing.position),
                kind if record::moves(kind) => (self.handled, self.unwritten) = (standing.position, 0),
                _ => {}
            }
            (self.version, self.standing, found) = (event.version(), standing, Found::Moved);
        }
        self.begin(store)?;
        Ok(found)
    }

    fn begin(&self, store: &Store) -> Result<(), Error> {
        self.live().begin(self.handled, store.durable_head()?.position());
        Ok(())
    }

    fn append(
        &mut self,
        store: &Store,
        kind: &str,
        next: ConsumerRecord,
        durability: Durability,
    ) -> Result<(), Error> {
        let expected = Expected::Exact(self.version);
        let append = Append::of_system(&self.entity, expected, &record::record(kind, &next));
        self.version = append.durability(durability).commit(store)?.version();
        self.standing = next;
        Ok(())
    }
}

/// A halt of this moment.
pub(super) fn halt_now(store: &Store, reason: &str, by: &str) -> HaltRecord {
    let now = options::read(&store.engine().options.clock);
    HaltRecord {
        at: None,
        panicked: false,
        reason: record::shortened(reason),
        since: i64::try_from(now).unwrap_or(i64::MAX),
        by: by.to_owned(),
    }
}

/// What whoever runs or waits for a halted consumer is told.
pub(super) fn halted(name: &str, halt: &HaltRecord) -> Error {
    let at = halt.at.map_or(String::new(), |at| format!(" at position {at}"));
    let text = format!(
        "consumer {name} was halted{at} by {}: {}; resume it, or skip what it cannot handle",
        halt.by, halt.reason
    );
    Error::new(ErrorKind::Halted, text)
}

fn taken(name: &str) -> Error {
    let text =
        format!("consumer {name} is run by another handle of this process; stop or drop that one first");
    Error::new(ErrorKind::Locked, text)
}
