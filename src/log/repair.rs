//! The single steps of recovery: gather evidence, keep what is cut, cut, seal.
//!
//! Each can be interrupted anywhere and done again; when to take which is recover.rs's to say.
//! Row: log.

use crate::disk::{Access, Disk, DiskFile, write_all};
use crate::format::{
    Annotations, Hash, Manifest, Mark, SEGMENT_HEADER_BYTES, SEGMENTS_DIRECTORY, Seal, SegmentEntry,
    SegmentHeader, SegmentId, frame, mark,
};
use crate::types::{Error, ErrorKind};

use super::Failure;
use super::files::{create_mark_file, replace};
use super::judge::{Evidence, repeated_in};
use super::scan::{LogEnd, Window};
use super::segment::{SegmentFile, wide};
use super::survey::behind;
use super::survey::{list, read_mark};

/// After a failed sync the cache may hold what the device never got; only the device counts.
/// And the last writer may have been stopped before it synced the names of what it created.
///
/// The kernel tells of a failed write once, at the next sync. That may be this one, and the write one of the last
/// writer's. So after an error the sync is made once more, through a new handle. Nothing rests on the first one,
/// because afterwards the device is read; a device that goes on failing refuses the second one as well.
pub(super) fn reread_from_device(disk: &dyn Disk, segment: &SegmentFile) -> Result<(), Error> {
    let failed = |error| Error::io("cannot sync before recovery", &segment.path, error);
    let anew = || disk.open(&segment.path, Access::Write).and_then(|file| file.sync());
    segment.file.sync().or_else(|_| anew()).map_err(failed)?;
    sync_names(disk)?;
    segment.file.drop_cache(0).map_err(|error| Error::io("cannot drop the cache of", &segment.path, error))
}

/// Makes every name durable that an earlier process gave before it was stopped. Once more if that fails, as above.
pub(super) fn sync_names(disk: &dyn Disk) -> Result<(), Error> {
    let sync = || disk.sync_directory(SEGMENTS_DIRECTORY).and_then(|()| disk.sync_directory(""));
    sync()
        .or_else(|_| sync())
        .map_err(|error| Error::io("cannot sync before recovery", SEGMENTS_DIRECTORY, error))
}

/// Gathers what is known about the end of the last segment.
pub(crate) fn evidence(segment: &SegmentFile, mark: Option<&Mark>, end: u32) -> Result<Evidence, Error> {
    // Headers may straddle pieces, so each is read with what a header more may need.
    const PIECE: usize = 1 << 19;
    let mut window = Window::new(segment, u32::MAX)?;
    let last_nonzero = window.last_nonzero(end)?;
    let behind = wide(last_nonzero.unwrap_or(end) - end);
    let mut left = behind.saturating_add(frame::HEADER_BYTES_MAX);
    let mut repeated = 0;
    for piece in (0..behind).step_by(PIECE) {
        let offset = end.saturating_add(u32::try_from(piece).expect("a part of a 32-bit length"));
        let bytes = window.at(offset, PIECE + frame::HEADER_BYTES_MAX)?;
        repeated = repeated.max(repeated_in(&segment.header, bytes, offset.into(), PIECE, &mut left));
    }
    Ok(Evidence {
        end,
        marked: mark.filter(|mark| mark.segment == segment.header.id).map(|mark| mark.durable_end),
        repeated,
        last_nonzero,
        unsynced_bytes_max: segment.header.unsynced_bytes_max,
    })
}

/// Keeps what will be cut for a person to look at. A full disk must not keep a store from
/// being opened, so then the bytes are let go, and the report says so.
pub(super) fn quarantine(
    disk: &dyn Disk,
    segment: &SegmentFile,
    end: u32,
    last_nonzero: u32,
) -> Result<Option<String>, Error> {
    const KEPT_BYTES_MAX: u32 = 64 << 20;
    const PIECE: u32 = 256 << 10;
    let kept = end..last_nonzero.min(end.saturating_add(KEPT_BYTES_MAX));
    let id = segment.header.id;
    let path = format!("quarantine/{:020}.{}.{end}.torn", id.first_position, id.generation);
    let failed = |error| Error::io("cannot write", &path, error);
    let keep = || {
        let Some(file) = file_to_keep(disk, &path, (kept.end - kept.start).into()).map_err(failed)? else {
            return Ok(());
        };
        for start in kept.clone().step_by(wide(PIECE)) {
            let piece = segment.block(start..kept.end.min(start.saturating_add(PIECE)))?;
            write_all(file.as_ref(), &piece.bytes, (start - kept.start).into()).map_err(failed)?;
        }
        file.sync().and_then(|()| disk.sync_directory("quarantine")).map_err(failed)
    };
    match keep() {
        Ok(()) => Ok(Some(path)),
        Err(error) if error.kind() == ErrorKind::NoSpace => Ok(None),
        Err(error) => Err(error),
    }
}

/// A new file for so many bytes; `None` if they are kept already.
///
/// What an interrupted recovery kept is a part of what we keep now, unless that one came as far as
/// to cut: then all is kept, and what we cut is the beginning of its seal.
fn file_to_keep(disk: &dyn Disk, path: &str, bytes: u64) -> std::io::Result<Option<Box<dyn DiskFile>>> {
    disk.create_directory("quarantine")?;
    disk.sync_directory("")?;
    match disk.open(path, Access::Read).and_then(|kept| kept.length()) {
        Ok(kept) if kept > bytes => return Ok(None),
        Ok(_) => disk.remove(path)?,
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Err(_) => {}
    }
    disk.open(path, Access::CreateNew).map(Some)
}

/// Cuts the segment at its end and seals it there, so that the log goes on in a new one. One
/// without any frame is only cut: it is as good as new, and gets no seal.
pub(super) fn cut(segment: &SegmentFile, tip: &LogEnd) -> Result<Option<Seal>, Error> {
    let failed = |error| Error::io("cannot cut", &segment.path, error);
    segment.file.set_length(tip.offset.into()).map_err(failed)?;
    if wide(tip.offset) == SEGMENT_HEADER_BYTES {
        segment.file.sync().map_err(failed)?;
        return Ok(None);
    }
    let seal = seal(tip)?;
    let bytes = seal.write(&segment.header, tip.offset.into());
    write_all(segment.file.as_ref(), &bytes, tip.offset.into()).map_err(failed)?;
    segment.file.sync().map_err(failed)?;
    Ok(Some(seal))
}

/// Removes what MANIFEST says was cut from the log, and sets MARK back, which speaks of it. Once MANIFEST says no more of
/// it, it is done.
pub(crate) fn finish_cut(
    disk: &dyn Disk,
    manifest: Manifest,
    digest: Hash,
) -> Result<(Manifest, Hash), Error> {
    let failed = |error| Error::io("cannot remove what was cut from", SEGMENTS_DIRECTORY, error);
    // Whoever replaced MANIFEST may have been stopped before its name was durable.
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
    replace(disk, &bytes).map_err(Failure::into_error)?;
    Ok((next, digest))
}

/// Has both slots of MARK speak of the end of the last listed segment: the older one names what was cut, too,
/// and it counts if the newer one is damaged later. The number grows, so that readers that follow the store
/// notice.
fn set_mark_back(disk: &dyn Disk, manifest: &Manifest) -> Result<(), Error> {
    let Some(last) = manifest.sealed.last() else { return Ok(()) };
    let tip = behind(last);
    let sequence = read_mark(disk)?.map_or(0, |mark| mark.sequence);
    let file = match disk.open(mark::NAME, Access::Write) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => create_mark_file(disk),
        opened => opened,
    };
    let write = |file: Box<dyn DiskFile>| {
        for slot in 1..=2 {
            let mark = Mark {
                store_id: manifest.store_id,
                sequence: sequence.saturating_add(slot),
                segment: last.id,
                durable_end: tip.offset,
                position: tip.position,
                chain: tip.chain,
                clean: false,
            };
            write_all(file.as_ref(), &mark.write(), mark.offset())?;
        }
        file.sync()
    };
    file.and_then(write).map_err(|error| Error::io("cannot write", mark::NAME, error))
}

/// Removes MARK, durably, if it is there: without it the store opens as well.
pub(crate) fn remove_mark(disk: &dyn Disk) -> Result<(), Error> {
    match disk.remove(mark::NAME) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| disk.sync_directory("")),
    }
    .map_err(|error| Error::io("cannot remove", mark::NAME, error))
}

/// A seal is written before the file is cut to it, so a stop between the two leaves zeros behind
/// the seal, or what recovery meant to cut and has in quarantine. The seal says where the end is.
pub(super) fn trim(segment: &SegmentFile, seal: &Seal) -> Result<(), Error> {
    let failed = |error| Error::io("cannot cut", &segment.path, error);
    if segment.length()? != u64::from(seal.length) {
        segment.file.set_length(seal.length.into()).map_err(failed)?;
        segment.file.sync().map_err(failed)?;
    }
    Ok(())
}

/// The seal for a segment that ends at `tip`.
pub(crate) fn seal(tip: &LogEnd) -> Result<Seal, Error> {
    let length = tip.offset.checked_add(u32::try_from(crate::format::SEAL_BYTES).expect("72"));
    Ok(Seal {
        length: length.ok_or_else(|| Error::invalid("the segment is too long to be sealed"))?,
        last_position: tip.position,
        last_recorded_at: tip.recorded_at,
        frames: tip.frames,
        events: tip.events,
        chain: tip.chain,
    })
}

/// A sealed segment as the manifest lists it.
pub(crate) fn listing(header: &SegmentHeader, seal: &Seal) -> SegmentEntry {
    SegmentEntry {
        id: header.id,
        last_position: seal.last_position,
        length: seal.length,
        frames: seal.frames,
        events: seal.events,
        recorded_before: header.recorded_before,
        last_recorded_at: seal.last_recorded_at,
        chain: seal.chain,
        remarks: Annotations::NONE,
    }
}
