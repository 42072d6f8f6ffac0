//! Who does the writer's work: its thread, or a caller who is alone.
//!
//! A command that goes through the queue costs two sleeping threads a waking each, 5 to 40 us whatever the
//! channel; that is most of what a buffered append costs. So a caller who would wait anyway may do the work
//! itself, if nobody else does, and nothing is queued that it might overtake. It pays where no other append could
//! have shared its group: always for a buffered one, which is over in microseconds; for a durable one only after
//! its thread was the only one to append for a while, or the sync would be shared by fewer.
//!
//! Invariants:
//! - one holds the role at a time, and whoever holds it does the same work in the same way;
//! - appends of one thread keep their order: what it has in the queue is taken before it gets the role;
//! - what falls due is the thread's: it is told of it by whoever left it something.
//!
//! Row: writer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flume::{Receiver, RecvTimeoutError};
use parking_lot::Mutex;

use crate::append::Caller;
use crate::error::Error;
use crate::options::Durability;
use crate::queue::{Command, poisoned};
use crate::view::End;

use super::{State, Writer};

/// After so many groups of one append each, by one thread, that thread is alone.
const ALONE_AFTER: u32 = 8;

/// After a buffered group of so many appends somebody keeps many in flight, and the next ones are on
/// their way: so long they are left to gather. It costs less than to write them one by one, or to
/// sleep and have a caller pay for the waking. Synced groups need no pause; the sync is one.
const LINGER: Duration = Duration::from_micros(50);
const SEVERAL: usize = 16;

pub(crate) struct Role {
    /// `None` once it has ended.
    writer: Mutex<Option<Writer>>,
    /// Of appends that ask for nothing else.
    durability: Durability,
    /// The number of the caller who is alone, or 0.
    alone: AtomicU64,
    /// The number of the caller who has the role, or 0.
    borrower: AtomicU64,
}

impl Role {
    pub(crate) fn new(writer: Writer) -> Role {
        Role {
            durability: writer.options.durability,
            writer: Mutex::new(Some(writer)),
            alone: AtomicU64::new(0),
            borrower: AtomicU64::new(0),
        }
    }

    /// The thread's: works until the queue is closed and empty. Gives what closing gives.
    pub(crate) fn run(&self, commands: &Receiver<Command>) -> Result<(), Error> {
        loop {
            let (lingers, due) = self.held(Writer::before_waiting);
            if lingers {
                linger();
            }
            let received = match due {
                None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => commands.recv_deadline(due),
            };
            match received {
                Ok(Command::Look) => {}
                Ok(command) => self.held(|writer| writer.guarded(|writer| writer.serve(command))),
                Err(RecvTimeoutError::Timeout) => self.held(|writer| writer.guarded(Writer::do_what_is_due)),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let writer = self.writer.lock().take();
        writer.expect("only this thread takes it").end()
    }

    fn held<T>(&self, work: impl FnOnce(&mut Writer) -> T) -> T {
        let mut writer = self.writer.lock();
        let writer = writer.as_mut().expect("only this thread takes it");
        let done = work(writer);
        self.alone.store(writer.state.who_is_alone(), Ordering::Relaxed);
        done
    }

    /// Has this thread do the writer's work for its own append, if it may; else gives the command back.
    pub(crate) fn lend(&self, command: Command) -> Option<Command> {
        let Command::Append(request, _) = &command else { return Some(command) };
        let Some(caller) = request.caller else { return Some(command) };
        let is_buffered = request.durability.unwrap_or(self.durability) != Durability::Synced;
        if !is_buffered && self.alone.load(Ordering::Relaxed) != caller.number() {
            return Some(command);
        }
        let Some(mut writer) = self.writer.try_lock() else { return Some(command) };
        // A forked process has a copy of the role, and of the files.
        match &mut *writer {
            Some(writer) if writer.queue.is_empty() && writer.queue.check_process().is_ok() => {
                self.borrower.store(caller.number(), Ordering::Relaxed);
                writer.guarded(|writer| writer.serve(command));
                self.borrower.store(0, Ordering::Relaxed);
                self.alone.store(writer.state.who_is_alone(), Ordering::Relaxed);
                writer.tell_the_thread();
                None
            }
            _ => Some(command),
        }
    }

    /// Whether the thread this is called on has borrowed the role: then code of others runs within an append.
    pub(crate) fn is_lent_here(&self) -> bool {
        self.borrower.load(Ordering::Relaxed) == Caller::here().number()
    }
}

impl Writer {
    /// What the thread must know before it waits: whether it is to linger first, and what will fall due.
    fn before_waiting(&mut self) -> (bool, Option<Instant>) {
        let due = self.due();
        self.state.is_watched = due.is_some();
        (self.state.group >= SEVERAL && self.log.has_unsynced(), due)
    }

    /// Has the thread look what falls due, if it waits for nothing and now there is something.
    fn tell_the_thread(&mut self) {
        if !self.state.is_watched && self.due().is_some() {
            self.state.is_watched = true;
            self.queue.nudge();
        }
    }

    /// Commits what is queued, from this command on.
    fn serve(&mut self, first: Command) {
        match &self.state.over {
            None => self.take_and_commit(first),
            Some(error) => first.refuse(&poisoned(error)),
        }
    }

    /// Closes the log. Gives what closing gives.
    fn end(mut self) -> Result<(), Error> {
        let mut ended = Ok(());
        self.guarded(|writer| ended = writer.close());
        let ended = self.state.over.take().map_or(ended, Err);
        self.view.end(ended.clone().map_or_else(End::Failed, |()| End::Closed));
        self.view.wake();
        self.listeners.end();
        ended
    }
}

impl State {
    fn who_is_alone(&self) -> u64 {
        self.caller.filter(|_| self.alone >= ALONE_AFTER).map_or(0, Caller::number)
    }
}

fn linger() {
    let began = Instant::now();
    while began.elapsed() < LINGER {
        std::hint::spin_loop();
    }
}
