//! The `annals` command, family by family: a scripted tour with its golden text, JSON, payloads, lines,
//! consumers, indexes, archives.

use std::fs;
use std::os::unix::fs::MetadataExt;

use annals::{EventData, Query, Raw, Reaction, RecordedEvent, StopReason, Store};
use serde_json::Value;

use crate::support::*;

#[test]
fn a_tour_looks_as_it_did() {
    const TOUR: &str = include_str!("../golden/tour.txt");
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
        fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tour.txt"), &now).unwrap();
        return;
    }
    assert!(now == TOUR, "the tour is another one; ANNALS_GOLDEN=write writes it anew\n{now}");
}

/// Replaces the values that differ from run to run, by their form.
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
        // An export omits zeros at the end of a fraction.
        21..=27 if core.ends_with('Z') && core.as_bytes()[10] == b'T' => "TIME",
        10 if is_digits(core) && core.as_bytes()[4] == b'-' => "DATE",
        8 if is_digits(core) && core.as_bytes()[2] == b':' => "CLOCK",
        _ => core,
    };
    settled.to_owned() + &word[core.len()..]
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
    let doubled =
        READING.iter().chain(&ARCHIVING[..2]).chain(WRITING.iter().filter(|line| !line.contains("resume")));
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

/// Each payload is shown as the JSON that was appended.
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

    // The key makes the first line a replay. The second line conflicts with its own event.
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

#[test]
fn events_go_out_as_lines_and_come_in_again() {
    let (site, other) = (Site::filled(), Site::new());
    let lines = site.out("export");
    assert_eq!(lines.lines().count(), 3);
    let file = site.store.with_extension("jsonl");
    fs::write(&file, &lines).unwrap();
    let import = format!("import {} --create --json", file.display());
    let imported = |site: &Site| serde_json::from_str::<Value>(&site.out(&import)).unwrap();
    let first = imported(&other);
    assert_eq!((&first["name"], &first["events"]), (&"store.jsonl".into(), &3.into()));
    assert_eq!(imported(&other)["lines_before"], 3, "once");
    fs::write(&file, lines.clone() + "{\"entity\":\"late\",\"kind\":\"k\",\"payload\":1}\n").unwrap();
    assert_eq!(imported(&other)["events"], 1, "what is new");
    let shown = |site: &Site, id: &str| {
        let event: Value = serde_json::from_str(&site.out(&format!("get {id} --json"))).unwrap();
        [
            event["payload"].clone(),
            event["entity"].clone(),
            event["version"].clone(),
            event["metadata"].clone(),
        ]
    };
    for line in lines.lines() {
        let id = serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
        assert_eq!(shown(&site, &id), shown(&other, &id), "found by its old id");
    }
    assert_eq!(site.out("export --after 2").lines().count(), 1);
    assert_eq!(site.out("export --kind order.placed").lines().count(), 2);

    let foreign = "{\"who\":7,\"did\":\"login\",\"at\":1700000000}\nnonsense\n{\"who\":8,\"did\":\"logout\",\"at\":1700000001}\n";
    let map = "import - --name log --map-entity user:{/who} --map-kind session.{/did} --map-time /at --map-time-form seconds";
    let output = other.fed(map, foreign);
    assert_eq!(output.status.code(), Some(USAGE));
    let said = text(&output.stderr);
    assert!(said.contains("line 2") && said.contains("--skip-bad"), "{said}");
    let rejects = site.store.with_extension("rejects");
    let output = other.fed(&format!("{map} --skip-bad {}", rejects.display()), foreign);
    assert_eq!(output.status.code(), Some(NO), "something was rejected: {}", text(&output.stderr));
    assert!(text(&output.stdout).contains("1 line rejected"), "{}", text(&output.stdout));
    assert_eq!(fs::read_to_string(&rejects).unwrap(), "nonsense\n");
    assert_eq!(fs::metadata(&rejects).unwrap().mode() & 0o077, 0);
    assert_eq!(other.out("kinds --prefix session").lines().count(), 2);
}

#[test]
fn what_is_erased_is_gone_and_the_old_head_still_holds() {
    let site = Site::filled();
    let head = site.out("head");
    let erase = "erase --entity order:1 --reason 'ticket 12' --by anna";
    let output = site.run(erase);
    assert_eq!(output.status.code(), Some(NO), "nothing without --yes");
    assert!(text(&output.stdout).contains("events that match\t2"), "{}", text(&output.stdout));
    assert_eq!(site.out("head"), head);
    assert!(site.out(&format!("{erase} --yes")).contains("events erased\t2"));
    assert!(site.out("read --entity order:1").lines().all(|line| line.ends_with("(erased)")));
    let shown: Value = serde_json::from_str(&site.out("get 1 --json")).unwrap();
    assert_eq!((&shown["erased"], shown.get("payload")), (&true.into(), None));
    assert!(site.out("verify").starts_with("clean"));
    for (path, (_, bytes)) in files(&site.store) {
        assert!(!bytes.windows(6).any(|part| part == b"a book"), "{}", path.display());
    }
    assert!(
        site.out("read --entity $ledger").contains("ticket 12")
            && site.out("read --entity $ledger").contains("anna")
    );
    assert!(site.out("checkpoint").contains("beginning"));
    site.out("checkpoint 'before the import' --reason 'not trusted'");
    let taken: Vec<String> = site.out("checkpoint").lines().map(ToOwned::to_owned).collect();
    assert!(
        taken.len() == 2
            && taken[1].starts_with("before the import\t")
            && taken[1].ends_with("tester\tnot trusted")
    );
}

#[test]
fn compaction_removes_unneeded_events_and_the_old_head_still_holds() {
    let site = Site::new();
    let store = Store::builder(&site.store).segment_bytes_max(4_000).open().unwrap();
    for n in 0..90_u64 {
        let scope = if n % 3 == 0 { "tenant:acme" } else { "default" };
        store.append((format!("sensor:{}", n % 2), scope), &Raw("sensor.measured", &n)).unwrap();
    }
    drop(store.consumer("mail", Query::all().kind("sensor.measured")).unwrap());
    store.close().unwrap();
    let head = site.out("head").trim().to_owned();
    let json = |line: &str| -> Vec<Value> {
        text(&site.run(line).stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let compact = "compact --remove --prefix sensor: --keep-newest 10 --per entity --reason 'ten will do'";

    let output = site.run(compact);
    assert_eq!(output.status.code(), Some(NO), "nothing without --yes");
    assert!(text(&output.stdout).contains("compacted\tnothing yet"), "{}", text(&output.stdout));
    let plan = json(&format!("{compact} --dry-run --json"));
    let row = |what: &str, name: &str| {
        plan.iter().find(|row| row["what"] == what && row["name"] == name).unwrap_or(&Value::Null)
    };
    let removed = row("all", "")["removed"].as_u64().unwrap();
    assert!((50..=70).contains(&removed), "all but those that are not sealed: {plan:?}");
    assert_eq!(row("kind", "sensor.measured")["removed"], removed);
    let scopes = ["default", "tenant:acme"].map(|name| row("scope", name)["bytes"].as_u64().unwrap());
    // What goes, by scope and by kind; in all, less what comes in its place.
    assert_eq!(row("kind", "sensor.measured")["bytes"], scopes[0] + scopes[1]);
    let freed = row("all", "")["bytes"].as_u64().unwrap();
    assert!(freed < scopes[0] + scopes[1] && freed > (scopes[0] + scopes[1]) / 2, "{plan:?}");
    let missed = row("unhandled", "mail");
    assert_eq!((&missed["events"], &missed["first"]), (&removed.into(), &1.into()));
    let old = site.run(&format!("{compact} --yes"));
    assert_eq!(old.status.code(), Some(USAGE));
    let said = text(&old.stderr);
    assert!(said.contains("consumer mail") && said.contains("--even-unhandled"), "{said}");
    let recent = json(&format!("{compact} --older-than 90d --dry-run --json"));
    assert_eq!(recent[0]["removed"], 0, "nothing is that old");
    let before = json(&format!("{compact} --before 11 --dry-run --json"));
    assert_eq!(before[0]["removed"], 10);
    assert_eq!(site.out("read").lines().count(), 90);

    let done = &json(&format!("{compact} --merge --even-unhandled --by anna --yes --json"))[0];
    assert_eq!((&done["done"], &done["removed"]), (&true.into(), &70.into()));
    let segments = |name: &str| done[name].as_u64().unwrap();
    assert!(segments("segments_after") < segments("segments_before"), "{done}");
    assert!(segments("bytes_after") < segments("bytes_before"), "{done}");
    let left: Vec<Value> = json("read --prefix sensor: --json");
    assert_eq!(left.len(), 20);
    assert!(left.iter().all(|event| event["payload"].as_u64().unwrap() >= 70));
    let told = site.out(&format!("verify --head {head}"));
    assert!(told.starts_with("clean") && told.contains("verified up to"), "{told}");
    let ledger = site.out("read --entity $ledger");
    assert!(ledger.contains("ten will do") && ledger.contains("anna"), "{ledger}");
    let again = &json(&format!("{compact} --even-unhandled --yes --json"))[0];
    assert_eq!((&again["removed"], &again["position"]), (&0.into(), &Value::Null), "once");

    // Heads that `verify` printed, and several heads at a time.
    let verified = json("verify --json")[0]["verified"].as_str().unwrap().to_owned();
    assert_eq!(verified, site.out("head").trim());
    let both = format!("verify --head {head} --head {verified} --bytes-per-second 1000000000 --json");
    assert_eq!(json(&both)[0]["clean"], true);
    let rest = &json(&format!("verify --after {verified} --json"))[0];
    assert!(rest["clean"] == true && rest["events"].as_u64().unwrap() < 20, "{rest}");
    let behind = site.run(&format!("verify --after {verified} --head {head}"));
    assert_eq!(behind.status.code(), Some(USAGE));
    assert!(text(&behind.stderr).contains("leave one of them out"), "{}", text(&behind.stderr));
}

#[test]
fn a_halted_reactor_is_seen_and_moved() {
    let site = Site::filled();
    let store = Store::open(&site.store).unwrap();
    let worker =
        store.react("letters", Query::all(), |_: &RecordedEvent, _: &mut Reaction<'_>| Ok(())).unwrap();
    assert!(store.wait_for("letters", store.head().unwrap().position(), FOREVER).unwrap());
    // A stopped worker acknowledges the events that it handled. A halted one would not.
    assert!(matches!(worker.stop(), StopReason::Stopped));
    store.consumer_control("letters").by("anna").halt("the printer is on fire").unwrap();
    store.close().unwrap();

    let output = site.run("consumers");
    assert_eq!(output.status.code(), Some(NO), "an operator has to decide");
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

#[test]
fn a_store_is_backed_up_restored_forked_and_set_back() {
    let site = Site::filled();
    let json = |site: &Site, line: &str| -> Value { serde_json::from_slice(&site.run(line).stdout).unwrap() };
    let at = |name: &str, line: &str| {
        let line = format!("{line} --dir {}", site.beside(name).display());
        text(&site.run(&line).stdout)
    };
    let path = |name: &str| site.beside(name).display().to_string();

    // Beside a writer, and a second backup with the new events.
    let store = Store::open(&site.store).unwrap();
    let first = json(&site, &format!("backup {} --json", path("backup")));
    assert_eq!(first["to"], path("backup"));
    store.append("order:9", &Raw("order.placed", &9)).unwrap();
    store.close().unwrap();
    let second = json(&site, &format!("backup {} --json --without-sharing", path("backup")));
    let head = site.out("head").trim().to_owned();
    assert_eq!(second["head"], head.as_str());
    assert_eq!(at("backup", "head").trim(), head);
    assert!(at("backup", &format!("verify --head {head}")).starts_with("clean"));
    assert!(site.out(&format!("verify --head {head}")).starts_with("clean"));
    let other = head.replacen(|sign: char| sign.is_ascii_digit(), "1", 1);
    let (position, chain) = head.split_once(':').unwrap();
    let lied = format!("{position}:{}{}", if chain.starts_with('0') { '1' } else { '0' }, &chain[1..]);
    for wrong in [other, lied] {
        let output = site.run(&format!("verify --head {wrong}"));
        assert_ne!(output.status.code(), Some(YES), "{wrong}");
    }

    site.out(&format!(
        "restore {} {} --until @2 --reason 'what was it like?'",
        path("backup"),
        path("restored")
    ));
    assert_eq!(at("restored", "read").lines().count(), 2);
    assert!(at("restored", "read --entity $ledger").contains("what was it like?"));
    site.out(&format!("restore {} {} --until checkpoint:beginning", path("backup"), path("beginning")));
    assert_eq!(at("beginning", "read").lines().count(), 3);
    for (line, code) in [
        (format!("restore {} {}", path("backup"), path("restored")), USAGE),
        (format!("restore {} {}", path("nowhere"), path("new")), USAGE),
        (format!("restore {} {} --until @900", path("backup"), path("new")), USAGE),
        (format!("restore {} {} --until checkpoint:none", path("backup"), path("new")), USAGE),
        (format!("restore {} {} --until someday", path("backup"), path("new")), USAGE),
        (format!("backup {}", site.store.display()), USAGE),
        (format!("backup {}", path("restored")), DAMAGED),
        (format!("fork {}", path("backup")), USAGE),
    ] {
        let output = site.run(&line);
        assert_eq!(output.status.code(), Some(code), "{line}: {}", text(&output.stderr));
    }
    assert!(!site.beside("new").exists(), "what was refused left nothing behind");

    site.out(&format!("fork {} --until @1", path("fork")));
    assert_eq!(at("fork", "read").lines().count(), 1);
    assert_ne!(at("fork", "init --json"), site.out("init --json"));

    let refused = site.run("rollback checkpoint:beginning --reason 'a broken file'");
    assert_eq!(refused.status.code(), Some(NO));
    assert!(text(&refused.stdout).contains(&format!("say --cut {head}")), "{}", text(&refused.stdout));
    let old = at("backup", "head").replace("@", "@f");
    assert_eq!(site.run(&format!("rollback @1 --reason x --cut {old}")).status.code(), Some(USAGE));
    let done =
        json(&site, &format!("rollback checkpoint:beginning --reason 'a broken file' --json --cut {head}"));
    assert_eq!((&done["done"], &done["cut"]), (&true.into(), &head.as_str().into()));
    assert_eq!(site.out("read").lines().count(), 3);
    assert!(site.out("read --entity $ledger").contains("a broken file"));
    let quarantine = site.store.join(done["quarantine"].as_str().unwrap());
    assert_eq!(site.out(&format!("read --dir {}", quarantine.display())).lines().count(), 4);
    assert!(site.out("verify").starts_with("clean"));
    assert_eq!(site.run(&format!("verify --head {head}")).status.code(), Some(NO), "what was cut is missing");
}
