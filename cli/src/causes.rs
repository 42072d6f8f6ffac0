//! `annals story`, `ancestors`, `descendants`, `path` and `leaves`: which events caused which.

use annals::{EventId, RecordedEvent, Store};

use crate::args::{Leaves, Related, Story, StoryForm};
use crate::failure::{Answer, Failure};
use crate::output::{Format, Output};
use crate::read::find;
use crate::target::Target;
use crate::values::EventRef;

pub fn story(story: Story, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    let store = target.to_read()?;
    let correlation = correlation(&store, story.correlation)?;
    let tree = store.story_limited(correlation, story.limit)?;
    if tree.events().len() == 0 {
        return Err(Failure::no(format!("no event belongs to {correlation}")));
    }
    out.text(&match (out.format(), story.form) {
        (Format::Json, _) => tree.to_json(),
        (_, StoryForm::Text) => tree.to_string(),
        (_, StoryForm::Dot) => tree.to_dot(),
        (_, StoryForm::Mermaid) => tree.to_mermaid(),
    })?;
    Ok(Answer::Yes)
}

/// The correlation of an event. An id that belongs to no event is a correlation itself.
fn correlation(store: &Store, which: EventRef) -> Result<EventId, Failure> {
    match which {
        EventRef::Id(id) => Ok(store.get(id)?.map_or(id, |event| event.correlation())),
        EventRef::At(_) => Ok(find(store, which)?.correlation()),
    }
}

pub fn ancestors(related: Related, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    let store = target.to_read()?;
    let event = find(&store, related.event)?;
    show(store.ancestors(event.id()), related.limit, out)
}

pub fn descendants(related: Related, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    let store = target.to_read()?;
    let event = find(&store, related.event)?;
    show(store.descendants(event.id()), related.limit, out)
}

pub fn path(related: Related, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    let store = target.to_read()?;
    let event = find(&store, related.event)?;
    show(store.path(event.id())?.into_iter().map(Ok), related.limit, out)
}

pub fn leaves(leaves: &Leaves, target: &Target, out: &mut Output) -> Result<Answer, Failure> {
    let store = target.to_read()?;
    for id in store.leaves(&leaves.entity)? {
        out.event(&find(&store, EventRef::Id(id))?)?;
    }
    Ok(Answer::Yes)
}

fn show(
    mut events: impl Iterator<Item = Result<RecordedEvent, annals::Error>>,
    limit: Option<u64>,
    out: &mut Output,
) -> Result<Answer, Failure> {
    let mut left = limit.unwrap_or(u64::MAX);
    while left > 0
        && let Some(event) = events.next()
    {
        out.event(&event?)?;
        left -= 1;
    }
    Ok(Answer::Yes)
}
