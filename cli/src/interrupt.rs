//! Ctrl-C, a request to end, a terminal that is gone: what must be whole is finished, the store is closed,
//! and [`crate::answer`] says what is in and how to go on.
//!
//! A thread of its own waits for the signal, because the command itself may be waiting for input or for
//! events. The command holds a [`whole`] where it must not be stopped, and notes what it has changed with
//! [`note`].

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use annals::Store;
use parking_lot::{Condvar, Mutex};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::answer::{Effect, Ending, answer};
use crate::failure::Failure;
use crate::output::Form;

/// What to do when the command is stopped now.
pub struct Now {
    /// What it has changed.
    pub effect: Effect,
    /// To be closed.
    pub store: Option<Store>,
    /// To be removed.
    pub remove: Option<PathBuf>,
    /// How many [`whole`] are held.
    whole: usize,
    /// The command breaks off by itself once it is asked to, and has something to tell then.
    breaks_off: bool,
}

static NOW: Mutex<Now> = Mutex::new(Now {
    effect: Effect {
        done: None,
        under_way: None,
        rest: None,
        lines: None,
        is_unsynced: false,
        has_created: false,
    },
    store: None,
    remove: None,
    whole: 0,
    breaks_off: false,
});

/// Notified when the last [`whole`] is gone, and when the command has broken off.
static CALM: Condvar = Condvar::new();

static ASKED: AtomicBool = AtomicBool::new(false);

/// A sync that hangs must not keep the command from ending: ending in the middle of one loses nothing either.
const PATIENCE: Duration = Duration::from_secs(2);

/// While it is held, the command is not stopped.
pub struct Whole(());

pub fn whole() -> Whole {
    NOW.lock().whole += 1;
    Whole(())
}

impl Drop for Whole {
    fn drop(&mut self) {
        let mut now = NOW.lock();
        now.whole = now.whole.saturating_sub(1);
        CALM.notify_all();
    }
}

/// Changes what is to be done, or said, when the command is stopped.
pub fn note<T>(change: impl FnOnce(&mut Now) -> T) -> T {
    change(&mut NOW.lock())
}

/// Notes that what the command was asked for is in, as a sentence, and complete.
pub fn done(sentence: impl Into<String>) {
    note(|now| {
        let effect = &mut now.effect;
        (effect.done, effect.under_way, effect.rest) = (Some(sentence.into()), None, None);
    });
}

/// Notes how to go on if the command is stopped from now on.
pub fn rest(words: impl Into<String>) {
    note(|now| now.effect.rest = Some(words.into()));
}

/// From now on the command breaks off by itself, as [`asked`] tells it to, and comes to its [`end`].
pub fn breaks_off() {
    note(|now| now.breaks_off = true);
}

/// Whether to break off.
pub fn asked() -> ControlFlow<()> {
    if ASKED.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Begins nothing more if the command is being stopped.
pub fn begin() {
    if asked().is_break() {
        leave();
    }
}

/// Leaves the rest to the thread that stops the command.
fn leave() -> ! {
    note(|now| now.breaks_off = false);
    CALM.notify_all();
    loop {
        thread::park();
    }
}

/// The end of every command that is not stopped.
pub fn end(ending: Ending, form: Form) -> ! {
    if asked().is_break() {
        leave();
    }
    // Held to the end, so that there is one answer.
    let mut now = NOW.lock();
    let answer = answer(ending, std::mem::take(&mut now.effect));
    answer.say(form);
    std::process::exit(answer.code.into())
}

/// Waits for signals from now on.
pub fn install(form: Form) -> Result<(), Failure> {
    let failed = |error| Failure::system("cannot wait for signals", &error);
    // Where it is not known which are ignored, a terminal that goes ends the command as it always did.
    let ignored = ignored().unwrap_or(1 << (SIGHUP - 1));
    let heeded = [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    let mut signals = Signals::new(heeded).map_err(failed)?;
    let thread = thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            stop(signal, form);
        }
    });
    thread.map(drop).map_err(failed)
}

/// The signals that the command was started to ignore (`nohup`), as bits.
fn ignored() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let bits = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(bits.trim(), 16).ok()
}

fn stop(signal: i32, form: Form) {
    ASKED.store(true, Ordering::Relaxed);
    let deadline = Instant::now() + PATIENCE;
    // Held to the end, so that the command does nothing more.
    let mut now = NOW.lock();
    CALM.wait_while_until(&mut now, |now| now.whole > 0 || now.breaks_off, deadline);
    if now.whole == 0 {
        // What fails here is met by the next opening, which recovers.
        let closed = now.store.take().map(Store::close);
        now.effect.is_unsynced &= !matches!(closed, Some(Ok(())));
        let _ = now.remove.take().map(fs::remove_dir_all);
    }
    let answer = answer(Ending::Stopped(signal), std::mem::take(&mut now.effect));
    answer.say(form);
    std::process::exit(answer.code.into());
}
