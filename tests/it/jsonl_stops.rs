//! Imports of lines that are bad, odd or too long, and imports that are stopped anywhere and run again.

use std::io::{self, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use annals::disk::MemDisk;
use annals::test::Crash;
use annals::{Append, Denial, ErrorKind, GateDecision, Proposed, Query, Raw, Store};

use crate::jsonl::export;
use crate::support::{Random, all, kind_of};

/// A line that can be imported.
fn line(number: u64) -> String {
    format!("{{\"entity\":\"a:{}\",\"kind\":\"x\",\"payload\":{number}}}", number % 3)
}

fn lines(numbers: std::ops::Range<u64>) -> String {
    numbers.map(|number| line(number) + "\n").collect()
}

/// The payloads there are, in order.
fn payloads(store: &Store) -> Vec<u64> {
    all(store.read(Query::all())).iter().map(|event| event.decode().unwrap()).collect()
}

#[test]
fn a_bad_line_stops_the_import_and_says_where_and_why() {
    let cases = [
        ("{", "column 1: EOF"),
        ("nonsense", "column 2: expected ident"),
        ("[1]", "column 1: an event is an object"),
        (r#"{"entity":"a:1","kind":"x"}"#, "there is no payload"),
        (r#"{"kind":"x","payload":1}"#, "missing field `entity`"),
        (r#"{"entity":"a:1","kind":"x","payload":1,"occured_at":5}"#, "unknown field `occured_at`"),
        (r#"{"entity":"a:1","kind":"x","payload":1,"payload":2}"#, "duplicate field `payload`"),
        (
            r#"{"entity":"a:1","kind":"x","payload":1,"payload_base64":"AQ=="}"#,
            "both payload and payload_base64",
        ),
        (r#"{"entity":"a:1","kind":"x","payload_base64":"?"}"#, "payload_base64 is no Base64"),
        (r#"{"entity":"a:1","kind":"x","payload":1,"erased":"00"}"#, "what is erased has no payload"),
        (r#"{"entity":"a:1","kind":"x","erased":"00"}"#, "erased is no hash"),
        (r#"{"entity":"a:1","kind":"x","payload":1,"version":0}"#, "the version is 0"),
        (r#"{"entity":"$a:1","kind":"x","payload":1}"#, "begins with `$`"),
        (r#"{"entity":"","kind":"x","payload":1}"#, "the entity is empty"),
        (r#"{"entity":"a:1","kind":"x","payload":1,"id":"7"}"#, "column"),
        (r#"{"entity":"a:1","kind":"x","payload":1,"occurred_at":"yesterday"}"#, "a time like"),
        (r#"{"entity":"a:1","kind":"x","payload":1,"append":[1,2]}"#, "event 1 of 2"),
        (r#"{"entity":"a:1","kind":"x","payload":1,"append":[0,0]}"#, "event 0 of 0"),
        (r#"{"entity":"a:1","kind":"x","payload":1,"append":[0,2]}"#, "the append has 2 events, but only 1"),
    ];
    for (bad, part) in cases {
        let store = Store::in_memory().unwrap();
        let source = format!("{}\n{bad}\n{}", line(1), line(2));
        let error = store.import("bad", source.as_bytes()).run().unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
        assert!(text.starts_with("line 2: ") && text.contains(part), "{bad}: {text}");
        assert_eq!(payloads(&store), [1], "what came before is in, and nothing behind it");
        // Mended, the rest follows.
        let mended = format!("{}\n{}\n{}", line(1), line(5), line(2));
        store.import("bad", mended.as_bytes()).run().unwrap();
        assert_eq!(payloads(&store), [1, 5, 2]);
        // Skipped, it is kept aside as it was.
        let store = Store::in_memory().unwrap();
        let mut rejects = Vec::new();
        let imported = store.import("bad", source.as_bytes()).skip_bad(&mut rejects).run().unwrap();
        assert_eq!(String::from_utf8(rejects).unwrap(), format!("{bad}\n"));
        assert_eq!((imported.events, imported.rejected, imported.reasons.len()), (2, 1, 1));
        assert!(imported.reasons[0].contains(part), "{imported}");
        assert_eq!(payloads(&store), [1, 2]);
    }
}

#[test]
fn an_append_is_rejected_as_a_whole() {
    let of = |place: &str, number: u64| line(number).replace('}', &format!(",\"append\":{place}}}"));
    let source = [
        of("[0,2]", 1),
        of("[1,2]", 2),
        of("[0,3]", 3),
        "bad".to_owned(),
        of("[2,3]", 4),
        of("[0,2]", 5),
        of("[0,2]", 6),
        of("[1,2]", 7),
        of("[0,2]", 8),
    ]
    .join("\n");
    let store = Store::in_memory().unwrap();
    let mut rejects = Vec::new();
    let imported = store.import("some", source.as_bytes()).skip_bad(&mut rejects).run().unwrap();
    assert_eq!(payloads(&store), [1, 2, 6, 7]);
    assert_eq!((imported.appends, imported.events, imported.rejected), (2, 4, 5));
    let rejected = [of("[0,3]", 3), "bad".to_owned(), of("[2,3]", 4), of("[0,2]", 5), of("[0,2]", 8)];
    assert_eq!(String::from_utf8(rejects).unwrap(), rejected.join("\n"));
}

#[test]
fn what_a_gate_or_a_limit_refuses_is_a_bad_line() {
    let even = |proposed: &Proposed<'_>, _: &Store| -> Result<GateDecision, Denial> {
        let numbers: Vec<u64> = proposed.events().map(|event| event.decode()).collect::<Result<_, _>>()?;
        if numbers.iter().all(|number| number % 2 == 0) {
            Ok(GateDecision::always())
        } else {
            Err(Denial::new("odd"))
        }
    };
    let store = Store::on(MemDisk::new()).gate("even", even).open().unwrap();
    let source = lines(0..5);
    let error = store.import("gated", source.as_bytes()).run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().starts_with("line 2: "), "{error}");
    let imported = store.import("gated", source.as_bytes()).skip_bad(io::sink()).run().unwrap();
    assert_eq!((imported.events, imported.rejected), (2, 2));
    assert_eq!(payloads(&store), [0, 2, 4]);
    let long = format!("{{\"entity\":\"{}\",\"kind\":\"x\",\"payload\":0}}", "e".repeat(600));
    let error = store.import("long", long.as_bytes()).run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("entity_bytes_max"), "{error}");
}

#[test]
fn ends_of_lines_and_marks_of_order_are_read_as_they_come() {
    let (one, two) = (line(1), line(2));
    let sources = [
        format!("{one}\n{two}"),
        format!("{one}\r\n{two}\r\n"),
        format!("\u{FEFF}{one}\n{two}\n"),
        format!("\n\r\n  {one}\n \t\n{two} \n\n"),
    ];
    for source in sources {
        let store = Store::in_memory().unwrap();
        let imported = store.import("ends", source.as_bytes()).run().unwrap();
        assert_eq!((imported.events, payloads(&store)), (2, vec![1, 2]), "{source:?}");
        // The source grows.
        let grown = format!("{source}\n{}", line(3));
        let imported = store.import("ends", grown.as_bytes()).run().unwrap();
        assert_eq!((imported.events, payloads(&store)), (1, vec![1, 2, 3]), "{grown:?}");
        let error = store.import("ends", format!("{grown}\nbad").as_bytes()).run().unwrap_err();
        let number = grown.lines().count() + 1;
        assert!(error.to_string().starts_with(&format!("line {number}: ")), "{error} in {grown:?}");
    }
    let store = Store::in_memory().unwrap();
    for nothing in ["", "\n\n", "\u{FEFF}"] {
        assert_eq!(store.import("nothing", nothing.as_bytes()).run().unwrap().events, 0);
    }
    // `cat` of files that begin with one.
    let joined = format!("\u{FEFF}{one}\n\u{FEFF}{two}");
    assert_eq!(store.import("joined", joined.as_bytes()).run().unwrap().events, 2);
    let late = format!("{one} \u{FEFF}{two}");
    assert_eq!(kind_of(store.import("late", late.as_bytes()).run()), ErrorKind::Invalid);
}

#[test]
fn a_line_over_the_limit_is_never_held() {
    let long = format!("{{\"entity\":\"a:1\",\"kind\":\"x\",\"payload\":\"{}\"}}", "y".repeat(300_000));
    for end in ["\n", "\r\n", ""] {
        let source = format!("{}\n{long}{end}", line(1));
        let source = if end.is_empty() { source } else { source + &line(2) };
        let store = Store::in_memory().unwrap();
        let import = || store.import("long", source.as_bytes()).line_bytes_max(1000);
        let error = import().run().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(
            error.to_string().starts_with("line 2: ") && error.to_string().contains("line_bytes_max"),
            "{error}"
        );
        let mut rejects = Vec::new();
        let imported = import().skip_bad(&mut rejects).run().unwrap();
        assert_eq!(imported.rejected, 1);
        assert!(rejects == format!("{long}{end}").into_bytes());
        assert_eq!(payloads(&store).len(), if end.is_empty() { 1 } else { 2 });
    }
    // Exactly as long as may be.
    let store = Store::in_memory().unwrap();
    let source = line(1) + "\n" + &line(2);
    let most = line(1).len() + 1;
    assert_eq!(store.import("just", source.as_bytes()).line_bytes_max(most).run().unwrap().events, 2);
    let store = Store::in_memory().unwrap();
    assert_eq!(
        kind_of(store.import("just", source.as_bytes()).line_bytes_max(most - 2).run()),
        ErrorKind::TooLarge
    );
}

#[test]
fn a_second_run_appends_nothing_and_another_source_is_refused() {
    let store = Store::in_memory().unwrap();
    let source = lines(0..3000);
    let imported = store.import("all", source.as_bytes()).run().unwrap();
    assert_eq!((imported.events, imported.appends, imported.lines), (3000, 3000, 3000));
    let head = store.head().unwrap();
    let again = store.import("all", source.as_bytes()).run().unwrap();
    assert_eq!((again.events, again.lines, again.lines_before), (0, 0, 3000));
    assert_eq!(store.head().unwrap(), head);
    let other = source.replacen("\"x\"", "\"y\"", 1);
    let shorter = lines(0..2000);
    for (source, part) in [(&other, "bytes are not those"), (&shorter, "the source ends after")] {
        let error = store.import("all", source.as_bytes()).run().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(store.head().unwrap(), head);
    for name in ["", "$", "a\nb"] {
        assert_eq!(kind_of(store.import(name, source.as_bytes()).run()), ErrorKind::Invalid, "{name:?}");
    }
}

#[test]
fn an_import_is_broken_off_and_goes_on() {
    let store = Store::in_memory().unwrap();
    let source = lines(0..10_000);
    let mut told = Vec::new();
    let import = store.import("all", source.as_bytes()).on_progress(|progress| {
        told.push((progress.lines, progress.events));
        if progress.lines > 5000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(kind_of(import.run()), ErrorKind::Cancelled);
    assert_eq!(told, [(4096, 4096), (8192, 8192)]);
    assert_eq!(payloads(&store).len(), 8192, "what was read is in");
    let imported = store.import("all", source.as_bytes()).run().unwrap();
    assert_eq!((imported.events, imported.lines_before), (1808, 8192));
    assert_eq!(payloads(&store), (0..10_000).collect::<Vec<_>>());
}

/// Takes or gives this number of bytes, then fails.
struct Failing<T>(T, usize);

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the reader is gone")
}

impl<T: Write> Write for Failing<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.1);
        self.1 -= taken;
        if taken == 0 { Err(broken()) } else { self.0.write(&bytes[..taken]) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<T: Read> Read for Failing<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let most = bytes.len().min(self.1);
        self.1 -= most;
        if most == 0 { Err(broken()) } else { self.0.read(&mut bytes[..most]) }
    }
}

#[test]
fn a_pipe_that_breaks_is_an_error_with_its_cause() {
    let store = Store::in_memory().unwrap();
    let source = lines(0..100);
    let failing = BufReader::new(Failing(source.as_bytes(), 1000));
    let error = store.import("pipe", failing).run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("cannot read line "), "{error}");
    let there = payloads(&store).len();
    assert!(there > 10 && there < 100, "{there}");
    store.import("pipe", source.as_bytes()).run().unwrap();
    assert_eq!(payloads(&store), (0..100).collect::<Vec<_>>());

    let error = store.export(Query::all()).write_to(Failing(Vec::new(), 1000)).unwrap_err();
    let cause = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<io::Error>());
    assert_eq!(cause.map(io::Error::kind), Some(io::ErrorKind::BrokenPipe), "{error}");

    let bad = format!("{source}bad\n");
    let error = store
        .import("reject", bad.as_bytes())
        .even_if_imported()
        .skip_bad(Failing(Vec::new(), 2))
        .run()
        .unwrap_err();
    assert!(error.to_string().contains("cannot write what was rejected"), "{error}");
}

/// What was written, and what of it was flushed.
#[derive(Clone, Default)]
struct Buffered(Arc<Mutex<(Vec<u8>, Vec<u8>)>>);

impl Write for Buffered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let (written, flushed) = &mut *self.0.lock().unwrap();
        flushed.append(written);
        Ok(())
    }
}

#[test]
fn what_is_rejected_is_kept_before_anything_behind_it_is_appended() {
    let store = Store::in_memory().unwrap();
    let (rejects, looked) = (Buffered::default(), Buffered::default());
    let (seen, mut reads) = (rejects.clone(), 0);
    let source = format!("bad\n{}", lines(0..3));
    // Each read gives one line; before the second, what was rejected must be safe.
    let reader = BufReader::with_capacity(
        4,
        Between(source.as_bytes(), || {
            reads += 1;
            if reads == 3 {
                looked.clone().write_all(&seen.0.lock().unwrap().1).unwrap();
            }
        }),
    );
    store.import("some", reader).skip_bad(rejects).run().unwrap();
    assert_eq!(looked.0.lock().unwrap().0, b"bad\n");
}

#[test]
fn of_two_imports_of_one_name_one_goes_on() {
    let store = Store::in_memory().unwrap();
    let source = lines(0..20);
    let inner = store.clone();
    let mut second = Some(source.clone());
    // The other one runs while this one is between two lines.
    let reader = BufReader::with_capacity(
        400,
        Between(source.as_bytes(), move || {
            if let Some(source) = second.take() {
                inner.import("same", source.as_bytes()).run().unwrap();
            }
        }),
    );
    let error = store.import("same", reader).run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("another import of this name runs"), "{error}");
    assert_eq!(payloads(&store), (0..20).collect::<Vec<_>>());
}

/// Does something before each read.
struct Between<'a, F>(&'a [u8], F);

impl<F: FnMut()> Read for Between<'_, F> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        (self.1)();
        self.0.read(bytes)
    }
}

/// An append of one event or several, of some entities, in lines.
fn some_store(random: &mut Random) -> Store {
    let store = Store::in_memory().unwrap();
    for number in 0..24u64 {
        let mut append = Append::to("a:1").event(&Raw("x", &number));
        for _ in 0..random.below(3) {
            append = append.and_to(random.pick(&["a:1", "b:2", "c:3"])).event(&Raw("y", &number));
        }
        append.commit(&store).unwrap();
    }
    store
}

/// Everything but what belongs to the store.
fn content(store: &Store) -> Vec<(annals::EventId, u64, u64, String)> {
    let events = all(store.read(Query::all()));
    let positions = events
        .iter()
        .map(|event| (event.id(), event.position().get(), event.version().get(), event.entity().to_owned()));
    positions.collect()
}

#[test]
fn an_import_that_is_killed_anywhere_and_run_again_gives_the_same_store() {
    let mut random = Random::for_test("an_import_that_is_killed_anywhere");
    let source = export(&some_store(&mut random), Query::all());
    // Bad lines here and there, so that places and numbers are put to the test, too.
    let source = source.lines().fold(String::new(), |all, line| all + line + "\n\nbad\n");
    let import = |store: &Store| {
        // Bad lines between the events of an append would break it; those behind it do not.
        let whole = source.replace("\n\nbad\n", "\n");
        let imported = store.import("copy", whole.as_bytes()).run().unwrap();
        let more = format!("bad\n{whole}");
        let other = store.import("more", more.as_bytes()).renumber().skip_bad(io::sink()).run().unwrap();
        (imported.events + other.events, content(store))
    };
    let (_, reference) = import(&Store::in_memory().unwrap());
    let report = Crash::new(random.next()).torn_per_point(8).images_max(2000).run(
        |store, said| {
            let (events, _) = import(store);
            said.say(events);
        },
        |store, said| {
            let before = content(store);
            assert_eq!(before, reference[..before.len()], "it is a beginning of what it was to be");
            assert!(said.is_empty() || before.len() == reference.len(), "what was acknowledged is there");
            let (events, after) = import(store);
            assert_eq!(after, reference);
            assert_eq!(usize::try_from(events).unwrap(), reference.len() - before.len());
        },
    );
    println!("{report:?}");
    // How many operations there are depends on how many appends came into one group.
    assert!(report.operations > 15 && report.images > 150, "{report:?}");
}
