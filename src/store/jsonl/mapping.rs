//! How to read foreign lines.

use super::json::NumberRule;
use super::line::{self, Incoming, LineContent, PlaceInAppend};
use super::time::{TimeForm, likely_unit};
use crate::event::Value;
use crate::types::{DEFAULT_SCOPE, Error, EventId};

/// Turns foreign JSONL into events: one object a line, one append each. A text says what each part of the
/// event is.
///
/// In such a text `{/user/id}` stands for the value at that JSON pointer: a string, a whole number, or a
/// boolean. The payload is the whole line, unless [`Mapping::payload`] names a part.
///
/// ```
/// use annals::{Mapping, Query, Store, TimeForm};
///
/// let log = br#"{"at":"2026-11-28T15:53:58Z","user":{"id":7},"action":"login","ip":"10.0.0.1"}
/// {"at":"2026-11-28T16:02:11Z","user":{"id":7},"action":"logout"}
/// "#;
/// let mapping = Mapping::new("user:{/user/id}", "session.{/action}")
///     .time("/at", TimeForm::Rfc3339)
///     .tag("ip:{/ip}");
/// let store = Store::in_memory()?;
/// let imported = store.import("sessions", log.as_slice()).mapped(mapping).run()?;
/// assert_eq!(imported.events, 2);
/// let login = store.stream("user:7").next().unwrap()?;
/// assert_eq!((login.kind(), login.tags().next()), ("session.login", Some("ip:10.0.0.1")));
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    entity: String,
    kind: String,
    scope: String,
    tags: Vec<String>,
    id: Option<String>,
    time: Option<(String, TimeForm)>,
    payload: String,
}

impl Mapping {
    /// The entity and the kind of each line: `"user:{/user/id}"`, `"session.{/action}"`, or a constant text.
    #[must_use]
    pub fn new(entity: impl Into<String>, kind: impl Into<String>) -> Mapping {
        Mapping {
            entity: entity.into(),
            kind: kind.into(),
            scope: DEFAULT_SCOPE.to_owned(),
            tags: Vec::new(),
            id: None,
            time: None,
            payload: String::new(),
        }
    }

    /// The scope: `"tenant:{/tenant}"`.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Mapping {
        self.scope = scope.into();
        self
    }

    /// A tag: `"ip:{/ip}"`. A line without a value at a pointer does not get the tag. Call again for more
    /// tags.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Mapping {
        self.tags.push(tag.into());
        self
    }

    /// A pointer to a UUID, which becomes the foreign id.
    #[must_use]
    pub fn id(mut self, pointer: impl Into<String>) -> Mapping {
        self.id = Some(pointer.into());
        self
    }

    /// A pointer to the time at which the event happened, and its form. It becomes occurred-at.
    #[must_use]
    pub fn time(mut self, pointer: impl Into<String>, form: TimeForm) -> Mapping {
        self.time = Some((pointer.into(), form));
        self
    }

    /// A pointer to the payload (default: the whole line).
    #[must_use]
    pub fn payload(mut self, pointer: impl Into<String>) -> Mapping {
        self.payload = pointer.into();
        self
    }

    pub(super) fn read(&self, line: &[u8], numbers: NumberRule) -> Result<Incoming, Error> {
        let value = line::foreign(line, numbers)?;
        let tags = self.tags.iter().filter_map(|tag| filled(tag, &value).transpose());
        Ok(Incoming {
            entity: required(&self.entity, &value)?,
            scope: required(&self.scope, &value)?,
            kind: required(&self.kind, &value)?,
            schema_version: 1,
            tags: tags.collect::<Result<_, _>>()?,
            id: self.id.as_deref().map(|pointer| id_at(pointer, &value)).transpose()?,
            correlation: None,
            cause: None,
            occurred_at: self
                .time
                .as_ref()
                .map(|(pointer, form)| time_at(pointer, *form, &value))
                .transpose()?,
            metadata: Vec::new(),
            content: LineContent::Payload(line::encoded(at(&self.payload, &value)?)?),
            place: PlaceInAppend(0, 1),
            version: 0,
            position: 0,
            recorded_at: 0,
        })
    }
}

fn at<'a>(pointer: &str, value: &'a Value) -> Result<&'a Value, Error> {
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return Err(Error::invalid(format!("{pointer:?} is no JSON pointer: one begins with a slash")));
    }
    value.at(pointer).ok_or_else(|| Error::invalid(format!("there is no {pointer} in it")))
}

fn id_at(pointer: &str, value: &Value) -> Result<EventId, Error> {
    let text: String = at(pointer, value)?.to()?;
    text.parse().map_err(|_| Error::invalid(format!("{pointer} is no UUID: {text:?}")))
}

fn time_at(pointer: &str, form: TimeForm, value: &Value) -> Result<i64, Error> {
    let time = at(pointer, value)?;
    form.read(time).ok_or_else(|| {
        let unit = time.to::<i64>().ok().and_then(likely_unit);
        let unit = unit.map_or_else(String::new, |(unit, time)| format!("; counted in {unit} it is {time}"));
        Error::invalid(format!("{pointer} is no time ({form:?}): {time:?}{unit}"))
    })
}

fn required(text: &str, value: &Value) -> Result<String, Error> {
    filled(text, value)?
        .ok_or_else(|| Error::invalid(format!("a pointer of {text:?} leads to nothing in it")))
}

/// A text with the values of its pointers; `None` if one has no value.
fn filled(text: &str, value: &Value) -> Result<Option<String>, Error> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("{/") {
        let (pointer, behind) = behind.split_once('}').ok_or_else(|| {
            Error::invalid(format!("the pointer in {text:?} has no end; one looks like {{/user/id}}"))
        })?;
        let Some(found) = value.at(&format!("/{pointer}")).filter(|found| !found.is_nil()) else {
            return Ok(None);
        };
        let label = found.label().ok_or_else(|| {
            Error::invalid(format!("/{pointer} is no text, whole number or truth: {found:?}"))
        })?;
        filled.push_str(before);
        filled.push_str(&label);
        rest = behind;
    }
    filled.push_str(rest);
    Ok(Some(filled))
}
