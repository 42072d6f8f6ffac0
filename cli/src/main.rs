//! The `annals` command: operates a store through the public API of annals alone.
//!
//! | files | what |
//! |---|---|
//! | `args` `values` | the command line, and how values are written there |
//! | `target` | which store the command acts on, and how it is opened |
//! | `failure` `exit` `interrupt` | exit codes and messages; what was changed; Ctrl-C |
//! | `output` `progress` `event` `json` | tables, lines and JSON; progress bars; events and their payloads |
//! | `words` | library messages in the words of the command line; what is wrong with an input |
//! | the rest | one family of commands each |
//!
//! docs/command.md has the contract: exit codes and JSON.

#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::panic, clippy::todo, clippy::dbg_macro)]
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod about;
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
mod exit;
mod failure;
mod interrupt;
mod json;
mod jsonl;
mod maintenance;
mod names;
mod output;
mod progress;
mod read;
mod salvage;
mod shell;
mod target;
mod values;
mod words;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::FromArgMatches;

use args::{Cli, Command};
use exit::CommandEnd;
use failure::{Answer, Failure};
use output::Output;
use target::Target;

fn main() -> ExitCode {
    let parsed = args::command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let Cli { global, command } = match parsed {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    global.color.write_global();
    let mut out = Output::new(&global);
    let format = out.format();
    let answer = interrupt::install(format).and_then(|()| run(command, &Target::new(global), &mut out));
    // A failed command may have produced output before its failure.
    let flushed = out.flush();
    let end = match answer.and_then(|answer| flushed.map(|()| answer)) {
        Ok(answer) => CommandEnd::Answered(answer),
        Err(failure) => CommandEnd::Failed(failure),
    };
    interrupt::exit(end, format)
}

/// Prints the help to standard output, or what is wrong with the call to standard error.
fn usage(error: &clap::Error) -> ExitCode {
    let wants_json = std::env::args_os().take_while(|word| word != "--").any(|word| word == "--json");
    let text = error.to_string();
    // clap repeats the caller's words as they are, hidden characters included.
    let has_hidden = annals::visible(&text) != text;
    let format = match (wants_json, has_hidden) {
        (true, _) => Some(output::Format::Json),
        (false, true) => Some(output::Format::Plain),
        (false, false) => None,
    };
    if error.use_stderr()
        && let Some(format) = format
    {
        return print_failure(Failure::call(error), format);
    }
    let printed = error.print().and_then(|()| io::stdout().flush());
    match printed {
        _ if error.use_stderr() => failure::USAGE.into(),
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => print_failure(Failure::output(&error), output::Format::Plain),
    }
}

/// For a command line that runs no command, so that nothing was changed.
fn print_failure(failure: Failure, format: output::Format) -> ExitCode {
    let report = exit::report(CommandEnd::Failed(failure), exit::Effect::default());
    report.print(format);
    report.code.into()
}

fn run(command: Command, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    match command {
        Command::Init => about::init(target, out),
        Command::Append(append) => append::append(append, target, out),
        Command::Get(get) => read::get(get, target, out),
        Command::Read(read) => read::read(read, target, out),
        Command::Tail(tail) => read::tail(tail, target, out),
        Command::Entities(names) => names::entities(names, target, out),
        Command::Kinds(names) => names::kinds(names, target, out),
        Command::Scopes(names) => names::scopes(names, target, out),
        Command::Tags(names) => names::tags(names, target, out),
        Command::Stats => about::stats(target, out),
        Command::Story(story) => causes::story(story, target, out),
        Command::Ancestors(event) => causes::ancestors(event, target, out),
        Command::Descendants(event) => causes::descendants(event, target, out),
        Command::Path(event) => causes::path(event, target, out),
        Command::Leaves(leaves) => causes::leaves(&leaves, target, out),
        Command::Verify(verify) => check::verify(&verify, target, out),
        Command::Head(head) => about::head(head, target, out),
        Command::Consumers(consumers) => consumers::consumers(consumers, target, out),
        Command::Checkpoint(checkpoint) => maintenance::checkpoint(checkpoint, target, out),
        Command::Backup(backup) => archive::backup(backup, target, out),
        Command::Restore(restore) => archive::restore(restore, target, out),
        Command::Fork(fork) => archive::fork(fork, target, out),
        Command::Rollback(rollback) => archive::rollback(rollback, target, out),
        Command::Erase(erase) => maintenance::erase(erase, target, out),
        Command::Compact(compact) => compact::compact(&compact, target, out),
        Command::Export(export) => jsonl::export(&export, target),
        Command::Import(import) => jsonl::import(import, target, out),
        Command::Reindex => check::reindex(target, out),
        Command::Recover(recover) => check::recover(recover, target, out),
        Command::Doctor => doctor::doctor(target, out),
        Command::Bench(bench) => bench::bench(bench, target, out),
        Command::Describe => about::describe(target, out),
        Command::Completions(shell) => shell::completions(shell, out),
        Command::Man => shell::man(out),
    }
}
