//! The end of the last segment: the evidence, the verdict on it, and the steps that follow from the verdict.
//!
//! [`judge`] is pure: it decides whether the log ends cleanly, in a torn tail, or in damage to acknowledged
//! data. Torn tail and damage look alike from inside a segment. Evidence of what was durable tells them
//! apart: MARK, and the durable end that every later frame header repeats. SPEC.md "Recovery" has the table
//! and its reasons.
//!
//! Each step (quarantine, truncate, seal) can be interrupted anywhere and done again. The parent module says
//! when to take which step.

use std::io;

use crate::disk::{Access, Disk, DiskFile, if_there, remove_if_there, write_all};
use crate::format::{
    ALIGN, Hash, Manifest, Mark, SEAL_BYTES, SEGMENT_HEADER_BYTES, SEGMENTS_DIRECTORY, Seal, SegmentHeader,
    SegmentId, frame, mark,
};
use crate::types::{Error, ErrorKind, to_u64, to_usize};

use super::super::cursor::{LogEnd, Window};
use super::super::manifest_file::replace_manifest;
use super::super::mark_file::open_or_create;
use super::super::segment::{Failure, SegmentFile};
use super::scan_dir::{list, read_mark};

/// What is known about the last segment after the walk has ended at `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// The first offset at which no whole frame begins.
    pub(crate) end: u32,
    /// MARK's durable end, if MARK names this segment.
    pub(crate) marked: Option<u32>,
    /// The highest durable end that any whole header behind `end` repeats; 0 without such a header.
    pub(crate) repeated: u32,
    /// The offset behind the last byte that is not zero, if there is one at `end` or later.
    pub(crate) last_nonzero: Option<u32>,
    /// From the segment's header: the most bytes that are ever unsynced, without a seal.
    pub(crate) unsynced_bytes_max: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Only zeros follow.
    Clean,
    /// No writer acknowledged what follows as durable: cut it.
    Torn,
    /// Acknowledged data is damaged or missing: touch nothing.
    Corrupt(&'static str),
}

// Durable bytes are whole. So if the tail is torn, the durable end lies at `end` or before it. At most
// `unsynced_bytes_max` bytes and a seal are ever unsynced, so no byte of a torn tail lies further out. (MARK
// is no such bound: MARK itself may be old.)
//
// | marked > end | repeated > end | bytes beyond the reach of a torn tail | bytes | verdict
// | yes          | any            | any                                   | any   | Corrupt: MARK proves more
// | no           | yes            | any                                   | any   | Corrupt: a later frame proves more
// | no           | no             | yes                                   | yes   | Corrupt: too far out to be torn
// | no           | no             | no                                    | no    | Clean
// | no           | no             | no                                    | yes   | Torn
pub(crate) fn judge(evidence: &Evidence) -> Verdict {
    if evidence.marked.is_some_and(|marked| marked > evidence.end) {
        return Verdict::Corrupt(
            "acknowledged data is damaged or missing: MARK proves that the log went on here",
        );
    }
    if evidence.repeated > evidence.end {
        return Verdict::Corrupt("acknowledged data is damaged: a later append proves that it was durable");
    }
    let Some(last_nonzero) = evidence.last_nonzero else { return Verdict::Clean };
    let seal = to_u64(SEAL_BYTES);
    let reach = u64::from(evidence.end).saturating_add(evidence.unsynced_bytes_max).saturating_add(seal);
    if u64::from(last_nonzero) > reach {
        return Verdict::Corrupt("data is damaged, and too much follows for a torn tail");
    }
    Verdict::Torn
}

/// Gathers what is known about the end of the last segment. `end` is the offset behind its last whole frame.
pub(crate) fn evidence(segment: &SegmentFile, mark: Option<&Mark>, end: u32) -> Result<Evidence, Error> {
    const PIECE_BYTES: usize = 1 << 19;
    let mut window = Window::new(segment, u32::MAX)?;
    let last_nonzero = window.last_nonzero(end)?;
    let behind = to_usize(last_nonzero.unwrap_or(end) - end);
    let mut left = behind.saturating_add(frame::HEADER_BYTES_MAX);
    let mut repeated = 0;
    for piece in (0..behind).step_by(PIECE_BYTES) {
        let offset = end.saturating_add(u32::try_from(piece).expect("a part of a 32-bit length"));
        // A header may begin in this piece and end in the next one, so one header more is read.
        let bytes = window.at(offset, PIECE_BYTES + frame::HEADER_BYTES_MAX)?;
        repeated = repeated.max(repeated_in(&segment.header, bytes, offset.into(), PIECE_BYTES, &mut left));
    }
    Ok(Evidence {
        end,
        marked: mark.filter(|mark| mark.segment == segment.header.id).map(|mark| mark.durable_end),
        repeated,
        last_nonzero,
        unsynced_bytes_max: segment.header.unsynced_bytes_max,
    })
}

/// The highest durable end that a whole frame header repeats. It looks at headers that begin in the first
/// `places` bytes of `bytes`; these lie at `offset` of the segment.
///
/// A header counts even if its body is torn: its durable end was true when the writer built the header.
/// `left` is how many bytes of headers can still follow. Frames do not overlap, so a file with more of them
/// was forged to keep recovery busy. Then the answer is `u32::MAX`, which proves damage.
pub(crate) fn repeated_in(
    header: &SegmentHeader,
    bytes: &[u8],
    offset: u64,
    places: usize,
    left: &mut usize,
) -> u32 {
    let mut repeated = 0;
    for (place, at) in (offset..).step_by(ALIGN).zip((0..bytes.len().min(places)).step_by(ALIGN)) {
        let bytes = &bytes[at..];
        let mark = header.frame_mark(place);
        let Some(needed) = frame::bytes_needed(bytes, mark) else { continue };
        match left.checked_sub(needed) {
            Some(rest) => *left = rest,
            None => return u32::MAX,
        }
        repeated = repeated.max(frame::repeated_durable_end(bytes, mark).unwrap_or(0));
    }
    repeated
}

/// Makes what the last writer wrote durable as far as it can be.
///
/// The kernel reports a failed write once, at the next sync. That may be this sync, for a write of the last
/// writer. So after an error the sync is made once more through a new handle. Nothing rests on the first
/// sync, because recovery reads the device afterwards; a device that keeps failing refuses the second sync as
/// well.
pub(super) fn sync_last_segment(disk: &dyn Disk, segment: &SegmentFile) -> Result<(), Error> {
    let failed = |error| Error::io("cannot sync before recovery", &segment.path, error);
    let sync_again = || disk.open(&segment.path, Access::Write).and_then(|file| file.sync());
    segment.file.sync().or_else(|_| sync_again()).map_err(failed)?;
    sync_names(disk)
}

/// Drops the cache from `offset` on, so that recovery reads the device there. After a failed sync the cache
/// may hold bytes that the device never got.
pub(super) fn drop_cache(segment: &SegmentFile, offset: u32) -> Result<(), Error> {
    let dropped = segment.file.drop_cache(offset.into());
    dropped.map_err(|error| Error::io("cannot drop the cache of", &segment.path, error))
}

/// Makes durable every name that an earlier process created before it was stopped. It tries twice, as
/// [`sync_last_segment`] does.
pub(super) fn sync_names(disk: &dyn Disk) -> Result<(), Error> {
    let sync = || disk.sync_directory(SEGMENTS_DIRECTORY).and_then(|()| disk.sync_directory(""));
    sync()
        .or_else(|_| sync())
        .map_err(|error| Error::io("cannot sync before recovery", SEGMENTS_DIRECTORY, error))
}

/// Copies the torn tail into `quarantine/`, for the operator, and returns the path. On a full disk it returns
/// `None` and the bytes are lost: a full disk must not keep a store from being opened.
pub(super) fn quarantine(
    disk: &dyn Disk,
    segment: &SegmentFile,
    end: u32,
    last_nonzero: u32,
) -> Result<Option<String>, Error> {
    const KEPT_BYTES_MAX: u32 = 64 << 20;
    const PIECE_BYTES: u32 = 256 << 10;
    let kept = end..last_nonzero.min(end.saturating_add(KEPT_BYTES_MAX));
    let id = segment.header.id;
    let path = format!("quarantine/{:020}.{}.{end}.torn", id.first_position, id.generation);
    let failed = |error| Error::io("cannot write", &path, error);
    let copy = || {
        let Some(file) = new_quarantine_file(disk, &path, (kept.end - kept.start).into()).map_err(failed)?
        else {
            return Ok(());
        };
        for start in kept.clone().step_by(to_usize(PIECE_BYTES)) {
            let piece = segment.block(start..kept.end.min(start.saturating_add(PIECE_BYTES)))?;
            write_all(file.as_ref(), &piece.bytes, (start - kept.start).into()).map_err(failed)?;
        }
        file.sync().and_then(|()| disk.sync_directory("quarantine")).map_err(failed)
    };
    match copy() {
        Ok(()) => Ok(Some(path)),
        Err(error) if error.kind() == ErrorKind::NoSpace => Ok(None),
        Err(error) => Err(error),
    }
}

/// A new file for this many bytes; `None` if an earlier recovery has kept them already.
///
/// A shorter or equal file is replaced: an interrupted recovery copied a part of what is copied now. A longer
/// file stays: that recovery copied everything and began to cut, and the tail is now the beginning of its
/// seal.
fn new_quarantine_file(disk: &dyn Disk, path: &str, bytes: u64) -> io::Result<Option<Box<dyn DiskFile>>> {
    disk.create_directory("quarantine")?;
    disk.sync_directory("")?;
    match if_there(disk.open(path, Access::Read).and_then(|kept| kept.length()))? {
        Some(kept) if kept > bytes => return Ok(None),
        Some(_) => disk.remove(path)?,
        None => {}
    }
    disk.open(path, Access::CreateNew).map(Some)
}

/// Truncates the segment to `end` and seals it there; the log continues in a new segment. A segment without
/// frames is only truncated and stays the last one, so there is no seal.
pub(super) fn cut(segment: &SegmentFile, end: &LogEnd) -> Result<Option<Seal>, Error> {
    let failed = |error| Error::io("cannot cut", &segment.path, error);
    // Before the seal is written: bytes of the torn tail must not lie behind it.
    segment.file.set_length(end.offset.into()).map_err(failed)?;
    if to_usize(end.offset) == SEGMENT_HEADER_BYTES {
        segment.file.sync().map_err(failed)?;
        return Ok(None);
    }
    let seal = end.seal()?;
    let bytes = seal.write(&segment.header, end.offset.into());
    write_all(segment.file.as_ref(), &bytes, end.offset.into()).map_err(failed)?;
    segment.file.sync().map_err(failed)?;
    Ok(Some(seal))
}

/// Truncates a sealed segment to the length that its seal says. The writer writes the seal before it
/// truncates the file. A stop between the two leaves zeros behind the seal, or a tail that is in quarantine.
pub(super) fn truncate_to_seal(segment: &SegmentFile, seal: &Seal) -> Result<(), Error> {
    let failed = |error| Error::io("cannot cut", &segment.path, error);
    if segment.length()? != u64::from(seal.length) {
        segment.file.set_length(seal.length.into()).map_err(failed)?;
        segment.file.sync().map_err(failed)?;
    }
    Ok(())
}

/// Removes the segments that MANIFEST says were cut from the log, and sets MARK back, which names them. Then
/// MANIFEST says so no more.
pub(crate) fn finish_cut(
    disk: &dyn Disk,
    manifest: Manifest,
    digest: Hash,
) -> Result<(Manifest, Hash), Error> {
    let failed = |error| Error::io("cannot remove what was cut from", SEGMENTS_DIRECTORY, error);
    // First: the process that replaced MANIFEST may have been stopped before the new name was durable.
    disk.sync_directory("").map_err(failed)?;
    let is_listed = |id| manifest.sealed.iter().any(|sealed| sealed.id == id);
    for name in list(disk, SEGMENTS_DIRECTORY)? {
        let id =
            SegmentId::parse(&name).or(SegmentId::parse_index(&name)).or(SegmentId::parse_temporary(&name));
        if id.is_some_and(|id| !is_listed(id)) {
            disk.remove(&format!("{SEGMENTS_DIRECTORY}/{name}")).map_err(failed)?;
        }
    }
    disk.sync_directory(SEGMENTS_DIRECTORY).map_err(failed)?;
    set_mark_back(disk, &manifest)?;
    let next = Manifest { is_cut: false, sequence: manifest.sequence + 1, previous: digest, ..manifest };
    let (bytes, digest) = next.write();
    replace_manifest(disk, &bytes).map_err(Failure::into_error)?;
    Ok((next, digest))
}

/// Writes the end of the last listed segment into both slots of MARK. The older slot names a segment that was
/// cut as well, and it counts if the newer one is damaged later. The sequence grows, so that readers that
/// follow the store notice.
fn set_mark_back(disk: &dyn Disk, manifest: &Manifest) -> Result<(), Error> {
    let Some(last) = manifest.sealed.last() else { return Ok(()) };
    let end = LogEnd::of_sealed(last);
    let sequence = read_mark(disk)?.map_or(0, |mark| mark.sequence);
    let write_slots = |file: Box<dyn DiskFile>| {
        for slot in 1..=2 {
            let mark = Mark {
                store_id: manifest.store_id,
                sequence: sequence.saturating_add(slot),
                segment: last.id,
                durable_end: end.offset,
                position: end.position,
                chain: end.chain,
                clean: false,
            };
            write_all(file.as_ref(), &mark.write(), mark.offset())?;
        }
        file.sync()
    };
    let file = open_or_create(disk);
    file.and_then(write_slots).map_err(|error| Error::io("cannot write", mark::NAME, error))
}

/// Removes MARK durably, if it is there. The store opens without it.
pub(crate) fn remove_mark(disk: &dyn Disk) -> Result<(), Error> {
    let removed = remove_if_there(disk, mark::NAME)
        .and_then(|is_removed| if is_removed { disk.sync_directory("") } else { Ok(()) });
    removed.map_err(|error| Error::io("cannot remove", mark::NAME, error))
}
