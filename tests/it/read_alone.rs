//! Events of large appends are read alone: the same events as in order, with one read each, and damage beside
//! them does no harm.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use annals::disk::{Disk, SimDisk};
use annals::{Append, Cause, Error, ErrorKind, EventId, Position, Query, Raw, RecordedEvent, Store, Timer};

use crate::forge::records;
use crate::sim_spy::{Spy, What};
use crate::sim_support::Rng;
use crate::support::all;

const SEGMENT: &str = "segments/00000000000000000001.0.seg";

/// A store that keeps nothing of its segments in memory.
fn from_file(disk: impl Disk + 'static) -> Store {
    Store::on(disk).segment_memory_bytes(0).recent_bytes_max(0).open_read_only().unwrap()
}

/// Everything that an event says.
fn say(event: &RecordedEvent) -> String {
    let times = (event.recorded_at(), event.occurred_at());
    let ids = (event.id(), event.correlation(), event.cause());
    let names = (event.entity(), event.scope(), event.kind(), event.tags().collect::<Vec<_>>());
    let payload = event.payload().map(<[u8]>::to_vec).map_err(|error| error.kind());
    let metadata = event.metadata::<String>().map_err(|error| error.kind());
    let place = (event.position(), event.version(), event.schema_version(), event.chain());
    format!("{place:?} {times:?} {ids:?} {names:?} {payload:?} {metadata:?} {:?}", event.resume_token())
}

/// How an append of the test is made.
#[derive(Clone, Copy, Debug)]
struct Shape {
    events: usize,
    entities: usize,
    payload: usize,
    has_key: bool,
    has_foreign_ids: bool,
}

const SHAPES: [Shape; 10] = [
    Shape { events: 1, entities: 1, payload: 10, has_key: false, has_foreign_ids: false },
    Shape { events: 1, entities: 1, payload: 9_000, has_key: true, has_foreign_ids: false },
    Shape { events: 3, entities: 2, payload: 40, has_key: false, has_foreign_ids: true },
    Shape { events: 17, entities: 1, payload: 300, has_key: true, has_foreign_ids: false },
    Shape { events: 25, entities: 3, payload: 150, has_key: false, has_foreign_ids: false },
    Shape { events: 40, entities: 4, payload: 150, has_key: true, has_foreign_ids: true },
    Shape { events: 1_000, entities: 50, payload: 20, has_key: false, has_foreign_ids: false },
    Shape { events: 300, entities: 1, payload: 0, has_key: true, has_foreign_ids: false },
    Shape { events: 2, entities: 2, payload: 70_000, has_key: false, has_foreign_ids: false },
    Shape { events: 5_000, entities: 7, payload: 2, has_key: false, has_foreign_ids: false },
];

fn append(rng: &mut Rng, shape: Shape, number: usize) -> Append {
    let mut append = Append::to(format!("e{}", number % shape.entities));
    for event in 0..shape.events {
        append = append.and_to(format!("e{}", (number + event) % shape.entities));
        append = append.event(&Raw("kind", &"x".repeat(shape.payload + event % 5)));
        if rng.below(4) == 0 {
            append = append.tag(format!("tag:{}", event % 3)).metadata(&format!("meta {event}"));
        }
        if rng.below(5) == 0 {
            append = append.correlation(EventId::from_bytes([7; 16]));
        }
        match rng.below(6) {
            0 => append = append.cause(Cause::InAppend(u16::try_from(event / 2).unwrap())),
            1 => append = append.cause(Cause::PreviousInStream),
            2 => append = append.occurred_at(SystemTime::UNIX_EPOCH + Duration::from_secs(9)),
            _ => {}
        }
        if shape.has_foreign_ids && rng.below(3) > 0 {
            let id = u128::try_from(number * 100_000 + event).unwrap().to_be_bytes();
            append = append.foreign_id(EventId::from_bytes(id));
        }
    }
    if shape.has_key { append.key(format!("key {number}")) } else { append }
}

/// A closed store of appends of all shapes, some of whose events were erased, and what its events say.
fn filled(segment_bytes_max: u32) -> (SimDisk, Vec<String>) {
    let disk = SimDisk::new(7);
    let mut rng = Rng::new(20_261_130);
    let store = Store::on(disk.clone()).segment_bytes_max(segment_bytes_max).open().unwrap();
    for number in 0..30 {
        append(&mut rng, SHAPES[number % SHAPES.len()], number).commit(&store).unwrap();
    }
    // A timer stands in the same append as the event that sets it, and is the store's own event.
    let set = Append::to("e0").event(&Raw("kind", &"y".repeat(8_000)));
    set.timer("later", Timer::at(SystemTime::UNIX_EPOCH, Append::to("e1").event(&Raw("fired", &1))))
        .commit(&store)
        .unwrap();
    store.erase(Query::entity("e3").tag("tag:1"), "a test").unwrap();
    let said = all(store.read(Query::all())).iter().map(say).collect();
    store.close().unwrap();
    (disk, said)
}

#[test]
fn an_event_says_the_same_however_it_is_read() {
    for segment_bytes_max in [64 << 10, 64 << 20] {
        let (disk, said) = filled(segment_bytes_max);
        let file = from_file(disk.clone());
        let memory = Store::on(disk.clone()).segment_memory_bytes(u64::MAX).open_read_only().unwrap();
        for (name, store) in [("from the file", &file), ("from memory", &memory)] {
            let in_order = all(store.read(Query::all()));
            assert_eq!(in_order.iter().map(say).collect::<Vec<_>>(), said, "in order, {name}");
            for (event, said) in in_order.iter().zip(&said) {
                let at = store.at(event.position()).unwrap().unwrap();
                assert_eq!(say(&at), *said, "by position, {name}");
                let by_id = store.get(event.id()).unwrap().unwrap();
                assert_eq!(say(&by_id), *said, "by id, {name}");
            }
            let mut streams: Vec<RecordedEvent> = Vec::new();
            for number in 0..50 {
                streams.extend(all(store.stream(format!("e{number}"))));
            }
            streams.sort_by_key(RecordedEvent::position);
            assert_eq!(streams.iter().map(say).collect::<Vec<_>>(), said, "as streams, {name}");
            let mut backwards = all(store.read(Query::all().kind("kind")).backwards());
            backwards.reverse();
            assert_eq!(backwards.iter().map(say).collect::<Vec<_>>(), said, "backwards, {name}");
        }
    }
}

/// The reads of the segment's file so far, and the bytes they asked for.
fn reads(spy: &Spy) -> (usize, usize) {
    let calls = spy.calls();
    let of_segment = calls.iter().filter(|call| call.what == What::Read && call.path == SEGMENT);
    of_segment.fold((0, 0), |(reads, bytes), call| (reads + 1, bytes + call.bytes))
}

#[test]
fn an_event_of_a_large_append_costs_one_short_read() {
    let disk = SimDisk::new(7);
    let store = Store::on(disk.clone()).open().unwrap();
    for number in 0..20_u64 {
        let events = (0..1_000_u64).fold(Append::to("e0"), |append, event| {
            append.and_to(format!("e{event}")).event(&Raw("kind", &(number, "x".repeat(100))))
        });
        events.commit(&store).unwrap();
    }
    store.close().unwrap();
    let spy = Spy::new(disk);
    let store = from_file(spy.clone());
    // The first one opens the file and reads the header of the segment.
    drop(store.at(Position::from(1)).unwrap());
    let before = reads(&spy);
    for position in (5..20_000).step_by(1_313) {
        drop(store.at(Position::from(position)).unwrap().unwrap());
    }
    let (count, bytes) = reads(&spy);
    assert_eq!(count - before.0, 16, "one read an event");
    assert!(bytes - before.1 < 16 * 200, "{} bytes for 16 events", bytes - before.1);
    let before = reads(&spy);
    assert_eq!(all(store.stream("e77")).len(), 20);
    let (count, bytes) = reads(&spy);
    assert_eq!(count - before.0, 20, "one read an event of a stream");
    assert!(bytes - before.1 < 20 * 200, "{} bytes for 20 events", bytes - before.1);
}

/// Events that lie close together are read at once.
#[test]
fn neighbours_are_read_at_once() {
    let disk = SimDisk::new(7);
    let store = Store::on(disk.clone()).open().unwrap();
    let events = (0..1_000_u64).fold(Append::to("e"), |append, event| {
        append.and_to(if event < 500 { "e" } else { "f" }).event(&Raw("kind", &"x".repeat(100)))
    });
    events.commit(&store).unwrap();
    store.close().unwrap();
    let spy = Spy::new(disk);
    let store = from_file(spy.clone());
    assert_eq!(all(store.stream("f")).len(), 500);
    let (count, _) = reads(&spy);
    // Four to open the store and the file; batches of 1, 4, 16, 64, the rest of the window, the rest.
    assert!(count <= 10, "{count} reads for 500 events that follow one another");
}

fn corrupt(result: Result<Option<RecordedEvent>, Error>) -> Error {
    match result {
        Ok(event) => panic!("it is read: {event:?}"),
        Err(error) if error.kind() == ErrorKind::Corrupt => error,
        Err(error) => panic!("{error}"),
    }
}

/// One damaged record costs that event when events are read alone, and the append when it is read in order.
#[test]
fn a_damaged_record_costs_that_event_and_no_other() {
    let disk = SimDisk::new(7);
    let store = Store::on(disk.clone()).open().unwrap();
    let events = (0..40_u64).fold(Append::to("e0"), |append, event| {
        append.and_to(format!("e{}", event % 4)).event(&Raw("kind", &(event, "x".repeat(100))))
    });
    events.commit(&store).unwrap();
    store.close().unwrap();
    // With an index file, which closing wrote only if it was worth it.
    let store = Store::on(disk.clone()).open().unwrap();
    store.append("last", &Raw("kind", &1)).unwrap();
    store.close().unwrap();
    let right = disk.contents(SEGMENT).unwrap();
    let frame = 144;
    let record: Range<usize> = records(&right, frame)[11].whole.clone();
    for at in record {
        let mut damaged = right.clone();
        damaged[at] ^= 1 << (at % 8);
        let image = SimDisk::new(8);
        for path in disk.paths() {
            image.create_directory("segments").unwrap();
            image.set_contents(&path, disk.contents(&path));
        }
        let store = from_file(image.clone());
        assert_eq!(store.count(Query::all()).unwrap(), 41, "the index is known before the damage");
        image.set_contents(SEGMENT, Some(damaged));
        for position in 1..=40 {
            let read = store.at(Position::from(position));
            if position == 12 {
                let error = corrupt(read);
                assert!(error.to_string().contains(SEGMENT), "{error}");
                assert!(error.to_string().contains("144"), "{error}");
            } else {
                assert_eq!(read.unwrap().unwrap().position().get(), position, "byte {at}");
            }
        }
        let in_order: Vec<_> = store.read(Query::all()).collect();
        assert_eq!(in_order.iter().filter(|event| event.is_err()).count(), 1, "byte {at}");
        let stream: Vec<_> = store.stream("e1").take_while(Result::is_ok).collect();
        assert_eq!(stream.len(), 10, "a stream that leaves the record out, byte {at}");
        let stream: Vec<_> = store.stream("e3").collect();
        assert!(stream.last().unwrap().is_err() && stream.len() < 10, "a stream that needs it, byte {at}");
    }
}

/// The index file is not believed. Under right checksums it may say anything of a large append; a reader returns
/// the event of that position or an error.
#[test]
fn an_index_that_lies_about_a_large_append_misleads_no_reader() {
    let (disk, said) = filled(64 << 20);
    let index = disk.paths().into_iter().find(|path| path.ends_with(".idx")).expect("it is sealed");
    let right = disk.contents(&index).unwrap();
    let u32_at = |at: usize| u32::from_le_bytes(right[at..at + 4].try_into().unwrap());
    let lengths: Vec<usize> =
        (0..10).map(|section| usize::try_from(u32_at(132 + 4 * section)).unwrap()).collect();
    let start =
        |section: usize| lengths[..section].iter().fold(192, |at, length| (at + length).next_multiple_of(16));
    let large_frames = start(7)..start(7) + lengths[7];
    let offsets = start(8)..start(8) + lengths[8];
    let mut resealed = right.clone();
    reseal(&mut resealed, start(10));
    assert!(resealed == right, "the checksums are right, so a forged file is used");
    assert!(large_frames.len() >= 64 * 10 && offsets.len() > 4 * 10_000);
    let mut rng = Rng::new(1);
    let mut wrong = 0;
    let mut same = 0;
    for round in 0..400_usize {
        let mut forged = right.clone();
        let section = if round % 2 == 0 { &large_frames } else { &offsets };
        let at = section.start + rng.below(section.len());
        forged[at] ^= 1 << (round / 2 % 8);
        reseal(&mut forged, start(10));
        let image = SimDisk::new(8);
        image.create_directory("segments").unwrap();
        for path in disk.paths() {
            image.set_contents(&path, disk.contents(&path));
        }
        image.set_contents(&index, Some(forged));
        let Ok(store) = Store::on(image).segment_memory_bytes(0).open_read_only() else { continue };
        // The events that the change is about, and some others.
        let near = (at - section.start) / if round % 2 == 0 { 64 } else { 4 };
        let about = if round % 2 == 0 { near * 400 } else { near };
        let positions = (0..8).map(|step| 1 + (about + step * 37 + 8 - 8.min(about)) % said.len());
        for position in positions.chain([1 + about % said.len()]) {
            match store.at(Position::from(u64::try_from(position).unwrap())) {
                Ok(event) => {
                    assert_eq!(
                        event.map(|event| say(&event)).as_ref(),
                        Some(&said[position - 1]),
                        "byte {at}"
                    );
                    same += 1;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                    wrong += 1;
                }
            }
        }
    }
    println!("{same} events were the right ones, {wrong} were refused");
    assert!(same > 1_000);
}

/// Makes the checksums of an index file fit.
fn reseal(bytes: &mut [u8], table: usize) {
    for block in 0..table.div_ceil(4096) {
        let start = (block * 4096).max(192);
        let sum = crc32c::crc32c(&bytes[start..(block * 4096 + 4096).min(table)]);
        bytes[table + 4 * block..table + 4 * block + 4].copy_from_slice(&sum.to_le_bytes());
    }
    let sum = crc32c::crc32c(&bytes[table..]);
    bytes[172..176].copy_from_slice(&sum.to_le_bytes());
    let sum = crc32c::crc32c(&bytes[..188]);
    bytes[188..192].copy_from_slice(&sum.to_le_bytes());
}
