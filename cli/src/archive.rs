//! `annals backup`, `restore`, `fork` and `rollback`.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use annals::disk::OsDisk;
use annals::{CopyProgress, CopyReport, ErrorKind, StoreCopy};
use serde_json::json;

use crate::args::{Backup, Fork, Restore, Rollback};
use crate::failure::{Answer, Failure};
use crate::interrupt;
use crate::output::{Output, bytes};
use crate::progress::Bar;
use crate::target::{Content, Target, inspect};

pub fn backup(backup: Backup, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    let store = target.to_read()?;
    let mut copy = store.backup(&backup.to);
    if backup.without_sharing {
        copy = copy.without_sharing();
    }
    let report = run(copy, backup.reason, "backing up")?;
    show("backup", &backup.to, &report, out)
}

pub fn fork(fork: Fork, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    let store = target.to_read()?;
    let report = run(store.fork(&fork.to, fork.until.0), fork.reason, "forking")?;
    show("fork", &fork.to, &report, out)
}

pub fn restore(restore: Restore, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    let Restore { backup, to, until, reason } = restore;
    if inspect(&backup)? != Content::Store {
        return Err(Failure::usage(format!("there is no backup in {}", backup.display())));
    }
    // Opened first: a damaged backup is refused before anything is created.
    drop(target.builder(&backup)?.open_read_only().map_err(Failure::from)?);
    let was_there = to.exists();
    let disk = OsDisk::create(&to)
        .map_err(|error| Failure::system(&format!("cannot open {}", to.display()), &error))?;
    let copy = StoreCopy::restore_on(target.builder(&backup)?, disk, until.0);
    let report = run(copy, reason, "restoring").inspect_err(|_| {
        // Removes only an empty directory; one that holds part of the copy stays.
        if !was_there {
            let _ = std::fs::remove_dir(&to);
        }
    })?;
    show("restored", &to, &report, out)
}

fn run(copy: StoreCopy, reason: Option<String>, what: &'static str) -> Result<CopyReport, Failure> {
    interrupt::to_continue("made again, it goes on");
    interrupt::will_poll();
    let bar = Bar::bytes(what);
    let copy = copy.on_progress(move |progress| bar.step(progress.bytes, progress.bytes_total));
    let copy = match reason {
        Some(reason) => copy.because(reason),
        None => copy,
    };
    copy.run().map_err(|error| Failure::from(error).without_space("free space and make it again: it goes on"))
}

fn show(what: &'static str, to: &Path, report: &CopyReport, out: &mut Output) -> Result<Answer, Failure> {
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
    Ok(Answer::Yes)
}

/// How often the rollback tries again while another writer holds the lock.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// True if another writer holds the lock and the deadline has not passed.
fn is_worth_a_retry(error: &annals::Error, deadline: Option<Instant>) -> bool {
    error.kind() == ErrorKind::Locked && deadline.is_none_or(|deadline| Instant::now() < deadline)
}

/// An operator who cuts history names it by its head. Without `--cut`, this prints that head.
pub fn rollback(rollback: Rollback, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    let path = target.existing()?;
    let Some(cut) = rollback.cut else {
        let head = target.to_read()?.head()?.to_string();
        let facts = [("head", head.clone()), ("cut", format!("nothing yet: say --cut {head}"))];
        out.facts(&facts, &json!({ "done": false, "head": head }))?;
        return Ok(Answer::No);
    };
    interrupt::to_continue("run again with the same --cut, it goes on, or says what it did");
    interrupt::will_poll();
    let deadline = Instant::now().checked_add(target.wait());
    let report = loop {
        interrupt::park_if_stopping();
        let bar = Bar::bytes("setting back");
        let on_progress = move |progress: &CopyProgress| bar.step(progress.bytes, progress.bytes_total);
        let builder = target.builder(&path)?;
        match builder.rollback_watched(rollback.to.0.clone(), &cut, &rollback.reason, on_progress) {
            Err(error) if is_worth_a_retry(&error, deadline) => thread::sleep(RETRY_INTERVAL),
            done => break done,
        }
    };
    let report = report.map_err(|error| {
        Failure::from(error).without_space("free space and repeat the command: it goes on")
    })?;
    let kept = report.kept.to_string();
    let cut = report.cut.to_string();
    interrupt::done(format!("the store is set back to position {}", report.kept.position()));
    let facts = [
        ("kept up to", kept.clone()),
        ("cut", cut.clone()),
        ("old history", format!("{}, a store in itself", path.join(&report.quarantine).display())),
    ];
    out.facts(&facts, &json!({ "done": true, "kept": kept, "cut": cut, "quarantine": report.quarantine }))?;
    Ok(Answer::Yes)
}
