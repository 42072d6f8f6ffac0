//! Standard output: tables on a terminal, plain text with tabs in a pipe, JSON with `--json`.
//!
//! Invariants: hidden characters of names and texts are escaped here, so none reaches a terminal or a pipe.
//! Only whole lines are written, and a signal stops the command only between two writes.

use std::io::{self, IsTerminal, Write};

use annals::{RecordedEvent, visible, visible_json};
use anstream::AutoStream;
use comfy_table::{ContentArrangement, Table, presets};
use owo_colors::OwoColorize;
use serde::Serialize;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::args::Global;
use crate::event::{self, EventJson};
use crate::failure::Failure;
use crate::interrupt;

/// The format of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Table,
    Plain,
    Json,
}

pub struct Output {
    format: Format,
    is_terminal: bool,
    /// Whole lines that are not written yet.
    buffer: Vec<u8>,
    /// How to continue behind the last event in the buffer: words, and its position.
    resume: Option<(&'static str, u64)>,
}

/// Bytes that are buffered before a write. A terminal gets every line at once.
const BUFFER_BYTES: usize = 32 << 10;
/// Rows that share one layout: the widths of a longer list are computed again for the next rows.
const ROWS_PER_TABLE: usize = 1000;

impl Output {
    pub fn new(global: &Global) -> Output {
        let is_terminal = io::stdout().is_terminal();
        let format = match (global.json, global.table || is_terminal) {
            (true, _) => Format::Json,
            (false, true) => Format::Table,
            (false, false) => Format::Plain,
        };
        Output { format, is_terminal, buffer: Vec::new(), resume: None }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// Writes one document, as a line.
    pub fn document(&mut self, document: &impl Serialize) -> Result<(), Failure> {
        let failed = |error: serde_json::Error| Failure::system("cannot write JSON", &error.into());
        let json = serde_json::to_string(document).map_err(failed)?;
        self.buffer.extend_from_slice(visible_json(&json).as_bytes());
        self.end_line()
    }

    /// Writes lines of text; tabs divide their cells.
    pub fn text(&mut self, text: &str) -> Result<(), Failure> {
        let cells: Vec<_> = text.split('\t').map(visible).collect();
        self.raw(&cells.join("\t"))
    }

    /// Writes text that the caller has escaped, and perhaps coloured.
    fn raw(&mut self, text: &str) -> Result<(), Failure> {
        self.buffer.extend_from_slice(text.as_bytes());
        if text.ends_with('\n') { Ok(()) } else { self.end_line() }
    }

    /// Writes facts, one a row; as JSON, the document instead.
    pub fn facts(
        &mut self,
        facts: &[(impl AsRef<str>, String)],
        document: &impl Serialize,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => return self.document(document),
            Format::Plain => {
                for (name, value) in facts {
                    self.text(&format!("{}\t{}\n", name.as_ref(), flat(value)))?;
                }
            }
            Format::Table => {
                let width = facts.iter().map(|(name, _)| name.as_ref().len()).max().unwrap_or(0);
                for (name, value) in facts {
                    let indented = visible(value).replace('\n', &format!("\n{:width$}  ", ""));
                    self.raw(&format!("{:width$}  {indented}\n", name.as_ref().bold()))?;
                }
            }
        }
        Ok(())
    }

    /// Writes a list: each item as a row of cells, or as JSON. `heads` stand over the rows of a table.
    pub fn list<T: Serialize>(
        &mut self,
        heads: &[&str],
        items: impl Iterator<Item = Result<T, Failure>>,
        cells: impl Fn(&T) -> Vec<String>,
    ) -> Result<(), Failure> {
        let mut rows = Vec::new();
        for item in items {
            let item = item?;
            match self.format {
                Format::Json => self.document(&item)?,
                Format::Plain => self.cells(&cells(&item))?,
                Format::Table => rows.push(cells(&item)),
            }
            if rows.len() == ROWS_PER_TABLE {
                self.rows(heads, std::mem::take(&mut rows))?;
            }
        }
        if !rows.is_empty() {
            self.rows(heads, rows)?;
        }
        Ok(())
    }

    fn cells(&mut self, cells: &[String]) -> Result<(), Failure> {
        let cells: Vec<String> = cells.iter().map(|cell| flat(cell)).collect();
        self.raw(&(cells.join("\t") + "\n"))
    }

    fn rows(&mut self, heads: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width());
        table.set_header(heads.iter().map(|head| (*head).to_owned()).collect::<Vec<_>>());
        table.add_rows(
            rows.into_iter().map(|row| row.iter().map(|cell| visible(cell).into_owned()).collect::<Vec<_>>()),
        );
        let mut lines = table.lines();
        let head = lines.next().unwrap_or_default();
        self.raw(&format!("{}\n", head.trim_end().bold()))?;
        lines.try_for_each(|line| self.raw(&format!("{}\n", with_coloured_mark(line.trim_end()))))
    }

    /// Writes an event of a list.
    pub fn event(&mut self, event: &RecordedEvent) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.document(&EventJson::of(event)),
            Format::Plain => self.cells(&event::cells(event)),
            Format::Table => self.raw(&(event::coloured_line(event, width().into()) + "\n")),
        }
    }

    /// Sets how to continue behind the next event. Valid once that event is written.
    pub fn resume_after(&mut self, words: &'static str, position: u64) {
        self.resume = Some((words, position));
    }

    fn end_line(&mut self) -> Result<(), Failure> {
        if self.buffer.last() != Some(&b'\n') {
            self.buffer.push(b'\n');
        }
        if self.is_terminal || self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes the buffer.
    pub fn flush(&mut self) -> Result<(), Failure> {
        let _section = interrupt::critical_section();
        let resume = self.resume.take();
        if !self.buffer.is_empty() {
            let mut out = AutoStream::auto(io::stdout().lock());
            let written = out.write_all(&self.buffer).and_then(|()| out.flush());
            // Cleared also after a failure: a second write of the same lines would double some.
            self.buffer.clear();
            written.map_err(|error| Failure::output(&error))?;
        }
        if let Some((words, position)) = resume {
            interrupt::to_continue(format!("{words} {position}"));
        }
        Ok(())
    }
}

/// The marks of good, suspicious and bad rows.
pub const MARKS: [&str; 3] = ["✓", "!", "✗"];

/// Colours the mark at the beginning of a line. Done after the layout, which would count colours as width.
fn with_coloured_mark(line: &str) -> String {
    let Some(mark) = MARKS.iter().find(|mark| line.trim_start().starts_with(**mark)) else {
        return line.to_owned();
    };
    let coloured = match *mark {
        "✓" => mark.green().to_string(),
        "!" => mark.yellow().to_string(),
        _ => mark.red().to_string(),
    };
    line.replacen(*mark, &coloured, 1)
}

/// The columns of the terminal; 120 if standard output is no terminal.
fn width() -> u16 {
    terminal_size::terminal_size().map_or(120, |(width, _)| width.0)
}

/// A cell on one line: tabs and line ends in the text would read as those between cells and lines.
fn flat(text: &str) -> String {
    visible(&text.replace(['\t', '\n', '\r'], " ")).into_owned()
}

/// The beginning of a text that fits into `width` columns, with an ellipsis if the text is longer.
pub fn cut(text: &str, width: usize) -> String {
    let text = visible(text);
    let room = width.max(8);
    if columns(&text) <= room {
        return text.into_owned();
    }
    let mut taken = 0;
    let fits = |sign: &char| {
        taken += sign.width().unwrap_or(0);
        taken < room
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

/// The columns that a text takes on a terminal: some characters take two, some none.
pub fn columns(text: &str) -> usize {
    text.width()
}

/// A count and what is counted: `1 event`, `2 events`.
pub fn counted(count: impl TryInto<u64>, one: &str, many: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A size with its unit: `1.02 KiB`.
pub fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
