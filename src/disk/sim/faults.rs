//! Which operations of a simulated disk fail, and the random numbers that decide what survives.
//!
//! All randomness comes from `SplitMix64`, which gives the same numbers on every machine.

use std::collections::BTreeMap;
use std::io;

use crate::types::to_u64;

/// How an operation of a [`SimDisk`](super::SimDisk) goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation returns this error and does nothing. Only a failed sync of a file has an effect: it
    /// loses some of the bytes that it should have made durable. They can still be read until
    /// [`drop_cache`](crate::disk::DiskFile::drop_cache) or a power failure, but no later sync saves them.
    Error(io::ErrorKind),
    /// A write takes at most this many bytes, which may be none. A read returns at most this many, and at
    /// least one: none would mean the end of the file. Other operations succeed.
    Short(usize),
}

/// Counts operations, and holds the faults of those to come.
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

    /// Counts an operation, and returns how many bytes it may transfer at most.
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

const SPLIT_MIX_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// The denominator of [`SeededRandom::odds`].
pub(super) const CERTAIN: usize = 16;

/// A sequence of numbers that depends on its seed only.
pub(super) struct SeededRandom(u64);

impl SeededRandom {
    pub(super) fn new(seed: u64) -> SeededRandom {
        SeededRandom(seed)
    }

    /// A seed made of several numbers.
    pub(super) fn seed_of(numbers: &[u64]) -> u64 {
        numbers.iter().fold(0, |seed, number| SeededRandom(seed ^ number).next())
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(SPLIT_MIX_STEP);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for part in bytes.chunks_exact_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes());
        }
        bytes
    }

    /// A number in `0..=most`.
    pub(super) fn up_to(&mut self, most: usize) -> usize {
        let most = to_u64(most);
        usize::try_from(self.next() % most.saturating_add(1)).expect("not more than `most`")
    }

    /// How many of `all` survive. None and all come up often: these are the edge cases of recovery.
    pub(super) fn share_of(&mut self, all: usize) -> usize {
        match self.up_to(3) {
            0 => 0,
            1 => all,
            _ => self.up_to(all),
        }
    }

    /// True with a probability of `of_certain` / [`CERTAIN`].
    pub(super) fn odds(&mut self, of_certain: usize) -> bool {
        self.up_to(CERTAIN - 1) < of_certain
    }
}
