//! Why a command did not work: exit codes by what the caller can do, and the words that say it.
//!
//! What becomes of it once something is in is up to [`crate::answer`].

use std::error::Error as _;
use std::io::{self, ErrorKind as IoKind};

use annals::ErrorKind;

use crate::words;

/// The answer is no: not there, not clean, in conflict, denied.
pub const NO: u8 = 1;
/// The call is wrong.
pub const USAGE: u8 = 2;
/// The same call may succeed later.
pub const LATER: u8 = 3;
/// It may or may not have been written.
pub const UNKNOWN: u8 = 4;
/// What is stored is damaged, gone or another history.
pub const DAMAGED: u8 = 5;
/// A newer annals is needed.
pub const NEWER: u8 = 6;
/// The directory is not safe to use.
pub const UNSAFE: u8 = 7;
/// The system refused something.
pub const SYSTEM: u8 = 8;
/// Something is in, and the output that would have said so could not be written.
pub const UNTOLD: u8 = 9;

/// As `--help` shows them.
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

/// As the help of each command shows them.
pub const CODES_SHORT: &str = "\
Exit codes: 0 done, 1 the answer is no, 2 the call is wrong, 3 not now, 4 not known whether it was written, \
5 damaged, 6 needs a newer annals, 7 not safe, 8 the system refused, 9 done but the output could not be written; \
`annals --help` says more";

/// The kind of [`ErrorKind::NoSpace`], of the library's errors and of the system's.
const NO_SPACE: &str = "NoSpace";

/// How a command that worked ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    Yes,
    No,
}

impl Done {
    pub fn code(self) -> u8 {
        match self {
            Done::Yes => 0,
            Done::No => NO,
        }
    }
}

/// Why a command did not work, and what to do.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    pub kind: String,
    pub text: String,
    pub hint: Option<String>,
    pub cause: Cause,
}

/// What a failure is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Of the command itself.
    Command,
    /// Of standard output, which could not be written.
    Output,
    /// Of standard output, which is read no more.
    ClosedOutput,
}

impl Failure {
    fn new(code: u8, kind: &str, text: impl Into<String>) -> Failure {
        Failure { code, kind: kind.to_owned(), text: text.into(), hint: None, cause: Cause::Command }
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

    /// What to do, if it is for lack of space.
    pub fn without_space(self, hint: &str) -> Failure {
        if self.is_no_space() { self.hint(hint) } else { self }
    }

    /// The same, with more about where it happened.
    pub fn at(self, place: &str) -> Failure {
        Failure { text: format!("{place}: {}", self.text), ..self }
    }

    /// Of standard output.
    pub fn output(error: &io::Error) -> Failure {
        let cause = match error.kind() {
            IoKind::BrokenPipe => Cause::ClosedOutput,
            _ => Cause::Output,
        };
        Failure { cause, ..Failure::system("cannot write to standard output", error) }
    }

    /// Whether the call, or what it was given, has to be changed.
    pub fn is_refusal(&self) -> bool {
        self.code == USAGE || self.code == NO
    }

    /// Whether it needs space, and nothing else.
    pub fn is_no_space(&self) -> bool {
        self.kind == NO_SPACE
    }

    /// Whether it leaves open what became of what it is about.
    pub fn is_unknown(&self) -> bool {
        self.code == UNKNOWN
    }
}

impl From<annals::Error> for Failure {
    fn from(error: annals::Error) -> Failure {
        let text = words::of_the_command(&error.to_string());
        // Also what has another kind in the library: rejected lines that find no room.
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

/// What the system said, if it said something.
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
        | ErrorKind::RolledBack
        | ErrorKind::Undecodable
        | ErrorKind::Poisoned => DAMAGED,
        ErrorKind::NeedsNewer => NEWER,
        ErrorKind::Unsafe => UNSAFE,
        _ => SYSTEM,
    }
}

/// For any command, in the words of the command line. What only appends can be told, `append` tells.
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
