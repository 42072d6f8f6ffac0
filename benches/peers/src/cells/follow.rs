//! W9: from the call of an append until a follower is awake with its event.
//!
//! One thread appends and waits until the follower, on a thread of its own, says when it was woken.

use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use serde_json::json;

use super::{Bench, Cell};
use crate::measure::{Figures, Latency};
use crate::peer::{Can, Failure, Kind, Opening, PATIENCE};

/// Events that wake the follower.
const EVENTS: u32 = 2_000;

pub fn cells() -> Vec<Cell> {
    let cell = |(name, durability, opening): (&str, &str, Opening)| Cell {
        name: name.to_owned(),
        parameters: json!({ "durability": durability, "threads": 1, "followers": 1 }),
        is_for: |kind| kind.is_readable,
        measure: Box::new(move |bench, kind| measure(bench, kind, opening)),
    };
    [("W9-durable", "synced", Opening::Synced), ("W9-buffered", "buffered", Opening::Buffered)]
        .map(cell)
        .into()
}

fn measure(bench: &Bench<'_>, kind: &Kind, opening: Opening) -> Can<Figures> {
    bench.place.with_store(|directory| {
        let Some(store) = (kind.open)(directory, opening)? else { return Ok(None) };
        let Some(mut next) = store.follow()? else { return Ok(None) };
        let events = bench.times(EVENTS);
        let (woken, wakings) = mpsc::channel();
        let follower = thread::spawn(move || {
            for _ in 0..events {
                if !next()? || woken.send(Instant::now()).is_err() {
                    break;
                }
            }
            Ok::<_, Failure>(())
        });
        let mut latency = Latency::new();
        for number in 0..events {
            let (entity, order) = bench.sample.event(number.into());
            let began = Instant::now();
            store.append(entity, order)?;
            latency.record(wakings.recv_timeout(PATIENCE)?.saturating_duration_since(began));
        }
        follower.join().map_err(|_| "the follower panicked")??;
        store.close()?;
        Ok(Some(latency.figures()))
    })
}
