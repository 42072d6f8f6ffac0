//! What the machine allows, what annals was asked for, and whether it was had.

use crate::peer::Class;
use crate::peers;
use crate::results::{CAL, Results};
use crate::rows::Row;

/// The limit of the machine, as if a store cost nothing; measured in the same run.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    Fixed(f64),
    /// This number of events in each "cal" (a rate).
    PerCal(f64),
    /// This number of "cal" (a time).
    Cals(f64),
    /// This number of events in each sync of 32 KiB (a rate).
    PerSync32k(f64),
    /// An event in the sum of these times (a rate).
    PerNanos(&'static [&'static str]),
    /// A multiple of this time.
    Nanos(&'static str, f64),
    /// A sleeping thread's answer, there and back.
    WakeUp,
    CalAndWakeUp,
}

impl Limit {
    /// In the unit of the row; `None` if what it needs was not measured.
    pub fn value(self, row: &Row, results: &Results) -> Option<f64> {
        let cal = || results.median(&row.cell, peers::OURS, CAL);
        Some(match self {
            Limit::Fixed(value) => value,
            Limit::PerCal(events) => events * 1e6 / cal()?,
            Limit::Cals(cals) => cals * cal()?,
            Limit::PerSync32k(events) => events * 1e6 / results.machine("sync_32k_us")?,
            Limit::PerNanos(times) => {
                1e9 / times.iter().map(|time| results.machine(time)).sum::<Option<f64>>()?
            }
            Limit::Nanos(time, times) => results.machine(time)? * times / 1e3,
            Limit::WakeUp => results.machine("wake_up_us")?,
            Limit::CalAndWakeUp => cal()? + results.machine("wake_up_us")?,
        })
    }
}

/// What is asked of annals in one row.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// Asked for what is read from segments in memory, which this store may not all be.
    AtMostIfResident(f64),
    /// Events per "cal".
    PerCal(f64),
    /// At most this number of "cal" and of microseconds.
    WithinCals(f64, f64),
    /// As good as this peer, times a factor.
    AheadOf(&'static str, f64),
    /// As good as the best event store, times a factor.
    AheadOfStores(f64),
}

impl Goal {
    pub fn text(self) -> String {
        match self {
            Goal::AtLeast(least) => format!(">= {}", short(least)),
            Goal::AtMost(most) => format!("<= {}", short(most)),
            Goal::AtMostIfResident(most) => format!("<= {} resident", short(most)),
            Goal::PerCal(least) => format!(">= {least}/cal"),
            Goal::WithinCals(cals, 0.0) => format!("<= {cals} cal"),
            Goal::WithinCals(cals, micros) => format!("<= {cals} cal + {micros} us"),
            Goal::AheadOf(peer, 1.0) => format!("> {peer}"),
            Goal::AheadOf(peer, times) => format!(">= {times}x {peer}"),
            Goal::AheadOfStores(_) => "> event stores".to_owned(),
        }
    }

    /// Whether it is reached; `None` if what it needs was not measured.
    pub fn is_met(self, row: &Row, results: &Results) -> Option<bool> {
        let ours = results.median(&row.cell, peers::OURS, row.figure)?;
        let cal = || results.median(&row.cell, peers::OURS, CAL);
        Some(match self {
            Goal::AtLeast(least) => ours >= least,
            Goal::AtMost(most) | Goal::AtMostIfResident(most) => ours <= most,
            Goal::PerCal(least) => ours * cal()? / 1e6 >= least,
            Goal::WithinCals(cals, micros) => ours <= cals * cal()? + micros,
            Goal::AheadOf(peer, times) => {
                ahead(row, ours, results.median(&row.cell, peer, row.figure)?) >= times
            }
            Goal::AheadOfStores(times) => ahead_of_best(row, results, &[Class::EventStore])? >= times,
        })
    }
}

/// How many times better ours is than the best of these peers; below 1 it is worse.
pub fn ahead_of_best(row: &Row, results: &Results, classes: &[Class]) -> Option<f64> {
    let ours = results.median(&row.cell, peers::OURS, row.figure)?;
    let others = peers::ALL.iter().filter(|kind| classes.contains(&kind.class));
    others
        .filter_map(|kind| results.median(&row.cell, kind.name, row.figure))
        .map(|theirs| ahead(row, ours, theirs))
        .min_by(f64::total_cmp)
}

/// How many times better the first is.
pub fn ahead(row: &Row, ours: f64, theirs: f64) -> f64 {
    if row.unit.is_more_better() { ours / theirs } else { theirs / ours }
}

/// A number as it is said: 400k, 1.2M.
pub fn short(value: f64) -> String {
    match value {
        millions if millions >= 1e6 => format!("{:.2}M", millions / 1e6),
        thousands if thousands >= 1e5 => format!("{:.0}k", thousands / 1e3),
        thousands if thousands >= 1e4 => format!("{:.1}k", thousands / 1e3),
        large if large >= 100.0 => format!("{large:.0}"),
        medium if medium >= 10.0 => format!("{medium:.1}"),
        small if small >= 0.1 => format!("{small:.2}"),
        tiny => format!("{tiny:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::figures;
    use crate::rows::Unit;

    /// A cell whose rate is 100 for annals, 80 for tephra, 125 for sqlite; cal 50 ms.
    fn measured(unit: Unit) -> (Row, Results) {
        let mut results = Results::default();
        for (peer, value) in [(peers::OURS, 100.0), ("tephra", 80.0), ("sqlite", 125.0)] {
            results.add("cell", peer, &figures([("figure", value), (CAL, 50_000.0)]));
        }
        let (title, cell) = ("row".to_owned(), "cell".to_owned());
        (Row { title, cell, figure: "figure", unit, limit: None, goals: Vec::new() }, results)
    }

    #[test]
    fn goals_of_rates_and_times() {
        use Goal::*;
        let (rate, time) = (Unit::PerSecond, Unit::Micros);
        for (unit, goal, is_met) in [
            (rate, AtLeast(100.0), Some(true)),
            (rate, AtLeast(101.0), Some(false)),
            (rate, PerCal(5.0), Some(true)),
            (rate, PerCal(5.1), Some(false)),
            (rate, AheadOf("tephra", 1.25), Some(true)),
            (rate, AheadOf("tephra", 1.3), Some(false)),
            (rate, AheadOf("fjall", 1.0), None),
            (rate, AheadOfStores(1.0), Some(true)),
            (time, AtMost(100.0), Some(true)),
            (time, AtMostIfResident(99.0), Some(false)),
            (time, WithinCals(0.001, 50.0), Some(true)),
            (time, WithinCals(0.001, 49.0), Some(false)),
            (time, AheadOf("sqlite", 1.25), Some(true)),
            (time, AheadOfStores(1.0), Some(false)),
        ] {
            let (row, results) = measured(unit);
            assert_eq!(goal.is_met(&row, &results), is_met, "{unit:?} {goal:?}");
        }
    }

    #[test]
    fn limits_in_the_units_of_their_rows() {
        for (limit, value) in [
            (Limit::PerCal(8.0), Some(160.0)),
            (Limit::Cals(2.0), Some(100_000.0)),
            (Limit::PerNanos(&["a_ns", "b_ns"]), Some(1e7)),
            (Limit::Nanos("a_ns", 1e3), Some(40.0)),
            (Limit::Nanos("c_ns", 1e3), None),
            (Limit::CalAndWakeUp, Some(50_004.0)),
        ] {
            let (row, mut results) = measured(Unit::PerSecond);
            let limits = figures([("a_ns", 40.0), ("b_ns", 60.0), ("wake_up_us", 4.0)]);
            results.add(crate::results::MACHINE, crate::results::MACHINE, &limits);
            assert_eq!(limit.value(&row, &results), value, "{limit:?}");
        }
    }

    #[test]
    fn numbers_for_people() {
        for (value, text) in [
            (0.00049, "0.0005"),
            (0.174, "0.17"),
            (12.34, "12.3"),
            (987.6, "988"),
            (9_876.0, "9876"),
            (12_345.0, "12.3k"),
            (456_789.0, "457k"),
            (1.234e6, "1.23M"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
