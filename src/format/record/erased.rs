//! Records of events that were erased elsewhere: the hash goes with them.
//!
//! Row: bytes.

use super::{ERASED_BYTES, FORM_ERASED, Hash, put, salt_place, sum};
#[cfg(feature = "jsonl")]
use super::{Record, array, part};

/// Makes the record that was just written at `start` one of an event whose private part was erased elsewhere,
/// and had this hash.
pub(crate) fn leave_hash(out: &mut Vec<u8>, start: usize, private: &Hash) {
    out.truncate(salt_place(out, start).start);
    out.extend_from_slice(private);
    put(out, start, &u32::try_from(ERASED_BYTES).expect("32").to_le_bytes());
    put(out, sum([start, 6]), &[FORM_ERASED]);
}

#[cfg(feature = "jsonl")]
impl Record<'_> {
    /// What erasure left of the private part; `None` if it is whole.
    pub(crate) fn private_hash(&self) -> Option<Hash> {
        self.shape.is_erased.then(|| array(part(self.bytes, self.private_at()..), 0))
    }
}
