//! Threads that append, each to an entity of its own, and print the result of every append.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use annals::{Append, Appended, Error, Expected, Store, Version};

use crate::options::Options;
use crate::payload::{self, Event};
use crate::print;

/// How long a thread waits after a temporary refusal, such as a full disk.
const PAUSE: Duration = Duration::from_millis(10);

pub struct Load {
    store: Store,
    options: Options,
    /// Events that may still be appended.
    left: AtomicU64,
    acknowledged: AtomicU64,
    refused: AtomicU64,
    must_stop: AtomicBool,
}

impl Load {
    pub fn new(store: Store, options: Options) -> Load {
        Load {
            store,
            left: AtomicU64::new(options.count.unwrap_or(u64::MAX)),
            options,
            acknowledged: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            must_stop: AtomicBool::new(false),
        }
    }

    /// Appends until all events are acknowledged, too many appends are refused, or the reader of the lines is
    /// gone.
    pub fn run(&self) {
        std::thread::scope(|scope| {
            for thread in 0..self.options.threads {
                scope.spawn(move || self.append_in(thread));
            }
        });
    }

    pub fn summary(&self) -> String {
        let acknowledged = self.acknowledged.load(Relaxed);
        let refused = self.refused.load(Relaxed);
        format!("{acknowledged} events acknowledged, {refused} appends refused")
    }

    fn append_in(&self, thread: u32) {
        let entity = payload::entity(thread);
        while let Some(events) = self.take() {
            let appended = self.store.version(&entity).and_then(|at| self.append(thread, at, events));
            let is_heard = match &appended {
                Ok(receipt) => self.acknowledge(receipt),
                Err(error) => self.refuse(error, events),
            };
            if !is_heard {
                self.must_stop.store(true, Relaxed);
            }
            if appended.is_err_and(|error| error.is_retryable()) {
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// Takes the number of events for the next append; `None` if none are left.
    fn take(&self) -> Option<u64> {
        if self.must_stop.load(Relaxed) {
            return None;
        }
        let batch = u64::from(self.options.batch);
        let before = self.left.fetch_update(Relaxed, Relaxed, |left| Some(left.saturating_sub(batch)));
        before.ok().map(|left| left.min(batch)).filter(|events| *events > 0)
    }

    /// Expects the exact version: no other thread appends to this entity.
    fn append(&self, thread: u32, at: Version, events: u64) -> Result<Appended, Error> {
        let bytes = usize::try_from(self.options.payload_bytes).unwrap_or(usize::MAX);
        let append = Append::to(payload::entity(thread)).expect(Expected::Exact(at));
        (at.get() + 1..=at.get() + events)
            .fold(append, |append, version| append.event(&Event { thread, version, bytes }))
            .commit(&self.store)
    }

    fn acknowledge(&self, receipt: &Appended) -> bool {
        let first = receipt.first_position().get();
        let last = receipt.position().get();
        self.acknowledged.fetch_add(last - first + 1, Relaxed);
        let mut lines = String::new();
        for position in first..=last {
            let _ = writeln!(lines, "ack {position}");
        }
        print(&lines)
    }

    fn refuse(&self, error: &Error, events: u64) -> bool {
        self.left.fetch_add(events, Relaxed);
        if self.refused.fetch_add(1, Relaxed) + 1 >= self.options.errors {
            self.must_stop.store(true, Relaxed);
        }
        print(&format!("err {:?} {}\n", error.kind(), error.to_string().replace('\n', " ")))
    }
}
