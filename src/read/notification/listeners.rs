//! All who listen, and what the writer tells them of a group.
//!
//! Row: notification.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::Notification;
use super::channel::{Outlet, Shared};
use crate::event::{Ids, belongs_to, matches};
use crate::format::{Frame, records};
use crate::read::view::{Reach, View};
use crate::types::{Position, to_u64};

/// All who listen.
#[derive(Default)]
pub(crate) struct Listeners {
    count: AtomicUsize,
    outlets: Mutex<Outlets>,
}

#[derive(Default)]
struct Outlets {
    /// The writer takes a copy of the list, and holds no lock while it matches and sends.
    list: Arc<Vec<Arc<Outlet>>>,
    is_over: bool,
}

/// How many events were sent, and how many did not fit; counted once per listener.
#[derive(Clone, Copy, Default)]
pub(crate) struct Told {
    pub(crate) sent: u64,
    pub(crate) missed: u64,
}

impl Listeners {
    /// How many there are: what a group without any costs.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Adds one that hears of everything after the head of this moment. It counts before it looks at the
    /// head; the writer moves the head before it looks at the count. So a group is either told to it or
    /// stands before it.
    pub(super) fn add(&self, mut outlet: Outlet, view: &View) {
        let mut outlets = self.outlets.lock();
        if !outlets.is_over {
            self.count.store(outlets.list.len() + 1, Ordering::Relaxed);
            outlet.after = view.reaches(Reach::Published);
            Arc::make_mut(&mut outlets.list).push(Arc::new(outlet));
        }
    }

    pub(super) fn remove(&self, shared: &Arc<Shared>) {
        let mut outlets = self.outlets.lock();
        Arc::make_mut(&mut outlets.list).retain(|outlet| !Arc::ptr_eq(&outlet.shared, shared));
        self.count.store(outlets.list.len(), Ordering::Relaxed);
    }

    /// Nothing more comes. The view must know by now how the store ended.
    pub(crate) fn end(&self) {
        let mut outlets = self.outlets.lock();
        outlets.is_over = true;
        let list = std::mem::take(&mut outlets.list);
        self.count.store(0, Ordering::Relaxed);
        drop(outlets);
        let shared: Vec<Arc<Shared>> = list.iter().map(|outlet| outlet.shared.clone()).collect();
        // Receivers see the end by the writer's ends being gone.
        drop(list);
        shared.iter().for_each(|shared| shared.wake());
    }

    /// Sends every listener the events of a group that match its query. Each frame comes with the
    /// position of its first event.
    pub(crate) fn tell<'a>(&self, frames: impl Iterator<Item = (Position, Frame<'a>)>) -> Told {
        let list = self.outlets.lock().list.clone();
        let mut groups: Vec<Group<'_>> = list.iter().map(|outlet| Group::new(outlet)).collect();
        for (first, frame) in frames {
            let Frame { header, body } = frame;
            for (index, record) in (0..).zip(records(body, header.events())) {
                let record = record.expect("what was just encoded can be read");
                let belongs = |id| belongs_to(id, &record, || Ids::of_first(&frame, first));
                let mut made = None;
                for group in &mut groups {
                    let is_new = first > group.outlet.after;
                    if is_new && matches(&group.outlet.shared.query, &record, belongs) {
                        group.add(first.plus(u64::from(index)), || {
                            made.get_or_insert_with(|| Notification::new(&header, first, index, &record))
                                .clone()
                        });
                    }
                }
            }
        }
        groups.into_iter().fold(Told::default(), Group::send)
    }
}

/// What a group of appends has for one listener.
struct Group<'a> {
    outlet: &'a Outlet,
    /// `None` for a full channel: nothing is made for it.
    events: Option<Vec<Notification>>,
    count: usize,
    first: Position,
}

impl<'a> Group<'a> {
    fn new(outlet: &'a Outlet) -> Group<'a> {
        let events = (!outlet.is_full()).then(Vec::new);
        Group { outlet, events, count: 0, first: Position::START }
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

    fn send(told: Told, group: Group<'_>) -> Told {
        if group.count == 0 {
            return told;
        }
        let events = to_u64(group.count);
        if group.outlet.send(group.events, group.count, group.first) {
            Told { sent: told.sent + events, ..told }
        } else {
            Told { missed: told.missed + events, ..told }
        }
    }
}
