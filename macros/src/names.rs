//! The rules for names of kinds.

use std::collections::HashMap;

use syn::{Error, LitStr};

/// The most bytes that the format holds.
const KIND_BYTES_MAX: usize = 255;

/// Refuses a name that the store would refuse to append. The error's text begins with `what`.
pub(crate) fn check(what: &str, name: &LitStr) -> Result<(), Error> {
    let text = name.value();
    let problem = if text.is_empty() {
        "is empty; write a dotted name that will never change, like \"account.opened\"".to_owned()
    } else if text.starts_with('$') {
        "begins with `$`, which is kept for the store's own events; leave it out".to_owned()
    } else if text.chars().any(char::is_control) {
        "holds a control character; leave it out".to_owned()
    } else if !text.chars().any(is_visible) {
        "has no visible character; write a dotted name, like \"account.opened\"".to_owned()
    } else if text.len() > KIND_BYTES_MAX {
        format!("has {} bytes, more than the {KIND_BYTES_MAX} that are stored; shorten it", text.len())
    } else {
        return Ok(());
    };
    Err(Error::new(name.span(), format!("{what} {problem}")))
}

/// Whether a character is visible.
///
/// The table is a copy of the one in annals (`types/text.rs` and `types/coordinate.rs`). A crate of its own
/// for both would be one more crate to publish. A check in the generated code, by a `const fn` of annals,
/// would lose the span of the attribute in the error. A test (tests/it/typed.rs) compares the two tables.
fn is_visible(character: char) -> bool {
    let is_invisible = matches!(
        character,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    );
    !is_invisible && !character.is_whitespace()
}

/// Refuses a prefix with a dot at either end: the macro adds the dot.
pub(crate) fn check_prefix(prefix: &LitStr) -> Result<(), Error> {
    check("the prefix", prefix)?;
    let text = prefix.value();
    if text.starts_with('.') || text.ends_with('.') {
        let text = format!(
            "the prefix begins or ends with a dot, which is put in anyway; write {:?}",
            text.trim_matches('.')
        );
        return Err(Error::new(prefix.span(), text));
    }
    Ok(())
}

/// The name in snake case. `HttpRequestSent`, `HTTPRequestSent` and `r#HttpRequestSent` all give
/// `http_request_sent`.
pub(crate) fn snake_case(variant: &str) -> String {
    let letters: Vec<char> = variant.trim_start_matches("r#").chars().collect();
    let mut name = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).map(|at| letters[at]);
        let next_is_small = letters.get(at + 1).is_some_and(|next| next.is_lowercase());
        let begins_word = letter.is_uppercase()
            && before.is_some_and(|before| before != '_' && (!before.is_uppercase() || next_is_small));
        if begins_word {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
    }
    name
}

/// The kinds of one type, and the variant that each belongs to.
#[derive(Default)]
pub(crate) struct Taken(HashMap<String, String>);

impl Taken {
    /// Adds a kind of `owner`, which is a variant or the struct. A kind with two owners is an error.
    pub(crate) fn take(&mut self, kind: &LitStr, owner: &str) -> Result<(), Error> {
        match self.0.insert(kind.value(), owner.to_owned()) {
            None => Ok(()),
            Some(other) => {
                let text = format!(
                    "{owner} has the kind {:?}, which {other} has already; a stored kind must say what to read, so give one of them another",
                    kind.value()
                );
                Err(Error::new(kind.span(), text))
            }
        }
    }
}
