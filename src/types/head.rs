//! Heads and resume tokens: places in a history that can be printed, kept outside the store, and compared.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::types::error::Error;
use crate::types::version::Position;

/// A position, the chain hash there, and the store they belong to.
///
/// The chain hash stands for all history up to the position. A head prints as `position:chain@store-id`, and
/// parses back.
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

    /// The chain hash of the append that holds the position.
    #[must_use]
    pub fn chain(&self) -> [u8; 32] {
        self.chain
    }

    /// The id of the store, a UUID.
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

/// A place to continue reading: a position, and the first bytes of the chain hash there.
///
/// A position alone names a place in any history. After a restore, a rollback, or a power cut that lost
/// buffered appends, other events may have the same positions. A reader that continues after a position would
/// then miss some of them without notice. With a token the store notices the other history, and returns
/// [`ErrorKind::RolledBack`](crate::ErrorKind::RolledBack).
///
/// Each event, receipt, subscription and consumer has a token. A token prints as `position-chain`, parses
/// back, and is a text in serde. Keep it with the result of the events, in one transaction.
///
/// ```
/// use annals::{Query, Raw, ResumeToken, Store};
///
/// let store = Store::in_memory()?;
/// for cents in [500, 700] {
///     store.append("account:alice", &Raw("account.deposited", &cents))?;
/// }
/// let first = store.subscribe(Query::all()).next().unwrap()?;
/// let kept = first.resume_token().to_string();
///
/// let token: ResumeToken = kept.parse()?;
/// let mut rest = store.subscribe(Query::all()).resume(token);
/// assert_eq!(rest.try_next()?.unwrap().decode::<u64>()?, 700);
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResumeToken {
    position: Position,
    /// The first bytes of the chain hash.
    chain: [u8; PREFIX_BYTES],
}

/// Two histories have the same first 8 bytes of a chain hash with a probability of 1 in 2^64.
const PREFIX_BYTES: usize = 8;

impl ResumeToken {
    /// The place before the first event, in any store.
    pub const START: ResumeToken = ResumeToken { position: Position::START, chain: [0; PREFIX_BYTES] };

    /// Makes a token. `chain` is the chain hash of the append that holds the position.
    pub(crate) fn new(position: Position, chain: &[u8; 32]) -> ResumeToken {
        if position == Position::START {
            return ResumeToken::START;
        }
        let [a, b, c, d, e, f, g, h, ..] = *chain;
        ResumeToken { position, chain: [a, b, c, d, e, f, g, h] }
    }

    /// The position. A reader continues with the event after it.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Whether the token is of the history that has this chain hash at the token's position.
    pub(crate) fn meets(&self, chain: &[u8; 32]) -> bool {
        *self == ResumeToken::new(self.position, chain)
    }
}

/// The default is [`ResumeToken::START`].
impl Default for ResumeToken {
    fn default() -> ResumeToken {
        ResumeToken::START
    }
}

impl From<Head> for ResumeToken {
    fn from(head: Head) -> ResumeToken {
        ResumeToken::new(head.position, &head.chain)
    }
}

impl fmt::Display for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.position, u64::from_be_bytes(self.chain))
    }
}

impl fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ResumeToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<ResumeToken, Error> {
        let parse = || {
            let (position, chain) = text.split_once('-')?;
            let is_hex =
                chain.len() == 2 * PREFIX_BYTES && chain.bytes().all(|byte| byte.is_ascii_hexdigit());
            let chain = u64::from_str_radix(chain, 16).ok().filter(|_| is_hex)?.to_be_bytes();
            Some(ResumeToken { position: position.parse().ok()?, chain })
        };
        let is_whole = |token: &ResumeToken| token.position > Position::START || *token == ResumeToken::START;
        parse().filter(is_whole).ok_or_else(|| {
            Error::invalid(format!("{text:?} is no resume token; one looks like 42-9f8e7d6c5b4a3921"))
        })
    }
}

impl Serialize for ResumeToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ResumeToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ResumeToken, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
