//! tephra 0.4.1: an entity is a tag, a kind is an event type, an append has no condition.
//!
//! It is always durable: one fdatasync per group, then the replies. Segments are 256 MiB where appends are
//! measured: the size in its README, and no roll-over falls into a measurement. They are 64 MiB where a store
//! is read and opened, because it opens those several times faster.
//!
//! strace, per append: write and fdatasync of the segment, then the acknowledgement.

use std::path::Path;

use tephra::{
    Event, EventType, Position, Query, QueryItem, SegmentConfig, SegmentSet, Tag, Tags, WaitOutcome,
    WriteCoordinator, WriteHandle, WriterConfig,
};

use crate::peer::{Can, Failure, Follower, Id, Look, Opening, PATIENCE, Peer, Pipeline, Tally, Tickets};
use crate::sample::{KIND, Order, scattered};

struct Tephra {
    coordinator: WriteCoordinator,
    handle: WriteHandle,
    kind: EventType,
}

pub fn open(directory: &Path, opening: Opening) -> Can<Box<dyn Peer>> {
    let segment_bytes = match opening {
        Opening::Buffered => return Ok(None),
        Opening::Synced => 256 << 20,
        Opening::Filled | Opening::Uncached | Opening::Cached => 64 << 20,
    };
    let segments = SegmentSet::open(directory, SegmentConfig::new(segment_bytes))?;
    let (coordinator, handle) = WriteCoordinator::start(segments, WriterConfig::default())?;
    Ok(Some(Box::new(Tephra { coordinator, handle, kind: EventType::new(KIND)? })))
}

impl Peer for Tephra {
    fn append(&self, entity: &str, order: &Order) -> Result<(), Failure> {
        self.handle.append(vec![self.event(entity, order)?], None)?;
        Ok(())
    }

    fn append_batch(&self, batch: &[(&str, &Order)]) -> Result<(), Failure> {
        let events = batch.iter().map(|(entity, order)| self.event(entity, order));
        self.handle.append(events.collect::<Result<_, _>>()?, None)?;
        Ok(())
    }

    fn pipeline(&self) -> Can<Box<dyn Pipeline + '_>> {
        // Replies come over one channel, in the order of the appends: one thread writes.
        let (reply, replies) = flume::unbounded();
        let submit = move |entity: &str, order: &Order| {
            Ok(self.handle.append_submit(vec![self.event(entity, order)?], None, 0, reply.clone())?)
        };
        let wait = move |()| {
            let (_, result) = replies.recv()?;
            result?;
            Ok(())
        };
        Ok(Some(Box::new(Tickets::new(submit, wait))))
    }

    fn sync(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn replay(&self, look: Look) -> Can<Tally> {
        self.read(&Query::all(), Position::ZERO, None, look)
    }

    fn stream(&self, entity: &str, look: Look) -> Can<Tally> {
        let query = Query::item(QueryItem::with_tags(Tags::new([Tag::new(entity)?])?));
        self.read(&query, Position::ZERO, None, look)
    }

    fn ids(&self, count: u64, events: u64) -> Can<Vec<Id>> {
        Ok(Some((0..count).map(|step| Id::from(1 + scattered(step, events))).collect()))
    }

    fn get(&self, id: Id) -> Can<Tally> {
        self.read(&Query::all(), Position::new(u64::try_from(id)? - 1), Some(1), Look::Raw)
    }

    fn follow(&self) -> Can<Follower> {
        let mut subscription = self.handle.subscribe(Query::all(), self.handle.head());
        Ok(Some(Box::new(move || {
            let outcome = subscription.wait_timeout(PATIENCE);
            Ok(matches!(outcome, WaitOutcome::Advanced) && !subscription.poll_batch()?.is_empty())
        })))
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        let Tephra { coordinator, handle, .. } = *self;
        drop(handle);
        coordinator.shutdown();
        Ok(())
    }
}

impl Tephra {
    fn event(&self, entity: &str, order: &Order) -> Result<Event, Failure> {
        Ok(Event::new(&self.kind, &Tags::new([Tag::new(entity)?])?, &order.encoded())?)
    }

    fn read(&self, query: &Query, after: Position, limit: Option<u64>, look: Look) -> Can<Tally> {
        let mut tally = Tally::default();
        let mut reads = self.handle.read(query, after, limit);
        while let Some(read) = reads.next() {
            tally.look(look, read?.event.data())?;
        }
        Ok(Some(tally))
    }
}
