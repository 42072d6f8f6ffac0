//! Gates: policies that judge every append of the application before the writer gets it.
//!
//! Gates run on the caller's thread, one after the other, outside locks. Anything but a permit denies the
//! append: an error and a panic, too. Tested by tests/it/gates.rs.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Serialize;

use crate::engine::{Append, Engine, Proposed, ProposedEvent};
use crate::event::Raw;
use crate::types::system::gate::{DENIED, PREFIX};
use crate::types::{AppendCondition, Cause, Denial, Error, Expected, Limits, check_name, text};

use super::Store;
use super::core::Admission;

/// A policy of the store that permits or denies an append. Closures are gates.
///
/// Gates are registered with [`Builder::gate`](crate::Builder::gate) and are asked in that order, on the
/// thread that makes the append, before anything is sent to the writer. They judge every append of the
/// application and of reactors, but not the store's own events. A gate may read the store it is given, take
/// its time, and append. Its own appends are judged like all others, eight deep; deeper ones are denied. A
/// gate that panics denies. A gate must not keep a clone of the [`Store`]: such a store never closes.
///
/// A denied append with an idempotency key costs one look-up of the key, also in [`Append::submit`] and
/// [`Append::try_submit`]: a retry of an append that went in is answered with its receipt.
///
/// What a gate read may change before the append goes in. A gate that decides by what it read returns the
/// condition that keeps its answer true ([`GateDecision::while_none`]). The append is then made under this
/// condition as well:
///
/// ```
/// use annals::{
///     Append, AppendCondition, Denial, ErrorKind, GateDecision, Proposed, Query, Raw, Store, disk::MemDisk,
/// };
///
/// fn not_frozen(proposed: &Proposed<'_>, store: &Store) -> Result<GateDecision, Denial> {
///     let mut permit = GateDecision::always();
///     for (entity, _) in proposed.expectations() {
///         let frozen = Query::entity(entity).kind("account.frozen");
///         let head = store.head()?.position();
///         if store.exists(frozen.clone())? {
///             return Err(Denial::new(format!("{entity} is frozen")));
///         }
///         permit = permit.and_while_none(AppendCondition::none(frozen).after(head));
///     }
///     Ok(permit)
/// }
///
/// let store = Store::on(MemDisk::new()).gate("frozen", not_frozen).open()?;
/// store.append("account:alice", &Raw("account.frozen", &()))?;
/// let error = store.append("account:alice", &Raw("account.withdrawn", &500)).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Denied);
/// assert_eq!(error.denial().unwrap().gate, "frozen");
/// # Ok::<(), annals::Error>(())
/// ```
pub trait Gate: Send + Sync + 'static {
    /// Permits an append, or denies it with a reason. [`Append::context`] tells the gate who asks.
    ///
    /// # Errors
    ///
    /// The denial, which the caller gets as [`ErrorKind::Denied`](crate::ErrorKind::Denied). `?` turns an
    /// [`Error`] into one.
    fn check(&self, proposed: &Proposed<'_>, store: &Store) -> Result<GateDecision, Denial>;
}

impl<F> Gate for F
where
    F: Fn(&Proposed<'_>, &Store) -> Result<GateDecision, Denial> + Send + Sync + 'static,
{
    fn check(&self, proposed: &Proposed<'_>, store: &Store) -> Result<GateDecision, Denial> {
        self(proposed, store)
    }
}

/// The answer of a [`Gate`] that permits an append: always, or under conditions.
#[derive(Clone, Debug, Default)]
#[must_use = "a gate returns it"]
pub struct GateDecision {
    conditions: Vec<AppendCondition>,
}

impl GateDecision {
    /// Permits the append without a condition.
    pub fn always() -> GateDecision {
        GateDecision::default()
    }

    /// Permits the append while this condition holds. If it fails when the append goes in, the append is a
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict); a retry asks the gate again.
    pub fn while_none(condition: AppendCondition) -> GateDecision {
        GateDecision::always().and_while_none(condition)
    }

    /// Adds a condition that must hold as well.
    pub fn and_while_none(mut self, condition: AppendCondition) -> GateDecision {
        self.conditions.push(condition);
        self
    }
}

/// The gates of a store, in the order in which they are asked.
#[derive(Default)]
pub(super) struct Gates {
    all: Vec<NamedGate>,
    records_denials: bool,
}

struct NamedGate {
    name: String,
    gate: Box<dyn Gate>,
}

const NAME_BYTES_MAX: usize = 255;
/// How many events of a denied append its record names.
const EVENTS_NAMED_MAX: usize = 100;
const REASON_BYTES_MAX: usize = 1024;
/// How deep gates may append within one another: more would exhaust the stack.
const DEPTH_MAX: u32 = 8;

thread_local! {
    /// How many gates are being asked on this thread, each by an append of the one before.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

impl Gates {
    pub(super) fn add(&mut self, name: String, gate: impl Gate) {
        self.all.push(NamedGate { name, gate: Box::new(gate) });
    }

    pub(super) fn record_denials(&mut self) {
        self.records_denials = true;
    }

    /// Checks that each gate's name fits its stream, and is used once.
    pub(super) fn check(&self, limits: &Limits) -> Result<(), Error> {
        for (at, gate) in self.all.iter().enumerate() {
            check_name("gate's name", &gate.name, NAME_BYTES_MAX)?;
            let stream = stream_of(&gate.name);
            if stream.len() > limits.entity_bytes_max {
                let max = limits.entity_bytes_max;
                return Err(Error::too_large("a gate's stream", stream.len(), "entity_bytes_max", max));
            }
            if self.all[..at].iter().any(|other| other.name == gate.name) {
                return Err(Error::invalid(format!("there are two gates named {}; rename one", gate.name)));
            }
        }
        Ok(())
    }

    /// Asks every gate. Returns the conditions of all permits, or the first denial.
    fn ask(&self, proposed: &Proposed<'_>, store: &Store) -> Result<Vec<AppendCondition>, Denial> {
        let mut conditions = Vec::new();
        for gate in &self.all {
            let answer = GateCall::begin().and_then(|_asking| {
                catch_unwind(AssertUnwindSafe(|| gate.gate.check(proposed, store)))
                    .unwrap_or_else(|panic| Err(panicked(panic.as_ref())))
            });
            let permit = answer.map_err(|denial| Denial { gate: gate.name.clone(), ..denial })?;
            conditions.extend(permit.conditions);
        }
        Ok(conditions)
    }
}

/// The stream in which denials of a gate, and appends past it, are recorded.
fn stream_of(gate: &str) -> String {
    format!("{PREFIX}{gate}")
}

/// One gate being asked, counted in [`DEPTH`].
struct GateCall;

impl GateCall {
    fn begin() -> Result<GateCall, Denial> {
        let depth = DEPTH.get();
        if depth == DEPTH_MAX {
            return Err(Denial::new(format!(
                "{DEPTH_MAX} gates that append are asked about each other's appends; a gate that appends must let its own appends pass without another"
            )));
        }
        DEPTH.set(depth + 1);
        Ok(GateCall)
    }
}

impl Drop for GateCall {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get().saturating_sub(1));
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Denial {
    let text = text::of_panic(panic).unwrap_or("no text");
    Denial::new(format!("the gate panicked ({text}), and nothing passes a broken gate"))
}

impl Gates {
    /// What judges the appends of a store with these gates; `None` if there are no gates.
    pub(super) fn into_admission(self) -> Option<Admission> {
        if self.all.is_empty() {
            return None;
        }
        Some(Box::new(move |append, store| self.admit(append, store)))
    }

    fn admit(&self, append: Append, store: &Store) -> Result<Append, Error> {
        store.engine().check_writable()?;
        let Some(proposed) = append.proposed() else { return Ok(append) };
        if append.is_bypassing() {
            let streams = self.all.iter().map(|gate| stream_of(&gate.name));
            return Ok(streams.fold(append, |append, stream| append.record_bypass(&stream)));
        }
        match self.ask(&proposed, store) {
            Ok(conditions) => Ok(conditions.into_iter().fold(append, Append::condition)),
            Err(denial) => self.denied(append, denial, store.engine()),
        }
    }

    /// Denies an append, unless it is a retry of one that went in.
    fn denied(&self, append: Append, denial: Denial, engine: &Engine) -> Result<Append, Error> {
        if let Some(keyed) = append.keyed()?
            && engine.find_key(keyed)?.is_some()
        {
            return Ok(append.only_as_replay());
        }
        let Some(proposed) = append.proposed() else { return Ok(append) };
        let remark = self.records_denials.then(|| record_denial(engine, &proposed, &denial));
        Err(Error::denied(&summary(&proposed), denial, &remark.unwrap_or_default()))
    }
}

/// Records a denial. Returns what the caller's error adds if that fails.
fn record_denial(engine: &Engine, proposed: &Proposed<'_>, denial: &Denial) -> String {
    let record = DenialRecord::new(proposed, denial);
    let append = Append::of_system(&stream_of(&denial.gate), Expected::Any, &Raw(DENIED, &record));
    let first = proposed.events().next();
    // An index within the denied append means nothing in its record.
    let cause = first.and_then(|event| event.cause()).filter(|cause| matches!(cause, Cause::Event(_)));
    let append = append.belonging(cause, first.and_then(|event| event.correlation()));
    match engine.commit(append) {
        Ok(_) => String::new(),
        Err(error) => {
            tracing::error!(%error, gate = denial.gate, "a denial could not be recorded");
            format!(" (and this could not be recorded: {error})")
        }
    }
}

/// Names the denied append in an error.
fn summary(proposed: &Proposed<'_>) -> String {
    let mut events = proposed.events();
    let first = events.next().map(|event| format!("{} to {}", event.kind(), event.entity()));
    let first = first.unwrap_or_default();
    match events.count() {
        0 => first,
        more => format!("{first} (and {more} more)"),
    }
}

/// The record of a denial: names, never payloads.
#[derive(Serialize)]
struct DenialRecord<'a> {
    reason: &'a str,
    events: Vec<DeniedEvent<'a>>,
    /// How many events are not named.
    more: usize,
}

#[derive(Serialize)]
struct DeniedEvent<'a> {
    entity: &'a str,
    scope: &'a str,
    kind: &'a str,
}

impl<'a> DenialRecord<'a> {
    fn new(proposed: &Proposed<'a>, denial: &'a Denial) -> DenialRecord<'a> {
        let name = |event: ProposedEvent<'a>| DeniedEvent {
            entity: event.entity(),
            scope: event.scope(),
            kind: event.kind(),
        };
        DenialRecord {
            reason: text::cut(&denial.reason, REASON_BYTES_MAX),
            events: proposed.events().take(EVENTS_NAMED_MAX).map(name).collect(),
            more: proposed.events().skip(EVENTS_NAMED_MAX).count(),
        }
    }
}
