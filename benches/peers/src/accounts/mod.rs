//! States and reactions, for the peers that have both: accounts with deposits of `{ cents: u64 }`.
//!
//! Each cell makes its own store, and checks what it computes.

mod annals;
mod batpak;
mod peer;

use std::time::{Duration, Instant};

use self::annals::Annals;
use self::batpak::Batpak;
use self::peer::{Opening, Pace, Peer};
use serde_json::json;

use crate::cells::{Bench, Cell};
use crate::measure::{each, figures, float, repeated, timed};
use crate::peer::Failure;

/// Entities that are loaded at random.
const ENTITIES: u64 = 1_000;
/// Single appends, and reactions, that are timed one by one.
const SINGLES: u32 = 500;
/// Events of the entity that is rebuilt and loaded.
const EVENTS: u64 = 10_000;
/// Events that wait for a reactor. Fewer than batpak keeps for a slow subscriber (8,192).
const BACKLOG: u64 = 2_000;

/// A value, and how long it took.
type Timed<T> = Result<(T, Duration), Failure>;
type Measure = fn(&Bench<'_>) -> Result<f64, Failure>;

/// What a figure says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Says {
    Micros,
    PerSecond,
}

/// One line of the table.
pub struct Account {
    pub name: &'static str,
    pub says: Says,
    ours: Measure,
    theirs: Option<Measure>,
    /// What has to be known to read it.
    pub note: &'static str,
}

macro_rules! account {
    ($name:literal, $says:ident, $function:ident, $note:literal) => {
        Account {
            name: $name,
            says: Says::$says,
            ours: $function::<Annals>,
            theirs: Some($function::<Batpak>),
            note: $note,
        }
    };
}

/// All lines, in the order of the table.
pub const ALL: [Account; 14] = [
    account!("S1 rebuild, cold", Micros, rebuild, "all events of one entity, folded from the log, no cache"),
    account!(
        "S2 load, unchanged",
        Micros,
        unchanged,
        "the same entity; annals has the state in memory, batpak in a file"
    ),
    account!(
        "S3 load, one more event",
        Micros,
        one_more,
        "the append is not counted, and did not wait for a sync"
    ),
    account!(
        "S4 the same, after a sync",
        Micros,
        one_more_synced,
        "waiting for the disk leaves the processor's caches cold"
    ),
    account!(
        "S5 reopened: first load",
        Micros,
        first,
        "from the cache on disk; annals opens its file only then"
    ),
    account!(
        "S6 reopened: next first load",
        Micros,
        next,
        "of an entity not loaded yet, after another one was"
    ),
    account!("S7 reopen and load", Micros, reopen, "opening the store, too; its last close was clean"),
    account!("S8 load, random entity", Micros, random, "among 1,000, unchanged, loaded before"),
    account!(
        "S9 append, durable",
        Micros,
        append_synced,
        "both: fdatasync before the acknowledgement; batpak with a gate and a sync after each event"
    ),
    account!(
        "S10 append, each one's default",
        Micros,
        append_default,
        "NOT the same promise: annals durable, batpak before the sync"
    ),
    account!(
        "S11 deposit to reaction",
        Micros,
        call_to_reaction,
        "from the call of append until the reaction is seen; both events are durable by then, in both"
    ),
    account!(
        "S12 acknowledged to reaction",
        Micros,
        acknowledged_to_reaction,
        "the same without the append: annals' has waited for its sync by then, batpak's has not"
    ),
    account!(
        "S13 reactions",
        PerSecond,
        reactions,
        "of a backlog, by default; annals: each exactly once, with its checkpoint one durable append; batpak: at least once, each a durable batch, the checkpoint a synced file every 64 events"
    ),
    Account {
        name: "S14 reactions, 64 in flight",
        says: Says::PerSecond,
        ours: reactions_in_flight::<Annals>,
        theirs: None,
        note: "annals: in_flight_max(64), exactly once as before; batpak has no such option",
    },
];

/// The figure of each line's cell.
pub const FIGURE: &str = "value";

pub fn cells() -> Vec<Cell> {
    ALL.into_iter().map(Account::cell).collect()
}

impl Account {
    fn cell(self) -> Cell {
        Cell {
            name: self.name.to_owned(),
            parameters: json!({ "events_per_entity": EVENTS, "payload": "{ cents: u64 }" }),
            is_for: |kind| kind.keeps_states,
            measure: Box::new(move |bench, kind| {
                let measure = if kind.name == "annals" { Some(self.ours) } else { self.theirs };
                let value = measure.map(|measure| measure(bench)).transpose()?;
                let scale = if self.says == Says::Micros { 1e6 } else { 1.0 };
                Ok(value.map(|value| figures([(FIGURE, value * scale)])))
            }),
        }
    }
}

fn rebuild<P: Peer>(bench: &Bench<'_>) -> Result<f64, Failure> {
    bench.with_account(Opening::Uncached, |store: &P| {
        store.fill("account:1", bench.events())?;
        each(5, || {
            let (balance, time) = timed(|| store.balance("account:1"))?;
            same(balance, sum(bench.events()))?;
            Ok(time)
        })
    })
}

fn unchanged<P: Peer>(bench: &Bench<'_>) -> Result<f64, Failure> {
    bench.with_account(Opening::Cached, |store: &P| {
        store.fill("account:1", bench.events())?;
        store.balance("account:1")?;
        repeated(|| same(store.balance("account:1")?, sum(bench.events())))
    })
}

fn one_more<P: Peer>(bench: &Bench<'_>) -> Result<f64, Failure> {
    after_an_append::<P>(bench, Opening::CachedBuffered)
}

fn one_more_synced<P: Peer>(bench: &Bench<'_>) -> Result<f64, Failure> {
    after_an_append::<P>(bench, Opening::Cached)
}

fn after_an_append<P: Peer>(bench: &Bench<'_>, opening: Opening) -> Result<f64, Failure> {
    bench.with_account(opening, |store: &P| {
        store.fill("account:1", bench.events())?;
        let mut expected = store.balance("account:1")?;
        each(bench.times(SINGLES), || {
            store.deposit("account:1", 7)?;
            expected += 7;
            let (balance, time) = timed(|| store.balance("account:1"))?;
            same(balance, expected)?;
            Ok(time)
        })
    })
}

fn first<P: Peer>(bench: &Bench<'_>) -> Result<f64, Failure> {
    reopened::<P>(bench, |store, _| timed(|| store.balance("account:1")))
}

fn next<P: Peer>(bench: &Bench<'_>) -> Result<f64, Failure> {
    reopened::<P>(bench, |store, _| {
        store.balance("account:2")?;
        timed(|| store.balance("account:1"))
    })
}

fn reopen<P: Peer>(bench: &Bench<'_>) -> Result<f64, Failure> {
    reopened::<P>(bench, |store, open| {
        let (balance, load) = timed(|| store.balance("account:1"))?;
        Ok((balance, open + load))
    })
}

/// Has `load` load account 1 from the cache on disk, of a store that took the given time to open.
fn reopened<P: Peer>(bench: &Bench<'_>, load: fn(&P, Duration) -> Timed<u64>) -> Result<f64, Failure> {
    bench.place.with_store(|directory| {
        let store = P::open(directory, Opening::Cached)?;
        for account in ["account:1", "account:2"] {
            store.fill(account, bench.events())?;
            store.balance(account)?;
        }
        store.close()?;
        each(10, || {
            let (store, open) = timed(|| P::open(directory, Opening::Cached))?;
            let (balance, time) = load(&store, open)?;
            same(balance, sum(bench.events()))?;
            store.close()?;
            Ok(time)
        })
    })
}

fn random<P: Peer>(bench: &Bench<'_>) -> Result<f64, Failure> {
    bench.with_account(Opening::Cached, |store: &P| {
        let accounts: Vec<String> = (0..ENTITIES).map(|account| format!("account:{account}")).collect();
        let events = bench.events().div_ceil(ENTITIES);
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

fn append_synced<P: Peer>(bench: &Bench<'_>) -> Result<f64, Failure> {
    append::<P>(bench, Opening::Synced)
}

fn append_default<P: Peer>(bench: &Bench<'_>) -> Result<f64, Failure> {
    append::<P>(bench, P::DEFAULT)
}

fn append<P: Peer>(bench: &Bench<'_>, opening: Opening) -> Result<f64, Failure> {
    bench.with_account(opening, |store: &P| {
        each(bench.times(SINGLES), || Ok(timed(|| store.deposit("account:1", 7))?.1))
    })
}

fn call_to_reaction<P: Peer>(bench: &Bench<'_>) -> Result<f64, Failure> {
    latency::<P>(bench, |called, _| called.elapsed())
}

fn acknowledged_to_reaction<P: Peer>(bench: &Bench<'_>) -> Result<f64, Failure> {
    latency::<P>(bench, |_, acknowledged| acknowledged.elapsed())
}

fn latency<P: Peer>(bench: &Bench<'_>, figure: fn(Instant, Instant) -> Duration) -> Result<f64, Failure> {
    bench.with_account(P::DEFAULT, |store: &P| {
        let mut seen = store.audits();
        let reactor = store.react(Pace::Default)?;
        let latency = each(bench.times(SINGLES), || {
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

fn reactions<P: Peer>(bench: &Bench<'_>) -> Result<f64, Failure> {
    rate::<P>(bench, Pace::Default)
}

fn reactions_in_flight<P: Peer>(bench: &Bench<'_>) -> Result<f64, Failure> {
    rate::<P>(bench, Pace::InFlight(64))
}

fn rate<P: Peer>(bench: &Bench<'_>, pace: Pace) -> Result<f64, Failure> {
    bench.with_account(P::DEFAULT, |store: &P| {
        store.fill("account:1", BACKLOG)?;
        let mut seen = store.audits();
        let began = Instant::now();
        let reactor = store.react(pace)?;
        for _ in 0..BACKLOG {
            seen()?;
        }
        let took = began.elapsed();
        P::stop(reactor)?;
        Ok(float(BACKLOG) / took.as_secs_f64())
    })
}

impl Bench<'_> {
    /// Events of the entity that is rebuilt and loaded.
    fn events(&self) -> u64 {
        if self.options.is_quick { EVENTS / 10 } else { EVENTS }
    }

    fn with_account<P: Peer>(
        &self,
        opening: Opening,
        run: impl FnOnce(&P) -> Result<f64, Failure>,
    ) -> Result<f64, Failure> {
        self.place.with_store(|directory| {
            let store = P::open(directory, opening)?;
            let figure = run(&store)?;
            store.close()?;
            Ok(figure)
        })
    }
}

/// The balance of an account that has `events` events.
fn sum(events: u64) -> u64 {
    events * events.saturating_sub(1) / 2
}

fn same(found: u64, expected: u64) -> Result<(), Failure> {
    if found == expected { Ok(()) } else { Err(format!("the balance is {found}, not {expected}").into()) }
}
