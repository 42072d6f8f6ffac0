//! The first program: what happened to an account, and how it stands.
//!
//! Run it twice: the second run goes on with the account of the first.

use annals::{DomainEvent, Projection, Store};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(prefix = "account")]
enum AccountEvent {
    Opened { owner: String }, // stored as account.opened
    Deposited { cents: u64 }, // account.deposited
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Account {
    owner: String,
    cents: u64,
}

impl Projection for Account {
    type Event = AccountEvent;
    const NAME: &'static str = "account";

    fn apply(&mut self, event: AccountEvent, _: &annals::Meta<'_>) {
        match event {
            AccountEvent::Opened { owner } => self.owner = owner,
            AccountEvent::Deposited { cents } => self.cents += cents,
        }
    }
}

fn main() -> Result<(), annals::Error> {
    let store = Store::open(std::env::temp_dir().join("annals-quickstart"))?;
    if store.version("account:alice")?.get() == 0 {
        store.append("account:alice", &AccountEvent::Opened { owner: "Alice".to_owned() })?;
    }
    store.append("account:alice", &AccountEvent::Deposited { cents: 500 })?;

    let alice = store.load::<Account>("account:alice")?;
    println!("{} has {} cents, after {} events", alice.owner, alice.cents, alice.version());
    Ok(())
}
