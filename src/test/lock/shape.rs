//! The shape of a value as serde shows it: the names of its fields, and their types.
//!
//! The serializer writes no bytes, and returns the shape of the value. One value shows one variant of each enum and
//! perhaps an empty list, so the shapes of several values are merged.

use std::collections::BTreeMap;
use std::fmt;

use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant,
};
use serde::{Serialize, Serializer};

use crate::event::Form;

/// The shape of the payloads of one kind, merged from its samples.
#[derive(Clone, Debug, Default)]
pub(super) struct KindShape {
    root: ValueShape,
    /// The variants of each enum by its name, so that a sample need not show each variant in each place.
    enums: BTreeMap<&'static str, BTreeMap<&'static str, ValueShape>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
enum ValueShape {
    /// The content of an empty list, or of an option that is none.
    #[default]
    Unknown,
    /// Different types in different samples.
    Any,
    Plain(&'static str),
    Optional(Box<ValueShape>),
    List(Box<ValueShape>),
    Map(Box<ValueShape>, Box<ValueShape>),
    Tuple(Vec<ValueShape>),
    Fields(BTreeMap<String, ValueShape>),
    Enum(&'static str),
}

impl KindShape {
    /// Merges the shape of one more value.
    pub(super) fn add<T: Serialize + ?Sized>(&mut self, value: &T, form: Form) -> Result<(), ShapeError> {
        let is_event = !matches!(form, Form::Struct);
        let shape = value.serialize(ShapeSerializer { seen: self, is_event })?;
        self.root = std::mem::take(&mut self.root).merge(shape);
        Ok(())
    }

    /// The lines of the lock file: one for each field, in the order of their names.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match &self.root {
            ValueShape::Fields(fields) if fields.is_empty() => lines.push("(no fields)".to_owned()),
            ValueShape::Fields(fields) => self.fields("", fields, &mut Vec::new(), &mut lines),
            other => self.write("(payload)", "", other, &mut Vec::new(), &mut lines),
        }
        lines
    }

    fn fields(
        &self,
        path: &str,
        fields: &BTreeMap<String, ValueShape>,
        open: &mut Vec<&'static str>,
        lines: &mut Vec<String>,
    ) {
        for (name, shape) in fields {
            let is_plain =
                !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
            let name = if is_plain { name.clone() } else { format!("{name:?}") };
            self.write(&format!("{path}{name}"), "", shape, open, lines);
        }
    }

    fn write(
        &self,
        path: &str,
        words: &str,
        shape: &ValueShape,
        open: &mut Vec<&'static str>,
        lines: &mut Vec<String>,
    ) {
        match shape {
            ValueShape::Unknown => lines.push(format!("{path}: {words}?")),
            ValueShape::Any => lines.push(format!("{path}: {words}any")),
            ValueShape::Plain(name) => lines.push(format!("{path}: {words}{name}")),
            ValueShape::Optional(inner) => self.write(path, &format!("{words}optional "), inner, open, lines),
            ValueShape::List(inner) => self.write(path, &format!("{words}list of "), inner, open, lines),
            ValueShape::Map(key, value) => {
                let words = format!("{words}map from {} to ", key.brief());
                self.write(path, &words, value, open, lines);
            }
            // An array: more than two values of one shape.
            ValueShape::Tuple(shapes)
                if shapes.len() > 2 && shapes.iter().all(|other| *other == shapes[0]) =>
            {
                self.write(path, &format!("{words}{} times ", shapes.len()), &shapes[0], open, lines);
            }
            ValueShape::Tuple(shapes) => {
                lines.push(format!("{path}: {words}{}", shape.brief()));
                for (number, shape) in shapes.iter().enumerate() {
                    self.write(&format!("{path}.{number}"), "", shape, open, lines);
                }
            }
            ValueShape::Fields(fields) => {
                lines.push(format!("{path}: {words}{}", shape.brief()));
                self.fields(&format!("{path}."), fields, open, lines);
            }
            ValueShape::Enum(name) if open.contains(name) => {
                lines.push(format!("{path}: {words}one of those above"))
            }
            ValueShape::Enum(name) => {
                lines.push(format!("{path}: {words}one of"));
                open.push(name);
                for (variant, shape) in self.enums.get(name).into_iter().flatten() {
                    self.write(&format!("{path}/{variant}"), "", shape, open, lines);
                }
                open.pop();
            }
        }
    }
}

impl ValueShape {
    fn brief(&self) -> String {
        match self {
            ValueShape::Unknown => "?".to_owned(),
            ValueShape::Any => "any".to_owned(),
            ValueShape::Plain(name) => (*name).to_owned(),
            ValueShape::Optional(inner) => format!("optional {}", inner.brief()),
            ValueShape::List(inner) => format!("list of {}", inner.brief()),
            ValueShape::Map(key, value) => format!("map from {} to {}", key.brief(), value.brief()),
            ValueShape::Tuple(shapes) => format!("tuple of {}", shapes.len()),
            ValueShape::Fields(_) => "fields".to_owned(),
            ValueShape::Enum(_) => "one of".to_owned(),
        }
    }

    /// Merges the shapes of two values of one type.
    fn merge(self, other: ValueShape) -> ValueShape {
        match (self, other) {
            (ValueShape::Unknown, shape) | (shape, ValueShape::Unknown) => shape,
            (ValueShape::Optional(one), ValueShape::Optional(other)) => {
                ValueShape::Optional(one.merge_boxed(*other))
            }
            (ValueShape::List(one), ValueShape::List(other)) => ValueShape::List(one.merge_boxed(*other)),
            (ValueShape::Map(key, value), ValueShape::Map(other_key, other_value)) => {
                ValueShape::Map(key.merge_boxed(*other_key), value.merge_boxed(*other_value))
            }
            (ValueShape::Tuple(one), ValueShape::Tuple(other)) if one.len() == other.len() => {
                ValueShape::Tuple(one.into_iter().zip(other).map(|(one, other)| one.merge(other)).collect())
            }
            (ValueShape::Fields(mut one), ValueShape::Fields(other)) => {
                for (name, shape) in other {
                    let known = one.remove(&name).unwrap_or_default();
                    one.insert(name, known.merge(shape));
                }
                ValueShape::Fields(one)
            }
            (one, other) if one == other => one,
            _ => ValueShape::Any,
        }
    }

    fn merge_boxed(self, other: ValueShape) -> Box<ValueShape> {
        Box::new(self.merge(other))
    }
}

/// The error that the value's own `Serialize` failed.
#[derive(Debug)]
pub(super) struct ShapeError(String);

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ShapeError {}

impl serde::ser::Error for ShapeError {
    fn custom<T: fmt::Display>(text: T) -> ShapeError {
        ShapeError(text.to_string())
    }
}

struct ShapeSerializer<'a> {
    seen: &'a mut KindShape,
    /// Whether the value is an event: its kind names the variant, and only the fields are stored.
    is_event: bool,
}

impl<'a> ShapeSerializer<'a> {
    fn group(self, of: GroupKind) -> ShapeGroup<'a> {
        ShapeGroup { seen: self.seen, of, is_event: self.is_event, shapes: Vec::new() }
    }

    fn variant(self, name: &'static str, variant: &'static str, shape: ValueShape) -> ValueShape {
        if self.is_event {
            return shape;
        }
        let place = self.seen.enums.entry(name).or_default().entry(variant).or_default();
        *place = std::mem::take(place).merge(shape);
        ValueShape::Enum(name)
    }
}

/// The kind of a group of values.
enum GroupKind {
    List,
    Map,
    /// A struct whose fields come as a map, because another is flattened into it.
    Flattened,
    Tuple,
    Fields,
    Variant(&'static str, &'static str, Box<GroupKind>),
}

/// Collects the shapes of the values of a list, a map or a struct.
struct ShapeGroup<'a> {
    seen: &'a mut KindShape,
    of: GroupKind,
    is_event: bool,
    /// The shapes with their names, if they have any. A map has keys and values in turn.
    shapes: Vec<(String, ValueShape)>,
}

impl ShapeGroup<'_> {
    fn add<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), ShapeError> {
        let shape = value.serialize(ShapeSerializer { seen: self.seen, is_event: false })?;
        self.shapes.push((name.to_owned(), shape));
        Ok(())
    }

    fn finish(self) -> ValueShape {
        let shapes = self.shapes;
        match self.of {
            GroupKind::Variant(name, variant, of) => {
                let shape = of.shape(shapes);
                ShapeSerializer { seen: self.seen, is_event: self.is_event }.variant(name, variant, shape)
            }
            of => of.shape(shapes),
        }
    }
}

impl GroupKind {
    fn shape(self, shapes: Vec<(String, ValueShape)>) -> ValueShape {
        let all = |shapes: &mut dyn Iterator<Item = ValueShape>| {
            shapes.fold(ValueShape::Unknown, ValueShape::merge)
        };
        match self {
            GroupKind::List => {
                ValueShape::List(Box::new(all(&mut shapes.into_iter().map(|(_, shape)| shape))))
            }
            GroupKind::Map => {
                let mut key = ValueShape::Unknown;
                let mut value = ValueShape::Unknown;
                for (number, (_, shape)) in shapes.into_iter().enumerate() {
                    let place = if number % 2 == 0 { &mut key } else { &mut value };
                    *place = std::mem::take(place).merge(shape);
                }
                ValueShape::Map(Box::new(key), Box::new(value))
            }
            GroupKind::Tuple => ValueShape::Tuple(shapes.into_iter().map(|(_, shape)| shape).collect()),
            GroupKind::Flattened | GroupKind::Fields | GroupKind::Variant(..) => {
                ValueShape::Fields(shapes.into_iter().collect())
            }
        }
    }
}

macro_rules! plain {
    ($($name:ident $type:ty, $word:literal;)*) => {
        $(fn $name(self, _: $type) -> Result<ValueShape, ShapeError> {
            Ok(ValueShape::Plain($word))
        })*
    };
}

impl<'a> Serializer for ShapeSerializer<'a> {
    type Ok = ValueShape;
    type Error = ShapeError;
    type SerializeSeq = ShapeGroup<'a>;
    type SerializeTuple = ShapeGroup<'a>;
    type SerializeTupleStruct = ShapeGroup<'a>;
    type SerializeTupleVariant = ShapeGroup<'a>;
    type SerializeMap = ShapeGroup<'a>;
    type SerializeStruct = ShapeGroup<'a>;
    type SerializeStructVariant = ShapeGroup<'a>;

    /// As for payloads.
    fn is_human_readable(&self) -> bool {
        true
    }

    plain! {
        serialize_bool bool, "bool";
        serialize_i8 i8, "i8";
        serialize_i16 i16, "i16";
        serialize_i32 i32, "i32";
        serialize_i64 i64, "i64";
        serialize_i128 i128, "i128";
        serialize_u8 u8, "u8";
        serialize_u16 u16, "u16";
        serialize_u32 u32, "u32";
        serialize_u64 u64, "u64";
        serialize_u128 u128, "u128";
        serialize_f32 f32, "f32";
        serialize_f64 f64, "f64";
        serialize_char char, "char";
        serialize_str &str, "string";
        serialize_bytes &[u8], "bytes";
    }

    fn serialize_none(self) -> Result<ValueShape, ShapeError> {
        Ok(ValueShape::Optional(Box::default()))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<ValueShape, ShapeError> {
        let inner = value.serialize(ShapeSerializer { seen: self.seen, is_event: false })?;
        Ok(ValueShape::Optional(Box::new(inner)))
    }

    fn serialize_unit(self) -> Result<ValueShape, ShapeError> {
        Ok(ValueShape::Plain("nothing"))
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<ValueShape, ShapeError> {
        Ok(if self.is_event {
            ValueShape::Fields(BTreeMap::new())
        } else {
            ValueShape::Plain("empty struct")
        })
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<ValueShape, ShapeError> {
        let shape =
            if self.is_event { ValueShape::Fields(BTreeMap::new()) } else { ValueShape::Plain("nothing") };
        Ok(self.variant(name, variant, shape))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<ValueShape, ShapeError> {
        value.serialize(ShapeSerializer { seen: self.seen, is_event: false })
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<ValueShape, ShapeError> {
        let shape = value.serialize(ShapeSerializer { seen: self.seen, is_event: false })?;
        Ok(self.variant(name, variant, shape))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<ShapeGroup<'a>, ShapeError> {
        Ok(self.group(GroupKind::List))
    }

    fn serialize_tuple(self, _: usize) -> Result<ShapeGroup<'a>, ShapeError> {
        Ok(self.group(GroupKind::Tuple))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<ShapeGroup<'a>, ShapeError> {
        Ok(self.group(GroupKind::Tuple))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<ShapeGroup<'a>, ShapeError> {
        Ok(self.group(GroupKind::Variant(name, variant, Box::new(GroupKind::Tuple))))
    }

    /// A map without a length is a struct into which another one is flattened; maps know their lengths.
    fn serialize_map(self, length: Option<usize>) -> Result<ShapeGroup<'a>, ShapeError> {
        Ok(self.group(if length.is_some() { GroupKind::Map } else { GroupKind::Flattened }))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<ShapeGroup<'a>, ShapeError> {
        Ok(self.group(GroupKind::Fields))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<ShapeGroup<'a>, ShapeError> {
        Ok(self.group(GroupKind::Variant(name, variant, Box::new(GroupKind::Fields))))
    }
}

macro_rules! unnamed {
    ($($trait:ident $add:ident,)*) => {
        $(impl $trait for ShapeGroup<'_> {
            type Ok = ValueShape;
            type Error = ShapeError;

            fn $add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ShapeError> {
                self.add("", value)
            }

            fn end(self) -> Result<ValueShape, ShapeError> {
                Ok(self.finish())
            }
        })*
    };
}

unnamed! {
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field,
}

macro_rules! named {
    ($($trait:ident,)*) => {
        $(impl $trait for ShapeGroup<'_> {
            type Ok = ValueShape;
            type Error = ShapeError;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), ShapeError> {
                self.add(name, value)
            }

            fn end(self) -> Result<ValueShape, ShapeError> {
                Ok(self.finish())
            }
        })*
    };
}

named! { SerializeStruct, SerializeStructVariant, }

impl SerializeMap for ShapeGroup<'_> {
    type Ok = ValueShape;
    type Error = ShapeError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), ShapeError> {
        match self.of {
            GroupKind::Flattened => {
                // The name waits for its value, which `serialize_value` adds.
                let name = text_of(key).unwrap_or_default();
                self.shapes.push((name, ValueShape::Unknown));
                Ok(())
            }
            _ => self.add("", key),
        }
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ShapeError> {
        match self.of {
            GroupKind::Flattened => {
                let (name, _) = self.shapes.pop().unwrap_or_default();
                self.add(&name, value)
            }
            _ => self.add("", value),
        }
    }

    fn end(self) -> Result<ValueShape, ShapeError> {
        Ok(self.finish())
    }
}

/// The name of a field that serde gives as the key of a map.
fn text_of<T: Serialize + ?Sized>(key: &T) -> Option<String> {
    crate::event::Value::of(key).and_then(|value| value.to()).ok()
}
