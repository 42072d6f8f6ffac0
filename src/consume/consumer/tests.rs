//! What no user can bring about: checkpoints that this log cannot have, and another process that moves them.

use std::time::Duration;

use super::record::ConsumerRecord;
use crate::engine::Append;
use crate::types::system::consumer as kinds;
use crate::types::{Expected, Position};
use crate::{ErrorKind, Query, Raw, Reaction, RecordedEvent, StopReason, Store};

const FOREVER: Duration = Duration::from_secs(20);

fn forge(store: &Store, kind: &str, record: &ConsumerRecord) {
    let forged = Raw(kind, record);
    Append::of_system("$consumer/c", Expected::Any, &forged).commit(store).unwrap();
}

/// A position, whether the chain hash there is right, and whether a consumer may continue from there.
#[test]
fn history_that_was_set_back_is_noticed() {
    let table = [(0, true, true), (0, false, true), (2, true, true), (2, false, false), (1000, true, false)];
    for (position, is_right, is_accepted) in table {
        let store = Store::in_memory().unwrap();
        (0..3).for_each(|n| drop(store.append("e", &Raw("k", &n)).unwrap()));
        let position = Position::from(position);
        let right = ConsumerRecord::default().at(&store, position).unwrap();
        assert_eq!(right.chain != 0, position.get() == 2);
        forge(&store, kinds::ACKED, &ConsumerRecord { chain: right.chain + u64::from(!is_right), ..right });
        match store.consumer("c", Query::all()) {
            Ok(mut consumer) => {
                assert!(is_accepted, "{position} {is_right}");
                assert_eq!(consumer.try_next().unwrap().unwrap().position(), position.plus(1));
                drop(consumer);
            }
            Err(error) => {
                assert!(!is_accepted, "{position} {is_right}: {error}");
                assert_eq!(error.kind(), ErrorKind::RolledBack);
                assert!(error.to_string().contains("reset or rewind it"), "{error}");
                let worker = store.react("c", Query::all(), |_: &RecordedEvent, _: &mut Reaction<'_>| Ok(()));
                assert_eq!(worker.unwrap_err().kind(), ErrorKind::RolledBack);
                // As the text says.
                store.consumer_control("c").reset("history was set back").unwrap();
                assert_eq!(
                    store.consumer("c", Query::all()).unwrap().try_next().unwrap().unwrap().position().get(),
                    1
                );
            }
        }
    }
}

#[test]
fn another_process_that_runs_the_name_is_noticed() {
    let ahead = |store: &Store, position: u64| ConsumerRecord::default().at(store, position.into()).unwrap();
    for kind in [kinds::ACKED, kinds::REACTED] {
        let store = Store::in_memory().unwrap();
        let mut consumer = store.consumer("c", Query::all()).unwrap();
        (0..2).for_each(|n| drop(store.append("e", &Raw("k", &n)).unwrap()));
        let first = consumer.try_next().unwrap().unwrap();
        consumer.ack(first.position()).unwrap();
        forge(&store, kind, &ahead(&store, first.position().get()));
        let refused = consumer.flush().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Locked, "{refused}");
        drop(consumer);

        let worker = store
            .react("c", Query::all(), move |event: &RecordedEvent, reaction: &mut Reaction<'_>| {
                if event.decode::<u64>()? == 1 {
                    forge(reaction.store(), kind, &ahead(reaction.store(), 1));
                }
                reaction.append("out", &Raw("done", &()));
                Ok(())
            })
            .unwrap();
        let ended = worker.wait_timeout(FOREVER);
        assert!(matches!(ended, Some(StopReason::TakenOver)), "{ended:?}");
        assert!(store.version("out").unwrap().get() <= 1, "the reaction that came too late is not there");
    }
}

// A checkpoint is written for every reaction, so its size counts.
#[test]
fn a_checkpoint_is_small() {
    let payload = |record: &ConsumerRecord| rmp_bytes(record);
    let plain =
        ConsumerRecord { position: u64::from(u32::MAX).into(), chain: u64::MAX, ..ConsumerRecord::default() };
    assert!(payload(&plain) <= 32, "{}", payload(&plain));
    assert!(payload(&ConsumerRecord { depth: 64, ..plain }) <= 40);
}

fn rmp_bytes(record: &ConsumerRecord) -> usize {
    let mut bytes = Vec::new();
    crate::event::codec::encode(record, &mut bytes).unwrap();
    bytes.len()
}
