//! What lies in `quarantine/`: bytes that recovery cut, and stores that were set back.
//!
//! Row: ops.

use crate::disk::{Access, Disk};
use crate::log::list;
use crate::types::Error;

pub(crate) const QUARANTINE: &str = "quarantine";

/// What is there, by path.
#[derive(Default)]
pub(crate) struct Quarantined {
    pub(crate) files: Vec<String>,
    /// Each after the one it lies in.
    pub(crate) directories: Vec<String>,
}

/// Everything in quarantine.
pub(crate) fn quarantined(disk: &dyn Disk) -> Result<Quarantined, Error> {
    let mut found = Quarantined::default();
    let mut next = vec![QUARANTINE.to_owned()];
    while let Some(directory) = next.pop() {
        for name in list(disk, &directory)? {
            let path = format!("{directory}/{name}");
            // A directory cannot be opened to be read.
            let is_file = disk.open(&path, Access::Read).is_ok();
            if is_file { &mut found.files } else { &mut next }.push(path);
        }
        found.directories.push(directory);
    }
    Ok(found)
}
