//! annals keeps events: what happened, in order, for good.
//!
//! An embedded event sourcing runtime for synchronous Rust. One directory, one writer thread, no
//! server, no async runtime. An append that is acknowledged is durable.
//!
//! ```
//! use annals::{DomainEvent, Meta, Projection, Store};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize, DomainEvent)]
//! #[event(prefix = "account")]
//! enum AccountEvent {
//!     Opened { owner: String },
//!     Deposited { cents: u64 },
//! }
//!
//! #[derive(Clone, Default, Serialize, Deserialize)]
//! struct Account { cents: u64 }
//!
//! impl Projection for Account {
//!     type Event = AccountEvent;
//!     const NAME: &'static str = "account";
//!
//!     fn apply(&mut self, event: AccountEvent, _: &Meta<'_>) {
//!         if let AccountEvent::Deposited { cents } = event {
//!             self.cents += cents;
//!         }
//!     }
//! }
//!
//! # let path = std::env::temp_dir().join(format!("annals-doc-tour-{}", std::process::id()));
//! let store = Store::open(&path)?;
//! store.append("account:alice", &AccountEvent::Opened { owner: "Alice".to_owned() })?;
//! store.append("account:alice", &AccountEvent::Deposited { cents: 500 })?;
//! assert_eq!(store.load::<Account>("account:alice")?.cents, 500);
//! # store.close()?;
//! # std::fs::remove_dir_all(path).unwrap();
//! # Ok::<(), annals::Error>(())
//! ```
//!
//! # The tour
//!
//! An **event** is addressed to an **entity** (`account:alice`), whose events are its **stream**, and
//! to a **scope** that cuts across entities. It has a stable **kind** (`account.deposited`). [`trait@DomainEvent`]
//! makes an enum or a struct an event type, whose shape may change with the years; [`Raw`] appends any serde value under
//! any kind, and the examples below do, because they are short.
//!
//! [`Store::append`] takes one event. [`Append`] takes several, for one entity or many, all or
//! nothing, and says what must be true for them to go in:
//!
//! ```
//! use annals::{Append, ErrorKind, Expected, Raw, Store};
//!
//! let store = Store::in_memory()?;
//! store.append("account:alice", &Raw("account.deposited", &500))?;
//!
//! let transfer = || {
//!     Append::to("account:alice")
//!         .expect(Expected::exact(1))                     // decided against version 1
//!         .event(&Raw("account.withdrawn", &200))
//!         .and_to("account:bob")
//!         .event(&Raw("account.deposited", &200))
//!         .key("transfer-17")                             // a retry writes nothing twice
//! };
//! let receipt = transfer().commit(&store)?;
//! assert_eq!(receipt.position().get(), 3);
//! assert!(transfer().commit(&store)?.replayed());
//!
//! let late = Append::to("account:alice").expect(Expected::exact(1)).event(&Raw("account.closed", &()));
//! let refused = late.commit(&store).unwrap_err();
//! assert_eq!(refused.kind(), ErrorKind::Conflict);
//! assert_eq!(refused.conflict().unwrap().actual.get(), 2);
//! # Ok::<(), annals::Error>(())
//! ```
//!
//! [`Append::submit`] hands an append over without waiting; a [`Ticket`] waits for it, polls it, or is
//! awaited. Appends that are in flight at the same time share one sync, which is what makes
//! durability fast.
//!
//! [`Store::read`] answers a [`Query`] (entity, prefix, scope, kinds, tags, correlation) as an
//! iterator, after a position, by versions, by time, backwards, limited:
//!
//! ```
//! use annals::{Append, Query, Raw, Store};
//!
//! let store = Store::in_memory()?;
//! for n in 0..10 {
//!     let enrolled = Append::to(format!("course:{}", n % 2)).event(&Raw("student.enrolled", &n));
//!     enrolled.tag(format!("student:{n}")).commit(&store)?;
//! }
//! let newest = store.read(Query::entity_prefix("course:").kind("student.enrolled")).backwards().limit(3);
//! let students: Vec<u32> = newest.map(|event| event?.decode()).collect::<Result<_, _>>()?;
//! assert_eq!(students, [9, 8, 7]);
//! # Ok::<(), annals::Error>(())
//! ```
//!
//! [`Store::subscribe`] goes on where a read ends: the events that are there, then those that come,
//! without a gap. [`Store::notifications`] gives hints that are lost rather than waited for.
//!
//! [`Store::count`], [`Store::exists`] and [`Store::last`] answer from the index; [`Store::entities`] and
//! its like list names. [`Store::ancestors`], [`Store::descendants`] and [`Store::story`] follow what
//! brought what about, [`Store::path`] and [`Store::leaves`] the branches of one entity:
//!
//! ```
//! use annals::{Append, Cause, Query, Raw, Store};
//!
//! let store = Store::in_memory()?;
//! let order = Append::to("order:1").event(&Raw("order.placed", &()));
//! let order = order.and_to("stock:4").event(&Raw("stock.reserved", &2)).cause(Cause::InAppend(0));
//! let receipt = order.commit(&store)?;
//! assert_eq!(store.count(Query::entity_prefix("order:"))?, 1);
//! let story = store.story(receipt.ids().next().unwrap())?;
//! assert!(story.to_string().contains("└─ +0s stock:4 v1 stock.reserved @2"));
//! # Ok::<(), annals::Error>(())
//! ```
//!
//! **State** is folded from events and cached, never stored: [`Store::load`] a [`Projection`] of an entity, [`Store::load_at`] as
//! it was, with its [`Store::history`]; [`Store::project`] keeps the state of a query. An [`Aggregate`] also decides:
//! [`Store::execute`] has it decide about a command, and [`Store::decide`] decides on the events of any query, wherever
//! they are. A [`Gate`] judges every append and knows its caller; a [`Transition`] makes what comes in the wrong order a compile-time
//! error.
//!
//! **Reacting.** [`Store::consumer`] is a subscription with a name, whose checkpoint is in the log; [`Store::react`] starts a
//! [`Reactor`], whose reactions go in exactly once; [`Store::consumers`] says who is behind, stuck or halted, and why, and
//! [`Store::consumer_control`] moves them. A [`Timer`] appends something later, unless something else comes first.
//! The feature `test-kit` has `annals::test`, which tests all of these, crashes included.
//!
//! **Keeping.** [`Store::backup`] copies a store while it is appended to, [`restore`] makes it again from that, up to a place in its
//! history, [`Store::fork`] makes another of it. [`Store::checkpoint`] names a place, [`Builder::rollback`] goes back to one.
//! A [`Head`] kept elsewhere proves a copy whole: [`verify_backup`].
//! **Keeping less.** [`Store::erase`] takes payload and metadata of events out of everything the store keeps, and leaves the proof that
//! they happened; [`Store::compaction`] removes events by query, age, position or count, and makes large segments of small ones.
//! Positions, versions, ids and heads stay what they were.
//!
//! # Guarantees
//!
//! - **Durability.** An acknowledged append survives a power cut ([`Durability::Synced`], the
//!   default), or at least the end of the process ([`Durability::Buffered`]).
//! - **Atomicity.** An append is there as a whole or not at all, whatever the number of entities.
//! - **Order.** Positions and versions have no gaps, are never renumbered, and follow the order in
//!   which one thread submitted. What is acknowledged can be read.
//! - **Honest failure.** An error says whether it is definite ([`Error::is_definite`]). After a failed
//!   sync nobody is told "ok" until the store was reopened. A full disk refuses appends and loses
//!   nothing.
//! - **Evidence.** Every read checks checksums; a hash chain over everything shows any later change
//!   ([`Store::verify`], [`Store::head`]). Opening tells a torn tail, which it cuts and keeps aside,
//!   from damage, which it refuses to touch ([`Store::open_report`]).
//!
//! SPEC.md in the repository has the promises and the bytes in full.
//!
//! # The code
//!
//! From the bottom up; a file uses only what stands above it in this list, which a test checks.
//!
//! | files | what |
//! |---|---|
//! | `version` `id` `query` `condition` `error` `coordinate` `event` `head` `options` `report` `bell` `text` | words: plain values; what threads of ours sleep on; what a panic said |
//! | `disk/` | where files are: a directory, memory, a simulation that fails on demand |
//! | `format/` `codec/` `matching` `recorded` `typed` | every byte on disk; payloads; whether an event matches a query; an event as it was read, and as the type it was written as |
//! | `log/` | segments: append, sync, roll, recover |
//! | `index/` | terms to events, per segment: in memory, and as a file |
//! | `commit` `housekeeper` | pure decisions; threads for jobs that may wait, or take long |
//! | `shelf/` | what is kept in memory and open of segments that are written to no more |
//! | `view` `indexing` `load` | what readers may see, and waking those who wait for more; index files of what was sealed; opening |
//! | `append` `resolve` `receipt` `counters` `queue` | an append on the caller's side, and on its way |
//! | `notification` | hints to those who listen |
//! | `writer` | the thread: take, decide, append, sync, publish, reply, wake who follows |
//! | `reader` `listing` `causes` `story` | reading; which names there are; what brought what about |
//! | `ticket` `subscription` | waiting for an append; following |
//! | `follower` | a store opened to read keeps up with its writer |
//! | `engine` | all of it as one thing |
//! | `cache/` | states folded before: in memory, and on disk |
//! | `ops/` | what operators do: verify, erase, checkpoints, what the ledger says of it |
//! | `turns` `running` | who decides next where many do; which consumers run in this process, and how to wake them |
//! | `store/` | the facade, and the gates before it |
//! | `consumer/` `reactor/` | checkpoints: how far each named consumer is, and who may move it; threads that react |
//! | `compact` | what is to go, and small segments that become larger ones |
//! | `projection/` | folding events into state: now, in the past, twice to compare, of a query |
//! | `timer/` | append this at a time, unless that has come |
//! | `jsonl/` | events as lines of JSON, out and in (feature `jsonl`) |
//! | `executed` `aggregate` `decide` `transition` | deciding about one entity, about a query, in an order that compiles |
//! | `test/` | for the tests of those who build on annals |

#![forbid(unsafe_code)]
#![deny(missing_docs, unreachable_pub)]
#![deny(
    clippy::unwrap_used,
    clippy::panic,
    clippy::todo,
    clippy::dbg_macro,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_lossless
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, unreachable_pub))]

mod aggregate;
mod append;
mod bell;
mod cache;
mod causes;
mod codec;
mod commit;
mod compact;
mod condition;
mod consumer;
mod coordinate;
mod counters;
mod decide;
pub mod disk;
mod engine;
mod error;
mod event;
mod executed;
mod follower;
mod format;
mod head;
mod housekeeper;
mod id;
mod index;
mod indexing;
#[cfg(feature = "jsonl")]
mod jsonl;
mod listing;
mod load;
mod log;
mod matching;
mod notification;
mod ops;
mod options;
mod projection;
mod query;
mod queue;
mod reactor;
mod reader;
mod receipt;
mod recorded;
mod report;
mod resolve;
mod running;
mod shelf;
mod store;
mod story;
mod subscription;
#[cfg(feature = "test-kit")]
pub mod test;
mod text;
mod ticket;
mod timer;
mod transition;
mod turns;
mod typed;
mod version;
mod view;
mod writer;

/// Makes an enum or a struct a [`trait@DomainEvent`], which has the tour.
pub use annals_macros::DomainEvent;

pub use crate::{
    aggregate::Aggregate,
    append::{Append, Proposed, ProposedEvent},
    causes::{Ancestors, Descendants},
    codec::{Raw, Value},
    compact::Compaction,
    condition::AppendCondition,
    consumer::{Consumer, ConsumerControl, ConsumerState, ConsumerStatus, Halt},
    coordinate::{Coordinate, DEFAULT_SCOPE},
    error::{Conflict, Denial, Error, ErrorKind, FailedCondition, Undecodable, UndecodableReason},
    event::{Cause, EventData, EventId},
    executed::{Executed, Outcome, Refused},
    head::{Head, ResumeToken},
    listing::{Listed, Listing},
    notification::{NextNotice, Notice, Notification, Notifications},
    ops::backup::CopyReport,
    ops::checkpoint::Checkpoint,
    ops::compact::Per,
    ops::history::Until,
    ops::rollback::RollbackReport,
    ops::verify::Verify,
    options::{Durability, KeyWindow, Limits, RestartPolicy},
    projection::{
        At, CatchUp, Change, Departure, Diff, Freshness, History, Loaded, Moment, Parted, Projection,
        ReadModel, ReadModelStatus, ReplayCheck, ReplayProgress, ReplayReport, diff,
    },
    query::Query,
    reactor::{Reaction, Reactor, Retry, StopReason, Worker, WorkerBuilder},
    reader::{Read, ReadAhead},
    receipt::Appended,
    recorded::RecordedEvent,
    report::{
        Break, CacheStats, Compacted, CompactionPlan, CompactionShare, CompactionStats, CopyProgress, Cut,
        Description, Erasure, IndexFlaw, IndexProgress, MissingCause, OpenProgress, OpenReport, Part,
        RewriteProgress, ScrubStats, Stats, SubscriptionLag, Unhandled, VerifyProgress, VerifyReport,
        WriterState,
    },
    store::{Builder, Gate, Permit, Store, StoreCopy, restore, verify_backup},
    story::{Story, StoryEvent},
    subscription::{NextEvent, Subscription},
    text::{visible, visible_json},
    ticket::{Pending, Ticket},
    timer::{Timer, TimerStatus, Timers},
    transition::{EntityState, InState, Transition},
    typed::{DomainEvent, KnownKind, Meta},
    version::{Expected, Position, Version},
};

#[cfg(feature = "jsonl")]
pub use crate::jsonl::{
    Export, ExportProgress, Exported, Import, ImportProgress, Imported, Mapping, TimeForm, Timestamp,
};

// What the code calls that the macro writes. No part of what annals promises.
#[doc(hidden)]
pub use crate::typed::derive as __derive;
