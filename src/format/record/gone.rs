//! What stands in a body: records of events, and what compaction left of events that are gone.
//!
//! A gone record has the content hash of the record that was there. Chain and tree are computed from that
//! hash, so they stay as they are. A position with a gone record is empty: readers pass over it.
//! SPEC.md "Record".

use crate::format::bytes::{Damage, array, part, sum, u16_at};
use crate::format::chain::Hash;

use super::read::{
    BodyLayout, FORM_AT, FORM_GONE, LONG, PUBLIC_BYTES_AT, Record, length_at, read, version_at,
};

/// A checked record of a body, whether or not its event is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnyRecord<'a> {
    Event(Record<'a>),
    Gone(GoneRecord<'a>),
}

/// A record whose event was removed, while another event of its append stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GoneRecord<'a> {
    bytes: &'a [u8],
    layout: BodyLayout,
}

impl<'a> AnyRecord<'a> {
    /// Reads and checks the record at `start`.
    #[inline(always)]
    pub(crate) fn read(body: &'a [u8], start: usize, layout: BodyLayout) -> Result<AnyRecord<'a>, Damage> {
        if body.get(sum([start, FORM_AT])) == Some(&FORM_GONE) {
            return GoneRecord::read(body, start, layout).map(AnyRecord::Gone);
        }
        read(body, start, layout).map(AnyRecord::Event)
    }

    /// The record of the event, if the event is there.
    #[inline(always)]
    pub(crate) fn event(self) -> Option<Record<'a>> {
        match self {
            AnyRecord::Event(record) => Some(record),
            AnyRecord::Gone(_) => None,
        }
    }

    /// All bytes of the record.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> &'a [u8] {
        match self {
            AnyRecord::Event(record) => record.bytes(),
            AnyRecord::Gone(gone) => gone.bytes,
        }
    }

    /// The version of the event, if it stands in the record. Else the frame says it.
    pub(crate) fn version(&self) -> Option<u64> {
        match self {
            AnyRecord::Event(record) => record.version(),
            AnyRecord::Gone(gone) => version_at(gone.bytes, 0, gone.layout),
        }
    }

    /// The content hash of the record, for chain and tree. Neither erasing nor removing changes it.
    pub(crate) fn content(&self) -> Hash {
        match self {
            AnyRecord::Event(record) => record.content(),
            AnyRecord::Gone(gone) => array(gone.bytes, gone.layout.prefix()),
        }
    }
}

impl<'a> GoneRecord<'a> {
    #[cold]
    fn read(body: &'a [u8], start: usize, layout: BodyLayout) -> Result<GoneRecord<'a>, Damage> {
        const BAD: Damage = Damage::Bad("a record whose event is gone has a wrong length");
        let bytes = length_at(body, start, layout).ok_or(LONG)?;
        let gone = part(body, start..sum([start, bytes]));
        if bytes != layout.gone_bytes() || u16_at(gone, PUBLIC_BYTES_AT) != 0 {
            return Err(BAD);
        }
        Ok(GoneRecord { bytes: gone, layout })
    }
}
