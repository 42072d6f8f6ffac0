//! Times, numbers, names and texts in lines: at their bounds, at what JSON cannot keep, at what cannot be
//! seen.

use std::collections::BTreeMap;

use annals::{
    Append, Coordinate, ErrorKind, EventData, Expected, Mapping, Query, Raw, Store, TimeForm, Value,
};
use serde_json::Value as Json;

use crate::jsonl::{export, import};
use crate::samples::{HIDDEN, KEPT, NOT_KEPT, SEEN, first_hidden, hidden_in_names};
use crate::support::{Bytes, all, at, kind_of};

/// Microseconds since 1970, and how a line spells them.
const TIMES: [(i64, &str); 17] = [
    (0, "1970-01-01T00:00:00Z"),
    (1, "1970-01-01T00:00:00.000001Z"),
    (-1, "1969-12-31T23:59:59.999999Z"),
    (1_795_881_238_123_450, "2026-11-28T15:53:58.12345Z"),
    (951_782_400_000_000, "2000-02-29T00:00:00Z"),
    (253_402_300_799_000_000, "9999-12-31T23:59:59Z"),
    (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
    (253_402_300_800_000_000, "+010000-01-01T00:00:00Z"),
    (253_402_300_800_000_001, "+010000-01-01T00:00:00.000001Z"),
    (-62_135_596_800_000_001, "0000-12-31T23:59:59.999999Z"),
    (-62_167_219_200_000_001, "-000001-12-31T23:59:59.999999Z"),
    (-377_705_116_799_999_999, "-009999-01-01T00:00:00.000001Z"),
    (-377_705_116_800_000_000, "-009999-01-01T00:00:00Z"),
    (-377_705_116_800_000_001, "-010000-12-31T23:59:59.999999Z"),
    (1_764_345_238_123_456_789, "+057879-11-16T11:28:43.456789Z"),
    (i64::MAX, "+294247-01-10T04:00:54.775807Z"),
    (i64::MIN, "-290308-12-21T19:59:05.224192Z"),
];

fn with_time(time: &str) -> String {
    format!("{{\"entity\":\"a:1\",\"kind\":\"x\",\"payload\":1,\"occurred_at\":{time}}}")
}

/// The time that a line or a mapping gives to an event.
fn occurred(line: &str, mapping: Option<Mapping>) -> Result<i64, annals::Error> {
    let store = Store::in_memory().unwrap();
    let import = store.import("time", line.as_bytes());
    match mapping {
        Some(mapping) => import.mapped(mapping).run()?,
        None => import.run()?,
    };
    let event = store.last(Query::all()).unwrap().unwrap();
    let time = event.occurred_at().unwrap();
    Ok(match time.duration_since(std::time::SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap(),
        Err(before) => i64::try_from(-i128::try_from(before.duration().as_micros()).unwrap()).unwrap(),
    })
}

/// `9999-12-31T23:59:59Z` was refused, and an event of then was exported as a number.
#[test]
fn every_time_has_a_text_and_comes_back() {
    let mapping = || Mapping::new("a:1", "x").time("/occurred_at", TimeForm::Rfc3339);
    for (micros, text) in TIMES {
        let store = Store::in_memory().unwrap();
        Append::to("a:1").event(&Raw("x", &())).occurred_at(at(micros)).commit(&store).unwrap();
        let lines = export(&store, Query::all());
        assert!(lines.contains(&format!("\"occurred_at\":\"{text}\"")), "{micros}: {lines}");
        let copy = import(&lines);
        assert_eq!(copy.last(Query::all()).unwrap().unwrap().occurred_at(), Some(at(micros)), "{lines}");
        let line = with_time(&format!("\"{text}\""));
        assert_eq!(occurred(&line, None).unwrap(), micros, "{line}");
        assert_eq!(occurred(&line, Some(mapping())).unwrap(), micros, "{line}");
    }
}

#[test]
fn offsets_near_the_ends_are_read() {
    for (text, micros) in [
        ("9999-12-31T23:59:59+00:00", 253_402_300_799_000_000),
        ("9999-12-31 23:59:59.9999999+14:00", 253_402_250_399_999_999),
        ("9999-12-31T23:59:59-02:00", 253_402_307_999_000_000),
        ("-009999-01-01T00:00:00-12:00", -377_705_073_600_000_000),
        ("-009999-01-01T00:00:00+01:00", -377_705_120_400_000_000),
        ("+010000-01-01T00:30:00+01:00", 253_402_299_000_000_000),
        ("1969-12-31T23:59:59.9999999Z", -1),
        ("2026-11-28T16:53:58.5+01:00", 1_795_881_238_500_000),
    ] {
        assert_eq!(occurred(&with_time(&format!("\"{text}\"")), None).unwrap(), micros, "{text}");
    }
    for text in [
        "",
        "10000-01-01T00:00:00Z",
        "+10000-01-01T00:00:00Z",
        "-000000-01-01T00:00:00Z",
        "+0a0000-01-01T00:00:00Z",
        "+010001-02-29T00:00:00Z",
        "2026-11-28T15:53:58",
        "2026-11-28",
        "+294247-01-10T04:00:54.775808Z",
        "-290308-12-21T19:59:05.224191Z",
        "+999999-01-01T00:00:00Z",
        "\u{2212}009999-01-01T00:00:00Z",
    ] {
        let error = occurred(&with_time(&format!("\"{text}\"")), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("time"), "{text}: {error}");
    }
}

/// Milliseconds became 1970, and nanoseconds the year 57,879, without a word.
#[test]
fn a_number_of_another_unit_than_microseconds_is_refused() {
    for (number, word) in [
        ("1764345238", "seconds"),
        ("1764345238123", "milliseconds"),
        ("1764345238123456789", "nanoseconds"),
        ("253402300799", "seconds"),
        ("253402300799999", "milliseconds"),
        ("315532799999999", "2026-11-28T15:53:58.123456Z"),
        ("253402300800000000", "2026-11-28T15:53:58.123456Z"),
        ("0", "2026-11-28T15:53:58.123456Z"),
        ("-1764345238123456", "2026-11-28T15:53:58.123456Z"),
        ("18446744073709551615", "microseconds"),
        ("1764345238.25", "time"),
    ] {
        for field in ["occurred_at", "recorded_at"] {
            let line = with_time(number).replace("occurred_at", field);
            let error = occurred(&line, None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(word), "{line}: {error}");
        }
    }
    for micros in [315_532_800_000_000, 1_764_345_238_123_456, 253_402_300_799_999_999] {
        assert_eq!(occurred(&with_time(&micros.to_string()), None).unwrap(), micros);
    }
    // A mapping names its unit; what leaves the calendar was named wrongly.
    for (form, number, word) in [
        (TimeForm::Seconds, "1764345238123", "milliseconds"),
        (TimeForm::Millis, "1764345238123456", "microseconds"),
        (TimeForm::Micros, "1764345238123456789", "nanoseconds"),
        (TimeForm::Seconds, "1e300", "is no time"),
    ] {
        let mapping = Mapping::new("a:1", "x").time("/occurred_at", form);
        let error = occurred(&with_time(number), Some(mapping)).unwrap_err();
        assert!(error.to_string().contains(word), "{form:?} {number}: {error}");
    }
}

#[test]
fn what_json_cannot_keep_is_refused_with_its_column() {
    let line = |field: &str, json: &str| {
        let other = if field == "payload" { "metadata" } else { "payload" };
        format!("{{\"entity\":\"a:1\",\"kind\":\"x\",\"{other}\":1,\"{field}\":{json}}}")
    };
    for field in ["payload", "metadata"] {
        for json in KEPT {
            let lines = export(&import(&line(field, json)), Query::all());
            let parsed: Json = serde_json::from_str(&lines).unwrap();
            assert_eq!(parsed[field], serde_json::from_str::<Json>(json).unwrap(), "{json}: {lines}");
        }
        for (json, column, word) in NOT_KEPT {
            let line = line(field, json);
            let column = column + line.find(json).unwrap();
            let foreign = Mapping::new("a:1", "x");
            for mapping in [None, Some(foreign)] {
                let store = Store::in_memory().unwrap();
                let import = store.import("bad", line.as_bytes());
                let outcome = match mapping {
                    Some(mapping) => import.mapped(mapping).run(),
                    None => import.run(),
                };
                let error = outcome.expect_err(&line);
                assert_eq!(error.kind(), ErrorKind::Invalid);
                let text = error.to_string();
                assert!(
                    text.contains(&format!("column {column}: ")) && text.contains(word),
                    "{line}: {text}"
                );
                assert_eq!(store.count(Query::all()).unwrap(), 0);
            }
        }
    }
}

/// `["arr:1","a.x",..]` was taken by position.
#[test]
fn a_line_is_an_object() {
    let whole = r#"[1,null,"a:1","default","x",1,1,[],null,null,null,null,null,null,null,null,5,null,null]"#;
    for line in [whole, "[]", "[1]", "7", "\"a\"", "null", "true", " [1]"] {
        let store = Store::in_memory().unwrap();
        let error = store.import("list", line.as_bytes()).run().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("an object"), "{line}: {error}");
        assert_eq!(store.count(Query::all()).unwrap(), 0);
    }
    // Below it, too: a list stands only where a list is meant, and nothing else does.
    for field in [
        r#""tags":{"0":"a"}"#,
        r#""tags":"a""#,
        r#""append":{"0":0,"1":1}"#,
        r#""append":[0]"#,
        r#""append":[0,1,2]"#,
        r#""id":[1,162,34,235,216,140,112,0,128,0,0,0,5,131,205,48]"#,
        r#""cause":[1,162,34,235,216,140,112,0,128,0,0,0,5,131,205,48]"#,
        r#""occurred_at":["2026-11-28T15:53:58Z"]"#,
        r#""scope":["s"]"#,
        r#""schema_version":[1]"#,
        r#""metadata_base64":[1]"#,
    ] {
        let line = format!("{{\"entity\":\"a:1\",\"kind\":\"x\",\"payload\":1,{field}}}");
        let store = Store::in_memory().unwrap();
        assert_eq!(kind_of(store.import("list", line.as_bytes()).run()), ErrorKind::Invalid, "{line}");
    }
}

/// Lines without the two fields that say where and when a store recorded an event.
fn content(lines: &str) -> Vec<String> {
    let cut = |line: &str, field: &str| {
        let (before, rest) = line.split_once(&format!("\"{field}\":")).unwrap();
        format!("{before}{}", rest.split_once(',').unwrap().1)
    };
    lines.lines().map(|line| cut(&cut(line, "position"), "recorded_at")).collect()
}

/// Texts that break what handles texts carelessly.
fn naughty() -> Vec<String> {
    let mut texts: Vec<String> = [
        "",
        " ",
        "\0",
        "\t\r\n",
        "null",
        "undefined",
        "NaN",
        "-Infinity",
        "1e1000",
        "0x0",
        "\\",
        "\\\\u0041",
        "\"",
        "'; DROP TABLE events; --",
        "<script>alert(1)</script>",
        "${jndi:ldap://x}",
        "{{7*7}}",
        "%s%n",
        "$(touch x)",
        "../../etc/passwd",
        "Ω≈ç√∫˜µ≤",
        "田中さんにあげて",
        "ﺍﻠﺒﻴﺙ",
        "👨‍👩‍👧‍👦🇩🇪",
        "Z͑ͫ̓a̴l͔g̅o",
        "\u{fffd}\u{fffe}\u{ffff}\u{10ffff}",
        "\u{feff}bom",
        "｀ｗｉｄｅ",
        "\u{202e}test\u{2066}\u{2069}",
        "{\"a\":1,\"a\":2}",
        "$bytes",
        "position",
    ]
    .map(ToOwned::to_owned)
    .to_vec();
    texts.extend(HIDDEN.map(|sign| format!("a{sign}b")));
    texts.push("x".repeat(100_000));
    texts
}

/// Payloads as bytes: MessagePack of texts, numbers at their bounds, keys that come twice; and what is none.
fn payloads() -> Vec<Vec<u8>> {
    let numbers = [0, 1, -1, 127, 128, -32, -33, i64::from(u32::MAX), i64::MAX, i64::MIN];
    let floats = [0.0, -0.0, 0.1, 1.0, 1e23, f64::MAX, f64::MIN_POSITIVE, 5e-324, f64::NAN, f64::INFINITY];
    let mut all: Vec<Vec<u8>> = Vec::new();
    let mut add = |value: Value| {
        let mut packed = Vec::new();
        Raw("x", &value).encode(&mut packed).unwrap();
        all.push(packed);
    };
    for text in naughty() {
        add(Value::of(&(&text, BTreeMap::from([(&text, 1)]))).unwrap());
    }
    numbers.iter().for_each(|number| add(Value::of(number).unwrap()));
    add(Value::of(&u64::MAX).unwrap());
    floats.iter().for_each(|number| add(Value::of(number).unwrap()));
    all.extend([
        vec![],
        vec![0xC1],
        vec![0xC4, 3, 0, 0x1b, 0xFF],
        vec![0x82, 0xA1, b'a', 1, 0xA1, b'a', 2],
        vec![0x91, 0x82, 0xA1, b'a', 1, 0xA1, b'a', 1],
        vec![0xCA, 0x3F, 0x80, 0, 0],
        (0..=255).collect(),
    ]);
    all
}

/// Every text, number, time and name, bit by bit.
#[test]
fn an_export_of_an_import_is_the_export() {
    let store = Store::in_memory().unwrap();
    let copy = Store::in_memory().unwrap();
    for (number, payload) in payloads().into_iter().enumerate() {
        let (micros, _) = TIMES[number % TIMES.len()];
        let append = Append::to("values").event(&Bytes("x", payload)).occurred_at(at(micros));
        append.metadata(&(number, SEEN)).commit(&store).unwrap();
    }
    let names = naughty();
    let names = names.iter().filter(|name| !name.chars().any(char::is_control) && name.len() < 200);
    for name in names.filter(|name| !name.trim().is_empty() && !name.starts_with('$')) {
        let event = Append::to((name.as_str(), name.as_str())).event(&Raw(name, &())).tag(name);
        event.metadata(&name).occurred_at(at(7)).commit(&store).unwrap();
    }
    let lines = export(&store, Query::all());
    assert!(lines.lines().count() > 150, "{}", lines.lines().count());
    for line in lines.lines() {
        assert_eq!(first_hidden(line), None);
        serde_json::from_str::<Json>(line).unwrap();
    }
    copy.import("lines", lines.as_bytes()).run().unwrap();
    let again = export(&copy, Query::all());
    assert_eq!(content(&again), content(&lines));
    for (event, copied) in all(store.read(Query::all())).iter().zip(all(copy.read(Query::all()))) {
        assert_eq!(event.payload().unwrap(), copied.payload().unwrap());
        assert_eq!((event.entity(), event.kind()), (copied.entity(), copied.kind()));
    }
}

/// A name with `U+202E` turned around the line it stood in.
#[test]
fn texts_for_people_show_what_is_hidden_in_names() {
    let hidden = hidden_in_names();
    let name = format!("x{hidden}y");
    let store = Store::in_memory().unwrap();
    let append = Append::to((name.as_str(), name.as_str())).event(&Raw(&name, &())).tag(&name);
    append.event(&Raw("k", &())).cause(annals::Cause::InAppend(0)).commit(&store).unwrap();
    drop(store.consumer(&name, Query::entity(&name)).unwrap());
    store.consumer_control(&name).by(&name).halt(&name).unwrap();
    let id = store.stream(&name).next().unwrap().unwrap().id();
    let event = store.get(id).unwrap().unwrap();
    let conflict = Append::to(name.as_str()).expect(Expected::NoStream).event(&Raw("k", &())).commit(&store);
    let conflict = conflict.unwrap_err();
    let condition = annals::AppendCondition::none(Query::entity(&name).tag(&name));
    let failed = Append::to("a").event(&Raw("k", &())).condition(condition).commit(&store).unwrap_err();
    let status = store.consumers().unwrap().remove(0);
    let story = store.story(event.correlation()).unwrap();
    let coordinate = Coordinate::new(&name, &name).unwrap();
    let query = Query::entity(&name).scope(&name).kinds([&name]).tag(&name).or(Query::entity_prefix(&name));
    for (what, text) in [
        ("error", conflict.to_string()),
        ("error {:?}", format!("{conflict:?}")),
        ("condition", failed.to_string()),
        ("undecodable", event.decode::<u64>().unwrap_err().to_string()),
        ("coordinate", coordinate.to_string()),
        ("query", query.to_string()),
        ("consumer", status.to_string()),
        ("state", status.state.to_string()),
        ("story", story.to_string()),
        ("dot", story.to_dot()),
    ] {
        assert_eq!(first_hidden(&text), None, "{what}");
        assert!(text.contains("\\u{202e}") && text.contains("\\u{e0041}"), "{what}: {text}");
    }
    assert_eq!(first_hidden(&story.to_mermaid()), None);
    for sign in hidden.chars() {
        assert!(!story.to_mermaid().contains(&format!("#{};", u32::from(sign))), "Mermaid would show it");
    }
    let json = story.to_json();
    assert_eq!(first_hidden(&json), None);
    let parsed: Json = serde_json::from_str(&json).unwrap();
    assert_eq!(parsed["events"][0]["entity"], name, "JSON holds the name itself");
    assert_eq!(event.entity(), name);
    // What can be seen is left alone.
    let seen = Coordinate::new(SEEN, "s").unwrap();
    assert_eq!(seen.to_string(), format!("{SEEN} in s"));
}

/// A file that was imported as "a" and as "b" was in twice.
#[test]
fn a_source_goes_in_under_one_name() {
    let line = |number: u64| format!("{{\"entity\":\"a:{number}\",\"kind\":\"x\",\"payload\":{number}}}\n");
    let lines = |numbers: std::ops::Range<u64>| numbers.map(line).collect::<String>();
    let refused = |store: &Store, name: &str, source: &str| {
        let error = store.import(name, source.as_bytes()).run().expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("\"first\""), "{error}");
    };
    let store = Store::in_memory().unwrap();
    let source = lines(0..3000);
    store.import("other", lines(5000..5010).as_bytes()).run().unwrap();
    store.import("first", source.as_bytes()).run().unwrap();
    let head = store.head().unwrap();
    refused(&store, "second", &source);
    // Grown since, cut behind the first 64 KiB, cut before that.
    for end in [3001, 2000, 10, 1] {
        refused(&store, "second", &lines(0..end));
    }
    assert_eq!(store.head().unwrap(), head, "nothing went in");
    assert_eq!(store.import("first", source.as_bytes()).run().unwrap().events, 0, "its own name goes on");
    // What only begins alike is another source.
    let alike = lines(0..1) + &lines(7000..7003);
    assert_eq!(store.import("alike", alike.as_bytes()).run().unwrap().events, 4);
    let behind = lines(1..3000);
    assert_eq!(store.import("behind", behind.as_bytes()).run().unwrap().events, 2999);
    // Of an import that got one append far, that append is what there is.
    let short = Store::in_memory().unwrap();
    short.import("first", line(1).as_bytes()).run().unwrap();
    refused(&short, "second", &line(1));
    refused(&short, "second", &lines(1..4));
    assert_eq!(short.import("second", line(2).as_bytes()).run().unwrap().events, 1);
    refused(&short, "third", &line(1));
    // Lines that were passed over are not in: with a mapping they go in under another name.
    let foreign = Store::in_memory().unwrap();
    let rows = "{\"id\":1}\n{\"id\":2}\n";
    let passed = foreign.import("first", rows.as_bytes()).skip_bad(std::io::sink()).run().unwrap();
    assert_eq!((passed.events, passed.rejected), (0, 2));
    let mapping = Mapping::new("row:{/id}", "row");
    assert_eq!(foreign.import("second", rows.as_bytes()).mapped(mapping).run().unwrap().events, 2);
}
