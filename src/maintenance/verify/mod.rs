//! Verifying: reads a whole store and checks it, from the first byte to the last.
//!
//! Changes nothing. This file has the request and the entry points; `walk.rs` has the walk through the
//! segments. A store that other threads or another process write to is verified up to a place that no longer
//! changes. SPEC.md "Checking a store" lists every check, its verdict, and the place that it names. Tested by
//! tests/it/corrupt.rs, tests/it/checking.rs and the modules tests/it/verify*.rs.

mod cross_checks;
mod remembered;
mod search;
mod side_files;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::disk::{Access, Disk, if_there};
use crate::engine::Engine;
use crate::format::{Hash, Manifest, Mark, SEGMENTS_DIRECTORY, SegmentId};
use crate::log::{SegmentFile, is_leftover, list, missing_text, read_manifest, read_slots, unlisted_text};
use crate::read::{Segment, Snapshot};
use crate::types::{Error, ErrorKind, Head, VerifyProgress, VerifyReport};

use super::throttle::{OnProgress, Throttle};
use cross_checks::Reread;
use remembered::{CAUSE_LIMITS, CauseLimits, VersionLookup};
use side_files::{Indexes, MarkSlots, TrustedIndex};
pub(crate) use walk::FrameVisitor;
use walk::{ExpectedEnd, Verifier, known};

/// Options of verifying a store: how fast, from where, against which heads.
///
/// [`Store::verify`](crate::Store::verify) and [`Builder::verify`](crate::Builder::verify) take none of them:
/// they read everything at full speed.
///
/// In a store of more than 1,800,000 entities (50 MB of memory) the versions met so far are forgotten, and
/// the indexes are asked instead. Events that no index knows count as
/// [`VerifyReport::versions_unchecked`](crate::VerifyReport::versions_unchecked).
///
/// ```
/// use annals::{Raw, Store, Verify};
///
/// let store = Store::in_memory()?;
/// store.append("account:alice", &Raw("account.opened", &()))?;
/// let head = store.head()?;                                   // kept elsewhere
/// store.append("account:alice", &Raw("account.deposited", &500))?;
///
/// let report = Verify::new().expect(head).run(&store)?;
/// assert!(report.is_clean(), "nothing before the head was changed or cut");
/// let verified = report.verified.unwrap().to_string();        // it prints, and parses back
/// let later = Verify::new().after(verified.parse()?).bytes_per_second(50_000_000).run(&store)?;
/// assert!(later.is_clean());
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Default)]
#[must_use = "nothing is verified until it is run"]
pub struct Verify<'a> {
    after: Option<Head>,
    expected: Vec<Head>,
    rate_max: Option<u64>,
    indexes: bool,
    causes: Option<CauseLimits>,
    on_progress: Option<OnProgress<'a, VerifyProgress>>,
}

impl<'a> Verify<'a> {
    /// Everything, at full speed.
    pub fn new() -> Verify<'a> {
        Verify::default()
    }

    /// Begins behind what an earlier run has verified
    /// ([`VerifyReport::verified`](crate::VerifyReport::verified)). Segments that end there are skipped; the
    /// next one must continue them.
    pub fn after(mut self, verified: Head) -> Verify<'a> {
        self.after = Some(verified);
        self
    }

    /// Proves that the store holds the history up to this head, unchanged. The store must be the one that the
    /// head names, or stem from it. Call again for more heads.
    pub fn expect(mut self, head: Head) -> Verify<'a> {
        self.expected.push(head);
        self
    }

    /// Compares index files with the log as well (default: not compared). Each index is built again in
    /// memory, which adds a quarter to the time and needs the memory of the largest segment's index.
    ///
    /// [`VerifyReport::indexes`](crate::VerifyReport::indexes) has the differences.
    ///
    /// A missing file is no finding. Behind a break in a segment its index is not compared. A file that no
    /// reader trusts leaves the report clean: it is damaged, of a newer version, or of another segment or
    /// state.
    pub fn indexes(mut self) -> Verify<'a> {
        self.indexes = true;
        self
    }

    /// Checks that the causes which events name by id are in the store (default: not checked, because an
    /// append may name any id). The events decide, not the indexes. A cause of an erased event counts as
    /// removed. A cause within the last 250,000 ids is found on the way. For the others the log is read once
    /// more, and again for each further 500,000 events that name a cause. It takes some 70 MB of memory at
    /// most. [`VerifyReport::causes`](crate::VerifyReport::causes) has what is missing.
    ///
    /// ```
    /// use annals::{Append, Cause, EventId, Raw, Store, Verify};
    ///
    /// let store = Store::in_memory()?;
    /// let nowhere: EventId = "0198f2a0-5c00-7000-8000-0000042ab3c4".parse().unwrap();
    /// Append::to("mail:3").event(&Raw("mail.sent", &())).cause(Cause::Event(nowhere)).commit(&store)?;
    /// assert!(store.verify()?.is_clean());
    /// let report = Verify::new().causes().run(&store)?;
    /// assert_eq!((report.is_clean(), report.causes[0].cause), (false, nowhere));
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn causes(mut self) -> Verify<'a> {
        self.causes = Some(CAUSE_LIMITS);
        self
    }

    /// Reads at most this many bytes a second (default: no limit).
    pub fn bytes_per_second(mut self, bytes: u64) -> Verify<'a> {
        self.rate_max = Some(bytes.max(1));
        self
    }

    /// Reports progress about every MiB. [`ControlFlow::Break`] ends the run; the report has what was found
    /// by then.
    pub fn on_progress(mut self, tell: impl FnMut(&VerifyProgress) -> ControlFlow<()> + 'a) -> Verify<'a> {
        self.on_progress = Some(Box::new(tell));
        self
    }

    fn check(&self) -> Result<(), Error> {
        let Some(after) = self.after else { return Ok(()) };
        match self.expected.iter().find(|head| head.position() < after.position()) {
            Some(head) => Err(Error::invalid(format!(
                "the head {head} lies before {after}, where verifying is to begin; leave one of them out"
            ))),
            None => Ok(()),
        }
    }
}

/// Not shown to callers: the report says that verifying was broken off, and keeps its findings.
const CANCELLED: &str = "verifying was broken off, as asked";

/// Verifies an open store.
///
/// A store that is open for reading is verified by its files, with the same verdict as a closed one. A store
/// that this process writes to is verified up to its head; its segments may be rewritten at the same time.
pub(crate) fn verify_open(engine: &Engine, asked: Verify<'_>) -> Result<VerifyReport, Error> {
    asked.check()?;
    if !engine.is_read_only() {
        return verify_written(engine, asked);
    }
    let snapshot = engine.snapshot()?;
    let version_at = |entity: &str, position| version_at(&snapshot, entity, position);
    verify_by_names(engine.disk.as_ref(), &mut |_, _, _, _| {}, asked, Some(&version_at))
}

/// The version of an entity's last event up to a position, from the index of a snapshot.
fn version_at(snapshot: &Snapshot, entity: &str, position: u64) -> Result<u64, Error> {
    if position > snapshot.head.position.get() {
        return Err(Error::invalid("the index does not go as far as the log does by now"));
    }
    Ok(snapshot.stream_head_at(entity, position.into())?.0.get())
}

fn verify_written(engine: &Engine, asked: Verify<'_>) -> Result<VerifyReport, Error> {
    let disk = engine.disk.as_ref();
    let manifest = read_manifest(disk);
    // MARK is read before the snapshot: so the snapshot holds every append that MARK names.
    let slots = read_slots(disk);
    let snapshot = engine.snapshot()?;
    let missing = missing(engine, &snapshot)?;
    let version_at = |entity: &str, position| version_at(&snapshot, entity, position);
    let manifest_known = known(&manifest);
    let marks = slots.clone().unwrap_or_default();
    let visit: &mut FrameVisitor<'_> = &mut |_, _, _, _| {};
    let mut throttle = Throttle::new(asked.on_progress, asked.rate_max, CANCELLED);
    let bytes = snapshot.bytes();
    throttle.restart(bytes);
    let mut verifier = Verifier::new(
        manifest_known.as_ref(),
        MarkSlots::of(&marks),
        visit,
        &mut throttle,
        Some(&version_at),
    );
    verifier.check_small_files(manifest, &slots)?;
    verifier.set_goals(asked.after, asked.expected, asked.causes);
    if asked.indexes {
        let trusted = TrustedIndex::of_marks(&marks);
        verifier.indexes = Indexes::of(disk, manifest_known.as_ref(), trusted);
    }
    let files: Vec<&[Arc<Segment>]> =
        snapshot.segments.chunk_by(|one, other| one.shares_file(other)).collect();
    let ends: Vec<&Arc<Segment>> = files.iter().filter_map(|parts| parts.last()).collect();
    let mut limits = Vec::with_capacity(ends.len());
    for (index, last) in ends.iter().enumerate() {
        let next = files.get(index + 1).and_then(|parts| parts.first()).map(|next| next.first_position());
        // Behind the published end of the live segment the writer may be writing just now.
        let end = if next.is_none() { ExpectedEnd::At(last.end()) } else { ExpectedEnd::Seal };
        limits.push(end.limit());
        if verifier.passes_over(next) {
            verifier.slots.note_skipped(last.id());
            continue;
        }
        if missing.contains(&last.id()) {
            verifier.add_unreadable(last.id(), missing_text(last.id()));
            continue;
        }
        match last.file() {
            // Opening refuses this segment. Its whole frames still count, so its file is read directly.
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NeedsNewer) => {
                verifier.file(disk, last.id(), end)?;
            }
            file => verifier.segment(file?, end)?,
        }
        if verifier.report.broken_off {
            return Ok(verifier.into_report());
        }
    }
    // If MARK changed, segments may have been replaced between reading MARK and taking the snapshot.
    if read_slots(disk).is_ok_and(|now| now == marks) {
        verifier.check_slots();
    }
    let open = |index: usize| ends[index].file().cloned();
    verifier.look_for_causes(&Reread { bytes, limits: &limits, open: &open })?;
    Ok(verifier.into_report())
}

/// Segments whose files are gone although no rewriting replaced them.
fn missing(engine: &Engine, snapshot: &Snapshot) -> Result<BTreeSet<SegmentId>, Error> {
    let names = list(engine.disk.as_ref(), SEGMENTS_DIRECTORY)?;
    let there: BTreeSet<SegmentId> = names.iter().filter_map(|name| SegmentId::parse(name)).collect();
    let ids = |snapshot: &Snapshot| snapshot.segments.iter().map(|part| part.id()).collect::<BTreeSet<_>>();
    let still = ids(&engine.snapshot()?);
    Ok(ids(snapshot).into_iter().filter(|id| still.contains(id) && !there.contains(id)).collect())
}

/// Verifies the files of a store that need not open. What opening would refuse is a finding; what opening
/// would repair is none. `visit` sees every whole frame.
pub(crate) fn verify_files_as(
    disk: &dyn Disk,
    visit: &mut FrameVisitor<'_>,
    asked: Verify<'_>,
) -> Result<VerifyReport, Error> {
    verify_by_names(disk, visit, asked, None)
}

/// Beside a writer only what MARK proves durable is verified. If files are replaced during the run, it runs
/// again.
fn verify_by_names(
    disk: &dyn Disk,
    visit: &mut FrameVisitor<'_>,
    mut asked: Verify<'_>,
    version_at: Option<VersionLookup<'_>>,
) -> Result<VerifyReport, Error> {
    const TRIES: usize = 5;
    asked.check()?;
    let mut throttle = Throttle::new(asked.on_progress.take(), asked.rate_max, CANCELLED);
    for _ in 1..TRIES {
        let manifest = read_manifest(disk);
        let is_written = is_written(disk)?;
        let digest =
            |read: &ManifestRead| read.as_ref().ok().and_then(|read| read.as_ref().map(|(_, hash)| *hash));
        let before = digest(&manifest);
        let again = Verify { expected: asked.expected.clone(), on_progress: None, ..asked };
        let report = verify_once(disk, manifest, is_written, visit, &mut throttle, again, version_at);
        let is_clean = report.as_ref().is_ok_and(VerifyReport::is_clean);
        if is_clean || !is_written || digest(&read_manifest(disk)) == before {
            return report;
        }
    }
    let is_written = is_written(disk)?;
    verify_once(disk, read_manifest(disk), is_written, visit, &mut throttle, asked, version_at)
}

fn is_written(disk: &dyn Disk) -> Result<bool, Error> {
    disk.is_locked().map_err(|error| Error::io("cannot look at", "LOCK", error))
}

type ManifestRead = Result<Option<(Manifest, Hash)>, Error>;

fn verify_once(
    disk: &dyn Disk,
    manifest: ManifestRead,
    is_written: bool,
    visit: &mut FrameVisitor<'_>,
    throttle: &mut Throttle<'_, VerifyProgress>,
    asked: Verify<'_>,
    version_at: Option<VersionLookup<'_>>,
) -> Result<VerifyReport, Error> {
    let slots = read_slots(disk);
    let manifest_known = known(&manifest);
    let mut marks = slots.clone().unwrap_or_default();
    // After a cut the slots may name appends that were cut.
    if manifest_known.as_ref().is_some_and(|known| known.is_cut) {
        marks.clear();
    }
    let mut verifier =
        Verifier::new(manifest_known.as_ref(), MarkSlots::of(&marks), visit, throttle, version_at);
    verifier.check_small_files(manifest, &slots)?;
    verifier.set_goals(asked.after, asked.expected, asked.causes);
    if asked.indexes {
        let part = match is_written {
            true => TrustedIndex::Unknown,
            false => TrustedIndex::of_marks(&marks),
        };
        verifier.indexes = Indexes::of(disk, manifest_known.as_ref(), part);
    }
    let names = list(disk, SEGMENTS_DIRECTORY)?;
    let mut ids = verifier.ids(&names);
    let others = match &manifest_known {
        Some(manifest) => others(disk, manifest, &names, &ids)?,
        None => Vec::new(),
    };
    // Behind the place that MARK names the writer may be writing just now.
    let written = marks.first().filter(|_| is_written);
    if let Some(mark) = written {
        ids.retain(|id| id.first_position <= mark.segment.first_position);
    }
    if ids.is_empty() {
        verifier.add_finding(SEGMENTS_DIRECTORY, 0, "the store's first segment is missing");
    }
    let bytes = bytes_of(disk, &ids)?;
    verifier.throttle.restart(bytes);
    let mut limits = Vec::with_capacity(ids.len());
    for (index, id) in ids.iter().enumerate() {
        let next = ids.get(index + 1).map(|next| next.first_position);
        let end = end_of(&verifier, *id, next.is_none(), written);
        limits.push(end.limit());
        if verifier.passes_over(next) {
            verifier.slots.note_skipped(*id);
            if !names.contains(&id.file_name()) {
                verifier.add_finding_at(id.first_position, &id.path(), 0, missing_text(*id));
            }
            continue;
        }
        verifier.file(disk, *id, end)?;
        if verifier.report.broken_off {
            return Ok(verifier.into_report());
        }
    }
    for id in others {
        verifier.add_finding_at(id.first_position, &id.path(), 0, unlisted_text());
    }
    verifier.check_slots();
    let open = |index: usize| SegmentFile::open(disk, ids[index], Access::Read).map(Arc::new);
    verifier.look_for_causes(&Reread { bytes, limits: &limits, open: &open })?;
    Ok(verifier.into_report())
}

/// Files named like segments that are neither part of the log nor left by a stop. They keep a writer from
/// opening.
///
/// `own` is sorted.
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

/// `written` is MARK, if the store has a writer. A segment that MANIFEST lists has no writer.
fn end_of(
    verifier: &Verifier<'_, '_, '_>,
    id: SegmentId,
    is_last: bool,
    written: Option<&Mark>,
) -> ExpectedEnd {
    let durable = written.filter(|mark| mark.segment == id).map(|mark| mark.durable_end);
    match durable {
        _ if verifier.listed(id).is_some() => ExpectedEnd::Seal,
        Some(durable) => ExpectedEnd::At(durable),
        None if is_last => ExpectedEnd::Last,
        None => ExpectedEnd::Seal,
    }
}

fn bytes_of(disk: &dyn Disk, ids: &[SegmentId]) -> Result<u64, Error> {
    let length = |id: &SegmentId| {
        let length = if_there(disk.open(&id.path(), Access::Read).and_then(|file| file.length()));
        Ok(length.map_err(|error| Error::io("cannot open", &id.path(), error))?.unwrap_or(0))
    };
    ids.iter().map(length).sum()
}
