//! Verifies an open store in the background, a slice at a time, again and again.
//!
//! It runs on the housekeeper, so a slice is short: others wait for it. What it finds stands in the counters; what it does not look at
//! (versions, heads, index files) is for `verify`.
//! Row: ops. Tested by tests/it/verify.rs.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::format::{Damage, SegmentId};
use crate::log::{Advance, LogEnd, SegmentCursor, SegmentEnd, SegmentFile};
use crate::read::{Segment, Snapshot, View};
use crate::threads::Job;
use crate::types::{Error, ErrorKind, Finding, ScrubStats};

/// A slice is at least so much, and at least a frame: what one read of the file brings, and a few milliseconds' work.
const SLICE_BYTES: u64 = 768 << 10;
/// So many slices a second are enough.
const SLICES: u64 = 20;
/// Behind the end of the log it begins anew after so long.
const REST: Duration = Duration::from_secs(60);
/// So many breaks are kept.
const BREAKS_MAX: usize = 100;

pub(crate) type Shared = Arc<Mutex<ScrubStats>>;

/// A job that reads at most so many bytes a second.
pub(crate) fn job(view: Arc<View>, bytes_per_second: u64, stats: Shared) -> Job {
    let mut scrub = Scrub { view, rate: bytes_per_second.max(1), stats, place: Place::Begin };
    Box::new(move || Some(scrub.slice()))
}

struct Scrub {
    view: Arc<View>,
    rate: u64,
    stats: Shared,
    place: Place,
}

/// How far it is.
enum Place {
    Begin,
    /// In a segment.
    In(SegmentId, LogEnd),
    /// Behind the segments that begin at this position or before it.
    Behind(u64),
}

impl Scrub {
    /// Reads on, and says when to go on.
    fn slice(&mut self) -> Duration {
        let snapshot = self.view.snapshot();
        let Some((segment, is_last)) = self.next(&snapshot) else { return self.rest() };
        let (read, place) = self.read(&segment, is_last);
        let is_end = is_last && matches!(place, Place::Behind(_));
        self.place = place;
        self.stats.lock().bytes += read;
        if is_end { self.rest() } else { Duration::from_micros(read.saturating_mul(1_000_000) / self.rate) }
    }

    /// A pass is over.
    fn rest(&mut self) -> Duration {
        self.place = Place::Begin;
        self.stats.lock().passes += 1;
        REST
    }

    /// The segment to go on with, the last part of its file, and whether it is the last one.
    fn next(&self, snapshot: &Snapshot) -> Option<(Arc<Segment>, bool)> {
        let files = snapshot.segments.chunk_by(|one, other| one.shares_file(other));
        let is_next = |first: u64| match &self.place {
            Place::Begin => true,
            // It may have been written anew meanwhile.
            Place::In(id, _) => first >= id.first_position,
            Place::Behind(position) => first > *position,
        };
        let part = files.filter_map(<[_]>::last).find(|part| is_next(part.id().first_position))?;
        let is_last = snapshot.segments.last().is_some_and(|last| Arc::ptr_eq(last, part));
        Some((part.clone(), is_last))
    }

    /// Reads a segment from where it was left; says how much that was, and how far it is then.
    fn read(&self, part: &Segment, is_last: bool) -> (u64, Place) {
        let through = Place::Behind(part.id().first_position);
        let file = match part.file() {
            Ok(file) => file,
            Err(error) => {
                self.found(&part.path(), 0, 0, &error);
                return (0, through);
            }
        };
        let start = match &self.place {
            Place::In(id, tip) if *id == part.id() => *tip,
            _ => LogEnd::start(file),
        };
        let (limit, mut tip) = (if is_last { part.end() } else { u32::MAX }, start);
        let walked = self.walk(file, limit, &mut tip);
        self.stats.lock().position = tip.position.into();
        let read = u64::from(tip.offset.saturating_sub(start.offset));
        match walked {
            Ok(true) => (read, through),
            Ok(false) => (read, Place::In(part.id(), tip)),
            Err(error) => {
                self.found(&file.path, tip.offset.into(), tip.position, &error);
                (read, through)
            }
        }
    }

    /// Goes on behind `tip` for a slice; says whether that was the end of the segment.
    fn walk(&self, file: &SegmentFile, limit: u32, tip: &mut LogEnd) -> Result<bool, Error> {
        let mut cursor = SegmentCursor::new(file, limit)?.starting_at(*tip);
        let end = u64::from(tip.offset).saturating_add(SLICE_BYTES.max(self.rate / SLICES));
        while u64::from(tip.offset) < end {
            let damage = match cursor.advance()? {
                Advance::Frame { after, .. } | Advance::Attestation { after, .. } => {
                    *tip = after;
                    continue;
                }
                Advance::End(SegmentEnd::Sealed(_)) => return Ok(true),
                Advance::End(SegmentEnd::Zeros) if tip.offset == limit => return Ok(true),
                Advance::End(SegmentEnd::Zeros) => Damage::Bad("acknowledged data is missing"),
                Advance::End(SegmentEnd::Invalid(damage)) => damage,
            };
            return Err(file.damaged(tip.offset.into(), &damage));
        }
        Ok(false)
    }

    /// Takes note of what is wrong, once.
    fn found(&self, file: &str, offset: u64, before: u64, error: &Error) {
        if error.kind() == ErrorKind::Io {
            tracing::warn!(%error, "verifying in the background could not read a segment");
            return;
        }
        let mut stats = self.stats.lock();
        let is_known =
            stats.findings.iter().any(|known| (known.file.as_str(), known.offset) == (file, offset));
        if !is_known && stats.findings.len() < BREAKS_MAX {
            tracing::error!(%error, "verifying in the background found damage");
            let position = before.saturating_add(1).into();
            stats.findings.push(Finding { file: file.to_owned(), offset, position, what: error.to_string() });
        }
    }
}
