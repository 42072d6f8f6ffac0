//! redb as an event store: payloads under (entity, version), and positions that point at them.
//!
//! So a stream is one range scan, and a replay looks each event up (as with fjall). Durable is
//! `Durability::Immediate`. Buffered is `Durability::None`, which promises *less* than the others' buffered.
//! Until the next durable commit the events are only in the memory of this process, and kill -9 takes them.
//! One write transaction at a time, no group commit. Its cache has the 1 GiB it takes by default.
//!
//! strace, per durable commit: pwrite64 of pages and of the header, fdatasync, then the acknowledgement.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::heads::Heads;
use crate::peer::{Can, Failure, Id, Look, Opening, Peer, Tally};
use crate::sample::{KIND, Order, scattered};

/// Entity and version to kind and payload.
const STREAMS: TableDefinition<'_, (&str, u64), (&str, &[u8])> = TableDefinition::new("streams");
/// Position to entity and version.
const POSITIONS: TableDefinition<'_, u64, (&str, u64)> = TableDefinition::new("positions");

struct Redb {
    database: Database,
    durability: Durability,
    heads: Mutex<Heads>,
}

pub fn open(directory: &Path, opening: Opening) -> Can<Box<dyn Peer>> {
    std::fs::create_dir_all(directory)?;
    let path = directory.join("events.redb");
    let is_new = !path.exists();
    let database = Database::create(path)?;
    if is_new {
        let transaction = database.begin_write()?;
        transaction.open_table(STREAMS)?;
        transaction.open_table(POSITIONS)?;
        transaction.commit()?;
    }
    let newest = {
        let positions = database.begin_read()?.open_table(POSITIONS)?;
        positions.last()?.map_or(0, |(position, _)| position.value())
    };
    let durability = if opening == Opening::Synced { Durability::Immediate } else { Durability::None };
    Ok(Some(Box::new(Redb { database, durability, heads: Mutex::new(Heads::at(newest)) })))
}

impl Peer for Redb {
    fn append(&self, entity: &str, order: &Order) -> Result<(), Failure> {
        self.append_batch(&[(entity, order)])
    }

    fn append_batch(&self, events: &[(&str, &Order)]) -> Result<(), Failure> {
        let payloads: Vec<Vec<u8>> = events.iter().map(|(_, order)| order.encoded()).collect();
        let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(self.durability)?;
        {
            let mut streams = transaction.open_table(STREAMS)?;
            let mut positions = transaction.open_table(POSITIONS)?;
            for ((entity, _), payload) in events.iter().zip(&payloads) {
                let (position, version) = heads.next(entity, || newest_version(&streams, entity))?;
                streams.insert((*entity, version), (KIND, payload.as_slice()))?;
                positions.insert(position, (*entity, version))?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn sync(&self) -> Result<(), Failure> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        Ok(transaction.commit()?)
    }

    fn replay(&self, look: Look) -> Can<Tally> {
        let mut tally = Tally::default();
        let transaction = self.database.begin_read()?;
        let (streams, positions) = (transaction.open_table(STREAMS)?, transaction.open_table(POSITIONS)?);
        for entry in positions.range(0..)? {
            let event = streams.get(entry?.1.value())?.ok_or("a position points at nothing")?;
            tally.look(look, event.value().1)?;
        }
        Ok(Some(tally))
    }

    fn stream(&self, entity: &str, look: Look) -> Can<Tally> {
        let mut tally = Tally::default();
        let streams = self.database.begin_read()?.open_table(STREAMS)?;
        for entry in streams.range((entity, 0)..=(entity, u64::MAX))? {
            tally.look(look, entry?.1.value().1)?;
        }
        Ok(Some(tally))
    }

    fn ids(&self, count: u64, events: u64) -> Can<Vec<Id>> {
        Ok(Some((0..count).map(|step| Id::from(1 + scattered(step, events))).collect()))
    }

    fn get(&self, id: Id) -> Can<Tally> {
        let mut tally = Tally::default();
        let transaction = self.database.begin_read()?;
        if let Some(key) = transaction.open_table(POSITIONS)?.get(u64::try_from(id)?)? {
            let streams = transaction.open_table(STREAMS)?;
            let event = streams.get(key.value())?.ok_or("a position points at nothing")?;
            tally.raw(event.value().1);
        }
        Ok(Some(tally))
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        // There is nothing else to call: dropping it records that it was closed.
        Ok(())
    }
}

fn newest_version(
    streams: &impl ReadableTable<(&'static str, u64), (&'static str, &'static [u8])>,
    entity: &str,
) -> Result<u64, Failure> {
    let newest = streams.range((entity, 0)..=(entity, u64::MAX))?.next_back().transpose()?;
    Ok(newest.map_or(0, |(key, _)| key.value().1))
}
