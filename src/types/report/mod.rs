//! What annals says about itself: what opening found, what the counters show, what verifying found.
//!
//! Plain values that print themselves; whoever finds something out fills them in.
//! Row: words.

mod rewriting;
mod verifying;

use std::fmt;
use std::time::Duration;

use crate::types::text::{counted, visible};
use crate::types::version::Position;

pub use rewriting::{
    Compacted, CompactionPlan, CompactionShare, CompactionStats, Erasure, RewriteProgress, Unhandled,
};
pub use verifying::{Finding, IndexFlaw, MissingCause, ScrubStats, VerifyProgress, VerifyReport};

/// What opening a store found and did.
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
    /// Whether the store was created just now.
    pub created: bool,
    /// Whether the last writer closed it; a new store counts as closed.
    pub clean: bool,
    /// Whether MARK was there and whole. Without it, what was acknowledged last before an unclean
    /// stop cannot be told from what was not; everything that is whole is kept either way.
    pub mark_found: bool,
    /// Segments, the one being written included.
    pub segments: usize,
    /// Appends found.
    pub appends: u64,
    /// Events found.
    pub events: u64,
    /// Bytes read while opening.
    pub bytes_read: u64,
    /// What was cut from the end of the log, after an unclean stop.
    pub cut: Option<TruncatedTail>,
    /// Leftovers of an interrupted step that were removed: files of annals without any event.
    pub removed: Vec<String>,
    /// Names annals does not know and left alone.
    pub unknown: Vec<String>,
    /// What is damaged or missing, in a store that was opened by
    /// [`Builder::salvage`](crate::Builder::salvage); otherwise nothing, or it would not be open.
    pub holes: Vec<Finding>,
    /// How far the newest recorded-at is ahead of the clock; zero if it is not. More than a minute means that
    /// the clock was wrong, then or now: recorded-at stands still until the clock has caught up.
    pub recorded_ahead: Duration,
    /// How long each step took.
    pub steps: Vec<(&'static str, Duration)>,
}

/// More than clocks differ that are kept right. Where recorded-at is further ahead, it is said.
pub(crate) const RECORDED_AHEAD_MAX: Duration = Duration::from_secs(60);

/// What can be known of the writer of a store; see [`Store::writer`](crate::Store::writer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriterState {
    /// This handle's own thread: the store was opened to write.
    Here,
    /// Another handle or process has the store open to write.
    Elsewhere,
    /// The store was closed; nobody writes.
    Closed,
    /// The last writer ended without closing the store, or it is not known how. What it had not made
    /// durable shows, or is cut, once the next one has opened the store.
    Gone,
}

/// How far opening a store is; see [`Builder::on_open_progress`](crate::Builder::on_open_progress).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenProgress {
    /// Bytes of events walked over so far.
    pub bytes: u64,
    /// Bytes of the segment files that are not known to be sealed, room for events to come included: at most so
    /// many are walked over.
    pub bytes_total: u64,
    /// Events found so far.
    pub events: u64,
    /// Time since opening began.
    pub elapsed: Duration,
}

impl OpenProgress {
    /// How long the rest takes at most, if it goes on like this; `None` before anything was walked over.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        remaining(self.bytes, self.bytes_total, self.elapsed)
    }
}

/// How far building indexes again is; see [`Store::rebuild_indexes`](crate::Store::rebuild_indexes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexProgress {
    /// Indexes built so far.
    pub segments: usize,
    /// Sealed segments there are.
    pub segments_total: usize,
    /// Bytes of segments walked over so far.
    pub bytes: u64,
    /// Bytes the sealed segments have.
    pub bytes_total: u64,
    /// Time since it began.
    pub elapsed: Duration,
}

impl IndexProgress {
    /// How long the rest takes if it goes on like this; `None` before the first index was built.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        remaining(self.bytes, self.bytes_total, self.elapsed)
    }
}

/// How far a copy of a store is: a backup, a restore, a fork ([`StoreCopy::on_progress`](crate::StoreCopy::on_progress)), or setting a store back
/// ([`Builder::rollback_watched`](crate::Builder::rollback_watched)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyProgress {
    /// Bytes of segments that are in place so far, whether they were copied, shared, or there before.
    pub bytes: u64,
    /// Bytes of all segments.
    pub bytes_total: u64,
    /// Time since it began.
    pub elapsed: Duration,
}

impl CopyProgress {
    /// How long the rest takes, if it goes on like this; `None` at the beginning.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        remaining(self.bytes, self.bytes_total, self.elapsed)
    }
}

fn remaining(bytes: u64, bytes_total: u64, elapsed: Duration) -> Option<Duration> {
    let rest = bytes_total.saturating_sub(bytes);
    let nanos = elapsed.as_nanos().checked_mul(rest.into())?.checked_div(bytes.into())?;
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

/// A torn tail: what the last writer had not made durable when it stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TruncatedTail {
    /// The segment it was cut from.
    pub segment: String,
    /// Where the log ends now.
    pub offset: u64,
    /// Bytes from there to the last one that was not zero.
    pub bytes: u64,
    /// Where the bytes are kept for a person to look at; `None` if the disk had no room.
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

/// Counters of an open store. "Since opening" unless said otherwise.
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
    /// Segments, the one being written included.
    pub segments: usize,
    /// Bytes of the indexes of sealed segments that are in memory just now: at most
    /// [`Builder::index_memory_bytes`](crate::Builder::index_memory_bytes).
    pub index_bytes: u64,
    /// Bytes of sealed segments that are in memory just now: at most
    /// [`Builder::segment_memory_bytes`](crate::Builder::segment_memory_bytes).
    pub resident_bytes: u64,
    /// Entities that have events.
    pub entities: u64,
    /// How far the newest recorded-at is ahead of the clock just now; see [`OpenReport::recorded_ahead`].
    pub recorded_ahead: Duration,
    /// Commands waiting for the writer just now, and their bytes.
    pub queue_commands: usize,
    /// See [`Stats::queue_commands`].
    pub queue_bytes: usize,
    /// Groups written: each one write, and at most one sync.
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
    /// The median time of an append, from being encoded to being answered, the queue included; zero before
    /// the first. Every append that is waited for is timed, and one in sixteen of those that are submitted.
    pub append_p50: Duration,
    /// Of a hundred appends, the second slowest.
    pub append_p99: Duration,
    /// The slowest append that was timed.
    pub append_max: Duration,
    /// Bytes of the events accepted: names, metadata, payload, as they are stored.
    pub event_bytes: u64,
    /// Bytes handed to the disk: events, frames, zeros ahead, MARK, MANIFEST. See
    /// [`Stats::write_amplification`].
    pub bytes_written: u64,
    /// Subscriptions there are just now.
    pub subscriptions: usize,
    /// How far each of them is behind.
    pub subscription_lags: Vec<SubscriptionLag>,
    /// Receivers of notifications there are just now.
    pub notification_receivers: usize,
    /// Events that notifications told of, counted once per receiver.
    pub notifications_sent: u64,
    /// Events that receivers of notifications were too slow for.
    pub notifications_missed: u64,
    /// The newest readable position.
    pub head: Position,
    /// The newest position that survives a power cut.
    pub durable_head: Position,
    /// States of projections that were kept.
    pub cache: CacheStats,
    /// What verifying in the background has found.
    pub scrub: ScrubStats,
    /// What the policies of [`Builder::compact_every`](crate::Builder::compact_every) have done, in the order they were given.
    pub compactions: Vec<CompactionStats>,
}

/// What became of the states of projections; see [`Stats::cache`].
///
/// Every [`Store::load`](crate::Store::load) is one of `memory_hits`, `disk_hits` and `misses`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Loads that found a state in memory, as it is now or some events behind.
    pub memory_hits: u64,
    /// Loads that found a state in the file.
    pub disk_hits: u64,
    /// Loads that folded from the first event.
    pub misses: u64,
    /// States in memory just now.
    pub states: usize,
    /// Their bytes, estimated from their encoded form.
    pub bytes: usize,
    /// States dropped from memory to stay within its budget.
    pub dropped: u64,
    /// States written to the file.
    pub saved: u64,
    /// Bytes of the states in the file, as far as it was used since opening. The file is larger.
    pub disk_bytes: u64,
    /// States dropped from the file to stay within its budget.
    pub disk_dropped: u64,
}

impl Stats {
    /// How many bytes were handed to the disk for each byte of an event; 0 before the first. Small appends
    /// and synced ones cost most: each sync writes 128 bytes of MARK, each frame has a header of 80.
    #[must_use]
    pub fn write_amplification(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        match self.event_bytes {
            0 => 0.0,
            bytes => self.bytes_written as f64 / bytes as f64,
        }
    }

    /// How many events shared a write on average; 0 before the first group.
    #[must_use]
    pub fn events_per_group(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "an average for people")]
        match self.groups {
            0 => 0.0,
            groups => self.events_appended as f64 / groups as f64,
        }
    }
}

/// Where everything of a store lives, and why; see [`Store::describe`](crate::Store::describe).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Description {
    /// The directory, or what else the store is on.
    pub place: String,
    /// The store's id, as a UUID.
    pub store_id: String,
    /// The newest readable position.
    pub head: Position,
    /// The newest position that survives a power cut.
    pub durable_head: Position,
    /// What can be known of the writer.
    pub writer: WriterState,
    /// Files and directories, as they are just now.
    pub parts: Vec<StoreFile>,
    /// The options in force, by the names of the [`Builder`](crate::Builder)'s methods.
    pub options: Vec<(&'static str, String)>,
}

/// A file or directory of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreFile {
    /// Its name in the store's directory.
    pub name: String,
    /// How many files it is.
    pub files: usize,
    /// How many bytes they have, zeros ahead included.
    pub bytes: u64,
    /// What it is for, and what may be done with it.
    pub why: &'static str,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Description { place, store_id, head, durable_head, writer, .. } = self;
        writeln!(f, "store {store_id} in {}", visible(place))?;
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

/// How far a subscription is behind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionLag {
    /// What it asks for, for people.
    pub query: String,
    /// Up to where it has seen everything.
    pub position: Position,
    /// How many positions the head is ahead of that; not all of them need match.
    pub behind: u64,
}
