//! A story written down: as a text tree, for Graphviz, for Mermaid, as JSON.
//!
//! Row: reader.

use std::fmt::{self, Write};

use crate::event::RecordedEvent;
use crate::types::{counted, micros_of};

use super::text::{dot, duration, json, line, mermaid};
use super::{Story, StoryEvent};

/// How deep the text tree is indented at most: without an end, a chain of n events would take n * n
/// signs. What lies deeper says how deep.
const DEPTH_MAX: usize = 40;

/// A text tree: a line per event, below its cause, with the time that passed since.
impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = if self.is_cut { ", and there are more" } else { "" };
        writeln!(f, "story {}: {}{cut}", self.correlation, counted(self.events.len(), "event", "events"))?;
        // Whether each level above has more to come.
        let mut goes_on: Vec<bool> = Vec::new();
        let mut left: Vec<(usize, StoryEvent<'_>, bool)> =
            self.roots().map(|root| (0, root, false)).collect();
        left.reverse();
        while let Some((depth, event, has_next)) = left.pop() {
            goes_on.truncate(depth.saturating_sub(1));
            if depth > 0 {
                for level in goes_on.iter().take(DEPTH_MAX) {
                    f.write_str(if *level { "│  " } else { "   " })?;
                }
                f.write_str(if has_next { "├─ " } else { "└─ " })?;
                goes_on.push(has_next);
            }
            if depth > DEPTH_MAX {
                write!(f, "[{depth}] ")?;
            }
            writeln!(f, "{}", Line(event))?;
            let below = event.effects().rev().enumerate();
            left.extend(below.map(|(place, effect)| (depth + 1, effect, place > 0)));
        }
        Ok(())
    }
}

/// One event, without where it stands in the tree.
struct Line<'a>(StoryEvent<'a>);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(gap) = self.0.gap() {
            write!(f, "+{} ", duration(gap))?;
        }
        let event = self.0.event();
        let (entity, kind) = (line(event.entity()), line(event.kind()));
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
            let (entity, kind) = (dot(event.entity()), dot(event.kind()));
            format!("{kind}\\n{entity} v{} @{}", event.version(), event.position())
        };
        let mut out = "digraph story {\n  node [shape=box];\n".to_owned();
        for event in self.events() {
            let position = event.event().position();
            add(&mut out, format_args!("  e{position} [label=\"{}\"];\n", field(event.event())));
            if let (Some(cause), Some(gap)) = (event.cause(), event.gap()) {
                let (cause, gap) = (cause.event().position(), duration(gap));
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
            let RecordedFields { entity, kind, version, position } = fields(event.event());
            let (kind, place) = (mermaid(kind), mermaid(&format!("{entity} v{version} @{position}")));
            add(&mut out, format_args!("  e{position}[\"{kind}<br/>{place}\"]\n"));
            if let (Some(cause), Some(gap)) = (event.cause(), event.gap()) {
                let (cause, gap) = (cause.event().position(), duration(gap));
                add(&mut out, format_args!("  e{cause} -->|\"+{gap}\"| e{position}\n"));
            }
        }
        out
    }

    /// A JSON object: `correlation`, `is_cut`, and `events` in order of position, each with `position`,
    /// `id`, `entity`, `version`, `scope`, `kind`, `tags`, `recorded_at_micros` and
    /// `occurred_at_micros` (since 1970, the second may be null), and `cause` (the position of
    /// its cause) and `gap_micros`, both null for roots. Payloads are left out.
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
    let RecordedFields { entity, kind, version, position } = fields(event);
    let or_null = |number: Option<String>| number.unwrap_or_else(|| "null".to_owned());
    let (id, entity, kind, scope) = (event.id(), json(entity), json(kind), json(event.scope()));
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

struct RecordedFields<'a> {
    entity: &'a str,
    kind: &'a str,
    version: u64,
    position: u64,
}

fn fields(event: &RecordedEvent) -> RecordedFields<'_> {
    RecordedFields {
        entity: event.entity(),
        kind: event.kind(),
        version: event.version().get(),
        position: event.position().get(),
    }
}

fn add(out: &mut String, piece: fmt::Arguments<'_>) {
    out.write_fmt(piece).expect("a string takes everything");
}
