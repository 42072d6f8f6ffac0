//! What goes out as JSONL comes in again as it was: payloads bit by bit, names of events, whole stores.

use std::time::SystemTime;

use annals::{
    Append, Cause, Error, ErrorKind, EventData, EventId, Mapping, Query, Raw, RecordedEvent, Store, TimeForm,
    Value, Version,
};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::support::{Bytes, Random, all, at, derived_id, kind_of};

/// The lines of what a query finds.
pub fn export(store: &Store, query: Query) -> String {
    let mut lines = Vec::new();
    let exported = store.export(query).write_to(&mut lines).unwrap();
    assert_eq!(exported.bytes, u64::try_from(lines.len()).unwrap());
    String::from_utf8(lines).unwrap()
}

/// A new store with these lines in it.
pub fn import(lines: &str) -> Store {
    let store = Store::in_memory().unwrap();
    store.import("lines", lines.as_bytes()).run().unwrap();
    assert!(store.verify().unwrap().is_clean());
    store
}

fn parsed(lines: &str) -> Vec<Json> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn one(store: &Store) -> RecordedEvent {
    let mut events = all(store.read(Query::all()));
    assert_eq!(events.len(), 1);
    events.pop().unwrap()
}

fn nested(depth: usize) -> Vec<u8> {
    let mut bytes = vec![0x91; depth];
    bytes.push(0xC0);
    bytes
}

/// Bytes of a payload, and the JSON they become; none if they become Base64.
fn shapes() -> Vec<(Vec<u8>, Option<String>)> {
    let json = |bytes: &[u8], text: &str| (bytes.to_vec(), Some(text.to_owned()));
    let base64 = |bytes: &[u8]| (bytes.to_vec(), None);
    let float = |number: f64| [&[0xCB], number.to_be_bytes().as_slice()].concat();
    vec![
        json(&[0xC0], "null"),
        json(&[0xC2], "false"),
        json(&[0xC3], "true"),
        json(&[0x00], "0"),
        json(&[0x7F], "127"),
        json(&[0xCC, 0x80], "128"),
        json(&[0xCD, 0x01, 0x00], "256"),
        json(&[0xCE, 0, 1, 0, 0], "65536"),
        json(&[0xCF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], "18446744073709551615"),
        json(&[0xFF], "-1"),
        json(&[0xE0], "-32"),
        json(&[0xD0, 0x80], "-128"),
        json(&[0xD3, 0x80, 0, 0, 0, 0, 0, 0, 0], "-9223372036854775808"),
        // A number that is longer than it need be, or of another sign.
        base64(&[0xCC, 0x05]),
        base64(&[0xD1, 0xFF, 0xFF]),
        base64(&[0xD0, 0x05]),
        json(&float(0.1), "0.1"),
        json(&float(-0.0), "-0.0"),
        json(&float(5.0), "5.0"),
        json(&float(f64::MIN_POSITIVE), "2.2250738585072014e-308"),
        json(&float(1e300), "1e+300"),
        base64(&float(f64::NAN)),
        base64(&float(f64::INFINITY)),
        base64(&[0xCA, 0x3F, 0x80, 0, 0]),
        json(&[0xA0], "\"\""),
        json(&[0xA2, b'"', b'\n'], r#""\"\n""#),
        json(&[0xA4, 0xF0, 0x9F, 0xA6, 0x80], "\"\u{1F980}\""),
        base64(&[0xD9, 0x01, b'a']),
        base64(&[0xA1, 0xFF]),
        base64(&[0xC4, 0x02, 1, 2]),
        base64(&[0xC4, 0x00]),
        base64(&[0xD4, 0x05, 0x07]),
        base64(&[0xD6, 0xFF, 0, 0, 0, 1]),
        json(&[0x90], "[]"),
        json(&[0x92, 0x01, 0x91, 0xC0], "[1,[null]]"),
        json(&[0x80], "{}"),
        json(&[0x82, 0xA1, b'b', 0x01, 0xA1, b'a', 0x02], r#"{"b":1,"a":2}"#),
        // JSON that has a key twice is refused, since most readers keep one of them.
        base64(&[0x82, 0xA1, b'a', 0x01, 0xA1, b'a', 0x02]),
        base64(&[0x81, 0x01, 0x02]),
        base64(&[0x81, 0xC3, 0x02]),
        base64(&[0x81, 0x90, 0x02]),
        base64(&[0xDE, 0x00, 0x00]),
        // Nothing, two values, half a value, what no MessagePack begins with.
        base64(&[]),
        base64(&[0x01, 0x02]),
        base64(&[0x92, 0x01]),
        base64(&[0xC1]),
        json(&nested(100), &format!("{}null{}", "[".repeat(100), "]".repeat(100))),
        base64(&nested(200)),
        base64(&nested(3000)),
    ]
}

#[test]
fn every_payload_comes_back_bit_by_bit() {
    for (bytes, json) in shapes() {
        let store = Store::in_memory().unwrap();
        let append = Append::to("shape:1").event(&Bytes("shape", bytes.clone()));
        append.commit(&store).unwrap();
        let lines = export(&store, Query::all());
        match &json {
            Some(json) => assert!(lines.ends_with(&format!(",\"payload\":{json}}}\n")), "{bytes:?}: {lines}"),
            None => assert!(lines.contains(",\"payload_base64\":\""), "{bytes:?}: {lines}"),
        }
        let copy = one(&import(&lines));
        assert_eq!(copy.payload().unwrap(), bytes, "{lines}");
        assert_eq!(copy.schema_version(), 1);
    }
}

#[test]
fn random_bytes_come_back_as_payloads() {
    let mut random = Random::for_test("random_bytes_come_back_as_payloads");
    let store = Store::in_memory().unwrap();
    let mut payloads = Vec::new();
    for _ in 0..3000 {
        let length = random.index(12);
        // Most bytes begin something short, so that much of it is MessagePack.
        let byte = |random: &mut Random| {
            let small = [0x81, 0x91, 0xA1, 0xC0, 0xC3, 0xCA, 0xCC, 0xD0, 0x61, 0x05, 0xFF, 0xC4, 0xD4];
            if random.chance(80) { random.pick(&small) } else { u8::try_from(random.below(256)).unwrap() }
        };
        payloads.push((0..length).map(|_| byte(&mut random)).collect::<Vec<u8>>());
    }
    for payload in &payloads {
        Append::to("random:1").event(&Bytes("random", payload.clone())).commit(&store).unwrap();
    }
    let lines = export(&store, Query::all());
    let json = lines.lines().filter(|line| line.contains("\"payload\":")).count();
    assert!(json > 100 && json < 2900, "{json} of 3,000 were JSON");
    let copy = all(import(&lines).read(Query::all()));
    let copied: Vec<&[u8]> = copy.iter().map(|event| event.payload().unwrap()).collect();
    assert_eq!(copied, payloads);
}

/// An event of another schema version.
struct OfVersion<E>(E, u16);

impl<E: EventData> EventData for OfVersion<E> {
    fn kind(&self) -> &str {
        self.0.kind()
    }

    fn schema_version(&self) -> u16 {
        self.1
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.0.encode(out)
    }
}

/// Appends with everything an append can have, causes and correlations of all forms among them.
fn random_store(random: &mut Random, appends: u64) -> Store {
    let store = Store::in_memory().unwrap();
    let mut ids: Vec<EventId> = Vec::new();
    for number in 0..appends {
        let count = if random.chance(30) { 1 + random.below(5) } else { 1 };
        let mut append = Append::to("a:1");
        for index in 0..count {
            let scope = random.pick(&["default", "tenant:acme"]);
            append = append.and_to((random.pick(&["a:1", "b:2", "c:3"]), scope));
            let payload = (number, index, random.pick(&["", "\u{1F980} \"x\"", "plain"]), random.next());
            let event = Raw(random.pick(&["placed", "paid"]), &payload);
            append = append.event(&OfVersion(event, random.pick(&[1, 1, 7])));
            if random.chance(30) {
                append = append.tag(format!("tag:{}", random.below(3))).tag("every");
            }
            if random.chance(30) {
                append = append.metadata(&("trace", random.below(1000)));
            }
            if random.chance(30) {
                append = append.occurred_at(at(i64::try_from(random.below(1 << 50)).unwrap() - (1 << 49)));
            }
            if random.chance(30) {
                let mut bytes = [0; 16];
                bytes[..8].copy_from_slice(&random.next().to_le_bytes());
                append = append.foreign_id(EventId::from_bytes(bytes));
            }
            append = match random.below(6) {
                0 => append.cause(Cause::PreviousInStream),
                1 => append.cause(Cause::InAppend(u16::try_from(random.below(count)).unwrap())),
                2 | 3 if !ids.is_empty() => append.cause(Cause::Event(random.pick(&ids))),
                _ => append,
            };
            if random.chance(40) && !ids.is_empty() {
                append = append.correlation(random.pick(&ids));
            }
        }
        // `a:1` was named first and may have got nothing.
        let append = if count > 0 { append.and_to("a:1").event(&Raw("noted", &number)) } else { append };
        let append = if random.chance(20) { append.key(number.to_le_bytes()) } else { append };
        let receipt = append.commit(&store).unwrap();
        // Both the id an event shows and the one it has beside one that it brought along.
        ids.extend(receipt.ids());
        ids.push(derived_id(&store.at(receipt.position()).unwrap().unwrap()));
    }
    store
}

/// Lines without what belongs to a store and not to an event.
fn comparable(lines: &str) -> Vec<Json> {
    let mut parsed = parsed(lines);
    for line in &mut parsed {
        let fields = line.as_object_mut().unwrap();
        for name in ["position", "recorded_at", "occurred_at", "key"] {
            fields.remove(name);
        }
    }
    parsed
}

/// The id of the event that another names as its cause, by which it is known outside.
fn cause_of(store: &Store, event: &RecordedEvent) -> Option<EventId> {
    let cause = store.ancestors(event.id()).next().transpose().unwrap();
    cause.map(|cause| cause.id())
}

#[test]
fn whole_stores_come_back() {
    let mut random = Random::for_test("whole_stores_come_back");
    for _ in 0..30 {
        let store = random_store(&mut random, 60);
        let lines = export(&store, Query::all());
        let copy = import(&lines);
        assert_eq!(comparable(&export(&copy, Query::all())), comparable(&lines));
        let (events, copies) = (all(store.read(Query::all())), all(copy.read(Query::all())));
        assert_eq!(events.len(), copies.len());
        for (event, copied) in events.iter().zip(&copies) {
            assert_eq!((event.id(), event.version()), (copied.id(), copied.version()));
            assert_eq!((event.entity(), event.scope()), (copied.entity(), copied.scope()));
            assert_eq!((event.kind(), event.schema_version()), (copied.kind(), copied.schema_version()));
            assert!(event.tags().eq(copied.tags()), "{event:?}, {copied:?}");
            assert_eq!(event.payload().unwrap(), copied.payload().unwrap());
            assert_eq!(event.metadata::<Value>().unwrap(), copied.metadata::<Value>().unwrap());
            let occurred: SystemTime = event.occurred_at().unwrap_or(event.recorded_at());
            assert_eq!(copied.occurred_at(), Some(occurred));
            assert_eq!(cause_of(&store, event), cause_of(&copy, copied), "{event:?}");
            // Events of one correlation still share one, under another id.
            let known: Vec<EventId> = all(store.read(Query::correlation(event.correlation())))
                .iter()
                .map(RecordedEvent::id)
                .collect();
            let found: Vec<EventId> = all(copy.read(Query::correlation(copied.correlation())))
                .iter()
                .map(RecordedEvent::id)
                .collect();
            assert_eq!(known, found, "{event:?}");
        }
        // One append is one append.
        let chains = |events: &[RecordedEvent]| {
            events.chunk_by(|one, other| one.chain() == other.chain()).map(<[_]>::len).collect::<Vec<_>>()
        };
        assert_eq!(chains(&events), chains(&copies));
    }
}

#[test]
fn an_event_is_named_by_the_id_it_is_known_by_elsewhere() {
    let store = Store::in_memory().unwrap();
    let foreign = EventId::from_bytes([7; 16]);
    let first = Append::to("a:1").event(&Raw("x", &1)).foreign_id(foreign).event(&Raw("y", &2));
    let receipt = first.cause(Cause::InAppend(0)).commit(&store).unwrap();
    let derived = derived_id(&store.at(receipt.first_position()).unwrap().unwrap());
    assert_eq!(receipt.ids().next(), Some(foreign));
    assert_ne!(derived, foreign);
    let next = Append::to("b:1").event(&Raw("z", &3)).cause(Cause::Event(derived)).correlation(derived);
    next.commit(&store).unwrap();
    Append::to("a:1").event(&Raw("x", &4)).cause(Cause::PreviousInStream).commit(&store).unwrap();
    let lines = parsed(&export(&store, Query::all()));
    let name = foreign.to_string();
    assert_eq!(lines[0]["id"], name);
    assert_eq!(lines[0]["cause"], Json::Null);
    for line in &lines[..3] {
        assert_eq!(line["correlation"], name, "{line}");
    }
    assert_eq!((&lines[1]["cause"], &lines[2]["cause"]), (&Json::from(name.clone()), &Json::from(name)));
    // The event before it, although it is not exported.
    let some = parsed(&export(&store, Query::entity("a:1").kind("x")));
    assert_eq!(some.len(), 2);
    assert_eq!(some[1]["cause"], lines[1]["id"]);
    assert_eq!(some[0]["append"], Json::Null, "of its append it is the only one asked for");
}

#[test]
fn versions_are_kept_or_assigned() {
    let store = Store::in_memory().unwrap();
    for kind in ["x", "y", "x"] {
        store.append("a:1", &Raw(kind, &())).unwrap();
    }
    let gap = export(&store, Query::entity("a:1").kind("x"));
    let copy = Store::in_memory().unwrap();
    let error = copy.import("gap", gap.as_bytes()).run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("line 2: a:1 would not keep its version"), "{error}");
    assert_eq!(copy.version("a:1").unwrap(), Version::from(1), "what came before is there");
    let rest = copy.import("gap", gap.as_bytes()).renumber().run().unwrap();
    assert_eq!((rest.events, rest.lines_before), (1, 1));
    // A line without a version takes what comes.
    let line = r#"{"entity":"a:1","kind":"z","payload":null}"#;
    copy.import("plain", line.as_bytes()).run().unwrap();
    assert_eq!(copy.version("a:1").unwrap(), Version::from(3));
    // Within an append, too.
    let torn = r#"{"entity":"b:1","kind":"z","version":1,"append":[0,2],"payload":1}
{"entity":"b:1","kind":"z","version":3,"append":[1,2],"payload":1}"#;
    let error = copy.import("torn", torn.as_bytes()).run().unwrap_err();
    assert!(error.to_string().contains("line 2: b:1 goes from version 1 to 3"), "{error}");
    assert!(!copy.exists(Query::entity("b:1")).unwrap());
}

#[test]
fn what_was_erased_stays_erased() {
    let hash = "ab".repeat(32);
    let lines = format!(
        "{{\"entity\":\"a:1\",\"kind\":\"x\",\"version\":1,\"tags\":[\"t\"],\"erased\":\"{hash}\"}}\n\
         {{\"entity\":\"a:1\",\"kind\":\"y\",\"version\":2,\"payload\":7}}\n"
    );
    let store = import(&lines);
    let events = all(store.stream("a:1"));
    assert_eq!(kind_of(events[0].payload()), ErrorKind::Erased);
    assert_eq!(kind_of(events[0].metadata::<Value>()), ErrorKind::Erased);
    assert_eq!((events[0].kind(), events[0].tags().collect::<Vec<_>>()), ("x", vec!["t"]));
    assert_eq!(events[1].decode::<u8>().unwrap(), 7);
    let again = export(&store, Query::all());
    assert_eq!(parsed(&again)[0]["erased"], hash);
    assert_eq!(comparable(&export(&import(&again), Query::all())), comparable(&again));
}

#[test]
fn times_are_kept_to_the_microsecond_wherever_they_lie() {
    let times = [0, 1, -1, 1_700_000_000_123_456, -62_135_596_800_000_000, i64::MAX, i64::MIN, i64::MAX / 2];
    for micros in times {
        let store = Store::in_memory().unwrap();
        Append::to("a:1").event(&Raw("x", &())).occurred_at(at(micros)).commit(&store).unwrap();
        let lines = export(&store, Query::all());
        assert_eq!(one(&import(&lines)).occurred_at(), Some(at(micros)), "{lines}");
    }
    let lines = r#"{"entity":"a:1","kind":"x","payload":1,"occurred_at":"2026-11-28T16:53:58.5+01:00"}"#;
    let event = one(&import(lines));
    assert_eq!(event.occurred_at(), Some(at(1_795_881_238_500_000)));
}

#[test]
fn an_export_goes_on_after_a_position_and_ends_at_the_head_it_found() {
    let store = Store::in_memory().unwrap();
    for number in 0..9000 {
        let _in_flight = Append::to("a:1").event(&Raw("x", &number)).submit(&store).unwrap();
    }
    store.sync().unwrap();
    let mut told = Vec::new();
    let mut lines = Vec::new();
    let export = store.export(Query::all()).on_progress(|progress| {
        store.append("a:1", &Raw("late", &())).unwrap();
        told.push((progress.events, progress.position.get(), progress.head.get()));
        std::ops::ControlFlow::Continue(())
    });
    let exported = export.write_to(&mut lines).unwrap();
    assert_eq!((exported.events, exported.position.get()), (9000, 9000));
    assert_eq!(told, [(4096, 4096, 9000), (8192, 8192, 9000)]);
    let mut rest = Vec::new();
    let rest_of = store.export(Query::all()).after(exported.position).write_to(&mut rest).unwrap();
    assert_eq!(rest_of.events, 2);
    // One after the other they are one source.
    let copy = Store::in_memory().unwrap();
    copy.import("both", [lines, rest].concat().as_slice()).run().unwrap();
    assert_eq!(copy.version("a:1").unwrap(), Version::from(9002));
    let broken = store.export(Query::all()).on_progress(|_| std::ops::ControlFlow::Break(()));
    assert_eq!(kind_of(broken.write_to(std::io::sink())), ErrorKind::Cancelled);
}

#[test]
fn foreign_lines_are_read_by_a_mapping() {
    let base = || Mapping::new("user:{/user/id}", "{/do}");
    let line = r#"{"z":1,"user":{"id":7,"a/b":true},"do":"login","at":1764345238.25,"id":"0198f2a0-5c00-7000-8000-0000042ab3c4","n":null}"#;
    let read = |mapping: Mapping| {
        let store = Store::in_memory().unwrap();
        store.import("foreign", line.as_bytes()).mapped(mapping).run().map(|_| one(&store))
    };
    let event = read(
        base()
            .scope("s:{/user/a~1b}")
            .tag("n:{/n}")
            .tag("z:{/z}{/do}")
            .id("/id")
            .time("/at", TimeForm::Seconds),
    );
    let event = event.unwrap();
    assert_eq!((event.entity(), event.scope(), event.kind()), ("user:7", "s:true", "login"));
    assert_eq!(event.tags().collect::<Vec<_>>(), ["z:1login"]);
    assert_eq!(event.id().to_string(), "0198f2a0-5c00-7000-8000-0000042ab3c4");
    assert_eq!(event.occurred_at(), Some(at(1_764_345_238_250_000)));
    assert_eq!(
        format!("{:?}", event.decode::<Value>().unwrap()).find("\"z\": 1"),
        Some(1),
        "fields keep their order"
    );
    assert_eq!(read(base().payload("/user/id")).unwrap().decode::<u8>().unwrap(), 7);
    let refused = [
        (Mapping::new("{/unknown}", "x"), "a pointer of \"{/unknown}\" leads to nothing"),
        (Mapping::new("{/n}", "x"), "leads to nothing"),
        (Mapping::new("{/user}", "x"), "/user is no text, whole number or truth"),
        (Mapping::new("{/user", "x"), "has no end"),
        (Mapping::new("a", "$x"), "begins with `$`"),
        (base().payload("/nothing"), "there is no /nothing"),
        (base().payload("nothing"), "is no JSON pointer"),
        (base().id("/do"), "/do is no UUID"),
        (base().time("/do", TimeForm::Rfc3339), "/do is no time (Rfc3339)"),
        (base().time("/do", TimeForm::Seconds), "/do is no time (Seconds)"),
        (base().time("/at", TimeForm::Millis), "/at is no time (Millis)"),
    ];
    for (mapping, part) in refused {
        let error = read(mapping).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().starts_with("line 1: ") && error.to_string().contains(part), "{error}");
    }
    for (form, number) in [(TimeForm::Seconds, 5_000_000), (TimeForm::Millis, 5_000), (TimeForm::Micros, 5)] {
        let store = Store::in_memory().unwrap();
        let mapping = Mapping::new("a", "x").time("/t", form);
        store.import("t", br#"{"t":5}"#.as_slice()).mapped(mapping).run().unwrap();
        assert_eq!(one(&store).occurred_at(), Some(at(number)));
    }
}

/// One identity in an event once made its whole payload Base64, and an identity written by hand was never
/// read.
#[test]
fn identities_and_addresses_are_texts() {
    #[derive(Debug, PartialEq, Serialize, Deserialize, annals::DomainEvent)]
    #[event(kind = "host.added")]
    struct HostAdded {
        id: uuid::Uuid,
        ip: std::net::IpAddr,
        ports: std::collections::BTreeMap<std::net::SocketAddr, uuid::Uuid>,
    }
    let json = r#"{"id":"00000000-0000-0000-0000-000000000007","ip":"::1","ports":{"127.0.0.1:80":"00000000-0000-0000-0000-000000000008"}}"#;
    let event = HostAdded {
        id: uuid::Uuid::from_u128(7),
        ip: "::1".parse().unwrap(),
        ports: [("127.0.0.1:80".parse().unwrap(), uuid::Uuid::from_u128(8))].into(),
    };
    let store = Store::in_memory().unwrap();
    Append::to("e").event(&event).metadata(&event).commit(&store).unwrap();
    let lines = export(&store, Query::all());
    assert!(lines.ends_with(&format!(",\"metadata\":{json},\"payload\":{json}}}\n")), "{lines}");
    let copy = one(&import(&lines));
    assert_eq!(
        (copy.to::<HostAdded>().unwrap(), copy.metadata::<HostAdded>().unwrap().as_ref()),
        (event, Some(&one(&store).to().unwrap()))
    );
    let by_hand = import(&format!("{{\"entity\":\"e\",\"kind\":\"host.added\",\"payload\":{json}}}\n"));
    assert_eq!(one(&by_hand).to::<HostAdded>().unwrap(), one(&store).to().unwrap());

    // As the binary form of serde has it, and builds before the first release stored it.
    let store = Store::in_memory().unwrap();
    let binary = [&[0xC4, 16][..], uuid::Uuid::from_u128(7).as_bytes()].concat();
    Append::to("e").event(&Bytes("id", binary)).commit(&store).unwrap();
    assert_eq!(one(&store).decode::<uuid::Uuid>().unwrap(), uuid::Uuid::from_u128(7));
}
