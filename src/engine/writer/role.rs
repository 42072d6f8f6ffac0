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

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flume::{Receiver, RecvTimeoutError};
use parking_lot::Mutex;

use crate::engine::append::Caller;
use crate::engine::queue::{Command, poisoned};
use crate::log::Failure;
use crate::read::{CloseReason, LogView, build_last_index, build_pending_indexes};
use crate::types::{Durability, Error};

use super::gather::{Answered, Gathering};
use super::{State, Writer};

/// After so many groups of one append each, by one thread, that thread is alone.
const ALONE_AFTER: u32 = 8;

/// After a buffered group of so many appends somebody keeps many in flight, and the next ones are on
/// their way: so long they are left to gather. It costs less than to write them one by one, or to
/// sleep and have a caller pay for the waking. After a synced group [`Gathering`] decides.
const LINGER: Duration = Duration::from_micros(50);
const SEVERAL: usize = 16;

pub(crate) struct Role {
    /// `None` once it has ended.
    writer: Mutex<Option<Writer>>,
    /// Of appends that ask for nothing else.
    durability: Durability,
    view: Arc<LogView>,
    /// The number of the caller who is alone, or 0.
    alone: AtomicU64,
    /// The number of the caller who has the role, or 0.
    borrower: AtomicU64,
}

impl Role {
    pub(crate) fn new(writer: Writer) -> Role {
        Role {
            durability: writer.options.durability,
            view: writer.view.clone(),
            writer: Mutex::new(Some(writer)),
            alone: AtomicU64::new(0),
            borrower: AtomicU64::new(0),
        }
    }

    /// The thread's: works until the queue is closed and empty. Gives what closing gives.
    pub(crate) fn run(&self, commands: &Receiver<Command>) -> Result<(), Error> {
        let mut gathering = Gathering::default();
        loop {
            let next = self.held(|writer| writer.next());
            let received = match next {
                Next::Served => continue,
                Next::Linger => {
                    linger();
                    continue;
                }
                Next::Gather(answered) => {
                    gathering.wait(answered, || commands.len());
                    continue;
                }
                Next::Sleep(None) => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Next::Sleep(Some(due)) => commands.recv_deadline(due),
            };
            match received {
                Ok(look @ Command::Look) => self.held(|writer| writer.queue.freed(look.weight())),
                Ok(command) => self.held(|writer| writer.guarded(|writer| writer.serve(command))),
                Err(RecvTimeoutError::Timeout) => self.held(|writer| writer.guarded(Writer::do_what_is_due)),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let writer = self.writer.lock().take();
        writer.expect("only this thread takes it").end()
    }

    /// Works with the role in hand, and answers when it is free again.
    fn held<T>(&self, work: impl FnOnce(&mut Writer) -> T) -> T {
        let mut guard = self.writer.lock();
        let writer = guard.as_mut().expect("only this thread takes it");
        let done = work(writer);
        self.alone.store(writer.state.who_is_alone(), Ordering::Relaxed);
        let unsaid = std::mem::take(&mut writer.state.unsaid);
        drop(guard);
        unsaid.say(&self.view);
        done
    }

    /// Has this thread do the writer's work for its own append, if it may; else gives the command back.
    pub(crate) fn lend(&self, command: Command) -> Option<Command> {
        let Some(caller) = self.may_borrow(&command) else { return Some(command) };
        let Some(mut guard) = self.writer.try_lock() else { return Some(command) };
        let Some(writer) = guard.as_mut().filter(|writer| writer.may_be_lent()) else { return Some(command) };
        self.borrower.store(caller.number(), Ordering::Relaxed);
        let mut left = None;
        writer.guarded(|writer| left = writer.serve_after_all(command));
        self.borrower.store(0, Ordering::Relaxed);
        self.alone.store(writer.state.who_is_alone(), Ordering::Relaxed);
        writer.tell_the_thread();
        let unsaid = std::mem::take(&mut writer.state.unsaid);
        drop(guard);
        unsaid.say(&self.view);
        left
    }

    /// Who waits for an append that is worth it.
    fn may_borrow(&self, command: &Command) -> Option<Caller> {
        let Command::Append(request, _) = command else { return None };
        let caller = request.caller?;
        let is_buffered = request.durability.unwrap_or(self.durability) != Durability::Synced;
        let may = is_buffered || self.alone.load(Ordering::Relaxed) == caller.number();
        may.then_some(caller)
    }

    /// Whether the thread this is called on has borrowed the role: then code of others runs within an append.
    pub(crate) fn is_lent_here(&self) -> bool {
        self.borrower.load(Ordering::Relaxed) == Caller::here().number()
    }
}

impl Writer {
    /// Commits what is queued, if anything is; or says how to wait for it.
    fn next(&mut self) -> Next {
        if self.state.group >= SEVERAL && self.log.has_unsynced() {
            self.state.group = 0;
            return Next::Linger;
        }
        if let Some(answered) = self.state.answered.take() {
            return Next::Gather(answered);
        }
        if let Ok(first) = self.commands.try_recv() {
            self.guarded(|writer| writer.serve(first));
            return Next::Served;
        }
        let due = self.due();
        self.state.is_watched = due.is_some();
        Next::Sleep(due)
    }

    /// Whether nothing would be overtaken. A forked process has a copy of the role, and of the files.
    fn may_be_lent(&self) -> bool {
        self.state.over.is_none()
            && !self.queue.has_one_in_hand(&self.commands)
            && self.queue.check_process().is_ok()
    }

    /// Has the thread look what falls due, if it waits for nothing and now there is something.
    fn tell_the_thread(&mut self) {
        if !self.state.is_watched && self.due().is_some() {
            self.state.is_watched = true;
            self.queue.nudge();
        }
    }

    fn close(&mut self) -> Result<(), Error> {
        match &self.state.poison {
            _ if self.state.over.is_some() => Ok(()),
            Some(reason) => Err(poisoned(reason)),
            None => {
                self.log.close()?;
                self.log.check_names(true).map_err(Failure::into_error)?;
                build_pending_indexes(&self.view, &self.shelf);
                build_last_index(&self.view, &self.shelf, self.log.written());
                // What was buffered is durable now, and those who wait for that shall see it.
                self.publish_heads();
                Ok(())
            }
        }
    }

    /// Closes the log. Gives what closing gives.
    fn end(mut self) -> Result<(), Error> {
        let mut ended = Ok(());
        self.helper.close();
        self.guarded(|writer| ended = writer.close());
        let ended = self.state.over.take().map_or(ended, Err);
        self.view.close(ended.clone().map_or_else(CloseReason::WriterFailed, |()| CloseReason::Closed));
        self.view.wake();
        self.listeners.end();
        ended
    }
}

impl State {
    fn who_is_alone(&self) -> u64 {
        self.last_caller.filter(|_| self.alone >= ALONE_AFTER).map_or(0, Caller::number)
    }
}

/// What the thread does next.
enum Next {
    /// It has worked, and looks again.
    Served,
    Linger,
    /// A group was synced and answered.
    Gather(Answered),
    /// Nothing is queued: it sleeps until something is, or something falls due.
    Sleep(Option<Instant>),
}

fn linger() {
    let began = Instant::now();
    while began.elapsed() < LINGER {
        std::hint::spin_loop();
    }
}
