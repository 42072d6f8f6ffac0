//! A bank account as an aggregate: state, commands and decisions.
//!
//! What to learn: retries with a key, a transfer over two accounts in one append, and states of the past.

use annals::{
    Aggregate, Append, At, DomainEvent, Error, Meta, Outcome, Projection, Query, Refused, Store, Version,
};
use serde::{Deserialize, Serialize};

const ALICE: &str = "account:alice";
const BOB: &str = "account:bob";

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(prefix = "account")]
enum AccountEvent {
    Deposited { cents: u64 },
    Withdrawn { cents: u64 },
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Account {
    cents: u64,
}

impl Projection for Account {
    type Event = AccountEvent;
    const NAME: &'static str = "account";

    fn apply(&mut self, event: AccountEvent, _: &Meta<'_>) {
        match event {
            AccountEvent::Deposited { cents } => self.cents += cents,
            AccountEvent::Withdrawn { cents } => self.cents -= cents,
        }
    }
}

enum Command {
    Deposit(u64),
    Withdraw(u64),
}

#[derive(Debug, PartialEq)]
struct NotEnough {
    missing: u64,
}

impl Aggregate for Account {
    type Command = Command;
    type Error = NotEnough;

    fn decide(&self, command: &Command) -> Result<Vec<AccountEvent>, NotEnough> {
        match *command {
            Command::Deposit(cents) => Ok(vec![AccountEvent::Deposited { cents }]),
            Command::Withdraw(cents) if cents <= self.cents => Ok(vec![AccountEvent::Withdrawn { cents }]),
            Command::Withdraw(cents) => Err(NotEnough { missing: cents - self.cents }),
        }
    }
}

/// Moves money from Alice to Bob.
///
/// Only Alice's balance decides. A concurrent append to her account repeats the decision; one to Bob's does
/// not.
fn transfer(store: &Store, cents: u64, key: &str) -> Result<Outcome, Refused<NotEnough>> {
    let done = store.decide_once(key, &(ALICE, BOB, cents), Query::entity(ALICE), |alice: &Account| {
        let withdrawn = alice.decide(&Command::Withdraw(cents))?;
        let append = withdrawn.iter().fold(Append::to(ALICE), Append::event);
        Ok::<_, NotEnough>(append.and_to(BOB).event(&AccountEvent::Deposited { cents }))
    })?;
    Ok(done.outcome())
}

fn main() -> Result<(), Error> {
    let directory = std::env::temp_dir().join(format!("annals-bank-{}", std::process::id()));
    let store = Store::open(&directory)?;

    assert_eq!(store.execute::<Account>(ALICE, &Command::Deposit(500)).unwrap().cents, 500);
    let refused = store.execute::<Account>(ALICE, &Command::Withdraw(700)).unwrap_err();
    assert_eq!(refused.domain(), Some(&NotEnough { missing: 200 }));

    // A request that is sent twice has one effect.
    for outcome in [Outcome::Applied, Outcome::AlreadyApplied] {
        let with = |append: Append| append.key("req-17");
        let done = store.execute_with::<Account>(ALICE, &Command::Withdraw(100), with).unwrap();
        assert_eq!((done.outcome(), done.cents), (outcome, 400));
    }

    // Two accounts in one append: both, or neither.
    assert_eq!(transfer(&store, 150, "t-1").unwrap(), Outcome::Applied);
    assert_eq!(transfer(&store, 150, "t-1").unwrap(), Outcome::AlreadyApplied);
    assert!(transfer(&store, 5_000, "t-2").is_err());

    // The past: the balance after two events, and the event that first took it below 300.
    assert_eq!(store.load_at::<Account>(ALICE, At::Version(Version::from(2)))?.cents, 400);
    let fell = store.bisect::<Account>(ALICE, |account| account.cents < 300)?;
    assert_eq!(fell.expect("it did").version().get(), 3);

    let alice = store.load::<Account>(ALICE)?;
    let bob = store.load::<Account>(BOB)?;
    println!("alice has {} cents, bob {}", alice.cents, bob.cents);
    assert_eq!((alice.cents, bob.cents), (250, 150));
    store.close()?;
    std::fs::remove_dir_all(directory).unwrap();
    Ok(())
}
