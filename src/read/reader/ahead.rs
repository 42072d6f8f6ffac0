//! Reading ahead: a thread of its own reads and checks events while the caller handles earlier ones.

use std::iter::FusedIterator;

use crate::event::RecordedEvent;
use crate::threads::WorkerThread;
use crate::types::Error;

use super::Read;

type Item = Result<RecordedEvent, Error>;

/// The most events sent at once.
const BATCH_EVENTS_MAX: usize = 4096;
/// The batches that may wait in the channel: enough that neither side often waits for the other.
const BATCHES_WAITING_MAX: usize = 4;

/// A [`Read`] that runs ahead on a thread of its own; see [`Read::read_ahead`].
#[must_use = "a read does nothing until it is iterated"]
pub struct ReadAhead {
    state: AheadState,
    batch: std::vec::IntoIter<Item>,
}

enum AheadState {
    NotStarted(Box<Read>),
    Running { batches: flume::Receiver<Vec<Item>>, thread: WorkerThread },
    Ended,
}

impl Read {
    /// Reads and checks on a thread of its own, up to some thousand events ahead of the caller.
    ///
    /// For long replays with work for each event (decoding, folding). With a spare core they take about a
    /// third less time, and the caller does not wait for a slow disk. It costs about 1 MiB and a thread,
    /// which starts at the first event and is joined at the end or on drop. For a few events it does not pay.
    ///
    /// ```
    /// use annals::{Query, Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// for cents in [500, 700, 900] {
    ///     store.append("account:alice", &Raw("account.deposited", &cents))?;
    /// }
    /// let all = store.read(Query::all()).read_ahead();
    /// let cents: u64 = all.map(|event| event?.decode::<u64>()).sum::<Result<u64, annals::Error>>()?;
    /// assert_eq!(cents, 2100);
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn read_ahead(self) -> ReadAhead {
        ReadAhead::new(self)
    }
}

impl ReadAhead {
    pub(super) fn new(read: Read) -> ReadAhead {
        ReadAhead { state: AheadState::NotStarted(Box::new(read)), batch: Vec::new().into_iter() }
    }

    /// The next batch; an empty one at the end.
    fn next_batch(&mut self) -> Vec<Item> {
        self.state = match std::mem::replace(&mut self.state, AheadState::Ended) {
            AheadState::NotStarted(read) => match start(*read) {
                Ok(running) => running,
                Err(error) => return vec![Err(error)],
            },
            state => state,
        };
        let AheadState::Running { batches, .. } = &self.state else { return Vec::new() };
        batches.recv().unwrap_or_else(|_| {
            self.end();
            Vec::new()
        })
    }

    /// Joins the thread. It ends because its channel has no receiver any more.
    fn end(&mut self) {
        if let AheadState::Running { batches, thread } = std::mem::replace(&mut self.state, AheadState::Ended)
        {
            // Before the join: the thread may be waiting for room in the channel.
            drop(batches);
            if let Some(Err(panic)) = thread.join()
                && !std::thread::panicking()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

fn start(read: Read) -> Result<AheadState, Error> {
    let (sender, batches) = flume::bounded(BATCHES_WAITING_MAX);
    let thread = WorkerThread::new("annals-read-ahead");
    let started = thread.start(move || {
        let mut batches = BlockBatches { read, next: None };
        while let Some(batch) = batches.next() {
            if sender.send(batch).is_err() {
                return;
            }
        }
    });
    started.map_err(|error| Error::io("cannot start", "the thread that reads ahead", error))?;
    Ok(AheadState::Running { batches, thread })
}

/// Splits a read into batches at the ends of its blocks. All events of a block share its reference count. If
/// this thread took events out of a block while the caller drops others, the two would contend for that
/// count.
struct BlockBatches {
    read: Read,
    /// The first item of the next batch.
    next: Option<Item>,
}

impl BlockBatches {
    fn next(&mut self) -> Option<Vec<Item>> {
        let mut batch = vec![self.next.take().or_else(|| self.read.next())?];
        for item in self.read.by_ref() {
            let is_of_batch = match (&batch[0], &item) {
                (Ok(first), Ok(event)) => event.shares_block_with(first) && batch.len() < BATCH_EVENTS_MAX,
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
