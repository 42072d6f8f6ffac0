//! Keeps an index file of the segment that is being written, so that opening after kill -9 walks only the
//! frames behind the index.
//!
//! The writer says what is durable, and the background thread writes the file. The thread reads the frames
//! from the segment's file: the live index has a lock that the writer needs for every group. It takes no more
//! than a tenth of one processor.
//!
//! Invariants: the index covers only durable frames, so MARK proves all of it; no part replaces the index of
//! a segment that is sealed. Closing ends the thread before it writes the last index. Tested by
//! tests/it/part_index.rs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::format::SEGMENT_HEADER_BYTES;
use crate::index::LiveIndex;
use crate::log::{LogEnd, SegmentCursor, SegmentFile};
use crate::threads::{BackgroundThread, Job};
use crate::types::{Error, ErrorKind, to_u32};

use super::segment_cache::{SealedMeta, SealedSegment, SegmentCache};
use super::view::LogView;

/// The index is written again after this many durable bytes. To walk that many takes opening some
/// milliseconds.
const PART_BYTES: u32 = 4 << 20;
/// After a part was written, the thread writes no other one for this many times as long.
const PAUSE_FACTOR: u32 = 9;

/// Decides when the index of the open segment is written again.
pub(crate) struct PartIndexer {
    background: Arc<BackgroundThread>,
    work: Arc<PartWork>,
    /// The part that was asked for last.
    asked: Option<SegmentPart>,
}

/// The frames of a segment up to a place.
#[derive(Clone)]
struct SegmentPart {
    file: Arc<SegmentFile>,
    end: LogEnd,
}

/// What the writer and the background thread share.
struct PartWork {
    view: Arc<LogView>,
    cache: Arc<SegmentCache>,
    requests: Mutex<PartRequests>,
}

#[derive(Default)]
struct PartRequests {
    /// The newest part that was asked for and is not written yet.
    newest: Option<SegmentPart>,
    /// The part whose index was written last.
    written: Option<SegmentPart>,
    is_scheduled: bool,
}

impl PartIndexer {
    /// For the last segment of the view. Its index file may cover a part of it already.
    pub(crate) fn new(
        view: Arc<LogView>,
        cache: Arc<SegmentCache>,
        background: Arc<BackgroundThread>,
    ) -> PartIndexer {
        let written = indexed_part(&view);
        let requests = PartRequests { written: written.clone(), ..PartRequests::default() };
        let work = PartWork { view, cache, requests: Mutex::new(requests) };
        PartIndexer { background, work: Arc::new(work), asked: written }
    }

    /// Has the index written, if enough became durable since the last time. `durable` is the durable end of
    /// `file`.
    pub(crate) fn note_durable(&mut self, file: &Arc<SegmentFile>, durable: &LogEnd) {
        let asked = self.asked.as_ref().filter(|asked| Arc::ptr_eq(&asked.file, file));
        let covered = asked.map_or(to_u32(SEGMENT_HEADER_BYTES), |asked| asked.end.offset);
        if durable.offset.saturating_sub(covered) < PART_BYTES {
            return;
        }
        let part = SegmentPart { file: file.clone(), end: *durable };
        self.asked = Some(part.clone());
        let mut requests = self.work.requests.lock();
        requests.newest = Some(part);
        if !std::mem::replace(&mut requests.is_scheduled, true) {
            drop(requests);
            self.background.run_in(Duration::ZERO, PartWork::job(self.work.clone()));
        }
    }
}

/// The part of the last segment that the view has from an index file.
fn indexed_part(view: &LogView) -> Option<SegmentPart> {
    let snapshot = view.snapshot();
    let parts = snapshot.segments.chunk_by(|one, other| one.shares_file(other)).next_back()?;
    let (file, _) = parts.last()?.as_live()?;
    let meta = parts.first()?.as_sealed().map(SealedSegment::meta)?;
    let end = LogEnd {
        offset: meta.bound.end,
        position: meta.bound.last_position,
        recorded_at: meta.last_recorded_at,
        chain: meta.bound.chain,
        frames: meta.frames,
        events: meta.events,
    };
    Some(SegmentPart { file: file.clone(), end })
}

impl PartWork {
    fn job(work: Arc<PartWork>) -> Job {
        Box::new(move || work.write_newest())
    }

    /// Writes the newest part that was asked for. Returns the pause before the next one.
    fn write_newest(&self) -> Option<Duration> {
        let began = Instant::now();
        let (part, written) = {
            let mut requests = self.requests.lock();
            let Some(part) = requests.newest.take() else {
                requests.is_scheduled = false;
                return None;
            };
            (part, requests.written.take())
        };
        let before = written.filter(|written| Arc::ptr_eq(&written.file, &part.file));
        match self.write(&part, before.as_ref()) {
            Ok(()) => self.requests.lock().written = Some(part),
            Err(error) if error.kind() == ErrorKind::Cancelled => return None,
            Err(error) => tracing::warn!(%error, "the index of the durable part was not written"),
        }
        Some(began.elapsed() * PAUSE_FACTOR)
    }

    fn write(&self, part: &SegmentPart, before: Option<&SegmentPart>) -> Result<(), Error> {
        let origin = self.cache.origin();
        let of_before = |before: &SegmentPart| SealedMeta::up_to(&before.end, &before.file, *origin).bound;
        // An index file that is gone or damaged by now costs a walk from the beginning.
        let first = before.and_then(|before| Some((before.end, self.cache.open_index(&of_before(before))?)));
        let start = first.as_ref().map_or_else(|| LogEnd::start(&part.file), |(end, _)| *end);
        let rest = self.walk(part, start)?;
        let index = match &first {
            Some((_, first)) => LiveIndex::concat(first, &rest)?,
            None => rest,
        };
        let bound = SealedMeta::up_to(&part.end, &part.file, *origin).bound;
        let Some(bytes) = index.encode(&bound) else { return Ok(()) };
        let _alone = self.cache.lock_index_builds();
        // Under the lock: the segment may be sealed by now, and the index of all its frames written.
        let snapshot = self.view.snapshot();
        if snapshot.segments.last().is_some_and(|last| last.is_live_in(&part.file)) {
            self.cache.write_index_bytes(bound.segment, &bytes);
        }
        Ok(())
    }

    /// The index of the frames of a part from `start` on.
    fn walk(&self, part: &SegmentPart, start: LogEnd) -> Result<LiveIndex, Error> {
        let mut index = LiveIndex::new(start.offset);
        // The writer of this process wrote or proved these frames, so no chain is verified.
        let cursor = SegmentCursor::new(&part.file, part.end.offset)?.starting_at(start);
        let mut cursor = cursor.trusting_chain();
        cursor.visit_frames(|offset, frame, _| {
            self.go_on()?;
            index.insert(&part.file, offset, frame)
        })?;
        let end = cursor.end();
        if *end != part.end {
            let what = "the events that were durable are not there";
            return Err(Error::corrupt(&part.file.path, end.offset.into(), what));
        }
        Ok(index)
    }

    /// Breaks off once the store is being closed, which waits for this thread.
    fn go_on(&self) -> Result<(), Error> {
        if self.cache.background().go_on().is_break() { Err(Error::cancelled()) } else { Ok(()) }
    }
}
