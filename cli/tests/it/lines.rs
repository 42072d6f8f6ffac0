//! `annals append --lines`, `import` and `export`: after every stop, standard error tells which lines are in.
//! An operator who follows its advice neither loses nor doubles a line.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;

use annals::Store;
use serde_json::Value;

use crate::support::*;

/// The number of events of each line, by its number.
fn counts(site: &Site) -> BTreeMap<u64, usize> {
    let store = Store::open_read_only(&site.store).unwrap();
    let mut counts = BTreeMap::new();
    for event in store.stream("line") {
        *counts.entry(event.unwrap().decode::<u64>().unwrap()).or_insert(0) += 1;
    }
    counts
}

fn good(number: u64) -> String {
    format!("{{\"entity\":\"line\",\"kind\":\"k\",\"payload\":{number}}}\n")
}

/// A line whose append is refused. Reading the line does not show that.
fn conflicting(number: u64) -> String {
    good(number).replace("\"payload\"", "\"expect\":999999,\"payload\"")
}

fn reused(number: u64) -> String {
    good(number).replace("\"payload\"", "\"key\":\"taken\",\"payload\"")
}

fn nameless(number: u64) -> String {
    good(number).replace("\"k\"", "\"\"")
}

fn torn(number: u64) -> String {
    good(number).replace('}', "")
}

fn pairs(error: &Value, name: &str) -> Vec<(u64, u64)> {
    let runs = error["lines"][name].as_array().unwrap_or_else(|| panic!("{error}"));
    runs.iter().map(|run| (run[0].as_u64().unwrap(), run[1].as_u64().unwrap())).collect()
}

/// 1,000 lines, and the expectation of line 10 does not hold. 999 were in, 9 were acknowledged, and the
/// advice was "everything up to line 9 is in; go on with the line after it". An operator who did so had 990
/// of them twice.
#[test]
fn following_the_advice_neither_loses_nor_doubles_a_line() {
    type Spoil = fn(u64) -> String;
    let cases: [(u64, &[u64], Spoil); 12] = [
        (1000, &[10], conflicting),
        (1000, &[1], conflicting),
        (1000, &[1000], conflicting),
        (1000, &[10, 11, 12], conflicting),
        (1000, &[10, 500, 1000], conflicting),
        (1000, &[1, 2, 999, 1000], conflicting),
        (3000, &[2000], conflicting),
        (50, &[10, 20], reused),
        (1000, &[10], nameless),
        (2500, &[2400], torn),
        (20, &[5], torn),
        (3, &[1, 2, 3], conflicting),
    ];
    std::thread::scope(|scope| {
        for (total, bad, spoil) in cases {
            scope.spawn(move || {
                let site = Site::new();
                site.out("append other k 1 --key taken --create");
                let lines: Vec<String> =
                    (1..=total).map(|n| if bad.contains(&n) { spoil(n) } else { good(n) }).collect();
                follow(&site, lines, &format!("{total} lines, {bad:?} are bad"));
            });
        }
    });
}

/// Mends lines as an operator does, until all are in.
fn follow(site: &Site, lines: Vec<String>, place: &str) {
    let (file, mut from, total) = (site.beside("lines"), 0, lines.len());
    let mut rounds = 0;
    while from < total {
        rounds += 1;
        assert!(rounds < 20, "{place}");
        fs::write(&file, lines[from..].concat()).unwrap();
        let before = counts(site).len();
        let output = site.run(&format!("append --lines {} --json", file.display()));
        let told = text(&output.stdout).lines().count();
        assert_eq!(counts(site).len() - before, told, "{place}: all that is in is acknowledged");
        let receipts = text(&output.stdout);
        let receipts = receipts.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let numbers: Vec<u64> = receipts.map(|receipt| receipt["line"].as_u64().unwrap()).collect();
        assert!(numbers.is_sorted(), "{place}");
        if output.status.success() {
            break;
        }
        let error = serde_json::from_slice::<Value>(&output.stderr).unwrap()["error"].clone();
        let (is_in, out) = (pairs(&error, "in"), pairs(&error, "out"));
        let named: u64 = is_in.iter().map(|(from, to)| to - from + 1).sum();
        assert_eq!(named as usize, told, "{place}: {error}");
        assert!(is_in.iter().flat_map(|(from, to)| *from..=*to).eq(numbers), "{place}: {error}");
        let next = error["lines"]["next"].as_u64().unwrap();
        // Rejected lines in front of committed ones are mended and appended alone. The next line may be bad
        // as well.
        let alone = out.iter().flat_map(|(from, to)| *from..=*to).filter(|line| *line < next);
        for line in alone {
            let number = from as u64 + line;
            let mended = site.fed("append --lines -", &good(number));
            assert!(mended.status.success(), "{place}: {}", text(&mended.stderr));
        }
        from += usize::try_from(next).unwrap() - 1;
        if out.iter().any(|(from, _)| *from == next)
            || pairs(&error, "unknown").is_empty() && is_bad(&lines, from)
        {
            let mended = site.fed("append --lines -", &good(from as u64 + 1));
            assert!(mended.status.success(), "{place}: {}", text(&mended.stderr));
            from += 1;
        }
    }
    let all: BTreeMap<u64, usize> = (1..=total as u64).map(|number| (number, 1)).collect();
    assert!(
        counts(site) == all,
        "{place}: {:?}",
        counts(site).iter().filter(|(_, count)| **count != 1).collect::<Vec<_>>()
    );
}

fn is_bad(lines: &[String], index: usize) -> bool {
    lines.get(index).is_some_and(|line| *line != good(index as u64 + 1))
}

#[test]
fn what_is_in_is_said_in_words() {
    let site = Site::new();
    site.out("init");
    let append = |bad: &[u64], total: u64| {
        let lines: String =
            (1..=total).map(|n| if bad.contains(&n) { conflicting(n) } else { good(n) }).collect();
        let output = site.fed("append --lines -", &lines);
        assert_eq!(output.status.code(), Some(NO));
        text(&output.stderr)
    };
    for (bad, done, hint) in [
        (
            &[4][..],
            "  done: everything up to line 3 is in, and behind it lines 5 to 9; line 4 is not\n",
            "  hint: mend line 4, and append it alone; go on behind line 9\n",
        ),
        (
            &[1],
            "  done: lines 2 to 9 are in; line 1 is not\n",
            "  hint: mend line 1, and append it alone; go on behind line 9\n",
        ),
        (
            &[2, 3, 8],
            "  done: everything up to line 1 is in, and behind it lines 4 to 7 and line 9; lines 2 to 3 and line 8 are not\n",
            "  hint: mend lines 2 to 3 and line 8, and append them alone; go on behind line 9\n",
        ),
        (&[9], "  done: everything up to line 8 is in\n", "  hint: mend line 9 and go on with it\n"),
        (&[8, 9], "  done: everything up to line 7 is in\n", "  hint: mend line 8 and go on with it\n"),
    ] {
        let said = append(bad, 9);
        assert!(said.contains(done) && said.ends_with(hint), "{bad:?}: {said}");
    }
    assert!(!append(&[1], 1).contains("done:"), "nothing is in");
}

/// After an output error no more lines are appended. The report names the lines that are in.
#[test]
fn lines_whose_acknowledgements_are_lost_are_named() {
    for (form, is_closed) in [("", false), (" --json", false), ("", true), (" --json", true)] {
        let site = Site::new();
        site.out("init");
        let file = site.beside("lines");
        fs::write(&file, (1..=3000).map(good).collect::<String>()).unwrap();
        let stdout: Stdio = match is_closed {
            true => std::io::pipe().unwrap().1.into(),
            false => fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into(),
        };
        let mut command = site.command(&format!("append --lines {}{form}", file.display()));
        let output = command.stdout(stdout).stderr(Stdio::piped()).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(UNTOLD), "{said}");
        let last = counts(&site).len() as u64;
        assert!((1..3000).contains(&last), "{last}");
        assert!(said.contains(&format!("everything up to line {last} is in")), "{last}: {said}");
        assert!(said.contains(&format!("go on behind line {last}")), "{last}: {said}");
        let rest: String = (last + 1..=3000).map(good).collect();
        fs::write(&file, rest).unwrap();
        site.out(&format!("append --lines {}", file.display()));
        assert!(counts(&site).into_iter().eq((1..=3000).map(|number| (number, 1))));
    }
}

/// A signal comes among endless lines. The report names the last line that is in.
#[test]
fn a_signal_among_lines_names_the_last_that_is_in() {
    std::thread::scope(|scope| {
        for (name, code) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
            for form in ["", " --json"] {
                scope.spawn(move || {
                    let site = Site::new();
                    let mut child = site.start(&format!("append --create --lines -{form}"));
                    let mut input = child.stdin.take().unwrap();
                    let feeder = std::thread::spawn(move || {
                        // Until the command stops reading.
                        (1_u64..).take_while(|n| input.write_all(good(*n).as_bytes()).is_ok()).count()
                    });
                    let (mut out, mut some) = (child.stdout.take().unwrap(), [0; 20_000]);
                    out.read_exact(&mut some).unwrap();
                    signal(&child, name);
                    let mut rest = String::new();
                    out.read_to_string(&mut rest).unwrap();
                    let output = child.wait_with_output().unwrap();
                    feeder.join().unwrap();
                    let said = text(&output.stderr);
                    assert_eq!(output.status.code(), Some(code), "{said}");
                    let last = counts(&site).len() as u64;
                    assert!(counts(&site).into_iter().eq((1..=last).map(|number| (number, 1))));
                    assert!(said.contains(&format!("everything up to line {last} is in")), "{last}: {said}");
                    assert!(said.contains(&format!("go on behind line {last}")), "{last}: {said}");
                    let told = some.iter().chain(rest.as_bytes()).filter(|byte| **byte == b'\n').count();
                    assert!(told as u64 <= last, "{told} of {last}");
                });
            }
        }
    });
}

/// A stopped import continues, by its name, behind the last line that is in.
#[test]
fn a_signal_among_imported_lines_loses_and_doubles_none() {
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let site = Site::new();
        site.out("init");
        let mut child = site.start("import - --name lines");
        let mut input = child.stdin.take().unwrap();
        // The input stays open, and no more lines come.
        input.write_all((1..=5_000).map(good).collect::<String>().as_bytes()).unwrap();
        eventually("some are in", || !counts(&site).is_empty());
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        drop(input);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert_eq!(said, "annals: interrupted; run it again: it goes on behind what went in\n");
        let again = site.fed("import - --name lines", &(1..=6_000).map(good).collect::<String>());
        assert_eq!(again.status.code(), Some(YES), "{}", text(&again.stderr));
        assert!(counts(&site).into_iter().eq((1..=6_000).map(|number| (number, 1))));
    }
}

/// A stopped export names the last event whose whole append was written.
#[test]
fn an_export_that_is_stopped_goes_on_where_it_was() {
    let site = Site::new();
    let store = Store::open(&site.store).unwrap();
    for n in 0..3_000_u64 {
        let append = annals::Append::to("line").event(&annals::Raw("k", &n));
        append.event(&annals::Raw("k", &"x".repeat(100))).submit(&store).map(drop).unwrap();
    }
    store.close().unwrap();
    let whole = site.out("export");
    for name in ["TERM", "INT"] {
        let mut child = site.start("export");
        let mut out = child.stdout.take().unwrap();
        let mut got = vec![0; 200_000];
        out.read_exact(&mut got).unwrap();
        signal(&child, name);
        out.read_to_end(&mut got).unwrap();
        let said = text(&child.wait_with_output().unwrap().stderr);
        let after =
            said.trim().strip_prefix("annals: interrupted; go on with ").unwrap_or_else(|| panic!("{said}"));
        let rest = site.out(&format!("export {after}"));
        assert!(text(&got) + &rest == whole, "{after}");
        assert!(!rest.is_empty(), "it was stopped");
    }
}

/// A last line without a line end may still grow. No other rejected line is rejected again.
#[test]
fn what_was_rejected_last_is_not_rejected_again() {
    let site = Site::new();
    site.out("init");
    let (file, rejects) = (site.beside("lines"), site.beside("rejects"));
    let import = |lines: &str| {
        fs::write(&file, lines).unwrap();
        let output = site.run(&format!("import {} --skip-bad {}", file.display(), rejects.display()));
        (output.status.code().unwrap(), fs::read_to_string(&rejects).unwrap_or_default())
    };
    let bad = "nonsense\n";
    let first = format!("{}{bad}{bad}", good(1));
    assert_eq!(import(&first), (NO, bad.repeat(2)));
    assert_eq!(import(&first), (YES, bad.repeat(2)), "once");
    assert_eq!(import(&format!("{first}{}", good(2))), (YES, bad.repeat(2)), "and it goes on behind them");
    let cut = format!("{first}{}{}", good(2), &good(3)[..20]);
    assert_eq!(import(&cut).0, NO);
    assert_eq!(import(&format!("{first}{}{}", good(2), good(3))).0, YES, "the line has grown");
    assert!(counts(&site).into_iter().eq((1..=3).map(|number| (number, 1))));
    assert!(site.out("verify").starts_with("clean"));
}
