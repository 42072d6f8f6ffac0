//! The shapes of stored events, frozen in a file under version control.
//!
//! Row: app.

mod book;
mod check;
mod invent;
mod plan;
mod shape;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::event::{DomainEvent, KnownKind, RecordedEvent};
use crate::types::{Error, EventData};

use book::{Book, Entry};
use shape::Described;

/// Fails a test when the shape of stored events changes and their version does not.
///
/// ```
/// use annals::DomainEvent;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, DomainEvent)]
/// #[event(prefix = "account")]
/// enum AccountEvent { Opened { owner: String }, Deposited { cents: u64 } }
///
/// // A #[test], with all event types of the crate.
/// fn stored_events_stay_readable() {
///     annals::test::events_lock!(AccountEvent);
/// }
/// ```
///
/// The first run writes `events.lock` beside `Cargo.toml`: every kind and version with the names and types of its fields,
/// and a payload as it would be stored. Put the file under version control. Later runs compare:
///
/// | what changed | the test |
/// |---|---|
/// | fields of a kind, its version stayed | fails, with the difference |
/// | a kind or a version is new | adds it, and says so; where nothing may be added (`CI`), fails |
/// | a kind is gone, or its version went back | fails |
/// | an old payload cannot be read any more, upcasters included | fails |
/// | a new payload does not come back as it was written | fails, with the field |
/// | two types read the same kind | fails |
///
/// All event types of a crate belong into one lock. Where the environment variable `CI` is set (and is not `false`), nothing is added;
/// `ANNALS_LOCK=write` or `ANNALS_LOCK=check` overrules that, and [`EventsLock::additions`] both.
///
/// The payloads, and with them the names and types, come from values that are invented for each variant. Types
/// that take only certain values (an e-mail address) cannot be invented; give one with
/// [`EventsLock::sample`], fields of `Option` types filled and lists not empty, and say where the file is:
///
/// ```
/// use annals::DomainEvent;
/// use annals::test::{Additions, EventsLock};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, DomainEvent)]
/// #[event(kind = "host.added")]
/// struct HostAdded { address: std::net::SocketAddr }
///
/// # let path = std::env::temp_dir().join(format!("annals-doc-lock-{}", std::process::id()));
/// # let path = &path;
/// EventsLock::at(path)
///     .events::<HostAdded>()
///     .sample(&HostAdded { address: "127.0.0.1:80".parse().unwrap() })
///     .additions(Additions::Write)
///     .check();
/// let lock = std::fs::read_to_string(path).unwrap();
/// assert!(lock.contains("host.added 1\n    address: string\n"));
/// # std::fs::remove_file(path).unwrap();
/// ```
#[must_use = "nothing is compared until `check`"]
pub struct EventsLock {
    path: PathBuf,
    additions: Additions,
    types: Vec<Type>,
    samples: BTreeMap<&'static str, Shown>,
}

/// What becomes of kinds and versions that are new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Additions {
    /// They are written into the file.
    Write,
    /// They fail the test: somebody forgot to put the file under version control.
    Refuse,
}

/// Checks the event types of a crate against `events.lock` beside its `Cargo.toml`: see [`EventsLock`].
#[macro_export]
#[doc(hidden)]
macro_rules! __events_lock {
    ($($events:ty),+ $(,)?) => {
        $crate::test::EventsLock::at(::core::concat!(::core::env!("CARGO_MANIFEST_DIR"), "/events.lock"))
            $(.events::<$events>())+
            .check()
    };
}

/// An event type of the program.
struct Type {
    name: &'static str,
    kinds: &'static [KnownKind],
    /// An error says what to do.
    invent: fn(&KnownKind) -> Result<Shown, String>,
    /// Reads an event, and writes it again if it still can be written.
    again: fn(&RecordedEvent) -> Result<Option<Vec<u8>>, Error>,
}

/// What is known of a kind's values.
#[derive(Clone, Default)]
struct Shown {
    shape: Described,
    payloads: BTreeSet<Vec<u8>>,
}

impl Shown {
    fn see<E: EventData + Serialize>(&mut self, event: &E, kind: &KnownKind) -> Result<(), String> {
        let mut payload = Vec::new();
        event.encode(&mut payload).map_err(|error| error.to_string())?;
        self.shape.see(event, kind.form()).map_err(|error| error.to_string())?;
        self.payloads.insert(payload);
        Ok(())
    }

    fn entry(&self) -> Entry {
        Entry { lines: self.shape.lines(), samples: self.payloads.iter().cloned().collect() }
    }
}

fn invent<E: DomainEvent + Serialize + DeserializeOwned>(kind: &KnownKind) -> Result<Shown, String> {
    let mut shown = Shown::default();
    let values =
        invent::values::<E>(kind.variant_of_enum()).map_err(|problem| check::no_sample(kind, &problem))?;
    for event in values {
        shown.see(&event, kind).map_err(|problem| check::not_stored(kind, &problem))?;
    }
    Ok(shown)
}

impl EventsLock {
    /// A lock in a file, which need not be there yet.
    pub fn at(path: impl AsRef<Path>) -> EventsLock {
        EventsLock {
            path: path.as_ref().to_owned(),
            additions: Additions::from_environment(),
            types: Vec::new(),
            samples: BTreeMap::new(),
        }
    }

    /// Adds the events of a type.
    pub fn events<E: DomainEvent + Serialize + DeserializeOwned>(mut self) -> EventsLock {
        self.types.push(Type {
            name: std::any::type_name::<E>(),
            kinds: E::KINDS,
            invent: invent::<E>,
            again: |event| {
                let read = E::from_recorded(event)?;
                let mut out = Vec::new();
                Ok(read.encode(&mut out).ok().map(|()| out))
            },
        });
        self
    }

    /// Gives a value to take names, types and the payload from, in place of invented ones; more than one, where
    /// one does not show everything.
    ///
    /// # Panics
    ///
    /// If the value could not be appended: serde refuses it, or it would not come back. If its type is not derived.
    #[track_caller]
    pub fn sample<E: DomainEvent + Serialize>(mut self, event: &E) -> EventsLock {
        let Some(kind) = E::KINDS.iter().find(|kind| kind.name() == event.kind()) else {
            panic!("{} {NOT_DERIVED}", std::any::type_name::<E>());
        };
        let shown = self.samples.entry(kind.name()).or_default();
        if let Err(problem) = shown.see(event, kind) {
            panic!("the sample of {} cannot be stored: {problem}", kind.name());
        }
        self
    }

    /// What becomes of kinds and versions that are new (default: [`Additions::Refuse`] where `CI` is set, else
    /// [`Additions::Write`]).
    pub fn additions(mut self, additions: Additions) -> EventsLock {
        self.additions = additions;
        self
    }

    /// Compares, and writes what is new.
    ///
    /// # Panics
    ///
    /// If stored events may no longer be read as they were, with all that was found, and what to do about it; if
    /// the file cannot be read or written. An upcaster that panics is not caught.
    #[track_caller]
    pub fn check(self) {
        if let Err(problem) = self.compare() {
            panic!("{problem}");
        }
    }

    fn compare(&self) -> Result<(), String> {
        let file = self.path.display();
        let (old, is_new) = match fs::read_to_string(&self.path) {
            Ok(text) => (Book::parse(&text).map_err(|problem| format!("{file}, {problem}"))?, false),
            Err(error) if error.kind() == ErrorKind::NotFound => (Book::default(), true),
            Err(error) => return Err(format!("{file} cannot be read: {error}")),
        };
        let found = check::compare(&self.types, &self.samples, &old);
        let mut problems = found.problems;
        if self.additions == Additions::Refuse && !found.added.is_empty() {
            problems.push(format!(
                "{} not in the lock, and nothing is added here (CI, ANNALS_LOCK=check or Additions::Refuse): run this test where it may, and put {file} under version control",
                found.added.join(", ")
            ));
        }
        if !problems.is_empty() {
            return Err(format!("{file}: stored events are at risk\n\n{}", problems.join("\n\n")));
        }
        if found.added.is_empty() {
            return Ok(());
        }
        self.write(&found.book.print()).map_err(|error| format!("{file} cannot be written: {error}"))?;
        let done = if is_new { "written" } else { "extended" };
        let text =
            format!("annals: {file} was {done}: {}; put it under version control\n", found.added.join(", "));
        // Tests are silent when they pass; this is to be seen all the same, and no reason to fail.
        let _ = std::io::stderr().write_all(text.as_bytes());
        Ok(())
    }

    /// Whoever reads meanwhile finds the old file or the new one.
    fn write(&self, text: &str) -> Result<(), std::io::Error> {
        let mut next = self.path.as_os_str().to_owned();
        next.push(format!(".{}.tmp", std::process::id()));
        fs::write(&next, text)?;
        fs::rename(&next, &self.path)
    }
}

impl Additions {
    fn from_environment() -> Additions {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        match (variable("ANNALS_LOCK").as_str(), variable("CI").as_str()) {
            ("check", _) => Additions::Refuse,
            ("write", _) | (_, "" | "false" | "0") => Additions::Write,
            _ => Additions::Refuse,
        }
    }
}

const NOT_DERIVED: &str = "says nothing of its kinds (DomainEvent::KINDS is empty); derive DomainEvent";
