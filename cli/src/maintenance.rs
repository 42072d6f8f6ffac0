//! `annals checkpoint` and `annals erase`: operations that the store records in its ledger.

use annals::{Checkpoint, Erasure};
use serde::Serialize;
use serde_json::json;

use crate::args;
use crate::failure::{Answer, Failure};
use crate::interrupt;
use crate::output::{Output, bytes, counted};
use crate::progress::Bar;
use crate::target::{self, Target};
use crate::values::rfc3339;

#[derive(Serialize)]
struct CheckpointRow {
    name: String,
    position: u64,
    head: String,
    at: String,
    by: String,
    reason: String,
}

impl CheckpointRow {
    const HEADS: [&str; 5] = ["checkpoint", "position", "at", "by", "reason"];

    fn new(taken: Checkpoint) -> CheckpointRow {
        let Checkpoint { name, head, at, by, reason, .. } = taken;
        CheckpointRow {
            name,
            position: head.position().get(),
            head: head.to_string(),
            at: rfc3339(at),
            by,
            reason,
        }
    }

    fn cells(&self) -> Vec<String> {
        let CheckpointRow { name, position, head: _, at, by, reason } = self;
        vec![name.clone(), position.to_string(), at.clone(), by.clone(), reason.clone()]
    }
}

/// Takes a checkpoint; without a name, lists all checkpoints.
pub fn checkpoint(
    checkpoint: args::Checkpoint,
    target: &Target,
    out: &mut Output,
) -> Result<Answer, Failure> {
    let all = match &checkpoint.name {
        None => target.to_read()?.checkpoints()?,
        Some(name) => {
            let store = target.to_write()?;
            let _section = interrupt::critical_section();
            let taken = store.checkpoint(name, checkpoint.reason.as_deref().unwrap_or_default())?;
            interrupt::done(format!("checkpoint {name} is taken, at position {}", taken.head.position()));
            target::close(store)?;
            vec![taken]
        }
    };
    let rows = all.into_iter().map(|taken| Ok(CheckpointRow::new(taken)));
    out.list(&CheckpointRow::HEADS, rows, CheckpointRow::cells)?;
    Ok(Answer::Yes)
}

/// Erases payloads with `--yes`; without it, counts the events that match.
pub fn erase(erase: args::Erase, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    if erase.filter.is_everything() {
        let text = "erase what? name an entity, a prefix, a scope, a kind, a tag or a correlation";
        return Err(Failure::usage(text));
    }
    let query = erase.filter.query();
    if !erase.yes {
        let events = target.to_read()?.count(query)?;
        let facts =
            [("events that match", events.to_string()), ("erased", "nothing yet: say --yes".to_owned())];
        out.facts(&facts, &json!({ "events": events, "done": false }))?;
        return Ok(Answer::No);
    }
    let store = target.to_write()?;
    interrupt::to_continue("run it again for the rest");
    interrupt::will_poll();
    let matching = store.count(query.clone())?;
    let bar = Bar::bytes("erasing");
    let erasure =
        store.erase_watched(query, &erase.reason, |progress| bar.step(progress.bytes, progress.bytes_total));
    drop(bar);
    let hint = "what was asked is kept, and the next opening to write goes on with it; free space and repeat the command";
    let erasure = erasure.map_err(|error| Failure::from(error).without_space(hint))?;
    let Erasure { events, bytes: freed, segments, quarantined, position, .. } = erasure;
    let erased = counted(events, "event is", "events are");
    interrupt::done(format!("{erased} erased, the receipt is at position {position}"));
    target::close(store)?;
    let facts = [
        ("events erased", events.to_string()),
        ("erased before", matching.saturating_sub(events).to_string()),
        ("bytes", bytes(freed)),
        ("segments written anew", segments.to_string()),
        ("quarantine files removed", quarantined.to_string()),
        ("receipt at", position.to_string()),
        ("out of reach", "backups, forks, exports: erase there, too".to_owned()),
    ];
    let document = json!({
        "events": events, "matching": matching, "done": true, "bytes": freed, "segments": segments,
        "quarantined": quarantined, "position": position.get(),
    });
    out.facts(&facts, &document)?;
    Ok(Answer::Yes)
}
