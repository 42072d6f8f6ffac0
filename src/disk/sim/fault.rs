//! Which operations of a simulated disk fail.
//!
//! Row: disk.

use std::collections::BTreeMap;
use std::io;

/// How an operation of a [`SimDisk`](super::SimDisk) goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It returns this error and does nothing. Only a sync of a file does something: it loses
    /// some of the bytes it should have made durable. They can still be read, until
    /// [`drop_cache`](crate::disk::DiskFile::drop_cache) or a power failure, but no later sync
    /// saves them.
    Error(io::ErrorKind),
    /// A write takes at most so many bytes, which may be none; a read gives at most so many, but
    /// one at least, since none would mean the end of the file. For all else this is no fault.
    Short(usize),
}

/// Counts operations, and knows what is to go wrong with those to come.
#[derive(Default)]
pub(super) struct Faults {
    operations: u64,
    /// By the number of the operation.
    single: BTreeMap<u64, Fault>,
    lasting: Option<(u64, Fault)>,
}

impl Faults {
    pub(super) fn operations(&self) -> u64 {
        self.operations
    }

    pub(super) fn add(&mut self, nth: u64, fault: Fault) {
        self.single.insert(self.operations.saturating_add(nth), fault);
    }

    pub(super) fn add_from(&mut self, nth: u64, fault: Fault) {
        self.lasting = Some((self.operations.saturating_add(nth), fault));
    }

    pub(super) fn clear(&mut self) {
        self.single.clear();
        self.lasting = None;
    }

    /// Counts an operation, and says how many bytes it may transfer at most.
    pub(super) fn begin(&mut self) -> io::Result<usize> {
        let number = self.operations;
        self.operations += 1;
        let lasting = self.lasting.filter(|(from, _)| *from <= number).map(|(_, fault)| fault);
        match self.single.remove(&number).or(lasting) {
            Some(Fault::Error(kind)) => Err(kind.into()),
            Some(Fault::Short(most)) => Ok(most),
            None => Ok(usize::MAX),
        }
    }
}
