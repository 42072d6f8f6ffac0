//! What goes to standard output: tables on a terminal, plain text with tabs in a pipe, JSON when it is asked for.
//!
//! Everything is escaped here: what cannot be seen in a name or a text never reaches a terminal or a pipe as
//! it is. It is written in pieces; between two of them the command may be interrupted, and what was written
//! is whole lines.

use std::io::{self, IsTerminal, Write};

use annals::{RecordedEvent, visible, visible_json};
use anstream::AutoStream;
use comfy_table::{ContentArrangement, Table, presets};
use owo_colors::OwoColorize;
use serde::Serialize;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::args::Global;
use crate::event::{EventJson, coloured, line};
use crate::failure::Failure;
use crate::interrupt;

/// How output looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Table,
    Plain,
    Json,
}

pub struct Output {
    form: Form,
    is_terminal: bool,
    waiting: Vec<u8>,
    /// How to go on behind the last event that waits.
    go_on: Option<(&'static str, u64)>,
}

/// Cells of a line; what they hold is free of tabs and ends of lines.
pub struct Line {
    pub plain: Vec<String>,
}

/// So much is gathered before it is written, unless somebody looks on.
const PIECE: usize = 32 << 10;
/// Rows of a list that are laid out together.
const ROWS: usize = 1000;

impl Output {
    pub fn new(global: &Global) -> Output {
        let is_terminal = io::stdout().is_terminal();
        let form = match (global.json, global.table || is_terminal) {
            (true, _) => Form::Json,
            (false, true) => Form::Table,
            (false, false) => Form::Plain,
        };
        Output { form, is_terminal, waiting: Vec::new(), go_on: None }
    }

    pub fn form(&self) -> Form {
        self.form
    }

    /// One document.
    pub fn document(&mut self, document: &impl Serialize) -> Result<(), Failure> {
        let failed = |error: serde_json::Error| Failure::system("cannot write JSON", &error.into());
        let json = serde_json::to_string(document).map_err(failed)?;
        self.waiting.extend_from_slice(visible_json(&json).as_bytes());
        self.end_line()
    }

    /// Lines of text, whose cells are divided by tabs.
    pub fn text(&mut self, text: &str) -> Result<(), Failure> {
        let cells: Vec<_> = text.split('\t').map(visible).collect();
        self.painted(&cells.join("\t"))
    }

    /// Text that is escaped already, and may have colours.
    fn painted(&mut self, text: &str) -> Result<(), Failure> {
        self.waiting.extend_from_slice(text.as_bytes());
        if text.ends_with('\n') { Ok(()) } else { self.end_line() }
    }

    /// Facts, one a row; or the document that has them.
    pub fn facts(
        &mut self,
        facts: &[(impl AsRef<str>, String)],
        document: &impl Serialize,
    ) -> Result<(), Failure> {
        match self.form {
            Form::Json => return self.document(document),
            Form::Plain => {
                for (name, value) in facts {
                    self.text(&format!("{}\t{}\n", name.as_ref(), flat(value)))?;
                }
            }
            Form::Table => {
                let width = facts.iter().map(|(name, _)| name.as_ref().len()).max().unwrap_or(0);
                for (name, value) in facts {
                    let indented = visible(value).replace('\n', &format!("\n{:width$}  ", ""));
                    self.painted(&format!("{:width$}  {indented}\n", name.as_ref().bold()))?;
                }
            }
        }
        Ok(())
    }

    /// A list: each item as a row or as a document. `heads` stand over the rows of a table.
    pub fn list<T: Serialize>(
        &mut self,
        heads: &[&str],
        items: impl Iterator<Item = Result<T, Failure>>,
        cells: impl Fn(&T) -> Vec<String>,
    ) -> Result<u64, Failure> {
        let (mut rows, mut count) = (Vec::new(), 0);
        for item in items {
            let item = item?;
            count += 1;
            match self.form {
                Form::Json => self.document(&item)?,
                Form::Plain => {
                    self.cells(&cells(&item))?;
                }
                Form::Table => rows.push(cells(&item)),
            }
            if rows.len() == ROWS {
                self.rows(heads, std::mem::take(&mut rows))?;
            }
        }
        if !rows.is_empty() {
            self.rows(heads, rows)?;
        }
        Ok(count)
    }

    fn cells(&mut self, cells: &[String]) -> Result<(), Failure> {
        let cells: Vec<String> = cells.iter().map(|cell| flat(cell)).collect();
        self.painted(&(cells.join("\t") + "\n"))
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
        self.painted(&format!("{}\n", head.trim_end().bold()))?;
        lines.try_for_each(|line| self.painted(&format!("{}\n", painted(line.trim_end()))))
    }

    /// An event of a list.
    pub fn event(&mut self, event: &RecordedEvent) -> Result<(), Failure> {
        match self.form {
            Form::Json => self.document(&EventJson::of(event)),
            Form::Plain => self.cells(&line(event).plain),
            Form::Table => self.painted(&(coloured(event, width().into()) + "\n")),
        }?;
        Ok(())
    }

    /// How to go on behind the event that comes next, once it is written: words, which its position follows.
    pub fn go_on(&mut self, words: &'static str, position: u64) {
        self.go_on = Some((words, position));
    }

    fn end_line(&mut self) -> Result<(), Failure> {
        if self.waiting.last() != Some(&b'\n') {
            self.waiting.push(b'\n');
        }
        if self.is_terminal || self.waiting.len() >= PIECE { self.flush() } else { Ok(()) }
    }

    /// Writes what waits.
    pub fn flush(&mut self) -> Result<(), Failure> {
        let _whole = interrupt::whole();
        let go_on = self.go_on.take();
        if !self.waiting.is_empty() {
            let mut out = AutoStream::auto(io::stdout().lock());
            let written = out.write_all(&self.waiting).and_then(|()| out.flush());
            self.waiting.clear();
            written.map_err(|error| Failure::output(&error))?;
        }
        if let Some((words, position)) = go_on {
            interrupt::rest(format!("{words} {position}"));
        }
        Ok(())
    }
}

/// Signs for good, to be looked at, and bad.
pub const MARKS: [&str; 3] = ["✓", "!", "✗"];

/// A mark in front is coloured: behind the table's back, which would count the colour as width.
fn painted(line: &str) -> String {
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

/// Columns of the terminal.
fn width() -> u16 {
    terminal_size::terminal_size().map_or(120, |(width, _)| width.0)
}

/// A cell of a line: a tab or an end of line in it would be one of the line's.
fn flat(text: &str) -> String {
    visible(&text.replace(['\t', '\n', '\r'], " ")).into_owned()
}

/// As much of a text as fits into so many columns.
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

/// How many columns of a terminal a text takes: some signs take two, some none.
pub fn columns(text: &str) -> usize {
    text.width()
}

/// A count and what is counted: `1 event`, `2 events`.
pub fn counted(count: impl TryInto<u64>, one: &str, many: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Bytes for people.
pub fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
