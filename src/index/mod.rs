//! The index of one segment: which events carry a name, an id or a key, and where each event lies.
//!
//! It is an inverted index. Each term (an entity, a scope, a kind, a tag, an id, a key) has a posting list of
//! ordinals. An ordinal is an event's position, counted from the segment's first position. Ordinals grow
//! without gaps, unless frames were removed on purpose. An offset table maps each ordinal to its frame.
//!
//! [`LiveIndex`] is in memory and grows frame by frame; [`SealedIndex`] is an immutable file. Both answer the
//! same questions, [`SegmentIndex`], by the same code in `answers.rs`.
//! Invariant: events are inserted in order, so every posting list is sorted.

mod answers;
mod concat;
mod encode;
mod live;
mod names;
mod numbers;
mod postings;
mod query;
mod sealed;
#[cfg(test)]
mod tests;

pub(crate) use answers::SegmentIndex;
pub(crate) use live::LiveIndex;
pub(crate) use postings::{Direction, EventLocation};
pub(crate) use query::{NameField, NameFilter, NameSummary};
pub(crate) use sealed::{IndexDefect, SealedIndex};

pub(crate) use crate::format::index_file::{Bound, TermHash};
