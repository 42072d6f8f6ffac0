//! Decides who may write to a directory, and checks that its names still mean the files that they meant.
//!
//! There are two locks, both `flock`. The lock on the **directory** decides: its inode cannot be removed
//! without the store, and only writers try to lock it. The lock on the file **LOCK** is what readers ask for.
//! LOCK holds the writer's process id for people, and its lock decides alone where a directory cannot be
//! locked (some network file systems). Invariants:
//! - the directory is locked first and unlocked last;
//! - a lock is freed by an explicit call: forked children, and children that have not begun their own program
//!   yet, share the open file. A child never frees a lock of its parent.
//!
//! Tested by tests/it/ownership.rs.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::calls::{self, AsFd, Errno, Identity, LockKind, OFlags, OwnedFd};
use super::{LOCK, OsDisk};
use crate::disk::{Holder, Lock};
use crate::types::to_u64;

/// How long the holder of the directory waits for LOCK. A reader that asks holds LOCK for some microseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
const RETRY_INTERVAL: Duration = Duration::from_micros(50);

/// The directories that this process writes to. The kernel would let a process lock a directory twice, once
/// for each open file.
static HELD: Mutex<BTreeMap<Identity, Claim>> = Mutex::new(BTreeMap::new());

struct Claim {
    /// The process that made the claim. A forked child has the table and the open files of its parent.
    process: u32,
    locks: Option<Locks>,
}

/// The locks of a writer. They are freed in this order.
struct Locks {
    _lock: Locked,
    lock_identity: Identity,
    _directory: Option<Locked>,
}

/// An open file with a lock on it.
struct Locked {
    file: OwnedFd,
    process: u32,
}

impl Locked {
    /// Locks an open file; `Ok(None)` if another open file has a lock that excludes this one.
    fn try_new(file: OwnedFd, kind: LockKind) -> Result<Option<Locked>, Errno> {
        let is_taken = calls::try_lock(&file, kind)?;
        Ok(is_taken.then(|| Locked { file, process: std::process::id() }))
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        if std::process::id() == self.process {
            // This fails only if the file is not open. Closing it frees the lock as well, but only when the
            // last process that shares it has closed it.
            let _ = calls::unlock(&self.file);
        }
    }
}

/// The right of this process to write to a directory, until it is dropped.
struct Ownership(Identity);

impl Ownership {
    /// Claims a directory; `None` if this process writes there already.
    fn claim(identity: Identity) -> Option<Ownership> {
        let process = std::process::id();
        let mut held = HELD.lock();
        if held.get(&identity).is_some_and(|claim| claim.process == process) {
            return None;
        }
        let inherited = held.insert(identity, Claim { process, locks: None });
        drop(held);
        // In a forked child this closes the copies of the parent's locks. If the parent was killed, they are
        // free now.
        drop(inherited);
        Some(Ownership(identity))
    }

    fn keep(&self, locks: Locks) {
        if let Some(claim) = HELD.lock().get_mut(&self.0) {
            claim.locks = Some(locks);
        }
    }
}

impl Drop for Ownership {
    fn drop(&mut self) {
        let locks = HELD.lock().get_mut(&self.0).and_then(|claim| claim.locks.take());
        // Before the claim is removed: else another thread could claim the directory and find it locked.
        drop(locks);
        HELD.lock().remove(&self.0);
    }
}

impl OsDisk {
    pub(super) fn own(&self) -> io::Result<Lock> {
        let Some(ownership) = Ownership::claim(self.identity) else {
            return Ok(Lock::HeldBy(Holder::ThisProcess));
        };
        let file = calls::open_at(&self.directory, ".", OFlags::RDONLY | OFlags::DIRECTORY)?;
        let directory = match Locked::try_new(file, LockKind::Exclusive) {
            Ok(Some(directory)) => Some(directory),
            Ok(None) => return Ok(Lock::HeldBy(self.holder())),
            // On some file systems directories, or all files, cannot be locked.
            Err(_) => None,
        };
        let began = Instant::now();
        loop {
            let (file, identity) = self.open_file(LOCK, OFlags::RDWR | OFlags::CREATE)?;
            if let Some(lock) = Locked::try_new(file.try_clone()?, LockKind::Exclusive)? {
                // Another process may have replaced the file between the open and the lock.
                if self.is_named(LOCK, identity)? {
                    // The id is for people only: a full disk must not keep the store from being opened.
                    let _ = write_process_id(&lock.file);
                    ownership.keep(Locks { _lock: lock, lock_identity: identity, _directory: directory });
                    return Ok(Lock::Held(Box::new(ownership)));
                }
            } else if !is_shared(&file)? {
                return Ok(Lock::HeldBy(named_in(&file)));
            }
            if began.elapsed() >= LOCK_TIMEOUT {
                return Ok(Lock::HeldBy(Holder::Unknown));
            }
            std::thread::sleep(RETRY_INTERVAL);
        }
    }

    /// The holder of LOCK, for a writer that found the directory locked.
    fn holder(&self) -> Holder {
        let Ok((file, _)) = self.open_file(LOCK, OFlags::RDONLY) else { return Holder::Unknown };
        match is_shared(&file) {
            // The writer is about to lock it, or has just freed it, or has locked another file of this name.
            Ok(true) => Holder::Unknown,
            Ok(false) | Err(_) => named_in(&file),
        }
    }

    /// Whether a writer holds LOCK. It tries the lock and frees it at once.
    pub(super) fn is_owned(&self) -> io::Result<bool> {
        match self.open_file(LOCK, OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            opened => Ok(!is_shared(&opened?.0)?),
        }
    }

    /// Whether the name means this file.
    fn is_named(&self, name: &str, identity: Identity) -> io::Result<bool> {
        match calls::status_at(&self.directory, name) {
            Ok(named) => Ok(named.identity == identity),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Checks that LOCK, if this process holds it, and these names still mean the files that they meant.
    pub(super) fn check_held(&self, names: &[(&str, Option<Identity>)]) -> io::Result<()> {
        let locked =
            HELD.lock().get(&self.identity).and_then(|claim| Some(claim.locks.as_ref()?.lock_identity));
        let lock = locked.map(|identity| (LOCK, Some(identity)));
        for (name, identity) in lock.iter().chain(names) {
            let what = match calls::identity_at(&self.directory, name) {
                Ok(named) if identity.is_none_or(|identity| identity == named) => continue,
                Ok(_) => format!("{name} was replaced by another file"),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => format!("{name} was removed or renamed"),
                // A name that cannot be checked proves nothing.
                Err(_) => continue,
            };
            let is_gone = calls::status(&self.directory).is_ok_and(|directory| directory.names == 0);
            let what = if is_gone { "the directory was removed".to_owned() } else { what };
            return Err(io::Error::new(io::ErrorKind::NotFound, what));
        }
        Ok(())
    }
}

/// Whether a reader could lock the file now. It tries the lock and frees it at once.
fn is_shared(file: &OwnedFd) -> io::Result<bool> {
    Ok(Locked::try_new(file.try_clone()?, LockKind::Shared)?.is_some())
}

/// The process that LOCK names. Digits that are written only in part are no error.
fn named_in(file: &OwnedFd) -> Holder {
    let mut bytes = [0; 64];
    let read = calls::read_at(file, &mut bytes, 0).unwrap_or(0);
    let mut numbers = std::str::from_utf8(&bytes[..read]).unwrap_or_default().lines().map(str::trim);
    let process = numbers.next().and_then(|number| number.parse().ok());
    let namespace: Option<u64> = numbers.next().and_then(|number| number.parse().ok());
    match process {
        Some(process)
            if namespace.is_some_and(|other| calls::id_namespace().is_some_and(|own| own != other)) =>
        {
            Holder::InContainer(process)
        }
        // This process does not hold the lock, so the system has given the number of an ended process again.
        Some(process) if process == std::process::id() => Holder::Unknown,
        Some(process) if calls::is_running(process) => Holder::Process(process),
        Some(process) => Holder::Gone(process),
        None => Holder::Unknown,
    }
}

/// Writes the process id to LOCK, always with the same number of bytes, so that the file need not be
/// truncated first. Truncation takes longer than all other steps of locking.
fn write_process_id(file: impl AsFd) -> io::Result<()> {
    let namespace = calls::id_namespace().map_or_else(String::new, |namespace| namespace.to_string());
    let text = format!("{:<10}\n{namespace:<20}\n", std::process::id());
    let text_bytes = u64::try_from(text.len()).expect("32");
    let mut left = text.as_bytes();
    let mut offset = 0;
    while !left.is_empty() {
        let written = calls::write_at(&file, left, offset)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        left = &left[written..];
        offset += to_u64(written);
    }
    if calls::status(&file)?.length > text_bytes {
        calls::set_length(&file, text_bytes)?;
    }
    Ok(())
}
