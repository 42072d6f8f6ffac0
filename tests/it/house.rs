//! Figures of the code and the documents, and ratchets: no figure may get worse than its budget.
//!
//! `cargo test --test it house -- --nocapture` prints the figures beside their budgets and goals.
//! `ANNALS_HOUSE=/other/tree` prints those of another tree, also of one with the former layout; the ratchets
//! check this repository only. `ANNALS_HOUSE_LIST=1` prints the places of all dialect words, and
//! `ANNALS_HOUSE_LIST=tuple` those of each figure that has `tuple` in its name.

mod imports;
mod measure;
mod prose;
mod syntax;

use std::path::Path;
use std::sync::LazyLock;

use crate::source;

use imports::Imports;
use measure::{CodeFile, House};
use prose::Line;

/// Each ratchet: figure, budget, goal. A budget above its goal is what the tree had when the budget was set:
/// the goal is not met yet. A change that lowers a figure lowers the budget in the same commit.
#[rustfmt::skip]
const BUDGETS: [(&str, usize, usize); 35] = [
    ("entries at the top of src", 16, 16),
    ("rooms", 14, 14),
    ("edges between rooms", 64, 66),
    ("cycles among rooms", 0, 0),
    ("cycles among files", 0, 0),
    ("cycles among files, with parents", 0, 0),
    ("paths past the top of another room", 303, 0),
    ("files in src", 189, 175),
    ("code lines of the engine", 23_550, 17_500),
    ("code lines of the library", 37_200, 30_000),
    ("lines a file, max", 500, 500),
    // Goals, though the values of the day are lower: a function that tells a story may be longer than one
    // that is short by packing.
    ("lines a function, median", 7, 7),
    ("lines a function, p90", 25, 25),
    ("lines a function, max", 70, 70),
    ("tuple statements", 0, 0),
    ("tuple statements of tests in src", 0, 0),
    ("names at the root of the crate", 142, 139),
    ("public methods of Store", 78, 40),
    ("public methods of Builder", 39, 38),
    ("public methods of Append", 21, 21),
    ("doc lines over 110 characters", 0, 0),
    ("words a sentence of comments, p90", 20, 25),
    ("words a sentence of README.md, p90", 25, 25),
    ("sentences of comments over 25 words", 0, 0),
    ("sentences of documents over 25 words", 2, 0),
    ("dialect in comments", 0, 0),
    ("dialect in messages", 1, 0),
    ("dialect in all", 1, 10),
    ("bytes of README.md", 9_000, 9_000),
    ("bytes of SPEC.md", 90_000, 90_000),
    ("bytes of CONTRIBUTING.md", 5_000, 5_000),
    ("bytes of docs/architecture.md", 12_000, 12_000),
    ("bytes of docs/benchmarks.md", 16_384, 16_384),
    ("bytes of docs/command.md", 11_000, 11_000),
    ("bytes of docs/decisions.md", 36_000, 36_000),
];

static OURS: LazyLock<House> =
    LazyLock::new(|| House::measure(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))));

#[test]
fn the_figures_are_printed() {
    let other = std::env::var_os("ANNALS_HOUSE").map(|root| House::measure(Path::new(&root)));
    let house = other.as_ref().unwrap_or_else(|| &OURS);
    println!("{}", house.rooms());
    println!("{:44} {:>9} {:>9} {:>9}", "figure", "value", "budget", "goal");
    for figure in &house.figures {
        let Some((_, max, goal)) = BUDGETS.iter().find(|(name, _, _)| *name == figure.name) else {
            println!("{:44} {:>9}", figure.name, figure.value);
            continue;
        };
        let note = match figure.value {
            value if value > *max => "over budget",
            value if value < *max && max > goal => "the budget can be lowered",
            _ => "",
        };
        let line = format!("{:44} {:>9} {max:>9} {goal:>9}  {note}", figure.name, figure.value);
        println!("{}", line.trim_end());
    }
    let wanted = std::env::var("ANNALS_HOUSE_LIST").unwrap_or_default();
    let wanted = if wanted == "1" { "dialect" } else { &wanted };
    for figure in house.figures.iter().filter(|figure| !wanted.is_empty() && figure.name.contains(wanted)) {
        println!("\n{}:\n    {}", figure.name, figure.places.join("\n    "));
    }
    assert!(house.files.len() > 30, "the sources were not found");
}

#[test]
fn no_figure_gets_worse() {
    const SHOWN_MAX: usize = 20;
    let mut wrong = Vec::new();
    for (name, max, _) in BUDGETS {
        let figure = OURS.figures.iter().find(|figure| figure.name == name);
        let figure = figure.unwrap_or_else(|| panic!("the budget {name} has no figure"));
        if figure.value > max {
            let places: Vec<&str> = figure.places.iter().take(SHOWN_MAX).map(String::as_str).collect();
            let places = places.join("\n    ");
            wrong.push(format!("{name}: {}, and the budget is {max}\n    {places}", figure.value));
        }
    }
    let wrong = wrong.join("\n");
    assert!(wrong.is_empty(), "figures got worse (ANNALS_HOUSE_LIST=name prints all places)\n{wrong}");
}

#[test]
fn a_tuple_statement_is_told_from_destructuring() {
    let count = |text: &str| syntax::tuple_statements(&source::tokens(text)).len();
    assert_eq!(count("let (a, b) = (x, y);"), 1);
    assert_eq!(count("let (mut a, b): (A, B) = (f(x, z), (y, u));"), 1);
    assert_eq!(count("let (a, b) = f(x, y); let (a, b) = (f(x)); let a = (x, y);"), 0);
    assert_eq!(count("let (a, b) = (x, y).into(); let (a, b) = (f(x, y));"), 0);
}

#[test]
fn an_edge_leads_to_the_file_that_defines_the_item() {
    let files = [
        ("src/lib.rs", "pub use crate::log::Log;"),
        ("src/log/mod.rs", "mod a; mod b; mod c; pub(crate) use a::A; use b::B; pub struct Log(B, c::C);"),
        ("src/log/a.rs", "use super::B; use crate::Log; pub(crate) struct A;"),
        ("src/log/b.rs", "pub(crate) struct B; fn f() { super::c::g(); crate::view::View::new(); }"),
        ("src/log/c.rs", "use super::b; fn g(_: b::B) {} pub(crate) struct C;"),
        ("src/view.rs", "use crate::{disk::{self, Disk}, log::a::A}; use std::fs; pub(crate) struct View;"),
        ("src/disk.rs", "pub struct Disk; // use crate::view::View;"),
    ];
    let files: Vec<CodeFile> =
        files.iter().filter_map(|(path, text)| CodeFile::new(path, &source::pieces(text))).collect();
    let imports = Imports::new(&files);
    let rooms: Vec<(String, String)> = imports.between_rooms().into_iter().collect();
    let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    assert_eq!(rooms, [pair("log", "view"), pair("view", "disk"), pair("view", "log")]);
    assert_eq!(imports.past_the_top(), ["src/view.rs: crate::log::a::A"]);
    // The parent passes `A` on and does not need it, so it is in no cycle.
    assert_eq!(imports::cycles(&imports.between_files(false)), [vec![2, 3, 4, 5]]);
    assert_eq!(imports.between_files(true)[&2], [1, 3].into());
    assert_eq!(imports.between_files(true)[&1], [3, 4].into());
}

#[test]
fn the_surface_is_counted() {
    let tokens = source::tokens(
        "impl<'a, T: Into<U>> Store<'a> where T: X { pub fn a() { fn no() {} } pub(crate) fn b() {} fn c() {} \
         #[must_use] pub const fn d() {} } impl Store { pub fn e() {} } impl Clone for Store { fn f() {} }",
    );
    assert_eq!(syntax::public_methods(&tokens, "Store"), ["a", "d", "e"]);
    let tokens = source::tokens(
        "mod no; pub mod disk; pub use macros::A; pub use crate::{b::B, c::{C, d as D}}; use e::E; \
         #[doc(hidden)] pub use crate::f::g as __h;",
    );
    assert_eq!(syntax::root_names(&tokens), ["disk", "A", "B", "C", "d"]);
}

#[test]
fn sentences_and_dialect_are_counted() {
    let text = "/// Whoever reads, e.g. this,\n/// goes on.  So\n/// many words.\n\
                fn f() { g(\"// nobody\"); } // Meanwhile\n";
    let pieces = source::pieces(text);
    let lines = prose::comments(&pieces);
    assert_eq!(prose::dialect(&lines), [("whoever", 1), ("so many", 3), ("meanwhile", 4)]);
    let words: Vec<usize> = prose::sentences(&lines).iter().map(|sentence| sentence.words).collect();
    assert_eq!(words, [6, 3, 1]);
    let text = "# One\nTwo three\n- four\n\n| five |\n```\nsix\n```\nSeven `a.b` 8.9 (ten). Eleven.";
    let lines: Vec<Line<'_>> = (1..).zip(text.lines()).collect();
    let words: Vec<usize> = prose::sentences(&lines).iter().map(|sentence| sentence.words).collect();
    assert_eq!(words, [2, 1, 4, 1]);
}
