//! Says where everything of a store lives, and why.
//!
//! Row: ops.

use crate::disk::{Access, Disk, if_there};
use crate::engine::Engine;
use crate::format::SEGMENTS_DIRECTORY;
use crate::log::list;
use crate::types::{Description, Error, Options, StoreFile};

use super::quarantine::{QUARANTINE, quarantined};

/// Every name annals gives, whether it is a directory, and what it is for.
const PARTS: [(&str, bool, &str); 8] = [
    ("LOCK", false, "locked by the one writer; holds its process id, for people; never deleted"),
    ("MANIFEST", false, "the segments that are sealed; replaced as a whole when one more is"),
    ("MARK", false, "how far the log is proven durable; written after each sync"),
    ("ERASING", false, "something may have to be erased still; the next opening for writing sees to it"),
    ("segments", true, "the events, the only truth; keep every file"),
    (INDEXES, true, "indexes of the segments; may be deleted, costs only time"),
    ("quarantine", true, "what was cut: torn tails, and what rollback set aside; may be deleted"),
    ("cache", true, "states folded from events; may be deleted, costs only time"),
];

/// They stand among the segments.
const INDEXES: &str = "segments/*.idx";

pub(crate) fn describe(engine: &Engine) -> Result<Description, Error> {
    let snapshot = engine.snapshot()?;
    let disk = engine.disk.as_ref();
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
            files.retain(|file| {
                (name == INDEXES) == (directory == SEGMENTS_DIRECTORY && file.contains(".idx"))
            });
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
        ("operator", options.operator.clone().unwrap_or_else(|| "the process".to_owned())),
        ("scrub", format!("{} bytes a second", options.scrub_bytes_per_second)),
    ]
}
