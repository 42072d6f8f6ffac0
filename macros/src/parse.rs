//! Reads the attributes of an event type into a model, or reports all errors in them.

use syn::ext::IdentExt;
use syn::meta::ParseNestedMeta;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Attribute, Data, DataEnum, DeriveInput, Error, Fields, Ident, LitInt, LitStr, Meta, Path, Token};

use crate::names::{self, Taken};

/// The model of an event type, from which the code is written.
pub(crate) struct Events {
    pub(crate) name: Ident,
    /// The path of annals in the program.
    pub(crate) annals: Path,
    pub(crate) form: Form,
    pub(crate) kinds: Vec<Kind>,
}

/// The form in which values are stored.
pub(crate) enum Form {
    /// An enum: the variant's fields.
    Enum,
    /// A struct without fields: no fields.
    Unit,
    /// Any other struct: as serde stores it.
    Struct,
}

/// One kind of event: a variant, or the struct.
pub(crate) struct Kind {
    /// `None` for a struct.
    pub(crate) variant: Option<Ident>,
    pub(crate) kind: LitStr,
    pub(crate) version: u16,
    /// Whether the variant is read but not written any more.
    pub(crate) is_former: bool,
    /// The upcasters from version 1 to 2, from 2 to 3, and so on up to `version`.
    pub(crate) upcasters: Vec<Path>,
    pub(crate) aliases: Vec<Alias>,
}

/// A former kind that is read as another.
pub(crate) struct Alias {
    pub(crate) kind: LitStr,
    /// The former kind's own upcasters, and the version of the kind that the last of them leads to.
    pub(crate) own: Option<(Vec<Path>, u16)>,
}

/// The contents of `#[event(..)]` above the type or a variant.
#[derive(Default)]
struct EventAttributes {
    prefix: Option<LitStr>,
    kind: Option<LitStr>,
    version: Option<LitInt>,
    upcasters: Vec<(LitInt, LitStr)>,
    aliases: Vec<AliasAttributes>,
    annals: Option<LitStr>,
}

struct AliasAttributes {
    kind: LitStr,
    upcasters: Vec<(LitInt, LitStr)>,
    to: Option<LitInt>,
}

/// All errors, so that the compiler shows them at once.
#[derive(Default)]
struct Problems(Option<Error>);

impl Problems {
    fn add(&mut self, error: Error) {
        match &mut self.0 {
            Some(all) => all.combine(error),
            None => self.0 = Some(error),
        }
    }

    fn keep<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }
}

pub(crate) fn events(input: &DeriveInput) -> Result<Events, Error> {
    let mut problems = Problems::default();
    let said = problems.keep(EventAttributes::read(&input.attrs)).unwrap_or_default();
    check_generics(input, &mut problems);
    let annals = said.annals.as_ref().map(LitStr::parse).unwrap_or_else(|| syn::parse_str("::annals"));
    let annals = problems.keep(annals);
    let (form, kinds) = match &input.data {
        Data::Enum(data) => (Form::Enum, of_enum(input, data, &said, &mut problems)),
        Data::Struct(data) => {
            check_fields(&data.fields, "the struct", &mut problems);
            let converts = serde_words(&input.attrs).iter().any(|word| is_one_of(word, CONVERSIONS));
            let is_unit = matches!(data.fields, Fields::Unit) && !converts;
            let form = if is_unit { Form::Unit } else { Form::Struct };
            (form, of_struct(input, &said, &mut problems))
        }
        Data::Union(data) => {
            problems.add(Error::new(data.union_token.span, "a union is no event; write an enum or a struct"));
            (Form::Struct, Vec::new())
        }
    };
    let mut taken = Taken::default();
    for kind in &kinds {
        let owner = kind.variant.as_ref().unwrap_or(&input.ident).to_string();
        let all = std::iter::once(&kind.kind).chain(kind.aliases.iter().map(|alias| &alias.kind));
        for name in all {
            problems.keep(taken.take(name, &owner));
        }
    }
    match (problems.0, annals) {
        (None, Some(annals)) => Ok(Events { name: input.ident.clone(), annals, form, kinds }),
        (Some(errors), _) => Err(errors),
        (None, None) => unreachable!("a path that does not parse is a problem"),
    }
}

fn check_generics(input: &DeriveInput, problems: &mut Problems) {
    if let Some(parameter) = input.generics.params.first() {
        let text = "an event type has no parameters: it is read back long after it was written, so it owns its data, and a kind has one meaning; write the types out (String, Cow<'static, str>), or append with annals::Raw what needs not be read back as a type";
        problems.add(Error::new(parameter.span(), text));
    }
}

/// The serde attributes that make a type go through another type.
const CONVERSIONS: &[&str] = &["from", "try_from", "into", "remote"];

fn of_enum(
    input: &DeriveInput,
    data: &DataEnum,
    said: &EventAttributes,
    problems: &mut Problems,
) -> Vec<Kind> {
    let misplaced = [
        ("kind", said.kind.as_ref().map(LitStr::span)),
        ("version", said.version.as_ref().map(LitInt::span)),
        ("upcast", said.upcasters.first().map(|(from, _)| from.span())),
        ("alias", said.aliases.first().map(|alias| alias.kind.span())),
    ];
    for (word, span) in misplaced {
        if let Some(span) = span {
            problems.add(Error::new(
                span,
                format!("each variant is a kind of its own: write `{word}` on the variant it is about"),
            ));
        }
    }
    check_serde_of_enum(&input.attrs, problems);
    if data.variants.is_empty() {
        problems.add(Error::new(input.ident.span(), "an enum without variants has no events; add a variant"));
    }
    let prefix_is_bad =
        said.prefix.as_ref().is_some_and(|prefix| problems.keep(names::check_prefix(prefix)).is_none());
    let mut kinds = Vec::new();
    let mut lacks_prefix = false;
    for variant in &data.variants {
        check_serde_of_variant(&variant.attrs, problems);
        check_fields(&variant.fields, "the variant", problems);
        let Some(of_variant) = problems.keep(EventAttributes::read(&variant.attrs)) else { continue };
        let prefix_span = of_variant.prefix.as_ref().or(of_variant.annals.as_ref()).map(LitStr::span);
        if let Some(span) = prefix_span {
            problems.add(Error::new(
                span,
                "this is said once, above the enum; a variant has `kind`, `version`, `upcast` and `alias`",
            ));
        }
        let kind = match (&of_variant.kind, &said.prefix) {
            (Some(kind), _) => kind.clone(),
            (None, Some(_)) if prefix_is_bad => continue,
            (None, Some(prefix)) => {
                let name = names::snake_case(&variant.ident.unraw().to_string());
                LitStr::new(&format!("{}.{name}", prefix.value()), variant.ident.span())
            }
            (None, None) => {
                lacks_prefix = true;
                continue;
            }
        };
        let is_former = serde_words(&variant.attrs).iter().any(|word| word.is_ident("skip_serializing"));
        let kind = of_variant.kind(Some(variant.ident.clone()), kind, problems);
        kinds.extend(kind.map(|kind| Kind { is_former, ..kind }));
    }
    if lacks_prefix {
        let text = "the kinds of its events need a prefix that does not change when the type is renamed: write #[event(prefix = \"account\")] above the enum, or #[event(kind = \"account.opened\")] on every variant";
        problems.add(Error::new(input.ident.span(), text));
    }
    kinds
}

fn of_struct(input: &DeriveInput, said: &EventAttributes, problems: &mut Problems) -> Vec<Kind> {
    if let Some(prefix) = &said.prefix {
        problems.add(Error::new(
            prefix.span(),
            "a struct is one kind of event: write #[event(kind = \"account.opened\")]",
        ));
        return Vec::new();
    }
    let Some(kind) = said.kind.clone() else {
        let text = "which kind of event is it? Write #[event(kind = \"account.opened\")] above the struct; the kind is stored, and is never taken from the Rust name";
        problems.add(Error::new(input.ident.span(), text));
        return Vec::new();
    };
    said.kind(None, kind, problems).into_iter().collect()
}

impl EventAttributes {
    fn read(attributes: &[Attribute]) -> Result<EventAttributes, Error> {
        let mut said = EventAttributes::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("event")) {
            attribute.parse_nested_meta(|meta| said.read_word(&meta))?;
        }
        Ok(said)
    }

    fn read_word(&mut self, meta: &ParseNestedMeta<'_>) -> Result<(), Error> {
        let word = meta.path.get_ident().map(Ident::to_string).unwrap_or_default();
        match word.as_str() {
            "prefix" => once(&mut self.prefix, text(meta)?, "prefix"),
            "kind" => once(&mut self.kind, text(meta)?, "kind"),
            "version" => once(&mut self.version, meta.value()?.parse()?, "version"),
            "crate" => once(&mut self.annals, text(meta)?, "crate"),
            "upcast" => {
                self.upcasters.extend(steps(meta)?);
                Ok(())
            }
            "alias" => {
                self.aliases.push(alias(meta)?);
                Ok(())
            }
            _ => Err(meta.error(
                "unknown word; there are prefix = \"..\" and crate = \"..\" above an enum, and kind = \"..\", version = 2, upcast(1 = \"path::to::function\") and alias = \"former.kind\" on a variant or a struct",
            )),
        }
    }

    /// Checks the attributes of one kind.
    fn kind(&self, variant: Option<Ident>, kind: LitStr, problems: &mut Problems) -> Option<Kind> {
        problems.keep(names::check("the kind", &kind));
        let version = problems.keep(self.version.as_ref().map_or(Ok(1), version))?;
        let upcasters = problems.keep(chain(&self.upcasters, version, &kind));
        let aliases = self.aliases.iter().filter_map(|alias| {
            problems.keep(names::check("the former kind", &alias.kind));
            problems.keep(alias.checked(version))
        });
        let aliases = aliases.collect();
        Some(Kind { variant, kind, version, is_former: false, upcasters: upcasters?, aliases })
    }
}

impl AliasAttributes {
    fn checked(&self, version: u16) -> Result<Alias, Error> {
        let own = match (&self.to, self.upcasters.is_empty()) {
            (None, true) => None,
            (None, false) => {
                let text = format!(
                    "which version of the new kind does the last upcaster lead to? Add `to = {version}`"
                );
                return Err(Error::new(self.kind.span(), text));
            }
            (Some(to), true) => {
                return Err(Error::new(
                    to.span(),
                    "`to` goes with upcasters: add upcast(1 = \"path::to::function\"), or leave `to` out if the former kind is read as it is",
                ));
            }
            (Some(to), false) => Some((self.own_chain()?, self.target(to, version)?)),
        };
        Ok(Alias { kind: self.kind.clone(), own })
    }

    fn own_chain(&self) -> Result<Vec<Path>, Error> {
        let mut last = 0;
        for (from, _) in &self.upcasters {
            last = last.max(version_number(from)?);
        }
        let versions = last.checked_add(1);
        let versions = versions.ok_or_else(|| Error::new(self.kind.span(), TOO_MANY_VERSIONS))?;
        chain(&self.upcasters, versions, &self.kind)
    }

    fn target(&self, to: &LitInt, version: u16) -> Result<u16, Error> {
        match version_number(to) {
            Ok(target) if (1..=version).contains(&target) => Ok(target),
            _ => {
                Err(Error::new(to.span(), format!("the kind it becomes has {}; name one", old_ones(version))))
            }
        }
    }
}

const TOO_MANY_VERSIONS: &str = "versions are numbers from 1 to 65535";

fn version_number(number: &LitInt) -> Result<u16, Error> {
    number.base10_parse().map_err(|_| Error::new(number.span(), TOO_MANY_VERSIONS))
}

fn version(number: &LitInt) -> Result<u16, Error> {
    match version_number(number)? {
        0 => Err(Error::new(
            number.span(),
            "versions begin with 1, which need not be said; raise it when the payload's shape changes",
        )),
        version => Ok(version),
    }
}

fn old_ones(last: u16) -> String {
    match last {
        1 => "version 1 only".to_owned(),
        last => format!("the versions 1 to {last}"),
    }
}

/// The upcasters from version 1 up to `version`. A missing or extra upcaster is an error.
fn chain(said: &[(LitInt, LitStr)], version: u16, kind: &LitStr) -> Result<Vec<Path>, Error> {
    let mut functions: Vec<Option<Path>> = vec![None; usize::from(version) - 1];
    for (from, function) in said {
        let at = version_number(from)?.checked_sub(1).map(usize::from);
        let Some(place) = at.and_then(|at| functions.get_mut(at)) else {
            let text = match version {
                1 => {
                    "there is no version before 1 to come from: add `version = 2`, or take the upcaster away"
                        .to_owned()
                }
                _ => format!(
                    "an upcaster leads from an old version to the next, and version {version} comes after {}",
                    old_ones(version - 1)
                ),
            };
            return Err(Error::new(from.span(), text));
        };
        if place.is_some() {
            return Err(Error::new(from.span(), "this version has an upcaster already; keep one"));
        }
        *place = Some(function.parse().map_err(|_| {
            Error::new(
                function.span(),
                "this is not the path of a function; write one like \"upcast::split_name\"",
            )
        })?);
    }
    if let Some(at) = functions.iter().position(Option::is_none) {
        let text = format!(
            "nothing says how to read version {1} of {0:?}: add upcast({1} = \"path::to::function\"), a fn(annals::Value) -> Result<annals::Value, E>, or \"annals::Value::unchanged\" if the new shape reads the old one",
            kind.value(),
            at + 1
        );
        return Err(Error::new(kind.span(), text));
    }
    Ok(functions.into_iter().flatten().collect())
}

fn once<T: Spanned>(place: &mut Option<T>, value: T, word: &str) -> Result<(), Error> {
    if place.is_some() {
        return Err(Error::new(value.span(), format!("`{word}` is said twice; keep one")));
    }
    *place = Some(value);
    Ok(())
}

fn text(meta: &ParseNestedMeta<'_>) -> Result<LitStr, Error> {
    meta.value()?.parse()
}

/// `(1 = "path", 2 = "path")`.
fn steps(meta: &ParseNestedMeta<'_>) -> Result<Vec<(LitInt, LitStr)>, Error> {
    const FORM: &str = "write upcast(1 = \"path::to::function\"): the old version, and the function that leads to the next, between quotes";
    let content;
    syn::parenthesized!(content in meta.input);
    let step = |input: syn::parse::ParseStream<'_>| {
        let from = input.parse()?;
        input.parse::<Token![=]>()?;
        Ok((from, input.parse()?))
    };
    let steps = content.parse_terminated(step, Token![,]).map_err(|error| Error::new(error.span(), FORM))?;
    Ok(steps.into_iter().collect())
}

/// `= "former.kind"`, or `(kind = "former.kind", upcast(1 = "path"), to = 1)`.
fn alias(meta: &ParseNestedMeta<'_>) -> Result<AliasAttributes, Error> {
    if meta.input.peek(Token![=]) {
        return Ok(AliasAttributes { kind: text(meta)?, upcasters: Vec::new(), to: None });
    }
    let mut kind = None;
    let mut upcasters = Vec::new();
    let mut to = None;
    meta.parse_nested_meta(|inner| {
        let word = inner.path.get_ident().map(Ident::to_string).unwrap_or_default();
        match word.as_str() {
            "kind" => once(&mut kind, text(&inner)?, "kind"),
            "to" => once(&mut to, inner.value()?.parse()?, "to"),
            "upcast" => {
                upcasters.extend(steps(&inner)?);
                Ok(())
            }
            _ => Err(inner.error("unknown word; write alias = \"former.kind\", or alias(kind = \"former.kind\", upcast(1 = \"path::to::function\"), to = 1)")),
        }
    })?;
    let kind = kind.ok_or_else(|| meta.error("which kind was it? Add kind = \"former.kind\""))?;
    Ok(AliasAttributes { kind, upcasters, to })
}

fn check_fields(fields: &Fields, owner: &str, problems: &mut Problems) {
    let attributes = fields.iter().flat_map(|field| &field.attrs);
    for attribute in attributes.filter(|attribute| attribute.path().is_ident("event")) {
        problems.add(Error::new(
            attribute.span(),
            format!("fields are serde's: use #[serde(..)] here, or put this above {owner}"),
        ));
    }
}

/// The attributes in `#[serde(..)]`. serde reports those that do not parse.
fn serde_words(attributes: &[Attribute]) -> Vec<Path> {
    let serde = attributes.iter().filter(|attribute| attribute.path().is_ident("serde"));
    let parsed = serde.filter_map(|attribute| {
        attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).ok()
    });
    parsed.flatten().map(|meta| meta.path().clone()).collect()
}

fn is_one_of(path: &Path, words: &[&str]) -> bool {
    words.iter().any(|word| path.is_ident(word))
}

fn check_serde_of_enum(attributes: &[Attribute], problems: &mut Problems) {
    for word in serde_words(attributes) {
        if is_one_of(&word, &["tag", "content", "untagged"]) {
            let text = "the kind already says which variant an event is, and only the variant's fields are stored; take this away";
            problems.add(Error::new(word.span(), text));
        } else if is_one_of(&word, CONVERSIONS) {
            let text = "an event's kind stands for a variant of this very enum, so it cannot go through another type; take this away, or convert the variant's fields";
            problems.add(Error::new(word.span(), text));
        }
    }
}

fn check_serde_of_variant(attributes: &[Attribute], problems: &mut Problems) {
    for word in serde_words(attributes) {
        let text = if word.is_ident("other") {
            "kinds that are not known are an error, and annals::Projection::unknown may decide about them; take this away"
        } else if word.is_ident("untagged") {
            "the kind already says which variant an event is; take this away"
        } else if is_one_of(&word, &["skip", "skip_deserializing"]) {
            "an event that cannot be read back is none: take the variant out of the enum (one that is only read, and not written any more, has `skip_serializing`)"
        } else {
            continue;
        };
        problems.add(Error::new(word.span(), text));
    }
}
