//! Publishes the frames that a follower has walked, and notifies the listeners.
//!
//! Invariant: each event after the opening is notified once. The follower remembers the last notified position
//! (`told`), so an error between the walk and the notification delays hints, and loses none.
//! Tested by tests/it/read_along.rs.

use std::sync::Arc;

use crate::format::Frame;
use crate::log::{LogEnd, SegmentCursor};
use crate::read::{Listeners, Point, Segment, View};
use crate::types::{Error, Position};

/// What a follower publishes to.
pub(super) struct Publisher {
    pub(super) view: Arc<View>,
    pub(super) listeners: Arc<Listeners>,
}

impl Publisher {
    /// Notifies the listeners of every published event after `told`, from the files, and advances `told`.
    ///
    /// The writer may rewrite a segment and remove the file that is read here. Then `told` stays at the last
    /// notified event, and the next call continues after it, in the new file.
    pub(super) fn tell_since(&self, told: &mut Position) -> Result<(), Error> {
        // The head is read before the count: a listener that is added later hears only of events after this head.
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
            let mut cursor = SegmentCursor::new(last.file()?, last.end())?.trusting_chain();
            cursor.visit_frames(|_, frame, tip| {
                if tip.position > told.get() {
                    let first = last.position(frame.header.position_offset());
                    heard.push((first.into(), [frame.header.bytes(), frame.body].concat()));
                }
                if heard.len() >= NOTIFY_FRAMES_MAX {
                    self.tell(&mut heard);
                    *told = tip.position.into();
                }
                Ok(())
            })?;
            self.tell(&mut heard);
            *told = Position::from(cursor.end().position).max(*told);
        }
        *told = head;
        Ok(())
    }

    fn tell(&self, heard: &mut Vec<(Position, Vec<u8>)>) {
        if !heard.is_empty() {
            self.listeners.tell(heard.iter().map(|(first, bytes)| (*first, Frame::known(bytes))));
            heard.clear();
        }
    }
}

/// Frames that were walked and are not published yet.
pub(super) struct FrameBatch<'a> {
    publisher: &'a Publisher,
    frames: u32,
    /// The end of the last walked frame.
    walked: Option<LogEnd>,
    /// Copies of the frames for the listeners, each with its first position.
    heard: Vec<(Position, Vec<u8>)>,
    /// Whether `heard` holds every frame after `told`.
    has_all: bool,
    /// The position up to which the listeners were notified.
    pub(super) told: Position,
}

/// A follower that is far behind publishes after this many frames.
const PUBLISH_AFTER_FRAMES: u32 = 1024;
/// The listeners are notified of about this many frames at once.
const NOTIFY_FRAMES_MAX: usize = 1024;

impl<'a> FrameBatch<'a> {
    pub(super) fn new(publisher: &'a Publisher, told: Position) -> FrameBatch<'a> {
        let has_all = told == publisher.view.snapshot().head.position;
        FrameBatch { publisher, frames: 0, walked: None, heard: Vec::new(), has_all, told }
    }

    pub(super) fn add(&mut self, segment: &Segment, frame: &Frame<'_>, tip: &LogEnd) {
        self.frames += 1;
        self.walked = Some(*tip);
        // A listener that is added between two frames hears of the whole batch: it is notified of the frames that
        // `heard` misses from the files.
        self.has_all &= self.publisher.listeners.count() > 0;
        if self.has_all {
            let first = segment.position(frame.header.position_offset());
            self.heard.push((first.into(), [frame.header.bytes(), frame.body].concat()));
        }
        if self.frames == PUBLISH_AFTER_FRAMES {
            self.publish(tip);
        }
    }

    pub(super) fn publish_walked(&mut self) {
        if let Some(tip) = self.walked {
            self.publish(&tip);
        }
    }

    pub(super) fn publish(&mut self, tip: &LogEnd) {
        let head = Point::from(tip);
        self.publisher.view.publish(head, head);
        self.publisher.view.wake();
        if self.has_all {
            self.publisher.tell(&mut self.heard);
            self.told = head.position;
        } else if let Err(error) = self.publisher.tell_since(&mut self.told) {
            tracing::debug!(%error, "the listeners are notified by the next refresh");
        }
        self.heard.clear();
        self.has_all = self.told == head.position;
        self.frames = 0;
        self.walked = None;
    }
}
