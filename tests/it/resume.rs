//! Where to go on: tokens and positions that the log still has, and those it does not.

use annals::disk::{CrashMode, MemDisk, SimDisk};
use annals::{
    Append, AppendCondition, Durability, ErrorKind, Position, Query, Raw, RecordedEvent, ResumeToken, Store,
    Subscription, Until,
};

use crate::support::{all, fill, kind_of, positions};

fn open(disk: &MemDisk) -> Store {
    Store::on(disk.clone()).segment_bytes_max(600).open().unwrap()
}

fn taken(subscription: &mut Subscription) -> Vec<u64> {
    std::iter::from_fn(|| subscription.try_next().unwrap()).map(|event| event.position().get()).collect()
}

/// A backup at 10, a cursor at 31, the backup restored, 25 appends: a subscription after 31 saw five of them,
/// and no error.
#[test]
fn a_restored_store_tells_a_place_of_the_history_it_lost() {
    let (disk, copy, back) = (MemDisk::new(), MemDisk::new(), MemDisk::new());
    let store = open(&disk);
    fill(&store, "a", 10);
    let mut early = store.subscribe(Query::all());
    assert_eq!(taken(&mut early).len(), 10);
    let early = early.resume_token().unwrap();
    store.backup_on(copy.clone()).run().unwrap();
    fill(&store, "b", 21);
    let mut late = store.subscribe(Query::all());
    assert_eq!(taken(&mut late).len(), 31);
    let late = late.resume_token().unwrap();
    assert_eq!(late, store.head().unwrap().into());
    store.close().unwrap();

    annals::StoreCopy::restore_on(Store::on(copy), back.clone(), Until::End).run().unwrap();
    let store = open(&back);
    let before = store.head().unwrap().position().get();
    let of_late = |store: &Store| kind_of(store.subscribe(Query::all()).resume(late).try_next());
    let by_position =
        |store: &Store| kind_of(store.subscribe(Query::all()).after(late.position()).try_next());
    assert_eq!((of_late(&store), by_position(&store)), (ErrorKind::RolledBack, ErrorKind::RolledBack));
    fill(&store, "c", 40 - before);
    // Other events stand there now. A position alone does not tell.
    assert_eq!(of_late(&store), ErrorKind::RolledBack);
    assert!(store.read(Query::all()).after(late.position()).next().is_some());
    let error = store.read(Query::all()).resume(late).next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RolledBack);
    for word in [&late.to_string(), "restored", "begin again"] {
        assert!(error.to_string().contains(word), "{error}");
    }
    // What both histories have is as good as ever.
    let mut rest = store.subscribe(Query::all()).resume(early);
    assert_eq!(taken(&mut rest), positions(store.read(Query::all()).after(Position::from(10))));
}

/// Every door gives tokens, and each token is found again, in every segment.
#[test]
fn every_door_gives_a_token_that_is_found_again() {
    let disk = MemDisk::new();
    let store = open(&disk);
    for number in 0..20_u8 {
        let append = Append::to("a").event(&Raw("k", &number)).event(&Raw("k", &number));
        let receipt = append.commit(&store).unwrap();
        let event = store.at(receipt.position()).unwrap().unwrap();
        assert_eq!(receipt.resume_token(), event.resume_token());
    }
    let mut consumer = store.consumer("c", Query::all()).unwrap();
    assert_eq!(consumer.resume_token().unwrap(), ResumeToken::START);
    let events = all(store.read(Query::all()));
    for (at, event) in events.iter().enumerate() {
        let token = event.resume_token();
        let rest: Vec<u64> = events[at + 1..].iter().map(|event| event.position().get()).collect();
        let text = token.to_string();
        assert_eq!(text.parse::<ResumeToken>().unwrap(), token);
        let json = serde_json::to_string(&token).unwrap();
        assert_eq!((json.clone(), serde_json::from_str(&json).unwrap()), (format!("{text:?}"), token));
        assert_eq!(positions(store.read(Query::all()).resume(token)), rest);
        assert_eq!(taken(&mut store.subscribe(Query::all()).resume(token)), rest);
        // Of the same append, but another place: the chain is the same, so is what was seen.
        assert_eq!(token.position(), event.position());
        assert_eq!(consumer.try_next().unwrap().unwrap().position(), event.position());
        consumer.ack(event.position()).unwrap();
        assert_eq!(consumer.resume_token().unwrap(), token);
        let mut subscription = store.subscribe(Query::all()).after(event.position());
        assert_eq!(subscription.resume_token().unwrap(), token);
        let _ = subscription.try_next().unwrap();
    }
    let start = ResumeToken::default();
    assert_eq!((start.to_string().as_str(), start), ("0-0000000000000000", ResumeToken::START));
    assert_eq!(positions(store.read(Query::all()).resume(start)).len(), 40);
    let other = open(&MemDisk::new());
    fill(&other, "a", 40);
    assert_eq!(taken(&mut other.subscribe(Query::all()).resume(start)).len(), 40);
    for event in &events {
        let token = event.resume_token();
        assert_eq!(kind_of(other.subscribe(Query::all()).resume(token).try_next()), ErrorKind::RolledBack);
        assert_eq!(kind_of(other.read(Query::all()).resume(token).next().unwrap()), ErrorKind::RolledBack);
    }
    for text in [
        "",
        "7",
        "7-",
        "-7",
        "7-12",
        "x-9f8e7d6c5b4a3921",
        "7-9f8e7d6c5b4a392x",
        "7-+f8e7d6c5b4a3921",
        "0-9f8e7d6c5b4a3921",
    ] {
        assert_eq!(kind_of(text.parse::<ResumeToken>()), ErrorKind::Invalid, "{text:?}");
    }
}

#[test]
fn a_position_beyond_the_head_is_of_another_history_unless_allowed() {
    let store = open(&MemDisk::new());
    fill(&store, "a", 10);
    let beyond = Position::from(12);
    let mut late = store.subscribe(Query::all()).after(beyond);
    assert_eq!(kind_of(late.try_next()), ErrorKind::RolledBack);
    assert_eq!(kind_of(late.try_next()), ErrorKind::RolledBack, "every time");
    assert_eq!(kind_of(late.resume_token()), ErrorKind::RolledBack);
    assert_eq!(kind_of(late.next().unwrap()), ErrorKind::RolledBack);
    assert!(late.next().is_none(), "an iterator ends");
    let mut read = store.read(Query::all()).after(beyond);
    assert_eq!(kind_of(read.next().unwrap()), ErrorKind::RolledBack);
    assert!(read.next().is_none());
    // At the head there is nothing yet, and that is all.
    assert!(store.subscribe(Query::all()).after(Position::from(10)).try_next().unwrap().is_none());
    assert!(store.read(Query::all()).after(beyond).allow_beyond_head().next().is_none());
    let mut patient = store.subscribe(Query::all()).after(beyond).allow_beyond_head();
    assert!(patient.try_next().unwrap().is_none());
    let ahead: ResumeToken = {
        let twin = open(&MemDisk::new());
        fill(&twin, "a", 12);
        twin.head().unwrap().into()
    };
    // A token of what is still to come is compared once the log is so far.
    let mut wrong = store.subscribe(Query::all()).resume(ahead).allow_beyond_head();
    assert!(wrong.try_next().unwrap().is_none());
    fill(&store, "a", 3);
    assert_eq!(taken(&mut patient), [13]);
    assert_eq!(kind_of(wrong.try_next()), ErrorKind::RolledBack);
}

/// What was decided on a history that is gone went in: no event stood behind a position beyond the head.
#[test]
fn a_condition_after_a_position_that_is_not_there_does_not_hold() {
    let store = open(&MemDisk::new());
    fill(&store, "a", 10);
    let append = |after: u64| {
        let condition = AppendCondition::none(Query::entity("a")).after(Position::from(after));
        Append::to("b").event(&Raw("k", &())).condition(condition).commit(&store)
    };
    assert_eq!(kind_of(append(9)), ErrorKind::Conflict);
    assert!(append(10).is_ok(), "at the head");
    assert_eq!(kind_of(append(12)), ErrorKind::RolledBack);
    assert_eq!(store.head().unwrap().position(), Position::from(11));
}

/// A power cut takes back what was buffered, and other events come to stand there.
#[test]
fn what_a_power_cut_takes_back_is_told_by_its_token() {
    let disk = SimDisk::new(1);
    let buffered = Durability::Buffered { flush_every: std::time::Duration::from_secs(3600) };
    let store = Store::on(disk.clone()).durability(buffered).open().unwrap();
    fill(&store, "a", 5);
    let kept: ResumeToken = store.head().unwrap().into();
    store.sync().unwrap();
    let lost = store.append("a", &Raw("k", &1)).unwrap().resume_token();
    let trace = disk.trace();
    let gone = trace.image(trace.len(), CrashMode::Drop);
    let store = Store::on(gone).open().unwrap();
    let begin = |token: ResumeToken| store.subscribe(Query::all()).resume(token).try_next();
    assert!(begin(kept).unwrap().is_none());
    assert_eq!(kind_of(begin(lost)), ErrorKind::RolledBack);
    store.append("a", &Raw("k", &2)).unwrap();
    assert_eq!(store.head().unwrap().position(), lost.position());
    assert_eq!(kind_of(begin(lost)), ErrorKind::RolledBack);
    assert_eq!(begin(kept).unwrap().unwrap().decode::<u8>().unwrap(), 2);
}

/// Retention removes events on purpose; a reader that had handled them goes on.
#[test]
fn a_token_of_a_removed_event_still_leads_on() {
    let disk = MemDisk::new();
    let store = open(&disk);
    fill(&store, "a", 30);
    let tokens: Vec<ResumeToken> =
        all(store.read(Query::all())).iter().map(RecordedEvent::resume_token).collect();
    let done =
        store.compaction("thinned").before(Position::from(20)).remove(Query::entity("a")).run().unwrap();
    assert!(done.removed > 10, "{done:?}");
    assert!(store.at(Position::from(7)).unwrap().is_none());
    for token in &tokens {
        let rest = positions(store.read(Query::all()).after(token.position()));
        assert_eq!(taken(&mut store.subscribe(Query::all()).resume(*token)), rest, "{token}");
    }
    // A place without an event is that of the last one before it.
    let token = store.subscribe(Query::all()).after(Position::from(7)).resume_token().unwrap();
    assert!(token.position() < Position::from(7));
    assert_eq!(positions(store.read(Query::all()).resume(token)), positions(store.read(Query::all())));
}

/// A consumer whose checkpoint lies beyond what is left goes back to what is there, and not beyond.
#[test]
fn a_consumer_is_not_rewound_to_a_place_that_is_not_there() {
    let store = open(&MemDisk::new());
    fill(&store, "a", 5);
    let mut consumer = store.consumer("c", Query::all()).unwrap();
    while let Some(event) = consumer.try_next().unwrap() {
        consumer.ack(event.position()).unwrap();
    }
    consumer.flush().unwrap();
    let control = store.consumer_control("c");
    assert_eq!(kind_of(control.rewind(Position::from(100), "not so far")), ErrorKind::Invalid);
    control.rewind(Position::from(3), "again").unwrap();
    assert_eq!(consumer.try_next().unwrap().unwrap().position().get(), 4);
    control.reset("all of it").unwrap();
    assert_eq!(consumer.try_next().unwrap().unwrap().position().get(), 1);
}
