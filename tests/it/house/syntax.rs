//! What the tokens of a file hold: tuple statements, public names, public methods.

use crate::source::{self, Token};

/// The lines of statements `let (a, b) = (x, y);`.
pub(super) fn tuple_statements(tokens: &[Token]) -> Vec<usize> {
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.text == text);
    let mut found = Vec::new();
    for start in (0..tokens.len()).filter(|at| is(*at, "let") && is(at + 1, "(")) {
        let Some((_, pattern_end)) = tuple(&tokens[start + 1..]) else { continue };
        let mut at = start + 1 + pattern_end;
        if is(at, ":") {
            at += tokens[at..].iter().take_while(|token| token.text != "=" && token.text != ";").count();
        }
        if !is(at, "=") || !is(at + 1, "(") {
            continue;
        }
        if let Some((commas, end)) = tuple(&tokens[at + 1..])
            && commas > 0
            && is(at + 1 + end, ";")
        {
            found.push(tokens[start].line);
        }
    }
    found
}

/// The commas of a tuple at the start that are in no bracket inside, and the number of its tokens.
fn tuple(tokens: &[Token]) -> Option<(usize, usize)> {
    let mut commas = 0;
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" if depth == 1 => return Some((commas, at + 1)),
            ")" | "]" | "}" => depth -= 1,
            "," if depth == 1 => commas += 1,
            _ => {}
        }
    }
    None
}

/// The names that `lib.rs` makes public, but for those that begin with `__`.
pub(super) fn root_names(tokens: &[Token]) -> Vec<String> {
    let mut found = Vec::new();
    for at in 0..tokens.len().saturating_sub(2) {
        if tokens[at].text != "pub" {
            continue;
        }
        let length = tokens[at..].iter().take_while(|token| token.text != ";").count();
        let statement = &tokens[at + 2..at + length];
        let is_hidden = statement.iter().any(|token| token.text.starts_with("__"));
        match tokens[at + 1].text.as_str() {
            "use" if !is_hidden => {
                let paths = source::paths(statement).into_iter();
                found.extend(paths.map(|(path, _)| path.rsplit("::").next().unwrap_or_default().to_owned()));
            }
            "mod" => found.push(tokens[at + 2].text.clone()),
            _ => {}
        }
    }
    found
}

/// The names of public methods in the blocks `impl Type { .. }` of a file.
pub(super) fn public_methods(tokens: &[Token], of: &str) -> Vec<String> {
    let mut found = Vec::new();
    for start in (0..tokens.len()).filter(|at| tokens[*at].text == "impl") {
        let head = tokens[start..].iter().take_while(|token| token.text != "{" && token.text != ";");
        let head: Vec<&str> = head.map(|token| token.text.as_str()).collect();
        let body = start + head.len();
        let where_clause = head.iter().position(|word| *word == "where").unwrap_or(head.len());
        if head[..where_clause].contains(&"for") || self_type(&head) != Some(of) {
            continue;
        }
        let Some((_, length)) = tuple(&tokens[body..]) else { continue };
        let mut depth = 0_usize;
        for at in body..body + length {
            match tokens[at].text.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                "pub" if depth == 1 && tokens[at + 1].text != "(" => {
                    let rest = tokens[at + 1..].iter().take(4).map(|token| token.text.as_str());
                    let rest: Vec<&str> = rest.collect();
                    if let Some(function) = rest.iter().position(|word| *word == "fn") {
                        found.push(rest[function + 1].to_owned());
                    }
                }
                _ => {}
            }
        }
    }
    found
}

/// The first word of the type behind `impl`, generics skipped.
fn self_type<'a>(head: &[&'a str]) -> Option<&'a str> {
    let mut depth = 0_usize;
    for word in &head[1..] {
        match *word {
            "<" => depth += 1,
            ">" => depth -= 1,
            word if depth == 0 => return Some(word),
            _ => {}
        }
    }
    None
}
