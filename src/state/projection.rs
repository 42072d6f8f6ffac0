//! Projections: how events fold into state, and how a state is saved.
//!
//! A saved state carries a fingerprint of all that serde shows of it. Code that has other fields may read old
//! bytes without an error, because serde fills one field in and passes over another. The state it reads then
//! has another fingerprint, and is not used.

use std::any::Any;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::event::{DomainEvent, Meta, RecordedEvent, codec, unknown_kind};
use crate::types::{Error, ErrorKind, Position, Version, text};

/// State that is folded from events.
///
/// # What is saved
///
/// annals saves states so that later loads fold fewer events. A state must come back from its encoded form
/// (serde, MessagePack) as it was: a field that serde skips (`#[serde(skip)]`) is lost.
///
/// Each saved state has a fingerprint of everything serde shows. That is the names of fields, also of those
/// left out, the variants, the types of numbers, and the contents. The order of entries in lists and maps
/// does not matter. A saved state whose fingerprint is another one today is folded anew from its first event.
///
/// The fingerprint does not show a new meaning of the same fields, or a field that serde always skips. Nor
/// does it show a change of a type inside empty lists, maps and options. Raise [`Projection::REVISION`] for
/// these.
pub trait Projection: Default + Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The events it folds.
    type Event: DomainEvent;

    /// The stable name under which its states are saved. Each projection of a store needs a name of its own.
    const NAME: &'static str;

    /// The revision of the projection's code (default: 1). Raise it when the same events give another state
    /// of the same shape: states that were saved under another revision are folded anew.
    ///
    /// Fields that were added, removed, renamed or given another type are noticed without it.
    const REVISION: u32 = 1;

    /// Folds one event into the state.
    ///
    /// The result must depend on the state, the event and its `meta` alone. It must not depend on a clock, on
    /// randomness, or on the order of a `HashMap`.
    fn apply(&mut self, event: Self::Event, meta: &Meta<'_>);

    /// Folds an event whose payload was erased (default: the state stays as it is).
    fn erased(&mut self, meta: &Meta<'_>) {
        let _ = meta;
    }

    /// Folds an event whose kind [`Projection::Event`] does not know.
    ///
    /// The default is an error, so that no event is passed over by accident.
    ///
    /// # Errors
    ///
    /// An error ends the fold, and the caller of the load gets it.
    fn unknown(&mut self, event: &RecordedEvent) -> Result<(), Error> {
        Err(unknown_kind::<Self::Event>(event))
    }
}

/// A folded state, and the last event that it was folded from.
#[derive(Clone, Debug)]
pub struct Loaded<P> {
    state: Arc<P>,
    version: Version,
    position: Position,
}

impl<P> Loaded<P> {
    pub(crate) fn new(state: impl Into<Arc<P>>, version: Version, position: Position) -> Loaded<P> {
        Loaded { state: state.into(), version, position }
    }

    /// The version of the entity's stream that the state was folded up to; [`Version::EMPTY`] if the stream
    /// has no events.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The position of the last event that was folded.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The state itself.
    #[must_use]
    pub fn state(&self) -> &Arc<P> {
        &self.state
    }
}

impl<P> Deref for Loaded<P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.state
    }
}

/// Folds one event into a state.
pub(super) fn fold<P: Projection>(state: &mut P, event: &RecordedEvent) -> Result<(), Error> {
    if !P::Event::knows(event.kind()) {
        return state.unknown(event);
    }
    match P::Event::from_recorded(event) {
        Ok(value) => state.apply(value, &Meta::of(event)),
        Err(error) if error.kind() == ErrorKind::Erased => state.erased(&Meta::of(event)),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// The error that a projection panicked while it folded an event.
pub(super) fn panicked<P: Projection>(event: &RecordedEvent, panic: &(dyn Any + Send)) -> Error {
    let text = text::of_panic(panic).unwrap_or("without a text");
    let name = P::NAME;
    let kind = event.kind();
    let position = event.position();
    Error::invalid(format!("projection {name} panicked at position {position} ({kind}): {text}"))
}

/// Appends the fingerprint and the bytes of a state; `None` if the state does not encode, or its code panics.
pub(super) fn pack<P: Projection>(state: &P, out: &mut Vec<u8>) -> Option<()> {
    let pack = || {
        let start = out.len();
        out.extend_from_slice(&[0; 8]);
        // Encoding comes first: it refuses a state that is nested too deeply for the fingerprint's recursion.
        codec::encode(state, out).ok()?;
        out[start..start + 8].copy_from_slice(&codec::fingerprint_of(state)?.to_le_bytes());
        Some(())
    };
    catch_unwind(AssertUnwindSafe(pack)).ok().flatten()
}

/// Reads a packed state; `None` if it does not decode, or decodes to a state with another fingerprint.
pub(super) fn unpack<P: Projection>(bytes: &[u8]) -> Option<P> {
    let (fingerprint, bytes) = bytes.split_first_chunk()?;
    let unpack = || {
        let state: P = codec::decode(bytes).ok()?;
        let is_same = codec::fingerprint_of(&state)? == u64::from_le_bytes(*fingerprint);
        if !is_same {
            tracing::debug!(
                projection = P::NAME,
                "the projection has changed; its saved state is folded anew"
            );
        }
        is_same.then_some(state)
    };
    catch_unwind(unpack).ok().flatten()
}
