//! What an operator does to a consumer: halt, resume, skip, rewind, reset. Each records its author, and most
//! a reason.

use crate::engine::Append;
use crate::event::Raw;
use crate::store::Store;
use crate::types::system::consumer as kinds;
use crate::types::{Durability, Error, ErrorKind, Expected, Position, Version, check_visible};

use super::checkpoint::halt_now;
use super::record::{self, ConsumerRecord, LastRecord};

/// Halts, resumes or moves a consumer, whether it runs or not: see [`Store::consumer_control`].
///
/// Each call appends an event to the consumer's stream (`$consumer/<name>`), which is durable when the call
/// returns. A consumer or reactor that runs in this process follows at once and is not stopped: it finishes
/// its current event. The outputs of that event are not appended if they come after the call.
///
/// ```
/// use annals::{ConsumerState, Query, Raw, Store};
///
/// let store = Store::in_memory()?;
/// let mut mail = store.consumer("mail", Query::all())?;
/// let order = store.append("order:1", &Raw("order.placed", &()))?;
///
/// let control = store.consumer_control("mail").by("alice");
/// control.halt("the mail server is being moved")?;
/// assert!(mail.try_next().is_err());
/// let ConsumerState::Halted(halt) = &store.consumers()?[0].state else { panic!() };
/// assert_eq!((halt.by.as_str(), halt.reason.as_str()), ("alice", "the mail server is being moved"));
///
/// control.resume()?;
/// assert_eq!(mail.try_next()?.unwrap().position(), order.position());
/// # Ok::<(), annals::Error>(())
/// ```
#[must_use = "nothing is done until one of its methods is called"]
#[derive(Clone, Debug)]
pub struct ConsumerControl {
    store: Store,
    name: String,
    by: String,
}

/// A runner is held back during a call, so only other operators can make a try fail.
const TRIES: u32 = 1000;

impl Store {
    /// Controls the consumer or reactor of this name. The handle keeps the store open.
    pub fn consumer_control(&self, name: &str) -> ConsumerControl {
        ConsumerControl { store: self.clone(), name: name.to_owned(), by: "the application".to_owned() }
    }
}

impl ConsumerControl {
    /// The name of the operator, which is recorded (default: `the application`).
    pub fn by(mut self, who: &str) -> ConsumerControl {
        self.by = record::shortened(who);
        self
    }

    /// Halts the consumer until it is resumed, also across restarts. The name need not have run before, so a
    /// consumer outside annals can be halted, too.
    ///
    /// # Errors
    ///
    /// Those of [`Append::commit`](crate::Append::commit); [`ErrorKind::Invalid`](crate::ErrorKind::Invalid)
    /// if the name is not a valid name.
    pub fn halt(&self, reason: &str) -> Result<(), Error> {
        self.record(kinds::HALTED, |last| {
            let halt = halt_now(&self.store, reason, &self.by);
            Ok(ConsumerRecord { halt: Some(halt), ..last.record.next() })
        })
    }

    /// Resumes the consumer: it tries the event again at which it was halted.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if it is not halted; those of
    /// [`Append::commit`](crate::Append::commit).
    pub fn resume(&self) -> Result<(), Error> {
        self.record(kinds::RESUMED, |last| {
            if last.record.halt.is_none() {
                return Err(Error::invalid(format!("consumer {} is not halted", self.name)));
            }
            Ok(ConsumerRecord { by: Some(self.by.clone()), halt: None, ..last.record.next() })
        })
    }

    /// Skips all events up to this position, this one included, and resumes the consumer if it was halted.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the events up to there are handled already or not
    /// all durable yet, or if there is no such consumer; those of [`Append::commit`](crate::Append::commit).
    pub fn skip(&self, position: Position, reason: &str) -> Result<(), Error> {
        self.move_to(kinds::SKIPPED, position, reason, |from| {
            let durable = self.store.durable_head()?.position();
            if position <= from {
                Err(format!("has handled everything up to position {from}; to go back, rewind it"))
            } else if position > durable {
                Err(format!("cannot pass over what is not there: the store is durable up to {durable}"))
            } else {
                Ok(())
            }
            .map_err(|why| self.refuse(&why))
        })
    }

    /// Goes back: all events after this position are handled again, and a halted consumer is resumed. Outputs
    /// of a reactor stay in the store, so it **reacts once more** to each event.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Invalid`](crate::ErrorKind::Invalid): it is not that far, or there is no such consumer.
    /// - [`ErrorKind::RolledBack`](crate::ErrorKind::RolledBack): the durable log ends before the position.
    /// - The errors of [`Append::commit`](crate::Append::commit).
    pub fn rewind(&self, position: Position, reason: &str) -> Result<(), Error> {
        self.move_to(kinds::REWOUND, position, reason, |from| {
            let durable = self.store.durable_head()?.position();
            if position > from {
                Err(self.refuse(&format!("is at position {from} only; to pass over events, skip them")))
            } else if position > durable {
                let text = format!(
                    "consumer {} cannot go back to position {position}: history was set back, and the store is durable up \
                     to {durable}; rewind it to there or before, or reset it",
                    self.name
                );
                Err(Error::new(ErrorKind::RolledBack, text))
            } else {
                Ok(())
            }
        })
    }

    /// Goes back to the beginning: like [`ConsumerControl::rewind`] to [`Position::START`].
    ///
    /// # Errors
    ///
    /// Those of [`ConsumerControl::rewind`].
    pub fn reset(&self, reason: &str) -> Result<(), Error> {
        self.move_to(kinds::RESET, Position::START, reason, |_| Ok(()))
    }

    fn refuse(&self, why: &str) -> Error {
        Error::invalid(format!("consumer {} {why}", self.name))
    }

    fn move_to(
        &self,
        kind: &str,
        to: Position,
        reason: &str,
        check: impl Fn(Position) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.record(kind, |last| {
            check(last.record.position)?;
            let reason = Some(record::shortened(reason));
            let next = ConsumerRecord { by: Some(self.by.clone()), reason, ..ConsumerRecord::default() };
            next.at(&self.store, to)
        })
    }

    /// Appends one event to the consumer's stream; `next` makes it from the last one.
    fn record(
        &self,
        kind: &str,
        next: impl Fn(&LastRecord) -> Result<ConsumerRecord, Error>,
    ) -> Result<(), Error> {
        let entity = record::entity_of(&self.name)?;
        check_visible("name of the one who moves the consumer", &self.by)?;
        // A runner that is not held back would win every time: it appends again while the last record is read
        // here.
        let runner = self.store.running().find(&self.name).map(|live| live.mover());
        let mut tries = 0;
        loop {
            let last = record::last(&self.store, &entity)?;
            if last.version == Version::EMPTY && kind != kinds::HALTED {
                return Err(Error::invalid(format!("there is no consumer {}", self.name)));
            }
            let record = next(&last)?;
            let expected = Expected::Exact(last.version);
            let append = Append::of_system(&entity, expected, &Raw(kind, &record));
            tries += 1;
            match append.durability(Durability::Synced).commit(&self.store) {
                Err(error) if error.conflict().is_some() && tries < TRIES => {}
                done => {
                    if done.is_ok() && record::is_move(kind) {
                        runner.iter().for_each(|runner| runner.moved());
                    }
                    return done.map(drop);
                }
            }
        }
    }
}
