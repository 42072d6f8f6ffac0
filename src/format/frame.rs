//! A frame: one atomic append, as it lies in a segment.
//!
//! The checksum of the header covers the body's length, and the mark binds the header to its place. So a
//! wrong length never misleads a reader, and a frame that was copied elsewhere is not read as one there. Each
//! record has a checksum that is bound to its place as well, so one record can be read alone. A body of
//! several records has one checksum more: a reader of the whole frame checks only that one, three times as
//! fast. SPEC.md "Frame".

use crate::types::{EventId, Position, to_u32, to_u64};

use super::bytes::{
    ALIGN, BEHIND_CHECKSUM, BODY_BYTES_MAX, CHECKSUM_AT, Damage, MARK_AT, array, checksum, own_checksum,
    part, put, sum, u16_at, u32_at, u64_at,
};
use super::chain::Hash;
use super::place::{BodyLayout, FramePlace, LargeFrame, RecordPlace};
use super::record::{self, AnyRecord, Record};

/// The offset of each field of the fixed part, after mark and checksum. Key and body checksum follow it.
const BODY_BYTES_AT: usize = BEHIND_CHECKSUM;
const POSITION_OFFSET_AT: usize = BODY_BYTES_AT + 4;
const DURABLE_END_AT: usize = POSITION_OFFSET_AT + 4;
const EVENTS_AT: usize = DURABLE_END_AT + 4;
const FLAGS_AT: usize = EVENTS_AT + 2;
const RECORDED_AT_AT: usize = FLAGS_AT + 2;
const FIRST_VERSION_AT: usize = RECORDED_AT_AT + 8;
const CHAIN_AT: usize = FIRST_VERSION_AT + 8;
pub(crate) const FRAME_FIXED_BYTES: usize = CHAIN_AT + size_of::<Hash>();
const _: () = assert!(FRAME_FIXED_BYTES == 76);

pub(crate) const KEY_BYTES: usize = 16;
/// The bytes of the body's checksum, which ends the header of a frame of several events.
const BODY_CHECKSUM_BYTES: usize = 4;
/// The longest header.
pub(crate) const HEADER_BYTES_MAX: usize = FRAME_FIXED_BYTES + KEY_BYTES + BODY_CHECKSUM_BYTES;

const KEY: u16 = 0x0100;
const VERSIONS: u16 = 0x0200;
/// A reader that does not know one of these bits must not read on.
const CRITICAL: u16 = 0xFF00;

/// The fields of a frame's header, to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewFrameHeader {
    /// The position of the first event, counted from the first position of the segment.
    pub(crate) position_offset: u32,
    /// How many bytes of this segment were durable when the writer built the header.
    pub(crate) durable_end: u32,
    pub(crate) events: u16,
    pub(crate) flags: u16,
    pub(crate) recorded_at: u64,
    pub(crate) first_version: u64,
    pub(crate) chain: Hash,
    pub(crate) key: Option<[u8; KEY_BYTES]>,
}

impl NewFrameHeader {
    /// The flags of a frame: whether it has a key, and whether the versions stand in its records.
    pub(crate) fn flags_for(key: bool, versions: bool) -> u16 {
        if key { KEY } else { 0 }.wrapping_add(if versions { VERSIONS } else { 0 })
    }

    /// Appends the frame to `out`, as it lies at `place`. The records of `body` are not bound to a place; the
    /// body is as long as [`padded_body_bytes`] says. `versions` has 8 bytes for each event, if the versions
    /// stand in the records; else it is empty.
    pub(crate) fn write(&self, out: &mut Vec<u8>, place: &FramePlace, body: &[u8], versions: &[u8]) {
        let start = out.len();
        let mut fixed = [0; FRAME_FIXED_BYTES];
        put(&mut fixed, MARK_AT, &place.mark().to_le_bytes());
        put(&mut fixed, BODY_BYTES_AT, &to_u32(body.len()).to_le_bytes());
        put(&mut fixed, POSITION_OFFSET_AT, &self.position_offset.to_le_bytes());
        put(&mut fixed, DURABLE_END_AT, &self.durable_end.to_le_bytes());
        put(&mut fixed, EVENTS_AT, &self.events.to_le_bytes());
        put(&mut fixed, FLAGS_AT, &self.flags.to_le_bytes());
        put(&mut fixed, RECORDED_AT_AT, &self.recorded_at.to_le_bytes());
        put(&mut fixed, FIRST_VERSION_AT, &self.first_version.to_le_bytes());
        put(&mut fixed, CHAIN_AT, &self.chain);
        out.extend_from_slice(&fixed);
        if let Some(key) = &self.key {
            out.extend_from_slice(key);
        }
        let header_bytes = header_bytes(self.flags, self.events);
        out.resize(sum([start, header_bytes]), 0);
        out.extend_from_slice(body);
        let (_, frame) = out.split_at_mut(start);
        let (header, body) = frame.split_at_mut(header_bytes);
        record::write_versions(body, versions);
        bind(FrameHeader(header), place, body);
        if self.events > 1 {
            let body_checksum = checksum(&[body]).to_le_bytes();
            put(header, header_bytes.saturating_sub(BODY_CHECKSUM_BYTES), &body_checksum);
        }
        let crc = own_checksum(header);
        put(header, CHECKSUM_AT, &crc.to_le_bytes());
    }
}

/// Binds the records of a body to the place of their frame, or frees bound ones: the second call undoes the
/// first. CRC is linear, so one XOR takes the checksum from one place to another.
fn bind(header: FrameHeader<'_>, place: &FramePlace, body: &mut [u8]) {
    let layout = header.layout();
    let mut start = 0;
    for index in 0..layout.events {
        let bytes = record::length_at(body, start, layout).expect("the caller has written or checked it");
        let place = header.record_place(place, index, start, record::version_at(body, start, layout));
        record::toggle_checksum(body, start, place.checksum());
        start = sum([start, bytes]);
    }
}

/// How long a body of `bytes` bytes of records is with the zeros behind them, so that its frame ends at a
/// multiple of 8.
pub(crate) fn padded_body_bytes(bytes: usize, has_key: bool, events: u16) -> usize {
    let header = header_bytes(NewFrameHeader::flags_for(has_key, false), events);
    sum([header, bytes]).next_multiple_of(ALIGN).saturating_sub(header)
}

fn header_bytes(flags: u16, events: u16) -> usize {
    let key = if flags & KEY != 0 { KEY_BYTES } else { 0 };
    let body_checksum = if events > 1 { BODY_CHECKSUM_BYTES } else { 0 };
    sum([FRAME_FIXED_BYTES, key, body_checksum])
}

/// How many bytes the header at the start of `bytes` claims to have; `None` if it does not begin with `mark`.
pub(crate) fn bytes_needed(bytes: &[u8], mark: u64) -> Option<usize> {
    let fixed = bytes.first_chunk::<FRAME_FIXED_BYTES>()?;
    (u64_at(fixed, MARK_AT) == mark).then(|| header_bytes(u16_at(fixed, FLAGS_AT), u16_at(fixed, EVENTS_AT)))
}

/// Reads and checks the header at the start of `bytes`, which may be longer.
pub(crate) fn read_header(bytes: &[u8], mark: u64) -> Result<FrameHeader<'_>, Damage> {
    const SHORT: Damage = Damage::Bad("a frame's header is cut off");
    let fixed = bytes.first_chunk::<FRAME_FIXED_BYTES>().ok_or(SHORT)?;
    if u64_at(fixed, MARK_AT) != mark {
        return Err(Damage::Bad("no frame begins here"));
    }
    let events = u16_at(fixed, EVENTS_AT);
    let flags = u16_at(fixed, FLAGS_AT);
    let header = bytes.get(..header_bytes(flags, events)).ok_or(SHORT)?;
    // Before any other field is trusted.
    if own_checksum(header) != u32_at(fixed, CHECKSUM_AT) {
        return Err(Damage::Bad("a frame's header does not fit its checksum"));
    }
    if flags & CRITICAL & !(KEY | VERSIONS) != 0 {
        return Err(Damage::Newer(format!("frame flags {flags:#06x}")));
    }
    let header = FrameHeader(header);
    let has_possible_body = usize::try_from(header.body_bytes())
        .is_ok_and(|bytes| bytes <= BODY_BYTES_MAX && header.frame_bytes().is_multiple_of(ALIGN));
    if !has_possible_body || events == 0 {
        return Err(Damage::Forbidden("a frame's header holds an impossible length or count"));
    }
    Ok(header)
}

/// A checked header, read from the bytes it lies in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameHeader<'a>(&'a [u8]);

impl<'a> FrameHeader<'a> {
    /// The header at the start of `bytes`, which may be longer. The caller has written it there, or
    /// [`read_header`] has accepted these bytes before.
    pub(crate) fn known(bytes: &'a [u8]) -> FrameHeader<'a> {
        FrameHeader(part(bytes, ..header_bytes(u16_at(bytes, FLAGS_AT), u16_at(bytes, EVENTS_AT))))
    }

    pub(crate) fn body_bytes(&self) -> u32 {
        u32_at(self.0, BODY_BYTES_AT)
    }

    /// The checksum of the body, if the frame has several events.
    fn body_checksum(&self) -> Option<u32> {
        (self.events() > 1).then(|| u32_at(self.0, self.0.len().saturating_sub(BODY_CHECKSUM_BYTES)))
    }

    /// The position of the first event, counted from the first position of the segment.
    pub(crate) fn position_offset(&self) -> u32 {
        u32_at(self.0, POSITION_OFFSET_AT)
    }

    /// How many bytes of this segment were durable when the writer built the header.
    pub(crate) fn durable_end(&self) -> u32 {
        u32_at(self.0, DURABLE_END_AT)
    }

    pub(crate) fn events(&self) -> u16 {
        u16_at(self.0, EVENTS_AT)
    }

    pub(crate) fn flags(&self) -> u16 {
        u16_at(self.0, FLAGS_AT)
    }

    pub(crate) fn recorded_at(&self) -> u64 {
        u64_at(self.0, RECORDED_AT_AT)
    }

    pub(crate) fn first_version(&self) -> u64 {
        u64_at(self.0, FIRST_VERSION_AT)
    }

    pub(crate) fn chain(&self) -> Hash {
        array(self.0, CHAIN_AT)
    }

    pub(crate) fn key(&self) -> Option<[u8; KEY_BYTES]> {
        (self.flags() & KEY != 0).then(|| array(self.0, FRAME_FIXED_BYTES))
    }

    /// How many records the body has, and whether the versions stand in them.
    pub(crate) fn layout(&self) -> BodyLayout {
        BodyLayout { events: self.events(), has_versions: self.flags() & VERSIONS != 0 }
    }

    /// The id that the store derives for the frame's event at `position`.
    pub(crate) fn event_id(&self, position: Position) -> EventId {
        EventId::derive(self.recorded_at(), position, &self.chain())
    }

    /// The version of the event at `index` of the frame, whose record this is.
    pub(crate) fn version(&self, index: u16, record: &Record<'_>) -> u64 {
        self.version_or(index, record.version())
    }

    /// The version of the event at `index` of the frame. `own` is the one in its record, if it has one.
    pub(crate) fn version_or(&self, index: u16, own: Option<u64>) -> u64 {
        own.unwrap_or_else(|| self.first_version().saturating_add(index.into()))
    }

    /// The length of a header that stands beside a record that was read alone: it has no key.
    pub(crate) const DETACHED_BYTES: usize = FRAME_FIXED_BYTES + BODY_CHECKSUM_BYTES;

    /// Writes the header of a large frame as far as the index knows it. It says that there is no body: the
    /// other records are not there.
    pub(crate) fn write_detached(out: &mut [u8], frame: &LargeFrame) {
        out.fill(0);
        let flags = NewFrameHeader::flags_for(false, frame.has_versions);
        put(out, POSITION_OFFSET_AT, &frame.first.to_le_bytes());
        put(out, EVENTS_AT, &frame.events.to_le_bytes());
        put(out, FLAGS_AT, &flags.to_le_bytes());
        put(out, RECORDED_AT_AT, &frame.recorded_at.to_le_bytes());
        put(out, FIRST_VERSION_AT, &frame.first_version.to_le_bytes());
        put(out, CHAIN_AT, &frame.chain);
    }

    /// Whether the header stands beside a record that was read alone. The other records are not there.
    pub(crate) fn is_detached(&self) -> bool {
        self.body_bytes() == 0
    }

    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn header_bytes(&self) -> usize {
        self.0.len()
    }

    /// The length of header and body in bytes.
    pub(crate) fn frame_bytes(&self) -> usize {
        let body = usize::try_from(self.body_bytes()).unwrap_or(usize::MAX);
        sum([self.0.len(), body])
    }

    /// The place of the record at `index`, which begins at `start` of the body. `own` is the version that
    /// stands in the record, if it has one.
    pub(crate) fn record_place(
        &self,
        place: &FramePlace,
        index: u16,
        start: usize,
        own: Option<u64>,
    ) -> RecordPlace {
        let offset = place.offset.saturating_add(to_u64(sum([self.0.len(), start])));
        let position = place.first_position.saturating_add(self.position_offset().into());
        RecordPlace {
            salt: place.salt,
            // A segment is shorter than 4 GiB. What lies further out does not fit its checksum.
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
            index,
            events: self.events(),
            position: position.saturating_add(index.into()),
            version: self.version_or(index, own),
            recorded_at: self.recorded_at(),
            chain: self.chain(),
        }
    }

    /// The fields to write the same frame at another place. The caller replaces those that depend on the
    /// place.
    pub(crate) fn fields(&self) -> NewFrameHeader {
        NewFrameHeader {
            position_offset: self.position_offset(),
            durable_end: self.durable_end(),
            events: self.events(),
            flags: self.flags(),
            recorded_at: self.recorded_at(),
            first_version: self.first_version(),
            chain: self.chain(),
            key: self.key(),
        }
    }
}

/// The durable end that a whole header at the start of `bytes` repeats. A header whose checksum fits is proof
/// even if another field is forbidden or unknown.
pub(crate) fn repeated_durable_end(bytes: &[u8], mark: u64) -> Option<u32> {
    match read_header(bytes, mark) {
        Err(Damage::Bad(_)) => None,
        Ok(_) | Err(Damage::Newer(_) | Damage::Forbidden(_)) => Some(u32_at(bytes, DURABLE_END_AT)),
    }
}

/// A checked frame: header and body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) header: FrameHeader<'a>,
    pub(crate) body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame at the start of `bytes`, which may be longer. The caller has written or checked it there.
    pub(crate) fn known(bytes: &'a [u8]) -> Frame<'a> {
        let header = FrameHeader::known(bytes);
        Frame { header, body: part(bytes, header.header_bytes()..header.frame_bytes()) }
    }

    /// The records of the events that are there, in order, each with its index in the append.
    pub(crate) fn records(&self) -> impl Iterator<Item = Result<(u16, Record<'a>), Damage>> + use<'a> {
        record::records(self.body, self.header.layout())
    }

    /// All records of the frame in order, gone ones included: for chain, tree and checksums.
    pub(crate) fn all_records(&self) -> impl Iterator<Item = Result<AnyRecord<'a>, Damage>> + use<'a> {
        record::all_records(self.body, self.header.layout())
    }

    /// The record of the append's first event, unless that event is gone.
    pub(crate) fn first_record(&self) -> Option<Record<'a>> {
        self.all_records().next()?.ok()?.event()
    }

    /// How many of the frame's events are there.
    pub(crate) fn events_left(&self) -> u16 {
        record::events_left(self.body, self.header.layout())
    }

    /// The version of each event, 8 bytes each, if the versions stand in the records; else empty.
    pub(crate) fn versions(&self) -> Vec<u8> {
        if !self.header.layout().has_versions {
            return Vec::new();
        }
        let versions = self.all_records().filter_map(|record| record.ok()?.version());
        versions.flat_map(u64::to_le_bytes).collect()
    }

    /// The body with records that are bound to no place, to be written elsewhere. `place` is where the frame
    /// lies now.
    pub(crate) fn unbound_body(&self, place: &FramePlace, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.body);
        bind(self.header, place, out);
    }

    /// Checks the checksum of every record, and that only zeros follow the last one.
    pub(crate) fn check_records(&self, place: &FramePlace) -> Result<(), Damage> {
        let layout = self.header.layout();
        let mut start = 0;
        for index in 0..layout.events {
            let bytes = record::length_at(self.body, start, layout).ok_or(record::LONG)?;
            let version = record::version_at(self.body, start, layout);
            let place = self.header.record_place(place, index, start, version);
            record::check(part(self.body, start..sum([start, bytes])), &place)?;
            start = sum([start, bytes]);
        }
        // A frame of one event has no body checksum, so nothing else covers these zeros.
        record::ends_well(self.body, start)
    }
}

/// The frame at the start of `bytes`, if it begins with `mark` and lies there as a whole. The caller has
/// checked these bytes before; they may be longer, or end anywhere.
#[inline(always)]
pub(crate) fn known_if_whole(bytes: &[u8], mark: u64) -> Option<Frame<'_>> {
    let header = FrameHeader(bytes.get(..bytes_needed(bytes, mark)?)?);
    let body = bytes.get(header.header_bytes()..header.frame_bytes())?;
    Some(Frame { header, body })
}

/// Reads and checks the frame at the start of `bytes`, which may be longer.
#[inline(always)]
pub(crate) fn read<'a>(bytes: &'a [u8], place: &FramePlace) -> Result<Frame<'a>, Damage> {
    read_body(bytes, read_header(bytes, place.mark())?, place)
}

/// Reads and checks the body only. [`read_header`] must have accepted these very bytes.
pub(crate) fn read_behind_header<'a>(bytes: &'a [u8], place: &FramePlace) -> Result<Frame<'a>, Damage> {
    read_body(bytes, FrameHeader::known(bytes), place)
}

#[inline(always)]
fn read_body<'a>(bytes: &'a [u8], header: FrameHeader<'a>, place: &FramePlace) -> Result<Frame<'a>, Damage> {
    let body = bytes
        .get(header.header_bytes()..header.frame_bytes())
        .ok_or(Damage::Bad("a frame's body is cut off"))?;
    let frame = Frame { header, body };
    match header.body_checksum() {
        Some(right) if checksum(&[body]) != right => {
            return Err(Damage::Bad("a frame's body does not fit its checksum"));
        }
        Some(_) => {}
        None => frame.check_records(place)?,
    }
    let layout = header.layout();
    if layout.has_versions && record::version_at(body, 0, layout) != Some(header.first_version()) {
        return Err(Damage::Forbidden("a frame's first version is not the one in its first record"));
    }
    Ok(frame)
}
