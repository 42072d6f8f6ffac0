//! `annals::test`: what it says when a user's promise does not hold.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use annals::test::{Crash, Given, GivenReactor};
use annals::{Aggregate, Append, DomainEvent, Meta, Projection, Query, Raw, Reaction, RecordedEvent, Store};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize, DomainEvent)]
#[event(prefix = "account")]
enum AccountEvent {
    Deposited { cents: u64 },
    Withdrawn { cents: u64 },
}

use AccountEvent::{Deposited, Withdrawn};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Account {
    cents: u64,
}

impl Projection for Account {
    type Event = AccountEvent;
    const NAME: &'static str = "account";

    fn apply(&mut self, event: AccountEvent, _: &Meta<'_>) {
        match event {
            Deposited { cents } => self.cents += cents,
            Withdrawn { cents } => self.cents -= cents,
        }
    }
}

#[derive(Debug, PartialEq)]
struct TooLittle {
    cents: u64,
}

impl Aggregate for Account {
    type Command = u64;
    type Error = TooLittle;

    fn decide(&self, cents: &u64) -> Result<Vec<AccountEvent>, TooLittle> {
        match (*cents, self.cents) {
            (0, _) => Ok(Vec::new()),
            (wanted, there) if wanted > there => Err(TooLittle { cents: there }),
            (cents, _) => Ok(vec![Withdrawn { cents }]),
        }
    }
}

fn rich() -> Given<Account> {
    Given::events(&[Deposited { cents: 500 }, Deposited { cents: 200 }])
}

/// What a failed assertion says; empty if it holds.
fn said<T>(asserts: impl FnOnce() -> T) -> String {
    match catch_unwind(AssertUnwindSafe(asserts)) {
        Ok(_) => String::new(),
        Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_default(),
    }
}

#[test]
fn what_holds_is_silent() {
    rich().then_state(&Account { cents: 700 });
    rich().when(&200).then_events(&[Withdrawn { cents: 200 }]).then_state(&Account { cents: 500 });
    rich().when(&0).then_nothing().then_state(&Account { cents: 700 });
    Given::<Account>::nothing().when(&1).then_error(&TooLittle { cents: 0 });
    assert_eq!(rich().when(&800).outcome().unwrap_err(), TooLittle { cents: 700 });
    assert_eq!((rich().state().version().get(), rich().state().cents), (2, 700));
}

#[test]
fn what_does_not_hold_is_shown_line_by_line() {
    let cases: [(String, &[&str]); 8] = [
        (said(|| rich().then_state(&Account { cents: 600 })), &["-     cents: 600,", "+     cents: 700,"]),
        (
            said(|| rich().when(&200).then_events(&[Withdrawn { cents: 300 }])),
            &["      Withdrawn {", "-         cents: 300,", "+         cents: 200,"],
        ),
        (said(|| rich().when(&200).then_nothing()), &["+     Withdrawn {"]),
        (
            said(|| rich().when(&200).then_state(&Account { cents: 1 })),
            &["-     cents: 1,", "+     cents: 500,"],
        ),
        (said(|| rich().when(&800).then_nothing()), &["the command was refused", "cents: 700"]),
        (said(|| rich().when(&800).then_state(&Account { cents: 1 })), &["the command was refused"]),
        (
            said(|| rich().when(&200).then_error(&TooLittle { cents: 1 })),
            &["these events were decided", "Withdrawn"],
        ),
        (
            said(|| rich().when(&800).then_error(&TooLittle { cents: 1 })),
            &["-     cents: 1,", "+     cents: 700,"],
        ),
    ];
    for (number, (said, parts)) in cases.iter().enumerate() {
        for part in *parts {
            assert!(said.contains(part), "case {number}: {part:?} in\n{said}");
        }
    }
}

fn bill(
    order: &RecordedEvent,
    reaction: &mut Reaction<'_>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let cents: u64 = order.decode()?;
    for number in 0..cents / 100 {
        reaction.append(format!("payment:{number}"), &Raw("payment.requested", &cents));
    }
    Ok(())
}

#[test]
fn reactors_are_called_with_what_came_before() {
    let billing = |order: &RecordedEvent, reaction: &mut Reaction<'_>| {
        let known = reaction.store().count(Query::entity("customer:1"))?;
        if known == 0 {
            return Err("no customer of this name".into());
        }
        bill(order, reaction)
    };
    GivenReactor::new(billing).when("order:1", &Raw("order.placed", &100)).then_failure("no customer");
    let customer = Append::to("customer:1").event(&Raw("customer.registered", &()));
    let reacted = GivenReactor::new(billing)
        .after(customer)
        .when("order:1", &Raw("order.placed", &200))
        .then(&[
            ("payment:0", &Raw("payment.requested", &200)),
            ("payment:1", &Raw("payment.requested", &200)),
        ])
        .when("order:2", &Raw("order.placed", &20))
        .then_nothing();
    let payment = reacted.store().stream("payment:1").next().unwrap().unwrap();
    let order = reacted.store().stream("order:1").next().unwrap().unwrap();
    assert_eq!(payment.correlation(), order.correlation());

    let placed = || GivenReactor::new(bill).when("order:1", &Raw("order.placed", &100));
    let wrong_cents = said(|| placed().then(&[("payment:0", &Raw("payment.requested", &200))]));
    assert!(wrong_cents.contains("- payment:0  payment.requested (version 1)  200"), "{wrong_cents}");
    assert!(wrong_cents.contains("+ payment:0  payment.requested (version 1)  100"), "{wrong_cents}");
    assert!(said(|| placed().then_nothing()).contains("+ payment:0"));
    assert!(said(|| placed().then_failure("x")).contains("this was the reaction"));
}

#[test]
fn a_broken_promise_is_found_and_can_be_seen_again() {
    // It says so before it is so.
    let work = |store: &Store, said: &annals::test::Said| {
        for number in 1..=3u64 {
            said.say(number);
            store.append("account:a", &Raw("account.deposited", &number)).unwrap();
        }
    };
    let check = |store: &Store, said: &[u64]| {
        let there = store.count(Query::all()).unwrap();
        assert!(there >= said.len() as u64, "{there} events of {} that were said", said.len());
    };
    let found = said(|| Crash::new(9).run(work, check));
    assert!(found.contains("0 events of 1 that were said"), "{found}");
    let again = found.split("see it again with ").nth(1).unwrap();
    let operation: usize =
        again.strip_prefix("Crash::new(9).only_after(").unwrap().trim_end_matches(')').parse().unwrap();
    assert_eq!(said(|| Crash::new(9).only_after(operation).run(work, check)), found);
    // Said when it is so, it holds.
    let honest = |store: &Store, said: &annals::test::Said| {
        for number in 1..=3u64 {
            store.append("account:a", &Raw("account.deposited", &number)).unwrap();
            said.say(number);
        }
    };
    let all = Crash::new(9).images_max(usize::MAX).run(honest, check);
    assert_eq!(all.images, (all.operations + 1) * 4);
    let some = Crash::new(9).images_max(20).run(honest, check);
    assert!((8..=24).contains(&some.images), "{some:?}");
}

#[test]
fn a_users_reactor_survives_crashes_anywhere() {
    let start = |store: &Store| store.react("billing", Query::all().kind("order.placed"), bill).unwrap();
    let work = |store: &Store, said: &annals::test::Said| {
        let billing = start(store);
        for number in 0..3u64 {
            let order = store.append(format!("order:{number}"), &Raw("order.placed", &100)).unwrap();
            assert!(store.wait_for("billing", order.position(), Duration::from_secs(20)).unwrap());
            said.say(number);
        }
        billing.stop();
    };
    let report = Crash::new(3).images_max(400).run(work, |store, _| {
        let billing = start(store);
        let head = store.head().unwrap().position();
        assert!(store.wait_for("billing", head, Duration::from_secs(20)).unwrap());
        billing.stop();
        let (orders, payments) = (Query::all().kind("order.placed"), Query::all().kind("payment.requested"));
        assert_eq!(store.count(orders).unwrap(), store.count(payments).unwrap());
    });
    assert!(report.images >= 150, "{report:?}");
}
