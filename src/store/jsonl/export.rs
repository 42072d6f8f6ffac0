//! Export: the public builder, its progress and result, and the run that writes events as lines.

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::line::{self, LineNames, PlaceInAppend};
use crate::event::RecordedEvent;
use crate::maintenance::{OnProgress, or_cancelled};
use crate::read::{EventLookup, Read, Snapshot, cause_of};
use crate::store::Store;
#[cfg(doc)]
use crate::types::ErrorKind;
use crate::types::{Cause, Error, EventId, Position, Query, counted, to_u64};

/// Events between two progress reports.
const REPORT_EVENTS: u64 = 4096;
/// Bytes of lines that are handed to the writer at once.
const PIECE_BYTES: usize = 64 << 10;
/// How many ids are remembered.
const NAMES_MAX: usize = 4096;

impl Store {
    /// Exports the events a query matches as JSONL, oldest first: one event a line, with everything known of
    /// it.
    ///
    /// [`Store::import`] reads the lines into another store; docs/jsonl.md says what each field means.
    /// Appends go on; the export ends at the head it found at its start.
    ///
    /// ```
    /// use annals::{Query, Raw, Store};
    ///
    /// let store = Store::in_memory()?;
    /// store.append("order:1", &Raw("order.placed", &"a book"))?;
    /// let mut lines = Vec::new();
    /// let exported = store.export(Query::all()).write_to(&mut lines)?;
    /// assert_eq!(exported.events, 1);
    ///
    /// let copy = Store::in_memory()?;
    /// copy.import("copy of the shop", lines.as_slice()).run()?;
    /// let placed = copy.stream("order:1").next().unwrap()?;
    /// assert_eq!((placed.kind(), placed.decode::<&str>()?), ("order.placed", "a book"));
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn export(&self, query: Query) -> Export<'_> {
        Export { store: self, query, after: Position::START, on_progress: None }
    }
}

/// An export that is being set up; see [`Store::export`].
#[must_use = "nothing is exported until it is written to something"]
pub struct Export<'a> {
    store: &'a Store,
    query: Query,
    after: Position,
    on_progress: Option<OnProgress<'a, ExportProgress>>,
}

impl<'a> Export<'a> {
    /// Exports only events after a position: what is new since the last export.
    pub fn after(mut self, position: Position) -> Export<'a> {
        self.after = position;
        self
    }

    /// Reports progress every 4,096 events; [`ControlFlow::Break`] breaks the export off.
    pub fn on_progress(mut self, tell: impl FnMut(&ExportProgress) -> ControlFlow<()> + 'a) -> Export<'a> {
        self.on_progress = Some(Box::new(tell));
        self
    }

    /// Writes the export, whole appends at a time; the writer needs no buffer of its own. What was written
    /// before an error ends with a whole line, unless the writer took a part of one.
    ///
    /// # Errors
    ///
    /// Those of reading; [`ErrorKind::Io`] or [`ErrorKind::NoSpace`] with the writer's own error as the
    /// source (a closed pipe: `BrokenPipe`); [`ErrorKind::Cancelled`] if `on_progress` broke it off.
    pub fn write_to(self, out: impl Write) -> Result<Exported, Error> {
        let snapshot = self.store.engine().snapshot()?;
        let head = snapshot.head.position;
        let progress = ExportProgress { after: self.after, position: self.after, head, ..Default::default() };
        let names = LineIds { snapshot, lookup: EventLookup::default(), known: HashMap::new() };
        let run = ExportRun {
            out,
            piece: Vec::new(),
            names,
            on_progress: self.on_progress,
            progress,
            appends: 0,
            began: Instant::now(),
        };
        run.write(self.store.read(self.query).after(self.after))
    }
}

/// How far an export is; see [`Export::on_progress`](Export::on_progress).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportProgress {
    /// Events exported so far.
    pub events: u64,
    /// Bytes of their lines.
    pub bytes: u64,
    /// The position behind which the export began.
    pub after: Position,
    /// The position of the last exported event.
    pub position: Position,
    /// The position at which the export ends.
    pub head: Position,
    /// Time since the export began.
    pub elapsed: Duration,
}

impl ExportProgress {
    /// The time left if matching events stay as dense as so far; `None` before the first.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let done = self.position.get().saturating_sub(self.after.get());
        let rest = self.head.get().saturating_sub(self.position.get());
        let nanos = self.elapsed.as_nanos().checked_mul(rest.into())?.checked_div(done.into())?;
        u64::try_from(nanos).ok().map(Duration::from_nanos)
    }
}

/// What an export wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exported {
    /// Exported events, one a line.
    pub events: u64,
    /// The appends they belong to.
    pub appends: u64,
    /// Bytes written.
    pub bytes: u64,
    /// The position of the last event. A later export [`after`](Export::after) it goes on from there.
    pub position: Position,
}

impl fmt::Display for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exported { events, appends, bytes, position } = self;
        let events = counted(*events, "event", "events");
        let appends = counted(*appends, "append", "appends");
        write!(f, "{events} of {appends} in {}, up to position {position}", counted(*bytes, "byte", "bytes"))
    }
}

struct ExportRun<'a, W> {
    out: W,
    /// Lines that are not written yet.
    piece: Vec<u8>,
    names: LineIds,
    on_progress: Option<OnProgress<'a, ExportProgress>>,
    progress: ExportProgress,
    appends: u64,
    began: Instant,
}

impl<W: Write> ExportRun<'_, W> {
    fn write(mut self, read: Read) -> Result<Exported, Error> {
        let mut append: Vec<RecordedEvent> = Vec::new();
        for event in read {
            let event = event?;
            if event.position() > self.progress.head {
                break;
            }
            if append.last().is_some_and(|last| last.append_position() != event.append_position()) {
                self.write_append(&append)?;
                append.clear();
            }
            append.push(event);
        }
        self.write_append(&append)?;
        self.flush_piece()?;
        self.out.flush().map_err(cannot_write)?;
        let ExportProgress { events, bytes, position, .. } = self.progress;
        Ok(Exported { events, appends: self.appends, bytes, position })
    }

    /// Writes the matching events of one append.
    fn write_append(&mut self, events: &[RecordedEvent]) -> Result<(), Error> {
        let of = u32::try_from(events.len()).expect("an append has at most 65,535 events");
        self.appends += u64::from(of > 0);
        for (number, event) in (0..of).zip(events) {
            let named = self.names.names_of(event, PlaceInAppend(number, of))?;
            line::write(&mut self.piece, event, &named);
            self.progress.events += 1;
            self.progress.position = event.position();
            if self.progress.events.is_multiple_of(REPORT_EVENTS) {
                self.report()?;
            }
        }
        // Whole appends only: a later export can go on behind what was written.
        if self.piece.len() >= PIECE_BYTES { self.flush_piece() } else { Ok(()) }
    }

    fn flush_piece(&mut self) -> Result<(), Error> {
        self.out.write_all(&self.piece).map_err(cannot_write)?;
        self.progress.bytes += to_u64(self.piece.len());
        self.piece.clear();
        Ok(())
    }

    fn report(&mut self) -> Result<(), Error> {
        let Some(on_progress) = &mut self.on_progress else { return Ok(()) };
        self.progress.elapsed = self.began.elapsed();
        or_cancelled(on_progress(&self.progress), "the export was broken off, as asked")
    }
}

fn cannot_write(error: std::io::Error) -> Error {
    Error::io("cannot write", "the export", error)
}

/// The ids of events in lines. An event with a foreign id has two ids, and its line has the foreign one. So
/// lines that name the event must use the foreign id as well.
struct LineIds {
    snapshot: Snapshot,
    lookup: EventLookup,
    /// Some ids that were looked up.
    known: HashMap<EventId, EventId>,
}

impl LineIds {
    fn names_of(&mut self, event: &RecordedEvent, place: PlaceInAppend) -> Result<LineNames, Error> {
        let cause = match event.cause() {
            None => None,
            Some(Cause::Event(id)) => Some(self.id_in_line(id)?),
            // The cause is named by its id: which event precedes another depends on what is exported.
            Some(_) => cause_of(&mut self.lookup, &self.snapshot, event)?.map(|cause| cause.id()),
        };
        Ok(LineNames { correlation: self.correlation(event)?, cause, place })
    }

    fn correlation(&mut self, event: &RecordedEvent) -> Result<EventId, Error> {
        let first = event.first_of_append();
        let correlation = event.correlation();
        let first = first.as_ref().unwrap_or(event);
        if first.derived_id() == correlation { Ok(first.id()) } else { self.id_in_line(correlation) }
    }

    /// The id in lines of the event that has this id.
    fn id_in_line(&mut self, id: EventId) -> Result<EventId, Error> {
        if let Some(known) = self.known.get(&id) {
            return Ok(*known);
        }
        let found = self.lookup.event_at(&self.snapshot, id.claimed_position())?;
        let name = found.filter(|event| event.derived_id() == id).map_or(id, |event| event.id());
        if self.known.len() >= NAMES_MAX {
            self.known.clear();
        }
        self.known.insert(id, name);
        Ok(name)
    }
}
