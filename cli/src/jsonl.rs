//! `annals export` and `annals import`: events as lines of JSON.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use annals::{ErrorKind, Imported, Mapping, Store};
use serde_json::json;

use crate::append::open_lines;
use crate::args::{Export, Import, TimeForm};
use crate::failure::{Answer, Failure};
use crate::interrupt;
use crate::output::{Format, Output, counted};
use crate::progress::Bar;
use crate::target::{self, Target};
use crate::words;

/// Writes JSONL to standard output, with and without `--json`.
pub fn export(export: &Export, target: &Target) -> Result<Answer, Failure> {
    let store = target.to_read()?;
    // A bar among lines on the same terminal would make both unreadable.
    let bar = if io::stdout().is_terminal() { Bar::hidden() } else { Bar::events("exporting") };
    let lines = store.export(export.filter.query()).after(export.after).on_progress(|progress| {
        let after = progress.after.get();
        let total = progress.head.get().saturating_sub(after);
        bar.set(progress.position.get().saturating_sub(after), total);
        ControlFlow::Continue(())
    });
    let mut out = AppendWriter { inner: io::stdout().lock(), error: None };
    match lines.write_to(&mut out) {
        Ok(_) => Ok(Answer::Yes),
        Err(error) => match out.error {
            Some(error) => Err(Failure::output(&error)),
            None => Err(error.into()),
        },
    }
}

/// Writes appends of an export. Each call of [`Write::write`] gets whole appends.
///
/// A signal does not stop the command in the middle of a call, and the first error is kept.
struct AppendWriter<W> {
    inner: W,
    error: Option<io::Error>,
}

impl<W: Write> Write for AppendWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _section = interrupt::critical_section();
        match self.inner.write_all(bytes) {
            Ok(()) => {
                if let Some(position) = last_position(bytes) {
                    interrupt::to_continue(format!("go on with --after {position}"));
                }
                Ok(bytes.len())
            }
            Err(error) => {
                let kind = error.kind();
                self.error = Some(error);
                Err(kind.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The position in the last of some lines of an export. Each line begins with its position.
fn last_position(lines: &[u8]) -> Option<u64> {
    let last = lines.strip_suffix(b"\n")?.rsplit(|byte| *byte == b'\n').next()?;
    let rest = last.strip_prefix(b"{\"position\":")?;
    let digits = rest.split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

pub fn import(import: Import, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    let opened = opened(&import.file)?;
    let name = name(&import)?;
    let mapping = mapping(&import)?;
    if !import.create {
        target.existing()?;
    }
    let source = source(&import.file, opened)?;
    let store = if import.create { target.to_create()? } else { target.to_write()? };
    let is_unsynced = target.is_buffered();
    interrupt::note(|plan| plan.effect.is_unsynced = is_unsynced);
    let rejects = import.skip_bad.as_deref().map(|path| rejects(path, &import.file)).transpose()?;
    interrupt::to_continue(AGAIN);
    interrupt::will_poll();
    let imported = run(&import, &store, &name, source, mapping, rejects);
    let imported = imported.map_err(|error| failed(error, &shown(&import.file)))?;
    if imported.events > 0 || imported.rejected > 0 {
        let events = counted(imported.events, "event is", "events are");
        interrupt::done(format!("{events} in, from {}", counted(imported.lines, "line", "lines")));
        interrupt::to_continue(AGAIN);
    }
    target::close(store)?;
    show(&imported, &name, out)?;
    Ok(if imported.rejected > 0 { Answer::No } else { Answer::Yes })
}

/// How the operator continues an import, at every end of it.
const AGAIN: &str = "run it again: it goes on behind what went in";

fn run(
    import: &Import,
    store: &Store,
    name: &str,
    source: Source,
    mapping: Option<Mapping>,
    rejects: Option<File>,
) -> Result<Imported, annals::Error> {
    let mut lines = store.import(name, source);
    if let Some(mapping) = mapping {
        lines = lines.mapped(mapping);
    }
    if let Some(rejects) = rejects {
        lines = lines.skip_bad(rejects);
    }
    if import.renumber {
        lines = lines.renumber();
    }
    if import.round_numbers {
        lines = lines.round_numbers();
    }
    if import.even_if_imported {
        lines = lines.even_if_imported();
    }
    lines.on_progress(|_| interrupt::poll()).run()
}

/// Adds a hint: a wrong line, another source and every other failure need different steps.
fn failed(error: annals::Error, shown: &str) -> Failure {
    use std::error::Error as _;
    // Only the error of a line wraps another error of the library.
    let is_of_line = error.source().is_some_and(|cause| cause.is::<annals::Error>());
    let text = error.to_string();
    let is_inexact = text.contains("would come back as") || text.contains("would be rounded");
    let hint = match error.kind() {
        ErrorKind::Invalid if is_of_line && is_inexact => {
            "what came before it is in; mend the line and run it again, take the nearest float: \
             --round-numbers, or pass over it: --skip-bad FILE"
        }
        ErrorKind::Invalid | ErrorKind::TooLarge | ErrorKind::Denied if is_of_line => {
            "what came before it is in; mend the line and run it again, or pass over it: --skip-bad FILE"
        }
        ErrorKind::Invalid if text.contains("that were imported as") => {
            "nothing went in; go on under that name: --name NAME; or have it in twice: --even-if-imported"
        }
        ErrorKind::Invalid => {
            "give what was imported and what came behind it, or import this as another source: --name NAME"
        }
        _ => "what came before it is in; run it again: it goes on behind that",
    };
    let failure = Failure::from(error).hint(hint);
    failure.without_space("what came before it is in; free space and run it again").at(shown)
}

/// The lines of an import.
type Source = BufReader<ProgressReader>;

/// Counts the bytes that are read, and shows them in a bar.
struct ProgressReader {
    source: Box<dyn Read>,
    read: u64,
    total: u64,
    bar: Bar,
}

impl Read for ProgressReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.read = self.read.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        self.bar.set(self.read, self.total);
        Ok(read)
    }
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

fn shown(file: &Path) -> String {
    if is_stdin(file) { "standard input".to_owned() } else { file.display().to_string() }
}

/// The length of a regular file; a pipe has none.
fn length(file: &Path) -> Option<u64> {
    let about = std::fs::metadata(file).ok().filter(|about| about.is_file() && !is_stdin(file));
    about.map(|about| about.len())
}

fn bar(file: &Path) -> Bar {
    match length(file) {
        Some(_) => Bar::bytes("importing"),
        None => Bar::endless_bytes("importing"),
    }
}

fn opened(file: &Path) -> Result<Box<dyn Read>, Failure> {
    if is_stdin(file) { Ok(Box::new(io::stdin())) } else { Ok(Box::new(open_lines(file)?)) }
}

/// Refuses compressed, UTF-16 and list input by its first bytes, before a store is opened or created.
fn source(file: &Path, source: Box<dyn Read>) -> Result<Source, Failure> {
    let shown = shown(file);
    let reader = ProgressReader { source, read: 0, total: length(file).unwrap_or(0), bar: bar(file) };
    let mut source = BufReader::with_capacity(256 << 10, reader);
    let failed = |error| Failure::system(&format!("cannot read {shown}"), &error);
    let first = source.fill_buf().map_err(failed)?;
    if let Some(wrong) = words::unreadable(first) {
        return Err(Failure::usage(format!("{shown}: {wrong}")));
    }
    if words::is_array(first) {
        return Err(Failure::usage(format!("{shown} is a list; a line is an object")).hint(words::ARRAY));
    }
    Ok(source)
}

fn name(import: &Import) -> Result<String, Failure> {
    let named = import.name.clone().or_else(|| match import.file.as_os_str() {
        stdin if stdin == "-" => None,
        _ => import.file.file_name().map(|name| name.to_string_lossy().into_owned()),
    });
    let text = "an import has a name, by which it goes on when it is run again: --name NAME";
    named.ok_or_else(|| Failure::usage(text))
}

/// Opens the file of rejected lines, to append. A stopped import may append its last rejects again.
fn rejects(path: &Path, source: &Path) -> Result<File, Failure> {
    let identity = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    // If both were one file, the import would read each line that it rejects, without end.
    if identity(path).is_some_and(|found| identity(source) == Some(found)) {
        return Err(Failure::usage(format!("{} is what is imported; name another file", path.display())));
    }
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    opened.map_err(|error| Failure::usage(format!("cannot write {}: {error}", path.display())))
}

fn mapping(import: &Import) -> Result<Option<Mapping>, Failure> {
    let Some((entity, kind)) = import.map_entity.clone().zip(import.map_kind.clone()) else {
        return Ok(None);
    };
    let mut mapping = Mapping::new(entity, kind);
    if let Some(scope) = &import.map_scope {
        mapping = mapping.scope(scope);
    }
    mapping = import.map_tag.iter().fold(mapping, |mapping, tag| mapping.tag(tag));
    if let Some(id) = &import.map_id {
        mapping = mapping.id(id);
    }
    if let Some(time) = &import.map_time {
        mapping = mapping.time(time, form(import.map_time_form));
    }
    if let Some(payload) = &import.map_payload {
        mapping = mapping.payload(payload);
    }
    Ok(Some(mapping))
}

fn form(form: TimeForm) -> annals::TimeForm {
    match form {
        TimeForm::Rfc3339 => annals::TimeForm::Rfc3339,
        TimeForm::Seconds => annals::TimeForm::Seconds,
        TimeForm::Millis => annals::TimeForm::Millis,
        TimeForm::Micros => annals::TimeForm::Micros,
    }
}

fn show(imported: &Imported, name: &str, out: &mut Output) -> Result<(), Failure> {
    let Imported { events, appends, lines, lines_before, rejected, reasons, .. } = imported;
    match out.format() {
        Format::Json => out.document(&json!({
            "name": name, "events": events, "appends": appends, "lines": lines,
            "lines_before": lines_before, "rejected": rejected, "reasons": reasons,
        })),
        Format::Plain | Format::Table => out.text(&imported.to_string()),
    }
}
