//! The system calls of [`OsDisk`](super::OsDisk): no other file of the crate makes one.
//!
//! Invariant: a call that a signal interrupts (`EINTR`) is made again, here and nowhere else. An interrupted call has
//! done nothing. That holds for a sync as well: it stopped waiting and reported no failure of the device, so the next
//! one waits for the same writes. Any other error of a sync is final, because the kernel reports it once and then
//! forgets it: such a sync is never made again on the same open file.
//! Row: disk. tests/it/tidy.rs keeps `std::fs` and `rustix` in this file.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, FlockOperation};
use rustix::io::retry_on_intr as again;
use rustix::process::{Pid, test_kill_process};

pub(super) use rustix::fs::OFlags;
pub(super) use rustix::io::Errno;
pub(super) use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Device and inode: what tells a file from every other.
pub(super) type Identity = (u64, u64);

/// What the system says of a file.
#[derive(Clone, Copy)]
pub(super) struct About {
    pub(super) identity: Identity,
    pub(super) is_file: bool,
    /// Permission bits only.
    pub(super) mode: u32,
    pub(super) owner: Owner,
    pub(super) names: u64,
    pub(super) length: u64,
}

/// User and group, by their numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) user: u32,
    pub(super) group: u32,
}

impl From<rustix::fs::Stat> for About {
    fn from(found: rustix::fs::Stat) -> About {
        const PERMISSIONS: u32 = 0o7777;
        About {
            identity: (found.st_dev, found.st_ino),
            is_file: FileType::from_raw_mode(found.st_mode) == FileType::RegularFile,
            mode: found.st_mode & PERMISSIONS,
            owner: Owner { user: found.st_uid, group: found.st_gid },
            #[allow(clippy::useless_conversion, reason = "the field is narrower on some machines")]
            names: found.st_nlink.into(),
            length: u64::try_from(found.st_size).unwrap_or(0),
        }
    }
}

pub(super) fn about(file: impl AsFd) -> rustix::io::Result<About> {
    again(|| rustix::fs::fstat(&file)).map(About::from)
}

/// Of a name; a link is not followed.
pub(super) fn about_at(directory: impl AsFd, name: &str) -> rustix::io::Result<About> {
    again(|| rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)).map(About::from)
}

/// Which file a name means, and nothing else of the file; a link is not followed.
///
/// It must not ask for times. Linux (6.13 and later) gives a file whose times were asked for a new time at its
/// next write, and that dirties the inode: asked of the segment after each sync, a durable append took 1.6
/// times as long.
#[cfg(target_os = "linux")]
pub(super) fn identity_at(directory: impl AsFd, name: &str) -> rustix::io::Result<Identity> {
    use rustix::fs::StatxFlags;
    let found = again(|| rustix::fs::statx(&directory, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::INO));
    match found {
        Ok(found) => Ok((rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino)),
        // There are sandboxes that know no statx.
        Err(Errno::NOSYS | Errno::PERM) => about_at(directory, name).map(|about| about.identity),
        Err(error) => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn identity_at(directory: impl AsFd, name: &str) -> rustix::io::Result<Identity> {
    about_at(directory, name).map(|about| about.identity)
}

/// Of a path; links are followed.
pub(super) fn about_path(path: &Path) -> rustix::io::Result<About> {
    again(|| rustix::fs::stat(path)).map(About::from)
}

pub(super) fn open(path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    again(|| rustix::fs::open(path, flags | OFlags::CLOEXEC, rustix::fs::Mode::empty()))
}

/// What it creates is for its owner only.
pub(super) fn open_at(directory: impl AsFd, name: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    again(|| rustix::fs::openat(&directory, name, flags | OFlags::CLOEXEC, mode))
}

pub(super) fn create_directory(path: &Path) -> io::Result<()> {
    patiently(|| DirBuilder::new().mode(0o700).create(path))
}

pub(super) fn create_directory_at(directory: impl AsFd, name: &str) -> rustix::io::Result<()> {
    again(|| rustix::fs::mkdirat(&directory, name, rustix::fs::Mode::from_raw_mode(0o700)))
}

pub(super) fn change_mode(file: impl AsFd, mode: u32) -> rustix::io::Result<()> {
    again(|| rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(mode)))
}

pub(super) fn change_owner(file: impl AsFd, owner: Owner) -> rustix::io::Result<()> {
    let user = rustix::fs::Uid::from_raw(owner.user);
    let group = rustix::fs::Gid::from_raw(owner.group);
    again(|| rustix::fs::fchown(&file, Some(user), Some(group)))
}

/// A directory, and a name in it.
pub(super) type At<'a> = (OwnedFd, &'a str);

pub(super) fn rename(from: &At<'_>, to: &At<'_>) -> rustix::io::Result<()> {
    again(|| rustix::fs::renameat(&from.0, from.1, &to.0, to.1))
}

pub(super) fn link(from: &At<'_>, to: &At<'_>) -> rustix::io::Result<()> {
    again(|| rustix::fs::linkat(&from.0, from.1, &to.0, to.1, AtFlags::empty()))
}

pub(super) fn remove(at: &At<'_>) -> rustix::io::Result<()> {
    again(|| rustix::fs::unlinkat(&at.0, at.1, AtFlags::empty()))
}

/// The names in a directory.
#[cfg(target_os = "linux")]
pub(super) fn names(directory: impl AsFd) -> rustix::io::Result<Vec<String>> {
    const BUFFER_BYTES: usize = 32 << 10;
    // Where a listing stands is a matter of the open file, and this one is listed from its beginning.
    let opened = open_at(directory, ".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    let mut entries = rustix::fs::RawDir::new(opened, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        match entry {
            Ok(entry) => names.push(entry.file_name().to_string_lossy().into_owned()),
            // Asked again it goes on where it was.
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    names.retain(|name| name != "." && name != "..");
    Ok(names)
}

/// The names in a directory. Interrupted, it begins again.
#[cfg(not(target_os = "linux"))]
pub(super) fn names(directory: impl AsFd) -> rustix::io::Result<Vec<String>> {
    again(|| {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&directory)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.retain(|name| name != "." && name != "..");
        Ok(names)
    })
}

pub(super) fn read_at(file: impl AsFd, buffer: &mut [u8], offset: u64) -> rustix::io::Result<usize> {
    again(|| rustix::io::pread(&file, &mut *buffer, offset))
}

pub(super) fn write_at(file: impl AsFd, bytes: &[u8], offset: u64) -> rustix::io::Result<usize> {
    again(|| rustix::io::pwrite(&file, bytes, offset))
}

pub(super) fn set_length(file: impl AsFd, bytes: u64) -> rustix::io::Result<()> {
    again(|| rustix::fs::ftruncate(&file, bytes))
}

/// Everything, names of a directory included.
pub(super) fn sync(file: impl AsFd) -> rustix::io::Result<()> {
    again(|| rustix::fs::fsync(&file))
}

/// It leaves out times and modes, but nothing that is needed to read the data back.
#[cfg(target_os = "linux")]
pub(super) fn sync_data(file: impl AsFd) -> rustix::io::Result<()> {
    again(|| rustix::fs::fdatasync(&file))
}

/// Where the system's own call stops short of the medium, the standard library knows better.
#[cfg(not(target_os = "linux"))]
pub(super) fn sync_data(file: impl AsFd) -> io::Result<()> {
    std::fs::File::from(file.as_fd().try_clone_to_owned()?).sync_data()
}

/// How to lock an open file.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Exclusive,
    Shared,
}

/// Whether the lock was to be had at once.
pub(super) fn try_lock(file: impl AsFd, kind: Kind) -> rustix::io::Result<bool> {
    let operation = match kind {
        Kind::Exclusive => FlockOperation::NonBlockingLockExclusive,
        Kind::Shared => FlockOperation::NonBlockingLockShared,
    };
    match again(|| rustix::fs::flock(&file, operation)) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Frees the lock in every process that has the open file.
pub(super) fn unlock(file: impl AsFd) -> rustix::io::Result<()> {
    again(|| rustix::fs::flock(&file, FlockOperation::Unlock))
}

#[cfg(target_os = "linux")]
pub(super) fn drop_cache(file: impl AsFd, offset: u64) -> rustix::io::Result<()> {
    use rustix::fs::Advice;
    again(|| rustix::fs::fadvise(&file, offset, None, Advice::DontNeed))?;
    // It is read next, from the device; this has the device begin while the first part is looked at.
    again(|| rustix::fs::fadvise(&file, offset, None, Advice::WillNeed))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn drop_cache(_file: impl AsFd, _offset: u64) -> rustix::io::Result<()> {
    Ok(())
}

/// Linux begins to write out what it is to forget.
#[cfg(target_os = "linux")]
pub(super) fn write_out(file: impl AsFd, offset: u64, bytes: std::num::NonZero<u64>) {
    let _ = again(|| rustix::fs::fadvise(&file, offset, Some(bytes), rustix::fs::Advice::DontNeed));
}

#[cfg(not(target_os = "linux"))]
pub(super) fn write_out(_file: impl AsFd, _offset: u64, _bytes: std::num::NonZero<u64>) {}

pub(super) fn free_bytes(directory: impl AsFd) -> rustix::io::Result<u64> {
    let found = again(|| rustix::fs::fstatvfs(&directory))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// The number that statfs(2) knows the file system by.
#[cfg(target_os = "linux")]
pub(super) fn file_system(directory: impl AsFd) -> rustix::io::Result<u32> {
    // The field is wider on some machines; the numbers are the same.
    let [a, b, c, d, ..] = again(|| rustix::fs::fstatfs(&directory))?.f_type.to_le_bytes();
    Ok(u32::from_le_bytes([a, b, c, d]))
}

/// The user whose rights this process has.
pub(super) fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether that user is the superuser, who may give files to others.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether a process of this number runs, as far as can be seen from here.
pub(super) fn is_running(process: u32) -> bool {
    let there = i32::try_from(process).ok().and_then(Pid::from_raw);
    there.is_some_and(|there| test_kill_process(there) != Err(Errno::SRCH)) && !is_zombie(process)
}

/// One that has ended, and whose parent has not asked yet how. proc(5): the state is the word behind the name.
fn is_zombie(process: u32) -> bool {
    let about = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    about.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with(['Z', 'X']))
}

/// A number for what this process's id is a number in: containers count for themselves. `None` where it is not known.
pub(super) fn id_namespace() -> Option<u64> {
    about_path(Path::new("/proc/self/ns/pid")).ok().map(|about| about.identity.1)
}

/// A path without links.
pub(super) fn canonical(path: &Path) -> io::Result<PathBuf> {
    patiently(|| path.canonicalize())
}

/// Random bytes of the operating system.
pub(in crate::disk) fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    // An interruption is repeated there.
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// For calls of the standard library that do not repeat themselves.
fn patiently<T>(call: impl Fn() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
