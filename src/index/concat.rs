//! Concatenates the indexes of two parts of a segment.

use crate::types::Error;

use super::answers::SegmentIndex;
use super::live::{LiveIndex, Stream, extend_id, extend_name};
use super::numbers::GappedSequence;
use super::sealed::SealedIndex;

impl LiveIndex {
    /// The index of both parts of a segment: the first as a file, and the second, which begins where the
    /// first ends.
    ///
    /// Everything in the file is checked, so the result is as good as an index made of the segment's frames.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if the file is damaged: the caller makes the index
    /// from the segment. Errors of the disk.
    pub(crate) fn concat(first: &SealedIndex, second: &LiveIndex) -> Result<LiveIndex, Error> {
        let mut index = first.to_live()?;
        index.append(second);
        Ok(index)
    }

    /// Adds the events of the next part of the same segment.
    fn append(&mut self, other: &LiveIndex) {
        assert!(
            other.events() == 0 || self.ordinals_end() <= SegmentIndex::ordinals(other).start,
            "parts of a segment are concatenated in their order"
        );
        self.ordinals.extend(&other.ordinals);
        self.offsets.extend_from_slice(&other.offsets);
        self.removed.extend_from_slice(&other.removed);
        self.end = other.end;
        self.streams_created += other.streams_created;
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

    /// Appends the versions and ordinals of an entity.
    fn extend_stream(&mut self, entity: &str, more: &Stream) {
        match self.entities.get_mut(entity) {
            Some(stream) => {
                stream.versions.extend(&more.versions);
                stream.ordinals.extend_from_slice(&more.ordinals);
            }
            None => {
                let mut stream =
                    Stream { versions: GappedSequence::default(), ordinals: more.ordinals.clone() };
                stream.versions.extend(&more.versions);
                self.entities.insert(entity, stream);
            }
        }
    }
}
