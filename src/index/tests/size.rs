//! How long index files are: what SPEC.md says of it.

use super::reads::regular;
use super::*;

#[test]
fn an_index_file_is_as_small_as_promised() {
    let size = |index: &LiveIndex| index.encode(&bound(index)).unwrap().len();
    let hundredths = |bytes: usize, events: usize| bytes * 100 / events;
    // Forty events each of a thousand entities, in turn.
    let events = 40_000;
    let few = size(&regular(40_000, 1_000, false));
    println!("1,000 entities: {} hundredths of a byte an event", hundredths(few, events));
    assert!(few <= events * 20);
    // An entity for each event; its name has 14 bytes.
    let many = size(&regular(40_000, 40_000, false)) - events * 14;
    println!("an entity an event: {} hundredths of a byte an event, without names", hundredths(many, events));
    assert!(many <= events * 24);
}
