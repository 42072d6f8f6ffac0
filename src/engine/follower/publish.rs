//! What a follower has walked over becomes visible, and the listeners are told of it.
//!
//! Invariant: each event behind the opening is told of once. The follower remembers up to where it has told
//! (`told`), so that an error between walking and telling delays hints, and loses none.
//! Row: follower. Tested by tests/it/read_along.rs.

use super::Follower;
use crate::format::Frame;
use crate::log::{LogEnd, SegmentFile, Walk, scan};
use crate::read::{ChainPosition, Segment};
use crate::types::{Error, Position};

impl Follower {
    /// Tells the listeners of every published event behind `told`, from the files, and moves `told` along.
    ///
    /// The writer may remove a file that is read here, because it rewrites the segment. Then `told` stays at
    /// the last event that was told of, and the next call goes on there, in the new file.
    pub(super) fn tell_since(&self, told: &mut Position) -> Result<(), Error> {
        // The head is read before the count: a listener that is added later hears only of what follows this head.
        let snapshot = self.view.snapshot();
        let head = snapshot.head.position;
        if self.listeners.count() == 0 || *told >= head {
            *told = head.max(*told);
            return Ok(());
        }
        let mut heard: Vec<(Position, Vec<u8>)> = Vec::new();
        for parts in snapshot.segments.chunk_by(|one, other| one.shares_file(other)) {
            let Some(last) = parts.last() else { continue };
            if last.position(last.ordinals().end) <= told.get().saturating_add(1) {
                continue;
            }
            let mut visit = |_: &SegmentFile, _, frame: &Frame<'_>, tip: &LogEnd| {
                if tip.position > told.get() {
                    let first = last.position(frame.header.position_offset());
                    heard.push((first.into(), [frame.header.bytes(), frame.body].concat()));
                }
                if heard.len() >= BATCH_MOST {
                    self.tell(&mut heard);
                    *told = tip.position.into();
                }
                Ok(())
            };
            let walk = &mut Walk { limit: last.end(), verify_chain_from: u32::MAX, visit: &mut visit };
            let tip = scan(last.file()?, walk)?.tip;
            self.tell(&mut heard);
            *told = Position::from(tip.position).max(*told);
        }
        *told = head;
        Ok(())
    }

    fn tell(&self, heard: &mut Vec<(Position, Vec<u8>)>) {
        if !heard.is_empty() {
            self.listeners.notify(heard.iter().map(|(first, bytes)| (*first, Frame::known(bytes))));
            heard.clear();
        }
    }
}

/// What was walked and is not published yet.
pub(super) struct Batch<'a> {
    follower: &'a Follower,
    frames: u32,
    /// Behind the last frame that was walked.
    walked: Option<LogEnd>,
    /// For the listeners: frames and their first positions.
    heard: Vec<(Position, Vec<u8>)>,
    /// Whether `heard` holds every frame behind `told`.
    has_all: bool,
    /// Up to here the listeners were told.
    pub(super) told: Position,
}

/// A reader that is far behind publishes what it has walked after this many frames.
const BATCH_FRAMES: u32 = 1024;
/// The listeners are told of at most about this many frames at once.
const BATCH_MOST: usize = 1024;

impl<'a> Batch<'a> {
    pub(super) fn new(follower: &'a Follower, told: Position) -> Batch<'a> {
        let has_all = told == follower.view.snapshot().head.position;
        Batch { follower, frames: 0, walked: None, heard: Vec::new(), has_all, told }
    }

    pub(super) fn add(&mut self, segment: &Segment, frame: &Frame<'_>, tip: &LogEnd) {
        self.frames += 1;
        self.walked = Some(*tip);
        // A listener that is added between two frames of a batch hears of the whole batch: of the frames
        // that are missing in `heard` it is told from the files.
        self.has_all &= self.follower.listeners.count() > 0;
        if self.has_all {
            let first = segment.position(frame.header.position_offset());
            self.heard.push((first.into(), [frame.header.bytes(), frame.body].concat()));
        }
        if self.frames == BATCH_FRAMES {
            self.publish(tip);
        }
    }

    pub(super) fn publish_walked(&mut self) {
        if let Some(tip) = self.walked {
            self.publish(&tip);
        }
    }

    pub(super) fn publish(&mut self, tip: &LogEnd) {
        let head = ChainPosition::from(tip);
        self.follower.view.publish(head, head);
        self.follower.view.wake();
        if self.has_all {
            self.follower.tell(&mut self.heard);
            self.told = head.position;
        } else if let Err(error) = self.follower.tell_since(&mut self.told) {
            tracing::debug!(%error, "the listeners are told by the next refresh");
        }
        self.heard.clear();
        self.has_all = self.told == head.position;
        self.frames = 0;
        self.walked = None;
    }
}
