//! How fast long work goes on, and who is told of it.
//!
//! Row: ops.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};
use crate::report::RewriteProgress;

/// Told how far the work is; says whether to go on.
pub(crate) type Tell<'a> = Box<dyn FnMut(&RewriteProgress) -> ControlFlow<()> + 'a>;

/// Some milliseconds' worth.
const TELL_EVERY: u64 = 1 << 20;
/// Whoever breaks off need not wait for longer.
const NAP: Duration = Duration::from_millis(20);

/// Counts what was read.
pub(crate) struct Pace<'a> {
    tell: Option<Tell<'a>>,
    /// In bytes a second.
    rate_max: Option<u64>,
    progress: RewriteProgress,
    began: Instant,
    told: u64,
}

impl<'a> Pace<'a> {
    pub(crate) fn new(tell: Option<Tell<'a>>, rate_max: Option<u64>) -> Pace<'a> {
        Pace { tell, rate_max, progress: RewriteProgress::default(), began: Instant::now(), told: 0 }
    }

    /// So much is to be read, besides what was.
    pub(crate) fn expect(&mut self, bytes: u64) {
        self.progress.bytes_total = self.progress.bytes.saturating_add(bytes);
    }

    /// So many bytes more were read.
    ///
    /// # Errors
    ///
    /// `Cancelled`, if whoever was told says so.
    pub(crate) fn went(&mut self, bytes: u32) -> Result<(), Error> {
        self.progress.bytes = self.progress.bytes.saturating_add(bytes.into());
        if self.progress.bytes.saturating_sub(self.told) < TELL_EVERY {
            return Ok(());
        }
        self.tell()?;
        while let Some(early) = self.early() {
            std::thread::sleep(early.min(NAP));
            self.tell()?;
        }
        Ok(())
    }

    /// How much too fast it was so far.
    fn early(&self) -> Option<Duration> {
        let micros = self.progress.bytes.saturating_mul(1_000_000).checked_div(self.rate_max?)?;
        Duration::from_micros(micros).checked_sub(self.began.elapsed()).filter(|early| !early.is_zero())
    }

    /// Tells how far it is.
    ///
    /// # Errors
    ///
    /// As [`Pace::went`].
    pub(crate) fn tell(&mut self) -> Result<(), Error> {
        self.told = self.progress.bytes;
        self.progress.elapsed = self.began.elapsed();
        let Some(tell) = &mut self.tell else { return Ok(()) };
        match tell(&self.progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::new(
                ErrorKind::Cancelled,
                "rewriting was broken off, as asked; what was done stays",
            )),
        }
    }
}
