//! Keeps a store that was opened to read up with its writer, which is another process.
//!
//! MARK says how far the writer has made the log durable. When it has moved, the frames up to there are
//! walked, checked and made known, through as many segments as there are; nothing beyond MARK is ever
//! shown, so nothing that is shown is taken back. Whoever reads looks at MARK first; for those who wait a
//! thread looks at it, from the first one on.
//! Invariant: what is published ends where MARK once pointed, or where the store ended when it was opened.
//! Row: follower. Tested by tests/it/read_along.rs.

mod publish;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::disk::{Access, Disk, DiskFile, read_full};
use crate::engine::open::{Found, ReadEnd, Readable, load_again};
use crate::format::{Frame, Mark, SegmentEntry, SegmentId, genesis, mark};
use crate::log::{Ending, LogEnd, SegmentFile, Walk, damaged, manifest_stamp, read_manifest, scan_from};
use crate::read::{End, Listeners, SealedSegment, Segment, SegmentCache, View, event_at, settle};
use crate::threads::WorkerThread;
use crate::types::{Error, ErrorKind, Position, WriterState};

use publish::Batch;

/// Follows the writer of a store.
pub(crate) struct Follower {
    disk: Arc<dyn Disk>,
    view: Arc<View>,
    listeners: Arc<Listeners>,
    store_id: [u8; 16],
    /// Where what is sealed is kept.
    shelf: Arc<SegmentCache>,
    every: Duration,
    state: Mutex<State>,
    /// Looks at MARK for those who wait; started by the first of them.
    poller: WorkerThread,
}

struct State {
    tip: Option<LogEnd>,
    /// The segment the log goes on in; whether the tip is inside, or still in the one before.
    segment: Option<Arc<Segment>>,
    is_inside: bool,
    found: Found,
    mark: Option<Mark>,
    mark_file: Option<(Box<dyn DiskFile>, Instant)>,
    /// How MANIFEST began when it was looked at last.
    manifest: Option<[u8; 64]>,
    /// Up to here the listeners were told. It lags behind the head while telling them has failed.
    told: Position,
    /// Why the writer cannot be followed any more.
    parted: Option<Error>,
}

/// How long an open MARK is taken for the one that has the name: a writer that finds it lost makes a new
/// one.
const MARK_NAME_HOLDS: Duration = Duration::from_secs(1);
/// How often the thread looks whether there still is a writer.
const WRITER_LOOK_EVERY: Duration = Duration::from_millis(100);

impl Follower {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        view: Arc<View>,
        listeners: Arc<Listeners>,
        store_id: [u8; 16],
        shelf: Arc<SegmentCache>,
        every: Duration,
        end: ReadEnd,
    ) -> Follower {
        let opened = view.snapshot();
        let segment = opened.segments.last().cloned();
        let ReadEnd { tip, mark, found } = end;
        let state = State {
            tip,
            is_inside: segment.is_some(),
            segment,
            found,
            mark,
            mark_file: None,
            manifest: None,
            told: opened.head.position,
            parted: None,
        };
        Follower {
            disk,
            view,
            listeners,
            store_id,
            shelf,
            every,
            state: Mutex::new(state),
            poller: WorkerThread::new("annals-follower"),
        }
    }

    /// Makes known what the writer has made durable since. An error of reading may pass; what the writer
    /// cannot be followed after stays.
    pub(crate) fn refresh(&self) -> Result<(), Error> {
        let mut state = self.state.lock();
        if let Some(parted) = &state.parted {
            return Err(parted.clone());
        }
        self.catch_up(&mut state).map_err(|error| self.part(&mut state, error))?;
        // Hints do not keep a reader from what it can read: a failure to tell of it is repaired by the next refresh.
        if let Err(error) = self.tell_since(&mut state.told) {
            tracing::debug!(%error, "the listeners are told by the next refresh");
        }
        Ok(())
    }

    /// How many entities are known.
    pub(crate) fn entities(&self) -> u64 {
        self.state.lock().found.entities()
    }

    /// What can be known of the writer from here.
    pub(crate) fn writer(&self) -> Result<WriterState, Error> {
        if self.disk.is_locked().map_err(|error| Error::io("cannot look at", "LOCK", error))? {
            return Ok(WriterState::Elsewhere);
        }
        self.refresh()?;
        let is_clean = self.state.lock().mark.as_ref().is_some_and(|mark| mark.clean);
        Ok(if is_clean { WriterState::Closed } else { WriterState::Gone })
    }

    fn catch_up(&self, state: &mut State) -> Result<(), Error> {
        let Some(mark) = state.new_mark(self.disk.as_ref(), &self.store_id)? else { return Ok(()) };
        if let Some(manifest) = self.rewritten(state)? {
            return self.look_again(state, manifest);
        }
        let before = state.segment.clone().zip(state.tip);
        match self.follow(state, &mark) {
            Ok(()) => {
                state.mark = Some(mark);
                Ok(())
            }
            Err(error) if error.kind() != ErrorKind::Corrupt => Err(error),
            // What was to be read next may have been rewritten just now.
            Err(error) => match self.rewritten(state)? {
                Some(manifest) => self.look_again(state, manifest),
                None => Err(match &before {
                    Some((segment, tip)) if !self.still_has(segment, tip) => rolled_back(&segment.path()),
                    _ => error,
                }),
            },
        }
    }

    /// How MANIFEST begins, if it lists segments that were rewritten since it was looked at last, or says that
    /// rewriting is over.
    fn rewritten(&self, state: &mut State) -> Result<Option<[u8; 64]>, Error> {
        let manifest = manifest_stamp(self.disk.as_ref())?;
        if manifest == state.manifest {
            return Ok(None);
        }
        let listed = read_manifest(self.disk.as_ref())?;
        let segments = self.view.snapshot().segments;
        let known: BTreeSet<SegmentId> = segments.iter().map(|segment| segment.id()).collect();
        let is_new = |sealed: &SegmentEntry| sealed.id.generation > 0 && !known.contains(&sealed.id);
        let is_rewritten = listed.is_some_and(|(manifest, _)| {
            manifest.history_revision != self.view.history() || manifest.sealed.iter().any(is_new)
        });
        if is_rewritten {
            return Ok(manifest);
        }
        state.manifest = manifest;
        Ok(None)
    }

    /// Begins again with what is there now, which must be the log that was read. If that fails, MANIFEST counts as
    /// not looked at, so that the next refresh begins again as well.
    fn look_again(&self, state: &mut State, manifest: [u8; 64]) -> Result<(), Error> {
        let Readable { segments, head, history, end, .. } = self.loaded_again()?;
        let known = self.view.snapshot();
        let before = known.head;
        // What is known of a file that is still there stays known.
        let is_whole = |segment: &Segment| segment.as_stored().is_some_and(SealedSegment::is_whole);
        let same = |segment: &Arc<Segment>| {
            let mut old = known.segments.iter().filter(|old| is_whole(old) && is_whole(segment));
            old.find(|old| old.id() == segment.id()).cloned()
        };
        let segments: Vec<Arc<Segment>> =
            segments.into_iter().map(|segment| same(&segment).unwrap_or(segment)).collect();
        let found = View::new(segments.clone(), head, 0).snapshot();
        let is_other = match event_at(&found, before.position)? {
            Some(event) => event.chain() != before.chain,
            None => false,
        };
        if head.position < before.position || is_other {
            return Err(rolled_back(mark::NAME));
        }
        state.segment = segments.last().cloned();
        state.is_inside = state.segment.is_some();
        if let Some(ReadEnd { tip, mark, found }) = end {
            (state.tip, state.mark, state.found) = (tip, mark, found);
        }
        self.view.replace(segments, head);
        // In this order: what is folded in between counts as of the history before.
        self.view.set_history(history);
        self.view.wake();
        state.manifest = Some(manifest);
        Ok(())
    }

    /// The writer may rewrite the next segment while this one is looked at; each time there is another MANIFEST.
    fn loaded_again(&self) -> Result<Readable, Error> {
        loop {
            let before = manifest_stamp(self.disk.as_ref())?;
            match load_again(&self.disk, &self.shelf) {
                Err(error)
                    if error.kind() == ErrorKind::Corrupt
                        && manifest_stamp(self.disk.as_ref())? != before => {}
                loaded => return loaded,
            }
        }
    }

    /// Whether what was read before is there as it was. If so what does not fit is damage.
    fn still_has(&self, segment: &Segment, tip: &LogEnd) -> bool {
        let Ok(id) = segment.file().map(|file| file.header.id) else { return false };
        let Ok(file) = SegmentFile::open(self.disk.as_ref(), id, Access::Read) else { return false };
        let mut walk =
            Walk { limit: tip.offset, verify_chain_from: u32::MAX, visit: &mut |_, _, _, _| Ok(()) };
        scan_from(&file, LogEnd::start(&file), &mut walk).is_ok_and(|walked| walked.tip == *tip)
    }

    fn part(&self, state: &mut State, error: Error) -> Error {
        if error.kind() != ErrorKind::Io {
            tracing::error!(%error, "the writer cannot be followed any more");
            state.parted = Some(error.clone());
            self.view.end(End::Parted(error.clone()));
            self.view.wake();
            self.listeners.end();
        }
        error
    }

    /// Walks up to what MARK says, and publishes that.
    fn follow(&self, state: &mut State, mark: &Mark) -> Result<(), Error> {
        let mut batch = Batch::new(self, state.told);
        let walked = self.walk(state, mark, &mut batch);
        match &walked {
            Ok(tip) => batch.publish(tip),
            Err(error) if error.kind() == ErrorKind::RolledBack => {}
            // The next refresh goes on behind the frames that were walked, so they are published now.
            Err(_) => batch.publish_walked(),
        }
        state.told = batch.told;
        walked.map(drop)
    }

    /// Walks up to what MARK says, frame by frame into `batch`, and says where that is.
    fn walk(&self, state: &mut State, mark: &Mark, batch: &mut Batch<'_>) -> Result<LogEnd, Error> {
        let tip = loop {
            let segment = match state.segment.clone() {
                Some(segment) => segment,
                None => self.next_segment(state, mark)?,
            };
            let file = segment.file()?;
            let is_last = file.header.id == mark.segment;
            let tip = state.tip.filter(|_| state.is_inside).unwrap_or_else(|| LogEnd::start(file));
            if is_last && tip.offset > mark.durable_end {
                return Err(rolled_back(&file.path));
            }
            // If reading fails on the way, the next look goes on behind what is known by then.
            let mut reached = tip;
            let found = &mut state.found;
            let mut visit = |_: &SegmentFile, offset, frame: &Frame<'_>, tip: &LogEnd| {
                found.visit(file, offset, frame, tip.position)?;
                batch.add(&segment, frame, tip);
                reached = *tip;
                Ok(())
            };
            let limit = if is_last { mark.durable_end } else { u32::MAX };
            let walk = &mut Walk { limit, verify_chain_from: tip.offset, visit: &mut visit };
            let walked = scan_from(file, tip, walk);
            (state.tip, state.is_inside) = (Some(reached), true);
            let walked = walked?;
            state.tip = Some(walked.tip);
            match walked.ending {
                Ending::Invalid(damage) => {
                    return Err(damaged(&file.path, walked.tip.offset.into(), &damage));
                }
                Ending::Zeros | Ending::Sealed(_) if is_last => break walked.tip,
                Ending::Sealed(_) => state.segment = None,
                Ending::Zeros => return Err(rolled_back(&file.path)),
            }
        };
        if tip.is_at(mark) { Ok(tip) } else { Err(rolled_back(mark::NAME)) }
    }

    /// The segment behind the one that ended, as readers see it.
    fn next_segment(&self, state: &mut State, mark: &Mark) -> Result<Arc<Segment>, Error> {
        let before = state.tip.map_or(0, |tip| tip.position);
        let id = SegmentId { first_position: before.saturating_add(1), generation: 0 };
        // MARK speaks of a segment that stands before this one.
        if mark.segment < id {
            return Err(rolled_back(mark::NAME));
        }
        let file = SegmentFile::open(self.disk.as_ref(), id, Access::Read)?;
        let chain = state.tip.map_or_else(|| genesis(&self.store_id), |tip| tip.chain);
        if file.header.id != id || file.header.chain_before != chain {
            return Err(Error::corrupt(&file.path, 0, "the segment does not continue the one before it"));
        }
        let segment = state.found.enter(&Arc::new(file));
        self.view.add_segment(segment.clone());
        settle(&self.view, &self.shelf);
        (state.segment, state.is_inside) = (Some(segment.clone()), false);
        Ok(segment)
    }

    /// Has a thread look at MARK, for those who wait for more to come.
    pub(crate) fn poll(follower: &Arc<Follower>) -> Result<(), Error> {
        let own = follower.clone();
        let started = follower.poller.start(move || own.run());
        started.map_err(|error| Error::io("cannot start", "the thread that follows", error))
    }

    fn run(&self) {
        let mut looked = Instant::now();
        let mut was_gone = false;
        loop {
            // What keeps the writer from being followed was told to those who wait.
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

    /// Ends the thread, and tells those who wait that the store was closed.
    pub(crate) fn close(&self) {
        self.poller.signal().stop();
        if let Some(Err(_)) = self.poller.join() {
            tracing::error!("the thread that follows panicked");
        }
        self.view.end(End::Closed);
        self.view.wake();
        self.listeners.end();
    }
}

impl State {
    /// MARK, if it has moved since.
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

    /// A slot that is just being written does not fit its checksum; then the other one counts.
    fn read_mark(&mut self, disk: &dyn Disk) -> Result<Option<Mark>, Error> {
        let failed = |error| Error::io("cannot read", mark::NAME, error);
        let file = match self.mark_file.take().filter(|(_, opened)| opened.elapsed() < MARK_NAME_HOLDS) {
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
