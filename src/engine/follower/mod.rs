//! Follows a store's writer in another process, for a store that was opened to read.
//!
//! MARK says how far the writer has made the log durable. When MARK has moved, the follower walks the frames up to
//! there, checks them and publishes them. Nothing after MARK is ever shown, so nothing that is shown is taken back.
//! Every read looks at MARK first. For readers that wait, a thread looks at MARK, once there is such a reader.
//!
//! Invariant: the published head is where MARK once pointed, or where the store ended when it was opened.
//! Tested by tests/it/read_along.rs.

mod publish;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::disk::{Access, Disk, DiskFile, read_full};
use crate::engine::open::{ReadEnd, Readable, SegmentLoader, load_beside_writer};
use crate::format::{Mark, SegmentEntry, SegmentId, genesis, mark};
use crate::log::{LogEnd, SegmentCursor, SegmentEnd, SegmentFile, damaged, manifest_stamp, read_manifest};
use crate::read::{End, Listeners, SealedSegment, Segment, SegmentCache, View, event_at, settle};
use crate::threads::WorkerThread;
use crate::types::{Error, ErrorKind, Position, WriterState};

use publish::{FrameBatch, Publisher};

/// Follows the writer of a store.
pub(crate) struct Follower {
    disk: Arc<dyn Disk>,
    publisher: Publisher,
    store_id: [u8; 16],
    segment_cache: Arc<SegmentCache>,
    /// How often the thread looks at MARK.
    every: Duration,
    followed: Mutex<Followed>,
    /// Looks at MARK for readers that wait. Started by the first of them.
    poller: WorkerThread,
}

/// How far the writer's log was followed.
struct Followed {
    tip: Option<LogEnd>,
    /// The segment with the next frame. `None` if it is not open yet.
    segment: Option<Arc<Segment>>,
    /// Whether the tip is in that segment, or still in the one before.
    is_inside: bool,
    loader: SegmentLoader,
    mark: Option<Mark>,
    /// The open MARK file, and when it was opened.
    mark_file: Option<(Box<dyn DiskFile>, Instant)>,
    /// The first bytes of MANIFEST when it was last read.
    manifest: Option<[u8; 64]>,
    /// The position up to which the listeners were notified. After an error it is behind the head.
    told: Position,
    /// Why the writer cannot be followed any more.
    parted: Option<Error>,
}

/// How long an open MARK file is trusted to have the name still. A writer that finds MARK missing makes a new one.
const MARK_FILE_MAX_AGE: Duration = Duration::from_secs(1);
/// How often the thread checks whether there still is a writer.
const WRITER_LOOK_EVERY: Duration = Duration::from_millis(100);

impl Follower {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        view: Arc<View>,
        listeners: Arc<Listeners>,
        store_id: [u8; 16],
        segment_cache: Arc<SegmentCache>,
        every: Duration,
        end: ReadEnd,
    ) -> Follower {
        let opened = view.snapshot();
        let segment = opened.segments.last().cloned();
        let ReadEnd { tip, mark, loader } = end;
        let followed = Followed {
            tip,
            is_inside: segment.is_some(),
            segment,
            loader,
            mark,
            mark_file: None,
            manifest: None,
            told: opened.head.position,
            parted: None,
        };
        Follower {
            disk,
            publisher: Publisher { view, listeners },
            store_id,
            segment_cache,
            every,
            followed: Mutex::new(followed),
            poller: WorkerThread::new("annals-follower"),
        }
    }

    /// Publishes what the writer has made durable since.
    ///
    /// # Errors
    ///
    /// An error of reading may pass with the next call. Every other error ends the following for good.
    pub(crate) fn refresh(&self) -> Result<(), Error> {
        let mut followed = self.followed.lock();
        if let Some(parted) = &followed.parted {
            return Err(parted.clone());
        }
        self.catch_up(&mut followed).map_err(|error| self.part(&mut followed, error))?;
        // A notification is only a hint: an error must not keep a reader from what it can read. The next refresh
        // notifies.
        if let Err(error) = self.publisher.tell_since(&mut followed.told) {
            tracing::debug!(%error, "the listeners are notified by the next refresh");
        }
        Ok(())
    }

    /// How many entities there are.
    pub(crate) fn entities(&self) -> u64 {
        self.followed.lock().loader.streams()
    }

    /// What this process can know of the writer.
    pub(crate) fn writer(&self) -> Result<WriterState, Error> {
        if self.disk.is_locked().map_err(|error| Error::io("cannot look at", "LOCK", error))? {
            return Ok(WriterState::Elsewhere);
        }
        self.refresh()?;
        let is_clean = self.followed.lock().mark.as_ref().is_some_and(|mark| mark.clean);
        Ok(if is_clean { WriterState::Closed } else { WriterState::Gone })
    }

    fn catch_up(&self, followed: &mut Followed) -> Result<(), Error> {
        let Some(mark) = followed.new_mark(self.disk.as_ref(), &self.store_id)? else { return Ok(()) };
        if let Some(manifest) = self.rewritten(followed)? {
            return self.load_again(followed, manifest);
        }
        let before = followed.segment.clone().zip(followed.tip);
        match self.follow(followed, &mark) {
            Ok(()) => {
                followed.mark = Some(mark);
                Ok(())
            }
            Err(error) if error.kind() != ErrorKind::Corrupt => Err(error),
            // The writer may have rewritten the next segment just now.
            Err(error) => match self.rewritten(followed)? {
                Some(manifest) => self.load_again(followed, manifest),
                None => Err(match &before {
                    Some((segment, tip)) if !self.still_has(segment, tip) => rolled_back(&segment.path()),
                    _ => error,
                }),
            },
        }
    }

    /// The first bytes of MANIFEST, if since the last look it lists rewritten segments, or says that a rewrite has
    /// ended.
    fn rewritten(&self, followed: &mut Followed) -> Result<Option<[u8; 64]>, Error> {
        let manifest = manifest_stamp(self.disk.as_ref())?;
        if manifest == followed.manifest {
            return Ok(None);
        }
        let listed = read_manifest(self.disk.as_ref())?;
        let segments = self.publisher.view.snapshot().segments;
        let known: BTreeSet<SegmentId> = segments.iter().map(|segment| segment.id()).collect();
        let is_new = |sealed: &SegmentEntry| sealed.id.generation > 0 && !known.contains(&sealed.id);
        let is_rewritten = listed.is_some_and(|(manifest, _)| {
            manifest.history_revision != self.publisher.view.history() || manifest.sealed.iter().any(is_new)
        });
        if is_rewritten {
            return Ok(manifest);
        }
        followed.manifest = manifest;
        Ok(None)
    }

    /// Loads the store again. It must hold the log that was read before.
    ///
    /// After an error MANIFEST counts as not read, so the next refresh loads again.
    fn load_again(&self, followed: &mut Followed, manifest: [u8; 64]) -> Result<(), Error> {
        let Readable { segments, head, history, end, .. } = self.load_while_rewritten()?;
        let known = self.publisher.view.snapshot();
        let before = known.head;
        // A sealed segment whose file is the same keeps what is cached of it.
        let is_whole = |segment: &Segment| segment.as_stored().is_some_and(SealedSegment::is_whole);
        let same = |segment: &Arc<Segment>| {
            let mut old = known.segments.iter().filter(|old| is_whole(old) && is_whole(segment));
            old.find(|old| old.id() == segment.id()).cloned()
        };
        let segments: Vec<Arc<Segment>> =
            segments.into_iter().map(|segment| same(&segment).unwrap_or(segment)).collect();
        let loaded = View::new(segments.clone(), head, 0).snapshot();
        let is_other_log = match event_at(&loaded, before.position)? {
            Some(event) => event.chain() != before.chain,
            None => false,
        };
        if head.position < before.position || is_other_log {
            return Err(rolled_back(mark::NAME));
        }
        followed.segment = segments.last().cloned();
        followed.is_inside = followed.segment.is_some();
        if let Some(ReadEnd { tip, mark, loader }) = end {
            followed.tip = tip;
            followed.mark = mark;
            followed.loader = loader;
        }
        self.publisher.view.replace(segments, head);
        // After the segments: a state that a reader folds in between counts as one of the old history.
        self.publisher.view.set_history(history);
        self.publisher.view.wake();
        followed.manifest = Some(manifest);
        Ok(())
    }

    /// Loads the store. Each rewrite during the walk makes another MANIFEST, and then the walk begins again.
    fn load_while_rewritten(&self) -> Result<Readable, Error> {
        loop {
            let before = manifest_stamp(self.disk.as_ref())?;
            match load_beside_writer(&self.disk, &self.segment_cache) {
                Err(error)
                    if error.kind() == ErrorKind::Corrupt
                        && manifest_stamp(self.disk.as_ref())? != before => {}
                loaded => return loaded,
            }
        }
    }

    /// Whether the frames that were read before are still there. If so, a frame after them that does not fit is
    /// damaged.
    fn still_has(&self, segment: &Segment, tip: &LogEnd) -> bool {
        let Ok(id) = segment.file().map(|file| file.header.id) else { return false };
        let Ok(file) = SegmentFile::open(self.disk.as_ref(), id, Access::Read) else { return false };
        let Ok(cursor) = SegmentCursor::new(&file, tip.offset) else { return false };
        let mut cursor = cursor.trusting_chain();
        cursor.visit_frames(|_, _, _| Ok(())).is_ok() && *cursor.end() == *tip
    }

    /// Ends the following, unless the error may pass.
    fn part(&self, followed: &mut Followed, error: Error) -> Error {
        if error.kind() != ErrorKind::Io {
            tracing::error!(%error, "the writer cannot be followed any more");
            followed.parted = Some(error.clone());
            self.publisher.view.end(End::Parted(error.clone()));
            self.publisher.view.wake();
            self.publisher.listeners.end();
        }
        error
    }

    /// Walks up to MARK, and publishes the frames.
    fn follow(&self, followed: &mut Followed, mark: &Mark) -> Result<(), Error> {
        let mut batch = FrameBatch::new(&self.publisher, followed.told);
        let walked = self.walk(followed, mark, &mut batch);
        match &walked {
            Ok(tip) => batch.publish(tip),
            Err(error) if error.kind() == ErrorKind::RolledBack => {}
            // The next refresh begins after the walked frames, so they must be published now.
            Err(_) => batch.publish_walked(),
        }
        followed.told = batch.told;
        walked.map(drop)
    }

    /// Walks up to MARK, frame by frame into `batch`. Returns the end of the log there.
    fn walk(
        &self,
        followed: &mut Followed,
        mark: &Mark,
        batch: &mut FrameBatch<'_>,
    ) -> Result<LogEnd, Error> {
        let tip = loop {
            let segment = match followed.segment.clone() {
                Some(segment) => segment,
                None => self.next_segment(followed, mark)?,
            };
            let file = segment.file()?;
            let is_last = file.header.id == mark.segment;
            let tip = followed.tip.filter(|_| followed.is_inside).unwrap_or_else(|| LogEnd::start(file));
            if is_last && tip.offset > mark.durable_end {
                return Err(rolled_back(&file.path));
            }
            // After an error of reading, the next refresh begins after the last frame that was added.
            let mut reached = tip;
            let loader = &mut followed.loader;
            let limit = if is_last { mark.durable_end } else { u32::MAX };
            let cursor = SegmentCursor::new(file, limit);
            let mut cursor = cursor?.starting_at(tip).verifying_chain_from(tip.offset);
            let walked = cursor.visit_frames(|offset, frame, tip| {
                loader.visit(file, offset, frame, tip.position)?;
                batch.add(&segment, frame, tip);
                reached = *tip;
                Ok(())
            });
            followed.tip = Some(reached);
            followed.is_inside = true;
            let walked = walked?;
            let end = *cursor.end();
            followed.tip = Some(end);
            match walked {
                SegmentEnd::Invalid(damage) => {
                    return Err(damaged(&file.path, end.offset.into(), &damage));
                }
                SegmentEnd::Zeros | SegmentEnd::Sealed(_) if is_last => break end,
                SegmentEnd::Sealed(_) => followed.segment = None,
                SegmentEnd::Zeros => return Err(rolled_back(&file.path)),
            }
        };
        if tip.is_at(mark) { Ok(tip) } else { Err(rolled_back(mark::NAME)) }
    }

    /// Opens the segment after the one that ended.
    fn next_segment(&self, followed: &mut Followed, mark: &Mark) -> Result<Arc<Segment>, Error> {
        let before = followed.tip.map_or(0, |tip| tip.position);
        let id = SegmentId { first_position: before.saturating_add(1), generation: 0 };
        // MARK names a segment before this one.
        if mark.segment < id {
            return Err(rolled_back(mark::NAME));
        }
        let file = SegmentFile::open(self.disk.as_ref(), id, Access::Read)?;
        let chain = followed.tip.map_or_else(|| genesis(&self.store_id), |tip| tip.chain);
        if file.header.id != id || file.header.chain_before != chain {
            return Err(Error::corrupt(&file.path, 0, "the segment does not continue the one before it"));
        }
        let segment = followed.loader.enter(&Arc::new(file));
        self.publisher.view.add_segment(segment.clone());
        settle(&self.publisher.view, &self.segment_cache);
        followed.segment = Some(segment.clone());
        followed.is_inside = false;
        Ok(segment)
    }

    /// Starts the thread that looks at MARK, for readers that wait for new events.
    pub(crate) fn poll(follower: &Arc<Follower>) -> Result<(), Error> {
        let own = follower.clone();
        let started = follower.poller.start(move || own.run());
        started.map_err(|error| Error::io("cannot start", "the thread that follows", error))
    }

    fn run(&self) {
        let mut looked = Instant::now();
        let mut was_gone = false;
        loop {
            // An error that ends the following has reached the waiting readers already.
            let refreshed = self.refresh();
            if looked.elapsed() >= WRITER_LOOK_EVERY {
                looked = Instant::now();
                let is_gone = refreshed.is_ok() && matches!(self.writer(), Ok(WriterState::Gone));
                if is_gone && !was_gone {
                    tracing::warn!(
                        "the writer is gone without having closed the store; waiting for the next one"
                    );
                }
                was_gone = is_gone;
            }
            let signal = self.poller.signal();
            signal.wait(Instant::now().checked_add(self.every));
            if signal.is_stopped() {
                return;
            }
        }
    }

    /// Ends the thread, and tells waiting readers that the store was closed.
    pub(crate) fn close(&self) {
        self.poller.signal().stop();
        if let Some(Err(_)) = self.poller.join() {
            tracing::error!("the thread that follows panicked");
        }
        self.publisher.view.end(End::Closed);
        self.publisher.view.wake();
        self.publisher.listeners.end();
    }
}

impl Followed {
    /// MARK, if it has moved.
    fn new_mark(&mut self, disk: &dyn Disk, store_id: &[u8; 16]) -> Result<Option<Mark>, Error> {
        let Some(mark) = self.read_mark(disk)? else { return Ok(None) };
        if mark.store_id != *store_id {
            return Err(rolled_back(mark::NAME));
        }
        match &self.mark {
            Some(known) if known.sequence == mark.sequence && *known == mark => Ok(None),
            Some(known) if known.sequence >= mark.sequence => Err(rolled_back(mark::NAME)),
            _ => Ok(Some(mark)),
        }
    }

    /// Reads MARK. A slot that the writer is writing does not fit its checksum; then the other slot counts.
    fn read_mark(&mut self, disk: &dyn Disk) -> Result<Option<Mark>, Error> {
        let failed = |error| Error::io("cannot read", mark::NAME, error);
        let file = match self.mark_file.take().filter(|(_, opened)| opened.elapsed() < MARK_FILE_MAX_AGE) {
            Some(file) => file,
            None => match disk.open(mark::NAME, Access::Read) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                opened => (opened.map_err(failed)?, Instant::now()),
            },
        };
        let mut bytes = [0; mark::FILE_BYTES];
        let read = read_full(file.0.as_ref(), &mut bytes, 0).map_err(failed)?;
        self.mark_file = Some(file);
        mark::newest(&bytes[..read]).map_err(|damage| damaged(mark::NAME, 0, &damage))
    }
}

fn rolled_back(file: &str) -> Error {
    let text = format!(
        "{file}: the store is not the one that was read before, or was set back; open it again to read it as it is now"
    );
    Error::new(ErrorKind::RolledBack, text)
}
