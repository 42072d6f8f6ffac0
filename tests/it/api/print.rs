//! Signatures as one writes them, on one line, from tokens.

use quote::ToTokens;
use syn::{Generics, Signature};

/// Tokens as text. Paths from `crate`, `self` and `super` are cut to their last names, because the layout of
/// the crate is no part of its API.
pub(super) fn printed(tokens: &impl ToTokens) -> String {
    const SPACES: [(&str, &str); 20] = [
        (" :: ", "::"),
        (":: ", "::"),
        (" ::", "::"),
        (" <", "<"),
        ("< ", "<"),
        (" >", ">"),
        (" ,", ","),
        (" :", ":"),
        (" ;", ";"),
        ("& ", "&"),
        ("? ", "?"),
        (" (", "("),
        ("( ", "("),
        (" )", ")"),
        (",)", ")"),
        (",>", ">"),
        (", }", " }"),
        (" !", "!"),
        ("(mut ", "("),
        (", mut ", ", "),
    ];
    // A tuple behind these keeps its space.
    const BEFORE_TUPLES: [&str; 6] = ["->", ",", "=", "+", ":", "&mut"];
    let text = tokens.to_token_stream().to_string();
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for (from, to) in SPACES {
        text = text.replace(from, to);
    }
    for before in BEFORE_TUPLES {
        text = text.replace(&format!("{before}("), &format!("{before} ("));
    }
    without_modules(&text)
}

fn without_modules(text: &str) -> String {
    let mut found = String::new();
    let mut rest = text;
    let starts = ["crate::", "super::", "self::"];
    while let Some(at) = starts.iter().filter_map(|start| rest.find(start)).min() {
        let path = &rest[at..];
        let end = path.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(path.len());
        let path = path[..end].trim_end_matches(':');
        found += &rest[..at];
        found += path.rsplit("::").next().unwrap_or(path);
        rest = &rest[at + path.len()..];
    }
    found + rest
}

/// `fn name<T>(..) -> R where ..`, without the body and without attributes.
pub(super) fn function(signature: &Signature) -> String {
    let mut signature = signature.clone();
    for input in &mut signature.inputs {
        match input {
            syn::FnArg::Receiver(receiver) => receiver.attrs.clear(),
            syn::FnArg::Typed(typed) => typed.attrs.clear(),
        }
    }
    printed(&signature).trim_end_matches(',').to_owned()
}

/// The parameters behind a name, and the conditions behind everything.
pub(super) fn generics(generics: &Generics) -> (String, String) {
    let conditions = generics
        .where_clause
        .as_ref()
        .map_or(String::new(), |clause| format!(" {}", printed(clause).trim_end_matches(',')));
    (printed(generics), conditions)
}

#[test]
fn signatures_are_printed_as_one_writes_them() {
    let text = "pub fn f<'a, T: ?Sized + Fn(u8) -> (u8, B)>(mut self, a: &'a mut [T; 2], mut b: Option<crate::a::b::B>,) \
                -> Result<(), super::c::D<T>> where T: 'a, { 1 }";
    let item: syn::ItemFn = syn::parse_str(text).unwrap();
    let expected = "fn f<'a, T: ?Sized + Fn(u8) -> (u8, B)>(self, a: &'a mut [T; 2], b: Option<B>) \
                    -> Result<(), D<T>> where T: 'a";
    assert_eq!(function(&item.sig), expected);
}
