//! Payloads as JSON, and JSON as payloads. Markers stand for values of MessagePack that JSON cannot hold.
//!
//! | JSON | payload |
//! |---|---|
//! | `{"$bytes": "aGk="}` | a byte string, in base64 |
//! | `{"$float": "NaN"}` | a float that is no number: `NaN`, `inf`, `-inf` |
//! | `{"$map": [[1, "one"]]}` | a map whose keys are no texts, or come twice, or look like a marker |
//! | `{"$ext": [5, "aGk="]}` | an extension of MessagePack |
//! | `{"$raw": "wQ=="}` | as a whole payload: bytes that are no MessagePack |
//!
//! A payload that is shown and appended again stays the same, except that 32-bit floats become 64-bit floats.

use std::fmt;

use annals::{Error, EventData, Raw, RecordedEvent};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Number, Value, json};

use crate::words;

const BYTES: &str = "$bytes";
const FLOAT: &str = "$float";
const MAP: &str = "$map";
const EXTENSION: &str = "$ext";
const RAW: &str = "$raw";

/// What `rmp_serde` calls an extension.
const EXTENSION_STRUCT: &str = "_ExtStruct";

/// The payload of an event; `None` if it was erased.
pub fn payload(event: &RecordedEvent) -> Option<Value> {
    let bytes = event.payload().ok()?;
    Some(match event.decode::<FromMessagePack>() {
        Ok(shown) => shown.0,
        Err(_) => json!({ RAW: STANDARD.encode(bytes) }),
    })
}

/// The metadata of an event, if there is any that can be read.
pub fn metadata(event: &RecordedEvent) -> Option<Value> {
    event.metadata::<FromMessagePack>().ok().flatten().map(|shown| shown.0)
}

/// An event to append, whose payload is JSON.
pub struct JsonEvent<'a> {
    pub kind: &'a str,
    pub schema_version: u16,
    pub payload: &'a Value,
}

impl EventData for JsonEvent<'_> {
    fn kind(&self) -> &str {
        self.kind
    }

    fn schema_version(&self) -> u16 {
        self.schema_version
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        match single_field(self.payload) {
            Some((RAW, Value::String(text))) if STANDARD.decode(text).is_ok() => {
                out.extend(STANDARD.decode(text).unwrap_or_default());
                Ok(())
            }
            _ => Raw(self.kind, &AsMessagePack(self.payload)).encode(out),
        }
    }
}

/// Why a text cannot be stored exactly.
#[derive(Debug)]
pub enum JsonProblem {
    /// The text is no JSON.
    NoJson(String),
    /// The text is JSON, and would be read back as another value.
    Inexact(String),
}

impl fmt::Display for JsonProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonProblem::NoJson(problem) | JsonProblem::Inexact(problem) => f.write_str(problem),
        }
    }
}

/// Parses JSON. A value that cannot be stored exactly is refused.
pub fn parse_exact(text: &str) -> Result<Value, JsonProblem> {
    let value =
        annals::Value::from_json(text).map_err(|error| match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => JsonProblem::Inexact(error.to_string()),
            Err(no_json) => JsonProblem::NoJson(words::no_json(text, &no_json)),
        })?;
    // Through `annals::Value`: serde_json alone gives an object with one of its private names another
    // meaning.
    serde_json::to_value(&value).map_err(|error| JsonProblem::Inexact(error.to_string()))
}

/// JSON inside a line, parsed as [`parse_exact`] does.
#[derive(Clone, Default)]
pub struct ExactJson(pub Value);

impl<'de> Deserialize<'de> for ExactJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ExactJson, D::Error> {
        let value = annals::Value::deserialize(deserializer)?;
        serde_json::to_value(&value).map(ExactJson).map_err(D::Error::custom)
    }
}

/// JSON that serialises as the MessagePack it stands for.
pub struct AsMessagePack<'a>(pub &'a Value);

impl Serialize for AsMessagePack<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(marker) = marker(self.0) {
            return marker.serialize(serializer);
        }
        match self.0 {
            Value::Array(values) => {
                let mut list = serializer.serialize_seq(Some(values.len()))?;
                values.iter().try_for_each(|value| list.serialize_element(&AsMessagePack(value)))?;
                list.end()
            }
            Value::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                fields
                    .iter()
                    .try_for_each(|(name, value)| map.serialize_entry(name, &AsMessagePack(value)))?;
                map.end()
            }
            plain => plain.serialize(serializer),
        }
    }
}

/// The value that a marker stands for.
enum Marker<'a> {
    Bytes(Vec<u8>),
    Float(f64),
    Map(Vec<(&'a Value, &'a Value)>),
    Extension(i8, Vec<u8>),
}

impl Serialize for Marker<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Marker::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Marker::Float(value) => serializer.serialize_f64(*value),
            Marker::Map(pairs) => {
                let pairs = pairs.iter().map(|(key, value)| (AsMessagePack(key), AsMessagePack(value)));
                serializer.collect_map(pairs)
            }
            Marker::Extension(kind, bytes) => {
                serializer.serialize_newtype_struct(EXTENSION_STRUCT, &(kind, Bytes(bytes)))
            }
        }
    }
}

struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// The name and the value of an object that has one field.
fn single_field(value: &Value) -> Option<(&str, &Value)> {
    let fields = value.as_object().filter(|fields| fields.len() == 1)?;
    fields.iter().next().map(|(name, value)| (name.as_str(), value))
}

/// The marker in an object; `None` if the object only looks like a marker.
fn marker(value: &Value) -> Option<Marker<'_>> {
    match single_field(value)? {
        (BYTES, Value::String(text)) => STANDARD.decode(text).ok().map(Marker::Bytes),
        (FLOAT, Value::String(text)) => match text.as_str() {
            "NaN" => Some(Marker::Float(f64::NAN)),
            "inf" => Some(Marker::Float(f64::INFINITY)),
            "-inf" => Some(Marker::Float(f64::NEG_INFINITY)),
            _ => None,
        },
        (MAP, Value::Array(pairs)) => {
            let pair = |pair: &'_ Value| pair.as_array().is_some_and(|pair| pair.len() == 2);
            let all = pairs.iter().all(pair);
            all.then(|| Marker::Map(pairs.iter().map(|pair| (&pair[0], &pair[1])).collect()))
        }
        (EXTENSION, Value::Array(parts)) => match parts.as_slice() {
            [Value::Number(kind), Value::String(text)] => {
                let kind = kind.as_i64().and_then(|kind| i8::try_from(kind).ok())?;
                STANDARD.decode(text).ok().map(|bytes| Marker::Extension(kind, bytes))
            }
            _ => None,
        },
        _ => None,
    }
}

/// The JSON that stands for a MessagePack value.
pub struct FromMessagePack(pub Value);

impl<'de> Deserialize<'de> for FromMessagePack {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FromMessagePack, D::Error> {
        deserializer.deserialize_any(MessagePackVisitor)
    }
}

struct MessagePackVisitor;

impl<'de> Visitor<'de> for MessagePackVisitor {
    type Value = FromMessagePack;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<FromMessagePack, E> {
        Ok(FromMessagePack(Value::Null))
    }

    fn visit_none<E>(self) -> Result<FromMessagePack, E> {
        Ok(FromMessagePack(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<FromMessagePack, D::Error> {
        value.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<FromMessagePack, E> {
        Ok(FromMessagePack(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<FromMessagePack, E> {
        Ok(FromMessagePack(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<FromMessagePack, E> {
        Ok(FromMessagePack(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<FromMessagePack, E> {
        let number = Number::from_f64(value).map(Value::Number);
        Ok(FromMessagePack(number.unwrap_or_else(|| json!({ FLOAT: value.to_string() }))))
    }

    fn visit_str<E>(self, text: &str) -> Result<FromMessagePack, E> {
        Ok(FromMessagePack(text.into()))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<FromMessagePack, E> {
        Ok(FromMessagePack(json!({ BYTES: STANDARD.encode(bytes) })))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<FromMessagePack, A::Error> {
        let mut values = Vec::new();
        while let Some(FromMessagePack(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(FromMessagePack(Value::Array(values)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FromMessagePack, A::Error> {
        let mut pairs: Vec<(Value, Value)> = Vec::new();
        while let Some((FromMessagePack(name), FromMessagePack(value))) = map.next_entry()? {
            pairs.push((name, value));
        }
        let mut fields = Map::new();
        for (name, value) in &pairs {
            if let Value::String(name) = name {
                fields.insert(name.clone(), value.clone());
            }
        }
        let object = Value::Object(fields);
        let fits = object.as_object().is_some_and(|fields| fields.len() == pairs.len());
        let looks_like_marker =
            marker(&object).is_some() || single_field(&object).is_some_and(|(name, _)| name == RAW);
        let pairs = || pairs.iter().map(|(name, value)| json!([name, value])).collect::<Vec<Value>>();
        Ok(FromMessagePack(if fits && !looks_like_marker { object } else { json!({ MAP: pairs() }) }))
    }

    /// `rmp_serde` gives only extensions in this form: a pair of the type and the bytes.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, extension: D) -> Result<FromMessagePack, D::Error> {
        let (kind, FromMessagePack(bytes)) = <(i8, FromMessagePack)>::deserialize(extension)?;
        match single_field(&bytes) {
            Some((BYTES, text)) => Ok(FromMessagePack(json!({ EXTENSION: [kind, text] }))),
            _ => Err(D::Error::custom("an extension without bytes")),
        }
    }
}
