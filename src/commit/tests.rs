//! Three callers, every expectation, every state of their streams, every way to group them: decided
//! here and by a model that knows nothing but a list of events.

use super::*;

const A: &str = "a";
const B: &str = "b";

/// What a caller asks for: the events' entities in order, and what it expects of each entity.
#[derive(Clone, Copy, Debug)]
struct Ask {
    targets: &'static [&'static str],
    events: &'static [u16],
    expected: Expected,
    key: Option<KeyHash>,
}

/// What happens between one caller and the next.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    /// The next one is in the same group.
    Staged,
    /// The group was written.
    Settled,
    /// The group could not be written.
    Discarded,
}

/// Everything that was accepted: event by event its entity, append by append its key.
#[derive(Clone, Default)]
struct Model {
    events: Vec<&'static str>,
    keys: Vec<(KeyHash, u64)>,
    window: Option<u64>,
}

impl Model {
    fn next(&self) -> u64 {
        u64::try_from(self.events.len()).unwrap() + 1
    }

    fn head(&self, entity: &str) -> Head {
        let own = (1_u64..).zip(&self.events).filter(|(_, of)| **of == entity);
        let (count, last) = own.fold((0, 0), |(count, _), (position, _)| (count + 1, position));
        Head { version: Version::from(count), last: Position::from(last) }
    }

    fn decide(&mut self, ask: &Ask) -> Decision {
        let next = self.next();
        let known = |(key, position): &&(KeyHash, u64)| {
            Some(*key) == ask.key && self.window.is_none_or(|window| next - position <= window)
        };
        if let Some((_, position)) = self.keys.iter().rev().find(known) {
            return Decision::Seen(Position::from(*position));
        }
        for entity in ask.targets {
            let Head { version: actual, last } = self.head(entity);
            let is_right = match ask.expected {
                Expected::Any => true,
                Expected::NoStream => actual.get() == 0,
                Expected::StreamExists => actual.get() != 0,
                Expected::Exact(version) => actual == version,
            };
            if !is_right {
                let (entity, expected) = ((*entity).to_owned(), ask.expected);
                return Decision::Conflict(Conflict { entity, expected, actual, last });
            }
        }
        let mut versions = Vec::new();
        for event in ask.events {
            let entity = ask.targets[usize::from(*event)];
            self.events.push(entity);
            versions.push(self.head(entity).version);
        }
        self.keys.extend(ask.key.map(|key| (key, next)));
        let table = if ask.targets.len() == 1 { &[] } else { versions.as_slice() };
        Decision::Accepted {
            first_version: versions[0],
            version_table: table.iter().flat_map(|version| version.get().to_le_bytes()).collect(),
        }
    }
}

fn decide(ledger: &mut Ledger, ask: &Ask, next: u64) -> Decision {
    let target = |entity: &&str| Target { entity: (*entity).into(), expected: ask.expected };
    let targets: Vec<Target> = ask.targets.iter().map(target).collect();
    let proposal = Proposal {
        targets: &targets,
        target_of: if targets.len() == 1 { &[] } else { ask.events },
        events: u16::try_from(ask.events.len()).unwrap(),
        key: ask.key,
    };
    ledger.decide(&proposal, Position::from(next), || None)
}

fn asks() -> Vec<Ask> {
    let shapes: [(&[&str], &[u16]); 3] = [(&[A], &[0]), (&[B], &[0, 0]), (&[A, B], &[1, 0, 1])];
    let expectations =
        [Expected::Any, Expected::NoStream, Expected::StreamExists, Expected::exact(1), Expected::exact(2)];
    let mut asks = Vec::new();
    for (targets, events) in shapes {
        for expected in expectations {
            for key in [None, Some([1; 16])] {
                asks.push(Ask { targets, events, expected, key });
            }
        }
    }
    asks
}

/// The log that is there at the start: `a` events of one entity, and before them `b` of the other.
fn start(a: usize, b: usize, window: Option<u64>) -> (Ledger, Model) {
    let key_window = window.map_or(KeyWindow::Unlimited, KeyWindow::Positions);
    let mut ledger = Ledger::new(key_window);
    let mut model = Model { window, ..Model::default() };
    for entity in std::iter::repeat_n(B, b).chain(std::iter::repeat_n(A, a)) {
        model.events.push(entity);
        let Head { version, last } = model.head(entity);
        assert_eq!(ledger.learn(entity, version, last).plus(1), version);
    }
    (ledger, model)
}

#[test]
fn three_callers_in_every_order_and_grouping() {
    let asks = asks();
    let mut cases = 0;
    let mut seen = [0_u32; 3];
    for (a, b) in [(0, 0), (1, 0), (0, 2), (2, 1)] {
        for window in [None, Some(3)] {
            for first in &asks {
                for second in &asks {
                    for third in &asks {
                        for (one, two) in groupings() {
                            cases += 1;
                            let plan = [(first, one), (second, two), (third, Then::Settled)];
                            run(start(a, b, window), &plan, &mut seen);
                        }
                    }
                }
            }
        }
    }
    assert_eq!(cases, 4 * 2 * 30 * 30 * 30 * 9);
    assert!(seen.iter().all(|count| *count > 100_000), "accepted, seen, conflicts: {seen:?}");
}

fn groupings() -> impl Iterator<Item = (Then, Then)> {
    const ALL: [Then; 3] = [Then::Staged, Then::Settled, Then::Discarded];
    ALL.into_iter().flat_map(|one| ALL.into_iter().map(move |two| (one, two)))
}

fn run((mut ledger, mut model): (Ledger, Model), plan: &[(&Ask, Then); 3], seen: &mut [u32; 3]) {
    let mut published = model.clone();
    for (ask, then) in plan {
        let next = model.next();
        let right = model.decide(ask);
        let decision = decide(&mut ledger, ask, next);
        assert_eq!(decision, right, "{plan:?}");
        seen[match decision {
            Decision::Accepted { .. } => 0,
            Decision::Seen(_) => 1,
            Decision::Conflict(_) | Decision::Unmet(_) => 2,
        }] += 1;
        match then {
            Then::Staged => {}
            Then::Settled => {
                ledger.settle(Position::from(model.next()));
                published = model.clone();
            }
            Then::Discarded => {
                ledger.discard();
                model = published.clone();
            }
        }
    }
    let entities = [A, B].into_iter().filter(|entity| model.head(entity).version > Version::EMPTY);
    assert_eq!(ledger.entities(), entities.count(), "{plan:?}");
}

// A conflict on a later target must not leave the earlier ones staged.
#[test]
fn a_conflict_stages_nothing() {
    let (mut ledger, _) = start(1, 0, None);
    let ask = Ask { targets: &[A, B], events: &[0, 1], expected: Expected::exact(1), key: Some([7; 16]) };
    let Decision::Conflict(conflict) = decide(&mut ledger, &ask, 2) else { panic!("b is at 0") };
    assert_eq!((conflict.entity.as_str(), conflict.actual.get(), conflict.last.get()), (B, 0, 0));
    assert!(ledger.replaced.is_empty() && ledger.staged_keys.is_empty());
}

#[test]
fn keys_outside_the_window_take_no_room() {
    let mut ledger = Ledger::new(KeyWindow::Positions(10));
    let key = |number: u64| -> KeyHash { [number.to_le_bytes(), [0; 8]].concat().try_into().unwrap() };
    for position in 1..=1000 {
        ledger.learn_key(key(position), Position::from(position));
    }
    assert!(ledger.keys.len() <= 11 && ledger.key_order.len() <= 11, "{} keys", ledger.keys.len());
    for position in 1001..=2000 {
        let ask = Ask { targets: &[A], events: &[0], expected: Expected::Any, key: Some(key(position)) };
        assert!(matches!(decide(&mut ledger, &ask, position), Decision::Accepted { .. }));
        ledger.settle(Position::from(position + 1));
        assert!(ledger.keys.len() <= 11 && ledger.key_order.len() <= 11, "{} keys", ledger.keys.len());
    }
    for (position, is_known) in [(1990, false), (1991, true), (2000, true)] {
        assert_eq!(ledger.key(&key(position), Position::from(2001)).is_some(), is_known, "{position}");
    }
}

#[test]
fn learning_tells_the_version_before() {
    let mut ledger = Ledger::new(KeyWindow::Unlimited);
    let learned = [(A, 1, 0), (A, 2, 1), (B, 7, 0), (A, 5, 2), (B, 8, 7), (A, 5, 5)];
    for (position, (entity, version, before)) in (1_u64..).zip(learned) {
        assert_eq!(ledger.learn(entity, Version::from(version), position.into()).get(), before, "{position}");
    }
}
