//! Every name that belongs to the store itself: its own streams, and the kinds of the events in them.
//!
//! All of them begin with `$`, which no name of a user may: [`check_name`](super::event::check_name)
//! refuses it. They are on disk in every store, so none of them may ever change.

/// Names of the store's own streams begin with this character.
const PREFIX: char = '$';

/// The scope of the store's own events. No scope of a user holds them.
pub(crate) const SYSTEM_SCOPE: &str = "$";

/// True for a name that belongs to the store itself.
pub(crate) fn is_system(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// The stream that records maintenance: what was erased, compacted, backed up, restored, forked, set back.
pub(crate) mod ledger {
    pub(crate) const STREAM: &str = "$ledger";
    pub(crate) const CHECKPOINT: &str = "$ledger.checkpoint";
    pub(crate) const BACKED_UP: &str = "$ledger.backed-up";
    pub(crate) const RESTORED: &str = "$ledger.restored";
    pub(crate) const FORKED: &str = "$ledger.forked";
    pub(crate) const ROLLED_BACK: &str = "$ledger.rolled-back";
    /// An erasure begins; an `ERASED` follows.
    pub(crate) const ERASING: &str = "$ledger.erasing";
    pub(crate) const ERASED: &str = "$ledger.erased";
    /// A compaction begins; a `COMPACTED` follows.
    pub(crate) const COMPACTING: &str = "$ledger.compacting";
    pub(crate) const COMPACTED: &str = "$ledger.compacted";
}

/// The streams of consumers, one for each name.
pub(crate) mod consumer {
    /// The stream is this prefix and the consumer's name.
    pub(crate) const PREFIX: &str = "$consumer/";
    /// The consumer is new, or its query changed.
    pub(crate) const REGISTERED: &str = "$consumer.registered";
    /// The consumer handled events without appending anything.
    pub(crate) const ACKED: &str = "$consumer.acked";
    /// The consumer handled one event. The other events of the same append are its reactions.
    pub(crate) const REACTED: &str = "$consumer.reacted";
    /// The consumer handles nothing until an operator resumes, skips, rewinds or resets it.
    pub(crate) const HALTED: &str = "$consumer.halted";
    pub(crate) const RESUMED: &str = "$consumer.resumed";
    /// The consumer passes over events.
    pub(crate) const SKIPPED: &str = "$consumer.skipped";
    /// The consumer goes back, and handles events again.
    pub(crate) const REWOUND: &str = "$consumer.rewound";
    /// The consumer goes back to the beginning of the log.
    pub(crate) const RESET: &str = "$consumer.reset";
}

/// The streams of timers, one for each name.
pub(crate) mod timer {
    /// The stream is this prefix and the timer's name.
    pub(crate) const PREFIX: &str = "$timer/";
    pub(crate) const SET: &str = "$timer.set";
    pub(crate) const FIRED: &str = "$timer.fired";
    pub(crate) const CANCELLED: &str = "$timer.cancelled";
    pub(crate) const FAILED: &str = "$timer.failed";
}

/// The streams of gates, one for each name.
pub(crate) mod gate {
    /// The stream is this prefix and the gate's name.
    pub(crate) const PREFIX: &str = "$gate/";
    pub(crate) const DENIED: &str = "$gate.denied";
    /// An append went past the gates; the event gives the reason.
    pub(crate) const BYPASSED: &str = "$gate.bypassed";
}

/// The streams of imports, one for each name.
#[cfg(feature = "jsonl")]
pub(crate) mod import {
    /// The stream is this prefix and the import's name.
    pub(crate) const PREFIX: &str = "$import/";
    /// How far the import is.
    pub(crate) const REACHED: &str = "$import.reached";
}
