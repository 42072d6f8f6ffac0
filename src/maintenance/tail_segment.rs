//! The sealed segment at the end of a restored, forked or rolled back store.
//!
//! It holds the beginning of the source's segment and one ledger record. It is a new file with frame marks of
//! its own, because another history follows it.

use crate::disk::{Disk, DiskFile, write_all};
use crate::engine::{Append, Engine, Request, Salts};
use crate::event::Raw;
use crate::format::{Frame, NewFrameHeader, SegmentEntry, SegmentHeader, SegmentId};
use crate::log::{Advance, LogEnd, NewFrame, SegmentCursor, SegmentFile};
use crate::types::{Error, Expected, Options, options, to_u64};

use super::copy::CopyWork;
use super::extent::{Extent, SegmentPrefix};
use super::record::{Figures, LedgerRecord, STREAM};

/// Bytes that are written at once.
const PIECE: usize = 1 << 20;

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

    /// Writes the segment, and returns its entry for MANIFEST.
    pub(crate) fn write(&self, to: &dyn DiskFile, work: &mut CopyWork) -> Result<SegmentEntry, Error> {
        let mut out =
            Out { to, path: self.header.id.temporary(), bytes: self.header.write().to_vec(), at: 0 };
        let (mut tip, mut born) = match self.beginning {
            Some(beginning) => self.write_beginning(beginning, &mut out, work)?,
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
        work: &mut CopyWork,
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
                work.advance(u64::from(end - std::mem::replace(&mut told, end)))?;
            }
        }
        work.advance(u64::from(cursor.end().offset - told))?;
        Ok((*cursor.end(), born))
    }
}

/// How many streams begin in a frame.
fn streams_begun(frame: &Frame<'_>) -> u32 {
    let records = frame.records().map_while(Result::ok).enumerate();
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
    let salt = SegmentHeader::salt(crate::format::u64_at(&random, 0));
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
