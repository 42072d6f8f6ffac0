//! W8, W11: opening after a clean close and after kill -9, what it takes of memory, what the store takes of
//! the disk.
//!
//! Each peer's store is filled once per size and end, in a process of its own, and made durable before that
//! closes it or dies. Each measurement opens a fresh copy of it in a new process. So its time and memory are
//! those of opening alone. The copy is in the page cache.

use serde_json::json;

use super::{Bench, Cell};
use crate::child::{End, open_store};
use crate::measure::{Figures, figures, float};
use crate::peer::{Can, Kind};
use crate::place::{bytes_on_disk, copy};

pub fn cells(size: u64) -> Vec<Cell> {
    let cell = |end| Cell {
        name: open_cell(end, size),
        parameters: json!({ "size_events": size, "ended": end.name() }),
        is_for: |kind| kind.is_readable,
        measure: Box::new(move |bench, kind| measure(bench, kind, size, end)),
    };
    [End::Closed, End::Killed].map(cell).into()
}

/// The cell's name.
pub fn open_cell(end: End, size: u64) -> String {
    format!("W8-{}-{size}", end.name())
}

fn measure(bench: &Bench<'_>, kind: &Kind, size: u64, end: End) -> Can<Figures> {
    let filled = bench.filled.store(kind, size, end)?;
    bench.place.with_store(|directory| {
        copy(&filled, directory)?;
        let opened = open_store(kind.name, directory, size)?;
        Ok(Some(figures([
            ("open_ms", opened.millis),
            ("resident_mib", opened.resident_bytes / f64::from(1 << 20)),
            ("resident_bytes_per_event", opened.resident_bytes / float(size)),
            ("disk_bytes_per_event", float(bytes_on_disk(&filled)?) / float(size)),
        ])))
    })
}
