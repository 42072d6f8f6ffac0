//! Writing a value as MessagePack with field names.
//!
//! The bytes are those of rmp-serde for human-readable types, but for unit structs, which are nil as in JSON:
//! untagged enums read nil, and no empty list. What no type could read back is refused here, with the field
//! named: a `Some` of nothing, and nesting beyond [`LEVELS_MAX`]. The path to the field is read from the
//! bytes written so far, so it costs nothing until it is needed.
//! Row: bytes.

use std::fmt;
use std::ops::Range;

use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant,
};
use serde::{Serialize, Serializer};

use super::EXTENSION;
use super::pack::{
    NIL, OPEN_BYTES, byte_string, extension, list_head, long, map_head, marked, open_head, signed, text,
    unsigned,
};
use super::trail::{odd_keys, path_to, second};

/// How many lists and maps may stand inside each other. JSON readers commonly stop there, and reading needs
/// stack for each level.
const LEVELS_MAX: u16 = 127;
/// So many values may stand inside each other for each level: a list or a map, newtypes, and options around it.
const STEPS_PER_LEVEL: u16 = 4;

/// What a value may hold depends on who reads it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// The caller reads the bytes back as the same type before they are used.
    Known,
    /// Some type that is not known here: nothing may be written that serde cannot read everywhere.
    Unknown,
    /// There is none: the value is only looked at.
    Absent,
}

/// Why a value does not encode, and where.
#[derive(Debug)]
pub(crate) struct EncodeError {
    path: String,
    text: String,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.text),
            path => write!(f, "the field {path}: {}", self.text),
        }
    }
}

impl std::error::Error for EncodeError {}

impl serde::ser::Error for EncodeError {
    fn custom<T: fmt::Display>(text: T) -> EncodeError {
        refused(text)
    }
}

/// The path is added where it is known.
#[cold]
pub(super) fn refused(text: impl fmt::Display) -> EncodeError {
    EncodeError { path: String::new(), text: text.to_string() }
}

/// Appends a value to `out`; of an event only the fields, as the kind names the variant.
pub(super) fn write<T: Serialize + ?Sized>(
    value: &T,
    reader: Reader,
    is_event: bool,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let start = out.len();
    let levels = if reader == Reader::Absent { super::LEVELS_READ } else { LEVELS_MAX };
    let steps = levels * STEPS_PER_LEVEL;
    let encoded = value.serialize(Encoder { out, reader, levels, steps, is_event });
    encoded.map_err(|error| {
        let path = path_to(&out[start..]);
        out.truncate(start);
        EncodeError { path, ..error }
    })
}

/// Writes one value.
struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    reader: Reader,
    /// How many lists and maps may still be opened.
    levels: u16,
    /// How many values may still stand inside each other, as each takes room on the stack.
    steps: u16,
    is_event: bool,
}

impl<'a> Encoder<'a> {
    /// Room for one list or map more.
    #[inline]
    fn descend(&mut self) -> Result<(), EncodeError> {
        self.levels = self.levels.checked_sub(1).ok_or_else(too_deep)?;
        Ok(())
    }

    /// Room for one value more that leaves no bytes of its own: an option, a newtype.
    #[inline]
    fn step(&mut self) -> Result<(), EncodeError> {
        self.steps = self.steps.checked_sub(1).ok_or_else(too_deep)?;
        Ok(())
    }

    #[inline]
    fn group(self, end: End) -> Group<'a> {
        let Encoder { out, reader, levels, steps, .. } = self;
        Group { out, reader, levels, steps, values: 0, end, tag: 0..0 }
    }

    #[inline]
    fn map(mut self, entries: usize, values: u64) -> Result<Group<'a>, EncodeError> {
        self.descend()?;
        map_head(self.out, long(entries))?;
        Ok(self.group(End::At(values)))
    }

    fn list(mut self, values: usize) -> Result<Group<'a>, EncodeError> {
        self.descend()?;
        list_head(self.out, long(values))?;
        Ok(self.group(End::At(long(values))))
    }

    /// A list or a map whose length is known once it ends.
    fn open(mut self, is_map: bool) -> Result<Group<'a>, EncodeError> {
        self.descend()?;
        let end = End::Open { head: self.out.len(), is_map };
        open_head(self.out, is_map);
        Ok(self.group(end))
    }

    /// The head of a variant and its name, unless the kind of an event says it.
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

/// How a group ends.
#[derive(Clone, Copy)]
enum End {
    /// After as many values as its head says.
    At(u64),
    /// Its head is still to be written, where room was left for it.
    Open { head: usize, is_map: bool },
}

/// The values inside a list or a map.
struct Group<'a> {
    out: &'a mut Vec<u8>,
    reader: Reader,
    levels: u16,
    steps: u16,
    values: u64,
    end: End,
    /// Where the name of a tag stands, if serde wrote one for an enum.
    tag: Range<usize>,
}

impl Group<'_> {
    #[inline]
    fn add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.values += 1;
        let Group { reader, levels, steps, .. } = *self;
        value.serialize(Encoder { out: self.out, reader, levels, steps, is_event: false })
    }

    /// Looks at a key that was written: serde reads no map in which the tag of its enum comes again. A tag comes
    /// first, and serde's derive gives it, or its value, as a bare `str`, which no field and no key of a map is.
    #[inline]
    fn check_key<T: ?Sized>(&mut self, at: usize, is_first: bool) -> Result<(), EncodeError> {
        if self.reader != Reader::Unknown || matches!(self.end, End::Open { .. }) {
            return Ok(());
        }
        let key = at..self.out.len();
        if is_first {
            let is_tag = std::any::type_name::<T>() == std::any::type_name::<str>();
            self.tag = if is_tag { key } else { 0..0 };
        } else if !self.tag.is_empty() && self.out[self.tag.clone()] == self.out[key.clone()] {
            let problem = second(&self.out[key]);
            self.out.truncate(at);
            return Err(refused(problem));
        }
        Ok(())
    }

    #[inline]
    fn finish(self) -> Result<(), EncodeError> {
        match self.end {
            End::At(values) if values == self.values => Ok(()),
            End::At(values) => Err(refused(format!(
                "its Serialize announced {values} values and gave {}; mend it",
                self.values
            ))),
            End::Open { head, is_map } => self.close(head, is_map),
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
    type SerializeSeq = Group<'a>;
    type SerializeTuple = Group<'a>;
    type SerializeTupleStruct = Group<'a>;
    type SerializeTupleVariant = Group<'a>;
    type SerializeMap = Group<'a>;
    type SerializeStruct = Group<'a>;
    type SerializeStructVariant = Group<'a>;

    /// So that a type is written as serde's flatten, tag and untagged read it, and as JSON has it.
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

    fn serialize_seq(self, length: Option<usize>) -> Result<Group<'a>, EncodeError> {
        match length {
            Some(length) => self.list(length),
            None => self.open(false),
        }
    }

    fn serialize_tuple(self, length: usize) -> Result<Group<'a>, EncodeError> {
        self.list(length)
    }

    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<Group<'a>, EncodeError> {
        self.list(length)
    }

    fn serialize_tuple_variant(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Group<'a>, EncodeError> {
        self.variant(variant)?;
        self.list(length)
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Group<'a>, EncodeError> {
        match length {
            Some(length) => self.map(length, long(length).saturating_mul(2)),
            None => self.open(true),
        }
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, length: usize) -> Result<Group<'a>, EncodeError> {
        self.map(length, long(length))
    }

    fn serialize_struct_variant(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Group<'a>, EncodeError> {
        self.variant(variant)?;
        self.map(length, long(length))
    }
}

macro_rules! unnamed {
    ($($trait:ident $add:ident;)*) => {
        $(impl $trait for Group<'_> {
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
        $(impl $trait for Group<'_> {
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

impl SerializeMap for Group<'_> {
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
