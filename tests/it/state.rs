//! Loading states: what is remembered is what a fold from the first event gives.

use annals::{DomainEvent, Error, EventData, Meta, Projection, Raw, RecordedEvent, Store, Version};
use serde::{Deserialize, Serialize};

use crate::support::{fill, kind_of};

/// An event that carries a number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Filled(pub u64);

impl EventData for Filled {
    fn kind(&self) -> &str {
        "filled"
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        Raw("filled", &self.0).encode(out)
    }
}

impl DomainEvent for Filled {
    fn knows(kind: &str) -> bool {
        kind == "filled"
    }

    fn from_recorded(event: &RecordedEvent) -> Result<Filled, Error> {
        event.decode().map(Filled)
    }
}

/// What was filled in, in all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sum {
    pub sum: u64,
    pub events: u64,
}

impl Projection for Sum {
    type Event = Filled;
    const NAME: &'static str = "sum";

    fn apply(&mut self, Filled(number): Filled, _: &Meta<'_>) {
        self.sum = self.sum.wrapping_add(number);
        self.events += 1;
    }
}

/// Another projection of the same events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Last(pub Option<u64>);

impl Projection for Last {
    type Event = Filled;
    const NAME: &'static str = "last";

    fn apply(&mut self, Filled(number): Filled, _: &Meta<'_>) {
        self.0 = Some(number);
    }
}

#[test]
fn a_state_goes_along_with_its_stream() {
    let store = Store::in_memory().unwrap();
    let empty = store.load::<Sum>("a").unwrap();
    assert_eq!((empty.version(), empty.sum), (Version::EMPTY, 0));
    fill(&store, "a", 5);
    fill(&store, "b", 3);
    for _ in 0..2 {
        let loaded = store.load::<Sum>("a").unwrap();
        assert_eq!((loaded.version().get(), loaded.position().get(), loaded.sum), (5, 5, 10));
    }
    fill(&store, "a", 1);
    fill(&store, "a", 2);
    let loaded = store.load::<Sum>("a").unwrap();
    assert_eq!((loaded.version().get(), loaded.position().get(), loaded.events), (8, 11, 8));
    assert_eq!(store.load::<Last>("a").unwrap().0, Some(1));
    assert_eq!(store.load::<Last>(String::from("b")).unwrap().0, Some(2));
}

#[test]
fn two_projections_may_not_share_a_name() {
    #[derive(Clone, Debug, Default, Serialize, Deserialize)]
    struct Impostor;
    impl Projection for Impostor {
        type Event = Filled;
        const NAME: &'static str = "sum";
        fn apply(&mut self, _: Filled, _: &Meta<'_>) {}
    }
    let store = Store::in_memory().unwrap();
    store.load::<Sum>("a").unwrap();
    let refused = store.load::<Impostor>("a").unwrap_err();
    assert!(refused.to_string().contains("both projections named \"sum\""), "{refused}");
    assert_eq!(kind_of(store.load::<Impostor>("b")), annals::ErrorKind::Invalid);
}
