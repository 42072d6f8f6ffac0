//! A line: an event as JSON, and back; and foreign lines, read by a [`Mapping`].
//!
//! Payload and metadata are MessagePack in the store. A line holds them as JSON if that JSON encodes to the
//! same bytes, and as Base64 otherwise. So an exported event comes back bit by bit. docs/jsonl.md has the
//! schema.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::json::{NumberRule, bad, check, unreadable, utf8, value};
use super::time::{TimeForm, Timestamp, likely_unit};
use crate::event::{RecordedEvent, Value, codec};
use crate::types::{DEFAULT_SCOPE, Error, EventId, visible_json};

/// The fields of a line, in the order in which they are written.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonLine<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<EventId>,
    #[serde(borrow)]
    entity: Cow<'a, str>,
    #[serde(borrow, default = "default_scope")]
    scope: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(default = "one")]
    schema_version: u16,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recorded_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    occurred_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation: Option<EventId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<EventId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    append: Option<PlaceInAppend>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    metadata_base64: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    payload_base64: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    erased: Option<Cow<'a, str>>,
}

/// Which event of its append a line is, from 0, and how many events the append has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PlaceInAppend(pub(super) u32, pub(super) u32);

fn one() -> u16 {
    1
}

fn default_scope<'a>() -> Cow<'a, str> {
    Cow::Borrowed(DEFAULT_SCOPE)
}

/// Keeps a `null` as a value.
fn some<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// The names of an event in its line that depend on other lines.
pub(super) struct LineNames {
    pub(super) correlation: EventId,
    pub(super) cause: Option<EventId>,
    pub(super) place: PlaceInAppend,
}

/// Writes the line of an event, with its line end.
pub(super) fn write(out: &mut Vec<u8>, event: &RecordedEvent, named: &LineNames) {
    let metadata = event.metadata_bytes();
    let payload = event.payload().unwrap_or_default();
    let erased = metadata.err().map(|hash| Cow::Owned(blake3::Hash::from_bytes(hash).to_hex().to_string()));
    let metadata = metadata.ok().filter(|bytes| !bytes.is_empty()).map(PayloadForm::of);
    let payload = erased.is_none().then(|| PayloadForm::of(payload));
    let line = JsonLine {
        position: Some(event.position().get()),
        id: Some(event.id()),
        entity: event.entity().into(),
        scope: event.scope().into(),
        kind: event.kind().into(),
        version: Some(event.version().get()),
        schema_version: event.schema_version(),
        tags: event.tags().map(Cow::Borrowed).collect(),
        recorded_at: Some(event.recorded_at().into()),
        occurred_at: event.occurred_at().map(Timestamp::from),
        correlation: Some(named.correlation),
        cause: named.cause,
        append: (named.place != PlaceInAppend(0, 1)).then_some(named.place),
        key: event.append_key().map(|key| Cow::Owned(format!("{:032x}", u128::from_be_bytes(key)))),
        metadata: metadata.as_ref().and_then(PayloadForm::json),
        metadata_base64: metadata.as_ref().and_then(PayloadForm::base64),
        payload: payload.as_ref().and_then(PayloadForm::json),
        payload_base64: payload.as_ref().and_then(PayloadForm::base64),
        erased,
    };
    let json = serde_json::to_string(&line).expect("a line has names for keys, and memory takes all bytes");
    out.extend_from_slice(visible_json(&json).as_bytes());
    out.push(b'\n');
}

/// A payload as it stands in a line.
enum PayloadForm {
    Json(Box<RawValue>),
    Base64(String),
}

impl PayloadForm {
    fn of(bytes: &[u8]) -> PayloadForm {
        exact_json(bytes).map_or_else(|| PayloadForm::Base64(BASE64.encode(bytes)), PayloadForm::Json)
    }

    fn json(&self) -> Option<&RawValue> {
        if let PayloadForm::Json(json) = self { Some(json) } else { None }
    }

    fn base64(&self) -> Option<Cow<'_, str>> {
        if let PayloadForm::Base64(text) = self { Some(text.into()) } else { None }
    }
}

/// Deeper JSON is not read.
const LEVELS_MAX: usize = 128;

/// The JSON that encodes to exactly these bytes of MessagePack.
fn exact_json(bytes: &[u8]) -> Option<Box<RawValue>> {
    let value: Value = codec::decode_shallow(bytes, LEVELS_MAX).ok()?;
    let json = to_raw_value(&value).ok()?;
    let comes_back = packed(&json).ok()? == bytes && check(json.get(), NumberRule::Rounded).is_ok();
    comes_back.then_some(json)
}

/// The MessagePack of a JSON text.
fn packed(json: &RawValue) -> Result<Vec<u8>, Error> {
    encoded(&value(json.get().as_bytes())?)
}

fn encoded(value: &Value) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    codec::encode(value, &mut bytes).map_err(|error| codec::does_not_encode("the JSON", error))?;
    Ok(bytes)
}

/// An event that was read from a line.
pub(super) struct Incoming {
    pub(super) entity: String,
    pub(super) scope: String,
    pub(super) kind: String,
    pub(super) schema_version: u16,
    pub(super) tags: Vec<String>,
    pub(super) id: Option<EventId>,
    pub(super) correlation: Option<EventId>,
    pub(super) cause: Option<EventId>,
    pub(super) occurred_at: Option<i64>,
    pub(super) metadata: Vec<u8>,
    pub(super) content: LineContent,
    pub(super) place: PlaceInAppend,
    /// The event's place in its source; 0 where the line has none.
    pub(super) version: u64,
    pub(super) position: u64,
    pub(super) recorded_at: i64,
}

/// The content of an event.
pub(super) enum LineContent {
    Payload(Vec<u8>),
    /// The content was erased; this is its hash.
    Erased([u8; 32]),
}

/// Reads a line that [`write`] wrote, or that another program wrote by the same rules.
pub(super) fn read(line: &[u8], numbers: NumberRule) -> Result<Incoming, Error> {
    // serde would read a JSON list as the fields of an event in order.
    if line.first() != Some(&b'{') && value(line).is_ok() {
        return Err(bad(
            "column 1: an event is an object, such as {\"entity\":\"a\",\"kind\":\"b\",\"payload\":1}",
        ));
    }
    let text = utf8(line)?;
    let line: JsonLine<'_> = serde_json::from_str(text).map_err(|error| unreadable(&error))?;
    check(text, numbers)?;
    let metadata = bytes("metadata", line.metadata, line.metadata_base64.as_deref())?;
    let payload = bytes("payload", line.payload, line.payload_base64.as_deref())?;
    let content = match (payload, &line.erased) {
        (Some(payload), None) => LineContent::Payload(payload),
        (None, Some(hash)) if metadata.is_none() => LineContent::Erased(hash_of(hash)?),
        (None, None) => return Err(bad("there is no payload: give payload, payload_base64 or erased")),
        _ => return Err(bad("what is erased has no payload and no metadata: give one or the other")),
    };
    if line.version == Some(0) {
        return Err(bad("the version is 0, but the first event of an entity has version 1"));
    }
    let recorded_at = line.recorded_at.map(Timestamp::micros);
    Ok(Incoming {
        entity: line.entity.into_owned(),
        scope: line.scope.into_owned(),
        kind: line.kind.into_owned(),
        schema_version: line.schema_version,
        tags: line.tags.into_iter().map(Cow::into_owned).collect(),
        id: line.id,
        correlation: line.correlation,
        cause: line.cause,
        occurred_at: line.occurred_at.map(Timestamp::micros).or(recorded_at),
        metadata: metadata.unwrap_or_default(),
        content,
        place: line.append.unwrap_or(PlaceInAppend(0, 1)),
        version: line.version.unwrap_or(0),
        position: line.position.unwrap_or(0),
        recorded_at: recorded_at.unwrap_or(0),
    })
}

fn bytes(what: &str, json: Option<&RawValue>, base64: Option<&str>) -> Result<Option<Vec<u8>>, Error> {
    match (json, base64) {
        (None, None) => Ok(None),
        (Some(json), None) => packed(json).map(Some),
        (None, Some(text)) => BASE64
            .decode(text)
            .map(Some)
            .map_err(|error| bad(&format!("{what}_base64 is no Base64: {error}"))),
        (Some(_), Some(_)) => Err(bad(&format!("there are both {what} and {what}_base64; give one"))),
    }
}

fn hash_of(hex: &str) -> Result<[u8; 32], Error> {
    let hash = blake3::Hash::from_hex(hex);
    hash.map(Into::into).map_err(|_| bad("erased is no hash of 64 hexadecimal digits"))
}

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
        let value = value(line)?;
        check(utf8(line)?, numbers)?;
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
            content: LineContent::Payload(encoded(at(&self.payload, &value)?)?),
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
