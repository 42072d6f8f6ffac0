//! Appends of the store itself, and what the crate may do with an append that users may not.

#[cfg(feature = "jsonl")]
use crate::format::Hash;
use serde::Serialize;

use crate::event::{Raw, RecordedEvent};
use crate::types::system::gate::BYPASSED;
use crate::types::{Cause, ClockFn, Error, EventData, EventId, Expected, Limits, SYSTEM_SCOPE, options};

use super::Append;
use super::draft::{AppendDraft, Keyed, NewEvent};
use super::encode::{Request, Salts};
use super::proposed::Proposed;

/// The payload of an event that records a bypassed gate.
#[derive(Serialize)]
struct Bypassed<'a> {
    reason: &'a str,
}

impl Append {
    /// An append without an entity, to add others to.
    pub(crate) fn empty() -> Append {
        Append { draft: Ok(AppendDraft::new()) }
    }

    /// An append of one system event.
    pub(crate) fn of_system<E: EventData>(entity: &str, expected: Expected, event: &E) -> Append {
        Append::empty().system_event(entity, expected, event)
    }

    /// An append that begins with a system event, for others to be added to.
    pub(crate) fn led_by<E: EventData>(entity: &str, expected: Expected, event: &E) -> Append {
        Append::empty().with(|draft| {
            draft.lead = Some(Box::new(system_event(draft, entity, expected, event)?));
            Ok(())
        })
    }

    /// Adds a system event. Its entity and its kind begin with `$`.
    pub(crate) fn system_event<E: EventData>(self, entity: &str, expected: Expected, event: &E) -> Append {
        self.with(|draft| {
            let new = system_event(draft, entity, expected, event)?;
            draft.system.push(new);
            Ok(())
        })
    }

    /// Makes the last system event occur when the append is handed over, by the store's clock.
    pub(crate) fn timed(self) -> Append {
        self.with(|draft| {
            if let Some(event) = draft.system.last_mut() {
                event.is_timed = true;
            }
            Ok(())
        })
    }

    /// Makes this append and another one. If both expect something of a stream, both expect it before the
    /// first event.
    pub(crate) fn and(self, other: Append) -> Append {
        self.with(|draft| draft.absorb(other.draft?))
    }

    /// Records an error, keeping the first.
    pub(crate) fn and_failed(self, error: Error) -> Append {
        self.with(|_| Err(error))
    }

    /// Gives every event without a cause or a correlation those of an event that caused it.
    pub(crate) fn inherit(self, from: &RecordedEvent) -> Append {
        self.belonging(Some(Cause::Event(from.id())), Some(from.correlation()))
    }

    /// Gives every event without a cause this cause, and every event without a correlation this correlation.
    pub(crate) fn belonging(self, cause: Option<Cause>, correlation: Option<EventId>) -> Append {
        self.with(|draft| {
            for event in draft.events.iter_mut().chain(&mut draft.system) {
                let attributes = event.attributes.get_or_insert_default();
                attributes.cause = attributes.cause.or(cause);
                attributes.correlation = attributes.correlation.or(correlation);
            }
            Ok(())
        })
    }

    /// Sets metadata that is encoded already; none if there are no bytes.
    #[cfg(feature = "jsonl")]
    pub(crate) fn encoded_metadata(self, metadata: Vec<u8>) -> Append {
        self.with_attributes(|attributes| {
            attributes.metadata = metadata;
            Ok(())
        })
    }

    /// Marks the event as erased where it comes from. `hash` is the hash of its private part.
    #[cfg(feature = "jsonl")]
    pub(crate) fn erased(self, hash: Hash) -> Append {
        self.with_attributes(|attributes| {
            attributes.erased = Some(hash);
            Ok(())
        })
    }

    /// What the caller built so far.
    pub(crate) fn draft(&self) -> Result<&AppendDraft, Error> {
        self.draft.as_ref().map_err(Error::clone)
    }

    /// What gates judge. `None` if the append has no user event, or cannot be appended anyway.
    pub(crate) fn proposed(&self) -> Option<Proposed<'_>> {
        let draft = self.draft.as_ref().ok()?;
        if draft.events.is_empty() { None } else { Some(Proposed { draft }) }
    }

    /// Whether the caller bypasses the gates.
    pub(crate) fn is_bypassing(&self) -> bool {
        self.bypass_reason().is_some()
    }

    fn bypass_reason(&self) -> Option<&String> {
        self.draft.as_ref().ok()?.for_gates.as_ref()?.bypass.as_ref()
    }

    /// Records in a gate's stream that the gate was bypassed, and why. The receipt does not count this event.
    pub(crate) fn record_bypass(self, stream: &str) -> Append {
        let Some(reason) = self.bypass_reason().cloned() else { return self };
        let append = self.system_event(stream, Expected::Any, &Raw(BYPASSED, &Bypassed { reason: &reason }));
        append.with(|draft| {
            draft.bypass_events = draft.bypass_events.saturating_add(1);
            Ok(())
        })
    }

    /// What identifies the append if it was made before; `None` without a key.
    pub(crate) fn keyed(&self) -> Result<Option<Keyed>, Error> {
        let draft = self.draft()?;
        Ok(draft.key.map(|key| Keyed { key, command: draft.command, durability: draft.durability }))
    }

    /// Sets the key and the command.
    pub(crate) fn keyed_by(self, keyed: Keyed) -> Append {
        self.with(|draft| {
            draft.key = Some(keyed.key);
            draft.command = keyed.command;
            Ok(())
        })
    }

    /// Allows the append to be answered by its key only: no stream ever has the version that it expects now.
    pub(crate) fn only_as_replay(self) -> Append {
        self.with(|draft| {
            draft.targets.iter_mut().for_each(|target| target.expected = Expected::exact(u64::MAX));
            Ok(())
        })
    }

    /// Sets the time of timed events: the append is handed over now.
    pub(crate) fn at(self, clock: &ClockFn) -> Append {
        self.with(|draft| {
            if !draft.system.iter().any(|event| event.is_timed) {
                return Ok(());
            }
            let now = i64::try_from(options::read(clock)).unwrap_or(i64::MAX);
            for event in draft.system.iter_mut().filter(|event| event.is_timed) {
                event.attributes.get_or_insert_default().occurred_at = Some(now);
            }
            Ok(())
        })
    }

    /// Checks the append against the limits, and encodes it for the writer.
    pub(crate) fn encode(self, limits: &Limits, salts: &Salts) -> Result<Request, Error> {
        self.draft?.encode(limits, salts)
    }
}

fn system_event<E: EventData>(
    draft: &mut AppendDraft,
    entity: &str,
    expected: Expected,
    event: &E,
) -> Result<NewEvent, Error> {
    let target = draft.target(entity.into());
    draft.targets[target].expected = expected;
    let mut new = draft.encode_event(target, event.kind(), event)?;
    new.scope = Some(SYSTEM_SCOPE.to_owned());
    Ok(new)
}
