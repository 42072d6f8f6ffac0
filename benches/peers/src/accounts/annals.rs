//! annals, as its documentation has it.

use std::path::Path;
use std::time::Duration;

use annals::{
    Append, DomainEvent, Durability, Meta, Projection, Query, Reaction, RecordedEvent, Store, Worker,
};
use serde::{Deserialize, Serialize};

use super::peer::{Audits, Opening, Pace, Peer, batches};
use crate::peer::Failure;

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(prefix = "account")]
enum AccountEvent {
    Deposited { cents: u64 },
}

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(kind = "audit.noted")]
struct Noted {
    cents: u64,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Account {
    cents: u64,
}

impl Projection for Account {
    type Event = AccountEvent;
    const NAME: &'static str = "account";

    fn apply(&mut self, event: AccountEvent, _: &Meta<'_>) {
        let AccountEvent::Deposited { cents } = event;
        self.cents += cents;
    }
}

pub struct Annals {
    store: Store,
}

impl Peer for Annals {
    type Reactor = Worker;
    const DEFAULT: Opening = Opening::Synced;

    fn open(directory: &Path, opening: Opening) -> Result<Annals, Failure> {
        let builder = Store::builder(directory);
        let builder = match opening {
            Opening::Uncached => builder.cache_memory_bytes(0).cache_disk_bytes(0),
            Opening::Cached | Opening::Synced => builder,
            Opening::Buffered | Opening::CachedBuffered => {
                builder.durability(Durability::Buffered { flush_every: Duration::from_millis(100) })
            }
        };
        Ok(Annals { store: builder.open()? })
    }

    fn close(self) -> Result<(), Failure> {
        Ok(self.store.close()?)
    }

    fn fill(&self, account: &str, events: u64) -> Result<(), Failure> {
        for batch in batches(events) {
            let deposits = batch.map(|cents| AccountEvent::Deposited { cents });
            deposits
                .fold(Append::to(account), |append, deposit| append.event(&deposit))
                .commit(&self.store)?;
        }
        Ok(())
    }

    fn deposit(&self, account: &str, cents: u64) -> Result<(), Failure> {
        self.store.append(account, &AccountEvent::Deposited { cents })?;
        Ok(())
    }

    fn balance(&self, account: &str) -> Result<u64, Failure> {
        Ok(self.store.load::<Account>(account)?.cents)
    }

    fn react(&self, pace: Pace) -> Result<Worker, Failure> {
        let worker = self.store.worker("audit", Query::all().kind("account.deposited"));
        let worker = match pace {
            Pace::Default => worker,
            Pace::InFlight(reactions) => worker.in_flight_max(reactions),
        };
        Ok(worker.react(|deposited: &RecordedEvent, reaction: &mut Reaction<'_>| {
            let AccountEvent::Deposited { cents } = deposited.to()?;
            reaction.append("audit", &Noted { cents });
            Ok(())
        })?)
    }

    fn stop(worker: Worker) -> Result<(), Failure> {
        worker.stop();
        Ok(())
    }

    fn audits(&self) -> Audits {
        let mut noted = self.store.subscribe(Query::entity("audit")).after_head();
        Box::new(move || noted.next().ok_or("the store was closed")?.map(drop).map_err(Failure::from))
    }
}
