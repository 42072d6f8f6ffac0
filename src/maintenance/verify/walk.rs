//! The walk through the segments of a store, which checks every frame.
//!
//! Recovery stops at the first break. This walk looks for the next whole frame behind a break and goes on
//! there.
//!
//! SPEC.md "Checking a store" lists the checks.

use std::fmt::Display;
use std::sync::Arc;

use crate::disk::{Access, Disk, if_there};
use crate::format::{AnyRecord, Attestation, Damage, Frame, Hash, Manifest, Record, Seal, SegmentId, tags};
use crate::log::{
    CHAIN_BROKEN, Evidence, LogEnd, SEAL_MISFITS, SegmentCursor, SegmentFile, SegmentItem, Verdict, Window,
    chain_and_records, could_be_new, evidence, judge, missing_text,
};
use crate::types::{Error, Finding, Head, VerifyProgress, VerifyReport};

use super::super::throttle::Throttle;
use super::remembered::{Causes, Removals, VersionChecks, VersionLookup, VersionStep};
use super::search::{Search, behind};
use super::side_files::{Indexes, MarkSlots};

/// Called for every whole frame: its segment, its offset, and the end of the log behind it.
pub(crate) type FrameVisitor<'a> = dyn FnMut(&Arc<SegmentFile>, u32, &Frame<'_>, &LogEnd) + 'a;

pub(super) fn known(read: &Result<Option<(Manifest, Hash)>, Error>) -> Option<Manifest> {
    read.as_ref().ok().and_then(|read| read.as_ref().map(|(manifest, _)| manifest.clone()))
}

pub(super) struct Verifier<'a, 'v, 'p> {
    pub(super) visit: &'a mut FrameVisitor<'v>,
    pub(super) throttle: &'a mut Throttle<'p, VerifyProgress>,
    pub(super) versions: VersionChecks<'a>,
    pub(super) removals: Removals,
    /// Set if index files are compared.
    pub(super) indexes: Option<Indexes<'a>>,
    /// Set if causes are looked for.
    pub(super) causes: Option<Causes>,
    /// Heads that the walk must still pass.
    pub(super) heads: Vec<Head>,
    pub(super) after: Option<Head>,
    pub(super) report: VerifyReport,
    pub(super) before: LogBefore,
    pub(super) manifest: Option<&'a Manifest>,
    pub(super) slots: MarkSlots<'a>,
    /// The first position of the current segment.
    pub(super) first: u64,
    /// Index of the store in the lineage that created the last segment.
    pub(super) origin: usize,
    /// The first entity of the current append.
    pub(super) entity: Vec<u8>,
}

/// What the walk knows about the log before the current segment.
#[derive(Clone, Copy)]
pub(super) enum LogBefore {
    /// The log begins here.
    Nothing,
    At(LogEnd),
    /// The segments before were skipped, as asked.
    Skipped,
    /// The segment before cannot be read.
    Unknown,
}

/// How a segment must end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ExpectedEnd {
    /// With a seal, which ends the file.
    Seal,
    /// As the last segment of a store, closed or not.
    Last,
    /// Not checked: nothing behind this offset is read.
    At(u32),
}

impl ExpectedEnd {
    /// Bytes behind this offset are not read.
    pub(super) fn limit(self) -> u32 {
        match self {
            ExpectedEnd::At(limit) => limit,
            ExpectedEnd::Seal | ExpectedEnd::Last => u32::MAX,
        }
    }
}

/// The walk through one segment.
pub(super) struct SegmentWalk {
    pub(super) tip: LogEnd,
    pub(super) search: Search,
    /// Evidence about the end, from an earlier break.
    pub(super) evidence: Option<Evidence>,
    /// Bytes counted by the throttle so far.
    pub(super) told: u32,
    /// Events of version 1, and positions whose event was removed.
    pub(super) born: u32,
    pub(super) removed: u32,
    pub(super) sealed_at: Option<u32>,
    pub(super) is_damaged: bool,
}

impl<'a, 'v, 'p> Verifier<'a, 'v, 'p> {
    pub(super) fn new(
        manifest: Option<&'a Manifest>,
        slots: MarkSlots<'a>,
        visit: &'a mut FrameVisitor<'v>,
        throttle: &'a mut Throttle<'p, VerifyProgress>,
        known: Option<VersionLookup<'a>>,
    ) -> Verifier<'a, 'v, 'p> {
        Verifier {
            visit,
            throttle,
            versions: VersionChecks::new(known),
            removals: Removals::default(),
            indexes: None,
            causes: None,
            heads: Vec::new(),
            after: None,
            report: VerifyReport::default(),
            before: LogBefore::Nothing,
            manifest,
            slots,
            first: 1,
            origin: 0,
            entity: Vec::new(),
        }
    }

    /// Adds a finding at the current place of the walk.
    pub(super) fn add_finding(&mut self, file: &str, offset: u64, what: impl Display) {
        let position = match self.before {
            LogBefore::At(tip) => tip.position.saturating_add(1),
            LogBefore::Nothing | LogBefore::Skipped | LogBefore::Unknown => self.first,
        };
        self.add_finding_at(position, file, offset, what);
    }

    /// Adds a finding at the place of a position.
    pub(super) fn add_finding_at(&mut self, position: u64, file: &str, offset: u64, what: impl Display) {
        let position = position.into();
        // A break may hide any number of events.
        self.versions.note_missing(u64::MAX);
        self.report.findings.push(Finding {
            file: file.to_owned(),
            offset,
            position,
            what: what.to_string(),
        });
    }

    /// Adds a finding where the chain ends. The segment's index cannot be compared behind it.
    fn add_break(&mut self, segment: &SegmentFile, tip: &LogEnd, damage: &Damage) {
        self.add_finding(&segment.path, tip.offset.into(), damage);
        self.indexes.iter_mut().for_each(Indexes::stop_comparing);
    }

    /// Called after the frame's own finding was added: behind a break a gap in versions is no finding.
    fn check_versions(&mut self, segment: &SegmentFile, tip: &LogEnd, steps: &[(String, VersionStep)]) {
        for (entity, step) in steps {
            if self.versions.is_wrong(step) {
                let what = format!("{entity} goes from version {} to {}", step.last, step.version);
                self.add_finding(&segment.path, tip.offset.into(), what);
            }
        }
    }

    /// Adds a frame to the expected index of the segment.
    fn index(&mut self, segment: &SegmentFile, tip: &LogEnd, frame: &Frame<'_>) {
        let Some(indexes) = &mut self.indexes else { return };
        if indexes.insert(segment, tip.offset, frame) {
            return;
        }
        indexes.stop_comparing();
        let is_known = |found: &Finding| {
            (found.file.as_str(), found.offset) == (segment.path.as_str(), tip.offset.into())
        };
        if !self.report.findings.last().is_some_and(is_known) {
            self.add_finding(
                &segment.path,
                tip.offset.into(),
                "an event has another version than the one that comes next",
            );
        }
    }

    /// Walks through a segment by its name.
    pub(super) fn file(&mut self, disk: &dyn Disk, id: SegmentId, end: ExpectedEnd) -> Result<(), Error> {
        let path = id.path();
        self.first = id.first_position;
        let opened = if_there(disk.open(&path, Access::Read));
        let Some(file) = opened.map_err(|error| Error::io("cannot open", &path, error))? else {
            self.add_unreadable(id, missing_text(id));
            return Ok(());
        };
        let header = match SegmentFile::read_header(file.as_ref(), &path)? {
            Ok(header) => header,
            Err(damage) => {
                let is_proven = self.slots.newest().is_some_and(|mark| mark.segment >= id);
                let is_debris = end == ExpectedEnd::Last && !is_proven && could_be_new(file.as_ref(), &path)?;
                if !is_debris || !matches!(damage, Damage::Bad(_)) {
                    self.add_unreadable(id, damage);
                }
                return Ok(());
            }
        };
        if header.id != id {
            self.add_unreadable(id, "the segment is another one than its name says");
            return Ok(());
        }
        self.segment(&Arc::new(SegmentFile { header, path, file }), end)
    }

    pub(super) fn segment(&mut self, segment: &Arc<SegmentFile>, end: ExpectedEnd) -> Result<(), Error> {
        self.first = segment.header.id.first_position;
        self.check_continues(segment);
        if let Some(indexes) = &mut self.indexes {
            indexes.begin(segment)?;
        }
        let limit = if let ExpectedEnd::At(limit) = end { limit } else { u32::MAX };
        let mut cursor = SegmentCursor::new(segment, limit)?;
        let mut walk = SegmentWalk::new(segment, Search::new(cursor.window()));
        loop {
            let tip = walk.tip;
            cursor.move_to(tip);
            self.before = LogBefore::At(tip);
            self.slots.note_place(segment, &tip);
            if self.throttle.advance(tip.offset.saturating_sub(walk.told)).is_err() {
                self.report.broken_off = true;
                return Ok(());
            }
            walk.told = tip.offset;
            if let Some(indexes) = &mut self.indexes {
                indexes.compare_at(&tip)?;
            }
            let continues = match cursor.peek()? {
                SegmentItem::Frame(frame) => {
                    self.frame(segment, &mut walk, &frame);
                    true
                }
                SegmentItem::Attestation(attestation) => {
                    self.attestation(segment, &mut walk, &attestation);
                    true
                }
                SegmentItem::Seal(found) => {
                    self.seal(segment, &mut walk, &found, end)?;
                    false
                }
                SegmentItem::Zeros => {
                    self.zeros(segment, &mut walk, end)?;
                    false
                }
                SegmentItem::Invalid(damage) => {
                    self.invalid(segment, &mut walk, &damage, end, cursor.window())?
                }
            };
            if !continues {
                break;
            }
        }
        if walk.sealed_at.is_none() {
            self.resume_as_listed(segment.header.id);
        }
        self.report.segments += 1;
        self.report.bytes += u64::from(walk.tip.offset);
        if let Some(indexes) = &mut self.indexes {
            indexes.end(walk.sealed_at, segment.header.id, &walk.tip, &mut self.report);
        }
        self.passed(segment, &walk.tip);
        Ok(())
    }

    /// Judges a segment in which only zeros follow.
    fn zeros(
        &mut self,
        segment: &SegmentFile,
        walk: &mut SegmentWalk,
        end: ExpectedEnd,
    ) -> Result<(), Error> {
        let offset = walk.tip.offset;
        let what = match end {
            ExpectedEnd::At(limit) if limit == offset => return Ok(()),
            ExpectedEnd::Last if self.ends_well(&mut walk.evidence, segment, offset)? => return Ok(()),
            ExpectedEnd::Last | ExpectedEnd::At(_) => "acknowledged data is missing",
            ExpectedEnd::Seal => {
                "the segment is not sealed, but a later one exists, or MANIFEST says that it is"
            }
        };
        self.add_finding(&segment.path, offset.into(), what);
        Ok(())
    }

    /// Handles a place where no whole frame begins. Says whether the walk can go on behind it.
    fn invalid(
        &mut self,
        segment: &SegmentFile,
        walk: &mut SegmentWalk,
        damage: &Damage,
        end: ExpectedEnd,
        window: &mut Window<'_>,
    ) -> Result<bool, Error> {
        let may_be_torn = end == ExpectedEnd::Last && matches!(damage, Damage::Bad(_));
        if may_be_torn && self.ends_well(&mut walk.evidence, segment, walk.tip.offset)? {
            return Ok(false);
        }
        self.add_break(segment, &walk.tip, damage);
        walk.is_damaged = true;
        let next = walk.search.resume(window, &walk.tip)?;
        walk.tip = next.unwrap_or(walk.tip);
        Ok(next.is_some())
    }

    /// Checks a whole frame: position, time, versions, chain. The walk goes on where the frame says.
    fn frame(&mut self, segment: &Arc<SegmentFile>, walk: &mut SegmentWalk, frame: &Frame<'_>) {
        let tip = walk.tip;
        self.report.appends += 1;
        let first = segment.header.id.first_position.saturating_add(frame.header.position_offset().into());
        // Each record is parsed once, for the chain and for all other checks.
        self.entity.clear();
        let mut steps = Vec::new();
        let mut wrong = None;
        let mut gone = 0_u16;
        let chain = chain_and_records(&tip.chain, first, frame, |index, record| {
            let AnyRecord::Event(record) = record else {
                gone = gone.saturating_add(1);
                return;
            };
            let position = first.saturating_add(index.into());
            let version = frame.header.version(index, record);
            walk.born = walk.born.saturating_add((version == 1).into());
            self.removals.note_event(position, record);
            wrong = wrong.or_else(|| self.fault_of(frame, index, position, record));
            let step = self.versions.note_event(record.entity_bytes(), version, position);
            steps.extend(step.map(|step| (record.entity().to_owned(), step)));
        });
        self.note_gone(segment, walk, gone, frame);
        let placed = tip.after_frame(segment, frame, false).and_then(|next| {
            // The body checksum of several events was right; each record must be right alone, too.
            frame.check_records(&segment.header.frame_place(tip.offset))?;
            if chain? == next.chain { Ok(next) } else { Err(CHAIN_BROKEN) }
        });
        let next = placed.unwrap_or_else(|damage| {
            self.add_break(segment, &tip, &damage);
            walk.is_damaged = true;
            behind(tip.offset, first, &frame.header, &tip)
        });
        if let Some(what) = wrong {
            self.add_finding(&segment.path, tip.offset.into(), what);
        }
        self.check_versions(segment, &tip, &steps);
        self.index(segment, &tip, frame);
        if let Some(causes) = &mut self.causes {
            causes.note_frame(frame, first);
        }
        self.check_heads(segment, &tip, &next);
        (self.visit)(segment, tip.offset, frame, &next);
        walk.tip = next;
    }

    /// Counts the events of a frame, and those that are gone from it.
    fn note_gone(&mut self, segment: &SegmentFile, walk: &mut SegmentWalk, gone: u16, frame: &Frame<'_>) {
        self.report.events += u64::from(frame.header.events().saturating_sub(gone));
        walk.removed = walk.removed.saturating_add(gone.into());
        self.versions.note_missing(gone.into());
        self.report.removed += u64::from(gone);
        if gone > 0 && segment.header.id.generation == 0 {
            let what = "events are gone from a segment that was never rewritten";
            self.add_finding(&segment.path, walk.tip.offset.into(), what);
        }
    }

    /// What no writer writes, in an event whose record is whole.
    fn fault_of(
        &mut self,
        frame: &Frame<'_>,
        index: u16,
        position: u64,
        record: &Record<'_>,
    ) -> Option<&'static str> {
        let version = frame.header.version(index, record);
        if version == 0 || version > position {
            return Some("an event has a version that it cannot have");
        }
        if record.version().is_none() {
            if self.entity.is_empty() {
                self.entity.extend_from_slice(record.entity_bytes());
            } else if self.entity != record.entity_bytes() {
                return Some("an append of several entities has no versions in its records");
            }
        }
        let own = tags(record.tag_bytes());
        let has_twice =
            own.clone().enumerate().any(|(at, tag)| own.clone().take(at).any(|other| other == tag));
        has_twice.then_some("an event has a tag twice")
    }

    /// Checks an attestation of removed frames. The walk goes on where the attestation says.
    fn attestation(&mut self, segment: &SegmentFile, walk: &mut SegmentWalk, found: &Attestation) {
        let tip = walk.tip;
        let next = tip.after_attestation(segment, found).unwrap_or_else(|damage| {
            self.add_break(segment, &tip, &damage);
            walk.is_damaged = true;
            LogEnd {
                offset: tip.offset.saturating_add(u32::try_from(found.bytes()).unwrap_or(u32::MAX)),
                position: found.last_position(),
                recorded_at: found.last_recorded_at,
                chain: found.chain_after,
                ..tip
            }
        });
        let removed = found.positions();
        walk.removed = walk.removed.saturating_add(u32::try_from(removed).unwrap_or(u32::MAX));
        self.check_heads(segment, &tip, &next);
        self.versions.note_missing(removed);
        self.report.removed += removed;
        self.removals.note_attestation(found);
        walk.tip = next;
    }

    fn seal(
        &mut self,
        segment: &SegmentFile,
        walk: &mut SegmentWalk,
        found: &Seal,
        end: ExpectedEnd,
    ) -> Result<(), Error> {
        let path = &segment.path;
        let tip = walk.tip;
        walk.sealed_at = Some(tip.offset);
        if !walk.is_damaged && tip.seal().ok().as_ref() != Some(found) {
            self.add_finding(path, tip.offset.into(), SEAL_MISFITS);
        }
        self.check_listing(segment, walk, found);
        // A writer that stopped right after the seal leaves a longer file. The next opening truncates it.
        if end == ExpectedEnd::Seal && segment.length()? != u64::from(found.length) {
            self.add_finding(path, found.length.into(), "the segment goes on behind its seal");
        }
        // Goes on with the seal's own values, so that one break is not reported again for each later segment.
        self.before = LogBefore::At(LogEnd {
            position: found.last_position,
            recorded_at: found.last_recorded_at,
            chain: found.chain,
            ..tip
        });
        Ok(())
    }

    /// Whether the last segment may end here: with zeros, or with a tail that opening would truncate. `known`
    /// is the evidence of an earlier break and holds for this one as well. No header repeats more than its
    /// own offset, so a header that proves data behind `end` lies there itself.
    fn ends_well(
        &self,
        known: &mut Option<Evidence>,
        segment: &SegmentFile,
        end: u32,
    ) -> Result<bool, Error> {
        let earlier = match known {
            Some(earlier) => *earlier,
            None => *known.insert(evidence(segment, self.slots.newest(), end)?),
        };
        let last_nonzero = earlier.last_nonzero.filter(|last| *last > end);
        let evidence = Evidence { end, last_nonzero, ..earlier };
        Ok(!matches!(judge(&evidence), Verdict::Corrupt(_)))
    }
}

impl SegmentWalk {
    fn new(segment: &SegmentFile, search: Search) -> SegmentWalk {
        SegmentWalk {
            tip: LogEnd::start(segment),
            search,
            evidence: None,
            told: 0,
            born: 0,
            removed: 0,
            sealed_at: None,
            is_damaged: false,
        }
    }
}
