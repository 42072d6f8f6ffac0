//! Reads lines into a store.
//!
//! Each append holds one event more, of `$import/<name>`: which lines it was made of. It expects the one before it, so appends
//! can be in flight together and still go in one after the other, or not at all; and an import that was stopped goes on
//! behind what went in.
//! Row: app.

use std::collections::VecDeque;
use std::io::{BufRead, Write};
use std::ops::ControlFlow;
use std::time::Instant;

use super::import_run::{IN_FLIGHT, ImportRun, Versions};
use super::json::Numbers;
use super::mapping::Mapping;
use super::report::{ImportProgress, Imported};
use super::source::{ImportedUpTo, LineSource, refuse_known};
use crate::maintenance::OnProgress;
use crate::store::Store;
#[cfg(doc)]
use crate::types::ErrorKind;
use crate::types::system::import::PREFIX;
use crate::types::{Error, Query, Version, check_name};

/// The longest name of an import, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// A longer line than an export can write: 16 MiB of signs that JSON spells with six, and names.
const LINE_BYTES_MAX: usize = 128 << 20;
impl Store {
    /// Imports lines that [`Store::export`] wrote, or by a [`Mapping`] those of somebody else.
    ///
    /// The name is that of the import: run again with the same source, it goes on behind what went in, whatever stopped it, and
    /// appends nothing twice. A source that has grown since may be imported again for what is new.
    ///
    /// Ids come along as foreign ids, and versions are kept, or the import stops ([`Import::renumber`]). When the event happened
    /// stays; where that was not said, it is now when it was recorded. SPEC.md "Export and import" has the rest.
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
            versions: Versions::Kept,
            numbers: Numbers::Exact,
            other_names: OtherNames::Refused,
            line_bytes_max: LINE_BYTES_MAX,
            rejects: None,
            on_progress: None,
        }
    }
}

/// An import that is put together; see [`Store::import`].
#[must_use = "nothing is imported until it is run"]
pub struct Import<'a, R> {
    store: &'a Store,
    name: String,
    source: R,
    mapping: Option<Mapping>,
    versions: Versions,
    numbers: Numbers,
    other_names: OtherNames,
    line_bytes_max: usize,
    rejects: Option<Box<dyn Write + 'a>>,
    on_progress: Option<OnProgress<'a, ImportProgress>>,
}

/// Whether a source may go in that went in under another name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OtherNames {
    Refused,
    Allowed,
}

impl<'a, R: BufRead> Import<'a, R> {
    /// Reads lines that are somebody else's.
    pub fn mapped(mut self, mapping: Mapping) -> Import<'a, R> {
        self.mapping = Some(mapping);
        self
    }

    /// Lets versions follow on as they do for any append. Without it an event that says which version it has gets that one, or
    /// the import stops with a conflict: the export left events out, or its entity has others here.
    pub fn renumber(mut self) -> Import<'a, R> {
        self.versions = Versions::Assigned;
        self
    }

    /// Takes numbers that a 64-bit float or integer cannot hold exactly as the nearest float (default: they
    /// make a bad line). For lines of programs that write more digits than a float has, such as
    /// `0.10000000000000001`.
    pub fn round_numbers(mut self) -> Import<'a, R> {
        self.numbers = Numbers::Rounded;
        self
    }

    /// Imports the source although it begins as one that was imported under another name: its events are in
    /// twice then, unless their ids or versions keep them out (default: such an import is refused before
    /// anything goes in). Asked only of a name that is new.
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

    /// Copies lines that cannot be imported to a writer, and goes on. Without it the first of them stops the import.
    ///
    /// An append of which one line is bad is rejected as a whole. What is rejected is flushed before anything behind it is
    /// appended, and another run passes over it; an import that was stopped may reject its last bad lines again.
    pub fn skip_bad(mut self, rejects: impl Write + 'a) -> Import<'a, R> {
        self.rejects = Some(Box::new(rejects));
        self
    }

    /// The longest line, and the most bytes of lines that become one append (default: 128 MiB, more than any export has). So much
    /// memory may be needed.
    pub fn line_bytes_max(mut self, bytes: usize) -> Import<'a, R> {
        self.line_bytes_max = bytes;
        self
    }

    /// Tells how far it is, every 4,096 lines; [`ControlFlow::Break`] breaks it off.
    pub fn on_progress(mut self, tell: impl FnMut(&ImportProgress) -> ControlFlow<()> + 'a) -> Import<'a, R> {
        self.on_progress = Some(Box::new(tell));
        self
    }

    /// Imports, and returns once everything is acknowledged. What went in before an error stays; run again, it goes on from there.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Invalid`], [`ErrorKind::TooLarge`], [`ErrorKind::Denied`]: a line cannot be imported;
    ///   the text has its number. Mend it, or [`skip_bad`](Import::skip_bad). Also if the source does not
    ///   begin as it did the last time, or begins as one that went in under another name
    ///   ([`even_if_imported`](Import::even_if_imported)).
    /// - [`ErrorKind::Conflict`]: a version would not be kept, or another import of this name runs.
    /// - [`ErrorKind::Io`]: the source cannot be read, or the rejects not be written.
    /// - [`ErrorKind::Cancelled`]: it was broken off.
    /// - Whatever else keeps an append from going in.
    pub fn run(self) -> Result<Imported, Error> {
        check_name("name of the import", &self.name, NAME_BYTES_MAX)?;
        self.store.engine().check_writable()?;
        let entity = format!("{PREFIX}{}", self.name);
        let mut source = LineSource::new(self.source, self.line_bytes_max);
        let mut version = Version::EMPTY;
        if let Some(last) = self.store.last(Query::entity(&entity))? {
            let (lines, offset, digest, ..) = last.decode::<ImportedUpTo>()?;
            source.go_to(lines, offset, digest)?;
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
            passed: None,
            in_flight: VecDeque::with_capacity(IN_FLIGHT),
            began: Instant::now(),
        };
        run.finish()
    }
}
