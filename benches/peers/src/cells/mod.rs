//! What is measured. Each cell makes its own store, or opens one that was filled before, and checks what it
//! reads.

mod follow;
mod open;
mod read;
mod state;
mod throughput;

pub use open::open_cell;
use serde_json::{Value, json};

use crate::accounts;
use crate::filled::Filled;
use crate::measure::Figures;
use crate::options::Options;
use crate::peer::{Can, Kind};
use crate::place::Place;
use crate::sample::Sample;

/// What all cells need.
pub struct Bench<'a> {
    pub options: &'a Options,
    pub place: &'a Place,
    /// Events of a thousand entities in turns.
    pub sample: Sample,
    pub filled: Filled,
}

impl Bench<'_> {
    /// A number of repetitions, or few of them.
    pub fn times(&self, times: u32) -> u32 {
        if self.options.is_quick { times.div_ceil(10) } else { times }
    }
}

type Measure = Box<dyn Fn(&Bench<'_>, &Kind) -> Can<Figures>>;

/// One thing to measure, of each peer that can do it.
pub struct Cell {
    pub name: String,
    /// What distinguishes it, names with units.
    pub parameters: Value,
    /// Whom not even to ask.
    pub is_for: fn(&Kind) -> bool,
    pub measure: Measure,
}

/// All cells, in the order of the table.
pub fn all(options: &Options) -> Vec<Cell> {
    let mut cells = throughput::cells();
    cells.push(Cell {
        name: "W5 W6 W7".to_owned(),
        parameters: json!({ "size_events": options.size, "events_per_stream": 1_000 }),
        is_for: |kind| kind.is_readable,
        measure: Box::new(read::measure),
    });
    cells.extend(options.sizes.iter().flat_map(|size| open::cells(*size)));
    cells.extend(follow::cells());
    cells.push(Cell {
        name: "W10".to_owned(),
        parameters: json!({ "events_per_entity": state::EVENTS }),
        is_for: |kind| kind.is_readable,
        measure: Box::new(state::measure),
    });
    cells.extend(accounts::cells());
    cells
}
