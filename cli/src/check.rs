//! `annals verify`, `reindex`, `recover`: checks a store, rebuilds its indexes, says what an open would do.

use annals::{
    ErrorKind, Finding, Head, IndexFlaw, MissingCause, OpenReport, Store, VerifyReport, WriterState,
};
use serde_json::{Value, json};

use crate::args::{Recover, Verify};
use crate::failure::{Answer, Failure};
use crate::interrupt;
use crate::output::{Format, Output, bytes, counted};
use crate::progress::Bar;
use crate::salvage;
use crate::target::{self, Target};

/// Verifies an open store up to its head; of a store that does not open, all files.
pub fn verify(verify: &Verify, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    let path = target.existing()?;
    interrupt::will_poll();
    let verification = verification(verify);
    let report = match target.builder(&path)?.open_read_only() {
        Ok(store) => verification.run(&store)?,
        Err(error) if is_damage(error.kind()) => verification.run_files(target.builder(&path)?)?,
        Err(error) => return Err(Failure::from(error).at(&path.display().to_string())),
    };
    show(&report, out)?;
    if report.broken_off {
        interrupt::to_continue(go_on(verify, report.verified));
    }
    Ok(if report.is_clean() { Answer::Yes } else { Answer::No })
}

fn verification(verify: &Verify) -> annals::Verify<'static> {
    let mut verification =
        verify.head.iter().fold(annals::Verify::new(), |verification, head| verification.expect(*head));
    if let Some(verified) = verify.after {
        verification = verification.after(verified);
    }
    if let Some(rate) = verify.bytes_per_second {
        verification = verification.bytes_per_second(rate);
    }
    if verify.indexes {
        verification = verification.indexes();
    }
    if verify.causes {
        verification = verification.causes();
    }
    with_progress(verification)
}

fn with_progress(verify: annals::Verify<'static>) -> annals::Verify<'static> {
    let bar = Bar::bytes("verifying");
    verify.on_progress(move |progress| bar.step(progress.bytes, progress.bytes_total))
}

/// The options that continue a stopped run. Heads that were already reached are left out.
fn go_on(verify: &Verify, verified: Option<Head>) -> String {
    let Some(verified) = verified.or(verify.after) else { return "nothing is verified yet".to_owned() };
    let ahead = verify.head.iter().filter(|head| head.position() > verified.position());
    let heads: String = ahead.map(|head| format!(" --head {head}")).collect();
    let indexes = if verify.indexes { " --indexes" } else { "" };
    let causes = if verify.causes { " --causes" } else { "" };
    format!("go on with --after {verified}{heads}{indexes}{causes}")
}

pub fn is_damage(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Corrupt | ErrorKind::Invalid)
}

fn show(report: &VerifyReport, out: &mut Output) -> Result<(), Failure> {
    let breaks: Vec<Value> = report.findings.iter().map(finding_json).collect();
    let runs = report.removed_without_order.iter().map(|run| json!([run.start().get(), run.end().get()]));
    let document = json!({
        "clean": report.is_clean(), "segments": report.segments, "appends": report.appends,
        "events": report.events, "bytes": report.bytes, "breaks": breaks,
        "verified": report.verified.map(|head| head.to_string()), "broken_off": report.broken_off,
        "versions_unchecked": report.versions_unchecked, "indexes_compared": report.indexes_compared,
        "indexes": report.indexes.iter().map(index_json).collect::<Vec<Value>>(),
        "mark_found": report.mark_found, "causes_compared": report.causes_compared,
        "causes_removed": report.causes_removed, "causes_missing": report.causes_missing,
        "causes": report.causes.iter().map(cause_json).collect::<Vec<Value>>(),
        "removed": report.removed,
        "removed_without_order": runs.collect::<Vec<Value>>(),
    });
    if out.format() == Format::Json {
        return out.document(&document);
    }
    out.text(&report.to_string())?;
    // Damaged history is not verified: there the same head only says how far the log was read.
    let how = if report.findings.is_empty() { "verified up to" } else { "read up to" };
    match report.verified {
        Some(verified) => out.text(&format!("{how} {verified}")),
        None => Ok(()),
    }
}

fn finding_json(found: &Finding) -> Value {
    json!({
        "file": found.file, "offset": found.offset, "position": found.position.get(), "what": found.what,
    })
}

fn index_json(flaw: &IndexFlaw) -> Value {
    json!({ "file": flaw.file, "offset": flaw.offset, "what": flaw.what, "believed": flaw.is_believed })
}

fn cause_json(missing: &MissingCause) -> Value {
    json!({
        "position": missing.position.get(), "entity": missing.entity, "cause": missing.cause.to_string(),
        "may_be_removed": missing.may_be_removed,
    })
}

pub fn reindex(target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    let store = target.to_write()?;
    let bar = Bar::bytes("indexing");
    interrupt::to_continue("what was built stays; run it again for the rest");
    interrupt::will_poll();
    let built = store.rebuild_indexes(|progress| bar.step(progress.bytes, progress.bytes_total))?;
    drop(bar);
    if built > 0 {
        interrupt::done(format!("{} built", counted(built, "index is", "indexes are")));
    }
    let total = store.stats().bytes;
    target::close(store)?;
    let facts = [("indexes built", built.to_string()), ("of segments with", bytes(total))];
    out.facts(&facts, &json!({ "indexes": built, "bytes": total }))?;
    Ok(Answer::Yes)
}

pub fn recover(recover: Recover, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    let path = target.existing()?;
    if let Some(to) = recover.salvage {
        return salvage::salvage(target, &path, &to, out);
    }
    match target.builder(&path)?.open_read_only() {
        Ok(store) => show_sound(&store, out),
        Err(error) if is_damage(error.kind()) => {
            let report = with_progress(annals::Verify::new()).run_files(target.builder(&path)?)?;
            show_damaged(&error, &report, out)
        }
        Err(error) => Err(Failure::from(error).at(&path.display().to_string())),
    }
}

/// What an open would find and do with a store that opens.
fn show_sound(store: &Store, out: &mut Output) -> Result<Answer, Failure> {
    let report = store.open_report();
    let writer = store.writer()?;
    let would = match (writer, &report.cut) {
        (WriterState::Elsewhere, _) => {
            "wait: another process has it open; what is durable can be read".to_owned()
        }
        (_, Some(cut)) => format!(
            "keep the {} behind offset {} of {} in quarantine/, and cut them: they were never acknowledged",
            counted(cut.bytes, "byte", "bytes"),
            cut.offset,
            cut.segment
        ),
        (WriterState::Gone, None) => {
            "recover: the last writer did not close it; nothing is to be cut".to_owned()
        }
        (_, None) => "go on where it was closed".to_owned(),
    };
    let facts = [
        ("an open would", would.clone()),
        ("found", summary(report)),
        ("looked at", "MANIFEST, MARK, and what is not sealed; annals verify reads everything".to_owned()),
        ("writer", format!("{writer:?}")),
        ("head", store.head()?.to_string()),
    ];
    let cut = report
        .cut
        .as_ref()
        .map(|cut| json!({ "segment": cut.segment, "offset": cut.offset, "bytes": cut.bytes }));
    let document = json!({
        "opens": true, "would": would, "writer": format!("{writer:?}"), "head": store.head()?.to_string(),
        "clean": report.clean, "mark_found": report.mark_found, "segments": report.segments,
        "events": report.events, "bytes_read": report.bytes_read, "cut": cut, "unknown": report.unknown,
    });
    out.facts(&facts, &document)?;
    Ok(Answer::Yes)
}

fn summary(report: &OpenReport) -> String {
    let events = counted(report.events, "event", "events");
    let mut text = format!("{events} in {}", counted(report.segments, "segment", "segments"));
    if !report.mark_found {
        text += "; MARK is missing or damaged";
    }
    for name in &report.unknown {
        text += &format!("; {name} is not of annals");
    }
    text
}

/// What an open would find in a store that does not open.
fn show_damaged(error: &annals::Error, report: &VerifyReport, out: &mut Output) -> Result<Answer, Failure> {
    let would = format!("refuse: {error}");
    let appends = counted(report.appends, "append", "appends");
    let whole = format!("{} in {appends}", counted(report.events, "event", "events"));
    let breaks: Vec<Value> = report.findings.iter().map(finding_json).collect();
    let mut facts = vec![
        ("an open would", would.clone()),
        ("whole", whole),
        ("to do", "restore a backup; or copy what can be read: annals recover --salvage DEST".to_owned()),
    ];
    facts.extend(report.findings.iter().map(|found| ("break", found.to_string())));
    let document = json!({ "opens": false, "would": would, "events": report.events, "breaks": breaks });
    out.facts(&facts, &document)?;
    Ok(Answer::No)
}
