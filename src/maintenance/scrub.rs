//! Verifies the log of an open store in the background, slice by slice, again and again.
//!
//! A slice is short, because other jobs of the background thread wait for it. Findings go to the counters.
//! Versions, heads and index files are left to [`verify`](super::verify). Tested by tests/it/verify.rs.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::format::{Damage, SegmentId};
use crate::log::{Advance, LogEnd, SegmentCursor, SegmentEnd, SegmentFile};
use crate::read::{LogView, Segment, Snapshot};
use crate::threads::Job;
use crate::types::{Error, ErrorKind, Finding, ScrubStats};

/// The least bytes of a slice: one read of the file, a few milliseconds of work. A slice has at least one
/// frame.
const SLICE_BYTES: u64 = 768 << 10;
/// How many slices a second are enough.
const SLICES: u64 = 20;
/// The pause between two passes.
const REST: Duration = Duration::from_secs(60);
/// How many findings are kept.
const FINDINGS_MAX: usize = 100;

pub(crate) type SharedScrubStats = Arc<Mutex<ScrubStats>>;

/// A job that reads at most this many bytes a second.
pub(crate) fn job(view: Arc<LogView>, bytes_per_second: u64, stats: SharedScrubStats) -> Job {
    let mut scrub = Scrub { view, rate: bytes_per_second.max(1), stats, place: ScrubPosition::Start };
    Box::new(move || Some(scrub.slice()))
}

struct Scrub {
    view: Arc<LogView>,
    rate: u64,
    stats: SharedScrubStats,
    place: ScrubPosition,
}

/// How far a pass is.
enum ScrubPosition {
    Start,
    /// Within a segment.
    Within(SegmentId, LogEnd),
    /// Behind the segments that begin at this position or before it.
    Behind(u64),
}

impl Scrub {
    /// Reads one slice, and returns the pause until the next.
    fn slice(&mut self) -> Duration {
        let snapshot = self.view.snapshot();
        let Some((segment, is_last)) = self.next(&snapshot) else { return self.rest() };
        let (read, place) = self.read(&segment, is_last);
        let is_end = is_last && matches!(place, ScrubPosition::Behind(_));
        self.place = place;
        self.stats.lock().bytes += read;
        if is_end { self.rest() } else { Duration::from_micros(read.saturating_mul(1_000_000) / self.rate) }
    }

    /// Ends a pass.
    fn rest(&mut self) -> Duration {
        self.place = ScrubPosition::Start;
        self.stats.lock().passes += 1;
        REST
    }

    /// The next segment (the last part of its file), and whether it is the live one.
    fn next(&self, snapshot: &Snapshot) -> Option<(Arc<Segment>, bool)> {
        let files = snapshot.segments.chunk_by(|one, other| one.shares_file(other));
        let is_next = |first: u64| match &self.place {
            ScrubPosition::Start => true,
            // The segment may have been rewritten under another id since the last slice.
            ScrubPosition::Within(id, _) => first >= id.first_position,
            ScrubPosition::Behind(position) => first > *position,
        };
        let part = files.filter_map(<[_]>::last).find(|part| is_next(part.id().first_position))?;
        let is_last = snapshot.segments.last().is_some_and(|last| Arc::ptr_eq(last, part));
        Some((part.clone(), is_last))
    }

    /// Reads a segment on from where the last slice ended. Returns the bytes read, and the new position.
    fn read(&self, part: &Segment, is_last: bool) -> (u64, ScrubPosition) {
        let through = ScrubPosition::Behind(part.id().first_position);
        let file = match part.file() {
            Ok(file) => file,
            Err(error) => {
                self.note_finding(&part.path(), 0, 0, &error);
                return (0, through);
            }
        };
        let start = match &self.place {
            ScrubPosition::Within(id, tip) if *id == part.id() => *tip,
            _ => LogEnd::start(file),
        };
        let limit = if is_last { part.end() } else { u32::MAX };
        let mut tip = start;
        let walked = self.walk(file, limit, &mut tip);
        self.stats.lock().position = tip.position.into();
        let read = u64::from(tip.offset.saturating_sub(start.offset));
        match walked {
            Ok(true) => (read, through),
            Ok(false) => (read, ScrubPosition::Within(part.id(), tip)),
            Err(error) => {
                self.note_finding(&file.path, tip.offset.into(), tip.position, &error);
                (read, through)
            }
        }
    }

    /// Reads on behind `tip` for one slice; says whether that was the end of the segment.
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

    /// Notes a finding once.
    fn note_finding(&self, file: &str, offset: u64, before: u64, error: &Error) {
        if error.kind() == ErrorKind::Io {
            tracing::warn!(%error, "verifying in the background could not read a segment");
            return;
        }
        let mut stats = self.stats.lock();
        let is_known =
            stats.findings.iter().any(|known| (known.file.as_str(), known.offset) == (file, offset));
        if !is_known && stats.findings.len() < FINDINGS_MAX {
            tracing::error!(%error, "verifying in the background found damage");
            let position = before.saturating_add(1).into();
            stats.findings.push(Finding { file: file.to_owned(), offset, position, what: error.to_string() });
        }
    }
}
