//! The driver for black-box tests: appends until it is killed. A second run proves every acknowledged event.
//!
//! Kill it, cut its power, fill its disk, let its writes fail: every line `ack <position>` that it printed
//! must still hold. `cargo run --example crash_me -- --help` lists the options.
//!
//! It prints without a buffer. The lines of an append go out in one write, after its acknowledgement.
//!
//! ```text
//! ack <position>          this event is acknowledged
//! err <kind> <message>    this append was refused; the next one follows
//! ```
//!
//! | exit code | means |
//! |---|---|
//! | 0 | fine; also if the reader of standard output is gone |
//! | 1 | an acknowledged event is missing or wrong |
//! | 2 | the store refuses to open or to close, or reports damage; standard error says what |
//! | 3 | usage |

mod check;
mod load;
mod options;
mod payload;

use std::io::{ErrorKind::BrokenPipe, Write};
use std::process::ExitCode;
use std::time::Duration;

use annals::{Durability, Error, Store};

use crate::check::Verdict;
use crate::load::Load;
use crate::options::{Job, Options, USAGE};

const FINE: u8 = 0;
const LOST: u8 = 1;
const REFUSED: u8 = 2;
const WRONG_USAGE: u8 = 3;

/// How long buffered events stay unsynced.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let options = match Options::from_command_line() {
        Ok(Some(options)) => options,
        Ok(None) => {
            let _ = write!(std::io::stdout(), "{USAGE}");
            return FINE.into();
        }
        Err(what) => {
            say(&format!("{what}\n{USAGE}"));
            return WRONG_USAGE.into();
        }
    };
    match run(options) {
        Ok(code) => code.into(),
        Err(error) => {
            say(&format!("{error:?}"));
            REFUSED.into()
        }
    }
}

fn run(options: Options) -> Result<u8, Error> {
    let store = open(&options)?;
    say(&store.open_report().to_string());
    let verdict = match options.job {
        Job::Append => return append(store, options),
        Job::Check => check::check(&store, std::io::stdin().lock())?,
        Job::Dump => check::dump(&store)?,
    };
    store.close()?;
    say(verdict.text());
    Ok(match verdict {
        Verdict::Fine(_) => FINE,
        Verdict::Lost(_) => LOST,
        Verdict::Damaged(_) => REFUSED,
    })
}

fn open(options: &Options) -> Result<Store, Error> {
    let mut builder = Store::builder(&options.directory);
    if let Some(bytes) = options.segment_bytes {
        builder = builder.segment_bytes_max(bytes);
    }
    if options.is_buffered {
        builder = builder.durability(Durability::Buffered { flush_every: FLUSH_EVERY });
    }
    builder.open_within(options.wait)
}

fn append(store: Store, options: Options) -> Result<u8, Error> {
    let load = Load::new(store.clone(), options);
    load.run();
    say(&load.summary());
    store.close()?;
    Ok(FINE)
}

/// Prints a line to standard error. An error is ignored: the reader may be gone.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "crash_me: {text}");
}

/// Writes lines to standard output in one call; `false` if its reader is gone.
///
/// `Stdout` passes whole lines on at once, so its buffer is empty afterwards.
fn print(lines: &str) -> bool {
    let mut out = std::io::stdout().lock();
    match out.write_all(lines.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => true,
        Err(error) => {
            if error.kind() != BrokenPipe {
                say(&format!("cannot write to standard output: {error}"));
            }
            false
        }
    }
}
