//! batpak 0.10, each time in the fastest way that its documentation offers.
//!
//! It acknowledges an append *before* the sync, also with `sync_every_n_events(1)`; what waits for it is a
//! `DurabilityGate`. Appends of several threads share a sync (`group_commit_max_batch(0)`: no bound). A batch
//! is always synced before it is seen, and holds 256 events at most. Payloads are read as the bytes
//! they are (`read_raw`): its other way, `get`, decodes into a JSON value first.
//!
//! strace, per durable append: write and fdatasync of the segment, then the acknowledgement.

use std::path::Path;
use std::time::Duration;

use batpak::coordinate::{KindFilter, Region};
use batpak::id::EntityIdType;
use batpak::prelude::*;
use batpak::store::{AppendTicket, BatchAppendItem, CausationRef, DurabilityGate, IndexEntry, WatermarkKind};
use serde::{Deserialize, Serialize};

use crate::peer::{Can, Failure, Follower, Id, Look, Opening, PATIENCE, Peer, Pipeline, Tally, Tickets};
use crate::sample::{Order, scattered};

/// Index entries that a replay asks for at a time.
const PAGE: usize = 10_000;

struct Batpak {
    store: Store,
    /// With the gate, where appends are durable.
    options: AppendOptions,
    opening: Opening,
}

pub fn open(directory: &Path, opening: Opening) -> Can<Box<dyn Peer>> {
    let mut config = StoreConfig::new(directory);
    let mut options = AppendOptions::new();
    if opening == Opening::Synced {
        config = config.with_sync_every_n_events(1).with_sync_mode(SyncMode::SyncData);
        config = config.with_group_commit_max_batch(0);
        options = options.with_gate(DurabilityGate::new(WatermarkKind::Durable, Duration::from_secs(10)));
    }
    let store = match opening {
        Opening::Cached => {
            let config = config.with_incremental_projection(true);
            Store::open_with_native_cache(config, directory.with_extension("cache"))?
        }
        _ => Store::open(config)?,
    };
    Ok(Some(Box::new(Batpak { store, options, opening })))
}

impl Peer for Batpak {
    fn append(&self, entity: &str, order: &Order) -> Result<(), Failure> {
        let _receipt =
            self.store.append_typed_with_options(&address(entity)?, order, self.options.clone())?;
        Ok(())
    }

    fn append_batch(&self, batch: &[(&str, &Order)]) -> Result<(), Failure> {
        let item = |(entity, order): &(&str, &Order)| {
            let options = AppendOptions::new();
            let item = BatchAppendItem::typed(address(entity)?, *order, options, CausationRef::None)?;
            Ok::<_, Failure>(item)
        };
        self.store.append_batch(batch.iter().map(item).collect::<Result<_, _>>()?)?;
        Ok(())
    }

    fn pipeline(&self) -> Can<Box<dyn Pipeline + '_>> {
        // A ticket answers before the sync; an append with a gate has none.
        if self.opening == Opening::Synced {
            return Ok(None);
        }
        let submit = |entity: &str, order: &Order| Ok(self.store.submit_typed(&address(entity)?, order)?);
        let wait = |ticket: AppendTicket| Ok(ticket.wait().map(drop)?);
        Ok(Some(Box::new(Tickets::new(submit, wait))))
    }

    fn sync(&self) -> Result<(), Failure> {
        Ok(self.store.sync()?)
    }

    fn replay(&self, look: Look) -> Can<Tally> {
        let mut tally = Tally::default();
        let mut after = None;
        loop {
            let page = self.store.query_entries_after(&orders(), after, PAGE);
            let Some(last) = page.last() else { return Ok(Some(tally)) };
            after = Some(last.global_sequence());
            self.look_at(&page, look, &mut tally)?;
        }
    }

    fn stream(&self, entity: &str, look: Look) -> Can<Tally> {
        let mut tally = Tally::default();
        self.look_at(&self.store.by_entity(entity), look, &mut tally)?;
        Ok(Some(tally))
    }

    fn ids(&self, count: u64, events: u64) -> Can<Vec<Id>> {
        let all: Vec<Id> =
            self.store.query(&orders()).iter().map(|entry| entry.event_id().as_u128()).collect();
        let id = |step| Ok(all[usize::try_from(scattered(step, events))?]);
        Ok(Some((0..count).map(id).collect::<Result<_, Failure>>()?))
    }

    fn get(&self, id: Id) -> Can<Tally> {
        let mut tally = Tally::default();
        tally.raw(&self.store.read_raw(EventId::from(id))?.event.payload);
        Ok(Some(tally))
    }

    fn follow(&self) -> Can<Follower> {
        // batpak notifies before the sync, also if an append waits for it: there is no promise to compare.
        if self.opening == Opening::Synced {
            return Ok(None);
        }
        let notified = self.store.subscribe_lossy(&Region::all());
        Ok(Some(Box::new(move || Ok(notified.filtered_receiver().recv_timeout(PATIENCE).is_ok()))))
    }

    fn total(&self, entity: &str) -> Can<u64> {
        Ok(Some(self.store.project::<Spent>(entity, &Freshness::Consistent)?.unwrap_or_default().cents))
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        self.store.close()?;
        Ok(())
    }
}

impl Batpak {
    fn look_at(&self, entries: &[IndexEntry], look: Look, tally: &mut Tally) -> Result<(), Failure> {
        for entry in entries {
            tally.look(look, &self.store.read_raw(entry.event_id())?.event.payload)?;
        }
        Ok(())
    }
}

fn address(entity: &str) -> Result<Coordinate, Failure> {
    Ok(Coordinate::new(entity, "bench")?)
}

/// All events but those that the store writes for itself.
fn orders() -> Region {
    Region::all().with_fact(KindFilter::Exact(Order::KIND))
}

/// The sum of the orders of a customer.
#[derive(Default, Serialize, Deserialize)]
struct Spent {
    cents: u64,
}

impl EventSourced for Spent {
    type Input = RawMsgpackInput;
    const STATE_CONTRACT: ProjectionStateContract = ProjectionStateContract::single_entity("spent");

    fn from_events(events: &[ProjectionEvent<Self>]) -> Option<Self> {
        let mut spent = Spent::default();
        events.iter().for_each(|event| spent.apply_event(event));
        (!events.is_empty()).then_some(spent)
    }

    fn apply_event(&mut self, event: &ProjectionEvent<Self>) {
        // What the derived code does; deriving would leave incremental replay out.
        if let Some(Order { cents, .. }) = event.route_typed().expect("an order decodes") {
            self.cents += cents;
        }
    }

    fn relevant_event_kinds() -> &'static [EventKind] {
        &[Order::KIND]
    }

    fn supports_incremental_apply() -> bool {
        true
    }

    fn state_extent(&self) -> StateExtent {
        StateExtent::single_entity()
    }
}
