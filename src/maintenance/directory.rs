//! What lies in a store's directory: its parts, quarantined files, and what a copy finds where it goes.
//!
//! Changes nothing, except [`CopyTarget::survey`], which removes the half-written files of an interrupted
//! copy.
//!
//! Tested by tests/it/maintenance.rs and tests/it/archive.rs.

use std::collections::BTreeSet;

use crate::disk::{Access, Disk, if_there};
use crate::engine::Engine;
use crate::format::{Hash, Manifest, Mark, SEGMENTS_DIRECTORY, SegmentId, manifest, mark};
use crate::log::{SegmentFile, list, read_manifest, read_mark};
use crate::types::{Description, Error, Options, StoreFile};

/// This file exists while an erasure may be unfinished.
pub(crate) const ERASING_FILE: &str = "ERASING";
/// The directory of saved states.
pub(super) const CACHE: &str = "cache";
/// The directory of what recovery and rollback set aside.
const QUARANTINE: &str = "quarantine";
/// Index files and tree files stand among the segments.
const INDEXES: &str = "segments/*.idx";
const TREES: &str = "segments/*.tree";

/// Every name that annals gives a file or directory of a store.
const KNOWN: [&str; 8] = [
    "LOCK",
    manifest::NAME,
    manifest::TEMPORARY,
    mark::NAME,
    SEGMENTS_DIRECTORY,
    CACHE,
    QUARANTINE,
    ERASING_FILE,
];

/// The parts of a store for [`describe`]: name, whether it is a directory, and its purpose.
const PARTS: [(&str, bool, &str); 9] = [
    ("LOCK", false, "locked by the one writer; holds its process id, for people; never deleted"),
    ("MANIFEST", false, "the segments that are sealed; replaced as a whole when one more is"),
    ("MARK", false, "how far the log is proven durable; written after each sync"),
    ("ERASING", false, "an erasure may be unfinished; the next opening for writing finishes it"),
    ("segments", true, "the events, the only truth; keep every file"),
    (INDEXES, true, "indexes of the segments; may be deleted, costs only time"),
    (TREES, true, "hashes of the segments' events, for proofs; may be deleted, costs only time"),
    ("quarantine", true, "torn tails that recovery cut, and history that rollback set aside; may be deleted"),
    ("cache", true, "states folded from events; may be deleted, costs only time"),
];

pub(crate) fn describe(engine: &Engine) -> Result<Description, Error> {
    let snapshot = engine.snapshot()?;
    let disk = engine.disk.as_ref();
    // What is left of a damaged store is described, too.
    let manifest = read_manifest(disk).ok().flatten();
    let mut parts = Vec::new();
    for (name, is_directory, why) in PARTS {
        parts.extend(part(disk, name, is_directory, why)?);
    }
    for name in list(disk, "")? {
        if PARTS.iter().all(|(known, _, _)| *known != name) {
            parts.push(StoreFile { name, files: 1, bytes: 0, why: "not of annals; left alone" });
        }
    }
    Ok(Description {
        place: disk.place(),
        store_id: uuid::Uuid::from_bytes(engine.store_id).to_string(),
        line: manifest.map(|(manifest, _)| manifest.line.iter().map(|byte| format!("{byte:02x}")).collect()),
        head: snapshot.head.position,
        durable_head: snapshot.durable.position,
        writer: engine.writer()?,
        parts,
        options: options(&engine.options),
    })
}

fn part(
    disk: &dyn Disk,
    name: &str,
    is_directory: bool,
    why: &'static str,
) -> Result<Option<StoreFile>, Error> {
    let paths = match is_directory {
        true if name == QUARANTINE => quarantined(disk)?.files,
        true => {
            let directory = name.split('/').next().unwrap_or(name);
            let mut files = list(disk, directory)?;
            if directory == SEGMENTS_DIRECTORY {
                files.retain(|file| kind_of(file) == name);
            }
            files.into_iter().map(|file| format!("{directory}/{file}")).collect()
        }
        false => vec![name.to_owned()],
    };
    let mut part = StoreFile { name: name.to_owned(), files: 0, bytes: 0, why };
    for path in paths {
        let length = if_there(disk.open(&path, Access::Read).and_then(|file| file.length()));
        if let Some(bytes) = length.map_err(|error| Error::io("cannot look at", &path, error))? {
            part.files += 1;
            part.bytes = part.bytes.saturating_add(bytes);
        }
    }
    Ok((part.files > 0).then_some(part))
}

/// The part that a file among the segments belongs to.
fn kind_of(file: &str) -> &'static str {
    match file {
        _ if file.contains(".idx") => INDEXES,
        _ if file.contains(".tree") => TREES,
        _ => SEGMENTS_DIRECTORY,
    }
}

fn options(options: &Options) -> Vec<(&'static str, String)> {
    let or_none =
        |time: Option<std::time::Duration>| time.map_or("none".to_owned(), |time| format!("{time:?}"));
    vec![
        ("durability", format!("{:?}", options.durability)),
        ("key_window", format!("{:?}", options.key_window)),
        ("limits", format!("{:?}", options.limits)),
        ("segment_bytes_max", options.segment_bytes_max.to_string()),
        ("unsynced_bytes_max", options.unsynced_bytes_max.to_string()),
        ("group_commands_max", options.group_commands_max.to_string()),
        ("group_bytes_max", options.group_bytes_max.to_string()),
        ("queue_commands_max", options.queue_commands_max.to_string()),
        ("queue_bytes_max", options.queue_bytes_max.to_string()),
        ("queue_deadline", or_none(options.queue_deadline)),
        ("ack_deadline", or_none(options.ack_deadline)),
        ("space_probe_every", format!("{:?}", options.space_probe_every)),
        ("restart", format!("{:?}", options.restart)),
        ("follow_every", format!("{:?}", options.follow_every)),
        ("recent_bytes_max", options.recent_bytes_max.to_string()),
        ("cache_memory_bytes", options.cache_memory_bytes.to_string()),
        ("cache_disk_bytes", options.cache_disk_bytes.to_string()),
        ("index_memory_bytes", options.index_memory_bytes.to_string()),
        ("segment_memory_bytes", options.segment_memory_bytes.to_string()),
        ("tree", options.tree.to_string()),
        ("operator", options.operator.clone().unwrap_or_else(|| "the process".to_owned())),
        ("scrub", format!("{} bytes a second", options.scrub_bytes_per_second)),
    ]
}

/// The files in quarantine, by path.
#[derive(Default)]
pub(crate) struct QuarantinedFiles {
    pub(crate) files: Vec<String>,
    /// Each after its parent.
    pub(crate) directories: Vec<String>,
}

/// Lists everything in quarantine.
pub(crate) fn quarantined(disk: &dyn Disk) -> Result<QuarantinedFiles, Error> {
    let mut found = QuarantinedFiles::default();
    let mut next = vec![QUARANTINE.to_owned()];
    while let Some(directory) = next.pop() {
        for name in list(disk, &directory)? {
            let path = format!("{directory}/{name}");
            // A directory cannot be opened for reading, so a failed open means a directory.
            let is_file = disk.open(&path, Access::Read).is_ok();
            if is_file { &mut found.files } else { &mut next }.push(path);
        }
        found.directories.push(directory);
    }
    Ok(found)
}

/// What a copy finds in the directory it fills.
pub(crate) struct CopyTarget {
    /// MANIFEST of the store there, or of an earlier copy that was finished.
    pub(crate) manifest: Option<(Manifest, Hash)>,
    pub(crate) mark: Option<Mark>,
    pub(crate) segments: BTreeSet<SegmentId>,
}

impl CopyTarget {
    /// Reads a directory that is to hold the history of `source`. Removes half-written files of an
    /// interrupted copy.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) if the directory holds other files, or belongs to another
    /// store.
    pub(crate) fn survey(disk: &dyn Disk, source: &Manifest) -> Result<CopyTarget, Error> {
        let refused =
            |what: String| Err(Error::invalid(format!("{} {what}; choose an empty directory", disk.place())));
        for name in list(disk, "")? {
            if !KNOWN.contains(&name.as_str()) {
                return refused(format!("holds {name}, which is not of annals"));
            }
        }
        let mut target =
            CopyTarget { manifest: read_manifest(disk)?, mark: read_mark(disk)?, segments: BTreeSet::new() };
        if target.manifest.as_ref().is_some_and(|(own, _)| own.store_id != source.store_id) {
            return refused("holds another store".to_owned());
        }
        for name in list(disk, SEGMENTS_DIRECTORY)? {
            match (SegmentId::parse(&name), SegmentId::parse_temporary(&name)) {
                (Some(id), _) if may_belong_to(disk, id, source)? => drop(target.segments.insert(id)),
                (Some(_), _) => return refused(format!("holds {name}, a segment of another store")),
                (None, Some(_)) => remove(disk, &format!("{SEGMENTS_DIRECTORY}/{name}"))?,
                (None, None) if SegmentId::parse_side_file(&name).is_some() => {}
                (None, None) => {
                    return refused(format!("holds {SEGMENTS_DIRECTORY}/{name}, which is not of annals"));
                }
            }
        }
        Ok(target)
    }

    /// Checks that the directory holds no store yet.
    pub(crate) fn check_new(&self, disk: &dyn Disk) -> Result<(), Error> {
        match self.manifest {
            Some(_) => {
                let text = format!("there is a store in {} already; choose a new directory", disk.place());
                Err(Error::invalid(text))
            }
            None => Ok(()),
        }
    }

    /// Whether MANIFEST lists the segment.
    pub(crate) fn lists(&self, id: SegmentId) -> bool {
        let (manifest, _) = match &self.manifest {
            Some(manifest) => manifest,
            None => return false,
        };
        manifest.sealed.iter().any(|sealed| sealed.id == id)
    }
}

/// Whether a segment's file may be one of the source's. A file without a whole header was cut short, and may.
fn may_belong_to(disk: &dyn Disk, id: SegmentId, source: &Manifest) -> Result<bool, Error> {
    let path = id.path();
    let file = disk.open(&path, Access::Read).map_err(|error| Error::io("cannot open", &path, error))?;
    let header = SegmentFile::read_header(file.as_ref(), &path)?;
    Ok(header.map_or(true, |header| source.knows(&header.store_id)))
}

pub(crate) fn remove(disk: &dyn Disk, path: &str) -> Result<(), Error> {
    disk.remove(path).map_err(|error| Error::io("cannot remove", path, error))
}
