//! Which store the command acts on, and how the command opens it.

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

/// The store that the command line names, with its options.
pub struct Target {
    global: Global,
}

/// What is under a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Not even a directory.
    Nothing,
    EmptyDirectory,
    /// A directory with other content.
    Foreign,
    /// A store, or the beginning of one.
    Store,
}

/// Names that a store creates first. Two of them identify a store.
const STORE_NAMES: [&str; 4] = ["MANIFEST", "MARK", "segments", "LOCK"];

impl Target {
    pub fn new(global: Global) -> Target {
        Target { global }
    }

    /// The directory: `--dir`, else `ANNALS_DIR`.
    pub fn path(&self) -> Result<PathBuf, Failure> {
        let named = self.global.dir.clone().or_else(|| std::env::var_os("ANNALS_DIR").map(PathBuf::from));
        let unnamed = || Failure::usage("which store? name its directory with --dir, or with ANNALS_DIR");
        named.filter(|path| !path.as_os_str().is_empty()).ok_or_else(unnamed)
    }

    /// How long a command that writes waits for another writer.
    pub fn wait(&self) -> Duration {
        self.global.wait
    }

    /// True if appends are acknowledged before they are synced.
    pub fn is_buffered(&self) -> bool {
        let named = || std::env::var("ANNALS_DURABILITY").ok()?.parse().ok();
        matches!(self.global.durability.or_else(named), Some(Durability::Buffered { .. }))
    }

    /// Who acts, as the store records it.
    pub fn by(&self) -> String {
        let user = || std::env::var("USER").ok().filter(|user| !user.is_empty());
        self.global.by.clone().or_else(user).unwrap_or_else(|| "the annals command".to_owned())
    }

    /// The options: those of the command line win over those of the environment.
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
        // The limits of the format: events of any other store can be imported and appended.
        Ok(with_progress(builder.operator(self.by()).limits(Limits::FORMAT)))
    }

    /// The directory, if it holds a store; the store may be damaged.
    pub fn existing(&self) -> Result<PathBuf, Failure> {
        let path = self.path()?;
        let shown = path.display();
        let init = "`annals init` creates a store";
        match inspect(&path)? {
            Content::Store => Ok(path),
            Content::Nothing => Err(Failure::usage(format!("there is no directory {shown}")).hint(init)),
            Content::EmptyDirectory => {
                Err(Failure::usage(format!("there is no store in {shown}, which is empty")).hint(init))
            }
            Content::Foreign => {
                let text = format!("there is no store in {shown}, only other things");
                Err(Failure::usage(text).hint("name another directory with --dir"))
            }
        }
    }

    /// Opens the store to read: needs no lock, and writes nothing.
    pub fn to_read(&self) -> Result<Store, Failure> {
        let path = self.existing()?;
        let opened = self.builder(&path)?.open_read_only();
        opened.map_err(|error| Failure::from(error).at(&path.display().to_string()))
    }

    /// Opens the store to write. The signal thread closes it if the command is stopped.
    pub fn to_write(&self) -> Result<Store, Failure> {
        let path = self.existing()?;
        self.open(&path)
    }

    /// Opens the store to write, and creates it if there is none. A directory with other content is refused.
    pub fn to_create(&self) -> Result<Store, Failure> {
        let path = self.path()?;
        match inspect(&path)? {
            Content::Nothing | Content::EmptyDirectory | Content::Store => self.open(&path),
            Content::Foreign => {
                let text =
                    format!("{} holds other things; a store wants a directory of its own", path.display());
                Err(Failure::usage(text))
            }
        }
    }

    fn open(&self, path: &Path) -> Result<Store, Failure> {
        let opened = self.builder(path)?.open_within(self.wait());
        let store = opened.map_err(|error| Failure::from(error).at(&path.display().to_string()))?;
        interrupt::note(|plan| {
            plan.effect.has_created = store.open_report().created;
            plan.store = Some(store.clone());
        });
        Ok(store)
    }
}

/// Closes a store that was opened to write. A drop would hide the error.
pub fn close(store: Store) -> Result<(), Failure> {
    let _section = interrupt::critical_section();
    interrupt::note(|plan| plan.store = None);
    store.close()?;
    interrupt::note(|plan| plan.effect.is_unsynced = false);
    Ok(())
}

/// What is under a path. Opens no file.
pub fn inspect(path: &Path) -> Result<Content, Failure> {
    let failed = |error| Failure::system(&format!("cannot look at {}", path.display()), &error);
    let mut entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Content::Nothing),
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            let text = format!("{} is a file; a store is a directory", path.display());
            return Err(Failure::usage(text).hint("name the directory it lies in, or another, with --dir"));
        }
        Err(error) => return Err(failed(error)),
    };
    let exists = |name: &&&str| path.join(name).symlink_metadata().is_ok();
    if STORE_NAMES.iter().filter(exists).count() >= 2 {
        return Ok(Content::Store);
    }
    // Another process may be creating a store here, or was stopped while it did.
    let is_ours = |name: &str| STORE_NAMES.contains(&name) || name.starts_with("MANIFEST.");
    let mut found = Content::EmptyDirectory;
    for entry in &mut entries {
        let is_ours = entry.map_err(failed)?.file_name().to_str().is_some_and(is_ours);
        found = if is_ours { Content::Store } else { return Ok(Content::Foreign) };
    }
    Ok(found)
}

/// Shows the progress of an opening that takes longer than a moment.
fn with_progress(builder: Builder) -> Builder {
    let bar = Bar::bytes("opening");
    builder.on_open_progress(move |progress| {
        if progress.elapsed > Duration::from_millis(300) {
            bar.set(progress.bytes, progress.bytes_total);
        }
        ControlFlow::Continue(())
    })
}
