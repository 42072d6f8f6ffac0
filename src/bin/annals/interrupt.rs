//! Ctrl-C, a request to end, a terminal that is gone: whatever must not break off is finished, the store is closed, and where to go on is said.
//!
//! A thread of its own waits for the signal, because the command itself may be waiting for input or for events.
//! Whoever does something that must be whole holds [`hold`] meanwhile.

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use annals::Store;
use parking_lot::{Condvar, Mutex, MutexGuard};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
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

/// Notified when what breaks off by itself has done so.
static BROKEN_OFF: Condvar = Condvar::new();

static ASKED: AtomicBool = AtomicBool::new(false);

/// A sync that hangs must not keep the command from ending: ending in the middle of one loses nothing either.
const PATIENCE: Duration = Duration::from_secs(2);

/// Nobody interrupts while this is held.
pub fn hold() -> MutexGuard<'static, Now> {
    NOW.lock()
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
    BROKEN_OFF.notify_all();
    loop {
        thread::park();
    }
}

/// Waits for signals from now on.
pub fn install() -> Result<(), Failure> {
    let failed = |error| Failure::system("cannot wait for signals", &error);
    // Where it is not known which are ignored, a terminal that goes ends the command as it always did.
    let ignored = ignored().unwrap_or(1 << (SIGHUP - 1));
    let heeded = [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    let mut signals = Signals::new(heeded).map_err(failed)?;
    let thread = thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            end(signal);
        }
    });
    thread.map(drop).map_err(failed)
}

/// The signals that whoever started the command wants it to ignore (`nohup`), as bits.
fn ignored() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let bits = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(bits.trim(), 16).ok()
}

fn end(signal: i32) {
    ASKED.store(true, Ordering::Relaxed);
    let deadline = Instant::now() + PATIENCE;
    // Held to the end, so that the command does nothing more meanwhile.
    let mut now = NOW.try_lock_until(deadline);
    let said = now.as_mut().and_then(|now| {
        BROKEN_OFF.wait_while_until(now, |now| now.breaks_off, deadline);
        // What fails here is met by the next opening, which recovers.
        let _ = now.store.take().map(Store::close);
        let _ = now.remove.take().map(fs::remove_dir_all);
        now.go_on.take()
    });
    say(said);
    std::process::exit(128 + signal);
}

fn say(go_on: Option<String>) {
    let go_on = go_on.map_or_else(String::new, |said| format!("; {}", annals::visible(&said)));
    // A bar may stand there.
    let clear = if std::io::stderr().is_terminal() { "\r\x1b[2K" } else { "" };
    // The terminal may be gone.
    let _ = writeln!(std::io::stderr(), "{clear}annals: interrupted{go_on}");
}
