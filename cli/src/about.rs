//! `annals init`, `head`, `stats` and `describe`: creates a store, and says what a store holds and where.

use annals::{Description, StoreFile};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::args::Head;
use crate::failure::{Answer, Failure};
use crate::interrupt;
use crate::output::{Format, Output, bytes};
use crate::target::{self, Target};

pub fn init(target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    let path = target.path()?.display().to_string();
    let store = target.to_create()?;
    let created = store.open_report().created;
    let head = store.head()?;
    if created {
        interrupt::done(format!("the store {path} is created"));
    }
    target::close(store)?;
    let document = json!({ "path": path, "created": created, "store_id": head.store_id().to_string() });
    let state = if created { "created" } else { "was there already" };
    let facts = [("store", path), ("state", state.to_owned()), ("id", head.store_id().to_string())];
    out.facts(&facts, &document)?;
    Ok(Answer::Yes)
}

pub fn head(head: Head, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    let store = target.to_read()?;
    let head = if head.durable { store.durable_head()? } else { store.head()? };
    match out.format() {
        Format::Json => {
            let chain: String = head.chain().iter().map(|byte| format!("{byte:02x}")).collect();
            out.document(&json!({
                "head": head.to_string(), "position": head.position().get(), "chain": chain,
                "store_id": head.store_id().to_string(),
            }))?;
        }
        Format::Plain | Format::Table => out.text(&head.to_string())?,
    }
    Ok(Answer::Yes)
}

pub fn stats(target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    let store = target.to_read()?;
    let stats = store.stats();
    let writer = format!("{:?}", store.writer()?);
    let kinds = count(store.kinds())?;
    let scopes = count(store.scopes())?;
    let head = stats.head.get();
    let durable_head = stats.durable_head.get();
    let document = json!({
        "events": stats.events, "bytes": stats.bytes, "segments": stats.segments, "entities": stats.entities,
        "kinds": kinds, "scopes": scopes, "head": head, "durable_head": durable_head, "writer": writer,
    });
    let facts = [
        ("events", stats.events.to_string()),
        ("bytes", bytes(stats.bytes)),
        ("segments", stats.segments.to_string()),
        ("entities", stats.entities.to_string()),
        ("kinds", kinds.to_string()),
        ("scopes", scopes.to_string()),
        ("head", head.to_string()),
        ("durable head", durable_head.to_string()),
        ("writer", writer),
    ];
    out.facts(&facts, &document)?;
    Ok(Answer::Yes)
}

fn count(listing: annals::Listing) -> Result<usize, Failure> {
    Ok(listing.collect::<Result<Vec<_>, _>>()?.len())
}

pub fn describe(target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    let description = target.to_read()?.describe()?;
    match out.format() {
        Format::Json => out.document(&document(&description))?,
        Format::Plain => out.text(&description.to_string())?,
        Format::Table => table(&description, out)?,
    }
    Ok(Answer::Yes)
}

#[derive(Serialize)]
struct StoreFileRow<'a> {
    name: &'a str,
    files: usize,
    bytes: u64,
    why: &'static str,
}

impl<'a> StoreFileRow<'a> {
    const HEADS: [&'static str; 4] = ["name", "files", "bytes", "why"];

    fn new(part: &'a StoreFile) -> StoreFileRow<'a> {
        StoreFileRow { name: &part.name, files: part.files, bytes: part.bytes, why: part.why }
    }

    fn cells(&self) -> Vec<String> {
        vec![self.name.to_owned(), self.files.to_string(), bytes(self.bytes), self.why.to_owned()]
    }
}

fn table(description: &Description, out: &mut Output) -> Result<(), Failure> {
    let Description { place, store_id, line, head, durable_head, writer, parts, options, .. } = description;
    let facts = [
        ("store", store_id.clone()),
        ("line", line.clone().unwrap_or_else(|| "not known".to_owned())),
        ("in", place.clone()),
        ("head", head.to_string()),
        ("durable head", durable_head.to_string()),
        ("writer", format!("{writer:?}")),
    ];
    out.facts(&facts, &())?;
    let rows = parts.iter().map(|part| Ok(StoreFileRow::new(part)));
    out.list(&StoreFileRow::HEADS, rows, StoreFileRow::cells)?;
    out.list(&["option", "value"], options.iter().map(Ok), |(name, value)| {
        vec![(*name).to_owned(), value.clone()]
    })
}

fn document(description: &Description) -> Value {
    let Description { place, store_id, line, head, durable_head, writer, parts, options, .. } = description;
    let parts: Vec<StoreFileRow<'_>> = parts.iter().map(StoreFileRow::new).collect();
    let options: Map<String, Value> =
        options.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
    json!({
        "place": place, "store_id": store_id, "line": line, "head": head.get(), "durable_head": durable_head.get(),
        "writer": format!("{writer:?}"), "parts": parts, "options": options,
    })
}
