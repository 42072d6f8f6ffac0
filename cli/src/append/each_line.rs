//! `append --lines`: each line is an append of its own. Lines that are already available share a sync.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use annals::Store;

use super::line_report::{LineReport, LineStatus};
use super::{Defaults, LINE_BYTES_MAX, bounded, failed, open_lines, show, text_of, with_key};
use crate::failure::Failure;
use crate::interrupt;
use crate::output::Output;
use crate::words;

/// The largest number of appends that share a sync.
const LINES_AT_ONCE: usize = 1024;

/// The lines that are appended together.
struct Batch {
    /// Number and text of each line.
    lines: Vec<(u64, String)>,
    /// Why the line behind them could not be read.
    unread: Option<Failure>,
}

/// Appends lines until one is rejected or cannot be read.
///
/// Lines that were submitted with a rejected one are still committed: each is acknowledged, and the report
/// names them.
pub(super) fn one_by_one(
    mut source: LineReader,
    defaults: &Defaults,
    store: &Store,
    out: &mut Output,
) -> Result<(), Failure> {
    let mut report = LineReport::default();
    loop {
        interrupt::park_if_stopping();
        let Batch { lines, unread } = source.batch();
        if lines.is_empty() && unread.is_none() {
            interrupt::note(|plan| plan.effect.to_continue = None);
            return Ok(());
        }
        let _section = interrupt::critical_section();
        let rejected = append_batch(&lines, &source, defaults, store, &mut report, out)?;
        if rejected.is_none()
            && let Some(failure) = &unread
        {
            report.note(Some(failure), source.number);
        }
        out.flush()?;
        if let Some(failure) = rejected.or(unread) {
            return Err(failure);
        }
    }
}

/// Appends lines up to the first that cannot be submitted, and acknowledges all that are committed.
///
/// Returns the first failure.
fn append_batch(
    lines: &[(u64, String)],
    source: &LineReader,
    defaults: &Defaults,
    store: &Store,
    report: &mut LineReport,
    out: &mut Output,
) -> Result<Option<Failure>, Failure> {
    report.note_under_way(lines);
    let mut tickets = Vec::new();
    let mut rejected = None;
    for (number, text) in lines {
        let submitted = defaults.read(text).and_then(|line| {
            let key = line.key.clone();
            let append = with_key(defaults.build(line, None)?, key.as_deref());
            Ok((append.submit(store).map_err(|error| failed(error, key.is_some()))?, key.is_some()))
        });
        match submitted {
            Ok((ticket, has_key)) => tickets.push((*number, ticket, has_key)),
            Err(failure) => {
                rejected = Some((*number, failure.at(&source.at(*number))));
                break;
            }
        }
    }
    let mut receipts = Vec::new();
    let mut first_failure = None;
    for (number, ticket, has_key) in tickets {
        match ticket.wait() {
            Ok(receipt) => {
                report.add(number, LineStatus::Committed);
                receipts.push((number, receipt));
            }
            Err(error) => {
                let failure = failed(error, has_key).at(&source.at(number));
                report.add(
                    number,
                    if failure.is_unknown() { LineStatus::Unknown } else { LineStatus::Rejected },
                );
                first_failure.get_or_insert(failure);
            }
        }
    }
    if let Some((number, failure)) = rejected {
        report.add(number, LineStatus::Rejected);
        first_failure.get_or_insert(failure);
    }
    report.note(first_failure.as_ref(), 0);
    for (number, receipt) in receipts {
        show(&receipt, Some(number), out)?;
    }
    Ok(first_failure)
}

/// Reads the lines of a file or of standard input. Numbers begin at 1; blank lines are passed over.
pub(super) struct LineReader {
    name: String,
    source: BufReader<Box<dyn Read>>,
    /// The number of the line that was read last.
    number: u64,
    /// True if a line is an event, false if it is a payload.
    is_event: bool,
}

impl LineReader {
    pub(super) fn open(path: &Path, is_event: bool) -> Result<LineReader, Failure> {
        let name = path.display().to_string();
        let (name, source): (String, Box<dyn Read>) = match name.as_str() {
            "-" => ("standard input".to_owned(), Box::new(io::stdin())),
            _ => (name, Box::new(open_lines(path)?)),
        };
        Ok(LineReader { name, source: BufReader::with_capacity(256 << 10, source), number: 0, is_event })
    }

    pub(super) fn at(&self, number: u64) -> String {
        format!("{}, line {number}", self.name)
    }

    /// Waits for a line, and adds the lines that are already buffered.
    fn batch(&mut self) -> Batch {
        let mut batch = Batch { lines: Vec::new(), unread: None };
        while batch.lines.len() < LINES_AT_ONCE && (batch.lines.is_empty() || self.has_line()) {
            match self.next() {
                Ok(Some(line)) => batch.lines.push(line),
                Ok(None) => break,
                // The lines in front of the unreadable one are appended first.
                Err(failure) => {
                    batch.unread = Some(failure);
                    break;
                }
            }
        }
        batch
    }

    /// True if a line can be read without waiting.
    fn has_line(&self) -> bool {
        self.source.buffer().contains(&b'\n')
    }

    pub(super) fn next(&mut self) -> Result<Option<(u64, String)>, Failure> {
        loop {
            let mut line = Vec::new();
            let read = self.source.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line);
            let read =
                read.map_err(|error| Failure::system(&format!("cannot read {}", self.name), &error))?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            let text = self.text(line).map_err(|failure| failure.at(&self.at(self.number)))?;
            if !text.trim().is_empty() {
                return Ok(Some((self.number, text)));
            }
        }
    }

    fn text(&self, line: Vec<u8>) -> Result<String, Failure> {
        if let Some(wrong) = words::unreadable(&line)
            && self.number == 1
        {
            return Err(Failure::usage(wrong));
        }
        if self.is_event && self.number == 1 && words::is_array(&line) {
            return Err(Failure::usage("a line is an object, and this is a list").hint(words::ARRAY));
        }
        bounded(line.len())?;
        let text = text_of(line)?;
        // A byte order mark is dropped from every line: concatenated files have one in the middle.
        match text.strip_prefix('\u{FEFF}') {
            Some(text) => Ok(text.to_owned()),
            None => Ok(text),
        }
    }
}
