//! What a kind may be called.

use std::collections::HashMap;

use syn::{Error, LitStr};

/// The most bytes the format holds.
const KIND_BYTES_MAX: usize = 255;

/// Refuses what the store would refuse to append. `what` is said in front of the name.
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

/// Whether a character leaves a mark where it is shown: as annals decides it, in `coordinate.rs`.
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

/// A prefix is what stands before the dot.
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

/// `HttpRequestSent`, `HTTPRequestSent` and `r#HttpRequestSent` are all `http_request_sent`.
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

/// The kinds of one type, each of which stands for one thing.
#[derive(Default)]
pub(crate) struct Taken(HashMap<String, String>);

impl Taken {
    /// Takes a kind for `owner` (a variant, or the struct).
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
