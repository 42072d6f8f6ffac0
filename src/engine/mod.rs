//! One open store: the log, its writer and its readers as one thing.
//!
//! The engine owns the writer thread: it starts the thread, ends it by closing the queue, and joins it. The
//! lock on the store lives as long as that thread.

mod append;
mod counters;
mod decide;
mod follower;
mod open;
mod precheck;
mod queue;
mod ticket;
mod writer;

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oneshot::{RecvTimeoutError, Sender};
use parking_lot::Mutex;

use crate::disk::{Disk, Lock};
use crate::engine::counters::Counters;
use crate::engine::follower::Follower;
use crate::engine::open::{Writable, load_to_write};
use crate::engine::precheck::{KeyLookup, precheck};
use crate::engine::queue::{
    Caller, Command, Queue, key_not_looked_up, not_acknowledged, poisoned, unanswered, writer_ended,
};
use crate::engine::ticket::receipt_of;
use crate::engine::writer::{CommitGroup, Lifecycle, Session, SharedWriter, Writer, check_older_segments};
use crate::event::Appended;
use crate::read::{
    Listeners, LogView, Notifications, PartIndexer, SegmentCache, Snapshot, Subscription,
    build_pending_indexes, index_is_pending, reader,
};
use crate::threads::{BackgroundThread, WorkerThread, once};
use crate::types::{Error, ErrorKind, OpenReport, Options, Position, Query, Stats, WriterState, options};

pub use append::{Append, Proposed, ProposedEvent};
pub(crate) use append::{Keyed, Request, Salts};
pub(crate) use open::{Readable, load_to_read};
pub(crate) use queue::Maintenance;
pub use ticket::{Pending, Ticket};

/// An open store.
pub(crate) struct Engine {
    pub(crate) view: Arc<LogView>,
    listeners: Arc<Listeners>,
    pub(crate) store_id: [u8; 16],
    pub(crate) report: OpenReport,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: Options,
    queue: Arc<Queue>,
    salts: Salts,
    /// Runs short jobs: builds indexes, checks old segments.
    pub(crate) background: Arc<BackgroundThread>,
    /// Runs rewrites of segments. They take long, and the background thread must index new segments in that
    /// time.
    pub(crate) rewrite_thread: Arc<BackgroundThread>,
    counters: Arc<Mutex<Counters>>,
    /// `None` in a store opened to read.
    writer: Option<Arc<SharedWriter>>,
    /// Not started in a store opened to read.
    writer_thread: WorkerThread<Result<(), Error>>,
    /// The result of closing, once the writer thread was joined.
    writer_result: Mutex<Result<(), Error>>,
    is_read_only: bool,
    /// Follows the writer of another process. `None` in a store opened to write, or damaged.
    follower: Option<Arc<Follower>>,
    /// `None` in a store opened to read.
    pub(crate) segment_cache: Option<Arc<SegmentCache>>,
    /// Held to rewrite segments, or to keep them as they are.
    pub(crate) rewriting: Mutex<()>,
}

/// How a caller hands an append to the writer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handover {
    /// The caller waits for the outcome next, so it may commit the append itself.
    AndWait,
    /// The caller waits for room in the queue only.
    Queue,
    /// The caller waits for nothing: `Busy` if the queue is full.
    TryQueue,
}

impl Engine {
    /// Opens a store to read and write. Creates the store if there is none.
    pub(crate) fn open(disk: Arc<dyn Disk>, options: Options, wait: Duration) -> Result<Engine, Error> {
        let lock = lock(disk.as_ref(), wait)?;
        let background = Arc::<BackgroundThread>::default();
        let Writable { log, heads, segments, segment_cache, streams, store_id, history, report } =
            load_to_write(&disk, &options, &background)?;
        let segment = segments.last().cloned().expect("the log has a segment");
        let view = Arc::new(LogView::new(segments, log.written().into(), options.recent_bytes_max));
        view.set_history(history);
        let (queue, commands) =
            Queue::new(options.queue_commands_max, options.queue_bytes_max, options.queue_deadline);
        let queue = Arc::new(queue);
        let counters = Arc::new(Mutex::new(Counters::new(store_id, streams)));
        let salt = disk.random().map_err(|error| Error::io("cannot get random bytes for", "salts", error))?;
        let listeners = Arc::<Listeners>::default();
        build_indexes_later(&view, &segment_cache, &background);
        let writer = Arc::new(SharedWriter::new(Writer {
            disk: disk.clone(),
            options: options.clone(),
            log,
            heads,
            streams_at_start: streams,
            view: view.clone(),
            segment_cache: segment_cache.clone(),
            background: background.clone(),
            zeroing: BackgroundThread::new("annals-zeros"),
            listeners: listeners.clone(),
            segment,
            part_indexer: PartIndexer::new(view.clone(), segment_cache.clone(), background.clone()),
            queue: queue.clone(),
            commands: commands.clone(),
            counters: counters.clone(),
            lifecycle: Lifecycle::Working,
            group: CommitGroup::new(),
            session: Session::new(),
            restarts: 0,
        }));
        // After this line nothing may fail: the thread holds the lock, and only an engine ends the thread.
        let writer_thread = WorkerThread::new("annals-writer");
        let of_thread = writer.clone();
        let started = writer_thread.start(move || {
            let _held = lock;
            of_thread.run(&commands)
        });
        started.map_err(|error| Error::io("cannot start", "the writer thread", error))?;
        check_older_segments(&view, &queue, &background);
        Ok(Engine {
            view,
            listeners,
            store_id,
            report,
            disk,
            options,
            queue,
            salts: Salts::new(salt),
            background,
            rewrite_thread: rewrite_thread(),
            counters,
            writer: Some(writer),
            writer_thread,
            writer_result: Mutex::new(Ok(())),
            is_read_only: false,
            follower: None,
            segment_cache: Some(segment_cache),
            rewriting: Mutex::default(),
        })
    }

    /// A store to read. Nothing is ever written.
    pub(crate) fn to_read(disk: Arc<dyn Disk>, loaded: Readable, options: Options) -> Engine {
        let Readable { streams, history, segments, segment_cache, head, store_id, report, end } = loaded;
        let (queue, _) = Queue::new(1, 1, None);
        let view = Arc::new(LogView::new(segments, head, 0));
        view.set_history(history);
        let listeners = Arc::<Listeners>::default();
        let background = match &segment_cache {
            Some(segment_cache) => segment_cache.background().clone(),
            None => Arc::default(),
        };
        let follower = end.zip(segment_cache).map(|(end, segment_cache)| {
            let view = view.clone();
            let listeners = listeners.clone();
            let every = options.follow_every;
            Arc::new(Follower::new(disk.clone(), view, listeners, store_id, segment_cache, every, end))
        });
        Engine {
            view,
            listeners,
            store_id,
            report,
            disk,
            options,
            queue: Arc::new(queue),
            salts: Salts::new([0; 32]),
            background,
            rewrite_thread: rewrite_thread(),
            counters: Arc::new(Mutex::new(Counters::new(store_id, streams))),
            writer: None,
            writer_thread: WorkerThread::new("annals-writer"),
            writer_result: Mutex::new(Ok(())),
            is_read_only: true,
            follower,
            segment_cache: None,
            rewriting: Mutex::default(),
        }
    }

    /// Appends, and waits for the outcome.
    pub(crate) fn commit(&self, append: Append) -> Result<Appended, Error> {
        let ticket = self.submit(append, Handover::AndWait)?;
        match self.options.ack_deadline {
            None => ticket.wait(),
            Some(deadline) => {
                ticket.wait_timeout(deadline).unwrap_or_else(|_| Err(not_acknowledged(deadline)))
            }
        }
    }

    /// Encodes an append, checks it against what is published, and hands it to the writer.
    pub(crate) fn submit(&self, append: Append, handover: Handover) -> Result<Ticket, Error> {
        self.check_writable()?;
        let mut request = append.at(&self.options.clock).encode(&self.options.limits, &self.salts)?;
        precheck(&mut request, &self.view, self.options.key_window)?;
        let mut caller = None;
        if handover == Handover::AndWait {
            // A caller that waits does not notice what a look at the clock costs. Of other appends, encoding
            // timed a sample.
            request.encoded_at.get_or_insert_with(Instant::now);
            // A caller with a deadline cannot commit on its own thread: it could not stop waiting for the
            // disk.
            if self.options.ack_deadline.is_none() {
                caller = Some(Caller::current());
            }
        }
        let bytes = request.body.len();
        let (reply, answer) = oneshot::channel();
        let command = Command::Append(Box::new(request), caller, reply);
        let command = match &self.writer {
            Some(writer) => writer.try_commit_direct(command),
            None => Some(command),
        };
        if let Some(command) = command {
            match handover {
                Handover::AndWait | Handover::Queue => self.queue.send(command, bytes)?,
                Handover::TryQueue => self.queue.try_send(command, bytes)?,
            }
        }
        Ok(Ticket::new(answer, self.view.clone(), self.queue.clone()))
    }

    /// The receipt of the append that has this key, while the key is remembered. `Busy` after the deadline
    /// for acknowledgements.
    pub(crate) fn find_key(&self, keyed: Keyed) -> Result<Option<Appended>, Error> {
        self.check_writable()?;
        let lookup = KeyLookup::new(&keyed, &self.snapshot()?, self.options.key_window)?;
        let (reply, answer) = oneshot::channel();
        self.queue.send(Command::FindKey(Box::new(lookup), reply), 0)?;
        self.queue.check_process()?;
        let deadline = self.options.ack_deadline.and_then(|deadline| Instant::now().checked_add(deadline));
        let found = match deadline {
            None => answer.recv().ok(),
            Some(deadline) => match answer.recv_deadline(deadline) {
                Err(RecvTimeoutError::Timeout) => return Err(key_not_looked_up()),
                found => found.ok(),
            },
        };
        match found.ok_or_else(|| unanswered(self.queue.poisoned()))?? {
            Some(position) => receipt_of(&self.view, position, &keyed).map(Some),
            None => Ok(None),
        }
    }

    /// Fails if the store takes no appends.
    pub(crate) fn check_writable(&self) -> Result<(), Error> {
        if self.is_read_only {
            return Err(Error::invalid(
                "the store was opened to read only; open it with Store::open to append",
            ));
        }
        self.queue.check_open()
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// Makes everything acknowledged so far durable. Returns the position up to which that is.
    pub(crate) fn sync(&self) -> Result<Position, Error> {
        if self.is_read_only {
            return Ok(self.snapshot()?.durable.position);
        }
        self.ask_writer(Command::Sync)
    }

    /// Asks the writer for a step of a rewrite of segments. Returns the history revision.
    pub(crate) fn maintain(&self, maintenance: Maintenance) -> Result<u64, Error> {
        self.check_writable()?;
        self.ask_writer(|reply| Command::Maintain(maintenance, reply))
    }

    fn ask_writer<T>(&self, command: impl FnOnce(Sender<Result<T, Error>>) -> Command) -> Result<T, Error> {
        self.queue.check_process()?;
        let (reply, answer) = oneshot::channel();
        self.queue.send(command(reply), 0)?;
        answer.recv().unwrap_or_else(|_| Err(self.queue.poisoned().map_or_else(writer_ended, poisoned)))
    }

    /// What readers see now.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, Error> {
        self.readable().map(|view| view.snapshot())
    }

    /// Fails if opening found that a part of the store is missing.
    pub(crate) fn check_whole(&self) -> Result<(), Error> {
        if self.is_read_only && self.follower.is_none() {
            return Err(Error::invalid("what is left of a damaged store cannot be copied as a store"));
        }
        self.check_open()
    }

    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.queue.is_closed() { Err(Error::closed()) } else { Ok(()) }
    }

    pub(crate) fn readable(&self) -> Result<Arc<LogView>, Error> {
        self.check_open()?;
        if let Some(follower) = &self.follower {
            follower.refresh()?;
        }
        Ok(self.view.clone())
    }

    pub(crate) fn subscribe(&self, query: Query) -> Subscription {
        Subscription::new(self.growing_view(), query)
    }

    pub(crate) fn notifications(&self, query: Query) -> Notifications {
        let view = self.growing_view();
        let by_either_id = match &view {
            Ok(view) => reader::by_either_id(&view.snapshot(), query.clone()).ok(),
            Err(_) => None,
        };
        // If the id cannot be looked up, the view has an error that the receiver hears, or a reader meets it
        // again.
        Notifications::new(view, &self.listeners, by_either_id.unwrap_or(query))
    }

    /// The view of a store that may still grow.
    fn growing_view(&self) -> Result<Arc<LogView>, Error> {
        match &self.follower {
            Some(follower) => Follower::poll(follower)?,
            None if self.is_read_only => {
                return Err(Error::invalid("the store is damaged, and no writer has it; read what is left"));
            }
            None => {}
        }
        self.readable()
    }

    pub(crate) fn writer(&self) -> Result<WriterState, Error> {
        match &self.follower {
            Some(follower) => follower.writer(),
            None if self.is_read_only => Ok(WriterState::Gone),
            None => Ok(WriterState::Here),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let snapshot = self.view.snapshot();
        let (queue_commands, queue_bytes) = self.queue.waiting();
        let subscription_lags = self.view.subscription_lags();
        let mut stats = Stats {
            events: snapshot.segments.iter().map(|segment| u64::from(segment.events())).sum(),
            bytes: snapshot.bytes(),
            index_bytes: snapshot.index_bytes(),
            resident_bytes: snapshot.resident_bytes(),
            segments: snapshot.files(),
            queue_commands,
            queue_bytes,
            head: snapshot.head.position,
            durable_head: snapshot.durable.position,
            recorded_ahead: self.recorded_ahead(&snapshot),
            subscriptions: subscription_lags.len(),
            subscription_lags,
            notification_receivers: self.listeners.count(),
            ..Stats::default()
        };
        self.counters.lock().fill(&mut stats);
        if let Some(follower) = &self.follower {
            stats.entities = follower.entities();
        }
        stats
    }

    /// How far the recorded-at of the newest event is ahead of the clock. Zero if the event cannot be read.
    fn recorded_ahead(&self, snapshot: &Snapshot) -> Duration {
        let newest =
            reader::with_frame(snapshot, snapshot.head.position, |newest| newest.header.recorded_at());
        let recorded_at = newest.ok().flatten().unwrap_or_default();
        options::ahead(recorded_at, options::read(&self.options.clock))
    }

    /// Lets the writer finish the queue, and closes the log. Every call returns the result of closing.
    pub(crate) fn close(&self) -> Result<(), Error> {
        if !self.is_read_only {
            self.queue.check_process()?;
        }
        self.rewrite_thread.close();
        self.background.close();
        self.queue.close();
        if let Some(follower) = &self.follower {
            follower.close();
        }
        // A waker may close the store or drop the last handle on the thread that is writing. It must not wait
        // for the lock below: another closer holds that until the writer thread has ended.
        let is_committing = self.writer.as_ref().is_some_and(|writer| writer.is_committing_here());
        if is_committing || self.writer_thread.is_current() {
            return Ok(());
        }
        let mut result = self.writer_result.lock();
        if let Some(ended) = self.writer_thread.join() {
            *result = ended
                .unwrap_or_else(|_| Err(Error::new(ErrorKind::CommitUnknown, "the writer thread panicked")));
        }
        result.clone()
    }

    /// Closes, and logs an error that no caller hears, unless the store was closed before.
    pub(crate) fn abandon(&self) {
        let was_closed = self.writer_thread.is_joined();
        if let Err(error) = self.close()
            && !was_closed
        {
            tracing::error!(%error, "closing failed; close() would have returned this");
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// Builds the indexes that an unclean stop has left to build, a little later, so that opening is quick.
fn build_indexes_later(view: &Arc<LogView>, cache: &Arc<SegmentCache>, background: &BackgroundThread) {
    if index_is_pending(view) {
        let view = view.clone();
        let cache = cache.clone();
        background.run_in(BUILD_INDEXES_AFTER, once(move || build_pending_indexes(&view, &cache)));
    }
}

fn rewrite_thread() -> Arc<BackgroundThread> {
    Arc::new(BackgroundThread::new("annals-rewriter"))
}

/// How long after opening indexes are built.
const BUILD_INDEXES_AFTER: Duration = Duration::from_millis(100);
/// How often a waiting open tries again.
const LOCK_RETRY: Duration = Duration::from_millis(2);
/// A reader that checks the lock holds it for microseconds. That must not turn a writer away.
const LOCK_PATIENCE: Duration = Duration::from_millis(5);

/// Takes the lock on the store, or says who holds it.
pub(crate) fn lock(disk: &dyn Disk, wait: Duration) -> Result<Box<dyn Any + Send + Sync>, Error> {
    let started = Instant::now();
    loop {
        match disk.lock().map_err(|error| Error::io("cannot lock", "LOCK", error))? {
            Lock::Held(guard) => return Ok(guard),
            Lock::HeldBy(holder) => {
                if started.elapsed() >= wait.max(LOCK_PATIENCE) {
                    return Err(Error::locked(holder));
                }
                std::thread::sleep(LOCK_RETRY);
            }
        }
    }
}
