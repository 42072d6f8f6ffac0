//! What the code calls that `#[derive(DomainEvent)]` writes.
//!
//! Here, and not in the macro, is all that does something, so that it is compiled, tested and read once.
//! Row: bytes.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::event::codec;
use crate::event::typed::known::StepError;
use crate::types::UndecodableReason;

pub use std::matches;
pub use std::option::Option::{None, Some};
pub use std::result::Result::{self, Err};
pub use std::vec::Vec;

pub use crate::event::codec::Value;
pub use crate::event::recorded::RecordedEvent;
pub use crate::event::typed::DomainEvent;
pub use crate::event::typed::known::{KnownKind, Step};
pub use crate::types::{Error, EventData};

/// How values of a type are written and read.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// The fields of the variant that the kind stands for.
    Enum,
    /// The same, of a variant that is not written any more.
    FormerVariant,
    /// A struct without fields.
    Unit,
    /// Whatever serde makes of it.
    Struct,
}

/// Writes an event's payload, and reads it back: what does not come back is refused here, not found in the log.
///
/// # Errors
///
/// What serde says of the value, written or read; or the field in which it would come back as another one.
#[inline]
pub fn encode<E: EventData + Serialize + DeserializeOwned>(
    event: &E,
    known: &KnownKind,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let start = out.len();
    write(event, known, out)?;
    let end = out.len();
    let outcome = match decode::<E>(&out[start..], known) {
        Ok(again) => {
            write(&again, known, out).and_then(|()| compare(event, known, &out[start..end], &out[end..]))
        }
        Err(error) => Err(unreadable::<E>(event, known, &out[start..], &error)),
    };
    out.truncate(if outcome.is_ok() { end } else { start });
    outcome
}

#[inline]
fn write<E: EventData + Serialize>(event: &E, known: &KnownKind, out: &mut Vec<u8>) -> Result<(), Error> {
    let encoded = match known.form() {
        Form::Enum | Form::FormerVariant | Form::Unit => codec::encode_fields(event, out),
        Form::Struct => codec::encode(event, out),
    };
    encoded.map_err(|error| codec::does_not_encode(event.kind(), error))
}

#[inline]
fn compare<E: EventData + Serialize>(
    event: &E,
    known: &KnownKind,
    written: &[u8],
    again: &[u8],
) -> Result<(), Error> {
    if written == again {
        return Ok(());
    }
    let Some(path) = codec::difference(written, again) else { return Ok(()) };
    // Some types are written differently each time, and cannot be compared.
    let mut once_more = Vec::new();
    write(event, known, &mut once_more)?;
    if codec::difference(written, &once_more).is_some() {
        return Ok(());
    }
    let kind = event.kind();
    let name = std::any::type_name::<E>();
    let which = if path.is_empty() { "it".to_owned() } else { format!("the field {path}") };
    Err(Error::invalid(format!(
        "{kind} would come back as another event: {which} is not read as it was written; mend how serde reads {name}"
    )))
}

#[cold]
fn unreadable<E: EventData + DeserializeOwned>(
    event: &E,
    known: &KnownKind,
    payload: &[u8],
    error: &codec::DecodeError,
) -> Error {
    let kind = event.kind();
    let name = std::any::type_name::<E>();
    let error = error.to_string();
    let read = |payload: &[u8]| decode::<E>(payload, known).err().map(|error| error.to_string());
    let path = codec::blame(payload, &error, &read);
    let which = if path.is_empty() { String::new() } else { format!("the field {path}: ") };
    let advice = if error.contains("128 is not supported") || error.contains("did not match any variant") {
        "serde reads no 128-bit integers inside flatten, tag and untagged; keep them as text there"
    } else {
        "mend how serde reads the type"
    };
    Error::invalid(format!("{kind} could be written, but not read as {name}: {which}{error}; {advice}"))
}

/// Reads an event of a kind that the type knows.
///
/// # Errors
///
/// As [`DomainEvent::from_recorded`].
#[inline]
pub fn read<E: DeserializeOwned>(event: &RecordedEvent, known: &KnownKind) -> Result<E, Error> {
    let payload = event.payload()?;
    match known.steps_from(event.schema_version()) {
        Some([]) => decode(payload, known).map_err(|error| mismatch::<E>(event, known, error)),
        Some(steps) => decode(&upcasted(event, known, payload, steps)?, known)
            .map_err(|error| mismatch::<E>(event, known, error)),
        None => Err(other_version::<E>(event, known)),
    }
}

#[inline]
fn decode<E: DeserializeOwned>(payload: &[u8], known: &KnownKind) -> Result<E, codec::DecodeError> {
    match known.form() {
        Form::Enum | Form::FormerVariant => codec::decode_variant(payload, known.variant()),
        Form::Unit => codec::decode_unit(payload),
        Form::Struct => codec::decode(payload),
    }
}

/// Calls a user's upcaster.
///
/// # Errors
///
/// Its own, as it prints.
pub fn upcast<E: fmt::Display>(
    upcaster: fn(Value) -> Result<Value, E>,
    value: Value,
) -> Result<Value, StepError> {
    upcaster(value).map_err(|error| StepError(error.to_string()))
}

/// The payload as the newest version would have written it.
fn upcasted(
    event: &RecordedEvent,
    known: &KnownKind,
    payload: &[u8],
    steps: &[Step],
) -> Result<Vec<u8>, Error> {
    let mut value: Value = codec::decode(payload).map_err(|error| {
        let problem = format!("is no MessagePack, which upcasters work on: {error}");
        event.undecodable(UndecodableReason::Mismatch, Some(known.version()), problem, Some(Box::new(error)))
    })?;
    for step in steps {
        value = step.run(value).map_err(|error| {
            let problem =
                format!("was refused by the upcaster {}: {error}; mend the upcaster", step.function());
            event.undecodable(
                UndecodableReason::Upcaster,
                Some(known.version()),
                problem,
                Some(Box::new(error)),
            )
        })?;
    }
    let mut upcasted = Vec::new();
    codec::encode_unread(&value, &mut upcasted)
        .map_err(|error| codec::does_not_encode(event.kind(), error))?;
    Ok(upcasted)
}

/// The error that a type knows no events of this kind.
#[cold]
pub fn unknown_kind<E>(event: &RecordedEvent) -> Error {
    let name = std::any::type_name::<E>();
    let problem = format!(
        "is of a kind that {name} does not know; give it a variant with this kind, name this kind in an `alias`, or read only the kinds it knows"
    );
    event.undecodable(UndecodableReason::UnknownKind, None, problem, None)
}

#[cold]
fn other_version<E>(event: &RecordedEvent, known: &KnownKind) -> Error {
    let (name, version) = (std::any::type_name::<E>(), known.version());
    let (reason, problem) = match event.schema_version() {
        0 => (UndecodableReason::Mismatch, "says version 0, and versions begin with 1".to_owned()),
        _ => (
            UndecodableReason::NewerVersion,
            format!("is newer than {name}, which knows it up to version {version}; update this program"),
        ),
    };
    event.undecodable(reason, Some(version), problem, None)
}

#[cold]
fn mismatch<E>(event: &RecordedEvent, known: &KnownKind, error: codec::DecodeError) -> Error {
    let name = std::any::type_name::<E>();
    let problem = match known.steps_from(event.schema_version()) {
        Some([]) | None => format!(
            "does not fit {name}: {error}; if the type has changed since, raise its version and write an upcaster"
        ),
        Some(_) => format!("does not fit {name} after its upcasters: {error}; mend the upcasters"),
    };
    event.undecodable(UndecodableReason::Mismatch, Some(known.version()), problem, Some(Box::new(error)))
}
