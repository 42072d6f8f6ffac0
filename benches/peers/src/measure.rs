//! Taking times, and what was measured.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::peer::Failure;

/// How long something short is called again and again.
const REPEATED_FOR: Duration = Duration::from_millis(150);
/// Calls between two looks at the clock, which costs as much as the shortest of them.
const CALLS: u32 = 16;

/// What measuring a cell once gave, by name.
pub type Figures = BTreeMap<String, f64>;

/// Names a few figures.
pub fn figures<const N: usize>(named: [(&str, f64); N]) -> Figures {
    named.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The quantiles that a picture of latencies is drawn from, in percent.
pub const QUANTILES: [f64; 12] = [1.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.9, 99.99];

/// The name of a quantile's figure.
pub fn quantile_name(percent: f64) -> String {
    format!("p{percent}_us")
}

/// The times of single operations, kept to three digits, up to ten minutes.
pub struct Latency(Histogram<u64>);

impl Latency {
    pub fn new() -> Latency {
        const LONGEST: u64 = 600 * 1_000_000_000;
        Latency(Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are in order"))
    }

    pub fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds the times of another thread.
    pub fn add(&mut self, other: &Latency) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// In microseconds: the quantiles, and the maximum.
    pub fn figures(&self) -> Figures {
        let micros = |nanos: u64| float(nanos) / 1e3;
        let quantile =
            |percent: f64| (quantile_name(percent), micros(self.0.value_at_quantile(percent / 100.0)));
        let mut figures: Figures = QUANTILES.into_iter().map(quantile).collect();
        figures.insert("max_us".to_owned(), micros(self.0.max()));
        figures
    }
}

/// The time of one call of something short, in seconds: the median of many batches.
pub fn repeated(mut call: impl FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    let (mut batches, began) = (Vec::new(), Instant::now());
    while began.elapsed() < REPEATED_FOR {
        let batch = Instant::now();
        for _ in 0..CALLS {
            call()?;
        }
        batches.push(batch.elapsed().as_secs_f64() / f64::from(CALLS));
    }
    Ok(median(&batches))
}

/// The median of times that the closure takes itself, because something else must happen in between.
pub fn each(times: u32, sample: impl FnMut() -> Result<Duration, Failure>) -> Result<f64, Failure> {
    let samples: Vec<Duration> =
        std::iter::repeat_with(sample).take(usize::try_from(times)?).collect::<Result<_, _>>()?;
    Ok(median(&samples.iter().map(Duration::as_secs_f64).collect::<Vec<_>>()))
}

/// A value, and how long it took.
pub fn timed<T>(call: impl FnOnce() -> Result<T, Failure>) -> Result<(T, Duration), Failure> {
    let began = Instant::now();
    let value = call()?;
    Ok((value, began.elapsed()))
}

/// The middle one, or between the two in the middle. Not a number if there is none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.get((sorted.len().max(1) - 1) / 2), sorted.get(sorted.len() / 2)) {
        (Some(low), Some(high)) => f64::midpoint(*low, *high),
        _ => f64::NAN,
    }
}

/// Half of what lies between the extremes, relative to the median.
pub fn spread_percent(rounds: &[f64]) -> f64 {
    let least = rounds.iter().copied().fold(f64::INFINITY, f64::min);
    let most = rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if most > least { 50.0 * (most - least) / median(rounds) } else { 0.0 }
}

/// The nearest `f64`; what is counted here stays far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads() {
        for (values, middle, spread) in [
            (vec![3.0], 3.0, 0.0),
            (vec![4.0, 2.0], 3.0, 50.0 * 2.0 / 3.0),
            (vec![9.0, 1.0, 4.0], 4.0, 100.0),
            (vec![0.0, 0.0], 0.0, 0.0),
        ] {
            assert_eq!((median(&values), spread_percent(&values)), (middle, spread), "{values:?}");
        }
        assert!(median(&[]).is_nan(), "nothing has no middle");
    }
}
