//! Listings: which entities, scopes, kinds and tags there are.
//!
//! Each segment knows its names in order; a listing merges them, some names of each at a time, and
//! holds no lock in between.
//! Row: reader.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use crate::index::{NameSummary, NameField, NameFilter};
use crate::read::view::{Snapshot, LogView};
use crate::types::{Error, Position};

/// How many names are taken from a segment at once, first and at most; each time twice as many.
const FIRST_NAMES: u64 = 32;
const NAMES_MAX: u64 = 1024;

/// Names being listed, in the order of their bytes: an iterator, and until its first item a builder.
///
/// It sees the store as it was at its first item. Names that are kept for the store, which begin
/// with `$`, are left out. It costs what it returns, in each segment; the first listing (or prefix
/// query) of the segment being written also sorts its names, which then take memory twice.
///
/// ```
/// use annals::{Raw, Store};
///
/// let store = Store::in_memory()?;
/// for entity in ["user:7", "order:2", "order:1", "order:2"] {
///     store.append(entity, &Raw("seen", &()))?;
/// }
/// let orders: Vec<_> = store.entities().prefix("order:").collect::<Result<_, _>>()?;
/// assert_eq!((orders[0].name.as_str(), orders[0].events), ("order:1", 1));
/// assert_eq!((orders[1].first.get(), orders[1].last.get()), (2, 4));
///
/// let next_page = store.entities().after("order:1").limit(1).next().unwrap()?;
/// assert_eq!(next_page.name, "order:2");
/// # Ok::<(), annals::Error>(())
/// ```
#[must_use = "a listing does nothing until it is iterated"]
pub struct Listing {
    view: Result<Arc<LogView>, Error>,
    filter: NameFilter,
    left: u64,
    progress: Option<Progress>,
}

/// A name and its events.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NameCount {
    /// The name.
    pub name: String,
    /// How many events carry it.
    pub events: u64,
    /// Where the first of them stands.
    pub first: Position,
    /// Where the last of them stands.
    pub last: Position,
}

struct Progress {
    snapshot: Snapshot,
    /// By segment.
    sources: Vec<Source>,
    /// The next name of each segment that has one, and the segment's number.
    next: BinaryHeap<Reverse<(String, usize)>>,
}

/// The names of one segment.
struct Source {
    filter: NameFilter,
    /// Taken and not yet listed, in order.
    entries: VecDeque<NameSummary>,
    /// How many to take next; 0 if there are no more.
    names: u64,
}

impl Listing {
    pub(crate) fn new(view: Result<Arc<LogView>, Error>, field: NameField) -> Listing {
        let filter = NameFilter { field, prefix: String::new(), after: None };
        Listing { view, filter, left: u64::MAX, progress: None }
    }

    /// Only names that begin so (default: all).
    pub fn prefix(mut self, prefix: impl Into<String>) -> Listing {
        self.filter.prefix = prefix.into();
        self
    }

    /// Only names that come after this one, which need not exist: the last name of the page before.
    pub fn after(mut self, name: impl Into<String>) -> Listing {
        self.filter.after = Some(name.into());
        self
    }

    /// At most this many names (default: all).
    pub fn limit(mut self, names: u64) -> Listing {
        self.left = names;
        self
    }
}

impl Iterator for Listing {
    type Item = Result<NameCount, Error>;

    fn next(&mut self) -> Option<Result<NameCount, Error>> {
        self.left = self.left.checked_sub(1)?;
        let item = self.advance().transpose();
        if !matches!(item, Some(Ok(_))) {
            self.left = 0;
        }
        item
    }
}

impl Listing {
    fn advance(&mut self) -> Result<Option<NameCount>, Error> {
        let progress = match &mut self.progress {
            Some(progress) => progress,
            empty => {
                let snapshot = self.view.clone()?.snapshot();
                empty.insert(Progress::begin(snapshot, &self.filter, self.left.saturating_add(1))?)
            }
        };
        progress.next()
    }
}

impl Progress {
    fn begin(snapshot: Snapshot, filter: &NameFilter, left: u64) -> Result<Progress, Error> {
        let source =
            || Source { filter: filter.clone(), entries: VecDeque::new(), names: left.min(FIRST_NAMES) };
        let sources = snapshot.segments.iter().map(|_| source()).collect();
        let mut progress = Progress { snapshot, sources, next: BinaryHeap::new() };
        (0..progress.sources.len()).try_for_each(|segment| progress.offer(segment))?;
        Ok(progress)
    }

    fn next(&mut self) -> Result<Option<NameCount>, Error> {
        let Some(Reverse((name, segment))) = self.next.pop() else { return Ok(None) };
        let mut listed = self.take(segment, name)?;
        // The heap gives the segments of one name in order.
        while self.next.peek().is_some_and(|Reverse((name, _))| *name == listed.name) {
            let Some(Reverse((name, segment))) = self.next.pop() else { break };
            let more = self.take(segment, name)?;
            (listed.events, listed.last) = (listed.events + more.events, more.last);
        }
        Ok(Some(listed))
    }

    /// Takes the next name of a segment, and offers the one behind it.
    fn take(&mut self, segment: usize, name: String) -> Result<NameCount, Error> {
        let entry = self.sources[segment].entries.pop_front().expect("it was offered");
        self.offer(segment)?;
        let position = |ordinal| self.snapshot.segments[segment].position(ordinal).into();
        let (first, last) = (position(entry.first), position(entry.last));
        Ok(NameCount { name, events: entry.events, first, last })
    }

    fn offer(&mut self, segment: usize) -> Result<(), Error> {
        let source = &mut self.sources[segment];
        if source.entries.is_empty() && source.names > 0 {
            let most = usize::try_from(source.names).expect("at most NAMES_MAX");
            let segment = &self.snapshot.segments[segment];
            let window = segment.clip(&self.snapshot.positions());
            source.entries = segment.listed(&source.filter, &window, most)?.into();
            source.filter.after = source.entries.back().map(|last| last.name.clone());
            let are_all = source.entries.len() < most;
            source.names = if are_all { 0 } else { (source.names * 2).min(NAMES_MAX) };
        }
        if let Some(entry) = source.entries.front() {
            self.next.push(Reverse((entry.name.clone(), segment)));
        }
        Ok(())
    }
}
