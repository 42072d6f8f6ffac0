//! Erases a customer's personal data: the payload goes, the proof that something happened stays.
//!
//! What to learn: what a reader gets of an erased event, what is on record, and why a head from before still
//! verifies.

use annals::{DomainEvent, Error, ErrorKind, Query, Store, Verify};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(kind = "customer.moved")]
struct Moved {
    address: String,
}

fn main() -> Result<(), Error> {
    let directory = std::env::temp_dir().join(format!("annals-erasure-{}", std::process::id()));
    let store = Store::open(&directory)?;
    store.append("customer:7", &Moved { address: "12 Elm Street".to_owned() })?;
    store.append("customer:8", &Moved { address: "4 Oak Lane".to_owned() })?;
    let head = store.head()?;

    let erasure = store.erase(Query::entity("customer:7"), "requested by the customer, ticket 12")?;
    assert_eq!(erasure.events, 1);

    // The event keeps its place, kind and time. Only its payload is gone.
    let event = store.last(Query::entity("customer:7"))?.expect("the event stays");
    assert_eq!(event.to::<Moved>().err().map(|error| error.kind()), Some(ErrorKind::Erased));
    assert!(Verify::new().expect(head).run(&store)?.is_clean()); // the history is still the same

    // The store records who erased what, and why.
    for record in store.stream("$ledger") {
        println!("{}", record?.kind());
    }
    // No file of the store holds the address any more.
    store.close()?;
    for file in std::fs::read_dir(directory.join("segments")).expect("it was just written") {
        let bytes = std::fs::read(file.expect("it is listed").path()).expect("it is readable");
        assert!(!bytes.windows(10).any(|text| text == b"Elm Street"));
    }
    std::fs::remove_dir_all(directory).expect("it is ours");
    Ok(())
}
