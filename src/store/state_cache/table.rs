//! What is in the cache file: states by key, in the order of their last use, and whose they are.
//!
//! | table | key | value |
//! |---|---|---|
//! | `states` | see [`StateKey`] | checksum, stamp, version, position, chain, the encoded state |
//! | `order` | stamp | the key that has it |
//! | `about` | `store`, `history`, `bytes`, `stamp` | whose states these are; their size; the last stamp |
//!
//! A value is used only after its checksum was compared, which covers the key as well.

use std::error::Error;

use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError,
    WriteTransaction,
};

use super::memory::{Folded, Reached};
use crate::format::{checksum, u64_at};
use crate::types::{Position, Version, to_u64};

const STATES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("states");
const ORDER: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("order");
const ABOUT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("about");

/// Checksum, zero, stamp, version, position, chain.
const HEADER: usize = 64;

/// Any failure of the file: all are handled alike.
pub(super) type CacheFailure = Box<dyn Error + Send + Sync>;

/// An encoded state to save.
pub(crate) struct Saving {
    pub(crate) key: StateKey,
    pub(crate) folded: Folded<Vec<u8>>,
}

/// The key of a saved state.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StateKey(Vec<u8>);

impl StateKey {
    /// The key of an entity's state.
    pub(crate) fn of_entity(name: &str, revision: u32, entity: &str) -> StateKey {
        StateKey::new(b"entity", name, &[&revision.to_le_bytes(), entity.as_bytes()])
    }

    /// The key of a query's state: the one in use, or the one being rebuilt beside it.
    pub(crate) fn of_query(name: &str, role: &str) -> StateKey {
        StateKey::new(b"global", name, &[role.as_bytes()])
    }

    fn new(what: &[u8; 6], name: &str, rest: &[&[u8]]) -> StateKey {
        let length = to_u64(name.len()).to_le_bytes();
        let mut key = [what.as_slice(), &length, name.as_bytes()].concat();
        rest.iter().for_each(|piece| key.extend_from_slice(piece));
        StateKey(key)
    }
}

/// The owner of the states in a file.
#[derive(Clone, Copy)]
pub(crate) struct CacheOwner {
    pub(crate) store_id: [u8; 16],
    /// The history revision. States of an earlier one are void.
    pub(crate) history: u64,
}

/// Reads a saved state.
pub(super) fn read(database: &Database, key: &StateKey) -> Result<Option<Folded<Vec<u8>>>, CacheFailure> {
    let transaction = database.begin_read()?;
    let states = match transaction.open_table(STATES) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        states => states?,
    };
    let Some(value) = states.get(key.0.as_slice())? else { return Ok(None) };
    parse(key, value.value()).map(Some).ok_or_else(|| "a state does not fit its checksum".into())
}

/// Whether the file holds states of this owner. A new file has no owner.
pub(super) fn belongs_to(database: &Database, owner: &CacheOwner) -> Result<bool, CacheFailure> {
    let transaction = database.begin_read()?;
    let about = match transaction.open_table(ABOUT) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(false),
        about => about?,
    };
    let has = |name, value: &[u8]| -> Result<bool, CacheFailure> {
        Ok(about.get(name)?.is_some_and(|found| found.value() == value))
    };
    Ok(has("store", &owner.store_id)? && has("history", &owner.history.to_le_bytes())?)
}

/// Writes the owner into a new file.
pub(super) fn begin(database: &Database, owner: &CacheOwner) -> Result<(), CacheFailure> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    {
        let mut about = transaction.open_table(ABOUT)?;
        about.insert("store", owner.store_id.as_slice())?;
        about.insert("history", owner.history.to_le_bytes().as_slice())?;
    }
    Ok(transaction.commit()?)
}

/// The changes of one transaction.
#[derive(Default)]
pub(super) struct CacheChanges<'a> {
    pub(super) saving: &'a [Saving],
    pub(super) removed: &'a [StateKey],
    /// States that were read since, and must not be dropped next.
    pub(super) used: &'a [StateKey],
}

/// How many states were dropped to stay within the budget, and the bytes of those that are left.
pub(crate) struct CacheWritten {
    pub(crate) dropped: u64,
    pub(crate) bytes: u64,
}

/// Makes changes. Afterwards the file holds at most `budget` bytes of states, the recently used ones.
pub(super) fn write(
    database: &Database,
    changes: &CacheChanges<'_>,
    budget: u64,
    is_durable: bool,
) -> Result<CacheWritten, CacheFailure> {
    let mut transaction = database.begin_write()?;
    if is_durable {
        // Saves the allocator state with the transaction, so that an unclean stop needs no repair.
        transaction.set_quick_repair(true);
    } else {
        transaction.set_durability(Durability::None)?;
    }
    let written = CacheTransaction::begin(&transaction)?.finish(changes, budget)?;
    transaction.commit()?;
    Ok(written)
}

struct CacheTransaction<'t> {
    states: Table<'t, &'static [u8], &'static [u8]>,
    order: Table<'t, u64, &'static [u8]>,
    about: Table<'t, &'static str, &'static [u8]>,
    bytes: u64,
    stamp: u64,
}

impl<'t> CacheTransaction<'t> {
    fn begin(transaction: &'t WriteTransaction) -> Result<CacheTransaction<'t>, CacheFailure> {
        let about = transaction.open_table(ABOUT)?;
        let number = |name| -> Result<u64, CacheFailure> {
            let found = about.get(name)?;
            Ok(found.map_or(0, |found| <[u8; 8]>::try_from(found.value()).map_or(0, u64::from_le_bytes)))
        };
        let bytes = number("bytes")?;
        let stamp = number("stamp")?;
        let states = transaction.open_table(STATES)?;
        let order = transaction.open_table(ORDER)?;
        Ok(CacheTransaction { states, order, about, bytes, stamp })
    }

    fn finish(mut self, changes: &CacheChanges<'_>, budget: u64) -> Result<CacheWritten, CacheFailure> {
        for key in changes.removed {
            self.remove(&key.0)?;
        }
        for key in changes.used {
            self.stamp_anew(key)?;
        }
        for Saving { key, folded } in changes.saving {
            if size(&key.0, &folded.state) <= budget {
                self.put(key, folded)?;
            }
        }
        let mut dropped = 0;
        while self.bytes > budget {
            let oldest = self.order.pop_first()?.map(|(_, key)| key.value().to_vec());
            let Some(oldest) = oldest else { return Err("the states are more than their order".into()) };
            self.remove(&oldest)?;
            dropped += 1;
        }
        self.about.insert("bytes", self.bytes.to_le_bytes().as_slice())?;
        self.about.insert("stamp", self.stamp.to_le_bytes().as_slice())?;
        Ok(CacheWritten { dropped, bytes: self.bytes })
    }

    fn put(&mut self, key: &StateKey, folded: &Folded<Vec<u8>>) -> Result<(), CacheFailure> {
        self.remove(&key.0)?;
        self.stamp = self.stamp.checked_add(1).ok_or("stamps have run out")?;
        let value = value(key, self.stamp, folded);
        self.states.insert(key.0.as_slice(), value.as_slice())?;
        self.order.insert(self.stamp, key.0.as_slice())?;
        self.bytes = self.bytes.saturating_add(size(&key.0, &folded.state));
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), CacheFailure> {
        let Some(value) = self.states.remove(key)? else { return Ok(()) };
        let state = value.value().get(HEADER..).ok_or("a state is too short")?;
        self.bytes = self.bytes.saturating_sub(size(key, state));
        self.order.remove(u64_at(value.value(), 8))?;
        Ok(())
    }

    fn stamp_anew(&mut self, key: &StateKey) -> Result<(), CacheFailure> {
        let found = self.states.get(key.0.as_slice())?.and_then(|value| parse(key, value.value()));
        found.map_or(Ok(()), |folded| self.put(key, &folded))
    }
}

/// How many bytes a state counts for.
fn size(key: &[u8], state: &[u8]) -> u64 {
    let bytes = [key.len(), key.len(), HEADER, state.len()].into_iter().fold(0, usize::saturating_add);
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn value(key: &StateKey, stamp: u64, folded: &Folded<Vec<u8>>) -> Vec<u8> {
    let Reached { version, position, chain } = &folded.reached;
    let mut value = vec![0; 8];
    for piece in [stamp, version.get(), position.get()] {
        value.extend_from_slice(&piece.to_le_bytes());
    }
    value.extend_from_slice(chain);
    value.extend_from_slice(&folded.state);
    let sum = checksum(&[&key.0, &value[8..]]);
    value[..4].copy_from_slice(&sum.to_le_bytes());
    value
}

fn parse(key: &StateKey, value: &[u8]) -> Option<Folded<Vec<u8>>> {
    let (header, state) = value.split_at_checked(HEADER)?;
    if header[..4] != checksum(&[&key.0, &value[8..]]).to_le_bytes() {
        return None;
    }
    let mut chain = [0; 32];
    chain.copy_from_slice(&header[32..]);
    let version = Version::from(u64_at(header, 16));
    let position = Position::from(u64_at(header, 24));
    Some(Folded { state: state.to_vec(), reached: Reached { version, position, chain } })
}
