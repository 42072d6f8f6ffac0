//! annals, as its documentation has it.
//!
//! strace, per durable append: pwrite64 of the segment, fdatasync of it, pwrite64 of MARK; then the
//! acknowledgement. (The mark says how much is proven durable, and is not synced itself.)

use std::path::Path;
use std::time::Duration;

use annals::{Append, Durability, EventId, Meta, Position, Projection, Query, RecordedEvent, Store, Ticket};
use serde::{Deserialize, Serialize};

use crate::peer::{
    Can, Failure, Follower, Id, Look, Opening, PATIENCE, Peer, Pipeline, Tally, Tickets, WINDOW,
};
use crate::sample::{Order, scattered};

struct Annals {
    store: Store,
}

pub fn open(directory: &Path, opening: Opening) -> Can<Box<dyn Peer>> {
    // A whole window of tickets must fit into the queue.
    let builder = Store::builder(directory).queue_commands_max(2 * WINDOW);
    let buffered = Durability::Buffered { flush_every: Duration::from_millis(100) };
    let builder = match opening {
        Opening::Synced => builder,
        Opening::Buffered | Opening::Filled | Opening::Cached => builder.durability(buffered),
        Opening::Uncached => builder.durability(buffered).cache_memory_bytes(0).cache_disk_bytes(0),
    };
    Ok(Some(Box::new(Annals { store: builder.open()? })))
}

impl Peer for Annals {
    fn append(&self, entity: &str, order: &Order) -> Result<(), Failure> {
        self.store.append(entity, order)?;
        Ok(())
    }

    fn append_batch(&self, batch: &[(&str, &Order)]) -> Result<(), Failure> {
        let Some((&(first, order), rest)) = batch.split_first() else { return Ok(()) };
        let (mut last, mut append) = (first, Append::to(first).event(order));
        for (entity, order) in rest {
            if *entity != last {
                append = append.and_to(*entity);
                last = entity;
            }
            append = append.event(*order);
        }
        append.commit(&self.store)?;
        Ok(())
    }

    fn pipeline(&self) -> Can<Box<dyn Pipeline + '_>> {
        let submit = |entity: &str, order: &Order| Ok(Append::to(entity).event(order).submit(&self.store)?);
        let wait = |ticket: Ticket| Ok(ticket.wait().map(drop)?);
        Ok(Some(Box::new(Tickets::new(submit, wait))))
    }

    fn sync(&self) -> Result<(), Failure> {
        self.store.sync()?;
        Ok(())
    }

    fn replay(&self, look: Look) -> Can<Tally> {
        Ok(Some(tally(self.store.read(Query::all()), look)?))
    }

    fn stream(&self, entity: &str, look: Look) -> Can<Tally> {
        Ok(Some(tally(self.store.stream(entity), look)?))
    }

    fn ids(&self, count: u64, events: u64) -> Can<Vec<Id>> {
        let id = |step| {
            let event = self.store.at(Position::from(1 + scattered(step, events)))?;
            Ok(Id::from_be_bytes(*event.ok_or("positions have no gaps")?.id().as_bytes()))
        };
        Ok(Some((0..count).map(id).collect::<Result<_, Failure>>()?))
    }

    fn get(&self, id: Id) -> Can<Tally> {
        let mut tally = Tally::default();
        if let Some(event) = self.store.get(EventId::from_bytes(id.to_be_bytes()))? {
            tally.raw(event.payload()?);
        }
        Ok(Some(tally))
    }

    fn follow(&self) -> Can<Follower> {
        let mut subscription = self.store.subscribe(Query::all()).after_head();
        Ok(Some(Box::new(move || Ok(subscription.next_timeout(PATIENCE)?.is_some()))))
    }

    fn total(&self, entity: &str) -> Can<u64> {
        Ok(Some(self.store.load::<Spent>(entity)?.cents))
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        Ok(self.store.close()?)
    }
}

fn tally(
    read: impl Iterator<Item = Result<RecordedEvent, annals::Error>>,
    look: Look,
) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    for event in read {
        let event = event?;
        match look {
            Look::Raw => tally.raw(event.payload()?),
            Look::Decoded => tally.decoded(event.decode()?),
        }
    }
    Ok(tally)
}

/// The sum of the orders of a customer.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Spent {
    cents: u64,
}

impl Projection for Spent {
    type Event = Order;
    const NAME: &'static str = "spent";

    fn apply(&mut self, order: Order, _: &Meta<'_>) {
        self.cents += order.cents;
    }
}
