//! Has sealed segments written anew while the store is open: one step at a time, each whole before the next.
//!
//! A step writes the new segment and its index beside the old ones, checks it, gives it its name, has the writer list it in
//! MANIFEST, shows it to readers, and removes the old files. Appends wait for MANIFEST only; who reads goes on with
//! the file it has. Between two steps, and after a stop in one, the store is as whole as ever.
//! Invariants: one at a time rewrites a store; only what is sealed, indexed and listed is touched; however it ends, what was
//! folded meanwhile is void.
//! Row: ops. Tested by tests/it/erase.rs and tests/it/compact.rs.

use std::sync::Arc;

use parking_lot::MutexGuard;

use crate::engine::{Engine, Maintenance};
use crate::format::{SEGMENTS_DIRECTORY, SegmentEntry, SegmentId};
use crate::index::Index;
use crate::log::{Draft, Effect, Exchange, Failure, Judge, LogEnd, Plan, read_manifest, remove};
use crate::read::{SealedMeta, SealedSegment, Segment, SegmentCache, settle};
use crate::types::{Error, ErrorKind, options};

/// A sealed segment, and what MANIFEST says of it.
pub(crate) type Entry = (Arc<Segment>, SegmentEntry);

/// The right to rewrite a store's segments.
pub(crate) struct Rewriting<'a> {
    engine: &'a Engine,
    shelf: &'a Arc<SegmentCache>,
    /// What attestations say.
    why: String,
    /// Files of rewritten segments that could not be removed.
    pub(crate) left: Vec<String>,
    /// Something went, and the history revision was not raised yet.
    has_changed: bool,
    /// Told before the first segment is exchanged.
    announce: Option<Announce<'a>>,
    _alone: MutexGuard<'a, ()>,
}

/// Says that something will go; an error keeps it from going.
pub(crate) type Announce<'a> = Box<dyn FnOnce() -> Result<(), Error> + 'a>;

/// However it ends: broken off, by an error or by a panic, too.
impl Drop for Rewriting<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.raise_history() {
            tracing::warn!(%error, "the history revision was not raised; the next opening does it");
        }
    }
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// There was nothing to change.
    Same,
    /// The new segment has so many bytes.
    Done(u32),
}

impl<'a> Rewriting<'a> {
    /// Waits for whoever rewrites the store just now.
    ///
    /// # Errors
    ///
    /// If the store takes no appends.
    pub(crate) fn begin(engine: &'a Engine, why: String) -> Result<Rewriting<'a>, Error> {
        engine.check_writable()?;
        Ok(Rewriting::alone(engine, why, engine.rewriting.lock()))
    }

    /// The same without waiting; `None` if somebody is at it.
    pub(crate) fn try_begin(engine: &'a Engine, why: String) -> Result<Option<Rewriting<'a>>, Error> {
        engine.check_writable()?;
        Ok(engine.rewriting.try_lock().map(|alone| Rewriting::alone(engine, why, alone)))
    }

    fn alone(engine: &'a Engine, why: String, alone: MutexGuard<'a, ()>) -> Rewriting<'a> {
        let shelf = engine.segment_cache.as_ref().expect("a store that can be written to has a shelf");
        Rewriting { engine, shelf, why, left: Vec::new(), has_changed: false, announce: None, _alone: alone }
    }

    /// Calls this once, when the first new segment is whole and before it takes the place of others: without
    /// room for one nothing is announced.
    pub(crate) fn announce_with(&mut self, announce: Announce<'a>) {
        self.announce = Some(announce);
    }

    /// Ends the segment that is written to, so that it can be rewritten.
    pub(crate) fn roll(&self) -> Result<(), Error> {
        self.engine.maintain(Maintenance::Roll).map(drop)
    }

    /// The segments that can be rewritten, in order, each with what MANIFEST says of it: all up to the first that was
    /// sealed just now.
    ///
    /// # Errors
    ///
    /// If MANIFEST cannot be read.
    pub(crate) fn sealed(&self) -> Result<Vec<Entry>, Error> {
        let engine = self.engine;
        settle(&engine.view, self.shelf);
        let Some((manifest, _)) = read_manifest(engine.disk.as_ref())? else { return Ok(Vec::new()) };
        let segments = engine.snapshot()?.segments;
        let whole =
            segments.iter().filter(|segment| segment.as_stored().is_some_and(SealedSegment::is_whole));
        let whole: Vec<&Arc<Segment>> = whole.collect();
        let pairs = whole.into_iter().zip(manifest.sealed);
        let pairs = pairs.take_while(|(segment, sealed)| segment.id() == sealed.id);
        Ok(pairs.map(|(segment, sealed)| (segment.clone(), sealed)).collect())
    }

    /// Whether the store has this directory.
    pub(crate) fn has_directory(&self, directory: &str) -> Result<bool, Error> {
        match self.engine.disk.list(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            listed => listed.map(|_| true).map_err(|error| Error::io("cannot list", directory, error)),
        }
    }

    /// Rewrites segments that follow one another as one.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from being done; then nothing was changed, unless the store is poisoned.
    pub(crate) fn rewrite(&mut self, old: &[Entry], judge: &mut dyn Judge) -> Result<Step, Error> {
        let (engine, disk) = (self.engine, self.engine.disk.as_ref());
        let files = old.iter().map(|(segment, _)| segment.file().cloned());
        let plan = Plan {
            disk,
            sources: &files.collect::<Result<Vec<_>, Error>>()?,
            streams_created: old.iter().map(|(_, listed)| listed.annotations.streams_created()).sum(),
            why: &self.why,
            now: options::read(&engine.options.clock),
        };
        let draft = plan.write(judge)?;
        if draft.effect() == Effect::None && old.len() == 1 {
            return Ok(Step::Same);
        }
        let (effect, chain_before) = (draft.effect(), draft.header().chain_before);
        self.check_and_index(&draft)?;
        self.announce.take().map_or(Ok(()), |announce| announce())?;
        let with = self.named(draft)?;
        let ids: Vec<SegmentId> = old.iter().map(|(segment, _)| segment.id()).collect();
        let exchange = Exchange { old: ids.clone(), with: with.clone(), effect };
        // Whatever comes of it: it may be that history is changed.
        self.has_changed |= effect == Effect::History;
        engine.maintain(Maintenance::Exchange(exchange)).inspect_err(|error| self.forget(with.id, error))?;
        let listed = SealedMeta::sealed(&with, *self.shelf.origin(), chain_before);
        let new = Segment::stored(SealedSegment::new(self.shelf.clone(), listed));
        let replaced = engine.view.exchange_files(&ids, Arc::new(new), effect);
        let all = replaced.iter().chain(old.iter().map(|(segment, _)| segment));
        all.filter_map(|segment| segment.as_stored()).for_each(SealedSegment::retire);
        ids.iter().for_each(|id| self.remove(*id));
        Ok(Step::Done(with.length))
    }

    /// Reads the draft again, and writes its index on the way.
    fn check_and_index(&self, draft: &Draft<'_>) -> Result<(), Error> {
        let with = draft.entry();
        let listed = SealedMeta::sealed(&with, *self.shelf.origin(), draft.header().chain_before);
        let mut index = Index::new(LogEnd::before(draft.header()).offset);
        draft.check(|file, offset, frame, _| index.insert(file, offset, frame))?;
        index.finish(listed.bound.end);
        self.shelf.write_index(&index, &listed.bound);
        Ok(())
    }

    fn named(&self, draft: Draft<'_>) -> Result<SegmentEntry, Error> {
        draft.name().map_err(|failure| match failure {
            Failure::Refused(error) => error,
            // Nobody may take it for durable what the next sync of names says.
            Failure::Poison(error) => {
                let _ = self.engine.maintain(Maintenance::Poison(error.clone()));
                error
            }
        })
    }

    /// MANIFEST does not list what was made. If that is not certain, the next opening decides.
    fn forget(&self, id: SegmentId, error: &Error) {
        let uncertain = [ErrorKind::Poisoned, ErrorKind::CommitUnknown, ErrorKind::Closed, ErrorKind::Forked];
        if !uncertain.contains(&error.kind()) {
            let disk = self.engine.disk.as_ref();
            [id.path(), id.index_path()].iter().for_each(|path| drop(remove(disk, path)));
        }
    }

    fn remove(&mut self, id: SegmentId) {
        for path in [id.path(), id.index_path()] {
            if let Err(error) = remove(self.engine.disk.as_ref(), &path) {
                tracing::warn!(%error, "a rewritten segment's file was not removed; the next opening tries again");
                self.left.push(path);
            }
        }
    }

    /// Makes durable that names are gone.
    pub(crate) fn sync_names(&self, directory: &str) -> Result<(), Error> {
        let synced = self.engine.disk.sync_directory(directory);
        synced.map_err(|error| {
            let error = Error::io("cannot sync", directory, error);
            let _ = self.engine.maintain(Maintenance::Poison(error.clone()));
            error
        })
    }

    /// What was folded so far is void, if something went.
    ///
    /// # Errors
    ///
    /// If the store takes no appends any more. Then the next opening does it.
    pub(crate) fn raise_history(&mut self) -> Result<(), Error> {
        if !std::mem::take(&mut self.has_changed) {
            return Ok(());
        }
        let history = self.engine.maintain(Maintenance::Raise)?;
        self.engine.view.set_history(history);
        self.engine.view.wake();
        Ok(())
    }

    /// That of all rewritten segments nothing is left.
    pub(crate) fn check_removed(&mut self) -> Result<(), Error> {
        for path in std::mem::take(&mut self.left) {
            remove(self.engine.disk.as_ref(), &path)?;
        }
        self.sync_names(SEGMENTS_DIRECTORY)
    }
}
