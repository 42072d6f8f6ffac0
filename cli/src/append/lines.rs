//! Each line is an append: lines that are there already go in together, and which of them are in is told.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use annals::Store;

use super::account::{Account, Fate};
use super::{Common, LINE_BYTES_MAX, bounded, failed, open_lines, show, text_of, with_key};
use crate::failure::Failure;
use crate::interrupt;
use crate::output::Output;
use crate::words;

/// Appends that share a sync at most.
const LINES_AT_ONCE: usize = 1024;

/// Lines with their numbers, and why no more of them could be read.
type Batch = (Vec<(u64, String)>, Option<Failure>);

/// Appends until a line is refused or cannot be read. Lines that were under way with a refused one go in all
/// the same: each is acknowledged, and the account of what is in names them.
pub(super) fn one_by_one(
    mut source: Lines,
    common: &Common,
    store: &Store,
    out: &mut Output,
) -> Result<(), Failure> {
    let mut account = Account::default();
    loop {
        interrupt::begin();
        let (texts, unread) = source.batch();
        if texts.is_empty() && unread.is_none() {
            interrupt::note(|now| now.effect.rest = None);
            return Ok(());
        }
        let _whole = interrupt::whole();
        let refused = go_in(&texts, &source, common, store, &mut account, out)?;
        if refused.is_none()
            && let Some(failure) = &unread
        {
            account.note(Some(failure), source.number);
        }
        out.flush()?;
        if let Some(failure) = refused.or(unread) {
            return Err(failure);
        }
    }
}

/// Appends lines up to the first that cannot be submitted, and acknowledges all that are in. Gives the first
/// failure.
fn go_in(
    texts: &[(u64, String)],
    source: &Lines,
    common: &Common,
    store: &Store,
    account: &mut Account,
    out: &mut Output,
) -> Result<Option<Failure>, Failure> {
    account.note_under_way(texts);
    let mut tickets = Vec::new();
    let mut refused = None;
    for (number, text) in texts {
        let submitted = common.read(text).and_then(|line| {
            let key = line.key.clone();
            let append = with_key(common.build(line, None)?, key.as_deref());
            Ok((append.submit(store).map_err(|error| failed(error, key.is_some()))?, key.is_some()))
        });
        match submitted {
            Ok((ticket, has_key)) => tickets.push((*number, ticket, has_key)),
            Err(failure) => {
                refused = Some((*number, failure.at(&source.at(*number))));
                break;
            }
        }
    }
    let mut receipts = Vec::new();
    let mut first = None;
    for (number, ticket, has_key) in tickets {
        match ticket.wait() {
            Ok(receipt) => {
                account.add(number, Fate::In);
                receipts.push((number, receipt));
            }
            Err(error) => {
                let failure = failed(error, has_key).at(&source.at(number));
                account.add(number, if failure.is_unknown() { Fate::Unknown } else { Fate::Out });
                first.get_or_insert(failure);
            }
        }
    }
    if let Some((number, failure)) = refused {
        account.add(number, Fate::Out);
        first.get_or_insert(failure);
    }
    account.note(first.as_ref(), 0);
    for (number, receipt) in receipts {
        show(&receipt, Some(number), out)?;
    }
    Ok(first)
}

/// Lines of a file or of standard input, numbered from 1; empty ones are passed over.
pub(super) struct Lines {
    name: String,
    source: BufReader<Box<dyn Read>>,
    /// Of the line that was read last.
    number: u64,
    /// Whether a line is an event, and not only its payload.
    is_whole: bool,
}

impl Lines {
    pub(super) fn open(path: &Path, is_whole: bool) -> Result<Lines, Failure> {
        let name = path.display().to_string();
        let (name, source): (String, Box<dyn Read>) = match name.as_str() {
            "-" => ("standard input".to_owned(), Box::new(io::stdin())),
            _ => (name, Box::new(open_lines(path)?)),
        };
        Ok(Lines { name, source: BufReader::with_capacity(256 << 10, source), number: 0, is_whole })
    }

    pub(super) fn at(&self, number: u64) -> String {
        format!("{}, line {number}", self.name)
    }

    /// Waits for a line, and takes those that are there already.
    fn batch(&mut self) -> Batch {
        let mut texts = Vec::new();
        while texts.len() < LINES_AT_ONCE && (texts.is_empty() || self.has_line()) {
            match self.next() {
                Ok(Some(line)) => texts.push(line),
                Ok(None) => break,
                // What came before it goes in first.
                Err(failure) => return (texts, Some(failure)),
            }
        }
        (texts, None)
    }

    /// Whether a line is there without waiting for it.
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
        if self.is_whole && self.number == 1 && words::is_array(&line) {
            return Err(Failure::usage("a line is an object, and this is a list").hint(words::ARRAY));
        }
        bounded(line.len())?;
        let text = text_of(line)?;
        // Some editors put a byte order mark in front of everything; files that are put together have several.
        match text.strip_prefix('\u{FEFF}') {
            Some(text) => Ok(text.to_owned()),
            None => Ok(text),
        }
    }
}
