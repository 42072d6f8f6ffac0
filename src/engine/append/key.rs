//! Idempotency keys, and the trace of a command beside a key.
//!
//! The private part of a record begins with 16 salt bytes. In an append with a key and a command, ten of them are
//! random, and six follow from these ten, the key and the command. So the trace costs no room, cannot be told from
//! random bytes, and disappears when the record is erased.

use serde::Serialize;

use crate::engine::decide::KeyHash;
use crate::event::codec;
use crate::format::{Record, SALT, array};
use crate::types::{Durability, Error, ErrorKind};

/// How many bytes of the salt are random beside a trace.
const RANDOM_BYTES: usize = 10;

/// What identifies an append that may have been made before.
#[derive(Clone, Copy)]
pub(crate) struct Keyed {
    pub(crate) key: KeyHash,
    pub(crate) command: Option<CommandHash>,
    /// How durable the earlier append must be before the caller hears of it.
    pub(crate) durability: Option<Durability>,
}

impl Keyed {
    pub(crate) fn by(key: &[u8]) -> Result<Keyed, Error> {
        if key.is_empty() {
            return Err(Error::invalid("the idempotency key is empty; leave it out, or give one"));
        }
        let key = array(blake3::hash(key).as_bytes(), 0);
        Ok(Keyed { key, command: None, durability: None })
    }

    /// The same key, for this command only.
    pub(crate) fn and_by<C: Serialize + ?Sized>(self, command: &C) -> Result<Keyed, Error> {
        Ok(Keyed { command: Some(CommandHash::of(command)?), ..self })
    }
}

/// The hash of a command's encoded form.
#[derive(Clone, Copy)]
pub(crate) struct CommandHash([u8; 32]);

impl CommandHash {
    pub(crate) fn of<C: Serialize + ?Sized>(command: &C) -> Result<CommandHash, Error> {
        let mut bytes = Vec::new();
        codec::encode(command, &mut bytes).map_err(|error| {
            Error::with_source(ErrorKind::Invalid, format!("the command does not encode: {error}"), error)
        })?;
        Ok(CommandHash(*blake3::hash(&bytes).as_bytes()))
    }

    /// Puts the trace of this command into a random salt.
    pub(super) fn sign(&self, key: &KeyHash, salt: &mut [u8]) {
        let (random, signature) = salt.split_at_mut(RANDOM_BYTES);
        signature.copy_from_slice(&self.signature(key, random)[..SALT - RANDOM_BYTES]);
    }

    /// Whether an append with this key may carry out this command; `first` is its first record. After erasure, every
    /// command may.
    pub(crate) fn may_be_of(&self, key: &KeyHash, first: &Record<'_>) -> bool {
        let Some(salt) = first.salt() else { return true };
        let (random, signature) = salt.split_at(RANDOM_BYTES);
        self.signature(key, random)[..SALT - RANDOM_BYTES] == *signature
    }

    fn signature(&self, key: &KeyHash, random: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(random).update(key);
        *hasher.finalize().as_bytes()
    }
}
