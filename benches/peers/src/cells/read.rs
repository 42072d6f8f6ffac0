//! W5-W7: replay, streams, single events by id.
//!
//! One store per peer, filled once and closed. A measurement opens it and appends nothing. The pages of the
//! store are in the page cache, and the caches of a peer are warm after its replays.

use std::time::Instant;

use super::Bench;
use crate::child::{End, entities};
use crate::measure::{Figures, Latency, figures, float};
use crate::peer::{Can, Failure, Kind, Look, Opening, Peer, Tally};
use crate::sample::{PAYLOAD_BYTES, Sample, entity, scattered};

/// How many different events are fetched by id.
const IDS: u64 = 100_000;

pub fn measure(bench: &Bench<'_>, kind: &Kind) -> Can<Figures> {
    let directory = bench.filled.store(kind, bench.options.size, End::Closed)?;
    let Some(store) = (kind.open)(&directory, Opening::Filled)? else { return Ok(None) };
    let reading = Reading::new(bench, &*store);
    let mut all = Figures::new();
    for (look, replay, stream) in [
        (Look::Decoded, "replay_decoded_per_s", "stream_decoded_us"),
        (Look::Raw, "replay_raw_per_s", "stream_raw_us"),
    ] {
        all.insert(replay.to_owned(), reading.replay(look)?);
        all.insert(stream.to_owned(), reading.stream(look)?);
    }
    all.extend(reading.get()?);
    store.close()?;
    Ok(Some(all))
}

struct Reading<'a> {
    bench: &'a Bench<'a>,
    store: &'a dyn Peer,
    sample: Sample,
}

impl<'a> Reading<'a> {
    fn new(bench: &'a Bench<'a>, store: &'a dyn Peer) -> Reading<'a> {
        Reading { bench, store, sample: Sample::new(entities(bench.options.size)) }
    }

    /// Reads everything, again and again until the time is up: events a second.
    fn replay(&self, look: Look) -> Result<f64, Failure> {
        let size = self.bench.options.size;
        let expected = self.expected(look, 0..size);
        let (began, mut events) = (Instant::now(), 0);
        while events == 0 || began.elapsed() < self.bench.options.time {
            same(self.store.replay(look)?, expected)?;
            events += size;
        }
        Ok(float(events) / began.elapsed().as_secs_f64())
    }

    /// Reads one entity's whole stream after the other's, entities in no visible order: the median time.
    fn stream(&self, look: Look) -> Result<f64, Failure> {
        let count = self.sample.entities();
        let (began, mut latency) = (Instant::now(), Latency::new());
        for step in 0.. {
            let number = scattered(step, count);
            let stride = usize::try_from(count)?;
            let expected = self.expected(look, (number..self.bench.options.size).step_by(stride));
            let entity = entity(number);
            let start = Instant::now();
            let tally = self.store.stream(&entity, look)?;
            latency.record(start.elapsed());
            same(tally, expected)?;
            if began.elapsed() >= self.bench.options.time {
                break;
            }
        }
        Ok(latency.figures()["p50_us"])
    }

    /// Fetches each event once, in no visible order. A look at the clock, some 20 ns, is in each time.
    fn get(&self) -> Result<Figures, Failure> {
        let size = self.bench.options.size;
        let ids = self.store.ids(IDS.min(size), size)?.ok_or("a store that is read has ids")?;
        let expected = self.expected(Look::Raw, 0..1);
        let mut latency = Latency::new();
        for id in ids {
            let began = Instant::now();
            let tally = self.store.get(id)?;
            latency.record(began.elapsed());
            same(tally, expected)?;
        }
        let quantiles = latency.figures();
        Ok(figures([("get_p50_us", quantiles["p50_us"]), ("get_p99_us", quantiles["p99_us"])]))
    }

    /// What reading the events with these numbers must find.
    fn expected(&self, look: Look, numbers: impl Iterator<Item = u64> + Clone) -> Tally {
        let events = u64::try_from(numbers.clone().count()).expect("they are counted in 64 bits");
        let payload = u64::try_from(PAYLOAD_BYTES).expect("a small number");
        match look {
            Look::Raw => Tally { events, bytes: events * payload, cents: 0 },
            Look::Decoded => Tally { events, bytes: 0, cents: self.sample.cents(numbers) },
        }
    }
}

fn same(found: Option<Tally>, expected: Tally) -> Result<(), Failure> {
    if found == Some(expected) { Ok(()) } else { Err(format!("found {found:?}, not {expected:?}").into()) }
}
