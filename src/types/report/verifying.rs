//! What verifying says it found.
//!
//! Row: words.

use std::fmt;
use std::time::Duration;

use crate::types::event_id::EventId;
use crate::types::head::Head;
use crate::types::text::{counted, visible};
use crate::types::version::Position;

use super::remaining;

/// What verifying a store found.
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
    /// Whole appends found.
    pub appends: u64,
    /// Whole events found.
    pub events: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Everything that is wrong, in the order of the log.
    pub findings: Vec<Finding>,
    /// The end of the last segment that was gone through: [`Verify::after`](crate::Verify::after) it verifying goes on. `None` if it was none.
    pub verified: Option<Head>,
    /// Whether it was broken off before the end, as asked.
    pub broken_off: bool,
    /// Events whose version could not be compared with the one before: of files that are not open, and hold some two million
    /// entities or more, or whose beginning was passed over.
    pub versions_unchecked: u64,
    /// Index files that were compared with the log, if that was asked for ([`Verify::indexes`](crate::Verify::indexes)).
    pub indexes_compared: usize,
    /// Of these, the ones that are not what their segments would give.
    pub indexes: Vec<IndexFlaw>,
    /// Whether MARK has a valid slot. Without one, nothing proves what was acknowledged last: a torn tail
    /// cannot be told from damage to it. A copy that was stopped leaves a store so, and the next writer
    /// writes MARK again.
    pub mark_found: bool,
    /// Causes that are named by an id and were looked for, if that was asked for
    /// ([`Verify::causes`](crate::Verify::causes)).
    pub causes_compared: u64,
    /// Of these, the ones whose position was removed on purpose.
    pub causes_removed: u64,
    /// Of these, the ones that are not in the store.
    pub causes_missing: u64,
    /// The first 10,000 of the missing ones, in order of position.
    pub causes: Vec<MissingCause>,
}

/// How far verifying a store is; see [`Verify::on_progress`](crate::Verify::on_progress).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// Bytes gone through so far.
    pub bytes: u64,
    /// Bytes of the files to be gone through, room for events to come included.
    pub bytes_total: u64,
    /// The end of the last segment that was gone through.
    pub verified: Option<Head>,
    /// Since it began.
    pub elapsed: Duration,
}

impl VerifyProgress {
    /// How long the rest takes at most, if it goes on like this; `None` before anything was gone through.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        remaining(self.bytes, self.bytes_total, self.elapsed)
    }
}

/// What verifying in the background has found; see [`Builder::scrub`](crate::Builder::scrub).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScrubStats {
    /// How often it has come to the end of the log.
    pub passes: u64,
    /// Bytes it has gone through.
    pub bytes: u64,
    /// The position it is at in this pass.
    pub position: Position,
    /// What is wrong, each place once: the first 100.
    pub findings: Vec<Finding>,
}

/// One thing that is wrong with a store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The file.
    pub file: String,
    /// Where in the file.
    pub offset: u64,
    /// The position that was expected there.
    pub position: Position,
    /// What is wrong.
    pub what: String,
}

/// An index file that is not what its segment would give. The log is whole all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexFlaw {
    /// The file.
    pub file: String,
    /// Where in the file.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
    /// Whether readers believe it, and are told something that the log does not say. One that they do not believe is made anew by whoever
    /// needs it first. [`Store::rebuild_indexes`](crate::Store::rebuild_indexes) makes all of them anew now.
    pub is_believed: bool,
}

/// An event whose cause is not in the store. The event is whole all the same, and reads as one without a
/// cause.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingCause {
    /// Where the event stands.
    pub position: Position,
    /// Its entity.
    pub entity: String,
    /// The id that it names as its cause.
    pub cause: EventId,
    /// Events were removed from the store, and nothing tells whether one of them had brought this id along.
    /// `false`: no event of this history ever had it.
    pub may_be_removed: bool,
}

impl VerifyReport {
    /// Whether nothing is wrong: no break in the log, no index that is believed and wrong, and no cause that
    /// certainly never was.
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
        let so = if self.is_believed {
            "readers believe it: have it built again (annals reindex)"
        } else {
            "it is built again when it is needed"
        };
        write!(f, "{}, offset {}: {}; {so}", visible(&self.file), self.offset, visible(&self.what))
    }
}
