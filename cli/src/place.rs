//! Which store is meant, and opening it.

use std::fs;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use annals::{Builder, Durability, Limits, Store};

use crate::args::Global;
use crate::failure::Failure;
use crate::interrupt;
use crate::progress::Bar;

/// Which store is meant, and with which options.
pub struct Place {
    global: Global,
}

/// What is at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    EmptyDirectory,
    /// A directory with other things.
    Foreign,
    /// Or the beginning of one.
    Store,
}

/// What a store has from its first moment on.
const SIGNS: [&str; 4] = ["MANIFEST", "MARK", "segments", "LOCK"];

impl Place {
    pub fn new(global: Global) -> Place {
        Place { global }
    }

    /// Its directory.
    pub fn path(&self) -> Result<PathBuf, Failure> {
        let named = self.global.dir.clone().or_else(|| std::env::var_os("ANNALS_DIR").map(PathBuf::from));
        let unnamed = || Failure::usage("which store? name its directory with --dir, or with ANNALS_DIR");
        named.filter(|path| !path.as_os_str().is_empty()).ok_or_else(unnamed)
    }

    /// How long to wait for another writer.
    pub fn wait(&self) -> Duration {
        self.global.wait
    }

    /// Whether appends are acknowledged before they are synced.
    pub fn is_buffered(&self) -> bool {
        let named = || std::env::var("ANNALS_DURABILITY").ok()?.parse().ok();
        matches!(self.global.durability.or_else(named), Some(Durability::Buffered { .. }))
    }

    /// Who does it, for the record.
    pub fn by(&self) -> String {
        let user = || std::env::var("USER").ok().filter(|user| !user.is_empty());
        self.global.by.clone().or_else(user).unwrap_or_else(|| "the annals command".to_owned())
    }

    /// The options of the environment, and over them those of the command line.
    pub fn builder(&self, path: &Path) -> Result<Builder, Failure> {
        let mut builder = Store::builder(path).env()?;
        if let Some(durability) = self.global.durability {
            builder = builder.durability(durability);
        }
        if let Some(commands) = self.global.queue {
            builder = builder.queue_commands_max(commands.get());
        }
        if self.global.allow_shared_directory {
            builder = builder.allow_shared_directory();
        }
        if self.global.allow_network_file_system {
            builder = builder.allow_network_file_system();
        }
        // What another store took can be imported, and appended.
        Ok(with_progress(builder.operator(self.by()).limits(Limits::FORMAT)))
    }

    /// Its directory, in which there is a store in any state.
    pub fn existing(&self) -> Result<PathBuf, Failure> {
        let path = self.path()?;
        let (shown, init) = (path.display(), "`annals init` creates a store");
        match look(&path)? {
            Found::Store => Ok(path),
            Found::Nothing => Err(Failure::usage(format!("there is no directory {shown}")).hint(init)),
            Found::EmptyDirectory => {
                Err(Failure::usage(format!("there is no store in {shown}, which is empty")).hint(init))
            }
            Found::Foreign => {
                let text = format!("there is no store in {shown}, only other things");
                Err(Failure::usage(text).hint("name another directory with --dir"))
            }
        }
    }

    /// Opens it to read: beside a writer, and writing nothing.
    pub fn to_read(&self) -> Result<Store, Failure> {
        let path = self.existing()?;
        let opened = self.builder(&path)?.open_read_only();
        opened.map_err(|error| Failure::from(error).at(&path.display().to_string()))
    }

    /// Opens it to write. It is closed when the command is interrupted.
    pub fn to_write(&self) -> Result<Store, Failure> {
        let path = self.existing()?;
        self.open(&path)
    }

    /// Opens it to write, and creates it if there is none; not among other things.
    pub fn to_create(&self) -> Result<Store, Failure> {
        let path = self.path()?;
        match look(&path)? {
            Found::Nothing | Found::EmptyDirectory | Found::Store => self.open(&path),
            Found::Foreign => {
                let text =
                    format!("{} holds other things; a store wants a directory of its own", path.display());
                Err(Failure::usage(text))
            }
        }
    }

    fn open(&self, path: &Path) -> Result<Store, Failure> {
        let opened = self.builder(path)?.open_within(self.wait());
        let store = opened.map_err(|error| Failure::from(error).at(&path.display().to_string()))?;
        interrupt::note(|now| {
            now.effect.has_created = store.open_report().created;
            now.store = Some(store.clone());
        });
        Ok(store)
    }
}

/// Closes a store that was opened to write, and says what dropping it could not.
pub fn close(store: Store) -> Result<(), Failure> {
    let _whole = interrupt::whole();
    interrupt::note(|now| now.store = None);
    store.close()?;
    interrupt::note(|now| now.effect.is_unsynced = false);
    Ok(())
}

/// What is there, without opening anything.
pub fn look(path: &Path) -> Result<Found, Failure> {
    let failed = |error| Failure::system(&format!("cannot look at {}", path.display()), &error);
    let mut entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            let text = format!("{} is a file; a store is a directory", path.display());
            return Err(Failure::usage(text).hint("name the directory it lies in, or another, with --dir"));
        }
        Err(error) => return Err(failed(error)),
    };
    let is_there = |name: &&&str| path.join(name).symlink_metadata().is_ok();
    if SIGNS.iter().filter(is_there).count() >= 2 {
        return Ok(Found::Store);
    }
    // Another process may be creating one just now, or was stopped at it.
    let is_ours = |name: &str| SIGNS.contains(&name) || name.starts_with("MANIFEST.");
    let mut found = Found::EmptyDirectory;
    for entry in &mut entries {
        let is_ours = entry.map_err(failed)?.file_name().to_str().is_some_and(is_ours);
        found = if is_ours { Found::Store } else { return Ok(Found::Foreign) };
    }
    Ok(found)
}

/// Shows how far opening is, if it takes long enough to be asked about.
fn with_progress(builder: Builder) -> Builder {
    let bar = Bar::bytes("opening");
    builder.on_open_progress(move |progress| {
        if progress.elapsed > Duration::from_millis(300) {
            bar.set(progress.bytes, progress.bytes_total);
        }
        ControlFlow::Continue(())
    })
}
