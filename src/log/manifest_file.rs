//! The file MANIFEST: the sealed segments. Replaced as a whole, never changed in place.

use std::ops::Range;

use crate::disk::{Disk, create_anew, write_all};
use crate::format::{Hash, Manifest, SegmentEntry, SegmentId, manifest};
use crate::types::{Error, to_u64};

use super::segment::Failure;

/// What the file says, and the digest of its bytes, which the next MANIFEST names.
pub(crate) struct ManifestFile {
    manifest: Manifest,
    digest: Hash,
}

/// Replaces sealed segments by one rewritten segment, whose file is durable under its own name.
pub(crate) struct Exchange {
    /// In the order of the log.
    pub(crate) old: Vec<SegmentId>,
    pub(crate) with: SegmentEntry,
    pub(crate) effect: Effect,
}

/// What a rewrite does to history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The same events are there.
    None,
    /// Some events are gone or lost their private part, so state that was folded from them is void.
    History,
}

impl Exchange {
    /// The place of the old segments in a list of segments; `None` if the list has them no more.
    fn place_in(&self, sealed: &[SegmentEntry]) -> Option<Range<usize>> {
        let start = sealed.iter().position(|listed| self.old.first() == Some(&listed.id))?;
        let place = start..start.checked_add(self.old.len())?;
        let listed = sealed.get(place.clone())?;
        let has_same_end = listed.last()?.last_position == self.with.last_position;
        let has_all = listed.iter().map(|listed| listed.id).eq(self.old.iter().copied());
        (has_same_end && has_all).then_some(place)
    }
}

impl ManifestFile {
    pub(crate) fn new(manifest: Manifest, digest: Hash) -> ManifestFile {
        ManifestFile { manifest, digest }
    }

    /// Adds sealed segments to the list, and returns the length of the new file in bytes.
    ///
    /// # Errors
    ///
    /// `Refused` if the disk is full: the old file stays, and the next replacement lists the segments.
    pub(crate) fn add(
        &mut self,
        disk: &dyn Disk,
        sealed: impl Iterator<Item = SegmentEntry>,
    ) -> Result<u64, Failure> {
        self.manifest.sealed.extend(sealed);
        self.replace(disk, self.manifest.clone())
    }

    /// Lists a rewritten segment in place of the old ones. Returns as [`ManifestFile::add`] does.
    pub(crate) fn exchange(&mut self, disk: &dyn Disk, exchange: &Exchange) -> Result<u64, Failure> {
        let mut next = self.manifest.clone();
        let Some(place) = exchange.place_in(&next.sealed) else {
            return Err(Failure::Refused(Error::invalid(
                "another rewrite has replaced these segments in the meantime; nothing was changed",
            )));
        };
        next.sealed.splice(place, [exchange.with.clone()]);
        next.is_changing |= exchange.effect == Effect::History;
        self.replace(disk, next)
    }

    /// Whether history was changed, and its revision is not raised yet.
    pub(crate) fn is_changing(&self) -> bool {
        self.manifest.is_changing
    }

    /// Raises the history revision. Returns as [`ManifestFile::add`] does.
    pub(crate) fn raise_history(&mut self, disk: &dyn Disk) -> Result<u64, Failure> {
        self.manifest.is_changing = false;
        self.manifest.history_revision = self.manifest.history_revision.saturating_add(1);
        self.replace(disk, self.manifest.clone())
    }

    pub(crate) fn history_revision(&self) -> u64 {
        self.manifest.history_revision
    }

    /// Every change of the file goes through here: it numbers the new MANIFEST and names the old one in it.
    fn replace(&mut self, disk: &dyn Disk, next: Manifest) -> Result<u64, Failure> {
        let next = Manifest { sequence: self.manifest.sequence + 1, previous: self.digest, ..next };
        let (bytes, digest) = next.write();
        replace_manifest(disk, &bytes)?;
        self.manifest = next;
        self.digest = digest;
        Ok(to_u64(bytes.len()))
    }
}

/// Replaces MANIFEST so that a stop at any moment leaves the old one or the new one, never a part: writes a
/// temporary file, syncs it, renames it, syncs the directory.
pub(crate) fn replace_manifest(disk: &dyn Disk, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error| Error::io("cannot write", manifest::TEMPORARY, error);
    // Nothing is written yet: the process may have no descriptors left, or the disk no room.
    let file = create_anew(disk, manifest::TEMPORARY).map_err(|error| Failure::Refused(failed(error)))?;
    write_all(file.as_ref(), bytes, 0).and_then(|()| file.sync()).map_err(|error| {
        let failure = Failure::of_write(failed(error));
        // The temporary file has no use yet. Removing it gives back its room, and the next try writes and
        // syncs another file: a file whose sync failed is never synced again.
        if let Failure::Refused(_) = failure {
            let _ = disk.remove(manifest::TEMPORARY);
        }
        failure
    })?;
    // From here on either name may survive a power cut, so a failure poisons.
    disk.rename(manifest::TEMPORARY, manifest::NAME)
        .and_then(|()| disk.sync_directory(""))
        .map_err(|error| Failure::Poison(Error::io("cannot replace", manifest::NAME, error)))
}
