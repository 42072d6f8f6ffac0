//! Rewrites sealed segments while the store is open, one group of neighbours at a time; rebuilds index files.
//!
//! A step writes the new segment and its index, checks both, and gives the file its name. Then the writer
//! lists the segment in MANIFEST, readers get the new segment, and the old files are removed. Appends wait
//! for MANIFEST only.
//!
//! Readers finish with the files they have. A stop between or in steps leaves the old segment or the new one.
//! - One rewriting at a time: the engine's lock `rewriting` is held throughout.
//! - Only segments that are sealed, indexed and listed in MANIFEST are touched.
//! - If events were removed or erased, the history revision is raised, also after an error or a panic.
//!
//! Tested by tests/it/erase.rs and tests/it/compact.rs.

use std::sync::Arc;

use parking_lot::MutexGuard;

use crate::disk::if_there;
use crate::engine::{Engine, Maintenance};
use crate::format::{SEGMENTS_DIRECTORY, SegmentEntry, SegmentId};
use crate::index::LiveIndex;
use crate::log::{
    Effect, Exchange, Failure, Judge, LogEnd, RewritePlan, SegmentDraft, read_manifest, remove,
};
use crate::read::{SealedMeta, SealedSegment, Segment, SegmentCache, build_pending_indexes, build_trees};
use crate::types::{Error, ErrorKind, IndexProgress, Position, options};

use super::throttle::{OnProgress, Throttle};

/// A sealed segment, and its entry in MANIFEST.
pub(crate) type SealedEntry = (Arc<Segment>, SegmentEntry);

/// The exclusive right to rewrite a store's segments.
pub(crate) struct Rewriting<'a> {
    engine: &'a Engine,
    segment_cache: &'a Arc<SegmentCache>,
    /// The position of the event that ordered removals, once it is announced.
    order: u64,
    /// Files of replaced segments that could not be removed.
    unremoved: Vec<String>,
    /// Events were removed or erased, and the history revision is not raised yet.
    has_changed: bool,
    /// Called before the first segment is written anew.
    announce: Option<Announce<'a>>,
    _alone: MutexGuard<'a, ()>,
}

/// Announces that events will go, and returns the position of the announcement. An error keeps the events.
pub(crate) type Announce<'a> = Box<dyn FnOnce() -> Result<Position, Error> + 'a>;

/// Raises the history revision on every way out: after an error, a cancellation or a panic, too.
impl Drop for Rewriting<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.raise_history() {
            tracing::warn!(%error, "the history revision was not raised; the next opening does it");
        }
    }
}

/// What rewriting one group did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rewritten {
    /// No event was removed or erased, and no segments were merged.
    Unchanged,
    /// The group was replaced by one segment of this many bytes.
    Replaced(u32),
}

impl<'a> Rewriting<'a> {
    /// Waits until no other rewriting runs.
    ///
    /// # Errors
    ///
    /// Those of a store that takes no appends.
    pub(crate) fn begin(engine: &'a Engine) -> Result<Rewriting<'a>, Error> {
        engine.check_writable()?;
        Ok(Rewriting::alone(engine, engine.rewriting.lock()))
    }

    /// As [`Rewriting::begin`] without waiting; `None` if another rewriting runs.
    pub(crate) fn try_begin(engine: &'a Engine) -> Result<Option<Rewriting<'a>>, Error> {
        engine.check_writable()?;
        Ok(engine.rewriting.try_lock().map(|alone| Rewriting::alone(engine, alone)))
    }

    fn alone(engine: &'a Engine, alone: MutexGuard<'a, ()>) -> Rewriting<'a> {
        let segment_cache =
            engine.segment_cache.as_ref().expect("a store that can be written to has a segment cache");
        Rewriting {
            engine,
            segment_cache,
            order: 0,
            unremoved: Vec::new(),
            has_changed: false,
            announce: None,
            _alone: alone,
        }
    }

    /// Sets what is called once, before the first new segment is written: attestations name the announcement.
    /// Without room on the disk for that segment, nothing is announced.
    pub(crate) fn announce_with(&mut self, announce: Announce<'a>) {
        self.announce = Some(announce);
    }

    /// Seals the live segment, so that it can be rewritten.
    pub(crate) fn roll(&self) -> Result<(), Error> {
        self.engine.maintain(Maintenance::Roll).map(drop)
    }

    /// The segments that can be rewritten, in order, with their entries in MANIFEST. The list ends before the
    /// first segment that MANIFEST does not list yet.
    ///
    /// # Errors
    ///
    /// Those of reading MANIFEST.
    pub(crate) fn sealed(&self) -> Result<Vec<SealedEntry>, Error> {
        let engine = self.engine;
        build_pending_indexes(&engine.view, self.segment_cache);
        let Some((manifest, _)) = read_manifest(engine.disk.as_ref())? else { return Ok(Vec::new()) };
        let segments = engine.snapshot()?.segments;
        let whole =
            segments.iter().filter(|segment| segment.as_sealed().is_some_and(SealedSegment::is_whole));
        let whole: Vec<&Arc<Segment>> = whole.collect();
        let pairs = whole.into_iter().zip(manifest.sealed);
        let pairs = pairs.take_while(|(segment, sealed)| segment.id() == sealed.id);
        Ok(pairs.map(|(segment, sealed)| (segment.clone(), sealed)).collect())
    }

    /// Whether the store has this directory.
    pub(crate) fn has_directory(&self, directory: &str) -> Result<bool, Error> {
        let listed = if_there(self.engine.disk.list(directory));
        Ok(listed.map_err(|error| Error::io("cannot list", directory, error))?.is_some())
    }

    /// Rewrites neighbouring segments as one.
    ///
    /// # Errors
    ///
    /// Those of reading and writing. Then no segment is replaced, unless the store is poisoned.
    pub(crate) fn rewrite(&mut self, old: &[SealedEntry], judge: &mut dyn Judge) -> Result<Rewritten, Error> {
        let engine = self.engine;
        let disk = engine.disk.as_ref();
        let files = old.iter().map(|(segment, _)| segment.file().cloned());
        let mut plan = RewritePlan {
            disk,
            sources: &files.collect::<Result<Vec<_>, Error>>()?,
            streams_created: old.iter().map(|(_, listed)| listed.annotations.streams_created()).sum(),
            order: self.order,
            now: options::read(&engine.options.clock),
        };
        plan.check_space()?;
        if let Some(announce) = self.announce.take() {
            self.order = announce()?.get();
            plan.order = self.order;
        }
        let draft = plan.write(judge)?;
        if draft.effect() == Effect::None && old.len() == 1 {
            return Ok(Rewritten::Unchanged);
        }
        let effect = draft.effect();
        let chain_before = draft.header().chain_before;
        self.check_and_index(&draft)?;
        let with = self.name_draft(draft)?;
        let ids: Vec<SegmentId> = old.iter().map(|(segment, _)| segment.id()).collect();
        let exchange = Exchange { old: ids.clone(), with: with.clone(), effect };
        // Set before the exchange, because a failed exchange may still have changed history.
        self.has_changed |= effect == Effect::History;
        engine
            .maintain(Maintenance::Exchange(exchange))
            .inspect_err(|error| self.remove_unlisted(with.id, error))?;
        let listed = SealedMeta::sealed(&with, *self.segment_cache.origin(), chain_before);
        let new = Segment::sealed(SealedSegment::new(self.segment_cache.clone(), listed));
        let new = Arc::new(new);
        let replaced = engine.view.replace_rewritten(&ids, new.clone(), effect);
        let all = replaced.iter().chain(old.iter().map(|(segment, _)| segment));
        all.filter_map(|segment| segment.as_sealed()).for_each(SealedSegment::retire);
        ids.iter().for_each(|id| self.remove(*id));
        if self.segment_cache.has_trees {
            build_trees(&[new]);
        }
        Ok(Rewritten::Replaced(with.length))
    }

    /// Reads the draft back, and writes its index on the way.
    fn check_and_index(&self, draft: &SegmentDraft<'_>) -> Result<(), Error> {
        let with = draft.entry();
        let listed = SealedMeta::sealed(&with, *self.segment_cache.origin(), draft.header().chain_before);
        let mut index = LiveIndex::new(LogEnd::before(draft.header()).offset);
        draft.check(|file, offset, frame, _| index.insert(file, offset, frame))?;
        index.finish(listed.bound.end);
        self.segment_cache.write_index(&index, &listed.bound);
        Ok(())
    }

    fn name_draft(&self, draft: SegmentDraft<'_>) -> Result<SegmentEntry, Error> {
        draft.name().map_err(|failure| match failure {
            Failure::Refused(error) => error,
            // The rename may be lost: the next sync of the directory must not report it durable, so the store
            // is poisoned.
            Failure::Poison(error) => {
                let _ = self.engine.maintain(Maintenance::Poison(error.clone()));
                error
            }
        })
    }

    /// Removes a new segment that MANIFEST does not list. If that is uncertain, the next opening decides.
    fn remove_unlisted(&self, id: SegmentId, error: &Error) {
        let uncertain = [ErrorKind::Poisoned, ErrorKind::CommitUnknown, ErrorKind::Closed, ErrorKind::Forked];
        if !uncertain.contains(&error.kind()) {
            let disk = self.engine.disk.as_ref();
            drop(remove(disk, &id.path()));
            id.side_paths().iter().for_each(|path| drop(remove(disk, path)));
        }
    }

    fn remove(&mut self, id: SegmentId) {
        let [index, tree] = id.side_paths();
        for path in [id.path(), index, tree] {
            if let Err(error) = remove(self.engine.disk.as_ref(), &path) {
                tracing::warn!(%error, "a rewritten segment's file was not removed; the next opening tries again");
                self.unremoved.push(path);
            }
        }
    }

    /// Syncs a directory, so that removals in it are durable.
    pub(crate) fn sync_names(&self, directory: &str) -> Result<(), Error> {
        let synced = self.engine.disk.sync_directory(directory);
        synced.map_err(|error| {
            let error = Error::io("cannot sync", directory, error);
            let _ = self.engine.maintain(Maintenance::Poison(error.clone()));
            error
        })
    }

    /// Voids the states that were folded so far, if events were removed or erased.
    ///
    /// # Errors
    ///
    /// Those of a store that takes no appends. Then the next opening raises the revision.
    pub(crate) fn raise_history(&mut self) -> Result<(), Error> {
        if !std::mem::take(&mut self.has_changed) {
            return Ok(());
        }
        let history = self.engine.maintain(Maintenance::Raise)?;
        self.engine.view.set_history(history);
        self.engine.view.wake();
        Ok(())
    }

    /// Checks that nothing is left of the replaced segments, durably.
    pub(crate) fn check_removed(&mut self) -> Result<(), Error> {
        for path in std::mem::take(&mut self.unremoved) {
            remove(self.engine.disk.as_ref(), &path)?;
        }
        self.sync_names(SEGMENTS_DIRECTORY)
    }
}

/// Builds all index files and the existing tree files again, and returns how many segments have them.
/// Segments that were sealed a moment ago are included.
pub(crate) fn rebuild_indexes<'a>(
    engine: &Engine,
    on_progress: OnProgress<'a, IndexProgress>,
) -> Result<usize, Error> {
    engine.check_writable()?;
    let segment_cache =
        engine.segment_cache.as_ref().expect("a store that can be written to has a segment cache");
    build_pending_indexes(&engine.view, segment_cache);
    let snapshot = engine.snapshot()?;
    let sealed: Vec<&SealedSegment> = snapshot
        .segments
        .iter()
        .filter_map(|segment| segment.as_sealed())
        .filter(|segment| segment.is_whole())
        .collect();
    const CANCELLED: &str = "building indexes was broken off, as asked; those that were built are there";
    let mut throttle = Throttle::new(Some(on_progress), None, CANCELLED);
    throttle.expect(sealed.iter().copied().map(indexed_bytes).sum());
    throttle.progress.segments_total = sealed.len();
    for segment in &sealed {
        throttle.report()?;
        segment.rebuild()?;
        segment.rebuild_tree()?;
        throttle.progress.segments += 1;
        throttle.add(indexed_bytes(segment));
    }
    let alone = segment_cache.lock_index_builds();
    for part in engine.snapshot()?.segments.iter().filter_map(|segment| segment.as_sealed()) {
        // The live segment has an index file as well, if the store was closed and opened again.
        if !part.is_whole() {
            part.rebuild_part(&alone)?;
        }
    }
    drop(alone);
    // All files are built: a cancellation comes too late.
    let _ = throttle.report();
    Ok(sealed.len())
}

/// The bytes of the segment that its index covers.
fn indexed_bytes(segment: &SealedSegment) -> u64 {
    segment.meta().bound.end.into()
}
