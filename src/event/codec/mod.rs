//! Payloads: MessagePack with field names. No other code touches the payload serializer.
//!
//! The bytes of a payload go from here to the disk and back unchanged. [`Raw`] makes them of any serde value,
//! and [`Value`] is a payload without a type. A conversion between a `Value` and the types of a program
//! encodes and decodes. So a `Value` is exactly what would have been stored.

mod encode;
mod fingerprint;
mod messagepack;
mod path;
mod payload;
mod value;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::types::{Error, ErrorKind, EventData};

pub(crate) use encode::{encode, encode_fields, encode_for_any, encode_unread};
pub(crate) use fingerprint::{difference, fingerprint_of};
use messagepack::EncodeError;
pub(crate) use path::unreadable_field;
#[cfg(feature = "jsonl")]
pub(crate) use payload::decode_shallow;
pub(crate) use payload::{DecodeError, decode, decode_unit, decode_variant};
pub(crate) use value::Node;
pub use value::Value;
use value::no_fields;

/// An event of any kind whose payload is any serde value.
///
/// annals does not know the type that will read the payload. So it refuses values that serde cannot read in
/// every type, and names the field in the error:
///
/// - integers of 128 bits,
/// - a name that flatten or a tag gives twice,
/// - a `Some` that holds nothing (`Some(None)`, `Some(())`),
/// - more than 127 nested levels,
/// - keys of flattened maps that are neither texts nor natural numbers.
///
/// It does not see how a type treats its own bytes: a `skip_serializing_if` without a default, or a
/// `try_from` that refuses them. An event that derives [`DomainEvent`](crate::DomainEvent) is read back
/// instead, and may hold every value that comes back. A reader accepts 255 nested levels.
///
/// Use `serde_bytes` types for byte strings. A plain `Vec<u8>` is an array of numbers to serde, which takes
/// half as many bytes more and ten times as long.
///
/// ```
/// use annals::{Raw, Store};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Deposited { cents: u64 }
///
/// let store = Store::in_memory()?;
/// store.append("account:alice", &Raw("account.deposited", &Deposited { cents: 500 }))?;
/// let event = store.stream("account:alice").next().unwrap()?;
/// assert_eq!(event.decode::<Deposited>()?.cents, 500);
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Raw<'a, T: ?Sized>(pub &'a str, pub &'a T);

impl<T: Serialize + ?Sized> EventData for Raw<'_, T> {
    fn kind(&self) -> &str {
        self.0
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        encode_for_any(self.1, out).map_err(|error| does_not_encode(self.0, error))
    }
}

/// The error that serde refuses a caller's value.
pub(crate) fn does_not_encode(kind: &str, error: EncodeError) -> Error {
    Error::with_source(ErrorKind::Invalid, format!("{kind} does not encode: {error}"), error)
}

/// Conversions from and to the types of a program, of the whole payload and field by field.
impl Value {
    /// Encodes a value as it would be stored.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if serde refuses the value.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Value, Error> {
        let mut bytes = Vec::new();
        encode_unread(value, &mut bytes).map_err(|error| {
            let text = format!("{} does not encode: {error}", std::any::type_name::<T>());
            Error::with_source(ErrorKind::Invalid, text, error)
        })?;
        decode(&bytes).map_err(|error| {
            let text = format!("{} does not read back: {error}", std::any::type_name::<T>());
            Error::with_source(ErrorKind::Invalid, text, error)
        })
    }

    /// Decodes the whole payload as a type.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the payload is not of this type.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.decode_as("the value")
    }

    /// An upcaster that changes nothing: `upcast(1 = "annals::Value::unchanged")`. It is for a new version
    /// whose type reads the old shape as it is. That is so if a field with a default was added, or a field
    /// was dropped.
    ///
    /// # Errors
    ///
    /// None. It returns a `Result` because upcasters do.
    pub fn unchanged(self) -> Result<Value, Error> {
        Ok(self)
    }

    /// Whether the payload has a field with this name.
    #[must_use]
    pub fn has(&self, field: &str) -> bool {
        self.field(field).is_some()
    }

    /// Decodes a field as a type. A missing field is `None` if the type is an `Option`, as in serde.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the payload has no such field, or the field is of another type.
    pub fn get<T: DeserializeOwned>(&self, field: &str) -> Result<T, Error> {
        match self.field(field) {
            Some(value) => value.decode_as(&format!("the field {field:?}")),
            None => Value::new(Node::Nil).to().map_err(|_| self.missing(field)),
        }
    }

    /// Decodes a field as a type, and removes it.
    ///
    /// # Errors
    ///
    /// The errors of [`Value::get`]. The field is not removed then.
    pub fn take<T: DeserializeOwned>(&mut self, field: &str) -> Result<T, Error> {
        let value = self.get(field)?;
        self.remove(field);
        Ok(value)
    }

    /// Sets a field, which need not exist before.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if serde refuses the value, or if the payload is no map but a list, a text or a
    /// number. Make such a payload anew with [`Value::of`].
    pub fn set<T: Serialize + ?Sized>(&mut self, field: &str, value: &T) -> Result<(), Error> {
        let value = Value::of(value)?;
        let fields = self.fields_mut(field)?;
        match fields.iter_mut().find(|(name, _)| name.is(field)) {
            Some((_, old)) => *old = value,
            None => fields.push((Value::new(Node::Text(field.to_owned())), value)),
        }
        Ok(())
    }

    /// Removes a field, and returns whether it existed.
    pub fn remove(&mut self, field: &str) -> bool {
        let Node::Map(fields) = self.node_mut() else { return false };
        let before = fields.len();
        fields.retain(|(name, _)| !name.is(field));
        fields.len() < before
    }

    /// Renames a field. A missing field stays missing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if a field has the new name already, or if the payload is no map.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<(), Error> {
        let taken = from != to && self.has(from) && self.has(to);
        let fields = self.fields_mut(from)?;
        if taken {
            return Err(Error::invalid(format!(
                "there is a field {to:?} already, so {from:?} cannot take its name; remove or rename it first"
            )));
        }
        if let Some((name, _)) = fields.iter_mut().find(|(name, _)| name.is(from)) {
            *name = Value::new(Node::Text(to.to_owned()));
        }
        Ok(())
    }

    fn missing(&self, field: &str) -> Error {
        let Node::Map(fields) = self.node() else { return no_fields(self.node(), field) };
        let names: Vec<String> = fields.iter().map(|(name, _)| format!("{name:?}")).collect();
        Error::invalid(format!("there is no field {field:?}; the fields are: {}", names.join(", ")))
    }

    fn decode_as<T: DeserializeOwned>(&self, what: &str) -> Result<T, Error> {
        let mut bytes = Vec::new();
        encode_unread(self, &mut bytes).map_err(|error| {
            Error::with_source(ErrorKind::Invalid, format!("{what} does not encode: {error}"), error)
        })?;
        decode(&bytes).map_err(|error| {
            let text = format!("{what} is no {}: {error}; it is {self:?}", std::any::type_name::<T>());
            Error::with_source(ErrorKind::Invalid, text, error)
        })
    }
}
