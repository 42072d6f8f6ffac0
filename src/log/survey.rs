//! What lies in the store's directory: the small files, and the names.
//!
//! Row: log.

use crate::disk::{Access, Disk, DiskFile, read_full};
use crate::format::{
    Hash, Manifest, Mark, SEAL_BYTES, SEGMENT_HEADER_BYTES, SEGMENTS_DIRECTORY, SegmentEntry, SegmentId,
    manifest, mark,
};
use crate::types::Error;

use super::scan::LogEnd;
use super::segment::{SegmentFile, damaged};
use super::zeros::FIRST;

/// A million segments, 64 TiB of events.
const MANIFEST_BYTES_MAX: u64 = 256 << 20;
const MARK_BYTES_MAX: u64 = 8192;
const _: () = assert!(mark::FILE_BYTES == 8192);

pub(crate) fn read_manifest(disk: &dyn Disk) -> Result<Option<(Manifest, Hash)>, Error> {
    let Some(bytes) = read_file(disk, manifest::NAME, MANIFEST_BYTES_MAX)? else { return Ok(None) };
    Manifest::read(&bytes).map(Some).map_err(|damage| damaged(manifest::NAME, 0, &damage))
}

/// Which MANIFEST is there, without a look at the whole of it: it is only compared.
pub(crate) fn manifest_stamp(disk: &dyn Disk) -> Result<Option<[u8; 64]>, Error> {
    let bytes = read_file(disk, manifest::NAME, 64)?;
    Ok(bytes.and_then(|bytes| bytes.first_chunk().copied()))
}

pub(crate) fn read_mark(disk: &dyn Disk) -> Result<Option<Mark>, Error> {
    let bytes = read_file(disk, mark::NAME, MARK_BYTES_MAX)?;
    mark::newest(&bytes.unwrap_or_default()).map_err(|damage| damaged(mark::NAME, 0, &damage))
}

/// The valid slots of MARK, the newer one first.
pub(crate) fn read_slots(disk: &dyn Disk) -> Result<Vec<Mark>, Error> {
    let bytes = read_file(disk, mark::NAME, MARK_BYTES_MAX)?;
    mark::slots(&bytes.unwrap_or_default()).map_err(|damage| damaged(mark::NAME, 0, &damage))
}

/// What a writer changes with whatever it does: two that are equal, and nobody was at work between.
#[derive(PartialEq, Eq)]
pub(crate) struct Stamp {
    mark: Option<Hash>,
    manifest: Option<Hash>,
    segments: Vec<String>,
    last_bytes: u64,
    pub(crate) is_locked: bool,
}

impl Stamp {
    pub(crate) fn of(disk: &dyn Disk) -> Result<Stamp, Error> {
        let hash = |bytes: Vec<u8>| *blake3::hash(&bytes).as_bytes();
        let mut segments = list(disk, SEGMENTS_DIRECTORY)?;
        segments.sort_unstable();
        let last_bytes = match segments.last() {
            Some(last) => length(disk, &format!("{SEGMENTS_DIRECTORY}/{last}"))?,
            None => 0,
        };
        Ok(Stamp {
            mark: read_file(disk, mark::NAME, MARK_BYTES_MAX)?.map(hash),
            manifest: read_file(disk, manifest::NAME, MANIFEST_BYTES_MAX)?.map(hash),
            segments,
            last_bytes,
            // Last, so that a writer who comes while we look is seen as well.
            is_locked: disk.is_locked().map_err(|error| Error::io("cannot look at", "LOCK", error))?,
        })
    }
}

/// How long a file is; 0 if it is gone.
fn length(disk: &dyn Disk, path: &str) -> Result<u64, Error> {
    match disk.open(path, Access::Read).and_then(|file| file.length()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        length => length.map_err(|error| Error::io("cannot read the length of", path, error)),
    }
}

fn read_file(disk: &dyn Disk, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, Error> {
    let failed = |error| Error::io("cannot read", name, error);
    let file = match disk.open(name, Access::Read) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let length = file.length().map_err(failed)?.min(bytes_max);
    let mut bytes = vec![0; usize::try_from(length).expect("bounded above")];
    let read = read_full(file.as_ref(), &mut bytes, 0).map_err(failed)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

/// Without a manifest there must be nothing but what an interrupted creation leaves; that is removed.
pub(super) fn check_uninitialised(
    disk: &dyn Disk,
    mark: Option<&Mark>,
    may_remove: bool,
) -> Result<(), Error> {
    let missing = || Error::corrupt(manifest::NAME, 0, "the file is missing, but the store has events");
    if mark.is_some_and(|mark| mark.position > 0) {
        return Err(missing());
    }
    let names = list(disk, SEGMENTS_DIRECTORY)?;
    for name in &names {
        let path = format!("{SEGMENTS_DIRECTORY}/{name}");
        let first = SegmentId { first_position: 1, generation: 0 };
        let file = disk.open(&path, Access::Read).map_err(|error| Error::io("cannot open", &path, error))?;
        if SegmentId::parse(name) != Some(first) || !could_be_new(file.as_ref(), &path)? {
            return Err(missing());
        }
    }
    for name in names.iter().filter(|_| may_remove) {
        let path = format!("{SEGMENTS_DIRECTORY}/{name}");
        disk.remove(&path).map_err(|error| Error::io("cannot remove", &path, error))?;
    }
    Ok(())
}

/// Whether a file that MANIFEST does not list is what rewriting leaves when it is stopped: a segment that was not
/// listed yet, or one that is not any more. Anybody else's file is left alone.
pub(crate) fn is_leftover(disk: &dyn Disk, manifest: &Manifest, name: &str) -> Result<bool, Error> {
    if SegmentId::parse_temporary(name).is_some() {
        return Ok(true);
    }
    let Some(id) = SegmentId::parse(name) else { return Ok(false) };
    let path = id.path();
    let file = match disk.open(&path, Access::Read) {
        // Its writer has removed it just now.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        opened => opened.map_err(|error| Error::io("cannot open", &path, error))?,
    };
    let header = SegmentFile::read_header(file.as_ref(), &path)?;
    Ok(header.is_ok_and(|header| header.id == id && manifest.knows(&header.store_id)))
}

/// In the store's own directory: what a stop left, and names annals does not know.
pub(super) fn others(disk: &dyn Disk) -> Result<(Vec<String>, Vec<String>), Error> {
    const KNOWN: [&str; 7] =
        ["LOCK", manifest::NAME, mark::NAME, SEGMENTS_DIRECTORY, "cache", "quarantine", "ERASING"];
    let names = list(disk, "")?.into_iter().filter(|name| !KNOWN.contains(&name.as_str()));
    Ok(names.partition(|name| name == manifest::TEMPORARY))
}

/// Whether a segment's file is no longer than a new one, and has nothing but zeros behind its header.
pub(crate) fn could_be_new(file: &dyn DiskFile, path: &str) -> Result<bool, Error> {
    let most = usize::try_from(FIRST).expect("64 KiB");
    let mut bytes = vec![0; most + 1];
    let read = read_full(file, &mut bytes, 0).map_err(|error| Error::io("cannot read", path, error))?;
    Ok(read <= most && bytes.iter().skip(SEGMENT_HEADER_BYTES).all(|byte| *byte == 0))
}

pub(crate) fn list(disk: &dyn Disk, directory: &str) -> Result<Vec<String>, Error> {
    match disk.list(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(|error| {
            Error::io("cannot list", if directory.is_empty() { "the store" } else { directory }, error)
        }),
    }
}

/// Behind the last frame of a listed segment.
pub(crate) fn behind(sealed: &SegmentEntry) -> LogEnd {
    LogEnd {
        offset: sealed.length.saturating_sub(u32::try_from(SEAL_BYTES).expect("72")),
        position: sealed.last_position,
        recorded_at: sealed.last_recorded_at,
        chain: sealed.chain,
        frames: sealed.frames,
        events: sealed.events,
    }
}
