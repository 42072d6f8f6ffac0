//! What no single test shows: layers, doors to the outside, size, forbidden words, dependencies.
//!
//! The code is read as tokens, without comments and texts. Tests inside `src` may do as they like.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::source::{Token, functions, is_word, paths, tokens};

/// The rooms of the library, from the bottom up. A file may use its own room and those above its own in this
/// list, and of another room only what that room's `mod.rs` exports.
const ROOMS: [&str; 14] = [
    "threads",
    "types",
    "disk",
    "format",
    "event",
    "log",
    "index",
    "read",
    "engine",
    "maintenance",
    "store",
    "consume",
    "state",
    "test",
];

/// Modules within a room whose items other rooms import by their full path.
const OPEN_MODULES: [&str; 2] = [
    // One list of all names that are on disk in every store, grouped by who writes them.
    "types::system",
    // The layout of a file that may be deleted at any time: only the room `index` reads and writes it.
    "format::index_file",
];

/// Each outside thing, and the files that may touch it.
const DOORS: [(&str, &[&str]); 23] = [
    ("redb", &["store/state_cache/file.rs", "store/state_cache/table.rs"]),
    ("lru", &["store/state_cache/memory.rs"]),
    ("serde_json", &["store/jsonl/json.rs", "store/jsonl/line.rs"]),
    ("base64", &["store/jsonl/line.rs"]),
    ("jiff", &["store/jsonl/time.rs"]),
    ("std::fs", &["disk/os/calls.rs", "test/lock/mod.rs"]),
    ("std::os", &["disk/os/calls.rs"]),
    ("rustix", &["disk/os/calls.rs"]),
    ("getrandom", &["disk/os/calls.rs"]),
    ("crc32c", &["format/bytes.rs"]),
    ("sha2", &["format/tree/mod.rs"]),
    ("rmp_serde", &["event/codec/payload.rs"]),
    (
        "flume",
        &[
            "engine/queue.rs",
            "engine/writer/mod.rs",
            "engine/writer/shared.rs",
            "read/notification/channel.rs",
            "read/reader/mod.rs",
            "consume/reactor/partitioned.rs",
        ],
    ),
    ("metrics", &["engine/counters.rs"]),
    ("oneshot", &["engine/queue.rs", "engine/writer/replies.rs", "engine/ticket.rs", "engine/mod.rs"]),
    ("std::thread::Builder", &["threads.rs"]),
    ("std::thread::sleep", &["engine/mod.rs", "maintenance/throttle.rs", "disk/os/lock.rs"]),
    ("std::thread::spawn", &[]),
    ("std::thread::scope", &[]),
    ("SystemTime::now", &["types/options.rs"]),
    ("std::env", &["test/lock/mod.rs", "store/environment.rs"]),
    ("std::net", &[]),
    ("std::process::Command", &[]),
];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
/// One of them is `annals-macros`. Six serve the tree: `sha2` and the crates that only it needs.
const CRATES_MAX: usize = 51;

const LICENCES: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Zlib",
];

/// Where the code of the library and of the command stands.
const CODE: [&str; 2] = ["src", "cli/src"];

struct Source {
    /// Its place in [`CODE`].
    directory: &'static str,
    /// From that directory.
    path: String,
    tokens: Vec<Token>,
    lines: usize,
}

impl Source {
    fn is_test(&self) -> bool {
        self.path.split('/').any(|part| part == "tests" || part == "tests.rs")
    }

    /// Its path as messages show it, from the root of the repository.
    fn full_path(&self) -> String {
        format!("{}/{}", self.directory, self.path)
    }

    /// The crate's module it belongs to.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The code of the library. That of the command needs no layers: it is a user, and the compiler keeps it
/// outside.
fn sources() -> Vec<Source> {
    sources_in("src")
}

fn sources_in(directory: &'static str) -> Vec<Source> {
    let (mut found, mut left) = (Vec::new(), vec![root().join(directory)]);
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let path: PathBuf = path.strip_prefix(root().join(directory)).unwrap().to_owned();
            let path = path.to_str().unwrap().to_owned();
            let lines = text.lines().count();
            found.push(Source { directory, path, tokens: tokens(&text), lines });
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(found.len() >= 30, "the sources in {directory} were not found");
    found
}

#[test]
fn the_reader_of_this_test_can_read() {
    let text = r##"
        use a::{b::c, d::{self, e as f}, g::*}; // use h::i
        /// `j::k`
        fn l() { let m = "n::o \" p::q"; r::<u8>::s('\'', 't', "/*"); Vec::<u::v>::new() } /* w::x */
        struct Y<'a>(&'a z::A);
    "##;
    let found: Vec<String> = paths(&tokens(text)).into_iter().map(|(path, _)| path).collect();
    for right in ["a::b::c", "a::d::self", "a::d::e", "a::g::*", "u::v", "z::A"] {
        assert!(found.iter().any(|path| path == right), "{right} is missing in {found:?}");
    }
    for wrong in ["h::i", "j::k", "n::o", "p::q", "w::x"] {
        assert!(!found.iter().any(|path| path.contains(wrong)), "{wrong} is in {found:?}");
    }
    assert_eq!(tokens(text).iter().filter(|token| token.text == "fn").count(), 1);
    assert_eq!(tokens("a\n'b'\n\"\n\"\nc").last().unwrap().line, 5);
}

#[test]
fn a_room_uses_only_rooms_above_it_and_what_they_export() {
    let row = |room: &str| ROOMS.iter().position(|name| *name == room);
    let sources = sources();
    let exports: BTreeMap<&str, BTreeSet<String>> =
        ROOMS.into_iter().map(|room| (room, exports_of(&sources, room))).collect();
    let mut wrong = Vec::new();
    let mut uses = 0;
    for source in sources.iter().filter(|source| source.path != "lib.rs" && !source.is_test()) {
        let own = row(source.module()).unwrap_or_else(|| panic!("{} is in no room", source.path));
        for (path, line) in paths(&source.tokens) {
            let Some(inside) = path.strip_prefix("crate::") else { continue };
            let mut parts = inside.split("::");
            let used = parts.next().unwrap();
            // A macro stands at the crate's root wherever it was written.
            if used.starts_with("__") || used == source.module() {
                continue;
            }
            uses += 1;
            let place = format!("src/{}:{line} uses {path}", source.path);
            if row(used).is_none_or(|used| used >= own) {
                wrong.push(format!("{place}, which is no room above {}", ROOMS[own]));
                continue;
            }
            let Some(item) = parts.next() else { continue };
            let is_deep = item.starts_with(|c: char| c.is_lowercase()) && parts.next().is_some();
            if !exports[used].contains(item) {
                wrong.push(format!("{place}, which {used}/mod.rs does not export"));
            } else if is_deep && !OPEN_MODULES.contains(&format!("{used}::{item}").as_str()) {
                wrong.push(format!("{place}, which reaches into a module of the room {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(uses > 150, "only {uses} uses were found");
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let words = tokens(&lib);
    let modules = words.windows(3).filter(|three| three[0].text == "mod" && three[2].text == ";");
    let modules: BTreeSet<&str> = modules.map(|three| three[1].text.as_str()).collect();
    assert_eq!(modules, ROOMS.into_iter().collect(), "lib.rs and ROOMS name the same modules");
}

/// The names that a room's `mod.rs`, or its only file, exports: what it defines or names, re-exports
/// included.
fn exports_of(sources: &[Source], room: &str) -> BTreeSet<String> {
    let paths = [format!("{room}/mod.rs"), format!("{room}.rs")];
    let source = sources.iter().find(|source| paths.contains(&source.path));
    let source = source.unwrap_or_else(|| panic!("no {paths:?} in src"));
    source.tokens.iter().map(|token| token.text.clone()).filter(|text| is_word(text)).collect()
}

#[test]
fn each_outside_thing_has_its_door() {
    let mut wrong = Vec::new();
    let mut used: BTreeSet<(&str, &str)> = BTreeSet::new();
    let sources = sources();
    for source in sources.iter().filter(|source| !source.is_test()) {
        for (path, line) in paths(&source.tokens) {
            let through = |(thing, _): &&(&str, &[&str])| {
                path == *thing
                    || path.starts_with(&format!("{thing}::"))
                    || path.ends_with(&format!("::{thing}"))
            };
            for (thing, doors) in DOORS.iter().filter(through) {
                match doors.iter().find(|door| **door == source.path) {
                    Some(door) => drop(used.insert((thing, door))),
                    None => wrong.push(format!("src/{}:{line} uses {path}", source.path)),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let doors: BTreeSet<_> =
        DOORS.iter().flat_map(|(thing, doors)| doors.iter().map(|door| (*thing, *door))).collect();
    assert_eq!(used, doors, "a door without users is to be closed");
}

#[test]
fn files_and_functions_stay_readable() {
    let sources: Vec<Source> = CODE.into_iter().flat_map(sources_in).collect();
    let code: Vec<&Source> = sources.iter().filter(|source| !source.is_test()).collect();
    let longest = code.iter().max_by_key(|source| source.lines).unwrap();
    let functions = code.iter().flat_map(|source| {
        let named = functions(&source.tokens).into_iter();
        named.map(|(lines, name)| (lines, format!("{}, {name}", source.full_path())))
    });
    let functions: Vec<(usize, String)> = functions.collect();
    let (lines, name) = functions.iter().max().unwrap();
    let total: usize = code.iter().map(|source| source.lines).sum();
    let longest_file = longest.full_path();
    println!("{} files of {total} lines, the longest {longest_file} of {}", code.len(), longest.lines);
    println!("{} functions, the longest {name} of {lines} lines", functions.len());
    assert!(functions.len() > 400, "only {} functions were found", functions.len());
    assert!(longest.lines <= FILE_LINES_MAX, "{longest_file} has {} lines", longest.lines);
    assert!(*lines <= FUNCTION_LINES_MAX, "{name} has {lines} lines");
}

#[test]
fn nothing_is_unwrapped_cast_or_left_over() {
    const NUMBERS: [&str; 12] =
        ["u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize"];
    const LEFT_OVER: [&str; 7] = ["todo", "unimplemented", "dbg", "print", "println", "eprint", "eprintln"];
    let mut wrong = Vec::new();
    let sources: Vec<Source> = CODE.into_iter().flat_map(sources_in).collect();
    for source in sources.iter().filter(|source| !source.is_test()) {
        for three in source.tokens.windows(3) {
            let [one, two, three] = [&three[0], &three[1], &three[2]].map(|token| token.text.as_str());
            let is_wrong = (one == "." && two == "unwrap" && three == "(")
                || (one == "as" && NUMBERS.contains(&two))
                || (LEFT_OVER.contains(&one) && two == "!")
                || one == "unsafe";
            if is_wrong {
                wrong.push(format!("{}: {one} {two} {three}", source.full_path()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for crate_root in ["src/lib.rs", "cli/src/main.rs"] {
        let text = fs::read_to_string(root().join(crate_root)).unwrap();
        assert!(
            text.lines().any(|line| line == "#![forbid(unsafe_code)]"),
            "{crate_root} allows unsafe code"
        );
    }
}

#[test]
fn dependencies_are_few_and_free() {
    let workspace = crates(&["--workspace", "--all-features"]).unwrap_or_else(|error| {
        // A clone in which only the library was built has no crates of the command.
        assert!(error.contains("--offline was specified"), "{error}");
        println!("only the library's crates are here: {error}");
        let features = [("jsonl", cfg!(feature = "jsonl")), ("metrics", cfg!(feature = "metrics"))];
        let features = features.iter().filter(|(_, is_on)| *is_on).map(|(name, _)| *name);
        crates(&["--package", "annals", "--features", &features.collect::<Vec<_>>().join(",")]).unwrap()
    });
    for (name, licence) in &workspace {
        assert!(is_allowed(licence), "{name} has the licence {licence:?}");
    }
    let tree = crates(&["--package", "annals", "--edges", "normal,build"]).unwrap();
    let names: Vec<&str> = tree.keys().filter_map(|package| package.split(' ').next()).collect();
    let others = names.len() - 1;
    println!("{others} crates in the default tree, build ones included: {}", names.join(" "));
    println!("{} crates whose licences are allowed", workspace.len());
    assert!(others > 10 && names.contains(&"blake3"), "the tree was not read: {names:?}");
    assert!(others <= CRATES_MAX, "{others} crates");
    assert!(!names.contains(&"clap"), "the library builds crates of the command: {names:?}");
}

/// The packages that cargo builds for this platform, ours included, with their licences. Asks no network: a
/// package that was never downloaded is an error, in cargo's words.
fn crates(which: &[&str]) -> Result<BTreeMap<String, String>, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["tree", "--offline", "--locked", "--prefix", "none", "--format", "{p}\t{l}"])
        .arg("--manifest-path")
        .arg(root().join("Cargo.toml"))
        .args(which)
        .output()
        .unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let packages = text.lines().filter_map(|line| line.split_once('\t'));
    Ok(packages.map(|(name, licence)| (name.to_owned(), licence.replace(" (*)", ""))).collect())
}

/// An SPDX expression: `AND` binds tighter than `OR`; `/` is an old way to write `OR`.
fn is_allowed(licence: &str) -> bool {
    let licence = licence.replace('/', " OR ");
    if let Some((inside, rest)) = licence.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        return match rest.trim() {
            "" => is_allowed(inside),
            rest if rest.starts_with("AND ") => is_allowed(inside) && is_allowed(&rest[4..]),
            rest if rest.starts_with("OR ") => is_allowed(inside) || is_allowed(&rest[3..]),
            _ => false,
        };
    }
    licence.split(" OR ").any(|one| one.split(" AND ").all(|all| LICENCES.contains(&all.trim())))
}

#[test]
fn licences_are_understood() {
    for allowed in
        ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(MIT OR GPL-3.0) AND Unicode-3.0", "MIT AND Zlib"]
    {
        assert!(is_allowed(allowed), "{allowed}");
    }
    for refused in
        ["", "none", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR Zlib) AND GPL-3.0", "Apache-2.0 WITH X", "(MIT"]
    {
        assert!(!is_allowed(refused), "{refused}");
    }
}

/// What README shows compiles and runs: each block of Rust is a part of an example, but for indentation.
#[test]
fn what_readme_shows_is_part_of_an_example() {
    let lines = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
    let mut examples: Vec<Vec<String>> = Vec::new();
    let mut left = vec![root().join("examples")];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            examples.push(lines(&fs::read_to_string(&path).unwrap()));
        }
    }
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let blocks: Vec<&str> =
        readme.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() > 4, "README has {} blocks of Rust", blocks.len());
    for block in blocks {
        let block = lines(block);
        let is_part = |example: &Vec<String>| example.windows(block.len()).any(|part| part == block);
        assert!(examples.iter().any(is_part), "no example has\n{}", block.join("\n"));
    }
}

/// The sections of SPEC.md: what a link to each says, its number, if it has one, and its title without it.
struct Section {
    anchor: String,
    number: Option<String>,
    title: String,
}

/// Lines of a document that are no code, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

fn sections(spec: &str) -> Vec<Section> {
    let headings = prose(spec).filter(|(_, line)| line.starts_with('#'));
    headings
        .map(|(_, line)| {
            let heading = line.trim_start_matches('#').trim();
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            let (first, rest) = heading.split_once(' ').unwrap_or((heading, ""));
            let is_number = first.contains('.') && first.chars().all(|c| c.is_ascii_digit() || c == '.');
            Section {
                anchor: kept.collect::<String>().to_lowercase().replace(' ', "-"),
                number: is_number.then(|| first.to_owned()),
                title: if is_number { rest.to_owned() } else { heading.to_owned() },
            }
        })
        .collect()
}

/// Where a line names a section by a number alone. In a document with many figures only a number in brackets
/// counts.
fn bare_numbers(line: &str, has_figures: bool) -> Vec<std::ops::Range<usize>> {
    const UNITS: [&str; 14] =
        ["ms", "us", "ns", "s ", "MB", "GB", "KiB", "MiB", "TB", "k/s", "M/s", "%", "million", "and 0"];
    let mut found = Vec::new();
    let bytes = line.as_bytes();
    for start in 0..bytes.len() {
        let digits = |at: usize| bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let before = start.checked_sub(1).map(|before| bytes[before]);
        let is_start = matches!(bytes[start], b'1'..=b'3')
            && before.is_none_or(|before| !before.is_ascii_alphanumeric() && !b".-[".contains(&before));
        if !is_start || digits(start) != 1 || bytes.get(start + 1) != Some(&b'.') {
            continue;
        }
        let more = digits(start + 2);
        let end = start + 2 + more;
        let rest = &line[end..];
        let is_figure = rest.starts_with('-')
            || (rest.starts_with('.') && rest[1..].starts_with(|c: char| c.is_ascii_digit()))
            || UNITS.iter().any(|unit| rest.trim_start().starts_with(unit));
        let is_in_brackets = before == Some(b'(') && rest.starts_with([')', ',']);
        if (1..=2).contains(&more)
            && bytes[start + 2] != b'0'
            && !is_figure
            && (is_in_brackets || !has_figures)
        {
            found.push(start..end);
        }
    }
    found
}

/// Links in a line: what they show, and where they lead in the document.
fn links(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.match_indices("](#").map(|(at, _)| {
        let shown = &line[line[..at].rfind('[').map_or(0, |start| start + 1)..at];
        let anchor = &line[at + 3..];
        (shown, &anchor[..anchor.find(')').unwrap_or(anchor.len())])
    })
}

/// Links in a line to files and sections of this repository: where each leads, as it is written.
fn local_links(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("](").filter_map(|(at, _)| {
        let target = &line[at + 2..];
        let target = &target[..target.find(')').unwrap_or(target.len())];
        let is_elsewhere = target.contains("://") || target.contains(' ');
        (!is_elsewhere).then_some(target)
    })
}

/// The documents that a reader of the repository meets: those beside Cargo.toml, and those in `docs/`.
fn documents() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = [root().to_owned(), root().join("docs")]
        .iter()
        .flat_map(|directory| fs::read_dir(directory).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    found.sort();
    found
}

/// A link leads to a file that is there, and to a section that the file has. Only SPEC.md numbers its
/// sections, so another document names them by links.
#[test]
fn links_between_documents_resolve() {
    let (mut count, mut wrong) = (0, Vec::new());
    let documents = documents();
    for document in &documents {
        let text = fs::read_to_string(document).unwrap();
        let is_in_docs = document.parent().is_some_and(|parent| parent.ends_with("docs"));
        for (at, line) in prose(&text) {
            for target in local_links(line) {
                count += 1;
                if !leads_somewhere(document, target) {
                    wrong.push(format!("{}, line {at}: {target}", document.display()));
                }
            }
            for range in bare_numbers(line, true).into_iter().filter(|_| is_in_docs) {
                wrong.push(format!("{}, line {at}: ({}) is no link", document.display(), &line[range]));
            }
        }
    }
    println!("{count} links in {} documents", documents.len());
    assert!(count > 20 && documents.len() > 3, "{count} links in {documents:?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn leads_somewhere(document: &Path, target: &str) -> bool {
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() { document.to_owned() } else { document.with_file_name(file) };
    if anchor.is_empty() || !path.is_file() {
        return path.exists();
    }
    sections(&fs::read_to_string(path).unwrap()).iter().any(|section| section.anchor == anchor)
}

/// Sections of SPEC.md that a text elsewhere names: by title or by number.
fn named_sections(text: &str) -> impl Iterator<Item = String> {
    text.match_indices("SPEC").filter_map(|(at, _)| {
        let number = |words: &str| {
            let number: String = words.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
            let number = number.trim_end_matches('.').to_owned();
            number.contains('.').then_some(number)
        };
        let behind = text[at + 4..].strip_prefix(".md").unwrap_or(&text[at + 4..]);
        // A file's name in quotes names no section.
        let is_quoted = behind.starts_with('"');
        let behind = behind.trim_start_matches([',', ' ']);
        if let Some(title) = behind.strip_prefix('"').filter(|_| !is_quoted) {
            return title.split_once('"').map(|(title, _)| title.to_owned());
        }
        let before =
            text[..at].strip_suffix(" in ").and_then(|before| number(before.rsplit(['(', ' ']).next()?));
        number(behind).or(before)
    })
}

/// Six references in SPEC.md named sections that had got other numbers since, and nothing noticed. So a
/// reference is a link, which shows the number that the section has; with `ANNALS_BLESS=1` links are made of
/// bare numbers.
#[test]
fn references_to_the_specification_resolve() {
    let path = root().join("SPEC.md");
    let mut spec = fs::read_to_string(&path).unwrap();
    let sections = sections(&spec);
    let numbered = |number: &str| sections.iter().find(|section| section.number.as_deref() == Some(number));
    let anchors: BTreeSet<&str> = sections.iter().map(|section| section.anchor.as_str()).collect();
    assert_eq!(anchors.len(), sections.len(), "two sections have one title");
    let bare = |text: &str| -> Vec<(usize, std::ops::Range<usize>)> {
        let lines = prose(text).filter(|(_, line)| !line.starts_with('#'));
        lines
            .flat_map(|(at, line)| bare_numbers(line, false).into_iter().map(move |range| (at, range)))
            .collect()
    };
    if std::env::var_os("ANNALS_BLESS").is_some() {
        let mut lines: Vec<String> = spec.lines().map(str::to_owned).collect();
        for (at, range) in bare(&spec).into_iter().rev() {
            let number = lines[at - 1][range.clone()].to_owned();
            if let Some(section) = numbered(&number) {
                lines[at - 1].replace_range(range, &format!("[{number}](#{})", section.anchor));
            }
        }
        spec = lines.join("\n") + "\n";
        fs::write(&path, &spec).unwrap();
    }
    let lines: Vec<&str> = spec.lines().collect();
    let bare: Vec<String> =
        bare(&spec).into_iter().map(|(at, range)| format!("line {at}: {}", &lines[at - 1][range])).collect();
    assert!(
        bare.is_empty(),
        "numbers of sections without a link (ANNALS_BLESS=1 makes links of them): {bare:#?}"
    );
    let (mut count, mut wrong) = (0, Vec::new());
    for (at, line) in prose(&spec) {
        for (shown, anchor) in links(line) {
            count += 1;
            let section = sections.iter().find(|section| section.anchor == anchor);
            let is_right = section.is_some_and(|section| {
                let shows_a_number = shown.starts_with(|c: char| c.is_ascii_digit());
                !shows_a_number || section.number.as_deref() == Some(shown)
            });
            if !is_right {
                wrong.push(format!("SPEC.md, line {at}: [{shown}](#{anchor})"));
            }
        }
    }
    assert!(count > 50, "only {count} links were found");
    let mut left = ["src", "tests/it", "cli/src", "cli/tests", "examples", "benches", "README.md"]
        .map(|name| root().join(name))
        .to_vec();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        // This file has examples of what is wrong.
        if path.file_name().is_some_and(|name| name == "tidy.rs") {
            continue;
        }
        for named in named_sections(&fs::read_to_string(&path).unwrap_or_default()) {
            count += 1;
            if !sections.iter().any(|section| section.title == named) && numbered(&named).is_none() {
                wrong.push(format!("{}: SPEC.md has no {named}", path.display()));
            }
        }
    }
    println!("{count} references to {} sections of SPEC.md", sections.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_reader_of_references_can_read() {
    let bare = |line: &str| -> Vec<String> {
        bare_numbers(line, false).into_iter().map(|range| line[range].to_owned()).collect()
    };
    assert_eq!(bare("as in 1.3 to 1.16. And (1.21, 5), see 1.5)"), ["1.3", "1.16", "1.21", "1.5"]);
    assert_eq!(bare("1.6 ms, 11.3, 0.68, 1.28-1.80 M/s, 2.5 and 0.4, [1.4](#14-what), 1.2.3, v1.3"), [""; 0]);
    assert_eq!(bare_numbers("p99 1.9 and (1.11)", true).len(), 1);
    assert_eq!(
        links("see [1.4](#14-what) and [it](#it).").collect::<Vec<_>>(),
        [("1.4", "14-what"), ("it", "it")]
    );
    assert_eq!(
        local_links("[1](#one), [2](docs/two.md#two), [3](https://three) and `f](x y)`").collect::<Vec<_>>(),
        ["#one", "docs/two.md#two"]
    );
    let text = "SPEC.md \"Zeros ahead\", (SPEC.md 3.2), SPEC 1.4) and 1.11 in SPEC.md; SPEC.md has";
    assert_eq!(named_sections(text).collect::<Vec<_>>(), ["Zeros ahead", "3.2", "1.4", "1.11"]);
    let found = sections("# Part 1: A\n## 1.4 What, else\n```text\n# code\n```\n### Zeros ahead\n");
    let found: Vec<&str> = found.iter().map(|section| section.anchor.as_str()).collect();
    assert_eq!(found, ["part-1-a", "14-what-else", "zeros-ahead"]);
}
