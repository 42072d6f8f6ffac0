//! Every command at every end: its output cannot be written or is not read, a signal comes, or it is refused.
//! Exit code, store and standard error must agree.
//!
//! A new command is a row of [`ROWS`].

use std::collections::BTreeSet;
use std::fs;
use std::io::{PipeReader, PipeWriter, Write};
use std::os::fd::AsFd;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use annals::{Query, Store};
use serde_json::Value;

use crate::support::*;

/// A command, and its change.
struct Row {
    line: &'static str,
    changes: Option<Change>,
}

struct Change {
    /// A part of the change, as standard error reports it.
    done: &'static str,
    /// A command that shows the change, and a part of its output after the change.
    shown_by: &'static str,
    shows: &'static str,
    /// True if the command needs the lock.
    locks: bool,
}

const fn reads(line: &'static str) -> Row {
    Row { line, changes: None }
}

const fn writes(line: &'static str, done: &'static str, shown_by: &'static str, shows: &'static str) -> Row {
    Row { line, changes: Some(Change { done, shown_by, shows, locks: true }) }
}

/// A command that writes to another directory, and needs no lock of the store.
const fn makes(line: &'static str, done: &'static str, shown_by: &'static str, shows: &'static str) -> Row {
    Row { line, changes: Some(Change { done, shown_by, shows, locks: false }) }
}

const ROWS: [Row; 52] = [
    reads("init"),
    makes("init --dir NEW", "the store NEW is created", "stats --dir NEW", "events\t0"),
    writes(
        "append order:3 order.placed 1",
        "the event is in, at position",
        "read --entity order:3",
        "order.placed",
    ),
    writes(
        "append order:3 order.placed 1 --key k",
        "the event is in, at position",
        "read --entity order:3",
        "placed",
    ),
    writes(
        "append order:3 order.placed 1 --durability buffered",
        "the event is in",
        "read --entity order:3",
        "placed",
    ),
    writes("append --lines LINES", "everything up to line 3 is in", "read --entity line:1", "line.read"),
    writes(
        "append --lines LINES --atomic",
        "3 events are in, at positions",
        "read --entity line:1",
        "line.read",
    ),
    reads("get 1"),
    reads("read"),
    reads("tail"),
    reads("entities"),
    reads("kinds"),
    reads("scopes"),
    reads("tags"),
    reads("stats"),
    reads("story 1"),
    reads("ancestors 2"),
    reads("descendants 1"),
    reads("path 2"),
    reads("leaves order:1"),
    reads("verify"),
    reads("verify --indexes"),
    reads("head"),
    reads("consumers"),
    reads("consumers list"),
    writes(
        "consumers halt mail --reason moved",
        "consumer mail is halted",
        "read --entity $consumer/mail",
        "halted",
    ),
    writes(
        "consumers skip mail 3 --reason moved",
        "mail is moved on to position 3",
        "read --entity $consumer/mail",
        "skipped",
    ),
    writes(
        "consumers rewind letters 1 --reason again",
        "letters is set back to position 1",
        "read --entity $consumer/letters",
        "rewound",
    ),
    writes(
        "consumers reset letters --reason again",
        "letters is set back to the beginning",
        "read --entity $consumer/letters",
        "reset",
    ),
    writes(
        "consumers resume letters",
        "consumer letters is resumed",
        "read --entity $consumer/letters",
        "resumed",
    ),
    reads("checkpoint"),
    writes("checkpoint here --reason moved", "checkpoint here is taken, at position", "checkpoint", "here"),
    makes("backup DEST", "the copy in DEST is whole", "stats --dir DEST", "events"),
    makes("restore BACKUP DEST", "the copy in DEST is whole", "stats --dir DEST", "events"),
    makes(
        "fork DEST --until @1",
        "the copy in DEST is whole, up to position 1",
        "stats --dir DEST",
        "events",
    ),
    reads("rollback @1 --reason 'a broken file'"),
    writes(
        "rollback @1 --reason 'a broken file' --cut HEAD",
        "the store is set back to position 1",
        "read --entity $ledger",
        "rolled",
    ),
    reads("erase --entity order:2 --reason 'asked for'"),
    writes(
        "erase --entity order:2 --reason 'asked for' --yes",
        "1 event is erased, the receipt is at position",
        "read --entity order:2",
        "(erased)",
    ),
    reads("compact --remove --kind order.paid --even-unhandled --reason old"),
    reads("compact --remove --kind order.paid --even-unhandled --reason old --dry-run"),
    writes(
        "compact --remove --before 2 --tombstones --even-unhandled --reason old --yes",
        "the receipt is at position",
        "read --entity $ledger",
        "compacted",
    ),
    reads("export"),
    writes("import LINES", "3 events are in, from 3 lines", "read --entity line:1", "line.read"),
    reads("import IMPORTED"),
    writes("reindex", "2 indexes are built", "doctor", "indexes"),
    reads("recover"),
    makes("recover --salvage DEST", "3 events are copied into DEST", "stats --dir DEST", "events\t3"),
    reads("doctor"),
    reads("bench --time 1ms --payload 1"),
    reads("describe"),
    reads("completions bash"),
];

/// Commands without a store, which have no row above.
const WITHOUT_STORE: [&str; 1] = ["man"];

const LINES: &str = "{\"entity\":\"line:1\",\"kind\":\"line.read\",\"payload\":1}\n";

/// Made once, and copied for every run.
static TEMPLATE: LazyLock<(Site, String)> = LazyLock::new(|| {
    let site = Site::filled();
    let store = Store::builder(&site.store).segment_bytes_max(600).open().unwrap();
    let mut letters = store.consumer("letters", Query::all()).unwrap();
    letters.next_batch(2).unwrap();
    letters.ack(2.into()).unwrap();
    letters.flush().unwrap();
    drop(letters);
    store.consumer_control("letters").halt("the printer is on fire").unwrap();
    store.close().unwrap();
    fs::write(site.beside("lines"), LINES.repeat(3)).unwrap();
    fs::write(site.beside("imported"), "").unwrap();
    site.out(&format!("backup {} --without-sharing", site.beside("backup").display()));
    for entry in fs::read_dir(site.store.join("segments")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "idx") {
            fs::remove_file(path).unwrap();
        }
    }
    let head = site.out("head").trim().to_owned();
    (site, head)
});

/// A site for one row, with the paths in its command line.
struct Stage {
    site: Site,
}

impl Stage {
    fn new() -> Stage {
        Stage { site: TEMPLATE.0.copied() }
    }

    fn line(&self, line: &str) -> String {
        let path = |name: &str| self.site.beside(name).to_str().unwrap().to_owned();
        let line = line.replace("NEW", &path("new")).replace("DEST", &path("dest"));
        let line = line.replace("LINES", &path("lines")).replace("IMPORTED", &path("imported"));
        line.replace("BACKUP", &path("backup")).replace("HEAD", &TEMPLATE.1)
    }

    fn command(&self, line: &str, form: &str) -> Command {
        self.site.command(&format!("{}{form}", self.line(line)))
    }

    /// True if the store has the change of a row.
    fn is_in(&self, change: &Change) -> bool {
        let output = self.command(change.shown_by, "").output().unwrap();
        text(&output.stdout).contains(&self.line(change.shows))
    }

    /// Checks that standard error reports the change.
    fn check_told(&self, row: &Row, form: &str, code: i32, stderr: &str) {
        let change = row.changes.as_ref().unwrap();
        let wanted = self.line(change.done);
        let place = format!("{}{form}: {stderr}", row.line);
        if form.is_empty() {
            assert!(stderr.starts_with("annals: ") && stderr.contains(&wanted), "{place}");
            return;
        }
        let error: Value = serde_json::from_str(stderr).unwrap_or_else(|_| panic!("{place}"));
        let error = &error["error"];
        assert_eq!(error["code"], code, "{place}");
        assert!(error["done"].as_str().is_some_and(|done| done.contains(&wanted)), "{place}");
        assert!(error["message"].is_string() && (code != UNTOLD || error["hint"].is_string()), "{place}");
    }
}

const FORMS: [&str; 2] = ["", " --json"];

/// Each row on a thread of its own.
fn each_row(test: impl Fn(usize, &Row) + Sync) {
    std::thread::scope(|scope| {
        for (index, row) in ROWS.iter().enumerate() {
            let test = &test;
            scope.spawn(move || test(index, row));
        }
    });
}

fn full() -> Stdio {
    fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

fn closed() -> Stdio {
    std::io::pipe().unwrap().1.into()
}

/// `annals append a:1 a.x 1 >/dev/full` appended the event, ended with 3 and said "free space and repeat the
/// command". An operator who did so had two events.
#[test]
fn what_is_in_and_cannot_be_told_is_not_to_be_repeated() {
    each_row(|_, row| {
        for form in FORMS {
            for (is_closed, stdout) in [(false, full()), (true, closed())] {
                let stage = Stage::new();
                let before = files(&stage.site.store);
                let output =
                    stage.command(row.line, form).stdout(stdout).stderr(Stdio::piped()).output().unwrap();
                let (code, stderr) = (output.status.code().unwrap(), text(&output.stderr));
                let place = format!("{}{form}, closed: {is_closed}: {code}, {stderr}", row.line);
                match &row.changes {
                    Some(change) => {
                        assert_eq!(code, UNTOLD, "{place}");
                        stage.check_told(row, form, UNTOLD, &stderr);
                        assert!(!stderr.contains("free space"), "{place}");
                        assert!(stage.is_in(change), "{place}");
                    }
                    None if is_closed => assert!(code == YES && stderr.is_empty(), "{place}"),
                    None => assert!(code == LATER && stderr.contains("free space and repeat"), "{place}"),
                }
                let is_same = files(&stage.site.store) == before;
                assert!(is_same || row.changes.is_some() || opens_to_write(row.line), "{place}");
                assert!(text(&stage.site.run("verify").stdout).starts_with("clean"), "{place}");
            }
        }
    });
}

/// An opening to write and a close write MARK again.
fn opens_to_write(line: &str) -> bool {
    ["init", "import", "compact"].iter().any(|word| line.starts_with(word))
}

/// A full pipe.
fn stuck() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = rustix::fs::fcntl_getfl(writer.as_fd()).unwrap();
    rustix::fs::fcntl_setfl(writer.as_fd(), flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    while writer.write(b"x").is_ok() {}
    rustix::fs::fcntl_setfl(writer.as_fd(), flags).unwrap();
    (reader, writer)
}

const SIGNALS: [(&str, i32); 3] = [("TERM", 143), ("INT", 130), ("HUP", 129)];

/// The command has made its change, and hangs in its output.
#[test]
fn a_signal_behind_the_change_is_told_what_is_in() {
    each_row(|index, row| {
        let Some(change) = &row.changes else { return };
        std::thread::scope(|scope| {
            for (number, form) in FORMS.into_iter().enumerate() {
                let (signal_name, code) = SIGNALS[(index + number) % SIGNALS.len()];
                scope.spawn(move || {
                    let stage = Stage::new();
                    let (reader, writer) = stuck();
                    let child =
                        stage.command(row.line, form).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
                    eventually(row.line, || stage.is_in(change) && has_come_to_its_output(child.id()));
                    signal(&child, signal_name);
                    let output = child.wait_with_output().unwrap();
                    drop(reader);
                    let stderr = text(&output.stderr);
                    assert_eq!(output.status.code(), Some(code), "{}{form}: {stderr}", row.line);
                    stage.check_told(row, form, code, &stderr);
                    assert!(stderr.contains("nterrupted"), "{}{form}: {stderr}", row.line);
                });
            }
        });
    });
}

/// True if the main thread waits in a write to a pipe. The test knows the name in the kernel, and the numbers
/// of the call on x86-64 and arm64.
fn has_come_to_its_output(process: u32) -> bool {
    let about = |name: &str| fs::read_to_string(format!("/proc/{process}/{name}")).unwrap_or_default();
    let syscall = about("syscall");
    about("wchan").contains("pipe_write") || syscall.starts_with("1 0x1 ") || syscall.starts_with("64 0x1 ")
}

/// Another writer has the lock, so the command waits and has changed nothing.
#[test]
fn a_signal_in_front_of_the_change_changes_nothing() {
    each_row(|index, row| {
        if !row.changes.as_ref().is_some_and(|change| change.locks) {
            return;
        }
        let stage = Stage::new();
        let writer = Store::open(&stage.site.store).unwrap();
        let head = writer.head().unwrap();
        for (number, form) in FORMS.into_iter().enumerate() {
            let (signal_name, code) = SIGNALS[(index + number) % SIGNALS.len()];
            let mut command = stage.command(row.line, &format!("{form} --wait 600s"));
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            eventually("it waits for signals", || catches_signals(child.id()));
            signal(&child, signal_name);
            let output = child.wait_with_output().unwrap();
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{}{form}: {stderr}", row.line);
            assert!(output.stdout.is_empty(), "{}{form}", row.line);
            match form {
                // A rollback that waits says how to continue.
                "" if row.line.starts_with("rollback") && stderr.contains("--cut") => {}
                "" => assert_eq!(stderr, "annals: interrupted; nothing was changed\n", "{}", row.line),
                _ => {
                    let error: Value = serde_json::from_str(&stderr).unwrap();
                    assert_eq!(
                        (&error["error"]["done"], &error["error"]["code"]),
                        (&Value::Null, &code.into())
                    );
                }
            }
        }
        assert_eq!(writer.head().unwrap(), head, "{}", row.line);
        writer.close().unwrap();
    });
}

fn catches_signals(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let bits = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0");
    // SIGHUP, SIGINT and SIGTERM.
    u64::from_str_radix(bits.trim(), 16).unwrap_or(0) & 0x4003 == 0x4003 && status.contains("Name:\tannals")
}

/// A command line that is refused, its exit code, and a part of its message.
const REFUSED: [(&str, i32, &str); 23] = [
    ("init --dir LINES", USAGE, "is a file"),
    ("append order:1 order.placed 1 --expect none", NO, "--expect the version you saw"),
    ("append '' order.placed 1", USAGE, "is empty"),
    ("append order:1 order.placed {", USAGE, "is no JSON"),
    ("append a k 1 --expect exists --create --dir NEW", NO, "the store is created, and nothing is in it"),
    ("append --lines BAD", USAGE, "everything up to line 3 is in"),
    ("append --lines BAD --atomic", USAGE, "line 4"),
    ("append --lines CONFLICT", NO, "everything up to line 3 is in, and behind it line 5; line 4 is not"),
    ("append --lines CONFLICT --atomic", NO, "expected version 99"),
    ("get 99", NO, "no event"),
    ("consumers resume mail", USAGE, "is not halted"),
    ("consumers skip mail 900 --reason x", USAGE, "durable up to"),
    ("consumers rewind unknown 1 --reason x", USAGE, "no consumer"),
    ("checkpoint $x --reason x", USAGE, "$x"),
    ("backup BACKUP/..", USAGE, "choose an empty directory"),
    ("restore DEST NEW", USAGE, "no backup"),
    ("fork BACKUP", USAGE, "choose a new directory"),
    ("rollback @1 --reason x --cut 1:HEAD", USAGE, "--cut"),
    ("erase --reason x --yes", USAGE, "erase what?"),
    ("compact --remove --kind order.paid --reason x --yes", USAGE, "--even-unhandled"),
    ("import BAD", USAGE, "line 4"),
    ("recover --salvage BACKUP", USAGE, "is not empty"),
    ("completions nosuchshell", USAGE, "invalid value"),
];

#[test]
fn what_is_refused_says_what_is_in_and_what_to_do() {
    let site = &TEMPLATE.0;
    let bad = format!("{}nonsense\n{LINES}", LINES.repeat(3));
    let conflict =
        format!("{}{{\"entity\":\"line:1\",\"kind\":\"line.read\",\"expect\":99}}\n{LINES}", LINES.repeat(3));
    let head = site.out("head");
    std::thread::scope(|scope| {
        for (line, code, word) in REFUSED {
            let (bad, conflict, head) = (&bad, &conflict, &head);
            scope.spawn(move || {
                for form in FORMS {
                    let stage = Stage::new();
                    fs::write(stage.site.beside("bad"), bad).unwrap();
                    fs::write(stage.site.beside("conflict"), conflict).unwrap();
                    let path = |name: &str| stage.site.beside(name).to_str().unwrap().to_owned();
                    let line = line.replace("BAD", &path("bad")).replace("CONFLICT", &path("conflict"));
                    let output = stage.command(&line, form).output().unwrap();
                    let stderr = text(&output.stderr);
                    assert_eq!(output.status.code(), Some(code), "{line}{form}: {stderr}");
                    assert!(stderr.contains(word), "{line}{form}: {stderr}");
                    let is_in_part = word.contains("up to line 3 is in") || line.starts_with("import");
                    assert_eq!(&stage.site.out("head") == head, !is_in_part, "{line}{form}");
                }
            });
        }
    });
}

#[test]
fn every_command_has_its_rows() {
    let site = Site::new();
    let help = site.out("--help");
    let commands = help.split("Commands:").nth(1).unwrap().split("Options").next().unwrap();
    let names = commands.lines().filter_map(|line| line.strip_prefix("  "));
    let names = names.filter(|line| !line.starts_with(' ') && !line.is_empty());
    let names: BTreeSet<&str> =
        names.map(|line| line.split(' ').next().unwrap()).filter(|name| *name != "help").collect();
    let rows = ROWS.iter().map(|row| row.line).chain(WITHOUT_STORE);
    let rows: BTreeSet<&str> = rows.map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, rows);
    assert!(names.len() > 30, "{names:?}");
    let of_consumers = site.out("consumers --help");
    for name in ["list", "reset", "rewind", "skip", "resume", "halt"] {
        assert!(
            of_consumers.contains(name)
                && ROWS.iter().any(|row| row.line.starts_with(&format!("consumers {name}")))
        );
    }
    for line in ["man", "--help", "--version", "help read", "read --help"] {
        for (code, stdout) in [(LATER, full()), (YES, closed())] {
            let output: Output = site.command(line).stdout(stdout).output().unwrap();
            assert_eq!(output.status.code(), Some(code), "{line}");
        }
    }
}
