//! A directory of the operating system: the only file that touches `std::fs` and system calls.
//!
//! Every open goes through the held directory, never follows a link, and looks at what it got: a
//! regular file, of our owner, readable by the owner alone whatever the umask.
//! Row: disk.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::{Access, Disk, DiskFile, Lock, UnsafePath};

const LOCK: &str = "LOCK";
const OWNER_DIRECTORY: u32 = 0o700;
const OWNER_FILE: u32 = 0o600;
const OTHERS_MAY_WRITE: u32 = 0o022;
const OTHERS_MAY_ANYTHING: u32 = 0o077;

/// A directory on a local file system.
///
/// Files in it are readable and writable by their owner only.
///
/// ```
/// use annals::disk::OsDisk;
/// use annals::Store;
///
/// let path = std::env::temp_dir().join("annals-doc-os-disk");
/// let store = Store::on(OsDisk::create(&path)?).open()?;
/// # store.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct OsDisk {
    path: PathBuf,
    directory: OwnedFd,
    owner: u32,
}

impl OsDisk {
    /// Opens a directory, and creates it, for its owner only, if it is not there.
    ///
    /// # Errors
    ///
    /// If it cannot be created or opened, or if others may write to it.
    pub fn create(path: impl AsRef<Path>) -> io::Result<OsDisk> {
        create_directory(path.as_ref())?;
        OsDisk::open(path)
    }

    /// [`OsDisk::create`], without refusing a directory that others may write to.
    ///
    /// # Errors
    ///
    /// If it cannot be created or opened, or belongs to somebody else.
    pub fn create_shared(path: impl AsRef<Path>) -> io::Result<OsDisk> {
        create_directory(path.as_ref())?;
        OsDisk::open_shared(path)
    }

    /// Opens a directory that is there.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, or if others may write to it.
    pub fn open(path: impl AsRef<Path>) -> io::Result<OsDisk> {
        let disk = OsDisk::open_shared(path)?;
        let mode = File::from(disk.directory.try_clone()?).metadata()?.mode();
        if mode & OTHERS_MAY_WRITE != 0 {
            let text = format!(
                "others may write to {} (mode {:o}); chmod it to 700",
                disk.path.display(),
                mode & 0o7777
            );
            return Err(UnsafePath::error(text));
        }
        Ok(disk)
    }

    /// Opens a directory that is there, even if others may write to it. They can then delete or
    /// replace the store's files; annals notices, but cannot prevent it.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, or belongs to somebody else.
    pub fn open_shared(path: impl AsRef<Path>) -> io::Result<OsDisk> {
        let path = path.as_ref().to_owned();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&path, flags, Mode::empty())?;
        let owner = File::from(directory.try_clone()?).metadata()?.uid();
        let me = rustix::process::geteuid();
        if owner != me.as_raw() && !me.is_root() {
            return Err(UnsafePath::error(format!("{} belongs to user {owner}, not to us", path.display())));
        }
        Ok(OsDisk { path, directory, owner })
    }

    /// The directory that holds `path`, and its name there. Opened anew without following links,
    /// because a subdirectory could have been replaced by one.
    fn place<'a>(&self, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
        match path.rsplit_once('/') {
            Some((parent, name)) => Ok((self.subdirectory(parent)?, name)),
            None => Ok((self.directory.try_clone()?, path)),
        }
    }

    fn subdirectory(&self, name: &str) -> io::Result<OwnedFd> {
        if name.is_empty() {
            return self.directory.try_clone();
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.directory, name, flags, Mode::empty())?)
    }

    fn open_file(&self, path: &str, flags: OFlags) -> io::Result<File> {
        let (directory, name) = self.place(path)?;
        // A planted FIFO must not block us: NONBLOCK means nothing for regular files.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(OWNER_FILE)) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::LOOP) => {
                return Err(UnsafePath::error(format!(
                    "{} is a symbolic link",
                    self.path.join(path).display()
                )));
            }
            Err(error) => return Err(error.into()),
        };
        self.check(path, &file, flags.contains(OFlags::RDWR))?;
        Ok(file)
    }

    fn check(&self, path: &str, file: &File, writable: bool) -> io::Result<()> {
        let found = file.metadata()?;
        let unsafe_because =
            |why: &str| Err(UnsafePath::error(format!("{} {why}", self.path.join(path).display())));
        if !found.is_file() {
            return unsafe_because("is not a regular file");
        }
        if found.uid() != self.owner && found.uid() != rustix::process::geteuid().as_raw() {
            return unsafe_because("belongs to another user than its directory");
        }
        // Sealed segments may be shared with backups by hard links; what is written to may not.
        if writable && found.nlink() > 1 {
            return unsafe_because("has a second name (hard link), through which it could be changed");
        }
        if writable && found.mode() & OTHERS_MAY_ANYTHING != 0 {
            rustix::fs::fchmod(file, Mode::from_raw_mode(OWNER_FILE))?;
        }
        Ok(())
    }

    /// Whether the name still means the file that was locked.
    fn is_current(&self, path: &str, file: &File) -> io::Result<bool> {
        let held = file.metadata()?;
        match rustix::fs::statat(&self.directory, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) => Ok((named.st_dev, named.st_ino) == (held.dev(), held.ino())),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Disk for OsDisk {
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let flags = match access {
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::RDWR,
            Access::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
        };
        Ok(Box::new(OsFile(self.open_file(path, flags)?)))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(self.path.join(directory))?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn create_directory(&self, directory: &str) -> io::Result<()> {
        match rustix::fs::mkdirat(&self.directory, directory, Mode::from_raw_mode(OWNER_DIRECTORY)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let made = self.subdirectory(directory)?;
        Ok(rustix::fs::fchmod(made, Mode::from_raw_mode(OWNER_DIRECTORY))?)
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        File::from(self.subdirectory(directory)?).sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let ((from_directory, from), (to_directory, to)) = (self.place(from)?, self.place(to)?);
        Ok(rustix::fs::renameat(from_directory, from, to_directory, to)?)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let (directory, name) = self.place(path)?;
        Ok(rustix::fs::unlinkat(directory, name, AtFlags::empty())?)
    }

    fn lock(&self) -> io::Result<Lock> {
        loop {
            let mut file = self.open_file(LOCK, OFlags::RDWR | OFlags::CREATE)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    // Who holds it is for people; half-written digits must not be an error.
                    let mut text = String::new();
                    let _ = file.read_to_string(&mut text);
                    return Ok(Lock::HeldBy(text.trim().parse().ok()));
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // The file may have been replaced between our open and our lock.
            if self.is_current(LOCK, &file)? {
                file.set_len(0)?;
                file.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0)?;
                return Ok(Lock::Held(Box::new(file)));
            }
        }
    }

    fn is_locked(&self) -> io::Result<bool> {
        let file = match self.open_file(LOCK, OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let found = rustix::fs::fstatvfs(&self.directory)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn random(&self) -> io::Result<[u8; 32]> {
        random()
    }
}

fn create_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(OWNER_DIRECTORY).recursive(true).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Random bytes of the operating system.
pub(super) fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

struct OsFile(File);

impl DiskFile for OsFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    // fdatasync: it leaves out times and modes, but nothing that is needed to read the data back.
    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    #[cfg(target_os = "linux")]
    fn drop_cache(&self, offset: u64) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.0, offset, None, rustix::fs::Advice::DontNeed)?)
    }

    #[cfg(not(target_os = "linux"))]
    fn drop_cache(&self, _offset: u64) -> io::Result<()> {
        Ok(())
    }
}
