//! Measures a tree: its rooms, lines, functions, public names, comments and documents.
//!
//! Files named `tests` are in no figure but their own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::source::{self, Kind, Piece, Token};

use super::imports::{self, Imports};
use super::prose::{self, DIALECT, Line};
use super::syntax::{public_methods, root_names, tuple_statements};

/// Where crates keep their code, and the room that such code belongs to. The rooms of the library, the last
/// one, are the modules at the top of `src`.
const CRATES: [(&str, &str); 4] =
    [("src/bin/annals/", "command"), ("cli/src/", "command"), ("macros/src/", "macros"), ("src/", "")];

/// What is in `src` and not of the engine: what stands on the facade, the simulated disk, the test kit.
const BESIDE_ENGINE: [&str; 10] = [
    "maintenance",
    "consume",
    "state",
    "test",
    "store/jsonl",
    "store/state_cache",
    "store/compaction",
    "store/registry",
    "store/decision_queue",
    "disk/sim",
];

/// The same in the former layout, with 57 modules at the top.
const BESIDE_ENGINE_FORMERLY: [&str; 14] = [
    "ops",
    "compact",
    "consumer",
    "reactor",
    "timer",
    "jsonl",
    "cache",
    "projection",
    "aggregate",
    "decide",
    "executed",
    "transition",
    "running",
    "turns",
];

/// Documents with a budget. One that is not there has no bytes; others below `docs` are measured too.
const DOCUMENTS: [&str; 8] = [
    "README.md",
    "SPEC.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "docs/benchmarks.md",
    "docs/command.md",
    "docs/decisions.md",
];

const DOC_WIDTH_MAX: usize = 110;
const SENTENCE_WORDS_MAX: usize = 25;

pub(super) struct House {
    pub(super) files: Vec<CodeFile>,
    pub(super) figures: Vec<Figure>,
}

/// A source file of a crate.
pub(super) struct CodeFile {
    /// From the root of the repository.
    pub(super) path: String,
    pub(super) room: String,
    /// `[log, segment]`; empty for the root of the crate.
    pub(super) module: Vec<String>,
    pub(super) tokens: Vec<Token>,
    lines: Lines,
    functions: Vec<(usize, String)>,
}

/// A measured value, and the places that make the value what it is, the worst first.
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) value: usize,
    pub(super) places: Vec<String>,
}

#[derive(Clone, Copy, Default)]
struct Lines {
    code: usize,
    doc: usize,
    inline_comment: usize,
}

impl CodeFile {
    /// None if the path is in no crate that is measured.
    pub(super) fn new(path: &str, pieces: &[Piece<'_>]) -> Option<CodeFile> {
        let (directory, room) = CRATES.into_iter().find(|(directory, _)| path.starts_with(directory))?;
        let mut module: Vec<String> = path[directory.len()..].split('/').map(str::to_owned).collect();
        let file = module.pop()?;
        let stem = file.strip_suffix(".rs")?;
        if !["mod", "lib", "main"].contains(&stem) {
            module.push(stem.to_owned());
        }
        let room = if room.is_empty() { module.first().map_or("lib", String::as_str) } else { room };
        let words = pieces.iter().filter(|piece| matches!(piece.kind, Kind::Word | Kind::Sign));
        let tokens: Vec<Token> =
            words.map(|piece| Token { text: piece.text.to_owned(), line: piece.line }).collect();
        let functions = source::functions(&tokens);
        let room = room.to_owned();
        Some(CodeFile { path: path.to_owned(), room, module, tokens, lines: Lines::of(pieces), functions })
    }

    pub(super) fn is_library(&self) -> bool {
        self.path.starts_with("src/") && self.room != "command"
    }

    fn is_engine(&self) -> bool {
        let mut beside = BESIDE_ENGINE.iter().chain(&BESIDE_ENGINE_FORMERLY);
        let is_beside = beside.any(|beside| {
            let inside = self.path.strip_prefix("src/").and_then(|path| path.strip_prefix(beside));
            inside.is_some_and(|rest| rest.starts_with(['/', '.']))
        });
        self.is_library() && !is_beside
    }
}

impl Lines {
    fn of(pieces: &[Piece<'_>]) -> Lines {
        let mut code = BTreeSet::new();
        let mut lines = Lines::default();
        for piece in pieces {
            let count = piece.text.lines().count();
            match piece.kind {
                Kind::Comment if is_doc(piece.text) => lines.doc += count,
                Kind::Comment => lines.inline_comment += count,
                _ => code.extend(piece.line..piece.line + count),
            }
        }
        lines.code = code.len();
        lines
    }

    fn add(&mut self, other: Lines) {
        self.code += other.code;
        self.doc += other.doc;
        self.inline_comment += other.inline_comment;
    }
}

fn is_doc(comment: &str) -> bool {
    comment.starts_with("///") || comment.starts_with("//!")
}

fn is_test(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs")
}

/// All files with an ending below the places, with their paths from the root, sorted.
fn texts(root: &Path, places: &[&str], ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut left: Vec<_> = places.iter().map(|place| root.join(place)).collect();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            let inside = fs::read_dir(&path).unwrap().map(|inside| inside.unwrap().path());
            left.extend(inside.filter(|path| !path.ends_with("target")));
        } else if path.extension().is_some_and(|extension| extension == ending) && path.exists() {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), text));
        }
    }
    found.sort();
    found
}

impl House {
    pub(super) fn measure(root: &Path) -> House {
        let texts = texts(root, &["src", "cli/src", "macros/src"], "rs");
        let pieces: Vec<(&str, Vec<Piece<'_>>)> =
            texts.iter().map(|(path, text)| (path.as_str(), source::pieces(text))).collect();
        let code: Vec<_> = pieces.iter().filter(|(path, _)| !is_test(path)).collect();
        let files = code.iter().filter_map(|(path, pieces)| CodeFile::new(path, pieces)).collect();
        let mut house = House { files, figures: Vec::new() };
        let top = fs::read_dir(root.join("src")).unwrap();
        let top = top.map(|inside| inside.unwrap().file_name().into_string().unwrap());
        house.list("entries at the top of src", top.collect());
        house.measure_rooms();
        house.measure_lines();
        house.measure_files(&texts);
        house.measure_functions();
        house.measure_surface();
        house.measure_comments(&code);
        house.measure_documents(root);
        house
    }

    /// The rooms with their files, lines, functions and the rooms that each uses.
    pub(super) fn rooms(&self) -> String {
        let edges = Imports::new(&self.files).between_rooms();
        let rooms: BTreeSet<&String> = self.files.iter().map(|file| &file.room).collect();
        let mut table = format!(
            "{:14} {:>6} {:>7} {:>7} {:>7} {:>7} {:>7} {:>10}\n",
            "room", "files", "code", "doc", "inline", "fns", "uses", "is used by"
        );
        for room in rooms {
            let files: Vec<&CodeFile> = self.files.iter().filter(|file| file.room == *room).collect();
            let mut lines = Lines::default();
            files.iter().for_each(|file| lines.add(file.lines));
            let functions: usize = files.iter().map(|file| file.functions.len()).sum();
            let uses = edges.iter().filter(|(from, _)| from == room).count();
            let used_by = edges.iter().filter(|(_, to)| to == room).count();
            table += &format!(
                "{room:14} {:>6} {:>7} {:>7} {:>7} {functions:>7} {uses:>7} {used_by:>10}\n",
                files.len(),
                lines.code,
                lines.doc,
                lines.inline_comment,
            );
        }
        table
    }

    /// Adds a figure that is the number of its places.
    fn list(&mut self, name: impl Into<String>, places: Vec<String>) {
        self.value(name, places.len(), places);
    }

    fn value(&mut self, name: impl Into<String>, value: usize, places: Vec<String>) {
        self.figures.push(Figure { name: name.into(), value, places });
    }

    /// Adds a figure that is the sum over its places.
    fn sum(&mut self, name: &str, mut measured: Vec<(usize, String)>) {
        let sum = measured.iter().map(|(value, _)| value).sum();
        self.value(name, sum, worst_first(&mut measured));
    }

    /// Adds the median, the 90th percentile and the largest of the values.
    fn spread(&mut self, name: &str, mut measured: Vec<(usize, String)>) {
        let places = worst_first(&mut measured);
        for (which, percent_above) in [("median", 50), ("p90", 10), ("max", 0)] {
            let value = measured.get(measured.len() * percent_above / 100).map_or(0, |(value, _)| *value);
            self.value(format!("{name}, {which}"), value, places.clone());
        }
    }

    fn measure_rooms(&mut self) {
        let library = self.files.iter().filter(|file| file.is_library() && file.room != "lib");
        let rooms: Vec<String> =
            BTreeSet::from_iter(library.map(|file| file.room.clone())).into_iter().collect();
        let imports = Imports::new(&self.files);
        let between_rooms = imports.between_rooms();
        let between_files = imports.between_files(false);
        let with_parents = imports.between_files(true);
        let past_the_top = imports.past_the_top();
        let numbers: BTreeMap<&String, usize> = rooms.iter().zip(0..).collect();
        let mut room_edges = imports::Edges::new();
        for (from, to) in &between_rooms {
            room_edges.entry(numbers[from]).or_default().insert(numbers[to]);
        }
        let drawn = |cycles: Vec<Vec<usize>>, name: &dyn Fn(usize) -> String| -> Vec<String> {
            let cycles = cycles.into_iter();
            cycles.map(|cycle| cycle.into_iter().map(name).collect::<Vec<_>>().join(" <-> ")).collect()
        };
        let room_cycles = drawn(imports::cycles(&room_edges), &|room| rooms[room].clone());
        let path = |file: usize| self.files[file].path.clone();
        let file_cycles = drawn(imports::cycles(&between_files), &path);
        let parent_cycles = drawn(imports::cycles(&with_parents), &path);
        let edges = between_rooms.into_iter().map(|(from, to)| format!("{from} -> {to}")).collect();
        let file_edges = with_parents.values().map(BTreeSet::len).sum();
        self.list("rooms", rooms);
        self.list("edges between rooms", edges);
        self.list("cycles among rooms", room_cycles);
        self.value("edges between files", file_edges, Vec::new());
        self.list("cycles among files", file_cycles);
        self.list("cycles among files, with parents", parent_cycles);
        self.list("paths past the top of another room", past_the_top);
    }

    fn measure_lines(&mut self) {
        let measured = |is_counted: &dyn Fn(&CodeFile) -> bool, lines: &dyn Fn(Lines) -> usize| {
            let counted = self.files.iter().filter(|file| is_counted(file));
            counted.map(|file| (lines(file.lines), file.path.clone())).collect::<Vec<_>>()
        };
        let engine = measured(&CodeFile::is_engine, &|lines| lines.code);
        let library = measured(&CodeFile::is_library, &|lines| lines.code);
        let all = measured(&|_| true, &|lines| lines.code);
        let doc = measured(&|_| true, &|lines| lines.doc);
        let inline_comment = measured(&|_| true, &|lines| lines.inline_comment);
        self.sum("code lines of the engine", engine);
        self.sum("code lines of the library", library);
        self.sum("code lines with command and macros", all);
        self.sum("doc lines", doc);
        self.sum("inline comment lines", inline_comment);
    }

    fn measure_files(&mut self, texts: &[(String, String)]) {
        let mut tests = Vec::new();
        let mut tuples = Vec::new();
        let mut lengths = Vec::new();
        let mut wide = Vec::new();
        for (path, text) in texts {
            if is_test(path) {
                tests.push((Lines::of(&source::pieces(text)).code, path.clone()));
                let lines = tuple_statements(&source::tokens(text)).into_iter();
                tuples.extend(lines.map(|line| format!("{path}:{line}")));
                continue;
            }
            lengths.push((text.lines().count(), path.clone()));
            for (number, line) in (1..).zip(text.lines()) {
                if is_doc(line.trim_start()) && line.chars().count() > DOC_WIDTH_MAX {
                    wide.push(format!("{path}:{number}"));
                }
            }
        }
        let in_src = lengths.iter().filter(|(_, path)| path.starts_with("src/"));
        let in_src = in_src.map(|(_, path)| path.clone()).collect();
        self.sum("code lines of tests in src", tests);
        self.list("tuple statements of tests in src", tuples);
        self.list("files in src", in_src);
        self.spread("lines a file", lengths);
        self.list("doc lines over 110 characters", wide);
    }

    fn measure_functions(&mut self) {
        let lengths = |is_counted: &dyn Fn(&CodeFile) -> bool| {
            let mut lengths = Vec::new();
            for file in self.files.iter().filter(|file| is_counted(file)) {
                let functions = file.functions.iter();
                lengths.extend(functions.map(|(lines, name)| (*lines, format!("{}, {name}", file.path))));
            }
            lengths
        };
        let library = lengths(&CodeFile::is_library);
        let all = lengths(&|_| true);
        let tuples = self.files.iter().flat_map(|file| {
            let lines = tuple_statements(&file.tokens).into_iter();
            lines.map(|line| format!("{}:{line}", file.path))
        });
        let tuples = tuples.collect();
        self.value("functions of the library", library.len(), Vec::new());
        self.spread("lines a function of the library", library);
        self.spread("lines a function", all);
        self.list("tuple statements", tuples);
    }

    fn measure_surface(&mut self) {
        let root = self.files.iter().find(|file| file.is_library() && file.module.is_empty());
        let names = root.map_or(Vec::new(), |root| root_names(&root.tokens));
        self.list("names at the root of the crate", names);
        for of in ["Store", "Builder", "Append"] {
            let library = self.files.iter().filter(|file| file.is_library());
            let methods = library.flat_map(|file| {
                let names = public_methods(&file.tokens, of).into_iter();
                names.map(|name| format!("{}, {name}", file.path))
            });
            let methods = methods.collect();
            self.list(format!("public methods of {of}"), methods);
        }
    }

    fn measure_comments(&mut self, code: &[&(&str, Vec<Piece<'_>>)]) {
        let mut sentences = Vec::new();
        let mut comments = Vec::new();
        let mut messages = Vec::new();
        for (path, pieces) in code {
            let lines = prose::comments(pieces);
            for sentence in prose::sentences(&lines) {
                sentences.push((sentence.words, format!("{path}:{}", sentence.line)));
            }
            comments.extend(placed(path, &lines));
            for text in pieces.iter().filter(|piece| piece.kind == Kind::Text) {
                messages.extend(placed(path, &(text.line..).zip(text.text.lines()).collect::<Vec<_>>()));
            }
        }
        let long = sentences.iter().filter(|(words, _)| *words > SENTENCE_WORDS_MAX);
        let long = long.map(|(words, place)| format!("{words} {place}")).collect();
        self.spread("words a sentence of comments", sentences);
        self.list("sentences of comments over 25 words", long);
        self.dialect("comments", comments);
        self.dialect("messages", messages);
    }

    fn measure_documents(&mut self, root: &Path) {
        let texts_of_tests =
            texts(root, &["tests", "cli/tests", "macros/tests", "examples", "benches"], "rs");
        let mut beside = Vec::new();
        for (path, text) in &texts_of_tests {
            beside.extend(placed(path, &prose::comments(&source::pieces(text))));
        }
        self.dialect("comments beside src", beside);
        let documents =
            texts(root, &["README.md", "SPEC.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs"], "md");
        let mut words = Vec::new();
        let mut long = Vec::new();
        for (path, text) in &documents {
            let lines: Vec<Line<'_>> = (1..).zip(text.lines()).collect();
            let sentences = prose::sentences(&lines).into_iter();
            let sentences: Vec<(usize, String)> =
                sentences.map(|sentence| (sentence.words, format!("{path}:{}", sentence.line))).collect();
            let over = sentences.iter().filter(|(words, _)| *words > SENTENCE_WORDS_MAX);
            long.extend(over.map(|(words, place)| format!("{words} {place}")));
            self.spread(&format!("words a sentence of {path}"), sentences);
            words.extend(placed(path, &lines));
        }
        self.list("sentences of documents over 25 words", long);
        self.dialect("documents", words);
        let in_all = self.figures.iter().filter(|figure| figure.name.starts_with("dialect in "));
        let in_all = in_all.map(|figure| (figure.value, figure.name.clone())).collect();
        self.sum("dialect in all", in_all);
        let mut bytes: BTreeMap<&str, usize> = DOCUMENTS.into_iter().map(|path| (path, 0)).collect();
        bytes.extend(documents.iter().map(|(path, text)| (path.as_str(), text.len())));
        for (path, bytes) in bytes {
            self.value(format!("bytes of {path}"), bytes, Vec::new());
        }
    }

    /// Adds the number of dialect words in some texts, and that of each word.
    fn dialect(&mut self, of: &str, words: Vec<(&str, String)>) {
        let places = words.iter().map(|(word, place)| format!("{word} {place}")).collect();
        self.list(format!("dialect in {of}"), places);
        for one in DIALECT {
            let places = words.iter().filter(|(word, _)| *word == one).map(|(_, place)| place.clone());
            self.list(format!("  {one}"), places.collect());
        }
    }
}

fn worst_first(measured: &mut [(usize, String)]) -> Vec<String> {
    measured.sort_by(|one, other| other.cmp(one));
    measured.iter().map(|(value, place)| format!("{value} {place}")).collect()
}

/// The dialect words of lines of a file, each with its place.
fn placed(path: &str, lines: &[Line<'_>]) -> Vec<(&'static str, String)> {
    prose::dialect(lines).into_iter().map(|(word, line)| (word, format!("{path}:{line}"))).collect()
}
