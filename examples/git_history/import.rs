//! Appends commits: one atomic, idempotent append each, many of them in flight.

use std::collections::{HashSet, VecDeque};
use std::fmt;

use annals::{Append, Appended, Cause, Error, ErrorKind, EventId, Raw, Store, Ticket};
use serde::{Deserialize, Serialize};

use crate::history::{Change, Commit};
use crate::names;
use crate::progress::Progress;

/// Appends in flight at most. The import then waits for the oldest. Appends in flight share syncs.
pub const IN_FLIGHT: usize = 1024;

/// The largest number of events in one append, by default and by format.
const EVENTS_PER_APPEND: usize = 65_535;

const ENTITY_BYTES: usize = 512;
const AUTHOR_BYTES: usize = 200;
const SUBJECT_BYTES: usize = 200;

/// The payload: what the envelope of the event does not hold.
#[derive(Serialize, Deserialize)]
pub struct FileChanged<'a> {
    pub commit: &'a str,
    pub author: &'a str,
    pub subject: &'a str,
    /// The content the file has now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<&'a str>,
    /// The entity this one was renamed or copied from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The entity this one was renamed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// The result of an import.
#[derive(Default)]
pub struct Imported {
    pub commits: usize,
    /// Commits that change no file, and need no append.
    pub empty: usize,
    /// Commits too large for one append.
    pub cut: usize,
    /// Appends of this run, and their events.
    pub appends: usize,
    pub events: usize,
    /// Appends of an earlier run.
    pub known: usize,
}

/// Appends every commit, and returns when all of them are durable.
pub fn append_all(store: &Store, commits: &[Commit<'_>], mut progress: Progress) -> Result<Imported, Error> {
    let mut import = Import {
        store,
        in_flight: VecDeque::with_capacity(IN_FLIGHT),
        imported: Imported { commits: commits.len(), ..Imported::default() },
    };
    let mut seen = HashSet::new();
    for commit in commits {
        let changes: Vec<_> =
            commit.changes.iter().map(|change| (change, !seen.insert(change.path))).collect();
        let appends = import.submit(commit, &changes, 0)?;
        import.imported.empty += usize::from(appends == 0);
        import.imported.cut += usize::from(appends > 1);
        progress.add(1);
    }
    import.settle(0)?;
    Ok(import.imported)
}

/// A change, and whether an earlier change has the same file.
type Step<'c, 'a> = (&'c Change<'a>, bool);

struct Import<'s> {
    store: &'s Store,
    in_flight: VecDeque<Ticket>,
    imported: Imported,
}

impl Import<'_> {
    /// Submits changes of a commit that has `before` appends, and returns how many it has afterwards.
    ///
    /// Changes that are too large for one append are halved until they fit. The rule depends on the changes
    /// alone, so that a second run makes the same appends and finds their keys.
    fn submit(&mut self, commit: &Commit<'_>, steps: &[Step<'_, '_>], before: usize) -> Result<usize, Error> {
        if steps.is_empty() {
            return Ok(before);
        }
        if steps.len() <= EVENTS_PER_APPEND {
            self.settle(IN_FLIGHT - 1)?;
            match append(commit, steps, before).submit(self.store) {
                Err(error) if error.kind() == ErrorKind::TooLarge && steps.len() > 1 => {}
                ticket => {
                    self.in_flight.push_back(ticket?);
                    return Ok(before + 1);
                }
            }
        }
        let (first, second) = steps.split_at(steps.len() / 2);
        let before = self.submit(commit, first, before)?;
        self.submit(commit, second, before)
    }

    /// Waits for the oldest appends until at most `most` are in flight.
    fn settle(&mut self, most: usize) -> Result<(), Error> {
        while self.in_flight.len() > most
            && let Some(ticket) = self.in_flight.pop_front()
        {
            self.imported.count(ticket.wait())?;
        }
        Ok(())
    }
}

/// One append of a commit; `number` counts the appends of a commit that was halved.
fn append(commit: &Commit<'_>, steps: &[Step<'_, '_>], number: usize) -> Append {
    let author = names::text(commit.author, AUTHOR_BYTES);
    let subject = names::text(commit.subject, SUBJECT_BYTES);
    let key = match number {
        0 => commit.hash.to_owned(),
        further => format!("{} part {further}", commit.hash),
    };
    let append = Append::to(address(steps[0].0.path))
        .key(key)
        .correlation(correlation(commit.hash))
        .occurred_at(commit.time)
        .tag(format!("author:{author}"));
    steps.iter().fold(append, |append, (change, has_previous)| {
        let payload = FileChanged {
            commit: commit.hash,
            author: &author,
            subject: &subject,
            blob: change.blob,
            from: change.from.map(entity),
            to: change.to.map(entity),
        };
        let append = append.and_to(address(change.path)).event(&Raw(change.kind, &payload));
        if *has_previous { append.cause(Cause::PreviousInStream) } else { append }
    })
}

fn address(path: &[u8]) -> (String, String) {
    (entity(path), names::scope(path))
}

fn entity(path: &[u8]) -> String {
    names::path(path, ENTITY_BYTES)
}

/// The correlation of all events of a commit: the first sixteen bytes of its hash.
fn correlation(hash: &str) -> EventId {
    let digits = u128::from_str_radix(&hash[..32], 16).expect("git prints hexadecimal digits");
    EventId::from_bytes(digits.to_be_bytes())
}

impl Imported {
    fn count(&mut self, outcome: Result<Appended, Error>) -> Result<(), Error> {
        match outcome {
            Ok(receipt) if receipt.replayed() => self.known += 1,
            Ok(receipt) => {
                self.appends += 1;
                self.events += receipt.events();
            }
            // The history has more branches than in an earlier run. Another change is now the first of its file
            // and has no cause, so the same key has other content.
            Err(error) if error.kind() == ErrorKind::KeyReused => self.known += 1,
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commits without merges, {} of them without changes", self.commits, self.empty)?;
        if self.cut > 0 {
            write!(f, ", {} cut into several appends", self.cut)?;
        }
        if self.known > 0 {
            write!(f, "; {} appends were there already", self.known)?;
        }
        Ok(())
    }
}
