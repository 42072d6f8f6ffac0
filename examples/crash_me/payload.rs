//! The payload of an event: a function of its entity, its version and its size.
//!
//! ```text
//! thread u32 | version u64 | filler, made from both | FNV-1a of all before, u64     little-endian
//! ```

use annals::{Error, EventData, RecordedEvent};

const KIND: &str = "crash_me.appended";
/// The bytes of thread, version and checksum, the smallest payload.
const LEAST_BYTES: usize = 20;

/// The entity that only this thread appends to.
pub fn entity(thread: u32) -> String {
    format!("thread:{thread}")
}

/// The event of an entity at a version.
pub struct Event {
    pub thread: u32,
    pub version: u64,
    pub bytes: usize,
}

impl EventData for Event {
    fn kind(&self) -> &str {
        KIND
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        out.extend(self.payload());
        Ok(())
    }
}

impl Event {
    fn payload(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(self.bytes.max(LEAST_BYTES));
        payload.extend(self.thread.to_le_bytes());
        payload.extend(self.version.to_le_bytes());
        let mut filler = checksum(&payload);
        payload.resize_with(self.bytes.max(LEAST_BYTES) - size_of::<u64>(), || {
            // Knuth's linear congruential generator. Its low bits are weak, so the high ones are taken.
            filler = filler.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            filler.to_be_bytes()[0]
        });
        payload.extend(checksum(&payload).to_le_bytes());
        payload
    }
}

/// What is wrong with an event that was read; `None` if it is right.
pub fn fault_of(event: &RecordedEvent) -> Result<Option<&'static str>, Error> {
    let payload = event.payload()?;
    let Some(thread) = event.entity().strip_prefix("thread:").and_then(|thread| thread.parse().ok()) else {
        return Ok(Some("is not an event of crash_me"));
    };
    let expected = Event { thread, version: event.version().get(), bytes: payload.len() };
    let sum_at = payload.len().saturating_sub(size_of::<u64>());
    Ok(if event.kind() != KIND {
        Some("is not an event of crash_me")
    } else if checksum(&payload[..sum_at]).to_le_bytes() != payload[sum_at..] {
        Some("has a payload whose checksum does not match")
    } else if expected.payload() != payload {
        Some("has the payload of another event")
    } else {
        None
    })
}

/// FNV-1a: the proof must not depend on a checksum of annals.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
