//! Events that wait in a timer.

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

use crate::engine::Append;
use crate::types::{Error, EventData};

/// An event as it is to be appended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) entity: String,
    pub(super) scope: String,
    kind: String,
    #[serde(rename = "v")]
    schema_version: u16,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(super) tags: Vec<String>,
    payload: Payload,
}

/// Kept as bytes, not as an array of numbers.
#[derive(Clone, Debug)]
struct Payload(Vec<u8>);

impl EventData for Kept {
    fn kind(&self) -> &str {
        &self.kind
    }

    fn schema_version(&self) -> u16 {
        self.schema_version
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        out.extend_from_slice(&self.payload.0);
        Ok(())
    }
}

/// The events of an append that is nothing but events.
pub(super) fn keep(append: &Append) -> Result<Vec<Kept>, Error> {
    let draft = append.draft()?;
    if draft.is_conditional() {
        return Err(Error::invalid(
            "an append in a timer cannot have an expectation, a condition or a key; say when it is not to happen with unless(query)",
        ));
    }
    if draft.has_system_events() {
        return Err(Error::invalid(
            "the append in the timer sets a timer itself; set both with the same append",
        ));
    }
    let Some(proposed) = append.proposed() else {
        return Err(Error::invalid("the append in the timer has no event; add one"));
    };
    let kept = proposed.events().map(|event| Kept {
        entity: event.entity().to_owned(),
        scope: event.scope().to_owned(),
        kind: event.kind().to_owned(),
        schema_version: event.schema_version(),
        tags: event.tags().map(str::to_owned).collect(),
        payload: Payload(event.payload().to_vec()),
    });
    Ok(kept.collect())
}

/// The append that these events become.
pub(super) fn append_of(events: &[Kept]) -> Append {
    let mut append = Append::empty();
    for event in events {
        append = append.and_to((event.entity.as_str(), event.scope.as_str())).event(event);
        append = event.tags.iter().fold(append, |append, tag| append.tag(tag));
    }
    append
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Payload, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Payload;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Payload, E> {
                Ok(Payload(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}
