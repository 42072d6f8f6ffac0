//! The lines of the table: which figure of which cell, what the machine allows at most, and the goals.
//!
//! The goals are those that annals was given before it was built; they are judged for annals alone.

use crate::accounts::{self, Says};
use crate::cells::open_cell;
use crate::child::End;
use crate::goal::{Goal, Limit};
use crate::options::Options;

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    PerSecond,
    Micros,
    Millis,
    Mebibytes,
    Bytes,
}

impl Unit {
    pub fn is_more_better(self) -> bool {
        self == Unit::PerSecond
    }
}

/// One line of the table.
pub struct Row {
    pub title: String,
    pub cell: String,
    pub figure: &'static str,
    pub unit: Unit,
    pub limit: Option<Limit>,
    pub goals: Vec<Goal>,
}

/// All lines, in order.
pub fn all(options: &Options) -> Vec<Row> {
    let mut rows = durable();
    rows.extend(buffered());
    rows.extend(read());
    rows.extend(opened(options));
    rows.extend(follow_and_state());
    rows.extend(accounts::ALL.iter().map(account));
    rows
}

fn row(title: &str, cell: &str, figure: &'static str, unit: Unit) -> Row {
    Row { title: title.to_owned(), cell: cell.to_owned(), figure, unit, limit: None, goals: Vec::new() }
}

impl Row {
    fn limit(mut self, limit: Limit) -> Row {
        self.limit = Some(limit);
        self
    }

    fn goal(mut self, goal: Goal) -> Row {
        self.goals.push(goal);
        self
    }
}

fn durable() -> Vec<Row> {
    use Goal::{AheadOf, AheadOfStores, AtLeast, PerCal, WithinCals};
    let rate = |title, cell| row(title, cell, "events_per_s", Unit::PerSecond);
    let p50 = |title, cell| row(title, cell, "p50_us", Unit::Micros).limit(Limit::Cals(1.0));
    let p99 = |title, cell| row(title, cell, "p99_us", Unit::Micros);
    vec![
        rate("W1 durable, 1 client", "W1")
            .limit(Limit::PerCal(1.0))
            .goal(PerCal(0.85))
            .goal(AheadOfStores(1.0)),
        p50("W1 p50", "W1").goal(WithinCals(1.15, 0.0)),
        p99("W1 p99", "W1"),
        rate("W2 durable, 8 clients", "W2-8")
            .limit(Limit::PerCal(8.0))
            .goal(PerCal(4.0))
            .goal(AheadOf("tephra", 1.3))
            .goal(AheadOf("okaywal", 1.2))
            .goal(AheadOfStores(1.0)),
        p50("W2 8: p50", "W2-8"),
        p99("W2 8: p99", "W2-8"),
        rate("W2 durable, 32 clients", "W2-32")
            .limit(Limit::PerCal(32.0))
            .goal(PerCal(10.0))
            .goal(AheadOf("tephra", 1.5))
            .goal(AheadOf("okaywal", 1.3))
            .goal(AheadOfStores(1.0)),
        p50("W2 32: p50", "W2-32"),
        p99("W2 32: p99", "W2-32"),
        rate("W2 durable, 64 clients", "W2-64")
            .limit(Limit::PerCal(64.0))
            .goal(PerCal(15.0))
            .goal(AheadOf("tephra", 1.3))
            .goal(AheadOf("okaywal", 1.6))
            .goal(AheadOfStores(1.0)),
        p50("W2 64: p50", "W2-64"),
        p99("W2 64: p99", "W2-64").goal(WithinCals(8.0, 0.0)),
        rate("W3 durable, batches of 100", "W3")
            .limit(Limit::PerSync32k(100.0))
            .goal(AtLeast(400e3))
            .goal(AheadOf("tephra", 1.15))
            .goal(AheadOfStores(1.0)),
        p50("W3 p50", "W3"),
        p99("W3 p99", "W3").goal(WithinCals(4.0, 0.0)),
        rate("W3p durable, in flight, 1 thread", "W3p"),
    ]
}

fn buffered() -> Vec<Row> {
    let rate = |title, cell| row(title, cell, "events_per_s", Unit::PerSecond);
    vec![
        rate("W4 buffered, 1 thread", "W4-1")
            .limit(Limit::PerNanos(&["write_256_ns", "blake3_64_ns", "crc32c_200_ns"]))
            .goal(Goal::AtLeast(150e3))
            .goal(Goal::AheadOf("batpak", 8.0)),
        row("W4 1: p50", "W4-1", "p50_us", Unit::Micros),
        row("W4 1: p99", "W4-1", "p99_us", Unit::Micros),
        rate("W4 buffered, 8 threads", "W4-8").goal(Goal::AtLeast(200e3)),
        row("W4 8: p50", "W4-8", "p50_us", Unit::Micros),
        row("W4 8: p99", "W4-8", "p99_us", Unit::Micros),
        rate("W4p buffered, in flight, 1 thread", "W4p").goal(Goal::AtLeast(1.2e6)),
    ]
}

fn read() -> Vec<Row> {
    use Goal::{AheadOfStores, AtLeast, AtMost, AtMostIfResident};
    let line = |title, figure, unit| row(title, "W5 W6 W7", figure, unit);
    vec![
        line("W5 replay, decoded", "replay_decoded_per_s", Unit::PerSecond)
            .limit(Limit::PerNanos(&["decode_ns"]))
            .goal(AtLeast(4e6))
            .goal(AheadOfStores(1.0)),
        line("W5 replay, raw", "replay_raw_per_s", Unit::PerSecond)
            .limit(Limit::PerNanos(&["crc32c_200_ns"]))
            .goal(AtLeast(10e6))
            .goal(AheadOfStores(1.0)),
        line("W6 stream of 1,000, raw", "stream_raw_us", Unit::Micros)
            .limit(Limit::Nanos("crc32c_200_ns", 1e3))
            .goal(AtMostIfResident(40.0))
            .goal(AtMost(700.0))
            .goal(AheadOfStores(1.0)),
        line("W6 stream of 1,000, decoded", "stream_decoded_us", Unit::Micros)
            .limit(Limit::Nanos("decode_ns", 1e3))
            .goal(AtMostIfResident(260.0))
            .goal(AtMost(700.0))
            .goal(AheadOfStores(1.0)),
        line("W7 get by id, p50", "get_p50_us", Unit::Micros)
            .limit(Limit::Nanos("read_256_ns", 1.0))
            .goal(AtMostIfResident(0.25))
            .goal(AtMost(1.0))
            .goal(AheadOfStores(1.0)),
        line("W7 get by id, p99", "get_p99_us", Unit::Micros),
    ]
}

fn opened(options: &Options) -> Vec<Row> {
    let mut rows = Vec::new();
    for (end, words) in [(End::Closed, "clean close"), (End::Killed, "kill -9")] {
        for size in &options.sizes {
            let title = format!("W8 open, {words}, {} events", thousands(*size));
            let line = row(&title, &open_cell(end, *size), "open_ms", Unit::Millis);
            let most = match end {
                End::Closed if *size <= 1_000_000 => 1.0,
                End::Closed => 2.0,
                End::Killed => 100.0,
            };
            rows.push(line.goal(Goal::AtMost(most)).goal(Goal::AheadOfStores(1.0)));
        }
    }
    let size = thousands(options.size);
    let closed = open_cell(End::Closed, options.size);
    let line = |title: String, figure, unit| row(&title, &closed, figure, unit);
    rows.push(
        line(format!("W8 resident, {size} events"), "resident_mib", Unit::Mebibytes).goal(Goal::AtMost(32.0)),
    );
    rows.push(line("W8 resident per event".to_owned(), "resident_bytes_per_event", Unit::Bytes));
    rows.push(
        line("W11 disk per event".to_owned(), "disk_bytes_per_event", Unit::Bytes)
            // The payload, and 30 bytes of names.
            .limit(Limit::Fixed(207.0))
            .goal(Goal::AtMost(360.0)),
    );
    rows
}

fn follow_and_state() -> Vec<Row> {
    use Goal::{AheadOfStores, AtMost, WithinCals};
    let line = |title, cell, figure| row(title, cell, figure, Unit::Micros);
    vec![
        line("W9 append to subscriber, durable", "W9-durable", "p50_us")
            .limit(Limit::CalAndWakeUp)
            .goal(WithinCals(1.25, 15.0))
            .goal(AheadOfStores(1.0)),
        line("W9 durable, p99", "W9-durable", "p99_us"),
        line("W9 append to subscriber, buffered", "W9-buffered", "p50_us")
            .limit(Limit::WakeUp)
            .goal(AtMost(25.0))
            .goal(AheadOfStores(1.0)),
        line("W9 buffered, p99", "W9-buffered", "p99_us"),
        line("W10 state of 10,000 events, cold", "W10", "cold_us")
            .limit(Limit::Nanos("decode_ns", 1e4))
            .goal(AtMost(2_700.0))
            .goal(AheadOfStores(1.0)),
        line("W10 unchanged", "W10", "unchanged_us").goal(AtMost(1.0)).goal(AheadOfStores(1.0)),
        line("W10 one more event", "W10", "one_more_us").goal(AtMost(3.0)).goal(AheadOfStores(1.0)),
    ]
}

fn account(account: &accounts::Account) -> Row {
    let unit = match account.says {
        Says::Micros => Unit::Micros,
        Says::PerSecond => Unit::PerSecond,
    };
    row(account.name, account.name, accounts::FIGURE, unit)
}

/// A number with its thousands set apart.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("digits")).collect();
    groups.join(",")
}
