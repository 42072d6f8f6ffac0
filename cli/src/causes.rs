//! What brought what about.

use annals::{EventId, RecordedEvent, Store};

use crate::args::{Leaves, Related, Story, StoryForm};
use crate::failure::{Done, Failure};
use crate::output::{Form, Output};
use crate::place::Place;
use crate::read::find;
use crate::values::Which;

pub fn story(story: Story, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    let store = place.to_read()?;
    let correlation = correlation(&store, story.correlation)?;
    let told = store.story_limited(correlation, story.limit)?;
    if told.events().len() == 0 {
        return Err(Failure::no(format!("no event belongs to {correlation}")));
    }
    out.text(&match (out.form(), story.form) {
        (Form::Json, _) => told.to_json(),
        (_, StoryForm::Text) => told.to_string(),
        (_, StoryForm::Dot) => told.to_dot(),
        (_, StoryForm::Mermaid) => told.to_mermaid(),
    })?;
    Ok(Done::Yes)
}

/// A correlation need not be the id of an event.
fn correlation(store: &Store, which: Which) -> Result<EventId, Failure> {
    match which {
        Which::Id(id) => Ok(store.get(id)?.map_or(id, |event| event.correlation())),
        Which::At(_) => Ok(find(store, which)?.correlation()),
    }
}

pub fn ancestors(related: Related, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    let store = place.to_read()?;
    let event = find(&store, related.event)?;
    show(store.ancestors(event.id()), related.limit, out)
}

pub fn descendants(related: Related, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    let store = place.to_read()?;
    let event = find(&store, related.event)?;
    show(store.descendants(event.id()), related.limit, out)
}

pub fn path(related: Related, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    let store = place.to_read()?;
    let event = find(&store, related.event)?;
    show(store.path(event.id())?.into_iter().map(Ok), related.limit, out)
}

pub fn leaves(leaves: &Leaves, place: &Place, out: &mut Output) -> Result<Done, Failure> {
    let store = place.to_read()?;
    for id in store.leaves(&leaves.entity)? {
        out.event(&find(&store, Which::Id(id))?)?;
    }
    Ok(Done::Yes)
}

fn show(
    mut events: impl Iterator<Item = Result<RecordedEvent, annals::Error>>,
    limit: Option<u64>,
    out: &mut Output,
) -> Result<Done, Failure> {
    let mut left = limit.unwrap_or(u64::MAX);
    while left > 0
        && let Some(event) = events.next()
    {
        out.event(&event?)?;
        left -= 1;
    }
    Ok(Done::Yes)
}
