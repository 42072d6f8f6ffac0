//! The random bytes every private part begins with.
//!
//! Row: append.

use parking_lot::Mutex;

use crate::format::record;

/// The random bytes that keep an erased payload from being guessed from its hash: the output of
/// BLAKE3 keyed with randomness of the disk, made some pages at a time because that is what makes it
/// cheap.
pub(crate) struct Salts(Mutex<Pool>);

struct Pool {
    stream: blake3::OutputReader,
    bytes: Vec<u8>,
    used: usize,
}

const POOL_BYTES: usize = 256 * record::SALT;

impl Salts {
    pub(crate) fn new(key: [u8; 32]) -> Salts {
        let stream = blake3::Hasher::new_keyed(&key).finalize_xof();
        Salts(Mutex::new(Pool { stream, bytes: vec![0; POOL_BYTES], used: POOL_BYTES }))
    }

    pub(super) fn fill(&self, salt: &mut [u8]) {
        let mut pool = self.0.lock();
        let Pool { stream, bytes, used } = &mut *pool;
        if *used == POOL_BYTES {
            stream.fill(bytes);
            *used = 0;
        }
        salt.copy_from_slice(&bytes[*used..*used + record::SALT]);
        *used += record::SALT;
    }
}
