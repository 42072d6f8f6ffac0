//! Having less in a store: what would go, and having it go.

use annals::{Compacted, Compaction, CompactionPlan, CompactionShare, ErrorKind, Store, Unhandled};
use serde_json::{Value, json};

use crate::args::Compact;
use crate::failure::{Done, Failure};
use crate::interrupt;
use crate::output::{Form, Output, bytes, counted};
use crate::place::{self, Place};
use crate::progress::Bar;

/// Says what would go, unless it is told to have it go.
pub fn compact(compact: &Compact, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    check(compact)?;
    let store = place.to_write()?;
    interrupt::rest("what was done stays; run it again for the rest");
    interrupt::breaks_off();
    let asked = asked(compact, &store);
    if compact.yes {
        let done = asked.run().map_err(failure)?;
        if done.id.is_some() {
            interrupt::done(is_done(&done));
        }
        place::close(store)?;
        return show_done(&done, out);
    }
    let plan = asked.dry_run().map_err(failure)?;
    let segments = store.stats().segments;
    place::close(store)?;
    show_plan(&plan, segments, out)?;
    Ok(if compact.dry_run { Done::Yes } else { Done::No })
}

/// A call that says too little is refused: it would remove everything.
fn check(compact: &Compact) -> Result<(), Failure> {
    let Compact { remove, filter, older_than, before, keep_newest, .. } = compact;
    let is_narrowed = older_than.is_some() || before.is_some() || keep_newest.is_some();
    let text = match (remove, filter.is_everything()) {
        (true, true) if !is_narrowed => {
            "remove what? say --older-than, --before, --keep-newest, or an entity, a prefix, a scope, a kind, a tag"
        }
        (false, false) => "are events that match to go? say --remove",
        (false, true) if !compact.merge && !compact.replaced_checkpoints => {
            "compact what? say --remove and which events, --replaced-checkpoints, or --merge"
        }
        _ => return Ok(()),
    };
    Err(Failure::usage(text))
}

fn asked<'a>(compact: &'a Compact, store: &'a Store) -> Compaction<'a> {
    let mut asked = store.compaction(&compact.reason);
    if compact.remove {
        asked = asked.remove(compact.filter.query());
    }
    if let Some(age) = compact.older_than {
        asked = asked.older_than(age);
    }
    if let Some(position) = compact.before {
        asked = asked.before(position);
    }
    if let Some((events, per)) = compact.keep_newest.zip(compact.per) {
        asked = asked.keep_newest(events, per.into());
    }
    if compact.tombstones {
        asked = asked.tombstones();
    }
    if compact.replaced_checkpoints {
        asked = asked.replaced_checkpoints();
    }
    if compact.merge {
        asked = asked.merge();
    }
    if compact.even_unhandled {
        asked = asked.even_unhandled();
    }
    if let Some(rate) = compact.bytes_per_second {
        asked = asked.bytes_per_second(rate);
    }
    watched(asked)
}

fn watched(compaction: Compaction<'_>) -> Compaction<'_> {
    let bar = Bar::bytes("compacting");
    compaction.on_progress(move |progress| bar.step(progress.bytes, progress.bytes_total))
}

fn is_done(done: &Compacted) -> String {
    let Compacted { removed, segments_before, segments_after, position, .. } = done;
    let events = counted(*removed, "event is", "events are");
    let segments = counted(*segments_before, "sealed segment", "sealed segments");
    format!(
        "{events} removed, of {segments} {segments_after} are left; the receipt is at position {position}"
    )
}

/// In the words of the command line.
fn failure(error: annals::Error) -> Failure {
    let hint = match error.kind() {
        ErrorKind::Invalid => {
            "`annals consumers` shows how far each is; to let them miss it, say --even-unhandled"
        }
        ErrorKind::NoSpace => "what was done stays; free space for one segment more, and repeat the command",
        _ => return error.into(),
    };
    Failure::from(error).hint(hint)
}

fn show_plan(plan: &CompactionPlan, segments: usize, out: &mut Output) -> Result<(), Failure> {
    let CompactionPlan { removed, erased, bytes: freed, bytes_total, .. } = plan;
    let unsealed = segments.saturating_sub(plan.segments);
    let all = json!({
        "what": "all", "name": "", "removed": removed, "erased": erased, "bytes": freed, "done": false,
        "segments": plan.segments, "bytes_total": bytes_total, "unsealed": unsealed,
    });
    let kinds = plan.kinds.iter().map(|(name, share)| share_json("kind", name, *share));
    let scopes = plan.scopes.iter().map(|(name, share)| share_json("scope", name, *share));
    let unhandled = plan.unhandled.iter().map(unhandled_json);
    let rows = std::iter::once(all).chain(kinds).chain(scopes).chain(unhandled);
    out.list(&["", "name", "events go", "payloads go", "bytes", ""], rows.map(Ok), cells)?;
    if out.form() == Form::Json {
        return Ok(());
    }
    let sealed = counted(plan.segments, "sealed segment", "sealed segments");
    let looked = format!("{sealed} of {segments}, {}", bytes(*bytes_total));
    let facts = [
        ("looked at", looked),
        ("compacted", "nothing yet: --yes seals the last segment, and does it".to_owned()),
    ];
    out.facts(&facts, &())
}

fn share_json(what: &str, name: &str, share: CompactionShare) -> Value {
    let CompactionShare { removed, erased, bytes, .. } = share;
    json!({ "what": what, "name": name, "removed": removed, "erased": erased, "bytes": bytes })
}

fn unhandled_json(unhandled: &Unhandled) -> Value {
    let Unhandled { consumer, events, first, .. } = unhandled;
    json!({ "what": "unhandled", "name": consumer, "events": events, "first": first.get() })
}

fn cells(row: &Value) -> Vec<String> {
    let word = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| row[name].as_u64().unwrap_or_default();
    let (what, name) = (word("what"), word("name"));
    if row["first"].is_null() {
        let (removed, erased) = (number("removed").to_string(), number("erased").to_string());
        return vec![what, name, removed, erased, bytes(number("bytes")), String::new()];
    }
    let note = format!("from {} on, not handled by it", number("first"));
    vec!["consumer".to_owned(), name, number("events").to_string(), String::new(), String::new(), note]
}

fn show_done(done: &Compacted, out: &mut Output) -> Result<Done, Failure> {
    let Compacted { removed, erased, segments_before, segments_after, bytes_before, bytes_after, .. } = done;
    let position = done.id.map(|_| done.position.get());
    let receipt = position.map_or_else(|| "none: there was nothing to do".to_owned(), |at| at.to_string());
    let facts = [
        ("events removed", removed.to_string()),
        ("payloads removed", erased.to_string()),
        ("sealed segments", format!("{segments_before}, now {segments_after}")),
        ("bytes", format!("{}, now {}", bytes(*bytes_before), bytes(*bytes_after))),
        ("receipt at", receipt),
    ];
    let document = json!({
        "done": true, "removed": removed, "erased": erased, "segments_before": segments_before,
        "segments_after": segments_after, "bytes_before": bytes_before, "bytes_after": bytes_after,
        "position": position,
    });
    out.facts(&facts, &document)?;
    Ok(Done::Yes)
}
