//! How fast a store is verified, and who is told how far that is.
//!
//! Row: ops.

use std::ops::ControlFlow;

use super::super::throttle::RateLimiter;
use crate::types::{Head, VerifyProgress};

/// Told how far it is; says whether to go on.
pub(crate) type Tell<'a> = Box<dyn FnMut(&VerifyProgress) -> ControlFlow<()> + 'a>;

pub(super) struct VerifyThrottle<'a> {
    tell: Option<Tell<'a>>,
    meter: RateLimiter,
    verified: Option<Head>,
    /// What going through everything once takes.
    bytes_once: u64,
}

impl<'a> VerifyThrottle<'a> {
    pub(super) fn new(tell: Option<Tell<'a>>, rate_max: Option<u64>) -> VerifyThrottle<'a> {
        VerifyThrottle { tell, meter: RateLimiter::new(rate_max), verified: None, bytes_once: 0 }
    }

    /// So many bytes are there to be read; it begins again if it had begun.
    pub(super) fn begin(&mut self, bytes_total: u64) {
        self.meter.restart(bytes_total);
        self.verified = None;
        self.bytes_once = bytes_total;
    }

    /// All of it is read once more.
    pub(super) fn expect_again(&mut self) {
        self.meter.bytes_total = self.meter.bytes.saturating_add(self.bytes_once);
    }

    /// A whole segment is through.
    pub(super) fn is_through(&mut self, verified: Head) {
        self.verified = Some(verified);
    }

    /// So much more was read. Waits if that was too fast.
    pub(super) fn advance(&mut self, bytes: u32) -> ControlFlow<()> {
        let VerifyThrottle { tell, meter, verified, .. } = self;
        meter.advance(bytes, &mut |meter| match tell {
            Some(tell) => {
                let RateLimiter { bytes, bytes_total, .. } = *meter;
                tell(&VerifyProgress { bytes, bytes_total, elapsed: meter.elapsed(), verified: *verified })
            }
            None => ControlFlow::Continue(()),
        })
    }
}
