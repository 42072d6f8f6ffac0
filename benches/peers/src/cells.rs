//! What is measured. Each cell makes its own store, and checks what it computes.

use std::cell::Cell as Counter;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::measure::{Failure, Unit, each, repeated, timed};
use crate::ours::Annals;
use crate::peer::{Opening, Pace, Peer};
use crate::theirs::Batpak;

/// Entities that are loaded at random.
const ENTITIES: u64 = 1_000;
/// Single appends, and reactions, that are timed one by one.
const SINGLES: u32 = 500;

/// Events that wait for a reactor. Fewer than batpak keeps for a slow subscriber (8,192).
const BACKLOG: u64 = 2_000;

/// Where to measure, and how much.
pub struct Bench {
    pub directory: PathBuf,
    pub events: u64,
    pub stores: Counter<u32>,
}

/// A value, and how long it took.
type Timed<T> = Result<(T, Duration), Failure>;
type Measure = fn(&Bench) -> Result<f64, Failure>;

/// One line of the table.
pub struct Cell {
    pub name: &'static str,
    pub unit: Unit,
    pub ours: Measure,
    pub theirs: Option<Measure>,
    /// What has to be known to read it.
    pub note: &'static str,
}

macro_rules! cell {
    ($name:literal, $unit:ident, $function:ident, $note:literal) => {
        Cell {
            name: $name,
            unit: Unit::$unit,
            ours: $function::<Annals>,
            theirs: Some($function::<Batpak>),
            note: $note,
        }
    };
}

pub fn all() -> Vec<Cell> {
    vec![
        cell!("rebuild, cold", Seconds, rebuild, "all events of one entity, folded from the log, no cache"),
        cell!(
            "load, unchanged",
            Seconds,
            unchanged,
            "the same entity; annals has the state in memory, batpak in a file"
        ),
        cell!(
            "load, one more event",
            Seconds,
            one_more,
            "the append is not counted, and did not wait for a sync"
        ),
        cell!(
            "the same, after a sync",
            Seconds,
            one_more_synced,
            "waiting for the disk leaves the processor's caches cold"
        ),
        cell!(
            "reopened: first load",
            Seconds,
            first,
            "from the cache on disk; annals opens its file only then"
        ),
        cell!(
            "reopened: next first load",
            Seconds,
            next,
            "of an entity not loaded yet, after another one was"
        ),
        cell!("reopen and load", Seconds, reopen, "opening the store, too; its last close was clean"),
        cell!("load, random entity", Seconds, random, "among 1,000, unchanged, loaded before"),
        cell!(
            "append, durable",
            Seconds,
            append_synced,
            "both: fdatasync before the acknowledgement; batpak with a gate and a sync after each event"
        ),
        cell!(
            "append, before the sync",
            Seconds,
            append_buffered,
            "a power cut takes the last 100 ms (annals), the last 1,000 events (batpak)"
        ),
        cell!(
            "append, each one's default",
            Seconds,
            append_default,
            "NOT the same promise: annals durable, batpak before the sync"
        ),
        cell!(
            "deposit to reaction",
            Seconds,
            call_to_reaction,
            "from the call of append until the reaction is seen; both events are durable by then, in both"
        ),
        cell!(
            "acknowledged to reaction",
            Seconds,
            acknowledged_to_reaction,
            "the same without the append: annals' has waited for its sync by then, batpak's has not"
        ),
        cell!(
            "reactions",
            PerSecond,
            reactions,
            "of a backlog, by default; annals: each exactly once, with its checkpoint one durable append; batpak: at least once, each a durable batch, the checkpoint a synced file every 64 events"
        ),
        Cell {
            name: "reactions, 64 in flight",
            unit: Unit::PerSecond,
            ours: reactions_in_flight::<Annals>,
            theirs: None,
            note: "annals: in_flight_max(64), exactly once as before; batpak has no such option",
        },
    ]
}

fn rebuild<P: Peer>(bench: &Bench) -> Result<f64, Failure> {
    bench.with_store(Opening::Uncached, |store: &P| {
        store.fill("account:1", bench.events)?;
        each(5, || {
            let (balance, time) = timed(|| store.balance("account:1"))?;
            same(balance, sum(bench.events))?;
            Ok(time)
        })
    })
}

fn unchanged<P: Peer>(bench: &Bench) -> Result<f64, Failure> {
    bench.with_store(Opening::Cached, |store: &P| {
        store.fill("account:1", bench.events)?;
        store.balance("account:1")?;
        repeated(|| same(store.balance("account:1")?, sum(bench.events)))
    })
}

fn one_more<P: Peer>(bench: &Bench) -> Result<f64, Failure> {
    after_an_append::<P>(bench, Opening::CachedBuffered)
}

fn one_more_synced<P: Peer>(bench: &Bench) -> Result<f64, Failure> {
    after_an_append::<P>(bench, Opening::Cached)
}

fn after_an_append<P: Peer>(bench: &Bench, opening: Opening) -> Result<f64, Failure> {
    bench.with_store(opening, |store: &P| {
        store.fill("account:1", bench.events)?;
        let mut expected = store.balance("account:1")?;
        each(SINGLES, || {
            store.deposit("account:1", 7)?;
            expected += 7;
            let (balance, time) = timed(|| store.balance("account:1"))?;
            same(balance, expected)?;
            Ok(time)
        })
    })
}

fn first<P: Peer>(bench: &Bench) -> Result<f64, Failure> {
    reopened::<P>(bench, |store, _| timed(|| store.balance("account:1")))
}

fn next<P: Peer>(bench: &Bench) -> Result<f64, Failure> {
    reopened::<P>(bench, |store, _| {
        store.balance("account:2")?;
        timed(|| store.balance("account:1"))
    })
}

fn reopen<P: Peer>(bench: &Bench) -> Result<f64, Failure> {
    reopened::<P>(bench, |store, open| {
        let (balance, load) = timed(|| store.balance("account:1"))?;
        Ok((balance, open + load))
    })
}

/// Has `load` load account 1 from the cache on disk, of a store that took the given time to open.
fn reopened<P: Peer>(bench: &Bench, load: fn(&P, Duration) -> Timed<u64>) -> Result<f64, Failure> {
    bench.in_directory(|directory| {
        let store = P::open(directory, Opening::Cached)?;
        for account in ["account:1", "account:2"] {
            store.fill(account, bench.events)?;
            store.balance(account)?;
        }
        store.close()?;
        each(10, || {
            let (store, open) = timed(|| P::open(directory, Opening::Cached))?;
            let (balance, time) = load(&store, open)?;
            same(balance, sum(bench.events))?;
            store.close()?;
            Ok(time)
        })
    })
}

fn random<P: Peer>(bench: &Bench) -> Result<f64, Failure> {
    bench.with_store(Opening::Cached, |store: &P| {
        let accounts: Vec<String> = (0..ENTITIES).map(|account| format!("account:{account}")).collect();
        let events = bench.events.div_ceil(ENTITIES);
        for account in &accounts {
            store.fill(account, events)?;
            store.balance(account)?;
        }
        let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
        repeated(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let account = &accounts[usize::try_from(state % ENTITIES)?];
            same(store.balance(account)?, sum(events))
        })
    })
}

fn append_synced<P: Peer>(bench: &Bench) -> Result<f64, Failure> {
    append::<P>(bench, Opening::Synced)
}

fn append_buffered<P: Peer>(bench: &Bench) -> Result<f64, Failure> {
    append::<P>(bench, Opening::Buffered)
}

fn append_default<P: Peer>(bench: &Bench) -> Result<f64, Failure> {
    append::<P>(bench, P::DEFAULT)
}

fn append<P: Peer>(bench: &Bench, opening: Opening) -> Result<f64, Failure> {
    bench.with_store(opening, |store: &P| each(SINGLES, || Ok(timed(|| store.deposit("account:1", 7))?.1)))
}

fn call_to_reaction<P: Peer>(bench: &Bench) -> Result<f64, Failure> {
    latency::<P>(bench, |called, _| called.elapsed())
}

fn acknowledged_to_reaction<P: Peer>(bench: &Bench) -> Result<f64, Failure> {
    latency::<P>(bench, |_, acknowledged| acknowledged.elapsed())
}

fn latency<P: Peer>(bench: &Bench, figure: fn(Instant, Instant) -> Duration) -> Result<f64, Failure> {
    bench.with_store(P::DEFAULT, |store: &P| {
        let mut seen = store.audits();
        let reactor = store.react(Pace::Default)?;
        let latency = each(SINGLES, || {
            let called = Instant::now();
            store.deposit("account:1", 7)?;
            let acknowledged = Instant::now();
            seen()?;
            Ok(figure(called, acknowledged))
        });
        P::stop(reactor)?;
        latency
    })
}

fn reactions<P: Peer>(bench: &Bench) -> Result<f64, Failure> {
    rate::<P>(bench, Pace::Default)
}

fn reactions_in_flight<P: Peer>(bench: &Bench) -> Result<f64, Failure> {
    rate::<P>(bench, Pace::InFlight(64))
}

fn rate<P: Peer>(bench: &Bench, pace: Pace) -> Result<f64, Failure> {
    bench.with_store(P::DEFAULT, |store: &P| {
        store.fill("account:1", BACKLOG)?;
        let mut seen = store.audits();
        let began = Instant::now();
        let reactor = store.react(pace)?;
        for _ in 0..BACKLOG {
            seen()?;
        }
        let took = began.elapsed();
        P::stop(reactor)?;
        Ok(f64::from(u32::try_from(BACKLOG)?) / took.as_secs_f64())
    })
}

impl Bench {
    /// Runs with a directory of its own, which is gone afterwards.
    fn in_directory<T>(&self, run: impl FnOnce(&Path) -> Result<T, Failure>) -> Result<T, Failure> {
        self.stores.set(self.stores.get() + 1);
        let parent = self.directory.join(self.stores.get().to_string());
        fs::create_dir_all(&parent)?;
        let result = run(&parent.join("store"));
        fs::remove_dir_all(&parent)?;
        // What the file system still had to do for it would be charged to the next measurement.
        fs::File::open(&self.directory)?.sync_all()?;
        result
    }

    fn with_store<P: Peer>(
        &self,
        opening: Opening,
        run: impl FnOnce(&P) -> Result<f64, Failure>,
    ) -> Result<f64, Failure> {
        self.in_directory(|directory| {
            let store = P::open(directory, opening)?;
            let figure = run(&store)?;
            store.close()?;
            Ok(figure)
        })
    }
}

/// What an account holds that was filled with so many events.
fn sum(events: u64) -> u64 {
    events * events.saturating_sub(1) / 2
}

fn same(found: u64, expected: u64) -> Result<(), Failure> {
    if found == expected { Ok(()) } else { Err(format!("the balance is {found}, not {expected}").into()) }
}
