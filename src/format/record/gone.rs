//! What stands in a body: records of events, and what compaction left of events that are gone.
//!
//! A gone record has the content hash of the record that was there. Chain and tree are computed from that
//! hash, so they stay as they are. A position with a gone record is empty: readers pass over it.
//! SPEC.md "Record".

use crate::format::bytes::{Damage, array, part, sum, u16_at};
use crate::format::chain::Hash;
use crate::format::place::BodyLayout;

use super::checks::LONG;
use super::read::{
    FORM_AT, FORM_GONE, PUBLIC_BYTES_AT, Record, ends_well, gone_bytes, length_at, prefix_bytes, read,
    version_at,
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

/// The records of a body in order, gone ones included: exactly as many as the layout says, then zeros up to
/// the alignment.
pub(crate) fn all_records(
    body: &[u8],
    layout: BodyLayout,
) -> impl Iterator<Item = Result<AnyRecord<'_>, Damage>> {
    let mut start = 0;
    let mut left = layout.events;
    std::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        let record = AnyRecord::read(body, start, layout).and_then(|record| {
            start = sum([start, record.bytes().len()]);
            if left == 0 {
                ends_well(body, start)?
            }
            Ok(record)
        });
        if record.is_err() {
            left = 0;
        }
        Some(record)
    })
}

/// The records of the events that are there, in order, each with its index in the append.
pub(crate) fn records(
    body: &[u8],
    layout: BodyLayout,
) -> impl Iterator<Item = Result<(u16, Record<'_>), Damage>> {
    // The numbers come second: there is no index behind that of the last of 65,535 events.
    all_records(body, layout).zip(0..).filter_map(|(record, index)| match record {
        Ok(record) => record.event().map(|record| Ok((index, record))),
        Err(damage) => Some(Err(damage)),
    })
}

/// How many events of a checked body are there. It reads lengths and forms only.
pub(crate) fn events_left(body: &[u8], layout: BodyLayout) -> u16 {
    let mut start = 0;
    let mut left = 0_u16;
    for _ in 0..layout.events {
        let Some(bytes) = length_at(body, start, layout) else { break };
        let is_gone = body.get(sum([start, FORM_AT])) == Some(&FORM_GONE);
        left = left.saturating_add((!is_gone).into());
        start = sum([start, bytes]);
    }
    left
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
            AnyRecord::Gone(gone) => array(gone.bytes, prefix_bytes(gone.layout)),
        }
    }
}

impl<'a> GoneRecord<'a> {
    #[cold]
    fn read(body: &'a [u8], start: usize, layout: BodyLayout) -> Result<GoneRecord<'a>, Damage> {
        const BAD: Damage = Damage::Bad("a record whose event is gone has a wrong length");
        let bytes = length_at(body, start, layout).ok_or(LONG)?;
        let gone = part(body, start..sum([start, bytes]));
        if bytes != gone_bytes(layout) || u16_at(gone, PUBLIC_BYTES_AT) != 0 {
            return Err(BAD);
        }
        Ok(GoneRecord { bytes: gone, layout })
    }
}
