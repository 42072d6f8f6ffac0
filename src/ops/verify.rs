//! Reads a whole store and checks it, from the first byte to the last.
//!
//! Unlike recovery it does not stop at the first break: it looks for the next whole frame and goes
//! on from there. Changes nothing.
//! Row: ops. Tested by tests/it/corrupt.rs.

use std::fmt::Display;

use crate::disk::{Access, Disk};
use crate::error::{Error, ErrorKind};
use crate::format::ALIGN;
use crate::format::frame::{self, Frame};
use crate::format::manifest::{self, Manifest};
use crate::format::mark::{self, Mark};
use crate::format::segment::{Attestation, DIRECTORY, Seal, SegmentId};
use crate::log::judge::{Verdict, judge};
use crate::log::recover::{evidence, list, read_manifest, read_mark, seal};
use crate::log::scan::{Found, Tip, Window, attested, chain_after, found_at};
use crate::log::segment::SegmentFile;
use crate::report::{Break, VerifyReport};
use crate::view::Snapshot;

/// Verifies the segments of an open store up to its head.
pub(crate) fn verify_open(snapshot: &Snapshot) -> Result<VerifyReport, Error> {
    let mut verifier = Verifier::default();
    let last = snapshot.segments.len().saturating_sub(1);
    for (index, segment) in snapshot.segments.iter().enumerate() {
        // What the active segment holds beyond its published end is still being written.
        let limit = if index == last { segment.end() } else { u32::MAX };
        verifier.segment(&segment.file, limit, None)?;
    }
    Ok(verifier.report)
}

/// Verifies the files of a store that need not be fit to be opened.
pub(crate) fn verify_files(disk: &dyn Disk) -> Result<VerifyReport, Error> {
    let mut verifier = Verifier::default();
    let manifest = verifier.small_file(manifest::NAME, read_manifest(disk))?.flatten();
    let mark = verifier.small_file(mark::NAME, read_mark(disk))?.flatten();
    let listed = manifest.as_ref().map(|(manifest, _)| manifest);
    if listed.is_none() {
        verifier.found(manifest::NAME, 0, "the file is missing or damaged");
    }
    if mark.is_none() {
        verifier.found(mark::NAME, 0, "the file is missing or both its slots are damaged");
    }
    let mut ids: Vec<SegmentId> =
        list(disk, DIRECTORY)?.iter().filter_map(|name| SegmentId::parse(name)).collect();
    ids.sort_unstable();
    for (index, id) in ids.iter().enumerate() {
        let is_last = index + 1 == ids.len();
        verifier.file(disk, *id, listed, is_last.then_some(mark.as_ref()))?;
    }
    verifier.check_listed(listed, &ids);
    verifier.check_mark(mark.as_ref());
    Ok(verifier.report)
}

#[derive(Default)]
struct Verifier {
    report: VerifyReport,
    /// Where the log stands; `None` before the first segment and behind one that could not be read.
    tip: Option<Tip>,
}

impl Verifier {
    fn found(&mut self, file: &str, offset: u64, what: impl Display) {
        let position = self.tip.map_or(0, |tip| tip.position).saturating_add(1).into();
        self.report.breaks.push(Break { file: file.to_owned(), offset, position, what: what.to_string() });
    }

    fn small_file<T>(&mut self, name: &str, read: Result<T, Error>) -> Result<Option<T>, Error> {
        match read {
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NeedsNewer) => {
                self.found(name, 0, error);
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    fn file(
        &mut self,
        disk: &dyn Disk,
        id: SegmentId,
        manifest: Option<&Manifest>,
        last: Option<Option<&Mark>>,
    ) -> Result<(), Error> {
        let path = id.path();
        let file = disk.open(&path, Access::Read).map_err(|error| Error::io("cannot open", &path, error))?;
        let header = match SegmentFile::read_header(file.as_ref(), &path)? {
            Ok(header) => header,
            Err(damage) => {
                self.found(&path, 0, damage);
                self.tip = None;
                return Ok(());
            }
        };
        if header.id != id {
            self.found(&path, 0, "the segment is another one than its name says");
        }
        if manifest
            .is_some_and(|manifest| manifest.store_id != header.store_id && manifest.lineage.is_empty())
        {
            self.found(&path, 0, "the segment belongs to another store");
        }
        self.segment(&SegmentFile { header, path, file }, u32::MAX, last)
    }

    /// `last`: this is the last segment, so it need not be sealed, and its end is judged by MARK.
    fn segment(
        &mut self,
        segment: &SegmentFile,
        limit: u32,
        last: Option<Option<&Mark>>,
    ) -> Result<(), Error> {
        self.check_continues(segment);
        let mut window = Window::new(segment, limit)?;
        let mut tip = Tip::start(segment);
        let needs_seal = limit == u32::MAX && last.is_none();
        loop {
            self.tip = Some(tip);
            match found_at(&mut window, tip.offset)? {
                Found::Frame(frame) => tip = self.frame(segment, &tip, &frame),
                Found::Attestation(attestation, length) => {
                    tip = self.attestation(segment, &tip, &attestation, length);
                }
                Found::Seal(found) => {
                    self.seal(segment, &tip, &found);
                    break;
                }
                Found::Zeros if needs_seal => {
                    self.found(
                        &segment.path,
                        tip.offset.into(),
                        "the segment is not sealed, but a later one exists",
                    );
                    break;
                }
                Found::Zeros if self.ends_well(segment, last, tip.offset)? => break,
                Found::Invalid(_) if last.is_some() && self.ends_well(segment, last, tip.offset)? => break,
                Found::Zeros => {
                    self.found(&segment.path, tip.offset.into(), "acknowledged data is missing");
                    break;
                }
                Found::Invalid(damage) => {
                    self.found(&segment.path, tip.offset.into(), damage);
                    match resume(&mut window, &tip)? {
                        Some(next) => tip = next,
                        None => break,
                    }
                }
            }
        }
        self.report.segments += 1;
        self.report.bytes += u64::from(tip.offset);
        Ok(())
    }

    fn check_continues(&mut self, segment: &SegmentFile) {
        let header = &segment.header;
        let Some(before) = self.tip else {
            if self.report.segments == 0 && header.id.first_position != 1 {
                self.found(&segment.path, 0, "the segments before this one are missing");
            }
            return;
        };
        if header.id.first_position != before.position.saturating_add(1) {
            self.found(&segment.path, 0, "the segment before this one is missing");
        } else if header.chain_before != before.chain {
            self.found(&segment.path, 0, "the segment does not continue the hash chain");
        }
    }

    /// A whole frame: its place, its time and its chain. Whatever it says is where the log goes on.
    fn frame(&mut self, segment: &SegmentFile, tip: &Tip, frame: &Frame<'_>) -> Tip {
        let header = &frame.header;
        let first = segment.header.id.first_position.saturating_add(header.position_offset.into());
        let offset = u64::from(tip.offset);
        if first != tip.position.saturating_add(1) {
            self.found(&segment.path, offset, "a frame has another position than the one that comes next");
        }
        if header.recorded_at < tip.recorded_at {
            self.found(&segment.path, offset, "a frame was recorded before the one in front of it");
        }
        match chain_after(&tip.chain, first, frame) {
            Ok(chain) if chain == header.chain => {}
            Ok(_) => self.found(&segment.path, offset, "a frame does not continue the hash chain"),
            Err(damage) => self.found(&segment.path, offset, damage),
        }
        self.report.appends += 1;
        self.report.events += u64::from(header.events);
        behind(tip.offset, first, &frame.header, tip)
    }

    /// Frames that were removed on purpose. What the attestation says is where the log goes on.
    fn attestation(
        &mut self,
        segment: &SegmentFile,
        tip: &Tip,
        found: &Attestation<'_>,
        length: usize,
    ) -> Tip {
        attested(segment, tip, found, length).unwrap_or_else(|damage| {
            self.found(&segment.path, tip.offset.into(), damage);
            Tip {
                offset: tip.offset.saturating_add(u32::try_from(length).unwrap_or(u32::MAX)),
                position: found.last_position,
                recorded_at: found.last_recorded_at,
                chain: found.chain_after,
                ..*tip
            }
        })
    }

    fn seal(&mut self, segment: &SegmentFile, tip: &Tip, found: &Seal) {
        let damaged = self.report.breaks.iter().any(|known| known.file == segment.path);
        if !damaged && seal(tip).ok().as_ref() != Some(found) {
            self.found(&segment.path, tip.offset.into(), "the seal does not fit what it seals");
        }
        // What the seal says goes on, so that one break is not reported again for each later segment.
        self.tip = Some(Tip {
            position: found.last_position,
            recorded_at: found.last_recorded_at,
            chain: found.chain,
            ..*tip
        });
    }

    /// Whether the last segment may end here: with zeros, or with a tail that opening would cut.
    fn ends_well(&self, segment: &SegmentFile, last: Option<Option<&Mark>>, end: u32) -> Result<bool, Error> {
        match last {
            Some(mark) => Ok(!matches!(judge(&evidence(segment, mark, end)?), Verdict::Corrupt(_))),
            None => Ok(true),
        }
    }

    fn check_listed(&mut self, manifest: Option<&Manifest>, ids: &[SegmentId]) {
        for sealed in manifest.iter().flat_map(|manifest| &manifest.sealed) {
            if !ids.contains(&sealed.id) {
                self.found(&sealed.id.path(), 0, "the segment is missing");
            }
        }
    }

    fn check_mark(&mut self, mark: Option<&Mark>) {
        let end = self.tip.map_or(0, |tip| tip.position);
        if let Some(mark) = mark.filter(|mark| mark.position > end) {
            let what = format!("acknowledged data is missing: the log went on to position {}", mark.position);
            self.found(&mark.segment.path(), mark.durable_end.into(), what);
        }
    }
}

/// Where the log stands behind a frame at `offset` whose header is whole.
fn behind(offset: u32, first: u64, header: &frame::FrameHeader<'_>, before: &Tip) -> Tip {
    let bytes = u32::try_from(header.frame_bytes()).unwrap_or(u32::MAX);
    Tip {
        offset: offset.saturating_add(bytes),
        position: first.saturating_add(header.events.into()).saturating_sub(1),
        recorded_at: header.recorded_at,
        chain: header.chain,
        frames: before.frames.saturating_add(1),
        events: before.events.saturating_add(header.events.into()),
    }
}

/// The next place behind damage from which the log can be followed again: behind the damaged
/// frame, if its header is whole; else before the next whole header.
fn resume(window: &mut Window<'_>, tip: &Tip) -> Result<Option<Tip>, Error> {
    let segment = window.segment();
    let header = &segment.header;
    let mut offset = tip.offset;
    loop {
        let bytes = window.at(offset, HEADER_LOOKAHEAD)?;
        if bytes.len() < frame::FIXED {
            return Ok(None);
        }
        let Ok(found) = frame::read_header(bytes, header.frame_mark(offset.into())) else {
            offset = offset.saturating_add(u32::try_from(ALIGN).expect("8"));
            continue;
        };
        let first = header.id.first_position.saturating_add(found.position_offset.into());
        let next = behind(offset, first, &found, tip);
        if offset == tip.offset {
            return Ok(Some(next));
        }
        // A frame's chain cannot be undone, so what came before this one is taken from nowhere; the
        // walk meets it, and reports that the chain does not continue.
        return Ok(Some(Tip { offset, position: first.saturating_sub(1), ..*tip }));
    }
}

/// Enough for the header of a frame with a version table of its largest size.
const HEADER_LOOKAHEAD: usize = 1 << 20;
