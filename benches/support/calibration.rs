//! The unit of durable work on this disk at this moment: one small overwrite and its sync.
//!
//! A device that syncs in 88 µs today may take 120 µs tomorrow, so a durable figure means little
//! alone. Measured right before and right after each cell, in the same directory, "cal" turns it
//! into a ratio that may be compared.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::options::Scale;

/// What one sample overwrites.
const WRITE_BYTES: usize = 256;
/// Zero-written before the first sample; samples walk through it and begin again at its end.
const FILE_BYTES: u64 = 1 << 20;

/// A file of zeros that is overwritten and synced.
pub struct Calibration {
    file: File,
    offset: u64,
    samples: usize,
}

/// The times of some samples.
#[derive(Clone)]
pub struct Cal(Vec<Duration>);

impl Calibration {
    /// Writes the zeros and syncs them, so that a sample changes neither length nor block map.
    pub fn new(directory: &Path, scale: Scale) -> io::Result<Calibration> {
        let options = File::options().read(true).write(true).create_new(true).clone();
        let file = options.open(directory.join("calibration"))?;
        file.write_all_at(&vec![0; usize::try_from(FILE_BYTES).expect("1 MiB")], 0)?;
        file.sync_all()?;
        let samples = match scale {
            Scale::Bench => 400,
            Scale::Smoke => 10,
        };
        Ok(Calibration { file, offset: 0, samples })
    }

    /// Takes some samples: 256 bytes overwritten and fdatasync, one after the other.
    pub fn measure(&mut self) -> io::Result<Cal> {
        (0..self.samples).map(|_| self.sample()).collect::<io::Result<_>>().map(Cal)
    }

    fn sample(&mut self) -> io::Result<Duration> {
        let began = Instant::now();
        self.file.write_all_at(&[0xA5; WRITE_BYTES], self.offset)?;
        self.file.sync_data()?;
        let took = began.elapsed();
        self.offset = (self.offset + u64::try_from(WRITE_BYTES).expect("256")) % FILE_BYTES;
        Ok(took)
    }
}

impl Cal {
    /// The samples of both.
    pub fn with(&self, other: &Cal) -> Cal {
        Cal([self.0.as_slice(), other.0.as_slice()].concat())
    }

    pub fn samples(&self) -> usize {
        self.0.len()
    }

    pub fn mean(&self) -> Duration {
        let samples = u32::try_from(self.0.len()).expect("some hundred samples");
        self.0.iter().sum::<Duration>() / samples.max(1)
    }

    pub fn p50(&self) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }
}
