//! Verifies the files of a store: of one that is open, of one that need not open, and of one that another
//! process writes to.
//!
//! Row: ops.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::asked::Verify;
use super::causes::Rounds;
use super::indexes::{Indexes, Part};
use super::throttle::VerifyThrottle;
use super::twice::Slots;
use super::versions::Known;
use super::{End, Verifier, Visit, known};
use crate::disk::{Access, Disk, if_there};
use crate::engine::Engine;
use crate::format::{Hash, Manifest, Mark, SEGMENTS_DIRECTORY, SegmentId};
use crate::log::{SegmentFile, is_leftover, list, missing_text, read_manifest, read_slots, unlisted_text};
use crate::read::{Segment, Snapshot};
use crate::types::{Error, ErrorKind, VerifyReport};

/// Verifies an open store. One that was opened to read is verified by its files, as one that need not open:
/// the verdict is the same. Of one that this process writes to, up to its head; its segments may be rewritten
/// meanwhile.
pub(crate) fn verify_open(engine: &Engine, asked: Verify<'_>) -> Result<VerifyReport, Error> {
    asked.check()?;
    if !engine.is_read_only() {
        return verify_written(engine, asked);
    }
    let snapshot = engine.snapshot()?;
    let version_at = |entity: &str, position| version_at(&snapshot, entity, position);
    verify_by_names(engine.disk.as_ref(), &mut |_, _, _, _| {}, asked, Some(&version_at))
}

/// The version of an entity's last event up to a position, as the index of a snapshot knows it.
fn version_at(snapshot: &Snapshot, entity: &str, position: u64) -> Result<u64, Error> {
    if position > snapshot.head.position.get() {
        return Err(Error::invalid("the index does not go as far as the log does by now"));
    }
    Ok(snapshot.stream_head_at(entity, position.into())?.0.get())
}

fn verify_written(engine: &Engine, asked: Verify<'_>) -> Result<VerifyReport, Error> {
    let disk = engine.disk.as_ref();
    let manifest = read_manifest(disk);
    // MARK is read before the snapshot is taken: so what it names is in the snapshot.
    let slots = read_slots(disk);
    let snapshot = engine.snapshot()?;
    let missing = missing(engine, &snapshot)?;
    let version_at = |entity: &str, position| version_at(&snapshot, entity, position);
    let manifest_known = known(&manifest);
    let marks = slots.clone().unwrap_or_default();
    let visit: &mut Visit<'_> = &mut |_, _, _, _| {};
    let mut pace = VerifyThrottle::new(asked.tell, asked.rate_max);
    pace.begin(snapshot.bytes());
    let mut verifier =
        Verifier::new(manifest_known.as_ref(), Slots::of(&marks), visit, &mut pace, Some(&version_at));
    verifier.check_small_files(manifest, &slots)?;
    verifier.ask(asked.after, asked.expected, asked.causes);
    if asked.indexes {
        let part = snapshot.segments.iter().filter_map(|part| part.as_sealed()).find(|part| !part.is_whole());
        let part = part.map(|part| (part.meta().bound.segment, part.meta().bound.end));
        verifier.indexes = Indexes::of(disk, manifest_known.as_ref(), Part::EndsAt(part));
    }
    let files: Vec<&[Arc<Segment>]> =
        snapshot.segments.chunk_by(|one, other| one.shares_file(other)).collect();
    let ends: Vec<&Arc<Segment>> = files.iter().filter_map(|parts| parts.last()).collect();
    let mut limits = Vec::with_capacity(ends.len());
    for (index, last) in ends.iter().enumerate() {
        let next = files.get(index + 1).and_then(|parts| parts.first()).map(|next| next.first_position());
        // What the active segment holds beyond its published end is still being written.
        let end = if next.is_none() { End::At(last.end()) } else { End::Seal };
        limits.push(end.limit());
        if verifier.passes_over(next) {
            verifier.slots.pass(last.id());
            continue;
        }
        if missing.contains(&last.id()) {
            verifier.unreadable(last.id(), missing_text(last.id()));
            continue;
        }
        match last.file() {
            // Whatever opening says of it: what is whole in it counts.
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NeedsNewer) => {
                verifier.file(disk, last.id(), end)?;
            }
            file => verifier.segment(file?, end)?,
        }
        if verifier.report.broken_off {
            return Ok(verifier.ended());
        }
    }
    // If MARK was written meanwhile, segments may have been exchanged before the snapshot was taken.
    if read_slots(disk).is_ok_and(|now| now == marks) {
        verifier.check_slots();
    }
    let open = |index: usize| ends[index].file().cloned();
    verifier.look_for_causes(&Rounds { limits: &limits, open: &open })?;
    Ok(verifier.ended())
}

/// The segments whose names are gone, although nobody rewrote them.
fn missing(engine: &Engine, snapshot: &Snapshot) -> Result<BTreeSet<SegmentId>, Error> {
    let names = list(engine.disk.as_ref(), SEGMENTS_DIRECTORY)?;
    let there: BTreeSet<SegmentId> = names.iter().filter_map(|name| SegmentId::parse(name)).collect();
    let ids = |snapshot: &Snapshot| snapshot.segments.iter().map(|part| part.id()).collect::<BTreeSet<_>>();
    let still = ids(&engine.snapshot()?);
    Ok(ids(snapshot).into_iter().filter(|id| still.contains(id) && !there.contains(id)).collect())
}

/// Verifies the files of a store that need not be fit to be opened: what opening would refuse, this
/// finds; what opening would repair, it passes over. `visit` sees what is whole.
pub(crate) fn verify_files_as(
    disk: &dyn Disk,
    visit: &mut Visit<'_>,
    asked: Verify<'_>,
) -> Result<VerifyReport, Error> {
    verify_by_names(disk, visit, asked, None)
}

/// Beside a writer: what MARK says is durable, and if files are exchanged meanwhile, once more.
fn verify_by_names(
    disk: &dyn Disk,
    visit: &mut Visit<'_>,
    mut asked: Verify<'_>,
    version_at: Option<Known<'_>>,
) -> Result<VerifyReport, Error> {
    const TRIES: usize = 5;
    asked.check()?;
    let mut pace = VerifyThrottle::new(asked.tell.take(), asked.rate_max);
    for _ in 1..TRIES {
        let (manifest, is_written) = (read_manifest(disk), is_written(disk)?);
        let digest =
            |read: &ManifestRead| read.as_ref().ok().and_then(|read| read.as_ref().map(|(_, hash)| *hash));
        let before = digest(&manifest);
        let again = Verify { expected: asked.expected.clone(), tell: None, ..asked };
        let report = files(disk, manifest, is_written, visit, &mut pace, again, version_at);
        let is_clean = report.as_ref().is_ok_and(VerifyReport::is_clean);
        if is_clean || !is_written || digest(&read_manifest(disk)) == before {
            return report;
        }
    }
    let is_written = is_written(disk)?;
    files(disk, read_manifest(disk), is_written, visit, &mut pace, asked, version_at)
}

fn is_written(disk: &dyn Disk) -> Result<bool, Error> {
    disk.is_locked().map_err(|error| Error::io("cannot look at", "LOCK", error))
}

type ManifestRead = Result<Option<(Manifest, Hash)>, Error>;

fn files(
    disk: &dyn Disk,
    manifest: ManifestRead,
    is_written: bool,
    visit: &mut Visit<'_>,
    pace: &mut VerifyThrottle<'_>,
    asked: Verify<'_>,
    version_at: Option<Known<'_>>,
) -> Result<VerifyReport, Error> {
    let slots = read_slots(disk);
    let manifest_known = known(&manifest);
    let mut marks = slots.clone().unwrap_or_default();
    // They may speak of what was cut.
    if manifest_known.as_ref().is_some_and(|known| known.is_cut) {
        marks.clear();
    }
    let mut verifier = Verifier::new(manifest_known.as_ref(), Slots::of(&marks), visit, pace, version_at);
    verifier.check_small_files(manifest, &slots)?;
    verifier.ask(asked.after, asked.expected, asked.causes);
    if asked.indexes {
        let part = match is_written {
            true => Part::Unknown,
            false => Part::EndsAt(marks.first().map(|mark| (mark.segment, mark.durable_end))),
        };
        verifier.indexes = Indexes::of(disk, manifest_known.as_ref(), part);
    }
    let names = list(disk, SEGMENTS_DIRECTORY)?;
    let mut ids = verifier.ids(&names);
    let others = match &manifest_known {
        Some(manifest) => others(disk, manifest, &names, &ids)?,
        None => Vec::new(),
    };
    // What lies behind MARK is just being written.
    let written = marks.first().filter(|_| is_written);
    if let Some(mark) = written {
        ids.retain(|id| id.first_position <= mark.segment.first_position);
    }
    if ids.is_empty() {
        verifier.found(SEGMENTS_DIRECTORY, 0, "the store's first segment is missing");
    }
    verifier.pace.begin(bytes_of(disk, &ids)?);
    let mut limits = Vec::with_capacity(ids.len());
    for (index, id) in ids.iter().enumerate() {
        let next = ids.get(index + 1).map(|next| next.first_position);
        let end = end_of(&verifier, *id, next.is_none(), written);
        limits.push(end.limit());
        if verifier.passes_over(next) {
            verifier.slots.pass(*id);
            if !names.contains(&id.file_name()) {
                verifier.found_before(id.first_position, &id.path(), 0, missing_text(*id));
            }
            continue;
        }
        verifier.file(disk, *id, end)?;
        if verifier.report.broken_off {
            return Ok(verifier.ended());
        }
    }
    for id in others {
        verifier.found_before(id.first_position, &id.path(), 0, unlisted_text());
    }
    verifier.check_slots();
    let open = |index: usize| SegmentFile::open(disk, ids[index], Access::Read).map(Arc::new);
    verifier.look_for_causes(&Rounds { limits: &limits, open: &open })?;
    Ok(verifier.ended())
}

/// Files with names of segments that are no part of the log, and nothing that a stop left: they keep a writer out. `own` is sorted.
fn others(
    disk: &dyn Disk,
    manifest: &Manifest,
    names: &[String],
    own: &[SegmentId],
) -> Result<Vec<SegmentId>, Error> {
    let mut others = Vec::new();
    for name in names.iter().filter(|_| !manifest.is_cut) {
        let Some(id) = SegmentId::parse(name).filter(|id| own.binary_search(id).is_err()) else { continue };
        if !is_leftover(disk, manifest, name)? {
            others.push(id);
        }
    }
    Ok(others)
}

/// `written`: what MARK says, if somebody writes to the store. What MANIFEST lists is written to by nobody.
fn end_of(verifier: &Verifier<'_, '_, '_>, id: SegmentId, is_last: bool, written: Option<&Mark>) -> End {
    let durable = written.filter(|mark| mark.segment == id).map(|mark| mark.durable_end);
    match durable {
        _ if verifier.listed(id).is_some() => End::Seal,
        Some(durable) => End::At(durable),
        None if is_last => End::Last,
        None => End::Seal,
    }
}

impl End {
    /// What lies behind is not looked at.
    pub(super) fn limit(self) -> u32 {
        match self {
            End::At(limit) => limit,
            End::Seal | End::Last => u32::MAX,
        }
    }
}

fn bytes_of(disk: &dyn Disk, ids: &[SegmentId]) -> Result<u64, Error> {
    let length = |id: &SegmentId| {
        let length = if_there(disk.open(&id.path(), Access::Read).and_then(|file| file.length()));
        Ok(length.map_err(|error| Error::io("cannot open", &id.path(), error))?.unwrap_or(0))
    };
    ids.iter().map(length).sum()
}
