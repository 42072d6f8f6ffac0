//! The error type: a kind for programs, a sentence for people.
//!
//! An `Error` is one word and `Clone`, because each caller of a group gets the error of its failed sync. It
//! carries plain values and no handle.

use std::convert::Infallible;
use std::sync::Arc;
use std::{fmt, io};

use crate::types::query::Query;
use crate::types::text::visible;
use crate::types::version::{Expected, Position, Version};

/// The error of a call: its cause, and what the caller can do about it.
///
/// Programs use [`Error::kind`]. `Display` is for people: it names entity, segment, offset and remedy.
///
/// ```
/// use annals::{ErrorKind, Raw, Store};
///
/// let store = Store::in_memory()?;
/// let error = store.append("", &Raw("account.opened", &())).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Invalid);
/// assert!(error.is_definite());
/// println!("{error}");
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone)]
pub struct Error(Arc<ErrorInner>);

#[derive(Debug)]
struct ErrorInner {
    kind: ErrorKind,
    text: String,
    detail: Detail,
}

#[derive(Debug)]
enum Detail {
    None,
    Conflict(Conflict),
    Condition(FailedCondition),
    Denied(Denial),
    Gone([u64; 2]),
    Holder(u32),
    Undecodable(Box<Undecodable>, Option<Box<dyn std::error::Error + Send + Sync>>),
    Source(Box<dyn std::error::Error + Send + Sync>),
}

/// The kinds of [`Error`]. Each kind stands for one reaction of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A stream is not at the version that the append expected, or an event matches a condition of the
    /// append. Read the new events, and decide again.
    Conflict,
    /// The idempotency key belongs to an append with other content. Use a new key.
    KeyReused,
    /// The call itself is wrong: a name, a range, a value that serde refuses. Fix the call.
    Invalid,
    /// An event cannot be read as a type. The type does not know its kind or version, the bytes are of
    /// another type, or an upcaster failed. The event is intact; change the type or the upcaster.
    Undecodable,
    /// A gate denied the append; the text names the gate and its reason. Nothing was written. Change the
    /// append, or bypass the gates, which the store records.
    Denied,
    /// A limit is exceeded; the text names the limit. Send less, or raise the limit.
    TooLarge,
    /// The writer's queue is full, or stayed full until the deadline. Nothing was written; try later.
    Busy,
    /// It is not known whether the append was written. Read the stream, or repeat the append with the same
    /// idempotency key.
    CommitUnknown,
    /// The disk is full. Nothing was written. The store accepts appends again as soon as the disk has space.
    NoSpace,
    /// Another handle or process has the store open to write, or runs the consumer of this name. Wait, or
    /// close the other one.
    Locked,
    /// The consumer was halted, by an operator or because it could not handle an event. Resume it, or skip
    /// the event.
    Halted,
    /// The store accepts no more appends: an earlier write or sync failed, a sealed segment is damaged, or
    /// the store's files were removed or replaced. Nothing was written. Reads continue. Repair the cause that
    /// the text names, and reopen the store.
    Poisoned,
    /// The store was closed. Open it again.
    Closed,
    /// Stored bytes are damaged; the text names file and offset. Nothing was changed. Restore the file from a
    /// backup.
    Corrupt,
    /// The payload was erased on purpose. The rest of the event remains.
    Erased,
    /// The event or the root of this size was removed. Ask for another: [`Error::nearest_sizes`].
    Gone,
    /// The store uses a feature that this version of annals does not know. Update annals.
    NeedsNewer,
    /// The directory or a file in it is not safe to use (permissions, links, owner).
    Unsafe,
    /// The store's history was set back (restored, rolled back) or replaced. The events that a reader has
    /// read may not be there any more: open the store again, and begin anew. A consumer has handled events
    /// that are not there any more: reset or rewind it.
    RolledBack,
    /// The caller cancelled the call; the text says whether something was changed.
    Cancelled,
    /// The store was opened before this process was forked, and its writer runs in the parent. Let the parent
    /// append, or open the store again after the parent has closed it.
    Forked,
    /// Any other error of the operating system.
    Io,
}

/// The details of a conflict with a stream; see [`Error::conflict`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conflict {
    /// The entity whose stream was not as expected.
    pub entity: String,
    /// The version that the append expected.
    pub expected: Expected,
    /// The stream's version when the append was decided.
    pub actual: Version,
    /// The position of the stream's last event at that time. A read of the stream up to it shows all events
    /// that the append was decided against. [`Position::START`] if the stream is empty.
    pub last: Position,
}

/// The details of a condition that failed; see [`Error::failed_condition`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedCondition {
    /// The query that no event was to match.
    pub query: Query,
    /// The position after which the condition counts events. A read of the query after it shows the new
    /// events.
    pub after: Position,
    /// The position of the first event after it that matches.
    pub first_match: Position,
}

/// The details of an event that cannot be read as a type; see [`Error::undecodable`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Undecodable {
    /// The reason.
    pub reason: UndecodableReason,
    /// The entity of the event.
    pub entity: String,
    /// The position of the event.
    pub position: Position,
    /// The kind of the event.
    pub kind: String,
    /// The version of the payload's shape that it was stored with.
    pub stored_version: u16,
    /// The newest version of this kind that the type knows; `None` if the type does not know the kind, or is
    /// no [`DomainEvent`](crate::DomainEvent).
    pub known_version: Option<u16>,
}

/// The holder of a store's lock, as far as the disk knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Holder {
    /// This process.
    ThisProcess,
    /// Another process, which is running.
    Process(u32),
    /// A process that has ended; a process that it forked still holds the lock.
    Gone(u32),
    /// A process in another container, with its process id there.
    InContainer(u32),
    /// An unknown process.
    Unknown,
}

/// The reason why an event cannot be read as a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UndecodableReason {
    /// The type does not know the kind. Add a variant or an alias, or read other kinds only.
    UnknownKind,
    /// The event was stored by a program that knows a newer version. Update this program.
    NewerVersion,
    /// The bytes are of another type. If the type has changed, raise its version, and write an upcaster.
    Mismatch,
    /// An upcaster failed. Fix the upcaster.
    Upcaster,
}

/// The reason why a [`Gate`](crate::Gate) denies an append.
///
/// ```
/// use annals::Denial;
///
/// let denial = Denial::new("only the owner may close an account");
/// assert_eq!(denial.reason, "only the owner may close an account");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Denial {
    /// The name under which the gate was registered. The store fills it in.
    pub gate: String,
    /// The reason, for the caller. It is a part of the error's text, and of the record of denials.
    pub reason: String,
}

impl Denial {
    /// Makes a denial with this reason.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Denial {
        Denial { gate: String::new(), reason: reason.into() }
    }
}

/// A gate that fails denies the append.
impl From<Error> for Denial {
    fn from(error: Error) -> Denial {
        Denial::new(error.to_string())
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the gate {} denies it: {}", visible(&self.gate), visible(&self.reason))
    }
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, text: impl Into<String>) -> Error {
        Error::with_detail(kind, text.into(), Detail::None)
    }

    pub(crate) fn invalid(text: impl Into<String>) -> Error {
        Error::new(ErrorKind::Invalid, text)
    }

    pub(crate) fn too_large(what: &str, size: usize, limit: &str, max: usize) -> Error {
        let text = format!(
            "{what} has {size} bytes, more than the {max} that {limit} allows; send less or raise the limit"
        );
        Error::new(ErrorKind::TooLarge, text)
    }

    pub(crate) fn corrupt(file: &str, offset: u64, what: impl fmt::Display) -> Error {
        let text =
            format!("{file}, offset {offset}: {what}; nothing was changed, restore the file from a backup");
        Error::new(ErrorKind::Corrupt, text)
    }

    pub(crate) fn needs_newer(file: &str, feature: &str) -> Error {
        Error::new(
            ErrorKind::NeedsNewer,
            format!("{file} needs a newer annals ({feature}); nothing was changed, update annals"),
        )
    }

    pub(crate) fn with_source(
        kind: ErrorKind,
        text: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Error {
        Error::with_detail(kind, text.into(), Detail::Source(Box::new(source)))
    }

    pub(crate) fn no_space(text: impl Into<String>) -> Error {
        Error::new(ErrorKind::NoSpace, text)
    }

    /// An error of the operating system on a file, with the kind that tells the caller what to do.
    pub(crate) fn io(what: &str, file: &str, source: io::Error) -> Error {
        let kind = match source.kind() {
            _ if source.get_ref().is_some_and(|inner| inner.is::<UnsafePath>()) => ErrorKind::Unsafe,
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge
            | io::ErrorKind::WriteZero => ErrorKind::NoSpace,
            _ => ErrorKind::Io,
        };
        Error::with_source(kind, format!("{what} {file}: {source}"), source)
    }

    pub(crate) fn conflict_on(conflict: Conflict) -> Error {
        let text = format!(
            "{}: expected {}, but the stream is at version {}; read the stream up to position {} and decide again",
            conflict.entity, conflict.expected, conflict.actual, conflict.last
        );
        Error::with_detail(ErrorKind::Conflict, text, Detail::Conflict(conflict))
    }

    pub(crate) fn condition_failed(failed: FailedCondition) -> Error {
        let text = format!(
            "the append's condition does not hold: the event at position {} matches ({}); read on from position {} and decide again",
            failed.first_match, failed.query, failed.after
        );
        Error::with_detail(ErrorKind::Conflict, text, Detail::Condition(failed))
    }

    /// `of` says what is denied, `remark` what else is to be known.
    pub(crate) fn denied(of: &str, denial: Denial, remark: &str) -> Error {
        let text = format!("{of} was not appended; {denial}{remark}");
        Error::with_detail(ErrorKind::Denied, text, Detail::Denied(denial))
    }

    pub(crate) fn gone(text: String, nearest: Option<[u64; 2]>) -> Error {
        Error::with_detail(ErrorKind::Gone, text, nearest.map_or(Detail::None, Detail::Gone))
    }

    pub(crate) fn locked(holder: Holder) -> Error {
        let (process, text) = match holder {
            Holder::ThisProcess => {
                let process = std::process::id();
                let text = format!(
                    "the store is open for writing already, by this process itself ({process}); use that handle, or close it"
                );
                (Some(process), text)
            }
            Holder::Process(process) => {
                let text = format!(
                    "the store is open for writing in process {process}; close it there, or wait with open_within"
                );
                (Some(process), text)
            }
            Holder::Gone(process) => {
                let text = format!(
                    "process {process}, which opened the store for writing, does not run any more, but a process that it forked still has the lock; end that one, or wait with open_within"
                );
                (Some(process), text)
            }
            Holder::InContainer(process) => {
                let text = format!(
                    "the store is open for writing in another container (its process {process}); close it there, or wait with open_within"
                );
                (None, text)
            }
            Holder::Unknown => {
                let text =
                    "the store is open for writing elsewhere; close it there, or wait with open_within";
                (None, text.to_owned())
            }
        };
        Error::with_detail(ErrorKind::Locked, text, process.map_or(Detail::None, Detail::Holder))
    }

    pub(crate) fn no_store() -> Error {
        Error::invalid("there is no store here; Store::open would create one")
    }

    pub(crate) fn cancelled() -> Error {
        Error::new(ErrorKind::Cancelled, "opening was broken off, as asked; nothing was changed")
    }

    pub(crate) fn forked() -> Error {
        Error::new(
            ErrorKind::Forked,
            "the store was opened before this process was forked, and its writer lives in the parent; let the parent append, or open the store here once the parent has closed it",
        )
    }

    pub(crate) fn closed() -> Error {
        Error::new(ErrorKind::Closed, "the store is closed; open it again")
    }

    /// `problem` follows the event's position and kind in the text.
    pub(crate) fn undecodable_because(
        event: Undecodable,
        problem: impl fmt::Display,
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        let text = format!(
            "{} at position {}: {} (version {}) {problem}",
            event.entity, event.position, event.kind, event.stored_version
        );
        Error::with_detail(ErrorKind::Undecodable, text, Detail::Undecodable(Box::new(event), source))
    }

    fn with_detail(kind: ErrorKind, text: String, detail: Detail) -> Error {
        // Names in the text may hold characters that reverse the whole line.
        let text = visible(&text).into_owned();
        Error(Arc::new(ErrorInner { kind, text, detail }))
    }

    /// The kind, which tells the caller what to do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The details of an [`ErrorKind::Conflict`] with a stream; `None` if a condition failed.
    #[must_use]
    pub fn conflict(&self) -> Option<&Conflict> {
        match &self.0.detail {
            Detail::Conflict(conflict) => Some(conflict),
            _ => None,
        }
    }

    /// The details of an [`ErrorKind::Conflict`] with an [`AppendCondition`](crate::AppendCondition).
    #[must_use]
    pub fn failed_condition(&self) -> Option<&FailedCondition> {
        match &self.0.detail {
            Detail::Condition(failed) => Some(failed),
            _ => None,
        }
    }

    /// The details of an [`ErrorKind::Undecodable`].
    #[must_use]
    pub fn undecodable(&self) -> Option<&Undecodable> {
        match &self.0.detail {
            Detail::Undecodable(event, _) => Some(event),
            _ => None,
        }
    }

    /// The gate and its reason, for [`ErrorKind::Denied`].
    #[must_use]
    pub fn denial(&self) -> Option<&Denial> {
        match &self.0.detail {
            Detail::Denied(denial) => Some(denial),
            _ => None,
        }
    }

    /// The nearest smaller and larger tree sizes that can be proven, for [`ErrorKind::Gone`].
    #[must_use]
    pub fn nearest_sizes(&self) -> Option<[u64; 2]> {
        match &self.0.detail {
            Detail::Gone(sizes) => Some(*sizes),
            _ => None,
        }
    }

    /// The id of the process that took the lock, for [`ErrorKind::Locked`], if it is known and valid here.
    /// The text says whether it is this process, or has ended.
    #[must_use]
    pub fn locked_by(&self) -> Option<u32> {
        match &self.0.detail {
            Detail::Holder(pid) => Some(*pid),
            _ => None,
        }
    }

    /// Whether it is certain that a refused append wrote nothing: true for every kind but
    /// [`ErrorKind::CommitUnknown`], and [`ErrorKind::Forked`]: the parent may have written it.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        !matches!(self.kind(), ErrorKind::CommitUnknown | ErrorKind::Forked)
    }

    /// Whether the very same call may succeed later: [`ErrorKind::Busy`], [`ErrorKind::NoSpace`]
    /// and [`ErrorKind::Locked`].
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind(), ErrorKind::Busy | ErrorKind::NoSpace | ErrorKind::Locked)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.0.text)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.detail {
            Detail::Source(source) | Detail::Undecodable(_, Some(source)) => Some(source.as_ref()),
            _ => None,
        }
    }
}

/// Why a file or directory is not safe to use. A disk returns it inside an [`io::Error`].
#[derive(Debug)]
pub(crate) struct UnsafePath(pub(crate) String);

impl UnsafePath {
    pub(crate) fn error(text: String) -> io::Error {
        io::Error::new(io::ErrorKind::PermissionDenied, UnsafePath(text))
    }
}

impl fmt::Display for UnsafePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UnsafePath {}

impl From<Infallible> for Error {
    fn from(never: Infallible) -> Error {
        match never {}
    }
}
