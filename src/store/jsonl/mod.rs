//! Events as lines of JSON: out of a store, and into one.
//!
//! An export is one event a line, by a schema that says everything there is to know of an event. An import reads such lines, or
//! those of somebody else by a [`Mapping`]; how far it is stands in the same append as the events, so that it can be repeated after any stop.
//! Row: app. The promises are in SPEC.md "Export and import". Tested by tests/it/jsonl.rs.

mod export;
mod import;
mod import_run;
mod json;
mod line;
mod mapping;
mod report;
mod source;
mod time;

pub use export::Export;
pub use import::Import;
pub use mapping::Mapping;
pub use report::{ExportProgress, Exported, ImportProgress, Imported};
pub use time::{TimeForm, Timestamp};
