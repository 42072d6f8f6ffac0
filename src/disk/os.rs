//! A directory of the operating system.
//!
//! Every open starts at the directory that is held open, and follows no link. The file must be regular,
//! belong to the directory's owner, and be readable by that owner alone under any umask. A new file belongs
//! to the directory's owner, also if the superuser creates it. `calls` makes the system calls; `lock` decides
//! who may write.

mod calls;
mod lock;

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use self::calls::{AsFd, BorrowedFd, Errno, FileOwner, Identity, NameIn, OFlags, OwnedFd};
use super::{Access, Disk, DiskFile, FileInfo, Lock, UnsafePath};

pub(super) use self::calls::random;

const LOCK: &str = "LOCK";
const OWNER_DIRECTORY: u32 = 0o700;
const OWNER_FILE: u32 = 0o600;
const OTHERS_MAY_WRITE: u32 = 0o022;

/// A directory on a local file system.
///
/// Files in it are readable and writable by their owner only. What the superuser creates in another user's
/// directory belongs to that user.
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
    identity: Identity,
    owner: FileOwner,
    /// Whether this process held the lock at some time. Then it may mend modes and owners of files.
    is_writer: AtomicBool,
}

/// The weak places that an [`OsDisk`] may use, though they weaken the promises of annals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allow {
    shared_directory: bool,
    network_file_system: bool,
}

impl Allow {
    /// No weak place.
    #[must_use]
    pub fn nothing() -> Allow {
        Allow::default()
    }

    /// A directory that other users may write to. They can delete or replace the store's files; annals
    /// notices it but cannot prevent it.
    #[must_use]
    pub fn shared_directory(self) -> Allow {
        Allow { shared_directory: true, ..self }
    }

    /// A network file system. The server and the mount options decide whether a lock keeps out writers on
    /// other machines, and whether a sync reaches a disk.
    #[must_use]
    pub fn network_file_system(self) -> Allow {
        Allow { network_file_system: true, ..self }
    }
}

impl OsDisk {
    /// Opens a directory. If it is not there, creates it with access for its owner only.
    ///
    /// # Errors
    ///
    /// If it cannot be created or opened, if other users may write to it, or if it lies on a network file
    /// system.
    pub fn create(path: impl AsRef<Path>) -> io::Result<OsDisk> {
        OsDisk::create_allowing(path, Allow::nothing())
    }

    /// [`OsDisk::create`], in an allowed weak place as well.
    ///
    /// # Errors
    ///
    /// As [`OsDisk::create`], except for what is allowed. Also if the directory belongs to another user.
    pub fn create_allowing(path: impl AsRef<Path>, allow: Allow) -> io::Result<OsDisk> {
        create_directory(path.as_ref())?;
        OsDisk::open_allowing(path, allow)
    }

    /// Opens a directory that must be there.
    ///
    /// # Errors
    ///
    /// As [`OsDisk::create`].
    pub fn open(path: impl AsRef<Path>) -> io::Result<OsDisk> {
        OsDisk::open_allowing(path, Allow::nothing())
    }

    /// [`OsDisk::open`], in an allowed weak place as well.
    ///
    /// # Errors
    ///
    /// As [`OsDisk::create_allowing`].
    pub fn open_allowing(path: impl AsRef<Path>, allow: Allow) -> io::Result<OsDisk> {
        let path = path.as_ref().to_owned();
        let directory = calls::open(&path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let found = calls::status(&directory)?;
        let owner = found.owner;
        if owner.user != calls::user() && !calls::is_root() {
            let text = format!("{} belongs to user {}, not to us", path.display(), owner.user);
            return Err(UnsafePath::error(text));
        }
        if found.mode & OTHERS_MAY_WRITE != 0 && !allow.shared_directory {
            let mode = found.mode;
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
        let identity = found.identity;
        Ok(OsDisk { path, directory, identity, owner, is_writer: AtomicBool::new(false) })
    }

    /// The path of the directory, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a path is this directory or lies inside. The end of the path need not exist.
    pub(crate) fn is_around(&self, path: &Path) -> io::Result<bool> {
        let path = std::path::absolute(path)?;
        let there = path.ancestors().find_map(|ancestor| calls::canonical(ancestor).ok());
        let is_this = |ancestor: &Path| {
            calls::status_of_path(ancestor).is_ok_and(|found| found.identity == self.identity)
        };
        Ok(there.is_some_and(|there| there.ancestors().any(is_this)))
    }

    /// The directory that holds `path`, and the name there. It is opened at each call and without following
    /// links: a link may have replaced a subdirectory.
    fn place<'a>(&self, path: &'a str) -> io::Result<NameIn<'a>> {
        match path.rsplit_once('/') {
            Some((parent, name)) => Ok((self.subdirectory(parent)?, name)),
            None => Ok((self.directory.try_clone()?, path)),
        }
    }

    fn subdirectory(&self, path: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let open = |directory: BorrowedFd<'_>, name: &str| {
            calls::open_at(directory, name, flags).map_err(|error| match error {
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

    fn open_file(&self, path: &str, flags: OFlags) -> io::Result<(OwnedFd, Identity)> {
        let (directory, name) = self.place(path)?;
        // NONBLOCK has no effect on regular files. Without it a FIFO in the file's place would block this
        // thread.
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = match calls::open_at(directory, name, flags) {
            Ok(file) => file,
            Err(Errno::LOOP) => return Err(self.unsafe_because(path, "is a symbolic link")),
            Err(Errno::ISDIR | Errno::NXIO) => {
                return Err(self.unsafe_because(path, "is not a regular file"));
            }
            Err(error) => return Err(error.into()),
        };
        let identity = self.check(path, &file, flags.contains(OFlags::RDWR))?;
        Ok((file, identity))
    }

    fn check(&self, path: &str, file: &OwnedFd, writable: bool) -> io::Result<Identity> {
        let found = calls::status(file)?;
        if !found.is_file {
            return Err(self.unsafe_because(path, "is not a regular file"));
        }
        if found.owner.user != self.owner.user && found.owner.user != calls::user() {
            let user = found.owner.user;
            let owner = self.owner.user;
            let why =
                format!("belongs to user {user}, and its directory to user {owner}; chown it to {owner}");
            return Err(self.unsafe_because(path, &why));
        }
        // Backups may share sealed segments by hard links. A file that is written to must have one name.
        if writable && found.names > 1 {
            let why = "has a second name (hard link), through which it could be changed";
            return Err(self.unsafe_because(path, why));
        }
        let may_change = found.names == 1 && (writable || self.is_writer.load(Ordering::Relaxed));
        if may_change && found.mode != OWNER_FILE {
            calls::change_mode(file, OWNER_FILE)?;
        }
        if may_change {
            self.hand_over(path, file, found.owner)?;
        }
        Ok(found.identity)
    }

    /// Gives a file that the superuser created to the directory's owner, who could not open the store
    /// otherwise.
    fn hand_over(&self, path: &str, file: impl AsFd, owner: FileOwner) -> io::Result<()> {
        if owner.user == self.owner.user {
            return Ok(());
        }
        calls::change_owner(file, self.owner).map_err(|error| {
            let user = self.owner.user;
            let why = format!(
                "cannot be given to user {user}, who owns the directory ({error}); run annals as that user"
            );
            self.unsafe_because(path, &why)
        })
    }

    /// Gives access to a subdirectory to the owner only.
    fn keep_private(&self, path: &str, directory: &OwnedFd) -> io::Result<()> {
        calls::change_mode(directory, OWNER_DIRECTORY)?;
        if calls::user() == self.owner.user {
            return Ok(());
        }
        self.hand_over(path, directory, calls::status(directory)?.owner)
    }
}

impl Disk for OsDisk {
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let flags = match access {
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::RDWR,
            Access::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
        };
        let (file, identity) = self.open_file(path, flags)?;
        Ok(Box::new(OsFile { file, identity }))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let opened = self.subdirectory(directory)?;
        if !directory.is_empty() && self.is_writer.load(Ordering::Relaxed) {
            self.keep_private(directory, &opened)?;
        }
        Ok(calls::names(opened)?)
    }

    /// Opens the directory once, so that each name costs one system call.
    fn inspect(&self, directory: &str, names: &[String]) -> io::Result<Vec<io::Result<FileInfo>>> {
        let opened = self.subdirectory(directory)?;
        let look = |name: &String| {
            let found = calls::status_at(&opened, name)?;
            Ok(FileInfo { length: found.length, is_regular: found.is_file, identity: Some(found.identity) })
        };
        Ok(names.iter().map(look).collect())
    }

    fn create_directory(&self, directory: &str) -> io::Result<()> {
        let (parent, name) = self.place(directory)?;
        match calls::create_directory_at(parent, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        self.keep_private(directory, &self.subdirectory(directory)?)
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        Ok(calls::sync(self.subdirectory(directory)?)?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(calls::rename(&self.place(from)?, &self.place(to)?)?)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        Ok(calls::remove(&self.place(path)?)?)
    }

    /// Refuses a file of another user than this directory's owner, who could not read it.
    fn link(&self, source: &dyn Disk, from: &str, to: &str) -> io::Result<()> {
        let Some(source) = (source as &dyn Any).downcast_ref::<OsDisk>() else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let from = source.place(from)?;
        if calls::status_at(&from.0, from.1)?.owner.user != self.owner.user {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(calls::link(&from, &self.place(to)?)?)
    }

    fn lock(&self) -> io::Result<Lock> {
        let lock = self.own()?;
        if matches!(lock, Lock::Held(_)) {
            self.is_writer.store(true, Ordering::Relaxed);
        }
        Ok(lock)
    }

    fn is_locked(&self) -> io::Result<bool> {
        self.is_owned()
    }

    fn check_names(&self, names: &[(&str, Option<(u64, u64)>)]) -> io::Result<()> {
        self.check_held(names)
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(calls::free_bytes(&self.directory)?)
    }

    fn random(&self) -> io::Result<[u8; 32]> {
        random()
    }
}

/// The name of the network file system that a directory lies on.
#[cfg(target_os = "linux")]
fn network_file_system(directory: &OwnedFd) -> io::Result<Option<&'static str>> {
    Ok(network_name(calls::file_system(directory)?))
}

#[cfg(not(target_os = "linux"))]
fn network_file_system(_directory: &OwnedFd) -> io::Result<Option<&'static str>> {
    Ok(None)
}

/// The name of a network file system, by the magic numbers of statfs(2).
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

/// Creates the missing directories of a path durably, with access for their owner only under any umask. If
/// the name of a directory were lost, so would be the files that were synced in it. A directory that the
/// superuser creates belongs to the owner of the directory around it.
fn create_directory(path: &Path) -> io::Result<()> {
    let is_missing = |path: &&Path| {
        !path.as_os_str().is_empty()
            && calls::status_of_path(path)
                .err()
                .is_some_and(|error| matches!(error, Errno::NOENT | Errno::NOTDIR))
    };
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    for path in missing.into_iter().rev() {
        match calls::create_directory(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made?,
        }
        let made = calls::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)?;
        calls::change_mode(&made, OWNER_DIRECTORY)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = calls::open(parent.unwrap_or(Path::new(".")), OFlags::RDONLY | OFlags::DIRECTORY)?;
        let owner = calls::status(&parent)?.owner;
        if calls::is_root() && owner.user != calls::user() {
            calls::change_owner(&made, owner)?;
        }
        calls::sync(parent)?;
    }
    Ok(())
}

struct OsFile {
    file: OwnedFd,
    identity: Identity,
}

impl DiskFile for OsFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(calls::read_at(&self.file, buffer, offset)?)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        Ok(calls::write_at(&self.file, bytes, offset)?)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(calls::status(&self.file)?.length)
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        Ok(calls::set_length(&self.file, bytes)?)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(calls::sync_data(&self.file)?)
    }

    fn drop_cache(&self, offset: u64) -> io::Result<()> {
        Ok(calls::drop_cache(&self.file, offset)?)
    }

    fn write_out(&self, offset: u64, bytes: u64) {
        // To the system, no length means everything behind the offset.
        if let Some(bytes) = std::num::NonZero::new(bytes) {
            calls::write_out(&self.file, offset, bytes);
        }
    }

    fn identity(&self) -> Option<(u64, u64)> {
        Some(self.identity)
    }
}
