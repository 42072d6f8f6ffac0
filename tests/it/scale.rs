//! What does not grow with the log: the bytes that opening reads, and the memory. Index files may be missing,
//! damaged, old, or those of another store: answers are the same.

use std::ops::ControlFlow;

use annals::disk::{CrashMode, Disk, SimDisk};
use annals::{
    Append, AppendCondition, Durability, Error, ErrorKind, Expected, KeyWindow, Query, Raw, RecordedEvent,
    Store,
};

use crate::sim_spy::{Call, Spy, What};
use crate::support::{FOREVER, GatedDisk, Random, eventually, kind_of};

const BUFFERED: Durability = Durability::Buffered { flush_every: FOREVER };

/// A few events a segment.
fn builder(disk: &SimDisk) -> annals::Builder {
    Store::on(disk.clone()).segment_bytes_max(1500).recent_bytes_max(0).durability(BUFFERED)
}

/// Appends of one to three events of ten entities, some with tags, keys and correlations.
fn write(store: &Store, random: &mut Random, appends: u64) {
    for number in 0..appends {
        let mut append = Append::to(format!("e:{}", random.below(10)));
        for _ in 0..=random.below(3) {
            append = append.event(&Raw("k", &number));
            append = if random.chance(30) { append.tag(format!("t:{}", random.below(4))) } else { append };
        }
        if random.chance(20) {
            let events =
                store.read(Query::all()).backwards().limit(3).map(Result::unwrap).collect::<Vec<_>>();
            append = match events.last() {
                Some(event) => append.caused_by(event),
                None => append,
            };
        }
        append = if random.chance(20) {
            append.key(format!("key {}", store.head().unwrap().position()))
        } else {
            append
        };
        append.commit(store).unwrap();
    }
}

/// The answers to every kind of query. Of the last `closely` events also their effects and correlations.
fn answers_with(store: &Store, closely: u64) -> Result<Vec<String>, Error> {
    let mut answers = vec![format!("{:?}", store.head()?), format!("{} entities", store.stats().entities)];
    let say = |event: &RecordedEvent| format!("{} {} {}", event.position(), event.id(), event.version());
    let mut queries =
        vec![Query::all(), Query::entity_prefix("e:"), Query::all().tag("t:1"), Query::all().kind("none")];
    for number in 0..11 {
        let entity = format!("e:{number}");
        answers.push(format!("{entity} at {}", store.version(&entity)?));
        queries.push(Query::entity(&entity));
        queries.push(Query::entity(&entity).tag("t:2"));
        let some = store.stream(&entity).versions(2..=4).collect::<Result<Vec<_>, _>>()?;
        answers.extend(some.iter().map(say));
    }
    for query in queries {
        let forwards = store.read(query.clone()).collect::<Result<Vec<_>, _>>()?;
        let mut backwards = store.read(query.clone()).backwards().collect::<Result<Vec<_>, _>>()?;
        backwards.reverse();
        assert_eq!(
            forwards.iter().map(say).collect::<Vec<_>>(),
            backwards.iter().map(say).collect::<Vec<_>>()
        );
        assert_eq!(store.count(query.clone())?, forwards.len() as u64, "{query}");
        assert_eq!(store.last(query.clone())?.as_ref().map(say), forwards.last().map(say), "{query}");
        answers.extend(forwards.iter().map(say));
    }
    for event in store.read(Query::all()).backwards().limit(closely) {
        let event = event?;
        assert_eq!(store.get(event.id())?.as_ref().map(say), Some(say(&event)));
        let effects = store.descendants(event.id()).collect::<Result<Vec<_>, _>>()?;
        answers.push(format!(
            "{} caused {:?}",
            event.position(),
            effects.iter().map(say).collect::<Vec<_>>()
        ));
        answers.push(format!(
            "{} tells {}",
            event.position(),
            store.story(event.correlation())?.events().len()
        ));
    }
    for listing in [store.entities(), store.scopes(), store.kinds(), store.tags()] {
        for listed in listing {
            answers.push(format!("{:?}", listed?));
        }
    }
    Ok(answers)
}

fn answers(store: &Store) -> Result<Vec<String>, Error> {
    answers_with(store, 200)
}

fn indexes(disk: &SimDisk) -> Vec<String> {
    disk.paths().into_iter().filter(|path| path.ends_with(".idx")).collect()
}

/// What becomes of a file, by its name and what it holds.
type Damage<'a> = Box<dyn FnMut(&str, &[u8]) -> Option<Vec<u8>> + 'a>;

fn copy(disk: &SimDisk) -> SimDisk {
    let trace = disk.trace();
    trace.image(trace.len(), CrashMode::Keep)
}

#[test]
fn answers_do_not_depend_on_index_files() {
    let mut random = Random::for_test("answers_do_not_depend_on_index_files");
    let disk = SimDisk::new(1);
    let store = builder(&disk).open().unwrap();
    write(&store, &mut random, 90);
    let right = answers(&store).unwrap();
    store.close().unwrap();
    let paths = indexes(&disk);
    assert!(paths.len() > 5 && disk.paths().iter().all(|path| !path.ends_with(".tmp")), "{paths:?}");
    let whole: Vec<(&str, Vec<u8>)> =
        paths.iter().map(|path| (path.as_str(), disk.contents(path).unwrap())).collect();
    let next = |path: &str| {
        &whole[(whole.iter().position(|(other, _)| *other == path).unwrap() + 1) % whole.len()].1
    };
    let mut damages: Vec<(&str, Damage<'_>)> = vec![
        ("as they are", Box::new(|_, bytes| Some(bytes.to_vec()))),
        ("gone", Box::new(|_, _| None)),
        ("empty", Box::new(|_, _| Some(Vec::new()))),
        ("cut", Box::new(|_, bytes| Some(bytes[..bytes.len() / 2].to_vec()))),
        ("each other's", Box::new(|path, _| Some(next(path).clone()))),
    ];
    for _ in 0..8 {
        let mut random = Random::new(random.next());
        let flip = move |_: &str, bytes: &[u8]| {
            let (mut bytes, at) = (bytes.to_vec(), random.index(bytes.len()));
            bytes[at] ^= 1 << random.below(8);
            Some(bytes)
        };
        damages.push(("flipped", Box::new(flip)));
    }
    for (what, mut damage) in damages {
        for budget in [0, 3_000, 256 << 20] {
            for writes in [true, false] {
                let disk = copy(&disk);
                whole.iter().for_each(|(path, bytes)| disk.set_contents(path, damage(path, bytes)));
                let builder = builder(&disk).index_memory_bytes(budget);
                let store = if writes { builder.open() } else { builder.open_read_only() }.unwrap();
                assert!(answers(&store).unwrap() == right, "{what}, {budget} bytes, writes: {writes}");
                let held = store.stats().index_bytes;
                assert!(held <= budget, "{held} of {budget} bytes of indexes");
                drop(store);
                let healed = whole.iter().all(|(path, bytes)| disk.contents(path).as_ref() == Some(bytes));
                assert!(healed || !writes, "{what}: index files were made again as they were");
            }
        }
    }
}

// A damaged segment is met by who reads it; with an index of its own the others, and appends, go on.
#[test]
fn damage_in_a_sealed_segment_does_not_hide_the_rest() {
    let disk = SimDisk::new(2);
    let store = builder(&disk).open().unwrap();
    for number in 0..60_u64 {
        store.append(format!("e:{number}"), &Raw("k", &(number, "x".repeat(80)))).unwrap();
    }
    store.close().unwrap();
    let path = "segments/00000000000000000001.0.seg";
    let mut bytes = disk.contents(path).unwrap();
    bytes[300] ^= 1;
    disk.set_contents(path, Some(bytes));
    let mut newer = 41;
    for keep_index in [true, false] {
        if !keep_index {
            disk.set_contents("segments/00000000000000000001.0.idx", None);
        }
        let store = builder(&disk).open().unwrap();
        assert_eq!(
            kind_of(store.stream("e:0").next().unwrap().and(store.stream("e:1").next().unwrap())),
            ErrorKind::Corrupt
        );
        store.append("e:59", &Raw("k", &1)).unwrap();
        assert_eq!(store.read(Query::all()).after(20.into()).filter(|event| event.is_ok()).count(), newer);
        // Who must look into that segment, if only to find that nothing is there, needs its index.
        let looked_for =
            store.append(format!("new:{newer}"), &Raw("k", &1)).map(|appended| appended.version().get());
        match keep_index {
            true => assert_eq!(looked_for.unwrap(), 1),
            false => assert_eq!(kind_of(looked_for), ErrorKind::Corrupt),
        }
        newer += 2;
        assert!(!store.verify().unwrap().is_clean());
        store.close().unwrap();
    }
}

/// Opening reads header and seal of this number of sealed segments.
const NEWEST: usize = 64;

#[test]
fn opening_reads_as_much_however_long_the_log_is() {
    let read = |appends: u64, clean: bool| {
        let disk = SimDisk::new(3);
        let store = builder(&disk).open().unwrap();
        for number in 0..appends {
            store.append(format!("e:{}", number % 7), &Raw("k", &"x".repeat(108))).unwrap();
        }
        store.sync().unwrap();
        let killed = copy(&disk);
        store.close().unwrap();
        let disk = if clean { disk } else { killed };
        let mut sealed: Vec<String> =
            disk.paths().into_iter().filter(|path| path.ends_with(".seg")).collect();
        sealed.pop();
        let newest = sealed.len().min(NEWEST);
        // These are looked at in the background.
        let old = &sealed[..sealed.len() - newest];
        let spy = Spy::new(disk);
        let store = Store::on(spy.clone()).segment_bytes_max(1500).open().unwrap();
        let calls = spy.calls();
        let is_of_opening = |call: &&Call| call.path.starts_with("segments/0") && !old.contains(&call.path);
        let segments: Vec<_> = calls.iter().filter(is_of_opening).collect();
        let sizes = segments.iter().filter(|call| call.what == What::Read).map(|call| call.bytes);
        assert_eq!(store.open_report().events, appends);
        // Of the newest sealed segments header and seal are read.
        let (more_calls, more_bytes) = (3 * newest, (144 + 72) * newest);
        let looks = calls.iter().filter(|call| call.what == What::Inspect).count();
        let read = sizes.sum::<usize>() - more_bytes;
        (segments.len() - more_calls, read, store.open_report().bytes_read, looks)
    };
    for clean in [true, false] {
        let (short, long) = (read(25, clean), read(1005, clean));
        assert!(short.0 > 0 && short.3 == 1);
        assert_eq!(short, long, "calls, bytes asked for, bytes walked and looks at names; clean: {clean}");
    }
}

// Streams, keys and conditions whose events lie in sealed segments only, long ago: decided as if all lay in memory.
#[test]
fn appends_are_decided_by_what_lies_in_sealed_segments() {
    for budget in [0, 256 << 20] {
        let disk = SimDisk::new(4);
        let open =
            || builder(&disk).index_memory_bytes(budget).key_window(KeyWindow::Unlimited).open().unwrap();
        let store = open();
        let old = Append::to("old").key("first").event(&Raw("k", &1)).tag("t").commit(&store).unwrap();
        for number in 0..80_u64 {
            Append::to(format!("e:{number}"))
                .key(format!("key {number}"))
                .event(&Raw("k", &"x".repeat(100)))
                .commit(&store)
                .unwrap();
        }
        let check = |store: &Store, next: u64| {
            let to = |entity: &str| Append::to(entity).event(&Raw("k", &2));
            let refused = [
                to("old").expect(Expected::NoStream),
                to("old").expect(Expected::exact(0)),
                to("e:3").expect(Expected::exact(9)),
                to("new").expect(Expected::StreamExists),
                to("new").condition(AppendCondition::none(Query::all().tag("t"))),
            ];
            for append in refused {
                assert_eq!(kind_of(append.commit(store)), ErrorKind::Conflict);
            }
            let again = Append::to("old").key("first").event(&Raw("k", &1)).tag("t").commit(store).unwrap();
            assert!(again.replayed() && again.position() == old.position());
            assert_eq!(kind_of(to("old").key("key 7").commit(store)), ErrorKind::KeyReused);
            let taken = to("old")
                .expect(Expected::exact(next - 1))
                .condition(AppendCondition::none(Query::all().tag("none")));
            assert_eq!(taken.commit(store).unwrap().version().get(), next);
            assert_eq!(to("e:3").commit(store).unwrap().version().get(), next);
        };
        check(&store, 2);
        store.close().unwrap();
        let store = open();
        check(&store, 3);
        assert_eq!(store.stats().entities, 81);
    }
}

// A command waits while two segments are filled. Then the look-up of its caller ends before the part that the
// writer still knows, so the writer looks again.
#[test]
fn a_command_that_waited_while_two_segments_were_filled() {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).segment_bytes_max(0).open().unwrap();
    store.append("slow", &Raw("k", &1)).unwrap();
    let (held, first) =
        disk.gate().hold_up(|| Append::to("other").event(&Raw("k", &1)).submit(&store).unwrap());
    let mut tickets = vec![first];
    tickets.extend((0..5).map(|number| Append::to("slow").event(&Raw("k", &number)).submit(&store).unwrap()));
    let stale = Append::to("slow").expect(Expected::exact(1)).event(&Raw("k", &9)).submit(&store).unwrap();
    let late = Append::to("slow").event(&Raw("k", &9)).submit(&store).unwrap();
    drop(held);
    for (version, ticket) in (1..).zip(tickets.into_iter().skip(1)) {
        assert_eq!(ticket.wait().unwrap().version().get(), version + 1);
    }
    let conflict = stale.wait().unwrap_err();
    assert_eq!(conflict.conflict().unwrap().actual.get(), 6);
    assert_eq!(late.wait().unwrap().version().get(), 7);
}

// A segment that was closed with its index and written to again is two parts; closed again, it is one.
#[test]
fn a_segment_that_is_closed_and_goes_on() {
    let mut random = Random::for_test("a_segment_that_is_closed_and_goes_on");
    let disk = SimDisk::new(5);
    let open = || Store::on(disk.clone()).recent_bytes_max(0).durability(BUFFERED).open().unwrap();
    let path = "segments/00000000000000000001.0.idx";
    let fill = |store: &Store, appends: u64| {
        let append = |number| {
            Append::to(format!("e:{}", number % 10)).event(&Raw("k", &number)).submit(store).unwrap()
        };
        (0..appends)
            .map(append)
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|ticket| drop(ticket.wait().unwrap()));
    };
    let store = open();
    fill(&store, 1000);
    store.close().unwrap();
    assert_eq!(disk.contents(path), None, "not worth it");
    let mut written = Vec::new();
    for round in 0..4 {
        let store = open();
        assert!(store.open_report().clean, "{}", store.open_report());
        let walked = store.open_report().bytes_read;
        assert_eq!(walked == 0, round > 0, "round {round}: {walked} bytes walked");
        write(&store, &mut random, 20);
        fill(&store, 4090);
        let right = answers(&store).unwrap();
        store.close().unwrap();
        let index = disk.contents(path).unwrap();
        assert_ne!(index, written, "round {round}: it has what came since");
        written = index;

        let killed = copy(&disk);
        killed.set_contents(path, None);
        for disk in [&disk, &killed] {
            let store = Store::on(disk.clone()).recent_bytes_max(0).open_read_only().unwrap();
            assert!(answers(&store).unwrap() == right, "round {round}");
            assert_eq!((store.stats().segments, store.verify().unwrap().is_clean()), (1, true));
        }
    }
    // It ends while it is two parts.
    let bytes = open().stats().bytes;
    let most = u32::try_from(bytes + 1000).unwrap();
    let store = Store::on(disk.clone()).segment_bytes_max(most).durability(BUFFERED).open().unwrap();
    write(&store, &mut random, 20);
    assert_eq!(store.stats().segments, 2);
    let right = answers(&store).unwrap();
    eventually("its index is written", || disk.contents(path).is_some_and(|index| index != written));
    assert!(answers(&store).unwrap() == right);
    store.close().unwrap();
    let store = open();
    assert!(answers(&store).unwrap() == right && store.verify().unwrap().is_clean());
}

// An old index beside a segment that went on, and was not closed: MARK proves all of it, so only what came
// since is walked.
#[test]
fn behind_an_index_of_an_earlier_close_the_segment_is_walked() {
    let disk = SimDisk::new(6);
    let open = |disk: &SimDisk| Store::on(disk.clone()).durability(BUFFERED).open().unwrap();
    let store = open(&disk);
    let append = |number: u64| Append::to("e").event(&Raw("k", &number)).submit(&store).unwrap();
    (0..5000).map(append).collect::<Vec<_>>().into_iter().for_each(|ticket| drop(ticket.wait().unwrap()));
    store.close().unwrap();
    let store = open(&disk);
    store.append("e", &Raw("k", &1)).unwrap();
    store.sync().unwrap();
    let walked = |disk: &SimDisk| {
        let killed = open(disk);
        assert_eq!((killed.version("e").unwrap().get(), killed.open_report().clean), (5001, false));
        killed.open_report().bytes_read
    };
    let without = copy(&disk);
    without.set_contents("segments/00000000000000000001.0.idx", None);
    assert!(walked(&copy(&disk)) + 400_000 < walked(&without));
}

// The number of open files has a bound, for any number of sealed segments that are read.
#[test]
fn descriptors_are_closed_again() {
    let directory = tempfile::tempdir().unwrap();
    let builder = || {
        Store::builder(directory.path().join("store"))
            .segment_bytes_max(0)
            .durability(BUFFERED)
            .recent_bytes_max(0)
    };
    let store = builder().open().unwrap();
    for number in 0..200_u64 {
        store.append(format!("e:{number}"), &Raw("k", &number)).unwrap();
    }
    store.close().unwrap();
    let store = builder().open().unwrap();
    let open = || {
        let own = directory.path().canonicalize().unwrap();
        let links = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        links.filter(|path| path.starts_with(&own)).count()
    };
    assert!(open() < 10, "{} files are open behind opening", open());
    for _ in 0..2 {
        assert_eq!(store.read(Query::all()).count(), 200);
        assert!((20..=80).contains(&open()), "{} files are open behind reading", open());
    }
}

// A segment that is read often lies in memory, checked once; within the budget, and with the same answers.
#[test]
fn segments_that_are_read_often_lie_in_memory() {
    let disk = SimDisk::new(8);
    let builder =
        || Store::on(disk.clone()).segment_bytes_max(100_000).durability(BUFFERED).recent_bytes_max(0);
    let store = builder().open().unwrap();
    for number in 0..3_000_u64 {
        store.append(format!("e:{}", number % 100), &Raw("k", &(number, "x".repeat(30)))).unwrap();
    }
    let right: Vec<_> = store.read(Query::all()).map(|event| event.unwrap().id()).collect();
    store.close().unwrap();
    for budget in [0, 250_000, 256 << 20] {
        let spy = Spy::new(disk.clone());
        let store =
            Store::on(spy.clone()).recent_bytes_max(0).segment_memory_bytes(budget).open_read_only().unwrap();
        let sealed = u64::try_from(store.stats().segments - 1).unwrap();
        let wanted = (budget / 100_000).min(sealed);
        let read_all = || {
            for number in 0..100 {
                assert_eq!(store.stream(format!("e:{number}")).count(), 30);
            }
            assert!(right.iter().all(|id| store.get(*id).unwrap().unwrap().id() == *id));
            assert!(store.stats().resident_bytes <= budget);
        };
        eventually("what has room is in memory", || {
            read_all();
            store.stats().resident_bytes / 90_000 >= wanted
        });
        let reads = || {
            let calls = spy.calls();
            calls.iter().filter(|call| call.what == What::Read && call.path.ends_with(".seg")).count()
        };
        let before = reads();
        read_all();
        let of_the_last = 2 * 3_000 / usize::try_from(sealed).unwrap();
        match budget {
            0 => assert!(reads() - before > 3_000),
            250_000 => stay_in_memory(&spy, read_all),
            _ => assert!(reads() - before < of_the_last, "{} reads of segments", reads() - before),
        }
        let ids: Vec<_> = store.read(Query::all()).map(|event| event.unwrap().id()).collect();
        assert!(ids == right);
    }
}

/// If all segments are read equally often, those in memory stay: loading others would gain nothing.
fn stay_in_memory(spy: &Spy, read_all: impl Fn()) {
    let loads = || {
        let is_load =
            |call: &&Call| call.what == What::Read && call.path.ends_with(".seg") && call.bytes > 64 << 10;
        spy.calls().iter().filter(is_load).count()
    };
    let before = loads();
    (0..10).for_each(|_| read_all());
    // Some may have been asked for before all had been read once.
    assert!(loads() - before <= 2, "{} loads", loads() - before);
}

// A program that opens, appends a little and is gone does not pay for an index.
#[test]
fn a_short_life_writes_no_index() {
    let disk = SimDisk::new(7);
    for _ in 0..3 {
        let store = Store::on(disk.clone()).open().unwrap();
        (0..20).for_each(|number| drop(store.append("e", &Raw("k", &number)).unwrap()));
        store.close().unwrap();
    }
    assert!(indexes(&disk).is_empty());
    assert_eq!(Store::on(disk).open().unwrap().version("e").unwrap().get(), 60);
}

#[test]
fn all_indexes_are_built_again_on_request() {
    let (disk, mut random) = (SimDisk::new(5), Random::for_test("all_indexes_are_built_again_on_request"));
    let store = builder(&disk).open().unwrap();
    write(&store, &mut random, 80);
    let whole = answers(&store).unwrap();
    store.close().unwrap();

    let store = builder(&disk).open().unwrap();
    let sealed = store.rebuild_indexes(|_| ControlFlow::Continue(())).unwrap();
    assert!(sealed > 3 && indexes(&disk).len() >= sealed);
    for name in indexes(&disk) {
        disk.remove(&name).unwrap();
    }
    let mut told = Vec::new();
    let broken = store.rebuild_indexes(|progress| {
        told.push(*progress);
        if progress.segments == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((kind_of(broken), told.len()), (ErrorKind::Cancelled, 3));
    assert_eq!(indexes(&disk).len(), 2, "those that were built are there");
    assert!(told[2].bytes > 0 && told[2].bytes < told[2].bytes_total && told[2].remaining().is_some());
    let mut last = None;
    let built = store.rebuild_indexes(|progress| {
        last = Some(*progress);
        ControlFlow::Continue(())
    });
    let last = last.unwrap();
    assert_eq!((built.unwrap(), last.segments, last.bytes), (sealed, last.segments_total, last.bytes_total));
    assert_eq!(answers(&store).unwrap(), whole);
    store.close().unwrap();
    let reading = builder(&disk).open_read_only().unwrap();
    assert_eq!(kind_of(reading.rebuild_indexes(|_| ControlFlow::Continue(()))), ErrorKind::Invalid);
    assert_eq!(answers(&reading).unwrap(), whole);
}
