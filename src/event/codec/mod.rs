//! Payloads: MessagePack with field names. Nothing else touches the payload serializer.
//!
//! Payload bytes go from here to the disk and back as they are.
//! Row: bytes.

mod blame;
mod encode;
mod fields;
mod pack;
mod payload;
mod print;
mod same;
mod trail;
mod value;

use serde::{Deserialize, Serialize};

use crate::types::{Error, ErrorKind, EventData};

pub(crate) use blame::blame;
pub(crate) use encode::EncodeError;
use encode::Reader;
pub(crate) use fields::{decode_unit, decode_variant};
pub(crate) use print::print_of;
pub(crate) use same::difference;
pub use value::Value;

pub(crate) type DecodeError = rmp_serde::decode::Error;

/// What rmp-serde calls an extension of MessagePack.
const EXTENSION: &str = rmp_serde::MSGPACK_EXT_STRUCT_NAME;

/// How many levels are read. More than are written, as bytes may come from elsewhere; no more than fit on the
/// stack of a thread, unoptimised.
const LEVELS_READ: u16 = 255;

/// An event of any kind whose payload is any serde value.
///
/// annals does not know the type that will read it. So what serde cannot read in every type is refused, with
/// the field named: integers of 128 bits, a name that flatten or a tag gives twice, a `Some` that holds
/// nothing. An event that derives [`DomainEvent`](crate::DomainEvent) is read back instead, and may hold all
/// that comes back.
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
        encode_for_any(self.1, out).map_err(|error| does_not_encode(self.0, error))
    }
}

/// Writes a value that is read back as its own type.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    encode::write(value, Reader::Known, false, out)
}

/// Writes the fields of an event's variant, or of a struct without any; they are read back as its own type.
pub(crate) fn encode_fields<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    encode::write(value, Reader::Known, true, out)
}

/// Writes a value that will be read as a type that is not known here.
pub(crate) fn encode_for_any<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    encode::write(value, Reader::Unknown, false, out)
}

/// Writes a value that is not stored: it is looked at, or goes to a type of the caller at once.
pub(crate) fn encode_unread<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    encode::write(value, Reader::Absent, false, out)
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
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes).with_human_readable();
    reader.set_max_depth(levels);
    T::deserialize(&mut reader)
}

/// What a caller is told whose value serde refuses.
pub(crate) fn does_not_encode(kind: &str, error: EncodeError) -> Error {
    Error::with_source(ErrorKind::Invalid, format!("{kind} does not encode: {error}"), error)
}
