//! The `annals` command in bad surroundings: wrong directories and calls, damage, pipes, signals, full disks,
//! many processes.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use annals::{Append, Query, Raw, Store};
use serde_json::Value;

use crate::support::*;

/// Directories and files without a store.
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

/// The exit code of a command without a store, and a part of its message.
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
        for line in READING.iter().chain(&ARCHIVING).chain(&WRITING) {
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
    let head = site.out("head");
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
        ("append order:1 order.paid 1 --cause unknown", USAGE, "is no cause"),
        ("append order:1 order.paid 1 --metadata {", USAGE, "--metadata"),
        ("append $x order.paid 1", USAGE, "$"),
        ("append order:1 order.paid @nowhere.json", USAGE, "nowhere.json"),
        ("append --lines nowhere.jsonl", USAGE, "nowhere.jsonl"),
        ("append order:1 order.paid 1 --expect 1", NO, "version 2"),
        ("append order:1 order.paid 1 --expect none", NO, "expected no stream"),
        ("consumers resume mail", USAGE, "is not halted"),
        ("consumers resume unknown", USAGE, "no consumer unknown"),
        ("consumers skip mail 900 --reason x", USAGE, "durable up to"),
        ("read --durability soon", USAGE, "say synced"),
        ("read --wait x", USAGE, "is no time"),
        ("completions nosuchshell", USAGE, "invalid value"),
        ("erase --reason 'asked for' --yes", USAGE, "erase what?"),
        ("erase --entity order:1 --yes", USAGE, "--reason"),
        ("erase --prefix $ --reason x --yes", USAGE, "the store's own events"),
        ("compact --remove --kind order.paid", USAGE, "--reason"),
        ("compact --reason x --yes", USAGE, "compact what?"),
        ("compact --remove --reason x --yes", USAGE, "remove what?"),
        ("compact --kind order.paid --merge --reason x --yes", USAGE, "say --remove"),
        ("compact --older-than 90d --reason x --yes", USAGE, "--remove"),
        ("compact --remove --older-than 2y --reason x", USAGE, "is no age"),
        ("compact --remove --keep-newest 5 --reason x", USAGE, "--per"),
        ("compact --remove --keep-newest 5 --per tag --reason x", USAGE, "invalid value"),
        ("compact --merge --dry-run --reason x --yes", USAGE, "--yes"),
        ("compact --remove --kind order.placed --reason x --yes", USAGE, "--even-unhandled"),
        ("verify --head yesterday", USAGE, "--head"),
        ("verify --after 3", USAGE, "--after"),
        ("import -", USAGE, "--name"),
        ("import nowhere.jsonl", USAGE, "nowhere.jsonl"),
        ("import /", USAGE, "is a directory"),
        ("import - --name x --map-kind k", USAGE, "--map-entity"),
        ("checkpoint $x --reason x", USAGE, "$x"),
    ] {
        let output = site.run(line);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {said}");
        assert!(said.contains(word), "{line}: {said}");
    }
    assert_eq!(site.out("head"), head, "nothing was appended");
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
fn reading_writes_nothing_and_goes_on_beside_a_writer() {
    let site = Site::filled();
    let store = Store::open(&site.store).unwrap();
    store.append("order:7", &Raw("order.placed", &())).unwrap();
    store.sync().unwrap();
    let whole = files(&site.store);
    for line in READING {
        site.out(line);
    }
    let head = store.head().unwrap();
    assert!(site.out(&format!("verify --head {head}")).starts_with("clean"));
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

/// `annals read | head`.
#[test]
fn a_closed_pipe_ends_it_quietly() {
    let site = Site::new();
    let store = Store::open(&site.store).unwrap();
    for n in 0..3_000 {
        Append::to("e").event(&Raw("k", &vec![n; 50])).submit(&store).unwrap().wait().unwrap();
    }
    store.close().unwrap();
    for line in ["read", "read --json", "read --table", "read --follow", "export"] {
        let mut child = site.start(line);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        out.read_line(&mut first).unwrap();
        drop(out);
        // A follower notices with the next event.
        if line.contains("follow") {
            site.out("append e k");
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(YES), String::new()), "{line}");
    }
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = site.command("read").stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(LATER), "a full disk under the output is no closed pipe");
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

    // Lines come one by one, and each is acknowledged. Then the input pauses.
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
    assert_eq!(
        text(&output.stderr),
        "annals: interrupted; everything up to line 5 is in; go on behind line 5\n"
    );
    drop(input);
    let store = Store::open(&site.store).unwrap();
    assert!(store.open_report().clean, "it was closed");
    assert_eq!(store.version("log:1").unwrap().get(), 5);
    store.close().unwrap();

    // In the middle of many lines: the store has every acknowledged line, and its lines are a prefix of the
    // input.
    let mut child = site.start("append log:2 line.seen --lines - --json");
    let mut input = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || {
        // Until the command stops reading.
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

/// A store with segments of about 100 kB. `verify` reports its progress about every MiB.
fn of_many_segments() -> Site {
    let site = Site::new();
    let store = Store::builder(&site.store).segment_bytes_max(100_000).open().unwrap();
    for n in 0..300_u64 {
        store.append("e", &Raw("k", &(n, "x".repeat(10_000)))).unwrap();
    }
    store.close().unwrap();
    site
}

/// Waits until a process has read more than `bytes` bytes.
fn until_read(child: &std::process::Child, bytes: u64) {
    let read = || {
        let io = fs::read_to_string(format!("/proc/{}/io", child.id())).unwrap_or_default();
        let read = io.lines().find_map(|line| line.strip_prefix("rchar: ")).map(str::parse::<u64>);
        read.is_some_and(|read| read.unwrap() > bytes)
    };
    eventually("the command is at it", read);
}

#[test]
fn verifying_breaks_off_and_goes_on_where_it_was() {
    let site = of_many_segments();
    let head = site.out("head").trim().to_owned();
    let broken_off = |verdict: &str| {
        let child = site.start(&format!("verify --bytes-per-second 1 --head {head}"));
        until_read(&child, 1 << 20);
        interrupt(&child);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(INTERRUPTED));
        let said = text(&output.stdout);
        assert!(said.starts_with(verdict) && said.contains("broken off before the end"), "{said}");
        let err = text(&output.stderr);
        let go_on = err.strip_prefix("annals: interrupted; go on with ").unwrap_or_else(|| panic!("{err}"));
        go_on.trim().to_owned()
    };
    let events = |line: &str| -> u64 {
        let report: Value = serde_json::from_str(&site.out(line)).unwrap();
        report["events"].as_u64().unwrap()
    };
    let go_on = broken_off("clean");
    assert!(go_on.contains("--after") && go_on.ends_with(&format!("--head {head}")), "{go_on}");
    let (rest, all) = (events(&format!("verify {go_on} --json")), events("verify --json"));
    assert!(rest > 0 && rest + 80 < all, "{rest} of {all}");

    // A stopped run still prints what it found.
    change(&site, |bytes| bytes[5_000] ^= 1);
    let go_on = broken_off("DAMAGED");
    assert!(site.out(&format!("verify {go_on}")).starts_with("clean"));
    assert_eq!(site.run("verify").status.code(), Some(NO));
}

#[test]
fn compacting_breaks_off_and_is_run_again() {
    let site = of_many_segments();
    let head = site.out("head").trim().to_owned();
    let compact = "compact --remove --before 200 --reason old --yes";
    let child = site.start(&format!("{compact} --bytes-per-second 1"));
    until_read(&child, 1 << 20);
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(INTERRUPTED));
    let said = "annals: interrupted; what was done stays; run it again for the rest\n";
    assert_eq!(text(&output.stderr), said);
    let store = Store::open_read_only(&site.store).unwrap();
    assert!(store.open_report().clean, "it was closed");
    drop(store);

    // No room for the rewritten segment: no event is lost, and the next compaction succeeds.
    let script = format!("ulimit -f 40; trap '' XFSZ; exec {PROGRAM} {compact}");
    let output = Command::new("bash").args(["-c", &script]).env("ANNALS_DIR", &site.store).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(LATER), "{said}");
    assert!(said.contains("what was done stays"), "{said}");
    assert!(site.out(&format!("verify --head {head}")).starts_with("clean"));
    site.out(compact);
    assert_eq!(site.out("read").lines().count(), 101);
    assert!(site.out(&format!("verify --head {head}")).starts_with("clean"));
}

/// Beyond the limit of the shell every write fails, as on a full disk.
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
    assert!(said.contains(&format!("line {}: ", acknowledged + 1)), "the first that is not: {said}");
    let store = Store::open_read_only(&site.store).unwrap();
    assert_eq!(store.version("big").unwrap().get(), acknowledged as u64);
    drop(store);

    let again = site.out(&format!("append --lines {}", file.display()));
    assert_eq!(again.lines().filter(|line| line.ends_with("replayed")).count(), acknowledged);
    assert_eq!(again.lines().count(), 60);
    assert!(site.out("verify").starts_with("clean"));
    assert_eq!(site.out("read --entity order:1").lines().count(), 2, "and what was there is there");
}

/// The output cannot be written, is not read, or the operator is impatient: after each command the store is
/// whole, and no event is missing.
#[test]
fn no_command_is_undone_by_its_surroundings() {
    let site = Site::filled();
    let events = site.out("export");
    let is_whole = |what: &str| {
        assert!(site.out("verify").starts_with("clean"), "{what}");
        // Appended events come at the end, and erased ones are marked.
        let kept = site.out("export");
        let ids = |text: &str| {
            text.lines().map(|line| line.split("\"entity\"").next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert!(ids(&kept).starts_with(&ids(&events)), "{what}: {kept}");
    };
    let limited = |line: &str, store: &std::path::Path| {
        let script =
            format!("ulimit -f 0; trap '' XFSZ; exec {PROGRAM} {line} 2>&1 | cat; exit ${{PIPESTATUS[0]}}");
        Command::new("bash").args(["-c", &script]).env("ANNALS_DIR", store).output().unwrap()
    };
    for line in READING {
        let output = limited(&line.replace('*', "'*'"), &site.store);
        assert!(output.status.success(), "{line} on a full disk: {}", text(&output.stdout));
    }
    for line in WRITING {
        let output = limited(&line.replace('$', "\\$"), &site.store);
        let is_fine = matches!(output.status.code(), Some(YES | LATER | USAGE));
        assert!(is_fine, "{line} on a full disk: {:?} {}", output.status.code(), text(&output.stdout));
        is_whole(line);
    }
    let nothing = site.store.with_extension("new");
    let output = limited("init", &nothing);
    assert_eq!(output.status.code(), Some(LATER), "{}", text(&output.stdout));

    for line in READING.iter().chain(&WRITING) {
        let normal = if line.starts_with("consumers") || line.contains("halt") { Some(NO) } else { None };
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = site.command(line).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let code = output.status.code();
        let is_usage = code == Some(USAGE) && line.starts_with("consumers");
        let is_told =
            code == Some(UNTOLD) && text(&output.stderr).contains("done: ") && WRITING.contains(line);
        let is_fine = code == Some(YES) || code == normal || is_usage || is_told;
        assert!(is_fine, "{line} into a closed pipe: {code:?}");
        assert!(is_usage || is_told || output.stderr.is_empty(), "{line}: {}", text(&output.stderr));

        let child = site.start(line);
        interrupt(&child);
        let code = child.wait_with_output().unwrap().status.code();
        let is_usage = code == Some(USAGE) && line.starts_with("consumers");
        // None: the signal came before the command handled signals.
        assert!(
            matches!(code, None | Some(YES | NO | INTERRUPTED)) || is_usage,
            "{line} interrupted: {code:?}"
        );
        is_whole(line);
    }
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

/// Under any umask.
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

/// `tests/it/open_checked.rs` tests the same for the library.
#[test]
fn commands_that_write_refuse_a_broken_sealed_segment() {
    let site = Site::new();
    let store = Store::builder(&site.store).segment_bytes_max(400).open().unwrap();
    for number in 0..8_u64 {
        store.append(format!("e:{}", number % 5), &Raw("k", &(number, "text"))).unwrap();
    }
    store.close().unwrap();
    let head = Store::open_read_only(&site.store).unwrap().head().unwrap();
    let rollback = format!("rollback @1 --reason 'a broken file' --cut {head}");
    let mut segments: Vec<PathBuf> = files(&site.store).into_keys().collect();
    segments.retain(|path| path.extension().is_some_and(|end| end == "seg"));
    let broken = &segments[2];
    assert!(segments.len() > 3, "the segment is sealed");
    let file = fs::File::options().write(true).open(broken).unwrap();
    file.set_len(file.metadata().unwrap().len() - 8).unwrap();
    let (whole, name) = (files(&site.store), broken.file_name().unwrap().to_str().unwrap());
    for line in WRITING.into_iter().chain([rollback.as_str()]) {
        let output = site.run(line);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(DAMAGED), "{line}: {said}");
        assert!(said.contains(name), "{line}: {said}");
        assert!(files(&site.store) == whole, "{line} changed something");
    }
}

/// The doctor called a store good whose newest event was recorded in 2099.
#[test]
fn the_doctor_says_that_the_clock_was_wrong() {
    const LIFETIME: Duration = Duration::from_secs(73 * 365 * 24 * 60 * 60);
    let site = Site::new();
    let good = Store::open(&site.store).unwrap();
    good.append("a", &Raw("k", &1)).unwrap();
    good.close().unwrap();
    assert!(site.out("doctor").contains("not behind what was recorded"));
    let late = Store::builder(&site.store).clock(|| SystemTime::now() + LIFETIME).open().unwrap();
    late.append("a", &Raw("k", &2)).unwrap();
    late.close().unwrap();
    let told = site.out("doctor");
    assert!(told.contains("behind the newest recorded-at") && told.contains("fork the store"), "{told}");
}
