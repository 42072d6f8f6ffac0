//! A read model: the state of everything a query matches, kept up by a thread of its own.
//!
//! Learn how to keep one, how to read your own write, how it goes on after a restart, and how it is built anew
//! beside the old one when the question changes.

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

/// What was sold, by product; and what is known of orders, to take out those that are cancelled.
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

/// Everybody's orders, or those of one tenant.
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

    // It is a moment behind; whoever needs to see its own write waits for it.
    assert!(sales.wait_for(cancelled.position(), PATIENCE)?);
    assert_eq!(sales.state().by_product["book"], 33_300);
    assert_eq!(sales.state().position(), cancelled.position());
    store.close()?;

    // After a restart it goes on where it was: what was saved is shown at once.
    let store = Store::open(directory.path().join("shop"))?;
    let sales = store.project::<Sales>(orders())?;
    assert_eq!(sales.state().by_product["book"], 33_300);
    sales.stop();

    // Another query: everything is folded anew beside the old state, which is shown until then.
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
