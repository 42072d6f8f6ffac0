//! Names and texts with characters that show nothing, and JSON that is kept or refused.
//!
//! The tests of export and import use them, and so do the tests of the command, in `cli/tests/it`.

/// One of each class of characters that show nothing of themselves, or change how others are shown.
pub const HIDDEN: [char; 46] = [
    '\u{1}',
    '\u{7}',
    '\u{1b}',
    '\u{7f}',
    '\u{80}',
    '\u{85}',
    '\u{9b}',
    '\u{9f}',
    '\u{ad}',
    '\u{34f}',
    '\u{61c}',
    '\u{115f}',
    '\u{1160}',
    '\u{17b4}',
    '\u{180b}',
    '\u{180e}',
    '\u{200b}',
    '\u{200c}',
    '\u{200d}',
    '\u{200e}',
    '\u{200f}',
    '\u{2028}',
    '\u{2029}',
    '\u{202a}',
    '\u{202e}',
    '\u{2060}',
    '\u{2064}',
    '\u{2066}',
    '\u{2069}',
    '\u{206f}',
    '\u{3164}',
    '\u{fe00}',
    '\u{fe0f}',
    '\u{feff}',
    '\u{ffa0}',
    '\u{fff9}',
    '\u{fffb}',
    '\u{1bca0}',
    '\u{1d173}',
    '\u{e0001}',
    '\u{e0020}',
    '\u{e0041}',
    '\u{e007f}',
    '\u{e0100}',
    '\u{e01ef}',
    '\u{e0fff}',
];

/// What stays as it is: letters, marks, signs, spaces that take room.
pub const SEEN: &str = "a \u{a0}é e\u{301} \u{2003} ß 日本 \u{1F980} \u{5d0} \\u{202e} \"'<>&";

/// The hidden characters a name may hold.
pub fn hidden_in_names() -> String {
    HIDDEN.iter().filter(|sign| !sign.is_control()).collect()
}

/// The first hidden character of a text, line feeds aside.
pub fn first_hidden(text: &str) -> Option<String> {
    let found = text.chars().find(|sign| HIDDEN.contains(sign) || (sign.is_control() && *sign != '\n'));
    found.map(|sign| format!("{} in {text:?}", sign.escape_unicode()))
}

/// JSON that comes back as it was written.
pub const KEPT: [&str; 22] = [
    "0",
    "-0",
    "0.0",
    "-0.0",
    "1.0",
    "0.1",
    "0.10",
    "1e2",
    "1E+2",
    "100e-2",
    "0e999999999999999999999",
    "0.30000000000000004",
    "1.7976931348623157e308",
    "5e-324",
    "123456789.125",
    "1e23",
    "9007199254740993",
    "18446744073709551615",
    "-9223372036854775808",
    r#"{"a":1,"b":{"a":1},"c":[{"a":1},{"a":2}]}"#,
    r#"[{"a":1},{"a":1}]"#,
    r#""a \"quoted\": text, {\"a\":1,\"a\":2}, 1e999 \\""#,
];

/// JSON that does not, the column where it begins, and a word of what is said.
pub const NOT_KEPT: [(&str, usize, &str); 21] = [
    ("18446744073709551616", 1, "64 bits"),
    ("-9223372036854775809", 1, "64 bits"),
    ("123456789012345678901234567890", 1, "64 bits"),
    ("0.1000000000000000055511151231257827", 1, "come back as 0.1"),
    ("0.10000000000000001", 1, "come back as 0.1"),
    ("3.14159265358979323846", 1, "come back as 3.141592653589793"),
    ("9007199254740993.0", 1, "come back as 9007199254740992.0"),
    ("1e-400", 1, "come back as 0.0"),
    ("4.9406564584124654e-324", 1, "come back as 5e-324"),
    ("1.00000000000000000000000000000000000001", 1, "come back as 1.0"),
    (r#"{"a":18446744073709551616}"#, 6, "64 bits"),
    (r#"{"a":[1,{"b":[2,0.10000000000000001]}]}"#, 17, "come back"),
    (r#"{"a":1,"a":2}"#, 8, "twice"),
    (r#"{"a":1,"a":1}"#, 8, "twice"),
    (r#"{"a":1,"\u0061":2}"#, 8, "twice"),
    (r#"{"":1,"":2}"#, 7, "twice"),
    (r#"[[{"x":{"a":1,"b":2,"a":3}}]]"#, 21, "twice"),
    (r#"{"a\"":1,"b":[],"a\"":2}"#, 17, "twice"),
    (r#"{"\ud83e\udd80":1,"🦀":2}"#, 19, "twice"),
    (
        r#"{"1":1,"2":1,"3":1,"4":1,"5":1,"6":1,"7":1,"8":1,"9":1,"10":1,"11":1,"12":1,"13":1,"14":1,"15":1,"16":1,"17":1,"1":1}"#,
        112,
        "twice",
    ),
    (r#"{"é":1, "a" : 0 , "a" : 1}"#, 20, "twice"),
];
