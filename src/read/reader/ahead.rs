//! Reading ahead: the read goes on, on a thread of its own, while its events are being looked at.
//!
//! Row: reader.

use std::iter::FusedIterator;

use crate::event::RecordedEvent;
use crate::threads::WorkerThread;
use crate::types::Error;

use super::Read;

type Item = Result<RecordedEvent, Error>;

/// The most events handed over at once.
const BATCH_EVENTS: usize = 4096;
/// Batches that wait: so many that neither side often waits for the other.
const WAITING: usize = 4;

/// A [`Read`] that is done ahead, by a thread of its own; see [`Read::read_ahead`].
#[must_use = "a read does nothing until it is iterated"]
pub struct ReadAhead {
    state: State,
    batch: std::vec::IntoIter<Item>,
}

enum State {
    Waiting(Box<Read>),
    Running { batches: flume::Receiver<Vec<Item>>, thread: WorkerThread },
    Ended,
}

impl ReadAhead {
    pub(super) fn new(read: Read) -> ReadAhead {
        ReadAhead { state: State::Waiting(Box::new(read)), batch: Vec::new().into_iter() }
    }

    /// The next batch; an empty one at the end.
    fn next_batch(&mut self) -> Vec<Item> {
        self.state = match std::mem::replace(&mut self.state, State::Ended) {
            State::Waiting(read) => match start(*read) {
                Ok(running) => running,
                Err(error) => return vec![Err(error)],
            },
            state => state,
        };
        let State::Running { batches, .. } = &self.state else { return Vec::new() };
        batches.recv().unwrap_or_else(|_| {
            self.end();
            Vec::new()
        })
    }

    /// Ends the thread, and joins it: it finds nobody to hand its next batch to.
    fn end(&mut self) {
        if let State::Running { batches, thread } = std::mem::replace(&mut self.state, State::Ended) {
            drop(batches);
            if let Some(Err(panic)) = thread.join()
                && !std::thread::panicking()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

fn start(read: Read) -> Result<State, Error> {
    let (sender, batches) = flume::bounded(WAITING);
    let thread = WorkerThread::new("annals-read-ahead");
    let started = thread.start(move || {
        let mut batches = Batches { read, next: None };
        while let Some(batch) = batches.next() {
            if sender.send(batch).is_err() {
                return;
            }
        }
    });
    started.map_err(|error| Error::io("cannot start", "the thread that reads ahead", error))?;
    Ok(State::Running { batches, thread })
}

/// Parts a read where its blocks end. The events of a block count in it who holds it: two threads at that
/// count, one taking events out and the other dropping them, would cost each of them dearly.
struct Batches {
    read: Read,
    /// The first item of the next batch.
    next: Option<Item>,
}

impl Batches {
    fn next(&mut self) -> Option<Vec<Item>> {
        let mut batch = vec![self.next.take().or_else(|| self.read.next())?];
        for item in self.read.by_ref() {
            let is_of_batch = match (&batch[0], &item) {
                (Ok(first), Ok(event)) => event.shares_block_with(first) && batch.len() < BATCH_EVENTS,
                _ => false,
            };
            if !is_of_batch {
                self.next = Some(item);
                break;
            }
            batch.push(item);
        }
        Some(batch)
    }
}

impl Iterator for ReadAhead {
    type Item = Item;

    #[inline(always)]
    fn next(&mut self) -> Option<Item> {
        if let Some(item) = self.batch.next() {
            return Some(item);
        }
        self.batch = self.next_batch().into_iter();
        self.batch.next()
    }
}

impl FusedIterator for ReadAhead {}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.end();
    }
}
