//! Shared by the tests of the command: a store in a directory of its own, calls, exit codes, and every
//! command in one line.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use annals::{Append, Query, Raw, Store};
use tempfile::TempDir;

pub const YES: i32 = 0;
pub const NO: i32 = 1;
pub const USAGE: i32 = 2;
pub const LATER: i32 = 3;
pub const DAMAGED: i32 = 5;
pub const NEWER: i32 = 6;
pub const SYSTEM: i32 = 8;
pub const UNTOLD: i32 = 9;
pub const INTERRUPTED: i32 = 130;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_annals");

pub struct Site {
    _directory: TempDir,
    pub store: PathBuf,
}

impl Site {
    pub fn new() -> Site {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        Site { _directory: directory, store }
    }

    /// A copy of the site.
    pub fn copied(&self) -> Site {
        let copy = Site::new();
        copy_all(self.store.parent().unwrap(), copy.store.parent().unwrap());
        copy
    }

    pub fn command(&self, line: &str) -> Command {
        command(&self.store, &words(&line.replace("DEST", self.beside("dest").to_str().unwrap())))
    }

    /// A path beside the store.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.store.with_file_name(name)
    }

    pub fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// Standard output of a command that must work.
    pub fn out(&self, line: &str) -> String {
        let output = self.run(line);
        assert_eq!(output.status.code(), Some(YES), "{line}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    pub fn fed(&self, line: &str, input: &str) -> Output {
        let mut child = self.start(line);
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    pub fn start(&self, line: &str) -> Child {
        let mut command = self.command(line);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// A store with a little of everything.
    pub fn filled() -> Site {
        let site = Site::new();
        let store = Store::open(&site.store).unwrap();
        let placed = Append::to(("order:1", "tenant:acme")).event(&Raw("order.placed", &"a book")).tag("vip");
        let placed = placed.commit(&store).unwrap();
        let placed = store.get(placed.id()).unwrap().unwrap();
        let paid = Append::to(("order:1", "tenant:acme")).event(&Raw("order.paid", &20));
        paid.caused_by(&placed).metadata(&"by card").commit(&store).unwrap();
        store.append("order:2", &Raw("order.placed", &[1, 2])).unwrap();
        drop(store.consumer("mail", Query::all()).unwrap());
        store.checkpoint("beginning", "for later").unwrap();
        store.close().unwrap();
        site
    }
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            fs::create_dir(&to).unwrap();
            fs::set_permissions(&to, fs::metadata(&from).unwrap().permissions()).unwrap();
            copy_all(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

pub fn command(store: &Path, words: &[String]) -> Command {
    let mut command = Command::new(PROGRAM);
    for name in ["ANNALS_DURABILITY", "ANNALS_QUEUE", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command.env("ANNALS_DIR", store).env("USER", "tester").args(words).stdin(Stdio::null());
    command
}

/// Splits a line as a shell does, with single quotes only.
pub fn words(line: &str) -> Vec<String> {
    let (mut words, mut quoted, mut word) = (Vec::new(), false, None::<String>);
    for sign in line.chars() {
        match sign {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            sign => word.get_or_insert_default().push(sign),
        }
    }
    words.extend(word);
    words
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Every file below a directory except the lock, whose text varies.
pub fn files(directory: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let (mut found, mut left) = (BTreeMap::new(), vec![directory.to_owned()]);
    while let Some(path) = left.pop() {
        let Ok(about) = fs::symlink_metadata(&path) else { continue };
        if about.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            found.insert(path, (about.mode(), Vec::new()));
        } else if !path.ends_with("LOCK") {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, (about.mode(), bytes));
        }
    }
    found
}

/// Commands that read; each has an answer in [`Site::filled`].
pub const READING: [&str; 27] = [
    "get 1",
    "read",
    "read --entity order:1 --after 1",
    "read --kind order.p* --backwards --limit 1",
    "read --between 2000-01-01..2100-01-01 --scope tenant:acme --tag vip",
    "tail -n 2",
    "entities",
    "kinds --prefix order.",
    "scopes",
    "tags",
    "stats",
    "story 1",
    "story 1 --form dot",
    "ancestors 2",
    "descendants @1",
    "path 2",
    "leaves order:1",
    "verify",
    "head",
    "head --durable",
    "consumers",
    "consumers list",
    "recover",
    "doctor",
    "describe",
    "checkpoint",
    "export --after 1",
];

/// Commands that create another store, or print the head before they cut.
pub const ARCHIVING: [&str; 3] =
    ["backup DEST", "fork DEST.fork --until @1", "rollback @1 --reason 'a broken file'"];

/// Commands that write.
pub const WRITING: [&str; 14] = [
    "init",
    "append order:3 order.placed 1",
    "append order:3 order.placed 1 --create",
    "consumers halt mail --reason moved",
    "consumers resume mail",
    "consumers skip mail 3 --reason moved",
    "consumers rewind mail 1 --reason again",
    "consumers reset mail --reason again",
    "reindex",
    "checkpoint here --reason moved",
    "import - --name nothing",
    "erase --entity order:2 --reason 'asked for' --yes",
    "compact --remove --kind order.paid --tombstones --even-unhandled --reason old --yes",
    "compact --replaced-checkpoints --merge --dry-run --reason 'a look'",
];

pub fn change(site: &Site, change: impl FnOnce(&mut [u8])) {
    let path = site.store.join("segments/00000000000000000001.0.seg");
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

pub fn interrupt(child: &Child) {
    signal(child, "INT");
}

pub fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Longer than any command takes. A test that waits this long has failed.
pub const FOREVER: Duration = Duration::from_secs(20);

/// Waits until a condition holds that sends no signal.
pub fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + FOREVER;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: still not so after {FOREVER:?}");
        std::thread::yield_now();
    }
}
