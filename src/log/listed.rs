//! Whether a sealed segment's file is the one that MANIFEST lists: by its name, its header and its seal.
//!
//! A writer is let in only if all names pass, and the newest segments. What lies between header and seal is for readers, and
//! for verify, to check.
//! Row: log. Tested by tests/it/open_checked.rs.

use crate::disk::{Access, Disk, FileInfo, UnsafePath, read_full};
use crate::format::{Hash, Manifest, SEAL_BYTES, SEGMENTS_DIRECTORY, Seal, SegmentEntry, SegmentId, genesis};
use crate::types::{Error, ErrorKind};

use super::segment::{SegmentFile, missing};

/// Opening itself reads header and seal of so many segments, those sealed last.
pub(crate) const NEWEST: usize = 64;

/// What a listed segment's header and seal must say.
pub(crate) struct Outline {
    pub(crate) id: SegmentId,
    /// Chain and recorded-at of the last frame before the segment.
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

    /// Whether header and seal of a file are those of the segment. Its length was checked.
    ///
    /// # Errors
    ///
    /// What differs, and where.
    pub(crate) fn check(&self, file: &SegmentFile, knows: impl Fn(&[u8; 16]) -> bool) -> Result<(), Error> {
        self.check_header(file, knows)?;
        self.check_seal(file)
    }

    /// Whether the header is that of the segment. `knows` says whether a store's segments belong to this one.
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

    /// Whether the file ends with the seal.
    fn check_seal(&self, file: &SegmentFile) -> Result<(), Error> {
        let start = u64::from(self.seal.length).saturating_sub(u64::try_from(SEAL_BYTES).expect("72"));
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

    /// Whether the file is as long as it must be.
    ///
    /// # Errors
    ///
    /// That it is not; the offset is the shorter end.
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

/// What must be so before a writer may change anything: all listed segments are there, each a file of its own and as long as
/// it must be, and the newest have the right headers and seals.
///
/// # Errors
///
/// The first that is not as it is listed.
pub(crate) fn check_listed(disk: &dyn Disk, manifest: &Manifest) -> Result<(), Error> {
    let origin = manifest.lineage.first().map_or(&manifest.store_id, |first| &first.store_id);
    let mut chain_before = genesis(origin);
    let mut outlines = Vec::with_capacity(manifest.sealed.len());
    for sealed in &manifest.sealed {
        outlines.push(Outline::of(sealed, chain_before));
        chain_before = sealed.chain;
    }
    check_names(disk, &outlines)?;
    for outline in outlines.iter().skip(outlines.len().saturating_sub(NEWEST)) {
        let file = SegmentFile::open(disk, outline.id, Access::Read)?;
        outline.check(&file, |store_id| manifest.knows(store_id))?;
    }
    Ok(())
}

fn check_names(disk: &dyn Disk, outlines: &[Outline]) -> Result<(), Error> {
    let Some(first) = outlines.first() else { return Ok(()) };
    let names: Vec<String> = outlines.iter().map(|outline| outline.id.file_name()).collect();
    let found = match disk.inspect(SEGMENTS_DIRECTORY, &names) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing(first.id)),
        found => found.map_err(|error| Error::io("cannot look at", SEGMENTS_DIRECTORY, error))?,
    };
    if found.len() != names.len() {
        return Err(Error::new(ErrorKind::Io, "Disk::inspect did not answer for each name; mend the disk"));
    }
    let mut identities = Vec::new();
    for (outline, found) in outlines.iter().zip(found) {
        let FileInfo { length, is_regular, identity } = found.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => missing(outline.id),
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

/// What is said of a segment's file that is no part of the log, and nothing that rewriting left.
pub(crate) fn unlisted(id: SegmentId) -> Error {
    let text = format!("{}, offset 0: {}; nothing was changed", id.path(), unlisted_text());
    Error::new(ErrorKind::Corrupt, text)
}

/// The same without the file.
pub(crate) fn unlisted_text() -> &'static str {
    "MANIFEST does not list this segment, and rewriting did not leave it; move the file out of the directory"
}
