//! A fingerprint of a value as serde shows it: names, types and contents.
//!
//! A value that was saved and read back has the fingerprint it had when it was saved, or it is another value:
//! the code that read it knows other fields, or other types of them. Lists and maps are hashed without regard
//! to their order, as a `HashSet` gives its values in another one each time.
//! Row: bytes.

use std::fmt;

use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant,
};
use serde::{Serialize, Serializer};

use crate::types::to_u64;

/// The fingerprint of a value; `None` if its `Serialize` says no.
pub(crate) fn print_of<T: Serialize + ?Sized>(value: &T) -> Option<u64> {
    value.serialize(Printer).ok()
}

/// An odd number without a pattern: the first 64 bits of the golden ratio.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// Both, in this order, as one.
#[inline]
pub(super) fn mix(one: u64, other: u64) -> u64 {
    let mixed = (one ^ other.rotate_left(29)).wrapping_add(SPREAD).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    mixed ^ (mixed >> 32)
}

#[inline]
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let length = to_u64(bytes.len());
    let sum = words.iter().fold(length, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    mix(sum, u64::from_le_bytes(last))
}

// What a value is, besides what it holds. Numbers of different types are different.
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

/// A value's `Serialize` said no.
#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value cannot be looked at")
    }
}

impl std::error::Error for Refused {}

impl serde::ser::Error for Refused {
    fn custom<T: fmt::Display>(_: T) -> Refused {
        Refused
    }
}

struct Printer;

/// Values that belong together, as a sum of their fingerprints.
struct Group {
    is: u64,
    /// The name of the variant whose fields these are.
    variant: Option<&'static str>,
    values: u64,
    sum: u64,
    key: u64,
}

impl Group {
    fn new(is: u64) -> Group {
        Group { is, variant: None, values: 0, sum: 0, key: 0 }
    }

    fn of_variant(is: u64, variant: &'static str) -> Group {
        Group { variant: Some(variant), ..Group::new(is) }
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
        fn $name(self, $value: $type) -> Result<u64, Refused> {
            Ok(mix($is, $content))
        })*
    };
}

impl Serializer for Printer {
    type Ok = u64;
    type Error = Refused;
    type SerializeSeq = Group;
    type SerializeTuple = Group;
    type SerializeTupleStruct = Group;
    type SerializeTupleVariant = Group;
    type SerializeMap = Group;
    type SerializeStruct = Group;
    type SerializeStructVariant = Group;

    /// As payloads are.
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

    fn serialize_none(self) -> Result<u64, Refused> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<u64, Refused> {
        Ok(mix(SOME, value.serialize(self)?))
    }

    fn serialize_unit(self) -> Result<u64, Refused> {
        Ok(mix(NOTHING, 0))
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<u64, Refused> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<u64, Refused> {
        Ok(variant_print(variant, 0))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<u64, Refused> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<u64, Refused> {
        Ok(variant_print(variant, value.serialize(self)?))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Group, Refused> {
        Ok(Group::new(LIST))
    }

    fn serialize_tuple(self, _: usize) -> Result<Group, Refused> {
        Ok(Group::new(TUPLE))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Group, Refused> {
        Ok(Group::new(TUPLE))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Group, Refused> {
        Ok(Group::of_variant(TUPLE, variant))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Group, Refused> {
        Ok(Group::new(MAP))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Group, Refused> {
        Ok(Group::new(FIELDS))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Group, Refused> {
        Ok(Group::of_variant(FIELDS, variant))
    }
}

impl SerializeSeq for Group {
    type Ok = u64;
    type Error = Refused;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        self.add(value.serialize(Printer)?);
        Ok(())
    }

    fn end(self) -> Result<u64, Refused> {
        Ok(self.finish())
    }
}

macro_rules! tuples {
    ($($trait:ident $add:ident;)*) => {
        $(impl $trait for Group {
            type Ok = u64;
            type Error = Refused;

            /// By its place.
            fn $add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
                self.add(mix(self.values, value.serialize(Printer)?));
                Ok(())
            }

            fn end(self) -> Result<u64, Refused> {
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
        $(impl $trait for Group {
            type Ok = u64;
            type Error = Refused;

            /// By its name.
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Refused> {
                self.add(mix(hash(name.as_bytes()), value.serialize(Printer)?));
                Ok(())
            }

            /// A field that is there, and is not written this time.
            fn skip_field(&mut self, name: &'static str) -> Result<(), Refused> {
                self.add(mix(hash(name.as_bytes()), mix(SKIPPED, 0)));
                Ok(())
            }

            fn end(self) -> Result<u64, Refused> {
                Ok(self.finish())
            }
        })*
    };
}

structs! { SerializeStruct SerializeStructVariant }

impl SerializeMap for Group {
    type Ok = u64;
    type Error = Refused;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refused> {
        self.key = key.serialize(Printer)?;
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        let key = self.key;
        self.add(mix(key, value.serialize(Printer)?));
        Ok(())
    }

    fn end(self) -> Result<u64, Refused> {
        Ok(self.finish())
    }
}
