//! A directory of the operating system: the only file that touches `std::fs` and system calls.
//!
//! Every open goes through the held directory, never follows a link, and looks at what it got: a
//! regular file, of our owner, readable by the owner alone whatever the umask.
//! Row: disk.

use std::any::Any;
use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Access, Disk, DiskFile, FileInfo, Lock, UnsafePath};

const LOCK: &str = "LOCK";
const OWNER_DIRECTORY: u32 = 0o700;
const OWNER_FILE: u32 = 0o600;
const PERMISSIONS: u32 = 0o7777;
const OTHERS_MAY_WRITE: u32 = 0o022;

/// The directories this process writes to, by device and inode: a lock file can be deleted, and then
/// another one be locked in its place.
static HELD: Mutex<BTreeSet<(u64, u64)>> = Mutex::new(BTreeSet::new());

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
    /// Device and inode of the directory.
    identity: (u64, u64),
    owner: u32,
    /// Once the lock was ours, so that files may be changed to what they should be.
    is_writer: AtomicBool,
}

/// What an [`OsDisk`] does not refuse though it weakens what annals promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allow {
    shared_directory: bool,
    network_file_system: bool,
}

impl Allow {
    /// Everything that weakens a promise is refused.
    #[must_use]
    pub fn nothing() -> Allow {
        Allow::default()
    }

    /// A directory that others may write to. They can then delete or replace the store's files; annals
    /// notices, but cannot prevent it.
    #[must_use]
    pub fn shared_directory(self) -> Allow {
        Allow { shared_directory: true, ..self }
    }

    /// A network file system. Whether a lock keeps writers on other machines out, and whether a sync
    /// reaches a disk, is then up to the server and how it is mounted.
    #[must_use]
    pub fn network_file_system(self) -> Allow {
        Allow { network_file_system: true, ..self }
    }
}

impl OsDisk {
    /// Opens a directory, and creates it, for its owner only, if it is not there.
    ///
    /// # Errors
    ///
    /// If it cannot be created or opened, if others may write to it, or if it lies on a network file
    /// system.
    pub fn create(path: impl AsRef<Path>) -> io::Result<OsDisk> {
        OsDisk::create_allowing(path, Allow::nothing())
    }

    /// [`OsDisk::create`], without refusing what is allowed.
    ///
    /// # Errors
    ///
    /// As [`OsDisk::create`], but for what is allowed; also if it belongs to somebody else.
    pub fn create_allowing(path: impl AsRef<Path>, allow: Allow) -> io::Result<OsDisk> {
        create_directory(path.as_ref())?;
        OsDisk::open_allowing(path, allow)
    }

    /// Opens a directory that is there.
    ///
    /// # Errors
    ///
    /// As [`OsDisk::create`].
    pub fn open(path: impl AsRef<Path>) -> io::Result<OsDisk> {
        OsDisk::open_allowing(path, Allow::nothing())
    }

    /// [`OsDisk::open`], without refusing what is allowed.
    ///
    /// # Errors
    ///
    /// As [`OsDisk::create_allowing`].
    pub fn open_allowing(path: impl AsRef<Path>, allow: Allow) -> io::Result<OsDisk> {
        let path = path.as_ref().to_owned();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&path, flags, Mode::empty())?;
        let found = File::from(directory.try_clone()?).metadata()?;
        let owner = found.uid();
        let me = rustix::process::geteuid();
        if owner != me.as_raw() && !me.is_root() {
            return Err(UnsafePath::error(format!("{} belongs to user {owner}, not to us", path.display())));
        }
        if found.mode() & OTHERS_MAY_WRITE != 0 && !allow.shared_directory {
            let mode = found.mode() & PERMISSIONS;
            let text = format!("others may write to {} (mode {mode:o}); chmod it to 700", path.display());
            return Err(UnsafePath::error(text));
        }
        if let Some(name) = network_file_system(&directory)?
            && !allow.network_file_system
        {
            let text = format!(
                "{} lies on a network file system ({name}), where locks and syncs may not hold; use a local disk, or allow it",
                path.display()
            );
            return Err(UnsafePath::error(text));
        }
        let identity = (found.dev(), found.ino());
        Ok(OsDisk { path, directory, identity, owner, is_writer: AtomicBool::new(false) })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a path, of which the end need not be there, is this directory or lies inside.
    pub(crate) fn is_around(&self, path: &Path) -> io::Result<bool> {
        let path = std::path::absolute(path)?;
        let there = path.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
        let is_this = |ancestor: &Path| {
            ancestor.metadata().is_ok_and(|found| (found.dev(), found.ino()) == self.identity)
        };
        Ok(there.is_some_and(|there| there.ancestors().any(is_this)))
    }

    /// The directory that holds `path`, and its name there. Opened anew without following links,
    /// because a subdirectory could have been replaced by one.
    fn place<'a>(&self, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
        match path.rsplit_once('/') {
            Some((parent, name)) => Ok((self.subdirectory(parent)?, name)),
            None => Ok((self.directory.try_clone()?, path)),
        }
    }

    fn subdirectory(&self, path: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = |directory: BorrowedFd<'_>, name: &str| {
            rustix::fs::openat(directory, name, flags, Mode::empty()).map_err(|error| match error {
                Errno::LOOP | Errno::NOTDIR => {
                    self.unsafe_because(path, "is not a directory, or a link to one")
                }
                other => other.into(),
            })
        };
        let mut names = path.split('/').filter(|name| !name.is_empty());
        let Some(first) = names.next() else { return self.directory.try_clone() };
        names.try_fold(open(self.directory.as_fd(), first)?, |directory, name| open(directory.as_fd(), name))
    }

    fn unsafe_because(&self, path: &str, why: &str) -> io::Error {
        UnsafePath::error(format!("{} {why}", self.path.join(path).display()))
    }

    fn open_file(&self, path: &str, flags: OFlags) -> io::Result<File> {
        let (directory, name) = self.place(path)?;
        // A planted FIFO must not block us: NONBLOCK means nothing for regular files.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(OWNER_FILE)) {
            Ok(file) => File::from(file),
            Err(Errno::LOOP) => return Err(self.unsafe_because(path, "is a symbolic link")),
            Err(Errno::ISDIR | Errno::NXIO) => {
                return Err(self.unsafe_because(path, "is not a regular file"));
            }
            Err(error) => return Err(error.into()),
        };
        self.check(path, &file, flags.contains(OFlags::RDWR))?;
        Ok(file)
    }

    fn check(&self, path: &str, file: &File, writable: bool) -> io::Result<()> {
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(self.unsafe_because(path, "is not a regular file"));
        }
        if found.uid() != self.owner && found.uid() != rustix::process::geteuid().as_raw() {
            return Err(self.unsafe_because(path, "belongs to another user than its directory"));
        }
        // Sealed segments may be shared with backups by hard links; what is written to may not.
        if writable && found.nlink() > 1 {
            let why = "has a second name (hard link), through which it could be changed";
            return Err(self.unsafe_because(path, why));
        }
        let may_change = found.nlink() == 1 && (writable || self.is_writer.load(Ordering::Relaxed));
        if may_change && found.mode() & PERMISSIONS != OWNER_FILE {
            rustix::fs::fchmod(file, Mode::from_raw_mode(OWNER_FILE))?;
        }
        Ok(())
    }

    /// Whether the name still means the file that was locked.
    fn is_current(&self, path: &str, file: &File) -> io::Result<bool> {
        let held = file.metadata()?;
        match rustix::fs::statat(&self.directory, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) => Ok((named.st_dev, named.st_ino) == (held.dev(), held.ino())),
            Err(Errno::NOENT) => Ok(false),
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
        let opened = self.subdirectory(directory)?;
        if !directory.is_empty() && self.is_writer.load(Ordering::Relaxed) {
            rustix::fs::fchmod(&opened, Mode::from_raw_mode(OWNER_DIRECTORY))?;
        }
        let mut names = Vec::new();
        for entry in Dir::read_from(&opened)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The directory is opened once, so that a look costs one system call.
    fn inspect(&self, directory: &str, names: &[String]) -> io::Result<Vec<io::Result<FileInfo>>> {
        let opened = self.subdirectory(directory)?;
        let look = |name: &String| {
            let found = rustix::fs::statat(&opened, name.as_str(), AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(FileInfo {
                length: u64::try_from(found.st_size).unwrap_or(u64::MAX),
                is_regular: FileType::from_raw_mode(found.st_mode) == FileType::RegularFile,
                identity: Some((found.st_dev, found.st_ino)),
            })
        };
        Ok(names.iter().map(look).collect())
    }

    fn create_directory(&self, directory: &str) -> io::Result<()> {
        let (parent, name) = self.place(directory)?;
        match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(OWNER_DIRECTORY)) {
            Ok(()) | Err(Errno::EXIST) => {}
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

    fn link(&self, source: &dyn Disk, from: &str, to: &str) -> io::Result<()> {
        let Some(source) = (source as &dyn Any).downcast_ref::<OsDisk>() else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let ((from_directory, from), (to_directory, to)) = (source.place(from)?, self.place(to)?);
        Ok(rustix::fs::linkat(from_directory, from, to_directory, to, AtFlags::empty())?)
    }

    fn lock(&self) -> io::Result<Lock> {
        let Some(held) = HeldDirectory::take(self.identity) else {
            return Ok(Lock::HeldBy(Some(std::process::id())));
        };
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
                // For people as well: a full disk must not keep the store from being opened.
                let _ = write_process_id(&file);
                self.is_writer.store(true, Ordering::Relaxed);
                return Ok(Lock::Held(Box::new((file, held))));
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

    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let found = rustix::fs::fstatvfs(&self.directory)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn random(&self) -> io::Result<[u8; 32]> {
        random()
    }
}

/// The claim of this process on a directory.
struct HeldDirectory((u64, u64));

impl HeldDirectory {
    fn take(identity: (u64, u64)) -> Option<HeldDirectory> {
        let is_new = HELD.lock().insert(identity);
        is_new.then(|| HeldDirectory(identity))
    }
}

impl Drop for HeldDirectory {
    fn drop(&mut self) {
        HELD.lock().remove(&self.0);
    }
}

/// The name of the network file system that a directory lies on.
#[cfg(target_os = "linux")]
fn network_file_system(directory: &OwnedFd) -> io::Result<Option<&'static str>> {
    let [a, b, c, d, ..] = rustix::fs::fstatfs(directory)?.f_type.to_le_bytes();
    Ok(network_name(u32::from_le_bytes([a, b, c, d])))
}

#[cfg(not(target_os = "linux"))]
fn network_file_system(_directory: &OwnedFd) -> io::Result<Option<&'static str>> {
    Ok(None)
}

/// By the magic numbers of statfs(2).
#[cfg(target_os = "linux")]
fn network_name(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517B | 0xFE53_4D42 | 0xFF53_4D42 => "SMB",
        0x5346_414F | 0x6B41_4653 => "AFS",
        0x00C3_6400 => "Ceph",
        0x0BD0_0BD0 => "Lustre",
        0x0102_1997 => "9P",
        0x7375_7245 => "Coda",
        0x564C => "NCP",
        0x0116_1970 => "GFS2",
        0x7461_636F => "OCFS2",
        _ => return None,
    })
}

#[cfg(all(test, target_os = "linux"))]
#[test]
fn network_file_systems_are_known_by_their_magic() {
    let found = [0x6969, 0xFF53_4D42, 0xEF53, 0x0102_1994, 0x9123_683E, 0x5846_5342].map(network_name);
    assert_eq!(
        found,
        [Some("NFS"), Some("SMB"), None, None, None, None],
        "the last are ext4, tmpfs, btrfs, XFS"
    );
}

/// Creates what is missing of a path, for its owner only whatever the umask, and durably: what is
/// synced in a directory is lost with it if its own name is.
fn create_directory(path: &Path) -> io::Result<()> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    for path in missing.into_iter().rev() {
        match DirBuilder::new().mode(OWNER_DIRECTORY).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made?,
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::open(path, flags, Mode::empty())?;
        rustix::fs::fchmod(made, Mode::from_raw_mode(OWNER_DIRECTORY))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// Always as many bytes, so that nothing is cut off first: the file system takes longer for that than for all else that
/// opening does with the lock.
fn write_process_id(file: &File) -> io::Result<()> {
    let text = format!("{:<10}\n", std::process::id());
    file.write_all_at(text.as_bytes(), 0)?;
    let bytes = u64::try_from(text.len()).expect("a length fits 64 bits");
    if file.metadata()?.len() > bytes { file.set_len(bytes) } else { Ok(()) }
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
        rustix::fs::fadvise(&self.0, offset, None, rustix::fs::Advice::DontNeed)?;
        // It is read next, from the device; this has the device begin while the first part is looked at.
        Ok(rustix::fs::fadvise(&self.0, offset, None, rustix::fs::Advice::WillNeed)?)
    }

    #[cfg(not(target_os = "linux"))]
    fn drop_cache(&self, _offset: u64) -> io::Result<()> {
        Ok(())
    }

    /// Linux begins to write out what it is to forget.
    #[cfg(target_os = "linux")]
    fn write_out(&self, offset: u64, bytes: u64) {
        // No length would mean all that follows.
        if let Some(bytes) = std::num::NonZero::new(bytes) {
            let _ = rustix::fs::fadvise(&self.0, offset, Some(bytes), rustix::fs::Advice::DontNeed);
        }
    }
}
