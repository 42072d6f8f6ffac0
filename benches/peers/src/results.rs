//! What all rounds gave, by cell, peer and figure.

use std::collections::BTreeMap;

use crate::measure::{Figures, median};

/// The limits of the machine are kept under this name, as if it were a peer.
pub const MACHINE: &str = "machine";
/// "cal" beside a measurement, in microseconds: another figure of it.
pub const CAL: &str = "cal_us";

/// Figures of all rounds so far.
#[derive(Default)]
pub struct Results(BTreeMap<(String, String), BTreeMap<String, Vec<f64>>>);

impl Results {
    pub fn add(&mut self, cell: &str, peer: &str, figures: &Figures) {
        let of_cell = self.0.entry((cell.to_owned(), peer.to_owned())).or_default();
        for (name, value) in figures {
            of_cell.entry(name.clone()).or_default().push(*value);
        }
    }

    /// One value for each round in which it was measured; empty if it never was.
    pub fn rounds(&self, cell: &str, peer: &str, figure: &str) -> &[f64] {
        let figures = self.0.get(&(cell.to_owned(), peer.to_owned()));
        figures.and_then(|figures| figures.get(figure)).map_or(&[], Vec::as_slice)
    }

    /// The median of the rounds.
    pub fn median(&self, cell: &str, peer: &str, figure: &str) -> Option<f64> {
        let rounds = self.rounds(cell, peer, figure);
        (!rounds.is_empty()).then(|| median(rounds))
    }

    /// A limit of the machine.
    pub fn machine(&self, figure: &str) -> Option<f64> {
        self.median(MACHINE, MACHINE, figure)
    }
}
