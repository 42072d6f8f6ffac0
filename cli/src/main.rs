//! The `annals` command: everything an operator does with a store, by what annals gives to everybody.
//!
//! | files | what |
//! |---|---|
//! | `args` `values` | what can be said on the command line, and how values are written there |
//! | `place` | which store is meant, and opening it |
//! | `answer` `failure` `interrupt` | what happened, is it in, what now: exit codes, words, Ctrl-C |
//! | `output` `progress` `event` `json` | tables, lines and JSON; bars; events and their payloads |
//! | `words` | the library's words in those of the command line; what is wrong with an input |
//! | the rest | one family of commands each |
//!
//! What it promises (exit codes, JSON) is in docs/command.md.

#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::panic, clippy::todo, clippy::dbg_macro)]
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod answer;
mod append;
mod archive;
mod args;
mod bench;
mod causes;
mod check;
mod compact;
mod consumers;
mod doctor;
mod event;
mod failure;
mod history;
mod interrupt;
mod json;
mod lines;
mod names;
mod output;
mod place;
mod progress;
mod read;
mod salvage;
mod shell;
mod state;
mod values;
mod words;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::FromArgMatches;

use answer::Ending;
use args::{Cli, Command};
use failure::{Done, Failure};
use output::Output;
use place::Place;

fn main() -> ExitCode {
    let said = args::command().try_get_matches().and_then(|said| Cli::from_arg_matches(&said));
    let Cli { global, command } = match said {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    global.color.write_global();
    let mut out = Output::new(&global);
    let form = out.form();
    let done = interrupt::install(form).and_then(|()| run(command, &Place::new(global), &mut out));
    // What was done before a failure is told, too.
    let told = out.flush();
    let ending = match done.and_then(|done| told.map(|()| done)) {
        Ok(done) => Ending::Done(done),
        Err(failure) => Ending::Failed(failure),
    };
    interrupt::end(ending, form)
}

/// Help goes to standard output and is fine; everything else was called wrongly.
fn usage(error: &clap::Error) -> ExitCode {
    let wants_json = || std::env::args_os().take_while(|word| word != "--").any(|word| word == "--json");
    // clap repeats what was typed as it is, and that may be anything.
    let text = error.to_string();
    let is_hidden = || annals::visible(&text) != text;
    let form = match (wants_json(), is_hidden()) {
        (true, _) => Some(output::Form::Json),
        (false, true) => Some(output::Form::Plain),
        (false, false) => None,
    };
    if error.use_stderr()
        && let Some(form) = form
    {
        let answer = answer::answer(Ending::Failed(Failure::call(error)), answer::Effect::default());
        answer.say(form);
        return answer.code.into();
    }
    let printed = error.print().and_then(|()| io::stdout().flush());
    match printed {
        _ if error.use_stderr() => failure::USAGE.into(),
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let ending = Ending::Failed(Failure::output(&error));
            let answer = answer::answer(ending, answer::Effect::default());
            answer.say(output::Form::Plain);
            answer.code.into()
        }
    }
}

fn run(command: Command, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    match command {
        Command::Init => state::init(place, out),
        Command::Append(append) => append::append(append, place, out),
        Command::Get(get) => read::get(get, place, out),
        Command::Read(read) => read::read(read, place, out),
        Command::Tail(tail) => read::tail(tail, place, out),
        Command::Entities(names) => names::entities(names, place, out),
        Command::Kinds(names) => names::kinds(names, place, out),
        Command::Scopes(names) => names::scopes(names, place, out),
        Command::Tags(names) => names::tags(names, place, out),
        Command::Stats => state::stats(place, out),
        Command::Story(story) => causes::story(story, place, out),
        Command::Ancestors(event) => causes::ancestors(event, place, out),
        Command::Descendants(event) => causes::descendants(event, place, out),
        Command::Path(event) => causes::path(event, place, out),
        Command::Leaves(leaves) => causes::leaves(&leaves, place, out),
        Command::Verify(verify) => check::verify(&verify, place, out),
        Command::Head(head) => state::head(head, place, out),
        Command::Consumers(consumers) => consumers::consumers(consumers, place, out),
        Command::Checkpoint(checkpoint) => history::checkpoint(checkpoint, place, out),
        Command::Backup(backup) => archive::backup(backup, place, out),
        Command::Restore(restore) => archive::restore(restore, place, out),
        Command::Fork(fork) => archive::fork(fork, place, out),
        Command::Rollback(rollback) => archive::rollback(rollback, place, out),
        Command::Erase(erase) => history::erase(erase, place, out),
        Command::Compact(compact) => compact::compact(&compact, place, out),
        Command::Export(export) => lines::export(&export, place),
        Command::Import(import) => lines::import(import, place, out),
        Command::Reindex => check::reindex(place, out),
        Command::Recover(recover) => check::recover(recover, place, out),
        Command::Doctor => doctor::doctor(place, out),
        Command::Bench(bench) => bench::bench(bench, place, out),
        Command::Describe => state::describe(place, out),
        Command::Completions(shell) => shell::completions(shell, out),
        Command::Man => shell::man(out),
    }
}
