//! The lock file, and the comparison of its entries with the event types of the program.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::event::{DomainEvent, KnownKind, RecordedEvent, codec};
use crate::store::Store;
use crate::test::difference_of_lines;
use crate::types::{Error, EventData};

use super::invent::invent_values;
use super::shape::KindShape;

pub(super) const NOT_DERIVED: &str =
    "says nothing of its kinds (DomainEvent::KINDS is empty); derive DomainEvent";

const HEAD: &str = "\
# What stored events look like. annals::test::EventsLock writes this file; keep it under version control.
# An entry that no longer fits the code means that stored events no longer fit it: raise the version, write an upcaster.
";

/// The lock file: everything that was ever stored, as entries in the order of kind and version. Its text
/// reads well in a diff:
///
/// ```text
/// order.placed 2
///     address: fields
///     address.city: string
///     cents: u64
///     sample 82a7616464...
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct LockFile(BTreeMap<(String, u16), LockEntry>);

/// One version of one kind.
#[derive(Clone, Debug, Default, PartialEq)]
struct LockEntry {
    /// The lines of the shape, one for each field.
    lines: Vec<String>,
    /// Payloads as they were stored.
    samples: Vec<Vec<u8>>,
}

impl LockFile {
    /// Reads the text of a file. An error names the wrong line, and the reason.
    pub(super) fn parse(text: &str) -> Result<LockFile, String> {
        let mut entries: BTreeMap<(String, u16), LockEntry> = BTreeMap::new();
        let mut current = None;
        for (number, line) in text.lines().enumerate() {
            let at = |problem: &str| format!("line {}: {problem}: {line:?}", number + 1);
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            if !line.starts_with(char::is_whitespace) {
                let key = heading(line)
                    .ok_or_else(|| at("this is no kind with a version (a merge that is not resolved?)"))?;
                if entries.insert(key.clone(), LockEntry::default()).is_some() {
                    return Err(at(
                        "this kind and version is here twice; delete the entry that is not in use",
                    ));
                }
                current = Some(key);
                continue;
            }
            let entry = current.as_ref().and_then(|key| entries.get_mut(key));
            let entry = entry.ok_or_else(|| at("this belongs to no kind"))?;
            match line.trim().strip_prefix("sample ") {
                Some(hex) => entry
                    .samples
                    .push(bytes_of(hex).ok_or_else(|| at("this is no sample in hexadecimal digits"))?),
                None => entry.lines.push(line.trim().to_owned()),
            }
        }
        Ok(LockFile(entries))
    }

    pub(super) fn print(&self) -> String {
        let mut text = HEAD.to_owned();
        for ((kind, version), entry) in &self.0 {
            let _ = writeln!(text, "\n{kind} {version}");
            for line in &entry.lines {
                let _ = writeln!(text, "    {line}");
            }
            for sample in &entry.samples {
                text.push_str("    sample ");
                for byte in sample {
                    let _ = write!(text, "{byte:02x}");
                }
                text.push('\n');
            }
        }
        text
    }
}

/// A kind may hold spaces; the version is the last word.
fn heading(line: &str) -> Option<(String, u16)> {
    let (kind, version) = line.trim_end().rsplit_once(' ')?;
    Some((kind.to_owned(), version.parse().ok()?))
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.trim().as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok().filter(|_| pair.len() == 2))
        .collect()
}

/// An event type of the program.
pub(super) struct EventType {
    name: &'static str,
    kinds: &'static [KnownKind],
    /// Invents values of a kind. An error says what to do.
    invent: fn(&KnownKind) -> Result<KindSamples, String>,
    /// Reads an event, and encodes it again; `None` if its variant is not written any more.
    read_back: fn(&RecordedEvent) -> Result<Option<Vec<u8>>, Error>,
}

impl EventType {
    pub(super) fn of<E: DomainEvent + Serialize + DeserializeOwned>() -> EventType {
        EventType {
            name: std::any::type_name::<E>(),
            kinds: E::KINDS,
            invent: invent_samples::<E>,
            read_back: |event| {
                let read = E::from_recorded(event)?;
                let mut out = Vec::new();
                Ok(read.encode(&mut out).ok().map(|()| out))
            },
        }
    }
}

/// The shape and the payloads of one kind, from sample values.
#[derive(Clone, Default)]
pub(super) struct KindSamples {
    shape: KindShape,
    payloads: BTreeSet<Vec<u8>>,
}

impl KindSamples {
    pub(super) fn add<E: EventData + Serialize>(
        &mut self,
        event: &E,
        kind: &KnownKind,
    ) -> Result<(), String> {
        let mut payload = Vec::new();
        event.encode(&mut payload).map_err(|error| error.to_string())?;
        self.shape.add(event, kind.form()).map_err(|error| error.to_string())?;
        self.payloads.insert(payload);
        Ok(())
    }

    fn entry(&self) -> LockEntry {
        LockEntry { lines: self.shape.lines(), samples: self.payloads.iter().cloned().collect() }
    }
}

fn invent_samples<E: DomainEvent + Serialize + DeserializeOwned>(
    kind: &KnownKind,
) -> Result<KindSamples, String> {
    let values = invent_values::<E>(kind.variant_of_enum()).map_err(|problem| no_sample(kind, &problem))?;
    let mut samples = KindSamples::default();
    for event in values {
        samples.add(&event, kind).map_err(|problem| not_stored(kind, &problem))?;
    }
    Ok(samples)
}

/// The result of a comparison.
pub(super) struct Comparison {
    /// The file to write if there are no problems.
    pub(super) file: LockFile,
    /// The new kinds and versions.
    pub(super) added: Vec<String>,
    pub(super) problems: Vec<String>,
}

/// The type that reads each kind.
type Readers<'a> = BTreeMap<&'static str, (&'a EventType, &'static KnownKind)>;

pub(super) fn compare(
    types: &[EventType],
    samples: &BTreeMap<&'static str, KindSamples>,
    old: &LockFile,
) -> Comparison {
    let mut found = Comparison { file: old.clone(), added: Vec::new(), problems: Vec::new() };
    let readers = readers(types, &mut found.problems);
    for (reader, kind) in readers.values().filter(|(_, kind)| !kind.is_former()) {
        match samples_of(reader, kind, samples) {
            Ok(samples) => {
                let now = samples.entry();
                found.problems.extend(not_read_back(reader, kind, &now));
                compare_entry(kind, &now, old, &mut found);
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
            Some((reader, known)) => found.problems.extend(unreadable_samples(reader, known, *version, entry)),
        }
    }
    found
}

fn readers<'a>(types: &'a [EventType], problems: &mut Vec<String>) -> Readers<'a> {
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

fn samples_of(
    reader: &EventType,
    kind: &KnownKind,
    samples: &BTreeMap<&'static str, KindSamples>,
) -> Result<KindSamples, String> {
    match samples.get(kind.name()) {
        Some(given) => Ok(given.clone()),
        None => (reader.invent)(kind),
    }
}

/// Compares a kind with its entry in the file, which must have the same fields. Without an entry, adds one.
fn compare_entry(kind: &KnownKind, now: &LockEntry, old: &LockFile, found: &mut Comparison) {
    let name = kind.name();
    let version = kind.version();
    let key = (name.to_owned(), version);
    match old.0.get(&key) {
        Some(before) if before.lines == now.lines => {}
        Some(before) => {
            let difference = difference_of_lines(&before.lines.join("\n"), &now.lines.join("\n"));
            let next = version.saturating_add(1);
            let known = if version > 1 { "..., " } else { "" };
            found.problems.push(format!(
                "{name} version {version} is stored with these fields, and the code now has others (-: stored, +: code):\n{difference}Raise the version, and say how to read the old one (annals::Value::unchanged if serde reads it as it is):\n    #[event(version = {next}, upcast({known}{version} = \"path::to::function\"))]\n{}",
                never_stored(name, version)
            ));
        }
        None => {
            found.added.push(format!("{name} version {version}"));
            found.file.0.insert(key, now.clone());
        }
    }
}

/// The problems of the samples of an entry that the code cannot read.
fn unreadable_samples(reader: &EventType, kind: &KnownKind, version: u16, entry: &LockEntry) -> Vec<String> {
    let failures = entry.samples.iter().enumerate().filter_map(|(number, sample)| {
        let error = read(reader, &StoredSample { kind, version, payload: sample }).err()?;
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

/// The problems of the samples of today's code that it does not read back as they were written.
fn not_read_back(reader: &EventType, kind: &KnownKind, now: &LockEntry) -> Vec<String> {
    let problem = |sample: &Vec<u8>| {
        let again = read(reader, &StoredSample { kind, version: kind.version(), payload: sample });
        let path = match again {
            Err(error) => return Some(error.to_string()),
            Ok(again) => codec::difference(sample, &again?)?,
        };
        let which = if path.is_empty() { "it".to_owned() } else { format!("the field {path}") };
        Some(format!("{which} is not read as it was written"))
    };
    now.samples.iter().filter_map(problem).map(|problem| not_stored(kind, &problem)).collect()
}

/// A stored payload, as an event to append.
struct StoredSample<'a> {
    kind: &'a KnownKind,
    version: u16,
    payload: &'a [u8],
}

impl EventData for StoredSample<'_> {
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

/// Appends a sample to a store in memory, and reads it back as stored events are read.
fn read(reader: &EventType, sample: &StoredSample<'_>) -> Result<Option<Vec<u8>>, Error> {
    let store = Store::in_memory()?;
    store.append("sample", sample)?;
    let event = store.stream("sample").next();
    (reader.read_back)(&event.expect("it was just appended")?)
}

/// The problem that a value would not come back.
fn not_stored(kind: &KnownKind, problem: &str) -> String {
    format!("{} version {}: a value of it cannot be stored: {problem}", kind.name(), kind.version())
}

/// The problem that no value of a kind could be invented.
fn no_sample(kind: &KnownKind, problem: &str) -> String {
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
