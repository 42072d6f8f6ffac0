//! A tour in one program: append, decide, hold a rule across streams, react, wait, load the past, set a
//! timer, follow.

use std::time::Duration;

use annals::{
    Aggregate, Append, AppendCondition, At, DomainEvent, Error, Meta, Projection, Query, Raw, Reaction,
    RecordedEvent, Store, Timer,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, DomainEvent)]
#[event(prefix = "account")]
enum AccountEvent {
    Opened { owner: String },
    Deposited { cents: u64 },
    Withdrawn { cents: u64 },
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Account {
    cents: u64,
}

impl Projection for Account {
    type Event = AccountEvent;
    const NAME: &'static str = "account";

    fn apply(&mut self, event: AccountEvent, _: &Meta<'_>) {
        match event {
            AccountEvent::Opened { .. } => {}
            AccountEvent::Deposited { cents } => self.cents += cents,
            AccountEvent::Withdrawn { cents } => self.cents -= cents,
        }
    }
}

struct Withdraw {
    cents: u64,
}

impl Aggregate for Account {
    type Command = Withdraw;
    type Error = &'static str;

    fn decide(&self, command: &Withdraw) -> Result<Vec<AccountEvent>, &'static str> {
        if self.cents < command.cents {
            return Err("insufficient funds");
        }
        Ok(vec![AccountEvent::Withdrawn { cents: command.cents }])
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::in_memory()?;
    store.append("account:alice", &AccountEvent::Opened { owner: "Alice".to_owned() })?;
    store.append("account:alice", &AccountEvent::Deposited { cents: 500 })?;

    let executed = store.execute::<Account>("account:alice", &Withdraw { cents: 200 })?;
    assert_eq!(executed.cents, 300);
    assert!(store.execute::<Account>("account:alice", &Withdraw { cents: 900 }).is_err());

    let taken = Query::all().kind("email.claimed").tag("email:a@example.com");
    Append::to("user:7")
        .event(&Raw("email.claimed", &"a@example.com"))
        .tag("email:a@example.com")
        .condition(AppendCondition::none(taken)) // refused if the address is taken
        .key("request-17") // a retry writes nothing twice
        .commit(&store)?;

    let withdrawn = Query::all().kind("account.withdrawn");
    let letters =
        store.react("letters", withdrawn, |event: &RecordedEvent, reaction: &mut Reaction<'_>| {
            let letter = format!("letter:{}", event.position());
            reaction.append(letter, &Raw("letter.requested", &event.entity()));
            Ok(()) // the letter and "handled" are one append: exactly once
        })?;
    let head = store.head()?.position();
    assert!(store.wait_for("letters", head, Duration::from_secs(10))?);
    letters.stop();

    let before = store.load_at::<Account>("account:alice", At::Version(2.into()))?;
    assert_eq!(before.cents, 500);

    let reminder = Append::to("account:alice").event(&Raw("reminder.sent", &()));
    let reminder = Timer::after(Duration::from_secs(0), reminder).unless(Query::all().kind("account.closed"));
    store.set_timer("dormant:alice", reminder)?;
    assert_eq!(store.fire_timers()?, 1);

    let deposits = store.subscribe(Query::all().kind("account.deposited"));
    let follower = std::thread::spawn(move || {
        // First the events of the past, then new ones, until the store is closed.
        deposits.map(|event| event?.to::<AccountEvent>()).collect::<Result<Vec<_>, Error>>()
    });
    store.close()?;
    assert_eq!(follower.join().expect("it does not panic")?.len(), 1);
    Ok(())
}
