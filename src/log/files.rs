//! The two small files beside the segments: MANIFEST, replaced as a whole, and MARK, written in place.
//!
//! Row: log.

use crate::disk::{Access, Disk, DiskFile, write_all};
use crate::format::{
    Hash, Manifest, Mark, SEGMENT_HEADER_BYTES, SEGMENTS_DIRECTORY, SegmentEntry, SegmentId, genesis,
    manifest, mark,
};
use crate::types::Error;

use super::recover::Recovered;
use super::scan::LogEnd;
use super::segment::SegmentFile;
use super::{Failure, LogOptions, first_zeros, next_header};

pub(crate) struct ManifestFile {
    manifest: Manifest,
    digest: Hash,
}

impl ManifestFile {
    pub(crate) fn new(manifest: Manifest, digest: Hash) -> ManifestFile {
        ManifestFile { manifest, digest }
    }

    /// Lists further sealed segments, and says how many bytes the file has now. Refused if there is no
    /// space; the old file stands then, and they are listed next time.
    pub(crate) fn add(
        &mut self,
        disk: &dyn Disk,
        sealed: impl Iterator<Item = SegmentEntry>,
    ) -> Result<u64, Failure> {
        self.manifest.sealed.extend(sealed);
        self.replace(disk, self.manifest.clone())
    }

    /// Lists a rewritten segment in the place of those it was made of; otherwise as [`ManifestFile::add`].
    pub(crate) fn exchange(&mut self, disk: &dyn Disk, exchange: &Exchange) -> Result<u64, Failure> {
        let mut next = self.manifest.clone();
        let Some(place) = exchange.place(&next.sealed) else {
            return Err(Failure::Refused(Error::invalid(
                "the segments were rewritten by somebody else meanwhile",
            )));
        };
        next.sealed.splice(place, [exchange.with.clone()]);
        next.is_changing |= exchange.effect == Effect::History;
        self.replace(disk, next)
    }

    /// Whether history was changed, and its revision not raised yet.
    pub(crate) fn is_changing(&self) -> bool {
        self.manifest.is_changing
    }

    /// Raises the history revision; otherwise as [`ManifestFile::add`].
    pub(crate) fn raise(&mut self, disk: &dyn Disk) -> Result<u64, Failure> {
        self.manifest.is_changing = false;
        self.manifest.history_revision = self.manifest.history_revision.saturating_add(1);
        self.replace(disk, self.manifest.clone())
    }

    pub(crate) fn history_revision(&self) -> u64 {
        self.manifest.history_revision
    }

    /// Replaces the file: the one way to do so.
    fn replace(&mut self, disk: &dyn Disk, next: Manifest) -> Result<u64, Failure> {
        let next = Manifest { sequence: self.manifest.sequence + 1, previous: self.digest, ..next };
        let (bytes, digest) = next.write();
        replace(disk, &bytes)?;
        (self.manifest, self.digest) = (next, digest);
        Ok(u64::try_from(bytes.len()).expect("a length fits 64 bits"))
    }
}

/// A rewritten segment, which is durable under its name, in the place of others.
pub(crate) struct Exchange {
    /// In the order of the log.
    pub(crate) old: Vec<SegmentId>,
    pub(crate) with: SegmentEntry,
    pub(crate) effect: Effect,
}

/// What rewriting segments does to history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The same events are there.
    None,
    /// Some are not, or not as a whole: what was folded before is void once that is over.
    History,
}

impl Exchange {
    /// Where the old ones stand in a list.
    fn place(&self, sealed: &[SegmentEntry]) -> Option<std::ops::Range<usize>> {
        let start = sealed.iter().position(|listed| self.old.first() == Some(&listed.id))?;
        let place = start..start.checked_add(self.old.len())?;
        let listed = sealed.get(place.clone())?;
        let ends_alike = listed.last()?.last_position == self.with.last_position;
        (ends_alike && listed.iter().map(|listed| listed.id).eq(self.old.iter().copied())).then_some(place)
    }
}

/// Write beside, sync, rename, sync the directory: the old or the new one is there, never half.
pub(crate) fn replace(disk: &dyn Disk, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error| Error::io("cannot write", manifest::TEMPORARY, error);
    let create = || match disk.remove(manifest::TEMPORARY) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => disk.open(manifest::TEMPORARY, Access::CreateNew),
    };
    // Nothing was written: there may be no descriptors left, or no room.
    let file = create().map_err(|error| Failure::Refused(failed(error)))?;
    write_all(file.as_ref(), bytes, 0).and_then(|()| file.sync()).map_err(|error| {
        let failure = Failure::of_write(failed(error));
        // Nothing rests on it before it has the other name. Thrown away it gives back its room, and the next try
        // writes, and syncs, another file.
        if let Failure::Refused(_) = failure {
            let _ = disk.remove(manifest::TEMPORARY);
        }
        failure
    })?;
    disk.rename(manifest::TEMPORARY, manifest::NAME)
        .and_then(|()| disk.sync_directory(""))
        .map_err(|error| Failure::Poison(Error::io("cannot replace", manifest::NAME, error)))
}

pub(crate) struct MarkFile {
    file: Box<dyn DiskFile>,
    store_id: [u8; 16],
    sequence: u64,
    is_synced: bool,
    is_clean: bool,
    /// The first position of the segment that each slot speaks of, as it was written, and for certain; 0 if that is not known.
    written: [u64; 2],
    durable: [u64; 2],
}

impl MarkFile {
    /// Opens the file, or creates a lost one.
    pub(crate) fn open(disk: &dyn Disk, recovered: &Recovered) -> Result<MarkFile, Error> {
        let file = match disk.open(mark::NAME, Access::Write) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => create_mark_file(disk),
            opened => opened,
        };
        Ok(MarkFile {
            file: file.map_err(|error| Error::io("cannot open", mark::NAME, error))?,
            store_id: recovered.manifest.store_id,
            sequence: recovered.mark.as_ref().map_or(0, |mark| mark.sequence),
            is_synced: true,
            // What a slot says of a segment that recovery has left behind is not the last word.
            is_clean: recovered.report.clean && recovered.mark.as_ref().is_some_and(|mark| mark.clean),
            written: [0; 2],
            durable: [0; 2],
        })
    }

    /// Says how much of a segment is durable. Called after a sync only.
    pub(crate) fn write(&mut self, segment: SegmentId, durable: &LogEnd, clean: bool) -> Result<(), Error> {
        self.sequence += 1;
        let mark = Mark {
            store_id: self.store_id,
            sequence: self.sequence,
            segment,
            durable_end: durable.offset,
            position: durable.position,
            chain: durable.chain,
            clean,
        };
        (self.is_synced, self.is_clean) = (false, clean);
        self.written[usize::from(mark.offset() > 0)] = segment.first_position;
        write_all(self.file.as_ref(), &mark.write(), mark.offset())
            .map_err(|error| Error::io("cannot write", mark::NAME, error))
    }

    pub(crate) fn identity(&self) -> Option<(u64, u64)> {
        self.file.identity()
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.is_synced
    }

    /// Whether the newest slot says that nothing follows.
    pub(crate) fn is_clean(&self) -> bool {
        self.is_clean
    }

    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        self.file.sync().map_err(|error| Error::io("cannot sync", mark::NAME, error))?;
        self.is_synced = true;
        self.durable = self.written;
        Ok(())
    }

    /// Whether, whatever a power cut leaves of it, it speaks of a segment behind this position.
    pub(crate) fn is_behind(&self, position: u64) -> bool {
        self.durable.iter().all(|first| *first > position)
    }
}

/// Both slots get their blocks now, so that writing one never needs space.
pub(crate) fn create_mark_file(disk: &dyn Disk) -> std::io::Result<Box<dyn DiskFile>> {
    let file = disk.open(mark::NAME, Access::CreateNew)?;
    write_all(file.as_ref(), &[0; mark::FILE_BYTES], 0)?;
    file.sync()?;
    disk.sync_directory("")?;
    Ok(file)
}

/// The id of a store that does not exist yet.
pub(crate) fn new_store_id(disk: &dyn Disk) -> Result<[u8; 16], Error> {
    let random = disk.random().map_err(|error| Error::io("cannot create", "a store id", error))?;
    Ok(*uuid::Builder::from_random_bytes(crate::format::array(&random, 0)).as_uuid().as_bytes())
}

/// Creates the files of a new store. MANIFEST comes last: where it is, the others once were. Only
/// once its name is durable, too, does MARK call the store closed; until then opening recovers.
pub(crate) fn create_store(disk: &dyn Disk, options: &LogOptions, now: u64) -> Result<(), Error> {
    let failed = |what: &'static str| move |error| Error::io("cannot create", what, error);
    let store_id = new_store_id(disk)?;
    disk.create_directory(SEGMENTS_DIRECTORY).map_err(failed(SEGMENTS_DIRECTORY))?;
    match disk.remove(mark::NAME) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(mark::NAME)(error)),
        _ => {}
    }
    let header = next_header(disk, options, store_id, None, now)?;
    let first = Mark {
        store_id,
        sequence: 1,
        segment: header.id,
        durable_end: u32::try_from(SEGMENT_HEADER_BYTES).expect("144"),
        position: 0,
        chain: genesis(&store_id),
        clean: false,
    };
    let file = create_mark_file(disk).map_err(failed(mark::NAME))?;
    let write =
        |mark: Mark| write_all(file.as_ref(), &mark.write(), mark.offset()).and_then(|()| file.sync());
    write(first.clone()).map_err(failed(mark::NAME))?;
    SegmentFile::create(disk, header, first_zeros(disk, options)).map_err(Failure::into_error)?;
    replace(disk, &Manifest::new(store_id, now).write().0).map_err(Failure::into_error)?;
    write(Mark { sequence: 2, clean: true, ..first }).map_err(failed(mark::NAME))
}
