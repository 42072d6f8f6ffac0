//! A read model in SQLite that handles each event exactly once.
//!
//! What to learn: one transaction changes the rows and the resume token of the last event. After a crash the
//! program continues behind that token. If the store was restored or set back, the token belongs to another
//! history. The store reports this, and the program builds the rows again, so that it misses no event.

use annals::{ErrorKind, Query, Raw, ResumeToken, Store, Until, restore};
use rusqlite::{Connection, OptionalExtension, params};

type Failed = Box<dyn std::error::Error>;

const TABLES: &str = "CREATE TABLE balances (account TEXT PRIMARY KEY, cents INTEGER NOT NULL);
                      CREATE TABLE place (token TEXT NOT NULL);";

/// Handles at most `most` events, and returns how many there were.
fn run(store: &Store, rows: &mut Connection, most: usize) -> Result<usize, Failed> {
    let token: Option<String> = rows.query_row("SELECT token FROM place", [], |row| row.get(0)).optional()?;
    let token: ResumeToken = token.map(|token| token.parse()).transpose()?.unwrap_or_default();
    let deposits = Query::all().kinds(["account.deposited", "account.withdrawn"]);
    // Durable events only: a power cut must not take an event that a row already counts.
    let mut events = store.subscribe(deposits).durable().resume(token);
    for came in 0..most {
        let Some(event) = events.try_next()? else { return Ok(came) };
        let cents: i64 = event.decode()?;
        let change = if event.kind() == "account.deposited" { cents } else { -cents };
        let transaction = rows.transaction()?;
        transaction.execute(
            "INSERT INTO balances VALUES (?1, ?2)
             ON CONFLICT (account) DO UPDATE SET cents = cents + excluded.cents",
            params![event.entity(), change],
        )?;
        transaction.execute("DELETE FROM place", [])?;
        transaction.execute("INSERT INTO place VALUES (?1)", [event.resume_token().to_string()])?;
        transaction.commit()?;
    }
    Ok(most)
}

/// Handles all events; from the beginning if the rows belong to another history.
fn keep_up(store: &Store, rows: &mut Connection) -> Result<usize, Failed> {
    match run(store, rows, usize::MAX) {
        Err(error) if is_rolled_back(&error) => {
            rows.execute_batch("DELETE FROM balances; DELETE FROM place;")?;
            run(store, rows, usize::MAX)
        }
        done => done,
    }
}

fn is_rolled_back(error: &Failed) -> bool {
    error.downcast_ref::<annals::Error>().is_some_and(|error| error.kind() == ErrorKind::RolledBack)
}

fn balance(rows: &Connection, account: &str) -> rusqlite::Result<i64> {
    rows.query_row("SELECT cents FROM balances WHERE account = ?1", [account], |row| row.get(0))
}

fn main() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    let store = Store::open(path("bank"))?;
    let mut rows = Connection::open(path("balances.sqlite"))?;
    rows.execute_batch(TABLES)?;
    for cents in [500, 700] {
        store.append("account:alice", &Raw("account.deposited", &cents))?;
        store.append("account:bob", &Raw("account.deposited", &cents))?;
    }
    store.backup(path("backup")).run()?;
    store.append("account:bob", &Raw("account.withdrawn", &100))?;

    let before_stop = run(&store, &mut rows, 3)?;
    let after_stop = keep_up(&store, &mut rows)?;
    println!("{before_stop} events before it stopped, {after_stop} after it");
    assert_eq!((before_stop, after_stop), (3, 2), "none is missing, none comes twice");
    assert_eq!((balance(&rows, "account:alice")?, balance(&rows, "account:bob")?), (1200, 1100));
    store.close()?;

    // The store is lost, and the backup of before the withdrawal takes its place. Other events follow.
    restore(path("backup"), path("restored"), Until::End).run()?;
    let store = Store::open(path("restored"))?;
    for _ in 0..10 {
        store.append("account:alice", &Raw("account.deposited", &1))?;
    }
    let anew = keep_up(&store, &mut rows)?;
    println!("of another history: {anew} events from the beginning");
    assert_eq!((balance(&rows, "account:alice")?, balance(&rows, "account:bob")?), (1210, 1200));
    store.close()?;
    Ok(())
}
