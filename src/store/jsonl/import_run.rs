//! One run of an import: reads lines, puts the events of an append together, and appends them in order. Its
//! progress and result.

use std::collections::VecDeque;
use std::fmt;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use super::json::NumberRule;
use super::line::{self, Incoming, LineContent, Mapping, PlaceInAppend};
use super::source::{ImportedUpTo, LineRead, LineSource, cannot_reject, json_of};
use crate::engine::{Append, Ticket};
use crate::event::Raw;
use crate::maintenance::{OnProgress, or_cancelled};
use crate::store::Store;
use crate::types::system::import::REACHED;
use crate::types::{Cause, Error, ErrorKind, EventData, Expected, Version, counted, time_of, to_u64};

/// How many appends are in flight before the oldest is waited for. They share syncs.
pub(super) const IN_FLIGHT: usize = 1024;
/// Lines between two progress reports.
const REPORT_LINES: u64 = 4096;
/// How many reasons of rejected lines are kept.
const REASONS_MAX: usize = 20;

/// How far an import is; see [`Import::on_progress`](super::Import::on_progress).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportProgress {
    /// Lines read, including those of earlier runs.
    pub lines: u64,
    /// Bytes of those lines; compare with the length of the source.
    pub bytes: u64,
    /// Bytes that earlier runs had imported, and this run skipped.
    pub bytes_before: u64,
    /// Events handed to the store by this run.
    pub events: u64,
    /// Time since this run began.
    pub elapsed: Duration,
}

impl ImportProgress {
    /// The time left for a source of this many bytes, at the rate so far; `None` before anything was
    /// imported.
    #[must_use]
    pub fn remaining(&self, bytes_total: u64) -> Option<Duration> {
        let done = self.bytes.saturating_sub(self.bytes_before);
        let rest = bytes_total.saturating_sub(self.bytes);
        let nanos = self.elapsed.as_nanos().checked_mul(rest.into())?.checked_div(done.into())?;
        u64::try_from(nanos).ok().map(Duration::from_nanos)
    }
}

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// Events appended by this run.
    pub events: u64,
    /// Appends made by this run.
    pub appends: u64,
    /// Lines read by this run, including blank ones.
    pub lines: u64,
    /// Lines that earlier runs had read.
    pub lines_before: u64,
    /// Lines rejected by this run; see [`Import::skip_bad`](super::Import::skip_bad).
    pub rejected: u64,
    /// The reasons, for the first 20 rejected lines.
    pub reasons: Vec<String>,
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = |count| counted(count, "line", "lines");
        let events = counted(self.events, "event", "events");
        let appends = counted(self.appends, "append", "appends");
        write!(f, "{events} in {appends}, from {}", lines(self.lines))?;
        if self.lines_before > 0 {
            let were = if self.lines_before == 1 { "was" } else { "were" };
            write!(f, "; {} {were} imported before", lines(self.lines_before))?;
        }
        if self.rejected > 0 {
            write!(f, "; {} rejected", lines(self.rejected))?;
        }
        for reason in &self.reasons {
            write!(f, "\n{reason}")?;
        }
        Ok(())
    }
}

/// A running import.
pub(super) struct ImportRun<'a, R> {
    pub(super) store: &'a Store,
    pub(super) entity: String,
    /// The version of the import's stream, once everything in flight is in.
    pub(super) version: Version,
    pub(super) bytes_before: u64,
    pub(super) imported: Imported,
    pub(super) source: LineSource<R>,
    pub(super) mapping: Option<Mapping>,
    pub(super) versions: VersionRule,
    pub(super) numbers: NumberRule,
    pub(super) rejects: Option<Box<dyn Write + 'a>>,
    pub(super) on_progress: Option<OnProgress<'a, ImportProgress>>,
    /// The lines of the current append.
    pub(super) raw: Vec<u8>,
    pub(super) opened: Option<OpenAppend>,
    /// Set while rejected lines follow the last append: another run need not reject them again.
    pub(super) rejected_up_to: Option<ImportedUpTo>,
    /// Each with the number of its last line.
    pub(super) in_flight: VecDeque<(Ticket, u64)>,
    pub(super) began: Instant,
}

impl<R: BufRead> ImportRun<'_, R> {
    pub(super) fn finish(mut self) -> Result<Imported, Error> {
        let read = self.lines();
        // Appends in flight come before the line that failed, so their errors are reported first.
        self.wait_for_oldest(0)?;
        self.record_rejected()?;
        read?;
        self.imported.lines = self.source.lines.saturating_sub(self.imported.lines_before);
        Ok(self.imported)
    }

    fn lines(&mut self) -> Result<(), Error> {
        loop {
            let number = self.source.number();
            let start = self.raw.len();
            match self.source.line(&mut self.raw)? {
                LineRead::End => break,
                LineRead::TooLong => self.reject_too_long(number)?,
                LineRead::Line => self.line(number, start)?,
            }
            if self.source.lines.is_multiple_of(REPORT_LINES) {
                self.report()?;
            }
        }
        match self.opened.take() {
            Some(opened) => self.reject(self.source.lines, opened.cut_error()),
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
            // The source is already behind this line, which is not rejected. So the place before is restored.
            let rejected_up_to = self.rejected_up_to;
            self.reject(number.saturating_sub(1), opened.cut_error())?;
            self.rejected_up_to = rejected_up_to;
            self.raw = line;
        }
        let opened = self.opened.take().unwrap_or_else(OpenAppend::new);
        match opened.add_event(event, self.versions) {
            Ok(opened) if opened.is_whole() => self.submit(number, opened),
            Ok(opened) => {
                self.opened = Some(opened);
                Ok(())
            }
            Err(error) => self.reject(number, error),
        }
    }

    fn submit(&mut self, number: u64, opened: OpenAppend) -> Result<(), Error> {
        let source = &self.source;
        let expected = Expected::Exact(self.version);
        let reached: ImportedUpTo =
            (source.lines, source.offset, source.digest(), opened.position, opened.recorded_at);
        let append = opened.append.system_event(&self.entity, expected, &Raw(REACHED, &reached));
        match append.submit(self.store) {
            Ok(ticket) => {
                self.in_flight.push_back((ticket, number));
                self.rejected_up_to = None;
                self.version = self.version.get().saturating_add(1).into();
                self.raw.clear();
                self.wait_for_oldest(IN_FLIGHT - 1)
            }
            Err(error) if is_bad(&error) => self.reject(number, error),
            Err(error) => Err(error),
        }
    }

    /// Waits for the oldest appends until at most this many are in flight.
    fn wait_for_oldest(&mut self, most: usize) -> Result<(), Error> {
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

    /// Rejects a line that is too long to be kept in memory.
    fn reject_too_long(&mut self, number: u64) -> Result<(), Error> {
        let most = self.source.line_bytes_max;
        let text =
            format!("the lines of the append have more than the {most} bytes that line_bytes_max allows");
        self.reject(number, Error::new(ErrorKind::TooLarge, text))?;
        if let Some(rejects) = &mut self.rejects {
            let lines = self.source.lines;
            self.source.skip_line(rejects)?;
            self.note_rejected(self.source.lines > lines);
        }
        Ok(())
    }

    /// Lets another run skip the rejected lines. A last line without its end may still grow, so it is read
    /// again.
    fn note_rejected(&mut self, has_end: bool) {
        if has_end {
            let source = &self.source;
            self.rejected_up_to = Some((source.lines, source.offset, source.digest(), 0, 0));
        }
    }

    /// Records which lines were rejected behind the last append.
    fn record_rejected(&mut self) -> Result<(), Error> {
        let Some(rejected_up_to) = self.rejected_up_to.take() else { return Ok(()) };
        let expected = Expected::Exact(self.version);
        let append = Append::empty().system_event(&self.entity, expected, &Raw(REACHED, &rejected_up_to));
        append.commit(self.store).map(drop).map_err(|error| self.explained(rejected_up_to.0, error))
    }

    /// Writes the lines of an append to the rejects. Without a writer for them the error ends the import.
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
        self.note_rejected(has_end);
        Ok(())
    }

    fn report(&mut self) -> Result<(), Error> {
        let Some(on_progress) = &mut self.on_progress else { return Ok(()) };
        let in_flight = to_u64(self.in_flight.len());
        let progress = ImportProgress {
            lines: self.source.lines,
            bytes: self.source.offset,
            bytes_before: self.bytes_before,
            events: self.imported.events.saturating_add(in_flight),
            elapsed: self.began.elapsed(),
        };
        const CANCELLED: &str = "the import was broken off, as asked; run again, it goes on where it was";
        or_cancelled(on_progress(&progress), CANCELLED)
    }
}

/// Whether the line is at fault.
fn is_bad(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Invalid | ErrorKind::TooLarge | ErrorKind::Denied)
}

fn at_line(number: u64, error: Error) -> Error {
    Error::with_source(error.kind(), format!("line {number}: {error}"), error)
}

/// Whether streams must have the versions of the lines.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum VersionRule {
    Kept,
    Assigned,
}

/// An append whose lines are being read.
pub(super) struct OpenAppend {
    pub(super) append: Append,
    /// How many of its events have been read.
    events_read: u32,
    events: u32,
    /// The last version of each entity in this append.
    last: Vec<(String, u64)>,
    /// Position of the last event in its source, and when it was recorded there.
    pub(super) position: u64,
    pub(super) recorded_at: i64,
}

impl OpenAppend {
    pub(super) fn new() -> OpenAppend {
        OpenAppend {
            append: Append::empty(),
            events_read: 0,
            events: 1,
            last: Vec::new(),
            position: 0,
            recorded_at: 0,
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.events_read == self.events
    }

    /// The error of an append that ends before its last line.
    pub(super) fn cut_error(&self) -> Error {
        Error::invalid(format!(
            "the append has {} events, but only {} follow one another",
            self.events, self.events_read
        ))
    }

    /// Adds one event.
    pub(super) fn add_event(mut self, event: Incoming, versions: VersionRule) -> Result<OpenAppend, Error> {
        let PlaceInAppend(number, of) = event.place;
        if number != self.events_read || of <= number || (number > 0 && of != self.events) {
            return Err(Error::invalid(format!(
                "it is event {number} of {of} in its append, which does not follow the line before it"
            )));
        }
        self.events_read = number.saturating_add(1);
        self.events = of;
        self.position = event.position;
        self.recorded_at = event.recorded_at;
        let expected = match versions {
            VersionRule::Kept => self.expected(&event)?,
            VersionRule::Assigned => None,
        };
        self.append = add(self.append, event, expected);
        Ok(self)
    }

    /// The expectation for the event's stream: set with the first event of an entity, if the line has a
    /// version.
    fn expected(&mut self, event: &Incoming) -> Result<Option<Expected>, Error> {
        let Some(before) = event.version.checked_sub(1) else { return Ok(None) };
        match self.last.iter_mut().find(|(entity, _)| *entity == event.entity) {
            Some((_, last)) if *last == before => {
                *last = event.version;
                Ok(None)
            }
            Some((entity, last)) => Err(Error::invalid(format!(
                "{entity} goes from version {last} to {} within an append; import it with new versions (renumber)",
                event.version
            ))),
            None => {
                self.last.push((event.entity.clone(), event.version));
                Ok(Some(Expected::Exact(Version::from(before))))
            }
        }
    }
}

fn add(append: Append, event: Incoming, expected: Option<Expected>) -> Append {
    let (payload, erased) = match event.content {
        LineContent::Payload(payload) => (payload, None),
        LineContent::Erased(hash) => (Vec::new(), Some(hash)),
    };
    let append = append.and_to((event.entity, event.scope));
    let append = expected.into_iter().fold(append, Append::expect);
    let append = append.event(&EncodedPayload { kind: &event.kind, version: event.schema_version, payload });
    let append = append.encoded_metadata(event.metadata);
    let append = event.tags.into_iter().fold(append, Append::tag);
    let append = event.id.into_iter().fold(append, Append::foreign_id);
    let append = event.correlation.into_iter().fold(append, Append::correlation);
    let append = event.cause.into_iter().map(Cause::Event).fold(append, Append::cause);
    let append = event.occurred_at.into_iter().map(time_of).fold(append, Append::occurred_at);
    erased.into_iter().fold(append, Append::erased)
}

/// An event whose payload is already encoded.
struct EncodedPayload<'a> {
    kind: &'a str,
    version: u16,
    payload: Vec<u8>,
}

impl EventData for EncodedPayload<'_> {
    fn kind(&self) -> &str {
        self.kind
    }

    fn schema_version(&self) -> u16 {
        self.version
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        out.extend_from_slice(&self.payload);
        Ok(())
    }
}
