//! Reads a payload: the texts and numbers of a struct by hand, and every other value by rmp-serde.
//!
//! Decoding is most of the cost of a replay, and most payloads are a struct of texts and numbers. From serde
//! come the names of the fields in their order, and the type of each. So a name is compared with the expected
//! one as bytes, and not read as text first. A field of another type is measured, and rmp-serde reads its
//! bytes. Invariant: every result is the result of rmp-serde, errors included; `payload/tests.rs` compares
//! the two.
//!
//! An event's enum is read without a tag, because the kind of the event names the variant. First serde asks
//! for the variant and gets its number. Then it asks for the fields and gets the payload. The user's type
//! needs no generated copy, so every serde attribute works. `DomainEvent` has the table of forms.

#[cfg(test)]
mod tests;

use std::fmt;

use rmp_serde::config::{DefaultConfig, HumanReadableConfig};
use serde::de::value::{BorrowedStrDeserializer, U32Deserializer, UnitDeserializer};
use serde::de::{
    DeserializeSeed, EnumAccess, Error as _, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};

use super::messagepack::{FALSE, NIL, TRUE, length_of, skip_text, split_map, split_text};

pub(crate) type DecodeError = rmp_serde::decode::Error;

/// rmp-serde's name for an extension of MessagePack.
pub(super) const EXTENSION: &str = rmp_serde::MSGPACK_EXT_STRUCT_NAME;

/// The most nested levels that are read. More than are written, because bytes may come from another program;
/// few enough for the stack of a thread in an unoptimised build.
pub(super) const LEVELS_READ: u16 = 255;

/// Reads a payload as a type.
pub(crate) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    T::deserialize(PayloadReader(bytes))
}

/// As [`decode`], but refuses more than `levels` nested levels: decoding takes stack for each level.
#[cfg(feature = "jsonl")]
pub(crate) fn decode_shallow<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
    levels: usize,
) -> Result<T, DecodeError> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes).with_human_readable();
    reader.set_max_depth(levels);
    T::deserialize(&mut reader)
}

type Plain<'de> =
    rmp_serde::Deserializer<rmp_serde::decode::ReadRefReader<'de, [u8]>, HumanReadableConfig<DefaultConfig>>;

/// The bytes of a payload, as a deserializer.
struct PayloadReader<'de>(&'de [u8]);

impl<'de> PayloadReader<'de> {
    fn plainly(self) -> Plain<'de> {
        let mut reader = rmp_serde::Deserializer::from_read_ref(self.0).with_human_readable();
        reader.set_max_depth(usize::from(LEVELS_READ) + 1);
        reader
    }
}

/// Methods that rmp-serde implements.
macro_rules! plainly {
    ($($name:ident($($argument:ident: $type:ty),*))*) => {
        $(fn $name<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, DecodeError> {
            self.plainly().$name($($argument,)* visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for PayloadReader<'de> {
    type Error = DecodeError;

    /// Payloads are written as human-readable.
    fn is_human_readable(&self) -> bool {
        true
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let Some((count, rest)) = split_map(self.0) else {
            return self.plainly().deserialize_struct(name, fields, visitor);
        };
        let mut entries = StructEntries { rest, left: count, fields };
        let read = visitor.visit_map(&mut entries)?;
        match entries.left {
            0 => Ok(read),
            left => Err(DecodeError::LengthMismatch(count - left)),
        }
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        if name == EXTENSION {
            return self.plainly().deserialize_newtype_struct(name, visitor);
        }
        visitor.visit_newtype_struct(self)
    }

    plainly! {
        deserialize_any()
        deserialize_bool()
        deserialize_i8()
        deserialize_i16()
        deserialize_i32()
        deserialize_i64()
        deserialize_i128()
        deserialize_u8()
        deserialize_u16()
        deserialize_u32()
        deserialize_u64()
        deserialize_u128()
        deserialize_f32()
        deserialize_f64()
        deserialize_char()
        deserialize_str()
        deserialize_string()
        deserialize_bytes()
        deserialize_byte_buf()
        deserialize_option()
        deserialize_unit()
        deserialize_unit_struct(name: &'static str)
        deserialize_seq()
        deserialize_tuple(length: usize)
        deserialize_tuple_struct(name: &'static str, length: usize)
        deserialize_map()
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
        deserialize_identifier()
        deserialize_ignored_any()
    }
}

/// The entries of a map that is read as a struct.
struct StructEntries<'de> {
    rest: &'de [u8],
    left: u32,
    /// The fields that come next, if the payload has them in the order of the struct.
    fields: &'static [&'static str],
}

impl<'de> StructEntries<'de> {
    /// Takes the next name, if it is one of the fields that are still expected.
    #[inline]
    fn take_expected(&mut self) -> Option<&'static str> {
        let mut names = self.fields.iter().enumerate();
        let (index, rest) = names.find_map(|(index, field)| Some((index, skip_text(self.rest, field)?)))?;
        let field = self.fields[index];
        self.rest = rest;
        self.fields = &self.fields[index + 1..];
        Some(field)
    }
}

impl<'de> MapAccess<'de> for StructEntries<'de> {
    type Error = DecodeError;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, DecodeError> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        match self.take_expected() {
            Some(name) => seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some),
            None => seed.deserialize(Field(&mut self.rest)).map(Some),
        }
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, DecodeError> {
        seed.deserialize(Field(&mut self.rest))
    }

    fn size_hint(&self) -> Option<usize> {
        usize::try_from(self.left).ok()
    }
}

/// The next name or value of a struct. Reading it advances the bytes behind the reference.
struct Field<'a, 'de>(&'a mut &'de [u8]);

impl<'de> Field<'_, 'de> {
    /// Takes the bytes of the value; all that are left, if it does not end.
    fn plainly(self) -> Plain<'de> {
        let length = length_of(self.0).unwrap_or(self.0.len());
        let (own, rest) = self.0.split_at(length);
        *self.0 = rest;
        let mut reader = rmp_serde::Deserializer::from_read_ref(own).with_human_readable();
        reader.set_max_depth(LEVELS_READ.into());
        reader
    }

    #[inline]
    fn number<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let Some((head, behind)) = self.0.split_first() else {
            return self.plainly().deserialize_u64(visitor);
        };
        macro_rules! number {
            ($type:ty, $visit:ident) => {
                if let Some((number, rest)) = behind.split_first_chunk() {
                    *self.0 = rest;
                    return visitor.$visit(<$type>::from_be_bytes(*number));
                }
            };
        }
        match head {
            0..=0x7F => {
                *self.0 = behind;
                return visitor.visit_u8(*head);
            }
            &FALSE | &TRUE => {
                *self.0 = behind;
                return visitor.visit_bool(*head == TRUE);
            }
            0xCA => number!(f32, visit_f32),
            0xCB => number!(f64, visit_f64),
            0xCC => number!(u8, visit_u8),
            0xCD => number!(u16, visit_u16),
            0xCE => number!(u32, visit_u32),
            0xCF => number!(u64, visit_u64),
            0xD0 => number!(i8, visit_i8),
            0xD1 => number!(i16, visit_i16),
            0xD2 => number!(i32, visit_i32),
            0xD3 => number!(i64, visit_i64),
            _ => {}
        }
        self.plainly().deserialize_u64(visitor)
    }

    #[inline]
    fn text<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if let Some((length, rest)) = split_text(self.0)
            && let Some((bytes, rest)) = rest.split_at_checked(length)
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            *self.0 = rest;
            return visitor.visit_borrowed_str(text);
        }
        self.plainly().deserialize_str(visitor)
    }
}

macro_rules! as_number {
    ($($name:ident)*) => {
        $(#[inline]
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            self.number(visitor)
        })*
    };
}

macro_rules! as_text {
    ($($name:ident)*) => {
        $(#[inline]
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            self.text(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for Field<'_, 'de> {
    type Error = DecodeError;

    /// Payloads are written as human-readable.
    fn is_human_readable(&self) -> bool {
        true
    }

    as_number! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64
    }

    as_text! { deserialize_str deserialize_string deserialize_identifier }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.0.split_first() {
            Some((&NIL, rest)) => {
                *self.0 = rest;
                visitor.visit_none()
            }
            _ => visitor.visit_some(self),
        }
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        if name == EXTENSION {
            return self.plainly().deserialize_newtype_struct(name, visitor);
        }
        visitor.visit_newtype_struct(self)
    }

    plainly! {
        deserialize_any()
        deserialize_i128()
        deserialize_u128()
        deserialize_char()
        deserialize_bytes()
        deserialize_byte_buf()
        deserialize_unit()
        deserialize_unit_struct(name: &'static str)
        deserialize_seq()
        deserialize_tuple(length: usize)
        deserialize_tuple_struct(name: &'static str, length: usize)
        deserialize_map()
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
        deserialize_ignored_any()
    }
}

/// Reads the fields of the variant with this number.
pub(crate) fn decode_variant<'de, T: Deserialize<'de>>(
    payload: &'de [u8],
    variant: u32,
) -> Result<T, DecodeError> {
    T::deserialize(VariantFields { payload: PayloadReader(payload), number: variant })
}

/// Reads a struct without fields.
pub(crate) fn decode_unit<'de, T: Deserialize<'de>>(payload: &'de [u8]) -> Result<T, DecodeError> {
    PayloadReader(payload).deserialize_any(NoFields)?;
    T::deserialize(UnitDeserializer::new())
}

/// A payload that is read as the fields of an enum's variant.
struct VariantFields<'de> {
    payload: PayloadReader<'de>,
    number: u32,
}

impl<'de> Deserializer<'de> for VariantFields<'de> {
    type Error = DecodeError;

    fn is_human_readable(&self) -> bool {
        self.payload.is_human_readable()
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_enum(self)
    }

    /// serde's derive asks for the variant; an implementation by hand may ask for something else.
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, DecodeError> {
        Err(DecodeError::custom("the type does not ask for a variant; derive Deserialize"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> EnumAccess<'de> for VariantFields<'de> {
    type Error = DecodeError;
    type Variant = Self;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), DecodeError> {
        let number: U32Deserializer<DecodeError> = self.number.into_deserializer();
        Ok((seed.deserialize(number)?, self))
    }
}

impl<'de> VariantAccess<'de> for VariantFields<'de> {
    type Error = DecodeError;

    fn unit_variant(self) -> Result<(), DecodeError> {
        self.payload.deserialize_any(NoFields)
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, DecodeError> {
        seed.deserialize(self.payload)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, DecodeError> {
        self.payload.deserialize_tuple(length, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.payload.deserialize_struct("", fields, visitor)
    }
}

/// Reads "no fields": nil, an empty list, or any map, because a struct ignores fields that it does not know.
struct NoFields;

impl<'de> Visitor<'de> for NoFields {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no fields")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        match fields.next_element::<IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }
}
