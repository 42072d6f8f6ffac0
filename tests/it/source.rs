//! Reads Rust source without a compiler: words, signs, texts, comments, paths, functions.
//!
//! `tidy` checks rules with it, and `house` measures with it. Both read files that do not have to compile.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A name, a keyword or a number.
    Word,
    /// One sign; `::` is one sign.
    Sign,
    /// A text or a character, with its quotes.
    Text,
    /// One line comment, or one block comment.
    Comment,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
    pub(crate) line: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// All pieces of a source text but for the space between them.
pub(crate) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let (kind, length) = first_piece(rest, first);
        let piece = &rest[..length];
        if let Some(kind) = kind {
            found.push(Piece { kind, text: piece, line });
        }
        line += piece.matches('\n').count();
        rest = &rest[length..];
    }
    found
}

fn first_piece(rest: &str, first: char) -> (Option<Kind>, usize) {
    if rest.starts_with("//") {
        return (Some(Kind::Comment), rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (Some(Kind::Comment), rest.find("*/").map_or(rest.len(), |end| end + 2));
    }
    if matches!(first, '"' | 'b' | 'c' | 'r')
        && let Some(length) = text_length(rest)
    {
        return (Some(Kind::Text), length);
    }
    if first == '\'' {
        // A quote alone stands before a lifetime.
        let length = character_length(rest);
        return ((length > 1).then_some(Kind::Text), length);
    }
    if first.is_alphanumeric() || first == '_' {
        let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        return (Some(Kind::Word), length);
    }
    if rest.starts_with("::") {
        return (Some(Kind::Sign), 2);
    }
    (first.is_ascii_punctuation().then_some(Kind::Sign), first.len_utf8())
}

/// The length of the text that stands at the start, if one does.
fn text_length(rest: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|prefix| {
        let quoted = rest.strip_prefix(prefix).map(|rest| rest.trim_start_matches('#'));
        quoted.is_some_and(|rest| rest.starts_with('"'))
    })?;
    let hashes = rest[prefix.len()..].find('"').unwrap_or(0);
    let start = prefix.len() + hashes + 1;
    if prefix.ends_with('r') {
        let end = format!("\"{}", "#".repeat(hashes));
        return rest[start..].find(&end).map(|at| start + at + end.len());
    }
    let mut escaped = false;
    let end = rest[start..].find(|c: char| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    (hashes == 0).then_some(start + end? + 1)
}

/// Of a character, or of the quote before a lifetime.
fn character_length(text: &str) -> usize {
    let mut inside = text[1..].chars();
    match (inside.next(), inside.next()) {
        (Some('\\'), _) => 3 + text[3..].find('\'').unwrap(),
        (Some(one), Some('\'')) => 2 + one.len_utf8(),
        _ => 1,
    }
}

/// Names, numbers and signs. Comments, texts and characters are left out.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let pieces = pieces(text).into_iter().filter(|piece| matches!(piece.kind, Kind::Word | Kind::Sign));
    pieces.map(|piece| Token { text: piece.text.to_owned(), line: piece.line }).collect()
}

/// All paths with at least two parts, `use` trees spread out, each with its line.
pub(crate) fn paths(tokens: &[Token]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_word(&tokens[at].text) && tokens.get(at + 1).is_some_and(|next| next.text == "::") {
            spread(tokens, &mut at, "", &mut found);
        } else {
            at += 1;
        }
    }
    found
}

pub(crate) fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn spread(tokens: &[Token], at: &mut usize, before: &str, found: &mut Vec<(String, usize)>) {
    let mut path = before.to_owned();
    while let Some(token) = tokens.get(*at) {
        match token.text.as_str() {
            "{" if path.ends_with("::") => {
                *at += 1;
                while tokens[*at].text != "}" {
                    match tokens[*at].text.as_str() {
                        "," => *at += 1,
                        _ => spread(tokens, at, &path, found),
                    }
                }
                *at += 1;
                return;
            }
            "::" => path.push_str("::"),
            word if is_word(word) && (path.is_empty() || path.ends_with("::")) && word != "as" => {
                path.push_str(word);
            }
            "*" if path.ends_with("::") => path.push('*'),
            _ => break,
        }
        *at += 1;
    }
    if tokens.get(*at).is_some_and(|token| token.text == "as") && !before.is_empty() {
        *at += 2;
    }
    // A sign that belongs to no path here (`Vec::<u8>`) must not stop us.
    if path == before {
        *at += 1;
    }
    let line = tokens[at.saturating_sub(1).min(tokens.len() - 1)].line;
    found.push((path, line));
}

/// The lines of each function with a body, and its name.
pub(crate) fn functions(tokens: &[Token]) -> Vec<(usize, String)> {
    let starts = (1..tokens.len()).filter(|at| tokens[at - 1].text == "fn" && is_word(&tokens[*at].text));
    let mut found = Vec::new();
    for start in starts {
        let mut depth = 0_i32;
        for token in &tokens[start..] {
            match token.text.as_str() {
                ";" if depth == 0 => break,
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth -= 1,
                _ => continue,
            }
            if depth == 0 && token.text == "}" {
                found.push((token.line - tokens[start - 1].line + 1, tokens[start].text.clone()));
                break;
            }
        }
    }
    found
}
