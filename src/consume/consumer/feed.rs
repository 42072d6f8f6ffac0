//! The events a consumer has not handled yet, for whoever can also be called away from waiting for them.
//!
//! Only what is durable comes. Row: app.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::event::RecordedEvent;
use crate::read::Subscription;
use crate::store::{RunnerState, Store, WeakStore};
use crate::types::{Error, Position, Query};

pub(crate) struct Feed {
    store: WeakStore,
    query: Query,
    subscription: Subscription,
    /// Rings the runner's bell.
    waker: Waker,
}

impl Feed {
    pub(crate) fn new(store: &Store, query: Query, after: Position, live: &Arc<RunnerState>) -> Feed {
        let subscription = store.subscribe(query.clone()).durable().after(after).allow_beyond_head();
        Feed { store: store.downgrade(), query, subscription, waker: Waker::from(live.clone()) }
    }

    /// The next event; `None` if there is none now, and then the bell rings when there is, or the store has ended.
    ///
    /// `Closed` and `Poisoned` come once everything was handed out.
    pub(crate) fn next(&mut self) -> Result<Option<RecordedEvent>, Error> {
        match self.subscription.poll_next(&mut Context::from_waker(&self.waker)) {
            Poll::Pending => Ok(None),
            Poll::Ready(Some(Ok(event))) => Ok(Some(event)),
            Poll::Ready(Some(Err(error))) => {
                // A subscription that gave an error gives nothing any more.
                self.go_to(self.position());
                Err(error)
            }
            Poll::Ready(None) => Err(Error::closed()),
        }
    }

    /// Everything that matches up to here was handed out.
    pub(crate) fn position(&self) -> Position {
        self.subscription.position()
    }

    /// Goes on with the first event after a position.
    pub(crate) fn go_to(&mut self, position: Position) {
        // Without a store there are no events either way.
        if let Some(store) = self.store.upgrade() {
            self.subscription =
                store.subscribe(self.query.clone()).durable().after(position).allow_beyond_head();
        }
    }
}
