//! How long a segment becomes, before anything is written: what goes, and what comes in its place.

use std::ops::Range;

use crate::format::{
    SEAL_BYTES, SEGMENT_HEADER_BYTES, attestation_bytes, cover_of, padded_body_bytes, record,
};
use crate::log::segment::SegmentFile;
use crate::types::{Error, to_u64};

use super::{Fate, Judge, RewritePiece, judge_segment};

/// The lengths of a segment after a rewrite, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forecast {
    /// Of the whole file, if this segment is rewritten alone.
    pub(crate) rewritten: u64,
    /// Of the frames that would hold what is left, if it were appended to an empty store.
    pub(crate) left_anew: u64,
    /// The same of what is there now.
    pub(crate) now_anew: u64,
    /// The removed leaves that the segment begins with, and those that it ends with.
    first_run: Range<u64>,
    last_run: Range<u64>,
    /// Whether nothing is left of the segment.
    is_empty: bool,
}

impl Forecast {
    /// The forecast of a segment of which nothing is known but its length.
    pub(crate) fn unread(length: u64) -> Forecast {
        let frames = length.saturating_sub(ENVELOPE_BYTES);
        Forecast { rewritten: length, left_anew: frames, now_anew: frames, ..Forecast::default() }
    }

    /// How much shorter neighbours become if they are written as one: header and seal go, and removed leaves
    /// that touch are joined.
    pub(crate) fn saved_by_merging<'a>(segments: impl IntoIterator<Item = &'a Forecast>) -> u64 {
        let mut segments = segments.into_iter();
        let mut run = segments.next().map_or(0..0, |first| first.last_run.clone());
        let mut saved = 0;
        for next in segments {
            saved += ENVELOPE_BYTES;
            let touches = !run.is_empty() && !next.first_run.is_empty();
            let joined = run.start..next.first_run.end;
            if touches {
                let apart = run_bytes(&run) + run_bytes(&next.first_run);
                saved += apart.saturating_sub(run_bytes(&joined));
            }
            run = if touches && next.is_empty { joined } else { next.last_run.clone() };
        }
        saved
    }
}

/// Has the judge see every event of a sealed segment, and changes nothing. Says how long the segment would
/// become.
///
/// # Errors
///
/// Those of reading, damage included, and what the judge gives.
pub(crate) fn judge_all(source: &SegmentFile, judge: &mut dyn Judge) -> Result<Forecast, Error> {
    let mut forecaster = Forecaster::new();
    judge_segment(source, judge, &mut |piece| {
        forecaster.add(piece);
        Ok(())
    })?;
    Ok(forecaster.finish())
}

/// The length of header and seal.
pub(crate) const ENVELOPE_BYTES: u64 = 144 + 72;
const _: () = assert!(SEGMENT_HEADER_BYTES + SEAL_BYTES == 216);

/// The length of what stands for removed leaves.
fn run_bytes(leaves: &Range<u64>) -> u64 {
    to_u64(attestation_bytes(cover_of(leaves.clone()).count()))
}

/// Adds up a forecast, piece by piece.
struct Forecaster {
    forecast: Forecast,
    /// Removed leaves that follow one another, up to the last piece.
    removed: Range<u64>,
}

impl Forecaster {
    fn new() -> Forecaster {
        let forecast = Forecast { rewritten: ENVELOPE_BYTES, is_empty: true, ..Forecast::default() };
        Forecaster { forecast, removed: 0..0 }
    }

    fn add(&mut self, piece: &RewritePiece<'_>) {
        match piece {
            RewritePiece::Attestation(attestation) => self.remove(attestation.cover.leaves()),
            RewritePiece::Frame { frame, first, fates, .. } => {
                let header = &frame.header;
                let mut body = 0;
                let mut left = 0;
                let mut now = 0;
                for (record, fate) in frame.all_records().zip(*fates) {
                    let record = record.expect("the chain was recomputed");
                    let gone = record::gone_bytes(header.layout());
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
                self.forecast.is_empty = false;
                self.forecast.rewritten += frame_bytes(body);
                self.forecast.left_anew += frame_bytes(left);
            }
        }
    }

    fn remove(&mut self, leaves: Range<u64>) {
        let start = if self.removed.is_empty() { leaves.start } else { self.removed.start };
        self.removed = start..leaves.end;
    }

    fn attest(&mut self) {
        let removed = std::mem::take(&mut self.removed);
        if removed.is_empty() {
            return;
        }
        self.forecast.rewritten += run_bytes(&removed);
        if self.forecast.is_empty {
            self.forecast.first_run = removed;
        }
    }

    fn finish(mut self) -> Forecast {
        let last_run = self.removed.clone();
        self.attest();
        Forecast { last_run, ..self.forecast }
    }
}
