//! Enums whose variant is not stored, because the kind of the event names it: only its fields are.
//!
//! serde is told what it wants to hear. Writing, a variant is passed on as if it were the struct, tuple or
//! value that it holds. Reading, serde asks which variant it is and gets the number that the kind stands
//! for; then it asks for the fields, and gets the payload. No type of the user's is copied or
//! generated for this, so that whatever serde derives works.
//!
//! | variant | payload |
//! |---|---|
//! | `Closed` | a map without entries |
//! | `Named(String)` | the string |
//! | `Moved(i32, i32)` | an array of two |
//! | `Opened { owner: String }` | a map with the entry `owner` |
//!
//! A struct without fields is written as such a variant is, so that one can become the other.
//! Row: bytes.

use std::fmt;

use rmp_serde::config::{DefaultConfig, StructMapConfig};
use serde::de::value::{U32Deserializer, UnitDeserializer};
use serde::de::{
    DeserializeSeed, EnumAccess, Error as _, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, forward_to_deserialize_any};

use super::payload::Payload;
use super::{DecodeError, EncodeError};

type Writer<'w> = rmp_serde::Serializer<&'w mut Vec<u8>, StructMapConfig<DefaultConfig>>;

/// Writes the fields of a variant, or of a struct without any.
pub(crate) fn encode_fields<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let mut writer: Writer<'_> = rmp_serde::Serializer::new(out).with_struct_map();
    value.serialize(Fields(&mut writer))
}

/// Reads the fields of the variant with this number.
pub(crate) fn decode_variant<'de, T: Deserialize<'de>>(
    payload: &'de [u8],
    variant: u32,
) -> Result<T, DecodeError> {
    T::deserialize(Variant { payload: Payload(payload), number: variant })
}

/// Reads a struct without fields.
pub(crate) fn decode_unit<'de, T: Deserialize<'de>>(payload: &'de [u8]) -> Result<T, DecodeError> {
    Payload(payload).deserialize_any(NoFields)?;
    T::deserialize(UnitDeserializer::new())
}

/// Passes a variant on as what it holds, and anything else as it is.
struct Fields<'a, 'w>(&'a mut Writer<'w>);

macro_rules! pass_on {
    ($($name:ident($($argument:ident: $type:ty),*) -> $ok:ty;)*) => {
        $(fn $name(self, $($argument: $type),*) -> Result<$ok, EncodeError> {
            self.0.$name($($argument),*)
        })*
    };
}

impl<'a, 'w> Serializer for Fields<'a, 'w> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = <&'a mut Writer<'w> as Serializer>::SerializeSeq;
    type SerializeTuple = <&'a mut Writer<'w> as Serializer>::SerializeTuple;
    type SerializeTupleStruct = <&'a mut Writer<'w> as Serializer>::SerializeTupleStruct;
    type SerializeTupleVariant = <&'a mut Writer<'w> as Serializer>::SerializeTupleStruct;
    type SerializeMap = <&'a mut Writer<'w> as Serializer>::SerializeMap;
    type SerializeStruct = <&'a mut Writer<'w> as Serializer>::SerializeStruct;
    type SerializeStructVariant = <&'a mut Writer<'w> as Serializer>::SerializeStruct;

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }

    fn serialize_unit_variant(self, name: &'static str, _: u32, _: &'static str) -> Result<(), EncodeError> {
        self.serialize_unit_struct(name)
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<(), EncodeError> {
        self.0.serialize_struct(name, 0).map(drop)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        value.serialize(self.0)
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        length: usize,
    ) -> Result<Self::SerializeTupleVariant, EncodeError> {
        self.0.serialize_tuple_struct(name, length)
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        length: usize,
    ) -> Result<Self::SerializeStructVariant, EncodeError> {
        self.0.serialize_struct(name, length)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        self.0.serialize_some(value)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        self.0.serialize_newtype_struct(name, value)
    }

    pass_on! {
        serialize_bool(value: bool) -> ();
        serialize_i8(value: i8) -> ();
        serialize_i16(value: i16) -> ();
        serialize_i32(value: i32) -> ();
        serialize_i64(value: i64) -> ();
        serialize_i128(value: i128) -> ();
        serialize_u8(value: u8) -> ();
        serialize_u16(value: u16) -> ();
        serialize_u32(value: u32) -> ();
        serialize_u64(value: u64) -> ();
        serialize_u128(value: u128) -> ();
        serialize_f32(value: f32) -> ();
        serialize_f64(value: f64) -> ();
        serialize_char(value: char) -> ();
        serialize_str(value: &str) -> ();
        serialize_bytes(value: &[u8]) -> ();
        serialize_none() -> ();
        serialize_unit() -> ();
        serialize_seq(length: Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(length: usize) -> Self::SerializeTuple;
        serialize_tuple_struct(name: &'static str, length: usize) -> Self::SerializeTupleStruct;
        serialize_map(length: Option<usize>) -> Self::SerializeMap;
        serialize_struct(name: &'static str, length: usize) -> Self::SerializeStruct;
    }
}

/// A payload that is read as the variant with a number.
struct Variant<'de> {
    payload: Payload<'de>,
    number: u32,
}

impl<'de> Deserializer<'de> for Variant<'de> {
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

    /// serde's derive asks an enum for a variant; a `Deserialize` by hand may not.
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, DecodeError> {
        Err(DecodeError::custom("the type does not ask for a variant; derive Deserialize"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = DecodeError;
    type Variant = Self;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), DecodeError> {
        let number: U32Deserializer<DecodeError> = self.number.into_deserializer();
        Ok((seed.deserialize(number)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
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

/// Takes a map, as a struct passes over fields it does not know, and whatever else says "nothing".
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
