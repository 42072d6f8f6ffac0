//! Opens the files of a store: finds where the log ends, and repairs its end if that is allowed.
//!
//! Acknowledged data is never cut. Damage changes nothing on disk and lets no writer in. Every repair can be
//! done again after a stop. Behind MARK a writer reads the device: after a failed sync the cache may have
//! what the device has not. SPEC.md "Recovery". Tested by tests/it/{crash,fault,corrupt,part_index}.rs.

pub(super) mod scan_dir;
pub(super) mod tail;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use crate::disk::{Access, Disk};
use crate::format::{
    Damage, Frame, Hash, Manifest, Mark, SEGMENTS_DIRECTORY, Seal, SegmentEntry, SegmentId, manifest, mark,
};
use crate::types::{Error, OpenReport, TruncatedTail};

use super::cursor::{LogEnd, POSITION_MAX, SegmentCursor, SegmentEnd, Window};
use super::segment::{SegmentFile, missing};
use scan_dir::{
    check_continues, check_listed, check_uninitialised, could_be_new, is_leftover, list, other_names,
    read_manifest, read_mark, unlisted,
};
use tail::{
    Verdict, cut, drop_cache, evidence, finish_cut, judge, quarantine, sync_last_segment, sync_names,
    truncate_to_seal,
};

/// What recovery found: enough to read, and to start writing.
pub(crate) struct Recovered {
    pub(crate) manifest: Manifest,
    pub(crate) manifest_digest: Hash,
    pub(crate) mark: Option<Mark>,
    /// The segments behind those that MANIFEST lists, in order of position.
    pub(crate) segments: Vec<Arc<SegmentFile>>,
    /// Entries of sealed segments that MANIFEST does not list yet.
    pub(crate) newly_sealed: Vec<SegmentEntry>,
    /// The place behind the last frame of the last segment; `None` if there is no segment.
    pub(crate) end: Option<LogEnd>,
    /// Whether the last segment takes further frames as it is.
    pub(crate) is_appendable: bool,
    /// The end of the part of the last segment that its index file covers, if recovery did not read that
    /// part.
    pub(crate) indexed: Option<LogEnd>,
    pub(crate) report: OpenReport,
}

/// Is shown every frame: its segment, its offset, and the place behind it.
pub(crate) type FrameVisitor<'a> =
    dyn FnMut(&Arc<SegmentFile>, u32, &Frame<'_>, &LogEnd) -> Result<(), Error> + 'a;

/// The end of the part of a segment that its index file covers. MARK names the segment and proves that part.
pub(crate) type IndexedEnd<'a> = dyn Fn(&Manifest, &Arc<SegmentFile>, &Mark) -> Option<LogEnd> + 'a;

/// How to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The caller holds the lock: repair the end if that is allowed.
    Write,
    /// Change nothing. No writer has the lock.
    Read,
    /// Change nothing. A writer has the lock, so read no further than MARK.
    ReadBesideWriter,
}

/// Finds and checks where the log ends; `Ok(None)` if there is no store yet.
///
/// It does not read the frames of segments that MANIFEST lists: these were made durable before they were
/// listed. A writer checks that their files are still there.
pub(crate) fn recover(
    disk: &dyn Disk,
    purpose: Purpose,
    indexed_end: &IndexedEnd<'_>,
    visit: &mut FrameVisitor<'_>,
) -> Result<Option<Recovered>, Error> {
    let started = Instant::now();
    let mut mark = read_mark(disk)?;
    let Some((mut manifest, mut manifest_digest)) = read_manifest(disk)? else {
        check_uninitialised(disk, mark.as_ref(), purpose == Purpose::Write)?;
        return Ok(None);
    };
    if purpose == Purpose::Write {
        check_listed(disk, &manifest)?;
    }
    if manifest.is_cut && purpose == Purpose::Write {
        (manifest, manifest_digest) = finish_cut(disk, manifest, manifest_digest)?;
        mark = read_mark(disk)?;
    }
    if mark.as_ref().is_some_and(|mark| mark.store_id != manifest.store_id) {
        return Err(Error::corrupt(mark::NAME, 0, "it belongs to another store than MANIFEST"));
    }
    let report = OpenReport { mark_found: mark.is_some(), ..OpenReport::default() };
    let mut recovery = Recovery {
        disk,
        purpose,
        indexed_end,
        visit,
        // MARK may still name a segment that was cut from the log.
        mark_met: mark.is_none() || manifest.is_cut,
        leftovers: Vec::new(),
        stale_indexes: Vec::new(),
        recovered: Recovered {
            manifest,
            manifest_digest,
            mark,
            segments: Vec::new(),
            newly_sealed: Vec::new(),
            end: None,
            is_appendable: false,
            indexed: None,
            report,
        },
    };
    let (present, later) = recovery.scan_names()?;
    recovery.recovered.report.steps.push(("survey", started.elapsed()));
    let scanning = Instant::now();
    recovery.pass_listed_segments(&present)?;
    recovery.open_later_segments(&later)?;
    recovery.check_mark_met()?;
    // Last: damage must change nothing on disk.
    recovery.remove_leftovers()?;
    let mut recovered = recovery.recovered;
    recovered.report.steps.push(("scan", scanning.elapsed()));
    recovered.report.segments = recovered.manifest.sealed.len() + recovered.segments.len();
    Ok(Some(recovered))
}

const FIRST_MISSING: &str = "the store's first segment is missing";

struct Recovery<'a, 'v> {
    disk: &'a dyn Disk,
    purpose: Purpose,
    indexed_end: &'a IndexedEnd<'a>,
    visit: &'a mut FrameVisitor<'v>,
    /// Whether recovery passed the place that MARK names, and found the same chain there.
    mark_met: bool,
    /// Files to be removed after it is certain that nothing is damaged.
    leftovers: Vec<String>,
    /// Index and tree files that belong to no segment.
    stale_indexes: Vec<String>,
    recovered: Recovered,
}

impl Recovery<'_, '_> {
    /// The segments whose files are there, and of them those behind the last one that MANIFEST lists, in
    /// order. Takes note of all other names.
    fn scan_names(&mut self) -> Result<(BTreeSet<SegmentId>, Vec<SegmentId>), Error> {
        let manifest = &self.recovered.manifest;
        let listed: BTreeSet<SegmentId> = manifest.sealed.iter().map(|sealed| sealed.id).collect();
        let next = manifest.sealed.last().map_or(1, |sealed| sealed.last_position.saturating_add(1));
        let is_later = |id: &SegmentId| !manifest.is_cut && id.generation == 0 && id.first_position >= next;
        let mut present = BTreeSet::new();
        let mut indexes = Vec::new();
        for name in list(self.disk, SEGMENTS_DIRECTORY)? {
            match (SegmentId::parse(&name), SegmentId::parse_side_file(&name)) {
                (Some(id), _) if listed.contains(&id) || is_later(&id) => drop(present.insert(id)),
                (None, Some(id)) => indexes.push((id, name)),
                _ if is_leftover(self.disk, manifest, &name)? => {
                    self.leftovers.push(format!("{SEGMENTS_DIRECTORY}/{name}"));
                }
                // A writer would put new events beside a file that may hold events of this log.
                (Some(id), _) if self.purpose == Purpose::Write => return Err(unlisted(id)),
                _ => self.recovered.report.unknown.push(format!("{SEGMENTS_DIRECTORY}/{name}")),
            }
        }
        for (id, name) in indexes {
            let path = format!("{SEGMENTS_DIRECTORY}/{name}");
            if !present.contains(&id) || !id.side_paths().contains(&path) {
                self.stale_indexes.push(path);
            }
        }
        let (leftovers, unknown) = other_names(self.disk)?;
        self.leftovers.extend(leftovers);
        self.recovered.report.unknown.extend(unknown);
        let later = present.iter().filter(|id| !listed.contains(id)).copied().collect();
        Ok((present, later))
    }

    /// Checks that every segment that MANIFEST lists is there and follows from the one before it.
    fn pass_listed_segments(&mut self, present: &BTreeSet<SegmentId>) -> Result<(), Error> {
        for sealed in self.recovered.manifest.sealed.clone() {
            if !present.contains(&sealed.id) {
                return Err(missing(sealed.id));
            }
            let (position, recorded_at) =
                self.recovered.end.map_or((0, 0), |end| (end.position, end.recorded_at));
            if sealed.id.first_position != position.saturating_add(1)
                || sealed.recorded_before != recorded_at
                || sealed.last_position < position
                || sealed.last_position > POSITION_MAX
            {
                let what = "the segments that the file lists do not follow one another";
                return Err(Error::corrupt(manifest::NAME, 0, what));
            }
            if self.recovered.mark.as_ref().is_some_and(|mark| mark.segment == sealed.id) {
                self.meet_mark_in(&sealed)?;
            }
            self.recovered.report.appends += u64::from(sealed.frames);
            self.recovered.report.events += u64::from(sealed.events);
            self.recovered.end = Some(LogEnd::of_sealed(&sealed));
        }
        Ok(())
    }

    /// MARK names a listed segment. Usually it names the end. If MARK is older than MANIFEST, the segment is
    /// read up to the place that MARK names.
    fn meet_mark_in(&mut self, sealed: &SegmentEntry) -> Result<(), Error> {
        let Some(mark) = self.recovered.mark.clone() else { return Ok(()) };
        if LogEnd::of_sealed(sealed).is_at(&mark) {
            self.mark_met = true;
            return Ok(());
        }
        let segment = self.open_segment(sealed.id)?;
        let mut met = LogEnd::start(&segment).is_at(&mark);
        let mut cursor = SegmentCursor::new(&segment, mark.durable_end)?.trusting_chain();
        cursor.visit_frames(|_, _, after| {
            met |= after.is_at(&mark);
            Ok(())
        })?;
        self.recovered.report.bytes_read += cursor.bytes_read();
        self.mark_met |= met;
        Ok(())
    }

    /// Opens the segments behind those that MANIFEST lists: all but the last must be sealed, the last one is
    /// as its writer left it.
    fn open_later_segments(&mut self, later: &[SegmentId]) -> Result<(), Error> {
        let has_listed = !self.recovered.manifest.sealed.is_empty();
        if later.is_empty() && !has_listed {
            return Err(Error::corrupt(SEGMENTS_DIRECTORY, 0, FIRST_MISSING));
        }
        if later.is_empty() && self.purpose == Purpose::Write {
            sync_names(self.disk)?;
        }
        for (index, id) in later.iter().enumerate() {
            if index + 1 < later.len() {
                self.open_sealed_segment(*id)?;
            } else if self.purpose != Purpose::ReadBesideWriter || !self.is_behind_mark(*id) {
                self.open_last_segment(*id)?;
            }
        }
        let has_events = self.recovered.mark.as_ref().is_some_and(|mark| mark.position > 0);
        if self.recovered.segments.is_empty() && !has_listed && has_events {
            return Err(Error::corrupt(SEGMENTS_DIRECTORY, 0, FIRST_MISSING));
        }
        Ok(())
    }

    fn open_sealed_segment(&mut self, id: SegmentId) -> Result<(), Error> {
        let segment = self.open_segment(id)?;
        let (end, segment_end) = self.read_frames(&segment, LogEnd::start(&segment), u32::MAX)?;
        match segment_end {
            SegmentEnd::Sealed(seal) if segment.length()? == u64::from(seal.length) => {
                self.keep_sealed(segment, &end, &seal);
                Ok(())
            }
            SegmentEnd::Sealed(seal) => {
                let what = "the segment goes on behind its seal, but a later one exists";
                Err(Error::corrupt(&segment.path, seal.length.into(), what))
            }
            SegmentEnd::Invalid(damage) => Err(segment.damaged(end.offset.into(), &damage)),
            SegmentEnd::Zeros => {
                let what = "the segment is not sealed, but a later one exists";
                Err(Error::corrupt(&segment.path, end.offset.into(), what))
            }
        }
    }

    /// Whether MARK names only earlier segments, so that a reader beside a writer must not look at this one.
    fn is_behind_mark(&self, id: SegmentId) -> bool {
        self.recovered.mark.as_ref().is_none_or(|mark| mark.segment < id)
    }

    fn open_last_segment(&mut self, id: SegmentId) -> Result<(), Error> {
        if self.take_unfinished(id)? {
            return Ok(());
        }
        let mut segment = self.open_segment(id)?;
        let is_clean = self.is_cleanly_closed(&segment)?;
        let mark = self.recovered.mark.as_ref();
        let marked = mark.filter(|mark| mark.segment == id).map(|mark| mark.durable_end);
        let must_reread = self.purpose == Purpose::Write && !is_clean;
        if must_reread {
            sync_last_segment(self.disk, &segment)?;
            if marked.is_none() {
                drop_cache(&segment, 0)?;
                // The cache had the header, but the device may never have got it.
                if self.take_unfinished(id)? {
                    return Ok(());
                }
            }
            // Repairs sync, and a handle whose sync failed is never synced again.
            segment = self.open_segment(id)?;
        }
        let mut from = self.begin_behind_index(&segment);
        if must_reread && let Some(marked) = marked {
            // MARK proves these frames, so the cache has them as the device does. Behind MARK it may not.
            (from, _) = self.read_frames(&segment, from, marked)?;
            drop_cache(&segment, from.offset)?;
        }
        let limit = match marked {
            // Only zeros follow, as `is_cleanly_closed` has seen.
            Some(marked) if is_clean || self.purpose == Purpose::ReadBesideWriter => marked,
            _ => u32::MAX,
        };
        let (end, segment_end) = self.read_frames(&segment, from, limit)?;
        self.recovered.end = Some(end);
        let ends_at_mark = self.recovered.mark.as_ref().is_some_and(|mark| mark.durable_end == end.offset);
        match &segment_end {
            SegmentEnd::Sealed(seal) => {
                self.check_mark_met()?;
                if self.purpose == Purpose::Write {
                    truncate_to_seal(&segment, seal)?;
                }
                self.keep_sealed(segment, &end, seal);
                return Ok(());
            }
            // No torn write leaves bytes whose checksums fit.
            SegmentEnd::Invalid(whole @ (Damage::Newer(_) | Damage::Forbidden(_))) => {
                return Err(segment.damaged(end.offset.into(), whole));
            }
            SegmentEnd::Zeros if is_clean && ends_at_mark => {
                self.recovered.is_appendable = true;
                self.recovered.report.clean = true;
            }
            SegmentEnd::Zeros if self.purpose == Purpose::ReadBesideWriter => {}
            SegmentEnd::Zeros | SegmentEnd::Invalid(Damage::Bad(_)) => {
                self.repair_unclean_end(&segment, &end)?;
            }
        }
        self.recovered.segments.push(segment);
        Ok(())
    }

    /// Where the walk of the last segment begins: behind the part that its index file covers, if MARK proves
    /// that part.
    fn begin_behind_index(&mut self, segment: &Arc<SegmentFile>) -> LogEnd {
        let recovered = &mut self.recovered;
        let mark = recovered.mark.as_ref().filter(|mark| mark.segment == segment.header.id);
        let indexed = mark.and_then(|mark| (self.indexed_end)(&recovered.manifest, segment, mark));
        let Some(end) = indexed else { return LogEnd::start(segment) };
        recovered.indexed = Some(end);
        recovered.report.appends += u64::from(end.frames);
        recovered.report.events += u64::from(end.events);
        end
    }

    /// Whether the last writer closed the segment, and nothing lies behind the end that it marked.
    fn is_cleanly_closed(&self, segment: &SegmentFile) -> Result<bool, Error> {
        match &self.recovered.mark {
            Some(mark) if mark.clean && mark.segment == segment.header.id => {
                Window::new(segment, u32::MAX)?.is_zero_from(mark.durable_end)
            }
            _ => Ok(false),
        }
    }

    /// Judges an end without a clean close: refuses damage, and cuts a torn tail if this is a writer.
    fn repair_unclean_end(&mut self, segment: &Arc<SegmentFile>, end: &LogEnd) -> Result<(), Error> {
        let evidence = evidence(segment, self.recovered.mark.as_ref(), end.offset)?;
        let verdict = judge(&evidence);
        if let Verdict::Corrupt(what) = verdict {
            return Err(Error::corrupt(&segment.path, end.offset.into(), what));
        }
        // This was the last segment. Damage must show before anything is changed.
        self.check_mark_met()?;
        if verdict == Verdict::Torn {
            self.quarantine_tail(segment, end.offset, evidence.last_nonzero.unwrap_or(end.offset))?;
        }
        if self.purpose == Purpose::Write {
            match cut(segment, end)? {
                Some(seal) => self.recovered.newly_sealed.push(SegmentEntry::new(&segment.header, &seal)),
                None => self.recovered.is_appendable = true,
            }
        }
        Ok(())
    }

    /// Reports the torn tail; a writer also copies it, before it is cut.
    fn quarantine_tail(&mut self, segment: &SegmentFile, end: u32, last_nonzero: u32) -> Result<(), Error> {
        let kept = match self.purpose {
            Purpose::Write => quarantine(self.disk, segment, end, last_nonzero)?,
            Purpose::Read | Purpose::ReadBesideWriter => None,
        };
        let tail = TruncatedTail {
            segment: segment.path.clone(),
            offset: end.into(),
            bytes: (last_nonzero - end).into(),
            kept,
        };
        tracing::warn!(
            segment = tail.segment,
            offset = tail.offset,
            bytes = tail.bytes,
            "a torn tail was cut"
        );
        self.recovered.report.cut = Some(tail);
        Ok(())
    }

    fn keep_sealed(&mut self, segment: Arc<SegmentFile>, end: &LogEnd, seal: &Seal) {
        self.recovered.newly_sealed.push(SegmentEntry::new(&segment.header, seal));
        self.recovered.segments.push(segment);
        self.recovered.end = Some(*end);
    }

    /// Opens a segment and checks that it continues what came before it.
    fn open_segment(&mut self, id: SegmentId) -> Result<Arc<SegmentFile>, Error> {
        let is_listed = self.recovered.manifest.sealed.iter().any(|sealed| sealed.id == id);
        let may_write = self.purpose == Purpose::Write && !is_listed;
        let access = if may_write { Access::Write } else { Access::Read };
        let segment = SegmentFile::open(self.disk, id, access)?;
        check_continues(&segment, id, &self.recovered.manifest, self.recovered.end)?;
        Ok(Arc::new(segment))
    }

    /// Whether a writer stopped while it created this segment: the header is not whole, and only zeros
    /// follow. Then the file is a leftover.
    ///
    /// MARK names a segment only after its creation was made durable. So the segment that MARK names, and any
    /// earlier one, was finished.
    fn take_unfinished(&mut self, id: SegmentId) -> Result<bool, Error> {
        let path = id.path();
        let failed = |error| Error::io("cannot open", &path, error);
        let file = self.disk.open(&path, Access::Read).map_err(failed)?;
        if !matches!(SegmentFile::read_header(file.as_ref(), &path)?, Err(Damage::Bad(_))) {
            return Ok(false);
        }
        let was_finished = self.recovered.mark.as_ref().is_some_and(|mark| mark.segment >= id);
        if was_finished || !could_be_new(file.as_ref(), &path)? {
            return Ok(false);
        }
        self.leftovers.push(path);
        Ok(true)
    }

    /// Removes leftovers and stale index files, if this is a writer.
    fn remove_leftovers(&mut self) -> Result<(), Error> {
        if self.purpose != Purpose::Write {
            return Ok(());
        }
        for path in self.stale_indexes.drain(..) {
            // An index file that stays does no harm: it fits no segment.
            if let Err(error) = self.disk.remove(&path) {
                tracing::warn!(path, %error, "an index file of no segment was not removed");
            }
        }
        if self.leftovers.is_empty() {
            return Ok(());
        }
        for path in self.leftovers.drain(..) {
            self.disk.remove(&path).map_err(|error| Error::io("cannot remove", &path, error))?;
            self.recovered.report.removed.push(path);
        }
        let synced = self.disk.sync_directory(SEGMENTS_DIRECTORY);
        synced.map_err(|error| Error::io("cannot sync", SEGMENTS_DIRECTORY, error))
    }

    /// Shows the visitor every frame between `from` and `limit`. Returns the place behind the last one, and
    /// how the segment ends there.
    fn read_frames(
        &mut self,
        segment: &Arc<SegmentFile>,
        from: LogEnd,
        limit: u32,
    ) -> Result<(LogEnd, SegmentEnd), Error> {
        let mark = self.recovered.mark.as_ref().filter(|mark| mark.segment == segment.header.id);
        // Behind MARK only the checksums vouch for a frame, so there the chain is recomputed.
        let verify_chain_from = mark.map_or(0, |mark| mark.durable_end);
        let is_at_mark = |end: &LogEnd| mark.is_some_and(|mark| end.is_at(mark));
        let mut mark_met = is_at_mark(&from);
        let report = &mut self.recovered.report;
        let visit = &mut self.visit;
        let cursor = SegmentCursor::new(segment, limit)?;
        let mut cursor = cursor.starting_at(from).verifying_chain_from(verify_chain_from);
        let segment_end = cursor.visit_frames(|offset, frame, after| {
            mark_met |= is_at_mark(after);
            report.appends += 1;
            report.events += u64::from(frame.header.events());
            visit(segment, offset, frame, after)
        })?;
        report.bytes_read += cursor.bytes_read();
        self.mark_met |= mark_met;
        Ok((*cursor.end(), segment_end))
    }

    /// Recovery must have passed the place that MARK names, or acknowledged data is gone.
    fn check_mark_met(&self) -> Result<(), Error> {
        match &self.recovered.mark {
            Some(mark) if !self.mark_met => {
                let what =
                    "acknowledged data is damaged or missing: MARK speaks of appends that are not there";
                Err(Error::corrupt(&mark.segment.path(), mark.durable_end.into(), what))
            }
            _ => Ok(()),
        }
    }
}
