//! The lines of an import, counted: lines, bytes, and a digest of everything read.
//!
//! Also refuses a source that was imported under another name.

use std::io::{BufRead, Chain, Cursor, Read, Write};

use crate::store::Store;
use crate::types::system::import::{PREFIX, REACHED};
use crate::types::{Error, ErrorKind, Query, to_u64};

/// The payload of `$import.reached`. First come lines, bytes and digest of the source so far. Then come
/// position and time of recording of the last event in its own store, 0 where the line has none.
pub(super) type ImportedUpTo = (u64, u64, u64, u64, i64);

/// The source of an import, and how far it is read.
pub(super) struct LineSource<R> {
    /// The bytes that were read ahead, and the rest.
    reader: Chain<Cursor<Vec<u8>>, R>,
    pub(super) line_bytes_max: usize,
    /// Line ends read so far.
    pub(super) lines: u64,
    /// Bytes read so far.
    pub(super) offset: u64,
    digest: blake3::Hasher,
}

/// The result of reading a line.
pub(super) enum LineRead {
    Line,
    /// The line exceeds the limit; its first bytes were read.
    TooLong,
    End,
}

/// Some editors write this mark at the beginning; concatenated texts have it in the middle.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// Bytes that are read at once while skipping.
const PASS_BYTES: u64 = 64 << 10;

impl<R: BufRead> LineSource<R> {
    pub(super) fn new(reader: R, line_bytes_max: usize) -> LineSource<R> {
        let reader = Cursor::new(Vec::new()).chain(reader);
        LineSource { reader, line_bytes_max, lines: 0, offset: 0, digest: blake3::Hasher::new() }
    }

    /// The number of the next line, from 1.
    pub(super) fn number(&self) -> u64 {
        self.lines.saturating_add(1)
    }

    /// The digest of everything read.
    pub(super) fn digest(&self) -> u64 {
        digest_of(&self.digest)
    }

    /// The digest of the first bytes, which stay readable; `None` if the source is shorter. Only before
    /// anything is read.
    pub(super) fn digest_of_beginning(&mut self, bytes: u64) -> Result<Option<u64>, Error> {
        self.read_ahead(bytes)?;
        let (ahead, _) = self.reader.get_ref();
        let beginning = usize::try_from(bytes).ok().and_then(|bytes| ahead.get_ref().get(..bytes));
        Ok(beginning.map(|bytes| digest_of(blake3::Hasher::new().update(bytes))))
    }

    /// Reads ahead this many bytes, which stay readable, and returns how many there are. Only before anything
    /// is read.
    pub(super) fn read_ahead(&mut self, bytes: u64) -> Result<usize, Error> {
        let (ahead, rest) = self.reader.get_mut();
        let kept = ahead.get_mut();
        let have = to_u64(kept.len());
        let read = rest.take(bytes.saturating_sub(have)).read_to_end(kept);
        let length = kept.len();
        read.map_err(|error| self.cannot_read(error))?;
        Ok(length)
    }

    /// Appends the next line, including its end, to `out`, up to `line_bytes_max` bytes in total.
    pub(super) fn line(&mut self, out: &mut Vec<u8>) -> Result<LineRead, Error> {
        let start = out.len();
        let room = self.line_bytes_max.saturating_sub(start);
        self.read_until_end(room, out)?;
        let line = &out[start..];
        Ok(match line.last() {
            None if room > 0 => LineRead::End,
            Some(b'\n') => LineRead::Line,
            // The end of the source ends the last line.
            _ if line.len() < room => LineRead::Line,
            _ if self.is_at_end()? => {
                if line.is_empty() {
                    LineRead::End
                } else {
                    LineRead::Line
                }
            }
            _ => LineRead::TooLong,
        })
    }

    /// Skips the rest of a line, and copies it to a writer.
    pub(super) fn skip_line(&mut self, mut on: impl Write) -> Result<(), Error> {
        let lines = self.lines;
        let mut piece = Vec::new();
        while self.lines == lines {
            piece.clear();
            self.read_until_end(usize::try_from(PASS_BYTES).expect("64 Ki"), &mut piece)?;
            if piece.is_empty() {
                break;
            }
            on.write_all(&piece).map_err(cannot_reject)?;
        }
        Ok(())
    }

    /// Skips to where an earlier run was, if everything before is unchanged.
    pub(super) fn skip_to(&mut self, lines: u64, offset: u64, digest: u64) -> Result<(), Error> {
        let mut piece = Vec::new();
        while self.offset < offset {
            let bytes = (offset - self.offset).min(PASS_BYTES);
            piece.clear();
            let read = (&mut self.reader)
                .take(bytes)
                .read_to_end(&mut piece)
                .map_err(|error| self.cannot_read(error))?;
            if read == 0 {
                return Err(Error::invalid(format!(
                    "the source ends after {} bytes, but {offset} bytes of it were imported under this name; \
                     give the whole source again, or another name",
                    self.offset
                )));
            }
            self.count(&piece);
        }
        if self.digest() != digest {
            return Err(Error::invalid(format!(
                "the first {offset} bytes are not those that were imported under this name; \
                 give the same source again, or another name"
            )));
        }
        self.lines = lines;
        Ok(())
    }

    fn read_until_end(&mut self, most: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        let start = out.len();
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        (&mut self.reader).take(most).read_until(b'\n', out).map_err(|error| self.cannot_read(error))?;
        let line = &out[start..];
        self.count(line);
        self.lines = self.lines.saturating_add(u64::from(line.last() == Some(&b'\n')));
        Ok(())
    }

    fn count(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.offset = self.offset.saturating_add(to_u64(bytes.len()));
    }

    fn is_at_end(&mut self) -> Result<bool, Error> {
        loop {
            match self.reader.fill_buf() {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.cannot_read(error)),
                Ok(bytes) => return Ok(bytes.is_empty()),
            }
        }
    }

    fn cannot_read(&self, error: std::io::Error) -> Error {
        Error::io("cannot read", &format!("line {}", self.number()), error)
    }
}

fn digest_of(hasher: &blake3::Hasher) -> u64 {
    crate::format::u64_at(hasher.finalize().as_bytes(), 0)
}

/// The JSON of a line; `None` if the line is blank.
pub(super) fn json_of(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
    Some(line.trim_ascii()).filter(|line| !line.is_empty())
}

pub(super) fn cannot_reject(error: std::io::Error) -> Error {
    let text = format!("cannot write what was rejected: {error}");
    Error::with_source(ErrorKind::Io, text, error)
}

/// How much of a source identifies it, or its first append if that is longer.
const BEGINNING_BYTES: u64 = 64 << 10;

/// Refuses a source that begins like one that was imported under another name.
///
/// An import records the digest of its source behind each append. Of every import the first digest is
/// compared. Where it is equal, the last one within the beginning decides.
pub(super) fn refuse_known(
    store: &Store,
    source: &mut LineSource<impl BufRead>,
    bytes_max: u64,
) -> Result<(), Error> {
    for import in store.entities().prefix(PREFIX) {
        let import = import?;
        let Some(name) = import.name.strip_prefix(PREFIX) else { continue };
        let mut known = store.read(Query::entity(&import.name).kind(REACHED)).filter_map(|event| {
            let event = match event {
                // A record alone in its append stands for rejected lines, of which nothing went in.
                Ok(event) if event.append_position() == event.position() => return None,
                event => event,
            };
            let reached = event.and_then(|event| event.decode::<ImportedUpTo>());
            Some(reached.map(|(_, offset, digest, ..)| (offset, digest)))
        });
        let Some(first) = known.next() else { continue };
        let first = first?;
        if first.0 > bytes_max || source.digest_of_beginning(first.0)? != Some(first.1) {
            continue;
        }
        let within = to_u64(source.read_ahead(BEGINNING_BYTES)?);
        let mut last = first;
        for reached in known {
            let reached = reached?;
            if reached.0 > within {
                break;
            }
            last = reached;
        }
        if source.digest_of_beginning(last.0)? == Some(last.1) {
            return Err(Error::invalid(format!(
                "the source begins with {} bytes that were imported as {name:?}; give it that name, and the \
                 import goes on behind them; or ask for its events to be in twice",
                last.0
            )));
        }
    }
    Ok(())
}
