//! A frame: one atomic append, as the writer puts it into a segment.
//!
//! The header's checksum covers the length and is bound to the place by the mark, so a wrong length
//! never steers a reader, and a frame that lies where it was not written is not taken for one.
//! SPEC.md "Frame". Row: bytes.

use crate::types::{EventId, Position};

use super::chain::Hash;
use super::{
    ALIGN, BODY_BYTES_MAX, Damage, array, checksum, own_checksum, part, put, sum, u16_at, u32_at, u64_at,
};

/// Mark 0, header checksum 8, body length 12, body checksum 16, position 20, durable end 24,
/// events 28, flags 30, recorded-at 32, first version 40, chain 48; then key, then version table.
pub(crate) const FRAME_FIXED_BYTES: usize = 80;
pub(crate) const KEY_BYTES: usize = 16;
/// The longest header: with a key, and a version table of as many events as there can be.
pub(crate) const HEADER_BYTES_MAX: usize = FRAME_FIXED_BYTES + KEY_BYTES + 8 * 65_535;
const CHAIN_AT: usize = 48;

const KEY: u16 = 0x0100;
const VERSIONS: u16 = 0x0200;
/// A reader that does not know one of these bits must not read on.
const CRITICAL: u16 = 0xFF00;

/// What to write as a frame's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewFrameHeader<'a> {
    pub(crate) body_bytes: u32,
    pub(crate) body_checksum: u32,
    /// The first event's position, counted from the segment's first.
    pub(crate) position_offset: u32,
    /// How much of this segment was durable when the header was built.
    pub(crate) durable_end: u32,
    pub(crate) events: u16,
    pub(crate) flags: u16,
    pub(crate) recorded_at: u64,
    pub(crate) first_version: u64,
    pub(crate) chain: Hash,
    pub(crate) key: Option<[u8; KEY_BYTES]>,
    /// A version per event (8 bytes each) where several entities are addressed, else empty.
    pub(crate) version_table: &'a [u8],
}

impl NewFrameHeader<'_> {
    /// The flags that say what follows the fixed part.
    pub(crate) fn flags_for(key: bool, table: bool) -> u16 {
        if key { KEY } else { 0 }.wrapping_add(if table { VERSIONS } else { 0 })
    }

    /// Appends the header to `out`, for a frame at `mark`'s place.
    pub(crate) fn write(&self, out: &mut Vec<u8>, mark: u64) {
        let start = out.len();
        let mut fixed = [0; FRAME_FIXED_BYTES];
        put(&mut fixed, 0, &mark.to_le_bytes());
        put(&mut fixed, 12, &self.body_bytes.to_le_bytes());
        put(&mut fixed, 16, &self.body_checksum.to_le_bytes());
        put(&mut fixed, 20, &self.position_offset.to_le_bytes());
        put(&mut fixed, 24, &self.durable_end.to_le_bytes());
        put(&mut fixed, 28, &self.events.to_le_bytes());
        put(&mut fixed, 30, &self.flags.to_le_bytes());
        put(&mut fixed, 32, &self.recorded_at.to_le_bytes());
        put(&mut fixed, 40, &self.first_version.to_le_bytes());
        put(&mut fixed, CHAIN_AT, &self.chain);
        out.extend_from_slice(&fixed);
        if let Some(key) = &self.key {
            out.extend_from_slice(key);
        }
        out.extend_from_slice(self.version_table);
        let (_, header) = out.split_at_mut(start);
        let crc = own_checksum(header);
        put(header, 8, &crc.to_le_bytes());
    }
}

fn header_bytes(flags: u16, events: u16) -> usize {
    let key = if flags & KEY != 0 { KEY_BYTES } else { 0 };
    let table = if flags & VERSIONS != 0 { usize::from(events).saturating_mul(8) } else { 0 };
    sum([FRAME_FIXED_BYTES, key, table])
}

/// How many bytes the header that starts with `bytes` has, if it begins with `mark`.
pub(crate) fn bytes_needed(bytes: &[u8], mark: u64) -> Option<usize> {
    let fixed = bytes.first_chunk::<FRAME_FIXED_BYTES>()?;
    (u64_at(fixed, 0) == mark).then(|| header_bytes(u16_at(fixed, 30), u16_at(fixed, 28)))
}

/// Reads and checks the header at the start of `bytes`, which may be longer.
pub(crate) fn read_header(bytes: &[u8], mark: u64) -> Result<FrameHeader<'_>, Damage> {
    const SHORT: Damage = Damage::Bad("a frame's header is cut off");
    let fixed = bytes.first_chunk::<FRAME_FIXED_BYTES>().ok_or(SHORT)?;
    if u64_at(fixed, 0) != mark {
        return Err(Damage::Bad("no frame begins here"));
    }
    let (events, flags) = (u16_at(fixed, 28), u16_at(fixed, 30));
    let header = bytes.get(..header_bytes(flags, events)).ok_or(SHORT)?;
    if own_checksum(header) != u32_at(fixed, 8) {
        return Err(Damage::Bad("a frame's header does not fit its checksum"));
    }
    if flags & CRITICAL & !(KEY | VERSIONS) != 0 {
        return Err(Damage::Newer(format!("frame flags {flags:#06x}")));
    }
    let body_bytes = u32_at(fixed, 12);
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

/// A checked header, read where it lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameHeader<'a>(&'a [u8]);

impl<'a> FrameHeader<'a> {
    /// The header at the start of `bytes`, which may be longer. It was written just now, or
    /// [`read_header`] has accepted it before.
    pub(crate) fn known(bytes: &'a [u8]) -> FrameHeader<'a> {
        FrameHeader(part(bytes, ..header_bytes(u16_at(bytes, 30), u16_at(bytes, 28))))
    }

    pub(crate) fn body_bytes(&self) -> u32 {
        u32_at(self.0, 12)
    }

    pub(crate) fn body_checksum(&self) -> u32 {
        u32_at(self.0, 16)
    }

    /// The first event's position, counted from the segment's first.
    pub(crate) fn position_offset(&self) -> u32 {
        u32_at(self.0, 20)
    }

    /// How much of this segment was durable when the header was built.
    pub(crate) fn durable_end(&self) -> u32 {
        u32_at(self.0, 24)
    }

    pub(crate) fn events(&self) -> u16 {
        u16_at(self.0, 28)
    }

    pub(crate) fn flags(&self) -> u16 {
        u16_at(self.0, 30)
    }

    pub(crate) fn recorded_at(&self) -> u64 {
        u64_at(self.0, 32)
    }

    pub(crate) fn first_version(&self) -> u64 {
        u64_at(self.0, 40)
    }

    pub(crate) fn chain(&self) -> Hash {
        array(self.0, CHAIN_AT)
    }

    pub(crate) fn key(&self) -> Option<[u8; KEY_BYTES]> {
        (self.flags() & KEY != 0).then(|| array(self.0, FRAME_FIXED_BYTES))
    }

    /// A version per event (8 bytes each) where several entities are addressed, else empty.
    pub(crate) fn version_table(&self) -> &'a [u8] {
        part(self.0, header_bytes(self.flags() & KEY, 0)..)
    }

    /// Key and version table, as they enter the chain.
    pub(crate) fn extension(&self) -> &'a [u8] {
        part(self.0, FRAME_FIXED_BYTES..)
    }

    /// The id the store gives to the frame's event at `position`.
    pub(crate) fn event_id(&self, position: Position) -> EventId {
        EventId::derive(self.recorded_at(), position, &self.chain())
    }

    /// The version of the event at `index`.
    pub(crate) fn version(&self, index: usize) -> u64 {
        match self.version_table() {
            [] => self.first_version().saturating_add(u64::try_from(index).unwrap_or(u64::MAX)),
            table => u64_at(table, index.saturating_mul(8)),
        }
    }

    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn header_bytes(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn frame_bytes(&self) -> usize {
        let body = usize::try_from(self.body_bytes()).expect("bodies are checked against 16 MiB");
        sum([self.0.len(), body])
    }

    /// What to write for the same frame elsewhere, but for what belongs to its place.
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

/// The durable end that a whole header at the start of `bytes` repeats. One whose checksum fits counts
/// whatever else it holds: it is as good a proof.
pub(crate) fn repeated_durable_end(bytes: &[u8], mark: u64) -> Option<u32> {
    match read_header(bytes, mark) {
        Err(Damage::Bad(_)) => None,
        Ok(_) | Err(Damage::Newer(_) | Damage::Forbidden(_)) => Some(u32_at(bytes, 24)),
    }
}

/// A checked frame: header and body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) header: FrameHeader<'a>,
    pub(crate) body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame at the start of `bytes`, which may be longer, that was written there just now.
    pub(crate) fn known(bytes: &'a [u8]) -> Frame<'a> {
        let header = FrameHeader::known(bytes);
        Frame { header, body: part(bytes, header.header_bytes()..header.frame_bytes()) }
    }
}

/// The frame at the start of `bytes`, which may be longer, if it begins with `mark` and is all there: of bytes that
/// were checked before, and may end anywhere.
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

/// The same, where [`read_header`] has just accepted what these bytes begin with.
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
