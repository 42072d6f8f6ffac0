//! Causality: the causes of an event, its effects, and the branches of a stream.
//!
//! An event names its cause by id (derived or imported), or as the event before it in its stream. A cause
//! takes one look-up; effects are in the index. Imported ids can name each other in a circle, so a walk
//! remembers the events it has seen.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::sync::Arc;

use crate::event::RecordedEvent;
use crate::types::{Cause, Error, EventId, Position, Query};

use super::reader::{EventLookup, Read, event_with};
use super::view::{LogView, Snapshot};

/// The causes of an event, nearest first: an iterator over the cause, its cause, and so on.
///
/// It ends at an event that names no cause, or one that is not in the store. It also ends where a circle of
/// imported ids would begin again. It sees the store as it was at its first item.
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
    walk: CausalWalk<Option<RecordedEvent>>,
}

/// The effects of an event, their effects, and so on: an iterator in order of position.
///
/// An effect before its cause (an import may contain one) comes as soon as it is found. Each event comes
/// once; the event itself does not come. The iterator sees the store as it was at its first item.
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
    walk: CausalWalk<BinaryHeap<Reverse<Position>>>,
}

/// A walk from one event to others along causes. `N` holds where the walk continues.
struct CausalWalk<N> {
    view: Result<Arc<LogView>, Error>,
    from: EventId,
    active: Option<ActiveWalk<N>>,
    ended: bool,
}

struct ActiveWalk<N> {
    snapshot: Snapshot,
    lookup: EventLookup,
    /// The positions visited, so that the walk ends.
    seen: HashSet<Position>,
    next: N,
}

impl<N> CausalWalk<N> {
    fn new(view: Result<Arc<LogView>, Error>, from: EventId) -> CausalWalk<N> {
        CausalWalk { view, from, active: None, ended: false }
    }

    /// Begins the walk if it has not begun, and takes a step. An error ends the walk.
    fn advance(
        &mut self,
        begin: impl FnOnce(&mut EventLookup, &Snapshot, Option<RecordedEvent>) -> Result<N, Error>,
        step: impl FnOnce(&mut ActiveWalk<N>) -> Result<Option<RecordedEvent>, Error>,
    ) -> Option<Result<RecordedEvent, Error>> {
        if self.ended {
            return None;
        }
        let item = self.begin(begin).and_then(step).transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }

    /// The walk in progress, begun by the first call.
    fn begin(
        &mut self,
        begin: impl FnOnce(&mut EventLookup, &Snapshot, Option<RecordedEvent>) -> Result<N, Error>,
    ) -> Result<&mut ActiveWalk<N>, Error> {
        match &mut self.active {
            Some(active) => Ok(active),
            none => {
                let snapshot = self.view.clone()?.snapshot();
                let mut lookup = EventLookup::default();
                let first = lookup.event_with(&snapshot, self.from)?;
                let seen = first.iter().map(RecordedEvent::position).collect();
                let next = begin(&mut lookup, &snapshot, first)?;
                Ok(none.insert(ActiveWalk { snapshot, lookup, seen, next }))
            }
        }
    }
}

impl Ancestors {
    pub(crate) fn new(view: Result<Arc<LogView>, Error>, from: EventId) -> Ancestors {
        Ancestors { walk: CausalWalk::new(view, from) }
    }
}

impl Iterator for Ancestors {
    type Item = Result<RecordedEvent, Error>;

    fn next(&mut self) -> Option<Result<RecordedEvent, Error>> {
        self.walk.advance(
            |_, _, first| Ok(first),
            |active| {
                let Some(last) = active.next.take() else { return Ok(None) };
                let cause = cause_of(&mut active.lookup, &active.snapshot, &last)?;
                active.next = cause.filter(|cause| active.seen.insert(cause.position()));
                Ok(active.next.clone())
            },
        )
    }
}

impl std::iter::FusedIterator for Ancestors {}

impl Descendants {
    pub(crate) fn new(view: Result<Arc<LogView>, Error>, from: EventId) -> Descendants {
        Descendants { walk: CausalWalk::new(view, from) }
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
            |active| {
                while let Some(Reverse(position)) = active.next.pop() {
                    if !active.seen.insert(position) {
                        continue;
                    }
                    let ActiveWalk { snapshot, lookup, .. } = active;
                    if let Some(event) = lookup.event_at(snapshot, position)? {
                        let effects = effects_of(lookup, snapshot, &event)?;
                        active.next.extend(effects.into_iter().map(Reverse));
                        return Ok(Some(event));
                    }
                }
                Ok(None)
            },
        )
    }
}

impl std::iter::FusedIterator for Descendants {}

/// The event that `event` names as its cause, if it is in the store.
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
        // A recorded event has the id in place of the index.
        Some(Cause::InAppend(_)) | None => Ok(None),
    }
}

/// The positions of the events that name this one as their cause.
fn effects_of(
    lookup: &mut EventLookup,
    snapshot: &Snapshot,
    event: &RecordedEvent,
) -> Result<Vec<Position>, Error> {
    let derived = event.derived_id();
    let mut effects = snapshot.effects_of(derived)?;
    // An imported id names the first event imported with it, unless it is the derived id of some event.
    let id = event.id();
    if id != derived
        && lookup.event_with(snapshot, id)?.is_some_and(|found| found.position() == event.position())
    {
        effects.extend(snapshot.effects_of(id)?);
    }
    effects.extend(snapshot.follower_of(event.entity(), event.position())?);
    Ok(effects)
}

/// An event and its causes, as far as they belong to its entity, oldest first.
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
/// Effects mostly come after their causes. So, read backwards, an event is a leaf if no event read before
/// names it. Only the causes that are still to come have to be remembered: one for each open branch.
pub(crate) fn leaves(view: Result<Arc<LogView>, Error>, entity: &str) -> Result<Vec<EventId>, Error> {
    let view = view?;
    let snapshot = view.snapshot();
    let mut lookup = EventLookup::default();
    let mut leaves = BTreeMap::new();
    let mut causes_to_come = HashSet::new();
    for event in Read::new(Ok(view), Query::entity(entity)).backwards() {
        let event = event?;
        let position = event.position();
        if position > snapshot.head.position {
            continue;
        }
        let cause = cause_of(&mut lookup, &snapshot, &event)?;
        let cause = cause.filter(|cause| cause.entity() == entity && cause.position() != position);
        // A cause behind its effect was read already, and taken for a leaf.
        if let Some(cause) = cause
            && leaves.remove(&cause.position()).is_none()
        {
            causes_to_come.insert(cause.position());
        }
        if !causes_to_come.remove(&position) {
            leaves.insert(position, event.id());
        }
    }
    Ok(leaves.into_values().collect())
}
