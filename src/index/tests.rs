//! Random events and questions against a naive filter, in every form an index has.
#![allow(clippy::print_stdout, reason = "tests say what they tried and measured")]

mod forms;
mod hostile;
mod reads;

use std::ops::Range;
use std::sync::Arc;

use super::*;
use crate::disk::{Access, Disk, DiskFile, MemDisk};
use crate::format::index_file::LargeFrame;
use crate::format::{
    AnyRecord, BodyLayout, Frame, NewFrameHeader, NewRecord, Record, RecordFields, SegmentHeader, SegmentId,
    padded_body_bytes, record, seal, write,
};
use crate::log::SegmentFile;
use crate::types::{Cause, Error, ErrorKind, EventId, Item, Name, Position, Query, SYSTEM_SCOPE};

const ENTITIES: [&str; 4] = ["e:1", "e:10", "e", "f"];
const SCOPES: [&str; 4] = ["", "s", "s2", SYSTEM_SCOPE];
const KINDS: [&str; 4] = ["k", "k.a", "k.b", "rare"];
const TAGS: [&str; 3] = ["t", "t:1", "t:10"];
const FIRST_POSITION: u64 = 1000;

/// SplitMix64; the tests of the library have no other crate's numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[usize::try_from(self.below(items.len().try_into().unwrap())).unwrap()]
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone, Debug)]
struct Known {
    entity: &'static str,
    version: u64,
    scope: &'static str,
    kind: &'static str,
    tags: Vec<&'static str>,
    correlation: Option<EventId>,
    foreign_id: Option<EventId>,
    cause: Option<Cause>,
    /// Of its append, at the first event of it.
    key: Option<[u8; 16]>,
    ordinal: u32,
    frame: Range<u32>,
    /// Of an event in a large frame.
    record: Option<RecordLocation>,
    payload: usize,
    /// The event was removed, and only its record's hash is left.
    is_gone: bool,
}

fn id(number: u64) -> EventId {
    EventId::from_bytes([u8::try_from(number).unwrap(); 16])
}

fn number(length: usize) -> u64 {
    length.try_into().unwrap()
}

fn segment() -> SegmentFile {
    let header = SegmentHeader {
        store_id: [1; 16],
        id: SegmentId { first_position: FIRST_POSITION, generation: 1 },
        salt: 77,
        created_at: 0,
        unsynced_bytes_max: 1 << 20,
        chain_before: [0; 32],
        recorded_before: 0,
    };
    let file = MemDisk::new().open("segment", Access::CreateNew).unwrap();
    SegmentFile { header, path: "segment".to_owned(), file }
}

/// Some frames of a segment, and the events in them.
#[derive(Default)]
struct Story {
    /// Each with its offset.
    frames: Vec<(u32, Vec<u8>)>,
    events: Vec<Known>,
}

/// Some thousand events. Streams begin at different versions, as they do in a segment that is not the first.
/// In some of a hundred places, as many as the caller says, frames were removed: there ordinals and versions
/// have gaps, and the bytes hold something else. As often an event of an append of several is gone.
fn build(random: &mut Random, frames: usize, removed: u64) -> Story {
    let segment = segment();
    let mut story = Story::default();
    let mut versions = std::collections::HashMap::from([("e:1", 5), ("f", 100)]);
    let mut offset = 144;
    let mut next = 0;
    for number in 0..frames {
        if random.chance(removed) {
            offset += u32::try_from(8 * random.below(20)).unwrap();
            next += u32::try_from(random.below(30)).unwrap();
            versions.values_mut().for_each(|version| *version += random.below(3));
        }
        let count = if random.chance(70) { 1 } else { 2 + random.below(3) };
        let mut new: Vec<Known> = Vec::new();
        for at in 0..count {
            let entity = random.pick(&ENTITIES);
            let version = *versions.entry(entity).and_modify(|version| *version += 1).or_insert(1);
            let kinds = if random.chance(2) { &KINDS[..] } else { &KINDS[..3] };
            let causes = [Cause::Event(id(random.below(5))), Cause::InAppend(0), Cause::PreviousInStream];
            new.push(Known {
                entity,
                version,
                scope: random.pick(&SCOPES),
                kind: random.pick(kinds),
                tags: TAGS.into_iter().filter(|_| random.chance(20)).collect(),
                correlation: random.chance(30).then(|| id(random.below(4))),
                foreign_id: random.chance(5).then(|| id(100 + random.below(20))),
                cause: random.chance(30).then(|| random.pick(&causes)),
                key: (at == 0 && random.chance(10)).then(|| *id(random.below(200)).as_bytes()),
                ordinal: 0,
                frame: 0..0,
                record: None,
                payload: if random.chance(8) { 4_200 } else { 0 },
                // One of them stays, and it is not always the first.
                is_gone: at != u64::try_from(number).unwrap() % count && random.chance(removed),
            });
        }
        if new.iter().any(|event| event.is_gone) {
            // The key is no longer recognised.
            new[0].key = None;
        }
        let bytes = encode(&segment, offset, next, &new, u64::try_from(number).unwrap());
        let frame = Frame::known(&bytes);
        let end = offset + u32::try_from(bytes.len()).unwrap();
        let first = Position::from(FIRST_POSITION + u64::from(next));
        let shared = EventId::derive(frame.header.recorded_at(), first, &frame.header.chain());
        let records = record_locations(&frame, offset, next);
        for (mut event, record) in new.into_iter().zip(records) {
            event.record = record;
            (event.frame, event.ordinal) = (offset..end, next);
            next += 1;
            event.correlation = event.correlation.or((count > 1).then_some(shared));
            event.cause = match event.cause {
                Some(Cause::InAppend(_)) => Some(Cause::Event(shared)),
                other => other,
            };
            if !event.is_gone {
                story.events.push(event);
            }
        }
        story.frames.push((offset, bytes));
        offset = end;
    }
    story
}

/// Where the records of a frame at `offset` lie, if they are found one by one: each up to the next event that
/// is there.
fn record_locations(frame: &Frame<'_>, offset: u32, first: u32) -> Vec<Option<RecordLocation>> {
    let header = &frame.header;
    let records: Vec<AnyRecord<'_>> = frame.all_records().map(Result::unwrap).collect();
    let events: Vec<Record<'_>> = records.iter().filter_map(|record| record.event()).collect();
    let bytes = u32::try_from(header.frame_bytes()).unwrap();
    let is_system = |record: &Record<'_>| record.scope() == SYSTEM_SCOPE;
    if bytes <= 4_096 || events.iter().any(is_system) {
        return vec![None; records.len()];
    }
    let large = LargeFrame {
        offset,
        bytes,
        first,
        events: header.events(),
        has_versions: header.events() > 1,
        has_foreign_ids: events.iter().any(|record| record.foreign_id().is_some()),
        recorded_at: header.recorded_at(),
        first_version: header.first_version(),
        chain: header.chain(),
    };
    let mut start = offset + u32::try_from(header.header_bytes()).unwrap();
    let mut locations: Vec<Option<RecordLocation>> = Vec::new();
    let mut last: Option<usize> = None;
    for (index, record) in records.iter().enumerate() {
        let is_event = record.event().is_some();
        if let Some(last) = last.filter(|_| is_event) {
            locations[last].as_mut().unwrap().bytes.end = start;
        }
        last = if is_event { Some(index) } else { last };
        let location = RecordLocation { bytes: start..offset + bytes, frame: large.clone() };
        locations.push(is_event.then_some(location));
        start += u32::try_from(record.bytes().len()).unwrap();
    }
    locations
}

impl Story {
    /// The index of some of its frames.
    fn index(&self, frames: Range<usize>) -> LiveIndex {
        let segment = segment();
        let start = frames.start.checked_sub(1).map_or(144, |before| {
            let (offset, bytes) = &self.frames[before];
            offset + u32::try_from(bytes.len()).unwrap()
        });
        let mut index = LiveIndex::new(start);
        for (offset, bytes) in &self.frames[frames] {
            index.insert(&segment, *offset, &Frame::known(bytes)).unwrap();
        }
        index
    }

    /// The events of some of its frames.
    fn events(&self, frames: Range<usize>) -> &[Known] {
        let offset = |frame: usize| self.frames.get(frame).map_or(u32::MAX, |(offset, _)| *offset);
        let before = |offset: u32| self.events.partition_point(|event| event.frame.start < offset);
        &self.events[before(offset(frames.start))..before(offset(frames.end))]
    }
}

/// What an index file of this index would belong to.
fn bound(index: &LiveIndex) -> Bound {
    Bound {
        store_id: [1; 16],
        segment: segment().header.id,
        end: index.end(),
        last_position: FIRST_POSITION + u64::from(index.ordinals_end()),
        chain: [7; 32],
    }
}

fn file_of(bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = MemDisk::new().open("index", Access::CreateNew).unwrap();
    crate::disk::write_all(file.as_ref(), bytes, 0).unwrap();
    file.into()
}

fn whole(index: &LiveIndex) -> SealedIndex {
    let bytes = index.encode(&bound(index)).unwrap();
    SealedIndex::whole(bytes.into(), "whole.idx", &bound(index)).unwrap()
}

fn in_file(index: &LiveIndex) -> SealedIndex {
    let bytes = index.encode(&bound(index)).unwrap();
    SealedIndex::open(file_of(&bytes), "file.idx", &bound(index)).unwrap().unwrap()
}

fn encode(segment: &SegmentFile, offset: u32, first: u32, events: &[Known], number: u64) -> Vec<u8> {
    let mut body = Vec::new();
    let has_versions = events.len() > 1;
    for event in events {
        let tags: Vec<u8> = event
            .tags
            .iter()
            .flat_map(|tag| [&[u8::try_from(tag.len()).unwrap()], tag.as_bytes()].concat())
            .collect();
        let fields = RecordFields {
            schema_version: 1,
            entity: event.entity,
            scope: event.scope,
            kind: event.kind,
            tag_bytes: &tags,
            correlation: event.correlation,
            occurred_at: None,
            foreign_id: event.foreign_id,
            cause: event.cause,
            has_metadata: false,
        };
        let start = body.len();
        let payload = vec![9; event.payload];
        let new = NewRecord { fields, metadata: &[], payload: &payload };
        assert!(write(&mut body, &new, has_versions).is_ok());
        seal(&mut body[start..]);
        if event.is_gone {
            let layout = BodyLayout { events: events.len().try_into().unwrap(), has_versions };
            let whole = body.split_off(start);
            record::read(&whole, 0, layout).unwrap().write_gone(layout, &mut body);
        }
    }
    let versions: Vec<u8> = events.iter().flat_map(|event| event.version.to_le_bytes()).collect();
    let versions = if has_versions { versions.as_slice() } else { &[] };
    let key = events[0].key;
    let count = events.len().try_into().unwrap();
    body.resize(padded_body_bytes(body.len(), key.is_some(), count), 0);
    let header = NewFrameHeader {
        position_offset: first,
        durable_end: 0,
        events: count,
        flags: NewFrameHeader::flags_for(key.is_some(), has_versions),
        recorded_at: number * 1_000_000,
        first_version: events[0].version,
        chain: *blake3::hash(&number.to_le_bytes()).as_bytes(),
        key,
    };
    let mut bytes = Vec::new();
    header.write(&mut bytes, &segment.header.frame_place(offset), &body, versions);
    bytes
}

fn draw_item(random: &mut Random, events: &[Known]) -> Item {
    let some = &events[usize::try_from(random.below(events.len().try_into().unwrap())).unwrap()];
    let entity = match random.below(4) {
        0 => Some(Name::Is(random.pick(&[some.entity, "none"]).to_owned())),
        1 => Some(Name::StartsWith(random.pick(&["", "e", "e:1", "e:10", "x"]).to_owned())),
        _ => None,
    };
    let scopes = ["default", "s", "s2", "", "none"];
    Item {
        entity,
        scope: random.chance(30).then(|| random.pick(&scopes).to_owned()),
        kinds: KINDS.into_iter().chain(["none"]).filter(|_| random.chance(15)).map(str::to_owned).collect(),
        kind_prefix: random.chance(20).then(|| random.pick(&["", "k", "k.", "none"]).to_owned()),
        tags: TAGS.into_iter().filter(|_| random.chance(15)).map(str::to_owned).collect(),
        correlation: random
            .chance(20)
            .then(|| random.pick(&[id(1), id(9), some.correlation.unwrap_or(id(2))])),
    }
}

/// Whether the index should find it; `own` is the ordinal that may itself have the id asked for.
fn matches(item: &Item, event: &Known, is_own: bool) -> bool {
    let entity = match &item.entity {
        Some(Name::Is(entity)) => event.entity == entity,
        Some(Name::StartsWith(prefix)) => event.entity.starts_with(prefix.as_str()),
        None => true,
    };
    let scope = if event.scope.is_empty() { "default" } else { event.scope };
    entity
        && !(item.passes_over_system() && scope == SYSTEM_SCOPE)
        && item.scope.as_ref().is_none_or(|asked| asked == scope)
        && (item.kinds.is_empty() || item.kinds.iter().any(|kind| kind == event.kind))
        && item.kind_prefix.as_ref().is_none_or(|prefix| event.kind.starts_with(prefix.as_str()))
        && item.tags.iter().all(|tag| event.tags.contains(&tag.as_str()))
        && (item.correlation.is_none() || event.correlation == item.correlation || is_own)
}

#[test]
fn names_of_the_store_are_listed_only_to_who_asks_for_them() {
    let segment = segment();
    let mut index = LiveIndex::new(144);
    let known = |entity, tags| Known {
        entity,
        version: 1,
        scope: "$scope",
        kind: "$kind",
        tags,
        correlation: None,
        foreign_id: None,
        cause: None,
        key: None,
        frame: 0..0,
        record: None,
        payload: 0,
        is_gone: false,
        ordinal: 0,
    };
    let events =
        [known("$consumer/a", vec!["$", "a"]), known("#first", vec!["$t"]), known("b", vec!["%last", "a"])];
    index.insert(&segment, 144, &Frame::known(&encode(&segment, 144, 0, &events, 0))).unwrap();
    let forms: [&dyn SegmentIndex; 3] = [&index, &whole(&index), &in_file(&index)];
    let listed = |form: &dyn SegmentIndex, field, prefix: &str, most| {
        let wanted = NameFilter { field, prefix: prefix.to_owned(), after: None };
        let entries = form.list_names(&wanted, &(0..3), most).unwrap();
        entries.into_iter().map(|entry| (entry.name, entry.events)).collect::<Vec<_>>()
    };
    let table = [
        (NameField::Entity, "", 9, &[("#first", 1), ("b", 1)][..]),
        (NameField::Entity, "", 1, &[("#first", 1)]),
        (NameField::Entity, "$", 9, &[("$consumer/a", 1)]),
        (NameField::Scope, "", 9, &[]),
        (NameField::Kind, "", 9, &[]),
        (NameField::Kind, "$kind", 9, &[("$kind", 3)]),
        (NameField::Tag, "", 9, &[("%last", 1), ("a", 2)]),
    ];
    for (field, prefix, most, right) in table {
        let right: Vec<_> = right.iter().map(|(name, events)| ((*name).to_owned(), *events)).collect();
        for form in forms {
            assert_eq!(listed(form, field, prefix, most), right, "{field:?} with {prefix:?}, {most}");
        }
    }
}

/// The size of an index file, per event and per entity.
#[test]
fn an_index_file_is_as_small_as_promised() {
    let size = |index: &LiveIndex| index.encode(&bound(index)).unwrap().len();
    let hundredths = |bytes: usize, events: usize| bytes * 100 / events;
    // Forty events each of a thousand entities, in turn.
    let events = 40_000;
    let few = size(&reads::regular(40_000, 1_000, false));
    println!("1,000 entities: {} hundredths of a byte an event", hundredths(few, events));
    assert!(few <= events * 20);
    // An entity for each event; its name has 14 bytes.
    let many = size(&reads::regular(40_000, 40_000, false)) - events * 14;
    println!("an entity an event: {} hundredths of a byte an event, without names", hundredths(many, events));
    assert!(many <= events * 24);
}
