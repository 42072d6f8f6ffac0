//! What a store is, and where it stands.

use annals::{Description, StoreFile};
use serde_json::{Value, json};

use crate::args::Head;
use crate::failure::{Done, Failure};
use crate::interrupt;
use crate::output::{Form, Output, bytes};
use crate::place::{self, Place};

pub fn init(place: &Place, out: &mut Output) -> Result<Done, Failure> {
    let path = place.path()?.display().to_string();
    let store = place.to_create()?;
    let (created, head) = (store.open_report().created, store.head()?);
    if created {
        interrupt::done(format!("the store {path} is created"));
    }
    place::close(store)?;
    let document = json!({ "path": path, "created": created, "store_id": head.store_id().to_string() });
    let state = if created { "created" } else { "was there already" };
    let facts = [("store", path), ("state", state.to_owned()), ("id", head.store_id().to_string())];
    out.facts(&facts, &document)?;
    Ok(Done::Yes)
}

pub fn head(head: Head, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    let store = place.to_read()?;
    let head = if head.durable { store.durable_head()? } else { store.head()? };
    match out.form() {
        Form::Json => {
            let chain: String = head.chain().iter().map(|byte| format!("{byte:02x}")).collect();
            let (position, store_id) = (head.position().get(), head.store_id().to_string());
            let text = head.to_string();
            out.document(
                &json!({ "head": text, "position": position, "chain": chain, "store_id": store_id }),
            )?;
        }
        Form::Plain | Form::Table => out.text(&head.to_string())?,
    }
    Ok(Done::Yes)
}

pub fn stats(place: &Place, out: &mut Output) -> Result<Done, Failure> {
    let store = place.to_read()?;
    let (stats, writer) = (store.stats(), format!("{:?}", store.writer()?));
    let (kinds, scopes) = (count(store.kinds())?, count(store.scopes())?);
    let (head, durable_head) = (stats.head.get(), stats.durable_head.get());
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
    Ok(Done::Yes)
}

fn count(listing: annals::Listing) -> Result<usize, Failure> {
    Ok(listing.collect::<Result<Vec<_>, _>>()?.len())
}

pub fn describe(place: &Place, out: &mut Output) -> Result<Done, Failure> {
    let description = place.to_read()?.describe()?;
    match out.form() {
        Form::Json => out.document(&document(&description))?,
        Form::Plain => out.text(&description.to_string())?,
        Form::Table => table(&description, out)?,
    }
    Ok(Done::Yes)
}

fn table(description: &Description, out: &mut Output) -> Result<(), Failure> {
    let Description { place, store_id, head, durable_head, writer, .. } = description;
    let facts = [
        ("store", store_id.clone()),
        ("in", place.clone()),
        ("head", head.to_string()),
        ("durable head", durable_head.to_string()),
        ("writer", format!("{writer:?}")),
    ];
    out.facts(&facts, &Value::Null)?;
    let parts = description.parts.iter().map(|part| Ok(part_json(part)));
    let cell = |part: &Value, name: &str| part[name].as_str().unwrap_or_default().to_owned();
    out.list(&["name", "files", "bytes", "why"], parts, |part| {
        let (files, size) = (part["files"].to_string(), part["bytes"].as_u64().unwrap_or(0));
        vec![cell(part, "name"), files, bytes(size), cell(part, "why")]
    })?;
    let options = description.options.iter().map(|(name, value)| Ok((*name, value.clone())));
    out.list(&["option", "value"], options, |(name, value)| vec![(*name).to_owned(), value.clone()])?;
    Ok(())
}

fn document(description: &Description) -> Value {
    let Description { place, store_id, head, durable_head, writer, parts, options, .. } = description;
    let parts: Vec<Value> = parts.iter().map(part_json).collect();
    let options: serde_json::Map<String, Value> =
        options.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
    json!({
        "place": place, "store_id": store_id, "head": head.get(), "durable_head": durable_head.get(),
        "writer": format!("{writer:?}"), "parts": parts, "options": options,
    })
}

fn part_json(part: &StoreFile) -> Value {
    json!({ "name": part.name, "files": part.files, "bytes": part.bytes, "why": part.why })
}
