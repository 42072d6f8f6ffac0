//! The queue between callers and the writer: bounded in commands and in bytes.
//!
//! The writer stops when the channel is disconnected. There is no stop message, so none can be lost.
//!
//! The errors at the end are what a caller hears when its command cannot be answered. Their kind says what a
//! caller can rely on. `Poisoned` and `Busy`: nothing was written. `CommitUnknown`: the append may be in the
//! log.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flume::{Receiver, SendTimeoutError, Sender, TrySendError};
use oneshot::Sender as ReplySender;
use parking_lot::{Condvar, Mutex, RwLock};

use crate::engine::append::Request;
use crate::engine::precheck::KeyLookup;
use crate::event::Appended;
use crate::log::Exchange;
use crate::types::{Error, ErrorKind, Position};

/// What callers ask of the writer.
pub(crate) enum Command {
    /// With the thread that waits for the reply, if one does.
    Append(Box<Request>, Option<Caller>, ReplySender<Reply>),
    /// Find the append that has a key. The reply is the position of its first event.
    FindKey(Box<KeyLookup>, ReplySender<Result<Option<Position>, Error>>),
    /// Make everything before it durable.
    Sync(ReplySender<Result<Position, Error>>),
    Maintain(Maintenance, ReplySender<Result<u64, Error>>),
    /// Wake up and compute the next due time: a direct commit left something to sync later.
    WakeUp,
}

/// A thread that waits for its append, told from all others of this process. (The number of the standard
/// library's thread id cannot be read yet.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller(u64);

impl Caller {
    /// The current thread.
    pub(crate) fn current() -> Caller {
        static LAST: AtomicU64 = AtomicU64::new(0);
        thread_local! {
            static CURRENT: Caller = Caller(LAST.fetch_add(1, Ordering::Relaxed) + 1);
        }
        CURRENT.with(|current| *current)
    }

    /// Never 0.
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

/// What a rewrite of segments asks of the writer, who owns MANIFEST. The reply is the history revision.
pub(crate) enum Maintenance {
    /// Seal the segment that is written to, unless it is empty.
    Roll,
    /// List a rewritten segment in the place of others.
    Exchange(Exchange),
    /// Raise the history revision, if history was changed.
    Raise,
    /// Write nothing any more: a sync of names failed, or a sealed segment is damaged.
    Poison(Error),
}

impl Command {
    /// What the command takes up in the queue.
    pub(crate) fn weight(&self) -> Weight {
        match self {
            Command::Append(request, ..) => Weight::of(request.body.len()),
            Command::FindKey(..) | Command::Sync(_) | Command::Maintain(..) | Command::WakeUp => {
                Weight::of(0)
            }
        }
    }

    /// Replies that nothing of the command was done. A caller that gave up waiting does not hear it.
    pub(crate) fn refuse(self, error: &Error) {
        match self {
            Command::Append(request, _, reply) => {
                let answer = Answer::Done(Err(error.clone()));
                let _ = reply.send(Reply { answer, request });
            }
            Command::FindKey(_, reply) => drop(reply.send(Err(error.clone()))),
            Command::Sync(reply) => drop(reply.send(Err(error.clone()))),
            Command::Maintain(_, reply) => drop(reply.send(Err(error.clone()))),
            Command::WakeUp => {}
        }
    }
}

/// The writer's reply to an append. The request travels back with the reply: memory is cheapest to free on
/// the thread that took it. Another thread would have to lock that thread's heap.
pub(crate) struct Reply {
    pub(crate) answer: Answer,
    pub(crate) request: Box<Request>,
}

/// What the writer says to an append.
pub(crate) enum Answer {
    Done(Result<Appended, Error>),
    /// The append's key is known. The caller compares its request with the append at this position.
    KeyKnown(Position),
}

/// The callers' end of the queue.
pub(crate) struct Queue {
    sender: RwLock<Option<Sender<Command>>>,
    budget: Budget,
    deadline: Option<Duration>,
    /// Why the writer failed, once it has failed.
    poison: OnceLock<Error>,
    /// The process of the writer thread. A forked process has a copy of the queue, and no thread that empties
    /// it.
    process: u32,
}

impl Queue {
    /// Makes a queue. Returns the writer's end as well.
    pub(crate) fn new(
        commands_max: usize,
        bytes_max: usize,
        deadline: Option<Duration>,
    ) -> (Queue, Receiver<Command>) {
        let (sender, receiver) = flume::bounded(commands_max);
        let queue = Queue {
            sender: RwLock::new(Some(sender)),
            budget: Budget { bytes_max, used: Mutex::default(), freed: Condvar::new() },
            deadline,
            poison: OnceLock::new(),
            process: std::process::id(),
        };
        (queue, receiver)
    }

    /// Sends a command that holds `bytes`. Waits while the queue is full, up to the deadline.
    pub(crate) fn send(&self, command: Command, bytes: usize) -> Result<(), Error> {
        let Some((command, sender)) = self.offer(command, bytes)? else { return Ok(()) };
        self.check_process()?;
        let deadline = self.deadline.and_then(|deadline| Instant::now().checked_add(deadline));
        if !self.budget.take(bytes, deadline) {
            return Err(queue_full());
        }
        let sent = match deadline {
            None => sender.send(command).map_err(|_| self.disconnected()),
            Some(deadline) => sender.send_deadline(command, deadline).map_err(|error| match error {
                SendTimeoutError::Timeout(_) => queue_full(),
                SendTimeoutError::Disconnected(_) => self.disconnected(),
            }),
        };
        sent.inspect_err(|_| self.budget.free(Weight::of(bytes)))
    }

    /// Sends a command without waiting: `Busy` if the queue is full.
    pub(crate) fn try_send(&self, command: Command, bytes: usize) -> Result<(), Error> {
        self.offer(command, bytes)?.map_or(Ok(()), |_| Err(queue_full()))
    }

    /// Sends a command if the queue has room for it. If not, returns the command, with a sender to wait with.
    fn offer(&self, command: Command, bytes: usize) -> Result<Option<(Command, Sender<Command>)>, Error> {
        let guard = self.sender.read();
        let sender = guard.as_ref().ok_or_else(Error::closed)?;
        // The caller waits with a sender of its own, after this lock is released. `close` takes the lock to
        // write: it would wait for the caller, and every later caller would wait behind `close`.
        if !self.budget.try_take(bytes) {
            return Ok(Some((command, sender.clone())));
        }
        let offered = match sender.try_send(command) {
            Ok(()) => return Ok(None),
            Err(TrySendError::Full(command)) => Ok(Some((command, sender.clone()))),
            Err(TrySendError::Disconnected(_)) => Err(self.disconnected()),
        };
        self.budget.free(Weight::of(bytes));
        offered
    }

    /// Asks the writer to poison the store. Commands that were sent before are done first. Does not wait for
    /// the writer.
    pub(crate) fn send_poison(&self, reason: Error) -> Result<(), Error> {
        let (reply, _) = oneshot::channel();
        self.send(Command::Maintain(Maintenance::Poison(reason), reply), 0)
    }

    /// Wakes the writer thread, so that it computes the next due time. A full queue wakes it anyway.
    pub(crate) fn send_wake_up(&self) {
        let _ = self.try_send(Command::WakeUp, 0);
    }

    /// Fails in a process that was forked from the writer's. A system call, so callers check only before they
    /// wait.
    pub(crate) fn check_process(&self) -> Result<(), Error> {
        if std::process::id() == self.process { Ok(()) } else { Err(Error::forked()) }
    }

    /// Fails if the store takes no appends: the writer failed, or the store was closed.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        match self.poison.get() {
            Some(reason) => Err(poisoned(reason)),
            None if self.is_closed() => Err(Error::closed()),
            None => Ok(()),
        }
    }

    /// Gives back the room of commands that the writer took out.
    pub(crate) fn freed(&self, taken: Weight) {
        self.budget.free(taken);
    }

    /// True while a command is being put in, or was taken out and not yet accounted for. A direct commit must
    /// then use the queue, so that the appends of one thread keep their order.
    pub(crate) fn has_command_in_transit(&self, receiver: &Receiver<Command>) -> bool {
        self.budget.used.lock().weight.commands > receiver.len()
    }

    /// Lets the writer do what is queued and then end.
    pub(crate) fn close(&self) {
        self.sender.write().take();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.sender.read().is_none()
    }

    /// The writer failed for this reason and refuses everything from now on. The first reason stays.
    pub(crate) fn poison(&self, reason: Error) {
        let _ = self.poison.set(reason);
        // A caller that waits for room would wait for ever: the writer may free nothing any more.
        self.budget.end();
    }

    /// Why the writer failed, if it has.
    pub(crate) fn poisoned(&self) -> Option<&Error> {
        self.poison.get()
    }

    /// How many commands and bytes wait.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.sender.read().as_ref().map_or(0, Sender::len), self.budget.used.lock().weight.bytes)
    }

    fn disconnected(&self) -> Error {
        self.poison.get().map_or_else(Error::closed, poisoned)
    }
}

/// What commands take up in the queue.
#[derive(Clone, Copy, Default)]
pub(crate) struct Weight {
    pub(crate) commands: usize,
    pub(crate) bytes: usize,
}

impl Weight {
    /// One command that holds `bytes`.
    fn of(bytes: usize) -> Weight {
        Weight { commands: 1, bytes }
    }

    pub(crate) fn add(&mut self, other: Weight) {
        self.commands += other.commands;
        self.bytes += other.bytes;
    }
}

/// What the queue holds, and how many bytes it may hold. One command always fits, however large.
struct Budget {
    bytes_max: usize,
    used: Mutex<BudgetUse>,
    freed: Condvar,
}

#[derive(Default)]
struct BudgetUse {
    weight: Weight,
    /// The writer failed and may free nothing any more, so no caller may wait for room.
    is_over: bool,
}

impl BudgetUse {
    fn fits(&self, bytes: usize, bytes_max: usize) -> bool {
        let used = self.weight.bytes;
        self.is_over || used == 0 || used.saturating_add(bytes) <= bytes_max
    }
}

impl Budget {
    fn try_take(&self, bytes: usize) -> bool {
        let mut used = self.used.lock();
        let fits = used.fits(bytes, self.bytes_max);
        if fits {
            used.weight.add(Weight::of(bytes));
        }
        fits
    }

    /// Waits for room. False once the deadline has passed.
    fn take(&self, bytes: usize, deadline: Option<Instant>) -> bool {
        let mut used = self.used.lock();
        while !used.fits(bytes, self.bytes_max) {
            match deadline {
                None => self.freed.wait(&mut used),
                Some(deadline) if self.freed.wait_until(&mut used, deadline).timed_out() => return false,
                Some(_) => {}
            }
        }
        used.weight.add(Weight::of(bytes));
        true
    }

    fn free(&self, freed: Weight) {
        let mut used = self.used.lock();
        used.weight.commands = used.weight.commands.saturating_sub(freed.commands);
        used.weight.bytes = used.weight.bytes.saturating_sub(freed.bytes);
        self.freed.notify_all();
    }

    fn end(&self) {
        self.used.lock().is_over = true;
        self.freed.notify_all();
    }
}

/// The store refuses an append because the writer failed before, for `reason`.
pub(crate) fn poisoned(reason: &Error) -> Error {
    let text =
        format!("the store takes no more appends ({reason}); this one was not written; reopen the store");
    Error::with_source(ErrorKind::Poisoned, text, reason.clone())
}

/// The write or sync of the append's own group failed for `reason`.
pub(crate) fn durability_unknown(reason: &Error) -> Error {
    let text = format!(
        "it is not known whether this append is durable ({reason}); reopen the store and read back, or retry with its key"
    );
    Error::with_source(ErrorKind::CommitUnknown, text, reason.clone())
}

/// The writer ended without a reply to the append.
pub(crate) fn unanswered(reason: Option<&Error>) -> Error {
    let reason = reason.map_or_else(|| "the writer ended".to_owned(), Error::to_string);
    let text = format!(
        "it is not known whether this append was written ({reason}); reopen the store and read back, or retry with its key"
    );
    Error::new(ErrorKind::CommitUnknown, text)
}

/// The writer ended without a reply to a command that is not an append.
pub(crate) fn writer_ended() -> Error {
    Error::new(ErrorKind::CommitUnknown, "the writer ended")
}

/// A panic ended the writer's work.
pub(crate) fn writer_panicked() -> Error {
    let text = "the writer panicked; this is a bug in annals, or in the disk it was given";
    Error::new(ErrorKind::CommitUnknown, text)
}

/// The append has no reply within the deadline for acknowledgements.
pub(crate) fn not_acknowledged(deadline: Duration) -> Error {
    let text = format!(
        "the append was not acknowledged within {deadline:?}; it may still be written: read back, or retry with its key"
    );
    Error::new(ErrorKind::CommitUnknown, text)
}

/// The key has no reply within the deadline for acknowledgements.
pub(crate) fn key_not_looked_up() -> Error {
    let text = "the idempotency key was not looked up within the deadline for acknowledgements; nothing was written, try again later";
    Error::new(ErrorKind::Busy, text)
}

/// The queue is full, and the caller cannot or may no longer wait.
fn queue_full() -> Error {
    Error::new(ErrorKind::Busy, "the queue to the writer is full; nothing was written, try again later")
}
