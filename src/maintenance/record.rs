//! The stream `$ledger`: one event for each operation on the store as a whole.
//!
//! Each record says who acted, why, and the figures of the operation. A record is durable once it is
//! appended.
//!
//! The operation's own figures name the kind of the event. Tested by tests/it/checkpoints.rs.

use serde::{Deserialize, Serialize};

use crate::engine::{Append, Engine};
use crate::event::{Appended, Raw};
use crate::types::{Durability, Error, Expected, Options, text};

pub(crate) use crate::types::system::ledger::STREAM;

/// How much of a reason is kept, in bytes.
const REASON_BYTES_MAX: usize = 1000;

/// The figures that one operation records.
pub(crate) trait Figures: Serialize {
    /// The kind of the event; begins with `$ledger.`.
    const KIND: &'static str;
}

/// The payload of every event of the stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LedgerRecord<F> {
    /// Who acted: the name given to [`Builder::operator`](crate::Builder::operator), or the process.
    pub(crate) by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    pub(crate) figures: F,
}

impl<F> LedgerRecord<F> {
    /// A record by this process.
    pub(crate) fn new(options: &Options, reason: Option<&str>, figures: F) -> LedgerRecord<F> {
        let process = || format!("process {}", std::process::id());
        LedgerRecord {
            by: options.operator.clone().unwrap_or_else(process),
            reason: reason.map(|reason| text::cut(reason, REASON_BYTES_MAX).to_owned()),
            figures,
        }
    }
}

/// Who acted and why, as one text for attestations.
pub(crate) fn attribution(options: &Options, reason: &str) -> String {
    let LedgerRecord { by, .. } = LedgerRecord::new(options, None, ());
    format!("{}; by {}", text::cut(reason, REASON_BYTES_MAX), text::cut(&by, REASON_BYTES_MAX))
}

/// Appends a record, durably.
pub(crate) fn append<F: Figures>(
    engine: &Engine,
    reason: Option<&str>,
    figures: &F,
) -> Result<Appended, Error> {
    let entry = LedgerRecord::new(&engine.options, reason, figures);
    let append = Append::of_system(STREAM, Expected::Any, &Raw(F::KIND, &entry));
    engine.commit(append.durability(Durability::Synced))
}
