//! okaywal: a bare log, no store. It shows what a log costs that has no index, no streams and no readers.
//!
//! The default: segments of 1 MiB, which are handed back and overwritten when they are full. So the file
//! system never has to find new blocks. What it held is gone then, so nothing is read and nothing is
//! reopened.
//!
//! strace, per entry: write and fdatasync of the segment, then the acknowledgement.

use std::path::Path;

use okaywal::{LogVoid, WriteAheadLog};

use crate::peer::{Can, Failure, Opening, Peer};
use crate::sample::{KIND, Order};

struct Okaywal {
    log: WriteAheadLog,
}

pub fn open(directory: &Path, opening: Opening) -> Can<Box<dyn Peer>> {
    match opening {
        Opening::Synced => Ok(Some(Box::new(Okaywal { log: WriteAheadLog::recover(directory, LogVoid)? }))),
        _ => Ok(None),
    }
}

impl Peer for Okaywal {
    fn append(&self, entity: &str, order: &Order) -> Result<(), Failure> {
        self.append_batch(&[(entity, order)])
    }

    fn append_batch(&self, batch: &[(&str, &Order)]) -> Result<(), Failure> {
        // Encoded before the log is locked.
        let records: Vec<Vec<u8>> = batch.iter().map(|(entity, order)| record(entity, order)).collect();
        let mut entry = self.log.begin_entry()?;
        for record in &records {
            entry.write_chunk(record)?;
        }
        entry.commit()?;
        Ok(())
    }

    fn sync(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        Ok(self.log.shutdown()?)
    }
}

/// Names with their lengths, then the payload.
fn record(entity: &str, order: &Order) -> Vec<u8> {
    let length = |name: &str| u8::try_from(name.len()).expect("a short name");
    [&[length(entity), length(KIND)], entity.as_bytes(), KIND.as_bytes(), &order.encoded()].concat()
}
