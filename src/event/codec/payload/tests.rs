//! Reading a payload against rmp-serde: the same values, the same errors, for any bytes.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::event::codec::{Value, decode, encode};

/// Something of all that serde knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct All {
    flag: bool,
    small: u8,
    signed: i16,
    large: u64,
    negative: i64,
    huge: i128,
    single: f32,
    double: f64,
    letter: char,
    text: String,
    a_name_of_more_than_sixteen_bytes: String,
    a_name_that_is_longer_than_thirty_one_bytes: String,
    #[serde(default)]
    perhaps: Option<u32>,
    perhaps_not: Option<Option<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    left_out: Vec<u16>,
    wrapped: Wrapped,
    nothing: (),
    pair: (u8, String),
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    inner: Inner,
    one_of: OneOf,
    others: Vec<OneOf>,
    map: BTreeMap<String, Inner>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Wrapped(i32);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Inner {
    #[serde(alias = "was")]
    is: i8,
    text: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum OneOf {
    Unit,
    New(u32),
    Pair(i8, String),
    Fields { text: Option<String> },
}

/// The same bytes, asked for otherwise.
#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "it is printed")]
struct Part<'a> {
    text: &'a str,
    large: u32,
    unknown: Option<u8>,
    one_of: IgnoredAny,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it is printed")]
struct Strict {
    flag: bool,
    small: u16,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "it is printed")]
struct Flat {
    text: String,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "it is printed")]
struct Around(Box<Deep>);

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "it is printed")]
struct Deep {
    small: i64,
    inner: Value,
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 ^ (self.0 >> 29)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % end
    }

    /// A number of any size.
    fn number(&mut self) -> u64 {
        let bits = self.below(64);
        self.next() >> bits
    }

    #[expect(clippy::cast_possible_truncation, reason = "any number will do")]
    fn of<T: From<u8>>(&mut self) -> T {
        T::from(self.next() as u8)
    }

    fn text(&mut self) -> String {
        let length = [0, 5, 31, 32, 300][self.below(5)];
        ["x", "\u{e4}", "\u{1f600}"][self.below(3)].repeat(length)
    }

    fn inner(&mut self) -> Inner {
        Inner { is: self.number().to_le_bytes()[0].cast_signed(), text: self.text() }
    }

    fn one_of(&mut self) -> OneOf {
        match self.below(4) {
            0 => OneOf::Unit,
            1 => OneOf::New(self.of()),
            2 => OneOf::Pair(self.number().to_le_bytes()[0].cast_signed(), self.text()),
            _ => OneOf::Fields { text: (self.below(2) == 0).then(|| self.text()) },
        }
    }

    fn all(&mut self) -> All {
        All {
            flag: self.below(2) == 0,
            small: self.of(),
            signed: i16::from_le_bytes([self.of(), self.of()]),
            large: self.number(),
            negative: self.number().cast_signed().wrapping_neg(),
            huge: i128::from(self.number()) * i128::from(self.number()),
            single: f32::from_bits(u32::from_le_bytes([self.of(), self.of(), self.of(), self.of()])),
            double: f64::from_bits(self.next()),
            letter: char::from(self.of::<u8>()),
            text: self.text(),
            a_name_of_more_than_sixteen_bytes: self.text(),
            a_name_that_is_longer_than_thirty_one_bytes: self.text(),
            perhaps: (self.below(2) == 0).then(|| self.of()),
            perhaps_not: (self.below(2) == 0).then(|| Some(self.text())),
            left_out: (0..self.below(3)).map(|_| self.of()).collect(),
            wrapped: Wrapped(self.of()),
            nothing: (),
            pair: (self.of(), self.text()),
            bytes: self.text().into_bytes(),
            inner: self.inner(),
            one_of: self.one_of(),
            others: (0..self.below(3)).map(|_| self.one_of()).collect(),
            map: (0..self.below(3)).map(|_| (self.text(), self.inner())).collect(),
        }
    }
}

/// What both make of the bytes, as it prints.
fn both<'a, T: Deserialize<'a> + Debug>(bytes: &'a [u8]) -> bool {
    let ours = decode::<T>(bytes).map_err(|error| error.to_string());
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes).with_human_readable();
    reader.set_max_depth(256);
    let theirs = T::deserialize(&mut reader).map_err(|error| error.to_string());
    let is_read = ours.is_ok();
    let ours = format!("{ours:?}");
    let theirs = format!("{theirs:?}");
    assert_eq!(ours, theirs, "as {}: {bytes:02x?}", std::any::type_name::<T>());
    is_read
}

fn each(bytes: &[u8]) -> usize {
    let read = [
        both::<All>(bytes),
        both::<Part<'_>>(bytes),
        both::<Strict>(bytes),
        both::<Flat>(bytes),
        both::<Around>(bytes),
        both::<Inner>(bytes),
        both::<OneOf>(bytes),
        both::<Wrapped>(bytes),
        both::<BTreeMap<String, IgnoredAny>>(bytes),
        both::<Option<Deep>>(bytes),
        both::<u64>(bytes),
        both::<String>(bytes),
        both::<IgnoredAny>(bytes),
    ];
    read.into_iter().filter(|is_read| *is_read).count()
}

#[test]
fn what_was_written_is_read_as_rmp_serde_reads_it() {
    let mut random = Random(1);
    for _ in 0..300 {
        let all = random.all();
        let named = rmp_serde::to_vec_named(&all).unwrap();
        assert!(each(&named) >= 5, "a struct is read as a struct, in whole and in part");
        each(&rmp_serde::to_vec(&all).unwrap());
        both::<Value>(&named);
    }
}

/// serde does not tell how many entries there are.
#[derive(Serialize)]
struct Flattened {
    extension: Value,
    largest: u128,
    #[serde(flatten)]
    rest: BTreeMap<String, i64>,
}

#[test]
fn what_is_written_are_the_bytes_of_rmp_serde() {
    let mut random = Random(4);
    let mut ours = Vec::new();
    let mut lengths = BTreeMap::new();
    let mut compare = |value: &dyn Fn(&mut Vec<u8>) -> Vec<u8>| {
        ours.clear();
        ours.push(0xC1);
        let theirs = value(&mut ours);
        assert_eq!(&ours[1..], theirs);
        *lengths.entry(theirs.len().ilog2()).or_insert(0) += 1;
    };
    for round in 0..300 {
        let all = random.all();
        compare(&|out| {
            encode(&all, out).unwrap();
            rmp_serde::to_vec_named(&all).unwrap()
        });
        let length = [0, 1, 2, 3, 4, 8, 15, 16, 300, 70_000][round % 10];
        let bytes = [
            &[0xC9, 0, u8::try_from(length >> 16).unwrap()],
            &u16::try_from(length & 0xFFFF).unwrap().to_be_bytes()[..],
            &[0xD0],
            &vec![9; length],
        ]
        .concat();
        let flattened = Flattened {
            extension: decode(&bytes).unwrap(),
            largest: u128::from(random.number()) << 64,
            rest: (0..length.min(1000)).map(|key| (key.to_string(), random.number().cast_signed())).collect(),
        };
        compare(&|out| {
            encode(&flattened, out).unwrap();
            rmp_serde::to_vec_named(&flattened).unwrap()
        });
    }
    assert!(lengths.len() > 8, "{lengths:?}");
}

/// Fields in another order, twice, under other names, and of other types.
#[test]
fn fields_that_are_not_the_expected_ones_are_read_as_rmp_serde_reads_them() {
    let mut random = Random(2);
    for _ in 0..300 {
        let one = random.all();
        let other = random.all();
        let entries = |all: &All| {
            let mut bytes = rmp_serde::to_vec_named(all).unwrap();
            bytes.drain(..3);
            bytes
        };
        let one = entries(&one);
        let other = entries(&other);
        let cut = random.below(one.len());
        for map in [
            [&[0xDE, 0, 44][..], &one, &other].concat(),
            [&[0xDE, 0, 23], &one[..cut], &other].concat(),
            [&[0xDF, 0, 0, 0, 24], &b"\xA7unknown\xC0"[..], &one].concat(),
            [&[0x82], &b"\xA3was\x05\xA4text\xA1x"[..]].concat(),
            [&[0x82], &b"\xA4text\xA1x\xA2is\x05"[..]].concat(),
            [&[0x83], &b"\xA4text\xA1x\xA2is\x05\xA2is\x06"[..]].concat(),
        ] {
            each(&map);
        }
    }
}

#[test]
fn bytes_that_were_damaged_are_refused_as_rmp_serde_refuses_them() {
    let mut random = Random(3);
    let mut read = 0;
    let mut refused = 0;
    for _ in 0..3_000 {
        let mut bytes = rmp_serde::to_vec_named(&random.all()).unwrap();
        match random.below(4) {
            0 => bytes.truncate(random.below(bytes.len())),
            1 => bytes.insert(random.below(bytes.len()), random.of()),
            _ => {
                for _ in 0..=random.below(3) {
                    let at = random.below(bytes.len());
                    bytes[at] = random.of();
                }
            }
        }
        match each(&bytes) {
            0..=1 => refused += 1,
            _ => read += 1,
        }
    }
    assert!(read > 100 && refused > 100, "{read} read, {refused} refused");
}

#[test]
fn what_stands_deep_is_refused_where_rmp_serde_refuses_it() {
    for depth in 250..260 {
        let list: Vec<u8> = std::iter::repeat_n(0x91, depth).chain([0x01]).collect();
        let map = [&[0x82], &b"\xA5small\x01\xA5inner"[..], &list].concat();
        both::<Deep>(&map);
        both::<Around>(&map);
    }
}
