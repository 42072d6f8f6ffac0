//! Reactors: outputs, causes, conflicts, failures and halts, who may move them, cycles, the end of the store.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant, SystemTime};

use annals::disk::{MemDisk, SimDisk};
use annals::{
    Append, AppendCondition, Cause, ConsumerState, Denial, Durability, ErrorKind, Expected, GateDecision,
    Proposed, Query, Raw, Reaction, Reactor, RecordedEvent, Retry, StopReason, Store, Worker,
};

use crate::support::{Behind, FOREVER, GatedDisk, all, eventually, kind_of, positions, within};

type Handled = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Soon enough for a test.
const QUICK: Retry =
    Retry { attempts: 3, first: Duration::from_millis(1), longest: Duration::from_millis(2) };

fn placed() -> Query {
    Query::all().kind("order.placed")
}

fn place(store: &Store, order: u64) -> annals::Appended {
    store.append(format!("order:{order}"), &Raw("order.placed", &order)).unwrap()
}

/// Requests the payment for an order.
fn bill(order: &RecordedEvent, reaction: &mut Reaction<'_>) -> Handled {
    let number: u64 = order.decode()?;
    reaction.append(format!("payment:{number}"), &Raw("payment.requested", &number));
    Ok(())
}

fn payments(store: &Store) -> Vec<u64> {
    let payments = store.read(Query::all().kind("payment.requested"));
    payments.map(|payment| payment.unwrap().decode().unwrap()).collect()
}

fn wait_for(store: &Store, name: &str) {
    let head = store.head().unwrap().position();
    assert!(store.wait_for(name, head, FOREVER).unwrap(), "{:?}", store.consumers());
}

fn state(store: &Store, name: &str) -> ConsumerState {
    let found = store.consumers().unwrap().into_iter().find(|consumer| consumer.name == name);
    found.unwrap_or_else(|| panic!("there is no {name}")).state
}

/// What the history of a consumer says people and reactors did.
fn history(store: &Store, name: &str) -> Vec<String> {
    let kinds = store.stream(format!("$consumer/{name}")).map(|event| event.unwrap().kind().to_owned());
    kinds.map(|kind| kind.trim_start_matches("$consumer.").to_owned()).collect()
}

fn wait(worker: &Worker) -> StopReason {
    worker.wait_timeout(FOREVER).expect("it stands still")
}

#[test]
fn first_the_backlog_then_what_comes() {
    let store = Store::in_memory().unwrap();
    (0..3).for_each(|order| drop(place(&store, order)));
    let billing = store.react("billing", placed(), bill).unwrap();
    wait_for(&store, "billing");
    (3..6).for_each(|order| drop(place(&store, order)));
    wait_for(&store, "billing");
    assert_eq!(payments(&store), [0, 1, 2, 3, 4, 5]);
    assert_eq!(state(&store, "billing"), ConsumerState::Idle);
    assert!(matches!(billing.stop(), StopReason::Stopped));
    let again = store.react("billing", placed(), bill).unwrap();
    place(&store, 6);
    wait_for(&store, "billing");
    assert_eq!(payments(&store), [0, 1, 2, 3, 4, 5, 6]);
    drop(again);
}

#[test]
fn outputs_are_one_append_caused_by_the_event() {
    let store = Store::in_memory().unwrap();
    let root = store.append("cart:1", &Raw("cart.checked_out", &())).unwrap().id();
    let order =
        Append::to("order:1").event(&Raw("order.placed", &1)).correlation(root).commit(&store).unwrap();
    let (placed_at, order) = (order.position(), order.id());
    store
        .react("all", placed(), move |_: &RecordedEvent, reaction: &mut Reaction<'_>| {
            reaction.append(("payment:1", "tenant:acme"), &Raw("payment.requested", &1));
            let others = Append::to("stock:1").event(&Raw("stock.reserved", &1)).tag("stock");
            let others = others.event(&Raw("stock.counted", &2)).cause(Cause::InAppend(0));
            reaction.add(others.and_to("mail:1").event(&Raw("mail.queued", &3)).correlation(order));
            Ok(())
        })
        .unwrap();
    wait_for(&store, "all");
    let outputs = all(store.read(Query::all()).after(placed_at));
    let found: Vec<_> = outputs
        .iter()
        .map(|event| (event.entity(), event.scope(), event.kind(), event.correlation() == root))
        .collect();
    let expected = [
        ("payment:1", "tenant:acme", "payment.requested", true),
        ("stock:1", "default", "stock.reserved", true),
        ("stock:1", "default", "stock.counted", true),
        ("mail:1", "default", "mail.queued", false),
    ];
    assert_eq!(found, expected);
    assert_eq!(outputs[0].cause(), Some(Cause::Event(order)));
    assert_eq!(
        outputs[2].cause(),
        Some(Cause::Event(outputs[1].id())),
        "an index counts within its own append"
    );
    let frame: BTreeSet<[u8; 32]> = outputs.iter().map(RecordedEvent::chain).collect();
    assert_eq!(frame.len(), 1, "they are one append");
    let checkpoint = store.last(Query::entity("$consumer/all")).unwrap().unwrap();
    assert_eq!(checkpoint.chain(), outputs[0].chain(), "the checkpoint is in the same append");
    let story = store.story(root).unwrap().to_string();
    assert!(!story.contains('$'), "{story}");
}

#[test]
fn what_a_reaction_may_not_hold_halts_it() {
    struct Case(&'static str, fn(&mut Reaction<'_>));
    let table = [
        Case("idempotency key", |reaction| reaction.add(Append::to("a").event(&Raw("k", &1)).key("k"))),
        Case("durability", |reaction| {
            reaction.add(Append::to("a").event(&Raw("k", &1)).durability(Durability::Synced));
        }),
        Case("begins with `$`", |reaction| reaction.append("$consumer/other", &Raw("k", &1))),
        Case("is expected at version 1 and at version 2", |reaction| {
            reaction.add(Append::to("a").expect(Expected::exact(1)).event(&Raw("k", &1)));
            reaction.add(Append::to("a").expect(Expected::exact(2)).event(&Raw("k", &1)));
        }),
        Case("payload_bytes_max", |reaction| reaction.append("a", &Raw("k", &"x".repeat(5 << 20)))),
        Case("no event", |reaction| reaction.add(Append::to("a"))),
    ];
    for Case(what, output) in table {
        let store = Store::in_memory().unwrap();
        let order = place(&store, 1);
        let react = move |_: &RecordedEvent, reaction: &mut Reaction<'_>| -> Handled {
            output(reaction);
            Ok(())
        };
        let worker = store.worker("w", placed()).retry(QUICK).react(react).unwrap();
        match wait(&worker) {
            StopReason::FailedAt { position, error } => {
                assert_eq!(position, order.position(), "{what}");
                assert!(error.contains(what), "{what}: {error}");
            }
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(store.version("a").unwrap().get(), 0, "{what}");
    }
}

/// How it fails, how many attempts it takes, and what is said of it.
#[test]
fn a_failure_is_tried_again_and_then_halts_for_good() {
    fn fails(_: &RecordedEvent, _: &mut Reaction<'_>) -> Handled {
        Err("the printer is on fire".into())
    }
    fn panics(_: &RecordedEvent, reaction: &mut Reaction<'_>) -> Handled {
        reaction.append("half", &Raw("half.done", &()));
        panic!("the printer exploded, on purpose")
    }
    fn cannot_decode(event: &RecordedEvent, _: &mut Reaction<'_>) -> Handled {
        event.decode::<String>()?;
        Ok(())
    }
    type Handler = fn(&RecordedEvent, &mut Reaction<'_>) -> Handled;
    let table: [(Handler, &str); 3] =
        [(fails, "printer is on fire"), (panics, "printer exploded"), (cannot_decode, "does not decode")];
    for (handler, said) in table {
        let disk = MemDisk::new();
        let store = Store::on(disk.clone()).open().unwrap();
        let order = place(&store, 1);
        let attempts = Arc::new(AtomicU32::new(0));
        let counted = attempts.clone();
        let react = move |event: &RecordedEvent, reaction: &mut Reaction<'_>| {
            assert_eq!(reaction.attempt(), counted.fetch_add(1, Ordering::Relaxed) % QUICK.attempts + 1);
            handler(event, reaction)
        };
        let worker = store.worker("printer", placed()).retry(QUICK).react(react).unwrap();
        let (position, error) = match wait(&worker) {
            StopReason::PanickedAt { position, error } if said.contains("exploded") => (position, error),
            StopReason::FailedAt { position, error } if !said.contains("exploded") => (position, error),
            other => panic!("{said}: {other:?}"),
        };
        assert_eq!((position, attempts.load(Ordering::Relaxed)), (order.position(), QUICK.attempts));
        assert!(error.contains(said), "{error}");
        assert_eq!(kind_of(store.wait_for("printer", order.position(), FOREVER)), ErrorKind::Halted);
        place(&store, 2);
        assert_eq!(store.version("half").unwrap().get(), 0, "half a reaction was written");

        // After a restart the consumer is still halted for the same reason, and the caller that runs it is told.
        store.close().unwrap();
        assert!(matches!(worker.stop(), StopReason::StoreClosed));
        let store = Store::on(disk).open().unwrap();
        let ConsumerState::Halted(halt) = state(&store, "printer") else { panic!() };
        assert_eq!((halt.at, halt.by.as_str()), (Some(order.position()), "annals"));
        assert!(halt.reason.contains(said) && halt.panicked == said.contains("exploded"), "{halt}");
        let worker = store.react("printer", placed(), bill).unwrap();
        assert!(matches!(wait(&worker), StopReason::FailedAt { .. } | StopReason::PanickedAt { .. }));
        assert_eq!(payments(&store), [0; 0]);
        // Resumed, a reactor that was mended goes on with the very event.
        store.consumer_control("printer").by("alice").resume().unwrap();
        wait_for(&store, "printer");
        assert_eq!(payments(&store), [1, 2]);
        assert_eq!(history(&store, "printer"), ["registered", "halted", "resumed", "reacted", "reacted"]);
        assert!(matches!(worker.stop(), StopReason::Stopped));
    }
}

#[test]
fn skip_passes_over_one_event_and_is_recorded() {
    let store = Store::in_memory().unwrap();
    let orders: Vec<_> = (0..3).map(|order| place(&store, order).position()).collect();
    let worker = store
        .worker("billing", placed())
        .retry(Retry { attempts: 1, ..QUICK })
        .react(|order: &RecordedEvent, reaction: &mut Reaction<'_>| match order.decode::<u64>()? {
            1 => Err("cannot bill 1".into()),
            _ => bill(order, reaction),
        })
        .unwrap();
    assert!(matches!(wait(&worker), StopReason::FailedAt { position, .. } if position == orders[1]));
    store.consumer_control("billing").by("bob").skip(orders[1], "billed by hand").unwrap();
    wait_for(&store, "billing");
    assert_eq!(payments(&store), [0, 2]);
    assert_eq!(history(&store, "billing"), ["registered", "reacted", "halted", "skipped", "reacted"]);
    let skipped = store.last(Query::all().kind("$consumer.skipped")).unwrap().unwrap();
    let said: std::collections::BTreeMap<String, serde_json::Value> = skipped.decode().unwrap();
    assert_eq!((said["by"].as_str(), said["reason"].as_str()), (Some("bob"), Some("billed by hand")));
    assert!(worker.wait_timeout(Duration::ZERO).is_none(), "it goes on");
}

#[test]
fn a_running_reactor_goes_along_when_it_is_moved() {
    let store = Store::in_memory().unwrap();
    let orders: Vec<_> = (0..4).map(|order| place(&store, order).position()).collect();
    let worker = store.react("billing", placed(), bill).unwrap();
    wait_for(&store, "billing");
    let control = store.consumer_control("billing");
    control.rewind(orders[1], "2 and 3 were lost in the mail").unwrap();
    wait_for(&store, "billing");
    assert_eq!(payments(&store), [0, 1, 2, 3, 2, 3], "rewound, it reacts again");
    control.reset("all of it").unwrap();
    wait_for(&store, "billing");
    assert_eq!(payments(&store), [0, 1, 2, 3, 2, 3, 0, 1, 2, 3]);
    control.halt("the office is closed").unwrap();
    assert!(matches!(wait(&worker), StopReason::Halted(halt) if halt.reason == "the office is closed"));
    place(&store, 4);
    let passed = place(&store, 5);
    assert_eq!(payments(&store).len(), 10);
    assert_eq!(kind_of(control.rewind(passed.position(), "")), ErrorKind::Invalid, "that is no way back");
    assert_eq!(kind_of(control.skip(orders[0], "")), ErrorKind::Invalid, "that is no way forward");
    assert_eq!(kind_of(control.skip(1_000_000.into(), "")), ErrorKind::Invalid, "that is not there");
    control.skip(passed.position(), "not wanted").unwrap();
    place(&store, 6);
    wait_for(&store, "billing");
    assert_eq!(payments(&store)[10..], [6]);
    assert_eq!(kind_of(control.resume()), ErrorKind::Invalid, "it is not halted");
    for name in ["unknown", "", "a\nb"] {
        let control = store.consumer_control(name);
        for done in [control.resume(), control.skip(orders[0], ""), control.reset("")] {
            assert_eq!(kind_of(done), ErrorKind::Invalid, "{name:?}");
        }
    }
}

// The next append of a fast reactor is under way when its position is read. The clock that stamps a halt
// makes sure of this: it waits for one more reaction, for the time that a free reactor needs.
#[test]
fn a_reactor_at_full_speed_can_be_halted() {
    const HALTER: &str = "halter";
    for in_flight_max in [1, 16] {
        let reactions = Arc::new(AtomicU64::new(0));
        let (seen, counts) = (reactions.clone(), reactions.clone());
        let clock = move || {
            if std::thread::current().name() == Some(HALTER) {
                let (before, began) = (seen.load(Ordering::Relaxed), Instant::now());
                while seen.load(Ordering::Relaxed) < before + 40
                    && began.elapsed() < Duration::from_millis(100)
                {
                    std::thread::yield_now();
                }
            }
            SystemTime::now()
        };
        let store = Store::on(MemDisk::new()).clock(clock).open().unwrap();
        let endless = store
            .worker("endless", placed())
            .react_to_own()
            .depth_max(u32::MAX)
            .in_flight_max(in_flight_max)
            .react(move |_: &RecordedEvent, reaction: &mut Reaction<'_>| {
                counts.fetch_add(1, Ordering::Relaxed);
                (0..2).for_each(|order| reaction.append("more", &Raw("order.placed", &order)));
                Ok(())
            })
            .unwrap();
        place(&store, 0);
        eventually("it is at full speed", || reactions.load(Ordering::Relaxed) > 100);
        let control = store.consumer_control("endless");
        let halter = std::thread::Builder::new().name(HALTER.to_owned());
        let halter = halter.spawn(move || control.halt("enough")).unwrap();
        within(FOREVER, "halting", move || halter.join().unwrap()).unwrap();
        assert!(matches!(wait(&endless), StopReason::Halted(_)));
        let (more, kinds) = (store.version("more").unwrap(), history(&store, "endless"));
        assert_eq!(kinds.iter().filter(|kind| *kind == "reacted").count() as u64 * 2, more.get());
        assert_eq!(kinds.last().unwrap(), "halted");
        store.close().unwrap();
        assert!(matches!(endless.stop(), StopReason::StoreClosed));
    }
}

#[test]
fn a_conflict_of_its_outputs_has_the_reactor_decide_again() {
    let store = Store::in_memory().unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    // Numbers invoices without gaps. The first two times another caller takes the number first.
    let react = move |_: &RecordedEvent, reaction: &mut Reaction<'_>| -> Handled {
        let next = reaction.store().version("invoices")?;
        if counted.fetch_add(1, Ordering::Relaxed) < 2 {
            reaction.store().append("invoices", &Raw("invoice.by_hand", &next.get()))?;
        }
        reaction.add(Append::to("invoices").expect(next).event(&Raw("invoice.numbered", &next.get())));
        Ok(())
    };
    let once = Retry { attempts: 1, ..QUICK };
    store.worker("invoices", placed()).retry(once).react(react).unwrap();
    place(&store, 1);
    wait_for(&store, "invoices");
    let numbers: Vec<u64> =
        all(store.stream("invoices")).iter().map(|event| event.decode().unwrap()).collect();
    assert_eq!((numbers, calls.load(Ordering::Relaxed)), (vec![0, 1, 2], 3));
    assert_eq!(history(&store, "invoices"), ["registered", "reacted"], "a conflict is no failure");
}

#[test]
fn an_output_whose_condition_never_holds_halts() {
    let store = Store::in_memory().unwrap();
    store.append("user:1", &Raw("email.claimed", &"a@example.org")).unwrap();
    let react = |_: &RecordedEvent, reaction: &mut Reaction<'_>| -> Handled {
        let taken = AppendCondition::none(Query::all().kind("email.claimed"));
        reaction.add(Append::to("user:2").event(&Raw("email.claimed", &"a@example.org")).condition(taken));
        Ok(())
    };
    let worker = store.worker("mail", placed()).retry(Retry { attempts: 1, ..QUICK }).react(react).unwrap();
    let order = place(&store, 1);
    match wait(&worker) {
        StopReason::FailedAt { position, error } => {
            assert_eq!(position, order.position());
            assert!(error.contains("condition does not hold"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

// The context of an output is that of the reaction. No gate may deny the checkpoint.
#[test]
fn gates_judge_outputs() {
    fn clerk(proposed: &Proposed<'_>, _: &Store) -> Result<GateDecision, Denial> {
        let is_payment = proposed.events().any(|event| event.kind() == "payment.requested");
        match proposed.context::<&str>() {
            None if is_payment => Err(Denial::new("there is no signature")),
            _ => Ok(GateDecision::always()),
        }
    }
    for bypasses in [false, true] {
        let store = Store::on(MemDisk::new()).gate("clerk", clerk).open().unwrap();
        let signed = Arc::new(AtomicBool::new(false));
        let is_signed = signed.clone();
        let worker = store
            .worker("billing", placed())
            .retry(QUICK)
            .react(move |order: &RecordedEvent, reaction: &mut Reaction<'_>| {
                let number: u64 = order.decode()?;
                reaction.append("aside", &Raw("order.seen", &number));
                let request = Append::to("payment").event(&Raw("payment.requested", &number));
                reaction.add(match is_signed.load(Ordering::Relaxed) {
                    false => request,
                    true if bypasses => request.bypass_gates("the clerk is ill"),
                    true => request.context("the clerk"),
                });
                Ok(())
            })
            .unwrap();
        place(&store, 1);
        let said = |reason| matches!(reason, StopReason::FailedAt { error, .. } if error.contains("there is no signature"));
        assert!(said(wait(&worker)));
        assert_eq!(store.version("aside").unwrap().get(), 0);
        signed.store(true, Ordering::Relaxed);
        store.consumer_control("billing").resume().unwrap();
        wait_for(&store, "billing");
        assert_eq!((payments(&store), store.version("aside").unwrap().get()), (vec![1], 1));
        assert_eq!(store.version("$gate/clerk").unwrap().get(), u64::from(bypasses));
    }
}

#[test]
fn a_name_is_run_once_at_a_time() {
    let store = Store::in_memory().unwrap();
    let worker = store.react("billing", placed(), bill).unwrap();
    let second = store.clone();
    assert_eq!(kind_of(second.react("billing", placed(), bill)), ErrorKind::Locked);
    assert_eq!(kind_of(second.consumer("billing", placed())), ErrorKind::Locked);
    assert_eq!(kind_of(second.consume_partitioned("billing", placed(), 2, |_| Ok(()))), ErrorKind::Locked);
    worker.stop();
    // The name is free as soon as stop returns.
    let worker = store.react("billing", placed(), bill).unwrap();
    assert!(matches!(worker.stop(), StopReason::Stopped));
    drop(store.consumer("billing", placed()).unwrap());
    assert_eq!(kind_of(store.react("", placed(), bill)), ErrorKind::Invalid);
    assert_eq!(kind_of(store.react(&"x".repeat(300), placed(), bill)), ErrorKind::TooLarge);
}

#[test]
fn it_passes_over_its_own_unless_asked_and_chains_end() {
    fn answer(event: &RecordedEvent, reaction: &mut Reaction<'_>) -> Handled {
        reaction.append("talk", &Raw("said", &(event.decode::<u64>()? + 1)));
        Ok(())
    }
    let said = || Query::all().kind("said");
    // By itself.
    let store = Store::in_memory().unwrap();
    store.react("echo", said(), answer).unwrap();
    store.append("talk", &Raw("said", &1)).unwrap();
    wait_for(&store, "echo");
    wait_for(&store, "echo");
    assert_eq!(store.version("talk").unwrap().get(), 2, "it heard itself");
    // When asked.
    let store = Store::in_memory().unwrap();
    let echo = store.worker("echo", said()).react_to_own().depth_max(5).react(answer).unwrap();
    store.append("talk", &Raw("said", &1)).unwrap();
    assert!(matches!(wait(&echo), StopReason::FailedAt { error, .. } if error.contains("depth_max")));
    let said_last: u64 = store.last(Query::entity("talk")).unwrap().unwrap().decode().unwrap();
    assert_eq!(said_last, 6, "five reactions follow from the first");
    // Two that answer each other.
    let store = Store::in_memory().unwrap();
    let one = store.react("one", said(), answer).unwrap();
    let other = store.react("other", said(), answer).unwrap();
    store.append("talk", &Raw("said", &1)).unwrap();
    let deep =
        |worker: &Worker| matches!(wait(worker), StopReason::FailedAt { error, .. } if error.contains("64"));
    assert!(deep(&one) && deep(&other));
    let deepest = all(store.stream("talk")).iter().map(|event| event.decode::<u64>().unwrap()).max();
    assert_eq!(deepest, Some(65));
    let attempts = history(&store, "one").iter().filter(|kind| *kind == "halted").count();
    assert_eq!(attempts, 1);
}

#[test]
fn a_new_name_may_begin_with_what_is_new() {
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    (0..3).for_each(|order| drop(place(&store, order)));
    let start = |store: &Store| store.worker("billing", placed()).only_new().react(bill).unwrap();
    let worker = start(&store);
    place(&store, 3);
    wait_for(&store, "billing");
    worker.stop();
    place(&store, 4);
    store.close().unwrap();
    let store = Store::on(disk).open().unwrap();
    start(&store);
    wait_for(&store, "billing");
    assert_eq!(payments(&store), [3, 4], "only a new name begins with what is new");
}

// Dropping the last handle closes the store at once, although a handler runs and holds a handle of its own.
// The next open finds the lock free, and the reaction is made then.
#[test]
fn the_store_ends_under_a_handler_at_work() {
    for how in ["drop", "close"] {
        let disk = MemDisk::new();
        let store = Store::on(disk.clone()).open().unwrap();
        let (entered, has_entered) = mpsc::channel();
        let (leave, may_leave) = mpsc::channel::<()>();
        let worker = store
            .react("slow", placed(), move |order: &RecordedEvent, reaction: &mut Reaction<'_>| {
                let kept = reaction.store().clone();
                entered.send(()).unwrap();
                may_leave.recv()?;
                assert_eq!(kind_of(kept.append("aside", &Raw("k", &1))), ErrorKind::Closed);
                bill(order, reaction)
            })
            .unwrap();
        place(&store, 1);
        has_entered.recv_timeout(FOREVER).unwrap();
        within(FOREVER, how, move || if how == "drop" { drop(store) } else { store.close().unwrap() });
        let store = Store::on(disk).open().unwrap();
        leave.send(()).unwrap();
        assert!(matches!(worker.stop(), StopReason::StoreClosed), "{how}");
        store.react("slow", placed(), bill).unwrap();
        wait_for(&store, "slow");
        assert_eq!(payments(&store), [1], "{how}");
    }
}

/// What a handler does to the store, and why the reactor then stands still; `None` if it does not.
#[test]
fn a_handler_may_do_anything() {
    struct Case(&'static str, fn(&Store), fn(&StopReason) -> bool);
    let goes_on = |reason: &StopReason| matches!(reason, StopReason::Stopped);
    let table = [
        Case("appends", |store| drop(store.append("aside", &Raw("k", &1)).unwrap()), goes_on),
        Case("reads", |store| assert_eq!(store.read(Query::all()).count(), 1), goes_on),
        Case("syncs", |store| assert!(store.sync().is_ok()), goes_on),
        Case(
            "starts another",
            |store| {
                drop(
                    store
                        .react("another", placed(), |_: &RecordedEvent, _: &mut Reaction<'_>| Ok(()))
                        .unwrap(),
                )
            },
            goes_on,
        ),
        Case(
            "moves itself",
            |store| store.consumer_control("any").halt("by itself").unwrap(),
            |reason| matches!(reason, StopReason::Halted(halt) if halt.reason == "by itself"),
        ),
        Case(
            "closes it",
            |store| store.clone().close().unwrap(),
            |reason| matches!(reason, StopReason::StoreClosed),
        ),
        Case(
            "waits for itself",
            |store| {
                let head = store.head().unwrap().position();
                assert!(!store.wait_for("any", head, Duration::from_millis(1)).unwrap());
            },
            goes_on,
        ),
    ];
    for Case(what, doing, ends) in table {
        let store = Store::in_memory().unwrap();
        let done = AtomicBool::new(false);
        let worker = store
            .react("any", placed(), move |order: &RecordedEvent, reaction: &mut Reaction<'_>| {
                if !done.swap(true, Ordering::Relaxed) {
                    doing(reaction.store());
                }
                bill(order, reaction)
            })
            .unwrap();
        let order = place(&store, 1);
        match store.wait_for("any", order.position(), FOREVER) {
            Ok(true) => {
                place(&store, 2);
                wait_for(&store, "any");
                assert_eq!(payments(&store), [1, 2], "{what}");
                assert!(ends(&worker.stop()), "{what}");
            }
            _ => assert!(ends(&wait(&worker)), "{what}: {:?}", wait(&worker)),
        }
        drop(store);
        within(FOREVER, what, move || worker.stop());
    }
}

#[test]
fn a_handler_may_stop_itself_or_drop_the_last_handle() {
    let store = Store::in_memory().unwrap();
    let own: Arc<Mutex<Option<Worker>>> = Arc::default();
    let of_handler = own.clone();
    let worker = store
        .react("suicidal", placed(), move |order: &RecordedEvent, reaction: &mut Reaction<'_>| {
            if let Some(worker) = of_handler.lock().unwrap().take() {
                assert!(matches!(worker.stop(), StopReason::Stopped));
            }
            bill(order, reaction)
        })
        .unwrap();
    *own.lock().unwrap() = Some(worker);
    (0..2).for_each(|order| drop(place(&store, order)));
    eventually("it has ended", || !store.consumers().unwrap()[0].is_running);
    assert_eq!(payments(&store), [0], "the event at hand is the last");

    // The handler's own handle keeps the store open until the handler drops it.
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    let last = Mutex::new(Some(store.clone()));
    let (free, is_free) = mpsc::channel::<()>();
    let worker = store
        .react("last", placed(), move |order: &RecordedEvent, reaction: &mut Reaction<'_>| {
            is_free.recv()?;
            drop(last.lock().unwrap().take());
            bill(order, reaction)
        })
        .unwrap();
    place(&store, 1);
    drop(store);
    free.send(()).unwrap();
    let ended = within(FOREVER, "dropping the last handle", move || worker.wait());
    assert!(matches!(ended, StopReason::StoreClosed), "{ended:?}");
    Store::on(disk).open().unwrap();
}

#[test]
fn a_poisoned_store_ends_it_and_nothing_is_doubled() {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    let worker = store.react("billing", placed(), bill).unwrap();
    place(&store, 0);
    wait_for(&store, "billing");
    // The order is synced, what follows from it is not.
    disk.gate().set_behind_after(1, Behind::Fail);
    let order = place(&store, 1);
    match wait(&worker) {
        StopReason::StoreFailed(error) => {
            assert!(matches!(error.kind(), ErrorKind::CommitUnknown | ErrorKind::Poisoned), "{error}");
        }
        other => panic!("{other:?}"),
    }
    let waited = store.wait_for("billing", order.position(), FOREVER);
    assert_eq!(kind_of(waited), ErrorKind::Poisoned);
    drop(store);
    disk.gate().set_behind(Behind::Sync);
    disk.gate().set_behind_after(0, Behind::Sync);
    let store = Store::on(disk).open().unwrap();
    store.react("billing", placed(), bill).unwrap();
    wait_for(&store, "billing");
    assert_eq!(payments(&store), [0, 1]);
}

// A full disk is not the fault of a reactor: none is halted, and all continue when there is room.
#[test]
fn a_full_disk_is_waited_for() {
    let disk = SimDisk::new(7);
    let store = Store::on(disk.clone()).space_probe_every(Duration::ZERO).open().unwrap();
    let (entered, has_entered) = mpsc::channel();
    let (leave, may_leave) = mpsc::channel::<()>();
    let may_leave = Mutex::new(may_leave);
    let worker = store
        .worker("billing", placed())
        .retry(Retry { attempts: 1, ..QUICK })
        .react(move |order: &RecordedEvent, reaction: &mut Reaction<'_>| {
            if reaction.store().version("payment:1")?.get() == 0 && entered.send(()).is_ok() {
                let _ = may_leave.lock().unwrap().recv();
            }
            // More than the zeros that are written ahead.
            reaction.append("scan:1", &Raw("order.scanned", &"x".repeat(1 << 20)));
            bill(order, reaction)
        })
        .unwrap();
    place(&store, 1);
    has_entered.recv_timeout(FOREVER).unwrap();
    drop(has_entered);
    disk.set_capacity(Some(0));
    leave.send(()).unwrap();
    eventually("it is stuck", || matches!(state(&store, "billing"), ConsumerState::Stuck { .. }));
    disk.set_capacity(None);
    wait_for(&store, "billing");
    assert_eq!(payments(&store), [1]);
    assert!(worker.wait_timeout(Duration::ZERO).is_none());
}

#[test]
fn only_what_is_durable_is_reacted_to() {
    let disk = MemDisk::new();
    let buffered = Durability::Buffered { flush_every: Duration::from_secs(3600) };
    let store = Store::on(disk.clone()).durability(buffered).open().unwrap();
    store.react("billing", placed(), bill).unwrap();
    let order = place(&store, 1);
    assert!(!store.wait_for("billing", order.position(), Duration::from_millis(20)).unwrap());
    assert_eq!(payments(&store), [0; 0]);
    store.sync().unwrap();
    assert!(store.wait_for("billing", order.position(), FOREVER).unwrap());
    assert_eq!(payments(&store), [1]);
}

/// Many in flight, and now and then one whose outputs meet others: all of them once, and in order.
#[test]
fn in_flight_everything_is_once_and_in_order() {
    const ORDERS: u64 = 2000;
    for in_flight_max in [1, 2, 64] {
        let store = Store::in_memory().unwrap();
        let conflicts = AtomicU64::new(0);
        let failures = AtomicU64::new(0);
        let react = move |order: &RecordedEvent, reaction: &mut Reaction<'_>| -> Handled {
            let number: u64 = order.decode()?;
            if number.is_multiple_of(10) {
                return Ok(());
            }
            if number.is_multiple_of(97) && failures.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                return Err("every other time".into());
            }
            let output = Append::to("bills").event(&Raw("bill.sent", &number));
            reaction.add(
                if number.is_multiple_of(31) && conflicts.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                    output.and_to("nowhere").expect(Expected::StreamExists).event(&Raw("never", &()))
                } else {
                    output
                },
            );
            Ok(())
        };
        let worker =
            store.worker("w", placed()).retry(QUICK).in_flight_max(in_flight_max).react(react).unwrap();
        let tickets: Vec<_> = (0..ORDERS)
            .map(|order| Append::to("orders").event(&Raw("order.placed", &order)).submit(&store).unwrap())
            .collect();
        tickets.into_iter().for_each(|ticket| drop(ticket.wait().unwrap()));
        wait_for(&store, "w");
        let sent: Vec<u64> = all(store.stream("bills")).iter().map(|event| event.decode().unwrap()).collect();
        let expected: Vec<u64> = (0..ORDERS).filter(|number| !number.is_multiple_of(10)).collect();
        assert!(sent == expected, "{in_flight_max} in flight: {} of {}", sent.len(), expected.len());
        assert_eq!(store.version("nowhere").unwrap().get(), 0);
        assert!(matches!(worker.stop(), StopReason::Stopped));
    }
}

#[test]
fn a_reactor_may_be_a_type_of_its_own() {
    struct Numbering(u64);
    impl Reactor for Numbering {
        fn react(&mut self, event: &RecordedEvent, reaction: &mut Reaction<'_>) -> Handled {
            self.0 += 1;
            reaction.append(event.entity(), &Raw("order.numbered", &self.0));
            Ok(())
        }
    }
    let store = Store::in_memory().unwrap();
    let worker = store.react("numbering", placed(), Numbering(100)).unwrap();
    place(&store, 1);
    wait_for(&store, "numbering");
    assert_eq!(positions(store.read(Query::all().kind("order.numbered"))).len(), 1);
    let status = worker.status().unwrap();
    assert_eq!((status.name.as_str(), status.is_running, status.behind), ("numbering", true, 0));
    assert_eq!(worker.name(), "numbering");
    drop(store);
    assert!(matches!(wait(&worker), StopReason::StoreClosed));
    assert_eq!(kind_of(worker.status()), ErrorKind::Closed);
}

#[test]
fn a_store_that_is_only_read_has_no_reactors() {
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    store.react("billing", placed(), bill).unwrap();
    place(&store, 1);
    wait_for(&store, "billing");
    let reader = Store::on(disk).open_read_only().unwrap();
    assert_eq!(kind_of(reader.react("other", placed(), bill)), ErrorKind::Invalid);
    let seen = &reader.consumers().unwrap()[0];
    assert_eq!((seen.name.as_str(), seen.is_running, &seen.state), ("billing", false, &ConsumerState::Idle));
}
