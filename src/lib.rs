//! An embedded event sourcing runtime for synchronous Rust.
//!
//! One directory, one writer thread, no server, no async runtime. An acknowledged append is durable.
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
//! An **event** is addressed to an **entity** (`account:alice`), whose events are its **stream**, and to a
//! **scope**, a label across entities. Each event has a stable **kind** (`account.deposited`).
//! [`trait@DomainEvent`] makes an enum or a struct an event type whose shape may change over the years.
//! [`Raw`] appends any serde value under any kind; the examples below use it because it is short.
//!
//! [`Store::append`] takes one event. [`Append`] takes several events, of one entity or many, all or nothing,
//! and says what must be true for them to be appended:
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
//! [`Append::submit`] hands an append over without waiting. The caller waits for its [`Ticket`], polls it, or
//! awaits it. Appends in flight at the same time share one sync, which makes durability fast.
//!
//! [`Store::read`] answers a [`Query`] (entity, prefix, scope, kinds, tags, correlation) as an iterator:
//! after a position, by versions, by time, backwards, limited:
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
//! [`Store::subscribe`] reads the events that are there and then follows the log, without a gap.
//! [`Store::notifications`] gives hints that may be lost: a slow listener never holds up the writer.
//!
//! [`Store::count`], [`Store::exists`] and [`Store::last`] answer from the index. [`Store::entities`] and its
//! relatives list names. [`Store::ancestors`], [`Store::descendants`] and [`Store::story`] follow causes;
//! [`Store::path`] and [`Store::leaves`] follow the branches of one entity:
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
//! **State** is folded from events and cached; it is never the record. [`Store::load`] folds a [`Projection`]
//! of one entity, and [`Store::load_at`] folds it as it was. [`Store::history`] gives each state on the way.
//! [`Store::project`] keeps the state of a query up to date. An [`Aggregate`] decides: [`Store::execute`]
//! loads it and lets it answer a command. [`Store::decide`] decides on the events of any query, across
//! entities. A [`Gate`] judges every append and knows its caller. A [`Transition`] turns events in the wrong
//! order into a compile-time error.
//!
//! **Reacting.** [`Store::consumer`] is a subscription with a name, whose checkpoint is in the log.
//! [`Store::react`] starts a [`Reactor`], whose reactions are appended exactly once. [`Store::consumers`]
//! says which consumer is behind, stuck or halted, and why; [`Store::consumer_control`] moves them. A
//! [`Timer`] appends an event later, unless another event comes first. `annals::test` tests all of these,
//! crashes included (feature `test-kit`).
//!
//! **Copies.** [`Store::backup`] copies a store while it is appended to. [`restore`] makes a store from a
//! backup, up to any place in its history; [`Store::fork`] makes another store of it. [`Store::checkpoint`]
//! names a place, and [`Builder::rollback`] goes back to it. [`verify_backup`] proves a copy whole against a
//! [`Head`] kept elsewhere.
//!
//! **Erasure.** [`Store::erase`] removes payload and metadata of events from all that the store keeps, and
//! leaves the proof that they happened. [`Store::compaction`] removes whole events by query, age, position or
//! count, and merges small segments. Positions, versions, ids and heads never change.
//!
//! # Guarantees
//!
//! - **Durability.** An acknowledged append survives a power cut ([`Durability::Synced`], the default), or at
//!   least the end of the process ([`Durability::Buffered`]).
//! - **Atomicity.** An append is there as a whole or not at all, across any number of entities.
//! - **Order.** Positions and versions have no gaps, are never renumbered, and follow the order in which one
//!   thread submitted. An acknowledged append can be read at once.
//! - **Honest failure.** An error says whether it is definite ([`Error::is_definite`]). After a failed sync
//!   the store acknowledges nothing until it is opened again. A full disk refuses appends and loses nothing.
//! - **Evidence.** Every read checks checksums. A hash chain over all events shows any later change
//!   ([`Store::verify`], [`Store::head`]). Opening tells a torn tail, which it cuts off and keeps aside, from
//!   damage, which it refuses to touch ([`Store::open_report`]).
//!
//! SPEC.md in the repository has the promises and the bytes in full.
//!
//! # The code
//!
//! Fourteen rooms, from the bottom up. A room uses only rooms above it in this list, and only what their
//! `mod.rs` exports; a test checks both. The document docs/architecture.md walks through an append, a read
//! and a reaction.
//!
//! | room | what is in it |
//! |---|---|
//! | `threads` | background threads: one way to wake them, one way to stop them |
//! | `types` | values: coordinate, version, position, ids, query, condition, options, reports, error |
//! | `disk` | where bytes go: a directory, memory, a simulation that fails on demand |
//! | `format` | every byte on disk |
//! | `event` | events in and out: payload codec, typed events, upcasters, recorded events, receipts |
//! | `log` | segments: append, sync, roll, recover, rewrite |
//! | `index` | terms to events: live in memory, sealed in a file |
//! | `read` | snapshots, segment cache, reader, listings, causality, subscriptions, notifications |
//! | `engine` | one open store: append, queue, decide, writer, ticket, open, close, follow a writer |
//! | `maintenance` | verify, compact, erase, backup, restore, fork, rollback, salvage, scrub |
//! | `store` | the facade: `Store`, `Builder`, gates, state cache, export and import |
//! | `consume` | consumers, reactors, timers |
//! | `state` | projections, read models, aggregates, decisions |
//! | `test` | the test kit for users |

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

mod consume;
pub mod disk;
mod engine;
mod event;
mod format;
mod index;
mod log;
mod maintenance;
mod read;
mod state;
mod store;
#[cfg(feature = "test-kit")]
pub mod test;
mod threads;
mod types;

/// Derives [`trait@DomainEvent`] for an enum or a struct; the trait's page has the tour.
pub use annals_macros::DomainEvent;

pub use crate::{
    consume::{
        Consumer, ConsumerControl, ConsumerState, ConsumerStatus, Halt, Reaction, Reactor, Retry, StopReason,
        Timer, TimerStatus, Timers, Worker, WorkerBuilder,
    },
    engine::{Append, Pending, Proposed, ProposedEvent, Ticket},
    event::{
        Appended, DomainEvent, KnownKind, Meta, Raw, RecordedEvent, TreeHead, TreeLeaf, TreeProof, Value,
    },
    maintenance::{Checkpoint, CopyReport, GroupBy, RollbackReport, Until, Verify},
    read::{
        Ancestors, Descendants, Listing, NameCount, NextEvent, NextNotice, Notice, Notification,
        Notifications, Read, ReadAhead, Story, StoryEvent, Subscription,
    },
    state::{
        Aggregate, At, CatchUp, Change, Diff, Divergence, DivergenceKind, EntityState, Executed, Freshness,
        History, InState, Loaded, Outcome, Projection, ReadModel, ReadModelStatus, Refused, ReplayCheck,
        ReplayProgress, ReplayReport, StateAt, Transition, diff,
    },
    store::{Builder, Compaction, Gate, GateDecision, Store, StoreCopy, restore, verify_backup},
    types::{
        AppendCondition, CacheStats, Cause, Compacted, CompactionPlan, CompactionShare, CompactionStats,
        Conflict, Coordinate, CopyProgress, DEFAULT_SCOPE, Denial, Description, Durability, Erasure, Error,
        ErrorKind, EventData, EventId, Expected, FailedCondition, Finding, Head, IndexFlaw, IndexProgress,
        KeyWindow, Limits, MissingCause, OpenProgress, OpenReport, Position, Query, RestartPolicy,
        ResumeToken, RewriteProgress, ScrubStats, Stats, StoreFile, SubscriptionLag, TruncatedTail,
        Undecodable, UndecodableReason, Unhandled, VerifyProgress, VerifyReport, Version, WriterState,
        visible, visible_json,
    },
};

#[cfg(feature = "jsonl")]
pub use crate::store::{
    Export, ExportProgress, Exported, Import, ImportProgress, Imported, Mapping, TimeForm, Timestamp,
};

// Called by the code that the derive macro writes. Not part of the public API.
#[doc(hidden)]
pub use crate::event::derive as __derive;
