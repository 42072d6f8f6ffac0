//! Reads records: the layout of the public and the private part, and every check of hostile bytes.
//!
//! SPEC.md "Record".

use crate::format::bytes::{ALIGN, Damage, array, checksum, i64_at, part, sum, u16_at, u32_at, u64_at};
use crate::format::chain::{self, Hash};
use crate::format::place::{BodyLayout, RecordPlace};
use crate::types::{Cause, DEFAULT_SCOPE, EventId, to_usize};

use super::checks::{
    LONG, METADATA, SALT, SCHEMA_VERSION, SCHEMA_VERSION_BYTES, SHORT, check_names, check_private,
    check_schema_version, check_tags,
};

/// The offset of each field of the prefix. The version follows it, where the frame says so.
pub(super) const CHECKSUM_AT: usize = 0;
pub(super) const PRIVATE_BYTES_AT: usize = CHECKSUM_AT + 4;
pub(super) const FORM_AT: usize = PRIVATE_BYTES_AT + 3;
pub(super) const PUBLIC_BYTES_AT: usize = FORM_AT + 1;
pub(super) const VERSION_AT: usize = PUBLIC_BYTES_AT + 2;
pub(super) const VERSION_BYTES: usize = 6;
pub(crate) const PREFIX: usize = VERSION_AT;
pub(super) const PREFIX_WITH_VERSION: usize = VERSION_AT + VERSION_BYTES;

/// The offset of each field of the fixed public part.
const FLAGS_AT: usize = 0;
const ENTITY_BYTES_AT: usize = FLAGS_AT + 2;
const SCOPE_BYTES_AT: usize = ENTITY_BYTES_AT + 2;
const KIND_BYTES_AT: usize = SCOPE_BYTES_AT + 1;
const PUBLIC_FIXED: usize = KIND_BYTES_AT + 1;

/// The length of the hash that erasure leaves of a private part.
pub(super) const ERASED_BYTES: usize = size_of::<Hash>();
const ID_BYTES: usize = 16;

pub(super) const FORM_WHOLE: u8 = 0;
pub(super) const FORM_ERASED: u8 = 1;
/// The event is gone, and only the content hash of its record is left.
pub(super) const FORM_GONE: u8 = 2;

pub(super) const CORRELATION: u16 = 1;
pub(super) const OCCURRED_AT: u16 = 1 << 1;
pub(super) const FOREIGN_ID: u16 = 1 << 3;
pub(super) const CAUSE_SHIFT: u16 = 4;
const CAUSE_MASK: u16 = 0b11 << CAUSE_SHIFT;
pub(super) const CAUSE_EVENT: u16 = 1;
pub(super) const CAUSE_IN_APPEND: u16 = 2;
pub(super) const CAUSE_PREVIOUS: u16 = 3;
/// The count of tags stands in front of the tags. Without it there are none.
pub(super) const TAGS: u16 = 0x0200;
/// A reader that does not know one of these bits must not read on.
const CRITICAL: u16 = 0xFC00;
/// A reader that does not know one of these bits skips what it adds to the end of the public part.
const ANCILLARY: u16 = 0x00C0;

/// A checked record: its bytes, and the places of its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) shape: RecordShape,
}

/// The lengths of the parts of a checked record. It is small enough to be kept with every event that is read,
/// so that no record is parsed twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecordShape {
    has_version: bool,
    flags: u16,
    public: u16,
    entity: u16,
    scope: u8,
    kind: u8,
    tags: u16,
    pub(super) is_erased: bool,
    private: u32,
    /// The length of the payload, which ends the private part.
    payload: u32,
}

/// The fields of the public part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordFields<'a> {
    pub(crate) schema_version: u16,
    pub(crate) entity: &'a str,
    /// Empty for the default scope.
    pub(crate) scope: &'a str,
    pub(crate) kind: &'a str,
    /// Length-prefixed, one byte each.
    pub(crate) tag_bytes: &'a [u8],
    pub(crate) correlation: Option<EventId>,
    pub(crate) occurred_at: Option<i64>,
    pub(crate) foreign_id: Option<EventId>,
    pub(crate) cause: Option<Cause>,
    pub(crate) has_metadata: bool,
}

/// The length of the prefix of each record.
pub(super) fn prefix_bytes(layout: BodyLayout) -> usize {
    if layout.has_versions { PREFIX_WITH_VERSION } else { PREFIX }
}

/// The length of a record whose event is gone.
pub(crate) fn gone_bytes(layout: BodyLayout) -> usize {
    sum([prefix_bytes(layout), size_of::<Hash>()])
}

/// Reads and checks the record of an event at `start`.
///
/// # Errors
///
/// Damage also if the event is gone: the caller asks only for an event that the index has.
#[inline(always)]
pub(crate) fn read(body: &[u8], start: usize, layout: BodyLayout) -> Result<Record<'_>, Damage> {
    let bytes = body.get(start..).ok_or(LONG)?;
    let shape = RecordShape::of(bytes, layout)?;
    let record = Record { bytes: part(bytes, ..shape.bytes()), shape };
    if shape.flags & CAUSE_MASK == CAUSE_IN_APPEND << CAUSE_SHIFT
        && let Some(Cause::InAppend(index)) = record.cause()
        && index >= layout.events
    {
        return Err(Damage::Bad("an event's cause is one that its append does not have"));
    }
    Ok(record)
}

/// The offsets of the records of a body, as many as the layout says. It reads their lengths only.
pub(crate) fn lay_out(body: &[u8], layout: BodyLayout, starts: &mut Vec<usize>) -> Result<(), Damage> {
    starts.clear();
    let mut start = 0;
    for _ in 0..layout.events {
        starts.push(start);
        start = sum([start, length_at(body, start, layout).ok_or(LONG)?]);
    }
    ends_well(body, start)
}

/// The offset of the record at `index` of a checked body. It reads only the lengths of the records before it.
pub(crate) fn start_of(body: &[u8], index: u16, layout: BodyLayout) -> Option<usize> {
    (0..index).try_fold(0, |start, _| Some(sum([start, length_at(body, start, layout)?])))
}

/// The length in bytes of the record at `start`, if the body is long enough for it.
#[inline]
pub(in crate::format) fn length_at(body: &[u8], start: usize, layout: BodyLayout) -> Option<usize> {
    let rest = body.get(start..)?;
    let prefix = rest.first_chunk::<PREFIX>()?;
    let bytes =
        sum([prefix_bytes(layout), u16_at(prefix, PUBLIC_BYTES_AT).into(), to_usize(private_bytes(prefix))]);
    (bytes <= rest.len()).then_some(bytes)
}

/// The version in the record at `start`; `None` if the layout has none, or the body ends before it.
pub(in crate::format) fn version_at(body: &[u8], start: usize, layout: BodyLayout) -> Option<u64> {
    let prefix = body.get(start..)?.first_chunk::<PREFIX_WITH_VERSION>()?;
    layout.has_versions.then(|| version_in(prefix))
}

fn version_in(prefix: &[u8]) -> u64 {
    // The two bytes in front of the version are shifted out.
    u64_at(prefix, VERSION_AT.saturating_sub(2)) >> 16
}

fn private_bytes(prefix: &[u8]) -> u32 {
    // The form stands in the highest of four bytes.
    u32_at(prefix, PRIVATE_BYTES_AT) & 0x00FF_FFFF
}

/// Checks the checksum of a whole record that was read from `place`.
pub(crate) fn check(record: &[u8], place: &RecordPlace) -> Result<(), Damage> {
    if unbound_checksum(record) ^ place.checksum() == u32_at(record, CHECKSUM_AT) {
        Ok(())
    } else {
        Err(Damage::Bad("an event record does not fit its checksum"))
    }
}

/// The checksum of a record that is bound to no place: of everything behind it but the version, which the
/// place has.
pub(super) fn unbound_checksum(record: &[u8]) -> u32 {
    let prefix = part(record, PRIVATE_BYTES_AT..VERSION_AT);
    let parts = sum([u16_at(record, PUBLIC_BYTES_AT).into(), to_usize(private_bytes(record))]);
    checksum(&[prefix, part(record, record.len().saturating_sub(parts)..)])
}

/// Checks that only the zeros of the alignment follow the last record.
#[inline(always)]
pub(crate) fn ends_well(body: &[u8], end: usize) -> Result<(), Damage> {
    const MORE: Damage = Damage::Bad("a frame's body holds more than its events");
    let rest = body.get(end..).ok_or(LONG)?;
    let used = ALIGN.checked_sub(rest.len()).filter(|used| *used > 0).ok_or(MORE)?;
    // The last eight bytes at once: one by one they would take a tenth of the time that reading an event
    // takes.
    let last = body.last_chunk().map_or(0, |last| u64::from_le_bytes(*last));
    let padding = u32::try_from(used).ok().and_then(|used| last.checked_shr(used.saturating_mul(8)));
    if padding.unwrap_or(0) == 0 { Ok(()) } else { Err(MORE) }
}

impl RecordShape {
    /// Checks the record at the start of `bytes`, which may be longer.
    #[inline(always)]
    fn of(bytes: &[u8], layout: BodyLayout) -> Result<RecordShape, Damage> {
        let (prefix, rest) = bytes.split_at_checked(prefix_bytes(layout)).ok_or(LONG)?;
        let private = private_bytes(prefix);
        let public = u16_at(prefix, PUBLIC_BYTES_AT);
        let (public_part, rest) = rest.split_at_checked(public.into()).ok_or(LONG)?;
        let private_part = rest.get(..to_usize(private)).ok_or(LONG)?;
        let is_erased = match part(prefix, FORM_AT..) {
            [FORM_WHOLE, ..] if private_part.len() >= SALT => false,
            [FORM_ERASED, ..] if private_part.len() == ERASED_BYTES => true,
            [FORM_WHOLE | FORM_ERASED, ..] => {
                return Err(Damage::Bad("an event record's private part has a wrong length"));
            }
            [FORM_GONE, ..] => {
                return Err(Damage::Bad("an event is gone from the place where one should be"));
            }
            [form, ..] => return Err(Damage::Newer(format!("event record form {form}"))),
            [] => return Err(LONG),
        };
        let (fixed, rest) = public_part.split_first_chunk::<PUBLIC_FIXED>().ok_or(SHORT)?;
        let flags = u16_at(fixed, FLAGS_AT);
        if flags & CRITICAL != 0 {
            return Err(Damage::Newer(format!("event record flags {flags:#06x}")));
        }
        let entity = u16_at(fixed, ENTITY_BYTES_AT);
        let scope = fixed[SCOPE_BYTES_AT];
        let kind = fixed[KIND_BYTES_AT];
        let rest = check_names(rest, [entity, scope.into(), kind.into()])?;
        let rest = check_schema_version(rest, flags)?;
        let (tags, rest) = if flags & TAGS == 0 { (0, rest) } else { check_tags(rest)? };
        let rest = rest.get(sum([optional_bytes(flags), cause_bytes(flags)])..).ok_or(SHORT)?;
        if flags & ANCILLARY == 0 && !rest.is_empty() {
            return Err(Damage::Bad("an event record's public part is longer than its fields"));
        }
        let payload = if is_erased { 0 } else { check_private(private_part, private, flags)? };
        let has_version = layout.has_versions;
        Ok(RecordShape { has_version, flags, public, entity, scope, kind, tags, is_erased, private, payload })
    }

    /// The length of the prefix, with the version if the record has one.
    fn prefix(&self) -> usize {
        if self.has_version { PREFIX_WITH_VERSION } else { PREFIX }
    }

    /// The offset of the names in the record: entity, scope and kind, one after the other.
    fn names_at(&self) -> usize {
        sum([self.prefix(), PUBLIC_FIXED])
    }

    /// The offset behind the names.
    fn names_end(&self) -> usize {
        sum([self.names_at(), self.entity.into(), self.scope.into(), self.kind.into()])
    }

    /// The length of the record in bytes.
    pub(crate) fn bytes(&self) -> usize {
        sum([self.prefix(), self.public.into(), to_usize(self.private)])
    }
}

/// The length of the optional fields that these flags announce, without the cause. The fields stand in the
/// order of their bits, so the fields in front of one are those of the lower bits.
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

/// The tags in length-prefixed bytes. The bytes were checked when they were read or written.
pub(crate) fn tags(mut bytes: &[u8]) -> impl Iterator<Item = &str> + Clone {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first()?;
        let (tag, rest) = rest.split_at_checked(usize::from(*length))?;
        bytes = rest;
        Some(std::str::from_utf8(tag).unwrap_or_default())
    })
}

impl<'a> Record<'a> {
    /// The record at `start`. The caller has checked it there before and kept its shape.
    pub(crate) fn known(bytes: &'a [u8], start: usize, shape: RecordShape) -> Record<'a> {
        Record { bytes: part(bytes, start..sum([start, shape.bytes()])), shape }
    }

    pub(crate) fn shape(&self) -> RecordShape {
        self.shape
    }

    /// All bytes of the record.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The version of the event, if it stands in the record. Else the frame says it.
    pub(crate) fn version(&self) -> Option<u64> {
        self.shape.has_version.then(|| version_in(self.bytes))
    }

    /// The part that outlives erasure.
    pub(crate) fn public(&self) -> &'a [u8] {
        part(self.bytes, self.shape.prefix()..self.private_at())
    }

    /// Salt, metadata and payload; `None` once erased.
    pub(crate) fn private(&self) -> Option<&'a [u8]> {
        (!self.shape.is_erased).then(|| part(self.bytes, self.private_at()..))
    }

    /// The content hash of the record, for the chain. It needs the hash of the private part only, so erasure
    /// does not change it.
    pub(crate) fn content(&self) -> Hash {
        let private = part(self.bytes, self.private_at()..);
        let hash = if self.shape.is_erased { array(private, 0) } else { *blake3::hash(private).as_bytes() };
        chain::record_content(self.public(), &hash)
    }

    pub(crate) fn schema_version(&self) -> u16 {
        let is_stored = self.shape.flags & SCHEMA_VERSION != 0;
        if is_stored { u16_at(self.bytes, self.shape.names_end()) } else { 1 }
    }

    pub(crate) fn entity(&self) -> &'a str {
        self.name(0, self.shape.entity.into())
    }

    /// The bytes of the entity's name, for comparisons.
    pub(crate) fn entity_bytes(&self) -> &'a [u8] {
        let start = self.shape.names_at();
        part(self.bytes, start..sum([start, self.shape.entity.into()]))
    }

    /// Empty for the default scope.
    pub(crate) fn scope(&self) -> &'a str {
        self.name(self.shape.entity.into(), self.shape.scope.into())
    }

    /// The scope by its name, also for the default scope.
    pub(crate) fn scope_or_default(&self) -> &'a str {
        match self.scope() {
            "" => DEFAULT_SCOPE,
            scope => scope,
        }
    }

    pub(crate) fn kind(&self) -> &'a str {
        let RecordShape { entity, scope, kind, .. } = self.shape;
        self.name(sum([entity.into(), scope.into()]), kind.into())
    }

    /// The tags, length-prefixed; [`tags`] iterates over them.
    pub(crate) fn tag_bytes(&self) -> &'a [u8] {
        let tags = part(self.bytes, self.tags_at()..self.optional_at());
        // The count stands in front of them.
        tags.get(1..).unwrap_or_default()
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

    /// The random bytes that the private part begins with; `None` once erased.
    pub(crate) fn salt(&self) -> Option<&'a [u8]> {
        self.private()?.get(..SALT)
    }

    /// The metadata, empty if there is none; `None` once erased.
    pub(crate) fn metadata(&self) -> Option<&'a [u8]> {
        let before = self.private()?.len().checked_sub(to_usize(self.shape.payload))?;
        // Salt, length of the metadata, metadata. Without metadata there is only the salt.
        Some(self.private()?.get(SALT + 4..before).unwrap_or_default())
    }

    /// The payload; `None` once erased.
    pub(crate) fn payload(&self) -> Option<&'a [u8]> {
        let start = self.bytes.len().saturating_sub(to_usize(self.shape.payload));
        (!self.shape.is_erased).then(|| part(self.bytes, start..))
    }

    /// The fields of the public part.
    pub(crate) fn fields(&self) -> RecordFields<'a> {
        RecordFields {
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

    pub(super) fn private_at(&self) -> usize {
        sum([self.shape.prefix(), self.shape.public.into()])
    }

    fn name(&self, skip: usize, length: usize) -> &'a str {
        let start = sum([self.shape.names_at(), skip]);
        let name = part(self.bytes, start..sum([start, length]));
        std::str::from_utf8(name).expect("checked when the record was read")
    }

    /// The offset of the tags, with their count.
    fn tags_at(&self) -> usize {
        let schema_version = if self.shape.flags & SCHEMA_VERSION == 0 { 0 } else { SCHEMA_VERSION_BYTES };
        sum([self.shape.names_end(), schema_version])
    }

    /// The offset of the optional fields.
    fn optional_at(&self) -> usize {
        sum([self.tags_at(), self.shape.tags.into()])
    }

    /// The offset of the optional field of this flag.
    fn optional(&self, flag: u16) -> Option<usize> {
        let flags = self.shape.flags;
        let before = flags & flag.saturating_sub(1);
        (flags & flag != 0).then(|| sum([self.optional_at(), optional_bytes(before)]))
    }

    fn id(&self, at: usize) -> EventId {
        EventId::from_bytes(array(self.bytes, at))
    }
}
