//! Prints a story: as a text tree, for Graphviz, for Mermaid, as JSON.
//!
//! Names contain no control characters but any other character. Each format escapes its own syntax, and all
//! escape invisible characters; nothing here relies on the absence of control characters.

use std::fmt::{self, Write};
use std::time::Duration;

use crate::event::RecordedEvent;
use crate::types::{counted, micros_of, visible, visible_json};

use super::{Story, StoryEvent};

/// The deepest indentation of the text tree: without a limit, a chain of n events would take n * n
/// characters. Deeper lines begin with their depth.
const DEPTH_MAX: usize = 40;

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
