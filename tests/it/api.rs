//! The public API, one line for each item with its signature, against `tests/golden/api.txt`.
//!
//! The snapshot covers all features; a line of an item that needs one ends with `#[feature]`. Items hidden
//! from the documentation are no part of it. With `ANNALS_BLESS=1` the test writes the snapshot anew: a
//! change of the API is then a change that the diff of the snapshot shows.
//!
//! The test reads `src/lib.rs` and follows `mod` and `use`. Types in signatures stand as the source has them.

mod modules;
mod print;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use syn::{Attribute, Fields, ImplItem, Item, ItemImpl, ItemTrait, TraitItem, Type, Visibility};

use modules::{Meaning, Modules, features_of, is_hidden, is_of_tests, is_public, joined, name_of};
use print::{function, generics, printed};

#[test]
fn the_public_api_is_as_the_snapshot_says() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let golden = root.join("tests/golden/api.txt");
    let lines = Api::read(&root.join("src")).lines;
    if std::env::var_os("ANNALS_BLESS").is_some() {
        let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
        fs::write(&golden, text).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap();
    let expected: BTreeSet<&str> = expected.lines().collect();
    let found: BTreeSet<&str> = lines.iter().map(String::as_str).collect();
    let gone = expected.difference(&found).map(|line| format!("- {line}\n"));
    let new = found.difference(&expected).map(|line| format!("+ {line}\n"));
    let changes: String = gone.chain(new).collect();
    assert!(changes.is_empty(), "the public API is another one (ANNALS_BLESS=1 accepts it):\n{changes}");
    assert!(found.len() > 1000, "only {} items were found", found.len());
}

/// The public items of a crate.
struct Api {
    modules: Modules,
    /// Public paths of the items, and the features that each needs.
    public: BTreeMap<Meaning, (String, Vec<String>)>,
    lines: BTreeSet<String>,
}

impl Api {
    fn read(src: &Path) -> Api {
        let modules = Modules::read(src);
        let mut api = Api { modules, public: BTreeMap::new(), lines: BTreeSet::new() };
        api.find_public("", "", &[]);
        let modules = std::mem::replace(&mut api.modules, Modules(BTreeMap::new()));
        let public = api.public.clone();
        for (meaning, (path, features)) in &public {
            let Meaning::Item(module, name) = meaning else { continue };
            if let Some(item) = modules.exported_macro(name).filter(|_| module.is_empty()) {
                let rules = item.mac.tokens.to_string().replace(' ', "");
                api.line(path, &format!("macro {}", rules.split("=>").next().unwrap_or("")), features);
            }
            for item in &modules.0[module].items {
                if name_of(item).is_some_and(|own| own == *name) {
                    let mut features = features.clone();
                    features.extend(modules.0[module].features.clone());
                    api.item(path, item, &features);
                }
            }
        }
        for (module, content) in &modules.0 {
            for item in &content.items {
                if let Item::Impl(item) = item
                    && !is_of_tests(&item.attrs)
                {
                    api.implementation(&modules, module, item);
                }
            }
        }
        api
    }

    /// Follows what a module makes public, under the name that a user writes.
    fn find_public(&mut self, module: &str, prefix: &str, features: &[String]) {
        let mut found = Vec::new();
        let mut others = Vec::new();
        let here = &self.modules.0[module];
        for used in here.uses.iter().filter(|used| used.is_public && !is_hidden(&used.attributes)) {
            let features = with(features, &used.attributes);
            match self.modules.meaning(module, &used.path) {
                Some(meaning) => found.push((used.name.clone(), meaning, features)),
                None => others.push((used.name.clone(), used.path.join("::"), features)),
            }
        }
        for item in &here.items {
            let Some((name, attributes)) = public_name(item) else { continue };
            if is_hidden(attributes) || is_of_tests(attributes) {
                continue;
            }
            let meaning = match item {
                Item::Mod(_) => Meaning::Module(joined(module, &name)),
                _ => Meaning::Item(module.to_owned(), name.clone()),
            };
            found.push((name, meaning, with(features, attributes)));
        }
        for (name, path, features) in others {
            self.line(&joined(prefix, &name), &format!("use {path}"), &features);
        }
        for (name, meaning, features) in found {
            match &meaning {
                Meaning::Module(inside) if name == "*" => self.find_public(inside, prefix, &features),
                Meaning::Module(inside) => {
                    let path = joined(prefix, &name);
                    self.line(&path, "mod", &features);
                    self.find_public(inside, &path, &features);
                }
                Meaning::Item(..) => {
                    let path = joined(prefix, &name);
                    if let Some((first, _)) = self.public.get(&meaning) {
                        let first = first.clone();
                        self.line(&path, &format!("use {first}"), &features);
                    } else {
                        self.public.insert(meaning, (path, features));
                    }
                }
            }
        }
    }

    fn line(&mut self, path: &str, what: &str, features: &[String]) {
        let features: BTreeSet<&String> = features.iter().collect();
        let features: String = features.iter().map(|feature| format!(" #[{feature}]")).collect();
        self.lines.insert(format!("{path}: {what}{features}"));
    }

    fn item(&mut self, path: &str, item: &Item, features: &[String]) {
        match item {
            Item::Const(item) => self.line(path, &format!("const {}", printed(&item.ty)), features),
            Item::Static(item) => self.line(path, &format!("static {}", printed(&item.ty)), features),
            Item::Fn(item) => self.line(path, &function(&item.sig), &with(features, &item.attrs)),
            Item::Type(item) => {
                let (parameters, conditions) = generics(&item.generics);
                let what = format!("type{parameters} = {}{conditions}", printed(&item.ty));
                self.line(path, &what, features);
            }
            Item::Struct(item) => {
                let (parameters, conditions) = generics(&item.generics);
                let is_private = item.fields.iter().any(|field| !is_public(&field.vis));
                let rest = if is_private { " { .. }" } else { "" };
                let marks = marks(&item.attrs);
                self.line(path, &format!("{marks}struct{parameters}{conditions}{rest}"), features);
                self.derives(path, &item.attrs, features);
                self.fields(path, &item.fields, features);
            }
            Item::Enum(item) => {
                let (parameters, conditions) = generics(&item.generics);
                let marks_of_all = marks(&item.attrs);
                self.line(path, &format!("{marks_of_all}enum{parameters}{conditions}"), features);
                self.derives(path, &item.attrs, features);
                for variant in item.variants.iter().filter(|variant| !is_hidden(&variant.attrs)) {
                    let mut fields = variant.fields.clone();
                    fields.iter_mut().for_each(|field| field.attrs.clear());
                    let path = joined(path, &variant.ident.to_string());
                    let what = format!("{}variant {}", marks(&variant.attrs), printed(&fields));
                    self.line(&path, what.trim(), &with(features, &variant.attrs));
                }
            }
            Item::Trait(item) => self.definition(path, item, features),
            _ => {}
        }
    }

    fn derives(&mut self, path: &str, attributes: &[Attribute], features: &[String]) {
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("derive")) {
            let list = attribute.meta.require_list().map(|list| printed(&list.tokens)).unwrap_or_default();
            for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                let name = name.rsplit("::").next().unwrap_or(name);
                self.line(path, &format!("derive {name}"), features);
            }
        }
    }

    fn fields(&mut self, path: &str, fields: &Fields, features: &[String]) {
        for (at, field) in fields.iter().enumerate().filter(|(_, field)| is_public(&field.vis)) {
            let name = field.ident.as_ref().map_or_else(|| at.to_string(), ToString::to_string);
            let what = format!("field {}", printed(&field.ty));
            self.line(&joined(path, &name), &what, &with(features, &field.attrs));
        }
    }

    fn definition(&mut self, path: &str, item: &ItemTrait, features: &[String]) {
        let (parameters, conditions) = generics(&item.generics);
        let above = printed(&item.supertraits);
        let above = if above.is_empty() { above } else { format!(": {above}") };
        self.line(path, &format!("trait{parameters}{above}{conditions}"), features);
        for inside in &item.items {
            let (name, what, attributes) = match inside {
                TraitItem::Fn(inside) => {
                    let rest = if inside.default.is_some() { " { .. }" } else { "" };
                    (&inside.sig.ident, function(&inside.sig) + rest, &inside.attrs)
                }
                TraitItem::Const(inside) => {
                    let rest = if inside.default.is_some() { " = .." } else { "" };
                    (&inside.ident, format!("const {}{rest}", printed(&inside.ty)), &inside.attrs)
                }
                TraitItem::Type(inside) => {
                    let (parameters, conditions) = generics(&inside.generics);
                    let bounds = printed(&inside.bounds);
                    let bounds = if bounds.is_empty() { bounds } else { format!(": {bounds}") };
                    let what = format!("type{parameters}{bounds}{conditions}");
                    (&inside.ident, what, &inside.attrs)
                }
                _ => continue,
            };
            if !is_hidden(attributes) {
                self.line(&joined(path, &name.to_string()), &what, &with(features, attributes));
            }
        }
    }

    /// Methods and traits of a public type, and public traits of types that are not ours.
    fn implementation(&mut self, modules: &Modules, module: &str, item: &ItemImpl) {
        let own = self.public_type(modules, module, &item.self_ty);
        let Some((path, features)) = (match &item.trait_ {
            None => own.ok().flatten(),
            Some((of, _)) => {
                let names: Vec<String> = of.segments.iter().map(|one| one.ident.to_string()).collect();
                match (modules.meaning(module, &names), own) {
                    // A trait that is not public shows nothing, and neither does `From` of such a type.
                    (Some(of), _) if !self.public.contains_key(&of) => None,
                    _ if self.has_private_parameter(modules, module, of) => None,
                    (_, Ok(own)) => own,
                    (Some(of), Err(())) => self.public.get(&of).cloned(),
                    (None, Err(())) => None,
                }
            }
        }) else {
            return;
        };
        let mut features = with(&features, &item.attrs);
        features.extend(modules.0[module].features.clone());
        let (parameters, conditions) = generics(&item.generics);
        if let Some((of, _)) = &item.trait_ {
            let what = format!("impl{parameters} {} for {}{conditions}", last(of), printed(&item.self_ty));
            self.line(&path, &(what + &associated(item)), &features);
            return;
        }
        let is_bounded = parameters.contains(':') || !conditions.is_empty();
        let head = format!("impl{parameters} {}{conditions}: ", printed(&item.self_ty));
        let head = if is_bounded { head } else { String::new() };
        for inside in &item.items {
            let (name, what, attributes) = match inside {
                ImplItem::Fn(inside) if is_public(&inside.vis) => {
                    (&inside.sig.ident, function(&inside.sig), &inside.attrs)
                }
                ImplItem::Const(inside) if is_public(&inside.vis) => {
                    (&inside.ident, format!("const {}", printed(&inside.ty)), &inside.attrs)
                }
                _ => continue,
            };
            if !is_hidden(attributes) && !is_of_tests(attributes) {
                let what = format!("{head}{what}");
                self.line(&joined(&path, &name.to_string()), &what, &with(&features, attributes));
            }
        }
    }

    fn has_private_parameter(&self, modules: &Modules, module: &str, of: &syn::Path) -> bool {
        let arguments = of.segments.last().map(|last| &last.arguments);
        let Some(syn::PathArguments::AngleBracketed(arguments)) = arguments else { return false };
        arguments.args.iter().any(|argument| match argument {
            syn::GenericArgument::Type(of) => matches!(self.public_type(modules, module, of), Ok(None)),
            _ => false,
        })
    }

    /// The public path of a type of ours; none if the type is not public; an error if it is not ours.
    fn public_type(
        &self,
        modules: &Modules,
        module: &str,
        of: &Type,
    ) -> Result<Option<(String, Vec<String>)>, ()> {
        let path = match of {
            Type::Path(path) => &path.path,
            Type::Reference(reference) => return self.public_type(modules, module, &reference.elem),
            _ => return Err(()),
        };
        let names: Vec<String> = path.segments.iter().map(|one| one.ident.to_string()).collect();
        let meaning = modules.meaning(module, &names).ok_or(())?;
        Ok(self.public.get(&meaning).cloned())
    }
}

/// `{ type Item = Result<RecordedEvent, Error> }` of an implementation of a trait.
fn associated(item: &ItemImpl) -> String {
    let types = item.items.iter().filter_map(|inside| match inside {
        ImplItem::Type(inside) => {
            let (parameters, _) = generics(&inside.generics);
            Some(format!("type {}{parameters} = {}", inside.ident, printed(&inside.ty)))
        }
        _ => None,
    });
    let types: Vec<String> = types.collect();
    if types.is_empty() { String::new() } else { format!(" {{ {} }}", types.join("; ")) }
}

fn public_name(item: &Item) -> Option<(String, &Vec<Attribute>)> {
    let (visibility, attributes): (&Visibility, _) = match item {
        Item::Const(item) => (&item.vis, &item.attrs),
        Item::Enum(item) => (&item.vis, &item.attrs),
        Item::Fn(item) => (&item.vis, &item.attrs),
        Item::Mod(item) => (&item.vis, &item.attrs),
        Item::Static(item) => (&item.vis, &item.attrs),
        Item::Struct(item) => (&item.vis, &item.attrs),
        Item::Trait(item) => (&item.vis, &item.attrs),
        Item::Type(item) => (&item.vis, &item.attrs),
        _ => return None,
    };
    let name = match item {
        Item::Mod(item) => item.ident.to_string(),
        _ => name_of(item)?,
    };
    is_public(visibility).then_some((name, attributes))
}

/// The last part of a path, with its parameters: `fmt::Display` and `Display` are one trait.
fn last(path: &syn::Path) -> String {
    path.segments.last().map_or(String::new(), printed)
}

/// Attributes that bind a user.
fn marks(attributes: &[Attribute]) -> String {
    let marks = ["non_exhaustive", "deprecated"].into_iter();
    let marks = marks.filter(|mark| attributes.iter().any(|attribute| attribute.path().is_ident(mark)));
    marks.map(|mark| format!("#[{mark}] ")).collect()
}

fn with(features: &[String], attributes: &[Attribute]) -> Vec<String> {
    features.iter().cloned().chain(features_of(attributes)).collect()
}
