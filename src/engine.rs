//! Log, writer and readers as one thing: open, append, read, close.
//!
//! Owns the writer thread: it is started here, stopped by closing the queue, and joined. The lock on
//! the store lives as long as that thread.
//! Row: engine.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::append::{Append, Salts};
use crate::commit::Ledger;
use crate::counters::Counters;
use crate::disk::{Disk, Lock};
use crate::error::{Error, ErrorKind};
use crate::format::Damage;
use crate::format::record::records;
use crate::index::Index;
use crate::log::files::create_store;
use crate::log::recover::{Purpose, Recovered, recover};
use crate::log::segment::SegmentFile;
use crate::log::{Log, LogOptions};
use crate::notification::{Listeners, Notifications};
use crate::options::{self, Options};
use crate::query::Query;
use crate::queue::{Command, Queue};
use crate::report::{OpenReport, Stats};
use crate::subscription::Subscription;
use crate::ticket::{self, Ticket};
use crate::version::Position;
use crate::view::{Point, Segment, Snapshot, View};
use crate::writer::{State, Writer, WriterOptions};

pub(crate) struct Engine {
    pub(crate) view: Arc<View>,
    listeners: Arc<Listeners>,
    pub(crate) store_id: [u8; 16],
    pub(crate) report: OpenReport,
    options: Options,
    queue: Arc<Queue>,
    salts: Salts,
    counters: Arc<Mutex<Counters>>,
    writer_id: Option<ThreadId>,
    ending: Mutex<Ending>,
    is_read_only: bool,
}

/// The writer thread, and how it ended.
struct Ending {
    /// `None` once joined, and for a store opened to read.
    writer: Option<JoinHandle<Result<(), Error>>>,
    outcome: Result<(), Error>,
}

impl Engine {
    /// Opens a store to read and write; creates it if there is none.
    pub(crate) fn open(disk: Arc<dyn Disk>, options: Options, wait: Duration) -> Result<Engine, Error> {
        let started = Instant::now();
        let lock = lock(disk.as_ref(), wait)?;
        let log_options = LogOptions {
            segment_bytes_max: options.segment_bytes_max,
            unsynced_bytes_max: options.unsynced_bytes_max,
        };
        let now = options::read(&options.clock);
        let mut created = false;
        let (mut recovered, mut found) = loop {
            let mut found = Found::new(options.key_window);
            match recover(disk.as_ref(), Purpose::Write, &mut |segment, offset, frame, tip| {
                found.visit(segment, offset, frame, tip.position)
            })? {
                Some(recovered) => break (recovered, found),
                None => create_store(disk.as_ref(), &log_options, now)?,
            }
            created = true;
        };
        recovered.report.created = created;
        let log = Log::resume(disk.clone(), log_options, &mut recovered, now)?;
        found.enter(log.segment());
        recovered.report.segments = recovered.segments.len();
        recovered.report.steps.push(("all", started.elapsed()));
        tracing::info!(report = %recovered.report, "opened");
        let segment = found.segments.last().cloned().expect("the log's segment was entered");
        let view = Arc::new(View::new(found.segments, Point::from(log.written())));
        let (queue, commands) =
            Queue::new(options.queue_commands_max, options.queue_bytes_max, options.queue_deadline);
        let (queue, counters) = (Arc::new(queue), Arc::new(Mutex::new(Counters::default())));
        counters.lock().entities = found.ledger.entities();
        let listeners = Arc::<Listeners>::default();
        let writer = Writer {
            options: WriterOptions::from(&options),
            log,
            ledger: found.ledger,
            view: view.clone(),
            listeners: listeners.clone(),
            segment,
            queue: queue.clone(),
            commands,
            counters: counters.clone(),
            state: State::new(),
        };
        let salt = disk.random().map_err(|error| Error::io("cannot get random bytes for", "salts", error))?;
        // From here on nothing may fail: the thread holds the lock, and only an engine ends it.
        let thread = std::thread::Builder::new().name("annals-writer".to_owned());
        let thread = thread.spawn(move || {
            let _held = lock;
            writer.run()
        });
        let thread = thread.map_err(|error| Error::io("cannot start", "the writer thread", error))?;
        Ok(Engine {
            view,
            listeners,
            store_id: recovered.manifest.store_id,
            report: recovered.report,
            options,
            queue,
            salts: Salts::new(salt),
            counters,
            writer_id: Some(thread.thread().id()),
            ending: Mutex::new(Ending { writer: Some(thread), outcome: Ok(()) }),
            is_read_only: false,
        })
    }

    /// Opens a store to read, and writes nothing. Beside a writer it sees what is marked durable.
    pub(crate) fn open_read_only(disk: Arc<dyn Disk>, options: Options) -> Result<Engine, Error> {
        let started = Instant::now();
        let is_locked = disk.is_locked().map_err(|error| Error::io("cannot look at", "LOCK", error))?;
        let purpose = if is_locked { Purpose::ReadBesideWriter } else { Purpose::Read };
        let mut found = Found::new(options.key_window);
        let recovered = recover(disk.as_ref(), purpose, &mut |segment, offset, frame, tip| {
            found.visit(segment, offset, frame, tip.position)
        })?;
        let Some(Recovered { manifest, segments, tip, mut report, .. }) = recovered else {
            return Err(Error::no_store());
        };
        // The walk enters segments by their frames; the last one may have none.
        if let Some(last) = segments.last() {
            found.enter(last);
        }
        report.steps.push(("all", started.elapsed()));
        let head = tip.as_ref().map(Point::from).unwrap_or_default();
        let (queue, _) = Queue::new(1, 1, None);
        let counters = Counters { entities: found.ledger.entities(), ..Counters::default() };
        Ok(Engine {
            view: Arc::new(View::new(found.segments, head)),
            listeners: Arc::default(),
            store_id: manifest.store_id,
            report,
            options,
            queue: Arc::new(queue),
            salts: Salts::new([0; 32]),
            counters: Arc::new(Mutex::new(counters)),
            writer_id: None,
            ending: Mutex::new(Ending { writer: None, outcome: Ok(()) }),
            is_read_only: true,
        })
    }

    /// Encodes an append and sends it to the writer; without waiting if `wait` is false.
    pub(crate) fn submit(&self, append: Append, wait: bool) -> Result<Ticket, Error> {
        if self.is_read_only {
            return Err(Error::invalid(
                "the store was opened to read only; open it with Store::open to append",
            ));
        }
        let request = append.encode(&self.options.limits, &self.salts)?;
        if let Some(error) = ticket::refused(&self.queue) {
            return Err(error);
        }
        let bytes = request.body.len();
        let (reply, answer) = oneshot::channel();
        let command = Command::Append(Box::new(request), reply);
        if wait {
            self.queue.send(command, bytes)?
        } else {
            self.queue.try_send(command, bytes)?
        }
        Ok(Ticket::new(answer, self.view.clone(), self.queue.clone()))
    }

    /// Waits for an append, up to the deadline for acknowledgements.
    pub(crate) fn wait(&self, ticket: Ticket) -> Result<crate::receipt::Appended, Error> {
        match self.options.ack_deadline {
            None => ticket.wait(),
            Some(deadline) => ticket.wait_timeout(deadline).unwrap_or_else(|_| Err(ticket::late(deadline))),
        }
    }

    pub(crate) fn sync(&self) -> Result<Position, Error> {
        if self.is_read_only {
            return Ok(self.snapshot()?.durable.position);
        }
        let (reply, answer) = oneshot::channel();
        self.queue.send(Command::Sync(reply), 0)?;
        answer.recv().unwrap_or_else(|_| {
            Err(ticket::refused(&self.queue)
                .unwrap_or_else(|| Error::new(ErrorKind::CommitUnknown, "the writer ended")))
        })
    }

    /// What readers may see just now.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, Error> {
        self.readable().map(|view| view.snapshot())
    }

    pub(crate) fn readable(&self) -> Result<Arc<View>, Error> {
        if self.queue.is_closed() { Err(Error::closed()) } else { Ok(self.view.clone()) }
    }

    pub(crate) fn subscribe(&self, query: Query) -> Subscription {
        Subscription::new(self.followed(), query)
    }

    pub(crate) fn notifications(&self, query: Query) -> Notifications {
        Notifications::new(self.followed(), &self.listeners, query)
    }

    /// The view of a store that may still grow.
    fn followed(&self) -> Result<Arc<View>, Error> {
        if self.is_read_only {
            return Err(Error::invalid(
                "the store was opened to read only and does not follow its writer; read it, or follow where it is written",
            ));
        }
        self.readable()
    }

    pub(crate) fn stats(&self) -> Stats {
        let snapshot = self.view.snapshot();
        let (queue_commands, queue_bytes) = self.queue.waiting();
        let mut stats = Stats {
            events: snapshot.segments.iter().map(|segment| u64::from(segment.events())).sum(),
            bytes: snapshot.segments.iter().map(|segment| u64::from(segment.end())).sum(),
            segments: snapshot.segments.len(),
            queue_commands,
            queue_bytes,
            head: snapshot.head.position,
            durable_head: snapshot.durable.position,
            subscriptions: self.view.subscriptions.load(Ordering::Relaxed),
            notification_receivers: self.listeners.count(),
            ..Stats::default()
        };
        self.counters.lock().fill(&mut stats);
        stats
    }

    /// Lets the writer finish, and says how it ended: to everybody who asks.
    pub(crate) fn close(&self) -> Result<(), Error> {
        self.queue.close();
        // A waker that runs on the writer thread may close or drop a handle; a thread cannot join itself.
        if self.writer_id == Some(std::thread::current().id()) {
            return Ok(());
        }
        let mut ending = self.ending.lock();
        if let Some(writer) = ending.writer.take() {
            ending.outcome = writer
                .join()
                .unwrap_or_else(|_| Err(Error::new(ErrorKind::CommitUnknown, "the writer thread panicked")));
        }
        ending.outcome.clone()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let was_closed = self.ending.get_mut().writer.is_none();
        if let Err(error) = self.close()
            && !was_closed
        {
            tracing::error!(%error, "closing failed; close() would have returned this");
        }
    }
}

/// What the walk over the log finds out for readers and for the writer.
struct Found {
    ledger: Ledger,
    segments: Vec<Arc<Segment>>,
}

impl Found {
    fn new(window: crate::options::KeyWindow) -> Found {
        Found { ledger: Ledger::new(window), segments: Vec::new() }
    }

    /// The segment as readers see it; made when its first frame comes.
    fn enter(&mut self, file: &Arc<SegmentFile>) -> Arc<Segment> {
        match self.segments.last() {
            Some(segment) if Arc::ptr_eq(&segment.file, file) => segment.clone(),
            _ => {
                let start = crate::log::scan::Tip::start(file).offset;
                let segment = Arc::new(Segment::new(file.clone(), Index::new(start)));
                self.segments.push(segment.clone());
                segment
            }
        }
    }

    fn visit(
        &mut self,
        file: &Arc<SegmentFile>,
        offset: u32,
        frame: &crate::format::frame::Frame<'_>,
        last: u64,
    ) -> Result<(), Error> {
        let header = &frame.header;
        let first = last + 1 - u64::from(header.events());
        let damaged = |what| file.damaged(offset.into(), &Damage::Bad(what));
        for (index, record) in records(frame.body, header.events()).enumerate() {
            let record = record.map_err(|damage| file.damaged(offset.into(), &damage))?;
            let position = first + u64::try_from(index).expect("at most 65,535");
            let version = header.version(index).into();
            let follows = self.ledger.learn(record.entity(), version, position.into());
            if !follows && file.header.id.generation == 0 {
                return Err(damaged("an event's version does not follow its stream's last one"));
            }
        }
        if let Some(key) = header.key() {
            self.ledger.learn_key(key, first.into());
        }
        self.enter(file).insert(std::iter::once((offset, *frame)))
    }
}

/// How often a waiting open tries again.
const LOCK_RETRY: Duration = Duration::from_millis(2);
/// A reader that looks at the lock holds it for microseconds; that must not turn a writer away.
const LOCK_PATIENCE: Duration = Duration::from_millis(5);

fn lock(disk: &dyn Disk, wait: Duration) -> Result<Box<dyn Any + Send + Sync>, Error> {
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
