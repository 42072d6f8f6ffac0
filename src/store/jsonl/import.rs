//! Import: the public builder.
//!
//! Each append of an import holds one more event, in the stream `$import/<name>`: which lines it was made of.
//! The append expects the version before. So several appends can be in flight, and go in one after the other
//! or not at all. A stopped import goes on behind what went in.

use std::collections::VecDeque;
use std::io::{BufRead, Write};
use std::ops::ControlFlow;
use std::time::Instant;

use super::import_run::{IN_FLIGHT, ImportProgress, ImportRun, Imported, VersionRule};
use super::json::NumberRule;
use super::line::Mapping;
use super::source::{ImportedUpTo, LineSource, refuse_known};
use crate::maintenance::OnProgress;
use crate::store::Store;
#[cfg(doc)]
use crate::types::ErrorKind;
use crate::types::system::import::PREFIX;
use crate::types::{Error, Query, Version, check_name};

/// The longest name of an import, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// More than an export can write: 16 MiB of characters that JSON writes with six, and names.
const LINE_BYTES_MAX: usize = 128 << 20;

impl Store {
    /// Imports lines that [`Store::export`] wrote, or foreign lines by a [`Mapping`].
    ///
    /// The name belongs to the import. Run again with the same source, it goes on behind what went in, and
    /// appends nothing twice. If the source has grown, another run imports what is new.
    ///
    /// Ids become foreign ids. Versions are kept, or the import stops ([`Import::renumber`]). The time at
    /// which an event happened stays; without one, the time at which it was recorded takes its place.
    /// docs/jsonl.md has the details.
    ///
    /// ```
    /// use annals::{Query, Store};
    ///
    /// let lines = br#"{"entity":"order:1","kind":"order.placed","payload":{"item":"a book"}}
    /// {"entity":"order:1","kind":"order.paid","payload":20}
    /// "#;
    /// let store = Store::in_memory()?;
    /// let imported = store.import("shop", lines.as_slice()).run()?;
    /// assert_eq!(imported.events, 2);
    /// let again = store.import("shop", lines.as_slice()).run()?;
    /// assert_eq!((again.events, again.lines_before), (0, 2));
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn import<R: BufRead>(&self, name: impl Into<String>, source: R) -> Import<'_, R> {
        Import {
            store: self,
            name: name.into(),
            source,
            mapping: None,
            versions: VersionRule::Kept,
            numbers: NumberRule::Exact,
            other_names: OtherNames::Refused,
            line_bytes_max: LINE_BYTES_MAX,
            rejects: None,
            on_progress: None,
        }
    }
}

/// An import that is being set up; see [`Store::import`].
#[must_use = "nothing is imported until it is run"]
pub struct Import<'a, R> {
    store: &'a Store,
    name: String,
    source: R,
    mapping: Option<Mapping>,
    versions: VersionRule,
    numbers: NumberRule,
    other_names: OtherNames,
    line_bytes_max: usize,
    rejects: Option<Box<dyn Write + 'a>>,
    on_progress: Option<OnProgress<'a, ImportProgress>>,
}

/// Whether a source may go in again under another name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OtherNames {
    Refused,
    Allowed,
}

impl<'a, R: BufRead> Import<'a, R> {
    /// Reads foreign lines by a mapping.
    pub fn mapped(mut self, mapping: Mapping) -> Import<'a, R> {
        self.mapping = Some(mapping);
        self
    }

    /// Assigns new versions, as any append does. By default an event with a version gets that version, or the
    /// import stops with a conflict. Then the export left events out, or the entity has other events here.
    pub fn renumber(mut self) -> Import<'a, R> {
        self.versions = VersionRule::Assigned;
        self
    }

    /// Rounds numbers that a 64-bit float or integer cannot hold to the nearest float (default: such a number
    /// makes a bad line). For programs that write more digits than a float has, such as
    /// `0.10000000000000001`.
    pub fn round_numbers(mut self) -> Import<'a, R> {
        self.numbers = NumberRule::Rounded;
        self
    }

    /// Imports the source although it begins like one that was imported under another name (default: refused
    /// before anything goes in). Its events are then in the store twice, unless ids or versions prevent that.
    /// Only a new name is checked.
    ///
    /// ```
    /// use annals::Store;
    ///
    /// let lines = br#"{"entity":"order:1","kind":"order.placed","payload":{"item":"a book"}}"#;
    /// let store = Store::in_memory()?;
    /// store.import("shop", lines.as_slice()).run()?;
    /// assert!(store.import("the shop", lines.as_slice()).run().is_err());
    /// let twice = store.import("the shop", lines.as_slice()).even_if_imported().run()?;
    /// assert_eq!(twice.events, 1);
    /// # Ok::<(), annals::Error>(())
    /// ```
    pub fn even_if_imported(mut self) -> Import<'a, R> {
        self.other_names = OtherNames::Allowed;
        self
    }

    /// Copies bad lines to a writer, and goes on (default: the first bad line stops the import).
    ///
    /// If one line of an append is bad, the whole append is rejected. Rejected lines are flushed before the
    /// next append, and another run skips them. An import that was stopped may reject its last bad lines
    /// again.
    pub fn skip_bad(mut self, rejects: impl Write + 'a) -> Import<'a, R> {
        self.rejects = Some(Box::new(rejects));
        self
    }

    /// The longest line, and the most bytes of lines in one append (default: 128 MiB, more than any export
    /// writes). An import may need this much memory.
    pub fn line_bytes_max(mut self, bytes: usize) -> Import<'a, R> {
        self.line_bytes_max = bytes;
        self
    }

    /// Reports progress every 4,096 lines; [`ControlFlow::Break`] breaks the import off.
    pub fn on_progress(mut self, tell: impl FnMut(&ImportProgress) -> ControlFlow<()> + 'a) -> Import<'a, R> {
        self.on_progress = Some(Box::new(tell));
        self
    }

    /// Imports, and returns once everything is acknowledged. What went in before an error stays; another run
    /// goes on from there.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Invalid`], [`ErrorKind::TooLarge`], [`ErrorKind::Denied`]: a line cannot be imported;
    ///   the text has its number. Correct it, or use [`skip_bad`](Import::skip_bad). Also if the source does
    ///   not begin as in the last run, or begins like one under another name
    ///   ([`even_if_imported`](Import::even_if_imported)).
    /// - [`ErrorKind::Conflict`]: a version would not be kept, or another import of this name runs.
    /// - [`ErrorKind::Io`]: reading the source or writing the rejected lines failed.
    /// - [`ErrorKind::Cancelled`]: the import was broken off.
    /// - Those of [`Append::commit`](crate::Append::commit).
    pub fn run(self) -> Result<Imported, Error> {
        check_name("name of the import", &self.name, NAME_BYTES_MAX)?;
        self.store.engine().check_writable()?;
        let entity = format!("{PREFIX}{}", self.name);
        let mut source = LineSource::new(self.source, self.line_bytes_max);
        let mut version = Version::EMPTY;
        if let Some(last) = self.store.last(Query::entity(&entity))? {
            let (lines, offset, digest, ..) = last.decode::<ImportedUpTo>()?;
            source.skip_to(lines, offset, digest)?;
            version = last.version();
        } else if self.other_names == OtherNames::Refused {
            let line_bytes_max = u64::try_from(self.line_bytes_max).unwrap_or(u64::MAX);
            refuse_known(self.store, &mut source, line_bytes_max)?;
        }
        let run = ImportRun {
            store: self.store,
            entity,
            version,
            bytes_before: source.offset,
            imported: Imported { lines_before: source.lines, ..Imported::default() },
            source,
            mapping: self.mapping,
            versions: self.versions,
            numbers: self.numbers,
            rejects: self.rejects,
            on_progress: self.on_progress,
            raw: Vec::new(),
            opened: None,
            rejected_up_to: None,
            in_flight: VecDeque::with_capacity(IN_FLIGHT),
            began: Instant::now(),
        };
        run.finish()
    }
}
