//! The index knows events before they are published: no answer may show them.

use std::sync::Arc;

use super::*;
use crate::Raw;
use crate::index::Label;
use crate::listing::Listing;
use crate::view::{Point, View};

/// A view of a store that is published up to `head` only.
fn view_up_to(store: &Store, head: u64) -> Arc<View> {
    let snapshot = store.engine().snapshot().unwrap();
    let head = Point { position: head.into(), chain: snapshot.head.chain };
    Arc::new(View::new(snapshot.segments.to_vec(), head))
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
                assert_eq!(reader::count(&snapshot, &query).unwrap(), head / every, "{query:?} up to {head}");
                assert_eq!(reader::exists(&snapshot, &query).unwrap(), newest.is_some());
                let last = reader::last(&snapshot, &query).unwrap().map(|event| event.position().get());
                assert_eq!(last, newest, "{query:?} up to {head}");
                let read = Read::new(Ok(view.clone()), query).backwards().limit(1).next();
                assert_eq!(read.map(|event| event.unwrap().position().get()), newest);
            }
            let listed: Vec<_> = Listing::new(Ok(view.clone()), Label::Entity).map(Result::unwrap).collect();
            assert_eq!(listed.iter().map(|listed| listed.events).sum::<u64>(), head);
            assert_eq!(listed.iter().map(|listed| listed.last.get()).max().unwrap_or(0), head);
        }
    }
}
