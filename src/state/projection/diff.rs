//! What is different between two values, field by field.
//!
//! Row: app.

use std::fmt;

use serde::Serialize;

use super::tree::Tree;
use crate::types::Error;

/// What is different between two values; see [`diff`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    changes: Vec<Change>,
}

/// One difference: where it is, and what is there in either value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The way there: `.owner.name`, `.entries[3]`, `.balances["a b"]`; empty for the value itself.
    pub path: String,
    /// What the first value has there, as text; `None` if it has nothing.
    pub old: Option<String>,
    /// What the second value has there.
    pub new: Option<String>,
}

/// What is different between two values of one type, field by field, as serde shows them.
///
/// Entries of maps are compared by key, items of lists by place.
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
    Ok(Diff::of(&Tree::of(old)?, &Tree::of(new)?))
}

impl Diff {
    pub(super) fn of(old: &Tree, new: &Tree) -> Diff {
        let mut diff = Diff::default();
        diff.walk(&mut String::new(), Some(old), Some(new));
        diff
    }

    /// Whether nothing is different.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The differences, in the order of their paths.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    fn walk(&mut self, path: &mut String, old: Option<&Tree>, new: Option<&Tree>) {
        match (old, new) {
            (Some(Tree::Map(old)), Some(Tree::Map(new))) => {
                let only_new = new.keys().filter(|step| !old.contains_key(*step));
                let mut steps: Vec<&String> = old.keys().chain(only_new).collect();
                steps.sort();
                for step in steps {
                    self.descend(path, step, old.get(step), new.get(step));
                }
            }
            (Some(Tree::List(old)), Some(Tree::List(new))) => {
                for place in 0..old.len().max(new.len()) {
                    self.descend(path, &format!("[{place}]"), old.get(place), new.get(place));
                }
            }
            (old, new) if old == new => {}
            (old, new) => {
                let text = |tree: Option<&Tree>| tree.map(ToString::to_string);
                self.changes.push(Change { path: path.clone(), old: text(old), new: text(new) });
            }
        }
    }

    fn descend(&mut self, path: &mut String, step: &str, old: Option<&Tree>, new: Option<&Tree>) {
        let length = path.len();
        path.push_str(step);
        self.walk(path, old, new);
        path.truncate(length);
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, change) in self.changes.iter().enumerate() {
            if place > 0 {
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
