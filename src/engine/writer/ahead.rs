//! Says that recorded-at runs ahead of the clock: it was wrong once, or is now.
//!
//! Row: writer.

use crate::types::{RECORDED_AHEAD_MAX, options};

use super::Writer;

impl Writer {
    /// Warns once, and again only after the clock has caught up.
    pub(super) fn look_at_clock(&mut self) {
        let ahead = options::ahead(self.log.written().recorded_at, self.state.now);
        if ahead > RECORDED_AHEAD_MAX && !self.state.is_ahead {
            self.state.is_ahead = true;
            tracing::warn!(
                ?ahead,
                "recorded-at is ahead of the clock, which was set back, or was wrong once: it stands still until the clock has caught up"
            );
        } else if ahead.is_zero() {
            self.state.is_ahead = false;
        }
    }
}
