//! Events as lines of JSON, out and in.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;

use annals::{ErrorKind, Imported, Mapping, Store};
use serde_json::json;

use crate::append::open_lines;
use crate::args::{Export, Import, TimeForm};
use crate::failure::{Done, Failure};
use crate::interrupt;
use crate::output::{Form, Output, counted};
use crate::place::{self, Place};
use crate::progress::Bar;
use crate::words;

/// To standard output, whatever form other commands have.
pub fn export(export: &Export, place: &Place) -> Result<Done, Failure> {
    let store = place.to_read()?;
    // Between lines on the same terminal it would only be in the way.
    let bar = if io::stdout().is_terminal() { Bar::hidden() } else { Bar::events("exporting") };
    let lines = store.export(export.filter.query()).after(export.after).on_progress(|progress| {
        let after = progress.after.get();
        let total = progress.head.get().saturating_sub(after);
        bar.set(progress.position.get().saturating_sub(after), total);
        ControlFlow::Continue(())
    });
    let mut out = WholeLines(io::stdout().lock(), None);
    match lines.write_to(&mut out) {
        Ok(_) => Ok(Done::Yes),
        Err(error) => Err(out.1.map_or_else(|| Failure::from(error), |error| Failure::output(&error))),
    }
}

/// Is given whole appends, and is not interrupted in the middle of them; keeps what went wrong.
struct WholeLines<W>(W, Option<io::Error>);

impl<W: Write> Write for WholeLines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _whole = interrupt::whole();
        match self.0.write_all(bytes) {
            Ok(()) => {
                if let Some(position) = last_position(bytes) {
                    interrupt::rest(format!("go on with --after {position}"));
                }
                Ok(bytes.len())
            }
            Err(error) => {
                let kind = error.kind();
                self.1 = Some(error);
                Err(kind.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The position of the last of some lines, which begin with it.
fn last_position(lines: &[u8]) -> Option<u64> {
    let last = lines.strip_suffix(b"\n")?.rsplit(|byte| *byte == b'\n').next()?;
    let rest = last.strip_prefix(b"{\"position\":")?;
    let digits = rest.split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

pub fn import(import: Import, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    let opened = opened(&import.file)?;
    let name = name(&import)?;
    let mapping = mapping(&import)?;
    if !import.create {
        place.existing()?;
    }
    let bar = Rc::new(bar(&import.file));
    let source = source(&import.file, opened, bar.clone())?;
    let store = if import.create { place.to_create()? } else { place.to_write()? };
    let is_unsynced = place.is_buffered();
    interrupt::note(|now| now.effect.is_unsynced = is_unsynced);
    let rejects = import.skip_bad.as_deref().map(|path| rejects(path, &import.file)).transpose()?;
    interrupt::rest(AGAIN);
    interrupt::breaks_off();
    let imported = run(&import, &store, &name, source, mapping, rejects, &bar);
    let imported = imported.map_err(|error| failed(error, &shown(&import.file)))?;
    if imported.events > 0 || imported.rejected > 0 {
        let events = counted(imported.events, "event is", "events are");
        interrupt::done(format!("{events} in, from {}", counted(imported.lines, "line", "lines")));
        interrupt::rest(AGAIN);
    }
    drop(bar);
    place::close(store)?;
    show(&imported, &name, out)?;
    Ok(if imported.rejected > 0 { Done::No } else { Done::Yes })
}

/// How an import goes on, however it ended.
const AGAIN: &str = "run it again: it goes on behind what went in";

fn run(
    import: &Import,
    store: &Store,
    name: &str,
    source: Source,
    mapping: Option<Mapping>,
    rejects: Option<File>,
    bar: &Bar,
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
    lines.on_progress(|_| bar.asked()).run()
}

/// What went in stays; what to do depends on whether a line is wrong, or the source, or something else.
fn failed(error: annals::Error, shown: &str) -> Failure {
    use std::error::Error as _;
    // What is wrong with a line holds the line's own error.
    let is_of_line = error.source().is_some_and(|cause| cause.is::<annals::Error>());
    let said = error.to_string();
    let is_inexact = said.contains("would come back as") || said.contains("would be rounded");
    let hint = match error.kind() {
        ErrorKind::Invalid if is_of_line && is_inexact => {
            "what came before it is in; mend the line and run it again, take the nearest float: \
             --round-numbers, or pass over it: --skip-bad FILE"
        }
        ErrorKind::Invalid | ErrorKind::TooLarge | ErrorKind::Denied if is_of_line => {
            "what came before it is in; mend the line and run it again, or pass over it: --skip-bad FILE"
        }
        ErrorKind::Invalid if said.contains("that were imported as") => {
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

/// Lines, and a bar that shows how far they are read.
type Source = BufReader<Watched>;

struct Watched {
    source: Box<dyn Read>,
    read: u64,
    total: u64,
    bar: Rc<Bar>,
}

impl Read for Watched {
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

/// The length of a file; a pipe has none.
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
    Ok(match is_stdin(file) {
        true => Box::new(io::stdin()),
        false => Box::new(open_lines(file)?),
    })
}

/// Looks at the first bytes, before a store is opened or made.
fn source(file: &Path, source: Box<dyn Read>, bar: Rc<Bar>) -> Result<Source, Failure> {
    let shown = shown(file);
    let watched = Watched { source, read: 0, total: length(file).unwrap_or(0), bar };
    let mut source = BufReader::with_capacity(256 << 10, watched);
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
    let what = "an import has a name, by which it goes on when it is run again: --name NAME";
    named.ok_or_else(|| Failure::usage(what))
}

/// May have been there: an import that was stopped may reject its last bad lines again.
fn rejects(path: &Path, source: &Path) -> Result<File, Failure> {
    let identity = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    // Each rejected line would be read, and rejected, again.
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
    match out.form() {
        Form::Json => out.document(&json!({
            "name": name, "events": events, "appends": appends, "lines": lines,
            "lines_before": lines_before, "rejected": rejected, "reasons": reasons,
        })),
        Form::Plain | Form::Table => out.text(&imported.to_string()),
    }
}
