//! The `annals` command: a scripted tour with its golden text, every command over every bad input, pipes, signals,
//! full disks, hooks.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use annals::{Append, EventData, Query, Raw, Reaction, RecordedEvent, Store};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{FOREVER, eventually};

const YES: i32 = 0;
const NO: i32 = 1;
const USAGE: i32 = 2;
const LATER: i32 = 3;
const DAMAGED: i32 = 5;
const NEWER: i32 = 6;
const SYSTEM: i32 = 8;
const INTERRUPTED: i32 = 130;

const PROGRAM: &str = env!("CARGO_BIN_EXE_annals");

struct Site {
    _directory: TempDir,
    store: PathBuf,
}

impl Site {
    fn new() -> Site {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        Site { _directory: directory, store }
    }

    fn command(&self, line: &str) -> Command {
        command(&self.store, &words(line))
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// Standard output of a command that must work.
    fn out(&self, line: &str) -> String {
        let output = self.run(line);
        assert_eq!(output.status.code(), Some(YES), "{line}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn fed(&self, line: &str, input: &str) -> Output {
        let mut child = self.start(line);
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    fn start(&self, line: &str) -> Child {
        let mut command = self.command(line);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// A store with a little of everything.
    fn filled() -> Site {
        let site = Site::new();
        let store = Store::open(&site.store).unwrap();
        let placed = Append::to(("order:1", "tenant:acme")).event(&Raw("order.placed", &"a book")).tag("vip");
        let placed = placed.commit(&store).unwrap();
        let placed = store.get(placed.id()).unwrap().unwrap();
        let paid = Append::to(("order:1", "tenant:acme")).event(&Raw("order.paid", &20));
        paid.caused_by(&placed).metadata(&"by card").commit(&store).unwrap();
        store.append("order:2", &Raw("order.placed", &[1, 2])).unwrap();
        drop(store.consumer("mail", Query::all()).unwrap());
        store.close().unwrap();
        site
    }
}

fn command(store: &Path, words: &[String]) -> Command {
    let mut command = Command::new(PROGRAM);
    for name in ["ANNALS_DURABILITY", "ANNALS_QUEUE", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command.env("ANNALS_DIR", store).env("USER", "tester").args(words).stdin(Stdio::null());
    command
}

/// As a shell takes a line apart, with single quotes only.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut quoted, mut word) = (Vec::new(), false, None::<String>);
    for sign in line.chars() {
        match sign {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            sign => word.get_or_insert_default().push(sign),
        }
    }
    words.extend(word);
    words
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Every file below a directory but the lock, whose text is for people.
fn files(directory: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let (mut found, mut left) = (BTreeMap::new(), vec![directory.to_owned()]);
    while let Some(path) = left.pop() {
        let Ok(about) = fs::symlink_metadata(&path) else { continue };
        if about.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            found.insert(path, (about.mode(), Vec::new()));
        } else if !path.ends_with("LOCK") {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, (about.mode(), bytes));
        }
    }
    found
}

/// Commands that read; each has an answer in [`Site::filled`].
const READING: [&str; 24] = [
    "get 1",
    "read",
    "read --entity order:1 --after 1",
    "read --kind order.p* --backwards --limit 1",
    "read --between 2000-01-01..2100-01-01 --scope tenant:acme --tag vip",
    "tail -n 2",
    "entities",
    "kinds --prefix order.",
    "scopes",
    "tags",
    "stats",
    "story 1",
    "story 1 --form dot",
    "ancestors 2",
    "descendants @1",
    "path 2",
    "verify",
    "head",
    "head --durable",
    "consumers",
    "consumers list",
    "recover",
    "doctor",
    "describe",
];

/// Commands that write.
const WRITING: [&str; 9] = [
    "init",
    "append order:3 order.placed 1",
    "append order:3 order.placed 1 --create",
    "consumers halt mail --reason moved",
    "consumers resume mail",
    "consumers skip mail 3 --reason moved",
    "consumers rewind mail 1 --reason again",
    "consumers reset mail --reason again",
    "reindex",
];

#[test]
fn a_tour_looks_as_it_did() {
    const TOUR: &str = include_str!("../golden/cli_tour.txt");
    let site = Site::new();
    let mut now = String::new();
    for line in TOUR.lines().filter_map(|line| line.strip_prefix("$ annals ")) {
        let output = site.run(line);
        now += &format!("$ annals {line}\n{}", text(&output.stdout));
        for line in text(&output.stderr).lines() {
            now += &format!("! {line}\n");
        }
        if output.status.code() != Some(YES) {
            now += &format!("[{}]\n", output.status.code().unwrap());
        }
    }
    let now = settled(&now, &site);
    if std::env::var_os("ANNALS_GOLDEN").is_some_and(|what| what == "write")
        && std::env::var_os("CI").is_none()
    {
        fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/cli_tour.txt"), &now).unwrap();
        return;
    }
    assert!(now == TOUR, "the tour is another one; ANNALS_GOLDEN=write writes it anew\n{now}");
}

/// What differs from run to run, by its form.
fn settled(text: &str, site: &Site) -> String {
    let text = text.replace(site.store.to_str().unwrap(), "STORE");
    let (mut settled, mut word) = (String::new(), String::new());
    for sign in text.chars().chain(['\0']) {
        if sign.is_ascii_alphanumeric() || "-:.".contains(sign) {
            word.push(sign);
            continue;
        }
        settled += &settle_word(&word);
        word.clear();
        settled.extend(Some(sign).filter(|sign| *sign != '\0'));
    }
    settled
}

fn settle_word(word: &str) -> String {
    let is_hex = |text: &str| text.chars().all(|sign| sign.is_ascii_hexdigit() || sign == '-');
    let is_digits = |text: &str| text.chars().all(|sign| sign.is_ascii_digit() || "-:".contains(sign));
    if let Some((position, chain)) = word.split_once(':')
        && chain.len() == 64
        && is_hex(chain)
    {
        return format!("{position}:CHAIN");
    }
    let core = word.trim_end_matches([':', '.']);
    let settled = match core.len() {
        36 if is_hex(core) => "ID",
        64 if is_hex(core) => "CHAIN",
        27 if core.ends_with('Z') && core.as_bytes()[10] == b'T' => "TIME",
        10 if is_digits(core) && core.as_bytes()[4] == b'-' => "DATE",
        8 if is_digits(core) && core.as_bytes()[2] == b':' => "CLOCK",
        _ => core,
    };
    settled.to_owned() + &word[core.len()..]
}

/// What stands where a store should be.
fn bad_places() -> Vec<(&'static str, Site)> {
    let (missing, file, empty, foreign) = (Site::new(), Site::new(), Site::new(), Site::new());
    fs::write(&file.store, "a letter").unwrap();
    fs::create_dir(&empty.store).unwrap();
    fs::create_dir(&foreign.store).unwrap();
    fs::write(foreign.store.join("letter.txt"), "a letter").unwrap();
    let (newer, damaged) = (Site::filled(), Site::filled());
    change(&newer, |bytes| {
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..140]);
        bytes[140..144].copy_from_slice(&crc.to_le_bytes());
    });
    change(&damaged, |bytes| bytes[300] ^= 1);
    vec![
        ("missing", missing),
        ("file", file),
        ("empty", empty),
        ("foreign", foreign),
        ("newer", newer),
        ("damaged", damaged),
    ]
}

fn change(site: &Site, change: impl FnOnce(&mut [u8])) {
    let path = site.store.join("segments/00000000000000000001.0.seg");
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// How a command ends where there is no store as it should be, and a word of what it says.
fn expected(place: &str, line: &str) -> (i32, &'static str) {
    let creates = line == "init" || line.ends_with("--create");
    match place {
        "missing" | "empty" if creates => (YES, ""),
        "missing" => (USAGE, "there is no"),
        "file" => (USAGE, "is a file; a store is a directory"),
        "empty" => (USAGE, "which is empty"),
        "foreign" if creates => (USAGE, "holds other things"),
        "foreign" => (USAGE, "only other things"),
        "newer" if line == "doctor" => (NO, ""),
        "newer" => (NEWER, "needs a newer annals"),
        _ if ["verify", "recover", "doctor"].contains(&line) => (NO, ""),
        _ => (DAMAGED, "offset"),
    }
}

#[test]
fn every_command_meets_every_bad_place() {
    let mut met = 0;
    for (name, site) in bad_places() {
        let whole = files(&site.store);
        for line in READING.iter().chain(&WRITING) {
            let output = site.run(line);
            let said = text(&output.stderr);
            let (code, word) = expected(name, line);
            assert_eq!(output.status.code(), Some(code), "{name}: {line}: {said}");
            assert!(said.contains(word), "{name}: {line}: {said}");
            if code == YES {
                fs::remove_dir_all(&site.store).unwrap();
                if name == "empty" {
                    fs::create_dir(&site.store).unwrap();
                }
                met += 1;
                continue;
            }
            assert!(code == NO || said.starts_with("annals: "), "{name}: {line}: {said}");
            assert!(files(&site.store) == whole, "{name}: {line} changed something");

            let output = site.run(&format!("{line} --json"));
            assert_eq!(output.status.code(), Some(code), "{name}: {line} --json");
            if code != NO {
                let error: Value = serde_json::from_slice(&output.stderr).unwrap();
                assert_eq!(error["error"]["code"], code, "{error}");
                assert!(error["error"]["message"].as_str().unwrap().contains(word), "{error}");
            }
            met += 1;
        }
    }
    println!("{met} commands met a bad place");
    let nowhere = Command::new(PROGRAM).env_remove("ANNALS_DIR").arg("read").output().unwrap();
    assert_eq!(nowhere.status.code(), Some(USAGE));
    assert!(text(&nowhere.stderr).contains("--dir"));
}

#[test]
fn wrong_calls_are_told_what_to_change() {
    let site = Site::filled();
    let whole = files(&site.store);
    for (line, code, word) in [
        ("", USAGE, "Usage"),
        ("reed", USAGE, "unrecognized"),
        ("get", USAGE, "<ID|POSITION>"),
        ("get yesterday", USAGE, "is no event"),
        ("get 99", NO, "the newest is at"),
        ("get 01a222eb-d88c-7000-8000-00000583cd30", NO, "there is no event"),
        ("story 01a222eb-d88c-7000-8000-00000583cd30", NO, "no event belongs"),
        ("ancestors 99", NO, "there is no event"),
        ("read --between yesterday", USAGE, "is no span of time"),
        ("read --between x..", USAGE, "is no time"),
        ("read --versions 1..2", USAGE, "within one stream"),
        ("read --after=-1", USAGE, "--after"),
        ("append order:1", USAGE, "<KIND>"),
        ("append order:1 order.paid {", USAGE, "is no JSON"),
        ("append order:1 order.paid hello", USAGE, "quotes"),
        ("append order:1 order.paid 1 --expect two", USAGE, "is no expectation"),
        ("append order:1 order.paid 1 --cause nobody", USAGE, "is no cause"),
        ("append order:1 order.paid 1 --metadata {", USAGE, "--metadata"),
        ("append $x order.paid 1", USAGE, "$"),
        ("append order:1 order.paid @nowhere.json", USAGE, "nowhere.json"),
        ("append --lines nowhere.jsonl", USAGE, "nowhere.jsonl"),
        ("append order:1 order.paid 1 --expect 1", NO, "version 2"),
        ("append order:1 order.paid 1 --expect none", NO, "expected no stream"),
        ("consumers resume mail", USAGE, "is not halted"),
        ("consumers resume nobody", USAGE, "no consumer nobody"),
        ("consumers skip mail 900 --reason x", USAGE, "durable up to"),
        ("read --durability soon", USAGE, "say synced"),
        ("read --wait x", USAGE, "is no time"),
        ("completions nosuchshell", USAGE, "invalid value"),
    ] {
        let output = site.run(line);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {said}");
        assert!(said.contains(word), "{line}: {said}");
    }
    assert!(site.out("read --prefix $").lines().count() == 1, "nothing was appended");
    assert_eq!(site.out("read").lines().count(), 3);
    drop(whole);
    for (name, value, word) in [
        ("ANNALS_DURABILITY", "soon", "ANNALS_DURABILITY: \"soon\""),
        ("ANNALS_QUEUE", "many", "ANNALS_QUEUE: \"many\""),
        ("ANNALS_QUEUE", "0", "ANNALS_QUEUE: \"0\""),
    ] {
        let output = site.command("read").env(name, value).output().unwrap();
        assert_eq!(output.status.code(), Some(USAGE));
        assert!(text(&output.stderr).contains(word), "{}", text(&output.stderr));
    }
}

#[test]
fn the_environment_stands_in_for_options() {
    let site = Site::filled();
    let describe = |line: &str, name: &str, value: &str| {
        let output = site.command(line).env(name, value).output().unwrap();
        let description: Value = serde_json::from_slice(&output.stdout).unwrap();
        description["options"].clone()
    };
    let json = "describe --json";
    assert_eq!(describe(json, "ANNALS_QUEUE", "")["durability"], "Synced");
    let buffered = describe(json, "ANNALS_DURABILITY", "buffered:250ms");
    assert_eq!(buffered["durability"], "Buffered { flush_every: 250ms }");
    assert_eq!(describe(json, "ANNALS_QUEUE", "7")["queue_commands_max"], "7");
    assert_eq!(describe("describe --json --queue 9", "ANNALS_QUEUE", "7")["queue_commands_max"], "9");
    let over = describe("describe --json --durability synced", "ANNALS_DURABILITY", "buffered");
    assert_eq!(over["durability"], "Synced");

    let elsewhere = Site::filled();
    elsewhere.out("append order:9 order.placed");
    let there = format!("read --entity order:9 --dir {}", elsewhere.store.display());
    assert_eq!(site.out(&there).lines().count(), 1, "--dir counts more");
}

#[test]
fn everything_speaks_json() {
    let site = Site::filled();
    let doubled = READING.iter().chain(WRITING.iter().filter(|line| !line.contains("resume")));
    for line in doubled.chain(&["consumers resume mail"]) {
        if *line == "consumers resume mail" {
            site.out("consumers halt mail --reason again");
        }
        let output = site.run(&format!("{line} --json"));
        let halts = line.contains("halt");
        assert!(halts || output.status.success(), "{line}: {}", text(&output.stderr));
        let out = text(&output.stdout);
        assert!(!out.is_empty(), "{line} says nothing");
        let whole = serde_json::from_str::<Value>(&out).is_ok_and(|value| value.is_object());
        let lines =
            || out.lines().all(|line| serde_json::from_str::<Value>(line).is_ok_and(|it| it.is_object()));
        assert!(whole || lines(), "{line}: {out}");
    }
}

#[test]
fn reading_writes_nothing_and_goes_on_beside_a_writer() {
    let site = Site::filled();
    let store = Store::open(&site.store).unwrap();
    store.append("order:7", &Raw("order.placed", &())).unwrap();
    store.sync().unwrap();
    let whole = files(&site.store);
    for line in READING {
        site.out(line);
    }
    assert!(files(&site.store) == whole);
    assert_eq!(site.out("read --entity order:7").lines().count(), 1, "up to the durable mark");
    for line in WRITING {
        let output = site.run(&format!("{line} --wait 0s"));
        assert_eq!(output.status.code(), Some(LATER), "{line}: {}", text(&output.stderr));
        let said = text(&output.stderr);
        assert!(
            said.contains(&format!("process {}", std::process::id())) && said.contains("--wait"),
            "{said}"
        );
    }
    store.close().unwrap();
    site.out("append order:7 order.paid");
}

/// Each payload, as JSON, comes back as it went in.
#[test]
fn payloads_come_back() {
    let site = Site::new();
    for payload in [
        "null",
        "true",
        "-5",
        "18446744073709551615",
        "0.1",
        "1e+300",
        r#""a \u0000 text""#,
        "[]",
        "{}",
        r#"{"z":1,"a":{"b":[1,2,{"c":null}]}}"#,
        r#"{"$bytes":"aGk="}"#,
        r#"{"deep":[{"$bytes":""}]}"#,
        r#"{"$float":"NaN"}"#,
        r#"{"$float":"-inf"}"#,
        r#"{"$map":[[1,"one"],[{"$bytes":"aGk="},2]]}"#,
        r#"{"$ext":[5,"aGk="]}"#,
        r#"{"$raw":"wQ=="}"#,
        r#"{"$bytes":"aGk=","and":"more"}"#,
        r#"{"$bytes":"no base64"}"#,
        r#"{"$map":[["$bytes","aGk="]]}"#,
        r#"{"$map":[["$raw","aGk="]]}"#,
    ] {
        site.out(&format!("append thing:1 thing.happened '{payload}' --create"));
        let shown: Value = serde_json::from_str(&site.out("tail -n 1 --json")).unwrap();
        assert_eq!(shown["payload"], serde_json::from_str::<Value>(payload).unwrap());
        assert_eq!(shown["payload"].to_string(), payload, "also in its order");
    }
    let store = Store::open(&site.store).unwrap();
    let mut all = store.stream("thing:1").map(Result::unwrap);
    assert!(all.any(|event| event.payload().unwrap() == [0xc4, 2, b'h', b'i']), "bytes are bytes");
    store.append("thing:2", &Torn).unwrap();
    store.close().unwrap();
    let shown: Value = serde_json::from_str(&site.out("tail -n 1 --json")).unwrap();
    assert_eq!(shown["payload"], serde_json::json!({ "$raw": "wQ==" }));
}

/// A payload that is no MessagePack.
struct Torn;

impl EventData for Torn {
    fn kind(&self) -> &str {
        "thing.torn"
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), annals::Error> {
        out.push(0xc1);
        Ok(())
    }
}

#[test]
fn lines_go_in_one_by_one_or_at_once() {
    let site = Site::new();
    site.out("init");
    let lines = concat!(
        r#"{"entity":"a","kind":"k","payload":{"n":1},"tags":["t"],"scope":"s","expect":"none","key":"1"}"#,
        "\n\n",
        r#"{"entity":"a","kind":"k","metadata":"m","occurred_at":"2020-01-01","cause":"previous","expect":1}"#,
        "\n",
        r#"{"entity":"b","kind":"k","schema_version":3}"#
    );
    let output = site.fed("append --lines - --json", lines);
    assert_eq!(output.status.code(), Some(YES), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).lines().count(), 3);
    let events: Vec<Value> =
        site.out("read --json").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&events[0]["scope"], &events[0]["tags"][0]), (&"s".into(), &"t".into()));
    assert_eq!((&events[1]["cause"], &events[1]["metadata"]), (&"previous".into(), &"m".into()));
    assert_eq!(events[1]["occurred_at"], "2020-01-01T00:00:00.000000Z");
    assert_eq!(events[2]["schema_version"], 3);

    // The key of the first line makes it a replay; the second meets what it did itself.
    let output = site.fed("append --lines -", lines);
    assert_eq!(output.status.code(), Some(NO));
    let said = text(&output.stderr);
    assert!(said.contains("standard input, line 3") && said.contains("up to line 1 is in"), "{said}");
    assert!(text(&output.stdout).contains("replayed"));

    for (bad, word) in [
        ("{\"entity\":\"a\"}", "missing field `kind`"),
        ("{\"entity\":\"a\",\"kind\":\"k\",\"colour\":1}", "unknown field `colour`"),
        ("nonsense", "expected"),
        ("{\"entity\":\"\",\"kind\":\"k\"}", "entity"),
    ] {
        let before = site.out("head");
        let output =
            site.fed("append --lines - --atomic", &format!("{{\"entity\":\"a\",\"kind\":\"k\"}}\n{bad}"));
        assert_eq!(output.status.code(), Some(USAGE), "{bad}");
        assert!(text(&output.stderr).contains(word), "{}", text(&output.stderr));
        assert_eq!(site.out("head"), before, "all or nothing");
    }
    let output = site.fed("append log:1 line.seen --lines - --atomic --key k1 --json", "1\n2\n3\n");
    let receipt: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&receipt["events"], &receipt["replayed"]), (&3.into(), &false.into()));
    let output = site.fed("append log:1 line.seen --lines - --atomic --key k1 --json", "1\n2\n3\n");
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["replayed"], true);
    let output = site.fed("append log:1 line.seen --lines - --atomic --key k1", "1\n2\n4\n");
    assert_eq!(output.status.code(), Some(NO));
    assert!(text(&output.stderr).contains("use a new key"), "{}", text(&output.stderr));
    assert_eq!(text(&site.fed("append log:2 note.made -", "\"from a pipe\"").stderr), "");
    assert!(site.out("tail -n 1").contains("from a pipe"));
}

/// `annals read | head`.
#[test]
fn a_closed_pipe_ends_it_quietly() {
    let site = Site::new();
    let store = Store::open(&site.store).unwrap();
    for n in 0..3_000 {
        Append::to("e").event(&Raw("k", &vec![n; 50])).submit(&store).unwrap().wait().unwrap();
    }
    store.close().unwrap();
    for line in ["read", "read --json", "read --table", "read --follow"] {
        let mut child = site.start(line);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        out.read_line(&mut first).unwrap();
        drop(out);
        // Whoever follows notices with the next event.
        if line.contains("follow") {
            site.out("append e k");
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(YES), String::new()), "{line}");
    }
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = site.command("read").stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(SYSTEM), "a full disk under the output is no closed pipe");
}

fn interrupt(child: &Child) {
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn ctrl_c_leaves_everything_whole_and_says_where_to_go_on() {
    let site = Site::filled();
    let mut child = site.start("read --follow");
    let mut out = BufReader::new(child.stdout.take().unwrap());
    for _ in 0..3 {
        out.read_line(&mut String::new()).unwrap();
    }
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(INTERRUPTED));
    assert_eq!(text(&output.stderr), "annals: interrupted; go on with --after 3\n");

    // Lines come one by one, and each is acknowledged; then there is no more for a while.
    let mut child = site.start("append log:1 line.seen --lines -");
    let mut input = child.stdin.take().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    for n in 0..5 {
        writeln!(input, "{n}").unwrap();
        let mut receipt = String::new();
        out.read_line(&mut receipt).unwrap();
        assert!(receipt.contains('\t'), "{receipt}");
    }
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(INTERRUPTED));
    assert_eq!(text(&output.stderr), "annals: interrupted; go on behind line 5\n");
    drop(input);
    let store = Store::open(&site.store).unwrap();
    assert!(store.open_report().clean, "it was closed");
    assert_eq!(store.version("log:1").unwrap().get(), 5);
    store.close().unwrap();

    // In the middle of many: what was acknowledged is there, and what is there is a beginning.
    let mut child = site.start("append log:2 line.seen --lines - --json");
    let mut input = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || {
        // Until nobody reads any more.
        (0_u64..).take_while(|n| writeln!(input, "{n}").is_ok()).count()
    });
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut acknowledged = String::new();
    out.read_line(&mut acknowledged).unwrap();
    interrupt(&child);
    out.read_to_string(&mut acknowledged).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(INTERRUPTED));
    feeder.join().unwrap();
    let store = Store::open(&site.store).unwrap();
    assert!(store.open_report().clean);
    let kept: Vec<u64> = store.stream("log:2").map(|event| event.unwrap().decode().unwrap()).collect();
    assert!(kept.iter().copied().eq(0..kept.len() as u64));
    assert!(kept.len() >= acknowledged.lines().count());
    store.close().unwrap();
}

/// Beyond the limit every write fails as on a full disk.
#[test]
fn a_full_disk_loses_nothing_and_a_rerun_continues() {
    let site = Site::filled();
    let line = |n: u64| {
        format!(
            "{{\"entity\":\"big\",\"kind\":\"k\",\"key\":\"{n}\",\"payload\":\"{}\"}}\n",
            "x".repeat(20_000)
        )
    };
    let lines: String = (0..60).map(line).collect();
    let file = site.store.with_extension("jsonl");
    fs::write(&file, lines).unwrap();
    let append = format!("{PROGRAM} append --lines {}", file.display());
    let limited = |script: &str| {
        let script = format!("ulimit -f 600; trap '' XFSZ; {script}");
        Command::new("bash").args(["-c", &script]).env("ANNALS_DIR", &site.store).output().unwrap()
    };
    let output = limited(&append);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(LATER), "{said}");
    let acknowledged = text(&output.stdout).lines().count();
    assert!((1..60).contains(&acknowledged), "{acknowledged}");
    assert!(said.contains(&format!("everything up to line {acknowledged} is in")), "{said}");
    let store = Store::open_read_only(&site.store).unwrap();
    assert_eq!(store.version("big").unwrap().get(), acknowledged as u64);
    drop(store);

    let again = site.out(&format!("append --lines {}", file.display()));
    assert_eq!(again.lines().filter(|line| line.ends_with("replayed")).count(), acknowledged);
    assert_eq!(again.lines().count(), 60);
    assert!(site.out("verify").starts_with("clean"));
    assert_eq!(site.out("read --entity order:1").lines().count(), 2, "and what was there is there");
}

/// Hooks: short-lived processes that all append at once.
#[test]
fn hooks_take_turns() {
    const PROCESSES: usize = 16;
    const APPENDS: usize = 12;
    let site = Site::new();
    std::thread::scope(|scope| {
        for process in 0..PROCESSES {
            let site = &site;
            scope.spawn(move || {
                for n in 0..APPENDS {
                    let entity = format!("hook:{}", process % 3);
                    let line = format!(
                        "append {entity} hook.ran '[{process},{n}]' --create --wait {}s",
                        FOREVER.as_secs() * 3
                    );
                    site.out(&line);
                }
            });
        }
    });
    let store = Store::open(&site.store).unwrap();
    assert!(store.open_report().clean);
    let mut seen = Vec::new();
    for entity in 0..3 {
        for (version, event) in (1..).zip(store.stream(format!("hook:{entity}"))) {
            let event = event.unwrap();
            assert_eq!(event.version().get(), version);
            seen.push(event.decode::<(usize, usize)>().unwrap());
        }
    }
    seen.sort_unstable();
    let all = (0..PROCESSES).flat_map(|process| (0..APPENDS).map(move |n| (process, n)));
    assert!(seen.into_iter().eq(all), "every one is in, once");
    assert!(store.verify().unwrap().is_clean());
    store.close().unwrap();
}

/// Whatever the umask says.
#[test]
fn files_are_their_owners_only() {
    let site = Site::new();
    let script = format!("umask 0; {PROGRAM} append a k --create && {PROGRAM} reindex");
    let output = Command::new("sh").args(["-c", &script]).env("ANNALS_DIR", &site.store).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    for (path, (mode, _)) in files(&site.store) {
        assert_eq!(mode & 0o077, 0, "{}", path.display());
    }
    assert!(!site.out("doctor").contains("bad"));
    let chmod = |mode: &str| Command::new("chmod").arg(mode).arg(&site.store).status().unwrap();
    chmod("777");
    let output = site.run("doctor");
    assert_eq!(output.status.code(), Some(NO));
    assert!(text(&output.stdout).contains("chmod 700"));
    assert_eq!(site.run("read").status.code(), Some(7));
    assert_eq!(site.run("read --allow-shared-directory").status.code(), Some(YES));
}

#[test]
fn a_halted_reactor_is_seen_and_moved() {
    let site = Site::filled();
    let store = Store::open(&site.store).unwrap();
    let worker =
        store.react("letters", Query::all(), |_: &RecordedEvent, _: &mut Reaction<'_>| Ok(())).unwrap();
    assert!(store.wait_for("letters", store.head().unwrap().position(), FOREVER).unwrap());
    drop(worker);
    store.consumer_control("letters").by("anna").halt("the printer is on fire").unwrap();
    store.close().unwrap();

    let output = site.run("consumers");
    assert_eq!(output.status.code(), Some(NO), "somebody has to decide");
    assert!(text(&output.stdout).contains("halted by anna: the printer is on fire"));
    let doctor = site.run("doctor");
    assert_eq!(doctor.status.code(), Some(NO));
    assert!(text(&doctor.stdout).contains("annals consumers resume"));
    assert!(site.out("consumers resume letters --by bert").contains("idle"));
    let halts: Value =
        serde_json::from_str(site.out("read --entity $consumer/letters --json").lines().last().unwrap())
            .unwrap();
    assert_eq!((&halts["kind"], &halts["payload"]["by"]), (&"$consumer.resumed".into(), &"bert".into()));
    site.out("consumers rewind letters 1 --reason again");
    assert!(
        site.out("consumers").lines().any(|line| line.starts_with("letters\t1\t2\tlagging")),
        "{}",
        site.out("consumers")
    );
    site.out("consumers skip letters 3 --reason enough");
    assert!(site.out("consumers").contains("letters\t3\t0\tidle"));
}

#[test]
fn what_is_left_of_a_damaged_store_is_copied() {
    let site = Site::new();
    let store = Store::builder(&site.store).segment_bytes_max(4_000).open().unwrap();
    for n in 0..40_u64 {
        let mut append = Append::to(format!("e:{}", n % 3)).event(&Raw("k", &n)).tag("t").metadata(&("m", n));
        if n >= 3 {
            append = append.cause(annals::Cause::PreviousInStream);
        }
        append.and_to("f").event(&Raw("k", &n)).commit(&store).unwrap();
    }
    store.close().unwrap();
    change(&site, |bytes| bytes[700] ^= 1);
    let verify = site.run("verify");
    assert_eq!(verify.status.code(), Some(NO));
    assert!(text(&verify.stdout).starts_with("DAMAGED"), "{}", text(&verify.stdout));

    let copy = site.store.with_extension("copy");
    let whole = files(&site.store);
    let line = format!("recover --salvage {} --json", copy.display());
    let output = site.run(&line);
    assert_eq!(output.status.code(), Some(NO), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(!report["holes"].as_array().unwrap().is_empty(), "{report}");
    assert!(files(&site.store) == whole, "the damaged one is as it was");
    assert_eq!(site.run(&line).status.code(), Some(USAGE), "not into something that is there");

    let (damaged, copied) =
        (Store::builder(&site.store).salvage().unwrap(), Store::open_read_only(&copy).unwrap());
    let (old, new) = (damaged.read(Query::all()), copied.read(Query::all()));
    let mut compared = 0;
    for (old, new) in old.zip(new) {
        let (old, new) = (old.unwrap(), new.unwrap());
        assert_eq!((old.id(), old.correlation()), (new.id(), new.correlation()));
        assert_eq!(
            (old.coordinate(), old.kind(), old.payload().unwrap()),
            (new.coordinate(), new.kind(), new.payload().unwrap())
        );
        assert_eq!(old.metadata::<annals::Value>().unwrap(), new.metadata::<annals::Value>().unwrap());
        assert!(old.tags().eq(new.tags()));
        assert_eq!(Some(old.recorded_at()), new.occurred_at());
        compared += 1;
    }
    assert_eq!(report["events"], compared);
    assert!((60..80).contains(&compared), "one append is lost, or those of one segment: {compared}");
    assert!(copied.verify().unwrap().is_clean());
}

#[test]
fn indexes_come_back() {
    let site = Site::new();
    let store = Store::builder(&site.store).segment_bytes_max(4_000).open().unwrap();
    for n in 0..200_u64 {
        store.append("e", &Raw("k", &n)).unwrap();
    }
    store.close().unwrap();
    let indexes = || {
        let files = fs::read_dir(site.store.join("segments")).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|it| it == "idx")).collect::<Vec<_>>()
    };
    site.out("reindex");
    let built = indexes();
    assert!(built.len() > 2);
    let whole: Vec<Vec<u8>> = built.iter().map(|path| fs::read(path).unwrap()).collect();
    fs::remove_file(&built[0]).unwrap();
    fs::write(&built[1], "nonsense").unwrap();
    assert!(site.out("doctor").contains("annals reindex"));
    let report: Value = serde_json::from_str(&site.out("reindex --json")).unwrap();
    assert_eq!(report["indexes"], built.len());
    assert_eq!(built.iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>(), whole);
    assert!(!site.out("doctor").contains("annals reindex"));
}

#[test]
fn bench_measures_and_leaves_nothing_behind() {
    let site = Site::filled();
    let before = files(site.store.parent().unwrap());
    let out = site.out("bench --time 50ms --json");
    assert_eq!(out.lines().count(), 6, "{out}");
    for line in out.lines() {
        let measured: Value = serde_json::from_str(line).unwrap();
        assert!(measured["per_second"].as_u64().unwrap() > 0, "{measured}");
    }
    assert!(files(site.store.parent().unwrap()) == before);
    let child = site.start("bench --time 60s");
    let is_there = || fs::read_dir(site.store.parent().unwrap()).unwrap().count() > 1;
    eventually("the workshop is there", is_there);
    interrupt(&child);
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(INTERRUPTED));
    assert!(files(site.store.parent().unwrap()) == before);
}

#[test]
fn completions_and_the_manual_name_every_command() {
    let site = Site::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = site.out(&format!("completions {shell}"));
        for command in ["append", "consumers", "salvage"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
    let (man, help) = (site.out("man"), site.out("--help"));
    assert!(man.starts_with(".ie") || man.contains(".TH annals"), "{man}");
    for line in READING.iter().chain(&WRITING) {
        let command = line.split(' ').next().unwrap();
        assert!(man.contains(command) && help.contains(command), "{command}");
    }
    for code in ["  0  done", "  5  what is stored", "ANNALS_DIR"] {
        assert!(help.contains(code), "{help}");
    }
}

#[test]
fn colours_are_for_terminals_and_those_who_ask() {
    let site = Site::filled();
    for (line, coloured) in [
        ("read", false),
        ("read --table", false),
        ("read --table --color always", true),
        ("read --json --color always", false),
    ] {
        assert_eq!(site.out(line).contains('\u{1b}'), coloured, "{line}");
    }
}
