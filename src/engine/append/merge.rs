//! Several appends made one.
//!
//! Row: append.

use crate::types::{Cause, Error, Expected};

use super::Append;
use super::draft::{Draft, NewEvent, narrow};

impl Append {
    /// An append of nothing yet, to add others to.
    pub(crate) fn empty() -> Append {
        Append { draft: Ok(Draft::new()) }
    }

    /// This append and another one, as one. What either expects of a stream is expected before the first
    /// event of both; a key or a durability of the other has no place to go, and is refused.
    pub(crate) fn and(self, other: Append) -> Append {
        self.with(|draft| draft.absorb(other.draft?))
    }
}

impl Draft {
    fn absorb(&mut self, other: Draft) -> Result<(), Error> {
        if other.key.is_some() || other.command.is_some() {
            return Err(Error::invalid(
                "one of several appends that become one has an idempotency key; leave it out",
            ));
        }
        if other.durability.is_some() {
            return Err(Error::invalid(
                "one of several appends that become one asks for a durability; leave it out",
            ));
        }
        let mut targets = Vec::with_capacity(other.targets.len());
        for target in other.targets {
            targets.push(self.expecting(target.entity, target.expected)?);
        }
        let (bytes, events) = (self.bytes.len(), self.numbered());
        self.bytes.extend_from_slice(&other.bytes);
        let moved = |mut event: NewEvent| {
            event.target = targets[event.target];
            event.move_behind(bytes, events);
            event
        };
        self.events.extend(other.events.into_iter().map(moved));
        self.system.extend(other.system.into_iter().map(moved));
        if let Some(conditions) = other.conditions {
            self.conditions.get_or_insert_default().all.extend(conditions.all);
        }
        if let Some(for_gates) = other.for_gates {
            self.for_gates.get_or_insert_default().and(*for_gates);
        }
        Ok(())
    }

    /// The target an entity is, of which this is expected as well.
    fn expecting(&mut self, entity: Box<str>, expected: Expected) -> Result<usize, Error> {
        let at = self.target(entity);
        let target = &mut self.targets[at];
        if target.expected == Expected::Any {
            target.expected = expected;
        } else if expected != Expected::Any && expected != target.expected {
            return Err(Error::invalid(format!(
                "{} is expected at {} and at {expected} in one append; both are checked before its first event",
                target.entity, target.expected
            )));
        }
        Ok(at)
    }
}

impl NewEvent {
    /// So many bytes and events stand before those it was put together with.
    fn move_behind(&mut self, bytes: usize, events: usize) {
        for range in [&mut self.kind, &mut self.payload] {
            *range = range.start + bytes..range.end + bytes;
        }
        if let Some(attributes) = &mut self.attributes
            && let Some(Cause::InAppend(index)) = &mut attributes.cause
        {
            *index = narrow(usize::from(*index).saturating_add(events).min(usize::from(u16::MAX)));
        }
    }
}
