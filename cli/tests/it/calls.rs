//! The `annals` command as operators call it: bad lines, typing errors, help and manual, and terminals that
//! close.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use annals::{Limits, Raw, Store};
use serde_json::Value;

use crate::support::*;

const GOOD: &str = "{\"entity\":\"a\",\"kind\":\"k\",\"payload\":1}\n";

/// The lines before a bad one are in, and the report says so. The rest can follow, and no line is in twice.
#[test]
fn lines_before_a_bad_one_are_told() {
    let long = vec![b'x'; (64 << 20) + 1];
    for (bad, word) in [
        (&b"nonsense\n"[..], "expected"),
        (b"{\"entity\":\"a\",\"kind\":\"\"}\n", "the kind is empty"),
        (b"{\"entity\":\"a\",\"kind\":\"k\",\"expect\":7}\n", "expected version 7"),
        (b"{\"entity\":\"a\",\"kind\":\"k\",\"occurred_at\":\"soon\"}\n", "is no time"),
        (b"\"\xff\"\n", "no UTF-8"),
        (&long, "more than 64.00 MiB"),
    ] {
        let site = Site::new();
        let file = site.beside("lines");
        fs::write(&file, [GOOD.as_bytes(), b"\n", GOOD.as_bytes(), bad, GOOD.as_bytes()].concat()).unwrap();
        let output = site.run(&format!("append --create --lines {}", file.display()));
        let said = text(&output.stderr);
        assert!(matches!(output.status.code(), Some(USAGE | NO)), "{said}");
        assert!(said.contains("line 4: ") && said.contains(word), "{said}");
        assert!(said.contains("everything up to line 3 is in"), "{said}");
        let kept = site.out("read --entity a").lines().count();
        assert_eq!(text(&output.stdout).lines().count(), kept, "{word}: what is in is acknowledged");
        // The line behind it was submitted at the same time, and is an append of its own.
        let is_behind = word.starts_with("expected version");
        assert_eq!(
            (kept, said.contains("and behind it line 5")),
            if is_behind { (3, true) } else { (2, false) }
        );
    }
    let site = Site::new();
    let output = site.fed("append --create --lines -", &format!("\u{feff}{GOOD}{GOOD}"));
    assert_eq!(text(&output.stdout).lines().count(), 2, "a byte order mark is none of the line");
}

#[test]
fn rejected_lines_do_not_go_where_they_come_from() {
    let site = Site::new();
    let file = site.beside("lines");
    fs::write(&file, format!("nonsense\n{GOOD}")).unwrap();
    fs::hard_link(&file, site.beside("also")).unwrap();
    let import = |rejects: &str| {
        let rejects = site.beside(rejects);
        site.run(&format!("import {} --skip-bad {}", file.display(), rejects.display()))
    };
    assert_eq!(import("bad").status.code(), Some(USAGE), "there is no store");
    assert!(!site.beside("bad").exists(), "and nothing was rejected");
    site.out("init");
    for rejects in ["lines", "also"] {
        let output = import(rejects);
        assert_eq!(output.status.code(), Some(USAGE));
        assert!(text(&output.stderr).contains("is what is imported"), "{}", text(&output.stderr));
    }
    assert_eq!(import("bad").status.code(), Some(NO));
    assert_eq!(fs::read_to_string(site.beside("bad")).unwrap(), "nonsense\n");
    let strict = site.run(&format!("import {} --name strict --even-if-imported", file.display()));
    assert!(text(&strict.stderr).contains(&format!("{}: line 1: ", file.display())), "names the file");
}

fn error(output: &Output) -> Value {
    let said: Value =
        serde_json::from_slice(&output.stderr).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    said["error"].clone()
}

/// Errors of clap have the same form.
#[test]
fn a_wrong_call_is_an_error_in_json_too() {
    let site = Site::filled();
    for (line, word) in [
        ("reed", "reed"),
        ("get", "<ID|POSITION>"),
        ("read --after=-1", "--after"),
        ("read --table", "--table"),
        ("read --between 2026-12-01..2026-11-01", "ends before it begins"),
        ("read --entity order:1 --versions 5..2", "ends before it begins"),
        ("read --entity order:1 --versions x", "2..=5"),
        ("head --queue 0", "--queue"),
        ("verify --bytes-per-second 0", "--bytes-per-second"),
        ("bench --payload 9999999999", "--payload"),
    ] {
        let output = site.run(&format!("{line} --json"));
        assert_eq!(output.status.code(), Some(USAGE), "{line}");
        let error = error(&output);
        assert_eq!((&error["code"], &error["kind"]), (&USAGE.into(), &"Usage".into()));
        assert!(error["message"].as_str().unwrap().contains(word), "{line}: {error}");
        assert!(!error["hint"].is_null(), "{line}: {error}");
        let plain = site.run(line);
        assert!(line.contains("--table") || plain.status.code() == Some(USAGE), "{line}");
    }
}

/// A cell with any text stays one cell, and sends no control character to a terminal.
#[test]
fn what_is_shown_stays_in_its_place() {
    let site = Site::filled();
    site.out("checkpoint here --reason 'one\ntwo\tthree\u{1b}]0;x\u{7}'");
    for line in site.out("checkpoint").lines() {
        assert_eq!(line.split('\t').count(), 5, "{line:?}");
    }
    let nowhere = site.beside("a\u{1b}]0;x\u{7}b");
    let output = site.command("head --color always").env("ANNALS_DIR", &nowhere).output().unwrap();
    assert_eq!(output.status.code(), Some(USAGE));
    assert!(!text(&output.stderr).contains("\u{1b}]"), "{:?}", text(&output.stderr));
}

#[test]
fn large_payloads_of_a_program_can_be_rescued_and_imported() {
    let site = Site::new();
    let store = Store::builder(&site.store).limits(Limits::FORMAT).open().unwrap();
    store.append("e", &Raw("k", &"x".repeat(5 << 20))).unwrap();
    store.close().unwrap();
    let payload = |store: &Path| {
        let output = command(store, &words("get 1 --json")).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["payload"].as_str().unwrap().len()
    };
    let (rescued, lines) = (site.beside("rescued"), site.beside("lines"));
    site.out(&format!("recover --salvage {}", rescued.display()));
    assert_eq!(payload(&rescued), 5 << 20);
    fs::write(&lines, site.out("export")).unwrap();
    let imported = Site::new();
    imported.out(&format!("import --create {}", lines.display()));
    assert_eq!(payload(&imported.store), 5 << 20);
}

/// A store that cannot be read is damage to every command, and not a store that could be created.
#[test]
fn a_store_without_its_segments_is_damaged() {
    type Spoil = fn(&Site);
    let no_segments: Spoil = |site| fs::remove_dir_all(site.store.join("segments")).unwrap();
    let no_header: Spoil = |site| change(site, |bytes| bytes[20] ^= 1);
    for spoil in [no_segments, no_header] {
        let site = Site::filled();
        spoil(&site);
        for line in ["read", "init", "append e k", "recover --salvage DEST"] {
            let output = site.run(line);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(DAMAGED), "{line}: {said}");
            assert!(!said.contains("Store::open"), "{line}: {said}");
        }
    }
}

#[test]
fn an_erasure_that_was_stopped_is_looked_at_and_finished() {
    let site = Site::filled();
    let erase = "erase --entity order:1 --reason 'ticket 12' --yes --json";
    let report = |out: String| -> Value { serde_json::from_str(&out).unwrap() };
    let first = report(site.out(erase));
    assert_eq!((&first["events"], &first["matching"]), (&2.into(), &2.into()));
    let again = report(site.out(erase));
    assert_eq!((&again["events"], &again["matching"]), (&0.into(), &2.into()), "they were erased before");
    assert_eq!(site.run("doctor").status.code(), Some(YES));
    fs::write(site.store.join("ERASING"), "").unwrap();
    let output = site.run("doctor");
    assert_eq!(output.status.code(), Some(NO));
    assert!(text(&output.stdout).contains("bad\terasing"), "{}", text(&output.stdout));
}

/// A link to itself, a directory of lines.
#[test]
fn what_the_system_refuses_has_its_code() {
    let site = Site::filled();
    let circle = site.beside("circle");
    std::os::unix::fs::symlink(&circle, &circle).unwrap();
    let output = command(&circle, &words("read --json")).output().unwrap();
    assert_eq!(output.status.code(), Some(SYSTEM));
    assert_eq!(error(&output)["kind"], "Io");
    for line in ["append --lines /", "append a k @/", "import /"] {
        let output = site.run(line);
        assert_eq!(output.status.code(), Some(USAGE), "{line}");
        assert!(text(&output.stderr).contains("is a directory"), "{line}: {}", text(&output.stderr));
    }
}

/// The directory of the bench is beside the store, also if `.` names the store.
#[test]
fn a_terminal_that_goes_leaves_nothing_behind() {
    let site = Site::filled();
    let beside = || fs::read_dir(site.store.parent().unwrap()).unwrap().count();
    let mut bench = site.command("bench --time 60s --dir .");
    let child = bench.current_dir(&site.store).spawn().unwrap();
    eventually("the workshop is there", || beside() == 2);
    signal(&child, "HUP");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(129));
    assert_eq!(beside(), 1, "the workshop is gone");
}

/// A command under `nohup` continues.
#[test]
fn who_is_told_to_ignore_it_does() {
    let site = Site::filled();
    let script = format!("trap '' HUP; exec {PROGRAM} read --follow --limit 4");
    let mut follow = Command::new("sh");
    let child = follow.args(["-c", &script]).env("ANNALS_DIR", &site.store).spawn().unwrap();
    let caught = || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let bits = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        // The handler of SIGINT is installed.
        u64::from_str_radix(bits.trim(), 16).unwrap() & 2 != 0 && status.contains("Name:\tannals")
    };
    eventually("it waits for signals", caught);
    signal(&child, "HUP");
    site.out("append order:9 order.placed");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(YES));
}

#[test]
fn help_and_the_manual_leave_nothing_out() {
    let site = Site::new();
    let (man, help) = (site.out("man"), site.out("--help"));
    let commands = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let names =
        commands.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    let mut seen = 0;
    for name in names.map(|line| line.split(' ').next().unwrap()).filter(|name| *name != "help") {
        assert!(site.out(&format!("{name} --help")).contains("Exit codes: 0 done"), "{name}");
        assert!(man.contains(&format!(".SH \"annals {name}\"")), "{name}");
        seen += 1;
    }
    assert!(seen > 30, "{seen}");
    assert!(man.contains(".SH \"annals consumers skip\""));
    for word in ["Who does it, for the record", "stopped: the terminal is gone"] {
        assert_eq!(man.matches(word).count(), 1, "{word}");
    }
    // An option without a help text: a name, and directly behind it the next name.
    let lines: Vec<&str> = man.lines().collect();
    let silent =
        lines.windows(3).find(|lines| lines[0] == ".TP" && lines[1].contains("\\-\\-") && lines[2] == ".TP");
    assert!(silent.is_none(), "{silent:?}");
}
