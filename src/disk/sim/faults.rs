//! What goes wrong on a simulated disk: which operations fail, and which bytes of a file a failed sync or a
//! power failure leaves.
//!
//! All randomness is here. It comes from `SplitMix64`, which gives the same numbers on every machine.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::{io, mem};

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

/// How many bytes a medium writes as a whole, nearly always.
const SECTOR: usize = 512;

/// The bytes of one file: as the cache shows them, and as the medium keeps them. Between the two are the
/// changes that no sync has covered yet. Invariants:
///
/// - `durable` with `pending` applied in order is `cached`, except for bytes that a failed sync lost. The
///   lengths are always equal;
/// - `lost` are the places that a failed sync lost. Bytes written there again never reach the medium, after
///   any number of syncs. Only a dropped cache or a truncated file ends that (measured on ext4:
///   docs/decisions.md);
/// - a power failure leaves in a sector the result of some of the writes to it, in order, and never other
///   bytes.
#[derive(Clone, Default)]
pub(super) struct StoredFile {
    cached: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    pending: Vec<PendingChange>,
    lost: Vec<Range<usize>>,
}

/// A change that no sync has covered yet. A write behind the end is two changes: the length may become
/// durable without the bytes.
#[derive(Clone)]
enum PendingChange {
    Length(usize),
    Write { offset: usize, bytes: Arc<[u8]> },
}

impl StoredFile {
    /// A file without pending changes.
    pub(super) fn new(bytes: Vec<u8>) -> StoredFile {
        let cached = Arc::new(bytes);
        StoredFile { durable: cached.clone(), cached, pending: Vec::new(), lost: Vec::new() }
    }

    /// The bytes that reads see.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.cached
    }

    pub(super) fn write(&mut self, offset: usize, bytes: Arc<[u8]>) {
        let end = offset + bytes.len();
        if end > self.cached.len() {
            self.change(PendingChange::Length(end));
        }
        let written = PendingChange::Write { offset, bytes: bytes.clone() };
        if self.lost.is_empty() {
            return self.change(written);
        }
        written.apply(Arc::make_mut(&mut self.cached));
        for part in outside(&self.lost, offset..end) {
            let bytes = bytes[part.start - offset..part.end - offset].into();
            self.pending.push(PendingChange::Write { offset: part.start, bytes });
        }
    }

    pub(super) fn set_length(&mut self, bytes: usize) {
        self.forget_lost(bytes);
        self.change(PendingChange::Length(bytes));
    }

    pub(super) fn sync(&mut self) {
        if !self.pending.is_empty() {
            let durable = Arc::make_mut(&mut self.durable);
            self.pending.drain(..).for_each(|change| change.apply(durable));
        }
    }

    /// A sync fails. Linux marks pages as clean that it failed to write: reads still see them, and no later
    /// sync writes them. The sectors that were written stay pending, because the medium's own cache may hold
    /// them until the next sync. The length stays pending as well: the file system writes it by itself.
    pub(super) fn fail_sync(&mut self, random: &mut SeededRandom) {
        for change in mem::take(&mut self.pending) {
            match change {
                PendingChange::Length(_) => self.pending.push(change),
                PendingChange::Write { offset, bytes } => {
                    self.lost.push(offset..offset + bytes.len());
                    for part in survivors(offset..offset + bytes.len(), random) {
                        let bytes = bytes[part.start - offset..part.end - offset].into();
                        self.pending.push(PendingChange::Write { offset: part.start, bytes });
                    }
                }
            }
        }
    }

    /// Has reads from `offset` on see the medium, and the changes that are still on their way to it.
    pub(super) fn drop_cache(&mut self, offset: usize) {
        self.forget_lost(offset);
        let mut medium = self.durable.clone();
        if !self.pending.is_empty() {
            let medium = Arc::make_mut(&mut medium);
            self.pending.iter().for_each(|change| change.apply(medium));
        }
        if medium.get(offset..) != self.cached.get(offset..) {
            Arc::make_mut(&mut self.cached)[offset..].copy_from_slice(&medium[offset..]);
        }
    }

    /// The power fails before any pending change is on its way to the medium.
    pub(super) fn lose(&mut self) {
        self.pending.clear();
        self.lost.clear();
        self.cached = self.durable.clone();
    }

    /// The power fails while all pending changes are on their way to the medium. Sectors survive in any
    /// order. The length has one of its former values, because file systems log lengths in order, or is
    /// between two of them.
    pub(super) fn tear(&mut self, random: &mut SeededRandom) {
        let lengths = self.pending.iter().filter(|change| matches!(change, PendingChange::Length(_))).count();
        let survive = random.share_of(lengths);
        let mut seen = 0;
        for change in mem::take(&mut self.pending) {
            let durable = Arc::make_mut(&mut self.durable);
            match change {
                PendingChange::Write { offset, bytes } => tear_write(durable, offset, &bytes, random),
                PendingChange::Length(length) => {
                    tear_length(durable, length, seen.cmp(&survive), random);
                    seen += 1;
                }
            }
        }
        self.lost.clear();
        self.cached = self.durable.clone();
    }

    fn forget_lost(&mut self, from: usize) {
        self.lost.iter_mut().for_each(|place| place.end = place.end.min(from));
        self.lost.retain(|place| !place.is_empty());
    }

    fn change(&mut self, change: PendingChange) {
        change.apply(Arc::make_mut(&mut self.cached));
        self.pending.push(change);
    }
}

impl PendingChange {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            PendingChange::Length(length) => to.resize(*length, 0),
            PendingChange::Write { offset, bytes } => {
                to[*offset..*offset + bytes.len()].copy_from_slice(bytes)
            }
        }
    }
}

/// `rank` compares the place of this change of the length with the number of changes that survive.
fn tear_length(durable: &mut Vec<u8>, length: usize, rank: Ordering, random: &mut SeededRandom) {
    match (rank, length.checked_sub(durable.len())) {
        (Ordering::Less, _) => durable.resize(length, 0),
        // File systems lengthen a file as its bytes arrive, but truncate it in one step.
        (Ordering::Equal, Some(growth)) => durable.resize(durable.len() + random.share_of(growth), 0),
        (Ordering::Equal | Ordering::Greater, _) => {}
    }
}

fn tear_write(durable: &mut [u8], offset: usize, bytes: &[u8], random: &mut SeededRandom) {
    for part in survivors(offset..offset + bytes.len(), random) {
        let end = part.end.min(durable.len());
        if let Some(torn) = durable.get_mut(part.start..end) {
            torn.copy_from_slice(&bytes[part.start - offset..end - offset]);
        }
    }
}

/// The parts of a write that reach the medium: each sector or not, and rarely a part of one.
fn survivors(place: Range<usize>, random: &mut SeededRandom) -> impl Iterator<Item = Range<usize>> {
    let odds = random.share_of(CERTAIN);
    let some_torn = odds != 0 && odds != CERTAIN;
    sectors(place).filter_map(move |sector| {
        if some_torn && random.odds(1) {
            let start = sector.start + random.up_to(sector.len());
            return Some(start..start + random.up_to(sector.end - start));
        }
        random.odds(odds).then_some(sector)
    })
}

/// `place`, split at the borders of sectors.
fn sectors(place: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let first = place.start / SECTOR;
    let end = place.end.div_ceil(SECTOR);
    (first..end).map(move |n| (n * SECTOR).max(place.start)..((n + 1) * SECTOR).min(place.end))
}

/// The parts of `place` that lie in none of the `holes`. Holes may overlap.
fn outside(holes: &[Range<usize>], place: Range<usize>) -> Vec<Range<usize>> {
    holes.iter().fold(vec![place], |parts, hole| {
        let around =
            |part: Range<usize>| [part.start..part.end.min(hole.start), part.start.max(hole.end)..part.end];
        parts.into_iter().flat_map(around).filter(|part| !part.is_empty()).collect()
    })
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
