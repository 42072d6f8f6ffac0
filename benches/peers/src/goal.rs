//! What the machine allows, what annals was asked for, and whether it was had.

use crate::peer::Class;
use crate::peers;
use crate::results::{CAL, Results};
use crate::rows::Row;

/// What the machine would allow if a store cost nothing; measured in the same run.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    Fixed(f64),
    /// So many events in each "cal" (a rate).
    PerCal(f64),
    /// So many "cal" (a time).
    Cals(f64),
    /// So many events in each sync of 32 KiB (a rate).
    PerSync32k(f64),
    /// An event in the sum of these times (a rate).
    PerNanos(&'static [&'static str]),
    /// This time, so many times.
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
    /// At most so many "cal" and microseconds.
    WithinCals(f64, f64),
    /// So many times as good as that peer.
    AheadOf(&'static str, f64),
    /// So many times as good as the best event store.
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
        small => format!("{small:.2}"),
    }
}
