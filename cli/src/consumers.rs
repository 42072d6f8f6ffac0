//! How consumers are doing, and moving them.

use annals::{ConsumerState, ConsumerStatus, Halt};
use serde_json::{Value, json};

use crate::args::{ConsumerCommand, Consumers};
use crate::failure::{Done, Failure};
use crate::interrupt;
use crate::output::Output;
use crate::place::{self, Place};
use crate::values::rfc3339;

pub fn consumers(consumers: Consumers, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    match consumers.what {
        None | Some(ConsumerCommand::List) => list(place, out),
        Some(what) => change(what, place, out),
    }
}

fn list(place: &Place, out: &mut Output) -> Result<Done, Failure> {
    let all = place.to_read()?.consumers()?;
    show(&all, out)?;
    let is_halted = |status: &ConsumerStatus| matches!(status.state, ConsumerState::Halted(_));
    Ok(if all.iter().any(is_halted) { Done::No } else { Done::Yes })
}

fn show(all: &[ConsumerStatus], out: &mut Output) -> Result<(), Failure> {
    let items = all.iter().map(|status| Ok(document(status)));
    let text = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
    out.list(&["consumer", "position", "behind", "state", "query"], items, |item| {
        let (position, behind) = (item["position"].to_string(), item["behind"].to_string());
        vec![text(item, "name"), position, behind, text(item, "text"), text(item, "query")]
    })?;
    Ok(())
}

/// A process that runs the consumer holds the lock: there it is moved by that process, or after it.
fn change(what: ConsumerCommand, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    let store = place.to_write()?;
    let _whole = interrupt::whole();
    let control = |name: &str| store.consumer_control(name).by(&place.by());
    let (name, what) = match what {
        ConsumerCommand::List => return list(place, out),
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
    interrupt::done(format!("consumer {name} is {what}"));
    let moved: Vec<ConsumerStatus> =
        store.consumers()?.into_iter().filter(|status| status.name == name).collect();
    place::close(store)?;
    show(&moved, out)?;
    out.flush()?;
    Ok(Done::Yes)
}

fn document(status: &ConsumerStatus) -> Value {
    let ConsumerStatus { name, query, position, behind, state, .. } = status;
    let query = query.as_ref().map(ToString::to_string);
    let (position, text) = (position.get(), state.to_string());
    let mut document = json!({
        "name": name, "query": query, "position": position, "behind": behind,
        "state": state_name(state), "text": text,
    });
    if let ConsumerState::Halted(halt) = state {
        document["halt"] = halt_json(halt);
    }
    document
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

fn halt_json(halt: &Halt) -> Value {
    let at = halt.at.map(|at| at.get());
    json!({
        "at": at, "panicked": halt.panicked, "reason": halt.reason, "since": rfc3339(halt.since), "by": halt.by,
    })
}
