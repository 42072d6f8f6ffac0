//! Writes records: whole ones, and what erasure leaves of one.
//!
//! SPEC.md "Record".

use std::ops::Range;

use crate::format::bytes::{BODY_BYTES_MAX, part, put, sum, u16_at, u32_at};
use crate::format::chain::{self, Hash};
use crate::format::place::BodyLayout;
use crate::types::{Cause, to_u32};

use super::checks::{METADATA, SALT, SCHEMA_VERSION};
use super::read::{
    CAUSE_EVENT, CAUSE_IN_APPEND, CAUSE_PREVIOUS, CAUSE_SHIFT, CHECKSUM_AT, CORRELATION, ERASED_BYTES,
    FOREIGN_ID, FORM_ERASED, FORM_GONE, FORM_WHOLE, OCCURRED_AT, PRIVATE_BYTES_AT, PUBLIC_BYTES_AT, Record,
    RecordFields, TAGS, VERSION_AT, VERSION_BYTES, length_at, prefix_bytes, tags, unbound_checksum,
};

/// The contents of a record to be written. The salt is written as zeros; [`salt_place`] finds its place.
pub(crate) struct NewRecord<'a> {
    pub(crate) fields: RecordFields<'a>,
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

/// Appends a record to `out`, without its checksum. With `has_version` there is room for the version.
///
/// The caller has checked each name against the format's caps. Together the names may still be too long.
pub(crate) fn write(out: &mut Vec<u8>, new: &NewRecord<'_>, has_version: bool) -> Result<(), TooLong> {
    let start = out.len();
    let layout = BodyLayout { events: 1, has_versions: has_version };
    out.resize(sum([start, prefix_bytes(layout)]), 0);
    let public_at = out.len();
    write_public(out, &new.fields);
    let private = out.len();
    out.extend_from_slice(&[0; SALT]);
    if new.fields.has_metadata {
        out.extend_from_slice(&length("the metadata", new.metadata.len())?.to_le_bytes());
        out.extend_from_slice(new.metadata);
    }
    out.extend_from_slice(new.payload);
    let private_bytes = length("the payload", out.len().saturating_sub(private))?;
    let public = private.saturating_sub(public_at);
    let too_long = |_| TooLong { what: "the event's names and tags", bytes: public, max: u16::MAX.into() };
    let public_bytes = u16::try_from(public).map_err(too_long)?;
    set_private(out, start, private_bytes, FORM_WHOLE);
    put(out, sum([start, PUBLIC_BYTES_AT]), &public_bytes.to_le_bytes());
    Ok(())
}

/// Sets the length of the private part, and the form. They share four bytes.
fn set_private(out: &mut [u8], start: usize, bytes: u32, form: u8) {
    let both = bytes | u32::from(form) << 24;
    put(out, sum([start, PRIVATE_BYTES_AT]), &both.to_le_bytes());
}

/// Gives the record, which is complete but for its version, its checksum. It is bound to no place yet.
pub(crate) fn seal(record: &mut [u8]) {
    let checksum = unbound_checksum(record).to_le_bytes();
    put(record, CHECKSUM_AT, &checksum);
}

/// Takes the checksum of the record at `start` to a place or back from it, by XOR with the place's.
pub(in crate::format) fn toggle_checksum(body: &mut [u8], start: usize, place: u32) {
    let at = sum([start, CHECKSUM_AT]);
    let toggled = u32_at(body, at) ^ place;
    put(body, at, &toggled.to_le_bytes());
}

/// Writes the versions, 8 bytes each, into the records of a body. Without versions it changes nothing.
pub(in crate::format) fn write_versions(body: &mut [u8], versions: &[u8]) {
    let (versions, _) = versions.as_chunks::<8>();
    let layout = BodyLayout { events: 0, has_versions: true };
    let mut start = 0;
    for version in versions {
        let bytes = length_at(body, start, layout).expect("the caller has written the records");
        put(body, sum([start, VERSION_AT]), part(version, ..VERSION_BYTES));
        start = sum([start, bytes]);
    }
}

fn length(what: &'static str, bytes: usize) -> Result<u32, TooLong> {
    let fits = u32::try_from(bytes).ok().filter(|_| bytes <= BODY_BYTES_MAX);
    fits.ok_or(TooLong { what, bytes, max: BODY_BYTES_MAX })
}

fn write_public(out: &mut Vec<u8>, fields: &RecordFields<'_>) {
    let start = out.len();
    let length = |text: &str| u8::try_from(text.len()).expect("names are checked against 255 bytes");
    let entity = u16::try_from(fields.entity.len()).expect("entities are checked against 4,096 bytes");
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&entity.to_le_bytes());
    out.extend_from_slice(&[length(fields.scope), length(fields.kind)]);
    for text in [fields.entity, fields.scope, fields.kind] {
        out.extend_from_slice(text.as_bytes());
    }
    let mut flags = 0;
    if fields.schema_version != 1 {
        flags |= SCHEMA_VERSION;
        out.extend_from_slice(&fields.schema_version.to_le_bytes());
    }
    if !fields.tag_bytes.is_empty() {
        flags |= TAGS;
        out.push(u8::try_from(tags(fields.tag_bytes).count()).expect("tags are checked against 255"));
        out.extend_from_slice(fields.tag_bytes);
    }
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

/// The place in `body` of the salt of the record at `start`, which was written whole.
pub(crate) fn salt_place(body: &[u8], start: usize, layout: BodyLayout) -> Range<usize> {
    let public = u16_at(part(body, start..), PUBLIC_BYTES_AT);
    let place = sum([start, prefix_bytes(layout), public.into()]);
    place..sum([place, SALT])
}

/// The content hash of a record that was written whole, for the chain.
pub(crate) fn content(record: &[u8], layout: BodyLayout) -> Hash {
    let parts = part(record, prefix_bytes(layout)..);
    let (public, private) = parts.split_at(usize::from(u16_at(record, PUBLIC_BYTES_AT)));
    chain::record_content(public, blake3::hash(private).as_bytes())
}

/// Erases the private part of the last record in `out`, which begins at `start`. `private` is the hash that
/// stays.
pub(crate) fn leave_hash(out: &mut Vec<u8>, start: usize, layout: BodyLayout, private: &Hash) {
    out.truncate(salt_place(out, start, layout).start);
    out.extend_from_slice(private);
    set_private(out, start, to_u32(ERASED_BYTES), FORM_ERASED);
}

impl Record<'_> {
    /// Whether the private part was erased.
    pub(crate) fn is_erased(&self) -> bool {
        self.shape.is_erased
    }

    /// The hash that erasure left of the private part; `None` if the private part is there.
    #[cfg(feature = "jsonl")]
    pub(crate) fn private_hash(&self) -> Option<Hash> {
        self.shape.is_erased.then(|| crate::format::array(part(self.bytes, self.private_at()..), 0))
    }

    /// The length that the record has once its private part is erased.
    pub(crate) fn erased_bytes(&self) -> usize {
        sum([self.private_at(), ERASED_BYTES])
    }

    /// Appends the record without its private part: the public part, and the hash that the chain needs. Its
    /// checksum is bound to no place.
    pub(crate) fn write_erased(&self, layout: BodyLayout, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(self.bytes);
        if !self.shape.is_erased {
            let hash = blake3::hash(part(self.bytes, self.private_at()..));
            leave_hash(out, start, layout, hash.as_bytes());
        }
        let (_, record) = out.split_at_mut(start);
        seal(record);
    }

    /// Appends what is left of the record once its event is gone: the hash that chain and tree need. Its
    /// checksum is bound to no place.
    pub(crate) fn write_gone(&self, layout: BodyLayout, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(sum([start, prefix_bytes(layout)]), 0);
        out.extend_from_slice(&self.content());
        set_private(out, start, to_u32(size_of::<Hash>()), FORM_GONE);
        let (_, record) = out.split_at_mut(start);
        seal(record);
    }
}
