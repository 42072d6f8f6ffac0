//! How long opening takes: after a clean close, and after kill -9.
//!
//! Every measurement has a store and two processes of its own. The first fills the store with
//! `--size` events and makes them durable; then it either closes it, or waits idle and is killed
//! with SIGKILL. The second opens it, so that nothing but opening is in its time and memory. The
//! page cache is warm; what was not durable in it is read again from the device.
//!
//! `after-kill-9/64-MiB` is a full segment, synced every thousand events, by a process that then does nothing
//! for two seconds. In these it writes the index of what is durable. `after-kill-9/64-MiB/at-once` does not
//! wait, so its index is as old as one is under load.
//!
//! What opening costs by the number of segments is measured on stores of one event a segment, closed cleanly.
//! They are made in memory and copied, once for all rounds; each measurement is the median of a few
//! processes.
//!
//! `cargo bench --bench open -- --help` names the options.

mod support;

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use annals::disk::{Access, Disk, MemDisk};
use annals::{Raw, Store};
use serde_json::{Value, json};
use support::options::{Options, Scale};
use support::place::Place;
use support::report::{Column, Figures};
use support::rounds::{Bench, Cell, Measured, run};
use support::sample::{Sample, open_buffered};
use support::{Failure, float};

const BENCH: Bench = Bench {
    name: "open",
    columns: &[
        Column { figure: "open_ms", title: "open ms" },
        Column { figure: "resident_bytes_per_event", title: "resident bytes/event" },
        Column { figure: "bytes_read", title: "bytes read" },
        Column { figure: "segments", title: "segments" },
    ],
};

/// How the filling process ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Killed,
}

/// What a child process is told to do: the first argument, then the store's directory.
const FILL_AND_CLOSE: &str = "--fill-and-close";
const FILL_AND_WAIT: &str = "--fill-and-wait";
const FILL_SEGMENT_AND_WAIT: &str = "--fill-segment-and-wait";
const OPEN: &str = "--open";

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [FILL_AND_CLOSE, directory, events] => Ok(fill(directory, events)?.close()?),
        [FILL_AND_WAIT, directory, events] => wait_for_the_end(fill(directory, events)?),
        [FILL_SEGMENT_AND_WAIT, directory, mebibytes, idle] => {
            let store = fill_segment(directory, mebibytes)?;
            std::thread::sleep(Duration::from_secs(idle.parse()?));
            wait_for_the_end(store)
        }
        [OPEN, directory] => open(directory),
        _ => measure_all(&Options::from_command_line()),
    }
}

fn measure_all(options: &Options) -> Result<(), Failure> {
    let place = Place::new(&options.directory, BENCH.name)?;
    let cells = [("after-close", End::Closed), ("after-kill-9", End::Killed)];
    let ends = cells.map(|(name, end)| cell(name, end, options, &place));
    let segments = match options.scale {
        Scale::Bench => [1, 100, 10_000],
        Scale::Smoke => [1, 10, 100],
    };
    let segments = segments.map(|segments| cell_of_segments(segments, &place));
    let open_segments = match options.scale {
        Scale::Bench => vec![(1, IDLE), (16, IDLE), (64, IDLE), (64, 0)],
        Scale::Smoke => vec![(1, 0)],
    };
    let open_segments =
        open_segments.into_iter().map(|(mebibytes, idle)| cell_of_open(mebibytes, idle, &place));
    run(&BENCH, options, &place, ends.into_iter().chain(open_segments).chain(segments).collect())
}

/// How many seconds a process does nothing before it is killed.
const IDLE: u64 = 2;

fn cell_of_open(mebibytes: u64, idle: u64, place: &Place) -> Cell<'_> {
    let is_idle = if idle == 0 { "/at-once" } else { "" };
    Cell {
        name: format!("after-kill-9/{mebibytes}-MiB{is_idle}"),
        parameters: serde_json::Map::from_iter([("size_mebibytes".to_owned(), mebibytes.into())]),
        goal: None,
        is_durable: false,
        measure: Box::new(move || measure_open(place, mebibytes, idle)),
    }
}

/// Fills a segment of so many MiB, kills its process, and lets another one open it.
fn measure_open(place: &Place, mebibytes: u64, idle: u64) -> Result<Measured, Failure> {
    let directory = place.store("store");
    let path = directory.to_str().ok_or("the directory's name is not UTF-8")?;
    let filling = [FILL_SEGMENT_AND_WAIT, path, &mebibytes.to_string(), &idle.to_string()];
    let events = Process::start(&filling)?.kill_when_ready()?;
    let opened = Process::start(&[OPEN, path])?.finish()?;
    let measured = Opened(serde_json::from_str(&opened)?).measured(events)?;
    place.clear(&directory)?;
    Ok(measured)
}

fn cell_of_segments(segments: u64, place: &Place) -> Cell<'_> {
    Cell {
        name: format!("segments/{segments}"),
        parameters: serde_json::Map::from_iter([("size_segments".to_owned(), segments.into())]),
        goal: None,
        is_durable: false,
        measure: Box::new(move || measure_segments(place, segments)),
    }
}

/// Opens a store of `segments` segments in a few processes, one after the other, and returns the median.
fn measure_segments(place: &Place, segments: u64) -> Result<Measured, Failure> {
    const PROCESSES: usize = 9;
    let directory = place.store(&format!("segments/{segments}"));
    if !directory.exists() {
        write_segments(&directory, segments)?;
    }
    let path = directory.to_str().ok_or("the directory's name is not UTF-8")?;
    let mut opened = Vec::new();
    for _ in 0..PROCESSES {
        let said = Process::start(&[OPEN, path])?.finish()?;
        opened.push(Opened(serde_json::from_str(&said)?).measured(segments)?);
    }
    let time = |measured: &Measured| measured.figures.first().map_or(0.0, |(_, milliseconds)| *milliseconds);
    opened.sort_by(|one, other| time(one).total_cmp(&time(other)));
    Ok(opened.swap_remove(PROCESSES / 2))
}

/// A closed store of one event a segment. On a disk each of them would cost several syncs.
fn write_segments(directory: &Path, segments: u64) -> Result<(), Failure> {
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).segment_bytes_max(0).open()?;
    for number in 0..segments {
        store.append(format!("sensor:{}", number % 100), &Raw("sensor.read", &number))?;
    }
    store.close()?;
    for part in ["", "segments"] {
        DirBuilder::new().mode(0o700).recursive(true).create(directory.join(part))?;
        for name in disk.list(part)?.iter().filter(|name| *name != "segments") {
            let from = disk.open(Path::new(part).join(name).to_str().ok_or("no UTF-8")?, Access::Read)?;
            let mut bytes = vec![0; usize::try_from(from.length()?)?];
            from.read_at(&mut bytes, 0)?;
            let mut options = OpenOptions::new();
            let mut to =
                options.write(true).create_new(true).mode(0o600).open(directory.join(part).join(name))?;
            to.write_all(&bytes)?;
        }
    }
    Ok(())
}

fn cell<'a>(name: &str, end: End, options: &'a Options, place: &'a Place) -> Cell<'a> {
    Cell {
        name: name.to_owned(),
        parameters: serde_json::Map::from_iter([("size_events".to_owned(), options.events.into())]),
        goal: None,
        is_durable: false,
        measure: Box::new(move || measure(place, options.events, end)),
    }
}

/// Fills a store, ends its process, and lets another one open it.
fn measure(place: &Place, events: u64, end: End) -> Result<Measured, Failure> {
    let directory = place.store("store");
    let path = directory.to_str().ok_or("the directory's name is not UTF-8")?;
    match end {
        End::Closed => drop(Process::start(&[FILL_AND_CLOSE, path, &events.to_string()])?.finish()?),
        End::Killed => drop(Process::start(&[FILL_AND_WAIT, path, &events.to_string()])?.kill_when_ready()?),
    }
    let opened = Process::start(&[OPEN, path])?.finish()?;
    let measured = Opened(serde_json::from_str(&opened)?).measured(events)?;
    place.clear(&directory)?;
    Ok(measured)
}

/// This program, started as another process.
struct Process {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Process {
    fn start(arguments: &[&str]) -> io::Result<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        let command = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let says = BufReader::new(child.stdout.take().expect("it was piped"));
        Ok(Process { child, says })
    }

    /// Waits until it ends well, and gives what it said.
    fn finish(mut self) -> Result<String, Failure> {
        let said = io::read_to_string(&mut self.says)?;
        let status = self.child.wait()?;
        if status.success() { Ok(said) } else { Err(format!("a child ended: {status}").into()) }
    }

    /// Waits for its first line, then kills it with SIGKILL. Returns how many events it has appended.
    fn kill_when_ready(mut self) -> Result<u64, Failure> {
        let mut line = String::new();
        self.says.read_line(&mut line)?;
        self.child.kill()?;
        let status = self.child.wait()?;
        let events = line.strip_prefix(READY).and_then(|events| events.trim().parse().ok());
        events.ok_or_else(|| format!("a child did not get ready: {status}").into())
    }
}

/// What a filling process says before it waits to be killed. The number of events follows.
const READY: &str = "ready ";

fn fill(directory: &str, events: &str) -> Result<Store, Failure> {
    let store = open_buffered(Path::new(directory))?;
    Sample::new().fill(&store, events.parse()?)?;
    Ok(store)
}

/// Fills one segment, nearly up to so many MiB, and makes every thousand events durable.
fn fill_segment(directory: &str, mebibytes: &str) -> Result<Store, Failure> {
    /// More than a thousand events take. The segment must not be sealed.
    const MARGIN_BYTES: u64 = 512 << 10;
    let store = open_buffered(Path::new(directory))?;
    let sample = Sample::new();
    let bytes = mebibytes.parse::<u64>()? << 20;
    let mut number = 0;
    while store.stats().bytes + MARGIN_BYTES < bytes {
        for _ in 0..1000 {
            sample.append(number).commit(&store)?;
            number += 1;
        }
        store.sync()?;
    }
    Ok(store)
}

/// Waits with the store open, until the parent kills this process or closes its input.
fn wait_for_the_end(store: Store) -> Result<(), Failure> {
    println!("{READY}{}", store.stats().events);
    io::Write::flush(&mut io::stdout())?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    drop(store);
    Ok(())
}

/// Opens a store in this fresh process, and says what that took.
fn open(directory: &str) -> Result<(), Failure> {
    let before = resident_bytes();
    let began = Instant::now();
    let store = Store::open(directory)?;
    let took = began.elapsed();
    let report = store.open_report();
    let said = json!({
        "open_ms": took.as_secs_f64() * 1e3,
        "resident_bytes": resident_bytes().saturating_sub(before),
        "events": report.events,
        "is_clean": report.clean,
        "bytes_read": report.bytes_read,
        "segments": report.segments,
        "report": report.to_string(),
    });
    println!("{said}");
    Ok(store.close()?)
}

/// What the opening process said.
struct Opened(Value);

impl Opened {
    fn measured(&self, events: u64) -> Result<Measured, Failure> {
        assert_eq!(self.0["events"], events, "everything is there");
        let figures: Figures = vec![
            ("open_ms", self.figure("open_ms")?),
            ("resident_bytes_per_event", self.figure("resident_bytes")? / float(events)),
            ("bytes_read", self.figure("bytes_read")?),
            ("segments", self.figure("segments")?),
        ];
        Ok(Measured { figures, note: self.0["report"].as_str().map(str::to_owned) })
    }

    fn figure(&self, name: &str) -> Result<f64, Failure> {
        self.0[name].as_f64().ok_or_else(|| format!("the child did not say {name}").into())
    }
}

/// This process's memory that is not swapped out; 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    kilobytes.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or_default() * 1024
}
