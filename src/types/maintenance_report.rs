//! Reports of maintenance: verifying, scrubbing, erasing, compacting.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use crate::types::head::Head;
use crate::types::text::{counted, visible};
use crate::types::version::{EventId, Position};

/// The result of verifying a store; see [`Store::verify`](crate::Store::verify).
///
/// ```
/// use annals::{Raw, Store};
///
/// let store = Store::in_memory()?;
/// store.append("account:alice", &Raw("account.opened", &()))?;
/// let report = store.verify()?;
/// assert!(report.is_clean());
/// assert_eq!(report.events, 1);
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Segments read.
    pub segments: usize,
    /// Intact appends found.
    pub appends: u64,
    /// Intact events found.
    pub events: u64,
    /// Bytes read.
    pub bytes: u64,
    /// All damage, in the order of the log.
    pub findings: Vec<Finding>,
    /// The end of the last segment that was verified; `None` if there is none. A later run continues after it
    /// ([`Verify::after`](crate::Verify::after)).
    pub verified: Option<Head>,
    /// Whether the caller ended the run before the end of the log.
    pub broken_off: bool,
    /// Events whose version could not be compared with the version before. The run began after the event
    /// before, or the store has more than 1,800,000 entities (50 MB), at which all remembered versions are
    /// dropped.
    pub versions_unchecked: u64,
    /// Index and tree files that were compared with the log ([`Verify::indexes`](crate::Verify::indexes)).
    pub indexes_compared: usize,
    /// The files among them that do not agree with their segments.
    pub indexes: Vec<IndexFlaw>,
    /// Whether MARK has a valid slot. Without one, no file proves which append was acknowledged last, and a
    /// torn tail looks like damage. A copy that was stopped leaves such a store. The next writer writes MARK
    /// again.
    pub mark_found: bool,
    /// Causes named by an id that were looked up ([`Verify::causes`](crate::Verify::causes)).
    pub causes_compared: u64,
    /// The causes among them whose position was removed on purpose.
    pub causes_removed: u64,
    /// The causes among them that are not in the store.
    pub causes_missing: u64,
    /// The first 10,000 missing causes, in order of position.
    pub causes: Vec<MissingCause>,
    /// Positions whose events were removed on purpose.
    pub removed: u64,
    /// Runs of removed positions without an order: the event that should have ordered the removal is not a
    /// `$ledger.compacting` event behind them. At most 100 for each event named as order. An order behind the
    /// end of the log is unknown, and no such run: a restored or forked store may end before it.
    pub removed_without_order: Vec<RangeInclusive<Position>>,
}

/// The progress of verifying a store; see [`Verify::on_progress`](crate::Verify::on_progress).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// Bytes verified so far.
    pub bytes: u64,
    /// Bytes of the files to verify, with the zeros ahead of the log.
    pub bytes_total: u64,
    /// The end of the last segment that was verified.
    pub verified: Option<Head>,
    /// Time since the run began.
    pub elapsed: Duration,
}

impl VerifyProgress {
    /// The time that the rest takes at most, at the same rate; `None` before the first byte.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        remaining(self.bytes, self.bytes_total, self.elapsed)
    }
}

/// The results of verifying in the background; see [`Builder::scrub`](crate::Builder::scrub).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScrubStats {
    /// How often it has reached the end of the log.
    pub passes: u64,
    /// Bytes verified.
    pub bytes: u64,
    /// Its position in the current pass.
    pub position: Position,
    /// The first 100 places that are damaged, each once.
    pub findings: Vec<Finding>,
}

/// One place of a store that is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The file.
    pub file: String,
    /// The offset in the file, in bytes.
    pub offset: u64,
    /// The position that should be there.
    pub position: Position,
    /// What is wrong.
    pub what: String,
}

/// An index or tree file that does not agree with its segment. The log is not affected.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexFlaw {
    /// The file.
    pub file: String,
    /// The offset in the file, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
    /// Whether readers accept the file, and so get wrong answers. The first reader that rejects a file builds
    /// it again. [`Store::rebuild_indexes`](crate::Store::rebuild_indexes) builds all of them again.
    pub is_believed: bool,
}

/// An event whose cause is not in the store. The event itself is intact, and causality treats it as one
/// without a cause.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingCause {
    /// The position of the event.
    pub position: Position,
    /// The entity of the event.
    pub entity: String,
    /// The id that the event names as its cause.
    pub cause: EventId,
    /// Whether a removed event may have had this id as an id of its own. `false`: no event of this history
    /// ever had it.
    pub may_be_removed: bool,
}

impl VerifyReport {
    /// Whether the store is sound: the log has no damage, no accepted index file is wrong, and no cause is
    /// certain to have never existed.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
            && !self.indexes.iter().any(|flaw| flaw.is_believed)
            && self.causes.iter().all(|missing| missing.may_be_removed)
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_wrong_index = self.indexes.iter().any(|flaw| flaw.is_believed);
        let verdict = match (self.is_clean(), self.findings.is_empty(), has_wrong_index) {
            (true, ..) => "clean",
            (_, false, _) => "DAMAGED",
            (_, _, true) => "WRONG INDEX",
            (_, _, false) => "CAUSES MISSING",
        };
        write!(
            f,
            "{verdict}: {} in {}, {}, {}",
            counted(self.events, "event", "events"),
            counted(self.appends, "append", "appends"),
            counted(self.segments, "segment", "segments"),
            counted(self.bytes, "byte", "bytes"),
        )?;
        if self.versions_unchecked > 0 {
            let events = counted(self.versions_unchecked, "event", "events");
            write!(f, ", the versions of {events} unchecked")?;
        }
        if self.causes_compared > 0 {
            let VerifyReport { causes_compared, causes_removed, causes_missing, .. } = self;
            write!(f, "; of {causes_compared} causes {causes_removed} removed, {causes_missing} missing")?;
        }
        if self.removed > 0 {
            write!(f, "; {} removed", counted(self.removed, "position", "positions"))?;
        }
        for run in &self.removed_without_order {
            write!(f, "; no order for the removal of {} to {}", run.start(), run.end())?;
        }
        if !self.mark_found {
            f.write_str("; MARK is missing or damaged: nothing proves what was acknowledged last")?;
        }
        if self.broken_off {
            f.write_str("; broken off before the end")?;
        }
        for found in &self.findings {
            write!(f, "\n{found}")?;
        }
        for flaw in &self.indexes {
            write!(f, "\n{flaw}")?;
        }
        for missing in &self.causes {
            write!(f, "\n{missing}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = visible(&self.what);
        write!(f, "{}, offset {}, position {}: {what}", visible(&self.file), self.offset, self.position)
    }
}

impl fmt::Display for MissingCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MissingCause { position, entity, cause, may_be_removed } = self;
        let entity = visible(entity);
        write!(f, "position {position}, {entity}: its cause {cause} is not in the store")?;
        if *may_be_removed {
            f.write_str("; it may be among the events that were removed")?;
        }
        Ok(())
    }
}

impl fmt::Display for IndexFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = if self.is_believed {
            "readers believe it: have it built again (annals reindex)"
        } else {
            "it is built again when it is needed"
        };
        write!(f, "{}, offset {}: {}; {remedy}", visible(&self.file), self.offset, visible(&self.what))
    }
}

/// The progress of rewriting segments; see [`Store::erase_watched`](crate::Store::erase_watched).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RewriteProgress {
    /// Bytes of segments read so far.
    pub bytes: u64,
    /// Bytes of all segments to read.
    pub bytes_total: u64,
    /// Time since the rewriting began.
    pub elapsed: Duration,
}

impl RewriteProgress {
    /// The time that the rest takes at the same rate; `None` before the first byte.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        remaining(self.bytes, self.bytes_total, self.elapsed)
    }
}

/// The result of an erasure; see [`Store::erase`](crate::Store::erase).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Erasure {
    /// Events whose payload and metadata were erased, without those that were erased before.
    pub events: u64,
    /// Bytes that were erased.
    pub bytes: u64,
    /// Segments that were rewritten.
    pub segments: u64,
    /// Files in `quarantine/` that were removed, because a tail that recovery cut may hold erased data.
    pub quarantined: u64,
    /// The position of the event in `$ledger` that records the erasure.
    pub position: Position,
    /// The id of that event.
    pub id: Option<EventId>,
}

/// The plan of a compaction; see [`Compaction::dry_run`](crate::Compaction::dry_run).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionPlan {
    /// Sealed segments.
    pub segments: usize,
    /// Bytes of the sealed segments.
    pub bytes_total: u64,
    /// Events that would be removed.
    pub removed: u64,
    /// Events whose payload and metadata would be erased.
    pub erased: u64,
    /// Bytes by which the segments would become shorter. What is left of removed events is counted:
    /// attestations, and hashes of records. Index files become shorter as well, and are not counted.
    pub bytes: u64,
    /// Bytes that the segments would take if what is left were appended to an empty store. Without rules the
    /// segments are not read, and count as they are.
    pub would_take: u64,
    /// The events by kind.
    pub kinds: BTreeMap<String, CompactionShare>,
    /// The events by scope.
    pub scopes: BTreeMap<String, CompactionShare>,
    /// Consumers that have not handled some of the events to remove.
    pub unhandled: Vec<Unhandled>,
}

/// The share of one kind or scope in a [`CompactionPlan`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionShare {
    /// Events that would be removed.
    pub removed: u64,
    /// Events whose payload and metadata would be erased.
    pub erased: u64,
    /// Bytes of these events that would go. What is left of removed events is not subtracted.
    pub bytes: u64,
}

/// A consumer that has not handled some of the events to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unhandled {
    /// The name of the consumer.
    pub consumer: String,
    /// The number of events that it would miss.
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

/// The result of a compaction; see [`Compaction::run`](crate::Compaction::run).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compacted {
    /// Events that were removed.
    pub removed: u64,
    /// Events whose payload and metadata were erased.
    pub erased: u64,
    /// Sealed segments before.
    pub segments_before: usize,
    /// Sealed segments after.
    pub segments_after: usize,
    /// Bytes of the sealed segments before.
    pub bytes_before: u64,
    /// Bytes of the sealed segments after.
    pub bytes_after: u64,
    /// Bytes that they would take if what is left were appended to an empty store; an estimate. If it is far
    /// below `bytes_after`, a fresh store of an export would be smaller.
    pub would_take: u64,
    /// The position of the event in `$ledger` that records the compaction; [`Position::START`] if there was
    /// nothing to do.
    pub position: Position,
    /// The id of that event.
    pub id: Option<EventId>,
}

/// The work of a compaction policy since the store was opened; see
/// [`Stats::compactions`](crate::Stats::compactions).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionStats {
    /// The reason that the policy was given.
    pub reason: String,
    /// Runs that ended without an error, also those with nothing to do.
    pub runs: u64,
    /// Events that all runs removed.
    pub removed: u64,
    /// Events whose payload and metadata all runs erased.
    pub erased: u64,
    /// The result of the last run.
    pub last: Option<Compacted>,
    /// The end of the last run, also of one that failed, by the store's clock.
    pub ended_at: Option<SystemTime>,
    /// The error of the last run; `None` if it did not fail.
    pub error: Option<String>,
}

/// The time that the rest takes at the same rate; `None` before there is a rate.
pub(super) fn remaining(bytes: u64, bytes_total: u64, elapsed: Duration) -> Option<Duration> {
    let rest = bytes_total.saturating_sub(bytes);
    let nanos = elapsed.as_nanos().checked_mul(rest.into())?.checked_div(bytes.into())?;
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}
