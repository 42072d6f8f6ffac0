//! Events that came in, put together to appends.
//!
//! Row: app.

use super::line::{Content, Incoming, Place};
use crate::engine::Append;
use crate::types::{Cause, Error, EventData, Expected, Version, time_of};

/// Whether streams must be where the lines say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Versions {
    Kept,
    Assigned,
}

/// An append whose lines are coming in.
pub(super) struct Opened {
    pub(super) append: Append,
    /// How many of its events are here, and how many there are.
    have: u32,
    of: u32,
    /// The last version of each entity, of a few.
    last: Vec<(String, u64)>,
    /// Of its last event, as the source has them.
    pub(super) position: u64,
    pub(super) recorded_at: i64,
}

impl Opened {
    pub(super) fn new() -> Opened {
        Opened { append: Append::empty(), have: 0, of: 1, last: Vec::new(), position: 0, recorded_at: 0 }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.have == self.of
    }

    /// Why the lines that follow cannot be those of this append.
    pub(super) fn is_cut(&self) -> Error {
        Error::invalid(format!(
            "the append has {} events, but only {} follow one another",
            self.of, self.have
        ))
    }

    /// With one more event.
    pub(super) fn with(mut self, event: Incoming, versions: Versions) -> Result<Opened, Error> {
        let Place(number, of) = event.place;
        if number != self.have || of <= number || (number > 0 && of != self.of) {
            return Err(Error::invalid(format!(
                "it is event {number} of {of} in its append, which does not follow the line before it"
            )));
        }
        (self.have, self.of) = (number.saturating_add(1), of);
        (self.position, self.recorded_at) = (event.position, event.recorded_at);
        let expected = match versions {
            Versions::Kept => self.expected(&event)?,
            Versions::Assigned => None,
        };
        self.append = add(self.append, event, expected);
        Ok(self)
    }

    /// What to expect of the event's stream, if it is the first for it in this append and says which version it has.
    fn expected(&mut self, event: &Incoming) -> Result<Option<Expected>, Error> {
        let Some(before) = event.version.checked_sub(1) else { return Ok(None) };
        match self.last.iter_mut().find(|(entity, _)| *entity == event.entity) {
            Some((_, last)) if *last == before => {
                *last = event.version;
                Ok(None)
            }
            Some((entity, last)) => Err(Error::invalid(format!(
                "{entity} goes from version {last} to {} within an append; import it with new versions (renumber)",
                event.version
            ))),
            None => {
                self.last.push((event.entity.clone(), event.version));
                Ok(Some(Expected::Exact(Version::from(before))))
            }
        }
    }
}

fn add(append: Append, event: Incoming, expected: Option<Expected>) -> Append {
    let (payload, erased) = match event.content {
        Content::Payload(payload) => (payload, None),
        Content::Erased(hash) => (Vec::new(), Some(hash)),
    };
    let append = append.and_to((event.entity, event.scope));
    let append = expected.into_iter().fold(append, Append::expect);
    let append = append.event(&Encoded { kind: &event.kind, version: event.schema_version, payload });
    let append = append.encoded_metadata(event.metadata);
    let append = event.tags.into_iter().fold(append, Append::tag);
    let append = event.id.into_iter().fold(append, Append::foreign_id);
    let append = event.correlation.into_iter().fold(append, Append::correlation);
    let append = event.cause.into_iter().map(Cause::Event).fold(append, Append::cause);
    let append = event.occurred_at.into_iter().map(time_of).fold(append, Append::occurred_at);
    erased.into_iter().fold(append, Append::erased)
}

/// An event whose payload was encoded before.
struct Encoded<'a> {
    kind: &'a str,
    version: u16,
    payload: Vec<u8>,
}

impl EventData for Encoded<'_> {
    fn kind(&self) -> &str {
        self.kind
    }

    fn schema_version(&self) -> u16 {
        self.version
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        out.extend_from_slice(&self.payload);
        Ok(())
    }
}
