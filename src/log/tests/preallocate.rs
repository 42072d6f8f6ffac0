//! Zeros ahead: they never land on frames, in any order of the log and the background thread.

use std::sync::Arc;

use super::super::create::{LogOptions, next_header};
use super::super::preallocate::{MoreZeros, Zeros, new_segment_bytes};
use super::super::segment::{Failure, SegmentFile};
use super::*;
use crate::disk::write_all;

const OPTIONS: LogOptions = LogOptions { segment_bytes_max: 8 << 20, unsynced_bytes_max: 1 << 20 };

/// A segment that is written to: its frames are bytes of 0xAA, and begin where the zeros of a new one do.
struct GrowingSegment {
    disk: SimDisk,
    segment: Arc<SegmentFile>,
    zeros: Zeros,
    end: u64,
}

impl GrowingSegment {
    fn new() -> GrowingSegment {
        let disk = SimDisk::new(7);
        disk.create_directory("segments").unwrap();
        let header = next_header(&disk, &OPTIONS, [1; 16], None, 0).unwrap();
        let first = new_segment_bytes(&disk, OPTIONS.segment_bytes_max);
        let segment = SegmentFile::create(&disk, header, first).map_err(Failure::into_error).unwrap();
        let segment = Arc::new(segment);
        let zeros = Zeros::new(&disk, OPTIONS.segment_bytes_max, &segment, first as u64);
        GrowingSegment { disk, segment, zeros, end: SEGMENT_HEADER_BYTES as u64 }
    }

    /// Writes a group of this many bytes.
    fn write(&mut self, bytes: u64) -> Result<(), Error> {
        let end = self.end + bytes;
        let passing = self.zeros.lock_to_pass(end);
        write_all(self.segment.file.as_ref(), &vec![0xAA; usize::try_from(bytes).unwrap()], self.end)
            .unwrap();
        self.end = end;
        passing.map(|passing| passing.written(bytes, true)).transpose().map_err(Failure::into_error)?;
        Ok(())
    }

    fn more(&mut self) -> Option<MoreZeros> {
        self.zeros.request(self.end)
    }

    fn cut(&mut self, end: u64) {
        let file = &self.segment.file;
        self.zeros.truncate(end, || file.set_length(end)).unwrap();
        self.end = end;
    }

    fn bytes(&self) -> Vec<u8> {
        self.disk.contents(&self.segment.path).unwrap()
    }

    /// That there is what was written, and nothing but zeros behind it. Gives how many.
    fn check(&self) -> usize {
        let bytes = self.bytes();
        let (written, zeros) = bytes.split_at(usize::try_from(self.end).unwrap());
        let lost = written[SEGMENT_HEADER_BYTES..].iter().position(|byte| *byte != 0xAA);
        assert_eq!(lost, None, "of {} bytes", written.len());
        assert!(zeros.iter().all(|byte| *byte == 0));
        zeros.len()
    }
}

#[test]
fn a_helper_that_comes_in_time_leaves_the_log_nothing_to_do() {
    let mut log = GrowingSegment::new();
    for _ in 0..2_000 {
        log.write(3_000).unwrap();
        log.more().into_iter().for_each(MoreZeros::write);
        let ahead = log.check() as u64;
        let wanted = (log.end / 2).min(1 << 20);
        // Every group asks for one step at most, so the first ones run after what is wanted.
        assert!(
            ahead + (1 << 18) >= wanted && ahead <= wanted.max(64 << 10) + (1 << 18),
            "{ahead} at {}",
            log.end
        );
    }
    let operations = log.disk.operations();
    log.write(3_000).unwrap();
    assert_eq!(log.disk.operations(), operations + 1, "the frame, and nothing else");
}

#[test]
fn however_late_a_helper_comes_it_writes_behind_the_log() {
    let mut random = 0x5EED_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut log = GrowingSegment::new();
    let mut asked = None;
    for _ in 0..3_000 {
        match next(20) {
            0 if log.end > 100_000 => log.cut(log.end - next(90_000)),
            0..6 => asked = asked.or_else(|| log.more()),
            6..9 => asked.take().into_iter().for_each(MoreZeros::write),
            9 if log.end < 7 << 20 => log.write(next(300_000)).unwrap(),
            _ if log.end < 7 << 20 => log.write(next(10_000)).unwrap(),
            _ => log.cut(SEGMENT_HEADER_BYTES as u64 + next(200_000)),
        }
        log.check();
    }
}

/// On two threads: that zeros and frames do not meet is a matter of who holds the lock.
#[test]
fn a_helper_on_a_thread_of_its_own_never_meets_the_log() {
    for _ in 0..20 {
        let mut log = GrowingSegment::new();
        let (ask, asked) = flume::unbounded::<MoreZeros>();
        let helper = std::thread::Builder::new().spawn(move || asked.iter().for_each(MoreZeros::write));
        let helper = helper.unwrap();
        while log.end < 4 << 20 {
            log.write(20_000).unwrap();
            log.more().into_iter().for_each(|more| ask.send(more).unwrap());
        }
        drop(ask);
        helper.join().unwrap();
        log.check();
    }
}

#[test]
fn a_segment_that_is_over_is_left_alone() {
    let ended = |log: &mut GrowingSegment| log.zeros.finish();
    let left = |log: &mut GrowingSegment| {
        log.zeros = Zeros::new(&log.disk, OPTIONS.segment_bytes_max, &log.segment, 1 << 20);
    };
    for (name, end) in [("ended", &ended as &dyn Fn(&mut GrowingSegment)), ("left", &left)] {
        let mut log = GrowingSegment::new();
        log.write(60_000).unwrap();
        let more = log.more().expect("half of what is there is not ahead any more");
        end(&mut log);
        let before = (log.bytes(), log.disk.operations());
        more.write();
        assert!((log.bytes(), log.disk.operations()) == before, "{name}");
    }
}

#[test]
fn one_helper_is_asked_at_a_time_and_none_where_there_is_no_room() {
    let mut log = GrowingSegment::new();
    log.write(60_000).unwrap();
    let more = log.more().unwrap();
    assert!(log.more().is_none(), "a request is open");
    log.disk.set_capacity(Some(log.bytes().len() as u64));
    more.write();
    log.check();
    assert!(log.more().is_none(), "there is no room");
    log.disk.set_capacity(None);
    log.write(10_000).unwrap();
    assert!(log.check() > 0, "the log tries itself");
}

#[test]
fn what_a_helper_cannot_write_the_log_does_without() {
    let mut log = GrowingSegment::new();
    log.write(60_000).unwrap();
    log.disk.fail(0, Fault::Error(std::io::ErrorKind::Other));
    log.more().unwrap().write();
    assert!(log.more().is_none());
    log.write(1_000).unwrap();
    let operations = log.disk.operations();
    log.write(10_000).unwrap();
    assert_eq!(log.disk.operations(), operations + 2, "the frame, and zeros behind it");
    log.check();
}
