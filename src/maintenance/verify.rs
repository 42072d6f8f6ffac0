//! Reads a whole store and checks it, from the first byte to the last.
//!
//! Unlike recovery it does not stop at the first break: it looks for the next whole frame and goes
//! on from there. Changes nothing.
//! SPEC.md "Checking a store" has every check, its verdict and the place that it names; the numbers in
//! comments are its rows.
//! Row: ops. Tested by tests/it/corrupt.rs and tests/it/checking.rs.

mod asked;
mod causes;
mod files;
mod heads;
mod indexes;
mod search;
#[cfg(test)]
mod tests;
mod throttle;
mod twice;
mod versions;

use std::fmt::Display;
use std::sync::Arc;

use crate::disk::{Access, Disk};
use crate::format::{Attestation, Damage, Frame, Hash, Manifest, Record, Seal, SegmentId, tags};
use crate::log::{
    CHAIN_BROKEN, Evidence, LogEnd, SEAL_MISFITS, SegmentCursor, SegmentFile, SegmentItem, Verdict, Window,
    chain_and_records, could_be_new, evidence, judge, missing_text,
};
use crate::types::{Error, Finding, Head, VerifyReport, to_u64};

pub use asked::Verify;
use causes::Causes;
pub(crate) use files::{verify_files_as, verify_open};
use indexes::Indexes;
use search::{Search, behind};
use throttle::VerifyThrottle;
use twice::Slots;
use versions::{Known, Step, Versions};

/// Sees every whole frame: its segment, its offset, and where the log goes on behind it.
pub(crate) type Visit<'a> = dyn FnMut(&Arc<SegmentFile>, u32, &Frame<'_>, &LogEnd) + 'a;

fn known(read: &Result<Option<(Manifest, Hash)>, Error>) -> Option<Manifest> {
    read.as_ref().ok().and_then(|read| read.as_ref().map(|(manifest, _)| manifest.clone()))
}

struct Verifier<'a, 'v, 'p> {
    visit: &'a mut Visit<'v>,
    pace: &'a mut VerifyThrottle<'p>,
    versions: Versions<'a>,
    /// If they are to be compared.
    indexes: Option<Indexes<'a>>,
    /// If they are to be looked for.
    causes: Option<Causes>,
    /// Heads that are to be met, and one behind which verifying begins.
    heads: Vec<Head>,
    after: Option<Head>,
    report: VerifyReport,
    before: Before,
    manifest: Option<&'a Manifest>,
    slots: Slots<'a>,
    /// The first position of the segment that is looked at.
    first: u64,
    /// Which of the stores that the log's segments may belong to created the last segment.
    origin: usize,
    /// Of the append that is looked at, the first entity.
    entity: Vec<u8>,
}

/// Where the log stands.
#[derive(Clone, Copy)]
enum Before {
    /// At its beginning.
    Nothing,
    At(LogEnd),
    /// Behind segments that were passed over.
    Skipped,
    /// Behind a segment that could not be read.
    Unknown,
}

/// How a segment must end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// With a seal and the end of the file.
    Seal,
    /// As the last segment of a store that was or was not closed.
    Last,
    /// Not at all: look no further than this.
    At(u32),
}

/// A walk through one segment.
struct Passage {
    tip: LogEnd,
    search: Search,
    /// What was found out about the end at an earlier break.
    evidence: Option<Evidence>,
    /// Bytes that the pace was told of.
    told: u32,
    /// Events of version 1, and events that attestations say were removed.
    born: u32,
    removed: u32,
    sealed_at: Option<u32>,
    is_damaged: bool,
}

impl<'a, 'v, 'p> Verifier<'a, 'v, 'p> {
    fn new(
        manifest: Option<&'a Manifest>,
        slots: Slots<'a>,
        visit: &'a mut Visit<'v>,
        pace: &'a mut VerifyThrottle<'p>,
        known: Option<Known<'a>>,
    ) -> Verifier<'a, 'v, 'p> {
        Verifier {
            visit,
            pace,
            versions: Versions::new(known),
            indexes: None,
            causes: None,
            heads: Vec::new(),
            after: None,
            report: VerifyReport::default(),
            before: Before::Nothing,
            manifest,
            slots,
            first: 1,
            origin: 0,
            entity: Vec::new(),
        }
    }

    /// Something is wrong where the walk stands.
    fn found(&mut self, file: &str, offset: u64, what: impl Display) {
        let position = match self.before {
            Before::At(tip) => tip.position.saturating_add(1),
            Before::Nothing | Before::Skipped | Before::Unknown => self.first,
        };
        self.found_before(position, file, offset, what);
    }

    /// Something is wrong where the event at a position should be.
    fn found_before(&mut self, position: u64, file: &str, offset: u64, what: impl Display) {
        let position = position.into();
        // A break may have cost any number of events.
        self.versions.miss(u64::MAX);
        self.report.findings.push(Finding {
            file: file.to_owned(),
            offset,
            position,
            what: what.to_string(),
        });
    }

    /// The log cannot be followed here: neither can it be indexed.
    fn broken(&mut self, segment: &SegmentFile, tip: &LogEnd, damage: &Damage) {
        self.found(&segment.path, tip.offset.into(), damage);
        self.indexes.iter_mut().for_each(Indexes::give_up);
    }

    /// Behind a break gaps are none: so what is broken is reported before.
    fn check_versions(&mut self, segment: &SegmentFile, tip: &LogEnd, steps: &[(String, Step)]) {
        for (entity, step) in steps {
            if self.versions.is_wrong(step) {
                let what = format!("{entity} goes from version {} to {}", step.last, step.version);
                self.found(&segment.path, tip.offset.into(), what);
            }
        }
    }

    /// Adds a frame to what the segment's index should be.
    fn index(&mut self, segment: &SegmentFile, tip: &LogEnd, frame: &Frame<'_>) {
        let Some(indexes) = &mut self.indexes else { return };
        if indexes.insert(segment, tip.offset, frame) {
            return;
        }
        indexes.give_up();
        let is_known = |found: &Finding| {
            (found.file.as_str(), found.offset) == (segment.path.as_str(), tip.offset.into())
        };
        if !self.report.findings.last().is_some_and(is_known) {
            self.found(
                &segment.path,
                tip.offset.into(),
                "an event has another version than the one that comes next",
            );
        }
    }

    /// A segment by its name.
    fn file(&mut self, disk: &dyn Disk, id: SegmentId, end: End) -> Result<(), Error> {
        let path = id.path();
        self.first = id.first_position;
        let file = match disk.open(&path, Access::Read) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.unreadable(id, missing_text(id));
                return Ok(());
            }
            opened => opened.map_err(|error| Error::io("cannot open", &path, error))?,
        };
        let header = match SegmentFile::read_header(file.as_ref(), &path)? {
            Ok(header) => header,
            Err(damage) => {
                let is_proven = self.slots.newest().is_some_and(|mark| mark.segment >= id);
                let is_debris = end == End::Last && !is_proven && could_be_new(file.as_ref(), &path)?;
                if !is_debris || !matches!(damage, Damage::Bad(_)) {
                    self.unreadable(id, damage);
                }
                return Ok(());
            }
        };
        if header.id != id {
            self.unreadable(id, "the segment is another one than its name says");
            return Ok(());
        }
        self.segment(&Arc::new(SegmentFile { header, path, file }), end)
    }

    fn segment(&mut self, segment: &Arc<SegmentFile>, end: End) -> Result<(), Error> {
        self.first = segment.header.id.first_position;
        self.check_continues(segment);
        if let Some(indexes) = &mut self.indexes {
            indexes.begin(segment)?;
        }
        let limit = if let End::At(limit) = end { limit } else { u32::MAX };
        let mut cursor = SegmentCursor::new(segment, limit)?;
        let mut passage = Passage::new(segment, Search::new(cursor.window()));
        loop {
            let tip = passage.tip;
            cursor.move_to(tip);
            self.before = Before::At(tip);
            self.slots.meet(segment, &tip);
            if self.pace.advance(tip.offset.saturating_sub(passage.told)).is_break() {
                self.report.broken_off = true;
                return Ok(());
            }
            passage.told = tip.offset;
            if let Some(indexes) = &mut self.indexes {
                indexes.came_to(&tip)?;
            }
            let goes_on = match cursor.peek()? {
                SegmentItem::Frame(frame) => {
                    self.frame(segment, &mut passage, &frame);
                    true
                }
                SegmentItem::Attestation(attestation, length) => {
                    self.attestation(segment, &mut passage, &attestation, length);
                    true
                }
                SegmentItem::Seal(found) => {
                    self.seal(segment, &mut passage, &found, end)?;
                    false
                }
                SegmentItem::Zeros => {
                    self.zeros(segment, &mut passage, end)?;
                    false
                }
                SegmentItem::Invalid(damage) => {
                    self.invalid(segment, &mut passage, &damage, end, cursor.window())?
                }
            };
            if !goes_on {
                break;
            }
        }
        if passage.sealed_at.is_none() {
            self.goes_on_as_listed(segment.header.id);
        }
        self.report.segments += 1;
        self.report.bytes += u64::from(passage.tip.offset);
        if let Some(indexes) = &mut self.indexes {
            indexes.end(passage.sealed_at, &mut self.report);
        }
        self.is_through(segment, &passage.tip);
        Ok(())
    }

    /// Nothing but zeros follow.
    fn zeros(&mut self, segment: &SegmentFile, passage: &mut Passage, end: End) -> Result<(), Error> {
        let offset = passage.tip.offset;
        let what = match end {
            End::At(limit) if limit == offset => return Ok(()),
            End::Last if self.ends_well(&mut passage.evidence, segment, offset)? => return Ok(()),
            End::Last | End::At(_) => "acknowledged data is missing",
            End::Seal => "the segment is not sealed, but a later one exists, or MANIFEST says that it is",
        };
        self.found(&segment.path, offset.into(), what);
        Ok(())
    }

    /// Nothing whole begins here. Says whether the log can be followed from a later place.
    fn invalid(
        &mut self,
        segment: &SegmentFile,
        passage: &mut Passage,
        damage: &Damage,
        end: End,
        window: &mut Window<'_>,
    ) -> Result<bool, Error> {
        let may_be_torn = end == End::Last && matches!(damage, Damage::Bad(_));
        if may_be_torn && self.ends_well(&mut passage.evidence, segment, passage.tip.offset)? {
            return Ok(false);
        }
        self.broken(segment, &passage.tip, damage);
        passage.is_damaged = true;
        let next = passage.search.resume(window, &passage.tip)?;
        passage.tip = next.unwrap_or(passage.tip);
        Ok(next.is_some())
    }

    /// A whole frame: its place, its time and its chain. Whatever it says is where the log goes on.
    fn frame(&mut self, segment: &Arc<SegmentFile>, passage: &mut Passage, frame: &Frame<'_>) {
        let tip = passage.tip;
        self.report.appends += 1;
        self.report.events += u64::from(frame.header.events());
        let first = segment.header.id.first_position.saturating_add(frame.header.position_offset().into());
        // Records are taken apart once, for the chain and for all else.
        let mut steps = Vec::new();
        let mut wrong = None;
        let chain = chain_and_records(&tip.chain, first, frame, |index, record| {
            let position = first.saturating_add(to_u64(index));
            let version = frame.header.version(index);
            passage.born = passage.born.saturating_add((version == 1).into());
            wrong = wrong.or_else(|| self.wrong_with(frame, index, position, record));
            let step = self.versions.meet(record.entity_bytes(), version, position);
            steps.extend(step.map(|step| (record.entity().to_owned(), step)));
        });
        let placed = tip.after_frame(segment, frame, false).and_then(|next| match chain? {
            chain if chain == next.chain => Ok(next),
            _ => Err(CHAIN_BROKEN),
        });
        let next = placed.unwrap_or_else(|damage| {
            self.broken(segment, &tip, &damage);
            passage.is_damaged = true;
            behind(tip.offset, first, &frame.header, &tip)
        });
        if let Some(what) = wrong {
            self.found(&segment.path, tip.offset.into(), what);
        }
        self.check_versions(segment, &tip, &steps);
        self.index(segment, &tip, frame);
        if let Some(causes) = &mut self.causes {
            causes.meet(frame, first);
        }
        self.meet_heads(segment, &tip, &next);
        (self.visit)(segment, tip.offset, frame, &next);
        passage.tip = next;
    }

    /// What no writer writes of an event whose record is whole.
    fn wrong_with(
        &mut self,
        frame: &Frame<'_>,
        index: usize,
        position: u64,
        record: &Record<'_>,
    ) -> Option<&'static str> {
        let version = frame.header.version(index);
        if version == 0 || version > position {
            return Some("an event has a version that it cannot have");
        }
        if frame.header.version_table().is_empty() {
            if index == 0 {
                self.entity.clear();
                self.entity.extend_from_slice(record.entity_bytes());
            } else if self.entity != record.entity_bytes() {
                return Some("an append of several entities has no version table");
            }
        }
        let own = tags(record.tag_bytes());
        let has_twice =
            own.clone().enumerate().any(|(at, tag)| own.clone().take(at).any(|other| other == tag));
        has_twice.then_some("an event has a tag twice")
    }

    /// Frames that were removed on purpose. What the attestation says is where the log goes on.
    fn attestation(
        &mut self,
        segment: &SegmentFile,
        passage: &mut Passage,
        found: &Attestation<'_>,
        length: usize,
    ) {
        let tip = passage.tip;
        let next = tip.after_attestation(segment, found, length).unwrap_or_else(|damage| {
            self.broken(segment, &tip, &damage);
            passage.is_damaged = true;
            LogEnd {
                offset: tip.offset.saturating_add(u32::try_from(length).unwrap_or(u32::MAX)),
                position: found.last_position,
                recorded_at: found.last_recorded_at,
                chain: found.chain_after,
                ..tip
            }
        });
        passage.removed = passage.removed.saturating_add(found.events);
        self.meet_heads(segment, &tip, &next);
        self.versions.miss(found.events.into());
        passage.tip = next;
    }

    fn seal(
        &mut self,
        segment: &SegmentFile,
        passage: &mut Passage,
        found: &Seal,
        end: End,
    ) -> Result<(), Error> {
        let (path, tip) = (&segment.path, passage.tip);
        passage.sealed_at = Some(tip.offset);
        if !passage.is_damaged && tip.seal().ok().as_ref() != Some(found) {
            self.found(path, tip.offset.into(), SEAL_MISFITS);
        }
        self.check_listing(segment, passage, found);
        // A writer that stopped right behind the seal left the file longer; opening cuts that.
        if end == End::Seal && segment.length()? != u64::from(found.length) {
            self.found(path, found.length.into(), "the segment goes on behind its seal");
        }
        // What the seal says goes on, so that one break is not reported again for each later segment.
        self.before = Before::At(LogEnd {
            position: found.last_position,
            recorded_at: found.last_recorded_at,
            chain: found.chain,
            ..tip
        });
        Ok(())
    }

    /// Whether the last segment may end here: with zeros, or with a tail that opening would cut.
    ///
    /// `known` is the evidence of an earlier break. It holds for this one, too: no header repeats more
    /// than its own offset, so one that speaks of what is behind `end` lies there itself.
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

impl Passage {
    fn new(segment: &SegmentFile, search: Search) -> Passage {
        Passage {
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
