//! How a command ends: exit codes by what the caller can do, and the words that say it.

use std::io::{self, ErrorKind as IoKind, Write};

use annals::{ErrorKind, visible, visible_json};
use serde_json::json;

use crate::output::Form;

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

/// As `--help` shows them.
pub const CODES: &str = "\
Exit codes:
  0  done
  1  the answer is no: not there, not clean, in conflict, denied, halted
  2  the call is wrong: fix it (also: no store there)
  3  not now: locked, busy, no space; the same call may succeed later
  4  not known whether it was written: repeat it with the same --key
  5  what is stored is damaged, erased, or set back: see `annals verify`
  6  the store needs a newer annals
  7  the directory is not safe to use: owner, permissions, links, network
  8  the operating system refused something
  129, 130, 143  stopped: the terminal is gone, Ctrl-C, a request to end; everything is whole

Environment, where no option is given:
  ANNALS_DIR         the store's directory (--dir)
  ANNALS_DURABILITY  synced, buffered, buffered:250ms (--durability)
  ANNALS_QUEUE       appends that wait at most (--queue)";

/// As the help of each command shows them.
pub const CODES_SHORT: &str = "\
Exit codes: 0 done, 1 the answer is no, 2 the call is wrong, 3 not now, 4 not known whether it was written, \
5 damaged, 6 needs a newer annals, 7 not safe, 8 the system refused; `annals --help` says more";

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
    code: u8,
    kind: String,
    text: String,
    hint: Option<String>,
    /// Nobody reads any more: nothing to complain about.
    is_quiet: bool,
}

impl Failure {
    fn new(code: u8, kind: &str, text: impl Into<String>) -> Failure {
        Failure { code, kind: kind.to_owned(), text: text.into(), hint: None, is_quiet: false }
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
                Failure::new(LATER, "NoSpace", text).hint("free space and repeat the command")
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
        if self.code == LATER && self.kind == "NoSpace" { self.hint(hint) } else { self }
    }

    /// The same, with more about where it happened.
    pub fn at(self, place: &str) -> Failure {
        Failure { text: format!("{place}: {}", self.text), ..self }
    }

    /// What became of output.
    pub fn output(error: &io::Error) -> Failure {
        match error.kind() {
            IoKind::BrokenPipe => Failure { is_quiet: true, ..Failure::new(0, "Closed", "") },
            _ => Failure::system("cannot write to standard output", error),
        }
    }

    /// Says it on standard error, and gives the exit code.
    pub fn report(&self, form: Form) -> u8 {
        if self.is_quiet {
            return 0;
        }
        let mut err = anstream::stderr().lock();
        // Nobody is left to tell that this failed.
        let _ = match form {
            Form::Json => {
                let Failure { code, kind, text, hint, .. } = self;
                let error = json!({ "code": code, "kind": kind, "message": text, "hint": hint });
                writeln!(err, "{}", visible_json(&json!({ "error": error }).to_string()))
            }
            Form::Table | Form::Plain => self.write(&mut err),
        };
        self.code
    }

    fn write(&self, err: &mut impl Write) -> io::Result<()> {
        use owo_colors::OwoColorize;
        // A path or a name may hold anything.
        writeln!(err, "{} {}", "annals:".red().bold(), visible(&self.text))?;
        match &self.hint {
            Some(hint) => writeln!(err, "  {} {}", "hint:".yellow(), visible(hint)),
            None => Ok(()),
        }
    }
}

impl From<annals::Error> for Failure {
    fn from(error: annals::Error) -> Failure {
        let failure = Failure::new(code_of(error.kind()), &format!("{:?}", error.kind()), error.to_string());
        match hint_for(error.kind()).or_else(|| is_forbidden(&error).then_some(PERMISSION)) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

const PERMISSION: &str = "run it as the user the store belongs to, or let that user read and write there";

fn is_forbidden(error: &annals::Error) -> bool {
    use std::error::Error as _;
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == IoKind::PermissionDenied)
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

/// In the words of the command line, where the library speaks of calls.
fn hint_for(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::Conflict => "read the stream, decide again, and --expect the version you saw",
        ErrorKind::Locked => "close the other process, or wait for it: --wait 30s; reading needs no lock",
        ErrorKind::Busy => "try again, or allow more to wait: --queue",
        ErrorKind::NoSpace => "nothing was written; free space and repeat the command",
        ErrorKind::CommitUnknown => "repeat the command with the same --key: found or appended, never both",
        ErrorKind::Poisoned => "repeat the command; the next opening recovers",
        ErrorKind::Corrupt => {
            "`annals verify` lists every break; `annals recover --salvage DEST` copies what can be read"
        }
        ErrorKind::RolledBack => "the store was set back or replaced; start over",
        ErrorKind::Unsafe => "`annals doctor` says what to change",
        _ => return None,
    })
}
