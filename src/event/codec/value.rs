//! A payload without a type: upcasters change it, and two states are compared as it.
//!
//! rmpv has a type like it. It would not do as [`Value`] itself, which is public and must not change with another
//! crate. Inside, it would save the two implementations of serde's traits (about 100 lines). It would cost a
//! dependency, and two distinctions that no caller wants: 32-bit floats, and texts that are not UTF-8.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::payload::EXTENSION;
use crate::types::{Error, counted};

/// A payload without a type: in most cases a map of fields. An upcaster takes one and returns one.
///
/// ```
/// use annals::{Error, Value};
/// use serde::{Deserialize, Serialize};
///
/// /// Version 1 had one name, version 2 has two.
/// fn split_name(mut event: Value) -> Result<Value, Error> {
///     let name: String = event.take("name")?;
///     let (first, last) = name.split_once(' ').unwrap_or((&name, ""));
///     event.set("first", first)?;
///     event.set("last", last)?;
///     Ok(event)
/// }
///
/// #[derive(Serialize)]
/// struct Version1 { name: String, age: u8 }
/// #[derive(Deserialize, Debug, PartialEq)]
/// struct Version2 { first: String, last: String, age: u8 }
///
/// let old = Value::of(&Version1 { name: "Ada Lovelace".to_owned(), age: 36 })?;
/// let new: Version2 = split_name(old)?.to()?;
/// assert_eq!(new, Version2 { first: "Ada".to_owned(), last: "Lovelace".to_owned(), age: 36 });
/// # Ok::<(), Error>(())
/// ```
///
/// A `Value` implements serde's traits: `event.get::<Vec<Value>>("lines")?` takes a list apart, and
/// `event.set("lines", &lines)?` puts it back.
#[derive(Clone, PartialEq)]
pub struct Value(Node);

/// One value of a payload: a leaf, a list or a map.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    Nil,
    Bool(bool),
    Unsigned(u64),
    /// A negative number; all others are `Unsigned`.
    Signed(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Map(Vec<(Value, Value)>),
    /// MessagePack's extension: a type and its bytes.
    Extension(i8, Vec<u8>),
}

impl Value {
    pub(super) fn new(node: Node) -> Value {
        Value(node)
    }

    pub(crate) fn node(&self) -> &Node {
        &self.0
    }

    pub(super) fn node_mut(&mut self) -> &mut Node {
        &mut self.0
    }

    /// The value at a JSON pointer (`/user/id`, `/lines/0`).
    #[cfg(feature = "jsonl")]
    pub(crate) fn at(&self, pointer: &str) -> Option<&Value> {
        pointer.split('/').skip(1).try_fold(self, |value, step| match &value.0 {
            Node::List(values) => values.get(step.parse::<usize>().ok()?),
            _ => value.field(&step.replace("~1", "/").replace("~0", "~")),
        })
    }

    /// The value as a part of a name, if it is a text, an integer or a bool.
    #[cfg(feature = "jsonl")]
    pub(crate) fn label(&self) -> Option<String> {
        match &self.0 {
            Node::Text(text) => Some(text.clone()),
            Node::Unsigned(number) => Some(number.to_string()),
            Node::Signed(number) => Some(number.to_string()),
            Node::Bool(truth) => Some(truth.to_string()),
            _ => None,
        }
    }

    /// Whether the value is nil.
    #[cfg(feature = "jsonl")]
    pub(crate) fn is_nil(&self) -> bool {
        self.0 == Node::Nil
    }

    pub(super) fn is(&self, name: &str) -> bool {
        matches!(&self.0, Node::Text(text) if text == name)
    }

    pub(super) fn field(&self, field: &str) -> Option<&Value> {
        match &self.0 {
            Node::Map(fields) => fields.iter().find(|(name, _)| name.is(field)).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The fields of a map. Nil and the empty list count as a map without fields.
    pub(super) fn fields_mut(&mut self, field: &str) -> Result<&mut Vec<(Value, Value)>, Error> {
        if self.0 == Node::Nil || self.0 == Node::List(Vec::new()) {
            self.0 = Node::Map(Vec::new());
        }
        match &mut self.0 {
            Node::Map(fields) => Ok(fields),
            other => Err(no_fields(other, field)),
        }
    }
}

pub(super) fn no_fields(node: &Node, field: &str) -> Error {
    Error::invalid(format!(
        "the payload has no fields, so none called {field:?}: it is {node:?}; read the whole with Value::to, make it anew with Value::of"
    ))
}

/// Prints as JSON, where JSON has such a value.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Node::Nil => f.write_str("null"),
            Node::Bool(value) => value.fmt(f),
            Node::Unsigned(value) => value.fmt(f),
            Node::Signed(value) => value.fmt(f),
            Node::Float(value) => value.fmt(f),
            Node::Text(text) => text.fmt(f),
            Node::Bytes(bytes) => write!(f, "<{}>", counted(bytes.len(), "byte", "bytes")),
            Node::List(values) => values.fmt(f),
            Node::Map(fields) => {
                f.debug_map().entries(fields.iter().map(|(name, value)| (name, value))).finish()
            }
            Node::Extension(kind, bytes) => {
                write!(f, "<{} of the extension {kind}>", counted(bytes.len(), "byte", "bytes"))
            }
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Node::Nil => serializer.serialize_unit(),
            Node::Bool(value) => serializer.serialize_bool(*value),
            Node::Unsigned(value) => serializer.serialize_u64(*value),
            Node::Signed(value) => serializer.serialize_i64(*value),
            Node::Float(value) => serializer.serialize_f64(*value),
            Node::Text(text) => serializer.serialize_str(text),
            Node::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Node::List(values) => {
                let mut list = serializer.serialize_seq(Some(values.len()))?;
                values.iter().try_for_each(|value| list.serialize_element(value))?;
                list.end()
            }
            Node::Map(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                fields.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
                map.end()
            }
            Node::Extension(kind, bytes) => {
                serializer.serialize_newtype_struct(EXTENSION, &(kind, BorrowedBytes(bytes)))
            }
        }
    }
}

struct BorrowedBytes<'a>(&'a [u8]);

impl Serialize for BorrowedBytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(ValueVisitor).map(Value)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Nil)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Nil)
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<Node, D::Error> {
        value.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(u64::try_from(value).map_or(Node::Signed(value), Node::Unsigned))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Node, E> {
        Ok(Node::Bytes(bytes.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Node::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Node::Map(fields))
    }

    /// rmp-serde gives extensions as newtypes: a pair of the type and the bytes.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, extension: D) -> Result<Node, D::Error> {
        let (kind, bytes) = <(i8, OwnedBytes)>::deserialize(extension)?;
        Ok(Node::Extension(kind, bytes.0))
    }
}

struct OwnedBytes(Vec<u8>);

impl<'de> Deserialize<'de> for OwnedBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OwnedBytes, D::Error> {
        match deserializer.deserialize_bytes(ValueVisitor)? {
            Node::Bytes(bytes) => Ok(OwnedBytes(bytes)),
            other => Err(serde::de::Error::custom(format!("{other:?} are no bytes"))),
        }
    }
}
