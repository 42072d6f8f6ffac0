//! Where an event goes next, for databases that do not count by themselves.

use std::collections::HashMap;

use crate::peer::Failure;

/// The newest position, and the newest version of each entity that was asked for.
#[derive(Default)]
pub struct Heads {
    position: u64,
    versions: HashMap<String, u64>,
}

impl Heads {
    pub fn at(position: u64) -> Heads {
        Heads { position, versions: HashMap::new() }
    }

    /// The next position and the next version; `find` has the newest version that is stored.
    pub fn next(
        &mut self,
        entity: &str,
        find: impl FnOnce() -> Result<u64, Failure>,
    ) -> Result<(u64, u64), Failure> {
        let version = match self.versions.get_mut(entity) {
            Some(version) => version,
            None => self.versions.entry(entity.to_owned()).or_insert(find()?),
        };
        *version += 1;
        self.position += 1;
        Ok((self.position, *version))
    }
}
