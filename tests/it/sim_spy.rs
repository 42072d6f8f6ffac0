//! A simulated disk that records every call and checks the rules. A test can run code at a certain call, as
//! another process would at that moment.
//!
//! Rules: a file whose sync failed is never synced again through the same handle. After [`Spy::freeze`], when
//! the store has reported that it is poisoned, nothing is changed.

use std::any::Any;
use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, ThreadId};
use std::time::Duration;

use annals::disk::{Access, Disk, DiskFile, Fault, FileInfo, Lock, SimDisk};

#[derive(Clone)]
pub(crate) struct Spy {
    disk: SimDisk,
    seen: Arc<(Mutex<Seen>, Condvar)>,
}

/// One operation, as [`SimDisk::operations`] counts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) what: What,
    pub(crate) path: String,
    /// Of the buffer that was read into or written from.
    pub(crate) bytes: usize,
    pub(crate) failed: Option<io::ErrorKind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Open,
    Create,
    List,
    Inspect,
    CreateDirectory,
    SyncDirectory,
    Rename,
    Remove,
    Read,
    Write,
    Length,
    SetLength,
    Sync,
    DropCache,
    Link,
    /// No operation of the disk, so never among the calls.
    Lock,
}

impl What {
    fn changes(self) -> bool {
        !matches!(self, What::Open | What::List | What::Inspect | What::Read | What::Length | What::Lock)
    }
}

#[derive(Default)]
struct Seen {
    calls: Vec<Call>,
    handles: usize,
    unsyncable: HashSet<usize>,
    is_frozen: bool,
    broken: Vec<String>,
    /// The next such call goes wrong.
    trap: Option<Trap>,
    /// From this call on there is so much room, and no more.
    full: Option<(usize, u64)>,
    interleaved: Option<(ThreadId, Interleaved)>,
}

type Trap = (What, &'static str, Fault);
type Interleaved = Box<dyn FnMut(What, &str) + Send>;

impl Spy {
    pub(crate) fn new(disk: SimDisk) -> Spy {
        Spy { disk, seen: Arc::default() }
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// Lets the next call of this kind on a path that begins so go wrong.
    pub(crate) fn trap(&self, what: What, path: &'static str, fault: Fault) {
        self.lock().trap = Some((what, path, fault));
    }

    /// Leaves `room` bytes free from the nth call on, counted from now.
    pub(crate) fn fill(&self, nth: usize, room: u64) {
        let mut seen = self.lock();
        seen.full = Some((seen.calls.len() + nth, room));
    }

    /// Nothing that was to go wrong does any more, and there is room.
    pub(crate) fn heal(&self) {
        let mut seen = self.lock();
        (seen.trap, seen.full) = (None, None);
        self.disk.heal();
        self.disk.set_capacity(None);
    }

    /// Runs `act` before each call of this thread. Calls that `act` makes do not run it.
    pub(crate) fn interleave(&self, act: impl FnMut(What, &str) + Send + 'static) {
        self.lock().interleaved = Some((thread::current().id(), Box::new(act)));
    }

    /// No more of that.
    pub(crate) fn alone(&self) {
        self.lock().interleaved = None;
    }

    /// Nothing may be changed from here on, until [`Spy::thaw`].
    pub(crate) fn freeze(&self) {
        self.lock().is_frozen = true;
    }

    /// Says whether it was frozen.
    pub(crate) fn thaw(&self) -> bool {
        std::mem::take(&mut self.lock().is_frozen)
    }

    /// Which rules were broken.
    pub(crate) fn broken(&self) -> Vec<String> {
        self.lock().broken.clone()
    }

    /// Waits until there was such a call; panics if there is none for ten seconds.
    pub(crate) fn wait_for(&self, is_it: impl Fn(&Call) -> bool) {
        let (seen, changed) = &*self.seen;
        let none_yet = |seen: &mut Seen| !seen.calls.iter().any(&is_it);
        let waited = changed.wait_timeout_while(seen.lock().unwrap(), Duration::from_secs(10), none_yet);
        assert!(!waited.unwrap().1.timed_out(), "nothing of the kind happened for 10 s");
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.0.lock().unwrap()
    }

    /// Runs the code that the test has set for the calls of this thread.
    fn interrupt(&self, what: What, path: &str) {
        let interleaved = self.lock().interleaved.take_if(|(own, _)| *own == thread::current().id());
        if let Some((own, mut act)) = interleaved {
            act(what, path);
            self.lock().interleaved = Some((own, act));
        }
    }

    fn call<T>(
        &self,
        what: What,
        path: &str,
        handle: Option<usize>,
        bytes: usize,
        perform: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        self.interrupt(what, path);
        {
            let mut seen = self.lock();
            if seen.full.is_some_and(|(from, _)| from <= seen.calls.len()) {
                let (_, room) = seen.full.take().unwrap();
                self.disk.set_capacity(Some(1 << 40));
                let used = (1 << 40) - self.disk.free_bytes().unwrap();
                self.disk.set_capacity(Some(used + room));
            }
            if let Some((_, _, fault)) = seen.trap.take_if(|trap| trap.0 == what && path.starts_with(trap.1))
            {
                self.disk.fail(0, fault);
            }
            // Index files are no part of the log, and written behind the writer's back.
            if seen.is_frozen && what.changes() && !path.contains(".idx") {
                seen.broken.push(format!("{what:?} of {path:?} by a poisoned store"));
            }
            if what == What::Sync && handle.is_some_and(|handle| seen.unsyncable.contains(&handle)) {
                seen.broken.push(format!("{path:?} is synced again after a sync of it failed"));
            }
        }
        let result = perform();
        let mut seen = self.lock();
        let failed = result.as_ref().err().map(io::Error::kind);
        if let (What::Sync, Some(_), Some(handle)) = (what, failed, handle) {
            seen.unsyncable.insert(handle);
        }
        seen.calls.push(Call { what, path: path.to_owned(), bytes, failed });
        self.seen.1.notify_all();
        result
    }
}

impl Disk for Spy {
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let what = if access == Access::CreateNew { What::Create } else { What::Open };
        let file = self.call(what, path, None, 0, || self.disk.open(path, access))?;
        let mut seen = self.lock();
        seen.handles += 1;
        Ok(Box::new(SpyFile { file, spy: self.clone(), path: path.to_owned(), handle: seen.handles }))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.call(What::List, directory, None, 0, || self.disk.list(directory))
    }

    fn inspect(&self, directory: &str, names: &[String]) -> io::Result<Vec<io::Result<FileInfo>>> {
        self.call(What::Inspect, directory, None, 0, || self.disk.inspect(directory, names))
    }

    fn create_directory(&self, directory: &str) -> io::Result<()> {
        self.call(What::CreateDirectory, directory, None, 0, || self.disk.create_directory(directory))
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        self.call(What::SyncDirectory, directory, None, 0, || self.disk.sync_directory(directory))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.call(What::Rename, to, None, 0, || self.disk.rename(from, to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.call(What::Remove, path, None, 0, || self.disk.remove(path))
    }

    fn link(&self, source: &dyn Disk, from: &str, to: &str) -> io::Result<()> {
        let source = (source as &dyn Any).downcast_ref::<Spy>().map_or(source, |spy| &spy.disk);
        self.call(What::Link, to, None, 0, || self.disk.link(source, from, to))
    }

    fn lock(&self) -> io::Result<Lock> {
        self.interrupt(What::Lock, "LOCK");
        self.disk.lock()
    }

    fn is_locked(&self) -> io::Result<bool> {
        self.disk.is_locked()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }

    fn random(&self) -> io::Result<[u8; 32]> {
        self.disk.random()
    }
}

struct SpyFile {
    file: Box<dyn DiskFile>,
    spy: Spy,
    path: String,
    handle: usize,
}

impl SpyFile {
    fn call<T>(&self, what: What, bytes: usize, perform: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.spy.call(what, &self.path, Some(self.handle), bytes, perform)
    }
}

impl DiskFile for SpyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.call(What::Read, buffer.len(), || self.file.read_at(buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let written = self.call(What::Write, bytes.len(), || self.file.write_at(bytes, offset));
        if let (Ok(0), Some(call)) = (&written, self.spy.lock().calls.last_mut()) {
            call.failed = Some(io::ErrorKind::WriteZero);
        }
        written
    }

    fn length(&self) -> io::Result<u64> {
        self.call(What::Length, 0, || self.file.length())
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.call(What::SetLength, 0, || self.file.set_length(bytes))
    }

    fn sync(&self) -> io::Result<()> {
        self.call(What::Sync, 0, || self.file.sync())
    }

    fn drop_cache(&self, offset: u64) -> io::Result<()> {
        self.call(What::DropCache, 0, || self.file.drop_cache(offset))
    }
}
