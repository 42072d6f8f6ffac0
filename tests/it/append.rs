//! Versions and positions, every expectation, several entities, keys, limits, names, attributes,
//! ids, receipts.

use std::panic::{AssertUnwindSafe, catch_unwind};

use annals::disk::{MemDisk, OsDisk};
use annals::{
    Append, Appended, Cause, Coordinate, Durability, Error, ErrorKind, EventData, EventId, Expected,
    KeyWindow, Limits, Position, Query, Raw, Store,
};

use crate::support::{
    Bytes, FOREVER, GatedDisk, all, at, check, check_on, derived_id, expectations, fill, kind_of, outcome,
    positions, within,
};

const VERSIONS: &str = "
    append order-1  expect none    placed       => v1 @1
    append order-1  expect none    placed       => conflict on order-1, actual v1 @1
    append order-2                 placed       => v1 @2
    append order-1  expect v1      paid shipped => v2 v3 @3..4
    append order-1  expect v1      paid         => conflict on order-1, actual v3 @4
    append order-1  expect exists  returned     => v4 @5
    append order-3  expect exists  returned     => conflict on order-3, actual v0 @0
    append order-3  expect v0      placed       => v1 @6
    read order-1                                => placed paid shipped returned
    read all after=2 limit=3                    => paid shipped returned
    read all backwards limit=2                  => placed returned
    read order-1 after=4                        => returned
    read order-9                                => nothing
    version order-1                             => v4
    version order-9                             => v0
    head                                        => @6
    reopen
    read order-1                                => placed paid shipped returned
    append order-1  expect v3      lost         => conflict on order-1, actual v4 @5
    append order-1  expect v4      lost         => v5 @7
    head                                        => @7
";

const SEVERAL_ENTITIES: &str = "
    append a expect none opened + b expect none opened credited   => v1 v1 v2 @1..3
    append a expect v1 debited:5 + b expect v1 credited:5         => conflict on b, actual v2 @3
    append a expect v2 debited:5 + b expect v1 credited:5         => conflict on a, actual v1 @1
    head                                                          => @3
    version a                                                     => v1
    append a expect v1 debited:5 + b expect v2 credited:5         => v2 v3 @4..5
    append a + b + c expect none                                  => invalid
    append a noted + c expect none                                => v3 @6
    append a noted + a noted + b noted + a noted                  => v4 v5 v4 v6 @7..10
    append a noted + b expect v9                                  => conflict on b, actual v4 @9
    append a expect v5 noted + a expect v6 noted                  => v7 v8 @11..12
    append a expect v8 noted + a expect v7 noted                  => conflict on a, actual v8 @12
    reopen
    version a                                                     => v8
    version b                                                     => v4
    read a after=6                                                => noted noted noted noted noted
    append a noted + b noted                                      => v9 v5 @13..14
";

const KEYS: &str = "
    append a key=1 expect none  placed                   => v1 @1
    append a key=1 expect none  placed                   => replayed v1 @1
    append a key=1 expect v7    placed                   => replayed v1 @1
    append a key=1              placed:2                 => key reused
    append a key=1              paid                     => key reused
    append b key=1              placed                   => key reused
    append a in=s key=1         placed                   => key reused
    append a key=1              placed placed            => key reused
    append a key=1              placed + b placed        => key reused
    append a                    placed                   => v2 @2
    append a key=2 expect none  placed                   => conflict on a, actual v2 @2
    append a key=2 expect v2    paid                     => v3 @3
    append b key=3 x + a y z + b x                       => v1 v4 v5 v2 @4..7
    append b key=3 x + a y z + b x                       => replayed v1 v4 v5 v2 @4..7
    append b key=3 x + a y z + b y                       => key reused
    append b key=3 x x + a y z                           => key reused
    head                                                 => @7
    reopen
    append a key=1 expect none  placed                   => replayed v1 @1
    append a key=2              paid                     => replayed v3 @3
    append b key=3 x + a y z + b x                       => replayed v1 v4 v5 v2 @4..7
    append a key=2              placed                   => key reused
    head                                                 => @7
";

const SCENARIOS: [&str; 3] = [VERSIONS, SEVERAL_ENTITIES, KEYS];

#[test]
fn scenarios_in_memory() {
    SCENARIOS.into_iter().for_each(check);
}

#[test]
fn scenarios_in_a_directory() {
    for script in SCENARIOS {
        let directory = tempfile::tempdir().unwrap();
        check_on(script, || Store::on(OsDisk::create(directory.path()).unwrap()).segment_bytes_max(700));
    }
}

/// What a retry of the stream's first append looks like, or that there is none.
#[derive(Clone, Copy, PartialEq)]
enum Retry {
    NoKey,
    NewKey,
    SameContent,
    OtherContent,
}

#[test]
fn every_expectation_meets_every_stream_and_every_retry() {
    let mut cases = 0;
    for length in 0..=3 {
        for expected in expectations(4) {
            for retry in [Retry::NoKey, Retry::NewKey, Retry::SameContent, Retry::OtherContent] {
                for reopen in [false, true] {
                    let known = matches!(retry, Retry::SameContent | Retry::OtherContent);
                    if !(known && length == 0) {
                        check_case(length, expected, retry, reopen);
                        cases += 1;
                    }
                }
            }
        }
    }
    assert_eq!(cases, (2 + 3 * 4) * 8 * 2);
}

fn check_case(length: u64, expected: Expected, retry: Retry, reopen: bool) {
    let disk = MemDisk::new();
    let mut store = Store::on(disk.clone()).open().unwrap();
    for number in 0..length {
        let append = Append::to("e").event(&Raw("k", &number));
        if number == 0 { append.key("first") } else { append }.commit(&store).unwrap();
    }
    if reopen {
        store.close().unwrap();
        store = Store::on(disk).open().unwrap();
    }
    let accepts = match expected {
        Expected::Any => true,
        Expected::NoStream => length == 0,
        Expected::StreamExists => length > 0,
        Expected::Exact(version) => version.get() == length,
    };
    let (right, written) = match retry {
        Retry::SameContent => ("replayed v1 @1".to_owned(), 0),
        Retry::OtherContent => ("key reused".to_owned(), 0),
        _ if accepts => (format!("v{0} @{0}", length + 1), 1),
        _ => (format!("conflict on e, actual v{length} @{length}"), 0),
    };
    let payload = if retry == Retry::OtherContent { 99 } else { 0_u64 };
    let append = Append::to("e").event(&Raw("k", &payload)).expect(expected);
    let append = match retry {
        Retry::NoKey => append,
        Retry::NewKey => append.key("second"),
        Retry::SameContent | Retry::OtherContent => append.key("first"),
    };
    let result = append.commit(&store);
    assert_eq!(outcome(&result), right, "{expected} at {length}, reopened: {reopen}");
    if let Some(conflict) = result.as_ref().err().and_then(Error::conflict) {
        assert_eq!(conflict.expected, expected);
        assert!(result.as_ref().is_err_and(|error| error.is_definite() && !error.is_retryable()));
    }
    assert_eq!(store.stream("e").count(), usize::try_from(length + written).unwrap());
    assert_eq!(store.version("e").unwrap().get(), length + written);
}

#[test]
fn two_entities_are_both_as_expected_or_nothing_happens() {
    let store = Store::in_memory().unwrap();
    let mut case = 0;
    for (first_length, second_length) in (0..3).flat_map(|first| (0..3).map(move |second| (first, second))) {
        for first in expectations(2) {
            for second in expectations(2) {
                case += 1;
                let (a, b) = (format!("a{case}"), format!("b{case}"));
                fill(&store, &a, first_length);
                fill(&store, &b, second_length);
                let before = store.head().unwrap();
                let append = Append::to(a.as_str()).expect(first).event(&Raw("k", &1));
                let append = append.and_to(b.as_str()).expect(second).event(&Raw("k", &2));
                let result = append.event(&Raw("k", &3)).commit(&store);
                let refused = if !first.accepts(first_length.into()) {
                    Some((a.as_str(), first_length))
                } else if !second.accepts(second_length.into()) {
                    Some((b.as_str(), second_length))
                } else {
                    None
                };
                match refused {
                    Some((entity, actual)) => {
                        let error = result.unwrap_err();
                        let conflict = error.conflict().unwrap();
                        assert_eq!((conflict.entity.as_str(), conflict.actual.get()), (entity, actual));
                        assert_eq!(store.head().unwrap(), before);
                        assert_eq!(store.version(&a).unwrap().get(), first_length);
                        assert_eq!(store.version(&b).unwrap().get(), second_length);
                    }
                    None => {
                        let versions: Vec<u64> = result.unwrap().versions().map(|v| v.get()).collect();
                        assert_eq!(versions, [first_length + 1, second_length + 1, second_length + 2]);
                        assert_eq!(store.head().unwrap().position().get(), before.position().get() + 3);
                    }
                }
            }
        }
    }
    assert_eq!(case, 9 * 36);
}

// What makes an append the same as another: everything said in it but metadata, durability and
// expectations.
#[test]
fn a_key_belongs_to_everything_an_append_says() {
    type Change = fn(Append) -> Append;
    let first = |change: Change| {
        let append = Append::to(("e", "s")).key("k").event(&Raw("kind", &1)).tag("t").tag("u");
        change(append.metadata("m").occurred_at(at(5)).correlation(id(1)).cause(Cause::Event(id(2))))
    };
    let other: [(&str, Change); 8] = [
        ("tag", |append| append.tag("v")),
        ("correlation", |append| append.correlation(id(9))),
        ("cause", |append| append.cause(Cause::Event(id(9)))),
        ("kind of cause", |append| append.cause(Cause::PreviousInStream)),
        ("occurred-at", |append| append.occurred_at(at(6))),
        ("foreign id", |append| append.foreign_id(id(9))),
        ("another event", |append| append.event(&Raw("kind", &1))),
        ("schema version", |append| append.event(&Second)),
    ];
    let same: [(&str, Change); 6] = [
        ("nothing", |append| append),
        ("expectation", |append| append.expect(Expected::exact(77))),
        ("durability", |append| append.durability(Durability::Buffered { flush_every: FOREVER })),
        ("metadata", |append| append.metadata("another")),
        ("length of metadata", |append| append.metadata("")),
        ("tag given twice", |append| append.tag("t")),
    ];
    let store = Store::in_memory().unwrap();
    let receipt = first(|append| append).commit(&store).unwrap();
    for (what, change) in other {
        assert_eq!(kind_of(first(change).commit(&store)), ErrorKind::KeyReused, "{what}");
    }
    for (what, change) in same {
        let again = first(change).commit(&store).unwrap();
        assert!(again.replayed(), "{what}");
        assert_eq!(again.ids().collect::<Vec<_>>(), receipt.ids().collect::<Vec<_>>(), "{what}");
    }
    let without_metadata = Append::to(("e", "s")).key("k").event(&Raw("kind", &1)).tag("t").tag("u");
    let without_metadata = without_metadata.occurred_at(at(5)).correlation(id(1)).cause(Cause::Event(id(2)));
    assert_eq!(outcome(&without_metadata.commit(&store)), "replayed v1 @1");
    assert_eq!(store.head().unwrap().position(), receipt.position());
}

/// The same kind and payload as `Raw("kind", &1)`, in a second shape.
struct Second;

impl EventData for Second {
    fn kind(&self) -> &str {
        "kind"
    }

    fn schema_version(&self) -> u16 {
        2
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        Raw("kind", &1).encode(out)
    }
}

#[test]
fn a_schema_version_is_part_of_the_content() {
    let store = Store::in_memory().unwrap();
    Append::to("e").key("k").event(&Raw("kind", &1)).commit(&store).unwrap();
    assert_eq!(kind_of(Append::to("e").key("k").event(&Second).commit(&store)), ErrorKind::KeyReused);
    store.append("f", &Second).unwrap();
    assert_eq!(all(store.stream("f"))[0].schema_version(), 2);
}

#[test]
fn keys_leave_the_window_by_positions() {
    for window in [0, 1, 2, 5] {
        for later in 0..8 {
            for reopen in [false, true] {
                let disk = MemDisk::new();
                let open =
                    || Store::on(disk.clone()).key_window(KeyWindow::Positions(window)).open().unwrap();
                let mut store = open();
                let keyed =
                    |store: &Store| Append::to("e").key("k").event(&Raw("x", &())).commit(store).unwrap();
                keyed(&store);
                fill(&store, "other", later);
                if reopen {
                    store.close().unwrap();
                    store = open();
                }
                // The append itself is 1 position from the end, then 2, and so on.
                let is_known = later < window;
                let again = keyed(&store);
                assert_eq!(again.replayed(), is_known, "window {window}, {later} later, reopened: {reopen}");
                assert_eq!(again.version().get(), if is_known { 1 } else { 2 });
                // Used again, the key stands for the second append.
                let third = keyed(&store);
                if window > later.min(1) {
                    assert_eq!((third.replayed(), third.position()), (true, again.position()));
                }
            }
        }
    }
}

#[test]
fn a_key_is_known_for_ever_if_told_so() {
    let disk = MemDisk::new();
    let open = || Store::on(disk.clone()).key_window(KeyWindow::Unlimited).open().unwrap();
    let store = open();
    let keyed = || Append::to("e").key(b"\0binary\xff").event(&Raw("x", &()));
    keyed().commit(&store).unwrap();
    fill(&store, "other", 3_000);
    store.close().unwrap();
    assert_eq!(outcome(&keyed().commit(&open())), "replayed v1 @1");
}

#[test]
fn a_key_staged_twice_in_one_group_is_written_once() {
    let disk = GatedDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    let (first, same, other) = {
        let (held, busy) =
            disk.gate().hold_up(|| Append::to("busy").event(&Raw("x", &())).submit(&store).unwrap());
        // All three wait in the queue now, so that they are decided in one group.
        let submit = |payload: u64| {
            let append = Append::to("e").key("k").expect(Expected::NoStream).event(&Raw("x", &payload));
            append.submit(&store).unwrap()
        };
        let tickets = (submit(1), submit(1), submit(2));
        drop(held);
        busy.wait().unwrap();
        tickets
    };
    assert_eq!(outcome(&first.wait()), "v1 @2");
    assert_eq!(outcome(&same.wait()), "replayed v1 @2");
    assert_eq!(outcome(&other.wait()), "key reused");
    assert_eq!(store.head().unwrap().position().get(), 2);
    assert_eq!(store.stats().groups, 2);
}

#[test]
fn a_key_of_a_refused_append_is_not_known() {
    let store = Store::in_memory().unwrap();
    let append = |expected| Append::to("e").key("k").expect(expected).event(&Raw("x", &()));
    assert_eq!(kind_of(append(Expected::StreamExists).commit(&store)), ErrorKind::Conflict);
    assert_eq!(outcome(&append(Expected::NoStream).commit(&store)), "v1 @1");
    assert_eq!(kind_of(Append::to("e").key("").event(&Raw("x", &())).commit(&store)), ErrorKind::Invalid);
}

#[test]
fn each_limit_holds_at_itself_and_not_one_further() {
    let limits = Limits {
        entity_bytes_max: 10,
        scope_bytes_max: 11,
        kind_bytes_max: 12,
        tag_bytes_max: 13,
        tags_max: 3,
        payload_bytes_max: 100,
        events_per_append_max: 4,
    };
    let store = Store::on(MemDisk::new()).limits(limits).open().unwrap();
    let text = |bytes: usize| "x".repeat(bytes);
    // MessagePack puts 2 bytes before a text of 32 to 255 bytes, 1 before a shorter one.
    type Make = Box<dyn Fn(usize) -> Append>;
    let cases: [(&str, usize, Make); 9] = [
        ("entity_bytes_max", 10, Box::new(move |n| Append::to(text(n)).event(&Raw("k", &())))),
        ("scope_bytes_max", 11, Box::new(move |n| Append::to(("e", text(n))).event(&Raw("k", &())))),
        ("kind_bytes_max", 12, Box::new(move |n| Append::to("e").event(&Raw(&text(n), &())))),
        ("tag_bytes_max", 13, Box::new(move |n| Append::to("e").event(&Raw("k", &())).tag(text(n)))),
        ("tags_max", 3, Box::new(|n| tagged(Append::to("e").event(&Raw("k", &())), n))),
        ("tags_max", 3, Box::new(|n| tagged(Append::to("e"), n).event(&Raw("k", &())))),
        ("payload_bytes_max", 98, Box::new(move |n| Append::to("e").event(&Raw("k", &text(n))))),
        (
            "payload_bytes_max",
            49,
            Box::new(move |n| Append::to("e").event(&Raw("k", &text(47))).metadata(&text(n))),
        ),
        (
            "events_per_append_max",
            4,
            Box::new(|n| (0..n).fold(Append::to("e"), |append, _| append.event(&Raw("k", &())))),
        ),
    ];
    for (limit, most, append) in cases {
        let before = store.head().unwrap().position();
        let error = append(most + 1).commit(&store).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
        assert!(error.to_string().contains(limit), "{limit} is not named: {error}");
        assert_eq!(store.head().unwrap().position(), before);
        append(most).commit(&store).unwrap_or_else(|error| panic!("{limit} at its limit: {error}"));
    }
}

fn tagged(append: Append, tags: usize) -> Append {
    (0..tags).fold(append, |append, number| append.tag(format!("t{number}")))
}

#[test]
fn the_format_has_limits_of_its_own() {
    let limits =
        Limits { entity_bytes_max: 4096, tags_max: 255, payload_bytes_max: 16 << 20, ..Limits::default() };
    let store = Store::on(MemDisk::new()).limits(limits).open().unwrap();
    let long_names = |tags: usize| {
        let append = Append::to(("e".repeat(4096), "s".repeat(255))).event(&Raw(&"k".repeat(255), &()));
        (0..tags).fold(append, |append, number| append.tag(format!("{number:0>255}")))
    };
    // Names and tags of one event take up to 65,535 bytes: 7 + 4,096 + 255 + 255 + 256 a tag.
    long_names(237).commit(&store).unwrap();
    let error = long_names(238).commit(&store).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("65541") && error.to_string().contains("65535"), "{error}");
    assert_eq!(all(store.read(Query::all()))[0].tags().count(), 237);

    let payload = |bytes: usize| Bytes("bytes", vec![7; bytes]);
    let most = (16 << 20) - 64;
    Append::to("e").event(&payload(most)).commit(&store).unwrap();
    assert_eq!(kind_of(Append::to("e").event(&payload(16 << 20)).commit(&store)), ErrorKind::TooLarge);
    assert_eq!(all(store.stream("e"))[0].payload().unwrap().len(), most);

    for limits in [
        Limits { entity_bytes_max: 4097, ..Limits::default() },
        Limits { scope_bytes_max: 256, ..Limits::default() },
        Limits { kind_bytes_max: 0, ..Limits::default() },
        Limits { tags_max: 256, ..Limits::default() },
        Limits { events_per_append_max: 65_536, ..Limits::default() },
    ] {
        assert_eq!(
            kind_of(Store::on(MemDisk::new()).limits(limits).open()),
            ErrorKind::Invalid,
            "{limits:?}"
        );
    }
}

#[test]
fn the_largest_append_fits_the_unsynced_bytes() {
    let store = Store::on(MemDisk::new()).unsynced_bytes_max(1000).open().unwrap();
    let append = |bytes: usize| Append::to("e").event(&Bytes("bytes", vec![7; bytes])).commit(&store);
    let fits = (0..1000).rev().find(|bytes| append(*bytes).is_ok()).unwrap();
    let error = append(fits + 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("unsynced_bytes_max"), "{error}");
    assert!(fits > 800, "an event of {fits} bytes fills 1,000");
}

// A segment promises in its header that no more than `unsynced_bytes_max` of it is ever unsynced;
// recovery takes more than that for damage. An append of a size that only the segment before
// promised once went into a new segment that promised less.
#[test]
fn an_append_must_fit_the_segment_it_goes_into() {
    let disk = MemDisk::new();
    let open = |unsynced| {
        Store::on(disk.clone()).unsynced_bytes_max(unsynced).segment_bytes_max(6000).open().unwrap()
    };
    let append =
        |store: &Store, bytes: usize| Append::to("e").event(&Bytes("bytes", vec![7; bytes])).commit(store);
    let store = open(10_000);
    append(&store, 4000).unwrap();
    store.close().unwrap();

    let store = open(1000);
    assert_eq!(
        kind_of(append(&store, 4000)),
        ErrorKind::TooLarge,
        "it would begin a segment that promises 1,000"
    );
    append(&store, 1500).expect("it fits the segment that promises 10,000");
    append(&store, 700).expect("it begins a segment that promises 1,000");
    assert_eq!(store.stats().segments, 2);
    assert_eq!(kind_of(append(&store, 1500)), ErrorKind::TooLarge);
    store.close().unwrap();

    let store = open(10_000);
    append(&store, 4000).expect("the limit was raised, so it begins a segment that promises 10,000");
    assert_eq!(store.stats().segments, 3);
}

#[test]
fn names_that_could_not_be_told_apart_are_refused() {
    let bad = ["", "$system", "$", "a\nb", "a\0b", "\u{7f}", "a\u{85}b", "tab\t"];
    let store = Store::in_memory().unwrap();
    for name in bad {
        assert_eq!(kind_of(Coordinate::try_from(name)), ErrorKind::Invalid, "entity {name:?}");
        assert_eq!(kind_of(Coordinate::new("e", name)), ErrorKind::Invalid, "scope {name:?}");
        assert_eq!(kind_of(store.append(name, &Raw("k", &()))), ErrorKind::Invalid, "entity {name:?}");
        assert_eq!(kind_of(store.append(("e", name), &Raw("k", &()))), ErrorKind::Invalid, "scope {name:?}");
        assert_eq!(kind_of(store.append("e", &Raw(name, &()))), ErrorKind::Invalid, "kind {name:?}");
        let tagged = Append::to("e").event(&Raw("k", &())).tag(name);
        assert_eq!(kind_of(tagged.commit(&store)), ErrorKind::Invalid, "tag {name:?}");
    }
    for (name, bytes) in [("entity", 4097), ("scope", 256), ("kind", 256), ("tag", 256)] {
        let long = "x".repeat(bytes);
        let append = match name {
            "entity" => Append::to(long).event(&Raw("k", &())),
            "scope" => Append::to(("e", long)).event(&Raw("k", &())),
            "kind" => Append::to("e").event(&Raw(&long, &())),
            _ => Append::to("e").event(&Raw("k", &())).tag(long),
        };
        let error = append.commit(&store).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(error.to_string().contains(name), "{error}");
    }
    assert_eq!(store.head().unwrap().position(), Position::START);
    for good in ["a", "order:1/2?#", "Übung", "日本", "a$", " a", "\u{1F600}"] {
        store.append((good, good), &Raw(good, &())).unwrap();
        let event = all(store.stream(good)).remove(0);
        assert_eq!((event.entity(), event.scope(), event.kind()), (good, good, good));
    }
}

#[test]
fn an_append_without_events_is_refused() {
    let store = Store::in_memory().unwrap();
    assert_eq!(kind_of(Append::to("e").commit(&store)), ErrorKind::Invalid);
    assert_eq!(kind_of(Append::to("e").expect(Expected::NoStream).commit(&store)), ErrorKind::Invalid);
    let named_for_nothing = Append::to("e").event(&Raw("k", &())).and_to("f");
    assert_eq!(kind_of(named_for_nothing.commit(&store)), ErrorKind::Invalid);
    let only_expected = Append::to("e").event(&Raw("k", &())).and_to("f").expect(Expected::NoStream);
    assert_eq!(outcome(&only_expected.commit(&store)), "v1 @1");
    let cause = |index| Append::to("e").event(&Raw("k", &())).cause(Cause::InAppend(index));
    assert_eq!(kind_of(cause(1).commit(&store)), ErrorKind::Invalid);
}

// The first error is kept: later calls do not replace it.
#[test]
fn the_first_error_comes_out() {
    let store = Store::in_memory().unwrap();
    let append = Append::to("e").tag("").event(&Raw("", &())).key("").and_to("$");
    let error = append.event(&Raw("k", &())).commit(&store).unwrap_err();
    assert!(error.to_string().contains("tag"), "{error}");
}

enum Awkward {
    /// Encodes half, then fails.
    Fails,
    Panics,
    /// Assigns instead of appending.
    Replaces,
    /// Says another kind each time it is asked.
    Fickle(std::cell::Cell<usize>),
}

impl EventData for Awkward {
    fn kind(&self) -> &str {
        match self {
            Awkward::Fickle(asked) => {
                asked.set(asked.get() + 1);
                ["awkward", ""][usize::from(asked.get() > 1)]
            }
            _ => "awkward",
        }
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        out.extend_from_slice(b"half");
        match self {
            Awkward::Fails => "no number".parse::<Position>().map(drop).map_err(|_| invalid()),
            Awkward::Panics => panic!("on purpose"),
            Awkward::Replaces => {
                *out = b"whole".to_vec();
                Ok(())
            }
            Awkward::Fickle(_) => Ok(()),
        }
    }
}

fn invalid() -> Error {
    Coordinate::try_from("").unwrap_err()
}

#[test]
fn what_goes_wrong_in_a_users_encode_leaves_nothing_behind() {
    let store = Store::in_memory().unwrap();
    let before = || Append::to("e").event(&Raw("k", "before"));
    assert_eq!(
        kind_of(before().event(&Awkward::Fails).event(&Raw("k", "after")).commit(&store)),
        ErrorKind::Invalid
    );
    let panicked = catch_unwind(AssertUnwindSafe(|| before().event(&Awkward::Panics).commit(&store)));
    assert!(panicked.is_err());
    // A map with a float for a key is no JSON, but MessagePack takes it. So only a value whose Serialize
    // fails cannot be encoded.
    let unencodable = Raw("k", &Unencodable);
    let error = before().event(&unencodable).commit(&store).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("k does not encode"), "{error}");
    assert_eq!(kind_of(before().metadata(&Unencodable).commit(&store)), ErrorKind::Invalid);
    assert_eq!(store.head().unwrap().position(), Position::START);
    assert_eq!(outcome(&before().commit(&store)), "v1 @1");
}

struct Unencodable;

impl serde::Serialize for Unencodable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("on purpose"))
    }
}

// `*out = serde_json::to_vec(..)?` is easily written. It once overwrote the events before it, and
// took the head of the payload for the kind.
#[test]
fn an_encode_that_replaces_the_buffer_does_no_harm() {
    let store = Store::in_memory().unwrap();
    let append = Append::to("e").event(&Raw("first", "one")).event(&Awkward::Replaces);
    append.event(&Raw("third", "three")).commit(&store).unwrap();
    let events = all(store.stream("e"));
    let kinds: Vec<&str> = events.iter().map(|event| event.kind()).collect();
    assert_eq!(kinds, ["first", "awkward", "third"]);
    assert_eq!(events[0].decode::<&str>().unwrap(), "one");
    assert_eq!(events[1].payload().unwrap(), b"whole");
    assert_eq!(events[2].decode::<&str>().unwrap(), "three");
}

/// An event that appends another one, and makes an append of its own, before it encodes itself.
struct Nested<'a>(&'a Store);

impl EventData for Nested<'_> {
    fn kind(&self) -> &str {
        "outer"
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        out.extend_from_slice(b"\xa5");
        self.0.append("inner", &Raw("inner", "inside"))?;
        let panicked = catch_unwind(|| Append::to("e").event(&Awkward::Panics));
        assert!(panicked.is_err());
        out.extend_from_slice(b"outer");
        Ok(())
    }
}

// The thread keeps the buffer that events encode themselves into. A nested encode has another buffer.
#[test]
fn an_encode_that_appends_meets_a_buffer_of_its_own() {
    let store = Store::in_memory().unwrap();
    for _ in 0..3 {
        let append = Append::to("e").event(&Raw("first", "one")).event(&Nested(&store));
        append.event(&Raw("third", "three")).commit(&store).unwrap();
    }
    let texts = |entity: &str| {
        let events = all(store.stream(entity));
        events.iter().map(|event| event.decode::<String>().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(texts("e"), ["one", "outer", "three"].repeat(3));
    assert_eq!(texts("inner"), ["inside"; 3]);
}

#[test]
fn a_kind_is_asked_for_once() {
    let store = Store::in_memory().unwrap();
    store.append("e", &Awkward::Fickle(0.into())).unwrap();
    assert_eq!(all(store.stream("e"))[0].kind(), "awkward");
}

fn id(number: u8) -> EventId {
    EventId::from_bytes([number; 16])
}

#[test]
fn attributes_come_back_as_they_were_given() {
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    let append = Append::to(("e", "scope"))
        .tag("all")
        .metadata(&("who", 7))
        .occurred_at(at(-1_000_000_000_000_000))
        .event(&Raw("first", &1))
        .event(&Raw("second", &2))
        .tag("z")
        .tag("a")
        .tag("all")
        .metadata(&("someone else", 8))
        .occurred_at(at(4_000_000_000_000_000))
        .correlation(id(1))
        .cause(Cause::InAppend(0))
        .foreign_id(id(2))
        .and_to("f")
        .event(&Raw("third", &3))
        .cause(Cause::PreviousInStream)
        .occurred_at(at(-1));
    let receipt = append.commit(&store).unwrap();
    store.append("g", &Raw("plain", &4)).unwrap();
    store.close().unwrap();

    let store = Store::on(disk).open().unwrap();
    let events = all(store.read(Query::all()));
    let ids: Vec<EventId> = receipt.ids().collect();
    let [first, second, third, plain] = events.as_slice() else { panic!("{events:?}") };
    let tags = |event: &annals::RecordedEvent| event.tags().map(str::to_owned).collect::<Vec<_>>();

    assert_eq!((first.entity(), first.scope(), first.kind()), ("e", "scope", "first"));
    assert_eq!(first.coordinate(), Coordinate::new("e", "scope").unwrap());
    assert_eq!((first.position().get(), first.version().get(), first.schema_version()), (1, 1, 1));
    assert_eq!(tags(first), ["all"]);
    assert_eq!(first.metadata::<(String, u8)>().unwrap(), Some(("who".to_owned(), 7)));
    assert_eq!(first.occurred_at(), Some(at(-1_000_000_000_000_000)));
    assert_eq!((first.id(), first.correlation(), first.cause()), (ids[0], ids[0], None));
    assert_eq!(first.decode::<u8>().unwrap(), 1);

    assert_eq!(tags(second), ["all", "z", "a"]);
    assert_eq!(second.metadata::<(String, u8)>().unwrap(), Some(("someone else".to_owned(), 8)));
    assert_eq!(second.occurred_at(), Some(at(4_000_000_000_000_000)));
    assert_eq!((second.id(), second.correlation()), (id(2), id(1)));
    assert_eq!(second.cause(), Some(Cause::Event(ids[0])));

    assert_eq!((third.entity(), third.scope(), third.version().get()), ("f", annals::DEFAULT_SCOPE, 1));
    assert_eq!((third.correlation(), third.cause()), (ids[0], Some(Cause::PreviousInStream)));
    assert_eq!(third.occurred_at(), Some(at(-1)));

    assert_eq!((plain.occurred_at(), plain.cause(), tags(plain).len()), (None, None, 0));
    assert_eq!(plain.metadata::<u8>().unwrap(), None);
    assert_eq!(plain.correlation(), plain.id());
    assert_eq!(kind_of(plain.decode::<String>()), ErrorKind::Undecodable);
    assert!(plain.decode::<String>().unwrap_err().to_string().contains("position 4"));
    assert!(first.chain() == third.chain() && third.chain() != plain.chain());
}

#[test]
fn caused_by_takes_id_and_correlation() {
    let store = Store::in_memory().unwrap();
    Append::to("e").event(&Raw("cause", &())).correlation(id(5)).commit(&store).unwrap();
    let cause = all(store.stream("e")).remove(0);
    Append::to("f").event(&Raw("effect", &())).caused_by(&cause).commit(&store).unwrap();
    let effect = all(store.stream("f")).remove(0);
    assert_eq!((effect.cause(), effect.correlation()), (Some(Cause::Event(cause.id())), id(5)));
}

#[test]
fn events_are_found_by_either_id() {
    let store = Store::on(MemDisk::new()).segment_bytes_max(300).open().unwrap();
    let other = Store::in_memory().unwrap();
    let mut known = Vec::new();
    for number in 0..20_u8 {
        let append = Append::to("e").event(&Raw("k", &number)).event(&Raw("k", &(number + 100)));
        let append = if number % 3 == 0 { append.foreign_id(id(number + 1)) } else { append };
        let receipt = append.commit(&store).unwrap();
        known.extend(receipt.ids().zip([number, number + 100]));
        if number % 3 == 0 {
            assert_eq!(receipt.id(), id(number + 1));
            known.push((derived_id(&store.at(receipt.position()).unwrap().unwrap()), number + 100));
        }
        other.append("e", &Raw("k", &number)).unwrap();
    }
    for (id, payload) in &known {
        let event = store.get(*id).unwrap().unwrap_or_else(|| panic!("{id} of {payload}"));
        assert_eq!(event.decode::<u8>().unwrap(), *payload);
        assert_eq!(id.to_string().parse::<EventId>().unwrap(), *id);
        assert!(other.get(*id).unwrap().is_none(), "{id} in another store");
    }
    assert_eq!(known.len(), 47);
    for unknown in [[0; 16], [0xFF; 16], *b"\x01\x98\xf2\xa0\x5c\x00\x70\x00\x80\x00\x00\x00\x04\x2a\xb3\xc4"]
    {
        assert!(store.get(EventId::from_bytes(unknown)).unwrap().is_none());
    }
    for event in all(store.read(Query::all())) {
        assert_eq!(store.at(event.position()).unwrap().unwrap().id(), event.id());
        let mut changed = *event.id().as_bytes();
        changed[15] ^= 1;
        assert!(store.get(EventId::from_bytes(changed)).unwrap().is_none());
    }
    assert!(store.at(Position::START).unwrap().is_none());
    assert!(store.at(Position::from(41)).unwrap().is_none());
    assert!(store.at(Position::from(u64::MAX)).unwrap().is_none());
}

#[test]
fn a_receipt_says_what_reading_says() {
    let store = Store::in_memory().unwrap();
    fill(&store, "a", 4);
    let append = Append::to("b").event(&Raw("k", &0)).and_to("a").event(&Raw("k", &1)).event(&Raw("k", &2));
    let receipt = append.key("k").commit(&store).unwrap();
    let again = Append::to("b").event(&Raw("k", &0)).and_to("a").event(&Raw("k", &1)).event(&Raw("k", &2));
    let again = again.key("k").commit(&store).unwrap();
    let events = all(store.read(Query::all()).after(Position::from(4)));
    for receipt in [&receipt, &again] {
        let read: Vec<_> = events.iter().map(|event| (event.id(), event.version())).collect();
        assert_eq!(receipt.ids().zip(receipt.versions()).collect::<Vec<_>>(), read);
        assert_eq!((receipt.first_position(), receipt.position()), (Position::from(5), Position::from(7)));
        assert_eq!((receipt.id(), receipt.version().get()), (events[2].id(), 6));
        assert_eq!(receipt.events(), 3);
        assert!(events.iter().all(|event| event.recorded_at() == receipt.recorded_at()));
    }
    assert!(!receipt.replayed() && again.replayed());
}

#[test]
fn what_is_acknowledged_is_visible() {
    let store = Store::in_memory().unwrap();
    for number in 1..=100 {
        let receipt = store.append("e", &Raw("k", &number)).unwrap();
        assert_eq!(store.head().unwrap().position(), receipt.position());
        assert_eq!(store.version("e").unwrap(), receipt.version());
        assert_eq!(store.get(receipt.id()).unwrap().unwrap().decode::<u64>().unwrap(), number);
    }
}

#[test]
fn the_largest_number_of_events_is_one_append() {
    let append = |entities: u64| {
        (0..65_535_u64).fold(Append::to("e0"), |append, number| {
            append.and_to(format!("e{}", number % entities)).event(&Raw("k", &number))
        })
    };
    let receipt: Appended = within(FOREVER, "a large append", move || {
        let store = Store::in_memory().unwrap();
        append(1).commit(&store).unwrap();
        let receipt = append(3).commit(&store).unwrap();
        assert_eq!(positions(store.read(Query::all())).len(), 2 * 65_535);
        assert_eq!(store.version("e2").unwrap().get(), 21_845);
        receipt
    });
    assert_eq!((receipt.events(), receipt.position().get()), (65_535, 131_070));
    assert_eq!(
        receipt.versions().take(4).map(|version| version.get()).collect::<Vec<_>>(),
        [65_536, 1, 1, 65_537]
    );
}

/// The last expectation counts, so this fails if a second target is made for an entity.
#[test]
fn an_entity_named_again_is_the_same_target() {
    let store = Store::in_memory().unwrap();
    for targets in [1, 2, 15, 16, 17, 18, 300] {
        let entities: Vec<String> = (0..targets).map(|number| format!("{targets}:{number}")).collect();
        let event = Raw("account.opened", &());
        let once = entities.iter().fold(Append::to(&entities[0]), |append, entity| {
            append.and_to(entity).expect(Expected::exact(7)).event(&event)
        });
        let twice = entities
            .iter()
            .fold(once, |append, entity| append.and_to(entity).expect(Expected::NoStream).event(&event));
        twice.commit(&store).unwrap();
        assert!(entities.iter().all(|entity| store.version(entity).unwrap().get() == 2));
    }
}
