//! The recovery table: as a function, and row by row on real files.

use super::super::recovery::tail::{Evidence, Verdict, evidence, judge, repeated_in};
use super::*;
use crate::format::{
    HEADER_BYTES_MAX, Mark, NewFrameHeader, SEAL_BYTES, Seal, SegmentHeader, SegmentId, frame, header_alone,
    mark, repair_header,
};

const HEADER_32: u32 = 144;
const NEXT: SegmentId = SegmentId { first_position: 5, generation: 0 };

/// Every row of the table at `judge`, and every edge between two rows.
#[test]
fn judge_is_the_table() {
    let end = 1_000_u32;
    let seal = u32::try_from(SEAL_BYTES).unwrap();
    let mut tried = 0;
    for unsynced_bytes_max in [0, 100, u64::from(u32::MAX), u64::MAX] {
        let reach = u64::from(end + seal).saturating_add(unsynced_bytes_max);
        let near = u32::try_from(reach).unwrap_or(u32::MAX);
        for marked in
            [None, Some(0), Some(HEADER_32), Some(end - 8), Some(end), Some(end + 1), Some(u32::MAX)]
        {
            for repeated in [0, HEADER_32, end - 8, end, end + 1, u32::MAX] {
                for last_nonzero in [None, Some(end + 1), Some(near), near.checked_add(1), Some(u32::MAX)] {
                    let evidence = Evidence { end, marked, repeated, last_nonzero, unsynced_bytes_max };
                    let is_marked = marked.is_some_and(|marked| marked > end);
                    let is_far = last_nonzero.is_some_and(|last| u64::from(last) > reach);
                    // marked > end, repeated > end, beyond reach, any byte: the verdict begins so.
                    let expected = match (is_marked, repeated > end, is_far, last_nonzero.is_some()) {
                        (true, _, _, _) => "Corrupt(\"acknowledged data is damaged or missing: MARK",
                        (false, true, _, _) => "Corrupt(\"acknowledged data is damaged: a later append",
                        (false, false, true, _) => "Corrupt(\"data is damaged, and too much follows",
                        (false, false, false, false) => "Clean",
                        (false, false, false, true) => "Torn",
                    };
                    let verdict = format!("{:?}", judge(&evidence));
                    assert!(verdict.starts_with(expected), "{evidence:?}: {verdict}");
                    tried += 1;
                }
            }
        }
    }
    println!("judged {tried} cases as the table says");
}

/// A later header counts as evidence wherever it lies, whole or with a torn body, and nothing else.
#[test]
fn later_headers_are_evidence() {
    let disk = written(2);
    let (_, bytes) = last_segment(&disk);
    let header = SegmentHeader::read(&bytes).unwrap();
    let first = frame::read(&bytes[SEGMENT_HEADER_BYTES..], &header.frame_place(144)).unwrap();
    let second_at = SEGMENT_HEADER_BYTES + first.header.frame_bytes();
    let second =
        frame::read_header(&bytes[second_at..], header.frame_mark(u64::try_from(second_at).unwrap()));
    assert_eq!(second.unwrap().durable_end(), u32::try_from(second_at).unwrap());

    let repeated = |bytes: &[u8]| {
        repeated_in(&header, &bytes[SEGMENT_HEADER_BYTES..], 144, usize::MAX, &mut bytes.len())
    };
    let proven = u32::try_from(second_at).unwrap();
    assert_eq!(repeated(&bytes), proven);
    let mut torn = bytes.clone();
    torn.truncate(second_at + frame::FRAME_FIXED_BYTES);
    torn[SEGMENT_HEADER_BYTES..second_at].fill(0xAA);
    assert_eq!(repeated(&torn), proven, "without its body, and with nothing whole in front of it");
    torn.truncate(second_at + frame::FRAME_FIXED_BYTES - 1);
    assert_eq!(repeated(&torn), 0, "a header that is cut off");
    let mut newer = bytes.clone();
    newer[second_at + 27] = 0x80;
    repair_header(&mut newer[second_at..]);
    assert_eq!(repeated(&newer), proven, "with a flag only a newer version knows");
    let mut changed = bytes.clone();
    changed[second_at + 20] ^= 8;
    assert_eq!(repeated(&changed), 144, "a header that does not fit its checksum; the first one is left");
    let mut moved = bytes.clone();
    moved.splice(second_at..second_at, [0; 8]);
    assert_eq!(repeated(&moved), 144, "a header that lies where it was not written");
}

/// Found by reading: a header longer than the overlap of two pieces could begin in one, end in the
/// next, and be seen in neither. Here the longest there is straddles at every offset that matters.
#[test]
fn the_longest_header_is_found_wherever_it_lies() {
    const PIECE: usize = 1 << 19;
    for behind in [PIECE - 8, PIECE - 80, PIECE - 96, PIECE, 8] {
        let segment = walk::segment(0, |header| {
            let mut bytes = vec![1; behind];
            let offset = u32::try_from(SEGMENT_HEADER_BYTES + behind).unwrap();
            let longest = NewFrameHeader {
                position_offset: 0,
                durable_end: offset,
                events: u16::MAX,
                flags: NewFrameHeader::flags_for(true, true),
                recorded_at: 0,
                first_version: 1,
                chain: [0; 32],
                key: Some([0; 16]),
            };
            let longest = header_alone(&longest, &header.frame_place(offset), 8);
            assert_eq!(longest.len(), HEADER_BYTES_MAX);
            bytes.extend(longest);
            bytes
        });
        let found = evidence(&segment, None, HEADER_32).unwrap();
        assert_eq!(found.repeated, u32::try_from(SEGMENT_HEADER_BYTES + behind).unwrap(), "{behind}");
    }
}

/// Hostile files: marks everywhere, each with the longest header to check.
#[test]
fn a_file_full_of_marks_is_not_worth_its_while() {
    let segment = walk::segment(0, |header| {
        let mut bytes = vec![1; 4 << 20];
        for at in (0..bytes.len() - 80).step_by(80) {
            let mark = header.frame_mark(u64::try_from(SEGMENT_HEADER_BYTES + at).unwrap());
            bytes[at..at + 8].copy_from_slice(&mark.to_le_bytes());
            bytes[at + 24..at + 28].copy_from_slice(&[0xFF, 0xFF, 0x00, 0x03]);
        }
        bytes
    });
    let started = std::time::Instant::now();
    let found = evidence(&segment, None, HEADER_32).unwrap();
    assert!(matches!(judge(&found), Verdict::Corrupt(_)), "{found:?}");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

/// A store with four events in one segment, not closed. A test changes it before it opens it.
struct TailCase {
    disk: SimDisk,
    path: String,
    /// Where its last frame ends.
    end: usize,
}

/// What opening it found: events, whether that was clean, offset and bytes of a cut that was kept, how
/// many files were removed, how many segments there are then.
type OpenedCase = (usize, bool, Option<(usize, usize)>, usize, usize);

impl TailCase {
    fn new() -> TailCase {
        let disk = written(4);
        let (path, bytes) = last_segment(&disk);
        assert!(path.contains("0001.0"), "all in one segment");
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap().next_multiple_of(8);
        TailCase { disk, path, end }
    }

    fn without_mark(self) -> TailCase {
        self.disk.set_contents(MARK, None);
        self
    }

    fn mark(&self) -> Mark {
        mark::newest(&self.disk.contents(MARK).unwrap()).unwrap().unwrap()
    }

    /// As `close` would have left it.
    fn closed(self) -> TailCase {
        let mark = self.mark();
        let clean = Mark { sequence: mark.sequence + 1, clean: true, ..mark };
        let mut file = self.disk.contents(MARK).unwrap();
        let at = usize::try_from(clean.offset()).unwrap();
        file[at..at + mark::MARK_SLOT_BYTES].copy_from_slice(&clean.write());
        self.disk.set_contents(MARK, Some(file));
        self
    }

    fn with_byte(self, at: usize, change: u8) -> TailCase {
        let mut bytes = self.disk.contents(&self.path).unwrap();
        bytes.resize(bytes.len().max(at + 1), 0);
        bytes[at] ^= change;
        self.disk.set_contents(&self.path, Some(bytes));
        self
    }

    /// As rolling would have left it, with this many bytes behind the seal.
    fn sealed(self, behind: usize) -> TailCase {
        let mut bytes = self.disk.contents(&self.path).unwrap();
        let header = SegmentHeader::read(&bytes).unwrap();
        let seal = Seal {
            length: u32::try_from(self.end + SEAL_BYTES).unwrap(),
            last_position: 4,
            last_recorded_at: 1_000_000,
            frames: 4,
            events: 4,
            chain: self.mark().chain,
        };
        bytes.truncate(self.end);
        bytes.extend(seal.write(&header, u64::try_from(self.end).unwrap()));
        bytes.resize(bytes.len() + behind, 7);
        self.disk.set_contents(&self.path, Some(bytes));
        self
    }

    fn with_next(self, bytes: Vec<u8>) -> TailCase {
        self.disk.set_contents(&NEXT.path(), Some(bytes));
        self
    }

    fn open(self) -> Result<OpenedCase, Error> {
        let before = contents(&self.disk);
        let opened = open(&self.disk);
        if let Err(error) = &opened {
            assert!(contents(&self.disk) == before, "a refusal changes nothing: {error}");
        }
        opened.map(|store| {
            let report = store.open_report();
            let cut = report.cut.as_ref().map(|cut| {
                assert!(cut.kept.is_some());
                (usize::try_from(cut.offset).unwrap(), usize::try_from(cut.bytes).unwrap())
            });
            (count(&store), report.clean, cut, report.removed.len(), report.segments)
        })
    }

    fn refused(self, kind: ErrorKind, what: &str) {
        let error = self.open().unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn nothing_behind_the_end_is_not_torn_but_not_closed() {
    assert_eq!(TailCase::new().open().unwrap(), (4, false, None, 0, 2));
    assert_eq!(TailCase::new().without_mark().open().unwrap(), (4, false, None, 0, 2));
}

#[test]
fn something_behind_the_end_is_torn() {
    let end = TailCase::new().end;
    for at in [end, end + 1, end + 1024 + SEAL_BYTES - 1] {
        let torn = (4, false, Some((end, at - end + 1)), 0, 2);
        assert_eq!(TailCase::new().with_byte(at, 1).open().unwrap(), torn, "{at}");
        assert_eq!(TailCase::new().without_mark().with_byte(at, 1).open().unwrap(), torn, "{at}");
    }
    TailCase::new().with_byte(end + 1024 + SEAL_BYTES, 1).refused(ErrorKind::Corrupt, "too much follows");
}

#[test]
fn what_mark_or_a_later_frame_proves_is_damaged() {
    let TailCase { end, .. } = TailCase::new();
    let last = end - 9;
    let first = SEGMENT_HEADER_BYTES + 100;
    TailCase::new().with_byte(last, 1).refused(ErrorKind::Corrupt, "MARK proves");
    TailCase::new().with_byte(first, 1).refused(ErrorKind::Corrupt, "MARK proves");
    TailCase::new().without_mark().with_byte(first, 1).refused(ErrorKind::Corrupt, "a later append proves");
    // The one thing that cannot be told: nothing proves the last frame.
    let (events, clean, cut, ..) = TailCase::new().without_mark().with_byte(last, 1).open().unwrap();
    assert_eq!((events, clean, cut.is_some()), (3, false, true));
}

#[test]
fn a_clean_close_holds_until_a_byte_says_otherwise() {
    let end = TailCase::new().end;
    assert_eq!(TailCase::new().closed().open().unwrap(), (4, true, None, 0, 1));
    assert_eq!(TailCase::new().closed().with_byte(end, 1).open().unwrap(), (4, false, Some((end, 1)), 0, 2));
    TailCase::new().closed().with_byte(end - 9, 1).refused(ErrorKind::Corrupt, "MARK proves");
}

#[test]
fn something_newer_refused_as_such() {
    let case = TailCase::new();
    let mut bytes = case.disk.contents(&case.path).unwrap();
    let header = SegmentHeader::read(&bytes).unwrap();
    let first =
        frame::read(&bytes[SEGMENT_HEADER_BYTES..], &header.frame_place(144)).unwrap().header.fields();
    let newer = NewFrameHeader { flags: 0x0400, ..first };
    let frame = header_alone(&newer, &header.frame_place(u32::try_from(case.end).unwrap()), 4);
    bytes[case.end..case.end + frame.len()].copy_from_slice(&frame);
    case.disk.set_contents(&case.path, Some(bytes));
    case.refused(ErrorKind::NeedsNewer, "0x0400");
}

#[test]
fn a_segment_without_a_whole_header_was_being_created_or_is_damaged() {
    for debris in
        [vec![], vec![0; 1], vec![0; 65_536], [vec![9; SEGMENT_HEADER_BYTES], vec![0; 100]].concat()]
    {
        assert_eq!(TailCase::new().sealed(0).with_next(debris).open().unwrap(), (4, false, None, 1, 2));
    }
    for no_debris in [vec![0; 65_537], [vec![9; SEGMENT_HEADER_BYTES], vec![1; 1]].concat()] {
        TailCase::new().sealed(0).with_next(no_debris).refused(ErrorKind::Corrupt, "header");
    }
    TailCase::new().with_byte(50, 1).refused(ErrorKind::Corrupt, "header");
    TailCase::new().without_mark().with_byte(50, 1).refused(ErrorKind::Corrupt, "header");
}

#[test]
fn a_sealed_end_is_where_the_log_ends() {
    for behind in [0, 1, 500] {
        assert_eq!(TailCase::new().sealed(behind).open().unwrap(), (4, false, None, 0, 2), "{behind}");
    }
    // But only of the last segment: the next one is created once the file was cut to its seal.
    let TailCase { disk, .. } = TailCase::new().sealed(0);
    open(&disk).unwrap().close().unwrap();
    let next = disk.contents(&NEXT.path()).unwrap();
    TailCase::new().sealed(1).with_next(next).refused(ErrorKind::Corrupt, "goes on behind its seal");
}
