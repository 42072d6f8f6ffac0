//! Ctrl-C: whatever must not break off is finished, the store is closed, and where to go on is said.
//!
//! A thread of its own waits for the signal, because the command itself may be waiting for input or for events.
//! Whoever does something that must be whole holds [`hold`] meanwhile.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
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
    /// It breaks off by itself once [`is_asked`] says so, and has something to tell then.
    pub breaks_off: bool,
}

static NOW: Mutex<Now> = Mutex::new(Now { go_on: None, store: None, remove: None, breaks_off: false });

static ASKED: AtomicBool = AtomicBool::new(false);

/// A sync that hangs must not keep the command from ending: ending in the middle of one loses nothing either.
const PATIENCE: Duration = Duration::from_secs(2);

/// Nobody interrupts while this is held.
pub fn hold() -> MutexGuard<'static, Now> {
    NOW.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the command was interrupted.
pub fn is_asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// It was asked, has broken off, and told what it had to tell.
pub fn broken_off(go_on: String) -> ! {
    let mut now = hold();
    (now.go_on, now.breaks_off) = (Some(go_on), false);
    drop(now);
    loop {
        thread::park();
    }
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
    ASKED.store(true, Ordering::Relaxed);
    let deadline = Instant::now() + PATIENCE;
    let mut now = loop {
        match NOW.try_lock() {
            Ok(now) if !now.breaks_off => break Some(now),
            Err(TryLockError::Poisoned(now)) => break Some(now.into_inner()),
            waiting if Instant::now() < deadline => {
                drop(waiting);
                thread::sleep(Duration::from_millis(5));
            }
            waiting => break waiting.ok(),
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
    // A bar may stand there.
    let clear = if std::io::stderr().is_terminal() { "\r\x1b[2K" } else { "" };
    let _ = writeln!(std::io::stderr(), "{clear}annals: interrupted{said}");
    std::process::exit(128 + signal);
}
