//! The names of one segment, in order, with what the index knows of each.
//!
//! Row: index.

use std::ops::{ControlFlow, Range};

use super::list::List;
use super::query::Lists;
use crate::types::to_u64;

/// Which names to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Label {
    Entity,
    Scope,
    Kind,
    Tag,
}

/// Which names of a label to list.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) label: Label,
    pub(crate) prefix: String,
    /// Only names that come after this one.
    pub(crate) after: Option<String>,
}

/// A name and its events in this segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) events: u64,
    pub(crate) first: u32,
    pub(crate) last: u32,
}

/// What names that are kept for the store begin with.
const RESERVED: &str = "$";

/// At most `most` names that have events in the window; the store's own only to who asks for them.
pub(super) fn listed(lists: &impl Lists, wanted: &Wanted, window: &Range<u32>, most: usize) -> Vec<Entry> {
    let mut entries = Vec::new();
    let hides = |name: &str| name.starts_with(RESERVED) && !wanted.prefix.starts_with(RESERVED);
    lists.visit(wanted.label, &wanted.prefix, wanted.after.as_deref(), &mut |name, list| {
        if entries.len() == most {
            return ControlFlow::Break(());
        }
        if !hides(name) {
            let list = list.cut(window);
            if let (Some(first), Some(last)) = (list.first(), list.last()) {
                let events = to_u64(list.len());
                entries.push(Entry { name: name.to_owned(), events, first, last });
            }
        }
        ControlFlow::Continue(())
    });
    entries
}
