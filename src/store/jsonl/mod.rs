//! Events as lines of JSON, out of a store and into one.
//!
//! An export writes one event a line, with everything known of the event. An import reads such lines, or
//! foreign ones by a [`Mapping`]. How far an import is stands in the same append as its events, so it can be
//! repeated after any stop. The schema and the promises are in docs/jsonl.md. Tested by tests/it/jsonl.rs.

mod export;
mod import;
mod import_run;
mod json;
mod line;
mod source;
mod time;

pub use export::{Export, ExportProgress, Exported};
pub use import::Import;
pub use import_run::{ImportProgress, Imported};
pub use line::Mapping;
pub use time::{TimeForm, Timestamp};
