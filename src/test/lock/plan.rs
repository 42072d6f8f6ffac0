//! What inventing values goes by, and what it learns from a try that fails.
//!
//! Row: app.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::invent::Inventor;

/// Texts that types are made of which are not just texts: times, addresses, identities.
pub(super) const TEXTS: [&str; 13] = [
    "text",
    "00000000-0000-4000-8000-000000000001",
    "127.0.0.1",
    "::1",
    "127.0.0.1:80",
    "[::1]:80",
    "2026-01-02T03:04:05Z",
    "2026-01-02",
    "03:04:05",
    "1",
    "1.0.0",
    "somebody@example.com",
    "https://example.com/",
];

/// What a type gets that takes anything.
pub(super) const ANYTHING: [Anything; 4] = [Anything::Number, Anything::Text, Anything::Flag, Anything::List];

#[derive(Clone, Copy)]
pub(super) enum Anything {
    Number,
    Text,
    Flag,
    List,
}

/// What a run goes by, and what it leaves behind.
#[derive(Clone, Default)]
pub(super) struct Plan {
    /// Which of `TEXTS` each text gets, by when it is asked for; the first where that is not said.
    pub(super) texts: HashMap<usize, usize>,
    /// Which of `ANYTHING`.
    pub(super) anything: usize,
    /// How often an enum was asked for, by its name; each time it gets its next variant.
    pub(super) visits: HashMap<&'static str, usize>,
    pub(super) met: HashSet<(&'static str, usize)>,
    pub(super) variants_max: usize,
    /// Which variant an enum gets inside itself: one that does not go on for ever.
    pub(super) inner_variant: HashMap<&'static str, usize>,
    /// The options, lists and maps, as they come, that are to be empty, because what they hold holds itself.
    pub(super) empty: HashSet<usize>,
    /// Names of a struct's fields that are second names of others.
    pub(super) second_names: HashSet<(&'static str, &'static str)>,
    /// Fields of flattened structs, and which of `ANYTHING` each gets. serde tells no names before it misses
    /// them.
    pub(super) flattened: Vec<(&'static str, usize)>,
}

impl Plan {
    /// Learns from a failure, and says whether there is another way.
    pub(super) fn learn(&mut self, failure: &Failure, inventor: &Inventor) -> bool {
        match failure.why {
            Why::EndlessEnum(name, variants) => {
                let inner = self.inner_variant.entry(name).or_default();
                *inner += 1;
                *inner < variants || inventor.inside.last().is_some_and(|point| self.empty.insert(*point))
            }
            Why::EndlessStruct => inventor.inside.last().is_some_and(|point| self.empty.insert(*point)),
            Why::Missing(field) if inventor.is_flattening => {
                let is_new = self.flattened.iter().all(|(known, _)| *known != field);
                self.flattened.push((field, 0));
                is_new
            }
            Why::Twice => inventor.field.is_some_and(|field| self.second_names.insert(field)),
            Why::Missing(_) | Why::Other => self.try_other(inventor.texts),
        }
    }

    /// The text that was asked for last is likely the one that was refused.
    fn try_other(&mut self, texts: usize) -> bool {
        if let Some(last) = texts.checked_sub(1) {
            let text = self.texts.entry(last).or_default();
            *text += 1;
            if *text < TEXTS.len() {
                return true;
            }
            self.texts.clear();
        }
        if let Some((_, anything)) = self.flattened.last_mut() {
            *anything += 1;
            if *anything < ANYTHING.len() {
                return true;
            }
            *anything = 0;
        }
        self.anything += 1;
        self.anything < ANYTHING.len()
    }
}

/// Why a run came to nothing.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) text: String,
    pub(super) why: Why,
}

#[derive(Debug)]
pub(super) enum Why {
    /// With the number of its variants.
    EndlessEnum(&'static str, usize),
    EndlessStruct,
    Missing(&'static str),
    Twice,
    Other,
}

impl serde::de::Error for Failure {
    fn custom<T: fmt::Display>(text: T) -> Failure {
        Failure { text: text.to_string(), why: Why::Other }
    }

    fn missing_field(field: &'static str) -> Failure {
        Failure { text: format!("missing field `{field}`"), why: Why::Missing(field) }
    }

    fn duplicate_field(field: &'static str) -> Failure {
        Failure { text: format!("duplicate field `{field}`"), why: Why::Twice }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}
