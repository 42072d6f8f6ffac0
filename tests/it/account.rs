//! An account to decide about, whose commands can do mischief in the middle of a decision.

use std::sync::Arc;

use annals::{Aggregate, DomainEvent, Error, EventData, Meta, Projection, Raw, RecordedEvent};
use serde::{Deserialize, Serialize};

pub enum AccountEvent {
    Deposited(Moved),
    Withdrawn(Moved),
}

#[derive(Serialize, Deserialize)]
pub struct Moved {
    pub cents: u64,
    /// Of the command it comes from, where that matters.
    pub id: u64,
}

const DEPOSITED: &str = "account.deposited";
const WITHDRAWN: &str = "account.withdrawn";

impl EventData for AccountEvent {
    fn kind(&self) -> &str {
        match self {
            AccountEvent::Deposited(_) => DEPOSITED,
            AccountEvent::Withdrawn(_) => WITHDRAWN,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        let (AccountEvent::Deposited(moved) | AccountEvent::Withdrawn(moved)) = self;
        Raw(self.kind(), moved).encode(out)
    }
}

impl DomainEvent for AccountEvent {
    fn knows(kind: &str) -> bool {
        kind == DEPOSITED || kind == WITHDRAWN
    }

    fn from_recorded(event: &RecordedEvent) -> Result<AccountEvent, Error> {
        let moved = event.decode()?;
        Ok(if event.kind() == DEPOSITED {
            AccountEvent::Deposited(moved)
        } else {
            AccountEvent::Withdrawn(moved)
        })
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    pub cents: u64,
    pub events: u64,
}

impl Projection for Account {
    type Event = AccountEvent;
    const NAME: &'static str = "account";

    fn apply(&mut self, event: AccountEvent, _: &Meta<'_>) {
        self.events += 1;
        match event {
            AccountEvent::Deposited(moved) => self.cents += moved.cents,
            AccountEvent::Withdrawn(moved) => self.cents -= moved.cents,
        }
    }
}

/// What an account is asked to do.
#[derive(Clone)]
pub struct Do {
    pub what: What,
    pub id: u64,
    /// Done in the middle of the decision.
    pub meanwhile: Arc<dyn Fn() + Send + Sync>,
}

#[derive(Clone, Copy)]
pub enum What {
    Deposit(u64),
    Withdraw(u64),
    /// As much again as there is, and one cent.
    Double,
    Nothing,
}

impl Do {
    pub fn new(what: What) -> Do {
        Do { what, id: 0, meanwhile: Arc::new(|| {}) }
    }

    pub fn meanwhile(self, meanwhile: impl Fn() + Send + Sync + 'static) -> Do {
        Do { meanwhile: Arc::new(meanwhile), ..self }
    }
}

#[derive(Debug, PartialEq)]
pub struct NotEnough {
    pub missing: u64,
}

impl Aggregate for Account {
    type Command = Do;
    type Error = NotEnough;

    fn decide(&self, command: &Do) -> Result<Vec<AccountEvent>, NotEnough> {
        (command.meanwhile)();
        let moved = |cents| Moved { cents, id: command.id };
        match command.what {
            What::Deposit(cents) => Ok(vec![AccountEvent::Deposited(moved(cents))]),
            What::Withdraw(cents) if cents > self.cents => Err(NotEnough { missing: cents - self.cents }),
            What::Withdraw(cents) => Ok(vec![AccountEvent::Withdrawn(moved(cents))]),
            What::Double => {
                Ok(vec![AccountEvent::Deposited(moved(self.cents)), AccountEvent::Deposited(moved(1))])
            }
            What::Nothing => Ok(Vec::new()),
        }
    }
}
