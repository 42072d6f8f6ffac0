//! A record: one event in a frame's body. Its public part outlives erasure, its private part does not.
//!
//! The caller's thread encodes and hashes records; the writer copies the bytes and never looks inside. A body
//! is a sequence of records, and zeros up to the alignment. Where compaction removed an event and another one
//! of its append stays, the hash of the record is left. SPEC.md "Record".

mod checks;
mod gone;
mod read;
mod write;

pub(super) use checks::LONG;
pub(crate) use checks::SALT;
pub(crate) use gone::{AnyRecord, all_records, events_left, records};
#[cfg(test)]
pub(crate) use read::PREFIX;
pub(crate) use read::{
    Record, RecordFields, RecordShape, check, ends_well, gone_bytes, lay_out, read, start_of, tags,
};
pub(super) use read::{length_at, version_at};
pub(crate) use write::{NewRecord, content, leave_hash, salt_place, seal, write};
pub(super) use write::{toggle_checksum, write_versions};
