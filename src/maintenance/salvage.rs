//! Opens what is left of a damaged store for reading: every whole append whose position and versions fit.
//!
//! Changes nothing. Verifying finds the whole appends; this file makes them readable. What verifying reports
//! is missing.
//!
//! Tested by tests/it/salvage.rs.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};

use crate::disk::{Access, Disk, Holder};
use crate::engine::Readable;
use crate::format::{Frame, SEGMENTS_DIRECTORY, SegmentId, manifest, mark};
use crate::log::{LogEnd, SegmentFile, list, read_manifest, read_mark};
use crate::read::{ChainPosition, Segment};
use crate::types::{Error, ErrorKind, OpenProgress, OpenReport, OpenWatcher, VerifyProgress, to_u64};

use super::verify::{FrameVisitor, Verify, verify_files_as};

/// Reads every whole append, and reports progress to `watcher`. The store must not have a writer.
pub(crate) fn salvage(disk: &dyn Disk, watcher: Option<&OpenWatcher>) -> Result<Readable, Error> {
    if disk.is_locked().map_err(|error| Error::io("cannot look at", "LOCK", error))? {
        return Err(Error::locked(Holder::Unknown));
    }
    check_readable(disk)?;
    let mut kept = Salvaged::default();
    let asked = match watcher {
        Some(tell) => Verify::new().on_progress(|progress| tell(&opening(progress))),
        None => Verify::new(),
    };
    let visit: &mut FrameVisitor<'_> =
        &mut |segment, offset, frame, tip| kept.visit(segment, offset, frame, tip);
    let verified = verify_files_as(disk, visit, asked)?;
    if verified.broken_off {
        return Err(Error::cancelled());
    }
    let nothing = || match verified.findings.first() {
        Some(found) => {
            Error::corrupt(&found.file, found.offset, format!("nothing can be read: {}", found.what))
        }
        None => Error::no_store(),
    };
    let signs = [manifest::NAME, mark::NAME, SEGMENTS_DIRECTORY];
    if !list(disk, "")?.iter().any(|name| signs.contains(&name.as_str())) {
        return Err(Error::no_store());
    }
    let store_id = kept.segments.first().ok_or_else(nothing)?.file()?.header.store_id;
    let report = OpenReport {
        segments: kept.segments.len(),
        appends: kept.appends,
        events: kept.events,
        bytes_read: verified.bytes,
        holes: verified.findings,
        ..OpenReport::default()
    };
    tracing::warn!(%report, "salvaged");
    let Salvaged { segments, versions, head, .. } = kept;
    let entities = to_u64(versions.len());
    Ok(Readable {
        streams: entities,
        history: 0,
        segments,
        segment_cache: None,
        head,
        store_id,
        report,
        end: None,
    })
}

/// Checks that no file has a newer format: such a file is not damaged.
fn check_readable(disk: &dyn Disk) -> Result<(), Error> {
    let is_newer = |error: &Error| error.kind() == ErrorKind::NeedsNewer;
    let small_files = [read_manifest(disk).err(), read_mark(disk).err()];
    if let Some(error) = small_files.into_iter().flatten().find(is_newer) {
        return Err(error);
    }
    // Without a directory of segments, no segment can be newer.
    let names = list(disk, SEGMENTS_DIRECTORY).unwrap_or_default();
    let ids = names.iter().filter_map(|name| SegmentId::parse(name));
    let mut errors = ids.filter_map(|id| SegmentFile::open(disk, id, Access::Read).err());
    errors.find(is_newer).map_or(Ok(()), Err)
}

fn opening(progress: &VerifyProgress) -> OpenProgress {
    let VerifyProgress { bytes, bytes_total, elapsed, .. } = *progress;
    OpenProgress { bytes, bytes_total, elapsed, ..OpenProgress::default() }
}

/// What is readable so far.
#[derive(Default)]
struct Salvaged {
    segments: Vec<Arc<Segment>>,
    /// The last version of each entity.
    versions: HashMap<Box<str>, u64>,
    head: ChainPosition,
    appends: u64,
    events: u64,
}

impl Salvaged {
    /// Keeps a frame if positions and versions grow with it. Otherwise a misplaced or repeated frame would be
    /// read twice; verifying has reported it.
    fn visit(&mut self, segment: &Arc<SegmentFile>, offset: u32, frame: &Frame<'_>, tip: &LogEnd) {
        // A file under another segment's name would make the positions before it look wrong.
        if segment.path != segment.header.id.path() {
            return;
        }
        let header = &frame.header;
        let first = segment.header.id.first_position.saturating_add(header.position_offset().into());
        if first <= self.head.position.get() || !self.learn_versions(frame) {
            return;
        }
        if self.segments.last().is_none_or(|last| !last.is_live_in(segment)) {
            self.segments.push(Arc::new(Segment::live(segment.clone(), &LogEnd::start(segment))));
        }
        let last = self.segments.last().expect("pushed just before");
        if last.insert(std::iter::once((offset, *frame))).is_ok() {
            self.head = ChainPosition { position: tip.position.into(), chain: tip.chain };
            self.appends += 1;
            self.events += u64::from(frame.events_left());
        }
    }

    /// Whether every record is whole, and every version is greater than the last one of its stream.
    fn learn_versions(&mut self, frame: &Frame<'_>) -> bool {
        let header = &frame.header;
        let mut learnt = HashMap::new();
        for record in frame.records() {
            let Ok((index, record)) = record else { return false };
            let entity = record.entity();
            let version = header.version(index, &record);
            let before = learnt.get(entity).or_else(|| self.versions.get(entity)).copied().unwrap_or(0);
            if version <= before {
                return false;
            }
            learnt.insert(Box::from(entity), version);
        }
        self.versions.extend(learnt);
        true
    }
}
