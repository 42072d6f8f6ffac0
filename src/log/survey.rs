//! What lies in the store's directory: the small files, and the names.
//!
//! Row: log.

use crate::disk::{Access, Disk, DiskFile, read_full};
use crate::error::Error;
use crate::format::chain::Hash;
use crate::format::manifest::{self, Manifest};
use crate::format::mark::{self, Mark};
use crate::format::segment::{DIRECTORY, HEADER, SegmentId};

use super::FIRST_ZEROS;
use super::segment::damaged;

pub(crate) fn read_manifest(disk: &dyn Disk) -> Result<Option<(Manifest, Hash)>, Error> {
    /// A million segments, 64 TiB of events.
    const MANIFEST_BYTES_MAX: u64 = 256 << 20;
    let Some(bytes) = read_file(disk, manifest::NAME, MANIFEST_BYTES_MAX)? else { return Ok(None) };
    Manifest::read(&bytes).map(Some).map_err(|damage| damaged(manifest::NAME, 0, &damage))
}

pub(crate) fn read_mark(disk: &dyn Disk) -> Result<Option<Mark>, Error> {
    let bytes = read_file(disk, mark::NAME, u64::try_from(mark::FILE_BYTES).expect("8192"))?;
    mark::newest(&bytes.unwrap_or_default()).map_err(|damage| damaged(mark::NAME, 0, &damage))
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
    let names = list(disk, DIRECTORY)?;
    for name in &names {
        let path = format!("{DIRECTORY}/{name}");
        let first = SegmentId { first_position: 1, generation: 0 };
        let file = disk.open(&path, Access::Read).map_err(|error| Error::io("cannot open", &path, error))?;
        if SegmentId::parse(name) != Some(first) || !could_be_new(file.as_ref(), &path)? {
            return Err(missing());
        }
    }
    for name in names.iter().filter(|_| may_remove) {
        let path = format!("{DIRECTORY}/{name}");
        disk.remove(&path).map_err(|error| Error::io("cannot remove", &path, error))?;
    }
    Ok(())
}

/// Whether a segment's file is no longer than a new one, and has nothing but zeros behind its header.
pub(crate) fn could_be_new(file: &dyn DiskFile, path: &str) -> Result<bool, Error> {
    let most = usize::try_from(FIRST_ZEROS).expect("64 KiB");
    let mut bytes = vec![0; most + 1];
    let read = read_full(file, &mut bytes, 0).map_err(|error| Error::io("cannot read", path, error))?;
    Ok(read <= most && bytes.iter().skip(HEADER).all(|byte| *byte == 0))
}

pub(crate) fn list(disk: &dyn Disk, directory: &str) -> Result<Vec<String>, Error> {
    match disk.list(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(|error| {
            Error::io("cannot list", if directory.is_empty() { "the store" } else { directory }, error)
        }),
    }
}
