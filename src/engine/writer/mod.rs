//! The writer: it takes a group of commands, decides each append, appends, syncs, publishes and replies.
//!
//! [`Writer::commit_group`] tells the story from top to bottom. The writer thread runs it, or a caller that
//! commits directly (shared.rs). Invariants:
//! - an event is visible only when it is as durable as its append asks, and acknowledged only when it is
//!   visible;
//! - a refused group leaves no trace, on the disk or in [`Heads`];
//! - a poisoned writer writes and syncs nothing, and refuses every append.
//!
//! The writer runs code of the user in two places: the clock, once per group, and wakers, in replies and
//! after them.

mod failure;
mod replies;
mod roll;
mod shared;

use std::sync::Arc;
use std::time::{Duration, Instant};

use flume::Receiver;
use parking_lot::Mutex;

use crate::disk::Disk;
use crate::engine::append::Request;
use crate::engine::counters::Counters;
use crate::engine::decide::{Decision, Heads, Proposal};
use crate::engine::precheck::{KeyLookup, id_taken, look_up, violated_condition};
use crate::engine::queue::{Answer, Caller, Command, Queue, Weight, poisoned};
use crate::event::Appended;
use crate::log::{Failure, Log, NewFrame};
use crate::read::{ChainPosition, Listeners, LogView, PartIndexer, Segment, SegmentCache};
use crate::threads::{BackgroundThread, once};
use crate::types::{Durability, Error, Options, Position, RECORDED_AHEAD_MAX, options};

pub(crate) use failure::check_older_segments;
use replies::{Outbox, OutgoingReply, PendingReply, Requester, accepted, staged_frames};
use shared::AnsweredGroup;
pub(crate) use shared::SharedWriter;

/// Everything that writing needs. Only the owner of the [`SharedWriter`]'s lock uses it.
pub(crate) struct Writer {
    pub(crate) options: Options,
    /// To recover on, after a panic.
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) log: Log,
    pub(crate) heads: Heads,
    /// How many streams there were when the writer began.
    pub(crate) streams_at_start: u64,
    pub(crate) view: Arc<LogView>,
    pub(crate) segment_cache: Arc<SegmentCache>,
    pub(crate) background: Arc<BackgroundThread>,
    /// Writes zeros ahead of the log, while the writer syncs.
    pub(crate) zeroing: BackgroundThread,
    pub(crate) listeners: Arc<Listeners>,
    /// The segment that is written to, as readers see it.
    pub(crate) segment: Arc<Segment>,
    pub(crate) part_indexer: PartIndexer,
    pub(crate) queue: Arc<Queue>,
    pub(crate) commands: Receiver<Command>,
    pub(crate) counters: Arc<Mutex<Counters>>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) group: CommitGroup,
    pub(crate) session: Session,
    /// How often the writer recovered after a panic.
    pub(crate) restarts: u32,
}

/// Whether the writer takes appends.
///
/// `DiskFull` refuses nothing once its time has passed. `Poisoned` and `Panicked` are final; a poisoned
/// writer may still panic.
pub(crate) enum Lifecycle {
    Working,
    /// The disk was full. The writer refuses appends with this error until a time comes; without one, for
    /// ever.
    DiskFull {
        until: Option<Instant>,
        error: Error,
    },
    /// A write or a sync failed. Nothing is written or synced any more.
    Poisoned(Error),
    /// A panic left the writer in an unknown state. Nothing is touched any more.
    Panicked(Error),
}

/// The group of commands that is being committed.
pub(crate) struct CommitGroup {
    /// The replies that wait for the group.
    pending: Vec<PendingReply>,
    /// What the group took out of the queue, until the queue hears of it.
    taken: Weight,
    commands: usize,
    must_sync: bool,
    /// How long the last sync took.
    sync_took: Option<Duration>,
    /// The thread that waits for the group's last append.
    caller: Option<Caller>,
    /// When the group began, by the store's clock.
    now: u64,
    /// When the group began, by the clock that is never set back.
    began: Instant,
}

/// What the writer remembers from one group to the next. A restart begins with a new one.
pub(crate) struct Session {
    outbox: Outbox,
    /// The last group, if it was synced and the group delay has not seen it yet.
    answered: Option<AnsweredGroup>,
    last_caller: Option<Caller>,
    /// How many groups in a row had one append each, all of them by `last_caller`.
    exclusive_groups: u32,
    /// Whether the thread wakes up by itself when something is due.
    has_timer: bool,
    /// When buffered appends must be synced.
    flush_by: Option<Instant>,
    /// When the names of the store's files were checked.
    names_checked: Instant,
    /// Whether recorded-at is ahead of the clock, and the operator was warned.
    warned_of_clock: bool,
}

impl CommitGroup {
    pub(crate) fn new() -> CommitGroup {
        CommitGroup {
            pending: Vec::new(),
            taken: Weight::default(),
            commands: 0,
            must_sync: false,
            sync_took: None,
            caller: None,
            now: 0,
            began: Instant::now(),
        }
    }
}

impl Session {
    pub(crate) fn new() -> Session {
        Session {
            outbox: Outbox::default(),
            answered: None,
            last_caller: None,
            exclusive_groups: 0,
            has_timer: false,
            flush_by: None,
            names_checked: Instant::now(),
            warned_of_clock: false,
        }
    }
}

impl Writer {
    /// Commits one group: the whole story of an append on the writer's side.
    ///
    /// `first` was taken out of the queue. `direct` is the command of a caller that commits on its own
    /// thread; it stays if the group is full. Without either, what is staged already is committed.
    fn commit_group(&mut self, first: Option<Command>, direct: &mut Option<Command>) {
        let mut is_full = false;
        if first.is_some() {
            let mut next = first;
            while let Some(command) = next {
                // 1. Take commands out of the queue, up to the group's limits.
                self.group.taken.add(command.weight());
                // 2. Decide each, in the order of the queue, and stage the accepted appends. If the log has
                // no room for one, `decide` commits the appends before it: it calls this function without
                // commands.
                self.decide(command);
                is_full = self.group.taken.commands >= self.options.group_commands_max
                    || self.group.taken.bytes >= self.options.group_bytes_max;
                next = if is_full { None } else { self.commands.try_recv().ok() };
            }
            let taken = std::mem::take(&mut self.group.taken);
            self.queue.freed(taken);
            self.group.commands += taken.commands;
        }
        // The caller's own command comes last: the queue may hold earlier ones of the same thread.
        if !is_full && let Some(command) = direct.take() {
            self.group.commands += 1;
            self.decide(command);
        }

        // 3. Append: one write for all staged frames.
        let appended = self.append_staged();
        // 4. Sync, if an append asks for it. The sync comes before publish. A reader acts on the events it
        // sees, so it must not see an event that a power cut can still take back.
        let synced = appended.and_then(|()| self.sync_if_asked());
        // After the sync, the files must still have their names. Otherwise the events are gone with them.
        let committed = synced.and_then(|()| self.check_names());
        // From here on a panic drops the replies. Their callers then hear that the outcome is unknown.
        let pending = std::mem::take(&mut self.group.pending);
        self.group.must_sync = false;
        if let Err(failure) = committed {
            return self.refuse_group(failure, pending);
        }

        // 5. Publish: readers see the group.
        self.publish_group(&pending);
        // 6. Reply. After publish: a caller that has its reply must find its events.
        self.reply(pending);
        self.log.clear();
    }

    /// Commits a command of the queue, and everything queued behind it, up to the group's limits.
    fn serve(&mut self, first: Command) {
        if let Lifecycle::Panicked(reason) = &self.lifecycle {
            return first.refuse(&poisoned(reason));
        }
        self.begin_group();
        self.commit_group(Some(first), &mut None);
        self.end_group();
    }

    fn begin_group(&mut self) {
        self.group.now = options::read(&self.options.clock);
        self.group.began = Instant::now();
        self.group.commands = 0;
        self.warn_of_clock();
    }

    /// Notes what the waiting policies need to know of the group.
    fn end_group(&mut self) {
        let caller = self.group.caller.take();
        let is_exclusive = self.group.commands == 1 && caller.is_some() && caller == self.session.last_caller;
        self.session.exclusive_groups =
            if is_exclusive { self.session.exclusive_groups.saturating_add(1) } else { 0 };
        self.session.last_caller = caller;
        self.session.answered = self
            .group
            .sync_took
            .take()
            .map(|sync| AnsweredGroup { callers: self.group.commands + self.commands.len(), sync });
    }

    /// Decides a command. Its reply waits until the group is committed.
    fn decide(&mut self, command: Command) {
        let pending = match command {
            Command::Append(request, caller, reply) => {
                self.group.caller = caller;
                self.decide_append(Requester { request, reply })
            }
            Command::FindKey(lookup, reply) => PendingReply::Key(self.find_key(*lookup), reply),
            Command::Sync(reply) => {
                self.group.must_sync = true;
                PendingReply::Synced(reply)
            }
            Command::Maintain(maintenance, reply) => {
                // A caller that gave up waiting does not hear it.
                let _ = reply.send(self.maintain(maintenance));
                return;
            }
            Command::WakeUp => return,
        };
        self.group.pending.push(pending);
    }

    /// Decides an append, and stages it if it is accepted.
    fn decide_append(&mut self, mut requester: Requester) -> PendingReply {
        let ready = self.make_room(&requester.request).and_then(|()| self.recheck(&mut requester.request));
        if let Err(error) = ready {
            return requester.refused(error);
        }
        let request = &requester.request;
        let first = Position::from(self.log.staged().position).plus(1);
        let proposal = Proposal {
            targets: &request.targets,
            target_of: &request.target_of,
            events: request.events,
            key: request.key,
            ids: request.brought.as_ref().map_or(&[], |brought| &brought.ids),
            known: request.known,
        };
        let violated = || {
            if request.conditions.is_none() && request.brought.is_none() {
                return Ok(None);
            }
            let written = self.log.written().position.into();
            let staged = staged_frames(&self.group.pending, &self.log);
            violated_condition(request, &self.view.snapshot(), written, staged)
        };
        match self.heads.decide(&proposal, first, violated) {
            Ok(Decision::Accepted { first_version, versions }) => {
                let offset = self.log.staged().offset;
                let header = self.log.stage(&NewFrame {
                    body: &request.body,
                    content: request.content,
                    events: request.events,
                    key: request.key,
                    first_version: first_version.get(),
                    versions: &versions,
                    now: self.group.now,
                });
                let receipt = Appended::new(&header, first, versions);
                self.ask_durability(request.durability);
                PendingReply::Accepted { offset, receipt, requester }
            }
            Ok(Decision::KeyKnown(position)) => {
                // The first append with the key may be buffered; a retry may ask for more.
                self.ask_durability(request.durability);
                PendingReply::Answered(Answer::KeyKnown(position), requester)
            }
            Ok(Decision::Conflict(conflict)) => requester.refused(Error::conflict_on(conflict)),
            Ok(Decision::ConditionFailed(failed)) => requester.refused(Error::condition_failed(failed)),
            Ok(Decision::IdTaken(id, position)) => requester.refused(id_taken(id, position)),
            Err(error) => requester.refused(error),
        }
    }

    /// Looks up again what the caller looked up too long ago: two segments were filled since. That is rare.
    fn recheck(&self, request: &mut Request) -> Result<(), Error> {
        if self.heads.covers(request.known.up_to) {
            return Ok(());
        }
        look_up(request, &self.view.snapshot(), self.options.key_window)
    }

    /// Finds the append that has a key. The reply waits until that append is as durable as the caller asks.
    fn find_key(&mut self, mut lookup: KeyLookup) -> Result<Option<Position>, Error> {
        self.check_working()?;
        if !self.heads.covers(lookup.known.up_to) {
            lookup.look_up(&self.view.snapshot(), self.options.key_window)?;
        }
        let next = Position::from(self.log.staged().position).plus(1);
        let found = self.heads.find_key(&lookup.key, lookup.known, next);
        if found.is_some() {
            self.ask_durability(lookup.durability);
        }
        Ok(found)
    }

    fn ask_durability(&mut self, asked: Option<Durability>) {
        match asked.unwrap_or(self.options.durability) {
            Durability::Synced => self.group.must_sync = true,
            Durability::Buffered { flush_every } => {
                // A time too far away for an instant never comes.
                let by = self.group.began.checked_add(flush_every);
                self.session.flush_by = self.session.flush_by.into_iter().chain(by).min();
            }
        }
    }

    /// Writes the staged frames.
    fn append_staged(&mut self) -> Result<(), Failure> {
        if self.poison().is_some() {
            return Ok(());
        }
        // Under steady load the queue is never empty and the thread never sleeps, so the due time counts here
        // too.
        self.group.must_sync |= self.session.flush_by.is_some_and(|by| by <= self.group.began);
        if self.log.staged().offset > self.log.written().offset {
            if let Some(zeros) = self.log.write(self.group.must_sync)? {
                self.zeroing.run_in(Duration::ZERO, once(move || zeros.write()));
            }
            self.counters.lock().groups += 1;
        }
        Ok(())
    }

    /// Makes everything written durable, if a command of the group asks for it.
    fn sync_if_asked(&mut self) -> Result<(), Failure> {
        if self.poison().is_some() {
            return Ok(());
        }
        if self.group.must_sync && self.log.has_unsynced() {
            let started = Instant::now();
            self.log.sync()?;
            let took = started.elapsed();
            self.part_indexer.note_durable(self.log.segment(), self.log.durable());
            self.counters.lock().synced(took);
            self.group.sync_took = Some(took);
        }
        if !self.log.has_unsynced() {
            self.session.flush_by = None;
        }
        Ok(())
    }

    /// Makes the group visible to readers.
    fn publish_group(&mut self, pending: &[PendingReply]) {
        self.heads.commit();
        let frames = pending.iter().filter_map(PendingReply::offset);
        let frames = frames.map(|offset| (offset, self.log.frame_in_memory(offset)));
        // The head moves last: a reader that sees it must find the events in the index and in the cache.
        self.segment.insert(frames).expect("what was just encoded can be read");
        let (start, bytes) = self.log.last_write();
        self.view.keep(&self.segment, start, bytes);
        self.publish_heads();

        let accepted = accepted(pending);
        let mut counters = self.counters.lock();
        counters.accepted(&accepted);
        counters.entities = self.streams_at_start + self.heads.streams_created();
        counters.bytes_written = self.log.bytes_written();
    }

    /// Moves the heads that readers see to the ends of what is written and what is durable.
    fn publish_heads(&self) {
        // A poisoned log may have written what must never be seen.
        if self.poison().is_none() {
            self.view
                .publish(ChainPosition::from(self.log.written()), ChainPosition::from(self.log.durable()));
        }
    }

    /// Prepares the replies. They are sent after the writer lock is released, if no listener waits.
    fn reply(&mut self, pending: Vec<PendingReply>) {
        let heard: Vec<u32> = match self.listeners.count() {
            0 => Vec::new(),
            _ => pending.iter().filter_map(PendingReply::offset).collect(),
        };
        let durable = Position::from(self.log.durable().position);
        let poison = self.poison().cloned();
        let replies = pending.into_iter().map(|pending| pending.committed(durable, poison.as_ref()));
        if heard.is_empty() {
            self.session.outbox.replies.extend(replies);
        } else {
            // Callers come before listeners, and the listeners' frames are in memory only now. So these
            // replies are sent under the lock.
            replies.for_each(OutgoingReply::send);
            self.notify_listeners(&heard);
        }
        self.session.outbox.is_published = true;
    }

    fn notify_listeners(&self, frames: &[u32]) {
        let told = self.listeners.notify(frames.iter().map(|offset| {
            let frame = self.log.frame_in_memory(*offset);
            let first = self.segment.position(frame.header.position_offset());
            (first.into(), frame)
        }));
        let mut counters = self.counters.lock();
        counters.notified += told.sent;
        counters.missed += told.missed;
    }

    /// Wakes readers that wait for new events.
    fn wake_followers(&self) {
        self.view.wake();
        if self.poison().is_some() {
            self.listeners.end();
        }
    }

    /// Warns once if recorded-at runs ahead of the clock, and again only after the clock has caught up.
    fn warn_of_clock(&mut self) {
        let ahead = options::ahead(self.log.written().recorded_at, self.group.now);
        if ahead > RECORDED_AHEAD_MAX && !self.session.warned_of_clock {
            self.session.warned_of_clock = true;
            tracing::warn!(
                ?ahead,
                "recorded-at is ahead of the clock, which was set back, or was wrong once: it stands still until the clock has caught up"
            );
        } else if ahead.is_zero() {
            self.session.warned_of_clock = false;
        }
    }
}
