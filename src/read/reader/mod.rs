//! The reader: from a position to the head, forwards or backwards, then end.
//!
//! A read takes a snapshot when it begins and holds no lock between items. It asks the index of one segment
//! after the other, in growing windows, and reads the frames it finds. Frames that lie close together take
//! one read; each is checked against its checksums.
//!
//! Finding an event and returning it are two steps, and `inline(always)` marks the path between them. An
//! event that is moved through each function's result costs a quarter more (97 instead of 77 ns, from
//! memory).

mod active;
mod batch;
mod cursor;
mod lookup;

use std::iter::FusedIterator;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::SystemTime;

use crate::event::RecordedEvent;
use crate::threads::WorkerThread;
use crate::types::{Error, Position, Query, ResumeToken};

use super::view::LogView;
use active::{ActiveRead, ReadPlan, half_open, half_open_micros, in_micros};

pub(crate) use active::Origin;
pub(crate) use lookup::{
    EventLookup, by_either_id, count_in, event_at, event_with, exists, first_in, header_of, last, with_frame,
};

/// Events being read: an iterator, and until its first item a builder of what to read.
///
/// It sees the store as it was at its first item, and ends at the head of that moment. An error comes as an
/// item and ends the read; no event is skipped silently.
///
/// ```
/// use annals::{Query, Raw, Store};
///
/// let store = Store::in_memory()?;
/// for cents in [500, 700, 900] {
///     store.append("account:alice", &Raw("account.deposited", &cents))?;
/// }
/// let newest = store.stream("account:alice").backwards().limit(2);
/// let cents: Vec<u64> = newest.map(|event| event?.decode()).collect::<Result<_, _>>()?;
/// assert_eq!(cents, [900, 700]);
/// # Ok::<(), annals::Error>(())
/// ```
#[must_use = "a read does nothing until it is iterated"]
pub struct Read {
    plan: ReadPlan,
    active: Option<ActiveRead>,
    ended: bool,
    /// An error of the builder, which comes as the first item.
    refused: Option<Error>,
}

impl Read {
    pub(crate) fn new(view: Result<Arc<LogView>, Error>, query: Query) -> Read {
        let plan = ReadPlan {
            view,
            query,
            after: Position::START,
            origin: Origin::default(),
            up_to: None,
            versions: None,
            between: None,
            occurred: None,
            backwards: false,
            limit: u64::MAX,
            whole_appends: false,
        };
        Read { plan, active: None, ended: false, refused: None }
    }

    /// Only events after this position (default: [`Position::START`], all events).
    ///
    /// A position beyond the head belongs to another history: the first item is then an
    /// [`ErrorKind::RolledBack`](crate::ErrorKind::RolledBack), unless [`Read::allow_beyond_head`] was
    /// called. [`Read::resume`] also notices a changed history before the head.
    pub fn after(mut self, position: Position) -> Read {
        self.plan.after = position;
        self.plan.origin.token = None;
        self
    }

    /// Only events after the position of a token. If the log has other events there now, or ends before it,
    /// the first item is an [`ErrorKind::RolledBack`](crate::ErrorKind::RolledBack).
    pub fn resume(mut self, token: ResumeToken) -> Read {
        self.plan.after = token.position();
        self.plan.origin.token = Some(token);
        self
    }

    /// A position beyond the head is no error (default: it is). No event comes, unless the log has events
    /// behind the position by the first item. For positions of events that are not visible here yet, as in a
    /// store opened to read.
    pub fn allow_beyond_head(mut self) -> Read {
        self.plan.origin.may_be_ahead = true;
        self
    }

    /// Only these versions of the stream: `2..`, `..=5`. The query must select one entity and have no other
    /// condition; otherwise the first item is an [`ErrorKind::Invalid`](crate::ErrorKind::Invalid).
    pub fn versions(mut self, versions: impl RangeBounds<u64>) -> Read {
        if self.plan.query.single_stream().is_none() {
            self.refused =
                Some(Error::invalid("versions(..) counts within one stream; read store.stream(entity)"));
        }
        self.plan.versions = Some(half_open(&versions, 0, u64::MAX, |version| version.saturating_add(1)));
        self
    }

    /// Only events recorded in this range of time, compared in whole microseconds. Costs a few reads to find
    /// both ends, then as much as the events it returns.
    pub fn between(mut self, times: impl RangeBounds<SystemTime>) -> Read {
        self.plan.between = Some(half_open_micros(&times));
        self
    }

    /// Only events whose occurred-at lies in this range of time, compared in whole microseconds. This is a
    /// filter: the read also reads the events it drops.
    pub fn occurred(mut self, times: impl RangeBounds<SystemTime>) -> Read {
        self.plan.occurred = Some(in_micros(&times));
        self
    }

    /// Newest first. Taking n events looks up about n.
    pub fn backwards(mut self) -> Read {
        self.plan.backwards = true;
        self
    }

    /// At most this many events (default: all). Taking n events looks up about n.
    pub fn limit(mut self, events: u64) -> Read {
        self.plan.limit = events;
        self
    }

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
        ReadAhead { state: AheadState::NotStarted(Box::new(self)), batch: Vec::new().into_iter() }
    }

    /// Reads whole appends, so that an event finds the others of its append and their idempotency key.
    #[cfg(feature = "jsonl")]
    pub(crate) fn whole_appends(mut self) -> Read {
        self.plan.whole_appends = true;
        self
    }

    /// Begins again, with the events after one position of this log and up to another.
    pub(crate) fn restart(&mut self, after: Position, up_to: Position) {
        self.plan.after = after;
        self.plan.up_to = Some(up_to);
        self.plan.origin = Origin::KNOWN;
        self.active = None;
        self.ended = false;
    }

    /// Finds the next event, if there is one.
    #[inline(always)]
    fn find(&mut self) -> Result<bool, Error> {
        if self.active.is_none() && !self.ended {
            self.begin()?;
        }
        self.active.as_mut().map_or(Ok(false), |active| active.find(&self.plan))
    }

    /// Takes the snapshot to read from.
    #[cold]
    fn begin(&mut self) -> Result<(), Error> {
        match self.refused.take() {
            Some(error) => Err(error),
            None => ActiveRead::begin(&mut self.plan).map(|begun| self.active = Some(begun)),
        }
    }
}

impl Iterator for Read {
    type Item = Result<RecordedEvent, Error>;

    fn next(&mut self) -> Option<Result<RecordedEvent, Error>> {
        let found = self.find();
        if let (Ok(true), Some(active)) = (&found, &self.active) {
            return Some(Ok(active.event()));
        }
        // Now, and not when the read is dropped: a subscription keeps its read while it sleeps, and must not
        // keep the last block.
        self.active = None;
        self.ended = true;
        found.err().map(Err)
    }
}

impl FusedIterator for Read {}

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

impl ReadAhead {
    /// The next batch; an empty one at the end.
    fn next_batch(&mut self) -> Vec<Item> {
        self.state = match std::mem::replace(&mut self.state, AheadState::Ended) {
            AheadState::NotStarted(read) => match start_thread(*read) {
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

fn start_thread(read: Read) -> Result<AheadState, Error> {
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

/// The token of a position. If its event was removed, the token of the last event before it.
///
/// # Errors
///
/// `RolledBack` if the position lies beyond the head; those of reading.
pub(crate) fn token_at(view: &Arc<LogView>, position: Position) -> Result<ResumeToken, Error> {
    let snapshot = view.snapshot();
    Origin::default().check(position, &snapshot)?;
    if position == snapshot.head.position {
        return Ok(ResumeToken::new(position, &snapshot.head.chain));
    }
    if let Some(event) = event_at(&snapshot, position)? {
        return Ok(event.resume_token());
    }
    let everything = Query::all().or(Query::entity_prefix("$"));
    let mut before = Read::new(Ok(view.clone()), everything).backwards();
    before.restart(Position::START, position);
    Ok(before.next().transpose()?.map_or(ResumeToken::START, |event| event.resume_token()))
}
