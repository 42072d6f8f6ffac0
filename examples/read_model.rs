//! A read model: a state folded from all events of a query, and kept up to date by a thread of its own.
//!
//! What to learn: how to read your own write, and how a read model continues after a restart. For a changed
//! query the store builds a new state while it shows the old one.

use std::collections::BTreeMap;
use std::time::Duration;

use annals::{DomainEvent, Meta, Projection, Query, ReadModel, ReadModelStatus, Store};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(prefix = "order")]
enum OrderEvent {
    Placed { product: String, cents: u64 },
    Cancelled,
}

/// Sales by product, and the open orders, which a cancellation subtracts again.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Sales {
    by_product: BTreeMap<String, u64>,
    orders: BTreeMap<String, (String, u64)>,
}

impl Projection for Sales {
    type Event = OrderEvent;
    const NAME: &'static str = "sales";

    fn apply(&mut self, event: OrderEvent, meta: &Meta<'_>) {
        let order = meta.entity().to_owned();
        match event {
            OrderEvent::Placed { product, cents } => {
                *self.by_product.entry(product.clone()).or_default() += cents;
                self.orders.insert(order, (product, cents));
            }
            OrderEvent::Cancelled => {
                if let Some((product, cents)) = self.orders.remove(&order) {
                    *self.by_product.entry(product).or_default() -= cents;
                }
            }
        }
    }
}

/// The orders of all tenants.
fn orders() -> Query {
    Query::entity_prefix("order:")
}

const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let store = Store::open(directory.path().join("shop"))?;
    let sales: ReadModel<Sales> = store.project(orders())?;
    for number in 0..1_000 {
        let tenant = if number % 2 == 0 { "tenant:acme" } else { "tenant:initech" };
        let product = ["book", "lamp", "chair"][number % 3].to_owned();
        let placed = OrderEvent::Placed { product, cents: 100 };
        store.append((format!("order:{number}"), tenant.to_owned()), &placed)?;
    }
    let cancelled = store.append(("order:0", "tenant:acme"), &OrderEvent::Cancelled)?;

    // The read model may be a moment behind the store. Wait for the position of your own write.
    assert!(sales.wait_for(cancelled.position(), PATIENCE)?);
    assert_eq!(sales.state().by_product["book"], 33_300);
    assert_eq!(sales.state().position(), cancelled.position());
    store.close()?;

    // After a restart the saved state is shown at once.
    let store = Store::open(directory.path().join("shop"))?;
    let sales = store.project::<Sales>(orders())?;
    assert_eq!(sales.state().by_product["book"], 33_300);
    sales.stop();

    // For another query the store folds all events again, and shows the old state until it is done.
    let sales = store.project::<Sales>(orders().scope("tenant:acme"))?;
    if let ReadModelStatus::Rebuilding(progress) = sales.status() {
        println!("{} positions to go, {:?}", progress.behind, progress.remaining);
    }
    let head = store.head()?.position();
    assert!(sales.wait_for(head, PATIENCE)?);
    assert_eq!(sales.state().by_product["book"], 16_600);
    for (product, cents) in &sales.state().by_product {
        println!("{product}: {cents} cents");
    }
    Ok(store.close()?)
}
