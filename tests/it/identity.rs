//! Which id is an event's, at every door; ids that come twice; names that show nothing.

use annals::disk::MemDisk;
use annals::{Append, Cause, ErrorKind, EventId, Notice, Query, Raw, RecordedEvent, Store, Timer};

use crate::support::{FOREVER, GatedDisk, all, derived_id, kind_of, positions};

fn id(byte: u8) -> EventId {
    EventId::from_bytes([byte; 16])
}

/// What the doors say of an id: the event it finds, its story, and what else knows of it.
#[derive(Debug, PartialEq)]
struct Doors {
    get: u64,
    story: (EventId, Vec<u64>, Vec<Option<u64>>),
    correlated: Vec<u64>,
    backwards: Vec<u64>,
    count: u64,
    last: Option<u64>,
    exists: bool,
    subscribed: Vec<u64>,
    ancestors: Vec<u64>,
    descendants: Vec<u64>,
    path: Vec<u64>,
}

fn places(events: impl Iterator<Item = Result<RecordedEvent, annals::Error>>) -> Vec<u64> {
    events.map(|event| event.unwrap().position().get()).collect()
}

fn doors(store: &Store, id: EventId) -> Doors {
    let story = store.story(id).unwrap();
    let cause = |event: annals::StoryEvent<'_>| Some(event.cause()?.event().position().get());
    let mut subscription = store.subscribe(Query::correlation(id));
    let subscribed = std::iter::from_fn(|| subscription.try_next().unwrap());
    Doors {
        get: store.get(id).unwrap().map_or(0, |event| event.position().get()),
        story: (
            story.correlation(),
            story.events().map(|event| event.event().position().get()).collect(),
            story.events().map(cause).collect(),
        ),
        correlated: places(store.read(Query::correlation(id))),
        backwards: places(store.read(Query::correlation(id).kind("paid")).backwards()),
        count: store.count(Query::correlation(id)).unwrap(),
        last: store.last(Query::correlation(id)).unwrap().map(|event| event.position().get()),
        exists: store.exists(Query::correlation(id)).unwrap(),
        subscribed: subscribed.map(|event| event.position().get()).collect(),
        ancestors: places(store.ancestors(id)),
        descendants: places(store.descendants(id)),
        path: store.path(id).unwrap().iter().map(|event| event.position().get()).collect(),
    }
}

/// An event that came with an id of its own showed that one by `id()`, and another in its receipt and its
/// correlation. A story by the id that it showed found nothing.
#[test]
fn an_event_has_one_id_and_either_finds_everything() {
    for segment_bytes_max in [1 << 20, 0] {
        let store = Store::on(MemDisk::new()).segment_bytes_max(segment_bytes_max).open().unwrap();
        store.append("other:1", &Raw("noise", &())).unwrap();
        let mut hints = store.notifications(Query::correlation(id(1)));
        // A lone event, and the first of two.
        let lone = Append::to("order:1").event(&Raw("placed", &1)).foreign_id(id(1)).commit(&store).unwrap();
        let pair = Append::to("order:2").event(&Raw("placed", &2)).foreign_id(id(2));
        let pair = pair.event(&Raw("checked", &2)).cause(Cause::InAppend(0)).commit(&store).unwrap();
        assert_eq!(lone.id(), id(1));
        assert_eq!(pair.ids().next(), Some(id(2)));
        let Notice::Events(heard) = hints.next_timeout(FOREVER).unwrap().unwrap() else { panic!("no event") };
        assert_eq!((heard.len(), heard[0].id()), (1, lone.id()));
        for (number, first) in [(1, lone.ids().next().unwrap()), (2, pair.ids().next().unwrap())] {
            let placed = store.get(first).unwrap().unwrap();
            assert_eq!((placed.id(), placed.correlation()), (id(number), id(number)));
            assert_eq!(placed.decode::<u8>().unwrap(), number);
            let entity = format!("order:{number}");
            let paid = Append::to(&entity).event(&Raw("paid", &number)).caused_by(&placed).commit(&store);
            // By the other id, which old notes may hold.
            let old = derived_id(&placed);
            assert_ne!(old, placed.id());
            let late =
                Append::to(&entity).event(&Raw("late", &number)).cause(Cause::Event(old)).correlation(old);
            late.commit(&store).unwrap();
            store.append("other:1", &Raw("noise", &())).unwrap();

            let by_shown = doors(&store, placed.id());
            assert_eq!(doors(&store, old), by_shown, "order {number}, by its other id");
            let of_order = positions(store.stream(entity));
            let effects = of_order[1..].to_vec();
            let causes = std::iter::once(None).chain(effects.iter().map(|_| Some(of_order[0]))).collect();
            let right = Doors {
                get: of_order[0],
                story: (placed.id(), of_order.clone(), causes),
                correlated: of_order.clone(),
                backwards: vec![paid.unwrap().position().get()],
                count: of_order.len() as u64,
                last: of_order.last().copied(),
                exists: true,
                subscribed: of_order.clone(),
                ancestors: Vec::new(),
                descendants: effects,
                path: vec![of_order[0]],
            };
            assert_eq!(by_shown, right, "order {number}");
        }
        // A receipt that comes again says the same ids, and every event of the store is found by what it shows.
        let again =
            || Append::to("order:3").event(&Raw("placed", &3)).foreign_id(id(3)).key("k").commit(&store);
        assert_eq!((again().unwrap().id(), again().unwrap().id()), (id(3), id(3)));
        for event in all(store.read(Query::all())) {
            let found = store.get(event.id()).unwrap().unwrap();
            assert_eq!(found.position(), event.position(), "{}", event.id());
            assert!(store.story(event.correlation()).unwrap().events().count() > 0);
        }
    }
}

/// What goes by correlation goes by either id, and goes whole.
#[test]
fn what_belongs_together_goes_together() {
    for erases in [true, false] {
        for by_other in [true, false] {
            let store = Store::on(MemDisk::new()).segment_bytes_max(300).open().unwrap();
            Append::to("order:1").event(&Raw("placed", &1)).foreign_id(id(1)).commit(&store).unwrap();
            let placed = store.get(id(1)).unwrap().unwrap();
            let old = derived_id(&placed);
            for (number, correlation) in [old, id(1), id(2)].into_iter().cycle().take(12).enumerate() {
                let entity = format!("mail:{}", number % 6);
                Append::to(entity)
                    .event(&Raw("sent", &number))
                    .correlation(correlation)
                    .commit(&store)
                    .unwrap();
            }
            let query = Query::correlation(if by_other { old } else { id(1) });
            if erases {
                assert_eq!(store.erase(query.clone(), "asked for").unwrap().events, 9);
                assert!(all(store.read(query)).iter().all(RecordedEvent::is_erased));
            } else {
                // The last event of each stream stays, without its payload.
                let done = store.compaction("over").remove(query).run().unwrap();
                assert_eq!((done.removed, done.erased), (4, 5), "{done:?}");
            }
            let other = all(store.read(Query::correlation(id(2))));
            assert_eq!(other.iter().filter(|event| !event.is_erased()).count(), 4);
        }
    }
}

/// The store accepted two events with one foreign id, and an event with the id that another one got from the
/// store. One of them was then found by no id that it showed.
#[test]
fn an_id_names_one_event() {
    for segment_bytes_max in [1 << 20, 0] {
        let disk = MemDisk::new();
        let open = || Store::on(disk.clone()).segment_bytes_max(segment_bytes_max).open().unwrap();
        let with = |entity: &str, ids: &[EventId]| {
            let one = |append: Append, id: &EventId| append.event(&Raw("k", &())).foreign_id(*id);
            ids.iter().fold(Append::to(entity), one)
        };
        let store = open();
        let plain = store.append("a", &Raw("k", &())).unwrap().id();
        with("a", &[id(1), id(2)]).commit(&store).unwrap();
        let table: [(&str, &[EventId]); 4] = [
            ("twice in one append", &[id(7), id(8), id(7)]),
            ("known", &[id(1)]),
            ("one of several known", &[id(9), id(2)]),
            ("given by the store", &[plain]),
        ];
        let check = |store: &Store, when: &str| {
            for (name, ids) in table {
                let head = store.head().unwrap();
                let error = with("b", ids).commit(store).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Invalid, "{name}, {when}");
                let twice = if ids[0] == id(9) { ids[1] } else { ids[0] };
                assert!(error.to_string().contains(&twice.to_string()), "{error}");
                // Also behind others in one group, and with a key that is new.
                assert_eq!(kind_of(with("b", ids).key(name).commit(store)), ErrorKind::Invalid, "{name}");
                assert_eq!(store.head().unwrap(), head, "{name}");
            }
        };
        check(&store, "in the segment that is written");
        store.close().unwrap();
        let store = open();
        check(&store, "after opening again");
        for _ in 0..3 {
            store.append("c", &Raw("k", &())).unwrap();
        }
        check(&store, "some segments later");
        // Of those that are submitted at once, one goes in.
        let tickets: Vec<_> = (0..8).map(|_| with("d", &[id(20)]).submit(&store)).collect();
        let outcomes: Vec<_> = tickets.into_iter().map(|ticket| ticket?.wait()).collect();
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        assert!(
            outcomes
                .iter()
                .filter_map(|outcome| outcome.as_ref().err())
                .all(|e| e.kind() == ErrorKind::Invalid)
        );
        // A retry is no second event.
        let retry = || with("e", &[id(30)]).key("retry").commit(&store).unwrap().replayed();
        assert_eq!((retry(), retry()), (false, true));
        // What was refused left no id behind.
        with("f", &[id(7), id(9)]).commit(&store).unwrap();
    }
}

/// While one append that brings an id is being written, another caller does not find that id: the writer
/// does.
#[test]
fn of_appends_under_way_with_one_id_one_goes_in() {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    let submit = |byte: u8| {
        Append::to("a")
            .event(&Raw("k", &()))
            .event(&Raw("k", &()))
            .foreign_id(id(byte))
            .submit(&store)
            .unwrap()
    };
    // One group is being synced; those that come now are the next.
    let (held, first) = disk.gate().hold_up(|| submit(1));
    let late: Vec<_> = (0..3).map(|_| submit(1)).collect();
    let together: Vec<_> = (0..8).map(|_| submit(2)).collect();
    drop(held);
    assert_eq!(first.wait().unwrap().id(), id(1));
    for ticket in late {
        assert_eq!(kind_of(ticket.wait()), ErrorKind::Invalid);
    }
    let mut outcomes: Vec<_> = together.into_iter().map(|ticket| ticket.wait()).collect();
    assert_eq!(outcomes.remove(0).unwrap().id(), id(2));
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("position 4"), "{error}");
    }
    assert_eq!(store.version("a").unwrap().get(), 4);
}

/// One file under two import names was in the store twice.
#[cfg(feature = "jsonl")]
#[test]
fn a_file_imported_under_another_name_is_refused() {
    let from = Store::in_memory().unwrap();
    for number in 0..10 {
        from.append("a:1", &Raw("k", &number)).unwrap();
    }
    let mut lines = Vec::new();
    from.export(Query::all()).write_to(&mut lines).unwrap();
    let to = Store::in_memory().unwrap();
    to.import("monday", lines.as_slice()).run().unwrap();
    let again = to.import("monday", lines.as_slice()).run().unwrap();
    assert_eq!(again.events, 0);
    let error = to.import("tuesday", lines.as_slice()).renumber().run().unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains("monday")), (ErrorKind::Invalid, true), "{error}");
    // Where that is wanted, its ids keep it out still.
    let twice = to.import("tuesday", lines.as_slice()).renumber().even_if_imported();
    let error = twice.run().unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains("line 1")), (ErrorKind::Invalid, true), "{error}");
    assert_eq!(to.count(Query::all()).unwrap(), 10);
}

const UNSEEN: [&str; 12] = [
    " ",
    "   ",
    "\u{a0}",
    "\u{2003}\u{3000}",
    "\u{200b}",
    "\u{200d}\u{feff}",
    "\u{ad}",
    "\u{2060}\u{180e}",
    "\u{115f}\u{3164}",
    "\u{fe0f}",
    "\u{e0020}\u{e007f}",
    " \u{2800}\u{34f} ",
];

/// An entity, a consumer, a tag that is a blank looks like none at all wherever it is shown.
#[test]
fn a_name_of_blanks_is_none() {
    type Door = fn(&Store, &str) -> Option<ErrorKind>;
    fn refused<T>(result: Result<T, annals::Error>) -> Option<ErrorKind> {
        result.err().map(|error| error.kind())
    }
    let doors: [(&str, Door); 8] = [
        ("entity", |store, name| refused(store.append(name, &Raw("k", &())))),
        ("scope", |store, name| refused(store.append(("a", name), &Raw("k", &())))),
        ("kind", |store, name| refused(store.append("a", &Raw(name, &())))),
        ("tag", |store, name| refused(Append::to("a").event(&Raw("k", &())).tag(name).commit(store))),
        ("consumer", |store, name| refused(store.consumer(name, Query::all()))),
        ("consumer to be moved", |store, name| refused(store.consumer_control(name).halt("why"))),
        ("timer", |store, name| {
            let timer = Timer::at(std::time::UNIX_EPOCH, Append::to("a").event(&Raw("k", &())));
            refused(store.set_timer(name, timer))
        }),
        ("checkpoint", |store, name| refused(store.checkpoint(name, "why"))),
    ];
    let store = Store::in_memory().unwrap();
    for (door, open) in doors {
        for name in UNSEEN {
            assert_eq!(open(&store, name), Some(ErrorKind::Invalid), "{door} {}", name.escape_unicode());
        }
        for name in ["x", "\u{a0}x", "x\u{200d}", "\u{4f60}", "e\u{301}", "\u{1f469}\u{200d}\u{1f52c}"] {
            assert_eq!(open(&store, name), None, "{door} {}", name.escape_unicode());
        }
    }
    for name in UNSEEN {
        let gate = |_: &annals::Proposed<'_>, _: &Store| -> Result<annals::GateDecision, annals::Denial> {
            Ok(annals::GateDecision::always())
        };
        assert_eq!(kind_of(Store::on(MemDisk::new()).gate(name, gate).open()), ErrorKind::Invalid);
        assert_eq!(kind_of(Store::on(MemDisk::new()).operator(name).open()), ErrorKind::Invalid);
    }
}
