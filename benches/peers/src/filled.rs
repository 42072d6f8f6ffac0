//! Stores that are filled once, by a process of their own, and then read and opened in every round.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::child::{End, fill_store};
use crate::peer::{Failure, Kind};

/// Makes each store when it is first asked for.
pub struct Filled {
    parent: PathBuf,
    /// Why it failed, if it did: it is not tried again in every round.
    stores: RefCell<HashMap<PathBuf, Option<String>>>,
}

impl Filled {
    pub fn new(place: &Path) -> Filled {
        Filled { parent: place.join("filled"), stores: RefCell::new(HashMap::new()) }
    }

    /// The directory of a peer's store with `size` events, whose process ended as `end` says.
    pub fn store(&self, kind: &Kind, size: u64, end: End) -> Result<PathBuf, Failure> {
        let directory = self.parent.join(format!("{}-{size}-{}", kind.name, end.name()));
        let mut stores = self.stores.borrow_mut();
        let failed = stores.entry(directory.clone()).or_insert_with(|| {
            self.fill(kind, &directory, size, end).err().map(|failure| failure.to_string())
        });
        match failed {
            None => Ok(directory),
            Some(failure) => Err(failure.clone().into()),
        }
    }

    fn fill(&self, kind: &Kind, directory: &Path, size: u64, end: End) -> Result<(), Failure> {
        std::fs::create_dir_all(&self.parent)?;
        fill_store(kind.name, directory, size, end)?;
        Ok(File::open(&self.parent)?.sync_all()?)
    }
}
