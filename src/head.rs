//! Where the log stands, in a form that can be printed, kept elsewhere, and compared.
//!
//! Row: words.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::error::Error;
use crate::version::Position;

/// A position, the chain hash there, and the store they belong to.
///
/// The chain hash stands for all history up to the position. It prints as
/// `position:chain@store-id` and parses back.
///
/// ```
/// use annals::{Head, Raw, Store};
///
/// let store = Store::in_memory()?;
/// store.append("account:alice", &Raw("account.opened", &()))?;
/// let head = store.head()?;
/// assert_eq!(head.to_string().parse::<Head>()?, head);
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Head {
    position: Position,
    chain: [u8; 32],
    store_id: [u8; 16],
}

impl Head {
    pub(crate) fn new(point: impl Into<(Position, [u8; 32])>, store_id: [u8; 16]) -> Head {
        let (position, chain) = point.into();
        Head { position, chain, store_id }
    }

    /// The position.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The chain hash of the append that holds it.
    #[must_use]
    pub fn chain(&self) -> [u8; 32] {
        self.chain
    }

    /// The store's identity, a UUID.
    #[must_use]
    pub fn store_id(&self) -> Uuid {
        Uuid::from_bytes(self.store_id)
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}@{}", self.position, blake3::Hash::from_bytes(self.chain), self.store_id())
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Head {
    type Err = Error;

    fn from_str(text: &str) -> Result<Head, Error> {
        let parse = || {
            let (position, rest) = text.split_once(':')?;
            let (chain, store) = rest.split_once('@')?;
            let chain = *blake3::Hash::from_hex(chain).ok()?.as_bytes();
            let store_id = *store.parse::<Uuid>().ok()?.as_bytes();
            Some(Head { position: position.parse().ok()?, chain, store_id })
        };
        parse().ok_or_else(|| {
            Error::invalid(format!("{text:?} is no head; one looks like position:chain@store-id"))
        })
    }
}
