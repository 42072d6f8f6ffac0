//! What an append was asked for by, kept so that a key that comes again can be told from one that is used for
//! something else.
//!
//! The private part of a record begins with 16 bytes that may be anything. Where a command is given with a
//! key they are ten random ones, and six that follow from these, the key and the command. So the command
//! costs no room, cannot be told from what is stored, and goes when the record is erased. Row: append.

use serde::Serialize;

use crate::engine::decide::KeyHash;
use crate::event::codec;
use crate::format::{Record, SALT};
use crate::types::{Error, ErrorKind};

/// How many of these bytes are random.
const RANDOM: usize = 10;

/// What a command comes to: the hash of its encoded form.
#[derive(Clone, Copy)]
pub(crate) struct Command([u8; 32]);

impl Command {
    pub(crate) fn of<C: Serialize + ?Sized>(command: &C) -> Result<Command, Error> {
        let mut bytes = Vec::new();
        codec::encode(command, &mut bytes).map_err(|error| {
            Error::with_source(ErrorKind::Invalid, format!("the command does not encode: {error}"), error)
        })?;
        Ok(Command(*blake3::hash(&bytes).as_bytes()))
    }

    /// Makes salt of this command, of salt that is random.
    pub(super) fn sign(&self, key: &KeyHash, salt: &mut [u8]) {
        let (random, signature) = salt.split_at_mut(RANDOM);
        signature.copy_from_slice(&self.signature(key, random)[..SALT - RANDOM]);
    }

    /// Whether the append with this key whose first record this is was asked for by this command. What was
    /// erased cannot be told from it.
    pub(crate) fn may_be_of(&self, key: &KeyHash, first: &Record<'_>) -> bool {
        let Some(salt) = first.salt() else { return true };
        let (random, signature) = salt.split_at(RANDOM);
        self.signature(key, random)[..SALT - RANDOM] == *signature
    }

    fn signature(&self, key: &KeyHash, random: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(random).update(key);
        *hasher.finalize().as_bytes()
    }
}
