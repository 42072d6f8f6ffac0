//! Opening: walks the log once, and makes of it what readers and the writer go on from.
//!
//! Row: load. What may stand in a log, and what is repaired, is decided in log/recover.rs.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use crate::commit::Ledger;
use crate::disk::{Access, Disk};
use crate::error::Error;
use crate::format::Damage;
use crate::format::frame::{Frame, Header};
use crate::format::mark::Mark;
use crate::format::record::records;
use crate::format::segment::DIRECTORY;
use crate::index::Index;
use crate::log::files::create_store;
use crate::log::recover::{Purpose, Recovered, recover};
use crate::log::scan::Tip;
use crate::log::segment::SegmentFile;
use crate::log::survey::{Stamp, list};
use crate::log::{Log, LogOptions};
use crate::options::{self, KeyWindow, OpenWatcher, Options};
use crate::report::{OpenProgress, OpenReport};
use crate::view::{Point, Segment};

/// A store that can be written on.
pub(crate) struct Writable {
    pub(crate) log: Log,
    pub(crate) ledger: Ledger,
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) store_id: [u8; 16],
    pub(crate) report: OpenReport,
}

/// A store that can be read.
pub(crate) struct Readable {
    pub(crate) entities: usize,
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) head: Point,
    pub(crate) store_id: [u8; 16],
    pub(crate) report: OpenReport,
    /// From where its writer can be followed; not if the store is damaged.
    pub(crate) end: Option<ReadEnd>,
}

/// How far a store was read, and what was found out by then.
pub(crate) struct ReadEnd {
    pub(crate) tip: Option<Tip>,
    pub(crate) mark: Option<Mark>,
    pub(crate) found: Found,
}

/// Opens for writing; the lock is held. Creates a store if there is none.
pub(crate) fn load_to_write(disk: &Arc<dyn Disk>, options: &Options) -> Result<Writable, Error> {
    let started = Instant::now();
    let log_options = LogOptions {
        segment_bytes_max: options.segment_bytes_max,
        unsynced_bytes_max: options.unsynced_bytes_max,
    };
    let now = options::read(&options.clock);
    let mut created = false;
    let (mut recovered, mut found) = loop {
        match walk(disk.as_ref(), Purpose::Write, options)? {
            Some(walked) => break walked,
            None => create_store(disk.as_ref(), &log_options, now)?,
        }
        created = true;
    };
    let log = Log::resume(disk.clone(), log_options, &mut recovered, now)?;
    let mut report = recovered.report;
    report.created = created;
    report.segments = recovered.segments.len();
    report.steps.push(("all", started.elapsed()));
    tracing::info!(%report, "opened");
    let segments = found.segments(&recovered.segments);
    Ok(Writable { log, ledger: found.ledger, segments, store_id: recovered.manifest.store_id, report })
}

/// Opens for reading, and changes nothing. Beside a writer up to what is marked durable.
pub(crate) fn load_to_read(disk: &dyn Disk, options: &Options) -> Result<Readable, Error> {
    let started = Instant::now();
    let (recovered, mut found) = find_to_read(disk, options)?;
    let Recovered { manifest, segments, tip, mark, mut report, .. } = recovered;
    report.steps.push(("all", started.elapsed()));
    Ok(Readable {
        entities: found.entities(),
        segments: found.segments(&segments),
        head: tip.as_ref().map(Point::from).unwrap_or_default(),
        store_id: manifest.store_id,
        report,
        end: Some(ReadEnd { tip, mark, found }),
    })
}

/// Looks at a store without the lock, so a writer may come at any moment.
///
/// While nobody writes, all that is whole counts. If somebody came meanwhile, what was seen may be
/// half of what was there before and half of what is there now: look like damage, or hold what the
/// writer has cut. Then only what MARK says counts, which no writer takes back. The files MARK speaks of
/// may have been met while they were created or renamed, so a failure counts only if nothing moved.
fn find_to_read(disk: &dyn Disk, options: &Options) -> Result<(Recovered, Found), Error> {
    const TRIES: u32 = 3;
    let look = |purpose| walk(disk, purpose, options)?.ok_or_else(Error::no_store);
    let before = Stamp::of(disk)?;
    if !before.is_locked {
        let found = look(Purpose::Read);
        if Stamp::of(disk)? == before {
            return found;
        }
    }
    for _ in 0..TRIES {
        let before = Stamp::of(disk)?;
        let found = look(Purpose::ReadBesideWriter);
        if found.is_ok() || Stamp::of(disk)? == before {
            return found;
        }
    }
    look(Purpose::ReadBesideWriter)
}

fn walk(disk: &dyn Disk, purpose: Purpose, options: &Options) -> Result<Option<(Recovered, Found)>, Error> {
    let watch = options.open_watcher.clone().map(|tell| Watch::new(disk, tell)).transpose()?;
    let mut found = Found::new(options.key_window, watch);
    let recovered = recover(disk, purpose, &mut |segment, offset, frame, tip| {
        found.visit(segment, offset, frame, tip.position)
    })?;
    found.watch = None;
    Ok(recovered.map(|recovered| (recovered, found)))
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
        let failed = |error| Error::io("cannot look at", DIRECTORY, error);
        let mut bytes_total = 0_u64;
        for name in list(disk, DIRECTORY)? {
            let file = disk.open(&format!("{DIRECTORY}/{name}"), Access::Read).map_err(failed)?;
            bytes_total = bytes_total.saturating_add(file.length().map_err(failed)?);
        }
        let progress = OpenProgress { bytes_total, ..OpenProgress::default() };
        Ok(Watch { tell, started: Instant::now(), quiet: 0, progress })
    }

    fn frame(&mut self, header: &Header<'_>) -> Result<(), Error> {
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
    ledger: Ledger,
    /// The position that comes next, and whether one was ever left out.
    next: u64,
    has_gaps: bool,
    /// The segments met so far, as readers see them.
    segments: Vec<Arc<Segment>>,
    watch: Option<Watch>,
}

impl Found {
    fn new(window: KeyWindow, watch: Option<Watch>) -> Found {
        Found { ledger: Ledger::new(window), next: 1, has_gaps: false, segments: Vec::new(), watch }
    }

    /// How many entities there are.
    pub(crate) fn entities(&self) -> usize {
        self.ledger.entities()
    }

    /// The segment as readers see it; made when it is met first.
    pub(crate) fn enter(&mut self, file: &Arc<SegmentFile>) -> Arc<Segment> {
        match self.segments.last() {
            Some(segment) if Arc::ptr_eq(&segment.file, file) => segment.clone(),
            _ => {
                let segment = empty(file);
                self.segments.push(segment.clone());
                segment
            }
        }
    }

    /// All segments as readers see them, those without a frame included.
    fn segments(&mut self, files: &[Arc<SegmentFile>]) -> Vec<Arc<Segment>> {
        let mut met = self.segments.drain(..).peekable();
        let mut of = |file| met.next_if(|segment| Arc::ptr_eq(&segment.file, file));
        let all: Vec<_> = files.iter().map(|file| of(file).unwrap_or_else(|| empty(file))).collect();
        drop(met);
        self.segments.clone_from(&all);
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
        let header = &frame.header;
        let damaged = |damage: Damage| file.damaged(offset.into(), &damage);
        let next = last.checked_add(1).ok_or_else(|| damaged(Damage::Bad("there is no position left")))?;
        let first = next.saturating_sub(header.events().into());
        self.has_gaps |= first != self.next;
        self.next = next;
        for ((index, position), record) in (0..).zip(first..).zip(records(frame.body, header.events())) {
            let record = record.map_err(damaged)?;
            self.learn(record.entity(), header.version(index), position).map_err(damaged)?;
        }
        if let Some(key) = header.key() {
            self.ledger.learn_key(key, first.into());
        }
        if let Some(watch) = &mut self.watch {
            watch.frame(header)?;
        }
        self.enter(file).insert(std::iter::once((offset, *frame)))
    }

    fn learn(&mut self, entity: &str, version: u64, position: u64) -> Result<(), Damage> {
        let before = self.ledger.learn(entity, version.into(), position.into()).get();
        let follows = if self.has_gaps { version > before } else { Some(version) == before.checked_add(1) };
        if !follows {
            return Err(Damage::Bad("an event's version does not follow its stream's last one"));
        }
        // Every version took a position. So versions do not run out before positions do.
        if version > position {
            return Err(Damage::Bad("an event's version is greater than its position"));
        }
        Ok(())
    }
}

fn empty(file: &Arc<SegmentFile>) -> Arc<Segment> {
    Arc::new(Segment::new(file.clone(), Index::new(Tip::start(file).offset)))
}
