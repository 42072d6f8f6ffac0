//! Events as lines of JSON: out of a store, and into one.
//!
//! An export is one event a line, by a schema that says everything there is to know of an event. An import reads such lines, or
//! those of somebody else by a [`Mapping`]; how far it is stands in the same append as the events, so that it can be repeated after any stop.
//! Row: app. The promises are in SPEC.md "Export and import". Tested by tests/it/jsonl.rs.

mod exact;
mod export;
mod import;
mod imported;
mod incoming;
mod line;
mod mapping;
mod other;
mod source;
mod time;

pub use export::{Export, ExportProgress, Exported};
pub use import::Import;
pub use imported::{ImportProgress, Imported};
pub use mapping::Mapping;
pub use time::{TimeForm, Timestamp};
