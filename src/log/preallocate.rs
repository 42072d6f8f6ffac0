//! Zeros ahead of the log's end. To write over zeros is a third cheaper to sync than to make the file longer.
//!
//! A background thread writes them while the log is synced ([`MoreZeros`]). If the thread is late, the log
//! writes them itself, behind the frame that passes the last zero. Invariants:
//! - frames behind the zeros, zeros and truncation are written under one lock, so zeros never land on a
//!   frame;
//! - after the segment is sealed, poisoned or left, the background thread does not touch its file.
//!
//! SPEC.md "Zeros ahead".

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::disk::{Disk, write_all};
use crate::types::Error;

use super::segment::{Failure, SegmentFile};

/// The length of a new segment's file, in bytes.
pub(super) const NEW_SEGMENT_BYTES: u64 = 64 << 10;
/// Zeros end at a multiple of this. A sync that meets them waits for this many bytes.
const STEP_BYTES: u64 = 256 << 10;
/// The background thread keeps this many bytes ahead, or half of the log's length if that is less.
const AHEAD_BYTES_MAX: u64 = 1 << 20;

/// The length that a new segment's file is given, in bytes; 0 on a disk that does not want zeros.
pub(super) fn new_segment_bytes(disk: &dyn Disk, segment_bytes_max: u32) -> usize {
    let zeros = if disk.wants_zeros() { NEW_SEGMENT_BYTES.min(segment_bytes_max.into()) } else { 0 };
    usize::try_from(zeros).expect("at most 64 KiB")
}

/// The zeros ahead in the segment that the log appends to.
pub(super) struct Zeros {
    region: Arc<ZeroedRegion>,
    /// The zeros reach at least this far. The log writes before this offset without a lock.
    known_end: u64,
}

/// What the log and the background thread share.
struct ZeroedRegion {
    segment: Arc<SegmentFile>,
    /// No zeros are written behind this offset; 0 on a disk that does not want zeros.
    max: u64,
    /// How many bytes of zeros were written.
    bytes: AtomicU64,
    progress: Mutex<ZeroingProgress>,
}

struct ZeroingProgress {
    /// Where the zeros end.
    end: u64,
    /// The background thread has a request, or found no room and is not asked again.
    is_requested: bool,
    /// The log has left the segment.
    is_finished: bool,
}

impl Zeros {
    /// The zeros of a segment whose file ends at `end`.
    pub(super) fn new(
        disk: &dyn Disk,
        segment_bytes_max: u32,
        segment: &Arc<SegmentFile>,
        end: u64,
    ) -> Zeros {
        let max = if disk.wants_zeros() { segment_bytes_max.into() } else { 0 };
        let progress = ZeroingProgress { end, is_requested: false, is_finished: false };
        let region = ZeroedRegion {
            segment: segment.clone(),
            max,
            bytes: AtomicU64::new(0),
            progress: Mutex::new(progress),
        };
        Zeros { region: Arc::new(region), known_end: end }
    }

    /// How many bytes of zeros were written.
    pub(super) fn bytes(&self) -> u64 {
        self.region.bytes.load(Ordering::Relaxed)
    }

    /// Must be called before frames that end at `end` are written. If they pass the last zero, it returns a
    /// lock that keeps the background thread out. The caller holds the lock until the frames are written.
    pub(super) fn lock_to_pass(&mut self, end: u64) -> Option<PassingZeros<'_>> {
        if end <= self.known_end {
            return None;
        }
        let progress = self.region.progress.lock();
        self.known_end = progress.end;
        (end > self.known_end).then_some(PassingZeros { region: &self.region, progress, end })
    }

    /// A request for the background thread, if the log ends at `end` and has too few zeros ahead. There is
    /// one request at a time.
    pub(super) fn request(&mut self, end: u64) -> Option<MoreZeros> {
        let wanted = end.saturating_add(AHEAD_BYTES_MAX.min(end / 2)).min(self.region.max);
        if self.known_end >= wanted {
            return None;
        }
        // The lock is taken only while zeros are being written.
        let mut progress = self.region.progress.try_lock()?;
        self.known_end = progress.end;
        if self.known_end >= wanted || progress.is_requested {
            return None;
        }
        progress.is_requested = true;
        Some(MoreZeros(self.region.clone()))
    }

    /// Runs `truncate`, which makes the file end at `end`, while the background thread is kept out.
    pub(super) fn truncate(&mut self, end: u64, truncate: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut progress = self.region.progress.lock();
        truncate()?;
        progress.end = end;
        self.known_end = end;
        Ok(())
    }

    /// Keeps the background thread out of the file from now on.
    pub(super) fn finish(&self) {
        self.region.progress.lock().is_finished = true;
    }
}

impl Drop for Zeros {
    fn drop(&mut self) {
        self.finish();
    }
}

/// A lock on the zeros while the log writes frames behind the last one.
pub(super) struct PassingZeros<'a> {
    region: &'a ZeroedRegion,
    progress: MutexGuard<'a, ZeroingProgress>,
    /// Where the frames end.
    end: u64,
}

impl PassingZeros<'_> {
    /// Takes note that the frames, `group_bytes` long, were written. If a sync follows, it writes zeros
    /// behind them: that sync then pays once for the growth of the file for many later groups.
    pub(super) fn written(mut self, group_bytes: u64, sync_follows: bool) -> Result<(), Failure> {
        self.progress.end = self.end;
        // A group as large as a step would use up the zeros at once.
        if sync_follows && group_bytes < STEP_BYTES / 2 {
            self.region.extend(&mut self.progress)
        } else {
            Ok(())
        }
    }
}

impl ZeroedRegion {
    /// Writes zeros up to the next step. If the disk is full, the log grows without zeros.
    fn extend(&self, progress: &mut ZeroingProgress) -> Result<(), Failure> {
        let next = (progress.end + 1).next_multiple_of(STEP_BYTES).min(self.max);
        let bytes = next.saturating_sub(progress.end);
        let zeros = vec![0; usize::try_from(bytes).expect("at most 256 KiB")];
        if let Err(error) = write_all(self.segment.file.as_ref(), &zeros, progress.end) {
            return match Failure::of_write(Error::io("cannot write", &self.segment.path, error)) {
                Failure::Refused(_) => Ok(()),
                poison => Err(poison),
            };
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        progress.end += bytes;
        Ok(())
    }
}

/// A request to write zeros, for a background thread.
pub(crate) struct MoreZeros(Arc<ZeroedRegion>);

impl MoreZeros {
    /// Writes the zeros and has the system begin to write them out, so that the next sync waits for less. A
    /// failure here harms nothing: the log does not rely on these zeros, and its own next write meets the
    /// error.
    pub(crate) fn write(self) {
        let mut progress = self.0.progress.lock();
        // Checked under the lock: the log takes the lock before it seals, truncates or leaves the segment.
        if progress.is_finished {
            return;
        }
        let start = progress.end;
        if let Err(failure) = self.0.extend(&mut progress) {
            let error = failure.into_error();
            tracing::warn!(%error, "no zeros could be written ahead");
        }
        progress.is_requested = progress.end == start;
        let bytes = progress.end - start;
        drop(progress);
        self.0.segment.file.write_out(start, bytes);
    }
}
