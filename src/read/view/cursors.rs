//! Who follows, and how far each has come; for people.
//!
//! Row: view.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::{Visibility, LogView};
use crate::types::{Position, SubscriptionLag};

/// The cursors of all subscriptions there are.
#[derive(Default)]
pub(super) struct SubscriptionCursors(Mutex<Vec<Weak<SubscriptionCursor>>>);

/// How far one has come, written by it and read by whoever asks.
pub(crate) struct SubscriptionCursor {
    query: String,
    position: AtomicU64,
}

impl SubscriptionCursor {
    pub(crate) fn set(&self, position: Position) {
        self.position.store(position.get(), Ordering::Relaxed);
    }
}

impl LogView {
    /// Adds a subscription; it is gone from the list once what this gives is dropped.
    pub(crate) fn add_follower(&self, query: String) -> Arc<SubscriptionCursor> {
        let cursor = Arc::new(SubscriptionCursor { query, position: AtomicU64::new(0) });
        let mut cursors = self.cursors.0.lock();
        cursors.retain(|known| known.strong_count() > 0);
        cursors.push(Arc::downgrade(&cursor));
        cursor
    }

    pub(crate) fn followers(&self) -> Vec<SubscriptionLag> {
        let head = self.head_at(Visibility::Published);
        let cursors = self.cursors.0.lock();
        let lag = |cursor: Arc<SubscriptionCursor>| {
            let position = Position::from(cursor.position.load(Ordering::Relaxed));
            let behind = head.get().saturating_sub(position.get());
            SubscriptionLag { query: cursor.query.clone(), position, behind }
        };
        cursors.iter().filter_map(|cursor| cursor.upgrade().map(lag)).collect()
    }
}
