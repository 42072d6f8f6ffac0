//! UmaDB's core, as its server uses it: its own writer thread, fed through its channel, which commits groups.
//!
//! An entity is a tag, a kind is an event type, an append has no condition. It is always durable. It caches
//! no pages by default; where it is read, it has the cache of 512 MB that makes it several times faster. A
//! replay asks for 5,000 events at a time, the most that its server hands out. A follower waits for its head
//! and does not read the event.
//!
//! strace, per append: pwrite64 of pages, fdatasync, pwrite64 of a header, fdatasync; then the
//! acknowledgement.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use umadb_core::db::UmaDb;
use umadb_core::mvcc::{Mvcc, StorageOptions};
use umadb_core::writer_thread_blocking::writer_thread_blocking;
use umadb_core::writer_thread_request::WriterThreadRequest;
use umadb_dcb::{DcbEvent, DcbEventStoreSync, DcbQuery, DcbQueryItem, DcbResult};

use crate::peer::{Can, Failure, Follower, Id, Look, Opening, PATIENCE, Peer, Pipeline, Tally, Tickets};
use crate::sample::{KIND, Order, scattered};

/// As in its server.
const REQUESTS: usize = 1024;
const BATCH_EVENTS_MAX: usize = 2000;
const READ_EVENTS_MAX: u32 = 5000;

/// What the writer thread answers, when it does.
type Response = oneshot::Receiver<DcbResult<u64>>;

struct Uma {
    reader: UmaDb,
    requests: mpsc::Sender<WriterThreadRequest>,
    head: watch::Receiver<Option<u64>>,
    writer: JoinHandle<()>,
}

pub fn open(directory: &Path, opening: Opening) -> Can<Box<dyn Peer>> {
    let options = match opening {
        Opening::Buffered => return Ok(None),
        Opening::Synced => StorageOptions::default(),
        Opening::Filled | Opening::Uncached | Opening::Cached => {
            StorageOptions::default().page_cache_max_mb(512)
        }
    };
    std::fs::create_dir_all(directory)?;
    let mvcc = Arc::new(Mvcc::new(false, options.db_path(directory))?);
    let reader = UmaDb::from_arc(Arc::clone(&mvcc));
    let (requests, queue) = mpsc::channel(REQUESTS);
    let (head_sender, head) = watch::channel(reader.head()?);
    let writer =
        std::thread::spawn(move || writer_thread_blocking(mvcc, queue, head_sender, BATCH_EVENTS_MAX));
    Ok(Some(Box::new(Uma { reader, requests, head, writer })))
}

impl Peer for Uma {
    fn append(&self, entity: &str, order: &Order) -> Result<(), Failure> {
        self.append_events(vec![event(entity, order)])
    }

    fn append_batch(&self, batch: &[(&str, &Order)]) -> Result<(), Failure> {
        self.append_events(batch.iter().map(|(entity, order)| event(entity, order)).collect())
    }

    fn pipeline(&self) -> Can<Box<dyn Pipeline + '_>> {
        let submit = |entity: &str, order: &Order| self.submit(vec![event(entity, order)]);
        let wait = |response: Response| Ok(response.blocking_recv()?.map(drop)?);
        Ok(Some(Box::new(Tickets::new(submit, wait))))
    }

    fn sync(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn replay(&self, look: Look) -> Can<Tally> {
        let mut tally = Tally::default();
        let mut start = None;
        loop {
            let page = self.reader.read(None, start, false, Some(READ_EVENTS_MAX))?;
            let before = tally.events;
            for read in page {
                let read = read?;
                start = Some(read.position + 1);
                tally.look(look, &read.event.data)?;
            }
            if tally.events == before {
                return Ok(Some(tally));
            }
        }
    }

    fn stream(&self, entity: &str, look: Look) -> Can<Tally> {
        let mut tally = Tally::default();
        let query = DcbQuery::new().item(DcbQueryItem::new().tags([entity]));
        for read in self.reader.read(Some(query), None, false, None)? {
            tally.look(look, &read?.event.data)?;
        }
        Ok(Some(tally))
    }

    fn ids(&self, count: u64, events: u64) -> Can<Vec<Id>> {
        Ok(Some((0..count).map(|step| Id::from(1 + scattered(step, events))).collect()))
    }

    fn get(&self, id: Id) -> Can<Tally> {
        let mut tally = Tally::default();
        for read in self.reader.read(None, Some(u64::try_from(id)?), false, Some(1))? {
            tally.raw(&read?.event.data);
        }
        Ok(Some(tally))
    }

    fn follow(&self) -> Can<Follower> {
        let mut head = self.head.clone();
        head.mark_unchanged();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        Ok(Some(Box::new(move || {
            let changed = runtime.block_on(async { timeout(PATIENCE, head.changed()).await });
            Ok(matches!(changed, Ok(Ok(()))))
        })))
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        self.requests.blocking_send(WriterThreadRequest::Shutdown)?;
        self.writer.join().map_err(|_| "UmaDB's writer thread panicked")?;
        Ok(())
    }
}

impl Uma {
    fn append_events(&self, events: Vec<DcbEvent>) -> Result<(), Failure> {
        self.submit(events)?.blocking_recv()??;
        Ok(())
    }

    fn submit(&self, events: Vec<DcbEvent>) -> Result<Response, Failure> {
        let (response_tx, response) = oneshot::channel();
        let (condition, tracking_info, cancel) = (None, None, None);
        self.requests.blocking_send(WriterThreadRequest::Append {
            events,
            condition,
            tracking_info,
            response_tx,
            cancel,
        })?;
        Ok(response)
    }
}

fn event(entity: &str, order: &Order) -> DcbEvent {
    DcbEvent::new().event_type(KIND).tags([entity]).data(order.encoded())
}
