//! The lock of stored shapes: what it writes, what it refuses, what it says.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use annals::test::{Additions, EventsLock};
use annals::{DomainEvent, Error, RecordedEvent, Value};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("events.lock")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.path()).unwrap()
    }

    fn lock(&self) -> EventsLock {
        EventsLock::at(self.path()).additions(Additions::Write)
    }
}

trait Event: DomainEvent + Serialize + DeserializeOwned {}
impl<E: DomainEvent + Serialize + DeserializeOwned> Event for E {}

fn passes<E: Event>(dir: &Dir) {
    dir.lock().events::<E>().check();
}

/// What a check says that fails; it changes nothing.
fn says(dir: &Dir, lock: EventsLock) -> String {
    let before = std::fs::read(dir.path()).ok();
    let said = catch_unwind(AssertUnwindSafe(|| lock.check())).expect_err("the check should fail");
    assert_eq!(std::fs::read(dir.path()).ok(), before);
    text_of(said)
}

fn text_of(panic: Box<dyn Any + Send>) -> String {
    *panic.downcast::<String>().unwrap()
}

fn refuses<E: Event>(dir: &Dir, parts: &[&str]) {
    let said = says(dir, dir.lock().events::<E>());
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
}

mod first {
    use super::*;

    #[derive(Serialize, Deserialize, DomainEvent)]
    #[event(prefix = "account")]
    pub(super) enum AccountEvent {
        Opened { owner: String, nick: Option<String> },
        Deposited { cents: u64 },
        Closed,
    }
}

#[test]
fn the_first_run_writes_and_the_next_ones_compare() {
    let dir = Dir::new();
    passes::<first::AccountEvent>(&dir);
    let text = dir.text();
    let (head, entries) = text.split_once("\n\n").unwrap();
    assert!(head.lines().all(|line| line.starts_with('#')), "{head}");
    assert_eq!(
        entries,
        "account.closed 1
    (no fields)
    sample 80

account.deposited 1
    cents: u64
    sample 81a563656e747301

account.opened 1
    nick: optional string
    owner: string
    sample 82a56f776e6572a474657874a46e69636ba474657874
"
    );
    passes::<first::AccountEvent>(&dir);
    assert_eq!(dir.text(), text, "a run that finds nothing new writes nothing");
    // Where git puts other ends of lines, and others put comments.
    std::fs::write(dir.path(), format!("# ours\n{text}").replace('\n', "\r\n")).unwrap();
    passes::<first::AccountEvent>(&dir);
}

#[test]
fn what_is_new_is_added_unless_it_may_not_be() {
    #[derive(Serialize, Deserialize, DomainEvent)]
    #[event(prefix = "account")]
    enum More {
        Opened {
            owner: String,
            nick: Option<String>,
        },
        Deposited {
            cents: u64,
        },
        Closed,
        #[event(version = 2, upcast(1 = "Value::unchanged"))]
        Frozen,
    }
    let dir = Dir::new();
    let lock = dir.lock().events::<first::AccountEvent>().additions(Additions::Refuse);
    let said = says(&dir, lock);
    let all =
        "account.closed version 1, account.deposited version 1, account.opened version 1 not in the lock";
    assert!(said.contains(all), "{said}");
    assert!(!dir.path().exists());
    passes::<first::AccountEvent>(&dir);
    let said = says(&dir, dir.lock().events::<More>().additions(Additions::Refuse));
    assert!(
        said.contains("account.frozen version 2 not in the lock") && said.contains("version control"),
        "{said}"
    );
    passes::<More>(&dir);
    assert!(dir.text().contains("\naccount.frozen 2\n"), "{}", dir.text());
    dir.lock().events::<More>().additions(Additions::Refuse).check();
}

#[test]
fn a_shape_that_changes_and_a_version_that_does_not_fail() {
    #[derive(Serialize, Deserialize, DomainEvent)]
    #[event(prefix = "account")]
    enum Changed {
        Opened { owner: String, nickname: Option<String> },
        Deposited { cents: i64 },
        Closed,
    }
    let dir = Dir::new();
    passes::<first::AccountEvent>(&dir);
    let parts = [
        "account.opened version 1 is stored with these fields",
        "  - nick: optional string\n",
        "  + nickname: optional string\n",
        "    owner: string\n",
        "#[event(version = 2, upcast(1 = \"path::to::function\"))]",
        "account.deposited version 1 is stored",
        "  - cents: u64\n  + cents: i64\n",
        "delete the entry \"account.deposited 1\"",
    ];
    refuses::<Changed>(&dir, &parts);
}

#[test]
fn names_in_rust_and_the_order_of_fields_do_not_matter() {
    #[derive(Serialize, Deserialize)]
    struct Text(String);

    #[derive(Serialize, Deserialize, DomainEvent)]
    #[event(prefix = "account")]
    enum Renamed {
        Closed,
        #[event(kind = "account.opened")]
        Begun {
            nick: Option<Box<str>>,
            #[serde(rename = "owner")]
            holder: Text,
        },
        Deposited {
            cents: u64,
        },
    }
    let dir = Dir::new();
    passes::<first::AccountEvent>(&dir);
    dir.lock().events::<Renamed>().additions(Additions::Refuse).check();
}

#[test]
fn kinds_and_versions_do_not_go_away() {
    #[derive(Serialize, Deserialize, DomainEvent)]
    #[event(prefix = "account")]
    enum Fewer {
        #[event(alias = "account.deposited")]
        Added { cents: u64 },
        #[event(version = 2, upcast(1 = "Value::unchanged"))]
        Closed,
    }
    let dir = Dir::new();
    passes::<first::AccountEvent>(&dir);
    refuses::<Fewer>(&dir, &["account.opened version 1 may be stored, and no type of this lock reads it"]);
    let text = dir.text().replace("account.closed 1", "account.closed 3");
    std::fs::write(dir.path(), text).unwrap();
    refuses::<Fewer>(&dir, &["account.closed version 3 may be stored, but the code is at version 2"]);

    // A kind that is only read any more, or was renamed, is still there.
    #[derive(Serialize, Deserialize, DomainEvent)]
    #[event(prefix = "account")]
    enum Kept {
        #[serde(skip_serializing)]
        #[expect(dead_code, reason = "it is only read from the file")]
        Opened {
            owner: String,
            nick: Option<String>,
        },
        #[event(alias = "account.deposited")]
        Added {
            cents: u64,
        },
        Closed,
    }
    let dir = Dir::new();
    passes::<first::AccountEvent>(&dir);
    passes::<Kept>(&dir);
    assert!(dir.text().contains("account.deposited 1") && dir.text().contains("account.added 1"));
}

fn cents_to_euros(mut event: Value) -> Result<Value, Error> {
    let cents: u64 = event.take("cents")?;
    event.set("euros", &(cents / 100))?;
    Ok(event)
}

fn wrong(mut event: Value) -> Result<Value, Error> {
    event.take::<u64>("dollars")?;
    Ok(event)
}

#[test]
fn old_samples_go_through_the_upcasters() {
    #[derive(Serialize, Deserialize, DomainEvent)]
    #[event(kind = "account.deposited", version = 2, upcast(1 = "cents_to_euros"))]
    struct Deposited {
        euros: u64,
    }
    #[derive(Serialize, Deserialize, DomainEvent)]
    #[event(kind = "account.deposited", version = 2, upcast(1 = "wrong"))]
    struct Refusing {
        euros: u64,
    }
    #[derive(Serialize, Deserialize, DomainEvent)]
    #[event(kind = "account.deposited", version = 2, upcast(1 = "Value::unchanged"))]
    struct Forgetting {
        euros: u64,
    }
    #[derive(Serialize, Deserialize, DomainEvent)]
    #[event(kind = "account.deposited")]
    struct Version1 {
        cents: u64,
    }
    let dir = Dir::new();
    passes::<Version1>(&dir);
    let sample = "sample 1 of the lock cannot be read any more";
    refuses::<Refusing>(&dir, &[sample, "refused by the upcaster wrong", "no field \"dollars\""]);
    refuses::<Forgetting>(&dir, &[sample, "after its upcasters: missing field `euros`"]);
    passes::<Deposited>(&dir);
    let entries = "account.deposited 1\n    cents: u64\n    sample 81a563656e747301\n\naccount.deposited 2\n    euros: u64\n    sample 81a56575726f7301\n";
    assert!(dir.text().ends_with(entries), "{}", dir.text());
}

#[test]
fn one_kind_belongs_to_one_type() {
    #[derive(Serialize, Deserialize, DomainEvent)]
    #[event(kind = "ledger.opened", alias = "account.opened")]
    struct LedgerOpened {}
    let dir = Dir::new();
    let said = says(&dir, dir.lock().events::<first::AccountEvent>().events::<LedgerOpened>());
    assert!(said.contains("the kind account.opened belongs to two types"), "{said}");
    assert!(said.contains("AccountEvent") && said.contains("LedgerOpened"), "{said}");
}

#[derive(Serialize, Deserialize)]
struct ByHand;

impl annals::EventData for ByHand {
    fn kind(&self) -> &str {
        "by.hand"
    }

    fn encode(&self, _: &mut Vec<u8>) -> Result<(), Error> {
        Ok(())
    }
}

impl DomainEvent for ByHand {
    fn knows(kind: &str) -> bool {
        kind == "by.hand"
    }

    fn from_recorded(_: &RecordedEvent) -> Result<ByHand, Error> {
        Ok(ByHand)
    }
}

#[test]
fn a_file_that_cannot_be_used_says_why() {
    let table = [
        ("account.opened\n", "line 1: this is no kind with a version"),
        ("<<<<<<< HEAD\n", "line 1: this is no kind with a version"),
        ("    owner: string\n", "line 1: this belongs to no kind"),
        ("a 1\n    sample 8\n", "line 2: this is no sample"),
        ("a 1\n    sample zz\n", "line 2: this is no sample"),
        ("a 1\n\na 1\n", "line 3: this kind and version is here twice"),
    ];
    for (text, problem) in table {
        let dir = Dir::new();
        std::fs::write(dir.path(), text).unwrap();
        refuses::<first::AccountEvent>(&dir, &[problem, "events.lock"]);
    }
    let missing = EventsLock::at(Path::new("/nonexistent/annals/events.lock")).additions(Additions::Write);
    let said =
        catch_unwind(AssertUnwindSafe(|| missing.events::<first::AccountEvent>().check())).unwrap_err();
    assert!(text_of(said).contains("cannot be written"));
    refuses::<ByHand>(&Dir::new(), &["ByHand says nothing of its kinds", "derive DomainEvent"]);
    let said = catch_unwind(|| EventsLock::at("x").sample(&ByHand)).err().unwrap();
    assert!(text_of(said).contains("ByHand says nothing of its kinds"));
}

#[derive(Serialize, Deserialize)]
struct Address {
    street: String,
    number: u16,
}

#[derive(Serialize, Deserialize)]
enum Payment {
    Split(Box<Payment>, u8),
    Cash,
    Card {
        number: String,
        #[serde(alias = "until")]
        expires: (u8, u16),
    },
}

#[derive(Serialize, Deserialize)]
struct Node {
    name: String,
    children: Vec<Node>,
    parent: Option<Box<Node>>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Loose {
    Text(String),
    Flag(bool),
}

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(prefix = "shape")]
#[serde(rename_all_fields = "camelCase")]
enum Shape {
    Newtype(Address),
    Number(i128),
    Tuple(u8, Option<Address>),
    Nested {
        home: Address,
        #[serde(rename = "at work")]
        work: Option<Vec<Address>>,
    },
    Flat {
        order_id: u32,
        #[serde(flatten)]
        address: Address,
        flag: bool,
    },
    Maps {
        prices: HashMap<String, u64>,
        by_pair: BTreeMap<(u8, char), Address>,
    },
    Paid {
        payment: Payment,
        second: Option<Payment>,
    },
    Tree {
        root: Node,
    },
    Times {
        since: std::time::SystemTime,
        id: annals::EventId,
        #[serde(with = "serde_bytes")]
        raw: Vec<u8>,
    },
    Loose {
        value: Loose,
        text: Loose,
    },
    Addressed {
        ip: std::net::IpAddr,
        number: std::num::NonZeroU32,
        unit: (),
    },
    Aliased {
        #[serde(alias = "old", alias = "older")]
        new: u8,
    },
    Skipped {
        #[serde(skip)]
        gone: u8,
        #[serde(skip_serializing_if = "Option::is_none")]
        kept: Option<f32>,
    },
}

/// Values are invented for every type that serde can ask for, and for every variant inside.
#[test]
fn values_are_made_up() {
    let dir = Dir::new();
    passes::<Shape>(&dir);
    let text = dir.text();
    let entry = |kind: &str| {
        let start = text.find(&format!("\nshape.{kind} 1\n")).unwrap_or_else(|| panic!("no {kind}"));
        let lines = text[start..].lines().skip(2).take_while(|line| !line.is_empty());
        let (samples, lines): (Vec<&str>, Vec<&str>) =
            lines.map(str::trim).partition(|line| line.starts_with("sample"));
        (samples.len(), lines.join("; "))
    };
    let address = "number: u16; street: string";
    let payment = "payment: one of; payment/Card: fields; payment/Card.expires: tuple of 2; payment/Card.expires.0: u8; payment/Card.expires.1: u16; payment/Card.number: string; payment/Cash: nothing; payment/Split: tuple of 2; payment/Split.0: one of those above; payment/Split.1: u8";
    let table = [
        ("newtype", 1, address.to_owned()),
        ("number", 1, "(payload): i128".to_owned()),
        ("tuple", 1, "(payload): tuple of 2; (payload).0: u8; (payload).1: optional fields; (payload).1.number: u16; (payload).1.street: string".to_owned()),
        ("nested", 1, "\"at work\": optional list of fields; \"at work\".number: u16; \"at work\".street: string; home: fields; home.number: u16; home.street: string".to_owned()),
        ("flat", 1, "flag: bool; number: u16; orderId: u32; street: string".to_owned()),
        ("maps", 1, "byPair: map from tuple of 2 to fields; byPair.number: u16; byPair.street: string; prices: map from string to u64".to_owned()),
        ("paid", 3, format!("{payment}; {}", payment.replace("payment", "second").replacen("one of", "optional one of", 1))),
        ("times", 1, "id: string; raw: bytes; since: fields; since.nanos_since_epoch: u32; since.secs_since_epoch: u64".to_owned()),
        ("loose", 1, "text: string; value: string".to_owned()),
        ("addressed", 1, "ip: string; number: u32; unit: nothing".to_owned()),
        ("aliased", 1, "new: u8".to_owned()),
        ("skipped", 1, "kept: optional f32".to_owned()),
    ];
    for (kind, samples, lines) in table {
        assert_eq!(entry(kind), (samples, lines), "{kind}");
    }
    let (_, tree) = entry("tree");
    assert!(
        tree.contains("root.children.name: string") && tree.contains("root.parent: optional fields"),
        "{tree}"
    );
    dir.lock().events::<Shape>().additions(Additions::Refuse).check();
}

/// A type that takes only what looks like an address.
#[derive(Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[derive(Clone)]
struct Even(String);

impl TryFrom<String> for Even {
    type Error = String;

    fn try_from(text: String) -> Result<Even, String> {
        if text.starts_with("even:") { Ok(Even(text)) } else { Err(format!("{text} is not even")) }
    }
}

impl From<Even> for String {
    fn from(even: Even) -> String {
        even.0
    }
}

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(prefix = "picky")]
enum PickyEvent {
    Picked { what: Even, more: Vec<u8> },
    Put,
}

#[test]
fn what_cannot_be_made_up_is_given() {
    let dir = Dir::new();
    refuses::<PickyEvent>(
        &dir,
        &["picky.picked version 1: no value of it could be made up", "is not even", ".sample(&..)"],
    );
    let picked = |more: &[u8]| PickyEvent::Picked { what: Even("even:2".to_owned()), more: more.to_vec() };
    dir.lock().events::<PickyEvent>().sample(&picked(&[])).sample(&picked(&[1])).check();
    assert!(
        dir.text().contains("picky.picked 1\n    more: list of u8\n    what: string\n    sample 82"),
        "{}",
        dir.text()
    );
    // What the second sample showed, the first alone does not.
    let said = says(&dir, dir.lock().events::<PickyEvent>().sample(&picked(&[])));
    assert!(said.contains("  - more: list of u8\n  + more: list of ?\n"), "{said}");
}

/// The lock once wrote samples that the code could not read.
#[test]
fn what_does_not_come_back_is_no_sample() {
    #[derive(Serialize, Deserialize)]
    struct Wide {
        amount: u128,
    }

    #[derive(Serialize, Deserialize, DomainEvent)]
    #[event(prefix = "wide")]
    enum WideEvent {
        Plain {
            amount: u128,
        },
        Flat {
            name: String,
            #[serde(flatten)]
            wide: Wide,
        },
    }

    let dir = Dir::new();
    let flat = WideEvent::Flat { name: "x".to_owned(), wide: Wide { amount: 1 } };
    let lock = || dir.lock().events::<WideEvent>();
    let said = text_of(catch_unwind(AssertUnwindSafe(|| lock().sample(&flat))).err().unwrap());
    assert!(said.contains("the sample of wide.flat cannot be stored") && said.contains("amount"), "{said}");
    refuses::<WideEvent>(
        &dir,
        &["wide.flat version 1: no value of it could be made up (u128 is not supported)"],
    );
    assert!(!dir.path().exists(), "nothing is written");
}

/// A type that is read in another way than it is written is found, also if its code was not derived.
#[test]
fn a_sample_is_read_back_before_it_is_written() {
    #[derive(Serialize, Deserialize)]
    struct Odd {
        even: u8,
    }

    impl annals::EventData for Odd {
        fn kind(&self) -> &str {
            "odd"
        }

        fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
            annals::Raw("odd", self).encode(out)
        }
    }

    impl DomainEvent for Odd {
        const KINDS: &'static [annals::KnownKind] =
            &[annals::__derive::KnownKind::new("odd", 1, annals::__derive::Form::Struct, 0, None, &[])];

        fn knows(kind: &str) -> bool {
            kind == "odd"
        }

        fn from_recorded(event: &RecordedEvent) -> Result<Odd, Error> {
            let odd: Odd = event.decode()?;
            if odd.even.is_multiple_of(2) { Ok(odd) } else { Err(event.decode::<String>().unwrap_err()) }
        }
    }

    let dir = Dir::new();
    dir.lock().events::<Odd>().sample(&Odd { even: 2 }).check();
    let dir = Dir::new();
    let said = says(&dir, dir.lock().events::<Odd>().sample(&Odd { even: 3 }));
    assert!(said.contains("odd version 1: a value of it cannot be stored"), "{said}");
}

/// Identities and addresses are texts to serde; each is asked for by itself.
#[test]
fn texts_of_many_kinds_are_made_up() {
    #[derive(Serialize, Deserialize, DomainEvent)]
    #[event(kind = "host.added")]
    struct HostAdded {
        name: String,
        id: uuid::Uuid,
        ip: std::net::IpAddr,
        v6: std::net::Ipv6Addr,
        ports: BTreeMap<std::net::SocketAddr, uuid::Uuid>,
        last: std::net::SocketAddrV6,
        path: PathBuf,
    }
    let dir = Dir::new();
    passes::<HostAdded>(&dir);
    let text = dir.text();
    assert!(text.contains("    id: string\n    ip: string\n"), "{text}");
    assert!(text.contains("    ports: map from string to string\n    v6: string\n"), "{text}");
}
