//! The first program: append two events to an account, then read its balance from them.
//!
//! Run it twice: the second run continues the account of the first.

use annals::{DomainEvent, Store};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(prefix = "account")]
enum AccountEvent {
    Deposited { cents: u64 }, // stored as account.deposited
    Withdrawn { cents: u64 }, // stored as account.withdrawn
}

fn main() -> Result<(), annals::Error> {
    let store = Store::open(std::env::temp_dir().join("annals-quickstart"))?;
    store.append("account:alice", &AccountEvent::Deposited { cents: 500 })?;
    store.append("account:alice", &AccountEvent::Withdrawn { cents: 200 })?;

    let mut balance = 0;
    for event in store.stream("account:alice") {
        match event?.to::<AccountEvent>()? {
            AccountEvent::Deposited { cents } => balance += cents,
            AccountEvent::Withdrawn { cents } => balance -= cents,
        }
    }
    println!("Alice has {balance} cents after {} events", store.version("account:alice")?);
    Ok(())
}
