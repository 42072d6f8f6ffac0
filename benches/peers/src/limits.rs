//! What the machine can do at this moment, without any store: measured in every round, beside the cells.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::measure::{Figures, Latency, figures, float, median};
use crate::peer::Failure;
use crate::sample::{Order, Sample};

/// What one "cal" overwrites.
const CAL_BYTES: usize = 256;
/// Zero-written before the first sample; samples walk through it and begin again at its end.
const CAL_FILE_BYTES: u64 = 1 << 20;

/// A file of zeros that is overwritten and synced: the unit of durable work on this disk.
///
/// A device that syncs in 88 us today may take 120 us tomorrow. Measured right before and right after each
/// cell, in the same directory, "cal" turns a durable figure into a ratio that may be compared.
pub struct Cal {
    file: File,
    offset: u64,
    samples: u32,
}

impl Cal {
    /// Writes the zeros and syncs them, so that a sample changes neither length nor block map.
    pub fn new(directory: &Path, samples: u32) -> Result<Cal, Failure> {
        let file = zeros(&directory.join("cal"), CAL_FILE_BYTES)?;
        Ok(Cal { file, offset: 0, samples })
    }

    /// The median of some samples, in microseconds.
    pub fn measure(&mut self) -> Result<f64, Failure> {
        let sample = || {
            let began = Instant::now();
            self.file.write_all_at(&[0xA5; CAL_BYTES], self.offset)?;
            self.file.sync_data()?;
            let took = began.elapsed();
            self.offset = (self.offset + u64::try_from(CAL_BYTES)?) % CAL_FILE_BYTES;
            Ok::<_, Failure>(took.as_secs_f64() * 1e6)
        };
        let samples: Vec<f64> =
            std::iter::repeat_with(sample).take(usize::try_from(self.samples)?).collect::<Result<_, _>>()?;
        Ok(median(&samples))
    }
}

/// Measures everything once.
pub fn measure(directory: &Path, is_quick: bool) -> Result<Figures, Failure> {
    let syncs = if is_quick { 50 } else { 1_000 };
    let mut all = figures([
        ("sync_zero_written_us", sync(directory, Space::ZeroWritten, 256, syncs)?),
        ("sync_append_us", sync(directory, Space::Growing, 256, syncs)?),
        ("sync_32k_us", sync(directory, Space::ZeroWritten, 32 << 10, syncs / 2)?),
        ("write_mb_per_s", write_bandwidth(directory, if is_quick { 32 } else { 512 })?),
        ("write_256_ns", write_cached(directory)?),
        ("read_256_ns", read_cached(directory)?),
        ("blake3_64_ns", per_call(|| blake3::hash(black_box(&[7; 64])))),
        ("blake3_4096_ns", per_call(|| blake3::hash(black_box(&[7; 4096])))),
        ("crc32c_200_ns", per_call(|| crc32c::crc32c(black_box(&[7; 200])))),
        ("memcpy_mb_per_s", memcpy()),
        ("wake_up_us", wake_up(if is_quick { 500 } else { 10_000 })?),
    ]);
    let order = Sample::new(1).event(0).1.encoded();
    let decode = || rmp_serde::from_slice::<Order>(black_box(&order));
    all.insert("decode_ns".to_owned(), per_call(decode));
    Ok(all)
}

/// Where a write goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    Growing,
    ZeroWritten,
}

/// The median time of a write and its fdatasync, in microseconds.
fn sync(directory: &Path, space: Space, bytes: usize, times: u32) -> Result<f64, Failure> {
    let path = directory.join("sync");
    let length = u64::try_from(bytes)? * u64::from(times);
    let file = zeros(&path, if space == Space::Growing { 0 } else { length })?;
    let data = vec![0xA5; bytes];
    let mut samples = Vec::new();
    for offset in (0..length).step_by(bytes) {
        let began = Instant::now();
        file.write_all_at(&data, offset)?;
        file.sync_data()?;
        samples.push(began.elapsed().as_secs_f64() * 1e6);
    }
    std::fs::remove_file(path)?;
    Ok(median(&samples))
}

/// Over zero-written space, in pieces of 1 MiB, with one sync at the end.
fn write_bandwidth(directory: &Path, megabytes: u32) -> Result<f64, Failure> {
    let path = directory.join("bandwidth");
    let length = u64::from(megabytes) << 20;
    let file = zeros(&path, length)?;
    let data = vec![0xA5; 1 << 20];
    let began = Instant::now();
    for offset in (0..length).step_by(1 << 20) {
        file.write_all_at(&data, offset)?;
    }
    file.sync_data()?;
    let took = began.elapsed();
    std::fs::remove_file(path)?;
    Ok(float(length) / 1e6 / took.as_secs_f64())
}

/// One small write into the page cache, in nanoseconds.
fn write_cached(directory: &Path) -> Result<f64, Failure> {
    let path = directory.join("cached");
    let file = zeros(&path, CAL_FILE_BYTES)?;
    let mut offset = 0;
    let took = per_call(|| {
        file.write_all_at(&[0xA5; CAL_BYTES], offset).expect("a file that is there");
        offset = (offset + 256) % CAL_FILE_BYTES;
    });
    std::fs::remove_file(path)?;
    Ok(took)
}

/// One small read from the page cache, in nanoseconds.
fn read_cached(directory: &Path) -> Result<f64, Failure> {
    let path = directory.join("cached");
    let file = zeros(&path, CAL_FILE_BYTES)?;
    let mut offset = 0;
    let took = per_call(|| {
        let mut data = [0; CAL_BYTES];
        file.read_exact_at(&mut data, offset).expect("a file that is there");
        black_box(data);
        offset = (offset + 256) % CAL_FILE_BYTES;
    });
    std::fs::remove_file(path)?;
    Ok(took)
}

/// Copying 64 MiB, which no cache holds.
fn memcpy() -> f64 {
    let from = vec![7_u8; 64 << 20];
    let mut to = vec![0_u8; from.len()];
    let copy = |to: &mut Vec<u8>| {
        let began = Instant::now();
        to.copy_from_slice(black_box(&from));
        black_box(&to);
        64.0 * 1.048_576 / began.elapsed().as_secs_f64()
    };
    let rounds: Vec<f64> = (0..5).map(|_| copy(&mut to)).collect();
    median(&rounds)
}

/// A message to a sleeping thread and its answer, in microseconds: what it costs to hand work to another
/// thread.
fn wake_up(times: u32) -> Result<f64, Failure> {
    let (ask, asked) = mpsc::channel::<()>();
    let (answer, answered) = mpsc::channel::<()>();
    let other = std::thread::spawn(move || while asked.recv().is_ok() && answer.send(()).is_ok() {});
    let mut latency = Latency::new();
    for _ in 0..times {
        let began = Instant::now();
        ask.send(())?;
        answered.recv()?;
        latency.record(began.elapsed());
    }
    drop(ask);
    other.join().map_err(|_| "the other thread panicked")?;
    Ok(latency.figures()["p50_us"])
}

/// The time of one call in nanoseconds, from the median of many batches.
fn per_call<T>(mut call: impl FnMut() -> T) -> f64 {
    const CALLS: u32 = 256;
    let began = Instant::now();
    let mut batches = Vec::new();
    while began.elapsed() < Duration::from_millis(20) {
        let batch = Instant::now();
        for _ in 0..CALLS {
            black_box(call());
        }
        batches.push(batch.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS));
    }
    median(&batches)
}

/// A new file of `length` zeros, all of them written and synced.
fn zeros(path: &Path, length: u64) -> Result<File, Failure> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    let zeros = vec![0; 1 << 20];
    for offset in (0..length).step_by(zeros.len()) {
        let piece = usize::try_from(length - offset)?.min(zeros.len());
        file.write_all_at(&zeros[..piece], offset)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// What the figures are, for people.
pub const NAMES: [(&str, &str); 12] = [
    ("sync_zero_written_us", "256 bytes over written zeros + fdatasync, us"),
    ("sync_append_us", "256 bytes appended + fdatasync, us"),
    ("sync_32k_us", "32 KiB over written zeros + fdatasync, us"),
    ("write_mb_per_s", "writing over written zeros, with a sync at the end, MB/s"),
    ("write_256_ns", "256 bytes into the page cache, ns"),
    ("read_256_ns", "256 bytes from the page cache, ns"),
    ("blake3_64_ns", "blake3 of 64 bytes, ns"),
    ("blake3_4096_ns", "blake3 of 4 KiB, ns"),
    ("crc32c_200_ns", "crc32c of 200 bytes, ns"),
    ("memcpy_mb_per_s", "memcpy of 64 MiB, MB/s"),
    ("decode_ns", "decoding one event's payload from memory, ns"),
    ("wake_up_us", "a message to a sleeping thread and its answer, us"),
];
