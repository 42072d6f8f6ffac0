//! A frame: one atomic append, as it lies in a segment.
//!
//! The checksum of the header covers the body's length, and the mark binds the header to its place. So a
//! wrong length never misleads a reader, and a frame that was copied elsewhere is not read as one there.
//! SPEC.md "Frame".

use crate::types::{EventId, Position};

use super::bytes::{
    ALIGN, BEHIND_CHECKSUM, BODY_BYTES_MAX, CHECKSUM_AT, Damage, MARK_AT, array, checksum, own_checksum,
    part, put, sum, u16_at, u32_at, u64_at,
};
use super::chain::Hash;

/// The offset of each field of the fixed part, after mark and checksum. Key and version table follow it.
const BODY_BYTES_AT: usize = BEHIND_CHECKSUM;
const BODY_CHECKSUM_AT: usize = BODY_BYTES_AT + 4;
const POSITION_OFFSET_AT: usize = BODY_CHECKSUM_AT + 4;
const DURABLE_END_AT: usize = POSITION_OFFSET_AT + 4;
const EVENTS_AT: usize = DURABLE_END_AT + 4;
const FLAGS_AT: usize = EVENTS_AT + 2;
const RECORDED_AT_AT: usize = FLAGS_AT + 2;
const FIRST_VERSION_AT: usize = RECORDED_AT_AT + 8;
const CHAIN_AT: usize = FIRST_VERSION_AT + 8;
pub(crate) const FRAME_FIXED_BYTES: usize = CHAIN_AT + size_of::<Hash>();
const _: () = assert!(FRAME_FIXED_BYTES == 80);

pub(crate) const KEY_BYTES: usize = 16;
/// The bytes of a version in the version table.
const VERSION_BYTES: usize = 8;
/// The longest header: with a key, and a version table for as many events as there can be.
pub(crate) const HEADER_BYTES_MAX: usize = FRAME_FIXED_BYTES + KEY_BYTES + VERSION_BYTES * 65_535;

const KEY: u16 = 0x0100;
const VERSIONS: u16 = 0x0200;
/// A reader that does not know one of these bits must not read on.
const CRITICAL: u16 = 0xFF00;

/// The fields of a frame's header, to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewFrameHeader<'a> {
    pub(crate) body_bytes: u32,
    pub(crate) body_checksum: u32,
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
    /// A version per event (8 bytes each) if the append addresses several entities; else empty.
    pub(crate) version_table: &'a [u8],
}

impl NewFrameHeader<'_> {
    /// The flags that say which optional parts follow the fixed part.
    pub(crate) fn flags_for(key: bool, table: bool) -> u16 {
        if key { KEY } else { 0 }.wrapping_add(if table { VERSIONS } else { 0 })
    }

    /// Appends the header to `out`. `mark` is the mark of the place that the frame will have.
    pub(crate) fn write(&self, out: &mut Vec<u8>, mark: u64) {
        let start = out.len();
        let mut fixed = [0; FRAME_FIXED_BYTES];
        put(&mut fixed, MARK_AT, &mark.to_le_bytes());
        put(&mut fixed, BODY_BYTES_AT, &self.body_bytes.to_le_bytes());
        put(&mut fixed, BODY_CHECKSUM_AT, &self.body_checksum.to_le_bytes());
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
        out.extend_from_slice(self.version_table);
        let (_, header) = out.split_at_mut(start);
        let crc = own_checksum(header);
        put(header, CHECKSUM_AT, &crc.to_le_bytes());
    }
}

fn header_bytes(flags: u16, events: u16) -> usize {
    let key = if flags & KEY != 0 { KEY_BYTES } else { 0 };
    let table = if flags & VERSIONS != 0 { usize::from(events).saturating_mul(VERSION_BYTES) } else { 0 };
    sum([FRAME_FIXED_BYTES, key, table])
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
    let body_bytes = u32_at(fixed, BODY_BYTES_AT);
    if usize::try_from(body_bytes).is_ok_and(|bytes| bytes > BODY_BYTES_MAX || bytes % ALIGN != 0)
        || events == 0
    {
        return Err(Damage::Forbidden("a frame's header holds an impossible length or count"));
    }
    let header = FrameHeader(header);
    if !header.version_table().is_empty() && header.version(0) != header.first_version() {
        return Err(Damage::Forbidden("a frame's first version is not the one in its version table"));
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

    pub(crate) fn body_checksum(&self) -> u32 {
        u32_at(self.0, BODY_CHECKSUM_AT)
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

    /// A version per event (8 bytes each) if the append addresses several entities; else empty.
    pub(crate) fn version_table(&self) -> &'a [u8] {
        part(self.0, header_bytes(self.flags() & KEY, 0)..)
    }

    /// Key and version table, as they enter the chain.
    pub(crate) fn extension(&self) -> &'a [u8] {
        part(self.0, FRAME_FIXED_BYTES..)
    }

    /// The id that the store derives for the frame's event at `position`.
    pub(crate) fn event_id(&self, position: Position) -> EventId {
        EventId::derive(self.recorded_at(), position, &self.chain())
    }

    /// The version of the event at `index` of the frame.
    pub(crate) fn version(&self, index: usize) -> u64 {
        match self.version_table() {
            [] => self.first_version().saturating_add(u64::try_from(index).unwrap_or(u64::MAX)),
            table => u64_at(table, index.saturating_mul(VERSION_BYTES)),
        }
    }

    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn header_bytes(&self) -> usize {
        self.0.len()
    }

    /// The length of header and body in bytes.
    pub(crate) fn frame_bytes(&self) -> usize {
        let body = usize::try_from(self.body_bytes()).expect("bodies are checked against 16 MiB");
        sum([self.0.len(), body])
    }

    /// The fields to write the same frame at another place. The caller replaces those that depend on the
    /// place.
    pub(crate) fn fields(&self) -> NewFrameHeader<'a> {
        NewFrameHeader {
            body_bytes: self.body_bytes(),
            body_checksum: self.body_checksum(),
            position_offset: self.position_offset(),
            durable_end: self.durable_end(),
            events: self.events(),
            flags: self.flags(),
            recorded_at: self.recorded_at(),
            first_version: self.first_version(),
            chain: self.chain(),
            key: self.key(),
            version_table: self.version_table(),
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
pub(crate) fn read(bytes: &[u8], mark: u64) -> Result<Frame<'_>, Damage> {
    read_body(bytes, read_header(bytes, mark)?)
}

/// Reads and checks the body only. [`read_header`] must have accepted these very bytes.
pub(crate) fn read_behind_header(bytes: &[u8]) -> Result<Frame<'_>, Damage> {
    read_body(bytes, FrameHeader::known(bytes))
}

#[inline(always)]
fn read_body<'a>(bytes: &'a [u8], header: FrameHeader<'a>) -> Result<Frame<'a>, Damage> {
    let body = bytes
        .get(header.header_bytes()..header.frame_bytes())
        .ok_or(Damage::Bad("a frame's body is cut off"))?;
    if checksum(&[body]) != header.body_checksum() {
        return Err(Damage::Bad("a frame's body does not fit its checksum"));
    }
    Ok(Frame { header, body })
}
