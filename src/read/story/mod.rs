//! A story: the events of one correlation as a tree, each event below its cause.
//!
//! `render` prints it in four formats.

mod render;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::event::RecordedEvent;
use crate::read::reader::{Read, event_with};
use crate::read::view::LogView;
use crate::types::{Cause, Error, EventId, Position, Query};

/// The most events of a story, by default.
pub(crate) const EVENTS_MAX: u64 = 10_000;

/// All events of one correlation, as a tree by cause.
///
/// An event is a root if it names no cause, or one that is not in the story. If events name each other in a
/// circle (imported ids can do so), the earliest event of the circle is a root. `Display` prints a text tree,
/// with the time that passed between cause and effect.
///
/// ```
/// use annals::{Append, Cause, Raw, Store};
///
/// let store = Store::in_memory()?;
/// let order = Append::to("order:1").event(&Raw("order.placed", &()));
/// let order = order.and_to("stock:4").event(&Raw("stock.reserved", &2)).cause(Cause::InAppend(0));
/// let correlation = order.commit(&store)?.ids().next().unwrap();
///
/// let story = store.story(correlation)?;
/// let placed = story.roots().next().unwrap();
/// assert_eq!(placed.event().kind(), "order.placed");
/// assert_eq!(placed.effects().next().unwrap().event().kind(), "stock.reserved");
/// assert!(story.to_string().ends_with("└─ +0s stock:4 v1 stock.reserved @2\n"));
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Story {
    correlation: EventId,
    events: Vec<RecordedEvent>,
    /// The cause of each event, as an index into `events`.
    causes: Vec<Option<usize>>,
    /// The effects of each event, in order.
    effects: Vec<Vec<usize>>,
    is_cut: bool,
}

/// One event of a story, with its cause and its effects.
#[derive(Clone, Copy)]
pub struct StoryEvent<'a> {
    story: &'a Story,
    at: usize,
}

impl Story {
    pub(crate) fn read(
        view: Result<Arc<LogView>, Error>,
        correlation: EventId,
        events_max: u64,
    ) -> Result<Story, Error> {
        let read = Read::new(view.clone(), Query::correlation(correlation));
        let mut events =
            read.limit(events_max.saturating_add(1)).collect::<Result<Vec<RecordedEvent>, Error>>()?;
        let most = usize::try_from(events_max).unwrap_or(usize::MAX);
        let is_cut = events.len() > most;
        events.truncate(most);
        let snapshot = view?.snapshot();
        // By the id that the event shows, also if the other one was asked for.
        let correlation = event_with(&snapshot, correlation)?.map_or(correlation, |event| event.id());
        let is_first = |id: EventId, event: &RecordedEvent| {
            Ok(snapshot.foreign_since(id, Position::START)? == Some(event.position()))
        };
        let causes = without_circles(causes(&events, is_first)?);
        let mut effects = vec![Vec::new(); events.len()];
        for (effect, cause) in causes.iter().enumerate() {
            if let Some(cause) = cause {
                effects[*cause].push(effect);
            }
        }
        Ok(Story { correlation, events, causes, effects, is_cut })
    }

    /// The correlation whose story it is.
    #[must_use]
    pub fn correlation(&self) -> EventId {
        self.correlation
    }

    /// Whether the correlation has more events than the limit of the story. The story has the first ones.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// All its events, in order of position.
    pub fn events(&self) -> impl ExactSizeIterator<Item = StoryEvent<'_>> + Clone {
        (0..self.events.len()).map(|at| StoryEvent { story: self, at })
    }

    /// The events without a cause in the story, in order of position.
    pub fn roots(&self) -> impl Iterator<Item = StoryEvent<'_>> + Clone {
        self.events().filter(|event| event.cause().is_none())
    }
}

impl<'a> StoryEvent<'a> {
    /// The event itself.
    #[must_use]
    pub fn event(&self) -> &'a RecordedEvent {
        &self.story.events[self.at]
    }

    /// Its cause; `None` for a root.
    #[must_use]
    pub fn cause(&self) -> Option<StoryEvent<'a>> {
        self.story.causes[self.at].map(|at| StoryEvent { story: self.story, at })
    }

    /// Its effects, in order of position.
    pub fn effects(&self) -> impl DoubleEndedIterator<Item = StoryEvent<'a>> + Clone + use<'a> {
        let story = self.story;
        story.effects[self.at].iter().map(move |at| StoryEvent { story, at: *at })
    }

    /// The time between the recording of its cause and its own. `None` for a root; zero if the cause comes
    /// after it.
    #[must_use]
    pub fn gap(&self) -> Option<Duration> {
        let cause = self.cause()?.event().recorded_at();
        Some(self.event().recorded_at().duration_since(cause).unwrap_or_default())
    }
}

impl std::fmt::Debug for StoryEvent<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoryEvent").field("event", self.event()).field("gap", &self.gap()).finish()
    }
}

/// The cause of each event, as an index. `is_first` tells whether an imported id names this event: the first
/// event of the store that was imported with it.
fn causes(
    events: &[RecordedEvent],
    is_first: impl Fn(EventId, &RecordedEvent) -> Result<bool, Error>,
) -> Result<Vec<Option<usize>>, Error> {
    let mut by_id: HashMap<EventId, usize> = HashMap::new();
    let mut by_version = HashMap::new();
    for (at, event) in events.iter().enumerate() {
        by_id.insert(event.derived_id(), at);
        by_version.insert((event.entity(), event.version().get()), at);
    }
    for (at, event) in events.iter().enumerate() {
        if event.id() != event.derived_id() && is_first(event.id(), event)? {
            by_id.entry(event.id()).or_insert(at);
        }
    }
    let cause = |event: &RecordedEvent| match event.cause_by_either_id()? {
        Cause::Event(id) => by_id.get(&id).copied(),
        Cause::PreviousInStream => {
            by_version.get(&(event.entity(), event.version().get().checked_sub(1)?)).copied()
        }
        // A recorded event has the id in place of the index.
        Cause::InAppend(_) => None,
    };
    Ok(events.iter().map(cause).collect())
}

/// Breaks circles: the earliest event of each circle loses its cause.
fn without_circles(mut causes: Vec<Option<usize>>) -> Vec<Option<usize>> {
    // The walk towards the causes that met an event first; 0 for none yet.
    let mut met = vec![0; causes.len()];
    for start in 0..causes.len() {
        let walk = start + 1;
        let mut at = start;
        while met[at] == 0 {
            met[at] = walk;
            match causes[at] {
                Some(cause) => at = cause,
                None => break,
            }
        }
        if met[at] != walk || causes[at].is_none() {
            continue;
        }
        // The walk came back to an event of its own: go once around the circle.
        let end = at;
        let mut earliest = at;
        while let Some(cause) = causes[at].filter(|cause| *cause != end) {
            at = cause;
            earliest = earliest.min(at);
        }
        causes[earliest] = None;
    }
    causes
}
