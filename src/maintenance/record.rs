//! The one door for what is done to a store as a whole: the events of the stream `$ledger`.
//!
//! An entry says who, why and in figures what; it is durable once it is recorded. Each operation has its
//! own figures, which name the kind of the event.
//! Row: ops. Tested by tests/it/checkpoints.rs.

use serde::{Deserialize, Serialize};

use crate::engine::{Append, Engine};
use crate::event::{Appended, Raw};
use crate::types::{Durability, Error, Expected, Options, text};

pub(crate) use crate::types::system::ledger::STREAM;

/// What is kept of a reason, in bytes.
const REASON_BYTES_MAX: usize = 1000;

/// What an operation has to say of itself.
pub(crate) trait Figures: Serialize {
    /// The kind of its event, which begins with `$ledger.`.
    const KIND: &'static str;
}

/// The payload of every event of the stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LedgerRecord<F> {
    /// Who: what [`Builder::operator`](crate::Builder::operator) said, or the process.
    pub(crate) by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    pub(crate) figures: F,
}

impl<F> LedgerRecord<F> {
    /// An entry of this process.
    pub(crate) fn new(options: &Options, reason: Option<&str>, figures: F) -> LedgerRecord<F> {
        let process = || format!("process {}", std::process::id());
        LedgerRecord {
            by: options.operator.clone().unwrap_or_else(process),
            reason: reason.map(|reason| text::cut(reason, REASON_BYTES_MAX).to_owned()),
            figures,
        }
    }
}

/// Who and why, for what is no event.
pub(crate) fn who_and_why(options: &Options, reason: &str) -> String {
    let LedgerRecord { by, .. } = LedgerRecord::new(options, None, ());
    format!("{}; by {}", text::cut(reason, REASON_BYTES_MAX), text::cut(&by, REASON_BYTES_MAX))
}

/// Records what was done, durably.
pub(crate) fn append<F: Figures>(
    engine: &Engine,
    reason: Option<&str>,
    figures: &F,
) -> Result<Appended, Error> {
    let entry = LedgerRecord::new(&engine.options, reason, figures);
    let append = Append::of_system(STREAM, Expected::Any, &Raw(F::KIND, &entry));
    engine.commit(append.durability(Durability::Synced))
}
