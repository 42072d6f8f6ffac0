//! The names of one segment, in order, with what the index knows of each.
//!
//! Row: index.

use std::ops::{ControlFlow, Range};

use super::Index;
use super::names::Names;
use super::query::{Postings, cut};

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

impl Index {
    /// At most `most` names that have events in the window; the store's own only to who asks for them.
    pub(crate) fn listed(&self, wanted: &Wanted, window: &Range<u32>, most: usize) -> Vec<Entry> {
        match wanted.label {
            Label::Entity => listed(&self.entities, wanted, window, most),
            Label::Scope => listed(&self.scopes, wanted, window, most),
            Label::Kind => listed(&self.kinds, wanted, window, most),
            Label::Tag => listed(&self.tags, wanted, window, most),
        }
    }
}

fn listed<P: Postings>(names: &Names<P>, wanted: &Wanted, window: &Range<u32>, most: usize) -> Vec<Entry> {
    let mut entries = Vec::new();
    let hides = |name: &str| name.starts_with(RESERVED) && !wanted.prefix.starts_with(RESERVED);
    names.visit(&wanted.prefix, wanted.after.as_deref(), |name, postings| {
        if entries.len() == most {
            return ControlFlow::Break(());
        }
        let list = cut(postings.ordinals(), window);
        if let (Some(first), Some(last), false) = (list.first(), list.last(), hides(name)) {
            let events = u64::try_from(list.len()).expect("a length fits 64 bits");
            entries.push(Entry { name: name.to_owned(), events, first: *first, last: *last });
        }
        ControlFlow::Continue(())
    });
    entries
}
