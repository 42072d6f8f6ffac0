//! What no test from outside can time: the receiver empties the channel while the writer matches.

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::channel::{ChannelReceiver, ChannelSender, ChannelStep, channel};
use super::{Notice, Notification};
use crate::read::view::{ChainPosition, LogView};
use crate::types::{Position, Query};

fn ends() -> (ChannelSender, ChannelReceiver) {
    let (sender, receiver) =
        channel(Query::all(), Arc::new(LogView::new(Vec::new(), ChainPosition::default(), 0)));
    receiver.core.set_capacity(2);
    (sender, receiver)
}

fn events(positions: &[u64]) -> Vec<Notification> {
    let event = |position: &u64| Notification::for_test(Position::from(*position));
    positions.iter().map(event).collect()
}

fn lagged(missed: u64, resume_at: u64) -> Notice {
    Notice::Lagged { missed, resume_at: resume_at.into() }
}

fn soon(receiver: &mut ChannelReceiver) -> Option<Notice> {
    match receiver.wait(Some(Instant::now() + Duration::from_secs(20))) {
        ChannelStep::Notice(notice) => Some(notice),
        ChannelStep::Empty | ChannelStep::Ended(_) => None,
    }
}

/// The channel was full when the writer looked, so nothing was made; when it sends, the channel is
/// empty and the receiver sleeps. It must not sleep over the loss.
#[test]
fn a_loss_into_an_empty_channel_is_told_at_once() {
    let (sender, mut receiver) = ends();
    assert!(!sender.send(None, 3, Position::from(5)));
    assert_eq!(soon(&mut receiver), Some(lagged(3, 4)));
    assert!(sender.send(Some(events(&[8])), 1, Position::from(8)));
    assert_eq!(soon(&mut receiver), Some(Notice::Events(events(&[8]))));
    assert!(matches!(receiver.step(), ChannelStep::Empty));
}

#[test]
fn a_loss_into_an_empty_channel_wakes_the_task() {
    struct Count(Mutex<u32>);
    impl Wake for Count {
        fn wake(self: Arc<Count>) {
            *self.0.lock() += 1;
        }
    }
    let (sender, mut receiver) = ends();
    let count = Arc::new(Count(Mutex::new(0)));
    assert!(matches!(receiver.poll(&Waker::from(count.clone())), ChannelStep::Empty));
    assert!(!sender.send(None, 1, Position::from(1)));
    assert_eq!(*count.0.lock(), 1);
    assert_eq!(soon(&mut receiver), Some(lagged(1, 0)));
}

/// Losses before, between and behind what is sent, taken out after every step or at the end.
#[test]
fn a_loss_keeps_its_place() {
    for takes_at_once in [false, true] {
        let (sender, mut receiver) = ends();
        let mut found = Vec::new();
        for (count, position) in [(1, 1), (2, 2), (1, 4), (1, 5), (9, 6), (1, 15)] {
            let positions: Vec<u64> = (position..position + count).collect();
            sender.send(Some(events(&positions)), positions.len(), Position::from(position));
            while takes_at_once && let ChannelStep::Notice(notice) = receiver.step() {
                found.push(notice);
            }
        }
        while let ChannelStep::Notice(notice) = receiver.step() {
            found.push(notice);
        }
        let right = if takes_at_once {
            let groups: [&[u64]; 6] = [&[1], &[2, 3], &[4], &[5], &[6, 7, 8, 9, 10, 11, 12, 13, 14], &[15]];
            groups.map(|group| Notice::Events(events(group))).to_vec()
        } else {
            let one = Notice::Events(events(&[1]));
            let four = Notice::Events(events(&[4]));
            vec![one, lagged(2, 1), four, lagged(11, 4)]
        };
        assert_eq!(found, right);
    }
}
