//! Zeros ahead of the log's end: to write over them is a third cheaper to sync than to make the file longer.
//!
//! A helper writes them while the log is synced ([`MoreZeros`]); if it is late the log does, behind the frame that
//! passes the last of them. Invariants:
//! - whoever writes behind the zeros, or cuts the file, holds the lock, so zeros never land on a frame;
//! - once the segment is over (sealed, poisoned, left), no helper touches it.
//!
//! Row: log. SPEC.md "Zeros ahead".

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::disk::{Disk, write_all};
use crate::types::Error;

use super::segment::SegmentFile;
use super::{Failure, LogOptions};

/// How long a new segment's file is.
pub(super) const FIRST: u64 = 64 << 10;
/// Zeros are written up to a multiple of this. A sync that meets them waits for as many.
const STEP: u64 = 256 << 10;
/// A helper keeps so many ahead, or half of what is there, if that is less.
const AHEAD_MAX: u64 = 1 << 20;

/// How long a new segment's file is made.
pub(super) fn first_zeros(disk: &dyn Disk, options: &LogOptions) -> usize {
    let zeros = if disk.wants_zeros() { FIRST.min(options.segment_bytes_max.into()) } else { 0 };
    usize::try_from(zeros).expect("at most 64 KiB")
}

/// The zeros ahead in the segment that is written to.
pub(super) struct Zeros {
    ahead: Arc<Ahead>,
    /// They reach at least so far.
    known: u64,
}

struct Ahead {
    segment: Arc<SegmentFile>,
    /// Further they do not go; 0 on a disk that has no use for them.
    max: u64,
    /// How many bytes of them were written.
    bytes: AtomicU64,
    held: Mutex<Held>,
}

struct Held {
    /// Where they end.
    end: u64,
    /// A helper is at it, or could not do it, and is not asked again.
    is_asked: bool,
    is_over: bool,
}

impl Zeros {
    /// Those of a segment whose file ends at `end`.
    pub(super) fn new(disk: &dyn Disk, options: &LogOptions, segment: &Arc<SegmentFile>, end: u64) -> Zeros {
        let max = if disk.wants_zeros() { options.segment_bytes_max.into() } else { 0 };
        let held = Mutex::new(Held { end, is_asked: false, is_over: false });
        let ahead = Ahead { segment: segment.clone(), max, bytes: AtomicU64::new(0), held };
        Zeros { ahead: Arc::new(ahead), known: end }
    }

    /// How many bytes of zeros were written.
    pub(super) fn bytes(&self) -> u64 {
        self.ahead.bytes.load(Ordering::Relaxed)
    }

    /// Keeps helpers away while frames are written that end at `end`, if they pass the last zero.
    pub(super) fn pass(&mut self, end: u64) -> Option<Passing<'_>> {
        if end <= self.known {
            return None;
        }
        let held = self.ahead.held.lock();
        self.known = held.end;
        (end > self.known).then_some(Passing { ahead: &self.ahead, held, end })
    }

    /// What a helper is to write if the log ends at `end`; nothing while enough is there, or a helper is at it.
    pub(super) fn more(&mut self, end: u64) -> Option<MoreZeros> {
        let wanted = end.saturating_add(AHEAD_MAX.min(end / 2)).min(self.ahead.max);
        if self.known >= wanted {
            return None;
        }
        // Whoever holds them is at it.
        let mut held = self.ahead.held.try_lock()?;
        self.known = held.end;
        if self.known >= wanted || held.is_asked {
            return None;
        }
        held.is_asked = true;
        Some(MoreZeros(self.ahead.clone()))
    }

    /// Has the file cut at `end`.
    pub(super) fn cut(&mut self, end: u64, cut: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut held = self.ahead.held.lock();
        cut()?;
        (held.end, self.known) = (end, end);
        Ok(())
    }

    /// Keeps helpers away for good.
    pub(super) fn end(&self) {
        self.ahead.held.lock().is_over = true;
    }
}

impl Drop for Zeros {
    fn drop(&mut self) {
        self.end();
    }
}

/// Frames are being written behind the last zero.
pub(super) struct Passing<'a> {
    ahead: &'a Ahead,
    held: MutexGuard<'a, Held>,
    /// Where they end.
    end: u64,
}

impl Passing<'_> {
    /// They were; a group of so many bytes. If a sync follows it pays for the growth of the file once for many groups.
    pub(super) fn passed(mut self, group: u64, sync_follows: bool) -> Result<(), Failure> {
        self.held.end = self.end;
        // A group as large as the zeros would use them up at once.
        if sync_follows && group < STEP / 2 { self.ahead.extend(&mut self.held) } else { Ok(()) }
    }
}

impl Ahead {
    /// Without room for them, the log simply grows without.
    fn extend(&self, held: &mut Held) -> Result<(), Failure> {
        let next = (held.end + 1).next_multiple_of(STEP).min(self.max);
        let bytes = next.saturating_sub(held.end);
        let zeros = vec![0; usize::try_from(bytes).expect("at most 256 KiB")];
        if let Err(error) = write_all(self.segment.file.as_ref(), &zeros, held.end) {
            return match Failure::of_write(Error::io("cannot write", &self.segment.path, error)) {
                Failure::Refused(_) => Ok(()),
                poison => Err(poison),
            };
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        held.end += bytes;
        Ok(())
    }
}

/// Zeros that a helper is to write.
pub(crate) struct MoreZeros(Arc<Ahead>);

impl MoreZeros {
    /// Writes them, and has the system begin to write them out, so that the next sync has less to wait for.
    /// What fails here harms nothing: nobody relies on these zeros, and the log itself comes by.
    pub(crate) fn write(self) {
        let mut held = self.0.held.lock();
        if held.is_over {
            return;
        }
        let start = held.end;
        if let Err(failure) = self.0.extend(&mut held) {
            let error = failure.into_error();
            tracing::warn!(%error, "no zeros could be written ahead");
        }
        held.is_asked = held.end == start;
        let bytes = held.end - start;
        drop(held);
        self.0.segment.file.write_out(start, bytes);
    }
}
