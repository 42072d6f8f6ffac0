//! An event as JSON, as a row, as a coloured line, and as a list of facts.

use annals::{Cause, RecordedEvent, visible, visible_json};
use owo_colors::OwoColorize;
use serde::Serialize;
use serde_json::Value;

use crate::json;
use crate::output::{Format, columns, cut};
use crate::values::rfc3339;

/// The schema is in docs/command.md, "Events and payloads as JSON".
#[derive(Serialize)]
pub struct EventJson<'a> {
    position: u64,
    id: String,
    entity: &'a str,
    version: u64,
    scope: &'a str,
    kind: &'a str,
    schema_version: u16,
    tags: Vec<&'a str>,
    recorded_at: String,
    occurred_at: Option<String>,
    correlation: String,
    cause: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Value>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    erased: bool,
}

impl<'a> EventJson<'a> {
    pub fn of(event: &'a RecordedEvent) -> EventJson<'a> {
        let payload = json::payload(event);
        EventJson {
            position: event.position().get(),
            id: event.id().to_string(),
            entity: event.entity(),
            version: event.version().get(),
            scope: event.scope(),
            kind: event.kind(),
            schema_version: event.schema_version(),
            tags: event.tags().collect(),
            recorded_at: rfc3339(event.recorded_at()),
            occurred_at: event.occurred_at().map(rfc3339),
            correlation: event.correlation().to_string(),
            cause: event.cause().map(cause),
            metadata: json::metadata(event),
            erased: payload.is_none(),
            payload,
        }
    }
}

/// A cause in the words of `append --cause`, where it has any.
fn cause(cause: Cause) -> String {
    match cause {
        Cause::Event(id) => id.to_string(),
        Cause::PreviousInStream => "previous".to_owned(),
        Cause::InAppend(index) => format!("event {index} of its append"),
    }
}

fn payload_text(event: &RecordedEvent) -> String {
    json::payload(event).map_or_else(|| "(erased)".to_owned(), |payload| shown(&payload))
}

fn shown(value: &Value) -> String {
    visible_json(&value.to_string()).into_owned()
}

/// The cells of a row.
pub fn cells(event: &RecordedEvent) -> Vec<String> {
    let tags: Vec<&str> = event.tags().collect();
    vec![
        event.position().to_string(),
        rfc3339(event.recorded_at()),
        event.scope().to_owned(),
        event.entity().to_owned(),
        event.version().to_string(),
        event.kind().to_owned(),
        tags.join(","),
        payload_text(event),
    ]
}

/// The line for a terminal of `width` columns. A payload that does not fit is cut off.
pub fn coloured_line(event: &RecordedEvent, width: usize) -> String {
    let position = format!("@{}", event.position());
    let time = rfc3339(event.recorded_at());
    let time = time.get(..19).unwrap_or(&time).replace('T', " ");
    let version = format!("v{}", event.version());
    let tags: String = event.tags().map(|tag| format!(" #{}", visible(tag))).collect();
    let entity = visible(event.entity());
    let kind = visible(event.kind());
    let names = [&position, &time, &*entity, &version, &*kind, &tags];
    let taken = names.iter().map(|name| columns(name) + 1).sum::<usize>();
    let payload = cut(&payload_text(event), width.saturating_sub(taken + 1));
    format!(
        "{} {} {} {} {}{} {payload}",
        position.yellow(),
        time.dimmed(),
        entity.bold(),
        version,
        kind.cyan(),
        tags.magenta(),
    )
}

/// All facts of an event; facts without a value are left out.
pub fn facts(event: &RecordedEvent, format: Format) -> Vec<(&'static str, String)> {
    let json = EventJson::of(event);
    let pretty = |value: &Value| match format {
        Format::Table => visible_json(&serde_json::to_string_pretty(value).unwrap_or_default()).into_owned(),
        Format::Plain | Format::Json => shown(value),
    };
    let chain: String = event.chain().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut facts = vec![
        ("position", json.position.to_string()),
        ("id", json.id),
        ("entity", json.entity.to_owned()),
        ("version", json.version.to_string()),
        ("scope", json.scope.to_owned()),
        ("kind", json.kind.to_owned()),
        ("schema version", json.schema_version.to_string()),
        ("tags", json.tags.join(", ")),
        ("recorded at", json.recorded_at),
        ("occurred at", json.occurred_at.unwrap_or_default()),
        ("correlation", json.correlation),
        ("cause", json.cause.unwrap_or_default()),
        ("chain", chain),
        ("metadata", json.metadata.as_ref().map(pretty).unwrap_or_default()),
        ("payload", json.payload.as_ref().map_or_else(|| "(erased)".to_owned(), pretty)),
    ];
    facts.retain(|(_, value)| !value.is_empty());
    facts
}
