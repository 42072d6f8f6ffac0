//! The writer behind its lock: the writer thread uses it, or a caller that commits its append directly.
//!
//! Three policies save waiting: a direct commit ([`SharedWriter::try_commit_direct`]), a delay after a synced
//! group ([`GroupDelay`]), and a spin after a buffered one ([`LINGER`]). Each says what it gains. The figures
//! are medians of `benches/append.rs` with and without the policy, on 2 cores, 2026-11-30.
//!
//! Invariants: the appends of one thread keep their order. The writer thread does the work that is due later,
//! and a direct commit wakes it for that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flume::{Receiver, RecvTimeoutError};
use parking_lot::Mutex;

use crate::engine::queue::{Caller, Command, poisoned};
use crate::log::Failure;
use crate::read::{CloseReason, LogView, build_last_index, build_pending_indexes};
use crate::types::{Durability, Error};

use super::{Lifecycle, Session, Writer};

/// After this many groups of one append each, all by one thread, that thread is the exclusive caller.
const EXCLUSIVE_AFTER_GROUPS: u32 = 8;

/// How long the thread spins after a buffered group of at least [`LINGER_AFTER_COMMANDS`]. Its callers keep
/// many appends in flight, and the next ones are on their way. To write them one by one costs more than to
/// spin. So does to sleep: a caller pays for the wake-up. After a synced group, [`GroupDelay`] decides.
///
/// Gain: buffered appends through tickets make 1.12 times as many events a second.
const LINGER: Duration = Duration::from_micros(50);
const LINGER_AFTER_COMMANDS: usize = 16;

/// A group of more callers than this is not delayed.
const CALLERS_MAX: usize = 16;
/// The longest delay. A delay is also at most three quarters of what the sync took.
const DELAY_MAX: Duration = Duration::from_micros(150);
/// After a delay in vain, the writer skips at most this many groups.
const SKIP_MAX: u32 = 1024;

/// MARK is made durable after this long without an append.
const SYNC_MARK_AFTER: Duration = Duration::from_millis(100);

/// The writer behind its lock.
pub(crate) struct SharedWriter {
    /// `None` after the writer has ended.
    writer: Mutex<Option<Writer>>,
    /// The durability of an append that asks for none.
    durability: Durability,
    view: Arc<LogView>,
    /// The number of the exclusive caller, or 0.
    exclusive_caller: AtomicU64,
    /// The number of the caller that is committing directly, or 0.
    direct_caller: AtomicU64,
}

impl SharedWriter {
    pub(crate) fn new(writer: Writer) -> SharedWriter {
        SharedWriter {
            durability: writer.options.durability,
            view: writer.view.clone(),
            writer: Mutex::new(Some(writer)),
            exclusive_caller: AtomicU64::new(0),
            direct_caller: AtomicU64::new(0),
        }
    }

    /// The writer thread's loop: serves commands until the queue is closed and empty. Returns the result of
    /// closing.
    pub(crate) fn run(&self, commands: &Receiver<Command>) -> Result<(), Error> {
        let mut group_delay = GroupDelay::default();
        loop {
            let next = self.with_writer(Writer::serve_queued);
            // The lock is free from here to the next command, so callers can commit directly.
            let received = match next {
                NextWait::None => continue,
                NextWait::Linger => {
                    linger();
                    continue;
                }
                NextWait::GroupDelay(answered) => {
                    group_delay.wait(answered, || commands.len());
                    continue;
                }
                NextWait::Sleep(None) => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
                NextWait::Sleep(Some(due)) => commands.recv_deadline(due),
            };
            match received {
                Ok(wake_up @ Command::WakeUp) => {
                    self.with_writer(|writer| writer.queue.freed(wake_up.weight()));
                }
                Ok(command) => self.with_writer(|writer| writer.guarded(|writer| writer.serve(command))),
                Err(RecvTimeoutError::Timeout) => {
                    self.with_writer(|writer| writer.guarded(Writer::do_due_work));
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let writer = self.writer.lock().take();
        writer.expect("only this thread takes it").end()
    }

    /// Does a piece of the writer's work under the lock, and sends the replies after the lock is released.
    fn with_writer<T>(&self, work: impl FnOnce(&mut Writer) -> T) -> T {
        let mut guard = self.writer.lock();
        let writer = guard.as_mut().expect("only this thread takes it");
        let done = work(writer);
        self.exclusive_caller.store(writer.session.exclusive_caller(), Ordering::Relaxed);
        let outbox = std::mem::take(&mut writer.session.outbox);
        // A reply wakes a caller that may commit directly: it must find the lock free.
        drop(guard);
        outbox.send(&self.view);
        done
    }

    /// Commits an append on the current thread, if that is allowed and pays. If not, returns the command,
    /// which must then go through the queue.
    ///
    /// A command that goes through the queue wakes two sleeping threads, for 5 to 40 us each. That is most of
    /// the cost of a buffered append. So a caller that waits anyway may do the writer's work itself. The lock
    /// must be free, and the queue must hold nothing that the caller would overtake. A direct commit pays
    /// only where no other append could share the group:
    /// - for a buffered append always, because it takes microseconds;
    /// - for a synced append after its thread was the only one to append for a while
    ///   ([`EXCLUSIVE_AFTER_GROUPS`]).
    ///
    /// Gain: one caller makes 14 times as many buffered events a second (`buffered/1`). One caller makes 1.30
    /// times as many synced events a second (`durable/1`).
    pub(crate) fn try_commit_direct(&self, command: Command) -> Option<Command> {
        let Command::Append(request, Some(caller), _) = &command else { return Some(command) };
        let caller = caller.number();
        let is_buffered = request.durability.unwrap_or(self.durability) != Durability::Synced;
        if !is_buffered && self.exclusive_caller.load(Ordering::Relaxed) != caller {
            return Some(command);
        }
        let Some(mut guard) = self.writer.try_lock() else { return Some(command) };
        // Checked under the lock: before it, a failure or a queued command could slip in between.
        let Some(writer) = guard.as_mut().filter(|writer| writer.allows_direct_commit()) else {
            return Some(command);
        };
        self.direct_caller.store(caller, Ordering::Relaxed);
        let mut left = Some(command);
        writer.guarded(|writer| writer.serve_direct(&mut left));
        self.direct_caller.store(0, Ordering::Relaxed);
        self.exclusive_caller.store(writer.session.exclusive_caller(), Ordering::Relaxed);
        writer.wake_thread_for_due_work();
        let outbox = std::mem::take(&mut writer.session.outbox);
        drop(guard);
        outbox.send(&self.view);
        left
    }

    /// Whether the current thread is committing directly. Then it runs a waker inside its own append.
    pub(crate) fn is_committing_here(&self) -> bool {
        self.direct_caller.load(Ordering::Relaxed) == Caller::current().number()
    }
}

/// How the writer thread waits for the next commands.
enum NextWait {
    /// Not at all: it served a group, and looks at the queue again.
    None,
    /// It spins: more buffered appends are on their way.
    Linger,
    /// It gives the callers of a synced group time to append again.
    GroupDelay(AnsweredGroup),
    /// It sleeps until a command comes, or until something is due.
    Sleep(Option<Instant>),
}

fn linger() {
    let began = Instant::now();
    while began.elapsed() < LINGER {
        std::hint::spin_loop();
    }
}

/// A synced group whose callers have their replies.
#[derive(Clone, Copy)]
pub(super) struct AnsweredGroup {
    /// The callers of the group, and those that were queued by the end of it.
    pub(super) callers: usize,
    /// How long the sync took.
    pub(super) sync: Duration,
}

/// The group-commit delay: after a synced group, the writer waits briefly for the same callers to append
/// again. Whether the last delays paid decides whether the next group gets one.
///
/// A few callers that append, wait and append again fall into two halves. The writer syncs one half while the
/// other hears its replies, so each half pays for a sync of its own. A moment after the replies, all callers
/// are there, and one sync covers them. Many callers need no delay: to reply to them takes longer than a
/// sync. Callers that do other work between their appends do not come back at once, and the writer waits for
/// them less and less often.
///
/// Gain: two callers make 1.26 times as many synced events a second (`durable/2`). Eight callers make 1.09
/// times as many (`durable/8`). With other numbers of callers the gain is within noise.
#[derive(Default)]
struct GroupDelay {
    /// How many groups go without a delay from now on.
    skip: u32,
    /// How many groups went without after the last delay in vain.
    skipped: u32,
}

impl GroupDelay {
    /// Waits until all callers of the group are queued again, if that may pay.
    fn wait(&mut self, answered: AnsweredGroup, queued: impl Fn() -> usize) {
        let Some(delay) = self.delay(answered) else { return };
        let began = Instant::now();
        while queued() < answered.callers && began.elapsed() < delay {
            // The callers need the processor more than this thread does.
            std::thread::yield_now();
        }
        // After a yield this thread may be away for long: a caller computes. Then the delay was in vain, even
        // if all callers are queued by now.
        self.note(began.elapsed() < delay);
    }

    /// How long to wait for the group's callers, if at all.
    fn delay(&mut self, answered: AnsweredGroup) -> Option<Duration> {
        if !(2..=CALLERS_MAX).contains(&answered.callers) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        Some(DELAY_MAX.min(answered.sync * 3 / 4))
    }

    /// Notes whether a delay paid: each one in vain doubles how many groups are skipped.
    fn note(&mut self, has_paid: bool) {
        if has_paid {
            self.skipped /= 2;
            self.skip = 0;
        } else {
            self.skipped = (2 * self.skipped).clamp(1, SKIP_MAX);
            self.skip = self.skipped;
        }
    }
}

impl Writer {
    /// Serves a group of queued commands, if there are any. Returns how to wait for more.
    fn serve_queued(&mut self) -> NextWait {
        if self.group.commands >= LINGER_AFTER_COMMANDS && self.log.has_unsynced() {
            self.group.commands = 0;
            return NextWait::Linger;
        }
        if let Some(answered) = self.session.answered.take() {
            return NextWait::GroupDelay(answered);
        }
        if let Ok(first) = self.commands.try_recv() {
            self.guarded(|writer| writer.serve(first));
            return NextWait::None;
        }
        let due = self.due();
        self.session.has_timer = due.is_some();
        NextWait::Sleep(due)
    }

    /// Whether a direct commit overtakes nothing. A forked process has a copy of the lock, and of the files.
    fn allows_direct_commit(&self) -> bool {
        !matches!(self.lifecycle, Lifecycle::Panicked(_))
            && !self.queue.has_command_in_transit(&self.commands)
            && self.queue.check_process().is_ok()
    }

    /// Commits everything queued, and then the caller's own command. The command stays if the group is full.
    fn serve_direct(&mut self, own: &mut Option<Command>) {
        self.begin_group();
        let first = self.commands.try_recv().ok();
        self.commit_group(first, own);
        self.end_group();
    }

    /// Wakes the thread to compute its next due time, if it sleeps without one and now there is one.
    fn wake_thread_for_due_work(&mut self) {
        if !self.session.has_timer && self.due().is_some() {
            self.session.has_timer = true;
            self.queue.send_wake_up();
        }
    }

    /// When the writer has work even if no command comes: a sync of buffered appends, or of MARK.
    fn due(&self) -> Option<Instant> {
        if self.poison().is_some() {
            return None;
        }
        let mark_due = || (!self.log.mark_is_synced()).then(|| self.group.began + SYNC_MARK_AFTER);
        self.session.flush_by.or_else(mark_due)
    }

    fn do_due_work(&mut self) {
        if self.due().is_none_or(|due| Instant::now() < due) {
            return;
        }
        if self.session.flush_by.is_some() {
            self.group.must_sync = true;
            self.commit_group(None, &mut None);
        } else if let Err(failure) = self.log.sync_mark() {
            self.fail(failure);
            self.wake_followers();
        }
    }

    /// Closes the log, and tells readers and listeners. Returns the result of closing.
    fn end(mut self) -> Result<(), Error> {
        let mut closed = Ok(());
        self.zeroing.close();
        self.guarded(|writer| closed = writer.close());
        if let Lifecycle::Panicked(reason) = self.lifecycle {
            closed = Err(reason);
        }
        self.view.close(closed.clone().map_or_else(CloseReason::WriterFailed, |()| CloseReason::Closed));
        self.view.wake();
        self.listeners.end();
        closed
    }

    fn close(&mut self) -> Result<(), Error> {
        match &self.lifecycle {
            Lifecycle::Panicked(_) => return Ok(()),
            Lifecycle::Poisoned(reason) => return Err(poisoned(reason)),
            Lifecycle::Working | Lifecycle::DiskFull { .. } => {}
        }
        self.log.close()?;
        self.log.check_names(true).map_err(Failure::into_error)?;
        build_pending_indexes(&self.view, &self.segment_cache);
        build_last_index(&self.view, &self.segment_cache, self.log.written());
        // Closing made the buffered appends durable. Readers that wait for the durable head must see it.
        self.publish_heads();
        Ok(())
    }
}

impl Session {
    /// The number of the exclusive caller, or 0.
    fn exclusive_caller(&self) -> u64 {
        let is_exclusive = self.exclusive_groups >= EXCLUSIVE_AFTER_GROUPS;
        self.last_caller.filter(|_| is_exclusive).map_or(0, Caller::number)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{AnsweredGroup, GroupDelay};

    const SYNC: Duration = Duration::from_micros(100);

    fn after(callers: usize, sync: Duration) -> AnsweredGroup {
        AnsweredGroup { callers, sync }
    }

    #[test]
    fn a_few_callers_are_waited_for_as_long_as_it_can_be_worth_it() {
        let table = [
            (1, SYNC, None),
            (2, SYNC, Some(75)),
            (16, SYNC, Some(75)),
            (17, SYNC, None),
            (8, 10 * SYNC, Some(150)),
            (8, Duration::ZERO, Some(0)),
        ];
        for (callers, sync, expected) in table {
            let delay = GroupDelay::default().delay(after(callers, sync));
            assert_eq!(delay, expected.map(Duration::from_micros), "{callers} callers, {sync:?}");
        }
    }

    /// How many groups are skipped before the next delay.
    fn skipped(group_delay: &mut GroupDelay) -> u32 {
        let mut groups = 0;
        while group_delay.delay(after(8, SYNC)).is_none() {
            groups += 1;
        }
        groups
    }

    #[test]
    fn those_who_do_not_come_are_waited_for_more_and_more_rarely() {
        let mut group_delay = GroupDelay::default();
        for expected in [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024] {
            assert_eq!(skipped(&mut group_delay), expected);
            group_delay.note(false);
        }
        assert_eq!(skipped(&mut group_delay), 1024);
        // Once a delay pays, none is skipped; it takes a while until the delays in vain are forgotten.
        group_delay.note(true);
        assert_eq!(skipped(&mut group_delay), 0);
        group_delay.note(false);
        assert_eq!(skipped(&mut group_delay), 1024);
        (0..11).for_each(|_| group_delay.note(true));
        group_delay.note(false);
        assert_eq!(skipped(&mut group_delay), 1);
    }
}
