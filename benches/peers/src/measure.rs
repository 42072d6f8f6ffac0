//! Taking times, and what one line of the result is.

use std::time::{Duration, Instant};

/// Why the bench stopped: an error of either store, or of a file.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long something short is called again and again.
const REPEATED_FOR: Duration = Duration::from_millis(150);
/// Calls between two looks at the clock, which costs as much as the shortest of them.
const CALLS: u32 = 16;

/// The unit of a cell's figures.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    PerSecond,
}

/// The time of one call of something short, from the median of many batches.
pub fn repeated(mut call: impl FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    let (mut batches, began) = (Vec::new(), Instant::now());
    while began.elapsed() < REPEATED_FOR {
        let batch = Instant::now();
        for _ in 0..CALLS {
            call()?;
        }
        batches.push(batch.elapsed().as_secs_f64() / f64::from(CALLS));
    }
    Ok(median(batches))
}

/// The median of times that the closure takes itself, because something else must happen in between.
pub fn each(times: u32, sample: impl FnMut() -> Result<Duration, Failure>) -> Result<f64, Failure> {
    let samples: Vec<Duration> =
        std::iter::repeat_with(sample).take(usize::try_from(times)?).collect::<Result<_, _>>()?;
    Ok(median(samples.iter().map(Duration::as_secs_f64).collect()))
}

pub fn timed<T>(call: impl FnOnce() -> Result<T, Failure>) -> Result<(T, Duration), Failure> {
    let began = Instant::now();
    let value = call()?;
    Ok((value, began.elapsed()))
}

/// The middle one; of two, the lower. Not a number if there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len().saturating_sub(1) / 2;
    values.get(middle).copied().unwrap_or(f64::NAN)
}

impl Unit {
    /// A figure for people.
    pub fn show(self, figure: f64) -> String {
        match self {
            Unit::PerSecond => format!("{figure:.0} /s"),
            Unit::Seconds if figure < 1e-6 => format!("{:.0} ns", figure * 1e9),
            Unit::Seconds if figure < 1e-3 => format!("{:.1} us", figure * 1e6),
            Unit::Seconds => format!("{:.2} ms", figure * 1e3),
        }
    }

    /// How many times better the first is; below 1 it is worse.
    pub fn ratio(self, ours: f64, theirs: f64) -> f64 {
        match self {
            Unit::Seconds => theirs / ours,
            Unit::PerSecond => ours / theirs,
        }
    }
}
