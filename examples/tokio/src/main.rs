//! annals under tokio: tasks append by awaiting tickets, and follow without a thread of their own.
//!
//! What to learn: a `Ticket` is a future for any executor, and appends in flight share one sync.
//! `Subscription::next_async` waits for the next event and reads it on the task's own thread. That takes a
//! few microseconds if the page cache has the event. Long reads and `close` block, so they belong in
//! `spawn_blocking`.

use annals::{Append, Error, Query, Raw, Store};

const SENSORS: u64 = 8;
const READINGS: u64 = 50;

/// Appends the readings of one sensor, one after the other. Sensors share syncs.
async fn measure(store: Store, sensor: u64) -> Result<(), Error> {
    for reading in 0..READINGS {
        let append = Append::to(format!("sensor:{sensor}")).event(&Raw("sensor.read", &reading));
        // `try_submit` never blocks the task: a full queue is an error.
        append.try_submit(&store)?.await?;
    }
    Ok(())
}

/// Adds up the readings of all sensors as they arrive.
async fn follow(store: Store) -> Result<u64, Error> {
    let mut readings = store.subscribe(Query::all().kind("sensor.read"));
    let mut total = 0;
    for _ in 0..SENSORS * READINGS {
        let reading = readings.next_async().await.expect("the store is open")?;
        total += reading.decode::<u64>()?;
    }
    Ok(total)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let store = Store::open(directory.path().join("sensors"))?;
    let following = tokio::spawn(follow(store.clone()));
    let sensors: Vec<_> = (0..SENSORS).map(|sensor| tokio::spawn(measure(store.clone(), sensor))).collect();
    for sensor in sensors {
        sensor.await??;
    }
    let total = following.await??;
    println!("{} readings add up to {total}", SENSORS * READINGS);
    assert_eq!(total, SENSORS * (0..READINGS).sum::<u64>());
    let stats = store.stats();
    println!("{} appends took {} syncs", stats.appends, stats.syncs);
    tokio::task::spawn_blocking(move || store.close()).await??;
    Ok(())
}
