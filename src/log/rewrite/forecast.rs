//! How long a segment becomes, before anything is written: what goes, and what comes in its place.

use crate::format::{SEAL_BYTES, SEGMENT_HEADER_BYTES, attestation_bytes, cover_of, padded_body_bytes};
use crate::types::to_u64;

use super::{Fate, RewritePiece};

/// The lengths of a segment after a rewrite, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forecast {
    /// Of the whole file, if this segment is rewritten alone.
    pub(crate) rewritten: u64,
    /// Of the frames that would hold what is left, if it were appended to an empty store.
    pub(crate) left_anew: u64,
    /// The same of what is there now.
    pub(crate) now_anew: u64,
}

/// Adds up a forecast, piece by piece.
pub(super) struct Forecaster {
    forecast: Forecast,
    /// Removed leaves that follow one another, up to the last piece.
    removed: std::ops::Range<u64>,
}

impl Forecaster {
    pub(super) fn new() -> Forecaster {
        let envelope = to_u64(SEGMENT_HEADER_BYTES + SEAL_BYTES);
        Forecaster { forecast: Forecast { rewritten: envelope, ..Forecast::default() }, removed: 0..0 }
    }

    pub(super) fn add(&mut self, piece: &RewritePiece<'_>) {
        match piece {
            RewritePiece::Attestation(attestation) => self.remove(attestation.cover.leaves()),
            RewritePiece::Frame { frame, first, fates, .. } => {
                let header = &frame.header;
                let mut body = 0;
                let mut left = 0;
                let mut now = 0;
                for (record, fate) in frame.all_records().zip(*fates) {
                    let record = record.expect("the chain was recomputed");
                    let gone = header.layout().gone_bytes();
                    let Some(event) = record.event() else {
                        body += gone;
                        continue;
                    };
                    now += event.bytes().len();
                    let own = match fate {
                        Fate::Keep => event.bytes().len(),
                        Fate::Erase => event.erased_bytes(),
                        Fate::Gone | Fate::Remove => 0,
                    };
                    left += own;
                    body += if own == 0 { gone } else { own };
                }
                let frame_bytes = |body: usize| {
                    let body = padded_body_bytes(body, header.key().is_some(), header.events());
                    to_u64(header.header_bytes() + body)
                };
                self.forecast.now_anew += frame_bytes(now);
                if left == 0 {
                    let leaves = first.saturating_sub(1);
                    self.remove(leaves..leaves + u64::from(header.events()));
                    return;
                }
                self.attest();
                self.forecast.rewritten += frame_bytes(body);
                self.forecast.left_anew += frame_bytes(left);
            }
        }
    }

    fn remove(&mut self, leaves: std::ops::Range<u64>) {
        let start = if self.removed.is_empty() { leaves.start } else { self.removed.start };
        self.removed = start..leaves.end;
    }

    fn attest(&mut self) {
        let removed = std::mem::take(&mut self.removed);
        if !removed.is_empty() {
            self.forecast.rewritten += to_u64(attestation_bytes(cover_of(removed).count()));
        }
    }

    pub(super) fn finish(mut self) -> Forecast {
        self.attest();
        self.forecast
    }
}
