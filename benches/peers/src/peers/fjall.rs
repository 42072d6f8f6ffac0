//! fjall as an event store: payloads under (entity, version), and positions that point at them.
//!
//! So a stream is one range scan, and a replay looks each event up. With payloads under positions it would be
//! the other way round. With both there would be twice as many bytes. Durable is a batch with `SyncData`,
//! buffered one without, which fjall hands to the operating system at once. It has no group commit. Its block
//! cache has 256 MiB.
//!
//! strace, per durable batch: write and fdatasync of the journal, then the acknowledgement.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::heads::Heads;
use crate::peer::{Can, Failure, Id, Look, Opening, Peer, Tally};
use crate::sample::{KIND, Order, scattered};

struct Fjall {
    database: Database,
    streams: Keyspace,
    positions: Keyspace,
    /// Held until a batch is in, so that positions come in order and without gaps.
    heads: Mutex<Heads>,
    persist: Option<PersistMode>,
}

pub fn open(directory: &Path, opening: Opening) -> Can<Box<dyn Peer>> {
    let database = Database::builder(directory).cache_size(256 << 20).open()?;
    let streams = database.keyspace("streams", KeyspaceCreateOptions::default)?;
    let positions = database.keyspace("positions", KeyspaceCreateOptions::default)?;
    let newest = match positions.last_key_value() {
        Some(guard) => u64::from_be_bytes(guard.key()?.as_ref().try_into()?),
        None => 0,
    };
    let heads = Mutex::new(Heads::at(newest));
    let persist = (opening == Opening::Synced).then_some(PersistMode::SyncData);
    Ok(Some(Box::new(Fjall { database, streams, positions, heads, persist })))
}

impl Peer for Fjall {
    fn append(&self, entity: &str, order: &Order) -> Result<(), Failure> {
        self.append_batch(&[(entity, order)])
    }

    fn append_batch(&self, events: &[(&str, &Order)]) -> Result<(), Failure> {
        let values: Vec<Vec<u8>> = events.iter().map(|(_, order)| value(order)).collect();
        let mut batch = self.database.batch().durability(self.persist);
        let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        for ((entity, _), value) in events.iter().zip(values) {
            let (position, version) = heads.next(entity, || self.newest_version(entity))?;
            let key = key(entity, version);
            batch.insert(&self.positions, position.to_be_bytes(), key.clone());
            batch.insert(&self.streams, key, value);
        }
        Ok(batch.commit()?)
    }

    fn sync(&self) -> Result<(), Failure> {
        Ok(self.database.persist(PersistMode::SyncData)?)
    }

    fn replay(&self, look: Look) -> Can<Tally> {
        let mut tally = Tally::default();
        for guard in self.positions.iter() {
            self.look_at(&guard.value()?, look, &mut tally)?;
        }
        Ok(Some(tally))
    }

    fn stream(&self, entity: &str, look: Look) -> Can<Tally> {
        let mut tally = Tally::default();
        for guard in self.streams.prefix(prefix(entity)) {
            tally.look(look, payload(&guard.value()?)?)?;
        }
        Ok(Some(tally))
    }

    fn ids(&self, count: u64, events: u64) -> Can<Vec<Id>> {
        Ok(Some((0..count).map(|step| Id::from(1 + scattered(step, events))).collect()))
    }

    fn get(&self, id: Id) -> Can<Tally> {
        let mut tally = Tally::default();
        if let Some(key) = self.positions.get(u64::try_from(id)?.to_be_bytes())? {
            self.look_at(&key, Look::Raw, &mut tally)?;
        }
        Ok(Some(tally))
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        // There is nothing else to call: dropping it persists.
        Ok(())
    }
}

impl Fjall {
    fn look_at(&self, key: &[u8], look: Look, tally: &mut Tally) -> Result<(), Failure> {
        let value = self.streams.get(key)?.ok_or("a position points at nothing")?;
        tally.look(look, payload(&value)?)
    }

    fn newest_version(&self, entity: &str) -> Result<u64, Failure> {
        let Some(newest) = self.streams.prefix(prefix(entity)).next_back() else { return Ok(0) };
        let key = newest.key()?;
        let version = key.last_chunk().ok_or("a key without a version")?;
        Ok(u64::from_be_bytes(*version))
    }
}

/// What the keys of an entity begin with; the zero keeps entities apart whose names begin alike.
fn prefix(entity: &str) -> Vec<u8> {
    [entity.as_bytes(), &[0]].concat()
}

fn key(entity: &str, version: u64) -> Vec<u8> {
    [entity.as_bytes(), &[0], &version.to_be_bytes()].concat()
}

/// The kind with its length, then the payload.
fn value(order: &Order) -> Vec<u8> {
    let kind_length = u8::try_from(KIND.len()).expect("a short name");
    [&[kind_length], KIND.as_bytes(), &order.encoded()].concat()
}

fn payload(value: &[u8]) -> Result<&[u8], Failure> {
    let (kind_length, rest) = value.split_first().ok_or("an empty value")?;
    Ok(rest.get(usize::from(*kind_length)..).ok_or("a value without a payload")?)
}
