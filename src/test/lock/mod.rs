//! The lock of stored events: their shapes, in a file under version control, and a test that compares.
//!
//! Why not serde-reflection 0.6 (tried on 2026-11-30): it traces plain types, but fails where
//! tests/it/typed_lock.rs demands a shape. It supports neither flatten nor tagged and untagged enums
//! (`deserialize_any` and `deserialize_identifier` are "not supported"), and a field with an alias stays
//! without a format. It tries one text only, the empty one, so a UUID or an address needs a sample;
//! `invent.rs` tries thirteen.

mod compare;
mod invent;
mod plan;
mod shape;

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::event::DomainEvent;

use compare::{EventType, KindSamples, LockFile, NOT_DERIVED};

/// A test of one line that fails if the shape of stored events changes and their version does not.
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
/// The first run writes the file `events.lock` beside `Cargo.toml`. It lists each kind and version with the
/// names and types of its fields, and with a payload as it would be stored. Put the file under version
/// control. Later runs compare:
///
/// | change | result of the test |
/// |---|---|
/// | the fields of a kind changed, its version did not | failure, with the difference |
/// | a kind or a version is new | the test adds it and says so; in `CI` it fails |
/// | a kind is gone, or its version went back | failure |
/// | an old payload cannot be read any more, after its upcasters | failure |
/// | a new payload does not come back as it was written | failure, with the field |
/// | two types read the same kind | failure |
///
/// All event types of a crate belong into one lock. The test never changes or removes an entry. It adds none
/// if the environment variable `CI` is set to anything but `false`. `ANNALS_LOCK=write` and
/// `ANNALS_LOCK=check` take precedence over `CI`, and [`EventsLock::additions`] takes precedence over both.
///
/// The names of Rust types and the order of fields are no part of the lock.
///
/// # Invented values
///
/// The payloads, names and types come from values that the lock invents for each variant. It cannot invent a
/// value of a type that accepts certain values only (an e-mail address). Give such a value with
/// [`EventsLock::sample`], with filled `Option` fields and with lists that are not empty.
///
/// The lock does not see what an invented value cannot show. Such a value has one form of an untagged enum,
/// and no entries of a flattened map. It also does not see that a type accepts other bytes in the same serde
/// form.
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
#[must_use = "the lock compares nothing until `check`"]
pub struct EventsLock {
    path: PathBuf,
    additions: Additions,
    types: Vec<EventType>,
    samples: BTreeMap<&'static str, KindSamples>,
}

/// Whether the lock adds kinds and versions that are new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Additions {
    /// New kinds and versions are written into the file.
    Write,
    /// New kinds and versions fail the test: the file under version control is out of date.
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

impl EventsLock {
    /// A lock in a file, which need not exist yet.
    pub fn at(path: impl AsRef<Path>) -> EventsLock {
        EventsLock {
            path: path.as_ref().to_owned(),
            additions: Additions::from_environment(),
            types: Vec::new(),
            samples: BTreeMap::new(),
        }
    }

    /// Adds an event type to the lock.
    pub fn events<E: DomainEvent + Serialize + DeserializeOwned>(mut self) -> EventsLock {
        self.types.push(EventType::of::<E>());
        self
    }

    /// Gives a value in place of the invented values of its kind. Give more than one if one value does not
    /// show all fields.
    ///
    /// # Panics
    ///
    /// If the value could not be appended, because serde refuses it or it would not come back; if its type
    /// does not derive [`DomainEvent`](crate::DomainEvent).
    #[track_caller]
    pub fn sample<E: DomainEvent + Serialize>(mut self, event: &E) -> EventsLock {
        let Some(kind) = E::KINDS.iter().find(|kind| kind.name() == event.kind()) else {
            panic!("{} {NOT_DERIVED}", std::any::type_name::<E>());
        };
        let samples = self.samples.entry(kind.name()).or_default();
        if let Err(problem) = samples.add(event, kind) {
            panic!("the sample of {} cannot be stored: {problem}", kind.name());
        }
        self
    }

    /// Sets whether the lock adds kinds and versions that are new (default: [`Additions::Refuse`] if `CI` is
    /// set, else [`Additions::Write`]).
    pub fn additions(mut self, additions: Additions) -> EventsLock {
        self.additions = additions;
        self
    }

    /// Compares the code with the file, and writes new entries.
    ///
    /// # Panics
    ///
    /// If stored events may no longer be read as they were; the message lists all problems and their
    /// remedies. If the file cannot be read or written. If an upcaster panics.
    #[track_caller]
    pub fn check(self) {
        if let Err(problem) = self.compare() {
            panic!("{problem}");
        }
    }

    fn compare(&self) -> Result<(), String> {
        let file = self.path.display();
        let (old, is_new) = match fs::read_to_string(&self.path) {
            Ok(text) => (LockFile::parse(&text).map_err(|problem| format!("{file}, {problem}"))?, false),
            Err(error) if error.kind() == ErrorKind::NotFound => (LockFile::default(), true),
            Err(error) => return Err(format!("{file} cannot be read: {error}")),
        };
        let comparison = compare::compare(&self.types, &self.samples, &old);
        let mut problems = comparison.problems;
        if self.additions == Additions::Refuse && !comparison.added.is_empty() {
            problems.push(format!(
                "{} not in the lock, and nothing is added here (CI, ANNALS_LOCK=check or Additions::Refuse): run this test where it may, and put {file} under version control",
                comparison.added.join(", ")
            ));
        }
        if !problems.is_empty() {
            return Err(format!("{file}: stored events are at risk\n\n{}", problems.join("\n\n")));
        }
        if comparison.added.is_empty() {
            return Ok(());
        }
        self.write(&comparison.file.print()).map_err(|error| format!("{file} cannot be written: {error}"))?;
        let done = if is_new { "written" } else { "extended" };
        let text = format!(
            "annals: {file} was {done}: {}; put it under version control\n",
            comparison.added.join(", ")
        );
        // Written to stderr itself, because cargo hides the output of a test that passes. A failure is ignored.
        let _ = std::io::stderr().write_all(text.as_bytes());
        Ok(())
    }

    /// Replaces the file by a rename, so that another process reads the old file or the new one.
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
