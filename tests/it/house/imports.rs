//! Which file uses which, and which top module uses which.
//!
//! An edge between **top modules** is any path in any file, re-exports included. It leads from the top module
//! of the file to the top module that the path names. The layer rule reads the same paths.
//!
//! An edge between **files** is a path to an item. It leads from the file that needs the item to the file
//! that defines the item. A name that a `use` statement only passes on leads to its definition, so:
//!
//! - `mod child;` is no edge, and neither is `pub(crate) use child::Item` in a parent that does not name
//!   `Item` anywhere else;
//! - `super::Item` in a child is an edge to the parent only if the parent defines `Item`. If the parent
//!   imports `Item` from another child, the edge leads there.
//!
//! So a parent and its child are a cycle only if each needs an item that the other one defines. A folder
//! often keeps what its files share in `mod.rs`, so cycles are counted twice. One count leaves out the edges
//! from a file to the modules that the file is in, as house.md does.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{self, Token};

use super::measure::CodeFile;

/// A path that was resolved: the file, by its number, and the names behind the module.
type Target = (usize, Vec<String>);

pub(super) struct Imports<'a> {
    files: &'a [CodeFile],
    /// The files of the library by their modules, `log::segment`.
    modules: BTreeMap<String, usize>,
    statements: Vec<Statements>,
}

/// The paths of one file.
struct Statements {
    /// Each path of a `use` statement, and whether the statement is a re-export.
    used: Vec<(String, bool)>,
    /// Paths that stand in the code itself.
    inline: BTreeSet<String>,
    /// All words outside `use` statements.
    words: BTreeSet<String>,
}

pub(super) type Edges = BTreeMap<usize, BTreeSet<usize>>;

impl<'a> Imports<'a> {
    /// Reads the files of the library; `files` may hold others, which have no edges.
    pub(super) fn new(files: &'a [CodeFile]) -> Imports<'a> {
        let library = files.iter().enumerate().filter(|(_, file)| file.is_library());
        let modules = library.map(|(at, file)| (file.module.join("::"), at)).collect();
        let statements = files.iter().map(|file| statements(&file.tokens)).collect();
        Imports { files, modules, statements }
    }

    /// The edges between top modules, by names.
    pub(super) fn between_rooms(&self) -> BTreeSet<(String, String)> {
        let mut edges = BTreeSet::new();
        for from in self.of_library() {
            let statements = &self.statements[from];
            let used = statements.used.iter().map(|(path, _)| path);
            for path in used.chain(&statements.inline) {
                let Some((mut file, rest)) = self.named(from, path) else { continue };
                // A name at the root of the crate belongs to the room that the root has it from.
                if self.files[file].module.is_empty()
                    && let Some(behind) = rest.first().and_then(|name| self.definition(file, name, 8))
                {
                    file = behind;
                }
                let here = &self.files[from].room;
                let there = &self.files[file].room;
                if here != there && !self.files[file].module.is_empty() {
                    edges.insert((here.clone(), there.clone()));
                }
            }
        }
        edges
    }

    /// The edges between files, with or without those from a file to a module that the file is in.
    pub(super) fn between_files(&self, with_parents: bool) -> Edges {
        let mut edges = Edges::new();
        for from in self.of_library() {
            let statements = &self.statements[from];
            let mut needed: BTreeSet<&String> = statements.inline.iter().collect();
            for (path, is_reexport) in &statements.used {
                let name = path.rsplit("::").next().unwrap_or(path);
                if !is_reexport || statements.words.contains(name) {
                    needed.insert(path);
                }
            }
            for path in needed {
                let Some((file, rest)) = self.named(from, path) else { continue };
                let Some(name) = rest.first() else { continue };
                let Some(defined) = self.definition(file, name, 8) else { continue };
                let is_parent = self.files[from].module.starts_with(&self.files[defined].module);
                if defined != from && (with_parents || !is_parent) {
                    edges.entry(from).or_default().insert(defined);
                }
            }
        }
        edges
    }

    /// Paths that reach past the top of another room: `crate::log::segment::Name`.
    pub(super) fn past_the_top(&self) -> Vec<String> {
        let mut found = Vec::new();
        for from in self.of_library() {
            let statements = &self.statements[from];
            let used = statements.used.iter().map(|(path, _)| path);
            for path in used.chain(&statements.inline) {
                let Some((file, _)) = self.named(from, path) else { continue };
                if self.files[file].room != self.files[from].room && self.files[file].module.len() > 1 {
                    found.push(format!("{}: {path}", self.files[from].path));
                }
            }
        }
        found
    }

    /// The files that may have edges: those of the library, but for `lib.rs`, which only re-exports.
    fn of_library(&self) -> impl Iterator<Item = usize> {
        self.modules.iter().filter(|(module, _)| !module.is_empty()).map(|(_, at)| *at)
    }

    /// The deepest file that a path names, and the names that are left of the path.
    fn named(&self, from: usize, path: &str) -> Option<Target> {
        let mut module = self.files[from].module.clone();
        let mut rest: Vec<&str> = path.split("::").collect();
        match rest[0] {
            "crate" => module.clear(),
            "self" => {}
            "super" => {
                while rest.first() == Some(&"super") {
                    module.pop()?;
                    rest.remove(0);
                }
                rest.insert(0, "self");
            }
            first => {
                let is_child = self.modules.contains_key(&joined(&module, first));
                let imported = || {
                    let ends = |path: &str| path.rsplit("::").next() == Some(first);
                    let used = self.statements[from].used.iter().map(|(used, _)| used);
                    used.filter(|used| ends(used) && *used != path).find_map(|used| self.named(from, used))
                };
                if !is_child {
                    let (file, left) = imported()?;
                    if !left.is_empty() {
                        return None;
                    }
                    module = self.files[file].module.clone();
                    rest[0] = "self";
                } else {
                    rest.insert(0, "self");
                }
            }
        }
        rest.remove(0);
        while let Some(next) = rest.first() {
            if !self.modules.contains_key(&joined(&module, next)) {
                break;
            }
            module.push((*next).to_owned());
            rest.remove(0);
        }
        let file = *self.modules.get(&module.join("::"))?;
        let rest = rest.into_iter().filter(|name| *name != "self" && !name.starts_with("__"));
        Some((file, rest.map(str::to_owned).collect()))
    }

    /// The file that defines a name which `file` has: its own, or that from which it imports the name.
    fn definition(&self, file: usize, name: &str, steps: usize) -> Option<usize> {
        let mut used = self.statements[file].used.iter().map(|(path, _)| path);
        let Some(path) = used.find(|path| path.rsplit("::").next() == Some(name)) else {
            return Some(file);
        };
        let (next, rest) = self.named(file, path)?;
        match rest.first() {
            Some(name) if next != file && steps > 0 => self.definition(next, name, steps - 1),
            Some(_) => Some(next),
            None => None,
        }
    }
}

fn joined(module: &[String], name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{}::{name}", module.join("::")) }
}

fn statements(tokens: &[Token]) -> Statements {
    let mut used = Vec::new();
    let mut code: Vec<Token> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].text == "use" {
            let length = tokens[at..].iter().take_while(|token| token.text != ";").count();
            let before = at.checked_sub(1).map(|before| tokens[before].text.as_str());
            // `)` ends `pub(crate)`.
            let is_reexport = matches!(before, Some("pub" | ")"));
            let found = source::paths(&tokens[at + 1..at + length]);
            used.extend(found.into_iter().map(|(path, _)| (path, is_reexport)));
            at += length;
        } else {
            code.push(tokens[at].clone());
            at += 1;
        }
    }
    let inline = source::paths(&code).into_iter().map(|(path, _)| path).collect();
    let words = code.into_iter().map(|token| token.text).collect();
    Statements { used, inline, words }
}

/// Groups of nodes that reach each other, larger than one.
pub(super) fn cycles(edges: &Edges) -> Vec<Vec<usize>> {
    let reached: BTreeMap<usize, BTreeSet<usize>> =
        edges.keys().map(|node| (*node, reachable(edges, *node))).collect();
    let mut groups: BTreeSet<Vec<usize>> = BTreeSet::new();
    for (node, there) in &reached {
        let back = |other: &&usize| reached.get(other).is_some_and(|from_other| from_other.contains(node));
        let group: Vec<usize> = there.iter().filter(back).copied().collect();
        if group.len() > 1 {
            groups.insert(group);
        }
    }
    groups.into_iter().collect()
}

fn reachable(edges: &Edges, start: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut left = vec![start];
    while let Some(node) = left.pop() {
        for next in edges.get(&node).into_iter().flatten() {
            if found.insert(*next) {
                left.push(*next);
            }
        }
    }
    found
}
