//! Imports the package history of this machine, and asks when each package changed.
//!
//! ```text
//! cargo run --release --features jsonl --example import_dpkg_log -- [log]     default: /var/log/dpkg.log
//! ```
//!
//! | in the log | in the store |
//! |---|---|
//! | package | entity: `package:libc6:amd64`; for lines without a package: `dpkg` |
//! | action | kind: `dpkg.upgrade`; a status is `dpkg.status.installed` |
//! | time | occurred-at, taken for UTC |
//! | the whole line | payload |
//!
//! What to learn: an adapter is a program that writes lines of JSON into a pipe, and a `Mapping` says what
//! they mean. A second import of a longer log adds only the new lines.

use std::error::Error;
use std::io::{BufReader, Write};

use annals::{Mapping, Query, Store, TimeForm};
use serde_json::{Value, json};

/// The log of a machine without dpkg.
const SAMPLE: &str = "\
2026-11-27 06:12:01 startup archives unpack
2026-11-27 06:12:01 upgrade libc6:amd64 2.36-9 2.36-10
2026-11-27 06:12:02 status half-installed libc6:amd64 2.36-9
2026-11-27 06:12:04 status unpacked libc6:amd64 2.36-10
2026-11-27 06:12:05 configure libc6:amd64 2.36-10 <none>
2026-11-27 06:12:05 status installed libc6:amd64 2.36-10
2026-11-27 06:12:09 install ripgrep:amd64 <none> 14.1.1-1
2026-11-27 06:12:09 status installed ripgrep:amd64 14.1.1-1
";

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "/var/log/dpkg.log".to_owned());
    let log = std::fs::read_to_string(path).ok().filter(|log| !log.is_empty());
    let log = log.unwrap_or_else(|| SAMPLE.to_owned());
    let directory = std::env::temp_dir().join(format!("annals-dpkg-log-{}", std::process::id()));
    let store = Store::open(&directory)?;

    let imported = import(&store, &log)?;
    println!("imported    {imported}");
    assert_eq!(store.count(Query::all())?, log.lines().count() as u64);
    assert_eq!(import(&store, &log)?.events, 0, "a second run finds everything");

    for kind in store.kinds().prefix("dpkg.").limit(10) {
        let kind = kind?;
        println!("{:>10}  {}", kind.events, kind.name);
    }
    let newest =
        store.read(Query::entity_prefix("package:").kind_prefix("dpkg.status.")).backwards().limit(3);
    for event in newest {
        let event = event?;
        let version: Option<String> = event.decode::<Value>()?["rest"][2].as_str().map(str::to_owned);
        println!("{}  {}  {}", event.entity(), event.kind(), version.unwrap_or_default());
    }
    store.close()?;
    std::fs::remove_dir_all(directory)?;
    Ok(())
}

/// Writes the log as JSONL into a pipe, and imports from its other end at the same time.
fn import(store: &Store, log: &str) -> Result<annals::Imported, Box<dyn Error>> {
    let mapping = Mapping::new("{/entity}", "{/kind}").time("/at", TimeForm::Rfc3339).payload("/line");
    let (reader, mut writer) = std::io::pipe()?;
    let imported = std::thread::scope(|threads| {
        threads.spawn(move || log.lines().try_for_each(|line| writeln!(writer, "{}", json_of(line))));
        store.import("dpkg.log", BufReader::new(reader)).mapped(mapping).run()
    });
    Ok(imported?)
}

/// A line is `date time action words...`. The package is the second word of a status, else the first.
fn json_of(line: &str) -> Value {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [date, time, action, rest @ ..] = words.as_slice() else {
        return json!({ "entity": "dpkg", "kind": "dpkg.odd", "line": line });
    };
    let (kind, package) = match (*action, rest) {
        ("status", [state, package, ..]) => (format!("dpkg.status.{state}"), Some(package)),
        ("startup" | "conffile", _) => (format!("dpkg.{action}"), None),
        (action, [package, ..]) => (format!("dpkg.{action}"), Some(package)),
        (action, []) => (format!("dpkg.{action}"), None),
    };
    let entity = package.map_or("dpkg".to_owned(), |package| format!("package:{package}"));
    json!({ "at": format!("{date}T{time}Z"), "entity": entity, "kind": kind, "line": { "action": action, "rest": rest } })
}
