//! How far an export or an import is, and what it did.

use std::fmt;
use std::time::Duration;

use crate::types::{Position, counted};

/// How far an export is; see [`Export::on_progress`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportProgress {
    /// Events exported so far.
    pub events: u64,
    /// Bytes of their lines.
    pub bytes: u64,
    /// The position it began behind.
    pub after: Position,
    /// The position of the last event exported.
    pub position: Position,
    /// The position it ends at.
    pub head: Position,
    /// Since it began.
    pub elapsed: Duration,
}

impl ExportProgress {
    /// How long the rest takes if matching events go on coming as densely; `None` before the first.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let done = self.position.get().saturating_sub(self.after.get());
        let rest = self.head.get().saturating_sub(self.position.get());
        let nanos = self.elapsed.as_nanos().checked_mul(rest.into())?.checked_div(done.into())?;
        u64::try_from(nanos).ok().map(Duration::from_nanos)
    }
}

/// What an export wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exported {
    /// Events, a line each.
    pub events: u64,
    /// Appends they belong to.
    pub appends: u64,
    /// Bytes.
    pub bytes: u64,
    /// The position of the last event: a later export [`after`](Export::after) it goes on from there.
    pub position: Position,
}

impl fmt::Display for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exported { events, appends, bytes, position } = self;
        let events = counted(*events, "event", "events");
        let appends = counted(*appends, "append", "appends");
        write!(f, "{events} of {appends} in {}, up to position {position}", counted(*bytes, "byte", "bytes"))
    }
}

/// How far an import is; see [`Import::on_progress`](super::Import::on_progress).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportProgress {
    /// Lines read, those of earlier runs included.
    pub lines: u64,
    /// Bytes of them; of a file, compare with its length.
    pub bytes: u64,
    /// Bytes that earlier runs had imported, and were only passed over.
    pub bytes_before: u64,
    /// Events handed to the store by this run.
    pub events: u64,
    /// Since it began.
    pub elapsed: Duration,
}

impl ImportProgress {
    /// How long the rest of a source of so many bytes takes, if it goes on like this; `None` before anything was imported.
    #[must_use]
    pub fn remaining(&self, bytes_total: u64) -> Option<Duration> {
        let (done, rest) =
            (self.bytes.saturating_sub(self.bytes_before), bytes_total.saturating_sub(self.bytes));
        let nanos = self.elapsed.as_nanos().checked_mul(rest.into())?.checked_div(done.into())?;
        u64::try_from(nanos).ok().map(Duration::from_nanos)
    }
}

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// Events appended by this run.
    pub events: u64,
    /// Appends they were.
    pub appends: u64,
    /// Lines read by this run, blank ones included.
    pub lines: u64,
    /// Lines that earlier runs had read.
    pub lines_before: u64,
    /// Lines rejected by this run; see [`Import::skip_bad`](super::Import::skip_bad).
    pub rejected: u64,
    /// Why, of the first 20.
    pub reasons: Vec<String>,
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = |count| counted(count, "line", "lines");
        let events = counted(self.events, "event", "events");
        let appends = counted(self.appends, "append", "appends");
        write!(f, "{events} in {appends}, from {}", lines(self.lines))?;
        if self.lines_before > 0 {
            let were = if self.lines_before == 1 { "was" } else { "were" };
            write!(f, "; {} {were} imported before", lines(self.lines_before))?;
        }
        if self.rejected > 0 {
            write!(f, "; {} rejected", lines(self.rejected))?;
        }
        for reason in &self.reasons {
            write!(f, "\n{reason}")?;
        }
        Ok(())
    }
}
