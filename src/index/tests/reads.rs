//! What a question costs where the index is read piece by piece.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::format::index_file::TermKind;

/// Counts reads, and refuses them from one on.
struct Counted {
    file: Arc<dyn DiskFile>,
    reads: AtomicU64,
    refuse_from: u64,
}

impl Counted {
    fn new(bytes: &[u8], refuse_from: u64) -> Arc<Counted> {
        Arc::new(Counted { file: file_of(bytes), reads: AtomicU64::new(0), refuse_from })
    }

    fn reads(&self) -> u64 {
        self.reads.load(Ordering::SeqCst)
    }
}

impl DiskFile for Counted {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.reads.fetch_add(1, Ordering::SeqCst) >= self.refuse_from {
            return Err(io::Error::other("the disk is gone"));
        }
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<usize> {
        unreachable!("an index file is read only")
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn set_length(&self, _bytes: u64) -> io::Result<()> {
        unreachable!("an index file is read only")
    }

    fn sync(&self) -> io::Result<()> {
        unreachable!("an index file is read only")
    }

    fn drop_cache(&self, _offset: u64) -> io::Result<()> {
        Ok(())
    }
}

/// An index of `events` events of `entities` entities, in turn.
pub(super) fn regular(events: u32, entities: u32, with_ids: bool) -> LiveIndex {
    let segment = segment();
    let mut index = LiveIndex::new(144);
    let mut offset = 144;
    for ordinal in 0..events {
        let entity: &'static str = format!("account:{:06}", ordinal % entities).leak();
        let event = Known {
            entity,
            version: u64::from(ordinal / entities) + 1,
            scope: "",
            kind: ["opened", "paid", "moved", "named", "closed", "merged", "split", "asked", "told", "seen"]
                [usize::try_from(ordinal * 7 % 10).unwrap()],
            tags: Vec::new(),
            correlation: None,
            foreign_id: with_ids.then(|| numbered(ordinal)),
            cause: None,
            key: with_ids.then(|| *numbered(ordinal).as_bytes()),
            ordinal,
            frame: 0..0,
            record: None,
            payload: 0,
            is_gone: false,
        };
        let bytes = encode(&segment, offset, ordinal, &[event], u64::from(ordinal));
        index.insert(&segment, offset, &Frame::known(&bytes)).unwrap();
        offset += u32::try_from(bytes.len()).unwrap();
    }
    index
}

fn numbered(number: u32) -> EventId {
    let mut bytes = [9; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    EventId::from_bytes(bytes)
}

#[test]
fn a_look_up_takes_at_most_four_reads_whatever_the_size() {
    for (events, entities) in [(10, 3), (3_000, 1_000), (40_000, 40), (40_000, 40_000)] {
        let index = regular(events, entities, true);
        let bytes = index.encode(&bound(&index)).unwrap();
        let file = Counted::new(&bytes, u64::MAX);
        let sealed = SealedIndex::open(file.clone(), "x.idx", &bound(&index)).unwrap().unwrap();
        assert!(file.reads() <= 3, "{} reads to open", file.reads());
        assert!(sealed.bytes() < 456 + bytes.len() / 8, "{} of {}", sealed.bytes(), bytes.len());
        assert_eq!((sealed.whole_bytes(), sealed.is_whole()), (bytes.len(), false));
        let mut worst = 0;
        let mut ask = |name: &str, most: u64, question: &dyn Fn(&dyn SegmentIndex) -> String| {
            let before = file.reads();
            let told = question(&sealed);
            let reads = file.reads() - before;
            assert_eq!(told, question(&index), "{name}");
            assert!(reads <= most, "{name}: {reads} reads among {events} events of {entities} entities");
            if most <= 4 {
                worst = worst.max(reads);
            }
        };
        for ordinal in (0..events).step_by(usize::try_from(events / 10).unwrap()) {
            let entity = format!("account:{:06}", ordinal % entities);
            ask("place", 2, &|form| format!("{:?}", form.locate(ordinal)));
            ask("last_of", 3, &|form| format!("{:?}", form.last_of(&entity, u32::MAX)));
            ask("window_of", 4, &|form| format!("{:?}", form.window_of(&entity, &(1..3))));
            ask("foreign", 3, &|form| format!("{:?}", form.foreign(numbered(ordinal))));
            ask("key", 3, &|form| format!("{:?}", form.key(numbered(ordinal).as_bytes())));
            ask("last event", 4, &|form| {
                format!(
                    "{:?}",
                    form.matching(&Query::entity(&entity), &(0..events), Direction::Backward, &|_| None, 1)
                )
            });
            ask("all neighbours", 2, &|form| {
                let window = ordinal..ordinal + 256;
                format!("{:?}", form.matching(&Query::all(), &window, Direction::Forward, &|_| None, 256))
            });
            ask("a stream", 8, &|form| {
                let query = Query::entity(&entity);
                format!(
                    "{:?}",
                    form.matching(&query, &(0..events), Direction::Forward, &|_| None, usize::MAX)
                )
            });
            ask("absent", 0, &|form| format!("{:?}", form.last_of("nobody", u32::MAX)));
        }
        assert_eq!(sealed.pieces_read(), file.reads());
        println!("{events} events of {entities} entities: at most {worst} reads for a look-up");
    }
}

/// A filter may be wrong about what is not there, seldom; never about what is.
#[test]
fn the_filter_knows_all_that_is_there_and_little_else() {
    let index = regular(20_000, 20_000, false);
    let whole = whole(&index);
    let file = in_file(&index);
    let store = bound(&index).store_id;
    let mut wrong = 0;
    for number in 0..20_000 {
        let there = format!("account:{number:06}");
        let absent = format!("account:{number:07}");
        assert!(whole.may_have(TermHash::entity(&store, &there)));
        assert!(file.may_have(TermHash::entity(&store, &there)));
        wrong += u32::from(file.may_have(TermHash::entity(&store, &absent)));
        // The same name as something else is another term, and in another store it has another hash.
        assert_ne!(TermHash::entity(&store, &there), TermHash::of(&store, TermKind::Tag, there.as_bytes()));
        assert_ne!(TermHash::entity(&store, &there), TermHash::entity(&[2; 16], &there));
    }
    println!("{wrong} of 20000 absent names pass the filter");
    assert!(wrong < 200, "{wrong}");
}

#[test]
fn a_disk_that_fails_is_an_error_and_never_an_answer() {
    let index = regular(5_000, 50, true);
    let bytes = index.encode(&bound(&index)).unwrap();
    let questions = hostile::questions(&[id(1), numbered(17)], &["account:000007", "account:000049"]);
    let right = hostile::answers(&questions, &index);
    let mut failed = 0;
    for refuse_from in 0.. {
        let file = Counted::new(&bytes, refuse_from);
        match SealedIndex::open(file.clone(), "x.idx", &bound(&index)) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "{error}"),
            Ok(sealed) => {
                let sealed = sealed.unwrap();
                for (told, right) in hostile::answers(&questions, &sealed).iter().zip(&right) {
                    match told {
                        Ok(told) => assert_eq!(Some(told), right.as_ref().ok()),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
                            assert!(error.to_string().contains("x.idx"), "{error}");
                            failed += 1;
                        }
                    }
                }
            }
        }
        if file.reads() <= refuse_from {
            break;
        }
    }
    assert!(failed > 100, "{failed}");
}
