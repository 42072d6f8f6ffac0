//! Gates: what they see, what they answer, what becomes of those that misbehave, records of denials and
//! bypasses.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use annals::disk::MemDisk;
use annals::{
    Append, AppendCondition, Builder, Cause, Denial, Error, ErrorKind, Expected, Gate, GateDecision,
    KeyWindow, Limits, Outcome, Proposed, Query, Raw, Refused, Store,
};
use serde::Deserialize;

use crate::account::{Account, Do, What};
use crate::support::{Behind, FOREVER, GatedDisk, all, at, check_on, eventually, kind_of, within};

fn builder() -> Builder {
    Store::on(MemDisk::new())
}

/// A gate that is a closure; names the types once.
fn gate<F>(check: F) -> F
where
    F: Fn(&Proposed<'_>, &Store) -> Result<GateDecision, Denial> + Send + Sync + 'static,
{
    check
}

/// Lets nothing pass.
fn shut(_: &Proposed<'_>, _: &Store) -> Result<GateDecision, Denial> {
    Err(Denial::new("it is shut"))
}

fn done() -> Append {
    Append::to("thing:1").event(&Raw("thing.done", &7))
}

/// The payload of `$gate.denied`.
#[derive(Debug, Deserialize, PartialEq)]
struct Denied {
    reason: String,
    events: Vec<DeniedEvent>,
    more: usize,
}

#[derive(Debug, Deserialize, PartialEq)]
struct DeniedEvent {
    entity: String,
    scope: String,
    kind: String,
}

#[test]
fn a_gate_sees_all_that_the_caller_gave() {
    struct Session(u64);
    struct Role(&'static str);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let written = seen.clone();
    let store = builder()
        .gate(
            "look",
            gate(move |proposed, _| {
                let mut seen = written.lock().unwrap();
                for event in proposed.events() {
                    let tags: Vec<_> = event.tags().collect();
                    seen.push(format!(
                        "{} in {}: {} v{} {tags:?} {} {:?} {:?} {:?} {:?}",
                        event.entity(),
                        event.scope(),
                        event.kind(),
                        event.schema_version(),
                        event.decode::<u64>()?,
                        event.metadata::<String>()?,
                        event.occurred_at(),
                        event.cause(),
                        event.correlation().is_some(),
                    ));
                    assert_eq!(event.payload(), [7]);
                    assert_eq!(event.decode::<String>().unwrap_err().kind(), ErrorKind::Invalid);
                }
                seen.push(format!("{:?}", proposed.expectations().collect::<Vec<_>>()));
                seen.push(format!("{proposed:?}"));
                let session = proposed.context::<Session>().map(|session| session.0);
                let role = proposed.context::<Role>().map(|role| role.0);
                let none = proposed.context::<u64>();
                seen.push(format!("{:?} {session:?} {role:?} {none:?}", proposed.has_key()));
                Ok(GateDecision::always())
            }),
        )
        .open()
        .unwrap();
    store.append("first", &Raw("first", &7)).unwrap();
    let first = store.stream("first").next().unwrap().unwrap();
    seen.lock().unwrap().clear();
    done()
        .caused_by(&first)
        .tag("a")
        .tag("b")
        .metadata("who")
        .and_to(("thing:2", "tenant:1"))
        .expect(Expected::NoStream)
        .event(&Raw("thing.seen", &7))
        .cause(Cause::InAppend(0))
        .occurred_at(at(0))
        .key("k")
        .context(Session(1))
        .context(Role("clerk"))
        .context(Session(2))
        .commit(&store)
        .unwrap();
    let id = first.id();
    let time = at(0);
    let expected = [
        format!(
            "thing:1 in default: thing.done v1 [\"a\", \"b\"] 7 Some(\"who\") None {:?} true",
            Some(Cause::Event(id))
        ),
        format!(
            "thing:2 in tenant:1: thing.seen v1 [] 7 None {:?} {:?} false",
            Some(time),
            Some(Cause::InAppend(0))
        ),
        "[(\"thing:1\", Any), (\"thing:2\", NoStream)]".to_owned(),
        "[ProposedEvent { entity: \"thing:1\", scope: \"default\", kind: \"thing.done\", .. }, \
         ProposedEvent { entity: \"thing:2\", scope: \"tenant:1\", kind: \"thing.seen\", .. }]"
            .to_owned(),
        "true Some(2) Some(\"clerk\") None".to_owned(),
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
}

#[test]
fn gates_are_asked_in_order_and_the_first_denial_counts() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let note = |name: &'static str, denies: &'static str| {
        let asked = asked.clone();
        gate(move |proposed, _| {
            asked.lock().unwrap().push(name);
            match proposed.events().any(|event| event.kind() == denies) {
                true => Err(Denial::new(format!("{name} says no"))),
                false => Ok(GateDecision::always()),
            }
        })
    };
    let store = builder()
        .gate("one", note("one", "b"))
        .gate("two", note("two", "b"))
        .gate("three", note("three", "c"));
    let store = store.open().unwrap();
    for (kind, order, denier) in [
        ("a", &["one", "two", "three"][..], None),
        ("b", &["one"], Some("one")),
        ("c", &["one", "two", "three"], Some("three")),
    ] {
        let append = || Append::to("thing:1").event(&Raw(kind, &())).event(&Raw("d", &()));
        let results = [
            append().commit(&store),
            append().submit(&store).and_then(|ticket| ticket.wait()),
            append().try_submit(&store).and_then(|ticket| ticket.wait()),
        ];
        for result in results {
            let error = result.err();
            let denial = error.as_ref().and_then(Error::denial);
            assert_eq!(denial.map(|denial| denial.gate.as_str()), denier);
            let Some(error) = &error else { continue };
            assert_eq!(
                (error.kind(), error.is_definite(), error.is_retryable()),
                (ErrorKind::Denied, true, false)
            );
            let text = format!(
                "{kind} to thing:1 (and 1 more) was not appended; the gate {0} denies it: {0} says no",
                denier.unwrap()
            );
            assert_eq!(error.to_string(), text);
        }
        assert_eq!(std::mem::take(&mut *asked.lock().unwrap()), order.repeat(3));
    }
    assert_eq!(store.count(Query::all()).unwrap(), 3 * 2);
}

#[test]
fn the_names_of_gates_are_names_of_streams() {
    let open = |names: &[&str]| {
        let builder = builder().limits(Limits { entity_bytes_max: 100, ..Limits::default() });
        names.iter().fold(builder, |builder, name| builder.gate(*name, shut)).open()
    };
    for names in [&[""][..], &["a\nb"], &["$a"], &["same", "other", "same"]] {
        assert_eq!(kind_of(open(names)), ErrorKind::Invalid, "{names:?}");
    }
    assert_eq!(kind_of(open(&[&"n".repeat(95)])), ErrorKind::TooLarge);
    open(&[&"n".repeat(94), "limits", "who may do what"]).unwrap();
}

#[test]
fn a_gate_that_panics_denies() {
    let asked = Arc::new(AtomicU64::new(0));
    let counted = asked.clone();
    let store = builder()
        .gate(
            "broken",
            gate(move |proposed, _| {
                match proposed.events().next().unwrap().kind() {
                    "fine" => {}
                    "text" => panic!("on purpose: {}", 7),
                    "str" => panic!("on purpose"),
                    _ => std::panic::panic_any(7),
                }
                Ok(GateDecision::always())
            }),
        )
        .gate(
            "behind",
            gate(move |_, _| {
                counted.fetch_add(1, Ordering::SeqCst);
                Ok(GateDecision::always())
            }),
        )
        .record_denials()
        .open()
        .unwrap();
    for (kind, says) in [("text", "(on purpose: 7)"), ("str", "(on purpose)"), ("any", "(no text)")] {
        let error = store.append("thing:1", &Raw(kind, &())).unwrap_err();
        let denial = error.denial().unwrap();
        assert_eq!((error.kind(), denial.gate.as_str()), (ErrorKind::Denied, "broken"));
        assert!(denial.reason.contains("panicked") && denial.reason.contains(says), "{denial}");
        store.append("thing:1", &Raw("fine", &())).unwrap();
    }
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    assert_eq!(store.version("thing:1").unwrap().get(), 3);
    assert_eq!(store.version("$gate/broken").unwrap().get(), 3);
}

/// An error inside a gate denies as well: what cannot be found out is not allowed.
#[test]
fn a_gate_that_cannot_find_out_denies() {
    let store = builder()
        .gate(
            "decode",
            gate(|proposed, _| {
                proposed.events().try_for_each(|event| event.decode::<u64>().map(drop))?;
                Ok(GateDecision::always())
            }),
        )
        .open()
        .unwrap();
    done().commit(&store).unwrap();
    let error = store.append("thing:1", &Raw("thing.done", &"seven")).unwrap_err();
    assert!(
        error.denial().unwrap().reason.contains("thing.done for thing:1: the payload does not decode"),
        "{error}"
    );
}

#[test]
fn a_gate_may_read_and_append_and_not_for_ever() {
    let store = builder()
        .gate(
            "audit",
            gate(|proposed, store| {
                if proposed.events().all(|event| event.entity() == "audit") {
                    return Ok(GateDecision::always());
                }
                let before = store.version("audit")?.get();
                store.append("audit", &Raw("audit.asked", &before))?;
                Ok(GateDecision::always())
            }),
        )
        .open()
        .unwrap();
    for _ in 0..3 {
        done().commit(&store).unwrap();
    }
    assert_eq!((store.version("audit").unwrap().get(), store.version("thing:1").unwrap().get()), (3, 3));

    let endless = builder()
        .gate(
            "endless",
            gate(|_, store| {
                store.append("audit", &Raw("audit.asked", &()))?;
                Ok(GateDecision::always())
            }),
        )
        .open()
        .unwrap();
    let error = done().commit(&endless).unwrap_err();
    assert!(error.denial().unwrap().reason.contains("gates that append"), "{error}");
    assert_eq!(endless.count(Query::all()).unwrap(), 0);
}

/// A slow gate takes the time of its own caller, and of no other.
#[test]
fn a_gate_that_waits_holds_up_no_other_caller() {
    let (entered, entrance) = mpsc::sync_channel(1);
    let (leave, exit) = mpsc::sync_channel::<()>(1);
    let exit = Mutex::new(exit);
    let store = builder()
        .gate(
            "slow",
            gate(move |proposed, _| {
                if proposed.events().any(|event| event.kind() == "slow") {
                    entered.send(()).unwrap();
                    exit.lock().unwrap().recv().unwrap();
                }
                Ok(GateDecision::always())
            }),
        )
        .open()
        .unwrap();
    let slow = store.clone();
    let slow = thread::spawn(move || slow.append("thing:1", &Raw("slow", &())));
    entrance.recv_timeout(FOREVER).unwrap();
    let quick = store.clone();
    within(FOREVER, "another append", move || {
        done().commit(&quick).unwrap();
        quick.sync().unwrap();
    });
    leave.send(()).unwrap();
    assert_eq!(slow.join().unwrap().unwrap().version().get(), 2);
}

/// Of what a gate read it says what must stay so; if it does not, it is asked again.
#[test]
fn a_permit_holds_while_what_the_gate_read_stays_so() {
    /// A gate refuses movements of a frozen account. The account is frozen during the first check.
    fn store(freezes: bool) -> Store {
        let once = AtomicU64::new(if freezes { 0 } else { 1 });
        let not_frozen = gate(move |proposed, store| {
            if proposed.events().any(|event| event.kind() == "account.frozen") {
                return Ok(GateDecision::always());
            }
            let mut permit = GateDecision::always();
            for (entity, _) in proposed.expectations() {
                let frozen = Query::entity(entity).kind("account.frozen");
                let head = store.head()?.position();
                if store.exists(frozen.clone())? {
                    return Err(Denial::new(format!("{entity} is frozen")));
                }
                if once.fetch_add(1, Ordering::SeqCst) == 0 {
                    store.append(entity, &Raw("account.frozen", &()))?;
                }
                permit = permit.and_while_none(AppendCondition::none(frozen).after(head));
            }
            Ok(permit)
        });
        builder().gate("frozen", not_frozen).open().unwrap()
    }
    let deposit = || Append::to("account:bob").event(&Raw("account.deposited", &1));
    deposit().commit(&store(false)).unwrap();
    let frozen = store(true);
    let error = deposit().commit(&frozen).unwrap_err();
    assert_eq!(error.failed_condition().unwrap().first_match.get(), 1);
    assert_eq!(kind_of(deposit().commit(&frozen)), ErrorKind::Denied);

    // A second decision asks the gate again: the conflict becomes a denial.
    let refused = store(true).execute::<Account>("account:alice", &Do::new(What::Deposit(1))).unwrap_err();
    // (The state knows no frozen accounts.)
    assert!(
        matches!(&refused, Refused::Store(error) if error.kind() == ErrorKind::Undecodable),
        "{refused:?}"
    );
    let refused =
        store(true).decide(Query::entity("other"), |_: &Account| Ok::<_, Error>(deposit())).unwrap_err();
    assert_eq!(refused.store().unwrap().kind(), ErrorKind::Denied);

    let correlation = Query::correlation(frozen.stream("account:bob").next().unwrap().unwrap().id());
    let cannot = builder()
        .gate(
            "cannot",
            gate(move |_, _| Ok(GateDecision::while_none(AppendCondition::none(correlation.clone())))),
        )
        .open()
        .unwrap();
    assert_eq!(kind_of(done().commit(&cannot)), ErrorKind::Invalid);
}

/// An append that was let pass and answered is answered the same when it is repeated.
#[test]
fn a_retry_gets_its_receipt_from_a_gate_that_changed_its_mind() {
    let is_shut = Arc::new(AtomicU64::new(0));
    let state = is_shut.clone();
    let store = builder()
        .gate(
            "mood",
            gate(move |_, _| match state.load(Ordering::SeqCst) {
                0 => Ok(GateDecision::always()),
                _ => Err(Denial::new("not any more")),
            }),
        )
        .record_denials()
        .open()
        .unwrap();
    let append = |key: &str| done().expect(Expected::NoStream).key(key);
    let first = append("k").commit(&store).unwrap();
    is_shut.store(1, Ordering::SeqCst);
    let again = [
        append("k").commit(&store),
        append("k").submit(&store).and_then(|ticket| ticket.wait()),
        append("k").try_submit(&store).and_then(|ticket| ticket.wait()),
    ];
    for again in again {
        let again = again.unwrap();
        assert_eq!((again.position(), again.replayed()), (first.position(), true));
    }
    // Another append with that key, and another key.
    let other = Append::to("thing:1").event(&Raw("thing.done", &8)).key("k");
    assert_eq!(kind_of(other.commit(&store)), ErrorKind::KeyReused);
    assert_eq!(store.version("$gate/mood").unwrap().get(), 0);
    assert_eq!(kind_of(append("l").commit(&store)), ErrorKind::Denied);
    assert_eq!(store.version("$gate/mood").unwrap().get(), 1);

    // The look-up of a key passes no gate: it is the store's own.
    is_shut.store(0, Ordering::SeqCst);
    let deposit = || {
        let command = Do::new(What::Deposit(1));
        store.execute_with::<Account>("account:alice", &command, |append| append.key("m")).unwrap().outcome()
    };
    assert_eq!(deposit(), Outcome::Applied);
    is_shut.store(1, Ordering::SeqCst);
    assert_eq!(deposit(), Outcome::AlreadyApplied);
}

/// The key is known when it is looked up, and forgotten when the append comes: it is not written past the
/// gate.
#[test]
fn a_retry_whose_key_is_forgotten_on_the_way_is_not_written() {
    let disk = GatedDisk::new();
    let is_shut = Arc::new(AtomicU64::new(0));
    let state = is_shut.clone();
    let mood = gate(move |proposed, _| match state.load(Ordering::SeqCst) {
        1 if proposed.has_key() => Err(Denial::new("not any more")),
        _ => Ok(GateDecision::always()),
    });
    let builder = Store::on(disk.clone()).key_window(KeyWindow::Positions(2)).gate("mood", mood);
    let store = builder.open().unwrap();
    done().key("k").commit(&store).unwrap();
    is_shut.store(1, Ordering::SeqCst);
    let other = || Append::to("other").event(&Raw("thing.done", &())).submit(&store).unwrap();
    let (held, first) = disk.gate().hold_up(other);
    let handle = store.clone();
    let retry = thread::spawn(move || done().key("k").commit(&handle));
    eventually("the key is being looked up", || store.stats().queue_commands == 1);
    let others = [other(), other()];
    drop(held);
    first.wait().unwrap();
    others.into_iter().for_each(|other| drop(other.wait().unwrap()));
    assert_eq!(kind_of(retry.join().unwrap()), ErrorKind::Conflict);
    assert_eq!(store.version("thing:1").unwrap().get(), 1);
}

#[test]
fn denials_are_recorded_if_that_is_asked() {
    for records in [false, true] {
        let builder = builder().gate("shut", shut);
        let store = if records { builder.record_denials() } else { builder }.open().unwrap();
        let append = done().tag("secret").metadata("secret").and_to(("thing:2", "tenant:1"));
        assert_eq!(kind_of(append.event(&Raw("thing.seen", &"secret")).commit(&store)), ErrorKind::Denied);
        assert_eq!(store.count(Query::all()).unwrap(), 0);
        let events = all(store.stream("$gate/shut"));
        assert_eq!(events.len(), usize::from(records));
        let Some(event) = events.first() else { continue };
        assert_eq!((event.kind(), event.scope()), ("$gate.denied", "$"));
        let name = |entity: &str, scope: &str, kind: &str| DeniedEvent {
            entity: entity.to_owned(),
            scope: scope.to_owned(),
            kind: kind.to_owned(),
        };
        let events =
            vec![name("thing:1", "default", "thing.done"), name("thing:2", "tenant:1", "thing.seen")];
        let denied = Denied { reason: "it is shut".to_owned(), events, more: 0 };
        assert_eq!(event.decode::<Denied>().unwrap(), denied);
        assert!(!event.payload().unwrap().windows(6).any(|bytes| bytes == b"secret"));
    }
}

/// The record of a denial stays small, and is part of the story of the denied append.
#[test]
fn a_record_of_a_denial_is_bounded_and_belongs_somewhere() {
    let long = gate(|_, _| Err(Denial::new("ä".repeat(10_000))));
    let is_off = Arc::new(AtomicU64::new(1));
    let off = is_off.clone();
    let long = gate(move |proposed, store| match off.load(Ordering::SeqCst) {
        0 => long(proposed, store),
        _ => Ok(GateDecision::always()),
    });
    let store = builder().gate("long", long).record_denials().open().unwrap();
    store.append("order:1", &Raw("order.placed", &())).unwrap();
    let order = store.stream("order:1").next().unwrap().unwrap();
    is_off.store(0, Ordering::SeqCst);
    let many =
        (0..150).fold(Append::to("thing:1").caused_by(&order), |append, _| append.event(&Raw("d", &())));
    let error = many.commit(&store).unwrap_err();
    assert_eq!(error.denial().unwrap().reason.chars().count(), 10_000);
    let record = store.stream("$gate/long").next().unwrap().unwrap();
    assert_eq!((record.correlation(), record.cause()), (order.id(), Some(Cause::Event(order.id()))));
    let denied: Denied = record.decode().unwrap();
    assert_eq!(
        (denied.reason.as_str(), denied.events.len(), denied.more),
        ("ä".repeat(512).as_str(), 100, 50)
    );
    // What it was caused by inside the denied append is nowhere.
    let inside = done().event(&Raw("d", &())).and_to("thing:2").event(&Raw("e", &()));
    assert_eq!(kind_of(inside.cause(Cause::InAppend(0)).commit(&store)), ErrorKind::Denied);
    assert_eq!(store.last(Query::entity("$gate/long")).unwrap().unwrap().cause(), None);
}

#[test]
fn a_denial_that_cannot_be_recorded_says_so() {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).gate("shut", shut).record_denials().open().unwrap();
    disk.gate().set_behind(Behind::Fail);
    let error = done().commit(&store).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("could not be recorded"), "{error}");
    disk.gate().set_behind(Behind::Sync);
}

#[test]
fn a_bypass_is_recorded_with_what_it_lets_through() {
    let disk = MemDisk::new();
    let open = |names: &[&str]| {
        let builder = Store::on(disk.clone());
        names.iter().fold(builder, |builder, name| builder.gate(*name, shut)).open().unwrap()
    };
    let store = open(&["one", "two"]);
    let append = |reason: &str| {
        done().event(&Raw("thing.done", &8)).expect(Expected::NoStream).key("k").bypass_gates(reason)
    };
    assert_eq!(kind_of(append("").commit(&store)), ErrorKind::Invalid);
    let receipt = append("court order").commit(&store).unwrap();
    let versions: Vec<_> = receipt.versions().map(|version| version.get()).collect();
    assert_eq!((receipt.events(), versions, receipt.position().get()), (2, vec![1, 2], 2));
    assert_eq!(store.get(receipt.id()).unwrap().unwrap().decode::<u64>().unwrap(), 8);
    for name in ["$gate/one", "$gate/two"] {
        let events = all(store.stream(name));
        assert_eq!((events.len(), events[0].kind()), (1, "$gate.bypassed"));
        let payload: std::collections::BTreeMap<String, String> = events[0].decode().unwrap();
        assert_eq!(payload["reason"], "court order");
        // One frame, one story.
        assert_eq!(events[0].chain(), store.at(receipt.position()).unwrap().unwrap().chain());
        assert_eq!(events[0].correlation(), receipt.ids().next().unwrap());
    }
    assert_eq!(store.count(Query::all()).unwrap(), 2);
    // A retry is one, though its reason, and by then the gates, may be others.
    let same = |again: annals::Appended| {
        assert!(again.replayed());
        assert_eq!((again.events(), again.position(), again.id()), (2, receipt.position(), receipt.id()));
    };
    same(append("court order 12/7").commit(&store).unwrap());
    store.close().unwrap();
    for names in [&[][..], &["one"], &["three", "four", "five"]] {
        let store = open(names);
        same(append("court order").commit(&store).unwrap());
        store.close().unwrap();
    }
    // Without gates there is nothing to bypass.
    let store = open(&[]);
    let receipt = done().bypass_gates("no operator there").commit(&store).unwrap();
    assert_eq!(receipt.position(), store.head().unwrap().position());
    assert!(store.verify().unwrap().is_clean());
}

/// A gate is not asked about an append that is refused anyway.
#[test]
fn gates_are_not_asked_for_nothing() {
    let disk = MemDisk::new();
    Store::on(disk.clone()).open().unwrap().close().unwrap();
    let asked = Arc::new(AtomicU64::new(0));
    let counted = asked.clone();
    let open = move || {
        let counted = counted.clone();
        let count = gate(move |_, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(GateDecision::always())
        });
        Store::on(disk.clone()).gate("count", count)
    };
    let reading = open().open_read_only().unwrap();
    assert_eq!(kind_of(done().commit(&reading)), ErrorKind::Invalid);
    let store = open().open().unwrap();
    assert_eq!(kind_of(Append::to("thing:1").commit(&store)), ErrorKind::Invalid);
    assert_eq!(kind_of(Append::to("").event(&Raw("d", &())).commit(&store)), ErrorKind::Invalid);
    store.clone().close().unwrap();
    assert_eq!(kind_of(done().commit(&store)), ErrorKind::Closed);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    drop(store);
    done().commit(&open().open().unwrap()).unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// A gate that lets everything pass changes nothing.
#[test]
fn a_store_with_an_open_gate_is_like_one_without() {
    struct Open;
    impl Gate for Open {
        fn check(&self, _: &Proposed<'_>, _: &Store) -> Result<GateDecision, Denial> {
            Ok(GateDecision::always())
        }
    }
    let disk = MemDisk::new();
    check_on(
        "
        append order-1 expect none key=k placed:book paid + order-2 in=shop placed => v1 v2 v1 @1..3
        append order-1 expect none key=k placed:book paid + order-2 in=shop placed => replayed v1 v2 v1 @1..3
        append order-1 expect none placed => conflict on order-1, actual v2 @2
        reopen
        read order-1 => placed:book paid
        ",
        move || Store::on(disk.clone()).gate("open", Open).record_denials(),
    );
}
