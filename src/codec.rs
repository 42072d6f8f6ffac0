//! Payloads: MessagePack with field names. The only file that touches the payload serializer.
//!
//! Payload bytes go from here to the disk and back as they are.
//! Row: bytes.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::event::EventData;

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
        encode(self.1, out).map_err(|error| {
            Error::with_source(ErrorKind::Invalid, format!("{} does not encode: {error}", self.0), error)
        })
    }
}

pub(crate) fn encode<T: Serialize + ?Sized>(
    value: &T,
    out: &mut Vec<u8>,
) -> Result<(), rmp_serde::encode::Error> {
    rmp_serde::encode::write_named(out, value)
}

pub(crate) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, rmp_serde::decode::Error> {
    rmp_serde::from_slice(bytes)
}
