//! Where a store keeps its files: [`OsDisk`] (a directory), [`MemDisk`] (memory) or [`Subdirectory`] (a part
//! of another disk). `SimDisk` (feature `test-kit`) is memory that fails and loses power on demand.
//!
//! The traits are the one seam between annals and the outside world. They promise as little as POSIX does.
//! Written bytes are durable only after [`DiskFile::sync`]; a created, renamed or removed name only after
//! [`Disk::sync_directory`]. In the crate only os/calls.rs may use `std::fs`.

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
/// An implementation repeats a call that a signal interrupts. Of calls that answer
/// [`io::ErrorKind::Interrupted`], annals itself repeats only reads and writes. From any other call that
/// answer is an error like others.
///
/// Paths are relative. annals makes them from integers and fixed words (`MARK`,
/// `segments/00000000000000000001.0.seg`); no text of a user ever becomes part of one.
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
    /// [`io::ErrorKind::NotFound`] and [`io::ErrorKind::AlreadyExists`] as [`Access`] says. Any other error
    /// means that the file cannot be opened safely.
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn DiskFile>>;

    /// The names in a directory, in no order. `""` is the store's own directory.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] if there is no such directory.
    fn list(&self, directory: &str) -> io::Result<Vec<String>>;

    /// Looks at entries of a directory without opening them. Returns an answer for each name, in the same
    /// order, and follows no links. A writer is let in only if its sealed segments pass this.
    ///
    /// The default opens each file and reads its length, which is slower and shows less. A disk that forwards
    /// calls to another disk should forward this one as well.
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
    /// If the directory cannot be opened. An answer is [`io::ErrorKind::NotFound`] if there is no such name.
    fn inspect(&self, directory: &str, names: &[String]) -> io::Result<Vec<io::Result<FileInfo>>> {
        let look = |name: &String| {
            let file = self.open(&path_of(directory, name), Access::Read)?;
            Ok(FileInfo::regular(file.length()?))
        };
        Ok(names.iter().map(look).collect())
    }

    /// Creates a directory. A directory that is there already is no error.
    ///
    /// # Errors
    ///
    /// Those of the medium.
    fn create_directory(&self, directory: &str) -> io::Result<()>;

    /// Makes the names created, renamed and removed in a directory durable.
    ///
    /// # Errors
    ///
    /// Those of the medium. It is then unknown which names are durable.
    fn sync_directory(&self, directory: &str) -> io::Result<()>;

    /// Gives a file another name in one step. A file that had this name loses it.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] if there is no `from`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes the name of a file. Open handles keep working.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] if there is no such file.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Gives a file of `source` a second name on this disk, so that a backup need not copy its bytes. Annals
    /// links only files whose bytes it never changes again. The default shares nothing.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Unsupported`], [`io::ErrorKind::CrossesDevices`] and
    /// [`io::ErrorKind::PermissionDenied`] if the caller has to copy the bytes;
    /// [`io::ErrorKind::AlreadyExists`], [`io::ErrorKind::NotFound`].
    fn link(&self, source: &dyn Disk, from: &str, to: &str) -> io::Result<()> {
        let _ = (source, from, to);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Tries to become the only writer. It does not wait for another one.
    ///
    /// # Errors
    ///
    /// If the lock cannot be tried. Then the caller must not write.
    fn lock(&self) -> io::Result<Lock>;

    /// Whether a writer holds the lock at this moment. It changes nothing, and keeps no writer from the lock.
    ///
    /// # Errors
    ///
    /// If the disk cannot tell.
    fn is_locked(&self) -> io::Result<bool>;

    /// Checks that a store that this process writes to is still the one that it opened. Its lock and these
    /// names must still mean the same files. The identity of a file is that of [`DiskFile::identity`];
    /// without one the name must only be there. The default finds no difference.
    ///
    /// The writer asks before it acknowledges a synced group, and otherwise every 100 ms while it
    /// acknowledges.
    ///
    /// # Errors
    ///
    /// If a name means another file now, or none; the text says which one. A name that cannot be checked is
    /// no error.
    fn check_names(&self, names: &[(&str, Option<(u64, u64)>)]) -> io::Result<()> {
        let _ = names;
        Ok(())
    }

    /// How many bytes can still be written, as far as the medium knows.
    ///
    /// # Errors
    ///
    /// Those of the medium.
    fn free_bytes(&self) -> io::Result<u64>;

    /// Random bytes. Store ids and salts are made of them.
    ///
    /// # Errors
    ///
    /// If there is no source of random bytes.
    fn random(&self) -> io::Result<[u8; 32]>;

    /// Where the disk is, for messages.
    fn place(&self) -> String {
        "a disk of its own kind".to_owned()
    }

    /// Whether it is cheaper here to write over zeros than to make a file longer. Then the writer keeps zeros
    /// ahead of the log's end.
    fn wants_zeros(&self) -> bool {
        true
    }
}

/// What [`Disk::inspect`] finds out about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// The length in bytes.
    pub length: u64,
    /// Whether it is a regular file: no link, directory, pipe, socket or device.
    pub is_regular: bool,
    /// Equal for two names of one file, and for no others: on Unix device and inode. `None` if the disk does
    /// not know.
    pub identity: Option<(u64, u64)>,
}

impl FileInfo {
    /// A regular file of this length. No more is known about it.
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
    /// To read a file that must exist.
    Read,
    /// To read and write a file that must exist.
    Write,
    /// To read and write a file that must not exist yet.
    CreateNew,
}

/// The answer of [`Disk::lock`].
pub enum Lock {
    /// The caller holds the lock until it drops this value.
    Held(Box<dyn Any + Send + Sync>),
    /// Another writer has it.
    HeldBy(Holder),
}

/// An open file. Reads and writes name their offset; there is no cursor.
pub trait DiskFile: Send + Sync {
    /// Reads up to `buffer.len()` bytes and returns how many. It may read fewer at any time, and reads none
    /// behind the end of the file.
    ///
    /// # Errors
    ///
    /// Those of the medium. The end of the file is no error.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes some bytes from the start of `bytes`, and returns how many.
    ///
    /// # Errors
    ///
    /// Those of the medium.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// The file's length in bytes.
    ///
    /// # Errors
    ///
    /// Those of the medium.
    fn length(&self) -> io::Result<u64>;

    /// Truncates the file, or lengthens it with zeros.
    ///
    /// # Errors
    ///
    /// Those of the medium.
    fn set_length(&self, bytes: u64) -> io::Result<()>;

    /// Makes all bytes written so far, and the length, durable before it returns.
    ///
    /// # Errors
    ///
    /// After an error it is unknown which bytes are durable. A second call that succeeds proves nothing about
    /// the writes before the first. So annals never calls it again on that open file.
    fn sync(&self) -> io::Result<()>;

    /// Forgets cached, unmodified bytes from `offset` on, so that reads see the medium itself. It may forget
    /// others as well.
    ///
    /// # Errors
    ///
    /// Those of the medium.
    fn drop_cache(&self, offset: u64) -> io::Result<()>;

    /// Distinguishes the file from every other one on its disk, for [`Disk::check_names`]: device and inode.
    /// The default is `None`: the disk has no such numbers.
    fn identity(&self) -> Option<(u64, u64)> {
        None
    }

    /// A hint: these bytes are not read again soon, and a later [`DiskFile::sync`] will cover them. The disk
    /// may begin to write them out, so that the sync takes less time. It promises nothing; the default does
    /// nothing.
    fn write_out(&self, offset: u64, bytes: u64) {
        let _ = (offset, bytes);
    }
}

/// The path of a name in a directory. `""` is the store's own directory.
fn path_of(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// Writes all of `bytes`. It continues after short writes and repeats interrupted ones.
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

/// Reads into `buffer` as many bytes as the file has from `offset` on, and returns how many.
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

/// The result of a call, or `None` if there is no such file or directory.
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
/// Why a path is not safe to use. [`crate::Error`] recognises it by this type.
pub(crate) use crate::types::UnsafePath;
