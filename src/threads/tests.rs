//! What the owners of threads rely on.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

const LATER: Duration = Duration::from_secs(3600);

#[test]
fn a_notification_is_kept_until_it_is_taken() {
    let signal = Arc::<Signal>::default();
    signal.waker().wake();
    assert!(signal.wait(None), "notified before it slept");
    assert!(!signal.wait(Some(Instant::now())), "taken only once");
    signal.stop();
    assert!(!signal.wait(None), "once stopped it does not sleep");
    assert!(signal.is_stopped());
}

#[test]
fn a_thread_is_told_from_others_and_does_not_wait_for_itself() {
    let thread = Arc::new(WorkerThread::new("own"));
    let own = thread.clone();
    let work =
        move || own.is_current() && own.join().is_none() && std::thread::current().name() == Some("own");
    thread.start(work).unwrap();
    assert!(!thread.is_current());
    assert!(thread.join().unwrap().unwrap(), "what the thread found of itself");
    assert!(thread.join().is_none() && thread.is_joined() && !thread.is_running());
    thread.start(|| panic!("started twice")).unwrap();
    assert!(thread.join().is_none());
}

#[test]
fn a_panic_is_passed_on_and_a_stopped_thread_is_not_started() {
    let thread = WorkerThread::<()>::new("panics");
    thread.start(|| panic!("on purpose")).unwrap();
    assert!(thread.join().unwrap().is_err());
    let stopped = WorkerThread::<()>::new("stopped");
    stopped.signal().stop();
    stopped.start(|| panic!("started after it was stopped")).unwrap();
    assert!(stopped.is_joined() && stopped.join().is_none());
}

/// Sends a number whenever it runs.
fn sends(sender: &Sender<u32>, number: u32) -> Job {
    let sender = sender.clone();
    once(move || sender.send(number).unwrap())
}

#[test]
fn jobs_run_when_they_are_due_and_one_that_panics_ends_nothing() {
    let background = BackgroundThread::new("jobs");
    let (sender, received) = channel();
    background.run_in(LATER, sends(&sender, 0));
    background.run_in(Duration::ZERO, once(|| panic!("on purpose")));
    let mut left = 3;
    let repeated = sender.clone();
    let countdown = move || {
        left -= 1;
        repeated.send(left).unwrap();
        (left > 0).then_some(Duration::ZERO)
    };
    background.run_in(Duration::ZERO, Box::new(countdown));
    assert_eq!(received.iter().take(3).collect::<Vec<_>>(), [2, 1, 0]);
    background.close();
    background.run_in(Duration::ZERO, sends(&sender, 9));
    drop(sender);
    // Disconnected: the job that was due later, and the one that came after closing, are dropped, and not run.
    assert_eq!(received.recv().ok(), None);
}

#[test]
fn closing_waits_for_the_job_at_work_but_not_on_its_own_thread() {
    let background = Arc::new(BackgroundThread::new("closed"));
    let own = background.clone();
    let (begun, begins): (Sender<()>, Receiver<()>) = channel();
    let (ended, ends) = channel();
    let work = move || {
        begun.send(()).unwrap();
        while own.go_on().is_continue() {
            std::thread::yield_now();
        }
        own.close();
        ended.send(()).unwrap();
    };
    background.run_in(Duration::ZERO, once(work));
    begins.recv().unwrap();
    background.close();
    assert!(ends.try_recv().is_ok(), "the job was not waited for");
}
