//! Stops the command on Ctrl-C, SIGTERM and SIGHUP: waits for critical sections, closes the store, reports.
//!
//! A thread of its own waits for the signals, because the command may be waiting for input or for events. The
//! command holds a [`critical_section`] where it must not be stopped, and records its changes with [`note`].
//! [`crate::exit`] makes the message.

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

use crate::exit::{CommandEnd, Effect, report};
use crate::failure::Failure;
use crate::output::Format;

/// What the signal thread does when it stops the command.
pub struct StopPlan {
    /// What the command has changed.
    pub effect: Effect,
    /// The store to close.
    pub store: Option<Store>,
    /// The directory to remove.
    pub remove: Option<PathBuf>,
    /// Number of critical sections that are held.
    critical_sections: usize,
    /// The command polls for a stop, ends by itself, and has something to report then.
    polls: bool,
}

static PLAN: Mutex<StopPlan> = Mutex::new(StopPlan {
    effect: Effect {
        done: None,
        under_way: None,
        to_continue: None,
        lines: None,
        is_unsynced: false,
        has_created: false,
    },
    store: None,
    remove: None,
    critical_sections: 0,
    polls: false,
});

/// Notified when a critical section ends, and when a command that polls has ended.
static PLAN_CHANGED: Condvar = Condvar::new();

static IS_STOPPING: AtomicBool = AtomicBool::new(false);

/// How long the signal thread waits for the command. A sync that hangs must not keep the process from ending;
/// an exit in the middle of a sync loses nothing.
const GRACE: Duration = Duration::from_secs(2);

/// The command is not stopped until this is dropped.
pub struct CriticalSection(());

pub fn critical_section() -> CriticalSection {
    PLAN.lock().critical_sections += 1;
    CriticalSection(())
}

impl Drop for CriticalSection {
    fn drop(&mut self) {
        let mut plan = PLAN.lock();
        plan.critical_sections = plan.critical_sections.saturating_sub(1);
        PLAN_CHANGED.notify_all();
    }
}

/// Changes what the signal thread does, or reports.
pub fn note<T>(change: impl FnOnce(&mut StopPlan) -> T) -> T {
    change(&mut PLAN.lock())
}

/// Notes that the command has done everything it was asked for, as a sentence.
pub fn done(sentence: impl Into<String>) {
    note(|plan| {
        plan.effect.done = Some(sentence.into());
        plan.effect.under_way = None;
        plan.effect.to_continue = None;
    });
}

/// Notes how the operator continues if the command is stopped from now on.
pub fn to_continue(words: impl Into<String>) {
    note(|plan| plan.effect.to_continue = Some(words.into()));
}

/// Promises that the command calls [`poll`] from now on, ends when told to, and calls [`exit`].
pub fn will_poll() {
    note(|plan| plan.polls = true);
}

/// `Break` once a signal asks the command to stop.
pub fn poll() -> ControlFlow<()> {
    if IS_STOPPING.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Begins nothing more if the command is being stopped.
pub fn park_if_stopping() {
    if poll().is_break() {
        park();
    }
}

/// Leaves the end of the process to the signal thread.
fn park() -> ! {
    note(|plan| plan.polls = false);
    PLAN_CHANGED.notify_all();
    loop {
        thread::park();
    }
}

/// Ends the process of every command that no signal stops.
pub fn exit(end: CommandEnd, format: Format) -> ! {
    if poll().is_break() {
        park();
    }
    // Held until the process ends: otherwise the signal thread could report a second end.
    let mut plan = PLAN.lock();
    let report = report(end, std::mem::take(&mut plan.effect));
    report.print(format);
    std::process::exit(report.code.into())
}

/// Starts the thread that waits for signals.
pub fn install(format: Format) -> Result<(), Failure> {
    let failed = |error| Failure::system("cannot wait for signals", &error);
    // Where ignored signals are unknown, SIGHUP keeps its default: it ends the process.
    let ignored = ignored_signals().unwrap_or(1 << (SIGHUP - 1));
    let handled = [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    let mut signals = Signals::new(handled).map_err(failed)?;
    let thread = thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            stop(signal, format);
        }
    });
    thread.map(drop).map_err(failed)
}

/// The signals that the process was started to ignore (`nohup`), as bits; Linux only.
fn ignored_signals() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let bits = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(bits.trim(), 16).ok()
}

fn stop(signal: i32, format: Format) {
    IS_STOPPING.store(true, Ordering::Relaxed);
    let deadline = Instant::now() + GRACE;
    // Held until the process ends: otherwise the command could change something after the report.
    let mut plan = PLAN.lock();
    PLAN_CHANGED.wait_while_until(&mut plan, |plan| plan.critical_sections > 0 || plan.polls, deadline);
    if plan.critical_sections == 0 {
        // If this fails, the next opening recovers.
        let closed = plan.store.take().map(Store::close);
        plan.effect.is_unsynced &= !matches!(closed, Some(Ok(())));
        let _ = plan.remove.take().map(fs::remove_dir_all);
    }
    let report = report(CommandEnd::Stopped(signal), std::mem::take(&mut plan.effect));
    report.print(format);
    std::process::exit(report.code.into());
}
