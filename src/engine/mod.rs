//! Log, writer and readers as one thing: open, append, read, close.
//!
//! Owns the writer thread: it is started here, stopped by closing the queue, and joined. The lock on
//! the store lives as long as that thread.
//! Row: engine.

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

use parking_lot::Mutex;

use crate::disk::{Disk, Lock};
use crate::engine::append::Caller;
use crate::engine::counters::Counters;
use crate::engine::follower::Follower;
use crate::engine::open::{Writable, load_to_write};
use crate::engine::precheck::{needs_nothing, refusal, resolve};
use crate::engine::queue::{Command, Queue};
use crate::engine::writer::{Role, State, Writer, check_the_rest};
use crate::event::{Appended, Raw};
use crate::read::{
    Listeners, Notifications, Point, SegmentCache, Snapshot, Subscription, View, index_is_pending, reader,
    settle,
};
use crate::threads::{BackgroundThread, WorkerThread, once};
use crate::types::{Error, ErrorKind, OpenReport, Options, Position, Query, Stats, WriterState, options};

pub use append::{Append, Proposed, ProposedEvent};
pub(crate) use append::{Keyed, Request, Salts};
pub(crate) use open::{Readable, load_to_read};
pub(crate) use queue::Maintenance;
pub use ticket::{Pending, Ticket};

pub(crate) struct Engine {
    pub(crate) view: Arc<View>,
    listeners: Arc<Listeners>,
    pub(crate) store_id: [u8; 16],
    pub(crate) report: OpenReport,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: Options,
    queue: Arc<Queue>,
    salts: Salts,
    /// For what may wait.
    pub(crate) housekeeper: Arc<BackgroundThread>,
    /// For what rewrites segments by itself: that takes long, and the housekeeper has to index what is sealed meanwhile.
    pub(crate) rewriter: Arc<BackgroundThread>,
    counters: Arc<Mutex<Counters>>,
    /// The writer's work; nobody's in a store opened to read.
    role: Option<Arc<Role>>,
    /// Not started in a store opened to read.
    writer_thread: WorkerThread<Result<(), Error>>,
    /// How the writer thread ended, once it was joined.
    writer_result: Mutex<Result<(), Error>>,
    is_read_only: bool,
    /// Of a store that was opened to read, unless it is damaged.
    follower: Option<Arc<Follower>>,
    /// Where what is sealed is kept, if this writes.
    pub(crate) shelf: Option<Arc<SegmentCache>>,
    /// Held by whoever rewrites segments, or needs them to stay as they are.
    pub(crate) rewriting: Mutex<()>,
}

impl Engine {
    /// Opens a store to read and write; creates it if there is none.
    pub(crate) fn open(disk: Arc<dyn Disk>, options: Options, wait: Duration) -> Result<Engine, Error> {
        let lock = lock(disk.as_ref(), wait)?;
        let housekeeper = Arc::<BackgroundThread>::default();
        let Writable { log, ledger, segments, shelf, entities, store_id, history, report } =
            load_to_write(&disk, &options, &housekeeper)?;
        let segment = segments.last().cloned().expect("the log has a segment");
        let view = Arc::new(View::new(segments, Point::from(log.written()), options.recent_bytes_max));
        view.set_history(history);
        let (queue, commands) =
            Queue::new(options.queue_commands_max, options.queue_bytes_max, options.queue_deadline);
        let (queue, counters) = (Arc::new(queue), Arc::new(Mutex::new(Counters::new(store_id, entities))));
        let salt = disk.random().map_err(|error| Error::io("cannot get random bytes for", "salts", error))?;
        let listeners = Arc::<Listeners>::default();
        if index_is_pending(&view) {
            let (view, shelf) = (view.clone(), shelf.clone());
            housekeeper.run_in(SETTLE_AFTER, once(move || settle(&view, &shelf)));
        }
        let writer = Writer {
            disk: disk.clone(),
            options: options.clone(),
            log,
            ledger,
            entities,
            view: view.clone(),
            shelf: shelf.clone(),
            housekeeper: housekeeper.clone(),
            helper: BackgroundThread::new("annals-zeros"),
            listeners: listeners.clone(),
            segment,
            queue: queue.clone(),
            commands: commands.clone(),
            counters: counters.clone(),
            state: State::new(),
        };
        let role = Arc::new(Role::new(writer));
        // From here on nothing may fail: the thread holds the lock, and only an engine ends it.
        let writer_thread = WorkerThread::new("annals-writer");
        let of_thread = role.clone();
        let started = writer_thread.start(move || {
            let _held = lock;
            of_thread.run(&commands)
        });
        started.map_err(|error| Error::io("cannot start", "the writer thread", error))?;
        check_the_rest(&view, &queue, &housekeeper);
        Ok(Engine {
            view,
            listeners,
            store_id,
            report,
            disk,
            options,
            queue,
            salts: Salts::new(salt),
            housekeeper,
            rewriter: rewriter(),
            counters,
            role: Some(role),
            writer_thread,
            writer_result: Mutex::new(Ok(())),
            is_read_only: false,
            follower: None,
            shelf: Some(shelf),
            rewriting: Mutex::default(),
        })
    }

    /// A store to read; nothing is ever written.
    pub(crate) fn to_read(disk: Arc<dyn Disk>, loaded: Readable, options: Options) -> Engine {
        let Readable { entities, history, segments, shelf, head, store_id, report, end } = loaded;
        let (queue, _) = Queue::new(1, 1, None);
        let counters = Counters::new(store_id, entities);
        let (view, listeners) = (Arc::new(View::new(segments, head, 0)), Arc::<Listeners>::default());
        view.set_history(history);
        let housekeeper = shelf.as_ref().map(|shelf| shelf.housekeeper().clone()).unwrap_or_default();
        let follower = end.zip(shelf).map(|(end, shelf)| {
            let (view, listeners) = (view.clone(), listeners.clone());
            let every = options.follow_every;
            Arc::new(Follower::new(disk.clone(), view, listeners, store_id, shelf, every, end))
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
            housekeeper,
            rewriter: rewriter(),
            counters: Arc::new(Mutex::new(counters)),
            role: None,
            writer_thread: WorkerThread::new("annals-writer"),
            writer_result: Mutex::new(Ok(())),
            is_read_only: true,
            follower,
            shelf: None,
            rewriting: Mutex::default(),
        }
    }

    /// Appends, and waits for the answer.
    pub(crate) fn commit(&self, append: Append) -> Result<Appended, Error> {
        let mut request = self.request(append)?;
        // Whoever waits does not notice what looking at the clock costs; of the others a sample is timed.
        request.encoded_at.get_or_insert_with(Instant::now);
        // Whoever does the writing cannot stop waiting for it.
        if self.options.ack_deadline.is_none() {
            request.caller = Some(Caller::here());
        }
        let ticket = self.send(request, true)?;
        self.wait(ticket)
    }

    /// Hands an append to the writer; without waiting for a place in the queue if `wait` is false.
    pub(crate) fn submit(&self, append: Append, wait: bool) -> Result<Ticket, Error> {
        self.send(self.request(append)?, wait)
    }

    /// The receipt of the append that has this key, while the key is known.
    ///
    /// Only the writer knows keys. It is asked with an append of the same key whose expectation cannot hold: if
    /// the key is new the answer is a conflict, and nothing is written.
    pub(crate) fn find_key(&self, keyed: Keyed) -> Result<Option<Appended>, Error> {
        const NOWHERE: &str = "$nowhere";
        let probe = Append::probe(NOWHERE, &Raw(NOWHERE, &()), keyed);
        self.submit(probe, true)?.wait_for_key(self.options.ack_deadline)
    }

    /// Encodes an append, and looks up what it can be refused for already.
    fn request(&self, append: Append) -> Result<Request, Error> {
        self.check_writable()?;
        let mut request = append.at(&self.options.clock).encode(&self.options.limits, &self.salts)?;
        if needs_nothing(&mut request, &self.view) {
            return Ok(request);
        }
        resolve(&mut request, &self.snapshot()?, self.options.key_window)?;
        refusal(&request).map_or(Ok(request), Err)
    }

    /// Whether appends are taken at all.
    pub(crate) fn check_writable(&self) -> Result<(), Error> {
        if self.is_read_only {
            return Err(Error::invalid(
                "the store was opened to read only; open it with Store::open to append",
            ));
        }
        match ticket::refused(&self.queue) {
            Some(error) => Err(error),
            None if self.queue.is_closed() => Err(Error::closed()),
            None => Ok(()),
        }
    }

    fn send(&self, request: Request, wait: bool) -> Result<Ticket, Error> {
        let bytes = request.body.len();
        let (reply, answer) = oneshot::channel();
        let command = Command::Append(Box::new(request), reply);
        let left = match &self.role {
            Some(role) => role.lend(command),
            None => Some(command),
        };
        match left {
            None => {}
            Some(command) if wait => self.queue.send(command, bytes)?,
            Some(command) => self.queue.try_send(command, bytes)?,
        }
        Ok(Ticket::new(answer, self.view.clone(), self.queue.clone()))
    }

    /// Waits for an append, up to the deadline for acknowledgements.
    fn wait(&self, ticket: Ticket) -> Result<Appended, Error> {
        match self.options.ack_deadline {
            None => ticket.wait(),
            Some(deadline) => ticket.wait_timeout(deadline).unwrap_or_else(|_| Err(ticket::late(deadline))),
        }
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    pub(crate) fn sync(&self) -> Result<Position, Error> {
        if self.is_read_only {
            return Ok(self.snapshot()?.durable.position);
        }
        self.queue.check_process()?;
        let (reply, answer) = oneshot::channel();
        self.queue.send(Command::Sync(reply), 0)?;
        answer.recv().unwrap_or_else(|_| {
            Err(ticket::refused(&self.queue)
                .unwrap_or_else(|| Error::new(ErrorKind::CommitUnknown, "the writer ended")))
        })
    }

    /// Has the writer do what only it may do for those who rewrite segments.
    pub(crate) fn maintain(&self, maintenance: Maintenance) -> Result<u64, Error> {
        self.check_writable()?;
        self.queue.check_process()?;
        let (reply, answer) = oneshot::channel();
        self.queue.send(Command::Maintain(maintenance, reply), 0)?;
        answer.recv().unwrap_or_else(|_| {
            Err(ticket::refused(&self.queue)
                .unwrap_or_else(|| Error::new(ErrorKind::CommitUnknown, "the writer ended")))
        })
    }

    /// What readers may see just now.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, Error> {
        self.readable().map(|view| view.snapshot())
    }

    /// That the store is whole, as far as opening could see.
    pub(crate) fn check_whole(&self) -> Result<(), Error> {
        if self.is_read_only && self.follower.is_none() {
            return Err(Error::invalid("what is left of a damaged store cannot be copied as a store"));
        }
        self.check_open()
    }

    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.queue.is_closed() { Err(Error::closed()) } else { Ok(()) }
    }

    pub(crate) fn readable(&self) -> Result<Arc<View>, Error> {
        self.check_open()?;
        if let Some(follower) = &self.follower {
            follower.refresh()?;
        }
        Ok(self.view.clone())
    }

    pub(crate) fn subscribe(&self, query: Query) -> Subscription {
        Subscription::new(self.followed(), query)
    }

    pub(crate) fn notifications(&self, query: Query) -> Notifications {
        let view = self.followed();
        let either = |view: &Arc<View>| reader::by_either_id(&view.snapshot(), query.clone());
        // What cannot be looked up is told by the view, or is met again by who reads.
        let query = view.as_ref().ok().and_then(|view| either(view).ok()).unwrap_or(query);
        Notifications::new(view, &self.listeners, query)
    }

    /// The view of a store that may still grow.
    fn followed(&self) -> Result<Arc<View>, Error> {
        match &self.follower {
            Some(follower) => Follower::poll(follower)?,
            None if self.is_read_only => {
                return Err(Error::invalid(
                    "the store is damaged, and nobody writes to it; read what is left",
                ));
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
        let subscription_lags = self.view.followers();
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

    /// How far the newest event's recorded-at is ahead of the clock; of one that cannot be read that is not
    /// known.
    fn recorded_ahead(&self, snapshot: &Snapshot) -> Duration {
        let newest = reader::with_frame(snapshot, snapshot.head.position, |header, _| header.recorded_at());
        let recorded_at = newest.ok().flatten().unwrap_or_default();
        options::ahead(recorded_at, options::read(&self.options.clock))
    }

    /// Lets the writer finish, and says how it ended: to everybody who asks.
    pub(crate) fn close(&self) -> Result<(), Error> {
        if !self.is_read_only {
            self.queue.check_process()?;
        }
        self.rewriter.close();
        self.housekeeper.close();
        self.queue.close();
        if let Some(follower) = &self.follower {
            follower.close();
        }
        // A waker that runs on the writer thread may close or drop a handle. It must not wait for the lock below:
        // another closer holds that until the writer thread has ended.
        let is_writing = self.role.as_ref().is_some_and(|role| role.is_lent_here());
        if is_writing || self.writer_thread.is_current() {
            return Ok(());
        }
        let mut result = self.writer_result.lock();
        if let Some(ended) = self.writer_thread.join() {
            *result = ended
                .unwrap_or_else(|_| Err(Error::new(ErrorKind::CommitUnknown, "the writer thread panicked")));
        }
        result.clone()
    }

    /// Closes without anybody to tell how that went, unless it was closed before.
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

fn rewriter() -> Arc<BackgroundThread> {
    Arc::new(BackgroundThread::new("annals-rewriter"))
}

/// What an unclean stop left to do is begun when opening is long over, if the process still is.
const SETTLE_AFTER: Duration = Duration::from_millis(100);
/// How often a waiting open tries again.
const LOCK_RETRY: Duration = Duration::from_millis(2);
/// A reader that looks at the lock holds it for microseconds; that must not turn a writer away.
const LOCK_PATIENCE: Duration = Duration::from_millis(5);

/// Becomes the only writer, or says who is.
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
