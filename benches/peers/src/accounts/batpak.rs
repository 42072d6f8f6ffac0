//! batpak 0.10, each time in the fastest way that its documentation offers.
//!
//! States: the built-in cache on disk, incremental replay, raw MessagePack instead of JSON values. (Its other
//! index topologies keep states in memory, too, but loads are 3 to 6 times as slow with them.) Single durable
//! appends: a sync after every event, without metadata, and a gate that waits for it. A batch is always
//! synced before it is seen, a reaction is a batch, and the sync covers what stands before.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use batpak::coordinate::{KindFilter, Region};
use batpak::event::TypedReactive;
use batpak::prelude::*;
use batpak::store::{
    AtLeastOnce, BatchAppendItem, CausationRef, CheckpointId, DurabilityGate, ReactionBatch, ReactorConfig,
    TypedReactorHandle, WatermarkKind,
};
use serde::{Deserialize, Serialize};

use super::peer::{Audits, Opening, Pace, Peer, batches};
use crate::peer::Failure;

#[derive(Serialize, Deserialize, EventPayload)]
#[batpak(category = 0xF, type_id = 1)]
struct Deposited {
    cents: u64,
}

#[derive(Serialize, Deserialize, EventPayload)]
#[batpak(category = 0xF, type_id = 2)]
struct Noted {
    cents: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct Account {
    cents: u64,
}

impl EventSourced for Account {
    type Input = RawMsgpackInput;
    const STATE_CONTRACT: ProjectionStateContract = ProjectionStateContract::single_entity("account");

    fn from_events(events: &[ProjectionEvent<Self>]) -> Option<Self> {
        let mut account = Account::default();
        events.iter().for_each(|event| account.apply_event(event));
        (!events.is_empty()).then_some(account)
    }

    fn apply_event(&mut self, event: &ProjectionEvent<Self>) {
        // What the derived code does; deriving would leave incremental replay out.
        if let Some(Deposited { cents }) = event.route_typed().expect("a deposit decodes") {
            self.cents += cents;
        }
    }

    fn relevant_event_kinds() -> &'static [EventKind] {
        &[Deposited::KIND]
    }

    fn supports_incremental_apply() -> bool {
        true
    }

    fn state_extent(&self) -> StateExtent {
        StateExtent::single_entity()
    }
}

struct Auditor {
    audit: Coordinate,
}

impl TypedReactive<Deposited> for Auditor {
    type Error = StoreError;

    fn react(
        &mut self,
        event: &StoredEvent<Deposited>,
        out: &mut ReactionBatch,
        _: Option<&AtLeastOnce>,
    ) -> Result<(), StoreError> {
        let noted = Noted { cents: event.event.payload.cents };
        out.push_typed(self.audit.clone(), &noted, CausationRef::None)
    }
}

pub struct Batpak {
    store: Arc<Store>,
    options: AppendOptions,
}

impl Peer for Batpak {
    type Reactor = TypedReactorHandle<StoreError>;
    const DEFAULT: Opening = Opening::Buffered;

    fn open(directory: &Path, opening: Opening) -> Result<Batpak, Failure> {
        let mut config = StoreConfig::new(directory);
        let mut options = AppendOptions::new();
        if matches!(opening, Opening::Synced | Opening::Cached) {
            config = config.with_sync_every_n_events(1).with_sync_mode(SyncMode::SyncData);
            options = options.with_gate(DurabilityGate::new(WatermarkKind::Durable, Duration::from_secs(10)));
        }
        let store = match opening {
            Opening::Uncached | Opening::Synced | Opening::Buffered => Store::open(config)?,
            Opening::Cached | Opening::CachedBuffered => {
                let config = config.with_incremental_projection(true);
                Store::open_with_native_cache(config, directory.with_extension("cache"))?
            }
        };
        Ok(Batpak { store: Arc::new(store), options })
    }

    fn close(self) -> Result<(), Failure> {
        Arc::into_inner(self.store).ok_or("the store is still in use")?.close()?;
        Ok(())
    }

    fn fill(&self, account: &str, events: u64) -> Result<(), Failure> {
        let account = address(account)?;
        let item = |cents| {
            let options = AppendOptions::new();
            BatchAppendItem::typed(account.clone(), &Deposited { cents }, options, CausationRef::None)
        };
        for batch in batches(events) {
            self.store.append_batch(batch.map(item).collect::<Result<_, _>>()?)?;
        }
        Ok(())
    }

    fn deposit(&self, account: &str, cents: u64) -> Result<(), Failure> {
        let _receipt = self.store.append_typed_with_options(
            &address(account)?,
            &Deposited { cents },
            self.options.clone(),
        )?;
        Ok(())
    }

    fn balance(&self, account: &str) -> Result<u64, Failure> {
        Ok(self.store.project::<Account>(account, &Freshness::Consistent)?.unwrap_or_default().cents)
    }

    fn react(&self, _: Pace) -> Result<Self::Reactor, Failure> {
        let region = Region::all().with_fact(KindFilter::Exact(Deposited::KIND));
        let config = ReactorConfig { checkpoint_id: Some(CheckpointId::new("audit")?), ..Default::default() };
        let auditor = Auditor { audit: address("audit")? };
        Ok(self.store.react_loop_typed::<Deposited, _>(&region, config, auditor)?)
    }

    fn stop(reactor: Self::Reactor) -> Result<(), Failure> {
        reactor.stop_and_join().map_err(|error| error.to_string().into())
    }

    fn audits(&self) -> Audits {
        let noted = self.store.subscribe_lossy(&Region::entity("audit"));
        Box::new(move || noted.recv().map(drop).ok_or_else(|| "the store was closed".into()))
    }
}

fn address(entity: &str) -> Result<Coordinate, Failure> {
    Ok(Coordinate::new(entity, "bench")?)
}
