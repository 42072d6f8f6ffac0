//! What crash.rs, fault.rs, corrupt.rs and model.rs share: seeds, planned appends, a clock that
//! forms groups, and looking at a whole store.

use std::future::IntoFuture;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant, SystemTime};

use annals::disk::{Disk, SimDisk};
use annals::{Append, Appended, Builder, Durability, Error, Pending, Query, Raw, RecordedEvent, Store};

/// `ANNALS_SEED`, or 42: the same seed gives the same workloads, images and damages.
pub(crate) fn seed() -> u64 {
    number_from("ANNALS_SEED").unwrap_or(42)
}

/// How many times as much to do: `ANNALS_HEAVY`, or 1.
pub(crate) fn heavy() -> u64 {
    number_from("ANNALS_HEAVY").unwrap_or(1)
}

/// Whether to do everything: `.ci/run` sets `ANNALS_HEAVY`, which is 1 or more. Without, a share of it is
/// done.
pub(crate) fn is_full() -> bool {
    number_from("ANNALS_HEAVY").is_some()
}

/// The size of a workload: `full` times `ANNALS_HEAVY`, or `quick` if that is not set.
pub(crate) fn sized(quick: u64, full: u64) -> u64 {
    if is_full() { full * heavy() } else { quick }
}

/// A test runs one case of this many: every case with `ANNALS_HEAVY`, one of `quick` without it.
pub(crate) fn one_of(quick: usize) -> usize {
    if is_full() { 1 } else { quick }
}

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, not a number")))
}

/// Adds up what several test functions did, and tells people about it although tests are captured.
pub(crate) struct Tally {
    what: &'static str,
    verdict: &'static str,
    total: AtomicU64,
}

impl Tally {
    pub(crate) const fn new(what: &'static str, verdict: &'static str) -> Tally {
        Tally { what, verdict, total: AtomicU64::new(0) }
    }

    /// Called by each test function once it is through, so what is printed held for all of it.
    pub(crate) fn add(&self, test: &str, count: u64, started: Instant) {
        let total = self.total.fetch_add(count, Ordering::Relaxed) + count;
        let (what, verdict, seed) = (self.what, self.verdict, seed());
        let seconds = started.elapsed().as_secs_f64();
        let line = format!(
            "{what}: {} (seed {seed}): {verdict} [{} more by {test} in {seconds:.1} s]\n",
            grouped(total),
            grouped(count)
        );
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
}

/// 214331 as 214,331.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let pieces: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|piece| std::str::from_utf8(piece).unwrap()).collect();
    pieces.join(",")
}

/// SplitMix64.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    /// True once in `times` times.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// The injected clock. Each reading is a millisecond later, and now and then one goes back. While the clock
/// is held, the writer waits in it, so that all appends submitted until then become one group.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Default)]
struct GateState {
    is_held: bool,
    readings: u64,
}

impl Gate {
    pub(crate) fn read(&self) -> SystemTime {
        let (state, changed) = &*self.0;
        let mut state = changed.wait_while(state.lock().unwrap(), |state| state.is_held).unwrap();
        state.readings += 1;
        let back = if state.readings.is_multiple_of(7) { 2500 } else { 0 };
        SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_000 + state.readings * 1000 - back)
    }

    pub(crate) fn hold(&self) {
        self.0.0.lock().unwrap().is_held = true;
    }

    pub(crate) fn release(&self) {
        self.0.0.lock().unwrap().is_held = false;
        self.0.1.notify_all();
    }
}

/// The numbers a store is opened with: tiny, so that everything that happens rarely happens often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) segment_bytes_max: u32,
    pub(crate) unsynced_bytes_max: u32,
    pub(crate) group_commands_max: usize,
    /// 0 for what is about reading the disk: else what was just written is read from memory.
    pub(crate) recent_bytes_max: usize,
    pub(crate) durability: Durability,
}

/// Acknowledged when written; synced only when something else asks for it.
pub(crate) const BUFFERED: Durability = Durability::Buffered { flush_every: Duration::from_secs(3600) };

impl Shape {
    pub(crate) fn any(rng: &mut Rng) -> Shape {
        let segment_bytes_max = *rng.pick(&[300, 600, 1000, 2000, 4096, 8192]);
        let unsynced_bytes_max = *rng.pick(&[700, 1000, 2000, 4096]);
        let group_commands_max = *rng.pick(&[1, 2, 3, 1024]);
        let durability = *rng.pick(&[Durability::Synced, BUFFERED]);
        let recent_bytes_max = *rng.pick(&[0, 2000, 16 << 20]);
        Shape { segment_bytes_max, unsynced_bytes_max, group_commands_max, recent_bytes_max, durability }
    }

    pub(crate) fn builder(&self, disk: impl Disk, gate: &Gate) -> Builder {
        let gate = gate.clone();
        Store::on(disk)
            .segment_bytes_max(self.segment_bytes_max)
            .unsynced_bytes_max(self.unsynced_bytes_max)
            .group_commands_max(self.group_commands_max)
            .recent_bytes_max(self.recent_bytes_max)
            // Both or none: what lies in memory hides damage on the disk.
            .segment_memory_bytes(if self.recent_bytes_max == 0 { 0 } else { 256 << 20 })
            .durability(self.durability)
            .space_probe_every(Duration::ZERO)
            .clock(move || gate.read())
    }
}

/// An append that can be made again, and told from all others by what is in it.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) number: u64,
    pub(crate) key: Option<String>,
    pub(crate) durability: Option<Durability>,
    pub(crate) events: Vec<PlannedEvent>,
}

#[derive(Clone, Debug)]
pub(crate) struct PlannedEvent {
    pub(crate) entity: &'static str,
    pub(crate) scope: Option<&'static str>,
    pub(crate) kind: &'static str,
    pub(crate) tag: Option<&'static str>,
    pub(crate) filler: usize,
}

pub(crate) const ENTITIES: [&str; 5] = ["user:1", "user:10", "user:2", "order:7", "o"];
pub(crate) const SCOPES: [&str; 2] = ["tenant:acme", "default"];
pub(crate) const KINDS: [&str; 3] = ["order.placed", "order.paid", "p"];
pub(crate) const TAGS: [&str; 2] = ["student:7", "course:math"];

impl Planned {
    /// One event, or a few of one or several entities; `filler_max` bytes more at most.
    pub(crate) fn any(rng: &mut Rng, number: u64, filler_max: usize) -> Planned {
        let count = if rng.once_in(4) { 2 + rng.below(4) } else { 1 };
        let several = rng.once_in(2);
        let first = rng.pick(&ENTITIES);
        let events = (0..count).map(|_| PlannedEvent {
            entity: if several { rng.pick::<&str>(&ENTITIES) } else { first },
            scope: rng.once_in(3).then(|| *rng.pick(&SCOPES)),
            kind: rng.pick::<&str>(&KINDS),
            tag: rng.once_in(3).then(|| *rng.pick(&TAGS)),
            filler: if rng.once_in(4) { rng.below(filler_max + 1) } else { rng.below(20) },
        });
        let events = events.collect();
        let durability = rng.once_in(4).then(|| *rng.pick(&[Durability::Synced, BUFFERED]));
        Planned { number, key: rng.once_in(3).then(|| format!("key {number}")), durability, events }
    }

    pub(crate) fn append(&self) -> Append {
        let filler = "x".repeat(self.events.iter().map(|event| event.filler).max().unwrap());
        let mut append: Option<Append> = None;
        for (index, event) in (0_u32..).zip(&self.events) {
            let address = (event.entity, event.scope.unwrap_or("default"));
            let payload = (self.number, index, self.events.len(), &filler[..event.filler]);
            let target = match append {
                None => Append::to(address),
                Some(append) => append.and_to(address),
            };
            let target = target.event(&Raw(event.kind, &payload));
            append = Some(event.tag.into_iter().fold(target, Append::tag));
        }
        let append = append.unwrap();
        let append = self.key.iter().fold(append, Append::key);
        self.durability.into_iter().fold(append, Append::durability)
    }

    /// Whether its acknowledgement promises that it survives a power failure.
    pub(crate) fn is_synced(&self, shape: &Shape) -> bool {
        self.durability.unwrap_or(shape.durability) == Durability::Synced
    }
}

/// Which append an event belongs to, and whether it is the last one of it.
pub(crate) fn origin(event: &RecordedEvent) -> (u64, bool) {
    let (number, index, count, _) = event.decode::<(u64, usize, usize, &str)>().unwrap();
    (number, index + 1 == count)
}

/// Everything there is to know about an event, in one number.
pub(crate) fn fingerprint(event: &RecordedEvent) -> u64 {
    let mut hasher = DefaultHasher::new();
    (event.position(), event.version(), event.id(), event.chain()).hash(&mut hasher);
    (event.entity(), event.scope(), event.kind(), event.schema_version()).hash(&mut hasher);
    event.tags().for_each(|tag| tag.hash(&mut hasher));
    (event.recorded_at(), event.occurred_at(), event.correlation()).hash(&mut hasher);
    event.payload().ok().hash(&mut hasher);
    hasher.finish()
}

/// All events, in order.
pub(crate) fn dump(store: &Store) -> Result<Vec<RecordedEvent>, Error> {
    store.read(Query::all()).collect()
}

/// Submits appends while the clock is held, and waits for all answers. They become one group, or as many as
/// the shape makes of it. `answered` is told each number at the very moment the writer answers, on the
/// writer's thread.
pub(crate) fn commit_group(
    store: &Store,
    gate: &Gate,
    group: &[Planned],
    answered: impl Fn(u64) + Send + Sync + Clone + 'static,
) -> Vec<Result<Appended, Error>> {
    gate.hold();
    let submitted: Vec<_> = group
        .iter()
        .map(|planned| {
            let answered = answered.clone();
            let number = planned.number;
            planned
                .append()
                .submit(store)
                .map(|ticket| Awaited::new(ticket.into_future(), move || answered(number)))
        })
        .collect();
    gate.release();
    submitted.into_iter().map(|awaited| awaited.and_then(Awaited::wait)).collect()
}

/// A ticket that is being awaited by this thread.
struct Awaited {
    pending: Pending,
    bell: Arc<Bell>,
    outcome: Option<Result<Appended, Error>>,
}

struct Bell {
    thread: Thread,
    has_rung: AtomicBool,
    answered: Box<dyn Fn() + Send + Sync>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
        self.thread.unpark();
    }
}

impl Bell {
    fn ring(&self) {
        if !self.has_rung.swap(true, Ordering::SeqCst) {
            (self.answered)();
        }
    }
}

impl Awaited {
    fn new(pending: Pending, answered: impl Fn() + Send + Sync + 'static) -> Awaited {
        let bell = Bell {
            thread: std::thread::current(),
            has_rung: AtomicBool::new(false),
            answered: Box::new(answered),
        };
        let mut awaited = Awaited { pending, bell: Arc::new(bell), outcome: None };
        awaited.poll();
        awaited
    }

    fn poll(&mut self) {
        let waker = Waker::from(self.bell.clone());
        if let Poll::Ready(outcome) = Pin::new(&mut self.pending).poll(&mut Context::from_waker(&waker)) {
            self.bell.ring();
            self.outcome = Some(outcome);
        }
    }

    fn wait(mut self) -> Result<Appended, Error> {
        let started = Instant::now();
        loop {
            if self.outcome.is_none() {
                self.poll();
            }
            if let Some(outcome) = self.outcome {
                return outcome;
            }
            std::thread::park_timeout(Duration::from_secs(1));
            assert!(started.elapsed() < Duration::from_secs(10), "an append was not answered in 10 s");
        }
    }
}

/// The notes that a workload leaves in its trace: what had been promised by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// The append of this number was answered.
    Answered(u64),
    /// Everything up to this position was said to survive a power failure.
    Durable(u64),
}

impl Note {
    pub(crate) fn put(self, disk: &SimDisk) {
        disk.note(match self {
            Note::Answered(number) => number << 1,
            Note::Durable(position) => position << 1 | 1,
        });
    }

    pub(crate) fn read(value: u64) -> Note {
        if value & 1 == 0 { Note::Answered(value >> 1) } else { Note::Durable(value >> 1) }
    }
}

/// Ends the whole run if a test stops making progress: a call that hangs cannot be unwound.
pub(crate) struct Watchdog(mpsc::Sender<String>);

impl Watchdog {
    pub(crate) fn new() -> Watchdog {
        let (sender, places) = mpsc::channel::<String>();
        std::thread::spawn(move || {
            let mut place = "the beginning".to_owned();
            loop {
                match places.recv_timeout(Duration::from_secs(60)) {
                    Ok(next) => place = next,
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        let _ = writeln!(std::io::stderr(), "hangs for a minute: {place}");
                        std::process::abort();
                    }
                }
            }
        });
        Watchdog(sender)
    }

    /// Says how far the test is.
    pub(crate) fn at(&self, place: String) {
        self.0.send(place).unwrap();
    }
}
