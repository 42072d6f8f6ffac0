//! The tree of one segment: from its tree file, or hashed from its frames.
//!
//! A tree file holds nothing that its segment does not hold. One that is missing, damaged, or of another
//! state of the segment is built again. Tested by tests/it/tree.rs.

use crate::disk::{Access, DiskFile, if_there, read_full, remove_if_there};
use crate::format::{Cover, Damage, TreeFile, TreeFileHead};
use crate::log::{Advance, LogEnd, SegmentCursor, SegmentFile};
use crate::types::{Error, to_u64};

use super::{SealedSegment, write_side_file};

/// The hashes of a segment's frames up to a place.
#[derive(Clone)]
pub(crate) struct SegmentTree {
    pub(crate) hashes: TreeFile,
    pub(crate) end: LogEnd,
}

impl SegmentTree {
    /// No frame was hashed yet.
    pub(crate) fn start(segment: &SegmentFile) -> SegmentTree {
        SegmentTree { hashes: TreeFile::new(segment.header.id), end: LogEnd::start(segment) }
    }

    /// Hashes the frames up to a position, which is the last one of a frame. The caller compares the chain
    /// there with one that it knows: that one proves all chains before.
    ///
    /// # Errors
    ///
    /// If the frames are damaged or cannot be read. Then the hashes are those of the frames before.
    pub(crate) fn advance(&mut self, segment: &SegmentFile, limit: u32, position: u64) -> Result<(), Error> {
        let mut cursor = SegmentCursor::new(segment, limit)?.starting_at(self.end).trusting_chain();
        while self.end.position < position {
            let offset = self.end.offset;
            let damaged = |damage: Damage| segment.damaged(offset.into(), &damage);
            match cursor.advance()? {
                Advance::Frame { frame, before, after } => {
                    self.hashes.push_frame(&frame, before.position).map_err(damaged)?;
                    self.end = after;
                }
                Advance::Attestation { attestation, after } => {
                    self.hashes.push_removed(&attestation.cover);
                    self.end = after;
                }
                Advance::End(_) => return Err(damaged(ENDS_EARLY)),
            }
        }
        if self.end.position == position {
            Ok(())
        } else {
            Err(segment.damaged(self.end.offset.into(), &ENDS_EARLY))
        }
    }
}

const ENDS_EARLY: Damage = Damage::Bad("the segment does not end where its events should end");

/// The tree of a whole segment.
impl SealedSegment {
    /// The roots that cover the segment's leaves. `begun` are hashes of a beginning of the segment, if the
    /// caller has any.
    ///
    /// # Errors
    ///
    /// If there is no usable tree file, and the segment cannot be read.
    pub(crate) fn tree_cover(&self, begun: Option<SegmentTree>) -> Result<Cover, Error> {
        match self.read_tree_head() {
            Some((_, head)) => Ok(head.cover),
            None => Ok(self.build_tree(begun)?.pieces().joined()),
        }
    }

    /// All hashes of the segment.
    ///
    /// # Errors
    ///
    /// Those of [`SealedSegment::tree_cover`].
    pub(crate) fn tree_file(&self) -> Result<TreeFile, Error> {
        match self.read_tree_file() {
            Some(hashes) => Ok(hashes),
            None => self.build_tree(None),
        }
    }

    /// Builds the tree file again, if there is one.
    ///
    /// # Errors
    ///
    /// Those of [`SealedSegment::tree_cover`], and of removing the file.
    pub(crate) fn rebuild_tree(&self) -> Result<(), Error> {
        let path = self.meta.bound.segment.tree_path();
        let removed = remove_if_there(self.cache.disk.as_ref(), &path);
        if removed.map_err(|error| Error::io("cannot remove", &path, error))? {
            self.build_tree(None)?;
        }
        Ok(())
    }

    /// Hashes the segment, and writes its tree file if the store may be written to.
    fn build_tree(&self, begun: Option<SegmentTree>) -> Result<TreeFile, Error> {
        // Two threads must not write to the same temporary file.
        let _alone = self.cache.tree_builds.lock();
        if let Some(hashes) = self.read_tree_file() {
            return Ok(hashes);
        }
        let file = self.file()?;
        let bound = &self.meta.bound;
        let mut tree = begun.unwrap_or_else(|| SegmentTree::start(file));
        tree.advance(file, bound.end, bound.last_position)?;
        if (tree.end.offset, tree.end.chain) != (bound.end, bound.chain) {
            return Err(file.damaged(tree.end.offset.into(), &ENDS_EARLY));
        }
        if self.cache.writes && !self.is_retired() {
            let bytes = tree.hashes.write(bound);
            write_side_file(self.cache.disk.as_ref(), &bound.segment.tree_path(), &bytes);
        }
        Ok(tree.hashes)
    }

    /// The tree file and its beginning, if they belong to the segment as it is.
    fn read_tree_head(&self) -> Option<(Box<dyn DiskFile>, TreeFileHead)> {
        let path = self.meta.bound.segment.tree_path();
        let file = usable(&path, if_there(self.cache.disk.open(&path, Access::Read)))??;
        let mut bytes = vec![0; TreeFileHead::BYTES_MAX];
        let length = usable(&path, read_full(file.as_ref(), &mut bytes, 0))?;
        bytes.truncate(length);
        let head = usable(&path, TreeFileHead::read(&bytes))?;
        if head.bound != self.meta.bound {
            tracing::info!(path, "a tree file of another state of its segment is built again");
            return None;
        }
        Some((file, head))
    }

    /// The whole tree file, if it belongs to the segment as it is.
    fn read_tree_file(&self) -> Option<TreeFile> {
        let path = self.meta.bound.segment.tree_path();
        let (file, head) = self.read_tree_head()?;
        let length = usable(&path, file.length())?;
        if to_u64(head.file_bytes()) != length {
            tracing::info!(path, "a tree file with another length than its beginning says is built again");
            return None;
        }
        let mut bytes = vec![0; head.file_bytes()];
        let read = usable(&path, read_full(file.as_ref(), &mut bytes, 0))?;
        bytes.truncate(read);
        let (_, hashes) = usable(&path, TreeFile::read(&bytes))?;
        Some(hashes)
    }
}

/// What was read; logs why a tree file is not usable.
fn usable<T, E: std::fmt::Display>(path: &str, read: Result<T, E>) -> Option<T> {
    read.inspect_err(|error| tracing::info!(path, %error, "a tree file is built again from its segment")).ok()
}
