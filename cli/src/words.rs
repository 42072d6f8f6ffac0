//! Translates messages of the library for the command line, and names what is wrong with an input.

/// Words of the library, and those of the command in their stead.
const WORDS: [(&str, &str); 8] = [
    ("wait with open_within", "wait for it: --wait 30s"),
    ("Store::open would create one", "`annals init` creates one"),
    ("(renumber)", "(--renumber)"),
    ("compact even_unhandled()", "say --even-unhandled"),
    ("; send less or raise the limit", "; send less"),
    (
        "versions(..) counts within one stream; read store.stream(entity)",
        "--versions counts within one stream; say --entity and no other filter",
    ),
    ("reopen the store and read back, or retry with its key", "read back, or repeat it with its key"),
    ("; reopen the store", "; run the command again"),
];

/// A message of the library, in the words of the command line.
pub fn translate(text: &str) -> String {
    let text = WORDS.iter().fold(text.to_owned(), |text, (library, command)| text.replace(library, command));
    without_limits(&text)
}

/// Removes names of limits, which are no options of the command: ` that payload_bytes_max allows` becomes
/// ` that are allowed`.
fn without_limits(text: &str) -> String {
    let Some((before, rest)) = text.split_once("_max allows") else { return text.to_owned() };
    match before.rsplit_once(" that ") {
        Some((before, name)) if !name.contains(' ') => {
            format!("{before} that are allowed{}", without_limits(rest))
        }
        _ => text.to_owned(),
    }
}

/// What an input is and what to do, if its `first` bytes are compressed, UTF-16 or UTF-32.
pub fn unreadable(first: &[u8]) -> Option<&'static str> {
    const BEGINNINGS: [(&[u8], &str); 9] = [
        (b"\x1f\x8b", "it is gzip; decompress it first, with gunzip"),
        (b"\x28\xb5\x2f\xfd", "it is zstd; decompress it first, with unzstd"),
        (b"\xfd7zXZ\0", "it is xz; decompress it first, with unxz"),
        (b"BZh", "it is bzip2; decompress it first, with bunzip2"),
        (b"PK\x03\x04", "it is a zip archive; unpack it first"),
        (b"\xff\xfe", UTF_16),
        (b"\xfe\xff", UTF_16),
        (b"\0\0\xfe\xff", "it is UTF-32; make it UTF-8 first, with iconv -f UTF-32 -t UTF-8"),
        (b"\0", UTF_16),
    ];
    const UTF_16: &str = "it is UTF-16; make it UTF-8 first, with iconv -f UTF-16 -t UTF-8";
    let begins = BEGINNINGS.iter().find(|(beginning, _)| first.starts_with(beginning));
    // UTF-16 without a byte order mark: JSON begins with ASCII, so every other byte is 0.
    let is_wide = first.get(1) == Some(&0);
    begins.map(|(_, what)| *what).or(is_wide.then_some(UTF_16))
}

/// True if an input begins as one JSON array, where an object a line is expected.
pub fn is_array(first: &[u8]) -> bool {
    let first = first.strip_prefix(b"\xef\xbb\xbf").unwrap_or(first);
    first.trim_ascii_start().first() == Some(&b'[')
}

/// The hint for an array.
pub const ARRAY: &str = "write one object a line: jq -c '.[]'";

/// What is wrong with a text as JSON. `error` is that of serde_json.
pub fn no_json(text: &str, error: &serde_json::Error) -> String {
    let rest = text.as_bytes().get(error.column().saturating_sub(1)..).unwrap_or_default();
    if error.line() == 1 && rest.starts_with("\u{FEFF}".as_bytes()) {
        return "there is a byte order mark in the middle, as where files were put together; take it out"
            .to_owned();
    }
    let message = error.to_string();
    let problem = message.split(" at line ").next().unwrap_or(&message);
    let problem =
        NAMES.iter().fold(problem.to_owned(), |problem, (serde, ours)| problem.replace(serde, ours));
    match (error.line(), error.column()) {
        (0, _) | (_, 0) => problem,
        (1, column) => format!("{problem}, at column {column}"),
        (line, column) => format!("{problem}, at line {line}, column {column}"),
    }
}

/// Names of types in messages of serde_json, and those of JSON in their stead.
const NAMES: [(&str, &str); 12] = [
    ("invalid type: ", "there is a wrong value: "),
    ("invalid value: ", "there is a wrong value: "),
    ("map, expected", "an object, expected"),
    ("sequence, expected", "a list, expected"),
    ("integer `", "the number `"),
    ("floating point `", "the number `"),
    ("string \"", "the text \""),
    ("expected struct EventLine", "expected an object"),
    ("expected a string", "expected a text"),
    ("expected a sequence", "expected a list"),
    ("expected u16", "expected a whole number up to 65,535"),
    ("EOF while parsing", "it ends in the middle of"),
];
