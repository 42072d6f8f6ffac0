//! Payloads as JSON, and JSON as payloads: what MessagePack can hold and JSON cannot stands under a marker.
//!
//! | JSON | payload |
//! |---|---|
//! | `{"$bytes": "aGk="}` | a byte string, in base64 |
//! | `{"$float": "NaN"}` | a float without a number: `NaN`, `inf`, `-inf` |
//! | `{"$map": [[1, "one"]]}` | a map whose keys are no texts, or come twice, or look like a marker |
//! | `{"$ext": [5, "aGk="]}` | an extension of MessagePack |
//! | `{"$raw": "wQ=="}` | as a whole payload: bytes that are no MessagePack |
//!
//! What was shown goes back as it was, but that a float of 32 bits comes back as one of 64.

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
    Some(match event.decode::<Shown>() {
        Ok(shown) => shown.0,
        Err(_) => json!({ RAW: STANDARD.encode(bytes) }),
    })
}

/// The metadata of an event, if there is any that can be read.
pub fn metadata(event: &RecordedEvent) -> Option<Value> {
    event.metadata::<Shown>().ok().flatten().map(|shown| shown.0)
}

/// An event to be appended.
pub struct Event<'a> {
    pub kind: &'a str,
    pub schema_version: u16,
    pub payload: &'a Value,
}

impl EventData for Event<'_> {
    fn kind(&self) -> &str {
        self.kind
    }

    fn schema_version(&self) -> u16 {
        self.schema_version
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        match marked(self.payload) {
            Some((RAW, Value::String(text))) if STANDARD.decode(text).is_ok() => {
                out.extend(STANDARD.decode(text).unwrap_or_default());
                Ok(())
            }
            _ => Raw(self.kind, &Stored(self.payload)).encode(out),
        }
    }
}

/// Why a text cannot be kept as it is, and where.
#[derive(Debug)]
pub enum Unkept {
    /// It is no JSON.
    NoJson(String),
    /// It is JSON that would come back as something else.
    Inexact(String),
}

impl fmt::Display for Unkept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unkept::NoJson(problem) | Unkept::Inexact(problem) => f.write_str(problem),
        }
    }
}

/// JSON that is kept exactly as it is written.
pub fn exact(text: &str) -> Result<Value, Unkept> {
    let value =
        annals::Value::from_json(text).map_err(|error| match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Unkept::Inexact(error.to_string()),
            Err(no_json) => Unkept::NoJson(words::no_json(text, &no_json)),
        })?;
    // serde_json's own reading of a `Value` takes an object with one of its private names for something else.
    serde_json::to_value(&value).map_err(|error| Unkept::Inexact(error.to_string()))
}

/// JSON inside of a line, read as [`exact`] does.
#[derive(Clone, Default)]
pub struct Exact(pub Value);

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Exact, D::Error> {
        let value = annals::Value::deserialize(deserializer)?;
        serde_json::to_value(&value).map(Exact).map_err(D::Error::custom)
    }
}

/// JSON as it is stored.
pub struct Stored<'a>(pub &'a Value);

impl Serialize for Stored<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(special) = special(self.0) {
            return special.serialize(serializer);
        }
        match self.0 {
            Value::Array(values) => {
                let mut list = serializer.serialize_seq(Some(values.len()))?;
                values.iter().try_for_each(|value| list.serialize_element(&Stored(value)))?;
                list.end()
            }
            Value::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                fields.iter().try_for_each(|(name, value)| map.serialize_entry(name, &Stored(value)))?;
                map.end()
            }
            plain => plain.serialize(serializer),
        }
    }
}

/// What a marker stands for.
enum Special<'a> {
    Bytes(Vec<u8>),
    Float(f64),
    Map(Vec<(&'a Value, &'a Value)>),
    Extension(i8, Vec<u8>),
}

impl Serialize for Special<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Special::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Special::Float(value) => serializer.serialize_f64(*value),
            Special::Map(pairs) => {
                let pairs = pairs.iter().map(|(key, value)| (Stored(key), Stored(value)));
                serializer.collect_map(pairs)
            }
            Special::Extension(kind, bytes) => {
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
fn marked(value: &Value) -> Option<(&str, &Value)> {
    let fields = value.as_object().filter(|fields| fields.len() == 1)?;
    fields.iter().next().map(|(name, value)| (name.as_str(), value))
}

/// What only looks like a marker is what it is.
fn special(value: &Value) -> Option<Special<'_>> {
    match marked(value)? {
        (BYTES, Value::String(text)) => STANDARD.decode(text).ok().map(Special::Bytes),
        (FLOAT, Value::String(text)) => match text.as_str() {
            "NaN" => Some(Special::Float(f64::NAN)),
            "inf" => Some(Special::Float(f64::INFINITY)),
            "-inf" => Some(Special::Float(f64::NEG_INFINITY)),
            _ => None,
        },
        (MAP, Value::Array(pairs)) => {
            let pair = |pair: &'_ Value| pair.as_array().is_some_and(|pair| pair.len() == 2);
            let all = pairs.iter().all(pair);
            all.then(|| Special::Map(pairs.iter().map(|pair| (&pair[0], &pair[1])).collect()))
        }
        (EXTENSION, Value::Array(parts)) => match parts.as_slice() {
            [Value::Number(kind), Value::String(text)] => {
                let kind = kind.as_i64().and_then(|kind| i8::try_from(kind).ok())?;
                STANDARD.decode(text).ok().map(|bytes| Special::Extension(kind, bytes))
            }
            _ => None,
        },
        _ => None,
    }
}

/// A payload as it is shown.
pub struct Shown(pub Value);

impl<'de> Deserialize<'de> for Shown {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Shown, D::Error> {
        deserializer.deserialize_any(ShownVisitor)
    }
}

struct ShownVisitor;

impl<'de> Visitor<'de> for ShownVisitor {
    type Value = Shown;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Shown, E> {
        Ok(Shown(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Shown, E> {
        Ok(Shown(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<Shown, D::Error> {
        value.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Shown, E> {
        Ok(Shown(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Shown, E> {
        Ok(Shown(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Shown, E> {
        Ok(Shown(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Shown, E> {
        let number = Number::from_f64(value).map(Value::Number);
        Ok(Shown(number.unwrap_or_else(|| json!({ FLOAT: value.to_string() }))))
    }

    fn visit_str<E>(self, text: &str) -> Result<Shown, E> {
        Ok(Shown(text.into()))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Shown, E> {
        Ok(Shown(json!({ BYTES: STANDARD.encode(bytes) })))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shown, A::Error> {
        let mut values = Vec::new();
        while let Some(Shown(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Shown(Value::Array(values)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shown, A::Error> {
        let mut pairs: Vec<(Value, Value)> = Vec::new();
        while let Some((Shown(name), Shown(value))) = map.next_entry()? {
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
        let looks_marked = special(&object).is_some() || marked(&object).is_some_and(|(name, _)| name == RAW);
        let pairs = || pairs.iter().map(|(name, value)| json!([name, value])).collect::<Vec<Value>>();
        Ok(Shown(if fits && !looks_marked { object } else { json!({ MAP: pairs() }) }))
    }

    /// Only extensions come so: a pair of the type and the bytes.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, extension: D) -> Result<Shown, D::Error> {
        let (kind, Shown(bytes)) = <(i8, Shown)>::deserialize(extension)?;
        match marked(&bytes) {
            Some((BYTES, text)) => Ok(Shown(json!({ EXTENSION: [kind, text] }))),
            _ => Err(D::Error::custom("an extension without bytes")),
        }
    }
}
