//! What a store says of itself: counters, lags, where everything is, and metrics for those who collect them.

use annals::disk::MemDisk;
use annals::{Append, Durability, Position, Query, Raw, Store, WriterState};

use crate::support::{FOREVER, eventually, fill, is_child};

#[test]
fn the_disk_gets_what_stats_says() {
    let disk = MemDisk::new();
    let store = Store::on(disk.clone()).segment_bytes_max(4_000).open().unwrap();
    let before = store.stats();
    assert_eq!(
        (before.event_bytes, before.bytes_written, before.append_max),
        (0, 0, std::time::Duration::ZERO)
    );
    assert_eq!((before.write_amplification(), before.events_per_group()), (0.0, 0.0));
    for number in 0..400 {
        Append::to("a").event(&Raw("n", &"x".repeat(50))).event(&Raw("n", &number)).commit(&store).unwrap();
    }
    let after = store.stats();
    // A record: prefix 10, fixed 6, "a" and "n", salt 16, and the payload. Behind a header of 80 bytes each
    // body is a multiple of 8.
    let least = 400 * (2 * (10 + 6 + 2 + 16) + 50);
    assert!(after.event_bytes >= least && after.event_bytes.is_multiple_of(8), "{after:?}");
    // Frames, MARK at every sync, and the zeros ahead of each segment.
    let frames = after.event_bytes + 400 * 80;
    assert!(after.bytes_written >= frames + 400 * 128, "{after:?}");
    let zeros = 4_000 * after.segments as u64;
    let manifests = 200 * (after.segments * after.segments) as u64;
    assert!(after.bytes_written <= frames + 2 * 400 * 128 + zeros + manifests, "{after:?}");
    let ratio = after.bytes_written as f64 / after.event_bytes as f64;
    assert!((after.write_amplification() - ratio).abs() < 1e-9 && ratio > 1.0);
    assert!(after.append_p50 <= after.append_p99 && after.append_p99 <= after.append_max);
    assert!(after.append_p50 > std::time::Duration::ZERO);
}

#[test]
fn subscriptions_say_how_far_behind_they_are() {
    let store = Store::in_memory().unwrap();
    fill(&store, "a", 10);
    let mut slow = store.subscribe(Query::entity("a").kind_prefix("k"));
    let late = store.subscribe(Query::all()).after(Position::from(4));
    let lags = || {
        let lags = store.stats().subscription_lags.into_iter();
        lags.map(|lag| (lag.query, lag.position.get(), lag.behind)).collect::<Vec<_>>()
    };
    assert_eq!(lags(), [("entity a, kind k*".to_owned(), 0, 10), ("every event".to_owned(), 4, 6)]);
    let _ = slow.try_next().unwrap();
    fill(&store, "a", 2);
    assert_eq!(lags()[1].2, 8);
    while slow.try_next().unwrap().is_some() {}
    assert_eq!((lags()[0].1, lags()[0].2), (12, 0));
    drop(late);
    assert_eq!((lags().len(), store.stats().subscriptions), (1, 1));
}

#[test]
fn a_store_says_where_everything_is_and_why() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let buffered = Durability::Buffered { flush_every: FOREVER };
    let store = Store::builder(&path).segment_bytes_max(2_000).durability(buffered).open().unwrap();
    fill(&store, "a", 30);
    let count = |end: &str| {
        let files = std::fs::read_dir(path.join("segments")).unwrap();
        files.filter(|file| file.as_ref().unwrap().path().to_string_lossy().ends_with(end)).count()
    };
    eventually("the indexes are written", || count(".idx") + 1 == count(".seg") && count(".tmp") == 0);
    std::fs::write(path.join("notes.txt"), "a note").unwrap();
    let description = store.describe().unwrap();
    assert_eq!(description.place, path.display().to_string());
    assert_eq!((description.head.get(), description.writer), (30, WriterState::Here));
    let names: Vec<&str> = description.parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names, ["LOCK", "MANIFEST", "MARK", "segments", "segments/*.idx", "notes.txt"]);
    let segments = &description.parts[3];
    assert_eq!(segments.files, store.stats().segments);
    let on_disk: u64 = std::fs::read_dir(path.join("segments"))
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert_eq!(
        (description.parts[4].files, segments.bytes + description.parts[4].bytes),
        (count(".idx"), on_disk)
    );
    let text = description.to_string();
    for part in
        ["the only truth", "not of annals", "segment_bytes_max = 2000", "Buffered", &description.store_id]
    {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    store.close().unwrap();
    let reader = Store::open_read_only(&path).unwrap();
    assert_eq!(reader.describe().unwrap().writer, WriterState::Closed);
    assert!(!is_child());
}

/// With `cargo test --features metrics`.
#[cfg(feature = "metrics")]
mod metrics_facade {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use annals::{Raw, Store};
    use metrics::{
        Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString,
        Unit,
    };

    /// Adds everything up by name.
    #[derive(Clone, Default)]
    struct Sums(Arc<Mutex<BTreeMap<String, f64>>>);

    struct Sum(Sums, String);

    impl Sum {
        fn add(&self, value: f64) {
            *self.0.0.lock().unwrap().entry(self.1.clone()).or_default() += value;
        }
    }

    impl CounterFn for Sum {
        fn increment(&self, value: u64) {
            self.add(value as f64);
        }

        fn absolute(&self, _: u64) {}
    }

    impl HistogramFn for Sum {
        fn record(&self, _: f64) {
            assert!(self.1 != "annals_append_seconds", "a recorder that panics");
            self.add(1.0);
        }
    }

    impl Recorder for Sums {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            assert_eq!(key.labels().map(|label| label.key()).collect::<Vec<_>>(), ["store"]);
            Counter::from_arc(Arc::new(Sum(self.clone(), key.name().to_owned())))
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::from_arc(Arc::new(Sum(self.clone(), key.name().to_owned())))
        }
    }

    #[test]
    fn a_recorder_hears_of_every_group_and_may_panic() {
        let sums = Sums::default();
        let store = metrics::with_local_recorder(&sums, || Store::in_memory().unwrap());
        for number in 0..100 {
            store.append("a", &Raw("n", &number)).unwrap();
        }
        let stats = store.stats();
        store.close().unwrap();
        let sums = sums.0.lock().unwrap();
        assert_eq!(sums["annals_appends_total"], 100.0);
        assert_eq!(sums["annals_events_total"], 100.0);
        assert_eq!(sums["annals_event_bytes_total"], stats.event_bytes as f64);
        assert_eq!(sums["annals_sync_seconds"], stats.syncs as f64);
    }
}
