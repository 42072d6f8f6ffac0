//! What no test from outside can time: the receiver empties the channel while the writer matches.

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::channel::{Inlet, Outlet, channel};
use super::{Notice, Notification, Step};
use crate::read::view::{ChainPosition, LogView};
use crate::types::{EventId, Position, Query};

fn ends() -> (Outlet, Inlet) {
    let (outlet, inlet) = channel(Query::all(), Arc::new(LogView::new(Vec::new(), ChainPosition::default(), 0)));
    inlet.shared.set_capacity(2);
    (outlet, inlet)
}

fn events(positions: &[u64]) -> Vec<Notification> {
    let event = |position: &u64| Notification {
        position: Position::from(*position),
        id: EventId::from_bytes([0; 16]),
        names: "esk".into(),
        ends: (1, 2),
    };
    positions.iter().map(event).collect()
}

fn lagged(missed: u64, resume_at: u64) -> Notice {
    Notice::Lagged { missed, resume_at: resume_at.into() }
}

fn soon(inlet: &mut Inlet) -> Option<Notice> {
    match inlet.wait(Some(Instant::now() + Duration::from_secs(20))) {
        Step::Notice(notice) => Some(notice),
        Step::Nothing | Step::Ended(_) => None,
    }
}

/// The channel was full when the writer looked, so nothing was made; when it sends, the channel is
/// empty and the receiver sleeps. It must not sleep over the loss.
#[test]
fn a_loss_into_an_empty_channel_is_told_at_once() {
    let (outlet, mut inlet) = ends();
    assert!(!outlet.send(None, 3, Position::from(5)));
    assert_eq!(soon(&mut inlet), Some(lagged(3, 4)));
    assert!(outlet.send(Some(events(&[8])), 1, Position::from(8)));
    assert_eq!(soon(&mut inlet), Some(Notice::Events(events(&[8]))));
    assert!(matches!(inlet.step(), Step::Nothing));
}

#[test]
fn a_loss_into_an_empty_channel_wakes_the_task() {
    struct Count(Mutex<u32>);
    impl Wake for Count {
        fn wake(self: Arc<Count>) {
            *self.0.lock() += 1;
        }
    }
    let (outlet, mut inlet) = ends();
    let count = Arc::new(Count(Mutex::new(0)));
    assert!(matches!(inlet.poll(&Waker::from(count.clone())), Step::Nothing));
    assert!(!outlet.send(None, 1, Position::from(1)));
    assert_eq!(*count.0.lock(), 1);
    assert_eq!(soon(&mut inlet), Some(lagged(1, 0)));
}

/// Losses before, between and behind what is sent, taken out after every step or at the end.
#[test]
fn a_loss_keeps_its_place() {
    for takes_at_once in [false, true] {
        let (outlet, mut inlet) = ends();
        let mut found = Vec::new();
        for (count, position) in [(1, 1), (2, 2), (1, 4), (1, 5), (9, 6), (1, 15)] {
            let positions: Vec<u64> = (position..position + count).collect();
            outlet.send(Some(events(&positions)), positions.len(), Position::from(position));
            while takes_at_once && let Step::Notice(notice) = inlet.step() {
                found.push(notice);
            }
        }
        while let Step::Notice(notice) = inlet.step() {
            found.push(notice);
        }
        let right = if takes_at_once {
            let groups: [&[u64]; 6] = [&[1], &[2, 3], &[4], &[5], &[6, 7, 8, 9, 10, 11, 12, 13, 14], &[15]];
            groups.map(|group| Notice::Events(events(group))).to_vec()
        } else {
            let (one, four) = (Notice::Events(events(&[1])), Notice::Events(events(&[4])));
            vec![one, lagged(2, 1), four, lagged(11, 4)]
        };
        assert_eq!(found, right);
    }
}
