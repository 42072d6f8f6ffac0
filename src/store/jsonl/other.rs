//! Whether a source was imported under another name before.
//!
//! Row: app. The promise is in SPEC.md "Export and import", "Once".

use std::io::BufRead;

use super::import::Reached;
use super::source::Source;
use crate::store::Store;
use crate::types::system::import::{PREFIX, REACHED};
use crate::types::{Error, Query, to_u64};

/// So much of a source tells it from others. Also the first append of an earlier import, where that is
/// longer.
const BEGINNING_BYTES: u64 = 64 << 10;

/// Refuses a source that begins as one that went in under another name.
///
/// An import knows the digest of its source behind each append. The first of them is compared for every
/// import, and only where that is the same, the last one within the beginning.
pub(super) fn refuse_known(
    store: &Store,
    source: &mut Source<impl BufRead>,
    bytes_max: u64,
) -> Result<(), Error> {
    for import in store.entities().prefix(PREFIX) {
        let import = import?;
        let Some(name) = import.name.strip_prefix(PREFIX) else { continue };
        let mut known = store.read(Query::entity(&import.name).kind(REACHED)).filter_map(|event| {
            let event = match event {
                // Alone in its append, it stands for lines that were passed over: nothing of them is in.
                Ok(event) if event.append_position() == event.position() => return None,
                event => event,
            };
            let reached = event.and_then(|event| event.decode::<Reached>());
            Some(reached.map(|(_, offset, digest, ..)| (offset, digest)))
        });
        let Some(first) = known.next() else { continue };
        let first = first?;
        if first.0 > bytes_max || source.beginning(first.0)? != Some(first.1) {
            continue;
        }
        let within = to_u64(source.ahead(BEGINNING_BYTES)?);
        let mut last = first;
        for reached in known {
            let reached = reached?;
            if reached.0 > within {
                break;
            }
            last = reached;
        }
        if source.beginning(last.0)? == Some(last.1) {
            return Err(Error::invalid(format!(
                "the source begins with {} bytes that were imported as {name:?}; give it that name, and the \
                 import goes on behind them; or ask for its events to be in twice",
                last.0
            )));
        }
    }
    Ok(())
}
