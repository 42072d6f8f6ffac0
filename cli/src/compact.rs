//! `annals compact`: says which events a compaction would remove, or removes them.

use annals::{Compacted, Compaction, CompactionPlan, CompactionShare, ErrorKind, Store, Unhandled};
use serde::Serialize;
use serde_json::json;

use crate::args::Compact;
use crate::failure::{Answer, Failure};
use crate::interrupt;
use crate::output::{Format, Output, bytes, counted};
use crate::progress::Bar;
use crate::target::{self, Target};

/// Compacts with `--yes`; without it, shows what a compaction would remove.
pub fn compact(compact: &Compact, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    check(compact)?;
    let store = target.to_write()?;
    interrupt::to_continue("what was done stays; run it again for the rest");
    interrupt::will_poll();
    let compaction = compaction(compact, &store);
    if compact.yes {
        let done = compaction.run().map_err(failure)?;
        if done.id.is_some() {
            interrupt::done(summary(&done));
        }
        target::close(store)?;
        return show_done(&done, out);
    }
    let plan = compaction.dry_run().map_err(failure)?;
    let segments = store.stats().segments;
    target::close(store)?;
    show_plan(&plan, segments, out)?;
    Ok(if compact.dry_run { Answer::Yes } else { Answer::No })
}

/// Refuses a call that is too vague. Without this, `--remove` alone would remove every event.
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

fn compaction<'a>(compact: &'a Compact, store: &'a Store) -> Compaction<'a> {
    let mut compaction = store.compaction(&compact.reason);
    if compact.remove {
        compaction = compaction.remove(compact.filter.query());
    }
    if let Some(age) = compact.older_than {
        compaction = compaction.older_than(age);
    }
    if let Some(position) = compact.before {
        compaction = compaction.before(position);
    }
    if let Some((events, per)) = compact.keep_newest.zip(compact.per) {
        compaction = compaction.keep_newest(events, per.into());
    }
    if compact.tombstones {
        compaction = compaction.tombstones();
    }
    if compact.replaced_checkpoints {
        compaction = compaction.replaced_checkpoints();
    }
    if compact.merge {
        compaction = compaction.merge();
    }
    if compact.even_unhandled {
        compaction = compaction.even_unhandled();
    }
    if let Some(rate) = compact.bytes_per_second {
        compaction = compaction.bytes_per_second(rate);
    }
    let bar = Bar::bytes("compacting");
    compaction.on_progress(move |progress| bar.step(progress.bytes, progress.bytes_total))
}

fn summary(done: &Compacted) -> String {
    let Compacted { removed, segments_before, segments_after, position, .. } = done;
    let events = counted(*removed, "event is", "events are");
    let segments = counted(*segments_before, "sealed segment", "sealed segments");
    format!(
        "{events} removed, of {segments} {segments_after} are left; the receipt is at position {position}"
    )
}

/// Adds a hint in the words of the command line.
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

/// A row of the plan: a share of the events that would go, or a consumer.
#[derive(Serialize)]
#[serde(untagged)]
enum PlanRow<'a> {
    Share {
        what: &'static str,
        name: &'a str,
        removed: u64,
        erased: u64,
        bytes: u64,
        #[serde(flatten)]
        total: Option<PlanTotal>,
    },
    /// Events that a consumer would miss.
    Unhandled { what: &'static str, name: &'a str, events: u64, first: u64 },
}

/// The fields of the first row alone, which stands for all events.
#[derive(Serialize)]
struct PlanTotal {
    done: bool,
    segments: usize,
    bytes_total: u64,
    unsealed: usize,
}

impl<'a> PlanRow<'a> {
    const HEADS: [&'static str; 6] = ["", "name", "events go", "payloads go", "bytes", ""];

    fn total(plan: &CompactionPlan, unsealed: usize) -> PlanRow<'a> {
        let CompactionPlan { removed, erased, bytes, bytes_total, segments, .. } = *plan;
        let total = Some(PlanTotal { done: false, segments, bytes_total, unsealed });
        PlanRow::Share { what: "all", name: "", removed, erased, bytes, total }
    }

    fn share(what: &'static str, name: &'a str, share: CompactionShare) -> PlanRow<'a> {
        let CompactionShare { removed, erased, bytes, .. } = share;
        PlanRow::Share { what, name, removed, erased, bytes, total: None }
    }

    fn unhandled(unhandled: &'a Unhandled) -> PlanRow<'a> {
        let Unhandled { consumer, events, first, .. } = unhandled;
        PlanRow::Unhandled { what: "unhandled", name: consumer, events: *events, first: first.get() }
    }

    fn cells(&self) -> Vec<String> {
        match self {
            PlanRow::Share { what, name, removed, erased, bytes: freed, total: _ } => vec![
                (*what).to_owned(),
                (*name).to_owned(),
                removed.to_string(),
                erased.to_string(),
                bytes(*freed),
                String::new(),
            ],
            PlanRow::Unhandled { what: _, name, events, first } => vec![
                "consumer".to_owned(),
                (*name).to_owned(),
                events.to_string(),
                String::new(),
                String::new(),
                format!("from {first} on, not handled by it"),
            ],
        }
    }
}

fn show_plan(plan: &CompactionPlan, segments: usize, out: &mut Output) -> Result<(), Failure> {
    let total = PlanRow::total(plan, segments.saturating_sub(plan.segments));
    let kinds = plan.kinds.iter().map(|(name, share)| PlanRow::share("kind", name, *share));
    let scopes = plan.scopes.iter().map(|(name, share)| PlanRow::share("scope", name, *share));
    let unhandled = plan.unhandled.iter().map(PlanRow::unhandled);
    let rows = std::iter::once(total).chain(kinds).chain(scopes).chain(unhandled);
    out.list(&PlanRow::HEADS, rows.map(Ok), PlanRow::cells)?;
    if out.format() == Format::Json {
        return Ok(());
    }
    let sealed = counted(plan.segments, "sealed segment", "sealed segments");
    let looked = format!("{sealed} of {segments}, {}", bytes(plan.bytes_total));
    let facts = [
        ("looked at", looked),
        ("compacted", "nothing yet: --yes seals the last segment, and does it".to_owned()),
    ];
    out.facts(&facts, &())
}

fn show_done(done: &Compacted, out: &mut Output) -> Result<Answer, Failure> {
    let Compacted {
        removed,
        erased,
        segments_before,
        segments_after,
        bytes_before,
        bytes_after,
        would_take,
        ..
    } = done;
    let position = done.id.map(|_| done.position.get());
    let receipt = position.map_or_else(|| "none: there was nothing to do".to_owned(), |at| at.to_string());
    let facts = [
        ("events removed", removed.to_string()),
        ("payloads removed", erased.to_string()),
        ("sealed segments", format!("{segments_before}, now {segments_after}")),
        ("bytes", format!("{}, now {}", bytes(*bytes_before), bytes(*bytes_after))),
        ("written anew", format!("about {}", bytes(*would_take))),
        ("receipt at", receipt),
    ];
    let document = json!({
        "done": true, "removed": removed, "erased": erased, "segments_before": segments_before,
        "segments_after": segments_after, "bytes_before": bytes_before, "bytes_after": bytes_after,
        "would_take": would_take, "position": position,
    });
    out.facts(&facts, &document)?;
    Ok(Answer::Yes)
}
