//! SQLite as an event table: one connection behind a lock, WAL, statements prepared once.
//!
//! Durable is `synchronous = FULL` (the log is synced in every commit), buffered is `NORMAL` (only at
//! checkpoints; kill -9 loses nothing, a power cut may). It has no group commit: threads commit one after the
//! other. An application could put a queue in front and commit for many; that is not measured. Its page cache
//! has 256 MiB.
//!
//! strace, per durable commit: pwrite64 of WAL frames, fsync of the WAL, then the acknowledgement. The
//! bundled SQLite of rusqlite is compiled to use fsync, and not fdatasync.
//! `LIBSQLITE3_FLAGS=-DHAVE_FDATASYNC=1` in the environment of cargo changes that. Tried on ext4, three times
//! each: W1 p50 131-146 us with fsync, 132-144 us with fdatasync.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, Params, params};

use crate::peer::{Can, Failure, Id, Look, Opening, Peer, Tally};
use crate::sample::{KIND, Order, scattered};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS events (
        position INTEGER PRIMARY KEY,
        entity TEXT NOT NULL,
        version INTEGER NOT NULL,
        kind TEXT NOT NULL,
        payload BLOB NOT NULL,
        UNIQUE (entity, version)
    )";
const INSERT: &str = "
    INSERT INTO events (entity, version, kind, payload)
    VALUES (?1, coalesce((SELECT max(version) FROM events WHERE entity = ?1), 0) + 1, ?2, ?3)";

struct Sqlite {
    connection: Mutex<Connection>,
}

pub fn open(directory: &Path, opening: Opening) -> Can<Box<dyn Peer>> {
    std::fs::create_dir_all(directory)?;
    let connection = Connection::open(directory.join("events.sqlite"))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = if opening == Opening::Synced { "FULL" } else { "NORMAL" };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "cache_size", -(256 << 10))?;
    connection.execute_batch(SCHEMA)?;
    Ok(Some(Box::new(Sqlite { connection: Mutex::new(connection) })))
}

impl Peer for Sqlite {
    fn append(&self, entity: &str, order: &Order) -> Result<(), Failure> {
        let payload = order.encoded();
        self.lock().prepare_cached(INSERT)?.execute(params![entity, KIND, payload])?;
        Ok(())
    }

    fn append_batch(&self, batch: &[(&str, &Order)]) -> Result<(), Failure> {
        let payloads: Vec<Vec<u8>> = batch.iter().map(|(_, order)| order.encoded()).collect();
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(INSERT)?;
            for ((entity, _), payload) in batch.iter().zip(&payloads) {
                insert.execute(params![entity, KIND, payload])?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn sync(&self) -> Result<(), Failure> {
        // A checkpoint syncs the log, and then the table.
        self.lock().query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(()))?;
        Ok(())
    }

    fn replay(&self, look: Look) -> Can<Tally> {
        self.read("SELECT payload FROM events ORDER BY position", [], look)
    }

    fn stream(&self, entity: &str, look: Look) -> Can<Tally> {
        self.read("SELECT payload FROM events WHERE entity = ?1 ORDER BY version", [entity], look)
    }

    fn ids(&self, count: u64, events: u64) -> Can<Vec<Id>> {
        Ok(Some((0..count).map(|step| Id::from(1 + scattered(step, events))).collect()))
    }

    fn get(&self, id: Id) -> Can<Tally> {
        self.read("SELECT payload FROM events WHERE position = ?1", [i64::try_from(id)?], Look::Raw)
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        let connection = self.connection.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(connection.close().map_err(|(_, error)| error)?)
    }
}

impl Sqlite {
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, sql: &str, parameters: impl Params, look: Look) -> Can<Tally> {
        let mut tally = Tally::default();
        let connection = self.lock();
        let mut select = connection.prepare_cached(sql)?;
        let mut rows = select.query(parameters)?;
        while let Some(row) = rows.next()? {
            tally.look(look, row.get_ref(0)?.as_blob()?)?;
        }
        Ok(Some(tally))
    }
}
