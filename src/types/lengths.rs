//! Conversions between lengths in memory, which are `usize`, and lengths on disk, which are `u32` or `u64`.
//!
//! None of them loses a bit. A length that comes from a disk is bounded before it gets here.

/// A length in memory as 64 bits.
#[inline]
pub(crate) fn to_u64(length: usize) -> u64 {
    u64::try_from(length).expect("a length fits 64 bits")
}

/// A 32-bit length as one for slices.
#[inline]
pub(crate) fn to_usize(length: u32) -> usize {
    usize::try_from(length).expect("annals needs pointers of at least 32 bits")
}

/// A length that the caller has bounded, as 32 bits.
///
/// # Panics
///
/// If the length was not bounded.
#[inline]
pub(crate) fn to_u32(length: usize) -> u32 {
    u32::try_from(length).expect("the caller has bounded the length to 32 bits")
}
