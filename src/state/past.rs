//! How the state of an entity came about: the states it had in the past, and what differs between two states.
//!
//! A caller gets the state at one point, after each event, or after the first event that made a condition
//! true. The states are compared field by field, as serde shows them.

use std::collections::BTreeMap;
use std::fmt;
use std::iter::FusedIterator;
use std::ops::Deref;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::projection::{Loaded, Projection, fold, shape};
use crate::event::{Meta, Node, RecordedEvent, Value};
use crate::read::{Read, Snapshot};
use crate::store::{Folded, Reached, Store};
use crate::types::{Error, EventId, Position, Version};

/// A point in the past of an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum At {
    /// After this many events of the entity.
    Version(Version),
    /// After all events up to this position.
    Position(Position),
    /// After all events that were recorded up to this time. A time in the future means now.
    Time(SystemTime),
    /// Right after this event, which may be of another entity.
    Event(EventId),
}

impl Store {
    /// Loads the state that an entity had at a point in the past.
    ///
    /// The fold starts at a cached or saved state from before that point, or else at the first event.
    ///
    /// ```
    /// # use annals::{DomainEvent, Meta, Projection, Store};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize, DomainEvent)]
    /// # #[event(kind = "account.deposited")]
    /// # struct Deposited { cents: u64 }
    /// # #[derive(Clone, Default, Serialize, Deserialize)]
    /// # struct Account { cents: u64 }
    /// # impl Projection for Account {
    /// #     type Event = Deposited;
    /// #     const NAME: &'static str = "account";
    /// #     fn apply(&mut self, event: Deposited, _: &Meta<'_>) { self.cents += event.cents; }
    /// # }
    /// use annals::{At, Version};
    ///
    /// let store = Store::in_memory()?;
    /// for cents in [500, 700, 900] {
    ///     store.append("account:alice", &Deposited { cents })?;
    /// }
    /// let before = store.load_at::<Account>("account:alice", At::Version(Version::from(2)))?;
    /// assert_eq!(before.cents, 1200);
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of [`Store::load`]; [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the store does not
    /// hold the version, the position or the event.
    pub fn load_at<P: Projection>(&self, entity: impl AsRef<str>, at: At) -> Result<Loaded<P>, Error> {
        let entity = entity.as_ref();
        let snapshot = self.engine().snapshot()?;
        let target = self.version_at(&snapshot, entity, at)?;
        let mut folded: Folded<Arc<P>> = self.kept_up_to(&snapshot, entity, target).unwrap_or_default();
        if folded.reached.version < target {
            let state = Arc::make_mut(&mut folded.state);
            let versions = folded.reached.version.get() + 1..=target.get();
            for event in self.stream(entity).versions(versions) {
                let event = event?;
                fold(state, &event)?;
                folded.reached = Reached::at(&event);
            }
        }
        Ok(folded.into())
    }

    /// Iterates over the states of an entity: one after each of its events, oldest first, with the event.
    ///
    /// ```
    /// # use annals::{DomainEvent, Meta, Projection, Store};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize, DomainEvent)]
    /// # #[event(kind = "account.deposited")]
    /// # struct Deposited { cents: u64 }
    /// # #[derive(Clone, Default, Serialize, Deserialize)]
    /// # struct Account { cents: u64 }
    /// # impl Projection for Account {
    /// #     type Event = Deposited;
    /// #     const NAME: &'static str = "account";
    /// #     fn apply(&mut self, event: Deposited, _: &Meta<'_>) { self.cents += event.cents; }
    /// # }
    /// let store = Store::in_memory()?;
    /// for cents in [500, 700, 900] {
    ///     store.append("account:alice", &Deposited { cents })?;
    /// }
    /// let cents: Vec<u64> = store
    ///     .history::<Account>("account:alice")
    ///     .map(|moment| Ok(moment?.cents))
    ///     .collect::<Result<_, annals::Error>>()?;
    /// assert_eq!(cents, [500, 1200, 2100]);
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Panics
    ///
    /// The iterator panics if the projection's code panics.
    pub fn history<P: Projection>(&self, entity: impl AsRef<str>) -> History<P> {
        History { read: self.stream(entity.as_ref()), state: Arc::default(), has_ended: false }
    }

    /// Finds the first event of an entity after which `holds` is true of its state, and returns both; `None`
    /// if there is none.
    ///
    /// It folds from the first event and asks after each one, so the condition may become false again later.
    /// The cost is that of folding the events up to the one found.
    ///
    /// ```
    /// # use annals::{DomainEvent, Meta, Projection, Store};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize, DomainEvent)]
    /// # #[event(kind = "account.deposited")]
    /// # struct Deposited { cents: u64 }
    /// # #[derive(Clone, Default, Serialize, Deserialize)]
    /// # struct Account { cents: u64 }
    /// # impl Projection for Account {
    /// #     type Event = Deposited;
    /// #     const NAME: &'static str = "account";
    /// #     fn apply(&mut self, event: Deposited, _: &Meta<'_>) { self.cents += event.cents; }
    /// # }
    /// let store = Store::in_memory()?;
    /// for cents in [500, 700, 900] {
    ///     store.append("account:alice", &Deposited { cents })?;
    /// }
    /// let rich = store.bisect::<Account>("account:alice", |account| account.cents >= 1000)?;
    /// assert_eq!(rich.unwrap().version().get(), 2);
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of [`Store::load`].
    pub fn bisect<P: Projection>(
        &self,
        entity: impl AsRef<str>,
        mut holds: impl FnMut(&P) -> bool,
    ) -> Result<Option<StateAt<P>>, Error> {
        for moment in self.history::<P>(entity) {
            let moment = moment?;
            if holds(&moment) {
                return Ok(Some(moment));
            }
        }
        Ok(None)
    }

    /// The version that the entity's stream had at a point.
    fn version_at(&self, snapshot: &Snapshot, entity: &str, at: At) -> Result<Version, Error> {
        let at_position = |position| Ok(snapshot.stream_head_at(entity, position)?.0);
        match at {
            At::Version(version) => {
                let (newest, _) = snapshot.stream_head(entity)?;
                if version > newest {
                    let text = format!("{entity} is at version {newest}, and has no version {version} yet");
                    return Err(Error::invalid(text));
                }
                Ok(version)
            }
            At::Position(position) => {
                let head = snapshot.head.position;
                if position > head {
                    let text = format!("the store is at position {head}, not at {position} yet");
                    return Err(Error::invalid(text));
                }
                at_position(position)
            }
            At::Time(time) => {
                let last = self.stream(entity).between(..=time).backwards().limit(1).next();
                last.map_or(Ok(Version::EMPTY), |event| Ok(event?.version()))
            }
            At::Event(id) => match self.get(id)? {
                Some(event) => at_position(event.position().min(snapshot.head.position)),
                None => Err(Error::invalid(format!("there is no event {id}"))),
            },
        }
    }

    /// A state from memory or from the file that is not newer than `target`.
    fn kept_up_to<P: Projection>(
        &self,
        snapshot: &Snapshot,
        entity: &str,
        target: Version,
    ) -> Option<Folded<Arc<P>>> {
        let shape = shape::<P>();
        let known = self.cache().memory().look(shape.of, entity).and_then(|known| known.folded.typed());
        let is_early = |folded: &Folded<Arc<P>>| folded.reached.version <= target;
        known.filter(is_early).or_else(|| self.saved(&shape, entity, snapshot).filter(is_early))
    }
}

/// The states of an entity, one after each of its events; see [`Store::history`].
///
/// An error is the last item.
#[must_use = "a history does nothing until it is iterated"]
pub struct History<P> {
    read: Read,
    state: Arc<P>,
    has_ended: bool,
}

impl<P: Projection> Iterator for History<P> {
    type Item = Result<StateAt<P>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        // Set before user code runs: after a panic in it, the next call must not hand out a half-folded state.
        self.has_ended = true;
        let event = match self.read.next()? {
            Ok(event) => event,
            Err(error) => return Some(Err(error)),
        };
        if let Err(error) = fold(Arc::make_mut(&mut self.state), &event) {
            return Some(Err(error));
        }
        self.has_ended = false;
        Some(Ok(StateAt { state: self.state.clone(), event }))
    }
}

impl<P: Projection> FusedIterator for History<P> {}

/// The state right after an event, and the event.
///
/// It shares the state with the [`History`] it comes from. The next step of the iterator copies the state if
/// this value still exists.
#[derive(Clone, Debug)]
pub struct StateAt<P> {
    state: Arc<P>,
    event: RecordedEvent,
}

impl<P> StateAt<P> {
    /// The state after the event.
    #[must_use]
    pub fn state(&self) -> &Arc<P> {
        &self.state
    }

    /// The event.
    #[must_use]
    pub fn event(&self) -> &RecordedEvent {
        &self.event
    }

    /// The event without its payload.
    #[must_use]
    pub fn meta(&self) -> Meta<'_> {
        Meta::of(&self.event)
    }

    /// The version of the event, and so of the state.
    #[must_use]
    pub fn version(&self) -> Version {
        self.event.version()
    }
}

impl<P> Deref for StateAt<P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.state
    }
}

/// The differences between two values; see [`diff`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    changes: Vec<Change>,
}

/// One difference: its path, and the text of either value there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The path: `.owner.name`, `.entries[3]`, `.balances["a b"]`; empty for the value itself.
    pub path: String,
    /// The first value's text at the path; `None` if the first value has nothing there.
    pub old: Option<String>,
    /// The second value's text at the path; `None` if the second value has nothing there.
    pub new: Option<String>,
}

/// Compares two values of one type, field by field, as serde shows them.
///
/// Entries of maps are compared by key, items of lists by index. A NaN equals itself.
///
/// ```
/// use annals::diff;
/// use serde::Serialize;
///
/// #[derive(Serialize)]
/// struct Account { owner: &'static str, cents: u64 }
///
/// let found = diff(&Account { owner: "Alice", cents: 500 }, &Account { owner: "Alice", cents: 700 })?;
/// assert_eq!(found.to_string(), ".cents: 500 -> 700");
/// assert_eq!(found.changes()[0].path, ".cents");
/// # Ok::<(), annals::Error>(())
/// ```
///
/// # Errors
///
/// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if a value does not encode.
pub fn diff<T: Serialize + ?Sized>(old: &T, new: &T) -> Result<Diff, Error> {
    Ok(Diff::of(&Value::of(old)?, &Value::of(new)?))
}

impl Diff {
    pub(super) fn of(old: &Value, new: &Value) -> Diff {
        let mut diff = Diff::default();
        diff.compare(&mut String::new(), Some(old), Some(new));
        diff
    }

    /// Whether the two values are the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The differences, in the order of their paths.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    fn compare(&mut self, path: &mut String, old: Option<&Value>, new: Option<&Value>) {
        match (old.map(Value::node), new.map(Value::node)) {
            (Some(Node::Map(old)), Some(Node::Map(new))) => {
                let old = by_step(old);
                let new = by_step(new);
                let mut steps: Vec<&String> = old.keys().collect();
                steps.extend(new.keys().filter(|step| !old.contains_key(*step)));
                steps.sort();
                for step in steps {
                    self.compare_at(path, step, old.get(step).copied(), new.get(step).copied());
                }
            }
            (Some(Node::List(old)), Some(Node::List(new))) => {
                for index in 0..old.len().max(new.len()) {
                    self.compare_at(path, &format!("[{index}]"), old.get(index), new.get(index));
                }
            }
            // Compared by their bits, so that a NaN equals itself.
            (Some(Node::Float(old)), Some(Node::Float(new))) if old.to_bits() == new.to_bits() => {}
            (Some(Node::Float(_)), Some(Node::Float(_))) => self.add(path, old, new),
            (old_node, new_node) if old_node == new_node => {}
            _ => self.add(path, old, new),
        }
    }

    fn compare_at(&mut self, path: &mut String, step: &str, old: Option<&Value>, new: Option<&Value>) {
        let length = path.len();
        path.push_str(step);
        self.compare(path, old, new);
        path.truncate(length);
    }

    fn add(&mut self, path: &str, old: Option<&Value>, new: Option<&Value>) {
        let old = old.map(|value| Text(value).to_string());
        let new = new.map(|value| Text(value).to_string());
        self.changes.push(Change { path: path.to_owned(), old, new });
    }
}

/// The entries of a map by the last step of their paths. Sorted, because a `HashMap` has another order each
/// time.
fn by_step(entries: &[(Value, Value)]) -> BTreeMap<String, &Value> {
    entries.iter().map(|(key, value)| (step_to(key), value)).collect()
}

/// The last step of the path to an entry with this key.
fn step_to(key: &Value) -> String {
    let is_plain = |name: &str| {
        !name.is_empty() && name.chars().all(|sign| sign.is_alphanumeric() || matches!(sign, '_' | '-'))
    };
    match key.node() {
        Node::Text(name) if is_plain(name) => format!(".{name}"),
        _ => format!("[{}]", Text(key)),
    }
}

/// A value as the text of a [`Change`].
struct Text<'a>(&'a Value);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.node() {
            Node::Nil => f.write_str("nothing"),
            Node::Bool(value) => value.fmt(f),
            Node::Unsigned(value) => value.fmt(f),
            Node::Signed(value) => value.fmt(f),
            Node::Float(value) => write!(f, "{value:?}"),
            Node::Text(value) => write!(f, "{value:?}"),
            Node::Bytes(bytes) => write_bytes(f, bytes),
            Node::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{}", if index > 0 { ", " } else { "" }, Text(item))?;
                }
                f.write_str("]")
            }
            Node::Map(entries) => {
                f.write_str("{")?;
                for (index, (step, value)) in by_step(entries).into_iter().enumerate() {
                    let name = step.strip_prefix('.').unwrap_or(&step);
                    write!(f, "{}{name}: {}", if index > 0 { ", " } else { "" }, Text(value))?;
                }
                f.write_str("}")
            }
            Node::Extension(kind, bytes) => {
                write!(f, "[{kind}, ")?;
                write_bytes(f, bytes)?;
                f.write_str("]")
            }
        }
    }
}

fn write_bytes(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    f.write_str("0x")?;
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, change) in self.changes.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            change.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "the value" } else { &self.path };
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => write!(f, "{path}: {old} -> {new}"),
            (Some(old), None) => write!(f, "{path}: {old} is gone"),
            (None, Some(new)) => write!(f, "{path}: {new} is new"),
            (None, None) => write!(f, "{path}"),
        }
    }
}
