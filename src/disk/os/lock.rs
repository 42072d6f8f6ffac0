//! Who may write to a directory, and whether that still means the store that it meant.
//!
//! Two locks, both `flock`. The **directory's** decides: its inode cannot be removed without the store, and only
//! would-be writers lock it. **LOCK's** is what readers ask for, holds the writer's process id for
//! people, and decides alone where a directory cannot be locked (some network file systems). Invariants:
//! - the directory is locked first and unlocked last;
//! - a lock is freed by an explicit call, because children share the open file: those that were forked, and those that
//!   have not begun their own program yet. A child never frees what its parent holds.
//!
//! Row: disk. SPEC.md 1.8. Tested by tests/it/ownership.rs.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::calls::{self, AsFd, Errno, Identity, Kind, OFlags, OwnedFd};
use super::{LOCK, OsDisk};
use crate::disk::{Holder, Lock};
use crate::types::to_u64;

/// How long readers that ask may keep the holder of the directory from LOCK. Each has it for microseconds.
const PATIENCE: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_micros(50);

/// What this process writes to. The kernel would let it lock a directory twice, once for each way it was opened.
static HELD: Mutex<BTreeMap<Identity, Claim>> = Mutex::new(BTreeMap::new());

struct Claim {
    /// A forked child has the table, and the open files, of its parent.
    process: u32,
    locks: Option<Locks>,
}

/// Freed in this order.
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
    /// `Ok(None)` if another open file has a lock that excludes this one.
    fn try_new(file: OwnedFd, kind: Kind) -> Result<Option<Locked>, Errno> {
        let is_taken = calls::try_lock(&file, kind)?;
        Ok(is_taken.then(|| Locked { file, process: std::process::id() }))
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        if std::process::id() == self.process {
            // It fails only for what is no open file; closing it frees the lock as well, later.
            let _ = calls::unlock(&self.file);
        }
    }
}

/// This process may write to the directory until this is dropped.
struct Ownership(Identity);

impl Ownership {
    /// `None` if this process writes there already.
    fn claim(identity: Identity) -> Option<Ownership> {
        let process = std::process::id();
        let mut held = HELD.lock();
        if held.get(&identity).is_some_and(|claim| claim.process == process) {
            return None;
        }
        let inherited = held.insert(identity, Claim { process, locks: None });
        drop(held);
        // Of the parent's locks this closes the child's copies: what a parent that was killed left is free then.
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
        // Before the claim goes, or another thread could still find the directory locked, by a stranger.
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
        let directory = match Locked::try_new(file, Kind::Exclusive) {
            Ok(Some(directory)) => Some(directory),
            Ok(None) => return Ok(Lock::HeldBy(self.holder())),
            // There are file systems where only files can be locked, or none.
            Err(_) => None,
        };
        let began = Instant::now();
        loop {
            let (file, identity) = self.open_file(LOCK, OFlags::RDWR | OFlags::CREATE)?;
            if let Some(lock) = Locked::try_new(file.try_clone()?, Kind::Exclusive)? {
                // The file may have been replaced between our open and our lock.
                if self.is_named(LOCK, identity)? {
                    // For people: a full disk must not keep the store from being opened.
                    let _ = write_process_id(&lock.file);
                    ownership.keep(Locks { _lock: lock, lock_identity: identity, _directory: directory });
                    return Ok(Lock::Held(Box::new(ownership)));
                }
            } else if !is_shared(&file)? {
                return Ok(Lock::HeldBy(named_in(&file)));
            }
            if began.elapsed() >= PATIENCE {
                return Ok(Lock::HeldBy(Holder::Unknown));
            }
            std::thread::sleep(RETRY);
        }
    }

    /// Who has LOCK, for a would-be writer who found the directory locked.
    fn holder(&self) -> Holder {
        let Ok((file, _)) = self.open_file(LOCK, OFlags::RDONLY) else { return Holder::Unknown };
        match is_shared(&file) {
            // The writer is about to take it, or has just freed it; or the file is not the one it took.
            Ok(true) => Holder::Unknown,
            Ok(false) | Err(_) => named_in(&file),
        }
    }

    /// Asks for LOCK, and holds it for that moment.
    pub(super) fn is_owned(&self) -> io::Result<bool> {
        match self.open_file(LOCK, OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            opened => Ok(!is_shared(&opened?.0)?),
        }
    }

    /// Whether the name means this file.
    fn is_named(&self, name: &str, identity: Identity) -> io::Result<bool> {
        match calls::about_at(&self.directory, name) {
            Ok(named) => Ok(named.identity == identity),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// That LOCK, where this process has it, and these names mean the files that they meant.
    pub(super) fn check_held(&self, names: &[(&str, Option<Identity>)]) -> io::Result<()> {
        let locked =
            HELD.lock().get(&self.identity).and_then(|claim| Some(claim.locks.as_ref()?.lock_identity));
        let lock = locked.map(|identity| (LOCK, Some(identity)));
        for (name, identity) in lock.iter().chain(names) {
            let what = match calls::identity_at(&self.directory, name) {
                Ok(named) if identity.is_none_or(|identity| identity == named) => continue,
                Ok(_) => format!("{name} was replaced by another file"),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => format!("{name} was removed or renamed"),
                // What cannot be looked at is no proof.
                Err(_) => continue,
            };
            let is_gone = calls::about(&self.directory).is_ok_and(|directory| directory.names == 0);
            let what = if is_gone { "the directory was removed".to_owned() } else { what };
            return Err(io::Error::new(io::ErrorKind::NotFound, what));
        }
        Ok(())
    }
}

/// Whether a reader could have the lock now. It is tried, and freed at once.
fn is_shared(file: &OwnedFd) -> io::Result<bool> {
    Ok(Locked::try_new(file.try_clone()?, Kind::Shared)?.is_some())
}

/// The process that LOCK names; half-written digits must not be an error.
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
        // This process would know, so the number was given again.
        Some(process) if process == std::process::id() => Holder::Unknown,
        Some(process) if calls::is_running(process) => Holder::Process(process),
        Some(process) => Holder::Gone(process),
        None => Holder::Unknown,
    }
}

/// Always as many bytes, so that nothing is cut off first: the file system takes longer for that than for all else that
/// opening does with the lock.
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
    if calls::about(&file)?.length > text_bytes {
        calls::set_length(&file, text_bytes)?;
    }
    Ok(())
}
