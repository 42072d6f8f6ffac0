//! Events as types: what is stored of them, what serde can do with them, and what becomes of old ones.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;

use annals::{
    DomainEvent, Error, ErrorKind, EventData, KnownKind, Query, Raw, RecordedEvent, Store, UndecodableReason,
    Value,
};
use serde::{Deserialize, Serialize};

use crate::support::{Bytes, Random, all, kind_of};

/// An event of any kind, version and payload.
struct Stored<'a>(&'a str, u16, &'a [u8]);

impl EventData for Stored<'_> {
    fn kind(&self) -> &str {
        self.0
    }

    fn schema_version(&self) -> u16 {
        self.1
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        out.extend_from_slice(self.2);
        Ok(())
    }
}

/// What comes back when an event is appended and read.
fn recorded(event: &impl EventData) -> RecordedEvent {
    let store = Store::in_memory().unwrap();
    store.append("entity:1", event).unwrap();
    all(store.stream("entity:1")).remove(0)
}

fn old<T: Serialize>(kind: &str, version: u16, payload: &T) -> RecordedEvent {
    let mut bytes = Vec::new();
    Raw(kind, payload).encode(&mut bytes).unwrap();
    recorded(&Stored(kind, version, &bytes))
}

fn payload(event: &impl EventData) -> Vec<u8> {
    let mut bytes = Vec::new();
    event.encode(&mut bytes).unwrap();
    bytes
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, DomainEvent)]
#[event(prefix = "account")]
enum AccountEvent {
    Opened {
        owner: String,
    },
    Deposited {
        cents: u64,
    },
    Closed,
    Noted(String),
    Moved(i32, i32),
    #[event(kind = "ledger.frozen", version = 2, upcast(1 = "Value::unchanged"))]
    Frozen {},
}

#[test]
fn kind_version_and_fields_are_stored_and_nothing_else() {
    let owner = "Al".to_owned();
    let table: [(AccountEvent, &str, u16, &[u8]); 6] = [
        (AccountEvent::Opened { owner }, "account.opened", 1, b"\x81\xa5owner\xa2Al"),
        (AccountEvent::Deposited { cents: 5 }, "account.deposited", 1, b"\x81\xa5cents\x05"),
        (AccountEvent::Closed, "account.closed", 1, b"\x80"),
        (AccountEvent::Noted("x".to_owned()), "account.noted", 1, b"\xa1x"),
        (AccountEvent::Moved(-1, 300), "account.moved", 1, b"\x92\xff\xcd\x01\x2c"),
        (AccountEvent::Frozen {}, "ledger.frozen", 2, b"\x80"),
    ];
    for (event, kind, version, bytes) in table {
        assert_eq!((event.kind(), event.schema_version()), (kind, version));
        assert_eq!(payload(&event), bytes, "{kind}");
        assert!(AccountEvent::knows(kind));
        let recorded = recorded(&event);
        assert_eq!((recorded.kind(), recorded.schema_version()), (kind, version));
        assert_eq!(recorded.to::<AccountEvent>().unwrap(), event);
    }
    let names: Vec<&str> = AccountEvent::KINDS.iter().map(KnownKind::name).collect();
    let all = "account.opened account.deposited account.closed account.noted account.moved ledger.frozen";
    assert_eq!(names.join(" "), all);
    assert!(!AccountEvent::knows("account.frozen") && !AccountEvent::knows("AccountEvent::Opened"));
}

/// Renaming what Rust sees changes nothing on disk; a struct of the same kind reads the same bytes.
#[test]
fn a_variant_may_be_renamed_and_become_a_struct() {
    #[derive(Debug, PartialEq, Serialize, Deserialize, DomainEvent)]
    #[event(prefix = "other")]
    #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
    enum Renamed {
        Last,
        #[event(kind = "account.opened")]
        #[serde(rename = "ignored")]
        Begun {
            owner: String,
        },
        #[event(kind = "account.closed")]
        Ended,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize, DomainEvent)]
    #[event(kind = "account.opened")]
    struct Opened {
        owner: String,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize, DomainEvent)]
    #[event(kind = "account.closed")]
    struct Closed;

    let owner = || "Alice".to_owned();
    let (opened, closed) = (AccountEvent::Opened { owner: owner() }, AccountEvent::Closed);
    assert_eq!(payload(&opened), payload(&Renamed::Begun { owner: owner() }));
    assert_eq!(payload(&opened), payload(&Opened { owner: owner() }));
    assert_eq!(payload(&closed), payload(&Closed));
    assert_eq!(payload(&closed), payload(&Renamed::Ended));
    assert_eq!(recorded(&opened).to::<Renamed>().unwrap(), Renamed::Begun { owner: owner() });
    assert_eq!(recorded(&opened).to::<Opened>().unwrap(), Opened { owner: owner() });
    assert_eq!(recorded(&closed).to::<Closed>().unwrap(), Closed);
    assert_eq!(recorded(&Closed).to::<Renamed>().unwrap(), Renamed::Ended);
    assert_eq!(Renamed::Last.kind(), "other.last");
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Address {
    street: String,
    #[serde(rename = "zip-code")]
    zip: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Payment {
    Cash,
    Card { number: String },
    Split(Box<Payment>, u8),
    Credit(f64),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum Tagged {
    A { x: u8 },
    B { y: String },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u64),
    Text(String),
}

/// A type that serde meets only through another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Email(String);

impl TryFrom<String> for Email {
    type Error = String;

    fn try_from(text: String) -> Result<Email, String> {
        if text.contains('@') { Ok(Email(text)) } else { Err(format!("{text} is no address")) }
    }
}

impl From<Email> for String {
    fn from(email: Email) -> String {
        email.0
    }
}

mod as_text {
    use super::{Deserialize, Serialize};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        format!("<{value}>").serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.trim_matches(['<', '>']).parse().map_err(serde::de::Error::custom)
    }
}

fn seven() -> u8 {
    7
}

fn is_zero(value: &u8) -> bool {
    *value == 0
}

#[expect(clippy::box_collection, reason = "what serde does with a box")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, DomainEvent)]
#[event(prefix = "shape")]
#[serde(rename_all_fields = "camelCase", rename_all = "kebab-case")]
enum Shape {
    Unit,
    Braces {},
    Newtype(u64),
    NewtypeText(String),
    NewtypeOption(Option<u8>),
    NewtypeUnit(()),
    NewtypeStruct(Address),
    NewtypeEnum(Payment),
    NewtypeList(Vec<Payment>),
    Tuple(u8, String, Option<bool>),
    Struct {
        first_field: u8,
        second_field: String,
    },
    Nested {
        home: Address,
        work: Option<Address>,
    },
    Flat {
        id: u8,
        #[serde(flatten)]
        address: Address,
    },
    FlatMap {
        id: u8,
        #[serde(flatten)]
        rest: BTreeMap<String, u32>,
    },
    Rename {
        #[serde(rename = "Ünï cödé")]
        field: u8,
    },
    FieldAlias {
        #[serde(alias = "old")]
        new: u8,
    },
    Default {
        #[serde(default)]
        a: u8,
        #[serde(default = "seven")]
        b: u8,
    },
    Skip {
        kept: u8,
        #[serde(skip)]
        gone: u8,
    },
    SkipIf {
        #[serde(skip_serializing_if = "is_zero", default)]
        a: u8,
        b: u8,
    },
    With {
        #[serde(with = "as_text")]
        number: u64,
    },
    #[serde(with = "as_text")]
    VariantWith(u64),
    Bytes {
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    Numbers {
        a: u64,
        b: i64,
        c: u128,
        d: i128,
        e: f32,
        f: f64,
        g: i8,
    },
    Text {
        a: char,
        b: String,
        c: Cow<'static, str>,
        d: Box<str>,
    },
    Boxes {
        a: Box<String>,
        b: Box<Payment>,
    },
    Options {
        a: Option<u8>,
        b: Option<Option<u8>>,
        c: Option<()>,
    },
    Lists {
        a: Vec<u8>,
        b: [u16; 3],
        c: (u8, String),
        d: Vec<Vec<u8>>,
    },
    Maps {
        a: HashMap<u32, String>,
        b: BTreeMap<String, Payment>,
        c: BTreeMap<(u8, u8), ()>,
    },
    Enums {
        a: Payment,
        b: Tagged,
        c: Untagged,
        d: Result<u8, String>,
    },
    Times {
        a: std::time::Duration,
        b: std::time::SystemTime,
        c: std::net::IpAddr,
    },
    Through {
        email: Email,
        #[serde(deserialize_with = "Deserialize::deserialize")]
        plain: u8,
    },
    Json {
        value: serde_json::Value,
    },
    Identity {
        id: annals::EventId,
    },
}

#[test]
fn serde_can_do_what_it_can() {
    let text = || "text".to_owned();
    let address = || Address { street: "Main".to_owned(), zip: 12345 };
    let card = || Payment::Card { number: "4".to_owned() };
    let table = vec![
        Shape::Unit,
        Shape::Braces {},
        Shape::Newtype(u64::MAX),
        Shape::NewtypeText(text()),
        Shape::NewtypeOption(None),
        Shape::NewtypeOption(Some(3)),
        Shape::NewtypeUnit(()),
        Shape::NewtypeStruct(address()),
        Shape::NewtypeEnum(Payment::Cash),
        Shape::NewtypeEnum(card()),
        Shape::NewtypeEnum(Payment::Split(Box::new(card()), 4)),
        Shape::NewtypeList(vec![Payment::Cash, card(), Payment::Credit(0.5)]),
        Shape::Tuple(1, text(), None),
        Shape::Tuple(255, String::new(), Some(true)),
        Shape::Struct { first_field: 1, second_field: text() },
        Shape::Nested { home: address(), work: None },
        Shape::Nested { home: address(), work: Some(address()) },
        Shape::Flat { id: 1, address: address() },
        Shape::FlatMap { id: 1, rest: BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]) },
        Shape::Rename { field: 1 },
        Shape::FieldAlias { new: 1 },
        Shape::Default { a: 1, b: 2 },
        Shape::Skip { kept: 1, gone: 0 },
        Shape::SkipIf { a: 0, b: 1 },
        Shape::SkipIf { a: 1, b: 0 },
        Shape::With { number: 12 },
        Shape::VariantWith(12),
        Shape::Bytes { bytes: vec![0, 255] },
        Shape::Numbers { a: u64::MAX, b: i64::MIN, c: u128::MAX, d: i128::MIN, e: 0.1, f: 1e300, g: -128 },
        Shape::Text { a: 'ß', b: text(), c: Cow::Borrowed("cow"), d: "box".into() },
        Shape::Boxes { a: Box::new(text()), b: Box::new(card()) },
        Shape::Options { a: None, b: Some(Some(1)), c: None },
        Shape::Lists { a: vec![1, 200], b: [1, 2, 3], c: (1, text()), d: vec![vec![], vec![1]] },
        Shape::Maps {
            a: HashMap::from([(7, text())]),
            b: BTreeMap::from([(text(), Payment::Cash)]),
            c: BTreeMap::from([((1, 2), ())]),
        },
        Shape::Enums { a: card(), b: Tagged::A { x: 1 }, c: Untagged::Text(text()), d: Err(text()) },
        Shape::Enums { a: Payment::Cash, b: Tagged::B { y: text() }, c: Untagged::Number(1), d: Ok(1) },
        Shape::Times {
            a: std::time::Duration::from_nanos(1_500_000_001),
            b: std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(9),
            c: std::net::Ipv6Addr::LOCALHOST.into(),
        },
        Shape::Through { email: Email("a@b".to_owned()), plain: 1 },
        Shape::Json { value: serde_json::json!({"a": [1, -2, 0.5, null, "x", {"b": true}]}) },
        Shape::Identity { id: annals::EventId::from(uuid::Uuid::from_u128(7)) },
    ];
    let mut kinds: Vec<&str> = table.iter().map(Shape::kind).collect();
    kinds.dedup();
    let known: Vec<&str> = Shape::KINDS.iter().map(KnownKind::name).collect();
    assert_eq!(kinds, known, "every shape has a row");
    for event in &table {
        let recorded = recorded(event);
        assert_eq!(&recorded.to::<Shape>().unwrap(), event, "{:02x?}", recorded.payload());
        // Nothing is lost on the way through an upcaster.
        let value: Value = recorded.decode().unwrap();
        let unchanged = old(event.kind(), 1, &value.unchanged().unwrap());
        assert_eq!(&unchanged.to::<Shape>().unwrap(), event, "{:02x?}", unchanged.payload());
    }
}

/// What serde's attributes say is what is stored.
#[test]
fn names_on_disk_are_serdes() {
    let address = Address { street: "S".to_owned(), zip: 1 };
    let table: [(Shape, &[u8]); 5] = [
        (Shape::Flat { id: 1, address }, b"\x83\xa2id\x01\xa6street\xa1S\xa8zip-code\x01"),
        (
            Shape::Struct { first_field: 1, second_field: String::new() },
            b"\x82\xaafirstField\x01\xabsecondField\xa0",
        ),
        (Shape::SkipIf { a: 0, b: 1 }, b"\x81\xa1b\x01"),
        (Shape::VariantWith(1), b"\xa3<1>"),
        (Shape::Bytes { bytes: vec![1] }, b"\x81\xa5bytes\xc4\x01\x01"),
    ];
    for (event, bytes) in table {
        assert_eq!(payload(&event), bytes, "{event:?}");
    }
    let old = recorded(&Bytes("shape.field_alias", b"\x81\xa3old\x09".to_vec()));
    assert_eq!(old.to::<Shape>().unwrap(), Shape::FieldAlias { new: 9 });
    let empty = recorded(&Bytes("shape.default", b"\x80".to_vec()));
    assert_eq!(empty.to::<Shape>().unwrap(), Shape::Default { a: 0, b: 7 });
}

/// Every payload that means "nothing" is a variant without fields. Dropped fields are passed over.
#[test]
fn a_variant_without_fields_reads_what_holds_nothing_for_it() {
    for bytes in [&b"\xc0"[..], b"\x90", b"\x80", b"\x81\xa1x\x92\x01\x02"] {
        for kind in ["shape.unit", "shape.braces"] {
            let read = recorded(&Bytes(kind, bytes.to_vec())).to::<Shape>();
            // A variant with braces is a struct to serde, which has no nothing.
            match (kind, bytes) {
                ("shape.braces", b"\xc0") => assert_eq!(kind_of(read), ErrorKind::Undecodable),
                _ => assert_eq!(read.unwrap().kind(), kind, "{bytes:02x?}"),
            }
        }
    }
    for bytes in [&b"\x91\x01"[..], b"\x01", b"\xa1x", b"", b"\x81", b"\x81\xa1x", b"\xc1"] {
        let read = recorded(&Bytes("shape.unit", bytes.to_vec())).to::<Shape>();
        assert_eq!(kind_of(read), ErrorKind::Undecodable, "{bytes:02x?}");
    }
}

fn split_name(mut event: Value) -> Result<Value, Error> {
    let name: String = event.take("name")?;
    let (first, last) = name.split_once(' ').ok_or_else(|| Error::clone(&kindless()))?;
    event.set("first", first)?;
    event.set("last", last)?;
    Ok(event)
}

fn kindless() -> Error {
    Value::of(&1).unwrap().get::<u8>("a second name").unwrap_err()
}

mod upcasters {
    use annals::{Error, Value};

    pub(super) fn add_country(mut event: Value) -> Result<Value, &'static str> {
        event.set("country", "UK").map_err(|_| "no fields")?;
        Ok(event)
    }

    pub(super) fn enrolled(event: Value) -> Result<Value, Error> {
        let (first, last): (String, String) = event.to()?;
        let mut event = Value::of(&())?;
        event.set("first", &first)?;
        event.set("last", &last)?;
        event.set("country", &None::<String>)?;
        Ok(event)
    }

    pub(super) fn listed(event: Value) -> Result<Value, Error> {
        let name: String = event.to()?;
        let (first, last) = name.split_once(' ').unwrap_or((&name, ""));
        Value::of(&(first, last))
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize, DomainEvent)]
#[event(prefix = "customer")]
enum CustomerEvent {
    #[event(
        version = 3,
        upcast(1 = "split_name", 2 = "upcasters::add_country"),
        alias = "customer.created",
        alias(kind = "pupil.enrolled", upcast(1 = "upcasters::listed", 2 = "upcasters::enrolled"), to = 3),
        alias(kind = "person.named", upcast(1 = "Value::unchanged"), to = 1)
    )]
    Registered { first: String, last: String, country: Option<String> },
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Names<'a> {
    first: &'a str,
    last: &'a str,
}

#[test]
fn old_versions_and_former_kinds_become_new_ones() {
    let registered = |country: Option<&str>| CustomerEvent::Registered {
        first: "Ada".to_owned(),
        last: "Lovelace".to_owned(),
        country: country.map(str::to_owned),
    };
    let (name, names) = (Named { name: "Ada Lovelace" }, Names { first: "Ada", last: "Lovelace" });
    let table = [
        (old("customer.registered", 1, &name), Some("UK")),
        (old("customer.registered", 2, &names), Some("UK")),
        (recorded(&registered(Some("FR"))), Some("FR")),
        (old("customer.created", 1, &name), Some("UK")),
        (old("customer.created", 2, &names), Some("UK")),
        (old("customer.created", 3, &names), None),
        (old("pupil.enrolled", 1, &"Ada Lovelace"), None),
        (old("pupil.enrolled", 2, &("Ada", "Lovelace")), None),
        (old("person.named", 1, &name), Some("UK")),
    ];
    for (event, country) in table {
        let what = format!("{} {}", event.kind(), event.schema_version());
        assert_eq!(event.to::<CustomerEvent>().unwrap(), registered(country), "{what}");
    }
    let known = CustomerEvent::KINDS.iter().map(|kind| (kind.name(), kind.version(), kind.is_former()));
    let expected = [
        ("customer.registered", 3, false),
        ("customer.created", 3, true),
        ("pupil.enrolled", 2, true),
        ("person.named", 1, true),
    ];
    assert_eq!(known.collect::<Vec<_>>(), expected);
    assert!(CustomerEvent::KINDS.iter().all(|kind| kind.now() == "customer.registered"));
    assert_eq!(registered(None).kind(), "customer.registered");
}

#[test]
fn what_cannot_be_read_says_why_and_what_to_do() {
    use UndecodableReason::{Mismatch, NewerVersion, UnknownKind, Upcaster};
    let table = [
        (old("customer.left", 1, &()), UnknownKind, None, "`alias`"),
        (old("customer.registered", 4, &()), NewerVersion, Some(3), "update this program"),
        (old("pupil.enrolled", 3, &()), NewerVersion, Some(2), "update this program"),
        (old("customer.registered", 0, &()), Mismatch, Some(3), "versions begin with 1"),
        (old("customer.registered", 3, &Named { name: "x" }), Mismatch, Some(3), "missing field `first`"),
        (old("customer.registered", 3, &17), Mismatch, Some(3), "write an upcaster"),
        (recorded(&Stored("customer.registered", 1, b"\xc1")), Mismatch, Some(3), "is no MessagePack"),
        (
            old("customer.registered", 1, &Named { name: "Plato" }),
            Upcaster,
            Some(3),
            "refused by the upcaster split_name",
        ),
        (old("customer.registered", 2, &(1, 2)), Upcaster, Some(3), "upcasters::add_country: no fields"),
        (old("customer.registered", 2, &Named { name: "x" }), Mismatch, Some(3), "after its upcasters"),
        (
            old("person.named", 1, &Names { first: "x", last: "y" }),
            Upcaster,
            Some(1),
            "there is no field \"name\"",
        ),
    ];
    for (event, reason, known, text) in table {
        let error = event.to::<CustomerEvent>().unwrap_err();
        let what = format!("{error}");
        assert_eq!((error.kind(), error.is_definite()), (ErrorKind::Undecodable, true), "{what}");
        let undecodable = error.undecodable().unwrap();
        assert_eq!((undecodable.reason, undecodable.known_version), (reason, known), "{what}");
        assert_eq!((undecodable.entity.as_str(), undecodable.position.get()), ("entity:1", 1));
        assert_eq!(undecodable.kind, event.kind());
        assert_eq!(undecodable.stored_version, event.schema_version());
        let said =
            [text, "entity:1", "position 1", event.kind(), &format!("version {}", event.schema_version())];
        assert!(said.iter().all(|part| what.contains(part)), "{said:?} in: {what}");
        let has_source = matches!(reason, Upcaster) || what.contains("fit") || what.contains("MessagePack");
        assert_eq!(std::error::Error::source(&error).is_some(), has_source, "{what}");
    }
}

/// Of an event that was erased, kind and version are still known; whether the bytes would fit is not.
#[test]
fn what_was_erased_is_erased_and_not_undecodable() {
    let store = Store::on(crate::golden::erased_disk()).open_read_only().unwrap();
    let event = all(store.read(Query::all())).remove(0);
    assert_eq!(event.kind(), "account.opened");
    let error = event.to::<AccountEvent>().unwrap_err();
    assert_eq!((error.kind(), error.undecodable()), (ErrorKind::Erased, None));
    assert_eq!(kind_of(event.to::<CustomerEvent>()), ErrorKind::Undecodable);
}

/// An upcaster runs on the thread that reads; the store has no part in it.
#[test]
fn a_panic_in_an_upcaster_is_the_readers() {
    fn panics(_: Value) -> Result<Value, Error> {
        panic!("the upcaster panics, on purpose")
    }
    #[derive(Debug, Serialize, Deserialize, DomainEvent)]
    #[event(kind = "account.opened", version = 2, upcast(1 = "panics"))]
    struct Opened {}

    let store = Store::in_memory().unwrap();
    store.append("a", &Raw("account.opened", &())).unwrap();
    store.append("a", &Opened {}).unwrap();
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        store.stream("a").map(|event| event?.to::<Opened>()).collect::<Result<Vec<_>, _>>()
    }));
    assert!(read.is_err());
    store.append("a", &Opened {}).unwrap();
    assert!(all(store.stream("a"))[2].to::<Opened>().is_ok());
}

/// Nothing that stands around a type gets in the way of what the macro writes.
mod strange_names {
    #![allow(dead_code, nonstandard_style, reason = "names as bad as they can be")]

    pub(super) mod renamed {
        pub(crate) use annals as elsewhere;
    }
    mod annals {}
    mod std {}
    mod core {}
    struct Vec;
    struct Result;
    struct Option;
    struct Error;
    struct String;
    trait EventData {}

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize, ::annals::DomainEvent)]
    #[event(prefix = "strange", crate = "renamed::elsewhere")]
    pub(super) enum Strange {
        Some(u8),
        None,
        Ok { out: u8, event: u8, kind: u8 },
        Err(),
        r#Type { r#fn: u8 },
        Self_,
        HTTPRequest2Sent,
        Ünïcode,
        lower,
    }

    #[derive(serde::Serialize, serde::Deserialize, renamed::elsewhere::DomainEvent)]
    #[event(kind = "strange.kind, with \"quotes\" and {braces}", crate = "renamed::elsewhere")]
    pub(super) struct Strings(pub(super) u8);
}

#[test]
fn the_macro_depends_on_no_name_in_scope() {
    use strange_names::{Strange, Strings};
    let kinds: Vec<&str> = Strange::KINDS.iter().map(KnownKind::name).collect();
    let expected = "strange.some strange.none strange.ok strange.err strange.type strange.self_ strange.http_request2_sent strange.ünïcode strange.lower";
    assert_eq!(kinds.join(" "), expected);
    let event = Strange::Ok { out: 1, event: 2, kind: 3 };
    assert_eq!(recorded(&event).to::<Strange>().unwrap(), event);
    assert_eq!(payload(&Strange::Type { r#fn: 1 }), b"\x81\xa2fn\x01");
    assert_eq!(payload(&Strange::Err()), b"\x90");
    assert_eq!(recorded(&Strings(7)).to::<Strings>().unwrap().0, 7);
    assert_eq!(recorded(&Strings(7)).kind(), "strange.kind, with \"quotes\" and {braces}");
}

/// Random and damaged payloads: an error or a value, and never more than that. What is nested without end is
/// an error, too.
#[test]
fn no_payload_is_too_strange() {
    let mut random = Random::for_test("no_payload_is_too_strange");
    let whole = payload(&Shape::Enums {
        a: Payment::Split(Box::new(Payment::Cash), 1),
        b: Tagged::A { x: 1 },
        c: Untagged::Number(7),
        d: Err("x".to_owned()),
    });
    let store = Store::in_memory().unwrap();
    for number in 0..12_000 {
        let bytes: Vec<u8> = match number % 3 {
            0 => (0..random.below(20)).map(|_| u8::try_from(random.below(256)).unwrap()).collect(),
            1 => whole[..random.index(whole.len())].to_vec(),
            _ => {
                let mut bytes = whole.clone();
                bytes[random.index(whole.len())] = u8::try_from(random.below(256)).unwrap();
                bytes
            }
        };
        store
            .append("a", &Bytes(Shape::KINDS[random.index(Shape::KINDS.len())].name(), bytes.clone()))
            .unwrap();
        store.append("a", &Stored("customer.registered", 1, &bytes)).unwrap();
    }
    let (mut read, mut refused) = (0, 0);
    for event in all(store.stream("a")) {
        match event.to::<Shape>().map(drop).or_else(|_| event.to::<CustomerEvent>().map(drop)) {
            Ok(()) => read += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Undecodable, "{error}");
                refused += 1;
            }
        }
    }
    println!("{read} read, {refused} refused");
    assert!(read > 100 && refused > 1_000, "{read} read, {refused} refused");
    for nested in [vec![0x91; 1_000_000], [b"\x81\xa1x".repeat(300_000), vec![0xc0]].concat()] {
        for kind in ["shape.unit", "shape.newtype_list", "shape.json", "shape.enums"] {
            let event = recorded(&Bytes(kind, nested.clone()));
            assert_eq!(kind_of(event.to::<Shape>()), ErrorKind::Undecodable, "{kind}");
        }
        let event = recorded(&Stored("customer.registered", 1, &nested));
        assert_eq!(kind_of(event.to::<CustomerEvent>()), ErrorKind::Undecodable);
    }
}

#[test]
fn a_value_has_the_verbs_that_upcasters_need() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Order {
        id: u32,
        lines: Vec<Line>,
        note: Option<String>,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Line {
        sku: String,
        count: i64,
    }
    let line = |sku: &str, count| Line { sku: sku.to_owned(), count };
    let order = || Order { id: 7, lines: vec![line("a", -1), line("b", i64::MAX)], note: None };
    let whole = || Value::of(&order()).unwrap();
    let text = |result: Result<Value, Error>| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        error.to_string()
    };

    let mut value = whole();
    assert_eq!(value.to::<Order>().unwrap(), order());
    assert_eq!(value, whole());
    let shown = r#"{"id": 7, "lines": [{"sku": "a", "count": -1}, {"sku": "b", "count": 9223372036854775807}], "note": null}"#;
    assert_eq!(format!("{value:?}"), shown);
    assert!(value.has("id") && value.has("note") && !value.has("none"));
    assert_eq!(value.get::<Option<u8>>("none").unwrap(), None);
    assert_eq!(
        text(value.get::<u8>("none").map(|_| whole())),
        "there is no field \"none\"; the fields are: \"id\", \"lines\", \"note\""
    );
    assert!(
        text(value.take::<String>("id").map(|_| whole()))
            .contains("the field \"id\" is no alloc::string::String")
    );
    assert_eq!(value, whole(), "a take that fails takes nothing");

    assert_eq!(value.take::<u32>("id").unwrap(), 7);
    assert!(!value.has("id") && !value.remove("id") && value.remove("note"));
    value.set("id", &"x").unwrap();
    value.set("id", &8_u64).unwrap();
    let mut lines: Vec<Value> = value.get("lines").unwrap();
    lines[1].rename("sku", "article").unwrap();
    lines[1].rename("nothing", "article").unwrap();
    assert!(
        text(lines[1].rename("count", "article").map(|()| whole())).contains("a field \"article\" already")
    );
    lines[1].rename("count", "count").unwrap();
    lines.truncate(2);
    value.set("lines", &lines).unwrap();
    let shown =
        r#"{"lines": [{"sku": "a", "count": -1}, {"article": "b", "count": 9223372036854775807}], "id": 8}"#;
    assert_eq!(format!("{value:?}"), shown);

    // Nothing becomes a map; what is something else is left alone, and said.
    for nothing in [Value::of(&()), Value::of(&Vec::<u8>::new()), Value::of(&BTreeMap::<u8, u8>::new())] {
        let mut value = nothing.unwrap();
        value.rename("a", "b").unwrap();
        value.set("a", &1).unwrap();
        assert_eq!(format!("{value:?}"), r#"{"a": 1}"#);
    }
    for mut other in [Value::of(&1).unwrap(), Value::of("text").unwrap(), Value::of(&[1, 2]).unwrap()] {
        let before = other.clone();
        assert!(text(other.set("a", &1).map(|()| whole())).contains("has no fields"));
        assert!(text(other.rename("a", "b").map(|()| whole())).contains("has no fields"));
        assert!(text(other.get::<u8>("a").map(|_| whole())).contains("has no fields"));
        assert!(!other.remove("a") && !other.has("a"));
        assert_eq!(other, before);
    }

    // Keys that are no texts, floats, bytes, and MessagePack's extensions go through unharmed.
    for bytes in [
        &b"\x82\x01\xc3\x92\x01\x02\xcb\x3f\xf8\0\0\0\0\0\0"[..],
        b"\xc4\x02\x00\xff",
        b"\xc7\x03\x05abc",
        b"\xd6\xff\0\0\0\x01",
    ] {
        let value: Value = recorded(&Bytes("x", bytes.to_vec())).decode().unwrap();
        assert_eq!(payload(&Raw("x", &value)), bytes, "{value:?}");
    }
}

/// The macro has a copy of the store's table of hidden characters, because a macro cannot use the crate it is for.
#[test]
fn the_macro_and_the_store_hide_the_same_characters() {
    let in_store = hidden_ranges("src/types/text.rs");
    let in_macro = hidden_ranges("macros/src/names.rs");
    assert!(in_store.len() > 10 && in_macro.len() > 10, "the tables were not found");
    let is_in =
        |ranges: &[RangeInclusive<char>], sign: char| ranges.iter().any(|range| range.contains(&sign));
    for sign in ('\0'..=char::MAX).filter(|sign| !sign.is_control() && !sign.is_whitespace()) {
        // The blank of braille is no hidden character, but no name may consist of it.
        let store_refuses = is_in(&in_store, sign) || sign == '\u{2800}';
        assert_eq!(is_in(&in_macro, sign), store_refuses, "{}", sign.escape_unicode());
    }
}

/// The patterns of a table in a source file, one a line: `'\u{AD}'` or `| '\u{115F}'..='\u{1160}'`.
fn hidden_ranges(file: &str) -> Vec<RangeInclusive<char>> {
    let text = fs::read_to_string(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(file)).unwrap();
    let lines = text.lines().map(|line| line.trim().trim_start_matches("| "));
    let patterns = lines.filter(|line| line.starts_with("'\\u{"));
    let range = |pattern: &str| {
        let codes = pattern.split('\'').filter_map(|part| part.strip_prefix("\\u{")?.strip_suffix('}'));
        let signs: Vec<char> =
            codes.map(|code| char::from_u32(u32::from_str_radix(code, 16).unwrap()).unwrap()).collect();
        signs[0]..=signs[signs.len() - 1]
    };
    patterns.map(range).collect()
}
