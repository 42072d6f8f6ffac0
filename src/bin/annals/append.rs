//! Appending: one event from the command line, or many, one a line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::time::SystemTime;

use annals::{Append, Appended, Cause, EventId, Expected, Store, Timestamp};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::args;
use crate::failure::{Done, Failure};
use crate::interrupt;
use crate::json::{Event, Exact, Stored, exact};
use crate::output::{Form, Output, bytes};
use crate::place::{self, Place};
use crate::values;

/// Appends that share a sync at most.
const LINES_AT_ONCE: usize = 1024;
/// As long as the longest append the format holds, and then some.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// An event as a line says it.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    entity: String,
    kind: String,
    #[serde(default)]
    payload: Exact,
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    metadata: Option<Exact>,
    #[serde(default)]
    key: Option<String>,
    /// `any`, `none`, `exists`, or a version.
    #[serde(default)]
    expect: Option<Value>,
    #[serde(default)]
    cause: Option<String>,
    #[serde(default)]
    correlation: Option<EventId>,
    #[serde(default)]
    occurred_at: Option<Value>,
    #[serde(default = "one")]
    schema_version: u16,
}

fn one() -> u16 {
    1
}

/// What the command line says of every event.
struct Common {
    entity: Option<String>,
    kind: Option<String>,
    scope: Option<String>,
    tags: Vec<String>,
    metadata: Option<Value>,
    cause: Option<String>,
    correlation: Option<EventId>,
    occurred: Option<SystemTime>,
}

pub fn append(append: args::Append, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    let metadata = append.metadata.as_deref().map(|text| parse("--metadata", text)).transpose()?;
    let common = Common {
        entity: append.entity,
        kind: append.kind,
        scope: append.scope,
        tags: append.tag,
        metadata,
        cause: append.cause,
        correlation: append.correlation,
        occurred: append.occurred,
    };
    let Some(file) = &append.lines else {
        let payload = payload(append.payload.as_deref())?;
        let built = common.build(common.line(payload), None)?.expect(append.expect.unwrap_or_default());
        let store = open(append.create, place)?;
        let receipt = with_key(built, append.key.as_deref()).commit(&store)?;
        show(&receipt, out)?;
        place::close(store)?;
        return Ok(Done::Yes);
    };
    let source = Lines::open(file)?;
    let store = open(append.create, place)?;
    match append.atomic {
        true => at_once(source, &common, append.key.as_deref(), &store, out)?,
        false if append.key.is_some() => {
            return Err(Failure::usage(
                "with --lines, --key is for --atomic; give each line a \"key\" of its own",
            ));
        }
        false => one_by_one(source, &common, &store, out)?,
    }
    place::close(store)?;
    Ok(Done::Yes)
}

fn open(create: bool, place: &Place) -> Result<Store, Failure> {
    if create { place.to_create() } else { place.to_write() }
}

fn with_key(append: Append, key: Option<&str>) -> Append {
    match key {
        Some(key) => append.key(key),
        None => append,
    }
}

/// All lines in one append.
fn at_once(
    mut source: Lines,
    common: &Common,
    key: Option<&str>,
    store: &Store,
    out: &mut Output,
) -> Result<(), Failure> {
    let mut built = None;
    while let Some((number, text)) = source.next()? {
        let line = common.read(&text).map_err(|failure| failure.at(&source.at(number)))?;
        if line.key.is_some() {
            let text = "with --atomic, the lines are one append, and have one key: --key";
            return Err(Failure::usage(text).at(&source.at(number)));
        }
        built = Some(common.build(line, built).map_err(|failure| failure.at(&source.at(number)))?);
    }
    let Some(append) = built else { return Ok(()) };
    let receipt = with_key(append, key).commit(store)?;
    show(&receipt, out)
}

/// Each line is an append; those that are there already go in together and share a sync.
fn one_by_one(mut source: Lines, common: &Common, store: &Store, out: &mut Output) -> Result<(), Failure> {
    let mut done = 0;
    loop {
        let (mut texts, mut unread) = (Vec::new(), None);
        while texts.len() < LINES_AT_ONCE && (texts.is_empty() || source.has_line()) {
            match source.next() {
                Ok(Some(line)) => texts.push(line),
                Ok(None) => break,
                // What came before it goes in first.
                Err(failure) => {
                    unread = Some(failure);
                    break;
                }
            }
        }
        if texts.is_empty() && unread.is_none() {
            return Ok(());
        }
        let held = interrupt::hold();
        let (receipts, failed) = go_in(&texts, &source, common, store);
        drop(held);
        for (number, receipt) in receipts {
            show(&receipt, out)?;
            done = number;
            out.go_on("go on behind line", number);
        }
        out.flush()?;
        if let Some(failure) = failed.or(unread) {
            return Err(match done {
                0 => failure,
                done => {
                    failure.hint(format!("everything up to line {done} is in; go on with the line after it"))
                }
            });
        }
    }
}

/// Appends lines, up to the first that is refused. Later ones that were under way already are waited for, too.
fn go_in(
    texts: &[(u64, String)],
    source: &Lines,
    common: &Common,
    store: &Store,
) -> (Vec<(u64, Appended)>, Option<Failure>) {
    let (mut receipts, mut tickets) = (Vec::new(), Vec::new());
    let (mut failed, mut refused) = (None, None);
    for (number, text) in texts {
        let submitted = common.read(text).and_then(|line| {
            let key = line.key.clone();
            Ok(with_key(common.build(line, None)?, key.as_deref()).submit(store)?)
        });
        match submitted {
            Ok(ticket) => tickets.push((*number, ticket)),
            Err(failure) => {
                refused = Some(failure.at(&source.at(*number)));
                break;
            }
        }
    }
    for (number, ticket) in tickets {
        match ticket.wait() {
            Ok(receipt) if failed.is_none() => receipts.push((number, receipt)),
            Ok(_) => {}
            Err(error) => {
                failed.get_or_insert_with(|| Failure::from(error).at(&source.at(number)));
            }
        }
    }
    (receipts, failed.or(refused))
}

impl Common {
    /// The event whose entity and kind the command line names.
    fn line(&self, payload: Value) -> Line {
        Line {
            entity: self.entity.clone().unwrap_or_default(),
            kind: self.kind.clone().unwrap_or_default(),
            payload: Exact(payload),
            scope: None,
            tags: Vec::new(),
            metadata: None,
            key: None,
            expect: None,
            cause: None,
            correlation: None,
            occurred_at: None,
            schema_version: 1,
        }
    }

    fn read(&self, text: &str) -> Result<Line, Failure> {
        let value = exact(text).map_err(Failure::usage)?;
        if self.entity.is_some() {
            return Ok(self.line(value));
        }
        // serde would take the values of a list for the fields of an event, by their places.
        if !value.is_object() {
            return Err(Failure::usage("an event is an object, such as {\"entity\":\"a\",\"kind\":\"b\"}"));
        }
        serde_json::from_str(text).map_err(|error| Failure::usage(error.to_string()))
    }

    /// Adds the event of a line to an append, or begins one. What the line says counts more.
    fn build(&self, line: Line, before: Option<Append>) -> Result<Append, Failure> {
        let scope = line.scope.or_else(|| self.scope.clone());
        let scope = scope.unwrap_or_else(|| annals::DEFAULT_SCOPE.to_owned());
        let address = (line.entity, scope);
        let mut append = match before {
            Some(append) => append.and_to(address),
            None => Append::to(address),
        };
        if let Some(expect) = line.expect {
            append = append.expect(expectation(&expect)?);
        }
        let event = Event { kind: &line.kind, schema_version: line.schema_version, payload: &line.payload.0 };
        append = append.event(&event);
        append = self.tags.iter().chain(&line.tags).fold(append, |append, tag| append.tag(tag));
        if let Some(metadata) = line.metadata.as_ref().map(|given| &given.0).or(self.metadata.as_ref()) {
            append = append.metadata(&Stored(metadata));
        }
        if let Some(of) = line.cause.as_ref().or(self.cause.as_ref()) {
            append = append.cause(cause(of)?);
        }
        if let Some(correlation) = line.correlation.or(self.correlation) {
            append = append.correlation(correlation);
        }
        let occurred = line.occurred_at.map(occurred).transpose()?;
        if let Some(occurred) = occurred.or(self.occurred) {
            append = append.occurred_at(occurred);
        }
        Ok(append)
    }
}

fn expectation(value: &Value) -> Result<Expected, Failure> {
    let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    values::expected(&text).map_err(Failure::usage)
}

fn occurred(value: Value) -> Result<SystemTime, Failure> {
    let time = match value {
        Value::String(text) => values::time(&text),
        number => {
            serde_json::from_value::<Timestamp>(number).map(SystemTime::from).map_err(|e| e.to_string())
        }
    };
    time.map_err(|problem| Failure::usage(format!("occurred_at: {problem}")))
}

fn cause(text: &str) -> Result<Cause, Failure> {
    if text == "previous" {
        return Ok(Cause::PreviousInStream);
    }
    let wrong = |_| Failure::usage(format!("{text:?} is no cause; give an event's id, or \"previous\""));
    text.parse().map(Cause::Event).map_err(wrong)
}

fn parse(what: &str, text: &str) -> Result<Value, Failure> {
    exact(text).map_err(|problem| match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Failure::usage(format!("{what}: {problem}")),
        Err(_) => {
            let failure = Failure::usage(format!("{what} is no JSON: {problem}"));
            failure.hint("texts need their quotes: '\"text\"'")
        }
    })
}

fn payload(text: Option<&str>) -> Result<Value, Failure> {
    let read = |mut source: Box<dyn Read>, what: &str| {
        let mut text = String::new();
        let read = source.by_ref().take(LINE_BYTES_MAX + 1).read_to_string(&mut text);
        let read = read.map_err(|error| Failure::system(&format!("cannot read {what}"), &error))?;
        bounded(read).map_err(|failure| failure.at(what))?;
        parse(what, &text)
    };
    match text {
        None => Ok(Value::Null),
        Some("-") => read(Box::new(io::stdin()), "standard input"),
        Some(text) => match text.strip_prefix('@') {
            Some(path) => {
                let file = File::open(path).map_err(|error| Failure::usage(format!("{path}: {error}")))?;
                read(Box::new(file), path)
            }
            None => parse("the payload", text),
        },
    }
}

fn show(receipt: &Appended, out: &mut Output) -> Result<(), Failure> {
    let (first, position) = (receipt.first_position().get(), receipt.position().get());
    let ids: Vec<String> = receipt.ids().map(|id| id.to_string()).collect();
    let versions: Vec<u64> = receipt.versions().map(|version| version.get()).collect();
    match out.form() {
        Form::Json => out.document(&json!({
            "first_position": first, "position": position, "events": receipt.events(), "versions": versions,
            "ids": ids, "recorded_at": values::rfc3339(receipt.recorded_at()), "replayed": receipt.replayed(),
        })),
        Form::Plain | Form::Table => {
            let replayed = if receipt.replayed() { "\treplayed" } else { "" };
            let mut text = String::new();
            for ((position, version), id) in (first..).zip(versions).zip(ids) {
                text += &format!("{position}\t{version}\t{id}{replayed}\n");
            }
            out.text(&text)
        }
    }
}

/// A file of lines, or a pipe.
pub fn open_lines(path: &Path) -> Result<File, Failure> {
    let shown = path.display();
    let failed = |error| Failure::usage(format!("cannot read {shown}: {error}"));
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(Failure::usage(format!("{shown} is a directory; name a file of lines")));
    }
    Ok(file)
}

/// Half of what is too long must not be taken for the whole.
fn bounded(read: usize) -> Result<(), Failure> {
    let fits = u64::try_from(read).is_ok_and(|read| read <= LINE_BYTES_MAX);
    let text = || format!("more than {} at once; no append is that long", bytes(LINE_BYTES_MAX));
    if fits { Ok(()) } else { Err(Failure::usage(text())) }
}

/// Lines of a file or of standard input, numbered from 1; empty ones are passed over.
struct Lines {
    name: String,
    source: BufReader<Box<dyn Read>>,
    number: u64,
}

impl Lines {
    fn open(path: &Path) -> Result<Lines, Failure> {
        let name = path.display().to_string();
        let (name, source): (String, Box<dyn Read>) = match name.as_str() {
            "-" => ("standard input".to_owned(), Box::new(io::stdin())),
            _ => (name, Box::new(open_lines(path)?)),
        };
        Ok(Lines { name, source: BufReader::with_capacity(256 << 10, source), number: 0 })
    }

    fn at(&self, number: u64) -> String {
        format!("{}, line {number}", self.name)
    }

    /// Whether a line is there without waiting for it.
    fn has_line(&self) -> bool {
        self.source.buffer().contains(&b'\n')
    }

    fn next(&mut self) -> Result<Option<(u64, String)>, Failure> {
        loop {
            let mut line = Vec::new();
            let read = self.source.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line);
            let read =
                read.map_err(|error| Failure::system(&format!("cannot read {}", self.name), &error))?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            let at = self.at(self.number);
            bounded(read).map_err(|failure| failure.at(&at))?;
            let text = String::from_utf8(line).map_err(|_| Failure::usage("the line is no UTF-8").at(&at))?;
            // Some editors put a byte order mark in front of everything.
            let text = if self.number == 1 { text.trim_start_matches('\u{FEFF}') } else { &text };
            if !text.trim().is_empty() {
                return Ok(Some((self.number, text.to_owned())));
            }
        }
    }
}
