//! The `annals` command: values and names, through every input and in every output format.

use std::fs;
use std::process::{Output, Stdio};

use annals::{Append, Query, Raw, Store};
use serde_json::Value;

use crate::samples::{HIDDEN, KEPT, NOT_KEPT, SEEN, first_hidden, hidden_in_names};
use crate::support::*;

/// A store with hidden characters in its path and in every name, text and reason.
fn hidden_store() -> Site {
    let mut site = Site::new();
    site.store = site.beside(&format!("st{}\u{1b}[31m\u{9b}31more", hidden_in_names()));
    let all: String = HIDDEN.iter().collect();
    let name = format!("x{}y", hidden_in_names());
    let texts = format!("{all}\ttab\nline {SEEN}");
    let store = Store::open(&site.store).unwrap();
    let first = Append::to((name.as_str(), name.as_str())).event(&Raw(&name, &[&texts])).tag(&name);
    first.metadata(&texts).commit(&store).unwrap();
    let fields = std::collections::BTreeMap::from([(&texts, &texts)]);
    let next = Append::to((name.as_str(), name.as_str())).event(&Raw(&name, &fields));
    next.cause(annals::Cause::PreviousInStream).commit(&store).unwrap();
    drop(store.consumer(&name, Query::entity(&name)).unwrap());
    store.consumer_control(&name).by(&texts).halt(&texts).unwrap();
    store.checkpoint(&name, &texts).unwrap();
    store.close().unwrap();
    site
}

/// The text without the colours that annals itself gives it.
fn uncoloured(text: &str) -> String {
    let mut pieces = text.split("\u{1b}[");
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |all, piece| {
        let end = piece.find(|sign: char| !sign.is_ascii_digit() && sign != ';').unwrap_or(piece.len());
        assert!(piece[end..].starts_with('m'), "no colour: {piece:?}");
        all + &piece[end + 1..]
    })
}

/// `--json` dropped U+007F; C1 controls reached the terminal, and U+202E turned lines around.
#[test]
fn no_command_prints_what_cannot_be_seen() {
    let site = hidden_store();
    let name = format!("x{}y", hidden_in_names());
    let file = site.beside("lines\u{202e}\u{9b}");
    fs::write(&file, "{\"entity\":\"a\",\"kind\":\"$\u{202e}\u{9b}\",\"payload\":1}\n").unwrap();
    let import = format!("import '{}'", file.display());
    let skipping = format!("{import} --skip-bad '{}'", site.beside("rejected").display());
    let append = format!("append '{name}' '{name}' 1");
    let mut printed = 0;
    for line in [
        "get 1",
        "read",
        "tail",
        "entities",
        "kinds",
        "scopes",
        "tags",
        "stats",
        "story 1",
        "story 1 --form dot",
        "story 1 --form mermaid",
        "ancestors 2",
        "descendants 1",
        "path 2",
        &format!("leaves '{name}'"),
        "verify",
        "head",
        "consumers",
        "recover",
        "doctor",
        "describe",
        "checkpoint",
        "export",
        "init",
        "backup DEST\u{202e}",
        "rollback @1 --reason '\u{202e}\u{9b}'",
        &format!("erase --entity '{name}' --reason '{name}'"),
        &format!("compact --remove --entity '{name}' --even-unhandled --reason '{name}' --dry-run"),
        // Refused, with names in the message.
        &format!("{append} --expect none"),
        &format!("{append} --cause '{name}'"),
        &format!("{append} --occurred '\u{202e}\u{9b}'"),
        &format!("append '{name}' '{name}' '\u{202e}\u{9b}'"),
        &format!("consumers skip '{name}\u{202e}' 900 --reason x"),
        &format!("consumers rewind '{name}' 900 --reason x"),
        &format!("append '{name}' '$\u{202e}' 1"),
        "append a '\u{1}\u{7f}\u{9b}' 1",
        "append --lines 'no\u{202e}\u{9b}where'",
        "get '\u{202e}\u{9b}'",
        "r\u{202e}\u{9b}\u{7f}\u{1b}[31mead",
        "head --queue '\u{202e}\u{9b}\u{1b}[31m'",
        &import,
        &skipping,
    ] {
        for form in ["", " --json", " --table --color never", " --table --color always"] {
            let Output { status, stdout, stderr } = site.run(&format!("{line}{form}"));
            let (out, err) = (text(&stdout), text(&stderr));
            let shown = if form.ends_with("always") { uncoloured(&out) } else { out.clone() };
            let cells = matches!(form, "" | " --json") && !line.starts_with("story");
            let shown = if cells { shown.replace('\t', "") } else { shown };
            assert_eq!(first_hidden(&shown), None, "{line}{form}, standard output");
            let said = if form.ends_with("always") { uncoloured(&err) } else { err };
            assert_eq!(first_hidden(&said), None, "{line}{form}, standard error");
            assert!(!out.is_empty() || !said.is_empty(), "{line}{form}: {status}");
            printed += 1;
        }
    }
    println!("{printed} times something was printed");
    let events: Vec<Value> =
        site.out("read --json").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let all: String = HIDDEN.iter().collect();
    assert_eq!(events[0]["payload"][0], format!("{all}\ttab\nline {SEEN}"), "it is the same JSON");
    assert_eq!((&events[0]["entity"], &events[0]["tags"][0]), (&name.clone().into(), &name.into()));
    let read = site.out("read");
    for row in read.lines() {
        assert_eq!(row.split('\t').count(), 8, "a cell stays a cell: {row:?}");
        assert!(row.contains("x\\u{ad}\\u{34f}"), "{row}");
    }
    assert!(
        read.contains("\\u001b") && read.contains("日本 \u{1F980}"),
        "what can be seen is left alone: {read}"
    );
}

/// If the output cannot be written, the report of the change also has names and paths.
#[test]
fn what_is_in_is_told_without_what_cannot_be_seen() {
    let site = hidden_store();
    let name = format!("x{}y", hidden_in_names());
    for (line, code) in [
        (format!("checkpoint '{name}2' --reason x"), UNTOLD),
        (format!("consumers resume '{name}'"), UNTOLD),
        ("backup DEST\u{202e}\u{9b}".to_owned(), UNTOLD),
        ("backup DEST\u{202d}\u{9b} --json".to_owned(), UNTOLD),
        (format!("append '{name}' k 1 --json"), UNTOLD),
        (format!("append '{name}' k 1 --expect none"), NO),
    ] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = site.command(&line).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {said}");
        assert_eq!(first_hidden(&said), None, "{line}: {said}");
        assert!(
            code == NO || line.contains(" k ") || said.contains("u{202") || said.contains("u202"),
            "{said}"
        );
    }
}

/// An input: a command that takes a JSON text as the payload or the metadata of an event.
const DOORS: [(&str, &str); 8] = [
    ("argument", "append a k 'JSON' --create"),
    ("standard input", "append a k - --create"),
    ("file", "append a k @FILE --create"),
    ("metadata", "append a k 1 --metadata 'JSON' --create"),
    ("payloads", "append a k --lines FILE --create"),
    ("lines", "append --lines EVENTS --create"),
    ("at once", "append --lines EVENTS --atomic --create"),
    ("import", "import EVENTS --create"),
];

/// Gives a JSON text to an input.
fn given(site: &Site, line: &str, json: &str) -> Output {
    let (file, events) = (site.beside("json"), site.beside("events"));
    fs::write(&file, json).unwrap();
    fs::write(&events, format!("{{\"entity\":\"a\",\"kind\":\"k\",\"payload\":{json}}}")).unwrap();
    let line = line.replace("JSON", json).replace("FILE", file.to_str().unwrap());
    let line = line.replace("EVENTS", events.to_str().unwrap());
    // A command that reads nothing may end before the whole text is written.
    if line.contains(" - ") { site.fed(&line, json) } else { site.run(&line) }
}

/// `append` rounded and kept one of two keys, where `import` kept both.
#[test]
fn every_door_keeps_json_exactly_or_refuses_it() {
    let mut refused = 0;
    for (door, line) in DOORS {
        // All texts through one input, and one of each kind through the others.
        let few = |number: usize| door == "argument" || number.is_multiple_of(5);
        for (_, json) in KEPT.iter().enumerate().filter(|(number, _)| few(*number)) {
            let site = Site::new();
            let output = given(&site, line, json);
            assert_eq!(output.status.code(), Some(YES), "{door}: {json}: {}", text(&output.stderr));
            let field = if door == "metadata" { "metadata" } else { "payload" };
            let shown: Value = serde_json::from_str(&site.out("get 1 --json")).unwrap();
            assert_eq!(shown[field], serde_json::from_str::<Value>(json).unwrap(), "{door}: {json}");
        }
        for (_, (json, column, word)) in NOT_KEPT.iter().enumerate().filter(|(number, _)| few(*number)) {
            let site = Site::new();
            let output = given(&site, line, json);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(USAGE), "{door}: {json}: {said}");
            let before = if line.contains("EVENTS") {
                "{\"entity\":\"a\",\"kind\":\"k\",\"payload\":".len()
            } else {
                0
            };
            assert!(said.contains(&format!("column {}: ", before + column)), "{door}: {json}: {said}");
            assert!(said.contains(word), "{door}: {json}: {said}");
            assert_eq!(
                line.contains("FILE") || line.contains("EVENTS"),
                said.contains(site.beside("").to_str().unwrap()),
                "{said}"
            );
            assert!(site.run("read").stdout.is_empty(), "{door}: {json}: nothing went in");
            refused += 1;
        }
    }
    println!("{refused} texts were refused");
    let site = Site::new();
    site.out("init");
    for line in [
        r#"{"entity":"a","kind":"k","metadata":{"a":1,"a":1}}"#,
        r#"{"entity":"a","kind":"k","expect":1.0}"#,
        r#"{"entity":"a","kind":"k","kind":"l"}"#,
        r#"{"entity":"a","kind":"k","tags":["t"],"ta\u0067s":[]}"#,
    ] {
        assert_eq!(site.fed("append --lines -", line).status.code(), Some(USAGE), "{line}");
    }
    // serde_json reserves this name, and here it is a name like others. (This test would misread it as well.)
    let odd = r#"{"$serde_json::private::RawValue":"[1]"}"#;
    site.out(&format!("append a k '{odd}'"));
    let shown = site.out("get 1 --json");
    assert!(shown.contains(&format!("\"payload\":{odd}")), "{shown}");
}

/// `["arr:1","a.x",{"a":1}]` was an event.
#[test]
fn a_line_of_append_is_an_object() {
    let site = Site::new();
    site.out("init");
    for line in [r#"["arr:1","a.x",{"a":1}]"#, "[]", "1", "\"a\"", "null"] {
        for atomic in ["", " --atomic"] {
            let output = site.fed(&format!("append --lines -{atomic}"), line);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(USAGE), "{line}: {said}");
            assert!(said.contains("line 1: ") && said.contains("an object"), "{line}: {said}");
        }
    }
    for line in [r#"{"entity":["a"],"kind":"k"}"#, r#"{"entity":"a","kind":"k","tags":{"0":"t"}}"#] {
        assert_eq!(site.fed("append --lines -", line).status.code(), Some(USAGE), "{line}");
    }
    assert_eq!(site.out("read"), "");
    site.fed("append a k --lines -", "[\"as a payload\"]");
    assert!(site.out("read").contains("as a payload"));
}

/// `9999-12-31T23:59:59Z` was no time.
#[test]
fn times_at_the_ends_go_in_and_out_of_every_door() {
    for (given, shown) in [
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000000Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
        ("+010000-01-01T00:00:00Z", "+010000-01-01T00:00:00.000000Z"),
        ("+010000-01-01T00:00:00+01:00", "9999-12-31T23:00:00.000000Z"),
        ("-009999-01-01T00:00:00Z", "-009999-01-01T00:00:00.000000Z"),
        ("-010000-12-31T23:59:59.999999Z", "-010000-12-31T23:59:59.999999Z"),
        ("+294247-01-10T04:00:54.775807Z", "+294247-01-10T04:00:54.775807Z"),
        ("-290308-12-21T19:59:05.224192Z", "-290308-12-21T19:59:05.224192Z"),
        ("2026-11-28T15:53:58.12Z", "2026-11-28T15:53:58.120000Z"),
    ] {
        let site = Site::new();
        site.out(&format!("append a k 1 --create --occurred {given}"));
        let line = format!("{{\"entity\":\"a\",\"kind\":\"k\",\"payload\":1,\"occurred_at\":\"{given}\"}}");
        let output = site.fed("append --lines -", &line);
        assert_eq!(output.status.code(), Some(YES), "{}", text(&output.stderr));
        let output = site.fed("import - --name own", &line);
        assert_eq!(output.status.code(), Some(YES), "{}", text(&output.stderr));
        let map = "import - --name mapped --map-entity a --map-kind k --map-time /occurred_at";
        let output = site.fed(map, &line);
        // Refused as the same source; see the test of names.
        let output = if output.status.success() {
            output
        } else {
            site.fed(&format!("{map} --even-if-imported"), &line)
        };
        assert_eq!(output.status.code(), Some(YES), "{}", text(&output.stderr));
        // The exported line is imported again, as another event.
        let mut exported: Value = serde_json::from_str(&site.out("export --entity a --after 3")).unwrap();
        exported.as_object_mut().unwrap().retain(|field, _| field != "id" && field != "version");
        let output = site.fed("import - --name again", &exported.to_string());
        assert_eq!(output.status.code(), Some(YES), "{}", text(&output.stderr));
        let shown_at = |line: &str| -> Vec<Value> {
            let lines = site.out(line);
            lines
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap()["occurred_at"].clone())
                .collect()
        };
        assert_eq!(shown_at("read --entity a --json"), [shown; 5], "{given}");
        let facts = site.out("get 1");
        assert!(facts.contains(&format!("occurred at\t{shown}")), "{facts}");
        assert_eq!(site.out(&format!("read --occurred {given}..")).lines().count(), 5, "{given}");
        assert_eq!(site.out(&format!("read --occurred ..{given}")).lines().count(), 0, "{given}");
        if !shown.ends_with("999999Z") && !shown.ends_with("775807Z") && !shown.ends_with("224192Z") {
            assert!(shown_at("export").iter().all(|time| time.as_str().unwrap().len() < shown.len()));
        }
    }
    let site = Site::new();
    site.out("init");
    for (number, word) in
        [("1764345238", "seconds"), ("1764345238123", "milliseconds"), ("0", "microseconds")]
    {
        let line = format!("{{\"entity\":\"a\",\"kind\":\"k\",\"payload\":1,\"occurred_at\":{number}}}");
        for command in ["append --lines -", "import - --name n"] {
            let output = site.fed(command, &line);
            assert_eq!(output.status.code(), Some(USAGE), "{command}: {number}");
            assert!(text(&output.stderr).contains(word), "{command}: {}", text(&output.stderr));
        }
    }
    let line = r#"{"entity":"a","kind":"k","payload":1,"occurred_at":1764345238123456}"#;
    assert_eq!(text(&site.fed("append --lines -", line).stderr), "");
    assert!(site.out("get 1").contains("occurred at\t2025-11-28T15:53:58.123456Z"));
}

/// The same file under another name doubled everything.
#[test]
fn a_file_goes_in_under_one_name() {
    let site = Site::new();
    let lines: String =
        (0..5).map(|n| format!("{{\"entity\":\"a\",\"kind\":\"k\",\"payload\":{n}}}\n")).collect();
    let (file, other) = (site.beside("shop.jsonl"), site.beside("shop.1.jsonl"));
    fs::write(&file, &lines).unwrap();
    fs::write(&other, lines.clone() + "{\"entity\":\"a\",\"kind\":\"k\",\"payload\":5}\n").unwrap();
    site.out(&format!("import {} --create", file.display()));
    for line in [format!("import {}", other.display()), format!("import {} --name x", file.display())] {
        let output = site.run(&line);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(USAGE), "{said}");
        for word in ["shop.jsonl", "--name", "--even-if-imported"] {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert_eq!(site.out("read").lines().count(), 5);
    }
    site.out(&format!("import {} --name shop.jsonl", other.display()));
    assert_eq!(site.out("read").lines().count(), 6, "under its name it goes on");
    site.out(&format!("import {} --name x --even-if-imported", file.display()));
    assert_eq!(site.out("read").lines().count(), 11, "asked for, it is in again");
}

/// `--round-numbers` imports numbers with more digits than a float has.
#[test]
fn an_import_rounds_when_it_is_told_to() {
    let site = Site::new();
    let lines = "{\"entity\":\"a\",\"kind\":\"k\",\"payload\":[0.10000000000000001,18446744073709551616]}\n";
    let output = site.fed("import - --name n --create", lines);
    assert_eq!(output.status.code(), Some(USAGE));
    assert!(text(&output.stderr).contains("--round-numbers"), "{}", text(&output.stderr));
    let output = site.fed("import - --name n --round-numbers", lines);
    assert_eq!(output.status.code(), Some(YES), "{}", text(&output.stderr));
    assert!(site.out("read").contains("[0.1,1.8446744073709552e+19]"), "{}", site.out("read"));
    let twice = "{\"entity\":\"a\",\"kind\":\"k\",\"payload\":{\"a\":1,\"a\":2}}\n";
    assert_eq!(site.fed("import - --name m --round-numbers", twice).status.code(), Some(USAGE));
}
