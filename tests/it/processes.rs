//! More than one process: the lock, reading beside a writer, `kill -9`, and what the examples promise.
//!
//! `cargo test` builds the examples for this; `cargo test --test it` takes those that are there.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant, SystemTime};

use annals::{Cause, ErrorKind, Position, Query, Store, WriterState};
use tempfile::TempDir;

use crate::support::{FOREVER, Random, kind_of, within};

const FINE: i32 = 0;
const LOST: i32 = 1;
const REFUSED: i32 = 2;
const WRONG_USAGE: i32 = 3;

/// How often a writer is killed; each time the whole store is proved.
const KILLS: usize = 20;

/// What the killed writers do. A mere kill takes nothing from the page cache, so buffered
/// acknowledgements hold as well.
const LOADS: [&str; 7] = [
    "--threads 1",
    "--threads 4",
    "--threads 8 --segment 20000",
    "--threads 4 --batch 7 --segment 50000",
    "--threads 8 --buffered --segment 100000",
    "--threads 1 --batch 100 --payload 1000",
    "--threads 2 --batch 3 --payload 5000 --buffered --segment 30000",
];

#[test]
fn every_kill_leaves_what_was_acknowledged() {
    let mut random = Random::for_test("every_kill_leaves_what_was_acknowledged");
    let site = Site::new();
    let (mut acks, mut history) = (Vec::new(), Vec::new());
    for round in 0..KILLS {
        // None at all: the kill meets opening, or recovering from the kill before.
        let heard = if round % 4 == 3 { 0 } else { 1 + random.below(800) };
        let mut writer = site.start(LOADS[round % LOADS.len()]);
        acks.extend(writer.acks(heard));
        acks.extend(writer.kill());
        site.prove(&acks);
        history = site.dump_after(&history);
    }
    let events = history.split(|byte| *byte == b'\n').count() - 1;
    println!("{KILLS} kills, {} acknowledged, {events} events, none lost", lines(&acks).count());
}

/// The kill comes within the first moments of a store, at any of its steps.
#[test]
fn a_kill_while_a_store_is_created_leaves_one_that_opens() {
    let mut random = Random::for_test("a_kill_while_a_store_is_created_leaves_one_that_opens");
    for _ in 0..15 {
        let site = Site::new();
        let writer = site.start("--threads 1");
        let started = Instant::now();
        let moment = Duration::from_micros(random.below(20_000));
        while started.elapsed() < moment {
            std::thread::yield_now();
        }
        let acks = writer.kill();
        site.prove(&acks);
        site.dump_after(b"");
    }
}

#[test]
fn a_second_process_is_kept_out_while_the_first_goes_on() {
    let site = Site::new();
    let mut holder = site.start("--threads 1");
    holder.acks(1);

    let refused = Store::open(&site.store).unwrap_err();
    assert_eq!((refused.kind(), refused.locked_by()), (ErrorKind::Locked, Some(holder.child.id())));
    let started = Instant::now();
    let wait = Duration::from_millis(30);
    assert_eq!(kind_of(Store::builder(&site.store).open_within(wait)), ErrorKind::Locked);
    assert!(started.elapsed() >= wait);
    let other = site.run("--count 1", b"");
    assert_eq!(other.status.code(), Some(REFUSED), "{}", text(&other.stderr));
    assert!(text(&other.stderr).contains(&format!("process {}", holder.child.id())));

    let head = Store::open_read_only(&site.store).unwrap().head().unwrap().position();
    while position_of(&holder.acks(1)) <= head {}

    let store = site.store.clone();
    let waiting = std::thread::spawn(move || Store::builder(store).open_within(FOREVER));
    let acks = holder.kill();
    let store = waiting.join().unwrap().unwrap();
    assert!(!store.open_report().clean);
    assert!(lines(&acks).all(|ack| position_of(ack) <= store.head().unwrap().position()));
}

#[test]
fn many_processes_take_turns() {
    const PROCESSES: usize = 8;
    const TURNS: usize = 3;
    let site = Site::new();
    let mut acks = Vec::new();
    for _ in 0..TURNS {
        let start = || site.start("--threads 1 --count 1 --wait 20");
        let writers: Vec<_> = (0..PROCESSES).map(|_| start()).collect();
        writers.into_iter().for_each(|writer| acks.extend(writer.finish()));
    }
    let mut positions: Vec<u64> = lines(&acks).map(|ack| position_of(ack).get()).collect();
    positions.sort_unstable();
    assert!(positions.into_iter().eq(1..=(PROCESSES * TURNS) as u64));
    site.prove(&acks);
}

#[test]
fn a_reader_beside_a_writer_sees_what_was_acknowledged() {
    let site = Site::new();
    let mut writer = site.start("--threads 4 --batch 2 --segment 20000");
    let mut acks = Vec::new();
    for _ in 0..10 {
        acks.extend(writer.acks(200));
        let reader = Store::open_read_only(&site.store).unwrap();
        let head = reader.head().unwrap().position();
        for ack in lines(&acks) {
            assert!(reader.at(position_of(ack)).unwrap().is_some(), "{} of {head}", text(ack));
        }
        let seen: Vec<u64> = reader.read(Query::all()).map(|event| event.unwrap().position().get()).collect();
        // The writer continues, and the reader with it.
        assert!(seen.len() as u64 >= head.get() && seen.iter().copied().eq(1..=seen.len() as u64));
        let report = reader.verify().unwrap();
        assert!(report.is_clean(), "{report}");
    }
    acks.extend(writer.kill());
    site.prove(&acks);
}

/// "A second process follows 1,000,000 events live; killed and restarted; sees each once. The writer is
/// killed: the reader says so and goes on after reopen."
#[test]
fn a_second_process_follows_live() {
    const TEST: &str = "processes::a_second_process_follows_live";
    if let Some(store) = std::env::var_os("ANNALS_FOLLOW") {
        return follow(Path::new(&store));
    }
    let site = Site::new();
    let load = "--threads 4 --batch 500 --payload 64 --segment 8000000";
    let mut writer = site.start(load);
    let mut acks = writer.acks(500);
    let mut seen: Vec<u64> = Vec::new();
    let follow = |after: Option<&u64>| {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(program);
        command.args(["--exact", TEST, "--nocapture", "--test-threads=1"]);
        command.env("ANNALS_FOLLOW", &site.store).env("ANNALS_AFTER", after.unwrap_or(&0).to_string());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = read_in_background(child.stdout.take().unwrap());
        Writer { child, lines }
    };
    // Twice the reader is killed.
    for until in [100_000, 300_000] {
        let reader = follow(seen.last());
        while seen.last().is_none_or(|last| *last < until) {
            seen.extend(seen_in(&reader.lines.recv_timeout(FOREVER).unwrap()));
        }
        seen.extend(lines(&reader.kill_at_once()).filter_map(seen_in));
    }
    // Then the writer is, and the reader says so.
    acks.extend(writer.acks(1));
    acks.extend(writer.kill());
    let reader = follow(seen.last());
    loop {
        let line = reader.lines.recv_timeout(FOREVER).unwrap();
        if line == b"gone\n" {
            break;
        }
        seen.extend(seen_in(&line));
    }
    let before = seen.len();
    let rest = 1_000_000_u64.saturating_sub(*seen.last().unwrap()).max(50_000).next_multiple_of(2_000);
    acks.extend(site.start(&format!("{load} --count {rest}")).finish());
    let said = reader.finish_all();
    assert!(text(&said).contains("\nclosed\n"), "the reader saw the clean end");
    seen.extend(lines(&said).filter_map(seen_in));
    let head = Store::open(&site.store).unwrap().head().unwrap().position().get();
    assert!(head >= 1_000_000 && seen.len() > before, "{head}");
    assert!(seen.iter().copied().eq(1..=head), "each once, in order: {} of {head}", seen.len());
    site.prove(&acks);
}

/// The position a reader says it has seen.
fn seen_in(line: &[u8]) -> Option<u64> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    line.strip_prefix("seen ")?.parse().ok()
}

/// The other process: says every event it sees, and how the writer is once nothing comes.
fn follow(store: &Path) {
    let after: Position = std::env::var("ANNALS_AFTER").unwrap().parse().unwrap();
    let store = Store::open_read_only(store).unwrap();
    let mut events = store.subscribe(Query::all()).after(after);
    let mut out = std::io::stdout().lock();
    out.write_all(b"\n").unwrap();
    let mut was_gone = false;
    loop {
        while let Some(event) = events.try_next().unwrap() {
            writeln!(out, "seen {}", event.position()).unwrap();
        }
        out.flush().unwrap();
        match store.writer().unwrap() {
            _ if events.behind() > 0 => {}
            WriterState::Closed => return writeln!(out, "closed").unwrap(),
            WriterState::Gone if !was_gone => {
                was_gone = true;
                writeln!(out, "gone").unwrap();
            }
            _ => drop(
                events
                    .next_timeout(Duration::from_millis(20))
                    .unwrap()
                    .map(|event| writeln!(out, "seen {}", event.position()).unwrap()),
            ),
        }
    }
}

#[test]
fn a_count_ends_in_a_clean_close() {
    let site = Site::new();
    let acks = site.start("--count 100 --threads 3 --batch 7").finish();
    assert_eq!(lines(&acks).count(), 100);
    let store = Store::open(&site.store).unwrap();
    assert!(store.open_report().clean);
    assert_eq!(store.stats().events, 100);
}

#[test]
fn refusals_are_said_and_counted() {
    let site = Site::new();
    let output = site.run("--threads 1 --count 1 --payload 5000000 --errors 3", b"");
    assert_eq!(output.status.code(), Some(FINE), "{}", text(&output.stderr));
    let said: Vec<_> = lines(&output.stdout).collect();
    assert_eq!(said.len(), 3);
    assert!(said.iter().all(|line| text(line).starts_with("err TooLarge the payload has 5000000 bytes")));
}

/// The reader of the lines may stop reading.
#[test]
fn output_without_a_reader_is_no_failure() {
    let site = Site::new();
    let mut child = site.command("--threads 4").spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("ack "), "{first:?}");
    let output = within(FOREVER, "ending", move || child.wait_with_output().unwrap());
    assert_eq!(output.status.code(), Some(FINE));
    assert!(!text(&output.stderr).contains("panic"), "{}", text(&output.stderr));
}

#[test]
fn the_check_tells_true_lines_from_invented_ones() {
    let site = Site::new();
    let acks = site.start("--count 1000 --threads 2").finish();
    let cases: [(&[u8], i32); 8] = [
        (b"", FINE),
        (b"err NoSpace the disk is full\nack\nack x\n\xff\n\nsomething else\n", FINE),
        (b"ack 100", FINE), // torn off `ack 1000`, which is there, too
        (b"ac", FINE),
        (b"ack 1001\n", LOST),
        (b"ack 1001", LOST),
        (b"ack 0\n", LOST),
        (b"ack 7\n", LOST), // a second event cannot have got this position
    ];
    for (more, code) in cases {
        let output = site.run("--check", &[&acks, more].concat());
        assert_eq!(output.status.code(), Some(code), "{:?}: {}", text(more), text(&output.stderr));
    }
}

/// The check looks at contents, not only at positions.
#[test]
fn the_check_finds_an_event_of_another_program() {
    for (entity, kind) in [("thread:0", "crash_me.appended"), ("thread:0", "other"), ("other", "other")] {
        let site = Site::new();
        let acks = site.start("--count 10 --threads 1").finish();
        let store = Store::open(&site.store).unwrap();
        let receipt = store.append(entity, &annals::Raw(kind, "a payload of some length")).unwrap();
        store.close().unwrap();
        let more = format!("ack {}\n", receipt.position());
        let output = site.run("--check", &[&acks, more.as_bytes()].concat());
        assert_eq!(output.status.code(), Some(LOST), "{}", text(&output.stderr));
    }
}

#[test]
fn damage_is_reported_and_healing_it_helps() {
    let site = Site::new();
    let acks = site.start("--count 500 --segment 20000").finish();
    let mut segments: Vec<PathBuf> =
        std::fs::read_dir(site.store.join("segments")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|end| end == "seg"));
    segments.sort();
    let sealed = &segments[1];
    assert!(segments.len() > 3, "{segments:?}");
    let whole = std::fs::read(sealed).unwrap();
    for offset in [0, 100, 1000, whole.len() / 2, whole.len() - 64] {
        let mut damaged = whole.clone();
        damaged[offset] ^= 0x10;
        std::fs::write(sealed, &damaged).unwrap();
        // Opening alone does not look into a sealed segment.
        for job in ["--check", "--dump"] {
            let output = site.run(job, &acks);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(REFUSED), "{job} with byte {offset} flipped: {said}");
            assert!(said.contains("Corrupt") || said.contains(".seg"), "{said}");
        }
        std::fs::write(sealed, &whole).unwrap();
    }
    site.prove(&acks);
    site.dump_after(b"");
}

#[test]
fn usage_is_told_apart_from_failure() {
    let site = Site::new();
    let wrong = [
        "--unknown",
        "anything",
        "--threads",
        "--threads x",
        "--threads 0",
        "--batch 0",
        "--count -1",
        "--segment 99999999999",
        "--check --dump",
    ];
    for options in wrong {
        let output = site.run(options, b"");
        assert_eq!(output.status.code(), Some(WRONG_USAGE), "{options}");
        assert!(text(&output.stderr).contains("usage: "), "{options}");
    }
    for directory in ["", "absent"] {
        let mut command = site.command("--dump");
        command.env("ANNALS_DIR", directory);
        if directory == "absent" {
            command.env_remove("ANNALS_DIR");
        }
        assert_eq!(command.output().unwrap().status.code(), Some(WRONG_USAGE), "ANNALS_DIR {directory}");
    }
    assert_eq!(site.run("--help", b"").status.code(), Some(FINE));
    assert!(!site.store.exists(), "nothing of this opens a store");
}

/// Two commits that add, change, rename and delete files, some with odd names.
const HISTORY: &[u8] = b"\
commit refs/heads/main
committer A <a> 1000000000 +0000
data 3
one
M 100644 inline \"new\\nline\"
data 1
1
M 100644 inline \"$dir/\\377\"
data 1
2
M 100644 inline kept
data 1
3
commit refs/heads/main
committer B <b> 1000000100 +0000
data 3
two
M 100644 inline kept
data 1
4
R \"new\\nline\" folder/renamed
D \"$dir/\\377\"
";

/// What `git_history` makes of a history; where there is no git, there is none to make something of.
#[test]
fn a_git_history_is_imported_once() {
    let site = Site::new();
    let repository = site.directory.path().join("repository");
    let git_history = || {
        let mut command = Command::new(example("git_history"));
        command.arg(&repository).env("ANNALS_DIR", &site.store);
        command
    };
    let refused = |mut command: Command, why: &str| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(why), "{}", text(&output.stderr));
    };
    let mut without_git = git_history();
    without_git.env("PATH", "");
    refused(without_git, "git was not found");
    if Command::new("git").arg("--version").output().is_err() {
        return println!("there is no git, so no history was imported");
    }
    std::fs::create_dir(&repository).unwrap();
    refused(git_history(), "is not a repository");
    git(&repository, "init --quiet", b"");
    git(&repository, "symbolic-ref HEAD refs/heads/main", b"");
    refused(git_history(), "has no commits");
    git(&repository, "fast-import --quiet", HISTORY);

    for appended in ["appended    7 events in 2 appends", "appended    0 events"] {
        let output = git_history().output().unwrap();
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(FINE), "{}", text(&output.stderr));
        for expected in [appended, "2  new\\x0aline\n", "2  \\x24dir/\\xff\n", "verified    clean: 7 events"]
        {
            assert!(said.contains(expected), "{expected} is not in\n{said}");
        }
    }
    let store = Store::open(&site.store).unwrap();
    let told = |entity: &str| {
        store.stream(entity).map(|event| event.unwrap().kind().to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(told("kept"), "file.added file.modified");
    assert_eq!(told("new\\x0aline"), "file.added file.deleted");
    assert_eq!(told("folder/renamed"), "file.renamed");
    let last = store.stream("kept").backwards().next().unwrap().unwrap();
    assert_eq!((last.scope(), last.cause()), ("/", Some(Cause::PreviousInStream)));
    assert_eq!(last.occurred_at(), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_100)));
    assert_eq!(store.read(Query::correlation(last.correlation())).count(), 4);
    assert_eq!(store.read(Query::all().scope("\\x24dir").tag("author:B")).count(), 1);
}

fn git(repository: &Path, arguments: &str, input: &[u8]) {
    let mut command = Command::new("git");
    command.arg("-C").arg(repository).args(arguments.split(' ')).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    assert!(child.wait().unwrap().success(), "git {arguments}");
}

/// A place for one store, and `crash_me` to work on it.
struct Site {
    store: PathBuf,
    directory: TempDir,
}

impl Site {
    fn new() -> Site {
        let directory = TempDir::new().unwrap();
        Site { store: directory.path().join("store"), directory }
    }

    fn command(&self, options: &str) -> Command {
        let mut command = Command::new(example("crash_me"));
        command.args(options.split_whitespace()).env("ANNALS_DIR", &self.store);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self, options: &str) -> Writer {
        let mut child = self.command(options).spawn().unwrap();
        let lines = read_in_background(child.stdout.take().unwrap());
        Writer { child, lines }
    }

    fn run(&self, options: &str, input: &[u8]) -> Output {
        let mut child = self.command(options).spawn().unwrap();
        // It need not read to the end, or at all.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    fn prove(&self, acks: &[u8]) {
        let output = self.run("--check", acks);
        assert_eq!(output.status.code(), Some(FINE), "{}", text(&output.stderr));
        let counted = format!("{} acknowledged, 0 other lines, 0 faults", lines(acks).count());
        assert!(text(&output.stderr).contains(&counted), "{}", text(&output.stderr));
    }

    /// Verifies the store. What an earlier dump showed must be there still, byte for byte.
    fn dump_after(&self, earlier: &[u8]) -> Vec<u8> {
        let output = self.run("--dump", b"");
        assert_eq!(output.status.code(), Some(FINE), "{}", text(&output.stderr));
        assert!(output.stdout.starts_with(earlier), "history has changed");
        output.stdout
    }
}

/// A process that appends. It is killed at the latest when the test ends.
struct Writer {
    child: Child,
    lines: Receiver<Vec<u8>>,
}

impl Writer {
    /// The next `count` lines, which must be acknowledgements.
    fn acks(&mut self, count: u64) -> Vec<u8> {
        let acks: Vec<u8> =
            (0..count).flat_map(|_| self.lines.recv_timeout(FOREVER).expect("it should go on")).collect();
        assert_all_acks(&acks);
        acks
    }

    /// Waits for its end, and gives everything it still says.
    fn finish_all(mut self) -> Vec<u8> {
        let said = self.lines.iter().flatten().collect();
        assert!(self.child.wait().unwrap().success());
        said
    }

    /// Kills it, and gives what it still got out.
    fn kill(mut self) -> Vec<u8> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.rest()
    }

    /// The same, of a process that says something else.
    fn kill_at_once(mut self) -> Vec<u8> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.lines.iter().flatten().collect()
    }

    /// Waits for it to end by itself, and gives what it said.
    fn finish(mut self) -> Vec<u8> {
        let acks = self.rest();
        assert_eq!(self.child.wait().unwrap().code(), Some(FINE), "{}", self.errors());
        acks
    }

    fn rest(&mut self) -> Vec<u8> {
        let mut acks = Vec::new();
        loop {
            match self.lines.recv_timeout(FOREVER) {
                Ok(line) => acks.extend(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("it neither speaks nor ends"),
            }
        }
        assert_all_acks(&acks);
        acks
    }

    fn errors(&mut self) -> String {
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whole lines only: the last one may be torn by the kill.
fn read_in_background(output: ChildStdout) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        loop {
            let mut line = Vec::new();
            let read = output.read_until(b'\n', &mut line);
            if read.is_err() || !line.ends_with(b"\n") || sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

fn assert_all_acks(said: &[u8]) {
    if let Some(other) = lines(said).find(|line| !line.starts_with(b"ack ")) {
        panic!("crash_me said {:?}", text(other));
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|byte| *byte == b'\n')
}

fn position_of(ack: &[u8]) -> Position {
    text(ack).trim_end().strip_prefix("ack ").and_then(|position| position.parse().ok()).expect("an ack line")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Examples lie beside the directory of the test binary.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).unwrap();
    let program = profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(
        program.exists(),
        "{} is missing; `cargo test` builds it, or `cargo build --examples`",
        program.display()
    );
    program
}
