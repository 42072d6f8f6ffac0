//! Progress of long work: counts bytes, reports to the caller, limits the rate, turns a break into an error.
//!
//! Verifying, copying, rewriting and rebuilding indexes all report through [`Throttle`]; only the type of the
//! report differs. Only this file of the room sleeps.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::types::{CopyProgress, Error, ErrorKind, IndexProgress, RewriteProgress, VerifyProgress};

/// The caller's progress callback. Its answer says whether the work goes on.
pub(crate) type OnProgress<'a, P> = Box<dyn FnMut(&P) -> ControlFlow<()> + 'a>;

/// Bytes between two reports: a few milliseconds of work.
const REPORT_BYTES: u64 = 1 << 20;
/// How long a cancellation can go unnoticed while the work waits for its rate limit.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A progress report that counts bytes.
pub(crate) trait ByteProgress: Default {
    /// Sets the counted fields before the report is handed to the caller.
    fn set(&mut self, bytes: u64, bytes_total: u64, elapsed: Duration);
}

macro_rules! byte_progress {
    ($($progress:ident),*) => {$(
        impl ByteProgress for $progress {
            fn set(&mut self, bytes: u64, bytes_total: u64, elapsed: Duration) {
                self.bytes = bytes;
                self.bytes_total = bytes_total;
                self.elapsed = elapsed;
            }
        }
    )*};
}

byte_progress!(CopyProgress, IndexProgress, RewriteProgress, VerifyProgress);

/// Counts the bytes of one piece of work, reports them, and keeps the work below a rate.
pub(crate) struct Throttle<'a, P> {
    on_progress: Option<OnProgress<'a, P>>,
    /// The next report. Fields besides bytes and time are set by the work itself.
    pub(crate) progress: P,
    bytes: u64,
    bytes_total: u64,
    /// In bytes a second.
    rate_max: Option<u64>,
    /// Set when the first bytes are expected.
    started: Option<Instant>,
    /// How many bytes the last report counted.
    bytes_reported: u64,
    /// The text of the error if the caller breaks the work off.
    cancelled: &'static str,
}

impl<'a, P: ByteProgress> Throttle<'a, P> {
    /// Nothing is expected yet. `cancelled` is the text of the error if the caller breaks the work off.
    pub(crate) fn new(
        on_progress: Option<OnProgress<'a, P>>,
        rate_max: Option<u64>,
        cancelled: &'static str,
    ) -> Throttle<'a, P> {
        Throttle {
            on_progress,
            progress: P::default(),
            bytes: 0,
            bytes_total: 0,
            rate_max,
            started: None,
            bytes_reported: 0,
            cancelled,
        }
    }

    /// Adds to the total.
    pub(crate) fn expect(&mut self, bytes: u64) {
        self.started.get_or_insert_with(Instant::now);
        self.bytes_total = self.bytes_total.saturating_add(bytes);
    }

    /// Sets the total to the bytes counted so far plus these.
    pub(crate) fn expect_after_now(&mut self, bytes: u64) {
        self.bytes_total = self.bytes;
        self.expect(bytes);
    }

    /// Forgets all counts: the work begins again from its first byte.
    pub(crate) fn restart(&mut self, bytes_total: u64) {
        self.progress = P::default();
        self.bytes = 0;
        self.bytes_reported = 0;
        self.bytes_total = bytes_total;
        self.started = Some(Instant::now());
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.map_or(Duration::ZERO, |started| started.elapsed())
    }

    /// Counts bytes without a report.
    pub(crate) fn add(&mut self, bytes: impl Into<u64>) {
        self.bytes = self.bytes.saturating_add(bytes.into());
    }

    /// Counts bytes. Reports about every MiB, and waits there if the work is ahead of its rate.
    ///
    /// # Errors
    ///
    /// As [`Throttle::report`].
    pub(crate) fn advance(&mut self, bytes: impl Into<u64>) -> Result<(), Error> {
        self.add(bytes);
        if self.bytes.saturating_sub(self.bytes_reported) < REPORT_BYTES {
            return Ok(());
        }
        self.bytes_reported = self.bytes;
        self.report()?;
        while let Some(ahead) = self.ahead() {
            // In short naps with a report each, so that the caller can break the wait off.
            std::thread::sleep(ahead.min(POLL_INTERVAL));
            self.report()?;
        }
        Ok(())
    }

    /// Reports how far the work is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Cancelled`] if the caller breaks the work off.
    pub(crate) fn report(&mut self) -> Result<(), Error> {
        let elapsed = self.elapsed();
        let Some(on_progress) = &mut self.on_progress else { return Ok(()) };
        self.progress.set(self.bytes, self.bytes_total, elapsed);
        or_cancelled(on_progress(&self.progress), self.cancelled)
    }

    /// How far the work is ahead of its rate.
    fn ahead(&self) -> Option<Duration> {
        let micros = self.bytes.saturating_mul(1_000_000).checked_div(self.rate_max?)?;
        Duration::from_micros(micros).checked_sub(self.elapsed()).filter(|ahead| !ahead.is_zero())
    }
}

/// The throttle of work that rewrites segments: erasing and compacting.
pub(crate) type RewriteThrottle<'a> = Throttle<'a, RewriteProgress>;

impl<'a> RewriteThrottle<'a> {
    pub(crate) fn rewriting(
        on_progress: Option<OnProgress<'a, RewriteProgress>>,
        rate_max: Option<u64>,
    ) -> RewriteThrottle<'a> {
        Throttle::new(on_progress, rate_max, "rewriting was broken off, as asked; what was done stays")
    }
}

/// The caller's answer to a progress report, as a result.
///
/// # Errors
///
/// [`ErrorKind::Cancelled`] with this text if the answer is to break off.
pub(crate) fn or_cancelled(answer: ControlFlow<()>, text: &'static str) -> Result<(), Error> {
    match answer {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::new(ErrorKind::Cancelled, text)),
    }
}
