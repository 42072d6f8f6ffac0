//! Failures: of a write, of a sync, of the names of the store's files, and panics.
//!
//! After a failed write or sync, the writer is poisoned: the first failure stays, and every later append
//! hears it. After a panic, the writer recovers the store once, if the options say so, or ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::engine::open::{Writable, load_to_write};
use crate::engine::queue::{poisoned, writer_panicked};
use crate::log::Failure;
use crate::read::{ChainPosition, CloseReason};
use crate::types::{Error, ErrorKind, RestartPolicy};

use super::replies::{PendingReply, Refusal};
use super::segment_check::check_older_segments;
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
        self.segment_cache = segment_cache;
        self.streams_at_start = streams;
        self.counters.lock().entities = streams;
        self.view.wake();
        Ok(())
    }
}
