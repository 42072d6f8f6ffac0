//! Commands with keys from eight threads, over a disk that dies again and again: each is applied once.
//!
//! A thread that gets an error repeats its command with the same key once the store is open again. Now and
//! then a thread repeats a command that was answered long ago. `ANNALS_STORM` sets the number of commands.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use annals::disk::{CrashMode, Fault, SimDisk};
use annals::{Append, Error, ErrorKind, KeyWindow, Outcome, Query, Refused, Store};

use crate::account::{Account, AccountEvent, Do, What};
use crate::support::{Random, all};

const THREADS: u64 = 8;
const ACCOUNTS: u64 = 16;

/// One thread's commands: which come, and what became of them.
struct Client {
    random: Random,
    first: u64,
    next: u64,
    end: u64,
    /// Of commands that were answered before.
    repeats: u64,
    /// Of commands whose answer got lost, and that were found applied.
    found: u64,
}

/// From one opening to the next death of the disk: a number of commands, and then a number of operations.
/// Operations alone would not do: the longer the log, the more of them a load takes that finds no cached
/// state.
struct Round {
    disk: SimDisk,
    commands_left: AtomicU64,
    operations_left: u64,
}

impl Round {
    fn answered(&self) {
        if self.commands_left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.disk.fail_from(self.operations_left, Fault::Error(std::io::ErrorKind::Other));
        }
    }
}

impl Client {
    /// Goes on until all is done, or the disk dies.
    fn run(&mut self, store: &Store, round: &Round) {
        while self.next < self.end {
            if self.next > self.first && self.random.chance(10) {
                let old = self.first + self.random.below(self.next - self.first);
                match command(store, old) {
                    Ok(outcome) => {
                        assert_eq!(outcome, Outcome::AlreadyApplied, "command {old} was answered before")
                    }
                    Err(error) => return dead(&error),
                }
                self.repeats += 1;
            }
            match command(store, self.next) {
                Ok(Outcome::Applied) => {}
                Ok(Outcome::AlreadyApplied) => self.found += 1,
                Ok(Outcome::Nothing) => panic!("a deposit is something"),
                Err(error) => return dead(&error),
            }
            self.next += 1;
            round.answered();
        }
    }
}

/// Each command is another deposit, whose content depends on the state: a retry decides otherwise, if it is
/// asked.
fn command(store: &Store, id: u64) -> Result<Outcome, Error> {
    let account = format!("account:{}", id % ACCOUNTS);
    let deposit = Do { id, ..Do::new(What::Deposit(id)) };
    let result = match id % 3 {
        0 => store.execute_with::<Account>(account, &deposit, |append| append.key(id.to_le_bytes())),
        1 => {
            let grow = Do { id, ..Do::new(What::Double) };
            // The balance would soon be too large for a number.
            let small = format!("doubled:{id}");
            store.execute_with::<Account>(small, &grow, |append| append.key(id.to_le_bytes()))
        }
        _ => return by_query(store, id, &account),
    };
    match result {
        Ok(done) => Ok(done.outcome()),
        Err(Refused::Store(error)) => Err(error),
        Err(Refused::Domain(refusal)) => panic!("a deposit was refused: {refusal:?}"),
    }
}

fn by_query(store: &Store, id: u64, account: &str) -> Result<Outcome, Error> {
    // A boundary reads all of its history; this one stays short.
    let tag = format!("command:{id}");
    let decided = store.decide_once(id.to_le_bytes(), &id, Query::all().tag(&tag), |known: &Account| {
        assert_eq!(known.events, 0, "command {id} is decided about, and there already");
        Ok::<_, Error>(Append::to(account).event(&AccountEvent::Deposited { cents: id, id }).tag(&tag))
    });
    match decided {
        Ok(done) => Ok(done.outcome()),
        Err(Refused::Store(error) | Refused::Domain(error)) => Err(error),
    }
}

/// What a command is told when the disk dies under it.
fn dead(error: &Error) {
    let kinds = [ErrorKind::CommitUnknown, ErrorKind::Poisoned, ErrorKind::Io];
    assert!(kinds.contains(&error.kind()), "{error:?}");
}

#[test]
fn every_key_is_applied_once() {
    let commands: u64 = std::env::var("ANNALS_STORM").map_or(10_000, |count| count.parse().unwrap());
    let mut random = Random::for_test("every_key_is_applied_once");
    let share = |thread: u64| commands * thread / THREADS;
    let mut clients: Vec<Client> = (0..THREADS)
        .map(|thread| Client {
            random: Random::new(random.next()),
            first: share(thread),
            next: share(thread),
            end: share(thread + 1),
            repeats: 0,
            found: 0,
        })
        .collect();
    let (started, mut disk, mut kills) = (Instant::now(), SimDisk::new(random.next()), 0);
    while clients.iter().any(|client| client.next < client.end) {
        let store = open(&disk);
        let round = Round {
            disk: disk.clone(),
            commands_left: AtomicU64::new(1 + random.below(1 + commands / 20)),
            operations_left: random.below(200),
        };
        let alive = AtomicU64::new(0);
        thread::scope(|scope| {
            for client in &mut clients {
                scope.spawn(|| {
                    client.run(&store, &round);
                    alive.fetch_add(u64::from(client.next == client.end), Ordering::Relaxed);
                });
            }
        });
        drop(store);
        if alive.into_inner() < THREADS {
            kills += 1;
            let trace = disk.trace();
            let torn = CrashMode::Torn(random.next());
            let mode = random.pick(&[CrashMode::Keep, CrashMode::Drop, torn]);
            disk = trace.image(trace.len(), mode);
        } else {
            disk.heal();
        }
    }
    let store = open(&disk);
    let report = store.verify().unwrap();
    assert!(report.is_clean(), "{report}");
    let mut applied: HashMap<u64, u64> = HashMap::new();
    for event in all(store.read(Query::all())) {
        let AccountEvent::Deposited { id, .. } = event.to().unwrap() else { panic!("no test withdraws") };
        *applied.entry(id).or_default() += 1;
    }
    for id in 0..commands {
        // Doubling is two events.
        let events = if id % 3 == 1 { 2 } else { 1 };
        assert_eq!(applied.get(&id), Some(&events), "command {id}");
    }
    let (repeats, found): (Vec<u64>, Vec<u64>) =
        clients.iter().map(|client| (client.repeats, client.found)).unzip();
    let (repeats, found) = (repeats.iter().sum::<u64>(), found.iter().sum::<u64>());
    println!(
        "{commands} commands from {THREADS} threads, {kills} kills, {repeats} repeated, {found} found applied after a kill, in {:?}: each applied once",
        started.elapsed()
    );
    assert!(kills > 0 && repeats > 0, "{kills} kills, {repeats} repeats");
}

fn open(disk: &SimDisk) -> Store {
    Store::on(disk.clone()).segment_bytes_max(400_000).key_window(KeyWindow::Unlimited).open().unwrap()
}
