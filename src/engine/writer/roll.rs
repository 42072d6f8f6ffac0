//! The end of a segment: room for the next frame, the next segment, and what a rewrite asks of the writer.
//!
//! The writer owns MANIFEST and the end of the log, so a rewrite of segments sends its changes to the writer.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::append::Request;
use crate::engine::queue::{Maintenance, poisoned};
use crate::format::frame;
use crate::log::Failure;
use crate::read::{Segment, build_pending_indexes};
use crate::threads::once;
use crate::types::{Error, Position};

use super::Writer;
use super::replies::Refusal;

impl Writer {
    /// Makes room for the frame of an append: begins a new segment or syncs, if the log needs it.
    pub(super) fn make_room(&mut self, request: &Request) -> Result<(), Error> {
        self.check_working()?;
        let version_table = request.target_of.len() * 8;
        let bytes = frame::FRAME_FIXED_BYTES + frame::KEY_BYTES + version_table + request.body.len();
        let max = usize::try_from(self.log.frame_bytes_max(bytes)).unwrap_or(usize::MAX);
        if bytes > max {
            return Err(Error::too_large("the append", bytes, "unsynced_bytes_max", max));
        }
        if self.log.must_roll(bytes) {
            // The staged frames belong to the old segment.
            self.commit_group(None, &mut None);
            // The commit may have failed.
            self.check_working()?;
            self.roll()?;
        } else if self.log.must_sync(bytes) {
            self.group.must_sync = true;
            self.commit_group(None, &mut None);
            self.check_working()?;
        }
        Ok(())
    }

    /// Seals the segment, and begins the next one. Nothing may be staged.
    fn roll(&mut self) -> Result<(), Error> {
        if let Err(failure) = self.log.roll(self.group.now, self.streams_begun_in_segment()) {
            let (refusal, error) = self.fail(failure);
            // Sealing may have made durable what was written before.
            self.publish_heads();
            self.wake_followers();
            return Err(match refusal {
                Refusal::Refused => error,
                Refusal::Poisoned | Refusal::Panicked => poisoned(&error),
            });
        }
        // Sealing synced everything.
        self.session.flush_by = None;
        self.heads.rotate(Position::from(self.log.written().position).plus(1));
        self.segment = Arc::new(Segment::live(self.log.segment().clone(), self.log.written()));
        self.view.add_segment(self.segment.clone());
        let view = self.view.clone();
        let segment_cache = self.segment_cache.clone();
        self.background.run_in(Duration::ZERO, once(move || build_pending_indexes(&view, &segment_cache)));
        // After the segment is added: the new head may be in it.
        self.publish_heads();
        self.wake_followers();
        Ok(())
    }

    /// How many streams begin in the segment that is written to. Not known if an index cannot be read.
    fn streams_begun_in_segment(&self) -> Option<u32> {
        let snapshot = self.view.snapshot();
        let own = snapshot.segments.iter().rev().take_while(|segment| segment.shares_file(&self.segment));
        own.map(|segment| segment.ask(|index| Ok(index.streams_created()))).sum::<Result<u32, Error>>().ok()
    }

    /// Does what a rewrite of segments asks, and returns the history revision.
    pub(super) fn maintain(&mut self, maintenance: Maintenance) -> Result<u64, Error> {
        // The appends before are committed first: a failure here must not be theirs.
        self.commit_group(None, &mut None);
        if let Some(reason) = self.poison() {
            return Err(poisoned(reason));
        }
        let done = match maintenance {
            Maintenance::Roll if self.log.has_frames() => {
                self.roll()?;
                Ok(())
            }
            Maintenance::Roll => Ok(()),
            Maintenance::Exchange(exchange) => {
                // The last roll may have found no room for the next segment. Then the log ends in a sealed
                // one, and no append may come for a while to roll again.
                if self.log.is_sealed() {
                    self.roll()?;
                }
                self.log.exchange(&exchange)
            }
            Maintenance::Raise => self.log.raise_history(),
            Maintenance::Poison(error) => Err(Failure::Poison(error)),
        };
        match done {
            Ok(()) => Ok(self.log.history_revision()),
            Err(Failure::Refused(error)) => Err(error),
            Err(poison) => {
                let (_, error) = self.fail(poison);
                self.wake_followers();
                Err(poisoned(&error))
            }
        }
    }
}
