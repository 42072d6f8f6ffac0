//! The lock file: entries in the order of kind and version, in a form that reads well in a diff.
//!
//! ```text
//! order.placed 2
//!     address: fields
//!     address.city: string
//!     cents: u64
//!     sample 82a7616464...
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;

const HEAD: &str = "\
# What stored events look like. annals::test::EventsLock writes this file; keep it under version control.
# An entry that no longer fits the code means that stored events no longer fit it: raise the version, write an upcaster.
";

/// The entries of the file by kind and version: everything that was ever stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct LockFile(pub(super) BTreeMap<(String, u16), LockEntry>);

/// One version of one kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct LockEntry {
    /// The lines of the shape, one for each field.
    pub(super) lines: Vec<String>,
    /// Payloads as they were stored.
    pub(super) samples: Vec<Vec<u8>>,
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
                    .push(bytes(hex).ok_or_else(|| at("this is no sample in hexadecimal digits"))?),
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

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.trim().as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok().filter(|_| pair.len() == 2))
        .collect()
}
