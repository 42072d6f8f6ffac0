//! A story: the events of one correlation as a tree, each event below its cause.
//!
//! It is printed as a text tree, for Graphviz, for Mermaid, and as JSON. Names contain no control characters
//! but any other character. Each format escapes its own syntax, and all escape invisible characters; nothing
//! here relies on the absence of control characters.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use crate::event::RecordedEvent;
use crate::types::{Cause, Error, EventId, Position, Query, counted, micros_of, visible, visible_json};

use super::reader::{Read, event_with};
use super::view::LogView;

/// The most events of a story, by default.
pub(crate) const EVENTS_MAX: u64 = 10_000;
/// The deepest indentation of the text tree: without a limit, a chain of n events would take n * n
/// characters. Deeper lines begin with their depth.
const DEPTH_MAX: usize = 40;

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

impl fmt::Debug for StoryEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

/// A text tree: a line per event, below its cause, with the time that passed since. It is indented up to 40
/// levels; a deeper line says how deep it is.
impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = if self.is_cut { ", and there are more" } else { "" };
        writeln!(f, "story {}: {}{cut}", self.correlation, counted(self.events.len(), "event", "events"))?;
        // For each level above: whether more of its events follow.
        let mut more_follow: Vec<bool> = Vec::new();
        let mut left: Vec<(usize, StoryEvent<'_>, bool)> =
            self.roots().map(|root| (0, root, false)).collect();
        left.reverse();
        while let Some((depth, event, has_next)) = left.pop() {
            more_follow.truncate(depth.saturating_sub(1));
            if depth > 0 {
                for level in more_follow.iter().take(DEPTH_MAX) {
                    f.write_str(if *level { "│  " } else { "   " })?;
                }
                f.write_str(if has_next { "├─ " } else { "└─ " })?;
                more_follow.push(has_next);
            }
            if depth > DEPTH_MAX {
                write!(f, "[{depth}] ")?;
            }
            writeln!(f, "{}", EventLine(event))?;
            let below = event.effects().rev().enumerate();
            left.extend(below.map(|(place, effect)| (depth + 1, effect, place > 0)));
        }
        Ok(())
    }
}

/// One event, without its indentation.
struct EventLine<'a>(StoryEvent<'a>);

impl fmt::Display for EventLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(gap) = self.0.gap() {
            write!(f, "+{} ", duration(gap))?;
        }
        let event = self.0.event();
        let entity = line(event.entity());
        let kind = line(event.kind());
        write!(f, "{entity} v{} {kind} @{}", event.version(), event.position())
    }
}

impl Story {
    /// A graph for Graphviz: `dot -Tsvg`.
    ///
    /// ```
    /// # use annals::{Raw, Store};
    /// # let store = Store::in_memory()?;
    /// let placed = store.append("order:1", &Raw("order.placed", &()))?.ids().next().unwrap();
    /// let graph = store.story(placed)?.to_dot();
    /// assert!(graph.starts_with("digraph story {") && graph.contains("order.placed"));
    /// # Ok::<(), annals::Error>(())
    /// ```
    #[must_use]
    pub fn to_dot(&self) -> String {
        let field = |event: &RecordedEvent| {
            let entity = dot(event.entity());
            let kind = dot(event.kind());
            format!("{kind}\\n{entity} v{} @{}", event.version(), event.position())
        };
        let mut out = "digraph story {\n  node [shape=box];\n".to_owned();
        for event in self.events() {
            let position = event.event().position();
            add(&mut out, format_args!("  e{position} [label=\"{}\"];\n", field(event.event())));
            if let (Some(cause), Some(gap)) = (event.cause(), event.gap()) {
                let cause = cause.event().position();
                let gap = duration(gap);
                add(&mut out, format_args!("  e{cause} -> e{position} [label=\"+{gap}\"];\n"));
            }
        }
        out + "}\n"
    }

    /// A flowchart for Mermaid, which many wikis and forges draw.
    ///
    /// ```
    /// # use annals::{Raw, Store};
    /// # let store = Store::in_memory()?;
    /// let placed = store.append("order:1", &Raw("order.placed", &()))?.ids().next().unwrap();
    /// let chart = store.story(placed)?.to_mermaid();
    /// assert_eq!(chart, "flowchart TD\n  e1[\"order.placed<br/>order:1 v1 #64;1\"]\n");
    /// # Ok::<(), annals::Error>(())
    /// ```
    #[must_use]
    pub fn to_mermaid(&self) -> String {
        let mut out = "flowchart TD\n".to_owned();
        for event in self.events() {
            let recorded = event.event();
            let position = recorded.position();
            let kind = mermaid(recorded.kind());
            let place = format!("{} v{} @{position}", recorded.entity(), recorded.version());
            add(&mut out, format_args!("  e{position}[\"{kind}<br/>{}\"]\n", mermaid(&place)));
            if let (Some(cause), Some(gap)) = (event.cause(), event.gap()) {
                let cause = cause.event().position();
                let gap = duration(gap);
                add(&mut out, format_args!("  e{cause} -->|\"+{gap}\"| e{position}\n"));
            }
        }
        out
    }

    /// A JSON object: `correlation`, `is_cut`, and `events` in order of position. Payloads are left out. Each
    /// event has:
    ///
    /// - `position`, `id`, `entity`, `version`, `scope`, `kind` and `tags`;
    /// - `recorded_at_micros` and `occurred_at_micros`, since 1970; the second may be null;
    /// - `cause` (the position of its cause) and `gap_micros`, both null for roots.
    ///
    /// ```
    /// # use annals::{Raw, Store};
    /// # let store = Store::in_memory()?;
    /// let placed = store.append("order:1", &Raw("order.placed", &()))?.ids().next().unwrap();
    /// let json: serde_json::Value = serde_json::from_str(&store.story(placed)?.to_json()).unwrap();
    /// assert_eq!(json["events"][0]["kind"], "order.placed");
    /// # Ok::<(), annals::Error>(())
    /// ```
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out =
            format!("{{\"correlation\":\"{}\",\"is_cut\":{},\"events\":[", self.correlation, self.is_cut);
        for (number, event) in self.events().enumerate() {
            out.push_str(if number > 0 { ",\n" } else { "\n" });
            add_json(&mut out, event);
        }
        out + "\n]}\n"
    }
}

fn add_json(out: &mut String, story_event: StoryEvent<'_>) {
    let event = story_event.event();
    let position = event.position();
    let version = event.version();
    let or_null = |number: Option<String>| number.unwrap_or_else(|| "null".to_owned());
    let id = event.id();
    let entity = json(event.entity());
    let kind = json(event.kind());
    let scope = json(event.scope());
    let tags: Vec<String> = event.tags().map(|tag| format!("\"{}\"", json(tag))).collect();
    let tags = tags.join(",");
    let recorded = micros_of(event.recorded_at());
    let occurred = or_null(event.occurred_at().map(|time| micros_of(time).to_string()));
    let cause = or_null(story_event.cause().map(|cause| cause.event().position().to_string()));
    let gap = or_null(story_event.gap().map(|gap| gap.as_micros().to_string()));
    add(
        out,
        format_args!(
            "{{\"position\":{position},\"id\":\"{id}\",\"entity\":\"{entity}\",\"version\":{version},\
             \"scope\":\"{scope}\",\"kind\":\"{kind}\",\"tags\":[{tags}],\"recorded_at_micros\":{recorded},\
             \"occurred_at_micros\":{occurred},\"cause\":{cause},\"gap_micros\":{gap}}}"
        ),
    );
}

fn add(out: &mut String, piece: fmt::Arguments<'_>) {
    out.write_fmt(piece).expect("writing to a string cannot fail");
}

/// Text for a JSON string, without the quotes.
fn json(text: &str) -> String {
    let escaped = replaced(text, |character, out| match character {
        '"' => out.write_str("\\\""),
        '\\' => out.write_str("\\\\"),
        character if u32::from(character) < 0x20 => write!(out, "\\u{:04x}", u32::from(character)),
        character => out.write_char(character),
    });
    visible_json(&escaped).into_owned()
}

/// Text for a quoted string of Graphviz's DOT, which reads backslashes and the entities of HTML.
fn dot(text: &str) -> String {
    replaced(&line(text), |character, out| match character {
        '"' => out.write_str("\\\""),
        '\\' => out.write_str("\\\\"),
        '&' => out.write_str("&amp;"),
        character => out.write_char(character),
    })
}

/// Text for a quoted label of Mermaid, which reads HTML, Markdown, directives, and some words that end in a
/// colon. Only characters without a meaning there stay as they are.
fn mermaid(text: &str) -> String {
    let text = line(text);
    let has_word = ["style", "classDef"].iter().any(|word| text.contains(word));
    replaced(&text, |character, out| match character {
        ':' if !has_word => out.write_char(character),
        ' ' | '.' | '-' | '/' | ',' | '+' => out.write_char(character),
        character if character.is_alphanumeric() => out.write_char(character),
        character => write!(out, "#{};", u32::from(character)),
    })
}

/// Text for a line of a terminal.
fn line(text: &str) -> String {
    visible(text).replace('\n', "\\u{a}")
}

fn replaced(text: &str, mut write: impl FnMut(char, &mut String) -> fmt::Result) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars()
        .try_for_each(|character| write(character, &mut out))
        .expect("writing to a string cannot fail");
    out
}

/// A readable duration: at most two units, `1m 5s`, or one with a fraction, `1.5ms`.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let micros = time.subsec_micros();
    match (seconds, micros) {
        (0, 0) => "0s".to_owned(),
        (0, ..1000) => format!("{micros}us"),
        (0, _) => fraction(time.as_micros(), 1000, "ms"),
        (..60, _) => fraction(time.as_millis(), 1000, "s"),
        (..3_600, _) => format!("{}m {}s", seconds / 60, seconds % 60),
        (..86_400, _) => format!("{}h {}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// A fraction with at most three decimals.
fn fraction(parts: u128, per_unit: u128, unit: &str) -> String {
    let digits = format!("{}.{:03}", parts / per_unit, parts % per_unit);
    format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.'))
}
