//! The first program: append two events, read the stream back.
//!
//! Run it twice: the second run shows the events of the first as well.

use annals::{Error, Raw, Store};

fn main() -> Result<(), Error> {
    let store = Store::open(std::env::temp_dir().join("annals-quickstart"))?;
    store.append("account:alice", &Raw("account.opened", &"Alice"))?;
    store.append("account:alice", &Raw("account.deposited", &500))?;
    for event in store.stream("account:alice") {
        let event = event?;
        println!("{} {} {}", event.version(), event.kind(), event.id());
    }
    store.close()
}
