//! Listings of names.

use annals::{Listing, NameCount};
use serde::Serialize;

use crate::args::Names;
use crate::failure::{Done, Failure};
use crate::output::Output;
use crate::place::Place;

#[derive(Serialize)]
struct NameJson {
    name: String,
    events: u64,
    first: u64,
    last: u64,
}

impl From<NameCount> for NameJson {
    fn from(listed: NameCount) -> NameJson {
        let NameCount { name, events, first, last, .. } = listed;
        NameJson { name, events, first: first.get(), last: last.get() }
    }
}

pub fn entities(names: Names, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    list("entity", place.to_read()?.entities(), names, out)
}

pub fn kinds(names: Names, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    list("kind", place.to_read()?.kinds(), names, out)
}

pub fn scopes(names: Names, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    list("scope", place.to_read()?.scopes(), names, out)
}

pub fn tags(names: Names, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    list("tag", place.to_read()?.tags(), names, out)
}

fn list(head: &str, mut listing: Listing, names: Names, out: &mut Output) -> Result<Done, Failure> {
    if let Some(prefix) = names.prefix {
        listing = listing.prefix(prefix);
    }
    if let Some(after) = names.after {
        listing = listing.after(after);
    }
    if let Some(limit) = names.limit {
        listing = listing.limit(limit);
    }
    let items = listing.map(|listed| Ok(NameJson::from(listed?)));
    out.list(&[head, "events", "first", "last"], items, |item| {
        vec![item.name.clone(), item.events.to_string(), item.first.to_string(), item.last.to_string()]
    })?;
    Ok(Done::Yes)
}
