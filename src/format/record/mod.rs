//! One event as it stands in a frame's body: a public part that outlives erasure, a private part.
//!
//! Encoded and hashed on the caller's thread; the writer copies the bytes and never looks inside.
//! SPEC.md "Record". Row: bytes.

mod body;
mod erased;

use std::ops::Range;

use crate::types::{Cause, DEFAULT_SCOPE, ENTITY_BYTES_CAP, EventId};

use super::chain::{self, Hash};
use super::{Damage, array, i64_at, part, put, sum, u16_at, u32_at};

pub(crate) use body::{ends_well, lay_out, read_in, records, start_of};
pub(crate) use erased::leave_hash;

/// Private length 0, public length 4, form 6, zero 7.
pub(crate) const PREFIX: usize = 8;
/// Flags 0, schema version 2, entity length 4, scope length 6, kind length 7, tags 8, zero 9.
const PUBLIC_FIXED: usize = 10;
/// Where the names begin in a record: entity, scope, kind and tags, one after the other.
const NAMES: usize = PREFIX + PUBLIC_FIXED;
/// The random bytes a private part begins with.
pub(crate) const SALT: usize = 16;
/// What erasure leaves of a private part: its hash.
const ERASED_BYTES: usize = 32;
const ID_BYTES: usize = 16;

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

/// A checked record: its bytes, and where its parts lie in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    bytes: &'a [u8],
    shape: Shape,
}

/// Where the parts of a checked record lie: small enough to be kept with every event that is read,
/// so that nothing is taken apart twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    flags: u16,
    public: u16,
    entity: u16,
    scope: u8,
    kind: u8,
    tags: u16,
    is_erased: bool,
    private: u32,
    /// The last bytes of the private part.
    payload: u32,
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
/// Names are within the format's caps, which [`crate::types::coordinate`] and the limits see to; together
/// they may still be too long.
pub(crate) fn write(out: &mut Vec<u8>, new: &NewRecord<'_>) -> Result<(), TooLong> {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
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
    put(out, start, &private_bytes.to_le_bytes());
    put(out, sum([start, 4]), &public_bytes.to_le_bytes());
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
    let public = u16_at(part(body, start..), 4);
    let place = sum([start, PREFIX, public.into()]);
    place..sum([place, SALT])
}

/// What the chain takes of a record that was just written whole.
pub(crate) fn content(record: &[u8]) -> Hash {
    let (public, private) = part(record, PREFIX..).split_at(usize::from(u16_at(record, 4)));
    chain::record_content(public, blake3::hash(private).as_bytes())
}

/// Reads and checks the record at `start`.
#[inline(always)]
pub(crate) fn read(body: &[u8], start: usize) -> Result<Record<'_>, Damage> {
    let bytes = body.get(start..).ok_or(LONG)?;
    let shape = Shape::of(bytes)?;
    Ok(Record { bytes: part(bytes, ..shape.bytes()), shape })
}

const LONG: Damage = Damage::Bad("an event record is longer than its frame");
const SHORT: Damage = Damage::Bad("an event record's public part is too short");

impl Shape {
    /// Checks the record at the start of `bytes`, which may be longer.
    #[inline(always)]
    fn of(bytes: &[u8]) -> Result<Shape, Damage> {
        let (prefix, rest) = bytes.split_first_chunk::<PREFIX>().ok_or(LONG)?;
        let (private, public) = (u32_at(prefix, 0), u16_at(prefix, 4));
        let (public_part, rest) = rest.split_at_checked(public.into()).ok_or(LONG)?;
        let private_part = rest.get(..wide(private)).ok_or(LONG)?;
        let is_erased = match (prefix[6], prefix[7]) {
            (FORM_WHOLE, 0) if private_part.len() >= SALT => false,
            (FORM_ERASED, 0) if private_part.len() == ERASED_BYTES => true,
            (FORM_WHOLE | FORM_ERASED, _) => {
                return Err(Damage::Bad("an event record's private part has a wrong length"));
            }
            (form, _) => return Err(Damage::Newer(format!("event record form {form}"))),
        };
        let (fixed, rest) = public_part.split_first_chunk::<PUBLIC_FIXED>().ok_or(SHORT)?;
        let flags = u16_at(fixed, 0);
        if flags & CRITICAL != 0 {
            return Err(Damage::Newer(format!("event record flags {flags:#06x}")));
        }
        let entity = u16_at(fixed, 4);
        let scope = fixed[6];
        let kind = fixed[7];
        let rest = check_names(rest, [entity, scope.into(), kind.into()])?;
        let (tags, rest) = check_tags(rest, fixed[8])?;
        let rest = rest.get(sum([optional_bytes(flags), cause_bytes(flags)])..).ok_or(SHORT)?;
        if flags & ANCILLARY == 0 && !rest.is_empty() {
            return Err(Damage::Bad("an event record's public part is longer than its fields"));
        }
        let payload = if is_erased { 0 } else { check_private(private_part, private, flags)? };
        Ok(Shape { flags, public, entity, scope, kind, tags, is_erased, private, payload })
    }

    /// How long the record is.
    pub(crate) fn bytes(&self) -> usize {
        sum([PREFIX, self.public.into(), wide(self.private)])
    }
}

/// Checks the names at the start of `public`, one after the other; returns what follows.
#[inline(always)]
fn check_names(public: &[u8], lengths: [u16; 3]) -> Result<&[u8], Damage> {
    const BAD: Damage = Damage::Bad("a name is not UTF-8");
    let [entity, scope, kind] = lengths.map(usize::from);
    let (names, rest) = public.split_at_checked(sum([entity, scope, kind])).ok_or(SHORT)?;
    if entity == 0 || entity > ENTITY_BYTES_CAP || kind == 0 {
        return Err(Damage::Forbidden("an event's entity or kind has an impossible length"));
    }
    if names.get(entity..sum([entity, scope])) == Some(DEFAULT_SCOPE.as_bytes()) {
        return Err(Damage::Forbidden("an event spells out the default scope"));
    }
    // In one go, and that no character lies across a border: each name is UTF-8, then.
    let names = std::str::from_utf8(names).map_err(|_| BAD)?;
    let is_parted = names.is_char_boundary(entity) && names.is_char_boundary(sum([entity, scope]));
    if is_parted { Ok(rest) } else { Err(BAD) }
}

/// Checks `count` tags at the start of `public`; returns how many bytes they are, and what follows.
#[inline(always)]
fn check_tags(public: &[u8], count: u8) -> Result<(u16, &[u8]), Damage> {
    let mut rest = public;
    for _ in 0..count {
        let (length, behind) = rest.split_first().ok_or(SHORT)?;
        let (tag, behind) = behind.split_at_checked(usize::from(*length)).ok_or(SHORT)?;
        if tag.is_empty() {
            return Err(Damage::Forbidden("an event has an empty tag"));
        }
        std::str::from_utf8(tag).map_err(|_| Damage::Bad("a name is not UTF-8"))?;
        rest = behind;
    }
    let bytes = u16::try_from(public.len().saturating_sub(rest.len())).map_err(|_| LONG)?;
    Ok((bytes, rest))
}

/// How many bytes the payload at the end of a private part has.
fn check_private(part: &[u8], bytes: u32, flags: u16) -> Result<u32, Damage> {
    const BAD: Damage = Damage::Bad("an event's metadata is longer than its record");
    let salt = u32::try_from(SALT).expect("16");
    let behind = bytes.checked_sub(salt).ok_or(BAD)?;
    if flags & METADATA == 0 {
        return Ok(behind);
    }
    let length = u32_at(part.get(SALT..SALT + 4).ok_or(BAD)?, 0);
    if length == 0 {
        return Err(Damage::Forbidden("an event is said to have metadata, and has none"));
    }
    behind.checked_sub(4).and_then(|rest| rest.checked_sub(length)).ok_or(BAD)
}

/// How many bytes the fields have whose presence these flags tell, all but the cause. They stand in
/// the order of their bits, so those before one are the ones of the lower bits.
fn optional_bytes(flags: u16) -> usize {
    let sizes = [(CORRELATION, ID_BYTES), (OCCURRED_AT, 8), (FOREIGN_ID, ID_BYTES)];
    sizes.iter().map(|(flag, bytes)| if flags & flag != 0 { *bytes } else { 0 }).sum()
}

fn cause_bytes(flags: u16) -> usize {
    match (flags & CAUSE_MASK) >> CAUSE_SHIFT {
        CAUSE_EVENT => ID_BYTES,
        CAUSE_IN_APPEND => 2,
        _ => 0,
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
    /// The record that begins at `start`, whose shape was found there before.
    pub(crate) fn known(bytes: &'a [u8], start: usize, shape: Shape) -> Record<'a> {
        Record { bytes: part(bytes, start..sum([start, shape.bytes()])), shape }
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What outlives erasure.
    pub(crate) fn public(&self) -> &'a [u8] {
        part(self.bytes, PREFIX..self.private_at())
    }

    /// Salt, metadata and payload; `None` once erased.
    pub(crate) fn private(&self) -> Option<&'a [u8]> {
        (!self.shape.is_erased).then(|| part(self.bytes, self.private_at()..))
    }

    /// What the chain takes of it: erasure leaves the private part's hash, which is all it needs.
    pub(crate) fn content(&self) -> Hash {
        let private = part(self.bytes, self.private_at()..);
        let hash = if self.shape.is_erased { array(private, 0) } else { *blake3::hash(private).as_bytes() };
        chain::record_content(self.public(), &hash)
    }

    pub(crate) fn schema_version(&self) -> u16 {
        u16_at(self.bytes, PREFIX + 2)
    }

    pub(crate) fn entity(&self) -> &'a str {
        self.name(0, self.shape.entity.into())
    }

    /// The entity's name, as it is compared.
    pub(crate) fn entity_bytes(&self) -> &'a [u8] {
        part(self.bytes, NAMES..sum([NAMES, self.shape.entity.into()]))
    }

    /// Empty for the default scope.
    pub(crate) fn scope(&self) -> &'a str {
        self.name(self.shape.entity.into(), self.shape.scope.into())
    }

    /// By the name it is known by.
    pub(crate) fn scope_or_default(&self) -> &'a str {
        match self.scope() {
            "" => DEFAULT_SCOPE,
            scope => scope,
        }
    }

    pub(crate) fn kind(&self) -> &'a str {
        let Shape { entity, scope, kind, .. } = self.shape;
        self.name(sum([entity.into(), scope.into()]), kind.into())
    }

    /// Length-prefixed; [`tags`] takes them apart.
    pub(crate) fn tag_bytes(&self) -> &'a [u8] {
        let end = self.optional_at();
        part(self.bytes, end.saturating_sub(self.shape.tags.into())..end)
    }

    pub(crate) fn correlation(&self) -> Option<EventId> {
        self.optional(CORRELATION).map(|at| self.id(at))
    }

    pub(crate) fn occurred_at(&self) -> Option<i64> {
        self.optional(OCCURRED_AT).map(|at| i64_at(self.bytes, at))
    }

    pub(crate) fn foreign_id(&self) -> Option<EventId> {
        self.optional(FOREIGN_ID).map(|at| self.id(at))
    }

    pub(crate) fn cause(&self) -> Option<Cause> {
        let at = sum([self.optional_at(), optional_bytes(self.shape.flags)]);
        match (self.shape.flags & CAUSE_MASK) >> CAUSE_SHIFT {
            CAUSE_EVENT => Some(Cause::Event(self.id(at))),
            CAUSE_IN_APPEND => Some(Cause::InAppend(u16_at(self.bytes, at))),
            CAUSE_PREVIOUS => Some(Cause::PreviousInStream),
            _ => None,
        }
    }

    /// What the private part begins with; `None` once erased.
    pub(crate) fn salt(&self) -> Option<&'a [u8]> {
        self.private()?.get(..SALT)
    }

    /// Empty if there is none; `None` once erased.
    pub(crate) fn metadata(&self) -> Option<&'a [u8]> {
        let before = self.private()?.len().checked_sub(wide(self.shape.payload))?;
        // The salt, the length, the metadata; without any, the salt alone.
        Some(self.private()?.get(SALT + 4..before).unwrap_or_default())
    }

    /// `None` once erased.
    pub(crate) fn payload(&self) -> Option<&'a [u8]> {
        let start = self.bytes.len().saturating_sub(wide(self.shape.payload));
        (!self.shape.is_erased).then(|| part(self.bytes, start..))
    }

    /// The public part, taken apart.
    pub(crate) fn fields(&self) -> Fields<'a> {
        Fields {
            schema_version: self.schema_version(),
            entity: self.entity(),
            scope: self.scope(),
            kind: self.kind(),
            tag_bytes: self.tag_bytes(),
            correlation: self.correlation(),
            occurred_at: self.occurred_at(),
            foreign_id: self.foreign_id(),
            cause: self.cause(),
            has_metadata: self.shape.flags & METADATA != 0,
        }
    }

    fn private_at(&self) -> usize {
        sum([PREFIX, self.shape.public.into()])
    }

    fn name(&self, skip: usize, length: usize) -> &'a str {
        let start = sum([NAMES, skip]);
        let name = part(self.bytes, start..sum([start, length]));
        std::str::from_utf8(name).expect("checked when the record was read")
    }

    /// Where the optional fields begin.
    fn optional_at(&self) -> usize {
        let Shape { entity, scope, kind, tags, .. } = self.shape;
        sum([NAMES, entity.into(), scope.into(), kind.into(), tags.into()])
    }

    /// Where the optional field of this flag lies.
    fn optional(&self, flag: u16) -> Option<usize> {
        let flags = self.shape.flags;
        let before = flags & flag.saturating_sub(1);
        (flags & flag != 0).then(|| sum([self.optional_at(), optional_bytes(before)]))
    }

    fn id(&self, at: usize) -> EventId {
        EventId::from_bytes(array(self.bytes, at))
    }
}

/// A 32-bit length as one for slices.
fn wide(length: u32) -> usize {
    usize::try_from(length).expect("annals needs pointers of at least 32 bits")
}
