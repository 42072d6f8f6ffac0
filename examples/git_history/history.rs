//! Parses the output of `git log` into commits and changes, which borrow from its text.
//!
//! The whole text stays in memory, about 120 bytes per change, so that git does not slow down the appends.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::str::from_utf8;
use std::time::{Duration, SystemTime};

use crate::Outcome;
use crate::progress::Progress;

/// Four fields per commit. Under `-z` a zero byte ends each field.
const COMMIT_FORMAT: &str = "--format=tformat:%H%x00%ct%x00%an%x00%s";

/// The options override the configuration of the user.
const LOG: &[&str] = &[
    "-c",
    "log.showSignature=false",
    "-c",
    "i18n.logOutputEncoding=UTF-8",
    "log",
    "--reverse",
    "--topo-order",
    "--no-merges",
    "--no-color",
    "--no-relative",
    "-O/dev/null",
    "--raw",
    "--no-abbrev",
    "-z",
    "-M100%",
    COMMIT_FORMAT,
];

/// How much is read before progress is shown.
const CHUNK_BYTES: u64 = 1 << 16;

pub struct History {
    repository: PathBuf,
    text: Vec<u8>,
}

pub struct Commit<'a> {
    pub hash: &'a str,
    pub time: SystemTime,
    pub author: &'a [u8],
    pub subject: &'a [u8],
    pub changes: Vec<Change<'a>>,
}

pub struct Change<'a> {
    /// The kind of the event.
    pub kind: &'static str,
    pub path: &'a [u8],
    /// The content the file has afterwards.
    pub blob: Option<&'a str>,
    /// The path the content came from, or went to.
    pub from: Option<&'a [u8]>,
    pub to: Option<&'a [u8]>,
}

impl History {
    /// Runs git, and keeps its output: parents before their children.
    pub fn read(repository: &Path, mut progress: Progress) -> Outcome<History> {
        let full_path = check(repository)?;
        let mut git = git(repository).args(LOG).stdout(Stdio::piped()).spawn().map_err(not_started)?;
        let mut text = Vec::new();
        let mut output = git.stdout.take().expect("it was asked for");
        loop {
            // Without a limit, the whole log is one read, and nothing is shown.
            let read = output.by_ref().take(CHUNK_BYTES).read_to_end(&mut text)?;
            if read == 0 {
                break;
            }
            progress.add(read);
        }
        let status = git.wait()?;
        if !status.success() {
            return Err(format!("git log failed ({status})").into());
        }
        Ok(History { repository: full_path, text })
    }

    pub fn repository(&self) -> &Path {
        &self.repository
    }

    /// Parses the text: the fields of each commit, then its changes, each of which begins with a colon.
    pub fn commits(&self) -> Outcome<Vec<Commit<'_>>> {
        let mut fields = Fields { rest: &self.text };
        let mut commits = Vec::new();
        while let Some(hash) = fields.next() {
            commits.push(fields.commit(hash).ok_or_else(|| {
                let place = self.text.len() - fields.rest.len();
                format!("git log printed something unexpected before byte {place}")
            })?);
        }
        Ok(commits)
    }
}

/// Checks that the repository has a history, and returns the full path of its root.
fn check(repository: &Path) -> Outcome<PathBuf> {
    let shown = repository.display();
    let found = answer(git(repository).args(["rev-parse", "--absolute-git-dir"]))?;
    if !found.status.success() {
        let why = String::from_utf8_lossy(&found.stderr);
        return Err(format!("{shown} is not a repository git can read: {}", why.trim()).into());
    }
    let head = answer(git(repository).args(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]))?;
    if !head.status.success() {
        return Err(format!("{shown} has no commits yet (HEAD points to none)").into());
    }
    let root = String::from_utf8_lossy(&found.stdout);
    let root = root.trim_end_matches('\n');
    Ok(root.strip_suffix("/.git").unwrap_or(root).into())
}

fn git(repository: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(repository).stdin(Stdio::null());
    command
}

fn answer(command: &mut Command) -> Outcome<Output> {
    command.output().map_err(not_started)
}

fn not_started(error: io::Error) -> Box<dyn std::error::Error> {
    match error.kind() {
        io::ErrorKind::NotFound => "git was not found; install it, or put it on the PATH".into(),
        _ => format!("git does not start: {error}").into(),
    }
}

/// The fields of the text, one after the other.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|byte| *byte == 0)?;
        let (field, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn commit(&mut self, hash: &'a [u8]) -> Option<Commit<'a>> {
        let mut commit = Commit {
            hash: from_utf8(hash).ok().filter(|hash| hash.len() >= 40 && hash.is_ascii())?,
            time: time(self.next()?)?,
            author: self.next()?,
            subject: self.next()?,
            changes: Vec::new(),
        };
        // A line end stands in front of the first change of a commit.
        if self.rest.starts_with(b"\n:") {
            self.rest = &self.rest[1..];
        }
        while self.rest.starts_with(b":") {
            let what = self.next()?;
            self.change(what, &mut commit.changes)?;
        }
        Some(commit)
    }

    /// Parses `:<old mode> <new mode> <old blob> <new blob> <status>`, and the one or two paths behind it.
    fn change(&mut self, what: &'a [u8], changes: &mut Vec<Change<'a>>) -> Option<()> {
        let mut words = from_utf8(what).ok()?.split(' ').skip(3);
        let (blob, status) = (words.next()?, words.next()?);
        let path = self.next()?;
        let plain = |kind, blob| Change { kind, path, blob, from: None, to: None };
        match status.as_bytes().first()? {
            b'A' => changes.push(plain("file.added", Some(blob))),
            b'D' => changes.push(plain("file.deleted", None)),
            // `M` is a change of content or mode, `T` one of type, for example from file to link.
            b'M' | b'T' => changes.push(plain("file.modified", Some(blob))),
            b'R' => {
                let (from, to) = (path, self.next()?);
                changes.push(Change { to: Some(to), ..plain("file.deleted", None) });
                let renamed = plain("file.renamed", Some(blob));
                changes.push(Change { path: to, from: Some(from), ..renamed });
            }
            // If one file is renamed to several, git reports all but one as copies.
            b'C' => {
                let (from, to) = (path, self.next()?);
                let added = plain("file.added", Some(blob));
                changes.push(Change { path: to, from: Some(from), ..added });
            }
            _ => return None,
        }
        Some(())
    }
}

fn time(seconds: &[u8]) -> Option<SystemTime> {
    let seconds: i64 = from_utf8(seconds).ok()?.parse().ok()?;
    let distance = Duration::from_secs(seconds.unsigned_abs());
    match seconds {
        ..0 => SystemTime::UNIX_EPOCH.checked_sub(distance),
        0.. => SystemTime::UNIX_EPOCH.checked_add(distance),
    }
}
