//! Events as lines of JSON, out and in.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use annals::{ErrorKind, Imported, Mapping, Store};
use serde_json::json;

use crate::append::open_lines;
use crate::args::{Export, Import, TimeForm};
use crate::failure::{Done, Failure};
use crate::interrupt;
use crate::output::{Form, Output};
use crate::place::{self, Place};
use crate::progress::Bar;

/// To standard output, whatever form other commands have.
pub fn export(export: Export, place: &Place) -> Result<Done, Failure> {
    let store = place.to_read()?;
    // Between lines on the same terminal it would only be in the way.
    let bar = if io::stdout().is_terminal() { Bar::hidden() } else { Bar::events("exporting") };
    let lines = store.export(export.filter.query()).after(export.after).on_progress(|progress| {
        let after = progress.after.get();
        let total = progress.head.get().saturating_sub(after);
        bar.set(progress.position.get().saturating_sub(after), total);
        interrupt::hold().go_on = Some(format!("go on with --after {}", progress.position));
        ControlFlow::Continue(())
    });
    let mut out = WholeLines(io::stdout().lock(), None);
    match lines.write_to(&mut out) {
        Ok(_) => Ok(Done::Yes),
        Err(error) => Err(out.1.map_or_else(|| Failure::from(error), |error| Failure::output(&error))),
    }
}

/// Is not interrupted in the middle of what it is given, and keeps what went wrong.
struct WholeLines<W>(W, Option<io::Error>);

impl<W: Write> Write for WholeLines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _whole = interrupt::hold();
        match self.0.write_all(bytes) {
            Ok(()) => Ok(bytes.len()),
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

pub fn import(import: Import, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    let (source, length) = source(&import)?;
    let name = name(&import)?;
    let mapping = mapping(&import)?;
    let store = if import.create { place.to_create()? } else { place.to_write()? };
    let rejects = import.skip_bad.as_deref().map(|path| rejects(path, &import.file)).transpose()?;
    interrupt::hold().go_on = Some("run it again: it goes on behind what went in".to_owned());
    let imported = run(&import, &store, &name, source, mapping, rejects, length)?;
    place::close(store)?;
    show(&imported, &name, out)?;
    Ok(if imported.rejected > 0 { Done::No } else { Done::Yes })
}

fn run(
    import: &Import,
    store: &Store,
    name: &str,
    source: Box<dyn Read>,
    mapping: Option<Mapping>,
    rejects: Option<File>,
    length: Option<u64>,
) -> Result<Imported, Failure> {
    let bar = match length {
        Some(_) => Bar::bytes("importing"),
        None => Bar::endless_bytes("importing"),
    };
    let mut lines = store.import(name, BufReader::with_capacity(256 << 10, source));
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
    let lines = lines.on_progress(|progress| {
        bar.set(progress.bytes, length.unwrap_or(0));
        ControlFlow::Continue(())
    });
    let shown = if import.file.as_os_str() == "-" {
        "standard input".into()
    } else {
        import.file.display().to_string()
    };
    lines.run().map_err(|error| {
        let said = error.to_string();
        let hint = match error.kind() {
            ErrorKind::Invalid if said.contains("that were imported as") => {
                "nothing went in; go on under that name: --name NAME; or have it in twice: --even-if-imported"
            }
            ErrorKind::Invalid
                if said.contains("would come back as") || said.contains("would be rounded") =>
            {
                "what came before it is in; mend the line and run it again, take the nearest float: \
                 --round-numbers, or pass over it: --skip-bad FILE"
            }
            ErrorKind::Invalid | ErrorKind::TooLarge => {
                "what came before it is in; mend the line and run it again, or pass over it: --skip-bad FILE"
            }
            ErrorKind::NoSpace => "what came before it is in; free space and run it again",
            _ => return Failure::from(error),
        };
        Failure::from(error).hint(hint).at(&shown)
    })
}

fn source(import: &Import) -> Result<(Box<dyn Read>, Option<u64>), Failure> {
    if import.file.as_os_str() == "-" {
        return Ok((Box::new(io::stdin()), None));
    }
    let file = open_lines(&import.file)?;
    let about = file.metadata().map_err(|error| Failure::system("cannot look at the source", &error))?;
    let length = about.is_file().then_some(about.len());
    Ok((Box::new(file), length))
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
