//! Reading a payload: the texts and numbers of its struct by hand, and whatever else by rmp-serde.
//!
//! Decoding is most of what a replay costs, and most payloads are a struct of texts and numbers. What makes these
//! faster is what serde tells beforehand: the names of the fields in their order, and what each is to become. So
//! a name is compared with the one that is expected, and is not looked at as text first. A field that is neither
//! text nor number is measured, and its bytes are left to rmp-serde.
//! Invariant: what comes of it is what rmp-serde gives, errors included; payload/tests.rs compares the two.
//! Row: bytes.

#[cfg(test)]
mod tests;

use rmp_serde::config::{DefaultConfig, HumanReadableConfig};
use serde::Deserializer;
use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, MapAccess, Visitor};

use super::{DecodeError, EXTENSION, LEVELS_READ};

// What values begin with, as the specification of MessagePack has it.
const NIL: u8 = 0xC0;
const FALSE: u8 = 0xC2;
const TRUE: u8 = 0xC3;
const SHORT_TEXT: u8 = 0xA0;
/// The longest text whose first byte says how long it is.
const SHORT_TEXT_MAX: usize = 31;

type Plain<'de> =
    rmp_serde::Deserializer<rmp_serde::decode::ReadRefReader<'de, [u8]>, HumanReadableConfig<DefaultConfig>>;

/// A payload, not yet read.
pub(super) struct Payload<'de>(pub(super) &'de [u8]);

impl<'de> Payload<'de> {
    fn plainly(self) -> Plain<'de> {
        let mut reader = rmp_serde::Deserializer::from_read_ref(self.0).with_human_readable();
        reader.set_max_depth(usize::from(LEVELS_READ) + 1);
        reader
    }
}

/// As rmp-serde reads it.
macro_rules! plainly {
    ($($name:ident($($argument:ident: $type:ty),*))*) => {
        $(fn $name<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, DecodeError> {
            self.plainly().$name($($argument,)* visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for Payload<'de> {
    type Error = DecodeError;

    /// As payloads are written.
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
        let mut entries = Entries { rest, left: count, fields };
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
struct Entries<'de> {
    rest: &'de [u8],
    left: u32,
    /// The fields of the struct that come next, if they were written in its order.
    fields: &'static [&'static str],
}

impl<'de> Entries<'de> {
    /// Takes the name that stands next, if it is one of these.
    #[inline]
    fn expected(&mut self) -> Option<&'static str> {
        let found =
            self.fields.iter().enumerate().find_map(|(at, field)| Some((at, behind(self.rest, field)?)));
        let (at, rest) = found?;
        let field = self.fields[at];
        (self.rest, self.fields) = (rest, &self.fields[at + 1..]);
        Some(field)
    }
}

/// What follows a short text, if that stands here.
#[inline(always)]
fn behind<'de>(bytes: &'de [u8], text: &str) -> Option<&'de [u8]> {
    let (head, rest) = bytes.split_first()?;
    if text.len() > SHORT_TEXT_MAX || usize::from(*head) != usize::from(SHORT_TEXT) + text.len() {
        return None;
    }
    let (own, rest) = rest.split_at_checked(text.len())?;
    are_same(own, text.as_bytes()).then_some(rest)
}

/// Whether two names of one length are the same. Calling for a comparison would take longer than comparing.
#[inline(always)]
fn are_same(one: &[u8], other: &[u8]) -> bool {
    match one.len() {
        4..8 => ends::<4>(one) == ends::<4>(other),
        8..=16 => ends::<8>(one) == ends::<8>(other),
        _ => one == other,
    }
}

#[inline(always)]
fn ends<const N: usize>(bytes: &[u8]) -> (Option<&[u8; N]>, Option<&[u8; N]>) {
    (bytes.first_chunk(), bytes.last_chunk())
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = DecodeError;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, DecodeError> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        match self.expected() {
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

/// A name or a value of a struct, and what follows it.
struct Field<'a, 'de>(&'a mut &'de [u8]);

impl<'de> Field<'_, 'de> {
    /// Its bytes; all that are left, if it does not end.
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

    /// As payloads are written.
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

/// How many entries a map has, if one begins here, and what follows its head.
fn split_map(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (head, rest) = bytes.split_first()?;
    match head {
        0x80..=0x8F => Some(((head & 0x0F).into(), rest)),
        0xDE => rest.split_first_chunk().map(|(count, rest)| (u16::from_be_bytes(*count).into(), rest)),
        0xDF => rest.split_first_chunk().map(|(count, rest)| (u32::from_be_bytes(*count), rest)),
        _ => None,
    }
}

/// How long the text is that begins here, and what follows its head.
#[inline]
fn split_text(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (head, rest) = bytes.split_first()?;
    match head {
        0xA0..=0xBF => Some(((head & 0x1F).into(), rest)),
        0xD9 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest)),
        0xDA => rest.split_first_chunk().map(|(length, rest)| (u16::from_be_bytes(*length).into(), rest)),
        _ => None,
    }
}

/// How many bytes the value has that begins here; `None` if it does not end.
pub(super) fn length_of(bytes: &[u8]) -> Option<usize> {
    let (mut rest, mut left) = (bytes, 1_u64);
    while left > 0 {
        let (own, inside) = head_of(rest)?;
        rest = rest.get(own..)?;
        left = (left - 1).checked_add(inside)?;
    }
    Some(bytes.len() - rest.len())
}

/// How many bytes a value has besides the values inside it, and how many these are.
pub(super) fn head_of(bytes: &[u8]) -> Option<(usize, u64)> {
    let (head, rest) = bytes.split_first()?;
    let short = || rest.first().map(|length| usize::from(*length));
    let medium = || rest.first_chunk().map(|length| u16::from_be_bytes(*length));
    let long = || rest.first_chunk().map(|length| u32::from_be_bytes(*length));
    let wide = |length: u32| usize::try_from(length).ok();
    let own = match head {
        0x80..=0x8F => return Some((1, 2 * u64::from(head & 0x0F))),
        0x90..=0x9F => return Some((1, (head & 0x0F).into())),
        0xDC => return Some((3, medium()?.into())),
        0xDD => return Some((5, long()?.into())),
        0xDE => return Some((3, 2 * u64::from(medium()?))),
        0xDF => return Some((5, 2 * u64::from(long()?))),
        0xA0..=0xBF => 1 + usize::from(head & 0x1F),
        0xC4 | 0xD9 => 2 + short()?,
        0xC5 | 0xDA => 3 + usize::from(medium()?),
        0xC6 | 0xDB => wide(long()?)?.checked_add(5)?,
        0xC7 => 3 + short()?,
        0xC8 => 4 + usize::from(medium()?),
        0xC9 => wide(long()?)?.checked_add(6)?,
        0xCC | 0xD0 => 2,
        0xCD | 0xD1 | 0xD4 => 3,
        0xD5 => 4,
        0xCA | 0xCE | 0xD2 => 5,
        0xD6 => 6,
        0xCB | 0xCF | 0xD3 => 9,
        0xD7 => 10,
        0xD8 => 18,
        0xC1 => return None,
        _ => 1,
    };
    Some((own, 0))
}
