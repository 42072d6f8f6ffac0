//! Appending: one event from the command line, or many, one a line.

mod account;
mod lines;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::SystemTime;

use annals::{Append, Appended, Cause, ErrorKind, EventId, Expected, Store, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::args;
use crate::failure::{Done, Failure};
use crate::interrupt;
use crate::json::{Event, Exact, Stored, Unkept, exact};
use crate::output::{Form, Output, bytes, counted};
use crate::place::{self, Place};
use crate::values;
use crate::words;
use lines::Lines;

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
        return commit(built, append.key.as_deref(), store, out);
    };
    if append.key.is_some() && !append.atomic {
        let text = "with --lines, --key is for --atomic; give each line a \"key\" of its own";
        return Err(Failure::usage(text));
    }
    let source = Lines::open(file, common.entity.is_none())?;
    let store = open(append.create, place)?;
    if append.atomic {
        return match all(source, &common)? {
            Some(built) => commit(built, append.key.as_deref(), store, out),
            None => place::close(store).map(|()| Done::Yes),
        };
    }
    lines::one_by_one(source, &common, &store, out)?;
    place::close(store)?;
    Ok(Done::Yes)
}

fn open(create: bool, place: &Place) -> Result<Store, Failure> {
    let store = if create { place.to_create() } else { place.to_write() }?;
    let is_unsynced = place.is_buffered();
    interrupt::note(|now| now.effect.is_unsynced = is_unsynced);
    Ok(store)
}

fn with_key(append: Append, key: Option<&str>) -> Append {
    match key {
        Some(key) => append.key(key),
        None => append,
    }
}

/// One append, which is in once it is acknowledged, whether that can be said or not.
fn commit(append: Append, key: Option<&str>, store: Store, out: &mut Output) -> Result<Done, Failure> {
    let _whole = interrupt::whole();
    interrupt::note(|now| {
        now.effect.under_way = Some("whether it is in is not known".to_owned());
        now.effect.rest = Some(repeat(key.is_some()).to_owned());
    });
    let receipt = with_key(append, key).commit(&store).map_err(|error| {
        interrupt::note(|now| (now.effect.under_way, now.effect.rest) = (None, None));
        failed(error, key.is_some())
    })?;
    interrupt::done(is_in(&receipt));
    place::close(store)?;
    show(&receipt, None, out)?;
    out.flush()?;
    Ok(Done::Yes)
}

/// What to do where it is not known whether an append is in.
fn repeat(has_key: bool) -> &'static str {
    match has_key {
        true => "repeat the command with the same --key: found or appended, never both",
        false => "look whether it is in (annals tail) before you repeat it; with a --key, repeating is safe",
    }
}

/// Why an append is not in, or may not be.
fn failed(error: annals::Error, has_key: bool) -> Failure {
    let hint = match error.kind() {
        ErrorKind::Conflict => "read the stream, decide again, and --expect the version you saw",
        ErrorKind::NoSpace => "nothing was written; free space and repeat the command",
        ErrorKind::CommitUnknown | ErrorKind::Forked => repeat(has_key),
        _ => return error.into(),
    };
    Failure::from(error).hint(hint)
}

fn is_in(receipt: &Appended) -> String {
    let (first, last) = (receipt.first_position(), receipt.position());
    let before = if receipt.replayed() { ", and was before" } else { "" };
    match receipt.events() {
        1 => format!("the event is in, at position {first}{before}"),
        events => {
            format!("{} are in, at positions {first} to {last}{before}", counted(events, "event", "events"))
        }
    }
}

/// All lines in one append; none if there are none.
fn all(mut source: Lines, common: &Common) -> Result<Option<Append>, Failure> {
    let mut built = None;
    while let Some((number, text)) = source.next()? {
        let line = common.read(&text).map_err(|failure| failure.at(&source.at(number)))?;
        if line.key.is_some() {
            let text = "with --atomic, the lines are one append, and have one key: --key";
            return Err(Failure::usage(text).at(&source.at(number)));
        }
        built = Some(common.build(line, built).map_err(|failure| failure.at(&source.at(number)))?);
    }
    Ok(built)
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
        let value = exact(text).map_err(|unkept| Failure::usage(unkept.to_string()))?;
        if self.entity.is_some() {
            return Ok(self.line(value));
        }
        // serde would take the values of a list for the fields of an event, by their places.
        if !value.is_object() {
            return Err(Failure::usage("an event is an object, such as {\"entity\":\"a\",\"kind\":\"b\"}"));
        }
        serde_json::from_str(text).map_err(|error| Failure::usage(words::no_json(text, &error)))
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
            let time = serde_json::from_value::<Timestamp>(number).map(SystemTime::from);
            time.map_err(|error| words::no_json("", &error))
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
    exact(text).map_err(|unkept| match unkept {
        Unkept::NoJson(problem) => {
            let failure = Failure::usage(format!("{what} is no JSON: {problem}"));
            failure.hint("texts need their quotes: '\"text\"'")
        }
        Unkept::Inexact(problem) => Failure::usage(format!("{what}: {problem}")),
    })
}

fn payload(text: Option<&str>) -> Result<Value, Failure> {
    let read = |mut source: Box<dyn Read>, what: &str| {
        let mut bytes = Vec::new();
        let read = source.by_ref().take(LINE_BYTES_MAX + 1).read_to_end(&mut bytes);
        let read = read.map_err(|error| Failure::system(&format!("cannot read {what}"), &error))?;
        bounded(read).map_err(|failure| failure.at(what))?;
        if let Some(wrong) = words::unreadable(&bytes) {
            return Err(Failure::usage(wrong).at(what));
        }
        let text = text_of(bytes).map_err(|failure| failure.at(what))?;
        parse(what, text.strip_prefix('\u{FEFF}').unwrap_or(&text))
    };
    match text {
        None => Ok(Value::Null),
        Some("-") => read(Box::new(io::stdin()), "standard input"),
        Some(text) => match text.strip_prefix('@') {
            Some(path) => read(Box::new(open_lines(Path::new(path))?), path),
            None => parse("the payload", text),
        },
    }
}

/// `line` is the one it was made of.
fn show(receipt: &Appended, line: Option<u64>, out: &mut Output) -> Result<(), Failure> {
    let (first, position) = (receipt.first_position().get(), receipt.position().get());
    let ids: Vec<String> = receipt.ids().map(|id| id.to_string()).collect();
    let versions: Vec<u64> = receipt.versions().map(|version| version.get()).collect();
    match out.form() {
        Form::Json => {
            let mut document = json!({
                "first_position": first, "position": position, "events": receipt.events(), "versions": versions,
                "ids": ids, "recorded_at": values::rfc3339(receipt.recorded_at()), "replayed": receipt.replayed(),
            });
            if let Some(line) = line {
                document["line"] = line.into();
            }
            out.document(&document)
        }
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
        return Err(Failure::usage(format!("{shown} is a directory; name a file")));
    }
    Ok(file)
}

/// Half of what is too long must not be taken for the whole.
fn bounded(read: usize) -> Result<(), Failure> {
    let fits = u64::try_from(read).is_ok_and(|read| read <= LINE_BYTES_MAX);
    let text = || format!("more than {} at once; no append is that long", bytes(LINE_BYTES_MAX));
    if fits { Ok(()) } else { Err(Failure::usage(text())) }
}

/// Text that is to be JSON.
fn text_of(bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to().saturating_add(1);
        Failure::usage(format!("this is no UTF-8, from byte {at} on"))
    })
}
