//! Appends in flight on one thread: submitted ahead, waited for in order.

use std::collections::VecDeque;
use std::time::Instant;

use annals::{Append, Error, Store, Ticket};

use super::latency::Latency;

/// How many appends are in flight at most.
pub const WINDOW: usize = 10_000;
/// How long the queue to the writer must be for that not to block.
pub const QUEUE_COMMANDS_MAX: usize = 65_536;

/// Tickets, oldest first, with the time each was submitted.
pub struct Flight<'a> {
    store: &'a Store,
    tickets: VecDeque<(Instant, Ticket)>,
    latency: Latency,
}

impl<'a> Flight<'a> {
    pub fn new(store: &'a Store) -> Flight<'a> {
        Flight { store, tickets: VecDeque::with_capacity(WINDOW), latency: Latency::new() }
    }

    /// Submits an append; with a full window, waits for the oldest one first. Gives the time of
    /// submission: one look at the clock serves both as that and as the end of the wait.
    pub fn submit(&mut self, append: Append) -> Result<Instant, Error> {
        let oldest = if self.tickets.len() == WINDOW { self.tickets.pop_front() } else { None };
        let settled = oldest.map(settle).transpose()?;
        let now = Instant::now();
        if let Some(began) = settled {
            self.latency.record(now - began);
        }
        self.tickets.push_back((now, append.submit(self.store)?));
        Ok(now)
    }

    /// Waits for everything. Times count from submission to the end of the wait. They include the time that
    /// an acknowledged append waits behind older ones in the window.
    pub fn land(mut self) -> Result<Latency, Error> {
        while let Some(oldest) = self.tickets.pop_front() {
            let began = settle(oldest)?;
            self.latency.record(began.elapsed());
        }
        Ok(self.latency)
    }
}

fn settle((began, ticket): (Instant, Ticket)) -> Result<Instant, Error> {
    ticket.wait().map(|_| began)
}
