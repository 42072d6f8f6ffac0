//! annals: an embedded event sourcing runtime for synchronous Rust.
#![deny(missing_docs)]
mod append;
mod codec;
mod commit;
mod coordinate;
mod counters;
pub mod disk;
mod engine;
mod error;
mod event;
mod format;
mod head;
mod index;
mod log;
mod ops;
mod options;
mod query;
mod queue;
mod reader;
mod receipt;
mod recorded;
mod report;
mod store;
mod ticket;
mod version;
mod view;
mod writer;

pub use crate::{
    append::Append,
    codec::Raw,
    coordinate::{Coordinate, DEFAULT_SCOPE},
    error::{Conflict, Error, ErrorKind},
    event::{Cause, EventData, EventId},
    head::Head,
    options::{Durability, KeyWindow, Limits},
    query::Query,
    reader::Read,
    receipt::Appended,
    recorded::RecordedEvent,
    report::{Break, Cut, OpenReport, Stats, VerifyReport},
    store::{Builder, Store},
    ticket::{Pending, Ticket},
    version::{Expected, Position, Version},
};
