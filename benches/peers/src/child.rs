//! Other processes: to die without closing, to have memory of their own, and to be looked at from outside.
//!
//! This program starts itself as `child ACTION PEER DIRECTORY ...`. What a child has to say is one line that
//! begins with `@`, since some peers print lines of their own. By hand, for strace:
//!
//! ```text
//! strace -f -e trace=fdatasync,fsync,write,pwrite64 .../annals-peers child append tephra /tmp/x synced 200
//! ```

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::measure::float;
use crate::peer::{Failure, Look, Opening, Peer};
use crate::peers;
use crate::sample::{Sample, entity};

/// What begins the line that a child answers with.
const MARK: &str = "@";
/// Events that are committed together where a store is filled that has no other way to be fast.
const BATCH: u64 = 100;

/// How the process ends that filled a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Closed,
    Killed,
}

impl End {
    pub fn name(self) -> &'static str {
        match self {
            End::Closed => "closed",
            End::Killed => "killed",
        }
    }
}

/// Does what a child was started for, or says why it could not.
pub fn act(arguments: &[&str]) -> Result<(), Failure> {
    let done = do_as_told(arguments);
    if let Err(failure) = &done {
        say(&json!({ "failure": failure.to_string() }))?;
    }
    done
}

fn do_as_told(arguments: &[&str]) -> Result<(), Failure> {
    match arguments {
        ["fill", peer, directory, size] => {
            fill(peer, directory, size.parse()?)?.close()?;
            say(&json!({}))
        }
        ["fill-and-wait", peer, directory, size] => {
            let store = fill(peer, directory, size.parse()?)?;
            say(&json!({}))?;
            // Waits until the parent kills this process or closes its input.
            io::copy(&mut io::stdin(), &mut io::sink())?;
            drop(store);
            Ok(())
        }
        ["open", peer, directory, size] => open(peer, directory, size.parse()?),
        ["append", peer, directory, opening, events] => append(peer, directory, opening, events.parse()?),
        _ => Err("a child is told: fill | fill-and-wait | open | append, and a peer".into()),
    }
}

/// Fills a new store in a process of its own, which then ends as it is told.
pub fn fill_store(peer: &str, directory: &Path, size: u64, end: End) -> Result<(), Failure> {
    let action = if end == End::Closed { "fill" } else { "fill-and-wait" };
    let mut process = Process::start(&[action, peer, path(directory)?, &size.to_string()])?;
    process.answer()?;
    match end {
        End::Closed => process.finish(),
        End::Killed => process.kill(),
    }
}

/// What opening a store took, in a process of its own.
pub struct Opened {
    pub millis: f64,
    /// By how much the process grew.
    pub resident_bytes: f64,
}

pub fn open_store(peer: &str, directory: &Path, size: u64) -> Result<Opened, Failure> {
    let mut process = Process::start(&["open", peer, path(directory)?, &size.to_string()])?;
    let answer = process.answer()?;
    process.finish()?;
    let figure = |name: &str| answer[name].as_f64().ok_or_else(|| format!("no {name} in {answer}"));
    Ok(Opened { millis: figure("millis")?, resident_bytes: figure("resident_bytes")? })
}

/// One event each append, as most are, with many on their way; that is how an event store lays them out on
/// its disk. Databases, whose trees are the same however the rows came in, commit a hundred at a time.
fn fill(peer: &str, directory: &str, size: u64) -> Result<Box<dyn Peer>, Failure> {
    let store = opened(peer, directory, Opening::Filled)?;
    let sample = Sample::new(entities(size));
    // A borrow of the store must end before it is given away.
    {
        let pipeline = store.pipeline()?;
        match pipeline {
            Some(mut pipeline) => {
                for number in 0..size {
                    let (entity, order) = sample.event(number);
                    pipeline.submit(entity, order)?;
                }
                pipeline.land()?;
            }
            None => {
                for first in (0..size).step_by(usize::try_from(BATCH)?) {
                    store.append_batch(&sample.batch(first, BATCH.min(size - first)))?;
                }
            }
        }
    }
    store.sync()?;
    Ok(store)
}

/// The number of entities, so that each has a thousand events.
pub fn entities(size: u64) -> u64 {
    size.div_ceil(1_000)
}

fn open(peer: &str, directory: &str, size: u64) -> Result<(), Failure> {
    let before = resident_bytes();
    let began = Instant::now();
    let store = opened(peer, directory, Opening::Filled)?;
    let took = began.elapsed();
    let grown = resident_bytes().saturating_sub(before);
    // It is there again, and whole: every entity has a thousand events.
    let last = entity(entities(size) - 1);
    let events = store.stream(&last, Look::Raw)?.map(|tally| tally.events);
    if events != Some(1_000) {
        return Err(format!("{peer} opens, but {last} has {events:?} events").into());
    }
    say(&json!({ "millis": took.as_secs_f64() * 1e3, "resident_bytes": float(grown) }))?;
    store.close()
}

/// Appends single events, so that strace can show the syncs.
fn append(peer: &str, directory: &str, opening: &str, events: u64) -> Result<(), Failure> {
    let opening = match opening {
        "synced" => Opening::Synced,
        "buffered" => Opening::Buffered,
        _ => return Err(format!("{opening} is neither synced nor buffered").into()),
    };
    let store = opened(peer, directory, opening)?;
    let sample = Sample::new(1_000);
    for number in 0..events {
        let (entity, order) = sample.event(number);
        store.append(entity, order)?;
        // So that a trace shows what came before each acknowledgement.
        io::stderr().write_all(b"acknowledged\n")?;
    }
    store.close()
}

fn opened(peer: &str, directory: &str, opening: Opening) -> Result<Box<dyn Peer>, Failure> {
    let kind = peers::named(peer).ok_or_else(|| format!("{peer} is no peer"))?;
    (kind.open)(Path::new(directory), opening)?.ok_or_else(|| format!("{peer} cannot be {opening:?}").into())
}

fn say(answer: &Value) -> Result<(), Failure> {
    let mut out = io::stdout();
    writeln!(out, "{MARK}{answer}")?;
    Ok(out.flush()?)
}

fn path(directory: &Path) -> Result<&str, Failure> {
    Ok(directory.to_str().ok_or("the directory's name is not UTF-8")?)
}

/// What the process has in memory, file mappings included.
fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or_default() << 10
}

/// This program, started as another process.
struct Process {
    child: Child,
    says: BufReader<ChildStdout>,
    _ends: ChildStdin,
}

impl Process {
    fn start(arguments: &[&str]) -> io::Result<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        let command = command.arg("child").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let says = BufReader::new(child.stdout.take().expect("it was piped"));
        let ends = child.stdin.take().expect("it was piped");
        Ok(Process { child, says, _ends: ends })
    }

    fn answer(&mut self) -> Result<Value, Failure> {
        let mut line = String::new();
        while self.says.read_line(&mut line)? > 0 {
            if let Some(answer) = line.strip_prefix(MARK) {
                let answer: Value = serde_json::from_str(answer)?;
                return match answer["failure"].as_str() {
                    None => Ok(answer),
                    Some(failure) => Err(failure.to_owned().into()),
                };
            }
            line.clear();
        }
        Err(format!("a child ended without an answer: {}", self.child.wait()?).into())
    }

    /// Waits until it ends well.
    fn finish(mut self) -> Result<(), Failure> {
        io::copy(&mut self.says, &mut io::sink())?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("a child ended: {status}").into()) }
    }

    /// Ends it with SIGKILL.
    fn kill(mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}
