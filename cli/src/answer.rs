//! What happened, is it in, what now: how a command ends, said in one place for every command and every end.
//!
//! A command notes what it has changed the moment that is in ([`crate::interrupt::note`]). It may end well,
//! with a failure, by a signal, or because its output cannot be written: [`answer`] makes the exit code and
//! the words of it.

use std::io::{self, IsTerminal, Write};

use annals::{visible, visible_json};
use serde_json::{Map, Value, json};

use crate::failure::{Cause, Done, Failure, UNTOLD};
use crate::output::Form;

/// What a command has changed by now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// What is in, as a sentence; `None` while nothing was changed.
    pub done: Option<String>,
    /// What was begun, and is not known to be in.
    pub under_way: Option<String>,
    /// What to do for the rest; `None` if there is no rest.
    pub rest: Option<String>,
    /// Of lines: which are in.
    pub lines: Option<Value>,
    /// What is in was acknowledged before it was synced, as `--durability buffered` asks.
    pub is_unsynced: bool,
    /// There was no store, and the command made one.
    pub has_created: bool,
}

/// How a command ended.
#[derive(Debug)]
pub enum Ending {
    /// It did what it was told to do, and said so.
    Done(Done),
    Failed(Failure),
    /// By this signal.
    Stopped(i32),
}

/// The exit code, and what standard error says.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub code: u8,
    words: Option<Words>,
}

#[derive(Debug, PartialEq, Eq)]
struct Words {
    kind: String,
    text: String,
    done: Option<String>,
    hint: Option<String>,
    lines: Option<Value>,
}

/// The kind of an end by a signal; in words it is one line.
const INTERRUPTED: &str = "Interrupted";
const CREATED: &str = "the store is created, and nothing is in it";
const UNSYNCED: &str = "it was acknowledged before it was synced, so a power cut may still take it";
/// The advice for what is complete.
const DONE: &str = "it is done: do not repeat the command";

/// The one answer.
///
/// | ended by | nothing was changed | something is in |
/// |---|---|---|
/// | itself | 0 or 1, no words | 0 or 1, no words |
/// | a failure | its code and advice | its code, what is in, how to go on |
/// | output on a full disk | 3 or 8, repeat it | 9, what is in, how to go on |
/// | output that is closed | 0, no words | 9, what is in, how to go on |
/// | a signal | 128 + signal, how to go on | 128 + signal, what is in, how to go on |
pub fn answer(ending: Ending, effect: Effect) -> Answer {
    let Effect { done, under_way, rest, lines, is_unsynced, has_created } = effect;
    let is_changed = done.is_some() || under_way.is_some();
    let created = (has_created && !is_changed).then(|| CREATED.to_owned());
    let unsynced = (is_unsynced && done.is_some()).then(|| UNSYNCED.to_owned());
    let done = [created, done, under_way, unsynced].into_iter().flatten();
    let done = done.reduce(|done, more| format!("{done}; {more}"));
    let (code, kind, text, hint) = match ending {
        Ending::Done(done) => return Answer { code: done.code(), words: None },
        Ending::Stopped(signal) => {
            let code = u8::try_from(signal).map_or(u8::MAX, |signal| signal.saturating_add(128));
            let is_same = done.is_none() && rest.is_none();
            let text = if is_same { "interrupted; nothing was changed" } else { "interrupted" };
            (code, INTERRUPTED.to_owned(), text.to_owned(), rest)
        }
        Ending::Failed(failure) => {
            let Failure { code, kind, text, hint, cause } = failure;
            let go_on = rest.unwrap_or_else(|| DONE.to_owned());
            match cause {
                Cause::Command if is_changed => (code, kind, text, Some(go_on)),
                Cause::Output | Cause::ClosedOutput if done.is_some() => {
                    (UNTOLD, "Untold".to_owned(), text, Some(go_on))
                }
                Cause::ClosedOutput => return Answer { code: 0, words: None },
                Cause::Command | Cause::Output => (code, kind, text, hint),
            }
        }
    };
    Answer { code, words: Some(Words { kind, text, done, hint, lines }) }
}

impl Answer {
    /// Says it on standard error. A path or a name in it may hold anything: what cannot be seen is escaped here.
    pub fn say(&self, form: Form) {
        let Some(words) = &self.words else { return };
        let mut err = anstream::stderr().lock();
        // Where standard error is gone, too, the exit code is all there is.
        let _ = match form {
            Form::Json => {
                let error = json!({ "error": words.json(self.code) });
                writeln!(err, "{}", visible_json(&error.to_string()))
            }
            Form::Table | Form::Plain => words.write(&mut err),
        };
    }
}

impl Words {
    fn json(&self, code: u8) -> Value {
        let Words { kind, text, done, hint, lines } = self;
        let error = json!({ "code": code, "kind": kind, "message": text, "done": done, "hint": hint });
        let mut error: Map<String, Value> = error.as_object().cloned().unwrap_or_default();
        error.extend(lines.clone().map(|lines| ("lines".to_owned(), lines)));
        error.into()
    }

    fn write(&self, err: &mut impl Write) -> io::Result<()> {
        use owo_colors::OwoColorize;
        if self.kind == INTERRUPTED {
            // A bar may stand there.
            let clear = if io::stderr().is_terminal() { "\r\x1b[2K" } else { "" };
            let parts = [Some(&self.text), self.done.as_ref(), self.hint.as_ref()];
            let said: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
            return writeln!(err, "{clear}{} {}", "annals:".red().bold(), visible(&said.join("; ")));
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
