//! Deciding: aggregates and boundaries, conflicts, keys, turns; what user code does in the middle of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use annals::disk::MemDisk;
use annals::{
    Aggregate, Append, AppendCondition, DomainEvent, Durability, Error, ErrorKind, EventData, Executed,
    Expected, Meta, Outcome, Projection, Query, Raw, RecordedEvent, Refused, Store,
};
use serde::{Deserialize, Serialize};

use crate::account::{Account, AccountEvent, Do, NotEnough, What};
use crate::support::{Behind, FOREVER, GatedDisk, Random, all, kind_of, within};

const ALICE: &str = "account:alice";

fn with_cents(cents: u64) -> Store {
    let store = Store::in_memory().unwrap();
    store.execute::<Account>(ALICE, &Do::new(What::Deposit(cents))).unwrap();
    store
}

/// A store whose appends need no sync.
fn buffered() -> Store {
    let durability = Durability::Buffered { flush_every: Duration::from_secs(1) };
    Store::on(MemDisk::new()).durability(durability).open().unwrap()
}

fn store_error<T>(result: Result<T, Refused<NotEnough>>) -> Error {
    match result {
        Err(Refused::Store(error)) => error,
        Err(Refused::Domain(error)) => panic!("the domain refused: {error:?}"),
        Ok(_) => panic!("this should have been refused"),
    }
}

#[test]
fn an_outcome_has_the_receipt_and_the_state_after_its_own_events() {
    let store = Store::in_memory().unwrap();
    let steps = [
        // What, the outcome, its events, cents, and the version after it.
        (What::Nothing, Ok((Outcome::Nothing, 0)), 0, 0),
        (What::Deposit(500), Ok((Outcome::Applied, 1)), 500, 1),
        (What::Withdraw(600), Err(NotEnough { missing: 100 }), 500, 1),
        (What::Double, Ok((Outcome::Applied, 2)), 1001, 3),
        (What::Withdraw(1001), Ok((Outcome::Applied, 1)), 0, 4),
        (What::Nothing, Ok((Outcome::Nothing, 0)), 0, 4),
    ];
    for (what, expected, cents, version) in steps {
        match store.execute::<Account>((ALICE, "branch:7"), &Do::new(what)) {
            Ok(done) => {
                let events = done.receipt().map_or(0, |receipt| receipt.events());
                assert_eq!(Ok((done.outcome(), events)), expected);
                assert_eq!((done.conflicts(), done.cents, done.state().version().get()), (0, cents, version));
                let receipt = done.receipt().map(|receipt| (receipt.version(), receipt.position()));
                let state = (done.state().version(), done.state().position());
                assert!(receipt.is_none_or(|receipt| receipt == state));
                assert_eq!(done.into_state().state().cents, cents);
            }
            Err(refused) => assert_eq!(refused.domain(), expected.as_ref().err()),
        }
        let state = store.load::<Account>(ALICE).unwrap();
        assert_eq!((state.cents, state.version().get()), (cents, version));
    }
    assert!(all(store.stream(ALICE)).iter().all(|event| event.scope() == "branch:7"));
    let unnamed = store_error(store.execute::<Account>("", &Do::new(What::Double)));
    assert_eq!(unnamed.kind(), ErrorKind::Invalid);
}

/// Another append comes during a decision. The decision is made again, with the new events.
#[test]
fn what_comes_in_between_is_decided_about() {
    let store = with_cents(100);
    let (other, runs) = (store.clone(), Arc::new(AtomicU64::new(0)));
    let counted = runs.clone();
    let command = Do::new(What::Double).during(move || {
        if counted.fetch_add(1, Ordering::SeqCst) < 3 {
            other.execute::<Account>(ALICE, &Do::new(What::Deposit(1000))).unwrap();
        }
    });
    let done = store.execute::<Account>(ALICE, &command).unwrap();
    assert_eq!((done.outcome(), done.conflicts(), done.cents), (Outcome::Applied, 3, 6201));
    assert_eq!(runs.load(Ordering::SeqCst), 4);

    let other = store.clone();
    let command = Do::new(What::Withdraw(6201))
        .during(move || drop(other.execute::<Account>(ALICE, &Do::new(What::Withdraw(1)))));
    let refused = store.execute::<Account>(ALICE, &command).unwrap_err();
    assert_eq!(refused.domain(), Some(&NotEnough { missing: 1 }));
}

/// The state of an outcome is the one after its own events, also if another append follows at once.
#[test]
fn an_outcome_knows_nothing_of_later_events() {
    const THREADS: u64 = 4;
    const EACH: u64 = 300;
    let store = buffered();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..EACH {
                    let done = store.execute::<Account>(ALICE, &Do::new(What::Deposit(2))).unwrap();
                    let version = done.receipt().unwrap().version();
                    assert_eq!((done.state().version(), done.cents), (version, 2 * version.get()));
                }
            });
        }
    });
    assert_eq!(store.load::<Account>(ALICE).unwrap().cents, 2 * THREADS * EACH);
}

#[test]
fn eight_threads_increment_one_account() {
    const THREADS: u64 = 8;
    const EACH: u64 = 10_000;
    let store = buffered();
    let (conflicts, most, start) = (AtomicU64::new(0), AtomicU64::new(0), Barrier::new(8));
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                start.wait();
                for _ in 0..EACH {
                    let done = store.execute::<Account>(ALICE, &Do::new(What::Deposit(1))).unwrap();
                    let met = u64::from(done.conflicts());
                    conflicts.fetch_add(met, Ordering::Relaxed);
                    most.fetch_max(met, Ordering::Relaxed);
                }
            });
        }
    });
    let account = store.load::<Account>(ALICE).unwrap();
    assert_eq!((account.cents, account.version().get()), (THREADS * EACH, THREADS * EACH));
    let (conflicts, most) = (conflicts.into_inner(), most.into_inner());
    println!(
        "{} increments in {:?}: {conflicts} conflicts, {most} at most",
        THREADS * EACH,
        started.elapsed()
    );
    assert!(conflicts > 0 && most < 100, "{conflicts} conflicts, {most} at most");
}

/// Without turns, the slower caller would lose every race.
#[test]
fn a_slow_decision_gets_its_turn_among_quick_ones() {
    let store = buffered();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    store.execute::<Account>(ALICE, &Do::new(What::Deposit(1))).unwrap();
                }
            });
        }
        let slow = Do::new(What::Deposit(1)).during(|| thread::sleep(Duration::from_millis(2)));
        let conflicts: Vec<_> =
            (0..20).map(|_| store.execute::<Account>(ALICE, &slow).map(|done| done.conflicts())).collect();
        is_over.store(true, Ordering::SeqCst);
        let most = conflicts.into_iter().map(Result::unwrap).max().unwrap();
        assert!(most <= 20, "{most} conflicts");
    });
}

#[test]
fn a_known_key_is_answered_and_not_decided_about() {
    let store = with_cents(100);
    let withdraw = |entity: &str, during: fn()| {
        let command = Do::new(What::Withdraw(100)).during(during);
        store.execute_with::<Account>(entity, &command, |append| append.key("req-1").tag("web"))
    };
    let first = withdraw(ALICE, || {}).unwrap();
    store.execute::<Account>(ALICE, &Do::new(What::Deposit(7))).unwrap();
    let again = withdraw(ALICE, || panic!("no decision is needed")).unwrap();
    assert_eq!((first.outcome(), again.outcome()), (Outcome::Applied, Outcome::AlreadyApplied));
    assert_eq!((first.cents, again.cents, again.conflicts()), (0, 7, 0));
    let (one, other) = (first.receipt().unwrap(), again.receipt().unwrap());
    assert_eq!((one.position(), one.id(), one.version()), (other.position(), other.id(), other.version()));
    assert!(other.replayed() && !one.replayed());
    assert_eq!(store.version(ALICE).unwrap().get(), 3);

    let elsewhere = store_error(withdraw("account:bob", || {}));
    assert_eq!(elsewhere.kind(), ErrorKind::KeyReused);
    assert!(elsewhere.to_string().contains("account:bob"), "{elsewhere}");
    let empty = store.execute_with::<Account>(ALICE, &Do::new(What::Double), |append| append.key(""));
    assert_eq!(store_error(empty).kind(), ErrorKind::Invalid);
    // Nothing decided, nothing to remember.
    let nothing = |what| store.execute_with::<Account>(ALICE, &Do::new(what), |append| append.key("req-2"));
    assert_eq!(nothing(What::Nothing).unwrap().outcome(), Outcome::Nothing);
    assert_eq!(nothing(What::Double).unwrap().outcome(), Outcome::Applied);
}

/// The same request twice at the same time: whichever loses, its events are those of the other.
#[test]
fn the_same_key_at_the_same_time_is_applied_once() {
    // The second decides on the same state, or on one that the other has changed by then.
    for (what, before) in
        [(What::Deposit(5), 0), (What::Double, 0), (What::Double, 40), (What::Withdraw(100), 0)]
    {
        let store = with_cents(100);
        let with = |append: Append| append.key("req-1");
        let other = store.clone();
        let command = Do::new(what);
        let inner = command.clone();
        let outer = command.during(move || {
            if before > 0 && other.version(ALICE).unwrap().get() == 1 {
                other.execute::<Account>(ALICE, &Do::new(What::Deposit(before))).unwrap();
            }
            let applied = other.execute_with::<Account>(ALICE, &inner, with).unwrap();
            assert_eq!(applied.outcome(), Outcome::Applied);
        });
        let done = store.execute_with::<Account>(ALICE, &outer, with).unwrap();
        assert_eq!(done.outcome(), Outcome::AlreadyApplied);
        assert_eq!(done.state().version(), store.version(ALICE).unwrap());
        assert_eq!(done.receipt().unwrap().position(), store.head().unwrap().position());
    }
}

#[test]
fn a_conflict_that_deciding_again_cannot_mend_is_the_answer_at_once() {
    let store = with_cents(100);
    store.append("other", &Raw("other.opened", &())).unwrap();
    type With = fn(Append) -> Append;
    let cases: [(With, bool); 2] = [
        (|append| append.condition(AppendCondition::none(Query::entity("other"))), true),
        (|append| append.and_to("other").expect(Expected::NoStream), false),
    ];
    for (with, is_condition) in cases {
        let runs = Arc::new(AtomicU64::new(0));
        let counted = runs.clone();
        let command = Do::new(What::Deposit(1)).during(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        let error = store_error(store.execute_with::<Account>(ALICE, &command, with));
        assert_eq!((error.kind(), error.failed_condition().is_some()), (ErrorKind::Conflict, is_condition));
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    }
    assert_eq!(store.version(ALICE).unwrap().get(), 1);
}

/// What is said of the append reaches it, and events besides the decided ones go in with them.
#[test]
fn the_append_can_be_told_more() {
    let store = with_cents(100);
    let cause = store.stream(ALICE).next().unwrap().unwrap();
    let done = store
        .execute_with::<Account>((ALICE, "branch:7"), &Do::new(What::Double), |append| {
            append
                .caused_by(&cause)
                .metadata("teller 4")
                .tag("counter:2")
                .and_to("audit:1")
                .event(&Raw("audit.noted", &()))
        })
        .unwrap();
    assert_eq!((done.receipt().unwrap().events(), done.cents, done.state().version().get()), (3, 201, 3));
    let events = all(store.read(Query::all()).after(cause.position()));
    let entities: Vec<_> = events.iter().map(|event| (event.entity(), event.scope())).collect();
    assert_eq!(entities, [("audit:1", "default"), (ALICE, "branch:7"), (ALICE, "branch:7")]);
    for event in &events {
        assert_eq!(
            (event.correlation(), event.cause()),
            (cause.id(), Some(annals::Cause::Event(cause.id())))
        );
        assert_eq!(event.metadata::<&str>().unwrap(), Some("teller 4"));
        assert!(event.tags().eq(["counter:2"]));
    }
}

#[test]
fn a_decision_may_decide_and_one_that_never_settles_ends() {
    let store = with_cents(0);
    let other = store.clone();
    let endless = Do::new(What::Double).during(move || {
        other.execute::<Account>(ALICE, &Do::new(What::Deposit(1))).unwrap();
    });
    let (handle, started) = (store.clone(), Instant::now());
    let error = within(FOREVER, "a decision that always conflicts with itself", move || {
        store_error(handle.execute::<Account>(ALICE, &endless))
    });
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(store.load::<Account>(ALICE).unwrap().cents, 1_000);
    println!("1,000 conflicts with itself: {:?}", started.elapsed());
}

#[test]
fn a_decision_that_panics_leaves_nothing_behind() {
    let store = with_cents(100);
    let other = store.clone();
    // The panic comes in the second try, when it has a turn that others wait for.
    let command = Do::new(What::Double).during(move || {
        let first = other.version(ALICE).unwrap().get() == 1;
        other.append(ALICE, &AccountEvent::Deposited { cents: 1, id: 0 }).unwrap();
        assert!(first, "on purpose");
    });
    let panicked = catch_unwind(AssertUnwindSafe(|| store.execute::<Account>(ALICE, &command).is_ok()));
    assert!(panicked.is_err());
    assert_eq!(store.version(ALICE).unwrap().get(), 3);
    let started = Instant::now();
    assert_eq!(store.execute::<Account>(ALICE, &Do::new(What::Deposit(1))).unwrap().cents, 103);
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// A caller that keeps the others waiting for too long loses its turn. No caller waits for ever.
#[test]
fn a_decision_that_hangs_holds_up_no_other_for_ever() {
    let store = with_cents(100);
    let (other, hang) = (store.clone(), Arc::new(Barrier::new(2)));
    let (inside, hanging) = (hang.clone(), Arc::new(AtomicU64::new(0)));
    let run = hanging.clone();
    let command = Do::new(What::Double).during(move || match run.fetch_add(1, Ordering::SeqCst) {
        // Beaten once, so that it gets a place; then it hangs in the middle of its turn.
        0 => drop(other.execute::<Account>(ALICE, &Do::new(What::Deposit(1))).unwrap()),
        1 => {
            inside.wait();
            inside.wait();
        }
        _ => {}
    });
    let slow = store.clone();
    let slow = thread::spawn(move || slow.execute::<Account>(ALICE, &command).unwrap());
    hang.wait();
    let quick = store.clone();
    let done = within(FOREVER, "another decision", move || {
        quick.execute::<Account>(ALICE, &Do::new(What::Deposit(2))).unwrap()
    });
    assert_eq!((done.cents, done.conflicts()), (103, 0));
    hang.wait();
    let slow = slow.join().unwrap();
    assert_eq!((slow.cents, slow.conflicts()), (207, 2));
}

/// The events are there, and that is what must not be hidden by an error that says "nothing was written".
#[test]
fn applied_without_a_state_is_not_called_refused() {
    #[derive(Clone, Default, Serialize, Deserialize)]
    struct Forgetful;
    struct Noted;
    impl EventData for Noted {
        fn kind(&self) -> &str {
            "thing.noted"
        }

        fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
            Raw(self.kind(), &()).encode(out)
        }
    }
    impl DomainEvent for Noted {
        fn knows(_: &str) -> bool {
            false
        }

        fn from_recorded(_: &RecordedEvent) -> Result<Noted, Error> {
            Ok(Noted)
        }
    }
    impl Projection for Forgetful {
        type Event = Noted;
        const NAME: &'static str = "forgetful";

        fn apply(&mut self, _: Noted, _: &Meta<'_>) {}
    }
    impl annals::Aggregate for Forgetful {
        type Command = ();
        type Error = NotEnough;

        fn decide(&self, (): &()) -> Result<Vec<Noted>, NotEnough> {
            Ok(vec![Noted])
        }
    }
    let store = Store::in_memory().unwrap();
    let error = store_error(store.execute::<Forgetful>("thing:1", &()));
    assert!(!error.is_definite(), "{error}");
    assert!(error.to_string().contains("were appended, up to position 1"), "{error}");
    assert_eq!(store.version("thing:1").unwrap().get(), 1);
    let error = store
        .decide(Query::entity("thing:2"), |_: &Forgetful| {
            Ok::<_, NotEnough>(Append::to("thing:2").event(&Noted))
        })
        .unwrap_err();
    assert!(!error.store().unwrap().is_definite(), "{error:?}");
}

#[test]
fn an_error_of_the_store_says_whether_anything_was_written() {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    store.execute::<Account>(ALICE, &Do::new(What::Deposit(1))).unwrap();
    disk.gate().set_behind(Behind::Fail);
    let deposit = |key: &str| {
        store_error(
            store.execute_with::<Account>(ALICE, &Do::new(What::Deposit(1)), |append| append.key(key)),
        )
    };
    assert_eq!(deposit("req-1").kind(), ErrorKind::CommitUnknown);
    assert_eq!(deposit("req-1").kind(), ErrorKind::Poisoned);
    drop(store);
    disk.gate().set_behind(Behind::Sync);
    let store = Store::on(disk.clone()).open().unwrap();
    let again = store
        .execute_with::<Account>(ALICE, &Do::new(What::Deposit(1)), |append| append.key("req-1"))
        .unwrap();
    assert_eq!(again.cents, 2);
    store.clone().close().unwrap();
    let closed = store.execute::<Account>(ALICE, &Do::new(What::Deposit(1)));
    assert_eq!(store_error(closed).kind(), ErrorKind::Closed);
}

/// A caller with a deadline does not wait longer for the look-up of a key, and hears that nothing was
/// written.
#[test]
fn a_key_that_is_not_looked_up_in_time_is_busy() {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).ack_deadline(Duration::from_millis(20)).open().unwrap();
    let deposit = move |store: &Store| {
        store.execute_with::<Account>(ALICE, &Do::new(What::Deposit(1)), |append| append.key("req-1"))
    };
    let (held, other) = disk.gate().hold_up(|| Append::to("other").event(&AnyEvent).submit(&store).unwrap());
    let handle = store.clone();
    let error = within(FOREVER, "the look-up of a key", move || store_error(deposit(&handle)));
    assert_eq!((error.kind(), error.is_definite()), (ErrorKind::Busy, true), "{error}");
    drop(held);
    other.wait().unwrap();
    assert_eq!(deposit(&store).unwrap().outcome(), Outcome::Applied);
}

/// Durable and alone, an execution is one sync.
#[test]
fn an_execution_costs_one_sync() {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    for number in 0..50 {
        let before = disk.gate().arrived();
        let with = |append: Append| if number % 2 == 0 { append } else { append.key(format!("{number}")) };
        store.execute_with::<Account>(ALICE, &Do::new(What::Deposit(1)), with).unwrap();
        assert_eq!(disk.gate().arrived() - before, 1);
        let again = |append: Append| append.key("1");
        if number > 1 {
            store.execute_with::<Account>(ALICE, &Do::new(What::Deposit(1)), again).unwrap();
            assert_eq!(disk.gate().arrived() - before, 1, "a known key");
        }
        assert!(store.execute::<Account>(ALICE, &Do::new(What::Withdraw(1 << 40))).is_err());
        assert_eq!(disk.gate().arrived() - before, 1, "a refusal");
    }
}

// Boundaries.

/// Any events, counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Counted(u64);

struct AnyEvent;

impl EventData for AnyEvent {
    fn kind(&self) -> &str {
        "any"
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        Raw(self.kind(), &()).encode(out)
    }
}

impl DomainEvent for AnyEvent {
    fn knows(_: &str) -> bool {
        true
    }

    fn from_recorded(_: &RecordedEvent) -> Result<AnyEvent, Error> {
        Ok(AnyEvent)
    }
}

impl Projection for Counted {
    type Event = AnyEvent;
    const NAME: &'static str = "counted";

    fn apply(&mut self, _: AnyEvent, _: &Meta<'_>) {
        self.0 += 1;
    }
}

type Decided = Result<Executed<Counted>, Refused<&'static str>>;

#[test]
fn of_eight_who_claim_an_address_one_gets_it() {
    for round in 0..50 {
        let store = buffered();
        let start = Barrier::new(8);
        let claim = |user: u64| -> Decided {
            let tag = format!("email:{round}@example.com");
            let claims = Query::all().kind("email.claimed").tag(&tag);
            start.wait();
            store.decide(claims, |claimed: &Counted| match claimed.0 {
                0 => Ok(Append::to(format!("user:{user}")).event(&Raw("email.claimed", &tag)).tag(&tag)),
                _ => Err("taken"),
            })
        };
        let results: Vec<Decided> = thread::scope(|scope| {
            let claim = &claim;
            let threads: Vec<_> = (0..8).map(|user| scope.spawn(move || claim(user))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 7));
        assert!(lost.iter().all(|lost| lost.as_ref().unwrap_err().domain() == Some(&"taken")));
        assert_eq!(store.count(Query::all()).unwrap(), 1);
    }
}

#[test]
fn a_boundary_answers_like_an_aggregate() {
    let store = Store::in_memory().unwrap();
    let query = || Query::all().kind("thing.done");
    let done = || Append::to("thing:1").event(&Raw("thing.done", &()));
    let nothing = store.decide(query(), |_: &Counted| Ok::<_, &str>(None)).unwrap();
    assert_eq!((nothing.outcome(), nothing.receipt().is_none(), nothing.0), (Outcome::Nothing, true, 0));
    let refused: Decided = store.decide(query(), |_| Err::<Append, _>("no"));
    assert_eq!(refused.unwrap_err().domain(), Some(&"no"));

    // What comes in between, of what is asked for and of what is not.
    let (mut seen, other) = (Vec::new(), store.clone());
    let applied: Decided = store.decide(query(), |counted: &Counted| {
        seen.push(counted.0);
        match seen.len() {
            1 => drop(done().commit(&other).unwrap()),
            2 => drop(other.append("thing:2", &Raw("thing.looked-at", &())).unwrap()),
            _ => {}
        }
        Ok(Some(done().and_to("log:1").event(&Raw("log.written", &()))))
    });
    let applied = applied.unwrap();
    assert_eq!((applied.outcome(), applied.conflicts(), applied.0), (Outcome::Applied, 1, 2));
    assert_eq!(applied.receipt().unwrap().events(), 2);
    assert_eq!(seen, [0, 1]);

    // The store's own events are no part of "everything".
    let mut runs = 0;
    let store = Store::on(MemDisk::new())
        .gate("no", |proposed: &annals::Proposed<'_>, _: &Store| {
            match proposed.events().any(|event| event.kind() == "forbidden") {
                true => Err(annals::Denial::new("forbidden")),
                false => Ok(annals::GateDecision::always()),
            }
        })
        .record_denials()
        .open()
        .unwrap();
    let applied: Decided = store.decide(Query::all(), |_: &Counted| {
        runs += 1;
        let denied = store.append("thing:3", &Raw("forbidden", &()));
        assert_eq!(kind_of(denied), ErrorKind::Denied);
        Ok(done())
    });
    let applied = applied.unwrap();
    assert_eq!((applied.0, applied.conflicts(), runs), (1, 0, 1));
    assert_eq!(store.count(Query::entity_prefix("$gate/")).unwrap(), 1);
}

#[test]
fn a_boundary_that_cannot_be_kept_is_refused() {
    let store = Store::in_memory().unwrap();
    let receipt = store.append("thing:1", &Raw("thing.done", &())).unwrap();
    let correlation: Decided = store.decide(Query::correlation(receipt.id()), |_: &Counted| {
        panic!("there is nothing to decide");
        #[allow(unreachable_code, reason = "it says what the type is")]
        Ok(None)
    });
    assert_eq!(correlation.unwrap_err().store().unwrap().kind(), ErrorKind::Invalid);
    // An expectation of the decision's own that never holds.
    let mut runs = 0;
    let stale: Decided = store.decide(Query::entity("thing:2"), |_: &Counted| {
        runs += 1;
        Ok(Append::to("thing:1").expect(Expected::NoStream).event(&AnyEvent))
    });
    assert_eq!(stale.unwrap_err().store().unwrap().kind(), ErrorKind::Conflict);
    assert_eq!(runs, 2);
    // One that forbids its own events is kept the first time.
    let once = || -> Decided {
        store.decide(Query::all().kind("any"), |counted: &Counted| match counted.0 {
            0 => Ok(Append::to("thing:3").event(&AnyEvent)),
            _ => Err("there is one"),
        })
    };
    assert_eq!(once().unwrap().outcome(), Outcome::Applied);
    assert_eq!(once().unwrap_err().domain(), Some(&"there is one"));
}

#[test]
fn a_boundary_with_a_key_is_decided_once() {
    let store = Store::in_memory().unwrap();
    let query = || Query::entity("thing:1");
    let decide = |key: &str, count: u64| -> Decided {
        store.decide_once(key, "count", query(), |_: &Counted| {
            Ok((0..count).fold(Append::to("thing:1"), |append, _| append.event(&AnyEvent)))
        })
    };
    assert_eq!(decide("req-1", 1).unwrap().outcome(), Outcome::Applied);
    let again = decide("req-1", 2).unwrap();
    assert_eq!((again.outcome(), again.0), (Outcome::AlreadyApplied, 1));
    assert!(again.receipt().unwrap().replayed());
    assert_eq!(decide("", 1).unwrap_err().store().unwrap().kind(), ErrorKind::Invalid);

    // Another caller uses the same key during the decision, with the same events or with others.
    for (round, others) in [(2, 2), (3, 1)] {
        let key = format!("req-{round}");
        let before = store.version("thing:1").unwrap().get();
        let outer: Decided = store.decide_once(&key, "count", query(), |_: &Counted| {
            assert_eq!(decide(&key, others).unwrap().outcome(), Outcome::Applied);
            Ok(Append::to("thing:1").event(&AnyEvent).event(&AnyEvent))
        });
        let outer = outer.unwrap();
        assert_eq!((outer.outcome(), outer.0), (Outcome::AlreadyApplied, before + others));
        assert_eq!(store.version("thing:1").unwrap().get(), before + others);
    }
    // A key that the decision itself gives is the append's, and a retry is one.
    for outcome in [Outcome::Applied, Outcome::AlreadyApplied] {
        let by_hand: Decided = store.decide(Query::entity("thing:4"), |_: &Counted| {
            Ok(Append::to("thing:4").event(&AnyEvent).key("by-hand"))
        });
        assert_eq!(by_hand.unwrap().outcome(), outcome);
    }
}

/// Seats are never given twice, and money is neither made nor lost, in any interleaving.
#[test]
fn invariants_across_entities_hold_under_many_threads() {
    const THREADS: u64 = 6;
    const EACH: u64 = 150;
    const ACCOUNTS: u64 = 4;
    let mut random = Random::for_test("invariants_across_entities_hold_under_many_threads");
    let seeds: Vec<u64> = (0..THREADS).map(|_| random.next()).collect();
    let store = buffered();
    let name = |number: u64| format!("account:{number}");
    for number in 0..ACCOUNTS {
        store.execute::<Account>(name(number), &Do::new(What::Deposit(1_000))).unwrap();
    }
    let refused = AtomicU64::new(0);
    thread::scope(|scope| {
        for seed in seeds {
            let (store, refused) = (&store, &refused);
            scope.spawn(move || {
                let mut random = Random::new(seed);
                for _ in 0..EACH {
                    let from = random.below(ACCOUNTS);
                    let (to, cents) = ((from + 1 + random.below(ACCOUNTS - 1)) % ACCOUNTS, random.below(900));
                    // Only the debited account decides. Events of the other one cause no conflict.
                    let result = store.decide(Query::entity(name(from)), |account: &Account| {
                        if account.cents < cents {
                            return Err("not enough");
                        }
                        let withdrawn = AccountEvent::Withdrawn { cents, id: 0 };
                        let append = Append::to(name(from)).event(&withdrawn).and_to(name(to));
                        Ok(append.event(&AccountEvent::Deposited { cents, id: 0 }))
                    });
                    match result {
                        Ok(_) => {}
                        Err(Refused::Domain(_)) => drop(refused.fetch_add(1, Ordering::Relaxed)),
                        Err(Refused::Store(error)) => panic!("{error}"),
                    }
                }
            });
        }
    });
    // An overdraft would have panicked in the fold.
    let cents: u64 = (0..ACCOUNTS).map(|number| store.load::<Account>(&name(number)).unwrap().cents).sum();
    assert_eq!(cents, ACCOUNTS * 1_000);
    assert!(refused.into_inner() > 0, "no transfer was ever refused");
}

/// Decides on one event for every command.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Growing(u64);

impl Projection for Growing {
    type Event = AnyEvent;
    const NAME: &'static str = "growing";

    fn apply(&mut self, _: AnyEvent, _: &Meta<'_>) {
        self.0 += 1;
    }
}

impl Aggregate for Growing {
    type Command = u64;
    type Error = NotEnough;

    fn decide(&self, _: &u64) -> Result<Vec<AnyEvent>, NotEnough> {
        Ok(vec![AnyEvent])
    }
}

/// A command that came again with the same key and other content was answered "applied before", although
/// README says: same key, other content, an error.
#[test]
fn a_key_belongs_to_one_command() {
    #[derive(Serialize)]
    struct Grow {
        by: u64,
    }
    impl Grow {
        fn append(&self) -> Append {
            Append::to("thing:1").event(&AnyEvent)
        }
    }
    type Door = fn(&Store, &str, u64) -> Result<bool, Error>;
    fn outcome<S, E: std::fmt::Debug>(done: Result<Executed<S>, Refused<E>>) -> Result<bool, Error> {
        match done {
            Ok(done) => Ok(done.outcome() == Outcome::AlreadyApplied),
            Err(Refused::Store(error)) => Err(error),
            Err(refused @ Refused::Domain(_)) => panic!("{refused:?}"),
        }
    }
    // Every command decides on the same event: only the command itself tells.
    let doors: [(&str, Door); 4] = [
        ("execute_once", |store, key, by| outcome(store.execute_once::<Growing>(key, "thing:1", &by))),
        ("execute_with", |store, key, by| {
            let with = |append: Append| append.key(key).command(&by);
            outcome(store.execute_with::<Growing>("thing:1", &by, with))
        }),
        ("decide_once", |store, key, by| {
            let grow = Grow { by };
            let decide = |_: &Counted| Ok::<_, NotEnough>(grow.append());
            outcome(store.decide_once(key, &grow, Query::entity("thing:1"), decide))
        }),
        ("append", |store, key, by| {
            let grow = Grow { by };
            grow.append().key(key).command(&grow).commit(store).map(|receipt| receipt.replayed())
        }),
    ];
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    let check = |store: &Store, door: &str, open: Door| {
        assert!(open(store, door, 1).unwrap(), "{door}, the same once more");
        let error = open(store, door, 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::KeyReused, "{door}, another: {error}");
        assert!(open(store, door, 1).unwrap(), "{door}, and the first one still");
    };
    for (door, open) in doors {
        assert!(!open(&store, door, 1).unwrap(), "{door}");
        check(&store, door, open);
    }
    store.close().unwrap();
    let store = Store::on(disk).open().unwrap();
    doors.iter().for_each(|(door, open)| check(&store, door, *open));
    assert_eq!(store.version("thing:1").unwrap().get(), 4);

    // A key that was used without a command, or for another append, is no command's.
    Append::to("thing:1").event(&AnyEvent).key("plain").commit(&store).unwrap();
    for (door, open) in doors {
        assert_eq!(open(&store, "plain", 1).unwrap_err().kind(), ErrorKind::KeyReused, "{door}");
    }
    let no_key = Append::to("thing:1").event(&AnyEvent).command(&1).commit(&store);
    assert_eq!(kind_of(no_key), ErrorKind::Invalid);
    // Two with one key at the same time: one is applied, and the other is another command.
    let outer = store.decide_once("raced", &1, Query::entity("thing:1"), |_: &Counted| {
        let inner = store.execute_once::<Growing>("raced", "thing:1", &7).unwrap();
        assert_eq!(inner.outcome(), Outcome::Applied);
        Ok::<_, NotEnough>(Append::to("thing:1").event(&AnyEvent))
    });
    assert_eq!(store_error(outer).kind(), ErrorKind::KeyReused);
    // Once the event is erased, the command is, too.
    store.erase(Query::entity("thing:1"), "asked for").unwrap();
    for (door, open) in doors {
        assert!(open(&store, door, 2).unwrap(), "{door}, erased");
    }
}
