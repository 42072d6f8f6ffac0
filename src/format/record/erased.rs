//! A record without its private part.
//!
//! SPEC.md "Record". Row: bytes.

use super::{ERASED_BYTES, FORM_ERASED, Record, part, put, sum};

impl Record<'_> {
    /// Whether its private part is gone.
    pub(crate) fn is_erased(&self) -> bool {
        self.shape.is_erased
    }

    /// How long it is, or would be, without its private part.
    pub(crate) fn erased_bytes(&self) -> usize {
        sum([self.private_at(), ERASED_BYTES])
    }

    /// Appends what erasure leaves of it: the public part, and the hash that the chain takes of the private one.
    pub(crate) fn write_erased(&self, out: &mut Vec<u8>) {
        if self.shape.is_erased {
            return out.extend_from_slice(self.bytes);
        }
        let start = out.len();
        out.extend_from_slice(part(self.bytes, ..self.private_at()));
        let hash = blake3::hash(part(self.bytes, self.private_at()..));
        out.extend_from_slice(hash.as_bytes());
        put(out, start, &u32::try_from(ERASED_BYTES).expect("32").to_le_bytes());
        put(out, sum([start, 6]), &[FORM_ERASED]);
    }
}
