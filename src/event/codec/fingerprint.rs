//! Fingerprints: whether a value that was saved, or an event that was read back, is still the same value.
//!
//! The fingerprint of a state covers names, types and contents as serde shows them. A saved state whose
//! fingerprint is another one today was written by code with other fields, or other types of fields.
//! Lists and maps are hashed without regard to their order, because a `HashSet` has another order each time.
//!
//! Events are compared by their bytes. If the bytes differ, keys and kinds of values are compared, in any
//! order. A `HashMap` gives its entries in another order each time, and a type may normalise values as it
//! reads them (a text in lower case). So the comparison tells only that a field is gone or new, or has
//! another kind of value.

use std::fmt;

use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant,
};
use serde::{Serialize, Serializer};

use super::encode::encode_unread;
use super::messagepack::{head_of, length_of};
use super::path::push_key;
use super::payload::decode;
use super::value::{Node, Value};

use crate::types::to_u64;

/// The fingerprint of a value; `None` if its `Serialize` fails.
pub(crate) fn fingerprint_of<T: Serialize + ?Sized>(value: &T) -> Option<u64> {
    value.serialize(Fingerprinter).ok()
}

/// An odd number without a pattern: the first 64 bits of the golden ratio.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// Hashes two numbers, in this order.
#[inline]
fn mix(one: u64, other: u64) -> u64 {
    let mixed = (one ^ other.rotate_left(29)).wrapping_add(SPREAD).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    mixed ^ (mixed >> 32)
}

#[inline]
fn hash(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let length = to_u64(bytes.len());
    let sum = words.iter().fold(length, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    mix(sum, u64::from_le_bytes(last))
}

// The type of a value, which is hashed with its content. Numbers of different types are different values.
const BOOL: u64 = 1;
const I8: u64 = 2;
const I16: u64 = 3;
const I32: u64 = 4;
const I64: u64 = 5;
const I128: u64 = 6;
const U8: u64 = 7;
const U16: u64 = 8;
const U32: u64 = 9;
const U64: u64 = 10;
const U128: u64 = 11;
const F32: u64 = 12;
const F64: u64 = 13;
const CHAR: u64 = 14;
const TEXT: u64 = 15;
const BYTES: u64 = 16;
const NOTHING: u64 = 17;
const SOME: u64 = 18;
const VARIANT: u64 = 19;
const LIST: u64 = 20;
const TUPLE: u64 = 21;
const MAP: u64 = 22;
const FIELDS: u64 = 23;
const SKIPPED: u64 = 24;

/// The error that a value's `Serialize` failed.
#[derive(Debug)]
struct NoFingerprint;

impl fmt::Display for NoFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value does not serialize")
    }
}

impl std::error::Error for NoFingerprint {}

impl serde::ser::Error for NoFingerprint {
    fn custom<T: fmt::Display>(_: T) -> NoFingerprint {
        NoFingerprint
    }
}

struct Fingerprinter;

/// The values of a list, a map or a struct. The sum of their fingerprints does not depend on their order.
struct FingerprintGroup {
    /// The type, one of the constants above.
    is: u64,
    /// The name of the variant whose fields these are.
    variant: Option<&'static str>,
    values: u64,
    sum: u64,
    key: u64,
}

impl FingerprintGroup {
    fn new(is: u64) -> FingerprintGroup {
        FingerprintGroup { is, variant: None, values: 0, sum: 0, key: 0 }
    }

    fn of_variant(is: u64, variant: &'static str) -> FingerprintGroup {
        FingerprintGroup { variant: Some(variant), ..FingerprintGroup::new(is) }
    }

    #[inline]
    fn add(&mut self, print: u64) {
        self.values = self.values.wrapping_add(1);
        self.sum = self.sum.wrapping_add(print);
    }

    fn finish(self) -> u64 {
        let print = mix(self.is, mix(self.values, self.sum));
        self.variant.map_or(print, |variant| variant_print(variant, print))
    }
}

fn variant_print(name: &str, content: u64) -> u64 {
    mix(VARIANT, mix(hash(name.as_bytes()), content))
}

macro_rules! scalars {
    ($($name:ident($type:ty) |$value:ident| $is:ident $content:expr;)*) => {
        $(#[inline]
        fn $name(self, $value: $type) -> Result<u64, NoFingerprint> {
            Ok(mix($is, $content))
        })*
    };
}

impl Serializer for Fingerprinter {
    type Ok = u64;
    type Error = NoFingerprint;
    type SerializeSeq = FingerprintGroup;
    type SerializeTuple = FingerprintGroup;
    type SerializeTupleStruct = FingerprintGroup;
    type SerializeTupleVariant = FingerprintGroup;
    type SerializeMap = FingerprintGroup;
    type SerializeStruct = FingerprintGroup;
    type SerializeStructVariant = FingerprintGroup;

    /// As for payloads.
    fn is_human_readable(&self) -> bool {
        true
    }

    scalars! {
        serialize_bool(bool) |value| BOOL value.into();
        serialize_i8(i8) |value| I8 i64::from(value).cast_unsigned();
        serialize_i16(i16) |value| I16 i64::from(value).cast_unsigned();
        serialize_i32(i32) |value| I32 i64::from(value).cast_unsigned();
        serialize_i64(i64) |value| I64 value.cast_unsigned();
        serialize_i128(i128) |value| I128 hash(&value.to_le_bytes());
        serialize_u8(u8) |value| U8 value.into();
        serialize_u16(u16) |value| U16 value.into();
        serialize_u32(u32) |value| U32 value.into();
        serialize_u64(u64) |value| U64 value;
        serialize_u128(u128) |value| U128 hash(&value.to_le_bytes());
        serialize_f32(f32) |value| F32 value.to_bits().into();
        serialize_f64(f64) |value| F64 value.to_bits();
        serialize_char(char) |value| CHAR u32::from(value).into();
        serialize_str(&str) |value| TEXT hash(value.as_bytes());
        serialize_bytes(&[u8]) |value| BYTES hash(value);
    }

    fn serialize_none(self) -> Result<u64, NoFingerprint> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<u64, NoFingerprint> {
        Ok(mix(SOME, value.serialize(self)?))
    }

    fn serialize_unit(self) -> Result<u64, NoFingerprint> {
        Ok(mix(NOTHING, 0))
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<u64, NoFingerprint> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<u64, NoFingerprint> {
        Ok(variant_print(variant, 0))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<u64, NoFingerprint> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<u64, NoFingerprint> {
        Ok(variant_print(variant, value.serialize(self)?))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<FingerprintGroup, NoFingerprint> {
        Ok(FingerprintGroup::new(LIST))
    }

    fn serialize_tuple(self, _: usize) -> Result<FingerprintGroup, NoFingerprint> {
        Ok(FingerprintGroup::new(TUPLE))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<FingerprintGroup, NoFingerprint> {
        Ok(FingerprintGroup::new(TUPLE))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<FingerprintGroup, NoFingerprint> {
        Ok(FingerprintGroup::of_variant(TUPLE, variant))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<FingerprintGroup, NoFingerprint> {
        Ok(FingerprintGroup::new(MAP))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<FingerprintGroup, NoFingerprint> {
        Ok(FingerprintGroup::new(FIELDS))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<FingerprintGroup, NoFingerprint> {
        Ok(FingerprintGroup::of_variant(FIELDS, variant))
    }
}

impl SerializeSeq for FingerprintGroup {
    type Ok = u64;
    type Error = NoFingerprint;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoFingerprint> {
        self.add(value.serialize(Fingerprinter)?);
        Ok(())
    }

    fn end(self) -> Result<u64, NoFingerprint> {
        Ok(self.finish())
    }
}

macro_rules! tuples {
    ($($trait:ident $add:ident;)*) => {
        $(impl $trait for FingerprintGroup {
            type Ok = u64;
            type Error = NoFingerprint;

            /// Hashed with its index.
            fn $add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoFingerprint> {
                self.add(mix(self.values, value.serialize(Fingerprinter)?));
                Ok(())
            }

            fn end(self) -> Result<u64, NoFingerprint> {
                Ok(self.finish())
            }
        })*
    };
}

tuples! {
    SerializeTuple serialize_element;
    SerializeTupleStruct serialize_field;
    SerializeTupleVariant serialize_field;
}

macro_rules! structs {
    ($($trait:ident)*) => {
        $(impl $trait for FingerprintGroup {
            type Ok = u64;
            type Error = NoFingerprint;

            /// Hashed with its name.
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), NoFingerprint> {
                self.add(mix(hash(name.as_bytes()), value.serialize(Fingerprinter)?));
                Ok(())
            }

            /// A field of the struct that is left out this time.
            fn skip_field(&mut self, name: &'static str) -> Result<(), NoFingerprint> {
                self.add(mix(hash(name.as_bytes()), mix(SKIPPED, 0)));
                Ok(())
            }

            fn end(self) -> Result<u64, NoFingerprint> {
                Ok(self.finish())
            }
        })*
    };
}

structs! { SerializeStruct SerializeStructVariant }

impl SerializeMap for FingerprintGroup {
    type Ok = u64;
    type Error = NoFingerprint;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), NoFingerprint> {
        self.key = key.serialize(Fingerprinter)?;
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoFingerprint> {
        let key = self.key;
        self.add(mix(key, value.serialize(Fingerprinter)?));
        Ok(())
    }

    fn end(self) -> Result<u64, NoFingerprint> {
        Ok(self.finish())
    }
}

/// A map with more entries is not searched for the entry that differs.
const SEARCHED_MAX: usize = 1024;

/// The path to a field in which two payloads differ; empty if they differ as a whole, `None` if they do not
/// differ.
pub(crate) fn difference(written: &[u8], again: &[u8]) -> Option<String> {
    if written == again || shape_of(written) == shape_of(again) {
        return None;
    }
    let mut path = String::new();
    if let Ok(written) = decode::<Value>(written)
        && let Ok(again) = decode::<Value>(again)
    {
        descend(&written, &again, &mut path);
    }
    Some(path)
}

/// Extends the path as long as one field holds the difference.
fn descend(written: &Value, again: &Value, path: &mut String) {
    let Node::Map(written) = written.node() else { return };
    let Node::Map(again) = again.node() else { return };
    if written.len().max(again.len()) > SEARCHED_MAX {
        return;
    }
    let in_other = |entries: &[(Value, Value)], key: &Value| {
        entries.iter().find(|(other, _)| other == key).map(|(_, value)| value.clone())
    };
    for (key, value) in written {
        match in_other(again, key) {
            None => return push_key(path, key),
            Some(other) if shape_of_value(value) != shape_of_value(&other) => {
                push_key(path, key);
                return descend(value, &other, path);
            }
            Some(_) => {}
        }
    }
    if let Some((key, _)) = again.iter().find(|(key, _)| in_other(written, key).is_none()) {
        push_key(path, key);
    }
}

fn shape_of_value(value: &Value) -> Option<u64> {
    let mut bytes = Vec::new();
    encode_unread(value, &mut bytes).ok()?;
    shape_of(&bytes)
}

/// A hash of the keys and the kinds of values of a payload.
fn shape_of(bytes: &[u8]) -> Option<u64> {
    shape(&mut &*bytes)
}

/// Numbers the kinds of values as serde sees them: all integers are one kind.
fn shape(rest: &mut &[u8]) -> Option<u64> {
    let (own, values) = head_of(rest)?;
    let (head, mut behind) = rest.split_at_checked(own)?;
    let (kind, is_map) = match head[0] {
        0x00..=0x7F | 0xE0..=0xFF | 0xCC..=0xD3 => (1, false),
        0xCA | 0xCB => (2, false),
        0xA0..=0xBF | 0xD9..=0xDB => (3, false),
        0xC4..=0xC6 => (4, false),
        0xC2 | 0xC3 => (5, false),
        0x90..=0x9F | 0xDC | 0xDD => (6, false),
        0x80..=0x8F | 0xDE | 0xDF => (7, true),
        _ => (8, false),
    };
    let mut sum = 0_u64;
    let mut left = values;
    while left > 0 {
        let key = if is_map {
            let (key, value) = behind.split_at_checked(length_of(behind)?)?;
            behind = value;
            left -= 1;
            hash(key)
        } else {
            0
        };
        sum = sum.wrapping_add(mix(key, shape(&mut behind)?));
        left -= 1;
    }
    *rest = behind;
    Some(mix(kind, mix(values, sum)))
}
