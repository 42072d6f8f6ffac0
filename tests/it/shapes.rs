//! What is appended comes back, or is refused with its field named: every form serde knows, in every
//! surrounding.
//!
//! A new shape is one line in `shapes!`. Each is appended as a derived event, as a `Raw` payload and as
//! metadata. Each is exported and imported, and kept as a state that is saved and loaded again. Each comes
//! plainly, and inside flatten, tag, tag and content, and untagged, where serde reads values through a buffer
//! of its own.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::{NonZeroI8, NonZeroI128, NonZeroU64, NonZeroU128, Saturating, Wrapping};
use std::ops::{Bound, Range, RangeFrom, RangeInclusive};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, SystemTime};

use annals::disk::MemDisk;
use annals::{
    Append, DomainEvent, Error, ErrorKind, EventId, Meta, Position, Projection, Raw, RecordedEvent, Store,
    Value,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::support::all;

macro_rules! shapes {
    ($($name:ident: $type:ty = $value:expr;)*) => {
        /// One shape.
        #[allow(non_camel_case_types, reason = "the names are those of the table")]
        #[derive(Debug, Serialize, Deserialize)]
        enum Shape {
            $($name($type),)*
        }

        /// All of them, with their names. Made anew each time, as some cannot be cloned.
        fn shape(number: usize) -> Option<(&'static str, Shape)> {
            let shapes: &[fn() -> (&'static str, Shape)] =
                &[$(|| (stringify!($name), Shape::$name($value))),*];
            shapes.get(number).map(|make| make())
        }
    };
}

fn text(text: &str) -> String {
    text.to_owned()
}

shapes! {
    truth: bool = true;
    i8_min: i8 = i8::MIN;
    i16_min: i16 = i16::MIN;
    i32_min: i32 = i32::MIN;
    i64_min: i64 = i64::MIN;
    i64_small: i64 = -33;
    u8_max: u8 = u8::MAX;
    u16_max: u16 = u16::MAX;
    u32_max: u32 = u32::MAX;
    u64_max: u64 = u64::MAX;
    i128_min: i128 = i128::MIN;
    i128_small: i128 = -1;
    u128_max: u128 = u128::MAX;
    u128_small: u128 = 7;
    u128_nonzero: NonZeroU128 = NonZeroU128::MAX;
    i128_nonzero: NonZeroI128 = NonZeroI128::MIN;
    u128_wrapped: Wrapping<u128> = Wrapping(5);
    u128_listed: Vec<u128> = vec![1, 2];
    u128_as_key: BTreeMap<u128, u8> = [(1, 2)].into();
    u128_perhaps: Option<u128> = Some(9);
    f32_third: f32 = 1.0 / 3.0;
    f32_nan: f32 = f32::NAN;
    f64_whole: f64 = 5.0;
    f64_nan: f64 = f64::NAN;
    f64_infinite: f64 = f64::NEG_INFINITY;
    f64_negative_zero: f64 = -0.0;
    f64_tiny: f64 = f64::MIN_POSITIVE / 8.0;
    letter: char = '\u{1F980}';
    letter_nul: char = '\0';
    string: String = text("a \"b\"\n\u{1F980}");
    string_empty: String = String::new();
    string_long: String = "x".repeat(70_000);
    string_boxed: Box<str> = "boxed".into();
    string_cow: Cow<'static, str> = Cow::Borrowed("cow");
    string_converted: Converted = Converted(text("x"));
    bytes_listed: Vec<u8> = vec![0, 127, 128, 255];
    bytes_packed: serde_bytes::ByteBuf = serde_bytes::ByteBuf::from(vec![0, 255]);
    bytes_array: serde_bytes::ByteArray<16> = serde_bytes::ByteArray::new([7; 16]);
    unit: () = ();
    unit_struct: Nothing = Nothing;
    unit_struct_listed: Vec<Nothing> = vec![Nothing, Nothing];
    empty_struct: Hollow = Hollow {};
    empty_tuple_struct: HollowTuple = HollowTuple();
    newtype: Newtype = Newtype(Inside { number: 1, perhaps: None });
    newtype_of_newtype: Wrap<Wrap<u8>> = Wrap(Wrap(3));
    tuple_struct: Pair = Pair(1, text("two"));
    tuple_one: (u8,) = (1,);
    tuple_many: (u8, u16, u32, u64, i8, i16, i32, i64, bool, char, String, f64) =
        (1, 2, 3, 4, -1, -2, -3, -4, true, 'x', text("y"), 0.5);
    tuple_nested: ((u8, (i8, ())), [bool; 2]) = ((1, (-1, ())), [true, false]);
    array_none: [u8; 0] = [];
    array_full: [u8; 32] = [200; 32];
    array_of_arrays: [[i16; 2]; 3] = [[1, -1]; 3];
    none: Option<u8> = None;
    some: Option<u8> = Some(1);
    some_some: Option<Option<u8>> = Some(Some(1));
    some_none: Option<Option<u8>> = Some(None);
    some_unit: Option<()> = Some(());
    some_unit_struct: Option<Nothing> = Some(Nothing);
    some_nil: Option<Value> = Some(Value::of(&()).unwrap());
    some_newtype_of_none: Option<Wrap<Option<u8>>> = Some(Wrap(None));
    some_list: Option<Vec<Option<u8>>> = Some(vec![None, Some(1)]);
    some_struct: Option<Box<Inside>> = Some(Box::new(Inside { number: 2, perhaps: Some(3) }));
    list_empty: Vec<String> = vec![];
    list_long: Vec<u32> = (0..70_000).collect();
    list_of_structs: Vec<Inside> = vec![Inside { number: 1, perhaps: None }; 2];
    deque: VecDeque<i64> = [1, -1].into();
    linked: LinkedList<bool> = [true].into();
    heap: Heap = Heap([Reverse(3), Reverse(1)].into());
    set: BTreeSet<String> = [text("b"), text("a")].into();
    set_hashed: HashSet<u8> = [9].into();
    map_empty: BTreeMap<String, u8> = BTreeMap::new();
    map_by_text: BTreeMap<String, u8> = [(text("type"), 1), (text("it"), 2), (text(""), 3)].into();
    map_by_number: BTreeMap<u64, u8> = [(0, 1), (u64::MAX, 2)].into();
    map_by_negative: BTreeMap<i32, u8> = [(-70_000, 1)].into();
    map_by_truth: BTreeMap<bool, u8> = [(true, 1)].into();
    map_by_letter: BTreeMap<char, u8> = [('x', 1)].into();
    map_by_unit: BTreeMap<(), u8> = [((), 1)].into();
    map_by_perhaps: BTreeMap<Option<u8>, u8> = [(None, 1), (Some(1), 2)].into();
    map_by_tuple: BTreeMap<(u8, String), u8> = [((1, text("a")), 1)].into();
    map_by_struct: BTreeMap<Inside, u8> = [(Inside { number: 1, perhaps: None }, 1)].into();
    map_by_variant: BTreeMap<Key, u8> = [(Key::Unit, 1), (Key::Holding(2), 2)].into();
    map_by_newtype: BTreeMap<Wrap<String>, u8> = [(Wrap(text("k")), 1)].into();
    map_by_uuid: BTreeMap<Uuid, u8> = [(Uuid::from_u128(5), 1)].into();
    map_by_ip: BTreeMap<IpAddr, u8> = [(IpAddr::V4(Ipv4Addr::LOCALHOST), 1), (IpAddr::V6(Ipv6Addr::LOCALHOST), 2)].into();
    map_by_socket: BTreeMap<SocketAddr, u8> = [("127.0.0.1:80".parse().unwrap(), 1)].into();
    map_hashed: HashMap<u16, Vec<()>> = [(300, vec![()])].into();
    uuid: Uuid = Uuid::from_u128(0x1234_5678);
    uuid_perhaps: Option<Uuid> = Some(Uuid::max());
    event_id: EventId = EventId::from_bytes([7; 16]);
    position: Position = Position::from(1 << 40);
    ip_v4: Ipv4Addr = Ipv4Addr::BROADCAST;
    ip_v6: Ipv6Addr = Ipv6Addr::LOCALHOST;
    ip: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    socket: SocketAddr = "[::1]:65535".parse().unwrap();
    socket_v4: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80);
    socket_v6: SocketAddrV6 = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 80, 0, 0);
    duration: Duration = Duration::new(u64::MAX, 999_999_999);
    time: SystemTime = SystemTime::UNIX_EPOCH + Duration::from_nanos(1);
    path: PathBuf = PathBuf::from("/tmp/x");
    range: Range<u8> = 1..2;
    range_inclusive: RangeInclusive<i8> = -1..=1;
    range_from: RangeFrom<u64> = 5..;
    bound: (Bound<u8>, Bound<u8>) = (Bound::Unbounded, Bound::Excluded(1));
    result_ok: Result<(), u8> = Ok(());
    result_err: Result<u8, Option<u8>> = Err(None);
    nonzero: NonZeroU64 = NonZeroU64::MAX;
    nonzero_negative: NonZeroI8 = NonZeroI8::MIN;
    wrapping: Wrapping<i32> = Wrapping(-5);
    saturating: Saturating<u8> = Saturating(5);
    reverse: Reverse<u8> = Reverse(5);
    atomic: AtomicU8 = AtomicU8::new(5);
    atomic_truth: AtomicBool = AtomicBool::new(true);
    mutex: Mutex<u8> = Mutex::new(5);
    lock: RwLock<Vec<u8>> = RwLock::new(vec![5]);
    variant_unit: Choice = Choice::Unit;
    variant_newtype: Choice = Choice::New(1);
    variant_of_unit: Choice = Choice::OfUnit(());
    variant_of_none: Choice = Choice::OfPerhaps(None);
    variant_tuple: Choice = Choice::Two(1, text("x"));
    variant_tuple_empty: Choice = Choice::NoTuple();
    variant_fields: Choice = Choice::Fields { number: 1, renamed: Some(text("x")) };
    variant_fields_empty: Choice = Choice::NoFields {};
    variant_within: Choice = Choice::Within(Box::new(Choice::Within(Box::new(Choice::Unit))));
    variant_other: WithOther = WithOther::Unknown;
    variant_numbered: Numbered = Numbered::Two;
    tagged_unit: Tagged = Tagged::Unit;
    tagged_fields: Tagged = Tagged::Fields { ip: Ipv4Addr::LOCALHOST.into(), id: Uuid::nil() };
    tagged_struct: Tagged = Tagged::Held(Inside { number: 1, perhaps: Some(2) });
    tagged_map: Tagged = Tagged::Map([(text("a"), 1)].into());
    tagged_map_by_number: TaggedNumbers = TaggedNumbers::Map([(7, 1)].into());
    tagged_unit_struct: Tagged = Tagged::Nothing(Nothing);
    tagged_map_with_tag: Tagged = Tagged::Map([(text("type"), 1)].into());
    tagged_struct_with_tag: TaggedTwice = TaggedTwice::Held(Typed { number: 1, r#type: 2 });
    tagged_integer: TaggedInteger = TaggedInteger::Holds(5);
    tagged_wide: TaggedWide = TaggedWide::Amount { amount: 5 };
    tagged_within: Tagged = Tagged::Within { more: Box::new(Tagged::Within { more: Box::new(Tagged::Unit) }) };
    adjacent_unit: AdjacentChoice = AdjacentChoice::Unit;
    adjacent_tuple: AdjacentChoice = AdjacentChoice::Two(1, Uuid::nil());
    adjacent_fields: AdjacentChoice = AdjacentChoice::Fields { ip: Ipv4Addr::LOCALHOST };
    untagged_number: Loose = Loose::Number(-1);
    untagged_text: Loose = Loose::Text(text("x"));
    untagged_fields: Loose = Loose::Fields { ip: Ipv4Addr::LOCALHOST, socket: "1.2.3.4:5".parse().unwrap() };
    untagged_list: Loose = Loose::List(vec![Loose::Nothing(Nothing), Loose::Number(2)]);
    untagged_unit_struct: Loose = Loose::Nothing(Nothing);
    untagged_shadowed: Shadowed = Shadowed::Second { second: 1 };
    flattened: Flattened = Flattened { id: 1, inside: Inside { number: 2, perhaps: Some(3) }, last: true };
    flattened_map: FlattenedMap = FlattenedMap { id: 1, rest: [(text("a"), 1), (text("b"), 2)].into() };
    flattened_map_empty: FlattenedMap = FlattenedMap { id: 1, rest: BTreeMap::new() };
    flattened_map_twice: FlattenedMap = FlattenedMap { id: 1, rest: [(text("id"), 1)].into() };
    flattened_by_number: FlattenedNumbers = FlattenedNumbers { id: 1, rest: [(5, 1), (-5, 2)].into() };
    flattened_by_truth: FlattenedTruths = FlattenedTruths { id: 1, rest: [(true, 1)].into() };
    flattened_by_tuple: FlattenedTuples = FlattenedTuples { id: 1, rest: [((1, 2), 1)].into() };
    flattened_by_uuid: FlattenedIds = FlattenedIds { id: 1, rest: [(Uuid::nil(), 1)].into() };
    flattened_some: FlattenedPerhaps = FlattenedPerhaps { id: 1, more: Some(Wide { amount: 5 }) };
    flattened_none: FlattenedPerhaps = FlattenedPerhaps { id: 1, more: None };
    flattened_enum: FlattenedEnum = FlattenedEnum { id: 1, choice: Choice::New(5) };
    flattened_tag: FlattenedTag = FlattenedTag { id: 1, tagged: Tagged::Fields { ip: Ipv4Addr::LOCALHOST.into(), id: Uuid::nil() } };
    flattened_twice: FlattenedTwice = FlattenedTwice { one: [(text("a"), 1)].into(), other: [(text("b"), 2)].into() };
    flattened_many: FlattenedMap = FlattenedMap { id: 1, rest: (0..20).map(|number| (format!("k{number}"), number)).collect() };
    defaulted: Defaulted = Defaulted { list: vec![], seven: 7, skipped: 0 };
    defaulted_otherwise: Defaulted = Defaulted { list: vec![1], seven: 0, skipped: 0 };
    skipped_for_good: Forgetful = Forgetful { list: vec![], text: text("x") };
    skipped_and_there: Forgetful = Forgetful { list: vec![1], text: text("x") };
    renamed: Renamed = Renamed { the_field: 1, other_field: 2 };
    with_functions: WithFunctions = WithFunctions { number: 5 };
    percent: Percent = Percent(50);
    percent_too_large: Percent = Percent(150);
    tree: Tree = Tree::of(3);
    tree_as_deep_as_may_be: Tree = Tree::of(122);
    tree_deep: Tree = Tree::of(5_000);
    chain: Chain = Chain::of(100);
    chain_deep: Chain = Chain::of(5_000);
    tagged_deep: Tagged = (0..120).fold(Tagged::Unit, |within, _| Tagged::Within { more: Box::new(within) });
    untagged_deep: Loose = (0..120).fold(Loose::Number(1), |within, _| Loose::List(vec![within]));
    variant_deep: Choice = (0..120).fold(Choice::Unit, |within, _| Choice::Within(Box::new(within)));
    value_deep: Value = (0..120).fold(Value::of(&1).unwrap(), |within, _| Value::of(&[within]).unwrap());
    value: Value = Value::of(&Inside { number: 1, perhaps: None }).unwrap();
    mixed_tree: Vec<BTreeMap<String, Option<Vec<(u8, Choice)>>>> =
        vec![[(text("k"), Some(vec![(1, Choice::Unit), (2, Choice::New(3))]))].into()];
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Nothing;

#[derive(Debug, Serialize, Deserialize)]
struct Hollow {}

#[derive(Debug, Serialize, Deserialize)]
struct HollowTuple();

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Inside {
    number: u8,
    perhaps: Option<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Newtype(Inside);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Wrap<T>(T);

#[derive(Debug, Serialize, Deserialize)]
struct Pair(u8, String);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Key {
    Unit,
    Holding(u8),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
struct Converted(String);

impl From<String> for Converted {
    fn from(text: String) -> Converted {
        Converted(text)
    }
}

impl From<Converted> for String {
    fn from(converted: Converted) -> String {
        converted.0
    }
}

/// A heap prints its values in the order it holds them, which reading may change.
#[derive(Serialize, Deserialize)]
struct Heap(BinaryHeap<Reverse<u8>>);

impl Debug for Heap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.clone().into_sorted_vec().fmt(f)
    }
}

#[derive(Debug, Serialize, Deserialize)]
enum Choice {
    Unit,
    New(u32),
    OfUnit(()),
    OfPerhaps(Option<u8>),
    Two(u8, String),
    NoTuple(),
    Fields {
        number: u8,
        #[serde(rename = "a name", skip_serializing_if = "Option::is_none")]
        renamed: Option<String>,
    },
    NoFields {},
    Within(Box<Choice>),
}

#[derive(Debug, Serialize, Deserialize)]
enum WithOther {
    Known,
    #[serde(other)]
    Unknown,
}

/// By its number.
#[derive(Debug, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
enum Numbered {
    Two,
}

impl Clone for Numbered {
    fn clone(&self) -> Numbered {
        Numbered::Two
    }
}

impl TryFrom<u8> for Numbered {
    type Error = String;

    fn try_from(number: u8) -> Result<Numbered, String> {
        if number == 2 { Ok(Numbered::Two) } else { Err(format!("{number} is no variant")) }
    }
}

impl From<Numbered> for u8 {
    fn from(_: Numbered) -> u8 {
        2
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Tagged {
    Unit,
    Fields { ip: IpAddr, id: Uuid },
    Held(Inside),
    Map(BTreeMap<String, u8>),
    Nothing(Nothing),
    Within { more: Box<Tagged> },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type")]
enum TaggedNumbers {
    Map(BTreeMap<u64, u8>),
}

#[derive(Debug, Serialize, Deserialize)]
struct Typed {
    number: u8,
    r#type: u8,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type")]
enum TaggedTwice {
    Held(Typed),
}

/// serde refuses to write it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type")]
enum TaggedInteger {
    Holds(u8),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type")]
enum TaggedWide {
    Amount { amount: u128 },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", content = "content")]
enum AdjacentChoice {
    Unit,
    Two(u8, Uuid),
    Fields { ip: Ipv4Addr },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Loose {
    Number(i64),
    Text(String),
    Nothing(Nothing),
    Fields { ip: Ipv4Addr, socket: SocketAddr },
    List(Vec<Loose>),
}

/// What is written as the second is read as the first, and its field is lost.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Shadowed {
    First { first: Option<u8> },
    Second { second: u8 },
}

#[derive(Debug, Serialize, Deserialize)]
struct Flattened {
    id: u8,
    #[serde(flatten)]
    inside: Inside,
    last: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct FlattenedMap {
    id: u8,
    #[serde(flatten)]
    rest: BTreeMap<String, u8>,
}

#[derive(Debug, Serialize, Deserialize)]
struct FlattenedNumbers {
    id: u8,
    #[serde(flatten)]
    rest: BTreeMap<i64, u8>,
}

#[derive(Debug, Serialize, Deserialize)]
struct FlattenedTruths {
    id: u8,
    #[serde(flatten)]
    rest: BTreeMap<bool, u8>,
}

#[derive(Debug, Serialize, Deserialize)]
struct FlattenedTuples {
    id: u8,
    #[serde(flatten)]
    rest: BTreeMap<(u8, u8), u8>,
}

#[derive(Debug, Serialize, Deserialize)]
struct FlattenedIds {
    id: u8,
    #[serde(flatten)]
    rest: BTreeMap<Uuid, u8>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Wide {
    amount: u128,
}

#[derive(Debug, Serialize, Deserialize)]
struct FlattenedPerhaps {
    id: u8,
    #[serde(flatten)]
    more: Option<Wide>,
}

#[derive(Debug, Serialize, Deserialize)]
struct FlattenedEnum {
    id: u8,
    #[serde(flatten)]
    choice: Choice,
}

#[derive(Debug, Serialize, Deserialize)]
struct FlattenedTag {
    #[serde(rename = "number")]
    id: u8,
    #[serde(flatten)]
    tagged: Tagged,
}

/// Both maps are read from all entries.
#[derive(Debug, Serialize, Deserialize)]
struct FlattenedTwice {
    #[serde(flatten)]
    one: BTreeMap<String, u8>,
    #[serde(flatten)]
    other: BTreeMap<String, u8>,
}

fn seven() -> u8 {
    7
}

fn is_zero(number: &u8) -> bool {
    *number == 0
}

/// A zero is left out, and comes back as seven.
#[derive(Debug, Serialize, Deserialize)]
struct Defaulted {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    list: Vec<u8>,
    #[serde(default = "seven", skip_serializing_if = "is_zero")]
    seven: u8,
    #[serde(skip)]
    #[expect(dead_code, reason = "serde is to pass it over")]
    skipped: u8,
}

/// An empty list is left out, and then missed.
#[derive(Debug, Serialize, Deserialize)]
struct Forgetful {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    list: Vec<u8>,
    text: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE", deny_unknown_fields)]
struct Renamed {
    the_field: u8,
    #[serde(rename = "an other", alias = "other")]
    other_field: u8,
}

#[derive(Debug, Serialize, Deserialize)]
struct WithFunctions {
    #[serde(with = "as_text")]
    number: u128,
}

/// What annals advises for 128-bit integers.
mod as_text {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Takes at most a hundred, when it is read.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "u8")]
struct Percent(u8);

impl TryFrom<u8> for Percent {
    type Error = String;

    fn try_from(number: u8) -> Result<Percent, String> {
        if number <= 100 { Ok(Percent(number)) } else { Err(format!("{number} is no percentage")) }
    }
}

#[derive(Serialize, Deserialize)]
struct Tree {
    child: Option<Box<Tree>>,
}

impl Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let levels = std::iter::successors(Some(self), |tree| tree.child.as_deref()).count();
        write!(f, "a tree of {levels} levels")
    }
}

impl Tree {
    fn of(levels: u32) -> Tree {
        (1..levels).fold(Tree { child: None }, |tree, _| Tree { child: Some(Box::new(tree)) })
    }
}

impl Drop for Tree {
    /// One after the other: a deep tree would overflow the stack.
    fn drop(&mut self) {
        let mut next = self.child.take();
        while let Some(mut child) = next {
            next = child.child.take();
        }
    }
}

/// Options and newtypes leave no bytes of their own: the end of the chain is all there is.
#[derive(Serialize, Deserialize)]
struct Chain(Option<Box<Chain>>);

impl Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let links = std::iter::successors(Some(self), |chain| chain.0.as_deref()).count();
        write!(f, "a chain of {links} links")
    }
}

impl Chain {
    fn of(links: u32) -> Chain {
        (1..links).fold(Chain(None), |chain, _| Chain(Some(Box::new(chain))))
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        let mut next = self.0.take();
        while let Some(mut link) = next {
            next = link.0.take();
        }
    }
}

macro_rules! surroundings {
    ($($wrapper:ident $is_buffered:literal $make:expr;)*) => {
        #[derive(Debug, Serialize, Deserialize, DomainEvent)]
        #[event(prefix = "shape")]
        enum ShapeEvent {
            $($wrapper($wrapper),)*
        }

        $(impl Surrounding for $wrapper {
            const NAME: &'static str = stringify!($wrapper);
            const IS_BUFFERED: bool = $is_buffered;

            fn around(it: Shape) -> $wrapper {
                let make: fn(Shape) -> $wrapper = $make;
                make(it)
            }

            fn event(self) -> ShapeEvent {
                ShapeEvent::$wrapper(self)
            }
        })*
    };
}

/// What a shape stands in.
trait Surrounding: Debug + Serialize + DeserializeOwned + Send + Sync + 'static {
    const NAME: &'static str;
    /// Whether serde reads it through a buffer.
    const IS_BUFFERED: bool;
    fn around(it: Shape) -> Self;
    fn event(self) -> ShapeEvent;
}

surroundings! {
    Plain false |it| Plain { before: 1, it, after: 'z' };
    Flat true |it| Flat { before: 1, inner: Inner { it }, after: 'z' };
    Internal true |it| Internal::Holds { it, after: 'z' };
    Adjacent false |it| Adjacent::Holds { it, after: 'z' };
    Untagged true |it| Untagged::Holds { it, after: 'z' };
}

#[derive(Debug, Serialize, Deserialize)]
struct Plain {
    before: u8,
    it: Shape,
    after: char,
}

#[derive(Debug, Serialize, Deserialize)]
struct Inner {
    it: Shape,
}

#[derive(Debug, Serialize, Deserialize)]
struct Flat {
    before: u8,
    #[serde(flatten)]
    inner: Inner,
    after: char,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "form")]
enum Internal {
    Holds { it: Shape, after: char },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "form", content = "content")]
enum Adjacent {
    Holds { it: Shape, after: char },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Holds { it: Shape, after: char },
}

/// A state that holds a shape once it has seen an event.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound = "")]
struct Kept<W: Surrounding> {
    number: usize,
    held: Option<W>,
}

impl<W: Surrounding> Default for Kept<W> {
    fn default() -> Kept<W> {
        Kept { number: 0, held: None }
    }
}

impl<W: Surrounding> Clone for Kept<W> {
    fn clone(&self) -> Kept<W> {
        let held = self.held.is_some().then(|| W::around(shape(self.number).unwrap().1));
        Kept { number: self.number, held }
    }
}

/// Which shape the state is to hold.
#[derive(Debug, Serialize, Deserialize, DomainEvent)]
#[event(kind = "shape.held")]
struct Held(usize);

impl<W: Surrounding> Projection for Kept<W> {
    type Event = Held;
    const NAME: &'static str = W::NAME;

    fn apply(&mut self, Held(number): Held, _: &Meta<'_>) {
        *self = Kept { number, held: Some(W::around(shape(number).unwrap().1)) };
    }
}

/// How a cell of the table turned out.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Equal,
    /// Of a state: folded anew.
    Refused,
    /// It was appended, and is another value now, or none.
    Lost,
}

/// What is refused wherever it stands, as no type reads it.
const REFUSED: &[&str] = &[
    "some_none",
    "some_unit",
    "some_unit_struct",
    "some_nil",
    "some_newtype_of_none",
    "tagged_map_with_tag",
    "tagged_integer",
    "tagged_wide",
    "flattened_map_twice",
    "flattened_by_tuple",
    "tagged_struct_with_tag",
    "flattened_some",
    "tree_deep",
    "chain",
    "chain_deep",
];

/// What serde does not read through its buffer. A derived event may hold it elsewhere.
const NOT_BUFFERED: &[&str] = &[
    "i128_min",
    "i128_small",
    "u128_max",
    "u128_small",
    "u128_nonzero",
    "i128_nonzero",
    "u128_wrapped",
    "u128_listed",
    "u128_as_key",
    "u128_perhaps",
    "flattened_by_number",
    "flattened_by_truth",
];

/// What these types make of their own bytes is another value, or none. A derived event is refused. Of what is
/// appended without its type annals cannot know.
const BY_TYPE: &[&str] =
    &["untagged_shadowed", "flattened_twice", "defaulted_otherwise", "skipped_for_good", "percent_too_large"];

/// What is refused must name the field.
fn refused(name: &str, error: &Error) -> Result<Outcome, String> {
    let said = error.to_string();
    let is_named = said.contains(&format!("it.{name}")) || said.contains(" field `");
    match (error.kind(), is_named) {
        (ErrorKind::Invalid, true) => Ok(Outcome::Refused),
        _ => Err(format!("refused without its field: {said}")),
    }
}

fn same<T: Debug>(what: &str, was: &T, is: Result<T, Error>) -> Result<Outcome, String> {
    let was = format!("{was:?}");
    match is.map(|is| format!("{is:?}")) {
        Ok(is) if is == was => Ok(Outcome::Equal),
        Ok(is) => Err(format!("{what}: {:.200} came back as {:.200}", was, is)),
        Err(error) => Err(format!("{what}: {error}")),
    }
}

/// The event of a store, and of a copy that went through JSON.
fn stored(store: &Store) -> Vec<(&'static str, RecordedEvent)> {
    let first = |store: &Store| all(store.stream("e")).remove(0);
    vec![
        ("read", first(store)),
        #[cfg(feature = "jsonl")]
        ("imported", first(&crate::jsonl::import(&crate::jsonl::export(store, annals::Query::all())))),
    ]
}

fn each(
    store: &Store,
    read: impl Fn(&'static str, &RecordedEvent) -> Result<Outcome, String>,
) -> Result<Outcome, String> {
    stored(store).iter().try_fold(Outcome::Equal, |_, (what, event)| read(what, event))
}

fn as_event<W: Surrounding>(number: usize, name: &str) -> Result<Outcome, String> {
    let store = Store::in_memory().unwrap();
    let event = W::around(shape(number).unwrap().1).event();
    match store.append("e", &event) {
        Err(error) => refused(name, &error),
        Ok(_) => each(&store, |what, recorded| same(what, &event, recorded.to::<ShapeEvent>())),
    }
}

fn as_payload<W: Surrounding>(number: usize, name: &str) -> Result<Outcome, String> {
    let store = Store::in_memory().unwrap();
    let value = W::around(shape(number).unwrap().1);
    match store.append("e", &Raw("raw", &value)) {
        Err(error) => refused(name, &error),
        Ok(_) => each(&store, |what, recorded| same(what, &value, recorded.decode::<W>())),
    }
}

fn as_metadata<W: Surrounding>(number: usize, name: &str) -> Result<Outcome, String> {
    let store = Store::in_memory().unwrap();
    let value = W::around(shape(number).unwrap().1);
    match Append::to("e").event(&Raw("raw", &())).metadata(&value).commit(&store) {
        Err(error) => refused(name, &error),
        Ok(_) => each(&store, |what, recorded| {
            same(what, &value, recorded.metadata::<W>().map(|metadata| metadata.unwrap()))
        }),
    }
}

/// A state is never refused: what is not saved, or does not come back, is folded anew. Equal says that it was
/// found.
fn as_state<W: Surrounding>(number: usize, _: &str) -> Result<Outcome, String> {
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).open().unwrap();
    let append = (0..40).fold(Append::to("e"), |append, _| append.event(&Held(number)));
    append.commit(&store).unwrap();
    let was = store.load::<Kept<W>>("e").unwrap();
    store.close().unwrap();
    let store = Store::on(disk).open().unwrap();
    same("state", was.state(), store.load::<Kept<W>>("e").map(|loaded| loaded.state().clone()))
        .map(|_| if store.stats().cache.disk_hits == 1 { Outcome::Equal } else { Outcome::Refused })
}

type Way = fn(usize, &str) -> Result<Outcome, String>;

/// Every shape in a surrounding, in each way.
fn check<W: Surrounding>() {
    let ways: [(&str, Way); 4] = [
        ("event", as_event::<W>),
        ("raw", as_payload::<W>),
        ("metadata", as_metadata::<W>),
        ("state", as_state::<W>),
    ];
    let mut cells = 0;
    let mut counts = [0; 3];
    let mut wrong = Vec::new();
    for number in 0.. {
        let Some((name, _)) = shape(number) else { break };
        for (way, try_it) in ways {
            cells += 1;
            let is_typed = matches!(way, "event" | "state");
            let expected = match name {
                name if REFUSED.contains(&name) => Outcome::Refused,
                name if BY_TYPE.contains(&name) && is_typed => Outcome::Refused,
                name if BY_TYPE.contains(&name) => Outcome::Lost,
                name if NOT_BUFFERED.contains(&name) && (W::IS_BUFFERED || !is_typed) => Outcome::Refused,
                _ => Outcome::Equal,
            };
            let (outcome, fault) = match try_it(number, name) {
                Ok(outcome) => (outcome, String::new()),
                Err(fault) => (Outcome::Lost, fault),
            };
            counts[outcome as usize] += 1;
            if outcome != expected {
                wrong.push(format!("{name} as {way}: {outcome:?}, not {expected:?}. {fault}"));
            }
        }
    }
    let [equal, refused, lost] = counts;
    println!("{}: {cells} cells, {equal} equal, {refused} refused or folded anew, {lost} lost", W::NAME);
    assert!(wrong.is_empty(), "{} of {cells} cells of {}:\n{}", wrong.len(), W::NAME, wrong.join("\n"));
    assert!(cells >= 4 * 160, "only {cells} cells");
    assert_eq!(lost, 2 * BY_TYPE.len(), "those that annals cannot know of, as payload and as metadata");
}

#[test]
fn what_is_appended_comes_back_or_is_refused() {
    check::<Plain>();
}

#[test]
fn what_is_appended_inside_flatten_comes_back_or_is_refused() {
    check::<Flat>();
}

#[test]
fn what_is_appended_inside_a_tag_comes_back_or_is_refused() {
    check::<Internal>();
}

#[test]
fn what_is_appended_beside_its_tag_comes_back_or_is_refused() {
    check::<Adjacent>();
}

#[test]
fn what_is_appended_untagged_comes_back_or_is_refused() {
    check::<Untagged>();
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type")]
enum Peer {
    Host { name: String, ip: IpAddr },
    Limited { name: String, limit: u128 },
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    name: String,
    percent: Percent,
    perhaps: Option<Option<u8>>,
}

#[derive(Debug, Serialize, Deserialize, DomainEvent)]
#[event(prefix = "named")]
enum NamedEvent {
    Peered { id: Uuid, peer: Peer },
    Ordered { lines: BTreeMap<String, Vec<Line>> },
    Planted { root: Tree, total: u128 },
    Loosened { total: u128, one: Loose128 },
    Filed { path: PathBuf },
    Forgot(Forgetful),
    Shadowed { inside: Option<Shadowed> },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Loose128 {
    Fields { text: String, number: u128 },
}

/// An address inside a tagged enum could be written, and never be read: every load of its entity failed from
/// then on.
#[test]
fn a_refusal_names_the_field() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let line = |percent, perhaps| Line { name: text("x"), percent: Percent(percent), perhaps };
    let ordered = |line_| NamedEvent::Ordered { lines: [(text("a b"), vec![line(1, None), line_])].into() };
    let limited = || Peer::Limited { name: text("x"), limit: 1 };
    let table: [(NamedEvent, &[&str]); 8] = [
        (
            NamedEvent::Peered { id: Uuid::nil(), peer: limited() },
            &["named.peered", "the field peer.limit: u128 is not supported", "keep them as text there"],
        ),
        (ordered(line(150, None)), &["the field lines[\"a b\"][1].percent: 150 is no percentage"]),
        (ordered(line(15, Some(None))), &["the field lines[\"a b\"][1].perhaps: a Some that holds nothing"]),
        (
            NamedEvent::Planted { root: Tree::of(5_000), total: 1 },
            &["the field root.child.child.", ".child..: it is nested in more than 127 levels"],
        ),
        (
            NamedEvent::Loosened { total: 1, one: Loose128::Fields { text: text("x"), number: 2 } },
            &["the field one.number: data did not match any variant"],
        ),
        (
            NamedEvent::Filed { path: PathBuf::from(OsStr::from_bytes(b"\xFF")) },
            &["the field path: path contains invalid UTF-8"],
        ),
        (NamedEvent::Forgot(Forgetful { list: vec![], text: text("x") }), &["missing field `list`"]),
        (
            NamedEvent::Shadowed { inside: Some(Shadowed::Second { second: 1 }) },
            &["would come back as another event: the field inside.second is not read as it was written"],
        ),
    ];
    let store = Store::in_memory().unwrap();
    for (event, parts) in table {
        let error = store.append("e", &event).unwrap_err();
        let said = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{parts:?} are not in: {said}");
    }
    let error = store.append("e", &Raw("raw", &limited())).unwrap_err().to_string();
    assert!(
        error.contains("raw does not encode: the field limit: serde reads no 128-bit integers"),
        "{error}"
    );
    let append = Append::to("e").event(&Raw("raw", &())).metadata(&[Some(()), None]);
    let error = append.commit(&store).unwrap_err().to_string();
    assert!(
        error.contains("the metadata does not encode: the field [0]: a Some that holds nothing"),
        "{error}"
    );
    assert_eq!(store.head().unwrap().position(), Position::START, "nothing of it is in");

    let peer = Peer::Host { name: text("x"), ip: Ipv4Addr::LOCALHOST.into() };
    let event = NamedEvent::Peered { id: Uuid::from_u128(1), peer };
    store.append("e", &event).unwrap();
    let read = all(store.stream("e")).remove(0).to::<NamedEvent>().unwrap();
    assert_eq!(format!("{read:?}"), format!("{event:?}"));
}

/// Encrypted with another nonce each time: there is nothing to compare, and nothing to refuse.
#[test]
fn what_is_written_differently_each_time_is_appended() {
    #[derive(Debug, Serialize, Deserialize, DomainEvent)]
    #[event(kind = "sealed")]
    struct Sealed {
        #[serde(with = "nonce")]
        text: String,
    }

    mod nonce {
        use std::collections::BTreeMap;
        use std::sync::atomic::{AtomicU64, Ordering};

        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        static NONCE: AtomicU64 = AtomicU64::new(0);

        pub(super) fn serialize<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
            let nonce = NONCE.fetch_add(1, Ordering::Relaxed).to_string();
            BTreeMap::from([(nonce, text)]).serialize(serializer)
        }

        pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
            let map = BTreeMap::<String, String>::deserialize(deserializer)?;
            Ok(map.into_values().next().unwrap_or_default())
        }
    }

    let store = Store::in_memory().unwrap();
    store.append("e", &Sealed { text: text("secret") }).unwrap();
    assert_eq!(all(store.stream("e")).remove(0).to::<Sealed>().unwrap().text, "secret");
}

/// A `HashMap` is written in another order each time.
#[test]
fn what_has_no_order_is_compared_without_one() {
    #[derive(Debug, PartialEq, Serialize, Deserialize, DomainEvent)]
    #[event(kind = "mixed")]
    struct Mixed {
        map: HashMap<String, HashMap<u8, Key>>,
        set: HashSet<(u8, bool)>,
    }

    let store = Store::in_memory().unwrap();
    let inner = |number: u8| (0..number).map(|key| (key, Key::Holding(number))).collect();
    let event = Mixed {
        map: (0..40).map(|number| (format!("k{number}"), inner(number))).collect(),
        set: (0..100).map(|number| (number, number > 50)).collect(),
    };
    store.append("e", &event).unwrap();
    assert_eq!(all(store.stream("e")).remove(0).to::<Mixed>().unwrap(), event);
}
