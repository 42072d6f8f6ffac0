//! How a command ends: its exit code, and the message on standard error.
//!
//! A command notes each change as soon as the store acknowledges it ([`crate::interrupt::note`]). It then
//! ends by itself, with a failure, by a signal, or because its output cannot be written. [`report`] covers
//! all four.

use std::io::{self, IsTerminal, Write};

use annals::{visible, visible_json};
use serde_json::{Map, Value, json};

use crate::failure::{Answer, Failure, Origin, UNTOLD};
use crate::output::Format;

/// What a command has changed so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// The acknowledged change, as a sentence; `None` while nothing is changed.
    pub done: Option<String>,
    /// A change that was begun and is not acknowledged, as a sentence.
    pub under_way: Option<String>,
    /// How the operator continues; `None` if nothing is left to do.
    pub to_continue: Option<String>,
    /// The line numbers of `append --lines`, by their status, as JSON.
    pub lines: Option<Value>,
    /// The change was acknowledged before it was synced (`--durability buffered`).
    pub is_unsynced: bool,
    /// The command created the store.
    pub has_created: bool,
}

/// How a command ended.
#[derive(Debug)]
pub enum CommandEnd {
    /// The command worked and wrote its output.
    Answered(Answer),
    Failed(Failure),
    /// This signal stopped the command.
    Stopped(i32),
}

/// The exit code, and the message for standard error.
#[derive(Debug, PartialEq, Eq)]
pub struct ExitReport {
    pub code: u8,
    message: Option<Message>,
}

#[derive(Debug, PartialEq, Eq)]
struct Message {
    kind: String,
    text: String,
    done: Option<String>,
    hint: Option<String>,
    lines: Option<Value>,
}

/// The kind of an end by a signal. Its message is one line.
const INTERRUPTED: &str = "Interrupted";
const CREATED: &str = "the store is created, and nothing is in it";
const UNSYNCED: &str = "it was acknowledged before it was synced, so a power cut may still take it";
/// The hint for a complete change.
const COMPLETE: &str = "it is done: do not repeat the command";

/// The exit code and the message of every end of every command.
///
/// | ended by | nothing was changed | something was changed |
/// |---|---|---|
/// | itself | 0 or 1, no message | 0 or 1, no message |
/// | a failure | its code and hint | its code, the change, how to continue |
/// | output on a full disk | 3 or 8, repeat the command | 9, the change, how to continue |
/// | output that is closed | 0, no message | 9, the change, how to continue |
/// | a signal | 128 + signal, how to continue | 128 + signal, the change, how to continue |
pub fn report(end: CommandEnd, effect: Effect) -> ExitReport {
    let Effect { done, under_way, to_continue, lines, is_unsynced, has_created } = effect;
    let is_changed = done.is_some() || under_way.is_some();
    let created = (has_created && !is_changed).then(|| CREATED.to_owned());
    let unsynced = (is_unsynced && done.is_some()).then(|| UNSYNCED.to_owned());
    let done = [created, done, under_way, unsynced].into_iter().flatten();
    let done = done.reduce(|done, more| format!("{done}; {more}"));
    let (code, kind, text, hint) = match end {
        CommandEnd::Answered(answer) => return ExitReport { code: answer.code(), message: None },
        CommandEnd::Stopped(signal) => {
            let code = u8::try_from(signal).map_or(u8::MAX, |signal| signal.saturating_add(128));
            let is_unchanged = done.is_none() && to_continue.is_none();
            let text = if is_unchanged { "interrupted; nothing was changed" } else { "interrupted" };
            (code, INTERRUPTED.to_owned(), text.to_owned(), to_continue)
        }
        CommandEnd::Failed(failure) => {
            let Failure { code, kind, text, hint, origin } = failure;
            let next = to_continue.unwrap_or_else(|| COMPLETE.to_owned());
            match origin {
                Origin::Command if is_changed => (code, kind, text, Some(next)),
                Origin::Output | Origin::ClosedOutput if done.is_some() => {
                    (UNTOLD, "Untold".to_owned(), text, Some(next))
                }
                Origin::ClosedOutput => return ExitReport { code: 0, message: None },
                Origin::Command | Origin::Output => (code, kind, text, hint),
            }
        }
    };
    ExitReport { code, message: Some(Message { kind, text, done, hint, lines }) }
}

impl ExitReport {
    /// Writes the message to standard error, with every hidden character escaped.
    pub fn print(&self, format: Format) {
        let Some(message) = &self.message else { return };
        let mut err = anstream::stderr().lock();
        // If standard error cannot be written either, the exit code alone remains.
        let _ = match format {
            Format::Json => {
                let error = json!({ "error": message.json(self.code) });
                writeln!(err, "{}", visible_json(&error.to_string()))
            }
            Format::Table | Format::Plain => message.write(&mut err),
        };
    }
}

impl Message {
    fn json(&self, code: u8) -> Value {
        let Message { kind, text, done, hint, lines } = self;
        let error = json!({ "code": code, "kind": kind, "message": text, "done": done, "hint": hint });
        let mut error: Map<String, Value> = error.as_object().cloned().unwrap_or_default();
        error.extend(lines.clone().map(|lines| ("lines".to_owned(), lines)));
        error.into()
    }

    fn write(&self, err: &mut impl Write) -> io::Result<()> {
        use owo_colors::OwoColorize;
        if self.kind == INTERRUPTED {
            // A progress bar may stand on the line of the cursor.
            let clear = if io::stderr().is_terminal() { "\r\x1b[2K" } else { "" };
            let parts = [Some(&self.text), self.done.as_ref(), self.hint.as_ref()];
            let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
            return writeln!(err, "{clear}{} {}", "annals:".red().bold(), visible(&parts.join("; ")));
        }
        writeln!(err, "{} {}", "annals:".red().bold(), visible(&self.text))?;
        if let Some(done) = &self.done {
            writeln!(err, "  {} {}", "done:".green(), visible(done))?;
        }
        match &self.hint {
            Some(hint) => writeln!(err, "  {} {}", "hint:".yellow(), visible(hint)),
            None => Ok(()),
        }
    }
}
