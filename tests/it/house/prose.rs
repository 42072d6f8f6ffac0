//! The words of comments and documents: sentences, and words that plain English does without.

use crate::source::{Kind, Piece};

/// Words of the private dialect that the code once had, each with its count by the figures.
pub(super) const DIALECT: [&str; 6] = ["whoever", "whatever", "somebody", "nobody", "meanwhile", "so many"];

/// One line of text, with its number in the file.
pub(super) type Line<'a> = (usize, &'a str);

pub(super) struct Sentence {
    pub(super) line: usize,
    pub(super) words: usize,
}

/// The lines of all comments without their marks. An empty line stands between two comments.
pub(super) fn comments<'a>(pieces: &[Piece<'a>]) -> Vec<Line<'a>> {
    let mut found: Vec<Line<'a>> = Vec::new();
    let mut previous: Option<(&str, usize)> = None;
    for piece in pieces.iter().filter(|piece| piece.kind == Kind::Comment) {
        let mark = ["///", "//!", "//", "/*"].into_iter().find(|mark| piece.text.starts_with(mark));
        let mark = mark.unwrap_or_default();
        if previous.is_some_and(|previous| previous != (mark, piece.line - 1)) {
            found.push((piece.line, ""));
        }
        let inside = piece.text[mark.len()..].trim_end_matches("*/");
        found.extend((piece.line..).zip(inside.lines()));
        previous = Some((mark, piece.line));
    }
    found
}

/// The sentences of a text in Markdown, without code, headings and tables.
///
/// A full stop, a question mark or an exclamation mark ends a sentence, if a space and no small letter
/// follows. An empty line and a new item of a list end one as well.
pub(super) fn sentences(lines: &[Line<'_>]) -> Vec<Sentence> {
    let mut found = Vec::new();
    let mut open = Sentence { line: 0, words: 0 };
    let mut is_code = false;
    let mut is_ended = false;
    for (number, line) in lines {
        let line = line.trim();
        let is_fence = line.starts_with("```");
        is_code ^= is_fence;
        let is_item = ["- ", "* ", "1. ", "2. ", "3. ", "4. "].iter().any(|mark| line.starts_with(mark));
        let is_link = line.starts_with('[') && line.contains("]: ");
        let is_no_prose = is_code || is_fence || is_link || line.is_empty() || line.starts_with(['#', '|']);
        if is_no_prose || is_item {
            end(&mut open, &mut found);
        }
        if is_no_prose {
            continue;
        }
        for word in line.split_whitespace().filter(|word| word.contains(char::is_alphanumeric)) {
            if is_ended && !word.starts_with(char::is_lowercase) {
                end(&mut open, &mut found);
            }
            if open.words == 0 {
                open.line = *number;
            }
            open.words += 1;
            is_ended = word.trim_end_matches(['"', ')', '*', '`', '\'']).ends_with(['.', '?', '!']);
        }
    }
    end(&mut open, &mut found);
    found
}

fn end(open: &mut Sentence, found: &mut Vec<Sentence>) {
    if open.words > 0 {
        found.push(Sentence { line: open.line, words: open.words });
    }
    open.words = 0;
}

/// Each word of the dialect in a text, with its line.
pub(super) fn dialect(lines: &[Line<'_>]) -> Vec<(&'static str, usize)> {
    let mut found = Vec::new();
    let mut previous = String::new();
    for (number, line) in lines {
        for word in line.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()) {
            let word = word.to_lowercase();
            let pair = format!("{previous} {word}");
            let known = DIALECT.into_iter().find(|known| *known == word || *known == pair);
            found.extend(known.map(|known| (known, *number)));
            previous = word;
        }
    }
    found
}
