//! Streams the history of a git repository into a store, and answers questions from it.
//!
//! ```text
//! cargo run --release --example git_history -- [repository]      default: this directory
//! ```
//!
//! `ANNALS_DIR` names the store. By default each repository has one in the temporary directory of the system.
//!
//! | in git | in the store |
//! |---|---|
//! | file | entity: its path (names.rs escapes odd bytes) |
//! | top folder | scope; `/` for files outside any folder |
//! | change | event: `file.added`, `file.modified`, `file.deleted`, `file.renamed` |
//! | rename, same content | `file.renamed` at the new path, `file.deleted` at the old; each names the other |
//! | commit | one atomic append; its hash is the key, the first 16 bytes of it the correlation |
//! | commit time | occurred-at |
//! | author | tag |
//! | change before | cause: the previous event of the stream, if there is one |
//!
//! Merges are left out: the merged commits hold the changes. A second run finds every key and appends
//! nothing. A commit that is too large for one append (65,535 events, 16 MiB) is halved until its parts fit.
//!
//! What to learn: several entities in one append, tickets in flight, keys, queries (answers.rs).

mod answers;
mod history;
mod import;
mod names;
mod progress;

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use annals::{KeyWindow, Store};

use crate::history::History;
use crate::import::Imported;
use crate::progress::Progress;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let repository = PathBuf::from(arguments.next().unwrap_or_else(|| ".".into()));
    if arguments.next().is_some() || repository.to_string_lossy().starts_with('-') {
        eprintln!("usage: git_history [repository]      ANNALS_DIR names the store");
        return ExitCode::from(2);
    }
    match run(&repository) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(error.as_ref()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("git_history: {error}");
            ExitCode::FAILURE
        }
    }
}

/// True if the reader of the output has closed the pipe.
fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn run(repository: &Path) -> Outcome<()> {
    let mut out = io::stdout().lock();
    let mut phases = Phases::default();

    let history =
        phases.time("read git log", || History::read(repository, Progress::new("bytes of git log", None)))?;
    let commits = phases.time("parse it", || history.commits())?;
    writeln!(out, "repository  {}", history.repository().display())?;
    let directory = store_directory(history.repository());
    writeln!(out, "store       {}", directory.display())?;

    let store = phases
        .time("open the store", || Store::builder(&directory).key_window(KeyWindow::Unlimited).open())?;
    writeln!(out, "opened      {}", store.open_report())?;
    let progress = Progress::new("commits", Some(commits.len()));
    let imported = phases.time("append", || import::append_all(&store, &commits, progress))?;
    print_import(&mut out, &store, &imported, phases.last())?;

    phases.time("answer by reading back", || answers::print(&mut out, &store))?;

    let report = phases.time("verify", || store.verify())?;
    writeln!(out, "\nverified    {report}")?;
    writeln!(out, "head        {}", store.head()?)?;
    phases.time("close the store", || store.close())?;
    writeln!(out, "\n{phases}")?;
    if report.is_clean() { Ok(()) } else { Err("the store is damaged".into()) }
}

/// `ANNALS_DIR`, or a directory named after the repository's path.
fn store_directory(repository: &Path) -> PathBuf {
    if let Some(directory) = std::env::var_os("ANNALS_DIR").filter(|name| !name.is_empty()) {
        return directory.into();
    }
    let path = repository.to_string_lossy().replace(|c: char| !c.is_alphanumeric(), "-");
    std::env::temp_dir().join(names::path(format!("annals-git-history{path}").as_bytes(), 200))
}

fn print_import(out: &mut impl Write, store: &Store, imported: &Imported, took: Duration) -> Outcome<()> {
    writeln!(out, "history     {imported}")?;
    let events = imported.events;
    let stats = store.stats();
    if events == 0 {
        let why =
            if imported.known > 0 { ": all of them were there already, known by their keys" } else { "" };
        writeln!(out, "appended    0 events{why}")?;
    } else {
        let rate = events as f64 / took.as_secs_f64();
        let appends = imported.appends;
        writeln!(
            out,
            "appended    {events} events in {appends} appends, all durable, in {took:.2?}: {rate:.0} events/s"
        )?;
        writeln!(
            out,
            "            {} syncs, median {:.1?}; {:.0} events per group; up to {} appends in flight",
            stats.syncs,
            stats.sync_p50,
            stats.events_per_group(),
            import::IN_FLIGHT
        )?;
    }
    if let Some(per_event) = stats.bytes.checked_div(stats.events) {
        let (events, files, bytes) = (stats.events, stats.entities, stats.bytes);
        writeln!(
            out,
            "stored      {events} events of {files} files in {bytes} bytes: {per_event} bytes per event"
        )?;
    }
    Ok(())
}

/// How long each phase took.
#[derive(Default)]
struct Phases(Vec<(&'static str, Duration)>);

impl Phases {
    fn time<T>(&mut self, phase: &'static str, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = work();
        self.0.push((phase, started.elapsed()));
        result
    }

    fn last(&self) -> Duration {
        self.0.last().map_or(Duration::ZERO, |(_, took)| *took)
    }
}

impl fmt::Display for Phases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("time")?;
        for (phase, took) in &self.0 {
            write!(f, "\n  {phase:<24}{:>9.3} s", took.as_secs_f64())?;
        }
        Ok(())
    }
}
