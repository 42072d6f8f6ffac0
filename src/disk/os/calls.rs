//! The system calls of [`OsDisk`](super::OsDisk): no other file of the crate makes one.
//!
//! Invariant: a call that a signal interrupts (`EINTR`) is made again, here and nowhere else. An interrupted
//! call has done nothing. So has a sync: it stopped waiting and reported no failure of the device. The next
//! sync waits for the same writes. Any other error of a sync is final, because the kernel reports it once and
//! then forgets it. Such a sync is never made again on the same open file. tests/it/tidy.rs keeps `std::fs`
//! and `rustix` in this file.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, FlockOperation};
use rustix::io::retry_on_intr as repeat;
use rustix::process::{Pid, test_kill_process};

pub(super) use rustix::fs::OFlags;
pub(super) use rustix::io::Errno;
pub(super) use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Device and inode: they distinguish a file from every other one.
pub(super) type Identity = (u64, u64);

/// What the system knows about a file.
#[derive(Clone, Copy)]
pub(super) struct FileStatus {
    pub(super) identity: Identity,
    pub(super) is_file: bool,
    /// Permission bits only.
    pub(super) mode: u32,
    pub(super) owner: FileOwner,
    pub(super) names: u64,
    pub(super) length: u64,
}

/// User and group, by their numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct FileOwner {
    pub(super) user: u32,
    pub(super) group: u32,
}

impl From<rustix::fs::Stat> for FileStatus {
    fn from(found: rustix::fs::Stat) -> FileStatus {
        const PERMISSIONS: u32 = 0o7777;
        FileStatus {
            identity: (found.st_dev, found.st_ino),
            is_file: FileType::from_raw_mode(found.st_mode) == FileType::RegularFile,
            mode: found.st_mode & PERMISSIONS,
            owner: FileOwner { user: found.st_uid, group: found.st_gid },
            #[allow(clippy::useless_conversion, reason = "the field is narrower on some machines")]
            names: found.st_nlink.into(),
            length: u64::try_from(found.st_size).unwrap_or(0),
        }
    }
}

pub(super) fn status(file: impl AsFd) -> rustix::io::Result<FileStatus> {
    repeat(|| rustix::fs::fstat(&file)).map(FileStatus::from)
}

/// The status of a name. A link is not followed.
pub(super) fn status_at(directory: impl AsFd, name: &str) -> rustix::io::Result<FileStatus> {
    repeat(|| rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)).map(FileStatus::from)
}

/// Which file a name means, and nothing else about the file. A link is not followed.
///
/// It must not ask for times. Linux (6.13 and later) gives a file whose times were asked for a new time at
/// its next write, which dirties the inode. When this call asked for times after each sync, a durable append
/// took 1.6 times as long.
#[cfg(target_os = "linux")]
pub(super) fn identity_at(directory: impl AsFd, name: &str) -> rustix::io::Result<Identity> {
    use rustix::fs::StatxFlags;
    let found = repeat(|| rustix::fs::statx(&directory, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::INO));
    match found {
        Ok(found) => Ok((rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino)),
        // Some sandboxes do not know statx.
        Err(Errno::NOSYS | Errno::PERM) => status_at(directory, name).map(|status| status.identity),
        Err(error) => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn identity_at(directory: impl AsFd, name: &str) -> rustix::io::Result<Identity> {
    status_at(directory, name).map(|status| status.identity)
}

/// The status of a path. Links are followed.
pub(super) fn status_of_path(path: &Path) -> rustix::io::Result<FileStatus> {
    repeat(|| rustix::fs::stat(path)).map(FileStatus::from)
}

pub(super) fn open(path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    repeat(|| rustix::fs::open(path, flags | OFlags::CLOEXEC, rustix::fs::Mode::empty()))
}

/// Opens a name in a directory. A new file gets access for its owner only.
pub(super) fn open_at(directory: impl AsFd, name: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    repeat(|| rustix::fs::openat(&directory, name, flags | OFlags::CLOEXEC, mode))
}

pub(super) fn create_directory(path: &Path) -> io::Result<()> {
    repeat_std(|| DirBuilder::new().mode(0o700).create(path))
}

pub(super) fn create_directory_at(directory: impl AsFd, name: &str) -> rustix::io::Result<()> {
    repeat(|| rustix::fs::mkdirat(&directory, name, rustix::fs::Mode::from_raw_mode(0o700)))
}

pub(super) fn change_mode(file: impl AsFd, mode: u32) -> rustix::io::Result<()> {
    repeat(|| rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(mode)))
}

pub(super) fn change_owner(file: impl AsFd, owner: FileOwner) -> rustix::io::Result<()> {
    let user = rustix::fs::Uid::from_raw(owner.user);
    let group = rustix::fs::Gid::from_raw(owner.group);
    repeat(|| rustix::fs::fchown(&file, Some(user), Some(group)))
}

/// A directory, and a name in it.
pub(super) type NameIn<'a> = (OwnedFd, &'a str);

pub(super) fn rename(from: &NameIn<'_>, to: &NameIn<'_>) -> rustix::io::Result<()> {
    repeat(|| rustix::fs::renameat(&from.0, from.1, &to.0, to.1))
}

pub(super) fn link(from: &NameIn<'_>, to: &NameIn<'_>) -> rustix::io::Result<()> {
    repeat(|| rustix::fs::linkat(&from.0, from.1, &to.0, to.1, AtFlags::empty()))
}

pub(super) fn remove(at: &NameIn<'_>) -> rustix::io::Result<()> {
    repeat(|| rustix::fs::unlinkat(&at.0, at.1, AtFlags::empty()))
}

/// The names in a directory.
#[cfg(target_os = "linux")]
pub(super) fn names(directory: impl AsFd) -> rustix::io::Result<Vec<String>> {
    const BUFFER_BYTES: usize = 32 << 10;
    // The open file holds the position of a listing, so a new one is opened to list from the beginning.
    let opened = open_at(directory, ".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    let mut entries = rustix::fs::RawDir::new(opened, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        match entry {
            Ok(entry) => names.push(entry.file_name().to_string_lossy().into_owned()),
            // The next call continues at the same entry.
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    names.retain(|name| name != "." && name != "..");
    Ok(names)
}

/// The names in a directory. After an interruption it begins again.
#[cfg(not(target_os = "linux"))]
pub(super) fn names(directory: impl AsFd) -> rustix::io::Result<Vec<String>> {
    repeat(|| {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&directory)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.retain(|name| name != "." && name != "..");
        Ok(names)
    })
}

pub(super) fn read_at(file: impl AsFd, buffer: &mut [u8], offset: u64) -> rustix::io::Result<usize> {
    repeat(|| rustix::io::pread(&file, &mut *buffer, offset))
}

pub(super) fn write_at(file: impl AsFd, bytes: &[u8], offset: u64) -> rustix::io::Result<usize> {
    repeat(|| rustix::io::pwrite(&file, bytes, offset))
}

pub(super) fn set_length(file: impl AsFd, bytes: u64) -> rustix::io::Result<()> {
    repeat(|| rustix::fs::ftruncate(&file, bytes))
}

/// Makes a file, or the names of a directory, durable.
pub(super) fn sync(file: impl AsFd) -> rustix::io::Result<()> {
    repeat(|| rustix::fs::fsync(&file))
}

/// Makes the bytes and the length of a file durable. Times and modes are left out.
#[cfg(target_os = "linux")]
pub(super) fn sync_data(file: impl AsFd) -> rustix::io::Result<()> {
    repeat(|| rustix::fs::fdatasync(&file))
}

/// Makes the bytes of a file durable. On some systems the plain call stops short of the medium; the standard
/// library makes the right one.
#[cfg(not(target_os = "linux"))]
pub(super) fn sync_data(file: impl AsFd) -> io::Result<()> {
    std::fs::File::from(file.as_fd().try_clone_to_owned()?).sync_data()
}

/// How to lock an open file.
#[derive(Clone, Copy)]
pub(super) enum LockKind {
    Exclusive,
    Shared,
}

/// Tries to lock a file without waiting, and says whether it did.
pub(super) fn try_lock(file: impl AsFd, kind: LockKind) -> rustix::io::Result<bool> {
    let operation = match kind {
        LockKind::Exclusive => FlockOperation::NonBlockingLockExclusive,
        LockKind::Shared => FlockOperation::NonBlockingLockShared,
    };
    match repeat(|| rustix::fs::flock(&file, operation)) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Frees the lock for every process that shares the open file.
pub(super) fn unlock(file: impl AsFd) -> rustix::io::Result<()> {
    repeat(|| rustix::fs::flock(&file, FlockOperation::Unlock))
}

#[cfg(target_os = "linux")]
pub(super) fn drop_cache(file: impl AsFd, offset: u64) -> rustix::io::Result<()> {
    use rustix::fs::Advice;
    // Linux keeps a large page that begins in front of the range. A page begins at a multiple of its size.
    // On x86-64 a page of a file has at most 2 MiB, and the page cache cannot hold one of more than 8 MiB.
    // Elsewhere the sizes differ, so all of the file is dropped.
    const PAGE_BYTES_MAX: u64 = if cfg!(target_arch = "x86_64") { 8 << 20 } else { u64::MAX };
    let from = offset - offset % PAGE_BYTES_MAX;
    repeat(|| rustix::fs::fadvise(&file, from, None, Advice::DontNeed))?;
    // Recovery reads the file next. The device begins to read ahead while the first part is checked.
    repeat(|| rustix::fs::fadvise(&file, offset, None, Advice::WillNeed))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn drop_cache(_file: impl AsFd, _offset: u64) -> rustix::io::Result<()> {
    Ok(())
}

/// Has Linux begin to write these bytes out: it does so before it drops them from the cache.
#[cfg(target_os = "linux")]
pub(super) fn write_out(file: impl AsFd, offset: u64, bytes: std::num::NonZero<u64>) {
    let _ = repeat(|| rustix::fs::fadvise(&file, offset, Some(bytes), rustix::fs::Advice::DontNeed));
}

#[cfg(not(target_os = "linux"))]
pub(super) fn write_out(_file: impl AsFd, _offset: u64, _bytes: std::num::NonZero<u64>) {}

pub(super) fn free_bytes(directory: impl AsFd) -> rustix::io::Result<u64> {
    let found = repeat(|| rustix::fs::fstatvfs(&directory))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// The number of the file system, by statfs(2).
#[cfg(target_os = "linux")]
pub(super) fn file_system(directory: impl AsFd) -> rustix::io::Result<u32> {
    // The field is wider on some machines, but the numbers are the same.
    let [a, b, c, d, ..] = repeat(|| rustix::fs::fstatfs(&directory))?.f_type.to_le_bytes();
    Ok(u32::from_le_bytes([a, b, c, d]))
}

/// The number of the user whose rights this process has.
pub(super) fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether this process runs as the superuser, who may give files to other users.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether a process of this number runs, as far as this process can see.
pub(super) fn is_running(process: u32) -> bool {
    let there = i32::try_from(process).ok().and_then(Pid::from_raw);
    there.is_some_and(|there| test_kill_process(there) != Err(Errno::SRCH)) && !is_zombie(process)
}

/// Whether a process has ended and waits for its parent. In proc(5) the state is the word behind the name.
fn is_zombie(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with(['Z', 'X']))
}

/// The number of this process's id namespace: each container numbers its processes anew. `None` if it is not
/// known.
pub(super) fn id_namespace() -> Option<u64> {
    status_of_path(Path::new("/proc/self/ns/pid")).ok().map(|status| status.identity.1)
}

/// The path with all links resolved.
pub(super) fn canonical(path: &Path) -> io::Result<PathBuf> {
    repeat_std(|| path.canonicalize())
}

/// Random bytes of the operating system.
pub(in crate::disk) fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    // getrandom repeats an interrupted call itself.
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// Repeats an interrupted call of the standard library.
fn repeat_std<T>(call: impl Fn() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
