//! An open store without callers sleeps: none of its threads runs, so it costs no CPU.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use annals::{Query, Raw, Reaction, RecordedEvent, Store};

use crate::support::{FOREVER, in_child, is_child};

/// How long nothing may run.
const QUIET: Duration = Duration::from_millis(300);

/// How often each other thread of this process was put to sleep or made to wait, by its id and name.
fn switches() -> BTreeMap<(String, String), u64> {
    let own = fs::read_link("/proc/thread-self").unwrap();
    let of = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let field = |name: &str| Some(status.lines().find_map(|line| line.strip_prefix(name))?.trim());
        let counts = [field("voluntary_ctxt_switches:")?, field("nonvoluntary_ctxt_switches:")?];
        let id = task.file_name().into_string().unwrap();
        Some((
            (id, field("Name:")?.to_owned()),
            counts.iter().map(|count| count.parse::<u64>().unwrap()).sum(),
        ))
    };
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(Result::unwrap);
    tasks.filter(|task| Some(task.file_name().as_ref()) != own.file_name()).filter_map(of).collect()
}

/// Waits until no other thread of this process runs, and says which there are.
pub(crate) fn wait_until_nothing_runs() -> BTreeMap<(String, String), u64> {
    let began = Instant::now();
    let mut before = switches();
    loop {
        std::thread::sleep(QUIET);
        let now = switches();
        if now == before {
            return before;
        }
        assert!(began.elapsed() < FOREVER, "a thread runs though nothing happens: {before:?}, then {now:?}");
        before = now;
    }
}

#[test]
#[cfg(target_os = "linux")]
fn an_open_store_without_callers_runs_nothing() {
    if !is_child() {
        in_child("idle::an_open_store_without_callers_runs_nothing", "true");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let builder = Store::builder(directory.path().join("store"));
    let hourly = builder.compact_every(Duration::from_secs(3600), "hourly", |compaction| compaction.merge());
    let store = hourly.open().unwrap();
    let bill = |order: &RecordedEvent, reaction: &mut Reaction<'_>| {
        reaction.append("bill:1", &Raw("billed", &order.position().get()));
        Ok(())
    };
    let worker = store.react("billing", Query::all().kind("ordered"), bill).unwrap();
    let mut subscription = store.subscribe(Query::all());
    let follower = std::thread::Builder::new().name("follower".to_owned());
    let follower = follower.spawn(move || subscription.by_ref().map(Result::unwrap).count()).unwrap();
    let ordered = store.append("order:1", &Raw("ordered", &1)).unwrap();
    assert!(store.wait_for("billing", ordered.position(), FOREVER).unwrap());

    // What was begun is finished first: the follower reads, MARK is synced 100 ms after the last append.
    let before = wait_until_nothing_runs();
    let names: Vec<&str> = before.keys().map(|(_, name)| name.as_str()).collect();
    for thread in ["annals-writer", "billing", "follower"] {
        assert!(names.iter().any(|name| name.contains(thread)), "{thread} is not among {names:?}");
    }
    drop(worker.stop());
    store.close().unwrap();
    assert_eq!(follower.join().unwrap(), 2);
}
