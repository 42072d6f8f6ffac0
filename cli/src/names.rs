//! `annals entities`, `kinds`, `scopes` and `tags`: list names with their counts.

use annals::{Listing, NameCount};
use serde::Serialize;

use crate::args::Names;
use crate::failure::{Answer, Failure};
use crate::output::Output;
use crate::target::Target;

#[derive(Serialize)]
struct NameRow {
    name: String,
    events: u64,
    first: u64,
    last: u64,
}

impl NameRow {
    fn new(listed: NameCount) -> NameRow {
        let NameCount { name, events, first, last, .. } = listed;
        NameRow { name, events, first: first.get(), last: last.get() }
    }

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), self.events.to_string(), self.first.to_string(), self.last.to_string()]
    }
}

pub fn entities(names: Names, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    list("entity", target.to_read()?.entities(), names, out)
}

pub fn kinds(names: Names, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    list("kind", target.to_read()?.kinds(), names, out)
}

pub fn scopes(names: Names, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    list("scope", target.to_read()?.scopes(), names, out)
}

pub fn tags(names: Names, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    list("tag", target.to_read()?.tags(), names, out)
}

fn list(head: &str, mut listing: Listing, names: Names, out: &mut Output) -> Result<Answer, Failure> {
    if let Some(prefix) = names.prefix {
        listing = listing.prefix(prefix);
    }
    if let Some(after) = names.after {
        listing = listing.after(after);
    }
    if let Some(limit) = names.limit {
        listing = listing.limit(limit);
    }
    let rows = listing.map(|listed| Ok(NameRow::new(listed?)));
    out.list(&[head, "events", "first", "last"], rows, NameRow::cells)?;
    Ok(Answer::Yes)
}
