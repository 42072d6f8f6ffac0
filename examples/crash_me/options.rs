//! The command line and the environment.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

pub const USAGE: &str = "\
usage: ANNALS_DIR=<directory> crash_me [options]
       ANNALS_DIR=<directory> crash_me --check    proves the `ack` lines on standard input
       ANNALS_DIR=<directory> crash_me --dump     prints `position id chain` of every event, verifies

  --threads N       appending threads, each with an entity of its own (4)
  --batch N         events in an append (1)
  --payload BYTES   size of a payload, at least 20 (100)
  --segment BYTES   where a segment ends and the next begins (as annals does)
  --buffered        acknowledged after the write, not after the sync
  --count N         ends with a clean close after N acknowledged events (until it is killed)
  --errors N        ends after N refused appends (1000)
  --wait SECONDS    how long to wait for another process to close the store (0)
";

pub struct Options {
    pub directory: PathBuf,
    pub job: Job,
    pub threads: u32,
    pub batch: u32,
    pub payload_bytes: u32,
    pub segment_bytes: Option<u32>,
    pub is_buffered: bool,
    pub count: Option<u64>,
    pub errors: u64,
    pub wait: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Job {
    Append,
    Check,
    Dump,
}

impl Options {
    /// `None` if only help was asked for; the error says what is wrong.
    pub fn from_command_line() -> Result<Option<Options>, String> {
        let mut options = Options {
            directory: std::env::var_os("ANNALS_DIR").unwrap_or_default().into(),
            job: Job::Append,
            threads: 4,
            batch: 1,
            payload_bytes: 100,
            segment_bytes: None,
            is_buffered: false,
            count: None,
            errors: 1000,
            wait: Duration::ZERO,
        };
        let mut arguments = std::env::args_os().skip(1);
        while let Some(argument) = arguments.next() {
            if argument == "--help" {
                return Ok(None);
            }
            options.take(&argument.to_string_lossy(), &mut arguments)?;
        }
        if options.directory.as_os_str().is_empty() {
            return Err("ANNALS_DIR names no store".to_owned());
        }
        Ok(Some(options))
    }

    fn take(&mut self, name: &str, rest: &mut impl Iterator<Item = OsString>) -> Result<(), String> {
        match name {
            "--threads" => self.threads = at_least_one(name, rest)?,
            "--batch" => self.batch = at_least_one(name, rest)?,
            "--payload" => self.payload_bytes = number(name, rest)?,
            "--segment" => self.segment_bytes = Some(number(name, rest)?),
            "--buffered" => self.is_buffered = true,
            "--count" => self.count = Some(number(name, rest)?),
            "--errors" => self.errors = number::<u64>(name, rest)?.max(1),
            "--wait" => self.wait = Duration::from_secs(number::<u32>(name, rest)?.into()),
            "--check" => self.set_job(Job::Check)?,
            "--dump" => self.set_job(Job::Dump)?,
            unknown => return Err(format!("unknown option {unknown}")),
        }
        Ok(())
    }

    fn set_job(&mut self, job: Job) -> Result<(), String> {
        if self.job != Job::Append && self.job != job {
            return Err("--check and --dump exclude each other".to_owned());
        }
        self.job = job;
        Ok(())
    }
}

fn at_least_one(name: &str, rest: &mut impl Iterator<Item = OsString>) -> Result<u32, String> {
    match number(name, rest)? {
        0 => Err(format!("{name} must be at least 1")),
        number => Ok(number),
    }
}

fn number<N: FromStr>(name: &str, rest: &mut impl Iterator<Item = OsString>) -> Result<N, String> {
    let value = rest.next().ok_or_else(|| format!("{name} needs a number"))?;
    value.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| {
        let value = value.display();
        format!("{name} {value} is no number, or too large")
    })
}
