//! Names and their posting lists: found by hash, and in order for who asks for prefixes or listings.
//!
//! Inserting only hashes. The order is made when somebody first asks for it, and kept up from then
//! on: the names that came since are sorted in by the next one who asks. So a store that is never
//! asked for a prefix pays neither time nor memory for it.
//! Row: index.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};

use foldhash::{HashMap, HashMapExt};
use parking_lot::Mutex;

pub(super) struct NameDictionary<P> {
    postings: HashMap<Box<str>, P>,
    sorted: Mutex<Option<Sorted>>,
}

#[derive(Default)]
struct Sorted {
    names: BTreeSet<Box<str>>,
    /// Came since, in any order.
    since: Vec<Box<str>>,
}

impl<P> NameDictionary<P> {
    pub(super) fn new() -> NameDictionary<P> {
        NameDictionary { postings: HashMap::new(), sorted: Mutex::new(None) }
    }

    pub(super) fn get(&self, name: &str) -> Option<&P> {
        self.postings.get(name)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut P> {
        self.postings.get_mut(name)
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &P)> {
        self.postings.iter().map(|(name, postings)| (name.as_ref(), postings))
    }

    /// Adds a name that is not there yet.
    pub(super) fn insert(&mut self, name: &str, postings: P) {
        if let Some(sorted) = self.sorted.get_mut() {
            sorted.since.push(name.into());
        }
        self.postings.insert(name.into(), postings);
    }

    /// Shows the names that begin with `prefix` and come after `after`, in order, until `visit` has enough.
    pub(super) fn visit<'a>(
        &'a self,
        prefix: &str,
        after: Option<&str>,
        mut visit: impl FnMut(&'a str, &'a P) -> ControlFlow<()>,
    ) {
        let mut sorted = self.sorted.lock();
        let sorted = sorted.get_or_insert_with(|| Sorted {
            names: self.postings.keys().cloned().collect(),
            since: Vec::new(),
        });
        sorted.names.extend(sorted.since.drain(..));
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let names = sorted.names.range::<str, _>((start, Bound::Unbounded));
        for name in names.take_while(|name| name.starts_with(prefix)) {
            let (name, postings) =
                self.postings.get_key_value(name.as_ref()).expect("every sorted name was inserted");
            if visit(name, postings).is_break() {
                break;
            }
        }
    }
}
