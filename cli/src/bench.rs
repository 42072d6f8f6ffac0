//! `annals bench`: measures syncs, appends, replay and opening, in a temporary directory beside the store.

use std::fs::{self, DirBuilder, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use annals::{Append, Query, Raw, Store};
use serde::Serialize;

use crate::args::Bench;
use crate::failure::{Answer, Failure};
use crate::interrupt;
use crate::output::Output;
use crate::target::Target;

#[derive(Serialize)]
struct Measurement {
    what: &'static str,
    per_second: u64,
    p50_micros: Option<u64>,
    p99_micros: Option<u64>,
}

impl Measurement {
    const HEADS: [&str; 4] = ["measured", "a second", "p50 us", "p99 us"];

    fn cells(&self) -> Vec<String> {
        let Measurement { what, per_second, p50_micros, p99_micros } = self;
        let micros = |micros: &Option<u64>| micros.map_or_else(String::new, |micros| micros.to_string());
        vec![(*what).to_owned(), per_second.to_string(), micros(p50_micros), micros(p99_micros)]
    }
}

/// Threads that append at once.
const THREADS: u64 = 32;
/// Events of one append, in the measurement of large appends.
const BATCH: u64 = 100;

pub fn bench(bench: Bench, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    let scratch = ScratchDirectory::beside(&target.path()?)?;
    let payload = "x".repeat(usize::try_from(bench.payload).expect("a u32 fits"));
    let mut all = vec![sync(&scratch.0, bench.time)?];
    let store = Store::open(scratch.0.join("store"))?;
    all.push(appends("durable appends, 1 thread", &store, bench.time, 1, 1, &payload)?);
    all.push(appends("durable appends, 32 threads", &store, bench.time, THREADS, 1, &payload)?);
    all.push(appends("durable events, 100 an append", &store, bench.time, 1, BATCH, &payload)?);
    all.push(replay(&store)?);
    store.close()?;
    all.push(open(&scratch.0.join("store"))?);
    drop(scratch);
    out.list(&Measurement::HEADS, all.into_iter().map(Ok), Measurement::cells)?;
    Ok(Answer::Yes)
}

/// A directory that is removed on drop, and by the signal thread if the command is stopped.
struct ScratchDirectory(PathBuf);

impl ScratchDirectory {
    fn beside(store: &Path) -> Result<ScratchDirectory, Failure> {
        // Canonical, because "." and ".." have no parent by name. A store that does not exist yet keeps its path.
        let store = store.canonicalize().unwrap_or_else(|_| store.to_owned());
        let parent = store.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let path = parent.join(format!(".annals-bench-{}", std::process::id()));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| Failure::system(&format!("cannot make {}", path.display()), &error))?;
        interrupt::note(|plan| plan.remove = Some(path.clone()));
        Ok(ScratchDirectory(path))
    }
}

impl Drop for ScratchDirectory {
    fn drop(&mut self) {
        let _section = interrupt::critical_section();
        interrupt::note(|plan| plan.remove = None);
        // A directory that stays is harmless: it holds measurements only.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Measures a sync of 256 bytes written over existing zeros, as an append to a preallocated segment is.
fn sync(directory: &Path, time: Duration) -> Result<Measurement, Failure> {
    let failed = |error| Failure::system("cannot measure a sync", &error);
    let mut file = File::create(directory.join("sync")).map_err(failed)?;
    file.write_all(&vec![0; 4 << 20]).and_then(|()| file.sync_all()).map_err(failed)?;
    let mut times = Vec::new();
    let mut offset = 0_u64;
    let start = Instant::now();
    while times.is_empty() || start.elapsed() < time {
        let began = Instant::now();
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        file.write_all(&[1; 256]).and_then(|()| file.sync_data()).map_err(failed)?;
        times.push(began.elapsed());
        offset = (offset + 256) % (4 << 20);
    }
    Ok(measurement("fdatasync of 256 bytes", start.elapsed(), times, 1))
}

fn appends(
    what: &'static str,
    store: &Store,
    time: Duration,
    threads: u64,
    batch: u64,
    payload: &str,
) -> Result<Measurement, Failure> {
    let start = Instant::now();
    // At least one append a thread: on a busy machine a thread may start when the time is over.
    let append_until = |thread: u64| {
        let mut times = Vec::new();
        while times.is_empty() || start.elapsed() < time {
            let began = Instant::now();
            let append = Append::to(format!("bench:{thread}"));
            (0..batch)
                .fold(append, |append, _| append.event(&Raw("bench.appended", payload)))
                .commit(store)?;
            times.push(began.elapsed());
        }
        Ok::<_, annals::Error>(times)
    };
    let workers = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || append_until(thread))).collect();
        workers.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let took = start.elapsed();
    let mut all = Vec::new();
    for worker in workers {
        match worker {
            Ok(times) => all.extend(times?),
            Err(_) => {
                return Err(Failure::system("measuring failed", &std::io::Error::other("a thread panicked")));
            }
        }
    }
    Ok(measurement(what, took, all, batch))
}

fn replay(store: &Store) -> Result<Measurement, Failure> {
    let began = Instant::now();
    let mut events = 0_u64;
    for event in store.read(Query::all()) {
        event?;
        events += 1;
    }
    let per_second = per_second(events, began.elapsed());
    Ok(Measurement { what: "events replayed, checked", per_second, p50_micros: None, p99_micros: None })
}

fn open(store: &Path) -> Result<Measurement, Failure> {
    const TIMES: usize = 20;
    let began = Instant::now();
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let began = Instant::now();
        let opened = Store::open(store)?;
        times.push(began.elapsed());
        opened.close()?;
    }
    Ok(measurement("opening, after a clean close", began.elapsed(), times, 1))
}

fn measurement(what: &'static str, took: Duration, mut times: Vec<Duration>, each: u64) -> Measurement {
    times.sort_unstable();
    let at = |percent: usize| {
        let time = times.get(times.len() * percent / 100).or(times.last())?;
        u64::try_from(time.as_micros()).ok()
    };
    let count = u64::try_from(times.len()).unwrap_or(u64::MAX).saturating_mul(each);
    Measurement { what, per_second: per_second(count, took), p50_micros: at(50), p99_micros: at(99) }
}

fn per_second(count: u64, took: Duration) -> u64 {
    let nanos = took.as_nanos().max(1);
    u64::try_from(u128::from(count) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
}
