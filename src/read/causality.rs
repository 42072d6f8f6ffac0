//! What brought an event about, and what it brought about.
//!
//! An event names its cause by id, derived or brought along, or as the event before it in its stream.
//! The way back is one look-up per step; the way forward is in the index. Ids that were
//! brought along can name each other in a circle, so whoever walks remembers where it was.
//! Row: reader.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::sync::Arc;

use crate::event::RecordedEvent;
use crate::read::reader::{EventLookup, Read, event_with};
use crate::read::view::{Snapshot, LogView};
use crate::types::{Cause, Error, EventId, Position, Query};

/// The causes of an event, nearest first: an iterator over the cause, its cause, and so on.
///
/// It ends at an event that names no cause, or one that is not in the store; and where a circle of
/// ids that were brought along would begin again. It sees the store as it was at its first item.
///
/// ```
/// use annals::{Append, Raw, Store};
///
/// let store = Store::in_memory()?;
/// let placed = store.append("order:1", &Raw("order.placed", &()))?.ids().next().unwrap();
/// let placed = store.get(placed)?.unwrap();
/// let paid = Append::to("payment:9").event(&Raw("payment.taken", &20)).caused_by(&placed).commit(&store)?;
/// let paid = store.get(paid.ids().next().unwrap())?.unwrap();
/// let sent = Append::to("mail:3").event(&Raw("mail.sent", &())).caused_by(&paid).commit(&store)?;
///
/// let causes: Vec<String> = store
///     .ancestors(sent.ids().next().unwrap())
///     .map(|event| Ok(event?.kind().to_owned()))
///     .collect::<Result<_, annals::Error>>()?;
/// assert_eq!(causes, ["payment.taken", "order.placed"]);
/// # Ok::<(), annals::Error>(())
/// ```
#[must_use = "nothing is looked up until it is iterated"]
pub struct Ancestors {
    walk: Walk<Option<RecordedEvent>>,
}

/// The effects of an event, their effects, and so on: an iterator in order of position.
///
/// An effect that stands before its cause (an import may bring such) comes as soon as it is found.
/// Each event comes once, the one asked for does not come. It sees the store as it was at its first item.
///
/// ```
/// use annals::{Append, Cause, Raw, Store};
///
/// let store = Store::in_memory()?;
/// let order = Append::to("order:1").event(&Raw("order.placed", &())).event(&Raw("order.paid", &()));
/// let placed = order.cause(Cause::PreviousInStream).commit(&store)?.ids().next().unwrap();
/// let effects: Vec<String> = store
///     .descendants(placed)
///     .map(|event| Ok(event?.kind().to_owned()))
///     .collect::<Result<_, annals::Error>>()?;
/// assert_eq!(effects, ["order.paid"]);
/// # Ok::<(), annals::Error>(())
/// ```
#[must_use = "nothing is looked up until it is iterated"]
pub struct Descendants {
    walk: Walk<BinaryHeap<Reverse<Position>>>,
}

/// From one event to others; `N` says where to go next.
struct Walk<N> {
    view: Result<Arc<LogView>, Error>,
    from: EventId,
    progress: Option<Progress<N>>,
    ended: bool,
}

struct Progress<N> {
    snapshot: Snapshot,
    lookup: EventLookup,
    /// Where it was already, so that it ends.
    seen: HashSet<Position>,
    next: N,
}

impl<N> Walk<N> {
    fn new(view: Result<Arc<LogView>, Error>, from: EventId) -> Walk<N> {
        Walk { view, from, progress: None, ended: false }
    }

    /// Begins if it has not begun, and takes a step; an error ends it.
    fn advance(
        &mut self,
        begin: impl FnOnce(&mut EventLookup, &Snapshot, Option<RecordedEvent>) -> Result<N, Error>,
        step: impl FnOnce(&mut Progress<N>) -> Result<Option<RecordedEvent>, Error>,
    ) -> Option<Result<RecordedEvent, Error>> {
        if self.ended {
            return None;
        }
        let item = self.begun(begin).and_then(step).transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }

    fn begun(
        &mut self,
        begin: impl FnOnce(&mut EventLookup, &Snapshot, Option<RecordedEvent>) -> Result<N, Error>,
    ) -> Result<&mut Progress<N>, Error> {
        match &mut self.progress {
            Some(progress) => Ok(progress),
            empty => {
                let snapshot = self.view.clone()?.snapshot();
                let mut lookup = EventLookup::default();
                let first = lookup.event_with(&snapshot, self.from)?;
                let seen = first.iter().map(RecordedEvent::position).collect();
                let next = begin(&mut lookup, &snapshot, first)?;
                Ok(empty.insert(Progress { snapshot, lookup, seen, next }))
            }
        }
    }
}

impl Ancestors {
    pub(crate) fn new(view: Result<Arc<LogView>, Error>, from: EventId) -> Ancestors {
        Ancestors { walk: Walk::new(view, from) }
    }
}

impl Iterator for Ancestors {
    type Item = Result<RecordedEvent, Error>;

    fn next(&mut self) -> Option<Result<RecordedEvent, Error>> {
        self.walk.advance(
            |_, _, first| Ok(first),
            |progress| {
                let Some(last) = progress.next.take() else { return Ok(None) };
                let cause = cause_of(&mut progress.lookup, &progress.snapshot, &last)?;
                progress.next = cause.filter(|cause| progress.seen.insert(cause.position()));
                Ok(progress.next.clone())
            },
        )
    }
}

impl std::iter::FusedIterator for Ancestors {}

impl Descendants {
    pub(crate) fn new(view: Result<Arc<LogView>, Error>, from: EventId) -> Descendants {
        Descendants { walk: Walk::new(view, from) }
    }
}

impl Iterator for Descendants {
    type Item = Result<RecordedEvent, Error>;

    fn next(&mut self) -> Option<Result<RecordedEvent, Error>> {
        self.walk.advance(
            |lookup, snapshot, first| match first {
                Some(first) => Ok(effects_of(lookup, snapshot, &first)?.into_iter().map(Reverse).collect()),
                None => Ok(BinaryHeap::new()),
            },
            |progress| {
                while let Some(Reverse(position)) = progress.next.pop() {
                    if !progress.seen.insert(position) {
                        continue;
                    }
                    let Progress { snapshot, lookup, .. } = progress;
                    if let Some(event) = lookup.event_at(snapshot, position)? {
                        let effects = effects_of(lookup, snapshot, &event)?;
                        progress.next.extend(effects.into_iter().map(Reverse));
                        return Ok(Some(event));
                    }
                }
                Ok(None)
            },
        )
    }
}

impl std::iter::FusedIterator for Descendants {}

/// The event that another names as its cause, if it is in the store.
pub(crate) fn cause_of(
    lookup: &mut EventLookup,
    snapshot: &Snapshot,
    event: &RecordedEvent,
) -> Result<Option<RecordedEvent>, Error> {
    match event.cause_by_either_id() {
        Some(Cause::Event(id)) => lookup.event_with(snapshot, id),
        Some(Cause::PreviousInStream) => {
            let before = Position::from(event.position().get() - 1);
            lookup.event_at(snapshot, snapshot.stream_head_at(event.entity(), before)?.1)
        }
        // A recorded event says the id instead.
        Some(Cause::InAppend(_)) | None => Ok(None),
    }
}

/// The positions of the events whose cause this one is.
fn effects_of(lookup: &mut EventLookup, snapshot: &Snapshot, event: &RecordedEvent) -> Result<Vec<Position>, Error> {
    let derived = event.derived_id();
    let mut effects = snapshot.effects_of(derived)?;
    // An id that was brought along finds the first event that brought it, unless it is some event's
    // derived one.
    let id = event.id();
    if id != derived
        && lookup.event_with(snapshot, id)?.is_some_and(|found| found.position() == event.position())
    {
        effects.extend(snapshot.effects_of(id)?);
    }
    effects.extend(snapshot.follower_of(event.entity(), event.position())?);
    Ok(effects)
}

/// An event and its causes as long as they are of its entity, oldest first.
pub(crate) fn path(view: Result<Arc<LogView>, Error>, leaf: EventId) -> Result<Vec<RecordedEvent>, Error> {
    let Some(leaf) = event_with(&view.clone()?.snapshot(), leaf)? else { return Ok(Vec::new()) };
    let mut path = vec![leaf.clone()];
    for cause in Ancestors::new(view, leaf.derived_id()) {
        let cause = cause?;
        if cause.entity() != leaf.entity() {
            break;
        }
        path.push(cause);
    }
    path.reverse();
    Ok(path)
}

/// The ids of the events of an entity that no other event of it names as its cause, oldest first.
///
/// Effects mostly come after their causes. So, read backwards, an event is a leaf if nothing that was read names it;
/// what has to be remembered is causes that are still to come, one for each open branch.
pub(crate) fn leaves(view: Result<Arc<LogView>, Error>, entity: &str) -> Result<Vec<EventId>, Error> {
    let view = view?;
    let (snapshot, mut lookup) = (view.snapshot(), EventLookup::default());
    let (mut leaves, mut to_come) = (BTreeMap::new(), HashSet::new());
    for event in Read::new(Ok(view), Query::entity(entity)).backwards() {
        let event = event?;
        let position = event.position();
        if position > snapshot.head.position {
            continue;
        }
        let cause = cause_of(&mut lookup, &snapshot, &event)?;
        let cause = cause.filter(|cause| cause.entity() == entity && cause.position() != position);
        // A cause that stands behind its effect was taken for a leaf.
        if let Some(cause) = cause
            && leaves.remove(&cause.position()).is_none()
        {
            to_come.insert(cause.position());
        }
        if !to_come.remove(&position) {
            leaves.insert(position, event.id());
        }
    }
    Ok(leaves.into_values().collect())
}
