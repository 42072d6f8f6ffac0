//! Reads lines, and knows how far it is: in lines, in bytes, and by a digest of everything before.
//!
//! Row: app.

use std::io::{BufRead, Chain, Cursor, Read, Write};

use crate::types::{Error, ErrorKind, to_u64};

pub(super) struct Source<R> {
    /// What was looked at before it is read, and the rest.
    reader: Chain<Cursor<Vec<u8>>, R>,
    pub(super) line_bytes_max: usize,
    /// Ends of lines behind it.
    pub(super) lines: u64,
    /// Bytes behind it.
    pub(super) offset: u64,
    digest: blake3::Hasher,
}

/// What was read.
pub(super) enum Got {
    Line,
    /// Only its first bytes, without its end.
    TooLong,
    End,
}

/// Some editors begin a text so; texts that are put together have it in the middle.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// What is passed over is read so much at a time.
const PASS_BYTES: u64 = 64 << 10;

impl<R: BufRead> Source<R> {
    pub(super) fn new(reader: R, line_bytes_max: usize) -> Source<R> {
        let reader = Cursor::new(Vec::new()).chain(reader);
        Source { reader, line_bytes_max, lines: 0, offset: 0, digest: blake3::Hasher::new() }
    }

    /// The number of the line that comes next, as editors count.
    pub(super) fn number(&self) -> u64 {
        self.lines.saturating_add(1)
    }

    /// Stands for everything that was read.
    pub(super) fn digest(&self) -> u64 {
        digest_of(&self.digest)
    }

    /// Stands for the first bytes, which are kept to be read later; `None` if there are not so many. For
    /// before anything is read.
    pub(super) fn beginning(&mut self, bytes: u64) -> Result<Option<u64>, Error> {
        self.ahead(bytes)?;
        let (ahead, _) = self.reader.get_ref();
        let beginning = usize::try_from(bytes).ok().and_then(|bytes| ahead.get_ref().get(..bytes));
        Ok(beginning.map(|bytes| digest_of(blake3::Hasher::new().update(bytes))))
    }

    /// Looks at so many bytes, which are kept to be read later, and says how many there are. For before
    /// anything is read.
    pub(super) fn ahead(&mut self, bytes: u64) -> Result<usize, Error> {
        let (ahead, rest) = self.reader.get_mut();
        let kept = ahead.get_mut();
        let have = to_u64(kept.len());
        let read = rest.take(bytes.saturating_sub(have)).read_to_end(kept);
        let length = kept.len();
        read.map_err(|error| self.cannot_read(error))?;
        Ok(length)
    }

    /// Appends the next line, its end included, to `out`, which then has at most `line_bytes_max` bytes.
    pub(super) fn line(&mut self, out: &mut Vec<u8>) -> Result<Got, Error> {
        let start = out.len();
        let room = self.line_bytes_max.saturating_sub(start);
        self.read_until_end(room, out)?;
        let line = &out[start..];
        Ok(match line.last() {
            None if room > 0 => Got::End,
            Some(b'\n') => Got::Line,
            // The end of the source ends the last line.
            _ if line.len() < room => Got::Line,
            _ if self.is_at_end()? => {
                if line.is_empty() {
                    Got::End
                } else {
                    Got::Line
                }
            }
            _ => Got::TooLong,
        })
    }

    /// Passes over the rest of a line, and hands it on.
    pub(super) fn pass(&mut self, mut on: impl Write) -> Result<(), Error> {
        let (lines, mut piece) = (self.lines, Vec::new());
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

    /// Goes to where an earlier import was, if everything before that is as it was then.
    pub(super) fn go_to(&mut self, lines: u64, offset: u64, digest: u64) -> Result<(), Error> {
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
            self.take_note(&piece);
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
        self.take_note(line);
        self.lines = self.lines.saturating_add(u64::from(line.last() == Some(&b'\n')));
        Ok(())
    }

    fn take_note(&mut self, bytes: &[u8]) {
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

/// What of a line is JSON; `None` if it is blank.
pub(super) fn json_of(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
    Some(line.trim_ascii()).filter(|line| !line.is_empty())
}

pub(super) fn cannot_reject(error: std::io::Error) -> Error {
    let text = format!("cannot write what was rejected: {error}");
    Error::with_source(ErrorKind::Io, text, error)
}
