//! Reading events: one, many, the newest, and those that come.

use std::time::Duration;

use annals::{Position, RecordedEvent, Store};

use crate::args::{Get, Read, Tail};
use crate::event::{EventJson, facts};
use crate::failure::{Done, Failure};
use crate::output::Output;
use crate::place::Place;
use crate::values::Which;

pub fn get(get: Get, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    let store = place.to_read()?;
    let event = find(&store, get.event)?;
    out.facts(&facts(&event, out.form()), &EventJson::of(&event))?;
    Ok(Done::Yes)
}

/// The event that is meant.
pub fn find(store: &Store, which: Which) -> Result<RecordedEvent, Failure> {
    let (found, named) = match which {
        Which::Id(id) => (store.get(id)?, format!("with the id {id}")),
        Which::At(position) => (store.at(position)?, format!("at position {position}")),
    };
    let head = store.head()?.position();
    found.ok_or_else(|| Failure::no(format!("there is no event {named}; the newest is at {head}")))
}

/// Shows what matches. Nothing that matches is an answer, too, and not a failure.
pub fn read(read: Read, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    let store = place.to_read()?;
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
            out.go_on(AFTER, event.position().get());
        }
        out.event(&event)?;
    }
    Ok(Done::Yes)
}

/// How to go on behind the last event that was shown. (Nothing reads backwards from a position.)
const AFTER: &str = "go on with --after";
/// The same of `tail`, which has no such option.
const READ_AFTER: &str = "go on with annals read --after";

pub fn tail(tail: Tail, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    let store = place.to_read()?;
    let newest = store.read(tail.filter.query()).backwards().limit(tail.limit);
    let mut newest = newest.collect::<Result<Vec<RecordedEvent>, annals::Error>>()?;
    newest.reverse();
    for event in &newest {
        out.go_on(READ_AFTER, event.position().get());
        out.event(event)?;
    }
    if !tail.follow {
        return Ok(Done::Yes);
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

/// Far enough away.
const LONG: Duration = Duration::from_secs(3600);

fn follow(store: &Store, read: &Read, go_on: &'static str, out: &mut Output) -> Result<Done, Failure> {
    let mut subscription = store.subscribe(read.filter.query()).after(read.after);
    let mut left = read.limit.unwrap_or(u64::MAX);
    while left > 0 {
        let event = match subscription.try_next()? {
            Some(event) => Some(event),
            None => {
                out.flush()?;
                subscription.next_timeout(LONG)?
            }
        };
        if let Some(event) = event {
            out.go_on(go_on, event.position().get());
            out.event(&event)?;
            left -= 1;
        }
    }
    Ok(Done::Yes)
}
