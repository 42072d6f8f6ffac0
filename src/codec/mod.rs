//! Payloads: MessagePack with field names. Nothing else touches the payload serializer.
//!
//! Payload bytes go from here to the disk and back as they are.
//! Row: bytes.

mod fields;
mod payload;
mod value;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::event::EventData;

pub(crate) use fields::{decode_unit, decode_variant, encode_fields};
pub use value::Value;

pub(crate) type EncodeError = rmp_serde::encode::Error;
pub(crate) type DecodeError = rmp_serde::decode::Error;

/// An event of any kind whose payload is any serde value.
///
/// Byte strings belong into `serde_bytes` types: a plain `Vec<u8>` is encoded as an array of
/// numbers, half as large again and ten times as slow.
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
        encode(self.1, out).map_err(|error| does_not_encode(self.0, error))
    }
}

pub(crate) fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    rmp_serde::encode::write_named(out, value)
}

pub(crate) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    T::deserialize(payload::Payload(bytes))
}

/// As [`decode`], but what is nested in more levels is refused: a value takes room on the stack for each.
#[cfg(feature = "jsonl")]
pub(crate) fn decode_shallow<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
    levels: usize,
) -> Result<T, DecodeError> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    reader.set_max_depth(levels);
    T::deserialize(&mut reader)
}

/// What a caller is told whose value serde refuses.
pub(crate) fn does_not_encode(kind: &str, error: EncodeError) -> Error {
    Error::with_source(ErrorKind::Invalid, format!("{kind} does not encode: {error}"), error)
}
