//! A directory that history is put into: what is there already, and whether it may be.
//!
//! Row: ops.

use std::collections::BTreeSet;

use crate::disk::{Access, Disk};
use crate::format::{Hash, Manifest, Mark, SEGMENTS_DIRECTORY, SegmentId, manifest, mark};
use crate::log::{SegmentFile, list, read_manifest, read_mark};
use crate::types::Error;

use super::erase;
use super::quarantine::QUARANTINE;

const KNOWN: [&str; 8] = [
    "LOCK",
    manifest::NAME,
    manifest::TEMPORARY,
    mark::NAME,
    SEGMENTS_DIRECTORY,
    erase::CACHE,
    QUARANTINE,
    erase::MARK,
];

/// What is there.
pub(crate) struct Target {
    /// Of a store, or of an earlier copy that was finished.
    pub(crate) manifest: Option<(Manifest, Hash)>,
    pub(crate) mark: Option<Mark>,
    pub(crate) segments: BTreeSet<SegmentId>,
}

impl Target {
    /// Looks at a directory for the history of `source`, and removes what an interrupted copy left half done.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) if it has files that are not of annals, or belongs to another store.
    pub(crate) fn survey(disk: &dyn Disk, source: &Manifest) -> Result<Target, Error> {
        let refused =
            |what: String| Err(Error::invalid(format!("{} {what}; choose an empty directory", disk.place())));
        for name in list(disk, "")? {
            if !KNOWN.contains(&name.as_str()) {
                return refused(format!("holds {name}, which is not of annals"));
            }
        }
        let mut target =
            Target { manifest: read_manifest(disk)?, mark: read_mark(disk)?, segments: BTreeSet::new() };
        if target.manifest.as_ref().is_some_and(|(own, _)| own.store_id != source.store_id) {
            return refused("holds another store".to_owned());
        }
        for name in list(disk, SEGMENTS_DIRECTORY)? {
            match (SegmentId::parse(&name), SegmentId::parse_temporary(&name)) {
                (Some(id), _) if is_of(disk, id, source)? => drop(target.segments.insert(id)),
                (Some(_), _) => return refused(format!("holds {name}, a segment of another store")),
                (None, Some(_)) => remove(disk, &format!("{SEGMENTS_DIRECTORY}/{name}"))?,
                (None, None) if SegmentId::parse_index(&name).is_some() => {}
                (None, None) => {
                    return refused(format!("holds {SEGMENTS_DIRECTORY}/{name}, which is not of annals"));
                }
            }
        }
        Ok(target)
    }

    /// That no store is there yet.
    pub(crate) fn check_new(&self, disk: &dyn Disk) -> Result<(), Error> {
        match self.manifest {
            Some(_) => {
                let text = format!("there is a store in {} already; choose a new directory", disk.place());
                Err(Error::invalid(text))
            }
            None => Ok(()),
        }
    }

    /// Whether MANIFEST lists the segment.
    pub(crate) fn lists(&self, id: SegmentId) -> bool {
        let (manifest, _) = match &self.manifest {
            Some(manifest) => manifest,
            None => return false,
        };
        manifest.sealed.iter().any(|sealed| sealed.id == id)
    }
}

/// Whether the segment in a file may be one of the source's. One without a whole header is half of one.
fn is_of(disk: &dyn Disk, id: SegmentId, source: &Manifest) -> Result<bool, Error> {
    let path = id.path();
    let file = disk.open(&path, Access::Read).map_err(|error| Error::io("cannot open", &path, error))?;
    let header = SegmentFile::read_header(file.as_ref(), &path)?;
    Ok(header.map_or(true, |header| source.knows(&header.store_id)))
}

pub(crate) fn remove(disk: &dyn Disk, path: &str) -> Result<(), Error> {
    disk.remove(path).map_err(|error| Error::io("cannot remove", path, error))
}
