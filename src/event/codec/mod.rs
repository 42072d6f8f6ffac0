//! Payloads: MessagePack with field names. No other code touches the payload serializer.
//!
//! The bytes of a payload go from here to the disk and back unchanged.

mod convert;
mod encode;
mod fingerprint;
mod messagepack;
mod path;
mod payload;
mod value;

use serde::Serialize;

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
