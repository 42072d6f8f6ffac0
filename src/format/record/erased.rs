//! Records without their private part, of which a hash is left.
//!
//! SPEC.md "Record". Row: bytes.

#[cfg(feature = "jsonl")]
use super::array;
use super::{ERASED_BYTES, FORM_ERASED, Hash, Record, part, put, salt_place, sum};
use crate::types::to_u32;

/// Makes the record that begins at `start` and goes on to the end one whose private part was erased, and had this hash.
pub(crate) fn leave_hash(out: &mut Vec<u8>, start: usize, private: &Hash) {
    out.truncate(salt_place(out, start).start);
    out.extend_from_slice(private);
    put(out, start, &to_u32(ERASED_BYTES).to_le_bytes());
    put(out, sum([start, 6]), &[FORM_ERASED]);
}

impl Record<'_> {
    /// Whether its private part is gone.
    pub(crate) fn is_erased(&self) -> bool {
        self.shape.is_erased
    }

    /// What erasure left of the private part; `None` if it is whole.
    #[cfg(feature = "jsonl")]
    pub(crate) fn private_hash(&self) -> Option<Hash> {
        self.shape.is_erased.then(|| array(part(self.bytes, self.private_at()..), 0))
    }

    /// How long it is, or would be, without its private part.
    pub(crate) fn erased_bytes(&self) -> usize {
        sum([self.private_at(), ERASED_BYTES])
    }

    /// Appends what erasure leaves of it: the public part, and the hash that the chain takes of the private one.
    pub(crate) fn write_erased(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(self.bytes);
        if !self.shape.is_erased {
            let hash = blake3::hash(part(self.bytes, self.private_at()..));
            leave_hash(out, start, hash.as_bytes());
        }
    }
}
