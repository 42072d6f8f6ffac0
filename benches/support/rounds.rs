//! The order of measuring: every cell once per round, a calibration between any two.

use serde_json::{Map, Value};

use super::Failure;
use super::calibration::Calibration;
use super::options::{Options, Scale};
use super::place::Place;
use super::report::{Column, Figures, Goal, Report};

/// One thing to measure.
pub struct Cell<'a> {
    pub name: String,
    /// What distinguishes it, names with units.
    pub parameters: Map<String, Value>,
    pub goal: Option<Goal>,
    /// Whether what it counts waits for syncs, so that its rate is worth comparing with "cal".
    pub is_durable: bool,
    /// Measures once.
    pub measure: Box<dyn FnMut() -> Result<Measured, Failure> + 'a>,
}

/// What measuring a cell once gave.
#[derive(Default)]
pub struct Measured {
    pub figures: Figures,
    /// Something in words that belongs to it.
    pub note: Option<String>,
}

impl From<Figures> for Measured {
    fn from(figures: Figures) -> Measured {
        Measured { figures, note: None }
    }
}

/// A bench: what it is called, and which figures its table shows.
pub struct Bench {
    pub name: &'static str,
    pub columns: &'static [Column],
}

/// Measures the cells that were asked for, and prints what came out.
///
/// Rounds are the outer loop. So a bad second of the device hits one round of a few cells, and not all rounds
/// of one.
pub fn run(bench: &Bench, options: &Options, place: &Place, mut cells: Vec<Cell<'_>>) -> Result<(), Failure> {
    cells.retain(|cell| cell.name.contains(&options.only));
    if options.scale == Scale::Smoke {
        cells.iter_mut().for_each(|cell| cell.goal = None);
    }
    let mut calibration = Calibration::new(place.path(), options.scale)?;
    let mut report = Report::new(bench, options, place)?;
    for round in 1..=options.rounds {
        let mut before = calibration.measure()?;
        for cell in &mut cells {
            let measured = (cell.measure)()?;
            let after = calibration.measure()?;
            report.record(cell, round, measured, &before.with(&after))?;
            before = after;
        }
    }
    report.finish(&cells)
}
