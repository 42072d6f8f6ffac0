//! `annals recover --salvage`: copies what can be read of a store into a new one.
//!
//! Ids, names, tags, causes, times and payloads stay. Positions and versions are those of the new store,
//! because missing events leave no gaps there. The store's own events (checkpoints of consumers) are left
//! out.

use std::collections::HashMap;
use std::path::Path;

use annals::{Append, Cause, EventData, Limits, Query, RecordedEvent, Store, Ticket};
use serde_json::{Value, json};

use crate::failure::{Answer, Failure};
use crate::interrupt;
use crate::output::{Output, counted};
use crate::progress::Bar;
use crate::target::{self, Content, Target, inspect};

/// Appends that wait for their acknowledgement at once.
const IN_FLIGHT: usize = 1024;

pub fn salvage(target: &Target, from: &Path, to: &Path, out: &mut Output) -> Result<Answer, Failure> {
    if !matches!(inspect(to)?, Content::Nothing | Content::EmptyDirectory) {
        let text = format!("{} is not empty; what is salvaged goes into a new store", to.display());
        return Err(Failure::usage(text));
    }
    let begin_again = format!("remove {} and begin again", to.display());
    let damaged = target.builder(from)?.salvage()?;
    interrupt::to_continue(&begin_again);
    // The limits of the format: the new store accepts every event of the damaged one.
    let new = Store::builder(to).limits(Limits::FORMAT).open()?;
    interrupt::note(|plan| plan.store = Some(new.clone()));
    interrupt::will_poll();
    let counts = copy(&damaged, &new).map_err(|failure| failure.hint(&begin_again))?;
    let head = new.head()?.to_string();
    target::close(new)?;
    let events = counted(counts.events, "event is", "events are");
    interrupt::done(format!("{events} copied into {}", to.display()));
    show(&damaged, counts, &head, out)?;
    Ok(if damaged.open_report().holes.is_empty() { Answer::Yes } else { Answer::No })
}

#[derive(Clone, Copy, Default)]
struct CopyCounts {
    events: u64,
    appends: u64,
    /// Events whose payload was erased. They are not copied.
    erased: u64,
}

fn copy(from: &Store, to: &Store) -> Result<CopyCounts, Failure> {
    let mut counts = CopyCounts::default();
    let mut under_way = Vec::new();
    let mut versions = HashMap::new();
    let mut append: Option<([u8; 32], Append)> = None;
    let bar = Bar::events("copying");
    let total = from.head()?.position().get();
    for event in from.read(Query::all()) {
        let event = event?;
        if bar.step(event.position().get(), total).is_break() {
            return Err(Failure::no("broken off, as asked"));
        }
        if event.payload().is_err() {
            counts.erased += 1;
            continue;
        }
        counts.events += 1;
        // All events of an append have the same chain hash.
        append = match append.take() {
            Some((chain, append)) if chain == event.chain() => {
                Some((chain, add(Some(append), &event, &mut versions)?))
            }
            done => {
                if let Some((_, done)) = done {
                    counts.appends += 1;
                    submit(done, to, &mut under_way)?;
                }
                Some((event.chain(), add(None, &event, &mut versions)?))
            }
        };
    }
    if let Some((_, last)) = append {
        counts.appends += 1;
        submit(last, to, &mut under_way)?;
    }
    wait(&mut under_way)?;
    Ok(counts)
}

fn submit(append: Append, to: &Store, under_way: &mut Vec<Ticket>) -> Result<(), Failure> {
    under_way.push(append.submit(to)?);
    if under_way.len() < IN_FLIGHT { Ok(()) } else { wait(under_way) }
}

fn wait(under_way: &mut Vec<Ticket>) -> Result<(), Failure> {
    under_way.drain(..).try_for_each(|ticket| Ok(ticket.wait().map(drop)?))
}

/// An event whose payload is copied byte for byte.
struct Copied<'a>(&'a RecordedEvent);

impl EventData for Copied<'_> {
    fn kind(&self) -> &str {
        self.0.kind()
    }

    fn schema_version(&self) -> u16 {
        self.0.schema_version()
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), annals::Error> {
        out.extend_from_slice(self.0.payload()?);
        Ok(())
    }
}

/// The last version that was read of each entity.
type Versions = HashMap<String, u64>;

fn add(before: Option<Append>, event: &RecordedEvent, versions: &mut Versions) -> Result<Append, Failure> {
    let address = (event.entity(), event.scope());
    let append = match before {
        Some(append) => append.and_to(address),
        None => Append::to(address),
    };
    let mut append = append.event(&Copied(event)).foreign_id(event.id()).correlation(event.correlation());
    append = event.tags().fold(append, |append, tag| append.tag(tag));
    append = append.occurred_at(event.occurred_at().unwrap_or_else(|| event.recorded_at()));
    if let Some(metadata) = event.metadata::<annals::Value>()? {
        append = append.metadata(&metadata);
    }
    let version = event.version().get();
    let before = versions.insert(event.entity().to_owned(), version);
    match event.cause() {
        // After a gap the previous event in the new store is another one, and not the cause.
        Some(Cause::PreviousInStream) if before != version.checked_sub(1) => Ok(append),
        Some(cause) => Ok(append.cause(cause)),
        None => Ok(append),
    }
}

fn show(damaged: &Store, counts: CopyCounts, head: &str, out: &mut Output) -> Result<(), Failure> {
    let holes = &damaged.open_report().holes;
    let mut facts = vec![
        ("events copied", counts.events.to_string()),
        ("in appends", counts.appends.to_string()),
        ("erased, left out", counts.erased.to_string()),
        ("new head", head.to_owned()),
    ];
    facts.extend(holes.iter().map(|hole| ("hole", hole.to_string())));
    let holes: Vec<Value> = holes
        .iter()
        .map(|hole| json!({ "file": hole.file, "offset": hole.offset, "position": hole.position.get(), "what": hole.what }))
        .collect();
    let CopyCounts { events, appends, erased } = counts;
    out.facts(
        &facts,
        &json!({ "events": events, "appends": appends, "erased": erased, "head": head, "holes": holes }),
    )
}
