//! Listings: the entities, scopes, kinds or tags of the store, in order.
//!
//! Each segment's index lists its names in order. A listing merges them, a few names of each segment at a
//! time, and holds no lock in between.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use crate::index::{NameField, NameFilter, NameSummary};
use crate::types::{Error, Position};

use super::view::{LogView, Snapshot};

/// The number of names taken from a segment at first, and at most. It doubles each time.
const FIRST_NAMES: u64 = 32;
const NAMES_MAX: u64 = 1024;

/// Names being listed, in the order of their bytes: an iterator, and until its first item a builder.
///
/// It sees the store as it was at its first item. Names that begin with `$` are reserved for the store. They
/// are left out, unless the prefix begins with `$` too. The cost is that of the names it returns, in each
/// segment. The first listing or prefix query of the segment being written also sorts its names, which then
/// take memory twice.
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
    active: Option<ActiveListing>,
}

/// A name and its events.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NameCount {
    /// The name.
    pub name: String,
    /// How many events carry it.
    pub events: u64,
    /// The position of the first of them.
    pub first: Position,
    /// The position of the last of them.
    pub last: Position,
}

struct ActiveListing {
    snapshot: Snapshot,
    /// One for each segment of the snapshot.
    segments: Vec<SegmentNames>,
    /// The next name of each segment that has one, with the segment's index.
    next: BinaryHeap<Reverse<(String, usize)>>,
}

/// The names of one segment.
struct SegmentNames {
    filter: NameFilter,
    /// Taken from the index and not yet listed, in order.
    taken: VecDeque<NameSummary>,
    /// The number of names to take next; 0 if the segment has no more.
    take_next: u64,
}

impl Listing {
    pub(crate) fn new(view: Result<Arc<LogView>, Error>, field: NameField) -> Listing {
        let filter = NameFilter { field, prefix: String::new(), after: None };
        Listing { view, filter, left: u64::MAX, active: None }
    }

    /// Only names that begin with this prefix (default: all).
    pub fn prefix(mut self, prefix: impl Into<String>) -> Listing {
        self.filter.prefix = prefix.into();
        self
    }

    /// Only names that come after this one (default: all). The name need not exist: give the last name of the
    /// page before.
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
        let item = self.next_name().transpose();
        if !matches!(item, Some(Ok(_))) {
            self.left = 0;
        }
        item
    }
}

impl Listing {
    fn next_name(&mut self) -> Result<Option<NameCount>, Error> {
        let active = match &mut self.active {
            Some(active) => active,
            none => {
                let snapshot = self.view.clone()?.snapshot();
                none.insert(ActiveListing::begin(snapshot, &self.filter, self.left.saturating_add(1))?)
            }
        };
        active.next()
    }
}

impl ActiveListing {
    /// Takes the first names of every segment; no more than `limit`.
    fn begin(snapshot: Snapshot, filter: &NameFilter, limit: u64) -> Result<ActiveListing, Error> {
        let names = || SegmentNames {
            filter: filter.clone(),
            taken: VecDeque::new(),
            take_next: limit.min(FIRST_NAMES),
        };
        let segments = snapshot.segments.iter().map(|_| names()).collect();
        let mut active = ActiveListing { snapshot, segments, next: BinaryHeap::new() };
        (0..active.segments.len()).try_for_each(|segment| active.push_next(segment))?;
        Ok(active)
    }

    fn next(&mut self) -> Result<Option<NameCount>, Error> {
        let Some(Reverse((name, segment))) = self.next.pop() else { return Ok(None) };
        let mut listed = self.take(segment, name)?;
        // The heap orders equal names by segment, so the last one taken has the last position.
        while self.next.peek().is_some_and(|Reverse((name, _))| *name == listed.name) {
            let Some(Reverse((name, segment))) = self.next.pop() else { break };
            let more = self.take(segment, name)?;
            listed.events += more.events;
            listed.last = more.last;
        }
        Ok(Some(listed))
    }

    /// Takes the next name of a segment, and pushes the one behind it.
    fn take(&mut self, segment: usize, name: String) -> Result<NameCount, Error> {
        let taken = self.segments[segment].taken.pop_front().expect("a pushed name was taken before");
        self.push_next(segment)?;
        let position = |ordinal| self.snapshot.segments[segment].position(ordinal).into();
        Ok(NameCount { name, events: taken.events, first: position(taken.first), last: position(taken.last) })
    }

    /// Pushes the next name of a segment to the heap, if there is one. Takes more names from the index if
    /// needed.
    fn push_next(&mut self, at: usize) -> Result<(), Error> {
        let names = &mut self.segments[at];
        if names.taken.is_empty() && names.take_next > 0 {
            let most = usize::try_from(names.take_next).expect("at most NAMES_MAX");
            let segment = &self.snapshot.segments[at];
            let window = segment.clip(&self.snapshot.positions());
            names.taken = segment.ask(|index| index.list_names(&names.filter, &window, most))?.into();
            names.filter.after = names.taken.back().map(|last| last.name.clone());
            let are_all = names.taken.len() < most;
            names.take_next = if are_all { 0 } else { (names.take_next * 2).min(NAMES_MAX) };
        }
        if let Some(next) = names.taken.front() {
            self.next.push(Reverse((next.name.clone(), at)));
        }
        Ok(())
    }
}
