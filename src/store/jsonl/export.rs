//! Writes events as lines.
//!
//! Row: app.

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::line::{self, Named, Place};
use crate::event::RecordedEvent;
use crate::read::{AtHand, Read, Snapshot, cause_of};
use crate::store::Store;
use crate::types::{Cause, Error, ErrorKind, EventId, Position, Query, counted, to_u64};

/// Progress is told after so many events.
const TELL_EVERY: u64 = 4096;
/// Lines are handed to the writer so many bytes at a time.
const PIECE_BYTES: usize = 64 << 10;
/// So many names are remembered.
const NAMES_MAX: usize = 4096;

impl Store {
    /// Exports the events a query matches as JSONL, oldest first: one event a line, with everything there is to know of it.
    ///
    /// [`Store::import`] reads it into another store, and SPEC.md "Export and import" says what each field means. The store may be written to
    /// meanwhile; the export ends at the head it found.
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
        Export { store: self, query, after: Position::START, tell: None }
    }
}

/// An export that is put together; see [`Store::export`].
#[must_use = "nothing is exported until it is written to something"]
pub struct Export<'a> {
    store: &'a Store,
    query: Query,
    after: Position,
    tell: Option<Tell<'a>>,
}

type Tell<'a> = Box<dyn FnMut(&ExportProgress) -> ControlFlow<()> + 'a>;

/// How far an export is; see [`Export::on_progress`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportProgress {
    /// Events exported so far.
    pub events: u64,
    /// Bytes of their lines.
    pub bytes: u64,
    /// The position it began behind.
    pub after: Position,
    /// The position of the last event exported.
    pub position: Position,
    /// The position it ends at.
    pub head: Position,
    /// Since it began.
    pub elapsed: Duration,
}

impl ExportProgress {
    /// How long the rest takes if matching events go on coming as densely; `None` before the first.
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
    /// Events, a line each.
    pub events: u64,
    /// Appends they belong to.
    pub appends: u64,
    /// Bytes.
    pub bytes: u64,
    /// The position of the last event: a later export [`after`](Export::after) it goes on from there.
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

impl<'a> Export<'a> {
    /// Only events after a position: what is new since the last export.
    pub fn after(mut self, position: Position) -> Export<'a> {
        self.after = position;
        self
    }

    /// Tells how far it is, every 4,096 events; [`ControlFlow::Break`] breaks it off.
    pub fn on_progress(mut self, tell: impl FnMut(&ExportProgress) -> ControlFlow<()> + 'a) -> Export<'a> {
        self.tell = Some(Box::new(tell));
        self
    }

    /// Writes it, the lines of some whole appends at a time; no further buffer is needed. What was written before an error ends with a whole line, unless
    /// the writer took part of one.
    ///
    /// # Errors
    ///
    /// Those of reading; [`ErrorKind::Io`] or [`ErrorKind::NoSpace`] with the writer's own error as its source (a pipe that was closed: `BrokenPipe`);
    /// [`ErrorKind::Cancelled`] if it was broken off.
    pub fn write_to(self, out: impl Write) -> Result<Exported, Error> {
        let snapshot = self.store.engine().snapshot()?;
        let head = snapshot.head.position;
        let progress = ExportProgress { after: self.after, position: self.after, head, ..Default::default() };
        let names = Names { snapshot, hand: AtHand::default(), known: HashMap::new() };
        let run = Run {
            out,
            piece: Vec::new(),
            names,
            tell: self.tell,
            progress,
            appends: 0,
            began: Instant::now(),
        };
        run.write(self.store.read(self.query).after(self.after))
    }
}

struct Run<'a, W> {
    out: W,
    /// Lines that are not written yet.
    piece: Vec<u8>,
    names: Names,
    tell: Option<Tell<'a>>,
    progress: ExportProgress,
    appends: u64,
    began: Instant,
}

impl<W: Write> Run<'_, W> {
    fn write(mut self, read: Read) -> Result<Exported, Error> {
        let mut append: Vec<RecordedEvent> = Vec::new();
        for event in read {
            let event = event?;
            if event.position() > self.progress.head {
                break;
            }
            if append.last().is_some_and(|last| last.append_position() != event.append_position()) {
                self.append(&append)?;
                append.clear();
            }
            append.push(event);
        }
        self.append(&append)?;
        self.hand_over()?;
        self.out.flush().map_err(cannot_write)?;
        let ExportProgress { events, bytes, position, .. } = self.progress;
        Ok(Exported { events, appends: self.appends, bytes, position })
    }

    /// What was asked for of one append.
    fn append(&mut self, events: &[RecordedEvent]) -> Result<(), Error> {
        let of = u32::try_from(events.len()).expect("an append has at most 65,535 events");
        self.appends += u64::from(of > 0);
        for (number, event) in (0..of).zip(events) {
            let named = self.names.of_event(event, Place(number, of))?;
            line::write(&mut self.piece, event, &named);
            self.progress.events += 1;
            self.progress.position = event.position();
            if self.progress.events.is_multiple_of(TELL_EVERY) {
                self.tell()?;
            }
        }
        // Whole appends only: behind what was written, another export can go on.
        if self.piece.len() >= PIECE_BYTES { self.hand_over() } else { Ok(()) }
    }

    fn hand_over(&mut self) -> Result<(), Error> {
        self.out.write_all(&self.piece).map_err(cannot_write)?;
        self.progress.bytes += to_u64(self.piece.len());
        self.piece.clear();
        Ok(())
    }

    fn tell(&mut self) -> Result<(), Error> {
        let Some(tell) = &mut self.tell else { return Ok(()) };
        self.progress.elapsed = self.began.elapsed();
        match tell(&self.progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                Err(Error::new(ErrorKind::Cancelled, "the export was broken off, as asked"))
            }
        }
    }
}

fn cannot_write(error: std::io::Error) -> Error {
    Error::io("cannot write", "the export", error)
}

/// By which ids events are known elsewhere. An event that brought an id along has two, and a line gives the one it brought;
/// so whoever names it by the other must name it by this one, too.
struct Names {
    snapshot: Snapshot,
    hand: AtHand,
    /// Some that were looked up.
    known: HashMap<EventId, EventId>,
}

impl Names {
    fn of_event(&mut self, event: &RecordedEvent, place: Place) -> Result<Named, Error> {
        let cause = match event.cause() {
            None => None,
            Some(Cause::Event(id)) => Some(self.of(id)?),
            // Which event comes before another depends on what else was exported.
            Some(_) => cause_of(&mut self.hand, &self.snapshot, event)?.map(|cause| cause.id()),
        };
        Ok(Named { correlation: self.correlation(event)?, cause, place })
    }

    fn correlation(&mut self, event: &RecordedEvent) -> Result<EventId, Error> {
        let (first, correlation) = (event.first_of_append(), event.correlation());
        let first = first.as_ref().unwrap_or(event);
        if first.derived_id() == correlation { Ok(first.id()) } else { self.of(correlation) }
    }

    /// The id in lines of whatever event has this one.
    fn of(&mut self, id: EventId) -> Result<EventId, Error> {
        if let Some(known) = self.known.get(&id) {
            return Ok(*known);
        }
        let found = self.hand.event_at(&self.snapshot, id.claimed_position())?;
        let name = found.filter(|event| event.derived_id() == id).map_or(id, |event| event.id());
        if self.known.len() >= NAMES_MAX {
            self.known.clear();
        }
        self.known.insert(id, name);
        Ok(name)
    }
}
