//! Maintenance beside appends: its speed, the time of appends beside it, and the memory of the process.
//!
//! Every cell has a new store of `--size` events of 1,000 streams, in segments of 16 MiB; of 64 MiB, the
//! default, for copies. The "alone" cells are the appending threads for `--seconds`. The other cells are the
//! same threads beside one operation, until it is done. "retain" removes all but the newest ten events of
//! each stream, "tombstones" takes the payloads of the same, "merge" makes large segments of small ones.
//! "backup" copies every segment to another directory, and "copy" does what `cp` and a sync do, to compare
//! that with.
//!
//! `cargo bench --bench maintain -- --help` names the options.

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use annals::{Error, GroupBy, Store};
use serde_json::{Map, Value, json};
use support::latency::Latency;
use support::options::Options;
use support::place::Place;
use support::report::{Column, Figures};
use support::rounds::{Bench, Cell, Measured, run};
use support::sample::{Sample, buffered};
use support::{Failure, float};

const BENCH: Bench = Bench {
    name: "maintain",
    columns: &[
        Column { figure: "events_per_s", title: "events/s" },
        Column { figure: "mib_per_s", title: "MiB/s" },
        Column { figure: "appends_per_s", title: "appends/s" },
        Column { figure: "p50_us", title: "append p50 us" },
        Column { figure: "p99_us", title: "append p99 us" },
        Column { figure: "max_us", title: "append max us" },
        Column { figure: "memory_mib", title: "memory MiB" },
    ],
};

const KEPT: u64 = 10;

/// What is done beside the appends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Alone,
    Retain,
    Tombstones,
    Merge,
    Backup,
    Copy,
}

const WORKS: [Work; 6] = [Work::Alone, Work::Retain, Work::Tombstones, Work::Merge, Work::Backup, Work::Copy];

fn main() -> Result<(), Failure> {
    let options = Options::from_command_line();
    let place = Place::new(&options.directory, BENCH.name)?;
    let sample = Sample::new();
    let mut cells = Vec::new();
    for threads in [0, 8, 32] {
        for work in WORKS {
            if threads > 0 || work != Work::Alone {
                cells.push(cell(work, threads, &options, &place, &sample));
            }
        }
    }
    run(&BENCH, &options, &place, cells)
}

fn cell<'a>(
    work: Work,
    threads: u32,
    options: &'a Options,
    place: &'a Place,
    sample: &'a Sample,
) -> Cell<'a> {
    let name = format!("{}/appenders-{threads}", work.name());
    let parameters = json!({ "appenders": threads, "events": options.events });
    let Value::Object(parameters) = parameters else { unreachable!("it is an object") };
    Cell {
        name: name.clone(),
        parameters: Map::from_iter(parameters),
        goal: None,
        is_durable: true,
        measure: Box::new(move || {
            let directory = place.store(&name);
            let filling = Store::builder(&directory).durability(buffered());
            let filling = filling.segment_bytes_max(work.segment_bytes()).open()?;
            sample.fill(&filling, options.events)?;
            filling.close()?;
            let store = Store::open(&directory)?;
            let figures = measure(work, threads, options, (&store, &directory), sample)?;
            store.close()?;
            for made in [beside(&directory), directory].iter().filter(|made| made.exists()) {
                place.clear(made)?;
            }
            Ok(Measured::from(figures))
        }),
    }
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Work::Alone => "alone",
            Work::Retain => "retain",
            Work::Tombstones => "tombstones",
            Work::Merge => "merge",
            Work::Backup => "backup",
            Work::Copy => "copy",
        }
    }

    /// Copies are made of segments as they are by default; what is merged must be small.
    fn segment_bytes(self) -> u32 {
        match self {
            Work::Backup | Work::Copy => 64 << 20,
            Work::Alone | Work::Retain | Work::Tombstones | Work::Merge => 16 << 20,
        }
    }

    /// Does it, and says how many bytes it went through.
    fn run(self, store: &Store, directory: &Path, time: Duration) -> Result<u64, Failure> {
        let compaction = store.compaction("a bench");
        let compaction = match self {
            Work::Alone => {
                thread::sleep(time);
                return Ok(0);
            }
            Work::Backup => {
                let done = store.backup(beside(directory)).without_sharing().run()?;
                return Ok(done.bytes_copied);
            }
            Work::Copy => return copy(directory, &beside(directory)),
            Work::Retain => compaction.keep_newest(KEPT, GroupBy::Entity),
            Work::Tombstones => compaction.keep_newest(KEPT, GroupBy::Entity).tombstones(),
            Work::Merge => compaction.merge(),
        };
        Ok(compaction.run()?.bytes_before)
    }
}

/// Where a copy goes.
fn beside(directory: &Path) -> PathBuf {
    directory.with_extension("copy")
}

/// Copies the segments that are there one by one, and syncs each.
fn copy(from: &Path, to: &Path) -> Result<u64, Failure> {
    fs::create_dir_all(to)?;
    let mut bytes = 0;
    for entry in fs::read_dir(from.join("segments"))? {
        let target = to.join(entry?.file_name());
        bytes += fs::copy(from.join("segments").join(target.file_name().expect("it has one")), &target)?;
        File::open(&target)?.sync_all()?;
    }
    Ok(bytes)
}

fn measure(
    work: Work,
    threads: u32,
    options: &Options,
    (store, directory): (&Store, &Path),
    sample: &Sample,
) -> Result<Figures, Failure> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let appenders: Vec<_> = (0..threads)
            .map(|number| {
                let is_over = &is_over;
                scope.spawn(move || append(number, is_over, store, sample))
            })
            .collect();
        let began = Instant::now();
        let done = work.run(store, directory, options.time);
        let took = began.elapsed();
        is_over.store(true, Ordering::Relaxed);
        let mut latency = Latency::new();
        for appender in appenders {
            latency.add(&appender.join().expect("an appender does not panic")?);
        }
        let mut figures = vec![("memory_mib", memory_mib()?)];
        let bytes = done?;
        if bytes > 0 {
            figures.push(("events_per_s", float(options.events) / took.as_secs_f64()));
            figures.push(("mib_per_s", float(bytes) / f64::from(1 << 20) / took.as_secs_f64()));
        }
        if threads > 0 {
            figures.push(("appends_per_s", float(latency.count()) / took.as_secs_f64()));
            figures.extend(latency.figures());
        }
        Ok(figures)
    })
}

/// Appends one event after the other until it is over.
fn append(number: u32, is_over: &AtomicBool, store: &Store, sample: &Sample) -> Result<Latency, Error> {
    let mut latency = Latency::new();
    for append in (u64::from(number)..).step_by(32).map(|number| sample.append(number)) {
        let before = Instant::now();
        append.commit(store)?;
        latency.record(before.elapsed().max(Duration::from_nanos(1)));
        if is_over.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(latency)
}

/// What the process has in memory just now; 0 where that is not known.
fn memory_mib() -> Result<f64, Failure> {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return Ok(0.0) };
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = kib.and_then(|line| line.split_whitespace().next()).unwrap_or("0").parse()?;
    Ok(float(kib) / 1024.0)
}
