//! The checks of a record's parts: names, schema version and tags in the public part; the private part.
//!
//! SPEC.md "Record".

use crate::format::bytes::{Damage, sum, u16_at, u32_at};
use crate::types::{DEFAULT_SCOPE, ENTITY_BYTES_CAP, to_u32};

pub(in crate::format) const LONG: Damage = Damage::Bad("an event record is longer than its frame");
pub(super) const SHORT: Damage = Damage::Bad("an event record's public part is too short");
pub(super) const METADATA: u16 = 1 << 2;
/// The length of the random bytes that a private part begins with.
pub(crate) const SALT: usize = 16;
/// The schema version stands behind the names. Without it the version is 1.
pub(super) const SCHEMA_VERSION: u16 = 0x0100;
pub(super) const SCHEMA_VERSION_BYTES: usize = 2;

/// Checks the names at the start of `public`. Returns the bytes behind them.
#[inline(always)]
pub(super) fn check_names(public: &[u8], lengths: [u16; 3]) -> Result<&[u8], Damage> {
    const BAD: Damage = Damage::Bad("a name is not UTF-8");
    let [entity, scope, kind] = lengths.map(usize::from);
    let (names, rest) = public.split_at_checked(sum([entity, scope, kind])).ok_or(SHORT)?;
    if entity == 0 || entity > ENTITY_BYTES_CAP || kind == 0 {
        return Err(Damage::Forbidden("an event's entity or kind has an impossible length"));
    }
    if names.get(entity..sum([entity, scope])) == Some(DEFAULT_SCOPE.as_bytes()) {
        return Err(Damage::Forbidden("an event spells out the default scope"));
    }
    // One check of all names is faster than three. It proves each name if no character crosses a border.
    let names = std::str::from_utf8(names).map_err(|_| BAD)?;
    let borders_are_clean = names.is_char_boundary(entity) && names.is_char_boundary(sum([entity, scope]));
    if borders_are_clean { Ok(rest) } else { Err(BAD) }
}

/// Checks the schema version at the start of `public`, if the flags announce one. Returns the bytes behind
/// it.
#[inline(always)]
pub(super) fn check_schema_version(public: &[u8], flags: u16) -> Result<&[u8], Damage> {
    if flags & SCHEMA_VERSION == 0 {
        return Ok(public);
    }
    let (version, rest) = public.split_at_checked(SCHEMA_VERSION_BYTES).ok_or(SHORT)?;
    if u16_at(version, 0) == 1 {
        return Err(Damage::Forbidden("an event spells out the schema version 1"));
    }
    Ok(rest)
}

/// Checks the count of tags at the start of `public`, and that many tags. Returns the length of both in
/// bytes, and the bytes behind them.
#[inline]
pub(super) fn check_tags(public: &[u8]) -> Result<(u16, &[u8]), Damage> {
    let (count, mut rest) = public.split_first().ok_or(SHORT)?;
    if *count == 0 {
        return Err(Damage::Forbidden("an event is said to have tags, and has none"));
    }
    for _ in 0..*count {
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

/// Checks a private part of `bytes` bytes. Returns the length of the payload at its end.
#[inline]
pub(super) fn check_private(part: &[u8], bytes: u32, flags: u16) -> Result<u32, Damage> {
    const BAD: Damage = Damage::Bad("an event's metadata is longer than its record");
    let salt = to_u32(SALT);
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
