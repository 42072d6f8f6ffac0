//! The options of a store, with their defaults.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::types::error::Error;
use crate::types::event::{
    ENTITY_BYTES_CAP, KIND_BYTES_CAP, SCOPE_BYTES_CAP, TAG_BYTES_CAP, check_visible, micros_of,
};
use crate::types::report::OpenProgress;

/// When an append is acknowledged.
///
/// ```
/// use std::time::Duration;
/// use annals::{Append, Durability, Raw, Store};
///
/// let store = Store::in_memory()?;
/// let metric = Append::to("sensor:7").event(&Raw("sensor.read", &21.5));
/// metric.durability(Durability::Buffered { flush_every: Duration::from_millis(50) }).commit(&store)?;
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// After the sync: an acknowledged event survives a power cut. The default. Callers that append at the
    /// same time share one sync.
    #[default]
    Synced,
    /// After the write: an acknowledged event survives the end of the process. A power cut may lose the last
    /// appends, each as a whole and the newest first. The event is visible at once. It is synced after at
    /// most `flush_every`, or earlier if many bytes are unsynced.
    Buffered {
        /// The longest time an acknowledged event stays unsynced.
        flush_every: Duration,
    },
}

/// The time of `buffered` without a time.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// Parses `synced`, `buffered` (100 ms) and `buffered:250ms`. The time is in `us`, `ms` or `s`, and above
/// zero.
///
/// ```
/// use std::time::Duration;
/// use annals::Durability;
///
/// let durability: Durability = "buffered:250ms".parse()?;
/// assert_eq!(durability, Durability::Buffered { flush_every: Duration::from_millis(250) });
/// # Ok::<(), annals::Error>(())
/// ```
impl FromStr for Durability {
    type Err = Error;

    fn from_str(text: &str) -> Result<Durability, Error> {
        let flush_every = match text.split_once(':') {
            None if text == "synced" => return Ok(Durability::Synced),
            None if text == "buffered" => Some(FLUSH_EVERY),
            Some(("buffered", time)) => short_time(time),
            _ => None,
        };
        match flush_every {
            Some(flush_every) => Ok(Durability::Buffered { flush_every }),
            None => {
                let text = format!("{text:?} is no durability; say synced, buffered, or buffered:250ms");
                Err(Error::invalid(text))
            }
        }
    }
}

fn short_time(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let number: u64 = number.parse().ok().filter(|number| *number > 0)?;
    match unit {
        "us" => Some(Duration::from_micros(number)),
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        _ => None,
    }
}

/// How long the store recognises an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyWindow {
    /// As long as its append is among this many positions before the head.
    Positions(u64),
    /// Always.
    Unlimited,
}

/// The limits of an append. A larger append fails with [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge),
/// and nothing is written.
///
/// ```
/// use annals::{Limits, Store};
///
/// let store = Store::builder(std::env::temp_dir().join("annals-doc-limits"))
///     .limits(Limits { payload_bytes_max: 4096, ..Limits::default() })
///     .open()?;
/// # store.close()?;
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of an entity's name: 512 (the format holds 4,096).
    pub entity_bytes_max: usize,
    /// Bytes of a scope's name: 255, which is also what the format holds.
    pub scope_bytes_max: usize,
    /// Bytes of a kind: 255, which is also what the format holds.
    pub kind_bytes_max: usize,
    /// Bytes of one tag: 255, which is also what the format holds.
    pub tag_bytes_max: usize,
    /// Tags on one event: 32 (the format holds 255). Each is indexed, so each costs memory.
    pub tags_max: usize,
    /// Bytes of one event's payload and metadata together: 4 MiB (the format holds 16 MiB an append).
    pub payload_bytes_max: usize,
    /// Events in one append: 65,535, which is also what the format holds.
    pub events_per_append_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            entity_bytes_max: 512,
            scope_bytes_max: SCOPE_BYTES_CAP,
            kind_bytes_max: KIND_BYTES_CAP,
            tag_bytes_max: TAG_BYTES_CAP,
            tags_max: 32,
            payload_bytes_max: 4 << 20,
            events_per_append_max: usize::from(u16::MAX),
        }
    }
}

impl Limits {
    /// The limits of format 1. A store with these limits accepts the events of any other store, as an import
    /// needs.
    pub const FORMAT: Limits = Limits {
        entity_bytes_max: ENTITY_BYTES_CAP,
        scope_bytes_max: SCOPE_BYTES_CAP,
        kind_bytes_max: KIND_BYTES_CAP,
        tag_bytes_max: TAG_BYTES_CAP,
        tags_max: 255,
        payload_bytes_max: 16 << 20,
        events_per_append_max: 65_535,
    };

    /// Refuses limits beyond what format 1 can hold.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let most = Limits::FORMAT;
        let caps = [
            ("entity_bytes_max", self.entity_bytes_max, most.entity_bytes_max),
            ("scope_bytes_max", self.scope_bytes_max, most.scope_bytes_max),
            ("kind_bytes_max", self.kind_bytes_max, most.kind_bytes_max),
            ("tag_bytes_max", self.tag_bytes_max, most.tag_bytes_max),
            ("tags_max", self.tags_max, most.tags_max),
            ("payload_bytes_max", self.payload_bytes_max, most.payload_bytes_max),
            ("events_per_append_max", self.events_per_append_max, most.events_per_append_max),
        ];
        match caps.iter().find(|(_, limit, cap)| limit > cap || *limit == 0) {
            Some((name, limit, cap)) => {
                Err(Error::invalid(format!("{name} is {limit}; format 1 takes 1 to {cap}")))
            }
            None => Ok(()),
        }
    }
}

/// The policy after a panic of the writer thread, which is a bug in annals or in a
/// [`Disk`](crate::disk::Disk) of the application. Callers that wait for the writer get
/// [`ErrorKind::CommitUnknown`](crate::ErrorKind::CommitUnknown) under each policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestartPolicy {
    /// The store accepts no appends until it is opened again. The default, so that an operator sees the bug.
    #[default]
    Never,
    /// After the first panic, the writer recovers the store as opening would, and continues with its queue.
    /// Appends wait until it has recovered. After the second panic the store accepts no appends until it is
    /// opened again.
    Once,
}

/// Called with the progress of opening; its answer says whether to continue.
pub(crate) type OpenWatcher = Arc<dyn Fn(&OpenProgress) -> ControlFlow<()> + Send + Sync>;

/// The clock that gives each append its recorded-at.
pub(crate) type ClockFn = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// The microseconds since 1970 that a clock shows. A clock that panics shows 0, so that it cannot stop the
/// log.
pub(crate) fn read(clock: &ClockFn) -> u64 {
    let now = catch_unwind(AssertUnwindSafe(|| clock()));
    now.map_or(0, |now| u64::try_from(micros_of(now)).unwrap_or(0))
}

/// How far a recorded-at is ahead of the time `now`, both in microseconds.
pub(crate) fn ahead(recorded_at: u64, now: u64) -> Duration {
    Duration::from_micros(recorded_at.saturating_sub(now))
}

/// The options that a [`Builder`](crate::Builder) collects. Its methods document each of them.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) durability: Durability,
    pub(crate) limits: Limits,
    pub(crate) key_window: KeyWindow,
    pub(crate) segment_bytes_max: u32,
    pub(crate) unsynced_bytes_max: u64,
    pub(crate) group_commands_max: usize,
    pub(crate) group_bytes_max: usize,
    pub(crate) queue_commands_max: usize,
    pub(crate) queue_bytes_max: usize,
    pub(crate) queue_deadline: Option<Duration>,
    pub(crate) ack_deadline: Option<Duration>,
    pub(crate) space_probe_every: Duration,
    pub(crate) clock: ClockFn,
    pub(crate) restart: RestartPolicy,
    pub(crate) open_watcher: Option<OpenWatcher>,
    pub(crate) follow_every: Duration,
    pub(crate) recent_bytes_max: usize,
    pub(crate) cache_memory_bytes: usize,
    pub(crate) cache_disk_bytes: u64,
    pub(crate) index_memory_bytes: u64,
    pub(crate) segment_memory_bytes: u64,
    pub(crate) operator: Option<String>,
    /// Whether sealed segments get tree files.
    pub(crate) tree: bool,
    pub(crate) scrub_bytes_per_second: u64,
}

impl Options {
    /// Refuses limits beyond the format, and a name of the operator that cannot be seen.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.operator.iter().try_for_each(|name| check_visible("name of the operator", name))?;
        self.limits.check()
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            durability: Durability::Synced,
            limits: Limits::default(),
            key_window: KeyWindow::Positions(1 << 20),
            segment_bytes_max: 64 << 20,
            unsynced_bytes_max: 32 << 20,
            group_commands_max: 1024,
            group_bytes_max: 4 << 20,
            queue_commands_max: 4096,
            queue_bytes_max: 64 << 20,
            queue_deadline: None,
            ack_deadline: None,
            space_probe_every: Duration::from_millis(100),
            clock: Arc::new(SystemTime::now),
            restart: RestartPolicy::Never,
            open_watcher: None,
            follow_every: Duration::from_millis(2),
            recent_bytes_max: 16 << 20,
            cache_memory_bytes: 64 << 20,
            cache_disk_bytes: 256 << 20,
            index_memory_bytes: 256 << 20,
            segment_memory_bytes: 256 << 20,
            operator: None,
            tree: false,
            scrub_bytes_per_second: 0,
        }
    }
}
