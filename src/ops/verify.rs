//! Reads a whole store and checks it, from the first byte to the last.
//!
//! Unlike recovery it does not stop at the first break: it looks for the next whole frame and goes
//! on from there. Changes nothing.
//! Row: ops. Tested by tests/it/corrupt.rs.

mod asked;
mod files;
mod heads;
mod indexes;
mod pace;
mod search;
#[cfg(test)]
mod tests;
mod versions;

use std::fmt::Display;
use std::sync::Arc;

use crate::disk::{Access, Disk};
use crate::error::{Error, ErrorKind};
use crate::format::Damage;
use crate::format::chain::{Hash, genesis};
use crate::format::frame::Frame;
use crate::format::manifest::{self, Manifest, SealedSegment};
use crate::format::mark::{self, Mark};
use crate::format::segment::{Attestation, DIRECTORY, Seal, SegmentId};
use crate::head::Head;
use crate::log::judge::{Evidence, Verdict, judge};
use crate::log::repair::{evidence, listing, seal};
use crate::log::scan::{CHAIN_BROKEN, Found, Tip, Window, attested, chain_seeing, follow, found_at};
use crate::log::segment::SegmentFile;
use crate::log::survey::{could_be_new, read_manifest};
use crate::report::{Break, VerifyReport};
use crate::view::Snapshot;

pub use asked::Verify;
pub(crate) use files::verify_files_as;
use indexes::{Indexes, Part};
use pace::Pace;
use search::{Search, behind};
use versions::{Known, Step, Versions};

/// Sees every whole frame: its segment, its offset, and where the log goes on behind it.
pub(crate) type Visit<'a> = dyn FnMut(&Arc<SegmentFile>, u32, &Frame<'_>, &Tip) + 'a;

/// Verifies the segments of an open store up to its head.
pub(crate) fn verify_open(
    disk: &dyn Disk,
    snapshot: &Snapshot,
    asked: Verify<'_>,
) -> Result<VerifyReport, Error> {
    asked.check()?;
    let visit: &mut Visit<'_> = &mut |_, _, _, _| {};
    let manifest = read_manifest(disk);
    let known = known(&manifest);
    let version_at =
        |entity: &str, position: u64| Ok(snapshot.stream_head_at(entity, position.into())?.0.get());
    let mut pace = Pace::new(asked.tell, asked.rate_max);
    pace.begin(snapshot.bytes());
    let mut verifier = Verifier::new(known.as_ref(), None, visit, &mut pace, Some(&version_at));
    verifier.small_file(manifest::NAME, "the file is missing", manifest)?;
    verifier.ask(asked.after, asked.expected);
    if asked.indexes {
        let part = snapshot.segments.iter().filter_map(|part| part.as_stored()).find(|part| !part.is_whole());
        let part = part.map(|part| (part.listed().bound.segment, part.listed().bound.end));
        verifier.indexes = Indexes::of(disk, known.as_ref(), Part::EndsAt(part));
    }
    let mut files = snapshot.segments.chunk_by(|one, other| one.shares_file(other)).peekable();
    while let Some(parts) = files.next() {
        let Some(last) = parts.last() else { continue };
        let next = files.peek().and_then(|parts| parts.first()).map(|next| next.first_position());
        if verifier.passes_over(next) {
            continue;
        }
        // What the active segment holds beyond its published end is still being written.
        let end = if files.peek().is_none() { End::At(last.end()) } else { End::Seal };
        match last.file() {
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NeedsNewer) => {
                verifier.found(&last.path(), 0, error);
                verifier.before = Before::Unknown;
            }
            file => verifier.segment(file?, end)?,
        }
        if verifier.report.broken_off {
            break;
        }
    }
    Ok(verifier.ended())
}

fn known(read: &Result<Option<(Manifest, Hash)>, Error>) -> Option<Manifest> {
    read.as_ref().ok().and_then(|read| read.as_ref().map(|(manifest, _)| manifest.clone()))
}

struct Verifier<'a, 'v, 'p> {
    visit: &'a mut Visit<'v>,
    pace: &'a mut Pace<'p>,
    versions: Versions<'a>,
    /// If they are to be compared.
    indexes: Option<Indexes<'a>>,
    /// Heads that are to be met, and one behind which verifying begins.
    heads: Vec<Head>,
    after: Option<Head>,
    report: VerifyReport,
    before: Before,
    manifest: Option<&'a Manifest>,
    mark: Option<&'a Mark>,
    /// Whether the walk came by the place MARK speaks of.
    mark_met: bool,
}

/// Where the log stands.
#[derive(Clone, Copy)]
enum Before {
    /// At its beginning.
    Nothing,
    At(Tip),
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

impl<'a, 'v, 'p> Verifier<'a, 'v, 'p> {
    fn new(
        manifest: Option<&'a Manifest>,
        mark: Option<&'a Mark>,
        visit: &'a mut Visit<'v>,
        pace: &'a mut Pace<'p>,
        known: Option<Known<'a>>,
    ) -> Verifier<'a, 'v, 'p> {
        let (report, before) = (VerifyReport::default(), Before::Nothing);
        let (versions, heads) = (Versions::new(known), Vec::new());
        Verifier {
            visit,
            pace,
            versions,
            indexes: None,
            heads,
            after: None,
            report,
            before,
            manifest,
            mark,
            mark_met: false,
        }
    }

    fn found(&mut self, file: &str, offset: u64, what: impl Display) {
        let position = match self.before {
            Before::At(tip) => tip.position.saturating_add(1),
            Before::Nothing | Before::Skipped | Before::Unknown => 1,
        };
        let position = position.into();
        // Nobody knows how many events a break has cost.
        self.versions.miss(u64::MAX);
        self.report.breaks.push(Break { file: file.to_owned(), offset, position, what: what.to_string() });
    }

    /// The log cannot be followed here: neither can it be indexed.
    fn broken(&mut self, segment: &SegmentFile, tip: &Tip, damage: &Damage) {
        self.found(&segment.path, tip.offset.into(), damage);
        self.indexes.iter_mut().for_each(Indexes::give_up);
    }

    /// Behind a break gaps are none: so what is broken is reported before.
    fn check_versions(&mut self, segment: &SegmentFile, tip: &Tip, steps: &[(String, Step)]) {
        for (entity, step) in steps {
            if self.versions.is_wrong(step) {
                let what = format!("{entity} goes from version {} to {}", step.last, step.version);
                self.found(&segment.path, tip.offset.into(), what);
            }
        }
    }

    /// Adds a frame to what the segment's index should be.
    fn index(&mut self, segment: &SegmentFile, tip: &Tip, frame: &Frame<'_>) {
        let Some(indexes) = &mut self.indexes else { return };
        if indexes.insert(segment, tip.offset, frame) {
            return;
        }
        indexes.give_up();
        let is_known =
            |found: &Break| (found.file.as_str(), found.offset) == (segment.path.as_str(), tip.offset.into());
        if !self.report.breaks.last().is_some_and(is_known) {
            self.found(
                &segment.path,
                tip.offset.into(),
                "an event has another version than the one that comes next",
            );
        }
    }

    fn small_file<T>(
        &mut self,
        name: &str,
        missing: &str,
        read: Result<Option<T>, Error>,
    ) -> Result<(), Error> {
        match read {
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NeedsNewer) => {
                self.found(name, 0, error);
            }
            Err(error) => return Err(error),
            Ok(None) => self.found(name, 0, missing),
            Ok(Some(_)) => {}
        }
        Ok(())
    }

    fn listed(&self, id: SegmentId) -> Option<&'a SealedSegment> {
        self.manifest.and_then(|manifest| manifest.sealed.iter().find(|sealed| sealed.id == id))
    }

    /// The segments that make up the store, in order, as opening sees them.
    fn ids(&self, names: &[String]) -> Vec<SegmentId> {
        let last = self.manifest.and_then(|manifest| manifest.sealed.last());
        let next = last.map_or(1, |sealed| sealed.last_position.saturating_add(1));
        let ends_here = self.manifest.is_some_and(|manifest| manifest.is_cut);
        let is_ours = |id: &SegmentId| {
            let is_later = !ends_here && id.generation == 0 && id.first_position >= next;
            self.listed(*id).is_some() || is_later
        };
        let mut ids: Vec<SegmentId> =
            names.iter().filter_map(|name| SegmentId::parse(name)).filter(is_ours).collect();
        ids.sort_unstable();
        ids
    }

    /// `durable`: how far it is to be read, if somebody writes to it.
    fn file(
        &mut self,
        disk: &dyn Disk,
        id: SegmentId,
        is_last: bool,
        durable: Option<u32>,
    ) -> Result<(), Error> {
        let path = id.path();
        let file = disk.open(&path, Access::Read).map_err(|error| Error::io("cannot open", &path, error))?;
        let end = match durable {
            Some(durable) => End::At(durable),
            None if is_last && self.listed(id).is_none() => End::Last,
            None => End::Seal,
        };
        let header = match SegmentFile::read_header(file.as_ref(), &path)? {
            Ok(header) => header,
            Err(damage) => {
                let is_proven = self.mark.is_some_and(|mark| mark.segment >= id);
                let is_debris = end == End::Last && !is_proven && could_be_new(file.as_ref(), &path)?;
                if !is_debris || matches!(damage, Damage::Newer(_)) {
                    self.found(&path, 0, damage);
                    self.before = Before::Unknown;
                }
                return Ok(());
            }
        };
        if header.id != id {
            self.found(&path, 0, "the segment is another one than its name says");
        }
        if self.manifest.is_some_and(|manifest| !manifest.knows(&header.store_id)) {
            self.found(&path, 0, "the segment belongs to another store");
        }
        self.segment(&Arc::new(SegmentFile { header, path, file }), end)
    }

    fn segment(&mut self, segment: &Arc<SegmentFile>, end: End) -> Result<(), Error> {
        self.check_continues(segment);
        if let Some(indexes) = &mut self.indexes {
            indexes.begin(segment)?;
        }
        let limit = if let End::At(limit) = end { limit } else { u32::MAX };
        let mut window = Window::new(segment, limit)?;
        let (mut search, mut known) = (Search::new(&window), None);
        let mut tip = Tip::start(segment);
        let (mut behind, mut sealed_at) = (0, None);
        loop {
            self.before = Before::At(tip);
            self.mark_met |= self.mark.is_some_and(|mark| is_met(mark, segment, &tip));
            if self
                .pace
                .went(tip.offset.saturating_sub(std::mem::replace(&mut behind, tip.offset)))
                .is_break()
            {
                self.report.broken_off = true;
                return Ok(());
            }
            if let Some(indexes) = &mut self.indexes {
                indexes.came_to(&tip)?;
            }
            match found_at(&mut window, tip.offset)? {
                Found::Frame(frame) => tip = self.frame(segment, &tip, &frame),
                Found::Attestation(attestation, length) => {
                    tip = self.attestation(segment, &tip, &attestation, length);
                    self.versions.miss(attestation.events.into());
                }
                Found::Seal(found) => {
                    self.seal(segment, &tip, &found, end)?;
                    sealed_at = Some(tip.offset);
                    break;
                }
                Found::Zeros if end == End::Seal => {
                    let what =
                        "the segment is not sealed, but a later one exists, or MANIFEST says that it is";
                    self.found(&segment.path, tip.offset.into(), what);
                    break;
                }
                Found::Zeros if end == End::At(tip.offset) => break,
                Found::Zeros | Found::Invalid(Damage::Bad(_))
                    if end == End::Last && self.ends_well(&mut known, segment, tip.offset)? =>
                {
                    break;
                }
                Found::Zeros => {
                    self.found(&segment.path, tip.offset.into(), "acknowledged data is missing");
                    break;
                }
                Found::Invalid(damage) => {
                    self.broken(segment, &tip, &damage);
                    match search.resume(&mut window, &tip)? {
                        Some(next) => tip = next,
                        None => break,
                    }
                }
            }
        }
        self.report.segments += 1;
        self.report.bytes += u64::from(tip.offset);
        if let Some(indexes) = &mut self.indexes {
            indexes.end(sealed_at, &mut self.report);
        }
        self.is_through(segment, &tip);
        Ok(())
    }

    fn check_continues(&mut self, segment: &SegmentFile) {
        let header = &segment.header;
        let (position, recorded_at, chain) = match self.before {
            Before::Nothing => (0, 0, genesis(&header.store_id)),
            Before::At(tip) => (tip.position, tip.recorded_at, tip.chain),
            Before::Skipped => return self.meet_skipped(segment),
            Before::Unknown => return,
        };
        if header.id.first_position != position.saturating_add(1) {
            self.found(&segment.path, 0, "the segment before this one is missing");
        } else if header.chain_before != chain || header.recorded_before != recorded_at {
            self.found(&segment.path, 0, "the segment does not continue the one before it");
        }
    }

    /// A whole frame: its place, its time and its chain. Whatever it says is where the log goes on.
    fn frame(&mut self, segment: &Arc<SegmentFile>, tip: &Tip, frame: &Frame<'_>) -> Tip {
        self.report.appends += 1;
        self.report.events += u64::from(frame.header.events());
        let first = segment.header.id.first_position.saturating_add(frame.header.position_offset().into());
        // Records are taken apart once, for the chain and for the versions.
        let mut steps = Vec::new();
        let chain = chain_seeing(&tip.chain, first, frame, |index, record| {
            let position = first.saturating_add(u64::try_from(index).expect("a count fits 64 bits"));
            let step = self.versions.meet(record.entity_bytes(), frame.header.version(index), position);
            steps.extend(step.map(|step| (record.entity().to_owned(), step)));
        });
        let placed = follow(segment, tip, frame, false).and_then(|next| match chain? {
            chain if chain == next.chain => Ok(next),
            _ => Err(CHAIN_BROKEN),
        });
        let next = placed.unwrap_or_else(|damage| {
            self.broken(segment, tip, &damage);
            behind(tip.offset, first, &frame.header, tip)
        });
        self.check_versions(segment, tip, &steps);
        self.index(segment, tip, frame);
        self.meet_heads(segment, tip, &next);
        (self.visit)(segment, tip.offset, frame, &next);
        next
    }

    /// Frames that were removed on purpose. What the attestation says is where the log goes on.
    fn attestation(
        &mut self,
        segment: &SegmentFile,
        tip: &Tip,
        found: &Attestation<'_>,
        length: usize,
    ) -> Tip {
        let next = attested(segment, tip, found, length).unwrap_or_else(|damage| {
            self.broken(segment, tip, &damage);
            Tip {
                offset: tip.offset.saturating_add(u32::try_from(length).unwrap_or(u32::MAX)),
                position: found.last_position,
                recorded_at: found.last_recorded_at,
                chain: found.chain_after,
                ..*tip
            }
        });
        self.meet_heads(segment, tip, &next);
        next
    }

    fn seal(&mut self, segment: &SegmentFile, tip: &Tip, found: &Seal, end: End) -> Result<(), Error> {
        let path = &segment.path;
        let is_damaged = self.report.breaks.iter().any(|known| known.file == *path);
        if !is_damaged && seal(tip).ok().as_ref() != Some(found) {
            self.found(path, tip.offset.into(), "the seal does not fit what it seals");
        }
        let listing = listing(&segment.header, found);
        if self.listed(segment.header.id).is_some_and(|listed| !listed.fits(&listing)) {
            self.found(path, tip.offset.into(), "the segment does not end as MANIFEST says");
        }
        // A writer that stopped right behind the seal left the file longer; opening cuts that.
        if end == End::Seal && segment.length()? != u64::from(found.length) {
            self.found(path, found.length.into(), "the segment goes on behind its seal");
        }
        // What the seal says goes on, so that one break is not reported again for each later segment.
        self.before = Before::At(Tip {
            position: found.last_position,
            recorded_at: found.last_recorded_at,
            chain: found.chain,
            ..*tip
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
            None => *known.insert(evidence(segment, self.mark, end)?),
        };
        let last_nonzero = earlier.last_nonzero.filter(|last| *last > end);
        let evidence = Evidence { end, last_nonzero, ..earlier };
        Ok(!matches!(judge(&evidence), Verdict::Corrupt(_)))
    }

    /// `written`: up to where a writer has made sure of; what is sealed behind that is not looked at.
    fn check_listed(&mut self, ids: &[SegmentId], written: Option<&Mark>) {
        if ids.is_empty() {
            self.found(DIRECTORY, 0, "the store's first segment is missing");
        }
        let Some(manifest) = self.manifest else { return };
        let is_looked_at =
            |id: &SegmentId| written.is_none_or(|mark| id.first_position <= mark.segment.first_position);
        for sealed in
            manifest.sealed.iter().filter(|sealed| is_looked_at(&sealed.id) && !ids.contains(&sealed.id))
        {
            self.found(&sealed.id.path(), 0, "the segment is missing");
        }
    }

    fn check_mark(&mut self) {
        let Some(mark) = self.mark else { return };
        let path = mark.segment.path();
        if self.manifest.is_some_and(|manifest| manifest.store_id != mark.store_id) {
            self.found(mark::NAME, 0, "it belongs to another store than MANIFEST");
        } else if !self.mark_met && self.report.breaks.iter().all(|known| known.file != path) {
            let what = "acknowledged data is damaged or missing: MARK speaks of appends that are not there";
            self.found(&path, mark.durable_end.into(), what);
        }
    }
}

/// Whether MARK speaks of this place.
fn is_met(mark: &Mark, segment: &SegmentFile, tip: &Tip) -> bool {
    mark.segment == segment.header.id && tip.is_at(mark)
}
