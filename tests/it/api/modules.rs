//! The modules of the crate as `lib.rs` and the `mod` declarations name them, and what a name in each means.
//!
//! Names are followed through `use` declarations, so that no answer depends on where a file is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use syn::{Attribute, Item, UseTree, Visibility};

use super::print::printed;

pub(super) struct Module {
    pub(super) items: Vec<Item>,
    /// All `use` declarations, one for each name.
    pub(super) uses: Vec<Use>,
    /// Features without which the module is not compiled.
    pub(super) features: Vec<String>,
}

pub(super) struct Use {
    /// The name that the declaration gives; `*` for all names of a module.
    pub(super) name: String,
    pub(super) path: Vec<String>,
    pub(super) is_public: bool,
    pub(super) attributes: Vec<Attribute>,
}

/// Modules by their paths, `log::segment`; the root is the empty path.
pub(super) struct Modules(pub(super) BTreeMap<String, Module>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Meaning {
    Module(String),
    /// The module that defines the item, and the item's name.
    Item(String, String),
}

/// Names are followed through at most this many declarations.
const STEPS_MAX: usize = 16;

impl Modules {
    /// Reads the crate whose root is `src/lib.rs`. Tests are left out.
    pub(super) fn read(src: &Path) -> Modules {
        let mut modules = Modules(BTreeMap::new());
        modules.add(String::new(), items_of(&src.join("lib.rs")), src.to_owned(), Vec::new());
        modules
    }

    /// Adds a module, and those in it: their files are in `directory`.
    fn add(&mut self, path: String, items: Vec<Item>, directory: PathBuf, features: Vec<String>) {
        let items = expanded(items);
        let mut uses = Vec::new();
        for item in &items {
            match item {
                Item::Use(item) if !is_of_tests(&item.attrs) => {
                    let is_public = is_public(&item.vis);
                    spread(&item.tree, &mut Vec::new(), &mut |name, path| {
                        uses.push(Use { name, path, is_public, attributes: item.attrs.clone() });
                    });
                }
                Item::Mod(item) if !is_of_tests(&item.attrs) => {
                    let name = item.ident.to_string();
                    let inside = directory.join(&name);
                    let file = directory.join(format!("{name}.rs"));
                    let items = match &item.content {
                        Some((_, items)) => items.clone(),
                        None if file.exists() => items_of(&file),
                        None => items_of(&inside.join("mod.rs")),
                    };
                    let mut features = features.clone();
                    features.extend(features_of(&item.attrs));
                    self.add(joined(&path, &name), items, inside, features);
                }
                _ => {}
            }
        }
        self.0.insert(path, Module { items, uses, features });
    }

    /// What a path means in a module: nothing if the path leads out of the crate.
    pub(super) fn meaning(&self, module: &str, path: &[String]) -> Option<Meaning> {
        self.meaning_within(module, path, STEPS_MAX)
    }

    fn meaning_within(&self, module: &str, path: &[String], steps: usize) -> Option<Meaning> {
        let steps = steps.checked_sub(1)?;
        let mut module = module.to_owned();
        for (at, name) in path.iter().enumerate() {
            let is_last = at + 1 == path.len();
            module = match name.as_str() {
                "crate" => String::new(),
                "self" => module,
                "super" => module.rsplit_once("::").map_or(String::new(), |(parent, _)| parent.to_owned()),
                name => match self.named(&module, name, is_last, steps)? {
                    Meaning::Module(inside) => inside,
                    item if is_last => return Some(item),
                    Meaning::Item(..) => return None,
                },
            };
        }
        Some(Meaning::Module(module))
    }

    /// What one name means in a module. A module and a function may share a name: `wants_item` decides.
    fn named(&self, module: &str, name: &str, wants_item: bool, steps: usize) -> Option<Meaning> {
        let here = self.0.get(module)?;
        let child = joined(module, name);
        let child = self.0.contains_key(&child).then_some(Meaning::Module(child));
        if !wants_item && child.is_some() {
            return child;
        }
        let defines = here.items.iter().any(|item| name_of(item).is_some_and(|own| own == name));
        // An exported macro is at the root of the crate, wherever the macro is written.
        if defines || (module.is_empty() && self.exported_macro(name).is_some()) {
            return Some(Meaning::Item(module.to_owned(), name.to_owned()));
        }
        let used = here.uses.iter().filter(|used| used.name == name);
        let found = used.filter_map(|used| self.meaning_within(module, &used.path, steps)).next();
        let all = here.uses.iter().filter(|used| used.name == "*");
        let mut all = all.filter_map(|used| self.meaning_within(module, &used.path, steps));
        found.or(child).or_else(|| {
            all.find_map(|meaning| match meaning {
                Meaning::Module(inside) if inside != module => self.named(&inside, name, wants_item, steps),
                _ => None,
            })
        })
    }

    pub(super) fn exported_macro(&self, name: &str) -> Option<&syn::ItemMacro> {
        let items = self.0.values().flat_map(|module| &module.items);
        items
            .filter_map(|item| match item {
                Item::Macro(item) => Some(item),
                _ => None,
            })
            .find(|item| {
                let is_exported =
                    item.attrs.iter().any(|attribute| attribute.path().is_ident("macro_export"));
                is_exported && item.ident.as_ref().is_some_and(|ident| ident == name)
            })
    }
}

fn items_of(file: &Path) -> Vec<Item> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display())).items
}

pub(super) fn joined(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") }
}

pub(super) fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

pub(super) fn name_of(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

/// The features that the attributes `cfg` of an item name; `not(..)` is kept as it is.
pub(super) fn features_of(attributes: &[Attribute]) -> Vec<String> {
    let mut found = Vec::new();
    for condition in conditions(attributes) {
        if condition.contains("not(") {
            found.push(condition);
            continue;
        }
        let texts = condition.split('"').skip(1).step_by(2);
        found.extend(texts.map(str::to_owned));
    }
    found
}

/// Whether an item is compiled for unit tests only.
pub(super) fn is_of_tests(attributes: &[Attribute]) -> bool {
    conditions(attributes).any(|condition| condition == "test")
}

pub(super) fn is_hidden(attributes: &[Attribute]) -> bool {
    let docs = attributes.iter().filter(|attribute| attribute.path().is_ident("doc"));
    docs.filter_map(|attribute| attribute.meta.require_list().ok())
        .any(|list| list.tokens.to_string() == "hidden")
}

fn conditions(attributes: &[Attribute]) -> impl Iterator<Item = String> {
    let conditions = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    conditions.filter_map(|attribute| attribute.meta.require_list().ok()).map(|list| printed(&list.tokens))
}

fn spread(tree: &UseTree, before: &mut Vec<String>, found: &mut impl FnMut(String, Vec<String>)) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            spread(&path.tree, before, found);
            before.pop();
        }
        UseTree::Name(name) if name.ident == "self" => {
            found(before.last().cloned().unwrap_or_default(), before.clone());
        }
        UseTree::Name(name) => {
            let mut path = before.clone();
            path.push(name.ident.to_string());
            found(name.ident.to_string(), path);
        }
        UseTree::Rename(rename) => {
            let mut path = before.clone();
            path.push(rename.ident.to_string());
            found(rename.rename.to_string(), path);
        }
        UseTree::Glob(_) => found("*".to_owned(), before.clone()),
        UseTree::Group(group) => group.items.iter().for_each(|tree| spread(tree, before, found)),
    }
}

/// The items, and those that a macro of the same file writes. Only macros of one arm that takes names or
/// types and repeats nothing are expanded. Others write nothing public, or the snapshot lacks their items.
fn expanded(items: Vec<Item>) -> Vec<Item> {
    let mut rules = BTreeMap::new();
    for item in &items {
        if let Item::Macro(item) = item
            && let Some(name) = &item.ident
            && let Some(rule) = Rule::read(&item.mac.tokens.to_string())
        {
            rules.insert(name.to_string(), rule);
        }
    }
    let mut found = Vec::new();
    for item in items {
        if let Item::Macro(call) = &item
            && let Some(rule) = call.mac.path.get_ident().and_then(|name| rules.get(&name.to_string()))
        {
            let written = rule.write(&call.mac.tokens.to_string());
            found
                .extend(syn::parse_file(&written).unwrap_or_else(|error| panic!("{written}: {error}")).items);
            continue;
        }
        found.push(item);
    }
    found
}

/// A macro of one arm.
struct Rule {
    parameters: Vec<String>,
    body: String,
}

impl Rule {
    fn read(rules: &str) -> Option<Rule> {
        let (parameters, body) = rules.split_once("=>")?;
        let is_simple = !body.contains("=> {") && !parameters.contains("$ (") && !parameters.contains("$(");
        let parameters = parameters.trim().strip_prefix('(')?.strip_suffix(')')?;
        let body = body.trim().trim_end_matches(';').trim().strip_prefix('{')?.strip_suffix('}')?;
        let parameters = parameters.split(',').map(|one| one.split(':').next().unwrap_or(one));
        let parameters = parameters.map(|name| name.trim_start_matches([' ', '$']).trim().to_owned());
        is_simple.then_some(Rule { parameters: parameters.collect(), body: body.to_owned() })
    }

    fn write(&self, arguments: &str) -> String {
        let mut written = self.body.replace("$ ", "$");
        for (parameter, argument) in self.parameters.iter().zip(arguments.split(',')) {
            written = written.replace(&format!("${parameter}"), argument.trim());
        }
        written
    }
}
