//! One event as it stands in a frame's body: a public part that outlives erasure, a private part.
//!
//! Encoded and hashed on the caller's thread; the writer copies the bytes and never looks inside.
//! SPEC.md "Record". Row: bytes.

use std::ops::Range;

use crate::event::{Cause, EventId};

use super::chain::{self, Hash};
use super::{Damage, array, i64_at, put, u16_at, u32_at};

/// Private length 0, public length 4, form 6, zero 7.
pub(crate) const PREFIX: usize = 8;
/// Flags 0, schema version 2, entity length 4, scope length 6, kind length 7, tags 8, zero 9.
const PUBLIC_FIXED: usize = 10;
/// Where the names begin in a record: entity, scope, kind and tags, one after the other.
pub(crate) const NAMES: usize = PREFIX + PUBLIC_FIXED;
/// The random bytes a private part begins with.
pub(crate) const SALT: usize = 16;

const FORM_WHOLE: u8 = 0;
const FORM_ERASED: u8 = 1;

const CORRELATION: u16 = 1;
const OCCURRED_AT: u16 = 1 << 1;
const METADATA: u16 = 1 << 2;
const FOREIGN_ID: u16 = 1 << 3;
const CAUSE_SHIFT: u16 = 4;
const CAUSE_MASK: u16 = 0b11 << CAUSE_SHIFT;
const CAUSE_EVENT: u16 = 1;
const CAUSE_IN_APPEND: u16 = 2;
const CAUSE_PREVIOUS: u16 = 3;
/// A reader that does not know one of these bits must not read on.
const CRITICAL: u16 = 0xFF00;
/// A reader that does not know one of these passes over what it adds to the end of the public part.
const ANCILLARY: u16 = 0x00C0;

/// A record, taken apart; everything borrows the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// Where it starts in its body.
    start: usize,
    pub(crate) public: &'a [u8],
    /// Salt, metadata and payload; `None` once erased.
    pub(crate) private: Option<&'a [u8]>,
    /// What erasure left; zero while the private part is there.
    pub(crate) private_hash: [u8; 32],
    pub(crate) fields: Fields<'a>,
    /// The private part, taken apart; `None` once erased.
    pub(crate) parts: Option<Private<'a>>,
}

/// The public part, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fields<'a> {
    pub(crate) schema_version: u16,
    pub(crate) entity: &'a str,
    /// Empty for the default scope.
    pub(crate) scope: &'a str,
    pub(crate) kind: &'a str,
    /// Length-prefixed (one byte each), `tags` of them.
    pub(crate) tag_bytes: &'a [u8],
    pub(crate) correlation: Option<EventId>,
    pub(crate) occurred_at: Option<i64>,
    pub(crate) foreign_id: Option<EventId>,
    pub(crate) cause: Option<Cause>,
    pub(crate) has_metadata: bool,
}

/// What erasure takes away, without the salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Private<'a> {
    pub(crate) metadata: &'a [u8],
    pub(crate) payload: &'a [u8],
}

/// What to write as a record. The salt is left zero; [`salt_place`] finds it.
pub(crate) struct NewRecord<'a> {
    pub(crate) fields: Fields<'a>,
    pub(crate) metadata: &'a [u8],
    pub(crate) payload: &'a [u8],
}

/// A part of a record that is longer than its length field can say.
#[derive(Debug)]
pub(crate) struct TooLong {
    pub(crate) what: &'static str,
    pub(crate) bytes: usize,
    pub(crate) max: usize,
}

/// Appends a record to `out`.
///
/// Names are within the format's caps, which [`crate::coordinate`] and the limits see to; together
/// they may still be too long.
pub(crate) fn write(out: &mut Vec<u8>, new: &NewRecord<'_>) -> Result<(), TooLong> {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    write_public(out, &new.fields);
    let private = out.len();
    out.extend_from_slice(&[0; SALT]);
    if new.fields.has_metadata {
        out.extend_from_slice(&length("the metadata", new.metadata.len())?.to_le_bytes());
        out.extend_from_slice(new.metadata);
    }
    out.extend_from_slice(new.payload);
    let private_bytes = length("the payload", out.len() - private)?;
    let public = private - start - PREFIX;
    let too_long = |_| TooLong { what: "the event's names and tags", bytes: public, max: u16::MAX.into() };
    let public_bytes = u16::try_from(public).map_err(too_long)?;
    put(out, start, &private_bytes.to_le_bytes());
    put(out, start + 4, &public_bytes.to_le_bytes());
    Ok(())
}

fn length(what: &'static str, bytes: usize) -> Result<u32, TooLong> {
    u32::try_from(bytes).map_err(|_| TooLong { what, bytes, max: super::BODY_BYTES_MAX })
}

fn write_public(out: &mut Vec<u8>, fields: &Fields<'_>) {
    let start = out.len();
    let length = |text: &str| u8::try_from(text.len()).expect("names are checked against 255 bytes");
    let entity = u16::try_from(fields.entity.len()).expect("entities are checked against 4,096 bytes");
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&fields.schema_version.to_le_bytes());
    out.extend_from_slice(&entity.to_le_bytes());
    let tags = u8::try_from(tags(fields.tag_bytes).count()).expect("tags are checked against 255");
    out.extend_from_slice(&[length(fields.scope), length(fields.kind), tags, 0]);
    for text in [fields.entity, fields.scope, fields.kind] {
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(fields.tag_bytes);
    let mut flags = 0;
    if let Some(id) = fields.correlation {
        flags |= CORRELATION;
        out.extend_from_slice(id.as_bytes());
    }
    if let Some(micros) = fields.occurred_at {
        flags |= OCCURRED_AT;
        out.extend_from_slice(&micros.to_le_bytes());
    }
    if let Some(id) = fields.foreign_id {
        flags |= FOREIGN_ID;
        out.extend_from_slice(id.as_bytes());
    }
    if let Some(cause) = fields.cause {
        flags |= write_cause(out, cause) << CAUSE_SHIFT;
    }
    if fields.has_metadata {
        flags |= METADATA;
    }
    put(out, start, &flags.to_le_bytes());
}

fn write_cause(out: &mut Vec<u8>, cause: Cause) -> u16 {
    match cause {
        Cause::Event(id) => {
            out.extend_from_slice(id.as_bytes());
            CAUSE_EVENT
        }
        Cause::InAppend(index) => {
            out.extend_from_slice(&index.to_le_bytes());
            CAUSE_IN_APPEND
        }
        Cause::PreviousInStream => CAUSE_PREVIOUS,
    }
}

/// Where the salt of the record that starts at `start` lies.
pub(crate) fn salt_place(body: &[u8], start: usize) -> Range<usize> {
    let place = start + PREFIX + usize::from(u16_at(body, start + 4));
    place..place + SALT
}

/// What the chain takes of a record that was just written.
pub(crate) fn content(record: &[u8]) -> Hash {
    let (public, private) = record[PREFIX..].split_at(usize::from(u16_at(record, 4)));
    chain::record_content(public, blake3::hash(private).as_bytes())
}

/// Takes the record at `start` apart.
pub(crate) fn read(body: &[u8], start: usize) -> Result<Record<'_>, Damage> {
    const SHORT: Damage = Damage::Bad("an event record is longer than its frame");
    let rest = body.get(start..).ok_or(SHORT)?;
    let prefix = rest.get(..PREFIX).ok_or(SHORT)?;
    let (private_bytes, public_bytes) = (wide(u32_at(prefix, 0)), usize::from(u16_at(prefix, 4)));
    let (public, rest) = rest[PREFIX..].split_at_checked(public_bytes).ok_or(SHORT)?;
    let (stored, _) = rest.split_at_checked(private_bytes).ok_or(SHORT)?;
    let (private, private_hash) = match (prefix[6], prefix[7]) {
        (FORM_WHOLE, 0) if private_bytes >= SALT => (Some(stored), [0; 32]),
        (FORM_ERASED, 0) if private_bytes == 32 => (None, array(stored, 0)),
        (FORM_WHOLE | FORM_ERASED, _) => {
            return Err(Damage::Bad("an event record's private part has a wrong length"));
        }
        (form, _) => return Err(Damage::Newer(format!("event record form {form}"))),
    };
    let fields = read_public(public)?;
    let parts = private.map(|private| read_private(private, fields.has_metadata)).transpose()?;
    Ok(Record { start, public, private, private_hash, fields, parts })
}

fn read_public(public: &[u8]) -> Result<Fields<'_>, Damage> {
    const SHORT: Damage = Damage::Bad("an event record's public part is too short");
    let fixed = public.get(..PUBLIC_FIXED).ok_or(SHORT)?;
    let flags = u16_at(fixed, 0);
    if flags & CRITICAL != 0 {
        return Err(Damage::Newer(format!("event record flags {flags:#06x}")));
    }
    let mut rest = Rest(&public[PUBLIC_FIXED..]);
    let entity = rest.text(usize::from(u16_at(fixed, 4)))?;
    let scope = rest.text(usize::from(fixed[6]))?;
    let kind = rest.text(usize::from(fixed[7]))?;
    let tag_bytes = rest.tags(fixed[8])?;
    let correlation = rest.when(flags & CORRELATION != 0, Rest::id)?;
    let occurred_at = rest.when(flags & OCCURRED_AT != 0, |rest| Ok(i64_at(rest.take(8)?, 0)))?;
    let foreign_id = rest.when(flags & FOREIGN_ID != 0, Rest::id)?;
    let cause = rest.cause((flags & CAUSE_MASK) >> CAUSE_SHIFT)?;
    if flags & ANCILLARY == 0 && !rest.0.is_empty() {
        return Err(Damage::Bad("an event record's public part is longer than its fields"));
    }
    let has_metadata = flags & METADATA != 0;
    let schema_version = u16_at(fixed, 2);
    Ok(Fields {
        schema_version,
        entity,
        scope,
        kind,
        tag_bytes,
        correlation,
        occurred_at,
        foreign_id,
        cause,
        has_metadata,
    })
}

/// What of the public part is still to be read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Damage> {
        let (piece, rest) = self
            .0
            .split_at_checked(bytes)
            .ok_or(Damage::Bad("an event record's public part is too short"))?;
        self.0 = rest;
        Ok(piece)
    }

    fn text(&mut self, bytes: usize) -> Result<&'a str, Damage> {
        std::str::from_utf8(self.take(bytes)?).map_err(|_| Damage::Bad("a name is not UTF-8"))
    }

    fn tags(&mut self, count: u8) -> Result<&'a [u8], Damage> {
        let start = self.0;
        for _ in 0..count {
            let length = self.take(1)?[0];
            self.text(usize::from(length))?;
        }
        Ok(&start[..start.len() - self.0.len()])
    }

    fn id(&mut self) -> Result<EventId, Damage> {
        Ok(EventId::from_bytes(array(self.take(16)?, 0)))
    }

    fn cause(&mut self, form: u16) -> Result<Option<Cause>, Damage> {
        Ok(match form {
            CAUSE_EVENT => Some(Cause::Event(self.id()?)),
            CAUSE_IN_APPEND => Some(Cause::InAppend(u16_at(self.take(2)?, 0))),
            CAUSE_PREVIOUS => Some(Cause::PreviousInStream),
            _ => None,
        })
    }

    fn when<T>(
        &mut self,
        present: bool,
        read: impl FnOnce(&mut Rest<'a>) -> Result<T, Damage>,
    ) -> Result<Option<T>, Damage> {
        present.then(|| read(self)).transpose()
    }
}

/// The tags in length-prefixed bytes that were checked when they were read or written.
pub(crate) fn tags(mut bytes: &[u8]) -> impl Iterator<Item = &str> + Clone {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first()?;
        let (tag, rest) = rest.split_at_checked(usize::from(*length))?;
        bytes = rest;
        Some(std::str::from_utf8(tag).unwrap_or_default())
    })
}

impl<'a> Record<'a> {
    /// What the chain takes of it: erasure leaves the private part's hash, which is all it needs.
    pub(crate) fn content(&self) -> Hash {
        let hash = self.private.map_or(self.private_hash, |private| *blake3::hash(private).as_bytes());
        chain::record_content(self.public, &hash)
    }

    /// Where it starts in its body.
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// Where the record ends in the body, and the next one starts.
    pub(crate) fn end(&self) -> usize {
        let private_bytes = self.private.map_or(self.private_hash.len(), <[u8]>::len);
        self.start + PREFIX + self.public.len() + private_bytes
    }
}

fn read_private(private: &[u8], has_metadata: bool) -> Result<Private<'_>, Damage> {
    let rest = &private[SALT..];
    if !has_metadata {
        return Ok(Private { metadata: &[], payload: rest });
    }
    const SHORT: Damage = Damage::Bad("an event's metadata is longer than its record");
    let (length, rest) = rest.split_at_checked(4).ok_or(SHORT)?;
    let (metadata, payload) = rest.split_at_checked(wide(u32_at(length, 0))).ok_or(SHORT)?;
    Ok(Private { metadata, payload })
}

/// A 32-bit length as one for slices.
fn wide(length: u32) -> usize {
    usize::try_from(length).expect("annals needs pointers of at least 32 bits")
}

/// The records of a body, in order: exactly `events` of them, then zeros up to the alignment.
pub(crate) fn records(body: &[u8], events: u16) -> impl Iterator<Item = Result<Record<'_>, Damage>> {
    let mut start = 0;
    let mut left = events;
    std::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        let record = read(body, start).and_then(|record| {
            start = record.end();
            let rest = body.get(start..).unwrap_or_default();
            let ends_well = left > 0 || (rest.len() < super::ALIGN && rest.iter().all(|byte| *byte == 0));
            match record.fields.cause {
                _ if !ends_well => Err(Damage::Bad("a frame's body holds more than its events")),
                Some(Cause::InAppend(index)) if index >= events => {
                    Err(Damage::Bad("an event's cause is one that its append does not have"))
                }
                _ => Ok(record),
            }
        });
        if record.is_err() {
            left = 0;
        }
        Some(record)
    })
}
