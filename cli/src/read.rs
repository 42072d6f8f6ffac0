//! `annals get`, `read` and `tail`: one event, the events that match, the newest, and those that come.

use std::time::Duration;

use annals::{Position, RecordedEvent, Store};

use crate::args::{Get, Read, Tail};
use crate::event::{EventJson, facts};
use crate::failure::{Answer, Failure};
use crate::output::Output;
use crate::target::Target;
use crate::values::EventRef;

pub fn get(get: Get, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    let store = target.to_read()?;
    let event = find(&store, get.event)?;
    out.facts(&facts(&event, out.format()), &EventJson::of(&event))?;
    Ok(Answer::Yes)
}

/// The event that the command line names.
pub fn find(store: &Store, which: EventRef) -> Result<RecordedEvent, Failure> {
    let (found, named) = match which {
        EventRef::Id(id) => (store.get(id)?, format!("with the id {id}")),
        EventRef::At(position) => (store.at(position)?, format!("at position {position}")),
    };
    let head = store.head()?.position();
    found.ok_or_else(|| Failure::no(format!("there is no event {named}; the newest is at {head}")))
}

/// Shows the events that match. No match is no failure.
pub fn read(read: Read, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    let store = target.to_read()?;
    let query = read.filter.query();
    if read.follow {
        return follow(&store, &read, AFTER, out);
    }
    let mut events = store.read(query).after(read.after);
    if let Some(times) = read.between {
        events = events.between((times.0, times.1));
    }
    if let Some(times) = read.occurred {
        events = events.occurred((times.0, times.1));
    }
    if let Some(versions) = read.versions {
        events = events.versions((versions.0, versions.1));
    }
    if let Some(limit) = read.limit {
        events = events.limit(limit);
    }
    if read.backwards {
        events = events.backwards();
    }
    for event in events {
        let event = event?;
        if !read.backwards {
            out.resume_after(AFTER, event.position().get());
        }
        out.event(&event)?;
    }
    Ok(Answer::Yes)
}

/// How to continue behind the last event that `read` showed. (No option reads backwards from a position.)
const AFTER: &str = "go on with --after";
/// How to continue behind the last event that `tail` showed. `tail` has no `--after`.
const READ_AFTER: &str = "go on with annals read --after";

pub fn tail(tail: Tail, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    let store = target.to_read()?;
    let newest = store.read(tail.filter.query()).backwards().limit(tail.limit);
    let mut newest = newest.collect::<Result<Vec<RecordedEvent>, annals::Error>>()?;
    newest.reverse();
    for event in &newest {
        out.resume_after(READ_AFTER, event.position().get());
        out.event(event)?;
    }
    if !tail.follow {
        return Ok(Answer::Yes);
    }
    let last = match newest.last() {
        Some(event) => event.position(),
        None => Position::START,
    };
    drop(newest);
    let limit = Some(u64::MAX);
    let read = Read {
        filter: tail.filter,
        after: last,
        backwards: false,
        between: None,
        occurred: None,
        versions: None,
        limit,
        follow: true,
    };
    follow(&store, &read, READ_AFTER, out)
}

/// A wait for an event. The loop waits again, so the length does not matter.
const WAIT: Duration = Duration::from_secs(3600);

fn follow(store: &Store, read: &Read, resume: &'static str, out: &mut Output) -> Result<Answer, Failure> {
    let mut subscription = store.subscribe(read.filter.query()).after(read.after);
    let mut left = read.limit.unwrap_or(u64::MAX);
    while left > 0 {
        let event = match subscription.try_next()? {
            Some(event) => Some(event),
            None => {
                out.flush()?;
                subscription.next_timeout(WAIT)?
            }
        };
        if let Some(event) = event {
            out.resume_after(resume, event.position().get());
            out.event(&event)?;
            left -= 1;
        }
    }
    Ok(Answer::Yes)
}
