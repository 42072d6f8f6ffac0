//! The queue between callers and the writer: bounded in commands and in bytes.
//!
//! Stop means that the channel is disconnected; there is no stop message that could be lost.
//! Row: writer.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use flume::{Receiver, SendTimeoutError, Sender, TrySendError};
use oneshot::Sender as Answer;
use parking_lot::{Condvar, Mutex, RwLock};

use crate::engine::append::Request;
use crate::event::Appended;
use crate::log::Exchange;
use crate::types::{Error, ErrorKind, Position};

/// What callers ask of the writer.
pub(crate) enum Command {
    Append(Box<Request>, Answer<Reply>),
    /// Make everything before it durable.
    Sync(Answer<Result<Position, Error>>),
    Maintain(Maintenance, Answer<Result<u64, Error>>),
    /// Look when the next thing falls due: a caller who wrote in the writer's place left something to do.
    Look,
}

/// What whoever rewrites segments asks of the writer, who owns MANIFEST. The answer is the history revision.
pub(crate) enum Maintenance {
    /// End the segment that is written to, unless it is empty.
    Roll,
    /// List a rewritten segment in the place of others.
    Exchange(Exchange),
    /// Raise the history revision, if history was changed.
    Raise,
    /// A sync of names failed, or a sealed segment is damaged: write nothing any more.
    Poison(Error),
}

impl Command {
    /// What it takes up in the queue.
    pub(crate) fn weight(&self) -> Weight {
        match self {
            Command::Append(request, _) => Weight::of(request.body.len()),
            Command::Sync(_) | Command::Maintain(..) | Command::Look => Weight::of(0),
        }
    }

    /// Answers that nothing of it was done.
    pub(crate) fn refuse(self, error: &Error) {
        // Whoever gave up waiting does not hear it.
        match self {
            Command::Append(request, reply) => {
                let _ = reply.send(Reply { outcome: Outcome::Done(Err(error.clone())), request });
            }
            Command::Sync(reply) => drop(reply.send(Err(error.clone()))),
            Command::Maintain(_, reply) => drop(reply.send(Err(error.clone()))),
            Command::Look => {}
        }
    }
}

/// What the writer says to an append. The request travels back with it: memory is cheapest to free
/// on the thread that took it (another one would have to lock that thread's heap).
pub(crate) struct Reply {
    pub(crate) outcome: Outcome,
    pub(crate) request: Box<Request>,
}

pub(crate) enum Outcome {
    Done(Result<Appended, Error>),
    /// The append's key is known: the caller compares with the append at this position.
    Seen(Position),
}

/// The callers' end.
pub(crate) struct Queue {
    sender: RwLock<Option<Sender<Command>>>,
    budget: Budget,
    deadline: Option<Duration>,
    /// Why the writer takes no more, once it does not.
    verdict: OnceLock<Error>,
    /// Where the writer is: a process forked from it has the queue, but no thread that empties it.
    process: u32,
}

impl Queue {
    /// Also gives the writer's end.
    pub(crate) fn new(
        commands_max: usize,
        bytes_max: usize,
        deadline: Option<Duration>,
    ) -> (Queue, Receiver<Command>) {
        let (sender, receiver) = flume::bounded(commands_max);
        let queue = Queue {
            sender: RwLock::new(Some(sender)),
            budget: Budget::new(bytes_max),
            deadline,
            verdict: OnceLock::new(),
            process: std::process::id(),
        };
        (queue, receiver)
    }

    /// Sends a command that holds `bytes`; waits while the queue is full, up to the deadline.
    pub(crate) fn send(&self, command: Command, bytes: usize) -> Result<(), Error> {
        let Some((command, sender)) = self.offer(command, bytes)? else { return Ok(()) };
        self.check_process()?;
        let deadline = self.deadline.and_then(|deadline| Instant::now().checked_add(deadline));
        if !self.budget.take(bytes, deadline) {
            return Err(busy());
        }
        let sent = match deadline {
            None => sender.send(command).map_err(|_| self.gone()),
            Some(deadline) => sender.send_deadline(command, deadline).map_err(|error| match error {
                SendTimeoutError::Timeout(_) => busy(),
                SendTimeoutError::Disconnected(_) => self.gone(),
            }),
        };
        sent.inspect_err(|_| self.budget.free(Weight::of(bytes)))
    }

    /// That the writer is in this process. A system call, so it is asked only before waiting.
    pub(crate) fn check_process(&self) -> Result<(), Error> {
        if std::process::id() == self.process { Ok(()) } else { Err(Error::forked()) }
    }

    /// Has the writer answer what was asked before, and take no more appends. Does not wait for that.
    pub(crate) fn poison(&self, reason: Error) -> Result<(), Error> {
        let (reply, _) = oneshot::channel();
        self.send(Command::Maintain(Maintenance::Poison(reason), reply), 0)
    }

    /// Sends without waiting.
    pub(crate) fn try_send(&self, command: Command, bytes: usize) -> Result<(), Error> {
        self.offer(command, bytes)?.map_or(Ok(()), |_| Err(busy()))
    }

    /// Sends a command if there is room for it; else gives it back, with a sender of one's own to
    /// wait with. Whoever waits must not hold the lock: behind it wait those who close, and behind
    /// them everybody else.
    fn offer(&self, command: Command, bytes: usize) -> Result<Option<(Command, Sender<Command>)>, Error> {
        let guard = self.sender.read();
        let sender = guard.as_ref().ok_or_else(Error::closed)?;
        if !self.budget.try_take(bytes) {
            return Ok(Some((command, sender.clone())));
        }
        let offered = match sender.try_send(command) {
            Ok(()) => return Ok(None),
            Err(TrySendError::Full(command)) => Ok(Some((command, sender.clone()))),
            Err(TrySendError::Disconnected(_)) => Err(self.gone()),
        };
        self.budget.free(Weight::of(bytes));
        offered
    }

    /// The writer took commands out.
    pub(crate) fn freed(&self, taken: Weight) {
        self.budget.free(taken);
    }

    /// Whether somebody has taken a command out and not said so yet, or is just putting one in: it must not be overtaken.
    pub(crate) fn has_one_in_hand(&self, receiver: &Receiver<Command>) -> bool {
        self.budget.used.lock().weight.commands > receiver.len()
    }

    /// Has the writer look when the next thing falls due. In a full queue there is something to wake it already.
    pub(crate) fn nudge(&self) {
        let _ = self.try_send(Command::Look, 0);
    }

    /// Lets the writer finish what is queued and then end.
    pub(crate) fn close(&self) {
        self.sender.write().take();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.sender.read().is_none()
    }

    /// The writer ends, or refuses everything, for this reason. The first one stays.
    pub(crate) fn condemn(&self, reason: Error) {
        let _ = self.verdict.set(reason);
        self.budget.end();
    }

    pub(crate) fn verdict(&self) -> Option<&Error> {
        self.verdict.get()
    }

    /// How many commands and bytes wait.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.sender.read().as_ref().map_or(0, Sender::len), self.budget.used.lock().weight.bytes)
    }

    fn gone(&self) -> Error {
        self.verdict().map_or_else(Error::closed, poisoned)
    }
}

/// What later appends are told once the writer failed for `reason`.
pub(crate) fn poisoned(reason: &Error) -> Error {
    let text =
        format!("the store takes no more appends ({reason}); this one was not written; reopen the store");
    Error::with_source(ErrorKind::Poisoned, text, reason.clone())
}

fn busy() -> Error {
    Error::new(ErrorKind::Busy, "the queue to the writer is full; nothing was written, try again later")
}

/// What commands take up in the queue.
#[derive(Clone, Copy, Default)]
pub(crate) struct Weight {
    pub(crate) commands: usize,
    pub(crate) bytes: usize,
}

impl Weight {
    /// One command of so many bytes.
    fn of(bytes: usize) -> Weight {
        Weight { commands: 1, bytes }
    }

    pub(crate) fn add(&mut self, other: Weight) {
        self.commands += other.commands;
        self.bytes += other.bytes;
    }
}

/// What the queue holds, and how many bytes it may. One command always fits, however large.
struct Budget {
    bytes_max: usize,
    used: Mutex<Used>,
    freed: Condvar,
}

#[derive(Default)]
struct Used {
    weight: Weight,
    /// Nobody will free anything any more, so nobody may wait for it.
    is_over: bool,
}

impl Used {
    fn fits(&self, bytes: usize, bytes_max: usize) -> bool {
        let used = self.weight.bytes;
        self.is_over || used == 0 || used.saturating_add(bytes) <= bytes_max
    }
}

impl Budget {
    fn new(bytes_max: usize) -> Budget {
        Budget { bytes_max, used: Mutex::new(Used::default()), freed: Condvar::new() }
    }

    fn try_take(&self, bytes: usize) -> bool {
        let mut used = self.used.lock();
        let fits = used.fits(bytes, self.bytes_max);
        if fits {
            used.weight.add(Weight::of(bytes));
        }
        fits
    }

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
