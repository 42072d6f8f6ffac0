//! What rewriting segments says about itself.
//!
//! Row: words.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use crate::types::event_id::EventId;
use crate::types::text::{counted, visible};
use crate::types::version::Position;

use super::remaining;

/// How far rewriting segments is; see [`Store::erase_watched`](crate::Store::erase_watched).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RewriteProgress {
    /// Bytes of segments read so far.
    pub bytes: u64,
    /// Bytes of the segments that are to be read.
    pub bytes_total: u64,
    /// Time since it began.
    pub elapsed: Duration,
}

impl RewriteProgress {
    /// How long the rest takes, if it goes on like this; `None` before anything was read.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        remaining(self.bytes, self.bytes_total, self.elapsed)
    }
}

/// What was erased; see [`Store::erase`](crate::Store::erase).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Erasure {
    /// Events whose private part is gone now. Those that were erased before are not counted.
    pub events: u64,
    /// How many bytes shorter they are.
    pub bytes: u64,
    /// Segments that were written anew for that.
    pub segments: u64,
    /// Files in `quarantine/` that were removed: what recovery once cut may hold anything.
    pub quarantined: u64,
    /// The position of the event of `$ledger` that says so.
    pub position: Position,
    /// Its id.
    pub id: Option<EventId>,
}

/// What a compaction would do; see [`Compaction::dry_run`](crate::Compaction::dry_run).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionPlan {
    /// Segments that are sealed.
    pub segments: usize,
    /// Their bytes.
    pub bytes_total: u64,
    /// Events that would go.
    pub removed: u64,
    /// Events of which payload and metadata would go.
    pub erased: u64,
    /// The bytes of both. Attestations, about 200 bytes for each run of removed appends, are not taken off.
    pub bytes: u64,
    /// The same by kind.
    pub kinds: BTreeMap<String, CompactionShare>,
    /// The same by scope.
    pub scopes: BTreeMap<String, CompactionShare>,
    /// Consumers that have not handled some of them.
    pub unhandled: Vec<Unhandled>,
}

/// What of a kind or scope would go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionShare {
    /// Events that would go.
    pub removed: u64,
    /// Events of which payload and metadata would go.
    pub erased: u64,
    /// The bytes of both.
    pub bytes: u64,
}

/// A consumer that has not handled some of what would go.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unhandled {
    /// Its name.
    pub consumer: String,
    /// How many events it would miss.
    pub events: u64,
    /// The first of them.
    pub first: Position,
}

impl fmt::Display for CompactionPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CompactionPlan { segments, bytes_total, removed, erased, bytes, .. } = self;
        write!(
            f,
            "{} would go, of {erased} the payload: {bytes} of {} in {}",
            counted(*removed, "event", "events"),
            counted(*bytes_total, "byte", "bytes"),
            counted(*segments, "segment", "segments"),
        )?;
        for (what, shares) in [("kind", &self.kinds), ("scope", &self.scopes)] {
            for (name, CompactionShare { removed, erased, bytes }) in shares {
                let name = visible(name);
                let removed = counted(*removed, "event", "events");
                let erased = counted(*erased, "payload", "payloads");
                write!(f, "\n{what} {name}: {removed}, {erased}, {}", counted(*bytes, "byte", "bytes"))?;
            }
        }
        for Unhandled { consumer, events, first } in &self.unhandled {
            write!(
                f,
                "\nconsumer {} has not handled {events} of them, the first at position {first}",
                visible(consumer)
            )?;
        }
        Ok(())
    }
}

/// What a compaction did; see [`Compaction::run`](crate::Compaction::run).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compacted {
    /// Events that are gone.
    pub removed: u64,
    /// Events of which payload and metadata are gone.
    pub erased: u64,
    /// Sealed segments before.
    pub segments_before: usize,
    /// Sealed segments after.
    pub segments_after: usize,
    /// Their bytes before.
    pub bytes_before: u64,
    /// Their bytes after.
    pub bytes_after: u64,
    /// The position of the event of `$ledger` that says so; [`Position::START`] if there was nothing to do.
    pub position: Position,
    /// Its id.
    pub id: Option<EventId>,
}

/// What a policy has compacted since the store was opened; see [`Stats::compactions`](crate::Stats::compactions).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionStats {
    /// Why it compacts.
    pub reason: String,
    /// How often it came to its end, with something to do or nothing.
    pub runs: u64,
    /// Events that are gone, over all of these.
    pub removed: u64,
    /// Events of which payload and metadata are gone, over all of these.
    pub erased: u64,
    /// What the last of these did.
    pub last: Option<Compacted>,
    /// When it was last over, also by an error; by the store's clock.
    pub ended_at: Option<SystemTime>,
    /// Why the last run did not come to its end; `None` if it did.
    pub error: Option<String>,
}
