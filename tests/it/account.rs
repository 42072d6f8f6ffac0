//! An account to decide about, whose commands can do mischief in the middle of a decision.

use std::sync::Arc;

use annals::{Aggregate, DomainEvent, Meta, Projection};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, DomainEvent)]
#[event(prefix = "account")]
pub enum AccountEvent {
    /// `id` is that of the command it comes from, where that matters.
    Deposited {
        cents: u64,
        id: u64,
    },
    Withdrawn {
        cents: u64,
        id: u64,
    },
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
            AccountEvent::Deposited { cents, .. } => self.cents += cents,
            AccountEvent::Withdrawn { cents, .. } => self.cents -= cents,
        }
    }
}

/// What an account is asked to do.
#[derive(Clone)]
pub struct Do {
    pub what: What,
    pub id: u64,
    /// Done in the middle of the decision.
    pub during: Arc<dyn Fn() + Send + Sync>,
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
        Do { what, id: 0, during: Arc::new(|| {}) }
    }

    pub fn during(self, during: impl Fn() + Send + Sync + 'static) -> Do {
        Do { during: Arc::new(during), ..self }
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
        (command.during)();
        let id = command.id;
        let deposited = |cents| AccountEvent::Deposited { cents, id };
        match command.what {
            What::Deposit(cents) => Ok(vec![deposited(cents)]),
            What::Withdraw(cents) if cents > self.cents => Err(NotEnough { missing: cents - self.cents }),
            What::Withdraw(cents) => Ok(vec![AccountEvent::Withdrawn { cents, id }]),
            What::Double => Ok(vec![deposited(self.cents), deposited(1)]),
            What::Nothing => Ok(Vec::new()),
        }
    }
}
