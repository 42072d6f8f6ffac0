//! Opens the files of a store: finds where the log ends, and repairs what may be repaired.
//!
//! Invariants: acknowledged data is never cut; damage changes nothing on disk, and lets no writer in; every repair can be
//! interrupted anywhere and done again. After an unclean stop the device is read, not the cache
//! (a failed sync may have left pages in it that the device never got), and the log goes on in a
//! new segment.
//! SPEC.md "Recovery". Row: log. Tested by tests/it/crash.rs, fault.rs and corrupt.rs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use crate::disk::{Access, Disk};
use crate::format::{
    Damage, Frame, Hash, Manifest, Mark, SEGMENTS_DIRECTORY, Seal, SegmentEntry, SegmentId, manifest, mark,
};
use crate::types::{Error, OpenReport, TruncatedTail};

use super::judge::{Verdict, judge};
use super::listed::{check_listed, unlisted};
use super::repair::{cut, evidence, finish_cut, listing, quarantine, reread_from_device, sync_names, trim};
use super::scan::{Ending, LogEnd, POSITION_MAX, Scan, Walk, Window, scan};
use super::segment::{SegmentFile, missing};
use super::survey::{
    behind, check_uninitialised, could_be_new, is_leftover, list, others, read_manifest, read_mark,
};

/// What was found; enough to read, and to start writing.
pub(crate) struct Recovered {
    pub(crate) manifest: Manifest,
    pub(crate) manifest_digest: Hash,
    pub(crate) mark: Option<Mark>,
    /// Those behind the ones MANIFEST lists, in order of position.
    pub(crate) segments: Vec<Arc<SegmentFile>>,
    /// Seals of segments that the manifest does not list yet.
    pub(crate) newly_sealed: Vec<SegmentEntry>,
    /// Behind the last frame of the last segment.
    pub(crate) tip: Option<LogEnd>,
    /// Whether the last segment takes further frames as it is.
    pub(crate) appendable: bool,
    /// Whether the last segment was closed with its index, and need not be walked.
    pub(crate) indexed: bool,
    pub(crate) report: OpenReport,
}

/// Sees every frame: its segment, its offset, and where the log stands behind it.
pub(crate) type Visit<'a> = dyn FnMut(&Arc<SegmentFile>, u32, &Frame<'_>, &LogEnd) -> Result<(), Error> + 'a;

/// What is known of the end of the last segment without walking it: of one that was closed with its index.
pub(crate) type AtMark<'a> = dyn Fn(&Manifest, &Arc<SegmentFile>, &Mark) -> Option<LogEnd> + 'a;

/// How to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The lock is held: repair what may be repaired.
    Write,
    /// Change nothing; nobody writes just now.
    Read,
    /// Change nothing; somebody writes, so look no further than MARK.
    ReadBesideWriter,
}

/// Finds and checks where the log ends; `Ok(None)` if there is no store yet.
///
/// What MANIFEST lists is not walked: it was made durable before it was listed. [`check_listed`] looks if it still is there.
pub(crate) fn recover(
    disk: &dyn Disk,
    purpose: Purpose,
    at_mark: &AtMark<'_>,
    visit: &mut Visit<'_>,
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
    let mut opening = Opening {
        disk,
        purpose,
        at_mark,
        visit,
        // Of what was cut MARK may still speak.
        mark_met: mark.is_none() || manifest.is_cut,
        leftovers: Vec::new(),
        stale: Vec::new(),
        state: Recovered {
            manifest,
            manifest_digest,
            mark,
            segments: Vec::new(),
            newly_sealed: Vec::new(),
            tip: None,
            appendable: false,
            indexed: false,
            report,
        },
    };
    let (there, later) = opening.names()?;
    opening.state.report.steps.push(("survey", started.elapsed()));
    let scanning = Instant::now();
    opening.listed_segments(&there)?;
    opening.open_segments(&later)?;
    opening.check_mark_met()?;
    opening.remove_leftovers()?;
    opening.state.report.steps.push(("scan", scanning.elapsed()));
    opening.state.report.segments = opening.state.manifest.sealed.len() + opening.state.segments.len();
    Ok(Some(opening.state))
}

const FIRST_MISSING: &str = "the store's first segment is missing";

struct Opening<'a, 'v> {
    disk: &'a dyn Disk,
    purpose: Purpose,
    at_mark: &'a AtMark<'a>,
    visit: &'a mut Visit<'v>,
    /// Whether the walk came by the place MARK speaks of, and found the same chain.
    mark_met: bool,
    /// Files to be removed once it is known that nothing is damaged.
    leftovers: Vec<String>,
    /// Index files of no segment, which are nobody's.
    stale: Vec<String>,
    state: Recovered,
}

impl Opening<'_, '_> {
    /// The segments that are there, and of them those after the manifest's last, in order; notes names it
    /// does not know.
    fn names(&mut self) -> Result<(BTreeSet<SegmentId>, Vec<SegmentId>), Error> {
        let listed: BTreeSet<SegmentId> = self.state.manifest.sealed.iter().map(|sealed| sealed.id).collect();
        let next =
            self.state.manifest.sealed.last().map_or(1, |sealed| sealed.last_position.saturating_add(1));
        let ends_here = self.state.manifest.is_cut;
        let is_later = |id: &SegmentId| !ends_here && id.generation == 0 && id.first_position >= next;
        let (mut there, mut indexes) = (BTreeSet::new(), Vec::new());
        for name in list(self.disk, SEGMENTS_DIRECTORY)? {
            match (SegmentId::parse(&name), SegmentId::parse_index(&name)) {
                (Some(id), _) if listed.contains(&id) || is_later(&id) => drop(there.insert(id)),
                (None, Some(id)) => indexes.push((id, name)),
                _ if is_leftover(self.disk, &self.state.manifest, &name)? => {
                    self.leftovers.push(format!("{SEGMENTS_DIRECTORY}/{name}"));
                }
                (Some(id), _) if self.purpose == Purpose::Write => return Err(unlisted(id)),
                _ => self.state.report.unknown.push(format!("{SEGMENTS_DIRECTORY}/{name}")),
            }
        }
        for (id, name) in indexes {
            if !there.contains(&id) || id.index_path() != format!("{SEGMENTS_DIRECTORY}/{name}") {
                self.stale.push(format!("{SEGMENTS_DIRECTORY}/{name}"));
            }
        }
        let (leftovers, unknown) = others(self.disk)?;
        self.leftovers.extend(leftovers);
        self.state.report.unknown.extend(unknown);
        let later = there.iter().filter(|id| !listed.contains(id)).copied().collect();
        Ok((there, later))
    }

    /// Everything the manifest lists must be there, and one must follow from the other.
    fn listed_segments(&mut self, there: &BTreeSet<SegmentId>) -> Result<(), Error> {
        for sealed in self.state.manifest.sealed.clone() {
            if !there.contains(&sealed.id) {
                return Err(missing(sealed.id));
            }
            let (position, recorded_at) =
                self.state.tip.map_or((0, 0), |tip| (tip.position, tip.recorded_at));
            if sealed.id.first_position != position.saturating_add(1)
                || sealed.recorded_before != recorded_at
                || sealed.last_position < position
                || sealed.last_position > POSITION_MAX
            {
                let what = "the segments that the file lists do not follow one another";
                return Err(Error::corrupt(manifest::NAME, 0, what));
            }
            if self.state.mark.as_ref().is_some_and(|mark| mark.segment == sealed.id) {
                self.meet_mark_in(&sealed)?;
            }
            self.state.report.appends += u64::from(sealed.frames);
            self.state.report.events += u64::from(sealed.events);
            self.state.tip = Some(behind(&sealed));
        }
        Ok(())
    }

    /// MARK speaks of a listed segment: of its end, or it is older than MANIFEST and the segment is walked.
    fn meet_mark_in(&mut self, sealed: &SegmentEntry) -> Result<(), Error> {
        let Some(mark) = self.state.mark.clone() else { return Ok(()) };
        if behind(sealed).is_at(&mark) {
            self.mark_met = true;
            return Ok(());
        }
        let segment = self.open_existing(sealed.id)?;
        let mut met = LogEnd::start(&segment).is_at(&mark);
        let mut visit = |_: &SegmentFile, _, _: &Frame<'_>, tip: &LogEnd| {
            met |= tip.is_at(&mark);
            Ok(())
        };
        let limit = mark.durable_end;
        let found = scan(&segment, &mut Walk { limit, verify_chain_from: u32::MAX, visit: &mut visit })?;
        self.state.report.bytes_read += found.bytes;
        self.mark_met |= met;
        Ok(())
    }

    /// The segments after the manifest: all but the last sealed, the last as it was left.
    fn open_segments(&mut self, later: &[SegmentId]) -> Result<(), Error> {
        let is_empty = later.is_empty() && self.state.manifest.sealed.is_empty();
        if is_empty {
            return Err(Error::corrupt(SEGMENTS_DIRECTORY, 0, FIRST_MISSING));
        }
        if later.is_empty() && self.purpose == Purpose::Write {
            sync_names(self.disk)?;
        }
        for (index, id) in later.iter().enumerate() {
            let is_last = index + 1 == later.len();
            if is_last && self.purpose == Purpose::ReadBesideWriter && self.is_beyond_mark(*id) {
                break;
            }
            if is_last {
                self.last_segment(*id)?;
            } else {
                let segment = self.open_existing(*id)?;
                let found = self.walk(&segment, u32::MAX)?;
                match found.ending {
                    Ending::Sealed(seal) if segment.length()? == u64::from(seal.length) => {
                        self.keep_sealed(segment, &found.tip, &seal);
                    }
                    Ending::Sealed(seal) => {
                        let what = "the segment goes on behind its seal, but a later one exists";
                        return Err(Error::corrupt(&segment.path, seal.length.into(), what));
                    }
                    Ending::Invalid(damage) => return Err(segment.damaged(found.tip.offset.into(), &damage)),
                    Ending::Zeros => {
                        let what = "the segment is not sealed, but a later one exists";
                        return Err(Error::corrupt(&segment.path, found.tip.offset.into(), what));
                    }
                }
            }
        }
        let has_events = self.state.mark.as_ref().is_some_and(|mark| mark.position > 0);
        let is_empty = self.state.segments.is_empty() && self.state.manifest.sealed.is_empty();
        if is_empty && has_events {
            return Err(Error::corrupt(SEGMENTS_DIRECTORY, 0, FIRST_MISSING));
        }
        Ok(())
    }

    fn is_beyond_mark(&self, id: SegmentId) -> bool {
        self.state.mark.as_ref().is_none_or(|mark| mark.segment < id)
    }

    fn last_segment(&mut self, id: SegmentId) -> Result<(), Error> {
        if self.is_debris(id)? {
            return Ok(());
        }
        let mut segment = self.open_existing(id)?;
        let clean = self.is_clean(&segment)?;
        if self.purpose == Purpose::Write && !clean {
            reread_from_device(self.disk, &segment)?;
            // Not even the header need have got there.
            if self.is_debris(id)? {
                return Ok(());
            }
            segment = self.open_existing(id)?;
        }
        if clean && self.ends_at_mark(&segment) {
            self.state.segments.push(segment);
            return Ok(());
        }
        let limit = match (&self.state.mark, self.purpose) {
            (Some(mark), Purpose::ReadBesideWriter) if mark.segment == segment.header.id => mark.durable_end,
            _ => u32::MAX,
        };
        let found = self.walk(&segment, limit)?;
        self.state.tip = Some(found.tip);
        let ends_at_mark = self.state.mark.as_ref().is_some_and(|mark| mark.durable_end == found.tip.offset);
        match &found.ending {
            Ending::Sealed(seal) => {
                self.check_mark_met()?;
                if self.purpose == Purpose::Write {
                    trim(&segment, seal)?;
                }
                self.keep_sealed(segment, &found.tip, seal);
                return Ok(());
            }
            // What its checksums prove to be whole is no torn write.
            Ending::Invalid(whole @ (Damage::Newer(_) | Damage::Forbidden(_))) => {
                return Err(segment.damaged(found.tip.offset.into(), whole));
            }
            Ending::Zeros if clean && ends_at_mark => {
                (self.state.appendable, self.state.report.clean) = (true, true);
            }
            Ending::Zeros if self.purpose == Purpose::ReadBesideWriter => {}
            _ => self.judge(&segment, &found)?,
        }
        self.state.segments.push(segment);
        Ok(())
    }

    /// Whether the segment was closed with its index, so that where it ends is known.
    fn ends_at_mark(&mut self, segment: &Arc<SegmentFile>) -> bool {
        let Some(mark) = &self.state.mark else { return false };
        let Some(tip) = (self.at_mark)(&self.state.manifest, segment, mark) else { return false };
        self.state.tip = Some(tip);
        (self.mark_met, self.state.appendable, self.state.indexed) = (true, true, true);
        self.state.report.clean = true;
        self.state.report.appends += u64::from(tip.frames);
        self.state.report.events += u64::from(tip.events);
        true
    }

    /// Closed by the last writer, and nothing came after.
    fn is_clean(&self, segment: &SegmentFile) -> Result<bool, Error> {
        match &self.state.mark {
            Some(mark) if mark.clean && mark.segment == segment.header.id => {
                Window::new(segment, u32::MAX)?.is_zero_from(mark.durable_end)
            }
            _ => Ok(false),
        }
    }

    /// An unclean end: decides, and repairs if it may.
    fn judge(&mut self, segment: &Arc<SegmentFile>, found: &Scan) -> Result<(), Error> {
        let end = found.tip.offset;
        let evidence = evidence(segment, self.state.mark.as_ref(), end)?;
        let verdict = judge(&evidence);
        if let Verdict::Corrupt(what) = verdict {
            return Err(Error::corrupt(&segment.path, end.into(), what));
        }
        // This was the last segment. What is damaged must show before anything is changed.
        self.check_mark_met()?;
        if verdict == Verdict::Torn {
            self.report_cut(segment, end, evidence.last_nonzero.unwrap_or(end))?;
        }
        if self.purpose == Purpose::Write {
            match cut(segment, &found.tip)? {
                Some(seal) => self.state.newly_sealed.push(listing(&segment.header, &seal)),
                None => self.state.appendable = true,
            }
        }
        Ok(())
    }

    fn report_cut(&mut self, segment: &SegmentFile, end: u32, last_nonzero: u32) -> Result<(), Error> {
        let kept = match self.purpose {
            Purpose::Write => quarantine(self.disk, segment, end, last_nonzero)?,
            _ => None,
        };
        let cut = TruncatedTail {
            segment: segment.path.clone(),
            offset: end.into(),
            bytes: (last_nonzero - end).into(),
            kept,
        };
        tracing::warn!(segment = cut.segment, offset = cut.offset, bytes = cut.bytes, "a torn tail was cut");
        self.state.report.cut = Some(cut);
        Ok(())
    }

    fn keep_sealed(&mut self, segment: Arc<SegmentFile>, tip: &LogEnd, seal: &Seal) {
        self.state.newly_sealed.push(listing(&segment.header, seal));
        self.state.segments.push(segment);
        self.state.tip = Some(*tip);
    }

    /// Opens a segment and checks that it continues what came before it.
    fn open_existing(&mut self, id: SegmentId) -> Result<Arc<SegmentFile>, Error> {
        let is_listed = self.state.manifest.sealed.iter().any(|sealed| sealed.id == id);
        let writes = self.purpose == Purpose::Write && !is_listed;
        let access = if writes { Access::Write } else { Access::Read };
        let segment = SegmentFile::open(self.disk, id, access)?;
        self.check_continues(&segment, id)?;
        Ok(Arc::new(segment))
    }

    fn check_continues(&self, segment: &SegmentFile, id: SegmentId) -> Result<(), Error> {
        let header = &segment.header;
        let differs = |what: &str| Err(Error::corrupt(&segment.path, 0, what));
        if !self.state.manifest.knows(&header.store_id) {
            return differs("the segment belongs to another store");
        }
        if header.id != id {
            return differs("the segment is another one than its name says");
        }
        if id.first_position > POSITION_MAX {
            return differs("the segment begins at an impossible position");
        }
        let (position, recorded_at, chain) = match &self.state.tip {
            Some(tip) => (tip.position, tip.recorded_at, tip.chain),
            None => (0, 0, crate::format::genesis(&header.store_id)),
        };
        let next = position.saturating_add(1);
        if id.first_position > next {
            return Err(missing(SegmentId { first_position: next, generation: 0 }));
        }
        if id.first_position < next {
            return differs("the segment begins in front of where the one before it ends");
        }
        if header.chain_before != chain || header.recorded_before != recorded_at {
            return differs("the segment does not continue the one before it");
        }
        Ok(())
    }

    /// A segment that was being created when the writer stopped: no whole header, and nothing behind.
    ///
    /// MARK speaks of a segment only once its creation was made durable, so what it speaks of, or
    /// what is earlier, is no debris.
    fn is_debris(&mut self, id: SegmentId) -> Result<bool, Error> {
        let path = id.path();
        let failed = |error| Error::io("cannot open", &path, error);
        let file = self.disk.open(&path, Access::Read).map_err(failed)?;
        if !matches!(SegmentFile::read_header(file.as_ref(), &path)?, Err(Damage::Bad(_))) {
            return Ok(false);
        }
        let proven = self.state.mark.as_ref().is_some_and(|mark| mark.segment >= id);
        if proven || !could_be_new(file.as_ref(), &path)? {
            return Ok(false);
        }
        self.leftovers.push(path);
        Ok(true)
    }

    fn remove_leftovers(&mut self) -> Result<(), Error> {
        if self.purpose != Purpose::Write {
            return Ok(());
        }
        for path in self.stale.drain(..) {
            // One that stays harms nobody: it does not fit any segment.
            if let Err(error) = self.disk.remove(&path) {
                tracing::warn!(path, %error, "an index file of no segment was not removed");
            }
        }
        if self.leftovers.is_empty() {
            return Ok(());
        }
        for path in self.leftovers.drain(..) {
            self.disk.remove(&path).map_err(|error| Error::io("cannot remove", &path, error))?;
            self.state.report.removed.push(path);
        }
        let synced = self.disk.sync_directory(SEGMENTS_DIRECTORY);
        synced.map_err(|error| Error::io("cannot sync", SEGMENTS_DIRECTORY, error))
    }

    fn walk(&mut self, segment: &Arc<SegmentFile>, limit: u32) -> Result<Scan, Error> {
        let mark = self.state.mark.as_ref().filter(|mark| mark.segment == segment.header.id);
        // Behind MARK nothing but the checksums speaks for a frame, so there the chain is recomputed.
        let verify_chain_from = mark.map_or(0, |mark| mark.durable_end);
        let met = |tip: &LogEnd| mark.is_some_and(|mark| tip.is_at(mark));
        let mut mark_met = met(&LogEnd::start(segment));
        let report = &mut self.state.report;
        let visit = &mut self.visit;
        let found = scan(
            segment,
            &mut Walk {
                limit,
                verify_chain_from,
                visit: &mut |_, offset, frame, tip| {
                    mark_met |= met(tip);
                    report.appends += 1;
                    report.events += u64::from(frame.header.events());
                    visit(segment, offset, frame, tip)
                },
            },
        )?;
        self.state.report.bytes_read += found.bytes;
        self.mark_met |= mark_met;
        Ok(found)
    }

    /// What MARK speaks of must have been met, or acknowledged data is gone.
    fn check_mark_met(&self) -> Result<(), Error> {
        match &self.state.mark {
            Some(mark) if !self.mark_met => {
                let what =
                    "acknowledged data is damaged or missing: MARK speaks of appends that are not there";
                Err(Error::corrupt(&mark.segment.path(), mark.durable_end.into(), what))
            }
            _ => Ok(()),
        }
    }
}
