//! How fast a store is read through, and who is told how far it is.
//!
//! Row: ops.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::head::Head;
use crate::report::VerifyProgress;

/// Told how far it is; says whether to go on.
pub(crate) type Tell<'a> = Box<dyn FnMut(&VerifyProgress) -> ControlFlow<()> + 'a>;

/// Some milliseconds' worth.
const TELL_EVERY: u64 = 1 << 20;
/// Whoever breaks off need not wait for longer.
const NAP: Duration = Duration::from_millis(20);

pub(super) struct Pace<'a> {
    tell: Option<Tell<'a>>,
    /// In bytes a second.
    rate_max: Option<u64>,
    progress: VerifyProgress,
    began: Instant,
    told: u64,
}

impl<'a> Pace<'a> {
    pub(super) fn new(tell: Option<Tell<'a>>, rate_max: Option<u64>) -> Pace<'a> {
        Pace { tell, rate_max, progress: VerifyProgress::default(), began: Instant::now(), told: 0 }
    }

    /// So many bytes are there to be read; it begins again if it had begun.
    pub(super) fn begin(&mut self, bytes_total: u64) {
        self.progress = VerifyProgress { bytes_total, ..VerifyProgress::default() };
        self.told = 0;
        self.began = Instant::now();
    }

    /// A whole segment is through.
    pub(super) fn is_through(&mut self, verified: Head) {
        self.progress.verified = Some(verified);
    }

    /// So much more was read. Waits if that was too fast.
    pub(super) fn went(&mut self, bytes: u32) -> ControlFlow<()> {
        self.progress.bytes = self.progress.bytes.saturating_add(bytes.into());
        if self.progress.bytes.saturating_sub(self.told) < TELL_EVERY {
            return ControlFlow::Continue(());
        }
        self.tell()?;
        while let Some(early) = self.early() {
            std::thread::sleep(early.min(NAP));
            self.tell()?;
        }
        ControlFlow::Continue(())
    }

    /// How much too fast it was so far.
    fn early(&self) -> Option<Duration> {
        let micros = self.progress.bytes.saturating_mul(1_000_000).checked_div(self.rate_max?)?;
        Duration::from_micros(micros).checked_sub(self.began.elapsed()).filter(|early| !early.is_zero())
    }

    fn tell(&mut self) -> ControlFlow<()> {
        self.told = self.progress.bytes;
        self.progress.elapsed = self.began.elapsed();
        match &mut self.tell {
            Some(tell) => tell(&self.progress),
            None => ControlFlow::Continue(()),
        }
    }
}
