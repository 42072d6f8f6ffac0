//! Histories put elsewhere, and set back.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use annals::disk::OsDisk;
use annals::{CopyProgress, CopyReport, ErrorKind, StoreCopy};
use serde_json::json;

use crate::args::{Backup, Fork, Restore, Rollback};
use crate::failure::{Done, Failure};
use crate::interrupt;
use crate::output::{Output, bytes};
use crate::place::{Found, Place, look};
use crate::progress::Bar;

pub fn backup(backup: Backup, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    let store = place.to_read()?;
    let mut copy = store.backup(&backup.to);
    if backup.without_sharing {
        copy = copy.without_sharing();
    }
    let report = run(copy, backup.reason, "backing up")?;
    show("backup", &backup.to, &report, out)
}

pub fn fork(fork: Fork, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    let store = place.to_read()?;
    let report = run(store.fork(&fork.to, fork.until.0), fork.reason, "forking")?;
    show("fork", &fork.to, &report, out)
}

pub fn restore(restore: Restore, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    let Restore { backup, to, until, reason } = restore;
    if look(&backup)? != Found::Store {
        return Err(Failure::usage(format!("there is no backup in {}", backup.display())));
    }
    // Looked at before anything is made.
    drop(place.builder(&backup)?.open_read_only().map_err(Failure::from)?);
    let was_there = to.exists();
    let failed = |error| Failure::system(&format!("cannot open {}", to.display()), &error);
    let disk = OsDisk::create(&to).map_err(failed)?;
    let copy = StoreCopy::restore_on(place.builder(&backup)?, disk, until.0);
    let report = run(copy, reason, "restoring").inspect_err(|_| {
        // Nothing was put there: then it need not stay. What is not empty stays.
        if !was_there {
            let _ = std::fs::remove_dir(&to);
        }
    })?;
    show("restored", &to, &report, out)
}

fn run(copy: StoreCopy, reason: Option<String>, what: &'static str) -> Result<CopyReport, Failure> {
    interrupt::rest("made again, it goes on");
    interrupt::breaks_off();
    let bar = Bar::bytes(what);
    let copy = copy.on_progress(move |progress| bar.step(progress.bytes, progress.bytes_total));
    let copy = match reason {
        Some(reason) => copy.because(reason),
        None => copy,
    };
    copy.run().map_err(|error| Failure::from(error).without_space("free space and make it again: it goes on"))
}

fn show(what: &'static str, to: &Path, report: &CopyReport, out: &mut Output) -> Result<Done, Failure> {
    let CopyReport { head, kept, shared, copied, bytes_copied, bytes: total, elapsed, .. } = report;
    interrupt::done(format!("the copy in {} is whole, up to position {}", to.display(), head.position()));
    let copied_bytes = match bytes_copied {
        0 => "none of them copied".to_owned(),
        copied => format!("{} of them copied", bytes(*copied)),
    };
    let segments = format!("{kept} there before, {shared} shared, {copied} copied");
    let facts = [
        (what, to.display().to_string()),
        ("head", head.to_string()),
        ("segments", segments),
        ("bytes", format!("{}, {}", bytes(*total), copied_bytes)),
        ("took", format!("{elapsed:.1?}")),
    ];
    let document = json!({
        "to": to.display().to_string(), "head": head.to_string(), "kept": kept, "shared": shared,
        "copied": copied, "bytes_copied": bytes_copied, "bytes": total, "seconds": elapsed.as_secs_f64(),
    });
    out.facts(&facts, &document)?;
    Ok(Done::Yes)
}

/// How often another writer is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whether another writer is to be waited for.
fn is_locked(error: &annals::Error, deadline: Option<Instant>) -> bool {
    error.kind() == ErrorKind::Locked && deadline.is_none_or(|deadline| Instant::now() < deadline)
}

/// An operator who cuts history names it by its head. Without `--cut`, this prints that head.
pub fn rollback(rollback: Rollback, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    let path = place.existing()?;
    let Some(cut) = rollback.cut else {
        let head = place.to_read()?.head()?.to_string();
        let facts = [("head", head.clone()), ("cut", format!("nothing yet: say --cut {head}"))];
        out.facts(&facts, &json!({ "done": false, "head": head }))?;
        return Ok(Done::No);
    };
    interrupt::rest("run again with the same --cut, it goes on, or says what it did");
    interrupt::breaks_off();
    let deadline = Instant::now().checked_add(place.wait());
    let report = loop {
        interrupt::begin();
        let bar = Bar::bytes("setting back");
        let tell = move |progress: &CopyProgress| bar.step(progress.bytes, progress.bytes_total);
        let builder = place.builder(&path)?;
        match builder.rollback_watched(rollback.to.0.clone(), &cut, &rollback.reason, tell) {
            Err(error) if is_locked(&error, deadline) => thread::sleep(LOOK_EVERY),
            done => break done,
        }
    };
    let report = report.map_err(|error| {
        Failure::from(error).without_space("free space and repeat the command: it goes on")
    })?;
    let (kept, cut) = (report.kept.to_string(), report.cut.to_string());
    interrupt::done(format!("the store is set back to position {}", report.kept.position()));
    let facts = [
        ("kept up to", kept.clone()),
        ("cut", cut.clone()),
        ("old history", format!("{}, a store in itself", path.join(&report.quarantine).display())),
    ];
    out.facts(&facts, &json!({ "done": true, "kept": kept, "cut": cut, "quarantine": report.quarantine }))?;
    Ok(Done::Yes)
}
