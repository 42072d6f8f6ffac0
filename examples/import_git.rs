//! Imports the commits of a git repository as a tree, and walks it: from the root to each branch.
//!
//! ```text
//! cargo run --release --features jsonl --example import_git -- [repository]      default: this directory
//! ```
//!
//! | in git | in the store |
//! |---|---|
//! | repository | entity: `repository` |
//! | commit | event: `commit`; its id is the first half of the hash |
//! | first parent | cause |
//! | commit time | occurred-at |
//! | author | tag |
//!
//! What to learn: lines in the schema of annals carry ids and causes. `leaves` and `path` walk an entity
//! whose events branch. The example git_history has the changes of each file.

use std::error::Error;
use std::io::{BufReader, Write};
use std::process::Command;

use annals::Store;
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let repository = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let log = Command::new("git")
        .args(["-C", &repository, "log", "--all", "--topo-order", "--reverse"])
        .arg("--format=%H%x1f%P%x1f%cI%x1f%an%x1f%s")
        .output()?;
    if !log.status.success() {
        return Err(String::from_utf8_lossy(&log.stderr).into());
    }
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    let directory = std::env::temp_dir().join(format!("annals-import-git-{}", std::process::id()));
    let store = Store::open(&directory)?;

    let imported = import(&store, &log)?;
    println!("imported  {imported}");
    assert_eq!(imported.events, log.lines().count() as u64);
    assert_eq!(import(&store, &log)?.events, 0, "a second run finds everything");

    let leaves = store.leaves("repository")?;
    println!("{} branches, also those that were merged; the newest:", leaves.len());
    for leaf in leaves.iter().rev().take(5) {
        let path = store.path(*leaf)?;
        let first = path.first().ok_or("no root")?;
        let last = path.last().ok_or("no leaf")?;
        assert_eq!(last.id(), *leaf);
        let subject = last.decode::<Value>()?["subject"].as_str().unwrap_or_default().to_owned();
        println!("{:>6} commits from {} to {}: {subject}", path.len(), first.version(), last.version());
    }
    store.close()?;
    std::fs::remove_dir_all(directory)?;
    Ok(())
}

/// Writes the commits as JSONL into a pipe, and imports from its other end at the same time.
fn import(store: &Store, log: &str) -> Result<annals::Imported, Box<dyn Error>> {
    let (reader, mut writer) = std::io::pipe()?;
    let imported = std::thread::scope(|threads| {
        threads
            .spawn(move || log.lines().filter_map(json_of).try_for_each(|line| writeln!(writer, "{line}")));
        store.import("git", BufReader::new(reader)).run()
    });
    Ok(imported?)
}

/// A commit: `hash parents time author subject`.
fn json_of(commit: &str) -> Option<Value> {
    let fields: Vec<&str> = commit.split('\x1f').collect();
    let [hash, parents, time, author, subject] = fields.as_slice() else { return None };
    let author: String = author.chars().filter(|c| !c.is_control()).take(50).collect();
    let mut line = json!({
        "id": hash.get(..32)?,
        "entity": "repository",
        "kind": "commit",
        "occurred_at": time,
        "tags": [format!("author:{author}")],
        "payload": { "hash": hash, "subject": subject },
    });
    if let Some(parent) = parents.split(' ').next().and_then(|hash| hash.get(..32)) {
        line["cause"] = parent.into();
    }
    Some(line)
}
