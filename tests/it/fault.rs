//! Every operation of the simulated disk fails, once or from then on; writes are short at every byte; the
//! disk is full at every byte. Every answer must be true of what is found later.

use std::io::ErrorKind as Io;
use std::time::{Duration, Instant};

use annals::disk::{CrashMode, Fault, SimDisk};
use annals::{Appended, Durability, Error, ErrorKind, Store};

use crate::sim_spy::{Call, Spy, What};
use crate::sim_support::*;

static RUNS: Tally = Tally::new("failing disks", "every answer was true, no caller waited");

/// A workload that does not depend on the answers.
struct Plan {
    seed: u64,
    shapes: Vec<Shape>,
    actions: Vec<Action>,
}

enum Action {
    Append(Vec<Planned>),
    Sync,
    Read,
    Reopen,
}

impl Plan {
    fn new(seed: u64, actions: usize) -> Plan {
        let mut rng = Rng::new(seed);
        let mut number = 0;
        let shapes = (0..actions).map(|_| Shape::any(&mut rng)).collect();
        let mut action = |_| match rng.below(10) {
            0 => Action::Sync,
            1 => Action::Read,
            2 => Action::Reopen,
            _ => {
                let count = 1 + rng.below(3);
                let group =
                    (number..).take(count).map(|number| Planned::any(&mut rng, number, 200)).collect();
                number += count as u64;
                Action::Append(group)
            }
        };
        let actions = (0..actions).map(&mut action).collect();
        Plan { seed, shapes, actions }
    }
}

/// What is to go wrong.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    Nothing,
    Once(u64, Fault),
    From(u64, Fault),
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Acknowledged; as durable or only as written.
    Durable,
    Written,
    Refused,
    Unknown,
}

/// One run of a plan.
struct Run<'a> {
    plan: &'a Plan,
    wrong: Wrong,
    disk: SimDisk,
    spy: Spy,
    gate: Gate,
    opened: usize,
    /// How many there had been when the writer at work began.
    calls: usize,
    /// The appends that are in the log for certain, and durable.
    settled: Vec<u64>,
    /// Those of the writer at work, with what it said.
    recent: Vec<(u64, Outcome)>,
    /// Something was answered with an error that is not the append's own fault.
    has_trouble: bool,
    images: u64,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, wrong: Wrong) -> Run<'a> {
        let disk = SimDisk::new(plan.seed);
        match wrong {
            Wrong::Nothing => {}
            Wrong::Once(nth, fault) => disk.fail(nth, fault),
            Wrong::From(nth, fault) => disk.fail_from(nth, fault),
        }
        let spy = Spy::new(disk.clone());
        Run {
            plan,
            wrong,
            disk,
            spy,
            gate: Gate::default(),
            opened: 0,
            calls: 0,
            settled: Vec::new(),
            recent: Vec::new(),
            has_trouble: false,
            images: 0,
        }
    }

    fn place(&self) -> String {
        let failed =
            self.spy.calls().into_iter().find(|call| call.failed.is_some_and(|kind| kind != Io::NotFound));
        format!("seed {}, {:?} ({failed:?})", self.plan.seed, self.wrong)
    }

    /// Gives what was called, and how many images were looked at.
    fn go(mut self) -> (Vec<Call>, u64) {
        let mut store = self.open();
        for action in &self.plan.actions {
            match action {
                Action::Append(group) => self.append(&store, group),
                Action::Sync => self.sync(&store),
                Action::Read => self.read(&store),
                Action::Reopen => {
                    self.close(store);
                    store = self.open();
                }
            }
        }
        self.close(store);
        self.disk.heal();
        let store = self.open();
        self.go_on(store);
        let broken = self.spy.broken();
        assert!(broken.is_empty(), "{}: {broken:?}", self.place());
        let calls = self.spy.calls();
        assert!(!self.has_trouble || !calls.iter().all(is_bearable), "{}: it showed", self.place());
        (calls, self.images)
    }

    /// Opens, the second time at the latest, and settles what became of everything before.
    fn open(&mut self) -> Store {
        let shape = self.plan.shapes[self.opened % self.plan.shapes.len()];
        self.opened += 1;
        let open =
            |run: &Run<'_>| within(&|| run.place(), || shape.builder(run.spy.clone(), &run.gate).open());
        let store = open(self).unwrap_or_else(|error| {
            let expected = matches!(error.kind(), ErrorKind::Io | ErrorKind::NoSpace);
            assert!(expected && !matches!(self.wrong, Wrong::Nothing), "{}: {error}", self.place());
            self.has_trouble = true;
            if let Wrong::From(..) = self.wrong {
                self.disk.heal();
            }
            open(self).unwrap_or_else(|error| panic!("{}: does not open again: {error}", self.place()))
        });
        // Reading may fail, too, if the fault is still to come.
        let events = dump(&store).or_else(|_| {
            self.disk.heal();
            dump(&store)
        });
        let events = events.unwrap_or_else(|error| panic!("{}: {error}", self.place()));
        let found = self.check(&events, Outcome::Written);
        self.settled = found;
        self.recent.clear();
        self.calls = self.spy.calls().len();
        store
    }

    /// What is found is a prefix of what was not refused, with everything that was promised.
    fn check(&self, events: &[annals::RecordedEvent], promised: Outcome) -> Vec<u64> {
        let found: Vec<u64> =
            events.iter().map(origin).filter(|(_, last)| *last).map(|(number, _)| number).collect();
        assert!(events.last().is_none_or(|event| origin(event).1), "{}: half an append", self.place());
        let possible = self.recent.iter().filter(|(_, outcome)| *outcome != Outcome::Refused);
        let possible: Vec<u64> =
            self.settled.iter().copied().chain(possible.map(|(number, _)| *number)).collect();
        assert!(possible.starts_with(&found), "{}: {found:?} of {possible:?}", self.place());
        // A failed sync takes away what was only written, as a power failure does.
        let written = promised == Outcome::Written && !self.spy.calls().iter().skip(self.calls).any(is_lossy);
        let kept = |outcome| outcome == Outcome::Durable || (outcome == Outcome::Written && written);
        let last = self.recent.iter().rfind(|(_, outcome)| kept(*outcome)).map(|(number, _)| *number);
        let last = last.or(self.settled.last().copied());
        assert!(
            last.is_none_or(|last| found.contains(&last)),
            "{}: {last:?} is not in {found:?}",
            self.place()
        );
        found
    }

    fn shape(&self) -> &Shape {
        &self.plan.shapes[(self.opened - 1) % self.plan.shapes.len()]
    }

    fn append(&mut self, store: &Store, group: &[Planned]) {
        let place = || self.place();
        let answers = within(&place, || commit_group(store, &self.gate, group, |_| {}));
        for (planned, answer) in group.iter().zip(answers) {
            let outcome = self.outcome(planned, &answer);
            self.recent.push((planned.number, outcome));
        }
    }

    fn outcome(&mut self, planned: &Planned, answer: &Result<Appended, Error>) -> Outcome {
        let Err(error) = answer else {
            return if planned.is_synced(self.shape()) { Outcome::Durable } else { Outcome::Written };
        };
        match error.kind() {
            ErrorKind::TooLarge => return Outcome::Refused,
            ErrorKind::CommitUnknown | ErrorKind::Poisoned => self.poisoned(error),
            ErrorKind::NoSpace | ErrorKind::Io => self.has_trouble = true,
            _ => panic!("{}: {error}", self.place()),
        }
        if error.is_definite() { Outcome::Refused } else { Outcome::Unknown }
    }

    fn poisoned(&mut self, error: &Error) {
        self.has_trouble = true;
        let calls = self.spy.calls();
        assert!(calls[self.calls..].iter().any(poisons), "{}: poisoned by nothing: {error}", self.place());
        self.spy.freeze();
    }

    fn sync(&mut self, store: &Store) {
        match within(&|| self.place(), || store.sync()) {
            Ok(position) => {
                assert_eq!(position, store.head().unwrap().position(), "{}", self.place());
                let accepted = self.recent.iter_mut().filter(|(_, outcome)| *outcome == Outcome::Written);
                accepted.for_each(|(_, outcome)| *outcome = Outcome::Durable);
            }
            Err(error) => {
                let expected = matches!(error.kind(), ErrorKind::CommitUnknown | ErrorKind::Poisoned);
                assert!(expected, "{}: {error}", self.place());
                self.poisoned(&error);
            }
        }
    }

    /// Everything acknowledged can be read, or the read fails; the head is what can be read.
    fn read(&mut self, store: &Store) {
        match within(&|| self.place(), || dump(store)) {
            Ok(events) => {
                self.check(&events, Outcome::Written);
                let head = store.head().unwrap().position().get();
                assert_eq!(events.len() as u64, head, "{}: head and events differ", self.place());
            }
            Err(error) => {
                let expected = matches!(error.kind(), ErrorKind::Io | ErrorKind::NoSpace);
                assert!(expected, "{}: {error}", self.place());
                self.has_trouble = true;
            }
        }
    }

    fn close(&mut self, store: Store) {
        let closed = within(&|| self.place(), || store.close());
        assert!(
            !self.spy.thaw() || closed.is_err(),
            "{}: closing a poisoned store says nothing",
            self.place()
        );
        self.has_trouble |= closed.is_err();
        if closed.is_ok() {
            let accepted = self.recent.iter_mut().filter(|(_, outcome)| *outcome == Outcome::Written);
            accepted.for_each(|(_, outcome)| *outcome = Outcome::Durable);
        }
        let trace = self.disk.trace();
        for mode in [CrashMode::Keep, CrashMode::Drop, CrashMode::Torn(1)] {
            let image = trace.image(trace.len(), mode);
            let opened = self.shape().builder(image, &Gate::default()).open();
            let opened = opened.unwrap_or_else(|error| panic!("{}, then {mode:?}: {error}", self.place()));
            let promised = if matches!(mode, CrashMode::Keep) { Outcome::Written } else { Outcome::Durable };
            self.check(&dump(&opened).unwrap(), promised);
            self.images += 1;
        }
    }

    /// The log goes on, and what is acknowledged now survives the next power failure.
    fn go_on(&mut self, store: Store) {
        let planned = Planned::any(&mut Rng::new(self.plan.seed), u64::MAX >> 1, 20);
        let planned = Planned { durability: Some(Durability::Synced), ..planned };
        match planned.append().commit(&store) {
            Ok(_) => self.recent.push((planned.number, Outcome::Durable)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::TooLarge, "{}: {error}", self.place()),
        }
        let trace = self.disk.trace();
        for mode in [CrashMode::Drop, CrashMode::Torn(2)] {
            let opened = Store::on(trace.image(trace.len(), mode)).open();
            let opened =
                opened.unwrap_or_else(|error| panic!("{}, going on, {mode:?}: {error}", self.place()));
            self.check(&dump(&opened).unwrap(), Outcome::Durable);
            assert!(opened.verify().unwrap().is_clean(), "{}", self.place());
            self.images += 1;
        }
        store.close().unwrap();
    }
}

/// The store need not report these: an interrupted or short call can be continued.
fn is_bearable(call: &Call) -> bool {
    match (call.what, call.failed) {
        (_, None | Some(Io::NotFound)) => true,
        (What::Read | What::Write, Some(kind)) => kind == Io::Interrupted,
        _ => false,
    }
}

/// After which it is not known what is on the disk.
fn poisons(call: &Call) -> bool {
    match (call.what, call.failed) {
        (_, None) => false,
        (What::Write, Some(Io::StorageFull | Io::WriteZero)) => call.path == "MARK",
        (What::Write, Some(kind)) => kind != Io::Interrupted,
        (What::Sync | What::SyncDirectory | What::SetLength | What::Rename | What::Remove, Some(_)) => true,
        _ => false,
    }
}

fn is_lossy(call: &Call) -> bool {
    call.what == What::Sync && call.failed.is_some() && call.path.starts_with("segments/")
}

/// No call takes longer than a second, under any failure.
fn within<T>(place: &dyn Fn() -> String, call: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = call();
    assert!(started.elapsed() < Duration::from_secs(1), "{}: it took {:?}", place(), started.elapsed());
    result
}

fn sweep(test: &str, salt: u64, plans: u64, wrongs: &[fn(u64) -> Wrong]) {
    let started = Instant::now();
    let watchdog = Watchdog::new();
    let (mut runs, mut images) = (0, 0);
    for n in 0..sized(plans.div_ceil(4), plans) {
        let plan = Plan::new(seed().wrapping_mul(1_000_003).wrapping_add(salt * 100_003 + n), 12);
        let (calls, _) = Run::new(&plan, Wrong::Nothing).go();
        for nth in 0..calls.len() as u64 {
            for wrong in wrongs {
                let wrong = wrong(nth);
                watchdog.at(format!("{test}, seed {}, {wrong:?}", plan.seed));
                images += Run::new(&plan, wrong).go().1;
                runs += 1;
            }
        }
    }
    let _ = images;
    RUNS.add(test, runs, started);
}

#[test]
fn every_operation_fails_once() {
    sweep(
        "fault::every_operation_fails_once",
        1,
        4,
        &[
            |nth| Wrong::Once(nth, Fault::Error(Io::Other)),
            |nth| Wrong::Once(nth, Fault::Error(Io::StorageFull)),
            |nth| Wrong::Once(nth, Fault::Error(Io::Interrupted)),
            |nth| Wrong::Once(nth, Fault::Short(0)),
            |nth| Wrong::Once(nth, Fault::Short(1)),
            |nth| Wrong::Once(nth, Fault::Short(100)),
        ],
    );
}

#[test]
fn every_operation_fails_from_then_on() {
    sweep(
        "fault::every_operation_fails_from_then_on",
        2,
        4,
        &[
            |nth| Wrong::From(nth, Fault::Error(Io::Other)),
            |nth| Wrong::From(nth, Fault::Error(Io::StorageFull)),
            |nth| Wrong::From(nth, Fault::Short(0)),
            |nth| Wrong::From(nth, Fault::Short(7)),
        ],
    );
}
