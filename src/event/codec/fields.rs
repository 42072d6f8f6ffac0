//! Enums whose variant is not stored, because the kind of the event names it: only its fields are.
//!
//! Writing, a variant is written as if it were the struct, tuple or value that it holds (encode.rs). Reading, serde asks which variant it is and gets the number that the kind stands
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

use serde::de::value::{U32Deserializer, UnitDeserializer};
use serde::de::{
    DeserializeSeed, EnumAccess, Error as _, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};

use super::DecodeError;
use super::payload::Payload;

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
