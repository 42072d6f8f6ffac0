//! A payload without a type: what upcasters work on.
//!
//! Types come and go through bytes, so that a value is exactly what would have been stored.
//! Row: bytes.

use std::fmt;

use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::types::{Error, ErrorKind, counted};

/// A payload as it was stored: a map of fields, mostly. Upcasters take one and give one back.
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
/// It is a serde value itself: `event.get::<Vec<Value>>("lines")?` takes a list apart, and
/// `event.set("lines", &lines)?` puts it back.
#[derive(Clone, PartialEq)]
pub struct Value(Tree);

#[derive(Clone, Debug, PartialEq)]
enum Tree {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Map(Vec<(Value, Value)>),
    /// MessagePack's own: a type, and its bytes.
    Extension(i8, Vec<u8>),
}

impl Value {
    /// What would be stored of a value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if serde refuses the value.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Value, Error> {
        let mut bytes = Vec::new();
        super::encode_unread(value, &mut bytes).map_err(|error| {
            let text = format!("{} does not encode: {error}", std::any::type_name::<T>());
            Error::with_source(ErrorKind::Invalid, text, error)
        })?;
        super::decode(&bytes).map_err(|error| {
            let text = format!("{} does not read back: {error}", std::any::type_name::<T>());
            Error::with_source(ErrorKind::Invalid, text, error)
        })
    }

    /// The whole payload as a type.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if it does not fit.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.decoded("the value")
    }

    /// An upcaster that changes nothing: for a new version whose type reads the old shape as it is, because a field
    /// was added that has a default, or one was dropped. `upcast(1 = "annals::Value::unchanged")`.
    ///
    /// # Errors
    ///
    /// None; it is as upcasters are.
    pub fn unchanged(self) -> Result<Value, Error> {
        Ok(self)
    }

    /// Whether there is a field with this name.
    #[must_use]
    pub fn has(&self, field: &str) -> bool {
        self.field(field).is_some()
    }

    /// A field as a type. A field that is missing is `None` where the type is an `Option`, as it is to
    /// serde.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if there is no such field, or it is of another type.
    pub fn get<T: DeserializeOwned>(&self, field: &str) -> Result<T, Error> {
        match self.field(field) {
            Some(value) => value.decoded(&format!("the field {field:?}")),
            None => Value(Tree::Nil).to().map_err(|_| self.missing(field)),
        }
    }

    /// As [`Value::get`]; the field is gone then.
    ///
    /// # Errors
    ///
    /// As [`Value::get`]; nothing has changed then.
    pub fn take<T: DeserializeOwned>(&mut self, field: &str) -> Result<T, Error> {
        let value = self.get(field)?;
        self.remove(field);
        Ok(value)
    }

    /// Gives a field a value, whether or not it was there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if serde refuses the value, or the payload has no fields: it is a list, a text, a number.
    /// Make such a payload anew with [`Value::of`].
    pub fn set<T: Serialize + ?Sized>(&mut self, field: &str, value: &T) -> Result<(), Error> {
        let value = Value::of(value)?;
        let fields = self.fields_mut(field)?;
        match fields.iter_mut().find(|(name, _)| name.is(field)) {
            Some((_, old)) => *old = value,
            None => fields.push((Value(Tree::Text(field.to_owned())), value)),
        }
        Ok(())
    }

    /// Takes a field away, and says whether it was there.
    pub fn remove(&mut self, field: &str) -> bool {
        let Tree::Map(fields) = &mut self.0 else { return false };
        let before = fields.len();
        fields.retain(|(name, _)| !name.is(field));
        fields.len() < before
    }

    /// Gives a field another name. One that is missing stays missing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if there is a field of the new name already, or the payload has no fields.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<(), Error> {
        let taken = from != to && self.has(from) && self.has(to);
        let fields = self.fields_mut(from)?;
        if taken {
            return Err(Error::invalid(format!(
                "there is a field {to:?} already, so {from:?} cannot take its name; remove or rename it first"
            )));
        }
        if let Some((name, _)) = fields.iter_mut().find(|(name, _)| name.is(from)) {
            *name = Value(Tree::Text(to.to_owned()));
        }
        Ok(())
    }

    /// What a JSON pointer (`/user/id`, `/lines/0`) leads to.
    #[cfg(feature = "jsonl")]
    pub(crate) fn at(&self, pointer: &str) -> Option<&Value> {
        pointer.split('/').skip(1).try_fold(self, |value, step| match &value.0 {
            Tree::List(values) => values.get(step.parse::<usize>().ok()?),
            _ => value.field(&step.replace("~1", "/").replace("~0", "~")),
        })
    }

    /// How it reads in a name, if it can be a part of one: a text, a whole number, a truth.
    #[cfg(feature = "jsonl")]
    pub(crate) fn label(&self) -> Option<String> {
        match &self.0 {
            Tree::Text(text) => Some(text.clone()),
            Tree::Unsigned(number) => Some(number.to_string()),
            Tree::Signed(number) => Some(number.to_string()),
            Tree::Bool(truth) => Some(truth.to_string()),
            _ => None,
        }
    }

    /// Whether it is nothing.
    #[cfg(feature = "jsonl")]
    pub(crate) fn is_nil(&self) -> bool {
        self.0 == Tree::Nil
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let Tree::Text(text) = &self.0 { Some(text) } else { None }
    }

    /// The entries of a map.
    pub(super) fn entries(&self) -> Option<&[(Value, Value)]> {
        if let Tree::Map(entries) = &self.0 { Some(entries) } else { None }
    }

    fn is(&self, name: &str) -> bool {
        self.text() == Some(name)
    }

    fn field(&self, field: &str) -> Option<&Value> {
        match &self.0 {
            Tree::Map(fields) => fields.iter().find(|(name, _)| name.is(field)).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Nothing at all is a map that has no fields yet.
    fn fields_mut(&mut self, field: &str) -> Result<&mut Vec<(Value, Value)>, Error> {
        if self.0 == Tree::Nil || self.0 == Tree::List(Vec::new()) {
            self.0 = Tree::Map(Vec::new());
        }
        match &mut self.0 {
            Tree::Map(fields) => Ok(fields),
            other => Err(no_fields(other, field)),
        }
    }

    fn missing(&self, field: &str) -> Error {
        let Tree::Map(fields) = &self.0 else { return no_fields(&self.0, field) };
        let names: Vec<String> = fields.iter().map(|(name, _)| format!("{name:?}")).collect();
        Error::invalid(format!("there is no field {field:?}; the fields are: {}", names.join(", ")))
    }

    fn decoded<T: DeserializeOwned>(&self, what: &str) -> Result<T, Error> {
        let mut bytes = Vec::new();
        super::encode_unread(self, &mut bytes).map_err(|error| {
            Error::with_source(ErrorKind::Invalid, format!("{what} does not encode: {error}"), error)
        })?;
        super::decode(&bytes).map_err(|error| {
            let text = format!("{what} is no {}: {error}; it is {self:?}", std::any::type_name::<T>());
            Error::with_source(ErrorKind::Invalid, text, error)
        })
    }
}

fn no_fields(tree: &Tree, field: &str) -> Error {
    Error::invalid(format!(
        "the payload has no fields, so none called {field:?}: it is {tree:?}; read the whole with Value::to, make it anew with Value::of"
    ))
}

/// As JSON would write it, where JSON can.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Tree::Nil => f.write_str("null"),
            Tree::Bool(value) => value.fmt(f),
            Tree::Unsigned(value) => value.fmt(f),
            Tree::Signed(value) => value.fmt(f),
            Tree::Float(value) => value.fmt(f),
            Tree::Text(text) => text.fmt(f),
            Tree::Bytes(bytes) => write!(f, "<{}>", counted(bytes.len(), "byte", "bytes")),
            Tree::List(values) => values.fmt(f),
            Tree::Map(fields) => {
                f.debug_map().entries(fields.iter().map(|(name, value)| (name, value))).finish()
            }
            Tree::Extension(kind, bytes) => {
                write!(f, "<{} of the extension {kind}>", counted(bytes.len(), "byte", "bytes"))
            }
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Tree::Nil => serializer.serialize_unit(),
            Tree::Bool(value) => serializer.serialize_bool(*value),
            Tree::Unsigned(value) => serializer.serialize_u64(*value),
            Tree::Signed(value) => serializer.serialize_i64(*value),
            Tree::Float(value) => serializer.serialize_f64(*value),
            Tree::Text(text) => serializer.serialize_str(text),
            Tree::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Tree::List(values) => {
                let mut list = serializer.serialize_seq(Some(values.len()))?;
                values.iter().try_for_each(|value| list.serialize_element(value))?;
                list.end()
            }
            Tree::Map(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                fields.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
                map.end()
            }
            Tree::Extension(kind, bytes) => {
                serializer.serialize_newtype_struct(super::EXTENSION, &(kind, Bytes(bytes)))
            }
        }
    }
}

struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
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
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Nil)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Nil)
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<Tree, D::Error> {
        value.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(u64::try_from(value).map_or(Tree::Signed(value), Tree::Unsigned))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Tree, E> {
        Ok(Tree::Bytes(bytes.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Tree::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Tree::Map(fields))
    }

    /// Only extensions come so: a pair of the type and the bytes.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, extension: D) -> Result<Tree, D::Error> {
        let (kind, bytes) = <(i8, OwnedBytes)>::deserialize(extension)?;
        Ok(Tree::Extension(kind, bytes.0))
    }
}

struct OwnedBytes(Vec<u8>);

impl<'de> Deserialize<'de> for OwnedBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OwnedBytes, D::Error> {
        match deserializer.deserialize_bytes(ValueVisitor)? {
            Tree::Bytes(bytes) => Ok(OwnedBytes(bytes)),
            other => Err(serde::de::Error::custom(format!("{other:?} are no bytes"))),
        }
    }
}
