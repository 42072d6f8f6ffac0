//! W10: what an entity of 10,000 orders has come to: folded from nothing, unchanged since, one event later.
//!
//! A peer without states of its own folds by hand what it reads from the stream.

use super::Bench;
use crate::measure::{Figures, each, figures, repeated, timed};
use crate::peer::{Can, Failure, Kind, Opening, Peer};

/// Orders of the entity.
pub const EVENTS: u64 = 10_000;
/// Appends that a state is asked for after.
const APPENDS: u32 = 500;

pub fn measure(bench: &Bench<'_>, kind: &Kind) -> Can<Figures> {
    let Some(mut all) = cold(bench, kind)? else { return Ok(None) };
    if kind.keeps_states {
        all.extend(cached(bench, kind)?.unwrap_or_default());
    }
    Ok(Some(all))
}

fn cold(bench: &Bench<'_>, kind: &Kind) -> Can<Figures> {
    bench.place.with_store(|directory| {
        let Some(store) = (kind.open)(directory, Opening::Uncached)? else { return Ok(None) };
        let expected = fill(bench, &*store)?;
        let cold = each(5, || {
            let (total, took) = timed(|| store.total(entity(bench)))?;
            same(total, expected)?;
            Ok(took)
        })?;
        store.close()?;
        Ok(Some(figures([("cold_us", cold * 1e6)])))
    })
}

fn cached(bench: &Bench<'_>, kind: &Kind) -> Can<Figures> {
    bench.place.with_store(|directory| {
        let Some(store) = (kind.open)(directory, Opening::Cached)? else { return Ok(None) };
        let mut expected = fill(bench, &*store)?;
        same(store.total(entity(bench))?, expected)?;
        let unchanged = repeated(|| same(store.total(entity(bench))?, expected))?;
        let one_more = each(bench.times(APPENDS), || {
            let (entity, order) = bench.sample.event(0);
            store.append(entity, order)?;
            expected += order.cents;
            let (total, took) = timed(|| store.total(entity))?;
            same(total, expected)?;
            Ok(took)
        })?;
        store.close()?;
        Ok(Some(figures([("unchanged_us", unchanged * 1e6), ("one_more_us", one_more * 1e6)])))
    })
}

/// Gives all orders to one entity: what they come to.
fn fill(bench: &Bench<'_>, store: &dyn Peer) -> Result<u64, Failure> {
    for first in (0..EVENTS).step_by(100) {
        let batch = bench.sample.batch(first, 100).into_iter().map(|(_, order)| (entity(bench), order));
        store.append_batch(&batch.collect::<Vec<_>>())?;
    }
    store.sync()?;
    Ok(bench.sample.cents(0..EVENTS))
}

fn entity<'a>(bench: &'a Bench<'_>) -> &'a str {
    bench.sample.event(0).0
}

fn same(found: Option<u64>, expected: u64) -> Result<(), Failure> {
    if found == Some(expected) {
        Ok(())
    } else {
        Err(format!("it comes to {found:?}, not {expected}").into())
    }
}
