//! Options from environment variables, for programs that ask for them.
//!
//! No other file reads a variable.

use std::ffi::OsString;
use std::path::Path;

use crate::types::Error;

use super::builder::Builder;

const DIRECTORY: &str = "ANNALS_DIR";
const DURABILITY: &str = "ANNALS_DURABILITY";
const QUEUE: &str = "ANNALS_QUEUE";

/// Options from environment variables. A program that does not call these methods ignores the environment: no
/// variable changes what it promises.
impl Builder {
    /// The store that `ANNALS_DIR` names, with the options of [`Builder::env`].
    ///
    /// ```no_run
    /// let store = annals::Builder::from_env()?.open()?;
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if `ANNALS_DIR` is not set, and as [`Builder::env`].
    pub fn from_env() -> Result<Builder, Error> {
        from(&|name| std::env::var_os(name))
    }

    /// Takes options from the variables that are set. Methods called later override them.
    ///
    /// | variable | stands for | example |
    /// |---|---|---|
    /// | `ANNALS_DURABILITY` | [`Builder::durability`] | `synced`, `buffered`, `buffered:250ms` |
    /// | `ANNALS_QUEUE` | [`Builder::queue_commands_max`] | `4096` |
    ///
    /// An empty variable counts as not set.
    ///
    /// ```
    /// let path = std::env::temp_dir().join("annals-doc-env");
    /// let store = annals::Store::builder(&path).env()?.open()?;
    /// # store.close()?;
    /// # Ok::<(), annals::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if a value cannot be parsed; the text names the
    /// variable.
    pub fn env(self) -> Result<Builder, Error> {
        configure(self, &|name| std::env::var_os(name))
    }
}

type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

pub(super) fn from(look_up: Lookup<'_>) -> Result<Builder, Error> {
    let directory = look_up(DIRECTORY).filter(|directory| !directory.is_empty());
    let unset = || Error::invalid(format!("{DIRECTORY} is not set; it names the directory of the store"));
    let directory = directory.ok_or_else(unset)?;
    configure(Builder::of_directory(Path::new(&directory)), look_up)
}

pub(super) fn configure(mut builder: Builder, look_up: Lookup<'_>) -> Result<Builder, Error> {
    if let Some(durability) = text(DURABILITY, look_up)? {
        builder = builder.durability(durability.parse().map_err(|error| wrong(DURABILITY, &error))?);
    }
    if let Some(queue) = text(QUEUE, look_up)? {
        let commands = queue.parse().ok().filter(|commands| *commands > 0);
        let what = format!("{queue:?} is no number of appends, such as 4096");
        builder = builder.queue_commands_max(commands.ok_or_else(|| wrong(QUEUE, &what))?);
    }
    Ok(builder)
}

fn text(name: &str, look_up: Lookup<'_>) -> Result<Option<String>, Error> {
    let value = look_up(name).filter(|value| !value.is_empty());
    value.map(|value| value.into_string().map_err(|_| wrong(name, &"it is no text"))).transpose()
}

fn wrong(name: &str, what: &dyn std::fmt::Display) -> Error {
    Error::invalid(format!("{name}: {what}"))
}
