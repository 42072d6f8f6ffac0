//! Opening: walks the log behind what MANIFEST lists, and makes of it what readers and the writer go on from.
//!
//! Row: load. What may stand in a log, and what is repaired, is decided in log/recover.rs.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::disk::{Access, Disk};
use crate::engine::decide::Heads;
use crate::format::{Damage, Frame, FrameHeader, Manifest, Mark, SEGMENTS_DIRECTORY, SegmentId, genesis};
use crate::index::{Bound, SealedIndex, SegmentIndex};
use crate::log::{
    Log, LogEnd, LogOptions, Purpose, Recovered, SegmentFile, Stamp, create_store, list, read_manifest,
    recover,
};
use crate::read::{Budgets, ChainPosition, SealedMeta, SealedSegment, Segment, SegmentCache};
use crate::threads::BackgroundThread;
use crate::types::{Error, KeyWindow, OpenProgress, OpenReport, OpenWatcher, Options, Position, options};

/// A store that can be written on.
pub(crate) struct Writable {
    pub(crate) log: Log,
    pub(crate) ledger: Heads,
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) shelf: Arc<SegmentCache>,
    pub(crate) entities: u64,
    pub(crate) store_id: [u8; 16],
    pub(crate) history: u64,
    pub(crate) report: OpenReport,
}

/// A store that can be read.
pub(crate) struct Readable {
    pub(crate) entities: u64,
    pub(crate) history: u64,
    pub(crate) segments: Vec<Arc<Segment>>,
    /// Where to keep further sealed segments; not if the store is damaged.
    pub(crate) shelf: Option<Arc<SegmentCache>>,
    pub(crate) head: ChainPosition,
    pub(crate) store_id: [u8; 16],
    pub(crate) report: OpenReport,
    /// From where its writer can be followed; not if the store is damaged.
    pub(crate) end: Option<ReadEnd>,
}

/// How far a store was read, and what was found out by then.
pub(crate) struct ReadEnd {
    pub(crate) tip: Option<LogEnd>,
    pub(crate) mark: Option<Mark>,
    pub(crate) found: Found,
}

/// Opens for writing; the lock is held. Creates a store if there is none.
pub(crate) fn load_to_write(
    disk: &Arc<dyn Disk>,
    options: &Options,
    housekeeper: &Arc<BackgroundThread>,
) -> Result<Writable, Error> {
    let started = Instant::now();
    let log_options = LogOptions {
        segment_bytes_max: options.segment_bytes_max,
        unsynced_bytes_max: options.unsynced_bytes_max,
    };
    let now = options::read(&options.clock);
    let mut created = false;
    let (mut recovered, mut found) = loop {
        match walk(disk, Purpose::Write, options)? {
            Some(walked) => break walked,
            None => create_store(disk.as_ref(), &log_options, now)?,
        }
        created = true;
    };
    for sealed in &mut recovered.newly_sealed {
        sealed.remarks = sealed.remarks.with_born(found.born_in(sealed.id));
    }
    let shelf = shelf_of(disk, &recovered, options, Some(housekeeper));
    let log = Log::resume(disk.clone(), log_options, &mut recovered, now)?;
    let ledger = found.ledger(options.key_window, known_from(&recovered));
    let segments = found.segments(&recovered, &shelf);
    let mut report = recovered.report;
    report.created = created;
    report.recorded_ahead = options::ahead(log.written().recorded_at, now);
    report.segments = recovered.manifest.sealed.len() + recovered.segments.len();
    report.steps.push(("all", started.elapsed()));
    tracing::info!(%report, "opened");
    let (entities, store_id) = (found.entities, recovered.manifest.store_id);
    let history = log.history_revision();
    Ok(Writable { log, ledger, segments, shelf, entities, store_id, history, report })
}

/// From where on a walk has seen every event.
fn known_from(recovered: &Recovered) -> Position {
    let listed = recovered.manifest.sealed.last().map_or(0, |last| last.last_position);
    let seen = recovered.tip.filter(|_| recovered.indexed).map_or(listed, |tip| tip.position);
    Position::from(seen).plus(1)
}

/// Opens for reading, and changes nothing. Beside a writer up to what is marked durable.
pub(crate) fn load_to_read(disk: &Arc<dyn Disk>, options: &Options) -> Result<Readable, Error> {
    let started = Instant::now();
    let (mut recovered, found) = find_to_read(disk, options)?;
    let shelf = shelf_of(disk, &recovered, options, None);
    let recorded_at = recovered.tip.as_ref().map_or(0, |tip| tip.recorded_at);
    recovered.report.recorded_ahead = options::ahead(recorded_at, options::read(&options.clock));
    recovered.report.steps.push(("all", started.elapsed()));
    Ok(readable(recovered, found, shelf))
}

/// Looks once more at a store that is read beside its writer: up to what is marked durable.
pub(crate) fn load_again(disk: &Arc<dyn Disk>, shelf: &Arc<SegmentCache>) -> Result<Readable, Error> {
    let (recovered, found) = find_beside_writer(disk, &Options::default())?;
    Ok(readable(recovered, found, shelf.clone()))
}

fn readable(recovered: Recovered, mut found: Found, shelf: Arc<SegmentCache>) -> Readable {
    let segments = found.segments(&recovered, &shelf);
    let Recovered { manifest, tip, mark, report, .. } = recovered;
    Readable {
        entities: found.entities,
        history: manifest.history_revision,
        segments,
        shelf: Some(shelf),
        head: tip.as_ref().map(ChainPosition::from).unwrap_or_default(),
        store_id: manifest.store_id,
        report,
        end: Some(ReadEnd { tip, mark, found }),
    }
}

/// An empty shelf; of a writer, if there is somebody who keeps house for one.
fn shelf_of(
    disk: &Arc<dyn Disk>,
    recovered: &Recovered,
    options: &Options,
    housekeeper: Option<&Arc<BackgroundThread>>,
) -> Arc<SegmentCache> {
    let budgets =
        Budgets { index_bytes: options.index_memory_bytes, segment_bytes: options.segment_memory_bytes };
    let (writes, housekeeper) = (housekeeper.is_some(), housekeeper.cloned().unwrap_or_default());
    let stores = stores_of(&recovered.manifest);
    Arc::new(SegmentCache::new(disk.clone(), stores, writes, budgets, housekeeper))
}

/// The stores that a log's segments may belong to, oldest first.
fn stores_of(manifest: &Manifest) -> Vec<[u8; 16]> {
    let origins = manifest.lineage.iter().map(|lineage| lineage.store_id);
    origins.chain([manifest.store_id]).collect()
}

/// Looks at a store without the lock, so a writer may come at any moment.
///
/// While nobody writes, all that is whole counts. If somebody came meanwhile, what was seen may be
/// half of what was there before and half of what is there now: look like damage, or hold what the
/// writer has cut. Then only what MARK says counts, which no writer takes back. The files MARK speaks of
/// may have been met while they were created or renamed, so a failure counts only if nothing moved.
fn find_to_read(disk: &Arc<dyn Disk>, options: &Options) -> Result<(Recovered, Found), Error> {
    let before = Stamp::of(disk.as_ref())?;
    if !before.is_locked {
        let found = look(disk, Purpose::Read, options);
        if Stamp::of(disk.as_ref())? == before {
            return found;
        }
    }
    find_beside_writer(disk, options)
}

fn look(disk: &Arc<dyn Disk>, purpose: Purpose, options: &Options) -> Result<(Recovered, Found), Error> {
    walk(disk, purpose, options)?.ok_or_else(Error::no_store)
}

/// A writer that rewrites takes away, with each MANIFEST, files that the one before it lists, and may do so between any two looks. So it is
/// tried on as long as something else is wrong each time, up to the end of all patience; damage stays where it is.
fn find_beside_writer(disk: &Arc<dyn Disk>, options: &Options) -> Result<(Recovered, Found), Error> {
    const TRIES: u32 = 3;
    const PATIENCE: Duration = Duration::from_secs(10);
    let (began, mut tries, mut wrong) = (Instant::now(), 0, String::new());
    let mut before = Stamp::of(disk.as_ref())?;
    loop {
        let error = match look(disk, Purpose::ReadBesideWriter, options) {
            Err(error) => error,
            found => return found,
        };
        let (now, what) = (Stamp::of(disk.as_ref())?, error.to_string());
        tries = if what == wrong { tries + 1 } else { 1 };
        if now == before || tries > TRIES || began.elapsed() > PATIENCE {
            return Err(error);
        }
        (before, wrong) = (now, what);
    }
}

fn walk(
    disk: &Arc<dyn Disk>,
    purpose: Purpose,
    options: &Options,
) -> Result<Option<(Recovered, Found)>, Error> {
    let watch = options.open_watcher.clone().map(|tell| Watch::new(disk.as_ref(), tell)).transpose()?;
    let mut found = Found::new(watch);
    let born = Cell::new(0);
    let at_mark = |manifest: &Manifest, file: &Arc<SegmentFile>, mark: &Mark| {
        let (tip, born_there) = at_mark(disk, manifest, file, mark)?;
        born.set(born_there);
        Some(tip)
    };
    let recovered = recover(disk.as_ref(), purpose, &at_mark, &mut |segment, offset, frame, tip| {
        found.visit(segment, offset, frame, tip.position)
    })?;
    found.watch = None;
    found.entities += u64::from(born.get());
    Ok(recovered.map(|recovered| (recovered, found)))
}

/// Where the log stands at MARK and how many streams began in its segment, if the segment was closed with its index: from that, and from the last frame,
/// which must be the one MARK speaks of.
fn at_mark(
    disk: &Arc<dyn Disk>,
    manifest: &Manifest,
    file: &Arc<SegmentFile>,
    mark: &Mark,
) -> Option<(LogEnd, u32)> {
    let path = mark.segment.index_path();
    let index = disk.open(&path, Access::Read).ok()?;
    let bound = Bound {
        store_id: *stores_of(manifest).first()?,
        segment: mark.segment,
        end: mark.durable_end,
        last_position: mark.position,
        chain: mark.chain,
    };
    let index = SealedIndex::open(Arc::from(index), &path, &bound).ok()?.ok()?;
    let last = index.ordinals().end.checked_sub(1)?;
    let place = index.locate(last).ok()??;
    let block = file.block(place.frame.clone()).ok()?;
    let header = block.frame(file, place.frame.start).ok()?.header;
    let is_last = place.frame.end == mark.durable_end && header.chain() == mark.chain;
    let tip = LogEnd {
        offset: mark.durable_end,
        position: mark.position,
        recorded_at: header.recorded_at(),
        chain: mark.chain,
        frames: index.frames(),
        events: index.events(),
    };
    is_last.then_some((tip, index.streams_created()))
}

/// Tells whoever waits for a store to open how far that is.
struct Watch {
    tell: OpenWatcher,
    started: Instant,
    /// Frames until the next word.
    quiet: u32,
    progress: OpenProgress,
}

/// Some milliseconds' worth.
const FRAMES_PER_WORD: u32 = 4096;

impl Watch {
    fn new(disk: &dyn Disk, tell: OpenWatcher) -> Result<Watch, Error> {
        let failed = |error| Error::io("cannot look at", SEGMENTS_DIRECTORY, error);
        let listed = read_manifest(disk)?.and_then(|(manifest, _)| manifest.sealed.last().cloned());
        let is_walked = |name: &String| {
            let first = SegmentId::parse(name).map(|id| id.first_position);
            first.is_some_and(|first| listed.as_ref().is_none_or(|listed| first > listed.last_position))
        };
        let mut bytes_total = 0_u64;
        for name in list(disk, SEGMENTS_DIRECTORY)?.into_iter().filter(is_walked) {
            let file = disk.open(&format!("{SEGMENTS_DIRECTORY}/{name}"), Access::Read).map_err(failed)?;
            bytes_total = bytes_total.saturating_add(file.length().map_err(failed)?);
        }
        let progress = OpenProgress { bytes_total, ..OpenProgress::default() };
        Ok(Watch { tell, started: Instant::now(), quiet: 0, progress })
    }

    fn frame(&mut self, header: &FrameHeader<'_>) -> Result<(), Error> {
        self.progress.bytes += u64::try_from(header.frame_bytes()).unwrap_or(u64::MAX);
        self.progress.events += u64::from(header.events());
        if self.quiet > 0 {
            self.quiet -= 1;
            return Ok(());
        }
        self.quiet = FRAMES_PER_WORD;
        self.progress.elapsed = self.started.elapsed();
        match (self.tell)(&self.progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::cancelled()),
        }
    }
}

/// What a walk over the log finds out.
pub(crate) struct Found {
    /// The segments met so far, as readers see them.
    segments: Vec<Arc<Segment>>,
    /// How many streams there are.
    entities: u64,
    watch: Option<Watch>,
}

impl Found {
    fn new(watch: Option<Watch>) -> Found {
        Found { segments: Vec::new(), entities: 0, watch }
    }

    /// What the writer must know of the segments that were walked.
    fn ledger(&self, window: KeyWindow, since: Position) -> Heads {
        let mut ledger = Heads::new(window, since);
        for segment in &self.segments {
            let Some((_, index)) = segment.as_live() else { continue };
            let (index, position) = (index.read(), |ordinal| Position::from(segment.position(ordinal)));
            index.heads().for_each(|(entity, version, ordinal)| {
                ledger.learn(entity, version.into(), position(ordinal))
            });
            index.keys().for_each(|(key, ordinal)| ledger.learn_key(*key, position(ordinal)));
        }
        ledger
    }

    /// How many entities there are.
    pub(crate) fn entities(&self) -> u64 {
        self.entities
    }

    /// The segment as readers see it; made when it is met first.
    pub(crate) fn enter(&mut self, file: &Arc<SegmentFile>) -> Arc<Segment> {
        if let Some(segment) = self.segments.last().filter(|segment| segment.is_live_in(file)) {
            return segment.clone();
        }
        let segment = Arc::new(Segment::live(file.clone(), &LogEnd::start(file)));
        self.segments.push(segment.clone());
        segment
    }

    /// How many streams begin in a segment that was walked.
    fn born_in(&self, id: SegmentId) -> u32 {
        let born = |segment: &Arc<Segment>| {
            let (file, index) = segment.as_live()?;
            (file.header.id == id).then(|| index.read().streams_created())
        };
        self.segments.iter().find_map(born).unwrap_or(0)
    }

    /// All segments as readers see them: those that are listed, and those behind.
    fn segments(&mut self, recovered: &Recovered, shelf: &Arc<SegmentCache>) -> Vec<Arc<Segment>> {
        let mut all = Vec::with_capacity(recovered.manifest.sealed.len() + recovered.segments.len() + 1);
        let mut chain_before = genesis(shelf.origin());
        for sealed in &recovered.manifest.sealed {
            let listed = SealedMeta::sealed(sealed, *shelf.origin(), chain_before);
            all.push(Arc::new(Segment::sealed(SealedSegment::new(shelf.clone(), listed))));
            chain_before = sealed.chain;
            self.entities += u64::from(sealed.remarks.born().unwrap_or(0));
        }
        let mut met = self.segments.drain(..).peekable();
        for file in &recovered.segments {
            let is_met = |segment: &Arc<Segment>| segment.is_live_in(file);
            match (met.next_if(is_met), recovered.tip.filter(|_| recovered.indexed)) {
                (Some(segment), _) => all.push(segment),
                (None, Some(tip)) => {
                    let listed = SealedMeta::up_to(&tip, file, *shelf.origin());
                    let stored = SealedSegment::with_file(shelf.clone(), listed, file.clone());
                    all.push(Arc::new(Segment::sealed(stored)));
                    all.push(Arc::new(Segment::live(file.clone(), &tip)));
                }
                (None, None) => all.push(Arc::new(Segment::live(file.clone(), &LogEnd::start(file)))),
            }
        }
        drop(met);
        self.segments.extend(all.last().cloned());
        all
    }

    /// Checks a frame against what came before, and makes it known.
    pub(crate) fn visit(
        &mut self,
        file: &Arc<SegmentFile>,
        offset: u32,
        frame: &Frame<'_>,
        last: u64,
    ) -> Result<(), Error> {
        if last == u64::MAX {
            return Err(file.damaged(offset.into(), &Damage::Bad("there is no position left")));
        }
        if let Some(watch) = &mut self.watch {
            watch.frame(&frame.header)?;
        }
        self.entities += u64::from(self.enter(file).insert(std::iter::once((offset, *frame)))?);
        Ok(())
    }
}
