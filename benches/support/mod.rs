//! What the benches share.
//!
//! A bench is a list of cells, each a name, its parameters and a closure that measures once.
//! [`rounds::run`] measures every cell once per round, between two calibrations, and hands the
//! results to [`report::Report`], which prints the table and the JSON lines.
#![allow(dead_code, reason = "no bench uses all of it")]

pub mod calibration;
pub mod flight;
pub mod latency;
pub mod options;
pub mod place;
pub mod report;
pub mod rounds;
pub mod sample;

/// Why a bench stopped: an error of the store, of a file, or of a child process.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The nearest `f64`; what is counted here stays far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub fn float(count: u64) -> f64 {
    count as f64
}
