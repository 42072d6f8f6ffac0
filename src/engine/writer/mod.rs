//! The writer: take a group, decide each append, write, sync, publish, reply, wake who follows.
//!
//! It is the work of a thread of its own, which lends it to a caller who is alone ([`Role`]). Invariants:
//! - nothing is visible before it is as durable as was asked, nothing is acknowledged before it is
//!   visible;
//! - a refused group leaves no trace: neither on the disk nor in the ledger;
//! - once poisoned, nothing is written or synced again, and everybody is told.
//!
//! Row: writer. Code of others that runs here: the clock, once per group; wakers, in replies and after them.

mod ahead;
mod checking;
mod failing;
mod gather;
mod maintaining;
mod role;
mod waiting;

use std::sync::Arc;
use std::time::{Duration, Instant};

use flume::Receiver;
use parking_lot::Mutex;

use crate::disk::Disk;
use crate::engine::append::{Caller, Request};
use crate::engine::counters::Counters;
use crate::engine::decide::{Decision, Heads, Proposal};
use crate::engine::precheck::{id_taken, resolve};
use crate::engine::queue::{Command, Outcome, Queue, Weight, poisoned};
use crate::format::frame;
use crate::log::{Failure, Log, NewFrame};
use crate::read::{ChainPosition, Listeners, LogView, Segment, SegmentCache, build_pending_indexes};
use crate::threads::{BackgroundThread, once};
use crate::types::{Durability, Error, Options, Position, options};

pub(crate) use checking::check_the_rest;
use gather::Answered;
pub(crate) use role::Role;
use waiting::{Answer, Asker, Refusal, Unsaid, Waiting, accepted, unmet_condition};

/// MARK is made durable once nothing has happened for this long.
const IDLE: Duration = Duration::from_millis(100);

/// All that belongs to whoever writes.
pub(crate) struct Writer {
    pub(crate) options: Options,
    /// To recover on, after a panic.
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) log: Log,
    pub(crate) ledger: Heads,
    /// How many streams there were when it began.
    pub(crate) entities: u64,
    pub(crate) view: Arc<LogView>,
    pub(crate) shelf: Arc<SegmentCache>,
    pub(crate) housekeeper: Arc<BackgroundThread>,
    /// Writes zeros ahead of the log.
    pub(crate) helper: BackgroundThread,
    pub(crate) listeners: Arc<Listeners>,
    /// The segment being written, as readers see it.
    pub(crate) segment: Arc<Segment>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) commands: Receiver<Command>,
    pub(crate) counters: Arc<Mutex<Counters>>,
    pub(crate) state: State,
}

/// What the writer remembers from group to group, and within one.
pub(crate) struct State {
    /// Whom to answer once the group is through.
    waiting: Vec<Waiting>,
    unsaid: Unsaid,
    /// What left the queue with this group.
    taken: Weight,
    must_sync: bool,
    /// How many commands the group has.
    group: usize,
    /// How long its sync took, if it had one.
    sync: Option<Duration>,
    /// The group before, if it was synced and nobody has looked at it yet.
    answered: Option<Answered>,
    /// Who waits for the last of them, and for the last of the group before.
    caller: Option<Caller>,
    last_caller: Option<Caller>,
    /// How many groups there were of one append each, all by this caller.
    alone: u32,
    /// The thread wakes up by itself for what falls due.
    is_watched: bool,
    /// Something buffered must be synced by then.
    flush_by: Option<Instant>,
    /// The names of the store's files were looked at then.
    looked: Instant,
    /// The disk was full: until then (if ever) nothing is tried, and this is the answer.
    full_until: Option<(Option<Instant>, Error)>,
    poison: Option<Error>,
    /// A panic ended it: nothing is known any more, so nothing is touched.
    over: Option<Error>,
    restarts: u32,
    /// Whether recorded-at is ahead of the clock, and that was said.
    is_ahead: bool,
    /// When the group began, by the injected clock and by the system's.
    now: u64,
    began: Instant,
}

impl State {
    pub(crate) fn new() -> State {
        State {
            waiting: Vec::new(),
            unsaid: Unsaid::default(),
            taken: Weight::default(),
            must_sync: false,
            group: 0,
            sync: None,
            answered: None,
            caller: None,
            last_caller: None,
            alone: 0,
            is_watched: false,
            flush_by: None,
            looked: Instant::now(),
            full_until: None,
            poison: None,
            over: None,
            restarts: 0,
            is_ahead: false,
            now: 0,
            began: Instant::now(),
        }
    }
}

impl Writer {
    /// When something must be done even if no command comes.
    fn due(&self) -> Option<Instant> {
        match self.state.flush_by {
            _ if self.state.poison.is_some() || self.state.over.is_some() => None,
            Some(flush_by) => Some(flush_by),
            None => (!self.log.mark_is_synced()).then(|| self.state.began + IDLE),
        }
    }

    fn do_what_is_due(&mut self) {
        if self.due().is_none_or(|due| Instant::now() < due) {
            return;
        }
        if self.state.flush_by.is_some() {
            self.state.must_sync = true;
            self.finish();
        } else if let Err(failure) = self.log.sync_mark() {
            self.fail(failure);
            self.wake_followers();
        }
    }

    /// Commits what is queued behind a command that was taken out, up to the group's limits, together with it.
    fn serve(&mut self, first: Command) {
        if let Some(error) = &self.state.over {
            return first.refuse(&poisoned(error));
        }
        self.begin();
        self.take_queued(first);
        self.commit();
    }

    /// Commits a command that was not in the queue, with all that is; gives it back if that is too much for a group.
    fn serve_after_all(&mut self, last: Command) -> Option<Command> {
        self.begin();
        let has_room = match self.commands.try_recv() {
            Ok(first) => self.take_queued(first),
            Err(_) => true,
        };
        let left = if has_room {
            self.state.group += 1;
            self.take(last);
            None
        } else {
            Some(last)
        };
        self.commit();
        left
    }

    fn begin(&mut self) {
        self.state.now = options::read(&self.options.clock);
        self.state.began = Instant::now();
        self.state.group = 0;
        self.look_at_clock();
    }

    /// Takes what is queued, up to the group's limits. Whether there is room for more.
    fn take_queued(&mut self, first: Command) -> bool {
        let mut next = Some(first);
        let has_room = loop {
            let Some(command) = next else { break true };
            self.state.taken.add(command.weight());
            self.take(command);
            let taken = self.state.taken;
            if taken.commands >= self.options.group_commands_max
                || taken.bytes >= self.options.group_bytes_max
            {
                break false;
            }
            next = self.commands.try_recv().ok();
        };
        let taken = std::mem::take(&mut self.state.taken);
        self.queue.freed(taken);
        self.state.group += taken.commands;
        has_room
    }

    fn commit(&mut self) {
        let caller = self.state.caller.take();
        let is_alone = self.state.group == 1 && caller.is_some() && caller == self.state.last_caller;
        self.state.alone = if is_alone { self.state.alone.saturating_add(1) } else { 0 };
        self.state.last_caller = caller;
        self.finish();
        let callers = || self.state.group + self.commands.len();
        self.state.answered = self.state.sync.take().map(|sync| Answered { callers: callers(), sync });
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Append(request, reply) => {
                self.state.caller = request.caller;
                self.append(Asker { request, reply });
            }
            Command::Sync(reply) => {
                self.state.must_sync = true;
                self.state.waiting.push(Waiting::Synced(reply));
            }
            Command::Maintain(maintenance, reply) => {
                // Whoever gave up waiting does not hear it.
                let _ = reply.send(self.maintain(maintenance));
            }
            Command::Look => {}
        }
    }

    /// Decides one append, and stages it if it is accepted.
    fn append(&mut self, mut asker: Asker) {
        let refused = self.make_room(&asker.request).and_then(|()| self.look_again(&mut asker.request));
        if let Err(error) = refused {
            return self.state.waiting.push(Waiting::Answered(Outcome::Done(Err(error)), asker));
        }
        let request = &asker.request;
        let first = Position::from(self.log.staged().position).plus(1);
        let proposal = Proposal {
            targets: &request.targets,
            target_of: &request.target_of,
            events: request.events,
            key: request.key,
            ids: request.brought.as_ref().map_or(&[], |brought| &brought.ids),
            known: request.known,
        };
        let unmet = || unmet_condition(request, &self.view, &self.log, &self.state.waiting);
        let decided = self.ledger.decide(&proposal, first, unmet);
        let waiting = match decided {
            Err(error) => Waiting::Answered(Outcome::Done(Err(error)), asker),
            Ok(decision) => self.staged(decision, asker),
        };
        self.state.waiting.push(waiting);
    }

    /// What a caller looked up must reach to where the ledger begins. It nearly always does: only a command
    /// that waited while two segments were filled must be looked up again, and its caller is gone.
    fn look_again(&self, request: &mut Request) -> Result<(), Error> {
        if self.ledger.suffices(request.known.up_to) {
            return Ok(());
        }
        resolve(request, &self.view.snapshot(), self.options.key_window)
    }

    /// Does as was decided.
    fn staged(&mut self, decision: Decision, asker: Asker) -> Waiting {
        let request = &asker.request;
        match decision {
            Decision::Conflict(conflict) => {
                Waiting::Answered(Outcome::Done(Err(Error::conflict_on(conflict))), asker)
            }
            Decision::Unmet(failed) => {
                Waiting::Answered(Outcome::Done(Err(Error::condition_failed(failed))), asker)
            }
            Decision::Taken(id, position) => {
                Waiting::Answered(Outcome::Done(Err(id_taken(id, position))), asker)
            }
            Decision::Seen(position) => {
                self.ask_durability(request.durability);
                Waiting::Answered(Outcome::Seen(position), asker)
            }
            Decision::Accepted { first_version, version_table } => {
                self.ask_durability(request.durability);
                let offset = self.log.staged().offset;
                let receipt = self.log.stage(&NewFrame {
                    body: &request.body,
                    body_checksum: request.body_checksum,
                    content: request.content,
                    events: request.events,
                    key: request.key,
                    first_version: first_version.get(),
                    version_table: &version_table,
                    now: self.state.now,
                });
                Waiting::Accepted { offset, receipt, asker }
            }
        }
    }

    /// Sees to it that a frame may be staged: rolls or syncs first if it must.
    fn make_room(&mut self, request: &Request) -> Result<(), Error> {
        self.refuse_if_failed()?;
        let table = if request.target_of.is_empty() { 0 } else { request.target_of.len() * 8 };
        let bytes = frame::FRAME_FIXED_BYTES + frame::KEY_BYTES + table + request.body.len();
        let max = usize::try_from(self.log.frame_bytes_max(bytes)).unwrap_or(usize::MAX);
        if bytes > max {
            return Err(Error::too_large("the append", bytes, "unsynced_bytes_max", max));
        }
        if self.log.must_roll(bytes) {
            self.finish();
            self.refuse_if_failed()?;
            self.roll()?;
        } else if self.log.must_sync(bytes) {
            self.state.must_sync = true;
            self.finish();
            self.refuse_if_failed()?;
        }
        Ok(())
    }

    fn roll(&mut self) -> Result<(), Error> {
        if let Err(failure) = self.log.roll(self.state.now, self.born()) {
            let (refusal, error) = self.fail(failure);
            // Sealing may have made durable what was written before.
            self.publish_heads();
            self.wake_followers();
            return Err(match refusal {
                Refusal::Refused => error,
                Refusal::Poisoned | Refusal::Panicked => poisoned(&error),
            });
        }
        self.state.flush_by = None;
        self.ledger.turn(Position::from(self.log.written().position).plus(1));
        self.segment = Arc::new(Segment::live(self.log.segment().clone(), self.log.written()));
        self.view.add_segment(self.segment.clone());
        let (view, shelf) = (self.view.clone(), self.shelf.clone());
        self.housekeeper.run_in(Duration::ZERO, once(move || build_pending_indexes(&view, &shelf)));
        self.publish_heads();
        self.wake_followers();
        Ok(())
    }

    /// How many streams begin in the segment that ends.
    fn born(&self) -> Option<u32> {
        let snapshot = self.view.snapshot();
        let own = snapshot.segments.iter().rev().take_while(|segment| segment.shares_file(&self.segment));
        own.map(|segment| segment.ask(|index| Ok(index.streams_created()))).sum::<Result<u32, Error>>().ok()
    }

    fn ask_durability(&mut self, asked: Option<Durability>) {
        match asked.unwrap_or(self.options.durability) {
            Durability::Synced => self.state.must_sync = true,
            Durability::Buffered { flush_every } => {
                // Too far away for an instant is never.
                let by = self.state.began.checked_add(flush_every);
                self.state.flush_by = self.state.flush_by.into_iter().chain(by).min();
            }
        }
    }

    /// Writes what is staged, syncs if that was asked, publishes, and answers.
    fn finish(&mut self) {
        let outcome = self.write_and_sync().and_then(|()| self.check_names());
        let waiting = std::mem::take(&mut self.state.waiting);
        self.state.must_sync = false;
        match outcome {
            Ok(()) => self.publish_and_answer(waiting),
            Err(failure) => {
                let (refusal, error) = self.fail(failure);
                // Cutting back synced what was there before.
                self.publish_heads();
                for waiting in waiting {
                    waiting.refuse(refusal, &error);
                }
                self.wake_followers();
            }
        }
    }

    fn write_and_sync(&mut self) -> Result<(), Failure> {
        if self.state.poison.is_some() {
            return Ok(());
        }
        // Under steady load the queue is never empty, so what falls due is looked at here as well.
        self.state.must_sync |= self.state.flush_by.is_some_and(|by| by <= self.state.began);
        if self.log.staged().offset > self.log.written().offset {
            if let Some(zeros) = self.log.write(self.state.must_sync)? {
                self.helper.run_in(Duration::ZERO, once(move || zeros.write()));
            }
            self.counters.lock().groups += 1;
        }
        if self.state.must_sync && self.log.has_unsynced() {
            let started = Instant::now();
            self.log.sync()?;
            let took = started.elapsed();
            self.counters.lock().synced(took);
            self.state.sync = Some(took);
        }
        if !self.log.has_unsynced() {
            self.state.flush_by = None;
        }
        Ok(())
    }

    fn publish_and_answer(&mut self, waiting: Vec<Waiting>) {
        self.ledger.settle();
        let frames = waiting.iter().filter_map(Waiting::offset);
        let frames = frames.map(|offset| (offset, self.log.frame_in_memory(offset)));
        self.segment.insert(frames).expect("what was just encoded can be read");
        let (start, group) = self.log.last_write();
        self.view.keep(&self.segment, start, group);
        self.publish_heads();
        self.count(&waiting);
        let heard: Vec<u32> = match self.listeners.count() {
            0 => Vec::new(),
            _ => waiting.iter().filter_map(Waiting::offset).collect(),
        };
        let durable = Position::from(self.log.durable().position);
        let poison = self.state.poison.as_ref();
        let answers = waiting.into_iter().map(|waiting| waiting.answer(durable, poison));
        if heard.is_empty() {
            self.state.unsaid.answers.extend(answers);
        } else {
            // Those who listen come after those who wait, and what they are told of is in memory only now.
            answers.for_each(Answer::send);
            self.notify(&heard);
        }
        self.state.unsaid.is_published = true;
        self.log.clear();
    }

    fn wake_followers(&self) {
        self.view.wake();
        if self.state.poison.is_some() {
            self.listeners.end();
        }
    }

    /// Tells those who listen of the frames at these offsets.
    fn notify(&self, frames: &[u32]) {
        if frames.is_empty() {
            return;
        }
        let told = self.listeners.notify(frames.iter().map(|offset| {
            let frame = self.log.frame_in_memory(*offset);
            let first = self.segment.position(frame.header.position_offset());
            (first.into(), frame)
        }));
        let mut counters = self.counters.lock();
        counters.notified += told.sent;
        counters.missed += told.missed;
    }

    /// Not of a poisoned log: it may have written what must never be seen.
    fn publish_heads(&self) {
        if self.state.poison.is_some() {
            return;
        }
        self.view.publish(ChainPosition::from(self.log.written()), ChainPosition::from(self.log.durable()));
    }

    fn count(&self, waiting: &[Waiting]) {
        let accepted = accepted(waiting);
        let mut counters = self.counters.lock();
        counters.accepted(&accepted);
        counters.entities = self.entities + self.ledger.born();
        counters.bytes_written = self.log.bytes_written();
    }
}
