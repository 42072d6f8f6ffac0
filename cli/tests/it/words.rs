//! Messages of the `annals` command: the name of a wrong input, options instead of calls of the library,
//! counts, columns.

use std::fs;

use annals::Store;

use crate::support::*;

const GOOD: &str = "{\"entity\":\"a\",\"kind\":\"k\",\"payload\":1}\n";

fn utf_16(text: &str, mark: &[u8], to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    [mark.to_vec(), text.encode_utf16().flat_map(to_bytes).collect()].concat()
}

/// The message was "expected value at line 1 column 1". The exit code was 8 on standard input, and 2 in a
/// file of lines.
#[test]
fn what_is_no_text_is_named_for_what_it_is() {
    let inputs: [(Vec<u8>, &str); 11] = [
        (b"\x1f\x8b\x08\0\0\0\0\0".to_vec(), "it is gzip; decompress it first, with gunzip"),
        (b"\x28\xb5\x2f\xfd\x04\x00".to_vec(), "it is zstd"),
        (b"\xfd7zXZ\0\0".to_vec(), "it is xz"),
        (b"BZh91AY".to_vec(), "it is bzip2"),
        (b"PK\x03\x04\x14".to_vec(), "it is a zip archive"),
        (utf_16(GOOD, b"\xff\xfe", u16::to_le_bytes), "it is UTF-16; make it UTF-8 first"),
        (utf_16(GOOD, b"\xfe\xff", u16::to_be_bytes), "it is UTF-16"),
        (utf_16(GOOD, b"", u16::to_le_bytes), "it is UTF-16"),
        (utf_16(GOOD, b"", u16::to_be_bytes), "it is UTF-16"),
        (b"\"\xff\"\n".to_vec(), "no UTF-8, from byte 2 on"),
        (b"[1\n".to_vec(), ""),
    ];
    let site = Site::filled();
    let events = site.out("export");
    let file = site.beside("input");
    for (bytes, word) in inputs {
        fs::write(&file, &bytes).unwrap();
        let path = file.display();
        for line in [
            format!("append a k @{path}"),
            "append a k -".to_owned(),
            format!("append --lines {path}"),
            "append --lines -".to_owned(),
            format!("append a k --lines {path}"),
            format!("append --lines {path} --atomic"),
            format!("import {path}"),
            format!("import {path} --skip-bad {path}.bad --name b"),
            "import - --name a".to_owned(),
        ] {
            let output = site.command(&line).stdin(fs::File::open(&file).unwrap()).output().unwrap();
            let said = text(&output.stderr);
            // The library rejects a single line that is no UTF-8.
            if line.starts_with("import") && word.starts_with("no UTF-8") {
                assert!(matches!(output.status.code(), Some(USAGE | NO)), "{line}: {said}");
                continue;
            }
            assert_eq!(output.status.code(), Some(USAGE), "{line}: {said}");
            assert!(said.contains(word), "{line}: {said}");
            assert!(!said.contains("column 1"), "{line}: {said}");
        }
    }
    assert_eq!(site.out("export"), events, "nothing of it is in");
}

/// Concatenated files with byte order marks; an array in place of lines; messages of serde_json.
#[test]
fn what_is_no_line_says_what_to_do() {
    let site = Site::new();
    site.out("init");
    let marked = format!("\u{feff}{GOOD}\u{feff}{GOOD}");
    for line in ["append --lines -", "append --lines - --atomic", "import - --name a"] {
        let output = site.fed(line, &marked);
        assert_eq!(output.status.code(), Some(YES), "{line}: {}", text(&output.stderr));
    }
    assert_eq!(site.out("read --entity a").lines().count(), 6);
    let two_in_one = format!("{}\u{feff}{GOOD}", GOOD.trim_end());
    for (line, input, word) in [
        ("append --lines -", two_in_one.as_str(), "byte order mark in the middle"),
        ("append --lines -", "[{\"entity\":\"a\",\"kind\":\"k\"}]\n", "jq -c '.[]'"),
        ("import - --name b", "[\n{\"entity\":\"a\"}\n]\n", "jq -c '.[]'"),
        (
            "append --lines -",
            "{\"entity\":1,\"kind\":\"k\"}\n",
            "there is a wrong value: the number `1`, expected a text",
        ),
        ("append --lines -", "{\"entity\":\"a\",\"kind\":\"k\",\"tags\":{}}\n", "an object, expected a list"),
        ("append --lines -", "{\"entity\":\"a\"", "it ends in the middle of an object, at column 13"),
        ("append a k -", "{\"a\":\n]", "at line 2, column 1"),
    ] {
        let output = site.fed(line, input);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(USAGE), "{line}: {said}");
        assert!(said.contains(word), "{line}: {said}");
    }
}

/// For a rotated file the hint was "mend the line".
#[test]
fn a_source_that_changed_is_not_a_bad_line() {
    let site = Site::new();
    let file = site.beside("log");
    let import = format!("import {} --create", file.display());
    fs::write(&file, GOOD.repeat(3)).unwrap();
    site.out(&import);
    for changed in [GOOD.to_owned(), GOOD.replace('1', "2").repeat(5)] {
        fs::write(&file, changed).unwrap();
        let output = site.run(&import);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(USAGE), "{said}");
        assert!(said.contains("--name NAME") && !said.contains("mend"), "{said}");
    }
    fs::write(&file, format!("{}nonsense\n", GOOD.repeat(3))).unwrap();
    let said = text(&site.run(&import).stderr);
    assert!(said.contains("mend the line") && said.contains("--skip-bad"), "{said}");
    let full = site.run(&format!("{import} --skip-bad /dev/full"));
    assert_eq!(full.status.code(), Some(LATER), "{}", text(&full.stderr));
    assert!(text(&full.stderr).contains("free space and run it again"), "{}", text(&full.stderr));
}

/// Messages name options of the command, and not calls such as `Store::open`.
#[test]
fn the_command_speaks_of_its_own_options() {
    let site = Site::filled();
    let long = "e".repeat(5_000);
    let store = Store::open(&site.store).unwrap();
    let locked = text(&site.run("append a k 1 --wait 0s").stderr);
    let salvaged = text(&site.run("recover --salvage DEST").stderr);
    store.close().unwrap();
    assert!(locked.contains("--wait 30s") && salvaged.contains("--wait 30s"), "{locked}{salvaged}");
    let exported = site.out("export");
    let mut line: serde_json::Value = serde_json::from_str(exported.lines().nth(1).unwrap()).unwrap();
    line.as_object_mut().unwrap().remove("id");
    fs::write(site.beside("gap"), line.to_string() + "\n").unwrap();
    let gap = format!("import {}", site.beside("gap").display());
    let mut said = vec![locked, salvaged];
    for (line, word) in [
        (format!("append {long} k 1"), "more than the"),
        ("read --versions 1..2".to_owned(), "--versions counts within one stream; say --entity"),
        ("compact --remove --kind order.placed --reason x --yes".to_owned(), "say --even-unhandled"),
        (gap, "--renumber"),
    ] {
        let output = site.run(&line);
        let words = text(&output.stderr);
        assert!(!output.status.success() && words.contains(word), "{line}: {words}");
        said.push(words);
    }
    let empty = site.beside("empty");
    fs::create_dir_all(empty.join("segments")).unwrap();
    let salvage = format!("recover --salvage {}", site.beside("salvaged").display());
    for line in ["read", "append a k 1", "recover", "verify", "rollback @1 --reason x", &salvage] {
        said.push(text(&command(&empty, &words(line)).output().unwrap().stderr));
    }
    for word in [
        "Store::",
        "open_within",
        "()",
        "(..)",
        "_max allows",
        "(renumber)",
        "raise the limit",
        "serde",
        "struct ",
    ] {
        let wrong: Vec<&String> = said.iter().filter(|said| said.contains(word)).collect();
        assert!(wrong.is_empty(), "{word}: {wrong:#?}");
    }
}

#[test]
fn one_is_one() {
    let site = Site::new();
    site.out("append a k 1 --create");
    site.out("reindex");
    fs::create_dir_all(site.store.join("quarantine")).unwrap();
    fs::write(site.store.join("quarantine/x"), "x").unwrap();
    fs::write(site.beside("one"), GOOD.to_owned() + "x\n").unwrap();
    let path = |name: &str| site.beside(name).display().to_string();
    let mut said = String::new();
    for line in [
        "verify".to_owned(),
        "recover".to_owned(),
        "doctor".to_owned(),
        "describe".to_owned(),
        "stats".to_owned(),
        "story 1".to_owned(),
        format!("backup {}", path("backup")),
        format!("backup {}", path("backup")),
        format!("import {} --skip-bad {}", path("one"), path("bad")),
        "compact --remove --before 1 --reason x --even-unhandled".to_owned(),
        "erase --entity a --reason x --yes".to_owned(),
    ] {
        let output = site.run(&line);
        said += &format!("{line}\n{}{}", text(&output.stdout), text(&output.stderr));
    }
    let is_counted = |word: &str| {
        let counted =
            ["events", "appends", "segments", "files", "bytes", "lines", "entities", "indexes", "payloads"];
        counted.contains(&word)
    };
    for cell in said.split(['\n', '\t']) {
        let words: Vec<&str> = cell.split(' ').map(|word| word.trim_matches([',', ';', ':'])).collect();
        let wrong = words.windows(2).find(|pair| pair[0] == "1" && is_counted(pair[1]));
        assert!(wrong.is_none(), "{cell}");
    }
    assert!(!said.contains("0 B of them copied"), "{said}");
}

/// An East Asian character takes two columns.
#[test]
fn wide_signs_take_their_columns() {
    let site = Site::new();
    site.out(&format!("append 注文 k '\"{}\"' --create", "漢".repeat(200)));
    // Without a terminal a table has 120 columns.
    let line = site.out("read --table");
    let wide = line.chars().filter(|sign| *sign > '\u{2fff}').count();
    assert!(line.trim_end().chars().count() + wide <= 120, "{line}");
    assert!(wide > 30, "{line}");
}

/// The message was that the store is damaged, and the hint to restore a backup.
#[test]
fn a_newer_store_is_not_salvaged_as_damaged() {
    let site = Site::filled();
    change(&site, |bytes| {
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..140]);
        bytes[140..144].copy_from_slice(&crc.to_le_bytes());
    });
    let output = site.run("recover --salvage DEST");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(NEWER), "{said}");
    assert!(said.contains("needs a newer annals") && !site.beside("dest").exists(), "{said}");
}
