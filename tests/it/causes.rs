//! Ancestors, descendants, stories and paths, compared with naive walks over all events; and stories
//! written down.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use annals::disk::{Access, Disk, MemDisk};
use annals::{
    Append, Cause, ErrorKind, EventId, Position, Query, Raw, RecordedEvent, Store, Story, StoryEvent,
};
use serde_json::Value;

use crate::support::{Random, all, at, derived_id, kind_of};

const ENTITIES: [&str; 4] = ["a", "b", "b1", "c"];

fn some_id(number: u64) -> EventId {
    EventId::from_bytes([u8::try_from(number).unwrap() + 1; 16])
}

/// An event as the test remembers it; its position is its place in the list, from 1.
#[derive(Clone, Debug)]
struct Known {
    entity: &'static str,
    id: EventId,
    derived: EventId,
    foreign: Option<EventId>,
    cause: Named,
    correlation: EventId,
}

#[derive(Clone, Copy, Debug)]
enum Named {
    Nothing,
    Id(EventId),
    Position(usize),
    Previous,
}

#[derive(Default)]
struct Model {
    events: Vec<Known>,
}

impl Model {
    fn append_some(&mut self, store: &Store, random: &mut Random) {
        let count = if random.chance(60) { 1 } else { 2 + random.index(3) };
        let first = self.events.len() + 1;
        let mut append = None::<Append>;
        let mut new: Vec<(&str, Option<EventId>, Named, Option<EventId>)> = Vec::new();
        for _ in 0..count {
            let entity = random.pick(&ENTITIES);
            let mut next = match append {
                None => Append::to(entity),
                Some(append) => append.and_to(entity),
            };
            next = next.event(&Raw("k", &()));
            let foreign = random.chance(20).then(|| some_id(random.below(190)));
            let is_new = |id: &EventId| {
                let of_append = new.iter().any(|(_, foreign, ..)| *foreign == Some(*id));
                !of_append && self.events.iter().all(|event| event.foreign != Some(*id))
            };
            let foreign = foreign.filter(is_new);
            next = foreign.into_iter().fold(next, Append::foreign_id);
            let (named, cause) = self.draw_cause(first, count, random);
            next = cause.into_iter().fold(next, Append::cause);
            let correlation = random.chance(70).then(|| some_id(200 + random.below(3)));
            next = correlation.into_iter().fold(next, Append::correlation);
            append = Some(next);
            new.push((entity, foreign, named, correlation));
        }
        let receipt = append.unwrap().commit(store).unwrap();
        let ids: Vec<EventId> = receipt.ids().collect();
        for ((entity, foreign, cause, correlation), id) in new.into_iter().zip(&ids) {
            let position = Position::from(u64::try_from(self.events.len() + 1).unwrap());
            let derived = derived_id(&store.at(position).unwrap().unwrap());
            assert_eq!(*id, foreign.unwrap_or(derived));
            let correlation = correlation.unwrap_or(ids[0]);
            self.events.push(Known { entity, id: *id, derived, foreign, cause, correlation });
        }
    }

    fn draw_cause(&self, first: usize, count: usize, random: &mut Random) -> (Named, Option<Cause>) {
        match random.below(6) {
            0 => (Named::Nothing, None),
            1 => (Named::Previous, Some(Cause::PreviousInStream)),
            2 => {
                let index = random.index(count);
                let cause = Cause::InAppend(u16::try_from(index).unwrap());
                (Named::Position(first + index), Some(cause))
            }
            // Some of these ids no event has, or none yet.
            3 => {
                let id = some_id(random.below(195));
                (Named::Id(id), Some(Cause::Event(id)))
            }
            _ if self.events.is_empty() => (Named::Nothing, None),
            _ => {
                let recent = self.events.len().min(30);
                let event = &self.events[self.events.len() - 1 - random.index(recent)];
                let id = if random.chance(50) { event.id } else { event.derived };
                (Named::Id(id), Some(Cause::Event(id)))
            }
        }
    }

    /// The position of the event that an id finds.
    fn with_id(&self, id: EventId) -> Option<usize> {
        let derived = self.events.iter().position(|event| event.derived == id);
        let found = derived.or_else(|| self.events.iter().position(|event| event.foreign == Some(id)));
        found.map(|index| index + 1)
    }

    fn cause_of(&self, position: usize) -> Option<usize> {
        let event = &self.events[position - 1];
        match event.cause {
            Named::Nothing => None,
            Named::Id(id) => self.with_id(id),
            Named::Position(position) => Some(position),
            Named::Previous => {
                let before = self.events[..position - 1].iter().rposition(|e| e.entity == event.entity);
                before.map(|index| index + 1)
            }
        }
    }

    fn ancestors(&self, position: usize) -> Vec<usize> {
        let (mut found, mut seen) = (Vec::new(), BTreeSet::from([position]));
        let mut next = self.cause_of(position);
        while let Some(cause) = next.filter(|cause| seen.insert(*cause)) {
            found.push(cause);
            next = self.cause_of(cause);
        }
        found
    }

    /// Always the first event that is caused by one of those found so far.
    fn descendants(&self, position: usize, causes: &[Option<usize>]) -> Vec<usize> {
        let (mut found, mut seen) = (Vec::new(), BTreeSet::from([position]));
        while let Some(next) = (1..=self.events.len()).find(|candidate| {
            !seen.contains(candidate) && causes[candidate - 1].is_some_and(|cause| seen.contains(&cause))
        }) {
            seen.insert(next);
            found.push(next);
        }
        found
    }

    /// The ids of an entity's events that none of its other events is caused by.
    fn leaves(&self, entity: &str, causes: &[Option<usize>]) -> Vec<EventId> {
        let of_entity = |position: &usize| self.events[position - 1].entity == entity;
        let positions: Vec<usize> = (1..=self.events.len()).filter(of_entity).collect();
        let goes_on = |from: usize| positions.iter().any(|at| *at != from && causes[at - 1] == Some(from));
        positions.iter().filter(|at| !goes_on(**at)).map(|at| self.events[at - 1].id).collect()
    }
}

fn places<E: std::fmt::Debug>(events: impl Iterator<Item = Result<RecordedEvent, E>>) -> Vec<usize> {
    events.map(|event| place(&event.unwrap())).collect()
}

fn place(event: &RecordedEvent) -> usize {
    usize::try_from(event.position().get()).unwrap()
}

#[test]
fn walks_agree_with_naive_ones() {
    let mut random = Random::for_test("walks_agree_with_naive_ones");
    let (mut ancestors, mut descendants, mut circles, mut leaves) = (0, 0, 0, 0);
    for (segment_bytes_max, appends) in [(300, 120), (4000, 120), (1 << 20, 200), (1 << 20, 20)] {
        let disk = MemDisk::new();
        let open = || Store::on(disk.clone()).segment_bytes_max(segment_bytes_max).open().unwrap();
        let (mut store, mut model) = (open(), Model::default());
        (0..appends).for_each(|_| model.append_some(&store, &mut random));
        if random.chance(50) {
            store.close().unwrap();
            store = open();
        }
        let causes: Vec<_> = (1..=model.events.len()).map(|position| model.cause_of(position)).collect();
        for event in &model.events {
            let found = model.with_id(event.id).unwrap();
            let right = model.ancestors(found);
            ancestors += right.len();
            circles += usize::from(right.last().is_some_and(|last| causes[last - 1].is_some()));
            assert_eq!(places(store.ancestors(event.id)), right, "of {found}");
            let right = model.descendants(found, &causes);
            descendants += right.len();
            assert_eq!(places(store.descendants(event.id)), right, "of {found}");
            let own =
                |position: &&usize| model.events[**position - 1].entity == model.events[found - 1].entity;
            let chain = model.ancestors(found);
            let mut path: Vec<usize> = chain.iter().take_while(own).copied().collect();
            path.reverse();
            path.push(found);
            let shown: Vec<usize> = store.path(event.id).unwrap().iter().map(place).collect();
            assert_eq!(shown, path, "to {found}");
        }
        for entity in ENTITIES {
            let right = model.leaves(entity, &causes);
            leaves += right.len();
            assert_eq!(store.leaves(entity).unwrap(), right, "of {entity}");
        }
        for correlation in model.events.iter().map(|event| event.correlation) {
            check_story(&store.story(correlation).unwrap(), correlation, &model, &causes);
        }
    }
    println!(
        "{ancestors} ancestors, {descendants} descendants, {circles} walks into circles, {leaves} leaves"
    );
    assert!(ancestors > 500 && descendants > 500 && circles > 50 && leaves > 100);
}

fn check_story(story: &Story, correlation: EventId, model: &Model, causes: &[Option<usize>]) {
    let inside = |position: usize| model.events[position - 1].correlation == correlation;
    let right: Vec<usize> = (1..=model.events.len()).filter(|position| inside(*position)).collect();
    let shown: Vec<usize> = story.events().map(|event| place(event.event())).collect();
    assert_eq!((story.correlation(), story.is_cut(), shown), (correlation, false, right));
    let cause = |position: usize| causes[position - 1].filter(|cause| inside(*cause));
    let is_first_of_circle = |position: usize| {
        let (mut at, mut first) = (position, position);
        for _ in 0..=causes.len() {
            let Some(next) = cause(at) else { return false };
            (at, first) = (next, first.min(next));
            if at == position {
                return first == position;
            }
        }
        false
    };
    let mut reached = 0;
    for event in story.events() {
        let position = place(event.event());
        let own = cause(position).filter(|_| !is_first_of_circle(position));
        assert_eq!(event.cause().map(|cause| place(cause.event())), own, "the cause of {position}");
        assert_eq!(event.gap().is_some(), own.is_some());
        let effects: Vec<usize> = event.effects().map(|effect| place(effect.event())).collect();
        assert!(effects.is_sorted());
        for effect in event.effects() {
            assert_eq!(effect.cause().map(|cause| place(cause.event())), Some(position));
        }
        reached += effects.len();
    }
    let roots: Vec<usize> = story.roots().map(|root| place(root.event())).collect();
    assert_eq!(reached + roots.len(), story.events().len(), "everything stands in the tree");
    assert_eq!(story.to_string().lines().count(), story.events().len() + 1, "{story}");
    let json: Value = serde_json::from_str(&story.to_json()).unwrap();
    let edges = story.events().filter(|event| event.cause().is_some()).count();
    let drawn = json["events"].as_array().unwrap().iter().filter(|event| event["cause"].is_u64()).count();
    assert_eq!(drawn, edges);
    assert_eq!(story.to_dot().matches(" -> ").count(), edges);
    assert_eq!(story.to_mermaid().matches(" -->|").count(), edges);
}

/// A store whose clock stands where it is put.
fn clocked() -> (Store, Arc<AtomicI64>) {
    let time = Arc::new(AtomicI64::new(1_000_000_000_000));
    let clock = time.clone();
    let store = Store::on(MemDisk::new()).clock(move || at(clock.load(Ordering::SeqCst)));
    (store.open().unwrap(), time)
}

#[test]
fn a_story_reads_as_a_tree_with_gaps() {
    let (store, time) = clocked();
    let mut events = HashMap::new();
    // What happens, when after the one before, to whom, and because of what.
    let table = [
        ("order.placed", 0, "order:1", None),
        ("payment.asked", 250, "payment:9", Some("order.placed")),
        ("stock.reserved", 1_500, "stock:4", Some("order.placed")),
        ("payment.taken", 2_000_000, "payment:9", Some("payment.asked")),
        ("order.paid", 61_000_000, "order:1", Some("payment.taken")),
        ("stock.sent", 7_200_000_000, "stock:4", Some("stock.reserved")),
        ("order.closed", 180_000_000_000, "order:1", Some("order.paid")),
    ];
    for (kind, later, entity, cause) in table {
        time.fetch_add(later, Ordering::SeqCst);
        let append = Append::to(entity).event(&Raw(kind, &()));
        let append = match cause {
            Some(cause) => append.caused_by(&events[cause]),
            None => append,
        };
        let receipt = append.commit(&store).unwrap();
        events.insert(kind, store.at(receipt.position()).unwrap().unwrap());
    }
    let id = events["order.placed"].id();
    let right = "\
order:1 v1 order.placed @1
├─ +250us payment:9 v1 payment.asked @2
│  └─ +2.001s payment:9 v2 payment.taken @4
│     └─ +1m 1s order:1 v2 order.paid @5
│        └─ +2d 4h order:1 v3 order.closed @7
└─ +1.75ms stock:4 v1 stock.reserved @3
   └─ +2h 1m stock:4 v2 stock.sent @6
";
    assert_eq!(store.story(id).unwrap().to_string(), format!("story {id}: 7 events\n{right}"));
    let cut = store.story_limited(id, 2).unwrap();
    assert!(cut.is_cut() && cut.events().len() == 2);
    assert!(cut.to_string().starts_with(&format!("story {id}: 2 events, and there are more\n")));
    assert!(!store.story_limited(id, 7).unwrap().is_cut());
    let json: Value = serde_json::from_str(&store.story(id).unwrap().to_json()).unwrap();
    assert_eq!((&json["correlation"], &json["is_cut"]), (&id.to_string().into(), &false.into()));
    let taken = &json["events"][3];
    assert_eq!((&taken["position"], &taken["cause"]), (&4.into(), &2.into()));
    assert_eq!((&taken["gap_micros"], &taken["version"]), (&2_001_500.into(), &2.into()));
    assert_eq!(taken["recorded_at_micros"], 1_000_002_001_750_i64);
    assert_eq!(json["events"][0]["gap_micros"], Value::Null);
}

/// Names that could break out of the text that holds them.
const NASTY: [&str; 10] = [
    "a\"];b[\"c",
    "back\\slash\\N\\\\",
    "<script>alert(1)</script>&lt;&amp;",
    "#35;#quot;#",
    "`markdown` **bold** _x_",
    "%%{init: {}}%% end",
    "style:x#y; classDef:#z;",
    "a-->|b|c",
    "\u{202e}grün 日本 \u{2028}",
    "{\"json\": [1]}\\u0041",
];

#[test]
fn names_read_in_every_format_as_they_are() {
    let store = Store::in_memory().unwrap();
    for name in NASTY {
        // What cannot be seen is escaped, except in JSON, which holds the name itself.
        let shown = annals::visible(name);
        let append = Append::to((name, name)).event(&Raw(name, &())).event(&Raw("k", &()));
        let append = append.cause(Cause::InAppend(0)).tag(name);
        let id = append.occurred_at(at(-7)).commit(&store).unwrap().ids().next().unwrap();
        let story = store.story(id).unwrap();
        let events: Vec<StoryEvent<'_>> = story.events().collect();
        let (event, effect) = (events[0].event(), events[1].event());
        let place = |event: &RecordedEvent| format!("{shown} v{} @{}", event.version(), event.position());

        let json: Value = serde_json::from_str(&story.to_json()).unwrap();
        let first = &json["events"][0];
        for field in ["entity", "scope", "kind"] {
            assert_eq!(first[field], name);
        }
        assert_eq!(
            (&json["events"][1]["tags"][0], &first["id"]),
            (&name.into(), &event.id().to_string().into())
        );
        assert_eq!(json["events"][1]["occurred_at_micros"], -7);

        let graph = story.to_dot();
        let node = quoted(&graph, '\\').unwrap();
        assert_eq!(dot_text(&node), format!("{shown}\n{}", place(event)));
        assert_eq!(graph.lines().count(), 6, "{graph}");

        let chart = story.to_mermaid();
        assert_eq!(chart.lines().count(), 4, "{chart}");
        for (line, (kind, event)) in chart.lines().skip(1).zip([(&*shown, event), ("k", effect)]) {
            let label = line.split_once("[\"").unwrap().1.strip_suffix("\"]").unwrap();
            assert!(!label.contains(['"', '`', '\\', '%', '|', '{', '[', '&']), "{label}");
            let (shown_kind, shown_place) = label.split_once("<br/>").unwrap();
            assert!(!shown_kind.contains('<') && !shown_place.contains('<'), "{label}");
            let is_word = |label: &str| label.contains("style") || label.contains("classDef");
            assert!(!is_word(label) || !label.contains(':'), "Mermaid would take a sign away: {label}");
            assert_eq!(
                (mermaid_text(shown_kind), mermaid_text(shown_place)),
                (kind.to_owned(), place(event))
            );
            if kind == "k" {
                break;
            }
        }
        let text = story.to_string();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains(&*shown), "{text}");
    }
}

/// The first quoted string, as it is written.
fn quoted(text: &str, escape: char) -> Option<String> {
    let mut inside = text.split_once("label=\"")?.1.chars();
    let mut found = String::new();
    loop {
        match inside.next()? {
            '"' => return Some(found),
            sign if sign == escape => found.extend([sign, inside.next()?]),
            sign => found.push(sign),
        }
    }
}

/// What Graphviz shows for it.
fn dot_text(label: &str) -> String {
    let (mut shown, mut left) = (String::new(), label.chars());
    while let Some(sign) = left.next() {
        match sign {
            '\\' => shown.push(match left.next().unwrap() {
                'n' => '\n',
                sign @ ('"' | '\\') => sign,
                other => panic!("\\{other} means something to Graphviz"),
            }),
            sign => shown.push(sign),
        }
    }
    assert!(!shown.replace("&amp;", "").contains('&'), "{label}");
    shown.replace("&amp;", "&")
}

/// What Mermaid shows for it.
fn mermaid_text(label: &str) -> String {
    let mut pieces = label.split('#');
    let mut shown = pieces.next().unwrap().to_owned();
    for piece in pieces {
        let (number, rest) = piece.split_once(';').unwrap();
        shown.push(char::from_u32(number.parse().unwrap()).unwrap());
        shown.push_str(rest);
    }
    shown
}

#[test]
fn long_chains_are_cut_and_stay_small() {
    let store = Store::in_memory().unwrap();
    let id = some_id(7);
    let mut append = Append::to("e").correlation(id).cause(Cause::PreviousInStream);
    for _ in 0..10_001 {
        append = append.event(&Raw("k", &()));
    }
    append.commit(&store).unwrap();
    let story = store.story(id).unwrap();
    assert!(story.is_cut() && story.events().len() == 10_000 && story.roots().count() == 1);
    let text = story.to_string();
    assert!(text.len() < 4 << 20, "{} bytes", text.len());
    assert!(text.ends_with("[9999] +0s e v10000 k @10000\n"), "{}", &text[text.len() - 100..]);
    let last = store.last(Query::all()).unwrap().unwrap();
    assert_eq!(store.ancestors(last.id()).count(), 10_000);
    assert_eq!(store.path(last.id()).unwrap().len(), 10_001);
    assert_eq!(store.leaves("e").unwrap(), [last.id()]);
    let first = all(store.stream("e").limit(1)).remove(0);
    assert_eq!(store.descendants(first.id()).count(), 10_000);
}

#[test]
fn nothing_comes_of_unknown_ids_and_closed_stores() {
    let store = Store::in_memory().unwrap();
    let lone = store.append("e", &Raw("k", &())).unwrap().ids().next().unwrap();
    assert!(store.ancestors(some_id(1)).next().is_none() && store.descendants(some_id(1)).next().is_none());
    assert!(store.path(some_id(1)).unwrap().is_empty() && store.leaves("f").unwrap().is_empty());
    let story = store.story(some_id(1)).unwrap();
    assert_eq!((story.events().len(), story.is_cut()), (0, false));
    assert!(
        serde_json::from_str::<Value>(&story.to_json()).unwrap()["events"].as_array().unwrap().is_empty()
    );
    assert_eq!(store.story(lone).unwrap().events().len(), 1);
    let handle = store.clone();
    store.close().unwrap();
    let closed = [
        kind_of(handle.ancestors(lone).next().unwrap()),
        kind_of(handle.descendants(lone).next().unwrap()),
        kind_of(handle.story(lone)),
        kind_of(handle.path(lone)),
        kind_of(handle.leaves("e")),
    ];
    assert_eq!(closed, [ErrorKind::Closed; 5]);
}

#[test]
fn damage_ends_a_walk() {
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).segment_bytes_max(0).recent_bytes_max(0);
    let store = store.segment_memory_bytes(0).open().unwrap();
    let ids: Vec<EventId> = (0..3)
        .map(|_| {
            let append = Append::to("e").event(&Raw("k", &())).correlation(some_id(1));
            append.cause(Cause::PreviousInStream).commit(&store).unwrap().id()
        })
        .collect();
    // The segment of the first event.
    let mut segments = disk.list("segments").unwrap();
    segments.retain(|name| name.ends_with(".seg"));
    segments.sort();
    let file = disk.open(&format!("segments/{}", segments[0]), Access::Write).unwrap();
    file.write_at(&vec![0; usize::try_from(file.length().unwrap()).unwrap()], 0).unwrap();

    let mut ancestors = store.ancestors(ids[2]);
    assert_eq!(place(&ancestors.next().unwrap().unwrap()), 2);
    assert_eq!(kind_of(ancestors.next().unwrap()), ErrorKind::Corrupt);
    assert!(ancestors.next().is_none());
    assert_eq!(kind_of(store.descendants(ids[0]).next().unwrap()), ErrorKind::Corrupt);
    assert_eq!(places(store.descendants(ids[1])), [3]);
    assert_eq!([kind_of(store.story(some_id(1))), kind_of(store.path(ids[2]))], [ErrorKind::Corrupt; 2]);
}
