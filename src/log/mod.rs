//! The log: segment files of frames, one behind the other, and the two small files MANIFEST and MARK.
//!
//! [`Log`] appends, and [`recover`] finds where the log ends when a store is opened. [`SegmentCursor`] reads
//! a segment in order, and [`Block`] holds frames for random reads. [`SegmentDraft`] is a sealed segment
//! written anew. The log knows frames and events as bytes. It knows no queries, no receipts and no threads.

mod append;
mod create;
mod cursor;
mod frame_writer;
mod manifest_file;
mod mark_file;
mod preallocate;
mod recovery;
mod rewrite;
mod segment;
#[cfg(test)]
mod tests;

pub(crate) use append::Log;
pub(crate) use create::{LogOptions, create_store, new_line, new_store_id};
#[cfg(test)]
pub(crate) use cursor::chain_after;
pub(crate) use cursor::{
    Advance, CHAIN_BROKEN, FRAME_BYTES_MAX, LogEnd, POSITION_MAX, SEAL_MISFITS, SegmentCursor, SegmentEnd,
    SegmentItem, Window, chain_and_records,
};
pub(crate) use frame_writer::NewFrame;
pub(crate) use manifest_file::{Effect, Exchange, replace_manifest};
pub(crate) use mark_file::create_mark_file;
pub(crate) use recovery::scan_dir::{
    HEADERS_CHECKED_MAX, Outline, Stamp, could_be_new, is_leftover, list, manifest_stamp, read_manifest,
    read_mark, read_slots, unlisted_text,
};
pub(crate) use recovery::tail::{Evidence, Verdict, evidence, finish_cut, judge, remove_mark};
pub(crate) use recovery::{Purpose, Recovered, recover};
pub(crate) use rewrite::{
    Candidate, ENVELOPE_BYTES, Fate, Forecast, Judge, RewritePlan, SegmentDraft, judge_all, remove,
};
pub(crate) use segment::{Block, Failure, SegmentFile, damaged, missing, missing_text};
