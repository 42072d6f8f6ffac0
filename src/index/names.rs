//! The dictionary of names of one field, each with its postings: found by hash, and listed in order.
//!
//! An insert only hashes. The first caller that asks for the order sorts all names. From then on each caller
//! that asks sorts in the names inserted since. A store that is never asked for a prefix pays nothing for the
//! order.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};

use foldhash::{HashMap, HashMapExt};
use parking_lot::Mutex;

pub(super) struct NameDictionary<P> {
    postings: HashMap<Box<str>, P>,
    sorted: Mutex<Option<SortedNames>>,
}

#[derive(Default)]
struct SortedNames {
    names: BTreeSet<Box<str>>,
    /// Inserted since the names were last sorted, in any order.
    unsorted: Vec<Box<str>>,
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

    /// All names with their postings, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &P)> {
        self.postings.iter().map(|(name, postings)| (name.as_ref(), postings))
    }

    /// Adds a name that is not in the dictionary yet.
    pub(super) fn insert(&mut self, name: &str, postings: P) {
        if let Some(sorted) = self.sorted.get_mut() {
            sorted.unsorted.push(name.into());
        }
        self.postings.insert(name.into(), postings);
    }

    /// Visits, in order, the names that begin with `prefix` and come after `after`, until `visit` breaks.
    pub(super) fn visit<'a>(
        &'a self,
        prefix: &str,
        after: Option<&str>,
        mut visit: impl FnMut(&'a str, &'a P) -> ControlFlow<()>,
    ) {
        let mut sorted = self.sorted.lock();
        let sorted = sorted.get_or_insert_with(|| SortedNames {
            names: self.postings.keys().cloned().collect(),
            unsorted: Vec::new(),
        });
        sorted.names.extend(sorted.unsorted.drain(..));
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
