//! A consumer's checkpoint, which says how far the consumer has handled its events, and the events behind it.
//!
//! Each change of the checkpoint is an event of the consumer's stream, and expects the version of the one
//! before. So of two processes that run one name only one can continue, and the runner notices a move by an
//! operator.
//!
//! Invariant: the checkpoint never lies beyond the durable head.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::engine::Append;
use crate::event::{Raw, RecordedEvent};
use crate::read::Subscription;
use crate::store::{NameLease, RunnerState, Store, WeakStore};
use crate::types::system::consumer as kinds;
use crate::types::{Durability, Error, ErrorKind, Expected, Position, Query, Version, options};

use super::record::{self, ConsumerRecord, HaltRecord, LastRecord};

/// The checkpoint is written after this many handled events ...
const UNWRITTEN_EVENTS_MAX: u32 = 1024;
/// ... or at the first event after this time.
const UNWRITTEN_FOR_MAX: Duration = Duration::from_secs(1);
/// If a power cut takes an acknowledgement, events only come again. So it needs no sync of its own.
const ACK: Durability = Durability::Buffered { flush_every: Duration::from_secs(1) };

/// The recorded author of a halt after a failed handler.
const AUTHOR: &str = "annals";

pub(crate) struct ConsumerCheckpoint {
    name: String,
    entity: String,
    lease: NameLease,
    /// The version of the consumer's stream, as far as this process has read or written it.
    version: Version,
    record: ConsumerRecord,
    /// Every matching event up to here was handled, whether that is written or not.
    handled: Position,
    /// How many events were handled since the checkpoint was written, and when the first of them was.
    unwritten: u32,
    unwritten_since: Instant,
}

/// What others have done to a checkpoint since its stream was read last.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CheckpointChange {
    Unchanged,
    /// An operator has halted, resumed or moved the consumer.
    Moved,
    /// Another process has handled events under this name.
    TakenOver,
}

impl ConsumerCheckpoint {
    /// Takes the name and reads its checkpoint. Registers a new name, and a new query.
    pub(crate) fn take(store: &Store, name: &str, query: &Query) -> Result<ConsumerCheckpoint, Error> {
        let entity = record::entity_of(name)?;
        let lease = store.running().claim(name).ok_or_else(|| taken(name))?;
        let LastRecord { version, record } = record::last(store, &entity)?;
        record::check_history(store, name, &record)?;
        let mut checkpoint = ConsumerCheckpoint {
            name: name.to_owned(),
            entity,
            lease,
            version,
            handled: record.position,
            record,
            unwritten: 0,
            unwritten_since: Instant::now(),
        };
        if record::query(store, &checkpoint.entity)?.as_ref() != Some(query) {
            let next = ConsumerRecord { query: Some(query.clone()), ..checkpoint.record.next() };
            checkpoint.append(store, kinds::REGISTERED, next, Durability::Synced)?;
        }
        checkpoint.begin(store)?;
        Ok(checkpoint)
    }

    /// Moves a consumer to the durable head, if it has handled nothing and was never moved.
    pub(crate) fn only_new(&mut self, store: &Store) -> Result<(), Error> {
        if self.version != Version::from(1) {
            return Ok(());
        }
        let reason = Some("it begins with what is new".to_owned());
        let next = ConsumerRecord { reason, by: Some(AUTHOR.to_owned()), ..self.record.next() };
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

    pub(crate) fn live(&self) -> &Arc<RunnerState> {
        self.lease.live()
    }

    /// Every matching event up to here was handled.
    pub(crate) fn handled(&self) -> Position {
        self.handled
    }

    pub(crate) fn halt(&self) -> Option<&HaltRecord> {
        self.record.halt.as_ref()
    }

    /// Refuses with [`ErrorKind::Halted`] if the consumer is halted.
    pub(crate) fn check_running(&self) -> Result<(), Error> {
        self.halt().map_or(Ok(()), |halt| Err(halted(&self.name, halt)))
    }

    /// Advances to a handled event. The checkpoint is due to be written some time after.
    pub(crate) fn advance(&mut self, store: &Store, position: Position) -> Result<(), Error> {
        if position <= self.handled {
            return Ok(());
        }
        if self.unwritten == 0 {
            self.unwritten_since = Instant::now();
        }
        self.unwritten = self.unwritten.saturating_add(1);
        self.pass(store, position)
    }

    /// Advances in memory past events that do not match. This is not written: a restart finds it out again.
    pub(crate) fn pass(&mut self, store: &Store, position: Position) -> Result<(), Error> {
        if position > self.handled {
            self.handled = position;
            self.live().set_handled(position, store.durable_head()?.position());
        }
        Ok(())
    }

    /// Writes the checkpoint if enough events were handled, or enough time has passed, since the last time.
    pub(crate) fn write_if_due(&mut self, store: &Store) -> Result<(), Error> {
        let is_due = self.unwritten >= UNWRITTEN_EVENTS_MAX
            || (self.unwritten > 0 && self.unwritten_since.elapsed() >= UNWRITTEN_FOR_MAX);
        if is_due { self.write(store) } else { Ok(()) }
    }

    /// Writes the checkpoint if events were handled since the last time.
    pub(crate) fn write(&mut self, store: &Store) -> Result<(), Error> {
        if self.unwritten == 0 {
            return Ok(());
        }
        let next = self.record.next().at(store, self.handled)?;
        self.append(store, kinds::ACKED, next, ACK)?;
        self.unwritten = 0;
        Ok(())
    }

    /// The first part of a reaction: the checkpoint behind `event`. The outputs follow in the same append.
    /// `appends_ahead` reactions were submitted before, and are not known to be in the store.
    pub(crate) fn reaction_to(&self, event: &RecordedEvent, depth: u32, appends_ahead: u64) -> Append {
        let next = ConsumerRecord {
            position: event.position(),
            chain: record::prefix_of(&event.chain()),
            depth,
            ..ConsumerRecord::default()
        };
        let expected = Expected::Exact(self.version.plus(appends_ahead));
        Append::led_by(&self.entity, expected, &Raw(kinds::REACTED, &next))
    }

    /// The reaction to `event` is in the store.
    pub(crate) fn reacted(&mut self, store: &Store, event: &RecordedEvent) -> Result<(), Error> {
        let position = event.position();
        let chain = record::prefix_of(&event.chain());
        self.record = ConsumerRecord { position, chain, ..ConsumerRecord::default() };
        self.version = self.version.plus(1);
        self.unwritten = 0;
        self.pass(store, position)
    }

    /// Halts the consumer at an event, durably.
    pub(crate) fn halt_at(
        &mut self,
        store: &Store,
        at: Position,
        reason: &str,
        panicked: bool,
    ) -> Result<(), Error> {
        self.write(store)?;
        let halt = HaltRecord { at: Some(at), panicked, ..halt_now(store, reason, AUTHOR) };
        let next = ConsumerRecord { halt: Some(halt), ..self.record.next() };
        self.append(store, kinds::HALTED, next, Durability::Synced)?;
        self.live().set_handled(self.handled, store.durable_head()?.position());
        Ok(())
    }

    /// Whether an append was refused because this checkpoint was moved.
    pub(crate) fn is_moved(&self, error: &Error) -> bool {
        error.conflict().is_some_and(|conflict| conflict.entity == self.entity)
    }

    /// Reads what others have added to the stream, and follows it.
    pub(crate) fn read_again(&mut self, store: &Store) -> Result<CheckpointChange, Error> {
        let mut change = CheckpointChange::Unchanged;
        for event in store.stream(&self.entity).versions(self.version.get() + 1..) {
            let event = event?;
            let record: ConsumerRecord = event.decode()?;
            match event.kind() {
                kinds::ACKED | kinds::REACTED => return Ok(CheckpointChange::TakenOver),
                kinds::SKIPPED => self.handled = self.handled.max(record.position),
                kind if record::is_move(kind) => {
                    self.handled = record.position;
                    self.unwritten = 0;
                }
                _ => {}
            }
            self.version = event.version();
            self.record = record;
            change = CheckpointChange::Moved;
        }
        self.begin(store)?;
        Ok(change)
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
        let append = Append::of_system(&self.entity, expected, &Raw(kind, &next));
        self.version = append.durability(durability).commit(store)?.version();
        self.record = next;
        Ok(())
    }
}

/// The durable events behind a checkpoint. New events, and the end of the store, notify the runner.
pub(crate) struct PendingEvents {
    store: WeakStore,
    query: Query,
    subscription: Subscription,
    /// Notifies the runner.
    waker: Waker,
}

impl PendingEvents {
    pub(crate) fn new(store: &Store, query: Query, checkpoint: &ConsumerCheckpoint) -> PendingEvents {
        let subscription = subscribe(store, query.clone(), checkpoint.handled());
        let waker = Waker::from(checkpoint.live().clone());
        PendingEvents { store: store.downgrade(), query, subscription, waker }
    }

    /// The next event. With `None` there is none now, and the runner is notified once there is one.
    ///
    /// After the last event of a store that has ended: `Closed` or `Poisoned`.
    pub(crate) fn next(&mut self) -> Result<Option<RecordedEvent>, Error> {
        match self.subscription.poll_next(&mut Context::from_waker(&self.waker)) {
            Poll::Pending => Ok(None),
            Poll::Ready(Some(Ok(event))) => Ok(Some(event)),
            Poll::Ready(Some(Err(error))) => {
                // A subscription ends with an error; the next call is to try again.
                self.go_to(self.position());
                Err(error)
            }
            Poll::Ready(None) => Err(Error::closed()),
        }
    }

    /// Every matching event up to here was returned.
    pub(crate) fn position(&self) -> Position {
        self.subscription.position()
    }

    /// Continues with the first event behind a position.
    pub(crate) fn go_to(&mut self, position: Position) {
        // Without a store there are no further events.
        if let Some(store) = self.store.upgrade() {
            self.subscription = subscribe(&store, self.query.clone(), position);
        }
    }
}

fn subscribe(store: &Store, query: Query, after: Position) -> Subscription {
    store.subscribe(query).durable().after(after).allow_beyond_head()
}

/// The record of a halt, at the time that the store's clock shows.
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

/// The error for a caller that runs, or waits for, a halted consumer.
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
