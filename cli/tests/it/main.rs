//! Every test of the annals command, which runs as a program: one binary, one link, parallel threads.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../../../tests/it/samples.rs"]
mod samples; // hidden characters, and JSON that is kept or refused; shared with the library's tests
mod support; // a store in a directory, calls of the command, exit codes, every command in one line

mod bad; // wrong directories and calls, damage, a wrong clock, pipes, signals, full disks, hooks
mod calls; // bad lines, typing errors, help and manual, terminals that close
mod commands; // a tour, JSON, payloads, lines, consumers, indexes, archives
mod lines; // which lines are in, and how to continue, after every stop
mod matrix; // every command at every end: exit code, store, message
mod values; // values and names, through every input and in every output format
mod words; // messages of the command, wrong inputs by their names, counts, columns
