//! A read model in SQLite that is never wrong: its rows and the position they stand at change in one transaction.
//!
//! What to learn: a consumer hands out events at least once. Whoever keeps the last position beside what it made of the
//! events, in one transaction, passes over what comes again, and has handled each exactly once. Acknowledging only
//! spares the repetition.

use std::time::Duration;

use annals::{Query, Raw, Store};
use rusqlite::{Connection, OptionalExtension, params};

/// Takes in everything there is; `crash_after` events it stops short, between SQLite's commit and the acknowledgement.
fn run(
    store: &Store,
    rows: &mut Connection,
    crash_after: Option<usize>,
) -> Result<usize, Box<dyn std::error::Error>> {
    let deposits = Query::all().kinds(["account.deposited", "account.withdrawn"]);
    let mut consumer = store.consumer("balances", deposits)?;
    let mut came = 0;
    while let Some(event) = consumer.next_timeout(Duration::ZERO)? {
        came += 1;
        let transaction = rows.transaction()?;
        let known: Option<i64> =
            transaction.query_row("SELECT at FROM position", [], |row| row.get(0)).optional()?;
        let position = i64::try_from(event.position().get())?;
        if position > known.unwrap_or(0) {
            let cents: i64 = event.decode()?;
            let change = if event.kind() == "account.deposited" { cents } else { -cents };
            transaction.execute(
                "INSERT INTO balances VALUES (?1, ?2)
                 ON CONFLICT (account) DO UPDATE SET cents = cents + excluded.cents",
                params![event.entity(), change],
            )?;
            transaction.execute("DELETE FROM position", [])?;
            transaction.execute("INSERT INTO position VALUES (?1)", [position])?;
        }
        transaction.commit()?;
        if crash_after == Some(came) {
            return Ok(came);
        }
        consumer.ack(event.position())?;
    }
    Ok(came)
}

fn balance(rows: &Connection, account: &str) -> rusqlite::Result<i64> {
    rows.query_row("SELECT cents FROM balances WHERE account = ?1", [account], |row| row.get(0))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let store = Store::open(directory.path().join("bank"))?;
    let mut rows = Connection::open(directory.path().join("balances.sqlite"))?;
    rows.execute_batch(
        "CREATE TABLE balances (account TEXT PRIMARY KEY, cents INTEGER NOT NULL);
         CREATE TABLE position (at INTEGER NOT NULL);",
    )?;
    for cents in [500, 700, 900] {
        store.append("account:alice", &Raw("account.deposited", &cents))?;
        store.append("account:bob", &Raw("account.deposited", &cents))?;
    }
    store.append("account:bob", &Raw("account.withdrawn", &100))?;

    let first = run(&store, &mut rows, Some(3))?;
    let rest = run(&store, &mut rows, None)?;
    println!("{first} events came before it stopped, {rest} after it");
    assert_eq!((first, rest), (3, 5), "the third comes once more, and changes nothing");

    println!("alice {}, bob {}", balance(&rows, "account:alice")?, balance(&rows, "account:bob")?);
    assert_eq!((balance(&rows, "account:alice")?, balance(&rows, "account:bob")?), (2100, 2000));
    println!("{}", store.consumers()?[0]);
    store.close()?;
    Ok(())
}
