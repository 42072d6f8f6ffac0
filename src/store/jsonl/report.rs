//! Progress and results of exports and imports.

use std::fmt;
use std::time::Duration;

use crate::types::{Position, counted};

/// How far an export is; see [`Export::on_progress`](super::Export::on_progress).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportProgress {
    /// Events exported so far.
    pub events: u64,
    /// Bytes of their lines.
    pub bytes: u64,
    /// The position behind which the export began.
    pub after: Position,
    /// The position of the last exported event.
    pub position: Position,
    /// The position at which the export ends.
    pub head: Position,
    /// Time since the export began.
    pub elapsed: Duration,
}

impl ExportProgress {
    /// The time left if matching events stay as dense as so far; `None` before the first.
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
    /// Exported events, one a line.
    pub events: u64,
    /// The appends they belong to.
    pub appends: u64,
    /// Bytes written.
    pub bytes: u64,
    /// The position of the last event. A later export [`after`](super::Export::after) it goes on from there.
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
    /// Lines read, including those of earlier runs.
    pub lines: u64,
    /// Bytes of those lines; compare with the length of the source.
    pub bytes: u64,
    /// Bytes that earlier runs had imported, and this run skipped.
    pub bytes_before: u64,
    /// Events handed to the store by this run.
    pub events: u64,
    /// Time since this run began.
    pub elapsed: Duration,
}

impl ImportProgress {
    /// The time left for a source of this many bytes, at the rate so far; `None` before anything was
    /// imported.
    #[must_use]
    pub fn remaining(&self, bytes_total: u64) -> Option<Duration> {
        let done = self.bytes.saturating_sub(self.bytes_before);
        let rest = bytes_total.saturating_sub(self.bytes);
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
    /// Appends made by this run.
    pub appends: u64,
    /// Lines read by this run, including blank ones.
    pub lines: u64,
    /// Lines that earlier runs had read.
    pub lines_before: u64,
    /// Lines rejected by this run; see [`Import::skip_bad`](super::Import::skip_bad).
    pub rejected: u64,
    /// The reasons, for the first 20 rejected lines.
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
