//! Why a command failed: an exit code by what the caller can do, a message and a hint.
//!
//! [`crate::exit`] decides what a failure means once the command has changed something.

use std::error::Error as _;
use std::io::{self, ErrorKind as IoKind};

use annals::ErrorKind;

use crate::words;

/// The command worked, and the answer is no: not there, not clean, in conflict, denied.
pub const NO: u8 = 1;
/// The call is wrong.
pub const USAGE: u8 = 2;
/// The same call may succeed later.
pub const LATER: u8 = 3;
/// It is unknown whether the write took place.
pub const UNKNOWN: u8 = 4;
/// The stored bytes are damaged, erased, or those of another history.
pub const DAMAGED: u8 = 5;
/// A newer annals is needed.
pub const NEWER: u8 = 6;
/// The directory is not safe to use.
pub const UNSAFE: u8 = 7;
/// The system refused something.
pub const SYSTEM: u8 = 8;
/// The command changed something, and could not write the output that says so.
pub const UNTOLD: u8 = 9;

/// The exit codes in `annals --help`.
pub const CODES: &str = "\
Exit codes:
  0  done
  1  the answer is no: not there, not clean, in conflict, denied, halted
  2  the call is wrong: fix it (also: no store there)
  3  not now: locked, busy, no space; the same call may succeed later
  4  not known whether it was written: look, or repeat an append with the same --key
  5  what is stored is damaged, erased, or set back: see `annals verify`
  6  the store needs a newer annals
  7  the directory is not safe to use: owner, permissions, links, network
  8  the operating system refused something
  9  done, but the output could not be written: do not repeat it; standard error says what is in
  129, 130, 143  stopped: the terminal is gone, Ctrl-C, a request to end; everything is whole

Environment, where no option is given:
  ANNALS_DIR         the store's directory (--dir)
  ANNALS_DURABILITY  synced, buffered, buffered:250ms (--durability)
  ANNALS_QUEUE       appends that wait at most (--queue)";

/// The exit codes in the help of each command.
pub const CODES_SHORT: &str = "\
Exit codes: 0 done, 1 the answer is no, 2 the call is wrong, 3 not now, 4 not known whether it was written, \
5 damaged, 6 needs a newer annals, 7 not safe, 8 the system refused, 9 done but the output could not be written; \
`annals --help` says more";

/// The kind of all failures for lack of space, of the library and of the operating system.
const NO_SPACE: &str = "NoSpace";

/// What a command that worked answers: [`Answer::Yes`] exits with 0, [`Answer::No`] with [`NO`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Yes,
    No,
}

impl Answer {
    pub fn code(self) -> u8 {
        match self {
            Answer::Yes => 0,
            Answer::No => NO,
        }
    }
}

/// Why a command failed, and what the caller can do.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    pub kind: String,
    pub text: String,
    pub hint: Option<String>,
    pub origin: Origin,
}

/// Where a failure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command itself.
    Command,
    /// Standard output, which could not be written.
    Output,
    /// Standard output, whose reader has closed the pipe.
    ClosedOutput,
}

impl Failure {
    fn new(code: u8, kind: &str, text: impl Into<String>) -> Failure {
        Failure { code, kind: kind.to_owned(), text: text.into(), hint: None, origin: Origin::Command }
    }

    /// The call is wrong.
    pub fn usage(text: impl Into<String>) -> Failure {
        Failure::new(USAGE, "Usage", text)
    }

    /// The answer is no.
    pub fn no(text: impl Into<String>) -> Failure {
        Failure::new(NO, "NotThere", text)
    }

    /// The operating system refused something.
    pub fn system(what: &str, error: &io::Error) -> Failure {
        let text = format!("{what}: {error}");
        match error.kind() {
            IoKind::StorageFull | IoKind::QuotaExceeded | IoKind::FileTooLarge => {
                Failure::new(LATER, NO_SPACE, text).hint("free space and repeat the command")
            }
            IoKind::PermissionDenied => Failure::new(SYSTEM, "Io", text).hint(PERMISSION),
            _ => Failure::new(SYSTEM, "Io", text),
        }
    }

    /// What clap found wrong with the command line.
    pub fn call(error: &clap::Error) -> Failure {
        let text = error.to_string();
        let (text, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
        let tip = rest.split("\n\n").find_map(|part| part.trim().strip_prefix("tip: "));
        let text = text.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ");
        Failure::usage(text).hint(tip.unwrap_or("see --help"))
    }

    pub fn hint(self, hint: impl Into<String>) -> Failure {
        Failure { hint: Some(hint.into()), ..self }
    }

    /// Replaces the hint of a failure for lack of space.
    pub fn without_space(self, hint: &str) -> Failure {
        if self.is_no_space() { self.hint(hint) } else { self }
    }

    /// Adds in front of the message where the failure happened.
    pub fn at(self, location: &str) -> Failure {
        Failure { text: format!("{location}: {}", self.text), ..self }
    }

    /// A failed write to standard output.
    pub fn output(error: &io::Error) -> Failure {
        let origin = match error.kind() {
            IoKind::BrokenPipe => Origin::ClosedOutput,
            _ => Origin::Output,
        };
        Failure { origin, ..Failure::system("cannot write to standard output", error) }
    }

    /// True if the caller has to change the call or its input.
    pub fn is_refusal(&self) -> bool {
        self.code == USAGE || self.code == NO
    }

    /// True if free space is all that the command needs.
    pub fn is_no_space(&self) -> bool {
        self.kind == NO_SPACE
    }

    /// True if it is unknown whether the write took place.
    pub fn is_unknown(&self) -> bool {
        self.code == UNKNOWN
    }
}

impl From<annals::Error> for Failure {
    fn from(error: annals::Error) -> Failure {
        let text = words::translate(&error.to_string());
        // Also a full disk that the library reports as `Io`: for example that of the file of rejected lines.
        if let Some(cause) = system_error(&error)
            && error.kind() == ErrorKind::Io
        {
            let failure = Failure::system("", cause);
            return Failure { text, ..failure };
        }
        let failure = Failure::new(code_of(error.kind()), &format!("{:?}", error.kind()), text);
        match hint_for(error.kind()) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

const PERMISSION: &str = "run it as the user the store belongs to, or let that user read and write there";

/// The error of the operating system behind an error of the library.
fn system_error(error: &annals::Error) -> Option<&io::Error> {
    let mut cause = error.source();
    while let Some(found) = cause {
        if let Some(found) = found.downcast_ref::<io::Error>() {
            return Some(found);
        }
        cause = found.source();
    }
    None
}

fn code_of(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Conflict | ErrorKind::KeyReused | ErrorKind::Denied | ErrorKind::Halted => NO,
        ErrorKind::Invalid | ErrorKind::TooLarge => USAGE,
        ErrorKind::Locked | ErrorKind::Busy | ErrorKind::NoSpace | ErrorKind::Closed => LATER,
        ErrorKind::CommitUnknown | ErrorKind::Forked => UNKNOWN,
        ErrorKind::Corrupt
        | ErrorKind::Erased
        | ErrorKind::Gone
        | ErrorKind::RolledBack
        | ErrorKind::Undecodable
        | ErrorKind::Poisoned => DAMAGED,
        ErrorKind::NeedsNewer => NEWER,
        ErrorKind::Unsafe => UNSAFE,
        _ => SYSTEM,
    }
}

/// A hint that fits every command. `append` has hints of its own.
fn hint_for(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::Locked => "close the other process, or wait for it: --wait 30s; reading needs no lock",
        ErrorKind::Busy => "try again, or allow more to wait: --queue",
        ErrorKind::NoSpace => "free space and repeat the command",
        ErrorKind::CommitUnknown => {
            "whether it was done is not known: look (annals tail, annals read --entity $ledger) before you repeat it"
        }
        ErrorKind::Poisoned => "repeat the command; the next opening recovers",
        ErrorKind::Corrupt => {
            "`annals verify` lists every break; `annals recover --salvage DEST` copies what can be read"
        }
        ErrorKind::RolledBack => "the store was set back or replaced; start over",
        ErrorKind::Unsafe => "`annals doctor` says what to change",
        _ => return None,
    })
}
