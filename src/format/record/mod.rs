//! A record: one event in a frame's body. Its public part outlives erasure, its private part does not.
//!
//! The caller's thread encodes and hashes records; the writer copies the bytes and never looks inside. A body
//! is a sequence of records, and zeros up to the alignment. SPEC.md "Record".

mod checks;
mod read;
mod write;

pub(super) use checks::LONG;
pub(crate) use checks::SALT;
#[cfg(test)]
pub(crate) use read::PREFIX;
pub(crate) use read::{
    Record, RecordFields, RecordShape, check, ends_well, lay_out, read, records, start_of, tags,
};
pub(super) use read::{length_at, version_at};
pub(crate) use write::{NewRecord, content, leave_hash, salt_place, seal, write};
pub(super) use write::{toggle_checksum, write_versions};
