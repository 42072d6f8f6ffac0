//! `annals consumers`: lists consumers and reactors, or moves one.

use annals::{ConsumerState, ConsumerStatus, Halt};
use serde::Serialize;

use crate::args::{ConsumerCommand, Consumers};
use crate::failure::{Answer, Failure};
use crate::interrupt;
use crate::output::Output;
use crate::target::{self, Target};
use crate::values::rfc3339;

#[derive(Serialize)]
struct ConsumerRow {
    name: String,
    query: Option<String>,
    position: u64,
    behind: u64,
    state: &'static str,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    halt: Option<HaltJson>,
}

#[derive(Serialize)]
struct HaltJson {
    at: Option<u64>,
    panicked: bool,
    reason: String,
    since: String,
    by: String,
}

impl ConsumerRow {
    const HEADS: [&str; 5] = ["consumer", "position", "behind", "state", "query"];

    fn new(status: &ConsumerStatus) -> ConsumerRow {
        ConsumerRow {
            name: status.name.clone(),
            query: status.query.as_ref().map(ToString::to_string),
            position: status.position.get(),
            behind: status.behind,
            state: state_name(&status.state),
            text: status.state.to_string(),
            halt: match &status.state {
                ConsumerState::Halted(halt) => Some(HaltJson::new(halt)),
                _ => None,
            },
        }
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.position.to_string(),
            self.behind.to_string(),
            self.text.clone(),
            self.query.clone().unwrap_or_default(),
        ]
    }
}

impl HaltJson {
    fn new(halt: &Halt) -> HaltJson {
        HaltJson {
            at: halt.at.map(|at| at.get()),
            panicked: halt.panicked,
            reason: halt.reason.clone(),
            since: rfc3339(halt.since),
            by: halt.by.clone(),
        }
    }
}

fn state_name(state: &ConsumerState) -> &'static str {
    match state {
        ConsumerState::Idle => "idle",
        ConsumerState::CatchingUp { .. } => "catching up",
        ConsumerState::Lagging { .. } => "lagging",
        ConsumerState::Stuck { .. } => "stuck",
        ConsumerState::Halted(_) => "halted",
        _ => "unknown",
    }
}

pub fn consumers(consumers: Consumers, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    match consumers.what {
        None | Some(ConsumerCommand::List) => list(target, out),
        Some(what) => change(what, target, out),
    }
}

fn list(target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    let all = target.to_read()?.consumers()?;
    show(&all, out)?;
    let is_halted = |status: &ConsumerStatus| matches!(status.state, ConsumerState::Halted(_));
    Ok(if all.iter().any(is_halted) { Answer::No } else { Answer::Yes })
}

fn show(all: &[ConsumerStatus], out: &mut Output) -> Result<(), Failure> {
    let rows = all.iter().map(|status| Ok(ConsumerRow::new(status)));
    out.list(&ConsumerRow::HEADS, rows, ConsumerRow::cells)
}

/// Moves a consumer. Needs the lock: a process that runs the consumer holds the lock, and can move it itself.
fn change(what: ConsumerCommand, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    let store = target.to_write()?;
    let _section = interrupt::critical_section();
    let control = |name: &str| store.consumer_control(name).by(&target.by());
    let (name, change) = match what {
        ConsumerCommand::List => return list(target, out),
        ConsumerCommand::Reset(to) => {
            control(&to.name).reset(&to.reason)?;
            (to.name, "set back to the beginning".to_owned())
        }
        ConsumerCommand::Rewind(to) => {
            control(&to.name).rewind(to.position, &to.reason)?;
            (to.name, format!("set back to position {}", to.position))
        }
        ConsumerCommand::Skip(to) => {
            control(&to.name).skip(to.position, &to.reason)?;
            (to.name, format!("moved on to position {}", to.position))
        }
        ConsumerCommand::Resume(to) => {
            control(&to.name).resume()?;
            (to.name, "resumed".to_owned())
        }
        ConsumerCommand::Halt(to) => {
            control(&to.name).halt(&to.reason)?;
            (to.name, "halted".to_owned())
        }
    };
    interrupt::done(format!("consumer {name} is {change}"));
    let moved: Vec<ConsumerStatus> =
        store.consumers()?.into_iter().filter(|status| status.name == name).collect();
    target::close(store)?;
    show(&moved, out)?;
    out.flush()?;
    Ok(Answer::Yes)
}
