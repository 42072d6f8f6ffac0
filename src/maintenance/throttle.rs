//! How fast long work goes on, and who is told of it.
//!
//! Row: ops.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::types::{Error, ErrorKind, RewriteProgress};

/// Told how far the work is; says whether to go on.
pub(crate) type Tell<'a> = Box<dyn FnMut(&RewriteProgress) -> ControlFlow<()> + 'a>;

/// Some milliseconds' worth.
const TELL_EVERY: u64 = 1 << 20;
/// Whoever breaks off need not wait for longer.
const NAP: Duration = Duration::from_millis(20);

/// Counts bytes, and holds back whoever goes through them too fast.
pub(crate) struct RateLimiter {
    pub(crate) bytes: u64,
    pub(crate) bytes_total: u64,
    /// In bytes a second.
    rate_max: Option<u64>,
    began: Instant,
    /// How many there were when somebody was last told.
    told: u64,
}

impl RateLimiter {
    pub(crate) fn new(rate_max: Option<u64>) -> RateLimiter {
        RateLimiter { bytes: 0, bytes_total: 0, rate_max, began: Instant::now(), told: 0 }
    }

    /// Begins again, with so much to do.
    pub(crate) fn restart(&mut self, bytes_total: u64) {
        *self = RateLimiter { bytes_total, ..RateLimiter::new(self.rate_max) };
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// So many bytes more are through. Tells about every MiB, and while it waits because that was too fast.
    pub(crate) fn advance(
        &mut self,
        bytes: u32,
        tell: &mut dyn FnMut(&RateLimiter) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.bytes = self.bytes.saturating_add(bytes.into());
        if self.bytes.saturating_sub(self.told) < TELL_EVERY {
            return ControlFlow::Continue(());
        }
        self.told = self.bytes;
        tell(self)?;
        while let Some(early) = self.early() {
            std::thread::sleep(early.min(NAP));
            tell(self)?;
        }
        ControlFlow::Continue(())
    }

    /// How much too fast it was so far.
    fn early(&self) -> Option<Duration> {
        let micros = self.bytes.saturating_mul(1_000_000).checked_div(self.rate_max?)?;
        Duration::from_micros(micros).checked_sub(self.elapsed()).filter(|early| !early.is_zero())
    }
}

/// The pace of rewriting.
pub(crate) struct Throttle<'a> {
    tell: Option<Tell<'a>>,
    meter: RateLimiter,
}

impl<'a> Throttle<'a> {
    pub(crate) fn new(tell: Option<Tell<'a>>, rate_max: Option<u64>) -> Throttle<'a> {
        Throttle { tell, meter: RateLimiter::new(rate_max) }
    }

    /// So much is to be read, besides what was.
    pub(crate) fn expect(&mut self, bytes: u64) {
        self.meter.bytes_total = self.meter.bytes.saturating_add(bytes);
    }

    /// So many bytes more were read.
    ///
    /// # Errors
    ///
    /// `Cancelled`, if whoever was told says so.
    pub(crate) fn advance(&mut self, bytes: u32) -> Result<(), Error> {
        let Throttle { tell, meter } = self;
        or_cancelled(meter.advance(bytes, &mut |meter| told(tell, meter)))
    }

    /// Tells how far it is.
    ///
    /// # Errors
    ///
    /// As [`Throttle::advance`].
    pub(crate) fn tell(&mut self) -> Result<(), Error> {
        or_cancelled(told(&mut self.tell, &self.meter))
    }
}

fn told(tell: &mut Option<Tell<'_>>, meter: &RateLimiter) -> ControlFlow<()> {
    let Some(tell) = tell else { return ControlFlow::Continue(()) };
    let RateLimiter { bytes, bytes_total, .. } = *meter;
    tell(&RewriteProgress { bytes, bytes_total, elapsed: meter.elapsed() })
}

fn or_cancelled(flow: ControlFlow<()>) -> Result<(), Error> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => {
            Err(Error::new(ErrorKind::Cancelled, "rewriting was broken off, as asked; what was done stays"))
        }
    }
}
