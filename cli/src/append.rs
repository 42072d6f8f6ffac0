//! `annals append`: appends one event of the command line, or many, one a line.

mod each_line;
mod line_report;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::SystemTime;

use annals::{Append, Appended, Cause, ErrorKind, EventId, Expected, Store, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::args;
use crate::failure::{Answer, Failure};
use crate::interrupt;
use crate::json::{AsMessagePack, ExactJson, JsonEvent, JsonProblem, parse_exact};
use crate::output::{Format, Output, bytes, counted};
use crate::target::{self, Target};
use crate::values;
use crate::words;
use each_line::LineReader;

/// The longest input of one event: more bytes than the longest append of the format.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// An event as a line of `--lines` holds it.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventLine {
    entity: String,
    kind: String,
    #[serde(default)]
    payload: ExactJson,
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    metadata: Option<ExactJson>,
    #[serde(default)]
    key: Option<String>,
    /// `any`, `none`, `exists`, or a version, as text or number.
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

/// What the command line says of every event. A line wins over it.
struct Defaults {
    entity: Option<String>,
    kind: Option<String>,
    scope: Option<String>,
    tags: Vec<String>,
    metadata: Option<Value>,
    cause: Option<String>,
    correlation: Option<EventId>,
    occurred: Option<SystemTime>,
}

pub fn append(append: args::Append, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    let metadata = append.metadata.as_deref().map(|text| parse("--metadata", text)).transpose()?;
    let defaults = Defaults {
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
        let built = defaults.build(defaults.line(payload), None)?.expect(append.expect.unwrap_or_default());
        let store = open(append.create, target)?;
        return commit(built, append.key.as_deref(), store, out);
    };
    if append.key.is_some() && !append.atomic {
        let text = "with --lines, --key is for --atomic; give each line a \"key\" of its own";
        return Err(Failure::usage(text));
    }
    let source = LineReader::open(file, defaults.entity.is_none())?;
    let store = open(append.create, target)?;
    if append.atomic {
        return match build_atomic(source, &defaults)? {
            Some(built) => commit(built, append.key.as_deref(), store, out),
            None => target::close(store).map(|()| Answer::Yes),
        };
    }
    each_line::one_by_one(source, &defaults, &store, out)?;
    target::close(store)?;
    Ok(Answer::Yes)
}

fn open(create: bool, target: &Target) -> Result<Store, Failure> {
    let store = if create { target.to_create() } else { target.to_write() }?;
    let is_unsynced = target.is_buffered();
    interrupt::note(|plan| plan.effect.is_unsynced = is_unsynced);
    Ok(store)
}

fn with_key(append: Append, key: Option<&str>) -> Append {
    match key {
        Some(key) => append.key(key),
        None => append,
    }
}

/// Commits one append. Once it is acknowledged it is reported as done, also if the output fails.
fn commit(append: Append, key: Option<&str>, store: Store, out: &mut Output) -> Result<Answer, Failure> {
    let _section = interrupt::critical_section();
    interrupt::note(|plan| {
        plan.effect.under_way = Some("whether it is in is not known".to_owned());
        plan.effect.to_continue = Some(repeat(key.is_some()).to_owned());
    });
    let receipt = with_key(append, key).commit(&store).map_err(|error| {
        interrupt::note(|plan| {
            plan.effect.under_way = None;
            plan.effect.to_continue = None;
        });
        failed(error, key.is_some())
    })?;
    interrupt::done(sentence(&receipt));
    target::close(store)?;
    show(&receipt, None, out)?;
    out.flush()?;
    Ok(Answer::Yes)
}

/// How the operator continues if it is unknown whether an append is in the store.
fn repeat(has_key: bool) -> &'static str {
    match has_key {
        true => "repeat the command with the same --key: found or appended, never both",
        false => "look whether it is in (annals tail) before you repeat it; with a --key, repeating is safe",
    }
}

/// The failure of an append, with a hint.
fn failed(error: annals::Error, has_key: bool) -> Failure {
    let hint = match error.kind() {
        ErrorKind::Conflict => "read the stream, decide again, and --expect the version you saw",
        ErrorKind::NoSpace => "nothing was written; free space and repeat the command",
        ErrorKind::CommitUnknown | ErrorKind::Forked => repeat(has_key),
        _ => return error.into(),
    };
    Failure::from(error).hint(hint)
}

fn sentence(receipt: &Appended) -> String {
    let first = receipt.first_position();
    let last = receipt.position();
    let before = if receipt.replayed() { ", and was before" } else { "" };
    match receipt.events() {
        1 => format!("the event is in, at position {first}{before}"),
        events => {
            format!("{} are in, at positions {first} to {last}{before}", counted(events, "event", "events"))
        }
    }
}

/// Builds one append of all lines; `None` if there is no line.
fn build_atomic(mut source: LineReader, defaults: &Defaults) -> Result<Option<Append>, Failure> {
    let mut built = None;
    while let Some((number, text)) = source.next()? {
        let line = defaults.read(&text).map_err(|failure| failure.at(&source.at(number)))?;
        if line.key.is_some() {
            let text = "with --atomic, the lines are one append, and have one key: --key";
            return Err(Failure::usage(text).at(&source.at(number)));
        }
        built = Some(defaults.build(line, built).map_err(|failure| failure.at(&source.at(number)))?);
    }
    Ok(built)
}

impl Defaults {
    /// An event of the command line's entity and kind.
    fn line(&self, payload: Value) -> EventLine {
        EventLine {
            entity: self.entity.clone().unwrap_or_default(),
            kind: self.kind.clone().unwrap_or_default(),
            payload: ExactJson(payload),
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

    fn read(&self, text: &str) -> Result<EventLine, Failure> {
        let value = parse_exact(text).map_err(|problem| Failure::usage(problem.to_string()))?;
        if self.entity.is_some() {
            return Ok(self.line(value));
        }
        // serde would accept a list as well, as the fields in their order.
        if !value.is_object() {
            return Err(Failure::usage("an event is an object, such as {\"entity\":\"a\",\"kind\":\"b\"}"));
        }
        serde_json::from_str(text).map_err(|error| Failure::usage(words::no_json(text, &error)))
    }

    /// Adds the event of a line to an append, or begins one. The line wins over the command line.
    fn build(&self, line: EventLine, before: Option<Append>) -> Result<Append, Failure> {
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
        let event =
            JsonEvent { kind: &line.kind, schema_version: line.schema_version, payload: &line.payload.0 };
        append = append.event(&event);
        append = self.tags.iter().chain(&line.tags).fold(append, |append, tag| append.tag(tag));
        if let Some(metadata) = line.metadata.as_ref().map(|given| &given.0).or(self.metadata.as_ref()) {
            append = append.metadata(&AsMessagePack(metadata));
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
    parse_exact(text).map_err(|problem| match problem {
        JsonProblem::NoJson(problem) => {
            let failure = Failure::usage(format!("{what} is no JSON: {problem}"));
            failure.hint("texts need their quotes: '\"text\"'")
        }
        JsonProblem::Inexact(problem) => Failure::usage(format!("{what}: {problem}")),
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

/// Prints the receipt of an append; `line` is the number of the line that holds it.
fn show(receipt: &Appended, line: Option<u64>, out: &mut Output) -> Result<(), Failure> {
    let first = receipt.first_position().get();
    let position = receipt.position().get();
    let ids: Vec<String> = receipt.ids().map(|id| id.to_string()).collect();
    let versions: Vec<u64> = receipt.versions().map(|version| version.get()).collect();
    match out.format() {
        Format::Json => {
            let mut document = json!({
                "first_position": first, "position": position, "events": receipt.events(), "versions": versions,
                "ids": ids, "recorded_at": values::rfc3339(receipt.recorded_at()), "replayed": receipt.replayed(),
            });
            if let Some(line) = line {
                document["line"] = line.into();
            }
            out.document(&document)
        }
        Format::Plain | Format::Table => {
            let replayed = if receipt.replayed() { "\treplayed" } else { "" };
            let mut text = String::new();
            for ((position, version), id) in (first..).zip(versions).zip(ids) {
                text += &format!("{position}\t{version}\t{id}{replayed}\n");
            }
            out.text(&text)
        }
    }
}

/// Opens a file of lines, or a named pipe.
pub fn open_lines(path: &Path) -> Result<File, Failure> {
    let shown = path.display();
    let failed = |error| Failure::usage(format!("cannot read {shown}: {error}"));
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(Failure::usage(format!("{shown} is a directory; name a file")));
    }
    Ok(file)
}

/// Refuses an input that reached the bound: its end is not read, so it must not be taken for the whole.
fn bounded(read: usize) -> Result<(), Failure> {
    let fits = u64::try_from(read).is_ok_and(|read| read <= LINE_BYTES_MAX);
    let text = || format!("more than {} at once; no append is that long", bytes(LINE_BYTES_MAX));
    if fits { Ok(()) } else { Err(Failure::usage(text())) }
}

/// The bytes as UTF-8.
fn text_of(bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to().saturating_add(1);
        Failure::usage(format!("this is no UTF-8, from byte {at} on"))
    })
}
