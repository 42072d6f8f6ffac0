//! Append conditions: what they see, and in which order they are checked. Of appends that exclude each other
//! one is refused, in any interleaving.

use std::sync::Barrier;

use annals::disk::MemDisk;
use annals::{
    Append, AppendCondition, Builder, Durability, Error, ErrorKind, Expected, Position, Query, Raw, Store,
    Ticket,
};

use crate::support::{GatedDisk, Random, kind_of};

const EVENT: Raw<'_, ()> = Raw("thing.done", &());

/// An event of the naive store: where it lies in every dimension a condition may ask for.
#[derive(Clone, Debug)]
struct Known {
    entity: String,
    scope: String,
    kind: String,
    tags: Vec<String>,
}

impl Known {
    fn new(entity: &str, scope: &str, kind: &str, tags: &[&str]) -> Known {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        Known { entity: entity.to_owned(), scope: scope.to_owned(), kind: kind.to_owned(), tags }
    }

    fn append(&self) -> Append {
        let append = Append::to((self.entity.as_str(), self.scope.as_str()));
        self.tags.iter().fold(append.event(&Raw(&self.kind, &())), Append::tag)
    }
}

/// One part of a query, as the oracle understands it.
#[derive(Clone, Debug)]
enum Asked {
    All,
    Entity(&'static str),
    EntityPrefix(&'static str),
    Scope(&'static str),
    KindPrefix(&'static str),
    Tags(&'static [&'static str]),
    Either(Box<Asked>, Box<Asked>),
}

impl Asked {
    fn query(&self) -> Query {
        match self {
            Asked::All => Query::all(),
            Asked::Entity(entity) => Query::entity(*entity),
            Asked::EntityPrefix(prefix) => Query::entity_prefix(*prefix),
            Asked::Scope(scope) => Query::all().scope(*scope),
            Asked::KindPrefix(prefix) => Query::all().kind_prefix(*prefix),
            Asked::Tags(tags) => tags.iter().fold(Query::all(), |query, tag| query.tag(*tag)),
            Asked::Either(one, other) => one.query().or(other.query()),
        }
    }

    fn matches(&self, event: &Known) -> bool {
        match self {
            Asked::All => true,
            Asked::Entity(entity) => event.entity == *entity,
            Asked::EntityPrefix(prefix) => event.entity.starts_with(prefix),
            Asked::Scope(scope) => event.scope == *scope,
            Asked::KindPrefix(prefix) => event.kind.starts_with(prefix),
            Asked::Tags(tags) => tags.iter().all(|tag| event.tags.iter().any(|own| own == tag)),
            Asked::Either(one, other) => one.matches(event) || other.matches(event),
        }
    }
}

/// The naive store: decides one append after the other.
#[derive(Default)]
struct Oracle(Vec<Known>);

impl Oracle {
    /// The position of the event, or of those that keep it out: of each condition the first match. The
    /// store names one of them, which one depends on what its caller saw.
    fn append(&mut self, event: &Known, conditions: &[(Asked, u64)]) -> Result<u64, Vec<u64>> {
        let first_match = |(asked, after): &(Asked, u64)| {
            let mut known = (1..).zip(&self.0).filter(|(position, _)| position > after);
            known.find(|(_, known)| asked.matches(known)).map(|(position, _)| position)
        };
        let unmet: Vec<u64> = conditions.iter().filter_map(first_match).collect();
        if !unmet.is_empty() {
            return Err(unmet);
        }
        self.0.push(event.clone());
        Ok(u64::try_from(self.0.len()).unwrap())
    }
}

fn submit(store: &Store, event: &Known, conditions: &[(Asked, u64)]) -> Result<Ticket, Error> {
    let conditions = conditions
        .iter()
        .map(|(asked, after)| AppendCondition::none(asked.query()).after(Position::from(*after)));
    conditions.fold(event.append(), Append::condition).submit(store)
}

/// Whether the store says what the oracle said.
fn is_right(result: &Result<annals::Appended, Error>, right: &Result<u64, Vec<u64>>) -> bool {
    match (result, right) {
        (Ok(receipt), Ok(position)) => receipt.position().get() == *position,
        (Err(error), Err(unmet)) => {
            let named = |failed: &annals::FailedCondition| unmet.contains(&failed.first_match.get());
            error.kind() == ErrorKind::Conflict && error.failed_condition().is_some_and(named)
        }
        _ => false,
    }
}

// 2 of 5: "8 threads claiming one unique e-mail by condition: exactly one wins, 1,000 rounds".
#[test]
fn of_eight_claims_one_wins() {
    const ROUNDS: usize = 1_000;
    const THREADS: usize = 8;
    let store = Store::in_memory().unwrap();
    let barrier = Barrier::new(THREADS);
    let wins: usize = std::thread::scope(|scope| {
        let claim = |thread: usize| {
            let won = (0..ROUNDS).filter(|round| {
                barrier.wait();
                let email = format!("email:{round}@example.com");
                let taken = AppendCondition::none(Query::all().kind("email.claimed").tag(&email));
                let claim = Append::to(format!("user:{thread}")).event(&Raw("email.claimed", &email));
                match claim.tag(&email).condition(taken).commit(&store) {
                    Ok(_) => true,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
                        false
                    }
                }
            });
            won.count()
        };
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || claim(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(wins, ROUNDS);
    for round in 0..ROUNDS {
        let claims = store.read(Query::all().tag(format!("email:{round}@example.com")));
        assert_eq!(claims.count(), 1, "round {round}");
    }
}

/// Three callers: what each adds, and under which condition. The earlier appends are published when it looks,
/// or only staged in the same group. Every combination, in one segment and in many.
#[test]
fn three_callers_in_every_grouping() {
    let events = [
        Known::new("x:1", "default", "k.a", &["a"]),
        Known::new("x:2", "default", "k.b", &["b"]),
        Known::new("y:1", "s", "k.a", &["a", "b"]),
    ];
    let either = Asked::Either(Box::new(Asked::Entity("x:2")), Box::new(Asked::Tags(&["a", "b"])));
    let conditions: [&[(Asked, u64)]; 4] = [
        &[],
        &[(Asked::Tags(&["a"]), 1)],
        &[(Asked::EntityPrefix("x:"), 1), (Asked::Scope("s"), 0)],
        &[(either, 0)],
    ];
    let asks: Vec<(&Known, &[(Asked, u64)])> = events
        .iter()
        .flat_map(|event| conditions.iter().map(move |conditions| (event, *conditions)))
        .collect();
    let mut cases = 0;
    let mut refused = 0;
    for segment_bytes_max in [1 << 20, 0] {
        for settled in [[false, false], [true, false], [false, true], [true, true]] {
            for first in &asks {
                for second in &asks {
                    for third in &asks {
                        cases += 1;
                        refused += run([first, second, third], settled, segment_bytes_max);
                    }
                }
            }
        }
    }
    assert_eq!(cases, 2 * 4 * 12 * 12 * 12);
    assert!(refused > cases / 2 && refused < 2 * cases, "{refused} of {cases} times three were refused");
}

/// Before the three: an event with tag `a`, and one that holds the writer up while they come.
fn run(asks: [&(&Known, &[(Asked, u64)]); 3], settled: [bool; 2], segment_bytes_max: u32) -> usize {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).segment_bytes_max(segment_bytes_max).open().unwrap();
    let mut oracle = Oracle::default();
    let seed = Known::new("w", "default", "k", &["a"]);
    seed.append().commit(&store).unwrap();
    oracle.append(&seed, &[]).unwrap();
    let other = Known::new("other", "default", "other", &[]);
    let mut refused = 0;
    let mut asks = asks.into_iter();
    for group in [&[settled[0], settled[1], true][..]] {
        let mut waiting = Vec::new();
        let mut held = None;
        for is_last in group {
            let (event, conditions) = asks.next().unwrap();
            if held.is_none() {
                let arrived = disk.gate().arrived();
                held = Some(disk.gate().hold());
                let ahead = other.append().submit(&store).unwrap();
                disk.gate().wait_for_sync(arrived);
                let right = oracle.append(&other, &[]);
                waiting.push((Ok(ahead), right));
            }
            // The caller sees what is published: none of those that wait.
            let ticket = submit(&store, event, conditions);
            waiting.push((ticket, oracle.append(event, conditions)));
            if *is_last {
                drop(held.take());
                for (ticket, right) in waiting.drain(..) {
                    let found = ticket.and_then(Ticket::wait);
                    let case = (&found, &right, event, conditions, settled, segment_bytes_max);
                    assert!(is_right(&found, &right), "{case:?}");
                    refused += usize::from(found.is_err());
                }
            }
        }
    }
    store.close().unwrap();
    refused
}

/// Random conditions, many in flight, rolls, groups that fail, and reopening: always as if decided one by
/// one.
#[test]
fn random_conditions_agree_with_a_naive_store() {
    let mut random = Random::for_test("random_conditions_agree_with_a_naive_store");
    let mut refused = 0;
    let mut accepted = 0;
    for round in 0..12 {
        let disk = MemDisk::new();
        let segment_bytes_max = random.pick(&[0, 2_000, 1 << 20]);
        let durability = random.pick(&[
            Durability::Synced,
            Durability::Buffered { flush_every: std::time::Duration::from_millis(1) },
        ]);
        let open = || -> Store {
            let builder: Builder = Store::on(disk.clone());
            builder.segment_bytes_max(segment_bytes_max).durability(durability).open().unwrap()
        };
        let mut store = open();
        let mut oracle = Oracle::default();
        for _ in 0..40 {
            let mut flight = Vec::new();
            for _ in 0..random.below(30) {
                let event = draw_event(&mut random);
                let head = u64::try_from(oracle.0.len()).unwrap();
                let conditions: Vec<(Asked, u64)> = (0..random.below(3))
                    .map(|_| (draw_asked(&mut random, 1), head.saturating_sub(random.below(12))))
                    .collect();
                let right = oracle.append(&event, &conditions);
                flight.push((submit(&store, &event, &conditions), right, event, conditions));
                if random.chance(20) {
                    let (ticket, right, event, conditions) = flight.pop().unwrap();
                    let found = ticket.and_then(Ticket::wait);
                    assert!(
                        is_right(&found, &right),
                        "round {round}: {event:?} {conditions:?}: {found:?}, not {right:?}"
                    );
                }
            }
            for (ticket, right, event, conditions) in flight {
                let found = ticket.and_then(Ticket::wait);
                assert!(
                    is_right(&found, &right),
                    "round {round}: {event:?} {conditions:?}: {found:?}, not {right:?}"
                );
                if right.is_ok() { accepted += 1 } else { refused += 1 }
            }
            if random.chance(15) {
                store.close().unwrap();
                store = open();
            }
        }
        assert_eq!(store.head().unwrap().position().get(), u64::try_from(oracle.0.len()).unwrap());
        store.close().unwrap();
    }
    assert!(accepted > 1_000 && refused > 1_000, "{accepted} accepted, {refused} refused");
}

fn draw_event(random: &mut Random) -> Known {
    let tags: Vec<&str> = ["a", "b", "rare"]
        .into_iter()
        .filter(|tag| random.chance(if *tag == "rare" { 3 } else { 20 }))
        .collect();
    Known::new(
        random.pick(&["x:1", "x:10", "y:1", "z"]),
        random.pick(&["default", "s"]),
        random.pick(&["k.a", "k.b", "l"]),
        &tags,
    )
}

fn draw_asked(random: &mut Random, depth: u32) -> Asked {
    match random.below(if depth == 0 { 6 } else { 8 }) {
        0 => Asked::Entity(random.pick(&["x:1", "z", "none"])),
        1 => Asked::EntityPrefix(random.pick(&["x:1", "y", "none"])),
        2 => Asked::Scope(random.pick(&["s", "none"])),
        3 => Asked::KindPrefix(random.pick(&["k.", "l", "none"])),
        4 => Asked::Tags(random.pick(&[&["a"][..], &["rare"], &["a", "b"], &["none"]])),
        5 if random.chance(50) => Asked::All,
        5 => Asked::Tags(&["rare"]),
        _ => Asked::Either(Box::new(draw_asked(random, 0)), Box::new(draw_asked(random, 0))),
    }
}

#[test]
fn keys_come_first_then_expectations_then_conditions() {
    let store = Store::in_memory().unwrap();
    let claim = |key: &str, expected: Expected| {
        let taken = AppendCondition::none(Query::all().tag("email:a"));
        Append::to("user:1")
            .expect(expected)
            .event(&EVENT)
            .tag("email:a")
            .key(key)
            .condition(taken)
            .commit(&store)
    };
    let first = claim("k", Expected::NoStream).unwrap();
    // The retry's condition and expectation are broken by the first try itself.
    let again = claim("k", Expected::NoStream).unwrap();
    assert!(again.replayed());
    assert_eq!(again.position(), first.position());
    let conflict = claim("other", Expected::NoStream).unwrap_err();
    assert!(conflict.conflict().is_some() && conflict.failed_condition().is_none(), "{conflict}");
    let unmet = claim("other", Expected::Any).unwrap_err();
    assert!(unmet.conflict().is_none(), "{unmet}");
    let failed = unmet.failed_condition().unwrap();
    assert_eq!(failed.query, Query::all().tag("email:a"));
    assert_eq!((failed.after, failed.first_match.get()), (Position::START, 1));
    assert!(unmet.is_definite() && !unmet.is_retryable());
    for part in ["position 1", "tag email:a", "read on from position 0"] {
        assert!(unmet.to_string().contains(part), "{unmet}");
    }
    // A key whose append was refused is free.
    assert!(!claim("other", Expected::Any).is_ok_and(|receipt| receipt.replayed()));
    assert_eq!(store.head().unwrap().position().get(), 1);
}

#[test]
fn a_condition_cannot_ask_for_a_correlation() {
    let store = Store::in_memory().unwrap();
    let id = store.append("a", &EVENT).unwrap().ids().next().unwrap();
    let condition = AppendCondition::none(Query::correlation(id).or(Query::entity("b")));
    assert_eq!(
        kind_of(Append::to("a").event(&EVENT).condition(condition).commit(&store)),
        ErrorKind::Invalid
    );
}

// A condition refuses an append because of a staged event, and then the group fails. The refusal must not be
// definite: the staged event was never written.
#[test]
fn what_a_failed_group_refused_is_told_of_the_failure() {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    let (held, ahead) = disk.gate().hold_up(|| Append::to("other").event(&EVENT).submit(&store).unwrap());
    let claim = || {
        let taken = AppendCondition::none(Query::all().tag("t"));
        Append::to("a").event(&EVENT).tag("t").condition(taken).submit(&store).unwrap()
    };
    let (first, second) = (claim(), claim());
    disk.gate().set_behind_after(0, crate::support::Behind::Fail);
    drop(held);
    ahead.wait().unwrap();
    assert_eq!(kind_of(first.wait()), ErrorKind::CommitUnknown);
    assert_eq!(kind_of(second.wait()), ErrorKind::Poisoned);
}
