//! The only chance in a simulated disk: `SplitMix64`, the same numbers on every machine.
//!
//! Row: disk.

use crate::types::to_u64;

const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// The parts that [`Random::odds`] are counted in.
pub(super) const CERTAIN: usize = 16;

/// A stream of numbers that is known once its seed is.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A seed for something that takes several numbers to tell from everything else.
    pub(super) fn seed_of(numbers: &[u64]) -> u64 {
        numbers.iter().fold(0, |seed, number| Random(seed ^ number).next())
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
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

    /// How many of `all` survive. None and all come up often, because recovery has its edges there.
    pub(super) fn share_of(&mut self, all: usize) -> usize {
        match self.up_to(3) {
            0 => 0,
            1 => all,
            _ => self.up_to(all),
        }
    }

    /// True this often of [`CERTAIN`] times.
    pub(super) fn odds(&mut self, of_certain: usize) -> bool {
        self.up_to(CERTAIN - 1) < of_certain
    }
}
