//! An entity named again is the same target, however many there are.

use crate::{Append, Expected, Raw, Store};

/// The expectation said last counts, so this fails if a second target is made for an entity.
#[test]
fn an_entity_named_again_is_the_same_target() {
    let store = Store::in_memory().unwrap();
    for targets in [1, 2, 15, 16, 17, 18, 300] {
        let entities: Vec<String> = (0..targets).map(|number| format!("{targets}:{number}")).collect();
        let event = Raw("account.opened", &());
        let once = entities.iter().fold(Append::to(&entities[0]), |append, entity| {
            append.and_to(entity).expect(Expected::exact(7)).event(&event)
        });
        let twice = entities
            .iter()
            .fold(once, |append, entity| append.and_to(entity).expect(Expected::NoStream).event(&event));
        twice.commit(&store).unwrap();
        assert!(entities.iter().all(|entity| store.version(entity).unwrap().get() == 2));
    }
}
