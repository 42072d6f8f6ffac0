//! What no user can bring about alone: the index knows events before they are published, and no answer may
//! show them; events of the store's own stay out of answers to those who do not ask for them.

use std::sync::Arc;

use super::*;
use crate::Raw;
use crate::index::NameField;
use crate::read::{ChainPosition, Listing, LogView};
use crate::types::{Expected, Position};

/// A view of a store that is published up to `head` only.
fn view_up_to(store: &Store, head: u64) -> Arc<LogView> {
    let snapshot = store.engine().snapshot().unwrap();
    let head = ChainPosition { position: head.into(), chain: snapshot.head.chain };
    Arc::new(LogView::new(snapshot.segments.to_vec(), head, 0))
}

#[test]
fn answers_end_at_the_head() {
    const EVENTS: u64 = 60;
    for segment_bytes_max in [500, 1 << 20] {
        let store = Store::on(MemDisk::new()).segment_bytes_max(segment_bytes_max).open().unwrap();
        for number in 1..=EVENTS {
            Append::to(format!("e:{}", number % 3))
                .event(&Raw("k", &number))
                .tag("t")
                .commit(&store)
                .unwrap();
        }
        for head in 0..=EVENTS {
            let view = view_up_to(&store, head);
            let snapshot = view.snapshot();
            let queries = [
                (Query::all(), 1),
                (Query::entity("e:0"), 3),
                (Query::entity_prefix("e:"), 1),
                (Query::entity("e:0").tag("t"), 3),
                (Query::entity("e:0").or(Query::entity("e:0").tag("t")), 3),
            ];
            for (query, every) in queries {
                let newest = Some(head / every * every).filter(|newest| *newest > 0);
                let count =
                    reader::count_in(&snapshot, &query, Position::START, snapshot.head.position).unwrap();
                assert_eq!(count, head / every, "{query:?} up to {head}");
                assert_eq!(reader::exists(&snapshot, &query).unwrap(), newest.is_some());
                let last = reader::last(&snapshot, &query).unwrap().map(|event| event.position().get());
                assert_eq!(last, newest, "{query:?} up to {head}");
                let read = Read::new(Ok(view.clone()), query).backwards().limit(1).next();
                assert_eq!(read.map(|event| event.unwrap().position().get()), newest);
            }
            let listed: Vec<_> =
                Listing::new(Ok(view.clone()), NameField::Entity).map(Result::unwrap).collect();
            assert_eq!(listed.iter().map(|listed| listed.events).sum::<u64>(), head);
            assert_eq!(listed.iter().map(|listed| listed.last.get()).max().unwrap_or(0), head);
        }
    }
}

#[test]
fn events_of_the_store_stay_out_of_answers() {
    for segment_bytes_max in [500, 1 << 20] {
        let store = Store::on(MemDisk::new()).segment_bytes_max(segment_bytes_max).open().unwrap();
        let correlation = store.append("order:0", &Raw("placed", &0)).unwrap().id();
        for number in 0..30 {
            let append = Append::to(("order:1", "shop")).event(&Raw("placed", &number)).tag("t");
            let append = append.correlation(correlation);
            let own = Raw("$consumer.acked", &number);
            let append = match number % 3 {
                0 => append,
                1 => append.system_event("$consumer/a", Expected::Any, &own),
                _ => Append::of_system("$consumer/b", Expected::Any, &own).belonging(None, Some(correlation)),
            };
            append.commit(&store).unwrap();
        }
        let queries = [
            (Query::all(), 21),
            (Query::entity_prefix(""), 21),
            (Query::all().kind_prefix(""), 21),
            (Query::correlation(correlation), 21),
            (Query::all().kind("placed"), 21),
            (Query::all().scope("shop"), 20),
            (Query::all().tag("t"), 20),
            (Query::entity("$consumer/a"), 10),
            (Query::entity_prefix("$"), 20),
            (Query::all().kind("$consumer.acked"), 20),
            (Query::correlation(correlation).kind_prefix("$"), 10),
            (Query::all().scope("$"), 20),
            (Query::all().or(Query::entity("$consumer/b")), 31),
        ];
        for (query, expected) in queries {
            let read = |query: &Query| store.read(query.clone()).map(Result::unwrap).collect::<Vec<_>>();
            let positions =
                |events: &[RecordedEvent]| events.iter().map(RecordedEvent::position).collect::<Vec<_>>();
            let events = read(&query);
            assert_eq!(events.len(), expected, "{query}");
            assert!(events.iter().all(|event| event.matches(&query)), "{query}");
            assert_eq!(store.count(query.clone()).unwrap(), expected as u64, "{query}");
            assert!(store.exists(query.clone()).unwrap(), "{query}");
            let last = store.last(query.clone()).unwrap();
            assert_eq!(
                last.map(|event| event.position()),
                events.last().map(RecordedEvent::position),
                "{query}"
            );
            let mut backwards: Vec<_> = store.read(query.clone()).backwards().map(Result::unwrap).collect();
            backwards.reverse();
            assert_eq!(positions(&backwards), positions(&events), "{query}");
            let everything = store.read(Query::all().or(Query::entity_prefix("$"))).map(Result::unwrap);
            let naive: Vec<_> = everything.filter(|event| event.matches(&query)).collect();
            assert_eq!(positions(&naive), positions(&events), "{query}");
        }
        assert_eq!(store.story(correlation).unwrap().events().count(), 21);
        let mut follower = store.subscribe(Query::all());
        assert_eq!(follower.next_batch(100).unwrap().len(), 21);
        assert!(follower.try_next().unwrap().is_none());
        assert_eq!(follower.behind(), 0);
    }
}

#[test]
fn the_environment_is_understood_or_refused() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use super::environment::from;

    let path = std::env::temp_dir().join(format!("annals-environment-{}", std::process::id()));
    let open = |durability: &str, queue: &str| {
        let look_up = |name: &str| {
            Some(match name {
                "ANNALS_DIR" => path.clone().into_os_string(),
                "ANNALS_DURABILITY" => durability.into(),
                _ => queue.into(),
            })
        };
        let store = from(&look_up)?.open()?;
        let options = store.describe()?.options;
        store.close()?;
        let option = |name: &str| options.iter().find(|(known, _)| *known == name).unwrap().1.clone();
        Ok::<_, Error>((option("durability"), option("queue_commands_max")))
    };
    for (durability, queue, expected) in [
        ("", "", ("Synced", "4096")),
        ("synced", "1", ("Synced", "1")),
        ("buffered", "7", ("Buffered { flush_every: 100ms }", "7")),
        ("buffered:250us", "", ("Buffered { flush_every: 250µs }", "4096")),
        ("buffered:2s", "", ("Buffered { flush_every: 2s }", "4096")),
    ] {
        assert_eq!(open(durability, queue).unwrap(), (expected.0.to_owned(), expected.1.to_owned()));
    }
    for (durability, queue, named) in [
        ("Synced", "", "ANNALS_DURABILITY"),
        ("synced:1s", "", "ANNALS_DURABILITY"),
        ("buffered:", "", "ANNALS_DURABILITY"),
        ("buffered:0ms", "", "ANNALS_DURABILITY"),
        ("buffered:5", "", "ANNALS_DURABILITY"),
        ("buffered:5min", "", "ANNALS_DURABILITY"),
        ("buffered:99999999999999999999s", "", "ANNALS_DURABILITY"),
        ("", "0", "ANNALS_QUEUE"),
        ("", "-1", "ANNALS_QUEUE"),
        ("", "many", "ANNALS_QUEUE"),
    ] {
        let error = open(durability, queue).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Invalid);
        assert!(error.to_string().starts_with(named), "{error}");
    }
    for unnamed in [None, Some(OsString::new())] {
        let refused = from(&|_| unnamed.clone()).err().unwrap();
        assert!(refused.to_string().contains("ANNALS_DIR is not set"), "{refused}");
    }
    let no_text =
        |name: &str| Some(if name == "ANNALS_DIR" { "x".into() } else { OsString::from_vec(vec![0xff]) });
    assert!(from(&no_text).err().unwrap().to_string().contains("it is no text"));
    std::fs::remove_dir_all(path).unwrap();
}
