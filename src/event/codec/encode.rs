//! Encodes a value as MessagePack with field names.
//!
//! The bytes are those of rmp-serde for human-readable types, except for unit structs. They are nil, as in
//! JSON, because untagged enums read nil but no empty list. The encoder refuses values that no type could
//! read back, and names the field: a `Some` of nothing, and nesting beyond [`LEVELS_MAX`]. It reads the path
//! to the field from the bytes written so far, so the path costs nothing until it is needed.

use std::ops::Range;

use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant,
};
use serde::{Serialize, Serializer};

use crate::types::to_u64;

use super::messagepack::{
    EncodeError, NIL, OPEN_BYTES, byte_string, extension, list_head, map_head, marked, open_head, refused,
    signed, text, unsigned,
};
use super::path::{duplicate_key, odd_keys, path_to};
use super::payload::{EXTENSION, LEVELS_READ};

/// The most lists and maps that may be nested. Most JSON readers stop there, and reading needs stack for each
/// level.
const LEVELS_MAX: u16 = 127;
/// The most values nested in one level: a list or a map, with newtypes and options around it.
const STEPS_PER_LEVEL: u16 = 4;

/// The reader of the encoded bytes. It decides which values are refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// The same type: the caller reads the bytes back before they are used.
    Known,
    /// A type that is not known here. A value that serde cannot read in every type is refused.
    Unknown,
    /// No stored event: the value is inspected, or goes to a type of the caller at once.
    Absent,
}

/// Encodes a value that is read back as its own type.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    write(value, Reader::Known, false, out)
}

/// Encodes the fields of an event's variant, or a struct without fields. They are read back as the same type.
pub(crate) fn encode_fields<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    write(value, Reader::Known, true, out)
}

/// Encodes a value that will be read as a type that is not known here.
pub(crate) fn encode_for_any<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    write(value, Reader::Unknown, false, out)
}

/// Encodes a value that is not stored: it is inspected, or goes to a type of the caller at once.
pub(crate) fn encode_unread<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    write(value, Reader::Absent, false, out)
}

/// Appends a value to `out`. Of an event only the fields are written, because the kind names the variant.
fn write<T: Serialize + ?Sized>(
    value: &T,
    reader: Reader,
    is_event: bool,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let start = out.len();
    let levels = if reader == Reader::Absent { LEVELS_READ } else { LEVELS_MAX };
    let steps = levels * STEPS_PER_LEVEL;
    let encoded = value.serialize(Encoder { out, reader, levels, steps, is_event });
    encoded.map_err(|error| {
        let path = path_to(&out[start..]);
        out.truncate(start);
        EncodeError { path, ..error }
    })
}

/// Encodes one value.
struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    reader: Reader,
    /// The lists and maps that may still be opened.
    levels: u16,
    /// The values that may still be nested. Each of them takes stack.
    steps: u16,
    is_event: bool,
}

impl<'a> Encoder<'a> {
    /// Counts one more nested list or map.
    #[inline]
    fn descend(&mut self) -> Result<(), EncodeError> {
        self.levels = self.levels.checked_sub(1).ok_or_else(too_deep)?;
        Ok(())
    }

    /// Counts one more nested value that writes no bytes itself: an option or a newtype.
    #[inline]
    fn step(&mut self) -> Result<(), EncodeError> {
        self.steps = self.steps.checked_sub(1).ok_or_else(too_deep)?;
        Ok(())
    }

    #[inline]
    fn group(self, end: GroupEnd) -> EncoderGroup<'a> {
        let Encoder { out, reader, levels, steps, .. } = self;
        EncoderGroup { out, reader, levels, steps, values: 0, end, tag: 0..0 }
    }

    #[inline]
    fn map(mut self, entries: usize, values: u64) -> Result<EncoderGroup<'a>, EncodeError> {
        self.descend()?;
        map_head(self.out, to_u64(entries))?;
        Ok(self.group(GroupEnd::At(values)))
    }

    fn list(mut self, values: usize) -> Result<EncoderGroup<'a>, EncodeError> {
        self.descend()?;
        list_head(self.out, to_u64(values))?;
        Ok(self.group(GroupEnd::At(to_u64(values))))
    }

    /// Opens a list or a map whose length is known only at its end.
    fn open(mut self, is_map: bool) -> Result<EncoderGroup<'a>, EncodeError> {
        self.descend()?;
        let end = GroupEnd::Open { head: self.out.len(), is_map };
        open_head(self.out, is_map);
        Ok(self.group(end))
    }

    /// Writes the head and the name of a variant, unless the kind of an event names it.
    fn variant(&mut self, name: &str) -> Result<(), EncodeError> {
        if std::mem::take(&mut self.is_event) {
            return Ok(());
        }
        self.descend()?;
        map_head(self.out, 1)?;
        text(self.out, name)
    }

    fn wide(self, bytes: [u8; 16]) -> Result<(), EncodeError> {
        if self.reader == Reader::Unknown {
            return Err(refused(
                "serde reads no 128-bit integers inside flatten, tag and untagged, and what is not derived cannot be tried; derive DomainEvent for the event, or keep the number as text",
            ));
        }
        byte_string(self.out, &bytes)
    }
}

#[cold]
fn too_deep() -> EncodeError {
    refused(format!("it is nested in more than {LEVELS_MAX} levels; flatten it, or keep it as text"))
}

/// The end of a list or map.
#[derive(Clone, Copy)]
enum GroupEnd {
    /// After as many values as its head announces.
    At(u64),
    /// Not known: `head` is the offset of an open head, which is replaced at the end.
    Open { head: usize, is_map: bool },
}

/// Encodes the values of a list or a map.
struct EncoderGroup<'a> {
    out: &'a mut Vec<u8>,
    reader: Reader,
    levels: u16,
    steps: u16,
    values: u64,
    end: GroupEnd,
    /// The bytes of the tag's name, if serde wrote one for an enum.
    tag: Range<usize>,
}

impl EncoderGroup<'_> {
    #[inline]
    fn add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.values += 1;
        let EncoderGroup { reader, levels, steps, .. } = *self;
        value.serialize(Encoder { out: self.out, reader, levels, steps, is_event: false })
    }

    /// Checks a key that was just written: serde reads no map in which the tag of its enum comes twice.
    ///
    /// A tag is the first key. serde's derive writes the tag or its value as a bare `str`, unlike fields and
    /// keys.
    #[inline]
    fn check_key<T: ?Sized>(&mut self, at: usize, is_first: bool) -> Result<(), EncodeError> {
        if self.reader != Reader::Unknown || matches!(self.end, GroupEnd::Open { .. }) {
            return Ok(());
        }
        let key = at..self.out.len();
        if is_first {
            let is_tag = std::any::type_name::<T>() == std::any::type_name::<str>();
            self.tag = if is_tag { key } else { 0..0 };
        } else if !self.tag.is_empty() && self.out[self.tag.clone()] == self.out[key.clone()] {
            let problem = duplicate_key(&self.out[key]);
            self.out.truncate(at);
            return Err(refused(problem));
        }
        Ok(())
    }

    #[inline]
    fn finish(self) -> Result<(), EncodeError> {
        match self.end {
            GroupEnd::At(values) if values == self.values => Ok(()),
            GroupEnd::At(values) => Err(refused(format!(
                "its Serialize announced {values} values and gave {}; mend it",
                self.values
            ))),
            GroupEnd::Open { head, is_map } => self.close(head, is_map),
        }
    }

    fn close(self, at: usize, is_map: bool) -> Result<(), EncodeError> {
        let mut head = Vec::with_capacity(OPEN_BYTES);
        if is_map {
            if self.reader == Reader::Unknown
                && let Some(problem) = odd_keys(&self.out[at + OPEN_BYTES..])
            {
                return Err(refused(problem));
            }
            map_head(&mut head, self.values / 2)?;
        } else {
            list_head(&mut head, self.values)?;
        }
        self.out.splice(at..at + OPEN_BYTES, head);
        Ok(())
    }
}

macro_rules! scalars {
    ($($name:ident($type:ty) |$out:ident, $value:ident| $write:expr;)*) => {
        $(#[inline]
        fn $name(self, $value: $type) -> Result<(), EncodeError> {
            let $out = self.out;
            $write;
            Ok(())
        })*
    };
}

impl<'a> Serializer for Encoder<'a> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = EncoderGroup<'a>;
    type SerializeTuple = EncoderGroup<'a>;
    type SerializeTupleStruct = EncoderGroup<'a>;
    type SerializeTupleVariant = EncoderGroup<'a>;
    type SerializeMap = EncoderGroup<'a>;
    type SerializeStruct = EncoderGroup<'a>;
    type SerializeStructVariant = EncoderGroup<'a>;

    /// Types are written as JSON has them, which serde's flatten, tag and untagged can read.
    #[inline]
    fn is_human_readable(&self) -> bool {
        true
    }

    scalars! {
        serialize_bool(bool) |out, value| out.push(if value { 0xC3 } else { 0xC2 });
        serialize_i8(i8) |out, value| signed(out, value.into());
        serialize_i16(i16) |out, value| signed(out, value.into());
        serialize_i32(i32) |out, value| signed(out, value.into());
        serialize_i64(i64) |out, value| signed(out, value);
        serialize_u8(u8) |out, value| unsigned(out, value.into());
        serialize_u16(u16) |out, value| unsigned(out, value.into());
        serialize_u32(u32) |out, value| unsigned(out, value.into());
        serialize_u64(u64) |out, value| unsigned(out, value);
        serialize_f32(f32) |out, value| marked(out, 0xCA, value.to_be_bytes());
        serialize_f64(f64) |out, value| marked(out, 0xCB, value.to_be_bytes());
        serialize_char(char) |out, value| text(out, value.encode_utf8(&mut [0; 4]))?;
        serialize_str(&str) |out, value| text(out, value)?;
        serialize_bytes(&[u8]) |out, value| byte_string(out, value)?;
    }

    fn serialize_i128(self, value: i128) -> Result<(), EncodeError> {
        self.wide(value.to_be_bytes())
    }

    fn serialize_u128(self, value: u128) -> Result<(), EncodeError> {
        self.wide(value.to_be_bytes())
    }

    fn serialize_none(self) -> Result<(), EncodeError> {
        self.serialize_unit()
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(mut self, value: &T) -> Result<(), EncodeError> {
        self.step()?;
        let at = self.out.len();
        let out = self.out;
        value.serialize(Encoder { out: &mut *out, ..self })?;
        if self.reader != Reader::Absent && out.get(at..) == Some(&[NIL]) {
            out.truncate(at);
            return Err(refused(
                "a Some that holds nothing would come back as None; give it a value, or an enum with two variants",
            ));
        }
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), EncodeError> {
        self.out.push(NIL);
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), EncodeError> {
        if self.is_event { map_head(self.out, 0) } else { self.serialize_unit() }
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), EncodeError> {
        if self.is_event { map_head(self.out, 0) } else { text(self.out, variant) }
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        self.step()?;
        if name != EXTENSION {
            return value.serialize(Encoder { is_event: false, ..self });
        }
        let at = self.out.len();
        let out = self.out;
        value.serialize(Encoder { out: &mut *out, is_event: false, ..self })?;
        extension(out, at)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        self.variant(variant)?;
        value.serialize(self)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<EncoderGroup<'a>, EncodeError> {
        match length {
            Some(length) => self.list(length),
            None => self.open(false),
        }
    }

    fn serialize_tuple(self, length: usize) -> Result<EncoderGroup<'a>, EncodeError> {
        self.list(length)
    }

    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<EncoderGroup<'a>, EncodeError> {
        self.list(length)
    }

    fn serialize_tuple_variant(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<EncoderGroup<'a>, EncodeError> {
        self.variant(variant)?;
        self.list(length)
    }

    fn serialize_map(self, length: Option<usize>) -> Result<EncoderGroup<'a>, EncodeError> {
        match length {
            Some(length) => self.map(length, to_u64(length).saturating_mul(2)),
            None => self.open(true),
        }
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, length: usize) -> Result<EncoderGroup<'a>, EncodeError> {
        self.map(length, to_u64(length))
    }

    fn serialize_struct_variant(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<EncoderGroup<'a>, EncodeError> {
        self.variant(variant)?;
        self.map(length, to_u64(length))
    }
}

macro_rules! unnamed {
    ($($trait:ident $add:ident;)*) => {
        $(impl $trait for EncoderGroup<'_> {
            type Ok = ();
            type Error = EncodeError;

            #[inline]
            fn $add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
                self.add(value)
            }

            fn end(self) -> Result<(), EncodeError> {
                self.finish()
            }
        })*
    };
}

unnamed! {
    SerializeSeq serialize_element;
    SerializeTuple serialize_element;
    SerializeTupleStruct serialize_field;
    SerializeTupleVariant serialize_field;
}

macro_rules! named {
    ($($trait:ident)*) => {
        $(impl $trait for EncoderGroup<'_> {
            type Ok = ();
            type Error = EncodeError;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), EncodeError> {
                let at = self.out.len();
                text(self.out, name)?;
                self.check_key::<T>(at, self.values == 0)?;
                self.add(value)
            }

            #[inline]
            fn end(self) -> Result<(), EncodeError> {
                self.finish()
            }
        })*
    };
}

named! { SerializeStruct SerializeStructVariant }

impl SerializeMap for EncoderGroup<'_> {
    type Ok = ();
    type Error = EncodeError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        let at = self.out.len();
        self.add(key)?;
        self.check_key::<T>(at, self.values == 1)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.add(value)
    }

    fn end(self) -> Result<(), EncodeError> {
        self.finish()
    }
}
