//! What lies in the store's directory: MANIFEST, MARK, the names, and whether listed segments are there.
//!
//! A writer is let in only if the name of every listed segment passes, and header and seal of the newest ones.
//! Readers and `verify` check the frames between header and seal.

use std::io;

use crate::disk::{Access, Disk, DiskFile, FileInfo, UnsafePath, if_there, read_full};
use crate::format::{
    Hash, Manifest, Mark, SEAL_BYTES, SEGMENT_HEADER_BYTES, SEGMENTS_DIRECTORY, Seal, SegmentEntry,
    SegmentId, genesis, manifest, mark,
};
use crate::types::{Error, ErrorKind, to_u64};

use super::super::cursor::{LogEnd, POSITION_MAX};
use super::super::preallocate::NEW_SEGMENT_BYTES;
use super::super::segment::{SegmentFile, damaged, missing};

/// A million segments, 64 TiB of events.
const MANIFEST_BYTES_MAX: u64 = 256 << 20;
const MARK_BYTES_MAX: u64 = 8192;
const _: () = assert!(mark::FILE_BYTES == 8192);

/// Opening reads header and seal of this many segments, the ones that were sealed last.
pub(crate) const HEADERS_CHECKED_MAX: usize = 64;

/// Reads MANIFEST and its digest; `None` if there is no such file.
pub(crate) fn read_manifest(disk: &dyn Disk) -> Result<Option<(Manifest, Hash)>, Error> {
    let Some(bytes) = read_file(disk, manifest::NAME, MANIFEST_BYTES_MAX)? else { return Ok(None) };
    Manifest::read(&bytes).map(Some).map_err(|damage| damaged(manifest::NAME, 0, &damage))
}

/// The first bytes of MANIFEST. They differ between any two versions of the file.
pub(crate) fn manifest_stamp(disk: &dyn Disk) -> Result<Option<[u8; 64]>, Error> {
    let bytes = read_file(disk, manifest::NAME, 64)?;
    Ok(bytes.and_then(|bytes| bytes.first_chunk().copied()))
}

/// The newest valid slot of MARK; `None` if there is none.
pub(crate) fn read_mark(disk: &dyn Disk) -> Result<Option<Mark>, Error> {
    Ok(read_slots(disk)?.into_iter().next())
}

/// The valid slots of MARK, the newer one first.
pub(crate) fn read_slots(disk: &dyn Disk) -> Result<Vec<Mark>, Error> {
    let bytes = read_file(disk, mark::NAME, MARK_BYTES_MAX)?;
    mark::slots(&bytes.unwrap_or_default()).map_err(|damage| damaged(mark::NAME, 0, &damage))
}

/// The state of a store that every writer changes. If two stamps are equal, no writer was at work between them.
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
            // Last: this also sees a writer that came while the files were read.
            is_locked: disk.is_locked().map_err(|error| Error::io("cannot look at", "LOCK", error))?,
        })
    }
}

/// The length of a file in bytes; 0 if it is gone.
fn length(disk: &dyn Disk, path: &str) -> Result<u64, Error> {
    let length = if_there(disk.open(path, Access::Read).and_then(|file| file.length()));
    Ok(length.map_err(|error| Error::io("cannot read the length of", path, error))?.unwrap_or(0))
}

/// The first `bytes_max` bytes of a file; `None` if there is no such file.
fn read_file(disk: &dyn Disk, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, Error> {
    let failed = |error| Error::io("cannot read", name, error);
    let Some(file) = if_there(disk.open(name, Access::Read)).map_err(failed)? else { return Ok(None) };
    let length = file.length().map_err(failed)?.min(bytes_max);
    let mut bytes = vec![0; usize::try_from(length).expect("bounded above")];
    let read = read_full(file.as_ref(), &mut bytes, 0).map_err(failed)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

/// The names in a directory of the store, in no order; none if there is no such directory.
pub(crate) fn list(disk: &dyn Disk, directory: &str) -> Result<Vec<String>, Error> {
    let names = if_there(disk.list(directory)).map_err(|error| {
        Error::io("cannot list", if directory.is_empty() { "the store" } else { directory }, error)
    })?;
    Ok(names.unwrap_or_default())
}

/// Checks that a directory without MANIFEST has only what an interrupted creation leaves, and removes that if
/// `may_remove`.
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
    // Only after all names were checked: damage must change nothing on disk.
    if may_remove {
        for name in &names {
            let path = format!("{SEGMENTS_DIRECTORY}/{name}");
            disk.remove(&path).map_err(|error| Error::io("cannot remove", &path, error))?;
        }
    }
    Ok(())
}

/// Whether a file that MANIFEST does not list was left by an interrupted rewrite: a segment that was not listed
/// yet, or one that is not listed any more. A file of another store is none.
pub(crate) fn is_leftover(disk: &dyn Disk, manifest: &Manifest, name: &str) -> Result<bool, Error> {
    if SegmentId::parse_temporary(name).is_some() {
        return Ok(true);
    }
    let Some(id) = SegmentId::parse(name) else { return Ok(false) };
    let path = id.path();
    let opened = if_there(disk.open(&path, Access::Read));
    let Some(file) = opened.map_err(|error| Error::io("cannot open", &path, error))? else {
        // Its writer has removed it since the directory was listed.
        return Ok(true);
    };
    let header = SegmentFile::read_header(file.as_ref(), &path)?;
    Ok(header.is_ok_and(|header| header.id == id && manifest.knows(&header.store_id)))
}

/// The other names in the store's own directory: leftovers of an interrupted writer, and names that annals does
/// not know.
pub(super) fn other_names(disk: &dyn Disk) -> Result<(Vec<String>, Vec<String>), Error> {
    const KNOWN: [&str; 7] =
        ["LOCK", manifest::NAME, mark::NAME, SEGMENTS_DIRECTORY, "cache", "quarantine", "ERASING"];
    let names = list(disk, "")?.into_iter().filter(|name| !KNOWN.contains(&name.as_str()));
    Ok(names.partition(|name| name == manifest::TEMPORARY))
}

/// Whether a segment's file is at most as long as a new one and has only zeros behind its header.
pub(crate) fn could_be_new(file: &dyn DiskFile, path: &str) -> Result<bool, Error> {
    let bytes_max = usize::try_from(NEW_SEGMENT_BYTES).expect("64 KiB");
    let mut bytes = vec![0; bytes_max + 1];
    let read = read_full(file, &mut bytes, 0).map_err(|error| Error::io("cannot read", path, error))?;
    Ok(read <= bytes_max && bytes.iter().skip(SEGMENT_HEADER_BYTES).all(|byte| *byte == 0))
}

/// What header and seal of a listed segment must say.
pub(crate) struct Outline {
    pub(crate) id: SegmentId,
    /// Chain and time of the last frame before the segment.
    pub(crate) chain_before: Hash,
    pub(crate) recorded_before: u64,
    pub(crate) seal: Seal,
}

impl Outline {
    /// `chain_before` is the chain of the entry before this one.
    fn of(sealed: &SegmentEntry, chain_before: Hash) -> Outline {
        let seal = Seal {
            length: sealed.length,
            last_position: sealed.last_position,
            last_recorded_at: sealed.last_recorded_at,
            frames: sealed.frames,
            events: sealed.events,
            chain: sealed.chain,
        };
        Outline { id: sealed.id, chain_before, recorded_before: sealed.recorded_before, seal }
    }

    /// Checks that header and seal of a file are those of the segment. The caller has checked the length.
    ///
    /// # Errors
    ///
    /// What differs, and at which offset.
    pub(crate) fn check(&self, file: &SegmentFile, knows: impl Fn(&[u8; 16]) -> bool) -> Result<(), Error> {
        self.check_header(file, knows)?;
        self.check_seal(file)
    }

    /// Checks that the header is that of the segment. `knows` says whether segments of a store belong to this
    /// one.
    ///
    /// # Errors
    ///
    /// What differs.
    pub(crate) fn check_header(
        &self,
        file: &SegmentFile,
        knows: impl Fn(&[u8; 16]) -> bool,
    ) -> Result<(), Error> {
        let header = &file.header;
        let differs = |what: &str| Err(Error::corrupt(&file.path, 0, what));
        if header.id != self.id {
            return differs("the segment is another one than its name says");
        }
        if !knows(&header.store_id) {
            return differs("the segment belongs to another store");
        }
        if (header.chain_before, header.recorded_before) != (self.chain_before, self.recorded_before) {
            return differs("the segment does not continue the one before it");
        }
        Ok(())
    }

    /// Checks that the file ends with the seal.
    fn check_seal(&self, file: &SegmentFile) -> Result<(), Error> {
        let start = u64::from(self.seal.length).saturating_sub(to_u64(SEAL_BYTES));
        let mut bytes = [0; SEAL_BYTES];
        let read = read_full(file.file.as_ref(), &mut bytes, start)
            .map_err(|error| Error::io("cannot read", &file.path, error))?;
        let bytes = &bytes[..read];
        if !file.header.is_seal(bytes, start) {
            return Err(Error::corrupt(&file.path, start, "the segment does not end with its seal"));
        }
        let seal = Seal::read(bytes).map_err(|damage| file.damaged(start, &damage))?;
        if seal != self.seal {
            return Err(Error::corrupt(&file.path, start, "the segment does not end as MANIFEST says"));
        }
        Ok(())
    }

    /// Checks that the file has the length that MANIFEST says.
    ///
    /// # Errors
    ///
    /// If it has not; the offset is the shorter of the two lengths.
    pub(crate) fn check_length(&self, bytes: u64) -> Result<(), Error> {
        let listed = u64::from(self.seal.length);
        if bytes == listed {
            return Ok(());
        }
        let what =
            format!("the file has another length than MANIFEST says: {bytes} bytes instead of {listed}");
        Err(Error::corrupt(&self.id.path(), bytes.min(listed), what))
    }
}

/// Checks what must hold before a writer changes anything. All listed segments are there, each is a file of its
/// own and has its length, and the newest have the right headers and seals.
///
/// # Errors
///
/// The first segment that is not as MANIFEST lists it.
pub(super) fn check_listed(disk: &dyn Disk, manifest: &Manifest) -> Result<(), Error> {
    let origin = manifest.lineage.first().map_or(&manifest.store_id, |first| &first.store_id);
    let mut chain_before = genesis(origin);
    let mut outlines = Vec::with_capacity(manifest.sealed.len());
    for sealed in &manifest.sealed {
        outlines.push(Outline::of(sealed, chain_before));
        chain_before = sealed.chain;
    }
    check_files(disk, &outlines)?;
    for outline in outlines.iter().skip(outlines.len().saturating_sub(HEADERS_CHECKED_MAX)) {
        let file = SegmentFile::open(disk, outline.id, Access::Read)?;
        outline.check(&file, |store_id| manifest.knows(store_id))?;
    }
    Ok(())
}

/// Checks that a segment that MANIFEST does not list belongs to the store and continues the log at `end`.
pub(super) fn check_continues(
    segment: &SegmentFile,
    id: SegmentId,
    manifest: &Manifest,
    end: Option<LogEnd>,
) -> Result<(), Error> {
    let header = &segment.header;
    let differs = |what: &str| Err(Error::corrupt(&segment.path, 0, what));
    if !manifest.knows(&header.store_id) {
        return differs("the segment belongs to another store");
    }
    if header.id != id {
        return differs("the segment is another one than its name says");
    }
    if id.first_position > POSITION_MAX {
        return differs("the segment begins at an impossible position");
    }
    let (position, recorded_at, chain) = match end {
        Some(end) => (end.position, end.recorded_at, end.chain),
        None => (0, 0, genesis(&header.store_id)),
    };
    let next = position.saturating_add(1);
    if id.first_position > next {
        return Err(missing(SegmentId { first_position: next, generation: 0 }));
    }
    if id.first_position < next {
        return differs("the segment begins in front of where the one before it ends");
    }
    if header.chain_before != chain || header.recorded_before != recorded_at {
        return differs("the segment does not continue the one before it");
    }
    Ok(())
}

/// Checks names, kinds, lengths and identities of the files, without opening them.
fn check_files(disk: &dyn Disk, outlines: &[Outline]) -> Result<(), Error> {
    let Some(first) = outlines.first() else { return Ok(()) };
    let names: Vec<String> = outlines.iter().map(|outline| outline.id.file_name()).collect();
    let found = if_there(disk.inspect(SEGMENTS_DIRECTORY, &names))
        .map_err(|error| Error::io("cannot look at", SEGMENTS_DIRECTORY, error))?
        .ok_or_else(|| missing(first.id))?;
    if found.len() != names.len() {
        return Err(Error::new(ErrorKind::Io, "Disk::inspect did not answer for each name; mend the disk"));
    }
    let mut identities = Vec::new();
    for (outline, found) in outlines.iter().zip(found) {
        let FileInfo { length, is_regular, identity } = found.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => missing(outline.id),
            _ => Error::io("cannot look at", &outline.id.path(), error),
        })?;
        if !is_regular {
            let what = "it is a link, a directory, a pipe or a device; put the segment's file in its place";
            return Err(Error::io("cannot use", &outline.id.path(), UnsafePath::error(what.to_owned())));
        }
        outline.check_length(length)?;
        identities.extend(identity.map(|identity| (identity, outline.id)));
    }
    identities.sort_unstable();
    match identities.windows(2).find(|pair| matches!(pair, [one, other] if one.0 == other.0)) {
        Some([(_, one), (_, other)]) => {
            let what =
                format!("it is the same file as {}, so one of the two segments is missing", one.path());
            Err(Error::corrupt(&other.path(), 0, what))
        }
        _ => Ok(()),
    }
}

/// The error for a segment's file that MANIFEST does not list and that no rewrite left.
pub(super) fn unlisted(id: SegmentId) -> Error {
    let text = format!("{}, offset 0: {}; nothing was changed", id.path(), unlisted_text());
    Error::new(ErrorKind::Corrupt, text)
}

/// The text of that error, without the path.
pub(crate) fn unlisted_text() -> &'static str {
    "MANIFEST does not list this segment, and rewriting did not leave it; move the file out of the directory"
}
