//! What the tests share: the scenario language, random numbers with a seed, a disk with a gate,
//! deadlines, and processes of their own.

use std::io;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
use std::time::{Duration, Instant, SystemTime};

use annals::disk::{Access, Disk, DiskFile, Lock, MemDisk};
use annals::{
    Append, Appended, Builder, Error, ErrorKind, EventData, EventId, Expected, Query, Raw, RecordedEvent,
    Store, Version,
};

/// Longer than any call takes. A call that takes this long hangs.
pub const FOREVER: Duration = Duration::from_secs(20);

/// Runs a scenario in memory: once in one segment, once with a segment per append.
///
/// A line is a command and, behind `=>`, what it answers:
///
/// ```text
/// append order-1  expect none  key=k  placed:book paid  + order-2 in=shop placed => v1 v2 v1 @1..3
/// append order-1  expect v1    paid                     => conflict on order-1, actual v2 @2
/// read order-1                                          => placed:book paid
/// version order-1                                       => v2
/// head                                                  => @3
/// reopen
/// ```
///
/// Events are kinds, with a payload behind `:` where it matters. `expect` takes `any`, `none`, `exists` and
/// `v7`. `read` takes `all`, or an entity, then `after=1`, `limit=2`, `backwards`.
pub fn check(script: &str) {
    for segment_bytes_max in [1 << 20, 0] {
        let disk = MemDisk::new();
        check_on(script, move || Store::on(disk.clone()).segment_bytes_max(segment_bytes_max));
    }
}

/// Runs a scenario in a store that `builder` opens, and each time it says `reopen`, opens again.
pub fn check_on(script: &str, builder: impl Fn() -> Builder) {
    let mut store = Some(builder().open().unwrap());
    let lines = script.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    for line in lines.filter(|line| !line.is_empty()) {
        let (command, expected) = line.split_once("=>").unwrap_or((line, "done"));
        let words: Vec<&str> = command.split_whitespace().collect();
        let answer = match words.as_slice() {
            ["reopen"] => {
                store.take().unwrap().close().unwrap();
                store = Some(builder().open().unwrap());
                "done".to_owned()
            }
            words => answer(store.as_ref().unwrap(), words),
        };
        assert_eq!(answer, expected.trim(), "\n    {line}\nin\n{script}");
    }
    let report = store.as_ref().unwrap().verify().unwrap();
    assert!(report.is_clean(), "{report}\nafter\n{script}");
}

fn answer(store: &Store, words: &[&str]) -> String {
    match words {
        ["append", rest @ ..] => outcome(&parse_append(rest).commit(store)),
        ["read", rest @ ..] => {
            let events: Vec<_> = parse_read(store, rest).collect::<Result<_, _>>().unwrap();
            match events.as_slice() {
                [] => "nothing".to_owned(),
                events => events.iter().map(event_text).collect::<Vec<_>>().join(" "),
            }
        }
        ["version", entity] => format!("v{}", store.version(entity).unwrap()),
        ["head"] => format!("@{}", store.head().unwrap().position()),
        other => panic!("no such command: {other:?}"),
    }
}

fn parse_append(words: &[&str]) -> Append {
    let mut parts = words.split(|word| *word == "+");
    let first = parts.next().unwrap();
    let append = Append::to(parse_address(first));
    let append = parse_events(append, first);
    parts.fold(append, |append, part| parse_events(append.and_to(parse_address(part)), part))
}

fn parse_address(words: &[&str]) -> (String, String) {
    let scope = words.iter().find_map(|word| word.strip_prefix("in=")).unwrap_or("default");
    (words[0].to_owned(), scope.to_owned())
}

fn parse_events(mut append: Append, words: &[&str]) -> Append {
    let mut words = words[1..].iter();
    while let Some(word) = words.next() {
        append = match word.split_once('=') {
            Some(("key", key)) => append.key(key),
            Some(("in", _)) => append,
            _ if *word == "expect" => append.expect(parse_expected(words.next().unwrap())),
            _ => {
                let (kind, payload) = word.split_once(':').unwrap_or((word, ""));
                append.event(&Raw(kind, payload))
            }
        };
    }
    append
}

fn parse_expected(word: &str) -> Expected {
    match word {
        "any" => Expected::Any,
        "none" => Expected::NoStream,
        "exists" => Expected::StreamExists,
        exact => Expected::Exact(exact.strip_prefix('v').unwrap().parse().unwrap()),
    }
}

fn parse_read(store: &Store, words: &[&str]) -> annals::Read {
    let query = if words[0] == "all" { Query::all() } else { Query::entity(words[0]) };
    words[1..].iter().fold(store.read(query), |read, word| match word.split_once('=') {
        Some(("after", position)) => read.after(position.parse().unwrap()).allow_beyond_head(),
        Some(("limit", events)) => read.limit(events.parse().unwrap()),
        None if *word == "backwards" => read.backwards(),
        _ => panic!("no such option of read: {word}"),
    })
}

fn event_text(event: &RecordedEvent) -> String {
    match event.decode::<&str>().unwrap() {
        "" => event.kind().to_owned(),
        payload => format!("{}:{payload}", event.kind()),
    }
}

/// What an append answered, as scenarios write it.
pub fn outcome(result: &Result<Appended, Error>) -> String {
    match result {
        Ok(receipt) => {
            let replayed = if receipt.replayed() { "replayed " } else { "" };
            let versions: Vec<_> = receipt.versions().map(|version| format!("v{version}")).collect();
            let (first, last) = (receipt.first_position(), receipt.position());
            let positions = if first == last { format!("@{last}") } else { format!("@{first}..{last}") };
            format!("{replayed}{} {positions}", versions.join(" "))
        }
        Err(error) => match (error.kind(), error.conflict()) {
            (_, Some(conflict)) => {
                format!("conflict on {}, actual v{} @{}", conflict.entity, conflict.actual, conflict.last)
            }
            (ErrorKind::KeyReused, _) => "key reused".to_owned(),
            (ErrorKind::Invalid, _) => "invalid".to_owned(),
            (ErrorKind::TooLarge, _) => "too large".to_owned(),
            (other, _) => format!("{other:?}"),
        },
    }
}

/// No positions.
pub const NOTHING: [u64; 0] = [];

/// All events a read gives; an error fails the test.
pub fn all(read: annals::Read) -> Vec<RecordedEvent> {
    read.collect::<Result<_, _>>().unwrap()
}

/// The positions of all events a read gives.
pub fn positions(read: annals::Read) -> Vec<u64> {
    all(read).iter().map(|event| event.position().get()).collect()
}

/// The id the store derives for an event, as SPEC.md "Event id" says. Where the event brought one along no
/// door shows it, but old notes may hold it, and it is found by it.
pub fn derived_id(event: &RecordedEvent) -> EventId {
    let micros = event.recorded_at().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros();
    let (chain, position) = (event.chain(), event.position().get());
    let chain26 = u32::from_be_bytes([chain[0], chain[1], chain[2], chain[3]]) & ((1 << 26) - 1);
    let high = u64::try_from(micros / 1000).unwrap() << 16 | 0x7000 | position >> 36;
    let low = 0b10 << 62 | (position & ((1 << 36) - 1)) << 26 | u64::from(chain26);
    EventId::from_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
}

/// An event whose payload is these bytes as they are.
pub struct Bytes<'a>(pub &'a str, pub Vec<u8>);

impl EventData for Bytes<'_> {
    fn kind(&self) -> &str {
        self.0
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        out.extend_from_slice(&self.1);
        Ok(())
    }
}

/// The time `micros` microseconds after 1970, or before.
pub fn at(micros: i64) -> SystemTime {
    let distance = Duration::from_micros(micros.unsigned_abs());
    if micros < 0 { SystemTime::UNIX_EPOCH - distance } else { SystemTime::UNIX_EPOCH + distance }
}

/// Appends `events` events to one entity, one append each.
pub fn fill(store: &Store, entity: &str, events: u64) {
    for number in 0..events {
        store.append(entity, &Raw("filled", &number)).unwrap();
    }
}

/// The kind of the error in `result`; a success fails the test.
pub fn kind_of<T>(result: Result<T, Error>) -> ErrorKind {
    match result {
        Ok(_) => panic!("this should have been refused"),
        Err(error) => error.kind(),
    }
}

/// An expectation for each way there is to have one, with versions up to `most`.
pub fn expectations(most: u64) -> Vec<Expected> {
    let named = [Expected::Any, Expected::NoStream, Expected::StreamExists];
    named.into_iter().chain((0..=most).map(|version| Expected::Exact(Version::from(version)))).collect()
}

/// Random numbers that can be had again (SplitMix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// From `ANNALS_SEED`, else a new seed; says which, so that a failure can be repeated.
    pub fn for_test(test: &str) -> Random {
        let given = std::env::var("ANNALS_SEED").ok().map(|seed| seed.parse().expect("a number"));
        let drawn = || {
            use std::hash::{BuildHasher, RandomState};
            RandomState::new().hash_one(test)
        };
        let seed: u64 = given.unwrap_or_else(drawn);
        println!("{test}: ANNALS_SEED={seed} repeats this");
        Random::new(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// At least 0, less than `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length.try_into().unwrap())).unwrap()
    }

    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.index(items.len())]
    }
}

/// A disk in memory whose syncs of segments can be held up, made to fail, or to panic.
#[derive(Clone, Default)]
pub struct GatedDisk {
    disk: MemDisk,
    gate: Arc<Gate>,
    other_syncs: Arc<AtomicU64>,
    random_left: Arc<Mutex<Option<u64>>>,
    /// How the names of the segments end whose syncs pass the gate.
    gated: &'static str,
}

/// What stands in front of the syncs of a [`GatedDisk`].
#[derive(Default)]
pub struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    is_held: bool,
    /// Syncs that reached the gate.
    arrived: u64,
    /// What happens to the syncs that pass the gate, and to those after a number of them.
    behind: Behind,
    later: Option<(u64, Behind)>,
}

/// What happens to a sync that passes the gate.
#[derive(Clone, Copy, Default)]
pub enum Behind {
    #[default]
    Sync,
    Fail,
    Panic,
    /// The first that comes; the others go on.
    PanicOnce,
}

impl GatedDisk {
    pub fn new() -> GatedDisk {
        GatedDisk::default()
    }

    /// Only segments that are written anew pass the gate.
    pub fn of_rewriting() -> GatedDisk {
        GatedDisk { gated: ".seg.tmp", ..GatedDisk::default() }
    }

    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Syncs of other files than segments, which pass no gate.
    pub fn other_syncs(&self) -> u64 {
        self.other_syncs.load(Ordering::SeqCst)
    }

    /// Limits the random numbers from now on; `None` is no limit.
    pub fn limit_random(&self, numbers: Option<u64>) {
        *self.random_left.lock().unwrap() = numbers;
    }
}

impl Gate {
    /// Holds up every sync until what this gives is dropped. Drop it before the store.
    pub fn hold(&self) -> Held<'_> {
        self.lock().is_held = true;
        Held(self)
    }

    /// Does `work`, and leaves the writer held up in the sync it brought about. Drop what this gives
    /// before the store.
    pub fn hold_up<T>(&self, work: impl FnOnce() -> T) -> (Held<'_>, T) {
        let arrived = self.arrived();
        let held = self.hold();
        let done = work();
        self.wait_for_sync(arrived);
        (held, done)
    }

    /// From now on.
    pub fn set_behind(&self, behind: Behind) {
        self.lock().behind = behind;
    }

    /// From the sync after the next `syncs` on.
    pub fn set_behind_after(&self, syncs: u64, behind: Behind) {
        let mut state = self.lock();
        state.later = Some((state.arrived + syncs, behind));
    }

    /// How many syncs came here so far.
    pub fn arrived(&self) -> u64 {
        self.lock().arrived
    }

    /// Waits for the next sync after `arrived` to come here.
    pub fn wait_for_sync(&self, arrived: u64) {
        let (_state, timeout) =
            self.changed.wait_timeout_while(self.lock(), FOREVER, |state| state.arrived <= arrived).unwrap();
        assert!(!timeout.timed_out(), "no sync came");
    }

    fn pass(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.arrived += 1;
        let number = state.arrived;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |state| state.is_held).unwrap();
        let later = state.later.filter(|(after, _)| number > *after);
        let behind = later.map_or(state.behind, |(_, behind)| behind);
        if matches!(behind, Behind::PanicOnce) {
            (state.behind, state.later) = (Behind::Sync, None);
        }
        drop(state);
        match behind {
            Behind::Sync => Ok(()),
            Behind::Fail => Err(io::Error::other("the gate fails this sync")),
            Behind::Panic | Behind::PanicOnce => panic!("the gate panics in this sync, on purpose"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap()
    }
}

/// Keeps the gate shut.
pub struct Held<'a>(&'a Gate);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.lock().is_held = false;
        self.0.changed.notify_all();
    }
}

impl Disk for GatedDisk {
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let file = self.disk.open(path, access)?;
        let is_gated = path.starts_with("segments/") && path.ends_with(self.gated);
        let gate = is_gated.then(|| self.gate.clone());
        Ok(Box::new(GatedFile { file, gate, other_syncs: self.other_syncs.clone() }))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.disk.list(directory)
    }

    fn create_directory(&self, directory: &str) -> io::Result<()> {
        self.disk.create_directory(directory)
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        self.disk.sync_directory(directory)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn lock(&self) -> io::Result<Lock> {
        self.disk.lock()
    }

    fn is_locked(&self) -> io::Result<bool> {
        self.disk.is_locked()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }

    fn random(&self) -> io::Result<[u8; 32]> {
        if let Some(left) = self.random_left.lock().unwrap().as_mut() {
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("no randomness is left"))?;
        }
        self.disk.random()
    }

    fn wants_zeros(&self) -> bool {
        self.disk.wants_zeros()
    }
}

struct GatedFile {
    file: Box<dyn DiskFile>,
    gate: Option<Arc<Gate>>,
    other_syncs: Arc<AtomicU64>,
}

impl DiskFile for GatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(bytes, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.file.set_length(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        match &self.gate {
            Some(gate) => gate.pass()?,
            None => drop(self.other_syncs.fetch_add(1, Ordering::SeqCst)),
        }
        self.file.sync()
    }

    fn drop_cache(&self, offset: u64) -> io::Result<()> {
        self.file.drop_cache(offset)
    }
}

/// Runs `work` on a thread of its own, and fails if it takes longer than `limit`.
pub fn within<T: Send + 'static>(
    limit: Duration,
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, outcome) = mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    match outcome.recv_timeout(limit) {
        Ok(outcome) => outcome,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what}: still waiting after {limit:?}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => panic!("{what}: panicked"),
    }
}

/// Waits until a condition holds that no wake-up reports.
pub fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + FOREVER;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: still not so after {FOREVER:?}");
        std::thread::yield_now();
    }
}

const CHILD: &str = "ANNALS_TEST_CHILD";

/// Whether this is the process that [`in_child`] started.
pub fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs the test with this name once more, in a process of its own that shell commands prepare.
pub fn in_child(test: &str, prepare: &str) -> Output {
    let script = format!("{prepare}; exec \"$0\" \"$@\"");
    let program = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        .args(["-c", &script])
        .arg(program)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "the child ran no test: {text}");
    output
}
