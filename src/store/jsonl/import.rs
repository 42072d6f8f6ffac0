//! Reads lines into a store.
//!
//! Each append holds one event more, of `$import/<name>`: which lines it was made of. It expects the one before it, so appends
//! can be in flight together and still go in one after the other, or not at all; and an import that was stopped goes on
//! behind what went in.
//! Row: app.

use std::collections::VecDeque;
use std::io::{BufRead, Write};
use std::ops::ControlFlow;
use std::time::Instant;

use super::exact::Numbers;
use super::imported::{ImportProgress, Imported};
use super::incoming::{Opened, Versions};
use super::line::{self, Incoming};
use super::mapping::Mapping;
use super::other;
use super::source::{Got, Source, cannot_reject, json_of};
use crate::engine::{Append, Ticket};
use crate::event::Raw;
use crate::store::Store;
use crate::types::system::import::{PREFIX, REACHED};
use crate::types::{Error, ErrorKind, Expected, Query, Version, check_name, to_u64};

/// The longest name of an import, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// How many appends are under way before the oldest is waited for. They share syncs.
const IN_FLIGHT: usize = 1024;
/// Progress is told after so many lines.
const TELL_EVERY: u64 = 4096;
/// A longer line than an export can write: 16 MiB of signs that JSON spells with six, and names.
const LINE_BYTES_MAX: usize = 128 << 20;
/// So many reasons are kept.
const REASONS_MAX: usize = 20;

/// What `$import.reached` says: lines, bytes and digest of the source up to there; position and recorded-at of the last event in the store
/// it comes from, 0 where that is not said.
pub(super) type Reached = (u64, u64, u64, u64, i64);

impl Store {
    /// Imports lines that [`Store::export`] wrote, or by a [`Mapping`] those of somebody else.
    ///
    /// The name is that of the import: run again with the same source, it goes on behind what went in, whatever stopped it, and
    /// appends nothing twice. A source that has grown since may be imported again for what is new.
    ///
    /// Ids come along as foreign ids, and versions are kept, or the import stops ([`Import::renumber`]). When the event happened
    /// stays; where that was not said, it is now when it was recorded. SPEC.md "Export and import" has the rest.
    ///
    /// ```
    /// use annals::{Query, Store};
    ///
    /// let lines = br#"{"entity":"order:1","kind":"order.placed","payload":{"item":"a book"}}
    /// {"entity":"order:1","kind":"order.paid","payload":20}
    /// "#;
    /// let store = Store::in_memory()?;
    /// let imported = store.import("shop", lines.as_slice()).run()?;
    /// assert_eq!(imported.events, 2);
    /// let again = store.import("shop", lines.as_slice()).run()?;
    /// assert_eq!((again.events, again.lines_before), (0, 2));
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn import<R: BufRead>(&self, name: impl Into<String>, source: R) -> Import<'_, R> {
        Import {
            store: self,
            name: name.into(),
            source,
            mapping: None,
            versions: Versions::Kept,
            numbers: Numbers::Exact,
            other_names: OtherNames::Refused,
            line_bytes_max: LINE_BYTES_MAX,
            rejects: None,
            tell: None,
        }
    }
}

/// An import that is put together; see [`Store::import`].
#[must_use = "nothing is imported until it is run"]
pub struct Import<'a, R> {
    store: &'a Store,
    name: String,
    source: R,
    mapping: Option<Mapping>,
    versions: Versions,
    numbers: Numbers,
    other_names: OtherNames,
    line_bytes_max: usize,
    rejects: Option<Box<dyn Write + 'a>>,
    tell: Option<Tell<'a>>,
}

/// Whether a source may go in that went in under another name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OtherNames {
    Refused,
    Allowed,
}

type Tell<'a> = Box<dyn FnMut(&ImportProgress) -> ControlFlow<()> + 'a>;

impl<'a, R: BufRead> Import<'a, R> {
    /// Reads lines that are somebody else's.
    pub fn mapped(mut self, mapping: Mapping) -> Import<'a, R> {
        self.mapping = Some(mapping);
        self
    }

    /// Lets versions follow on as they do for any append. Without it an event that says which version it has gets that one, or
    /// the import stops with a conflict: the export left events out, or its entity has others here.
    pub fn renumber(mut self) -> Import<'a, R> {
        self.versions = Versions::Assigned;
        self
    }

    /// Takes numbers that a 64-bit float or integer cannot hold exactly as the nearest float (default: they
    /// make a bad line). For lines of programs that write more digits than a float has, such as
    /// `0.10000000000000001`.
    pub fn round_numbers(mut self) -> Import<'a, R> {
        self.numbers = Numbers::Rounded;
        self
    }

    /// Imports the source although it begins as one that was imported under another name: its events are in
    /// twice then, unless their ids or versions keep them out (default: such an import is refused before
    /// anything goes in). Asked only of a name that is new.
    ///
    /// ```
    /// use annals::Store;
    ///
    /// let lines = br#"{"entity":"order:1","kind":"order.placed","payload":{"item":"a book"}}"#;
    /// let store = Store::in_memory()?;
    /// store.import("shop", lines.as_slice()).run()?;
    /// assert!(store.import("the shop", lines.as_slice()).run().is_err());
    /// let twice = store.import("the shop", lines.as_slice()).even_if_imported().run()?;
    /// assert_eq!(twice.events, 1);
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn even_if_imported(mut self) -> Import<'a, R> {
        self.other_names = OtherNames::Allowed;
        self
    }

    /// Copies lines that cannot be imported to a writer, and goes on. Without it the first of them stops the import.
    ///
    /// An append of which one line is bad is rejected as a whole. What is rejected is flushed before anything behind it is
    /// appended, and another run passes over it; an import that was stopped may reject its last bad lines again.
    pub fn skip_bad(mut self, rejects: impl Write + 'a) -> Import<'a, R> {
        self.rejects = Some(Box::new(rejects));
        self
    }

    /// The longest line, and the most bytes of lines that become one append (default: 128 MiB, more than any export has). So much
    /// memory may be needed.
    pub fn line_bytes_max(mut self, bytes: usize) -> Import<'a, R> {
        self.line_bytes_max = bytes;
        self
    }

    /// Tells how far it is, every 4,096 lines; [`ControlFlow::Break`] breaks it off.
    pub fn on_progress(mut self, tell: impl FnMut(&ImportProgress) -> ControlFlow<()> + 'a) -> Import<'a, R> {
        self.tell = Some(Box::new(tell));
        self
    }

    /// Imports, and returns once everything is acknowledged. What went in before an error stays; run again, it goes on from there.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Invalid`], [`ErrorKind::TooLarge`], [`ErrorKind::Denied`]: a line cannot be imported;
    ///   the text has its number. Mend it, or [`skip_bad`](Import::skip_bad). Also if the source does not
    ///   begin as it did the last time, or begins as one that went in under another name
    ///   ([`even_if_imported`](Import::even_if_imported)).
    /// - [`ErrorKind::Conflict`]: a version would not be kept, or another import of this name runs.
    /// - [`ErrorKind::Io`]: the source cannot be read, or the rejects not be written.
    /// - [`ErrorKind::Cancelled`]: it was broken off.
    /// - Whatever else keeps an append from going in.
    pub fn run(self) -> Result<Imported, Error> {
        check_name("name of the import", &self.name, NAME_BYTES_MAX)?;
        self.store.engine().check_writable()?;
        let entity = format!("{PREFIX}{}", self.name);
        let mut source = Source::new(self.source, self.line_bytes_max);
        let mut version = Version::EMPTY;
        if let Some(last) = self.store.last(Query::entity(&entity))? {
            let (lines, offset, digest, ..) = last.decode::<Reached>()?;
            source.go_to(lines, offset, digest)?;
            version = last.version();
        } else if self.other_names == OtherNames::Refused {
            let line_bytes_max = u64::try_from(self.line_bytes_max).unwrap_or(u64::MAX);
            other::refuse_known(self.store, &mut source, line_bytes_max)?;
        }
        let run = Run {
            store: self.store,
            entity,
            version,
            bytes_before: source.offset,
            imported: Imported { lines_before: source.lines, ..Imported::default() },
            source,
            mapping: self.mapping,
            versions: self.versions,
            numbers: self.numbers,
            rejects: self.rejects,
            tell: self.tell,
            raw: Vec::new(),
            opened: None,
            passed: None,
            in_flight: VecDeque::with_capacity(IN_FLIGHT),
            began: Instant::now(),
        };
        run.finish()
    }
}

struct Run<'a, R> {
    store: &'a Store,
    entity: String,
    /// Of the last event of that stream, once what is in flight is in.
    version: Version,
    bytes_before: u64,
    imported: Imported,
    source: Source<R>,
    mapping: Option<Mapping>,
    versions: Versions,
    numbers: Numbers,
    rejects: Option<Box<dyn Write + 'a>>,
    tell: Option<Tell<'a>>,
    /// The lines of the append that is coming in.
    raw: Vec<u8>,
    opened: Option<Opened>,
    /// How far lines were rejected behind the last append: another run need not reject them again.
    passed: Option<Reached>,
    /// Each with the number of its last line.
    in_flight: VecDeque<(Ticket, u64)>,
    began: Instant,
}

impl<R: BufRead> Run<'_, R> {
    fn finish(mut self) -> Result<Imported, Error> {
        let read = self.lines();
        // What went wrong first is told, and what is in flight came before whatever was read.
        self.settle(0)?;
        self.note_passed()?;
        read?;
        self.imported.lines = self.source.lines.saturating_sub(self.imported.lines_before);
        Ok(self.imported)
    }

    fn lines(&mut self) -> Result<(), Error> {
        loop {
            let (number, start) = (self.source.number(), self.raw.len());
            match self.source.line(&mut self.raw)? {
                Got::End => break,
                Got::TooLong => self.too_long(number)?,
                Got::Line => self.line(number, start)?,
            }
            if self.source.lines.is_multiple_of(TELL_EVERY) {
                self.tell()?;
            }
        }
        match self.opened.take() {
            Some(opened) => self.reject(self.source.lines, opened.is_cut()),
            None => Ok(()),
        }
    }

    fn line(&mut self, number: u64, start: usize) -> Result<(), Error> {
        let Some(json) = json_of(&self.raw[start..]) else {
            self.raw.truncate(start);
            return Ok(());
        };
        let event = match &self.mapping {
            None => line::read(json, self.numbers),
            Some(mapping) => mapping.read(json, self.numbers),
        };
        match event {
            Ok(event) => self.event(number, start, event),
            Err(error) => self.reject(number, error),
        }
    }

    fn event(&mut self, number: u64, start: usize, event: Incoming) -> Result<(), Error> {
        if event.place.0 == 0
            && let Some(opened) = self.opened.take()
        {
            let line = self.raw.split_off(start);
            // The source stands behind this line already, which is not rejected.
            let passed = self.passed;
            self.reject(number.saturating_sub(1), opened.is_cut())?;
            self.passed = passed;
            self.raw = line;
        }
        let opened = self.opened.take().unwrap_or_else(Opened::new);
        match opened.with(event, self.versions) {
            Ok(opened) if opened.is_whole() => self.submit(number, opened),
            Ok(opened) => {
                self.opened = Some(opened);
                Ok(())
            }
            Err(error) => self.reject(number, error),
        }
    }

    fn submit(&mut self, number: u64, opened: Opened) -> Result<(), Error> {
        let (source, expected) = (&self.source, Expected::Exact(self.version));
        let reached: Reached =
            (source.lines, source.offset, source.digest(), opened.position, opened.recorded_at);
        let append = opened.append.system_event(&self.entity, expected, &Raw(REACHED, &reached));
        match append.submit(self.store) {
            Ok(ticket) => {
                self.in_flight.push_back((ticket, number));
                self.passed = None;
                self.version = self.version.get().saturating_add(1).into();
                self.raw.clear();
                self.settle(IN_FLIGHT - 1)
            }
            Err(error) if is_bad(&error) => self.reject(number, error),
            Err(error) => Err(error),
        }
    }

    /// Waits for the oldest appends until no more than this many are in flight.
    fn settle(&mut self, most: usize) -> Result<(), Error> {
        while self.in_flight.len() > most
            && let Some((ticket, number)) = self.in_flight.pop_front()
        {
            let receipt = ticket.wait().map_err(|error| self.explained(number, error))?;
            self.imported.appends += 1;
            self.imported.events += to_u64(receipt.events());
        }
        Ok(())
    }

    fn explained(&self, number: u64, error: Error) -> Error {
        match error.conflict() {
            Some(conflict) if conflict.entity == self.entity => Error::with_source(
                ErrorKind::Conflict,
                format!(
                    "line {number}: another import of this name runs; wait for it, then run this one again"
                ),
                error,
            ),
            Some(conflict) => {
                let text = format!(
                    "line {number}: {} would not keep its version: {error}; import into a store without it, or with new versions (renumber)",
                    conflict.entity
                );
                Error::with_source(ErrorKind::Conflict, text, error)
            }
            None => at_line(number, error),
        }
    }

    /// A line that is not kept in memory.
    fn too_long(&mut self, number: u64) -> Result<(), Error> {
        let most = self.source.line_bytes_max;
        let text =
            format!("the lines of the append have more than the {most} bytes that line_bytes_max allows");
        self.reject(number, Error::new(ErrorKind::TooLarge, text))?;
        if let Some(rejects) = &mut self.rejects {
            let lines = self.source.lines;
            self.source.pass(rejects)?;
            self.pass(self.source.lines > lines);
        }
        Ok(())
    }

    /// Another run goes on behind what is rejected; but a last line without its end may still grow.
    fn pass(&mut self, has_end: bool) {
        if has_end {
            let source = &self.source;
            self.passed = Some((source.lines, source.offset, source.digest(), 0, 0));
        }
    }

    /// Has the import's stream say what was rejected behind the last append.
    fn note_passed(&mut self) -> Result<(), Error> {
        let Some(passed) = self.passed.take() else { return Ok(()) };
        let expected = Expected::Exact(self.version);
        let append = Append::empty().system_event(&self.entity, expected, &Raw(REACHED, &passed));
        append.commit(self.store).map(drop).map_err(|error| self.explained(passed.0, error))
    }

    /// Puts the lines of an append aside; without a place for them it is an error.
    fn reject(&mut self, number: u64, error: Error) -> Result<(), Error> {
        self.opened = None;
        let error = at_line(number, error);
        let Some(rejects) = &mut self.rejects else { return Err(error) };
        rejects.write_all(&self.raw).and_then(|()| rejects.flush()).map_err(cannot_reject)?;
        let lines = self.raw.split_inclusive(|byte| *byte == b'\n').count();
        self.imported.rejected += to_u64(lines);
        if self.imported.reasons.len() < REASONS_MAX {
            self.imported.reasons.push(error.to_string());
        }
        let has_end = self.raw.last() == Some(&b'\n');
        self.raw.clear();
        self.pass(has_end);
        Ok(())
    }

    fn tell(&mut self) -> Result<(), Error> {
        let Some(tell) = &mut self.tell else { return Ok(()) };
        let in_flight = to_u64(self.in_flight.len());
        let progress = ImportProgress {
            lines: self.source.lines,
            bytes: self.source.offset,
            bytes_before: self.bytes_before,
            events: self.imported.events.saturating_add(in_flight),
            elapsed: self.began.elapsed(),
        };
        match tell(&progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::new(
                ErrorKind::Cancelled,
                "the import was broken off, as asked; run again, it goes on where it was",
            )),
        }
    }
}

/// Whether it is the line's fault.
fn is_bad(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Invalid | ErrorKind::TooLarge | ErrorKind::Denied)
}

fn at_line(number: u64, error: Error) -> Error {
    Error::with_source(error.kind(), format!("line {number}: {error}"), error)
}
