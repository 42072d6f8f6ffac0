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
    Committed,
    /// The group could not be written.
    Discarded,
    /// The group was written, and the log goes on in a new segment.
    Rolled,
}

/// Up to where a caller has looked.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Look {
    /// All that was published when the first one came.
    Early,
    /// All that is published now.
    Late,
}

/// What is loaded of the log that is there at the start.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Start {
    /// Everything, by a walk.
    Loaded,
    /// Nothing; it lies in segments that were sealed.
    Sealed,
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

    fn head(&self, entity: &str) -> StreamHead {
        let own = (1_u64..).zip(&self.events).filter(|(_, of)| **of == entity);
        let (count, last) = own.fold((0, 0), |(count, _), (position, _)| (count + 1, position));
        StreamHead { version: Version::from(count), last: Position::from(last) }
    }

    fn decide(&mut self, ask: &Ask) -> Decision {
        let next = self.next();
        let known = |(key, position): &&(KeyHash, u64)| {
            Some(*key) == ask.key && self.window.is_none_or(|window| next - position <= window)
        };
        if let Some((_, position)) = self.keys.iter().rev().find(known) {
            return Decision::KeyKnown(Position::from(*position));
        }
        for entity in ask.targets {
            let StreamHead { version: actual, last } = self.head(entity);
            let is_right = match ask.expected {
                Expected::Any => true,
                Expected::NoStream => actual.get() == 0,
                Expected::StreamExists => actual.get() != 0,
                Expected::Exact(version) => actual == version,
            };
            if !is_right {
                let entity = (*entity).to_owned();
                return Decision::Conflict(Conflict { entity, expected: ask.expected, actual, last });
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
            versions: table.iter().flat_map(|version| version.get().to_le_bytes()).collect(),
        }
    }
}

/// As the writer does: by what the caller saw, `seen`, or by what is published if that is not enough.
fn decide(heads: &mut Heads, ask: &Ask, next: u64, seen: &Model, published: &Model) -> Decision {
    let up_to = |model: &Model| Position::from(model.next() - 1);
    let seen = if heads.covers(up_to(seen)) { seen } else { published };
    assert!(heads.covers(up_to(seen)), "what is published is always enough");
    let key = seen.keys.iter().rev().find(|(key, _)| Some(*key) == ask.key);
    let known = LookedUp { up_to: up_to(seen), key: key.map(|(_, position)| Position::from(*position)) };
    let target = |entity: &&str| StreamTarget {
        entity: (*entity).into(),
        expected: ask.expected,
        head: seen.head(entity),
    };
    let targets: Vec<StreamTarget> = ask.targets.iter().map(target).collect();
    let proposal = Proposal {
        ids: &[],
        targets: &targets,
        target_of: if targets.len() == 1 { &[] } else { ask.events },
        events: u16::try_from(ask.events.len()).unwrap(),
        key: ask.key,
        known,
    };
    heads.decide(&proposal, Position::from(next), || Ok(None)).unwrap()
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
fn start(a: usize, b: usize, window: Option<u64>, start: Start) -> (Heads, Model) {
    let key_window = window.map_or(KeyWindow::Unlimited, KeyWindow::Positions);
    let mut model = Model { window, ..Model::default() };
    model.events.extend(std::iter::repeat_n(B, b).chain(std::iter::repeat_n(A, a)));
    let since = if start == Start::Sealed { model.next() } else { 1 };
    let mut heads = Heads::new(key_window, since.into());
    for entity in [A, B].into_iter().filter(|entity| start == Start::Loaded && model.events.contains(entity))
    {
        let StreamHead { version, last } = model.head(entity);
        heads.load(entity, version, last);
    }
    (heads, model)
}

#[test]
fn three_callers_in_every_order_and_grouping() {
    let asks = asks();
    let mut cases = 0;
    let mut seen = [0_u32; 3];
    for (a, b) in [(0, 0), (1, 0), (0, 2), (2, 1)] {
        for window in [None, Some(3)] {
            for three in threes(&asks) {
                for one in [Then::Staged, Then::Committed, Then::Discarded] {
                    for two in [Then::Staged, Then::Committed, Then::Discarded] {
                        cases += 1;
                        let plan = [(one, Look::Late), (two, Look::Late), (Then::Committed, Look::Late)];
                        run(start(a, b, window, Start::Loaded), three, plan, &mut seen);
                    }
                }
            }
        }
    }
    assert_eq!(cases, 4 * 2 * 30 * 30 * 30 * 9);
    assert!(seen.iter().all(|count| *count > 100_000), "accepted, seen, conflicts: {seen:?}");
}

// What [`Heads`] does not know, the callers look up. How long ago they looked, and how often the log began
// a new segment since, must make no difference.
#[test]
fn callers_that_looked_long_ago_and_segments_that_ended() {
    const ALL: [Then; 4] = [Then::Staged, Then::Committed, Then::Discarded, Then::Rolled];
    let mut asks = asks();
    asks.retain(|ask| ask.expected != Expected::StreamExists && ask.expected != Expected::exact(2));
    let mut seen = [0_u32; 3];
    for (a, b) in [(0, 0), (2, 1)] {
        for (kind, window) in [(Start::Loaded, None), (Start::Sealed, None), (Start::Sealed, Some(3))] {
            for three in threes(&asks) {
                for (one, two) in ALL.into_iter().flat_map(|one| ALL.map(|two| (one, two))) {
                    for second in [Look::Early, Look::Late] {
                        for third in [Look::Early, Look::Late] {
                            let plan = [(one, Look::Early), (two, second), (Then::Rolled, third)];
                            run(start(a, b, window, kind), three, plan, &mut seen);
                        }
                    }
                }
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 100_000), "accepted, seen, conflicts: {seen:?}");
}

fn threes(asks: &[Ask]) -> impl Iterator<Item = [&Ask; 3]> {
    let pairs = asks.iter().flat_map(|first| asks.iter().map(move |second| (first, second)));
    pairs.flat_map(|(first, second)| asks.iter().map(move |third| [first, second, third]))
}

fn run(
    (mut heads, mut model): (Heads, Model),
    asks: [&Ask; 3],
    plan: [(Then, Look); 3],
    seen: &mut [u32; 3],
) {
    let early = model.clone();
    let mut published = model.clone();
    let begun = |model: &Model| [A, B].map(|entity| u64::from(model.head(entity).version > Version::EMPTY));
    for (ask, (then, look)) in asks.into_iter().zip(plan) {
        let next = model.next();
        let right = model.decide(ask);
        let looked = if look == Look::Early { &early } else { &published };
        let decision = decide(&mut heads, ask, next, looked, &published);
        assert_eq!(decision, right, "{asks:?} {plan:?}");
        seen[match decision {
            Decision::Accepted { .. } => 0,
            Decision::KeyKnown(_) => 1,
            Decision::Conflict(_) | Decision::ConditionFailed(_) | Decision::IdTaken(..) => 2,
        }] += 1;
        match then {
            Then::Staged => {}
            Then::Committed | Then::Rolled => {
                heads.commit();
                published = model.clone();
            }
            Then::Discarded => {
                heads.discard();
                model = published.clone();
            }
        }
        if then == Then::Rolled {
            heads.rotate(Position::from(model.next()));
        }
    }
    let born = begun(&model).iter().sum::<u64>() - begun(&early).iter().sum::<u64>();
    assert_eq!(heads.streams_created(), born, "{asks:?} {plan:?}");
}

// A conflict on a later target must not leave the earlier ones staged.
#[test]
fn a_conflict_stages_nothing() {
    let (mut heads, model) = start(1, 0, None, Start::Loaded);
    let ask = Ask { targets: &[A, B], events: &[0, 1], expected: Expected::exact(1), key: Some([7; 16]) };
    let decision = decide(&mut heads, &ask, 2, &model, &model);
    let Decision::Conflict(conflict) = decision else { panic!("b is at 0") };
    assert_eq!((conflict.entity.as_str(), conflict.actual.get(), conflict.last.get()), (B, 0, 0));
    assert!(heads.replaced.is_empty() && heads.staged_keys.is_empty());
}

#[test]
fn what_two_segments_did_not_bring_takes_no_room() {
    let (mut heads, mut model) = start(0, 0, Some(10), Start::Loaded);
    let entities: Vec<&'static str> = (0..40).map(|number| &*format!("e:{number}").leak()).collect();
    for (round, entity) in (0_u8..).zip(&entities) {
        let targets: &'static [&'static str] = std::slice::from_ref(&*Box::leak(Box::new(*entity)));
        let ask = Ask { targets, events: &[0], expected: Expected::NoStream, key: Some([round; 16]) };
        let next = model.next();
        assert_eq!(decide(&mut heads, &ask, next, &model.clone(), &model), model.decide(&ask));
        heads.commit();
        if round % 4 == 3 {
            heads.rotate(Position::from(model.next()));
        }
        let held = |recent: &SegmentHeads| (recent.heads.len(), recent.entities.len(), recent.keys.len());
        let recent = held(&heads.recent);
        let earlier = held(&heads.earlier);
        assert!(recent.0 <= 4 && recent.0 == recent.1 && recent.1 == recent.2, "{recent:?}");
        assert!(earlier.0 <= 4 && earlier.0 == earlier.1 && earlier.1 == earlier.2, "{earlier:?}");
    }
    assert_eq!(heads.streams_created(), 40);
}
