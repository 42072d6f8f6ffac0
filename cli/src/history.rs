//! What is done to a store as a whole, and recorded in its ledger.

use annals::{Checkpoint, Erasure};
use serde_json::{Value, json};

use crate::args;
use crate::failure::{Done, Failure};
use crate::interrupt;
use crate::output::{Output, bytes, counted};
use crate::place::{self, Place};
use crate::progress::Bar;
use crate::values::rfc3339;

/// Takes one, or lists all.
pub fn checkpoint(checkpoint: args::Checkpoint, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    let all = match &checkpoint.name {
        None => place.to_read()?.checkpoints()?,
        Some(name) => {
            let store = place.to_write()?;
            let _whole = interrupt::whole();
            let taken = store.checkpoint(name, checkpoint.reason.as_deref().unwrap_or_default())?;
            interrupt::done(format!("checkpoint {name} is taken, at position {}", taken.head.position()));
            place::close(store)?;
            vec![taken]
        }
    };
    let cell = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
    let items = all.iter().map(|taken| Ok(checkpoint_json(taken)));
    out.list(&["checkpoint", "position", "at", "by", "reason"], items, |item| {
        let position = item["position"].to_string();
        vec![cell(item, "name"), position, cell(item, "at"), cell(item, "by"), cell(item, "reason")]
    })?;
    Ok(Done::Yes)
}

fn checkpoint_json(taken: &Checkpoint) -> Value {
    let Checkpoint { name, head, at, by, reason, .. } = taken;
    let (position, text) = (head.position().get(), head.to_string());
    json!({ "name": name, "position": position, "head": text, "at": rfc3339(*at), "by": by, "reason": reason })
}

/// Says how much it would be, unless it is told to do it.
pub fn erase(erase: args::Erase, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    if erase.filter.is_everything() {
        let text = "erase what? name an entity, a prefix, a scope, a kind, a tag or a correlation";
        return Err(Failure::usage(text));
    }
    let query = erase.filter.query();
    if !erase.yes {
        let events = place.to_read()?.count(query)?;
        let facts =
            [("events that match", events.to_string()), ("erased", "nothing yet: say --yes".to_owned())];
        out.facts(&facts, &json!({ "events": events, "done": false }))?;
        return Ok(Done::No);
    }
    let store = place.to_write()?;
    interrupt::rest("run it again for the rest");
    interrupt::breaks_off();
    let matching = store.count(query.clone())?;
    let bar = Bar::bytes("erasing");
    let erasure =
        store.erase_watched(query, &erase.reason, |progress| bar.step(progress.bytes, progress.bytes_total));
    drop(bar);
    let hint = "what was asked is kept, and the next opening to write goes on with it; free space and repeat the command";
    let erasure = erasure.map_err(|error| Failure::from(error).without_space(hint))?;
    let Erasure { events, bytes: gone, segments, quarantined, position, .. } = erasure;
    let erased = counted(events, "event is", "events are");
    interrupt::done(format!("{erased} erased, the receipt is at position {position}"));
    place::close(store)?;
    let facts = [
        ("events erased", events.to_string()),
        ("erased before", matching.saturating_sub(events).to_string()),
        ("bytes", bytes(gone)),
        ("segments written anew", segments.to_string()),
        ("quarantine files removed", quarantined.to_string()),
        ("receipt at", position.to_string()),
        ("out of reach", "backups, forks, exports: erase there, too".to_owned()),
    ];
    let document = json!({
        "events": events, "matching": matching, "done": true, "bytes": gone, "segments": segments, "quarantined": quarantined,
        "position": position.get(),
    });
    out.facts(&facts, &document)?;
    Ok(Done::Yes)
}
