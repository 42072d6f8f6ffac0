//! Index files that are damaged, cut, stale or forged: found, or harmless; never a panic, never a wrong
//! answer where a checksum tells.

use super::*;
use crate::format::index_file::{BLOCK, HEADER, Header, Layout, block_place};
use crate::format::{Damage, checksum, put};

type Question = Box<dyn Fn(&dyn SegmentIndex) -> Result<String, Error>>;

/// One of every kind.
pub(super) fn questions(ids: &[EventId], entities: &[&'static str]) -> Vec<Question> {
    fn ask<T: std::fmt::Debug>(
        question: impl Fn(&dyn SegmentIndex) -> Result<T, Error> + 'static,
    ) -> Question {
        Box::new(move |form| question(form).map(|told| format!("{told:?}")))
    }
    let mut questions = Vec::new();
    for ordinal in [0, 1, 7, 300, 4_000, u32::MAX] {
        questions.push(ask(move |form| form.locate(ordinal)));
        questions.push(ask(move |form| form.locate_from(ordinal)));
        questions.push(ask(move |form| form.is_follower(ordinal)));
    }
    for id in ids.iter().copied() {
        questions.push(ask(move |form| form.foreign(id)));
        questions.push(ask(move |form| form.key(id.as_bytes())));
        questions.push(ask(move |form| form.effects(id)));
        questions.push(ask(move |form| form.correlates(id, 3)));
    }
    let mut queries = vec![
        Query::all(),
        Query::entity_prefix("e"),
        Query::all().kind_prefix("k"),
        Query::all().kind("paid"),
    ];
    for entity in entities.iter().copied() {
        questions.push(ask(move |form| form.last_of(entity, u32::MAX)));
        questions.push(ask(move |form| form.last_of(entity, 40)));
        questions.push(ask(move |form| form.window_of(entity, &(3..9))));
        queries.push(Query::entity(entity));
        queries.push(Query::entity(entity).kind("k.a").or(Query::all().tag("t").scope("default")));
    }
    queries.extend(ids.iter().map(|id| Query::correlation(*id)));
    for (query, window) in
        queries.into_iter().flat_map(|query| [(query.clone(), 0..u32::MAX), (query, 5..60)])
    {
        let all = (query, window);
        let counted = all.clone();
        let there = all.clone();
        let forward = all.clone();
        let backward = all;
        questions.push(ask(move |form| form.count(&counted.0, &counted.1, &|_| Some(4))));
        questions.push(ask(move |form| form.exists(&there.0, &there.1, &|_| Some(4))));
        questions.push(ask(move |form| {
            form.matching(&forward.0, &forward.1, Direction::Forward, &|_| Some(4), usize::MAX)
        }));
        questions.push(ask(move |form| {
            form.matching(&backward.0, &backward.1, Direction::Backward, &|_| None, 3)
        }));
    }
    for field in [NameField::Entity, NameField::Scope, NameField::Kind, NameField::Tag] {
        let wanted = |prefix: &str, after: &str| NameFilter {
            field,
            prefix: prefix.to_owned(),
            after: (!after.is_empty()).then(|| after.to_owned()),
        };
        for wanted in [wanted("", ""), wanted("e:", ""), wanted("k", "k.a")] {
            questions.push(ask(move |form| form.list_names(&wanted, &(0..50), 9)));
        }
    }
    questions
}

pub(super) fn answers(questions: &[Question], form: &dyn SegmentIndex) -> Vec<Result<String, Error>> {
    questions.iter().map(|question| question(form)).collect()
}

/// Every form an index file can be opened in, if it can.
fn opened(bytes: &[u8], bound: &Bound) -> Vec<SealedIndex> {
    let whole = SealedIndex::whole(bytes.into(), "whole.idx", bound);
    let file = SealedIndex::open(file_of(bytes), "file.idx", bound).unwrap();
    whole.into_iter().chain(file).collect()
}

#[test]
fn every_flipped_byte_is_found_or_harmless() {
    for (frames, removed, step) in [(4, 50, 1), (400, 10, 3)] {
        let mut random = Random(20_260_104);
        let story = build(&mut random, frames, removed);
        let index = story.index(0..frames);
        let bound = bound(&index);
        let bytes = index.encode(&bound).unwrap();
        let questions = questions(&[id(1), id(103), id(7)], &["e:1", "f"]);
        let right = answers(&questions, &index);
        let mut found = 0;
        let mut refused = 0;
        let mut harmless = 0;
        for at in (0..bytes.len()).step_by(step) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(SealedIndex::whole(flipped.as_slice().into(), "whole.idx", &bound).is_err(), "byte {at}");
            match SealedIndex::open(file_of(&flipped), "file.idx", &bound).unwrap() {
                Err(_) => found += 1,
                Ok(sealed) => {
                    for (told, right) in answers(&questions, &sealed).iter().zip(&right) {
                        match (told, right) {
                            (Ok(told), Ok(right)) => assert_eq!(told, right, "byte {at}"),
                            (Err(error), _) => {
                                assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}: {error}");
                                assert!(error.to_string().contains("file.idx"), "{error}");
                                refused += 1;
                            }
                            (Ok(_), Err(error)) => panic!("{error}"),
                        }
                        harmless += 1;
                    }
                    assert!(sealed.load().unwrap().is_err(), "byte {at}");
                }
            }
        }
        println!(
            "{} bytes: {found} flips found at opening; of {harmless} answers later {refused} refused",
            bytes.len()
        );
        assert!(found > 0 && (bytes.len() < BLOCK) == (refused == 0));
    }
}

#[test]
fn every_cut_and_every_addition_is_found() {
    let mut random = Random(20_260_105);
    let story = build(&mut random, 100, 10);
    let index = story.index(0..100);
    let bound = bound(&index);
    let bytes = index.encode(&bound).unwrap();
    assert!(bytes.len() > BLOCK);
    assert_eq!(opened(&bytes, &bound).len(), 2);
    for length in 0..bytes.len() {
        assert!(opened(&bytes[..length], &bound).is_empty(), "{length} bytes");
    }
    assert!(opened(&[bytes.as_slice(), &[0]].concat(), &bound).is_empty());
    // Cut while it is open.
    let file = file_of(&bytes);
    let sealed = SealedIndex::open(file.clone(), "file.idx", &bound).unwrap().unwrap();
    file.set_length(5_000).unwrap();
    let told = answers(&questions(&[id(1)], &["e:1"]), &sealed);
    let errors: Vec<&Error> = told.iter().filter_map(|told| told.as_ref().err()).collect();
    assert!(
        !errors.is_empty() && errors.iter().all(|error| error.kind() == ErrorKind::Corrupt),
        "{errors:?}"
    );
    assert!(sealed.load().unwrap().is_err());
}

#[test]
fn an_index_of_another_bound_or_version_is_not_taken() {
    let index = build(&mut Random(1), 3, 0).index(0..3);
    let right = bound(&index);
    let bytes = index.encode(&right).unwrap();
    let id = right.segment;
    let others = [
        Bound { store_id: [2; 16], ..right.clone() },
        Bound { segment: SegmentId { generation: 2, ..id }, ..right.clone() },
        Bound { segment: SegmentId { first_position: 1, ..id }, ..right.clone() },
        Bound { end: right.end + 8, ..right.clone() },
        Bound { last_position: right.last_position + 1, ..right.clone() },
        Bound { chain: [8; 32], ..right.clone() },
    ];
    for other in &others {
        assert!(opened(&bytes, other).is_empty(), "{other:?}");
    }
    let with = |at: usize, value: u8| {
        let mut newer = bytes.clone();
        newer[at] = value;
        reseal(&mut newer);
        (
            SealedIndex::whole(newer.as_slice().into(), "x.idx", &right).err(),
            SealedIndex::open(file_of(&newer), "x.idx", &right).unwrap().err(),
        )
    };
    for (at, value) in [(8, 2), (16, 1), (24, 1)] {
        let (whole, file) = with(at, value);
        assert!(matches!(whole, Some(Damage::Newer(_))) && whole == file, "{whole:?} {file:?}");
    }
    assert_eq!(with(10, 1), (None, None), "a minor version");
    assert_eq!(with(32, 1), (None, None), "a compatible feature");
}

/// Makes every checksum right.
fn reseal(bytes: &mut [u8]) {
    let header = checksum(&[&bytes[..188]]).to_le_bytes();
    put(bytes, 188, &header);
    let Ok(header) = Header::read(bytes) else { return };
    let table = header.layout().table;
    if table.end != bytes.len() {
        return;
    }
    for block in 0..table.start.div_ceil(BLOCK) {
        let sum = checksum(&[&bytes[block_place(block, table.start)]]).to_le_bytes();
        put(bytes, table.start + block * 4, &sum);
    }
    let sum = checksum(&[&bytes[table]]).to_le_bytes();
    put(bytes, 172, &sum);
    let sum = checksum(&[&bytes[..188]]).to_le_bytes();
    put(bytes, 188, &sum);
}

/// Impossible contents under right checksums: each question that would rely on them refuses them.
#[test]
fn what_cannot_be_is_refused() {
    let mut random = Random(20_260_107);
    let story = build(&mut random, 200, 20);
    let index = story.index(0..200);
    let bound = bound(&index);
    let bytes = index.encode(&bound).unwrap();
    let header = Header::read(&bytes).unwrap();
    let Layout { gaps, removed, large_frames, offsets, lists, terms, .. } = header.layout();
    assert!(large_frames.count > 1, "there are large frames");
    let forged = |at: usize, value: &[u8]| {
        let mut forged = bytes.clone();
        put(&mut forged, at, value);
        reseal(&mut forged);
        opened(&forged, &bound)
    };
    let at_opening: [(&str, usize, u32); 8] = [
        ("a gap before the second event", gaps.at(0), 0),
        ("a gap behind the last event", gaps.at(gaps.count - 1), u32::MAX),
        ("gaps in another order", gaps.at(1), 1),
        ("a gap backwards", gaps.at(1) + 4, 0),
        ("a gap too far", gaps.at(gaps.count - 1) + 4, u32::MAX),
        ("more events than offsets", 112, index.events() + 1),
        ("fewer ordinals than events", 120, 1),
        ("more born than there are", 124, u32::MAX),
    ];
    for (what, at, value) in at_opening {
        assert!(forged(at, &value.to_le_bytes()).is_empty(), "{what}");
    }
    let swapped = [&bytes[lists.at(1)..lists.at(2)], &bytes[lists.at(0)..lists.at(1)]].concat();
    let last_offset = &bytes[offsets.at(offsets.count - 1)..offsets.at(offsets.count)];
    let swapped_frames =
        [&bytes[large_frames.at(1)..large_frames.at(2)], &bytes[large_frames.at(0)..large_frames.at(1)]]
            .concat();
    let when_thawed: [(&str, usize, &[u8]); 11] = [
        ("a list in another order", lists.at(0), &swapped),
        ("a list of what was removed", lists.at(0), &u32::MAX.to_le_bytes()),
        ("something removed backwards", removed.at(0), &u32::MAX.to_le_bytes()),
        ("an event in what was removed", removed.at(0), &0_u32.to_le_bytes()),
        ("offsets in another order", offsets.at(0), last_offset),
        ("an event behind the end", offsets.at(offsets.count - 1), &u32::MAX.to_le_bytes()),
        ("large frames in another order", large_frames.at(0), &swapped_frames),
        ("a large frame that ends before its events", large_frames.at(0) + 4, &1_u32.to_le_bytes()),
        ("a large frame of no event", large_frames.at(0) + 12, &[0, 0]),
        ("a large frame of more events than lie in it", large_frames.at(0) + 12, &[0xFF, 0xFF]),
        // Its first term is an entity with a list and gaps in its versions: its head has 27 bytes.
        ("a name that is no UTF-8", terms.at(27), &[0xFF]),
    ];
    assert_eq!(bytes[terms.at(0)], 0b1010_0000);
    for (what, at, value) in when_thawed {
        let sealed = forged(at, value);
        assert_eq!(sealed.len(), 2, "{what}");
        for sealed in sealed {
            let error = LiveIndex::concat(&sealed, &LiveIndex::new(bound.end)).err();
            let error = error.unwrap_or_else(|| panic!("{what} is taken"));
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
        }
    }
}

/// Anything under right checksums: answers may be wrong, but they come, and they are no more than there can
/// be.
#[test]
fn forged_files_do_no_harm() {
    let mut random = Random(20_260_106);
    let questions = questions(&[id(1), id(103), id(7)], &["e:1", "f"]);
    let mut usable = 0;
    let mut refused = 0;
    let mut thawed = 0;
    for (frames, removed, rounds) in [(3, 60, 3_000), (30, 30, 3_000), (300, 10, 300)] {
        let story = build(&mut random, frames, removed);
        let index = story.index(0..frames);
        let bound = bound(&index);
        let bytes = index.encode(&bound).unwrap();
        for _ in 0..rounds {
            let mut forged = bytes.clone();
            for _ in 0..=random.below(3) {
                forge(&mut random, &mut forged);
            }
            reseal(&mut forged);
            for sealed in opened(&forged, &bound) {
                usable += 1;
                for told in answers(&questions, &sealed) {
                    if let Err(error) = told {
                        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                        refused += 1;
                    }
                }
                let places =
                    sealed.matching(&Query::all(), &(0..u32::MAX), Direction::Forward, &|_| None, usize::MAX);
                for place in places.into_iter().flatten() {
                    assert!(place.frame.start < place.frame.end && place.frame.end <= bound.end, "{place:?}");
                }
                if let Ok(index) = LiveIndex::concat(&sealed, &LiveIndex::new(bound.end)) {
                    answers(&questions, &index).into_iter().for_each(|told| drop(told.unwrap()));
                    thawed += 1;
                }
            }
        }
    }
    println!("{usable} forged files were usable, {refused} answers refused, {thawed} thawed");
    assert!(usable > 1_000 && refused > 1_000 && thawed > 100);
}

fn forge(random: &mut Random, bytes: &mut [u8]) {
    let place = |random: &mut Random, from: usize, to: usize| {
        from + usize::try_from(random.below(number(to - from))).unwrap()
    };
    let end = bytes.len();
    match random.below(4) {
        // A count or a length in the header.
        0 => {
            let at = 112 + 4 * place(random, 0, 15);
            let value = random.pick(&[0, 1, 2, 100, 0x7FFF_FFFF, u32::MAX - 1, u32::MAX]);
            put(bytes, at, &value.to_le_bytes());
        }
        1 => {
            let at = place(random, HEADER, end - 4);
            let value = random.pick(&[0, 1, 5, 1000, 0x7FFF_FFFF, u32::MAX - 1, u32::MAX]);
            put(bytes, at, &value.to_le_bytes());
        }
        2 => {
            let at = place(random, HEADER, end);
            bytes[at] = u8::try_from(random.below(256)).unwrap();
        }
        // Something from elsewhere in the file.
        _ => {
            let from = place(random, HEADER, end - 16);
            let to = place(random, HEADER, end - 16);
            bytes.copy_within(from..from + 16, to);
        }
    }
}
