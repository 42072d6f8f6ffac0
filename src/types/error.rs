//! The one error type: a kind to branch on, a sentence to read.
//!
//! `Error` is one word and `Clone`, because one failed sync is reported to every caller of its
//! group. It carries plain values only, never a live handle.
//! Row: words.

use std::convert::Infallible;
use std::sync::Arc;
use std::{fmt, io};

use crate::types::query::Query;
use crate::types::text::visible;
use crate::types::version::{Expected, Position, Version};

/// What went wrong, and what can be done about it.
///
/// [`Error::kind`] is for programs, `Display` for people: it names entity, segment and offset
/// where there are any, and what to do.
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
pub struct Error(Arc<Inner>);

#[derive(Debug)]
struct Inner {
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
    Holder(u32),
    Undecodable(Box<Undecodable>, Option<Box<dyn std::error::Error + Send + Sync>>),
    Source(Box<dyn std::error::Error + Send + Sync>),
}

/// The kinds of [`Error`], named after what the caller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A stream is not where the append expected it, or an event came that one of its conditions
    /// forbids. Read what is new, decide again.
    Conflict,
    /// The idempotency key belongs to another append with other content. Use a new key.
    KeyReused,
    /// The call itself is wrong (a name, a range, a value serde refuses). Fix the call.
    Invalid,
    /// An event is not what it was to be read as: its kind is not known, its version is newer, its bytes are
    /// of another type, or an upcaster refused it. The event is whole; change what reads it.
    Undecodable,
    /// A gate does not let the append pass; the text says which, and why. Nothing of it was written. Ask for
    /// what is allowed, or bypass the gates on the record.
    Denied,
    /// A limit is exceeded; the text names it. Send less, or raise the limit.
    TooLarge,
    /// The queue is full, or stayed full beyond the deadline. Nothing was written; try later.
    Busy,
    /// The outcome of an append is not known: it may or may not be there. Read back, or repeat
    /// the append with the same idempotency key.
    CommitUnknown,
    /// The disk is full. Nothing was written; appends resume by themselves when space returns.
    NoSpace,
    /// Another handle or process has the store open for writing, or runs the consumer of this name. Wait, or
    /// close the other one.
    Locked,
    /// The consumer was halted, by somebody or because an event could not be handled. Resume it, or skip the
    /// event.
    Halted,
    /// An earlier write or sync failed, a sealed segment was found damaged, or the store's files were removed or
    /// replaced under its writer: the store takes no more appends. Nothing of this one was written. Reads go on;
    /// mend what the text names, and reopen the store to append again.
    Poisoned,
    /// The store was closed. Open it again.
    Closed,
    /// SealedSegment bytes are damaged; the text names file and offset. Nothing was changed. Restore
    /// from a backup.
    Corrupt,
    /// The payload was erased on purpose; the event's public part is still there.
    Erased,
    /// The store uses a feature this version of annals does not know. Update annals.
    NeedsNewer,
    /// The directory or a file in it is not safe to use (permissions, links, owner).
    Unsafe,
    /// History was set back (restored, rolled back), or is another one than before. A store opened to read: what
    /// was read is not what is there now, open it again and start over. A consumer: it has handled events that are
    /// not there, reset or rewind it.
    RolledBack,
    /// The caller broke off what it had asked for; the text says what was changed, if anything.
    Cancelled,
    /// The store was opened before this process was forked, and its writer lives in the parent. Open
    /// it again here once the parent has closed it, or let the parent append.
    Forked,
    /// The operating system refused something else.
    Io,
}

/// Why an append met another one: the stream, and where it really is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conflict {
    /// The entity whose stream was not as expected.
    pub entity: String,
    /// What the append expected.
    pub expected: Expected,
    /// The stream's version when the append was decided.
    pub actual: Version,
    /// The position of the stream's last event then: reading the stream up to here shows
    /// everything the decision was made against. [`Position::START`] if the stream is empty.
    pub last: Position,
}

/// Why an append met another one: the condition, and the event it forbids.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedCondition {
    /// What was not to be there.
    pub query: Query,
    /// The position the condition looked from; reading the query from here shows what is new.
    pub after: Position,
    /// The first event after it that matches.
    pub first_match: Position,
}

/// Why an event could not be read as a type, for [`ErrorKind::Undecodable`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Undecodable {
    /// What is in the way.
    pub reason: UndecodableReason,
    /// The entity whose event it is.
    pub entity: String,
    /// The event's position.
    pub position: Position,
    /// The event's kind.
    pub kind: String,
    /// The version of the payload's shape that it was stored with.
    pub stored_version: u16,
    /// The newest version of this kind that the type knows; `None` if it does not know the kind, or is
    /// no [`DomainEvent`](crate::DomainEvent).
    pub known_version: Option<u16>,
}

/// Who holds the lock of a store, as far as a disk knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Holder {
    /// This process has the store open for writing already.
    ThisProcess,
    /// Another process, which runs.
    Process(u32),
    /// The process that took the lock does not run any more, and one that it forked still has the lock.
    Gone(u32),
    /// A process in another container, by the number that it has there.
    InContainer(u32),
    /// Not known.
    Unknown,
}

/// What keeps an event from being read as a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UndecodableReason {
    /// The type knows no events of this kind. Add a variant, or an alias; or ask for other kinds.
    UnknownKind,
    /// It was stored by a program that knows more versions. Update this one.
    NewerVersion,
    /// The bytes are of another type. If the type has changed, raise its version and write an upcaster.
    Mismatch,
    /// An upcaster refused it. Mend the upcaster.
    Upcaster,
}

/// Why a [`Gate`](crate::Gate) does not let an append pass.
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
    /// The name the gate was registered by; the store fills it in.
    pub gate: String,
    /// Why, for whoever asked: it is a part of the error's text, and of the record of denials.
    pub reason: String,
}

impl Denial {
    /// A denial for this reason.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Denial {
        Denial { gate: String::new(), reason: reason.into() }
    }
}

/// A gate that cannot find out denies.
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

    /// An operating system error on a file, sorted into the kind the caller can act on.
    pub(crate) fn no_space(text: impl Into<String>) -> Error {
        Error::new(ErrorKind::NoSpace, text)
    }

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

    /// `problem` follows the event's place and kind in the text.
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
        // A name in it may hold what turns the whole line around.
        let text = visible(&text).into_owned();
        Error(Arc::new(Inner { kind, text, detail }))
    }

    /// What the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The particulars of a [`ErrorKind::Conflict`] with a stream; `None` if a condition failed.
    #[must_use]
    pub fn conflict(&self) -> Option<&Conflict> {
        match &self.0.detail {
            Detail::Conflict(conflict) => Some(conflict),
            _ => None,
        }
    }

    /// The particulars of a [`ErrorKind::Conflict`] with an
    /// [`AppendCondition`](crate::AppendCondition).
    #[must_use]
    pub fn failed_condition(&self) -> Option<&FailedCondition> {
        match &self.0.detail {
            Detail::Condition(failed) => Some(failed),
            _ => None,
        }
    }

    /// The particulars of an [`ErrorKind::Undecodable`].
    #[must_use]
    pub fn undecodable(&self) -> Option<&Undecodable> {
        match &self.0.detail {
            Detail::Undecodable(event, _) => Some(event),
            _ => None,
        }
    }

    /// Which gate did not let the append pass, and why, for [`ErrorKind::Denied`].
    #[must_use]
    pub fn denial(&self) -> Option<&Denial> {
        match &self.0.detail {
            Detail::Denied(denial) => Some(denial),
            _ => None,
        }
    }

    /// The process that took the lock, for [`ErrorKind::Locked`], where it is known and has a number here. The text says
    /// whether it is this process, or does not run any more.
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

/// Why a file or directory is not safe to use; travels inside an [`io::Error`] from the disk.
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
