//! The bytes of one simulated file: as the cache shows them, as the medium keeps them, and the
//! changes between the two that no sync has covered yet.
//!
//! - `durable` with `pending` applied in order is `cached`, save for bytes that a failed sync lost.
//!   The lengths are always equal.
//! - `lost` are places a failed sync lost; what is written there again never reaches the medium,
//!   however often it is synced, until the cache is dropped or the file was cut there. (Measured on
//!   ext4: SPEC.md 3.1.)
//! - What a power failure leaves in a sector is the outcome of some of the writes to it, in order:
//!   never bytes that were not written there.
//!
//! Row: disk.

use std::cmp::Ordering;
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use super::random::{CERTAIN, Random};

/// What a medium writes as a whole, nearly always.
const SECTOR: usize = 512;

#[derive(Clone, Default)]
pub(super) struct File {
    cached: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    pending: Vec<Change>,
    lost: Vec<Range<usize>>,
}

/// A write beyond the end is two of them: the length may become durable without the bytes.
#[derive(Clone)]
enum Change {
    Length(usize),
    Write { offset: usize, bytes: Arc<[u8]> },
}

impl File {
    /// A file with nothing pending.
    pub(super) fn new(bytes: Vec<u8>) -> File {
        let cached = Arc::new(bytes);
        File { durable: cached.clone(), cached, pending: Vec::new(), lost: Vec::new() }
    }

    /// What reads see.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.cached
    }

    pub(super) fn write(&mut self, offset: usize, bytes: Arc<[u8]>) {
        let end = offset + bytes.len();
        if end > self.cached.len() {
            self.change(Change::Length(end));
        }
        let written = Change::Write { offset, bytes: bytes.clone() };
        if self.lost.is_empty() {
            return self.change(written);
        }
        written.apply(Arc::make_mut(&mut self.cached));
        for part in outside(&self.lost, offset..end) {
            let bytes = bytes[part.start - offset..part.end - offset].into();
            self.pending.push(Change::Write { offset: part.start, bytes });
        }
    }

    pub(super) fn set_length(&mut self, bytes: usize) {
        self.forget_lost(bytes);
        self.change(Change::Length(bytes));
    }

    pub(super) fn sync(&mut self) {
        if !self.pending.is_empty() {
            let durable = Arc::make_mut(&mut self.durable);
            self.pending.drain(..).for_each(|change| change.apply(durable));
        }
    }

    /// Linux takes for clean what it failed to write: reads go on seeing it, and no later sync
    /// writes it. The sectors that did get through stay pending, since the medium's own cache may
    /// hold them until the next sync; so does the length, which is the file system's own.
    pub(super) fn fail_sync(&mut self, random: &mut Random) {
        for change in mem::take(&mut self.pending) {
            match change {
                Change::Length(_) => self.pending.push(change),
                Change::Write { offset, bytes } => {
                    self.lost.push(offset..offset + bytes.len());
                    for part in survivors(offset..offset + bytes.len(), random) {
                        let bytes = bytes[part.start - offset..part.end - offset].into();
                        self.pending.push(Change::Write { offset: part.start, bytes });
                    }
                }
            }
        }
    }

    /// Lets reads from `offset` on see the medium, with what is still on its way there.
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

    /// The power fails before anything pending is under way.
    pub(super) fn lose(&mut self) {
        self.pending.clear();
        self.lost.clear();
        self.cached = self.durable.clone();
    }

    /// The power fails while everything pending is under way. Sectors survive in any order; the
    /// length has one of the values it had, as file systems log these in order, or is growing.
    pub(super) fn tear(&mut self, random: &mut Random) {
        let lengths = self.pending.iter().filter(|change| matches!(change, Change::Length(_))).count();
        let survive = random.share_of(lengths);
        let mut seen = 0;
        for change in mem::take(&mut self.pending) {
            let durable = Arc::make_mut(&mut self.durable);
            match change {
                Change::Write { offset, bytes } => tear_write(durable, offset, &bytes, random),
                Change::Length(length) => {
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

    fn change(&mut self, change: Change) {
        change.apply(Arc::make_mut(&mut self.cached));
        self.pending.push(change);
    }
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Change::Length(length) => to.resize(*length, 0),
            Change::Write { offset, bytes } => to[*offset..*offset + bytes.len()].copy_from_slice(bytes),
        }
    }
}

/// `rank` compares this change of the length with the number of those that survive.
fn tear_length(durable: &mut Vec<u8>, length: usize, rank: Ordering, random: &mut Random) {
    match (rank, length.checked_sub(durable.len())) {
        (Ordering::Less, _) => durable.resize(length, 0),
        // File systems lengthen a file as its bytes arrive, but cut it in one step.
        (Ordering::Equal, Some(growth)) => durable.resize(durable.len() + random.share_of(growth), 0),
        (Ordering::Equal | Ordering::Greater, _) => {}
    }
}

fn tear_write(durable: &mut [u8], offset: usize, bytes: &[u8], random: &mut Random) {
    for part in survivors(offset..offset + bytes.len(), random) {
        let end = part.end.min(durable.len());
        if let Some(torn) = durable.get_mut(part.start..end) {
            torn.copy_from_slice(&bytes[part.start - offset..end - offset]);
        }
    }
}

/// The parts of a write that reach the medium: each sector or not, and rarely some of one.
fn survivors(place: Range<usize>, random: &mut Random) -> impl Iterator<Item = Range<usize>> {
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

/// `place`, cut at the borders of sectors.
fn sectors(place: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let first = place.start / SECTOR;
    let end = place.end.div_ceil(SECTOR);
    (first..end).map(move |n| (n * SECTOR).max(place.start)..((n + 1) * SECTOR).min(place.end))
}

/// What of `place` lies in none of the `holes`, which may overlap.
fn outside(holes: &[Range<usize>], place: Range<usize>) -> Vec<Range<usize>> {
    holes.iter().fold(vec![place], |parts, hole| {
        let around =
            |part: Range<usize>| [part.start..part.end.min(hole.start), part.start.max(hole.end)..part.end];
        parts.into_iter().flat_map(around).filter(|part| !part.is_empty()).collect()
    })
}
