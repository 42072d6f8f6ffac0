//! Opens what is left of a damaged store, to be read: every whole append that can stand where it
//! stands. Changes nothing.
//!
//! Verify finds what is whole; here it becomes readable. What verify reports is what is missing.
//! Row: ops. Tested by tests/it/salvage.rs.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};

use crate::disk::{Access, Disk, Holder};
use crate::engine::Readable;
use crate::format::{Frame, SEGMENTS_DIRECTORY, SegmentId, manifest, mark, records};
use crate::log::{LogEnd, SegmentFile, list, read_manifest, read_mark};
use crate::read::{Point, Segment};
use crate::types::{Error, ErrorKind, OpenProgress, OpenReport, OpenWatcher, VerifyProgress, to_u64};

use super::verify::{Verify, Visit, verify_files_as};

/// Reads everything that is whole, and tells `watcher` how far it is. Nobody may write meanwhile.
pub(crate) fn salvage(disk: &dyn Disk, watcher: Option<&OpenWatcher>) -> Result<Readable, Error> {
    if disk.is_locked().map_err(|error| Error::io("cannot look at", "LOCK", error))? {
        return Err(Error::locked(Holder::Unknown));
    }
    check_readable(disk)?;
    let mut kept = Kept::default();
    let asked = match watcher {
        Some(tell) => Verify::new().on_progress(|progress| tell(&opening(progress))),
        None => Verify::new(),
    };
    let visit: &mut Visit<'_> = &mut |segment, offset, frame, tip| kept.visit(segment, offset, frame, tip);
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
    let Kept { segments, versions, head, .. } = kept;
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

/// That no file is of a newer format: what this version cannot read is not damaged.
fn check_readable(disk: &dyn Disk) -> Result<(), Error> {
    let is_newer = |error: &Error| error.kind() == ErrorKind::NeedsNewer;
    let small_files = [read_manifest(disk).err(), read_mark(disk).err()];
    if let Some(error) = small_files.into_iter().flatten().find(is_newer) {
        return Err(error);
    }
    // Without a directory of segments there is nothing that could be newer.
    let names = list(disk, SEGMENTS_DIRECTORY).unwrap_or_default();
    let ids = names.iter().filter_map(|name| SegmentId::parse(name));
    let mut errors = ids.filter_map(|id| SegmentFile::open(disk, id, Access::Read).err());
    errors.find(is_newer).map_or(Ok(()), Err)
}

fn opening(progress: &VerifyProgress) -> OpenProgress {
    let VerifyProgress { bytes, bytes_total, elapsed, .. } = *progress;
    OpenProgress { bytes, bytes_total, elapsed, ..OpenProgress::default() }
}

/// What can be read so far.
#[derive(Default)]
struct Kept {
    segments: Vec<Arc<Segment>>,
    /// The last version of each entity.
    versions: HashMap<Box<str>, u64>,
    head: Point,
    appends: u64,
    events: u64,
}

impl Kept {
    /// Keeps a frame if positions and versions grow with it: what lies elsewhere than it was written, or
    /// twice, is not read twice. (Verify has reported it.)
    fn visit(&mut self, segment: &Arc<SegmentFile>, offset: u32, frame: &Frame<'_>, tip: &LogEnd) {
        // A file that has taken another's name would push what comes before it out of order.
        if segment.path != segment.header.id.path() {
            return;
        }
        let header = &frame.header;
        let first = segment.header.id.first_position.saturating_add(header.position_offset().into());
        if first <= self.head.position.get() || !self.learn_versions(frame) {
            return;
        }
        if self.segments.last().is_none_or(|last| !last.is_of(segment)) {
            self.segments.push(Arc::new(Segment::live(segment.clone(), &LogEnd::start(segment))));
        }
        let last = self.segments.last().expect("pushed just before");
        if last.insert(std::iter::once((offset, *frame))).is_ok() {
            self.head = Point { position: tip.position.into(), chain: tip.chain };
            self.appends += 1;
            self.events += u64::from(header.events());
        }
    }

    /// Whether every record is whole, and every version greater than its stream's last one.
    fn learn_versions(&mut self, frame: &Frame<'_>) -> bool {
        let header = &frame.header;
        let all = records(frame.body, header.events()).enumerate();
        let mut learnt = HashMap::new();
        for (index, record) in all {
            let Ok(record) = record else { return false };
            let (entity, version) = (record.entity(), header.version(index));
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
