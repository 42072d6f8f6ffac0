//! Rewritten segments take the place of others: what the log, which owns MANIFEST and MARK, has to do for that.
//!
//! Row: log.

use crate::disk::Access;
use crate::format::SEGMENT_HEADER_BYTES;
use crate::types::Error;

use super::files::Exchange;
use super::segment::wide;
use super::{Failure, Log};

impl Log {
    /// Whether the last segment has frames that are not sealed, so that rolling would end it.
    pub(crate) fn has_frames(&self) -> bool {
        wide(self.staged.offset) > SEGMENT_HEADER_BYTES
    }

    /// Whether the last segment is ended and the next one could not be begun; rolling tries that again.
    pub(crate) fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// Has MANIFEST list a rewritten segment in the place of others. MARK moves with it, so that who reads along looks at
    /// MANIFEST.
    ///
    /// The file must be there: after a panic this may be another log than the one it was made for, and its opening has
    /// removed what nobody listed.
    pub(crate) fn exchange(&mut self, exchange: &Exchange) -> Result<(), Failure> {
        let path = exchange.with.id.path();
        let length = self.disk.open(&path, Access::Read).and_then(|file| file.length());
        let length = length.map_err(|error| Failure::Refused(Error::io("cannot open", &path, error)))?;
        if length != u64::from(exchange.with.length) {
            return Err(Failure::Refused(Error::corrupt(
                &path,
                length,
                "the rewritten segment is not whole",
            )));
        }
        // Whatever slot of MARK a power cut leaves must not speak of a segment that is not there any more.
        while !self.mark.is_behind(exchange.with.last_position) {
            self.write_mark(false)?;
            self.sync_mark()?;
        }
        self.bytes_written += self.manifest.exchange(self.disk.as_ref(), exchange)?;
        self.write_mark(false)
    }

    /// Raises the history revision, if history was changed since that was done last. MARK moves with it.
    pub(crate) fn raise_history(&mut self) -> Result<(), Failure> {
        if !self.manifest.is_changing() {
            return Ok(());
        }
        match self.manifest.raise(self.disk.as_ref()) {
            // What MANIFEST says of it on the disk is as good for the next opening, or for who replaces it next.
            Err(Failure::Refused(error)) => {
                tracing::warn!(%error, "the manifest was not replaced; it will be with the next segment");
                Ok(())
            }
            raised => {
                self.bytes_written += raised?;
                self.write_mark(self.mark.is_clean())
            }
        }
    }

    pub(crate) fn history_revision(&self) -> u64 {
        self.manifest.history_revision()
    }
}
