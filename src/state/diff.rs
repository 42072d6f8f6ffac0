//! Compares two values field by field, as serde shows them.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::event::{Node, Value};
use crate::types::Error;

/// The differences between two values; see [`diff`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    changes: Vec<Change>,
}

/// One difference: its path, and the text of either value there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The path: `.owner.name`, `.entries[3]`, `.balances["a b"]`; empty for the value itself.
    pub path: String,
    /// The first value's text at the path; `None` if the first value has nothing there.
    pub old: Option<String>,
    /// The second value's text at the path; `None` if the second value has nothing there.
    pub new: Option<String>,
}

/// Compares two values of one type, field by field, as serde shows them.
///
/// Entries of maps are compared by key, items of lists by index. A NaN equals itself.
///
/// ```
/// use annals::diff;
/// use serde::Serialize;
///
/// #[derive(Serialize)]
/// struct Account { owner: &'static str, cents: u64 }
///
/// let found = diff(&Account { owner: "Alice", cents: 500 }, &Account { owner: "Alice", cents: 700 })?;
/// assert_eq!(found.to_string(), ".cents: 500 -> 700");
/// assert_eq!(found.changes()[0].path, ".cents");
/// # Ok::<(), annals::Error>(())
/// ```
///
/// # Errors
///
/// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if a value does not encode.
pub fn diff<T: Serialize + ?Sized>(old: &T, new: &T) -> Result<Diff, Error> {
    Ok(Diff::of(&Value::of(old)?, &Value::of(new)?))
}

impl Diff {
    pub(super) fn of(old: &Value, new: &Value) -> Diff {
        let mut diff = Diff::default();
        diff.compare(&mut String::new(), Some(old), Some(new));
        diff
    }

    /// Whether the two values are the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The differences, in the order of their paths.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    fn compare(&mut self, path: &mut String, old: Option<&Value>, new: Option<&Value>) {
        match (old.map(Value::node), new.map(Value::node)) {
            (Some(Node::Map(old)), Some(Node::Map(new))) => {
                let old = by_step(old);
                let new = by_step(new);
                let mut steps: Vec<&String> = old.keys().collect();
                steps.extend(new.keys().filter(|step| !old.contains_key(*step)));
                steps.sort();
                for step in steps {
                    self.compare_at(path, step, old.get(step).copied(), new.get(step).copied());
                }
            }
            (Some(Node::List(old)), Some(Node::List(new))) => {
                for index in 0..old.len().max(new.len()) {
                    self.compare_at(path, &format!("[{index}]"), old.get(index), new.get(index));
                }
            }
            // Compared by their bits, so that a NaN equals itself.
            (Some(Node::Float(old)), Some(Node::Float(new))) if old.to_bits() == new.to_bits() => {}
            (Some(Node::Float(_)), Some(Node::Float(_))) => self.add(path, old, new),
            (old_node, new_node) if old_node == new_node => {}
            _ => self.add(path, old, new),
        }
    }

    fn compare_at(&mut self, path: &mut String, step: &str, old: Option<&Value>, new: Option<&Value>) {
        let length = path.len();
        path.push_str(step);
        self.compare(path, old, new);
        path.truncate(length);
    }

    fn add(&mut self, path: &str, old: Option<&Value>, new: Option<&Value>) {
        let old = old.map(|value| Text(value).to_string());
        let new = new.map(|value| Text(value).to_string());
        self.changes.push(Change { path: path.to_owned(), old, new });
    }
}

/// The entries of a map by the last step of their paths. Sorted, because a `HashMap` has another order each time.
fn by_step(entries: &[(Value, Value)]) -> BTreeMap<String, &Value> {
    entries.iter().map(|(key, value)| (step_to(key), value)).collect()
}

/// The last step of the path to an entry with this key.
fn step_to(key: &Value) -> String {
    let is_plain = |name: &str| {
        !name.is_empty() && name.chars().all(|sign| sign.is_alphanumeric() || matches!(sign, '_' | '-'))
    };
    match key.node() {
        Node::Text(name) if is_plain(name) => format!(".{name}"),
        _ => format!("[{}]", Text(key)),
    }
}

/// A value as the text of a [`Change`].
struct Text<'a>(&'a Value);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.node() {
            Node::Nil => f.write_str("nothing"),
            Node::Bool(value) => value.fmt(f),
            Node::Unsigned(value) => value.fmt(f),
            Node::Signed(value) => value.fmt(f),
            Node::Float(value) => write!(f, "{value:?}"),
            Node::Text(value) => write!(f, "{value:?}"),
            Node::Bytes(bytes) => write_bytes(f, bytes),
            Node::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{}", if index > 0 { ", " } else { "" }, Text(item))?;
                }
                f.write_str("]")
            }
            Node::Map(entries) => {
                f.write_str("{")?;
                for (index, (step, value)) in by_step(entries).into_iter().enumerate() {
                    let name = step.strip_prefix('.').unwrap_or(&step);
                    write!(f, "{}{name}: {}", if index > 0 { ", " } else { "" }, Text(value))?;
                }
                f.write_str("}")
            }
            Node::Extension(kind, bytes) => {
                write!(f, "[{kind}, ")?;
                write_bytes(f, bytes)?;
                f.write_str("]")
            }
        }
    }
}

fn write_bytes(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    f.write_str("0x")?;
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, change) in self.changes.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            change.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "the value" } else { &self.path };
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => write!(f, "{path}: {old} -> {new}"),
            (Some(old), None) => write!(f, "{path}: {old} is gone"),
            (None, Some(new)) => write!(f, "{path}: {new} is new"),
            (None, None) => write!(f, "{path}"),
        }
    }
}
