//! What a value looks like to serde: names of fields, and types.
//!
//! The serializer here writes no bytes; it answers with the shape of what it was given. Every run sees one variant of
//! each enum and perhaps an empty list, so shapes are put together from several values.
//! Row: app.

use std::collections::BTreeMap;
use std::fmt;

use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant,
};
use serde::{Serialize, Serializer};

use crate::event::Form;

/// What one kind's payload looks like, as far as values were seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Described {
    root: Shape,
    /// By the name of the enum, so that one value need not show every variant in every place.
    enums: BTreeMap<&'static str, BTreeMap<&'static str, Shape>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
enum Shape {
    /// Of an empty list, or of an option that is none.
    #[default]
    Unknown,
    /// Different things at different times.
    Any,
    Plain(&'static str),
    Optional(Box<Shape>),
    List(Box<Shape>),
    Map(Box<Shape>, Box<Shape>),
    Tuple(Vec<Shape>),
    Fields(BTreeMap<String, Shape>),
    Enum(&'static str),
}

impl Described {
    /// Takes in one more value.
    pub(super) fn see<T: Serialize + ?Sized>(&mut self, value: &T, form: Form) -> Result<(), Unseen> {
        let is_event = !matches!(form, Form::Struct);
        let shape = value.serialize(Describer { seen: self, is_event })?;
        self.root = std::mem::take(&mut self.root).and(shape);
        Ok(())
    }

    /// One line for each field, in the order of their names.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match &self.root {
            Shape::Fields(fields) if fields.is_empty() => lines.push("(no fields)".to_owned()),
            Shape::Fields(fields) => self.fields("", fields, &mut Vec::new(), &mut lines),
            other => self.write("(payload)", "", other, &mut Vec::new(), &mut lines),
        }
        lines
    }

    fn fields(
        &self,
        path: &str,
        fields: &BTreeMap<String, Shape>,
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
        shape: &Shape,
        open: &mut Vec<&'static str>,
        lines: &mut Vec<String>,
    ) {
        match shape {
            Shape::Unknown => lines.push(format!("{path}: {words}?")),
            Shape::Any => lines.push(format!("{path}: {words}any")),
            Shape::Plain(name) => lines.push(format!("{path}: {words}{name}")),
            Shape::Optional(inner) => self.write(path, &format!("{words}optional "), inner, open, lines),
            Shape::List(inner) => self.write(path, &format!("{words}list of "), inner, open, lines),
            Shape::Map(key, value) => {
                let words = format!("{words}map from {} to ", key.brief());
                self.write(path, &words, value, open, lines);
            }
            // An array.
            Shape::Tuple(shapes) if shapes.len() > 2 && shapes.iter().all(|other| *other == shapes[0]) => {
                self.write(path, &format!("{words}{} times ", shapes.len()), &shapes[0], open, lines);
            }
            Shape::Tuple(shapes) => {
                lines.push(format!("{path}: {words}{}", shape.brief()));
                for (number, shape) in shapes.iter().enumerate() {
                    self.write(&format!("{path}.{number}"), "", shape, open, lines);
                }
            }
            Shape::Fields(fields) => {
                lines.push(format!("{path}: {words}{}", shape.brief()));
                self.fields(&format!("{path}."), fields, open, lines);
            }
            Shape::Enum(name) if open.contains(name) => {
                lines.push(format!("{path}: {words}one of those above"))
            }
            Shape::Enum(name) => {
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

impl Shape {
    fn brief(&self) -> String {
        match self {
            Shape::Unknown => "?".to_owned(),
            Shape::Any => "any".to_owned(),
            Shape::Plain(name) => (*name).to_owned(),
            Shape::Optional(inner) => format!("optional {}", inner.brief()),
            Shape::List(inner) => format!("list of {}", inner.brief()),
            Shape::Map(key, value) => format!("map from {} to {}", key.brief(), value.brief()),
            Shape::Tuple(shapes) => format!("tuple of {}", shapes.len()),
            Shape::Fields(_) => "fields".to_owned(),
            Shape::Enum(_) => "one of".to_owned(),
        }
    }

    /// What two values of one type look like.
    fn and(self, other: Shape) -> Shape {
        match (self, other) {
            (Shape::Unknown, shape) | (shape, Shape::Unknown) => shape,
            (Shape::Optional(one), Shape::Optional(other)) => Shape::Optional(one.and_boxed(*other)),
            (Shape::List(one), Shape::List(other)) => Shape::List(one.and_boxed(*other)),
            (Shape::Map(key, value), Shape::Map(other_key, other_value)) => {
                Shape::Map(key.and_boxed(*other_key), value.and_boxed(*other_value))
            }
            (Shape::Tuple(one), Shape::Tuple(other)) if one.len() == other.len() => {
                Shape::Tuple(one.into_iter().zip(other).map(|(one, other)| one.and(other)).collect())
            }
            (Shape::Fields(mut one), Shape::Fields(other)) => {
                for (name, shape) in other {
                    let known = one.remove(&name).unwrap_or_default();
                    one.insert(name, known.and(shape));
                }
                Shape::Fields(one)
            }
            (one, other) if one == other => one,
            _ => Shape::Any,
        }
    }

    fn and_boxed(self, other: Shape) -> Box<Shape> {
        Box::new(self.and(other))
    }
}

/// Why a value has no shape: its own `Serialize` says no.
#[derive(Debug)]
pub(super) struct Unseen(String);

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unseen {}

impl serde::ser::Error for Unseen {
    fn custom<T: fmt::Display>(text: T) -> Unseen {
        Unseen(text.to_string())
    }
}

struct Describer<'a> {
    seen: &'a mut Described,
    /// Of an event the kind names the variant, and only its fields are stored.
    is_event: bool,
}

impl<'a> Describer<'a> {
    fn group(self, of: Of) -> Group<'a> {
        Group { seen: self.seen, of, is_event: self.is_event, shapes: Vec::new() }
    }

    fn variant(self, name: &'static str, variant: &'static str, shape: Shape) -> Shape {
        if self.is_event {
            return shape;
        }
        let place = self.seen.enums.entry(name).or_default().entry(variant).or_default();
        *place = std::mem::take(place).and(shape);
        Shape::Enum(name)
    }
}

/// What a group of values is a part of.
enum Of {
    List,
    Map,
    /// A struct whose fields come as a map, because another is flattened into it.
    Flattened,
    Tuple,
    Fields,
    Variant(&'static str, &'static str, Box<Of>),
}

/// Values that belong together.
struct Group<'a> {
    seen: &'a mut Described,
    of: Of,
    is_event: bool,
    /// With their names, where they have any. Of a map, keys and values in turn.
    shapes: Vec<(String, Shape)>,
}

impl Group<'_> {
    fn add<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), Unseen> {
        let shape = value.serialize(Describer { seen: self.seen, is_event: false })?;
        self.shapes.push((name.to_owned(), shape));
        Ok(())
    }

    fn finish(self) -> Shape {
        let shapes = self.shapes;
        match self.of {
            Of::Variant(name, variant, of) => {
                let shape = of.shape(shapes);
                Describer { seen: self.seen, is_event: self.is_event }.variant(name, variant, shape)
            }
            of => of.shape(shapes),
        }
    }
}

impl Of {
    fn shape(self, shapes: Vec<(String, Shape)>) -> Shape {
        let all = |shapes: &mut dyn Iterator<Item = Shape>| shapes.fold(Shape::Unknown, Shape::and);
        match self {
            Of::List => Shape::List(Box::new(all(&mut shapes.into_iter().map(|(_, shape)| shape)))),
            Of::Map => {
                let (mut key, mut value) = (Shape::Unknown, Shape::Unknown);
                for (number, (_, shape)) in shapes.into_iter().enumerate() {
                    let place = if number % 2 == 0 { &mut key } else { &mut value };
                    *place = std::mem::take(place).and(shape);
                }
                Shape::Map(Box::new(key), Box::new(value))
            }
            Of::Tuple => Shape::Tuple(shapes.into_iter().map(|(_, shape)| shape).collect()),
            Of::Flattened | Of::Fields | Of::Variant(..) => Shape::Fields(shapes.into_iter().collect()),
        }
    }
}

macro_rules! plain {
    ($($name:ident $type:ty, $word:literal;)*) => {
        $(fn $name(self, _: $type) -> Result<Shape, Unseen> {
            Ok(Shape::Plain($word))
        })*
    };
}

impl<'a> Serializer for Describer<'a> {
    type Ok = Shape;
    type Error = Unseen;
    type SerializeSeq = Group<'a>;
    type SerializeTuple = Group<'a>;
    type SerializeTupleStruct = Group<'a>;
    type SerializeTupleVariant = Group<'a>;
    type SerializeMap = Group<'a>;
    type SerializeStruct = Group<'a>;
    type SerializeStructVariant = Group<'a>;

    /// As payloads are.
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

    fn serialize_none(self) -> Result<Shape, Unseen> {
        Ok(Shape::Optional(Box::default()))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Shape, Unseen> {
        let inner = value.serialize(Describer { seen: self.seen, is_event: false })?;
        Ok(Shape::Optional(Box::new(inner)))
    }

    fn serialize_unit(self) -> Result<Shape, Unseen> {
        Ok(Shape::Plain("nothing"))
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Shape, Unseen> {
        Ok(if self.is_event { Shape::Fields(BTreeMap::new()) } else { Shape::Plain("empty struct") })
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Shape, Unseen> {
        let shape = if self.is_event { Shape::Fields(BTreeMap::new()) } else { Shape::Plain("nothing") };
        Ok(self.variant(name, variant, shape))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Shape, Unseen> {
        value.serialize(Describer { seen: self.seen, is_event: false })
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Shape, Unseen> {
        let shape = value.serialize(Describer { seen: self.seen, is_event: false })?;
        Ok(self.variant(name, variant, shape))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Group<'a>, Unseen> {
        Ok(self.group(Of::List))
    }

    fn serialize_tuple(self, _: usize) -> Result<Group<'a>, Unseen> {
        Ok(self.group(Of::Tuple))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Group<'a>, Unseen> {
        Ok(self.group(Of::Tuple))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Group<'a>, Unseen> {
        Ok(self.group(Of::Variant(name, variant, Box::new(Of::Tuple))))
    }

    /// serde's derive does not know the length of a struct into which another is flattened; maps know theirs.
    fn serialize_map(self, length: Option<usize>) -> Result<Group<'a>, Unseen> {
        Ok(self.group(if length.is_some() { Of::Map } else { Of::Flattened }))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Group<'a>, Unseen> {
        Ok(self.group(Of::Fields))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Group<'a>, Unseen> {
        Ok(self.group(Of::Variant(name, variant, Box::new(Of::Fields))))
    }
}

macro_rules! unnamed {
    ($($trait:ident $add:ident,)*) => {
        $(impl $trait for Group<'_> {
            type Ok = Shape;
            type Error = Unseen;

            fn $add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unseen> {
                self.add("", value)
            }

            fn end(self) -> Result<Shape, Unseen> {
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
        $(impl $trait for Group<'_> {
            type Ok = Shape;
            type Error = Unseen;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Unseen> {
                self.add(name, value)
            }

            fn end(self) -> Result<Shape, Unseen> {
                Ok(self.finish())
            }
        })*
    };
}

named! { SerializeStruct, SerializeStructVariant, }

impl SerializeMap for Group<'_> {
    type Ok = Shape;
    type Error = Unseen;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unseen> {
        match self.of {
            Of::Flattened => {
                // The name is waiting for its value.
                let name = text_of(key).unwrap_or_default();
                self.shapes.push((name, Shape::Unknown));
                Ok(())
            }
            _ => self.add("", key),
        }
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unseen> {
        match self.of {
            Of::Flattened => {
                let (name, _) = self.shapes.pop().unwrap_or_default();
                self.add(&name, value)
            }
            _ => self.add("", value),
        }
    }

    fn end(self) -> Result<Shape, Unseen> {
        Ok(self.finish())
    }
}

/// The name of a field that comes as the key of a map.
fn text_of<T: Serialize + ?Sized>(key: &T) -> Option<String> {
    crate::event::Value::of(key).and_then(|value| value.to()).ok()
}
