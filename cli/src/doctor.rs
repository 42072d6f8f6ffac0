//! `annals doctor`: checks the store and its surroundings, and advises.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use annals::{ConsumerState, ErrorKind, Store, WriterState};
use serde::Serialize;

use crate::check::is_damage;
use crate::failure::{Answer, Failure};
use crate::output::{Format, MARKS, Output, bytes, counted};
use crate::target::Target;

/// One check: its subject, its result, and what the operator should do.
#[derive(Serialize)]
struct Diagnosis {
    what: &'static str,
    verdict: Verdict,
    found: String,
    advice: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    /// Suspicious, or a problem to come.
    Look,
    Bad,
}

impl Diagnosis {
    const HEADS: [&str; 4] = ["", "looked at", "found", "advice"];

    fn cells(&self, format: Format) -> Vec<String> {
        let Diagnosis { what, verdict, found, advice } = self;
        let mark = mark(*verdict, format).to_owned();
        vec![mark, (*what).to_owned(), found.clone(), advice.clone().unwrap_or_default()]
    }
}

fn good(what: &'static str, found: impl Into<String>) -> Diagnosis {
    Diagnosis { what, verdict: Verdict::Good, found: found.into(), advice: None }
}

fn look(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Diagnosis {
    Diagnosis { what, verdict: Verdict::Look, found: found.into(), advice: Some(advice.into()) }
}

fn bad(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Diagnosis {
    Diagnosis { what, verdict: Verdict::Bad, found: found.into(), advice: Some(advice.into()) }
}

pub fn doctor(target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    let path = target.existing()?;
    let mut diagnoses = vec![directory(&path)?, file_system(&path), space(&path), files(&path)?];
    match target.builder(&path)?.open_read_only() {
        Ok(store) => diagnoses.extend([opening(&store), clock(&store), writer(&store)?, consumers(&store)?]),
        Err(error) if is_damage(error.kind()) => {
            let advice =
                "annals verify lists every break; restore a backup, or annals recover --salvage DEST";
            diagnoses.push(bad("opening", error.to_string(), advice));
        }
        Err(error) => diagnoses.push(bad("opening", error.to_string(), advice(error.kind()))),
    }
    diagnoses.extend(erasing(&path));
    diagnoses.extend([indexes(&path)?, quarantine(&path)?]);
    let is_bad = diagnoses.iter().any(|diagnosis| diagnosis.verdict == Verdict::Bad);
    let format = out.format();
    out.list(&Diagnosis::HEADS, diagnoses.into_iter().map(Ok), |diagnosis| diagnosis.cells(format))?;
    Ok(if is_bad { Answer::No } else { Answer::Yes })
}

fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NeedsNewer => "update annals; until then nothing is changed",
        ErrorKind::Unsafe => "put that right: it must be ours, a regular file or directory, with one name",
        _ => "see what the error says",
    }
}

/// A stopped erasure leaves the file ERASING.
fn erasing(path: &Path) -> Option<Diagnosis> {
    let is_undone = path.join("ERASING").symlink_metadata().is_ok();
    let advice = "the next opening to write goes on with it; annals erase --yes again does it now";
    is_undone.then(|| bad("erasing", "an erasure was stopped: what it was to erase may be there", advice))
}

fn mark(verdict: Verdict, format: Format) -> &'static str {
    let [good, look, bad] = if format == Format::Table { MARKS } else { ["good", "look", "bad"] };
    match verdict {
        Verdict::Good => good,
        Verdict::Look => look,
        Verdict::Bad => bad,
    }
}

fn metadata(path: &Path) -> Result<Metadata, Failure> {
    let failed = |error| Failure::system(&format!("cannot look at {}", path.display()), &error);
    fs::symlink_metadata(path).map_err(failed)
}

fn directory(path: &Path) -> Result<Diagnosis, Failure> {
    // Follows links: the path of the directory may be one.
    let found = fs::metadata(path).map_err(|error| Failure::system("cannot look", &error))?;
    let mode = found.mode() & 0o7777;
    let owner = found.uid();
    let us = rustix::process::geteuid().as_raw();
    let text = format!("{}, mode {mode:o}, owner {owner}", path.display());
    Ok(match mode {
        // The superuser is no problem: annals gives its files to the owner of the directory.
        _ if owner != us && us != 0 => {
            let text = format!("{text}, and we are user {us}");
            bad("directory", text, format!("run annals as user {owner}"))
        }
        mode if mode & 0o022 != 0 => {
            bad("directory", text, format!("others may write to it: chmod 700 {}", path.display()))
        }
        mode if mode & 0o077 != 0 => {
            look("directory", text, format!("others may look into it: chmod 700 {}", path.display()))
        }
        mode if mode & 0o700 != 0o700 => {
            look("directory", text, format!("it can only be read: chmod 700 {}", path.display()))
        }
        _ => good("directory", text),
    })
}

#[cfg(target_os = "linux")]
fn file_system(path: &Path) -> Diagnosis {
    const LOCAL: [(u32, &str); 8] = [
        (0xEF53, "ext4"),
        (0x9123_683E, "btrfs"),
        (0x5846_5342, "XFS"),
        (0xF2F5_2010, "F2FS"),
        (0x2FC1_2FC1, "ZFS"),
        (0xCA45_1A4E, "bcachefs"),
        (0x794C_7630, "overlayfs"),
        (0x0102_1994, "tmpfs"),
    ];
    const FUSE: u32 = 0x6573_5546;
    let magic = match rustix::fs::statfs(path) {
        // The field is wider on some machines. All known numbers fit 32 bits.
        Ok(found) => {
            let [a, b, c, d, ..] = found.f_type.to_le_bytes();
            u32::from_le_bytes([a, b, c, d])
        }
        Err(error) => return look("file system", error.to_string(), "its kind is not known"),
    };
    let name = LOCAL.iter().find(|(known, _)| *known == magic).map(|(_, name)| *name);
    match name {
        Some("tmpfs") => look("file system", "tmpfs", "it is memory: a power cut takes everything"),
        Some("overlayfs") => {
            look("file system", "overlayfs", "of a container: make sure that it outlives it, or use a volume")
        }
        Some(name) => good("file system", name),
        None if magic == FUSE => {
            look("file system", "FUSE", "whether a sync reaches a disk is up to the program behind it")
        }
        None => look(
            "file system",
            format!("magic {magic:#x}"),
            "not one that is known to be local; annals refuses those that are known to be on a network",
        ),
    }
}

#[cfg(not(target_os = "linux"))]
fn file_system(_path: &Path) -> Diagnosis {
    look("file system", "not known here", "make sure that it is on a local disk")
}

fn space(path: &Path) -> Diagnosis {
    const LITTLE: u64 = 1 << 30;
    const TOO_LITTLE: u64 = 128 << 20;
    match rustix::fs::statvfs(path) {
        Err(error) => look("space", error.to_string(), "what is free is not known"),
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let text = format!("{} free", bytes(free));
            match free {
                free if free < TOO_LITTLE => {
                    bad("space", text, "the next segment may find no room: free some")
                }
                free if free < LITTLE => look("space", text, "free some soon"),
                _ => good("space", text),
            }
        }
    }
}

/// The paths of a store's own files.
fn own_files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut files: Vec<PathBuf> = ["LOCK", "MANIFEST", "MARK"].map(|name| path.join(name)).into();
    files.retain(|file| file.symlink_metadata().is_ok());
    files.extend(entries(&path.join("segments"))?);
    Ok(files)
}

/// The paths in a directory; empty if the directory does not exist.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| Failure::system(&format!("cannot list {}", directory.display()), &error);
    match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => {
            entries.map_err(failed)?.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect()
        }
    }
}

fn files(path: &Path) -> Result<Diagnosis, Failure> {
    let owner = fs::metadata(path).map(|found| found.uid()).unwrap_or_default();
    let mut loose = Vec::new();
    let mut odd = Vec::new();
    let mut count = 0_usize;
    for file in own_files(path)? {
        let found = metadata(&file)?;
        count += 1;
        let name = file.strip_prefix(path).unwrap_or(&file).display().to_string();
        match found.mode() & 0o7777 {
            _ if !found.is_file() => odd.push(format!("{name} is no regular file")),
            _ if found.uid() != owner => {
                odd.push(format!("{name} belongs to user {}, not {owner}", found.uid()))
            }
            _ if found.nlink() > 1 && !name.starts_with("segments") => {
                odd.push(format!("{name} has a second name"))
            }
            mode if mode & 0o077 != 0 => loose.push(name),
            _ => {}
        }
    }
    Ok(match (odd.as_slice(), loose.as_slice()) {
        ([], []) => good("files", format!("{count}, readable by their owner only")),
        ([], loose) => {
            let text = format!("others may read {}", loose.join(", "));
            look("files", text, "the next opening to write tightens them; chmod 600 does now")
        }
        (odd, _) => bad("files", odd.join(", "), "annals refuses to open these; put them right"),
    })
}

fn opening(store: &Store) -> Diagnosis {
    let report = store.open_report();
    let events = counted(report.events, "event", "events");
    let text = format!("{events} in {}", counted(report.segments, "segment", "segments"));
    match &report.cut {
        Some(cut) => {
            let bytes = counted(cut.bytes, "byte", "bytes");
            let text = format!("{text}; {bytes} of an append that was never acknowledged");
            look("opening", text, "the next opening to write keeps them in quarantine/ and cuts them")
        }
        None if !report.mark_found => look(
            "opening",
            format!("{text}; MARK is missing or damaged"),
            "the next opening to write makes a new one",
        ),
        None if !report.unknown.is_empty() => {
            let text = format!("{text}; not of annals: {}", report.unknown.join(", "));
            look("opening", text, "a store wants a directory of its own")
        }
        None => good("opening", format!("{text}; what is sealed is read by annals verify, not here")),
    }
}

/// Recorded-at never goes back. If it is far ahead of the clock, the clock was wrong once, or is wrong now.
fn clock(store: &Store) -> Diagnosis {
    const AHEAD_MAX: Duration = Duration::from_secs(60);
    let ahead = store.open_report().recorded_ahead;
    if ahead <= AHEAD_MAX {
        return good("clock", "not behind what was recorded");
    }
    let days = ahead.as_secs() / (24 * 60 * 60);
    let text =
        format!("{days} days and {} s behind the newest recorded-at", ahead.as_secs() % (24 * 60 * 60));
    let advice = "put the clock right if it is wrong; else fork the store from before the event that was recorded too \
                  late, and import the rest without its recorded_at";
    look("clock", text, advice)
}

fn writer(store: &Store) -> Result<Diagnosis, Failure> {
    Ok(match store.writer()? {
        WriterState::Elsewhere => good("writer", "another process has it open; reading needs no lock"),
        WriterState::Gone => {
            look("writer", "the last one did not close it", "nothing is lost; opening recovers")
        }
        _ => good("writer", "none; the store was closed"),
    })
}

fn consumers(store: &Store) -> Result<Diagnosis, Failure> {
    let all = store.consumers()?;
    let halted = all.iter().filter(|status| matches!(status.state, ConsumerState::Halted(_)));
    let halted: Vec<String> = halted.map(ToString::to_string).collect();
    Ok(match halted.as_slice() {
        [] => good("consumers", format!("{}, none halted", all.len())),
        halted => bad("consumers", halted.join("; "), "annals consumers resume NAME, or skip NAME POSITION"),
    })
}

fn indexes(path: &Path) -> Result<Diagnosis, Failure> {
    let files = entries(&path.join("segments"))?;
    let with = |extension: &str| {
        let has = |file: &&PathBuf| file.extension().is_some_and(|found| found == extension);
        files.iter().filter(has).count()
    };
    // The open segment has no index file.
    let sealed = with("seg").saturating_sub(1);
    let built = with("idx");
    let text = format!("{} of {sealed} sealed segments", built.min(sealed));
    Ok(match built >= sealed {
        true => good("indexes", text),
        false => look("indexes", text, "a query that needs one builds it; annals reindex builds all"),
    })
}

fn quarantine(path: &Path) -> Result<Diagnosis, Failure> {
    let kept = entries(&path.join("quarantine"))?;
    let size: u64 =
        kept.iter().filter_map(|file| file.symlink_metadata().ok()).map(|found| found.len()).sum();
    Ok(match kept.len() {
        0 => good("quarantine", "empty"),
        count => {
            let text = format!("{}, {}", counted(count, "file", "files"), bytes(size));
            look("quarantine", text, "cut from torn tails; look at them, or delete them")
        }
    })
}
