//! Reports of an open store: what opening found, the counters, the files and options; and the progress of
//! opening, indexing and copying.

use std::fmt;
use std::time::Duration;

use crate::types::maintenance_report::{CompactionStats, Finding, ScrubStats, remaining};
use crate::types::text::{counted, visible};
use crate::types::version::Position;

/// What opening a store found and did; see [`Store::open_report`](crate::Store::open_report).
///
/// ```
/// let store = annals::Store::in_memory()?;
/// assert_eq!(store.open_report().events, 0);
/// println!("{}", store.open_report());
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenReport {
    /// Whether opening created the store.
    pub created: bool,
    /// Whether the last writer closed the store. A new store counts as closed.
    pub clean: bool,
    /// Whether the file MARK was found and valid. Without it, the last acknowledged append before an unclean
    /// stop cannot be told from later ones. All intact appends are kept either way.
    pub mark_found: bool,
    /// Segments, with the one that is being written.
    pub segments: usize,
    /// Appends found.
    pub appends: u64,
    /// Events found.
    pub events: u64,
    /// Bytes that opening read.
    pub bytes_read: u64,
    /// The torn tail that was cut from the end of the log after an unclean stop.
    pub cut: Option<TruncatedTail>,
    /// Files that an interrupted step had left and that were removed. They held no event.
    pub removed: Vec<String>,
    /// Names in the directory that annals does not know and did not touch.
    pub unknown: Vec<String>,
    /// Damaged and missing parts, in a store that was opened by
    /// [`Builder::salvage`](crate::Builder::salvage). Otherwise empty, because a damaged store does not open.
    pub holes: Vec<Finding>,
    /// How far the newest recorded-at is ahead of the clock; zero if it is not.
    ///
    /// More than a minute means that the clock was wrong, then or now. New events get the same recorded-at
    /// until the clock has caught up. To repair it, [`fork`](crate::Store::fork) the store up to the event
    /// before, and import the rest from an export without its `recorded_at`.
    pub recorded_ahead: Duration,
    /// The duration of each step.
    pub steps: Vec<(&'static str, Duration)>,
}

/// More than synchronised clocks differ. A report mentions a recorded-at that is further ahead.
pub(crate) const RECORDED_AHEAD_MAX: Duration = Duration::from_secs(60);

/// The writer of a store, as far as this handle can know; see [`Store::writer`](crate::Store::writer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriterState {
    /// This handle: the store was opened to write.
    Here,
    /// Another handle or process has the store open to write.
    Elsewhere,
    /// The store was closed, and has no writer.
    Closed,
    /// The last writer did not close the store, or it is not known whether it did. Opening the store to write
    /// will either keep or cut the events that the last writer had not made durable.
    Gone,
}

/// The progress of opening a store; see [`Builder::on_open_progress`](crate::Builder::on_open_progress).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenProgress {
    /// Bytes of events read so far.
    pub bytes: u64,
    /// Bytes of the segment files that are not known to be sealed, with the zeros ahead of the log. Opening
    /// reads no more than these.
    pub bytes_total: u64,
    /// Events found so far.
    pub events: u64,
    /// Time since opening began.
    pub elapsed: Duration,
}

impl OpenProgress {
    /// The time that the rest takes at most, at the same rate; `None` before the first byte.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        remaining(self.bytes, self.bytes_total, self.elapsed)
    }
}

/// The progress of building indexes again; see [`Store::rebuild_indexes`](crate::Store::rebuild_indexes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexProgress {
    /// Indexes built so far.
    pub segments: usize,
    /// Indexes to build: one for each sealed segment.
    pub segments_total: usize,
    /// Bytes of segments read so far.
    pub bytes: u64,
    /// Bytes of all sealed segments.
    pub bytes_total: u64,
    /// Time since the work began.
    pub elapsed: Duration,
}

impl IndexProgress {
    /// The time that the rest takes at the same rate; `None` before the first index.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        remaining(self.bytes, self.bytes_total, self.elapsed)
    }
}

/// The progress of a copy (backup, restore, fork: [`StoreCopy::on_progress`](crate::StoreCopy::on_progress))
/// or of a rollback ([`Builder::rollback_watched`](crate::Builder::rollback_watched)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyProgress {
    /// Bytes of segments in place so far: copied, shared, or there before.
    pub bytes: u64,
    /// Bytes of all segments.
    pub bytes_total: u64,
    /// Time since the work began.
    pub elapsed: Duration,
}

impl CopyProgress {
    /// The time that the rest takes at the same rate; `None` before the first byte.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        remaining(self.bytes, self.bytes_total, self.elapsed)
    }
}

/// A torn tail: bytes that the last writer had not made durable when it stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TruncatedTail {
    /// The segment that it was cut from.
    pub segment: String,
    /// The offset at which the log ends now.
    pub offset: u64,
    /// Bytes from that offset to the last byte that was not zero.
    pub bytes: u64,
    /// The file that keeps the bytes for inspection; `None` if the disk had no space.
    pub kept: Option<String>,
}

impl fmt::Display for OpenReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match (self.created, self.clean) {
            (true, _) => "created",
            (false, true) => "closed cleanly",
            (false, false) => "recovered after an unclean stop",
        };
        let events = counted(self.events, "event", "events");
        let appends = counted(self.appends, "append", "appends");
        write!(f, "{state}: {events} in {appends}, {}", counted(self.segments, "segment", "segments"))?;
        if let Some(cut) = &self.cut {
            let kept = cut.kept.as_deref().unwrap_or("nowhere, there was no room");
            let bytes = counted(cut.bytes, "byte", "bytes");
            write!(f, "; cut {bytes} at {}, offset {}, kept in {kept}", cut.segment, cut.offset)?;
        }
        if !self.mark_found {
            f.write_str("; MARK was missing or damaged")?;
        }
        for hole in &self.holes {
            write!(f, "; HOLE: {hole}")?;
        }
        for name in &self.removed {
            write!(f, "; removed {}", visible(name))?;
        }
        for name in &self.unknown {
            write!(f, "; left {} alone", visible(name))?;
        }
        if self.recorded_ahead > RECORDED_AHEAD_MAX {
            write!(f, "; recorded-at is {:.0?} ahead of the clock", self.recorded_ahead)?;
        }
        for (step, time) in &self.steps {
            write!(f, "; {step} {time:.1?}")?;
        }
        Ok(())
    }
}

/// Counters of an open store, since it was opened unless the field says otherwise; see
/// [`Store::stats`](crate::Store::stats).
///
/// ```
/// use annals::{Raw, Store};
///
/// let store = Store::in_memory()?;
/// store.append("account:alice", &Raw("account.opened", &()))?;
/// let stats = store.stats();
/// assert_eq!((stats.events, stats.entities, stats.appends), (1, 1, 1));
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Events in the store, since it was created.
    pub events: u64,
    /// Bytes of its segments up to the head, since it was created.
    pub bytes: u64,
    /// Segments, with the one that is being written.
    pub segments: usize,
    /// Bytes of the indexes of sealed segments in memory just now, at most
    /// [`Builder::index_memory_bytes`](crate::Builder::index_memory_bytes).
    pub index_bytes: u64,
    /// Bytes of sealed segments in memory just now, at most
    /// [`Builder::segment_memory_bytes`](crate::Builder::segment_memory_bytes).
    pub resident_bytes: u64,
    /// Entities that have events.
    pub entities: u64,
    /// How far the newest recorded-at is ahead of the clock just now; see [`OpenReport::recorded_ahead`].
    pub recorded_ahead: Duration,
    /// Commands in the writer's queue just now.
    pub queue_commands: usize,
    /// Bytes of the commands in the writer's queue just now.
    pub queue_bytes: usize,
    /// Groups of appends written. A group is one write and at most one sync.
    pub groups: u64,
    /// Appends accepted.
    pub appends: u64,
    /// Events accepted.
    pub events_appended: u64,
    /// Syncs of segment data.
    pub syncs: u64,
    /// The median time of a sync; zero before the first. Quantiles are exact to 1/8.
    pub sync_p50: Duration,
    /// Of a hundred syncs, the second slowest.
    pub sync_p99: Duration,
    /// The slowest sync.
    pub sync_max: Duration,
    /// The median time of an append from encoding to acknowledgement, with its time in the queue; zero before
    /// the first. Each append whose caller waits is timed, and one in sixteen of those that are submitted.
    pub append_p50: Duration,
    /// Of a hundred appends, the second slowest.
    pub append_p99: Duration,
    /// The slowest append that was timed.
    pub append_max: Duration,
    /// Bytes of the accepted events as they are stored: names, metadata and payload.
    pub event_bytes: u64,
    /// Bytes written to the disk: events, frames, zeros ahead of the log, MARK, MANIFEST. See
    /// [`Stats::write_amplification`].
    pub bytes_written: u64,
    /// Open subscriptions just now.
    pub subscriptions: usize,
    /// How far each open subscription is behind.
    pub subscription_lags: Vec<SubscriptionLag>,
    /// Open receivers of notifications just now.
    pub notification_receivers: usize,
    /// Events in notifications, counted once for each receiver.
    pub notifications_sent: u64,
    /// Events that receivers missed because they were too slow.
    pub notifications_missed: u64,
    /// The newest readable position.
    pub head: Position,
    /// The newest position that survives a power cut.
    pub durable_head: Position,
    /// States of projections in memory and in the file.
    pub cache: CacheStats,
    /// The results of verifying in the background.
    pub scrub: ScrubStats,
    /// The work of each policy of [`Builder::compact_every`](crate::Builder::compact_every), in the order in
    /// which they were given.
    pub compactions: Vec<CompactionStats>,
}

/// Counters of the states of projections; see [`Stats::cache`].
///
/// Each [`Store::load`](crate::Store::load) counts as one of `memory_hits`, `disk_hits` and `misses`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Loads that found a state in memory, up to date or some events behind.
    pub memory_hits: u64,
    /// Loads that found a state in the file.
    pub disk_hits: u64,
    /// Loads that folded from the first event.
    pub misses: u64,
    /// States in memory just now.
    pub states: usize,
    /// Bytes of the states in memory, estimated from their encoded form.
    pub bytes: usize,
    /// States dropped from memory to keep its budget.
    pub dropped: u64,
    /// States written to the file.
    pub saved: u64,
    /// Bytes of the states that were read or written in the file since opening. The file is larger.
    pub disk_bytes: u64,
    /// States dropped from the file to keep its budget.
    pub disk_dropped: u64,
}

impl Stats {
    /// Bytes written to the disk for each byte of an event; 0 before the first event.
    ///
    /// Small and synced appends cost most: each sync writes 128 bytes of MARK, and each frame has a header of
    /// 80.
    #[must_use]
    pub fn write_amplification(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        match self.event_bytes {
            0 => 0.0,
            bytes => self.bytes_written as f64 / bytes as f64,
        }
    }

    /// Events for each write, on average; 0 before the first group.
    #[must_use]
    pub fn events_per_group(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "an average for people")]
        match self.groups {
            0 => 0.0,
            groups => self.events_appended as f64 / groups as f64,
        }
    }
}

/// The files and options of a store; see [`Store::describe`](crate::Store::describe).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Description {
    /// The directory, or a text that names another disk.
    pub place: String,
    /// The store's id, as a UUID.
    pub store_id: String,
    /// The line, 16 bytes in hex: a name of this course of history. Rollback, restore and fork give positions
    /// again, and draw another line. A backup has the line of its source. `None` if MANIFEST cannot be read.
    pub line: Option<String>,
    /// The newest readable position.
    pub head: Position,
    /// The newest position that survives a power cut.
    pub durable_head: Position,
    /// The writer, as far as this handle can know.
    pub writer: WriterState,
    /// Files and directories just now.
    pub parts: Vec<StoreFile>,
    /// The options in force, under the names of the [`Builder`](crate::Builder)'s methods.
    pub options: Vec<(&'static str, String)>,
}

/// A file or directory of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreFile {
    /// The name in the store's directory.
    pub name: String,
    /// The number of files.
    pub files: usize,
    /// Bytes of these files, with the zeros ahead of the log.
    pub bytes: u64,
    /// The purpose of the file, and what an operator may do with it.
    pub why: &'static str,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Description { place, store_id, line, head, durable_head, writer, .. } = self;
        writeln!(f, "store {store_id} in {}", visible(place))?;
        line.iter().try_for_each(|line| writeln!(f, "line {line}"))?;
        writeln!(f, "head {head}, durable up to {durable_head}, writer: {writer:?}")?;
        for StoreFile { name, files, bytes, why } in &self.parts {
            let files_word = if *files == 1 { "file " } else { "files" };
            let bytes_word = if *bytes == 1 { "byte " } else { "bytes" };
            writeln!(f, "  {name:<12} {files:>5} {files_word} {bytes:>13} {bytes_word}  {why}")?;
        }
        for (name, value) in &self.options {
            writeln!(f, "  {name} = {value}")?;
        }
        Ok(())
    }
}

/// How far a subscription is behind the head.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionLag {
    /// The query of the subscription, as text.
    pub query: String,
    /// The position up to which the subscription has returned all its events.
    pub position: Position,
    /// How many positions the head is ahead. Not all of their events need match the query.
    pub behind: u64,
}
