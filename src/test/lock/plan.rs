//! The plan by which values are invented, and how a failed try changes it.

use std::collections::{HashMap, HashSet};
use std::fmt;

/// The texts that are tried for types which accept certain texts only: times, addresses, identities.
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

/// The values that are tried for types which accept any type of value.
pub(super) const ANYTHING: [Anything; 4] = [Anything::Number, Anything::Text, Anything::Flag, Anything::List];

#[derive(Clone, Copy)]
pub(super) enum Anything {
    Number,
    Text,
    Flag,
    List,
}

/// The choices for the next try, and what earlier tries have shown.
#[derive(Clone, Default)]
pub(super) struct InventionPlan {
    /// The index into [`TEXTS`] for each text, by the order in which texts are asked for (default: 0).
    pub(super) texts: HashMap<usize, usize>,
    /// The index into [`ANYTHING`].
    pub(super) anything: usize,
    /// How often each enum was asked for, by its name. Each time it gets its next variant.
    pub(super) visits: HashMap<&'static str, usize>,
    /// The variants that were invented so far.
    pub(super) met: HashSet<(&'static str, usize)>,
    /// The largest number of variants of an enum.
    pub(super) variants_max: usize,
    /// The variant of an enum inside itself: one that ends the recursion.
    pub(super) inner_variant: HashMap<&'static str, usize>,
    /// The options, lists and maps that must be empty, because their contents hold themselves. They are numbered in
    /// the order in which they are asked for.
    pub(super) empty: HashSet<usize>,
    /// The fields of a struct that are aliases of other fields.
    pub(super) second_names: HashSet<(&'static str, &'static str)>,
    /// The fields of flattened structs, and the index into [`ANYTHING`] for each. serde names such a field only in
    /// the error that it is missing.
    pub(super) flattened: Vec<(&'static str, usize)>,
}

/// How far a try has come.
#[derive(Default)]
pub(super) struct TryProgress {
    /// The number of texts that were asked for.
    pub(super) texts: usize,
    /// The numbers of the options, lists and maps that are being filled.
    pub(super) inside: Vec<usize>,
    /// The struct and the field that was asked for last.
    pub(super) field: Option<(&'static str, &'static str)>,
    /// Whether the names of a flattened struct were asked for.
    pub(super) is_flattening: bool,
}

impl InventionPlan {
    /// Changes the plan after a failed try. Returns whether there is another way to try.
    pub(super) fn learn(&mut self, failure: &InventFailure, progress: &TryProgress) -> bool {
        match failure.reason {
            FailureReason::EndlessEnum(name, variants) => {
                let inner = self.inner_variant.entry(name).or_default();
                *inner += 1;
                *inner < variants || progress.inside.last().is_some_and(|point| self.empty.insert(*point))
            }
            FailureReason::EndlessStruct => {
                progress.inside.last().is_some_and(|point| self.empty.insert(*point))
            }
            FailureReason::Missing(field) if progress.is_flattening => {
                let is_new = self.flattened.iter().all(|(known, _)| *known != field);
                self.flattened.push((field, 0));
                is_new
            }
            FailureReason::Twice => progress.field.is_some_and(|field| self.second_names.insert(field)),
            FailureReason::Missing(_) | FailureReason::Other => self.try_other(progress.texts),
        }
    }

    /// Takes the next text for the last one asked for, because that is likely the one that was refused.
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

/// The error of a failed try.
#[derive(Debug)]
pub(super) struct InventFailure {
    pub(super) text: String,
    pub(super) reason: FailureReason,
}

#[derive(Debug)]
pub(super) enum FailureReason {
    /// An enum holds itself without end. It has so many variants.
    EndlessEnum(&'static str, usize),
    EndlessStruct,
    Missing(&'static str),
    Twice,
    Other,
}

impl serde::de::Error for InventFailure {
    fn custom<T: fmt::Display>(text: T) -> InventFailure {
        InventFailure { text: text.to_string(), reason: FailureReason::Other }
    }

    fn missing_field(field: &'static str) -> InventFailure {
        InventFailure { text: format!("missing field `{field}`"), reason: FailureReason::Missing(field) }
    }

    fn duplicate_field(field: &'static str) -> InventFailure {
        InventFailure { text: format!("duplicate field `{field}`"), reason: FailureReason::Twice }
    }
}

impl fmt::Display for InventFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for InventFailure {}
