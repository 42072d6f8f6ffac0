//! The receivers of notifications, and the writer's call that notifies them of a group.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::channel::{ChannelCore, ChannelSender};
use super::notice::Notification;
use crate::event::{EventIds, belongs_to, matches};
use crate::format::{Frame, records};
use crate::read::view::LogView;
use crate::read::watch::Visibility;
use crate::types::{Position, to_u64};

/// The writer's ends of all channels.
#[derive(Default)]
pub(crate) struct Listeners {
    count: AtomicUsize,
    senders: Mutex<Senders>,
}

#[derive(Default)]
struct Senders {
    /// The writer takes a copy of the list, and holds no lock while it matches and sends.
    list: Arc<Vec<Arc<ChannelSender>>>,
    has_ended: bool,
}

/// The number of events sent and of events that did not fit, counted once per receiver.
#[derive(Clone, Copy, Default)]
pub(crate) struct NotifiedCounts {
    pub(crate) sent: u64,
    pub(crate) missed: u64,
}

impl Listeners {
    /// The number of receivers. A group without receivers costs this one load.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Adds a receiver of all events after the current head.
    pub(super) fn add(&self, mut sender: ChannelSender, view: &LogView) {
        let mut senders = self.senders.lock();
        if !senders.has_ended {
            // Before the look at the head. The writer moves the head before it reads the count, so a group is
            // either sent to this receiver or lies before `after`.
            self.count.store(senders.list.len() + 1, Ordering::Relaxed);
            sender.after = view.head_at(Visibility::Published);
            Arc::make_mut(&mut senders.list).push(Arc::new(sender));
        }
    }

    pub(super) fn remove(&self, core: &Arc<ChannelCore>) {
        let mut senders = self.senders.lock();
        Arc::make_mut(&mut senders.list).retain(|sender| !Arc::ptr_eq(&sender.core, core));
        self.count.store(senders.list.len(), Ordering::Relaxed);
    }

    /// Ends all channels. The view must have the close reason by now.
    pub(crate) fn end(&self) {
        let mut senders = self.senders.lock();
        senders.has_ended = true;
        let list = std::mem::take(&mut senders.list);
        self.count.store(0, Ordering::Relaxed);
        drop(senders);
        let core: Vec<Arc<ChannelCore>> = list.iter().map(|sender| sender.core.clone()).collect();
        // Before the wake-ups: a receiver sees the end because the writer's end is gone.
        drop(list);
        core.iter().for_each(|core| core.wake());
    }

    /// Sends the events of a group to every receiver whose query they match. Each frame comes with the
    /// position of its first event.
    pub(crate) fn notify<'a>(&self, frames: impl Iterator<Item = (Position, Frame<'a>)>) -> NotifiedCounts {
        let list = self.senders.lock().list.clone();
        let mut batches: Vec<ReceiverBatch<'_>> =
            list.iter().map(|sender| ReceiverBatch::new(sender)).collect();
        for (first, frame) in frames {
            let Frame { header, body } = frame;
            for (index, record) in (0..).zip(records(body, header.events())) {
                let record = record.expect("a record that was just encoded can be read");
                let belongs = |id| belongs_to(id, &record, || EventIds::of_first(&frame, first));
                let mut made = None;
                for batch in &mut batches {
                    let is_new = first > batch.sender.after;
                    if is_new && matches(&batch.sender.core.query, &record, belongs) {
                        batch.add(first.plus(u64::from(index)), || {
                            made.get_or_insert_with(|| Notification::new(&header, first, index, &record))
                                .clone()
                        });
                    }
                }
            }
        }
        batches.into_iter().fold(NotifiedCounts::default(), ReceiverBatch::send)
    }
}

/// The events of a group for one receiver.
struct ReceiverBatch<'a> {
    sender: &'a ChannelSender,
    /// `None` for a full channel: its notifications are counted and not made.
    events: Option<Vec<Notification>>,
    count: usize,
    first: Position,
}

impl<'a> ReceiverBatch<'a> {
    fn new(sender: &'a ChannelSender) -> ReceiverBatch<'a> {
        let events = (!sender.is_full()).then(Vec::new);
        ReceiverBatch { sender, events, count: 0, first: Position::START }
    }

    fn add(&mut self, position: Position, notification: impl FnOnce() -> Notification) {
        if self.count == 0 {
            self.first = position;
        }
        self.count += 1;
        if let Some(events) = &mut self.events {
            events.push(notification());
        }
    }

    fn send(counts: NotifiedCounts, batch: ReceiverBatch<'_>) -> NotifiedCounts {
        if batch.count == 0 {
            return counts;
        }
        let events = to_u64(batch.count);
        if batch.sender.send(batch.events, batch.count, batch.first) {
            NotifiedCounts { sent: counts.sent + events, ..counts }
        } else {
            NotifiedCounts { missed: counts.missed + events, ..counts }
        }
    }
}
