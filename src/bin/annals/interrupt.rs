//! Ctrl-C: whatever must not break off is finished, the store is closed, and where to go on is said.
//!
//! A thread of its own waits for the signal, because the command itself may be waiting for input or for events.
//! Whoever does something that must be whole holds [`hold`] meanwhile.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use annals::Store;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::failure::Failure;

/// What to do when the command is interrupted now.
pub struct Now {
    /// Where to go on, in words.
    pub go_on: Option<String>,
    /// To be closed.
    pub store: Option<Store>,
    /// To be removed.
    pub remove: Option<PathBuf>,
}

static NOW: Mutex<Now> = Mutex::new(Now { go_on: None, store: None, remove: None });

/// A sync that hangs must not keep the command from ending: ending in the middle of one loses nothing either.
const PATIENCE: Duration = Duration::from_secs(2);

/// Nobody interrupts while this is held.
pub fn hold() -> MutexGuard<'static, Now> {
    NOW.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for signals from now on.
pub fn install() -> Result<(), Failure> {
    let failed = |error| Failure::system("cannot wait for signals", &error);
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let thread = thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            end(signal);
        }
    });
    thread.map(drop).map_err(failed)
}

fn end(signal: i32) {
    let deadline = Instant::now() + PATIENCE;
    let mut now = loop {
        match NOW.try_lock() {
            Ok(now) => break Some(now),
            Err(TryLockError::Poisoned(now)) => break Some(now.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(TryLockError::WouldBlock) => break None,
        }
    };
    let mut said = None;
    if let Some(now) = &mut now {
        said = now.go_on.take();
        // What fails here is met by the next opening, which recovers.
        let _ = now.store.take().map(Store::close);
        let _ = now.remove.take().map(std::fs::remove_dir_all);
    }
    let said = said.map_or_else(String::new, |said| format!("; {said}"));
    let _ = writeln!(std::io::stderr(), "annals: interrupted{said}");
    std::process::exit(128 + signal);
}
