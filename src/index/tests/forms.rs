//! Every form gives the naive answer to every question.

use std::collections::BTreeMap;

use super::*;

/// An index in one of its forms, and what it has.
struct Case<'a> {
    form: &'static str,
    answers: Box<dyn SegmentIndex>,
    events: &'a [Known],
}

/// All forms of the index of a story, and of the parts it has when it is split anywhere.
fn cases<'a>(random: &mut Random, story: &'a Story) -> Vec<Case<'a>> {
    let frames = story.frames.len();
    let split = usize::try_from(random.below(number(frames) + 1)).unwrap();
    let part = |frames: Range<usize>| (story.index(frames.clone()), story.events(frames));
    let (live, events) = part(0..frames);
    let (first, first_events) = part(0..split);
    let (second, second_events) = part(split..frames);
    let joined = LiveIndex::concat(&whole(&first), &second).unwrap();
    let joined_of_file = LiveIndex::concat(&in_file(&first), &second).unwrap();
    // Made of the parts, it is the same to the last byte.
    assert!(joined.encode(&bound(&joined)) == live.encode(&bound(&live)), "split at {split}");
    let case = |form, answers: Box<dyn SegmentIndex>, events| Case { form, answers, events };
    vec![
        case("whole", Box::new(whole(&live)), events),
        case("file", Box::new(in_file(&live)), events),
        case("loaded", Box::new(in_file(&live).load().unwrap().unwrap()), events),
        case("joined", Box::new(joined), events),
        case("joined from a file", Box::new(joined_of_file), events),
        case("live", Box::new(live), events),
        case("first part in a file", Box::new(in_file(&first)), first_events),
        case("first part", Box::new(first), first_events),
        case("second part whole", Box::new(whole(&second)), second_events),
        case("second part in a file", Box::new(in_file(&second)), second_events),
        case("second part", Box::new(second), second_events),
    ]
}

fn places(events: &[&Known]) -> Vec<EventLocation> {
    let place = |event: &&Known| EventLocation {
        ordinal: event.ordinal,
        frame: event.frame.clone(),
        record: event.record.clone(),
    };
    events.iter().map(place).collect()
}

/// Bounds anywhere, also beyond what there is.
fn window(random: &mut Random, story: &Story) -> Range<u32> {
    let end = u64::from(story.events.last().unwrap().ordinal) + 3;
    let [one, other] = [(); 2].map(|()| u32::try_from(random.below(end)).unwrap());
    match random.below(10) {
        0 => one..one,
        1 => 0..u32::MAX,
        _ => one.min(other)..one.max(other),
    }
}

#[test]
fn queries_agree_with_a_naive_filter() {
    let mut random = Random(20_260_101);
    let mut found = 0;
    for (frames, removed) in [(1, 0), (10, 0), (300, 0), (3000, 0), (1, 100), (10, 50), (300, 10), (2000, 1)]
    {
        let story = build(&mut random, frames, removed);
        let cases = cases(&mut random, &story);
        for _ in 0..200 {
            let items = (0..random.below(4)).map(|_| draw_item(&mut random, &story.events)).collect();
            let query = Query { items };
            let window = window(&mut random, &story);
            let own = random.chance(50).then(|| {
                story.events[usize::try_from(random.below(number(story.events.len()))).unwrap()].ordinal
            });
            let most = if random.chance(50) { usize::MAX } else { usize::try_from(random.below(5)).unwrap() };
            for case in &cases {
                found += check_query(case, &query, &window, own, most);
            }
        }
    }
    assert!(found > 100_000, "{found}");
}

fn check_query(case: &Case<'_>, query: &Query, window: &Range<u32>, own: Option<u32>, most: usize) -> usize {
    let Case { form, answers, events } = case;
    let told = format!("{form}: {query:?} in {window:?}, {most} with {own:?}");
    let is_right = |event: &&Known| {
        window.contains(&event.ordinal)
            && query.items.iter().any(|item| matches(item, event, own == Some(event.ordinal)))
    };
    let mut right: Vec<&Known> = events.iter().filter(is_right).collect();
    let found = right.len();
    assert_eq!(answers.count(query, window, &|_| own).unwrap(), number(found), "{told}");
    assert_eq!(answers.exists(query, window, &|_| own).unwrap(), found > 0, "{told}");
    for direction in [Direction::Forward, Direction::Backward] {
        let matching = answers.matching(query, window, direction, &|_| own, most).unwrap();
        let first = &right[..found.min(most)];
        assert!(matching == places(first), "{told} {direction:?}: {matching:?} and not {first:?}");
        right.reverse();
    }
    found
}

#[test]
fn places_streams_and_ids_agree_with_a_naive_search() {
    let mut random = Random(20_260_102);
    for (frames, removed) in [(1, 0), (30, 0), (400, 0), (30, 40), (400, 10)] {
        let story = build(&mut random, frames, removed);
        for case in cases(&mut random, &story) {
            check_places(&case, &story);
            check_ids(&case);
            check_streams(&mut random, &case);
        }
    }
}

fn check_places(case: &Case<'_>, story: &Story) {
    let Case { form, answers, events } = case;
    assert_eq!(answers.events(), u32::try_from(events.len()).unwrap(), "{form}");
    let ordinals =
        events.first().zip(events.last()).map_or(0..0, |(one, other)| one.ordinal..other.ordinal + 1);
    assert_eq!(answers.ordinals(), ordinals, "{form}");
    let born = events.iter().filter(|event| event.version == 1).count();
    assert_eq!(answers.streams_created(), u32::try_from(born).unwrap(), "{form}");
    let end = story.events.last().unwrap().ordinal + 2;
    for ordinal in (0..end).chain([u32::MAX]) {
        let from = events.iter().find(|event| event.ordinal >= ordinal);
        let from = from.map(|event| places(&[event]).remove(0));
        assert_eq!(answers.locate_from(ordinal).unwrap(), from, "{form} from {ordinal}");
        let at = from.filter(|place| place.ordinal == ordinal);
        assert_eq!(answers.locate(ordinal).unwrap(), at, "{form} at {ordinal}");
        let is_follower = |event: &Known| event.cause == Some(Cause::PreviousInStream);
        let is_follower = events.iter().any(|event| event.ordinal == ordinal && is_follower(event));
        assert_eq!(answers.is_follower(ordinal).unwrap(), is_follower, "{form} {ordinal}");
    }
}

fn check_ids(case: &Case<'_>) {
    let Case { form, answers, events } = case;
    let shared = events.iter().filter_map(|event| event.correlation).take(50);
    for id in (0..=255).map(id).chain(shared) {
        let with = |has: &dyn Fn(&&Known) -> bool| -> Vec<u32> {
            events.iter().filter(has).map(|event| event.ordinal).collect()
        };
        let effects = with(&|event| event.cause == Some(Cause::Event(id)));
        assert_eq!(answers.effects(id).unwrap(), effects, "{form} {id}");
        let foreign = with(&|event| event.foreign_id == Some(id));
        assert_eq!(answers.foreign(id).unwrap(), foreign.first().copied(), "{form} {id}");
        let keyed = with(&|event| event.key == Some(*id.as_bytes()));
        assert_eq!(answers.key(id.as_bytes()).unwrap(), keyed.last().copied(), "{form} {id}");
        let correlated = with(&|event| event.correlation == Some(id));
        for event in events.iter().step_by(7) {
            let is_one = correlated.contains(&event.ordinal);
            assert_eq!(answers.correlates(id, event.ordinal).unwrap(), is_one, "{form} {id}");
        }
    }
}

fn check_streams(random: &mut Random, case: &Case<'_>) {
    let Case { form, answers, events } = case;
    for entity in ENTITIES.into_iter().chain(["none", ""]) {
        let own: Vec<(u64, u32)> =
            events.iter().filter(|e| e.entity == entity).map(|e| (e.version, e.ordinal)).collect();
        let end = events.last().map_or(0, |last| last.ordinal) + 2;
        for up_to in (0..end).step_by(3).chain([u32::MAX]) {
            let right = own.iter().rev().find(|(_, ordinal)| *ordinal <= up_to).copied();
            assert_eq!(answers.last_of(entity, up_to).unwrap(), right, "{form} {entity} up to {up_to}");
        }
        for _ in 0..100 {
            let first = own.first().map_or(1, |(version, _)| *version);
            let bound = |random: &mut Random| first.saturating_sub(3) + random.below(200);
            let versions = bound(random)..bound(random);
            let inside = |(version, _): &&(u64, u32)| versions.contains(version);
            let first = own.iter().find(inside);
            let last = own.iter().rev().find(inside);
            let right = first.zip(last).map_or(0..0, |(first, last)| first.1..last.1 + 1);
            assert_eq!(answers.window_of(entity, &versions).unwrap(), right, "{form} {entity} {versions:?}");
        }
    }
}

#[test]
fn listings_agree_with_a_naive_one() {
    let mut random = Random(20_260_103);
    for (frames, removed) in [(1, 0), (30, 0), (300, 5)] {
        let story = build(&mut random, frames, removed);
        let cases = cases(&mut random, &story);
        for _ in 0..300 {
            let field = random.pick(&[NameField::Entity, NameField::Scope, NameField::Kind, NameField::Tag]);
            let prefix = random.pick(&["", "e", "e:", "e:1", "k", "k.", "s", "$", "t:1", "x"]).to_owned();
            let after =
                random.chance(40).then(|| random.pick(&["", "e", "e:1", "k.a", "s", "t:", "zz"]).to_owned());
            let wanted = NameFilter { field, prefix, after };
            let window = window(&mut random, &story);
            let most = usize::try_from(random.below(6)).unwrap();
            for Case { form, answers, events } in &cases {
                let right = naive_listing(events, &wanted, &window, most);
                let found = answers.list_names(&wanted, &window, most).unwrap();
                assert_eq!(found, right, "{form}: {wanted:?} in {window:?}, {most}");
            }
        }
    }
}

fn naive_listing(
    events: &[Known],
    wanted: &NameFilter,
    window: &Range<u32>,
    most: usize,
) -> Vec<NameSummary> {
    let mut names: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for event in events.iter().filter(|event| window.contains(&event.ordinal)) {
        let scope = if event.scope.is_empty() { "default" } else { event.scope };
        let own = match wanted.field {
            NameField::Entity => vec![event.entity],
            NameField::Scope => vec![scope],
            NameField::Kind => vec![event.kind],
            NameField::Tag => event.tags.clone(),
        };
        own.into_iter().for_each(|name| names.entry(name).or_default().push(event.ordinal));
    }
    let is_wanted = |name: &str| {
        let is_shown = !name.starts_with('$') || wanted.prefix.starts_with('$');
        is_shown
            && name.starts_with(&wanted.prefix)
            && wanted.after.as_deref().is_none_or(|after| name > after)
    };
    names
        .into_iter()
        .filter(|(name, _)| is_wanted(name))
        .map(|(name, list)| NameSummary {
            name: name.to_owned(),
            events: number(list.len()),
            first: list[0],
            last: *list.last().unwrap(),
        })
        .take(most)
        .collect()
}

/// Keys that come again, and an index that has nothing.
#[test]
fn the_last_append_with_a_key_counts() {
    let some = build(&mut Random(7), 1, 0).events.remove(0);
    let segment = segment();
    let mut offset = 144;
    let mut frames = Vec::new();
    for (number, key) in [[1; 16], [2; 16], [1; 16]].into_iter().enumerate() {
        let ordinal = u32::try_from(number).unwrap();
        let version = u64::from(ordinal) + 1;
        let event = Known { key: Some(key), cause: None, correlation: None, version, ..some.clone() };
        let bytes = encode(&segment, offset, ordinal, &[event], u64::from(ordinal));
        frames.push((offset, bytes.clone()));
        offset += u32::try_from(bytes.len()).unwrap();
    }
    let story = Story { frames, events: Vec::new() };
    let first = story.index(0..2);
    let second = story.index(2..3);
    let joined = LiveIndex::concat(&in_file(&first), &second).unwrap();
    let forms: [&dyn SegmentIndex; 3] = [&story.index(0..3), &joined, &whole(&joined)];
    for form in forms {
        let keys = [1, 2, 3].map(|key| form.key(&[key; 16]).unwrap());
        assert_eq!(keys, [Some(2), Some(1), None]);
    }

    let nothing = LiveIndex::new(144);
    for form in [&nothing as &dyn SegmentIndex, &whole(&nothing), &in_file(&nothing)] {
        assert_eq!((form.events(), form.ordinals(), form.streams_created()), (0, 0..0, 0));
        assert_eq!(form.locate_from(0).unwrap(), None);
        assert_eq!(form.count(&Query::all(), &(0..9), &|_| None).unwrap(), 0);
    }
    assert_eq!(LiveIndex::concat(&whole(&nothing), &first).unwrap().events(), 2);
}
