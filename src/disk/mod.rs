//! Where a store keeps its files, and the three places it can be: [`OsDisk`] (a directory),
//! [`MemDisk`] (memory), `SimDisk` (memory that fails and loses power on demand; feature
//! `test-kit`).
//!
//! The traits are the one seam between annals and the outside world. They promise as little as
//! POSIX does: written bytes are durable only after [`DiskFile::sync`], a created, renamed or
//! removed name only after [`Disk::sync_directory`].
//! Row: disk. Of the crate only os/calls.rs may touch `std::fs`.

mod mem;
mod os;
#[cfg(feature = "test-kit")]
mod sim;
mod subdirectory;

pub use mem::MemDisk;
pub use os::{Allow, OsDisk};
#[cfg(feature = "test-kit")]
pub use sim::{CrashMode, Fault, SimDisk, Trace};
pub use subdirectory::Subdirectory;

use std::any::Any;
use std::io;

use crate::types::to_u64;

/// A place for a store's files.
///
/// A disk repeats what a signal interrupts. annals repeats only reads and writes that answer
/// [`io::ErrorKind::Interrupted`]; of any other call that is an error like others.
///
/// Paths are relative and made by annals from integers and fixed words (`MARK`,
/// `segments/00000000000000000001.0.seg`); no user's text ever reaches one.
///
/// ```
/// use annals::disk::{Access, Disk, MemDisk};
///
/// let disk = MemDisk::new();
/// let file = disk.open("MARK", Access::CreateNew)?;
/// file.write_at(b"hello", 0)?;
/// assert_eq!(file.length()?, 5);
/// assert_eq!(disk.list("")?, ["MARK"]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait Disk: Any + Send + Sync {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] and [`io::ErrorKind::AlreadyExists`] as [`Access`] says, and
    /// whatever else keeps the file from being opened safely.
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn DiskFile>>;

    /// The names in a directory (`""` is the store's own), in no order.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] if there is no such directory.
    fn list(&self, directory: &str) -> io::Result<Vec<String>>;

    /// Looks at entries of a directory without opening them: an answer for each name, in the same order. Links are not
    /// followed. A writer is let in only if its sealed segments pass this.
    ///
    /// By default each file is opened and asked for its length, which is slower, and shows less. A disk that
    /// passes calls on to another one passes this on as well.
    ///
    /// ```
    /// use annals::disk::{Access, Disk, MemDisk};
    ///
    /// let disk = MemDisk::new();
    /// disk.open("segments/a", Access::CreateNew)?.write_at(b"hello", 0)?;
    /// let found = disk.inspect("segments", &["a".to_owned(), "b".to_owned()])?;
    /// assert_eq!(found[0].as_ref().unwrap().length, 5);
    /// assert_eq!(found[1].as_ref().unwrap_err().kind(), std::io::ErrorKind::NotFound);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Whatever keeps the directory from being opened; in an answer [`io::ErrorKind::NotFound`] if there is no such name.
    fn inspect(&self, directory: &str, names: &[String]) -> io::Result<Vec<io::Result<FileInfo>>> {
        let look = |name: &String| {
            let file = self.open(&path_of(directory, name), Access::Read)?;
            Ok(FileInfo::regular(file.length()?))
        };
        Ok(names.iter().map(look).collect())
    }

    /// Creates a directory; one that is there already is fine.
    ///
    /// # Errors
    ///
    /// Whatever the medium says.
    fn create_directory(&self, directory: &str) -> io::Result<()>;

    /// Makes the names created, renamed and removed in a directory durable.
    ///
    /// # Errors
    ///
    /// Whatever the medium says; which names are durable then is not known.
    fn sync_directory(&self, directory: &str) -> io::Result<()>;

    /// Gives a file another name, replacing what had it, as one step.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] if there is no `from`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file's name. Open handles go on working.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] if there is no such file.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Gives a file of `source` a second name here, so that both names share its bytes; nobody changes these any more.
    /// Whoever copies then need not. By default nothing can be shared.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Unsupported`], [`io::ErrorKind::CrossesDevices`] and
    /// [`io::ErrorKind::PermissionDenied`] if the bytes have to be copied;
    /// [`io::ErrorKind::AlreadyExists`], [`io::ErrorKind::NotFound`].
    fn link(&self, source: &dyn Disk, from: &str, to: &str) -> io::Result<()> {
        let _ = (source, from, to);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Tries to become the only writer, without waiting for another one.
    ///
    /// # Errors
    ///
    /// Whatever keeps the lock from being tried; then nobody may write.
    fn lock(&self) -> io::Result<Lock>;

    /// Whether a writer holds the lock just now. Changes nothing, and keeps no writer from the lock.
    ///
    /// # Errors
    ///
    /// Whatever keeps this from being found out.
    fn is_locked(&self) -> io::Result<bool>;

    /// Looks whether a store that this process writes to is still the one that it opened: whether its lock, and these
    /// names, mean the files that they meant then. A file's identity is what [`DiskFile::identity`] said; without one
    /// the name must only be there. By default all is well.
    ///
    /// The writer asks before it acknowledges a synced group, and otherwise every 100 ms while it acknowledges.
    ///
    /// # Errors
    ///
    /// If a name means another file now, or none; the text says which. What cannot be looked at is no error.
    fn check_names(&self, names: &[(&str, Option<(u64, u64)>)]) -> io::Result<()> {
        let _ = names;
        Ok(())
    }

    /// How many bytes can still be written, as far as the medium knows.
    ///
    /// # Errors
    ///
    /// Whatever the medium says.
    fn free_bytes(&self) -> io::Result<u64>;

    /// Random bytes: store id, salts and marks come from here.
    ///
    /// # Errors
    ///
    /// Whatever keeps the medium from having any.
    fn random(&self) -> io::Result<[u8; 32]>;

    /// Where this is, for people.
    fn place(&self) -> String {
        "a disk of its own kind".to_owned()
    }

    /// Whether writing over zeros is cheaper here than making a file longer, so that the writer
    /// should keep zeros ahead of the log's end.
    fn wants_zeros(&self) -> bool {
        true
    }
}

/// What [`Disk::inspect`] sees of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// In bytes.
    pub length: u64,
    /// Whether it is a regular file, and no link, directory, pipe, socket or device.
    pub is_regular: bool,
    /// What two names of one file have in common, and no other name: on Unix device and inode. `None` if the disk does
    /// not know.
    pub identity: Option<(u64, u64)>,
}

impl FileInfo {
    /// A regular file of so many bytes, of which no more is known.
    ///
    /// ```
    /// use annals::disk::FileInfo;
    ///
    /// assert!(FileInfo::regular(144).is_regular);
    /// ```
    #[must_use]
    pub fn regular(length: u64) -> FileInfo {
        FileInfo { length, is_regular: true, identity: None }
    }
}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read one that must exist.
    Read,
    /// To read and write one that must exist.
    Write,
    /// To read and write one that must not exist yet.
    CreateNew,
}

/// What [`Disk::lock`] found.
pub enum Lock {
    /// The lock is ours until this is dropped.
    Held(Box<dyn Any + Send + Sync>),
    /// Another writer has it.
    HeldBy(Holder),
}

/// An open file. Reads and writes name their place; there is no cursor.
pub trait DiskFile: Send + Sync {
    /// Reads up to `buffer.len()` bytes; fewer at the end of the file or whenever the medium
    /// likes, none beyond it.
    ///
    /// # Errors
    ///
    /// Whatever the medium says; never used for "end of file".
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes some bytes from the start of `bytes`, and says how many.
    ///
    /// # Errors
    ///
    /// Whatever the medium says.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// The file's length in bytes.
    ///
    /// # Errors
    ///
    /// Whatever the medium says.
    fn length(&self) -> io::Result<u64>;

    /// Cuts the file, or lengthens it with zeros.
    ///
    /// # Errors
    ///
    /// Whatever the medium says.
    fn set_length(&self, bytes: u64) -> io::Result<()>;

    /// Returns once everything written so far, and the length, are durable.
    ///
    /// # Errors
    ///
    /// After an error what is durable is not known, and a second call that succeeds says nothing
    /// about the writes before the first. annals never calls it again on that file.
    fn sync(&self) -> io::Result<()>;

    /// Forgets cached, unmodified bytes from `offset` on, so that reads see the medium itself.
    ///
    /// # Errors
    ///
    /// Whatever the medium says.
    fn drop_cache(&self, offset: u64) -> io::Result<()>;

    /// What tells the file from every other on its disk, for [`Disk::check_names`]: device and inode. `None`, the
    /// default, where there is no such thing.
    fn identity(&self) -> Option<(u64, u64)> {
        None
    }

    /// Told that what was written is not read again soon, and that [`DiskFile::sync`] comes once there is more: it may begin to write that
    /// out, so that there is less to wait for then (default: it does nothing). It promises nothing.
    fn write_out(&self, offset: u64, bytes: u64) {
        let _ = (offset, bytes);
    }
}

/// The path of a name in a directory; `""` is the store's own.
fn path_of(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// Writes all of `bytes`; short writes go on, interruptions are repeated.
pub(crate) fn write_all(file: &dyn DiskFile, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::WriteZero, "the disk took no bytes")),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += to_u64(written);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills as much of `buffer` as the file has from `offset` on, and says how much that is.
pub(crate) fn read_full(file: &dyn DiskFile, buffer: &mut [u8], mut offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset) {
            Ok(0) => break,
            Ok(read) => {
                filled += read;
                offset += to_u64(read);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Turns "there is no such file or directory" into `None`.
pub(crate) fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(there) => Ok(Some(there)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the name of a file that may be gone, and says whether it was there.
pub(crate) fn remove_if_there(disk: &dyn Disk, path: &str) -> io::Result<bool> {
    Ok(if_there(disk.remove(path))?.is_some())
}

/// Creates an empty file in place of one that an interrupted writer may have left.
pub(crate) fn create_anew(disk: &dyn Disk, path: &str) -> io::Result<Box<dyn DiskFile>> {
    remove_if_there(disk, path)?;
    disk.open(path, Access::CreateNew)
}

pub use crate::types::Holder;
/// Why a path is not safe to use; [`crate::Error`] knows it by this type.
pub(crate) use crate::types::UnsafePath;
