//! What the writer does for those who rewrite segments: it owns MANIFEST, and the end of the log.
//!
//! Row: writer.

use crate::engine::queue::{Maintenance, poisoned};
use crate::log::Failure;
use crate::types::Error;

use super::Writer;

impl Writer {
    /// What was asked before is written and answered first, so that a failure here is nobody else's.
    pub(super) fn maintain(&mut self, maintenance: Maintenance) -> Result<u64, Error> {
        self.finish();
        if let Some(reason) = &self.state.poison {
            return Err(poisoned(reason));
        }
        let done = match maintenance {
            Maintenance::Roll if self.log.has_frames() => {
                self.roll()?;
                Ok(())
            }
            Maintenance::Roll => Ok(()),
            Maintenance::Exchange(exchange) => {
                // An append that found no room for the next segment may be the last one for a while.
                if self.log.is_sealed() {
                    self.roll()?;
                }
                self.log.exchange(&exchange)
            }
            Maintenance::Raise => self.log.raise_history(),
            Maintenance::Poison(error) => Err(Failure::Poison(error)),
        };
        done.map(|()| self.log.history_revision()).map_err(|failure| match failure {
            Failure::Refused(error) => error,
            poison => {
                let (_, error) = self.fail(poison);
                self.wake_followers();
                poisoned(&error)
            }
        })
    }
}
