//! Verifies the files of a store that need not open, also while somebody writes to it.
//!
//! Row: ops.

use super::asked::Verify;
use super::indexes::{Indexes, Part};
use super::pace::Pace;
use super::{Verifier, Visit, known};
use crate::disk::{Access, Disk};
use crate::error::Error;
use crate::format::chain::Hash;
use crate::format::manifest::{self, Manifest};
use crate::format::mark;
use crate::format::segment::{DIRECTORY, SegmentId};
use crate::log::survey::{list, read_manifest, read_mark};
use crate::report::VerifyReport;

/// Verifies the files of a store that need not be fit to be opened: what opening would refuse, this
/// finds; what opening would repair, it passes over. `visit` sees what is whole. Beside a writer: what MARK says is durable,
/// and if files are exchanged meanwhile, once more.
pub(crate) fn verify_files_as(
    disk: &dyn Disk,
    visit: &mut Visit<'_>,
    mut asked: Verify<'_>,
) -> Result<VerifyReport, Error> {
    const TRIES: usize = 5;
    asked.check()?;
    let mut pace = Pace::new(asked.tell.take(), asked.rate_max);
    for _ in 1..TRIES {
        let (manifest, is_written) = (read_manifest(disk), is_written(disk)?);
        let digest =
            |read: &ManifestRead| read.as_ref().ok().and_then(|read| read.as_ref().map(|(_, hash)| *hash));
        let before = digest(&manifest);
        let again = Verify { expected: asked.expected.clone(), tell: None, ..asked };
        let report = files(disk, manifest, is_written, visit, &mut pace, again);
        let is_clean = report.as_ref().is_ok_and(VerifyReport::is_clean);
        if is_clean || !is_written || digest(&read_manifest(disk)) == before {
            return report;
        }
    }
    let is_written = is_written(disk)?;
    files(disk, read_manifest(disk), is_written, visit, &mut pace, asked)
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
    pace: &mut Pace<'_>,
    asked: Verify<'_>,
) -> Result<VerifyReport, Error> {
    let mark = read_mark(disk);
    let (manifest_known, mark_known) = (known(&manifest), mark.as_ref().ok().cloned().flatten());
    // It may speak of what was cut.
    let mark_known = mark_known.filter(|_| manifest_known.as_ref().is_none_or(|known| !known.is_cut));
    let mut verifier = Verifier::new(manifest_known.as_ref(), mark_known.as_ref(), visit, pace, None);
    verifier.small_file(manifest::NAME, "the file is missing", manifest)?;
    verifier.small_file(mark::NAME, "the file is missing or both its slots are damaged", mark)?;
    verifier.ask(asked.after, asked.expected);
    if asked.indexes {
        let part = match is_written {
            true => Part::Unknown,
            false => Part::EndsAt(mark_known.as_ref().map(|mark| (mark.segment, mark.durable_end))),
        };
        verifier.indexes = Indexes::of(disk, manifest_known.as_ref(), part);
    }
    let mut ids = verifier.ids(&list(disk, DIRECTORY)?);
    // What lies behind MARK is just being written.
    let written = mark_known.as_ref().filter(|_| is_written);
    if let Some(mark) = written {
        ids.retain(|id| id.first_position <= mark.segment.first_position);
    }
    verifier.pace.begin(bytes_of(disk, &ids)?);
    for (index, id) in ids.iter().enumerate() {
        let next = ids.get(index + 1).map(|next| next.first_position);
        if verifier.passes_over(next) {
            verifier.mark_met |= mark_known.as_ref().is_some_and(|mark| mark.segment <= *id);
            continue;
        }
        let durable = written.filter(|mark| mark.segment == *id).map(|mark| mark.durable_end);
        verifier.file(disk, *id, next.is_none(), durable)?;
        if verifier.report.broken_off {
            return Ok(verifier.ended());
        }
    }
    verifier.check_listed(&ids, written);
    verifier.check_mark();
    Ok(verifier.ended())
}

fn bytes_of(disk: &dyn Disk, ids: &[SegmentId]) -> Result<u64, Error> {
    let length = |id: &SegmentId| {
        let length = disk.open(&id.path(), Access::Read).and_then(|file| file.length());
        length.map_err(|error| Error::io("cannot open", &id.path(), error))
    };
    ids.iter().map(length).sum()
}
