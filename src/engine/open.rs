//! Opening: walks the log after the segments that MANIFEST lists, and builds what readers and the writer
//! need.
//!
//! The room `log` decides what is valid in a log, and what is repaired.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::disk::{Access, Disk, DiskFile};
use crate::engine::decide::Heads;
use crate::format::{Damage, Frame, FrameHeader, Manifest, Mark, SEGMENTS_DIRECTORY, SegmentId, genesis};
use crate::index::{Bound, SealedIndex, SegmentIndex};
use crate::log::{
    FRAME_BYTES_MAX, Log, LogEnd, LogOptions, Purpose, Recovered, SegmentFile, Stamp, create_store, list,
    read_manifest, recover,
};
use crate::read::{Budgets, ChainPosition, SealedMeta, SealedSegment, Segment, SegmentCache};
use crate::threads::BackgroundThread;
use crate::types::{
    Error, KeyWindow, OpenProgress, OpenReport, OpenWatcher, Options, Position, options, to_usize,
};

/// A store that was loaded to write.
pub(crate) struct Writable {
    pub(crate) log: Log,
    pub(crate) heads: Heads,
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) segment_cache: Arc<SegmentCache>,
    pub(crate) streams: u64,
    pub(crate) store_id: [u8; 16],
    pub(crate) history: u64,
    pub(crate) report: OpenReport,
}

/// A store that was loaded to read.
pub(crate) struct Readable {
    pub(crate) streams: u64,
    pub(crate) history: u64,
    pub(crate) segments: Vec<Arc<Segment>>,
    /// `None` if the store is damaged.
    pub(crate) segment_cache: Option<Arc<SegmentCache>>,
    pub(crate) head: ChainPosition,
    pub(crate) store_id: [u8; 16],
    pub(crate) report: OpenReport,
    /// Where to follow the writer from. `None` if the store is damaged.
    pub(crate) end: Option<ReadEnd>,
}

/// How far a store was read.
pub(crate) struct ReadEnd {
    pub(crate) tip: Option<LogEnd>,
    pub(crate) mark: Option<Mark>,
    pub(crate) loader: SegmentLoader,
}

/// Opens for writing; the lock is held. Creates a store if there is none.
pub(crate) fn load_to_write(
    disk: &Arc<dyn Disk>,
    options: &Options,
    background: &Arc<BackgroundThread>,
) -> Result<Writable, Error> {
    let started = Instant::now();
    let log_options = LogOptions {
        segment_bytes_max: options.segment_bytes_max,
        unsynced_bytes_max: options.unsynced_bytes_max,
    };
    let now = options::read(&options.clock);
    let mut created = false;
    let (mut recovered, mut loader) = loop {
        match walk(disk, Purpose::Write, options)? {
            Some(walked) => break walked,
            None => create_store(disk.as_ref(), &log_options, now)?,
        }
        created = true;
    };
    for sealed in &mut recovered.newly_sealed {
        sealed.annotations = sealed.annotations.with_streams_created(loader.streams_begun_in(sealed.id));
    }
    let segment_cache = new_segment_cache(disk, &recovered, options, Some(background));
    let log = Log::resume(disk.clone(), log_options, &mut recovered, now)?;
    let heads = loader.heads(options.key_window, first_seen(&recovered));
    let segments = loader.segments(&recovered, &segment_cache);
    let mut report = recovered.report;
    report.created = created;
    report.recorded_ahead = options::ahead(log.written().recorded_at, now);
    report.segments = recovered.manifest.sealed.len() + recovered.segments.len();
    report.steps.push(("all", started.elapsed()));
    tracing::info!(%report, "opened");
    let history = log.history_revision();
    let store_id = recovered.manifest.store_id;
    Ok(Writable { log, heads, segments, segment_cache, streams: loader.streams, store_id, history, report })
}

/// The position from which on the walk has seen every event.
fn first_seen(recovered: &Recovered) -> Position {
    let listed = recovered.manifest.sealed.last().map_or(0, |last| last.last_position);
    Position::from(recovered.indexed.map_or(listed, |indexed| indexed.position)).plus(1)
}

/// Opens for reading, and changes nothing. Beside a writer, reads up to the end that MARK says is durable.
pub(crate) fn load_to_read(disk: &Arc<dyn Disk>, options: &Options) -> Result<Readable, Error> {
    let started = Instant::now();
    let (mut recovered, loader) = find_to_read(disk, options)?;
    let segment_cache = new_segment_cache(disk, &recovered, options, None);
    let recorded_at = recovered.end.as_ref().map_or(0, |tip| tip.recorded_at);
    recovered.report.recorded_ahead = options::ahead(recorded_at, options::read(&options.clock));
    recovered.report.steps.push(("all", started.elapsed()));
    Ok(readable(recovered, loader, segment_cache))
}

/// Loads again a store that is read beside its writer, up to the end that MARK says is durable.
pub(crate) fn load_beside_writer(
    disk: &Arc<dyn Disk>,
    segment_cache: &Arc<SegmentCache>,
) -> Result<Readable, Error> {
    let (recovered, loader) = find_beside_writer(disk, &Options::default())?;
    Ok(readable(recovered, loader, segment_cache.clone()))
}

fn readable(recovered: Recovered, mut loader: SegmentLoader, segment_cache: Arc<SegmentCache>) -> Readable {
    let segments = loader.segments(&recovered, &segment_cache);
    let Recovered { manifest, end: tip, mark, report, .. } = recovered;
    Readable {
        streams: loader.streams,
        history: manifest.history_revision,
        segments,
        segment_cache: Some(segment_cache),
        head: tip.as_ref().map(ChainPosition::from).unwrap_or_default(),
        store_id: manifest.store_id,
        report,
        end: Some(ReadEnd { tip, mark, loader }),
    }
}

/// An empty segment cache. It writes index files only for a writer, who gives it a background thread.
fn new_segment_cache(
    disk: &Arc<dyn Disk>,
    recovered: &Recovered,
    options: &Options,
    background: Option<&Arc<BackgroundThread>>,
) -> Arc<SegmentCache> {
    let budgets =
        Budgets { index_bytes: options.index_memory_bytes, segment_bytes: options.segment_memory_bytes };
    let writes = background.is_some();
    let background = background.cloned().unwrap_or_default();
    let stores = stores_of(&recovered.manifest);
    Arc::new(SegmentCache::new(disk.clone(), stores, writes, budgets, background))
}

/// The stores that a log's segments may belong to, oldest first.
fn stores_of(manifest: &Manifest) -> Vec<[u8; 16]> {
    let origins = manifest.lineage.iter().map(|lineage| lineage.store_id);
    origins.chain([manifest.store_id]).collect()
}

/// Reads a store without the lock, so a writer may come at any moment.
///
/// Without a writer, everything valid counts. If a writer came during the walk, the walk may have seen half
/// of the old files and half of the new ones. They look damaged, or hold what the writer has cut. Then only
/// the part up to MARK counts, which no writer takes back. The walk may also meet files that the writer
/// creates or renames, so a failure counts only if nothing moved.
fn find_to_read(disk: &Arc<dyn Disk>, options: &Options) -> Result<(Recovered, SegmentLoader), Error> {
    let before = Stamp::of(disk.as_ref())?;
    if !before.is_locked {
        let loaded = walk_store(disk, Purpose::Read, options);
        // Compared before the result counts: even a success may mix old and new files.
        if Stamp::of(disk.as_ref())? == before {
            return loaded;
        }
    }
    find_beside_writer(disk, options)
}

fn walk_store(
    disk: &Arc<dyn Disk>,
    purpose: Purpose,
    options: &Options,
) -> Result<(Recovered, SegmentLoader), Error> {
    walk(disk, purpose, options)?.ok_or_else(Error::no_store)
}

/// Reads a store beside its writer, up to MARK.
///
/// A writer that rewrites segments removes files that the MANIFEST before lists, at any moment. So the walk
/// begins again as long as each try fails in another way, up to a limit. Damage stays where it is, and fails
/// the same way.
fn find_beside_writer(disk: &Arc<dyn Disk>, options: &Options) -> Result<(Recovered, SegmentLoader), Error> {
    const SAME_FAILURES_MAX: u32 = 3;
    const GIVE_UP_AFTER: Duration = Duration::from_secs(10);
    let began = Instant::now();
    let mut same_failures = 0;
    let mut last_failure = String::new();
    let mut before = Stamp::of(disk.as_ref())?;
    loop {
        let error = match walk_store(disk, Purpose::ReadBesideWriter, options) {
            Err(error) => error,
            loaded => return loaded,
        };
        let now = Stamp::of(disk.as_ref())?;
        let failure = error.to_string();
        same_failures = if failure == last_failure { same_failures + 1 } else { 1 };
        if now == before || same_failures > SAME_FAILURES_MAX || began.elapsed() > GIVE_UP_AFTER {
            return Err(error);
        }
        before = now;
        last_failure = failure;
    }
}

/// Walks the log. `None` if there is no store.
fn walk(
    disk: &Arc<dyn Disk>,
    purpose: Purpose,
    options: &Options,
) -> Result<Option<(Recovered, SegmentLoader)>, Error> {
    let progress = match &options.open_watcher {
        Some(watcher) => Some(ProgressReport::new(disk.as_ref(), watcher.clone())?),
        None => None,
    };
    let loader = SegmentLoader { segments: Vec::new(), indexed: None, streams: 0, progress };
    let loader = RefCell::new(loader);
    let indexed_end = |manifest: &Manifest, file: &Arc<SegmentFile>, mark: &Mark| {
        let part = indexed_part(disk, manifest, file, mark)?;
        let end = part.end;
        loader.borrow_mut().begin_behind(part);
        Some(end)
    };
    let recovered = recover(disk.as_ref(), purpose, &indexed_end, &mut |segment, offset, frame, tip| {
        loader.borrow_mut().visit(segment, offset, frame, tip.position)
    })?;
    let loader = SegmentLoader { progress: None, ..loader.into_inner() };
    Ok(recovered.map(|recovered| (recovered, loader)))
}

/// The part of the last segment that its index file covers.
struct IndexedPart {
    file: Arc<SegmentFile>,
    /// Open, because the writer replaces the name.
    index_file: Arc<dyn DiskFile>,
    end: LogEnd,
    /// How many streams begin in the part.
    streams_created: u32,
}

/// The part of the last segment that its index file covers.
///
/// `None` if there is no such file, or if MARK does not prove all of the part. `None` also if the frame in
/// front of the end is not the one that the file names. Then the segment is walked from its beginning.
fn indexed_part(
    disk: &Arc<dyn Disk>,
    manifest: &Manifest,
    file: &Arc<SegmentFile>,
    mark: &Mark,
) -> Option<IndexedPart> {
    let path = mark.segment.index_path();
    let index_file: Arc<dyn DiskFile> = Arc::from(disk.open(&path, Access::Read).ok()?);
    let bound = SealedIndex::bound_of(index_file.as_ref(), &path).ok()?.ok()?;
    let is_of_segment = bound.store_id == *stores_of(manifest).first()? && bound.segment == mark.segment;
    // An index vouches for nothing. What MARK does not prove must be walked.
    let is_proven = match bound.end.cmp(&mark.durable_end) {
        Ordering::Less => bound.last_position < mark.position,
        Ordering::Equal => (bound.last_position, bound.chain) == (mark.position, mark.chain),
        Ordering::Greater => false,
    };
    if !is_of_segment || !is_proven {
        return None;
    }
    let index = SealedIndex::open(index_file.clone(), &path, &bound).ok()?.ok()?;
    let end = LogEnd {
        offset: bound.end,
        position: bound.last_position,
        recorded_at: recorded_at_end(&index, file, &bound)?,
        chain: bound.chain,
        frames: index.frames(),
        events: index.events(),
    };
    Some(IndexedPart { file: file.clone(), index_file, end, streams_created: index.streams_created() })
}

/// When the last frame in front of the end of an index was recorded. `None` if no whole frame ends there with
/// the position and the chain that the index names.
fn recorded_at_end(index: &SealedIndex, file: &Arc<SegmentFile>, bound: &Bound) -> Option<u64> {
    let last = index.ordinals().end.checked_sub(1)?;
    let range = index.locate(last).ok()??.frame;
    if range.end != bound.end || to_usize(range.end.checked_sub(range.start)?) > FRAME_BYTES_MAX {
        return None;
    }
    let block = file.block(range.clone()).ok()?;
    let header = block.frame(file, range.start).ok()?.header;
    let first_position = file.header.id.first_position.saturating_add(header.position_offset().into());
    let is_last = header.frame_bytes() == range.len()
        && header.chain() == bound.chain
        && first_position.saturating_add(header.events().into()) == bound.last_position.saturating_add(1);
    is_last.then_some(header.recorded_at())
}

/// Reports the progress of a walk to the caller that opens the store.
struct ProgressReport {
    watcher: OpenWatcher,
    started: Instant,
    /// Frames until the next report.
    frames_left: u32,
    progress: OpenProgress,
}

/// The frames of some milliseconds.
const FRAMES_PER_REPORT: u32 = 4096;

impl ProgressReport {
    fn new(disk: &dyn Disk, watcher: OpenWatcher) -> Result<ProgressReport, Error> {
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
        Ok(ProgressReport { watcher, started: Instant::now(), frames_left: 0, progress })
    }

    fn frame(&mut self, header: &FrameHeader<'_>) -> Result<(), Error> {
        self.progress.bytes += u64::try_from(header.frame_bytes()).unwrap_or(u64::MAX);
        self.progress.events += u64::from(header.events());
        if self.frames_left > 0 {
            self.frames_left -= 1;
            return Ok(());
        }
        self.frames_left = FRAMES_PER_REPORT;
        self.progress.elapsed = self.started.elapsed();
        match (self.watcher)(&self.progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::cancelled()),
        }
    }
}

/// Builds segments, as readers see them, from the frames of a walk.
pub(crate) struct SegmentLoader {
    /// The segments of the walk so far.
    segments: Vec<Arc<Segment>>,
    /// The part of the last segment in front of the walk.
    indexed: Option<IndexedPart>,
    /// How many streams there are.
    streams: u64,
    progress: Option<ProgressReport>,
}

impl SegmentLoader {
    /// The heads and keys of the walked segments, for the writer.
    fn heads(&self, window: KeyWindow, since: Position) -> Heads {
        let mut heads = Heads::new(window, since);
        for segment in &self.segments {
            // In front of `since` the heads look into the indexes.
            if segment.first_position() < since.get() {
                continue;
            }
            let Some((_, index)) = segment.as_live() else { continue };
            let index = index.read();
            for (entity, version, ordinal) in index.heads() {
                heads.load(entity, version.into(), segment.position(ordinal).into());
            }
            for (key, ordinal) in index.keys() {
                heads.load_key(*key, segment.position(ordinal).into());
            }
        }
        heads
    }

    /// How many streams there are.
    pub(crate) fn streams(&self) -> u64 {
        self.streams
    }

    /// The segment of a file, which is made if the file is new.
    pub(crate) fn enter(&mut self, file: &Arc<SegmentFile>) -> Arc<Segment> {
        if let Some(segment) = self.segments.last().filter(|segment| segment.is_live_in(file)) {
            return segment.clone();
        }
        let segment = Arc::new(Segment::live(file.clone(), &self.walk_start(file)));
        self.segments.push(segment.clone());
        segment
    }

    /// Begins the walk of a segment behind the part that its index file covers.
    fn begin_behind(&mut self, part: IndexedPart) {
        self.streams += u64::from(part.streams_created);
        self.indexed = Some(part);
    }

    /// Where the walk of a segment begins.
    fn walk_start(&self, file: &Arc<SegmentFile>) -> LogEnd {
        let indexed = self.indexed.as_ref().filter(|part| Arc::ptr_eq(&part.file, file));
        indexed.map_or_else(|| LogEnd::start(file), |part| part.end)
    }

    /// How many streams begin in a segment behind those that MANIFEST lists.
    fn streams_begun_in(&self, id: SegmentId) -> u32 {
        let indexed = self.indexed.iter().filter(|part| part.file.header.id == id);
        let walked = self.segments.iter().filter_map(|segment| segment.as_live());
        let walked = walked.filter(|(file, _)| file.header.id == id);
        indexed.map(|part| part.streams_created).sum::<u32>()
            + walked.map(|(_, index)| index.read().streams_created()).sum::<u32>()
    }

    /// All segments as readers see them: those that MANIFEST lists, and those of the walk.
    fn segments(&mut self, recovered: &Recovered, segment_cache: &Arc<SegmentCache>) -> Vec<Arc<Segment>> {
        let mut all = Vec::with_capacity(recovered.manifest.sealed.len() + recovered.segments.len() + 1);
        let mut chain_before = genesis(segment_cache.origin());
        for sealed in &recovered.manifest.sealed {
            let listed = SealedMeta::sealed(sealed, *segment_cache.origin(), chain_before);
            all.push(Arc::new(Segment::sealed(SealedSegment::new(segment_cache.clone(), listed))));
            chain_before = sealed.chain;
            self.streams += u64::from(sealed.annotations.streams_created().unwrap_or(0));
        }
        let mut walked = std::mem::take(&mut self.segments).into_iter().peekable();
        for file in &recovered.segments {
            let start = self.walk_start(file);
            if let Some(part) = self.indexed.take_if(|part| Arc::ptr_eq(&part.file, file)) {
                let meta = SealedMeta::up_to(&part.end, file, *segment_cache.origin());
                let stored =
                    SealedSegment::with_files(segment_cache.clone(), meta, part.file, part.index_file);
                all.push(Arc::new(Segment::sealed(stored)));
            }
            let met = walked.next_if(|segment| segment.is_live_in(file));
            all.push(met.unwrap_or_else(|| Arc::new(Segment::live(file.clone(), &start))));
        }
        self.segments.extend(all.last().cloned());
        all
    }

    /// Adds a frame of the walk. `last` is the position of its last event.
    ///
    /// # Errors
    ///
    /// If the frame does not continue its streams, or the caller cancels opening.
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
        if let Some(progress) = &mut self.progress {
            progress.frame(&frame.header)?;
        }
        self.streams += u64::from(self.enter(file).insert(std::iter::once((offset, *frame)))?);
        Ok(())
    }
}
