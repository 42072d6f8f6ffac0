//! Makes one index in memory of an index file and what came after it.
//!
//! Row: index.

use crate::format::index_file::{Term, TermKind};
use crate::types::{Error, EventId, to_usize};

use super::names::Names;
use super::numbers::{Jumps, Numbers};
use super::sealed::Sealed;
use super::{Ids, Index, Stream};

impl Index {
    /// The index of both parts of a segment: the first as a file, and the second, which begins where that ends.
    ///
    /// Everything in the file is checked on the way, so that what comes of it is an index as if made of frames.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if the file is damaged, and those of the disk. The index
    /// is to be made from the segment then.
    pub(crate) fn join(first: &Sealed, second: &Index) -> Result<Index, Error> {
        let mut index = first.thaw()?;
        index.append(second);
        Ok(index)
    }

    /// Adds what another index has of the same segment, behind what this one has.
    fn append(&mut self, other: &Index) {
        assert!(
            other.events() == 0 || self.ordinals_end() <= other.ordinals().start,
            "parts of a segment are joined in their order"
        );
        extend_numbers(&mut self.ordinals, &other.ordinals);
        self.offsets.extend_from_slice(&other.offsets);
        self.removed.extend_from_slice(&other.removed);
        self.end = other.end;
        self.born += other.born;
        self.frames += other.frames;
        for (entity, stream) in other.entities.iter() {
            self.extend_stream(entity, stream);
        }
        for (names, more) in [
            (&mut self.scopes, &other.scopes),
            (&mut self.kinds, &other.kinds),
            (&mut self.tags, &other.tags),
        ] {
            more.iter().for_each(|(name, list)| extend_name(names, name, list));
        }
        for (ids, more) in [
            (&mut self.correlations, &other.correlations),
            (&mut self.foreign_ids, &other.foreign_ids),
            (&mut self.causes, &other.causes),
        ] {
            more.iter().for_each(|(id, list)| extend_id(ids, *id, list));
        }
        self.followers.extend_from_slice(&other.followers);
        self.keys.extend(&other.keys);
    }

    fn extend_stream(&mut self, entity: &str, more: &Stream) {
        match self.entities.get_mut(entity) {
            Some(stream) => {
                extend_numbers(&mut stream.versions, &more.versions);
                stream.ordinals.extend_from_slice(&more.ordinals);
            }
            None => {
                let mut stream = Stream { versions: Numbers::default(), ordinals: more.ordinals.clone() };
                extend_numbers(&mut stream.versions, &more.versions);
                self.entities.insert(entity, stream);
            }
        }
    }

    /// Adds a term of an index file; why not, if it cannot be one.
    pub(super) fn insert_term(
        &mut self,
        term: &Term,
        name: &[u8],
        versions: &Numbers<impl Jumps>,
        list: Vec<u32>,
    ) -> Result<(), &'static str> {
        if !list.is_sorted_by(|one, next| one < next)
            || list.iter().any(|own| self.ordinals.slot((*own).into()).is_none())
        {
            return Err("a list of the index names events that there are not");
        }
        let text = || std::str::from_utf8(name).map_err(|_| "a name in the index is not UTF-8");
        let id = || {
            let bytes: Result<[u8; 16], _> = name.try_into();
            bytes.map_err(|_| "an id in the index has not 16 bytes")
        };
        match term.kind {
            TermKind::Entity => {
                let mut stream = Stream { versions: Numbers::default(), ordinals: list };
                let mut before = 0;
                for slot in 0..to_usize(term.count) {
                    let version = versions.at(slot);
                    if version <= before {
                        return Err("the versions of an entity in the index do not grow");
                    }
                    stream.versions.push(version);
                    before = version;
                }
                self.entities.insert(text()?, stream);
            }
            TermKind::Scope => extend_name(&mut self.scopes, text()?, &list),
            TermKind::Kind => extend_name(&mut self.kinds, text()?, &list),
            TermKind::Tag => extend_name(&mut self.tags, text()?, &list),
            TermKind::Correlation => extend_id(&mut self.correlations, EventId::from_bytes(id()?), &list),
            TermKind::ForeignId => extend_id(&mut self.foreign_ids, EventId::from_bytes(id()?), &list),
            TermKind::Cause => extend_id(&mut self.causes, EventId::from_bytes(id()?), &list),
            TermKind::Follower => self.followers = list,
            TermKind::Key => _ = self.keys.insert(id()?, term.first),
        }
        Ok(())
    }
}

fn extend_numbers(numbers: &mut Numbers, more: &Numbers<impl Jumps>) {
    for slot in 0..more.count() {
        numbers.push(more.at(slot));
    }
}

fn extend_name(names: &mut Names<Vec<u32>>, name: &str, more: &[u32]) {
    match names.get_mut(name) {
        Some(list) => list.extend_from_slice(more),
        None => names.insert(name, more.to_vec()),
    }
}

fn extend_id(ids: &mut Ids, id: EventId, more: &[u32]) {
    ids.entry(id).or_default().extend_from_slice(more);
}
