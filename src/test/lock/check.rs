//! What the code says of stored events, held against what the file says.
//!
//! Row: app.

use std::collections::BTreeMap;

use crate::event::{KnownKind, codec};
use crate::store::Store;
use crate::test::difference;
use crate::types::{Error, EventData};

use super::book::{Book, Entry};
use super::{NOT_DERIVED, Shown, Type};

/// What came of it.
pub(super) struct Found {
    /// What to write if there are no problems.
    pub(super) book: Book,
    pub(super) added: Vec<String>,
    pub(super) problems: Vec<String>,
}

/// A kind that is read, and by which type.
type Readers<'a> = BTreeMap<&'static str, (&'a Type, &'static KnownKind)>;

pub(super) fn compare(types: &[Type], samples: &BTreeMap<&'static str, Shown>, old: &Book) -> Found {
    let mut found = Found { book: old.clone(), added: Vec::new(), problems: Vec::new() };
    let readers = readers(types, &mut found.problems);
    for (reader, kind) in readers.values().filter(|(_, kind)| !kind.is_former()) {
        match shown(reader, kind, samples) {
            Ok(shown) => {
                let now = shown.entry();
                found.problems.extend(not_back(reader, kind, &now));
                hold_against(kind, &now, old, &mut found);
            }
            Err(problem) => found.problems.push(problem),
        }
    }
    for ((kind, version), entry) in &old.0 {
        match readers.get(kind.as_str()) {
            None => found.problems.push(format!(
                "{kind} version {version} may be stored, and no type of this lock reads it. Keep its variant (with #[serde(skip_serializing)] if it is not written any more), name it as an `alias` of the kind it became, or add its type to this lock.\n{}",
                never_stored(kind, *version)
            )),
            Some((_, known)) if *version > known.version() => found.problems.push(format!(
                "{kind} version {version} may be stored, but the code is at version {}. Versions never go back: set `version = {version}` or a higher one.\n{}",
                known.version(),
                never_stored(kind, *version)
            )),
            Some((reader, known)) => found.problems.extend(unreadable(reader, known, *version, entry)),
        }
    }
    found
}

fn readers<'a>(types: &'a [Type], problems: &mut Vec<String>) -> Readers<'a> {
    let mut readers = Readers::new();
    for reader in types {
        if reader.kinds.is_empty() {
            problems.push(format!("{} {NOT_DERIVED}", reader.name));
        }
        for kind in reader.kinds {
            if let Some((other, _)) = readers.insert(kind.name(), (reader, kind)) {
                problems.push(format!(
                    "the kind {} belongs to two types, {} and {}; a stored kind must say what to read: give one of them another kind",
                    kind.name(),
                    other.name,
                    reader.name
                ));
            }
        }
    }
    readers
}

fn shown(reader: &Type, kind: &KnownKind, samples: &BTreeMap<&'static str, Shown>) -> Result<Shown, String> {
    match samples.get(kind.name()) {
        Some(shown) => Ok(shown.clone()),
        None => (reader.invent)(kind),
    }
}

/// A version that the file knows must look as it did.
fn hold_against(kind: &KnownKind, now: &Entry, old: &Book, found: &mut Found) {
    let (name, version) = (kind.name(), kind.version());
    let key = (name.to_owned(), version);
    match old.0.get(&key) {
        Some(before) if before.lines == now.lines => {}
        Some(before) => {
            let difference = difference::lines(&before.lines.join("\n"), &now.lines.join("\n"));
            let next = version.saturating_add(1);
            let known = if version > 1 { "..., " } else { "" };
            found.problems.push(format!(
                "{name} version {version} is stored with these fields, and the code now has others (-: stored, +: code):\n{difference}Raise the version, and say how to read the old one (annals::Value::unchanged if serde reads it as it is):\n    #[event(version = {next}, upcast({known}{version} = \"path::to::function\"))]\n{}",
                never_stored(name, version)
            ));
        }
        None => {
            found.added.push(format!("{name} version {version}"));
            found.book.0.insert(key, now.clone());
        }
    }
}

/// The samples of an entry that the code cannot read.
fn unreadable(reader: &Type, kind: &KnownKind, version: u16, entry: &Entry) -> Vec<String> {
    let failures = entry.samples.iter().enumerate().filter_map(|(number, sample)| {
        let error = read(reader, &Sample { kind, version, payload: sample }).err()?;
        let what = match error.undecodable() {
            Some(_) => error.to_string(),
            None => format!("{error} (annals could not try it)"),
        };
        Some(format!(
            "{} version {version}: sample {} of the lock cannot be read any more: {what}",
            kind.name(),
            number + 1
        ))
    });
    failures.collect()
}

/// The samples of today's code that it does not read back.
fn not_back(reader: &Type, kind: &KnownKind, now: &Entry) -> Vec<String> {
    let problem = |sample: &Vec<u8>| {
        let again = read(reader, &Sample { kind, version: kind.version(), payload: sample });
        let path = match again {
            Err(error) => return Some(error.to_string()),
            Ok(again) => codec::difference(sample, &again?)?,
        };
        let which = if path.is_empty() { "it".to_owned() } else { format!("the field {path}") };
        Some(format!("{which} is not read as it was written"))
    };
    now.samples.iter().filter_map(problem).map(|problem| not_stored(kind, &problem)).collect()
}

/// A payload as it was stored once.
struct Sample<'a> {
    kind: &'a KnownKind,
    version: u16,
    payload: &'a [u8],
}

impl EventData for Sample<'_> {
    fn kind(&self) -> &str {
        self.kind.name()
    }

    fn schema_version(&self) -> u16 {
        self.version
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        out.extend_from_slice(self.payload);
        Ok(())
    }
}

/// Goes the way that stored events go.
fn read(reader: &Type, sample: &Sample<'_>) -> Result<Option<Vec<u8>>, Error> {
    let store = Store::in_memory()?;
    store.append("sample", sample)?;
    let event = store.stream("sample").next();
    (reader.again)(&event.expect("it was just appended")?)
}

/// What is said of a value that would not come back.
pub(super) fn not_stored(kind: &KnownKind, problem: &str) -> String {
    format!("{} version {}: a value of it cannot be stored: {problem}", kind.name(), kind.version())
}

pub(super) fn no_sample(kind: &KnownKind, problem: &str) -> String {
    format!(
        "{} version {}: no value of it could be made up ({problem}). Give one: EventsLock::at(path).events::<..>().sample(&..).check()",
        kind.name(),
        kind.version()
    )
}

fn never_stored(kind: &str, version: u16) -> String {
    format!(
        "(If no such event was ever stored anywhere, delete the entry \"{kind} {version}\" from the file, and run the test again.)"
    )
}
