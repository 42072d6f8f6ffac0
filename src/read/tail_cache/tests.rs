//! Random groups, and random frames asked for, against plain files.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

use super::*;
use crate::format::{ALIGN, FRAME_FIXED_BYTES, FramePlace, NewFrameHeader, header_alone};

/// SplitMix64; the tests of the library have no other crate's numbers.
struct Random(u64);

impl Random {
    fn for_test() -> Random {
        use std::hash::{BuildHasher, RandomState};
        let given = std::env::var("ANNALS_SEED").ok().map(|seed| seed.parse().unwrap());
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one("recent"));
        println!("ANNALS_SEED={seed} repeats this");
        Random(seed)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from(mixed ^ (mixed >> 31)).unwrap() % end
    }
}

/// A segment's file, and where its frames lie.
struct File {
    id: SegmentId,
    bytes: Vec<u8>,
    frames: Vec<Range<u32>>,
}

const HEADER: usize = 144;
/// The shortest frame, as far as the window looks at it.
const FRAME_BYTES_MIN: usize = FRAME_FIXED_BYTES.next_multiple_of(ALIGN);

impl File {
    fn new(first_position: u64) -> File {
        let id = SegmentId { first_position, generation: 0 };
        File { id, bytes: vec![0; HEADER], frames: Vec::new() }
    }

    /// Writes a group of frames; says where it begins.
    fn write(&mut self, random: &mut Random, group_bytes: usize) -> usize {
        let start = self.bytes.len();
        while self.bytes.len() < start + group_bytes {
            let left = start + group_bytes - self.bytes.len();
            let frame = FRAME_BYTES_MIN + 8 * random.below(200);
            let frame = if left < frame + FRAME_BYTES_MIN { left.max(FRAME_BYTES_MIN) } else { frame };
            let begin = self.bytes.len();
            write_frame(&mut self.bytes, frame, u8::try_from(random.below(256)).unwrap());
            self.frames.push(to_u32(begin)..to_u32(begin + frame));
        }
        start
    }
}

/// A frame as far as the window looks at it.
fn write_frame(out: &mut Vec<u8>, bytes: usize, content: u8) {
    let end = out.len() + bytes;
    let header = NewFrameHeader {
        position_offset: 0,
        durable_end: 0,
        events: 1,
        flags: NewFrameHeader::flags_for(false, false),
        recorded_at: 0,
        first_version: 1,
        chain: [content; 32],
        key: None,
    };
    let place = FramePlace { salt: 0, offset: 0, first_position: 1 };
    out.extend(header_alone(&header, &place, to_u32(bytes - FRAME_FIXED_BYTES)));
    out.resize(end, content);
}

impl TailCache {
    fn memory(&self) -> usize {
        let chunks = self.chunks.read();
        let full: usize = chunks.full.iter().map(|chunk| chunk.block.bytes.capacity()).sum();
        let memory = full + chunks.filling.as_ref().map_or(0, |filling| filling.bytes.capacity());
        assert_eq!(chunks.bytes, memory, "the count is the memory of all chunks");
        memory
    }

    fn chunks(&self) -> usize {
        self.chunks.read().full.len()
    }
}

#[test]
fn it_never_differs_from_the_files() {
    // Bytes of the window, of the largest group, of a segment.
    const TABLE: [(usize, usize, usize); 6] = [
        (0, 1_000, 100_000),
        (3_000, 4_000, 9_000),
        (100_000, 300, 5_000),
        (1 << 20, 2_000, 1 << 20),
        (1 << 20, 100_000, 500_000),
        (16 << 20, 30_000, 1 << 20),
    ];
    let mut random = Random::for_test();
    for row @ (bytes_max, group_max, segment_bytes) in TABLE {
        let tail = TailCache::new(bytes_max);
        let mut files = vec![File::new(1)];
        let mut found = 0;
        // Everything before this was evicted.
        let mut cleared = (files[0].id, 0);
        for step in 0..2_000 {
            if files.last().unwrap().bytes.len() > segment_bytes {
                let next = files.last().unwrap().id.first_position + 1 + u64::try_from(step).unwrap();
                files.push(File::new(next));
            }
            if random.below(700) == 0 {
                tail.clear();
                let file = files.last().unwrap();
                cleared = (file.id, to_u32(file.bytes.len()));
            }
            let file = files.last_mut().unwrap();
            let group_bytes = 80 + random.below(group_max);
            let start = file.write(&mut random, group_bytes);
            tail.add(file.id, to_u32(start), &file.bytes[start..]);
            let fits = file.bytes.len() - start <= bytes_max;
            assert!(tail.memory() <= bytes_max, "{row:?}");
            let newest = file.frames.last().unwrap().clone();
            assert_eq!(tail.block(file.id, &newest, &newest).is_some(), fits && bytes_max > 0, "{row:?}");

            for _ in 0..4 {
                let file = &files[files.len() - 1 - random.below(files.len().min(3))];
                let some = file.frames.len() - 1 - random.below(file.frames.len().min(300));
                let run = some.saturating_sub(random.below(30))..(some + 1 + random.below(30));
                let run = &file.frames[run.start..run.end.min(file.frames.len())];
                let run = run[0].start..run.last().unwrap().end;
                let frame = &file.frames[some];
                let Some(block) = tail.block(file.id, frame, &run) else { continue };
                found += 1;
                assert!(block.holds(frame) && cleared <= (file.id, block.start), "{row:?} {frame:?} {run:?}");
                let place = to_usize(block.start)..to_usize(block.start) + block.bytes.len();
                assert!(file.bytes[place] == block.bytes[..], "{row:?} {frame:?} {run:?}");
            }
        }
        assert_eq!(found > 0, bytes_max > 0, "{row:?}");
    }
}

#[test]
fn small_groups_share_chunks_and_large_ones_have_their_own() {
    let segment = SegmentId { first_position: 1, generation: 0 };
    let small = vec![1; 320];
    let tail = TailCache::new(16 << 20);
    assert_eq!(tail.memory(), 0);
    tail.add(segment, 144, &small);
    assert_eq!((tail.chunks(), tail.memory()), (0, CHUNK_BYTES));
    for number in 1..1_000 {
        tail.add(segment, 144 + number * 320, &small);
    }
    // 204 of them fit into 64 KiB; reading all of them takes five calls.
    assert_eq!((tail.chunks(), tail.memory()), (4, 5 * CHUNK_BYTES));
    let mut at = 144;
    let mut asked = 0;
    while at < 144 + 320_000 {
        let block = tail.block(segment, &(at..at + 320), &(at..at + 320_000)).unwrap();
        (at, asked) = (block.start + to_u32(block.bytes.len()), asked + 1);
    }
    assert_eq!((at, asked), (144 + 320_000, 5));

    let end = 144 + 320_000;
    let mut large = Vec::new();
    write_frame(&mut large, 40_000, 2);
    tail.add(segment, end, &large);
    let block_at = |from: u32| {
        let place = end + from..end + from + 80;
        tail.block(segment, &place, &place).unwrap()
    };
    assert!(Arc::ptr_eq(&block_at(0).bytes, &block_at(39_900).bytes), "it is shared, not copied");
    assert_eq!(tail.chunks(), 6);

    // A caller that keeps one event of a large group does not keep all of it; a frame stays whole.
    let mut group = Vec::new();
    (0..400).for_each(|_| write_frame(&mut group, 1_000, 3));
    write_frame(&mut group, 200_000, 4);
    (0..5).for_each(|_| write_frame(&mut group, 1_000, 5));
    tail.add(segment, end + 40_000, &group);
    for (from, bytes) in [(0, 65_000), (65_000, 65_000), (395_000, 10_000), (400_000, 200_000)] {
        assert_eq!(block_at(40_000 + from).bytes.len(), bytes, "{from}");
    }
    assert_eq!(block_at(40_000 + 603_000).bytes.len(), 80, "of what is being filled only what is asked for");
}
