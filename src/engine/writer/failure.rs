//! Failures: of a write, of a sync, of the names of the store's files, damage of sealed segments, and panics.
//!
//! After a failed write or sync, the writer is poisoned: the first failure stays, and every later append
//! hears it. After a panic, the writer recovers the store once, if the options say so, or ends.
//!
//! Damage counts as a failed sync. Opening does not read every sealed segment, so [`check_older_segments`]
//! checks the header and the seal of the others while the store is open. The check runs on the background
//! thread, in slices, oldest segments first. Tested by tests/it/open_checked.rs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::open::{Writable, load_to_write};
use crate::engine::queue::{Queue, poisoned, writer_panicked};
use crate::log::{Failure, HEADERS_CHECKED_MAX};
use crate::read::{ChainPosition, CloseReason, LogView, PartIndexer, SealedSegment, Segment};
use crate::threads::BackgroundThread;
use crate::types::{Error, ErrorKind, RestartPolicy};

use super::replies::{PendingReply, Refusal};
use super::{CommitGroup, Lifecycle, Session, Writer};

/// How often the writer checks the names of all its files.
const CHECK_ALL_NAMES_EVERY: Duration = Duration::from_millis(100);

impl Writer {
    /// Why the writer failed, if it failed.
    pub(super) fn poison(&self) -> Option<&Error> {
        match &self.lifecycle {
            Lifecycle::Working | Lifecycle::DiskFull { .. } => None,
            Lifecycle::Poisoned(reason) | Lifecycle::Panicked(reason) => Some(reason),
        }
    }

    /// Fails if the writer takes no appends now.
    pub(super) fn check_working(&self) -> Result<(), Error> {
        match &self.lifecycle {
            Lifecycle::Working => Ok(()),
            // The first append after the time tries whether the disk has space again.
            Lifecycle::DiskFull { until: Some(until), .. } if self.group.began >= *until => Ok(()),
            Lifecycle::DiskFull { error, .. } => Err(error.clone()),
            Lifecycle::Poisoned(reason) | Lifecycle::Panicked(reason) => Err(poisoned(reason)),
        }
    }

    /// Replies to a group that could not be committed.
    pub(super) fn refuse_group(&mut self, failure: Failure, pending: Vec<PendingReply>) {
        let (refusal, error) = self.fail(failure);
        // To undo a failed write, the log synced the frames before it.
        self.publish_heads();
        for pending in pending {
            pending.refuse(refusal, &error);
        }
        self.wake_followers();
    }

    /// Notes a failure, and forgets the group that it undid.
    pub(super) fn fail(&mut self, failure: Failure) -> (Refusal, Error) {
        self.heads.discard();
        self.log.unstage();
        // If the store was moved or deleted, any call may fail. A check of the names then tells the reason.
        let failure = self.log.check_names(true).err().unwrap_or(failure);
        match failure {
            Failure::Refused(error) => {
                if error.kind() == ErrorKind::NoSpace {
                    let until = Instant::now().checked_add(self.options.space_probe_every);
                    self.lifecycle = Lifecycle::DiskFull { until, error: error.clone() };
                }
                tracing::warn!(%error, "an append was refused");
                (Refusal::Refused, error)
            }
            Failure::Poison(error) => {
                self.log.leave();
                tracing::error!(%error, "the store takes no more appends");
                self.queue.poison(error.clone());
                self.view.close(CloseReason::WriterFailed(error.clone()));
                self.lifecycle = Lifecycle::Poisoned(error.clone());
                (Refusal::Poisoned, error)
            }
        }
    }

    /// Checks that the store's files still have their names. An acknowledgement for files that are gone would
    /// be a lie.
    ///
    /// After each sync two names are checked, for some 2 % of what the sync takes. The others are checked
    /// every [`CHECK_ALL_NAMES_EVERY`].
    pub(super) fn check_names(&mut self) -> Result<(), Failure> {
        let all_are_due =
            self.group.began.saturating_duration_since(self.session.names_checked) >= CHECK_ALL_NAMES_EVERY;
        if self.poison().is_some() || !(all_are_due || self.group.sync_took.is_some()) {
            return Ok(());
        }
        self.log.check_names(all_are_due)?;
        if all_are_due {
            self.session.names_checked = self.group.began;
        }
        Ok(())
    }

    /// Does a piece of the writer's work, and survives a panic in it. A panic is a bug of ours, or of the
    /// disk.
    pub(super) fn guarded(&mut self, work: impl FnOnce(&mut Writer)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_ok() {
            return;
        }
        self.log.leave();
        let may_restart = self.options.restart == RestartPolicy::Once && self.restarts == 0;
        if !may_restart || self.poison().is_some() {
            tracing::error!("the writer panicked; the store takes no more appends");
            self.end_after_panic(writer_panicked());
        } else if let Err(error) = self.restart() {
            tracing::error!(%error, "the writer panicked, and could not recover the store");
            self.end_after_panic(error);
        }
    }

    /// Ends the writer's work after a panic. Its state is unknown, so the log is not touched: callers that
    /// wait get a reply, and later ones are refused.
    fn end_after_panic(&mut self, error: Error) {
        self.queue.poison(error.clone());
        self.view.close(CloseReason::WriterFailed(error.clone()));
        for pending in std::mem::take(&mut self.group.pending) {
            pending.refuse(Refusal::Poisoned, &error);
        }
        self.lifecycle = Lifecycle::Panicked(error);
        self.view.wake();
        self.listeners.end();
    }

    /// Recovers the store after a panic, as opening does, and continues. The queue was not touched: its
    /// commands are served.
    fn restart(&mut self) -> Result<(), Error> {
        tracing::error!("the writer panicked; it recovers the store and goes on");
        for pending in std::mem::take(&mut self.group.pending) {
            pending.refuse(Refusal::Panicked, &writer_panicked());
        }
        self.queue.freed(self.group.taken);
        self.group = CommitGroup::new();
        self.session = Session::new();
        self.lifecycle = Lifecycle::Working;
        self.restarts += 1;
        let loaded =
            catch_unwind(AssertUnwindSafe(|| load_to_write(&self.disk, &self.options, &self.background)));
        let loaded = loaded.unwrap_or_else(|_| Err(writer_panicked()))?;
        let Writable { log, heads, segments, segment_cache, streams, history, .. } = loaded;
        self.segment = segments.last().cloned().expect("the log has a segment");
        self.view.replace(segments, ChainPosition::from(log.written()));
        self.view.set_history(history);
        check_older_segments(&self.view, &self.queue, &self.background);
        self.log = log;
        self.heads = heads;
        self.part_indexer =
            PartIndexer::new(self.view.clone(), segment_cache.clone(), self.background.clone());
        self.segment_cache = segment_cache;
        self.streams_at_start = streams;
        self.counters.lock().entities = streams;
        self.view.wake();
        Ok(())
    }
}

/// How long closing, and other jobs of the background thread, wait for a slice at most.
const CHECK_SLICE: Duration = Duration::from_millis(5);
/// A segment that cannot be read after this many tries counts as damaged.
const CHECK_TRIES: u32 = 10;
/// The pause after a try that failed.
const BETWEEN_CHECKS: Duration = Duration::from_millis(100);

/// Starts the check of the segments that opening skipped, if there are any.
pub(crate) fn check_older_segments(view: &Arc<LogView>, queue: &Arc<Queue>, background: &BackgroundThread) {
    let snapshot = view.snapshot();
    let listed: Vec<&Arc<Segment>> =
        snapshot.segments.iter().take_while(|segment| is_sealed(segment)).collect();
    let Some(newest) = listed.len().checked_sub(HEADERS_CHECKED_MAX).filter(|rest| *rest > 0) else { return };
    let end = listed.get(newest).map_or(u64::MAX, |segment| segment.first_position());
    let mut check = SegmentCheck { view: view.clone(), queue: queue.clone(), next: 0, end, tries: 0 };
    background.run_in(Duration::ZERO, Box::new(move || check.run_slice()));
}

fn is_sealed(segment: &Segment) -> bool {
    segment.as_sealed().is_some_and(SealedSegment::is_whole)
}

struct SegmentCheck {
    view: Arc<LogView>,
    queue: Arc<Queue>,
    /// Segments that begin before this position are checked.
    next: u64,
    /// Segments that begin here or later were checked by opening.
    end: u64,
    /// How often the next segment could not be read.
    tries: u32,
}

impl SegmentCheck {
    /// Checks segments for a while. Returns the delay before the next slice, `None` when the check has ended.
    fn run_slice(&mut self) -> Option<Duration> {
        let began = Instant::now();
        let segments = self.view.snapshot().segments;
        let next = segments.partition_point(|segment| segment.first_position() < self.next);
        for segment in segments.iter().skip(next) {
            if segment.first_position() >= self.end {
                return None;
            }
            let checked = segment.as_sealed().map_or(Ok(()), SealedSegment::check);
            if let Err(error) = checked
                && self.is_current(segment)
            {
                return self.handle_error(segment, error);
            }
            self.next = segment.first_position().saturating_add(1);
            self.tries = 0;
            if began.elapsed() >= CHECK_SLICE {
                return Some(Duration::ZERO);
            }
        }
        None
    }

    /// Whether the segment was not rewritten since. A rewrite removes a file only after readers have the new
    /// one.
    fn is_current(&self, segment: &Segment) -> bool {
        let segments = self.view.snapshot().segments;
        let found = segments.binary_search_by_key(&segment.first_position(), |other| other.first_position());
        found.ok().and_then(|at| segments.get(at)).is_some_and(|other| other.id() == segment.id())
    }

    /// Tries again after an error of reading. Damage poisons the store; the writer finishes earlier appends.
    fn handle_error(&mut self, segment: &Segment, error: Error) -> Option<Duration> {
        self.tries = self.tries.saturating_add(1);
        let reason = match error.kind() {
            ErrorKind::Io if self.tries < CHECK_TRIES => return Some(BETWEEN_CHECKS),
            ErrorKind::Io => Error::corrupt(&segment.path(), 0, format_args!("it cannot be read: {error}")),
            _ => error,
        };
        match self.queue.send_poison(reason) {
            Err(error) if error.kind() == ErrorKind::Busy => Some(BETWEEN_CHECKS),
            _ => None,
        }
    }
}
