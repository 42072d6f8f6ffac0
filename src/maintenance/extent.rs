//! The extent of history that a copy takes: whole segments, and the beginning of one more.
//!
//! An extent holds durable appends only, each as a whole.
//!
//! A restored, forked or rolled back store ends with a sealed segment of its own: the beginning of the
//! source's segment and one ledger record. It is a new file with frame marks of its own, because another
//! history follows it.

use std::sync::Arc;
use std::time::SystemTime;

use crate::disk::{Disk, DiskFile, read_full, write_all};
use crate::engine::{Append, Engine, Request, Salts};
use crate::event::Raw;
use crate::format::{
    Damage, Frame, Manifest, NewFrameHeader, SEAL_BYTES, Seal, SegmentEntry, SegmentHeader, SegmentId, u64_at,
};
use crate::log::{Advance, LogEnd, NewFrame, SegmentCursor, SegmentFile, read_manifest};
use crate::read::{ChainPosition, SealedSegment, Segment, Snapshot};
use crate::types::{Error, ErrorKind, Expected, Options, Position, micros_of, options, to_u64};

use super::record::{self, Figures, LedgerRecord, STREAM};

/// Bytes of a tail segment that are written at once.
const PIECE: usize = 1 << 20;

/// How much of a store's history.
///
/// ```
/// use annals::{Position, Until};
///
/// assert_eq!(Until::from(Position::from(7)), Until::Position(Position::from(7)));
/// assert_eq!(Until::default(), Until::End);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Until {
    /// Everything durable.
    #[default]
    End,
    /// The appends that lie wholly up to this position.
    Position(Position),
    /// The appends recorded at or before this time.
    Time(SystemTime),
    /// Everything up to the newest [`Checkpoint`](crate::Checkpoint) of this name, its own event included.
    Checkpoint(String),
}

impl From<Position> for Until {
    fn from(position: Position) -> Until {
        Until::Position(position)
    }
}

impl From<SystemTime> for Until {
    fn from(time: SystemTime) -> Until {
        Until::Time(time)
    }
}

/// An extent of a store's history.
pub(crate) struct Extent {
    /// MANIFEST of the source.
    pub(crate) manifest: Manifest,
    pub(crate) whole: Vec<WholeSegment>,
    /// The beginning of the segment after them, if there is one; possibly without frames.
    pub(crate) beginning: Option<SegmentPrefix>,
}

/// A sealed segment with all its events.
pub(crate) struct WholeSegment {
    pub(crate) listing: SegmentEntry,
    pub(crate) segment: Arc<Segment>,
    /// Whether MANIFEST lists the segment. The writer no longer writes to the file of a listed one.
    pub(crate) is_listed: bool,
}

/// A segment's frames up to a place.
pub(crate) struct SegmentPrefix {
    pub(crate) file: Arc<SegmentFile>,
    pub(crate) tip: LogEnd,
}

/// The last position and the last time that are within an extent.
struct ExtentBound {
    position: u64,
    recorded_at: u64,
}

impl ExtentBound {
    fn holds(&self, position: u64, recorded_at: u64) -> bool {
        position <= self.position && recorded_at <= self.recorded_at
    }
}

impl Extent {
    /// Takes the extent of an open store up to a place.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Invalid`] if the checkpoint does not exist, or the place lies behind the durable head.
    /// - Those of reading.
    pub(crate) fn of(engine: &Engine, until: &Until) -> Result<Extent, Error> {
        let manifest = read_manifest(engine.disk.as_ref())?.ok_or_else(Error::no_store)?.0;
        let snapshot = engine.snapshot()?;
        let bound = bound(engine, &snapshot, until)?;
        let mut history = Extent { manifest, whole: Vec::new(), beginning: None };
        let mut files = snapshot.segments.chunk_by(|one, other| one.shares_file(other)).peekable();
        while let Some(parts) = files.next() {
            let Some(first) = parts.first() else { continue };
            let Some(last) = parts.last() else { continue };
            if files.peek().is_some() {
                let (listing, is_listed) = history.listing(first)?;
                if bound.holds(listing.last_position, listing.last_recorded_at) {
                    history.whole.push(WholeSegment { listing, segment: first.clone(), is_listed });
                    continue;
                }
            }
            let file = first.file()?.clone();
            // The last segment of a fork, a restore or a rollback is sealed as well.
            if first.as_sealed().is_some_and(SealedSegment::is_whole) {
                check_listing(&file, &history.listing(first)?.0)?;
            }
            let tip = last_within(&file, last.end(), &bound)?;
            history.beginning = Some(SegmentPrefix { file, tip });
            break;
        }
        history.check(&snapshot, until)?;
        Ok(history)
    }

    /// The end of the extent.
    pub(crate) fn end(&self) -> ChainPosition {
        let whole = || {
            let last = self.whole.last().map(|last| &last.listing);
            last.map(|last| ChainPosition { position: last.last_position.into(), chain: last.chain })
        };
        self.beginning
            .as_ref()
            .map(|beginning| ChainPosition::from(&beginning.tip))
            .or_else(whole)
            .unwrap_or_default()
    }

    /// The whole segments, as MANIFEST lists them.
    pub(crate) fn listings(&self) -> Vec<SegmentEntry> {
        self.whole.iter().map(|whole| whole.listing.clone()).collect()
    }

    /// The entry of a sealed segment in MANIFEST, or the one it would get; and whether it is in MANIFEST.
    fn listing(&self, segment: &Segment) -> Result<(SegmentEntry, bool), Error> {
        let id = segment.id();
        let sealed = &self.manifest.sealed;
        let found = sealed.binary_search_by_key(&id.first_position, |sealed| sealed.id.first_position);
        match found.ok().and_then(|at| sealed.get(at)).filter(|sealed| sealed.id == id) {
            Some(listed) => Ok((listed.clone(), true)),
            None => Ok((read_listing(segment.file()?)?, false)),
        }
    }

    fn check(&self, snapshot: &Snapshot, until: &Until) -> Result<(), Error> {
        if self.whole.is_empty() && self.beginning.is_none() {
            return Err(Error::invalid("nothing is durable in this store yet"));
        }
        if *until == Until::End && self.end() != snapshot.durable {
            let what = format!("the durable log ends at {}, but its files do not", snapshot.durable.position);
            return Err(Error::new(ErrorKind::Corrupt, what));
        }
        Ok(())
    }
}

fn bound(engine: &Engine, snapshot: &Snapshot, until: &Until) -> Result<ExtentBound, Error> {
    let durable = snapshot.durable.position;
    let up_to = |position: Position| ExtentBound { position: position.get(), recorded_at: u64::MAX };
    match until {
        Until::End => Ok(up_to(durable)),
        Until::Position(position) if *position > durable => Err(Error::invalid(format!(
            "position {position} lies beyond what is durable, which ends at {durable}"
        ))),
        Until::Position(position) => Ok(up_to(*position)),
        Until::Time(time) => {
            let recorded_at = u64::try_from(micros_of(*time)).unwrap_or(0);
            Ok(ExtentBound { recorded_at, ..up_to(durable) })
        }
        Until::Checkpoint(name) => record::checkpoint_position(engine, name).map(up_to),
    }
}

/// The end of a segment's last append within the bound. Bytes behind `limit` are not read.
fn last_within(file: &SegmentFile, limit: u32, bound: &ExtentBound) -> Result<LogEnd, Error> {
    let mut last = LogEnd::start(file);
    SegmentCursor::new(file, limit)?.visit_frames(|_, _, tip| {
        if bound.holds(tip.position, tip.recorded_at) {
            last = *tip;
        }
        Ok(())
    })?;
    Ok(last)
}

/// Checks that a segment's header and seal agree with its entry in MANIFEST.
pub(crate) fn check_listing(file: &SegmentFile, listed: &SegmentEntry) -> Result<(), Error> {
    if listed.fits(&read_listing(file)?) {
        return Ok(());
    }
    let seal = LogEnd::of_sealed(listed).offset.into();
    Err(Error::corrupt(&file.path, seal, "the segment is not as MANIFEST lists it"))
}

/// The entry of a segment, from its header and seal.
pub(crate) fn read_listing(file: &SegmentFile) -> Result<SegmentEntry, Error> {
    let length = file.length()?;
    let at = length.saturating_sub(to_u64(SEAL_BYTES));
    let mut bytes = [0; SEAL_BYTES];
    let read = read_full(file.file.as_ref(), &mut bytes, at)
        .map_err(|error| Error::io("cannot read", &file.path, error))?;
    let bytes = &bytes[..read];
    if !file.header.is_seal(bytes, at) {
        return Err(file.damaged(at, &Damage::Bad("the segment does not end with a seal")));
    }
    let seal = Seal::read(bytes).map_err(|damage| file.damaged(at, &damage))?;
    Ok(SegmentEntry::new(&file.header, &seal))
}

/// The last segment of a new history.
pub(crate) struct TailSegment<'a> {
    pub(crate) header: SegmentHeader,
    beginning: Option<&'a SegmentPrefix>,
    entry: Request,
    /// The version of the record in the ledger's stream.
    version: u64,
    now: u64,
}

impl<'a> TailSegment<'a> {
    /// A tail that ends with a ledger record. `generation` is added to that of the source's segment: two
    /// segments in one directory must differ in it.
    pub(crate) fn new<F: Figures>(
        engine: &Engine,
        history: &'a Extent,
        generation: u32,
        reason: Option<&str>,
        figures: &F,
    ) -> Result<TailSegment<'a>, Error> {
        let options = &engine.options;
        let disk = engine.disk.as_ref();
        let end = history.end().position;
        let version = engine.snapshot()?.stream_head_at(STREAM, end)?.0.get().saturating_add(1);
        let now = options::read(&options.clock);
        let entry = encoded(options, disk, reason, figures)?;
        let header = header(disk, options, history, generation, now)?;
        Ok(TailSegment { header, beginning: history.beginning.as_ref(), entry, version, now })
    }

    /// Writes the segment, and returns its entry for MANIFEST. `advance` counts written bytes, and may break
    /// the writing off.
    pub(crate) fn write(
        &self,
        to: &dyn DiskFile,
        advance: &mut dyn FnMut(u64) -> Result<(), Error>,
    ) -> Result<SegmentEntry, Error> {
        let mut out =
            Out { to, path: self.header.id.temporary(), bytes: self.header.write().to_vec(), at: 0 };
        let (mut tip, mut born) = match self.beginning {
            Some(beginning) => self.write_beginning(beginning, &mut out, advance)?,
            None => (LogEnd::before(&self.header), 0),
        };
        let Request { body, content, events, .. } = &self.entry;
        let entry = NewFrame {
            body,
            content: *content,
            events: *events,
            key: None,
            first_version: self.version,
            versions: &[],
            now: self.now,
        };
        tip = entry.write(&self.header, &tip, tip.offset, &mut out.bytes);
        born += u32::from(self.version == 1);
        let seal = tip.seal()?;
        out.bytes.extend_from_slice(&seal.write(&self.header, tip.offset.into()));
        out.flush()?;
        let mut listing = SegmentEntry::new(&self.header, &seal);
        listing.annotations = listing.annotations.with_streams_created(born);
        Ok(listing)
    }

    /// Writes the source's frames with the marks of this segment. Returns the end, and how many streams begin
    /// in them.
    fn write_beginning(
        &self,
        beginning: &SegmentPrefix,
        out: &mut Out<'_>,
        advance: &mut dyn FnMut(u64) -> Result<(), Error>,
    ) -> Result<(LogEnd, u32), Error> {
        let source: &SegmentFile = &beginning.file;
        let mut cursor = SegmentCursor::new(source, beginning.tip.offset)?;
        let mut body = Vec::new();
        let mut born = 0;
        let mut told = 0;
        while cursor.end().offset < beginning.tip.offset {
            let offset = cursor.end().offset;
            match cursor.advance()? {
                Advance::Frame { frame, .. } => {
                    born += streams_begun(&frame);
                    frame.unbound_body(&source.header.frame_place(offset), &mut body);
                    let header = NewFrameHeader { durable_end: offset, ..frame.header.fields() };
                    let place = self.header.frame_place(offset);
                    header.write(&mut out.bytes, &place, &body, &frame.versions());
                }
                Advance::Attestation { attestation, .. } => {
                    out.bytes.extend_from_slice(&attestation.write(&self.header, offset.into()));
                }
                Advance::End(_) => {
                    let what = "the segment ends before it did";
                    return Err(Error::corrupt(&source.path, offset.into(), what));
                }
            }
            if out.flush_if_large()? {
                let end = cursor.end().offset;
                advance(u64::from(end - std::mem::replace(&mut told, end)))?;
            }
        }
        advance(u64::from(cursor.end().offset - told))?;
        Ok((*cursor.end(), born))
    }
}

/// How many streams begin in a frame.
fn streams_begun(frame: &Frame<'_>) -> u32 {
    let records = frame.records().map_while(Result::ok);
    let first = records.filter(|(index, record)| frame.header.version(*index, record) == 1);
    u32::try_from(first.count()).expect("at most 65,535")
}

fn encoded<F: Figures>(
    options: &Options,
    disk: &dyn Disk,
    reason: Option<&str>,
    figures: &F,
) -> Result<Request, Error> {
    let entry = LedgerRecord::new(options, reason, figures);
    let salt = disk.random().map_err(|error| Error::io("cannot get random bytes for", "a salt", error))?;
    let append = Append::of_system(STREAM, Expected::Any, &Raw(F::KIND, &entry));
    append.encode(&options.limits, &Salts::new(salt))
}

fn header(
    disk: &dyn Disk,
    options: &Options,
    history: &Extent,
    generation: u32,
    now: u64,
) -> Result<SegmentHeader, Error> {
    let random =
        disk.random().map_err(|error| Error::io("cannot get random bytes for", "a segment", error))?;
    let salt = SegmentHeader::salt(u64_at(&random, 0));
    if let Some(beginning) = &history.beginning {
        let old = &beginning.file.header;
        let id = SegmentId { generation: old.id.generation.saturating_add(generation), ..old.id };
        return Ok(SegmentHeader { id, salt, created_at: now, ..old.clone() });
    }
    let last = history.whole.last().expect("a history has a segment");
    let end = LogEnd::of_sealed(&last.listing);
    let store_id = last.segment.file()?.header.store_id;
    Ok(SegmentHeader {
        store_id,
        id: SegmentId { first_position: end.position.saturating_add(1), generation: 0 },
        salt,
        created_at: now,
        unsynced_bytes_max: options.unsynced_bytes_max,
        chain_before: end.chain,
        recorded_before: end.recorded_at,
    })
}

/// Bytes on their way to a file.
struct Out<'a> {
    to: &'a dyn DiskFile,
    path: String,
    bytes: Vec<u8>,
    at: u64,
}

impl Out<'_> {
    /// Flushes a large buffer; says whether it did.
    fn flush_if_large(&mut self) -> Result<bool, Error> {
        let is_large = self.bytes.len() >= PIECE;
        if is_large {
            self.flush()?;
        }
        Ok(is_large)
    }

    fn flush(&mut self) -> Result<(), Error> {
        write_all(self.to, &self.bytes, self.at)
            .map_err(|error| Error::io("cannot write", &self.path, error))?;
        self.at += to_u64(self.bytes.len());
        self.bytes.clear();
        Ok(())
    }
}
